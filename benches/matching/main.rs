//! The matching index against a full scan and against the machine: `cargo bench --bench matching -- --size 1m`.
//!
//! Generated lists (lists.rs), one thread. Every run holds the answers against a full scan and fails when one hash is
//! missing or too many; then each figure is printed beside the limit that the machine showed in the same run, and a
//! missed aim is a failure. `--exchange FOLDER` writes lists, queries and answers for `benches/peers.py` instead. What
//! is measured, and how, is said in docs/performance.md.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark's result is what it prints")]
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made ends by panicking")]
#![expect(clippy::cast_possible_truncation, reason = "figures are rounded, and places fit a usize")]

mod changes;
mod clocks;
#[path = "../counting/mod.rs"]
mod counting;
#[path = "../cpu/mod.rs"]
mod cpu;
mod exact;
mod exchange;
mod limits;
mod lists;
mod scan;
mod sheet;

use std::fmt::Display;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use staydown::replica::index::{Effort, HammingIndex, Near, Pdq, Snapshot};

use clocks::{Spent, Times, spent};
use limits::Memory;
use lists::Kind;
use scan::Found;
use sheet::{Aim, Sheet};

/// Greatest distance that the index answers without a scan.
const THRESHOLD: u32 = 31;
/// Matches asked for; the largest cluster of a generated list has fewer.
const LIMIT: usize = 1_000;
/// Queries asked one by one, and in batches.
const QUERIES: usize = 10_000;
/// Times that everything is measured; the median is told.
const PASSES: usize = 5;
/// Queries of one batch.
const BATCH: usize = 1_000;
/// Distances computed to check answers; at 10 M entries that leaves 200 queries.
const CHECKED_DISTANCES: usize = 2_000_000_000;
/// Bytes looked at by flat scans in a pass.
const SCANNED: usize = 2_000_000_000;
/// Any key will do: it is drawn by each node for itself.
const KEY: [u8; 32] = [7; 32];
const SEED: u64 = 1;
/// Bytes of memory an entry may take in the index.
const ENTRY_BYTES_MAX: f64 = 136.0;
/// From so many entries on nothing fits into a cache, and the share of the machine's limit is an aim.
const LARGE: usize = 10_000_000;
/// Entries of the hostile list.
const HOT_LIST: usize = 1_000_000;
/// Queries of each sort that are put to it.
const HOT_QUERIES: usize = 100;

