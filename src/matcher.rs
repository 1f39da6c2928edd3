//! What lookups search: the indexes of the list, kept in step with the view, and read without keeping anybody up.
//!
//! The engine hands over every change of what matches ([`Matcher::apply`]) before it publishes or answers. Readers take
//! what stood at one moment ([`Matcher::now`]) and search it as long as they like. A search finds candidates: what the
//! list says of them is asked of the view, which may know more by then, and has the last word. Where there is no
//! candidate there is no match, and nobody need be asked.
//!
//! Threads of the matcher merge what has come lately into the large parts of the index. The writer's lock is held while a
//! merge is begun and while it is taken up, not while it runs, so that changes are searched at once all the same. Two of
//! them, so that small merges go on beside a long one. What comes while both are busy is searched one by one: of that there
//! may be [`UNMERGED_MAX`], and then whoever has more waits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

use arc_swap::ArcSwap;

use crate::replica::index::exact::{ExactIndex, ExactSnapshot};
use crate::replica::index::frames::{FramesIndex, FramesSnapshot};
use crate::replica::index::tlsh::{TLSH_DISTANCE_MAX, Tlsh, TlshIndex, TlshSnapshot};
use crate::replica::index::{self, HammingIndex, MATCHES_MAX, Merge, Merged, Near, Pdq, ReadError, Retired};
use crate::replica::notes::Tie;
use crate::replica::signal::{Alg, Subject};
use crate::replica::view::{Change, View};
use crate::replica::vpdq::{FRAME_SIZE, Frame, SHARE_MIN_PERMILLE};
use crate::store::snapshot::{Section, Sink, Snapshot, SnapshotError};

/// Changes that may come before a thread has looked whether there is something to merge, and then the next one waits. An
/// import of 60,000 records a second takes two seconds for so many, and both threads would have to be at merges of ten
/// million entries for as long; going through them one by one costs a lookup some hundred microseconds.
pub const UNMERGED_MAX: usize = 131_072;
/// Changes that are taken in before they can be searched, and before others get the lock: those of one block.
const APPLIED_TOGETHER_MAX: usize = 512;
/// The long indexes, as a snapshot file has them.
pub struct Stored {
    key: [u8; 32],
    pictures: HammingIndex,
    exact: ExactIndex,
}

impl Stored {
    /// As [`Stored::read`]; `None` if the file has no index.
    ///
    /// # Errors
    /// As there.
    pub fn read_if_there(snapshot: &Snapshot) -> Result<Option<Self>, SnapshotError> {
        snapshot.has(KEY).then(|| Self::read(snapshot)).transpose()
    }

    /// Reads the sections of [`Matcher::image`].
    ///
    /// # Errors
    /// A section cannot be read, or is none of an index.
    pub fn read(snapshot: &Snapshot) -> Result<Self, SnapshotError> {
        const DAMAGED: SnapshotError = SnapshotError::Damaged("an index");
        let key = snapshot.section(KEY)?.try_into().map_err(|_length| DAMAGED)?;
        let mut section = snapshot.open_section(PICTURES)?;
        let read = HammingIndex::read_from(section.left(), &mut |bytes| section.fill(bytes));
        let pictures = read.map_err(|error| match error {
            ReadError::Source(error) => error,
            ReadError::Damaged(_) => DAMAGED,
        })?;
        section.finish()?;
        let exact = ExactIndex::read_from(key, &snapshot.section(EXACT)?).map_err(|_damaged| DAMAGED)?;
        Ok(Self { key, pictures, exact })
    }
}

/// A sink as something to write to.
struct Writes<'a, 'b>(&'a mut Sink<'b>);

impl io::Write for Writes<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Threads that merge.
const THREADS: usize = 2;
/// How often a thread looks whether nobody searches any more what it has replaced.
const RETIRED_LOOK: Duration = Duration::from_millis(50);
/// Entries between two words on how far building is.
const STEP: u64 = 65_536;
/// Hashes of pictures that are searched in one go: each may have [`MATCHES_MAX`] near, and room for twice as many.
const TOGETHER_MAX: usize = 512;
/// Hashes of pictures in one search that takes microseconds: the eight ways to turn and mirror one.
const SHORT_PICTURES_MAX: usize = 8;
/// Other queries in one search that takes microseconds.
const SHORT_EXACT_MAX: usize = 256;

