//! Figures that every page shows and that take a walk over the whole list: what waits for a person, and what was listed
//! in the last days. They are counted when somebody looks, kept for a while, and the longer the count takes the longer
//! they are kept, so that people who press reload take no more than a small part of the node.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tonic::Status;

use crate::access::Caller;
use crate::clock;
use crate::net::local::PAGE_MAX;
use crate::replica::ids::TimeMs;
use crate::report::time::date;
use crate::web::Web;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// Of what waits, so many are counted: nobody works them off at a glance, and beyond it `1 000+` says enough.
pub(super) const REVIEWS_COUNTED_MAX: usize = PAGE_MAX;
/// Days of the chart on the first page: two weeks, so that a week can be held against the one before.
pub(super) const DAYS: u64 = 14;
/// Entries that are shown as the latest.
pub(super) const LATEST_MAX: usize = 8;
/// Entries of the last days that are looked at; an attack or an import may bring more, and the page says so.
pub(super) const COUNTED_MAX: usize = 100_000;
/// What was counted is kept for at least so long: a person's click is rarely followed by another sooner.
const FRESH_MIN: Duration = Duration::from_millis(500);
/// And for so many times as long as it took: counting takes at most a twentieth of a core.
const FRESH_FACTOR: u32 = 20;

/// What waits, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Waits {
    /// How many of each kind.
    pub(super) kinds: BTreeMap<String, u64>,
    /// There are more than were counted.
    pub(super) more: bool,
}

impl Waits {
    /// All together.
    pub(super) fn count(&self) -> u64 {
        self.kinds.values().sum()
    }

    /// Entries of ours that others dispute.
    pub(super) fn disputed_own(&self) -> u64 {
        self.kinds.get("disputed-own").copied().unwrap_or(0)
    }
}

/// What was listed in the last days.
#[derive(Clone, Debug, Default)]
pub(super) struct Days {
    /// The days, oldest first, as dates.
    pub(super) days: Vec<String>,
    /// Of each member that first listed something, how many entries on each of the days.
    pub(super) members: BTreeMap<String, Vec<u64>>,
    /// The newest entries, the newest first.
    pub(super) latest: Vec<l::Entry>,
    /// There are more than were counted.
    pub(super) more: bool,
}

/// Both, as they were last counted.
#[derive(Default)]
pub(super) struct Lately {
    waits: Kept<Waits>,
    days: Kept<Days>,
}

impl Lately {
    /// What waits for a person.
    ///
    /// # Errors
    /// The caller may not read.
    pub(super) async fn waits(&self, web: &Web, caller: &Caller) -> Result<Waits, Status> {
        self.waits.fresh(|| waits(web, caller)).await
    }

    /// What was listed in the last days.
    ///
    /// # Errors
    /// The caller may not read.
    pub(super) async fn days(&self, web: &Web, caller: &Caller) -> Result<Days, Status> {
        self.days.fresh(|| days(web, caller)).await
    }

    /// Something was just done that changes them: they are counted anew when somebody looks.
    pub(super) async fn forget(&self) {
        self.waits.forget().await;
        self.days.forget().await;
    }
}

/// A figure, and until when it is good.
struct Kept<T> {
    last: Mutex<Option<(Instant, T)>>,
    fresh_min: Duration,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { last: Mutex::new(None), fresh_min: FRESH_MIN }
    }
}

impl<T: Clone> Kept<T> {
    /// The figure; counted by one caller for all who ask meanwhile.
    async fn fresh<F: Future<Output = Result<T, Status>>>(&self, count: impl FnOnce() -> F) -> Result<T, Status> {
        let mut kept = self.last.lock().await;
        let began = clock::instant();
        if let Some((until, figure)) = kept.as_ref()
            && began < *until
        {
            return Ok(figure.clone());
        }
        let figure = count().await?;
        let ended = clock::instant();
        *kept = Some((ended + self.fresh_min.max((ended - began) * FRESH_FACTOR), figure.clone()));
        Ok(figure)
    }

    async fn forget(&self) {
        *self.last.lock().await = None;
    }
}

