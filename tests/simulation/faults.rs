//! What goes wrong: the plan that a seed makes, and the members that lie.

use std::collections::BTreeMap;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use prost::Message as _;
use staydown::replica::block::{Frame, Header, SignedHeader, Slot};
use staydown::replica::charter::SEMANTICS_MAX;
use staydown::replica::exchange::Draw;
use staydown::replica::ids::{BlockId, Class, ForumId, Head, HeaderHash, LogNo, MemberId, Origin, Seq, TimeMs, sha256};
use staydown::replica::merkle::{self, CompactRange};
use staydown::replica::signed::{Opening, log_leaf, open_log};
use staydown::replica::{forks, heads, proto, record};

use crate::forum::{Company, STEWARD, bytes16, malformed, of_account, of_video, statement, suspension};

/// 20:00 UTC on some day; runs begin up to four hours later, so that some cross midnight.
const EVENING: u64 = 1_795_000_000_000 / 86_400_000 * 86_400_000 + 20 * 3_600_000;

/// What a schedule is like; everything follows from the seed.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) start: u64,
    pub(crate) members: usize,
    pub(crate) liars: usize,
    pub(crate) joiners: usize,
    pub(crate) quota: [u32; 3],
    /// The charter's semantics level at the beginning.
    pub(crate) semantics: u32,
    /// Honest nodes in a thousand whose release knows only the level at the beginning, or one more.
    pub(crate) old_permille: u64,
    pub(crate) steps: usize,
    pub(crate) gap_ms: u64,
    pub(crate) loss_permille: u64,
    pub(crate) latency_ms: u64,
    pub(crate) flush_ms: u64,
    pub(crate) skew_ms: u64,
    /// Faults end and everybody must come together again.
    pub(crate) heals: bool,
    /// Weights of a step's kind: see `Step::ALL`.
    pub(crate) weights: [u64; 15],
}

/// What one step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Say,
    SayMuch,
    Lie,
    Crash,
    Restart,
    Partition,
    Clock,
    Backup,
    Damage,
    Govern,
    Suspend,
    Steal,
    Close,
    Upgrade,
    Copy,
}

impl Step {
    const ALL: [Self; 15] = [
        Self::Say,
        Self::SayMuch,
        Self::Lie,
        Self::Crash,
        Self::Restart,
        Self::Partition,
        Self::Clock,
        Self::Backup,
        Self::Damage,
        Self::Govern,
        Self::Suspend,
        Self::Steal,
        Self::Close,
        Self::Upgrade,
        Self::Copy,
    ];
}

impl Plan {
    /// The plan of a seed.
    pub(crate) fn of(draw: &mut Draw) -> Self {
        let members =
            [3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 6, 6, 7, 8, 10, 12][draw.below(24) as usize];
        let liars = if draw.below(3) == 0 { 0 } else { ((members - 1) / 3).max(usize::from(draw.below(4) == 0)) };
        let on = |draw: &mut Draw, weight: u64| if draw.below(3) == 0 { 0 } else { weight };
        // Half of the runs begin so shortly before an hour or midnight that they cross it.
        let start = if draw.below(2) == 0 {
            EVENING + draw.below(4) * 3_600_000 + 3_540_000
        } else {
            EVENING + draw.below(14_000_000)
        };
        let semantics = [1, 2, 2, 3, 4][draw.below(5) as usize];
        Self {
            start,
            members,
            liars: liars.min(3),
            joiners: usize::from(draw.below(3) == 0) * (1 + draw.below(2) as usize),
            quota: if draw.below(3) == 0 { [6 + draw.below(6) as u32, 5, 5] } else { [1000, 1000, 1000] },
            semantics,
            // A forum begins at a level that all its nodes know.
            old_permille: if semantics < SEMANTICS_MAX { [0, 300, 600][draw.below(3) as usize] } else { 0 },
            steps: 30 + draw.below(if members > 6 { 50 } else { 100 }) as usize,
            gap_ms: [500, 1_500, 4_000][draw.below(3) as usize],
            loss_permille: [0, 20, 100, 250][draw.below(4) as usize],
            latency_ms: [20, 80, 1_500][draw.below(3) as usize],
            flush_ms: [2, 30, 800][draw.below(3) as usize],
            skew_ms: [0, 2_000, 60_000, 300_000][draw.below(4) as usize],
            heals: draw.below(4) > 0,
            weights: [
                30,
                4,
                if liars > 0 { 12 } else { 0 },
                on(draw, 4),
                5,
                on(draw, 4),
                on(draw, 3),
                on(draw, 4),
                on(draw, 4),
                on(draw, 6),
                on(draw, 3),
                if liars > 0 { on(draw, 3) } else { 0 },
                on(draw, 1),
                on(draw, 2),
                if std::env::var_os("STAYDOWN_COPIES").is_some() { 1 } else { 0 },
            ],
        }
    }

