//! How a lookup finds everything within a distance by reading little, and when it rather reads everything.
//!
//! # Scheme
//!
//! A hash is cut into 16 bands of 16 bits that stand in a ring: after band 15 comes band 0. Each band has a table of
//! buckets, one for each of its values, and a bucket holds for every hash in it the *next* band's 16 bits, its sketch.
//! At distance 31 a query opens, in each band, the bucket of its own value and the 16 that differ in one bit; there it
//! keeps the sketches that differ from its own next band by at most 3 bits, or 2 in a bucket one bit away; and it
//! compares the few hashes that are left on all their bits.
//!
//! # Why nothing is missed
//!
//! Give every band i an integer *reach* t(i), such that the reaches sum to T - 15 for threshold T, and let d(i) be the
//! distance between query and hash in band i. Claim: when the whole distance is at most T, there is a band i with
//!
//! - d(i) ≤ t(i), and
//! - d(i) + d(i+1) ≤ t(i) + t(i+1) + 1.
//!
//! Proof. Let e(i) = d(i) - t(i) - 1. Around the ring the e(i) sum to at most T - (T - 15) - 16 = -1. Walk round the
//! ring for ever, adding up e as you go: each round ends at least one lower than it began, so the sums fall without
//! end, and within one round there is a place where the sum is the highest of all that are still to come, taking the
//! last such place when several are equally high. (Take the maximum over the first round; it is above everything in
//! every later round, since they repeat the first one lower.) Start there: every sum from that place on is below zero,
//! and being integers, at most -1. One step: d(i) - t(i) - 1 ≤ -1. Two steps: d(i) + d(i+1) - t(i) - t(i+1) - 2 ≤ -1.
//! These are the two claims. ∎
//!
//! For T = 31 all reaches are 1, which gives the numbers above. A smaller threshold lowers a band's reach by one for
//! each bit: to 0, where only the bucket of the same value is opened and the sketch differs by less; and below 15 to
//! -1, where a band is not looked at, since no distance is negative. Above 31 a band would open 137 buckets; a scan is
//! as good.
//!
//! A small segment uses only the low bits of a band to choose the bucket. They differ by no more than the whole band,
//! so both conditions still hold for what they count, and more is compared than needed, never less.
//!
//! # No hit twice
//!
//! A hash may meet the conditions in several bands. It counts in the first, which its bits tell, so that nothing has
//! to be remembered.
//!
//! # Planner
//!
//! The tables tell how many sketches a query would read before it reads one. When that is dearer than reading every
//! hash, because somebody filled its buckets, it reads every hash.

use super::dead::Dead;
use super::nearest::Nearest;
use super::permutation::Permutation;
use super::scan::{BANDS, BLOCK, CHUNK, Found, Hash, Path, Planes, Visit};
use super::segment::{Bands, Segment};
use super::simd;

/// The greatest distance that the tables serve.
const REACH_MAX: u32 = 31;
/// Buckets opened at once: all of one query, or one band's of 16.
const VISITS: usize = BANDS * (1 + 16);
/// Queries of a batch that go through a band together.
const GROUP: usize = 16;
/// A query is dear when it would read more sketches than this share of the hashes. A sketch that passes costs a read
/// at a random place, as much as five hashes or so in a row; when all of them pass, this is a third of a scan.
const DEAR_SHARE: usize = 16;
/// ... and more than these, which cost less than deciding.
const DEAR_MIN: usize = 1_024;
/// Cache lines of a bucket that are asked for ahead; for the rest the machine sees where it goes.
const LINES_AHEAD: u32 = 8;
/// Sketches in a cache line.
const SKETCHES_IN_LINE: u32 = 32;

/// How far around a query's value each band is searched.
pub(super) struct Plan {
    reach: [i32; BANDS],
}

impl Plan {
    /// `None` where only a scan serves.
    pub(super) fn new(threshold: u32) -> Option<Self> {
        let threshold = i32::try_from(threshold).ok().filter(|t| *t <= REACH_MAX.cast_signed())?;
        let (base, more) = if threshold < 15 { (-1, threshold + 1) } else { (0, threshold - 15) };
        Some(Self { reach: std::array::from_fn(|band| base + i32::from((band as i32) < more)) })
    }

    /// By how many bits a sketch may differ in the bucket that is `off` bits away; `None` when that is not opened.
    fn limit(&self, band: usize, off: u32) -> Option<u32> {
        let both = self.reach[band] + self.reach[(band + 1) % BANDS] + 1;
        let off = off.cast_signed();
        (off <= self.reach[band]).then_some(both - off).and_then(|limit| u32::try_from(limit).ok())
    }

