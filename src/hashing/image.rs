//! Image files to 8-bit RGB pixels, in bounds: what is too large is refused from its header, and what is damaged is an
//! error and never a panic. Orientation tags are not applied: the shared hash is of the pixels as they are stored.

use std::io::Cursor;
use std::panic;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

/// Longest image file that is read, in bytes. The file is held in memory while it is decoded, and a picture of
/// [`PIXELS_MAX`] pixels is rarely longer than this in any of the five formats.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Most pixels decoded: twice what a good camera gives. A few hundred bytes of PNG can claim billions.
pub const PIXELS_MAX: u64 = 50_000_000;

/// Most memory that a decoder may take, in bytes: [`PIXELS_MAX`] pixels of four 16-bit channels are 400 MB.
pub const DECODE_BYTES_MAX: u64 = 512 * 1024 * 1024;

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
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ImageError::TooLong);
    }
    let name = name(format);
    panic::catch_unwind(|| decode_in_bounds(format, bytes)).unwrap_or_else(|panicked| {
        let reason = match (panicked.downcast_ref::<&str>(), panicked.downcast_ref::<String>()) {
            (Some(text), _) => (*text).to_owned(),
            (None, Some(text)) => text.clone(),
            (None, None) => "no message".to_owned(),
        };
        Err(ImageError::DecoderPanicked { format: name, reason })
    })
}

fn decode_in_bounds(format: ImageFormat, bytes: &[u8]) -> Result<RgbImage, ImageError> {
    let damaged = |reason: String| ImageError::Damaged { format: name(format), reason };
    if format == ImageFormat::Jpeg && !reaches_its_end(bytes) {
        return Err(damaged("the file ends before the picture does".to_owned()));
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(DECODE_BYTES_MAX);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(|e| damaged(e.to_string()))?;

    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(ImageError::TooManyPixels { width, height });
    }
    limits.reserve(decoder.total_bytes()).map_err(|e| damaged(e.to_string()))?;
    decoder.set_limits(limits).map_err(|e| damaged(e.to_string()))?;
    DynamicImage::from_decoder(decoder).map(to_rgb).map_err(|e| damaged(e.to_string()))
}

/// The JPEG decoder fills what is missing with grey, and a half picture has another hash. So the end mark must be
/// there: after the start of the scan it cannot stand for anything else, since 0xff in the scan is followed by 0.
fn reaches_its_end(bytes: &[u8]) -> bool {
    let scan = bytes.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap_or(bytes.len());
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
