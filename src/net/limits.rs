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
