//! Both sides over real loopback sockets.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::client::ClientSessionMemoryCache;
use rustls::{AlertDescription, HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::StreamExt as _;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::keys::{CertificateTerms, PLACEHOLDER_NAME};

const ACME: MemberId = MemberId([0xa; 16]);
const BOLT: MemberId = MemberId([0xb; 16]);
const CYAN: MemberId = MemberId([0xc; 16]);
const NOW: TimeMs = TimeMs(1_795_000_000_000);
const DEADLINE: Duration = Duration::from_secs(20);
/// What the server of these tests says first, as an HTTP/2 server would.
const GREETING: &[u8] = b"settings";

fn identity(name: &str) -> TlsIdentity {
    TlsIdentity::create(&CertificateTerms::usual(name, NOW)).unwrap()
}

fn identity_from_to(not_before: TimeMs, not_after: TimeMs) -> TlsIdentity {
    TlsIdentity::create(&CertificateTerms { not_before, not_after, ..CertificateTerms::usual("bolt", NOW) }).unwrap()
}

fn roster(pins: &[(Pin, MemberId)]) -> SharedRoster {
    Arc::new(ArcSwap::from_pointee(Roster::new(pins.iter().copied())))
}

fn tls_of(identity: &TlsIdentity, roster: &SharedRoster) -> Tls {
    Tls::with_clock(identity, Arc::clone(roster), Arc::new(|| NOW)).unwrap()
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(DEADLINE, waiting).await.is_ok(), "not within {DEADLINE:?}: {what}");
}

/// acme's node: greets, then echoes, and notes whom it let in.
struct Server {
    address: String,
    tls: Tls,
    connections: Connections,
    admitted: Arc<Mutex<Vec<PeerIdentity>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(tls: Tls, limits: AcceptLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (connections, admitted) = (Connections::default(), Arc::new(Mutex::new(Vec::new())));
        let mut incoming = accept_loop(listener, tls.clone(), connections.clone(), limits, std::future::pending());
        let mut tasks = JoinSet::new();
        let seen = Arc::clone(&admitted);
        tasks.spawn(async move {
            let mut echoes = JoinSet::new();
            while let Some(stream) = incoming.next().await {
                let stream = stream.unwrap();
                seen.lock().unwrap().push(stream.identity());
                echoes.spawn(echo(stream));
            }
        });
        Self { address, tls, connections, admitted, _tasks: tasks }
    }

    async fn last_refusal(&self, count: usize) -> String {
        eventually("the refusal is noted", || self.connections.recent_refusals().len() >= count).await;
        self.connections.recent_refusals().last().unwrap().reason.to_string()
    }

    fn admitted(&self) -> Vec<PeerIdentity> {
        self.admitted.lock().unwrap().clone()
    }
}

async fn echo(mut stream: PeerStream) {
    if stream.write_all(GREETING).await.is_err() {
        return;
    }
    let (mut from, mut to) = tokio::io::split(stream);
    // Ends when the client goes or the connection is cut; both are what these tests are about.
    tokio::io::copy(&mut from, &mut to).await.ok();
}

/// acme serves, bolt dials; each knows the other.
struct Forum {
    server: Server,
    bolt: TlsIdentity,
    roster: SharedRoster,
}

impl Forum {
    async fn start() -> Self {
        Self::with(identity("bolt"), AcceptLimits::default()).await
    }

    async fn with(bolt: TlsIdentity, limits: AcceptLimits) -> Self {
        let acme = identity("acme");
        let roster = roster(&[(acme.pin(), ACME), (bolt.pin(), BOLT)]);
        let server = Server::start(tls_of(&acme, &roster), limits).await;
        Self { server, bolt, roster }
    }

    fn dial_as(&self, identity: &TlsIdentity) -> Connector {
        Connector::new(tls_of(identity, &self.roster), ACME, "acme", &self.server.address)
    }

    fn dial(&self) -> Connector {
        self.dial_as(&self.bolt)
    }
}

