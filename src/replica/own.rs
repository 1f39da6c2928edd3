//! Our own logs: lanes, the startup guard, the outbox and the batch that is being gathered (PROTOCOL section 7).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::ids::{BlockId, Class, LogNo, MemberId, Seq, TimeMs};
use super::record::{ClientKey, Parsed, Statement};
use super::signal::{GuardRefusal, Subject};

/// Submissions that wait unsigned for the startup guard.
pub const OUTBOX_MAX: usize = 10_000;
/// Records of one submission: as many as one block takes beside the log's opening.
pub const RECORDS_PER_SUBMISSION_MAX: usize = 511;

/// A peer that claims a head of our logs, and with which the line broke so often in a row instead of showing it, is not
/// waited for any longer once enough others have answered: else one liar could keep a restarted node from signing.
pub const CLAIM_TRIES: u32 = 5;

/// Names a caller of [`super::Input::Submit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Where a record of ours stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The block.
    pub block: BlockId,
    /// Which record of it.
    pub index: u32,
    /// The block's signed header.
    pub header: [u8; 252],
    /// Its signature.
    pub signature: [u8; 64],
    /// The record's bytes.
    pub record: Bytes,
    /// RFC 6962 path from the record to the header's `records_root`.
    pub path: Vec<[u8; 32]>,
}

/// What a submission is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Signed, durable, published.
    Durable(Vec<Receipt>),
    /// In the durable outbox; signed as soon as the startup guard has its answers.
    Queued,
    /// Nothing was done.
    Refused(Refusal),
}

/// Why a submission is refused. Nothing was signed, nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum Refusal {
    #[error("our company is not an active member of the forum under charter {0}")]
    NotActive(u64),
    #[error("our company is suspended by a steward for another {0} h")]
    Suspended(u64),
    #[error("charter {0} names another log root key for our company than the one this node has")]
    RootKey(u64),
    #[error("not while submissions are queued: enough peers must tell us their heads of our logs first")]
    GuardPending,
    #[error("our company's roles ({0}) do not allow this kind of statement")]
    Role(String),
    #[error("statement {0} {1}")]
    Record(usize, &'static str),
    #[error("statement {0} is refused by the admission guard: {1}")]
    Guard(usize, GuardRefusal),
    #[error("our quota of {limit} records a day in the {lane} lane is used up; it begins anew at 00:00 UTC")]
    Quota { limit: u32, lane: &'static str },
    #[error("a submission may have at most {RECORDS_PER_SUBMISSION_MAX} statements and 256 KiB, got {0}")]
    TooLarge(usize),
    #[error("the outbox holds {OUTBOX_MAX} submissions; it empties when enough peers answer")]
    OutboxFull,
    #[error("all {0} log numbers are used up; a charter must raise the log limit")]
    LogsUsedUp(u32),
    #[error("our logs would be larger than the charter allows ({0} bytes)")]
    LogBytes(u64),
    #[error("the charter is of semantics level {0}, which this release does not know: upgrade before submitting")]
    Semantics(u64),
}

/// A record that waits to be put into a block.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) ticket: Option<Ticket>,
    pub(super) bytes: Bytes,
}

/// Whether we may sign yet (W4).
#[derive(Clone, Debug)]
pub(super) enum Guard {
    /// So many peers must tell us their heads of our logs first; `copy`: this may be one of two copies.
    Pending { needed: usize, copy: bool, answered: BTreeSet<MemberId> },
    /// We may.
    Open,
}

impl Guard {
    /// Waits for half of `peers`, and at least one; for more than half, if there may be another copy of us: each of the
    /// two could else ask other peers. Without peers there is nobody to wait for.
    fn of(peers: usize, copy: bool) -> Self {
        match peers {
            0 => Self::Open,
            _ => Self::Pending { needed: enough(peers, copy), copy, answered: BTreeSet::new() },
        }
    }

    /// Only `peers` are left to be asked: who was cut off answers no more.
    pub(super) fn follow(&mut self, peers: usize) {
        match self {
            Self::Pending { .. } if peers == 0 => *self = Self::Open,
            Self::Pending { needed, copy, .. } => *needed = (*needed).min(enough(peers, *copy)),
            Self::Open => {}
        }
    }
}

fn enough(peers: usize, copy: bool) -> usize {
    (peers / 2 + usize::from(copy)).max(1)
}

