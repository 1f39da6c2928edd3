//! Distances of many hashes at once: the hash as the index keeps it, the ways a machine has to count bits, and what
//! they found.
//!
//! Everything here is written once with [`u64::count_ones`]. `simd.rs` compiles the same loops for machines that have
//! more, and replaces the two that a compiler does not find by itself; each path returns exactly what this one returns.

use super::Pdq;
use super::simd;

/// Bands of 16 bits in a hash.
pub(super) const BANDS: usize = 16;
/// Hashes that one call of a scan takes: 32 KiB, so that what it reads twice is still in the first cache.
pub(super) const CHUNK: usize = 1_024;
/// Hashes that a scan for many queries turns into planes at once.
pub(super) const BLOCK: usize = 256;
/// How far ahead a scan asks for memory, in hashes: 2 KiB, which crosses into the next page in time.
pub(super) const AHEAD: usize = 64;
/// Room for what one call finds, and for as many as a path writes at once.
pub(super) const ROOM: usize = CHUNK + 8;
/// Sketches that the widest path reads at once; a list of sketches is longer by as many.
pub(super) const SKETCHES_AT_ONCE: usize = 32;

/// A hash with its bits permuted, in words. Aligned, so that it never lies across two cache lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(32))]
pub(super) struct Hash(pub(super) [u64; 4]);

impl Hash {
    pub(super) fn from_bytes(bytes: &Pdq) -> Self {
        let mut words = [0; 4];
        words.iter_mut().zip(bytes.as_chunks::<8>().0).for_each(|(word, part)| *word = u64::from_le_bytes(*part));
        Self(words)
    }

    pub(super) fn to_bytes(self) -> Pdq {
        let mut bytes = [0; 32];
        bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0).for_each(|(part, word)| *part = word.to_le_bytes());
        bytes
    }

    /// The 16 bits of a band, which is below 16.
    #[inline(always)]
    pub(super) fn band(&self, band: usize) -> u16 {
        (self.0[band / 4] >> (16 * (band % 4))) as u16
    }

    /// Where the two differ.
    pub(super) fn xor(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] ^ other.0[i]))
    }

    #[inline(always)]
    pub(super) fn distance(&self, other: &Self) -> u32 {
        self.0.iter().zip(other.0).map(|(a, b)| (a ^ b).count_ones()).sum()
    }
}

/// A way of counting bits that this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path(pub(super) simd::Level);

impl Path {
    /// What every machine has.
    pub const PORTABLE: Self = Self(simd::Level::Portable);

    /// The fastest one of this machine.
    pub fn best() -> Self {
        Self(simd::levels().last().copied().unwrap_or(simd::Level::Portable))
    }

    /// All that this machine has, the portable one first.
    pub fn all() -> Vec<Self> {
        simd::levels().into_iter().map(Self).collect()
    }
}

/// A run of sketches to look through.
#[derive(Clone, Copy)]
pub(super) struct Visit {
    /// First and end of the run, as positions in the segment's list of sketches.
    pub(super) start: u32,
    pub(super) end: u32,
    /// The next band of the query, and by how many bits a sketch may differ from it.
    pub(super) sketch: u16,
    pub(super) limit: u8,
    pub(super) band: u8,
    /// Which of the queries it is for.
    pub(super) query: u16,
}

impl Visit {
    pub(super) const NONE: Self = Self { start: 0, end: 0, sketch: 0, limit: 0, band: 0, query: 0 };
}

/// What a kernel found: a fixed room, so that neither a hot list nor a batch makes it grow.
pub(super) struct Found {
    /// A position among the sketches, then a number of a hash.
    pub(super) at: [u32; ROOM],
    /// Which visit it comes from.
    pub(super) visit: [u16; ROOM],
    pub(super) distance: [u32; ROOM],
    pub(super) len: usize,
}

impl Found {
    pub(super) const fn new() -> Self {
        Self { at: [0; ROOM], visit: [0; ROOM], distance: [0; ROOM], len: 0 }
    }

