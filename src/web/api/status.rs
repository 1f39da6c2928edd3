//! State of this node.

use axum::Json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asking::{Answer, Asking};
use crate::answers::Status;
use crate::web::Web;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default().routes(routes!(show_status))
}

/// State of this node.
#[utoipa::path(
    get,
    path = "/v1/status",
    operation_id = "show_status",
    tag = "node",
    security(("token" = ["lookup"])),
    responses((status = 200, description = "As it is now.", body = Status)),
)]
async fn show_status(asking: Asking) -> Answer<Status> {
    let answer = asking.node().status(asking.with(l::StatusRequest {})).await?.into_inner();
    Ok(Json(answer.into()))
}
