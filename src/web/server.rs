//! The listener: takes connections in, and lets go of those on which nothing moves.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower::ServiceExt as _;

use super::limits::{HEADER_BYTES_MAX, HEADERS_MAX, STREAMS_MAX};
use super::{Limits, Web, WebTls, router};
use crate::net::limits::{KEEPALIVE, KEEPALIVE_TIMEOUT, PENDING_ACCEPT_RESETS_MAX};

/// Pause after the operating system gives no connection, as when all descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What HTTP/1 reads ahead of a request.
const READ_AHEAD_BYTES: usize = 64 << 10;

/// Serves `web` on `listener` until `stopped`, and then lets what is under way come to its end.
///
/// # Errors
/// The router cannot be made, which is a mistake of ours.
pub async fn serve(
    listener: TcpListener,
    tls: Option<WebTls>,
    web: Web,
    stopped: impl Future<Output = ()>,
) -> io::Result<()> {
    let limits = *web.limits;
    let meters = Arc::clone(web.service.service().meters());
    let router = router(web).await.map_err(io::Error::other)?;
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    tokio::pin!(stopped);
    loop {
        while connections.try_join_next().is_some() {}
        // No place: nobody is taken in, and the kernel keeps those that come waiting.
        let place = tokio::select! {
            () = &mut stopped => break,
            place = Arc::clone(&places).acquire_owned() => place.map_err(io::Error::other)?,
        };
        let accepted = tokio::select! {
            () = &mut stopped => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "no connection taken in");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small: none of them waits for company.
        drop(stream.set_nodelay(true));
        let (router, tls, watcher) = (router.clone(), tls.clone(), graceful.watcher());
        let open = meters.web_open.guard();
        if let Some(tls) = &tls {
            // It may have been renewed meanwhile, and whoever reads metrics comes over a connection, too.
            meters.web_certificate_ends(tls.not_after());
        }
        connections.spawn(async move {
            let _open = open;
            let served = match tls {
                None => converse(stream, address, router, limits, watcher).await,
                Some(tls) => match timeout(limits.first_request, tls.acceptor().accept(stream)).await {
                    Ok(Ok(stream)) => converse(stream, address, router, limits, watcher).await,
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_elapsed) => Err("the handshake took too long".into()),
                },
            };
            if let Err(why) = served {
                tracing::debug!(why, "a connection of our own people ended");
            }
            drop(place);
        });
    }
    drop(listener);
    if timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::debug!("requests of our own people were cut off");
    }
    Ok(())
}

/// One connection, to its end.
async fn converse<S>(
    stream: S,
    address: SocketAddr,
    router: Router,
    limits: Limits,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = Arc::new(AtomicBool::new(false));
    let first = Arc::clone(&begun);
    let unanswered = Arc::new(AtomicUsize::new(0));
    let moving = Moving::new(stream, limits.stall, Arc::clone(&unanswered));
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        first.store(true, Ordering::Relaxed);
        let until_answered = Unanswered::one_more(&unanswered);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(From(address));
        let answer = router.clone().oneshot(request);
        async move {
            let answer = answer.await;
            drop(until_answered);
            answer
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers)
        .max_headers(HEADERS_MAX)
        .max_buf_size(READ_AHEAD_BYTES)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_ACCEPT_RESETS_MAX)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(moving), service).into_owned();
    let connection = watcher.watch(connection);
    tokio::pin!(connection);
    // Which version of HTTP it is shows with the first bytes; whoever sends one of them and no more is not waited for.
    tokio::select! {
        ended = &mut connection => return ended.map_err(|error| error.to_string()),
        () = sleep(limits.first_request) => {
            if !begun.load(Ordering::Relaxed) {
                return Err("no whole request came in time".into());
            }
        }
    }
    connection.await.map_err(|error| error.to_string())
}

/// Where a request comes from: in the extensions of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct From(pub SocketAddr);

/// A request to which no answer has begun.
struct Unanswered(Arc<AtomicUsize>);

impl Unanswered {
    fn one_more(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(all))
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that fails when nothing has moved for a while, in either direction. Whoever waits for our answer need not send
/// anything meanwhile: how long a body may take is [`Paced`]'s to say.
struct Moving<S> {
    stream: S,
    stall: Duration,
    stalled: Pin<Box<Sleep>>,
    /// Requests to which no answer has begun.
    unanswered: Arc<AtomicUsize>,
}

impl<S> Moving<S> {
    fn new(stream: S, stall: Duration, unanswered: Arc<AtomicUsize>) -> Self {
        Self { stream, stall, stalled: Box::pin(sleep(stall)), unanswered }
    }

