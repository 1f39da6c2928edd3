//! What must always hold, computed from raw bytes by code of its own: nothing here asks `view`, `log`, `forks`,
//! `admission`, `signed` or `charter`. Slow and plain, so that it can be compared with PROTOCOL by eye.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ed25519_dalek::{Signature, VerifyingKey};
use prost::Message;
use sha2::{Digest as _, Sha256};
use staydown::replica::proto;

use crate::layers::members;

/// By incident and member: rank, code, open, closing time.
type Incidents = BTreeMap<[u8; 16], BTreeMap<[u8; 16], (Rank, u32, bool, u64)>>;

/// A broken promise: which invariant of PROTOCOL section 15, and how.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) story: String,
}

pub(crate) type Hash = [u8; 32];
/// A log: member, number.
pub(crate) type LogId = ([u8; 16], u32);
/// A subject: type, algorithm, parameter, digest.
pub(crate) type About = (u32, u32, u32, Vec<u8>);

pub(crate) fn hash(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

/// A block as its bytes say.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) log: LogId,
    pub(crate) class: u16,
    pub(crate) seq: u64,
    pub(crate) time: u64,
    pub(crate) prev: Hash,
    pub(crate) hash: Hash,
    pub(crate) header: Bytes,
    signature: Bytes,
    /// The records; what was redacted is empty here and has only its leaf.
    pub(crate) records: Vec<Bytes>,
    /// Leaves of the records' tree.
    pub(crate) leaves: Vec<Hash>,
    /// Places of the records that are gone.
    pub(crate) redacted: Vec<u32>,
    pub(crate) said: Vec<Says>,
}

impl Block {
    /// The log's opening, if this is its first block.
    pub(crate) fn opening(&self) -> Option<proto::LogOpen> {
        let first = proto::Record::decode(self.records.first()?.clone()).ok().filter(|r| r.kind == 1)?;
        proto::LogOpen::decode(first.body).ok()
    }

    /// Whether both are one signed header with the same records, as far as they are there.
    pub(crate) fn same_signed(&self, other: &Self) -> bool {
        self.header == other.header && self.signature == other.signature && self.leaves == other.leaves
    }
}

/// Reads a frame by the offsets of PROTOCOL 3.1.
pub(crate) fn read(frame: &Bytes) -> Option<Block> {
    let frame = proto::BlockFrame::decode(frame.clone()).ok()?;
    let (log, seq, _) = place(&frame.header)?;
    let h = &frame.header;
    let (mut records, mut leaves, mut redacted) = (Vec::new(), Vec::<Hash>::new(), Vec::new());
    for (index, slot) in (0..).zip(&frame.slots) {
        match slot.s.as_ref()? {
            proto::slot::S::Record(bytes) => {
                leaves.push(hash(&[&[0], bytes]));
                records.push(bytes.clone());
            }
            proto::slot::S::RedactedLeaf(leaf) => {
                leaves.push(leaf[..].try_into().ok()?);
                records.push(Bytes::new());
                redacted.push(index);
            }
        }
    }
    Some(Block {
        log,
        class: u16::from_be_bytes(h[60..62].try_into().ok()?),
        seq,
        time: u64::from_be_bytes(h[72..80].try_into().ok()?),
        prev: h[80..112].try_into().ok()?,
        hash: header_hash(h),
        said: records.iter().map(meaning).collect(),
        header: frame.header,
        signature: frame.signature,
        records,
        leaves,
        redacted,
    })
}

pub(crate) fn header_hash(header: &[u8]) -> Hash {
    hash(&[b"staydown/header/v1\n", header])
}

/// Log, place and time of a header.
fn place(header: &[u8]) -> Option<(LogId, u64, u64)> {
    let number = |at: usize| header.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
    let member = header.get(40..56)?.try_into().ok()?;
    let log_no = u32::from_be_bytes(header.get(56..60)?.try_into().ok()?);
    (header.len() == 252).then_some(())?;
    Some(((member, log_no), number(64)?, number(72)?))
}

fn signed_by(key: &[u8], kind: &str, body: &[u8], signature: &[u8]) -> bool {
    let pae = [format!("DSSEv1 {} {kind} {} ", kind.len(), body.len()).as_bytes(), body].concat();
    let key = key.try_into().ok().and_then(|key| VerifyingKey::from_bytes(key).ok());
    let signature = Signature::from_slice(signature).ok();
    key.zip(signature).is_some_and(|(key, signature)| key.verify_strict(&pae, &signature).is_ok())
}

