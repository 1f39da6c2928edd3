//! What a member can say: one record is one statement (PROTOCOL sections 3.3, 5 and 12).
//!
//! A record that fails its own checks is *inert*: it is stored and relayed like any other, and changes nothing. One
//! bad record never stops a log, and a record of a later release passes through an older node unharmed.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use super::block::RECORD_SIZE_MAX;
use super::heads::head_from_proto;
use super::ids::{Head, MemberId, Origin, TimeMs};
use super::proto;
use super::signal::{self, Subject};
use super::strict::{self, Scanned, Schema};
use super::vpdq::ItemId;

/// Length of a record's salt in bytes.
pub const SALT_SIZE: usize = 16;
/// An ALLOW must end: at most this many days after its block's time (PROTOCOL layer 6).
pub const ALLOW_DAYS_MAX: u64 = 400;

/// Heads in one attestation (PROTOCOL W8): they fit into a record.
pub const ATTEST_HEADS_MAX: usize = 48;

/// 16 bytes that a caller chooses so that the same submission is not made twice.
pub type ClientKey = [u8; 16];
/// 16 bytes that name an incident.
pub type IncidentId = [u8; 16];

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// The log's opening; its meaning is structural (see `signed.rs`).
    LogOpen(proto::LogOpen),
    /// A stance on a subject.
    Opinion(Opinion),
    /// A vote on retracting a subject for everybody.
    Retract {
        /// What about.
        subject: Subject,
        /// For or against.
        yes: bool,
        /// Number of the reason; 0 when none was given.
        reason: u32,
    },
    /// A certifier's word.
    Allow {
        /// What about.
        subject: Subject,
        /// Given or taken back.
        yes: bool,
        /// When it ends.
        expires: TimeMs,
    },
    /// An authority's request.
    Referral {
        /// What about.
        subject: Subject,
        /// Open or closed.
        open: bool,
        /// When it ends; 0: never.
        expires: TimeMs,
        /// Number of the kind of authority; 0: not stated.
        authority: u32,
        /// Its jurisdiction, see [`jurisdiction_name`]; 0: not stated.
        jurisdiction: u32,
    },
    /// An attack, opened or closed.
    Incident {
        /// Which.
        id: IncidentId,
        /// Label that applies to its subjects while it is open.
        code: u32,
        /// 1 low .. 4 imminent threat to life; 0: not stated.
        level: u32,
        /// Open or closed.
        open: bool,
        /// When it closes by itself; 0: never.
        closes: TimeMs,
    },
    /// "I hold this proof."
    Evidence,
    /// The end of a log: nothing that follows counts.
    LogClose,
    /// "I durably hold these chains up to here" (level 2).
    Attest {
        /// At most [`ATTEST_HEADS_MAX`].
        heads: Vec<(Origin, Head)>,
    },
    /// A steward cuts a member off for some days (level 2).
    Suspend {
        /// Whom.
        member: MemberId,
        /// What of its logs still counts; a log that is not listed does not count at all.
        marks: BTreeMap<Origin, Head>,
        /// Until when.
        until: TimeMs,
        /// Number of the reason; 0: not stated.
        reason: u8,
    },
    /// An auditor's finding (level 2).
    AuditNote,
    /// A certified counter-narrative (level 2).
    Resource(Resource),
    /// "I kept a copy; ask me through legal process" (level 2).
    Preserve {
        /// Of what.
        subject: Subject,
        /// Until when it is kept; 0: not stated.
        until: TimeMs,
        /// Number of the way to ask for it; 0: not stated.
        contact: u32,
    },
    /// What a company did (level 2).
    Outcome {
        /// With what.
        subject: Subject,
        /// Number of the result, see [`RESULTS`].
        result: u32,
        /// When.
        acted: TimeMs,
    },
}

