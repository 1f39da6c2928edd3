//! The list: search by hash, web address, label or member; filters that stand in the address; exports.

use std::collections::VecDeque;

use askama::Template;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Redirect, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

use super::page::{self, Nav, Page, Said, Visitor};
use super::pieces::{Pager, encoded};
use crate::access::Caller;
use crate::answers;
use crate::net::local::PAGE_MAX;
use crate::net::status::{bad_field, refuse};
use crate::replica::signal::{self, Alg, PDQ_DISTANCE_MAX};
use crate::report::csv;
use crate::report::time;
use crate::web::{Problem, Web};
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// Entries of one page of the list: some screens, and not more than a phone draws at once.
const SHOWN: u32 = 50;
/// Characters of what is searched for: the longest hash that people paste, a video's, goes through the submit page.
const SOUGHT_CHARS_MAX: usize = 2_048;
/// What an entry may be called, as the filter offers it.
const STATUSES: [&str; 8] =
    ["ACTIVE", "PROVISIONAL", "CONTESTED", "REFERRED", "ALLOWED", "RETRACTED", "ERASED", "INACTIVE"];

/// What is asked for, as it stands in the address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    /// A hash, a web address, an account, or the name of a label or a member.
    #[serde(skip_serializing_if = "String::is_empty")]
    q: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    r#type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    label: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    member: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    language: String,
    /// How far a picture may be from the hash in `q`.
    #[serde(skip_serializing_if = "String::is_empty")]
    near: String,
    /// First seen on this date or later.
    #[serde(skip_serializing_if = "String::is_empty")]
    since: String,
    /// The page: what the one before ended with.
    #[serde(skip_serializing_if = "String::is_empty")]
    after: String,
}

impl Filter {
    /// `type=pdq&label=...`, in a fixed order.
    fn query(&self) -> String {
        let fields = [
            ("q", &self.q),
            ("type", &self.r#type),
            ("status", &self.status),
            ("label", &self.label),
            ("member", &self.member),
            ("language", &self.language),
            ("near", &self.near),
            ("since", &self.since),
            ("after", &self.after),
        ];
        let given = fields.iter().filter(|(_, value)| !value.is_empty());
        given.map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
    }

    fn path(&self) -> String {
        match self.query().as_str() {
            "" => "/list".to_owned(),
            query => format!("/list?{query}"),
        }
    }

    fn trimmed(mut self) -> Self {
        let fields = [&mut self.q, &mut self.r#type, &mut self.status, &mut self.label, &mut self.member];
        let fields = fields.into_iter().chain([&mut self.language, &mut self.near, &mut self.since, &mut self.after]);
        fields.for_each(|field| *field = field.trim().to_owned());
        self
    }

    /// As the node takes it.
    ///
    /// # Errors
    /// A date that is none.
    fn request(&self, page_size: u32) -> Result<l::ListEntriesRequest, Status> {
        let since = match self.since.as_str() {
            "" => 0,
            text => time::parse(text).map_err(|why| bad_field("since", why))?.0,
        };
        Ok(l::ListEntriesRequest {
            page_size,
            page_token: self.after.clone(),
            r#type: self.r#type.clone(),
            status: self.status.clone(),
            label: self.label.clone(),
            member: self.member.clone(),
            include_inactive: false,
            language: self.language.clone(),
            since_ms: since,
        })
    }

    /// How far a picture may be from the one that is sought: 0 to 31, all of it if nothing is said.
    ///
    /// # Errors
    /// It is no such number.
    fn distance(&self) -> Result<u32, Status> {
        match self.near.as_str() {
            "" => Ok(PDQ_DISTANCE_MAX),
            text => text
                .parse()
                .ok()
                .filter(|near| *near <= PDQ_DISTANCE_MAX)
                .ok_or_else(|| bad_field("near", format!("is {text:?}, expected 0 to {PDQ_DISTANCE_MAX}"))),
        }
    }
}

/// What a search is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sought {
    /// The whole list, through the filters.
    Nothing,
    /// These signals: 64 digits are a picture's hash or a file's, and both are meant.
    Signals(Vec<l::Signal>),
    /// Words: a label or a member.
    Words(String),
}

impl Sought {
    pub(super) fn of(text: &str) -> Self {
        let signal = |name: &str, value: &str| l::Signal { r#type: name.into(), value: value.into() };
        if text.is_empty() {
            return Self::Nothing;
        }
        if let Ok(Some(_address)) = signal::address_in_clear("", text) {
            let value = text.strip_prefix("url:").unwrap_or(text);
            return Self::Signals(vec![signal(Alg::Url.name(), value)]);
        }
        match signal::parse_any(text) {
            Ok(subject) => Self::Signals(vec![signal(&subject.type_name(), &subject.value())]),
            Err(signal::SignalError::Ambiguous) => {
                let either = [Alg::Pdq, Alg::Sha256].into_iter().filter_map(|alg| signal::parse(alg.name(), text).ok());
                Self::Signals(either.map(|subject| signal(&subject.type_name(), &subject.value())).collect())
            }
            Err(signal::SignalError::NoPseudonym) => {
                let account = text.split_once(':').map_or(text, |(_, account)| account);
                Self::Signals(vec![signal(Alg::Account.name(), account)])
            }
            Err(_) => Self::Words(text.to_owned()),
        }
    }
}

/// One line of the list.
struct Row {
    entry: l::Entry,
    /// From what was sought; none where nothing was.
    distance: Option<u32>,
}

#[derive(Template)]
#[template(path = "list.html")]
struct List {
    page: Page,
    filter: Filter,
    rows: Vec<Row>,
    /// Of a lookup: what our policy makes of it, and by which rule.
    verdict: Option<(String, String)>,
    /// Why nothing could be searched for.
    unknown: Option<String>,
    pager: Pager,
    labels: Vec<String>,
    members: Vec<String>,
    types: Vec<&'static str>,
    statuses: [&'static str; 8],
}

impl List {
    fn is(&self, field: impl AsRef<str>, value: impl AsRef<str>) -> bool {
        field.as_ref() == value.as_ref()
    }

