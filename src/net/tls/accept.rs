//! Peers that dial us: the accept loop, its limits, and the registry by which a live connection can be cut.
//!
//! Every handshake has a task of its own and an end (WHY M5: one half-open handshake awaited in the loop stopped the
//! whole server). What comes out is a [`PeerStream`], which knows whose it is.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin as Pinned;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustls::{AlertDescription, CertificateError, PeerIncompatible};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use super::cut::{Cut, Side};
use super::{ALPN_H2, Refusal, Roster, Tls, Verified, alert_reason, tls_error};
use crate::clock;
use crate::replica::ids::{MemberId, Pin, TimeMs};

/// A handshake takes two round trips; 5 s is generous for any line, and short for somebody who keeps slots busy.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes at once: each costs a public key operation or two and some 20 KiB.
pub const HANDSHAKES_MAX: usize = 64;
/// When all slots are taken, a handshake this old yields its slot to a newcomer: a silent stranger keeps a slot for
/// the whole timeout only while nobody else wants it.
pub const HANDSHAKE_YIELD_AFTER: Duration = Duration::from_secs(1);
/// Connections in all: a forum of 100 members with a few nodes each.
pub const CONNECTIONS_MAX: usize = 512;
/// Connections of one key: one in use, one that is being replaced, and two that died unnoticed.
pub const CONNECTIONS_PER_PIN_MAX: usize = 4;
/// Refusals kept for people to look at.
pub const REFUSALS_KEPT: usize = 32;
/// Refusals logged as warnings in one second; more are counted, and logged as debug only, so that a flood of
/// connections does not become a flood of log lines.
pub const WARNINGS_PER_S: u32 = 20;

/// Pause after the operating system would not accept (no file descriptors left): trying on at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long, and for how many bytes, a refused peer is listened to, so that our alert is not lost in a reset.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: u64 = 64 * 1024;

/// Limits of the accept loop; the defaults are PROTOCOL section 13.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptLimits {
    /// A handshake ends after this.
    pub handshake_timeout: Duration,
    /// Handshakes at once.
    pub handshakes_max: usize,
    /// Age at which a handshake yields when all slots are taken.
    pub handshake_yield_after: Duration,
    /// Connections in all.
    pub connections_max: usize,
    /// Connections of one pin.
    pub connections_per_pin_max: usize,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self {
            handshake_timeout: HANDSHAKE_TIMEOUT,
            handshakes_max: HANDSHAKES_MAX,
            handshake_yield_after: HANDSHAKE_YIELD_AFTER,
            connections_max: CONNECTIONS_MAX,
            connections_per_pin_max: CONNECTIONS_PER_PIN_MAX,
        }
    }
}

