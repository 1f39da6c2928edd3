//! Every limit of the peer listener and connector, set explicitly (PROTOCOL section 13): what a library leaves out by
//! default is unlimited.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tonic::transport::{Endpoint, Server};

use crate::replica::ids::Pin;

/// A gRPC message: a frame is at most 256 KiB of records and their framing.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// HTTP/2 streams of one connection at once.
pub const STREAMS_MAX: u32 = 32;
/// Streams that were reset before we accepted them: the rapid-reset attack.
pub const PENDING_ACCEPT_RESETS_MAX: usize = 20;
/// Streams that we reset for errors of the other side.
pub const LOCAL_ERROR_RESETS_MAX: usize = 128;
/// All headers of one request.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// A connection ends after this, so that a renewed certificate and a changed roster are seen by everybody.
pub const CONNECTION_AGE: Duration = Duration::from_secs(6 * 3600);
/// What is under way may go on so long after [`CONNECTION_AGE`].
pub const CONNECTION_GRACE: Duration = Duration::from_secs(60);
/// Pings on a quiet connection.
pub const KEEPALIVE: Duration = Duration::from_secs(20);
/// A ping must be answered within this.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// What may be under way on one stream. Below the 4 MiB that a node may buffer, and small enough that an urgent block
/// is not behind more than a fraction of a second of bulk.
pub const STREAM_WINDOW: u32 = 2 << 20;
/// What may be under way on one connection.
pub const CONNECTION_WINDOW: u32 = 8 << 20;
/// Bytes a second that one peer is served.
pub const PEER_BYTES_PER_S: u32 = 64 << 20;
/// Bytes that one peer may be served at once after a pause.
pub const PEER_BYTES_BURST: u32 = 8 << 20;
/// A sign of life on every followed stream.
pub const TICK: Duration = Duration::from_secs(15);
/// A stream on which nothing was heard for so long is given up: three signs of life were missed.
pub const SILENCE_MAX: Duration = Duration::from_secs(45);
/// An answer to a single question.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Calls at once on one local connection: an upload service looks up from many threads.
pub const LOCAL_STREAMS_MAX: u32 = 1_024;
/// A message on the local socket; 511 statements fit.
pub const LOCAL_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Streams of submissions at once on the local socket: an importer has one or two, and each may hold
/// [`SUBMISSIONS_AHEAD`] messages.
pub const SUBMIT_STREAMS_MAX: usize = 8;
/// Submissions of one stream under way: as many as one group commit covers.
pub const SUBMISSIONS_AHEAD: usize = 32;
/// Streams of lookups at once on the local socket: upload services have one a process.
pub const LOOKUP_STREAMS_MAX: usize = 64;
/// Lookups of one stream that are searched for together: enough that handing them to a thread costs each of them little,
/// and searched within a few milliseconds.
pub const LOOKUPS_TOGETHER: usize = 64;
/// Lots of [`LOOKUPS_TOGETHER`], or requests in bulk, of one stream under way: while one is answered the next is searched.
pub const LOOKUPS_AHEAD: usize = 2;
/// Watches at once on the local socket: each reads the whole list once an hour, for what ended.
pub const WATCHES_MAX: usize = 16;
/// Exports at once on the local socket: each holds a thread, and some MiB of entries on their way.
pub const EXPORTS_MAX: usize = 4;

