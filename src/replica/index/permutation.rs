//! A keyed permutation of the 256 bits of a hash.
//!
//! Real PDQ bits are correlated with their neighbours, and a hostile member can choose hashes that share 16 bits in a
//! row. Under a permutation that only this node knows, neither fills one bucket. Distances do not change: the same
//! permutation is applied to both sides.

use super::Pdq;
use super::scan::{Hash, Path};
use super::simd;
use crate::replica::ids::sha256;

/// Where each bit goes, and tables to move 256 of them at once.
pub(super) struct Permutation {
    key: [u8; 32],
    forth: Moves,
    back: Moves,
}

/// One direction of the permutation.
pub(super) struct Moves {
    /// For each bit of the result the byte of the source that holds it, and its mask there.
    pub(super) byte: [u8; 256],
    pub(super) mask: [u8; 256],
    /// For each nibble of the source, what its 16 values put into the result. 32 KiB: it stays in the first cache.
    nibbles: Vec<[Hash; 16]>,
}

impl Permutation {
    /// What it takes of the heap.
    pub(super) const BYTES: usize = size_of::<Self>() + 2 * 64 * 16 * size_of::<Hash>();

    pub(super) fn new(key: [u8; 32]) -> Self {
        let mut from: [u8; 256] = std::array::from_fn(low_byte);
        let mut draws = Draws { key, round: 0, left: Vec::new() };
        for i in (1..256).rev() {
            from.swap(i, draws.below(i + 1));
        }
        let mut to = [0; 256];
        for (i, source) in from.iter().enumerate() {
            to[usize::from(*source)] = low_byte(i);
        }
        Self { key, forth: Moves::new(&from), back: Moves::new(&to) }
    }

    pub(super) fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// The hash as the index keeps it.
    pub(super) fn apply(&self, path: Path, hash: &Pdq) -> Hash {
        self.forth.apply(path, &Hash::from_bytes(hash))
    }

    /// The hash as the forum knows it.
    pub(super) fn undo(&self, path: Path, hash: &Hash) -> Pdq {
        self.back.apply(path, hash).to_bytes()
    }
}

impl Moves {
    /// `from[i]` is the bit of the source that becomes bit `i`.
    fn new(from: &[u8; 256]) -> Self {
        let mut nibbles = vec![[Hash::default(); 16]; 64];
        for (i, source) in from.iter().enumerate() {
            for (value, moved) in nibbles[usize::from(source / 4)].iter_mut().enumerate() {
                moved.0[i / 64] |= ((value as u64 >> (source % 4)) & 1) << (i % 64);
            }
        }
        Self { byte: from.map(|bit| bit / 8), mask: from.map(|bit| 1 << (bit % 8)), nibbles }
    }

    fn apply(&self, path: Path, hash: &Hash) -> Hash {
        simd::permute(path, self, hash).unwrap_or_else(|| self.by_nibble(hash))
    }

    fn by_nibble(&self, hash: &Hash) -> Hash {
        let mut moved = Hash::default();
        for (i, table) in self.nibbles.iter().enumerate() {
            let part = &table[(hash.0[i / 16] >> (4 * (i % 16)) & 15) as usize];
            moved.0.iter_mut().zip(part.0).for_each(|(word, part)| *word |= part);
        }
        moved
    }
}

/// Numbers that follow from the key.
struct Draws {
    key: [u8; 32],
    round: u32,
    left: Vec<u8>,
}

impl Draws {
    /// A number below `end`, at most 256, each as likely as the others.
    fn below(&mut self, end: usize) -> usize {
        loop {
            let drawn = usize::from(self.byte());
            if drawn < 256 / end * end {
                return drawn % end;
            }
        }
    }

    fn byte(&mut self) -> u8 {
        if self.left.is_empty() {
            self.left = sha256(&[b"staydown index permutation", &self.key, &self.round.to_be_bytes()]).to_vec();
            self.round += 1;
        }
        self.left.pop().unwrap_or_default()
    }
}

fn low_byte(i: usize) -> u8 {
    i as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_moves_the_bits_there_and_back() {
        let permutation = Permutation::new([7; 32]);
        for path in Path::all() {
            let mut seen = Hash::default();
            for bit in 0..256 {
                let mut hash = [0; 32];
                hash[bit / 8] = 1 << (bit % 8);
                let moved = permutation.apply(path, &hash);
                assert_eq!(moved.0.iter().map(|w| w.count_ones()).sum::<u32>(), 1);
                assert_eq!(moved, permutation.apply(Path::PORTABLE, &hash), "{path:?}");
                assert_eq!(permutation.undo(path, &moved), hash, "{path:?}");
                seen.0.iter_mut().zip(moved.0).for_each(|(all, one)| *all |= one);
            }
            assert_eq!(seen, Hash([u64::MAX; 4]));
        }
    }

    #[test]
    fn another_key_moves_them_elsewhere() {
        let hash: Pdq = std::array::from_fn(|i| (i as u8).wrapping_mul(37));
        let of = |key| Permutation::new([key; 32]).apply(Path::PORTABLE, &hash);
        assert_ne!(of(1), of(2));
        assert_eq!(of(1), of(1));
    }
}
