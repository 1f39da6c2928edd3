//! Whatever is changed in what strangers send: nothing panics, and nothing changed is believed.
//!
//! A seed decides everything; a failure names its target, its number and the bytes. `STAYDOWN_MUTATIONS` sets how many
//! inputs are made over all targets (default 1,000,000: ten seconds of a debug build), `STAYDOWN_SEED` the seed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use prost::Message as _;
use staydown::replica::block::{Frame, HEADER_SIZE, Header};
use staydown::replica::charter::{Applied, Charter, CharterChain, SealKey};
use staydown::replica::exchange::Draw;
use staydown::replica::heads::Have;
use staydown::replica::ids::{Class, Head, HeaderHash, MemberId, Pin, Seq};
use staydown::replica::signed::{Keyring, Unverified};
use staydown::replica::strict::{self, Scanned};
use staydown::replica::{forks, proto, record};
use staydown::wire::files::{self, Applicant, Binding, Invitation, JoinRequest, Kind};

use staydown::replica;

#[expect(dead_code, clippy::unwrap_used, reason = "made for the unit tests; the mutations need a part of it")]
#[path = "../src/replica/testing.rs"]
mod testing;

#[path = "parsers/mutate.rs"]
mod mutate;

use mutate::mutated;
use testing::{START, TestForum, TestLog, allow, id, incident, opinion_with, origin, referral, retract, root};

/// Inputs over all targets when the environment asks for nothing else.
const INPUTS: u64 = 1_000_000;

type Check = Box<dyn Fn(&[u8])>;

/// What one kind of input must withstand.
struct Target {
    name: &'static str,
    /// Its part of all inputs, in thousandths: what checks many signatures gets fewer.
    permille: u64,
    corpus: Vec<Vec<u8>>,
    /// Panics or asserts when something is wrong with what was made of the bytes.
    check: Check,
}

#[test]
fn nothing_changed_is_believed_and_nothing_panics() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
    };
    let (inputs, seed) = (number("STAYDOWN_MUTATIONS", INPUTS), number("STAYDOWN_SEED", 1));
    let world = World::new();
    let targets = world.targets();
    assert_eq!(targets.iter().map(|t| t.permille).sum::<u64>(), 1_000);
    for target in targets {
        for original in &target.corpus {
            (target.check)(original);
        }
        let mut draw = Draw(seed);
        for at in 0..inputs * target.permille / 1_000 {
            let bytes = mutated(&target.corpus, &mut draw);
            if catch_unwind(AssertUnwindSafe(|| (target.check)(&bytes))).is_err() {
                let hex = data_encoding::HEXLOWER.encode(&bytes);
                panic!("{}, seed {seed}, input {at} fails: {hex}", target.name);
            }
        }
    }
}

/// A forum with two versions of its charter, and a log of three blocks that ends in every kind of proof.
struct World {
    forum: TestForum,
    ring: Keyring,
    log: TestLog,
    frames: Vec<Frame>,
}

impl World {
    fn new() -> Self {
        let mut forum = TestForum::of_full(2);
        forum.issue(|c| c.name = "second".into());
        let mut ring = forum.keyring();
        let mut log = forum.log(1, 0, Class::Normal);
        let frames: Vec<_> = records().chunks(3).map(|records| log.push(records)).collect();
        ring.learn(&ring.verify(frames[0].clone()).unwrap());
        Self { forum, ring, log, frames }
    }

    fn targets(&self) -> Vec<Target> {
        vec![self.frame(), header(&self.frames), record_target(), self.charter(), have(), self.proof(), self.files()]
    }

    /// A frame that verifies is, to the byte of every record, one that its author signed.
    fn frame(&self) -> Target {
        let (ring, frames) = (self.ring.clone(), self.frames.clone());
        let corpus = frames.iter().map(|f| f.encode().to_vec()).collect();
        let check = move |bytes: &[u8]| {
            let Ok(frame) = Frame::decode(Bytes::copy_from_slice(bytes)) else { return };
            assert_eq!(Frame::decode(frame.encode()).as_ref(), Ok(&frame));
            match ring.verify(frame.clone()) {
                Ok(_) => assert!(frames.contains(&frame)),
                // What accuses the author must be the author's: these authors are honest.
                Err(Unverified::Fault(..)) => panic!("an honest author is accused"),
                Err(_) => {}
            }
        };
        Target { name: "frame", permille: 50, corpus, check: Box::new(check) }
    }

