//! `/audit`: who of our company did what by the network, for administrators. Local; it leaves the node only as a file
//! that somebody asks for, which is an act of its own.

use std::collections::VecDeque;

use askama::Template;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use tonic::Status;

use super::page::{Nav, Page, Said, Tone, Visitor, html};
use super::pieces::{counted, encoded};
use crate::access::Act;
use crate::net::status::bad_field;
use crate::report::time;
use crate::web::{Problem, Web};
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// Acts that are shown, the latest first; the file has all of them.
const SHOWN_MAX: usize = 200;

/// What is looked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    caller: String,
    action: String,
    from: String,
    said: String,
}

impl Asked {
    fn since_ms(&self) -> Result<u64, Status> {
        match self.from.as_str() {
            "" => Ok(0),
            text => time::parse(text).map(|at| at.0).map_err(|why| bad_field("from", why)),
        }
    }

    fn fits(&self, act: &l::AuditedAct) -> bool {
        (self.caller.is_empty() || act.caller == self.caller)
            && (self.action.is_empty() || act.action.starts_with(&self.action))
    }
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    page: Page,
    acts: Vec<l::AuditedAct>,
    found: String,
    caller: String,
    action: String,
    from: String,
    query: String,
}

/// The trail, the latest first.
pub(super) async fn show(
    State(web): State<Web>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let request = l::ListAuditRequest { from_ms: asked.since_ms()? };
    let mut trail = web.service.list_audit(web.ask(visitor.caller(), request)).await?.into_inner();
    let (mut acts, mut found) = (VecDeque::new(), 0);
    while let Some(act) = trail.next().await {
        let act = act?;
        if asked.fits(&act) {
            found += 1;
            acts.push_back(act);
            // The trail is told from its beginning; only its end is kept.
            if acts.len() > SHOWN_MAX {
                acts.pop_front();
            }
        }
    }
    let page = Page::new(&web, &visitor, "Audit trail", Nav::Audit, &Said::of(&asked.said)).await?;
    html(&AuditPage {
        page,
        found: counted(found, "act"),
        acts: acts.into_iter().rev().collect(),
        query: format!(
            "caller={}&action={}&from={}",
            encoded(&asked.caller),
            encoded(&asked.action),
            encoded(&asked.from)
        ),
        caller: asked.caller,
        action: asked.action,
        from: asked.from,
    })
}

/// The trail as a file, one JSON value a line, the oldest first.
pub(super) async fn export(
    State(web): State<Web>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let request = l::ListAuditRequest { from_ms: asked.since_ms()? };
    let trail = web.service.list_audit(web.ask(visitor.caller(), request)).await?.into_inner();
    let lines = trail.filter_map(move |act| {
        let line = match act {
            Ok(act) if asked.fits(&act) => Some(line(act)),
            Ok(_) => None,
            Err(status) => Some(Err(status)),
        };
        std::future::ready(line)
    });
    let headers =
        [(CONTENT_TYPE, "application/x-ndjson"), (CONTENT_DISPOSITION, "attachment; filename=\"audit.jsonl\"")];
    Ok((headers, Body::from_stream(lines)).into_response())
}

/// As the trail itself has it.
fn line(act: l::AuditedAct) -> Result<Bytes, Status> {
    let act = Act {
        time_ms: act.time_ms,
        caller: act.caller,
        via: act.via,
        request_id: act.request_id,
        action: act.action,
        target: act.target,
        outcome: act.outcome,
    };
    let mut line = serde_json::to_vec(&act).map_err(|e| Status::internal(e.to_string()))?;
    line.push(b'\n');
    Ok(line.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;
    use crate::web::console::saying::testing::{HOSTILE, page, posts, rendered};

    fn act(caller: &str, action: &str) -> l::AuditedAct {
        l::AuditedAct { caller: caller.into(), action: action.into(), target: "a\nb".into(), ..Default::default() }
    }

    #[test]
    fn the_filter_takes_a_whole_name_and_the_beginning_of_an_action() {
        let asked = Asked { caller: "anna".into(), action: "token".into(), ..Asked::default() };
        assert!(asked.fits(&act("anna", "token revoke")));
        assert!(!asked.fits(&act("annabel", "token revoke")) && !asked.fits(&act("anna", "submit")));
        assert!(Asked::default().fits(&act("anna", "submit")));
        assert!(Asked { from: "soon".into(), ..Asked::default() }.since_ms().is_err());
    }

    #[test]
    fn an_act_is_one_line_whatever_is_in_it() {
        let line = line(act("anna", "submit")).unwrap();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let read: Act = serde_json::from_slice(&line).unwrap();
        assert_eq!(read.target, "a\nb");
    }

    #[test]
    fn what_was_done_is_shown_as_text() {
        let act = l::AuditedAct {
            caller: HOSTILE.into(),
            via: HOSTILE.into(),
            request_id: HOSTILE.into(),
            action: HOSTILE.into(),
            target: HOSTILE.into(),
            outcome: HOSTILE.into(),
            time_ms: 1,
        };
        let text = rendered(&AuditPage {
            page: page(Role::Admin, Nav::Audit),
            acts: vec![act],
            found: "1 act".into(),
            caller: HOSTILE.into(),
            action: HOSTILE.into(),
            from: HOSTILE.into(),
            query: encoded(HOSTILE),
        });
        assert_eq!(posts(&text), 1);
    }
}
