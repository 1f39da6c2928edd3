//! How a handler asks: what came in over HTTP becomes a value, or a problem that says what is wrong with it; the node is
//! asked in the name of whoever called.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::given::only::Object;
use crate::access::{Caller, Scope};
use crate::net::local::gate::{Gate, allowed};
use crate::web::problem::Problem;
use crate::web::{Web, request_id};
use crate::wire::local as l;

/// What most handlers answer.
pub(super) type Answer<T> = Result<Json<T>, Problem>;

/// The node, asked in the name of whoever called.
pub(super) struct Asking {
    web: Web,
    caller: Caller,
}

impl Asking {
    /// Who answers.
    pub(super) fn node(&self) -> &Gate {
        &self.web.service
    }

    /// A message of the caller.
    pub(super) fn with<M>(&self, message: M) -> tonic::Request<M> {
        self.web.ask(&self.caller, message)
    }

    /// The entries that wait for a person under `id`.
    pub(super) async fn waiting(&self, kind: &str, id: &str) -> Result<Vec<l::Entry>, Problem> {
        Ok(self.web.waiting(&self.caller, kind, id).await?)
    }

    /// Refuses, as the node does, a caller who lacks `scope`: before what was sent is looked into, where that comes ahead
    /// of asking the node.
    pub(super) fn needs(&self, scope: Scope) -> Result<(), Problem> {
        Ok(allowed(&self.caller, request_id().as_str(), scope)?)
    }
}

impl FromRequestParts<Web> for Asking {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Problem> {
        let nobody = || unfit(StatusCode::UNAUTHORIZED, "TOKEN", "this needs a token: Authorization: Bearer sdt_...");
        let caller = parts.extensions.get::<Caller>().cloned().ok_or_else(nobody)?;
        Ok(Self { web: web.clone(), caller })
    }
}

/// What does not fit what is asked for.
pub(super) fn unfit(status: StatusCode, reason: &str, detail: &str) -> Problem {
    Problem::new(status, reason, detail)
}

/// The same, where one field is to blame.
pub(super) fn unfit_field(field: &str, why: &str) -> Problem {
    unfit(StatusCode::UNPROCESSABLE_ENTITY, "FIELD", &format!("{field}: {why}")).with_field(field)
}

/// A JSON body, which is an object.
pub(super) struct Given<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Given<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let read = Json::<Object<T>>::from_request(request, state).await;
        read.map(|Json(Object(given))| Self(given)).map_err(|rejection| of_body(&rejection))
    }
}

fn of_body(rejection: &JsonRejection) -> Problem {
    let detail = rejection.body_text();
    match rejection {
        JsonRejection::JsonDataError(_) => unfit(StatusCode::UNPROCESSABLE_ENTITY, "FIELD", &detail),
        JsonRejection::JsonSyntaxError(_) => unfit(StatusCode::BAD_REQUEST, "JSON", &detail),
        JsonRejection::MissingJsonContentType(_) => {
            unfit(StatusCode::UNSUPPORTED_MEDIA_TYPE, "MEDIA_TYPE", "expected content-type: application/json")
        }
        other => unfit(other.status(), "BODY", &detail),
    }
}

/// Parameters behind the question mark.
pub(super) struct Filters<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Filters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Query::<T>::from_request_parts(parts, state).await;
        let of_query = |rejection: QueryRejection| unfit(StatusCode::BAD_REQUEST, "FIELD", &rejection.body_text());
        read.map(|Query(given)| Self(given)).map_err(of_query)
    }
}

/// Parameters in the path.
pub(super) struct Place<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Place<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Path::<T>::from_request_parts(parts, state).await;
        let of_path = |rejection: PathRejection| unfit(StatusCode::BAD_REQUEST, "FIELD", &rejection.body_text());
        read.map(|Path(given)| Self(given)).map_err(of_path)
    }
}
