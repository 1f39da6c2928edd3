//! A part of the index that never changes: its hashes, and for each of the 16 bands a table of buckets.
//!
//! A bucket is a run in two lists that stand beside each other: the sketches, which every lookup reads, and the numbers
//! of their hashes, which it reads for the few that pass. 32 bytes for the hash and 16 times 6 for the bands make 128
//! for each entry; the tables add 4 MiB to a large segment. All of it is four allocations.
//!
//! Segments are made by merging: the buckets of segments with tables of the same size are put one behind the other,
//! which reads and writes in sequence; what has no such table is sorted into one first.

use super::dead::{Dead, Ranks};
use super::scan::{BANDS, Hash, SKETCHES_AT_ONCE};
use super::simd;

/// Below these a scan is as fast as a table.
pub(super) const INDEXED_MIN: usize = 8_192;
/// The most hashes of one segment: positions among the entries of all bands stay below 2^32.
pub(super) const HASHES_MAX: usize = (u32::MAX as usize + 1) / BANDS - 1;
/// Hashes that a bucket holds on average, when the segment is small: fewer buckets of a few hashes are cheaper than
/// many that are empty.
const BUCKET_MEAN: usize = 8;

/// Hashes and their tables.
pub(super) struct Segment {
    hashes: Vec<Hash>,
    kind: Kind,
}

enum Kind {
    /// Numbers of the hashes in the order of their values.
    Flat(Vec<u32>),
    Indexed(Bands),
}

/// The tables of a segment.
pub(super) struct Bands {
    /// How many low bits of a band choose the bucket.
    bits: u32,
    /// Where each bucket of each band begins, 16 numbers to a cache line; the next one's beginning is its end.
    starts: Vec<Line>,
    sketches: Vec<u16>,
    ids: Vec<u32>,
}

#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u32; 16]);

impl Segment {
    /// A segment that is scanned.
    pub(super) fn flat(hashes: Vec<Hash>) -> Self {
        let mut order: Vec<u32> = (0..hashes.len() as u32).collect();
        order.sort_unstable_by_key(|id| hashes[*id as usize]);
        Self::flat_in_order(hashes, order)
    }

    /// The same, where the caller knows the order of values.
    pub(super) fn flat_in_order(hashes: Vec<Hash>, order: Vec<u32>) -> Self {
        Self { hashes, kind: Kind::Flat(order) }
    }

    pub(super) fn with_bands(hashes: Vec<Hash>, bands: Bands) -> Self {
        Self { hashes, kind: Kind::Indexed(bands) }
    }

    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    pub(super) fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    pub(super) fn bands(&self) -> Option<&Bands> {
        match &self.kind {
            Kind::Indexed(bands) => Some(bands),
            Kind::Flat(_) => None,
        }
    }

