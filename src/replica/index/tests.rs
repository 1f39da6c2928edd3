//! The index against a full scan: every kind of list, every threshold, every way this machine counts bits, after any
//! interleaving of changes and merges.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::hamming::{Merge, Merged};
use super::*;
use crate::replica::signal::distance;

/// Thresholds at which something changes: reaches, the planner, the scan.
const THRESHOLDS: [u32; 12] = [0, 1, 7, 14, 15, 16, 24, 30, 31, 32, 40, 256];
const KEY: [u8; 32] = [42; 32];

/// Parts so small that a few dozen hashes reach every tier.
fn small(delta: usize) -> Sizes {
    Sizes { delta, piece: 2, fanout: 2, due: 1, indexed_min: 8 }
}

fn full_scan(list: &BTreeSet<Pdq>, query: &Pdq, threshold: u32, limit: usize) -> Near {
    let mut hits: Vec<_> = list.iter().map(|hash| (distance(hash, query), *hash)).collect();
    hits.retain(|(distance, _)| *distance <= threshold);
    hits.sort_unstable();
    let truncated = hits.len() > limit;
    hits.truncate(limit);
    Near { hits, truncated }
}

fn flip(mut hash: Pdq, bits: &[u8]) -> Pdq {
    bits.iter().for_each(|bit| hash[usize::from(bit / 8)] ^= 1 << (bit % 8));
    hash
}

fn random() -> impl Strategy<Value = Pdq> {
    any::<Pdq>()
}

/// Hashes around one of three centres, at distances on both sides of the threshold; some of them equal.
fn clustered() -> impl Strategy<Value = Pdq> {
    let off = prop_oneof![1 => 0..4_usize, 2 => 12..18_usize, 4 => 26..36_usize];
    (0..3_u8, off, any::<[u8; 36]>()).prop_map(|(center, off, bits)| flip([center * 85; 32], &bits[..off]))
}

/// Hashes that agree in all but one word.
fn hot() -> impl Strategy<Value = Pdq> {
    (0..4_usize, any::<[u8; 8]>()).prop_map(|(word, bytes)| {
        let mut hash = [0x5a; 32];
        hash[word * 8..][..8].copy_from_slice(&bytes);
        hash
    })
}

fn any_hash() -> impl Strategy<Value = Pdq> {
    prop_oneof![2 => random(), 4 => clustered(), 2 => hot(), 1 => Just([7; 32])]
}

/// A list of one kind, or of all mixed.
fn list(max: usize) -> impl Strategy<Value = Vec<Pdq>> {
    prop_oneof![
        prop::collection::vec(random(), 0..max),
        prop::collection::vec(clustered(), 0..max),
        prop::collection::vec(hot(), 0..max),
        prop::collection::vec(Just([7; 32]), 0..max),
        prop::collection::vec(any_hash(), 0..max),
        prop::collection::vec(any_hash(), 1),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Pdq),
    /// Removes what was inserted by the step that is this far into the list so far.
    Remove(prop::sample::Index),
    RemoveOther(Pdq),
    Begin,
    Compact,
    Install(prop::sample::Index),
    Forget(prop::sample::Index),
    Reload,
}

fn steps(max: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        16 => any_hash().prop_map(Step::Insert),
        5 => any::<prop::sample::Index>().prop_map(Step::Remove),
        1 => any_hash().prop_map(Step::RemoveOther),
        4 => Just(Step::Begin),
        1 => Just(Step::Compact),
        4 => any::<prop::sample::Index>().prop_map(Step::Install),
        1 => any::<prop::sample::Index>().prop_map(Step::Forget),
        1 => Just(Step::Reload),
    ];
    prop::collection::vec(step, 0..max)
}

/// The index, the set that it should be, and merges that were begun: some have been run, all are still to be installed.
struct Both {
    index: HammingIndex,
    list: BTreeSet<Pdq>,
    said: Vec<Pdq>,
    waiting: Vec<Merged>,
    sizes: Sizes,
    path: Path,
}

