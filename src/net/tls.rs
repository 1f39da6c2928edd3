//! Mutual TLS between members: who a connection belongs to, decided by the charter and by nothing else.
//!
//! Identity is the pin of the key (PROTOCOL section 1), looked up in the [`Roster`] at every handshake. No name, no
//! certificate authority and no earlier session can stand in for it: resumption is off on both sides, because a
//! resumed session never shows its certificate again, and a revoked member came back that way.
//!
//! Read on in `accept.rs` (peers that dial us) and `dial.rs` (peers that we dial).

mod accept;
mod cut;
mod dial;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureScheme,
};
use x509_parser::time::ASN1Time;

use crate::clock;
use crate::keys::{CertificateFacts, TlsIdentity};
use crate::replica::ids::{MemberId, Pin, TimeMs, sha256};

pub use accept::{
    AcceptError, AcceptLimits, CONNECTIONS_MAX, CONNECTIONS_PER_PIN_MAX, Connections, HANDSHAKE_TIMEOUT,
    HANDSHAKE_YIELD_AFTER, HANDSHAKES_MAX, Incoming, PeerIdentity, PeerStream, REFUSALS_KEPT, RefusedConnection,
    Sender, WARNINGS_PER_S, accept_loop,
};
use dial::Lines;
pub use dial::{
    CONNECT_TIMEOUT, ConnectError, Connector, DIAL_HANDSHAKE_TIMEOUT, DialLimits, Dialed, DialedStream, FIRST_WORD_WAIT,
};

pub use crate::keys::{EXAMPLE_PINS, refuse_example_keys};

/// The one application protocol: HTTP/2.
const ALPN_H2: &[u8] = b"h2";

/// Who may connect: the pins of the active members. A value that is replaced, never changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    members: BTreeMap<Pin, MemberId>,
}

impl Roster {
    /// A roster of these pins. The charter has no pin twice; were there one, the last would count.
    pub fn new(pins: impl IntoIterator<Item = (Pin, MemberId)>) -> Self {
        Self { members: pins.into_iter().collect() }
    }

    /// Whose key this is, if an active member has it.
    pub fn member_of(&self, pin: &Pin) -> Option<MemberId> {
        self.members.get(pin).copied()
    }
}

/// The roster of this moment. Store a new one first, then call [`Connections::cut_unlisted`] with it.
pub type SharedRoster = Arc<ArcSwap<Roster>>;

/// Where handshakes get the time from: [`crate::clock::now`], or what a test says.
pub type Clock = Arc<dyn Fn() -> TimeMs + Send + Sync>;

/// What this node shows, and what it says of itself.
struct Identity {
    key: CertifiedKey,
    facts: CertificateFacts,
}

impl Identity {
    fn of(identity: &TlsIdentity, provider: &CryptoProvider) -> Result<Self, rustls::Error> {
        let key = CertifiedKey::from_der(identity.chain().to_vec(), identity.private_key(), provider)?;
        Ok(Self { key, facts: identity.facts() })
    }
}

/// This node's side of every handshake. Clones share identity, roster and the list of what we dialled.
#[derive(Clone)]
pub struct Tls {
    identity: Arc<ArcSwap<Identity>>,
    /// The key before the one that is shown now: for peers that have not heard of the new one yet.
    previous: Arc<ArcSwapOption<Identity>>,
    lines: Lines,
    roster: SharedRoster,
    clock: Clock,
    provider: Arc<CryptoProvider>,
}

impl Tls {
    /// Shows `identity`, believes `roster`, on the time of this machine.
    ///
    /// # Errors
    /// The TLS library does not take the key.
    pub fn new(identity: &TlsIdentity, roster: SharedRoster) -> Result<Self, rustls::Error> {
        Self::with_clock(identity, roster, Arc::new(clock::now))
    }

    /// Like [`Tls::new`], on the time that `clock` tells.
    ///
    /// # Errors
    /// The TLS library does not take the key.
    pub fn with_clock(identity: &TlsIdentity, roster: SharedRoster, clock: Clock) -> Result<Self, rustls::Error> {
        // Not the process-wide default provider: what is negotiated must not depend on who ran first.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let identity = Arc::new(ArcSwap::from_pointee(Identity::of(identity, &provider)?));
        let (previous, lines) = (Arc::default(), Lines::default());
        Ok(Self { identity, previous, lines, roster, clock, provider })
    }

    /// Shows another certificate from the next handshake on: after a renewal, or when the files have changed. When it
    /// is of another key, the one before is kept: whom we dial may not have the charter yet that lists the new one.
    ///
    /// # Errors
    /// The TLS library does not take the key; the old certificate stays.
    pub fn replace_identity(&self, identity: &TlsIdentity) -> Result<(), rustls::Error> {
        let before = self.identity.swap(Arc::new(Identity::of(identity, &self.provider)?));
        if before.facts.pin != identity.pin() {
            self.previous.store(Some(before));
        }
        Ok(())
    }

