//! Peers that we dial: a connector for tonic that knows whom it expects, and whose errors say who refused whom.
//!
//! In TLS 1.3 a client is done with the handshake before the server has seen its certificate. Whoever writes at once
//! then finds a broken pipe, and the alert that would explain it is lost. So the connector reads before it writes: an
//! HTTP/2 server sends its settings without being asked, and what comes first, settings or alert, is the answer.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin as Pinned;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::AlertDescription;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufRead as _, AsyncBufReadExt as _, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

use super::cut::{Cut, Side};
use super::{ALPN_H2, Identity, PinVerifier, Refusal, Roster, Tls, Verified, alert_reason, tls_error};
use crate::keys::PLACEHOLDER_NAME;
use crate::replica::ids::{MemberId, Pin, TimeMs};

/// Three tries of TCP to say hello fit into this.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// As long as the other side gives itself ([`super::HANDSHAKE_TIMEOUT`]).
pub const DIAL_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for the first word. Ours comes after one round trip; a server of another kind, that waits to be
/// spoken to, costs this once for each connection.
pub const FIRST_WORD_WAIT: Duration = Duration::from_secs(2);

/// Limits of dialling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialLimits {
    /// Name lookup and TCP.
    pub connect_timeout: Duration,
    /// TLS.
    pub handshake_timeout: Duration,
    /// The server's first bytes; afterwards we go on without them.
    pub first_word_wait: Duration,
}

impl Default for DialLimits {
    fn default() -> Self {
        Self {
            connect_timeout: CONNECT_TIMEOUT,
            handshake_timeout: DIAL_HANDSHAKE_TIMEOUT,
            first_word_wait: FIRST_WORD_WAIT,
        }
    }
}

/// Dials one member at one address. For tonic's `Endpoint::connect_with_connector_lazy`; the URI given there is not
/// looked at.
#[derive(Clone, Debug)]
pub struct Connector {
    tls: Tls,
    member: MemberId,
    /// The member's name in the charter, for messages.
    name: Arc<str>,
    /// `host:port`.
    address: Arc<str>,
    limits: DialLimits,
}

