//! PDQ, the perceptual hash of pictures: full-size variant, equal to PyPI `pdqhash` 0.2.8 bit for bit (SIGNALS.md).
//!
//! Bits are decided by comparing floats, so the *order* of the float operations is part of the algorithm: every sum
//! here is taken in the order of the reference, in `f32`, without fused multiply-add. What is ours is when things
//! happen. The reference filters the whole picture four times (along rows, along columns, and both again) and then
//! keeps 64 x 64 pixels. Here rows flow through the four passes one after the other, so that only one window of rows
//! is ever in memory, and the last two passes compute only the columns and rows that are kept.

use std::array;
use std::sync::LazyLock;

/// A PDQ hash and how much there was in the picture to hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pdq {
    /// 256 bits; the highest frequency first, as it is printed.
    pub hash: [u8; 32],
    /// 0 (flat) to 100. Below 50 a hash says little about its picture.
    pub quality: u8,
}

/// Below this many pixels on a side there is nothing to hash: all zero, quality 0.
const SIDE_MIN: usize = 5;
/// The picture is reduced to a square of this side.
const SIDE: usize = 64;
/// The lowest frequencies kept on each axis, without the constant one.
const FREQUENCIES: usize = 16;
/// Rows filtered side by side. A running sum waits for itself; eight of them keep the adder busy.
const LANES: usize = 8;

/// PDQ of `rgb`: `height` rows of `width` pixels of three bytes.
///
/// # Panics
/// If `rgb` is not `width * height * 3` bytes long: a bug of the caller.
pub fn pdq(width: u32, height: u32, rgb: &[u8]) -> Pdq {
    let (width, height) = (width as usize, height as usize);
    assert_eq!(rgb.len(), width * height * 3, "the pixels do not fill {width} x {height}");
    if width < SIDE_MIN || height < SIDE_MIN {
        return Pdq { hash: [0; 32], quality: 0 };
    }
    let square = if (width, height) == (SIDE, SIDE) { unfiltered(rgb) } else { reduce(width, height, rgb) };
    Pdq { hash: bits_above_median(&lowest_frequencies(&square)), quality: quality(&square) }
}

type Square = [[f32; SIDE]; SIDE];
type Spectrum = [[f32; FREQUENCIES]; FREQUENCIES];

/// A picture of exactly the reduced size is taken as it is; the reference does not blur it.
fn unfiltered(rgb: &[u8]) -> Square {
    let mut square = [[0.0; SIDE]; SIDE];
    for (row, pixels) in square.iter_mut().zip(rgb.chunks_exact(SIDE * 3)) {
        fill_luma(pixels, row);
    }
    square
}

/// Blurs twice and keeps 64 x 64 pixels.
fn reduce(width: usize, height: usize, rgb: &[u8]) -> Square {
    let row_box = BoxFilter::new(width);
    let keep = kept(width);
    let mut first = ColumnPass::new(width, height);
    let mut second = ColumnPass::new(SIDE, height);
    let mut sink = Sink::new(height);
    let mut luma = vec![0.0f32; LANES * width];
    let mut blurred = vec![0.0f32; LANES * width];
    let mut between = Lanes::new(width);

    for band in rgb.chunks(LANES * width * 3) {
        for (pixels, row) in band.chunks_exact(width * 3).zip(luma.chunks_exact_mut(width)) {
            fill_luma(pixels, row);
        }
        row_box.along_rows(&luma, &mut blurred);
        for row in blurred.chunks_exact(width).take(band.len() / (width * 3)) {
            first.push(row, |row| between.push(row, &row_box, &keep, |row| second.push(row, |row| sink.push(row))));
        }
    }
    first.finish(|row| between.push(row, &row_box, &keep, |row| second.push(row, |row| sink.push(row))));
    between.finish(&row_box, &keep, |row| second.push(row, |row| sink.push(row)));
    second.finish(|row| sink.push(row));
    sink.square
}

