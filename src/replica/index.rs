//! Finding listed hashes near a given one. The answer equals brute force: a missed hash is a defect.
//!
//! First cut: a plain scan over PDQ hashes, behind the type that a faster index will fill. Exact types need no index
//! of their own: the list itself is ordered by subject.

pub mod frames;

use std::sync::Arc;

use super::signal;

/// Hashes of one segment. A segment is immutable once full, so that readers share it.
const SEGMENT_SIZE: usize = 4_096;
/// Matches of one query: more than this are told as "truncated".
pub const MATCHES_MAX: usize = 1_000;

/// A PDQ hash.
pub type Pdq = [u8; 32];

/// All PDQ hashes that were ever listed here. What they mean now is the view's business.
#[derive(Clone, Debug, Default)]
pub struct HammingIndex {
    full: Vec<Arc<[Pdq]>>,
    tail: Vec<Pdq>,
}

/// The index as it was at one moment, to be searched without holding anything up.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    segments: Vec<Arc<[Pdq]>>,
}

impl HammingIndex {
    /// Adds a hash; the caller sees to it that it is new.
    pub fn insert(&mut self, hash: Pdq) {
        self.tail.push(hash);
        if self.tail.len() == SEGMENT_SIZE {
            self.full.push(std::mem::take(&mut self.tail).into());
        }
    }

    /// Number of hashes.
    pub fn len(&self) -> usize {
        self.full.len() * SEGMENT_SIZE + self.tail.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The index as it is now; costs a pointer a segment and one copy of the tail.
    pub fn snapshot(&self) -> Snapshot {
        let mut segments = self.full.clone();
        segments.push(self.tail.as_slice().into());
        Snapshot { segments }
    }
}

impl Snapshot {
    /// All hashes within `threshold` bits of `query`, nearest first, then by value.
    pub fn near(&self, query: &Pdq, threshold: u32) -> Vec<(u32, Pdq)> {
        let all = self.segments.iter().flat_map(|segment| segment.iter());
        let mut near: Vec<_> = all
            .map(|hash| (signal::distance(query, hash), *hash))
            .filter(|(distance, _)| *distance <= threshold)
            .collect();
        near.sort_unstable();
        near
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_threshold_is_inclusive() {
        let mut index = HammingIndex::default();
        let mut hash = [0; 32];
        hash[..3].fill(0xff);
        hash[3] = 0xfe; // 31 bits
        index.insert(hash);
        hash[4] = 1; // 32 bits
        index.insert(hash);
        assert_eq!(index.snapshot().near(&[0; 32], 31).iter().map(|n| n.0).collect::<Vec<_>>(), [31]);
        assert_eq!(index.snapshot().near(&[0; 32], 32).len(), 2);
    }

    proptest! {
        #[test]
        fn a_snapshot_finds_what_was_inserted_before_it_across_segments(extra in 0_usize..3) {
            let mut index = HammingIndex::default();
            for i in 0..SEGMENT_SIZE * 2 + extra {
                let mut hash = [0xaa; 32];
                hash[..8].copy_from_slice(&(i as u64).to_be_bytes());
                index.insert(hash);
            }
            let snapshot = index.snapshot();
            index.insert([0x55; 32]);
            prop_assert_eq!(index.len(), SEGMENT_SIZE * 2 + extra + 1);
            let mut first = [0xaa; 32];
            first[..8].fill(0);
            prop_assert_eq!(snapshot.near(&first, 0).len(), 1);
            prop_assert!(snapshot.near(&[0x55; 32], 0).is_empty());
        }
    }
}
