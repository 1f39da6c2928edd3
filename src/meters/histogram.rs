//! How long things took: counts by class, of fixed room, without a lock.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::{add, read};

/// Upper ends of the classes, in seconds, for what takes microseconds as a rule: lookups, commits.
pub static FINE: [f64; 18] = [
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 10.0,
];

/// The same for what takes milliseconds at least: hashing, requests over HTTP, derivations.
pub static SLOW: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// Durations by class.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One more than there are bounds: the last holds what is beyond all.
    classes: Box<[AtomicU64]>,
    nanoseconds: AtomicU64,
}

/// A histogram as it is at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// Upper ends of the classes in seconds, each with how many durations fell into it. The last end is infinite.
    pub classes: Vec<(f64, u64)>,
    /// All of them.
    pub count: u64,
    /// Seconds in all.
    pub sum: f64,
}

impl Histogram {
    /// Of these upper ends, in seconds, in rising order.
    pub fn new(bounds: &'static [f64]) -> Self {
        let classes = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, classes, nanoseconds: AtomicU64::new(0) }
    }

    /// Something took so long.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let class = self.bounds.partition_point(|end| *end < seconds);
        add(&self.classes[class], 1);
        add(&self.nanoseconds, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What was observed. Whoever observes meanwhile may be in the sum and not yet in a class, or the other way round.
    pub fn read(&self) -> Counted {
        let ends = self.bounds.iter().copied().chain([f64::INFINITY]);
        let classes: Vec<_> = ends.zip(self.classes.iter().map(read)).collect();
        let count = classes.iter().map(|(_, count)| count).sum();
        Counted { classes, count, sum: Duration::from_nanos(read(&self.nanoseconds)).as_secs_f64() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_class_that_it_does_not_exceed() {
        static BOUNDS: [f64; 2] = [0.001, 1.0];
        let histogram = Histogram::new(&BOUNDS);
        for ms in [0, 1, 2, 1_000, 1_001, 90_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let read = histogram.read();
        assert_eq!(read.classes, [(0.001, 2), (1.0, 2), (f64::INFINITY, 2)]);
        assert_eq!((read.count, read.sum), (6, 92.004));
    }

    #[test]
    fn the_ends_of_classes_rise() {
        for bounds in [&FINE[..], &SLOW] {
            assert!(bounds.is_sorted_by(|a, b| a < b));
        }
    }
}
