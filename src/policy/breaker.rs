//! The flood breaker: a signal that suddenly matches far above its own baseline here goes to people.
//!
//! It counts matches of listed subjects, never what was looked up, in memory only, and no other node learns of it. Time
//! is an argument. What trips is for `net/floods.rs` to lower and to propose.
//!
//! What it cannot know is whether the many uploads are of one thing or of many that look alike: a blank template that
//! somebody listed, or an attack video that everybody uploads. Both look the same from here, and somebody may upload a
//! listed file many times to trip it on purpose. So a tripped signal is REVIEW, never ALLOW, and a person's "keep" ends
//! it at once.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::replica::ids::TimeMs;
use crate::replica::signal::Subject;

/// Matches in a window below which nothing trips. One signal that a machine takes down a hundred times within an hour is
/// worth a person's look at a small company and at a large one; below it, waves of reposts are everyday life.
pub const FLOOR_DEFAULT: u32 = 100;
/// So many times its baseline a signal must match. Day and night, and a weekday and a holiday, differ by less.
pub const FACTOR_DEFAULT: u32 = 10;
/// Long enough for a small company to see a flood at all, short enough that few are wronged before it is seen.
pub const WINDOW_MINUTES_DEFAULT: u32 = 60;
/// Somebody looks at the queue within a day.
pub const HOLD_HOURS_DEFAULT: u32 = 24;
/// Beyond these a value is no setting of this breaker but a way to switch it off, and there is `off` for that.
pub const FLOOR_MAX: u32 = 1_000_000;
/// See [`FLOOR_MAX`].
pub const FACTOR_MAX: u32 = 10_000;
/// A day: what takes longer is not sudden.
pub const WINDOW_MINUTES_MAX: u32 = 24 * 60;
/// A month: an entry that nobody looks at for so long is nobody's concern.
pub const HOLD_HOURS_MAX: u32 = 30 * 24;
/// A floor below this is odd: so few uploads of one file are no flood, and take its BLOCK away.
pub const FLOOR_ODD: u32 = 10;
/// How long a person's "keep" keeps a signal from tripping. As long as the memory: by then what was kept is its baseline.
pub const KEPT_MS: u64 = MEMORY_MS;
/// What a baseline remembers: a match of a week ago weighs 1/e. A week has every kind of day in it.
const MEMORY_MS: u64 = 7 * TimeMs::DAY_MS;
/// A signal that was counted for less than a day is taken to have been counted for one. Else the first minutes of a flood
/// would be its baseline, and the rest of it nothing unusual.
const LEARNING_MS: u64 = TimeMs::DAY_MS;
/// Steps of a window: it slides by a sixth, so that it has no seam to slip through.
const STEPS: usize = 6;
/// Shards, each with its lock: lookups of a few cores seldom meet.
const SHARDS: usize = 256;
/// Subjects of a shard. 256 times 128 are more listed signals than match within a week at a large company; with some
/// 250 bytes each the table has at most 8 MB, whatever is looked up.
const SLOTS_MAX: usize = 128;

/// What is a flood, as the company's policy has it (`[breaker]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nothing is counted, nothing trips.
    pub off: bool,
    /// Matches in a window, at least.
    pub floor: u32,
    /// Times the baseline, more than.
    pub factor: u32,
    /// Length of the window.
    pub window_minutes: u32,
    /// How long a signal stays tripped unless a person decides.
    pub hold_hours: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            off: false,
            floor: FLOOR_DEFAULT,
            factor: FACTOR_DEFAULT,
            window_minutes: WINDOW_MINUTES_DEFAULT,
            hold_hours: HOLD_HOURS_DEFAULT,
        }
    }
}

impl Limits {
    /// The window in milliseconds.
    pub fn window_ms(&self) -> u64 {
        u64::from(self.window_minutes.max(1)) * 60_000
    }

    fn step_ms(&self) -> u64 {
        self.window_ms() / STEPS as u64
    }

    fn hold_ms(&self) -> u64 {
        u64::from(self.hold_hours) * TimeMs::HOUR_MS
    }
}

/// A signal that has tripped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trip {
    /// When.
    pub at: TimeMs,
    /// Matches in the window that ended then.
    pub matches: u32,
    /// Matches that are usual in as long a time, rounded up.
    pub usual: u32,
    /// Length of the window.
    pub window_ms: u64,
    /// Matches since then.
    pub since: u64,
    /// When it ends by itself.
    pub until: TimeMs,
}

