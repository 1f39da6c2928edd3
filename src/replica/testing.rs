//! Builders for tests: founders, members, signed charters, and logs whose blocks are signed by their keys.
//!
//! Everything here is made from names and numbers, so that a test says only what it is about.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use prost::Message as _;

use crate::replica::block::{Frame, Header, SignedHeader, Slot};
use crate::replica::charter::{
    Charter, CharterChain, SEALED_PEPPER_SIZE, SEMANTICS_MAX, charter_hash, prove_possession, sign_charter,
};
use crate::replica::heads::head_to_proto;
use crate::replica::ids::{BlockId, Class, ForumId, Head, HeaderHash, LogNo, MemberId, Origin, Seq, TimeMs, sha256};
use crate::replica::signal::{Alg, KIND_ACCOUNT, Subject};
use crate::replica::signed::{Keyring, Opening, VerifiedBlock, VerifiedHeader, log_leaf, open_log};
use crate::replica::wrong::Rules;
use crate::replica::{Replica, Restore, Settings, merkle, proto, record, vpdq};

/// The start of an hour and of a day: the time at which every test begins.
pub(crate) const START: TimeMs = TimeMs(20_000 * TimeMs::DAY_MS);
/// Context of the proofs of possession in a first charter.
pub(crate) const NONCE: [u8; 32] = [0x5a; 32];

pub(crate) const FULL: u32 = 1;
pub(crate) const SMALL: u32 = 2;
pub(crate) const REFERRAL: u32 = 8;
pub(crate) const CERTIFIER: u32 = 16;
pub(crate) const AUDITOR: u32 = 32;
pub(crate) const STEWARD: u32 = 64;

/// The key of a name, the same in every run.
pub(crate) fn key(name: &str) -> SigningKey {
    SigningKey::from_bytes(&sha256(&[b"testing", name.as_bytes()]))
}

pub(crate) fn public(key: &SigningKey) -> Bytes {
    Bytes::copy_from_slice(key.verifying_key().as_bytes())
}

pub(crate) fn founder(number: usize) -> SigningKey {
    key(&format!("founder {number}"))
}

pub(crate) fn root(member: u8) -> SigningKey {
    key(&format!("root {member}"))
}

pub(crate) fn id(member: u8) -> MemberId {
    MemberId([member; 16])
}

pub(crate) fn origin(member: u8, log_no: u32) -> Origin {
    Origin { member: id(member), log_no: LogNo(log_no) }
}

/// A member of a number, a group and roles, with everything that a charter asks for.
pub(crate) fn member(number: u8, group: &str, roles: u32) -> proto::Member {
    let root = root(number);
    proto::Member {
        id: Bytes::copy_from_slice(&id(number).0),
        name: format!("member-{number}"),
        group: group.into(),
        roles,
        status: 1,
        log_limit: 4,
        log_root_key: public(&root),
        nodes: vec![proto::NodeEntry {
            tls_spki_sha256: vec![vec![number; 32].into()],
            endpoints: vec![format!("member-{number}.example.org:7700")],
            ..Default::default()
        }],
        pop: Bytes::copy_from_slice(&prove_possession(&root, &NONCE, id(number))),
        jurisdictions: vec![format!("J{number}")],
        ..Default::default()
    }
}

/// A forum of three founders of whom two must sign, and its charters.
#[derive(Clone)]
pub(crate) struct TestForum {
    pub(crate) id: ForumId,
    pub(crate) charters: Vec<proto::SignedCharter>,
    pub(crate) latest: proto::Charter,
}

impl TestForum {
    /// Members 1, 2, 3, ... with these groups and roles.
    pub(crate) fn of(members: &[(&str, u32)]) -> Self {
        Self::with(members, |_| ())
    }

    /// As [`TestForum::of`], with a change to the first charter.
    pub(crate) fn with(members: &[(&str, u32)], change: impl FnOnce(&mut proto::Charter)) -> Self {
        let mut latest = first_charter(members);
        change(&mut latest);
        let signed = sign_by(&latest, &[0, 1]);
        Self { id: ForumId(charter_hash(&signed.body).0), charters: vec![signed], latest }
    }