impl Both {
    fn new(sizes: Sizes, path: Path) -> Self {
        let index = HammingIndex::with(KEY, sizes, path);
        Self { index, list: BTreeSet::new(), said: Vec::new(), waiting: Vec::new(), sizes, path }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Insert(hash) => {
                assert_eq!(self.index.insert(*hash), self.list.insert(*hash));
                self.said.push(*hash);
            }
            Step::Remove(which) if !self.said.is_empty() => self.remove(*which.get(&self.said)),
            Step::RemoveOther(hash) => self.remove(*hash),
            Step::Begin => self.waiting.extend(self.index.merge().map(Merge::run)),
            Step::Compact => self.waiting.extend(self.index.compact().map(Merge::run)),
            Step::Install(which) if !self.waiting.is_empty() => {
                let merged = self.waiting.remove(which.index(self.waiting.len()));
                drop(self.index.install(merged));
            }
            Step::Forget(which) if !self.waiting.is_empty() => {
                drop(self.waiting.remove(which.index(self.waiting.len())));
            }
            Step::Reload => {
                // What is under way belongs to the index of before, and must change nothing in this one.
                self.index = read(&written(&self.index), self.sizes, self.path).unwrap();
            }
            Step::Remove(_) | Step::Install(_) | Step::Forget(_) => {}
        }
        assert_eq!(self.index.len(), self.list.len());
    }

    fn remove(&mut self, hash: Pdq) {
        assert_eq!(self.index.contains(&hash), self.list.contains(&hash));
        assert_eq!(self.index.remove(&hash), self.list.remove(&hash));
        assert!(!self.index.contains(&hash));
    }

    fn check(&self, queries: &[Pdq], limit: usize) {
        check(&self.index.snapshot(), &self.list, queries, limit);
    }
}

fn check(snapshot: &Snapshot, list: &BTreeSet<Pdq>, queries: &[Pdq], limit: usize) {
    assert_eq!(snapshot.len(), list.len());
    for query in queries {
        assert_eq!(snapshot.contains(query), list.contains(query));
    }
    for threshold in THRESHOLDS {
        let right: Vec<_> = queries.iter().map(|query| full_scan(list, query, threshold, limit)).collect();
        for (query, right) in queries.iter().zip(&right) {
            assert_eq!(&snapshot.near(query, threshold, limit), right, "threshold {threshold}");
        }
        assert_eq!(snapshot.batch(queries, threshold, limit), right, "batch, threshold {threshold}");
        assert_eq!(snapshot.near_many(queries, threshold, limit), right);
    }
}

fn written(index: &HammingIndex) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written: Result<(), ()> = index.write_to(&mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    });
    written.unwrap();
    bytes
}

/// Reads an index; the source fails where the bytes end.
fn read(bytes: &[u8], sizes: Sizes, path: Path) -> Result<HammingIndex, ReadError<&'static str>> {
    let mut rest = bytes;
    HammingIndex::read_with(sizes, path, bytes.len() as u64, &mut |piece| {
        let (some, after) = rest.split_at_checked(piece.len()).ok_or("the end")?;
        piece.copy_from_slice(some);
        rest = after;
        Ok(())
    })
}