    /// Pin and validity of the certificate that is shown.
    pub fn facts(&self) -> CertificateFacts {
        self.identity.load().facts
    }

    /// Cuts every connection that we dialled whose other end, or whose key of ours, is not in `roster` any more;
    /// returns how many.
    pub fn cut_unlisted(&self, roster: &Roster) -> usize {
        self.lines.cut_unlisted(roster)
    }

    /// The connections that we dialled and that are open.
    pub fn dialed(&self) -> Vec<Dialed> {
        self.lines.open()
    }

    /// Whether `member` last saw a key of ours that we do not show any more.
    pub fn showed_an_old_key_to(&self, member: MemberId) -> bool {
        self.lines.shown(member).is_some_and(|pin| pin != self.facts().pin)
    }

    /// The roster that handshakes look at.
    pub fn roster(&self) -> &SharedRoster {
        &self.roster
    }

    fn verifier(&self, expected: Option<MemberId>) -> Arc<PinVerifier> {
        Arc::new(PinVerifier {
            roster: Arc::clone(&self.roster),
            expected,
            provider: Arc::clone(&self.provider),
            outcome: OnceLock::new(),
        })
    }

    /// For one handshake only: the verifier keeps what it found, and the certificate is the newest.
    fn server_config(&self, verifier: Arc<PinVerifier>) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_details(Arc::clone(&self.provider), self.time())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(resolver(&self.identity.load()));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// For one handshake only, as [`Tls::server_config`].
    fn client_config(&self, verifier: Arc<PinVerifier>, shown: &Identity) -> Result<ClientConfig, rustls::Error> {
        let mut config = ClientConfig::builder_with_details(Arc::clone(&self.provider), self.time())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(resolver(shown));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.resumption = Resumption::disabled();
        // The name is a placeholder; sending it would only mark forum traffic for whoever watches the line.
        config.enable_sni = false;
        Ok(config)
    }

    fn time(&self) -> Arc<dyn TimeProvider> {
        Arc::new(ClockTime(Arc::clone(&self.clock)))
    }
}

fn resolver(shown: &Identity) -> Arc<SingleCertAndKey> {
    Arc::new(SingleCertAndKey::from(shown.key.clone()))
}

/// Why a certificate was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The peer sent no certificate.
    #[error("no certificate was sent")]
    NoCertificate,
    /// The key belongs to no active member: never admitted, suspended, or no longer in the charter.
    #[error("key {pin} is not in the charter")]
    Unpinned {
        /// The key shown.
        pin: Pin,
    },
    /// The key is a member's, but not of the member that was dialled.
    #[error("key {pin} belongs to member {got}, expected member {expected}")]
    WrongMember {
        /// The key shown.
        pin: Pin,
        /// Whose it is.
        got: MemberId,
        /// Who was dialled.
        expected: MemberId,
    },
    /// The key is pinned, its certificate has ended.
    #[error("the certificate expired at {}, it is {} now", date(not_after), date(now))]
    Expired {
        /// The key shown.
        pin: Pin,
        /// Last valid moment.
        not_after: TimeMs,
        /// Our clock.
        now: TimeMs,
    },
    /// The key is pinned, its certificate has not begun.
    #[error("the certificate begins at {}, it is {} now", date(not_before), date(now))]
    NotYetValid {
        /// The key shown.
        pin: Pin,
        /// First valid moment.
        not_before: TimeMs,
        /// Our clock.
        now: TimeMs,
    },
    /// Not one X.509 certificate that two parsers read alike.
    #[error("{0}")]
    Malformed(String),
}

impl Refusal {
    /// A short name for counters.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Unpinned { .. } => "unpinned",
            Self::WrongMember { .. } => "wrong_member",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::Malformed(_) => "malformed",
        }
    }

    /// The alert by which the other side learns of it.
    pub fn alert(&self) -> AlertDescription {
        match self {
            Self::NoCertificate => AlertDescription::CertificateRequired,
            Self::Unpinned { .. } | Self::WrongMember { .. } => AlertDescription::AccessDenied,
            Self::Expired { .. } | Self::NotYetValid { .. } => AlertDescription::CertificateExpired,
            Self::Malformed(_) => AlertDescription::BadCertificate,
        }
    }

    /// The key that was shown, if one could be read.
    pub fn pin(&self) -> Option<Pin> {
        match *self {
            Self::Unpinned { pin }
            | Self::WrongMember { pin, .. }
            | Self::Expired { pin, .. }
            | Self::NotYetValid { pin, .. } => Some(pin),
            Self::NoCertificate | Self::Malformed(_) => None,
        }
    }
}