async fn read_greeting(stream: &mut (impl AsyncRead + Unpin)) {
    let mut greeting = [0; GREETING.len()];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(greeting, GREETING);
}

async fn say_and_hear(stream: &mut DialedStream, word: &[u8]) {
    stream.write_all(word).await.unwrap();
    let mut heard = vec![0; word.len()];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, word);
}

fn refused_by(error: &ConnectError) -> AlertDescription {
    match error {
        ConnectError::Refused { alert, .. } => *alert,
        other => panic!("expected a refusal by alert, got: {other}"),
    }
}

#[tokio::test]
async fn a_pinned_peer_gets_in_and_is_known() {
    let forum = Forum::start().await;
    let mut stream = forum.dial().connect().await.unwrap();
    read_greeting(&mut stream).await;
    say_and_hear(&mut stream, b"over and back").await;
    assert_eq!(stream.description(), "TLS 1.3, X25519MLKEM768");
    let [peer] = forum.server.admitted()[..] else { panic!("expected one connection") };
    assert_eq!((peer.member, peer.pin), (BOLT, forum.bolt.pin()));
    assert_eq!(peer.address, stream.local_address().unwrap());
    assert_eq!(forum.server.connections.peers(), [(peer, NOW)]);
    drop(stream);
    eventually("the seat is free again", || forum.server.connections.open() == 0).await;
}

#[tokio::test]
async fn who_is_not_wanted_learns_why_and_so_does_the_operator() {
    let (past, future) = (TimeMs(NOW.0 - 1_000), NOW.plus(1_000));
    let stranger = identity("stranger");
    let stranger_pin = stranger.pin();
    let ended = identity_from_to(TimeMs(0), past);
    let begins = identity_from_to(future, NOW.plus(TimeMs::DAY_MS));
    let cases = [
        (stranger, false, AlertDescription::AccessDenied, format!("key {stranger_pin} is not in the charter")),
        (ended, true, AlertDescription::CertificateExpired, {
            "the certificate expired at Nov 18 11:06:39 2026 +00:00, it is Nov 18 11:06:40 2026 +00:00 now".to_owned()
        }),
        (begins, true, AlertDescription::CertificateExpired, {
            "the certificate begins at Nov 18 11:06:41 2026 +00:00, it is Nov 18 11:06:40 2026 +00:00 now".to_owned()
        }),
    ];
    for (client, listed, alert, reason) in cases {
        let forum = Forum::start().await;
        if listed {
            let pins = [(forum.server.tls.identity_pin(), ACME), (client.pin(), BOLT)];
            forum.roster.store(Arc::new(Roster::new(pins)));
        }
        let error = forum.dial_as(&client).connect().await.unwrap_err();
        assert_eq!(refused_by(&error), alert);
        assert_eq!(forum.server.last_refusal(1).await, reason);
        assert_eq!(forum.server.admitted(), []);
    }
}

impl Tls {
    fn identity_pin(&self) -> Pin {
        self.facts().pin
    }
}