/// Sections of the snapshot file.
const KEY: &str = "index key";
const PICTURES: &str = "pictures";
const EXACT: &str = "exact";

/// The writer's side, and where readers find theirs.
pub struct Matcher {
    inner: Arc<Inner>,
}

struct Inner {
    writer: Mutex<Writer>,
    now: ArcSwap<Index>,
    /// Changes came, or the matcher ends.
    came: Condvar,
    /// A merge was begun or has ended, so that there is room for more.
    room: Condvar,
}

struct Writer {
    key: [u8; 32],
    pictures: HammingIndex,
    documents: TlshIndex,
    exact: ExactIndex,
    /// Apart from the pictures: a still never matches a video.
    videos: FramesIndex,
    /// Changes since a thread last looked whether there is something to merge.
    unmerged: usize,
    merging: Merging,
}

/// Which index a merge is of.
#[derive(Clone, Copy)]
enum Of {
    Pictures,
    Videos,
}

/// What becomes of changes that are not merged yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Merging {
    /// The threads merge them.
    Goes,
    /// It failed, and says so in the log. Everything is still found, more slowly the more comes.
    Failed,
    /// The matcher is gone.
    Ended,
}

/// The indexes as they stood at one moment.
pub struct Index {
    pictures: index::Snapshot,
    documents: TlshSnapshot,
    exact: ExactSnapshot,
    videos: FramesSnapshot,
}

/// What is searched for together: all that is known of one item.
#[derive(Clone, Debug)]
pub struct Sought {
    /// Each with a number of the caller's; several may have the same.
    pub queries: Vec<(usize, Subject)>,
    /// In bits of a PDQ hash; documents have their own.
    pub threshold: u32,
    /// Of a thousand frames of all videos among them, which are one video, so many must be near those of a listed one.
    pub share_min_permille: u32,
}

impl Sought {
    /// With a share of frames that nobody asked to be another.
    pub fn new(queries: Vec<(usize, Subject)>, threshold: u32) -> Self {
        Self { queries, threshold, share_min_permille: SHARE_MIN_PERMILLE }
    }
}

/// What a search came upon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The nearest first, then in the order of queries and of the list.
    pub candidates: Vec<Candidate>,
    /// Listed videos, the greatest share first.
    pub videos: Vec<Video>,
    /// There are more than [`MATCHES_MAX`] near one of the queries, and only the nearest are among these.
    pub truncated: bool,
}

/// A listed video that what was looked up may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Video {
    /// Its records, the one that has most of the looked-up frames first.
    pub records: Vec<Candidate>,
    /// Of a thousand looked-up frames, so many have one of its frames near.
    pub share_permille: u32,
}

/// A subject that may be what was looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// In bits, or what the kind of hash counts in; 0: equal.
    pub distance: u32,
    /// Which of the queries.
    pub query: usize,
    /// Up to which distance was searched; 0: for equal ones.
    pub threshold: u32,
    /// What may be listed.
    pub subject: Subject,
}

impl Matcher {
    /// The index of a list as it stands. `key` is secret and random: a member that knew it could list hashes that crowd
    /// one place of an index.
    ///
    /// # Errors
    /// There is no thread to be had for merging.
    pub fn of(view: &View, key: [u8; 32]) -> io::Result<Self> {
        Self::built(view, key, |_, _| {})
    }

    /// The same; `told` hears now and then how many entries are in, and of how many at most.
    ///
    /// # Errors
    /// As [`Matcher::of`].
    pub fn built(view: &View, key: [u8; 32], mut told: impl FnMut(u64, u64)) -> io::Result<Self> {
        let (mut exact, mut documents, mut hashes) = (ExactIndex::new(key), TlshIndex::default(), Vec::new());
        for (done, subject) in (1..).zip(view.matching()) {
            if let Some(hash) = picture(&subject) {
                hashes.push(hash);
            } else if let Some(tlsh) = document(&subject) {
                documents.insert(&tlsh);
            } else {
                exact.insert(&subject);
            }
            if done % STEP == 0 {
                told(done, view.listed().max(done));
            }
        }
        let videos = videos(view, key);
        Self::start(key, HammingIndex::from_hashes(key, hashes.into_iter()), documents, exact, videos)
    }