/// Chooses the alert that the peer sees: `AccessDenied`, `CertificateExpired`, `BadCertificate`, `CertificateRequired`.
impl From<&Refusal> for rustls::Error {
    fn from(refusal: &Refusal) -> Self {
        match *refusal {
            Refusal::NoCertificate => Self::NoCertificatesPresented,
            Refusal::Unpinned { .. } | Refusal::WrongMember { .. } => {
                Self::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
            }
            Refusal::Expired { not_after, now, .. } => Self::InvalidCertificate(CertificateError::ExpiredContext {
                time: unix_time(now),
                not_after: unix_time(not_after),
            }),
            Refusal::NotYetValid { not_before, now, .. } => {
                Self::InvalidCertificate(CertificateError::NotValidYetContext {
                    time: unix_time(now),
                    not_before: unix_time(not_before),
                })
            }
            Refusal::Malformed(_) => Self::InvalidCertificate(CertificateError::BadEncoding),
        }
    }
}

/// Whose key took part in a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verified {
    member: MemberId,
    pin: Pin,
    /// Last valid moment of the certificate.
    not_after: TimeMs,
}

/// Judges the peer's certificate in one handshake, and keeps what it found for whoever asked.
#[derive(Debug)]
struct PinVerifier {
    roster: SharedRoster,
    /// The member that was dialled; none when we are dialled.
    expected: Option<MemberId>,
    provider: Arc<CryptoProvider>,
    outcome: OnceLock<Result<Verified, Refusal>>,
}

impl PinVerifier {
    fn judge(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
        let verdict = self.verdict(certificate, now);
        // One handshake shows one certificate. What was found first is what the connection will be taken for.
        self.outcome.set(verdict.clone()).map_err(|_second| CertificateError::ApplicationVerificationFailure)?;
        verdict.map(|_verified| ()).map_err(|refusal| (&refusal).into())
    }

    fn verdict(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<Verified, Refusal> {
        let facts = facts_on_two_roads(certificate)?;
        let (pin, now) = (facts.pin, TimeMs(now.as_secs().saturating_mul(1_000)));
        let member = self.roster.load().member_of(&pin).ok_or(Refusal::Unpinned { pin })?;
        match self.expected {
            Some(expected) if expected != member => Err(Refusal::WrongMember { pin, got: member, expected }),
            _ if now > facts.not_after => Err(Refusal::Expired { pin, not_after: facts.not_after, now }),
            _ if now < facts.not_before => Err(Refusal::NotYetValid { pin, not_before: facts.not_before, now }),
            _ => Ok(Verified { member, pin, not_after: facts.not_after }),
        }
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    /// Why the certificate was not taken, if it was looked at and was not.
    fn refusal(&self) -> Option<Refusal> {
        self.outcome.get().and_then(|outcome| outcome.as_ref().err().cloned())
    }

    /// Whose key it is, if the certificate was looked at and taken.
    fn verified(&self) -> Option<Verified> {
        self.outcome.get().and_then(|outcome| outcome.as_ref().ok().copied())
    }
}

impl ClientCertVerifier for PinVerifier {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(end_entity, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(end_entity, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

/// The pin as two parsers read it. The TLS library checks the handshake's signature with the key that *its* parser
/// finds; a certificate in which ours found another, pinned one would let a stranger in.
fn facts_on_two_roads(certificate: &CertificateDer<'_>) -> Result<CertificateFacts, Refusal> {
    let facts = CertificateFacts::of(certificate).map_err(|error| Refusal::Malformed(error.to_string()))?;
    let parsed = ParsedCertificate::try_from(certificate)
        .map_err(|error| Refusal::Malformed(format!("malformed certificate: {error}")))?;
    let signing = Pin(sha256(&[parsed.subject_public_key_info().as_ref()]));
    if signing != facts.pin {
        return Err(Refusal::Malformed(format!("malformed certificate: one key is {}, another {signing}", facts.pin)));
    }
    Ok(facts)
}

/// What an alert about a certificate or a handshake means, for people.
fn alert_reason(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::AccessDenied => "key not in the charter",
        AlertDescription::CertificateExpired => "expired or not yet valid",
        AlertDescription::CertificateRequired => "none was sent",
        AlertDescription::BadCertificate => "malformed",
        AlertDescription::ProtocolVersion => "no common version of TLS",
        AlertDescription::NoApplicationProtocol => "no common protocol over TLS",
        _ => "it gave no other reason",
    }
}

fn only_tls13() -> rustls::Error {
    rustls::PeerIncompatible::Tls13RequiredForQuic.into()
}

fn unix_time(time: TimeMs) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(time.0))
}

fn date(time: &TimeMs) -> String {
    let seconds = i64::try_from(time.0 / 1_000).unwrap_or(i64::MAX);
    ASN1Time::from_timestamp(seconds).map_or_else(|_beyond| format!("{} ms", time.0), |at| at.to_string())
}

/// The error of the TLS library inside an error of its stream.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

struct ClockTime(Clock);

impl fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockTime")
    }
}

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time((self.0)()))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("roster", &self.roster).finish_non_exhaustive()
    }
}
