//! Finding listed videos by their frames. The answer equals brute force, as for pictures, up to a limit on the work of one
//! query that only a list made to be slow reaches; then it is told.
//!
//! A video is a bag of frames: which of the looked-up frames have a listed frame near, not in which order. The frames stand
//! in a Hamming index of their own, so that no picture ever matches a frame; beside it stands which records have them.
//!
//! A video that is to reach the share must have one of any `total - needed + 1` looked-up frames. So the frames that few
//! videos have are looked at first, and only they bring in candidates: of the title that thousands of videos begin with, it
//! is then only asked whether these few have it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{HammingIndex, MATCHES_MAX, Merge, Merged, Pdq, Retired, Snapshot};
use crate::replica::ids::{MemberId, SubjectId};
use crate::replica::signal::Subject;
use crate::replica::vpdq::{FRAMES_MIN, Frame, ItemId};

/// Frames of one query that are looked at: an hour. Of a longer video they are taken at even distances: the share of so
/// many is that of all to within some permille.
pub const QUERY_FRAMES_MAX: usize = 3_600;
/// Steps from a frame to a record that has it, in one query: a tenth of a second or so. Only frames that hundreds of
/// thousands of records have use them up.
const STEPS_MAX: usize = 1_000_000;
/// Listed frames near one looked-up frame that are looked at. Only a list made to be slow has more.
const NEAR_MAX: usize = 100_000;
/// Pairs of one chunk of a sorted map, before it is cut in two: what is copied when it changes while somebody reads.
const CHUNK_LEN_MAX: usize = 512;

type RecordNo = u32;
type GroupNo = u32;

/// What counts as one video: a record alone, or all records that a member gave one item id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Record(RecordNo),
    Group(GroupNo),
}

/// One listed record, and the videos that members make it a part of.
#[derive(Clone, Debug)]
struct Part {
    subject: Subject,
    ties: Vec<(MemberId, ItemId, GroupNo)>,
}

impl Part {
    /// Where its frames are counted. Alone it has no frame that the video has not.
    fn units(&self, number: RecordNo) -> impl Iterator<Item = Unit> + '_ {
        let alone = self.ties.is_empty().then_some(Unit::Record(number));
        alone.into_iter().chain(self.ties.iter().map(|(.., group)| Unit::Group(*group)))
    }
}

/// All listed videos.
#[derive(Clone)]
pub struct FramesIndex {
    frames: Frames,
    hamming: HammingIndex,
    numbers: BTreeMap<SubjectId, RecordNo>,
    /// What members say of records, also of those that are not there just now: they may come back.
    ties: BTreeMap<(SubjectId, MemberId), ItemId>,
    groups: BTreeMap<(MemberId, ItemId), GroupNo>,
    next_record: RecordNo,
    next_group: GroupNo,
}

/// What a query needs beside the Hamming index; copies share what does not change.
#[derive(Clone, Debug, Default)]
struct Frames {
    postings: Sorted<(Pdq, RecordNo), ()>,
    parts: Sorted<RecordNo, Arc<Part>>,
    members: Sorted<(GroupNo, RecordNo), ()>,
}

/// The index as it was at one moment, to be searched without holding anything up.
#[derive(Clone)]
pub struct FramesSnapshot {
    frames: Frames,
    hamming: Snapshot,
}

/// A listed video that a looked-up one matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoHit {
    /// Its records: the one that has most of the looked-up frames first. Those that have none of them may be among them.
    pub subjects: Vec<Subject>,
    /// Of a thousand looked-up frames, so many have a frame of the video near.
    pub share_permille: u32,
}

/// What a query found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VideoHits {
    /// The greatest share first; at most [`MATCHES_MAX`].
    pub hits: Vec<VideoHit>,
    /// There are more, or there may be: a limit was reached.
    pub truncated: bool,
}

impl FramesIndex {
    /// An empty index; of `key` see [`HammingIndex::new`].
    pub fn new(key: [u8; 32]) -> Self {
        Self {
            frames: Frames::default(),
            hamming: HammingIndex::new(key),
            numbers: BTreeMap::new(),
            ties: BTreeMap::new(),
            groups: BTreeMap::new(),
            next_record: 0,
            next_group: 0,
        }
    }

    /// The next merge that is due among the frames: see [`HammingIndex::merge`].
    pub fn merge(&self) -> Option<Merge> {
        self.hamming.merge()
    }