    /// Goes on with the long indexes of a snapshot, which were in step with `view` when it was made; the short ones are made
    /// of the list.
    ///
    /// # Errors
    /// As [`Matcher::of`].
    pub fn with_stored(stored: Stored, view: &View) -> io::Result<Self> {
        let Stored { key, pictures, exact } = stored;
        let mut documents = TlshIndex::default();
        for tlsh in view.matching_of(Alg::Tlsh).filter_map(|subject| document(&subject)) {
            documents.insert(&tlsh);
        }
        Self::start(key, pictures, documents, exact, videos(view, key))
    }

    /// Sections of the snapshot file: the long indexes, as they stand now. The short ones follow from the list.
    pub fn image(&self) -> Vec<(&'static str, Section)> {
        let mut writer = self.inner.lock();
        let (pictures, exact, key) = (writer.pictures.snapshot(), writer.exact.freeze(), writer.key);
        drop(writer);
        let key: Section = Box::new(move |sink| sink(&key));
        let pictures: Section = Box::new(move |sink| pictures.write_to(sink));
        let exact: Section = Box::new(move |sink| exact.write_to(&mut Writes(sink)));
        vec![(KEY, key), (PICTURES, pictures), (EXACT, exact)]
    }

    /// Goes on with indexes that are in step with the list.
    ///
    /// # Errors
    /// As [`Matcher::of`].
    pub fn start(
        key: [u8; 32],
        pictures: HammingIndex,
        documents: TlshIndex,
        exact: ExactIndex,
        videos: FramesIndex,
    ) -> io::Result<Self> {
        let mut writer = Writer { key, pictures, documents, exact, videos, unmerged: 0, merging: Merging::Goes };
        let now = ArcSwap::from_pointee(writer.index());
        let inner = Arc::new(Inner { writer: Mutex::new(writer), now, came: Condvar::new(), room: Condvar::new() });
        let matcher = Self { inner };
        for number in 1..=THREADS {
            let inner = Arc::clone(&matcher.inner);
            thread::Builder::new().name(format!("matcher-{number}")).spawn(move || Merger { inner: &inner }.run())?;
        }
        Ok(matcher)
    }

    /// Takes in what changed of the list. When this returns, lookups that begin find it. Waits only while more than
    /// [`UNMERGED_MAX`] changes are not merged.
    pub fn apply(&self, changes: &[Change], ties: &[Tie]) {
        if !ties.is_empty() {
            let mut writer = self.inner.lock();
            ties.iter().for_each(|tie| writer.videos.tie(&tie.subject, tie.member, tie.item));
            self.inner.publish(writer);
        }
        for some in changes.chunks(APPLIED_TOGETHER_MAX) {
            let writer = self.inner.lock();
            let behind = |writer: &mut Writer| writer.unmerged >= UNMERGED_MAX && writer.merging == Merging::Goes;
            let mut writer = self.inner.room.wait_while(writer, behind).unwrap_or_else(PoisonError::into_inner);
            some.iter().for_each(|change| writer.apply(change));
            writer.unmerged += some.iter().map(|change| weight(&change.subject)).sum::<usize>();
            self.inner.publish(writer);
            self.inner.came.notify_all();
        }
    }

    /// What to search: it misses nothing that was taken in before.
    pub fn now(&self) -> Arc<Index> {
        self.inner.now.load_full()
    }

    /// What is wrong, if something is: lookups find everything all the same.
    pub fn trouble(&self) -> Option<&'static str> {
        let failed = self.inner.lock().merging == Merging::Failed;
        failed.then_some(
            "lookups get slower: the index is no longer merged, restart the node and report the panic of its log",
        )
    }
}

/// The threads end when their merges do, at once if there are none.
impl Drop for Matcher {
    fn drop(&mut self) {
        self.inner.lock().merging = Merging::Ended;
        self.inner.came.notify_all();
    }
}

impl Inner {
    /// A change is whole or was not begun: the indexes are in order though somebody panicked here.
    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stood before may be the last to hold large parts of an index: that is freed outside the lock.
    fn publish(&self, mut writer: MutexGuard<'_, Writer>) {
        let before = self.now.swap(Arc::new(writer.index()));
        drop(writer);
        drop(before);
    }

