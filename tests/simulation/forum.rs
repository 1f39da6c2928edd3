//! The people: companies with their keys, founders, and the charters they issue during a run.

use std::sync::OnceLock;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use prost::Message as _;
use staydown::replica::charter::{charter_hash, prove_possession, sign_charter};
use staydown::replica::exchange::Draw;
use staydown::replica::ids::{ForumId, Head, MemberId, Origin, sha256};
use staydown::replica::{heads, proto, record};

/// Companies that a schedule can draw from.
pub(crate) const COMPANIES: usize = 14;
const FOUNDERS: usize = 3;
/// One nonce for all schedules, so that the proofs of possession are made once.
const NONCE: [u8; 32] = [0x5a; 32];

pub(crate) const FULL: u32 = 1;
pub(crate) const SMALL: u32 = 2;
pub(crate) const OBSERVER: u32 = 4;
pub(crate) const REFERRAL: u32 = 8;
pub(crate) const CERTIFIER: u32 = 16;
pub(crate) const AUDITOR: u32 = 32;
pub(crate) const STEWARD: u32 = 64;

/// Root keys that a company can have, one after another.
pub(crate) const ROOTS: usize = 3;

/// A company's secrets.
pub(crate) struct Company {
    pub(crate) id: MemberId,
    /// Its root keys in the order of their use, each with its proof of possession.
    roots: Vec<(SigningKey, Bytes)>,
    pub(crate) log_seed: [u8; 32],
}

impl Company {
    /// The root key of a generation.
    pub(crate) fn root(&self, generation: usize) -> &SigningKey {
        &self.roots[generation].0
    }
}

fn key(of: &str, number: usize) -> SigningKey {
    SigningKey::from_bytes(&sha256(&[b"simulation", of.as_bytes(), &(number as u64).to_be_bytes()]))
}

/// A founder's key; made once a process.
fn founder(number: usize) -> SigningKey {
    static ALL: OnceLock<Vec<SigningKey>> = OnceLock::new();
    ALL.get_or_init(|| (0..64).map(|i| key("founder", i)).collect())[number].clone()
}

/// The company of a number; keys are made once a process.
pub(crate) fn company(number: usize) -> &'static Company {
    static ALL: OnceLock<Vec<Company>> = OnceLock::new();
    let make = |number| {
        let mut id = [0; 16];
        id.copy_from_slice(&sha256(&[b"company", &[number as u8]])[..16]);
        let id = MemberId(id);
        let root = |generation| {
            let root = key("root", number + generation * COMPANIES);
            let pop = Bytes::copy_from_slice(&prove_possession(&root, &NONCE, id));
            (root, pop)
        };
        Company { id, roots: (0..ROOTS).map(root).collect(), log_seed: sha256(&[b"logs", &[number as u8]]) }
    };
    &ALL.get_or_init(|| (0..COMPANIES).map(make).collect())[number]
}

/// The company that is called by `id`.
pub(crate) fn number_of(id: MemberId) -> Option<usize> {
    (0..COMPANIES).find(|number| company(*number).id == id)
}

/// A forum: its charters so far, and the draft of the next.
pub(crate) struct Forum {
    pub(crate) id: ForumId,
    pub(crate) signed: Vec<proto::SignedCharter>,
    /// Charters that contradict one of `signed`, and count as much.
    pub(crate) rivals: Vec<proto::SignedCharter>,
    /// The version that two charters count for.
    pub(crate) forked: Option<u64>,
    latest: proto::Charter,
    /// Founder keys made so far: a rotated founder gets the next.
    founder_keys: usize,
}

