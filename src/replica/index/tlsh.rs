//! Finding documents whose TLSH is near to a given one. The answer equals brute force.
//!
//! A TLSH is a header (the length on a logarithmic scale, two ratios of quartiles, a checksum) and 128 pairs of bits, and
//! its distance is a sum over these parts. So the header alone is a lower bound: the index is ordered by it, and a
//! query at distance 30 reads only what is within two steps of its own length. Of that, most falls by its ratios,
//! and most of the rest after half of its pairs. Documents are thousands, not millions; a list on which
//! everything has one header costs some ten nanoseconds for each.

use std::collections::BinaryHeap;

use super::sorted::Sorted;

/// A TLSH as it stands in a subject: the 70 hexadecimal digits after `T1`, as bytes.
pub type Tlsh = [u8; 35];

/// Two documents at most this far apart count as the same.
pub const TLSH_DISTANCE_MAX: u32 = 30;

/// What one step of length or ratio costs, from the second on.
const STEP: u32 = 12;

/// All TLSH that are listed. The writer's side.
#[derive(Clone, Debug, Default)]
pub struct TlshIndex {
    entries: Sorted<Entry, ()>,
    len: usize,
}

/// The index as it was at one moment, to be searched without holding anything up.
#[derive(Clone, Debug, Default)]
pub struct TlshSnapshot {
    entries: Sorted<Entry, ()>,
}

/// In the order of the index: by length, then by ratios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    length: u8,
    ratios: u8,
    checksum: u8,
    pairs: [u64; 4],
}

impl TlshIndex {
    /// Adds a TLSH; false if it is there.
    pub fn insert(&mut self, tlsh: &Tlsh) -> bool {
        let is_new = self.entries.insert(Entry::new(tlsh), ()).is_none();
        self.len += usize::from(is_new);
        is_new
    }

    /// Takes a TLSH away; false if it was not there.
    pub fn remove(&mut self, tlsh: &Tlsh) -> bool {
        let was_there = self.entries.remove(&Entry::new(tlsh)).is_some();
        self.len -= usize::from(was_there);
        was_there
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The index as it is now; costs a pointer.
    pub fn snapshot(&self) -> TlshSnapshot {
        TlshSnapshot { entries: self.entries.clone() }
    }
}

impl TlshSnapshot {
    /// The TLSH within `threshold` of `query`, nearest first, then by value; at most `limit`, the nearest.
    pub fn near(&self, query: &Tlsh, threshold: u32, limit: usize) -> Vec<(u32, Tlsh)> {
        let query = Entry::new(query);
        let mut nearest = Nearest { heap: BinaryHeap::new(), limit };
        let ratios: [u32; 256] = std::array::from_fn(|ratios| ratio_distance(query.ratios, ratios.to_le_bytes()[0]));
        for length in 0..=u8::MAX {
            let apart = length_distance(query.length, length);
            if apart > threshold {
                continue;
            }
            for entry in self.of_length(length) {
                let apart = apart + ratios[usize::from(entry.ratios)] + u32::from(query.checksum != entry.checksum);
                if apart <= threshold && apart + pairs_distance(&query.pairs[..2], &entry.pairs[..2]) <= threshold {
                    nearest.add(apart + pairs_distance(&query.pairs, &entry.pairs), threshold, entry);
                }
            }
        }
        nearest.into_sorted()
    }

    fn of_length(&self, length: u8) -> impl Iterator<Item = &Entry> {
        let first = Entry { length, ratios: 0, checksum: 0, pairs: [0; 4] };
        self.entries.from(&first).map(|(entry, ())| entry).take_while(move |entry| entry.length == length)
    }
}

/// How far two TLSH are apart, with their lengths: 0 for equal ones, some hundreds for unrelated ones.
pub fn distance(a: &Tlsh, b: &Tlsh) -> u32 {
    let (a, b) = (Entry::new(a), Entry::new(b));
    length_distance(a.length, b.length)
        + ratio_distance(a.ratios, b.ratios)
        + u32::from(a.checksum != b.checksum)
        + pairs_distance(&a.pairs, &b.pairs)
}

impl Entry {
    fn new(tlsh: &Tlsh) -> Self {
        let [checksum, length, ratios, pairs @ ..] = tlsh;
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(pairs.as_chunks().0) {
            *word = u64::from_be_bytes(*bytes);
        }
        // Checksum and length are written with their digits exchanged; that of the checksum plays no part.
        Self { length: length.rotate_left(4), ratios: *ratios, checksum: *checksum, pairs: words }
    }

