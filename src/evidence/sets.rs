//! The view of random sets, by this program and by `clients/python/`, which was written from docs/protocol.md: forks,
//! faults, attestations, suspensions, quotas, expiries, roles, cutoffs, expulsions, erasures, replaced keys.

use std::io::Read;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use prost::Message as _;

use super::format::{Claim, Evidence, Kind, Malformed, Writer};
use super::verify::{Checked, derive};
use crate::replica::block::{Frame, Slot};
use crate::replica::charter::prove_possession;
use crate::replica::exchange::Draw;
use crate::replica::forks::{FaultRule, VerifiedProof, fault_proof, fork_proof};
use crate::replica::heads::origin_to_proto;
use crate::replica::ids::{Class, Head, Origin, TimeMs};
use crate::replica::testing::{
    ACCOUNT_DAYS, AUDITOR, CERTIFIER, FULL, REFERRAL, SMALL, START, STEWARD, TestForum, TestLog, account, allow,
    attest, id, incident, key, opinion_with, origin, public, referral, retract, suspend, verified_header, video,
    with_peppers,
};
use crate::replica::{merkle, proto, record};

/// Sets on which both must agree.
const SETS: u64 = 2_000;
/// Roles as forums have them; most companies are FULL.
const ROLES: [u32; 10] =
    [FULL, FULL, FULL, FULL | STEWARD, SMALL, STEWARD, CERTIFIER, REFERRAL, AUDITOR | SMALL, FULL | CERTIFIER];
const GROUPS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A log with the chain that the exporter holds, and the other one if there are two.
struct Written {
    log: TestLog,
    frames: Vec<Frame>,
    other: Option<(TestLog, Vec<Frame>)>,
}

struct Set {
    draw: Draw,
    forum: TestForum,
    members: u8,
    logs: Vec<Written>,
    proofs: Vec<VerifiedProof>,
    clock: TimeMs,
}

impl Set {
    fn new(seed: u64) -> Self {
        let mut draw = Draw(seed);
        let members = 3 + draw.below(4) as u8;
        let rows: Vec<_> = (0..members)
            .map(|n| {
                let group = if draw.below(6) == 0 { draw.below(6) } else { u64::from(n) };
                let role = if n == 0 { FULL } else { ROLES[draw.below(10) as usize] };
                (GROUPS[group as usize], role)
            })
            .collect();
        let (level, quota) = ([1, 2, 2, 2, 3, 3, 4, 4][draw.below(8) as usize], [100, 3, 6][draw.below(3) as usize]);
        let peppers = [&[][..], &[1], &[1, 3]][draw.below(3) as usize];
        let numbers = [1 + draw.below(2), 1 + draw.below(2), 1 + draw.below(3), 1 + draw.below(1_000)];
        let (auditors, late) = (draw.below(2) == 0, draw.below(8));
        let forum = TestForum::with(&rows, |c| {
            if level >= 3 {
                with_peppers(c, peppers);
            }
            c.semantics = level;
            let policy = c.policy.as_mut().unwrap();
            policy.quota_per_day = vec![quota; 3];
            policy.contest_quorum = numbers[0] as u32;
            policy.allow_quorum = numbers[1] as u32;
            policy.retract_min = numbers[2] as u32;
            policy.retract_permille = numbers[3] as u32;
            policy.auditors_attest = auditors;
            if let Some(member) = c.members.get_mut(late as usize) {
                member.admitted_ms = START.0 + 6 * TimeMs::HOUR_MS;
            }
        });
        Self { draw, forum, members, logs: Vec::new(), proofs: Vec::new(), clock: START }
    }

    fn any_member(&mut self) -> u8 {
        1 + self.draw.below(u64::from(self.members)) as u8
    }

    /// A moment before, at or after the hour of the view; 0 now and then.
    fn moment(&mut self) -> TimeMs {
        let hour = START.0 + self.draw.below(80) * TimeMs::HOUR_MS;
        TimeMs([0, hour, hour + 1][self.draw.below(3) as usize])
    }

