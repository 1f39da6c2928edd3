//! PDQ, the perceptual hash of pictures: full-size variant, equal to PyPI `pdqhash` 0.2.8 bit for bit (SIGNALS.md).
//!
//! Bits are decided by comparing floats, so the *order* of the float operations is part of the algorithm: every sum
//! here is taken in the order of the reference, in `f32`, without fused multiply-add. What is ours is when and where
//! things happen. The reference filters the whole picture four times (along rows, along columns, and both again) and
//! then keeps 64 x 64 pixels. Here a tile of 16 x 16 pixels goes through three passes while it is in the nearest cache,
//! and only one window of rows waits for the rows below it; the last pass computes only the columns that are kept. A
//! running sum cannot be split, but sixteen of them can run side by side: those of sixteen rows, then, with the tile
//! transposed, those of sixteen columns.

mod fast;

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
/// The side of a tile: how many running sums go side by side. Eight would leave the adder waiting for itself; more do
/// not fit its registers.
const LANES: usize = 16;

const NOTHING: Pdq = Pdq { hash: [0; 32], quality: 0 };

/// PDQ of `rgb`: `height` rows of `width` pixels of three bytes.
///
/// # Panics
/// If `rgb` is not `width * height * 3` bytes long: a bug of the caller.
pub fn pdq(width: u32, height: u32, rgb: &[u8]) -> Pdq {
    let Some(picture) = Picture::new(width, height, rgb) else { return NOTHING };
    // A picture of exactly the reduced size is taken as it is; the reference does not blur it.
    let blur = (picture.width, picture.height) != (SIDE, SIDE);
    let (spectrum, quality) = fast::spectrum(&picture, blur);
    Pdq { hash: bits_above_median(&spectrum), quality }
}

/// PDQ of the picture in its eight positions: as it is, turned by 90, 180 and 270 degrees, flipped along x, along y,
/// along the diagonal and along the other one. Costs little more than one hash.
///
/// The reference blurs here also what has the reduced size already, so of a picture of 64 x 64 pixels the first is not
/// always what [`pdq`] gives.
///
/// # Panics
/// As [`pdq`].
pub fn pdq_dihedral(width: u32, height: u32, rgb: &[u8]) -> [Pdq; 8] {
    let Some(picture) = Picture::new(width, height, rgb) else { return [NOTHING; 8] };
    let (spectrum, quality) = fast::spectrum(&picture, true);
    POSITIONS.map(|position| Pdq { hash: bits_above_median(&position.of(&spectrum)), quality })
}

/// A position, by what it does to the frequencies: those that are odd in the direction of a mirror change their sign.
struct Position {
    swap_axes: bool,
    mirror_rows: bool,
    mirror_columns: bool,
}

impl Position {
    const fn new(swap_axes: bool, mirror_rows: bool, mirror_columns: bool) -> Self {
        Self { swap_axes, mirror_rows, mirror_columns }
    }

    fn of(&self, spectrum: &Spectrum) -> Spectrum {
        array::from_fn(|i| {
            array::from_fn(|j| {
                let (i, j) = if self.swap_axes { (j, i) } else { (i, j) };
                // The first frequency kept is the first odd one.
                let mirrored = (self.mirror_rows && i % 2 == 0) != (self.mirror_columns && j % 2 == 0);
                if mirrored { -spectrum[i][j] } else { spectrum[i][j] }
            })
        })
    }
}

/// In the order of the reference.
const POSITIONS: [Position; 8] = [
    Position::new(false, false, false),
    Position::new(true, false, true),
    Position::new(false, true, true),
    Position::new(true, true, false),
    Position::new(false, true, false),
    Position::new(false, false, true),
    Position::new(true, false, false),
    Position::new(true, true, true),
];

type Square = [[f32; SIDE]; SIDE];
type Spectrum = [[f32; FREQUENCIES]; FREQUENCIES];
/// One value of each of sixteen rows or columns that are filtered side by side.
type Across = [f32; LANES];
type Tile = [Across; LANES];