/// A client of another make: sends what `configure` says and reads until the end; what it got, and how it ended.
async fn foreign_client(
    forum: &Forum,
    versions: &[&'static rustls::SupportedProtocolVersion],
    configure: impl FnOnce(&mut ClientConfig, &Tls),
) -> (Vec<u8>, Option<AlertDescription>) {
    let tls = tls_of(&forum.bolt, &forum.roster);
    let mut config = ClientConfig::builder_with_details(Arc::clone(&tls.provider), tls.time())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(tls.verifier(Some(ACME)))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    configure(&mut config, &tls);
    let mut received = Vec::new();
    let ended = async {
        let tcp = TcpStream::connect(&forum.server.address).await?;
        let name = ServerName::try_from(PLACEHOLDER_NAME).unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        stream.read_to_end(&mut received).await
    };
    let ended = timeout(DEADLINE, ended).await.unwrap();
    let alert = ended.err().and_then(|error| match tls_error(&error) {
        Some(&rustls::Error::AlertReceived(alert)) => Some(alert),
        _ => None,
    });
    (received, alert)
}

#[tokio::test]
async fn a_client_without_a_certificate_gets_not_one_byte() {
    let forum = Forum::start().await;
    let (received, alert) = foreign_client(&forum, &[&TLS13], |_config, _tls| {}).await;
    assert_eq!((received, alert), (vec![], Some(AlertDescription::CertificateRequired)));
    assert_eq!(forum.server.last_refusal(1).await, "no certificate was sent");
    assert_eq!(forum.server.admitted(), []);
}

#[tokio::test]
async fn a_client_with_tls_1_2_only_gets_not_one_byte() {
    let forum = Forum::start().await;
    let versions = [&rustls::version::TLS12];
    let (received, alert) = foreign_client(&forum, &versions, |config, tls| {
        config.client_auth_cert_resolver = resolver(&tls.identity.load())
    })
    .await;
    assert_eq!((received, alert), (vec![], Some(AlertDescription::ProtocolVersion)));
    let reason = forum.server.last_refusal(1).await;
    assert!(reason.starts_with("TLS: peer is incompatible"), "{reason}");
    assert_eq!(forum.server.admitted(), []);
}

#[tokio::test]
async fn a_client_that_does_not_ask_for_http2_gets_not_one_byte() {
    for (offered, alert, reason) in [
        (vec![], None, "the peer did not ask for HTTP/2 (ALPN h2)"),
        (
            vec![b"http/1.1".to_vec()],
            Some(AlertDescription::NoApplicationProtocol),
            "TLS: peer doesn't support any known protocol",
        ),
    ] {
        let forum = Forum::start().await;
        let (received, got) = foreign_client(&forum, &[&TLS13], |config, tls| {
            config.client_auth_cert_resolver = resolver(&tls.identity.load());
            config.alpn_protocols = offered;
        })
        .await;
        assert_eq!((received, got), (vec![], alert));
        assert_eq!(forum.server.last_refusal(1).await, reason);
        assert_eq!(forum.server.admitted(), []);
    }
}

#[tokio::test]
async fn what_is_not_tls_is_refused() {
    let forum = Forum::start().await;
    let mut stream = TcpStream::connect(&forum.server.address).await.unwrap();
    // More than the server reads before it knows: closing over the rest at once would reset the connection.
    let noise = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".repeat(1_000);
    stream.write_all(&noise).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("a proper end, no reset");
    assert_eq!(answer.first(), Some(&0x15), "an alert record and nothing else: {answer:x?}");
    assert_eq!(answer.len(), 7);
    let reason = forum.server.last_refusal(1).await;
    assert!(reason.starts_with("TLS: received corrupt message"), "{reason}");
    assert_eq!(forum.server.admitted(), []);
}

#[tokio::test]
async fn a_refused_client_sees_the_alert_40_times_of_40() {
    let forum = Forum::start().await;
    let stranger = forum.dial_as(&identity("stranger"));
    for _ in 0..40 {
        let error = stranger.connect().await.unwrap_err();
        assert_eq!(error.to_string(), "acme refused our certificate: key not in the charter (AccessDenied)");
        assert_eq!(
            error.fix(),
            Some("ask a founder to admit this node's key: staydown charter admit join-request.sdj")
        );
    }
    assert_eq!(forum.server.connections.refused_total().get("unpinned"), Some(&40));
    assert_eq!(forum.server.connections.recent_refusals().len(), REFUSALS_KEPT);
}

#[tokio::test]
async fn who_writes_before_the_alert_comes_sees_it_all_the_same_40_times_of_40() {
    let forum = Forum::start().await;
    let stranger = forum.dial_as(&identity("stranger"));
    for _ in 0..40 {
        let mut stream = stranger.handshake().await.expect("a client is done before it is judged");
        let writing = async {
            loop {
                if let Err(error) = stream.write_all(&[0; 4096]).await {
                    return error;
                }
                tokio::task::yield_now().await;
            }
        };
        let error = timeout(DEADLINE, writing).await.expect("the writes fail in the end");
        let found = ConnectError::find(&error).unwrap_or_else(|| panic!("no reason in {error:?}"));
        assert_eq!(refused_by(found), AlertDescription::AccessDenied);
    }
}

#[tokio::test]
async fn a_client_refuses_a_server_that_is_not_whom_it_dialled() {
    let forum = Forum::start().await;
    let acme = forum.server.tls.identity_pin();
    let expect = |expected: MemberId, pins: &[(Pin, MemberId)], now: TimeMs| {
        let tls = Tls::with_clock(&forum.bolt, roster(pins), Arc::new(move || now)).unwrap();
        Connector::new(tls, expected, "cyan", &forum.server.address)
    };
    let late = NOW.plus(365 * TimeMs::DAY_MS);
    for (connector, label) in [
        (expect(CYAN, &[(acme, ACME)], NOW), "wrong_member"),
        (expect(ACME, &[], NOW), "unpinned"),
        (expect(ACME, &[(acme, ACME)], late), "expired"),
        (expect(ACME, &[(acme, ACME)], TimeMs(0)), "not_yet_valid"),
    ] {
        match connector.connect().await.unwrap_err() {
            ConnectError::NotThem { refusal, .. } => assert_eq!(refusal.label(), label),
            other => panic!("{label}: {other}"),
        }
    }
    eventually("the server has seen all four go", || forum.server.connections.refused_total().get("tls") == Some(&4))
        .await;
    assert_eq!(forum.server.admitted(), []);
}

#[tokio::test]
async fn a_revoked_pin_is_cut_at_once_and_does_not_come_back() {
    let forum = Forum::start().await;
    let mut live = forum.dial().connect().await.unwrap();
    read_greeting(&mut live).await;
    let remaining = Roster::new([(forum.server.tls.identity_pin(), ACME)]);
    assert_eq!(forum.server.connections.cut_unlisted(&forum.roster.load()), 0);
    say_and_hear(&mut live, b"still here").await;

    // Only acme's roster changes; bolt still believes the old one.
    let bolt = tls_of(&forum.bolt, &roster(&[(forum.server.tls.identity_pin(), ACME)]));
    forum.roster.store(Arc::new(remaining));
    assert_eq!(forum.server.connections.cut_unlisted(&forum.roster.load()), 1);
    let ended = timeout(Duration::from_secs(1), live.read(&mut [0; 16])).await.expect("cut within a second");
    assert!(matches!(ended, Err(_) | Ok(0)), "{ended:?}");
    eventually("the seat is free", || forum.server.connections.open() == 0).await;

    let error = Connector::new(bolt, ACME, "acme", &forum.server.address).connect().await.unwrap_err();
    assert_eq!(refused_by(&error), AlertDescription::AccessDenied);
}

#[tokio::test]
async fn a_client_that_would_like_to_resume_is_judged_anew() {
    let forum = Forum::start().await;
    let tls = tls_of(&forum.bolt, &roster(&[(forum.server.tls.identity_pin(), ACME)]));
    let tickets = Arc::new(ClientSessionMemoryCache::new(8));
    let dial = || async {
        // One verifier for each handshake, one session store for all, as a client that wants to resume would have it.
        let mut config = tls.client_config(tls.verifier(Some(ACME)), &tls.identity.load()).unwrap();
        config.resumption = Resumption::store(Arc::clone(&tickets) as _);
        let tcp = TcpStream::connect(&forum.server.address).await?;
        let name = ServerName::try_from(PLACEHOLDER_NAME).unwrap();
        let mut stream: TlsStream<_> = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        let mut greeting = [0; GREETING.len()];
        stream.read_exact(&mut greeting).await?;
        let session = stream.get_ref().1;
        assert_eq!(session.tls13_tickets_received(), 0);
        Ok::<_, io::Error>((session.handshake_kind(), session.protocol_version()))
    };
    for _ in 0..3 {
        let (kind, version) = dial().await.unwrap();
        // A hello retry would be a full handshake as well; a resumed one would not.
        assert_eq!((kind, version), (Some(HandshakeKind::Full), Some(ProtocolVersion::TLSv1_3)));
    }
    forum.roster.store(Arc::default());
    let error = dial().await.unwrap_err();
    assert_eq!(tls_error(&error), Some(&rustls::Error::AlertReceived(AlertDescription::AccessDenied)));
}

#[tokio::test]
async fn a_roster_that_changes_during_the_handshake_counts() {
    let (acme, bolt) = (identity("acme"), identity("bolt"));
    let shared = roster(&[(bolt.pin(), BOLT)]);
    let (calls, swapped) = (AtomicU64::new(0), Arc::clone(&shared));
    // The first look at the clock is for the certificate, the second for the seat.
    let clock = Arc::new(move || {
        if calls.fetch_add(1, Ordering::Relaxed) == 1 {
            swapped.store(Arc::default());
        }
        NOW
    });
    let tls = Tls::with_clock(&acme, shared, clock).unwrap();
    let server = Server::start(tls, AcceptLimits::default()).await;
    let dial = Connector::new(tls_of(&bolt, &roster(&[(acme.pin(), ACME)])), ACME, "acme", &server.address);
    let error = dial.connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Closed { .. }), "the handshake itself went well, then: {error}");
    assert_eq!(server.last_refusal(1).await, format!("key {} is not in the charter", bolt.pin()));
    assert_eq!((server.connections.open(), server.admitted()), (0, vec![]));
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_from_the_next_handshake_on() {
    let forum = Forum::start().await;
    let late = NOW.plus(80 * TimeMs::DAY_MS);
    let tls = Tls::with_clock(&forum.bolt, Arc::clone(&forum.roster), Arc::new(|| NOW)).unwrap();
    let dial = Connector::new(tls.clone(), ACME, "acme", &forum.server.address);
    dial.connect().await.unwrap();
    let renewed = forum.bolt.renew(&CertificateTerms::usual("bolt", late)).unwrap();
    tls.replace_identity(&renewed).unwrap();
    // The new one has not begun on acme's clock: proof that it was the new one.
    assert_eq!(refused_by(&dial.connect().await.unwrap_err()), AlertDescription::CertificateExpired);
    tls.replace_identity(&forum.bolt).unwrap();
    dial.connect().await.unwrap();
}

