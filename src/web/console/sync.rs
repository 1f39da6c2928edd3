//! `/sync`: who has what, as seen from here: each peer, what is refused and why, forks that were seen, and what an
//! administrator may do with our own logs.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use tonic::Code;

use super::form::Fields;
use super::page::{Nav, Page, Said, Tone, Visitor, html, see_other};
use super::pieces::{count, counted};
use super::saying::{self, days_left, span};
use super::svg::{Chart, Drawn};
use crate::net::status::{bad_field, refuse_with_fix};
use crate::replica::ids::{TimeMs, hex};
use crate::web::{Problem, Web};
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// Refused connections that are shown, the latest first; the node remembers no more than some hundreds.
const REFUSED_SHOWN_MAX: usize = 50;

/// A peer, in sentences.
struct Peer {
    member: String,
    endpoint: String,
    tone: Tone,
    state: String,
    ours: String,
    theirs: String,
    lag: String,
    last_heard_ms: u64,
    clock: String,
    clock_tone: Tone,
    agrees: &'static str,
    agrees_tone: Tone,
    certificate: Option<(u64, Tone)>,
    cause: String,
    fix: String,
    retry: String,
}

/// Somebody who dialled, and no connection came about.
struct Refused {
    at_ms: u64,
    who: String,
    cause: String,
    fix: String,
}

/// A log with a proof against it.
struct Fork {
    member: String,
    log_no: u32,
    lane: String,
    at: u64,
}

#[derive(Template)]
#[template(path = "sync.html")]
struct SyncPage {
    page: Page,
    peers: Vec<Peer>,
    refused: Vec<Refused>,
    /// By reason; none where nobody was refused.
    refusals: Option<Drawn>,
    forks: Vec<Fork>,
    status: l::StatusResponse,
    digest: String,
    reasons: Vec<&'static str>,
    verified: Option<Verified>,
}

/// What checking everything has found.
struct Verified {
    logs: String,
    blocks: String,
    records: String,
    broken: String,
    view_hour_ms: u64,
    digest: String,
}

/// The state of all connections.
pub(super) async fn show(
    State(web): State<Web>,
    visitor: Visitor,
    Query(said): Query<Said>,
) -> Result<Response, Problem> {
    page(&web, &visitor, &said, None).await
}

async fn page(web: &Web, visitor: &Visitor, said: &Said, verified: Option<Verified>) -> Result<Response, Problem> {
    let page = Page::new(web, visitor, "Sync", Nav::Sync, said).await?;
    let status = web.service.status(web.ask(visitor.caller(), l::StatusRequest {})).await?.into_inner();
    let answer = web.service.list_peers(web.ask(visitor.caller(), l::ListPeersRequest {})).await?.into_inner();
    let forked = status.heads.iter().filter(|head| head.forked_at > 0);
    let fork = |head: &l::LogHead| Fork {
        member: head.member.clone(),
        log_no: head.log_no,
        lane: head.lane.clone(),
        at: head.forked_at,
    };
    html(&SyncPage {
        peers: answer.peers.iter().map(|p| peer(p, page.now)).collect(),
        refused: answer.refused.iter().rev().take(REFUSED_SHOWN_MAX).map(refused).collect(),
        refusals: (!answer.refusals.is_empty()).then(|| refusals(&answer.refusals)),
        forks: forked.map(fork).collect(),
        digest: hex(&status.view_digest),
        reasons: saying::reasons(),
        status,
        verified,
        page,
    })
}