    fn tlsh(&self) -> Tlsh {
        let mut tlsh = [0; 35];
        tlsh[..3].copy_from_slice(&[self.checksum, self.length.rotate_left(4), self.ratios]);
        for (bytes, word) in tlsh[3..].as_chunks_mut().0.iter_mut().zip(self.pairs) {
            *bytes = word.to_be_bytes();
        }
        tlsh
    }
}

/// The nearest so far.
struct Nearest {
    heap: BinaryHeap<(u32, Entry)>,
    limit: usize,
}

impl Nearest {
    fn add(&mut self, apart: u32, threshold: u32, entry: &Entry) {
        if apart > threshold {
            return;
        }
        self.heap.push((apart, *entry));
        if self.heap.len() > self.limit {
            self.heap.pop();
        }
    }

    fn into_sorted(self) -> Vec<(u32, Tlsh)> {
        let mut all: Vec<_> = self.heap.into_iter().map(|(apart, entry)| (apart, entry.tlsh())).collect();
        all.sort_unstable();
        all
    }
}

/// On a ring of 256 lengths.
fn length_distance(a: u8, b: u8) -> u32 {
    let steps = u32::from(a.wrapping_sub(b).min(b.wrapping_sub(a)));
    if steps <= 1 { steps } else { steps * STEP }
}

/// Of both ratios, a digit each, on rings of 16.
fn ratio_distance(a: u8, b: u8) -> u32 {
    let one = |a: u8, b: u8| {
        let steps = u32::from((a.wrapping_sub(b) & 15).min(b.wrapping_sub(a) & 15));
        if steps <= 1 { steps } else { (steps - 1) * STEP }
    };
    one(a >> 4, b >> 4) + one(a & 15, b & 15)
}

/// Over pairs of bits, each a number from 0 to 3: by how much they differ, and 6 for 0 beside 3.
fn pairs_distance(a: &[u64], b: &[u64]) -> u32 {
    const LOW: u64 = 0x5555_5555_5555_5555;
    const PAIRS: u64 = 0x3333_3333_3333_3333;
    const NIBBLES: u64 = 0x0f0f_0f0f_0f0f_0f0f;
    // Eight sums side by side, of at most 24 a word: they fit their bytes.
    let bytes = a.iter().zip(b).fold(0, |sum, (a, b)| {
        let (low, high) = ((a ^ b) & LOW, (a ^ b) >> 1 & LOW);
        let both = low & high;
        let far = both & !(a ^ a >> 1); // 0 beside 3, not 1 beside 2
        let near = (low ^ far) & !(high ^ both) | (high ^ both) << 1; // 1 or 2
        let nibbles = (near & PAIRS) + (near >> 2 & PAIRS) + 6 * ((far & PAIRS) + (far >> 2 & PAIRS));
        sum + (nibbles & NIBBLES) + (nibbles >> 4 & NIBBLES)
    });
    bytes.to_le_bytes().map(u32::from).iter().sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Straight from the definition.
    fn slow(a: &Tlsh, b: &Tlsh) -> u32 {
        const PAIR: [[u32; 4]; 4] = [[0, 1, 2, 6], [1, 0, 1, 2], [2, 1, 0, 1], [6, 2, 1, 0]];
        let ring = |a: u8, b: u8, size: i32| (i32::from(a) - i32::from(b)).rem_euclid(size);
        let apart = |a, b, size| u32::try_from(ring(a, b, size).min(ring(b, a, size))).unwrap();
        let length = apart(a[1].rotate_left(4), b[1].rotate_left(4), 256);
        let ratio = |shift: u8| match apart(a[2] >> shift & 15, b[2] >> shift & 15, 16) {
            steps @ 0..=1 => steps,
            steps => (steps - 1) * 12,
        };
        let pair = |at: usize| {
            let of = |tlsh: &Tlsh| usize::from(tlsh[3 + at / 4] >> (at % 4 * 2) & 3);
            PAIR[of(a)][of(b)]
        };
        let length = if length <= 1 { length } else { length * 12 };
        length + ratio(0) + ratio(4) + u32::from(a[0] != b[0]) + (0..128).map(pair).sum::<u32>()
    }

    fn digest(text: &str) -> Tlsh {
        let digits = text.strip_prefix("T1").unwrap();
        data_encoding::HEXUPPER.decode(digits.as_bytes()).unwrap().try_into().unwrap()
    }

    /// Hashes near to each other in every part, from few bytes.
    fn tlsh(seed: [u8; 6]) -> Tlsh {
        let mut tlsh = [0x6c; 35];
        tlsh[0] = seed[0] & 1;
        tlsh[1] = (seed[1] & 7).wrapping_sub(3).rotate_left(4);
        tlsh[2] = seed[2] & 0x73;
        for (at, byte) in seed[3..].iter().enumerate() {
            tlsh[3 + at * 13] ^= byte;
        }
        tlsh
    }

    #[test]
    fn distances_are_those_of_py_tlsh() {
        let mut hashes = std::collections::BTreeMap::new();
        let mut pairs = 0;
        for line in include_str!("../../../tests/vectors/tlsh.tsv").lines().filter(|line| !line.starts_with('#')) {
            match line.split('\t').collect::<Vec<_>>()[..] {
                ["document", _, _, "none"] => {}
                ["document", number, _, text] => assert!(hashes.insert(number, digest(text)).is_none()),
                ["pair", a, b, expected] => {
                    assert_eq!(distance(&hashes[a], &hashes[b]).to_string(), expected, "{a} {b}");
                    pairs += 1;
                }
                _ => panic!("{line}"),
            }
        }
        assert!(pairs > 400);
    }

    #[test]
    fn the_threshold_is_inclusive_and_the_nearest_come_first() {
        let (query, mut index) = ([0x11; 35], TlshIndex::default());
        let with = |places: &[(usize, u8)]| {
            let mut tlsh = query;
            places.iter().for_each(|(at, byte)| tlsh[*at] = *byte);
            tlsh
        };
        let far = with(&[(1, 0x31), (3, 0x10), (4, 0x10), (5, 0x10), (6, 0x10), (7, 0x10), (8, 0x10)]); // 24 + 6
        let further = with(&[(0, 0x12), (1, 0x31), (3, 0x10), (4, 0x10), (5, 0x10), (6, 0x10), (7, 0x10), (8, 0x10)]);
        let near = with(&[(34, 0x13)]);
        for tlsh in [far, further, near, query] {
            assert!(index.insert(&tlsh) && !index.insert(&tlsh));
        }
        let snapshot = index.snapshot();
        assert_eq!(snapshot.near(&query, 30, 9), [(0, query), (2, near), (30, far)]);
        assert_eq!(snapshot.near(&query, 31, 9).len(), 4);
        assert_eq!(snapshot.near(&query, 31, 2), [(0, query), (2, near)]);
        assert!(index.remove(&query) && !index.remove(&query));
        assert_eq!((index.len(), index.snapshot().near(&query, 0, 9)), (3, vec![]));
        assert_eq!(snapshot.near(&query, 0, 9), [(0, query)], "a snapshot stays as it was");
    }

    proptest! {
        #[test]
        fn a_distance_is_what_the_definition_says(a in any::<[u8; 32]>(), b in any::<[u8; 32]>(), c in any::<[u8; 6]>()) {
            let whole = |of: [u8; 32], c: &[u8]| {
                let mut tlsh = [0; 35];
                tlsh[..3].copy_from_slice(c);
                tlsh[3..].copy_from_slice(&of);
                tlsh
            };
            let (a, b) = (whole(a, &c[..3]), whole(b, &c[3..]));
            prop_assert_eq!(distance(&a, &b), slow(&a, &b));
            prop_assert_eq!(distance(&b, &a), slow(&a, &b));
            prop_assert_eq!(Entry::new(&a).tlsh(), a);
        }

        #[test]
        fn the_answer_equals_brute_force(
            steps in proptest::collection::vec((any::<bool>(), any::<[u8; 6]>()), 0..1_500),
            query in any::<[u8; 6]>(),
            threshold in 0_u32..60,
        ) {
            let (mut index, mut expected) = (TlshIndex::default(), BTreeSet::new());
            let mut held = Vec::new();
            for (remove, seed) in steps {
                let tlsh = tlsh(seed);
                if remove && !expected.is_empty() {
                    let nearest: Tlsh = *expected.range(tlsh..).next().unwrap_or(expected.first().unwrap());
                    prop_assert!(index.remove(&nearest) && expected.remove(&nearest));
                } else {
                    prop_assert_eq!(index.insert(&tlsh), expected.insert(tlsh));
                }
                held = vec![index.snapshot()];
            }
            let query = tlsh(query);
            let mut near: Vec<_> = expected.iter().map(|tlsh| (slow(&query, tlsh), *tlsh)).collect();
            near.retain(|(apart, _)| *apart <= threshold);
            near.sort_unstable();
            prop_assert_eq!(index.len(), expected.len());
            prop_assert_eq!(&index.snapshot().near(&query, threshold, usize::MAX), &near);
            near.truncate(3);
            prop_assert_eq!(index.snapshot().near(&query, threshold, 3).len(), near.len());
            drop(held);
        }
    }
}
