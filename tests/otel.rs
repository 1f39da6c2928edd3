//! With the feature `otel`: what a collector of OpenTelemetry is sent.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as _, Frame};
use staydown::config::Config;
use staydown::telemetry;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic::body::Body;

/// The messages that came, one behind the other.
type Came = Arc<Mutex<Vec<u8>>>;

/// Takes whatever it is sent, and thanks for it.
#[derive(Clone)]
struct Collector(Came);

impl tonic::server::NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl tower::Service<http::Request<Body>> for Collector {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let came = Arc::clone(&self.0);
        Box::pin(async move {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                came.lock().unwrap().extend(frame.into_data().unwrap_or_default());
            }
            let mut answer = http::Response::new(Body::new(Thanks(0)));
            answer.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            Ok(answer)
        })
    }
}

/// An empty message, and that all is well.
struct Thanks(u8);

impl http_body::Body for Thanks {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0 += 1;
        Poll::Ready(match self.0 {
            1 => Some(Ok(Frame::data(Bytes::from_static(&[0; 5])))),
            2 => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Some(Ok(Frame::trailers(trailers)))
            }
            _ => None,
        })
    }
}

fn has(came: &[u8], text: &str) -> bool {
    came.windows(text.len()).any(|part| part == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_sent_the_spans_of_requests_with_their_names_and_lines() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let came = Came::default();
    let collector = tonic::transport::Server::builder().add_service(Collector(Arc::clone(&came)));
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(collector.serve_with_incoming(TcpListenerStream::new(listener)));

    let mut config = Config::default_in("/d".into());
    config.log.otlp_endpoint = Some(format!("http://{address}"));
    let telemetry = telemetry::start(&config, false).unwrap();
    tracing::error_span!("call", request_id = "from-a-browser", call = "Submit").in_scope(|| {
        tracing::info!(block = "acme/0/7", "said: durable and published");
        tracing::debug!("finer than the filter");
    });
    // Its end waits until everything is sent, and would block a worker that is needed for that.
    tokio::task::spawn_blocking(move || drop(telemetry)).await.unwrap();

    let came = came.lock().unwrap().clone();
    for text in ["call", "from-a-browser", "Submit", "acme/0/7", "said: durable and published", "service.name"] {
        assert!(has(&came, text), "{text} is missing among {} bytes", came.len());
    }
    assert!(!has(&came, "finer than the filter"));
    serving.shutdown().await;
}
