//! Imports of our company, and taking one back as a whole.

use axum::Json;
use axum::http::StatusCode;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asking::{Answer, Asking, Given, Place, unfit};
use super::given::{self, Digits, Reason};
use crate::replica::ids::hex;
use crate::web::Web;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default().routes(routes!(list_batches)).routes(routes!(undo_batch))
}

/// Imports.
#[derive(Debug, Serialize, ToSchema)]
struct BatchList {
    /// The latest first, at most 1,000.
    batches: Vec<Import>,
    /// There are more.
    truncated: bool,
}

/// An import, as our logs have it.
#[derive(Debug, Serialize, ToSchema)]
struct Import {
    /// 16 digits that name it.
    batch: String,
    /// What was said in it.
    records: u64,
    /// Time of its first block.
    first_ms: u64,
    /// And of its last one.
    last_ms: u64,
}

/// The imports of our company.
#[utoipa::path(
    get,
    path = "/v1/batches",
    operation_id = "list_batches",
    tag = "opinions",
    security(("token" = ["lookup"])),
    responses((status = 200, description = "The latest first.", body = BatchList)),
)]
async fn list_batches(asking: Asking) -> Answer<BatchList> {
    let answer = asking.node().list_batches(asking.with(l::ListBatchesRequest {})).await?.into_inner();
    let batch =
        |b: l::Batch| Import { batch: hex(&b.batch), records: b.records, first_ms: b.first_ms, last_ms: b.last_ms };
    Ok(Json(BatchList { batches: answer.batches.into_iter().map(batch).collect(), truncated: answer.truncated }))
}

/// An import.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct Which {
    /// 16 digits.
    #[param(value_type = String, pattern = "^[0-9a-f]{16}$", example = "00112233445566aa")]
    batch: Digits<8>,
}

/// Why an import is taken back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "reason": "mistake", "dry_run": true }))]
struct UndoGiven {
    /// Others read it.
    reason: Option<Reason>,
    /// Only count.
    #[serde(default)]
    dry_run: bool,
}

/// What became of an import.
#[derive(Debug, Serialize, ToSchema)]
struct Undone {
    /// Which.
    batch: String,
    /// Of the batch in all.
    records: u64,
    /// Withdrawn; with `dry_run`: that would be.
    withdrawn: u64,
    /// Withdrawn before, or our company has said something else since.
    left_alone: u64,
    /// Withdrawals wait in the outbox.
    queued: bool,
    /// Nothing was withdrawn.
    dry_run: bool,
}

/// Withdraw what stands of an import.
///
/// What our company has said since is left alone. The same request again goes on where one was broken off.
#[utoipa::path(
    post,
    path = "/v1/batches/{batch}/undo",
    operation_id = "undo_batch",
    tag = "opinions",
    security(("token" = ["submit"])),
    params(Which),
    request_body = UndoGiven,
    responses((status = 200, description = "All of it is looked at.", body = Undone)),
)]
async fn undo_batch(asking: Asking, Place(which): Place<Which>, Given(given): Given<UndoGiven>) -> Answer<Undone> {
    let request =
        l::UndoBatchRequest { batch: which.batch.bytes(), reason: given::reason(given.reason), dry_run: given.dry_run };
    let mut words = asking.node().undo_batch(asking.with(request)).await?.into_inner();
    let mut told = l::UndoProgress::default();
    while let Some(word) = words.next().await {
        told = word?;
    }
    if !told.stopped.is_empty() {
        let why = format!("{} ({} of {} withdrawn)", told.stopped, told.withdrawn, told.records);
        return Err(unfit(StatusCode::TOO_MANY_REQUESTS, "RATE", &why));
    }
    // The first word tells how many there are: without one, a node that stops would have "undone" nothing.
    if told.records == 0 || told.looked_at < told.records {
        let why = "the node ended its answer before the end: ask again";
        return Err(unfit(StatusCode::SERVICE_UNAVAILABLE, "DRAINING", why));
    }
    Ok(Json(Undone {
        batch: hex(&which.batch.0),
        records: told.records,
        withdrawn: told.withdrawn,
        left_alone: told.left_alone,
        queued: told.queued,
        dry_run: given.dry_run,
    }))
}
