//! Image files to 8-bit RGB pixels, in bounds: what is too large is refused from its header, and what is damaged is an
//! error and never a panic. Orientation tags are read and not applied: the shared hash is of the pixels as they are
//! stored.

use std::io::Cursor;
use std::iter;
use std::panic::{self, UnwindSafe};

pub use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

/// Longest image file that is read, in bytes. The file is held in memory while it is decoded, and a picture of
/// [`PIXELS_MAX`] pixels is rarely longer than this in any of the five formats.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Most pixels decoded: twice what a good camera gives. A few hundred bytes of PNG can claim billions.
pub const PIXELS_MAX: u64 = 50_000_000;

/// Most memory that a decoder may take, in bytes: [`PIXELS_MAX`] pixels of four 16-bit channels are 400 MB.
pub const DECODE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Most segments of a JPEG, and chunks of a PNG without those that hold pixels. Cameras and editors write some hundreds
/// at most; sixty megabytes of Huffman tables keep a decoder busy for a quarter of a minute, and as much in empty text
/// chunks becomes ten times as much memory.
pub const PARTS_MAX: usize = 10_000;

/// How many bytes of a file [`sniff`] wants to see.
pub const SNIFF_BYTES: usize = 32;

/// Why a file that begins like an image gives no pixels.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Longer than [`FILE_BYTES_MAX`].
    #[error("image is longer than {FILE_BYTES_MAX} bytes, the most that is read; scale it down first")]
    TooLong,
    /// More pixels than [`PIXELS_MAX`], by its own header. Nothing was decoded.
    #[error("image is {width} x {height} pixels, above the limit of {PIXELS_MAX}; scale it down first")]
    TooManyPixels {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Decoding would take more than [`DECODE_BYTES_MAX`]. Nothing was decoded.
    #[error("{format} image needs more than {DECODE_BYTES_MAX} bytes to decode; scale it down first")]
    TooMuchMemory {
        /// What the first bytes say it is.
        format: &'static str,
    },
    /// More segments or chunks than [`PARTS_MAX`]. Nothing was decoded.
    #[error("{format} image is made of more than {PARTS_MAX} parts; save it anew without what is not the picture")]
    TooManyParts {
        /// What the first bytes say it is.
        format: &'static str,
    },
    /// The decoder gave up.
    #[error("damaged {format} image: {reason}")]
    Damaged {
        /// What the first bytes say it is.
        format: &'static str,
        /// What the decoder says.
        reason: String,
    },
    /// The decoder panicked: a bug in it, set off by this file.
    #[error("damaged {format} image: its decoder panicked: {reason}; please report it together with the file's digest")]
    DecoderPanicked {
        /// What the first bytes say it is.
        format: &'static str,
        /// The panic's message.
        reason: String,
    },
}

/// The format that the first bytes claim, if it is one that we decode. `head` is the first [`SNIFF_BYTES`] bytes, or
/// all if there are fewer.
pub fn sniff(head: &[u8]) -> Option<ImageFormat> {
    // BMP's mark is two letters that many a text begins with, so the size of its second header must fit too.
    let bmp = || matches!(head.get(14..18), Some([12 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0]));
    match head {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(ImageFormat::Png),
        [0xff, 0xd8, 0xff, ..] => Some(ImageFormat::Jpeg),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(ImageFormat::Gif),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(ImageFormat::WebP),
        [b'B', b'M', ..] if bmp() => Some(ImageFormat::Bmp),
        _ => None,
    }
}

/// The pixels of an image file in `format`; of an animation the first frame. Alpha is laid over white.
///
/// # Errors
/// [`ImageError`]; nothing of the file is kept.
pub fn decode(format: ImageFormat, bytes: &[u8]) -> Result<RgbImage, ImageError> {
    decode_with_orientation(format, bytes).map(|(pixels, _orientation)| pixels)
}

/// As [`decode`], and how a viewer turns these pixels, by the file's EXIF tag. A tag that makes no sense turns nothing.
///
/// # Errors
/// [`ImageError`]; nothing of the file is kept.
pub fn decode_with_orientation(format: ImageFormat, bytes: &[u8]) -> Result<(RgbImage, Orientation), ImageError> {
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ImageError::TooLong);
    }
    without_panic(name(format), || decode_in_bounds(format, bytes))
}

