//! Drawing up charters: founding, admitting, signing; `governing` has the other changes. Pure but for what it is given; `charter` and `demo` use it.

pub(super) mod governing;
pub(super) mod peppers;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ed25519_dalek::{SigningKey, VerifyingKey};
use prost::Message as _;

use self::governing::LogEnd;
use super::failure::{Exit, Failure};
use crate::replica::charter::{
    Charter, CharterChain, HAVE_MAX, LOG_LIMIT_DEFAULT, Roles, charter_hash, charter_signature_holds, possession_holds,
    public_key, sign_charter,
};
use crate::replica::ids::{ForumId, KeyId, TimeMs, hex};
use crate::replica::{proto, taxonomy};
use crate::wire::files::{self, Applicant, Binding, CharterFile, JoinRequest, NAME_CHARS_MAX};

/// Founders of one forum: more do not come together to sign.
pub(super) const FOUNDERS_MAX: usize = 64;
/// How long a charter is valid: founders meet once a year at least.
pub(super) const CHARTER_LIFE_MS: u64 = 400 * TimeMs::DAY_MS;

const LOG_BYTES_MAX: u64 = 8 << 30;

/// The semantics level of a new forum: all that companies say to each other, and nothing about accounts, which founders
/// allow by a decision of their own. Every release that can join a new forum knows it.
pub(super) const LEVEL_FOUNDED: u32 = 2;

/// A founding draft: no members yet, and a nonce that their requests are bound to.
pub(super) fn found(
    name: &str,
    founders: &[VerifyingKey],
    threshold: u32,
    nonce: [u8; 32],
    now: TimeMs,
) -> Result<CharterFile, Failure> {
    let count = founders.len();
    let distinct: BTreeSet<_> = founders.iter().map(VerifyingKey::to_bytes).collect();
    if distinct.len() != count || count == 0 || count > FOUNDERS_MAX {
        let cause = format!(
            "--founder: got {count} keys, {} of them different, expected 1 to {FOUNDERS_MAX} different ones",
            distinct.len()
        );
        return Err(Failure::new(Exit::Usage, cause));
    }
    if threshold as usize <= count / 2 || threshold as usize > count {
        let cause = format!(
            "--threshold: got {threshold}, expected {} to {count}: more than half of {count} founders",
            count / 2 + 1
        );
        return Err(Failure::new(Exit::Usage, cause));
    }
    if name.trim().is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(Failure::new(
            Exit::Usage,
            format!("--name: got {name:?}, expected 1 to {NAME_CHARS_MAX} characters"),
        ));
    }
    let body = proto::Charter {
        version: 1,
        name: name.to_owned(),
        semantics: LEVEL_FOUNDED,
        founder_keys: founders.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect(),
        threshold,
        policy: Some(default_policy()),
        issued_ms: now.0,
        valid_until_ms: now.plus(CHARTER_LIFE_MS).0,
        nonce: Bytes::copy_from_slice(&nonce),
        taxonomy: taxonomy::EXAMPLE.to_owned(),
        ..Default::default()
    };
    Ok(CharterFile { proposed: unsigned(&body), before: Vec::new(), taxonomies: Vec::new() })
}

/// The numbers that a charter has unless its founders choose others (PROTOCOL C7, section 13).
fn default_policy() -> proto::Policy {
    proto::Policy {
        retract_min: 2,
        retract_permille: 500,
        contest_quorum: 2,
        allow_quorum: 1,
        quota_per_day: vec![100_000, 10_000, 5_000_000],
        account_ttl_max_ms: 180 * TimeMs::DAY_MS,
        stale_grace_ms: 30 * TimeMs::DAY_MS,
        auditors_attest: false,
        log_bytes_max: LOG_BYTES_MAX,
    }
}

