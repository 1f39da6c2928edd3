//! Pictures that the program draws itself, for `demo` and for tests: nobody has to hold harmful or borrowed material.
//!
//! Whole-number arithmetic only: a seed gives the same pixels on every machine, so hashes of them can be written down.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{ImageFormat, Rgb, RgbImage, imageops};

use super::image::ImageError;

/// Longest side drawn, in pixels; longer ones are cut to it.
pub const SIDE_MAX: u32 = 8192;

/// JPEG quality of [`altered_copy`]: what a messenger does to a picture.
const COPY_QUALITY: u8 = 70;

/// Coordinates and noise run in 16-bit fractions.
const ONE: i64 = 1 << 16;

/// An abstract poster: a gradient, soft shapes and rough textures. Any two seeds look different; any size shows the
/// same poster.
pub fn poster(seed: u32, width: u32, height: u32) -> RgbImage {
    let (width, height) = (width.min(SIDE_MAX), height.min(SIDE_MAX));
    let plan = Plan::new(seed);
    RgbImage::from_fn(width, height, |x, y| {
        let across = |at: u32, side: u32| (2 * i64::from(at) + 1) * ONE / (2 * i64::from(side));
        Rgb(plan.colour_at(across(x, width), across(y, height)))
    })
}

/// What [`drawing`] draws: pictures that a poster never is, for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`poster`].
    Poster,
    /// One grey level all over: the last byte of the seed.
    Flat,
    /// Every channel of every pixel for itself.
    Noise,
    /// From dark to bright, a little, once across.
    Ramp,
    /// Hard edges between two colours, slanting.
    Stripes,
    /// A poster with hardly any contrast left.
    Faint,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Poster, Self::Flat, Self::Noise, Self::Ramp, Self::Stripes, Self::Faint];

    /// In small letters, as it stands in tests/vectors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Poster => "poster",
            Self::Flat => "flat",
            Self::Noise => "noise",
            Self::Ramp => "ramp",
            Self::Stripes => "stripes",
            Self::Faint => "faint",
        }
    }

    /// The inverse of [`Kind::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A picture of `kind`. Any seed gives another one; a side above [`SIDE_MAX`] is cut to it.
pub fn drawing(kind: Kind, seed: u32, width: u32, height: u32) -> RgbImage {
    let (width, height) = (width.min(SIDE_MAX), height.min(SIDE_MAX));
    let draws = mixed(u64::from(seed) + 1).to_be_bytes();
    match kind {
        Kind::Poster => poster(seed, width, height),
        Kind::Flat => RgbImage::from_pixel(width, height, Rgb([seed.to_le_bytes()[0]; 3])),
        Kind::Noise => RgbImage::from_fn(width, height, |x, y| {
            let [r, g, b, ..] = mixed(u64::from(seed) << 32 ^ u64::from(y) << 16 ^ u64::from(x)).to_be_bytes();
            Rgb([r, g, b])
        }),
        Kind::Ramp => RgbImage::from_fn(width, height, |x, y| {
            let [across, down] =
                [(draws[0], x, width), (draws[1], y, height)].map(|(rise, at, side)| u32::from(rise) / 2 * at / side);
            Rgb([draws[2], draws[3], draws[4]].map(|v| u8::try_from(u32::from(v) + across + down).unwrap_or(u8::MAX)))
        }),
        Kind::Stripes => RgbImage::from_fn(width, height, |x, y| {
            let [period, slope] = [draws[0], draws[1]].map(|v| u32::from(v % 64) + 2);
            let colour = if (x + y * slope / 16) % period < period / 2 { &draws[2..5] } else { &draws[5..8] };
            Rgb([colour[0], colour[1], colour[2]])
        }),
        Kind::Faint => {
            let mut image = poster(seed, width, height);
            image.iter_mut().for_each(|v| *v = *v / (draws[0] % 24 + 2) + draws[1] / 2);
            image
        }
    }
}

/// What a copy of `image` looks like after a few hands: 1 % cut off each side, scaled to 70 %, saved again as JPEG.
///
/// # Errors
/// [`ImageError::Damaged`] if there is no pixel left.
pub fn altered_copy(image: &RgbImage) -> Result<Vec<u8>, ImageError> {
    let (dx, dy) = (image.width() / 100, image.height() / 100);
    let (width, height) = (image.width() - 2 * dx, image.height() - 2 * dy);
    let cropped = imageops::crop_imm(image, dx, dy, width, height).to_image();
    jpeg_bytes(&scaled(&cropped, width * 7 / 10, height * 7 / 10), COPY_QUALITY)
}