    /// Takes up a merge; `None`: it failed. What it replaced is to be dropped when nobody searches it any more.
    fn install(&self, merged: Option<(Of, Merged)>) -> Option<Retired> {
        let mut writer = self.lock();
        let retired = merged.map(|(of, merged)| match of {
            Of::Pictures => writer.pictures.install(merged),
            Of::Videos => writer.videos.install(merged),
        });
        if retired.is_none() && writer.merging == Merging::Goes {
            writer.merging = Merging::Failed;
        }
        self.publish(writer);
        self.room.notify_all();
        retired
    }
}

impl Writer {
    /// What is there already, or is not, stays as it is.
    fn apply(&mut self, change: &Change) {
        let subject = &change.subject;
        let _changed = match (picture(subject), document(subject), change.matches) {
            (Some(hash), _, true) => self.pictures.insert(hash),
            (Some(hash), _, false) => self.pictures.remove(&hash),
            (None, Some(tlsh), true) => self.documents.insert(&tlsh),
            (None, Some(tlsh), false) => self.documents.remove(&tlsh),
            (None, None, true) => self.exact.insert(subject),
            (None, None, false) => self.exact.remove(subject),
        };
        // What is no video changes nothing.
        if change.matches { self.videos.insert(subject) } else { self.videos.remove(subject) }
    }

    /// The next merge that is due.
    fn merge(&self) -> Option<(Of, Merge)> {
        let pictures = self.pictures.merge().map(|merge| (Of::Pictures, merge));
        pictures.or_else(|| self.videos.merge().map(|merge| (Of::Videos, merge)))
    }

    fn index(&mut self) -> Index {
        Index {
            pictures: self.pictures.snapshot(),
            documents: self.documents.snapshot(),
            exact: self.exact.snapshot(),
            videos: self.videos.snapshot(),
        }
    }
}

/// A thread that merges. However it ends, nobody waits for it afterwards.
struct Merger<'a> {
    inner: &'a Inner,
}

impl Merger<'_> {
    fn run(&self) {
        merge(self.inner);
    }
}

impl Drop for Merger<'_> {
    fn drop(&mut self) {
        let mut writer = self.inner.lock();
        if writer.merging == Merging::Goes {
            writer.merging = Merging::Failed;
        }
        drop(writer);
        self.inner.room.notify_all();
    }
}

/// Merges as long as there is something to merge, waits for more, ends with the matcher.
fn merge(inner: &Inner) {
    let mut retired: Vec<Retired> = Vec::new();
    let mut writer = inner.lock();
    while writer.merging == Merging::Goes {
        let job = writer.merge();
        let looked_at = std::mem::take(&mut writer.unmerged);
        inner.room.notify_all();
        let Some((of, job)) = job else {
            writer = rest(inner, writer, &mut retired);
            continue;
        };
        drop(writer);
        // The index does without: what was to be merged stays where it is, and is found there.
        let merged = catch_unwind(AssertUnwindSafe(|| job.run()));
        if merged.is_err() {
            tracing::error!(
                changes = looked_at,
                "merging the index panicked: lookups get slower from now on; please report it"
            );
        }
        retired.extend(inner.install(merged.ok().map(|merged| (of, merged))));
        // Also while there is no rest: what nobody searches any more would pile up.
        retired.retain(|retired| !retired.is_idle());
        writer = inner.lock();
    }
}

/// Waits for changes; meanwhile drops what nobody searches any more, which takes too long to leave it to a lookup.
fn rest<'a>(inner: &'a Inner, writer: MutexGuard<'a, Writer>, retired: &mut Vec<Retired>) -> MutexGuard<'a, Writer> {
    let nothing = |writer: &mut Writer| writer.unmerged == 0 && writer.merging == Merging::Goes;
    if retired.is_empty() {
        return inner.came.wait_while(writer, nothing).unwrap_or_else(PoisonError::into_inner);
    }
    let waited = inner.came.wait_timeout_while(writer, RETIRED_LOOK, nothing);
    let (writer, _) = waited.unwrap_or_else(PoisonError::into_inner);
    drop(writer);
    retired.retain(|retired| !retired.is_idle());
    inner.lock()
}