    /// Some head, of either chain of some log.
    fn any_head(&mut self, of: Option<u8>) -> Option<(Origin, Head)> {
        let fitting: Vec<_> = self.logs.iter().filter(|w| of.is_none_or(|m| w.log.origin.member == id(m))).collect();
        let written = fitting.get(self.draw.below(fitting.len() as u64) as usize)?;
        let other = written.other.as_ref().filter(|_| self.draw.below(3) == 0).map(|(_, frames)| frames);
        let frames = other.unwrap_or(&written.frames);
        let at = (frames.len() as u64).checked_sub(1 + self.draw.below(2))? as usize;
        Some((written.log.origin, frames.get(at)?.header.head()))
    }

    fn record(&mut self) -> Bytes {
        let about = self.draw.below(4) as u8;
        let yes = self.draw.below(3) > 0;
        match self.draw.below(23) {
            20..=22 => self.of_video(about, yes),
            16..=19 => self.of_account(about, yes),
            0..=5 => {
                let stance = [1, 1, 2, 3, 4, 9][self.draw.below(6) as usize];
                let (expires, label, tied) = (self.moment(), self.draw.below(5) as u32, self.draw.below(2) as u8);
                opinion_with(about, stance, |o| {
                    o.expires_ms = expires.0;
                    o.labels = vec![label, 7, label];
                    if tied > 0 {
                        o.incident_id = vec![label as u8 % 2; 16].into();
                    }
                })
            }
            6 => retract(about, yes),
            7 => {
                let expires = self.moment();
                allow(about, yes, if self.draw.below(6) == 0 { expires.plus(400 * TimeMs::DAY_MS) } else { expires })
            }
            8 => referral(about, yes),
            9 => {
                let closes = self.moment();
                incident(self.draw.below(2) as u8, 40 + u32::from(about), yes, closes)
            }
            10 => {
                let target = self.any_member();
                let marks: Option<(Origin, Head)> =
                    if self.draw.below(3) > 0 { self.any_head(Some(target)) } else { None };
                let until = self.clock.plus(self.draw.below(16) * TimeMs::DAY_MS + 1_000);
                suspend(target, marks.as_slice(), until)
            }
            11 if self.draw.below(8) == 0 => {
                record::encode(proto::Kind::LogClose, [9; 16], &proto::LogClose { reason: 1, next_log_no: 0 })
            }
            12 if about == 0 => vec![about; 40].into(),
            _ => match self.any_head(None) {
                Some(head) => attest(&[head]),
                None => retract(about, yes),
            },
        }
    }

    /// What members say of few accounts, under peppers that the charter has or has not, with and without an end in time.
    fn of_account(&mut self, about: u8, yes: bool) -> Bytes {
        let subject = Some(account(about % 2, self.draw.below(4) as u32).to_proto());
        let term = ACCOUNT_DAYS * TimeMs::DAY_MS;
        let ends = [0, 1, TimeMs::HOUR_MS, TimeMs::DAY_MS, term, term + 1][self.draw.below(6) as usize];
        let expires_ms = if ends == 0 { 0 } else { self.clock.plus(ends).0 };
        let salt = [9; 16];
        match self.draw.below(8) {
            0 => record::encode(proto::Kind::RetractVote, salt, &proto::RetractVote { subject, yes, reason: 1 }),
            1 => {
                let allow = proto::Allow { subject, yes, expires_ms, certificate: 0 };
                record::encode(proto::Kind::Allow, salt, &allow)
            }
            2 => {
                let referral = proto::Referral { subject, open: yes, expires_ms, ..Default::default() };
                record::encode(proto::Kind::Referral, salt, &referral)
            }
            3 => record::encode(
                proto::Kind::Preserve,
                salt,
                &proto::Preserve { subject, until_ms: expires_ms, contact: 1 },
            ),
            _ => {
                let stance = 1 + self.draw.below(4) as u32;
                let opinion = proto::Opinion { subject, stance, expires_ms, labels: vec![3], ..Default::default() };
                record::encode(proto::Kind::Opinion, salt, &opinion)
            }
        }
    }