/// `image` as a PNG file.
///
/// # Errors
/// [`ImageError::Damaged`] if it has no pixels.
pub fn png_bytes(image: &RgbImage) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|e| ImageError::Damaged { format: "PNG", reason: e.to_string() })?;
    Ok(bytes.into_inner())
}

/// `image` as a JPEG file of `quality` 1 to 100.
///
/// # Errors
/// [`ImageError::Damaged`] if it has no pixels, or a side above 65,535.
pub fn jpeg_bytes(image: &RgbImage, quality: u8) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality.clamp(1, 100))
        .encode_image(image)
        .map_err(|e| ImageError::Damaged { format: "JPEG", reason: e.to_string() })?;
    Ok(bytes)
}

/// Each new pixel is the mean of the old ones that it covers.
fn scaled(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let span = |at: u32, new: u32, old: u32| {
        let start = u64::from(at) * u64::from(old) / u64::from(new);
        let end = (u64::from(at + 1) * u64::from(old)).div_ceil(u64::from(new));
        (u32::try_from(start).unwrap_or(0), u32::try_from(end).unwrap_or(old))
    };
    RgbImage::from_fn(width, height, |x, y| {
        let ((left, right), (top, bottom)) = (span(x, width, image.width()), span(y, height, image.height()));
        let mut sums = [0u32; 3];
        for (old_x, old_y) in (top..bottom).flat_map(|old_y| (left..right).map(move |old_x| (old_x, old_y))) {
            for (sum, value) in sums.iter_mut().zip(image.get_pixel(old_x, old_y).0) {
                *sum += u32::from(value);
            }
        }
        let count = (right - left) * (bottom - top);
        Rgb(sums.map(|sum| u8::try_from((sum + count / 2) / count).unwrap_or(u8::MAX)))
    })
}

/// Everything about a poster that its seed decides.
struct Plan {
    seed: u64,
    corners: [[i64; 3]; 4],
    shapes: [Shape; Self::SHAPES],
}

/// A soft-edged ellipse.
struct Shape {
    x: i64,
    y: i64,
    radius_x: i64,
    radius_y: i64,
    colour: [i64; 3],
}

impl Plan {
    const SHAPES: usize = 10;
    /// Cells of noise on a side, and how strong each is (of 255). Coarse noise decides the hash and survives a
    /// copy; the finer ones are texture.
    const NOISE: [(i64, i64); 4] = [(5, 110), (9, 90), (14, 70), (60, 16)];

    fn new(seed: u32) -> Self {
        let seed = u64::from(seed) + 1;
        let mut draws = (0u64..).map(|i| mixed(seed ^ (i << 40)));
        let mut below = |n: i64| (draws.next().unwrap_or(0) >> 33).cast_signed() % n;
        let mut colour = || [below(256), below(256), below(256)];
        let corners = [colour(), colour(), colour(), colour()];
        let shapes = std::array::from_fn(|_shape| Shape {
            colour: [below(256), below(256), below(256)],
            x: below(ONE),
            y: below(ONE),
            radius_x: ONE / 16 + below(ONE / 5),
            radius_y: ONE / 16 + below(ONE / 5),
        });
        Self { seed, corners, shapes }
    }

    /// The colour at a place; `x` and `y` run from 0 to [`ONE`].
    fn colour_at(&self, x: i64, y: i64) -> [u8; 3] {
        let mut colour: [i64; 3] = std::array::from_fn(|channel| {
            let [a, b, c, d] = self.corners.map(|corner| corner[channel]);
            between(between(a, b, x), between(c, d, x), y)
        });
        for shape in &self.shapes {
            let cover = shape.cover(x, y);
            for (value, of_shape) in colour.iter_mut().zip(shape.colour) {
                *value = between(*value, of_shape, cover);
            }
        }
        let noise: i64 = Self::NOISE.iter().map(|&(cells, strength)| (self.noise(cells, x, y) * strength) >> 16).sum();
        colour.map(|value| u8::try_from((value * 3 / 5 + 51 + noise).clamp(0, 255)).unwrap_or(0))
    }