    /// Takes up a merge that was run.
    pub fn install(&mut self, merged: Merged) -> Retired {
        self.hamming.install(merged)
    }

    /// Adds a record's frames; one that is there already, or that is no video, changes nothing.
    pub fn insert(&mut self, subject: &Subject) {
        let Some(frames) = subject.frames() else { return };
        let id = subject.id();
        if self.numbers.contains_key(&id) {
            return;
        }
        let number = self.next_record;
        self.next_record += 1;
        self.numbers.insert(id, number);
        for frame in frames.iter().filter(|frame| frame.is_usable()) {
            self.hamming.insert(frame.hash);
            self.frames.postings.insert((frame.hash, number), ());
        }
        let of_record = (id, MemberId([0; MemberId::SIZE]))..=(id, MemberId([u8::MAX; MemberId::SIZE]));
        let ties: Vec<_> = self.ties.range(of_record).map(|((_, member), item)| (*member, *item)).collect();
        let ties = ties.into_iter().map(|(member, item)| (member, item, self.join(member, item, number))).collect();
        self.frames.parts.insert(number, Arc::new(Part { subject: subject.clone(), ties }));
    }

    /// Takes a record's frames out; of one that is not there, nothing.
    pub fn remove(&mut self, subject: &Subject) {
        let Some(number) = self.numbers.remove(&subject.id()) else { return };
        for frame in subject.frames().iter().flatten().filter(|frame| frame.is_usable()) {
            self.frames.postings.remove(&(frame.hash, number));
            if !self.frames.has(&frame.hash) {
                self.hamming.remove(&frame.hash);
            }
        }
        if let Some(part) = self.frames.parts.remove(&number) {
            part.ties.iter().for_each(|(member, item, group)| self.leave(*member, *item, *group, number));
        }
    }

    /// `member` makes the record a part of the video `item`, and of no other; `None`: of none any more.
    pub fn tie(&mut self, subject: &Subject, member: MemberId, item: Option<ItemId>) {
        let id = subject.id();
        let before = match item {
            Some(item) => self.ties.insert((id, member), item),
            None => self.ties.remove(&(id, member)),
        };
        let Some(number) = self.numbers.get(&id).copied().filter(|_| before != item) else { return };
        let Some(mut part) = self.frames.parts.find(&number).map(|part| Part::clone(part)) else { return };
        if let Some(at) = part.ties.iter().position(|(by, ..)| *by == member) {
            let (_, old, group) = part.ties.remove(at);
            self.leave(member, old, group, number);
        }
        if let Some(item) = item {
            part.ties.push((member, item, self.join(member, item, number)));
        }
        self.frames.parts.insert(number, Arc::new(part));
    }

    fn join(&mut self, member: MemberId, item: ItemId, number: RecordNo) -> GroupNo {
        let group = *self.groups.entry((member, item)).or_insert_with(|| {
            self.next_group += 1;
            self.next_group
        });
        self.frames.members.insert((group, number), ());
        group
    }

    fn leave(&mut self, member: MemberId, item: ItemId, group: GroupNo, number: RecordNo) {
        self.frames.members.remove(&(group, number));
        if self.frames.records_of(Unit::Group(group)).next().is_none() {
            self.groups.remove(&(member, item));
        }
    }

    /// Records.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The index as it is now.
    pub fn snapshot(&self) -> FramesSnapshot {
        FramesSnapshot { frames: self.frames.clone(), hamming: self.hamming.snapshot() }
    }
}

impl Frames {
    fn has(&self, hash: &Pdq) -> bool {
        self.records_with(hash).next().is_some()
    }

    fn records_with<'a>(&'a self, hash: &'a Pdq) -> impl Iterator<Item = RecordNo> + 'a {
        self.postings
            .from(&(*hash, 0))
            .map(|((of, number), ())| (of, *number))
            .take_while(move |(of, _)| *of == hash)
            .map(|(_, number)| number)
    }

    fn records_of(&self, unit: Unit) -> impl Iterator<Item = RecordNo> + '_ {
        let (alone, group) = match unit {
            Unit::Record(number) => (Some(number), None),
            Unit::Group(group) => (None, Some(group)),
        };
        let members = group.into_iter().flat_map(move |group| {
            self.members
                .from(&(group, 0))
                .map(|((of, number), ())| (*of, *number))
                .take_while(move |(of, _)| *of == group)
        });
        alone.into_iter().chain(members.map(|(_, number)| number))
    }
}