impl Forum {
    /// A forum of the first `roles.len()` companies.
    pub(crate) fn found(roles: &[u32], groups: &[usize], quota: [u32; 3], semantics: u32, now: u64) -> Self {
        let founder_keys = (0..FOUNDERS).map(|i| Bytes::copy_from_slice(founder(i).verifying_key().as_bytes()));
        let mut latest = proto::Charter {
            version: 1,
            name: "simulated forum".into(),
            semantics,
            founder_keys: founder_keys.collect(),
            threshold: 2,
            members: roles.iter().zip(groups).enumerate().map(|(i, (r, g))| member(i, *r, *g, 0)).collect(),
            policy: Some(proto::Policy {
                retract_min: 2,
                retract_permille: 500,
                contest_quorum: 2,
                allow_quorum: 1,
                quota_per_day: quota.to_vec(),
                account_ttl_max_ms: ACCOUNT_TTL_MS,
                stale_grace_ms: 86_400_000,
                auditors_attest: false,
                log_bytes_max: 1 << 30,
            }),
            issued_ms: now,
            valid_until_ms: now + 365 * 86_400_000,
            nonce: Bytes::copy_from_slice(&NONCE),
            taxonomy: "staydown-example-1".into(),
            ..Default::default()
        };
        if semantics >= 3 {
            toggle_pepper(&mut latest, 1);
        }
        let mut forum = Self {
            id: ForumId([0; 32]),
            signed: Vec::new(),
            rivals: Vec::new(),
            forked: None,
            latest,
            founder_keys: FOUNDERS,
        };
        let first = forum.sign(&forum.latest, 0);
        forum.id = ForumId(charter_hash(&first.body).0);
        forum.signed.push(first);
        forum
    }

    /// Founders who sign: as many as the thresholds, beginning with a drawn one, of those before and those after.
    fn sign(&self, charter: &proto::Charter, first: usize) -> proto::SignedCharter {
        let body: Bytes = charter.encode_to_vec().into();
        let enough = charter.threshold.max(self.latest.threshold) as usize;
        let some = |keys: &[Bytes]| -> Vec<Bytes> {
            (0..enough.min(keys.len())).map(|i| keys[(first + i) % keys.len()].clone()).collect()
        };
        let mut signers = some(&self.latest.founder_keys);
        signers.extend(some(&charter.founder_keys));
        signers.sort();
        signers.dedup();
        let secret = |public: &Bytes| {
            (0..self.founder_keys + 1).map(founder).find(|k| k.verifying_key().as_bytes()[..] == public[..])
        };
        let sigs = signers.iter().filter_map(secret).map(|k| sign_charter(&k, &body)).collect();
        proto::SignedCharter { sigs, body }
    }

    /// One founder's key is replaced by a new one.
    pub(crate) fn rotate_founder(&mut self, draw: &mut Draw) -> proto::SignedCharter {
        let new = Bytes::copy_from_slice(founder(self.founder_keys).verifying_key().as_bytes());
        let which = draw.below(FOUNDERS as u64) as usize;
        let signed = self.issue(draw, |c| c.founder_keys[which] = new);
        self.founder_keys += 1;
        signed
    }

    /// The newest version.
    pub(crate) fn latest(&self) -> &proto::Charter {
        &self.latest
    }

    fn next(&self, change: impl FnOnce(&mut proto::Charter)) -> proto::Charter {
        let mut next = self.latest.clone();
        next.version += 1;
        next.prev_hash = Bytes::copy_from_slice(&charter_hash(&self.signed[self.signed.len() - 1].body).0);
        next.forum_id = Bytes::copy_from_slice(&self.id.0);
        change(&mut next);
        next
    }

    /// The founders issue the next version.
    pub(crate) fn issue(&mut self, draw: &mut Draw, change: impl FnOnce(&mut proto::Charter)) -> proto::SignedCharter {
        let next = self.next(change);
        let signed = self.sign(&next, draw.below(FOUNDERS as u64) as usize);
        self.latest = next;
        self.signed.push(signed.clone());
        signed
    }

