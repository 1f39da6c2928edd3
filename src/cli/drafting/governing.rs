//! What founders change in a charter: each change makes the next proposal out of one. Pure: the heads of the logs, and
//! the time, are given.

use bytes::Bytes;
use ed25519_dalek::VerifyingKey;
use prost::Message as _;

use super::{FOUNDERS_MAX, body, check_have_vector, unsigned};
use crate::cli::failure::{Exit, Failure};
use crate::cli::taxonomy::among;
use crate::replica::block::RECORDS_PER_BLOCK_MAX;
use crate::replica::charter::{ACCOUNT_TTL_DAYS_MAX, ACCOUNTS_LEVEL, Charter, Roles, SEMANTICS_MAX};
use crate::replica::heads::origin_to_proto;
use crate::replica::ids::{Head, HeaderHash, KeyId, LogNo, MemberId, Origin, Seq, TimeMs, hex, sha256};
use crate::replica::taxonomy::Named;
use crate::replica::{proto, record};
use crate::taxonomy::{TaxonomyFile, compare};
use crate::wire::endpoint::check_endpoint;
use crate::wire::files::{self, CharterFile};

/// Longest validity that one charter may have: founders who have not met for ten years are no founders any more.
pub(in crate::cli) const VALID_DAYS_MAX: u64 = 3_660;
/// Digits of a pin or key id that tell it apart from others: 32 bits, among some dozens.
const PREFIX_DIGITS_MIN: usize = 8;

pub(in crate::cli) const ACTIVE: u32 = 1;
pub(in crate::cli) const SUSPENDED: u32 = 2;
pub(in crate::cli) const FORMER: u32 = 3;

/// How far a log reaches on some node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct LogEnd {
    pub(in crate::cli) origin: Origin,
    pub(in crate::cli) head: Head,
    /// 0: nobody has proven that it forks.
    pub(in crate::cli) forked_at: u64,
}

/// What is kept of a member that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Kept {
    /// What it said until now.
    Word = 1,
    /// Nothing.
    Nothing = 2,
}

/// New numbers of the policy; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct PolicyChange {
    pub(in crate::cli) retract_min: Option<u32>,
    pub(in crate::cli) retract_permille: Option<u32>,
    pub(in crate::cli) contest_quorum: Option<u32>,
    pub(in crate::cli) allow_quorum: Option<u32>,
    /// Normal, urgent, bulk.
    pub(in crate::cli) quotas: [Option<u32>; 3],
    pub(in crate::cli) log_bytes_max: Option<u64>,
    pub(in crate::cli) stale_grace_days: Option<u64>,
    pub(in crate::cli) account_days: Option<u64>,
    pub(in crate::cli) auditors_attest: Option<bool>,
}

/// New facts about a member; what is `None` or empty stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct MemberChange {
    pub(in crate::cli) group: Option<String>,
    pub(in crate::cli) jurisdictions: Vec<String>,
    pub(in crate::cli) languages: Vec<String>,
    pub(in crate::cli) log_limit: Option<u32>,
    pub(in crate::cli) endpoints: Vec<String>,
    pub(in crate::cli) drop_pins: Vec<String>,
}

/// A record that disappears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Erased {
    pub(in crate::cli) origin: Origin,
    pub(in crate::cli) seq: Seq,
    pub(in crate::cli) index: u32,
    pub(in crate::cli) leaf: [u8; 32],
}

pub(super) fn refused(cause: impl Into<String>) -> Failure {
    Failure::new(Exit::Refused, cause)
}

fn usage(cause: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, cause)
}

/// The file with `change` made to its charter, without the signatures that were made for the charter as it was.
pub(super) fn edit(
    file: &CharterFile,
    change: impl FnOnce(&mut proto::Charter) -> Result<(), Failure>,
) -> Result<CharterFile, Failure> {
    let mut new = body(file)?;
    change(&mut new)?;
    if new == body(file)? {
        return Err(refused("the charter says so already: nothing would change").fix("staydown charter show"));
    }
    unsigned_again(file, &new)
}

fn unsigned_again(file: &CharterFile, new: &proto::Charter) -> Result<CharterFile, Failure> {
    check_have_vector(new)?;
    let file = CharterFile { proposed: unsigned(new), ..file.clone() };
    // A founding draft is no charter before it has members.
    if !new.members.is_empty() {
        Charter::decode(&file.proposed.body)?;
    }
    Ok(file)
}

/// Where the member stands that is called `who`, or has this id.
pub(in crate::cli) fn position(charter: &proto::Charter, who: &str) -> Result<usize, Failure> {
    let called = |m: &proto::Member| m.name == who || hex(&m.id) == who.to_ascii_lowercase();
    charter.members.iter().position(called).ok_or_else(|| {
        let names: Vec<_> = charter.members.iter().map(|m| m.name.as_str()).collect();
        let failure = Failure::new(Exit::NotFound, format!("the charter has no member {who:?}"));
        failure.culprit(format!("its members are {}", names.join(", "))).fix("staydown member list")
    })
}

fn past_founding(file: &CharterFile, what: &str) -> Result<(), Failure> {
    if file.before.is_empty() {
        return Err(refused(format!("a founding draft has nobody to {what}: no node has written anything yet"))
            .fix("make the draft again without that company: staydown charter found"));
    }
    Ok(())
}

fn id_of(member: &proto::Member) -> Result<MemberId, Failure> {
    MemberId::from_slice(&member.id).ok_or_else(|| {
        Failure::new(Exit::BadInput, format!("member {:?} has an id that has not 16 bytes", member.name))
    })
}

pub(in crate::cli) fn is_of(cutoff: &proto::Cutoff, member: &[u8]) -> bool {
    cutoff.origin.as_ref().is_some_and(|origin| origin.member_id == member)
}

pub(in crate::cli) fn log_no(cutoff: &proto::Cutoff) -> u32 {
    cutoff.origin.as_ref().map_or(0, |origin| origin.log_no)
}

