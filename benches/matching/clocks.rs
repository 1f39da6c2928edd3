//! The two clocks of a measurement: what the thread used, and what passed meanwhile.

use std::time::{Duration, Instant};

use staydown::clock;

use crate::cpu;

/// What a piece of work took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    /// Of this thread.
    pub(crate) cpu: Duration,
    /// On the wall, other programs included.
    pub(crate) wall: Duration,
}

impl Spent {
    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, wall: self.wall + other.wall }
    }
}

/// Runs `work` under both clocks.
pub(crate) fn spent<T>(work: impl FnOnce() -> T) -> (T, Spent) {
    let stopwatch = Stopwatch::start();
    let result = work();
    (result, stopwatch.stop())
}

struct Stopwatch {
    cpu: Duration,
    wall: Instant,
}

impl Stopwatch {
    fn start() -> Self {
        Self { wall: clock::instant(), cpu: cpu::used() }
    }

    fn stop(&self) -> Spent {
        Spent { cpu: cpu::used() - self.cpu, wall: self.wall.elapsed() }
    }
}

/// What many pieces of work took, one by one.
#[derive(Default)]
pub(crate) struct Times {
    cpu: Vec<Duration>,
    wall: Vec<Duration>,
}

impl Times {
    /// Runs `work` and remembers what it took. Reading the clocks is part of it (some 0.3 us).
    pub(crate) fn note<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (result, spent) = spent(work);
        self.cpu.push(spent.cpu);
        self.wall.push(spent.wall);
        result
    }

    /// CPU seconds that `per_mille` of the pieces stay below.
    pub(crate) fn cpu(&mut self, per_mille: usize) -> f64 {
        quantile(&mut self.cpu, per_mille)
    }

    /// Seconds on the wall that `per_mille` of the pieces stay below.
    pub(crate) fn wall(&mut self, per_mille: usize) -> f64 {
        quantile(&mut self.wall, per_mille)
    }

    /// CPU seconds of one piece, on average.
    pub(crate) fn mean(&self) -> f64 {
        self.cpu.iter().sum::<Duration>().as_secs_f64() / self.len().max(1) as f64
    }

    /// Number of pieces.
    pub(crate) fn len(&self) -> usize {
        self.cpu.len()
    }
}

fn quantile(times: &mut [Duration], per_mille: usize) -> f64 {
    times.sort_unstable();
    let at = (times.len() * per_mille / 1000).min(times.len().saturating_sub(1));
    times.get(at).map_or(0.0, Duration::as_secs_f64)
}
