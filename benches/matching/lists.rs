//! Generated lists and queries: a seed gives the same ones on every machine.

use std::fmt;

use staydown::replica::index::Pdq;

/// Bits of a hash.
const BITS: usize = 256;
/// Distances at which queries are planted, 0 included: all that the index answers without a scan.
const DISTANCES: usize = 32;
/// Most versions of one picture in a correlated list. Few enough that no answer is cut off.
const VERSIONS_MAX: u64 = 512;
/// Most bits in which a version differs from the first one: some are too far away to be found.
const VERSION_DISTANCE_MAX: u64 = 40;
/// Entries of the hostile list that vary in three words only, in tenths.
const HOT_TENTHS: usize = 3;

/// What a list is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Every bit is a coin of its own.
    Random,
    /// As lists of pictures are. A bit of a hash is the sign of one frequency, and neighbouring frequencies of real
    /// pictures agree more often than not: each bit is drawn like the one to its left, or like the one above, with probability 1/4 each. Half
    /// of the pictures stand alone. The others have 2 to 512 versions (half as many pictures for each doubling), each
    /// version 1 to 40 bits away from the first.
    Correlated,
    /// As a hostile member would make it: three entries in ten equal but for three 16-bit words (SIGNALS.md).
    Hot,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Random => "random",
            Self::Correlated => "correlated",
            Self::Hot => "hot",
        })
    }
}

/// `SplitMix64`: small, good enough, and the same for ever.
pub(crate) struct Seeded(u64);

impl Seeded {
    /// The stream of `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        u64::try_from((u128::from(self.next()) * u128::from(end)) >> 64).unwrap()
    }

    /// A place in something of `len` things.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    /// 256 bits.
    pub(crate) fn bits(&mut self) -> Pdq {
        let mut hash = [0; 32];
        hash.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&self.next().to_le_bytes()));
        hash
    }

    /// `hash` with exactly `distance` bits turned.
    fn near(&mut self, hash: &Pdq, distance: u64) -> Pdq {
        self.near_beyond(0, hash, distance)
    }

    /// `hash` with exactly `distance` bits turned, none of them among the first `kept`.
    fn near_beyond(&mut self, kept: usize, hash: &Pdq, distance: u64) -> Pdq {
        let mut turned = *hash;
        let mut left = distance;
        while left > 0 {
            let bit = kept + self.index(BITS - kept);
            if (turned[bit / 8] ^ hash[bit / 8]) >> (bit % 8) & 1 == 0 {
                turned[bit / 8] ^= 1 << (bit % 8);
                left -= 1;
            }
        }
        turned
    }

    /// Row by row of the 16 x 16 frequencies.
    fn picture(&mut self) -> Pdq {
        let mut hash = [0; 32];
        let mut above = low_word(self.next());
        for row in hash.chunks_exact_mut(2) {
            let [own, draw] = [self.next(), self.next()];
            let (fresh, left) = (low_word(own), low_word(own.rotate_left(1)));
            // Two fair coins a bit: 1/4 copies from above, 1/4 from the left.
            let (up, side) = (low_word(draw & (draw >> 16)), low_word(draw & !(draw >> 16)));
            let word = (above & up) | (left & side) | (fresh & !up & !side);
            row.copy_from_slice(&word.to_be_bytes());
            above = word;
        }
        hash
    }
}

fn low_word(bits: u64) -> u16 {
    u16::try_from(bits & 0xffff).unwrap()
}