async fn silent(forum: &Forum, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(TcpStream::connect(&forum.server.address).await.unwrap());
    }
    streams
}

#[tokio::test]
async fn a_hundred_silent_connections_hold_an_honest_one_up_until_the_timeout_only() {
    let handshake_timeout = Duration::from_millis(400);
    let limits =
        AcceptLimits { handshake_timeout, handshake_yield_after: Duration::from_secs(60), ..AcceptLimits::default() };
    let forum = Forum::with(identity("bolt"), limits).await;
    let silent = silent(&forum, 100).await;
    let refused = |label: &str| forum.server.connections.refused_total().get(label).copied().unwrap_or(0);
    eventually("what is over the limit is closed at once", || refused("too_many_handshakes") == 36).await;
    eventually("the rest is closed after the timeout", || refused("timeout") == 64).await;
    let mut stream = forum.dial().connect().await.unwrap();
    read_greeting(&mut stream).await;
    drop(silent);
}

#[tokio::test]
async fn silent_connections_yield_to_an_honest_one() {
    let limits = AcceptLimits {
        handshake_timeout: Duration::from_secs(600),
        handshake_yield_after: Duration::ZERO,
        ..AcceptLimits::default()
    };
    let forum = Forum::with(identity("bolt"), limits).await;
    let silent = silent(&forum, 100).await;
    let mut stream = forum.dial().connect().await.unwrap();
    read_greeting(&mut stream).await;
    drop(silent);
}