    /// Puts the end off when something moved; without that, fails once it has come.
    fn judge<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            let until = Instant::now() + self.stall;
            self.stalled.as_mut().reset(until);
            return polled;
        }
        ready!(self.stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nothing moved for too long")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Moving<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_pending() && self.unanswered.load(Ordering::Relaxed) > 0 {
            return Poll::Pending;
        }
        self.judge(cx, polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Moving<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A flush that has nothing to do is no movement.
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// How fast a body has to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Time that any body has.
    pub(super) grace: Duration,
    /// And a second more for so many bytes.
    pub(super) bytes_per_s: u64,
}

impl Pace {
    fn time_for(self, bytes: u64) -> Duration {
        self.grace + Duration::from_secs(bytes / self.bytes_per_s.max(1))
    }
}

/// A body that fails when it comes too slowly.
pub(super) struct Paced {
    body: Body,
    pace: Pace,
    read: u64,
    /// When somebody first asked for some of it, and when it is late: whoever waits to be read is not.
    begun: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Paced {
    pub(super) fn new(body: Body, pace: Pace) -> Self {
        Self { body, pace, read: 0, begun: None }
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, pace, read, begun } = &mut *self;
        let (since, late) = begun.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(pace.grace))));
        match Pin::new(body).poll_frame(cx) {
            Poll::Ready(frame) => {
                if let Some(Ok(frame)) = &frame {
                    *read += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
                    late.as_mut().reset(*since + pace.time_for(*read));
                }
                Poll::Ready(frame)
            }
            Poll::Pending => {
                ready!(late.as_mut().poll(cx));
                let slow = io::Error::new(io::ErrorKind::TimedOut, "the body comes too slowly");
                Poll::Ready(Some(Err(axum::Error::new(slow))))
            }
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
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// So long that no test comes to its end, and so short that it is awaited.
    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn a_stream_lives_as_long_as_something_moves() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut moving = Moving::new(ours, LONG, Arc::default());
        for _ in 0..3 {
            let before = moving.stalled.deadline();
            theirs.write_u8(1).await.unwrap();
            assert_eq!(moving.read_u8().await.unwrap(), 1);
            assert!(moving.stalled.deadline() > before, "the end is put off");
        }
        let (ours, _theirs) = tokio::io::duplex(64);
        let mut moving = Moving::new(ours, SHORT, Arc::default());
        assert_eq!(moving.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn whoever_waits_for_our_answer_need_not_send_but_has_to_read() {
        let unanswered = Arc::default();
        let waits = Unanswered::one_more(&unanswered);
        let (ours, _theirs) = tokio::io::duplex(64);
        let mut moving = Moving::new(ours, SHORT, unanswered);
        let (beside, _theirs) = tokio::io::duplex(64);
        let mut other = Moving::new(beside, SHORT, Arc::default());
        assert_eq!(other.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(moving.read_u8().now_or_never().is_none(), "its time was over before the other's");
        assert_eq!(moving.write_all(&[0; 65]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(waits);
        assert_eq!(moving.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_is_let_go() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let mut moving = Moving::new(ours, SHORT, Arc::default());
        assert_eq!(moving.write_all(&[0; 65]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_body_earns_its_time() {
        let pace = Pace { grace: Duration::from_secs(20), bytes_per_s: 1_000 };
        assert_eq!(pace.time_for(0), Duration::from_secs(20));
        assert_eq!(pace.time_for(60_000), Duration::from_secs(80));
        assert_eq!(
            Pace { bytes_per_s: 0, ..pace }.time_for(7),
            Duration::from_secs(27),
            "no pace is no division by it"
        );
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up_and_one_that_comes_is_whole() {
        let pieces = || {
            futures_util::stream::iter((0..50).map(|_| Ok::<_, io::Error>(Frame::data(Bytes::from(vec![0; 1_000])))))
        };
        let whole = Paced::new(Body::new(StreamBody::new(pieces())), Pace { grace: LONG, bytes_per_s: 1_000 });
        assert_eq!(whole.collect().await.unwrap().to_bytes().len(), 50_000);
        let never = futures_util::stream::pending::<Result<Frame<Bytes>, io::Error>>();
        let hasty = Pace { grace: SHORT, bytes_per_s: 1_000 };
        let waits = Paced::new(Body::new(StreamBody::new(pieces())), hasty);
        let late = Paced::new(Body::new(StreamBody::new(never)), hasty);
        assert!(late.collect().await.is_err());
        assert!(waits.begun.is_none(), "a body that nobody has asked for is not late");
    }
}