    /// The number of a hash, removed or not.
    pub(super) fn find(&self, hash: &Hash) -> Option<u32> {
        match &self.kind {
            Kind::Flat(order) => {
                let at = order.binary_search_by(|id| self.hashes[*id as usize].cmp(hash)).ok()?;
                Some(order[at])
            }
            Kind::Indexed(bands) => {
                let (band, (start, end)) = bands.smallest_bucket(hash, self.len());
                let sketch = hash.band((band + 1) % BANDS);
                let run = bands.sketches[start as usize..end as usize].iter().zip(start..);
                let same = run.filter(|(s, _)| **s == sketch).map(|(_, at)| bands.ids[at as usize]);
                same.into_iter().find(|id| self.hashes[*id as usize] == *hash)
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let kind = match &self.kind {
            Kind::Flat(order) => order.capacity() * 4,
            Kind::Indexed(bands) => {
                bands.starts.capacity() * size_of::<Line>() + bands.sketches.capacity() * 2 + bands.ids.capacity() * 4
            }
        };
        self.hashes.capacity() * size_of::<Hash>() + kind
    }

    /// A segment of hashes that are distinct.
    pub(super) fn build(hashes: Vec<Hash>, indexed_min: usize) -> Self {
        if hashes.len() < indexed_min {
            return Self::flat(hashes);
        }
        let bands = Bands::join(&[], &hashes, 0, bits_for(hashes.len()));
        Self::with_bands(hashes, bands)
    }

    /// One segment of what is left of several; `indexed_min` says from how many hashes on it has tables.
    pub(super) fn merge(sources: &[(&Self, &Dead)], indexed_min: usize) -> Self {
        let live = |(segment, dead): &(&Self, &Dead)| segment.len() - dead.count() as usize;
        let len: usize = sources.iter().map(live).sum();
        let bits = (len >= indexed_min).then(|| bits_for(len));
        let ready = |segment: &Self| segment.bands().is_some_and(|bands| Some(bands.bits) == bits);
        let (ready, rest): (Vec<_>, Vec<_>) = sources.iter().partition(|(segment, _)| ready(segment));
        let mut hashes = Vec::with_capacity(len);
        let mut parts = Vec::with_capacity(ready.len());
        for (segment, dead) in &ready {
            let base = hashes.len() as u32;
            copy_live(segment, dead, &mut hashes);
            parts.extend(segment.bands().map(|bands| Part { bands, base, ranks: dead.ranks(segment.len()) }));
        }
        let tail = hashes.len();
        rest.iter().for_each(|(segment, dead)| copy_live(segment, dead, &mut hashes));
        match bits {
            Some(bits) => {
                let bands = Bands::join(&parts, &hashes, tail, bits);
                Self::with_bands(hashes, bands)
            }
            None => Self::flat(hashes),
        }
    }
}

fn copy_live(segment: &Segment, dead: &Dead, hashes: &mut Vec<Hash>) {
    if dead.count() == 0 {
        return hashes.extend_from_slice(&segment.hashes);
    }
    for (number, some) in segment.hashes.chunks(64).enumerate() {
        let removed = dead.word(number as u32);
        if removed == 0 {
            hashes.extend_from_slice(some);
        } else {
            hashes.extend(some.iter().enumerate().filter(|(i, _)| removed >> i & 1 == 0).map(|(_, hash)| *hash));
        }
    }
}

/// How many bits choose a bucket in a segment of `len` hashes.
fn bits_for(len: usize) -> u32 {
    (len / BUCKET_MEAN).checked_ilog2().unwrap_or(0).clamp(4, 16)
}

/// A source whose buckets are taken over as they are.
struct Part<'a> {
    bands: &'a Bands,
    /// The number that its first hash has now.
    base: u32,
    ranks: Ranks<'a>,
}

impl Bands {
    pub(super) fn from_parts(bits: u32, starts: Vec<Line>, sketches: Vec<u16>, ids: Vec<u32>) -> Self {
        Self { bits, starts, sketches, ids }
    }

    /// Lines of a table with `bits`: 16 bands and the end of the last bucket.
    pub(super) fn lines(bits: u32) -> usize {
        (1 << bits) + 1
    }

    pub(super) fn bits(&self) -> u32 {
        self.bits
    }

    /// The bits of a band that choose the bucket.
    pub(super) fn mask(&self) -> u16 {
        ((1_u32 << self.bits) - 1) as u16
    }

    pub(super) fn starts(&self) -> &[Line] {
        &self.starts
    }

    pub(super) fn sketches(&self) -> &[u16] {
        &self.sketches
    }

    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// First and end of a bucket, as positions among sketches and ids.
    #[inline(always)]
    pub(super) fn bucket(&self, band: usize, key: u16) -> (u32, u32) {
        let at = (band << self.bits) + usize::from(key);
        (self.starts[at / 16].0[at % 16], self.starts[(at + 1) / 16].0[(at + 1) % 16])
    }

