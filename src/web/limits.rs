//! What bounds browsers and programs: every limit of the listener, named, and small in tests that see it bite.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::config::DRAIN_DEFAULT;
use crate::net::limits::LOCAL_MESSAGE_BYTES_MAX;
use crate::net::local::FILES_BYTES_MAX;

/// Connections at once: browsers, each with a few, and programs of one company.
pub const CONNECTIONS_MAX: usize = 512;
/// A handshake, or the first whole request, takes less than this.
pub const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// All headers of one request are there within this.
pub const HEADERS: Duration = Duration::from_secs(10);
/// A connection on which nothing moves for so long is closed: the reader has stopped reading, or has gone. Streams of events
/// say something every [`KEEPALIVE`].
pub const STALL: Duration = Duration::from_secs(60);
/// A sign of life on quiet streams of events.
pub const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long any body may take, however short it is.
pub const BODY_GRACE: Duration = Duration::from_secs(20);
/// And for each second more so many bytes must have come: the upload of a phone far from its mast.
pub const BODY_BYTES_PER_S: u64 = 16 << 10;
/// A body that holds no file.
pub const BODY_BYTES_MAX: usize = LOCAL_MESSAGE_BYTES_MAX;
/// A body with files: as many bytes of them as one lookup takes, and what stands around them.
pub const UPLOAD_BYTES_MAX: usize = FILES_BYTES_MAX + (1 << 20);
/// Bodies with files that are taken in at once.
pub const UPLOADS_MAX: usize = 4;
/// A form of the console without a file.
pub const FORM_BYTES_MAX: usize = 64 << 10;
/// All headers of one request.
pub const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Headers of one request.
pub const HEADERS_MAX: usize = 100;
/// Requests at once on one HTTP/2 connection.
pub const STREAMS_MAX: u32 = 128;
/// Requests a second of one token. An upload service that needs more looks up over the Unix socket, or in a stream.
pub const REQUESTS_PER_S: u32 = 1_000;
/// And so many at once after a pause.
pub const REQUESTS_BURST: u32 = 2_000;
/// Requests a second, of everybody together, that show no token or a wrong one.
pub const STRANGERS_PER_S: u32 = 20;
/// And so many at once after a pause.
pub const STRANGERS_BURST: u32 = 100;
/// All of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the constant of its name")]
pub struct Limits {
    /// How long what is under way may take when the node is told to stop: a setting.
    pub drain: Duration,
    pub connections_max: usize,
    pub first_request: Duration,
    pub headers: Duration,
    pub stall: Duration,
    pub body_grace: Duration,
    pub body_bytes_per_s: u64,
    pub body_bytes_max: usize,
    pub upload_bytes_max: usize,
    pub form_bytes_max: usize,
    pub requests_per_s: NonZeroU32,
    pub requests_burst: NonZeroU32,
    pub strangers_per_s: NonZeroU32,
    pub strangers_burst: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        let some = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            drain: DRAIN_DEFAULT,
            connections_max: CONNECTIONS_MAX,
            first_request: FIRST_REQUEST,
            headers: HEADERS,
            stall: STALL,
            body_grace: BODY_GRACE,
            body_bytes_per_s: BODY_BYTES_PER_S,
            body_bytes_max: BODY_BYTES_MAX,
            upload_bytes_max: UPLOAD_BYTES_MAX,
            form_bytes_max: FORM_BYTES_MAX,
            requests_per_s: some(REQUESTS_PER_S),
            requests_burst: some(REQUESTS_BURST),
            strangers_per_s: some(STRANGERS_PER_S),
            strangers_burst: some(STRANGERS_BURST),
        }
    }
}
