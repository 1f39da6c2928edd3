//! Tokens and the audit trail, as our own people ask for them.

use std::sync::Arc;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{bug, streams};
use crate::access::token::{DAYS_DEFAULT, TokenError, Wanted};
use crate::access::{Access, Act, Role, Scopes, Token};
use crate::clock;
use crate::net::status::{bad_field, refuse};
use crate::replica::ids::TimeMs;
use crate::wire::local as l;

/// Acts that wait for a slow reader of the trail.
const ACTS_AHEAD: usize = 256;

/// Makes a token; `console` is where a person goes with it.
pub(super) async fn create(
    access: &Arc<Access>,
    console: Option<&str>,
    request: l::CreateTokenRequest,
) -> Result<l::CreateTokenResponse, Status> {
    let role = match request.role.as_str() {
        "" => None,
        role => Some(role.parse::<Role>().map_err(|why| bad_field("role", why))?),
    };
    let scopes = Scopes::try_from(request.scopes).map_err(|why| bad_field("scopes", why))?;
    let now = clock::now();
    let expires = match request.expires_ms {
        0 => now.plus(DAYS_DEFAULT * TimeMs::DAY_MS),
        at => TimeMs(at),
    };
    let wanted = Wanted { name: request.name, role, scopes, expires };
    let access = Arc::clone(access);
    let made = tokio::task::spawn_blocking(move || access.make_token(wanted, now)).await.map_err(|_panicked| bug())?;
    let (secret, token) = made.map_err(|error| of_token(&error))?;
    let link = console.filter(|_| token.role.is_some()).map(|at| format!("{at}/#t={}", secret.reveal()));
    let link = link.unwrap_or_default();
    Ok(l::CreateTokenResponse { secret: secret.reveal().to_owned(), token: Some(to_proto(&token)), link })
}

pub(super) fn list(access: &Access) -> l::ListTokensResponse {
    l::ListTokensResponse { tokens: access.list().iter().map(to_proto).collect() }
}

pub(super) async fn revoke(
    access: &Arc<Access>,
    request: l::RevokeTokenRequest,
) -> Result<l::RevokeTokenResponse, Status> {
    let (access, name) = (Arc::clone(access), request.name.clone());
    let revoked = tokio::task::spawn_blocking(move || access.revoke(&name)).await.map_err(|_panicked| bug())?;
    let absent = || refuse(Code::NotFound, "NOT_FOUND", format!("there is no token called {:?}", request.name));
    revoked.map_err(|error| of_token(&error))?.map(|_| l::RevokeTokenResponse {}).ok_or_else(absent)
}

/// The trail, read as fast as it is taken.
pub(super) fn audit(access: &Arc<Access>, request: &l::ListAuditRequest) -> streams::Answers<l::AuditedAct> {
    let (acts, taken) = mpsc::channel(ACTS_AHEAD);
    let (access, from) = (Arc::clone(access), TimeMs(request.from_ms));
    tokio::task::spawn_blocking(move || {
        let read = access.audit().read(from, |act| acts.blocking_send(Ok(act_to_proto(act))).is_ok());
        if let Err(error) = read {
            // A reader that has gone does not miss it.
            drop(acts.blocking_send(Err(refuse(Code::DataLoss, "STORE", error.to_string()))));
        }
    });
    ReceiverStream::new(taken).boxed()
}

fn to_proto(token: &Token) -> l::Token {
    l::Token {
        name: token.name.clone(),
        role: token.role.map(|role| role.name().to_owned()).unwrap_or_default(),
        scopes: token.scopes.names(),
        made_ms: token.made.0,
        expires_ms: token.expires.0,
    }
}

fn act_to_proto(act: Act) -> l::AuditedAct {
    l::AuditedAct {
        time_ms: act.time_ms,
        caller: act.caller,
        via: act.via,
        request_id: act.request_id,
        action: act.action,
        target: act.target,
        outcome: act.outcome,
    }
}

fn of_token(error: &TokenError) -> Status {
    let why = error.to_string();
    match error {
        TokenError::Name(_) => bad_field("name", why),
        TokenError::Scopes(_) => bad_field("scopes", why),
        TokenError::Expires(_) => bad_field("expires_ms", why),
        TokenError::Taken(_) => refuse(Code::AlreadyExists, "TAKEN", why),
        TokenError::TooMany => refuse(Code::ResourceExhausted, "TOKENS", why),
        TokenError::File { .. } => refuse(Code::DataLoss, "STORE", why),
    }
}
