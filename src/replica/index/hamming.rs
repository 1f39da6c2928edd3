//! The writer's side of the index, and what readers hold.
//!
//! Every change is taken at once: an insertion goes into the *delta*, a short list that lookups scan; a removal marks
//! the hash where it lies. A full delta becomes a small segment, and segments are merged in tiers, each a number of
//! times larger than the one below, so that a lookup meets few of them and an entry is copied few times. A merge is a
//! value that somebody else runs: it holds what it reads, and nothing waits for it. When nobody runs merges the small
//! segments add up, lookups grow slower by a scan of 4,096 hashes for each, and answers stay right.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Pdq;
use super::bytes::{self, ReadError};
use super::dead::Dead;
use super::nearest::{Near, Nearest};
use super::permutation::Permutation;
use super::scan::{Hash, Path};
use super::search::{Effort, Plan, Room, Search};
use super::segment::{HASHES_MAX, INDEXED_MIN, Segment};

/// From how many queries on a batch goes through the index band by band.
const BATCH_MIN: usize = 128;
/// A segment of which one in so many hashes was removed is written anew.
const DEAD_SHARE: usize = 8;

/// How large the parts of an index are. [`Sizes::default`] is what was measured to be good; tests take small ones.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Hashes of a full delta, at least 1.
    pub delta: usize,
    /// Hashes of the pieces of the delta that snapshots share, at least 1.
    pub piece: usize,
    /// How many times larger a tier is than the one below, at least 2.
    pub fanout: usize,
    /// How many full deltas make a merge due, at least 1.
    pub due: usize,
    /// From how many hashes on a segment has tables.
    pub indexed_min: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { delta: 4_096, piece: 256, fanout: 16, due: 1, indexed_min: INDEXED_MIN }
    }
}

/// A set of distinct PDQ hashes that can be searched by distance. What they mean is the caller's business.
#[derive(Clone)]
pub struct HammingIndex {
    now: Snapshot,
    sizes: Sizes,
    /// The delta's hashes, and where each stands in it.
    recent: BTreeMap<Hash, u32>,
}

/// The index as it was at one moment, to be searched without holding anything up.
#[derive(Clone)]
pub struct Snapshot {
    pub(super) permutation: Arc<Permutation>,
    pub(super) path: Path,
    pub(super) parts: Vec<Part>,
    /// The delta in full pieces and one that grows; readers share them.
    pub(super) delta: Vec<Arc<Vec<Hash>>>,
    /// Of the delta nothing is marked: what is removed there is gone.
    pub(super) none_dead: Dead,
    len: usize,
}

/// A segment, and what of it was removed.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) segment: Arc<Segment>,
    pub(super) dead: Dead,
    /// Whether a merge is under way that will replace it.
    taken: Arc<AtomicBool>,
}

/// A merge that is due: what it reads, to be run anywhere. Its segments are taken until it is installed or dropped, so
/// that several merges may be under way at once, a long one and short ones.
pub struct Merge {
    sources: Vec<Part>,
    indexed_min: usize,
    claim: Claim,
}

/// A merge that has been run.
pub struct Merged {
    segment: Segment,
    sources: Vec<Part>,
    claim: Claim,
}

/// Segments that a merge has replaced. Giving back a large one takes tens of milliseconds, and falls to whoever lets
/// go of it last: a background thread should keep this until [`Retired::is_idle`] and then drop it, lest a lookup pays.
#[must_use = "to be dropped where nobody waits, when it is idle"]
pub struct Retired(Vec<Arc<Segment>>);

/// Marks segments as taken for as long as it lives.
struct Claim(Vec<Arc<AtomicBool>>);

impl HammingIndex {
    /// An empty index. `key` chooses the permutation of the bits and must not be known to who lists hashes: draw it at
    /// random, once for each node.
    pub fn new(key: [u8; 32]) -> Self {
        Self::with(key, Sizes::default(), Path::best())
    }