/// Luminance of one row of pixels, summed in `f64` and rounded once, as the Python binding does.
fn fill_luma(pixels: &[u8], row: &mut [f32]) {
    for (rgb, luma) in pixels.chunks_exact(3).zip(row) {
        let sum = f64::from(rgb[0]) * 0.299 + f64::from(rgb[1]) * 0.587 + f64::from(rgb[2]) * 0.114;
        #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is part of the algorithm")]
        {
            *luma = sum as f32;
        }
    }
}

/// The pixels kept of a side of `length`: the middles of 64 equal parts.
fn kept(length: usize) -> [usize; SIDE] {
    // (i + 1/2) * length / 64 in whole numbers; the reference's doubles are exact at these sizes.
    array::from_fn(|i| (2 * i + 1) * length / (2 * SIDE))
}

/// A running mean over a window that shrinks at both ends.
#[derive(Clone, Copy)]
struct BoxFilter {
    length: usize,
    window: usize,
    /// How many inputs are summed before the first output: half the window, rounded up when it is even.
    lead: usize,
}

impl BoxFilter {
    fn new(length: usize) -> Self {
        let window = length.div_ceil(2 * SIDE);
        Self { length, window, lead: (window + 2) / 2 - 1 }
    }

    /// Filters [`LANES`] rows along themselves.
    fn along_rows(&self, from: &[f32], into: &mut [f32]) {
        let from = lanes(from, self.length);
        let mut into = lanes_mut(into, self.length);
        self.run(&from, |at, means| {
            for (row, mean) in into.iter_mut().zip(means) {
                row[at] = mean;
            }
        });
    }

    /// As [`BoxFilter::along_rows`], keeping only the columns `keep`.
    fn along_rows_keeping(&self, from: &[f32], keep: &[usize; SIDE], into: &mut [f32]) {
        let from = lanes(from, self.length);
        let mut into = lanes_mut(into, SIDE);
        let mut next = 0;
        self.run(&from, |at, means| {
            // A picture narrower than the square gives a column more than once.
            while next < SIDE && keep[next] == at {
                for (row, mean) in into.iter_mut().zip(means) {
                    row[next] = mean;
                }
                next += 1;
            }
        });
    }

    #[inline(always)]
    fn run(&self, from: &[&[f32]; LANES], mut emit: impl FnMut(usize, [f32; LANES])) {
        let mut sums = [0.0f32; LANES];
        let mut count = 0.0f32;
        for at in 0..self.window {
            count += 1.0;
            for (sum, row) in sums.iter_mut().zip(from) {
                *sum += row[at];
            }
            if at >= self.lead {
                emit(at - self.lead, sums.map(|sum| sum / count));
            }
        }
        for at in self.window..self.length {
            for (sum, row) in sums.iter_mut().zip(from) {
                // Two roundings, in this order: adding the difference at once would be another filter.
                *sum += row[at];
                *sum -= row[at - self.window];
            }
            emit(at - self.lead, sums.map(|sum| sum / count));
        }
        for at in self.length..self.length + self.lead {
            count -= 1.0;
            for (sum, row) in sums.iter_mut().zip(from) {
                *sum -= row[at - self.window];
            }
            emit(at - self.lead, sums.map(|sum| sum / count));
        }
    }
}

fn lanes(rows: &[f32], length: usize) -> [&[f32]; LANES] {
    array::from_fn(|lane| &rows[lane * length..(lane + 1) * length])
}

fn lanes_mut(mut rows: &mut [f32], length: usize) -> [&mut [f32]; LANES] {
    array::from_fn(|_lane| {
        let (row, rest) = std::mem::take(&mut rows).split_at_mut(length);
        rows = rest;
        row
    })
}

/// Collects rows until [`LANES`] of them can be filtered together.
struct Lanes {
    rows: Vec<f32>,
    held: usize,
    filtered: Vec<f32>,
    width: usize,
}

impl Lanes {
    fn new(width: usize) -> Self {
        Self { rows: vec![0.0; LANES * width], held: 0, filtered: vec![0.0; LANES * SIDE], width }
    }

