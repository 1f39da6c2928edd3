//! The nearest hashes that were found so far, in bounded room: a hot list may give hundreds of thousands.

use super::Pdq;

/// How many times the limit may wait unsorted. More room means fewer rounds of sorting them out.
const SLACK: usize = 2;
/// The least room, so that a small limit does not sort all the time. Thousands of queries may each have it.
const ROOM_MIN: usize = 64;

/// What is near a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Near {
    /// Distance in bits and hash, nearest first, then by value.
    pub hits: Vec<(u32, Pdq)>,
    /// Whether there are more than the limit; the farther ones are left out.
    pub truncated: bool,
}

/// A hit that is kept, in the order of the answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    /// The distance, then the first 12 bytes of the hash: one comparison that nearly always decides.
    rank: u128,
    hash: Pdq,
}

impl Kept {
    fn new(distance: u32, hash: Pdq) -> Self {
        let mut rank = [0; 16];
        rank[..4].copy_from_slice(&distance.to_be_bytes());
        rank[4..].copy_from_slice(&hash[..12]);
        Self { rank: u128::from_be_bytes(rank), hash }
    }

    fn distance(&self) -> u32 {
        (self.rank >> 96) as u32
    }
}

/// Collects hits and keeps the nearest `limit`.
pub(super) struct Nearest {
    limit: usize,
    kept: Vec<Kept>,
    truncated: bool,
    /// The farthest of the nearest, once there were too many: nothing from there on matters.
    bar: Option<Kept>,
}

impl Nearest {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, kept: Vec::new(), truncated: false, bar: None }
    }

    /// The greatest distance that can still matter.
    pub(super) fn reach(&self, threshold: u32) -> u32 {
        self.bar.as_ref().map_or(threshold, |bar| threshold.min(bar.distance()))
    }

    /// Takes a hit, of which each hash comes once.
    pub(super) fn offer(&mut self, distance: u32, hash: impl FnOnce() -> Pdq) {
        if self.bar.is_some_and(|bar| distance > bar.distance()) {
            return;
        }
        let hit = Kept::new(distance, hash());
        if self.bar.is_some_and(|bar| hit >= bar) {
            return;
        }
        self.kept.push(hit);
        if self.kept.len() >= self.limit.saturating_mul(SLACK).max(ROOM_MIN) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.kept.len() <= self.limit {
            return;
        }
        self.truncated = true;
        if self.limit > 0 {
            self.kept.select_nth_unstable(self.limit - 1);
        }
        self.kept.truncate(self.limit);
        self.bar = Some(self.kept.last().copied().unwrap_or(Kept { rank: 0, hash: [0; 32] }));
    }

    pub(super) fn finish(mut self) -> Near {
        self.cut();
        self.kept.sort_unstable();
        Near { hits: self.kept.iter().map(|kept| (kept.distance(), kept.hash)).collect(), truncated: self.truncated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_are_kept_in_order_whatever_order_they_come_in() {
        let hits: Vec<(u32, Pdq)> = (0..5_000_u32)
            .map(|i| {
                let mut hash = [0; 32];
                hash[..4].copy_from_slice(&i.wrapping_mul(2_654_435_761).to_be_bytes());
                (i % 7, hash)
            })
            .collect();
        let mut sorted = hits.clone();
        sorted.sort_unstable();
        for limit in [0, 1, 100, 1_000, 4_999, 5_000, usize::MAX] {
            for reverse in [false, true] {
                let mut nearest = Nearest::new(limit);
                let given = if reverse { sorted.iter().rev().copied().collect() } else { hits.clone() };
                given.into_iter().for_each(|(distance, hash)| nearest.offer(distance, || hash));
                let near = nearest.finish();
                assert_eq!(near.hits, sorted[..limit.min(5_000)]);
                assert_eq!(near.truncated, limit < 5_000);
            }
        }
    }
}
