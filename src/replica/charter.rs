//! The charter chain: founders, thresholds, members, keys, pins and the forum's numbers (PROTOCOL section 2).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ed25519_dalek::{SigningKey, VerifyingKey};
use prost::Message as _;
use thiserror::Error;

use super::block::{RECORDS_PER_BLOCK_MAX, sign, signature_holds};
use super::ids::{
    BlockId, CharterHash, ForumId, Head, HeaderHash, KeyId, LogNo, MemberId, Origin, Pin, Seq, TimeMs, sha256,
};
use super::proto;
use super::remembered::remembered;
use super::strict::{self, Scanned};

/// Length of a charter body.
pub const CHARTER_SIZE_MAX: usize = 1 << 20;
/// The highest semantics level that this release understands.
pub const SEMANTICS_MAX: u32 = 4;
/// The level from which on a charter may have peppers, and accounts may be listed.
pub const ACCOUNTS_LEVEL: u32 = 3;
/// The level from which on videos may be listed by their frames.
pub const VIDEOS_LEVEL: u32 = 4;
/// Entries of a have vector; members times log limit is held against it when a charter is proposed.
pub const HAVE_MAX: usize = 8_192;
/// Pins of one node entry: two are needed while a key changes.
pub const PINS_PER_NODE_MAX: usize = 4;
/// Logs a member may open, unless the charter says otherwise.
pub const LOG_LIMIT_DEFAULT: u32 = 16;
/// Peppers that live at once: the newest, and those before it until what was listed under them has ended. An account is
/// looked up once for each; a forum that rotates every two months and lists for a year needs seven.
pub const PEPPERS_MAX: usize = 8;
/// A sealed pepper, in bytes: the sender's ephemeral key, 32 bytes, and the tag of AES-256-GCM.
pub const SEALED_PEPPER_SIZE: usize = 32 + 32 + 16;
/// The longest `account_ttl_max_ms` of a forum that lists accounts: people change, and so do the owners of accounts.
pub const ACCOUNT_TTL_DAYS_MAX: u64 = 400;
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

    /// Whether companies of these roles list accounts, look them up, certify or refer them. Who has the peppers can test
    /// guesses, so nobody else gets them.
    pub fn deal_with_accounts(self) -> bool {
        self.has_any(Self::FULL.and(Self::SMALL).and(Self::REFERRAL).and(Self::CERTIFIER))
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
    /// BCP 47 tags of what it works in.
    pub languages: Vec<String>,
    /// What peppers are sealed to; absent, or not sound below level 3.
    pub seal_key: Option<SealKey>,
}

/// The public half of a member's X25519 key. Only a sound one can be made: canonical, and not of small order, under which
/// anybody could open what is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealKey([u8; 32]);

impl SealKey {
    /// The u-coordinates of small order that are canonical: 0, 1, the two of order 8, and p - 1.
    const SMALL_ORDER: [[u8; 32]; 5] = [
        [0; 32],
        {
            let mut one = [0; 32];
            one[0] = 1;
            one
        },
        [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
            0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ],
        [
            0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44,
            0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
        ],
        [
            0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
        ],
    ];

    /// The key, if it is sound.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let key: [u8; 32] = bytes.try_into().ok()?;
        // p is 2^255 - 19: what is not below it has a second spelling, or the top bit set.
        let below_p = key[31] < 0x7f || key[31] == 0x7f && (key[1..31] != [0xff; 30] || key[0] < 0xed);
        (below_p && !Self::SMALL_ORDER.contains(&key)).then_some(Self(key))
    }

    /// The u-coordinate, little-endian.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
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
    /// Whether auditors' attestations count, too.
    pub auditors_attest: bool,
    /// Longest time that a word on an account lasts, in milliseconds.
    pub account_ttl_max_ms: u64,
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
    /// Records whose bytes are erased everywhere: by block, the record's index and the leaf hash that stays.
    pub erasures: BTreeMap<BlockId, BTreeMap<u32, [u8; 32]>>,
    /// When it was proposed.
    pub issued: TimeMs,
    /// When it becomes stale.
    pub valid_until: TimeMs,
    /// Name of the taxonomy.
    pub taxonomy: String,
    /// The peppers that live, by their ids, each with the copies that are sealed to members. None: accounts are off.
    pub peppers: BTreeMap<u32, BTreeMap<MemberId, Bytes>>,
    /// The forum, as the body names it; absent in version 1.
    forum: Option<ForumId>,
    nonce: Bytes,
    pops: BTreeMap<MemberId, Bytes>,
}

