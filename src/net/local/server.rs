//! The local service as it is served: how long a message of which call may be.
//!
//! `Lookup` alone takes files, so it alone takes long messages. A message is whole in memory before anything looks at it;
//! so that many callers at once do not fill it, a request that turns out to be longer than those of all other calls waits
//! until few others are: HTTP/2's windows keep the rest of it with its sender.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tonic::server::NamedService;
use tonic::{Code, Status};

use super::LocalService;
use super::gate::{Gate, refused};
use super::lookups::FILES_BYTES_MAX;
use crate::access::{Caller, Scope};
use crate::net::calls::{Named, Side};
use crate::net::limits::LOCAL_MESSAGE_BYTES_MAX;
use crate::net::status::refuse;
use crate::wire::local_service::forum_server::ForumServer;

/// The one call that takes files.
const LOOKUP: &str = "/staydown.local.v1.Forum/Lookup";
/// A lookup with as many bytes of files as are possible, and as much else as any other call may have.
const LOOKUP_BYTES_MAX: usize = FILES_BYTES_MAX + LOCAL_MESSAGE_BYTES_MAX;
/// Long requests that are taken in at once: 272 MiB.
const LONG_REQUESTS_MAX: usize = 4;
/// How long a request that has a place may take, however little of it is left.
const LONG_GRACE: Duration = Duration::from_secs(20);
/// And for each second more so many bytes must have come: at the slowest, a place is kept for less than 19 minutes.
const LONG_BYTES_PER_S: usize = 64 << 10;

/// The gRPC service, with its limits set.
#[derive(Clone)]
pub struct LocalServer {
    ordinary: Named<ForumServer<Gate>>,
    lookups: Named<ForumServer<Gate>>,
    long: Arc<Semaphore>,
}

impl LocalServer {
    pub(super) fn new(service: &LocalService) -> Self {
        let limited = |bytes| {
            let server = ForumServer::new(Gate::new(service.clone()));
            let server = server.max_decoding_message_size(bytes).max_encoding_message_size(LOCAL_MESSAGE_BYTES_MAX);
            Named::new(server, Side::Local, Arc::clone(service.shared().meters()))
        };
        let (ordinary, lookups) = (limited(LOCAL_MESSAGE_BYTES_MAX), limited(LOOKUP_BYTES_MAX));
        Self { ordinary, lookups, long: Arc::new(Semaphore::new(LONG_REQUESTS_MAX)) }
    }
}

impl NamedService for LocalServer {
    const NAME: &'static str = <ForumServer<Gate> as NamedService>::NAME;
}

impl tower::Service<http::Request<tonic::body::Body>> for LocalServer {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        if request.uri().path() != LOOKUP {
            return self.ordinary.call(request);
        }
        let long = Arc::clone(&self.long);
        let caller = request.extensions().get::<Caller>().filter(|caller| !caller.scopes.allow(Scope::Lookup));
        let place = caller.map_or(Place::NotNeeded, |caller| Place::Refused(refused(caller, Scope::Lookup)));
        let metered = |body| Metered { body, read: 0, place, long, grace: LONG_GRACE };
        self.lookups.call(request.map(|body| tonic::body::Body::new(metered(body))))
    }
}

/// A request's body that waits for a place when it becomes long, and has to come at some pace from then on.
struct Metered {
    body: tonic::body::Body,
    read: usize,
    place: Place,
    long: Arc<Semaphore>,
    grace: Duration,
}

enum Place {
    /// There is none for them, as for whom the call is not.
    Refused(Status),
    NotNeeded,
    Awaited(BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>),
    /// Until the body is read.
    Taken {
        _permit: OwnedSemaphorePermit,
        since: Instant,
        /// What had been read by then.
        from: usize,
        late: Pin<Box<Sleep>>,
    },
}

