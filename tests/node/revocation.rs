//! I12: a key that left the charter gets nothing any more, within one second, on connections that were open and on new
//! ones, without a restart; and it is back as soon as the charter has it back.
//!
//! `STAYDOWN_REVOCATIONS=50 cargo test --test node revocation -- --nocapture` measures in earnest.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prost::Message as _;
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use staydown::clock;
use staydown::keys::{CertificateTerms, TlsIdentity};
use staydown::net::tls::ConnectError;
use staydown::replica::ids::ForumId;
use staydown::replica::proto;
use staydown::wire::local::{self as l, Stance};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Status};

use crate::forum::{Company, DEADLINE, Forum, Node, hash};
use crate::outsider::{client, connector, foreign, hello, listen, pull, shown};

/// The promise.
const ONE_SECOND: Duration = Duration::from_secs(1);
/// How long the revoked member goes on trying on each run.
const GOES_ON: Duration = Duration::from_millis(1_300);
/// Attempts after the revocation.
const ATTEMPTS: usize = 1_000;
const AT_ONCE: usize = 8;

/// cyan's status in the charter.
const ACTIVE: u32 = 1;
const SUSPENDED: u32 = 2;

/// When something last went well, in nanoseconds after `begun`.
#[derive(Clone)]
struct Last {
    begun: Instant,
    at: Arc<AtomicU64>,
    count: Arc<AtomicUsize>,
}

impl Last {
    fn new() -> Self {
        Self { begun: clock::instant(), at: Arc::default(), count: Arc::default() }
    }