/// Pixels that are enough for a hash.
#[derive(Clone, Copy)]
struct Picture<'a> {
    width: usize,
    height: usize,
    rgb: &'a [u8],
}

impl<'a> Picture<'a> {
    fn new(width: u32, height: u32, rgb: &'a [u8]) -> Option<Self> {
        let (width, height) = (width as usize, height as usize);
        assert_eq!(rgb.len(), width * height * 3, "the pixels do not fill {width} x {height}");
        (width >= SIDE_MIN && height >= SIDE_MIN).then_some(Self { width, height, rgb })
    }

    /// The lowest frequencies and the quality. `fast` has this compiled for every kind of machine.
    #[inline(always)]
    fn spectrum(&self, blur: bool) -> (Spectrum, u8) {
        let square = if blur { self.reduced() } else { self.unfiltered() };
        (lowest_frequencies(&square), quality(&square))
    }

    #[inline(always)]
    fn unfiltered(&self) -> Square {
        let mut square = [[0.0; SIDE]; SIDE];
        for (pixel, luma) in self.rgb.as_chunks().0.iter().zip(square.as_flattened_mut()) {
            *luma = luma_of(pixel);
        }
        square
    }

    /// Blurs twice and keeps 64 x 64 pixels.
    #[inline(always)]
    fn reduced(&self) -> Square {
        let mut first = Blur::new(self.width, self.height);
        let mut second = ColumnPass::new(SIDE, self.height);
        let mut sink = Sink::new(self.height);
        let lead = second.filter.lead;
        // Below the last row, windows shrink: both passes along columns give their last rows `lead` rows late.
        for top in (0..self.height + 2 * lead).step_by(LANES) {
            let mut kept = first.band(self, top);
            let early = lead.saturating_sub(top);
            let Some(late) = kept[0].get(early..).map(|_rows| top + early - lead) else { continue };
            for (tile, rows) in kept.iter_mut().enumerate() {
                second.filter(tile, late, &mut rows[early..]);
            }
            for lane in early..LANES {
                if let Some(at) = (late + lane - early).checked_sub(lead) {
                    sink.row(at, &kept, lane);
                }
            }
        }
        sink.square
    }

    /// Luminance of the pixels of the tile at (`left`, `top`), row by row; 0 outside.
    #[inline(always)]
    fn tile(&self, left: usize, top: usize) -> Tile {
        let mut tile = [[0.0; LANES]; LANES];
        let across = (self.width - left).min(LANES);
        for (row, y) in tile.iter_mut().zip(top..self.height) {
            let pixels = self.rgb[(y * self.width + left) * 3..][..across * 3].as_chunks().0;
            if let Ok(pixels) = <&[_; LANES]>::try_from(pixels) {
                // As below, but of a length that the compiler knows.
                *row = array::from_fn(|x| luma_of(&pixels[x]));
            } else {
                row.iter_mut().zip(pixels).for_each(|(luma, pixel)| *luma = luma_of(pixel));
            }
        }
        tile
    }
}

/// The Python binding computes 0.299 r + 0.587 g + 0.114 b in `f64` and rounds to `f32` once. Its error is far smaller
/// than the distance of any such thousandth from the middle between two floats, so the rounded quotient is the same.
#[inline(always)]
fn luma_of(&[r, g, b]: &[u8; 3]) -> f32 {
    let thousandths = i32::from(r) * 299 + i32::from(g) * 587 + i32::from(b) * 114;
    thousandths as f32 / 1000.0
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
}

/// The first three passes: along rows, along columns, along rows.
struct Blur {
    first: RowPass,
    columns: ColumnPass,
    second: RowPass,
    /// Of the first pass, until a tile of them is full: two tiles, in turn.
    means: [Tile; 2],
    keep: [usize; SIDE],
}

