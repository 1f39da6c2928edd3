//! The charter chain: founders, thresholds, members, keys, pins and the forum's numbers (PROTOCOL section 2).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ed25519_dalek::{SigningKey, VerifyingKey};
use prost::Message as _;
use thiserror::Error;

use super::block::{sign, signature_holds};
use super::ids::{CharterHash, ForumId, Head, HeaderHash, KeyId, LogNo, MemberId, Origin, Pin, Seq, TimeMs, sha256};
use super::proto;
use super::strict::{self, Scanned};

/// Length of a charter body.
pub const CHARTER_SIZE_MAX: usize = 1 << 20;
/// The highest semantics level that this release understands.
pub const SEMANTICS_MAX: u32 = 1;
/// Entries of a have vector; members times log limit is held against it when a charter is proposed.
pub const HAVE_MAX: usize = 8_192;
/// Pins of one node entry: two are needed while a key changes.
pub const PINS_PER_NODE_MAX: usize = 4;
/// Logs a member may open, unless the charter says otherwise.
pub const LOG_LIMIT_DEFAULT: u32 = 16;
/// Signatures beside one charter; founders are few.
pub const SIGNATURES_MAX: usize = 256;

const CHARTER_TYPE: &str = "application/vnd.staydown.charter.v1";
const MEMBER_KEY_TYPE: &str = "application/vnd.staydown.member-key.v1";

/// What a member may do, as bits (PROTOCOL section 2, Roles).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles(u32);

#[expect(missing_docs, reason = "the roles are described in PROTOCOL section 2")]
impl Roles {
    pub const FULL: Self = Self(1);
    pub const SMALL: Self = Self(2);
    pub const OBSERVER: Self = Self(4);
    pub const REFERRAL: Self = Self(8);
    pub const CERTIFIER: Self = Self(16);
    pub const AUDITOR: Self = Self(32);
    pub const STEWARD: Self = Self(64);
    pub const NAMES: [(Self, &'static str); 7] = [
        (Self::FULL, "FULL"),
        (Self::SMALL, "SMALL"),
        (Self::OBSERVER, "OBSERVER"),
        (Self::REFERRAL, "REFERRAL"),
        (Self::CERTIFIER, "CERTIFIER"),
        (Self::AUDITOR, "AUDITOR"),
        (Self::STEWARD, "STEWARD"),
    ];
}

impl Roles {
    /// Roles from their bits.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether every role of `roles` is among these.
    pub fn has(self, roles: Self) -> bool {
        self.0 & roles.0 == roles.0
    }

    /// Whether any role of `roles` is among these.
    pub fn has_any(self, roles: Self) -> bool {
        self.0 & roles.0 != 0
    }

    /// These and those.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Names of the roles, in the order of their bits.
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES.iter().filter(|(role, _)| self.has(*role)).map(|(_, name)| *name).collect()
    }

    /// REFERRAL combines with nothing except AUDITOR: a public authority is never support.
    fn is_allowed(self) -> bool {
        let known = self.0 != 0 && self.0 < 128;
        let referral_alone = !self.has(Self::REFERRAL) || self.0 & !(Self::REFERRAL.0 | Self::AUDITOR.0) == 0;
        known && referral_alone
    }
}

/// Whether a company still belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberStatus {
    /// Connects and counts.
    Active,
    /// Cut off for now.
    Suspended,
    /// Has left or was expelled.
    Former,
}

/// A company.
#[derive(Clone, Debug)]
pub struct Member {
    /// For ever.
    pub id: MemberId,
    /// What people call it.
    pub name: String,
    /// Companies under one owner share one group and count once.
    pub group: String,
    /// What it may do.
    pub roles: Roles,
    /// Whether it belongs.
    pub status: MemberStatus,
    /// Log numbers are below this.
    pub log_limit: u32,
    /// The key that opens its logs.
    pub root_key: VerifyingKey,
    /// TLS pins of all its nodes.
    pub pins: Vec<Pin>,
    /// Where its nodes are found, as hints: `host:port`.
    pub endpoints: Vec<String>,
    /// Blocks from before are inert.
    pub admitted: TimeMs,
    /// ISO 3166 codes.
    pub jurisdictions: Vec<String>,
}