/// A link to a counter-narrative, certified for topics and languages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// An `https` address of at most [`URL_SIZE_MAX`] bytes.
    pub url: String,
    /// BCP 47 tags, ascending, each once; none: any language.
    pub languages: Vec<String>,
    /// Codes of the taxonomy that it answers, ascending, each once.
    pub labels: Vec<u32>,
    /// Offered, or taken back.
    pub listed: bool,
    /// When it ends; 0: never.
    pub expires: TimeMs,
}

impl Statement {
    /// The semantics level that gives it a meaning; below, it is carried and inert.
    pub fn level(&self) -> u32 {
        match self {
            Self::Attest { .. }
            | Self::Suspend { .. }
            | Self::AuditNote
            | Self::Resource(_)
            | Self::Preserve { .. }
            | Self::Outcome { .. } => 2,
            _ => 1,
        }
        .max(self.subject().map_or(1, Subject::level))
    }

    /// What it is about, if it is about one subject.
    pub fn subject(&self) -> Option<&Subject> {
        match self {
            Self::Opinion(opinion) => Some(&opinion.subject),
            Self::Retract { subject, .. }
            | Self::Allow { subject, .. }
            | Self::Referral { subject, .. }
            | Self::Preserve { subject, .. }
            | Self::Outcome { subject, .. } => Some(subject),
            Self::LogOpen(_)
            | Self::LogClose
            | Self::Incident { .. }
            | Self::Evidence
            | Self::Attest { .. }
            | Self::Suspend { .. }
            | Self::AuditNote
            | Self::Resource(_) => None,
        }
    }

    /// Whether it is about who posts, not about what is posted (level 3).
    pub fn is_of_account(&self) -> bool {
        self.subject().is_some_and(|subject| subject.kind() == signal::KIND_ACCOUNT)
    }

    /// When the word that it gives ends by itself: `Some(0)`, it has no such end. `None`: it gives no word, but takes one
    /// back, or ends an entry.
    pub fn word_ends(&self) -> Option<TimeMs> {
        match self {
            Self::Opinion(opinion) => (opinion.stance != Stance::Neutral).then_some(opinion.expires),
            Self::Allow { yes, expires, .. } => yes.then_some(*expires),
            Self::Referral { open, expires, .. } => open.then_some(*expires),
            Self::Preserve { .. } | Self::Outcome { .. } => Some(TimeMs(0)),
            _ => None,
        }
    }
}

/// A member's stance on a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// What about.
    pub subject: Subject,
    /// The stance.
    pub stance: Stance,
    /// Codes of the taxonomy, ascending, each once.
    pub labels: Vec<u32>,
    /// BCP 47 tags, ascending, each once.
    pub languages: Vec<String>,
    /// 1 low .. 4 imminent threat to life; 0: not stated.
    pub severity: u8,
    /// When it ends; 0: never.
    pub expires: TimeMs,
    /// When its author wants to look at it again; 0: never.
    pub review: TimeMs,
    /// The incident it belongs to.
    pub incident: Option<IncidentId>,
    /// Groups the hashes of one item.
    pub item: Option<ItemId>,
    /// Number of the reason; 0: not stated.
    pub reason: u8,
    /// The submitter's own key for this submission.
    pub client_key: Option<ClientKey>,
}

/// STANCE register values (PROTOCOL layer 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stance {
    /// "This is on our list."
    Submit,
    /// "We stand behind it too."
    Endorse,
    /// "We disagree."
    Dispute,
    /// "We take back what we said."
    Neutral,
}

impl Stance {
    /// All stances, in the order of their numbers from 1.
    pub const ALL: [Self; 4] = [Self::Submit, Self::Endorse, Self::Dispute, Self::Neutral];

    /// The number in the record.
    pub fn number(self) -> u32 {
        match self {
            Self::Submit => 1,
            Self::Endorse => 2,
            Self::Dispute => 3,
            Self::Neutral => 4,
        }
    }

    /// The stance of a number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.number() == number)
    }
}