impl Blur {
    fn new(width: usize, height: usize) -> Self {
        Self {
            first: RowPass::new(width),
            columns: ColumnPass::new(width, height),
            second: RowPass::new(width),
            means: [[[0.0; LANES]; LANES]; 2],
            keep: kept(width),
        }
    }

    /// Takes the sixteen rows at `top` and gives the kept columns of those that end in them: four tiles, row by row.
    #[inline(always)]
    fn band(&mut self, picture: &Picture<'_>, top: usize) -> [Tile; SIDE / LANES] {
        let mut kept = [[0.0; LANES]; SIDE];
        let mut next = 0;
        self.first.start();
        self.second.start();
        while self.second.taken < picture.width {
            let wanted = (self.second.taken + LANES).min(picture.width);
            while self.first.given() < wanted {
                self.begin_tile(picture, top);
            }
            self.finish_tile(top, &mut kept, &mut next);
        }
        let keep = &self.keep;
        self.second.finish(usize::MAX, |at, sums, count| keep_column(keep, &mut next, &mut kept, at, sums, count));
        let tiles = kept.as_chunks::<LANES>().0;
        array::from_fn(|tile| transposed(&tiles[tile]))
    }

    /// The first pass of the next tile, or, beyond the last, of nothing; it never gives more than sixteen columns.
    #[inline(always)]
    fn begin_tile(&mut self, picture: &Picture<'_>, top: usize) {
        let means = self.means.as_flattened_mut();
        let emit = |at, sums: &Across, count| means[at % (2 * LANES)] = mean(sums, count);
        match picture.width.checked_sub(self.first.taken) {
            Some(across @ 1..) => {
                let columns = transposed(&picture.tile(self.first.taken, top));
                self.first.push(&columns[..across.min(LANES)], emit);
            }
            _ => self.first.finish(LANES, emit),
        }
    }

    /// The second and third pass of the next tile.
    #[inline(always)]
    fn finish_tile(&mut self, top: usize, kept: &mut [Across; SIDE], next: &mut usize) {
        let tile = self.second.taken / LANES;
        let across = (self.second.filter.length - self.second.taken).min(LANES);
        let mut rows = transposed(&self.means[tile % 2]);
        self.columns.filter(tile, top, &mut rows);
        let keep = &self.keep;
        self.second.push(&transposed(&rows)[..across], |at, sums, count| {
            keep_column(keep, next, kept, at, sums, count);
        });
    }
}

#[inline(always)]
fn keep_column(
    keep: &[usize; SIDE],
    next: &mut usize,
    kept: &mut [Across; SIDE],
    at: usize,
    sums: &Across,
    count: f32,
) {
    // A picture narrower than the square gives a column more than once.
    while keep.get(*next) == Some(&at) {
        kept[*next] = mean(sums, count);
        *next += 1;
    }
}

#[inline(always)]
fn mean(sums: &Across, count: f32) -> Across {
    sums.map(|sum| sum / count)
}

#[inline(always)]
fn add(sums: &mut Across, new: &Across) {
    sums.iter_mut().zip(new).for_each(|(sum, new)| *sum += new);
}

/// Taken away after the new one was added, with a rounding each: adding the difference at once would be another filter.
#[inline(always)]
fn take_away(sums: &mut Across, old: &Across) {
    sums.iter_mut().zip(old).for_each(|(sum, old)| *sum -= old);
}

#[inline(always)]
fn transposed(tile: &Tile) -> Tile {
    array::from_fn(|x| array::from_fn(|y| tile[y][x]))
}

/// The box filter along sixteen rows at once, fed with columns.
struct RowPass {
    filter: BoxFilter,
    /// The last `window` columns and the next sixteen, in a ring.
    ring: Vec<Across>,
    taken: usize,
    sums: Across,
}

impl RowPass {
    fn new(width: usize) -> Self {
        let filter = BoxFilter::new(width);
        let ring = vec![[0.0; LANES]; (filter.window.div_ceil(LANES) + 1) * LANES];
        Self { filter, ring, taken: 0, sums: [0.0; LANES] }
    }