    /// The same with other sizes and a chosen way to count bits.
    pub fn with(key: [u8; 32], sizes: Sizes, path: Path) -> Self {
        let sizes = Sizes {
            delta: sizes.delta.max(1),
            piece: sizes.piece.max(1),
            fanout: sizes.fanout.max(2),
            due: sizes.due.max(1),
            indexed_min: sizes.indexed_min.max(1),
        };
        let now = Snapshot {
            permutation: Arc::new(Permutation::new(key)),
            path,
            parts: Vec::new(),
            delta: Vec::new(),
            none_dead: Dead::default(),
            len: 0,
        };
        Self { now, sizes, recent: BTreeMap::new() }
    }

    /// An index of many hashes at once, in one segment; what comes twice counts once.
    pub fn from_hashes(key: [u8; 32], hashes: impl Iterator<Item = Pdq>) -> Self {
        let mut index = Self::new(key);
        index.extend_sorted(hashes);
        index
    }

    /// [`Self::from_hashes`] into an empty index.
    pub(super) fn extend_sorted(&mut self, hashes: impl Iterator<Item = Pdq>) {
        let mut all: Vec<Hash> = hashes.map(|hash| self.permuted(&hash)).collect();
        all.sort_unstable();
        all.dedup();
        all.shrink_to_fit();
        let mut first = 0;
        while first < all.len() {
            let some = if all.len() <= HASHES_MAX {
                std::mem::take(&mut all)
            } else {
                all[first..all.len().min(first + HASHES_MAX)].to_vec()
            };
            first += some.len();
            self.push(Segment::build(some, self.sizes.indexed_min), Dead::default());
        }
    }

    /// Counts bits in another way from now on; for measuring what each is worth.
    pub fn use_path(&mut self, path: Path) {
        self.now.path = path;
    }

    /// Adds a hash; `false` when it was there.
    pub fn insert(&mut self, hash: Pdq) -> bool {
        let hash = self.permuted(&hash);
        if self.recent.contains_key(&hash) || self.now.find_in_parts(&hash).is_some() {
            return false;
        }
        self.append(hash);
        if self.recent.len() >= self.sizes.delta {
            self.freeze();
        }
        true
    }

    /// Takes a hash out; `false` when it was not there.
    pub fn remove(&mut self, hash: &Pdq) -> bool {
        let hash = self.permuted(hash);
        if let Some(at) = self.recent.remove(&hash) {
            self.take_out(at as usize);
            return true;
        }
        let Some((part, id)) = self.now.find_in_parts(&hash) else { return false };
        self.now.parts[part].dead.set(id);
        self.now.len -= 1;
        true
    }

    /// Whether a hash is there.
    pub fn contains(&self, hash: &Pdq) -> bool {
        let hash = self.permuted(hash);
        self.recent.contains_key(&hash) || self.now.find_in_parts(&hash).is_some()
    }