/// A gRPC server with every limit set.
pub fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .concurrency_limit_per_connection(STREAMS_MAX as usize)
        .load_shed(true)
        .http2_max_pending_accept_reset_streams(Some(PENDING_ACCEPT_RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(LOCAL_ERROR_RESETS_MAX))
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_connection_age(CONNECTION_AGE)
        .max_connection_age_grace(CONNECTION_GRACE)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

/// A gRPC client's endpoint with every limit set.
pub fn endpoint() -> Endpoint {
    Endpoint::from_static("http://peer.staydown.invalid")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
}

/// What each peer is served a second; keys are pins of the roster, so their number is bounded by the charter.
pub fn peer_bytes() -> DefaultKeyedRateLimiter<Pin> {
    let quota = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
    RateLimiter::keyed(Quota::per_second(quota(PEER_BYTES_PER_S)).allow_burst(quota(PEER_BYTES_BURST)))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use super::*;
    use crate::engine::{LINGER_MS, QUEUE_MAX};
    use crate::net::local::{BULK_MAX, FILES_BYTES_MAX, FILES_MAX, PAGE_MAX, SIGNALS_MAX};
    use crate::net::tls;
    use crate::replica::block::{PAYLOAD_SIZE_MAX, RECORD_SIZE_MAX, RECORDS_PER_BLOCK_MAX};
    use crate::replica::charter::{CHARTER_SIZE_MAX, HAVE_MAX, LOG_LIMIT_DEFAULT, PINS_PER_NODE_MAX};
    use crate::replica::exchange::{BACKOFF_MAX_MS, BAN_MS, FUTURE_MS, HEADERS_MAX, REFUSED_RETRY_MS, REPAIR_MS};
    use crate::replica::index::MATCHES_MAX;
    use crate::replica::own::{OUTBOX_MAX, RECORDS_PER_SUBMISSION_MAX};
    use crate::store::{DISK_LOW_BYTES, DISK_LOW_PERCENT};

    /// PROTOCOL section 13, row by row, and the numbers that stand elsewhere in it. That each of them bites is tested
    /// where it is enforced.
    #[test]
    fn every_limit_is_the_protocols() {
        assert_eq!(RECORD_SIZE_MAX, 4 * 1024, "record");
        assert_eq!(RECORDS_PER_BLOCK_MAX, 512, "records per block");
        assert_eq!(PAYLOAD_SIZE_MAX, 256 * 1024, "block payload");
        assert_eq!(MESSAGE_BYTES_MAX, 1024 * 1024, "gRPC message");
        assert_eq!(HAVE_MAX, 8_192, "have vector");
        assert_eq!(CHARTER_SIZE_MAX, 1024 * 1024, "charter body");
        assert_eq!(LOG_LIMIT_DEFAULT, 16, "logs per member");
        assert_eq!((DISK_LOW_PERCENT, DISK_LOW_BYTES), (5, 1 << 30), "disk low-water");
        assert_eq!(STREAMS_MAX, 32, "concurrent streams");
        assert_eq!((tls::CONNECTIONS_PER_PIN_MAX, tls::CONNECTIONS_MAX), (4, 512), "connections");
        assert_eq!((tls::HANDSHAKE_TIMEOUT, tls::HANDSHAKES_MAX), (Duration::from_secs(5), 64), "handshake");
        assert_eq!((PENDING_ACCEPT_RESETS_MAX, LOCAL_ERROR_RESETS_MAX), (20, 128), "resets");
        assert_eq!(HEADER_LIST_BYTES_MAX, 16 * 1024, "header list");
        assert_eq!((CONNECTION_AGE, CONNECTION_GRACE), (Duration::from_secs(21_600), Duration::from_secs(60)));
        assert_eq!((KEEPALIVE, KEEPALIVE_TIMEOUT), (Duration::from_secs(20), Duration::from_secs(20)));
        assert_eq!((PEER_BYTES_PER_S, PEER_BYTES_BURST), (64 << 20, 8 << 20), "per-peer bytes");
        assert_eq!((REFUSED_RETRY_MS, BAN_MS), (5 * 60_000, 60 * 60_000), "suspended, banned");
        assert_eq!((REPAIR_MS, BACKOFF_MAX_MS, FUTURE_MS), (30_000, 5 * 60_000, 120_000), "section 6");
        assert_eq!((TICK, PINS_PER_NODE_MAX, LINGER_MS), (Duration::from_secs(15), 4, 5), "sections 2, 6 and 7");
    }

    /// Limits that the protocol leaves to the node; a change of one is a change of this table.
    #[test]
    fn limits_of_our_own() {
        assert_eq!((OUTBOX_MAX, RECORDS_PER_SUBMISSION_MAX), (10_000, 511));
        assert_eq!((HEADERS_MAX, MATCHES_MAX, PAGE_MAX, SIGNALS_MAX), (256, 1_000, 1_000, 64));
        assert_eq!((QUEUE_MAX, LOCAL_STREAMS_MAX, LOCAL_MESSAGE_BYTES_MAX), (32, 1_024, 4 << 20));
        assert_eq!((SUBMIT_STREAMS_MAX, LOOKUP_STREAMS_MAX, WATCHES_MAX, EXPORTS_MAX), (8, 64, 16, 4));
        assert_eq!((SUBMISSIONS_AHEAD, LOOKUPS_TOGETHER, LOOKUPS_AHEAD, BULK_MAX), (32, 64, 2, 10_000));
        assert_eq!((FILES_MAX, FILES_BYTES_MAX), (8, 64 << 20));
    }

    /// A page of entries, a whole submission and a whole block fit into the messages that carry them.
    #[test]
    fn the_limits_fit_into_each_other() {
        const { assert!(PAYLOAD_SIZE_MAX + RECORDS_PER_BLOCK_MAX * 16 + 1024 < MESSAGE_BYTES_MAX) };
        const { assert!(HAVE_MAX * 80 < MESSAGE_BYTES_MAX) };
        const { assert!(RECORDS_PER_SUBMISSION_MAX < RECORDS_PER_BLOCK_MAX) };
        const { assert!(MESSAGE_BYTES_MAX < PEER_BYTES_BURST as usize) };
        const { assert!(BULK_MAX * 64 + 1024 < LOCAL_MESSAGE_BYTES_MAX) };
        const { assert!(FILES_BYTES_MAX as u64 <= crate::hashing::pool::FILE_BYTES_MAX) };
        const { assert!(STREAM_WINDOW < CONNECTION_WINDOW && STREAM_WINDOW <= 4 << 20) };
    }

    #[tokio::test]
    async fn a_peer_is_served_its_burst_and_then_waits() {
        let limiter = peer_bytes();
        let size = |n: u32| NonZeroU32::new(n).unwrap();
        let now = |pin: u8, n: u32| matches!(limiter.check_key_n(&Pin([pin; 32]), size(n)), Ok(Ok(())));
        assert!(now(1, PEER_BYTES_BURST));
        assert!(!now(1, PEER_BYTES_BURST), "a second burst at once is not served");
        assert!(now(2, PEER_BYTES_BURST), "another peer has its own");
        assert!(limiter.check_key_n(&Pin([3; 32]), size(PEER_BYTES_BURST + 1)).is_err(), "more than a burst never is");
    }

    /// A service that answers nothing: what is refused never reaches it.
    #[derive(Clone)]
    struct Nothing;

    impl tower::Service<http::Request<tonic::body::Body>> for Nothing {
        type Response = http::Response<tonic::body::Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<tonic::body::Body>) -> Self::Future {
            std::future::ready(Ok(tonic::Status::unimplemented("reached").into_http()))
        }
    }

    impl tonic::server::NamedService for Nothing {
        const NAME: &'static str = "staydown.peer.v1.Peer";
    }

    #[tokio::test]
    async fn a_request_with_more_headers_than_the_limit_is_refused() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(server().add_service(Nothing).serve_with_incoming(incoming));
        let channel = Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap();
        let mut codes = Vec::new();
        for bytes in [1_000, 2 * HEADER_LIST_BYTES_MAX as usize] {
            let mut client = crate::wire::peer_service::peer_client::PeerClient::new(channel.clone());
            let mut request = tonic::Request::new(crate::replica::proto::HelloRequest::default());
            request.metadata_mut().insert("padding", "x".repeat(bytes).parse().unwrap());
            codes.push(client.hello(request).await.unwrap_err().message().to_owned());
        }
        assert_eq!(codes[0], "reached");
        assert_ne!(codes[1], "reached");
        tasks.shutdown().await;
    }
}