    /// A schedule in which an honest node is likely to meet two chains of one log and to be told by the founders that the
    /// other one counts.
    pub(crate) fn with_thieves(mut self) -> Self {
        (self.liars, self.semantics, self.old_permille) = (self.liars.max(1), 2, 0);
        for (step, weight) in [(Step::Lie, 20), (Step::Partition, 6), (Step::Govern, 12), (Step::Steal, 8)] {
            if let Some(at) = Step::ALL.iter().position(|s| *s == step) {
                self.weights[at] = weight;
            }
        }
        self
    }

    /// What comes next.
    pub(crate) fn step(&self, draw: &mut Draw) -> Step {
        let mut at = draw.below(self.weights.iter().sum());
        for (step, weight) in Step::ALL.into_iter().zip(self.weights) {
            if at < weight {
                return step;
            }
            at -= weight;
        }
        Step::Say
    }
}

/// One chain of one log, as its owner may write it.
#[derive(Clone)]
struct Chain {
    key: SigningKey,
    opening: Opening,
    frames: Vec<Frame>,
}

impl Chain {
    fn new(forum: ForumId, origin: Origin, class: u16, company: &Company, salt: u8) -> Self {
        let seed = sha256(&[b"liar", &company.log_seed, &origin.to_bytes(), &[salt]]);
        let key = SigningKey::from_bytes(&seed);
        Self { opening: open_log(forum, origin, class, company.root(0), &key), key, frames: Vec::new() }
    }

    fn append(
        &mut self,
        forum: ForumId,
        origin: Origin,
        mut records: Vec<Bytes>,
        time: u64,
        bend: impl FnOnce(&mut Header),
    ) {
        if self.frames.is_empty() {
            records.insert(0, record::encode(proto::Kind::LogOpen, [7; 16], &self.opening.message));
        }
        let mut range = CompactRange::default();
        self.frames.iter().for_each(|f| range.append(log_leaf(f.header.hash())));
        let slots: Vec<_> = records.into_iter().map(Slot::Record).collect();
        let last = self.frames.last().map(|f| f.header.header().time.0).unwrap_or_default();
        let mut header = Header {
            forum,
            id: BlockId { origin, seq: Seq(self.frames.len() as u64 + 1) },
            class: self.opening.class,
            audience: 0,
            time: TimeMs(time.max(last)),
            prev: self.frames.last().map_or(HeaderHash::ZERO, |f| f.header.hash()),
            log_root: range.root(),
            record_count: slots.len() as u32,
            payload_len: slots.iter().map(|s| if let Slot::Record(r) = s { r.len() as u32 } else { 0 }).sum(),
            records_root: merkle::root(slots.iter().map(Slot::leaf)),
            key_id: self.opening.key_id,
            flags: 0,
            ext_hash: [0; 32],
        };
        bend(&mut header);
        self.frames.push(Frame { header: SignedHeader::sign(header, &self.key), slots, ext: Bytes::new() });
    }

    fn head(&self) -> Option<Head> {
        self.frames.last().map(|f| f.header.head())
    }
}

