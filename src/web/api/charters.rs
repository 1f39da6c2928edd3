//! Charters: those that this node holds, and the next one.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use ed25519_dalek::VerifyingKey;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use super::asking::{Answer, Asking, Filters, Given, unfit, unfit_field};
use crate::access::Scope;
use crate::answers::{Charter, Member};
use crate::replica::charter::{self, charter_hash, charter_signature_holds};
use crate::replica::ids::{KeyId, hex};
use crate::replica::proto;
use crate::replica::taxonomy::Named;
use crate::taxonomy::shelf;
use crate::web::Web;
use crate::web::problem::Problem;
use crate::wire::files::CharterFile;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// Bytes of a charter file with its JSON around it: the chain before it and two taxonomies.
const CHARTER_BYTES_MAX: usize = 16 << 20;

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default()
        .routes(routes!(list_charters))
        .routes(routes!(apply_charter).layer(DefaultBodyLimit::max(CHARTER_BYTES_MAX)))
}

/// From where on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct From {
    /// Charters from this version on; 0: all of them.
    #[serde(default)]
    from_version: u64,
}

/// The charter chain.
#[derive(Debug, Serialize, ToSchema)]
struct CharterChain {
    /// Ascending by version; the last one is in force.
    charters: Vec<Charter>,
}

/// The charter chain as this node holds it.
#[utoipa::path(
    get,
    path = "/v1/charters",
    operation_id = "list_charters",
    tag = "governance",
    security(("token" = ["lookup"])),
    params(From),
    responses((status = 200, description = "Ascending by version.", body = CharterChain)),
)]
async fn list_charters(asking: Asking, Filters(from): Filters<From>) -> Answer<CharterChain> {
    let forum = hex(&asking.node().status(asking.with(l::StatusRequest {})).await?.into_inner().forum_id);
    let answer = asking.node().get_charters(asking.with(l::GetChartersRequest::default())).await?.into_inner();
    let mut before = BTreeMap::new();
    let mut charters = Vec::new();
    for signed in answer.charters {
        let signed = proto::SignedCharter::decode(signed).map_err(|error| damaged(&error))?;
        let charter = charter::Charter::decode(&signed.body).map_err(|error| damaged(&error))?;
        let founders = charter.founders.clone();
        if charter.version >= from.from_version {
            charters.push(shown(&forum, &signed, charter, &before));
        }
        before = founders;
    }
    Ok(Json(CharterChain { charters }))
}

fn damaged(error: &dyn std::error::Error) -> Problem {
    unfit(StatusCode::INTERNAL_SERVER_ERROR, "BUG", &format!("a charter in force does not decode: {error}"))
}

/// A charter, with who of the founders before it and of its own has signed it.
fn shown(
    forum: &str,
    signed: &proto::SignedCharter,
    charter: charter::Charter,
    before: &BTreeMap<KeyId, VerifyingKey>,
) -> Charter {
    let signatures = signed.sigs.iter().filter_map(|sig| {
        let id = KeyId::from_slice(&sig.key_id)?;
        let key = charter.founders.get(&id).or_else(|| before.get(&id))?;
        charter_signature_holds(key, &signed.body, sig).then(|| id.to_string())
    });
    Charter {
        forum_id: Some(forum.to_owned()),
        version: charter.version,
        hash: charter_hash(&signed.body).to_string(),
        issued_ms: charter.issued.0,
        valid_until_ms: charter.valid_until.0,
        founders: charter.founders.keys().map(ToString::to_string).collect(),
        threshold: charter.threshold,
        signed: signatures.collect(),
        missing: Vec::new(),
        members: charter.members.values().map(Member::from).collect(),
        changes: None,
        warnings: None,
        name: charter.name,
    }
}

/// The next charter.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CharterGiven {
    /// The text of the charter file (`.sdc`) that enough founders have signed.
    #[schema(min_length = 1)]
    file: String,
}

/// The charter that is in force now.
#[derive(Debug, Serialize, ToSchema)]
struct Applied {
    /// 2, 3, ...
    version: u64,
    /// Of its body.
    hash: String,
}

/// Apply a charter; it spreads from here to all members.
#[utoipa::path(
    post,
    path = "/v1/charters",
    operation_id = "apply_charter",
    tag = "governance",
    security(("token" = ["admin"])),
    request_body = CharterGiven,
    responses((status = 200, description = "It is in force here.", body = Applied)),
)]
async fn apply_charter(asking: Asking, Given(given): Given<CharterGiven>) -> Answer<Applied> {
    asking.needs(Scope::Admin)?;
    let wrong = |why: String| unfit_field("file", &why);
    let file = CharterFile::parse(&given.file).map_err(|error| wrong(error.to_string()))?;
    let body = file.body().map_err(|error| wrong(error.to_string()))?;
    let named = Named::parse(&body.taxonomy);
    let taxonomy = named.and_then(|named| file.taxonomies.iter().find(|text| shelf::understood(&named, text).is_ok()));
    let request = l::ApplyCharterRequest {
        charter: file.proposed.encode_to_vec().into(),
        taxonomy: taxonomy.cloned().unwrap_or_default(),
    };
    let answer = asking.node().apply_charter(asking.with(request)).await?.into_inner();
    Ok(Json(Applied { version: answer.version, hash: hex(&answer.charter_hash) }))
}