impl Index {
    /// What may be equal or near to the queries of one item, and the videos of which it may be one.
    pub fn search(&self, Sought { queries, threshold, share_min_permille }: &Sought) -> Found {
        let threshold = *threshold;
        let mut found = Found::default();
        self.add_videos(queries, threshold, *share_min_permille, &mut found);
        let pictures: Vec<_> = queries.iter().filter_map(|(query, sought)| Some((*query, picture(sought)?))).collect();
        let hashes: Vec<_> = pictures.iter().map(|(_, hash)| *hash).collect();
        let near = self.near(&hashes, threshold, MATCHES_MAX);
        for ((query, _), near) in pictures.iter().zip(near) {
            found.add(*query, threshold, near);
        }
        queries.iter().for_each(|(query, sought)| self.add_documents(*query, sought, &mut found));
        let exact = queries.iter().filter(|(_, sought)| self.exact.may_contain(sought));
        found.candidates.extend(exact.map(|(query, sought)| equal(*query, sought)));
        found.candidates.sort_unstable();
        found
    }

    /// The same of many items at once, in their order; each has its own answer.
    pub fn search_many(&self, items: &[Sought]) -> Vec<Found> {
        let mut all = vec![Found::default(); items.len()];
        let mut thresholds: Vec<_> = items.iter().map(|item| item.threshold).collect();
        thresholds.sort_unstable();
        thresholds.dedup();
        let queries =
            || items.iter().enumerate().flat_map(|(n, item)| item.queries.iter().map(move |query| (n, query)));
        for threshold in thresholds {
            let pictures = queries().filter(|(n, _)| items[*n].threshold == threshold);
            let pictures: Vec<_> =
                pictures.filter_map(|(n, (query, sought))| Some((n, *query, picture(sought)?))).collect();
            for some in pictures.chunks(TOGETHER_MAX) {
                let hashes: Vec<_> = some.iter().map(|(.., hash)| *hash).collect();
                for ((n, query, _), near) in some.iter().zip(self.near(&hashes, threshold, MATCHES_MAX)) {
                    all[*n].add(*query, threshold, near);
                }
            }
        }
        for (found, item) in all.iter_mut().zip(items) {
            self.add_videos(&item.queries, item.threshold, item.share_min_permille, found);
        }
        queries().for_each(|(n, (query, sought))| self.add_documents(*query, sought, &mut all[n]));
        let exact: Vec<_> = queries().filter(|(_, (_, sought))| picture(sought).is_none()).collect();
        let subjects: Vec<_> = exact.iter().map(|(_, (_, sought))| sought.clone()).collect();
        for ((n, (query, sought)), _) in exact.iter().zip(self.among(&subjects)).filter(|(_, listed)| *listed) {
            all[*n].candidates.push(equal(*query, sought));
        }
        all.iter_mut().for_each(|found| found.candidates.sort_unstable());
        all
    }

    /// The hashes of pictures near each of `hashes`, in their order: of each at most `limit`, the nearest.
    pub fn near(&self, hashes: &[Pdq], threshold: u32, limit: usize) -> Vec<Near> {
        self.pictures.near_many(hashes, threshold, limit)
    }

    /// The listed videos that have enough of the frames of the one in `queries`.
    fn add_videos(&self, queries: &[(usize, Subject)], threshold: u32, share_min_permille: u32, found: &mut Found) {
        let records: Vec<_> = queries.iter().filter_map(|(query, sought)| Some((*query, sought.frames()?))).collect();
        let Some((query, _)) = records.first() else { return };
        let frames: Vec<Frame> = records.iter().flat_map(|(_, frames)| frames).copied().collect();
        let hits = self.videos.matches(&frames, threshold, share_min_permille);
        found.truncated |= hits.truncated;
        let candidate = |subject: Subject| {
            let distance = if queries.iter().any(|(_, sought)| *sought == subject) { 0 } else { threshold };
            Candidate { distance, query: *query, threshold, subject }
        };
        found.videos.extend(hits.hits.into_iter().map(|hit| Video {
            records: hit.subjects.into_iter().map(candidate).collect(),
            share_permille: hit.share_permille,
        }));
    }

    /// The documents near `sought`, if it is one.
    fn add_documents(&self, query: usize, sought: &Subject, found: &mut Found) {
        let Some(tlsh) = document(sought) else { return };
        let mut hits = self.documents.near(&tlsh, TLSH_DISTANCE_MAX, MATCHES_MAX + 1);
        found.truncated |= hits.len() > MATCHES_MAX;
        hits.truncate(MATCHES_MAX);
        found.candidates.extend(hits.into_iter().map(|(distance, tlsh)| {
            let subject = Subject::of(Alg::Tlsh, &tlsh);
            Candidate { distance, query, threshold: TLSH_DISTANCE_MAX, subject }
        }));
    }

