//! `/referrals`: what referral units have asked the companies to look at. A request, never an order.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use tonic::Status;

use super::form::Fields;
use super::members;
use super::page::{Nav, Page, Said, Tone, Visitor, html, see_other};
use super::pieces::{Pager, encoded};
use super::saying::{say_all, signals, span};
use crate::clock;
use crate::net::status::bad_field;
use crate::replica::charter::Roles;
use crate::replica::ids::TimeMs;
use crate::replica::record;
use crate::web::{Problem, Web};
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// The states, in the order of their life.
const STATES: [&str; 4] = ["OPEN", "CONFIRMED", "REJECTED", "EXPIRED"];
/// Referrals of one page.
const SHOWN_MAX: u32 = 50;

/// What the page is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    state: String,
    page: String,
    said: String,
}

/// A request.
struct Referral {
    type_name: String,
    value: String,
    member: String,
    of: String,
    opened_ms: u64,
    deadline_ms: u64,
    tone: Tone,
    state: String,
    answer: String,
    status: String,
    /// Ours, and not closed.
    can_be_closed: bool,
}

#[derive(Template)]
#[template(path = "referrals.html")]
struct ReferralsPage {
    page: Page,
    states: Vec<(&'static str, bool)>,
    referrals: Vec<Referral>,
    pager: Pager,
    authorities: Vec<&'static str>,
    may_refer: bool,
}

/// The referrals.
pub(super) async fn show(
    State(web): State<Web>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let page = Page::new(&web, &visitor, "Referrals", Nav::Referrals, &Said::of(&asked.said)).await?;
    let request =
        l::ListReferralsRequest { page_size: SHOWN_MAX, page_token: asked.page.clone(), state: asked.state.clone() };
    let answer = web.service.list_referrals(web.ask(visitor.caller(), request)).await?.into_inner();
    let refers = members::law(&web, &visitor).await?.our_roles(&page.member).has(Roles::REFERRAL);
    let may_refer = refers && page.may_submit();
    let referrals: Vec<_> = answer.referrals.into_iter().map(|r| referral(r, &page.member, may_refer)).collect();
    let at = |token: &str| format!("/referrals?state={}&page={}", encoded(&asked.state), encoded(token));
    let pager = Pager {
        first: (!asked.page.is_empty()).then(|| at("")),
        next: (!answer.next_page_token.is_empty()).then(|| at(&answer.next_page_token)),
        shown: referrals.len() as u64,
        thing: "referral",
    };
    html(&ReferralsPage {
        page,
        states: STATES.map(|state| (state, state == asked.state)).to_vec(),
        referrals,
        pager,
        authorities: record::AUTHORITIES.iter().map(|(_, name)| *name).collect(),
        may_refer,
    })
}

fn referral(r: l::ReferralState, us: &str, may_refer: bool) -> Referral {
    let signal = r.signal.unwrap_or_default();
    let took = span(r.took_ms);
    let (tone, answer) = match r.state.as_str() {
        "OPEN" => (Tone::Warn, format!("waits for {took}")),
        "CONFIRMED" => (Tone::Ok, format!("by {} after {took}", r.confirmed_by)),
        "REJECTED" => (Tone::Note, format!("closed after {took}")),
        _ => (Tone::Note, format!("no answer in {took}")),
    };
    let of: Vec<_> = [r.authority, r.jurisdiction].into_iter().filter(|part| !part.is_empty()).collect();
    Referral {
        can_be_closed: may_refer && r.member == us && r.closed_ms == 0,
        type_name: signal.r#type,
        value: signal.value,
        member: r.member,
        of: of.join(", "),
        opened_ms: r.opened_ms,
        deadline_ms: r.deadline_ms,
        tone,
        state: r.state,
        answer,
        status: r.status,
    }
}

/// Opens some, or closes one.
pub(super) async fn act(State(web): State<Web>, visitor: Visitor, fields: Fields) -> Result<Response, Problem> {
    let (statements, done) = statements(&fields, clock::now())?;
    let said = say_all(&web, &visitor, statements, l::Lane::Normal, done).await?;
    Ok(see_other("/referrals", said))
}

fn statements(fields: &Fields, now: TimeMs) -> Result<(Vec<l::Statement>, &'static str), Status> {
    let signals = signals(fields.one("items"))?;
    let (referral, done) = match fields.one("act") {
        "close" => (l::Referral::default(), "referral-closed"),
        _ => (opened(fields, now)?, "referred"),
    };
    let say = |signal| l::Statement { signal: Some(signal), referral: Some(referral.clone()), ..Default::default() };
    Ok((signals.into_iter().map(say).collect(), done))
}

fn opened(fields: &Fields, now: TimeMs) -> Result<l::Referral, Status> {
    let (authority, jurisdiction) = (fields.one("authority").to_owned(), fields.one("jurisdiction").to_uppercase());
    if record::code(&record::AUTHORITIES, &authority).is_none() {
        return Err(bad_field("authority", format!("is {authority:?}, which is none")));
    }
    if record::jurisdiction_number(&jurisdiction).is_none() {
        return Err(bad_field("jurisdiction", format!("is {jurisdiction:?}, expected two letters, as in FR or EU")));
    }
    let deadline_ms = fields.moment("deadline", now)?;
    if deadline_ms > 0 && deadline_ms <= now.0 {
        return Err(bad_field("deadline", "is past, expected a moment to come, or never"));
    }
    Ok(l::Referral { open: true, authority, jurisdiction, deadline_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;
    use crate::web::console::saying::testing::{HOSTILE, page, posts, rendered};

    const NOW: TimeMs = TimeMs(1_795_000_000_000);

    #[test]
    fn each_hash_is_referred_by_a_statement_of_its_own() {
        let read = |text: &str| statements(&Fields::parse(text.as_bytes()).unwrap(), NOW);
        let (open, done) = read("items=md5%3Aaa%0Asha1%3Abb&authority=police&jurisdiction=fr&deadline=12h").unwrap();
        assert_eq!((open.len(), done), (2, "referred"));
        let referral = open[1].referral.clone().unwrap();
        assert_eq!(
            (referral.open, referral.jurisdiction.as_str(), referral.deadline_ms),
            (true, "FR", NOW.0 + 43_200_000)
        );
        let (closed, done) = read("items=md5%3Aaa&act=close").unwrap();
        assert_eq!((closed[0].referral.clone(), done), (Some(l::Referral::default()), "referral-closed"));
        for wrong in
            ["items=", "items=md5%3Aaa&authority=x&jurisdiction=FR", "items=md5%3Aaa&authority=police&jurisdiction=F"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_our_own_open_request_can_be_closed() {
        let state =
            |member: &str, closed_ms| l::ReferralState { member: member.into(), closed_ms, ..Default::default() };
        assert!(referral(state("unit", 0), "unit", true).can_be_closed);
        assert!(!referral(state("unit", 5), "unit", true).can_be_closed);
        assert!(!referral(state("other", 0), "unit", true).can_be_closed);
        assert!(!referral(state("unit", 0), "unit", false).can_be_closed);
    }

    #[test]
    fn only_a_unit_that_may_submit_finds_the_forms() {
        let shown = |may_refer| {
            let state = l::ReferralState {
                signal: Some(l::Signal { r#type: HOSTILE.into(), value: HOSTILE.into() }),
                member: "unit".into(),
                authority: HOSTILE.into(),
                jurisdiction: HOSTILE.into(),
                state: HOSTILE.into(),
                confirmed_by: HOSTILE.into(),
                status: HOSTILE.into(),
                ..Default::default()
            };
            rendered(&ReferralsPage {
                page: page(Role::Reviewer, Nav::Referrals),
                states: STATES.map(|state| (state, false)).to_vec(),
                referrals: vec![referral(state, "unit", may_refer)],
                pager: Pager { thing: "referral", ..Pager::default() },
                authorities: record::AUTHORITIES.iter().map(|(_, name)| *name).collect(),
                may_refer,
            })
        };
        assert_eq!([false, true].map(|may| posts(&shown(may))), [1, 3]);
    }
}
