//! Peers, as seen from here.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asking::{Answer, Asking};
use crate::answers::{Peer, RefusedConnection};
use crate::web::Web;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default().routes(routes!(list_peers))
}

/// Peers, and who was refused.
#[derive(Debug, Serialize, ToSchema)]
struct PeerList {
    /// All members but us.
    peers: Vec<Peer>,
    /// Who dialled us and came through no door; the latest, oldest first.
    refused: Vec<RefusedConnection>,
}

/// State of each peer.
#[utoipa::path(
    get,
    path = "/v1/peers",
    operation_id = "list_peers",
    tag = "node",
    security(("token" = ["lookup"])),
    responses((status = 200, description = "As it is now.", body = PeerList)),
)]
async fn list_peers(asking: Asking) -> Answer<PeerList> {
    let answer = asking.node().list_peers(asking.with(l::ListPeersRequest {})).await?.into_inner();
    let refused = answer.refused.into_iter().map(RefusedConnection::from).collect();
    Ok(Json(PeerList { peers: answer.peers.into_iter().map(Peer::from).collect(), refused }))
}
