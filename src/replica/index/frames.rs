//! Finding listed videos by their frames. The answer equals brute force, as for pictures, up to a limit on the work of one
//! query that only a list made to be slow reaches; then it is told.
//!
//! A video is a bag of frames: which of the looked-up frames have a listed frame near, not in which order. The frames stand
//! in a Hamming index of their own, so that no picture ever matches a frame; beside it stands which records have them.
//!
//! A video that is to reach the share must have one of any `total - needed + 1` looked-up frames. So the frames that few
//! videos have are looked at first, and only they bring in candidates: of the title that thousands of videos begin with, it
//! is then only asked whether these few have it.
//!
//! A frame that very many records have, or that has very many listed frames near, is *hot*: it brings in nobody, and nothing
//! of it is kept. Who can still reach the share is compared with the hot frames directly, frame by frame. That costs the
//! same however many records list the logo of a channel, so that no list of logos hides the videos that show one.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::sorted::Sorted;
use super::{HammingIndex, MATCHES_MAX, Merge, Merged, Near, Pdq, Retired, Snapshot};
use crate::replica::ids::{MemberId, SubjectId};
use crate::replica::signal::{self, Subject};
use crate::replica::vpdq::{FRAMES_MIN, Frame, ItemId};

/// Frames of one query that are looked at: an hour. Of a longer video they are taken at even distances: the share of so
/// many is that of all to within some permille.
pub const QUERY_FRAMES_MAX: usize = 3_600;
/// Frames that are asked for at once: what is near them is held together, 12 MB at most. From so many on the Hamming index
/// goes band by band, which is cheaper.
const TOGETHER: usize = 128;
/// Records of one video in an answer: whoever asks takes the first that is listed, and an item may have any number.
pub const HIT_SUBJECTS_MAX: usize = 16;
/// Records of a hot frame that are remembered, the nearest first, for the case that hot frames are all there is.
const SEEDS_MAX: usize = 16;
/// How often, on the way to the last frame, videos are sorted out that cannot reach the share any more. To look at all of
/// them after each frame would cost more than the frames.
const PRUNINGS: u64 = 16;
/// Videos that reached the share of which the records are looked up: some of them may be the same for several members.
const REACHED_MAX: usize = 4 * MATCHES_MAX;

/// How much work one query may be.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Listed frames near one looked-up frame; with more it is hot.
    near: usize,
    /// Steps from one looked-up frame to the records that have it; with more it is hot.
    frame_steps: usize,
    /// Steps of all frames that are not hot: the dearest are hot until no more are left. And so many listed frames near
    /// one are met; the frames that come then are hot.
    steps: usize,
    /// Pairs of a hot frame and a listed one that are compared.
    comparisons: usize,
}

const LIMITS: Limits = Limits {
    // A frame that a thousand different ones are near to is a title or a logo, and tells no video from another.
    near: 1_000,
    // A title of thousands of videos is still cheap; a hundred such frames are half of all steps. To count so many for
    // each frame of an hour takes a tenth of a second or two.
    frame_steps: 5_000,
    // A tenth of a second or so; and 32 MB, since each frame near is a step at least.
    steps: 1_000_000,
    // Some tenths of a second: an hour of hot frames against a hundred records, or a minute of them against ten thousand.
    comparisons: 40_000_000,
};

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
    /// Its records, at most [`HIT_SUBJECTS_MAX`]: the one that has most of the looked-up frames first, then the lowest
    /// subject. Where room is left, those that have none of them are among them.
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
    /// No other has it; they grow in the order of the hashes.
    number: usize,
    hash: Pdq,
    weight: u64,
    near: Vec<Pdq>,
    /// Steps to all records that have one of them.
    steps: usize,
}

/// A looked-up frame of which it is not known who has it, and how often it comes.
struct Hot {
    hash: Pdq,
    weight: u64,
    /// Some of the records that have it.
    seeds: Vec<RecordNo>,
}

/// The looked-up frames that a record may have.
#[derive(Default)]
struct Sorting {
    /// By their steps, then in their order.
    asked: BTreeMap<(usize, usize), Asked>,
    hot: Vec<Hot>,
    /// Of all that are not hot.
    steps: usize,
    /// Listed frames near one of them, hot or not.
    met: usize,
}