/// A looked-up frame, how often it comes, and the listed frames near it.
struct Asked {
    number: usize,
    weight: u64,
    near: Vec<Pdq>,
    /// Steps to all records that have one of them.
    steps: usize,
}

/// What was found of a video so far.
#[derive(Default)]
struct Found {
    weight: u64,
    /// The looked-up frame that was counted last: each counts once.
    last: Option<usize>,
}

/// One query under way.
struct Search<'a> {
    frames: &'a Frames,
    needed: u64,
    units: BTreeMap<Unit, Found>,
    /// Looked-up frames that each record has.
    records: BTreeMap<RecordNo, u64>,
    steps: usize,
}

impl Search<'_> {
    /// Counts `asked` for the videos that have it. Who was not met before cannot reach the share any more if not `open`.
    fn visit(&mut self, asked: &Asked, open: bool) {
        for hash in &asked.near {
            for number in self.frames.records_with(hash) {
                self.steps += 1;
                self.count(number, asked, open);
            }
        }
    }

    /// As [`Search::visit`], asking each candidate whether it has the frame.
    fn ask(&mut self, asked: &Asked, candidates: &[RecordNo]) {
        for (number, hash) in candidates.iter().flat_map(|number| asked.near.iter().map(move |hash| (*number, *hash))) {
            self.steps += 1;
            if self.frames.postings.find(&(hash, number)).is_some() {
                self.count(number, asked, false);
            }
        }
    }

    fn count(&mut self, number: RecordNo, asked: &Asked, open: bool) {
        let Some(part) = self.frames.parts.find(&number) else { return };
        let mut met = false;
        for unit in part.units(number) {
            if !open && !self.units.contains_key(&unit) {
                continue;
            }
            let found = self.units.entry(unit).or_default();
            met = true;
            if found.last.replace(asked.number) != Some(asked.number) {
                found.weight += asked.weight;
            }
        }
        if met {
            *self.records.entry(number).or_default() += asked.weight;
        }
    }
}

impl FramesSnapshot {
    /// The videos of which at least `share_min_permille` of the usable frames of `query` have a frame within `threshold`
    /// bits. The greatest share comes first, then the lowest subject.
    pub fn matches(&self, query: &[Frame], threshold: u32, share_min_permille: u32) -> VideoHits {
        let weights = weights(query);
        let total: u64 = weights.values().sum();
        if total < FRAMES_MIN as u64 {
            return VideoHits::default();
        }
        let needed = (total * u64::from(share_min_permille)).div_ceil(1_000).max(1);
        let (mut asked, mut truncated) = self.asked(&weights, threshold);
        // Rare frames first; the order of equals is that of their hashes.
        asked.sort_by_key(|asked| asked.steps);
        let mut search =
            Search { frames: &self.frames, needed, units: BTreeMap::new(), records: BTreeMap::new(), steps: 0 };
        let mut to_come: u64 = asked.iter().map(|asked| asked.weight).sum();
        for asked in &asked {
            let open = to_come >= needed;
            if !open {
                search.units.retain(|_, found| found.weight + to_come >= needed);
            }
            if !open && search.units.is_empty() {
                break;
            }
            let candidates: Vec<_> = if open { Vec::new() } else { search.candidates() };
            let by_candidate = candidates.len().saturating_mul(asked.near.len());
            let direct = !open && by_candidate < asked.steps;
            let steps = if direct { by_candidate } else { asked.steps };
            truncated |= search.steps.saturating_add(steps) > STEPS_MAX;
            if truncated {
                break;
            }
            if direct {
                search.ask(asked, &candidates);
            } else {
                search.visit(asked, open);
            }
            to_come -= asked.weight;
        }
        search.end(total, truncated)
    }

    /// The looked-up frames that any record has one near to; and whether there are more near than are looked at.
    fn asked(&self, weights: &BTreeMap<Pdq, u64>, threshold: u32) -> (Vec<Asked>, bool) {
        let hashes: Vec<_> = weights.keys().copied().collect();
        let near = self.hamming.near_many(&hashes, threshold, NEAR_MAX);
        let truncated = near.iter().any(|near| near.truncated);
        let asked = weights.values().zip(near).enumerate().map(|(number, (weight, near))| {
            let near: Vec<_> = near.hits.into_iter().map(|(_, hash)| hash).collect();
            // Counted no further than matters.
            let steps = near.iter().flat_map(|hash| self.frames.records_with(hash)).take(STEPS_MAX + 1).count();
            Asked { number, weight: *weight, near, steps }
        });
        (asked.filter(|asked| asked.steps > 0).collect(), truncated)
    }
}