    /// Writes in any case and counts if it is near: a hot list would mislead every guess.
    #[inline(always)]
    pub(super) fn push_if(&mut self, near: bool, at: u32, distance: u32) {
        self.at[self.len] = at;
        self.distance[self.len] = distance;
        self.len += usize::from(near);
    }
}

/// Hashes turned so that equal words stand beside each other.
pub(super) struct Planes {
    pub(super) words: [[u64; BLOCK]; 4],
}

impl Planes {
    pub(super) const fn new() -> Self {
        Self { words: [[0; BLOCK]; 4] }
    }

    /// At most [`BLOCK`] hashes.
    pub(super) fn fill(&mut self, hashes: &[Hash]) {
        for (i, hash) in hashes.iter().enumerate() {
            for (plane, word) in self.words.iter_mut().zip(hash.0) {
                plane[i] = word;
            }
        }
    }
}

/// Looks through the visits from number `next` on for sketches that are near enough, until all are done or there is no
/// room for more; then it returns the number of the visit to go on with, whose start has moved.
#[inline(always)]
pub(super) fn filter(sketches: &[u16], visits: &mut [Visit], mut next: usize, found: &mut Found) -> usize {
    while let Some(visit) = visits.get_mut(next) {
        while visit.start < visit.end {
            if found.len + SKETCHES_AT_ONCE > CHUNK {
                return next;
            }
            let end = visit.end.min(visit.start + SKETCHES_AT_ONCE as u32);
            for at in visit.start..end {
                if (sketches[at as usize] ^ visit.sketch).count_ones() <= u32::from(visit.limit) {
                    keep(found, at, next);
                }
            }
            visit.start = end;
        }
        next += 1;
    }
    next
}

/// Notes a candidate of visit number `visit`.
#[inline(always)]
pub(super) fn keep(found: &mut Found, at: u32, visit: usize) {
    found.at[found.len] = at;
    found.visit[found.len] = visit as u16;
    found.len += 1;
}

/// Turns the candidates, which are positions of `ids`, into numbers of hashes, and leaves those that are within
/// `threshold` bits of their query.
#[inline(always)]
pub(super) fn verify(
    ids: &[u32],
    hashes: &[Hash],
    queries: &[Hash],
    visits: &[Visit],
    threshold: u32,
    found: &mut Found,
) {
    for at in &found.at[..found.len] {
        simd::prefetch(ids, *at as usize);
    }
    for at in &mut found.at[..found.len] {
        *at = ids[*at as usize];
        simd::prefetch(hashes, *at as usize);
    }
    let mut kept = 0;
    for i in 0..found.len {
        let (at, visit) = (found.at[i], found.visit[i]);
        let query = &queries[usize::from(visits[usize::from(visit)].query)];
        let distance = hashes[at as usize].distance(query);
        if distance <= threshold {
            (found.at[kept], found.visit[kept], found.distance[kept]) = (at, visit, distance);
            kept += 1;
        }
    }
    found.len = kept;
}

/// Finds the numbers of the hashes within `threshold` bits of `query`, among at most [`CHUNK`].
#[inline(always)]
pub(super) fn scan_one(hashes: &[Hash], query: &Hash, threshold: u32, found: &mut Found) {
    let mut len = found.len;
    for (i, hash) in hashes.iter().enumerate() {
        simd::prefetch(hashes, i + AHEAD);
        let distance = hash.distance(query);
        found.at[len] = i as u32;
        found.distance[len] = distance;
        len += usize::from(distance <= threshold);
    }
    found.len = len;
}

/// The same over the first `count` hashes of planes, at most [`BLOCK`].
#[inline(always)]
pub(super) fn scan_planes(planes: &Planes, count: usize, query: &Hash, threshold: u32, found: &mut Found) {
    let [a, b, c, d] = &planes.words;
    for i in 0..count {
        let distance = Hash([a[i], b[i], c[i], d[i]]).distance(query);
        found.push_if(distance <= threshold, i as u32, distance);
    }
}
