//! Somebody with keys but without a node: dials a node as it likes, and says how that ended.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme, SupportedProtocolVersion,
};
use staydown::keys::TlsIdentity;
use staydown::net::tls::{Connector, Roster, Tls};
use staydown::replica::ids::ForumId;
use staydown::replica::proto;
use staydown::wire::peer::WIRE_VERSION;
use staydown::wire::peer_service::peer_client::PeerClient;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::forum::{Company, DEADLINE};

/// The TLS of our own kind, showing `identity` and expecting `company`.
pub fn tls(identity: &TlsIdentity, company: &Company) -> Tls {
    let roster = Roster::new([(company.keys.tls.pin(), company.id)]);
    Tls::new(identity, Arc::new(ArcSwap::from_pointee(roster))).unwrap()
}

pub fn connector(identity: &TlsIdentity, company: &Company) -> Connector {
    Connector::new(tls(identity, company), company.id, company.name, &company.address.to_string())
}

/// A client of the peer service that dials again whenever it must.
pub fn client(identity: &TlsIdentity, company: &Company) -> PeerClient<Channel> {
    let connector = connector(identity, company);
    PeerClient::new(Endpoint::from_static("http://peer.invalid").connect_with_connector_lazy(connector))
}

pub fn hello(forum: ForumId) -> proto::HelloRequest {
    proto::HelloRequest {
        wire_min: WIRE_VERSION,
        wire_max: WIRE_VERSION,
        forum_id: forum.0.to_vec().into(),
        ..Default::default()
    }
}

pub fn pull(forum: ForumId) -> proto::PullRequest {
    proto::PullRequest { forum_id: forum.0.to_vec().into(), ..Default::default() }
}

/// What a client of another make shows.
pub fn shown(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'_>) -> Arc<SingleCertAndKey> {
    let key = aws_lc_rs::sign::any_supported_type(key).unwrap();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
}

/// A client of another make, which believes every server and shows `certificate` if it has one.
pub fn foreign(
    versions: &[&'static SupportedProtocolVersion],
    certificate: Option<Arc<SingleCertAndKey>>,
) -> ClientConfig {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match certificate {
        Some(certificate) => config.with_client_cert_resolver(certificate),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// How a connection of a foreign client went.
#[derive(Debug)]
pub struct Heard {
    /// Bytes that the server said after the handshake.
    pub bytes: usize,
    pub alert: Option<AlertDescription>,
    pub kind: Option<HandshakeKind>,
    pub tickets: u32,
}

/// Shakes hands over `tcp` and reads the first word, or the reason why there is none.
pub async fn listen(config: &Arc<ClientConfig>, tcp: TcpStream) -> Heard {
    let mut heard = Heard { bytes: 0, alert: None, kind: None, tickets: 0 };
    let listening = async {
        let name = ServerName::try_from("staydown.invalid").unwrap();
        let mut stream = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?;
        let read = stream.read(&mut [0; 64]).await;
        let session = stream.get_ref().1;
        (heard.kind, heard.tickets) = (session.handshake_kind(), session.tls13_tickets_received());
        read
    };
    match timeout(DEADLINE, listening).await.unwrap() {
        Ok(bytes) => heard.bytes = bytes,
        Err(error) => heard.alert = alert_in(&error),
    }
    heard
}

pub fn alert_in(error: &std::io::Error) -> Option<AlertDescription> {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(&rustls::Error::AlertReceived(alert)) => Some(alert),
        _ => None,
    }
}

/// Believes everybody.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