/// How many pixels the header of an image file in `format` claims. Decodes none of them.
///
/// # Errors
/// [`ImageError`], the same as [`decode`] would give for the header.
pub fn claimed_pixels(format: ImageFormat, bytes: &[u8]) -> Result<u64, ImageError> {
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ImageError::TooLong);
    }
    without_panic(name(format), || {
        let (width, height) = open(format, bytes)?.dimensions();
        Ok(u64::from(width) * u64::from(height))
    })
}

/// Decoders are written by others and fed by attackers; a panic in one is an error like any other.
fn without_panic<T>(
    format: &'static str,
    decode: impl FnOnce() -> Result<T, ImageError> + UnwindSafe,
) -> Result<T, ImageError> {
    panic::catch_unwind(decode).unwrap_or_else(|panicked| {
        let reason = match (panicked.downcast_ref::<&str>(), panicked.downcast_ref::<String>()) {
            (Some(text), _) => (*text).to_owned(),
            (None, Some(text)) => text.clone(),
            (None, None) => "no message".to_owned(),
        };
        Err(ImageError::DecoderPanicked { format, reason })
    })
}

fn decode_in_bounds(format: ImageFormat, bytes: &[u8]) -> Result<(RgbImage, Orientation), ImageError> {
    if let Some(reason) = flaw(format, bytes) {
        return Err(ImageError::Damaged { format: name(format), reason });
    }
    let mut decoder = open(format, bytes)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder).map_err(|e| refused(format, &e))?;
    Ok((to_rgb(image), orientation))
}

/// `image` as a viewer shows it.
pub fn upright(image: RgbImage, orientation: Orientation) -> RgbImage {
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    to_rgb(image)
}

/// A decoder that has read the header and found it within the limits.
fn open(format: ImageFormat, bytes: &[u8]) -> Result<impl ImageDecoder, ImageError> {
    if parts(format, bytes) > PARTS_MAX {
        return Err(ImageError::TooManyParts { format: name(format) });
    }
    let refused = |e| refused(format, &e);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(DECODE_BYTES_MAX);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(refused)?;

    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(ImageError::TooManyPixels { width, height });
    }
    limits.reserve(decoder.total_bytes()).map_err(refused)?;
    decoder.set_limits(limits).map_err(refused)?;
    Ok(decoder)
}

fn refused(format: ImageFormat, error: &image::ImageError) -> ImageError {
    let format = name(format);
    match error {
        image::ImageError::Limits(_) => ImageError::TooMuchMemory { format },
        other => ImageError::Damaged { format, reason: other.to_string() },
    }
}

/// Segments of a JPEG or chunks of a PNG, as far as they can be followed.
fn parts(format: ImageFormat, bytes: &[u8]) -> usize {
    match format {
        ImageFormat::Jpeg => iter::successors(next_segment(bytes, 2), |&end| next_segment(bytes, end)).count(),
        ImageFormat::Png => chunks(bytes).filter(|(_, name)| *name != b"IDAT").count(),
        _ => 0,
    }
}

/// Length and name of each chunk of a PNG, as far as they can be followed.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let chunk = |at: usize| {
        let (length, name) = bytes.get(at..at.checked_add(8)?)?.split_at(4);
        let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
        Some((at.saturating_add(12).saturating_add(length), length, name))
    };
    iter::successors(chunk(8), move |&(next, ..)| chunk(next)).map(|(_, length, name)| (length, name))
}

/// Why the decoder cannot be given the file, though it would try.
fn flaw(format: ImageFormat, bytes: &[u8]) -> Option<String> {
    match format {
        ImageFormat::Jpeg if !reaches_its_end(bytes) => Some("the file ends before the picture does".to_owned()),
        // The decoder takes the last colour whole, and panics.
        ImageFormat::Png => chunks(bytes)
            .find(|(length, name)| *name == b"PLTE" && !length.is_multiple_of(3))
            .map(|(length, _)| format!("the palette has {length} bytes, expected 3 a colour")),
        _ => None,
    }
}

/// Where the next segment of a JPEG ends that begins at `from` or, behind the pixels of a scan, later. None at the end
/// of the picture: a camera may append a film.
fn next_segment(bytes: &[u8], from: usize) -> Option<usize> {
    segment_end(bytes, next_mark(bytes, from)?)
}

/// Where the next mark of a JPEG stands that has a segment or is the end.
fn next_mark(bytes: &[u8], from: usize) -> Option<usize> {
    let is_mark = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0 | 1 | 0xd0..=0xd8 | 0xff);
    Some(from + bytes.get(from..)?.windows(2).position(is_mark)?)
}

