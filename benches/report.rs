//! The transparency report of a million records: `cargo bench --bench report`.
//!
//! Defends: while a report is made, a lookup takes no longer than an upload can wait for (p99 of 20 ms on a machine that
//! does nothing else), and the node needs no more memory for it than for the list itself, twice.
//! `STAYDOWN_BENCH_RECORDS` scales it.
#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made ends by panicking")]

mod forum;

use std::path::Path;
use std::time::Duration;

use forum::{Forum, quantile};
use staydown::clock;
use staydown::replica::ids::{TimeMs, hex};
use staydown::report::Report;
use staydown::wire::local::{self as l, report_part::Part};
use staydown::wire::local_service::forum_client::ForumClient;
use tonic::transport::Channel;

const RECORDS: usize = 1_000_000;
/// Companies: the one that reports, and three authors that never run.
const REPORTER: usize = 0;
const AUTHORS: [usize; 3] = [1, 2, 3];
const LOOKUP_MAX: Duration = Duration::from_millis(20);
/// Memory after a report, to that of before.
const MEMORY_MAX: f64 = 3.0;

fn main() {
    let records = forum::count("STAYDOWN_BENCH_RECORDS", RECORDS);
    println!("load before: {}", forum::load());
    let forum = Forum::found(4, Path::new(env!("CARGO_TARGET_TMPDIR")));
    let loaded = forum.preload(REPORTER, &AUTHORS, records);
    println!("{} records in {} blocks, {:.0} MB", loaded.records, loaded.blocks, loaded.payload_bytes as f64 / 1e6);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (lookup, memory) = runtime.block_on(measure(&forum, records as u64));
    println!("load after: {}", forum::load());
    assert!(lookup <= LOOKUP_MAX, "a lookup took {lookup:?}");
    assert!(memory <= MEMORY_MAX, "memory grew {memory:.1} times");
}

/// The 99th percentile of lookups meanwhile, and how many times the memory of before was needed.
async fn measure(forum: &Forum, records: u64) -> (Duration, f64) {
    let mut node = forum.start(REPORTER).await;
    let before = node.peak_memory();
    let mut quiet = lookups(node.client.clone(), 2_000).await;
    let begun = clock::instant();
    let (client, from) = (node.client.clone(), forum.issued.hour());
    #[expect(clippy::disallowed_methods, reason = "it is awaited below")]
    let making = tokio::spawn(report(client, from));
    let mut meanwhile = Vec::new();
    while !making.is_finished() {
        meanwhile.extend(lookups(node.client.clone(), 1).await);
    }
    let (report, words, read) = making.await.unwrap();
    let took = begun.elapsed();
    assert_eq!(report.entries.new, records, "every record is an entry");
    assert_eq!(report.head.view_digest, hex(&node.status().await.view_digest), "the report's list is the node's");
    let after = node.peak_memory();
    let (took, read) = (took.as_secs_f64(), read.as_secs_f64());
    println!("a report of {} blocks in {took:.1} s, all read after {read:.1} s; {words} words", report.head.blocks);
    println!("memory: {:.0} MB before, {:.0} MB at most", before as f64 / 1e6, after as f64 / 1e6);
    println!("lookups before: p50 {:?}, p99 {:?}", quantile(&mut quiet, 500), quantile(&mut quiet, 990));
    let (p50, p99, most) =
        (quantile(&mut meanwhile, 500), quantile(&mut meanwhile, 990), quantile(&mut meanwhile, 1_000));
    println!("lookups meanwhile ({}): p50 {p50:?}, p99 {p99:?}, at most {most:?}", meanwhile.len());
    (p99, after as f64 / before as f64)
}

/// The report up to the end of this hour, how many words came on how far it is, and when the last of them came.
async fn report(mut client: ForumClient<Channel>, from: TimeMs) -> (Report, u64, Duration) {
    let begun = clock::instant();
    let to = clock::now().hour().plus(TimeMs::HOUR_MS);
    let request = l::ReportRequest { from_ms: from.0, to_ms: to.0, open: true, local: false };
    let mut parts = client.report(request).await.unwrap().into_inner();
    let (mut report, mut words, mut read) = (None, 0, Duration::ZERO);
    while let Some(part) = parts.message().await.unwrap() {
        match part.part {
            Some(Part::Progress(_)) => (words, read) = (words + 1, begun.elapsed()),
            Some(Part::Forum(json)) => report = Some(serde_json::from_slice(&json).unwrap()),
            _ => {}
        }
    }
    (report.unwrap(), words, read)
}

/// Each one's time, one after the other.
async fn lookups(mut client: ForumClient<Channel>, count: u64) -> Vec<Duration> {
    let mut times = Vec::new();
    for number in 0..count {
        let value = data_encoding::HEXLOWER.encode(&forum::scattered::<32>(number));
        let signal = l::Signal { r#type: "sha256".into(), value };
        let request = l::LookupRequest { signals: vec![signal], ..Default::default() };
        let begun = clock::instant();
        client.lookup(request).await.unwrap();
        times.push(begun.elapsed());
    }
    times
}
