//! One entry: what it is, who said what and when, whether it verifies, what is near to it, and what our company may do.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use serde::Deserialize;
use tonic::{Code, Status};

use super::form::Fields;
use super::page::{self, Nav, Page, Said, Tone, Visitor, see_other};
use super::pieces::{Html, count, counted, entry_path, short};
use crate::access::Caller;
use crate::clock;
use crate::evidence::export::RECORDS_MAX;
use crate::evidence::format::{Claim, Counts, Evidence, Kind, Writer};
use crate::net::status::{bad_field, refuse};
use crate::replica::ids::{TimeMs, hex};
use crate::replica::record::{self, ALLOW_DAYS_MAX};
use crate::replica::signal::PDQ_DISTANCE_MAX;
use crate::web::{Problem, Web};
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// Entries near to this one that are shown.
const NEAR_MAX: usize = 20;
/// Types that are compared by distance; of the others only the very same match.
const COMPARED: [&str; 3] = ["pdq", "tlsh", "vpdq"];
/// Bytes of the evidence that one page checks, or one download has: charters are some KiB each, records less.
const EVIDENCE_BYTES_MAX: usize = 32 << 20;

#[derive(Template)]
#[template(path = "entry.html")]
struct Shown {
    page: Page,
    path: String,
    signal: l::Signal,
    entry: l::Entry,
    events: Vec<Event>,
    near: Vec<l::Match>,
    ours: Ours,
    labels: Vec<String>,
    reasons: Vec<&'static str>,
    results: Vec<&'static str>,
    contacts: Vec<&'static str>,
    bases: Vec<&'static str>,
    authorities: Vec<&'static str>,
    allow_days: u64,
}

impl Shown {
    /// What the status means, in a few words.
    fn meaning(&self) -> &'static str {
        match self.entry.status.as_str() {
            "ACTIVE" => "matches at every member",
            "PROVISIONAL" => "matches, but only small members stand behind it",
            "CONTESTED" => "matches for review: members disagree",
            "REFERRED" => "a referral only: a request to look at it",
            "ALLOWED" => "certified: no machine acts on it",
            "RETRACTED" => "ended for everybody by the members' votes",
            "ERASED" => "erased by order",
            "INACTIVE" => "matches nowhere: nobody stands behind it",
            _ => "",
        }
    }

    fn checked_text(&self) -> String {
        let sound = self.entry.said.iter().filter(|said| said.verified).count() as u64;
        match self.entry.said.len() as u64 {
            0 => String::new(),
            all if all == sound => {
                format!("{} checked just now, each with its author's key", counted(all, "signature"))
            }
            all => format!("only {} of {} hold", count(sound), counted(all, "signature")),
        }
    }

    /// Whether something can be near to it, and not the same.
    fn comparable(&self) -> bool {
        COMPARED.contains(&self.signal.r#type.as_str())
    }

    /// A key of this form: a second click says nothing twice.
    fn key_field(&self) -> Html {
        Html::field("key", &hex(&clock::random::<16>()))
    }

    fn hex(&self, bytes: &[u8]) -> String {
        hex(bytes)
    }

    fn warn(&self) -> Tone {
        Tone::Warn
    }

    fn note(&self) -> Tone {
        Tone::Note
    }
}

/// What our own company says of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ours {
    /// SUBMIT, ENDORSE or DISPUTE; empty: nothing.
    stance: String,
    retract: bool,
    allow: bool,
    referral: bool,
}

impl Ours {
    fn of(entry: &l::Entry, me: &[u8]) -> Self {
        let mine = || entry.said.iter().filter(|said| said.member_id == me).map(|said| said.what.as_str());
        let has = |what: &str| mine().any(|said| said == what);
        let stance = mine().find(|what| ["SUBMIT", "ENDORSE", "DISPUTE"].contains(what));
        Self {
            stance: stance.unwrap_or_default().to_owned(),
            retract: has("RETRACT"),
            allow: has("ALLOW"),
            referral: has("REFERRAL"),
        }
    }
}