/// Accepts peers on `listener` until `shutdown` is ready: the stream for tonic's `serve_with_incoming_shutdown`.
///
/// It never yields an error: one peer's failure is logged and kept in `connections`, and a listener that fails is
/// tried again. Dropping the stream closes the listener and ends the handshakes; accepted connections live on.
pub fn accept_loop(
    listener: TcpListener,
    tls: Tls,
    connections: Connections,
    limits: AcceptLimits,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Incoming {
    Incoming {
        listener: Some(listener),
        door: Door { tls, connections, limits },
        handshakes: JoinSet::new(),
        pending: VecDeque::new(),
        pause: None,
        shutdown: Some(Box::pin(shutdown)),
    }
}

/// Connections as they finish their handshakes. Made by [`accept_loop`].
pub struct Incoming {
    /// None once the node stops: who dials then is refused, and does not wait for nobody.
    listener: Option<TcpListener>,
    door: Door,
    handshakes: JoinSet<Option<PeerStream>>,
    /// The running handshakes, oldest first.
    pending: VecDeque<Pending>,
    pause: Option<Pinned<Box<Sleep>>>,
    /// None once it was ready.
    shutdown: Option<Pinned<Box<dyn Future<Output = ()> + Send>>>,
}

struct Pending {
    since: Instant,
    address: SocketAddr,
    task: AbortHandle,
}

impl Stream for Incoming {
    type Item = io::Result<PeerStream>;

    fn poll_next(mut self: Pinned<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let running = this.shutdown.as_mut().is_some_and(|shutdown| shutdown.as_mut().poll(cx).is_pending());
        if !running {
            this.shutdown = None;
            this.listener = None;
            this.handshakes.abort_all();
            return Poll::Ready(None);
        }
        loop {
            if let Some(stream) = this.poll_finished(cx) {
                return Poll::Ready(Some(Ok(stream)));
            }
            if let Some(pause) = &mut this.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            let Some(listener) = &this.listener else { return Poll::Ready(None) };
            match std::task::ready!(listener.poll_accept(cx)) {
                Ok((stream, address)) => this.welcome(stream, address),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections; trying again in {ACCEPT_PAUSE:?}");
                    this.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

impl Incoming {
    /// The next handshake that ended well.
    fn poll_finished(&mut self, cx: &mut Context<'_>) -> Option<PeerStream> {
        while let Poll::Ready(Some(finished)) = self.handshakes.poll_join_next(cx) {
            match finished {
                Ok(Some(stream)) => return Some(stream),
                Ok(None) => {}
                Err(error) if error.is_cancelled() => {}
                Err(error) => tracing::error!(%error, "a handshake failed inside; please report this"),
            }
        }
        None
    }

    fn welcome(&mut self, stream: TcpStream, address: SocketAddr) {
        self.pending.retain(|handshake| !handshake.task.is_finished());
        if let Err(error) = self.make_room() {
            // Closed at once and without a word: a word would cost what the limit saves.
            self.door.connections.refused(address, error, self.door.now());
            return;
        }
        let task = self.handshakes.spawn(self.door.clone().welcome(stream, address));
        self.pending.push_back(Pending { since: clock::instant(), address, task });
    }

    fn make_room(&mut self) -> Result<(), AcceptError> {
        let limits = self.door.limits;
        if self.door.connections.open() >= limits.connections_max {
            return Err(AcceptError::TooManyConnections { max: limits.connections_max });
        }
        if self.pending.len() < limits.handshakes_max {
            return Ok(());
        }
        let full = AcceptError::TooManyHandshakes { max: limits.handshakes_max };
        match self.pending.pop_front() {
            Some(oldest) if clock::instant().duration_since(oldest.since) >= limits.handshake_yield_after => {
                oldest.task.abort();
                self.door.connections.refused(oldest.address, full, self.door.now());
                Ok(())
            }
            Some(oldest) => {
                self.pending.push_front(oldest);
                Err(full)
            }
            None => Err(full),
        }
    }
}

/// What a handshake task needs.
#[derive(Clone)]
struct Door {
    tls: Tls,
    connections: Connections,
    limits: AcceptLimits,
}

impl Door {
    fn now(&self) -> TimeMs {
        (self.tls.clock)()
    }

    async fn welcome(self, stream: TcpStream, address: SocketAddr) -> Option<PeerStream> {
        let limit = self.limits.handshake_timeout;
        let error = match timeout(limit, self.handshake(stream, address)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err((error, stream))) => {
                self.connections.refused(address, error, self.now());
                if let Some(stream) = stream {
                    linger(stream).await;
                }
                return None;
            }
            Err(_elapsed) => AcceptError::Timeout { limit },
        };
        self.connections.refused(address, error, self.now());
        None
    }

    /// On failure also the socket, on which the alert is under way.
    async fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Result<PeerStream, (AcceptError, Option<TcpStream>)> {
        // Small answers must not wait for more. Not worth a refusal if the socket cannot.
        stream.set_nodelay(true).ok();
        let verifier = self.tls.verifier(None);
        let config = self.tls.server_config(Arc::clone(&verifier)).map_err(|error| (AcceptError::Tls(error), None))?;
        let mut tls = TlsAcceptor::from(Arc::new(config))
            .accept(stream)
            .into_fallible()
            .await
            .map_err(|(error, stream)| (AcceptError::of(error, verifier.refusal()), Some(stream)))?;
        match self.seat(&tls, verifier.verified(), address) {
            Ok(seat) => Ok(PeerStream { tls, seat }),
            Err(error) => {
                // There is no alert for "too many" after the handshake; a proper end is the best answer.
                tls.shutdown().await.ok();
                Err((error, Some(tls.into_inner().0)))
            }
        }
    }

    fn seat(
        &self,
        tls: &TlsStream<TcpStream>,
        verified: Option<Verified>,
        address: SocketAddr,
    ) -> Result<Seat, AcceptError> {
        let Verified { member, pin, not_after } = verified.ok_or(AcceptError::Refused(Refusal::NoCertificate))?;
        if tls.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
            return Err(AcceptError::NotHttp2);
        }
        let identity = PeerIdentity { member, pin, not_after, address };
        let seat = self.connections.seat(identity, self.now(), &self.limits)?;
        // The roster may have been replaced, and the registry swept, since the certificate was judged. Seated first and
        // looked up after: either this look sees the new roster, or the sweep sees the seat.
        if self.tls.roster.load().member_of(&pin) != Some(member) {
            return Err(AcceptError::Refused(Refusal::Unpinned { pin }));
        }
        Ok(seat)
    }
}

/// Reads what a refused peer had sent already. Closing over unread bytes resets the connection, and a reset may
/// overtake the alert.
async fn linger(mut stream: TcpStream) {
    let farewell = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // Whatever happens here, the connection was refused and is closed now.
    drop(timeout(LINGER, farewell).await);
}

/// Who is at the other end of a connection: in the extensions of every request that comes over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The member, as of the handshake. Each RPC looks the pin up again.
    pub member: MemberId,
    /// The key.
    pub pin: Pin,
    /// Last valid moment of the certificate that was shown.
    pub not_after: TimeMs,
    /// Where the connection comes from.
    pub address: SocketAddr,
}

/// Why a connection was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The peer is not one of ours, or not now.
    #[error(transparent)]
    Refused(Refusal),
    /// The peer has TLS but does not speak HTTP/2 over it.
    #[error("the peer did not ask for HTTP/2 (ALPN h2)")]
    NotHttp2,
    /// No TLS 1.3 came about; an alert means that the peer refused us.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// The line broke.
    #[error("connection lost during the handshake: {0}")]
    Io(io::Error),
    /// The peer was too slow, or silent.
    #[error("no handshake within {limit:?}")]
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// All slots are taken by handshakes.
    #[error("more than {max} handshakes at once")]
    TooManyHandshakes {
        /// The limit.
        max: usize,
    },
    /// All seats are taken.
    #[error("more than {max} connections")]
    TooManyConnections {
        /// The limit.
        max: usize,
    },
    /// This key has all its seats taken.
    #[error("more than {max} connections of key {pin}")]
    TooManyOfPin {
        /// The key.
        pin: Pin,
        /// The limit.
        max: usize,
    },
}

impl AcceptError {
    fn of(error: io::Error, refusal: Option<Refusal>) -> Self {
        match (tls_error(&error), refusal) {
            (Some(rustls::Error::NoCertificatesPresented), _) => Self::Refused(Refusal::NoCertificate),
            (Some(rustls::Error::InvalidCertificate(_)), Some(refusal)) => Self::Refused(refusal),
            (Some(other), _) => Self::Tls(other.clone()),
            (None, _) => Self::Io(error),
        }
    }

    /// The alert that was exchanged, and whether it was ours; none if the connection ended without one.
    pub fn alert(&self) -> Option<(AlertDescription, Sender)> {
        match self {
            Self::Refused(refusal) => Some((refusal.alert(), Sender::Us)),
            &Self::Tls(rustls::Error::AlertReceived(alert)) => Some((alert, Sender::Peer)),
            Self::Tls(rustls::Error::PeerIncompatible(
                PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::Tls13RequiredForQuic
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            )) => Some((AlertDescription::ProtocolVersion, Sender::Us)),
            Self::Tls(rustls::Error::NoApplicationProtocol) => {
                Some((AlertDescription::NoApplicationProtocol, Sender::Us))
            }
            Self::Tls(rustls::Error::InvalidCertificate(CertificateError::BadSignature)) => {
                Some((AlertDescription::DecryptError, Sender::Us))
            }
            _ => None,
        }
    }

    /// The key that was shown, if one could be read and was not taken.
    pub fn pin(&self) -> Option<Pin> {
        match self {
            Self::Refused(refusal) => refusal.pin(),
            Self::TooManyOfPin { pin, .. } => Some(*pin),
            _ => None,
        }
    }

    /// What happened, for people.
    pub fn cause(&self) -> String {
        match self.alert() {
            Some((alert, Sender::Peer)) => {
                format!("the other side refused this node's certificate: {}", alert_reason(alert))
            }
            Some((AlertDescription::ProtocolVersion, Sender::Us)) => "the other side has no TLS 1.3".to_owned(),
            Some((AlertDescription::DecryptError, Sender::Us)) => {
                "the other side does not have the key of the certificate that it showed".to_owned()
            }
            _ => self.to_string(),
        }
    }

    /// What to do about it, if anything can be said.
    pub fn fix(&self) -> Option<&'static str> {
        match self {
            Self::Refused(refusal) => Some(match refusal {
                Refusal::NoCertificate => "it is no staydown node; if it should be one, look at its configuration",
                Refusal::Unpinned { .. } | Refusal::WrongMember { .. } => {
                    "if it should belong, a founder admits its key: staydown charter admit join-request.sdj; if not, do nothing"
                }
                Refusal::Expired { .. } => "tell them to renew: staydown cert renew; and compare the clocks",
                Refusal::NotYetValid { .. } => "compare this machine's clock and theirs",
                Refusal::Malformed(_) => "tell them to make a new certificate: staydown cert renew",
            }),
            Self::TooManyOfPin { .. } => Some("does a second copy of their node run? ask them"),
            Self::Tls(_) => match self.alert()? {
                (AlertDescription::ProtocolVersion | AlertDescription::NoApplicationProtocol, _) => {
                    Some("it is no staydown node, or something between changes TLS")
                }
                (AlertDescription::DecryptError, _) => {
                    Some("somebody tried to pass for this member: tell them, and do not let it in")
                }
                (_, Sender::Peer) => Some(
                    "see staydown cert show; their charter may be older than ours, or their list of addresses wrong",
                ),
                _ => None,
            },
            _ => None,
        }
    }

    /// A short name for counters.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.label(),
            Self::NotHttp2 => "not_http2",
            Self::Tls(_) => "tls",
            Self::Io(_) => "lost",
            Self::Timeout { .. } => "timeout",
            Self::TooManyHandshakes { .. } => "too_many_handshakes",
            Self::TooManyConnections { .. } => "too_many_connections",
            Self::TooManyOfPin { .. } => "too_many_of_pin",
        }
    }
}