/// The next version after `chain`, which is the same but for number, date and validity.
pub(super) fn next(chain: &CharterChain, now: TimeMs) -> Result<CharterFile, Failure> {
    if let Some(version) = chain.forked_version() {
        return Err(Failure::new(Exit::Refused, format!("the charter chain is forked at version {version}"))
            .fix("the founders meet: no charter can resolve this"));
    }
    let links = chain.from(1);
    let newest = links.last().map(|(signed, _)| signed.body.clone()).unwrap_or_default();
    let mut body =
        proto::Charter::decode(newest).map_err(|error| Failure::new(Exit::Verification, error.to_string()))?;
    body.version = chain.version() + 1;
    body.prev_hash = Bytes::copy_from_slice(&chain.head().0);
    body.forum_id = Bytes::copy_from_slice(&chain.forum().0);
    body.nonce = Bytes::new();
    body.issued_ms = now.0;
    body.valid_until_ms = now.plus(CHARTER_LIFE_MS).0;
    let before = links.iter().map(|(signed, _)| signed.clone()).collect();
    Ok(CharterFile { proposed: unsigned(&body), before, taxonomies: Vec::new() })
}

fn unsigned(body: &proto::Charter) -> proto::SignedCharter {
    proto::SignedCharter { body: body.encode_to_vec().into(), sigs: Vec::new() }
}

/// The charter's fields, whether or not it is complete.
pub(super) fn body(file: &CharterFile) -> Result<proto::Charter, Failure> {
    file.body().map_err(|error| Failure::new(Exit::BadInput, error.to_string()))
}

/// Puts a company into the charter, or its new pins and endpoints if it stands there. Signatures over the charter as
/// it was are dropped. Without `roles` a newcomer is SMALL.
pub(super) fn admit(
    file: &CharterFile,
    request: &JoinRequest,
    roles: Option<Roles>,
    now: TimeMs,
) -> Result<CharterFile, Failure> {
    admit_with(file, request, roles, now, None)
}

/// As [`admit`]; the request may carry another log root key than the charter has. `heads` tell where the member's logs
/// end: they were opened under the old key, and count up to there.
pub(super) fn admit_new_key(
    file: &CharterFile,
    request: &JoinRequest,
    roles: Option<Roles>,
    now: TimeMs,
    heads: &[LogEnd],
) -> Result<CharterFile, Failure> {
    admit_with(file, request, roles, now, Some(heads))
}

fn admit_with(
    file: &CharterFile,
    request: &JoinRequest,
    roles: Option<Roles>,
    now: TimeMs,
    new_key: Option<&[LogEnd]>,
) -> Result<CharterFile, Failure> {
    let mut charter = body(file)?;
    check_binding(file, &charter, request)?;
    let who = &request.applicant;
    let refuse = |cause: String| Err(Failure::new(Exit::Refused, cause));
    let root_key = Bytes::copy_from_slice(request.root_key.as_bytes());
    let known = charter.members.iter().position(|m| m.id[..] == who.member.0);
    if let Some(other) = charter.members.iter().find(|m| m.name == who.name && m.id[..] != who.member.0) {
        return refuse(format!("{} is a member already, under another id ({})", who.name, hex(&other.id)));
    }
    let before = known.map(|at| charter.members[at].clone());
    if before.as_ref().is_some_and(|m| m.status == governing::FORMER) {
        let failure = Failure::new(Exit::Refused, format!("{} has left the forum or was expelled", who.name));
        return Err(failure.fix(format!("staydown charter reinstate {:?}, into the same file first", who.name)));
    }
    check_root_key(who, before.as_ref(), &root_key, new_key.is_some())?;
    let roles = roles.map(Roles::bits).or(before.as_ref().map(|m| m.roles)).unwrap_or(Roles::SMALL.bits());
    let member = proto::Member {
        id: Bytes::copy_from_slice(&who.member.0),
        name: who.name.clone(),
        group: who.group.clone(),
        roles,
        status: before.as_ref().map_or(governing::ACTIVE, |m| m.status),
        log_limit: before.as_ref().map_or(LOG_LIMIT_DEFAULT, |m| m.log_limit),
        log_root_key: root_key.clone(),
        nodes: vec![proto::NodeEntry {
            tls_spki_sha256: who.pins.iter().map(|pin| Bytes::copy_from_slice(&pin.0)).collect(),
            endpoints: who.endpoints.clone(),
            ..Default::default()
        }],
        admitted_ms: before.as_ref().map_or(now.0, |m| m.admitted_ms),
        jurisdictions: who.jurisdictions.clone(),
        languages: who.languages.clone(),
        seal_key: match (&who.seal_key, &before) {
            (Some(key), _) => Bytes::copy_from_slice(key.as_bytes()),
            // A request of a release that had none takes nothing away.
            (None, Some(m)) => m.seal_key.clone(),
            (None, None) => Bytes::new(),
        },
        pop: before.filter(|m| m.log_root_key == root_key).map_or(request.pop.clone(), |m| m.pop),
    };
    match known {
        Some(at) => charter.members[at] = member,
        None => charter.members.push(member),
    }
    // Copies under another seal key open nowhere any more.
    let id = &who.member.0;
    let key_of = |c: &proto::Charter| c.members.iter().find(|m| m.id[..] == *id).map(|m| m.seal_key.clone());
    if key_of(&charter) != key_of(&body(file)?) {
        charter.peppers.retain(|copy| copy.member_id[..] != *id);
    }
    if let (Some(at), Some(heads)) = (known, new_key) {
        governing::cut_replaced(&mut charter, at, heads)?;
    }
    check_have_vector(&charter)?;
    let file = CharterFile { proposed: unsigned(&charter), ..file.clone() };
    Charter::decode(&file.proposed.body)?;
    Ok(file)
}