    /// Number of hashes.
    pub fn len(&self) -> usize {
        self.now.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Heap bytes held; what snapshots and merges still hold of the past is not counted.
    pub fn bytes(&self) -> usize {
        let parts: usize = self.now.parts.iter().map(|part| part.segment.bytes() + part.dead.bytes()).sum();
        let delta: usize = self.now.delta.iter().map(|piece| piece.capacity() * size_of::<Hash>()).sum();
        // A node of the tree holds up to 11 entries and is at least half full.
        let recent = self.recent.len() * 2 * (size_of::<Hash>() + size_of::<u32>());
        parts + delta + recent + Permutation::BYTES
    }

    /// Segments, the delta not counted: what a lookup goes through.
    pub fn segments(&self) -> usize {
        self.now.parts.len()
    }

    /// The index as it is now, for readers. Costs some twenty pointers, and the next change copies 8 KiB at most (or
    /// 2 KiB and a pointer for every 16,384 hashes of a segment, when it is a removal).
    pub fn snapshot(&self) -> Snapshot {
        self.now.clone()
    }

    /// The next merge that is due, if one is: to be asked for after changes, until there is none.
    pub fn merge(&self) -> Option<Merge> {
        self.claim(self.due())
    }

    /// A merge of all segments into one, due or not; for an index that will not change for some time.
    pub fn compact(&self) -> Option<Merge> {
        let free: Vec<_> = self.now.parts.iter().filter(|part| !part.is_taken()).collect();
        let worth = free.len() > 1 || free.iter().any(|part| part.dead.count() > 0);
        let fits = free.iter().map(|part| part.live()).sum::<usize>() <= HASHES_MAX;
        self.claim(if worth && fits { free } else { Vec::new() })
    }

    /// Puts the result of a merge in the place of what it was made of. What was removed meanwhile stays removed, what
    /// was inserted meanwhile stays. The result of a merge of another index changes nothing.
    pub fn install(&mut self, merged: Merged) -> Retired {
        let Merged { segment, sources, claim } = merged;
        let mut dead = Dead::default();
        let mut places = Vec::new();
        for source in &sources {
            let Some(place) = self.now.parts.iter().position(|part| Arc::ptr_eq(&part.segment, &source.segment)) else {
                return Retired(vec![Arc::new(segment)]);
            };
            places.push(place);
            for id in self.now.parts[place].dead.since(&source.dead) {
                if let Some(id) = segment.find(&source.segment.hashes()[id as usize]) {
                    dead.set(id);
                }
            }
        }
        places.sort_unstable();
        places.into_iter().rev().for_each(|place| drop(self.now.parts.remove(place)));
        self.push(segment, dead);
        drop(claim);
        Retired(sources.into_iter().map(|source| source.segment).collect())
    }

    /// Writes the index to a sink, which takes pieces of bytes in order; see [`Snapshot::write_to`].
    ///
    /// # Errors
    /// What the sink returns.
    pub fn write_to<E>(&self, sink: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        self.now.write_to(sink)
    }

    /// Reads what [`Snapshot::write_to`] wrote, the key included. `size` is how many bytes the source has left at most,
    /// and `source` fills a piece of them, in order. Whoever calls checks that the bytes are those that were written;
    /// others give an error or an index with other hashes, and never a panic.
    ///
    /// # Errors
    /// What the source returns, or what cannot be in such bytes.
    pub fn read_from<E>(size: u64, source: &mut dyn FnMut(&mut [u8]) -> Result<(), E>) -> Result<Self, ReadError<E>> {
        Self::read_with(Sizes::default(), Path::best(), size, source)
    }

    pub(super) fn read_with<E>(
        sizes: Sizes,
        path: Path,
        size: u64,
        source: &mut dyn FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, ReadError<E>> {
        let contents = bytes::read(size, source)?;
        let mut index = Self::with(contents.key, sizes, path);
        contents.parts.into_iter().for_each(|(segment, dead)| index.push(segment, dead));
        for hash in contents.delta {
            if index.recent.contains_key(&hash) || index.now.find_in_parts(&hash).is_some() {
                return Err(ReadError::Damaged("a hash is there twice"));
            }
            index.append(hash);
        }
        Ok(index)
    }

    fn permuted(&self, hash: &Pdq) -> Hash {
        self.now.permutation.apply(self.now.path, hash)
    }

    fn append(&mut self, hash: Hash) {
        let delta = &mut self.now.delta;
        if delta.last().is_none_or(|piece| piece.len() >= self.sizes.piece) {
            delta.push(Arc::new(Vec::new()));
        }
        if let Some(piece) = delta.last_mut() {
            Arc::make_mut(piece).push(hash);
        }
        self.recent.insert(hash, self.recent.len() as u32);
        self.now.len += 1;
    }

    /// Takes the hash at a place out of the delta, of which `recent` knows no more; the last one takes its place.
    fn take_out(&mut self, at: usize) {
        let last = self.now.delta.last_mut().and_then(|piece| Arc::make_mut(piece).pop());
        if self.now.delta.last().is_some_and(|piece| piece.is_empty()) {
            self.now.delta.pop();
        }
        if let Some(last) = last.filter(|_| at < self.recent.len()) {
            Arc::make_mut(&mut self.now.delta[at / self.sizes.piece])[at % self.sizes.piece] = last;
            self.recent.insert(last, at as u32);
        }
        self.now.len -= 1;
    }

    /// Makes a segment of the full delta.
    fn freeze(&mut self) {
        let hashes = self.now.delta.drain(..).flat_map(|piece| piece.to_vec()).collect();
        let order = std::mem::take(&mut self.recent).into_values().collect();
        let segment = Segment::flat_in_order(hashes, order);
        self.now.len -= segment.len();
        self.push(segment, Dead::default());
    }

    fn push(&mut self, segment: Segment, dead: Dead) {
        if segment.len() == 0 {
            return;
        }
        let part = Part { segment: Arc::new(segment), dead, taken: Arc::default() };
        self.now.parts.push(part);
        self.now.parts.sort_by_key(|part| Reverse(part.segment.len()));
        let live: usize = self.now.parts.iter().map(Part::live).sum();
        self.now.len = live + self.recent.len();
    }

    /// What should be merged now: the small segments, when there are enough of them, with every tier that would
    /// overflow; else a segment of which much was removed.
    fn due(&self) -> Vec<&Part> {
        let free: Vec<_> = self.now.parts.iter().filter(|part| !part.is_taken()).collect();
        let (small, tiers): (Vec<_>, Vec<_>) = free.into_iter().partition(|part| self.tier(part.segment.len()) == 0);
        let worn = |part: &&Part| part.dead.count() as usize * DEAD_SHARE >= part.segment.len();
        let worn: Vec<_> = small.iter().chain(&tiers).copied().find(worn).into_iter().collect();
        if small.len() < self.sizes.due {
            return worn;
        }
        let mut sources = small;
        let mut len: usize = sources.iter().map(|part| part.live()).sum();
        // From the lowest tier up: parts stand largest first.
        for part in tiers.into_iter().rev() {
            let fits = len + part.live() <= HASHES_MAX;
            if fits && self.tier(part.segment.len()) <= self.tier(len).max(1) {
                len += part.live();
                sources.push(part);
            }
        }
        // One alone would only be copied.
        if sources.len() > 1 { sources } else { worn }
    }

    /// Tier 0 are deltas as they were frozen; each next is `fanout` times larger.
    fn tier(&self, len: usize) -> u32 {
        let deltas = len.div_ceil(self.sizes.delta);
        let mut tier = 0;
        let mut end = 1_usize;
        while end < deltas {
            end = end.saturating_mul(self.sizes.fanout);
            tier += 1;
        }
        tier
    }

    fn claim(&self, sources: Vec<&Part>) -> Option<Merge> {
        let mut claim = Claim(Vec::new());
        for part in &sources {
            if part.taken.swap(true, Ordering::AcqRel) {
                return None;
            }
            claim.0.push(Arc::clone(&part.taken));
        }
        let sources: Vec<_> = sources.into_iter().cloned().collect();
        (!sources.is_empty()).then_some(Merge { sources, indexed_min: self.sizes.indexed_min, claim })
    }
}

impl Part {
    fn live(&self) -> usize {
        self.segment.len() - self.dead.count() as usize
    }

    fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }
}

impl Merge {
    /// How many hashes it reads: one in ten million takes about a second.
    pub fn len(&self) -> usize {
        self.sources.iter().map(|part| part.segment.len()).sum()
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Does the work; may take seconds, and memory for the result.
    pub fn run(self) -> Merged {
        let sources: Vec<_> = self.sources.iter().map(|part| (&*part.segment, &part.dead)).collect();
        let segment = Segment::merge(&sources, self.indexed_min);
        Merged { segment, sources: self.sources, claim: self.claim }
    }
}

impl Retired {
    /// Whether no snapshot holds any of it.
    pub fn is_idle(&self) -> bool {
        self.0.iter().all(|segment| Arc::strong_count(segment) == 1)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.iter().for_each(|taken| taken.store(false, Ordering::Release));
    }
}

impl Snapshot {
    /// What is within `threshold` bits of `query`: the nearest `limit` of it, nearest first, then by value.
    pub fn near(&self, query: &Pdq, threshold: u32, limit: usize) -> Near {
        let search = self.search(threshold);
        let query = self.permutation.apply(self.path, query);
        let mut nearest = Nearest::new(limit);
        let mut room = Room::new();
        for part in &self.parts {
            search.one((&part.segment, &part.dead), &query, &mut nearest, &mut room);
        }
        for piece in &self.delta {
            search.scan((piece, &self.none_dead), &query, &mut nearest, &mut room.found, |_| true);
        }
        nearest.finish()
    }

