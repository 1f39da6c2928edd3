//! `/batches`: the imports of our company, and taking one back as a whole. What that would withdraw is counted first.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use futures_util::StreamExt as _;
use tonic::{Code, Status};

use super::form::Fields;
use super::page::{Nav, Page, Said, Visitor, html, see_other};
use super::saying;
use crate::net::status::{bad_field, refuse};
use crate::replica::ids::hex;
use crate::replica::record;
use crate::web::{Problem, Web};
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// An import.
struct Batch {
    id: String,
    records: u64,
    first_ms: u64,
    last_ms: u64,
}

/// What undoing one would do.
struct Tried {
    id: String,
    reason: String,
    records: u64,
    withdrawn: u64,
    left_alone: u64,
}

#[derive(Template)]
#[template(path = "batches.html")]
struct BatchesPage {
    page: Page,
    batches: Vec<Batch>,
    truncated: bool,
    tried: Option<Tried>,
    reasons: Vec<&'static str>,
}

/// The imports, the latest first.
pub(super) async fn show(
    State(web): State<Web>,
    visitor: Visitor,
    Query(said): Query<Said>,
) -> Result<Response, Problem> {
    page(&web, &visitor, &said, None).await
}

async fn page(web: &Web, visitor: &Visitor, said: &Said, tried: Option<Tried>) -> Result<Response, Problem> {
    let page = Page::new(web, visitor, "Batches", Nav::Batches, said).await?;
    let answer = web.service.list_batches(web.ask(visitor.caller(), l::ListBatchesRequest {})).await?.into_inner();
    let batch = |b: l::Batch| Batch { id: hex(&b.batch), records: b.records, first_ms: b.first_ms, last_ms: b.last_ms };
    let batches = answer.batches.into_iter().map(batch).collect();
    html(&BatchesPage { page, batches, truncated: answer.truncated, tried, reasons: saying::reasons() })
}

/// Counts what undoing an import would withdraw, or withdraws it.
pub(super) async fn undo(State(web): State<Web>, visitor: Visitor, fields: Fields) -> Result<Response, Problem> {
    let request = request(&fields)?;
    let (id, reason, dry_run) = (hex(&request.batch), request.reason.clone(), request.dry_run);
    let mut words = web.service.undo_batch(web.ask(visitor.caller(), request)).await?.into_inner();
    let mut told = l::UndoProgress::default();
    while let Some(word) = words.next().await {
        told = word?;
    }
    // Also a part of it changes what waits.
    if !dry_run {
        web.hub().lately.forget().await;
    }
    if !told.stopped.is_empty() {
        return Ok(see_other("/batches", "undone-part"));
    }
    if told.records == 0 || told.looked_at < told.records {
        let what = "the node ended its answer before the end: undo it again to go on";
        return Err(refuse(Code::Unavailable, "UNDO", what).into());
    }
    if !dry_run {
        return Ok(see_other("/batches", if told.queued { "queued" } else { "undone" }));
    }
    let l::UndoProgress { records, withdrawn, left_alone, .. } = told;
    let tried = Tried { id, reason, records, withdrawn, left_alone };
    page(&web, &visitor, &Said::default(), Some(tried)).await
}

/// Nothing is withdrawn without the word `undo`: a form that lacks a field only counts.
fn request(fields: &Fields) -> Result<l::UndoBatchRequest, Status> {
    let text = fields.one("batch");
    let batch: [u8; 8] = data_encoding::HEXLOWER_PERMISSIVE
        .decode(text.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| bad_field("batch", format!("is {text:?}, expected 16 hexadecimal digits")))?;
    let reason = fields.one("reason").to_owned();
    if record::reason_number(&reason).is_none() {
        return Err(bad_field("reason", format!("is {reason:?}, which is none of the forum's")));
    }
    Ok(l::UndoBatchRequest { batch: batch.to_vec().into(), reason, dry_run: fields.one("act") != "undo" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;
    use crate::web::console::saying::testing::{HOSTILE, page, posts, rendered};

    #[test]
    fn an_undoing_is_counted_first_unless_it_was_counted() {
        let read = |text: &str| request(&Fields::parse(text.as_bytes()).unwrap());
        assert!(read("batch=0011223344556677&reason=mistake").unwrap().dry_run);
        assert!(read("batch=0011223344556677&reason=mistake&act=count").unwrap().dry_run);
        assert!(!read("batch=0011223344556677&reason=mistake&act=undo").unwrap().dry_run);
        for wrong in
            ["batch=00&reason=mistake", "reason=mistake", "batch=0011223344556677&reason=x", "batch=0011223344556677"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_viewer_finds_no_way_to_undo() {
        let shown = |role: Role| {
            rendered(&BatchesPage {
                page: page(role, Nav::Batches),
                batches: vec![Batch { id: HOSTILE.into(), records: 2, first_ms: 1, last_ms: 2 }],
                truncated: true,
                tried: Some(Tried {
                    id: HOSTILE.into(),
                    reason: HOSTILE.into(),
                    records: 2,
                    withdrawn: 1,
                    left_alone: 1,
                }),
                reasons: saying::reasons(),
            })
        };
        assert_eq!([Role::Viewer, Role::Reviewer].map(|role| posts(&shown(role))), [1, 3]);
    }
}
