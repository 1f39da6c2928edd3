//! Many changed inputs for one parser, and what is asked of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use staydown::clock;
use staydown::replica::exchange::Draw;

use crate::memory::measured;
use crate::mutate::mutated;
pub(crate) use crate::parser::Parser;

/// Feeds `parser`.
///
/// # Panics
/// If it panicked, was wrong, or took more memory than it may.
#[expect(clippy::print_stdout, reason = "how large and how slow the worst was is worth knowing")]
pub(crate) fn run(parser: &Parser) {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
    };
    let (inputs, seed) = (number("STAYDOWN_MUTATIONS", parser.inputs), number("STAYDOWN_SEED", 1));
    for original in &parser.corpus {
        (parser.check)(original);
    }
    let mut draw = Draw(seed);
    let (mut largest, mut slowest) = (0, Duration::ZERO);
    for at in 0..inputs {
        let mut bytes = mutated(&parser.corpus, &mut draw);
        if draw.below(2) == 0 {
            (parser.repair)(&mut bytes);
        }
        let start = clock::instant();
        let (outcome, memory) = measured(|| catch_unwind(AssertUnwindSafe(|| (parser.check)(&bytes))));
        slowest = slowest.max(start.elapsed());
        largest = largest.max(memory);
        let memory_max = (parser.memory_max)(&bytes);
        if outcome.is_err() || memory > memory_max {
            let hex = data_encoding::HEXLOWER.encode(&bytes);
            let (name, took) = (parser.name, format!("took {memory} bytes of at most {memory_max}"));
            panic!("{name}, seed {seed}, input {at} panicked or {took}: {hex}");
        }
    }
    println!("{}: {inputs} inputs, at most {largest} bytes of memory, slowest {slowest:?}", parser.name);
}