/// Reasons by number (PROTOCOL section 12), as people write them.
pub const REASONS: [(u8, &str); 11] = [
    (1, "mistake"),
    (2, "news-reporting"),
    (3, "education-research"),
    (4, "art-parody"),
    (5, "counter-speech"),
    (6, "out-of-taxonomy"),
    (7, "court-or-law"),
    (8, "overmatching"),
    (9, "duplicate"),
    (10, "key-compromise"),
    (99, "other"),
];

/// The name of a reason's number, if it has one.
pub fn reason_name(number: u8) -> Option<&'static str> {
    REASONS.iter().find(|(n, _)| *n == number).map(|(_, name)| *name)
}

/// The number of a reason's name.
pub fn reason_number(name: &str) -> Option<u8> {
    REASONS.iter().find(|(_, n)| *n == name).map(|(number, _)| *number)
}

/// What an opinion rests on, by number.
pub const BASES: [(u32, &str); 5] =
    [(1, "human-review"), (2, "automated"), (3, "court-order"), (4, "referral"), (5, "other-member")];

/// What kind of authority refers, by number.
pub const AUTHORITIES: [(u32, &str); 6] =
    [(1, "referral-unit"), (2, "police"), (3, "prosecutor"), (4, "court"), (5, "regulator"), (99, "other")];

/// What a company did with what it found, by number (PROTOCOL section 12).
pub const RESULTS: [(u32, &str); 4] = [(1, "removed"), (2, "restricted"), (3, "kept"), (4, "not-found")];

/// How a preserved copy is asked for, by number.
pub const CONTACTS: [(u32, &str); 2] = [(1, "legal-process"), (2, "emergency-desk")];

/// The number of a name in one of these tables.
pub fn code(table: &[(u32, &str)], name: &str) -> Option<u32> {
    table.iter().find(|(_, n)| *n == name).map(|(number, _)| *number)
}

/// The name of a number in one of these tables; empty for 0, `what-N` for one that this release does not know.
pub fn code_name(table: &[(u32, &str)], what: &str, number: u32) -> String {
    match table.iter().find(|(n, _)| *n == number) {
        Some((_, name)) => (*name).to_owned(),
        None if number == 0 => String::new(),
        None => format!("{what}-{number}"),
    }
}

/// The number of a jurisdiction of two capital letters, as in FR or EU: the first letter's code times 256 and the
/// second's.
pub fn jurisdiction_number(name: &str) -> Option<u32> {
    match name.as_bytes() {
        [a @ b'A'..=b'Z', b @ b'A'..=b'Z'] => Some(u32::from(*a) << 8 | u32::from(*b)),
        _ => None,
    }
}

/// The letters of a jurisdiction's number; empty for 0, `jurisdiction-N` where it stands for no letters.
pub fn jurisdiction_name(number: u32) -> String {
    let letters = u16::try_from(number).map(u16::to_be_bytes).ok().filter(|b| b.iter().all(u8::is_ascii_uppercase));
    match letters {
        Some([a, b]) => [char::from(a), char::from(b)].iter().collect(),
        None if number == 0 => String::new(),
        None => format!("jurisdiction-{number}"),
    }
}

/// Longest address of a resource, in bytes: a page of a site, and no room for a message in it.
pub const URL_SIZE_MAX: usize = 256;

/// Whether `url` is an address that people may be offered: `https`, a host name with a dot, no user, no port, no spaces,
/// nothing behind `?` or `#`. There is no field for free text, and this must not become one.
pub fn is_resource_url(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("https://") else { return false };
    let host = rest.split('/').next().unwrap_or_default();
    let label = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let path = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    url.len() <= URL_SIZE_MAX
        && host.contains('.')
        && host.split('.').all(label)
        && rest[host.len()..].bytes().all(path)
}

/// A record's bytes, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// It says something that this release and semantics level understand.
    Says(Statement),
    /// It has no effect, for this reason; `withdraws` as far as that can be told is always `false`.
    Inert(&'static str),
}

