//! Our own logs, and checking all of them.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asking::{Answer, Asking, Given, Place};
use super::given::{self, Digits, Reason};
use crate::answers::{EndedLog, Receipt, Verified};
use crate::web::Web;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default()
        .routes(routes!(show_record))
        .routes(routes!(verify_log))
        .routes(routes!(rotate_logs))
        .routes(routes!(close_logs))
        .routes(routes!(resubmit))
}

/// A record, by its place.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct RecordPlace {
    /// Whose log.
    #[param(value_type = String, pattern = "^[0-9a-f]{32}$", example = "00112233445566778899aabbccddeeff")]
    member_id: Digits<16>,
    /// Which log.
    #[param(example = 0)]
    log_no: u32,
    /// Which block of it, from 1.
    #[param(example = 1)]
    seq: u64,
    /// Which record of the block, from 0.
    #[param(example = 0)]
    index: u32,
}

impl From<RecordPlace> for l::GetRecordRequest {
    fn from(place: RecordPlace) -> Self {
        Self { member_id: place.member_id.bytes(), log_no: place.log_no, seq: place.seq, index: place.index }
    }
}

/// One record, with the path from it to a signature.
#[utoipa::path(
    get,
    path = "/v1/records/{member_id}/{log_no}/{seq}/{index}",
    operation_id = "show_record",
    tag = "evidence",
    security(("token" = ["lookup"])),
    params(RecordPlace),
    responses((status = 200, description = "Without the record's bytes where it was erased.", body = Receipt)),
)]
async fn show_record(asking: Asking, Place(place): Place<RecordPlace>) -> Answer<Receipt> {
    let answer = asking.node().get_record(asking.with(place.into())).await?.into_inner();
    Ok(Json(answer.receipt.unwrap_or_default().into()))
}

/// Check every signature, chain and root of what this node has stored.
#[utoipa::path(
    post,
    path = "/v1/log/verify",
    operation_id = "verify_log",
    tag = "governance",
    security(("token" = ["admin"])),
    responses((status = 200, description = "What was found.", body = Verified)),
)]
async fn verify_log(asking: Asking) -> Answer<Verified> {
    let answer = asking.node().verify_log(asking.with(l::VerifyLogRequest {})).await?.into_inner();
    Ok(Json(answer.into()))
}

/// Logs that were ended.
#[derive(Debug, Serialize, ToSchema)]
struct EndedLogs {
    /// One a lane that had a log.
    logs: Vec<EndedLog>,
}

impl From<Vec<l::RotatedLog>> for EndedLogs {
    fn from(logs: Vec<l::RotatedLog>) -> Self {
        Self { logs: logs.into_iter().map(EndedLog::from).collect() }
    }
}

/// Close our logs, draw a new log seed, and go on under the next numbers.
#[utoipa::path(
    post,
    path = "/v1/log/rotate",
    operation_id = "rotate_logs",
    tag = "governance",
    security(("token" = ["admin"])),
    responses((status = 200, description = "The logs that were closed.", body = EndedLogs)),
)]
async fn rotate_logs(asking: Asking) -> Answer<EndedLogs> {
    let answer = asking.node().rotate_logs(asking.with(l::RotateLogsRequest {})).await?.into_inner();
    Ok(Json(answer.logs.into()))
}

/// Why our logs are ended.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "reason": "other" }))]
struct CloseGiven {
    /// Others read it.
    reason: Option<Reason>,
}

/// End our logs under the seed that we have: on leaving, or before a long rest.
///
/// What is said after that opens new ones.
#[utoipa::path(
    post,
    path = "/v1/log/close",
    operation_id = "close_logs",
    tag = "governance",
    security(("token" = ["admin"])),
    request_body = CloseGiven,
    responses((status = 200, description = "The logs that were closed.", body = EndedLogs)),
)]
async fn close_logs(asking: Asking, Given(given): Given<CloseGiven>) -> Answer<EndedLogs> {
    let request = l::CloseLogsRequest { reason: given::reason(given.reason) };
    let answer = asking.node().close_logs(asking.with(request)).await?.into_inner();
    Ok(Json(answer.logs.into()))
}

/// What is said again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "from_peers": false }))]
struct ResubmitGiven {
    /// Also what stands in blocks that peers gave back. Not after a stolen key: the thief's blocks are among them.
    #[serde(default)]
    from_peers: bool,
}

/// What was said again.
#[derive(Debug, Serialize, ToSchema)]
struct Resubmitted {
    /// Signed again, durable and published.
    records: u64,
    /// They wait for the startup guard.
    queued: bool,
}

/// Say again what stands in blocks of ours that do not count any more, as far as it is still our word.
#[utoipa::path(
    post,
    path = "/v1/log/resubmit",
    operation_id = "resubmit",
    tag = "governance",
    security(("token" = ["admin"])),
    request_body = ResubmitGiven,
    responses((status = 200, description = "How much there was.", body = Resubmitted)),
)]
async fn resubmit(asking: Asking, Given(given): Given<ResubmitGiven>) -> Answer<Resubmitted> {
    let request = l::ResubmitRequest { from_peers: given.from_peers };
    let answer = asking.node().resubmit(asking.with(request)).await?.into_inner();
    Ok(Json(Resubmitted { records: answer.records, queued: answer.queued }))
}
