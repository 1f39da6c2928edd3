//! Certified counter-narratives.

use axum::Json;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asking::{Answer, Asking, Filters, Given};
use super::submissions::{ResourceGiven, say};
use crate::answers::{Resource, Submitted};
use crate::web::Web;
use crate::web::problem::Problem;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default().routes(routes!(list_resources, say_resource))
}

/// Which of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only what answers this label of the forum's taxonomy.
    label: Option<String>,
    /// Only in this language: `pt` finds `pt-BR` too.
    language: Option<String>,
    /// Also those that were taken back or have ended.
    #[serde(default)]
    all: bool,
}

/// Counter-narratives.
#[derive(Debug, Serialize, ToSchema)]
struct ResourceList {
    /// At most 1,000.
    resources: Vec<Resource>,
    /// There are more.
    truncated: bool,
}

/// Certified counter-narratives.
#[utoipa::path(
    get,
    path = "/v1/resources",
    operation_id = "list_resources",
    tag = "review",
    security(("token" = ["lookup"])),
    params(Which),
    responses((status = 200, description = "Links, with who certifies each.", body = ResourceList)),
)]
async fn list_resources(asking: Asking, Filters(which): Filters<Which>) -> Answer<ResourceList> {
    let request = l::ListResourcesRequest {
        label: which.label.unwrap_or_default(),
        language: which.language.unwrap_or_default(),
        all: which.all,
    };
    let answer = asking.node().list_resources(asking.with(request)).await?.into_inner();
    let resources = answer.resources.into_iter().map(Resource::from).collect();
    Ok(Json(ResourceList { resources, truncated: answer.truncated }))
}

/// Certify a counter-narrative, or take it back.
#[utoipa::path(
    post,
    path = "/v1/resources",
    operation_id = "say_resource",
    tag = "review",
    security(("token" = ["review"])),
    request_body = ResourceGiven,
    responses(
        (status = 200, description = "Signed, on stable storage, published.", body = Submitted),
        (status = 202, description = "Queued on stable storage, to be signed soon.", body = Submitted),
    ),
)]
async fn say_resource(asking: Asking, Given(given): Given<ResourceGiven>) -> Result<Response, Problem> {
    let statements = vec![l::Statement { resource: Some(given.into()), ..Default::default() }];
    say(&asking, l::SubmitRequest { statements, ..Default::default() }).await
}
