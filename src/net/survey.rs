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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine;
    use crate::net::local::LocalService;
    use crate::replica::ids::sha256;
    use crate::replica::testing::{TestForum, settings};
    use crate::wire::local as l;
    use crate::wire::local_service::forum_server::Forum as _;

    #[test]
    fn the_oldest_and_the_earliest_deadline_are_kept() {
        let mut waiting = Waiting::default();
        for (since, deadline) in [(30, 0), (10, 90), (20, 80), (40, 0)] {
            waiting.add(TimeMs(since), TimeMs(deadline));
        }
        assert_eq!(waiting, Waiting { count: 4, oldest: TimeMs(10), deadline: TimeMs(80) });
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_list_of_several_pieces_is_counted_whole_and_what_does_not_match_is_no_entry() {
        const STATEMENTS: u64 = 500;
        let forum = TestForum::of_full(1);
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Handle::current();
        let (engine, _, thread) =
            engine::start(folder.path(), settings(1), forum.id, &forum.charters, runtime).unwrap();
        let service = LocalService::new(engine.clone(), settings(1), String::new(), BTreeMap::new());
        let say = |numbers: std::ops::Range<u64>, stance: l::Stance| {
            let statement = |n: u64| l::Statement {
                signal: Some(l::Signal {
                    r#type: "sha256".into(),
                    value: crate::replica::ids::hex(&sha256(&[b"survey", &n.to_be_bytes()])),
                }),
                stance: stance.into(),
                ..Default::default()
            };
            let request = l::SubmitRequest { statements: numbers.map(statement).collect(), ..Default::default() };
            let service = service.clone();
            async move { service.submit(tonic::Request::new(request)).await.unwrap() }
        };
        let all = AT_ONCE as u64 + 2 * STATEMENTS;
        for begins in (0..all).step_by(500) {
            say(begins..all.min(begins + STATEMENTS), l::Stance::Submit).await;
        }
        say(0..7, l::Stance::Neutral).await;
        let survey = service.survey();
        assert_eq!(survey.entries.values().sum::<u64>(), all - 7, "{survey:?}");
        assert!(survey.at > TimeMs(0) && survey.reviews.values().all(|waiting| waiting.count == 0), "{survey:?}");
        drop(service);
        engine.stop().await;
        thread.join().unwrap();
    }
}