const HEADER_KIND: &str = "application/vnd.staydown.block-header.v1";
const OPEN_KIND: &str = "application/vnd.staydown.log-open.v1";

/// Whether the header is signed by the key that a root key of `charters` bound to its log.
fn bound_and_signed(
    header: &[u8],
    signature: &[u8],
    lane: &[u8],
    open: &proto::LogOpen,
    charters: &[proto::Charter],
) -> bool {
    let roots = charters.iter().flat_map(|c| &c.members).filter(|m| m.id[..] == header[40..56]);
    let mut roots = roots.filter(|m| hash(&[&m.log_root_key])[..] == open.root_key_id[..]);
    let body = [&header[8..40], &header[40..60], lane, &open.public_key, &open.root_key_id].concat();
    header[184..216] == hash(&[&open.public_key])
        && signed_by(&open.public_key, HEADER_KIND, header, signature)
        && roots.any(|m| signed_by(&m.log_root_key, OPEN_KIND, &body, &open.root_signature))
}

/// I2 for one block of a log that `first` opens.
pub(crate) fn is_authentic(block: &Block, first: &Block, charters: &[proto::Charter]) -> bool {
    first
        .opening()
        .is_some_and(|open| bound_and_signed(&block.header, &block.signature, &block.header[60..64], &open, charters))
}

/// Whom a proof accuses, from where on, and whether its headers are really signed and really contradict.
pub(crate) fn accusation(bytes: &[u8], charters: &[proto::Charter]) -> Option<(LogId, u64, bool)> {
    let signed = |s: &proto::SignedHeader, lane: &[u8]| {
        s.open.as_ref().is_some_and(|open| bound_and_signed(&s.header, &s.signature, lane, open, charters))
    };
    match proto::Proof::decode(bytes).ok()?.p? {
        proto::proof::P::Fork(fork) => {
            let (a, b) = (fork.a?, fork.b?);
            let (at, other) = (place(&a.header)?, place(&b.header)?);
            let contradict = (at.0, at.1) == (other.0, other.1) && a.header != b.header;
            // The log was opened for the lane of one of them.
            let either = |s: &proto::SignedHeader| signed(s, &a.header[60..64]) || signed(s, &b.header[60..64]);
            let holds = contradict && either(&a) && either(&b);
            Some((at.0, at.1.max(1), holds))
        }
        proto::proof::P::Fault(fault) => {
            let bad = fault.bad?;
            let (log, seq, time) = place(&bad.header)?;
            let lane =
                fault.prev.as_ref().filter(|_| fault.rule == 6).map_or(&bad.header[60..64], |p| &p.header[60..64]);
            let before = fault.prev.as_ref().and_then(|p| place(&p.header));
            let prev_is_real = fault.prev.as_ref().is_none_or(|p| signed(p, &p.header[60..64]));
            let broken = match (fault.rule, before) {
                (7, Some(before)) => before.1 + 1 == seq && time < before.2,
                (6, Some(before)) => before.1 + 1 == seq && fault.prev.as_ref()?.header[60..64] != bad.header[60..64],
                (8, _) | (5, None) => true, // judged by who is accused: I6
                (5, Some(before)) => before.1 + 1 == seq,
                _ => false,
            };
            Some((log, seq.max(1), broken && prev_is_real && signed(&bad, lane)))
        }
        proto::proof::P::Charter(_) => None,
    }
}

/// The version that a charter fork is about.
pub(crate) fn forked_version(bytes: &[u8]) -> Option<u64> {
    let Some(proto::proof::P::Charter(fork)) = proto::Proof::decode(bytes).ok()?.p else { return None };
    Some(proto::Charter::decode(fork.a?.body).ok()?.version)
}

/// What a record says, if it says anything.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    Nothing { withdraws: bool },
    Word { about: About, family: u8, value: u32, expires: u64, labels: Vec<u32>, incident: Option<[u8; 16]> },
    Incident { id: [u8; 16], code: u32, open: bool, closes: u64 },
    Attest { heads: Vec<Mark> },
    Suspend { target: [u8; 16], marks: Vec<Mark>, until: u64 },
    Close,
}

/// A place in a log: log, number, hash of the header there.
pub(crate) type Mark = (LogId, u64, Hash);

/// The subject type of accounts.
const ACCOUNT: u32 = 3;
/// The algorithm of videos.
const VIDEO: u32 = 8;

