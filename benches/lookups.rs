//! How fast the local service looks things up: `cargo bench --bench lookups`.
//!
//! Defends: one PDQ hash over the Unix socket and over loopback, at a million listed ones and a thousand requests a second
//! (each at its time, whatever became of those before it): p99 below 1 ms; four connections of bulk lookups: 100,000 PDQ
//! hashes a second on two cores; an entry is found less than 1 ms after its commit, also while a merge runs. Shows also what
//! an import at the same time does to lookups. Half of what is looked up is listed, at distances from 0 to 31.
//! `STAYDOWN_BENCH_RECORDS` scales it (2,000,000: every other one is a PDQ hash), `STAYDOWN_BENCH_SECONDS` how long each
//! figure is measured (10).
#![expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made ends by panicking")]

mod forum;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use forum::{Chance, Forum, quantile};
use hyper_util::rt::TokioIo;
use staydown::clock;
use staydown::engine::{self, Handle};
use staydown::matcher::{Matcher, Sought};
use staydown::net::local::{BULK_MAX, LocalService};
use staydown::replica::Settings;
use staydown::replica::charter::SEMANTICS_MAX;
use staydown::replica::ids::LogNo;
use staydown::replica::index::HammingIndex;
use staydown::replica::index::exact::ExactIndex;
use staydown::replica::index::frames::FramesIndex;
use staydown::replica::index::tlsh::TlshIndex;
use staydown::replica::signal::{Alg, Subject};
use staydown::replica::view::Change;
use staydown::wire::local as l;
use staydown::wire::local_service::forum_client::ForumClient;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};

/// The company whose hashes are listed, and whose node is asked: alone, so that nothing it says waits for a peer.
const AUTHOR: usize = 0;
const ASKED: usize = AUTHOR;
/// Requests a second.
const RATE: u64 = 1_000;
/// Connections of bulk lookups.
const CONNECTIONS: usize = 4;
/// Longest that an entry may take to be found after its commit.
const VISIBLE_MAX: Duration = Duration::from_millis(1);

fn main() {
    let records = forum::count("STAYDOWN_BENCH_RECORDS", 2_000_000);
    let time = Duration::from_secs(forum::count("STAYDOWN_BENCH_SECONDS", 10) as u64);
    println!("load before: {}", forum::load());
    let longest = visible(records / 2);

    let forum = Forum::found(1, Path::new(env!("CARGO_TARGET_TMPDIR")));
    forum.preload(ASKED, &[AUTHOR], records);
    let threads =
        |count| tokio::runtime::Builder::new_multi_thread().worker_threads(count).enable_all().build().unwrap();
    let (serving, asking) = (threads(2), threads(2));
    let begun = clock::instant();
    let node = Node::start(&forum, &serving);
    println!("{records} records are loaded in {:.1} s", begun.elapsed().as_secs_f64());
    let listed = records as u64 / 2;

    for (name, client) in [("Unix socket", &node.unix), ("loopback", &node.loopback), ("Unix socket", &node.unix)] {
        let took = asking.block_on(open_loop(client.clone(), listed, time));
        line(&format!("one PDQ hash, {name}, {RATE} requests/s"), took);
    }
    let kinds = [("PDQ hashes", "pdq", time), ("SHA-256 digests", "sha256", time)];
    for (name, kind, time) in kinds {
        let before = cpu();
        let (hashes, took) = asking.block_on(bulk(&node.socket, kind, listed, time));
        let seconds = took.as_secs_f64();
        println!(
            "bulk, {CONNECTIONS} connections: {:.0} {name}/s, {:.2} us of CPU each (asking included)",
            hashes as f64 / seconds,
            (cpu() - before) * 1e6 / hashes as f64
        );
    }
    let stop = Arc::new(AtomicBool::new(false));
    let said = Arc::new(AtomicU64::new(0));
    let import = asking.spawn(import(node.unix.clone(), Arc::clone(&stop), Arc::clone(&said)));
    let begun = clock::instant();
    let took = asking.block_on(open_loop(node.unix.clone(), listed, time));
    let rate = said.load(Ordering::SeqCst) as f64 / begun.elapsed().as_secs_f64();
    line(&format!("one PDQ hash during an import of {rate:.0} records/s"), took);
    stop.store(true, Ordering::SeqCst);
    asking.block_on(import).unwrap();
    println!("load after: {}", forum::load());
    serving.block_on(node.end());
    assert!(longest <= VISIBLE_MAX, "an entry was found {longest:?} after its commit");
}