impl Sorting {
    /// Whether finding out what is hot was work enough.
    fn is_over(&self, limits: &Limits) -> bool {
        self.met >= limits.steps
    }

    fn take(&mut self, frames: &Frames, (hash, weight): (Pdq, u64), near: Near, limits: &Limits) {
        let number = self.met;
        self.met += near.hits.len();
        let is_over = near.truncated || self.is_over(limits);
        let near: Vec<_> = near.hits.into_iter().map(|(_, hash)| hash).collect();
        let records = || near.iter().flat_map(|hash| frames.records_with(hash));
        let steps = if is_over { usize::MAX } else { records().take(limits.frame_steps + 1).count() };
        if steps > limits.frame_steps {
            self.hot.push(Hot { hash, weight, seeds: records().take(SEEDS_MAX).collect() });
        } else if steps > 0 {
            self.steps += steps;
            self.asked.insert((steps, number), Asked { number, hash, weight, near, steps });
        }
        while self.steps > limits.steps {
            self.heat(frames);
        }
    }

    /// Makes the frame hot that takes most steps.
    fn heat(&mut self, frames: &Frames) {
        let Some((_, Asked { hash, weight, near, steps, .. })) = self.asked.pop_last() else { return };
        self.steps -= steps;
        let seeds = near.iter().flat_map(|hash| frames.records_with(hash)).take(SEEDS_MAX).collect();
        self.hot.push(Hot { hash, weight, seeds });
    }

    fn hot_weight(&self) -> u64 {
        self.hot.iter().map(|hot| hot.weight).sum()
    }
}

/// What was found of a video, or of a record, so far.
#[derive(Default)]
struct Found {
    weight: u64,
    /// The looked-up frame that was counted last: each counts once.
    last: Option<usize>,
}

impl Found {
    fn count(&mut self, asked: &Asked) {
        if self.last.replace(asked.number) != Some(asked.number) {
            self.weight += asked.weight;
        }
    }
}

/// One query under way.
struct Search<'a> {
    frames: &'a Frames,
    needed: u64,
    units: BTreeMap<Unit, Found>,
    /// Looked-up frames that each record has.
    records: BTreeMap<RecordNo, Found>,
}

/// When a video is compared: whether nothing else of it was met, its records, what it has, and which it is.
type Turn = (bool, usize, Reverse<u64>, Unit);

impl<'a> Search<'a> {
    fn new(frames: &'a Frames, needed: u64) -> Self {
        Self { frames, needed, units: BTreeMap::new(), records: BTreeMap::new() }
    }

    /// Counts the frames that are not hot, rare ones first; the order of equals is that of their hashes. All steps to
    /// records were counted when the frames were asked for.
    fn look(&mut self, asked: &BTreeMap<(usize, usize), Asked>, hot_weight: u64, candidates_max: usize) {
        let mut to_come = hot_weight + asked.values().map(|asked| asked.weight).sum::<u64>();
        let mut prune_at = self.needed - 1;
        let mut candidates = None;
        for asked in asked.values() {
            if to_come <= prune_at {
                self.prune(to_come);
                if self.units.is_empty() {
                    return;
                }
                candidates = self.candidates(candidates_max);
                prune_at = to_come.saturating_sub((self.needed / PRUNINGS).max(1));
            }
            match &candidates {
                Some(few) if few.len().saturating_mul(asked.near.len()) < asked.steps => self.ask(asked, few),
                _ => self.visit(asked, to_come >= self.needed),
            }
            to_come -= asked.weight;
        }
    }

    /// Drops who cannot reach the share with so much to come.
    fn prune(&mut self, to_come: u64) {
        self.units.retain(|_, found| found.weight + to_come >= self.needed);
    }

    /// The records of all videos that may still reach the share; none if they are so many that no frame is worth asking
    /// each of them.
    fn candidates(&self, max: usize) -> Option<Vec<RecordNo>> {
        let all = self.units.keys().flat_map(|unit| self.frames.records_of(*unit));
        let mut records: Vec<_> = all.take(max + 1).collect();
        if records.len() > max {
            return None;
        }
        records.sort_unstable();
        records.dedup();
        Some(records)
    }

    /// Counts `asked` for the videos that have it. Who was not met before cannot reach the share any more if not `open`.
    fn visit(&mut self, asked: &Asked, open: bool) {
        let frames = self.frames;
        for number in asked.near.iter().flat_map(|hash| frames.records_with(hash)) {
            self.count(number, asked, open);
        }
    }