impl Parsed {
    /// Whether it takes something back in a forum of this semantics `level`: counted in a quota of its own, so that a full
    /// quota never blocks a withdrawal. Below its level a record takes nothing back, as for the releases that knew no
    /// more: else two of them would count two quotas.
    pub fn withdraws(&self, level: u32) -> bool {
        match self {
            Self::Says(statement) if statement.level() > level => false,
            Self::Says(Statement::Opinion(opinion)) => opinion.stance == Stance::Neutral,
            Self::Says(Statement::Retract { .. }) => true,
            Self::Says(Statement::Allow { yes, .. }) => !yes,
            Self::Says(Statement::Referral { open, .. } | Statement::Incident { open, .. }) => !open,
            _ => false,
        }
    }
}

/// Reads one record. Never fails: what cannot be read is inert.
pub fn parse(bytes: &[u8]) -> Parsed {
    try_parse(bytes).map_or_else(Parsed::Inert, Parsed::Says)
}

fn try_parse(bytes: &[u8]) -> Result<Statement, &'static str> {
    if bytes.len() > RECORD_SIZE_MAX {
        return Err("record is longer than 4096 bytes");
    }
    let record: proto::Record = decode(bytes, &strict::RECORD)?;
    if record.salt.len() != SALT_SIZE {
        return Err("salt has not 16 bytes");
    }
    let body = &record.body[..];
    match proto::Kind::try_from(i32::try_from(record.kind).unwrap_or(-1)) {
        Ok(proto::Kind::LogOpen) => Ok(Statement::LogOpen(decode(body, &strict::LOG_OPEN)?)),
        Ok(proto::Kind::Opinion) => opinion(decode(body, &strict::OPINION)?).map(Statement::Opinion),
        Ok(proto::Kind::RetractVote) => retract(&decode(body, &strict::RETRACT_VOTE)?),
        Ok(proto::Kind::Allow) => allow(&decode(body, &strict::ALLOW)?),
        Ok(proto::Kind::Referral) => referral(&decode(body, &strict::REFERRAL)?),
        Ok(proto::Kind::Incident) => incident(&decode(body, &strict::INCIDENT)?),
        Ok(proto::Kind::Evidence) => decode::<proto::Evidence>(body, &strict::EVIDENCE).map(|_| Statement::Evidence),
        Ok(proto::Kind::LogClose) => decode::<proto::LogClose>(body, &strict::LOG_CLOSE).map(|_| Statement::LogClose),
        Ok(proto::Kind::Attest) => attest(&decode(body, &strict::ATTEST)?),
        Ok(proto::Kind::Suspend) => suspend(&decode(body, &strict::SUSPEND)?),
        Ok(proto::Kind::AuditNote) => {
            decode::<proto::AuditNote>(body, &strict::AUDIT_NOTE).map(|_| Statement::AuditNote)
        }
        Ok(proto::Kind::Resource) => resource(decode(body, &strict::RESOURCE)?),
        Ok(proto::Kind::Preserve) => preserve(&decode(body, &strict::PRESERVE)?),
        Ok(proto::Kind::Outcome) => outcome(&decode(body, &strict::OUTCOME)?),
        Ok(proto::Kind::None) | Err(_) => Err("kind is unknown"),
    }
}

fn attest(a: &proto::Attest) -> Result<Statement, &'static str> {
    if a.heads.is_empty() || a.heads.len() > ATTEST_HEADS_MAX {
        return Err("an attestation names 1 to 48 heads");
    }
    let heads: Option<_> = a.heads.iter().map(head_from_proto).collect();
    Ok(Statement::Attest { heads: heads.ok_or("an attestation has a head without log, place or hash")? })
}