/// Who sent an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// This node refused the other side.
    Us,
    /// The other side refused this node.
    Peer,
}

/// A connection that was not accepted, for people to look at.
#[derive(Clone, Debug)]
pub struct RefusedConnection {
    /// When.
    pub at: TimeMs,
    /// Where it came from.
    pub address: SocketAddr,
    /// Why.
    pub reason: Arc<AcceptError>,
}

/// The accepted connections that are open, and the latest refusals. Clones share one registry.
#[derive(Clone, Default)]
pub struct Connections {
    registry: Arc<Mutex<Registry>>,
}

#[derive(Default)]
struct Registry {
    last_id: u64,
    open: BTreeMap<u64, Open>,
    refusals: VecDeque<RefusedConnection>,
    refused: BTreeMap<&'static str, u64>,
    /// The second of the latest warning, and how many there were in it.
    warned: (u64, u32),
}

struct Open {
    identity: PeerIdentity,
    since: TimeMs,
    /// The process at the other end, as its last greeting told; 0: not told.
    instance: u64,
    cut: Arc<Cut>,
}

impl Connections {
    /// Cuts every connection whose pin is not in `roster` or has another member there; returns how many.
    pub fn cut_unlisted(&self, roster: &Roster) -> usize {
        self.cut_where(|peer| roster.member_of(&peer.pin) != Some(peer.member))
    }

