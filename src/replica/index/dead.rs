//! Which hashes of a segment were removed. A segment never changes and readers share it, so what was removed stands
//! beside it: a bit for each hash, in pieces, so that a removal copies a piece and not the whole when a reader holds
//! the same.

use std::sync::Arc;

/// Words of a piece: 2 KiB, 16,384 hashes.
const WORDS: usize = 256;
const BITS: u32 = WORDS as u32 * 64;

type Piece = Option<Arc<[u64; WORDS]>>;

/// The removed hashes of one segment, by their number.
#[derive(Clone, Debug, Default)]
pub(super) struct Dead {
    pieces: Arc<Vec<Piece>>,
    count: u32,
}

impl Dead {
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn has(&self, id: u32) -> bool {
        self.count > 0 && self.word(id / 64) >> (id % 64) & 1 == 1
    }

    /// Marks a hash; `false` if it was marked.
    pub(super) fn set(&mut self, id: u32) -> bool {
        if self.has(id) {
            return false;
        }
        let pieces = Arc::make_mut(&mut self.pieces);
        let at = (id / BITS) as usize;
        if pieces.len() <= at {
            pieces.resize(at + 1, None);
        }
        let piece = Arc::make_mut(pieces[at].get_or_insert_with(|| Arc::new([0; WORDS])));
        piece[(id % BITS / 64) as usize] |= 1 << (id % 64);
        self.count += 1;
        true
    }

    /// The bits of hashes `64 * number` and the 63 after it.
    pub(super) fn word(&self, number: u32) -> u64 {
        let piece = self.pieces.get((number * 64 / BITS) as usize);
        piece.and_then(Option::as_ref).map_or(0, |piece| piece[number as usize % WORDS])
    }

    /// The marked ones, ascending, that are not marked in `before`.
    pub(super) fn since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = u32> + 'a {
        let numbers = self.pieces.iter().enumerate().filter(|(at, piece)| match (piece, before.pieces.get(*at)) {
            (Some(now), Some(Some(then))) => !Arc::ptr_eq(now, then),
            (piece, _) => piece.is_some(),
        });
        let words = numbers.flat_map(|(at, _)| (at * WORDS..(at + 1) * WORDS).map(|number| number as u32));
        words.flat_map(|number| {
            let mut bits = self.word(number) & !before.word(number);
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros())?;
                bits &= bits - 1;
                Some(number * 64 + bit)
            })
        })
    }

    /// For each word of bits of `len` hashes, how many are marked before it.
    pub(super) fn ranks(&self, len: usize) -> Ranks<'_> {
        let mut before = Vec::new();
        if self.count > 0 {
            before.reserve_exact(len.div_ceil(64));
            let mut sum = 0;
            for number in 0..len.div_ceil(64) {
                before.push(sum);
                sum += self.word(number as u32).count_ones();
            }
        }
        Ranks { dead: self, before }
    }

    pub(super) fn bytes(&self) -> usize {
        let pieces = self.pieces.iter().filter(|piece| piece.is_some()).count();
        self.pieces.capacity() * size_of::<Piece>() + pieces * (WORDS * 8 + 16)
    }
}

/// What number a hash has among those that are left.
pub(super) struct Ranks<'a> {
    dead: &'a Dead,
    before: Vec<u32>,
}

impl Ranks<'_> {
    /// Whether nothing was removed, so that every hash keeps its number.
    pub(super) fn is_plain(&self) -> bool {
        self.before.is_empty()
    }

    /// `None` for a removed one.
    pub(super) fn of(&self, id: u32) -> Option<u32> {
        if self.is_plain() {
            return Some(id);
        }
        let word = self.dead.word(id / 64);
        let below = (word & ((1 << (id % 64)) - 1)).count_ones();
        (word >> (id % 64) & 1 == 0).then(|| id - self.before[(id / 64) as usize] - below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_it_knew_and_the_difference_is_told() {
        let mut dead = Dead::default();
        assert!(dead.set(3) && dead.set(70_000) && !dead.set(3));
        let before = dead.clone();
        assert!(dead.set(4) && dead.set(16_383) && dead.set(16_384) && dead.set(200_000));
        assert!(!before.has(4) && !before.has(200_000) && before.has(70_000));
        assert_eq!(dead.since(&before).collect::<Vec<_>>(), [4, 16_383, 16_384, 200_000]);
        assert_eq!(before.since(&Dead::default()).collect::<Vec<_>>(), [3, 70_000]);
        assert_eq!(dead.count(), 6);
    }

    #[test]
    fn the_rest_is_numbered_without_gaps() {
        let mut dead = Dead::default();
        let removed = [0, 63, 64, 100, 199];
        removed.iter().for_each(|id| assert!(dead.set(*id)));
        let ranks = dead.ranks(200);
        let left: Vec<_> = (0..200).filter_map(|id| ranks.of(id)).collect();
        assert_eq!(left, (0..195).collect::<Vec<_>>());
        assert!(removed.iter().all(|id| ranks.of(*id).is_none()));
    }
}
