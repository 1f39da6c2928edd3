//! Keys and certificates that change and end while nodes run, and a key that two processes have.

use std::fs;
use std::path::Path;

use prost::Message as _;
use staydown::clock;
use staydown::keys::{
    CertificateTerms, NodeKeys, TLS_CERT_FILE, TLS_KEY_FILE, TLS_NEXT_CERT_FILE, TLS_NEXT_KEY_FILE, TlsIdentity,
};
use staydown::net::tls::ConnectError;
use staydown::node::KEYS_FOLDER;
use staydown::replica::ids::TimeMs;
use staydown::replica::proto;
use staydown::wire::local::{self as l, Stance, Verdict};

use crate::forum::{Company, Forum, Node, hash};
use crate::outsider::{client, connector, hello, tls};

/// Makes new keys beside `company`'s and puts their TLS half at `names` in its folder.
fn put_new_key(company: &Company, names: [&str; 2]) -> TlsIdentity {
    let spare = company.data.join("spare");
    let keys = NodeKeys::create(&spare, &CertificateTerms::usual(company.name, clock::now())).unwrap();
    for (from, to) in [TLS_CERT_FILE, TLS_KEY_FILE].iter().zip(names) {
        fs::rename(spare.join(from), company.data.join(KEYS_FOLDER).join(to)).unwrap();
    }
    fs::remove_dir_all(spare).unwrap();
    keys.tls
}

/// A charter in which acme has these keys, given to `node`.
async fn acme_has(forum: &mut Forum, pins: &[&TlsIdentity], node: &mut Node) -> u64 {
    let id = forum.companies[0].id.0.to_vec();
    let pins: Vec<bytes::Bytes> = pins.iter().map(|key| key.pin().0.to_vec().into()).collect();
    let next = forum.next_charter(|charter| {
        charter.members.iter_mut().find(|m| m.id[..] == id).unwrap().nodes[0].tls_spki_sha256 = pins;
    });
    let request = l::ApplyCharterRequest { charter: next.encode_to_vec().into(), ..Default::default() };
    node.client.apply_charter(request).await.unwrap().into_inner().version
}

async fn charter_arrives(nodes: &mut [Node], version: u64) {
    for node in nodes {
        wait_for!("the charter arrives", node.status().await.charter_version == version);
    }
}

