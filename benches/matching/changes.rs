//! A list that changes: what an insertion and a removal cost, and what a merge does to lookups beside it.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use staydown::replica::index::{HammingIndex, Merge, Pdq, Snapshot};

use crate::clocks::{Spent, Times, spent};
use crate::sheet::Aim;
use crate::{BATCH, Bench, KEY, LIMIT, SEED, THRESHOLD, lists, sample, scan, whole};

/// Entries removed.
const REMOVALS: usize = 20_000;
/// Fewer lookups beside merges do not say what the slowest in a hundred take.
const LOOKUPS_MIN: usize = 1_000;
/// Lookups between two insertions while a merge runs.
const LOOKUPS_EACH: usize = 16;
/// One in so many insertions between merges is looked up at once.
const LOOKED_UP: usize = 64;
/// Lookups of a quiet moment between two merges, at least.
const QUIET: usize = 200;
/// CPU microseconds that an insertion may take, its share of merges included.
const INSERT_US_MAX: f64 = 5.0;
/// Microseconds after which an insertion must be visible.
const VISIBLE_US_MAX: f64 = 1_000.0;
/// How much slower the slowest lookups may be while a merge runs.
const BESIDE_MAX: f64 = 2.0;

impl Bench<'_> {
    /// Inserts one eighth more, with merges in a thread of their own, then removes.
    pub(crate) fn changes(&mut self, index: &mut HammingIndex) {
        let fresh = lists::list(self.kind, self.list.len() / 8, SEED + 3);
        let seen = Live { index, fresh: &fresh, queries: &self.queries, asked: 0 }.run();
        let Seen { merges, mut beside, mut quiet, mut visible, mut visible_beside } = seen;
        self.row("insertion to visible, p99, CPU", 1e6 * visible.cpu(990), "us").aim(Aim::Most(VISIBLE_US_MAX));
        self.row("insertion to visible, p99, wall", 1e6 * visible.wall(990), "us");
        if beside.len() >= LOOKUPS_MIN {
            let p99 = 1e6 * visible_beside.cpu(990);
            self.row("insertion to visible beside a merge, p99, CPU", p99, "us").aim(Aim::Most(VISIBLE_US_MAX));
            self.row("insertion to visible beside a merge, p99, wall", 1e6 * visible_beside.wall(990), "us");
            let beside_p99 = beside.cpu(990);
            let what = format!("a query beside a merge, p99, CPU ({} in {merges} merges)", beside.len());
            self.row(what, 1e6 * beside_p99, "us");
            let times = beside_p99 / quiet.cpu(990);
            self.row("the same over the p99 between merges", times, "times").aim(Aim::Most(BESIDE_MAX));
            self.row("the same, wall", beside.wall(990) / quiet.wall(990), "times");
        }
        self.list.extend(fresh);
        self.removals(index);
        self.still_agrees(&index.snapshot());
    }

    fn removals(&mut self, index: &mut HammingIndex) {
        let mut times = Times::default();
        let mut merges = Spent::default();
        for number in 0..REMOVALS {
            let place = lists::mixed(number as u64) % self.list.len() as u64;
            let hash = self.list.swap_remove(place as usize);
            assert!(times.note(|| index.remove(&hash)), "a listed hash can be removed");
            while let Some(merge) = index.merge() {
                merges = merges.and(merged_here(index, merge));
            }
        }
        let share = merges.cpu.as_secs_f64() / REMOVALS as f64;
        self.row("removal with its share of merges, CPU", 1e6 * (times.mean() + share), "us");
        self.row("removal alone, p99, CPU", 1e6 * times.cpu(990), "us");
    }

    /// The changed list is the one that the index answers from.
    fn still_agrees(&self, snapshot: &Snapshot) {
        let queries = lists::queries(self.kind, &self.list, sample(self.list.len()).min(BATCH), SEED + 4);
        let answers: Vec<_> = queries.iter().map(|q| whole(snapshot.near(q, THRESHOLD, LIMIT))).collect();
        scan::agree("the changed index", &queries, &scan::scan(&self.list, &queries, THRESHOLD), &answers);
    }

    /// From nothing to the whole list, one insertion after the other, with all merges that this takes.
    pub(crate) fn grown(&mut self) {
        let mut index = HammingIndex::new(KEY);
        let mut times = Times::default();
        let mut merges = Spent::default();
        for hash in &self.list {
            times.note(|| index.insert(*hash));
            while let Some(merge) = index.merge() {
                merges = merges.and(merged_here(&mut index, merge));
            }
        }
        let all = times.mean() + merges.cpu.as_secs_f64() / self.list.len() as f64;
        self.row("insertion with its share of merges, CPU", 1e6 * all, "us").aim(Aim::Most(INSERT_US_MAX));
        self.row("insertion alone, p99, CPU", 1e6 * times.cpu(990), "us");
        let snapshot = index.snapshot();
        let (_, took) = spent(|| {
            for query in &self.queries {
                black_box(snapshot.near(query, THRESHOLD, LIMIT));
            }
        });
        let query = 1e6 * took.cpu.as_secs_f64() / self.queries.len() as f64;
        self.row("a query alone, in an index that grew by insertions, CPU", query, "us");
        self.still_agrees(&snapshot);
    }
}

