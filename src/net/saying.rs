//! What our company says besides opinions, from the local API's message to the record that is signed, and back: votes,
//! certificates, referrals, incidents, resources, preservation notices, outcomes.

use bytes::Bytes;
use prost::Message as _;
use tonic::{Code, Status};

use super::labels;
use super::local::{TAGS_MAX, reason, subject};
use super::status::{bad_field, refuse_with_fix};
use crate::clock;
use crate::replica::charter::{Charter, Member, Roles};
use crate::replica::ids::{Class, TimeMs};
use crate::replica::record::{self, ALLOW_DAYS_MAX, Parsed};
use crate::replica::taxonomy::Taxonomy;
use crate::replica::{Replica, admission, proto};
use crate::wire::local as l;

/// An incident that our node opens closes by itself after so many days at most: nobody remembers to close it, and
/// its label would stay on entries for ever. An attack that lasts is opened again.
pub const INCIDENT_DAYS_MAX: u64 = 30;
/// A preservation notice of our node ends after so many days at most: data is kept for a purpose, not for ever.
pub const PRESERVE_DAYS_MAX: u64 = 730;

/// What stands in a statement instead of an opinion.
enum Kind<'a> {
    Retract(&'a l::RetractVote),
    Allow(&'a l::Certification),
    Referral(&'a l::Referral),
    Incident(&'a l::IncidentNotice),
    Resource(&'a l::Resource),
    Preserve(&'a l::Preservation),
    Outcome(&'a l::Outcome),
}

/// The record of a statement that is no opinion and no suspension; `None`: it is one of these.
///
/// # Errors
/// The field that is wrong, with what was expected.
pub(super) fn record(
    statement: &l::Statement,
    index: usize,
    class: Class,
    taxonomy: &Taxonomy,
) -> Result<Option<Bytes>, Status> {
    let Some((name, kind)) = kind(statement) else { return Ok(None) };
    let said = Saying { index, name, signal: statement.signal.as_ref(), taxonomy };
    said.stands_alone(statement)?;
    match kind {
        Kind::Retract(vote) => said.retract(vote),
        Kind::Allow(certification) => said.allow(certification),
        Kind::Referral(referral) => said.referral(referral),
        Kind::Incident(notice) => said.incident(notice, class),
        Kind::Resource(resource) => said.resource(resource),
        Kind::Preserve(preservation) => said.preserve(preservation),
        Kind::Outcome(outcome) => said.outcome(outcome),
    }
    .map(Some)
}

fn kind(s: &l::Statement) -> Option<(&'static str, Kind<'_>)> {
    let retract = s.retract.as_ref().map(|k| ("retract", Kind::Retract(k)));
    let allow = || s.allow.as_ref().map(|k| ("allow", Kind::Allow(k)));
    let referral = || s.referral.as_ref().map(|k| ("referral", Kind::Referral(k)));
    let incident = || s.incident.as_ref().map(|k| ("incident", Kind::Incident(k)));
    let resource = || s.resource.as_ref().map(|k| ("resource", Kind::Resource(k)));
    let preserve = || s.preserve.as_ref().map(|k| ("preserve", Kind::Preserve(k)));
    let outcome = || s.outcome.as_ref().map(|k| ("outcome", Kind::Outcome(k)));
    retract.or_else(allow).or_else(referral).or_else(incident).or_else(resource).or_else(preserve).or_else(outcome)
}

/// A statement of a kind, for messages and its subject.
struct Saying<'a> {
    index: usize,
    name: &'static str,
    signal: Option<&'a l::Signal>,
    taxonomy: &'a Taxonomy,
}

impl Saying<'_> {
    fn field(&self, name: &str) -> String {
        format!("statements[{}].{}{name}", self.index, self.name)
    }

    /// Nothing beside it says something else, which would then be left out silently.
    fn stands_alone(&self, statement: &l::Statement) -> Result<(), Status> {
        let about = !matches!(self.name, "incident" | "resource");
        let mut rest = statement.clone();
        match self.name {
            "retract" => rest.retract = None,
            "allow" => rest.allow = None,
            "referral" => rest.referral = None,
            "incident" => rest.incident = None,
            "resource" => rest.resource = None,
            "preserve" => rest.preserve = None,
            _ => rest.outcome = None,
        }
        if about {
            rest.signal = None;
        }
        let expected = if about { "it alone with a signal" } else { "it alone" };
        if rest == l::Statement::default() {
            Ok(())
        } else {
            Err(bad_field(self.field(""), format!("stands beside other fields, expected {expected}")))
        }
    }

    fn subject(&self) -> Result<Option<proto::Subject>, Status> {
        Ok(Some(subject(self.signal, &format!("statements[{}].signal", self.index))?.to_proto()))
    }

    /// A moment to come, at most `days` from now.
    fn until(&self, field: &str, ms: u64, days: u64) -> Result<u64, Status> {
        let now = clock::now();
        // A block may be signed some moments later than this: that only makes the time shorter.
        if TimeMs(ms) > now && TimeMs(ms) <= now.plus(days * TimeMs::DAY_MS) {
            return Ok(ms);
        }
        let why = format!("is {ms}, expected a time within {days} days from now ({})", now.0);
        Err(bad_field(self.field(field), why))
    }

    /// A moment to come, or 0.
    fn maybe_until(&self, field: &str, ms: u64) -> Result<u64, Status> {
        let now = clock::now().0;
        let why = || bad_field(self.field(field), format!("{ms} lies in the past (now is {now})"));
        if ms == 0 || ms > now { Ok(ms) } else { Err(why()) }
    }

    /// What takes something back has no terms.
    fn no_terms(&self, has_none: bool) -> Result<(), Status> {
        let why = || bad_field(self.field(""), "takes something back, expected no other term beside that");
        if has_none { Ok(()) } else { Err(why()) }
    }

    fn code(&self, field: &str, table: &[(u32, &str)], name: &str) -> Result<u32, Status> {
        let unknown = || {
            let known: Vec<_> = table.iter().map(|(_, name)| *name).collect();
            bad_field(self.field(field), format!("{name:?} is unknown; known: {}", known.join(", ")))
        };
        if name.is_empty() { Ok(0) } else { record::code(table, name).ok_or_else(unknown) }
    }

    fn retract(&self, vote: &l::RetractVote) -> Result<Bytes, Status> {
        let reason = reason(&vote.reason, &self.field(".reason"))?;
        let said = proto::RetractVote { subject: self.subject()?, yes: vote.yes, reason };
        Ok(record::encode(proto::Kind::RetractVote, clock::random(), &said))
    }

    fn allow(&self, allow: &l::Certification) -> Result<Bytes, Status> {
        let expires_ms = if allow.yes {
            self.until(".expires_ms", allow.expires_ms, ALLOW_DAYS_MAX)?
        } else {
            self.no_terms(allow.expires_ms == 0 && allow.certificate == 0)?;
            0
        };
        let certificate = allow.certificate;
        let said = proto::Allow { subject: self.subject()?, yes: allow.yes, expires_ms, certificate };
        Ok(record::encode(proto::Kind::Allow, clock::random(), &said))
    }

    fn referral(&self, referral: &l::Referral) -> Result<Bytes, Status> {
        if !referral.open {
            self.no_terms(*referral == l::Referral::default())?;
        }
        let jurisdiction = match referral.jurisdiction.as_str() {
            "" => 0,
            name => record::jurisdiction_number(name).ok_or_else(|| {
                bad_field(self.field(".jurisdiction"), format!("got {name:?}, expected two capital letters, as in FR"))
            })?,
        };
        let said = proto::Referral {
            subject: self.subject()?,
            open: referral.open,
            authority: self.code(".authority", &record::AUTHORITIES, &referral.authority)?,
            jurisdiction,
            expires_ms: self.maybe_until(".deadline_ms", referral.deadline_ms)?,
        };
        Ok(record::encode(proto::Kind::Referral, clock::random(), &said))
    }

    fn incident(&self, notice: &l::IncidentNotice, class: Class) -> Result<Bytes, Status> {
        if class != Class::Urgent {
            let why = format!("is in the {} lane, expected the urgent one", class.name());
            return Err(bad_field(self.field(""), why));
        }
        if notice.id.len() != 16 {
            return Err(bad_field(self.field(".id"), format!("has {} bytes, expected 16", notice.id.len())));
        }
        let terms = (notice.label.as_str(), notice.level, notice.closes_ms);
        let (code, closes_ms) = if notice.open {
            let code = labels::said(self.taxonomy, &notice.label, &self.field(".label"))?;
            (code, self.until(".closes_ms", notice.closes_ms, INCIDENT_DAYS_MAX)?)
        } else {
            self.no_terms(terms == ("", 0, 0))?;
            (0, 0)
        };
        if notice.level > 4 {
            return Err(bad_field(self.field(".level"), format!("is {}, at most 4 is possible", notice.level)));
        }
        let said = proto::Incident { id: notice.id.clone(), code, level: notice.level, open: notice.open, closes_ms };
        Ok(record::encode(proto::Kind::Incident, clock::random(), &said))
    }

    fn resource(&self, resource: &l::Resource) -> Result<Bytes, Status> {
        if !record::is_resource_url(&resource.url) {
            let why = format!(
                "got {:?}, expected https, a host and a path, of at most {} bytes, without user, port, query or fragment",
                resource.url.chars().take(80).collect::<String>(),
                record::URL_SIZE_MAX
            );
            return Err(bad_field(self.field(".url"), why));
        }
        if resource.listed && resource.labels.is_empty() {
            return Err(bad_field(self.field(".labels"), "is empty, expected what it answers"));
        }
        if !resource.listed {
            let bare = l::Resource { url: resource.url.clone(), ..Default::default() };
            self.no_terms(*resource == bare)?;
        }
        for (field, len) in [(".labels", resource.labels.len()), (".languages", resource.languages.len())] {
            if len > TAGS_MAX {
                return Err(bad_field(self.field(field), format!("has {len} entries, at most {TAGS_MAX} are allowed")));
            }
        }
        if let Some(tag) = resource.languages.iter().find(|tag| !record::is_language(tag)) {
            return Err(bad_field(
                self.field(".languages"),
                format!("{tag:?} is not a BCP 47 tag such as en or pt-BR"),
            ));
        }
        if !resource.member.is_empty() {
            return Err(bad_field(self.field(".member"), "is set, expected nothing: it is our company's word"));
        }
        let numbers = resource.labels.iter().map(|label| labels::said(self.taxonomy, label, &self.field(".labels")));
        let mut labels = numbers.collect::<Result<Vec<_>, _>>()?;
        labels.sort_unstable();
        labels.dedup();
        let said = proto::Resource {
            url: resource.url.clone(),
            languages: resource.languages.clone(),
            labels,
            listed: resource.listed,
            expires_ms: self.maybe_until(".expires_ms", resource.expires_ms)?,
        };
        Ok(record::encode(proto::Kind::Resource, clock::random(), &said))
    }

    fn preserve(&self, preservation: &l::Preservation) -> Result<Bytes, Status> {
        let said = proto::Preserve {
            subject: self.subject()?,
            until_ms: self.until(".until_ms", preservation.until_ms, PRESERVE_DAYS_MAX)?,
            contact: self.code(".contact", &record::CONTACTS, &preservation.contact)?,
        };
        Ok(record::encode(proto::Kind::Preserve, clock::random(), &said))
    }

    fn outcome(&self, outcome: &l::Outcome) -> Result<Bytes, Status> {
        let now = clock::now().0;
        if outcome.result.is_empty() {
            return Err(bad_field(self.field(".result"), "is missing, expected what was done"));
        }
        if outcome.acted_ms == 0 || outcome.acted_ms > now {
            let why = format!("is {}, expected a time that is not later than now ({now})", outcome.acted_ms);
            return Err(bad_field(self.field(".acted_ms"), why));
        }
        let result = self.code(".result", &record::RESULTS, &outcome.result)?;
        let said = proto::Outcome { subject: self.subject()?, result, acted_ms: outcome.acted_ms };
        Ok(record::encode(proto::Kind::Outcome, clock::random(), &said))
    }
}

/// Refuses records that would be inert: the forum's level is too low for them, or our company lacks the role. The answer
/// names what is missing, and the founders' command that gives it.
///
/// # Errors
/// `PERMISSION_DENIED` with the reason ROLE.
pub(super) fn entitled(replica: &Replica, records: &[Bytes]) -> Result<(), Status> {
    let charter = replica.charters().effective();
    // Who is no member is told so by the replica.
    let Some(member) = charter.member(replica.me()) else { return Ok(()) };
    for record in records {
        let Parsed::Says(statement) = record::parse(record) else { continue };
        if statement.level() > charter.semantics {
            return Err(level_too_low(charter, statement.level()));
        }
        if let Some(needed) = admission::entitled(&statement)
            && !member.roles.has_any(needed)
        {
            return Err(role_missing(member, needed));
        }
    }
    Ok(())
}

fn level_too_low(charter: &Charter, needed: u32) -> Status {
    let what =
        format!("the forum is at semantics level {}, this kind of statement needs level {needed}", charter.semantics);
    let fix = format!("ask the founders: staydown charter set-semantics {needed}");
    refuse_with_fix(Code::PermissionDenied, "ROLE", what, fix)
}

fn role_missing(member: &Member, needed: Roles) -> Status {
    let names = needed.names();
    let ours = member.roles.names();
    let what =
        format!("this kind of statement needs the role {}; our company has {}", names.join(" or "), ours.join(", "));
    let first = names.first().copied().unwrap_or_default();
    // A referral unit has no other role but AUDITOR, and FULL replaces SMALL.
    let stays = |role: &&str| match (*role, first) {
        (role, "REFERRAL") => role == "AUDITOR",
        ("REFERRAL", _) | ("SMALL", "FULL") => false,
        _ => true,
    };
    let roles: Vec<_> = ours.iter().copied().filter(stays).chain([first]).collect();
    let fix = format!("ask the founders: staydown charter set-role {} --role {}", member.name, roles.join(","));
    refuse_with_fix(Code::PermissionDenied, "ROLE", what, fix)
}

/// What else a record says than what the view keeps of it.
pub(super) fn details(bytes: &Bytes, labels: &Taxonomy) -> Option<l::Details> {
    let record = proto::Record::decode(bytes.clone()).ok()?;
    match proto::Kind::try_from(i32::try_from(record.kind).ok()?).ok()? {
        proto::Kind::Opinion => {
            let opinion = proto::Opinion::decode(record.body).ok()?;
            Some(l::Details {
                labels: opinion.labels.iter().map(|label| labels.name(*label)).collect(),
                languages: opinion.languages,
                confidence: opinion.confidence,
                basis: record::code_name(&record::BASES, "basis", opinion.basis),
                review_ms: opinion.review_ms,
                incident_id: opinion.incident_id,
                item_id: opinion.item_id,
                quality: opinion.quality,
                ..Default::default()
            })
        }
        proto::Kind::Allow => {
            let certificate = proto::Allow::decode(record.body).ok()?.certificate;
            Some(l::Details { certificate, ..Default::default() })
        }
        proto::Kind::Referral => {
            let referral = proto::Referral::decode(record.body).ok()?;
            Some(l::Details {
                authority: record::code_name(&record::AUTHORITIES, "authority", referral.authority),
                jurisdiction: record::jurisdiction_name(referral.jurisdiction),
                ..Default::default()
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::testing::{FULL, SMALL, START, TestForum, id, opinion, retract};

    fn signal() -> Option<l::Signal> {
        Some(l::Signal { r#type: "md5".into(), value: "900150983cd24fb0d6963f7d28e17f72".into() })
    }

    fn in_days(days: u64) -> u64 {
        clock::now().0 + days * TimeMs::DAY_MS - 1
    }

    fn allow(days: u64) -> l::Statement {
        let allow = l::Certification { yes: true, expires_ms: in_days(days), certificate: 7 };
        l::Statement { signal: signal(), allow: Some(allow), ..Default::default() }
    }

    fn incident(days: u64) -> l::Statement {
        let notice = l::IncidentNotice {
            id: vec![1; 16].into(),
            label: "livestreamed-attack".into(),
            level: 4,
            open: true,
            closes_ms: in_days(days),
        };
        l::Statement { incident: Some(notice), ..Default::default() }
    }

    fn resource(url: &str) -> l::Statement {
        let resource =
            l::Resource { url: url.into(), labels: vec!["recruitment".into()], listed: true, ..Default::default() };
        l::Statement { resource: Some(resource), ..Default::default() }
    }

    fn referral(jurisdiction: &str) -> l::Statement {
        let referral = l::Referral {
            open: true,
            authority: "police".into(),
            jurisdiction: jurisdiction.into(),
            deadline_ms: in_days(1),
        };
        l::Statement { signal: signal(), referral: Some(referral), ..Default::default() }
    }

    fn preserve(days: u64) -> l::Statement {
        let preserve = l::Preservation { until_ms: in_days(days), contact: "legal-process".into() };
        l::Statement { signal: signal(), preserve: Some(preserve), ..Default::default() }
    }

    fn outcome(result: &str, acted_ms: u64) -> l::Statement {
        let outcome = l::Outcome { result: result.into(), acted_ms };
        l::Statement { signal: signal(), outcome: Some(outcome), ..Default::default() }
    }

    #[test]
    fn every_kind_of_statement_becomes_a_record_that_says_it() {
        for statement in [
            allow(ALLOW_DAYS_MAX),
            incident(INCIDENT_DAYS_MAX),
            resource("https://example.org/voices"),
            referral("FR"),
            preserve(PRESERVE_DAYS_MAX),
            outcome("removed", 1),
            l::Statement {
                signal: signal(),
                retract: Some(l::RetractVote { yes: true, reason: "mistake".into() }),
                ..Default::default()
            },
        ] {
            let made = record(&statement, 0, Class::Urgent, &Taxonomy::built_in()).unwrap().unwrap();
            assert!(matches!(record::parse(&made), Parsed::Says(_)), "{:?} of {statement:?}", record::parse(&made));
        }
        assert!(
            record(&l::Statement { signal: signal(), ..Default::default() }, 0, Class::Normal, &Taxonomy::built_in())
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn terms_out_of_range_are_refused_with_what_was_expected() {
        let with = |mut statement: l::Statement, change: fn(&mut l::Statement)| {
            change(&mut statement);
            statement
        };
        for (statement, expected) in [
            (allow(ALLOW_DAYS_MAX + 1), "within 400 days"),
            (with(allow(1), |s| s.allow.as_mut().unwrap().expires_ms = 0), "within 400 days"),
            (with(allow(1), |s| s.allow.as_mut().unwrap().yes = false), "takes something back"),
            (with(allow(1), |s| s.severity = 1), "stands beside other fields"),
            (with(allow(1), |s| s.retract = Some(l::RetractVote::default())), "stands beside other fields"),
            (with(allow(1), |s| s.signal = None), "signal: is missing"),
            (incident(INCIDENT_DAYS_MAX + 1), "within 30 days"),
            (with(incident(1), |s| s.incident.as_mut().unwrap().level = 5), "at most 4"),
            (with(incident(1), |s| s.incident.as_mut().unwrap().id = vec![1; 15].into()), "has 15 bytes, expected 16"),
            (
                with(incident(1), |s| s.incident.as_mut().unwrap().label = "propoganda".into()),
                "the nearest are propaganda, ",
            ),
            (with(incident(1), |s| s.signal = signal()), "stands beside other fields"),
            (resource("http://example.org"), "expected https"),
            (with(resource("https://example.org"), |s| s.resource.as_mut().unwrap().labels.clear()), "is empty"),
            (with(resource("https://example.org"), |s| s.resource.as_mut().unwrap().member = "x".into()), "is set"),
            (
                with(resource("https://example.org"), |s| {
                    s.resource.as_mut().unwrap().languages = vec!["call us".into()];
                }),
                "not a BCP 47 tag",
            ),
            (referral("France"), "two capital letters"),
            (with(referral("FR"), |s| s.referral.as_mut().unwrap().authority = "army".into()), "known: referral-unit"),
            (with(referral("FR"), |s| s.referral.as_mut().unwrap().deadline_ms = 1), "lies in the past"),
            (preserve(PRESERVE_DAYS_MAX + 1), "within 730 days"),
            (outcome("burnt", 1), "known: removed"),
            (outcome("", 1), "is missing"),
            (outcome("kept", in_days(1)), "not later than now"),
        ] {
            let why = record(&statement, 3, Class::Urgent, &Taxonomy::built_in()).unwrap_err();
            assert!(
                why.message().contains(expected) && why.message().starts_with("statements[3]."),
                "{}",
                why.message()
            );
        }
        let why = record(&incident(1), 0, Class::Normal, &Taxonomy::built_in()).unwrap_err();
        assert!(why.message().contains("expected the urgent one"), "{}", why.message());
    }

    #[test]
    fn a_missing_role_is_named_with_the_command_that_gives_it() {
        let roles = |bits| {
            let forum = TestForum::of(&[("a", bits)]);
            forum.charter().member(id(1)).unwrap().clone()
        };
        for (has, needed, expected) in [
            (FULL, Roles::CERTIFIER, "set-role member-1 --role FULL,CERTIFIER"),
            (SMALL, Roles::FULL, "set-role member-1 --role FULL"),
            (FULL, Roles::REFERRAL, "set-role member-1 --role REFERRAL"),
            (8, Roles::FULL.and(Roles::SMALL), "set-role member-1 --role FULL"),
        ] {
            let status = role_missing(&roles(has), needed);
            let fix = tonic_types::StatusExt::get_details_error_info(&status).unwrap().metadata["fix"].clone();
            assert!(fix.ends_with(expected), "{fix}");
        }
        assert!(
            role_missing(&roles(FULL), Roles::CERTIFIER).message().contains("the role CERTIFIER; our company has FULL")
        );
    }

    #[test]
    fn details_are_what_the_record_says_and_nothing_of_other_kinds() {
        let details = |bytes: &Bytes| details(bytes, &Taxonomy::built_in());
        assert_eq!(details(&opinion(1, 1)).unwrap().confidence, 0);
        assert!(details(&retract(1, true)).is_none() && details(&Bytes::from_static(b"x")).is_none());
        assert!(clock::now() > START);
    }
}