fn cutoff(origin: Origin, head: Head) -> proto::Cutoff {
    let last_hash = Bytes::copy_from_slice(&head.hash.0);
    proto::Cutoff { origin: Some(origin_to_proto(origin)), last_seq: head.seq.0, last_hash }
}

/// Cutoffs at the heads of all logs of `member` that have none in `cutoffs`.
fn at_heads(cutoffs: &[proto::Cutoff], member: MemberId, heads: &[LogEnd]) -> Vec<proto::Cutoff> {
    let has = |no: LogNo| cutoffs.iter().any(|c| is_of(c, &member.0) && log_no(c) == no.0);
    let open = heads.iter().filter(|end| end.origin.member == member && !has(end.origin.log_no));
    open.map(|end| cutoff(end.origin, end.head)).collect()
}

fn sort(cutoffs: &mut [proto::Cutoff]) {
    cutoffs.sort_by_key(|c| (c.origin.as_ref().map(|o| o.member_id.clone()), log_no(c)));
}

/// Cuts a member off: it connects no more, and what it signs from now on does not count. The logs that it could still
/// open are cut before their first block, or it would go on in the next one.
pub(in crate::cli) fn suspend(file: &CharterFile, who: &str, heads: &[LogEnd]) -> Result<CharterFile, Failure> {
    past_founding(file, "suspend")?;
    edit(file, |charter| {
        let at = position(charter, who)?;
        let member = &mut charter.members[at];
        match member.status {
            ACTIVE => member.status = SUSPENDED,
            SUSPENDED => return Err(refused(format!("{} is suspended already", member.name))),
            _ => return Err(refused(format!("{} is no member any more", member.name))),
        }
        let (id, limit) = (id_of(member)?, member.log_limit);
        charter.cutoffs.extend(at_heads(&charter.cutoffs, id, heads));
        let unopened = (0..limit).map(|no| LogEnd {
            origin: Origin { member: id, log_no: LogNo(no) },
            head: Head { seq: Seq(0), hash: HeaderHash::ZERO },
            forked_at: 0,
        });
        let unopened: Vec<_> = unopened.collect();
        charter.cutoffs.extend(at_heads(&charter.cutoffs, id, &unopened));
        sort(&mut charter.cutoffs);
        Ok(())
    })
}

/// Takes a suspension back, with the cutoffs that came with it; or an expulsion. With `keep_cutoffs` the logs that were
/// written stay cut: for a member whose key was stolen.
pub(in crate::cli) fn reinstate(file: &CharterFile, who: &str, keep_cutoffs: bool) -> Result<CharterFile, Failure> {
    past_founding(file, "reinstate")?;
    edit(file, |charter| {
        let at = position(charter, who)?;
        let id = charter.members[at].id.clone();
        match charter.members[at].status {
            SUSPENDED => lift_suspension(file, charter, &id, keep_cutoffs)?,
            FORMER => lift_expulsion(charter, &id, keep_cutoffs),
            _ => return Err(refused(format!("{} is neither suspended nor gone", charter.members[at].name))),
        }
        charter.members[at].status = ACTIVE;
        Ok(())
    })
}

fn lift_suspension(file: &CharterFile, charter: &mut proto::Charter, id: &[u8], keep: bool) -> Result<(), Failure> {
    let mut versions = Vec::new();
    for signed in &file.before {
        let version = proto::Charter::decode(signed.body.clone());
        versions.push(version.map_err(|error| Failure::new(Exit::BadInput, error.to_string()))?);
    }
    versions.push(charter.clone());
    let member = |c: &proto::Charter| c.members.iter().find(|m| m.id == id).cloned();
    let begun = versions.iter().rposition(|c| member(c).is_none_or(|m| m.status != SUSPENDED));
    let Some(begun) = begun else { return Ok(()) };
    let (before, suspending) = (&versions[begun], &versions[(begun + 1).min(versions.len() - 1)]);
    let key = |c: &proto::Charter| member(c).map(|m| m.log_root_key);
    // Logs of a replaced key count up to a cutoff or not at all: the suspension's cutoffs are theirs from now on.
    let keep = keep || key(before) != key(charter);
    let came = |c: &proto::Cutoff| suspending.cutoffs.contains(c) && !before.cutoffs.contains(c);
    charter.cutoffs.retain(|c| !is_of(c, id) || !came(c) || keep && c.last_seq > 0);
    Ok(())
}

fn lift_expulsion(charter: &mut proto::Charter, id: &[u8], keep: bool) {
    for expulsion in charter.expulsions.extract_if(.., |e| e.member_id == id).filter(|_| keep) {
        charter.cutoffs.extend(expulsion.cutoffs);
    }
    sort(&mut charter.cutoffs);
}

/// Ends a membership, by expulsion or on the member's own wish. Where the logs of a suspended member end was said when
/// it was suspended; of others they end at `heads`.
pub(in crate::cli) fn expel(
    file: &CharterFile,
    who: &str,
    kept: Kept,
    reason: u32,
    heads: &[LogEnd],
) -> Result<CharterFile, Failure> {
    past_founding(file, "expel")?;
    edit(file, |charter| {
        let at = position(charter, who)?;
        let member = &mut charter.members[at];
        let (id, status) = (id_of(member)?, member.status);
        member.status = FORMER;
        let old: Vec<_> = charter.expulsions.extract_if(.., |e| e.member_id[..] == id.0).collect();
        let mut cutoffs: Vec<_> = charter.cutoffs.extract_if(.., |c| is_of(c, &id.0)).collect();
        let was_void = old.iter().any(|e| e.policy == Kept::Nothing as u32);
        cutoffs.extend(old.into_iter().flat_map(|e| e.cutoffs));
        if status == ACTIVE || was_void {
            cutoffs.extend(at_heads(&cutoffs, id, heads));
        }
        // What an expelled member has not listed does not count anyway.
        cutoffs.retain(|c| c.last_seq > 0 && kept == Kept::Word);
        sort(&mut cutoffs);
        let member_id = Bytes::copy_from_slice(&id.0);
        charter.expulsions.push(proto::Expulsion { member_id, policy: kept as u32, cutoffs, reason });
        Ok(())
    })
}

