//! Who of our company did what over a network.

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asking::{Asking, Filters};
use super::entries::{JSON_LINES, line};
use crate::answers::AuditedAct;
use crate::web::Web;
use crate::web::problem::Problem;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default().routes(routes!(export_audit))
}

/// From when on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Since {
    /// Acts since then, in Unix milliseconds; 0: all that are kept.
    #[serde(default)]
    from_ms: u64,
}

/// Who of our company did what over a network, the oldest first.
#[utoipa::path(
    get,
    path = "/v1/audit",
    operation_id = "export_audit",
    tag = "access",
    security(("token" = ["admin"])),
    params(Since),
    responses((
        status = 200,
        description = "JSON lines: time_ms, caller, via, request_id, action, target and outcome of each act.",
        body = String,
        content_type = "application/x-ndjson",
    )),
)]
async fn export_audit(asking: Asking, Filters(since): Filters<Since>) -> Result<Response, Problem> {
    let acts = asking.node().list_audit(asking.with(l::ListAuditRequest { from_ms: since.from_ms })).await?;
    let lines = acts.into_inner().map(|act| {
        act.map(|act| {
            let mut text = Vec::new();
            line(&mut text, &AuditedAct::from(act));
            bytes::Bytes::from(text)
        })
    });
    Ok(([(header::CONTENT_TYPE, JSON_LINES)], Body::from_stream(lines)).into_response())
}