/// The forum's numbers (PROTOCOL C7).
#[derive(Clone, Debug)]
pub struct Policy {
    /// Least number of groups that can retract.
    pub retract_min: u32,
    /// Share of FULL groups that can retract, in thousandths.
    pub retract_permille: u32,
    /// Groups that dispute before an entry is contested.
    pub contest_quorum: u32,
    /// Certifying groups before a subject is allowed.
    pub allow_quorum: u32,
    /// Records a member and UTC day, by lane.
    pub quota_per_day: [u32; 3],
    /// How long a stale charter is only YELLOW, in milliseconds.
    pub stale_grace_ms: u64,
    /// Bytes of frames a member.
    pub log_bytes_max: u64,
}

/// How far a former member's logs still count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpulsionPolicy {
    /// Up to the cutoffs, as support by a former member.
    Keep,
    /// Not at all.
    Void,
}

/// A charter that satisfies C6 and C7 by itself. Whether it *counts* depends on its predecessor: see [`CharterChain`].
#[derive(Clone, Debug)]
pub struct Charter {
    /// 1, 2, 3, ...
    pub version: u64,
    /// Hash of the body.
    pub hash: CharterHash,
    /// Hash of the version before; absent in version 1.
    pub prev: Option<CharterHash>,
    /// Name of the forum.
    pub name: String,
    /// Level of meaning that is switched on.
    pub semantics: u32,
    /// Keys that sign charters.
    pub founders: BTreeMap<KeyId, VerifyingKey>,
    /// How many of them must.
    pub threshold: usize,
    /// The companies.
    pub members: BTreeMap<MemberId, Member>,
    /// The numbers.
    pub policy: Policy,
    /// Expelled members.
    pub expulsions: BTreeMap<MemberId, ExpulsionPolicy>,
    /// Last block that counts, by log.
    pub cutoffs: BTreeMap<Origin, Head>,
    /// When it was proposed.
    pub issued: TimeMs,
    /// When it becomes stale.
    pub valid_until: TimeMs,
    /// Name of the taxonomy.
    pub taxonomy: String,
    /// The forum, as the body names it; absent in version 1.
    forum: Option<ForumId>,
    nonce: Bytes,
    pops: BTreeMap<MemberId, Bytes>,
}

impl Charter {
    /// Reads a charter body.
    ///
    /// # Errors
    /// The first rule of C6 and C7, or of keys (S3), that it breaks.
    pub fn decode(body: &[u8]) -> Result<Self, CharterError> {
        Self::decode_after(body, None)
    }

    /// As [`Charter::decode`]; keys that `before` has, too, were found sound then.
    fn decode_after(body: &[u8], before: Option<&Self>) -> Result<Self, CharterError> {
        if body.len() > CHARTER_SIZE_MAX {
            return Err(CharterError::Size(body.len()));
        }
        let scanned = strict::scan(body, &strict::CHARTER)?;
        let p = proto::Charter::decode(body).map_err(|_undecodable| CharterError::Field("body", "does not decode"))?;
        if scanned == Scanned::UnknownFields && p.semantics <= SEMANTICS_MAX {
            return Err(CharterError::Field("body", "has fields that its semantics level does not define"));
        }
        if p.semantics == 0 {
            return Err(CharterError::Field("semantics", "is 0"));
        }
        if p.semantics < 2 && !p.erasures.is_empty()
            || p.semantics < 3 && !(p.peppers.is_empty() && p.audiences.is_empty())
        {
            return Err(CharterError::Field("semantics", "does not allow erasures, peppers or audiences yet"));
        }
        let expulsions = expulsions(&p)?;
        Ok(Self {
            version: p.version,
            hash: charter_hash(body),
            prev: optional(&p.prev_hash, CharterHash::from_slice, "prev_hash")?,
            forum: optional(&p.forum_id, ForumId::from_slice, "forum_id")?,
            semantics: p.semantics,
            founders: founders(&p, before)?,
            threshold: threshold(&p)?,
            policy: policy(p.policy.as_ref())?,
            pops: p.members.iter().filter_map(|m| Some((MemberId::from_slice(&m.id)?, m.pop.clone()))).collect(),
            members: members(&p.members, before)?,
            cutoffs: cutoffs(&p)?,
            expulsions,
            issued: TimeMs(p.issued_ms),
            valid_until: TimeMs(p.valid_until_ms),
            name: p.name,
            taxonomy: p.taxonomy,
            nonce: p.nonce,
        })
    }

    /// The member of `id`.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// The member called `name`.
    pub fn member_named(&self, name: &str) -> Option<&Member> {
        self.members.values().find(|m| m.name == name)
    }