/// Whether `expel` needs to know where the member's logs end.
pub(in crate::cli) fn needs_heads(file: &CharterFile, who: &str) -> Result<bool, Failure> {
    let charter = body(file)?;
    let member = &charter.members[position(&charter, who)?];
    let void = |e: &proto::Expulsion| e.member_id == member.id && e.policy == Kept::Nothing as u32;
    Ok(member.status == ACTIVE || charter.expulsions.iter().any(void))
}

/// Lists the heads of the logs of a member whose root key changes, unless its suspension has listed them.
pub(super) fn cut_replaced(charter: &mut proto::Charter, at: usize, heads: &[LogEnd]) -> Result<(), Failure> {
    let id = id_of(&charter.members[at])?;
    if charter.members[at].status == ACTIVE {
        charter.cutoffs.extend(at_heads(&charter.cutoffs, id, heads));
        sort(&mut charter.cutoffs);
    }
    Ok(())
}

/// Gives a member other roles.
pub(in crate::cli) fn set_role(file: &CharterFile, who: &str, roles: Roles) -> Result<CharterFile, Failure> {
    if roles.has(Roles::REFERRAL) && roles.bits() & !(Roles::REFERRAL.bits() | Roles::AUDITOR.bits()) != 0 {
        let got = roles.names().join(", ");
        let cause = format!("--role: got {got}; REFERRAL goes together with AUDITOR only");
        return Err(usage(cause).culprit("an authority that refers content is never support for it"));
    }
    edit(file, |charter| {
        let at = position(charter, who)?;
        charter.members[at].roles = roles.bits();
        Ok(())
    })
}

/// Sets numbers of the forum's policy.
pub(in crate::cli) fn set_policy(file: &CharterFile, change: &PolicyChange) -> Result<CharterFile, Failure> {
    if *change == PolicyChange::default() {
        return Err(usage("no number is given").fix("staydown charter set-policy --help"));
    }
    let at_least_one = [
        ("--retract-min", change.retract_min),
        ("--retract-permille", change.retract_permille),
        ("--contest-quorum", change.contest_quorum),
        ("--allow-quorum", change.allow_quorum),
        ("--quota-normal", change.quotas[0]),
        ("--quota-urgent", change.quotas[1]),
        ("--quota-bulk", change.quotas[2]),
    ];
    if let Some((flag, _)) = at_least_one.iter().find(|(_, number)| *number == Some(0)) {
        return Err(usage(format!("{flag}: got 0, expected at least 1: nothing is switched off by a zero")));
    }
    if let Some(got) = change.retract_permille.filter(|permille| *permille > 1_000) {
        return Err(usage(format!("--retract-permille: got {got}, expected 1 to 1000")));
    }
    if change.log_bytes_max == Some(0) {
        return Err(usage("--log-bytes-max: got 0, expected at least one byte"));
    }
    let grace = match change.stale_grace_days {
        Some(days) if days > VALID_DAYS_MAX => {
            return Err(usage(format!("--stale-grace: got {days} days, expected at most {VALID_DAYS_MAX}")));
        }
        days => days.map(|days| days * TimeMs::DAY_MS),
    };
    if let Some(got) = change.account_days.filter(|days| !(1..=ACCOUNT_TTL_DAYS_MAX).contains(days)) {
        return Err(usage(format!("--account-days: got {got}, expected 1 to {ACCOUNT_TTL_DAYS_MAX}")));
    }
    edit(file, |charter| {
        let policy = charter.policy.get_or_insert_default();
        policy.retract_min = change.retract_min.unwrap_or(policy.retract_min);
        policy.retract_permille = change.retract_permille.unwrap_or(policy.retract_permille);
        policy.contest_quorum = change.contest_quorum.unwrap_or(policy.contest_quorum);
        policy.allow_quorum = change.allow_quorum.unwrap_or(policy.allow_quorum);
        for (quota, number) in policy.quota_per_day.iter_mut().zip(change.quotas) {
            *quota = number.unwrap_or(*quota);
        }
        policy.log_bytes_max = change.log_bytes_max.unwrap_or(policy.log_bytes_max);
        policy.stale_grace_ms = grace.unwrap_or(policy.stale_grace_ms);
        policy.account_ttl_max_ms = change.account_days.map_or(policy.account_ttl_max_ms, |d| d * TimeMs::DAY_MS);
        policy.auditors_attest = change.auditors_attest.unwrap_or(policy.auditors_attest);
        Ok(())
    })
}

/// Switches a level of meaning on, or off again while nothing needs it.
pub(in crate::cli) fn set_semantics(file: &CharterFile, level: u32) -> Result<CharterFile, Failure> {
    if level == 0 || level > SEMANTICS_MAX {
        let cause = format!("LEVEL: got {level}, this release understands 1 to {SEMANTICS_MAX}");
        return Err(usage(cause).fix("use a release that knows the level; every member needs one first"));
    }
    let charter = body(file)?;
    if level < 2 && !charter.erasures.is_empty() {
        let cause = format!("level {level} knows no erasure orders, and the charter has {}", charter.erasures.len());
        return Err(refused(cause).culprit("what was erased stays erased"));
    }
    if level < ACCOUNTS_LEVEL && !charter.peppers.is_empty() {
        let cause = format!("level {level} knows no accounts, and the charter has peppers");
        return Err(refused(cause).fix("staydown charter set-accounts off, into the same file first"));
    }
    edit(file, |charter| {
        charter.semantics = level;
        Ok(())
    })
}

