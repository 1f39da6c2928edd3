//! What only this node knows: how often it was asked, what it answered, and how fast it was. Nothing of what was looked
//! up: these are numbers, in memory, and they begin at nothing with each start of the node.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::{Times, time};
use crate::replica::ids::TimeMs;
use crate::replica::verdict::Verdict;

/// Classes of durations: the n-th holds those of at most 2^n ms. The last holds all that are longer than twelve days.
const CLASSES: usize = 32;

/// Counts since the node was started.
#[derive(Debug, Default)]
pub struct Counters {
    since: AtomicU64,
    lookups: AtomicU64,
    matched: AtomicU64,
    matches: AtomicU64,
    verdicts: [AtomicU64; 3],
    statements: AtomicU64,
    submissions: Durations,
    arrivals: Durations,
}

/// How many durations fell into each class.
#[derive(Debug, Default)]
struct Durations([AtomicU64; CLASSES]);

impl Durations {
    fn note(&self, ms: u64) {
        let class = (0..CLASSES - 1).find(|class| ms <= 1 << class).unwrap_or(CLASSES - 1);
        add(&self.0[class], 1);
    }

    /// Each value is the upper end of its class.
    fn times(&self) -> Times {
        let counts = self.0.each_ref().map(|class| class.load(Ordering::Relaxed));
        let all: u64 = counts.iter().sum();
        let at = |place: u64| {
            let mut passed = 0;
            let class = counts.iter().position(|count| {
                passed += count;
                passed >= place
            });
            class.filter(|_| all > 0).map(|class| 1_u64 << class)
        };
        Times {
            count: all,
            median_ms: at((50 * all).div_ceil(100)),
            p90_ms: at((90 * all).div_ceil(100)),
            longest_ms: at(all),
        }
    }
}

impl Counters {
    /// Nothing counted yet, at the start of the node.
    pub fn new(now: TimeMs) -> Self {
        Self { since: AtomicU64::new(now.0), ..Self::default() }
    }

    /// One lookup was answered.
    pub fn looked_up(&self, matches: usize, verdict: Verdict) {
        add(&self.lookups, 1);
        add(&self.matched, u64::from(matches > 0));
        add(&self.matches, matches as u64);
        add(&self.verdicts[place(verdict)], 1);
    }

    /// So many lookups were answered that found nothing.
    pub fn nothing_found(&self, lookups: u64) {
        add(&self.lookups, lookups);
        add(&self.verdicts[place(Verdict::Allow)], lookups);
    }

    /// A submission of our company is durable here, and matches, after `ms` milliseconds.
    pub fn submitted(&self, statements: usize, ms: u64) {
        add(&self.statements, statements as u64);
        self.submissions.note(ms);
    }

    /// A block that another company signed at `said`, by its clock, is durable here, and matches, at `now`. What was said
    /// before the node was started is what it missed, and tells nothing of how fast it hears.
    /// Returns how many milliseconds it took, if that is counted.
    pub fn arrived(&self, said: TimeMs, now: TimeMs) -> Option<u64> {
        let counts = said.0 >= self.since.load(Ordering::Relaxed);
        let took_ms = counts.then(|| now.since(said))?;
        self.arrivals.note(took_ms);
        Some(took_ms)
    }

    /// When counting began: the start of the node.
    pub fn since(&self) -> TimeMs {
        TimeMs(self.since.load(Ordering::Relaxed))
    }