impl Member {
    /// Whether it connects and counts.
    pub fn is_active(&self) -> bool {
        self.status == MemberStatus::Active
    }
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
        // Audiences are reserved at every level that this release knows.
        if p.semantics < 2 && !p.erasures.is_empty()
            || p.semantics < ACCOUNTS_LEVEL && !p.peppers.is_empty()
            || p.semantics <= SEMANTICS_MAX && !p.audiences.is_empty()
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
            erasures: erasures(&p.erasures)?,
            peppers: peppers(&p)?,
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
        self.members.values().filter(|m| m.is_active())
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
            charter_signature_holds(key, &signed.body, sig).then_some(id)
        };
        signed.sigs.iter().take(SIGNATURES_MAX).filter_map(holds).collect::<BTreeSet<_>>().len()
    }
}

/// `H("staydown/charter/v1\n" || body)`.
pub fn charter_hash(body: &[u8]) -> CharterHash {
    CharterHash(sha256(&[b"staydown/charter/v1\n", body]))
}

/// Whether `sig` is the signature of `key` over a charter body; its key id is not looked at.
pub fn charter_signature_holds(key: &VerifyingKey, body: &[u8], sig: &proto::KeySig) -> bool {
    signature_holds(key, CHARTER_TYPE, body, &sig.sig)
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
    remembered!(Option<VerifyingKey>, &[bytes], sound_key(bytes))
}

fn sound_key(bytes: &[u8]) -> Option<VerifyingKey> {
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
        auditors_attest: p.auditors_attest,
        account_ttl_max_ms: p.account_ttl_max_ms,
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
        if node.require_ca {
            // This release checks no certificate authority: such a node does not connect, rather than without one.
            continue;
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
        languages: m.languages.clone(),
        seal_key: SealKey::from_slice(&m.seal_key),
    })
}