    /// Members that connect and count.
    pub fn active(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|m| m.status == MemberStatus::Active)
    }

    /// Number of groups with an active FULL member.
    pub fn full_groups(&self) -> usize {
        self.active().filter(|m| m.roles.has(Roles::FULL)).map(|m| &m.group).collect::<BTreeSet<_>>().len()
    }

    /// How many of this charter's founders signed `body`. Unknown and duplicate signers are ignored (C2).
    fn signatures(&self, signed: &proto::SignedCharter) -> usize {
        let holds = |sig: &proto::KeySig| {
            let id = KeyId::from_slice(&sig.key_id)?;
            let key = self.founders.get(&id)?;
            signature_holds(key, CHARTER_TYPE, &signed.body, &sig.sig).then_some(id)
        };
        signed.sigs.iter().take(SIGNATURES_MAX).filter_map(holds).collect::<BTreeSet<_>>().len()
    }
}

/// `H("staydown/charter/v1\n" || body)`.
pub fn charter_hash(body: &[u8]) -> CharterHash {
    CharterHash(sha256(&[b"staydown/charter/v1\n", body]))
}

/// A founder's signature over a charter body.
pub fn sign_charter(key: &SigningKey, body: &[u8]) -> proto::KeySig {
    proto::KeySig {
        key_id: Bytes::copy_from_slice(&KeyId::of(key.verifying_key().as_bytes()).0),
        sig: Bytes::copy_from_slice(&sign(key, CHARTER_TYPE, body)),
    }
}

fn member_key_body(context: &[u8], member: MemberId, key: &VerifyingKey) -> Vec<u8> {
    [context, &member.0, key.as_bytes()].concat()
}

/// Proof of possession of a member's log root key (S3). `context`: the `forum_id`, or for charter 1 its nonce.
pub fn prove_possession(key: &SigningKey, context: &[u8; 32], member: MemberId) -> [u8; 64] {
    sign(key, MEMBER_KEY_TYPE, &member_key_body(context, member, &key.verifying_key()))
}

/// Whether `pop` proves possession of `key` in one of `contexts`.
pub fn possession_holds(key: &VerifyingKey, member: MemberId, pop: &[u8], contexts: &[&[u8]]) -> bool {
    contexts.iter().any(|c| signature_holds(key, MEMBER_KEY_TYPE, &member_key_body(c, member, key), pop))
}

/// A public key that may enter a charter (S3): canonical, not weak, free of torsion.
pub fn public_key(bytes: &[u8]) -> Option<VerifyingKey> {
    let bytes: &[u8; 32] = bytes.try_into().ok()?;
    let key = VerifyingKey::from_bytes(bytes).ok()?;
    let point = key.to_edwards();
    let sound = !key.is_weak() && point.is_torsion_free() && point.compress().as_bytes() == bytes;
    sound.then_some(key)
}

fn optional<T>(bytes: &[u8], read: fn(&[u8]) -> Option<T>, field: &'static str) -> Result<Option<T>, CharterError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    read(bytes).map(Some).ok_or(CharterError::Field(field, "has not the right length"))
}

fn founders(p: &proto::Charter, before: Option<&Charter>) -> Result<BTreeMap<KeyId, VerifyingKey>, CharterError> {
    let mut founders = BTreeMap::new();
    for bytes in &p.founder_keys {
        let known =
            before.and_then(|b| b.founders.get(&KeyId::of(bytes))).filter(|key| key.as_bytes()[..] == bytes[..]);
        let key = known
            .copied()
            .or_else(|| public_key(bytes))
            .ok_or(CharterError::Field("founder_keys", "has a key that is not sound"))?;
        if founders.insert(KeyId::of(bytes), key).is_some() {
            return Err(CharterError::Field("founder_keys", "has a key twice"));
        }
    }
    Ok(founders)
}

fn threshold(p: &proto::Charter) -> Result<usize, CharterError> {
    let threshold = p.threshold as usize;
    if threshold > p.founder_keys.len() / 2 && threshold <= p.founder_keys.len() {
        Ok(threshold)
    } else {
        Err(CharterError::Field("threshold", "is not more than half of the founders and at most all"))
    }
}