fn suspend(s: &proto::Suspend) -> Result<Statement, &'static str> {
    let marks: Option<BTreeMap<_, _>> = s.marks.iter().map(head_from_proto).collect();
    let member = MemberId::from_slice(&s.member_id).ok_or("a suspension names no member")?;
    let marks = marks.ok_or("a suspension has a mark without log, place or hash")?;
    if marks.len() != s.marks.len() || marks.keys().any(|origin| origin.member != member) {
        return Err("a suspension marks a log twice, or another member's");
    }
    Ok(Statement::Suspend { member, marks, until: TimeMs(s.until_ms), reason: known_reason(s.reason)? })
}

fn decode<M: prost::Message + Default>(bytes: &[u8], schema: &'static Schema) -> Result<M, &'static str> {
    match strict::scan(bytes, schema) {
        Ok(Scanned::Known) => M::decode(bytes).map_err(|_undecodable| "does not decode"),
        Ok(Scanned::UnknownFields) => Err("has fields of a later release"),
        Err(_not_strict) => Err("is not strictly encoded"),
    }
}

/// A subject in its normal form.
fn subject(subject: Option<&proto::Subject>) -> Result<Subject, &'static str> {
    let subject = subject.and_then(Subject::from_proto).ok_or("subject is missing or out of range")?;
    if signal::is_well_formed(&subject) { Ok(subject) } else { Err("subject is not in its normal form") }
}

fn sixteen(bytes: &[u8], absent_is_fine: bool) -> Result<Option<[u8; 16]>, &'static str> {
    match bytes.try_into() {
        Ok(id) => Ok(Some(id)),
        Err(_wrong) if bytes.is_empty() && absent_is_fine => Ok(None),
        Err(_wrong) => Err("an identifier has not 16 bytes"),
    }
}

fn small(value: u32, max: u8) -> Result<u8, &'static str> {
    u8::try_from(value).ok().filter(|v| *v <= max).ok_or("a code is out of range")
}

fn known_reason(value: u32) -> Result<u8, &'static str> {
    let reason = small(value, 99)?;
    if reason == 0 || reason_name(reason).is_some() { Ok(reason) } else { Err("reason is unknown") }
}

/// Labels and languages, ascending, each once.
fn tags(mut labels: Vec<u32>, mut languages: Vec<String>) -> Result<(Vec<u32>, Vec<String>), &'static str> {
    // There is no field for free text, and this must not become one.
    if !languages.iter().all(|tag| is_language(tag)) {
        return Err("a language is not a BCP 47 tag");
    }
    labels.sort_unstable();
    labels.dedup();
    languages.sort_unstable();
    languages.dedup();
    Ok((labels, languages))
}

fn opinion(o: proto::Opinion) -> Result<Opinion, &'static str> {
    small(o.basis, 5)?;
    small(o.confidence, 100)?;
    small(o.quality, 100)?;
    let (labels, languages) = tags(o.labels, o.languages)?;
    Ok(Opinion {
        subject: subject(o.subject.as_ref())?,
        stance: Stance::from_number(o.stance).ok_or("stance is unknown")?,
        labels,
        languages,
        severity: small(o.severity, 4)?,
        expires: TimeMs(o.expires_ms),
        review: TimeMs(o.review_ms),
        incident: sixteen(&o.incident_id, true)?,
        item: sixteen(&o.item_id, true)?,
        reason: known_reason(o.reason)?,
        client_key: sixteen(&o.client_key, true)?,
    })
}

/// Whether `tag` has the shape of a BCP 47 tag: subtags of 1 to 8 letters or digits, the first of 2 to 8 letters, at
/// most 35 characters.
pub fn is_language(tag: &str) -> bool {
    let mut parts = tag.split('-');
    let primary =
        parts.next().is_some_and(|p| (2..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphabetic()));
    let rest = parts.all(|p| (1..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphanumeric()));
    primary && rest && tag.len() <= 35
}