    /// Of each of `subjects`, whether it may be listed as it is.
    pub fn among(&self, subjects: &[Subject]) -> Vec<bool> {
        self.exact.may_contain_many(subjects)
    }
}

/// Entries of an index that a change of `subject` is: of a video each of its frames.
fn weight(subject: &Subject) -> usize {
    if subject.alg() == Alg::Vpdq.number() { subject.digest().len().div_ceil(FRAME_SIZE).max(1) } else { 1 }
}

/// Whether a search takes microseconds, so that it costs less than to have another thread do it.
pub fn is_short(queries: &[(usize, Subject)]) -> bool {
    let count = |alg: Alg| queries.iter().filter(|(_, sought)| sought.alg() == alg.number()).count();
    let (pictures, others) = (count(Alg::Pdq), count(Alg::Tlsh) + count(Alg::Vpdq));
    pictures <= SHORT_PICTURES_MAX && others == 0 && queries.len() - pictures <= SHORT_EXACT_MAX
}

impl Found {
    /// Whether nothing is listed of what was looked up.
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty() && self.videos.is_empty() && !self.truncated
    }

    fn add(&mut self, query: usize, threshold: u32, near: Near) {
        self.truncated |= near.truncated;
        let candidate = |(distance, hash): (u32, Pdq)| Candidate {
            distance,
            query,
            threshold,
            subject: Subject::of(Alg::Pdq, &hash),
        };
        self.candidates.extend(near.hits.into_iter().map(candidate));
    }
}

fn equal(query: usize, subject: &Subject) -> Candidate {
    Candidate { distance: 0, query, threshold: 0, subject: subject.clone() }
}

/// The index of the videos in a list.
fn videos(view: &View, key: [u8; 32]) -> FramesIndex {
    let mut videos = FramesIndex::new(key);
    view.matching_of(Alg::Vpdq).for_each(|subject| videos.insert(&subject));
    view.notes().ties().for_each(|tie| videos.tie(&tie.subject, tie.member, tie.item));
    videos
}

/// The hash of a document, if that is what `subject` is.
fn document(subject: &Subject) -> Option<Tlsh> {
    let hash = || subject.digest().try_into().ok();
    (subject.alg() == Alg::Tlsh.number()).then(hash).flatten()
}

