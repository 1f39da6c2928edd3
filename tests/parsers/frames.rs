//! Lists of the frames of a video as records have them, and the pixels that come out of the pipe of a child.

use staydown::hashing::video::{FRAME_BYTES, Frame, ReadError, read_frames};
use staydown::replica::signal::{self, Alg, Subject};
use staydown::replica::vpdq::{self, FRAMES_PER_RECORD_MAX};

use crate::parser::Parser;

/// Most frames that are asked for here.
const FRAMES_MAX: usize = 2;

/// The shortest list, a short and the longest one; more pixels than are asked for, and one frame of them.
pub(crate) fn parser() -> Parser {
    let mut corpus: Vec<_> = [1, 3, 100].map(|count| vpdq::encode(&film(count)).unwrap()).to_vec();
    corpus.push(vec![0x55; 3 * FRAME_BYTES]);
    corpus.push((0..=255).cycle().take(FRAME_BYTES).collect());
    Parser { name: "frames", inputs: 2_000, corpus, memory_max, repair: |_| (), check }
}

fn film(count: u8) -> Vec<Frame> {
    let frame =
        |n: u8| Frame { hash: [n.wrapping_mul(37) ^ 0xa5; 32], quality: 50 + n % 51, time_ms: u32::from(n) * 1_000 };
    (0..count).map(frame).collect()
}

/// A list and its encoding; of pixels one frame at a time, and what PDQ makes of it on the way.
fn memory_max(bytes: &[u8]) -> usize {
    8 * bytes.len() + 32 * FRAME_BYTES
}

/// The bytes as a list, and as pixels.
pub(crate) fn check(bytes: &[u8]) {
    list(bytes);
    pixels(bytes);
}

/// What is read is what was written, and nothing else is in normal form.
fn list(bytes: &[u8]) {
    let read = vpdq::decode(bytes);
    assert_eq!(signal::is_well_formed(&Subject::of(Alg::Vpdq, bytes)), read.is_ok());
    if let Ok(frames) = read {
        assert!((1..=FRAMES_PER_RECORD_MAX).contains(&frames.len()));
        assert!(frames.is_sorted_by(|a, b| a.time_ms < b.time_ms));
        assert_eq!(vpdq::encode(&frames).as_deref(), Ok(bytes));
    }
}

/// Whole frames, or an error; however long it is, no more is read than may be.
fn pixels(bytes: &[u8]) {
    let read = read_frames(bytes, FRAMES_MAX).map(|frames| frames.len());
    let whole = bytes.len() / FRAME_BYTES;
    match bytes.len() % FRAME_BYTES {
        half if half > 0 && whole < FRAMES_MAX => assert_eq!(read, Err(ReadError::Half(half))),
        _ => assert_eq!(read, Ok(whole.min(FRAMES_MAX))),
    }
}