    /// A charter that counts is one that the founders signed.
    fn charter(&self) -> Target {
        let (forum, chain) = (self.forum.clone(), self.forum.chain());
        let first = CharterChain::found(forum.id, forum.charters[0].clone()).unwrap();
        let check = move |bytes: &[u8]| {
            if let Ok(charter) = Charter::decode(bytes) {
                let again = proto::Charter::decode(bytes).unwrap().encode_to_vec();
                assert!(again == bytes || charter.semantics > 1, "one encoding for one charter");
            }
            let signed = proto::SignedCharter {
                body: Bytes::copy_from_slice(bytes),
                sigs: forum.charters.iter().flat_map(|c| c.sigs.clone()).collect(),
            };
            let known = forum.charters.iter().any(|c| c.body == signed.body);
            assert!(CharterChain::found(forum.id, signed.clone()).is_err() || known);
            for chain in [&chain, &first] {
                let outcome = chain.clone().apply(signed.clone());
                assert!(known || !matches!(outcome, Ok(Applied::Applied | Applied::Forked)), "{outcome:?}");
            }
        };
        let corpus = self.forum.charters.iter().map(|c| c.body.to_vec()).collect();
        Target { name: "charter", permille: 10, corpus, check: Box::new(check) }
    }

    /// A proof that holds convicts the same log of the same thing, and has the same name.
    fn proof(&self) -> Target {
        let proofs = self.proofs();
        let known: BTreeSet<_> = proofs.iter().map(forks::VerifiedProof::hash).collect();
        let corpus = proofs.iter().map(|p| p.message().encode_to_vec()).collect();
        let ring = self.forum.keyring();
        let check = move |bytes: &[u8]| {
            let Ok(proof) = proto::Proof::decode(bytes) else { return };
            if let Ok(proof) = forks::verify(proof, &ring) {
                assert!(known.contains(&proof.hash()), "a proof that nobody wrote");
            }
        };
        Target { name: "proof", permille: 15, corpus, check: Box::new(check) }
    }

    fn proofs(&self) -> Vec<forks::VerifiedProof> {
        type Change = fn(&mut Header);
        let changes: [Change; 5] =
            [|h| h.log_root[0] ^= 1, |h| h.class = 1, |h| h.time = START, |h| h.record_count = 9, |_| ()];
        let prev = testing::verified_header(&self.ring, &self.frames[self.frames.len() - 1], &self.log.opening);
        let mut before_prev = replica::merkle::CompactRange::default();
        for frame in &self.frames[..self.frames.len() - 1] {
            before_prev.append(replica::signed::log_leaf(frame.header.hash()));
        }
        let mut proofs = Vec::new();
        for (change, rule) in changes.into_iter().zip(["5", "6", "7", "8", "fork"]) {
            let frame = self.log.draft(&[testing::opinion(1, 2)], change);
            let bad = testing::header_of(&frame, &self.log.opening);
            let bad = self.ring.verify_header_as(&bad, Some((0, 0))).unwrap();
            let with_prev = |rule| forks::fault_proof(rule, Some(&prev), &bad, &before_prev, Vec::new());
            let proof = match rule {
                "5" => with_prev(forks::FaultRule::Chain),
                "6" => with_prev(forks::FaultRule::Lane),
                "7" => with_prev(forks::FaultRule::Time),
                "8" => {
                    let slots = frame.slots.iter().map(replica::block::slot_to_proto).collect();
                    forks::fault_proof(forks::FaultRule::Counts, None, &bad, &before_prev, slots)
                }
                _ => {
                    let other = self.log.draft(&[testing::opinion(1, 3)], |_| ());
                    forks::fork_proof(&bad, &testing::verified_header(&self.ring, &other, &self.log.opening))
                }
            };
            proofs.push(proof.unwrap_or_else(|| panic!("no proof of {rule}")));
        }
        proofs
    }

