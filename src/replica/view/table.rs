//! Things that registers name by number: each number once, none is ever given back.

use std::sync::Arc;

/// Things of one chunk: what is copied when one is added while a clone is alive.
const CHUNK: usize = 4_096;

/// The things by their numbers. A clone costs a pointer for each chunk and stays as it was.
#[derive(Clone, Debug)]
pub(super) struct Table<T> {
    chunks: Vec<Arc<Vec<T>>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T: Clone> Table<T> {
    /// The number of a thing: 0, 1, 2, ... That there are fewer than 2^32 the disk sees to, which has a record for each.
    pub(super) fn push(&mut self, thing: T) -> u32 {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Arc::default());
        }
        if let Some(chunk) = self.chunks.last_mut() {
            Arc::make_mut(chunk).push(thing);
        }
        u32::try_from(self.len() - 1).unwrap_or(u32::MAX)
    }
}

impl<T> Table<T> {
    /// The thing of a number that [`Table::push`] gave.
    pub(super) fn at(&self, number: u32) -> &T {
        &self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    /// All, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }
}