/// Puts another taxonomy in force. Once members have signed, a number keeps its meaning: the version before must be at
/// hand, or nobody could tell.
pub(in crate::cli) fn set_taxonomy(file: &CharterFile, taxonomy: &TaxonomyFile) -> Result<CharterFile, Failure> {
    let named = taxonomy.named.to_string();
    // What is in force, not what another proposal in this file says.
    let old = file.before.last().map(|signed| proto::Charter::decode(signed.body.clone())).transpose();
    let old = old.map_err(|error| Failure::new(Exit::BadInput, error.to_string()))?.map(|old| old.taxonomy);
    if let Some(old) = &old {
        let Some(before) = among(old, &file.taxonomies) else {
            let cause = format!("the file of {old}, which is in force, is not at hand: nobody can tell what changes");
            return Err(refused(cause).fix(
                "draw the charter up at a running node, or with --after a charter file or invitation that has it",
            ));
        };
        let changes = compare(&before, &taxonomy.taxonomy);
        if !changes.refused.is_empty() {
            let failure = refused("the taxonomy would give old words another meaning");
            return Err(changes.refused.into_iter().fold(failure, Failure::culprit));
        }
    }
    let mut new = edit(file, |charter| {
        charter.taxonomy.clone_from(&named);
        Ok(())
    })?;
    new.taxonomies.retain(|text| {
        let digest = Some(sha256(&[text]));
        digest != taxonomy.named.sha256 && old.as_deref().and_then(Named::parse).is_some_and(|old| old.sha256 == digest)
    });
    new.taxonomies.push(Bytes::copy_from_slice(taxonomy.text.as_bytes()));
    Ok(new)
}

/// Changes what the charter says of a company, but for its keys.
pub(in crate::cli) fn set_member(file: &CharterFile, who: &str, change: &MemberChange) -> Result<CharterFile, Failure> {
    if *change == MemberChange::default() {
        return Err(usage("nothing to change is given").fix("staydown charter set-member --help"));
    }
    check_member_change(change)?;
    edit(file, |charter| {
        let at = position(charter, who)?;
        let member = &mut charter.members[at];
        if let Some(limit) = change.log_limit {
            if member.status == SUSPENDED && limit > member.log_limit {
                let cause = format!("{} is suspended: it could go on in a log above the old limit", member.name);
                return Err(refused(cause).fix(format!("staydown charter reinstate {who:?} first")));
            }
            member.log_limit = limit;
        }
        if let Some(group) = &change.group {
            member.group.clone_from(group);
        }
        if !change.jurisdictions.is_empty() {
            member.jurisdictions.clone_from(&change.jurisdictions);
        }
        if !change.languages.is_empty() {
            member.languages.clone_from(&change.languages);
        }
        if !change.endpoints.is_empty() {
            set_endpoints(member, &change.endpoints)?;
        }
        change.drop_pins.iter().try_for_each(|pin| drop_pin(member, pin))
    })
}

fn check_member_change(change: &MemberChange) -> Result<(), Failure> {
    let wrong = |flag: &str, got: &str, expected: &str| Err(usage(format!("{flag}: got {got:?}, expected {expected}")));
    if let Some(group) = change.group.as_deref().filter(|group| !files::is_name(group)) {
        return wrong("--group", group, files::NAME_RULE);
    }
    if let Some(code) = change.jurisdictions.iter().find(|code| !files::is_jurisdiction(code)) {
        return wrong("--jurisdiction", code, "an ISO 3166 code such as FR or US-CA");
    }
    if let Some(tag) = change.languages.iter().find(|tag| !files::is_language(tag)) {
        return wrong("--language", tag, "a BCP 47 tag such as en or pt-BR");
    }
    for endpoint in &change.endpoints {
        check_endpoint(endpoint).or_else(|expected| wrong("--endpoint", endpoint, expected))?;
    }
    for (flag, got, max) in [
        ("--endpoint", change.endpoints.len(), files::ENDPOINTS_MAX),
        ("--jurisdiction", change.jurisdictions.len(), files::JURISDICTIONS_MAX),
        ("--language", change.languages.len(), files::LANGUAGES_MAX),
    ] {
        if got > max {
            return Err(usage(format!("{flag}: got {got}, expected at most {max}")));
        }
    }
    if change.log_limit == Some(0) {
        return Err(usage("--log-limit: got 0, expected at least 1: a member without a log can say nothing"));
    }
    Ok(())
}

fn set_endpoints(member: &mut proto::Member, endpoints: &[String]) -> Result<(), Failure> {
    match &mut member.nodes[..] {
        [node] => node.endpoints = endpoints.to_vec(),
        nodes => {
            let cause = format!("{} has {} nodes in the charter, expected 1", member.name, nodes.len());
            return Err(refused(cause).fix("staydown charter admit its new join request"));
        }
    }
    Ok(())
}

fn drop_pin(member: &mut proto::Member, pin: &str) -> Result<(), Failure> {
    let all: Vec<_> = member.nodes.iter().flat_map(|node| &node.tls_spki_sha256).map(|pin| hex(pin)).collect();
    let found = one_of("--drop-pin", pin, &all, &format!("the pins of {} are {}", member.name, all.join(", ")))?;
    for node in &mut member.nodes {
        if node.tls_spki_sha256.len() == 1 && hex(&node.tls_spki_sha256[0]) == found {
            let cause = format!("{found} is the last pin of a node of {}: it could not connect any more", member.name);
            let fix = format!("admit its new key first, or: staydown charter suspend {:?}", member.name);
            return Err(refused(cause).fix(fix));
        }
        node.tls_spki_sha256.retain(|pin| hex(pin) != found);
    }
    Ok(())
}

/// The one of `all` that begins with the digits `prefix`.
fn one_of(flag: &str, prefix: &str, all: &[String], known: &str) -> Result<String, Failure> {
    let digits = prefix.to_ascii_lowercase();
    let hexadecimal = digits.bytes().all(|b| b.is_ascii_hexdigit());
    let found: Vec<_> = all.iter().filter(|value| value.starts_with(&digits)).collect();
    match &found[..] {
        [one] if hexadecimal && digits.len() >= PREFIX_DIGITS_MIN => Ok((*one).clone()),
        _ => {
            let cause = format!(
                "{flag}: got {prefix:?}, expected the first {PREFIX_DIGITS_MIN} or more hexadecimal digits of exactly one"
            );
            Err(Failure::new(Exit::NotFound, cause).culprit(known.to_owned()))
        }
    }
}

