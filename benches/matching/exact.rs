//! Exact subjects: digests that are looked up by equality.

use std::hint::black_box;

use staydown::replica::index::exact::ExactIndex;
use staydown::replica::signal::{Alg, Subject};

use crate::clocks::{Times, spent};
use crate::limits::Memory;
use crate::lists::Seeded;
use crate::sheet::Sheet;
use crate::{BATCH, KEY, PASSES, counting, medians, name};

/// Subjects asked for, every other one of them listed.
const ASKED: usize = 1_000_000;
/// Subjects removed.
const REMOVALS: usize = 100_000;

/// Builds an index of `size` SHA-256 digests, asks, removes.
pub(crate) fn exact(size: usize, sheet: &mut Sheet) {
    let name = &name(size, "exact");
    let before = counting::allocated();
    let mut index = ExactIndex::new(KEY);
    let mut times = Times::default();
    for number in 0..size {
        let subject = subject(number);
        times.note(|| index.insert(&subject));
    }
    let (mean, p99) = (times.mean(), times.cpu(990));
    drop(times);
    let entry = (counting::allocated() - before) as f64 / size as f64;
    assert_eq!(index.len(), size);
    sheet.row(name, "memory of an entry", entry, "B");
    sheet.row(name, "insertion, CPU", 1e6 * mean, "us");
    sheet.row(name, "insertion, p99, CPU", 1e6 * p99, "us");

    // Strangers are numbered from where the list ends.
    let mut seeded = Seeded::new(size as u64);
    let listed = |i: usize| i.is_multiple_of(2);
    let mut number = |i| seeded.index(size) + if listed(i) { 0 } else { size };
    let asked: Vec<Subject> = (0..ASKED).map(|i| subject(number(i))).collect();
    let snapshot = index.snapshot();
    let memory = Memory::new(index.bytes());
    let passes = (0..PASSES).map(|_| {
        let (found, alone) = spent(|| asked.iter().filter(|s| snapshot.may_contain(s)).count());
        let line = memory.line();
        let (_, batch) =
            spent(|| asked.chunks(BATCH).for_each(|some| drop(black_box(snapshot.may_contain_many(some)))));
        assert_eq!(found, ASKED / 2, "half of what is asked for is listed");
        [alone.cpu.as_secs_f64() / ASKED as f64, batch.cpu.as_secs_f64() / ASKED as f64, line]
    });
    let [alone, batch, line] = medians(passes);
    let many = asked.chunks(BATCH).flat_map(|some| snapshot.may_contain_many(some));
    assert!(many.enumerate().all(|(i, found)| found == listed(i)), "a batch says what single lookups say");
    let limit = "one cache line anywhere";
    sheet.row(name, "a lookup, CPU", 1e9 * alone, "ns").of(limit, 1e9 * line);
    sheet.row(name, format!("a lookup of {BATCH} at once, CPU"), 1e9 * batch, "ns").of(limit, 1e9 * line);

    let mut times = Times::default();
    for number in 0..REMOVALS.min(size) {
        let subject = subject(number);
        assert!(times.note(|| index.remove(&subject)), "a listed subject can be removed");
    }
    sheet.row(name, "removal, CPU", 1e6 * times.mean(), "us");
}

fn subject(number: usize) -> Subject {
    let mut seeded = Seeded::new(number as u64);
    Subject::of(Alg::Sha256, &seeded.bits())
}