    /// The founders issue two versions of one number (C4); the second is returned, the first is the newest now.
    pub(crate) fn issue_twice(&mut self, draw: &mut Draw) -> (proto::SignedCharter, proto::SignedCharter) {
        let rival = self.next(|c| c.name = "the other forum".into());
        let rival = self.sign(&rival, 1);
        let newest = self.issue(draw, |c| c.name = "the one forum".into());
        self.forked = Some(self.latest.version);
        self.rivals.push(rival.clone());
        (newest, rival)
    }

    /// A charter that looks like the next and has too few signatures.
    pub(crate) fn forged(&self, version: u64) -> proto::SignedCharter {
        let mut charter = self.latest.clone();
        charter.version = version;
        charter.prev_hash = Bytes::copy_from_slice(&charter_hash(&self.signed[self.signed.len() - 1].body).0);
        charter.forum_id = Bytes::copy_from_slice(&self.id.0);
        charter.threshold = 3;
        let mut signed = self.sign(&charter, 0);
        signed.sigs.truncate(1);
        signed.sigs.push(signed.sigs[0].clone());
        signed
    }

    /// Places in a block of records that any charter orders to be erased.
    pub(crate) fn erased(&self, block: (([u8; 16], u32), u64)) -> Vec<u32> {
        let ((member, log_no), seq) = block;
        let all = self.signed.iter().chain(&self.rivals).filter_map(|c| proto::Charter::decode(c.body.clone()).ok());
        let orders = all.filter(|c| c.semantics >= 2).flat_map(|c| c.erasures).filter(|e| e.seq == seq);
        let here =
            |e: &proto::Erasure| e.origin.as_ref().is_some_and(|o| o.member_id[..] == member && o.log_no == log_no);
        orders.filter(here).map(|e| e.index).collect()
    }

    /// The newest version's number.
    pub(crate) fn version(&self) -> u64 {
        self.latest.version
    }

    /// The charter in force once everybody knows everything.
    pub(crate) fn in_force(&self) -> proto::Charter {
        let version = self.forked.map_or(self.latest.version, |forked| forked - 1);
        proto::Charter::decode(self.signed[version as usize - 1].body.clone()).unwrap_or_default()
    }

    /// Whether the newest version lists the company as active.
    pub(crate) fn is_active(&self, number: usize) -> bool {
        let id = company(number).id;
        self.latest.members.iter().any(|m| m.id[..] == id.0 && m.status == 1)
    }

    /// Roles of the company, as the newest version has them.
    pub(crate) fn roles(&self, number: usize) -> u32 {
        let id = company(number).id;
        self.latest.members.iter().find(|m| m.id[..] == id.0).map_or(0, |m| m.roles)
    }
}

/// A company's entry in a charter.
pub(crate) fn member(number: usize, roles: u32, group: usize, admitted_ms: u64) -> proto::Member {
    let company = company(number);
    proto::Member {
        id: Bytes::copy_from_slice(&company.id.0),
        name: format!("company-{number}"),
        group: format!("group-{group}"),
        roles,
        status: 1,
        log_limit: 16,
        log_root_key: Bytes::copy_from_slice(company.root(0).verifying_key().as_bytes()),
        nodes: vec![proto::NodeEntry {
            tls_spki_sha256: vec![Bytes::copy_from_slice(&sha256(&[b"pin", &company.id.0]))],
            endpoints: vec![format!("node-{number}.example.org:7443")],
            ..Default::default()
        }],
        admitted_ms,
        seal_key: vec![9; 32].into(),
        jurisdictions: vec!["NL".into()],
        pop: company.roots[0].1.clone(),
        ..Default::default()
    }
}

/// How far the logs of a member whose key or place changes still count.
fn cutoff((origin, head): &(Origin, Head)) -> proto::Cutoff {
    proto::Cutoff {
        origin: Some(heads::origin_to_proto(*origin)),
        last_seq: head.seq.0,
        last_hash: Bytes::copy_from_slice(&head.hash.0),
    }
}

