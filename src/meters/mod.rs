//! What the node counts while it works: numbers only, nothing of what was looked up, said or shown.
//!
//! Whoever does something counts it here with a few atomic additions: no lock stands on the way of a lookup. What needs
//! no counting, because it is known at any moment, is not here: `src/metrics/` reads it when somebody asks.

mod calls;
mod family;
mod histogram;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use calls::{CODES, Call, Calls, HttpMetrics, METHODS, Route};
pub use family::Family;
pub use histogram::{Counted, FINE, Histogram, SLOW};

use crate::replica::ids::TimeMs;
use crate::replica::verdict::Verdict;

/// Reasons that are counted apart. There are some fifty in this program, and a peer chooses none of them.
pub const REASONS_MAX: usize = 128;

/// Everything that is counted since the start of the node.
#[derive(Debug)]
pub struct Meters {
    /// Lookups, by how they came and what was answered.
    pub lookups: Lookups,
    /// What became of submissions.
    pub submissions: Submissions,
    /// Refusals over the local interfaces, by reason.
    pub refused_local: Family<str, AtomicU64>,
    /// Refusals of peers' calls, by reason.
    pub refused_peer: Family<str, AtomicU64>,
    /// gRPC calls.
    pub calls: Calls,
    /// HTTP requests.
    pub http: HttpMetrics,
    /// Group commits: journal, read back, store, outbox.
    pub commits: Histogram,
    /// Blocks that others signed while this node ran, from their clocks to ours, until they match here.
    pub arrivals: Histogram,
    /// Times that the list was derived again.
    pub derivations: Histogram,
    /// Files that were hashed, with the time for which they waited.
    pub hashed: Histogram,
    /// Files that were sent away because too many waited.
    pub hashing_rejected: AtomicU64,
    /// Connections to the Unix socket.
    pub local_open: Open,
    /// Connections to the web server.
    pub web_open: Open,
    web_certificate_end_ms: AtomicU64,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            lookups: Lookups::default(),
            submissions: Submissions::default(),
            refused_local: Family::new(REASONS_MAX),
            refused_peer: Family::new(REASONS_MAX),
            calls: Calls::default(),
            http: HttpMetrics::default(),
            commits: Histogram::new(&FINE),
            arrivals: Histogram::new(&SLOW),
            derivations: Histogram::new(&SLOW),
            hashed: Histogram::new(&SLOW),
            hashing_rejected: AtomicU64::new(0),
            local_open: Open::default(),
            web_open: Open::default(),
            web_certificate_end_ms: AtomicU64::new(0),
        }
    }
}

impl Meters {
    /// The web server shows a certificate that ends at `not_after`.
    pub fn web_certificate_ends(&self, not_after: TimeMs) {
        self.web_certificate_end_ms.store(not_after.0, Ordering::Relaxed);
    }

    /// When the web server's certificate ends; 0: it has none.
    pub fn web_certificate_end(&self) -> TimeMs {
        TimeMs(read(&self.web_certificate_end_ms))
    }

    /// A peer's call was refused.
    pub fn refused_to_peer(&self, reason: &str) {
        add(&self.refused_peer.at(named(reason)), 1);
    }

    /// Something that was asked over a local interface was refused.
    pub fn refused(&self, reason: &str) {
        add(&self.refused_local.at(named(reason)), 1);
    }
}

/// A refusal of a library has no reason of ours.
fn named(reason: &str) -> &str {
    if reason.is_empty() { "NONE" } else { reason }
}

/// Adds to a counter.
pub fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// Reads a counter.
pub fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// How a lookup came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupKind {
    /// One call with hashes or addresses.
    Single,
    /// One call with a file, that is hashed here.
    File,
    /// Over a stream.
    Stream,
    /// Many hashes of one type.
    Bulk,
}

impl LookupKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Single, Self::File, Self::Stream, Self::Bulk];

    /// The value of the label `kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::File => "file",
            Self::Stream => "stream",
            Self::Bulk => "bulk",
        }
    }
}

/// The verdicts, in the order of the counters.
pub const VERDICTS: [Verdict; 3] = [Verdict::Allow, Verdict::Review, Verdict::Block];

