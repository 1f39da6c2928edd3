//! What every request passes before a handler sees it, in this order: its name, the host it is meant for, who sends it,
//! whether their browser meant to, and how often they may. And what every answer carries.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST,
    HeaderName, LOCATION, ORIGIN, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, TRANSFER_ENCODING,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use http_body_util::{BodyExt as _, Limited};
use tonic::Code;
use tracing::{Instrument as _, Span};

use super::server::{Pace, Paced};
use super::{Limits, Problem, REQUEST, Web, console};
use crate::access::{Caller, Scope, Session, Via};
use crate::clock;
use crate::meters::Meters;
use crate::net::request_id::{REQUEST_ID, RequestId};
use crate::net::status::refuse;

/// Beginning of the name of the cookie of a session; the port follows.
pub const SESSION_COOKIE: &str = "staydown_session_";
/// Header that proves that a script of our own pages sends a request.
pub const CSRF_HEADER: &str = "x-csrf-token";
/// Field of every form that proves that it is one of our own pages'.
pub const CSRF_FIELD: &str = "csrf";
/// What our pages may load, and where they may send: themselves, and nothing inline. `data:` images are our style sheet's.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// Paths that need no token: nothing that they show is anybody's.
pub const OPEN: [&str; 3] = ["/login", "/healthz", "/readyz"];
/// And everything below this.
pub const OPEN_FOLDER: &str = "/assets/";
/// The path whose forms bring files, and which checks [`CSRF_FIELD`] itself where a request has no [`CSRF_HEADER`].
const UPLOAD: &str = "/submit/file";

/// What axum says of a request that it refuses: it repeats what was wrong.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// How often callers may ask.
pub struct Rates {
    tokens: DefaultKeyedRateLimiter<Arc<str>>,
    strangers: DefaultDirectRateLimiter,
}

impl Rates {
    pub(super) fn new(limits: &Limits) -> Self {
        let tokens = Quota::per_second(limits.requests_per_s).allow_burst(limits.requests_burst);
        let strangers = Quota::per_second(limits.strangers_per_s).allow_burst(limits.strangers_burst);
        // Keys are names of tokens, so that there are no more of them than tokens were ever made since the start.
        Self { tokens: RateLimiter::keyed(tokens), strangers: RateLimiter::direct(strangers) }
    }
}

/// By which door a request comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Page,
    Api,
    Grpc,
}

impl Door {
    fn of(request: &Request) -> Self {
        let grpc =
            request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        match request.uri().path() {
            _ if grpc => Self::Grpc,
            path if path.starts_with("/v1/") || path == "/metrics" => Self::Api,
            _ => Self::Page,
        }
    }
}