    fn now(&self) {
        let at = u64::try_from(self.begun.elapsed().as_nanos()).unwrap();
        self.at.fetch_max(at, Ordering::SeqCst);
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    fn after(&self, moment: Instant) -> Duration {
        let last = Duration::from_nanos(self.at.load(Ordering::SeqCst));
        (self.begun + last).saturating_duration_since(moment)
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// Everything that a member does with its peers, as fast as it can, on three connections and on ever new ones.
fn hammer(
    company: &Company,
    identity: &TlsIdentity,
    forum: ForumId,
    last: &Last,
) -> (JoinSet<()>, Arc<Mutex<Vec<Status>>>) {
    let mut tasks = JoinSet::new();
    let ends = Arc::new(Mutex::new(Vec::new()));
    let (mut one, hit) = (client(identity, company), last.clone());
    tasks.spawn(async move {
        loop {
            if one.hello(hello(forum)).await.is_ok() {
                hit.now();
            }
            tokio::task::yield_now().await;
        }
    });
    let (mut one, hit) = (client(identity, company), last.clone());
    tasks.spawn(async move {
        loop {
            if let Ok(reply) = one.pull(pull(forum)).await {
                let mut items = reply.into_inner();
                while let Ok(Some(_)) = items.message().await {
                    hit.now();
                }
            }
            tokio::task::yield_now().await;
        }
    });
    let (mut one, hit, noted) = (client(identity, company), last.clone(), Arc::clone(&ends));
    tasks.spawn(async move {
        loop {
            let ended = match one.follow(pull(forum)).await {
                Ok(reply) => {
                    let mut items = reply.into_inner();
                    loop {
                        match items.message().await {
                            Ok(Some(_)) => hit.now(),
                            Ok(None) => break None,
                            Err(status) => break Some(status),
                        }
                    }
                }
                Err(status) => Some(status),
            };
            noted.lock().unwrap().extend(ended);
            tokio::task::yield_now().await;
        }
    });
    let (dial, hit) = (connector(identity, company), last.clone());
    tasks.spawn(async move {
        loop {
            if dial.connect().await.is_ok() {
                hit.now();
            }
            tokio::task::yield_now().await;
        }
    });
    (tasks, ends)
}

/// The next charter with cyan's `status`.
fn with_status(forum: &mut Forum, status: u32) -> l::ApplyCharterRequest {
    let cyan = forum.companies[2].id.0.to_vec();
    let next = forum.next_charter(|charter| {
        let member = charter.members.iter_mut().find(|m| m.id[..] == cyan).unwrap();
        member.status = status;
    });
    l::ApplyCharterRequest { charter: next.encode_to_vec().into(), ..Default::default() }
}

async fn charter_arrives(node: &mut Node, version: u64) {
    wait_for!("the charter arrives", node.status().await.charter_version == version);
}

#[derive(Default)]
struct Maxima {
    here_from_request: Duration,
    here_from_answer: Duration,
    there_from_seen: Duration,
    spread: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_gets_nothing_after_one_second_and_all_again_when_it_is_back() {
    let runs: usize = std::env::var("STAYDOWN_REVOCATIONS").map_or(2, |n| n.parse().unwrap());
    let mut forum = Forum::found(3);
    let mut acme = forum.start(0).await;
    let mut bolt = forum.start(1).await;
    acme.open().await;
    bolt.open().await;
    let cyan = TlsIdentity::load(&forum.companies[2].data.join("keys"), staydown::keys::Permissions::Strict).unwrap();

    // Something new all the time, so that open streams have something to send.
    let says = Arc::new(AtomicBool::new(true));
    let (mut talker, go_on) = (acme.client.clone(), Arc::clone(&says));
    let mut talking = JoinSet::new();
    talking.spawn(async move {
        let mut n = 0;
        while go_on.load(Ordering::SeqCst) {
            n += 1;
            let statements = vec![crate::forum::statement(Stance::Submit, "sha256", &hash(n))];
            talker.submit(l::SubmitRequest { statements, ..Default::default() }).await.unwrap();
        }
    });

    let mut worst = Maxima::default();
    let mut told_why = 0;
    for run in 0..runs {
        let (here, there) = (Last::new(), Last::new());
        let (mut at_acme, ends) = hammer(&forum.companies[0], &cyan, forum.forum, &here);
        let (mut at_bolt, _) = hammer(&forum.companies[1], &cyan, forum.forum, &there);
        wait_for!("cyan is served by both", here.count() > 20 && there.count() > 20);

        let request = with_status(&mut forum, SUSPENDED);
        let version = forum.charter.version;
        ends.lock().unwrap().clear();
        let asked = clock::instant();
        let answer = acme.client.apply_charter(request).await.unwrap().into_inner();
        let answered = clock::instant();
        assert_eq!(answer.version, version);
        wait_for!("the charter reaches bolt", bolt.status().await.charter_version == version);
        let seen = clock::instant();
        tokio::time::sleep_until((seen + GOES_ON).into()).await;

        let run_here = (here.after(asked), here.after(answered));
        println!(
            "run {run}: last success here {:?} after the request ({:?} after the answer), there {:?} after it was seen; the charter took {:?} to the other node; {} and {} successes before",
            run_here.0,
            run_here.1,
            there.after(seen),
            seen - answered,
            here.count(),
            there.count()
        );
        assert!(run_here.0 <= ONE_SECOND, "still served {:?} after the charter was given to the node", run_here.0);
        assert!(there.after(seen) <= ONE_SECOND, "still served {:?} after the charter was seen", there.after(seen));
        worst.here_from_request = worst.here_from_request.max(run_here.0);
        worst.here_from_answer = worst.here_from_answer.max(run_here.1);
        worst.there_from_seen = worst.there_from_seen.max(there.after(seen));
        worst.spread = worst.spread.max(seen - answered);
        let reason = |s: &Status| s.metadata().get("staydown-reason").is_some_and(|reason| reason == "SUSPENDED");
        told_why += usize::from(ends.lock().unwrap().iter().any(|s| s.code() == Code::PermissionDenied && reason(s)));

        // Back again: the same clients, nothing restarted.
        let (hits_here, hits_there) = (here.count(), there.count());
        acme.client.apply_charter(with_status(&mut forum, ACTIVE)).await.unwrap();
        charter_arrives(&mut bolt, version + 1).await;
        wait_for!("cyan is served again", here.count() > hits_here && there.count() > hits_there);
        at_acme.shutdown().await;
        at_bolt.shutdown().await;
    }
    says.store(false, Ordering::SeqCst);
    timeout(DEADLINE, talking.join_next()).await.unwrap();
    println!(
        "{runs} revocations, maxima: last success {:?} after the request to apply, {:?} after its answer; on the other node {:?} after its status showed the charter; the charter reached it {:?} after it was applied; streams were told SUSPENDED in {told_why} runs",
        worst.here_from_request, worst.here_from_answer, worst.there_from_seen, worst.spread
    );
    assert!(told_why > 0, "no stream was told why it ended");
}

/// A server of another kind that gives out tickets to anybody; its address, and how often a client resumed there.
async fn ticket_office(tasks: &mut JoinSet<()>) -> std::net::SocketAddr {
    let identity = TlsIdentity::create(&CertificateTerms::usual("office", clock::now())).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.chain().to_vec(), identity.private_key())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.send_tls13_tickets = 8;
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = acceptor.accept(tcp).await {
                stream.write_all(b"here you are").await.ok();
                stream.shutdown().await.ok();
            }
        }
    });
    address
}