/// Another root key is accepted only where that is asked for, of the company that it is said to be of.
fn check_root_key(
    who: &Applicant,
    before: Option<&proto::Member>,
    root_key: &[u8],
    asked: bool,
) -> Result<(), Failure> {
    let refuse = |cause: String, fix: &str| Err(Failure::new(Exit::Refused, cause).fix(fix));
    let name = &who.name;
    match before {
        Some(m) if m.log_root_key[..] != *root_key => {
            if !asked {
                let cause = format!("{name} has another log root key in the charter");
                let fix =
                    "find out by telephone whether its key changed, then: staydown charter admit REQUEST --new-key";
                return refuse(cause, fix);
            }
            if m.name != *name {
                let cause = format!("the member is called {:?} in the charter and {name:?} in the request", m.name);
                return refuse(cause, "change the key under the old name first");
            }
            Ok(())
        }
        Some(_) if asked => {
            let cause = format!("--new-key: the log root key of {name} is the one that the charter has");
            refuse(cause, "leave --new-key out")
        }
        None if asked => refuse(format!("--new-key: {name} is no member yet"), "leave --new-key out"),
        _ => Ok(()),
    }
}

/// A request is good for the forum or draft that it was made for, and for no other.
fn check_binding(file: &CharterFile, charter: &proto::Charter, request: &JoinRequest) -> Result<(), Failure> {
    let who = &request.applicant;
    let first = file.before.first().map(|first| &first.body);
    let forum = first.map(|body| ForumId(charter_hash(body).0));
    let nonce = match first {
        Some(body) => proto::Charter::decode(body.clone()).map(|first| first.nonce).unwrap_or_default(),
        None => charter.nonce.clone(),
    };
    let fits = match who.binding {
        Binding::Forum(bound) => forum == Some(bound),
        Binding::Founding(bound) => bound[..] == nonce[..],
    };
    if fits && possession_holds(&request.root_key, who.member, &request.pop, &[who.binding.context()]) {
        return Ok(());
    }
    let got = match who.binding {
        Binding::Forum(bound) => format!("the request of {} is for forum {bound}", who.name),
        Binding::Founding(bound) => format!("the request of {} is for the founding draft {}", who.name, hex(&bound)),
    };
    let expected = match forum {
        Some(forum) => format!("this charter is of forum {forum}"),
        None => format!("this founding draft is {}", hex(&nonce)),
    };
    let fix = match forum {
        Some(forum) => format!("ask {} for a request made with staydown init --forum {forum}", who.name),
        None => format!("ask {} for a request made with staydown init --founding and this draft", who.name),
    };
    Err(Failure::new(Exit::Refused, "the join request is for another forum").culprit(got).culprit(expected).fix(fix))
}

/// Every node must be able to say in one message what it has of every log.
fn check_have_vector(charter: &proto::Charter) -> Result<(), Failure> {
    let logs: u64 = charter.members.iter().map(|member| u64::from(member.log_limit)).sum();
    if logs <= HAVE_MAX as u64 {
        return Ok(());
    }
    let cause = format!("the members could open {logs} logs together, at most {HAVE_MAX} are allowed");
    Err(Failure::new(Exit::Refused, cause).fix("lower the log limits of members that need fewer"))
}

