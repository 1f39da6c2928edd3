//! What labels mean here.

use axum::Json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asking::{Answer, Asking};
use crate::answers::Taxonomy;
use crate::web::Web;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default().routes(routes!(show_taxonomy))
}

/// The taxonomy of the charter in force.
#[utoipa::path(
    get,
    path = "/v1/taxonomy",
    operation_id = "show_taxonomy",
    tag = "governance",
    security(("token" = ["lookup"])),
    responses((status = 200, description = "Its labels, by number.", body = Taxonomy)),
)]
async fn show_taxonomy(asking: Asking) -> Answer<Taxonomy> {
    let answer = asking.node().get_taxonomy(asking.with(l::GetTaxonomyRequest {})).await?.into_inner();
    Ok(Json(answer.into()))
}