    /// A forum of `count` FULL companies, each a group of its own.
    pub(crate) fn of_full(count: u8) -> Self {
        let groups: Vec<_> = (1..=count).map(|n| format!("group-{n}")).collect();
        Self::of(&groups.iter().map(|g| (g.as_str(), FULL)).collect::<Vec<_>>())
    }

    /// The body of the next version.
    pub(crate) fn draft(&self, change: impl FnOnce(&mut proto::Charter)) -> proto::Charter {
        let mut next = self.latest.clone();
        next.version += 1;
        next.prev_hash = Bytes::copy_from_slice(&charter_hash(&self.charters[self.charters.len() - 1].body).0);
        next.forum_id = Bytes::copy_from_slice(&self.id.0);
        change(&mut next);
        next
    }

    /// The next version, signed by two founders.
    pub(crate) fn next(&self, change: impl FnOnce(&mut proto::Charter)) -> proto::SignedCharter {
        sign_by(&self.draft(change), &[0, 1])
    }

    /// Issues the next version.
    pub(crate) fn issue(&mut self, change: impl FnOnce(&mut proto::Charter)) -> proto::SignedCharter {
        let next = self.draft(change);
        let signed = sign_by(&next, &[0, 1]);
        self.latest = next;
        self.charters.push(signed.clone());
        signed
    }

    pub(crate) fn chain(&self) -> CharterChain {
        let mut chain = CharterChain::found(self.id, self.charters[0].clone()).unwrap();
        for charter in &self.charters[1..] {
            chain.apply(charter.clone()).unwrap();
        }
        chain
    }

    pub(crate) fn charter(&self) -> Charter {
        self.chain().effective().clone()
    }

    pub(crate) fn keyring(&self) -> Keyring {
        Keyring::new(&self.chain())
    }

    /// A log of `member` of which nothing is written yet.
    pub(crate) fn log(&self, member: u8, log_no: u32, class: Class) -> TestLog {
        let origin = origin(member, log_no);
        let key = key(&format!("log {member} {log_no}"));
        let opening = open_log(self.id, origin, class.number(), &root(member), &key);
        TestLog {
            forum: self.id,
            origin,
            key,
            opening,
            range: merkle::CompactRange::default(),
            prev: HeaderHash::ZERO,
            time: START,
        }
    }
}

/// The first charter of a forum, before it is signed.
pub(crate) fn first_charter(members: &[(&str, u32)]) -> proto::Charter {
    proto::Charter {
        version: 1,
        name: "test forum".into(),
        semantics: 1,
        founder_keys: (0..3).map(|n| public(&founder(n))).collect(),
        threshold: 2,
        members: (1..).zip(members).map(|(n, (group, roles))| member(n, group, *roles)).collect(),
        policy: Some(proto::Policy {
            retract_min: 2,
            retract_permille: 500,
            contest_quorum: 2,
            allow_quorum: 1,
            quota_per_day: vec![100_000, 10_000, 5_000_000],
            stale_grace_ms: TimeMs::DAY_MS,
            log_bytes_max: 1 << 30,
            ..Default::default()
        }),
        issued_ms: START.0,
        valid_until_ms: START.0 + 365 * TimeMs::DAY_MS,
        nonce: Bytes::copy_from_slice(&NONCE),
        taxonomy: "staydown-example-1".into(),
        ..Default::default()
    }
}

/// `charter`, signed by the founders of these numbers.
pub(crate) fn sign_by(charter: &proto::Charter, founders: &[usize]) -> proto::SignedCharter {
    let body: Bytes = charter.encode_to_vec().into();
    proto::SignedCharter { sigs: founders.iter().map(|n| sign_charter(&founder(*n), &body)).collect(), body }
}