/// Lets a request through, or answers it.
pub async fn guard(State(web): State<Web>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let door = Door::of(&request);
    let wants_html = door == Door::Page && accepts_html(request.headers());
    let is_asset = request.uri().path().starts_with(OPEN_FOLDER);
    let is_chunked = request.headers().contains_key(TRANSFER_ENCODING);
    request.extensions_mut().insert(id.clone());
    let seen = Seen::of(&web, door, &id, &request);
    let answer = REQUEST.scope(id.clone(), async {
        match admit(&web, door, request).await {
            Ok(request) => (true, next.run(request).await),
            Err(refusal) => (false, refusal.answer(door)),
        }
    });
    let (admitted, answer) = answer.instrument(seen.span.clone()).await;
    seen.answered(&answer, admitted);
    let answer = REQUEST.scope(id.clone(), as_problem(answer)).await;
    let answer = if wants_html { as_page(answer) } else { answer };
    let mut answer = dressed(answer, &web, &id, is_asset);
    if is_chunked {
        // A length beside it was dropped before we saw it. A proxy that went by that length takes what follows for another
        // request than we would: nothing follows (RFC 9112, 6.3).
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// What is kept of a request to count it and to log how it ended. Its route, never its path: that has what was looked up.
struct Seen {
    meters: Arc<Meters>,
    span: Span,
    route: String,
    method: Method,
    begun: Instant,
    /// Calls of gRPC are counted where they end.
    counts: bool,
}

impl Seen {
    fn of(web: &Web, door: Door, id: &RequestId, request: &Request) -> Self {
        let route =
            request.extensions().get::<MatchedPath>().map(|route| route.as_str().to_owned()).unwrap_or_default();
        let method = request.method().clone();
        // Of the highest level: whatever the filter leaves of the log lines in it, they have the name.
        let span = tracing::error_span!("request", request_id = %id, %method, route);
        let meters = Arc::clone(web.service.service().meters());
        Self { meters, span, route, method, begun: clock::instant(), counts: door != Door::Grpc }
    }

    fn answered(self, answer: &Response, admitted: bool) {
        let (status, took) = (answer.status(), self.begun.elapsed());
        if self.counts {
            self.meters.http.observe(&self.route, self.method.as_str(), status.as_u16(), took.as_secs_f64());
        }
        let problem = answer.extensions().get::<Arc<Problem>>();
        if let Some(problem) = problem {
            self.meters.refused(&problem.reason);
        }
        let (status, reason, took_ms) = (status.as_u16(), problem.map(|problem| &*problem.reason), took.as_millis());
        let _in = self.span.enter();
        match status {
            // Said on purpose, and to probes again and again.
            503 => tracing::debug!(status, reason, took_ms, "unavailable"),
            500.. => tracing::error!(status, reason, took_ms, "failed"),
            // What strangers try at the door must not fill our log.
            400.. if admitted => tracing::info!(status, reason, took_ms, "refused"),
            _ => tracing::debug!(status, reason, took_ms, "answered"),
        }
    }
}

/// Why a request is not let through.
enum Refusal {
    Problem(Box<Problem>),
    /// The browser goes to sign in, and comes back.
    SignIn(String),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

impl Refusal {
    fn answer(self, door: Door) -> Response {
        match self {
            Self::SignIn(to) => (StatusCode::SEE_OTHER, [(LOCATION, to)]).into_response(),
            Self::Problem(problem) if door == Door::Grpc => {
                let code = match problem.status {
                    401 => Code::Unauthenticated,
                    403 => Code::PermissionDenied,
                    429 => Code::ResourceExhausted,
                    _ => Code::InvalidArgument,
                };
                refuse(code, &problem.reason, problem.detail.clone()).into_http()
            }
            Self::Problem(problem) => problem.into_response(),
        }
    }
}

async fn admit(web: &Web, door: Door, request: Request) -> Result<Request, Refusal> {
    check_host(web, &request)?;
    check_length(web, request.headers())?;
    let (mut parts, body) = request.into_parts();
    let open = OPEN.contains(&parts.uri.path()) || parts.uri.path().starts_with(OPEN_FOLDER);
    let who = who(web, door, &parts)?;
    // Streams over gRPC live as long as they like. There are none over HTTP/1.1, and strangers have none.
    let streams = door == Door::Grpc && parts.version == Version::HTTP_2 && matches!(who, Who::Program(_));
    let body = if streams { body } else { paced(web, body) };
    let body = match (&who, parts.method.is_safe()) {
        (_, true) => body,
        (Who::Browser(session), false) => of_our_page(web, &parts.headers, &parts.uri, session, body).await?,
        // Signing in is a form, too: nobody is to be signed in as somebody else from another site.
        (Who::Nobody, false) if open => {
            same_origin(&parts.headers, &parts.uri)?;
            limit_strangers(web)?;
            // Whoever has no token is given no more room than a form needs.
            Body::from(whole(body, web.limits.form_bytes_max).await?)
        }
        _ => body,
    };
    match who {
        Who::Nobody if open => {}
        Who::Nobody => return Err(stranger(web, door, &parts.uri, &parts.headers)),
        Who::Program(caller) => {
            limit(web, &caller)?;
            allow_metrics(&parts.uri, &caller)?;
            parts.extensions.insert(caller);
        }
        Who::Browser(session) => {
            limit(web, &session.caller)?;
            allow_metrics(&parts.uri, &session.caller)?;
            parts.extensions.insert(session.caller.clone());
            parts.extensions.insert(session);
        }
    }
    Ok(Request::from_parts(parts, body))
}

/// A page of somebody else's, whose name was made to point to this machine, sends that name (DNS rebinding). Addresses
/// cannot be made to point elsewhere.
fn check_host(web: &Web, request: &Request) -> Result<(), Problem> {
    let refused = |detail: &str| {
        let fix = "name it in the settings: web.hosts";
        Problem::new(StatusCode::MISDIRECTED_REQUEST, "HOST", detail).with_fix(fix)
    };
    if request.headers().get_all(HOST).iter().count() > 1 {
        return Err(refused("there is more than one host"));
    }
    let host = host_of(request.headers(), request.uri()).ok_or_else(|| refused("there is no host"))?;
    let name = host_name(host).to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().is_ok();
    if address || name == "localhost" || web.hosts.contains(&name) {
        return Ok(());
    }
    Err(refused("this node is not reached under that name"))
}

/// Whoever announces more than any address takes is not listened to until it has come.
fn check_length(web: &Web, headers: &HeaderMap) -> Result<(), Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let max = web.limits.upload_bytes_max.max(web.limits.body_bytes_max);
    match announced {
        Some(length) if length > max => {
            let detail = format!("the body has {length} bytes, expected at most {max}");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", detail))
        }
        _ => Ok(()),
    }
}

/// The host that a request is meant for: over HTTP/2 it has no header of its own.
fn host_of<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.or_else(|| uri.authority().map(|authority| authority.as_str()))
}

/// Without the port.
fn host_name(host: &str) -> &str {
    match (host.starts_with('['), host.find(']'), host.rfind(':')) {
        (true, Some(end), _) => &host[..=end],
        (false, _, Some(colon)) => &host[..colon],
        _ => host,
    }
}

enum Who {
    Program(Caller),
    Browser(Session),
    Nobody,
}

/// A token goes before a cookie. One that is shown and does not hold is refused, not overlooked.
fn who(web: &Web, door: Door, parts: &Parts) -> Result<Who, Problem> {
    let (now, headers) = (clock::now(), &parts.headers);
    if let Some(shown) = headers.get(AUTHORIZATION) {
        let via = if door == Door::Grpc { Via::Grpc } else { Via::Http };
        let token = shown.to_str().ok().and_then(|shown| shown.split_once(' '));
        let token = token.filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        return match token.and_then(|token| web.access().bearer(token, via, now)) {
            Some(caller) => Ok(Who::Program(caller)),
            None if web.rates.strangers.check().is_err() => Err(too_many()),
            None => Err(Problem::new(StatusCode::UNAUTHORIZED, "TOKEN", "the token is unknown, or has ended")
                .with_fix("make another: staydown token new")),
        };
    }
    if door == Door::Grpc {
        return Ok(Who::Nobody);
    }
    let key = session_cookie(headers, &parts.uri);
    let session = match parts.uri.path() {
        // A page that is left open asks again and again, and nobody need be there.
        "/events" => key.and_then(|key| web.access().session_of_nobody_there(key, now)),
        _ => key.and_then(|key| web.access().session(key, now)),
    };
    Ok(session.map_or(Who::Nobody, Who::Browser))
}

/// Name of the cookie of a session. Browsers do not keep the cookies of two ports of one host apart, so that signing in at
/// one node would sign out of another one beside it: the name has the port that the browser came to, 0 if it is the usual.
fn cookie_name(headers: &HeaderMap, uri: &Uri) -> String {
    let host = host_of(headers, uri).unwrap_or_default();
    let port = host.strip_prefix(host_name(host)).and_then(|rest| rest.strip_prefix(':'));
    let port: u16 = port.and_then(|port| port.parse().ok()).unwrap_or_default();
    format!("{SESSION_COOKIE}{port}")
}

/// The key of the session, as the browser sends it.
pub fn session_cookie<'a>(headers: &'a HeaderMap, uri: &Uri) -> Option<&'a str> {
    let ours = cookie_name(headers, uri);
    let cookies = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == ours).map(|(_, key)| key).next()
}

