//! What a listed subject costs: memory, folding, looking up, writing and reading its image. `cargo bench --bench view`.
//!
//! Defends: at most 64 bytes of memory for a subject with one opinion, beside the matching index.
//! `STAYDOWN_BENCH_RECORDS` scales it (1,000,000).
#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made ends by panicking")]

mod counting;
mod forum;

use std::convert::Infallible;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use counting::allocated;
use forum::Forum;
use staydown::clock;
use staydown::matcher::{Matcher, Sought};
use staydown::replica::block::Header;
use staydown::replica::charter::Charter;
use staydown::replica::record::Parsed;
use staydown::replica::signal::{Alg, Subject};
use staydown::replica::signed::{Keyring, VerifiedBlock};
use staydown::replica::view::View;

/// Most bytes that a subject with one opinion may take in the view.
const SUBJECT_BYTES_MAX: usize = 64;
const AUTHORS: usize = 3;
const LOOKUPS: u64 = 100_000;
const SCANS: u64 = 50;

/// A block as the view folds it.
type Block = (Header, Vec<Parsed>);

fn main() {
    let records = forum::count("STAYDOWN_BENCH_RECORDS", 1_000_000);
    println!("load: {}", forum::load());
    let forum = Forum::found(AUTHORS, Path::new(env!("CARGO_TARGET_TMPDIR")));
    let blocks = blocks(&forum, records);

    let mut view = View::new(forum.chain().effective(), clock::now());
    let before = allocated();
    let folded = timed(|| blocks.iter().for_each(|(header, records)| view.fold(header, records)));
    let both = allocated() - before;
    let listed = usize::try_from(view.listed()).unwrap();
    assert_eq!(listed, records);

    let in_view = both / listed;
    println!("view: {listed} subjects, {in_view} bytes a subject");
    println!("fold: {:.0} records/s", records as f64 / folded.as_secs_f64());

    let mut again = View::new(forum.chain().effective(), clock::now());
    let rebuilt = timed(|| blocks.iter().rev().for_each(|(header, records)| again.fold(header, records)));
    println!("fold of the same in another order: {:.2} s", rebuilt.as_secs_f64());
    assert_eq!(view.digest(), again.digest());
    drop(again);

    lookups(&view, records);
    image(&view, forum.chain().effective());
    assert!(in_view <= SUBJECT_BYTES_MAX, "{in_view} bytes a subject, at most {SUBJECT_BYTES_MAX} are the aim");
}

fn lookups(view: &View, records: usize) {
    let now = clock::now();
    let numbers = (records / AUTHORS) as u64;
    let wanted: Vec<_> = (0..LOOKUPS).map(|i| forum::subject(1, i.wrapping_mul(7_919) % numbers)).collect();
    let exact = timed(|| wanted.iter().for_each(|s| drop(black_box(view.entry(s, now)))));
    assert!(wanted.iter().all(|s| view.entry(s, now).is_some()));
    println!("exact lookup: {} ns", exact.as_nanos() / u128::from(LOOKUPS));
    let queries: Vec<[u8; 32]> = (0..SCANS).map(forum::scattered).collect();
    let queries: Vec<_> = queries.iter().map(|q| Sought::new(vec![(0, Subject::of(Alg::Pdq, q))], 31)).collect();
    let index = Matcher::of(view, [7; 32]).unwrap().now();
    let pdq = timed(|| queries.iter().for_each(|q| drop(black_box(index.search(q)))));
    println!("PDQ lookup: {} us", pdq.as_micros() / u128::from(SCANS));
}

/// What a node with a long list starts from.
fn image(view: &View, charter: &Charter) {
    let mut bytes = Vec::new();
    let taken = timed(|| drop(black_box(view.image())));
    let image = view.image();
    let mut sink = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok::<_, Infallible>(())
    };
    let written = timed(|| image.write_to(&mut sink).unwrap());
    let mut read = None;
    let loaded = timed(|| read = Some(View::read_from(charter, &bytes).unwrap()));
    assert_eq!(read.unwrap().digest(), view.digest());
    println!(
        "image: {} bytes, taken in {} us, written in {} ms, read in {} ms",
        bytes.len(),
        taken.as_micros(),
        written.as_millis(),
        loaded.as_millis()
    );
}

fn blocks(forum: &Forum, records: usize) -> Vec<Block> {
    let mut keyring = Keyring::new(&forum.chain());
    let share = |author: usize| records / AUTHORS + usize::from(author < records % AUTHORS);
    let frames: Vec<_> = (0..AUTHORS).flat_map(|author| forum.bulk_log(author, share(author))).collect();
    let mut blocks = Vec::with_capacity(frames.len());
    let count = frames.len();
    let mut verified: Vec<VerifiedBlock> = Vec::with_capacity(count);
    let took = timed(|| {
        for frame in frames {
            let block = keyring.verify(frame).unwrap();
            keyring.learn(&block);
            verified.push(block);
        }
    });
    println!("verify: {:.0} records/s on one core", records as f64 / took.as_secs_f64());
    blocks.extend(verified.iter().map(|b| (b.header().clone(), b.records().to_vec())));
    blocks
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = clock::instant();
    work();
    begun.elapsed()
}