impl Connector {
    /// Dials `member`, whom people call `name`, at `address` (`host:port`).
    pub fn new(tls: Tls, member: MemberId, name: &str, address: &str) -> Self {
        Self { tls, member, name: name.into(), address: address.into(), limits: DialLimits::default() }
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(self, limits: DialLimits) -> Self {
        Self { limits, ..self }
    }

    /// Connects: the handshake is done, and the other side has not refused us.
    ///
    /// # Errors
    /// See [`ConnectError`]; nothing stays open.
    pub async fn connect(&self) -> Result<DialedStream, ConnectError> {
        let newest = self.tls.identity.load_full();
        let refused = match self.connect_as(&newest).await {
            Err(refused @ ConnectError::Refused { alert: AlertDescription::AccessDenied, .. }) => refused,
            other => return other,
        };
        // After a change of our key, until everybody has the charter that lists the new one: the old one still counts
        // there, as long as it does here.
        match self.tls.previous.load_full() {
            Some(old) if self.tls.roster.load().member_of(&old.facts.pin).is_some() => self.connect_as(&old).await,
            _ => Err(refused),
        }
    }

    async fn connect_as(&self, shown: &Identity) -> Result<DialedStream, ConnectError> {
        let mut stream = self.handshake_as(shown).await?;
        stream.first_word(self.limits.first_word_wait).await?;
        Ok(stream)
    }

    /// Without waiting for the answer to our certificate.
    #[cfg(test)]
    pub(super) async fn handshake(&self) -> Result<DialedStream, ConnectError> {
        self.handshake_as(&self.tls.identity.load_full()).await
    }

    async fn handshake_as(&self, shown: &Identity) -> Result<DialedStream, ConnectError> {
        let tcp = self.reach().await?;
        let verifier = self.tls.verifier(Some(self.member));
        let tls = self.greet(tcp, &verifier, shown).await?;
        let Verified { member, pin, not_after } = verifier
            .verified()
            .ok_or_else(|| ConnectError::Tls { name: self.name(), source: rustls::Error::NoCertificatesPresented })?;
        let line = self.tls.lines.begin(Dialed { member, pin, not_after, ours: shown.facts.pin });
        // As on the other side (`Door::seat`): entered first and looked up after, so that a roster that was replaced
        // during the handshake is seen here, or its sweep sees the entry.
        if self.tls.roster.load().member_of(&pin) != Some(member) {
            let refusal = Refusal::Unpinned { pin };
            return Err(ConnectError::NotThem { name: self.name(), address: self.address(), refusal });
        }
        Ok(DialedStream { tls, line, name: Arc::clone(&self.name) })
    }

    async fn reach(&self) -> Result<TcpStream, ConnectError> {
        let limit = self.limits.connect_timeout;
        let tcp = timeout(limit, TcpStream::connect(&*self.address))
            .await
            .map_err(|_elapsed| self.too_slow("connection", limit))?
            .map_err(|source| ConnectError::Unreachable { name: self.name(), address: self.address(), source })?;
        // Small requests must not wait for more. Not worth a failure if the socket cannot.
        tcp.set_nodelay(true).ok();
        Ok(tcp)
    }

    async fn greet(
        &self,
        tcp: TcpStream,
        verifier: &Arc<PinVerifier>,
        shown: &Identity,
    ) -> Result<TlsStream<TcpStream>, ConnectError> {
        let limit = self.limits.handshake_timeout;
        let tls_failed = |source| ConnectError::Tls { name: self.name(), source };
        let config = self.tls.client_config(Arc::clone(verifier), shown).map_err(tls_failed)?;
        let placeholder = ServerName::try_from(PLACEHOLDER_NAME)
            .map_err(|error| tls_failed(rustls::Error::General(error.to_string())))?;
        let tls = timeout(limit, TlsConnector::from(Arc::new(config)).connect(placeholder, tcp))
            .await
            .map_err(|_elapsed| self.too_slow("handshake", limit))?
            .map_err(|error| self.handshake_failed(error, verifier))?;
        match tls.get_ref().1.alpn_protocol() {
            Some(ALPN_H2) => Ok(tls),
            _ => Err(tls_failed(rustls::Error::NoApplicationProtocol)),
        }
    }

    fn handshake_failed(&self, error: io::Error, verifier: &PinVerifier) -> ConnectError {
        let name = self.name();
        match (tls_error(&error), verifier.refusal()) {
            (Some(rustls::Error::InvalidCertificate(_)), Some(refusal)) => {
                ConnectError::NotThem { name, address: self.address(), refusal }
            }
            (Some(&rustls::Error::AlertReceived(alert)), _) => ConnectError::Refused { name, alert },
            (Some(other), _) => ConnectError::Tls { name, source: other.clone() },
            (None, _) => ConnectError::Lost { name, source: error },
        }
    }

    fn too_slow(&self, step: &'static str, limit: Duration) -> ConnectError {
        ConnectError::Timeout { name: self.name(), address: self.address(), step, limit }
    }

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<DialedStream>;
    type Error = ConnectError;
    type Future = Pinned<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await.map(TokioIo::new) })
    }
}