    /// What members say of few videos: lists of frames that are canonical, and lists that are not.
    fn of_video(&mut self, about: u8, yes: bool) -> Bytes {
        let counts = [1, 2, 100, 101][self.draw.below(4) as usize];
        let mut subject = video(about % 2, counts.min(100)).to_proto();
        let mut digest = subject.digest.to_vec();
        match self.draw.below(8) {
            0 => digest.truncate(digest.len() - 1),
            1 => digest[32] = 101, // a quality off the scale
            2 => {
                let first = digest[..37].to_vec();
                digest.extend(first); // back to the beginning
            }
            3 => subject.r#type = 2,
            4 => subject.param = 1,
            _ if counts > 100 => digest.extend([&[7; 32][..], &[50, 0, 9, 9, 9]].concat()),
            _ => {}
        }
        subject.digest = digest.into();
        let (subject, salt) = (Some(subject), [9; 16]);
        match self.draw.below(6) {
            0 => record::encode(proto::Kind::RetractVote, salt, &proto::RetractVote { subject, yes, reason: 1 }),
            1 => {
                let expires_ms = self.moment().0;
                record::encode(proto::Kind::Allow, salt, &proto::Allow { subject, yes, expires_ms, certificate: 0 })
            }
            2 => {
                let referral = proto::Referral { subject, open: yes, ..Default::default() };
                record::encode(proto::Kind::Referral, salt, &referral)
            }
            _ => {
                let stance = 1 + self.draw.below(4) as u32;
                let item_id = vec![about; 16].into();
                let opinion = proto::Opinion { subject, stance, labels: vec![3], item_id, ..Default::default() };
                record::encode(proto::Kind::Opinion, salt, &opinion)
            }
        }
    }

    fn block(&mut self) {
        self.clock = self.clock.plus(self.draw.below(5 * TimeMs::HOUR_MS));
        let records: Vec<_> = (0..1 + self.draw.below(4)).map(|_| self.record()).collect();
        let at = self.draw.below(self.logs.len() as u64 + 2) as usize;
        let time = self.clock;
        if at >= self.logs.len() {
            let (member, log_no) = (self.any_member(), self.draw.below(2) as u32);
            if self.logs.iter().any(|w| w.log.origin == origin(member, log_no)) {
                return;
            }
            let class = Class::ALL[self.draw.below(3) as usize];
            let mut log = self.forum.log(member, log_no, class);
            log.time = time;
            let first = log.push(&records);
            self.logs.push(Written { log, frames: vec![first], other: None });
            return;
        }
        let fork = self.draw.below(7) == 0;
        let on_other = self.draw.below(2) == 0;
        let written = &mut self.logs[at];
        if closed(&written.frames) {
            return;
        }
        if fork && written.other.is_none() {
            let mut other = (written.log.clone(), written.frames.clone());
            other.0.time = time;
            other.1.push(other.0.push(&[retract(3, true)]));
            written.other = Some(other);
        }
        let (log, frames) = match &mut written.other {
            Some((log, frames)) if on_other && !closed(frames) => (log, frames),
            _ => (&mut written.log, &mut written.frames),
        };
        log.time = time;
        frames.push(log.push(&records));
    }

    /// Voters attest one chain of a forked log: finality does not come about by chance.
    fn settle(&mut self) {
        let forked = self.logs.iter().find(|w| w.other.is_some());
        let Some(head) = forked.and_then(|w| Some((w.log.origin, w.frames.last()?.header.head()))) else { return };
        for member in 1..=self.members {
            if origin(member, 3).member != head.0.member && self.draw.below(8) > 0 {
                let mut log = self.forum.log(member, 3, Class::Normal);
                log.time = self.clock;
                let frames = vec![log.push(&[attest(&[head])])];
                self.logs.push(Written { log, frames, other: None });
            }
        }
    }