fn line(what: &str, mut took: Vec<Duration>) {
    let [p50, p99, most] = [500, 990, 1000].map(|q| quantile(&mut took, q).as_secs_f64() * 1e3);
    println!("{what:<58} p50 {p50:.3} ms, p99 {p99:.3} ms, longest {most:.1} ms of {}", took.len());
}

/// CPU time of this process in seconds.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

/// From handing a change over until a search finds it, quiet and while merges run. Returns the 99th percentile of the
/// second.
fn visible(listed: usize) -> Duration {
    let hashes = (0..listed as u64).map(|n| forum::scattered::<32>(n << 20));
    let pictures = HammingIndex::from_hashes([7; 32], hashes);
    let matcher =
        Matcher::start([7; 32], pictures, TlshIndex::default(), ExactIndex::new([7; 32]), FramesIndex::new([7; 32]))
            .unwrap();
    let once = |n: u64| {
        let hash = forum::scattered::<32>((n << 20) + 1);
        let change = Change { subject: Subject::of(Alg::Pdq, &hash), matches: true };
        let sought = [(0, change.subject.clone())];
        let begun = clock::instant();
        matcher.apply(&[change], &[]);
        let found = matcher.now().search(&Sought::new(sought.to_vec(), 31));
        let took = begun.elapsed();
        assert!(found.candidates.iter().any(|c| c.distance == 0), "it is found at once");
        took
    };
    line(&format!("commit to found, {listed} listed, quiet"), (0..1_000).map(once).collect());
    // Another thread keeps the merges going: a block of changes now and then.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for block in 0.. {
                let numbers = block * 512..(block + 1) * 512;
                let hash = |n: u64| Subject::of(Alg::Pdq, &forum::scattered::<32>((n << 20) + 2));
                let changes: Vec<_> = numbers.map(|n| Change { subject: hash(n), matches: true }).collect();
                matcher.apply(&changes, &[]);
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                thread::sleep(Duration::from_millis(8));
            }
        });
        let mut took: Vec<_> = (1_000..4_000).map(once).collect();
        stop.store(true, Ordering::SeqCst);
        line("commit to found, during an import of 60,000 hashes/s", took.clone());
        quantile(&mut took, 990)
    })
}

/// A node in this process, with its local service on a Unix socket and on loopback.
struct Node {
    socket: std::path::PathBuf,
    unix: ForumClient<Channel>,
    loopback: ForumClient<Channel>,
    engine: Handle,
    thread: thread::JoinHandle<()>,
    servers: JoinSet<()>,
}

impl Node {
    fn start(forum: &Forum, runtime: &Runtime) -> Self {
        let company = &forum.companies[ASKED];
        let settings = Settings {
            me: company.id,
            root: company.keys.root.clone(),
            log_seed: clock::random(),
            seed: 1,
            rules: Default::default(),
            instance: 1,
            moved: false,
            closed_below: LogNo(0),
            semantics_max: SEMANTICS_MAX,
        };
        let charters = vec![forum.charter.clone()];
        let (engine, _, thread) =
            engine::start(&company.data, settings.clone(), forum.forum, &charters, runtime.handle().clone()).unwrap();
        let service = LocalService::new(engine.clone(), settings, String::new(), BTreeMap::new());
        let socket = company.data.join("bench.sock");
        let mut servers = JoinSet::new();
        let address = runtime.block_on(async {
            let unix = UnixListener::bind(&socket).unwrap();
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = tcp.local_addr().unwrap();
            let server = || Server::builder().max_concurrent_streams(1_024).tcp_nodelay(true);
            let (one, other) = (service.clone().into_server(), service.into_server());
            let unix = server().add_service(one).serve_with_incoming(UnixListenerStream::new(unix));
            // The builder's own setting holds for sockets that it accepts itself.
            let tcp = TcpIncoming::from(tcp).with_nodelay(Some(true));
            let tcp = server().add_service(other).serve_with_incoming(tcp);
            servers.spawn(async move { unix.await.unwrap() });
            servers.spawn(async move { tcp.await.unwrap() });
            address
        });
        let _here = runtime.enter();
        let loopback = Endpoint::new(format!("http://{address}")).unwrap().tcp_nodelay(true).connect_lazy();
        Self { unix: client(&socket), loopback: ForumClient::new(loopback), socket, engine, thread, servers }
    }

    async fn end(mut self) {
        self.servers.shutdown().await;
        self.engine.stop().await;
        drop(self.engine);
        self.thread.join().unwrap();
    }
}

fn client(socket: &Path) -> ForumClient<Channel> {
    let socket = socket.to_owned();
    let connect = tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    ForumClient::new(Endpoint::from_static("http://local").connect_with_connector_lazy(connect))
}