    /// [`Self::near`] for each of many queries; cheaper for some hundreds at once.
    pub fn near_many(&self, queries: &[Pdq], threshold: u32, limit: usize) -> Vec<Near> {
        if queries.len() < BATCH_MIN {
            return queries.iter().map(|query| self.near(query, threshold, limit)).collect();
        }
        self.batch(queries, threshold, limit)
    }

    /// [`Self::near_many`] band by band.
    pub(super) fn batch(&self, queries: &[Pdq], threshold: u32, limit: usize) -> Vec<Near> {
        let search = self.search(threshold);
        let queries: Vec<_> = queries.iter().map(|query| self.permutation.apply(self.path, query)).collect();
        let mut nearest: Vec<_> = queries.iter().map(|_| Nearest::new(limit)).collect();
        let mut room = Room::new();
        for part in &self.parts {
            search.many((&part.segment, &part.dead), &queries, &mut nearest, &mut room);
        }
        for piece in &self.delta {
            search.scan_many((piece, &self.none_dead), &queries, &mut nearest, &mut room);
        }
        nearest.into_iter().map(Nearest::finish).collect()
    }

    /// Whether a hash is there.
    pub fn contains(&self, hash: &Pdq) -> bool {
        let hash = self.permutation.apply(self.path, hash);
        self.find_in_parts(&hash).is_some() || self.delta.iter().any(|piece| piece.contains(&hash))
    }

