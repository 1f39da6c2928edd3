//! The first page: how the node is, what waits for a person, what was listed lately, what was looked up.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;

use super::lately::{Days, Waits};
use super::page::{self, Nav, Page, Said, Tone, Visitor};
use super::pieces::count;
use super::svg::{Chart, Drawn};
use crate::web::{Problem, Web};
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// Why things wait, as people say it, in the order in which they matter.
const KINDS: [(&str, &str, Tone); 7] = [
    ("disputed-own", "Entries of ours that others dispute", Tone::Warn),
    ("flood", "Signals that match far more often than usual", Tone::Warn),
    ("conflict", "Certified content that is listed", Tone::Warn),
    ("referral", "Referrals without an answer", Tone::Note),
    ("disputed", "Disputes between others", Tone::Note),
    ("expiring", "Entries of ours that end soon", Tone::Note),
    ("due", "Entries that we wanted to look at again", Tone::Note),
];

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    page: Page,
    status: l::StatusResponse,
    lookups: l::LookupCounts,
    waits: Vec<Wait>,
    days: Days,
    chart: Option<Drawn>,
}

/// One kind of what waits.
struct Wait {
    kind: &'static str,
    what: &'static str,
    tone: Tone,
    count: u64,
}

impl Overview {
    /// Of those lookups that had a match, how many of a hundred: `0.4 %`.
    fn share(&self) -> String {
        match self.lookups.lookups {
            0 => "–".to_owned(),
            all => {
                let permyriad = u128::from(self.lookups.with_a_match) * 10_000 / u128::from(all);
                format!("{}.{:02} %", permyriad / 100, permyriad % 100)
            }
        }
    }
}

/// `GET /`.
pub(super) async fn show(
    State(web): State<Web>,
    visitor: Visitor,
    Query(said): Query<Said>,
) -> Result<Response, Problem> {
    let page = Page::new(&web, &visitor, "Overview", Nav::Overview, &said).await?;
    let status = web.service.status(web.ask(visitor.caller(), l::StatusRequest {})).await?.into_inner();
    let waits = web.hub().lately.waits(&web, visitor.caller()).await?;
    let days = web.hub().lately.days(&web, visitor.caller()).await?;
    let lookups = status.lookups.unwrap_or_default();
    page::html(&Overview { page, status, lookups, waits: kinds(&waits), chart: chart(&days), days })
}

fn kinds(waits: &Waits) -> Vec<Wait> {
    let of = |(kind, what, tone)| Some(Wait { kind, what, tone, count: *waits.kinds.get(kind)? });
    KINDS.into_iter().filter_map(of).collect()
}

/// Entries of each day, by who was first to list them; none where there were none.
fn chart(days: &Days) -> Option<Drawn> {
    if days.members.is_empty() {
        return None;
    }
    let places = days.days.clone();
    let note = if days.more {
        format!("of the first {} only", count(super::lately::COUNTED_MAX as u64))
    } else {
        String::new()
    };
    let chart = Chart::new("entries", "New entries per day, by who listed them first", note).over("day", places);
    Some(days.members.iter().fold(chart, |chart, (member, counts)| chart.with(member, counts.clone())).stacked())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;
    use crate::web::console::page::tests::{HOSTILE, assert_harmless, sample};

    fn overview(role: Role, days: Days) -> Overview {
        let waits = Waits { kinds: [("disputed-own".to_owned(), 2), (HOSTILE.to_owned(), 1)].into(), more: false };
        let lookups = l::LookupCounts { lookups: 3_000, with_a_match: 7, ..Default::default() };
        let status = l::StatusResponse { health_reasons: vec![HOSTILE.into(), "x".into()], ..Default::default() };
        Overview { page: sample(role), status, lookups, waits: kinds(&waits), chart: chart(&days), days }
    }

    #[test]
    fn what_members_write_stays_text() {
        let signal = l::Signal { r#type: HOSTILE.into(), value: HOSTILE.into() };
        let entry = l::Entry {
            signal: Some(signal),
            status: HOSTILE.into(),
            labels: vec![HOSTILE.into()],
            ..Default::default()
        };
        let days = Days {
            days: vec!["2026-11-22".into()],
            members: [(HOSTILE.to_owned(), vec![3])].into(),
            latest: vec![entry],
            more: true,
        };
        for days in [days, Days::default()] {
            assert_harmless(&overview(Role::Admin, days).render().unwrap());
        }
        assert!(!overview(Role::Viewer, Days::default()).render().unwrap().contains("Submit something"));
    }

    #[test]
    fn what_waits_is_said_in_words_and_matches_as_a_share() {
        let overview = overview(Role::Viewer, Days::default());
        assert_eq!(
            overview.waits.iter().map(|wait| (wait.kind, wait.count)).collect::<Vec<_>>(),
            [("disputed-own", 2)]
        );
        assert_eq!(overview.share(), "0.23 %");
    }
}