    /// What people hand to each other, in its armour and without.
    fn files(&self) -> Target {
        let applicant = Applicant {
            binding: Binding::Forum(self.forum.id),
            member: MemberId([0x11; 16]),
            name: "acme".into(),
            group: "Acme".into(),
            jurisdictions: vec!["FR".into()],
            languages: vec!["fr".into(), "pt-BR".into()],
            pins: vec![Pin([3; 32])],
            endpoints: vec!["acme.example.org:7700".into()],
            seal_key: SealKey::from_slice(&[9; 32]),
        };
        let request = JoinRequest::make(&applicant, &root(1), START).unwrap();
        let invitation = Invitation::of(&self.forum.chain());
        let corpus = vec![
            files::armour(Kind::JoinRequest, request.bytes()).into_bytes(),
            files::armour(Kind::Invitation, &invitation.encode()).into_bytes(),
            request.bytes().to_vec(),
            invitation.encode(),
        ];
        let forum = self.forum.clone();
        let folder = tempfile::tempdir().unwrap();
        let check = move |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            let inside = files::disarm(Kind::JoinRequest, &text).unwrap_or_else(|_| bytes.to_vec());
            if let Ok(read) = JoinRequest::decode(&inside) {
                assert_eq!(read.applicant, applicant, "signed by its key, or refused");
            }
            let inside = files::disarm(Kind::Invitation, &text).unwrap_or_else(|_| bytes.to_vec());
            let path = folder.path().join("invite.sdi");
            std::fs::write(&path, files::armour(Kind::Invitation, &inside)).unwrap();
            if let Ok(read) = Invitation::read(&path)
                && let Ok(chain) = read.verify(forum.id)
            {
                let bodies = |n: u64| chain.from(n).iter().map(|(signed, _)| signed.body.clone()).collect::<Vec<_>>();
                let ours: Vec<_> = forum.charters.iter().map(|c| c.body.clone()).collect();
                assert!(ours.starts_with(&bodies(1)), "only what the founders signed");
            }
        };
        Target { name: "files", permille: 10, corpus, check: Box::new(check) }
    }
}

/// Every pattern of 252 bytes that begins like a header is exactly one header.
fn header(frames: &[Frame]) -> Target {
    let corpus = frames.iter().map(|f| f.header.bytes().to_vec()).collect();
    let check = |bytes: &[u8]| {
        let Ok(bytes) = <&[u8; HEADER_SIZE]>::try_from(bytes) else { return };
        if let Ok(header) = Header::decode(bytes) {
            assert_eq!(header.encode(), *bytes);
        }
    };
    Target { name: "header", permille: 250, corpus, check: Box::new(check) }
}

/// What passes the strict scan has one encoding, and no two parsers can differ about it.
fn record_target() -> Target {
    let check = |bytes: &[u8]| {
        let scanned = strict::scan(bytes, &strict::RECORD);
        if scanned == Ok(Scanned::Known) {
            assert_eq!(proto::Record::decode(bytes).unwrap().encode_to_vec(), bytes);
        }
        if let record::Parsed::Says(_) = record::parse(bytes) {
            assert_eq!(scanned, Ok(Scanned::Known));
            let record = proto::Record::decode(bytes).unwrap();
            if record.kind == proto::Kind::Opinion as u32 {
                let opinion = proto::Opinion::decode(record.body.clone()).unwrap();
                assert_eq!(opinion.encode_to_vec(), record.body);
            }
        }
    };
    let corpus = records().iter().map(|r| r.to_vec()).collect();
    Target { name: "record", permille: 600, corpus, check: Box::new(check) }
}

/// A have vector that is read is the one that was sent.
fn have() -> Target {
    let mut have = Have::default();
    for log_no in 0..4 {
        have.set(origin(1, log_no), Head { seq: Seq(9), hash: HeaderHash([7; 32]) });
        have.set(origin(2, log_no), Head { seq: Seq(1 << 40), hash: HeaderHash([8; 32]) });
    }
    let request = proto::PullRequest { have: have.to_proto(), ..Default::default() };
    let check = |bytes: &[u8]| {
        let Ok(request) = proto::PullRequest::decode(bytes) else { return };
        if let Ok(have) = Have::from_proto(&request.have) {
            assert_eq!(have.to_proto(), request.have);
        }
    };
    Target { name: "have", permille: 65, corpus: vec![request.encode_to_vec()], check: Box::new(check) }
}

/// One record of every kind that this release reads, and their longest forms.
fn records() -> Vec<Bytes> {
    let whole = |o: &mut proto::Opinion| {
        *o = proto::Opinion {
            labels: vec![1, 2, 300],
            severity: 4,
            expires_ms: START.0,
            review_ms: START.0,
            incident_id: vec![7; 16].into(),
            basis: 1,
            confidence: 100,
            client_key: id(9).0.to_vec().into(),
            languages: vec!["fr".into(), "pt-BR".into()],
            reason: 99,
            item_id: vec![8; 16].into(),
            quality: 100,
            ..o.clone()
        };
    };
    vec![
        opinion_with(1, 1, whole),
        opinion_with(2, 4, |_| ()),
        retract(1, true),
        allow(1, true, START),
        referral(1, true),
        incident(1, 11, true, START),
        opinion_with(3, 3, |o| o.languages = vec![String::new(), "en".into()]),
    ]
}