/// Makes the charter valid for so many days from `now`.
pub(in crate::cli) fn renew(file: &CharterFile, days: u64, now: TimeMs) -> Result<CharterFile, Failure> {
    if !(1..=VALID_DAYS_MAX).contains(&days) {
        return Err(usage(format!("--days: got {days}, expected 1 to {VALID_DAYS_MAX}")));
    }
    let mut charter = body(file)?;
    charter.issued_ms = now.0;
    charter.valid_until_ms = now.plus(days * TimeMs::DAY_MS).0;
    // The next version is a renewal by itself, so that nothing may be left to change here.
    unsigned_again(file, &charter)
}

/// Lets a log count up to a block and no further.
pub(in crate::cli) fn cut_off(file: &CharterFile, who: &str, no: LogNo, head: Head) -> Result<CharterFile, Failure> {
    past_founding(file, "cut off")?;
    edit(file, |charter| {
        let at = position(charter, who)?;
        let member = &charter.members[at];
        if no.0 >= member.log_limit {
            let cause = format!("LOG: got {}, the logs of {} are below {}", no.0, member.name, member.log_limit);
            return Err(usage(cause).fix("staydown log heads"));
        }
        let id = id_of(member)?;
        let expulsion = charter.expulsions.iter_mut().find(|e| e.member_id[..] == id.0);
        let cutoffs = match expulsion {
            Some(e) if e.policy == Kept::Nothing as u32 => {
                return Err(refused(format!("{} was expelled and nothing of it counts", member.name)));
            }
            Some(expulsion) => &mut expulsion.cutoffs,
            None => &mut charter.cutoffs,
        };
        cutoffs.retain(|c| !(is_of(c, &id.0) && log_no(c) == no.0));
        cutoffs.push(cutoff(Origin { member: id, log_no: no }, head));
        sort(cutoffs);
        Ok(())
    })
}

/// Orders that a record's bytes disappear everywhere.
pub(in crate::cli) fn erase(file: &CharterFile, erased: &Erased, reason: u32) -> Result<CharterFile, Failure> {
    past_founding(file, "erase")?;
    check_erasable(file, erased.seq, erased.index)?;
    edit(file, |charter| {
        let same = |e: &&proto::Erasure| {
            e.origin.as_ref() == Some(&origin_to_proto(erased.origin))
                && (e.seq, e.index) == (erased.seq.0, erased.index)
        };
        if charter.erasures.iter().any(|e| same(&e)) {
            return Err(refused("the charter orders that already"));
        }
        charter.erasures.push(proto::Erasure {
            origin: Some(origin_to_proto(erased.origin)),
            seq: erased.seq.0,
            index: erased.index,
            leaf_hash: Bytes::copy_from_slice(&erased.leaf),
            reason,
        });
        Ok(())
    })
}

/// What can be told before the record is looked for.
pub(in crate::cli) fn check_erasable(file: &CharterFile, seq: Seq, index: u32) -> Result<(), Failure> {
    if seq == Seq(1) && index == 0 {
        return Err(refused(
            "record 0 of block 1 opens the log and cannot be erased: no block of it could be verified",
        )
        .culprit("it holds a public key and a signature, and nothing else"));
    }
    if seq == Seq(0) || index as usize >= RECORDS_PER_BLOCK_MAX {
        let max = RECORDS_PER_BLOCK_MAX - 1;
        return Err(usage(format!("got record {index} of block {}, expected 0 to {max} of block 1 or later", seq.0)));
    }
    let level = body(file)?.semantics;
    if level < 2 {
        let cause = format!("the forum is at semantics level {level}; erasure orders need level 2");
        return Err(refused(cause).fix("staydown charter set-semantics 2, into the same file first"));
    }
    Ok(())
}

/// The number of a reason, by its name.
pub(in crate::cli) fn reason(name: &str) -> Result<u32, Failure> {
    record::reason_number(name).map(u32::from).ok_or_else(|| {
        let known: Vec<_> = record::REASONS.iter().map(|(_, name)| *name).collect();
        usage(format!("--reason: got {name:?}, expected one of {}", known.join(", ")))
    })
}

/// The founder whose key id begins with `digits`, as it stands in the charter.
fn founder_at(charter: &proto::Charter, digits: &str) -> Result<usize, Failure> {
    let ids: Vec<_> = charter.founder_keys.iter().map(|key| KeyId::of(key).to_string()).collect();
    let known = format!("founders are {}", ids.join(", "));
    let found = one_of("founder", digits, &ids, &known)?;
    ids.iter().position(|id| *id == found).ok_or_else(|| Failure::new(Exit::NotFound, known))
}

/// Puts a new founder's key where an old one stood.
pub(in crate::cli) fn rotate_founder(
    file: &CharterFile,
    old: &str,
    new: &VerifyingKey,
) -> Result<CharterFile, Failure> {
    edit(file, |charter| {
        let at = founder_at(charter, old)?;
        let key = Bytes::copy_from_slice(new.as_bytes());
        if charter.founder_keys.contains(&key) {
            return Err(refused(format!("key {} is a founder's already", KeyId::of(new.as_bytes()))));
        }
        charter.founder_keys[at] = key;
        Ok(())
    })
}