    fn start(&mut self) {
        (self.taken, self.sums) = (0, [0.0; LANES]);
    }

    /// How many columns it gave.
    fn given(&self) -> usize {
        self.taken.saturating_sub(self.filter.lead)
    }

    /// Takes up to sixteen columns; fewer only at the end. `emit` is called with the number of a column, its sums, and
    /// of how many values these are.
    #[inline(always)]
    fn push(&mut self, columns: &[Across], mut emit: impl FnMut(usize, &Across, f32)) {
        let BoxFilter { window, lead, .. } = self.filter;
        let place = self.taken % self.ring.len();
        self.ring[place..place + columns.len()].copy_from_slice(columns);
        // Not in `self`, so that they stay in registers.
        let mut sums = self.sums;
        let steady = self.taken >= window;
        let mut oldest = if steady { (self.taken - window) % self.ring.len() } else { 0 };
        for (at, column) in (self.taken..).zip(columns) {
            add(&mut sums, column);
            if steady || at >= window {
                take_away(&mut sums, &self.ring[oldest]);
                oldest = if oldest + 1 == self.ring.len() { 0 } else { oldest + 1 };
            }
            if steady || at >= lead {
                emit(at - lead, &sums, if steady { window } else { window.min(at + 1) } as f32);
            }
        }
        self.sums = sums;
        self.taken += columns.len();
    }

    /// Gives up to `count_max` of the last columns, whose windows shrink.
    #[inline(always)]
    fn finish(&mut self, count_max: usize, mut emit: impl FnMut(usize, &Across, f32)) {
        let BoxFilter { length, window, lead } = self.filter;
        for at in (self.taken..length + lead).take(count_max) {
            take_away(&mut self.sums, &self.ring[(at - window) % self.ring.len()]);
            emit(at - lead, &self.sums, (window - 1 - (at - length)) as f32);
            self.taken = at + 1;
        }
    }
}

/// The box filter along columns, fed with rows that are cut into pieces of sixteen: one running sum per column and one
/// window of rows.
struct ColumnPass {
    filter: BoxFilter,
    /// Piece after piece, of each the last `window` rows, in a ring.
    ring: Vec<Across>,
    sums: Vec<Across>,
}

impl ColumnPass {
    fn new(width: usize, height: usize) -> Self {
        let filter = BoxFilter::new(height);
        let pieces = width.div_ceil(LANES);
        Self { filter, ring: vec![[0.0; LANES]; pieces * filter.window], sums: vec![[0.0; LANES]; pieces] }
    }

    /// Takes `rows` of one piece, the first of which has the number `top`, and puts in their place the means of those
    /// `lead` rows above. Rows below the last are not looked at.
    #[inline(always)]
    fn filter(&mut self, piece: usize, top: usize, rows: &mut [Across]) {
        let BoxFilter { length, window, lead } = self.filter;
        let ring = &mut self.ring[piece * window..][..window];
        let mut sums = self.sums[piece];
        let mut slot = top % window;
        for (at, row) in (top..length + lead).zip(rows) {
            let oldest = &mut ring[slot];
            if at < length {
                add(&mut sums, row);
            }
            if at >= window {
                take_away(&mut sums, oldest);
            }
            *oldest = *row;
            let count = if at < length { window.min(at + 1) } else { window - 1 - (at - length) };
            *row = mean(&sums, count as f32);
            slot = if slot + 1 == window { 0 } else { slot + 1 };
        }
        self.sums[piece] = sums;
    }
}

/// Keeps 64 of the rows it is given.
struct Sink {
    square: Square,
    keep: [usize; SIDE],
    next: usize,
}

impl Sink {
    fn new(height: usize) -> Self {
        Self { square: [[0.0; SIDE]; SIDE], keep: kept(height), next: 0 }
    }