/// Everything about our own logs that is not in them.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) lanes: BTreeMap<Class, LogNo>,
    /// Log numbers that are known anywhere, ours to use or not.
    pub(super) log_nos: BTreeSet<LogNo>,
    /// Logs that are known to go on elsewhere: never written again.
    pub(super) closed: BTreeSet<LogNo>,
    /// Peers that claim heads of our logs which we do not hold, and have not shown them yet: how often in a row the line
    /// broke when they were asked to.
    pub(super) claimed_by: BTreeMap<MemberId, u32>,
    pub(super) last_time: TimeMs,
    pub(super) guard: Guard,
    pub(super) outbox: BTreeMap<u64, (Class, Vec<Bytes>)>,
    pub(super) next_outbox: u64,
    pub(super) open: BTreeMap<Class, Vec<Draft>>,
    /// Outbox entries whose records are in `open`: dropped in the same batch that stores their blocks.
    pub(super) leaving_outbox: Vec<u64>,
    pub(super) client_keys: BTreeMap<ClientKey, (BlockId, u32)>,
    /// Records of damaged journal frames, to be said again where the block itself cannot be had back (W5).
    pub(super) orphans: BTreeMap<BlockId, (TimeMs, Vec<Bytes>)>,
    /// Something of our own was lost, moved or taken over: what we said before may stand at peers alone.
    pub(super) lost: bool,
    /// Heads of our logs that peers hold beyond ours: what is still to be pulled back.
    pub(super) expected: BTreeMap<LogNo, Seq>,
    /// What our company never lists, beside the shipped lists.
    pub(super) harmless: Arc<BTreeSet<Subject>>,
}

impl Own {
    /// `moved`: this is a copy or a backup.
    pub(super) fn new(peers: usize, moved: bool) -> Self {
        let guard = Guard::of(peers, moved);
        Self {
            lanes: BTreeMap::new(),
            log_nos: BTreeSet::new(),
            closed: BTreeSet::new(),
            claimed_by: BTreeMap::new(),
            last_time: TimeMs(0),
            guard,
            outbox: BTreeMap::new(),
            next_outbox: 0,
            open: BTreeMap::new(),
            leaving_outbox: Vec::new(),
            client_keys: BTreeMap::new(),
            orphans: BTreeMap::new(),
            expected: BTreeMap::new(),
            lost: false,
            harmless: Arc::default(),
        }
    }

    /// Whether enough peers have answered, but for those of which more is awaited, and nobody claims to know more of our
    /// logs than we do and may still show it.
    pub(super) fn is_answered(&self, awaited: impl Fn(MemberId) -> bool) -> bool {
        let stands = |tries: &u32| *tries < CLAIM_TRIES;
        match &self.guard {
            Guard::Open => true,
            Guard::Pending { needed, answered, .. } => {
                answered.iter().filter(|peer| !awaited(**peer)).count() >= *needed
                    && !self.claimed_by.values().any(stands)
            }
        }
    }

    /// An answer that broke off counts for nothing.
    pub(super) fn unanswer(&mut self, peer: MemberId) {
        if let Guard::Pending { answered, .. } = &mut self.guard {
            answered.remove(&peer);
        }
    }

    pub(super) fn may_sign(&self) -> bool {
        matches!(self.guard, Guard::Open)
    }

    /// The lowest number above every one that is known: a number is never used twice.
    pub(super) fn next_log_no(&self) -> LogNo {
        self.log_nos.last().map_or(LogNo(0), |last| LogNo(last.0.saturating_add(1)))
    }

    /// Ends writing in `log_no`; the lane goes on in a new log.
    pub(super) fn close(&mut self, log_no: LogNo) -> bool {
        self.log_nos.insert(log_no);
        self.closed.insert(log_no);
        let lane = self.lanes.iter().find(|(_, no)| **no == log_no).map(|(class, _)| *class);
        lane.is_some_and(|class| self.lanes.remove(&class).is_some())
    }

    pub(super) fn note_client_keys(&mut self, block: BlockId, records: &[Parsed]) {
        for (index, record) in (0_u32..).zip(records) {
            if let Some(key) = client_key(record) {
                self.client_keys.entry(key).or_insert((block, index));
            }
        }
    }
}

/// The submitter's own key of a record, if it has one.
pub(super) fn client_key(record: &Parsed) -> Option<ClientKey> {
    match record {
        Parsed::Says(Statement::Opinion(opinion)) => opinion.client_key,
        _ => None,
    }
}

/// The outbox's stored form: the lane's number, then each record with its length.
pub(super) fn encode_outbox(class: Class, records: &[Bytes]) -> Bytes {
    let mut bytes = class.number().to_be_bytes().to_vec();
    for record in records {
        bytes.extend_from_slice(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(record);
    }
    bytes.into()
}

/// The inverse of [`encode_outbox`].
pub(super) fn decode_outbox(mut bytes: Bytes) -> Option<(Class, Vec<Bytes>)> {
    let class = Class::from_number(u16::from_be_bytes(take(&mut bytes, 2)?[..].try_into().ok()?))?;
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let len = u32::from_be_bytes(take(&mut bytes, 4)?[..].try_into().ok()?);
        records.push(take(&mut bytes, len as usize)?);
    }
    Some((class, records))
}

fn take(bytes: &mut Bytes, len: usize) -> Option<Bytes> {
    (len <= bytes.len()).then(|| bytes.split_to(len))
}
