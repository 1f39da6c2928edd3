//! What `benches/peers.py` reads: the same list, the same queries, and our answers. Then both measure in turn, so that
//! what disturbs the machine disturbs both.

use std::path::Path;
use std::{fs, io};

use staydown::replica::index::Pdq;

use crate::scan::Found;

/// Writes `list` and `queries` as rows of 32 bytes, and `answers` as rows of the query's number, the distance (both
/// 32 bits, little endian) and the hash.
pub(crate) fn write(folder: &Path, list: &[Pdq], queries: &[Pdq], answers: &[Found]) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("list"), list.as_flattened()).unwrap();
    fs::write(folder.join("queries"), queries.as_flattened()).unwrap();
    let mut rows = Vec::new();
    for (number, found) in answers.iter().enumerate() {
        for (distance, hash) in found {
            rows.extend_from_slice(&u32::try_from(number).unwrap().to_le_bytes());
            rows.extend_from_slice(&distance.to_le_bytes());
            rows.extend_from_slice(hash);
        }
    }
    fs::write(folder.join("answers"), rows).unwrap();
}

/// Prints `ready`; then for each line of the standard input the microseconds that `measure` needed for it, until it
/// says `None`.
pub(crate) fn take_turns(ready: &str, measure: impl Fn(&str) -> Option<f64>) {
    println!("{ready}");
    for line in io::stdin().lines().map_while(Result::ok) {
        let Some(seconds) = measure(&line) else { break };
        println!("{}", 1e6 * seconds);
    }
}