/// The hash of a picture, if that is what `subject` is.
fn picture(subject: &Subject) -> Option<Pdq> {
    let hash = || subject.digest().try_into().ok();
    (subject.alg() == Alg::Pdq.number()).then(hash).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::ids::sha256;

    fn matcher() -> Matcher {
        Matcher::start(
            [8; 32],
            HammingIndex::new([7; 32]),
            TlshIndex::default(),
            ExactIndex::new([8; 32]),
            FramesIndex::new([8; 32]),
        )
        .unwrap()
    }

    fn subject(alg: Alg, n: u64) -> Subject {
        Subject::of(alg, &sha256(&[b"matcher", &n.to_be_bytes()]))
    }

    fn change(alg: Alg, n: u64, matches: bool) -> Change {
        Change { subject: subject(alg, n), matches }
    }

    fn finds(index: &Index, alg: Alg, n: u64) -> bool {
        let found = index.search(&Sought::new(vec![(3, subject(alg, n))], 31));
        found.candidates.iter().any(|c| c.distance == 0 && c.query == 3 && c.subject == subject(alg, n))
    }

    #[test]
    fn what_came_is_found_what_went_is_not_and_who_searches_keeps_what_was() {
        let matcher = matcher();
        let before = matcher.now();
        matcher.apply(&[change(Alg::Pdq, 1, true), change(Alg::Sha256, 2, true), change(Alg::Sha256, 3, true)], &[]);
        let between = matcher.now();
        matcher.apply(&[change(Alg::Pdq, 1, false), change(Alg::Sha256, 2, false)], &[]);
        let after = matcher.now();
        assert!(!finds(&before, Alg::Pdq, 1));
        assert!(finds(&between, Alg::Pdq, 1), "a picture is found as it was, by who holds what was then");
        assert!(!finds(&after, Alg::Pdq, 1) && !finds(&after, Alg::Sha256, 2) && finds(&after, Alg::Sha256, 3));
        assert!(!finds(&after, Alg::Pdq, 3), "the same bytes as a picture are another subject");
    }

    /// More than one merge, so that changes come before, while and after it runs.
    #[test]
    fn every_change_is_found_at_once_whatever_is_being_merged() {
        let matcher = matcher();
        for hundred in 0..120_u64 {
            let numbers = hundred * 100..hundred * 100 + 100;
            let came: Vec<_> = numbers.clone().map(|n| change(Alg::Pdq, n, true)).collect();
            matcher.apply(&came, &[]);
            let went: Vec<_> = numbers.clone().step_by(10).map(|n| change(Alg::Pdq, n, false)).collect();
            matcher.apply(&went, &[]);
            let index = matcher.now();
            for n in numbers.step_by(5) {
                assert_eq!(finds(&index, Alg::Pdq, n), n % 10 != 0, "{n}");
            }
            assert!(hundred == 0 || finds(&index, Alg::Pdq, hundred * 37 + 1) == ((hundred * 37 + 1) % 10 != 0));
        }
        assert_eq!(matcher.trouble(), None);
    }

    #[test]
    fn a_search_of_many_finds_for_each_what_it_finds_alone() {
        let matcher = matcher();
        let changes: Vec<_> =
            (0..500).map(|n| change(if n % 2 == 0 { Alg::Pdq } else { Alg::Sha256 }, n, true)).collect();
        matcher.apply(&changes, &[]);
        let near = |n: u64, bits: u8| {
            let mut digest = subject(Alg::Pdq, n).digest().to_vec();
            digest[0] ^= bits;
            Subject::of(Alg::Pdq, &digest)
        };
        let items = (0..200_u64).map(|n| Sought {
            queries: vec![
                (0, near(2 * n, 0b111)),
                (1, subject(Alg::Sha256, n)),
                (1, subject(Alg::Md5, n)),
                (7, near(2 * n, 0)),
            ],
            threshold: if n % 3 == 0 { 2 } else { 31 },
            share_min_permille: SHARE_MIN_PERMILLE,
        });
        let items: Vec<_> = items.collect();
        let index = matcher.now();
        let together = index.search_many(&items);
        for (n, (item, found)) in items.iter().zip(&together).enumerate() {
            assert_eq!(*found, index.search(item), "item {n}");
            assert_eq!(
                found.candidates.iter().any(|c| c.query == 0),
                n % 3 != 0,
                "item {n}: 3 bits of {}",
                item.threshold
            );
            assert_eq!(found.candidates.iter().any(|c| c.query == 1), n % 2 == 1, "item {n}");
            assert!(found.candidates.iter().any(|c| c.query == 7 && c.distance == 0), "item {n}");
        }
        assert_eq!(index.search_many(&[]), []);
    }

    #[test]
    fn more_than_is_answered_is_told() {
        let matcher = matcher();
        let mut hashes: Vec<_> = (0..=MATCHES_MAX as u64)
            .map(|n| {
                let mut digest = [0xa5; 32];
                digest[..2].copy_from_slice(&u16::try_from(n).unwrap().to_be_bytes());
                Change { subject: Subject::of(Alg::Pdq, &digest), matches: true }
            })
            .collect();
        let last = hashes.pop().unwrap();
        matcher.apply(&hashes, &[]);
        let sought = [(0, hashes[0].subject.clone())];
        let found = matcher.now().search(&Sought::new(sought.to_vec(), 31));
        assert_eq!((found.candidates.len(), found.truncated), (MATCHES_MAX, false));
        matcher.apply(&[last], &[]);
        let found = matcher.now().search(&Sought::new(sought.to_vec(), 31));
        assert_eq!((found.candidates.len(), found.truncated), (MATCHES_MAX, true));
    }

    #[test]
    fn the_threads_end_with_the_matcher() {
        let matcher = matcher();
        let inner = Arc::downgrade(&matcher.inner);
        drop(matcher);
        let begun = crate::clock::instant();
        while inner.strong_count() > 0 {
            assert!(begun.elapsed().as_secs() < 30, "it goes on");
            thread::yield_now();
        }
    }
}
