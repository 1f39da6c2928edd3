//! A fresh node pulls a million records from another one: `cargo bench --bench replication`.
//!
//! Defends: verified and durable at no less than an eighth of the rate at which the same stream can be received,
//! verified and folded without storing anything; memory bounded; after a SIGKILL it goes on where it stopped.
//! In the same run the plain-file rate: the same stream, verified, appended to one file, synced for every group of
//! blocks. `STAYDOWN_BENCH_RECORDS` scales it. The source and the fetching node are processes of their own.
#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made ends by panicking")]

mod forum;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use forum::{Forum, Preloaded};
use staydown::clock;
use staydown::replica::block::Frame;
use staydown::replica::heads::Have;
use staydown::replica::proto::{self, pull_reply::Item};
use staydown::replica::signed::{Keyring, VerifiedBlock};
use staydown::replica::view::View;
use staydown::wire::peer_service::peer_client::PeerClient;
use tokio::sync::mpsc;
use tonic::transport::Channel;

const RECORDS: usize = 1_000_000;
/// Companies: three authors that never run, the source, the fetching node, and the one that measures.
const AUTHORS: [usize; 3] = [0, 1, 2];
const SOURCE: usize = 3;
const FETCHER: usize = 4;
const METER: usize = 5;
/// Blocks that wait for whoever takes them, and that one sync covers: as in the engine.
const GROUP: usize = 32;
const STEP: Duration = Duration::from_millis(10);

fn main() {
    let records = forum::count("STAYDOWN_BENCH_RECORDS", RECORDS);
    println!("load before: {}", forum::load());
    let forum = Forum::found(6, Path::new(env!("CARGO_TARGET_TMPDIR")));
    let begun = clock::instant();
    let loaded = forum.preload(SOURCE, &AUTHORS, records);
    println!(
        "{} records of {}-{} bytes in {} blocks, {:.0} MB, signed and loaded in {:.1} s",
        loaded.records,
        loaded.record_bytes.0,
        loaded.record_bytes.1,
        loaded.blocks,
        loaded.payload_bytes as f64 / 1e6,
        begun.elapsed().as_secs_f64()
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure(&forum, &loaded));
    println!("load after: {}", forum::load());
}

async fn measure(forum: &Forum, loaded: &Preloaded) {
    let mut source = forum.start(SOURCE).await;
    assert_eq!(source.status().await.records, loaded.records, "the source holds everything");

    let no_store = received(forum, loaded, Sink::fold(forum)).await;
    let file = File::create(forum.folder.path().join("plain")).unwrap();
    let plain = received(forum, loaded, Sink::File(file)).await;

    let begun = clock::instant();
    let mut fetcher = forum.start(FETCHER).await;
    fetcher.counts(loaded.records, STEP).await;
    let node = begun.elapsed();
    let digest = fetcher.status().await.view_digest;
    assert_eq!(digest, source.status().await.view_digest, "both show the same list");
    let peak = fetcher.peak_memory();
    let stored = folder_bytes(&forum.companies[FETCHER].data.join("replica"));
    fetcher.kill();

    let begun = clock::instant();
    let mut again = forum.start(FETCHER).await;
    let start = begun.elapsed();
    assert_eq!(again.status().await.records, loaded.records, "everything counted was durable");
    let rebuilt_peak = again.peak_memory();
    again.kill();

    println!("{:<44}{:>9}{:>14}{:>9}", "", "s", "records/s", "of that");
    let rate = |took: Duration| loaded.records as f64 / took.as_secs_f64();
    for (what, took) in [
        ("received, verified, folded, not stored", no_store),
        ("received, verified, in a plain file, synced", plain),
        ("a fresh node: verified, durable, shown", node),
    ] {
        println!(
            "{what:<44}{:>9.2}{:>14.0}{:>8.0}%",
            took.as_secs_f64(),
            rate(took),
            100.0 * rate(took) / rate(no_store)
        );
    }
    println!(
        "fetching node: peak memory {:.0} MB, store {:.0} MB ({:.2} times the records)",
        peak as f64 / 1e6,
        stored as f64 / 1e6,
        stored as f64 / loaded.payload_bytes as f64
    );
    println!(
        "start with everything on disk: {:.2} s, {:.0} records/s, peak memory {:.0} MB",
        start.as_secs_f64(),
        rate(start),
        rebuilt_peak as f64 / 1e6
    );
    resumed(forum, loaded).await;
    source.kill();
    assert!(rate(node) >= rate(no_store) / 8.0, "slower than an eighth of the rate without store");
}