    /// As [`Search::visit`], asking each candidate whether it has the frame.
    fn ask(&mut self, asked: &Asked, candidates: &[RecordNo]) {
        for (number, hash) in candidates.iter().flat_map(|number| asked.near.iter().map(move |hash| (*number, *hash))) {
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
            met = true;
            self.units.entry(unit).or_default().count(asked);
        }
        if met {
            self.records.entry(number).or_default().count(asked);
        }
    }

    /// Brings in those who have a hot frame, as far as they are remembered.
    fn seed(&mut self, hot: &[Hot]) {
        for number in hot.iter().flat_map(|hot| &hot.seeds) {
            let Some(part) = self.frames.parts.find(number) else { continue };
            part.units(*number).for_each(|unit| _ = self.units.entry(unit).or_default());
        }
    }

    /// Counts the hot frames for the videos that are left, as far as the comparisons suffice; whether they did.
    fn compare(&mut self, hot: &[Hot], threshold: u32, comparisons: usize) -> bool {
        if hot.is_empty() {
            return true;
        }
        let mut comparing = Comparing { hot, threshold, left: comparisons, seen: BTreeMap::new() };
        let compared = self.compare_units(&mut comparing);
        let weights = comparing.seen.iter().map(|(number, has)| (*number, comparing.weight(has)));
        weights.filter(|(_, weight)| *weight > 0).for_each(|(number, weight)| {
            self.records.entry(number).or_default().weight += weight;
        });
        compared.is_some()
    }

    /// None if the comparisons do not suffice; each video is counted whole or not at all.
    fn compare_units(&mut self, comparing: &mut Comparing<'_>) -> Option<()> {
        for (.., unit) in self.order(comparing)? {
            let mut has = vec![0; comparing.hot.len().div_ceil(BITS)];
            for number in self.frames.records_of(unit) {
                let Some(part) = self.frames.parts.find(&number) else { continue };
                let of_record = comparing.record(number, part)?;
                has.iter_mut().zip(of_record).for_each(|(has, more)| *has |= more);
            }
            self.units.entry(unit).or_default().weight += comparing.weight(&has);
        }
        Some(())
    }

    /// The videos in the order in which they are compared: who was met by other frames before who was not, then who has
    /// few records, so that no item of a thousand records keeps a short one waiting; then who has most already.
    fn order(&self, comparing: &mut Comparing<'_>) -> Option<Vec<Turn>> {
        // More cannot be compared anyway.
        let count_max = comparing.left / comparing.hot.len() + 1;
        let mut order = Vec::with_capacity(self.units.len());
        for (unit, found) in &self.units {
            let count = self.frames.records_of(*unit).take(count_max).count();
            comparing.left = comparing.left.checked_sub(count)?;
            order.push((found.weight == 0, count, Reverse(found.weight), *unit));
        }
        order.sort_unstable();
        Some(order)
    }

    fn end(self, total: u64, truncated: bool) -> VideoHits {
        let mut reached: Vec<_> = self.units.iter().filter(|(_, found)| found.weight >= self.needed).collect();
        reached.sort_by_key(|(_, found)| Reverse(found.weight));
        let mut more = reached.len() > REACHED_MAX;
        reached.truncate(REACHED_MAX);
        let mut subjects = self.subjects(reached.iter().map(|(unit, _)| **unit).collect());
        let hits = reached.iter().map(|(unit, found)| VideoHit {
            subjects: subjects.remove(unit).unwrap_or_default(),
            share_permille: u32::try_from(found.weight * 1_000 / total).unwrap_or(1_000),
        });
        let mut hits: Vec<_> = hits.collect();
        hits.sort_by(|a, b| b.share_permille.cmp(&a.share_permille).then_with(|| a.subjects.cmp(&b.subjects)));
        // Two members may have listed the same records of one video.
        hits.dedup_by(|a, b| a.subjects == b.subjects);
        more |= hits.len() > MATCHES_MAX;
        hits.truncate(MATCHES_MAX);
        VideoHits { hits, truncated: truncated || more }
    }

