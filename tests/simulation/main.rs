//! Forums of replicas in one thread: invented clock, invented network, faults from a seed, and checkers that were
//! written apart from the code they check.
//!
//! `STAYDOWN_SCHEDULES` says how many schedules to run and `STAYDOWN_FIRST` from which seed on, `STAYDOWN_SEED` repeats
//! one. `scripts/simulate.sh` runs many and sums them up. `STAYDOWN_COPIES` adds second copies of running nodes.

#![expect(clippy::cast_possible_truncation, reason = "numbers of a simulation are small")]

mod checkers;
mod faults;
mod forum;
mod layers;
mod world;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use staydown::replica::wrong::WrongRule;

/// Schedules of one run: about a minute on two cores (WHY.md, T1).
const SCHEDULES: u64 = 2_000;
/// Threads that run schedules.
const WORKERS: u64 = 2;

/// A number from the environment.
fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.trim().parse().unwrap_or_else(|_wrong| panic!("{name} is {value:?}, expected a number")))
}

type Tally = BTreeMap<&'static str, u64>;

/// Runs one schedule; a panic of the replica is a failure like any other.
fn schedule(seed: u64, rule: Option<WrongRule>) -> Result<Tally, String> {
    match catch_unwind(AssertUnwindSafe(|| world::run(seed, rule))) {
        Ok(Ok(tally)) => Ok(tally),
        Ok(Err(violation)) => Err(format!("{}: {}", violation.invariant, violation.story)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Err(format!(
                "panic: {}",
                text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
            ))
        }
    }
}

/// A line for every twentieth of a long run that somebody watches.
#[expect(clippy::print_stderr, reason = "whoever asks for a summary waits for it")]
fn progress(index: u64, count: u64) {
    if std::env::var_os("STAYDOWN_SUMMARY").is_some() && index > 0 && index.is_multiple_of((count / 20).max(1)) {
        eprintln!("{index} of {count} schedules");
    }
}

/// Appends what a schedule came to, to the file that `STAYDOWN_REPORT` names: to compare two builds seed by seed.
fn report(seed: u64, result: &Result<Tally, String>) {
    let Ok(path) = std::env::var("STAYDOWN_REPORT") else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut f| f.write_all(format!("{seed} {result:?}\n").as_bytes())).expect("report can be written");
}

/// Runs seeds from `first` on until one fails or there were `count`; the failure with the lowest seed, and the tally.
fn schedules(first: u64, count: u64, rule: Option<WrongRule>) -> (Option<(u64, String)>, Tally) {
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let outcome = Mutex::new((None::<(u64, String)>, Tally::new()));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            let seed = first + index;
            progress(index, count);
            let result = schedule(seed, rule);
            report(seed, &result);
            let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(tally) => tally.into_iter().for_each(|(what, n)| *outcome.1.entry(what).or_default() += n),
                Err(why) => {
                    // With a report, all that fail are wanted.
                    stop.store(std::env::var_os("STAYDOWN_REPORT").is_none(), Ordering::Relaxed);
                    if outcome.0.as_ref().is_none_or(|(lowest, _)| seed < *lowest) {
                        outcome.0 = Some((seed, why));
                    }
                }
            }
        }
    };
    std::thread::scope(|scope| {
        (0..WORKERS).for_each(|_| drop(scope.spawn(work)));
    });
    outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What a run of `scripts/simulate.sh` ends with.
#[expect(clippy::print_stdout, reason = "whoever asks for a summary reads it")]
fn summarize(first: u64, count: u64, tally: &Tally, failure: Option<&(u64, String)>, started: Instant) {
    if std::env::var_os("STAYDOWN_SUMMARY").is_none() {
        return;
    }
    println!("schedules   {count}, seeds {first} to {}", first + count - 1);
    println!("seconds     {}", started.elapsed().as_secs());
    println!("violations  {}", failure.map_or("0".into(), |(seed, why)| format!("seed {seed}: {why}")));
    println!("what happened, summed over all schedules:");
    tally.iter().for_each(|(what, times)| println!("  {times:>10}  {what}"));
}

#[test]
fn every_schedule_keeps_every_promise() {
    let seed = from_environment("STAYDOWN_SEED");
    let count = from_environment("STAYDOWN_SCHEDULES").unwrap_or(if seed.is_some() { 1 } else { SCHEDULES });
    let first = seed.or(from_environment("STAYDOWN_FIRST")).unwrap_or(1);
    let started = staydown::clock::instant();
    let (failure, tally) = schedules(first, count, None);
    summarize(first, count, &tally, failure.as_ref(), started);
    if let Some((seed, why)) = failure {
        panic!(
            "seed {seed} breaks {why}\nrepeat it with STAYDOWN_SEED={seed} cargo test --test simulation every_schedule"
        );
    }
    // A simulation in which nothing happens proves nothing.
    if count >= SCHEDULES {
        for what in [
            "acknowledged",
            "queued",
            "refused",
            "crashes",
            "restores",
            "partitions",
            "proofs stored",
            "expulsions",
            "joiners",
            "charter forks",
        ] {
            assert!(tally.get(what).copied().unwrap_or(0) > 100, "too little happened: {what} in {tally:?}");
        }
    }
}

#[test]
fn a_schedule_repeats_exactly() {
    for seed in 1..=10 {
        assert_eq!(schedule(seed, None), schedule(seed, None), "seed {seed}");
    }
}

#[test]
fn every_wrong_rule_is_caught() {
    for rule in WrongRule::ALL {
        let (failure, _) = schedules(1, SCHEDULES, Some(rule));
        assert!(failure.is_some(), "{rule:?} went unnoticed in {SCHEDULES} schedules");
    }
}