    /// Smooth noise between -[`ONE`] and [`ONE`]: random values on a lattice, blended between.
    fn noise(&self, cells: i64, x: i64, y: i64) -> i64 {
        let (x, y) = (x * cells, y * cells);
        let (column, row) = (x >> 16, y >> 16);
        let (right, down) = (smooth(x & (ONE - 1)), smooth(y & (ONE - 1)));
        let knot = |column: i64, row: i64| {
            let place = (cells << 32 | row << 16 | column).cast_unsigned();
            (mixed(self.seed.rotate_left(48) ^ place) >> 47).cast_signed() - ONE
        };
        let above = between(knot(column, row), knot(column + 1, row), right);
        let below = between(knot(column, row + 1), knot(column + 1, row + 1), right);
        between(above, below, down)
    }
}

impl Shape {
    /// How much of what lies under it the shape covers: 0 outside, up to 3/4 of [`ONE`] in the middle.
    fn cover(&self, x: i64, y: i64) -> i64 {
        let (dx, dy) = ((x - self.x) * ONE / self.radius_x, (y - self.y) * ONE / self.radius_y);
        let inside = (ONE - ((dx * dx + dy * dy) >> 16)).clamp(0, ONE / 3) * 3;
        smooth(inside.min(ONE)) * 3 / 4
    }
}

/// From `a` to `b` as `part` goes from 0 to [`ONE`].
fn between(a: i64, b: i64, part: i64) -> i64 {
    a + (((b - a) * part) >> 16)
}

/// 3t^2 - 2t^3: starts and ends flat.
fn smooth(t: i64) -> i64 {
    let squared = (t * t) >> 16;
    (squared * (3 * ONE - 2 * t)) >> 16
}

/// A fixed stirring of 64 bits; not for secrets.
fn mixed(value: u64) -> u64 {
    let mut v = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    v = (v ^ (v >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    v = (v ^ (v >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    v ^ (v >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hashing::{Pdq, hash_bytes, pdq};
    use crate::replica::ids::{hex, sha256};
    use crate::replica::signal::{PDQ_DISTANCE_MAX, distance};

    fn pdq_of(image: &RgbImage) -> Pdq {
        pdq(image.width(), image.height(), image.as_raw())
    }

    #[test]
    fn a_seed_gives_the_same_pixels_on_every_machine() {
        assert_eq!(
            hex(&sha256(&[poster(7, 321, 123).as_raw()])),
            "edcd39f91e63df8aede895a924480cc9adf5548c66bfc33b3e1718e7e3ef3a4f"
        );
    }

    #[test]
    fn posters_have_full_quality_and_are_far_apart() {
        let drawn: Vec<Pdq> = (0..32).map(|seed| pdq_of(&poster(seed, 256, 192))).collect();
        assert!(drawn.iter().all(|poster| poster.quality == 100));
        for (i, a) in drawn.iter().enumerate() {
            for (j, b) in drawn.iter().enumerate().take(i) {
                assert!(distance(&a.hash, &b.hash) > 80, "seeds {i} and {j}");
            }
        }
    }

    #[test]
    fn an_altered_copy_is_still_the_same_picture() {
        for seed in 0..16 {
            let original = poster(seed, 512, 384);
            let copy = hash_bytes(&altered_copy(&original).unwrap()).unwrap().image.unwrap();
            let apart = distance(&pdq_of(&original).hash, &copy.hash);
            assert!((1..=PDQ_DISTANCE_MAX).contains(&apart), "seed {seed}: {apart} bits apart");
        }
    }

    #[test]
    fn a_png_keeps_every_pixel() {
        let image = poster(3, 61, 47);
        let bytes = png_bytes(&image).unwrap();
        assert_eq!(crate::hashing::image::decode(ImageFormat::Png, &bytes).unwrap(), image);
    }

    #[test]
    fn sides_have_limits_and_no_pixels_are_no_file() {
        assert_eq!(poster(0, SIDE_MAX + 1, 1).dimensions(), (SIDE_MAX, 1));
        assert_eq!(poster(0, 0, 5).dimensions(), (0, 5));
        assert!(altered_copy(&poster(0, 1, 1)).is_err());
        assert!(png_bytes(&RgbImage::new(0, 0)).is_err());
    }
}