/// Adds founders, takes founders out, changes how many sign.
pub(in crate::cli) fn set_founders(
    file: &CharterFile,
    add: &[VerifyingKey],
    remove: &[String],
    threshold: Option<u32>,
) -> Result<CharterFile, Failure> {
    if add.is_empty() && remove.is_empty() && threshold.is_none() {
        return Err(usage("nothing to change is given").fix("staydown charter set-founders --help"));
    }
    edit(file, |charter| {
        for digits in remove {
            let at = founder_at(charter, digits)?;
            charter.founder_keys.remove(at);
        }
        for key in add {
            let bytes = Bytes::copy_from_slice(key.as_bytes());
            if charter.founder_keys.contains(&bytes) {
                return Err(refused(format!("key {} is a founder's already", KeyId::of(key.as_bytes()))));
            }
            charter.founder_keys.push(bytes);
        }
        let count = charter.founder_keys.len();
        if count == 0 || count > FOUNDERS_MAX {
            return Err(usage(format!("{count} founders would be left, expected 1 to {FOUNDERS_MAX}")));
        }
        charter.threshold = threshold.unwrap_or(charter.threshold);
        let got = charter.threshold as usize;
        if got <= count / 2 || got > count {
            let cause =
                format!("a threshold of {got} does not fit {count} founders, expected {} to {count}", count / 2 + 1);
            return Err(usage(cause).fix("--threshold N: more than half of the founders, and at most all"));
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::cli::drafting::tests::{NOW, founded, founder, request};
    use crate::cli::drafting::{admit, admit_new_key, chain, next, sign};
    use crate::wire::files::{Applicant, Binding, JoinRequest};

    fn end(member: u8, log_no: u32, seq: u64) -> LogEnd {
        let origin = Origin { member: MemberId([member; 16]), log_no: LogNo(log_no) };
        let hash = HeaderHash([u8::try_from(seq).unwrap(); 32]);
        LogEnd { origin, head: Head { seq: Seq(seq), hash }, forked_at: 0 }
    }

    /// Logs 0 and 1 of bolt, log 0 of cyan.
    fn heads() -> [LogEnd; 3] {
        [end(12, 0, 5), end(12, 1, 6), end(13, 0, 7)]
    }

    /// The version after the founding, unsigned.
    fn second() -> CharterFile {
        next(&chain(&founded()).unwrap(), NOW.plus(1)).unwrap()
    }

    /// Signs a file by two founders and begins the version after it.
    fn after(file: &CharterFile) -> CharterFile {
        let signed = sign(&sign(file, &founder(1)).unwrap(), &founder(2)).unwrap();
        next(&chain(&signed).unwrap(), NOW.plus(2)).unwrap()
    }

    fn status(file: &CharterFile, who: &str) -> u32 {
        let charter = body(file).unwrap();
        charter.members[position(&charter, who).unwrap()].status
    }

    /// Log and last block, of bolt's cutoffs.
    fn cutoffs(file: &CharterFile) -> Vec<(u32, u64)> {
        let charter = body(file).unwrap();
        charter.cutoffs.iter().filter(|c| is_of(c, &[12; 16])).map(|c| (log_no(c), c.last_seq)).collect()
    }

    #[test]
    fn a_suspension_cuts_every_log_and_a_reinstatement_only_what_came_with_it() {
        let cut = cut_off(&second(), "bolt", LogNo(1), end(12, 1, 3).head).unwrap();
        let suspended = suspend(&after(&cut), "bolt", &heads()).unwrap();
        assert_eq!(status(&suspended, "bolt"), SUSPENDED);
        let expected: Vec<_> = [(0, 5), (1, 3)].into_iter().chain((2..16).map(|no| (no, 0))).collect();
        assert_eq!(cutoffs(&suspended), expected);
        assert_eq!(suspend(&suspended, "bolt", &heads()).unwrap_err().cause, "bolt is suspended already");
        for file in [suspended.clone(), after(&suspended)] {
            let back = reinstate(&file, "bolt", false).unwrap();
            assert_eq!((status(&back, "bolt"), cutoffs(&back)), (ACTIVE, vec![(1, 3)]));
            let back = reinstate(&file, "bolt", true).unwrap();
            assert_eq!(cutoffs(&back), [(0, 5), (1, 3)]);
        }
        assert!(reinstate(&cut, "bolt", false).unwrap_err().cause.contains("neither suspended nor gone"));
    }

    #[test]
    fn an_expulsion_keeps_what_was_listed_or_nothing() {
        let kept = expel(&second(), "bolt", Kept::Word, 10, &heads()).unwrap();
        let charter = body(&kept).unwrap();
        let listed: Vec<_> = charter.expulsions[0].cutoffs.iter().map(|c| (log_no(c), c.last_seq)).collect();
        assert_eq!((listed, charter.expulsions[0].reason, status(&kept, "bolt")), (vec![(0, 5), (1, 6)], 10, FORMER));
        assert!(!needs_heads(&kept, "bolt").unwrap() && needs_heads(&second(), "bolt").unwrap());
        // From KEEP to VOID, and back into the forum.
        let void = expel(&after(&kept), "bolt", Kept::Nothing, 7, &[]).unwrap();
        let charter = body(&void).unwrap();
        assert_eq!((charter.expulsions.len(), charter.expulsions[0].policy, charter.cutoffs.len()), (1, 2, 0));
        assert!(needs_heads(&void, "bolt").unwrap());
        let back = reinstate(&after(&void), "bolt", false).unwrap();
        assert_eq!((status(&back, "bolt"), body(&back).unwrap().expulsions.len()), (ACTIVE, 0));
        let back = reinstate(&after(&kept), "bolt", true).unwrap();
        assert_eq!(cutoffs(&back), [(0, 5), (1, 6)]);
        assert!(cut_off(&void, "bolt", LogNo(0), end(12, 0, 1).head).is_err());
    }

    #[test]
    fn who_is_expelled_while_suspended_gains_nothing_by_what_it_signed_since() {
        let suspended = suspend(&second(), "bolt", &heads()).unwrap();
        let later = [end(12, 0, 50), end(12, 1, 60), end(12, 2, 70)];
        let kept = expel(&after(&suspended), "bolt", Kept::Word, 10, &later).unwrap();
        let charter = body(&kept).unwrap();
        let listed: Vec<_> = charter.expulsions[0].cutoffs.iter().map(|c| (log_no(c), c.last_seq)).collect();
        assert_eq!((listed, charter.cutoffs.len()), (vec![(0, 5), (1, 6)], 0));
    }

    /// Bolt again, with another root key.
    fn rekeyed(name: &str, forum: crate::replica::ids::ForumId) -> JoinRequest {
        let applicant = Applicant {
            name: name.to_owned(),
            member: MemberId([12; 16]),
            ..request("bolt", 99, Binding::Forum(forum)).applicant
        };
        JoinRequest::make(&applicant, &SigningKey::from_bytes(&[77; 32]), NOW).unwrap()
    }

    #[test]
    fn a_changed_root_key_is_taken_only_when_asked_for_and_lists_where_the_old_logs_end() {
        let file = second();
        let forum = chain(&founded()).unwrap().forum();
        let told = admit(&file, &rekeyed("bolt", forum), None, NOW).unwrap_err();
        assert!(told.cause.contains("another log root key") && told.fix.unwrap().contains("--new-key"));
        let new = admit_new_key(&file, &rekeyed("bolt", forum), None, NOW, &heads()).unwrap();
        assert_eq!(cutoffs(&new), [(0, 5), (1, 6)]);
        let signed = sign(&sign(&new, &founder(1)).unwrap(), &founder(2)).unwrap();
        assert_eq!(chain(&signed).unwrap().version(), 2, "possession of the new key is proven");
        // Not for another name, not with the same key, not for a stranger.
        for (request, expected) in [
            (rekeyed("bolts", forum), "the member is called \"bolt\""),
            (request("bolt", 12, Binding::Forum(forum)), "is the one that the charter has"),
            (request("delta", 14, Binding::Forum(forum)), "delta is no member yet"),
        ] {
            let told = admit_new_key(&file, &request, None, NOW, &heads()).unwrap_err();
            assert!(told.cause.contains(expected) && told.fix.is_some(), "{told:?}");
        }
    }

    #[test]
    fn a_suspended_thief_stays_cut_off_when_the_key_is_changed() {
        let suspended = after(&suspend(&second(), "bolt", &heads()).unwrap());
        let forum = chain(&founded()).unwrap().forum();
        let later = [end(12, 0, 50), end(12, 1, 60), end(12, 2, 70)];
        let new = admit_new_key(&suspended, &rekeyed("bolt", forum), None, NOW, &later).unwrap();
        assert_eq!((status(&new, "bolt"), cutoffs(&new).len()), (SUSPENDED, 16));
        let back = reinstate(&new, "bolt", false).unwrap();
        assert_eq!(cutoffs(&back), [(0, 5), (1, 6)], "the old logs stay cut, new ones may be opened");
    }

    #[test]
    fn a_member_that_has_left_is_not_admitted_by_the_way() {
        let gone = expel(&second(), "bolt", Kept::Word, 99, &heads()).unwrap();
        let forum = chain(&founded()).unwrap().forum();
        let told = admit(&gone, &request("bolt", 12, Binding::Forum(forum)), None, NOW).unwrap_err();
        assert!(told.cause.contains("has left the forum") && told.fix.unwrap().contains("reinstate"));
        let suspended = suspend(&second(), "bolt", &heads()).unwrap();
        let again = admit(&suspended, &request("bolt", 12, Binding::Forum(forum)), None, NOW);
        assert!(again.is_err() || status(&again.unwrap(), "bolt") == SUSPENDED);
    }

    #[test]
    fn rules_of_a_founding_draft_are_set_before_it_has_members() {
        let keys = [1, 2, 3].map(|seed| founder(seed).verifying_key());
        let draft = crate::cli::drafting::found("x", &keys, 2, [9; 32], NOW).unwrap();
        let change = PolicyChange { contest_quorum: Some(3), ..Default::default() };
        let draft = set_policy(&draft, &change).unwrap();
        assert_eq!(body(&draft).unwrap().policy.unwrap().contest_quorum, 3);
        assert_eq!(set_policy(&draft, &change).unwrap_err().cause, "the charter says so already: nothing would change");
        let draft = set_founders(&draft, &[founder(4).verifying_key()], &[], Some(3)).unwrap();
        assert_eq!((body(&draft).unwrap().founder_keys.len(), body(&draft).unwrap().threshold), (4, 3));
        assert_eq!(suspend(&founded(), "bolt", &heads()).unwrap_err().exit, Exit::Refused);
    }

    #[test]
    fn founders_change_by_the_thresholds_of_both_versions() {
        let id = |seed: u8| KeyId::of(founder(seed).verifying_key().as_bytes()).to_string();
        let file = rotate_founder(&second(), &id(3)[..8], &founder(4).verifying_key()).unwrap();
        let file = sign(&sign(&file, &founder(1)).unwrap(), &founder(4)).unwrap();
        let missing = crate::cli::drafting::Standing::of(&file).unwrap().missing();
        assert!(missing.len() == 1 && missing[0].contains("of the version before"), "{missing:?}");
        assert_eq!(chain(&sign(&file, &founder(2)).unwrap()).unwrap().version(), 2);
        for (old, new) in [(&id(9)[..8], 4), (&id(3)[..7], 4), ("", 4), ("zzzzzzzz", 4), (&id(3)[..], 1)] {
            let told = rotate_founder(&second(), old, &founder(new).verifying_key()).unwrap_err();
            assert!(matches!(told.exit, Exit::NotFound | Exit::Refused), "{told:?}");
        }
        let fewer = set_founders(&second(), &[], &[id(3)], None).unwrap();
        assert_eq!(body(&fewer).unwrap().founder_keys.len(), 2);
        assert_eq!(set_founders(&second(), &[], &[id(2), id(3)], None).unwrap_err().exit, Exit::Usage);
        assert_eq!(set_founders(&second(), &[], &[], Some(1)).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_flag() {
        let policy = |change: PolicyChange, flag: &str| {
            let told = set_policy(&second(), &change).unwrap_err();
            assert!(told.exit == Exit::Usage && told.cause.contains(flag), "{told:?}");
        };
        policy(PolicyChange::default(), "no number is given");
        policy(PolicyChange { retract_min: Some(0), ..Default::default() }, "--retract-min: got 0");
        policy(PolicyChange { retract_permille: Some(1_001), ..Default::default() }, "--retract-permille: got 1001");
        policy(PolicyChange { quotas: [None, None, Some(0)], ..Default::default() }, "--quota-bulk: got 0");
        policy(PolicyChange { log_bytes_max: Some(0), ..Default::default() }, "--log-bytes-max");
        policy(PolicyChange { stale_grace_days: Some(u64::MAX), ..Default::default() }, "--stale-grace");
        let member = |change: MemberChange, expected: &str| {
            let told = set_member(&second(), "bolt", &change).unwrap_err();
            assert!(told.cause.contains(expected), "{told:?}");
        };
        let text = |text: &str| vec![text.to_owned()];
        member(MemberChange::default(), "nothing to change");
        member(MemberChange { group: Some("\u{7}".into()), ..Default::default() }, "--group");
        member(MemberChange { jurisdictions: text("France"), ..Default::default() }, "--jurisdiction");
        member(MemberChange { languages: text("f"), ..Default::default() }, "--language");
        member(MemberChange { endpoints: text("bolt"), ..Default::default() }, "--endpoint");
        member(MemberChange { endpoints: vec!["a:1".into(); 5], ..Default::default() }, "--endpoint: got 5");
        member(MemberChange { log_limit: Some(0), ..Default::default() }, "--log-limit");
        member(MemberChange { log_limit: Some(8_192), ..Default::default() }, "could open 8224 logs together");
        member(MemberChange { drop_pins: text("00000000"), ..Default::default() }, "--drop-pin");
        member(MemberChange { drop_pins: text(&"0c".repeat(32)), ..Default::default() }, "is the last pin");
        assert_eq!(set_role(&second(), "bolt", Roles::from_bits(9)).unwrap_err().exit, Exit::Usage);
        assert_eq!(set_role(&second(), "echo", Roles::FULL).unwrap_err().exit, Exit::NotFound);
        assert!(renew(&second(), 400, NOW.plus(1)).is_ok(), "as long as the next version is valid anyway");
        assert_eq!(renew(&second(), 0, NOW).unwrap_err().exit, Exit::Usage);
        assert_eq!(renew(&second(), VALID_DAYS_MAX + 1, NOW).unwrap_err().exit, Exit::Usage);
        assert_eq!(set_semantics(&second(), SEMANTICS_MAX + 1).unwrap_err().exit, Exit::Usage);
        assert_eq!(cut_off(&second(), "bolt", LogNo(16), end(12, 0, 1).head).unwrap_err().exit, Exit::Usage);
        assert!(reason("spite").unwrap_err().cause.contains("court-or-law"));
    }

    #[test]
    fn a_suspended_member_cannot_be_given_a_log_that_is_not_cut() {
        let suspended = suspend(&second(), "bolt", &heads()).unwrap();
        let more = MemberChange { log_limit: Some(17), ..Default::default() };
        assert_eq!(set_member(&suspended, "bolt", &more).unwrap_err().exit, Exit::Refused);
        assert!(set_member(&second(), "bolt", &more).is_ok());
    }

    #[test]
    fn the_opening_of_a_log_is_never_erased_and_level_one_erases_nothing() {
        let erased = |seq, index| Erased { origin: end(12, 0, 1).origin, seq: Seq(seq), index, leaf: [5; 32] };
        let told = erase(&second(), &erased(1, 0), 7).unwrap_err();
        assert!(told.cause.contains("opens the log"), "{told:?}");
        assert!(erase(&second(), &erased(0, 0), 7).is_err() && erase(&second(), &erased(2, 512), 7).is_err());
        let told = erase(&set_semantics(&second(), 1).unwrap(), &erased(2, 0), 7).unwrap_err();
        assert!(told.fix.unwrap().contains("set-semantics 2"));
        let file = erase(&second(), &erased(2, 0), 7).unwrap();
        assert_eq!(body(&file).unwrap().erasures.len(), 1);
        assert_eq!(erase(&file, &erased(2, 0), 7).unwrap_err().exit, Exit::Refused);
        assert!(set_semantics(&file, 1).unwrap_err().cause.contains("erasure orders"));
    }

    #[test]
    fn a_taxonomy_is_named_by_its_bytes_and_never_gives_old_words_another_meaning() {
        let read = |text: &str| TaxonomyFile::parse(text).unwrap();
        let example = read(crate::taxonomy::EXAMPLE_TEXT);
        let set = set_taxonomy(&second(), &example).unwrap();
        assert_eq!(body(&set).unwrap().taxonomy, example.named.to_string());
        assert_eq!(set.taxonomies, [Bytes::from(example.text.clone())]);
        assert_eq!(set_taxonomy(&set, &example).unwrap_err().exit, Exit::Refused, "nothing would change");

        // The next version is held against it, if the file is at hand.
        let third = read(&example.text.replace("version = 2", "version = 3").replace("\"symbol\"", "\"emblem\""));
        let next = CharterFile { taxonomies: set.taxonomies.clone(), ..after(&set) };
        let reused = set_taxonomy(&next, &third).unwrap_err();
        assert!(reused.culprits[0].contains("label 13 is emblem, and was symbol"), "{reused:?}");
        let third = read(&third.text.replace("name = \"emblem\"", "name = \"emblem\"\nformerly = [\"symbol\"]"));
        assert!(set_taxonomy(&after(&set), &third).unwrap_err().cause.contains("is not at hand"));
        let both = set_taxonomy(&next, &third).unwrap();
        assert_eq!(both.taxonomies.len(), files::TAXONOMIES_MAX, "founders see the one before and this one");

        // Before anybody has signed anything a forum may have any labels.
        let own = read("name = \"own\"\nversion = 1\n[[label]]\nnumber = 1\nname = \"a\"\nfacet = \"incident\"\n");
        assert!(set_taxonomy(&second(), &own).is_err());
        let draft = crate::cli::drafting::tests::draft();
        assert_eq!(body(&set_taxonomy(&draft, &own).unwrap()).unwrap().taxonomy, own.named.to_string());
    }
}