impl Search<'_> {
    /// The records of all videos that may still reach the share.
    fn candidates(&self) -> Vec<RecordNo> {
        let mut records: Vec<_> = self.units.keys().flat_map(|unit| self.frames.records_of(*unit)).collect();
        records.sort_unstable();
        records.dedup();
        records
    }

    fn end(self, total: u64, truncated: bool) -> VideoHits {
        let reached = self.units.iter().filter(|(_, found)| found.weight >= self.needed);
        let hits = reached.map(|(unit, found)| VideoHit {
            subjects: self.subjects(*unit),
            share_permille: u32::try_from(found.weight * 1_000 / total).unwrap_or(1_000),
        });
        let mut hits: Vec<_> = hits.collect();
        hits.sort_by(|a, b| b.share_permille.cmp(&a.share_permille).then_with(|| a.subjects.cmp(&b.subjects)));
        // Two members may have listed the same records of one video.
        hits.dedup_by(|a, b| a.subjects == b.subjects);
        let more = hits.len() > MATCHES_MAX;
        hits.truncate(MATCHES_MAX);
        VideoHits { hits, truncated: truncated || more }
    }

    fn subjects(&self, unit: Unit) -> Vec<Subject> {
        let weight = |number: &RecordNo| self.records.get(number).copied().unwrap_or_default();
        let mut records: Vec<_> = self.frames.records_of(unit).collect();
        records.sort_by_key(|number| std::cmp::Reverse(weight(number)));
        records.iter().filter_map(|number| self.frames.parts.find(number)).map(|part| part.subject.clone()).collect()
    }
}

/// The usable frames of a query by their hashes, each with how often it comes; at most [`QUERY_FRAMES_MAX`] in all.
fn weights(query: &[Frame]) -> BTreeMap<Pdq, u64> {
    let usable: Vec<_> = query.iter().filter(|frame| frame.is_usable()).collect();
    let taken = usable.len().min(QUERY_FRAMES_MAX);
    let mut weights = BTreeMap::new();
    for frame in (0..taken).map(|n| usable[n * usable.len() / taken]) {
        *weights.entry(frame.hash).or_default() += 1;
    }
    weights
}

type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// A sorted map in chunks. A copy shares them; who changes one then copies that chunk, and the list of chunks.
#[derive(Clone, Debug)]
struct Sorted<K, V> {
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

    fn find(&self, key: &K) -> Option<&V> {
        let (chunk, at) = self.place(key);
        let at = at.ok()?;
        Some(&self.chunks[chunk][at].1)
    }

