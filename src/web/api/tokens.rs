//! Tokens of our people and programs.

use axum::Json;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asking::{Answer, Asking, Given, Place};
use crate::answers::{NewToken, Token};
use crate::web::Web;
use crate::web::problem::Problem;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default().routes(routes!(list_tokens, make_token)).routes(routes!(revoke_token))
}

/// Tokens.
#[derive(Debug, Serialize, ToSchema)]
struct TokenList {
    /// By name.
    tokens: Vec<Token>,
}

/// The tokens that there are, without their texts.
#[utoipa::path(
    get,
    path = "/v1/tokens",
    operation_id = "list_tokens",
    tag = "access",
    security(("token" = ["admin"])),
    responses((status = 200, description = "By name.", body = TokenList)),
)]
async fn list_tokens(asking: Asking) -> Answer<TokenList> {
    let answer = asking.node().list_tokens(asking.with(l::ListTokensRequest {})).await?.into_inner();
    Ok(Json(TokenList { tokens: answer.tokens.into_iter().map(Token::from).collect() }))
}

/// What a person is to the node.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum TokenRole {
    /// Looks up and reads.
    Viewer,
    /// Also speaks for the company.
    Reviewer,
    /// Also runs the node.
    Admin,
}

impl TokenRole {
    fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Reviewer => "reviewer",
            Self::Admin => "admin",
        }
    }
}

/// One thing that a program may.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum TokenScope {
    /// To look up and to read.
    Lookup,
    /// To say what our company thinks of something.
    Submit,
    /// To work off the queue, certify, vote, and open incidents.
    Review,
    /// To read `/metrics`.
    Metrics,
    /// Everything.
    Admin,
}

impl TokenScope {
    fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Submit => "submit",
            Self::Review => "review",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }
}

/// A token that is wanted: of a person by role, or of a program by scopes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "name": "upload-service", "scopes": ["lookup"] }))]
struct TokenGiven {
    /// Whose it is.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._@-]+$")]
    name: String,
    /// Of a person.
    role: Option<TokenRole>,
    /// Of a program.
    #[serde(default)]
    scopes: Vec<TokenScope>,
    /// Within 400 days; 0: in 30 days.
    #[serde(default)]
    expires_ms: u64,
}

/// Make a token for a person or a program of our company.
#[utoipa::path(
    post,
    path = "/v1/tokens",
    operation_id = "make_token",
    tag = "access",
    security(("token" = ["admin"])),
    request_body = TokenGiven,
    responses((status = 201, description = "Its text; the node keeps nothing but a hash.", body = NewToken)),
)]
async fn make_token(asking: Asking, Given(given): Given<TokenGiven>) -> Result<(StatusCode, Json<NewToken>), Problem> {
    let request = l::CreateTokenRequest {
        name: given.name,
        role: given.role.map(TokenRole::name).unwrap_or_default().into(),
        scopes: given.scopes.into_iter().map(|scope| scope.name().to_owned()).collect(),
        expires_ms: given.expires_ms,
    };
    let answer = asking.node().create_token(asking.with(request)).await?.into_inner();
    Ok((StatusCode::CREATED, Json(answer.into())))
}

/// A token.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct Which {
    /// Its name.
    #[param(min_length = 1, example = "upload-service")]
    name: String,
}

/// Take a token back; sessions that it opened end.
#[utoipa::path(
    delete,
    path = "/v1/tokens/{name}",
    operation_id = "revoke_token",
    tag = "access",
    security(("token" = ["admin"])),
    params(Which),
    responses((status = 204, description = "It is worth nothing any more.")),
)]
async fn revoke_token(asking: Asking, Place(which): Place<Which>) -> Result<StatusCode, Problem> {
    asking.node().revoke_token(asking.with(l::RevokeTokenRequest { name: which.name })).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Role, Scope};

    #[test]
    fn roles_and_scopes_are_those_of_tokens() {
        for role in Role::ALL {
            let read: TokenRole = serde_json::from_str(&format!("{:?}", role.name())).unwrap();
            assert_eq!(read.name(), role.name());
        }
        for scope in Scope::ALL {
            let read: TokenScope = serde_json::from_str(&format!("{:?}", scope.name())).unwrap();
            assert_eq!(read.name(), scope.name());
        }
    }
}