    /// What was counted, as of `now`.
    pub fn part(&self, now: TimeMs) -> LocalPart {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LocalPart {
            since_ms: read(&self.since),
            until_ms: now.0,
            lookups: read(&self.lookups),
            lookups_with_a_match: read(&self.matched),
            matches: read(&self.matches),
            allowed: read(&self.verdicts[0]),
            reviewed: read(&self.verdicts[1]),
            blocked: read(&self.verdicts[2]),
            statements: read(&self.statements),
            time_to_matchable: self.submissions.times(),
            time_from_others: self.arrivals.times(),
        }
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn place(verdict: Verdict) -> usize {
    match verdict {
        Verdict::Allow => 0,
        Verdict::Review => 1,
        Verdict::Block => 2,
    }
}

/// The local part of a report: never inside the forum's, never the same at two nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each figure is defined in docs/operating.md, The transparency report")]
pub struct LocalPart {
    pub since_ms: u64,
    pub until_ms: u64,
    pub lookups: u64,
    pub lookups_with_a_match: u64,
    pub matches: u64,
    pub allowed: u64,
    pub reviewed: u64,
    pub blocked: u64,
    pub statements: u64,
    /// Of our company's submissions. Each value is the upper end of its class, a power of two.
    pub time_to_matchable: Times,
    /// Of the other companies' blocks, likewise, from their authors' clocks to ours.
    pub time_from_others: Times,
}

impl LocalPart {
    /// One line a figure, for people.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let [own, others] = [&self.time_to_matchable, &self.time_from_others].map(|times| {
            let span = |ms: Option<u64>| ms.map_or_else(|| "–".to_owned(), |ms| format!("at most {}", time::span(ms)));
            [span(times.median_ms), span(times.p90_ms), span(times.longest_ms)]
        });
        let ([median, p90, longest], [others_median, others_p90, others_longest]) = (own, others);
        vec![
            ("counted since", time::rfc3339(TimeMs(self.since_ms))),
            ("until", time::rfc3339(TimeMs(self.until_ms))),
            ("lookups", self.lookups.to_string()),
            ("lookups with a match", self.lookups_with_a_match.to_string()),
            ("matches", self.matches.to_string()),
            ("verdict ALLOW", self.allowed.to_string()),
            ("verdict REVIEW", self.reviewed.to_string()),
            ("verdict BLOCK", self.blocked.to_string()),
            ("submissions", self.time_to_matchable.count.to_string()),
            ("statements in them", self.statements.to_string()),
            ("submission to matchable here, median", median),
            ("submission to matchable here, nine in ten", p90),
            ("submission to matchable here, longest", longest),
            ("blocks of others", self.time_from_others.count.to_string()),
            ("signed elsewhere to matchable here, median", others_median),
            ("signed elsewhere to matchable here, nine in ten", others_p90),
            ("signed elsewhere to matchable here, longest", others_longest),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_is_counted_and_no_more() {
        let counters = Counters::new(TimeMs(5));
        counters.looked_up(0, Verdict::Allow);
        counters.looked_up(3, Verdict::Block);
        counters.looked_up(1, Verdict::Block);
        for ms in [0, 1, 2, 3, 4, 5, 6, 7, 8, u64::MAX] {
            counters.submitted(2, ms);
        }
        let part = counters.part(TimeMs(9));
        assert_eq!((part.since_ms, part.until_ms), (5, 9));
        assert_eq!((part.lookups, part.lookups_with_a_match, part.matches), (3, 2, 4));
        assert_eq!((part.allowed, part.reviewed, part.blocked), (1, 0, 2));
        assert_eq!(part.statements, 20);
        // Classes: two of at most 1 ms, one of 2, two of 4, four of 8, one beyond all.
        let expected = Times { count: 10, median_ms: Some(4), p90_ms: Some(8), longest_ms: Some(1 << 31) };
        assert_eq!(part.time_to_matchable, expected);
        assert_eq!(Counters::new(TimeMs(5)).part(TimeMs(9)).time_to_matchable, Times::default());
        assert_eq!(part.lines().len(), 17);
    }

    #[test]
    fn only_what_others_said_while_the_node_ran_tells_how_fast_it_hears() {
        let counters = Counters::new(TimeMs(1_000));
        for (said, now) in [(999, 5_000), (1_000, 1_003), (2_000, 2_100), (9_000, 8_000)] {
            counters.arrived(TimeMs(said), TimeMs(now));
        }
        // A clock that is ahead of ours took no time at all.
        let expected = Times { count: 3, median_ms: Some(4), p90_ms: Some(128), longest_ms: Some(128) };
        assert_eq!(counters.part(TimeMs(9_000)).time_from_others, expected);
    }

    /// Whatever is asked, and however often: the size of what is kept does not depend on it, and no field could hold it.
    #[test]
    fn the_counters_are_numbers_of_a_fixed_room() {
        assert_eq!(size_of::<Counters>(), (5 + 3 + 2 * CLASSES) * size_of::<u64>());
        assert!(!std::mem::needs_drop::<Counters>(), "nothing in it is allocated");
    }
}
