//! Who is not in the charter gets no byte of the list, and example keys stay on loopback.

use std::sync::Arc;

use arc_swap::ArcSwap;
use staydown::clock;
use staydown::config::Config;
use staydown::keys::{CertificateTerms, TlsIdentity};
use staydown::net::tls::{ConnectError, Connector, Roster, Tls};
use staydown::node;
use staydown::replica::ids::TimeMs;
use staydown::wire::local::{Stance, Verdict};
use tokio::sync::oneshot;

use crate::forum::{Forum, hash};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_run_with_the_example_keys_on_loopback() {
    let mut forum = Forum::example();
    let mut nodes = forum.start_all().await;
    nodes[0].open().await;
    nodes[0].say(Stance::Submit, "sha256", &hash(1)).await;
    nodes[2].expect(Verdict::Review, "sha256", &hash(1)).await;
}

#[tokio::test]
async fn example_keys_are_refused_off_loopback_and_the_node_says_why() {
    let forum = Forum::example();
    let mut config = Config::default_in(forum.companies[0].data.clone());
    config.web.listen = None;
    config.peer.listen = "0.0.0.0:0".parse().unwrap();
    let (ready, _) = oneshot::channel();
    let error = node::run(config, ready, std::future::pending()).await.unwrap_err();
    assert_eq!(error.exit_code(), 78);
    assert!(error.to_string().contains("listen on 127.0.0.1"), "{error}");
}

/// Dials acme as somebody, and says how that ended.
async fn dial(forum: &Forum, identity: &TlsIdentity) -> Result<(), ConnectError> {
    let acme = &forum.companies[0];
    let roster = Roster::new([(acme.keys.tls.pin(), acme.id)]);
    let tls = Tls::new(identity, Arc::new(ArcSwap::from_pointee(roster))).unwrap();
    Connector::new(tls, acme.id, "acme", &acme.address.to_string()).connect().await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_node_refuses_who_is_not_pinned_or_expired_with_an_alert() {
    let mut forum = Forum::found(3);
    let _acme = forum.start(0).await;
    let now = clock::now();

    let unpinned = TlsIdentity::create(&CertificateTerms::usual("stranger", now)).unwrap();
    let error = dial(&forum, &unpinned).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("acme refused our certificate"), "{error}");
    assert!(error.fix().is_some());

    let terms = CertificateTerms {
        not_before: TimeMs(now.0 - 2 * TimeMs::DAY_MS),
        not_after: TimeMs(now.0 - TimeMs::DAY_MS),
        ..CertificateTerms::usual("bolt", now)
    };
    let expired = forum.companies[1].keys.tls.renew(&terms).unwrap();
    let error = dial(&forum, &expired).await.unwrap_err();
    assert!(error.to_string().contains("xpired"), "{error}");

    dial(&forum, &forum.companies[1].keys.tls).await.unwrap();
}