/// Why a member could not be connected.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The other side does not want us, and said why in an alert.
    #[error("{name} refused {}: {} ({alert:?})", alert_object(*alert), alert_reason(*alert))]
    Refused {
        /// Whom we dialled.
        name: String,
        /// The alert.
        alert: AlertDescription,
    },
    /// We do not want the other side: it is not whom we dialled, or its certificate is not valid now.
    #[error("{address} did not prove to be {name}: {refusal} (told {:?})", refusal.alert())]
    NotThem {
        /// Whom we dialled.
        name: String,
        /// Where.
        address: String,
        /// What is wrong.
        refusal: Refusal,
    },
    /// A step took too long.
    #[error("{name} at {address}: no {step} within {limit:?}")]
    Timeout {
        /// Whom we dialled.
        name: String,
        /// Where.
        address: String,
        /// The step.
        step: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// No TCP connection.
    #[error("cannot reach {name} at {address}: {source}")]
    Unreachable {
        /// Whom we dialled.
        name: String,
        /// Where.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The other side ended the connection properly, before its first word.
    #[error("{name} closed the connection right after the handshake")]
    Closed {
        /// Whom we dialled.
        name: String,
    },
    /// The line broke before the other side's first word.
    #[error("lost the connection to {name} during the handshake: {source}")]
    Lost {
        /// Whom we dialled.
        name: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// No TLS 1.3 with HTTP/2 came about.
    #[error("no TLS 1.3 with {name}: {source}")]
    Tls {
        /// Whom we dialled.
        name: String,
        /// What the TLS library said.
        source: rustls::Error,
    },
}

impl ConnectError {
    /// The likely cause and what to do about it, if anything can be said.
    pub fn fix(&self) -> Option<&'static str> {
        match self {
            Self::Refused { alert, .. } => alert_fix(*alert),
            Self::NotThem { refusal, .. } => Some(match refusal {
                Refusal::Unpinned { .. } => {
                    "either our charter is old (staydown charter show), or the address is not theirs; do not trust it before you know"
                }
                Refusal::WrongMember { .. } => "the address belongs to another member: correct the peer's address",
                Refusal::Expired { .. } => "ask them to renew: staydown cert renew; and compare this machine's clock",
                Refusal::NotYetValid { .. } => "compare this machine's clock and theirs",
                Refusal::NoCertificate | Refusal::Malformed(_) => "the address does not lead to a staydown node",
            }),
            Self::Timeout { .. } | Self::Unreachable { .. } => {
                Some("check that their node runs, the address, and the firewalls between")
            }
            Self::Closed { .. } => {
                Some("probably too many connections of this key are open there: does a second copy of this node run?")
            }
            Self::Tls { .. } => Some("the address does not lead to a staydown node, or something between changes TLS"),
            Self::Lost { .. } => None,
        }
    }

    /// The `ConnectError` behind an error of tonic, if there is one.
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            // An io::Error shows what it wraps only when asked.
            let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            next = wrapped.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
        }
        None
    }
}

fn alert_object(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::AccessDenied
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRequired
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::UnsupportedCertificate => "our certificate",
        _ => "the connection",
    }
}

fn alert_fix(alert: AlertDescription) -> Option<&'static str> {
    match alert {
        AlertDescription::AccessDenied => {
            Some("ask a founder to admit this node's key: staydown charter admit join-request.sdj")
        }
        AlertDescription::CertificateExpired => {
            Some("see staydown cert show, renew with staydown cert renew, and compare the clocks of both machines")
        }
        AlertDescription::ProtocolVersion | AlertDescription::NoApplicationProtocol => {
            Some("the address does not lead to a staydown node, or something between changes TLS")
        }
        _ => None,
    }
}

/// A connection that we dialled, as long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialed {
    /// Who is at the other end.
    pub member: MemberId,
    /// Their key.
    pub pin: Pin,
    /// Last valid moment of their certificate.
    pub not_after: TimeMs,
    /// The key that we showed.
    pub ours: Pin,
}

/// The connections that we dialled, so that they can be cut. Clones share one list.
#[derive(Clone, Default)]
pub(super) struct Lines {
    open: Arc<Mutex<OpenLines>>,
}

#[derive(Default)]
struct OpenLines {
    last_id: u64,
    open: BTreeMap<u64, (Dialed, Arc<Cut>)>,
    /// The key that each member saw last: bounded by the charter, like the members that are dialled.
    shown: BTreeMap<MemberId, Pin>,
}

impl Lines {
    fn begin(&self, dialed: Dialed) -> Line {
        let mut lines = self.lines();
        lines.last_id += 1;
        let (id, cut) = (lines.last_id, Arc::new(Cut::default()));
        lines.open.insert(id, (dialed, Arc::clone(&cut)));
        lines.shown.insert(dialed.member, dialed.ours);
        drop(lines);
        Line { lines: self.clone(), id, cut }
    }

    pub(super) fn cut_unlisted(&self, roster: &Roster) -> usize {
        let lines = self.lines();
        let unlisted = |dialed: &Dialed| {
            // A key of ours that is gone: the other side will not have it either, and the newer one is dialled with.
            roster.member_of(&dialed.pin) != Some(dialed.member) || roster.member_of(&dialed.ours).is_none()
        };
        let cut: Vec<_> = lines.open.values().filter(|(dialed, _)| unlisted(dialed)).collect();
        cut.iter().for_each(|(_, cut)| cut.cut());
        cut.len()
    }

