//! Counters of one kind that differ by a name: as many as there are names, and no more than a limit.

use std::borrow::ToOwned;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;

use super::read;

/// What all names beyond the limit are counted under.
pub(super) const OTHERS: &str = "other";

/// A cell for each name. Reading takes no lock; a name that is new costs a copy of the table, which happens a few times
/// in the life of a node.
pub struct Family<K: ToOwned + ?Sized, V> {
    cells: ArcSwap<BTreeMap<K::Owned, Arc<V>>>,
    others: Arc<V>,
    max: usize,
}

impl<K: Ord + ToOwned<Owned: Ord + Clone> + ?Sized, V: Default> Family<K, V> {
    /// Of at most `max` names, and one cell for the rest.
    pub fn new(max: usize) -> Self {
        Self { cells: ArcSwap::default(), others: Arc::default(), max }
    }

    /// The cell of `name`.
    pub fn at(&self, name: &K) -> Arc<V> {
        if let Some(cell) = self.cells.load().get(name) {
            return Arc::clone(cell);
        }
        self.cells.rcu(|cells| {
            let mut cells = BTreeMap::clone(cells);
            if cells.len() < self.max {
                cells.entry(name.to_owned()).or_default();
            }
            cells
        });
        self.cells.load().get(name).map_or_else(|| self.others(), Arc::clone)
    }

    /// The cell of what has no name of its own.
    pub fn others(&self) -> Arc<V> {
        Arc::clone(&self.others)
    }
}

impl<V> Family<str, V> {
    /// Every name with its cell, in their order, and what they are beyond the limit last.
    pub fn cells(&self) -> Vec<(String, Arc<V>)> {
        let cells = self.cells.load();
        let named = cells.iter().map(|(name, cell)| (name.clone(), Arc::clone(cell)));
        named.chain([(OTHERS.to_owned(), Arc::clone(&self.others))]).collect()
    }
}

impl<K: ToOwned<Owned: Ord + Clone> + ?Sized> Family<K, AtomicU64> {
    /// Every name with its count, in their order, without the others.
    pub fn counts(&self) -> Vec<(K::Owned, u64)> {
        self.cells.load().iter().map(|(name, cell)| (name.clone(), read(cell))).collect()
    }
}

impl<K: ToOwned + ?Sized, V> fmt::Debug for Family<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family").field("max", &self.max).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::add;
    use super::*;

    #[test]
    fn nothing_is_lost_where_many_threads_find_a_name_first() {
        let family: Family<str, AtomicU64> = Family::new(8);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..400 {
                        add(&family.at(&format!("name-{}", n % 10)), 1);
                    }
                });
            }
        });
        let counts: Vec<_> = family.cells().iter().map(|(_, cell)| read(cell)).collect();
        assert_eq!(counts, [[160; 8].as_slice(), &[320]].concat());
    }
}