/// Gives a company its next root key; its logs so far count up to the cutoffs.
pub(crate) fn rotate_root(charter: &mut proto::Charter, who: usize, cutoffs: &[(Origin, Head)]) {
    let company = company(who);
    let Some(member) = charter.members.iter_mut().find(|m| m.id[..] == company.id.0) else { return };
    let next = root_generation(&member.log_root_key, who) + 1;
    let Some((root, pop)) = company.roots.get(next) else { return };
    member.log_root_key = Bytes::copy_from_slice(root.verifying_key().as_bytes());
    member.pop = pop.clone();
    list(charter, cutoffs);
}

fn list(charter: &mut proto::Charter, cutoffs: &[(Origin, Head)]) {
    for new in cutoffs.iter().map(cutoff) {
        charter.cutoffs.retain(|old| old.origin != new.origin);
        charter.cutoffs.push(new);
    }
}

/// Cuts a member off until another charter; its logs so far count up to the cutoffs.
pub(crate) fn suspend(charter: &mut proto::Charter, who: MemberId, cutoffs: &[(Origin, Head)]) {
    charter.members.iter_mut().filter(|m| m.id[..] == who.0).for_each(|m| m.status = 2);
    list(charter, cutoffs);
}

/// Which of its root keys a company has, by the key in a charter.
pub(crate) fn root_generation(key: &[u8], who: usize) -> usize {
    let roots = &company(who).roots;
    roots.iter().position(|(root, _)| root.verifying_key().as_bytes()[..] == *key).unwrap_or(0)
}

/// Expels a member: KEEP 1 with the cutoffs, VOID 2.
pub(crate) fn expel(charter: &mut proto::Charter, who: MemberId, policy: u32, cutoffs: &[(Origin, Head)]) {
    for member in charter.members.iter_mut().filter(|m| m.id[..] == who.0) {
        member.status = 3;
    }
    charter.expulsions.push(proto::Expulsion {
        member_id: Bytes::copy_from_slice(&who.0),
        policy,
        cutoffs: cutoffs.iter().map(cutoff).collect(),
        reason: 99,
    });
}

/// How long accounts are listed at most: shorter than what [`of_account`] sometimes asks for.
const ACCOUNT_TTL_MS: u64 = 3 * 3_600_000;

/// Gives the charter a pepper, or takes it back; its copies are sealed by nobody and opened by nobody.
pub(crate) fn toggle_pepper(charter: &mut proto::Charter, pepper_id: u32) {
    let had = charter.peppers.len();
    charter.peppers.retain(|copy| copy.pepper_id != pepper_id);
    if charter.peppers.len() == had {
        let copy = |m: &proto::Member| proto::SealedPepper {
            pepper_id,
            member_id: m.id.clone(),
            sealed: vec![pepper_id as u8; 80].into(),
        };
        charter.peppers.extend(charter.members.iter().map(copy));
        charter.peppers.sort_by(|a, b| (a.pepper_id, &a.member_id).cmp(&(b.pepper_id, &b.member_id)));
    }
}

