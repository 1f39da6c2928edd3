//! What stands around each gRPC service: every call has a name, a span in which its log lines are written, and is counted
//! when it ends; a refusal gives the name back.
//!
//! The name is what an earlier layer gave the request, or what the caller sent as `x-request-id`, or a new one.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use tonic::server::NamedService;
use tonic::{Code, Status};
use tracing::{Instrument as _, Span};

use super::request_id::{REQUEST_ID, RequestId};
use super::status::REASON;
use super::tls::PeerIdentity;
use crate::clock;
use crate::meters::Meters;

/// Trailer with the number of a call's outcome.
const GRPC_STATUS: &str = "grpc-status";
/// What a log line has of a call's name at most: a caller may ask for any, and ours are shorter.
const CALL_BYTES_MAX: usize = 64;
/// What the reason of a refusal may be at most: it comes from this program.
const REASON_BYTES_MAX: usize = 64;

/// Who calls a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Another member's node.
    Peer,
    /// Our own people and programs.
    Local,
}

/// A service whose calls are named, logged and counted.
#[derive(Clone)]
pub struct Named<S> {
    service: S,
    side: Side,
    meters: Arc<Meters>,
}

impl<S> Named<S> {
    /// Stands around `service`.
    pub fn new(service: S, side: Side, meters: Arc<Meters>) -> Self {
        Self { service, side, meters }
    }
}

impl<S: NamedService> NamedService for Named<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> tower::Service<http::Request<tonic::body::Body>> for Named<S>
where
    S: tower::Service<
            http::Request<tonic::body::Body>,
            Response = http::Response<tonic::body::Body>,
            Error = Infallible,
            Future: Send + 'static,
        >,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<tonic::body::Body>) -> Self::Future {
        let id = id_of(&mut request);
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let span = span(self.side, &id, &method, request.extensions().get());
        let meters = Arc::clone(&self.meters);
        let call = Call { meters, side: self.side, method, id, span, begun: clock::instant(), ended: false };
        let answer = call.span.in_scope(|| self.service.call(request)).instrument(call.span.clone());
        Box::pin(async move { Ok(call.answered(answer.await?)) })
    }
}

/// The request's name, which stands in its extensions from here on.
fn id_of<B>(request: &mut http::Request<B>) -> RequestId {
    if let Some(id) = request.extensions().get::<RequestId>() {
        return id.clone();
    }
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    id
}

/// A span of the highest level: whatever the filter leaves of the log lines in it, they have the name.
fn span(side: Side, id: &RequestId, method: &str, peer: Option<&PeerIdentity>) -> Span {
    let call = cut(method.rsplit('/').next().unwrap_or(method));
    match (side, peer) {
        (Side::Peer, Some(peer)) => {
            tracing::error_span!("peer_call", request_id = %id, call, member = %peer.member)
        }
        (Side::Peer, None) => tracing::error_span!("peer_call", request_id = %id, call),
        (Side::Local, _) => tracing::error_span!("call", request_id = %id, call),
    }
}

/// The beginning of a call's name, of whole characters.
fn cut(name: &str) -> &str {
    let end = (0..=CALL_BYTES_MAX.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name.get(..end).unwrap_or_default()
}

/// A call that is under way. It ends with its outcome, or when its caller goes away.
struct Call {
    meters: Arc<Meters>,
    side: Side,
    method: String,
    id: RequestId,
    span: Span,
    begun: Instant,
    ended: bool,
}

impl Call {
    fn answered(mut self, mut answer: http::Response<tonic::body::Body>) -> http::Response<tonic::body::Body> {
        name(answer.headers_mut(), &self.id);
        // An answer without a message has its outcome among the headers.
        if answer.headers().contains_key(GRPC_STATUS) {
            self.end(answer.headers());
        }
        answer.map(|body| tonic::body::Body::new(Answer { body, call: self }))
    }

    fn end(&mut self, trailers: &HeaderMap) {
        let text = |name| trailers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let code = text(GRPC_STATUS).and_then(|code| code.parse().ok()).unwrap_or(Code::Unknown as usize);
        let reason = text(REASON).filter(|reason| reason.len() <= REASON_BYTES_MAX).unwrap_or_default();
        self.ended_with(code, reason);
    }

    fn ended_with(&mut self, code: usize, reason: &str) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let took = self.begun.elapsed();
        self.meters.calls.ended(&self.method, code, took);
        let took_ms = took.as_millis();
        if code == Code::Ok as usize || code == Code::Cancelled as usize {
            return self.span.in_scope(|| tracing::debug!(code, took_ms, "answered"));
        }
        match self.side {
            // A member that goes wrong may be refused thousands of times a second, which must not fill our log.
            Side::Peer => {
                self.meters.refused_to_peer(reason);
                self.span.in_scope(|| tracing::debug!(code, reason, took_ms, "refused"));
            }
            Side::Local => {
                self.meters.refused(reason);
                self.span.in_scope(|| tracing::info!(code, reason, took_ms, "refused"));
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.ended_with(Code::Cancelled as usize, "");
    }
}

fn name(headers: &mut HeaderMap, id: &RequestId) {
    // What a name is made of, a header can hold.
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID, value);
    }
}

