//! Image files of all formats and modes.

use std::fs;
use std::path::Path;

use staydown::hashing::image::{self, DECODE_BYTES_MAX, ImageError, PIXELS_MAX, SNIFF_BYTES};
use staydown::hashing::{drawn, hash_bytes, pdq};

use crate::parser::Parser;

/// The small files of tests/vectors/images, and a drawn picture as a PNG and a JPEG.
pub(crate) fn parser() -> Parser {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/images");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<_> = names.filter(|path| !path.to_string_lossy().ends_with(".rgb.png")).collect();
    names.sort();
    let mut corpus: Vec<_> = names.into_iter().map(|path| fs::read(path).unwrap()).collect();
    let poster = drawn::poster(1, 40, 30);
    corpus.extend([drawn::png_bytes(&poster).unwrap(), drawn::jpeg_bytes(&poster, 60).unwrap()]);
    Parser { name: "image", inputs: 2_000, corpus, memory_max, repair, check }
}

/// The decoder's limit, and the pixels as RGB beside it twice: the picture, and the picture turned.
fn memory_max(bytes: &[u8]) -> usize {
    usize::try_from(DECODE_BYTES_MAX + 6 * PIXELS_MAX).unwrap() + 4 * bytes.len()
}

/// Writes the checksum that belongs to each chunk of a PNG.
fn repair(bytes: &mut [u8]) {
    if !bytes.starts_with(b"\x89PNG") {
        return;
    }
    let mut at = 8;
    while let Some(Ok(length)) = bytes.get(at..at + 4).map(<[u8; 4]>::try_from) {
        let end = at.saturating_add(8).saturating_add(u32::from_be_bytes(length) as usize);
        let Some(chunk) = bytes.get(at + 4..end) else { return };
        let checksum = crc32(chunk).to_be_bytes();
        let Some(place) = bytes.get_mut(end..end + 4) else { return };
        place.copy_from_slice(&checksum);
        at = end + 4;
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// An error, or a picture within the limits that is as large as its header says; and the same again.
pub(crate) fn check(bytes: &[u8]) {
    let hashed = hash_bytes(bytes);
    if let Err(ImageError::DecoderPanicked { reason, .. }) = hashed {
        panic!("a decoder panicked: {reason}");
    }
    let Some(format) = image::sniff(&bytes[..bytes.len().min(SNIFF_BYTES)]) else {
        return assert!(hashed.unwrap().image.is_none());
    };
    let claimed = image::claimed_pixels(format, bytes);
    if let Ok(hashes) = hashed {
        let claimed = claimed.unwrap();
        assert!(claimed <= PIXELS_MAX);
        // Decoded once more only where that is cheap.
        if claimed < 10_000 {
            let pixels = image::decode(format, bytes).unwrap();
            assert_eq!(u64::from(pixels.width()) * u64::from(pixels.height()), claimed);
            assert_eq!(hashes.image, Some(pdq(pixels.width(), pixels.height(), pixels.as_raw())));
        }
    }
}