fn peer(p: &l::PeerState, now: TimeMs) -> Peer {
    let missing = p.theirs_missing_here;
    let (cause, fix) = p.last_error.split_once("; fix: ").unwrap_or((&p.last_error, ""));
    let (tone, state) = state(&p.state);
    let offset = p.clock_offset_ms.unsigned_abs();
    let side = if p.clock_offset_ms < 0 { "behind" } else { "ahead" };
    let heard = TimeMs(p.last_heard_ms);
    let (agrees_tone, agrees) = match p.agrees.as_str() {
        "YES" => (Tone::Ok, "the same"),
        "NO" => (Tone::Bad, "differs"),
        _ => (Tone::Note, "not compared yet"),
    };
    Peer {
        member: p.member.clone(),
        endpoint: p.endpoint.clone(),
        tone,
        state,
        ours: held(p.blocks_there.saturating_sub(missing), p.blocks_there, "theirs"),
        theirs: held(p.blocks_here.saturating_sub(p.ours_missing_there), p.blocks_here, "ours"),
        lag: match (missing, heard) {
            (_, TimeMs(0)) => "not heard of yet".to_owned(),
            (0, _) => "none".to_owned(),
            (n, at) => format!("{}, {}", counted(n, "block"), span(now.since(at))),
        },
        last_heard_ms: p.last_heard_ms,
        clock: if offset == 0 { "0 ms".to_owned() } else { format!("{} {side}", span(offset)) },
        clock_tone: if offset > 10_000 { Tone::Warn } else { Tone::Ok },
        agrees,
        agrees_tone,
        certificate: days_left(TimeMs(p.certificate_until_ms), now),
        cause: cause.to_owned(),
        fix: fix.to_owned(),
        retry: if p.retry_ms > 0 { format!("again in {}", span(p.retry_ms)) } else { String::new() },
    }
}

/// `18 204 of their 18 204`.
fn held(have: u64, of: u64, whose: &str) -> String {
    let whose = if whose == "theirs" { "their" } else { "our" };
    format!("{} of {whose} {}", count(have), count(of))
}

fn state(name: &str) -> (Tone, String) {
    let (tone, words) = match name {
        "FOLLOWING" => (Tone::Ok, "following"),
        "PULLING" => (Tone::Note, "catching up"),
        "HELLO" => (Tone::Note, "greeting"),
        "IDLE" => (Tone::Note, "not connected"),
        "BACKOFF" => (Tone::Warn, "waiting to try again"),
        "BANNED" => (Tone::Bad, "shut out"),
        other => return (Tone::Note, other.to_lowercase()),
    };
    (tone, words.to_owned())
}

fn refused(c: &l::RefusedConnection) -> Refused {
    let alert = match c.alert.as_str() {
        "" => String::new(),
        alert if c.told_us => format!(" (they sent {alert})"),
        alert => format!(" (told {alert})"),
    };
    let who = if c.member.is_empty() { c.address.clone() } else { format!("{}, key of {}", c.address, c.member) };
    Refused { at_ms: c.at_ms, who, cause: format!("{}{alert}", c.cause), fix: c.fix.clone() }
}

fn refusals(counts: &[l::RefusalCount]) -> Drawn {
    Chart::new("refusals", "Refused connections by reason", "Since the start of this node.")
        .over("reason", counts.iter().map(|c| c.reason.clone()).collect())
        .with("refused", counts.iter().map(|c| c.count).collect())
        .bars()
}

/// What an administrator does with our logs.
pub(super) async fn act(State(web): State<Web>, visitor: Visitor, fields: Fields) -> Result<Response, Problem> {
    let sure = || match fields.ticked("sure") {
        true => Ok(()),
        false => Err(bad_field("sure", "is not ticked: this cannot be undone")),
    };
    match fields.one("act") {
        "verify" => {
            let answer = web.service.verify_log(web.ask(visitor.caller(), l::VerifyLogRequest {})).await?.into_inner();
            page(&web, &visitor, &Said::default(), Some(verified(answer))).await
        }
        "rotate" => {
            sure()?;
            web.service.rotate_logs(web.ask(visitor.caller(), l::RotateLogsRequest {})).await?;
            Ok(see_other("/sync", "rotated"))
        }
        "close" => {
            sure()?;
            let request = l::CloseLogsRequest { reason: fields.one("reason").to_owned() };
            web.service.close_logs(web.ask(visitor.caller(), request)).await?;
            Ok(see_other("/sync", "logs-closed"))
        }
        "resubmit" => {
            sure()?;
            let request = l::ResubmitRequest { from_peers: fields.ticked("from_peers") };
            let answer = web.service.resubmit(web.ask(visitor.caller(), request)).await?.into_inner();
            Ok(see_other("/sync", if answer.queued { "queued" } else { "said-again" }))
        }
        other => {
            let what = format!("{other:?} is nothing that can be done here");
            Err(refuse_with_fix(Code::InvalidArgument, "FIELD", what, "verify, rotate, close or resubmit").into())
        }
    }
}

