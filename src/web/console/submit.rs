//! Submitting: a file is hashed in this node and forgotten, what is near to it is shown first, and what a person signs
//! then are hashes. The page never shows a picture and the node never keeps one; the file's name is not even read.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::multipart::MultipartError;
use axum::extract::{Multipart, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use tonic::{Code, Status};

use super::form::Fields;
use super::list::{Sought, verdict};
use super::page::{self, Nav, Page, Said, Visitor, see_other};
use super::pieces::{Html, entry_path};
use super::saying::{LabelGroup, by_facet};
use crate::access::{Caller, Scope};
use crate::clock;
use crate::net::local::{FILES_BYTES_MAX, FILES_MAX, SIGNALS_MAX};
use crate::net::status::{bad_field, refuse};
use crate::replica::ids::{TimeMs, hex, sha256};
use crate::replica::record;
use crate::replica::signal::{Alg, PDQ_QUALITY_MIN, address_in_clear};
use crate::web::guard::{CSRF_FIELD, CSRF_HEADER};
use crate::web::{Problem, Web};
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// Matches that are shown before something is signed: the nearest come first.
const NEAR_MAX: usize = 20;
/// Characters of all hashes that one form carries from looking to signing; a form has 64 KiB. Of a longer video only
/// its digests are signed here, and the page says so.
const CARRIED_CHARS_MAX: usize = 40 << 10;
/// Characters of what is pasted.
const PASTED_CHARS_MAX: usize = 32 << 10;
/// Characters of a field beside the files of an upload.
const FIELD_BYTES_MAX: usize = 256;

#[derive(Template)]
#[template(path = "submit.html")]
struct Submit {
    page: Page,
    found: Option<Found>,
    labels: Vec<LabelGroup<Titled>>,
    incidents: Vec<(String, String)>,
    bases: Vec<&'static str>,
    files_max: usize,
    file_mib_max: usize,
}

/// A label's name, and what it is called in English; empty: it has no title.
type Titled = (String, String);

/// What was looked up, and what of it can be signed.
#[derive(Default)]
struct Found {
    verdict: &'static str,
    rule: String,
    near: Vec<l::Match>,
    more: bool,
    items: Vec<Item>,
    /// What was left out, and why.
    notes: Vec<String>,
    /// One key for the whole form.
    key: String,
}

/// What belongs together: the hashes of one file, or one hash.
struct Item {
    name: String,
    signals: Vec<Carried>,
}

/// A hash on its way through the page to the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Carried {
    /// Which item it is of; 0: it stands alone.
    item: usize,
    quality: u32,
    signal: l::Signal,
}