    /// Takes row `at` of the picture: row `lane` of four tiles.
    fn row(&mut self, at: usize, tiles: &[Tile; SIDE / LANES], lane: usize) {
        while self.keep.get(self.next) == Some(&at) {
            let pieces = self.square[self.next].as_chunks_mut::<LANES>().0;
            pieces.iter_mut().zip(tiles).for_each(|(piece, tile)| *piece = tile[lane]);
            self.next += 1;
        }
    }
}

/// How much changes from pixel to pixel. Each step is cut to a whole number, so that many faint ones count nothing.
#[inline(always)]
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

#[inline(always)]
fn step(u: f32, v: f32) -> u32 {
    let percent = (u - v) * 100.0 / 255.0;
    #[expect(clippy::cast_possible_truncation, reason = "cutting is part of the algorithm; at most 100")]
    (percent as i32).unsigned_abs()
}

/// Rows 1 to 16 of the 64-point cosine transform, by place, then frequency.
static COSINES: LazyLock<[[f32; FREQUENCIES]; SIDE]> = LazyLock::new(|| {
    #[expect(clippy::cast_possible_truncation, reason = "the reference rounds the scale to f32 before it is used")]
    let scale = f64::from((2.0f64 / 64.0).sqrt() as f32);
    array::from_fn(|j| {
        array::from_fn(|i| {
            let (frequency, place) = ((i + 1) as f64, (2 * j + 1) as f64);
            let cosine = (std::f64::consts::PI / 2.0 / 64.0 * frequency * place).cos();
            #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is part of the algorithm")]
            let value = (scale * cosine) as f32;
            value
        })
    })
});

