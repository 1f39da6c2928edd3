//! A sorted map that readers share while one writer changes it: under the indexes of documents and of videos.

use std::sync::Arc;

/// Pairs of one chunk of a sorted map, before it is cut in two: what is copied when it changes while somebody reads.
const CHUNK_LEN_MAX: usize = 512;

type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// A sorted map in chunks. A copy shares them; who changes one then copies that chunk, and the list of chunks.
#[derive(Clone, Debug)]
pub(super) struct Sorted<K, V> {
    chunks: Arc<Vec<Chunk<K, V>>>,
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self { chunks: Arc::default() }
    }
}

impl<K: Ord + Clone, V: Clone> Sorted<K, V> {
    /// The chunk in which `key` stands or would stand, and where in it.
    fn place(&self, key: &K) -> (usize, Result<usize, usize>) {
        let after = self.chunks.partition_point(|chunk| chunk.first().is_some_and(|(first, _)| first <= key));
        let chunk = after.saturating_sub(1);
        let held = self.chunks.get(chunk).map_or(&[][..], |chunk| chunk.as_slice());
        (chunk, held.binary_search_by(|(held, _)| held.cmp(key)))
    }

    /// What stands at `key`.
    pub(super) fn find(&self, key: &K) -> Option<&V> {
        let (chunk, at) = self.place(key);
        let at = at.ok()?;
        Some(&self.chunks[chunk][at].1)
    }

    /// Whether there is nothing in it.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// All pairs from `key` on.
    pub(super) fn from<'a>(&'a self, key: &K) -> impl Iterator<Item = &'a (K, V)> + use<'a, K, V> {
        let (chunk, at) = self.place(key);
        let at = at.unwrap_or_else(|at| at);
        let rest = self.chunks.get(chunk..).unwrap_or_default();
        rest.iter().enumerate().flat_map(move |(n, chunk)| &chunk[if n == 0 { at } else { 0 }..])
    }

    /// Puts `value` at `key`; returns what stood there.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (at, place) = self.place(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks.is_empty() {
            chunks.push(Arc::new(vec![(key, value)]));
            return None;
        }
        let chunk = Arc::make_mut(&mut chunks[at]);
        match place {
            Ok(place) => return Some(std::mem::replace(&mut chunk[place].1, value)),
            Err(place) => chunk.insert(place, (key, value)),
        }
        if chunk.len() > CHUNK_LEN_MAX {
            let upper = chunk.split_off(CHUNK_LEN_MAX / 2);
            chunks.insert(at + 1, Arc::new(upper));
        }
        None
    }

    /// Takes out what stands at `key`.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let (at, place) = self.place(key);
        let place = place.ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(&mut chunks[at]);
        let (_, value) = chunk.remove(place);
        if chunk.is_empty() {
            chunks.remove(at);
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sorted_map_is_a_map(steps in proptest::collection::vec((any::<bool>(), 0_u16..2_000), 0..4_000)) {
            let (mut map, mut sorted) = (BTreeMap::new(), Sorted::default());
            let mut copy = None;
            for (n, (adds, key)) in steps.iter().enumerate() {
                if *adds {
                    map.insert(*key, n);
                    sorted.insert(*key, n);
                } else {
                    prop_assert_eq!(sorted.remove(key), map.remove(key));
                }
                if n == steps.len() / 2 {
                    copy = Some((map.clone(), sorted.clone()));
                }
            }
            for (map, sorted) in copy.into_iter().chain([(map, sorted)]) {
                prop_assert!(sorted.from(&0).map(|(k, v)| (k, v)).eq(map.iter()));
                prop_assert!(sorted.from(&777).map(|(k, v)| (k, v)).eq(map.range(777..)));
                prop_assert_eq!(sorted.find(&42), map.get(&42));
                prop_assert!(sorted.chunks.iter().all(|chunk| (1..=CHUNK_LEN_MAX).contains(&chunk.len())));
            }
        }
    }
}