/// Counts of matches by listed subject.
#[derive(Debug)]
pub struct Breaker {
    /// Drawn anew by each node: else somebody could list subjects that all fall into one shard.
    seed: u64,
    since: TimeMs,
    shards: Vec<Mutex<Shard>>,
    trips: AtomicU64,
    lowered: AtomicU64,
    uncounted: AtomicU64,
}

/// What the breaker did since the start of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Signals that are tripped now.
    pub tripped: u64,
    /// Times that one tripped.
    pub trips: u64,
    /// Verdicts that were lowered for it.
    pub lowered: u64,
    /// Matches that found no place to be counted in.
    pub uncounted: u64,
}

type Shard = BTreeMap<Subject, Slot>;

impl Breaker {
    /// Nothing counted yet, at the start of a node. `seed` is secret and random.
    pub fn new(seed: u64, now: TimeMs) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let [trips, lowered, uncounted] = Default::default();
        Self { seed, since: now, shards, trips, lowered, uncounted }
    }

    /// One lookup matched `subject`, which is on the list since `listed`. Gives the trip if it is tripped now.
    pub fn matched(&self, subject: &Subject, listed: TimeMs, limits: &Limits, now: TimeMs) -> Option<Trip> {
        let mut shard = self.shard(subject);
        if !shard.contains_key(subject) {
            if !make_room(&mut shard, now) {
                self.uncounted.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            shard.insert(subject.clone(), Slot::new(self.since.max(listed), limits, now));
        }
        let slot = shard.get_mut(subject)?;
        // Nobody knows how an older entry matched before this node was started, so it is given a day to show it.
        let presumed = if listed < self.since && now.since(self.since) < LEARNING_MS { limits.floor } else { 0 };
        let tripped_before = slot.tripped(now).is_some();
        let trip = slot.count(presumed, limits, now);
        self.trips.fetch_add(u64::from(trip.is_some() && !tripped_before), Ordering::Relaxed);
        trip
    }

    /// Whether `subject` is tripped at `now`, and why.
    pub fn tripped(&self, subject: &Subject, now: TimeMs) -> Option<Trip> {
        self.shard(subject).get(subject).and_then(|slot| slot.tripped(now))
    }

    /// Everything that is tripped at `now`, in the order of the list: at most as many subjects as there are slots.
    pub fn all_tripped(&self, now: TimeMs) -> BTreeMap<Subject, Trip> {
        let mut all = BTreeMap::new();
        for shard in &self.shards {
            let shard = locked(shard);
            all.extend(shard.iter().filter_map(|(subject, slot)| Some((subject.clone(), slot.tripped(now)?))));
        }
        all
    }

    /// A person has looked at a tripped signal and keeps what the list says of it: it does not trip until the time that
    /// is returned. `None`: it is not tripped.
    pub fn keep(&self, subject: &Subject, now: TimeMs) -> Option<TimeMs> {
        let mut shard = self.shard(subject);
        let slot = shard.get_mut(subject).filter(|slot| slot.tripped(now).is_some())?;
        let until = now.plus(KEPT_MS);
        slot.state = State::Kept(until);
        Some(until)
    }

    /// A verdict was lowered because of a tripped signal.
    pub fn count_lowered(&self) {
        self.lowered.fetch_add(1, Ordering::Relaxed);
    }

    /// What it did so far.
    pub fn tally(&self, now: TimeMs) -> Tally {
        let tripped = |shard: &Mutex<Shard>| locked(shard).values().filter(|slot| slot.tripped(now).is_some()).count();
        Tally {
            tripped: self.shards.iter().map(|shard| tripped(shard) as u64).sum(),
            trips: self.trips.load(Ordering::Relaxed),
            lowered: self.lowered.load(Ordering::Relaxed),
            uncounted: self.uncounted.load(Ordering::Relaxed),
        }
    }

    fn shard(&self, subject: &Subject) -> MutexGuard<'_, Shard> {
        let mut hasher = DefaultHasher::new();
        self.seed.hash(&mut hasher);
        subject.hash(&mut hasher);
        let [.., last] = hasher.finish().to_be_bytes();
        locked(&self.shards[usize::from(last) % SHARDS])
    }
}

