//! What our own people and programs reach over TCP: the console, the HTTP API, metrics, and the local gRPC service, on one
//! port. Everybody shows a token, or a session that one opened; what they may is decided in [`crate::net::local::gate`].

pub mod api;
pub mod console;
pub mod guard;
pub mod limits;
pub mod problem;
pub mod server;
pub mod tls;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::service::Routes;

pub use self::limits::Limits;
use self::limits::UPLOADS_MAX;
pub use self::problem::Problem;
pub use self::server::serve;
pub use self::tls::WebTls;
use crate::access::{Access, Caller, Via};
use crate::config::WebConfig;
use crate::metrics;
use crate::net::local::gate::Gate;
use crate::net::local::{LocalService, PAGE_MAX};
use crate::net::readiness::readiness;
use crate::net::request_id::RequestId;
use crate::wire::DESCRIPTORS;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::{Forum as _, ForumServer};

tokio::task_local! {
    /// The id of the request that is being answered.
    static REQUEST: RequestId;
}

/// The id of the request that is being answered; a new one outside of any.
pub fn request_id() -> RequestId {
    REQUEST.try_with(RequestId::clone).unwrap_or_default()
}

/// Runs a task of its own under the id of the request that it belongs to.
pub async fn with_request_id<T>(id: RequestId, task: impl Future<Output = T>) -> T {
    REQUEST.scope(id, task).await
}

/// What every handler has at hand. Cheap to clone.
#[derive(Clone)]
pub struct Web {
    /// The local service behind its door.
    pub service: Gate,
    /// What bounds callers.
    pub limits: Arc<Limits>,
    /// Under which names this listener is reached.
    hosts: Arc<[String]>,
    /// Browsers send cookies over TLS only.
    secure: bool,
    /// A proxy ends TLS, and says so in its headers.
    behind_proxy: bool,
    rates: Arc<guard::Rates>,
    /// Files are whole in memory before they are hashed: so many requests with files are taken in at once, in all.
    uploads: Arc<Semaphore>,
    hub: console::Hub,
}

impl Web {
    /// Serves `service` as `config` says.
    pub fn new(service: LocalService, config: &WebConfig, limits: Limits) -> Self {
        Self {
            rates: Arc::new(guard::Rates::new(&limits)),
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
            limits: Arc::new(limits),
            hosts: config.hosts.clone().into(),
            secure: config.certificate.is_some(),
            behind_proxy: config.allow_plaintext,
            hub: console::Hub::new(service.clone()),
            service: Gate::new(service),
        }
    }

    /// A message to the service, as `caller` and under the id of the request that is being answered.
    pub fn ask<M>(&self, caller: &Caller, message: M) -> tonic::Request<M> {
        let mut request = tonic::Request::new(message);
        request.extensions_mut().insert(caller.clone());
        request.extensions_mut().insert(request_id());
        request
    }

    /// A place for a request with files, until they are hashed. Whoever finds none comes again: those who wait would hold
    /// connections.
    ///
    /// # Errors
    /// All are taken.
    pub fn upload_place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.uploads).try_acquire_owned().map_err(|_taken| {
            let why = format!("{UPLOADS_MAX} requests with files are being taken in: wait, and ask again");
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "RATE", why)
        })
    }

    /// The entries that wait for a person under the `id` of a review of this `kind`: at most one, but where somebody made
    /// two subjects with one id.
    ///
    /// # Errors
    /// The caller may not ask, or the node cannot answer.
    pub async fn waiting(&self, caller: &Caller, kind: &str, id: &str) -> Result<Vec<l::Entry>, tonic::Status> {
        let page_size = u32::try_from(PAGE_MAX).unwrap_or(0);
        let mut request = l::ListReviewsRequest { kind: kind.to_owned(), page_size, ..Default::default() };
        let mut found = Vec::new();
        loop {
            let page = self.service.list_reviews(self.ask(caller, request.clone())).await?.into_inner();
            found.extend(page.reviews.into_iter().filter(|review| review.id == id).filter_map(|review| review.entry));
            if page.next_page_token.is_empty() {
                return Ok(found);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Tokens, sessions and the audit trail.
    pub fn access(&self) -> &Arc<Access> {
        self.service.service().access()
    }

    /// What every page of the console hears live.
    pub fn hub(&self) -> &console::Hub {
        &self.hub
    }
}

/// Everything that is served, behind the guard.
///
/// # Errors
/// The descriptors that reflection tells of do not decode, which is a mistake of ours.
pub async fn router(web: Web) -> Result<Router, tonic_reflection::server::Error> {
    let (api, _) = api::routes().split_for_parts();
    let pages = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .merge(api)
        .merge(console::routes())
        .fallback(nothing_here)
        .method_not_allowed_fallback(not_this_method)
        .layer(axum::extract::DefaultBodyLimit::max(web.limits.body_bytes_max))
        .with_state(web.clone());
    let grpc = grpc(&web).await?;
    Ok(pages.merge(grpc).layer(axum::middleware::from_fn_with_state(web, guard::guard)))
}

/// The gRPC service with health and reflection (v1 and v1alpha).
async fn grpc(web: &Web) -> Result<Router, tonic_reflection::server::Error> {
    let reflection =
        || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ForumServer<Gate>>().await;
    let routes = Routes::new(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(web.service.service().clone().into_server());
    // Its own answer to what it does not have would hide ours.
    Ok(routes.into_axum_router().reset_fallback())
}

/// The process answers, and what it signs can be written.
async fn healthz(State(web): State<Web>) -> Response {
    match web.service.service().failure() {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// Lookups are worth asking.
async fn readyz(State(web): State<Web>) -> Response {
    let probe =
        Caller { name: "probe".into(), scopes: crate::access::Role::Viewer.scopes(), via: Via::Http, token: None };
    match web.service.status(web.ask(&probe, l::StatusRequest {})).await {
        // The reasons name members and addresses, and whoever asks here shows no token.
        Ok(status) if readiness(status.get_ref()).is_ok() => "ready\n".into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "not ready; staydown status says why\n").into_response(),
    }
}

/// What Prometheus reads. Who may is decided by the guard.
async fn metrics(State(web): State<Web>, headers: HeaderMap) -> Result<Response, Problem> {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).map(str::to_owned);
    let service = web.service.service().clone();
    // It reads files, and of a short list every entry.
    let answer = tokio::task::spawn_blocking(move || metrics::answer(accept.as_deref(), &service)).await;
    let bug = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "BUG", "metrics could not be read: please report it");
    let (kind, text) = answer.map_err(bug)?;
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

async fn nothing_here() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", "there is nothing at this address")
}

async fn not_this_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD", "this address does not take this method")
}