/// Scatters the numbers 0, 1, 2, ... over 64 bits.
pub(crate) fn mixed(number: u64) -> u64 {
    let z = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `count` different hashes, in no order.
pub(crate) fn list(kind: Kind, count: usize, seed: u64) -> Vec<Pdq> {
    let mut seeded = Seeded::new(seed);
    let mut list = Vec::with_capacity(count);
    match kind {
        // 256 random bits do not meet twice.
        Kind::Random => list.extend((0..count).map(|_| seeded.bits())),
        Kind::Correlated => {
            while list.len() < count {
                versions(&mut seeded, count, &mut list);
            }
            shuffle(&mut seeded, &mut list);
        }
        Kind::Hot => {
            let base = hot_base(seed);
            let hot = (0..count / 10 * HOT_TENTHS).map(|number| varied(&base, number as u64));
            list.extend(hot);
            list.extend((list.len()..count).map(|_| seeded.bits()));
            shuffle(&mut seeded, &mut list);
        }
    }
    list
}

/// A picture and its versions, as far as there is room.
fn versions(seeded: &mut Seeded, count: usize, list: &mut Vec<Pdq>) {
    let first = list.len();
    let picture = seeded.picture();
    list.push(picture);
    let doublings = u64::from(seeded.next().trailing_ones()).min(u64::from(VERSIONS_MAX.ilog2()));
    let half = (1 << doublings) / 2;
    let end = first + usize::try_from(1 + half + seeded.below(half.max(1))).unwrap();
    while list.len() < end.min(count) {
        let distance = 1 + seeded.below(VERSION_DISTANCE_MAX);
        let version = seeded.near(&picture, distance);
        if !list[first..].contains(&version) {
            list.push(version);
        }
    }
}

fn shuffle(seeded: &mut Seeded, list: &mut [Pdq]) {
    for end in (1..list.len()).rev() {
        let other = seeded.index(end + 1);
        list.swap(end, other);
    }
}

/// What the hot entries have in common.
fn hot_base(seed: u64) -> Pdq {
    Seeded::new(!seed).bits()
}

/// The first three words are a number of 48 bits, scattered, so that no two are equal.
fn varied(base: &Pdq, number: u64) -> Pdq {
    let mut hash = *base;
    // An odd factor maps 48 bits one to one.
    let word = number.wrapping_mul(0x9e37_79b9_7f4b) & 0xffff_ffff_ffff;
    hash[..6].copy_from_slice(&word.to_be_bytes()[2..]);
    hash
}

/// Half of the queries are strangers of the same kind, half are a listed hash with 0, 1, ... 31, 0, ... bits turned.
pub(crate) fn queries(kind: Kind, list: &[Pdq], count: usize, seed: u64) -> Vec<Pdq> {
    let mut seeded = Seeded::new(seed);
    let query = |number: usize| match (number.is_multiple_of(2), kind) {
        (true, Kind::Correlated) => seeded.picture(),
        (true, _) => seeded.bits(),
        (false, _) => {
            let listed = list[seeded.index(list.len())];
            seeded.near(&listed, (number / 2 % DISTANCES) as u64)
        }
    };
    (0..count).map(query).collect()
}

/// What would hurt most on the hot list: its entries and what is close to them; the same with more bits turned than
/// the threshold, so that nothing is found; and strangers that share some of the words which are equal in all entries.
pub(crate) fn hot_queries(count: usize, seed: u64) -> Vec<(&'static str, Vec<Pdq>)> {
    let base = hot_base(seed);
    let mut seeded = Seeded::new(seed.rotate_left(7));
    let mut kind = |name, mut query: Box<dyn FnMut(&mut Seeded) -> Pdq>| {
        (name, (0..count).map(|_| query(&mut seeded)).collect::<Vec<_>>())
    };
    let sharing = |words: usize| {
        move |seeded: &mut Seeded| {
            let mut query = seeded.bits();
            query[32 - 2 * words..].copy_from_slice(&base[32 - 2 * words..]);
            query
        }
    };
    let turned = |bits: u64| {
        move |seeded: &mut Seeded| {
            let hot = varied(&base, seeded.next());
            seeded.near_beyond(48, &hot, bits)
        }
    };
    vec![
        kind("entries", Box::new(turned(0))),
        kind("8 bits away", Box::new(turned(8))),
        kind("32 bits away", Box::new(turned(32))),
        kind("1 word shared", Box::new(sharing(1))),
        kind("4 words shared", Box::new(sharing(4))),
        kind("8 words shared", Box::new(sharing(8))),
    ]
}