/// The cookie of a session; an empty key ends it in the browser.
pub fn set_cookie(web: &Web, headers: &HeaderMap, uri: &Uri, key: &str) -> String {
    let name = cookie_name(headers, uri);
    let ended = if key.is_empty() { "; Max-Age=0" } else { "" };
    let secure = if is_secure(web, headers) { "; Secure" } else { "" };
    format!("{name}={key}; Path=/; HttpOnly; SameSite=Strict{secure}{ended}")
}

/// Whether the browser came over TLS: to us, or to the proxy that the settings speak of.
fn is_secure(web: &Web, headers: &HeaderMap) -> bool {
    let forwarded = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    web.secure || web.behind_proxy && forwarded
}

fn stranger(web: &Web, door: Door, uri: &Uri, headers: &HeaderMap) -> Refusal {
    if web.rates.strangers.check().is_err() {
        return too_many().into();
    }
    if door == Door::Page && accepts_html(headers) {
        let next = uri.path_and_query().map_or("/", |path| path.as_str());
        let next = percent_encoding::utf8_percent_encode(next, percent_encoding::NON_ALPHANUMERIC);
        return Refusal::SignIn(if uri.path() == "/" { "/login".into() } else { format!("/login?next={next}") });
    }
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "TOKEN", "this needs a token: Authorization: Bearer sdt_...");
    problem.with_fix("make one: staydown token new").into()
}