#[derive(Parser)]
struct Args {
    /// Entries of the generated lists
    #[arg(long, value_enum, default_value = "1m")]
    size: Size,
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
    /// Write lists, queries and answers here, then measure in turn with benches/peers.py, which asks on stdin
    #[arg(long)]
    exchange: Option<PathBuf>,
    /// `cargo bench` says it to every program
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Size {
    #[value(name = "100k")]
    HundredThousand,
    #[value(name = "1m")]
    Million,
    #[value(name = "10m")]
    TenMillion,
}

impl Size {
    fn entries(self) -> usize {
        match self {
            Self::HundredThousand => 100_000,
            Self::Million => 1_000_000,
            Self::TenMillion => 10_000_000,
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let size = args.size.entries();
    let mut sheet = Sheet::default();
    if let Some(folder) = &args.exchange {
        for kind in [Kind::Random, Kind::Correlated] {
            Bench::new(kind, size, &mut sheet).in_turn(folder);
        }
        return ExitCode::SUCCESS;
    }
    for kind in [Kind::Random, Kind::Correlated] {
        let mut bench = Bench::new(kind, size, &mut sheet);
        let mut index = bench.build();
        bench.lookups(&index.snapshot(), index.bytes());
        if kind == Kind::Random {
            bench.flat(&index.snapshot());
        }
        bench.changes(&mut index);
        drop(index);
        if kind == Kind::Random {
            bench.grown();
        }
    }
    hot(&mut sheet);
    exact::exact(size, &mut sheet);
    if args.json {
        println!("{}", sheet.json());
    } else {
        println!("{}", sheet.table());
    }
    let missed = sheet.missed();
    missed.iter().for_each(|missed| eprintln!("missed: {missed}"));
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One generated list under measurement.
struct Bench<'a> {
    kind: Kind,
    name: String,
    list: Vec<Pdq>,
    queries: Vec<Pdq>,
    sheet: &'a mut Sheet,
}

impl<'a> Bench<'a> {
    fn new(kind: Kind, size: usize, sheet: &'a mut Sheet) -> Self {
        let list = lists::list(kind, size, SEED);
        let queries = lists::queries(kind, &list, QUERIES, SEED + 1);
        Self { kind, name: name(size, kind), list, queries, sheet }
    }

    fn row(&mut self, what: impl Into<String>, value: f64, unit: &'static str) -> &mut Sheet {
        self.sheet.row(&self.name, what, value, unit)
    }

    fn build(&mut self) -> HammingIndex {
        let before = counting::allocated();
        let (index, took) = spent(|| HammingIndex::from_hashes(KEY, self.list.iter().copied()));
        let entry = (counting::allocated() - before) as f64 / self.list.len() as f64;
        let build = 1e6 * took.cpu.as_secs_f64() / self.list.len() as f64;
        assert_eq!(index.len(), self.list.len());
        self.row("memory of an entry", entry, "B").aim(Aim::Most(ENTRY_BYTES_MAX));
        self.row("building the index, an entry", build, "us");
        index
    }

    /// One by one and in batches, in turn with what limits both.
    fn lookups(&mut self, snapshot: &Snapshot, index_bytes: usize) {
        self.checked(snapshot);
        let touched = Touched::of(snapshot, &self.queries);
        let memory = Memory::new(index_bytes);
        let mut times = Times::default();
        for query in &self.queries {
            times.note(|| black_box(snapshot.near(query, THRESHOLD, LIMIT)));
        }
        let passes = (0..PASSES).map(|_| {
            let alone = self.alone(snapshot);
            let line = memory.line();
            let at_once = self.at_once(snapshot);
            [alone, at_once, line, memory.run(touched.run.round() as usize)]
        });
        let [alone, batch, line, run] = medians(passes);
        let [anywhere, by_bucket] = [line, run].map(|run| 1e6 * touched.take(line, run));

        self.row("a query alone, CPU", 1e6 * alone, "us").of("its cache lines, each anywhere", anywhere);
        if self.kind == Kind::Random && self.list.len() >= LARGE {
            self.sheet.aim(Aim::Share(60.0));
        }
        self.row("the same", 1e6 * alone, "us").of("its cache lines, a bucket's together", by_bucket);
        self.row(format!("a query of {BATCH} at once, CPU"), 1e6 * batch, "us").of("its cache lines", anywhere);
        self.row("cache lines that a query reads", touched.lines, "lines");
        self.row("a cache line anywhere", 1e9 * line, "ns");
        self.row(format!("a cache line of {:.0} together", touched.run), 1e9 * run, "ns");
        self.row("a query alone, p50, CPU", 1e6 * times.cpu(500), "us");
        self.row("a query alone, p99, CPU", 1e6 * times.cpu(990), "us");
        self.row("a query alone, p50, wall", 1e6 * times.wall(500), "us");
        self.row("a query alone, p99, wall", 1e6 * times.wall(990), "us");
    }

    /// CPU seconds of a query, when all are asked one after the other.
    fn alone(&self, snapshot: &Snapshot) -> f64 {
        let (_, took) = spent(|| {
            for query in &self.queries {
                black_box(snapshot.near(query, THRESHOLD, LIMIT));
            }
        });
        took.cpu.as_secs_f64() / self.queries.len() as f64
    }

    /// The same in batches.
    fn at_once(&self, snapshot: &Snapshot) -> f64 {
        let (_, took) = spent(|| {
            for queries in self.queries.chunks(BATCH) {
                black_box(snapshot.near_many(queries, THRESHOLD, LIMIT));
            }
        });
        took.cpu.as_secs_f64() / self.queries.len() as f64
    }

    /// Writes list, queries and answers, and then measures whenever it is asked to.
    fn in_turn(&mut self, folder: &Path) {
        let before = counting::allocated();
        let index = HammingIndex::from_hashes(KEY, self.list.iter().copied());
        let entry = (counting::allocated() - before) / self.list.len();
        let snapshot = index.snapshot();
        let answers = self.checked(&snapshot);
        let folder = folder.join(self.kind.to_string());
        exchange::write(&folder, &self.list, &self.queries[..BATCH], &answers[..BATCH]);
        exchange::take_turns(&format!("{} {entry}", self.kind), |what| match what {
            "alone" => Some(self.alone(&snapshot)),
            "at once" => Some(self.at_once(&snapshot)),
            _ => None,
        });
    }

    /// The answers to all queries, after they were checked.
    fn checked(&self, snapshot: &Snapshot) -> Vec<Found> {
        let answers: Vec<_> = self.queries.iter().map(|query| whole(snapshot.near(query, THRESHOLD, LIMIT))).collect();
        for (at, batch) in self.queries.chunks(BATCH).enumerate() {
            let many: Vec<_> = snapshot.near_many(batch, THRESHOLD, LIMIT).into_iter().map(whole).collect();
            scan::agree("a batch against single queries", batch, &answers[at * BATCH..][..batch.len()], &many);
        }
        let sample = &self.queries[..sample(self.list.len()).min(QUERIES)];
        let expected = scan::scan(&self.list, sample, THRESHOLD);
        scan::agree("the index against a full scan", sample, &expected, &answers[..sample.len()]);
        answers
    }

    /// What cannot be answered by buckets is scanned.
    fn flat(&mut self, snapshot: &Snapshot) {
        let bytes = self.list.len() * 32;
        let queries = &self.queries[..(SCANNED / bytes).clamp(8, 500)];
        let sample = &queries[..8];
        let answers: Vec<_> = sample.iter().map(|q| whole(snapshot.near(q, THRESHOLD + 1, LIMIT))).collect();
        scan::agree("a flat scan", sample, &scan::scan(&self.list, sample, THRESHOLD + 1), &answers);

        let memory = Memory::new(bytes);
        let batch = &self.queries[..(20 * queries.len()).min(BATCH)];
        let passes = (0..PASSES).map(|_| {
            let (_, alone) = spent(|| {
                for query in queries {
                    black_box(snapshot.near(query, THRESHOLD + 1, LIMIT));
                }
            });
            let stream = memory.stream();
            let (_, at_once) = spent(|| black_box(snapshot.near_many(batch, THRESHOLD + 1, LIMIT)));
            let speed = |amount: usize, took: Spent| amount as f64 / took.cpu.as_secs_f64();
            let distances = speed(self.list.len() * batch.len(), at_once);
            [speed(bytes * queries.len(), alone), stream, distances, limits::distances()]
        });
        let [alone, stream, at_once, most] = medians(passes).map(|rate| rate / 1e9);
        let batch = batch.len();
        self.row("flat scan, one query", alone, "GB/s").of("reading memory end to end", stream).aim(Aim::Share(80.0));
        let distances = "billion distances/s";
        self.row(format!("flat scan, {batch} at once"), at_once, distances).of("counting bits", most);
    }
}

/// The middle one of each figure.
fn medians<const N: usize>(passes: impl Iterator<Item = [f64; N]>) -> [f64; N] {
    let passes: Vec<_> = passes.collect();
    std::array::from_fn(|figure| {
        let mut values: Vec<_> = passes.iter().map(|pass| pass[figure]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    })
}

/// Of a list, as the table has it.
fn name(size: usize, kind: impl Display) -> String {
    if size < 1_000_000 { format!("{} k {kind}", size / 1_000) } else { format!("{} M {kind}", size / 1_000_000) }
}

/// Queries that are held against a full scan of `entries`.
fn sample(entries: usize) -> usize {
    (CHECKED_DISTANCES / entries).min(2 * BATCH)
}

/// An answer of which nothing was cut off.
fn whole(near: Near) -> Found {
    assert!(!near.truncated, "an answer was cut off");
    near.hits
}

/// What the queries have to read, on average, in cache lines.
struct Touched {
    /// All of them.
    lines: f64,
    /// Those in which sketches of opened buckets lie.
    sketches: f64,
    /// Neighbouring ones of a bucket.
    run: f64,
}

impl Touched {
    fn of(snapshot: &Snapshot, queries: &[Pdq]) -> Self {
        let efforts: Vec<Effort> = queries.iter().map(|query| snapshot.effort(query, THRESHOLD)).collect();
        let mean = |part: fn(&Effort) -> usize| efforts.iter().map(part).sum::<usize>() as f64 / queries.len() as f64;
        let buckets = mean(|e| e.buckets);
        let bytes = 2.0 * mean(|e| e.sketches) / buckets;
        // A bucket begins at any of a line's sketches.
        let run = 1.0 + (bytes - 2.0) / limits::LINE as f64;
        Self { lines: mean(|e| e.lines), sketches: run * buckets, run }
    }

    /// Seconds, if a line anywhere takes `line`, and one of a bucket's lines `run`.
    fn take(&self, line: f64, run: f64) -> f64 {
        (self.lines - self.sketches).max(0.0) * line + self.sketches * run
    }
}

/// The hostile list: no query may cost more than a scan and a half.
fn hot(sheet: &mut Sheet) {
    let list = lists::list(Kind::Hot, HOT_LIST, SEED);
    let snapshot = HammingIndex::from_hashes(KEY, list.iter().copied()).snapshot();
    let name = name(HOT_LIST, Kind::Hot);
    let strangers = lists::queries(Kind::Random, &list, HOT_QUERIES, SEED + 2);
    let time = |query: &Pdq, threshold| spent(|| black_box(snapshot.near(query, threshold, LIMIT))).1.cpu.as_secs_f64();
    let mut worst = 0.0_f64;
    for (what, queries) in lists::hot_queries(HOT_QUERIES, SEED) {
        let sample = &queries[..HOT_QUERIES / 5];
        let answers: Vec<_> = sample.iter().map(|q| whole(snapshot.near(q, THRESHOLD, HOT_LIST))).collect();
        scan::agree("the hot list against a full scan", sample, &scan::scan(&list, sample, THRESHOLD), &answers);
        // In turn with a scan that finds little, above the threshold that the index serves.
        let (mut hot, mut flat) = (0.0, 0.0);
        for (query, stranger) in queries.iter().zip(&strangers) {
            hot += time(query, THRESHOLD);
            flat += time(stranger, THRESHOLD + 1);
        }
        let per_query = 1e6 / HOT_QUERIES as f64;
        sheet.row(&name, format!("a query, {what}, CPU"), hot * per_query, "us").of("a flat scan", flat * per_query);
        worst = worst.max(hot / flat);
    }
    sheet.row(&name, "worst of them", worst, "flat scans").aim(Aim::Most(1.5));
}