/// A log of a liar: one chain, or two that are shown to different peers.
struct Told {
    origin: Origin,
    chains: Vec<Chain>,
    /// Bit of a peer: which chain it is shown.
    mask: u64,
    /// Ends in a block that breaks a rule.
    over: bool,
    /// An honest member's log: the first chain is its own, the second is written with its stolen key.
    stolen: bool,
}

impl Told {
    fn to(&self, peer: usize) -> &Chain {
        &self.chains[(self.mask >> peer & 1) as usize % self.chains.len()]
    }
}

/// A member that lies: it has a key, and the protocol's rules are only advice to it.
pub(crate) struct Liar {
    company: &'static Company,
    forum: ForumId,
    told: Vec<Told>,
    /// Tells lies about the logs of others, and sends what is no frame.
    noisy: bool,
}

impl Liar {
    pub(crate) fn new(company: &'static Company, forum: ForumId, draw: &mut Draw) -> Self {
        Self { company, forum, told: Vec::new(), noisy: draw.below(3) == 0 }
    }

    fn own_logs(&self) -> usize {
        self.told.iter().filter(|t| !t.stolen).count()
    }

    /// Gets hold of the key of an honest log, whose blocks so far are `frames`: it goes on from block `keep` in another
    /// way. Whoever has the log's key needs no root key to sign position 1 again.
    pub(crate) fn steal(&mut self, draw: &mut Draw, key: SigningKey, opening: Opening, frames: Vec<Frame>) {
        let Some(origin) = frames.first().map(|f| f.header.header().id.origin) else { return };
        let keep = draw.below(frames.len() as u64) as usize;
        let theirs = Chain { key: key.clone(), opening: opening.clone(), frames: frames.clone() };
        let mut ours = Chain { key, opening, frames };
        ours.frames.truncate(keep);
        self.told.push(Told { origin, chains: vec![theirs, ours], mask: draw.number(), over: false, stolen: true });
    }

    /// Heads of everything it tells, both sides of it.
    pub(crate) fn stories(&self) -> Vec<(Origin, Head)> {
        self.told.iter().flat_map(|t| t.chains.iter().filter_map(|c| Some((t.origin, c.head()?)))).collect()
    }

    fn open(&mut self, draw: &mut Draw, now: u64) -> usize {
        let origin = Origin { member: self.company.id, log_no: LogNo(self.own_logs() as u32) };
        let class = Class::ALL[draw.below(3) as usize].number();
        let chain = Chain::new(self.forum, origin, class, self.company, 0);
        let mut told = Told { origin, chains: vec![chain], mask: draw.number(), over: false, stolen: false };
        if draw.below(6) == 0 {
            // Opened twice, and once with a first block that breaks a rule.
            told.chains[0].append(self.forum, origin, Vec::new(), now, |h| h.log_root = [9; 32]);
            told.chains.push(Chain::new(self.forum, origin, class, self.company, 1));
        }
        self.told.push(told);
        self.told.len() - 1
    }