#[tokio::test]
async fn one_key_has_four_connections_and_no_fifth() {
    let forum = Forum::start().await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_PER_PIN_MAX {
        open.push(forum.dial().connect().await.unwrap());
    }
    let error = forum.dial().connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Closed { .. }), "{error}");
    assert_eq!(forum.server.last_refusal(1).await, format!("more than 4 connections of key {}", forum.bolt.pin()));
    open.pop();
    eventually("a seat is free", || forum.server.connections.open() == 3).await;
    open.push(forum.dial().connect().await.unwrap());
    assert_eq!(forum.server.connections.cut_member(BOLT), 4);
    eventually("all seats are free", || forum.server.connections.open() == 0).await;
}

#[tokio::test]
async fn beyond_the_limit_of_connections_nobody_gets_in() {
    let limits = AcceptLimits { connections_max: 1, ..AcceptLimits::default() };
    let forum = Forum::with(identity("bolt"), limits).await;
    let open = forum.dial().connect().await.unwrap();
    forum.dial().connect().await.unwrap_err();
    assert_eq!(forum.server.last_refusal(1).await, "more than 1 connections");
    drop(open);
    eventually("the seat is free", || forum.server.connections.open() == 0).await;
    forum.dial().connect().await.unwrap();
}

#[tokio::test]
async fn the_limits_are_those_of_the_protocol() {
    let limits = AcceptLimits::default();
    assert_eq!((limits.handshakes_max, limits.handshake_timeout), (64, Duration::from_secs(5)));
    assert_eq!((limits.connections_max, limits.connections_per_pin_max), (512, 4));
}

