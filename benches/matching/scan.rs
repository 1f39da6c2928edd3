//! The answer as everybody would compute it: every hash of the list, bit by bit. What the index says is held against it.

use staydown::replica::index::Pdq;

/// Hashes looked at with all queries in turn, before the next ones: they stay in the nearest cache meanwhile.
const BLOCK: usize = 512;

/// What is listed within a distance of one query: distance and hash, in that order.
pub(crate) type Found = Vec<(u32, Pdq)>;

/// For each query all hashes of `list` within `threshold` bits, nearest first, then by value.
pub(crate) fn scan(list: &[Pdq], queries: &[Pdq], threshold: u32) -> Vec<Found> {
    let queries: Vec<_> = queries.iter().map(words).collect();
    let mut found = vec![Found::new(); queries.len()];
    for block in list.chunks(BLOCK) {
        let rows: Vec<_> = block.iter().map(words).collect();
        for (query, found) in queries.iter().zip(&mut found) {
            for (row, hash) in rows.iter().zip(block) {
                let distance = (0..4).map(|i| (row[i] ^ query[i]).count_ones()).sum();
                if distance <= threshold {
                    found.push((distance, *hash));
                }
            }
        }
    }
    found.iter_mut().for_each(|found| found.sort_unstable());
    found
}

fn words(hash: &Pdq) -> [u64; 4] {
    let word = |i: usize| u64::from_le_bytes(hash[8 * i..8 * i + 8].try_into().unwrap());
    [word(0), word(1), word(2), word(3)]
}

/// Fails with the first query that was answered otherwise than a full scan answers it.
///
/// # Panics
/// If anything is missing, or there is anything that should not be there.
pub(crate) fn agree(what: &str, queries: &[Pdq], expected: &[Found], answers: &[Found]) {
    assert_eq!(expected.len(), answers.len(), "{what}: as many answers as queries");
    for ((query, expected), answer) in queries.iter().zip(expected).zip(answers) {
        let mut answer = answer.clone();
        answer.sort_unstable();
        let missing = expected.iter().filter(|hit| answer.binary_search(hit).is_err()).count();
        let extra = answer.iter().filter(|hit| expected.binary_search(hit).is_err()).count();
        assert!(
            answer == *expected,
            "{what}: query {} has {missing} of {} missing and {extra} too many",
            data_encoding::HEXLOWER.encode(query),
            expected.len()
        );
    }
}