    /// The records of each of these videos that are answered. Those with a looked-up frame are found among all that were
    /// met, not among all of the video: of those there may be any number.
    fn subjects(&self, units: BTreeSet<Unit>) -> BTreeMap<Unit, Vec<Subject>> {
        let mut best: BTreeMap<_, _> = units.into_iter().map(|unit| (unit, BTreeSet::new())).collect();
        for (number, found) in &self.records {
            let Some(part) = self.frames.parts.find(number) else { continue };
            for unit in part.units(*number) {
                let Some(best) = best.get_mut(&unit) else { continue };
                best.insert((Reverse(found.weight), &part.subject));
                if best.len() > HIT_SUBJECTS_MAX {
                    best.pop_last();
                }
            }
        }
        let filled = best.into_iter().map(|(unit, mut best)| {
            self.fill(unit, &mut best);
            (unit, best.into_iter().map(|(_, subject)| subject.clone()).collect())
        });
        filled.collect()
    }

    /// Takes in records that have none of the frames, while there is room.
    fn fill(&self, unit: Unit, best: &mut BTreeSet<(Reverse<u64>, &'a Subject)>) {
        // As many of the first ones may be there already as there are.
        for number in self.frames.records_of(unit).take(2 * HIT_SUBJECTS_MAX) {
            let Some(part) = self.frames.parts.find(&number) else { continue };
            if best.len() < HIT_SUBJECTS_MAX && !self.records.contains_key(&number) {
                best.insert((Reverse(0), &part.subject));
            }
        }
    }
}

/// Hot frames in one word.
const BITS: usize = u64::BITS as usize;

/// The hot frames, and who was asked for all of them.
struct Comparing<'a> {
    hot: &'a [Hot],
    threshold: u32,
    /// Comparisons that are left.
    left: usize,
    /// Which of them a record has, a bit for each: it may be a part of several videos.
    seen: BTreeMap<RecordNo, Vec<u64>>,
}

impl Comparing<'_> {
    /// Which of the hot frames the record has; none if that would be too many comparisons.
    fn record(&mut self, number: RecordNo, part: &Part) -> Option<&[u64]> {
        match self.seen.entry(number) {
            Entry::Occupied(seen) => Some(seen.into_mut()),
            Entry::Vacant(place) => {
                let mut frames = part.subject.frames().unwrap_or_default();
                frames.retain(Frame::is_usable);
                self.left = self.left.checked_sub(frames.len() * self.hot.len())?;
                let mut has = vec![0; self.hot.len().div_ceil(BITS)];
                for (at, hot) in self.hot.iter().enumerate() {
                    let near = |frame: &Frame| signal::distance(&frame.hash, &hot.hash) <= self.threshold;
                    has[at / BITS] |= u64::from(frames.iter().any(near)) << (at % BITS);
                }
                Some(place.insert(has))
            }
        }
    }

    fn weight(&self, has: &[u64]) -> u64 {
        let has = |at: usize| has[at / BITS] >> (at % BITS) & 1 == 1;
        self.hot.iter().enumerate().filter(|(at, _)| has(*at)).map(|(_, hot)| hot.weight).sum()
    }
}

impl FramesSnapshot {
    /// The videos of which at least `share_min_permille` of the usable frames of `query` have a frame within `threshold`
    /// bits. The greatest share comes first, then the lowest subject. Where a limit was reached, the share of a video may
    /// be greater than is told.
    pub fn matches(&self, query: &[Frame], threshold: u32, share_min_permille: u32) -> VideoHits {
        self.matches_within(query, threshold, share_min_permille, &LIMITS)
    }

    fn matches_within(&self, query: &[Frame], threshold: u32, share_min_permille: u32, limits: &Limits) -> VideoHits {
        let weights = weights(query);
        let total: u64 = weights.values().sum();
        if total < FRAMES_MIN as u64 {
            return VideoHits::default();
        }
        let needed = (total * u64::from(share_min_permille)).div_ceil(1_000).max(1);
        let sorting = self.sort(weights, threshold, limits);
        let hot_weight = sorting.hot_weight();
        let mut search = Search::new(&self.frames, needed);
        search.look(&sorting.asked, hot_weight, limits.frame_steps);
        search.prune(hot_weight);
        // Then a video that no other frame brings in may have enough of the hot ones, and nobody looked for it.
        let is_hot_enough = hot_weight >= needed;
        if is_hot_enough {
            search.seed(&sorting.hot);
        }
        let compared = search.compare(&sorting.hot, threshold, limits.comparisons);
        search.end(total, is_hot_enough || !compared)
    }