/// Counts are whole at any moment: a lookup that panicked elsewhere leaves nothing half done here.
fn locked(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Room for one more subject: the one that matches least goes, but never one that is tripped or kept. Who floods the
/// node with matches of many signals can neither end a trip nor a person's decision; what then finds no room is not
/// counted, and keeps its verdict.
fn make_room(shard: &mut Shard, now: TimeMs) -> bool {
    if shard.len() < SLOTS_MAX {
        return true;
    }
    let goes = shard.iter().filter(|(_, slot)| !slot.holds(now));
    let least = goes.min_by(|(_, a), (_, b)| a.weight(now).total_cmp(&b.weight(now)));
    let Some(least) = least.map(|(subject, _)| subject.clone()) else { return false };
    shard.remove(&least);
    true
}

/// The matches of one subject.
#[derive(Clone, Debug)]
struct Slot {
    /// Matches in each step of the window; step `n` stands at `n % STEPS`.
    steps: [u32; STEPS],
    /// Number of the newest step, from the epoch.
    newest: u64,
    /// The window may be set to another length while the node runs.
    step_ms: u64,
    /// Matches that have left the window, each weighing `e^(-age / MEMORY_MS)`.
    past: f64,
    past_at: TimeMs,
    /// From when on all matches were counted.
    begun: TimeMs,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Counting,
    Tripped(Trip),
    Kept(TimeMs),
}

impl Slot {
    fn new(begun: TimeMs, limits: &Limits, now: TimeMs) -> Self {
        let step_ms = limits.step_ms();
        let newest = now.0 / step_ms;
        Self { steps: [0; STEPS], newest, step_ms, past: 0.0, past_at: now, begun, state: State::Counting }
    }

    /// Counts one match; gives the trip that stands then.
    fn count(&mut self, presumed: u32, limits: &Limits, now: TimeMs) -> Option<Trip> {
        self.advance(limits, now);
        let step = &mut self.steps[place(self.newest)];
        *step = step.saturating_add(1);
        if !self.holds(now) {
            let usual = self.usual(limits, now).max(f64::from(presumed));
            self.state = self.judge(usual, limits, now);
        } else if let State::Tripped(trip) = &mut self.state {
            trip.since += 1;
        }
        self.tripped(now)
    }

    fn judge(&self, usual: f64, limits: &Limits, now: TimeMs) -> State {
        let matches = self.in_window();
        if matches < limits.floor || f64::from(matches) <= f64::from(limits.factor) * usual {
            return State::Counting;
        }
        let until = now.plus(limits.hold_ms());
        State::Tripped(Trip { at: now, matches, usual: rounded(usual), window_ms: limits.window_ms(), since: 0, until })
    }

    fn tripped(&self, now: TimeMs) -> Option<Trip> {
        match self.state {
            State::Tripped(trip) if now < trip.until => Some(trip),
            _ => None,
        }
    }

    /// Whether it is tripped or kept.
    fn holds(&self, now: TimeMs) -> bool {
        match self.state {
            State::Counting => false,
            State::Tripped(trip) => now < trip.until,
            State::Kept(until) => now < until,
        }
    }

    /// Moves the window up to `now`. A clock that was set back leaves it where it is.
    fn advance(&mut self, limits: &Limits, now: TimeMs) {
        let step_ms = limits.step_ms();
        let (mut left, newest) = (0, now.0 / step_ms);
        if step_ms != self.step_ms {
            left = self.in_window();
            (self.steps, self.step_ms, self.newest) = ([0; STEPS], step_ms, newest);
        }
        for step in self.newest + 1..=newest.min(self.newest + STEPS as u64) {
            left = u32::saturating_add(left, std::mem::take(&mut self.steps[place(step)]));
        }
        self.newest = self.newest.max(newest);
        self.past = self.remembered(now);
        self.past_at = now.max(self.past_at);
        // What nobody has looked at does not become usual by lasting: it would trip once and block from then on.
        if self.tripped(now).is_none() {
            self.past += f64::from(left);
        }
    }

    fn in_window(&self) -> u32 {
        self.steps.iter().fold(0, |sum, step| u32::saturating_add(sum, *step))
    }

    fn remembered(&self, now: TimeMs) -> f64 {
        self.past * faded(now.since(self.past_at))
    }

    /// Matches that are usual in a window.
    fn usual(&self, limits: &Limits, now: TimeMs) -> f64 {
        let counted_ms = now.since(self.begun).saturating_sub(limits.window_ms()).max(LEARNING_MS);
        // The weight of so many milliseconds of one match each.
        let weight = as_f64(MEMORY_MS) * (1.0 - faded(counted_ms));
        self.remembered(now) / weight * as_f64(limits.window_ms())
    }

    /// By what a place in the table is kept.
    fn weight(&self, now: TimeMs) -> f64 {
        self.remembered(now) + f64::from(self.in_window())
    }
}

fn place(step: u64) -> usize {
    usize::try_from(step % STEPS as u64).unwrap_or_default()
}

fn faded(age_ms: u64) -> f64 {
    (-as_f64(age_ms) / as_f64(MEMORY_MS)).exp()
}

#[expect(clippy::cast_precision_loss, reason = "times of a few weeks, and counts, are far below 2^52")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of a u32")]
fn rounded(number: f64) -> u32 {
    number.ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::signal::Alg;

    const START: TimeMs = TimeMs(1_795_000_000_000);
    const MINUTE: u64 = 60_000;
    const HOUR: u64 = TimeMs::HOUR_MS;
    const DAY: u64 = TimeMs::DAY_MS;

    fn subject(n: u32) -> Subject {
        let mut digest = [7; 32];
        digest[..4].copy_from_slice(&n.to_be_bytes());
        Subject::of(Alg::Sha256, &digest)
    }

    fn breaker() -> Breaker {
        Breaker::new(5, START)
    }

    /// `count` matches of subject 1, evenly over `span` from `from` on; gives the first trip, and how many matches it took.
    fn feed(breaker: &Breaker, listed: TimeMs, from: TimeMs, count: u64, span: u64) -> Option<(u64, Trip)> {
        let limits = Limits::default();
        let mut first = None;
        for n in 0..count {
            let trip = breaker.matched(&subject(1), listed, &limits, from.plus(n * span / count));
            first = first.or(trip.map(|trip| (n + 1, trip)));
        }
        first
    }

    fn at(ms: u64) -> TimeMs {
        START.plus(ms)
    }

    #[test]
    fn a_new_entry_trips_at_the_floor_and_not_before() {
        let breaker = breaker();
        assert_eq!(feed(&breaker, START, START, 99, 50 * MINUTE), None);
        let (_, trip) = feed(&breaker, START, at(51 * MINUTE), 1, 1).unwrap();
        assert_eq!((trip.matches, trip.usual, trip.window_ms, trip.since), (100, 0, HOUR, 0));
        assert_eq!((trip.at, trip.until), (at(51 * MINUTE), at(51 * MINUTE + DAY)));
        assert_eq!(breaker.tally(at(HOUR)).trips, 1);
        // Others are counted by themselves.
        assert_eq!(breaker.matched(&subject(2), START, &Limits::default(), at(52 * MINUTE)), None);
    }

    #[test]
    fn what_is_spread_over_more_than_a_window_is_no_flood() {
        let breaker = breaker();
        assert_eq!(feed(&breaker, START, START, 24 * 80, DAY), None, "80 an hour for a day");
    }

    #[test]
    fn the_threshold_grows_with_the_baseline() {
        let breaker = breaker();
        assert_eq!(feed(&breaker, START, START, 7 * 24 * 60, 7 * DAY), None, "60 an hour for a week");
        // Ten times of it are not more than ten times; half as much again is.
        let (count, trip) = feed(&breaker, START, at(7 * DAY), 2_000, HOUR).unwrap();
        assert!((500..=650).contains(&count), "{count}");
        assert!((57..=61).contains(&trip.usual), "{trip:?}");
    }

    #[test]
    fn the_first_minutes_of_a_flood_are_not_its_baseline() {
        let breaker = breaker();
        assert_eq!(feed(&breaker, START, START, 45, 45 * MINUTE), None);
        // Its first twenty minutes have left the window.
        let (count, trip) = feed(&breaker, START, at(75 * MINUTE), 500, HOUR).unwrap();
        assert!(count < 110, "{count} {trip:?}");
    }

    #[test]
    fn an_older_entry_is_given_a_day_after_a_start_to_show_what_is_usual() {
        let listed = TimeMs(START.0 - 1);
        let breaker = breaker();
        let (count, trip) = feed(&breaker, listed, START, 1_200, 10 * MINUTE).unwrap();
        assert_eq!((count, trip.usual), (1_001, 100), "ten times a presumed floor");
        let breaker = self::breaker();
        let (count, _) = feed(&breaker, listed, at(DAY), 1_200, 10 * MINUTE).unwrap();
        assert_eq!(count, 100, "nothing in a day is a baseline, too");
    }

    #[test]
    fn a_trip_holds_until_its_time_and_trips_again_while_the_flood_lasts() {
        let breaker = breaker();
        let (_, first) = feed(&breaker, START, START, 400, HOUR).unwrap();
        let end = first.until;
        assert_eq!(breaker.tripped(&subject(1), TimeMs(end.0 - 1)).unwrap().at, first.at);
        assert_eq!(breaker.tripped(&subject(1), end), None, "nothing matches any more");
        // It matches as often all the time: not usual, because nobody has said so.
        let span = end.since(at(HOUR));
        assert_eq!(feed(&breaker, START, at(HOUR), 400 * span / HOUR, span).unwrap().1.at, first.at);
        let trip = breaker.tripped(&subject(1), TimeMs(end.0 - 1)).unwrap();
        assert!(trip.since > 9_000, "{trip:?}");
        let again = feed(&breaker, START, end, 1, 1).unwrap().1;
        assert_eq!((again.at, breaker.tally(end).trips), (end, 2), "{again:?}");
    }

    #[test]
    fn what_a_person_keeps_does_not_trip_for_a_week_and_is_its_baseline_then() {
        let breaker = breaker();
        assert_eq!(breaker.keep(&subject(1), START), None, "it is not tripped");
        feed(&breaker, START, START, 200, HOUR).unwrap();
        let until = breaker.keep(&subject(1), at(HOUR)).unwrap();
        assert_eq!(until, at(HOUR + 7 * DAY));
        assert_eq!(breaker.tripped(&subject(1), at(HOUR)), None);
        assert_eq!(breaker.keep(&subject(1), at(HOUR)), None, "once");
        assert_eq!(feed(&breaker, START, at(HOUR), 8 * 24 * 200, 8 * DAY), None, "200 an hour, also afterwards");
        assert!(feed(&breaker, START, at(HOUR + 8 * DAY), 5_000, HOUR).is_some(), "but not ten times that");
    }

    #[test]
    fn a_flood_of_other_signals_ends_no_trip_and_the_table_does_not_grow() {
        let breaker = breaker();
        let limits = Limits { floor: 3, ..Limits::default() };
        let matched = |n: u32| breaker.matched(&subject(n), START, &limits, at(1));
        let trip = |n: u32| (0..3).fold(None, |_, _| matched(n));
        assert!(trip(1).is_some() && trip(2).is_some());
        breaker.keep(&subject(2), at(1)).unwrap();
        for n in 3..60_000 {
            matched(n);
        }
        assert!(breaker.tripped(&subject(1), at(2)).is_some());
        assert!((0..10).all(|_| matched(2).is_none()), "a person's decision stands");
        let slots = |breaker: &Breaker| breaker.shards.iter().map(|shard| locked(shard).len()).max();
        assert_eq!(slots(&breaker), Some(SLOTS_MAX));

        // Where everything is tripped, a newcomer is not counted: nothing is lost but its own flood.
        for n in 3..60_000 {
            trip(n);
        }
        let tally = breaker.tally(at(2));
        assert!(breaker.tripped(&subject(1), at(2)).is_some() && tally.uncounted > 0, "{tally:?}");
        assert_eq!((slots(&breaker), breaker.all_tripped(at(2)).len() as u64), (Some(SLOTS_MAX), tally.tripped));
    }

    #[test]
    fn what_matches_least_makes_room_first() {
        let limits = Limits::default();
        let mut shard = Shard::new();
        for n in 0..128 {
            let mut slot = Slot::new(START, &limits, START);
            for _ in 0..=n % 127 {
                slot.count(0, &limits, START);
            }
            shard.insert(subject(n), slot);
        }
        // 0 and 127 have one match each; the other has the newer one.
        shard.get_mut(&subject(0)).unwrap().count(0, &limits, at(2 * HOUR));
        assert!(make_room(&mut shard, at(2 * HOUR)));
        assert!(!shard.contains_key(&subject(127)) && shard.len() == SLOTS_MAX - 1);
    }

    #[test]
    fn a_clock_that_is_set_back_and_a_window_that_is_set_anew_harm_nothing() {
        let breaker = breaker();
        feed(&breaker, START, at(DAY), 99, MINUTE);
        assert!(feed(&breaker, START, START, 1, 1).is_some(), "counted in the window that stands");
        let breaker = self::breaker();
        feed(&breaker, START, START, 99, MINUTE);
        let short = Limits { window_minutes: 1, ..Limits::default() };
        assert_eq!(breaker.matched(&subject(1), START, &short, at(MINUTE)), None, "another window begins at nothing");
    }
}
