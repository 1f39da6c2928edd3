//! Which exact subjects may be listed: digests, URLs, accounts, and what is only carried. One look into memory says
//! "certainly not" or "probably"; the view, which holds the whole subject, has the last word on the second.
//!
//! What is kept of a subject is a fingerprint of 64 bits: SipHash-1-3 of the whole subject under the node's own key.
//! Members choose digests freely and can give any number of them one prefix, or one place in a table whose hash they
//! know. They cannot aim at a key that they do not know, so fingerprints are spread evenly whatever is listed, and a
//! table needs no defence against crowding. Two listed subjects still share one in some 2^64 pairs; then both copies
//! are kept, so that taking one away leaves the other.
//!
//! The fingerprints stand in `SHARDS` open tables of cache lines, by their upper bits. A lookup reads one line, rarely
//! two. The writer changes tables in place, one word at a time, while readers look: a word is empty, taken or left, and
//! never becomes empty while another's chain leads over it, so a reader misses nothing that stays. A table that is full
//! is replaced by a larger one; only [`ExactIndex::freeze`] makes a table stand still, and then its next change is made
//! in a copy.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::replica::ids::sha256;
use crate::replica::signal::{Alg, Subject};

/// Tables of one index. At ten million subjects each holds ten thousand: replacing one takes some 50 microseconds, the
/// longest that an insertion holds the writer up.
const SHARDS: usize = 1 << SHARD_BITS;
const SHARD_BITS: u32 = 10;
/// Words of a cache line.
const LINE: usize = 8;
/// A table is replaced when more than this part of its words are taken or left. A lookup that has to read a second line
/// waits for memory twice: at a half that is one in twenty, at three quarters it would be one in four.
const LOAD_MAX: (usize, usize) = (1, 2);
/// Below this many lines a table doubles, from there it grows by a quarter: a list of thousands is soon at its size,
/// one of millions wastes little.
const DOUBLING_LINES_MAX: usize = 64;
/// Longest chain that a file may need, in words. Under its own key none comes near: what needs more is not ours, and
/// would cost its square to read.
const FILE_CHAIN_MAX: usize = 1_024;
/// Subjects of a batch whose first words are fetched before any is compared: as many as a core has misses under way,
/// twice over.
const AHEAD: usize = 32;

/// No fingerprint stands or stood here: a search ends.
const EMPTY: u64 = 0;
/// One stood here: a search goes on.
const LEFT: u64 = 1;

/// First bytes of a written index: name and version of the format.
const MAGIC: &[u8; 16] = b"staydown-exact-1";

/// Whether a subject is found by equality, and so belongs here: every kind but those that are compared by distance.
/// Kinds that this release only carries can be asked for as they are.
pub fn is_exact(subject: &Subject) -> bool {
    !matches!(subject.known_alg(), Some(Alg::Pdq | Alg::Tlsh | Alg::Vpdq))
}

/// The writer's side. Inserting and removing take under a microsecond, and what they do is seen by snapshots at once.
#[derive(Debug)]
pub struct ExactIndex {
    key: [u8; 32],
    tables: Vec<Arc<Table>>,
    /// Of each table, whether a frozen snapshot holds it, so that it must not change any more.
    frozen: Vec<bool>,
    len: usize,
    published: Option<Arc<[Arc<Table>]>>,
}

/// The reader's side: what the index held when this was taken, and of what came and went since perhaps this, perhaps
/// that. Taken again after every published change, it is never behind. One from [`ExactIndex::freeze`] never changes.
#[derive(Clone, Debug)]
pub struct ExactSnapshot {
    key: [u8; 32],
    tables: Arc<[Arc<Table>]>,
}

/// Why bytes are no index. Nothing was made of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamagedIndex {
    /// They begin with something else.
    #[error("is no index of exact subjects of this release")]
    Foreign,
    /// They were written under another key, and say nothing under ours.
    #[error("was written under another key")]
    OtherKey,
    /// They are shorter or longer than they say, or hold what no index writes.
    #[error("is damaged at byte {at}")]
    Damaged {
        /// Counted from 0.
        at: usize,
    },
}

