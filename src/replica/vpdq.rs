//! The frames of a video, and the one way in which a record writes them (PROTOCOL section 10; semantics level 4).
//!
//! A record has room for a hundred frames: a longer video is several records with one `item_id`. How frames are compared
//! is told in `index/frames.rs`.

use super::signal::{PDQ_QUALITY_MAX, PDQ_QUALITY_MIN};

/// Frames of one record: 3,700 bytes, so that labels, languages and identifiers fit into a record of 4,096 beside them.
pub const FRAMES_PER_RECORD_MAX: usize = 100;
/// Bytes of one frame: its hash, its quality, its time.
pub const FRAME_SIZE: usize = HASH_SIZE + 1 + 4;
/// Usable frames that make a video. Fewer are a picture, and a picture never matches a video.
pub const FRAMES_MIN: usize = 3;

/// Of a thousand usable frames of a looked-up video, so many must be near a listed one. What editors add, a title or a
/// second's fade, leaves four fifths.
pub const SHARE_MIN_PERMILLE: u32 = 800;

/// Names the records of one video; their author chose it.
pub type ItemId = [u8; 16];

const HASH_SIZE: usize = 32;

/// One frame of a video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// PDQ of the frame, scaled to 64 x 64.
    pub hash: [u8; HASH_SIZE],
    /// PDQ quality, 0 to 100.
    pub quality: u8,
    /// Milliseconds from the beginning of the video.
    pub time_ms: u32,
}

impl Frame {
    /// Whether it says enough to be listed and compared. Black frames, fades and white titles hash alike in every video:
    /// listed, they would match all of them.
    pub fn is_usable(&self) -> bool {
        u32::from(self.quality) >= PDQ_QUALITY_MIN
    }

    fn to_bytes(self) -> [u8; FRAME_SIZE] {
        let mut bytes = [0; FRAME_SIZE];
        bytes[..HASH_SIZE].copy_from_slice(&self.hash);
        bytes[HASH_SIZE] = self.quality;
        bytes[HASH_SIZE + 1..].copy_from_slice(&self.time_ms.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; FRAME_SIZE]) -> Self {
        let mut hash = [0; HASH_SIZE];
        hash.copy_from_slice(&bytes[..HASH_SIZE]);
        let [.., a, b, c, d] = *bytes;
        Self { hash, quality: bytes[HASH_SIZE], time_ms: u32::from_be_bytes([a, b, c, d]) }
    }
}

/// Why bytes are no list of frames. Frames are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramesError {
    /// No frame, or half of one, or too many.
    #[error("got {0} bytes, expected 1 to {FRAMES_PER_RECORD_MAX} frames of {FRAME_SIZE} bytes")]
    Length(usize),
    /// Off the scale.
    #[error("frame {at} has quality {got}, expected 0 to {PDQ_QUALITY_MAX}")]
    Quality {
        /// Which frame.
        at: usize,
        /// What it has.
        got: u8,
    },
    /// Two frames of one moment, or in the wrong order: the same video would have several names.
    #[error("frame {at} is of {got} ms, expected a time after {before} ms, that of the frame before it")]
    Order {
        /// Which frame.
        at: usize,
        /// Its time in milliseconds.
        got: u32,
        /// That of the frame before it.
        before: u32,
    },
}

/// The digest of one record: the frames one after the other, each its hash, its quality, and its time as four bytes, the
/// highest first.
///
/// # Errors
/// [`FramesError`] if [`decode`] would refuse it.
pub fn encode(frames: &[Frame]) -> Result<Vec<u8>, FramesError> {
    check(frames)?;
    Ok(frames.iter().flat_map(|frame| frame.to_bytes()).collect())
}