    /// Cuts every connection of `member`; returns how many. The member may connect again.
    pub fn cut_member(&self, member: MemberId) -> usize {
        self.cut_where(|peer| peer.member == member)
    }

    /// The peer `caller` greeted on its connection as the process `instance`; whether another process of the same
    /// member is connected too, which means that its data directory was copied.
    ///
    /// A connection that is closed counts no more. That of a process that was killed closes at once; that of a machine
    /// that vanished is noticed by keep-alive after [`KEEPALIVE`] and [`KEEPALIVE_TIMEOUT`], and until then the process
    /// that takes its place is told of a copy: its startup guard waits that long.
    ///
    /// [`KEEPALIVE`]: crate::net::limits::KEEPALIVE
    /// [`KEEPALIVE_TIMEOUT`]: crate::net::limits::KEEPALIVE_TIMEOUT
    pub fn greeted(&self, caller: &PeerIdentity, instance: u64) -> bool {
        let mut registry = self.registry();
        if let Some(open) = registry.open.values_mut().rfind(|open| open.identity == *caller) {
            open.instance = instance;
        }
        let another = |open: &Open| open.instance != 0 && open.instance != instance;
        instance != 0 && registry.open.values().any(|open| open.identity.member == caller.member && another(open))
    }

    /// Whether a connection is open whose pin is not in `roster` or has another member there.
    pub fn any_unlisted(&self, roster: &Roster) -> bool {
        self.registry().open.values().any(|open| roster.member_of(&open.identity.pin) != Some(open.identity.member))
    }