const STANCE: u8 = 0;
const RETRACT: u8 = 1;
const ALLOW: u8 = 2;
const REFERRAL: u8 = 3;

impl Says {
    /// Below level 3 what is said of an account says nothing, and below level 4 what is said of a video.
    fn withdraws(&self, level: u32) -> bool {
        match self {
            Self::Nothing { withdraws } => *withdraws,
            Self::Word { about, .. } if about.0 == ACCOUNT && level < 3 => false,
            Self::Word { about, .. } if about.1 == VIDEO && level < 4 => false,
            Self::Word { family, value, .. } => match *family {
                STANCE => *value == 4,
                RETRACT => true,
                _ => *value == 0,
            },
            Self::Incident { open, .. } => !open,
            Self::Attest { .. } | Self::Suspend { .. } | Self::Close => false,
        }
    }
}

/// Strict without a scanner: what decodes to the same bytes again is encoded the one way.
fn exactly<M: Message + Default>(bytes: &Bytes) -> Option<M> {
    M::decode(bytes.clone()).ok().filter(|m| m.encode_to_vec() == bytes[..])
}

fn about(subject: Option<proto::Subject>) -> Option<About> {
    let s = subject?;
    let sound = matches!(s.r#type, 1 | 2) && s.alg == 4 && s.param == 0 && s.digest.len() == 32;
    let account = s.r#type == ACCOUNT && s.alg == 9 && s.param > 0 && s.digest.len() == 32;
    let video = s.r#type == 1 && s.alg == VIDEO && s.param == 0 && are_frames(&s.digest);
    (sound || account || video).then(|| (s.r#type, s.alg, s.param, s.digest.to_vec()))
}

/// Frames of 37 bytes: a hash, a quality, a time; times ascend.
fn are_frames(digest: &[u8]) -> bool {
    let frames: Vec<_> = digest.chunks(37).collect();
    let time = |frame: &[u8]| u32::from_be_bytes([frame[33], frame[34], frame[35], frame[36]]);
    (1..=100).contains(&frames.len())
        && frames.iter().all(|frame| frame.len() == 37 && frame[32] <= 100)
        && frames.windows(2).all(|pair| time(pair[0]) < time(pair[1]))
}

fn meaning(record: &Bytes) -> Says {
    try_meaning(record).unwrap_or(Says::Nothing { withdraws: false })
}

fn marks(heads: Vec<proto::Head>) -> Option<Vec<Mark>> {
    let mark = |head: proto::Head| {
        let origin = head.origin?;
        let log = (origin.member_id[..].try_into().ok()?, origin.log_no);
        (head.seq > 0).then_some((log, head.seq, head.header_hash[..].try_into().ok()?))
    };
    heads.into_iter().map(mark).collect()
}

fn try_meaning(bytes: &Bytes) -> Option<Says> {
    let record: proto::Record = exactly(bytes).filter(|r: &proto::Record| r.salt.len() == 16 && bytes.len() <= 4096)?;
    let word = |about, family, value, expires| Says::Word {
        about,
        family,
        value,
        expires,
        labels: Vec::new(),
        incident: None,
    };
    Some(match record.kind {
        2 => {
            let o: proto::Opinion = exactly(&record.body)?;
            if !(1..=4).contains(&o.stance) || o.severity > 4 || o.basis > 5 || o.confidence > 100 || o.quality > 100 {
                return None;
            }
            let incident = if o.incident_id.is_empty() { None } else { Some(o.incident_id[..].try_into().ok()?) };
            let labels = o.labels.clone();
            Says::Word {
                about: about(o.subject)?,
                family: STANCE,
                value: o.stance,
                expires: o.expires_ms,
                labels,
                incident,
            }
        }
        3 => {
            let v: proto::RetractVote = exactly(&record.body)?;
            word(about(v.subject)?, RETRACT, u32::from(v.yes), 0)
        }
        4 => {
            let a: proto::Allow = exactly(&record.body)?;
            if a.yes && a.expires_ms == 0 {
                return None;
            }
            word(about(a.subject)?, ALLOW, u32::from(a.yes), a.expires_ms)
        }
        5 => {
            let r: proto::Referral = exactly(&record.body)?;
            word(about(r.subject)?, REFERRAL, u32::from(r.open), r.expires_ms)
        }
        6 => {
            let i: proto::Incident = exactly(&record.body)?;
            Says::Incident { id: i.id[..].try_into().ok()?, code: i.code, open: i.open, closes: i.closes_ms }
        }
        7 => {
            let heads = marks(exactly::<proto::Attest>(&record.body)?.heads)?;
            if !(1..=48).contains(&heads.len()) {
                return None;
            }
            Says::Attest { heads }
        }
        9 => {
            let s: proto::Suspend = exactly(&record.body)?;
            let (target, marks) = (s.member_id[..].try_into().ok()?, marks(s.marks)?);
            let logs: BTreeSet<_> = marks.iter().map(|m| m.0).collect();
            if logs.len() < marks.len() || logs.iter().any(|log| log.0 != target) {
                return None;
            }
            Says::Suspend { target, marks, until: s.until_ms }
        }
        10 => {
            exactly::<proto::LogClose>(&record.body)?;
            Says::Close
        }
        _ => return None,
    })
}

/// What a node should show: digest, and the status of every subject that was ever named within the prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) digest: Hash,
    pub(crate) statuses: BTreeMap<About, u8>,
    /// How far each log counts, and up to which block.
    pub(crate) prefixes: BTreeMap<LogId, (usize, Hash)>,
    /// Members that stewards cut off.
    pub(crate) suspended: BTreeSet<[u8; 16]>,
}

/// `(time, log, seq, index)`.
type Rank = (u64, u32, u64, usize);

struct Register {
    rank: Rank,
    value: u32,
    expires: u64,
    labels: Vec<u32>,
    incident: Option<[u8; 16]>,
}

/// PROTOCOL section 5, layers 4 to 6, at `t`: `prefixes` are the blocks that count, by log.
pub(crate) fn shown(charter: &proto::Charter, prefixes: &BTreeMap<LogId, Vec<&Block>>, t: u64) -> Shown {
    let members = members(charter);
    let quota = charter.policy.as_ref().map(|p| p.quota_per_day.clone()).unwrap_or_default();
    let mut used: BTreeMap<([u8; 16], u16, u64, bool), u32> = BTreeMap::new();
    let mut registers: BTreeMap<About, BTreeMap<([u8; 16], u8), Register>> = BTreeMap::new();
    let mut incidents: Incidents = BTreeMap::new();
    for (log, blocks) in prefixes {
        let Some(member) = members.get(&log.0) else { continue };
        for block in blocks.iter().filter(|b| b.class <= 2) {
            for (index, said) in block.said.iter().enumerate() {
                let withdraws = said.withdraws(charter.semantics);
                let used = used.entry((log.0, block.class, block.time / 86_400_000, withdraws)).or_default();
                *used += 1;
                if *used > quota[usize::from(block.class)] || block.time < member.admitted_ms {
                    continue;
                }
                let rank = (block.time, log.1, block.seq, index);
                match said {
                    Says::Word { about, family, value, expires, labels, incident } => {
                        let needs = [1 | 2, 1, 16, 8][usize::from(*family)];
                        let too_long = *family == ALLOW && *expires > block.time + 400 * 86_400_000;
                        if member.roles & needs == 0 || too_long {
                            continue;
                        }
                        if about.1 == VIDEO && charter.semantics < 4 {
                            continue;
                        }
                        if about.0 == ACCOUNT && !may_list(charter, about.2, *family, *value, *expires, block.time) {
                            continue;
                        }
                        let new = Register {
                            rank,
                            value: *value,
                            expires: *expires,
                            labels: labels.clone(),
                            incident: *incident,
                        };
                        let of_subject = registers.entry(about.clone()).or_default();
                        if of_subject.get(&(log.0, *family)).is_none_or(|old| old.rank < rank) {
                            of_subject.insert((log.0, *family), new);
                        }
                    }
                    Says::Incident { id, code, open, closes } if member.roles & (1 | 64) != 0 => {
                        let of_incident = incidents.entry(*id).or_default();
                        if of_incident.get(&log.0).is_none_or(|old| old.0 < rank) {
                            of_incident.insert(log.0, (rank, *code, *open, *closes));
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    statuses(charter, &members, &registers, &incidents, t)
}

/// M6: whether a word on an account counts. A retraction ends what is listed and may last; so may what takes a word back.
fn may_list(charter: &proto::Charter, pepper: u32, family: u8, value: u32, expires: u64, time: u64) -> bool {
    let ttl = charter.policy.as_ref().map_or(0, |p| p.account_ttl_max_ms);
    let back = if family == STANCE { value == 4 } else { value == 0 };
    let ends = expires > 0 && expires <= time + ttl;
    charter.semantics >= 3
        && charter.peppers.iter().any(|copy| copy.pepper_id == pepper)
        && (family == RETRACT || back || ends)
}

fn statuses(
    charter: &proto::Charter,
    members: &BTreeMap<[u8; 16], &proto::Member>,
    registers: &BTreeMap<About, BTreeMap<([u8; 16], u8), Register>>,
    incidents: &Incidents,
    t: u64,
) -> Shown {
    let policy = charter.policy.clone().unwrap_or_default();
    let full: BTreeSet<_> =
        charter.members.iter().filter(|m| m.status == 1 && m.roles & 1 != 0).map(|m| &m.group).collect();
    let retract_quorum =
        u64::from(policy.retract_min).max((full.len() as u64 * u64::from(policy.retract_permille)).div_ceil(1000));
    let mut shown = Shown::default();
    for (about, words) in registers {
        let mut groups: [BTreeSet<&str>; 6] = Default::default();
        let mut supporters = BTreeSet::new();
        let mut labels = BTreeSet::new();
        for ((id, family), r) in words {
            let (member, neutral) = (members[id], if *family == STANCE { 4 } else { 0 });
            let expired = r.expires > 0 && r.expires <= t;
            let support = *family == STANCE && r.value <= 2;
            if expired || r.value == neutral || (member.status == 3 && !support) {
                continue;
            }
            let column = match (*family, r.value) {
                (STANCE, 3) => 2,
                (STANCE, _) if member.roles & 1 != 0 => 0,
                (STANCE, _) => 1,
                (RETRACT, _) => 3,
                (ALLOW, _) => 4,
                _ => 5,
            };
            groups[column].insert(&member.group);
            if support {
                supporters.insert(*id);
                labels.extend(r.labels.iter().copied());
                let linked = r.incident.and_then(|i| incidents.get(&i)).into_iter().flat_map(BTreeMap::values);
                labels.extend(linked.filter(|i| i.2 && (i.3 == 0 || i.3 > t)).map(|i| i.1));
            }
        }
        let counts = groups.map(|g| g.len() as u32);
        let [support, small, disputes, retract, allow, referred] = counts;
        let status = if u64::from(retract) >= retract_quorum {
            2
        } else if allow >= policy.allow_quorum {
            3
        } else if support + small > 0 && disputes >= policy.contest_quorum {
            4
        } else if support > 0 {
            5
        } else if small > 0 {
            6
        } else if referred > 0 {
            7
        } else {
            8
        };
        if status != 8 {
            add(&mut shown.digest, &summand(about, status, counts, &supporters, &labels));
        }
        shown.statuses.insert(about.clone(), status);
    }
    shown
}

fn summand(
    about: &About,
    status: u8,
    counts: [u32; 6],
    supporters: &BTreeSet<[u8; 16]>,
    labels: &BTreeSet<u32>,
) -> Hash {
    let (kind, alg, param, digest) = about;
    let mut id = b"staydown/subject/v1\n".to_vec();
    id.extend_from_slice(&(*kind as u16).to_be_bytes());
    id.extend_from_slice(&(*alg as u16).to_be_bytes());
    id.extend_from_slice(&param.to_be_bytes());
    id.extend_from_slice(&(digest.len() as u16).to_be_bytes());
    id.extend_from_slice(digest);
    let mut bytes = b"staydown/view/v1\n".to_vec();
    bytes.extend_from_slice(&hash(&[&id]));
    bytes.push(status);
    counts.iter().for_each(|c| bytes.extend_from_slice(&c.to_be_bytes()));
    bytes.extend_from_slice(&(supporters.len() as u32).to_be_bytes());
    supporters.iter().for_each(|s| bytes.extend_from_slice(s));
    bytes.extend_from_slice(&(labels.len() as u32).to_be_bytes());
    labels.iter().for_each(|l| bytes.extend_from_slice(&l.to_be_bytes()));
    hash(&[&bytes])
}

/// Addition modulo 2^256, the way it is taught at school.
fn add(sum: &mut Hash, summand: &Hash) {
    let mut carry = 0;
    for i in (0..32).rev() {
        let digit = u16::from(sum[i]) + u16::from(summand[i]) + carry;
        sum[i] = (digit & 0xff) as u8;
        carry = digit >> 8;
    }
}

/// RFC 6962 root over leaf hashes, by its recursive definition.
pub(crate) fn tree_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => hash(&[]),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            hash(&[&[1], &tree_root(left), &tree_root(right)])
        }
    }
}