/// Dials `company` as cyan in the `n`th of many ways; whether anything at all was got.
async fn attempt(
    n: usize,
    company: &Company,
    cyan: &TlsIdentity,
    resuming: &Arc<ClientConfig>,
    forum: ForumId,
) -> bool {
    match n % 8 {
        0 => client(cyan, company).hello(hello(forum)).await.is_ok(),
        1 => match client(cyan, company).follow(pull(forum)).await {
            Ok(reply) => matches!(reply.into_inner().message().await, Ok(Some(_))),
            Err(_) => false,
        },
        2 => client(cyan, company).get_charters(charters(forum)).await.is_ok(),
        3 => connector(cyan, company).connect().await.is_ok(),
        4 | 5 => heard_something(resuming, company).await,
        6 => {
            let certificate = shown(cyan.chain().to_vec(), &cyan.private_key());
            heard_something(&Arc::new(foreign(&[&TLS12], Some(certificate))), company).await
        }
        _ => {
            let renewed = cyan.renew(&CertificateTerms::usual("cyan again", clock::now())).unwrap();
            connector(&renewed, company).connect().await.is_ok()
        }
    }
}

fn charters(forum: ForumId) -> proto::ChartersRequest {
    proto::ChartersRequest { forum_id: forum.0.to_vec().into(), from_version: 1 }
}