    #[inline(always)]
    pub(super) fn prefetch_bucket(&self, band: usize, key: u16) {
        simd::prefetch(&self.starts, ((band << self.bits) + usize::from(key)) / 16);
    }

    /// A bucket that the hash must be in: the first band's, or when somebody filled that, the smallest.
    fn smallest_bucket(&self, hash: &Hash, len: usize) -> (usize, (u32, u32)) {
        let of = |band: usize| self.bucket(band, hash.band(band) & self.mask());
        let first = of(0);
        if (first.1 - first.0) as usize <= 64 + 4 * (len >> self.bits) {
            return (0, first);
        }
        (0..BANDS).map(|band| (band, of(band))).min_by_key(|(_, (start, end))| end - start).unwrap_or((0, first))
    }

    /// Tables over `hashes`: the parts have made those below `tail`, in this order; the others are sorted in.
    fn join(parts: &[Part<'_>], hashes: &[Hash], tail: usize, bits: u32) -> Self {
        let (len, keys) = (hashes.len(), 1_usize << bits);
        let mut starts = vec![Line::default(); Self::lines(bits)];
        let mut sketches = Vec::with_capacity(BANDS * len + SKETCHES_AT_ONCE);
        let mut ids = Vec::with_capacity(BANDS * len);
        let mut sorted = Sorted::new(keys, hashes.len() - tail);
        for band in 0..BANDS {
            sorted.sort(&hashes[tail..], tail as u32, band);
            for key in 0..keys {
                let at = band * keys + key;
                starts[at / 16].0[at % 16] = ids.len() as u32;
                for part in parts {
                    part.copy(band, key as u16, &mut sketches, &mut ids);
                }
                let run = sorted.starts[key] as usize..sorted.starts[key + 1] as usize;
                sketches.extend_from_slice(&sorted.sketches[run.clone()]);
                ids.extend_from_slice(&sorted.ids[run]);
            }
        }
        starts[keys].0[0] = ids.len() as u32;
        sketches.extend_from_slice(&[0; SKETCHES_AT_ONCE]);
        Self { bits, starts, sketches, ids }
    }
}

impl Part<'_> {
    fn copy(&self, band: usize, key: u16, sketches: &mut Vec<u16>, ids: &mut Vec<u32>) {
        let (start, end) = self.bands.bucket(band, key);
        let run = start as usize..end as usize;
        if self.ranks.is_plain() {
            sketches.extend_from_slice(&self.bands.sketches[run.clone()]);
            ids.extend(self.bands.ids[run].iter().map(|id| id + self.base));
            return;
        }
        for at in run {
            if let Some(id) = self.ranks.of(self.bands.ids[at]) {
                sketches.push(self.bands.sketches[at]);
                ids.push(id + self.base);
            }
        }
    }
}

/// One band's buckets of hashes that have no table yet, made by counting.
struct Sorted {
    /// Where each bucket begins, and the end.
    starts: Vec<u32>,
    sketches: Vec<u16>,
    ids: Vec<u32>,
}

impl Sorted {
    fn new(keys: usize, len: usize) -> Self {
        Self { starts: vec![0; keys + 1], sketches: vec![0; len], ids: vec![0; len] }
    }

    fn sort(&mut self, hashes: &[Hash], base: u32, band: usize) {
        if hashes.is_empty() {
            return;
        }
        let mask = (self.starts.len() - 2) as u16;
        self.starts.fill(0);
        for hash in hashes {
            self.starts[usize::from(hash.band(band) & mask)] += 1;
        }
        // Ends of the buckets; filling them from behind moves each to its beginning.
        let mut end = 0;
        for start in &mut self.starts {
            end += *start;
            *start = end;
        }
        for (i, hash) in hashes.iter().enumerate().rev() {
            let start = &mut self.starts[usize::from(hash.band(band) & mask)];
            *start -= 1;
            self.sketches[*start as usize] = hash.band((band + 1) % BANDS);
            self.ids[*start as usize] = base + i as u32;
        }
    }
}