    fn filtered(&self) -> bool {
        self.filter != Filter::default()
    }

    /// Of an export: the filters without the page.
    fn export_query(&self, format: &str) -> String {
        let query = Filter { q: String::new(), after: String::new(), ..self.filter.clone() }.query();
        if query.is_empty() { format!("format={format}") } else { format!("{query}&format={format}") }
    }
}

/// `GET /list`.
pub(super) async fn show(
    State(web): State<Web>,
    visitor: Visitor,
    Query(filter): Query<Filter>,
    Query(said): Query<Said>,
) -> Result<Response, Problem> {
    let filter = filter.trimmed();
    if filter.q.chars().count() > SOUGHT_CHARS_MAX {
        let why = format!("has {} characters, at most {SOUGHT_CHARS_MAX} are possible", filter.q.chars().count());
        return Err(bad_field("q", why).into());
    }
    let (labels, members) = (labels(&web, visitor.caller()).await?, members(&web, visitor.caller()).await?);
    if let Sought::Words(words) = Sought::of(&filter.q)
        && let Some(found) = by_name(&filter, &words, &labels, &members)
    {
        return Ok(Redirect::to(&found.path()).into_response());
    }
    let page = Page::new(&web, &visitor, "List", Nav::List, &said).await?;
    let types = Alg::SUPPORTED.iter().chain([&Alg::Account]).map(|alg| alg.name()).collect();
    let list = List {
        page,
        rows: Vec::new(),
        verdict: None,
        unknown: None,
        pager: Pager { thing: "entry", ..Pager::default() },
        labels,
        members,
        types,
        statuses: STATUSES,
        filter,
    };
    page::html(&filled(list, &web, visitor.caller()).await?)
}

async fn filled(mut list: List, web: &Web, caller: &Caller) -> Result<List, Problem> {
    match Sought::of(&list.filter.q) {
        Sought::Signals(signals) => {
            let distance = list.filter.distance()?;
            let answer = found(web, caller, signals, distance).await?;
            list.verdict = Some((verdict(answer.verdict()).to_owned(), answer.rule));
            let row = |found: l::Match| Some(Row { entry: found.entry?, distance: Some(found.distance) });
            list.rows = answer.matches.into_iter().filter_map(row).collect();
            list.pager.shown = list.rows.len() as u64;
        }
        Sought::Words(words) => list.unknown = Some(words),
        Sought::Nothing => {
            let request = list.filter.request(SHOWN)?;
            let answer = web.service.list_entries(web.ask(caller, request)).await?.into_inner();
            list.pager = pager(&list.filter, &answer);
            list.rows = answer.entries.into_iter().map(|entry| Row { entry, distance: None }).collect();
        }
    }
    Ok(list)
}

fn pager(filter: &Filter, answer: &l::ListEntriesResponse) -> Pager {
    let at = |after: &str| Filter { after: after.to_owned(), ..filter.clone() }.path();
    Pager {
        first: (!filter.after.is_empty()).then(|| at("")),
        next: (!answer.next_page_token.is_empty()).then(|| at(&answer.next_page_token)),
        shown: answer.entries.len() as u64,
        thing: "entry",
    }
}

/// A lookup; what matches no more (withdrawn, retracted) is found by its exact hash all the same.
///
/// # Errors
/// What the node refuses.
async fn found(
    web: &Web,
    caller: &Caller,
    signals: Vec<l::Signal>,
    distance: u32,
) -> Result<l::LookupResponse, Status> {
    let request = l::LookupRequest {
        signals: signals.clone(),
        distance_max: Some(distance),
        browsing: true,
        ..Default::default()
    };
    let mut answer = web.service.lookup(web.ask(caller, request)).await?.into_inner();
    for signal in signals {
        let request = l::GetEntryRequest { signal: Some(signal), receipts: false, verify: false };
        let exact = match web.service.get_entry(web.ask(caller, request)).await {
            Ok(exact) => exact.into_inner().entry,
            Err(status) if matches!(status.code(), Code::NotFound | Code::InvalidArgument) => None,
            Err(status) => return Err(status),
        };
        let known = |entry: &l::Entry| {
            answer.matches.iter().any(|found| found.entry.as_ref().is_some_and(|e| e.subject_id == entry.subject_id))
        };
        if let Some(entry) = exact.filter(|entry| !known(entry)) {
            answer.matches.insert(0, l::Match { entry: Some(entry), ..Default::default() });
        }
    }
    Ok(answer)
}

/// The filter that words mean: a label, also by a part that only one label has, or a member.
fn by_name(filter: &Filter, words: &str, labels: &[String], members: &[String]) -> Option<Filter> {
    let rest = Filter { q: String::new(), after: String::new(), ..filter.clone() };
    let same = |name: &&String| name.eq_ignore_ascii_case(words);
    if let Some(label) = labels.iter().find(same) {
        return Some(Filter { label: label.clone(), ..rest });
    }
    if let Some(member) = members.iter().find(same) {
        return Some(Filter { member: member.clone(), ..rest });
    }
    let lower = words.to_lowercase();
    let mut alike = labels.iter().filter(|label| label.to_lowercase().contains(&lower));
    match (alike.next(), alike.next()) {
        (Some(label), None) => Some(Filter { label: label.clone(), ..rest }),
        _ => None,
    }
}

/// Name of a verdict.
pub(super) fn verdict(verdict: l::Verdict) -> &'static str {
    match verdict {
        l::Verdict::Unspecified => "UNKNOWN",
        l::Verdict::Allow => "ALLOW",
        l::Verdict::Review => "REVIEW",
        l::Verdict::Block => "BLOCK",
    }
}

/// The labels that may be said, by number.
///
/// # Errors
/// What the node refuses.
pub(super) async fn labels(web: &Web, caller: &Caller) -> Result<Vec<String>, Status> {
    let answer = web.service.get_taxonomy(web.ask(caller, l::GetTaxonomyRequest {})).await?.into_inner();
    Ok(answer.labels.into_iter().filter(|label| !label.retired).map(|label| label.name).collect())
}

/// The names of the members that have logs or are peers, and our own.
///
/// # Errors
/// What the node refuses.
pub(super) async fn members(web: &Web, caller: &Caller) -> Result<Vec<String>, Status> {
    let status = web.service.status(web.ask(caller, l::StatusRequest {})).await?.into_inner();
    let peers = web.service.list_peers(web.ask(caller, l::ListPeersRequest {})).await?.into_inner();
    let heads = status.heads.into_iter().map(|head| head.member);
    let all = heads.chain(peers.peers.into_iter().map(|peer| peer.member)).chain([status.member]);
    let mut all: Vec<_> = all.filter(|name| !name.is_empty()).collect();
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// What an export is written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// A table.
    #[default]
    Csv,
    /// One JSON value a line, as `staydown list search --json` writes them.
    Json,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Export {
    #[serde(default)]
    format: Format,
}

/// `GET /list/export`: all that the filters let through, page by page, as fast as it is taken.
pub(super) async fn export(
    State(web): State<Web>,
    visitor: Visitor,
    Query(filter): Query<Filter>,
    Query(Export { format }): Query<Export>,
) -> Result<Response, Problem> {
    let page_size = u32::try_from(PAGE_MAX).unwrap_or(0);
    let request = Filter { after: String::new(), ..filter.trimmed() }.request(page_size)?;
    let first = web.service.list_entries(web.ask(visitor.caller(), request.clone())).await?.into_inner();
    if !web.access().may_be_noted(visitor.caller()) {
        return Err(refuse(Code::ResourceExhausted, "RATE", "too many exports: wait, and ask again").into());
    }
    super::note(&web, visitor.caller(), "export", format!("list as {format:?}")).await;
    let (mime, ending, head) = match format {
        Format::Csv => ("text/csv; charset=utf-8", "csv", csv_line(COLUMNS.map(str::to_owned))),
        Format::Json => ("application/x-ndjson", "jsonl", String::new()),
    };
    let state = Some((VecDeque::from([first]), request, web, visitor.caller().clone()));
    let pages = stream::try_unfold(state, move |state| next_page(state, format));
    let body = Body::from_stream(stream::StreamExt::chain(stream::iter([Ok::<_, Status>(Bytes::from(head))]), pages));
    let disposition = format!("attachment; filename=\"staydown-list.{ending}\"");
    Ok(([(CONTENT_TYPE, mime.to_owned()), (CONTENT_DISPOSITION, disposition)], body).into_response())
}

type Pages = Option<(VecDeque<l::ListEntriesResponse>, l::ListEntriesRequest, Web, Caller)>;

async fn next_page(state: Pages, format: Format) -> Result<Option<(Bytes, Pages)>, Status> {
    let Some((mut ready, mut request, web, caller)) = state else { return Ok(None) };
    let answer = match ready.pop_front() {
        Some(answer) => answer,
        None => web.service.list_entries(web.ask(&caller, request.clone())).await?.into_inner(),
    };
    let text: String = answer.entries.into_iter().map(|entry| row(entry, format)).collect();
    request.page_token = answer.next_page_token;
    let rest = (!request.page_token.is_empty()).then_some((ready, request, web, caller));
    Ok(Some((Bytes::from(text), rest)))
}

const COLUMNS: [&str; 9] =
    ["type", "value", "status", "labels", "languages", "first_seen", "supporters", "disputers", "member"];

fn row(entry: l::Entry, format: Format) -> String {
    if format == Format::Json {
        let line = serde_json::to_string(&answers::Entry::from(entry)).unwrap_or_default();
        return format!("{line}\n");
    }
    let signal = entry.signal.clone().unwrap_or_default();
    let support = (entry.support_groups + entry.small_support_groups).to_string();
    let disputes = entry.dispute_groups.to_string();
    let seen = time::rfc3339(crate::replica::ids::TimeMs(entry.first_seen_ms));
    let members: Vec<_> = entry.said.iter().filter(|said| said.counts).map(|said| said.member.as_str()).collect();
    let members = members.join(" ");
    csv_line([
        signal.r#type,
        signal.value,
        entry.status,
        entry.labels.join(" "),
        entry.languages.join(" "),
        seen,
        support,
        disputes,
        csv::harmless(&members),
    ])
}

fn csv_line(fields: [String; 9]) -> String {
    let mut out = String::new();
    csv::line(fields.into_iter(), &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;
    use crate::web::console::page::tests::{HOSTILE, assert_harmless, sample};

    fn list(role: Role, rows: usize) -> String {
        let hostile = || HOSTILE.to_owned();
        let said = l::Said { member: hostile(), what: "SUBMIT".into(), counts: true, ..Default::default() };
        let entry = l::Entry {
            signal: Some(l::Signal { r#type: hostile(), value: hostile() }),
            status: hostile(),
            labels: vec![hostile()],
            languages: vec![hostile()],
            said: vec![said],
            ..Default::default()
        };
        let filter = Filter {
            q: hostile(),
            r#type: hostile(),
            status: hostile(),
            label: hostile(),
            member: hostile(),
            language: hostile(),
            near: hostile(),
            since: hostile(),
            after: hostile(),
        };
        let list = List {
            page: sample(role),
            rows: (0..rows).map(|_| Row { entry: entry.clone(), distance: Some(3) }).collect(),
            verdict: Some((hostile(), hostile())),
            unknown: (rows == 0).then(hostile),
            pager: pager(&filter, &l::ListEntriesResponse { next_page_token: hostile(), ..Default::default() }),
            labels: vec![hostile()],
            members: vec![hostile()],
            types: vec!["pdq"],
            statuses: STATUSES,
            filter,
        };
        list.render().unwrap()
    }

    #[test]
    fn what_members_and_addresses_hold_stays_text() {
        for rows in [0, 2] {
            assert_harmless(&list(Role::Admin, rows));
        }
        assert!(!list(Role::Viewer, 1).contains("href=\"/submit\""), "who may not submit is not asked to");
    }

    #[test]
    fn a_table_starts_no_formula() {
        let said = l::Said { member: "=cmd()".into(), counts: true, ..Default::default() };
        let line = row(l::Entry { said: vec![said], ..Default::default() }, Format::Csv);
        assert!(line.ends_with("'=cmd()\r\n"), "{line}");
    }

    #[test]
    fn a_filter_comes_back_from_its_address() {
        let hostile = "a&b=c#d <\"'> %41 é\u{202e}";
        let filter = Filter {
            q: hostile.into(),
            r#type: "pdq".into(),
            status: "ACTIVE".into(),
            label: hostile.into(),
            member: hostile.into(),
            language: "pt-BR".into(),
            near: "12".into(),
            since: "2026-01-01".into(),
            after: "1.2.0.ab".into(),
        };
        for filter in [filter, Filter::default(), Filter { label: "a b".into(), ..Filter::default() }] {
            let path = filter.path();
            assert!(path.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"'#".contains(&b)), "{path}");
            let uri = path.parse().unwrap();
            assert_eq!(Query::<Filter>::try_from_uri(&uri).unwrap().0, filter, "{path}");
        }
    }

    #[test]
    fn what_is_sought_is_read_off_the_text() {
        let digits = "ab".repeat(32);
        let types = |text: &str| match Sought::of(text) {
            Sought::Signals(signals) => signals.into_iter().map(|signal| signal.r#type).collect::<Vec<_>>(),
            Sought::Words(_) => vec!["words".into()],
            Sought::Nothing => vec![],
        };
        for (text, expected) in [
            ("", vec![]),
            (&digits[..32], vec!["md5"]),
            (&*digits, vec!["pdq", "sha256"]),
            (&format!("sha256:{digits}"), vec!["sha256"]),
            ("https://example.org/a?b", vec!["url"]),
            ("account:example-video:4711", vec!["account"]),
            ("propaganda", vec!["words"]),
            ("<script>", vec!["words"]),
        ] {
            assert_eq!(types(text), expected, "{text}");
        }
    }

    #[test]
    fn words_mean_a_label_or_a_member() {
        let labels = ["tvec.manifesto".to_owned(), "tvec.recruitment".into(), "org.tvec".into()];
        let members = ["acme".to_owned()];
        let filter = Filter { q: "x".into(), after: "y".into(), r#type: "pdq".into(), ..Filter::default() };
        let by = |words: &str| by_name(&filter, words, &labels, &members);
        assert_eq!(by("MANIFESTO").unwrap().path(), "/list?type=pdq&label=tvec.manifesto");
        assert_eq!(by("Acme").unwrap().path(), "/list?type=pdq&member=acme");
        assert_eq!(by("tvec"), None, "three labels have it");
    }

    #[test]
    fn distances_are_bounded() {
        let near = |near: &str| Filter { near: near.into(), ..Filter::default() }.distance().ok();
        assert_eq!((near(""), near("0"), near("31"), near("32"), near("x")), (Some(31), Some(0), Some(31), None, None));
    }
}