    /// Whether a hash is found in `band` when its bits differ from the query's in `bits`.
    fn finds(&self, band: usize, bits: &Hash, mask: u16) -> bool {
        let off = (bits.band(band) & mask).count_ones();
        self.limit(band, off).is_some_and(|limit| bits.band((band + 1) % BANDS).count_ones() <= limit)
    }
}

/// What all lookups of one call have in common.
pub(super) struct Search<'a> {
    pub(super) path: Path,
    pub(super) permutation: &'a Permutation,
    pub(super) threshold: u32,
    pub(super) plan: Option<Plan>,
}

impl Search<'_> {
    /// Offers what is near one query in a segment.
    pub(super) fn one(&self, (segment, dead): (&Segment, &Dead), query: &Hash, nearest: &mut Nearest, room: &mut Room) {
        let (Some(plan), Some(bands)) = (&self.plan, segment.bands()) else {
            return self.scan((segment.hashes(), dead), query, nearest, &mut room.found, |_| true);
        };
        room.visits.len = 0;
        (0..BANDS).for_each(|band| bands.prefetch(band, query, plan));
        let entries: usize = (0..BANDS).map(|band| room.visits.open(bands, band, (0, query), plan)).sum();
        if is_dear(entries, segment.len()) {
            return self.scan((segment.hashes(), dead), query, nearest, &mut room.found, |_| true);
        }
        let (query, nearest) = (std::slice::from_ref(query), std::slice::from_mut(nearest));
        self.run((plan, bands), (segment, dead), query, nearest, room);
    }

    /// Offers what is near each of many queries, band by band, so that a band's tables stay in the cache.
    pub(super) fn many(
        &self,
        (segment, dead): (&Segment, &Dead),
        queries: &[Hash],
        nearest: &mut [Nearest],
        room: &mut Room,
    ) {
        let (Some(plan), Some(bands)) = (&self.plan, segment.bands()) else {
            return self.scan_many((segment.hashes(), dead), queries, nearest, room);
        };
        let mut read = vec![0_usize; queries.len()];
        // Where a query became dear: bands before it are done.
        let mut left = vec![BANDS; queries.len()];
        for band in 0..BANDS {
            for (at, group) in queries.chunks(GROUP).enumerate() {
                let first = at * GROUP;
                group.iter().for_each(|query| bands.prefetch(band, query, plan));
                room.visits.len = 0;
                for (i, query) in group.iter().enumerate() {
                    if left[first + i] == BANDS {
                        let opened = room.visits.len;
                        read[first + i] += room.visits.open(bands, band, (i as u16, query), plan);
                        if is_dear(read[first + i], segment.len()) {
                            room.visits.len = opened;
                            left[first + i] = band;
                        }
                    }
                }
                let nearest = &mut nearest[first..first + group.len()];
                self.run((plan, bands), (segment, dead), group, nearest, room);
            }
        }
        for (i, left) in left.into_iter().enumerate().filter(|(_, left)| *left < BANDS) {
            let unseen = |bits: &Hash| !(0..left).any(|band| plan.finds(band, bits, bands.mask()));
            self.scan((segment.hashes(), dead), &queries[i], &mut nearest[i], &mut room.found, unseen);
        }
    }

    /// Reads the opened buckets.
    fn run(
        &self,
        (plan, bands): (&Plan, &Bands),
        (segment, dead): (&Segment, &Dead),
        queries: &[Hash],
        nearest: &mut [Nearest],
        Room { visits, found, .. }: &mut Room,
    ) {
        let visits = &mut visits.list[..visits.len];
        let mut next = 0;
        while next < visits.len() {
            found.len = 0;
            next = simd::filter(self.path, bands.sketches(), visits, next, found);
            simd::verify(self.path, (bands.ids(), segment.hashes()), queries, visits, self.threshold, found);
            for i in 0..found.len {
                let (id, visit) = (found.at[i], &visits[usize::from(found.visit[i])]);
                let hash = &segment.hashes()[id as usize];
                let query = usize::from(visit.query);
                let bits = hash.xor(&queries[query]);
                let first = !(0..usize::from(visit.band)).any(|band| plan.finds(band, &bits, bands.mask()));
                if first && !dead.has(id) {
                    nearest[query].offer(found.distance[i], || self.permutation.undo(self.path, hash));
                }
            }
        }
    }

    /// Offers what is near in a list, of which the caller wants those whose difference from the query he accepts.
    pub(super) fn scan(
        &self,
        (hashes, dead): (&[Hash], &Dead),
        query: &Hash,
        nearest: &mut Nearest,
        found: &mut Found,
        wanted: impl Fn(&Hash) -> bool,
    ) {
        for (at, chunk) in hashes.chunks(CHUNK).enumerate() {
            found.len = 0;
            simd::scan_one(self.path, chunk, query, nearest.reach(self.threshold), found);
            for i in 0..found.len {
                let (hash, id) = (&chunk[found.at[i] as usize], (at * CHUNK) as u32 + found.at[i]);
                if wanted(&hash.xor(query)) && !dead.has(id) {
                    nearest.offer(found.distance[i], || self.permutation.undo(self.path, hash));
                }
            }
        }
    }

    /// The same for many queries: each block of hashes meets all of them while it is in the cache.
    pub(super) fn scan_many(
        &self,
        (hashes, dead): (&[Hash], &Dead),
        queries: &[Hash],
        nearest: &mut [Nearest],
        Room { found, planes, .. }: &mut Room,
    ) {
        for (at, block) in hashes.chunks(BLOCK).enumerate() {
            planes.fill(block);
            for (query, nearest) in queries.iter().zip(nearest.iter_mut()) {
                found.len = 0;
                let threshold = nearest.reach(self.threshold);
                simd::scan_planes(self.path, (planes, block.len()), query, threshold, found);
                for i in 0..found.len {
                    let hash = &block[found.at[i] as usize];
                    if !dead.has((at * BLOCK) as u32 + found.at[i]) {
                        nearest.offer(found.distance[i], || self.permutation.undo(self.path, hash));
                    }
                }
            }
        }
    }
}

