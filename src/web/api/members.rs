//! The companies of the forum, from the charter that this node holds.

use axum::Json;
use axum::http::StatusCode;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asking::{Answer, Asking, Place, unfit};
use crate::answers::Company;
use crate::replica::proto;
use crate::web::Web;
use crate::web::problem::Problem;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default().routes(routes!(list_members)).routes(routes!(show_member))
}

/// The companies of the forum.
#[derive(Debug, Serialize, ToSchema)]
struct CompanyList {
    /// In the order of the charter.
    members: Vec<Company>,
}

/// The companies of the forum.
#[utoipa::path(
    get,
    path = "/v1/members",
    operation_id = "list_members",
    tag = "governance",
    security(("token" = ["lookup"])),
    responses((status = 200, description = "All of them, also those that left.", body = CompanyList)),
)]
async fn list_members(asking: Asking) -> Answer<CompanyList> {
    Ok(Json(CompanyList { members: members(&asking).await? }))
}

/// A company.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct Which {
    /// Its name or id.
    #[param(min_length = 1, example = "acme")]
    member: String,
}

/// One company, with its keys, pins and endpoints.
#[utoipa::path(
    get,
    path = "/v1/members/{member}",
    operation_id = "show_member",
    tag = "governance",
    security(("token" = ["lookup"])),
    params(Which),
    responses((status = 200, description = "As the charter has it.", body = Company)),
)]
async fn show_member(asking: Asking, Place(which): Place<Which>) -> Answer<Company> {
    let called = |company: &Company| company.name == which.member || company.id == which.member;
    let found = members(&asking).await?.into_iter().find(called);
    let absent = || unfit(StatusCode::NOT_FOUND, "NOT_FOUND", "no company in the charter is called so");
    found.map(Json).ok_or_else(absent)
}

/// All companies of the charter in force.
async fn members(asking: &Asking) -> Result<Vec<Company>, Problem> {
    let status = asking.node().status(asking.with(l::StatusRequest {})).await?.into_inner();
    let request = l::GetChartersRequest { from_version: status.charter_version };
    let charters = asking.node().get_charters(asking.with(request)).await?.into_inner().charters;
    let charter = charters.into_iter().next().and_then(|signed| {
        let signed = proto::SignedCharter::decode(signed).ok()?;
        proto::Charter::decode(signed.body).ok()
    });
    let charter = charter.ok_or_else(|| {
        unfit(StatusCode::SERVICE_UNAVAILABLE, "CHARTER", "the charter changes at this moment: ask again")
    })?;
    Ok(charter.members.iter().map(|member| Company::of(&charter, member, &status.suspended)).collect())
}