    /// Asks who has the looked-up frames.
    fn sort(&self, weights: BTreeMap<Pdq, u64>, threshold: u32, limits: &Limits) -> Sorting {
        let weights: Vec<_> = weights.into_iter().collect();
        let mut sorting = Sorting::default();
        for together in weights.chunks(TOGETHER) {
            if sorting.is_over(limits) {
                let unasked = together.iter().map(|(hash, weight)| (*hash, *weight));
                sorting.hot.extend(unasked.map(|(hash, weight)| Hot { hash, weight, seeds: Vec::new() }));
                continue;
            }
            let hashes: Vec<_> = together.iter().map(|(hash, _)| *hash).collect();
            let near = self.hamming.near_many(&hashes, threshold, limits.near);
            for (frame, near) in together.iter().zip(near) {
                sorting.take(&self.frames, *frame, near, limits);
            }
        }
        sorting
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::replica::ids::sha256;
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
        let mut parts = [video(0..100), video(100..200), video(200..250)];
        parts[..2].sort();
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
        let late: Vec<_> = (195..250).map(hash).collect();
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
        assert!(index.frames.members.is_empty());
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
        assert!(!found.hits.is_empty(), "some of what there is is answered");
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

    fn found_within(index: &FramesIndex, query: &[Pdq], limits: Limits) -> (Vec<(u32, Vec<Subject>)>, bool) {
        let found = index.snapshot().matches_within(&frames(query), 31, SHARE_MIN_PERMILLE, &limits);
        (found.hits.into_iter().map(|hit| (hit.share_permille, hit.subjects)).collect(), found.truncated)
    }

    /// Records of `count` frames each near one logo, all different.
    fn logos(records: u32, count: u32) -> Vec<Subject> {
        let logo = |n: u32| {
            let mut hash = hash(7_777);
            hash[..4].iter_mut().zip(n.to_be_bytes()).for_each(|(byte, flip)| *byte ^= flip);
            hash
        };
        let record = |record: u32| (0..count).map(|n| logo(record * count + n)).collect::<Vec<_>>();
        (0..records).map(|n| Subject::of_frames(&frames(&record(n))).unwrap()).collect()
    }

    #[test]
    fn however_many_records_list_a_logo_the_videos_that_show_it_are_found() {
        // Of 20 frames three are the logo, somewhat different each; another video has those three and seven of the others.
        let with_logo = |numbers: std::ops::Range<u32>| numbers.map(hash).chain((28..31).map(|bits| near(7_777, bits)));
        let whole: Vec<_> = with_logo(0..17).collect();
        let video = Subject::of_frames(&frames(&whole)).unwrap();
        let other = Subject::of_frames(&frames(&with_logo(10..17).collect::<Vec<_>>())).unwrap();
        let small = Limits { near: 10, frame_steps: 20, ..LIMITS };
        let few = Limits { steps: 300, ..small };
        for (records, limits) in [(15, small), (15, few), (300, small), (21, LIMITS)] {
            let mut index = index(&logos(records, 50));
            index.insert(&video);
            index.insert(&other);
            let found = found_within(&index, &whole, limits);
            assert_eq!(found, (vec![(1_000, vec![video.clone()])], false), "{records} records, {limits:?}");
            // 14 and the three of the logo are enough of 20, 12 and these are not.
            let part = |own: u32| {
                let new = (0..17 - own).map(|n| hash(900 + n));
                with_logo(0..own).chain(new).collect::<Vec<_>>()
            };
            assert_eq!(found_within(&index, &part(14), limits).0, [(850, vec![video.clone()])]);
            assert_eq!(found_within(&index, &part(12), limits), (vec![], false));
        }
    }

    #[test]
    fn a_query_of_hot_frames_alone_is_told_to_be_cut_short() {
        let index = index(&logos(15, 50));
        let query: Vec<_> = (28..31).map(|bits| near(7_777, bits)).collect();
        let limits = Limits { near: 10, ..LIMITS };
        let (found, truncated) = found_within(&index, &query, limits);
        assert!(truncated && !found.is_empty(), "who has the nearest of them is answered all the same");
        let none = Limits { comparisons: 100, ..limits };
        assert_eq!(found_within(&index, &query, none), (vec![], true));
        let mut rare: Vec<_> = (0..20).map(hash).collect();
        rare.extend(query);
        assert_eq!(found_within(&index, &rare, none), (vec![], false), "nobody is left to be compared");
    }

    #[test]
    fn comparing_ends_with_its_budget_and_begins_with_the_short_videos() {
        let long: Vec<_> = (0..40).map(|n| video((0..17).chain(1_000 + n * 60..1_060 + n * 60))).collect();
        let short =
            Subject::of_frames(&frames(&(0..17).map(hash).chain([near(7_777, 3)]).collect::<Vec<_>>())).unwrap();
        let mut index = index(&logos(1, 50));
        long.iter().for_each(|part| {
            index.insert(part);
            index.tie(part, MemberId([1; 16]), Some([1; 16]));
        });
        index.insert(&short);
        let query: Vec<_> = (0..17).map(hash).chain((0..10).map(|bits| near(7_777, bits))).collect();
        let limits = Limits { near: 10, comparisons: 1_000, ..LIMITS };
        assert_eq!(found_within(&index, &query, limits), (vec![(1_000, vec![short.clone()])], true));
        let limits = Limits { comparisons: 100_000, ..limits };
        assert_eq!(found_within(&index, &query, limits), (vec![(1_000, vec![short])], false));
    }

    #[test]
    fn of_an_item_of_many_records_the_best_are_answered() {
        let parts: Vec<_> = (0..100).map(|n| video(n * 10..n * 10 + if n == 77 { 12 } else { 10 })).collect();
        let mut index = index(&parts);
        parts.iter().for_each(|part| index.tie(part, MemberId([1; 16]), Some([1; 16])));
        let all: Vec<_> = (0..1_000).map(hash).collect();
        let found = hits(&index, &all);
        assert_eq!((found.len(), found[0].0, found[0].1.len()), (1, 1_000, HIT_SUBJECTS_MAX));
        assert_eq!(found[0].1[0], parts[77]);
        let mut others: Vec<_> = (0..100).filter(|n| *n != 77).map(|n| parts[n].clone()).collect();
        others.sort();
        assert_eq!(found[0].1[1..], others[..HIT_SUBJECTS_MAX - 1], "then the lowest subjects");
        let few = hits(&index, &(500..530).map(hash).collect::<Vec<_>>());
        let first: BTreeSet<_> = few[0].1[..3].iter().cloned().collect();
        assert_eq!(first, parts[50..53].iter().cloned().collect());
        assert_eq!(few[0].1.len(), HIT_SUBJECTS_MAX, "the rest is filled up");
    }

    fn limits() -> impl Strategy<Value = Limits> {
        let comparisons = prop::sample::select(vec![50_usize, 1_000, LIMITS.comparisons]);
        let limits = (1_usize..6, 1_usize..12, 1_usize..80, comparisons);
        limits.prop_map(|(near, frame_steps, steps, comparisons)| Limits { near, frame_steps, steps, comparisons })
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
            limits in limits(),
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
            let expected: BTreeSet<_> = brute(&joined, &query, threshold, share_min)
                .into_iter()
                .map(|(n, share)| (share, wholes[n].iter().map(|at| subjects[*at].clone()).collect::<BTreeSet<_>>()))
                .collect();
            let snapshot = index.snapshot();
            let all = |found: VideoHits| -> BTreeSet<_> {
                found.hits.into_iter().map(|hit| (hit.share_permille, hit.subjects.into_iter().collect())).collect()
            };
            let found = snapshot.matches(&query, threshold, share_min);
            prop_assert!(!found.truncated);
            prop_assert!(found.hits.is_sorted_by(|a, b| a.share_permille >= b.share_permille));
            prop_assert_eq!(&all(found), &expected);
            let found = snapshot.matches_within(&query, threshold, share_min, &limits);
            if found.truncated {
                let is_true = |(share, subjects): &(u32, BTreeSet<Subject>)| {
                    expected.iter().any(|(of_all, whole)| whole == subjects && of_all >= share)
                };
                prop_assert!(all(found).iter().all(is_true), "what is answered is true, and its share no greater than it is");
            } else {
                prop_assert_eq!(&all(found), &expected);
            }
        }
    }
}