fn is_dear(entries: usize, len: usize) -> bool {
    entries > len / DEAR_SHARE + DEAR_MIN
}

/// What a lookup works in. It has the same size for every list and every query.
pub(super) struct Room {
    visits: Visits,
    pub(super) found: Found,
    planes: Planes,
}

impl Room {
    pub(super) const fn new() -> Self {
        let visits = Visits { list: [Visit::NONE; VISITS], len: 0 };
        Self { visits, found: Found::new(), planes: Planes::new() }
    }
}

/// The buckets that are to be read.
struct Visits {
    list: [Visit; VISITS],
    len: usize,
}

impl Visits {
    /// Adds the buckets of one query in one band, asks for what is in them, and says how many sketches that is.
    fn open(&mut self, bands: &Bands, band: usize, (number, query): (u16, &Hash), plan: &Plan) -> usize {
        let key = query.band(band) & bands.mask();
        let sketch = query.band((band + 1) % BANDS);
        let mut entries = 0;
        let mut add = |key: u16, limit: u32| {
            let (start, end) = bands.bucket(band, key);
            if start == end {
                return;
            }
            bands.prefetch_sketches(start, end);
            self.list[self.len] = Visit { start, end, sketch, limit: limit as u8, band: band as u8, query: number };
            self.len += 1;
            entries += (end - start) as usize;
        };
        if let Some(limit) = plan.limit(band, 0) {
            add(key, limit);
        }
        if let Some(limit) = plan.limit(band, 1) {
            (0..bands.bits()).for_each(|bit| add(key ^ 1 << bit, limit));
        }
        entries
    }
}

impl Bands {
    /// The values of a band whose buckets are opened, and by how many bits a sketch may differ there.
    fn keys<'a>(&self, band: usize, query: &Hash, plan: &'a Plan) -> impl Iterator<Item = (u16, u32)> + use<'a> {
        let (mask, bits) = (self.mask(), self.bits());
        let key = query.band(band) & mask;
        let same = plan.limit(band, 0).map(|limit| (key, limit));
        let near = plan.limit(band, 1).map(|limit| (0..bits).map(move |bit| (key ^ 1 << bit, limit)));
        same.into_iter().chain(near.into_iter().flatten())
    }

    /// Asks for the part of the table that the query needs.
    fn prefetch(&self, band: usize, query: &Hash, plan: &Plan) {
        let key = query.band(band) & self.mask();
        self.prefetch_bucket(band, key);
        if plan.limit(band, 1).is_some() {
            // The lowest four bits stay in the same line.
            (4..self.bits()).for_each(|bit| self.prefetch_bucket(band, key ^ 1 << bit));
        }
    }

    /// Asks for the first lines of a bucket and its last.
    #[inline(always)]
    fn prefetch_sketches(&self, start: u32, end: u32) {
        simd::prefetch(self.sketches(), start as usize);
        simd::prefetch(self.sketches(), end as usize - 1);
        let mut next = start + SKETCHES_IN_LINE;
        let stop = end.min(start + LINES_AHEAD * SKETCHES_IN_LINE);
        while next < stop {
            simd::prefetch(self.sketches(), next as usize);
            next += SKETCHES_IN_LINE;
        }
    }
}

