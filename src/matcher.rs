//! What lookups search: the index of the list, kept in step with the view, and read without keeping anybody up.
//!
//! The engine hands over every change of what matches ([`Matcher::apply`]) before it publishes or answers. Readers take
//! what stood at one moment ([`Matcher::now`]) and search it as long as they like. A search finds candidates: what the
//! list says of them is asked of the view, which may know more by then, and has the last word.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::replica::index::{self, HammingIndex};
use crate::replica::signal::{Alg, Subject};
use crate::replica::view::{Change, View};

/// The writer's side, and where readers find theirs.
pub struct Matcher {
    writer: Mutex<HammingIndex>,
    now: ArcSwap<Index>,
}

/// The index as it stood at one moment.
pub struct Index {
    pictures: index::Snapshot,
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
        let mut pictures = HammingIndex::default();
        view.matching().filter_map(|subject| picture(&subject)).for_each(|hash| pictures.insert(hash));
        let now = Index { pictures: pictures.snapshot() };
        Self { writer: Mutex::new(pictures), now: ArcSwap::from_pointee(now) }
    }

    /// Takes in what changed of the list. When this returns, lookups that begin find it.
    pub fn apply(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // What no longer matches stays until the node starts again: the view is asked in any case.
        let came = changes.iter().filter(|change| change.matches).filter_map(|change| picture(&change.subject));
        came.for_each(|hash| writer.insert(hash));
        self.now.store(Arc::new(Index { pictures: writer.snapshot() }));
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
                    }))
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

/// The hash of a picture, if that is what `subject` is.
fn picture(subject: &Subject) -> Option<index::Pdq> {
    let hash = || subject.digest().try_into().ok();
    (subject.alg() == Alg::Pdq.number()).then(hash).flatten()
}