fn verified(v: l::VerifyLogResponse) -> Verified {
    Verified {
        logs: count(v.logs),
        blocks: count(v.blocks),
        records: count(v.records),
        broken: v.first_break,
        view_hour_ms: v.view_hour_ms,
        digest: hex(&v.view_digest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;
    use crate::web::console::saying::testing::{HOSTILE, page, posts, rendered};

    const NOW: TimeMs = TimeMs(1_795_000_000_000);

    #[test]
    fn a_peer_is_told_in_both_directions() {
        let state = l::PeerState {
            blocks_there: 10,
            theirs_missing_here: 3,
            blocks_here: 8,
            ours_missing_there: 1,
            last_heard_ms: NOW.0 - 4_000,
            clock_offset_ms: -12_000,
            agrees: "NO".into(),
            state: "BACKOFF".into(),
            last_error: "refused; fix: ask a founder".into(),
            ..Default::default()
        };
        let told = peer(&state, NOW);
        assert_eq!((told.ours.as_str(), told.theirs.as_str()), ("7 of their 10", "7 of our 8"));
        assert_eq!((told.lag.as_str(), told.clock.as_str()), ("3 blocks, 4 s", "12 s behind"));
        assert_eq!((told.cause.as_str(), told.fix.as_str()), ("refused", "ask a founder"));
        assert_eq!((told.agrees, told.clock_tone, told.tone), ("differs", Tone::Warn, Tone::Warn));
        assert_eq!(peer(&l::PeerState::default(), NOW).lag, "not heard of yet");
    }

    #[test]
    fn a_refused_connection_says_who_why_and_what_to_do() {
        let connection = l::RefusedConnection {
            address: "192.0.2.7:4711".into(),
            member: "bolt".into(),
            cause: "key not in the charter".into(),
            alert: "AccessDenied".into(),
            fix: "admit it".into(),
            ..Default::default()
        };
        let told = refused(&connection);
        assert_eq!(told.who, "192.0.2.7:4711, key of bolt");
        assert_eq!(told.cause, "key not in the charter (told AccessDenied)");
    }

    fn shown(role: Role) -> String {
        let words = || HOSTILE.to_owned();
        let state = l::PeerState {
            member: words(),
            endpoint: words(),
            state: words(),
            agrees: words(),
            last_error: format!("{HOSTILE}; fix: {HOSTILE}"),
            ..Default::default()
        };
        let connection = l::RefusedConnection {
            address: words(),
            member: words(),
            cause: words(),
            alert: words(),
            fix: words(),
            ..Default::default()
        };
        rendered(&SyncPage {
            page: page(role, Nav::Sync),
            peers: vec![peer(&state, NOW)],
            refused: vec![refused(&connection)],
            refusals: Some(refusals(&[l::RefusalCount { reason: words(), count: 1 }])),
            forks: vec![Fork { member: words(), log_no: 0, lane: words(), at: 7 }],
            status: l::StatusResponse { health_reasons: vec![words()], ..Default::default() },
            digest: words(),
            reasons: saying::reasons(),
            verified: Some(verified(l::VerifyLogResponse { first_break: words(), ..Default::default() })),
        })
    }

    #[test]
    fn only_an_administrator_finds_what_changes_our_logs() {
        assert_eq!([Role::Viewer, Role::Reviewer, Role::Admin].map(|role| posts(&shown(role))), [1, 1, 5]);
    }
}