    /// Number of hashes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What [`Self::near`] reads for a query; costs much more than the lookup.
    pub fn effort(&self, query: &Pdq, threshold: u32) -> Effort {
        let search = self.search(threshold);
        let query = self.permutation.apply(self.path, query);
        let mut effort = Effort::default();
        self.parts.iter().for_each(|part| search.effort(&part.segment, &query, &mut effort));
        effort.scanned += self.delta.iter().map(|piece| piece.len()).sum::<usize>();
        effort
    }

    /// Writes the index to a sink, which takes pieces of bytes in order: the key, then each segment as it lies in
    /// memory, little-endian, lengths first. It carries no checksum.
    ///
    /// # Errors
    /// What the sink returns.
    pub fn write_to<E>(&self, sink: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        bytes::write(self, sink)
    }

    fn search(&self, threshold: u32) -> Search<'_> {
        Search { path: self.path, permutation: &self.permutation, threshold, plan: Plan::new(threshold) }
    }

    /// In which segment a hash is, and its number there. Of a hash that was removed and came back one is not marked.
    fn find_in_parts(&self, hash: &Hash) -> Option<(usize, u32)> {
        self.parts.iter().enumerate().find_map(|(number, part)| {
            let id = part.segment.find(hash).filter(|id| !part.dead.has(*id))?;
            Some((number, id))
        })
    }
}

impl fmt::Debug for HammingIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HammingIndex").field(&self.len()).finish()
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Snapshot").field(&self.len).finish()
    }
}