#[tokio::test]
async fn an_address_without_a_node_is_told_apart_from_a_slow_one() {
    let forum = Forum::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let limits = DialLimits { handshake_timeout: Duration::from_millis(50), ..DialLimits::default() };
    let dial = Connector::new(tls_of(&forum.bolt, &forum.roster), ACME, "acme", &address).with_limits(limits);
    let error = dial.connect().await.unwrap_err();
    assert_eq!(error.to_string(), format!("acme at {address}: no handshake within 50ms"));
    drop(listener);
    let error = dial.connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_waits_to_be_spoken_to_is_spoken_to() {
    let (acme, bolt) = (identity("acme"), identity("bolt"));
    let shared = roster(&[(acme.pin(), ACME), (bolt.pin(), BOLT)]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut incoming = accept_loop(
        listener,
        tls_of(&acme, &shared),
        Connections::default(),
        AcceptLimits::default(),
        std::future::pending(),
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut stream = incoming.next().await.unwrap().unwrap();
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.unwrap();
        stream.write_all(&word).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let limits = DialLimits { first_word_wait: Duration::from_millis(20), ..DialLimits::default() };
    let dial = Connector::new(tls_of(&bolt, &shared), ACME, "acme", &address).with_limits(limits);
    say_and_hear(&mut dial.connect().await.unwrap(), b"ping").await;
    tasks.join_next().await.unwrap().unwrap();
}

/// Where log lines of one test go.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_refusal_is_logged_with_address_and_reason_and_a_flood_of_them_is_not() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::WARN)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let connections = Connections::default();
    let address = "192.0.2.7:4711".parse().unwrap();
    let flood = 10 * WARNINGS_PER_S;
    for _ in 0..flood {
        connections.refused(address, AcceptError::Refused(Refusal::Unpinned { pin: Pin([7; 32]) }), NOW);
    }
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let logged: Vec<_> = text.lines().filter(|line| line.contains("192.0.2.7:4711")).collect();
    assert_eq!(logged.len(), WARNINGS_PER_S as usize);
    assert!(logged[0].contains(&format!("key {} is not in the charter", Pin([7; 32]))), "{}", logged[0]);
    assert_eq!(connections.refused_total().get("unpinned"), Some(&u64::from(flood)));
}

/// A tonic server with the health service, which notes whom each request came from.
struct Grpc {
    address: String,
    callers: Arc<Mutex<Vec<PeerIdentity>>>,
    connections: Connections,
    stop: oneshot::Sender<()>,
    tasks: JoinSet<()>,
}

impl Grpc {
    async fn start(tls: Tls) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel();
        let (connections, callers) = (Connections::default(), Arc::new(Mutex::new(Vec::new())));
        let incoming = accept_loop(listener, tls, connections.clone(), AcceptLimits::default(), std::future::pending());
        let noted = Arc::clone(&callers);
        let note = move |request: tonic::Request<()>| {
            noted.lock().unwrap().push(*request.extensions().get::<PeerIdentity>().unwrap());
            Ok(request)
        };
        let (_reporter, health) = tonic_health::server::health_reporter();
        let service = tower::ServiceBuilder::new().layer(tonic::service::InterceptorLayer::new(note)).service(health);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(incoming, async { drop(stopped.await) })
                .await
                .unwrap();
        });
        Self { address, callers, connections, stop, tasks }
    }

    fn client(&self, identity: &TlsIdentity, roster: &SharedRoster) -> HealthClient<Channel> {
        let connector = Connector::new(tls_of(identity, roster), ACME, "acme", &self.address);
        HealthClient::new(Endpoint::from_static("http://acme.invalid").connect_with_connector_lazy(connector))
    }
}

