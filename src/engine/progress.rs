//! How far the reading of a long list is, told to whoever waits for a start.

use std::path::Path;
use std::time::{Duration, Instant};

use super::STORE_FOLDER;
use crate::clock;
use crate::store::size_on_disk;

/// A start that takes longer says how far it is, and again each time so much longer.
const STEP: Duration = Duration::from_secs(2);

/// Says from time to time how much has been read.
pub(super) struct Progress {
    begun: Instant,
    told: Instant,
    bytes: u64,
    /// What the store takes on disk, which is somewhat more than there is to read.
    size: u64,
}

/// What [`Matcher::built`](crate::matcher::Matcher::built) tells while it goes through a long list.
pub(super) fn indexing() -> impl FnMut(u64, u64) {
    let mut told = clock::instant();
    move |done, of| {
        if told.elapsed() >= STEP {
            told = clock::instant();
            tracing::info!(done, of, "making the index of the list");
        }
    }
}

impl Progress {
    pub(super) fn new(data: &Path) -> Self {
        let now = clock::instant();
        Self { begun: now, told: now, bytes: 0, size: size_on_disk(&data.join(STORE_FOLDER)) }
    }

    /// `bytes` more were read; `records` in all.
    pub(super) fn read(&mut self, bytes: usize, records: u64) {
        self.bytes += bytes as u64;
        let now = clock::instant();
        if now.duration_since(self.told) >= STEP {
            self.told = now;
            let took = self.begun.elapsed();
            let a_second = u128::from(records) * 1000 / took.as_millis().max(1);
            let percent = (self.bytes * 100).checked_div(self.size).unwrap_or(0).min(99);
            tracing::info!(records, a_second, about_percent = percent, "reading the list from its blocks");
        }
    }
}