fn path() -> impl Strategy<Value = Path> {
    prop::sample::select(Path::all())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn answers_are_those_of_a_full_scan_after_any_changes(
        steps in steps(160),
        delta in 1_usize..20,
        other in any_hash(),
        path in path(),
        limit in prop_oneof![Just(0), Just(1), Just(7), Just(MATCHES_MAX), Just(usize::MAX)],
    ) {
        let mut both = Both::new(small(delta), path);
        let (before, after) = steps.split_at(steps.len() / 2);
        before.iter().for_each(|step| both.take(step));
        let (earlier, list) = (both.index.snapshot(), both.list.clone());
        after.iter().for_each(|step| both.take(step));
        let mut queries = vec![other, [0; 32], [85; 32], [0x5a; 32]];
        queries.extend(both.said.iter().rev().take(8));
        both.check(&queries, limit);
        // What came later changes nothing for who looked before.
        check(&earlier, &list, &queries, limit);
    }

    #[test]
    fn a_list_built_at_once_answers_like_a_full_scan(
        hashes in list(400),
        query in any_hash(),
        path in path(),
        indexed_min in prop_oneof![Just(1), Just(usize::MAX)],
    ) {
        let mut index = HammingIndex::with(KEY, Sizes { indexed_min, ..small(64) }, path);
        index.extend_sorted(hashes.iter().copied());
        let mut queries = vec![query, [0; 32]];
        queries.extend(hashes.iter().take(8));
        check(&index.snapshot(), &hashes.iter().copied().collect(), &queries, usize::MAX);
        let again = read(&written(&index), Sizes::default(), path).unwrap();
        prop_assert_eq!(again.snapshot().near(&query, 31, 9), index.snapshot().near(&query, 31, 9));
    }

    /// Whatever the bytes say, reading them gives an error or an index that can be used.
    #[test]
    fn damaged_bytes_never_panic(
        steps in steps(80),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        numbers in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u64>(), 0..40_u64]), 0..2),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        path in path(),
    ) {
        let mut both = Both::new(small(8), path);
        steps.iter().for_each(|step| both.take(step));
        let mut bytes = written(&both.index);
        for (at, to) in damage {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        for (at, to) in numbers {
            let at = at.index(bytes.len() / 8) * 8;
            bytes[at..at + 8].copy_from_slice(&to.to_le_bytes());
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(mut index) = read(&bytes, small(8), path) {
            for hash in &both.said {
                let _ = index.snapshot().near(hash, 31, 10);
                let _ = (index.insert(*hash), index.remove(hash));
            }
            let _ = index.snapshot().batch(&both.said, 31, 10);
            for merge in [index.compact(), index.merge()].into_iter().flatten() {
                drop(index.install(merge.run()));
            }
            let _ = index.snapshot().batch(&both.said, 40, 10);
        }
    }
}

#[test]
fn the_threshold_is_inclusive_and_a_removed_hash_is_gone() {
    let mut hash = [0; 32];
    hash[..3].fill(0xff);
    hash[3] = 0xfe; // 31 bits
    let farther = flip(hash, &[32]);
    for path in Path::all() {
        let mut index = HammingIndex::with(KEY, small(2), path);
        assert!(index.insert(hash) && index.insert(farther) && !index.insert(hash));
        assert_eq!(index.snapshot().near(&[0; 32], 31, 10).hits, [(31, hash)]);
        assert_eq!(index.snapshot().near(&[0; 32], 32, 10).hits, [(31, hash), (32, farther)]);
        let nearest = index.snapshot().near(&[0; 32], 32, 1);
        assert_eq!(nearest, Near { hits: vec![(31, hash)], truncated: true });
        assert!(index.remove(&hash) && !index.remove(&hash) && index.len() == 1);
        assert_eq!(index.snapshot().near(&[0; 32], 31, 10), Near::default());
    }
}

#[test]
fn merges_keep_the_segments_few() {
    let mut index = HammingIndex::with(KEY, Sizes { fanout: 4, ..small(16) }, Path::best());
    for i in 0..4_000_u32 {
        index.insert(scattered(i));
        while let Some(merge) = index.merge() {
            drop(index.install(merge.run()));
        }
        // Tiers of 16, 64, 256, 1,024, 4,096.
        assert!(index.segments() <= 5, "{} segments of {} hashes", index.segments(), index.len());
    }
    (0..4_000).filter(|i| i % 4 > 0).for_each(|i| assert!(index.remove(&scattered(i))));
    while let Some(merge) = index.merge() {
        drop(index.install(merge.run()));
    }
    assert!(index.bytes() < 1_000 * 200 + (1 << 17), "what was removed is given back: {} bytes", index.bytes());
}

#[test]
fn a_merge_under_way_keeps_its_segments_and_leaves_the_others_to_the_next() {
    let mut index = HammingIndex::with(KEY, small(16), Path::best());
    (0..32).for_each(|i| assert!(index.insert(scattered(i))));
    let long = index.merge().unwrap();
    assert!(index.merge().is_none(), "all is taken");
    (32..64).for_each(|i| assert!(index.insert(scattered(i))));
    let short = index.merge().unwrap();
    assert!((0..64).step_by(8).all(|i| index.remove(&scattered(i))));
    let reader = index.snapshot();
    let retired = index.install(short.run());
    assert!(!retired.is_idle(), "a reader holds it");
    drop(reader);
    assert!(retired.is_idle());
    drop(long);
    let again = index.merge().expect("a merge that was dropped is due again");
    drop(index.install(again.run()));
    let list: BTreeSet<_> = (0..64).filter(|i| i % 8 > 0).map(scattered).collect();
    check(&index.snapshot(), &list, &[scattered(0), scattered(1), scattered(63)], 10);
}

#[test]
fn filled_buckets_cost_a_scan_and_no_more() {
    // All hashes agree in three words, so that most of a query's buckets hold everything.
    let list: BTreeSet<Pdq> = (0..20_000_u32)
        .map(|i| {
            let mut hash = [0x5a; 32];
            hash[..8].copy_from_slice(&scattered(i)[..8]);
            hash
        })
        .collect();
    let index = HammingIndex::from_hashes(KEY, list.iter().copied());
    let query = flip(*list.first().unwrap(), &[3, 77, 200]);
    let effort = index.snapshot().effort(&query, 31);
    assert_eq!((effort.scanned, effort.sketches), (list.len(), 0));
    let queries = [query, [0x5a; 32], [0; 32]];
    check(&index.snapshot(), &list, &queries, 10);
    let effort = index.snapshot().effort(&[0; 32], 31);
    assert_eq!(effort.scanned, 0, "a query elsewhere still uses the tables");
}

#[test]
#[ignore = "takes a minute and a gigabyte: cargo test --release --lib index -- --ignored"]
fn a_million_answer_like_a_full_scan() {
    let mut index = HammingIndex::from_hashes(KEY, (0..1_000_000).map(scattered));
    let mut list: BTreeSet<Pdq> = (0..1_000_000).map(scattered).collect();
    for i in 1_000_000..1_300_000 {
        assert!(index.insert(scattered(i)) && list.insert(scattered(i)));
        if i % 7 == 0 {
            let gone = scattered(i - 900_000);
            assert!(index.remove(&gone) && list.remove(&gone));
        }
        if i % 50_000 == 0 {
            while let Some(merge) = index.merge() {
                drop(index.install(merge.run()));
            }
        }
    }
    let queries: Vec<Pdq> = (0..400_u32)
        .map(|i| {
            let bits: Vec<u8> = scattered(i + 7_000_000).iter().chain(&scattered(i)).copied().collect();
            flip(scattered(i * 3_001), &bits[..i as usize % 40])
        })
        .collect();
    let snapshot = index.snapshot();
    for threshold in [15, 30, 31, 32] {
        let right: Vec<_> = queries.iter().map(|query| full_scan(&list, query, threshold, 100)).collect();
        assert_eq!(snapshot.near_many(&queries, threshold, 100), right);
        for (query, right) in queries.iter().zip(&right) {
            assert_eq!(&snapshot.near(query, threshold, 100), right);
        }
    }
}

/// A hash that looks random.
fn scattered(i: u32) -> Pdq {
    crate::replica::ids::sha256(&[&i.to_be_bytes()])
}