    fn push(&mut self, row: &[f32], filter: &BoxFilter, keep: &[usize; SIDE], emit: impl FnMut(&[f32])) {
        self.rows[self.held * self.width..][..self.width].copy_from_slice(row);
        self.held += 1;
        if self.held == LANES {
            self.finish(filter, keep, emit);
        }
    }

    fn finish(&mut self, filter: &BoxFilter, keep: &[usize; SIDE], emit: impl FnMut(&[f32])) {
        filter.along_rows_keeping(&self.rows, keep, &mut self.filtered);
        self.filtered.chunks_exact(SIDE).take(self.held).for_each(emit);
        self.held = 0;
    }
}

/// The box filter along columns, fed with rows: one running sum per column and one window of rows.
struct ColumnPass {
    filter: BoxFilter,
    width: usize,
    /// The last `window` rows, in a ring.
    ring: Vec<f32>,
    pushed: usize,
    sums: Vec<f32>,
    mean: Vec<f32>,
}

impl ColumnPass {
    fn new(width: usize, height: usize) -> Self {
        let filter = BoxFilter::new(height);
        Self {
            filter,
            width,
            ring: vec![0.0; filter.window * width],
            pushed: 0,
            sums: vec![0.0; width],
            mean: vec![0.0; width],
        }
    }

    fn push(&mut self, row: &[f32], mut emit: impl FnMut(&[f32])) {
        let oldest = &mut self.ring[self.pushed % self.filter.window * self.width..][..self.width];
        if self.pushed < self.filter.window {
            for (sum, new) in self.sums.iter_mut().zip(row) {
                *sum += new;
            }
        } else {
            for ((sum, new), old) in self.sums.iter_mut().zip(row).zip(oldest.iter()) {
                *sum += new;
                *sum -= old;
            }
        }
        oldest.copy_from_slice(row);
        self.pushed += 1;
        if self.pushed > self.filter.lead {
            self.emit_mean(self.pushed.min(self.filter.window), &mut emit);
        }
    }

    /// The last rows, whose windows shrink.
    fn finish(&mut self, mut emit: impl FnMut(&[f32])) {
        for gone in 1..=self.filter.lead {
            let slot = (self.pushed + gone - 1) % self.filter.window;
            let oldest = &self.ring[slot * self.width..][..self.width];
            for (sum, old) in self.sums.iter_mut().zip(oldest) {
                *sum -= old;
            }
            self.emit_mean(self.filter.window - gone, &mut emit);
        }
    }

    fn emit_mean(&mut self, count: usize, emit: &mut impl FnMut(&[f32])) {
        let count = count as f32;
        for (mean, sum) in self.mean.iter_mut().zip(&self.sums) {
            *mean = sum / count;
        }
        emit(&self.mean);
    }
}

/// Keeps 64 of the rows it is given.
struct Sink {
    square: Square,
    keep: [usize; SIDE],
    seen: usize,
    next: usize,
}

impl Sink {
    fn new(height: usize) -> Self {
        Self { square: [[0.0; SIDE]; SIDE], keep: kept(height), seen: 0, next: 0 }
    }

    fn push(&mut self, row: &[f32]) {
        while self.next < SIDE && self.keep[self.next] == self.seen {
            self.square[self.next].copy_from_slice(row);
            self.next += 1;
        }
        self.seen += 1;
    }
}

/// How much changes from pixel to pixel. Each step is cut to a whole number, so that many faint ones count nothing.
fn quality(square: &Square) -> u8 {
    let mut sum = 0;
    for (i, row) in square.iter().enumerate() {
        if let Some(below) = square.get(i + 1) {
            sum += row.iter().zip(below).map(|(&u, &v)| step(u, v)).sum::<u32>();
        }
        sum += row.windows(2).map(|pair| step(pair[0], pair[1])).sum::<u32>();
    }
    u8::try_from((sum / 90).min(100)).unwrap_or(100)
}