    fn prove(&mut self) {
        let ring = self.forum.keyring();
        for written in &self.logs {
            let opening = &written.log.opening;
            let header = |frame: &Frame| verified_header(&ring, frame, opening);
            if let Some((_, other)) = &written.other {
                let parted = written.frames.iter().zip(other).find(|(a, b)| a.header != b.header);
                // A fork that nobody has proven yet disputes nothing.
                if let Some((a, b)) = parted.filter(|_| self.draw.below(8) > 0) {
                    self.proofs.extend(fork_proof(&header(a), &header(b)));
                }
            } else if self.draw.below(12) == 0 {
                let bad = written.log.draft(&[], |h| h.time = TimeMs(0));
                if let (Some(prev), true) = (written.frames.last(), bad.header.header().record_count > 0) {
                    let range = merkle::CompactRange::default();
                    let (prev, bad) = (header(prev), header(&bad));
                    self.proofs.extend(fault_proof(FaultRule::Time, Some(&prev), &bad, &range, Vec::new()));
                }
            }
        }
    }

    /// What the founders do about it.
    fn govern(&mut self) {
        let member = usize::from(self.any_member()) - 1;
        let of = (self.draw.below(2) == 0).then_some(member as u8 + 1);
        let head = self.any_head(of);
        let cutoff = head.map(|(origin, head)| proto::Cutoff {
            origin: Some(origin_to_proto(origin)),
            last_seq: head.seq.0 + self.draw.below(2),
            last_hash: head.hash.0.to_vec().into(),
        });
        let cutoffs: Vec<_> = cutoff.into_iter().collect();
        let (what, policy) = (self.draw.below(9), 1 + self.draw.below(2) as u32);
        let pepper = 1 + self.draw.below(4) as u32;
        let (status, roles) = (1 + self.draw.below(3) as u32, ROLES[self.draw.below(10) as usize]);
        let (forum, fresh) = (self.forum.id.0, key("fresh"));
        let erasure = self.erasure();
        self.forum.issue(|c| match what {
            0 | 1 => c.cutoffs = cutoffs,
            2 => c.members[member].status = status,
            3 => {
                c.members[member].status = status;
                c.cutoffs = cutoffs;
            }
            4 => {
                let member_id = c.members[member].id.clone();
                c.expulsions = vec![proto::Expulsion { member_id, policy, cutoffs, reason: 1 }];
            }
            5 => c.members[member].roles = roles,
            8 => with_peppers(c, &[pepper]),
            6 => {
                let pop = prove_possession(&fresh, &forum, id(member as u8 + 1));
                c.members[member].log_root_key = public(&fresh);
                c.members[member].pop = Bytes::copy_from_slice(&pop);
                c.cutoffs = cutoffs;
            }
            _ => {
                c.semantics = c.semantics.max(2);
                c.erasures = erasure.into_iter().collect();
            }
        });
    }

    /// An order to erase the last record of some block.
    fn erasure(&mut self) -> Option<proto::Erasure> {
        let written = self.logs.get(self.draw.below(self.logs.len() as u64) as usize)?;
        let frame = written.frames.get(self.draw.below(written.frames.len() as u64) as usize)?;
        let index = u32::try_from(frame.slots.len()).unwrap().checked_sub(1)?;
        let at = frame.header.header().id;
        (at.seq.0 > 1 || index > 0).then(|| proto::Erasure {
            origin: Some(origin_to_proto(at.origin)),
            seq: at.seq.0,
            index,
            leaf_hash: frame.slots[index as usize].leaf().to_vec().into(),
            reason: 7,
        })
    }