impl Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, read, place, long, grace } = &mut *self;
        if let Place::Refused(status) = place {
            return Poll::Ready(Some(Err(status.clone())));
        }
        if *read > LOCAL_MESSAGE_BYTES_MAX && matches!(place, Place::NotNeeded) {
            *place = Place::Awaited(Box::pin(Arc::clone(long).acquire_owned()));
        }
        if let Place::Awaited(awaited) = place {
            let permit = ready!(awaited.as_mut().poll(cx)).map_err(|_closed| super::bug())?;
            let late = Box::pin(sleep(*grace));
            *place = Place::Taken { _permit: permit, since: Instant::now(), from: *read, late };
        }
        match (Pin::new(body).poll_frame(cx), place) {
            (Poll::Ready(frame), place) => {
                if let Some(Ok(frame)) = &frame {
                    *read += frame.data_ref().map_or(0, |bytes| bytes.remaining());
                }
                if let Place::Taken { since, from, late, .. } = place {
                    let earned = Duration::from_secs(((*read - *from) / LONG_BYTES_PER_S) as u64);
                    late.as_mut().reset(*since + *grace + earned);
                }
                Poll::Ready(frame)
            }
            (Poll::Pending, Place::Taken { late, .. }) => {
                ready!(late.as_mut().poll(cx));
                let slow = refuse(Code::DeadlineExceeded, "SLOW", "the files come too slowly");
                Poll::Ready(Some(Err(slow)))
            }
            (Poll::Pending, _) => Poll::Pending,
        }
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
    use futures_util::FutureExt as _;

    use super::*;

    /// A body of so many pieces of one MiB; it may be that nothing follows them, not even its end.
    struct Pieces(usize, bool);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            let left = self.0;
            if left == 0 && self.1 {
                return Poll::Pending;
            }
            self.0 = left.saturating_sub(1);
            Poll::Ready((left > 0).then(|| Ok(Frame::data(Bytes::from(vec![7; 1 << 20])))))
        }
    }

    async fn read(body: &mut Metered, pieces: usize) -> usize {
        let mut read = 0;
        while read < pieces
            && std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await.transpose().unwrap().is_some()
        {
            read += 1;
        }
        read
    }

    fn metered(pieces: Pieces, long: &Arc<Semaphore>, grace: Duration) -> Metered {
        let body = tonic::body::Body::new(pieces);
        Metered { body, read: 0, place: Place::NotNeeded, long: Arc::clone(long), grace }
    }

    #[tokio::test]
    async fn a_long_request_that_stops_leaves_its_place() {
        let long = Arc::new(Semaphore::new(1));
        let mut stops = metered(Pieces(5, true), &long, Duration::from_millis(1));
        assert_eq!(read(&mut stops, 5).await, 5);
        let late = std::future::poll_fn(|cx| Pin::new(&mut stops).poll_frame(cx)).await;
        assert_eq!(late.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
        drop(stops);
        assert_eq!(read(&mut metered(Pieces(9, false), &long, LONG_GRACE), 9).await, 9);
    }

    #[tokio::test]
    async fn nothing_is_read_of_whom_the_call_is_not_for() {
        let long = Arc::new(Semaphore::new(1));
        let refusal = refuse(Code::PermissionDenied, "SCOPE", "no");
        let mut refused = Metered { place: Place::Refused(refusal), ..metered(Pieces(9, false), &long, LONG_GRACE) };
        let said = std::future::poll_fn(|cx| Pin::new(&mut refused).poll_frame(cx)).await;
        assert_eq!(said.unwrap().unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(refused.read, 0);
    }

    #[tokio::test]
    async fn few_long_requests_are_taken_in_at_once_and_short_ones_wait_for_none_of_them() {
        let long = Arc::new(Semaphore::new(LONG_REQUESTS_MAX));
        let body = |pieces| metered(Pieces(pieces, false), &long, LONG_GRACE);
        let mut all: Vec<_> = (0..=LONG_REQUESTS_MAX).map(|_| body(9)).collect();
        for body in &mut all[..LONG_REQUESTS_MAX] {
            assert_eq!(read(body, 8).await, 8);
        }
        let mut last = all.pop().unwrap();
        assert_eq!(read(&mut last, 5).await, 5, "what any other call may have is read at once");
        assert_eq!(read(&mut last, 1).now_or_never(), None, "the rest waits");
        assert_eq!(read(&mut body(4), 9).await, 4);
        drop(all.pop());
        assert_eq!(read(&mut last, 9).await, 4);
    }
}