/// Signing in costs something; pages and probes do not.
fn limit_strangers(web: &Web) -> Result<(), Problem> {
    if web.rates.strangers.check().is_ok() { Ok(()) } else { Err(too_many()) }
}

fn limit(web: &Web, caller: &Caller) -> Result<(), Problem> {
    if web.rates.tokens.check_key(&caller.name).is_ok() { Ok(()) } else { Err(too_many()) }
}

fn too_many() -> Problem {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "RATE", "too many requests: wait, and ask again")
}

/// The one address that no call of the service stands behind.
fn allow_metrics(uri: &Uri, caller: &Caller) -> Result<(), Problem> {
    if uri.path() != "/metrics" || caller.scopes.allow(Scope::Metrics) {
        return Ok(());
    }
    let detail = format!("the token {} does not allow metrics", caller.name);
    Err(Problem::new(StatusCode::FORBIDDEN, "SCOPE", detail))
}

/// A request with a cookie that changes something: sent by a page of ours, for this very session. The cookie alone
/// proves nothing, since browsers send it along for everybody.
async fn of_our_page(
    web: &Web,
    headers: &HeaderMap,
    uri: &Uri,
    session: &Session,
    body: Body,
) -> Result<Body, Problem> {
    same_origin(headers, uri)?;
    let refused = |why: &str| {
        Problem::new(StatusCode::FORBIDDEN, "CSRF", why).with_fix("reload the page, and send the form again")
    };
    if let Some(shown) = headers.get(CSRF_HEADER) {
        let ours = shown.to_str().is_ok_and(|shown| session.is_csrf(shown));
        return if ours { Ok(body) } else { Err(refused("the request does not belong to this session")) };
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.starts_with("multipart/form-data") && uri.path() == UPLOAD {
        return Ok(body);
    }
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return Err(refused("the request is no form of ours"));
    }
    let form = whole(body, web.limits.form_bytes_max).await?;
    let shown = form_urlencoded::parse(&form).find(|(name, _)| name == CSRF_FIELD);
    match shown {
        Some((_, shown)) if session.is_csrf(&shown) => Ok(Body::from(form)),
        _ => Err(refused("the form does not belong to this session")),
    }
}

async fn whole(body: Body, max: usize) -> Result<Bytes, Problem> {
    let read = Limited::new(body, max).collect().await;
    read.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.downcast_ref::<http_body_util::LengthLimitError>().is_some() {
            let detail = format!("the form has more than {max} bytes");
            return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", detail);
        }
        Problem::new(StatusCode::REQUEST_TIMEOUT, "SLOW", "the form did not come in time, or not whole")
    })
}

/// Browsers say where a request comes from, and no page can make them lie. Old ones that say nothing are refused.
fn same_origin(headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    let refused = || Problem::new(StatusCode::FORBIDDEN, "ORIGIN", "the request comes from another site");
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"same-origin") {
        return Err(refused());
    }
    let host = host_of(headers, uri);
    let origin = headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    // Forms of pages that tell nobody where they are (`Referrer-Policy: no-referrer`) come with `null`, ours too: then
    // what no page can set has said already that it is ours.
    let origin = origin.filter(|origin| *origin != "null" || site.is_none());
    match origin.map(|origin| origin.split_once("://").map(|(_, authority)| authority)) {
        None if site.is_some() => Ok(()),
        None => Err(refused()),
        Some(authority) if authority.is_some() && authority == host => Ok(()),
        Some(_) => Err(refused()),
    }
}

/// A body that has to come at some pace.
fn paced(web: &Web, body: Body) -> Body {
    let pace = Pace { grace: web.limits.body_grace, bytes_per_s: web.limits.body_bytes_per_s };
    Body::new(Paced::new(body, pace))
}

