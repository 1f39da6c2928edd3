//! Speed of PDQ and of the digests in plain numbers: `cargo bench --bench hashing`.
//!
//! The pictures are drawn, the pixels are in memory, one core; the fastest of several runs is printed, because what
//! disturbs a run only ever makes it slower.

use std::time::Duration;

use staydown::clock;
use staydown::hashing::{Digests, drawn, pdq};

/// What is measured: width, height, runs.
const PICTURES: [(u32, u32, u32); 2] = [(512, 512, 200), (4000, 3000, 10)];
/// Bytes digested.
const FILE_BYTES: usize = 16 * 1024 * 1024;

#[expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
fn main() {
    for (width, height, runs) in PICTURES {
        let image = drawn::poster(1, width, height);
        let fastest = fastest(runs, || pdq(width, height, image.as_raw()));
        let megapixels = f64::from(width) * f64::from(height) / 1e6;
        let rate = megapixels / fastest.as_secs_f64();
        println!("pdq {width}x{height}: {} us, {rate:.0} megapixels/s", fastest.as_micros());
    }
    let file = vec![0x5a; FILE_BYTES];
    let fastest = fastest(3, || Digests::of_bytes(&file));
    println!("md5+sha1+sha256+sha512 of 16 MiB: {} us", fastest.as_micros());
}

fn fastest<T>(runs: u32, mut work: impl FnMut() -> T) -> Duration {
    (0..runs).map(|_run| timed(&mut work)).min().unwrap_or_default()
}

fn timed<T>(work: &mut impl FnMut() -> T) -> Duration {
    let start = clock::instant();
    std::hint::black_box(work());
    start.elapsed()
}