fn policy(policy: Option<&proto::Policy>) -> Result<Policy, CharterError> {
    let p = policy.ok_or(CharterError::Field("policy", "is missing"))?;
    let quota: [u32; 3] = p.quota_per_day[..].try_into().unwrap_or_default();
    let numbers = [p.retract_min, p.retract_permille, p.contest_quorum, p.allow_quorum];
    if numbers.contains(&0) || quota.contains(&0) || p.retract_permille > 1000 || p.log_bytes_max == 0 {
        return Err(CharterError::Field("policy", "leaves a number out or has one out of range"));
    }
    Ok(Policy {
        retract_min: p.retract_min,
        retract_permille: p.retract_permille,
        contest_quorum: p.contest_quorum,
        allow_quorum: p.allow_quorum,
        quota_per_day: quota,
        stale_grace_ms: p.stale_grace_ms,
        log_bytes_max: p.log_bytes_max,
    })
}

fn members(members: &[proto::Member], before: Option<&Charter>) -> Result<BTreeMap<MemberId, Member>, CharterError> {
    let mut out = BTreeMap::new();
    let mut names = BTreeSet::new();
    let mut pins = BTreeSet::new();
    for m in members {
        let member = member(m, before)?;
        if !names.insert(member.name.clone()) {
            return Err(CharterError::Member(member.name, "has a name that another member has"));
        }
        if member.pins.iter().any(|pin| !pins.insert(*pin)) {
            return Err(CharterError::Member(member.name, "has a TLS pin that stands in the charter twice"));
        }
        if let Some(twin) = out.insert(member.id, member) {
            return Err(CharterError::Member(twin.name, "has an id that another member has"));
        }
    }
    if out.is_empty() { Err(CharterError::Field("members", "are none")) } else { Ok(out) }
}

fn member(m: &proto::Member, before: Option<&Charter>) -> Result<Member, CharterError> {
    let refuse = |why| CharterError::Member(m.name.clone(), why);
    let id = MemberId::from_slice(&m.id).ok_or_else(|| refuse("has an id that has not 16 bytes"))?;
    let roles = Roles::from_bits(m.roles);
    let status = match m.status {
        1 => MemberStatus::Active,
        2 => MemberStatus::Suspended,
        3 => MemberStatus::Former,
        _ => return Err(refuse("has an unknown status")),
    };
    if m.name.is_empty() || m.group.is_empty() {
        return Err(refuse("has no name or no group"));
    }
    if !roles.is_allowed() {
        return Err(refuse("has roles that do not go together"));
    }
    if m.log_limit == 0 {
        return Err(refuse("has a log limit of 0"));
    }
    let known =
        before.and_then(|b| b.member(id)).map(|b| b.root_key).filter(|key| key.as_bytes()[..] == m.log_root_key[..]);
    let root_key = known.or_else(|| public_key(&m.log_root_key));
    let mut pins = Vec::new();
    for node in &m.nodes {
        if node.tls_spki_sha256.is_empty() || node.tls_spki_sha256.len() > PINS_PER_NODE_MAX {
            return Err(refuse("has a node without 1 to 4 TLS pins"));
        }
        for pin in &node.tls_spki_sha256 {
            pins.push(Pin::from_slice(pin).ok_or_else(|| refuse("has a TLS pin that has not 32 bytes"))?);
        }
    }
    Ok(Member {
        id,
        name: m.name.clone(),
        group: m.group.clone(),
        roles,
        status,
        log_limit: m.log_limit,
        root_key: root_key.ok_or_else(|| refuse("has a log root key that is not sound"))?,
        pins,
        endpoints: m.nodes.iter().flat_map(|n| n.endpoints.iter().cloned()).collect(),
        admitted: TimeMs(m.admitted_ms),
        jurisdictions: m.jurisdictions.clone(),
    })
}

fn expulsions(p: &proto::Charter) -> Result<BTreeMap<MemberId, ExpulsionPolicy>, CharterError> {
    let read = |e: &proto::Expulsion| {
        let policy = match e.policy {
            1 => ExpulsionPolicy::Keep,
            2 => ExpulsionPolicy::Void,
            _ => return None,
        };
        Some((MemberId::from_slice(&e.member_id)?, policy))
    };
    let expulsions: Option<_> = p.expulsions.iter().map(read).collect();
    expulsions.ok_or(CharterError::Field("expulsions", "name no member or no known policy"))
}

fn cutoffs(p: &proto::Charter) -> Result<BTreeMap<Origin, Head>, CharterError> {
    let all = p.expulsions.iter().flat_map(|e| &e.cutoffs).chain(&p.cutoffs);
    let read = |c: &proto::Cutoff| {
        let o = c.origin.as_ref()?;
        let origin = Origin { member: MemberId::from_slice(&o.member_id)?, log_no: LogNo(o.log_no) };
        Some((origin, Head { seq: Seq(c.last_seq), hash: HeaderHash::from_slice(&c.last_hash)? }))
    };
    let cutoffs: Option<_> = all.map(read).collect();
    cutoffs.ok_or(CharterError::Field("cutoffs", "name no log or no block"))
}

