//! What went wrong, as RFC 9457 has it: the same reasons, fields and fixes as over gRPC.

use std::sync::Arc;

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use utoipa::ToSchema;

use super::request_id;
use crate::net::status::REASON;

/// Media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// How long a caller waits who asked too much, in seconds.
pub const RETRY_AFTER_S: u32 = 1;

/// A refusal (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: `reason` says what it is.
    pub r#type: &'static str,
    /// The HTTP status in words.
    pub title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What was wrong: what came, and what was expected.
    #[schema(value_type = String)]
    pub detail: Box<str>,
    /// Id of the request, as it stands in the node's log.
    #[schema(value_type = String)]
    pub instance: Box<str>,
    /// Short name, as in the gRPC trailer staydown-reason; FIELD: a field is wrong.
    #[schema(value_type = String)]
    pub reason: Box<str>,
    /// The field that is to blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub field: Option<Box<str>>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub fix: Option<Box<str>>,
}

/// What a status of gRPC is in HTTP.
pub fn http_status(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable | Code::DataLoss => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Problem {
    /// One that no call of the service has.
    pub fn new(status: StatusCode, reason: &str, detail: impl Into<Box<str>>) -> Self {
        Self {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            instance: request_id().as_str().into(),
            reason: reason.into(),
            field: None,
            fix: None,
        }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn with_fix(self, fix: impl Into<Box<str>>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    /// The same with the field that is to blame.
    #[must_use]
    pub fn with_field(self, field: impl Into<Box<str>>) -> Self {
        Self { field: Some(field.into()), ..self }
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let trailer = status.metadata().get(REASON).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let info = details.error_info();
        let reason = trailer.or_else(|| info.map(|info| info.reason.clone()));
        let fix = info.and_then(|info| info.metadata.get("fix").cloned());
        let violation = details.bad_request().and_then(|bad| bad.field_violations.first());
        Self {
            field: violation.map(|violation| violation.field.as_str().into()),
            fix: fix.filter(|fix| !fix.is_empty()).map(Into::into),
            ..Self::new(http_status(status.code()), &reason.unwrap_or_else(|| "BUG".to_owned()), status.message())
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert("www-authenticate", HeaderValue::from_static("Bearer realm=\"staydown\""));
        }
        // For the console, which shows it as a page.
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::status::{bad_field_with_fix, refuse};

    #[test]
    fn a_refusal_keeps_its_reason_field_and_fix() {
        let status = bad_field_with_fix("signals[0].value", "has 3 digits, expected 64", "HASH", "give all of it");
        let problem = Problem::from(status);
        assert_eq!((problem.status, problem.title, &*problem.reason), (400, "Bad Request", "HASH"));
        assert_eq!(
            (problem.field.as_deref(), problem.fix.as_deref()),
            (Some("signals[0].value"), Some("give all of it"))
        );
        assert_eq!(&*problem.detail, "signals[0].value: has 3 digits, expected 64");
        let plain = Problem::from(refuse(Code::NotFound, "NOT_FOUND", "no such entry"));
        assert_eq!((plain.status, plain.field, plain.fix), (404, None, None));
    }

    #[test]
    fn whoever_asks_too_much_is_told_when_to_come_again() {
        let response = Problem::from(refuse(Code::ResourceExhausted, "RATE", "slow down")).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
    }
}