async fn waits(web: &Web, caller: &Caller) -> Result<Waits, Status> {
    let page_size = u32::try_from(REVIEWS_COUNTED_MAX).unwrap_or(0);
    let request = l::ListReviewsRequest { page_size, ..Default::default() };
    let answer = web.service.list_reviews(web.ask(caller, request)).await?.into_inner();
    let mut waits = Waits { more: !answer.next_page_token.is_empty(), ..Waits::default() };
    for review in answer.reviews {
        *waits.kinds.entry(review.kind).or_default() += 1;
    }
    Ok(waits)
}

async fn days(web: &Web, caller: &Caller) -> Result<Days, Status> {
    let today = clock::now().day();
    let first = today.saturating_sub(DAYS - 1);
    let mut counted = Counted::new(first);
    let mut request = l::ListEntriesRequest {
        page_size: u32::try_from(PAGE_MAX).unwrap_or(0),
        since_ms: first * TimeMs::DAY_MS,
        ..Default::default()
    };
    loop {
        let answer = web.service.list_entries(web.ask(caller, request.clone())).await?.into_inner();
        answer.entries.into_iter().for_each(|entry| counted.add(entry));
        request.page_token = answer.next_page_token;
        if request.page_token.is_empty() || counted.looked_at >= COUNTED_MAX {
            break;
        }
    }
    counted.days.more = !request.page_token.is_empty();
    Ok(counted.days)
}

struct Counted {
    first: u64,
    looked_at: usize,
    days: Days,
}

impl Counted {
    fn new(first: u64) -> Self {
        let days = (first..first + DAYS).map(|day| date(TimeMs(day * TimeMs::DAY_MS))).collect();
        Self { first, looked_at: 0, days: Days { days, ..Days::default() } }
    }

    fn add(&mut self, entry: l::Entry) {
        self.looked_at += 1;
        let day = usize::try_from(TimeMs(entry.first_seen_ms).day().saturating_sub(self.first)).unwrap_or(usize::MAX);
        let by = entry.said.iter().filter(|said| said.what == "SUBMIT").min_by_key(|said| said.time_ms);
        let by = by.or(entry.said.first()).map_or("", |said| said.member.as_str());
        let days = self.days.days.len();
        let row = self.days.members.entry(by.to_owned()).or_insert_with(|| vec![0; days]);
        if let Some(cell) = row.get_mut(day) {
            *cell += 1;
        }
        let latest = &mut self.days.latest;
        let place = latest.partition_point(|known| known.first_seen_ms >= entry.first_seen_ms);
        if place < LATEST_MAX {
            latest.insert(place, entry);
            latest.truncate(LATEST_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(day: u64, member: &str) -> l::Entry {
        let time_ms = day * TimeMs::DAY_MS + 5;
        let said = l::Said { member: member.into(), what: "SUBMIT".into(), time_ms, ..Default::default() };
        l::Entry { first_seen_ms: time_ms, said: vec![said], ..Default::default() }
    }

    #[test]
    fn entries_are_counted_by_day_and_by_who_was_first() {
        let mut counted = Counted::new(100);
        for (day, member) in [(100, "acme"), (100, "acme"), (113, "bolt"), (99, "acme"), (114, "bolt")] {
            counted.add(entry(day, member));
        }
        assert_eq!(counted.days.days.len(), 14);
        assert_eq!(counted.days.members["acme"][0], 3, "what is older than the first day cannot come, and is not lost");
        assert_eq!((counted.days.members["bolt"][13], counted.days.members["bolt"].iter().sum::<u64>()), (1, 1));
    }

    #[test]
    fn the_latest_are_few_and_the_newest_first() {
        let mut counted = Counted::new(0);
        for day in [3, 9, 1, 7, 5, 0, 2, 8, 4, 6] {
            counted.add(entry(day, "acme"));
        }
        let days: Vec<_> = counted.days.latest.iter().map(|entry| TimeMs(entry.first_seen_ms).day()).collect();
        assert_eq!(days, [9, 8, 7, 6, 5, 4, 3, 2]);
    }

    #[tokio::test]
    async fn what_was_counted_is_kept_until_it_is_forgotten() {
        let kept = Kept { fresh_min: Duration::from_secs(3_600), ..Kept::<u32>::default() };
        let long = async |figure: u32| kept.fresh(|| async move { Ok(figure) }).await.unwrap();
        assert_eq!((long(1).await, long(2).await), (1, 1));
        kept.forget().await;
        assert_eq!(long(3).await, 3);
        assert!(kept.fresh(|| async { Err(Status::internal("x")) }).await.is_ok(), "an old figure is better than none");
    }
}