fn accepts_html(headers: &HeaderMap) -> bool {
    headers.get("accept").is_some_and(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/html")))
}

/// What axum itself refuses, as an address with a field that cannot be read, is a plain text: it becomes a problem as any.
async fn as_problem(answer: Response) -> Response {
    let is_text = answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !answer.status().is_client_error() || !is_text {
        return answer;
    }
    let status = answer.status();
    let text = whole(answer.into_body(), REFUSAL_BYTES_MAX).await.unwrap_or_default();
    Problem::new(status, "REQUEST", String::from_utf8_lossy(&text).trim()).into_response()
}

/// A refusal that a person sees is a page.
fn as_page(answer: Response) -> Response {
    let Some(problem) = answer.extensions().get::<Arc<Problem>>().cloned() else { return answer };
    let Some(html) = console::refusal(&problem) else { return answer };
    let (mut parts, _) = answer.into_parts();
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(html))
}

fn dressed(mut answer: Response, web: &Web, id: &RequestId, is_asset: bool) -> Response {
    let headers = answer.headers_mut();
    let fixed = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not no-referrer: with that, browsers call the origin of our own forms null. Other sites are told nothing.
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("x-frame-options"), "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !is_asset {
        // What somebody saw is in no cache after they have gone.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if web.secure {
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(HeaderName::from_static(REQUEST_ID), id);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_host_is_known_without_its_port() {
        for (host, name) in [
            ("127.0.0.1:7701", "127.0.0.1"),
            ("[::1]:7701", "[::1]"),
            ("localhost", "localhost"),
            ("a.example:1", "a.example"),
        ] {
            assert_eq!(host_name(host), name);
        }
    }

    #[test]
    fn only_our_own_pages_send_what_changes_something() {
        let from = |pairs: &[(&'static str, &str)]| {
            let mut all = vec![("host", "127.0.0.1:7701")];
            all.extend(pairs);
            same_origin(&headers(&all), &Uri::from_static("/list")).is_ok()
        };
        assert!(from(&[("origin", "http://127.0.0.1:7701")]));
        assert!(from(&[("origin", "http://127.0.0.1:7701"), ("sec-fetch-site", "same-origin")]));
        assert!(from(&[("sec-fetch-site", "same-origin")]));
        assert!(from(&[("origin", "null"), ("sec-fetch-site", "same-origin")]), "as browsers send forms of our pages");
        assert!(!from(&[("origin", "null"), ("sec-fetch-site", "cross-site")]));
        for other in ["http://127.0.0.1:7702", "http://evil.example", "null", ""] {
            assert!(!from(&[("origin", other)]), "{other}");
        }
        let over_http_2 = Uri::from_static("https://127.0.0.1:7701/logout");
        let same = |origin: &str| same_origin(&headers(&[("origin", origin)]), &over_http_2).is_ok();
        assert!(same("https://127.0.0.1:7701") && !same("https://evil.example"));
        assert!(!from(&[("origin", "http://127.0.0.1:7701"), ("sec-fetch-site", "cross-site")]));
        assert!(!from(&[("sec-fetch-site", "same-site")]) && !from(&[("sec-fetch-site", "none")]) && !from(&[]));
    }

    #[test]
    fn the_session_is_found_among_other_cookies() {
        let at = |host: &str, uri: &'static str, value: &str| {
            let headers = headers(&[("host", host), ("cookie", value)]);
            session_cookie(&headers, &Uri::from_static(uri)).map(str::to_owned)
        };
        let found = |value: &str| at("127.0.0.1:7701", "/", value);
        assert_eq!(found("a=b; staydown_session_7701=KEY; c=d").as_deref(), Some("KEY"));
        assert_eq!(found("staydown_session_7702=OTHER; staydown_session_7701=KEY").as_deref(), Some("KEY"));
        assert_eq!(found("xstaydown_session_7701=KEY"), None);
        assert_eq!(found("staydown_session_7702=KEY"), None, "another node's on the same host");
        assert_eq!(at("[::1]:7701", "/", "staydown_session_7701=KEY").as_deref(), Some("KEY"));
        assert_eq!(at("a.example", "/", "staydown_session_0=KEY").as_deref(), Some("KEY"));
    }

    #[test]
    fn the_cookie_has_one_name_over_both_versions_of_http() {
        let over_http_2 = Uri::from_static("https://127.0.0.1:7701/list");
        assert_eq!(cookie_name(&headers(&[]), &over_http_2), "staydown_session_7701");
        assert_eq!(
            cookie_name(&headers(&[("host", "127.0.0.1:7701")]), &Uri::from_static("/list")),
            "staydown_session_7701"
        );
    }
}