impl ExactIndex {
    /// An empty index. `key` is secret and random, the same for every index whose bytes are to be read again.
    pub fn new(key: [u8; 32]) -> Self {
        let none = Arc::new(Table::with_lines(0));
        Self { key, tables: vec![none; SHARDS], frozen: vec![false; SHARDS], len: 0, published: None }
    }

    /// An index of all these; as with [`Self::insert`], each stands among them once.
    pub fn from_subjects<'a>(key: [u8; 32], subjects: impl IntoIterator<Item = &'a Subject>) -> Self {
        let mut index = Self::new(key);
        for subject in subjects {
            index.insert(subject);
        }
        index
    }

    /// Adds a subject, which the caller knows to be new: one that is added twice has to be removed twice. False, and
    /// nothing is added, if it is none that is found by equality.
    pub fn insert(&mut self, subject: &Subject) -> bool {
        let exact = is_exact(subject);
        if exact {
            self.put(fingerprint(&self.key, subject));
        }
        exact
    }

    /// Takes a subject away; false if it was not there.
    pub fn remove(&mut self, subject: &Subject) -> bool {
        if !is_exact(subject) {
            return false;
        }
        let word = fingerprint(&self.key, subject);
        let shard = shard_of(word);
        if !self.tables[shard].contains(word) {
            return false;
        }
        self.thaw(shard);
        self.tables[shard].take(word);
        self.len -= 1;
        true
    }

    /// Number of subjects.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory that it takes, in bytes; tables that only old snapshots hold are not counted.
    pub fn bytes(&self) -> usize {
        let tables: usize = self.tables.iter().map(|table| size_of::<Table>() + size_of_val(&*table.lines)).sum();
        tables + SHARDS * (2 * size_of::<Arc<Table>>() + size_of::<bool>())
    }

    /// For readers; to be taken after every published change. Costs a pointer, or some microseconds when a table has
    /// been replaced since the last.
    pub fn snapshot(&mut self) -> ExactSnapshot {
        let tables = self.published.get_or_insert_with(|| self.tables.as_slice().into());
        ExactSnapshot { key: self.key, tables: Arc::clone(tables) }
    }

    /// A snapshot that never changes, to be written to disk. As long as it lives, each table that changes is copied
    /// once: up to twice the memory.
    pub fn freeze(&mut self) -> ExactSnapshot {
        self.frozen.fill(true);
        self.snapshot()
    }

    /// What [`ExactSnapshot::write_to`] wrote under the same key.
    ///
    /// # Errors
    /// [`DamagedIndex`]; whatever the bytes are.
    pub fn read_from(key: [u8; 32], bytes: &[u8]) -> Result<Self, DamagedIndex> {
        let mut reader = Reader { bytes, at: 0 };
        if reader.take(MAGIC.len()).map_err(|_short| DamagedIndex::Foreign)? != MAGIC {
            return Err(DamagedIndex::Foreign);
        }
        if reader.take(16)? != key_check(&key) {
            return Err(DamagedIndex::OtherKey);
        }
        let mut index = Self::new(key);
        for shard in 0..SHARDS {
            let words = reader.words()?;
            index.tables[shard] = Arc::new(reader.table(shard, words)?);
            index.len += words.len() / size_of::<u64>();
        }
        if reader.at == bytes.len() { Ok(index) } else { Err(DamagedIndex::Damaged { at: reader.at }) }
    }

    fn put(&mut self, word: u64) {
        let shard = shard_of(word);
        if self.tables[shard].is_full() {
            let roomy = self.tables[shard].grown();
            self.replace(shard, roomy);
        } else {
            self.thaw(shard);
        }
        self.tables[shard].add(word);
        self.len += 1;
    }

    /// Sees to it that a table may be changed.
    fn thaw(&mut self, shard: usize) {
        if self.frozen[shard] {
            let copy = self.tables[shard].copied(self.tables[shard].lines.len());
            self.replace(shard, copy);
        }
    }

    fn replace(&mut self, shard: usize, table: Table) {
        self.tables[shard] = Arc::new(table);
        self.frozen[shard] = false;
        self.published = None;
    }
}