/// The frames of a digest: from 1 to [`FRAMES_PER_RECORD_MAX`], times ascending, none twice, so that there is one digest
/// for one list.
///
/// # Errors
/// [`FramesError`], the first rule that is broken.
pub fn decode(digest: &[u8]) -> Result<Vec<Frame>, FramesError> {
    let (frames, rest) = digest.as_chunks();
    if !rest.is_empty() || frames.len() > FRAMES_PER_RECORD_MAX {
        return Err(FramesError::Length(digest.len()));
    }
    let frames: Vec<_> = frames.iter().map(Frame::from_bytes).collect();
    check(&frames)?;
    Ok(frames)
}

/// Whether [`decode`] takes it.
pub fn is_canonical(digest: &[u8]) -> bool {
    decode(digest).is_ok()
}

fn check(frames: &[Frame]) -> Result<(), FramesError> {
    if !(1..=FRAMES_PER_RECORD_MAX).contains(&frames.len()) {
        return Err(FramesError::Length(frames.len() * FRAME_SIZE));
    }
    for (index, frame) in frames.iter().enumerate() {
        if u32::from(frame.quality) > PDQ_QUALITY_MAX {
            return Err(FramesError::Quality { at: index + 1, got: frame.quality });
        }
        let before = index.checked_sub(1).map(|before| frames[before].time_ms);
        if let Some(before) = before.filter(|before| *before >= frame.time_ms) {
            return Err(FramesError::Order { at: index + 1, got: frame.time_ms, before });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(n: u8, time_ms: u32) -> Frame {
        Frame { hash: [n; 32], quality: 50 + n % 51, time_ms }
    }

    fn frames(count: u32) -> Vec<Frame> {
        (0..count).map(|n| frame(u8::try_from(n).unwrap(), n * 1_000)).collect()
    }

    #[test]
    fn a_frame_is_its_hash_its_quality_and_its_time() {
        let digest = encode(&[Frame { hash: [0xab; 32], quality: 77, time_ms: 0x0102_0304 }]).unwrap();
        assert_eq!(digest, [&[0xab; 32][..], &[77, 1, 2, 3, 4]].concat());
    }

    #[test]
    fn one_to_a_hundred_frames_are_a_record() {
        for count in [1, 2, 99, 100] {
            let frames = frames(count);
            assert_eq!(decode(&encode(&frames).unwrap()).unwrap(), frames);
        }
        assert_eq!(encode(&[]), Err(FramesError::Length(0)));
        assert_eq!(encode(&frames(101)), Err(FramesError::Length(3_737)));
        for length in [0, 1, 36, 38, 3_699, 3_701, 3_737, 37_000_000] {
            assert_eq!(decode(&vec![1; length]), Err(FramesError::Length(length)));
        }
    }

    #[test]
    fn times_ascend_and_qualities_are_on_the_scale() {
        for (time, refused) in [(999, true), (1_000, true), (1_001, false), (u32::MAX, false)] {
            let got = encode(&[frame(1, 1_000), frame(2, time)]);
            let expected = FramesError::Order { at: 2, got: time, before: 1_000 };
            assert_eq!(got.is_err(), refused, "{time}");
            assert!(!refused || got == Err(expected));
        }
        for (quality, refused) in [(0, false), (100, false), (101, true), (255, true)] {
            let got = encode(&[frame(1, 0), Frame { quality, ..frame(2, 1) }]);
            assert_eq!(got.is_err(), refused, "{quality}");
        }
        let told = FramesError::Order { at: 2, got: 5, before: 9 }.to_string();
        assert_eq!(told, "frame 2 is of 5 ms, expected a time after 9 ms, that of the frame before it");
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..150), times in any::<bool>()) {
            let mut bytes = bytes;
            for (n, frame) in bytes.chunks_exact_mut(FRAME_SIZE).enumerate().filter(|_| times) {
                frame[32] %= 101;
                frame[33..].copy_from_slice(&u32::try_from(n).unwrap().to_be_bytes());
            }
            if let Ok(frames) = decode(&bytes) {
                prop_assert_eq!(encode(&frames).unwrap(), bytes);
            }
        }
    }
}
