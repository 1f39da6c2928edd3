//! Our own policy: as it is in force, and its flood breaker.

use axum::Json;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asking::{Answer, Asking, Given};
use super::given::{SignalGiven, only};
use crate::answers::{KeptBlocking, Policy, Signal};
use crate::web::Web;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default().routes(routes!(show_policy)).routes(routes!(reset_breaker))
}

/// Our policy as it is in force, and how often each of its rules has decided.
#[utoipa::path(
    get,
    path = "/v1/policy",
    operation_id = "show_policy",
    tag = "node",
    security(("token" = ["lookup"])),
    responses((status = 200, description = "Its text, and its counters.", body = Policy)),
)]
async fn show_policy(asking: Asking) -> Answer<Policy> {
    let answer = asking.node().get_policy(asking.with(l::GetPolicyRequest {})).await?.into_inner();
    Ok(Json(answer.into()))
}

/// A signal that floods.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ResetGiven {
    /// What is rightly listed.
    #[serde(deserialize_with = "only::object")]
    signal: SignalGiven,
}

/// Keep what the list says of a signal that matches far more often than it used to.
///
/// A person has looked at it. Local: nothing is signed, and a restart forgets it.
#[utoipa::path(
    post,
    path = "/v1/policy/breaker/reset",
    operation_id = "reset_breaker",
    tag = "review",
    security(("token" = ["review"])),
    request_body = ResetGiven,
    responses((status = 200, description = "It has its verdict back.", body = KeptBlocking)),
)]
async fn reset_breaker(asking: Asking, Given(given): Given<ResetGiven>) -> Answer<KeptBlocking> {
    let signal = l::Signal::from(given.signal);
    let request = l::ResetBreakerRequest { signal: Some(signal.clone()) };
    let answer = asking.node().reset_breaker(asking.with(request)).await?.into_inner();
    let signal = Signal { r#type: signal.r#type, value: signal.value, quality: None };
    Ok(Json(KeptBlocking { signal, until_ms: answer.until_ms }))
}