    /// Open connections.
    pub fn open(&self) -> usize {
        self.registry().open.len()
    }

    /// Who is connected, and since when, oldest first.
    pub fn peers(&self) -> Vec<(PeerIdentity, TimeMs)> {
        self.registry().open.values().map(|open| (open.identity, open.since)).collect()
    }

    /// The latest refusals, oldest first; [`REFUSALS_KEPT`] at most.
    pub fn recent_refusals(&self) -> Vec<RefusedConnection> {
        self.registry().refusals.iter().cloned().collect()
    }

    /// Refusals since the start by [`AcceptError::label`].
    pub fn refused_total(&self) -> BTreeMap<&'static str, u64> {
        self.registry().refused.clone()
    }

    fn cut_where(&self, unwanted: impl Fn(&PeerIdentity) -> bool) -> usize {
        let registry = self.registry();
        let mut count = 0;
        for open in registry.open.values().filter(|open| unwanted(&open.identity)) {
            open.cut.cut();
            count += 1;
            tracing::info!(peer = %open.identity.address, member = %open.identity.member, "connection cut");
        }
        count
    }

    fn seat(&self, identity: PeerIdentity, now: TimeMs, limits: &AcceptLimits) -> Result<Seat, AcceptError> {
        let mut registry = self.registry();
        if registry.open.len() >= limits.connections_max {
            return Err(AcceptError::TooManyConnections { max: limits.connections_max });
        }
        let same_pin = registry.open.values().filter(|open| open.identity.pin == identity.pin).count();
        if same_pin >= limits.connections_per_pin_max {
            return Err(AcceptError::TooManyOfPin { pin: identity.pin, max: limits.connections_per_pin_max });
        }
        registry.last_id += 1;
        let (id, cut) = (registry.last_id, Arc::new(Cut::default()));
        registry.open.insert(id, Open { identity, since: now, instance: 0, cut: Arc::clone(&cut) });
        drop(registry);
        Ok(Seat { connections: self.clone(), id, identity, cut })
    }

    pub(super) fn refused(&self, address: SocketAddr, error: AcceptError, now: TimeMs) {
        let mut registry = self.registry();
        let second = now.0 / 1_000;
        registry.warned = if registry.warned.0 == second { (second, registry.warned.1 + 1) } else { (second, 1) };
        match registry.warned.1 {
            ..=WARNINGS_PER_S => {
                tracing::warn!(peer = %address, reason = error.label(), "refused a connection: {error}");
            }
            _ => tracing::debug!(peer = %address, reason = error.label(), "refused a connection: {error}"),
        }
        *registry.refused.entry(error.label()).or_default() += 1;
        if registry.refusals.len() == REFUSALS_KEPT {
            registry.refusals.pop_front();
        }
        registry.refusals.push_back(RefusedConnection { at: now, address, reason: Arc::new(error) });
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // Every change under this lock is a single step, so a panic elsewhere leaves nothing half done.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry in the registry, for as long as the connection lives.
struct Seat {
    connections: Connections,
    id: u64,
    identity: PeerIdentity,
    cut: Arc<Cut>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.registry().open.remove(&self.id);
    }
}

/// An accepted connection of a member. It ends with an error as soon as it is cut.
pub struct PeerStream {
    tls: TlsStream<TcpStream>,
    seat: Seat,
}

impl PeerStream {
    /// Whose it is.
    pub fn identity(&self) -> PeerIdentity {
        self.seat.identity
    }
}

impl Connected for PeerStream {
    type ConnectInfo = PeerIdentity;

    fn connect_info(&self) -> PeerIdentity {
        self.seat.identity
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(self: Pinned<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { tls, seat } = self.get_mut();
        seat.cut.guard(Side::Read, cx, |cx| Pinned::new(tls).poll_read(cx, into))
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(self: Pinned<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { tls, seat } = self.get_mut();
        seat.cut.guard(Side::Write, cx, |cx| Pinned::new(tls).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pinned<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { tls, seat } = self.get_mut();
        seat.cut.guard(Side::Write, cx, |cx| Pinned::new(tls).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(self: Pinned<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { tls, seat } = self.get_mut();
        seat.cut.guard(Side::Write, cx, |cx| Pinned::new(tls).poll_flush(cx))
    }

    fn poll_shutdown(self: Pinned<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { tls, seat } = self.get_mut();
        seat.cut.guard(Side::Write, cx, |cx| Pinned::new(tls).poll_shutdown(cx))
    }
}