/// Lookups by kind.
#[derive(Debug)]
pub struct Lookups {
    verdicts: [[AtomicU64; VERDICTS.len()]; LookupKind::ALL.len()],
    took: [Histogram; LookupKind::ALL.len()],
}

impl Default for Lookups {
    fn default() -> Self {
        Self { verdicts: Default::default(), took: std::array::from_fn(|_| Histogram::new(&FINE)) }
    }
}

impl Lookups {
    /// So many hashes or items were answered with `verdict`, that of our rules even where it is not in force.
    pub fn answered(&self, kind: LookupKind, verdict: Verdict, count: u64) {
        add(&self.verdicts[kind as usize][place(verdict)], count);
    }

    /// One request was answered after `took`.
    pub fn took(&self, kind: LookupKind, took: Duration) {
        self.took[kind as usize].observe(took);
    }

    /// How often `verdict` was answered.
    pub fn count(&self, kind: LookupKind, verdict: Verdict) -> u64 {
        read(&self.verdicts[kind as usize][place(verdict)])
    }

    /// How long requests took.
    pub fn durations(&self, kind: LookupKind) -> &Histogram {
        &self.took[kind as usize]
    }
}

fn place(verdict: Verdict) -> usize {
    match verdict {
        Verdict::Allow => 0,
        Verdict::Review => 1,
        Verdict::Block => 2,
    }
}

/// Submissions by what became of them.
#[derive(Debug)]
pub struct Submissions {
    /// Signed, on disk and offered to the peers.
    pub durable: AtomicU64,
    /// Kept until enough peers are heard.
    pub queued: AtomicU64,
    /// Not signed.
    pub refused: AtomicU64,
    /// From the request until it is durable and matches here.
    pub took: Histogram,
}

impl Default for Submissions {
    fn default() -> Self {
        let [durable, queued, refused] = Default::default();
        Self { durable, queued, refused, took: Histogram::new(&SLOW) }
    }
}

/// How many of something are open. A [`Guard`] counts one for as long as it lives.
#[derive(Clone, Debug, Default)]
pub struct Open(Arc<AtomicU64>);

impl Open {
    /// One more, until the guard is dropped.
    #[must_use]
    pub fn guard(&self) -> Guard {
        add(&self.0, 1);
        Guard(Arc::clone(&self.0))
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        read(&self.0)
    }
}

/// One of what is open.
#[derive(Debug)]
pub struct Guard(Arc<AtomicU64>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_are_counted_by_kind_and_verdict() {
        let meters = Meters::default();
        meters.lookups.answered(LookupKind::Bulk, Verdict::Allow, 40);
        meters.lookups.answered(LookupKind::Bulk, Verdict::Allow, 2);
        meters.lookups.answered(LookupKind::File, Verdict::Block, 1);
        meters.lookups.took(LookupKind::File, Duration::from_micros(30));
        assert_eq!(meters.lookups.count(LookupKind::Bulk, Verdict::Allow), 42);
        assert_eq!(meters.lookups.count(LookupKind::File, Verdict::Block), 1);
        assert_eq!(meters.lookups.count(LookupKind::Single, Verdict::Block), 0);
        assert_eq!(meters.lookups.durations(LookupKind::File).read().count, 1);
        assert_eq!(meters.lookups.durations(LookupKind::Bulk).read().count, 0);
    }

    #[test]
    fn what_is_open_is_counted_until_it_is_closed() {
        let open = Open::default();
        let (first, second) = (open.guard(), open.guard());
        assert_eq!(open.count(), 2);
        drop(first);
        assert_eq!(open.count(), 1);
        drop(second);
        assert_eq!(open.count(), 0);
    }

    #[test]
    fn reasons_beyond_the_limit_are_counted_together() {
        let meters = Meters::default();
        (0..REASONS_MAX + 10).for_each(|n| meters.refused(&format!("REASON_{n}")));
        let shown = meters.refused_local.cells();
        assert_eq!(shown.len(), REASONS_MAX + 1);
        let others = shown.iter().find(|(reason, _)| reason == family::OTHERS).unwrap();
        assert_eq!(read(&others.1), 10);
    }
}