/// The charters that count, in order, and what makes the last of them effective.
#[derive(Clone, Debug)]
pub struct CharterChain {
    forum: ForumId,
    links: Vec<(proto::SignedCharter, Charter)>,
    fork: Option<Box<(u64, proto::CharterFork)>>,
}

/// What became of a charter that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is the newest now.
    Applied,
    /// We have it.
    Known,
    /// It and ours both count for one version: both stop counting (C4).
    Forked,
}

impl CharterChain {
    /// A chain of one charter, which must be the one that names the forum.
    ///
    /// # Errors
    /// When it is not version 1 of `forum`, is invalid, or lacks signatures.
    pub fn found(forum: ForumId, first: proto::SignedCharter) -> Result<Self, CharterError> {
        let charter = Charter::decode(&first.body)?;
        if charter.hash.0 != forum.0 {
            return Err(CharterError::Forum { expected: forum, got: ForumId(charter.hash.0) });
        }
        if charter.version != 1 || charter.prev.is_some() || charter.forum.is_some() {
            return Err(CharterError::Field("version", "is not 1, or a first charter names a predecessor"));
        }
        if charter.nonce.len() != 32 {
            return Err(CharterError::Field("nonce", "has not 32 bytes"));
        }
        let chain = Self { forum, links: Vec::new(), fork: None };
        enough(&charter, &first)?;
        chain.possession(&charter, None, &charter.nonce)?;
        Ok(Self { links: vec![(first, charter)], ..chain })
    }

    /// Applies the next version, or notices that it contradicts one that we hold.
    ///
    /// # Errors
    /// When it does not count, or leaves a gap ([`CharterError::Gap`]).
    pub fn apply(&mut self, next: proto::SignedCharter) -> Result<Applied, CharterError> {
        // Peers offer what we have all the time, and reading a charter costs a curve operation a key.
        let hash = charter_hash(&next.body);
        if self.history().any(|held| held.hash == hash) {
            return Ok(Applied::Known);
        }
        let charter = Charter::decode_after(&next.body, Some(self.newest()))?;
        let newest = self.newest().version;
        if charter.version == 0 || charter.version > newest + 1 {
            return Err(CharterError::Gap { expected: newest + 1, got: charter.version });
        }
        if let Some((ours, _)) = self.link(charter.version) {
            let fork = proto::CharterFork { a: Some(ours.clone()), b: Some(next) };
            return self.forked(&fork);
        }
        if self.fork.is_some() {
            return Err(CharterError::Frozen);
        }
        self.counts(&next, &charter)?;
        self.links.push((next, charter));
        Ok(Applied::Applied)
    }

    /// Takes in a proof that two charters count for one version (C4).
    ///
    /// # Errors
    /// When the proof does not hold.
    pub fn forked(&mut self, fork: &proto::CharterFork) -> Result<Applied, CharterError> {
        if self.fork() == Some(fork) {
            return Ok(Applied::Known);
        }
        let version = self.check_fork(fork)?;
        if self.fork.as_ref().is_some_and(|known| known.0 <= version) {
            return Ok(Applied::Known);
        }
        self.fork = Some(Box::new((version, fork.clone())));
        Ok(Applied::Forked)
    }

    /// The version that `fork` is about, if both of its charters count for it.
    fn check_fork(&self, fork: &proto::CharterFork) -> Result<u64, CharterError> {
        let (Some(a), Some(b)) = (&fork.a, &fork.b) else {
            return Err(CharterError::Field("fork", "lacks a charter"));
        };
        let (first, second) = (Charter::decode(&a.body)?, Charter::decode(&b.body)?);
        if first.version != second.version || first.hash == second.hash || first.version < 2 {
            return Err(CharterError::Field("fork", "is not two charters of one version"));
        }
        self.counts(a, &first)?;
        self.counts(b, &second)?;
        Ok(first.version)
    }