    /// The file, and what this program makes of it.
    fn bundle(mut self) -> (Vec<u8>, Checked) {
        for _ in 0..8 + self.draw.below(24) {
            self.block();
        }
        self.settle();
        self.prove();
        for _ in 0..self.draw.below(3) {
            self.govern();
        }
        let mut items: Vec<_> = self.forum.charters.iter().map(|c| (Kind::Charter, c.encode_to_vec())).collect();
        self.proofs.sort_by_key(VerifiedProof::hash);
        items.extend(self.proofs.iter().map(|proof| (Kind::Proof, proof.message().encode_to_vec())));
        let ring = self.forum.keyring();
        self.logs.sort_by_key(|written| written.log.origin);
        for written in self.logs {
            let other = written.other.filter(|_| self.draw.below(2) == 0);
            for mut frame in other.map_or(written.frames, |(_, frames)| frames) {
                ring.redact(&mut frame);
                items.push((Kind::Block, frame.encode().to_vec()));
            }
        }
        let hour = START.plus(self.draw.below(72) * TimeMs::HOUR_MS);
        let mut writer = Writer::begin(Vec::new(), Evidence::Bundle).unwrap();
        items.iter().for_each(|(kind, bytes)| writer.item(*kind, bytes).unwrap());
        let unfinished = writer.written().clone();
        let mut open = || Ok::<_, Malformed>(Box::new(std::io::Cursor::new(unfinished.clone())) as Box<dyn Read>);
        let checked = derive(&mut open, true, self.forum.id, hour, &mut |_| ()).unwrap();
        let bytes = writer.end(&Claim { counts: checked.counts, view: checked.view }).unwrap();
        ([&self.forum.id.0[..], &u32::try_from(bytes.len()).unwrap().to_be_bytes(), &bytes].concat(), checked)
    }
}

fn closed(frames: &[Frame]) -> bool {
    let close = |slot: &Slot| {
        let Slot::Record(bytes) = slot else { return false };
        matches!(record::parse(bytes), record::Parsed::Says(record::Statement::LogClose))
    };
    frames.last().is_some_and(|frame| frame.slots.iter().any(close))
}

#[test]
fn a_second_implementation_sees_the_same_view_of_two_thousand_random_sets() {
    let able = |python: &&str| {
        let ran = Command::new(python).args(["-c", "import cryptography"]).output();
        ran.is_ok_and(|ran| ran.status.success())
    };
    let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(able) else {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "python3 with cryptography is missing in CI");
        eprintln!("skipped: the second implementation needs python3 with cryptography (Debian: python3-cryptography)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sets");
    let (mut file, mut seen) = (Vec::new(), [0_u64; 4]);
    for seed in 0..SETS {
        let (bytes, checked) = Set::new(seed).bundle();
        file.extend(bytes);
        let each = [checked.listed > 0, checked.disputed > 0, checked.erased > 0, checked.counts.charters > 1];
        seen.iter_mut().zip(each).for_each(|(count, is)| *count += u64::from(is));
    }
    // Sets in which nothing happens would agree, too.
    assert!(seen[0] > SETS / 2 && seen[1] > SETS / 4 && seen[2] > SETS / 40 && seen[3] > SETS / 2, "{seen:?}");
    std::fs::write(&path, file).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python/staydown_verify.py");
    let mut python = Command::new(python);
    let ran = python.env("PYTHONDONTWRITEBYTECODE", "1").arg(script).args(["--sets", "--json"]).arg(&path);
    let ran = ran.output().unwrap();
    let told = String::from_utf8_lossy(&ran.stdout).into_owned();
    if !ran.status.success() {
        let kept = std::env::temp_dir().join("staydown-sets");
        std::fs::copy(&path, &kept).unwrap();
        panic!("{told}{} (the file is kept as {})", String::from_utf8_lossy(&ran.stderr), kept.display());
    }
    assert!(told.contains(&format!("\"sets\": {SETS}")), "{told}");
}