/// What a company of `roles` says of an account, under a pepper that the charter may have. Who lies says it also with an
/// end that is too late, or with none: an honest node signs none of that.
pub(crate) fn of_account(draw: &mut Draw, roles: u32, now: u64, lies: bool) -> Bytes {
    let digest = sha256(&[b"account", &draw.below(3).to_be_bytes()]);
    let param = if draw.below(3) > 0 { 1 } else { draw.below(5) as u32 };
    let subject = Some(proto::Subject { r#type: 3, alg: 9, param, digest: Bytes::copy_from_slice(&digest) });
    let salt = bytes16(draw);
    let expires_ms = match draw.below(6) {
        0 if lies => 0,
        1 | 2 if lies => now + 4 * 3_600_000,
        _ => now + 1 + draw.below(2 * 3_600_000),
    };
    let yes = draw.below(4) > 0;
    match draw.below(6) {
        0 if roles & FULL != 0 => {
            record::encode(proto::Kind::RetractVote, salt, &proto::RetractVote { subject, yes, reason: 1 })
        }
        0 | 1 if roles & CERTIFIER != 0 => {
            record::encode(proto::Kind::Allow, salt, &proto::Allow { subject, yes, expires_ms, certificate: 1 })
        }
        _ if roles & REFERRAL != 0 => {
            let referral = proto::Referral { subject, open: yes, authority: 7, jurisdiction: 1, expires_ms };
            record::encode(proto::Kind::Referral, salt, &referral)
        }
        _ => {
            let stance = [1, 1, 2, 3, 4, 4][draw.below(6) as usize];
            let opinion = proto::Opinion { subject, stance, expires_ms, labels: vec![5], ..Default::default() };
            record::encode(proto::Kind::Opinion, salt, &opinion)
        }
    }
}

/// What a company of `roles` says of a video. Who lies says it also of lists of frames that are in no order.
pub(crate) fn of_video(draw: &mut Draw, roles: u32, lies: bool) -> Bytes {
    let (video, count) = (draw.below(3), 1 + draw.below(3));
    let frame = |n: u64| {
        let time = if lies && n == 2 { 0 } else { n as u32 * 1_000 };
        let hash = sha256(&[b"frame", &video.to_be_bytes(), &n.to_be_bytes()]);
        [&hash[..], &[60], &time.to_be_bytes()].concat()
    };
    let digest = (0..count).flat_map(frame).collect::<Vec<_>>();
    let subject = Some(proto::Subject { r#type: 1, alg: 8, param: 0, digest: digest.into() });
    let (salt, yes) = (bytes16(draw), draw.below(4) > 0);
    match draw.below(4) {
        0 if roles & FULL != 0 => {
            record::encode(proto::Kind::RetractVote, salt, &proto::RetractVote { subject, yes, reason: 1 })
        }
        _ if roles & REFERRAL != 0 => {
            let referral = proto::Referral { subject, open: yes, ..Default::default() };
            record::encode(proto::Kind::Referral, salt, &referral)
        }
        _ => {
            let (stance, item_id) = ([1, 1, 2, 3, 4][draw.below(5) as usize], vec![video as u8; 16].into());
            record::encode(
                proto::Kind::Opinion,
                salt,
                &proto::Opinion { subject, stance, item_id, ..Default::default() },
            )
        }
    }
}

/// Something to talk about: few subjects, so that companies meet on them.
pub(crate) fn subject(number: u64) -> proto::Subject {
    proto::Subject {
        r#type: 1,
        alg: 4,
        param: 0,
        digest: Bytes::copy_from_slice(&sha256(&[b"subject", &number.to_be_bytes()])),
    }
}

pub(crate) fn bytes16(draw: &mut Draw) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&draw.number().to_be_bytes());
    bytes[8..].copy_from_slice(&draw.number().to_be_bytes());
    bytes
}

fn incident(draw: &mut Draw) -> Bytes {
    vec![0x11 + draw.below(3) as u8; 16].into()
}

/// When a statement ends: never, soon, or within the hours that the end of a run looks at.
fn expiry(draw: &mut Draw, now: u64) -> u64 {
    if draw.below(3) > 0 { 0 } else { now + draw.below(4 * 3_600_000) }
}

/// A statement that a company of `roles` may make.
pub(crate) fn statement(draw: &mut Draw, roles: u32, now: u64) -> Bytes {
    let about = Some(subject(draw.below(8)));
    let salt = bytes16(draw);
    let kinds: &[(u32, u64)] = &[
        (FULL | SMALL, 0),
        (FULL | SMALL, 0),
        (FULL | SMALL, 0),
        (FULL, 1),
        (FULL | STEWARD, 2),
        (CERTIFIER, 3),
        (REFERRAL, 4),
    ];
    let possible: Vec<_> = kinds.iter().filter(|(who, _)| roles & who != 0).map(|(_, kind)| *kind).collect();
    if possible.is_empty() {
        return record::encode(proto::Kind::Evidence, salt, &proto::Evidence { seq: 1, ..Default::default() });
    }
    match possible[draw.below(possible.len() as u64) as usize] {
        0 => {
            let opinion = proto::Opinion {
                subject: about,
                stance: [1, 1, 1, 2, 2, 3, 3, 4][draw.below(8) as usize],
                labels: (0..draw.below(3)).map(|i| 1 + i as u32 * 3).collect(),
                severity: draw.below(5) as u32,
                expires_ms: expiry(draw, now),
                incident_id: if draw.below(3) == 0 { incident(draw) } else { Bytes::new() },
                basis: 1,
                confidence: 90,
                client_key: if draw.below(3) == 0 { Bytes::copy_from_slice(&bytes16(draw)) } else { Bytes::new() },
                languages: if draw.below(2) == 0 { vec!["en".into()] } else { Vec::new() },
                ..Default::default()
            };
            record::encode(proto::Kind::Opinion, salt, &opinion)
        }
        1 => {
            let vote = proto::RetractVote { subject: about, yes: draw.below(4) > 0, reason: 1 };
            record::encode(proto::Kind::RetractVote, salt, &vote)
        }
        2 => {
            let body = proto::Incident {
                id: incident(draw),
                code: 11 + draw.below(2) as u32,
                level: 2,
                open: draw.below(4) > 0,
                closes_ms: expiry(draw, now),
            };
            record::encode(proto::Kind::Incident, salt, &body)
        }
        3 => {
            let allow = proto::Allow {
                subject: about,
                yes: draw.below(4) > 0,
                expires_ms: now + 1 + draw.below(6 * 3_600_000),
                certificate: 1,
            };
            record::encode(proto::Kind::Allow, salt, &allow)
        }
        _ => {
            let referral = proto::Referral {
                subject: about,
                open: draw.below(4) > 0,
                authority: 7,
                jurisdiction: 1,
                expires_ms: expiry(draw, now),
            };
            record::encode(proto::Kind::Referral, salt, &referral)
        }
    }
}

/// A steward's word that `target` is cut off: it counts up to its heads among `heads`, until some time within two weeks;
/// sometimes for longer than anybody may.
pub(crate) fn suspension(draw: &mut Draw, target: MemberId, heads: &[(Origin, Head)], now: u64) -> Bytes {
    let marks = heads.iter().filter(|(origin, _)| origin.member == target);
    let until = match draw.below(8) {
        0 => now + 15 * 86_400_000,
        1..4 => now + draw.below(14 * 86_400_000),
        _ => now + draw.below(2 * 3_600_000),
    };
    let body = proto::Suspend {
        member_id: Bytes::copy_from_slice(&target.0),
        marks: marks.map(|(origin, head)| heads::head_to_proto(*origin, *head)).collect(),
        until_ms: until,
        reason: 99,
    };
    record::encode(proto::Kind::Suspend, bytes16(draw), &body)
}

/// A record that nobody may let have an effect: malformed, of a later release, or beyond the author's role.
pub(crate) fn malformed(draw: &mut Draw, now: u64) -> Bytes {
    let good = statement(draw, FULL, now);
    match draw.below(7) {
        0 => Bytes::copy_from_slice(&good[..good.len() / 2]),
        1 => [&good[..], &[0xf8, 0x07, 0x01]].concat().into(),
        2 => Bytes::new(),
        3 => record::encode(
            proto::Kind::Attest,
            bytes16(draw),
            &proto::Attest { charter_version: 1, ..Default::default() },
        ),
        4 => record::encode(
            proto::Kind::Opinion,
            bytes16(draw),
            &proto::Opinion { subject: Some(subject(1)), stance: 9, ..Default::default() },
        ),
        5 => vec![0xff; 40].into(),
        _ => {
            let account = proto::Subject { r#type: 3, ..subject(2) };
            record::encode(
                proto::Kind::Opinion,
                bytes16(draw),
                &proto::Opinion { subject: Some(account), stance: 1, ..Default::default() },
            )
        }
    }
}