impl ExactSnapshot {
    /// Whether the subject is listed: false is certain, true is to be looked up in the view.
    pub fn may_contain(&self, subject: &Subject) -> bool {
        if !is_exact(subject) {
            return false;
        }
        let word = fingerprint(&self.key, subject);
        self.tables[shard_of(word)].contains(word)
    }

    /// The same of many at once, in their order. Their words are fetched together, so that a batch costs less than its
    /// lookups one after the other.
    pub fn may_contain_many(&self, subjects: &[Subject]) -> Vec<bool> {
        let mut found = Vec::with_capacity(subjects.len());
        for some in subjects.chunks(AHEAD) {
            let mut words = [EMPTY; AHEAD];
            for (word, subject) in words.iter_mut().zip(some) {
                *word = fingerprint(&self.key, subject);
            }
            let words = &words[..some.len()];
            // None of these reads waits for another: the core has all their misses under way at once.
            let first = words.iter().fold(EMPTY, |all, &word| all ^ self.tables[shard_of(word)].first(word));
            std::hint::black_box(first);
            let here =
                |(subject, &word): (&Subject, &u64)| is_exact(subject) && self.tables[shard_of(word)].contains(word);
            found.extend(some.iter().zip(words).map(here));
        }
        found
    }

    /// Writes it, table by table; what is written says nothing to who has not the key. Of a frozen snapshot only: of
    /// another it is the state of no one moment.
    ///
    /// # Errors
    /// As `sink` has them.
    pub fn write_to(&self, sink: &mut impl io::Write) -> io::Result<()> {
        sink.write_all(MAGIC)?;
        sink.write_all(&key_check(&self.key))?;
        let mut bytes = Vec::new();
        for table in self.tables.iter() {
            bytes.clear();
            bytes.extend(table.words().flat_map(u64::to_le_bytes));
            let count = (bytes.len() / size_of::<u64>()) as u64;
            sink.write_all(&count.to_le_bytes())?;
            sink.write_all(&bytes)?;
        }
        Ok(())
    }
}

/// Words in lines, probed one after the other from the beginning of the word's own line.
#[derive(Debug)]
struct Table {
    lines: Box<[Line]>,
    /// Words that are not [`EMPTY`]. Only the writer reads and writes it.
    used: AtomicU64,
    /// Words that are neither empty nor left.
    taken: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; LINE]);

impl Table {
    fn with_lines(lines: usize) -> Self {
        let lines = (0..lines).map(|_| Line::default()).collect();
        Self { lines, used: AtomicU64::new(0), taken: AtomicU64::new(0) }
    }

    /// Roomy enough for `taken` words.
    fn for_words(taken: usize) -> Self {
        let mut lines = 0;
        while taken > most(lines) {
            lines = larger(lines);
        }
        Self::with_lines(lines)
    }

    fn is_full(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= most(self.lines.len()) as u64
    }

    /// A larger copy, or one of the same size if much of this is only left.
    fn grown(&self) -> Self {
        let lines = self.lines.len();
        let crowded = self.taken.load(Ordering::Relaxed) >= (most(lines) - most(lines) / 8) as u64;
        self.copied(if crowded { larger(lines) } else { lines })
    }

    fn copied(&self, lines: usize) -> Self {
        let copy = Self::with_lines(lines);
        for word in self.words() {
            copy.add(word);
        }
        copy
    }

    fn words(&self) -> impl Iterator<Item = u64> {
        let all = self.lines.iter().flat_map(|line| &line.0).map(|word| word.load(Ordering::Relaxed));
        all.filter(|word| !matches!(*word, EMPTY | LEFT))
    }

    /// The first word of the word's own line; empty if there is no line.
    fn first(&self, word: u64) -> u64 {
        self.lines.get(self.home(word)).map_or(EMPTY, |line| line.0[0].load(Ordering::Relaxed))
    }