async fn heard_something(config: &Arc<ClientConfig>, company: &Company) -> bool {
    let heard = listen(config, TcpStream::connect(company.address).await.unwrap()).await;
    assert_eq!(heard.tickets, 0);
    heard.bytes > 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_of_a_thousand_attempts_after_the_revocation_succeeds_resumption_included() {
    let mut forum = Forum::found(3);
    let mut acme = forum.start(0).await;
    let cyan = &forum.companies[2].keys.tls;
    let mut tasks = JoinSet::new();
    let office = ticket_office(&mut tasks).await;

    let mut resuming = foreign(&[&TLS13], Some(shown(cyan.chain().to_vec(), &cyan.private_key())));
    resuming.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(64)));
    let resuming = Arc::new(resuming);
    // Before: full handshakes without a ticket, however often.
    for _ in 0..3 {
        let heard = listen(&resuming, TcpStream::connect(forum.companies[0].address).await.unwrap()).await;
        assert!(heard.bytes > 0, "{heard:?}");
        assert_eq!((heard.kind, heard.tickets), (Some(HandshakeKind::Full), 0));
    }
    // Tickets from elsewhere: this client resumes where it may, so that what follows is no accident.
    let first = listen(&resuming, TcpStream::connect(office).await.unwrap()).await;
    assert_eq!((first.kind, first.tickets > 0), (Some(HandshakeKind::Full), true));
    let second = listen(&resuming, TcpStream::connect(office).await.unwrap()).await;
    assert_eq!(second.kind, Some(HandshakeKind::Resumed));
    // The pre-shared key that is forced on acme is not taken: a full handshake, in which cyan is looked at.
    let forced = listen(&resuming, TcpStream::connect(forum.companies[0].address).await.unwrap()).await;
    assert!(forced.bytes > 0, "{forced:?}");
    assert_eq!((forced.kind, forced.tickets), (Some(HandshakeKind::Full), 0));

    // A handshake that had begun, and calls on a connection that was open.
    let half_done = TcpStream::connect(forum.companies[0].address).await.unwrap();
    let mut open = client(cyan, &forum.companies[0]);
    open.hello(hello(forum.forum)).await.unwrap();

    let request = with_status(&mut forum, SUSPENDED);
    acme.client.apply_charter(request).await.unwrap();
    let company = &forum.companies[0];
    let cyan = &forum.companies[2].keys.tls;
    wait_for!("cyan is cut", open.hello(hello(forum.forum)).await.is_err());
    let heard = listen(&resuming, half_done).await;
    assert_eq!((heard.bytes, heard.alert), (0, Some(rustls::AlertDescription::AccessDenied)));
    assert!(open.get_charters(charters(forum.forum)).await.is_err());
    assert!(open.pull(pull(forum.forum)).await.is_err());

    let mut succeeded = 0;
    for first in (0..ATTEMPTS).step_by(AT_ONCE) {
        let attempts = (first..first + AT_ONCE).map(|n| attempt(n, company, cyan, &resuming, forum.forum));
        let all = timeout(DEADLINE, futures_util::future::join_all(attempts)).await.unwrap();
        succeeded += all.into_iter().filter(|got| *got).count();
        // Tickets are for one use: fetch more, so that each attempt has one to show.
        assert_eq!(
            listen(&resuming, TcpStream::connect(office).await.unwrap()).await.kind,
            Some(HandshakeKind::Resumed)
        );
    }
    println!("{succeeded} of {ATTEMPTS} attempts after the revocation succeeded");
    assert_eq!(succeeded, 0);
    let refused = connector(cyan, company).connect().await.unwrap_err();
    assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_the_revoked_member_does_not_read_is_closed_all_the_same() {
    let mut forum = Forum::found(3);
    let mut acme = forum.start(0).await;
    let _bolt = forum.start(1).await;
    acme.open().await;
    // More than fits into the window of a stream that nobody reads.
    let statements =
        |from: u64| (from..from + 500).map(|n| crate::forum::statement(Stance::Submit, "sha256", &hash(n)));
    for batch in 0..4 {
        let statements = statements(batch * 500).collect();
        acme.client.submit(l::SubmitRequest { statements, ..Default::default() }).await.unwrap();
    }
    let cyan = &forum.companies[2].keys.tls;
    let endpoint = tonic::transport::Endpoint::from_static("http://peer.invalid").initial_stream_window_size(1_024);
    let channel = endpoint.connect_with_connector_lazy(connector(cyan, &forum.companies[0]));
    let mut reader = staydown::wire::peer_service::peer_client::PeerClient::new(channel);
    let mut items = reader.follow(pull(forum.forum)).await.unwrap().into_inner();

    let request = with_status(&mut forum, SUSPENDED);
    let asked = clock::instant();
    acme.client.apply_charter(request).await.unwrap();
    wait_for!("acme has closed it", {
        let refused = connector(&forum.companies[2].keys.tls, &forum.companies[0]).connect().await;
        refused.is_err() && asked.elapsed() > Duration::from_millis(200)
    });
    // What had arrived may be read; then it ends, and not well.
    let ended = timeout(DEADLINE, async {
        loop {
            match items.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    });
    assert!(ended.await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_regains_its_place_is_connected_again_both_ways_without_a_restart() {
    let mut forum = Forum::found(3);
    let mut nodes = forum.start_all().await;
    for node in &mut nodes {
        node.open().await;
    }
    let request = with_status(&mut forum, SUSPENDED);
    nodes[0].client.apply_charter(request).await.unwrap();
    charter_arrives(&mut nodes[1], 2).await;
    wait_for!("cyan is alone", nodes[2].status().await.peers_connected == 0);
    nodes[0].say(Stance::Submit, "sha256", &hash(1)).await;
    nodes[1].expect(l::Verdict::Review, "sha256", &hash(1)).await;
    assert_eq!(nodes[2].lookup("sha256", &hash(1)).await.verdict(), l::Verdict::Allow);

    let request = with_status(&mut forum, ACTIVE);
    nodes[1].client.apply_charter(request).await.unwrap();
    // Far below the five minutes after which cyan would try again by itself: the others greet it.
    nodes[2].expect(l::Verdict::Review, "sha256", &hash(1)).await;
    for node in &mut nodes {
        wait_for!("all are connected", node.status().await.peers_connected == 2);
    }
    nodes[2].say(Stance::Submit, "sha256", &hash(2)).await;
    nodes[0].expect(l::Verdict::Review, "sha256", &hash(2)).await;
}