/// What is answered, in the call's span: a stream goes on working while it is read.
struct Answer {
    body: tonic::body::Body,
    call: Call,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let span = self.call.span.clone();
        let _in = span.enter();
        let mut polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            self.call.end(trailers);
            name(trailers, &self.call.id);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::StreamExt as _;
    use tower::Service as _;

    use super::*;
    use crate::net::status::refuse;

    /// Answers as it is told, and remembers what the requests were called.
    #[derive(Clone, Default)]
    struct Answers {
        status: Option<Status>,
        names: Arc<Mutex<Vec<RequestId>>>,
    }

    impl tower::Service<http::Request<tonic::body::Body>> for Answers {
        type Response = http::Response<tonic::body::Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
            self.names.lock().unwrap().push(request.extensions().get::<RequestId>().unwrap().clone());
            let answer = match &self.status {
                Some(status) => status.clone().into_http(),
                None => http::Response::new(tonic::body::Body::new(Trailers(true))),
            };
            std::future::ready(Ok(answer))
        }
    }

    /// A body that is nothing but its outcome.
    struct Trailers(bool);

    impl Body for Trailers {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            let mut trailers = HeaderMap::new();
            trailers.insert(GRPC_STATUS, HeaderValue::from_static("9"));
            trailers.insert(REASON, HeaderValue::from_static("QUOTA"));
            Poll::Ready(std::mem::take(&mut self.0).then(|| Ok(Frame::trailers(trailers))))
        }
    }

    fn request(sent: Option<&str>) -> http::Request<tonic::body::Body> {
        let mut request = http::Request::new(tonic::body::Body::empty());
        *request.uri_mut() = "/staydown.local.v1.Forum/Submit".parse().unwrap();
        if let Some(sent) = sent {
            request.headers_mut().insert(REQUEST_ID, sent.parse().unwrap());
        }
        request
    }

    fn codes(meters: &Meters) -> Vec<(String, Vec<(&'static str, u64)>)> {
        let all = meters.calls.all().into_iter().map(|(name, call)| (name, call.by_code().collect::<Vec<_>>()));
        all.filter(|(_, codes)| !codes.is_empty()).collect()
    }

    async fn trailers(answer: http::Response<tonic::body::Body>) -> HeaderMap {
        let mut body = answer.into_body();
        let frames = futures_util::stream::poll_fn(move |cx| Pin::new(&mut body).poll_frame(cx));
        let frames: Vec<_> = frames.collect().await;
        frames.into_iter().find_map(|frame| frame.unwrap().into_trailers().ok()).unwrap_or_default()
    }

    #[test]
    fn a_log_line_has_the_beginning_of_a_name_that_is_too_long() {
        let whole = "a".repeat(CALL_BYTES_MAX);
        for name in ["", "Submit", "prüfe", &whole] {
            assert_eq!(cut(name), name);
        }
        assert_eq!(cut(&format!("{whole}a")), whole);
        assert_eq!(cut(&format!("{}ü", &whole[1..])), &whole[1..], "no half of a character");
    }

    #[tokio::test]
    async fn a_refusal_gives_the_name_back_in_its_trailers_and_is_counted_by_its_reason() {
        let meters = Arc::new(Meters::default());
        let refusing = Answers { status: Some(refuse(Code::PermissionDenied, "SCOPE", "no")), ..Default::default() };
        for (service, reason) in [(Answers::default(), "QUOTA"), (refusing, "SCOPE")] {
            let mut named = Named::new(service.clone(), Side::Local, Arc::clone(&meters));
            let answer = named.call(request(Some("from-a-browser"))).await.unwrap();
            assert_eq!(answer.headers()[REQUEST_ID], "from-a-browser");
            let trailers = trailers(answer).await;
            assert!(trailers.is_empty() || trailers[REQUEST_ID] == "from-a-browser", "{trailers:?}");
            let counted = meters.refused_local.counts();
            assert!(counted.contains(&(reason.to_owned(), 1)), "{counted:?}");
            assert_eq!(service.names.lock().unwrap()[0].as_str(), "from-a-browser");
        }
        let expected = vec![("FAILED_PRECONDITION", 1), ("PERMISSION_DENIED", 1)];
        let mut counted = codes(&meters);
        counted[0].1.sort_unstable();
        assert_eq!(counted, [("staydown.local.v1.Forum/Submit".to_owned(), expected)]);
    }

    #[tokio::test]
    async fn a_call_whose_caller_goes_away_was_cancelled_and_refused_nothing() {
        let meters = Arc::new(Meters::default());
        let mut named = Named::new(Answers::default(), Side::Peer, Arc::clone(&meters));
        drop(named.call(request(None)).await.unwrap());
        assert_eq!(codes(&meters), [("staydown.local.v1.Forum/Submit".to_owned(), vec![("CANCELLED", 1)])]);
        assert!(meters.refused_peer.counts().is_empty());
    }

    #[tokio::test]
    async fn a_request_keeps_the_name_that_it_was_given_before() {
        let service = Answers::default();
        let mut named = Named::new(service.clone(), Side::Local, Arc::default());
        let mut asked = request(Some("sent-by-whoever"));
        let given = RequestId::new();
        asked.extensions_mut().insert(given.clone());
        drop(named.call(asked).await.unwrap());
        drop(named.call(request(Some("not taken!"))).await.unwrap());
        let names = service.names.lock().unwrap();
        assert_eq!(names[0], given);
        assert_eq!(names[1].as_str().len(), 16);
    }
}