/// Something to look up: every other one is listed, or near to what is.
fn query(kind: &str, listed: u64, chance: &mut Chance) -> [u8; 32] {
    let number = chance.below(listed) * 2 + u64::from(kind != "pdq");
    if chance.below(2) == 0 {
        return forum::scattered(chance.number() | 1 << 63);
    }
    let mut hash: [u8; 32] = forum::subject(AUTHOR, number).digest().try_into().unwrap();
    if kind == "pdq" {
        for _ in 0..chance.below(32) {
            let bit = usize::try_from(chance.below(256)).unwrap();
            hash[bit / 8] ^= 1 << (bit % 8);
        }
    }
    hash
}

/// How long each lookup took from the moment at which it was due.
async fn open_loop(client: ForumClient<Channel>, listed: u64, time: Duration) -> Vec<Duration> {
    let count = RATE * time.as_secs();
    let mut chance = Chance(count);
    let requests = (0..count).map(|_| {
        let value = data_encoding::HEXLOWER.encode(&query("pdq", listed, &mut chance));
        l::LookupRequest { signals: vec![l::Signal { r#type: "pdq".into(), value }], ..Default::default() }
    });
    let requests: Vec<_> = requests.collect();
    let handle = tokio::runtime::Handle::current();
    // A thread of its own wakes up on time; timers of the runtime come every millisecond.
    let pacing = tokio::task::spawn_blocking(move || {
        let begun = clock::instant();
        let mut lookups = JoinSet::new();
        for (n, request) in (0..).zip(requests) {
            let due = begun + Duration::from_nanos(n * 1_000_000_000 / RATE);
            thread::sleep(due.saturating_duration_since(clock::instant()));
            let mut client = client.clone();
            let lookup = async move {
                client.lookup(request).await.unwrap();
                due.elapsed()
            };
            lookups.spawn_on(lookup, &handle);
        }
        lookups
    });
    pacing.await.unwrap().join_all().await
}

/// Hashes that were looked up over some connections at once, and how long that took.
async fn bulk(socket: &Path, kind: &'static str, listed: u64, time: Duration) -> (u64, Duration) {
    let lot = |chance: &mut Chance| {
        let digests: Vec<u8> = (0..BULK_MAX).flat_map(|_| query(kind, listed, chance)).collect();
        l::LookupBulkRequest { r#type: kind.into(), digests: digests.into(), ..Default::default() }
    };
    let mut connections = JoinSet::new();
    let begun = clock::instant();
    for connection in 0..CONNECTIONS {
        let mut client = client(socket);
        let mut chance = Chance(connection as u64);
        let lots: Vec<_> = (0..4).map(|_| lot(&mut chance)).collect();
        connections.spawn(async move {
            let endless = lots.into_iter().cycle().take_while(move |_| begun.elapsed() < time);
            let mut answers = client.lookup_bulk(tokio_stream::iter(endless)).await.unwrap().into_inner();
            let mut hashes = 0;
            while let Some(answer) = answers.message().await.unwrap() {
                assert_eq!(answer.refusal, None);
                assert!(answer.hits.len() * 3 > BULK_MAX, "half of them are listed: {}", answer.hits.len());
                hashes += u64::from(answer.looked_up);
            }
            hashes
        });
    }
    let hashes = connections.join_all().await.into_iter().sum();
    (hashes, begun.elapsed())
}

/// Says something new as fast as the node takes it.
async fn import(mut client: ForumClient<Channel>, stop: Arc<AtomicBool>, said: Arc<AtomicU64>) {
    let lots = (0_u64..).take_while(move |_| !stop.load(Ordering::SeqCst)).map(|lot| {
        let statement = |n: u64| l::Statement {
            signal: Some(l::Signal {
                r#type: "pdq".into(),
                value: data_encoding::HEXLOWER.encode(&forum::scattered::<32>(1 << 62 | n)),
            }),
            stance: l::Stance::Submit.into(),
            quality: 100,
            ..Default::default()
        };
        let statements = (lot * 511..(lot + 1) * 511).map(statement).collect();
        l::SubmitRequest { statements, lane: l::Lane::Bulk.into(), ..Default::default() }
    });
    let mut answers = client.submit_stream(tokio_stream::iter(lots)).await.unwrap().into_inner();
    while let Some(answer) = answers.message().await.unwrap() {
        assert_eq!((answer.refusal, answer.state), (None, l::SubmitState::Durable.into()));
        said.fetch_add(answer.receipts.len() as u64, Ordering::SeqCst);
    }
}
