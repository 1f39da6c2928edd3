//! How long it takes until a submission matches elsewhere: `cargo bench --bench latency`.
//!
//! Defends: acknowledged at one node to matching at both others, p99 of 200 within 1 s; an urgent submission during a
//! backfill of 300,000 records matches at the receiving node within 2 s. Every node is a process of its own, the
//! lookups go through its local service. `STAYDOWN_BENCH_SUBMISSIONS` and `STAYDOWN_BENCH_RECORDS` scale it.
#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made ends by panicking")]

mod forum;

use std::path::Path;
use std::time::Duration;

use forum::{Forum, Process, quantile};
use staydown::clock;
use staydown::wire::local as l;
use staydown::wire::local_service::forum_client::ForumClient;
use tonic::transport::Channel;

const NORMAL_MAX: Duration = Duration::from_secs(1);
const URGENT_MAX: Duration = Duration::from_secs(2);
/// Shares of the backfill in percent after which something urgent is said.
const MOMENTS: [u64; 6] = [10, 20, 30, 40, 55, 70];
/// Lookups at the receiving node; at one a millisecond they end before the backfill does.
const LOOKUPS: u64 = 500;
const STEP: Duration = Duration::from_millis(1);

fn main() {
    println!("load before: {}", forum::load());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let normal = runtime.block_on(ordinary(forum::count("STAYDOWN_BENCH_SUBMISSIONS", 200)));
    let urgent = runtime.block_on(amid_backfill(forum::count("STAYDOWN_BENCH_RECORDS", 300_000)));
    println!("load after: {}", forum::load());
    assert!(normal <= NORMAL_MAX, "an ordinary submission took {normal:?}");
    assert!(urgent <= URGENT_MAX, "an urgent submission took {urgent:?}");
}

fn found(count: usize) -> Forum {
    Forum::found(count, Path::new(env!("CARGO_TARGET_TMPDIR")))
}

/// Three idle nodes; each submission by another one. Returns the 99th percentile.
async fn ordinary(submissions: usize) -> Duration {
    let forum = found(3);
    let mut nodes = Vec::new();
    for index in 0..3 {
        nodes.push(forum.start(index).await);
    }
    for node in &mut nodes {
        node.open().await;
    }
    let (mut acknowledged, mut matched) = (Vec::new(), Vec::new());
    for number in 0..submissions {
        nodes.rotate_left(1);
        let value = data_encoding::HEXLOWER.encode(&forum::scattered::<32>(number as u64));
        let begun = clock::instant();
        say(&mut nodes[0], l::Lane::Normal, &value).await;
        acknowledged.push(begun.elapsed());
        let begun = clock::instant();
        for node in &mut nodes[1..] {
            until_match(node, &value).await;
        }
        matched.push(begun.elapsed());
    }
    let line = |what: &str, values: &mut [Duration]| {
        let [p50, p99, most] = [500, 990, 1000].map(|q| quantile(values, q).as_secs_f64() * 1e3);
        println!("{what:<52} p50 {p50:.1} ms, p99 {p99:.1} ms, longest {most:.1} ms of {submissions}");
    };
    line("submitted to acknowledged", &mut acknowledged);
    line("acknowledged at one to matching at both others", &mut matched);
    quantile(&mut matched, 990)
}

/// The receiving node pulls a long log from the node that says something urgent. Returns the longest time.
async fn amid_backfill(records: usize) -> Duration {
    const AUTHOR: usize = 0;
    const SOURCE: usize = 1;
    const RECEIVER: usize = 2;
    let forum = found(3);
    let loaded = forum.preload(SOURCE, &[AUTHOR], records);
    // First the one without blocks: it answers the other's startup guard.
    let mut receiver = forum.start(RECEIVER).await;
    let mut source = forum.start(SOURCE).await;
    source.open().await;
    let lookups = tokio::task::JoinSet::from_iter([look_up(receiver.client.clone())]);
    let mut longest = Duration::ZERO;
    for percent in MOMENTS {
        receiver.counts(loaded.records * percent / 100, STEP).await;
        let value = data_encoding::HEXLOWER.encode(&forum::scattered::<32>(percent << 32));
        let begun = clock::instant();
        say(&mut source, l::Lane::Urgent, &value).await;
        let acknowledged = begun.elapsed();
        let begun = clock::instant();
        until_match(&mut receiver, &value).await;
        let matched = begun.elapsed();
        let there = receiver.status().await.records;
        let amid = if there < loaded.records { "" } else { " (the backfill had ended)" };
        println!(
            "urgent at {percent} % of {records}: acknowledged in {:.1} ms, matching {:.1} ms later, {there} there{amid}",
            acknowledged.as_secs_f64() * 1e3,
            matched.as_secs_f64() * 1e3,
        );
        longest = longest.max(acknowledged + matched);
    }
    let mut lookups = lookups.join_all().await.concat();
    let [p50, p99, most] = [500, 990, 1000].map(|q| quantile(&mut lookups, q).as_secs_f64() * 1e3);
    println!(
        "exact lookups there meanwhile: p50 {p50:.1} ms, p99 {p99:.1} ms, longest {most:.1} ms of {}",
        lookups.len()
    );
    longest
}

/// How long lookups take, one after the other, as long as the node is busy.
async fn look_up(mut client: ForumClient<Channel>) -> Vec<Duration> {
    let mut took = Vec::new();
    for number in 0..LOOKUPS {
        let value = data_encoding::HEXLOWER.encode(&forum::scattered::<32>(number));
        let signal = l::Signal { r#type: "sha256".into(), value };
        let begun = clock::instant();
        client.lookup(l::LookupRequest { signals: vec![signal], ..Default::default() }).await.unwrap();
        took.push(begun.elapsed());
        tokio::time::sleep(STEP).await;
    }
    took
}

async fn say(node: &mut Process, lane: l::Lane, value: &str) {
    let statement = l::Statement {
        signal: Some(l::Signal { r#type: "sha256".into(), value: value.into() }),
        stance: l::Stance::Submit.into(),
        labels: vec!["propaganda".into()],
        ..Default::default()
    };
    let request = l::SubmitRequest { statements: vec![statement], lane: lane.into(), ..Default::default() };
    let answer = node.client.submit(request).await.unwrap().into_inner();
    assert_eq!(answer.state(), l::SubmitState::Durable);
}

async fn until_match(node: &mut Process, value: &str) {
    while !node.matches("sha256", value).await {
        tokio::time::sleep(STEP).await;
    }
}
