//! What lookups search: the index of the list, kept in step with the view, and read without keeping anybody up.
//!
//! The engine hands over every change of what matches ([`Matcher::apply`]) before it publishes or answers. Readers take
//! what stood at one moment ([`Matcher::now`]) and search it as long as they like. A search finds candidates: what the
//! list says of them is asked of the view, which may know more by then, and has the last word.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::replica::index::frames::{FramesIndex, FramesSnapshot, VideoHits};
use crate::replica::index::{self, HammingIndex};
use crate::replica::notes::Tie;
use crate::replica::signal::{Alg, Subject};
use crate::replica::view::{Change, View};
use crate::replica::vpdq::Frame;

/// The writer's side, and where readers find theirs.
pub struct Matcher {
    writer: Mutex<Writer>,
    now: ArcSwap<Index>,
}

/// What is written: one index for each kind of match.
#[derive(Default)]
struct Writer {
    pictures: HammingIndex,
    /// Apart from the pictures: a still never matches a video.
    videos: FramesIndex,
}

impl Writer {
    fn now(&self) -> Index {
        Index { pictures: self.pictures.snapshot(), videos: self.videos.snapshot() }
    }
}

/// The index as it stood at one moment.
pub struct Index {
    pictures: index::Snapshot,
    videos: FramesSnapshot,
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
    /// The index of a list as it stands.
    pub fn of(view: &View) -> Self {
        let mut writer = Writer::default();
        view.matching().filter_map(picture).for_each(|hash| writer.pictures.insert(hash));
        view.matching().for_each(|subject| writer.videos.insert(subject));
        view.notes().ties().for_each(|tie| writer.videos.tie(&tie.subject, tie.member, tie.item));
        let now = writer.now();
        Self { writer: Mutex::new(writer), now: ArcSwap::from_pointee(now) }
    }

    /// Takes in what changed of the list. When this returns, lookups that begin find it.
    pub fn apply(&self, changes: &[Change], ties: &[Tie]) {
        if changes.is_empty() && ties.is_empty() {
            return;
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // What no longer matches stays until the node starts again: the view is asked in any case.
        let came = changes.iter().filter(|change| change.matches).filter_map(|change| picture(&change.subject));
        came.for_each(|hash| writer.pictures.insert(hash));
        for change in changes {
            if change.matches { writer.videos.insert(&change.subject) } else { writer.videos.remove(&change.subject) }
        }
        ties.iter().for_each(|tie| writer.videos.tie(&tie.subject, tie.member, tie.item));
        self.now.store(Arc::new(writer.now()));
    }

    /// What to search: it stays as it is.
    pub fn now(&self) -> Arc<Index> {
        self.now.load_full()
    }
}

impl Index {
    /// What may be equal or near to the queries, each with its number: the nearest first, then in the order of queries and
    /// of the list. `threshold` is in bits of a PDQ hash.
    pub fn search(&self, queries: &[(usize, Subject)], threshold: u32) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for (query, sought) in queries {
            match picture(sought) {
                Some(hash) => {
                    candidates.extend(self.pictures.near(&hash, threshold).into_iter().map(|(distance, hash)| {
                        Candidate { distance, query: *query, threshold, subject: Subject::of(Alg::Pdq, &hash) }
                    }));
                }
                None => {
                    candidates.push(Candidate { distance: 0, query: *query, threshold: 0, subject: sought.clone() });
                }
            }
        }
        candidates.sort();
        candidates
    }
}

impl Index {
    /// The listed videos that have at least `share_min_permille` of the frames of all videos among `queries`, which are
    /// one video.
    pub fn search_videos(&self, queries: &[(usize, Subject)], threshold: u32, share_min_permille: u32) -> VideoHits {
        let frames: Vec<Frame> = queries.iter().filter_map(|(_, query)| query.frames()).flatten().collect();
        self.videos.matches(&frames, threshold, share_min_permille)
    }
}

/// The hash of a picture, if that is what `subject` is.
fn picture(subject: &Subject) -> Option<index::Pdq> {
    let hash = || subject.digest().try_into().ok();
    (subject.alg() == Alg::Pdq.number()).then(hash).flatten()
}