/// What a lookup reads, so that a benchmark can set its time beside what the machine needs for as many cache lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Buckets that are not empty.
    pub buckets: usize,
    /// Sketches in them.
    pub sketches: usize,
    /// Hashes compared on all their bits after their sketch passed.
    pub candidates: usize,
    /// Hashes that are scanned.
    pub scanned: usize,
    /// Cache lines at random places: of tables, sketches and candidates, not of what is scanned.
    pub lines: usize,
}

impl Search<'_> {
    /// Counts what [`Self::one`] reads.
    pub(super) fn effort(&self, segment: &Segment, query: &Hash, effort: &mut Effort) {
        let opened = |plan, bands: &Bands| {
            let mut sum = Effort::default();
            for band in 0..BANDS {
                let mut tables: Vec<_> = bands.keys(band, query, plan).map(|(key, _)| key / 16).collect();
                tables.sort_unstable();
                tables.dedup();
                sum.lines += tables.len();
                for (key, limit) in bands.keys(band, query, plan) {
                    let (start, end) = bands.bucket(band, key);
                    if start < end {
                        sum.buckets += 1;
                        sum.sketches += (end - start) as usize;
                        sum.lines += ((end - 1) / SKETCHES_IN_LINE - start / SKETCHES_IN_LINE) as usize + 1;
                        let sketches = &bands.sketches()[start as usize..end as usize];
                        let near = |s: &&u16| (**s ^ query.band((band + 1) % BANDS)).count_ones() <= limit;
                        sum.candidates += sketches.iter().filter(near).count();
                    }
                }
            }
            sum.lines += 2 * sum.candidates;
            sum
        };
        match (&self.plan, segment.bands()) {
            (Some(plan), Some(bands)) => {
                let sum = opened(plan, bands);
                if is_dear(sum.sketches, segment.len()) {
                    effort.scanned += segment.len();
                } else {
                    effort.buckets += sum.buckets;
                    effort.sketches += sum.sketches;
                    effort.candidates += sum.candidates;
                    effort.lines += sum.lines;
                }
            }
            _ => effort.scanned += segment.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        /// The claim of the file comment, for differences spread over the bands in any way.
        #[test]
        fn some_band_finds_every_hash_within_the_threshold(
            threshold in 0..=REACH_MAX,
            bits in 4_u32..=16,
            weights in prop::array::uniform16(0_u32..4),
            places in prop::collection::vec((any::<u16>(), 0_u32..16), 31),
        ) {
            // So many differing bits, put into bands as the weights say.
            let bands: Vec<usize> = (0..BANDS).flat_map(|b| vec![b; weights[b].pow(3) as usize]).collect();
            let mut difference = Hash::default();
            for (band, bit) in places.into_iter().take(threshold as usize).filter(|_| !bands.is_empty()) {
                let band = bands[usize::from(band) % bands.len()];
                difference.0[band / 4] |= 1 << (16 * (band % 4) as u32 + bit);
            }
            let plan = Plan::new(threshold).unwrap();
            let mask = ((1_u32 << bits) - 1) as u16;
            prop_assert!(difference.distance(&Hash::default()) <= threshold);
            prop_assert!((0..BANDS).any(|band| plan.finds(band, &difference, mask)));
        }
    }

    #[test]
    fn reaches_sum_to_what_the_proof_needs_and_smaller_thresholds_open_less() {
        let mut before = 0;
        for threshold in 0..=REACH_MAX {
            let plan = Plan::new(threshold).unwrap();
            assert_eq!(plan.reach.iter().sum::<i32>(), threshold.cast_signed() - 15);
            let opened: u32 = plan.reach.iter().map(|reach| [0, 1, 17][(reach + 1) as usize]).sum();
            assert!(opened > before, "{opened} buckets at {threshold}");
            before = opened;
        }
        assert_eq!(before, 272);
        assert!(Plan::new(REACH_MAX + 1).is_none());
    }
}
