//! How long a node with a long list takes to start, and what it needs of memory then: `cargo bench --bench start`.
//!
//! Defends: from a snapshot in less than 2 s at ten million entries, whatever a start from the blocks takes; the whole
//! process with ten million PDQ hashes and ten million exact digests within 4 GB. `STAYDOWN_BENCH_RECORDS` sets how many
//! entries there are in all, half of them PDQ; the node is a process of its own.
#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made ends by panicking")]

mod forum;

use std::fs;
use std::path::Path;
use std::time::Duration;

use forum::{Forum, Process};
use staydown::clock;
use staydown::engine::SNAPSHOT_FILE;

const RECORDS: usize = 1_000_000;
const AUTHORS: [usize; 3] = [0, 1, 2];
const HOLDER: usize = 3;
/// Longest start that is waited for.
const PATIENCE: Duration = Duration::from_secs(1_800);
const LOOKUPS: u64 = 200;

fn main() {
    let records = forum::count("STAYDOWN_BENCH_RECORDS", RECORDS);
    println!("load before: {}", forum::load());
    let forum = Forum::found(4, Path::new(env!("CARGO_TARGET_TMPDIR")));
    let begun = clock::instant();
    let loaded = forum.preload(HOLDER, &AUTHORS, records);
    let megabytes = loaded.payload_bytes as f64 / 1e6;
    println!("{records} entries, {megabytes:.0} MB, signed and stored in {:.0} s", begun.elapsed().as_secs_f64());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure(&forum, records));
    println!("load after: {}", forum::load());
    assert_eq!(forum::panics(&forum), Vec::<String>::new());
}

async fn measure(forum: &Forum, records: usize) {
    let mut node = started("from the blocks", forum, records).await;
    let digest = node.status().await.view_digest;
    let begun = clock::instant();
    assert!(node.stop().success());
    let snapshot = forum.companies[HOLDER].data.join(SNAPSHOT_FILE);
    let size = fs::metadata(&snapshot).unwrap().len();
    println!(
        "stopped, with a snapshot of {:.0} MB, in {:.1} s: {:.0} bytes an entry",
        size as f64 / 1e6,
        begun.elapsed().as_secs_f64(),
        size as f64 / records as f64
    );
    for again in ["from the snapshot", "from the snapshot, again"] {
        let mut node = started(again, forum, records).await;
        assert_eq!(node.status().await.view_digest, digest, "another list");
        node.kill();
    }
}

/// Starts the node, says how long that took and what it needs, and looks something up.
async fn started(what: &str, forum: &Forum, records: usize) -> Process {
    let begun = clock::instant();
    let mut node = forum.spawn(HOLDER);
    node.serves_within(PATIENCE).await.unwrap_or_else(|ended| panic!("{what}: {ended}"));
    let took = begun.elapsed();
    assert_eq!(node.status().await.records, (records + AUTHORS.len()) as u64, "{what}");
    let (resident, peak) = (node.memory(), node.peak_memory());
    println!(
        "started {what} in {:.2} s, {:.0} entries/s; memory {:.0} MB, at most {:.0} MB: {:.0} bytes an entry",
        took.as_secs_f64(),
        records as f64 / took.as_secs_f64(),
        resident as f64 / 1e6,
        peak as f64 / 1e6,
        resident as f64 / records as f64
    );
    for number in 0..LOOKUPS {
        let subject = forum::subject(AUTHORS[0], number * 7_919 % (records / AUTHORS.len()) as u64);
        assert!(node.matches(&subject.type_name(), &subject.value()).await, "{what}: {subject}");
    }
    println!("memory after {LOOKUPS} lookups {:.0} MB", node.memory() as f64 / 1e6);
    node
}