#[inline(always)]
fn lowest_frequencies(square: &Square) -> Spectrum {
    let cosines = &*COSINES;
    array::from_fn(|frequency| {
        // Row after row: each column's sum is taken from top to bottom, all columns side by side.
        let mut columns = [0.0f32; SIDE];
        for (weights, row) in cosines.iter().zip(square) {
            for (sum, pixel) in columns.iter_mut().zip(row) {
                *sum += weights[frequency] * pixel;
            }
        }
        // From left to right, all frequencies side by side.
        let mut sums = [0.0f32; FREQUENCIES];
        for (weights, column) in cosines.iter().zip(columns) {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += column * weight;
            }
        }
        sums
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
    use std::io::Write as _;

    use super::*;
    use crate::hashing::drawn::{self, Kind};
    use crate::replica::exchange::Draw;
    use crate::replica::ids::{hex, sha256};

    /// Drawings that the reference was asked about: tests/vectors/README.md.
    const DRAWINGS: usize = 500;
    /// Of how many also in all positions.
    const IN_ALL_POSITIONS: usize = 40;

    /// The sizes at which something changes, then any. The larger ones are few: drawing them takes longer than hashing.
    fn drawings() -> Vec<(Kind, u32, u32, u32)> {
        const SIZES: [(u32, u32); 40] = [
            (1, 1),
            (4, 300),
            (300, 4),
            (5, 5),
            (5, 400),
            (400, 5),
            (16, 16),
            (17, 15),
            (63, 64),
            (64, 63),
            (64, 64),
            (65, 65),
            (127, 128),
            (128, 128),
            (129, 129),
            (128, 257),
            (255, 256),
            (256, 256),
            (257, 255),
            (384, 256),
            (640, 360),
            (512, 512),
            (333, 517),
            (517, 333),
            (800, 600),
            (1000, 31),
            (31, 1000),
            (1920, 64),
            (64, 1920),
            (1023, 257),
            (8192, 7),
            (7, 8192),
            (4097, 20),
            (20, 4097),
            (4224, 9),
            (6000, 17),
            (23, 5000),
            (2049, 65),
            (65, 2049),
            (48, 8000),
        ];
        let mut draw = Draw(7);
        let mut side = |below: u32| u32::try_from(5 + draw.below(u64::from(below))).unwrap();
        let rest = (SIZES.len()..DRAWINGS).map(|i| match i % 8 {
            0 => (side(500), side(300)),
            1 => (side(12), side(250)),
            2 => (side(250), side(12)),
            3 => (side(60), side(60)),
            _ => (side(160), side(160)),
        });
        let rest: Vec<_> = rest.collect();
        let sizes = SIZES.into_iter().chain(rest).enumerate();
        sizes.map(|(i, (width, height))| (Kind::ALL[i * 7 / 3 % 6], u32::try_from(i).unwrap(), width, height)).collect()
    }

    /// The kind, seed, width, height and the rest of a line.
    fn vector(line: &str) -> (Kind, u32, u32, u32, Vec<&str>) {
        let mut fields = line.split('\t');
        let kind = Kind::from_name(fields.next().unwrap()).unwrap();
        let [seed, width, height] = [(); 3].map(|()| fields.next().unwrap().parse().unwrap());
        (kind, seed, width, height, fields.collect())
    }

    #[test]
    fn hash_and_quality_equal_the_reference_bit_for_bit() {
        let lines = include_str!("../../tests/vectors/pdq-drawn.tsv").lines().filter(|line| !line.starts_with('#'));
        let mut drawings = drawings().into_iter();
        for line in lines {
            let (kind, seed, width, height, expected) = vector(line);
            assert_eq!(drawings.next(), Some((kind, seed, width, height)));
            let ours = pdq(width, height, drawn::drawing(kind, seed, width, height).as_raw());
            assert_eq!([&hex(&ours.hash), &ours.quality.to_string()[..]], expected[..], "{line}");
        }
        assert_eq!(drawings.next(), None);
    }

    #[test]
    fn all_positions_equal_the_reference_bit_for_bit() {
        let mut compared = 0;
        for line in include_str!("../../tests/vectors/pdq-dihedral.tsv").lines().filter(|line| !line.starts_with('#')) {
            let (kind, seed, width, height, expected) = vector(line);
            let ours = pdq_dihedral(width, height, drawn::drawing(kind, seed, width, height).as_raw());
            assert_eq!(ours.map(|position| hex(&position.hash))[..], expected[..], "{line}");
            compared += 1;
        }
        assert_eq!(compared, IN_ALL_POSITIONS);
    }

    #[test]
    #[ignore = "writes the pixels for scripts/pdq-vectors.py"]
    fn write_the_drawings() {
        let mut file =
            std::io::BufWriter::new(std::fs::File::create(std::env::var("STAYDOWN_DRAWINGS").unwrap()).unwrap());
        for (i, (kind, seed, width, height)) in drawings().into_iter().enumerate() {
            let positions = i % (DRAWINGS / IN_ALL_POSITIONS) == 10 && i < 490;
            writeln!(file, "{}\t{seed}\t{width}\t{height}\t{positions}", kind.name()).unwrap();
            file.write_all(drawn::drawing(kind, seed, width, height).as_raw()).unwrap();
        }
        file.flush().unwrap();
    }

    #[test]
    fn the_luminance_of_every_colour_is_that_of_the_python_binding() {
        let levels = || 0..=u8::MAX;
        for (r, g) in levels().flat_map(|r| levels().map(move |g| (r, g))) {
            let of_two = f64::from(r) * 0.299 + f64::from(g) * 0.587;
            for b in levels() {
                #[expect(clippy::cast_possible_truncation, reason = "as numpy does")]
                let theirs = (of_two + f64::from(b) * 0.114) as f32;
                assert!(luma_of(&[r, g, b]).to_bits() == theirs.to_bits(), "{r} {g} {b}");
            }
        }
    }

    #[test]
    fn the_cosines_are_the_same_on_every_machine() {
        let by_frequency = (0..FREQUENCIES).flat_map(|i| COSINES.iter().map(move |weights| weights[i]));
        let bytes: Vec<u8> = by_frequency.flat_map(f32::to_le_bytes).collect();
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