/// The fetching node begins anew and is killed amid the work: what it counted is there again, and the rest follows.
async fn resumed(forum: &Forum, loaded: &Preloaded) {
    std::fs::remove_dir_all(forum.companies[FETCHER].data.join("replica")).unwrap();
    let mut fetcher = forum.start(FETCHER).await;
    fetcher.counts(loaded.records * 2 / 5, STEP).await;
    let counted = fetcher.status().await.records;
    fetcher.kill();
    let mut fetcher = forum.start(FETCHER).await;
    let held = fetcher.status().await.records;
    fetcher.counts(loaded.records, STEP).await;
    println!("killed at {counted} records: {held} there at the next start, {} in the end", loaded.records);
    assert!(held >= counted, "what was counted is durable");
    assert_eq!(fetcher.status().await.records, loaded.records, "nothing came twice");
    fetcher.kill();
}

/// Who takes the verified blocks, on a thread of its own as the engine does.
enum Sink {
    Fold(Box<View>),
    File(File),
}

impl Sink {
    fn fold(forum: &Forum) -> Self {
        Self::Fold(Box::new(View::new(forum.chain().effective(), clock::now())))
    }

    fn take(&mut self, blocks: &[VerifiedBlock]) {
        match self {
            Self::Fold(view) => blocks.iter().for_each(|b| view.fold(b.header(), b.records())),
            Self::File(file) => {
                let frames: Vec<_> = blocks.iter().map(|b| b.frame().encode()).collect();
                frames.iter().for_each(|frame| file.write_all(frame).unwrap());
                file.sync_data().unwrap();
            }
        }
    }
}

/// Receives everything from the source as a node would, verifies it, and hands it on.
async fn received(forum: &Forum, loaded: &Preloaded, mut sink: Sink) -> Duration {
    let client = forum.dial(METER, SOURCE);
    let keyring = Keyring::new(&forum.chain());
    let forum_id = bytes::Bytes::copy_from_slice(&forum.forum.0);
    let begun = clock::instant();
    let (blocks, mut inbox) = mpsc::channel(GROUP);
    let taker = std::thread::spawn(move || {
        let mut batch = Vec::new();
        while inbox.blocking_recv_many(&mut batch, GROUP) > 0 {
            sink.take(&batch);
            batch.clear();
        }
    });
    let received = pull(client, keyring, forum_id, blocks).await;
    tokio::task::spawn_blocking(move || taker.join().unwrap()).await.unwrap();
    assert_eq!(received, loaded.records);
    begun.elapsed()
}

async fn pull(
    mut client: PeerClient<Channel>,
    mut keyring: Keyring,
    forum_id: bytes::Bytes,
    blocks: mpsc::Sender<VerifiedBlock>,
) -> u64 {
    let request = proto::PullRequest { forum_id, charter_version: 1, have: Have::default().to_proto(), max_bytes: 0 };
    let mut stream = client.pull(request).await.unwrap().into_inner();
    let mut records = 0;
    while let Some(reply) = stream.message().await.unwrap() {
        let Some(Item::Block(frame)) = reply.item else { continue };
        let block = keyring.verify(Frame::from_proto(frame).unwrap()).unwrap();
        keyring.learn(&block);
        records += block.records().len() as u64;
        blocks.send(block).await.unwrap();
    }
    records
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let size = |entry: std::fs::DirEntry| {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() { folder_bytes(&entry.path()) } else { metadata.len() }
    };
    entries.map(size).sum()
}