/// A log that is being written, honestly unless a test changes a header.
#[derive(Clone)]
pub(crate) struct TestLog {
    forum: ForumId,
    pub(crate) origin: Origin,
    pub(crate) key: SigningKey,
    pub(crate) opening: Opening,
    pub(crate) range: merkle::CompactRange,
    prev: HeaderHash,
    pub(crate) time: TimeMs,
}

impl TestLog {
    fn seq(&self) -> Seq {
        Seq(self.range.size() + 1)
    }

    /// The records of the next block: block 1 begins with the opening.
    fn records(&self, records: &[Bytes]) -> Vec<Slot> {
        let open = (self.seq() == Seq(1)).then(|| record::encode(proto::Kind::LogOpen, [1; 16], &self.opening.message));
        open.into_iter().chain(records.iter().cloned()).map(Slot::Record).collect()
    }

    /// The next block with a change to its header, signed; the log stays as it is.
    pub(crate) fn draft(&self, records: &[Bytes], change: impl FnOnce(&mut Header)) -> Frame {
        let slots = self.records(records);
        let payload: usize = slots.iter().map(|s| if let Slot::Record(r) = s { r.len() } else { 0 }).sum();
        let mut header = Header {
            forum: self.forum,
            id: BlockId { origin: self.origin, seq: self.seq() },
            class: self.opening.class,
            audience: 0,
            time: self.time,
            prev: self.prev,
            log_root: self.range.root(),
            record_count: u32::try_from(slots.len()).unwrap(),
            payload_len: u32::try_from(payload).unwrap(),
            records_root: merkle::root(slots.iter().map(Slot::leaf)),
            key_id: self.opening.key_id,
            flags: 0,
            ext_hash: [0; 32],
        };
        change(&mut header);
        Frame { header: SignedHeader::sign(header, &self.key), slots, ext: Bytes::new() }
    }

    /// Writes the next block; the time goes on by a millisecond.
    pub(crate) fn push(&mut self, records: &[Bytes]) -> Frame {
        let frame = self.draft(records, |_| ());
        self.prev = frame.header.hash();
        self.range.append(log_leaf(self.prev));
        self.time = self.time.plus(1);
        frame
    }

    /// As [`TestLog::push`], verified; `ring` learns the opening.
    pub(crate) fn block(&mut self, ring: &mut Keyring, records: &[Bytes]) -> VerifiedBlock {
        let block = ring.verify(self.push(records)).unwrap();
        ring.learn(&block);
        block
    }
}

/// The header of a frame as it travels alone.
pub(crate) fn header_of(frame: &Frame, opening: &Opening) -> proto::SignedHeader {
    proto::SignedHeader {
        header: Bytes::copy_from_slice(frame.header.bytes()),
        signature: Bytes::copy_from_slice(frame.header.signature()),
        open: Some(opening.message.clone()),
    }
}

/// The same, verified.
pub(crate) fn verified_header(ring: &Keyring, frame: &Frame, opening: &Opening) -> VerifiedHeader {
    ring.verify_header(&header_of(frame, opening)).unwrap()
}

/// A SHA-256 subject of a number.
pub(crate) fn subject(number: u8) -> Subject {
    Subject::of(Alg::Sha256, &[number; 32])
}

/// Turns accounts on: level 3, and these peppers, each sealed to every member.
pub(crate) fn with_peppers(charter: &mut proto::Charter, peppers: &[u32]) {
    charter.semantics = 3;
    charter.policy.as_mut().unwrap().account_ttl_max_ms = ACCOUNT_DAYS * TimeMs::DAY_MS;
    charter.members.iter_mut().for_each(|m| m.seal_key = vec![8; 32].into());
    let copy = |pepper_id: u32, m: &proto::Member| proto::SealedPepper {
        pepper_id,
        member_id: m.id.clone(),
        sealed: vec![7; SEALED_PEPPER_SIZE].into(),
    };
    charter.peppers = peppers.iter().flat_map(|id| charter.members.iter().map(|m| copy(*id, m))).collect();
}

