//! `/incidents`: attacks in progress. Opening and closing one is a signed word; entries that are tied to it carry its
//! label while it is open, and travel in the urgent lane.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use tonic::Status;

use super::form::Fields;
use super::page::{Nav, Page, Said, Tone, Visitor, html, see_other};
use super::saying::{self, LabelGroup, say};
use crate::clock;
use crate::net::saying::INCIDENT_DAYS_MAX;
use crate::net::status::bad_field;
use crate::replica::ids::{TimeMs, hex};
use crate::web::{Problem, Web};
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// An attack.
struct Incident {
    id: String,
    open: bool,
    entries: u64,
    words: Vec<l::IncidentWord>,
    /// Our company has it open.
    ours: bool,
}

#[derive(Template)]
#[template(path = "incidents.html")]
struct IncidentsPage {
    page: Page,
    incidents: Vec<Incident>,
    truncated: bool,
    labels: Vec<LabelGroup>,
    days_max: u64,
}

/// The incidents, open ones first.
pub(super) async fn show(
    State(web): State<Web>,
    visitor: Visitor,
    Query(said): Query<Said>,
) -> Result<Response, Problem> {
    let page = Page::new(&web, &visitor, "Incidents", Nav::Incidents, &said).await?;
    let answer = web.service.list_incidents(web.ask(visitor.caller(), l::ListIncidentsRequest {})).await?.into_inner();
    let incident = |i: l::IncidentState| Incident {
        id: hex(&i.id),
        open: i.open,
        entries: i.entries,
        ours: i.words.iter().any(|word| word.open && word.member == page.member),
        words: i.words,
    };
    let mut incidents: Vec<_> = answer.incidents.into_iter().map(incident).collect();
    // The latest word first among the open ones, and then among the closed ones.
    incidents.sort_by_key(|incident| !incident.open);
    let labels = if page.may_review() { saying::labels(&web, &visitor).await? } else { Vec::new() };
    html(&IncidentsPage { page, incidents, truncated: answer.truncated, labels, days_max: INCIDENT_DAYS_MAX })
}

/// Opens one, joins one, or closes our word on one.
pub(super) async fn act(State(web): State<Web>, visitor: Visitor, fields: Fields) -> Result<Response, Problem> {
    let (notice, done) = notice(&fields, clock::now())?;
    let statement = l::Statement { incident: Some(notice), ..Default::default() };
    let said = say(&web, &visitor, statement, l::Lane::Urgent, done).await?;
    Ok(see_other("/incidents", said))
}

fn notice(fields: &Fields, now: TimeMs) -> Result<(l::IncidentNotice, &'static str), Status> {
    let id = match fields.one("id") {
        "" => None,
        text => Some(sixteen_bytes(text)?),
    };
    if fields.one("act") == "close" {
        let id = id.ok_or_else(|| bad_field("id", "is missing"))?;
        return Ok((l::IncidentNotice { id: id.to_vec().into(), ..Default::default() }, "closed"));
    }
    let closes = fields.moment("closes", now)?;
    if closes <= now.0 || closes > now.plus(INCIDENT_DAYS_MAX * TimeMs::DAY_MS).0 {
        let got = fields.one("closes");
        return Err(bad_field(
            "closes",
            format!("is {got:?}, expected a moment at most {INCIDENT_DAYS_MAX} days from now"),
        ));
    }
    let level = fields.number("level")?;
    if !(1..=4).contains(&level) {
        return Err(bad_field("level", format!("is {level}, expected 1 to 4")));
    }
    let id = id.unwrap_or_else(clock::random);
    let label = fields.one("label").to_owned();
    Ok((l::IncidentNotice { id: id.to_vec().into(), label, level, open: true, closes_ms: closes }, "opened"))
}

fn sixteen_bytes(text: &str) -> Result<[u8; 16], Status> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap_or_default();
    bytes.try_into().map_err(|_wrong_length| bad_field("id", format!("is {text:?}, expected 32 hexadecimal digits")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;
    use crate::web::console::saying::testing::{HOSTILE, page, posts, rendered};

    const NOW: TimeMs = TimeMs(1_795_000_000_000);

    fn read(text: &str) -> Result<(l::IncidentNotice, &'static str), Status> {
        notice(&Fields::parse(text.as_bytes()).unwrap(), NOW)
    }

    #[test]
    fn opening_and_closing_are_the_words_of_the_command_line() {
        let (opened, done) = read("act=open&label=glorification&level=4&closes=12h").unwrap();
        assert_eq!(
            (opened.open, opened.level, opened.closes_ms, done),
            (true, 4, NOW.0 + 12 * TimeMs::HOUR_MS, "opened")
        );
        assert_eq!(opened.id.len(), 16);
        let id = "0f".repeat(16);
        let (joined, _) = read(&format!("act=open&label=l&level=1&closes=1d&id={id}")).unwrap();
        assert_eq!(hex(&joined.id), id);
        let (closed, done) = read(&format!("act=close&id={id}")).unwrap();
        assert_eq!((closed, done), (l::IncidentNotice { id: vec![0x0f; 16].into(), ..Default::default() }, "closed"));
        for wrong in
            ["act=close", "level=1&closes=31d", "level=1&closes=", "level=5&closes=1d", "level=1&closes=1d&id=zz"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_viewer_finds_no_form_to_open_or_close() {
        let shown = |role: Role| {
            let word =
                l::IncidentWord { member: HOSTILE.into(), label: HOSTILE.into(), open: true, ..Default::default() };
            rendered(&IncidentsPage {
                page: page(role, Nav::Incidents),
                incidents: vec![Incident { id: HOSTILE.into(), open: true, entries: 1, words: vec![word], ours: true }],
                truncated: true,
                labels: vec![LabelGroup { facet: HOSTILE.into(), labels: vec![HOSTILE.into()] }],
                days_max: INCIDENT_DAYS_MAX,
            })
        };
        assert_eq!([Role::Viewer, Role::Reviewer].map(|role| posts(&shown(role))), [1, 3]);
    }
}