/// A word on the timeline.
struct Event {
    class: String,
    verb: &'static str,
    said: l::Said,
    place: String,
    receipt: String,
    facts: Vec<(&'static str, String)>,
    until_ms: u64,
}

/// `GET /entry/{type}/{value}`.
pub(super) async fn show(
    State(web): State<Web>,
    visitor: Visitor,
    Path((type_name, value)): Path<(String, String)>,
    Query(said): Query<Said>,
) -> Result<Response, Problem> {
    let signal = l::Signal { r#type: type_name, value };
    let entry = known(&web, visitor.caller(), &signal).await?;
    let signal = entry.signal.clone().unwrap_or(signal);
    let title = format!("{} {}", signal.r#type, short(&signal.value));
    let page = Page::new(&web, &visitor, title, Nav::Entry, &said).await?;
    let status = web.service.status(web.ask(visitor.caller(), l::StatusRequest {})).await?.into_inner();
    let path = entry_path(&signal.r#type, &signal.value);
    let names = |table: &[(u32, &'static str)]| table.iter().map(|(_, name)| *name).collect::<Vec<_>>();
    page::html(&Shown {
        events: entry.said.iter().map(|said| event(said, &path)).collect(),
        near: near(&web, visitor.caller(), &signal).await?,
        ours: Ours::of(&entry, &status.member_id),
        labels: super::list::labels(&web, visitor.caller()).await?,
        reasons: record::REASONS.iter().map(|(_, name)| *name).collect(),
        results: names(&record::RESULTS),
        contacts: names(&record::CONTACTS),
        bases: names(&record::BASES),
        authorities: names(&record::AUTHORITIES),
        allow_days: ALLOW_DAYS_MAX,
        page,
        path,
        signal,
        entry,
    })
}

/// The entry. Of what nobody has spoken yet there is an empty one: it may be certified or referred all the same.
async fn known(web: &Web, caller: &Caller, signal: &l::Signal) -> Result<l::Entry, Status> {
    let request = l::GetEntryRequest { signal: Some(signal.clone()), receipts: false, verify: true };
    match web.service.get_entry(web.ask(caller, request)).await {
        Ok(answer) => Ok(answer.into_inner().entry.unwrap_or_default()),
        Err(status) if status.code() == Code::NotFound => {
            Ok(l::Entry { signal: Some(signal.clone()), status: "INACTIVE".into(), ..Default::default() })
        }
        Err(status) => Err(status),
    }
}

fn event(said: &l::Said, path: &str) -> Event {
    let member = hex(&said.member_id);
    Event {
        class: format!("said-{}", class(&said.what)),
        verb: verb(&said.what),
        place: format!("log {}, block {}, record {}", said.log_no, said.seq, said.index),
        receipt: format!(
            "{path}/receipt.sde?member={member}&log={}&seq={}&index={}",
            said.log_no, said.seq, said.index
        ),
        facts: said.details.as_ref().map(facts).unwrap_or_default(),
        until_ms: said.expires_ms,
        said: said.clone(),
    }
}

fn class(what: &str) -> &'static str {
    match what {
        "SUBMIT" => "submit",
        "ENDORSE" => "endorse",
        "DISPUTE" => "dispute",
        "RETRACT" => "retract",
        "ALLOW" => "allow",
        "REFERRAL" => "referral",
        _ => "neutral",
    }
}

fn verb(what: &str) -> &'static str {
    match what {
        "SUBMIT" => "submitted it",
        "ENDORSE" => "endorsed it",
        "DISPUTE" => "disputed it",
        "NEUTRAL" => "withdrew its word",
        "RETRACT" => "voted to end it for everybody",
        "KEEP" => "took its vote back",
        "ALLOW" => "certified it",
        "ALLOW_ENDED" => "ended its certificate",
        "REFERRAL" => "referred it",
        "REFERRAL_CLOSED" => "closed its referral",
        _ => "spoke of it",
    }
}

/// What else a record says, as far as it says anything.
fn facts(details: &l::Details) -> Vec<(&'static str, String)> {
    let number = |n: u32| if n > 0 { n.to_string() } else { String::new() };
    let all = [
        ("labels", details.labels.join(", ")),
        ("languages", details.languages.join(", ")),
        ("rests on", details.basis.clone()),
        ("confidence", if details.confidence > 0 { format!("{} %", details.confidence) } else { String::new() }),
        ("incident", hex(&details.incident_id)),
        ("item", hex(&details.item_id)),
        ("picture quality", number(details.quality)),
        ("certificate", number(details.certificate)),
        ("authority", details.authority.clone()),
        ("jurisdiction", details.jurisdiction.clone()),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// What is listed near to it, the nearest first.
async fn near(web: &Web, caller: &Caller, signal: &l::Signal) -> Result<Vec<l::Match>, Status> {
    if !COMPARED.contains(&signal.r#type.as_str()) {
        return Ok(Vec::new());
    }
    let request = l::LookupRequest {
        signals: vec![signal.clone()],
        distance_max: Some(PDQ_DISTANCE_MAX),
        browsing: true,
        ..Default::default()
    };
    let answer = web.service.lookup(web.ask(caller, request)).await?.into_inner();
    let other = |found: &l::Match| found.entry.as_ref().is_some_and(|entry| entry.signal.as_ref() != Some(signal));
    Ok(answer.matches.into_iter().filter(other).take(NEAR_MAX).collect())
}

fn records(entry: &l::Entry) -> Vec<l::GetRecordRequest> {
    let of = |said: &l::Said| l::GetRecordRequest {
        member_id: said.member_id.clone(),
        log_no: said.log_no,
        seq: said.seq,
        index: said.index,
    };
    entry.said.iter().take(RECORDS_MAX).map(of).collect()
}

/// A receipt (`.sde`, docs/verify.md) of these records.
async fn evidence(web: &Web, caller: &Caller, records: Vec<l::GetRecordRequest>) -> Result<Vec<u8>, Status> {
    let failed = |error: std::io::Error| refuse(Code::Internal, "BUG", error.to_string());
    let request = l::ExportEvidenceRequest { records };
    let mut pieces = web.service.export_evidence(web.ask(caller, request)).await?.into_inner();
    let mut writer = Writer::begin(Vec::new(), Evidence::Receipt).map_err(failed)?;
    let mut counts = Counts::default();
    while let Some(piece) = pieces.next().await.transpose()? {
        let Some(kind) = u8::try_from(piece.kind).ok().and_then(Kind::from_letter) else { continue };
        if writer.written().len() + piece.item.len() > EVIDENCE_BYTES_MAX {
            let why = format!("the evidence has more than {EVIDENCE_BYTES_MAX} bytes: use staydown receipt");
            return Err(refuse(Code::ResourceExhausted, "TOO_LARGE", why));
        }
        counts.add(kind);
        writer.item(kind, &piece.item).map_err(failed)?;
    }
    writer.end(&Claim { counts, ..Claim::default() }).map_err(failed)
}

/// One record by its place; without one all that stand on the entry.
#[derive(Debug, Deserialize)]
pub(super) struct RecordAsked {
    member: Option<String>,
    #[serde(default)]
    log: u32,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    index: u32,
}

/// `GET /entry/{type}/{value}/receipt.sde`: for a court, or for `staydown verify`.
pub(super) async fn receipt(
    State(web): State<Web>,
    visitor: Visitor,
    Path((type_name, value)): Path<(String, String)>,
    Query(asked): Query<RecordAsked>,
) -> Result<Response, Problem> {
    let signal = l::Signal { r#type: type_name, value };
    let entry = known(&web, visitor.caller(), &signal).await?;
    let mut records = records(&entry);
    if let Some(member) = asked.member {
        records.retain(|r| {
            hex(&r.member_id) == member && (r.log_no, r.seq, r.index) == (asked.log, asked.seq, asked.index)
        });
    }
    if records.is_empty() {
        return Err(refuse(Code::NotFound, "NOT_FOUND", "no such record stands on this entry").into());
    }
    let bytes = evidence(&web, visitor.caller(), records).await?;
    let name = file_name(&entry.signal.unwrap_or_default());
    let disposition = format!("attachment; filename=\"{name}\"");
    Ok(([(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_DISPOSITION, disposition)], bytes)
        .into_response())
}

/// Letters and digits only: it stands in a header.
fn file_name(signal: &l::Signal) -> String {
    let plain =
        |text: &str, most: usize| -> String { text.chars().filter(char::is_ascii_alphanumeric).take(most).collect() };
    format!("receipt-{}-{}.sde", plain(&signal.r#type, 8), plain(&signal.value, 16))
}

/// `POST /entry/{type}/{value}`: one signed statement of our company.
pub(super) async fn say(
    State(web): State<Web>,
    visitor: Visitor,
    Path((type_name, value)): Path<(String, String)>,
    fields: Fields,
) -> Result<Response, Problem> {
    let signal = l::Signal { r#type: type_name, value };
    let entry = known(&web, visitor.caller(), &signal).await?;
    let (statement, said) = statement(&entry, &fields, clock::now())?;
    let path = entry_path(&signal.r#type, &signal.value);
    // Beside what is no opinion nothing else stands, not even a key: said twice it is the same word.
    let client_key = if statement.stance() == l::Stance::Unspecified { bytes::Bytes::new() } else { key(&fields) };
    let statement = l::Statement { signal: Some(signal), client_key, ..statement };
    let request = l::SubmitRequest { statements: vec![statement], ..Default::default() };
    let answer = web.service.submit(web.ask(visitor.caller(), request)).await?.into_inner();
    web.hub().lately.forget().await;
    Ok(see_other(&path, if answer.state() == l::SubmitState::Queued { "queued" } else { said }))
}

/// The form's own key, so that a second click says nothing twice; a new one where it has none.
fn key(fields: &Fields) -> bytes::Bytes {
    let given = data_encoding::HEXLOWER.decode(fields.one("key").as_bytes()).ok().filter(|key| key.len() == 16);
    given.unwrap_or_else(|| clock::random::<16>().to_vec()).into()
}

/// What a form of this page means, and the message for it.
///
/// # Errors
/// The field that is wrong.
fn statement(entry: &l::Entry, fields: &Fields, now: TimeMs) -> Result<(l::Statement, &'static str), Status> {
    let plain = l::Statement::default();
    let reason = fields.one("reason").to_owned();
    Ok(match fields.one("do") {
        "endorse" => {
            let own = fields.all("label");
            let labels = if own.is_empty() { entry.labels.clone() } else { own };
            (l::Statement { labels, ..opinion(l::Stance::Endorse, fields, now)? }, "endorsed")
        }
        "dispute" => {
            if reason.is_empty() {
                return Err(bad_field("reason", "is empty: say why, so that the other members can judge"));
            }
            (l::Statement { reason, ..opinion(l::Stance::Dispute, fields, now)? }, "disputed")
        }
        "withdraw" => (l::Statement { reason, ..opinion(l::Stance::Neutral, fields, now)? }, "withdrawn"),
        "vote" => (l::Statement { retract: Some(l::RetractVote { yes: true, reason }), ..plain }, "voted"),
        "vote-back" => (l::Statement { retract: Some(l::RetractVote { yes: false, reason }), ..plain }, "vote-back"),
        "certify" => {
            let expires_ms = fields.moment("expires", now)?;
            let certificate = fields.number("certificate")?;
            (
                l::Statement { allow: Some(l::Certification { yes: true, expires_ms, certificate }), ..plain },
                "certified",
            )
        }
        "certificate-back" => (l::Statement { allow: Some(l::Certification::default()), ..plain }, "certificate-back"),
        "preserve" => {
            let (until_ms, contact) = (fields.moment("until", now)?, fields.one("contact").to_owned());
            (l::Statement { preserve: Some(l::Preservation { until_ms, contact }), ..plain }, "preserved")
        }
        "outcome" => {
            let outcome = l::Outcome { result: fields.one("result").to_owned(), acted_ms: now.0 };
            (l::Statement { outcome: Some(outcome), ..plain }, "outcome")
        }
        "refer" => {
            let referral = l::Referral {
                open: true,
                authority: fields.one("authority").to_owned(),
                jurisdiction: fields.one("jurisdiction").to_ascii_uppercase(),
                deadline_ms: fields.moment("deadline", now)?,
            };
            (l::Statement { referral: Some(referral), ..plain }, "referred")
        }
        "refer-close" => (l::Statement { referral: Some(l::Referral::default()), ..plain }, "referral-closed"),
        other => return Err(bad_field("do", format!("{other:?} is nothing that can be done here"))),
    })
}

fn opinion(stance: l::Stance, fields: &Fields, now: TimeMs) -> Result<l::Statement, Status> {
    Ok(l::Statement {
        stance: stance as i32,
        basis: record::code(&record::BASES, fields.one("basis")).unwrap_or(0),
        confidence: fields.number("confidence")?,
        expires_ms: fields.moment("expires", now)?,
        review_ms: fields.moment("review", now)?,
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;
    use crate::web::console::page::tests::{HOSTILE, assert_harmless, sample};

    const NOW: TimeMs = TimeMs(1_795_000_000_000);

    fn fields(text: &str) -> Fields {
        Fields::parse(text.as_bytes()).unwrap()
    }

    fn shown(role: Role) -> String {
        let hostile = || HOSTILE.to_owned();
        let word = |what: &str| l::Said {
            member: hostile(),
            group: hostile(),
            jurisdictions: vec![hostile()],
            what: what.into(),
            reason: hostile(),
            expires_ms: NOW.0,
            details: Some(l::Details { labels: vec![hostile()], languages: vec![hostile()], ..Default::default() }),
            ..Default::default()
        };
        let signal = l::Signal { r#type: "pdq".into(), value: hostile() };
        let entry = l::Entry {
            signal: Some(signal.clone()),
            status: hostile(),
            labels: vec![hostile()],
            languages: vec![hostile()],
            said: vec![word("SUBMIT"), word("DISPUTE")],
            resources: vec![l::Resource { url: hostile(), member: hostile(), ..Default::default() }],
            incidents: vec![l::EntryIncident { labels: vec![hostile()], ..Default::default() }],
            preserved: vec![l::Kept { member: hostile(), contact: hostile(), ..Default::default() }],
            outcomes: vec![l::Done { member: hostile(), result: hostile(), ..Default::default() }],
            allow_conflict: true,
            ..Default::default()
        };
        let path = entry_path("pdq", HOSTILE);
        let shown = Shown {
            events: entry.said.iter().map(|said| event(said, &path)).collect(),
            near: vec![l::Match { entry: Some(entry.clone()), ..Default::default() }],
            ours: Ours { stance: "SUBMIT".into(), ..Ours::default() },
            labels: vec![hostile()],
            reasons: vec!["mistake"],
            results: vec!["removed"],
            contacts: vec!["legal-process"],
            bases: vec!["automated"],
            authorities: vec!["court"],
            allow_days: ALLOW_DAYS_MAX,
            page: sample(role),
            path,
            signal,
            entry,
        };
        shown.render().unwrap()
    }

    #[test]
    fn what_members_write_stays_text() {
        assert_harmless(&shown(Role::Admin));
    }

    #[test]
    fn who_may_not_has_no_form_for_it() {
        let own = |role| shown(role).matches("CSRF-OF-THIS-SESSION\">").count();
        let actions = |role: Role| shown(role).matches("name=\"do\"").count();
        assert_eq!((actions(Role::Viewer), actions(Role::Reviewer), actions(Role::Admin)), (0, 7, 7));
        assert_eq!(own(Role::Viewer), 1, "only to sign out");
    }

    #[test]
    fn each_form_is_the_statement_that_it_says() {
        let entry = l::Entry { labels: vec!["a".into()], ..Default::default() };
        let of = |text: &str| statement(&entry, &fields(text), NOW);
        let (endorsed, _) = of("do=endorse").unwrap();
        assert_eq!((endorsed.stance(), endorsed.labels), (l::Stance::Endorse, vec!["a".to_owned()]));
        assert_eq!(of("do=endorse&label=b").unwrap().0.labels, ["b"]);
        assert_eq!(of("do=dispute&reason=mistake").unwrap().0.reason, "mistake");
        assert!(of("do=dispute").is_err(), "a dispute has a reason");
        assert_eq!(of("do=withdraw").unwrap().0.stance(), l::Stance::Neutral);
        assert!(of("do=vote").unwrap().0.retract.unwrap().yes && !of("do=vote-back").unwrap().0.retract.unwrap().yes);
        let allow = of("do=certify&expires=90d").unwrap().0.allow.unwrap();
        assert_eq!((allow.yes, allow.expires_ms), (true, NOW.0 + 90 * TimeMs::DAY_MS));
        assert_eq!(
            of("do=preserve&until=30d&contact=legal-process").unwrap().0.preserve.unwrap().contact,
            "legal-process"
        );
        assert_eq!(of("do=outcome&result=removed").unwrap().0.outcome.unwrap().acted_ms, NOW.0);
        assert_eq!(of("do=refer&jurisdiction=fr").unwrap().0.referral.unwrap().jurisdiction, "FR");
        assert!(of("do=erase").is_err() && of("").is_err());
    }

    #[test]
    fn our_own_words_are_told_from_others() {
        let said = |member: u8, what: &str| l::Said {
            member_id: vec![member].into(),
            what: what.into(),
            ..Default::default()
        };
        let entry =
            l::Entry { said: vec![said(1, "DISPUTE"), said(2, "SUBMIT"), said(2, "RETRACT")], ..Default::default() };
        let ours = Ours { stance: "SUBMIT".into(), retract: true, allow: false, referral: false };
        assert_eq!((Ours::of(&entry, &[2]), Ours::of(&entry, &[3])), (ours, Ours::default()));
    }

    #[test]
    fn a_downloads_name_holds_nothing_that_a_header_means() {
        let signal = l::Signal { r#type: "a\"b\r\n".into(), value: "../\u{e9}\";x".into() };
        assert_eq!(file_name(&signal), "receipt-ab-x.sde");
    }

    #[test]
    fn a_second_click_has_the_same_key() {
        let form = fields(&format!("key={}", "ab".repeat(16)));
        assert_eq!(key(&form), key(&form));
        assert_ne!(key(&fields("key=zz")), key(&fields("key=zz")));
    }
}