    /// Does something that a member should not, or pretends to be good. Returns the frames it made.
    /// `heads` are of what others hold: it attests to them, or to something else.
    pub(crate) fn act(&mut self, draw: &mut Draw, roles: u32, now: u64, heads: &[(Origin, Head)]) -> Vec<Frame> {
        let stolen: Vec<_> = (0..self.told.len()).filter(|at| self.told[*at].stolen).collect();
        if !stolen.is_empty() && draw.below(2) == 0 {
            let at = stolen[draw.below(stolen.len() as u64) as usize];
            return self.impersonate(at, draw, roles, now, heads);
        }
        let open = self.told.iter().rposition(|t| !t.over && !t.stolen).filter(|_| draw.below(6) > 0);
        let at = match open {
            Some(at) => at,
            None if self.own_logs() < 12 => self.open(draw, now),
            None => return Vec::new(),
        };
        let forum = self.forum;
        let kind = draw.below(12);
        let many = if draw.below(8) == 0 { 25 } else { 1 + draw.below(3) };
        let records = |draw: &mut Draw| -> Vec<Bytes> {
            let one = |draw: &mut Draw| match draw.below(11) {
                10 => of_video(draw, roles, true),
                0..2 => malformed(draw, now),
                2..5 => governs(draw, roles, now, heads),
                5..7 => of_account(draw, roles, now, true),
                _ => statement(draw, roles, now),
            };
            (0..many).map(|_| one(draw)).collect()
        };
        if kind >= 9 && self.told[at].chains.len() == 1 && !self.told[at].chains[0].frames.is_empty() {
            self.fork(at, draw);
        }
        let told = &mut self.told[at];
        let origin = told.origin;
        let mut made = Vec::new();
        for chain in &mut told.chains {
            if made.len() == 1 && draw.below(3) == 0 {
                continue; // the other chain grows alone
            }
            let said = records(draw);
            match kind {
                0 => chain.append(forum, origin, said, now, |h| h.log_root = [9; 32]),
                1 => chain.append(forum, origin, said, now, |h| h.prev = HeaderHash([8; 32])),
                2 if !chain.frames.is_empty() => {
                    chain.append(forum, origin, said, now, |h| h.class = (h.class + 1) % 3);
                }
                3 if !chain.frames.is_empty() => {
                    chain.append(forum, origin, said, now, |h| h.time = TimeMs(h.time.0 - 600_000));
                }
                4 => chain.append(forum, origin, said, now, |h| h.record_count += 1),
                5 => chain.append(forum, origin, said, now + 60_000 + draw.below(500_000), |_| ()),
                _ => chain.append(forum, origin, said, now, |_| ()),
            }
            made.extend(chain.frames.last().cloned());
        }
        let after_breach = |h: &Frame| h.header.header().time.0 > now + 3_600_000;
        told.over |= kind <= 4 || made.iter().any(after_breach);
        made
    }

    /// Writes into an honest member's log.
    fn impersonate(
        &mut self,
        at: usize,
        draw: &mut Draw,
        roles: u32,
        now: u64,
        heads: &[(Origin, Head)],
    ) -> Vec<Frame> {
        let (forum, told) = (self.forum, &mut self.told[at]);
        let said = vec![statement(draw, roles, now), governs(draw, roles, now, heads)];
        let before = told.chains[0].frames.first().map_or(0, |f| f.header.header().time.0);
        let time = if draw.below(2) == 0 { now } else { before };
        told.chains[1].append(forum, told.origin, said, time, |_| ());
        told.chains[1].frames.last().cloned().into_iter().collect()
    }

    /// From here on, two stories.
    fn fork(&mut self, at: usize, draw: &mut Draw) {
        let told = &mut self.told[at];
        let mut other = told.chains[0].clone();
        let keep = draw.below(other.frames.len() as u64) as usize;
        if keep == 0 && draw.below(2) == 0 {
            // Two openings of one number.
            let class = other.opening.class;
            other = Chain::new(self.forum, told.origin, class, self.company, 1);
        }
        other.frames.truncate(keep);
        told.chains.push(other);
    }

    /// What it says it holds.
    pub(crate) fn heads(&self, peer: usize, draw: &mut Draw, truth: &BTreeMap<Origin, Head>) -> Vec<proto::Head> {
        let own = self.told.iter().filter_map(|told| Some((told.origin, told.to(peer).head()?)));
        let mut heads: BTreeMap<_, _> = own.collect();
        if self.noisy && draw.below(4) == 0 && !truth.is_empty() {
            let (origin, head) = truth.iter().nth(draw.below(truth.len() as u64) as usize).expect("within");
            let seq = Seq(head.seq.0 + draw.below(3));
            heads.insert(*origin, Head { seq, hash: HeaderHash(sha256(&[&draw.number().to_be_bytes()])) });
        }
        heads.into_iter().map(|(origin, head)| heads::head_to_proto(origin, head)).collect()
    }