fn retract(r: &proto::RetractVote) -> Result<Statement, &'static str> {
    Ok(Statement::Retract {
        subject: subject(r.subject.as_ref())?,
        yes: r.yes,
        reason: u32::from(known_reason(r.reason)?),
    })
}

fn allow(a: &proto::Allow) -> Result<Statement, &'static str> {
    if a.yes && a.expires_ms == 0 {
        return Err("an ALLOW must expire");
    }
    Ok(Statement::Allow { subject: subject(a.subject.as_ref())?, yes: a.yes, expires: TimeMs(a.expires_ms) })
}

fn referral(r: &proto::Referral) -> Result<Statement, &'static str> {
    Ok(Statement::Referral {
        subject: subject(r.subject.as_ref())?,
        open: r.open,
        expires: TimeMs(r.expires_ms),
        authority: r.authority,
        jurisdiction: r.jurisdiction,
    })
}

fn incident(i: &proto::Incident) -> Result<Statement, &'static str> {
    Ok(Statement::Incident {
        id: sixteen(&i.id, false)?.unwrap_or_default(),
        code: i.code,
        level: i.level,
        open: i.open,
        closes: TimeMs(i.closes_ms),
    })
}

fn resource(r: proto::Resource) -> Result<Statement, &'static str> {
    if !is_resource_url(&r.url) {
        return Err("a resource has no plain https address");
    }
    let (labels, languages) = tags(r.labels, r.languages)?;
    Ok(Statement::Resource(Resource { url: r.url, languages, labels, listed: r.listed, expires: TimeMs(r.expires_ms) }))
}

fn preserve(p: &proto::Preserve) -> Result<Statement, &'static str> {
    Ok(Statement::Preserve { subject: subject(p.subject.as_ref())?, until: TimeMs(p.until_ms), contact: p.contact })
}

fn outcome(o: &proto::Outcome) -> Result<Statement, &'static str> {
    Ok(Statement::Outcome { subject: subject(o.subject.as_ref())?, result: o.result, acted: TimeMs(o.acted_ms) })
}