/// Adds a founder's signature. A second one of the same founder changes nothing.
pub(super) fn sign(file: &CharterFile, key: &SigningKey) -> Result<CharterFile, Failure> {
    let standing = Standing::of(file)?;
    Charter::decode(&file.proposed.body).map_err(|error| match body(file) {
        Ok(charter) if charter.members.is_empty() => Failure::new(Exit::Refused, "the charter has no members yet")
            .fix("staydown charter admit REQUEST --into FILE"),
        _ => error.into(),
    })?;
    let id = KeyId::of(key.verifying_key().as_bytes());
    if !standing.founders.contains_key(&id) && !standing.founders_before.contains_key(&id) {
        let failure = Failure::new(Exit::Refused, format!("key {id} is no founder of this forum"));
        let founders: Vec<_> = standing.founders.keys().map(ToString::to_string).collect();
        return Err(failure.culprit(format!("founders are {}", founders.join(", "))));
    }
    let mut signed = file.clone();
    if !standing.signed.contains(&id) {
        signed.proposed.sigs.retain(|sig| sig.key_id[..] != id.0);
        signed.proposed.sigs.push(sign_charter(key, &file.proposed.body));
    }
    Ok(signed)
}

/// The chain with the proposed charter at its end, every signature checked.
pub(super) fn chain(file: &CharterFile) -> Result<CharterChain, Failure> {
    let all: Vec<_> = file.before.iter().chain([&file.proposed]).cloned().collect();
    let first = all.first().map(|first| first.body.clone()).unwrap_or_default();
    let missing = Standing::of(file)?.missing();
    if !missing.is_empty() {
        let failure =
            Failure { culprits: missing, ..Failure::new(Exit::Verification, "the charter does not count yet") };
        return Err(failure.fix("staydown charter sign FILE --key FOUNDER_KEY"));
    }
    Ok(files::verify(ForumId(charter_hash(&first).0), &all)?)
}

/// Who has signed, and who still has to.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) founders: BTreeMap<KeyId, VerifyingKey>,
    pub(super) threshold: usize,
    /// Of the version before; empty for a first charter.
    pub(super) founders_before: BTreeMap<KeyId, VerifyingKey>,
    pub(super) threshold_before: usize,
    /// Founders of either version whose signature holds.
    pub(super) signed: BTreeSet<KeyId>,
    /// The chain before; none for a first charter.
    pub(super) before: Option<CharterChain>,
}

impl Standing {
    pub(super) fn of(file: &CharterFile) -> Result<Self, Failure> {
        let charter = body(file)?;
        let founders = keys(&charter.founder_keys)?;
        let before = match file.before.first() {
            Some(first) => Some(files::verify(ForumId(charter_hash(&first.body).0), &file.before)?),
            None if charter.version == 1 => None,
            None => return Err(Failure::new(Exit::BadInput, "the versions before are missing from the charter file")),
        };
        if let Some(chain) = &before {
            follows(&charter, chain)?;
        }
        let (founders_before, threshold_before) = match &before {
            Some(chain) => (chain.effective().founders.clone(), chain.effective().threshold),
            None => (BTreeMap::new(), 0),
        };
        let signed = file.proposed.sigs.iter().filter_map(|sig| {
            let id = KeyId::from_slice(&sig.key_id)?;
            let key = founders.get(&id).or_else(|| founders_before.get(&id))?;
            charter_signature_holds(key, &file.proposed.body, sig).then_some(id)
        });
        let signed = signed.collect();
        let threshold = charter.threshold as usize;
        Ok(Self { signed, founders, threshold, founders_before, threshold_before, before })
    }

    /// What is still needed, in words; nothing when the charter counts.
    pub(super) fn missing(&self) -> Vec<String> {
        let lacks = |founders: &BTreeMap<KeyId, VerifyingKey>, threshold: usize, of: &str| {
            let got = founders.keys().filter(|id| self.signed.contains(*id)).count();
            (got < threshold).then(|| {
                let open: Vec<_> =
                    founders.keys().filter(|id| !self.signed.contains(*id)).map(|id| hex(&id.0[..4])).collect();
                format!("{got} of {threshold} signatures of {of}; not signed by {}", open.join(", "))
            })
        };
        let mut missing: Vec<_> = lacks(&self.founders, self.threshold, "the founders").into_iter().collect();
        // The same people, usually; then it is said once.
        if self.before.is_some() && self.founders_before.keys().ne(self.founders.keys()) {
            missing.extend(lacks(&self.founders_before, self.threshold_before, "the founders of the version before"));
        }
        missing
    }
}

