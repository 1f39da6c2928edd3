//! Speed of PDQ and of the digests in plain numbers: `cargo bench --bench hashing`.
//!
//! The pictures are drawn, the pixels are in memory, one core; the fastest of several runs is printed, because what
//! disturbs a run only ever makes it slower.
//!
//! `cargo bench --bench hashing -- --pixels` hashes what it is told to: for each line `WIDTH HEIGHT RUNS FILE` of the
//! standard input one line `HASH QUALITY CPU_NS`, the time of one run. That is how `benches/peers.py` has the same
//! pixels hashed by us and by others in turn.

mod cpu;

use std::time::Duration;
use std::{env, fs, io};

use staydown::clock;
use staydown::hashing::{Digests, drawn, pdq};

/// What is measured: width, height, runs.
const PICTURES: [(u32, u32, u32); 2] = [(512, 512, 200), (4000, 3000, 10)];
/// Bytes digested.
const FILE_BYTES: usize = 16 * 1024 * 1024;

#[expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
fn main() {
    if env::args().any(|argument| argument == "--pixels") {
        return io::stdin().lines().map_while(Result::ok).for_each(|line| println!("{}", hashed(&line)));
    }
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

/// What is said about one line.
fn hashed(line: &str) -> String {
    let mut words = line.splitn(4, ' ');
    let mut number = || words.next().and_then(|word| word.parse().ok());
    let (Some(width), Some(height), Some(runs)) = (number(), number(), number()) else {
        return format!("expected WIDTH HEIGHT RUNS FILE, got {line}");
    };
    let pixels = match fs::read(words.next().unwrap_or_default()) {
        Ok(pixels) if pixels.len() == width as usize * height as usize * 3 => pixels,
        Ok(pixels) => return format!("expected {width} x {height} x 3 bytes, got {}", pixels.len()),
        Err(error) => return error.to_string(),
    };
    let hash = pdq(width, height, &pixels);
    let begun = cpu::used();
    for _run in 0..runs {
        std::hint::black_box(pdq(width, height, std::hint::black_box(&pixels)));
    }
    let took = (cpu::used() - begun) / runs.max(1);
    format!("{} {} {}", data_encoding::HEXLOWER.encode(&hash.hash), hash.quality, took.as_nanos())
}

fn fastest<T>(runs: u32, mut work: impl FnMut() -> T) -> Duration {
    (0..runs).map(|_run| timed(&mut work)).min().unwrap_or_default()
}

fn timed<T>(work: &mut impl FnMut() -> T) -> Duration {
    let start = clock::instant();
    std::hint::black_box(work());
    start.elapsed()
}
