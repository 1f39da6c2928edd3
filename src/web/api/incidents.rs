//! Attacks: listed, opened and closed.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asking::{Answer, Asking, Given};
use super::given::Digits;
use crate::answers::{Incident, Submitted};
use crate::clock;
use crate::replica::ids::hex;
use crate::web::Web;
use crate::web::problem::Problem;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default().routes(routes!(list_incidents, say_incident))
}

/// Attacks.
#[derive(Debug, Serialize, ToSchema)]
struct IncidentList {
    /// The latest word first, at most 1,000.
    incidents: Vec<Incident>,
    /// There are more.
    truncated: bool,
}

/// Attacks, open and closed.
#[utoipa::path(
    get,
    path = "/v1/incidents",
    operation_id = "list_incidents",
    tag = "review",
    security(("token" = ["lookup"])),
    responses((status = 200, description = "The latest word first.", body = IncidentList)),
)]
async fn list_incidents(asking: Asking) -> Answer<IncidentList> {
    let answer = asking.node().list_incidents(asking.with(l::ListIncidentsRequest {})).await?.into_inner();
    let incidents = answer.incidents.into_iter().map(Incident::from).collect();
    Ok(Json(IncidentList { incidents, truncated: answer.truncated }))
}

/// Our company's word on an attack.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "open": true, "label": "livestream", "level": 3, "closes_ms": 1_900_000_000_000_u64 }))]
struct IncidentGiven {
    /// Which; without it a new one.
    #[schema(value_type = Option<String>, pattern = "^[0-9a-f]{32}$")]
    id: Option<Digits<16>>,
    /// False closes what our company opened.
    open: bool,
    /// Name of the forum's taxonomy; required with `open`.
    #[serde(default)]
    label: String,
    /// 1 low to 4 imminent threat to life; 0: not stated.
    #[serde(default)]
    #[schema(maximum = 4)]
    level: u32,
    /// Required with `open`: when it closes by itself, at most 30 days from now, in Unix milliseconds.
    #[serde(default)]
    closes_ms: u64,
}

/// What became of our word.
#[derive(Debug, Serialize, ToSchema)]
struct IncidentSaid {
    /// The attack, to tie entries to it.
    id: String,
    /// Our word.
    #[serde(flatten)]
    submitted: Submitted,
}

/// Open an attack in the urgent lane, or close what our company opened.
#[utoipa::path(
    post,
    path = "/v1/incidents",
    operation_id = "say_incident",
    tag = "review",
    security(("token" = ["review"])),
    request_body = IncidentGiven,
    responses(
        (status = 200, description = "Signed, on stable storage, published.", body = IncidentSaid),
        (status = 202, description = "Queued on stable storage, to be signed soon.", body = IncidentSaid),
    ),
)]
async fn say_incident(asking: Asking, Given(given): Given<IncidentGiven>) -> Result<Response, Problem> {
    let Digits(id) = given.id.unwrap_or_else(|| Digits(clock::random()));
    let incident = l::IncidentNotice {
        id: id.to_vec().into(),
        label: given.label,
        level: given.level,
        open: given.open,
        closes_ms: given.closes_ms,
    };
    let statements = vec![l::Statement { incident: Some(incident), ..Default::default() }];
    let request = l::SubmitRequest { statements, lane: l::Lane::Urgent.into(), ..Default::default() };
    let answer = Box::pin(asking.node().submit(asking.with(request))).await?.into_inner();
    let queued = answer.state() == l::SubmitState::Queued;
    let status = if queued { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(IncidentSaid { id: hex(&id), submitted: answer.into() })).into_response())
}