    /// All pairs from `key` on.
    fn from<'a>(&'a self, key: &K) -> impl Iterator<Item = &'a (K, V)> + use<'a, K, V> {
        let (chunk, at) = self.place(key);
        let at = at.unwrap_or_else(|at| at);
        let rest = self.chunks.get(chunk..).unwrap_or_default();
        rest.iter().enumerate().flat_map(move |(n, chunk)| &chunk[if n == 0 { at } else { 0 }..])
    }

    /// Puts `value` at `key`, in place of what stood there.
    fn insert(&mut self, key: K, value: V) {
        let (at, place) = self.place(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks.is_empty() {
            chunks.push(Arc::new(vec![(key, value)]));
            return;
        }
        let chunk = Arc::make_mut(&mut chunks[at]);
        match place {
            Ok(place) => chunk[place].1 = value,
            Err(place) => chunk.insert(place, (key, value)),
        }
        if chunk.len() > CHUNK_LEN_MAX {
            let upper = chunk.split_off(CHUNK_LEN_MAX / 2);
            chunks.insert(at + 1, Arc::new(upper));
        }
    }

    fn remove(&mut self, key: &K) -> Option<V> {
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
    use proptest::prelude::*;

    use super::*;
    use crate::replica::ids::sha256;
    use crate::replica::signal;
    use crate::replica::vpdq::SHARE_MIN_PERMILLE;

    /// A hash of its own for each `n`; two are about 128 bits apart.
    fn hash(n: u32) -> Pdq {
        sha256(&[&n.to_be_bytes()])
    }

    /// `n`'s hash with `bits` bits flipped.
    fn near(n: u32, bits: usize) -> Pdq {
        let mut hash = hash(n);
        (0..bits).for_each(|bit| hash[bit / 8] ^= 1 << (bit % 8));
        hash
    }

    fn frames(hashes: &[Pdq]) -> Vec<Frame> {
        (0..).zip(hashes).map(|(n, hash)| Frame { hash: *hash, quality: 80, time_ms: n * 1_000 }).collect()
    }

    fn video(numbers: impl IntoIterator<Item = u32>) -> Subject {
        Subject::of_frames(&frames(&numbers.into_iter().map(hash).collect::<Vec<_>>())).unwrap()
    }

    fn index(videos: &[Subject]) -> FramesIndex {
        let mut index = FramesIndex::new([7; 32]);
        videos.iter().for_each(|video| index.insert(video));
        index
    }

    fn hits(index: &FramesIndex, query: &[Pdq]) -> Vec<(u32, Vec<Subject>)> {
        let found = index.snapshot().matches(&frames(query), 31, SHARE_MIN_PERMILLE);
        assert!(!found.truncated);
        found.hits.into_iter().map(|hit| (hit.share_permille, hit.subjects)).collect()
    }

    #[test]
    fn a_video_matches_from_four_fifths_of_its_frames_on() {
        let (listed, other) = (video(0..100), video(200..300));
        let index = index(&[listed.clone(), other]);
        let query =
            |known: u32, all: u32| (0..all).map(|n| hash(if n < known { n } else { 900 + n })).collect::<Vec<_>>();
        for (known, all, share) in [
            (10, 10, Some(1_000)),
            (8, 10, Some(800)),
            (79, 100, None),
            (80, 100, Some(800)),
            (3, 3, Some(1_000)),
            (2, 3, None),
        ] {
            let expected: Vec<_> = share.into_iter().map(|share| (share, vec![listed.clone()])).collect();
            assert_eq!(hits(&index, &query(known, all)), expected, "{known} of {all}");
        }
        let asked = |share_min| index.snapshot().matches(&frames(&query(3, 10)), 31, share_min).hits.len();
        assert_eq!([300, 301, 0, 1_000].map(asked), [1, 0, 1, 0], "another share may be asked for");
    }

    #[test]
    fn a_frame_is_near_within_the_threshold() {
        let index = index(&[video(0..3)]);
        let query = |bits| (0..3).map(|n| near(n, bits)).collect::<Vec<_>>();
        assert_eq!((hits(&index, &query(31)).len(), hits(&index, &query(32)).len()), (1, 0));
    }

    #[test]
    fn less_than_three_usable_frames_are_no_video() {
        let index = index(&[video(0..10)]);
        assert!(hits(&index, &[hash(1), hash(2)]).is_empty());
        assert_eq!(hits(&index, &[hash(1), hash(1), hash(1)]).len(), 1, "a still that stands for three seconds");
        let mut query = frames(&[hash(1), hash(2), hash(3)]);
        query[0].quality = 49;
        assert!(index.snapshot().matches(&query, 31, 800).hits.is_empty());
        assert_eq!(index.snapshot().matches(&[], 31, 800), VideoHits::default());
    }

    #[test]
    fn poor_frames_count_on_neither_side() {
        let mut listed = frames(&(0..10).map(hash).collect::<Vec<_>>());
        listed[0].quality = 49;
        let index = index(&[Subject::of_frames(&listed).unwrap()]);
        assert!(hits(&index, &[hash(0), hash(0), hash(0)]).is_empty(), "a black frame is in every video");
        let mut query = frames(&(0..100).map(|n| hash(n % 10)).collect::<Vec<_>>());
        query[10..].iter_mut().for_each(|frame| frame.quality = 0);
        let found = index.snapshot().matches(&query, 31, 800).hits;
        assert_eq!(found[0].share_permille, 900, "of ten usable frames, the first was listed too poor");
    }

    #[test]
    fn records_with_one_item_id_of_one_member_are_one_video() {
        let parts = [video(0..100), video(100..200), video(200..250)];
        let mut index = index(&parts);
        let query: Vec<_> = (0..250).map(hash).collect();
        let (acme, bolt) = (MemberId([1; 16]), MemberId([2; 16]));
        assert!(hits(&index, &query).is_empty(), "none of them has four fifths alone");
        index.tie(&parts[0], acme, Some([7; 16]));
        index.tie(&parts[1], bolt, Some([7; 16]));
        index.tie(&parts[2], acme, Some([8; 16]));
        assert!(hits(&index, &query).is_empty(), "another member's item id, and another item id");
        index.tie(&parts[1], acme, Some([7; 16]));
        assert_eq!(hits(&index, &query)[0], (800, parts[..2].to_vec()));
        index.tie(&parts[2], acme, Some([7; 16]));
        assert_eq!(hits(&index, &query), [(1_000, parts.to_vec())]);
        let late: Vec<_> = (190..250).map(hash).collect();
        assert_eq!(hits(&index, &late)[0].1[0], parts[2], "the record with most of the frames comes first");
        index.tie(&parts[2], acme, None);
        assert_eq!(hits(&index, &query), [(800, parts[..2].to_vec())]);
        index.remove(&parts[0]);
        assert!(hits(&index, &query).is_empty());
        index.insert(&parts[0]);
        assert_eq!(hits(&index, &query)[0].0, 800, "what its author says of it still holds");
        index.tie(&parts[0], acme, None);
        index.tie(&parts[1], acme, None);
        index.tie(&parts[1], bolt, None);
        assert!(index.groups.is_empty() && index.ties.is_empty(), "nothing is left of a tie");
        assert!(index.frames.members.chunks.is_empty());
        let mut early = FramesIndex::new([7; 32]);
        early.tie(&parts[0], acme, Some([7; 16]));
        early.tie(&parts[1], acme, Some([7; 16]));
        parts.iter().for_each(|part| early.insert(part));
        assert_eq!(hits(&early, &query)[0].0, 800, "also where the tie was heard of first");
    }

    #[test]
    fn what_is_removed_is_found_no_more_and_a_snapshot_stays() {
        let (one, two) = (video(0..10), video(5..15));
        let mut index = index(&[one.clone(), two.clone(), one.clone()]);
        let query: Vec<_> = (5..10).map(hash).collect();
        let before = index.snapshot();
        assert_eq!((index.len(), hits(&index, &query).len()), (2, 2));
        index.remove(&one);
        index.remove(&one);
        assert_eq!(hits(&index, &query), [(1_000, vec![two.clone()])]);
        index.remove(&two);
        assert!(hits(&index, &query).is_empty() && index.is_empty());
        index.insert(&two);
        assert_eq!(hits(&index, &query), [(1_000, vec![two])]);
        assert_eq!(
            index.hamming.len(),
            10,
            "a frame that no record has is gone, and one that comes back is there once"
        );
        assert_eq!(before.matches(&frames(&query), 31, 800).hits.len(), 2);
    }

    #[test]
    fn what_is_no_video_is_not_taken_in() {
        let mut index = FramesIndex::new([7; 32]);
        index.remove(&video(0..3));
        index.tie(&video(0..3), MemberId([1; 16]), Some([1; 16]));
        assert!(index.is_empty() && index.groups.is_empty());
    }

    #[test]
    fn a_title_that_all_videos_have_costs_little() {
        let with_title = |n: u32| video((0..30).chain(1_000 + n * 10..1_010 + n * 10));
        let videos: Vec<_> = (0..3_000).map(with_title).collect();
        let index = index(&videos);
        let query: Vec<_> = (0..30).chain(1_000..1_010).map(hash).collect();
        // 30 frames of 3,000 records each are 90,000 steps; the ten others bring one candidate.
        assert_eq!(hits(&index, &query), [(1_000, vec![videos[0].clone()])]);
        let title: Vec<_> = (0..30).map(hash).collect();
        let found = index.snapshot().matches(&frames(&title), 31, 800);
        assert_eq!((found.hits.len(), found.truncated), (MATCHES_MAX, true), "of the title alone there are many");
    }

    #[test]
    fn a_query_has_a_bounded_cost() {
        let query: Vec<_> = (0..8_000).map(|n| Frame { hash: hash(n), quality: 80, time_ms: n }).collect();
        assert_eq!(weights(&query).len(), QUERY_FRAMES_MAX);
        // Taken from all of it, not from its beginning.
        assert!(weights(&query).contains_key(&hash(7_997)));
        let mut index = FramesIndex::new([7; 32]);
        (0..20_000)
            .for_each(|n| index.insert(&video([n + 100_000].into_iter().chain(0..60).skip(usize::from(n % 2 == 0)))));
        let all: Vec<_> = (0..60).map(hash).collect();
        let found = index.snapshot().matches(&frames(&all), 31, 1);
        assert!(found.truncated, "1,200,000 steps would be needed");
    }

    /// What the index must answer, by looking at everything.
    fn brute(videos: &[Vec<Frame>], query: &[Frame], threshold: u32, share_min: u32) -> BTreeMap<usize, u32> {
        let usable: Vec<_> = query.iter().filter(|frame| frame.is_usable()).collect();
        let share = |video: &Vec<Frame>| {
            let has = |asked: &&&Frame| {
                video.iter().any(|f| f.is_usable() && signal::distance(&f.hash, &asked.hash) <= threshold)
            };
            let found = usable.iter().filter(has).count();
            (found * 1_000 >= usable.len() * share_min as usize && found > 0 && usable.len() >= 3)
                .then(|| u32::try_from(found * 1_000 / usable.len()).unwrap())
        };
        videos.iter().enumerate().filter_map(|(n, video)| Some((n, share(video)?))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn the_answer_equals_brute_force(
            videos in proptest::collection::vec(proptest::collection::vec((0_u32..12, 0_usize..20, 40_u8..60), 1..20), 0..20),
            ties in proptest::collection::vec((0_usize..20, 0_u8..3), 0..8),
            removed in proptest::collection::vec(0_usize..20, 0..5),
            query in proptest::collection::vec((0_u32..12, 0_usize..40, 40_u8..60), 0..30),
            threshold in 0_u32..40,
            share_min in prop::sample::select(vec![1_u32, 300, 500, 800, 1_000]),
        ) {
            let frames = |drawn: &[(u32, usize, u8)]| -> Vec<Frame> {
                let frame = |(at, (n, bits, quality)): (usize, &(u32, usize, u8))| {
                    Frame { hash: near(*n, *bits), quality: *quality, time_ms: u32::try_from(at).unwrap() }
                };
                drawn.iter().enumerate().map(frame).collect()
            };
            let mut videos: Vec<_> = videos.iter().map(|video| frames(video)).collect();
            videos.sort_by_key(|video| Subject::of_frames(video).unwrap());
            videos.dedup();
            let subjects: Vec<_> = videos.iter().map(|video| Subject::of_frames(video).unwrap()).collect();
            let mut index = index(&subjects);
            let mut item = vec![None; videos.len()];
            for (at, group) in ties.into_iter().filter(|(at, _)| *at < subjects.len()) {
                index.tie(&subjects[at], MemberId([1; 16]), Some([group; 16]));
                item[at] = Some(group);
            }
            let removed: Vec<_> = removed.into_iter().filter(|at| *at < subjects.len()).collect();
            removed.iter().for_each(|at| index.remove(&subjects[*at]));
            let stands = |at: &usize| !removed.contains(at);
            // Each record alone, or all of its item id.
            let mut wholes: BTreeMap<(Option<u8>, usize), Vec<usize>> = BTreeMap::new();
            for at in (0..videos.len()).filter(stands) {
                wholes.entry((item[at], if item[at].is_some() { 0 } else { at })).or_default().push(at);
            }
            let wholes: Vec<_> = wholes.into_values().collect();
            let joined: Vec<Vec<Frame>> = wholes.iter().map(|w| w.iter().flat_map(|at| videos[*at].clone()).collect()).collect();
            let query = frames(&query);
            let expected: std::collections::BTreeSet<_> = brute(&joined, &query, threshold, share_min)
                .into_iter()
                .map(|(n, share)| (share, wholes[n].iter().map(|at| subjects[*at].clone()).collect::<std::collections::BTreeSet<_>>()))
                .collect();
            let found = index.snapshot().matches(&query, threshold, share_min);
            prop_assert!(!found.truncated);
            let shares: Vec<_> = found.hits.iter().map(|hit| hit.share_permille).collect();
            prop_assert!(shares.is_sorted_by(|a, b| a >= b));
            let found: std::collections::BTreeSet<_> = found.hits.into_iter()
                .map(|hit| (hit.share_permille, hit.subjects.into_iter().collect::<std::collections::BTreeSet<_>>()))
                .collect();
            prop_assert_eq!(found, expected);
        }

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