/// The bytes of a record of `kind` with `body`, in their one strict encoding.
///
/// prost writes fields ascending, numbers packed, defaults left out: what the strict scan asks for, provided that no
/// singular message inside is empty.
pub fn encode(kind: proto::Kind, salt: [u8; SALT_SIZE], body: &impl prost::Message) -> Bytes {
    let record =
        proto::Record { kind: kind as u32, salt: Bytes::copy_from_slice(&salt), body: body.encode_to_vec().into() };
    record.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submit() -> proto::Opinion {
        proto::Opinion {
            subject: Some(proto::Subject { r#type: 1, alg: 4, param: 0, digest: vec![7; 32].into() }),
            stance: 1,
            labels: vec![3, 1, 3],
            ..Default::default()
        }
    }

    fn parsed(change: impl FnOnce(&mut proto::Opinion)) -> Parsed {
        let mut opinion = submit();
        change(&mut opinion);
        parse(&encode(proto::Kind::Opinion, [9; 16], &opinion))
    }

    #[test]
    fn an_opinion_is_read_with_its_labels_in_order() {
        let Parsed::Says(Statement::Opinion(opinion)) = parsed(|_| ()) else { panic!("inert") };
        assert_eq!((opinion.stance, opinion.labels), (Stance::Submit, vec![1, 3]));
    }

    #[test]
    fn what_is_out_of_range_is_inert() {
        let inert = |change: fn(&mut proto::Opinion)| assert!(matches!(parsed(change), Parsed::Inert(_)));
        inert(|o| o.stance = 0);
        inert(|o| o.stance = 5);
        inert(|o| o.severity = 5);
        inert(|o| o.confidence = 101);
        inert(|o| o.reason = 11);
        inert(|o| o.incident_id = vec![1; 15].into());
        inert(|o| o.item_id = vec![1; 17].into());
        inert(|o| o.subject = None);
        inert(|o| o.subject.as_mut().unwrap().digest = vec![7; 31].into());
        inert(|o| o.subject.as_mut().unwrap().r#type = 3);
        inert(|o| o.languages = vec!["x".repeat(5_000)]);
        inert(|o| o.languages = vec!["en".into(), "call us on 555".into()]);
        inert(|o| o.languages = vec![String::new()]);
    }

    #[test]
    fn a_record_with_fields_of_a_later_release_is_inert() {
        let mut bytes = encode(proto::Kind::Opinion, [9; 16], &submit()).to_vec();
        bytes.extend_from_slice(&[0xf8, 0x07, 0x01]);
        assert_eq!(parse(&bytes), Parsed::Inert("has fields of a later release"));
    }

    #[test]
    fn a_resource_is_a_plain_https_address_and_no_room_for_words() {
        let read = |url: &str| {
            let resource = proto::Resource { url: url.into(), listed: true, ..Default::default() };
            parse(&encode(proto::Kind::Resource, [9; 16], &resource))
        };
        for url in ["https://example.org", "https://www.example.org/voices/fr_1.html", "https://a.example.org/~b/"] {
            assert!(matches!(read(url), Parsed::Says(Statement::Resource(_))), "{url}");
        }
        let long = format!("https://example.org/{}", "a".repeat(URL_SIZE_MAX));
        for url in [
            "",
            "http://example.org",
            "https://example",
            "https://me@example.org",
            "https://example.org:8443",
            "https://example.org/?q=call+us",
            "https://example.org/#now",
            "https://example.org/call us",
            "https://exam_ple.org",
            "https://-a.example.org",
            &long,
        ] {
            assert!(matches!(read(url), Parsed::Inert(_)), "{url}");
        }
    }

    #[test]
    fn codes_have_names_and_unknown_ones_show_their_number() {
        for (number, name) in AUTHORITIES {
            assert_eq!(
                (code(&AUTHORITIES, name), code_name(&AUTHORITIES, "authority", number)),
                (Some(number), name.into())
            );
        }
        assert_eq!(code_name(&AUTHORITIES, "authority", 77), "authority-77");
        assert_eq!(code_name(&AUTHORITIES, "authority", 0), "");
        for name in ["FR", "EU", "AA", "ZZ"] {
            assert_eq!(jurisdiction_name(jurisdiction_number(name).unwrap()), name);
        }
        assert!(["", "F", "fr", "FRA", "F1"].iter().all(|name| jurisdiction_number(name).is_none()));
        assert_eq!(
            [0, 250, 0x4652, u32::MAX].map(jurisdiction_name),
            ["", "jurisdiction-250", "FR", "jurisdiction-4294967295"]
        );
    }

    #[test]
    fn a_hundred_frames_leave_room_for_all_that_is_said_of_them() {
        let video = crate::replica::testing::video(1, 100);
        let full = |o: &mut proto::Opinion| {
            *o = proto::Opinion {
                subject: Some(video.to_proto()),
                stance: 1,
                labels: (1..=14).collect(),
                severity: 4,
                expires_ms: 1 << 41,
                review_ms: 1 << 41,
                incident_id: vec![1; 16].into(),
                basis: 5,
                confidence: 100,
                client_key: vec![2; 16].into(),
                languages: ["ab-abcdefgh-abcdefgh-abcdefgh-abcde", "pt-BR", "fr", "en"].map(Into::into).to_vec(),
                reason: 99,
                item_id: vec![3; 16].into(),
                quality: 100,
            }
        };
        let Parsed::Says(Statement::Opinion(opinion)) = parsed(full) else { panic!("inert") };
        assert_eq!((opinion.subject, opinion.item), (video, Some([3; 16])));
    }

    #[test]
    fn only_taking_back_counts_as_a_withdrawal() {
        assert!(!parsed(|_| ()).withdraws(1));
        assert!(parsed(|o| o.stance = 4).withdraws(1));
    }
}