/// Makes every node of this process look at its files.
fn hangup() {
    let status = std::process::Command::new("kill").args(["-HUP", &std::process::id().to_string()]).status();
    assert!(status.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_changes_its_tls_key_while_two_pins_overlap_without_a_restart() {
    let mut forum = Forum::found(3);
    let mut nodes = forum.start_all().await;
    for node in &mut nodes {
        node.open().await;
    }
    let old = forum.companies[0].keys.tls.renew(&CertificateTerms::usual("acme", clock::now())).unwrap();
    let new = put_new_key(&forum.companies[0], [TLS_NEXT_CERT_FILE, TLS_NEXT_KEY_FILE]);
    let keys = forum.companies[0].data.join(KEYS_FOLDER);
    assert!(connector(&forum.companies[1].keys.tls, &forum.companies[0]).connect().await.is_ok(), "the old key still");

    let version = acme_has(&mut forum, &[&old, &new], &mut nodes[1]).await;
    charter_arrives(&mut nodes, version).await;
    wait_for!("the new key is in its place", !keys.join(TLS_NEXT_CERT_FILE).exists());
    assert_eq!(pin_in(&keys), new.pin());
    forum.companies[0].keys.tls = new;
    let bolt = forum.companies[1].keys.tls.renew(&CertificateTerms::usual("bolt", clock::now())).unwrap();
    wait_for!("acme shows the new key", connector(&bolt, &forum.companies[0]).connect().await.is_ok());
    nodes[0].say(Stance::Submit, "sha256", &hash(1)).await;
    for node in &mut nodes {
        node.expect(Verdict::Review, "sha256", &hash(1)).await;
    }

    let new = forum.companies[0].keys.tls.renew(&CertificateTerms::usual("acme", clock::now())).unwrap();
    let version = acme_has(&mut forum, &[&new], &mut nodes[2]).await;
    charter_arrives(&mut nodes, version).await;
    for node in &mut nodes {
        wait_for!("all are connected again", node.status().await.peers_connected == 2);
    }
    nodes[0].say(Stance::Submit, "sha256", &hash(2)).await;
    nodes[1].say(Stance::Submit, "sha256", &hash(3)).await;
    for node in &mut nodes {
        node.expect(Verdict::Review, "sha256", &hash(2)).await;
        node.expect(Verdict::Review, "sha256", &hash(3)).await;
    }
    let refused = connector(&old, &forum.companies[1]).connect().await.unwrap_err();
    assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
    connector(&new, &forum.companies[1]).connect().await.unwrap();
}

fn pin_in(keys: &Path) -> staydown::replica::ids::Pin {
    TlsIdentity::load(keys, staydown::keys::Permissions::Strict).unwrap().pin()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_change_that_was_cut_off_is_completed_at_start() {
    let mut forum = Forum::found(1);
    let old = forum.companies[0].keys.tls.renew(&CertificateTerms::usual("acme", clock::now())).unwrap();
    let new = put_new_key(&forum.companies[0], [TLS_NEXT_CERT_FILE, TLS_NEXT_KEY_FILE]);
    let mut acme = forum.start(0).await;
    acme_has(&mut forum, &[&old, &new], &mut acme).await;
    let keys = forum.companies[0].data.join(KEYS_FOLDER);
    wait_for!("the new key is in its place", !keys.join(TLS_NEXT_CERT_FILE).exists());
    acme.stop().await;
    // As if the node had been killed between the two renames.
    fs::rename(keys.join(TLS_CERT_FILE), keys.join(TLS_NEXT_CERT_FILE)).unwrap();
    old.renew_in(&keys, &CertificateTerms::usual("acme", clock::now())).unwrap();
    let _acme = forum.start(0).await;
    assert_eq!(pin_in(&keys), new.pin());
    assert!(!keys.join(TLS_NEXT_CERT_FILE).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_operator_changes_is_taken_up_unless_the_charter_does_not_list_it() {
    let mut forum = Forum::found(2);
    let _acme = forum.start(0).await;
    let (acme, bolt) = (&forum.companies[0], &forum.companies[1]);
    let keys = acme.data.join(KEYS_FOLDER);
    let shown = || async {
        let tls = tls(&bolt.keys.tls, acme);
        let dial = staydown::net::tls::Connector::new(tls.clone(), acme.id, "acme", &acme.address.to_string());
        let _open = dial.connect().await.unwrap();
        tls.dialed()[0].not_after
    };
    let longer = CertificateTerms {
        not_after: clock::now().plus(400 * TimeMs::DAY_MS),
        ..CertificateTerms::usual("acme", clock::now())
    };
    let renewed = acme.keys.tls.renew_in(&keys, &longer).unwrap();
    hangup();
    wait_for!("the new certificate is shown", shown().await == renewed.facts().not_after);

    // A key that nobody listed: peers would refuse it, so the old one stays.
    let before = fs::read(keys.join(TLS_KEY_FILE)).unwrap();
    let unlisted = put_new_key(acme, [TLS_CERT_FILE, TLS_KEY_FILE]);
    assert_ne!(unlisted.pin(), acme.keys.tls.pin());
    hangup();
    fs::write(keys.join(TLS_KEY_FILE), before).unwrap();
    let again = CertificateTerms { not_after: clock::now().plus(500 * TimeMs::DAY_MS), ..longer };
    let again = acme.keys.tls.renew_in(&keys, &again).unwrap();
    hangup();
    wait_for!("the right one is shown again", shown().await == again.facts().not_after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_of_a_peer_that_ends_soon_is_told_in_health_as_long_as_it_is_connected() {
    let mut forum = Forum::found(2);
    let mut acme = forum.start(0).await;
    for (days, level, text) in [(40, "YELLOW", None), (20, "YELLOW", Some("in 20 days")), (2, "RED", Some("in 2 days"))]
    {
        let now = clock::now();
        let terms = CertificateTerms {
            not_after: now.plus(days * TimeMs::DAY_MS + TimeMs::HOUR_MS),
            ..CertificateTerms::usual("bolt", now)
        };
        let bolt = forum.companies[1].keys.tls.renew(&terms).unwrap();
        let open = connector(&bolt, &forum.companies[0]).connect().await.unwrap();
        let status = acme.status().await;
        let told: Vec<_> = status.health_reasons.iter().filter(|r| r.contains("certificate")).collect();
        match text {
            Some(text) => {
                assert!(told[0].starts_with("the certificate of bolt ends") && told[0].contains(text), "{told:?}");
            }
            None => assert!(told.is_empty(), "{told:?}"),
        }
        // YELLOW for want of a peer, whatever the certificate.
        assert_eq!(status.health, level);
        drop(open);
        wait_for!("it is gone with the connection", {
            let peers = acme.client.list_peers(l::ListPeersRequest {}).await.unwrap().into_inner().peers;
            peers[0].certificate_until_ms == 0
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_copy_of_a_node_is_told_so_and_a_second_connection_is_not() {
    let mut forum = Forum::found(2);
    let _acme = forum.start(0).await;
    let (acme, key) = (&forum.companies[0], &forum.companies[1].keys.tls);
    let greet = |instance| proto::HelloRequest { instance, ..hello(forum.forum) };
    let (mut first, mut also_first, mut copy) = (client(key, acme), client(key, acme), client(key, acme));
    for client in [&mut first, &mut also_first] {
        assert!(!client.hello(greet(1)).await.unwrap().into_inner().second_copy, "one process, two connections");
    }
    assert!(copy.hello(greet(2)).await.unwrap().into_inner().second_copy);
    assert!(first.hello(greet(1)).await.unwrap().into_inner().second_copy, "both are told");
    assert!(!first.hello(greet(0)).await.unwrap().into_inner().second_copy, "who does not tell is not compared");
    drop(copy);
    wait_for!("a closed connection counts no more", !first.hello(greet(1)).await.unwrap().into_inner().second_copy);
    // A restart: the process before is gone, and the one after has another number.
    drop((first, also_first));
    let mut restarted = client(key, acme);
    wait_for!("the restarted one is alone", !restarted.hello(greet(3)).await.unwrap().into_inner().second_copy);
}