async fn check(client: &mut HealthClient<Channel>) -> Result<(), tonic::Status> {
    let request = HealthCheckRequest { service: String::new() };
    timeout(DEADLINE, client.check(request)).await.expect("an answer in time").map(|_answer| ())
}

#[tokio::test]
async fn grpc_requests_carry_the_member_and_a_cut_ends_them() {
    let (acme, bolt) = (identity("acme"), identity("bolt"));
    let shared = roster(&[(acme.pin(), ACME), (bolt.pin(), BOLT)]);
    let mut grpc = Grpc::start(tls_of(&acme, &shared)).await;
    let mut client = grpc.client(&bolt, &roster(&[(acme.pin(), ACME)]));
    check(&mut client).await.unwrap();
    assert_eq!(grpc.callers.lock().unwrap().iter().map(|caller| caller.member).collect::<Vec<_>>(), [BOLT]);

    shared.store(Arc::new(Roster::new([(acme.pin(), ACME)])));
    assert_eq!(grpc.connections.cut_unlisted(&shared.load()), 1);
    eventually("the connection is closed", || grpc.connections.open() == 0).await;
    let status = check(&mut client).await.unwrap_err();
    assert_eq!(grpc.callers.lock().unwrap().len(), 1, "no request after the cut: {status:?}");

    drop(client);
    grpc.stop.send(()).unwrap();
    timeout(DEADLINE, grpc.tasks.join_next()).await.expect("the server ends").unwrap().unwrap();
}

#[tokio::test]
async fn a_refused_grpc_client_sees_the_alert_40_times_of_40() {
    let (acme, stranger) = (identity("acme"), identity("stranger"));
    let shared = roster(&[(acme.pin(), ACME)]);
    let grpc = Grpc::start(tls_of(&acme, &shared)).await;
    for _ in 0..40 {
        let status = check(&mut grpc.client(&stranger, &shared)).await.unwrap_err();
        let found = ConnectError::find(&status).unwrap_or_else(|| panic!("no reason in {status:?}"));
        assert_eq!(refused_by(found), AlertDescription::AccessDenied);
    }
    assert!(grpc.callers.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_stream_ends_when_it_is_told_to() {
    let (acme, shared) = (identity("acme"), roster(&[]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut incoming =
        accept_loop(listener, tls_of(&acme, &shared), Connections::default(), AcceptLimits::default(), async move {
            drop(stopped.await);
        });
    stop.send(()).unwrap();
    assert!(timeout(DEADLINE, incoming.next()).await.expect("the end in time").is_none());
    assert!(incoming.next().await.is_none());
}