fn step(u: f32, v: f32) -> u32 {
    let percent = (u - v) * 100.0 / 255.0;
    #[expect(clippy::cast_possible_truncation, reason = "cutting is part of the algorithm; at most 100")]
    (percent as i32).unsigned_abs()
}

/// Rows 1 to 16 of the 64-point cosine transform.
static COSINES: LazyLock<[[f32; SIDE]; FREQUENCIES]> = LazyLock::new(|| {
    #[expect(clippy::cast_possible_truncation, reason = "the reference rounds the scale to f32 before it is used")]
    let scale = f64::from((2.0f64 / 64.0).sqrt() as f32);
    array::from_fn(|i| {
        array::from_fn(|j| {
            let (frequency, place) = ((i + 1) as f64, (2 * j + 1) as f64);
            let cosine = (std::f64::consts::PI / 2.0 / 64.0 * frequency * place).cos();
            #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is part of the algorithm")]
            let value = (scale * cosine) as f32;
            value
        })
    })
});

fn lowest_frequencies(square: &Square) -> Spectrum {
    let cosines = &*COSINES;
    let mut half = [[0.0f32; SIDE]; FREQUENCIES];
    for (sums, weights) in half.iter_mut().zip(cosines) {
        // Row after row: each column's sum is taken from top to bottom, all columns side by side.
        for (weight, row) in weights.iter().zip(square) {
            for (sum, pixel) in sums.iter_mut().zip(row) {
                *sum += weight * pixel;
            }
        }
    }
    array::from_fn(|i| {
        array::from_fn(|j| half[i].iter().zip(&cosines[j]).fold(0.0, |sum, (value, weight)| sum + value * weight))
    })
}

/// One bit per frequency: is it above the lower median of all?
fn bits_above_median(spectrum: &Spectrum) -> [u8; 32] {
    let values = spectrum.as_flattened();
    let mut sorted: Vec<f32> = values.to_vec();
    let (_, &mut median, _) = sorted.select_nth_unstable_by(values.len() / 2 - 1, f32::total_cmp);
    let mut hash = [0; 32];
    for (bit, _) in values.iter().enumerate().filter(|(_, value)| **value > median) {
        hash[31 - bit / 8] |= 1 << (bit % 8);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hashing::drawn;
    use crate::replica::ids::{hex, sha256};

    #[test]
    fn hash_and_quality_equal_the_reference_bit_for_bit() {
        let mut compared = 0;
        for line in include_str!("../../tests/vectors/pdq-drawn.tsv").lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<&str> = line.split('\t').collect();
            let [kind, seed, width, height, hash, quality] = fields[..] else { panic!("six fields: {line}") };
            let (width, height) = (width.parse().unwrap(), height.parse().unwrap());
            let pixels = match kind {
                "poster" => drawn::poster(seed.parse().unwrap(), width, height).into_raw(),
                "flat" => vec![seed.parse().unwrap(); width as usize * height as usize * 3],
                other => panic!("no such drawing: {other}"),
            };
            let ours = pdq(width, height, &pixels);
            assert_eq!((hex(&ours.hash).as_str(), ours.quality.to_string().as_str()), (hash, quality), "{line}");
            compared += 1;
        }
        assert_eq!(compared, 40);
    }

    #[test]
    fn the_cosines_are_the_same_on_every_machine() {
        let bytes: Vec<u8> = COSINES.as_flattened().iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(hex(&sha256(&[&bytes])), "db354678fc6c99b7d442c35d8e89b002b71cb35eff6ae436c5f36392277a83c8");
    }

    #[test]
    fn too_small_a_picture_has_no_hash() {
        let nothing = Pdq { hash: [0; 32], quality: 0 };
        assert_eq!(pdq(0, 0, &[]), nothing);
        assert_eq!(pdq(4, 100, &[9; 1200]), nothing);
        assert_eq!(pdq(100, 4, &[9; 1200]), nothing);
    }

    #[test]
    #[should_panic(expected = "the pixels do not fill 10 x 10")]
    fn missing_pixels_are_a_bug_of_the_caller() {
        pdq(10, 10, &[0; 299]);
    }
}