/// The peppers of a level that has them, and the keys that they are sealed to. What a later level makes of either is not
/// ours to judge.
fn peppers(p: &proto::Charter) -> Result<BTreeMap<u32, BTreeMap<MemberId, Bytes>>, CharterError> {
    let refuse = |why| CharterError::Field("peppers", why);
    let mut peppers: BTreeMap<u32, BTreeMap<MemberId, Bytes>> = BTreeMap::new();
    if !(ACCOUNTS_LEVEL..=SEMANTICS_MAX).contains(&p.semantics) {
        return Ok(peppers);
    }
    let unsound = |m: &&proto::Member| !m.seal_key.is_empty() && SealKey::from_slice(&m.seal_key).is_none();
    if let Some(m) = p.members.iter().find(unsound) {
        return Err(CharterError::Member(m.name.clone(), "has a seal key that is not sound"));
    }
    for copy in &p.peppers {
        let member = p.members.iter().find(|m| m.id == copy.member_id && !m.seal_key.is_empty());
        let member = member.and_then(|m| MemberId::from_slice(&m.id));
        let member = member.ok_or_else(|| refuse("are sealed to somebody who is no member or has no seal key"))?;
        if copy.pepper_id == 0 || copy.sealed.len() != SEALED_PEPPER_SIZE {
            return Err(refuse("have a copy with id 0, or one that has not 80 bytes"));
        }
        let last = peppers.last_key_value().and_then(|(id, copies)| Some((*id, *copies.last_key_value()?.0)));
        if last.is_some_and(|last| last >= (copy.pepper_id, member)) {
            return Err(refuse("do not ascend by id and member, each once"));
        }
        peppers.entry(copy.pepper_id).or_default().insert(member, copy.sealed.clone());
    }
    let ttl = p.policy.as_ref().map_or(0, |policy| policy.account_ttl_max_ms);
    if peppers.len() > PEPPERS_MAX {
        return Err(refuse("are more than 8 at once"));
    }
    if !peppers.is_empty() && !(1..=ACCOUNT_TTL_DAYS_MAX * TimeMs::DAY_MS).contains(&ttl) {
        return Err(CharterError::Field("policy", "has an account_ttl_max_ms that is not 1 ms to 400 days"));
    }
    Ok(peppers)
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

/// Every record that is ordered to be erased. A log's opening holds no statement, and without it the log's blocks could
/// not be verified any more.
fn erasures(orders: &[proto::Erasure]) -> Result<BTreeMap<BlockId, BTreeMap<u32, [u8; 32]>>, CharterError> {
    let refuse = |why| CharterError::Field("erasures", why);
    let mut erasures: BTreeMap<BlockId, BTreeMap<u32, [u8; 32]>> = BTreeMap::new();
    for order in orders {
        let origin = order.origin.as_ref().and_then(super::heads::origin_from_proto);
        let origin = origin.ok_or_else(|| refuse("name no log"))?;
        let leaf = order.leaf_hash[..].try_into().map_err(|_wrong| refuse("have a leaf hash that has not 32 bytes"))?;
        if order.seq == 0 || order.index as usize >= RECORDS_PER_BLOCK_MAX || (order.seq, order.index) == (1, 0) {
            return Err(refuse("name no record, or a log's opening"));
        }
        let block = erasures.entry(BlockId { origin, seq: Seq(order.seq) }).or_default();
        if block.insert(order.index, leaf).is_some() {
            return Err(refuse("name a record twice"));
        }
    }
    Ok(erasures)
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

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::replica::testing::{
        AUDITOR, FULL, NONCE, REFERRAL, TestForum, first_charter, founder, id, key, member, origin, public, root,
        sign_by,
    };

    /// A point of order 8.
    const SMALL_ORDER: &str = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
    /// The base point plus the point of order 2: not of small order, and not of prime order either.
    const WITH_TORSION: &str = "9599999999999999999999999999999999999999999999999999999999999999";

    const TWO: [(&str, u32); 2] = [("g1", FULL), ("g2", FULL)];

    fn bytes(hex: &str) -> Bytes {
        data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap().into()
    }

    /// What `apply` makes of the next version with a change, signed by founders 0 and 1.
    fn applied(change: impl FnOnce(&mut proto::Charter)) -> Result<Applied, CharterError> {
        let forum = TestForum::of(&TWO);
        forum.chain().apply(forum.next(change))
    }

    fn text(outcome: Result<Applied, CharterError>) -> String {
        outcome.unwrap_err().to_string()
    }

    #[test]
    fn versions_follow_each_other_without_gaps() {
        let mut forum = TestForum::of(&TWO);
        let mut chain = forum.chain();
        assert_eq!(chain.apply(forum.next(|c| c.version = 3)), Err(CharterError::Gap { expected: 2, got: 3 }));
        assert_eq!(chain.apply(forum.next(|c| c.version = 0)), Err(CharterError::Gap { expected: 2, got: 0 }));
        assert_eq!(chain.apply(forum.issue(|_| ())), Ok(Applied::Applied));
        assert_eq!(chain.apply(forum.charters[1].clone()), Ok(Applied::Known));
        assert_eq!(chain.apply(forum.charters[0].clone()), Ok(Applied::Known));
        assert_eq!((chain.version(), chain.effective().version), (2, 2));
    }

    #[test]
    fn a_charter_names_its_predecessor_and_its_forum() {
        for (change, expected) in [
            ((|c| c.prev_hash = vec![7; 32].into()) as fn(&mut proto::Charter), "prev_hash is not the hash"),
            (|c| c.prev_hash = Bytes::new(), "prev_hash is not the hash"),
            (|c| c.prev_hash = vec![7; 31].into(), "prev_hash has not the right length"),
            (|c| c.forum_id = vec![7; 32].into(), "belongs to forum 0707"),
            (|c| c.forum_id = Bytes::new(), "belongs to forum 0000"),
        ] {
            let got = text(applied(change));
            assert!(got.contains(expected), "{got}, expected {expected}");
        }
    }

    #[test]
    fn a_first_charter_names_no_predecessor_and_has_a_nonce() {
        let found = |change: fn(&mut proto::Charter)| {
            let mut charter = first_charter(&TWO);
            change(&mut charter);
            let signed = sign_by(&charter, &[0, 1]);
            CharterChain::found(ForumId(charter_hash(&signed.body).0), signed)
        };
        assert!(found(|_| ()).is_ok());
        for change in [
            (|c| c.version = 2) as fn(&mut proto::Charter),
            |c| c.prev_hash = vec![1; 32].into(),
            |c| c.forum_id = vec![1; 32].into(),
            |c| c.nonce = vec![1; 31].into(),
            |c| c.nonce = Bytes::new(),
        ] {
            assert!(found(change).is_err());
        }
        let signed = sign_by(&first_charter(&TWO), &[0, 1]);
        let other = ForumId([1; 32]);
        assert!(
            matches!(CharterChain::found(other, signed), Err(CharterError::Forum { expected, .. }) if expected == other)
        );
    }

    /// C2: the founders of the version before and of the version itself, each its threshold.
    #[test]
    fn enough_founders_of_both_versions_must_sign() {
        let forum = TestForum::of(&TWO);
        let with_founders = |founders: [usize; 3], threshold| {
            forum.draft(move |c| {
                c.founder_keys = founders.iter().map(|n| public(&founder(*n))).collect();
                c.threshold = threshold;
            })
        };
        let same = with_founders([0, 1, 2], 2);
        let stricter = with_founders([0, 1, 2], 3);
        let new_people = with_founders([3, 4, 5], 2);
        let one_new = with_founders([1, 2, 3], 2);
        let cases: &[(&str, &proto::Charter, &[usize], bool)] = &[
            ("two of three", &same, &[0, 1], true),
            ("another two", &same, &[2, 0], true),
            ("one", &same, &[0], false),
            ("nobody", &same, &[], false),
            ("one twice", &same, &[0, 0], false),
            ("one and a stranger", &same, &[0, 9], false),
            ("two and a stranger", &same, &[9, 0, 1], true),
            ("two, one of them twice", &same, &[0, 0, 1], true),
            ("the old threshold is too few for the new", &stricter, &[0, 1], false),
            ("the new threshold", &stricter, &[0, 1, 2], true),
            ("the old founders alone", &new_people, &[0, 1], false),
            ("the new founders alone", &new_people, &[3, 4], false),
            ("one old, two new", &new_people, &[0, 3, 4], false),
            ("two old, one new", &new_people, &[0, 1, 3], false),
            ("two old, two new", &new_people, &[0, 1, 3, 4], true),
            ("the founders who stay", &one_new, &[1, 2], true),
            ("one who stays, one who comes", &one_new, &[1, 3], false),
            ("one who goes, one who stays", &one_new, &[0, 1], false),
        ];
        for (what, charter, signers, counts) in cases {
            let outcome = forum.chain().apply(sign_by(charter, signers));
            let expected = if *counts { Ok(Applied::Applied) } else { outcome.clone() };
            assert_eq!(outcome, expected, "{what}");
            assert_eq!(matches!(outcome, Err(CharterError::Signatures { .. })), !counts, "{what}: {outcome:?}");
        }
    }

    #[test]
    fn a_lower_threshold_is_signed_by_the_old_one() {
        let forum = TestForum::with(&TWO, |c| c.threshold = 3);
        let signed = |founders: &[usize]| {
            let first = sign_by(&forum.latest, &[0, 1, 2]);
            let mut chain = CharterChain::found(forum.id, first).unwrap();
            chain.apply(sign_by(&forum.draft(|c| c.threshold = 2), founders))
        };
        assert!(matches!(signed(&[0, 1]), Err(CharterError::Signatures { version: 1, got: 2, expected: 3 })));
        assert_eq!(signed(&[0, 1, 2]), Ok(Applied::Applied));
    }

    #[test]
    fn a_signature_counts_for_its_own_key_and_body_only() {
        let forum = TestForum::of(&TWO);
        let good = forum.next(|_| ());
        let other = forum.next(|c| c.name = "another".into());
        let refused = |signed: proto::SignedCharter| {
            assert!(matches!(forum.chain().apply(signed), Err(CharterError::Signatures { got: 1, .. })));
        };
        let mut wrong_key = good.clone();
        wrong_key.sigs[1].key_id = wrong_key.sigs[0].key_id.clone();
        refused(wrong_key);
        let mut wrong_body = good.clone();
        wrong_body.sigs[1] = other.sigs[1].clone();
        refused(wrong_body);
        let mut flipped = good.clone();
        let mut sig = flipped.sigs[1].sig.to_vec();
        sig[63] ^= 0x80;
        flipped.sigs[1].sig = sig.into();
        refused(flipped);
    }

    #[test]
    fn signatures_beyond_the_limit_are_not_looked_at() {
        let forum = TestForum::of(&TWO);
        let mut signed = forum.next(|_| ());
        let stranger = proto::KeySig { key_id: vec![1; 32].into(), sig: vec![1; 64].into() };
        let padded = |count| {
            let mut padded = signed.clone();
            padded.sigs.splice(0..0, vec![stranger.clone(); count]);
            padded
        };
        assert_eq!(forum.chain().apply(padded(SIGNATURES_MAX - 2)), Ok(Applied::Applied));
        assert!(matches!(forum.chain().apply(padded(SIGNATURES_MAX - 1)), Err(CharterError::Signatures { .. })));
        signed.sigs.clear();
        assert!(forum.chain().apply(signed).is_err());
    }

    #[test]
    fn an_unsound_key_enters_as_neither_founder_nor_member() {
        // Second spellings: y + p of the small y for which that still fits into 255 bits.
        let non_canonical: Vec<_> = (0xed..=0xff).map(|low| format!("{low:02x}{}7f", "ff".repeat(30))).collect();
        let decodes = |hex: &&String| VerifyingKey::from_bytes(bytes(hex)[..].try_into().unwrap()).is_ok();
        assert!(non_canonical.iter().filter(decodes).count() > 3, "the check for the spelling is needed");
        let zero = "00".repeat(32);
        let weak = [SMALL_ORDER, WITH_TORSION, &zero].into_iter().chain(non_canonical.iter().map(String::as_str));
        for weak in weak {
            assert_eq!(public_key(&bytes(weak)), None, "{weak}");
            assert!(text(applied(|c| c.founder_keys[0] = bytes(weak))).contains("not sound"), "{weak}");
            assert!(text(applied(|c| c.members[0].log_root_key = bytes(weak))).contains("not sound"), "{weak}");
        }
        assert_eq!(public_key(&[1; 31]), None);
        assert!(public_key(&public(&key("sound"))).is_some());
        // The torsion is what is wrong with the third one: it decodes, and it is not of small order.
        let torsion = VerifyingKey::from_bytes(bytes(WITH_TORSION)[..].try_into().unwrap()).unwrap();
        assert!(!torsion.is_weak());
    }

    #[test]
    fn a_member_proves_possession_of_its_root_key_to_this_forum() {
        let forum = TestForum::of(&TWO);
        let newcomer = |pop: [u8; 64]| {
            forum.next(|c| {
                let mut newcomer = member(3, "g3", FULL);
                newcomer.pop = Bytes::copy_from_slice(&pop);
                c.members.push(newcomer);
            })
        };
        let cases: &[(&str, [u8; 64], bool)] = &[
            ("for the nonce", prove_possession(&root(3), &NONCE, id(3)), true),
            ("for the forum", prove_possession(&root(3), &forum.id.0, id(3)), true),
            ("for another forum", prove_possession(&root(3), &[1; 32], id(3)), false),
            ("for another member", prove_possession(&root(3), &forum.id.0, id(2)), false),
            ("by another key", prove_possession(&root(2), &forum.id.0, id(3)), false),
        ];
        for (what, pop, holds) in cases {
            assert_eq!(forum.chain().apply(newcomer(*pop)).is_ok(), *holds, "{what}");
        }
        let without = |c: &mut proto::Charter| c.members[0].pop = Bytes::new();
        assert!(text(applied(without)).contains("no proof of possession"));
        let new_key = |c: &mut proto::Charter| c.members[0].log_root_key = public(&key("new"));
        assert!(text(applied(new_key)).contains("no proof of possession"));
    }

    #[test]
    fn what_a_charter_must_not_say() {
        type Change = fn(&mut proto::Charter);
        let cases: &[(&str, Change)] = &[
            ("has a TLS pin that stands in the charter twice", |c| {
                c.members[1].nodes[0].tls_spki_sha256 = c.members[0].nodes[0].tls_spki_sha256.clone();
            }),
            ("has a TLS pin that stands in the charter twice", |c| {
                let pin = c.members[1].nodes[0].tls_spki_sha256[0].clone();
                c.members[1].nodes[0].tls_spki_sha256.push(pin);
            }),
            ("has a TLS pin that has not 32 bytes", |c| {
                c.members[1].nodes[0].tls_spki_sha256[0] = vec![1; 31].into();
            }),
            ("without 1 to 4 TLS pins", |c| c.members[1].nodes[0].tls_spki_sha256.clear()),
            ("without 1 to 4 TLS pins", |c| {
                c.members[1].nodes[0].tls_spki_sha256 = (10..15).map(|n| vec![n; 32].into()).collect();
            }),
            ("has a name that another member has", |c| c.members[1].name = c.members[0].name.clone()),
            ("has an id that another member has", |c| c.members[1].id = c.members[0].id.clone()),
            ("has an id that has not 16 bytes", |c| c.members[1].id = vec![1; 15].into()),
            ("has no name or no group", |c| c.members[1].name.clear()),
            ("has no name or no group", |c| c.members[1].group.clear()),
            ("has an unknown status", |c| c.members[1].status = 0),
            ("has an unknown status", |c| c.members[1].status = 4),
            ("has a log limit of 0", |c| c.members[1].log_limit = 0),
            ("roles that do not go together", |c| c.members[1].roles = 0),
            ("roles that do not go together", |c| c.members[1].roles = 128),
            ("roles that do not go together", |c| c.members[1].roles = REFERRAL | FULL),
            ("roles that do not go together", |c| c.members[1].roles = REFERRAL | AUDITOR | FULL),
            ("members are none", |c| c.members.clear()),
            ("policy is missing", |c| c.policy = None),
            ("policy leaves a number out", |c| c.policy.as_mut().unwrap().retract_min = 0),
            ("policy leaves a number out", |c| c.policy.as_mut().unwrap().retract_permille = 0),
            ("policy leaves a number out", |c| c.policy.as_mut().unwrap().retract_permille = 1001),
            ("policy leaves a number out", |c| c.policy.as_mut().unwrap().contest_quorum = 0),
            ("policy leaves a number out", |c| c.policy.as_mut().unwrap().allow_quorum = 0),
            ("policy leaves a number out", |c| c.policy.as_mut().unwrap().log_bytes_max = 0),
            ("policy leaves a number out", |c| c.policy.as_mut().unwrap().quota_per_day = vec![1, 1]),
            ("policy leaves a number out", |c| c.policy.as_mut().unwrap().quota_per_day = vec![1, 0, 1]),
            ("policy leaves a number out", |c| c.policy.as_mut().unwrap().quota_per_day = vec![1; 4]),
            ("policy leaves a number out", |c| c.policy.as_mut().unwrap().quota_per_day.clear()),
            ("founder_keys has a key twice", |c| c.founder_keys[1] = c.founder_keys[0].clone()),
            ("threshold is not more than half", |c| c.threshold = 0),
            ("threshold is not more than half", |c| c.threshold = 1),
            ("threshold is not more than half", |c| c.threshold = 4),
            ("semantics is 0", |c| c.semantics = 0),
            ("erasures name no log", |c| erase(c, |e| e.origin = None)),
            ("erasures have a leaf hash that has not 32", |c| erase(c, |e| e.leaf_hash = vec![1; 31].into())),
            ("erasures name no record", |c| erase(c, |e| e.seq = 0)),
            ("erasures name no record, or a log's opening", |c| erase(c, |e| (e.seq, e.index) = (1, 0))),
            ("erasures name no record", |c| erase(c, |e| e.index = 512)),
            ("erasures name a record twice", |c| {
                erase(c, |_| ());
                c.erasures.push(c.erasures[0].clone());
            }),
            ("does not allow erasures", |c| c.erasures = vec![proto::Erasure::default()]),
            ("does not allow erasures, peppers", |c| c.peppers = vec![proto::SealedPepper::default()]),
            ("does not allow erasures, peppers", |c| accounts(c, |c| c.semantics = 2)),
            ("or audiences yet", |c| c.audiences = vec![proto::Audience { index: 1, ..Default::default() }]),
            ("or audiences yet", |c| {
                accounts(c, |c| c.audiences = vec![proto::Audience { index: 1, ..Default::default() }]);
            }),
            ("has a seal key that is not sound", |c| accounts(c, |c| c.members[0].seal_key = vec![8; 31].into())),
            ("has a seal key that is not sound", |c| accounts(c, |c| c.members[0].seal_key = vec![0; 32].into())),
            ("is no member or has no seal key", |c| accounts(c, |c| c.members[0].seal_key = Bytes::new())),
            ("is no member or has no seal key", |c| accounts(c, |c| c.peppers[1].member_id = vec![3; 16].into())),
            ("with id 0", |c| accounts(c, |c| c.peppers[0].pepper_id = 0)),
            ("one that has not 80 bytes", |c| accounts(c, |c| c.peppers[2].sealed = vec![1; 79].into())),
            ("do not ascend", |c| accounts(c, |c| c.peppers.swap(0, 1))),
            ("do not ascend", |c| accounts(c, |c| c.peppers.swap(1, 2))),
            ("do not ascend", |c| accounts(c, |c| c.peppers[1] = c.peppers[0].clone())),
            ("more than 8 at once", |c| accounts(c, |c| add_peppers(c, 9))),
            ("account_ttl_max_ms", |c| accounts(c, |c| c.policy.as_mut().unwrap().account_ttl_max_ms = 0)),
            ("do not ascend", |c| {
                accounts(c, |c| c.semantics = VIDEOS_LEVEL);
                c.peppers.swap(0, 1);
            }),
            ("account_ttl_max_ms", |c| {
                accounts(c, |c| c.policy.as_mut().unwrap().account_ttl_max_ms = 400 * TimeMs::DAY_MS + 1);
            }),
            ("expulsions name no member", |c| {
                c.expulsions =
                    vec![proto::Expulsion { member_id: vec![1; 16].into(), policy: 3, ..Default::default() }];
            }),
            ("cutoffs name no log", |c| c.cutoffs = vec![proto::Cutoff { last_seq: 1, ..Default::default() }]),
        ];
        for (expected, change) in cases {
            let got = text(applied(change));
            assert!(got.contains(expected), "{got}, expected {expected}");
        }
    }

    /// A charter of level 3 with peppers 2 and 5, each sealed to both members.
    fn accounts(charter: &mut proto::Charter, change: impl FnOnce(&mut proto::Charter)) {
        charter.semantics = 3;
        charter.policy.as_mut().unwrap().account_ttl_max_ms = 400 * TimeMs::DAY_MS;
        charter.members.iter_mut().for_each(|m| m.seal_key = vec![8; 32].into());
        charter.peppers = [(2, 1), (2, 2), (5, 1), (5, 2)].map(|(pepper, member)| sealed(pepper, member)).to_vec();
        change(charter);
    }

    fn sealed(pepper_id: u32, member: u8) -> proto::SealedPepper {
        let sealed = vec![member; SEALED_PEPPER_SIZE].into();
        proto::SealedPepper { pepper_id, member_id: vec![member; 16].into(), sealed }
    }

    fn add_peppers(charter: &mut proto::Charter, count: u32) {
        charter.peppers = (1..=count).map(|pepper| sealed(pepper, 1)).collect();
    }

    #[test]
    fn peppers_are_known_by_their_ids_and_whom_they_are_sealed_to() {
        let charter = TestForum::with(&TWO, |c| accounts(c, |_| ())).charter();
        let later = TestForum::with(&TWO, |c| accounts(c, |c| c.semantics = VIDEOS_LEVEL)).charter();
        assert_eq!(charter.peppers, later.peppers, "a level has all that lower ones have");
        let ids: Vec<_> = charter.peppers.iter().map(|(pepper, copies)| (*pepper, copies.len())).collect();
        assert_eq!(ids, [(2, 2), (5, 2)]);
        assert_eq!(charter.peppers[&5][&id(2)], vec![2; SEALED_PEPPER_SIZE]);
        assert_eq!(charter.member(id(1)).unwrap().seal_key.unwrap().as_bytes(), &[8; 32]);
        assert!(TestForum::with(&TWO, |c| c.semantics = 3).charter().peppers.is_empty(), "off unless there are some");
        // What is no key below level 3 was carried before this release, and is.
        let odd = TestForum::with(&TWO, |c| c.members[0].seal_key = vec![1; 5].into());
        assert_eq!(odd.charter().member(id(1)).unwrap().seal_key, None);
    }

    #[test]
    fn a_seal_key_has_one_spelling_and_is_not_of_small_order() {
        let one_bit = |byte: usize, value: u8| {
            let mut key = [0xff; 32];
            (key[31], key[byte]) = (0x7f, value);
            key
        };
        let p_and_above = (0xed..=0xff).map(|low| one_bit(0, low));
        for unsound in SealKey::SMALL_ORDER.into_iter().chain(p_and_above).chain([[0xff; 32], [0x80; 32]]) {
            assert_eq!(SealKey::from_slice(&unsound), None, "{unsound:02x?}");
        }
        for sound in [one_bit(0, 0xeb), one_bit(1, 0), one_bit(31, 0x7e), [9; 32]] {
            assert!(SealKey::from_slice(&sound).is_some(), "{sound:02x?}");
        }
        assert!(SealKey::from_slice(&[9; 31]).is_none());
    }

    /// A charter of level 2 that orders one erasure.
    fn erase(charter: &mut proto::Charter, change: impl FnOnce(&mut proto::Erasure)) {
        charter.semantics = 2;
        let origin = Some(crate::replica::heads::origin_to_proto(origin(1, 0)));
        let mut order =
            proto::Erasure { origin, seq: 1, index: 511, leaf_hash: vec![7; 32].into(), ..Default::default() };
        change(&mut order);
        charter.erasures.push(order);
    }

    #[test]
    fn what_a_charter_may_say() {
        type Change = fn(&mut proto::Charter);
        let cases: &[Change] = &[
            |c| c.members[1].roles = REFERRAL | AUDITOR,
            |c| c.members[1].status = 3,
            |c| c.threshold = 3,
            |c| c.policy.as_mut().unwrap().retract_permille = 1000,
            |c| c.members[1].nodes[0].tls_spki_sha256 = (10..14).map(|n| vec![n; 32].into()).collect(),
            |c| c.members[1].nodes.clear(),
            |c| c.semantics = SEMANTICS_MAX + 1,
            |c| erase(c, |_| ()),
            |c| c.semantics = SEMANTICS_MAX,
            |c| accounts(c, |_| ()),
            |c| accounts(c, |c| add_peppers(c, 8)),
            |c| accounts(c, |c| c.peppers.clear()),
            |c| accounts(c, |c| c.semantics = VIDEOS_LEVEL),
            |c| {
                accounts(c, |c| c.semantics = SEMANTICS_MAX + 1);
                c.peppers.swap(0, 1);
            },
        ];
        for (number, change) in cases.iter().enumerate() {
            let forum = TestForum::of(&TWO);
            let outcome = forum.chain().apply(sign_by(&forum.draft(change), &[0, 1, 2]));
            assert_eq!(outcome, Ok(Applied::Applied), "case {number}");
        }
    }

    #[test]
    fn fields_of_a_later_release_are_refused_unless_the_level_says_so() {
        let forum = TestForum::of(&TWO);
        let with_unknown_field = |semantics| {
            let mut body = forum.draft(|c| c.semantics = semantics).encode_to_vec();
            body.extend_from_slice(&[0xf8, 0x07, 0x01]); // field 127, 1
            let sigs = (0..2).map(|n| sign_charter(&founder(n), &body)).collect();
            proto::SignedCharter { body: body.into(), sigs }
        };
        let refused = forum.chain().apply(with_unknown_field(SEMANTICS_MAX));
        assert_eq!(refused, Err(CharterError::Field("body", "has fields that its semantics level does not define")));
        assert_eq!(forum.chain().apply(with_unknown_field(SEMANTICS_MAX + 1)), Ok(Applied::Applied));
    }

    #[test]
    fn a_body_that_is_not_strictly_encoded_is_refused() {
        let forum = TestForum::of(&TWO);
        let mut body = forum.draft(|_| ()).encode_to_vec();
        body.extend_from_slice(&[0x08, 0x02]); // version again, after the last field
        assert!(matches!(Charter::decode(&body), Err(CharterError::Strict(_))));
    }

    #[test]
    fn a_body_is_at_most_1_mib() {
        assert_eq!(CHARTER_SIZE_MAX, 1 << 20);
        let sized = |size: usize| {
            let mut charter = first_charter(&TWO);
            charter.taxonomy = "t".repeat(size);
            let excess = charter.encoded_len() - size;
            charter.taxonomy = "t".repeat(size - excess);
            charter.encode_to_vec()
        };
        let fits = sized(CHARTER_SIZE_MAX);
        assert_eq!(fits.len(), CHARTER_SIZE_MAX);
        assert!(Charter::decode(&fits).is_ok());
        assert_eq!(
            Charter::decode(&sized(CHARTER_SIZE_MAX + 1)).unwrap_err(),
            CharterError::Size(CHARTER_SIZE_MAX + 1)
        );
    }

    /// A forum of versions 1 to 4 with a rival of each but the first.
    fn forked_forum() -> (TestForum, Vec<proto::SignedCharter>) {
        let mut forum = TestForum::of(&TWO);
        let mut rivals = Vec::new();
        for version in 2..=4 {
            rivals.push(forum.next(|c| c.name = format!("rival {version}")));
            forum.issue(|c| c.name = format!("ours {version}"));
        }
        (forum, rivals)
    }

    #[test]
    fn two_charters_of_one_version_put_the_one_before_in_force() {
        let (forum, rivals) = forked_forum();
        let mut chain = forum.chain();
        assert_eq!(chain.effective().version, 4);
        assert_eq!(chain.apply(rivals[2].clone()), Ok(Applied::Forked));
        assert_eq!((chain.effective().version, chain.version(), chain.forked_version()), (3, 4, Some(4)));
        // A fork further down counts for more; one further up says nothing new.
        assert_eq!(chain.apply(rivals[0].clone()), Ok(Applied::Forked));
        assert_eq!((chain.effective().version, chain.forked_version()), (1, Some(2)));
        assert_eq!(chain.apply(rivals[1].clone()), Ok(Applied::Known));
        assert_eq!(chain.forked_version(), Some(2));
    }

    #[test]
    fn a_chain_that_forks_grows_no_more() {
        let (forum, rivals) = forked_forum();
        let mut chain = forum.chain();
        chain.apply(rivals[1].clone()).unwrap();
        assert_eq!(chain.apply(forum.next(|_| ())), Err(CharterError::Frozen));
        assert_eq!(chain.version(), 4);
    }

    #[test]
    fn the_order_in_which_forks_are_heard_of_does_not_matter() {
        let (forum, rivals) = forked_forum();
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut chain = forum.chain();
            for rival in order {
                chain.apply(rivals[rival].clone()).unwrap();
            }
            assert_eq!((chain.effective().version, chain.forked_version()), (1, Some(2)), "{order:?}");
        }
    }

    #[test]
    fn a_fork_proof_travels_and_needs_two_charters_that_count() {
        let (forum, rivals) = forked_forum();
        let proof = |a: &proto::SignedCharter, b: &proto::SignedCharter| proto::CharterFork {
            a: Some(a.clone()),
            b: Some(b.clone()),
        };
        let mut chain = forum.chain();
        chain.apply(rivals[0].clone()).unwrap();
        let told = chain.fork().unwrap().clone();
        let mut other = forum.chain();
        assert_eq!(other.forked(&told), Ok(Applied::Forked));
        assert_eq!(other.effective().version, 1);

        let unsigned = sign_by(&forum.draft(|c| c.version = 4), &[0]);
        let own = &forum.charters;
        for (what, fork) in [
            ("one charter twice", proof(&own[1], &own[1])),
            ("two versions", proof(&own[1], &own[2])),
            ("first charters", proof(&own[0], &own[0])),
            ("too few signatures", proof(&own[3], &unsigned)),
            ("one charter", proto::CharterFork { a: Some(own[1].clone()), b: None }),
            ("an unknown version before", proof(&forum.next(|c| c.version = 9), &forum.next(|c| c.version = 9))),
        ] {
            assert!(forum.chain().forked(&fork).is_err(), "{what}");
        }
    }

    #[test]
    fn a_fork_of_the_next_version_is_proven_to_a_node_that_holds_neither() {
        let forum = TestForum::of(&TWO);
        let [a, b] = ["a", "b"].map(|name| forum.next(|c| c.name = name.into()));
        let mut chain = forum.chain();
        assert_eq!(chain.forked(&proto::CharterFork { a: Some(a.clone()), b: Some(b) }), Ok(Applied::Forked));
        assert_eq!((chain.version(), chain.effective().version), (1, 1));
        assert!(chain.apply(a).is_err(), "neither of the two comes into force");
    }

    #[test]
    fn roles_are_named_in_the_order_of_their_bits() {
        assert_eq!(Roles::from_bits(127).names().len(), 7);
        assert_eq!(Roles::from_bits(FULL | AUDITOR).names(), ["FULL", "AUDITOR"]);
    }

    #[test]
    fn only_active_full_groups_are_counted() {
        let members = [("g1", FULL), ("g1", FULL), ("g2", FULL), ("g3", 2), ("g4", FULL)];
        let forum = TestForum::with(&members, |c| c.members[4].status = 2);
        assert_eq!(forum.charter().full_groups(), 2);
    }
}