impl Carried {
    /// `ITEM QUALITY TYPE VALUE`, the value of one field.
    fn field(&self) -> String {
        format!("{} {} {} {}", self.item, self.quality, self.signal.r#type, self.signal.value)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ' ');
        let (item, quality) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let signal = l::Signal { r#type: parts.next()?.to_owned(), value: parts.next()?.to_owned() };
        (item <= FILES_MAX).then_some(Self { item, quality, signal })
    }
}

impl Submit {
    fn key_field(&self, key: &str) -> Html {
        Html::field("key", key)
    }

    fn link(&self, entry: &l::Entry) -> String {
        let signal = entry.signal.clone().unwrap_or_default();
        entry_path(&signal.r#type, &signal.value)
    }
}

/// `GET /submit`.
pub(super) async fn show(
    State(web): State<Web>,
    visitor: Visitor,
    Query(said): Query<Said>,
) -> Result<Response, Problem> {
    draw(&web, &visitor, &said, None).await
}

async fn draw(web: &Web, visitor: &Visitor, said: &Said, found: Option<Found>) -> Result<Response, Problem> {
    may_submit(visitor)?;
    let page = Page::new(web, visitor, "Submit", Nav::Submit, said).await?;
    page::html(&Submit {
        page,
        found,
        labels: label_groups(web, visitor.caller()).await?,
        incidents: incidents(web, visitor.caller()).await?,
        bases: record::BASES.iter().map(|(_, name)| *name).collect(),
        files_max: FILES_MAX,
        file_mib_max: FILES_BYTES_MAX >> 20,
    })
}

fn may_submit(visitor: &Visitor) -> Result<(), Status> {
    if visitor.may(Scope::Submit) {
        return Ok(());
    }
    let why = format!("{} may not submit", visitor.caller().name);
    Err(refuse(Code::PermissionDenied, "SCOPE", why))
}

/// The labels that may be said, by facet, with their titles in English where they have one.
async fn label_groups(web: &Web, caller: &Caller) -> Result<Vec<LabelGroup<Titled>>, Status> {
    let answer = web.service.get_taxonomy(web.ask(caller, l::GetTaxonomyRequest {})).await?.into_inner();
    let titled = |label: &l::TaxonomyLabel| {
        let title = label.titles.iter().find(|title| title.language.starts_with("en"));
        (label.name.clone(), title.map(|title| title.text.clone()).unwrap_or_default())
    };
    Ok(by_facet(answer.labels, titled))
}

/// Attacks that are open, with a word on each.
async fn incidents(web: &Web, caller: &Caller) -> Result<Vec<(String, String)>, Status> {
    let answer = web.service.list_incidents(web.ask(caller, l::ListIncidentsRequest {})).await?.into_inner();
    let named = |incident: l::IncidentState| {
        let word = incident.words.iter().find(|word| word.open);
        let what = word.map(|word| format!("{}, opened by {}", word.label, word.member)).unwrap_or_default();
        (hex(&incident.id), what)
    };
    Ok(answer.incidents.into_iter().filter(|incident| incident.open).map(named).collect())
}

/// `POST /submit/file`: hashes what was dropped, forgets it, and shows what is near.
pub(super) async fn file(
    State(web): State<Web>,
    visitor: Visitor,
    headers: HeaderMap,
    parts: Multipart,
) -> Result<Response, Problem> {
    may_submit(&visitor)?;
    let place = web.upload_place()?;
    // Forms with files come past the guard's own check, which has seen to those that have the header.
    let files = read(parts, &visitor, headers.contains_key(CSRF_HEADER)).await?;
    if files.is_empty() {
        return Err(bad_field("file", "is missing: choose at least one").into());
    }
    let request = l::LookupRequest { files, browsing: true, ..Default::default() };
    let answer = web.service.lookup(web.ask(visitor.caller(), request)).await?.into_inner();
    drop(place);
    draw(&web, &visitor, &Said::default(), Some(of_files(answer))).await
}

/// What an upload brings: the bytes of files, and nothing of what they are called. Of a form that is not proven to be this
/// session's no file is read.
async fn read(mut parts: Multipart, visitor: &Visitor, mut proven: bool) -> Result<Vec<Bytes>, Problem> {
    let wrong = |error: MultipartError| {
        Problem::new(error.status(), "UPLOAD", format!("the upload did not come whole: {}", error.body_text()))
    };
    let forged = || refuse(Code::PermissionDenied, "CSRF", "the form does not belong to this session: reload it");
    let mut files = Vec::new();
    let mut room = FILES_BYTES_MAX;
    while let Some(mut part) = parts.next_field().await.map_err(wrong)? {
        let is_file = part.name() == Some("file");
        let is_csrf = part.name() == Some(CSRF_FIELD);
        if is_file && !proven {
            return Err(forged().into());
        }
        let most = if is_file { room } else { FIELD_BYTES_MAX };
        let mut bytes = BytesMut::new();
        while let Some(chunk) = part.chunk().await.map_err(wrong)? {
            if bytes.len() + chunk.len() > most {
                let why = format!("has more than {most} bytes: submit longer files with staydown submit");
                return Err(bad_field(if is_file { "file" } else { "form" }, why).into());
            }
            bytes.extend_from_slice(&chunk);
        }
        match (is_file, is_csrf) {
            // A form whose file was left empty has an empty file.
            (true, _) if bytes.is_empty() => {}
            (true, _) => {
                room -= bytes.len();
                files.push(bytes.freeze());
            }
            (_, true) => proven |= visitor.is_csrf(&String::from_utf8_lossy(&bytes)),
            _ => {}
        }
        if files.len() > FILES_MAX {
            return Err(bad_field("file", format!("is more than {FILES_MAX} files at once")).into());
        }
    }
    if proven { Ok(files) } else { Err(forged().into()) }
}

/// What can be signed of files that were looked up.
fn of_files(mut answer: l::LookupResponse) -> Found {
    let files = std::mem::take(&mut answer.files);
    let mut found = found(answer);
    let mut room = CARRIED_CHARS_MAX;
    for (n, file) in (1..).zip(files) {
        let name = format!("File {n}");
        if file.quality.is_some_and(|quality| quality < PDQ_QUALITY_MIN) {
            found.notes.push(format!("{name}: its picture has too little in it; only its digests can be listed."));
        }
        let listing = file.signals.into_iter().zip(0_u32..).filter(|(_, at)| file.listing.contains(at));
        let quality = |signal: &l::Signal| if signal.r#type == Alg::Pdq.name() { file.quality.unwrap_or(0) } else { 0 };
        let all = listing.map(|(signal, _)| Carried { item: n, quality: quality(&signal), signal });
        let (signals, long): (Vec<_>, Vec<_>) = all.partition(|carried| {
            let fits = carried.signal.value.len() <= room;
            room -= if fits { carried.signal.value.len() } else { 0 };
            fits
        });
        if !long.is_empty() {
            found
                .notes
                .push(format!("{name}: the video is too long for this page; list its frames with staydown submit."));
        }
        found.items.push(Item { name, signals });
    }
    found
}

fn found(answer: l::LookupResponse) -> Found {
    let more = answer.truncated || answer.matches.len() > NEAR_MAX;
    Found {
        verdict: verdict(answer.verdict()),
        rule: answer.rule,
        near: answer.matches.into_iter().take(NEAR_MAX).collect(),
        more,
        key: hex(&clock::random::<16>()),
        ..Found::default()
    }
}

/// `POST /submit/look`: the same for hashes, web addresses and accounts that were pasted.
pub(super) async fn look(State(web): State<Web>, visitor: Visitor, fields: Fields) -> Result<Response, Problem> {
    let carried = pasted(fields.one("pasted"), fields.number("quality")?)?;
    let signals = carried.iter().map(|carried| carried.signal.clone()).collect();
    let request = l::LookupRequest { signals, browsing: true, ..Default::default() };
    let answer = web.service.lookup(web.ask(visitor.caller(), request)).await?.into_inner();
    let items = vec![Item { name: "Pasted".to_owned(), signals: carried }];
    draw(&web, &visitor, &Said::default(), Some(Found { items, ..found(answer) })).await
}

/// One a line. What is pasted beside each other need not be of one item.
fn pasted(text: &str, quality: u32) -> Result<Vec<Carried>, Status> {
    if text.len() > PASTED_CHARS_MAX {
        return Err(bad_field("pasted", format!("has {} bytes, at most {PASTED_CHARS_MAX} are possible", text.len())));
    }
    let mut all = Vec::new();
    for (n, line) in (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty()) {
        let Sought::Signals(signals) = Sought::of(line) else {
            return Err(bad_field("pasted", format!("line {n} is no hash, web address or account, as in sha256:...")));
        };
        let [signal] = signals.try_into().map_err(|_two: Vec<_>| {
            bad_field("pasted", format!("line {n} may be pdq or sha256: write pdq:... or sha256:..."))
        })?;
        let quality = if signal.r#type == Alg::Pdq.name() { quality } else { 0 };
        all.push(Carried { item: 0, quality, signal });
    }
    match all.len() {
        0 => Err(bad_field("pasted", "is empty")),
        n if n > SIGNALS_MAX => Err(bad_field(
            "pasted",
            format!("has {n} lines, at most {SIGNALS_MAX} at once: use staydown submit --from FILE.csv"),
        )),
        _ => Ok(all),
    }
}

/// `POST /submit`: signs what is ticked.
pub(super) async fn sign(State(web): State<Web>, visitor: Visitor, fields: Fields) -> Result<Response, Problem> {
    let statements = statements(&fields, clock::now())?;
    let lane = if fields.one("incident").is_empty() { l::Lane::Normal } else { l::Lane::Urgent };
    let first = statements.first().and_then(|statement| statement.signal.clone()).unwrap_or_default();
    let request = l::SubmitRequest { statements, lane: lane as i32, ..Default::default() };
    let answer = web.service.submit(web.ask(visitor.caller(), request)).await?.into_inner();
    web.hub().lately.forget().await;
    let said = if answer.state() == l::SubmitState::Queued { "queued" } else { "signed" };
    // The page of an address or an account is under its hash, which only the node makes.
    let clear = [Alg::Url.name(), Alg::Account.name()].contains(&first.r#type.as_str());
    let to = if clear { "/list".to_owned() } else { entry_path(&first.r#type, &first.value) };
    Ok(see_other(&to, said))
}

/// One statement a hash; those of one file share an item id from which nobody can tell which file it was.
fn statements(fields: &Fields, now: TimeMs) -> Result<Vec<l::Statement>, Status> {
    let wrong = || bad_field("signal", "is none of this page's: look it up again");
    let ticked = fields.all("signal");
    let carried = ticked.iter().map(|text| Carried::parse(text).ok_or_else(wrong)).collect::<Result<Vec<_>, _>>()?;
    if carried.is_empty() {
        return Err(bad_field("signal", "is missing: tick at least one hash"));
    }
    let labels = fields.all("label");
    if labels.is_empty() {
        return Err(bad_field("label", "is missing: tick at least one"));
    }
    let incident = data_encoding::HEXLOWER.decode(fields.one("incident").as_bytes());
    let incident = incident.map_err(|_odd| bad_field("incident", "is no id of an incident"))?;
    let plain = l::Statement {
        stance: l::Stance::Submit as i32,
        labels,
        languages: fields.words("languages"),
        severity: fields.number("severity")?,
        confidence: fields.number("confidence")?,
        basis: record::code(&record::BASES, fields.one("basis")).unwrap_or(0),
        expires_ms: fields.moment("expires", now)?,
        review_ms: fields.moment("review", now)?,
        incident_id: incident.into(),
        ..Default::default()
    };
    let mut items = BTreeMap::new();
    let mut statement = |carried: Carried| {
        let item = (carried.item > 0).then(|| items.entry(carried.item).or_insert_with(clock::random::<16>).to_vec());
        let client_key = key(fields.one("key"), &carried);
        let is_host =
            matches!(address_in_clear(&carried.signal.r#type, &carried.signal.value), Ok(Some(a)) if a.is_whole_host());
        l::Statement {
            quality: carried.quality,
            signal: Some(carried.signal),
            client_key: client_key.into(),
            item_id: item.unwrap_or_default().into(),
            whole_host: is_host && fields.ticked("whole_host"),
            ..plain.clone()
        }
    };
    Ok(carried.into_iter().map(&mut statement).collect())
}

/// From the form's key one for each hash, so that a second click says nothing twice.
fn key(base: &str, carried: &Carried) -> Vec<u8> {
    sha256(&[b"staydown/console-key/v1\n", base.as_bytes(), b"\n", carried.field().as_bytes()])[..16].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;
    use crate::web::console::page::tests::{HOSTILE, assert_harmless, sample};

    #[test]
    fn what_members_and_files_hold_stays_text() {
        let hostile = || HOSTILE.to_owned();
        let signal = l::Signal { r#type: hostile(), value: hostile() };
        let entry = l::Entry { signal: Some(signal.clone()), labels: vec![hostile()], ..Default::default() };
        let found = Found {
            verdict: "BLOCK",
            rule: hostile(),
            near: vec![l::Match { entry: Some(entry), ..Default::default() }],
            items: vec![Item { name: hostile(), signals: vec![Carried { item: 1, quality: 1, signal }] }],
            notes: vec![hostile()],
            key: hostile(),
            more: true,
        };
        for found in [Some(found), None] {
            let page = Submit {
                page: sample(Role::Reviewer),
                found,
                labels: vec![LabelGroup {
                    facet: hostile(),
                    labels: vec![(hostile(), hostile()), (hostile(), String::new())],
                }],
                incidents: vec![(hostile(), hostile())],
                bases: vec!["automated"],
                files_max: FILES_MAX,
                file_mib_max: 64,
            };
            assert_harmless(&page.render().unwrap());
        }
    }

    const NOW: TimeMs = TimeMs(1_795_000_000_000);

    fn carried(item: usize, name: &str, value: &str) -> Carried {
        Carried { item, quality: 90, signal: l::Signal { r#type: name.into(), value: value.into() } }
    }

    #[test]
    fn a_hash_goes_through_the_page_unchanged() {
        for one in [carried(3, "pdq", "ab"), carried(0, "url", "https://example.org/a b?c=<\"'>")] {
            assert_eq!(Carried::parse(&one.field()), Some(one));
        }
        assert_eq!(
            (Carried::parse("x 1 pdq ab"), Carried::parse("9 1 pdq ab"), Carried::parse("")),
            (None, None, None)
        );
    }

    #[test]
    fn what_is_ticked_is_what_is_signed() {
        let form = |signals: &[&str], rest: &str| {
            let signals: String =
                signals.iter().map(|s| format!("signal={}&", super::super::pieces::encoded(s))).collect();
            statements(&Fields::parse(format!("{signals}{rest}").as_bytes()).unwrap(), NOW)
        };
        let rest = "label=a&label=b&languages=fr,de&severity=3&expires=90d&key=k";
        let all = form(&["1 90 pdq ab", "1 0 md5 cd", "2 0 md5 ef", "0 0 md5 01"], rest).unwrap();
        assert_eq!((all[0].quality, all[0].severity, all[0].expires_ms), (90, 3, NOW.0 + 90 * TimeMs::DAY_MS));
        assert_eq!((all[0].labels.len(), all[0].languages.len()), (2, 2));
        assert!(all[0].item_id == all[1].item_id && all[1].item_id != all[2].item_id && all[3].item_id.is_empty());
        assert_ne!(all[0].client_key, all[1].client_key);
        let again = form(&["1 90 pdq ab"], rest).unwrap();
        assert_eq!(again[0].client_key, all[0].client_key, "a second click says it once");
        for (signals, rest) in [
            (&[][..], rest),
            (&["1 0 md5 cd"], "severity=1"),
            (&["md5"], rest),
            (&["0 0 md5 cd"], "label=a&incident=zz"),
        ] {
            assert!(form(signals, rest).is_err(), "{signals:?} {rest}");
        }
        let host = "0 0 url https://example.org/";
        assert!(
            !form(&[host], rest).unwrap()[0].whole_host
                && form(&[host], &format!("{rest}&whole_host=1")).unwrap()[0].whole_host
        );
    }

    #[test]
    fn lines_are_read_each_by_itself() {
        let digits = "ab".repeat(32);
        let text = format!(" sha256:{digits}\n\nhttps://example.org/x\r\npdq:{digits}\n");
        let types: Vec<_> = pasted(&text, 77).unwrap().into_iter().map(|c| (c.signal.r#type, c.quality)).collect();
        assert_eq!(types, [("sha256".to_owned(), 0), ("url".to_owned(), 0), ("pdq".to_owned(), 77)]);
        let line = |text: &str| pasted(text, 0).err().map(|status| status.message().to_owned()).unwrap_or_default();
        assert!(
            line("x").contains("line 1") && line(&digits).contains("pdq or sha256") && line(" \n").contains("empty")
        );
        assert!(line(&format!("sha256:{digits}\n").repeat(SIGNALS_MAX + 1)).contains("at most"));
        assert!(line(&"a".repeat(PASTED_CHARS_MAX + 1)).contains("at most"));
    }

    #[test]
    fn what_lists_a_file_is_offered_and_long_videos_are_not() {
        let signal = |name: &str, value: String| l::Signal { r#type: name.into(), value };
        let file = l::FileLookedUp {
            signals: vec![
                signal("md5", "ab".into()),
                signal("pdq", "cd".into()),
                signal("vpdq", "e".repeat(CARRIED_CHARS_MAX + 1)),
                signal("pdq", "turned".into()),
            ],
            quality: Some(80),
            listing: vec![0, 1, 2],
        };
        let poor = l::FileLookedUp { quality: Some(PDQ_QUALITY_MIN - 1), ..Default::default() };
        let found = of_files(l::LookupResponse { files: vec![file, poor], ..Default::default() });
        let offered: Vec<_> = found.items[0].signals.iter().map(|c| (c.signal.r#type.as_str(), c.quality)).collect();
        assert_eq!(offered, [("md5", 0), ("pdq", 80)]);
        assert_eq!((found.notes.len(), found.items[0].signals[0].item, found.items[1].signals.len()), (2, 1, 0));
    }
}