fn follows(charter: &proto::Charter, before: &CharterChain) -> Result<(), Failure> {
    let sound = charter.version == before.version() + 1
        && charter.prev_hash[..] == before.head().0
        && charter.forum_id[..] == before.forum().0;
    if sound {
        return Ok(());
    }
    let cause =
        format!("charter {} does not follow version {} of forum {}", charter.version, before.version(), before.forum());
    Err(Failure::new(Exit::Verification, cause))
}

fn keys(founders: &[Bytes]) -> Result<BTreeMap<KeyId, VerifyingKey>, Failure> {
    let key = |bytes: &Bytes| {
        let unsound = || Failure::new(Exit::Verification, "the charter has a founder key that is not sound");
        Ok((KeyId::of(bytes), public_key(bytes).ok_or_else(unsound)?))
    };
    founders.iter().map(key).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::accounts::SealSecret;
    use crate::replica::ids::{MemberId, Pin};

    pub(in crate::cli) const NOW: TimeMs = TimeMs(1_795_000_000_000);
    const NONCE: [u8; 32] = [9; 32];

    pub(in crate::cli) fn founder(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    pub(in crate::cli) fn draft() -> CharterFile {
        let founders = [1, 2, 3].map(|seed| founder(seed).verifying_key());
        found("Example Forum", &founders, 2, NONCE, NOW).unwrap()
    }

    /// The seal key of the company of this seed.
    pub(in crate::cli) fn secret(seed: u8) -> SealSecret {
        SealSecret::from_bytes([seed; 32])
    }

    pub(in crate::cli) fn request(name: &str, seed: u8, binding: Binding) -> JoinRequest {
        let applicant = Applicant {
            binding,
            member: MemberId([seed; 16]),
            name: name.to_owned(),
            group: name.to_uppercase(),
            jurisdictions: vec!["FR".to_owned()],
            languages: Vec::new(),
            pins: vec![Pin([seed; 32])],
            endpoints: vec![format!("{name}.example.org:7700")],
            seal_key: secret(seed).public(),
        };
        JoinRequest::make(&applicant, &SigningKey::from_bytes(&[seed; 32]), NOW).unwrap()
    }

    pub(in crate::cli) fn founded() -> CharterFile {
        let mut file = draft();
        for (name, seed) in [("acme", 11), ("bolt", 12), ("cyan", 13)] {
            file = admit(&file, &request(name, seed, Binding::Founding(NONCE)), Some(Roles::FULL), NOW).unwrap();
        }
        sign(&sign(&file, &founder(1)).unwrap(), &founder(3)).unwrap()
    }

    #[test]
    fn a_forum_is_founded_admits_a_fourth_and_signs_twice() {
        let first = chain(&founded()).unwrap();
        assert_eq!((first.version(), first.effective().members.len()), (1, 3));
        assert_eq!(first.effective().policy.quota_per_day, [100_000, 10_000, 5_000_000]);

        let file = next(&first, NOW.plus(5)).unwrap();
        let file = admit(&file, &request("delta", 14, Binding::Forum(first.forum())), None, NOW.plus(5)).unwrap();
        assert_eq!(Standing::of(&file).unwrap().missing().len(), 1);
        let file = sign(&file, &founder(2)).unwrap();
        let told = chain(&file).unwrap_err();
        assert_eq!(told.exit, Exit::Verification);
        assert!(
            told.culprits[0].starts_with("1 of 2 signatures of the founders; not signed by "),
            "{:?}",
            told.culprits
        );
        let file = sign(&sign(&file, &founder(2)).unwrap(), &founder(1)).unwrap();
        assert_eq!(file.proposed.sigs.len(), 2, "the same founder signs once");
        let second = chain(&file).unwrap();
        assert_eq!(second.effective().member_named("delta").unwrap().roles, Roles::SMALL);
        assert_eq!(second.forum(), first.forum());
    }

    #[test]
    fn admitting_drops_signatures_that_were_made_for_another_text() {
        let file = founded();
        assert_eq!(file.proposed.sigs.len(), 2);
        let again = admit(&file, &request("delta", 14, Binding::Founding(NONCE)), None, NOW).unwrap();
        assert!(again.proposed.sigs.is_empty());
    }

    #[test]
    fn a_request_for_another_forum_is_refused_with_both_names() {
        let first = chain(&founded()).unwrap();
        let file = next(&first, NOW).unwrap();
        for binding in [Binding::Forum(ForumId([5; 32])), Binding::Founding([5; 32])] {
            let told = admit(&file, &request("delta", 14, binding), None, NOW).unwrap_err();
            assert_eq!((told.exit, told.culprits.len()), (Exit::Refused, 2));
            assert!(
                told.culprits[0].contains(&"05".repeat(32)) && told.culprits[1].contains(&first.forum().to_string())
            );
        }
        let told = admit(&draft(), &request("delta", 14, Binding::Forum(first.forum())), None, NOW).unwrap_err();
        assert_eq!(told.exit, Exit::Refused);
    }

    #[test]
    fn a_member_is_admitted_again_with_new_endpoints_but_not_under_another_key_or_id() {
        let first = chain(&founded()).unwrap();
        let file = next(&first, NOW.plus(9)).unwrap();
        let again = admit(&file, &request("acme", 11, Binding::Forum(first.forum())), None, NOW.plus(9)).unwrap();
        let charter = body(&again).unwrap();
        assert_eq!((charter.members.len(), charter.members[0].roles, charter.members[0].admitted_ms), (3, 1, NOW.0));
        let told = admit(&file, &request("acme", 15, Binding::Forum(first.forum())), None, NOW).unwrap_err();
        assert!(told.cause.contains("under another id"), "{}", told.cause);
    }

    #[test]
    fn strangers_cannot_sign_and_an_empty_draft_is_not_signed() {
        let told = sign(&founded(), &founder(9)).unwrap_err();
        assert!(told.cause.ends_with("is no founder of this forum"), "{}", told.cause);
        assert_eq!(sign(&draft(), &founder(1)).unwrap_err().cause, "the charter has no members yet");
    }

    #[test]
    fn more_logs_than_a_have_vector_holds_are_refused() {
        let mut file = draft();
        let mut charter = body(&file).unwrap();
        let many = HAVE_MAX / LOG_LIMIT_DEFAULT as usize;
        let template = body(&founded()).unwrap().members[0].clone();
        charter.members = vec![template; many];
        file.proposed = unsigned(&charter);
        let told = admit(&file, &request("delta", 14, Binding::Founding(NONCE)), None, NOW).unwrap_err();
        assert!(told.cause.starts_with("the members could open 8208 logs together"), "{}", told.cause);
    }

    #[test]
    fn founders_and_threshold_must_make_sense() {
        let keys = [1, 2, 3].map(|seed| founder(seed).verifying_key());
        for (founders, threshold) in [(&keys[..], 1), (&keys[..], 4), (&keys[..], 0), (&keys[..0], 0)] {
            assert_eq!(found("x", founders, threshold, NONCE, NOW).unwrap_err().exit, Exit::Usage);
        }
        assert!(found("x", &[keys[0], keys[0]], 2, NONCE, NOW).is_err());
        assert!(found("\u{7}", &keys, 2, NONCE, NOW).is_err());
    }

    #[test]
    fn a_changed_charter_file_does_not_count() {
        let mut file = next(&chain(&founded()).unwrap(), NOW).unwrap();
        file.before[0].sigs.clear();
        assert_eq!(Standing::of(&file).unwrap_err().exit, Exit::Verification);
        let mut file = next(&chain(&founded()).unwrap(), NOW).unwrap();
        let mut charter = body(&file).unwrap();
        charter.version = 3;
        file.proposed = unsigned(&charter);
        assert!(Standing::of(&file).unwrap_err().cause.contains("does not follow"));
        file.before.clear();
        assert_eq!(Standing::of(&file).unwrap_err().exit, Exit::BadInput);
    }
}