/// Where the segment ends whose mark stands at `at`.
fn segment_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at + 1..at + 4)? {
        [0xd9, ..] => None,
        [_, upper, lower] => Some(at + 2 + usize::from(u16::from_be_bytes([*upper, *lower]))),
        _ => None,
    }
}

/// The JPEG decoder fills what is missing with grey, and a half picture has another hash. So the end mark must be
/// there: after the start of the scan it cannot stand for anything else, since 0xff in the scan is followed by 0. Before
/// it, in a segment of the camera, there may be a small picture that has a scan and an end of its own.
fn reaches_its_end(bytes: &[u8]) -> bool {
    let mut marks = iter::successors(next_mark(bytes, 2), |&at| next_mark(bytes, segment_end(bytes, at)?));
    let scan = marks.find(|&at| bytes[at + 1] == 0xda).unwrap_or(bytes.len());
    bytes[scan..].windows(2).any(|pair| pair == [0xff, 0xd9])
}

/// 16-bit values lose their lower half, as in Pillow.
fn to_rgb(image: DynamicImage) -> RgbImage {
    let (width, height) = (image.width(), image.height());
    let pixels = match image {
        DynamicImage::ImageRgb8(rgb) => return rgb,
        DynamicImage::ImageLuma8(grey) => grey.iter().flat_map(|&v| [v; 3]).collect(),
        DynamicImage::ImageLumaA8(grey) => grey.pixels().flat_map(|p| [over_white(p[0], p[1]); 3]).collect(),
        DynamicImage::ImageRgba8(rgba) => {
            rgba.pixels().flat_map(|p| [p[0], p[1], p[2]].map(|v| over_white(v, p[3]))).collect()
        }
        DynamicImage::ImageLuma16(grey) => grey.iter().flat_map(|&v| [upper(v); 3]).collect(),
        DynamicImage::ImageLumaA16(grey) => {
            grey.pixels().flat_map(|p| [over_white(upper(p[0]), upper(p[1])); 3]).collect()
        }
        DynamicImage::ImageRgb16(rgb) => rgb.iter().map(|&v| upper(v)).collect(),
        DynamicImage::ImageRgba16(rgba) => {
            rgba.pixels().flat_map(|p| [p[0], p[1], p[2]].map(|v| over_white(upper(v), upper(p[3])))).collect()
        }
        // None of the five formats gives anything else today.
        other => return other.into_rgb8(),
    };
    RgbImage::from_raw(width, height, pixels).unwrap_or_default()
}

fn upper(value: u16) -> u8 {
    value.to_be_bytes()[0]
}

fn over_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    u8::try_from((value * alpha + 255 * (255 - alpha) + 127) / 255).unwrap_or(u8::MAX)
}

fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Gif => "GIF",
        ImageFormat::WebP => "WebP",
        ImageFormat::Bmp => "BMP",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use image::{ExtendedColorType, ImageEncoder as _, Rgba, RgbaImage};

    use super::*;
    use crate::hashing::drawn;

    const FORMATS: [ImageFormat; 5] =
        [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP, ImageFormat::Bmp];

    /// 29 by 22 pixels of one bit, and a palette of seven bytes.
    const HALF_A_COLOUR: &str = "89504e470d0a1a0a0000000d494844520000001d000000160103000000069a058f00000007504c5445ffe42279f3bd6dbe43d75a000000404944415478da6360b0ffc0c0804c3c0012f520a2024414288008060e0686076804870403c30120c1788001415830303e0012cc3f40c47f24a28281fd1f430500e1ff1766c2ee80e50000000049454e44ae426082";

    #[test]
    fn a_palette_that_ends_within_a_colour_is_damage_and_not_given_to_the_decoder() {
        let bytes = data_encoding::HEXLOWER.decode(HALF_A_COLOUR.as_bytes()).unwrap();
        let refused = decode(ImageFormat::Png, &bytes).unwrap_err();
        assert_eq!(refused.to_string(), "damaged PNG image: the palette has 7 bytes, expected 3 a colour");
    }

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        drawn::poster(5, 96, 64).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn the_first_bytes_say_the_format_and_it_decodes() {
        let drawing = drawn::poster(5, 96, 64);
        for format in FORMATS {
            let bytes = encoded(format);
            assert_eq!(sniff(&bytes), Some(format));
            let pixels = decode(format, &bytes).unwrap();
            assert_eq!(pixels.dimensions(), (96, 64));
            if !matches!(format, ImageFormat::Jpeg | ImageFormat::Gif) {
                assert_eq!(pixels, drawing, "{format:?} keeps every pixel");
            }
        }
        for head in [&b""[..], b"BM", b"BMW and other cars, to be long enough", b"%PDF-1.7", b"RIFF....WAVE"] {
            assert_eq!(sniff(head), None);
        }
    }

    #[test]
    fn a_truncated_file_is_an_error_wherever_it_is_cut() {
        for format in FORMATS {
            let whole = encoded(format);
            // The last bytes of a GIF and a PNG are an end mark and checksums; the pixels are whole without them.
            for length in (0..whole.len() * 9 / 10).step_by(whole.len() / 150 + 1) {
                let result = decode(format, &whole[..length]);
                assert!(matches!(result, Err(ImageError::Damaged { .. })), "{format:?} cut at {length}");
            }
        }
    }

    #[test]
    fn the_end_of_a_thumbnail_is_not_that_of_the_picture() {
        let whole = encoded(ImageFormat::Jpeg);
        let mut thumbnail = Cursor::new(Vec::new());
        drawn::poster(5, 16, 16).write_to(&mut thumbnail, ImageFormat::Jpeg).unwrap();
        let inside = [&b"Exif\0\0"[..], &thumbnail.into_inner()].concat();
        let length = u16::try_from(inside.len() + 2).unwrap().to_be_bytes();
        let with = [&whole[..2], &[0xff, 0xe1], &length, &inside, &whole[2..]].concat();
        assert_eq!(decode(ImageFormat::Jpeg, &with).unwrap(), decode(ImageFormat::Jpeg, &whole).unwrap());
        let rest = whole.len() - 2;
        for missing in [2, rest / 4, rest / 2, rest] {
            let refused = decode(ImageFormat::Jpeg, &with[..with.len() - missing]).unwrap_err();
            assert!(refused.to_string().ends_with("ends before the picture does"), "{missing} missing: {refused}");
        }
    }

    #[test]
    fn a_scribbled_file_never_panics() {
        for format in FORMATS {
            let whole = encoded(format);
            for at in (0..whole.len()).step_by(whole.len() / 300 + 1) {
                let mut scribbled = whole.clone();
                scribbled[at] ^= 0x5b;
                if let Err(ImageError::DecoderPanicked { reason, .. }) = decode(format, &scribbled) {
                    panic!("{format:?} with byte {at} changed: {reason}");
                }
            }
        }
    }

    /// How far a value of a JPEG may be from Pillow's: the inverse transform and the way chroma is scaled up are left
    /// to the decoder. Every other format has one right answer.
    const JPEG_VALUES_APART_MAX: u8 = 8;

    #[test]
    fn every_mode_gives_the_pixels_that_pillow_gives() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/images");
        let mut compared = 0;
        for entry in fs::read_dir(&folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let Some(name) = name.strip_suffix(".rgb.png") else { continue };
            let pixels = |path: PathBuf| {
                let bytes = fs::read(path).unwrap();
                decode(sniff(&bytes).unwrap(), &bytes).unwrap()
            };
            let ours = pixels(folder.join(name));
            let theirs = pixels(folder.join(format!("{name}.rgb.png")));
            assert_eq!(ours.dimensions(), theirs.dimensions(), "{name}");
            let apart = ours.iter().zip(theirs.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            let apart_max = if name.ends_with(".jpg") { JPEG_VALUES_APART_MAX } else { 0 };
            assert!(apart <= apart_max, "{name}: a value is {apart} off");
            compared += 1;
        }
        assert_eq!(compared, 46);
    }

    #[test]
    fn the_orientation_is_read_and_applied_apart_from_the_pixels() {
        let decoded = |number: u8| {
            let name = format!("tests/vectors/images/orientation-{number}.jpg");
            let bytes = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
            decode_with_orientation(ImageFormat::Jpeg, &bytes).unwrap()
        };
        let (stored, untouched) = decoded(1);
        assert_eq!(untouched, Orientation::NoTransforms);
        let (right, below) = (stored.width() - 1, stored.height() - 1);
        // Where the upper left corner of the stored pixels goes, by the EXIF specification.
        let corners = [(0, 0), (right, 0), (right, below), (0, below), (0, 0), (below, 0), (below, right), (0, right)];
        for (number, (x, y)) in (1..).zip(corners) {
            let (pixels, orientation) = decoded(number);
            assert_eq!((&pixels, orientation.to_exif()), (&stored, number));
            let turned = upright(pixels, orientation);
            assert_eq!(turned.get_pixel(x, y), stored.get_pixel(0, 0), "orientation {number}");
            assert_eq!(turned.width() == stored.height(), number > 4);
        }
    }

    /// A PNG header that claims `width` x `height`, and almost nothing after it.
    fn claiming(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
        encoder.write_image(&[0; 3], 1, 1, ExtendedColorType::Rgb8).unwrap();
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        let checksum = crc32(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        })
    }

    #[test]
    fn a_hundred_megapixels_are_refused_by_the_header_alone() {
        for (width, height) in [(10_000, 10_000), (50_000_001, 1)] {
            let refused = decode(ImageFormat::Png, &claiming(width, height)).unwrap_err();
            assert!(matches!(refused, ImageError::TooManyPixels { .. }), "{width} x {height}: {refused}");
        }
        let refused = decode(ImageFormat::Png, &claiming(0x7fff_ffff, 0x7fff_ffff)).unwrap_err();
        assert!(matches!(refused, ImageError::TooMuchMemory { .. }), "one row alone is too long: {refused}");
        // At the limit it is the missing pixels that are wrong.
        let refused = decode(ImageFormat::Png, &claiming(10_000, 5_000)).unwrap_err();
        assert!(matches!(refused, ImageError::Damaged { .. }), "{refused}");
    }

    #[test]
    fn the_other_formats_are_refused_by_their_headers_too() {
        let frame_header = |bytes: &[u8]| bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap() + 5;
        for (format, at, size) in [
            (ImageFormat::Gif, 6, &[0xff; 4][..]),
            (ImageFormat::Bmp, 18, &[0x10, 0x27, 0, 0, 0x10, 0x27, 0, 0]),
            (ImageFormat::Jpeg, frame_header(&encoded(ImageFormat::Jpeg)), &[0xff; 4]),
        ] {
            let mut bytes = encoded(format);
            bytes[at..at + size.len()].copy_from_slice(size);
            let refused = decode(format, &bytes).unwrap_err();
            assert!(matches!(refused, ImageError::TooManyPixels { .. }), "{format:?}: {refused}");
        }
    }

    #[test]
    fn more_parts_than_the_limit_are_not_looked_at() {
        // An empty comment and an empty text.
        for (format, at, part) in
            [(ImageFormat::Jpeg, 2, &b"\xff\xfe\0\x02"[..]), (ImageFormat::Png, 33, b"\0\0\0\x02tEXta\0\x90\xc5\x84j")]
        {
            let whole = encoded(format);
            let with = |count: usize| [&whole[..at], &part.repeat(count), &whole[at..]].concat();
            assert_eq!(decode(format, &with(PARTS_MAX / 2)).unwrap(), decode(format, &whole).unwrap());
            let refused = decode(format, &with(PARTS_MAX)).unwrap_err();
            assert!(matches!(refused, ImageError::TooManyParts { .. }), "{format:?}: {refused}");
        }
        let with_a_film = [encoded(ImageFormat::Jpeg), b"\xff\xfe\0\x02".repeat(PARTS_MAX)].concat();
        assert!(decode(ImageFormat::Jpeg, &with_a_film).is_ok());
    }

    #[test]
    fn a_panic_in_a_decoder_is_an_error() {
        let refused = without_panic::<()>("PNG", || panic!("row {} is missing", 7)).unwrap_err();
        assert!(matches!(&refused, ImageError::DecoderPanicked { reason, .. } if reason == "row 7 is missing"));
    }

    #[test]
    fn more_bytes_than_the_limit_are_not_looked_at() {
        let long = vec![0; usize::try_from(FILE_BYTES_MAX).unwrap() + 1];
        assert!(matches!(decode(ImageFormat::Png, &long), Err(ImageError::TooLong)));
    }

    #[test]
    fn alpha_is_laid_over_white_and_sixteen_bits_lose_their_lower_half() {
        let rgba = RgbaImage::from_fn(3, 1, |x, _| Rgba([10, 20, 30, [0, 128, 255][x as usize]]));
        assert_eq!(to_rgb(DynamicImage::ImageRgba8(rgba)).into_raw(), [255, 255, 255, 132, 137, 142, 10, 20, 30]);
        let grey = image::ImageBuffer::from_raw(2, 1, vec![0x12ff, 0xff00]).unwrap();
        assert_eq!(to_rgb(DynamicImage::ImageLuma16(grey)).into_raw(), [0x12, 0x12, 0x12, 0xff, 0xff, 0xff]);
    }
}