    /// Blocks beyond what was sent, on the chain that `peer` is shown.
    pub(crate) fn blocks(&self, peer: usize, sent: &mut BTreeMap<Origin, u64>) -> Vec<Frame> {
        let mut frames = Vec::new();
        for told in &self.told {
            let sent = sent.entry(told.origin).or_default();
            let chain = told.to(peer);
            frames.extend(chain.frames.iter().skip(*sent as usize).cloned());
            *sent = (*sent).max(chain.frames.len() as u64);
        }
        frames
    }

    /// A header for whoever searches.
    pub(crate) fn header(&self, peer: usize, origin: Origin, seq: Seq) -> Option<proto::SignedHeader> {
        let chain = self.told.iter().find(|told| told.origin == origin)?.to(peer);
        let frame = chain.frames.get(usize::try_from(seq.0.checked_sub(1)?).ok()?)?;
        Some(proto::SignedHeader {
            header: Bytes::copy_from_slice(frame.header.bytes()),
            signature: Bytes::copy_from_slice(frame.header.signature()),
            open: Some(chain.opening.message.clone()),
        })
    }

    /// What no honest peer sends, as the bytes of a `PullReply`.
    pub(crate) fn noise(&self, draw: &mut Draw, honest: &[Bytes], now: u64) -> Option<Bytes> {
        if !self.noisy || draw.below(6) > 0 {
            return None;
        }
        let stolen = honest
            .get(draw.below(honest.len() as u64) as usize)
            .and_then(|b| proto::BlockFrame::decode(b.clone()).ok());
        let item = match (draw.below(7), stolen) {
            (0, _) => return Some(vec![0xff, 0x01, 0x02].into()),
            (1, Some(mut frame)) => {
                frame
                    .slots
                    .iter_mut()
                    .for_each(|s| s.s = Some(proto::slot::S::Record(Bytes::from_static(b"not what was said"))));
                proto::pull_reply::Item::Block(frame)
            }
            (2, Some(mut frame)) => {
                frame.signature = vec![1; 64].into();
                proto::pull_reply::Item::Block(frame)
            }
            (3, Some(frame)) => {
                // Accuses an honest author with one header twice.
                let header = proto::SignedHeader { header: frame.header, signature: frame.signature, open: None };
                let fork = proto::ForkProof { a: Some(header.clone()), b: Some(header) };
                proto::pull_reply::Item::Proof(proto::Proof { p: Some(proto::proof::P::Fork(fork)) })
            }
            (4, Some(mut frame)) => {
                frame.slots.pop();
                proto::pull_reply::Item::Block(frame)
            }
            (5, _) => proto::pull_reply::Item::Tick(proto::Tick {
                time_ms: now + 86_400_000,
                have_digest: vec![3; 32].into(),
                charter_hash: vec![4; 32].into(),
                view_hour: now / 3_600_000 * 3_600_000,
                view_digest: vec![5; 32].into(),
                disputes_digest: Bytes::new(),
            }),
            (_, Some(frame)) => proto::pull_reply::Item::Block(frame), // true, and out of place
            (_, None) => return None,
        };
        Some(proto::PullReply { item: Some(item) }.encode_to_vec().into())
    }
}

/// What a member says about others: an attestation or a suspension, true or not.
fn governs(draw: &mut Draw, roles: u32, now: u64, heads: &[(Origin, Head)]) -> Bytes {
    let some: Vec<_> = heads.iter().filter(|_| draw.below(2) == 0).take(48).copied().collect();
    if roles & STEWARD != 0 && draw.below(3) == 0 {
        let target = some.first().map_or(MemberId([7; 16]), |(origin, _)| origin.member);
        return suspension(draw, target, &some, now);
    }
    let mut heads: Vec<_> = some.into_iter().map(|(origin, head)| heads::head_to_proto(origin, head)).collect();
    if let Some(head) = heads.first_mut().filter(|_| draw.below(4) == 0) {
        head.header_hash = vec![9; 32].into();
    }
    record::encode(proto::Kind::Attest, bytes16(draw), &proto::Attest { heads, ..Default::default() })
}

/// Name of a proof, for the streams' bookkeeping.
pub(crate) fn proof_name(proof: &proto::Proof) -> [u8; 32] {
    forks::proof_hash(proof)
}