/// A record's part of a video: `count` frames that nothing else is near.
pub(crate) fn video(number: u8, count: u8) -> Subject {
    let frame =
        |n: u8| vpdq::Frame { hash: sha256(&[&[number, n]]), quality: 50 + n % 51, time_ms: u32::from(n) * 1_000 };
    Subject::of_frames(&(0..count).map(frame).collect::<Vec<_>>()).unwrap()
}

/// How long a word on an account lasts at most where [`with_peppers`] turned accounts on.
pub(crate) const ACCOUNT_DAYS: u64 = 30;

/// The pseudonym of an account under a pepper.
pub(crate) fn account(number: u8, pepper: u32) -> Subject {
    Subject::new(KIND_ACCOUNT, Alg::Account.number(), pepper, &[number; 32])
}

fn salted(kind: proto::Kind, body: &impl prost::Message) -> Bytes {
    record::encode(kind, [9; 16], body)
}

/// An opinion on a subject: 1 submit, 2 endorse, 3 dispute, 4 neutral.
pub(crate) fn opinion(about: u8, stance: u32) -> Bytes {
    opinion_with(about, stance, |_| ())
}

pub(crate) fn opinion_with(about: u8, stance: u32, change: impl FnOnce(&mut proto::Opinion)) -> Bytes {
    let mut opinion = proto::Opinion { subject: Some(subject(about).to_proto()), stance, ..Default::default() };
    change(&mut opinion);
    salted(proto::Kind::Opinion, &opinion)
}

pub(crate) fn retract(about: u8, yes: bool) -> Bytes {
    let vote = proto::RetractVote { subject: Some(subject(about).to_proto()), yes, reason: 1 };
    salted(proto::Kind::RetractVote, &vote)
}

pub(crate) fn allow(about: u8, yes: bool, expires: TimeMs) -> Bytes {
    let allow =
        proto::Allow { subject: Some(subject(about).to_proto()), yes, expires_ms: expires.0, ..Default::default() };
    salted(proto::Kind::Allow, &allow)
}

pub(crate) fn referral(about: u8, open: bool) -> Bytes {
    let referral = proto::Referral { subject: Some(subject(about).to_proto()), open, ..Default::default() };
    salted(proto::Kind::Referral, &referral)
}

pub(crate) fn incident(number: u8, code: u32, open: bool, closes: TimeMs) -> Bytes {
    let incident = proto::Incident { id: vec![number; 16].into(), code, level: 1, open, closes_ms: closes.0 };
    salted(proto::Kind::Incident, &incident)
}

/// An attestation of these heads.
pub(crate) fn attest(heads: &[(Origin, Head)]) -> Bytes {
    let heads = heads.iter().map(|(origin, head)| head_to_proto(*origin, *head)).collect();
    salted(proto::Kind::Attest, &proto::Attest { heads, ..Default::default() })
}

/// A suspension of a member until a time, with what of its logs still counts.
pub(crate) fn suspend(member: u8, marks: &[(Origin, Head)], until: TimeMs) -> Bytes {
    let marks = marks.iter().map(|(origin, head)| head_to_proto(*origin, *head)).collect();
    let member_id = Bytes::copy_from_slice(&id(member).0);
    salted(proto::Kind::Suspend, &proto::Suspend { member_id, marks, until_ms: until.0, reason: 10 })
}

/// What the node of a member signs with.
pub(crate) fn settings(me: u8) -> Settings {
    Settings {
        me: id(me),
        root: root(me),
        log_seed: [me; 32],
        seed: u64::from(me),
        rules: Rules::default(),
        instance: u64::from(me),
        moved: false,
        closed_below: LogNo(0),
        semantics_max: SEMANTICS_MAX,
    }
}

/// The node of a member that starts with nothing but the charters.
pub(crate) fn replica(forum: &TestForum, me: u8) -> Replica {
    Restore::new(settings(me), forum.id, forum.charters.clone(), START).unwrap().finish().0
}
