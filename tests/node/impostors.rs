//! Whoever poses as a member is refused, in both directions, and both operators read the alert, the cause and the cure.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ServerConfig, SupportedProtocolVersion};
use staydown::clock;
use staydown::keys::{CertificateTerms, Permissions, TLS_CERT_FILE, TLS_KEY_FILE, TlsIdentity};
use staydown::replica::ids::{TimeMs, hex};
use staydown::wire::local as l;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::forum::{Forum, Node};
use crate::outsider::{alert_in, connector, foreign, listen, shown};

/// A key that nobody pinned, with a certificate that an authority signed for bolt's name.
fn signed_by_an_authority(folder: &Path) -> TlsIdentity {
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Issuer::new(authority, key());
    let own = key();
    let certificate =
        CertificateParams::new(["bolt.example.org".to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join(TLS_KEY_FILE), own.serialize_pem()).unwrap();
    std::fs::set_permissions(folder.join(TLS_KEY_FILE), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(folder.join(TLS_CERT_FILE), certificate.pem()).unwrap();
    TlsIdentity::load(folder, Permissions::Strict).unwrap()
}

/// The same key with another certificate, valid for a day from `days` after now.
fn dated(identity: &TlsIdentity, days: i64) -> TlsIdentity {
    let now = clock::now();
    let not_before = TimeMs(now.0.saturating_add_signed(days * TimeMs::DAY_MS as i64));
    let terms = CertificateTerms {
        not_before,
        not_after: not_before.plus(TimeMs::DAY_MS),
        ..CertificateTerms::usual("bolt", now)
    };
    identity.renew(&terms).unwrap()
}

fn all_of(identity: &TlsIdentity) -> Arc<SingleCertAndKey> {
    shown(identity.chain().to_vec(), &identity.private_key())
}

async fn refused(node: &mut Node) -> Vec<l::RefusedConnection> {
    node.client.list_peers(l::ListPeersRequest {}).await.unwrap().into_inner().refused
}

async fn last_error(node: &mut Node, member: &str) -> String {
    let peers = node.client.list_peers(l::ListPeersRequest {}).await.unwrap().into_inner().peers;
    peers.into_iter().find(|p| p.member == member).unwrap().last_error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_dials_with_the_wrong_certificate_is_refused_with_the_exact_alert() {
    use AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRequired, DecryptError, ProtocolVersion,
    };
    let mut forum = Forum::found(3);
    let mut acme = forum.start(0).await;
    let bolt = &forum.companies[1].keys.tls;
    let unpinned = signed_by_an_authority(&forum.folder.path().join("unpinned"));
    let stolen = shown(forum.companies[2].keys.tls.chain().to_vec(), &bolt.private_key());
    let broken = shown(vec![CertificateDer::from(vec![0x30, 0x03, 0x02, 0x01, 0x01])], &bolt.private_key());
    let tls13: &[&'static SupportedProtocolVersion] = &[&TLS13];
    let bolts_pin = hex(&bolt.pin().0);
    let cases = [
        (tls13, Some(all_of(&unpinned)), AccessDenied, "unpinned", "", hex(&unpinned.pin().0)),
        (tls13, Some(all_of(&dated(bolt, -2))), CertificateExpired, "expired", "bolt", bolts_pin.clone()),
        (tls13, Some(all_of(&dated(bolt, 1))), CertificateExpired, "not_yet_valid", "bolt", bolts_pin.clone()),
        (tls13, Some(stolen), DecryptError, "tls", "", String::new()),
        (tls13, Some(broken), BadCertificate, "malformed", "", String::new()),
        (&[&TLS12], Some(all_of(bolt)), ProtocolVersion, "tls", "", String::new()),
        (tls13, None, CertificateRequired, "no_certificate", "", String::new()),
    ];
    for (number, (versions, certificate, alert, reason, member, pin)) in cases.into_iter().enumerate() {
        let config = Arc::new(foreign(versions, certificate));
        let tcp = TcpStream::connect(forum.companies[0].address).await.unwrap();
        let from = tcp.local_addr().unwrap().to_string();
        let heard = listen(&config, tcp).await;
        assert_eq!((heard.bytes, heard.alert), (0, Some(alert)), "{reason}: what the dialler sees");

        wait_for!("acme's operator can read it", refused(&mut acme).await.len() == number + 1);
        let told = refused(&mut acme).await.pop().unwrap();
        assert_eq!(
            (told.reason.as_str(), told.alert, told.told_us),
            (reason, format!("{alert:?}"), false),
            "{}",
            told.cause
        );
        assert_eq!((told.address, told.member.as_str(), told.pin), (from, member, pin));
        assert!(!told.cause.is_empty() && !told.fix.is_empty(), "{reason} names cause and cure");
    }

    // The same with a dialler of our own kind: what its operator would read.
    for (identity, text) in [
        (&unpinned, "acme refused our certificate: key not in the charter (AccessDenied)"),
        (&dated(bolt, -2), "acme refused our certificate: expired or not yet valid (CertificateExpired)"),
        (&dated(bolt, 1), "acme refused our certificate: expired or not yet valid (CertificateExpired)"),
    ] {
        let error = connector(identity, &forum.companies[0]).connect().await.unwrap_err();
        assert_eq!(error.to_string(), text);
        assert!(error.fix().is_some());
    }
    assert_eq!(acme.status().await.peers_connected, 0);

    let shown = command(&forum, &["peer", "list", "--refused"]).await;
    for part in
        ["key of bolt: the certificate expired at", "(told CertificateExpired)", "(told ProtocolVersion)", "  fix: "]
    {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
}

/// What the command line prints at acme.
async fn command(forum: &Forum, words: &[&str]) -> String {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_staydown"))
        .arg("--data")
        .arg(&forum.companies[0].data)
        .args(words)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A server at an address of its own that shows `certificate`; the alerts that it was sent.
async fn impostor(
    tasks: &mut JoinSet<()>,
    versions: &[&'static SupportedProtocolVersion],
    certificate: Arc<SingleCertAndKey>,
) -> (String, Arc<Mutex<Vec<AlertDescription>>>) {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap().to_string();
    let alerts = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&alerts);
    tasks.spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            if let Err(error) = acceptor.accept(tcp).await {
                noted.lock().unwrap().extend(alert_in(&error));
            }
        }
    });
    (address, alerts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_answers_with_the_wrong_certificate_is_refused_with_the_exact_alert() {
    use AlertDescription::{AccessDenied, BadCertificate, CertificateExpired};
    let mut forum = Forum::found(2);
    let unpinned = signed_by_an_authority(&forum.folder.path().join("unpinned"));
    let bolt = &forum.companies[1].keys.tls;
    let broken = shown(vec![CertificateDer::from(vec![0x30, 0x03, 0x02, 0x01, 0x01])], &bolt.private_key());
    let pin = unpinned.pin();
    let cases = [
        (&TLS13, all_of(&unpinned), Some(AccessDenied), format!("key {pin} is not in the charter (told AccessDenied)")),
        (&TLS13, all_of(&dated(bolt, -2)), Some(CertificateExpired), "(told CertificateExpired)".into()),
        (&TLS13, all_of(&dated(bolt, 1)), Some(CertificateExpired), "the certificate begins at".into()),
        (&TLS13, broken, Some(BadCertificate), "(told BadCertificate)".into()),
        (&TLS12, all_of(bolt), None, "bolt refused the connection: no common version of TLS (ProtocolVersion)".into()),
    ];
    let mut tasks = JoinSet::new();
    for (version, certificate, alert, text) in cases {
        let (address, alerts) = impostor(&mut tasks, &[version], certificate).await;
        let mut endpoints = forum.endpoints();
        endpoints.insert("bolt".into(), address);
        let data = forum.companies[0].data.clone();
        let mut acme = Node::start(data, TcpListener::bind("127.0.0.1:0").await.unwrap(), endpoints).await;
        wait_for!(format!("acme's operator reads: {text}"), last_error(&mut acme, "bolt").await.contains(&text));
        assert!(last_error(&mut acme, "bolt").await.contains("; fix: "), "the cure is named");
        if let Some(alert) = alert {
            wait_for!("the impostor has the alert", !alerts.lock().unwrap().is_empty());
            assert!(alerts.lock().unwrap().iter().all(|sent| *sent == alert), "{alerts:?}");
        }
        assert_eq!(acme.status().await.peers_connected, 0);
        acme.stop().await;
    }
    let _unused = forum.start(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_answers_at_another_members_address_is_refused_and_both_operators_read_it() {
    let mut forum = Forum::found(3);
    let mut endpoints = forum.endpoints();
    endpoints.insert("bolt".into(), forum.companies[2].address.to_string());
    let mut cyan = forum.start(2).await;
    let data = forum.companies[0].data.clone();
    let mut acme = Node::start(data, TcpListener::bind("127.0.0.1:0").await.unwrap(), endpoints).await;
    wait_for!("acme reads whom it found", last_error(&mut acme, "bolt").await.contains("belongs to member"));
    let error = last_error(&mut acme, "bolt").await;
    assert!(error.contains("(told AccessDenied)") && error.contains("correct the peer's address"), "{error}");
    wait_for!("cyan reads that it was refused", {
        refused(&mut cyan).await.iter().any(|r| r.alert == "AccessDenied" && r.told_us && !r.fix.is_empty())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_the_charter_no_longer_lists_reads_why_and_so_do_the_others() {
    let mut forum = Forum::found(3);
    let mut acme = forum.start(0).await;
    let id = forum.companies[2].id.0.to_vec();
    let next = forum.next_charter(|charter| {
        charter.members.iter_mut().find(|m| m.id[..] == id).unwrap().status = 2;
    });
    acme.client
        .apply_charter(l::ApplyCharterRequest { charter: next.encode_to_vec().into(), ..Default::default() })
        .await
        .unwrap();
    // Its invitation is of charter 1.
    let mut cyan = forum.start(2).await;
    let text = "acme refused our certificate: key not in the charter (AccessDenied); fix: ask a founder to admit";
    wait_for!("cyan's operator reads it", last_error(&mut cyan, "acme").await.contains(text));
    wait_for!("acme's operator reads it", {
        refused(&mut acme).await.iter().any(|r| r.alert == "AccessDenied" && r.member == "cyan" && !r.told_us)
    });
}