    /// C1 and C2: the right predecessor, and the thresholds of both versions.
    fn counts(&self, signed: &proto::SignedCharter, charter: &Charter) -> Result<(), CharterError> {
        let gap = CharterError::Gap { expected: self.newest().version + 1, got: charter.version };
        let Some((_, before)) = self.link(charter.version.saturating_sub(1)) else { return Err(gap) };
        if charter.forum != Some(self.forum) {
            return Err(CharterError::Forum { expected: self.forum, got: charter.forum.unwrap_or(ForumId([0; 32])) });
        }
        if charter.prev != Some(before.hash) {
            return Err(CharterError::Field("prev_hash", "is not the hash of the version before"));
        }
        enough(before, signed)?;
        enough(charter, signed)?;
        self.possession(charter, Some(before), &self.links[0].1.nonce)
    }

    /// S3: every member has proven possession of its root key, to this forum or to the founders of version 1. What
    /// stood like that in the version `before` was looked at then.
    fn possession(&self, charter: &Charter, before: Option<&Charter>, nonce: &[u8]) -> Result<(), CharterError> {
        for member in charter.members.values() {
            let pop = charter.pops.get(&member.id).cloned().unwrap_or_default();
            let same = |b: &Charter| {
                b.pops.get(&member.id) == Some(&pop) && b.member(member.id).map(|m| m.root_key) == Some(member.root_key)
            };
            if !before.is_some_and(same)
                && !possession_holds(&member.root_key, member.id, &pop, &[nonce, &self.forum.0])
            {
                return Err(CharterError::Member(
                    member.name.clone(),
                    "has no proof of possession of its log root key",
                ));
            }
        }
        Ok(())
    }

    fn link(&self, version: u64) -> Option<&(proto::SignedCharter, Charter)> {
        self.links.get(usize::try_from(version.checked_sub(1)?).ok()?)
    }

    /// The forum's name.
    pub fn forum(&self) -> ForumId {
        self.forum
    }

    /// The charter in force: the newest, or the last before a fork.
    pub fn effective(&self) -> &Charter {
        let before_fork = self.fork.as_ref().and_then(|fork| self.link(fork.0 - 1));
        before_fork.map_or_else(|| self.newest(), |(_, charter)| charter)
    }

    fn newest(&self) -> &Charter {
        &self.links[self.links.len() - 1].1
    }

    /// Highest version held, whether or not it is in force.
    pub fn version(&self) -> u64 {
        self.newest().version
    }

    /// Hash of the highest version held.
    pub fn head(&self) -> CharterHash {
        self.newest().hash
    }

    /// Hash of the version that is held, whether or not it is in force.
    pub fn hash_of(&self, version: u64) -> Option<CharterHash> {
        self.link(version).map(|(_, charter)| charter.hash)
    }

    /// The proof that the chain forks, if one is known.
    pub fn fork(&self) -> Option<&proto::CharterFork> {
        self.fork.as_ref().map(|fork| &fork.1)
    }

    /// The lowest forked version, if one is known.
    pub fn forked_version(&self) -> Option<u64> {
        self.fork.as_ref().map(|fork| fork.0)
    }

    /// Signed charters from `version` on.
    pub fn from(&self, version: u64) -> &[(proto::SignedCharter, Charter)] {
        let first = usize::try_from(version.saturating_sub(1)).unwrap_or(usize::MAX);
        self.links.get(first..).unwrap_or_default()
    }

    /// All charters held, oldest first.
    pub fn history(&self) -> impl Iterator<Item = &Charter> {
        self.links.iter().map(|(_, charter)| charter)
    }
}

fn enough(charter: &Charter, signed: &proto::SignedCharter) -> Result<(), CharterError> {
    let got = charter.signatures(signed);
    if got >= charter.threshold {
        Ok(())
    } else {
        Err(CharterError::Signatures { version: charter.version, got, expected: charter.threshold })
    }
}

/// Why a charter is refused. Nothing of ours has changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum CharterError {
    #[error("charter body has {0} bytes, at most 1048576 are allowed")]
    Size(usize),
    #[error(transparent)]
    Strict(#[from] strict::StrictError),
    #[error("charter is invalid: {0} {1}")]
    Field(&'static str, &'static str),
    #[error("charter is invalid: member {0:?} {1}")]
    Member(String, &'static str),
    #[error("charter belongs to forum {got}, expected {expected}")]
    Forum { expected: ForumId, got: ForumId },
    #[error("charter has {got} valid signatures of the founders of version {version}, expected {expected}")]
    Signatures { version: u64, got: usize, expected: usize },
    #[error("charter version {got} does not follow, expected {expected}")]
    Gap { expected: u64, got: u64 },
    #[error("the charter chain is forked; only people can resolve that, outside the protocol")]
    Frozen,
}
