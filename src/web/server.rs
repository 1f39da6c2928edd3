//! The listener: takes connections in, and lets go of those on which nothing moves.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower::ServiceExt as _;

use super::limits::{DRAIN, HEADER_BYTES_MAX, HEADERS_MAX, STREAMS_MAX};
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
        connections.spawn(async move {
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
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
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
    let service = router.map_request(move |request: Request<hyper::body::Incoming>| {
        first.store(true, Ordering::Relaxed);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(From(address));
        request
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
        .max_header_list_size(HEADER_BYTES_MAX as u32)
        .max_pending_accept_reset_streams(PENDING_ACCEPT_RESETS_MAX)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let stream = TokioIo::new(Moving::new(stream, limits.stall));
    let connection = builder.serve_connection(stream, TowerToHyperService::new(service)).into_owned();
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

/// A stream that fails when nothing has moved for a while, in either direction.
struct Moving<S> {
    stream: S,
    stall: Duration,
    stalled: Pin<Box<Sleep>>,
}

impl<S> Moving<S> {
    fn new(stream: S, stall: Duration) -> Self {
        Self { stream, stall, stalled: Box::pin(sleep(stall)) }
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

/// A body that fails when it comes too slowly.
pub(super) struct Paced {
    body: Body,
    pace: Pace,
    since: Instant,
    read: u64,
    late: Pin<Box<Sleep>>,
}

impl Paced {
    pub(super) fn new(body: Body, pace: Pace) -> Self {
        Self { body, pace, since: Instant::now(), read: 0, late: Box::pin(sleep(pace.grace)) }
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                if let Some(Ok(frame)) = &frame {
                    self.read += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
                    let earned = Duration::from_secs(self.read / self.pace.bytes_per_s.max(1));
                    let until = self.since + self.pace.grace + earned;
                    self.late.as_mut().reset(until);
                }
                Poll::Ready(frame)
            }
            Poll::Pending => {
                ready!(self.late.as_mut().poll(cx));
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
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_lives_as_long_as_something_moves() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut moving = Moving::new(ours, Duration::from_secs(60));
        for _ in 0..3 {
            let (read, ()) = tokio::join!(moving.read_u8(), async {
                sleep(Duration::from_secs(59)).await;
                theirs.write_u8(1).await.unwrap();
            });
            assert_eq!(read.unwrap(), 1);
        }
        assert_eq!(moving.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_read_is_let_go() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let mut moving = Moving::new(ours, Duration::from_secs(60));
        assert_eq!(moving.write_all(&[0; 65]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_earns_its_time() {
        let body = |bytes: usize, every_s: u64| {
            let pieces = futures_util::stream::unfold(0, move |sent| async move {
                sleep(Duration::from_secs(every_s)).await;
                (sent < 50).then(|| (Ok::<_, io::Error>(Frame::data(Bytes::from(vec![0; bytes]))), sent + 1))
            });
            let pace = Pace { grace: Duration::from_secs(20), bytes_per_s: 1_000 };
            Paced::new(Body::new(StreamBody::new(pieces)), pace)
        };
        assert_eq!(body(1_000, 1).collect().await.unwrap().to_bytes().len(), 50_000);
        assert!(body(100, 1).collect().await.is_err(), "a tenth of the pace");
        assert!(body(1_000_000, 21).collect().await.is_err(), "nothing at all within the grace");
    }
}