fn merged_here(index: &mut HammingIndex, merge: Merge) -> Spent {
    let (_, took) = spent(|| {
        let merged = merge.run();
        drop(index.install(merged));
    });
    took
}

/// What was seen of an index in use.
#[derive(Default)]
struct Seen {
    merges: usize,
    /// Lookups while a merge runs in another thread.
    beside: Times,
    /// As many between merges, in turn with the others.
    quiet: Times,
    /// Insertions, from the call to a snapshot that has the hash.
    visible: Times,
    visible_beside: Times,
}

/// An index, and what is still to be inserted and asked.
struct Live<'a> {
    index: &'a mut HammingIndex,
    fresh: &'a [Pdq],
    queries: &'a [Pdq],
    asked: usize,
}

impl Live<'_> {
    /// Until everything is inserted.
    fn run(&mut self) -> Seen {
        let mut seen = Seen::default();
        for number in 0.. {
            let Some((hash, rest)) = self.fresh.split_first() else { break };
            if number % LOOKED_UP == 0 {
                self.insert_and_see(&mut seen.visible);
            } else {
                self.fresh = rest;
                self.index.insert(*hash);
            }
            if let Some(merge) = self.index.merge() {
                self.beside(merge, &mut seen);
            }
        }
        seen
    }

    /// Lookups and insertions until the merge has ended, then as many lookups without it.
    fn beside(&mut self, merge: Merge, seen: &mut Seen) {
        let ended = AtomicBool::new(false);
        let before = seen.beside.len();
        let merged = thread::scope(|scope| {
            let merging = scope.spawn(|| {
                let merged = merge.run();
                ended.store(true, Ordering::Release);
                merged
            });
            while !ended.load(Ordering::Acquire) {
                self.ask(LOOKUPS_EACH, &mut seen.beside);
                self.insert_and_see(&mut seen.visible_beside);
            }
            merging.join().unwrap()
        });
        self.ask((seen.beside.len() - before).max(QUIET), &mut seen.quiet);
        drop(self.index.install(merged));
        seen.merges += 1;
    }

    fn ask(&mut self, count: usize, times: &mut Times) {
        let snapshot = self.index.snapshot();
        for _ in 0..count {
            let query = &self.queries[self.asked % self.queries.len()];
            self.asked += 1;
            times.note(|| black_box(snapshot.near(query, THRESHOLD, LIMIT)));
        }
    }

    /// From the insertion to a snapshot that has it.
    fn insert_and_see(&mut self, times: &mut Times) {
        let Some((hash, rest)) = self.fresh.split_first() else { return };
        self.fresh = rest;
        let snapshot = times.note(|| {
            self.index.insert(*hash);
            self.index.snapshot()
        });
        assert!(snapshot.near(hash, 0, LIMIT).hits.contains(&(0, *hash)), "an insertion is visible at once");
    }
}
