//! What the list and the review queue hold, in numbers: counted by going through the list now and then, in pieces, beside
//! everything else. Nothing of the view's own is changed for it.
//!
//! A short list is gone through whenever somebody asks. A long one in the background, at most so often that it costs a
//! twentieth of one core; what is shown then is as old as [`Survey::at`] says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::engine::Shared;
use crate::net::reviews;
use crate::policy::breaker::Trip;
use crate::replica::ids::TimeMs;
use crate::replica::signal::Subject;
use crate::replica::view::Status;

/// Subjects that are looked at under one hold of the replica's lock: well below a millisecond.
const AT_ONCE: usize = 2_048;
/// Subjects of a list that is gone through while the caller waits: some milliseconds.
pub const SHORT_MAX: usize = 8_192;
/// A long list is not gone through more often.
const PAUSE: Duration = Duration::from_secs(60);
/// Nor before so many times its own duration have passed.
const REST: u32 = 20;

/// Numbers of one pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// When the pass ended; 0: none has ended yet.
    pub at: TimeMs,
    /// Entries by type of hash and status. Types of later releases are one.
    pub entries: BTreeMap<(&'static str, &'static str), u64>,
    /// What waits for a person of our company, by kind.
    pub reviews: BTreeMap<&'static str, Waiting>,
}

/// Of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many.
    pub count: u64,
    /// Since when the oldest of them waits.
    pub oldest: TimeMs,
    /// The earliest deadline; 0: none has one.
    pub deadline: TimeMs,
}

impl Waiting {
    pub(super) fn add(&mut self, since: TimeMs, deadline: TimeMs) {
        let earlier = |one: TimeMs, other: TimeMs| if one == TimeMs(0) { other } else { one.min(other) };
        self.oldest = if self.count == 0 { since } else { self.oldest.min(since) };
        self.deadline = if deadline == TimeMs(0) { self.deadline } else { earlier(self.deadline, deadline) };
        self.count += 1;
    }
}

/// The latest survey, and whether one is under way. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Surveys(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    latest: Mutex<Latest>,
    under_way: AtomicBool,
}

#[derive(Debug, Default)]
struct Latest {
    survey: Arc<Survey>,
    /// When the next one may begin.
    next: Option<Instant>,
}

impl Surveys {
    /// The numbers as they are now, or as they were a while ago if the list is long.
    pub(super) fn now(&self, shared: &Arc<Shared>, tripped: BTreeMap<Subject, Trip>) -> Arc<Survey> {
        let is_short = shared.replica().view().known() <= SHORT_MAX;
        let due = lock(&self.0.latest).next.is_none_or(|next| clock::instant() >= next);
        if (is_short || due) && !self.0.under_way.swap(true, Ordering::AcqRel) {
            let (this, shared) = (self.clone(), Arc::clone(shared));
            let pass = move || this.pass(&shared, &tripped);
            if is_short {
                pass();
            } else {
                let thread = std::thread::Builder::new().name("survey".into()).spawn(pass);
                if let Err(error) = thread {
                    tracing::warn!(%error, "the list is not counted now");
                    self.0.under_way.store(false, Ordering::Release);
                }
            }
        }
        Arc::clone(&lock(&self.0.latest).survey)
    }

    fn pass(&self, shared: &Shared, tripped: &BTreeMap<Subject, Trip>) {
        let begun = clock::instant();
        let mut survey = Survey::begun();
        survey.count_entries(shared);
        reviews::count(shared, tripped, &mut survey.reviews);
        survey.at = clock::now();
        let rest = PAUSE.max(begun.elapsed().saturating_mul(REST));
        *lock(&self.0.latest) = Latest { survey: Arc::new(survey), next: Some(clock::instant() + rest) };
        self.0.under_way.store(false, Ordering::Release);
    }
}

impl Survey {
    fn begun() -> Self {
        let reviews = reviews::kinds().map(|kind| (kind, Waiting::default())).collect();
        Self { reviews, ..Self::default() }
    }

    fn count_entries(&mut self, shared: &Shared) {
        let mut after = None;
        loop {
            {
                let (replica, now) = (shared.replica(), clock::now());
                let (mut last, mut looked_at) = (None, 0);
                for (subject, status) in replica.view().statuses(after.as_ref(), now).take(AT_ONCE) {
                    looked_at += 1;
                    if status != Status::Inactive {
                        let name = subject.known_alg().map_or("other", |alg| alg.name());
                        *self.entries.entry((name, status.name())).or_default() += 1;
                    }
                    last = Some(subject);
                }
                if looked_at < AT_ONCE {
                    return;
                }
                after = last;
            }
            std::thread::yield_now();
        }
    }
}

fn lock(latest: &Mutex<Latest>) -> std::sync::MutexGuard<'_, Latest> {
    latest.lock().unwrap_or_else(PoisonError::into_inner)
}