    /// Index of the word's own line: the bits below those of the shard, spread over any number of lines.
    fn home(&self, word: u64) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "the upper half of the product is below the line count")]
        let home = ((u128::from(word << SHARD_BITS) * self.lines.len() as u128) >> 64) as usize;
        home
    }

    fn contains(&self, word: u64) -> bool {
        // A table is never full, so that the search ends; one without lines is empty.
        for line in self.lines_of(word) {
            // Without a branch for each word: a wrong guess would cost more than the words.
            let (mut here, mut end) = (false, false);
            for at in &line.0 {
                let at = at.load(Ordering::Relaxed);
                here |= at == word;
                end |= at == EMPTY;
            }
            if here | end {
                return here;
            }
        }
        false
    }

    /// The lines from the word's own to the last, and from the first on.
    fn lines_of(&self, word: u64) -> impl Iterator<Item = &Line> {
        let (before, from) = self.lines.split_at(self.home(word));
        from.iter().chain(before)
    }

    /// Adds the word at the first place that is not taken and returns how far from home that is. There is room: the
    /// caller has asked [`Self::is_full`].
    fn add(&self, word: u64) -> usize {
        let (home, words) = (self.home(word) * LINE, self.lines.len() * LINE);
        for (chain, at) in (home..words).chain(0..home).enumerate() {
            let here = self.word(at);
            let before = here.load(Ordering::Relaxed);
            if matches!(before, EMPTY | LEFT) {
                here.store(word, Ordering::Relaxed);
                self.taken.fetch_add(1, Ordering::Relaxed);
                self.used.fetch_add(u64::from(before == EMPTY), Ordering::Relaxed);
                return chain;
            }
        }
        words
    }

    /// Takes the word away, which is there. If no chain leads further, its place is empty again, and so are those before
    /// it that were only left.
    fn take(&self, word: u64) {
        let (home, words) = (self.home(word) * LINE, self.lines.len() * LINE);
        let stands = |at: &usize| self.word(*at).load(Ordering::Relaxed) == word;
        let Some(mut at) = (home..words).chain(0..home).find(stands) else { return };
        self.taken.fetch_sub(1, Ordering::Relaxed);
        self.word(at).store(LEFT, Ordering::Relaxed);
        let is = |at: usize, what: u64| self.word(at).load(Ordering::Relaxed) == what;
        while is(at, LEFT) && is((at + 1) % words, EMPTY) {
            self.word(at).store(EMPTY, Ordering::Relaxed);
            self.used.fetch_sub(1, Ordering::Relaxed);
            at = (at + words - 1) % words;
        }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.lines[at / LINE].0[at % LINE]
    }
}

/// Words that so many lines may have before they are too full.
fn most(lines: usize) -> usize {
    lines * LINE * LOAD_MAX.0 / LOAD_MAX.1
}

fn larger(lines: usize) -> usize {
    match lines {
        0 => 1,
        1..DOUBLING_LINES_MAX => lines * 2,
        _ => lines + lines / 4,
    }
}

fn shard_of(word: u64) -> usize {
    (word >> (u64::BITS - SHARD_BITS)) as usize
}

/// Says which key a file belongs to without telling it.
fn key_check(key: &[u8; 32]) -> [u8; 16] {
    let digest = sha256(&[b"staydown/exact-index-key/v1\n", key]);
    std::array::from_fn(|at| digest[at])
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], DamagedIndex> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..len).ok_or(DamagedIndex::Damaged { at: self.at })?;
        self.at += len;
        Ok(taken)
    }

    /// The words of one table, as bytes; no more than there are.
    fn words(&mut self) -> Result<&'a [u8], DamagedIndex> {
        let damaged = DamagedIndex::Damaged { at: self.at };
        let count = self.take(size_of::<u64>())?;
        let count = u64::from_le_bytes(count.try_into().map_err(|_length| damaged)?);
        let len = usize::try_from(count).ok().and_then(|count| count.checked_mul(size_of::<u64>())).ok_or(damaged)?;
        self.take(len).map_err(|_short| damaged)
    }

    fn table(&self, shard: usize, words: &[u8]) -> Result<Table, DamagedIndex> {
        let words = words.as_chunks().0;
        let table = Table::for_words(words.len());
        for word in words {
            let word = u64::from_le_bytes(*word);
            let ours = shard_of(word) == shard && !matches!(word, EMPTY | LEFT);
            if !ours || table.add(word) > FILE_CHAIN_MAX {
                return Err(DamagedIndex::Damaged { at: self.at });
            }
        }
        Ok(table)
    }
}