    pub(super) fn open(&self) -> Vec<Dialed> {
        self.lines().open.values().map(|(dialed, _)| *dialed).collect()
    }

    pub(super) fn shown(&self, member: MemberId) -> Option<Pin> {
        self.lines().shown.get(&member).copied()
    }

    fn lines(&self) -> MutexGuard<'_, OpenLines> {
        // Every change under this lock is a single step, so a panic elsewhere leaves nothing half done.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry among the [`Lines`], for as long as the connection lives.
struct Line {
    lines: Lines,
    id: u64,
    cut: Arc<Cut>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.lines.lines().open.remove(&self.id);
    }
}

/// A connection that we dialled. It ends with an error as soon as it is cut. An alert that comes late is told instead of the broken pipe that it causes.
pub struct DialedStream {
    tls: TlsStream<TcpStream>,
    line: Line,
    name: Arc<str>,
}

impl DialedStream {
    /// What the handshake agreed on, for people: `TLS 1.3, X25519MLKEM768`.
    pub fn description(&self) -> String {
        match self.tls.get_ref().1.negotiated_key_exchange_group() {
            Some(group) => format!("TLS 1.3, {:?}", group.name()),
            None => "TLS 1.3".to_owned(),
        }
    }

    /// Our end of the connection.
    ///
    /// # Errors
    /// The operating system does not say.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.tls.get_ref().0.local_addr()
    }

    /// Waits for the first bytes, which stay to be read, or for the reason why there are none.
    async fn first_word(&mut self, wait: Duration) -> Result<(), ConnectError> {
        let name = self.name.to_string();
        let Ok(first) = timeout(wait, self.tls.fill_buf()).await else {
            return Ok(());
        };
        match first {
            Ok([]) => Err(ConnectError::Closed { name }),
            Ok(_) => Ok(()),
            Err(error) => Err(match alert_in(&error) {
                Some(alert) => ConnectError::Refused { name, alert },
                None => ConnectError::Lost { name, source: error },
            }),
        }
    }

    fn explain(&self, error: io::Error) -> io::Error {
        match alert_in(&error) {
            Some(alert) => io::Error::new(error.kind(), ConnectError::Refused { name: self.name.to_string(), alert }),
            None => error,
        }
    }

    /// After a failed write: the alert, if one has arrived, is the reason.
    fn explain_write<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Poll::Ready(Err(error)) = written else {
            return written;
        };
        let reason = match Pinned::new(&mut self.tls).poll_fill_buf(cx) {
            Poll::Ready(Err(reason)) if alert_in(&reason).is_some() => reason,
            _ => error,
        };
        Poll::Ready(Err(self.explain(reason)))
    }
}

fn alert_in(error: &io::Error) -> Option<AlertDescription> {
    match tls_error(error) {
        Some(&rustls::Error::AlertReceived(alert)) => Some(alert),
        _ => None,
    }
}

impl fmt::Debug for DialedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialedStream").field("name", &self.name).finish_non_exhaustive()
    }
}

impl AsyncRead for DialedStream {
    fn poll_read(self: Pinned<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = this.line.cut.guard(Side::Read, cx, |cx| Pinned::new(&mut this.tls).poll_read(cx, into));
        read.map_err(|error| this.explain(error))
    }
}

impl AsyncWrite for DialedStream {
    fn poll_write(self: Pinned<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.line.cut.guard(Side::Write, cx, |cx| Pinned::new(&mut this.tls).poll_write(cx, bytes));
        this.explain_write(cx, written)
    }

    fn poll_write_vectored(
        self: Pinned<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let write = |cx: &mut Context<'_>| Pinned::new(&mut this.tls).poll_write_vectored(cx, slices);
        let written = this.line.cut.guard(Side::Write, cx, write);
        this.explain_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(self: Pinned<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = this.line.cut.guard(Side::Write, cx, |cx| Pinned::new(&mut this.tls).poll_flush(cx));
        this.explain_write(cx, flushed)
    }

    fn poll_shutdown(self: Pinned<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let ended = this.line.cut.guard(Side::Write, cx, |cx| Pinned::new(&mut this.tls).poll_shutdown(cx));
        this.explain_write(cx, ended)
    }
}