/// SipHash-1-3 of the whole subject under the first half of the key, the function that keeps the hash tables of the
/// standard library from being aimed at; never [`EMPTY`] or [`LEFT`].
fn fingerprint(key: &[u8; 32], subject: &Subject) -> u64 {
    let half = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| key[at + byte]));
    let mut sip = Sip::new(half(0), half(8));
    sip.word(u64::from(subject.alg()) | u64::from(subject.kind()) << 16 | u64::from(subject.param()) << 32);
    let digest = subject.digest();
    let (words, rest) = digest.as_chunks();
    words.iter().for_each(|word| sip.word(u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    // As in SipHash, the last byte is the length (of everything, modulo 256), so that no subject is another's beginning.
    last[7] = digest.len().wrapping_add(8).to_le_bytes()[0];
    sip.word(u64::from_le_bytes(last));
    match sip.finish() {
        few @ (EMPTY | LEFT) => few + 2,
        many => many,
    }
}

struct Sip([u64; 4]);

impl Sip {
    fn new(k0: u64, k1: u64) -> Self {
        const CONSTANT: [u64; 4] =
            [0x736f_6d65_7073_6575, 0x646f_7261_6e64_6f6d, 0x6c79_6765_6e65_7261, 0x7465_6462_7974_6573];
        Self([CONSTANT[0] ^ k0, CONSTANT[1] ^ k1, CONSTANT[2] ^ k0, CONSTANT[3] ^ k1])
    }

    fn word(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.0[0] ^= word;
    }

    fn finish(mut self) -> u64 {
        self.0[2] ^= 0xff;
        self.round();
        self.round();
        self.round();
        let [v0, v1, v2, v3] = self.0;
        v0 ^ v1 ^ v2 ^ v3
    }

    fn round(&mut self) {
        let [v0, v1, v2, v3] = &mut self.0;
        *v0 = v0.wrapping_add(*v1);
        *v2 = v2.wrapping_add(*v3);
        *v1 = v1.rotate_left(13) ^ *v0;
        *v3 = v3.rotate_left(16) ^ *v2;
        *v0 = v0.rotate_left(32);
        *v2 = v2.wrapping_add(*v1);
        *v0 = v0.wrapping_add(*v3);
        *v1 = v1.rotate_left(17) ^ *v2;
        *v3 = v3.rotate_left(21) ^ *v0;
        *v2 = v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 32] = [7; 32];

    /// Some subject of each exact kind, and of those that no prefix tells apart.
    fn subject(number: u32) -> Subject {
        let bytes = number.to_be_bytes();
        let mut digest = [0xaa; 64];
        match number % 8 {
            // One prefix for all, as a hostile member makes them.
            0 => digest[28..32].copy_from_slice(&bytes),
            1 => digest[..4].copy_from_slice(&bytes),
            _ => digest[12..16].copy_from_slice(&bytes),
        }
        match number % 8 {
            0 | 1 => Subject::of(Alg::Sha256, &digest[..32]),
            2 => Subject::of(Alg::Md5, &digest[..16]),
            3 => Subject::of(Alg::Sha1, &digest[..20]),
            4 => Subject::of(Alg::Sha512, &digest),
            5 => Subject::of(Alg::Url, &digest[..32]),
            6 => Subject::new(3, 9, number, &digest[..32]),
            _ => Subject::new(1, 20 + u16::try_from(number % 3).unwrap(), 0, &digest[12..16 + number as usize % 40]),
        }
    }

    fn written(index: &mut ExactIndex) -> Vec<u8> {
        let mut bytes = Vec::new();
        index.freeze().write_to(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_fingerprint_is_siphash_of_the_subject() {
        // Against the standard library's SipHash-1-3, whose keys are 0.
        use std::hash::{DefaultHasher, Hasher};
        let subject = Subject::new(3, 9, 5, &[0xcd; 32]);
        let mut hasher = DefaultHasher::new();
        hasher.write(&[9, 0, 3, 0, 5, 0, 0, 0]);
        hasher.write(&[0xcd; 32]);
        assert_eq!(fingerprint(&[0; 32], &subject), hasher.finish());
        assert_ne!(fingerprint(&KEY, &subject), hasher.finish());
    }

    #[test]
    fn only_what_is_found_by_equality_is_kept() {
        let mut index = ExactIndex::new(KEY);
        for alg in [Alg::Pdq, Alg::Tlsh, Alg::Vpdq] {
            let near = Subject::of(alg, &vec![7; alg.digest_len().unwrap_or(37)]);
            assert!(!index.insert(&near) && !index.remove(&near) && !index.snapshot().may_contain(&near));
            assert_eq!(index.snapshot().may_contain_many(&[near]), [false]);
        }
        assert!(index.is_empty() && index.snapshot().may_contain_many(&[]).is_empty());
    }

    #[test]
    fn everything_that_differs_in_a_subject_tells_it_apart() {
        let mut index = ExactIndex::new(KEY);
        index.insert(&Subject::new(3, 9, 1, &[7; 32]));
        let snapshot = index.snapshot();
        assert!(snapshot.may_contain(&Subject::new(3, 9, 1, &[7; 32])));
        for other in [
            Subject::new(3, 9, 2, &[7; 32]),
            Subject::new(1, 4, 1, &[7; 32]),
            Subject::new(2, 9, 1, &[7; 32]),
            Subject::new(3, 9, 1, &[7; 31]),
        ] {
            assert!(!snapshot.may_contain(&other), "{other:?}");
        }
    }

    #[test]
    fn a_frozen_snapshot_stands_still_and_others_see_what_changes() {
        let mut index = ExactIndex::from_subjects(KEY, &(0..1_000).map(subject).collect::<Vec<_>>());
        let live = index.snapshot();
        let frozen = index.freeze();
        index.remove(&subject(3));
        index.insert(&subject(5_000));
        for snapshot in [index.snapshot(), index.freeze()] {
            assert!(!snapshot.may_contain(&subject(3)) && snapshot.may_contain(&subject(5_000)));
        }
        assert!(frozen.may_contain(&subject(3)) && !frozen.may_contain(&subject(5_000)));
        assert!(live.may_contain(&subject(4)), "what stays is seen by every snapshot");
    }

    #[test]
    fn one_that_is_added_twice_stays_until_it_is_removed_twice() {
        // As two subjects do that share a fingerprint.
        let mut index = ExactIndex::from_subjects(KEY, &[subject(1), subject(1)]);
        assert!(index.remove(&subject(1)) && index.snapshot().may_contain(&subject(1)));
        assert!(index.remove(&subject(1)) && !index.snapshot().may_contain(&subject(1)));
        assert!(!index.remove(&subject(1)) && index.is_empty());
    }

    #[test]
    fn readers_find_what_stays_while_others_come_and_go() {
        let mut index = ExactIndex::from_subjects(KEY, &(0..500).map(subject).collect::<Vec<_>>());
        let shown = std::sync::Mutex::new(index.snapshot());
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let stay: Vec<_> = (0..500).map(subject).collect();
                    while !done.load(Ordering::Relaxed) {
                        let snapshot = shown.lock().unwrap().clone();
                        assert!(stay.iter().all(|one| snapshot.may_contain(one)));
                        assert!(snapshot.may_contain_many(&stay).into_iter().all(|found| found));
                    }
                });
            }
            // Enough of them that tables are replaced, and places are emptied and taken again.
            for round in 0..20 {
                (500..6_000).for_each(|number| assert!(index.insert(&subject(number))));
                *shown.lock().unwrap() = if round % 5 == 0 { index.freeze() } else { index.snapshot() };
                (500..6_000).for_each(|number| assert!(index.remove(&subject(number))));
                *shown.lock().unwrap() = index.snapshot();
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(index.len(), 500);
    }

    #[test]
    fn subjects_that_come_and_go_take_no_room_for_ever() {
        let mut index = ExactIndex::from_subjects(KEY, &(0..10_000).map(subject).collect::<Vec<_>>());
        let before = index.bytes();
        for number in 10_000..110_000 {
            assert!(index.insert(&subject(number)) && index.remove(&subject(number - 10_000)));
        }
        assert_eq!(index.len(), 10_000);
        assert!(index.bytes() < before * 2, "{} of {before}", index.bytes());
        let snapshot = index.snapshot();
        assert!((100_000..110_000).all(|number| snapshot.may_contain(&subject(number))));
        assert!(!(0..100_000).any(|number| snapshot.may_contain(&subject(number))));
    }

    #[test]
    fn a_file_under_another_key_or_with_other_words_is_refused() {
        let mut index = ExactIndex::from_subjects(KEY, &(0..50_u32).map(subject).collect::<Vec<_>>());
        let bytes = written(&mut index);
        assert_eq!(ExactIndex::read_from([8; 32], &bytes).unwrap_err(), DamagedIndex::OtherKey);
        assert_eq!(ExactIndex::read_from(KEY, b"staydown").unwrap_err(), DamagedIndex::Foreign);
        for end in 16..bytes.len() {
            assert!(ExactIndex::read_from(KEY, &bytes[..end]).is_err(), "cut at {end}");
        }
        assert!(ExactIndex::read_from(KEY, &[&bytes[..], &[0]].concat()).is_err());
        let mut huge = bytes;
        huge[32..40].fill(0xff);
        assert_eq!(ExactIndex::read_from(KEY, &huge).unwrap_err(), DamagedIndex::Damaged { at: 32 });
    }

    #[test]
    fn a_file_of_one_word_a_million_times_is_refused_before_it_costs_anything() {
        let mut bytes = [&MAGIC[..], &key_check(&KEY)].concat();
        bytes.extend(1_000_000_u64.to_le_bytes());
        bytes.extend([2, 0, 0, 0, 0, 0, 0, 0].repeat(1_000_000));
        bytes.extend(vec![0; 8 * (SHARDS - 1)]);
        assert!(matches!(ExactIndex::read_from(KEY, &bytes), Err(DamagedIndex::Damaged { .. })));
    }

    proptest! {
        #[test]
        fn it_is_the_set_of_what_was_inserted_and_not_removed(
            steps in proptest::collection::vec((0_u8..10, 0_u32..400), 0..600),
            few in any::<bool>(),
        ) {
            let mut index = ExactIndex::new(KEY);
            let mut expected = BTreeSet::new();
            let mut frozen = None;
            for (step, number) in steps {
                // Some runs crowd a few tables, some spread.
                let number = if few { number % 24 } else { number };
                match step {
                    0..5 if expected.insert(number) => prop_assert!(index.insert(&subject(number))),
                    5..8 => prop_assert_eq!(index.remove(&subject(number)), expected.remove(&number)),
                    8 => frozen = Some((index.freeze(), expected.clone())),
                    9 => index = ExactIndex::read_from(KEY, &written(&mut index)).unwrap(),
                    _ => {}
                }
                prop_assert_eq!(index.len(), expected.len());
            }
            let asked: Vec<_> = (0..400).map(subject).collect();
            let truth: Vec<_> = (0..400).map(|number| expected.contains(&number)).collect();
            let snapshot = index.snapshot();
            prop_assert_eq!(&asked.iter().map(|one| snapshot.may_contain(one)).collect::<Vec<_>>(), &truth);
            prop_assert_eq!(snapshot.may_contain_many(&asked), truth);
            if let Some((snapshot, expected)) = frozen {
                let truth: Vec<_> = (0..400).map(|number| expected.contains(&number)).collect();
                prop_assert_eq!(snapshot.may_contain_many(&asked), truth);
            }
        }

        #[test]
        fn no_bytes_make_reading_panic(
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        ) {
            let mut index = ExactIndex::from_subjects(KEY, &(0..30).map(subject).collect::<Vec<_>>());
            let mut bytes = written(&mut index);
            for (at, byte) in flips {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(mut read) = ExactIndex::read_from(KEY, &bytes) {
                prop_assert!(read.len() <= bytes.len() / 8);
                read.snapshot().may_contain(&subject(1));
            }
        }
    }
}
