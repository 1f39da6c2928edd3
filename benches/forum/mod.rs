//! A forum for measuring: companies with keys and a charter, logs signed in advance, and real nodes in processes of
//! their own, so that each one's memory can be read and each one can be killed.
//!
//! A node's process is the built program: `staydown run`.

#![allow(dead_code, unreachable_pub, reason = "shared by several programs, none of which needs everything")]
#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made ends by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use staydown::clock;
use staydown::config::Config;
use staydown::engine::STORE_FOLDER;
use staydown::keys::{CertificateTerms, NodeKeys};
use staydown::net::limits::{self, MESSAGE_BYTES_MAX};
use staydown::net::tls::{Connector, Roster, Tls};
use staydown::node;
use staydown::replica::block::{Frame, Header, RECORDS_PER_BLOCK_MAX, SignedHeader, Slot};
use staydown::replica::charter::{CharterChain, charter_hash, prove_possession, sign_charter};
use staydown::replica::ids::{BlockId, Class, ForumId, KeyId, LogNo, MemberId, Origin, TimeMs};
use staydown::replica::log::Log;
use staydown::replica::signal::{Alg, Subject};
use staydown::replica::signed::{Keyring, open_log};
use staydown::replica::{merkle, proto, record};
use staydown::store::{Store, Write};
use staydown::wire::files::Invitation;
use staydown::wire::local as l;
use staydown::wire::local_service::forum_client::ForumClient;
use staydown::wire::peer_service::peer_client::PeerClient;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for anything that must come true but the measured thing itself.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Name, group, jurisdiction.
const COMPANIES: [(&str, &str, &str); 6] = [
    ("acme", "Acme", "FR"),
    ("bolt", "Bolt", "GB"),
    ("cyan", "Cyan", "FR"),
    ("delta", "Delta", "DE"),
    ("east", "East", "GB"),
    ("fern", "Fern", "DE"),
];

/// One company of the forum.
pub struct Company {
    pub name: &'static str,
    pub id: MemberId,
    pub keys: NodeKeys,
    pub data: PathBuf,
    pub address: SocketAddr,
}

impl Company {
    fn create(folder: &Path, index: usize) -> Self {
        let (name, ..) = COMPANIES[index];
        let data = folder.join(name);
        fs::create_dir_all(&data).unwrap();
        let keys =
            NodeKeys::create(&data.join(node::KEYS_FOLDER), &CertificateTerms::usual(name, clock::now())).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let id = MemberId(clock::random());
        fs::write(data.join(node::MEMBER_FILE), id.to_string()).unwrap();
        Self { name, id, keys, data, address }
    }

    fn member(&self, index: usize, context: &[u8; 32]) -> proto::Member {
        let (name, group, jurisdiction) = COMPANIES[index];
        proto::Member {
            id: self.id.0.to_vec().into(),
            name: name.into(),
            group: group.into(),
            roles: 1,
            status: 1,
            log_limit: 16,
            log_root_key: self.keys.root.verifying_key().to_bytes().to_vec().into(),
            nodes: vec![proto::NodeEntry {
                tls_spki_sha256: vec![self.keys.tls.pin().0.to_vec().into()],
                endpoints: vec![self.address.to_string()],
                ..Default::default()
            }],
            jurisdictions: vec![jurisdiction.into()],
            pop: prove_possession(&self.keys.root, context, self.id).to_vec().into(),
            ..Default::default()
        }
    }
}

/// Companies and their charter; nobody runs yet.
pub struct Forum {
    pub folder: TempDir,
    pub forum: ForumId,
    pub charter: proto::SignedCharter,
    pub issued: TimeMs,
    pub companies: Vec<Company>,
}

impl Forum {
    /// `count` FULL members of different groups, their folders on the disk under `at`.
    pub fn found(count: usize, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let folder = TempDir::new_in(at).unwrap();
        let companies: Vec<_> = (0..count).map(|i| Company::create(folder.path(), i)).collect();
        let founders: Vec<_> = (0..3).map(|_| SigningKey::from_bytes(&clock::random())).collect();
        let nonce: [u8; 32] = clock::random();
        let issued = TimeMs(clock::now().0 - TimeMs::HOUR_MS);
        let mut members: Vec<_> = companies.iter().enumerate().map(|(i, c)| c.member(i, &nonce)).collect();
        members.sort_by(|a, b| a.id.cmp(&b.id));
        let charter = proto::Charter {
            version: 1,
            name: "Example Hash Forum".into(),
            semantics: 1,
            founder_keys: founders.iter().map(|k| k.verifying_key().to_bytes().to_vec().into()).collect(),
            threshold: 2,
            members,
            policy: Some(policy()),
            issued_ms: issued.0,
            valid_until_ms: issued.0 + 365 * TimeMs::DAY_MS,
            nonce: nonce.to_vec().into(),
            taxonomy: "staydown-example-1".into(),
            ..Default::default()
        };
        let body = charter.encode_to_vec();
        let sigs = founders[..2].iter().map(|k| sign_charter(k, &body)).collect();
        let charter = proto::SignedCharter { sigs, body: body.into() };
        let forum = ForumId(charter_hash(&charter.body).0);
        let invitation = Invitation { forum, charters: vec![charter.clone()], taxonomy: Default::default() };
        for company in &companies {
            invitation.write(&company.data.join(node::FORUM_FILE)).unwrap();
        }
        Self { folder, forum, charter, issued, companies }
    }

    /// The charter chain.
    pub fn chain(&self) -> CharterChain {
        CharterChain::found(self.forum, self.charter.clone()).unwrap()
    }

    /// A log of `records` records by the company `author` in the bulk lane, block by block as its node would sign them.
    pub fn bulk_log(&self, author: usize, records: usize) -> BulkLog {
        let company = &self.companies[author];
        let origin = Origin { member: company.id, log_no: LogNo(0) };
        let key = SigningKey::from_bytes(&clock::random());
        let opening = open_log(self.forum, origin, Class::Bulk.number(), &company.keys.root, &key);
        let open = record::encode(proto::Kind::LogOpen, clock::random(), &opening.message);
        BulkLog {
            forum: self.forum,
            time: TimeMs(self.issued.0 + 60_000),
            log: Log::empty(origin, opening),
            keyring: Keyring::new(&self.chain()),
            key,
            author,
            first: Some(open),
            left: records,
            made: 0,
        }
    }

    /// Puts `records` records of the companies `authors` into the store of `holder`, which must not run.
    pub fn preload(&self, holder: usize, authors: &[usize], records: usize) -> Preloaded {
        let (store, _) = Store::open_or_set_aside(&self.companies[holder].data.join(STORE_FOLDER)).unwrap();
        let mut preloaded = Preloaded::default();
        for (i, author) in authors.iter().enumerate() {
            let share = records / authors.len() + usize::from(i < records % authors.len());
            let mut batch = Vec::new();
            for frame in self.bulk_log(*author, share) {
                preloaded.note(&frame);
                batch.push((frame.header.header().id, frame.encode()));
                if batch.len() == 128 {
                    write(&store, &mut batch);
                }
            }
            write(&store, &mut batch);
        }
        preloaded
    }

    /// Starts the company's node in a process of its own and waits until it serves.
    pub async fn start(&self, index: usize) -> Process {
        let mut process = self.spawn(index);
        process.serves().await.unwrap_or_else(|ended| panic!("the node of {} did not start: {ended}", process.name));
        process
    }

    /// Starts the company's node without waiting.
    pub fn spawn(&self, index: usize) -> Process {
        let endpoints = self.companies.iter().map(|c| format!("{}={}", c.name, c.address)).collect::<Vec<_>>();
        Process::spawn(&self.companies[index], &endpoints.join(","))
    }

    /// A client that speaks to `server` over mutual TLS with the keys of `client`, as a node does.
    pub fn dial(&self, client: usize, server: usize) -> PeerClient<Channel> {
        let pins = self.companies.iter().map(|c| (c.keys.tls.pin(), c.id));
        let roster = Arc::new(ArcSwap::from_pointee(Roster::new(pins)));
        let tls = Tls::new(&self.companies[client].keys.tls, roster).unwrap();
        let server = &self.companies[server];
        let connector = Connector::new(tls, server.id, server.name, &server.address.to_string());
        let channel = limits::endpoint().connect_with_connector_lazy(connector);
        PeerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

fn write(store: &Store, batch: &mut Vec<(BlockId, Bytes)>) {
    let writes: Vec<_> = batch.iter().map(|(id, bytes)| Write::Block(*id, bytes)).collect();
    store.write(&writes).unwrap();
    batch.clear();
}

fn policy() -> proto::Policy {
    proto::Policy {
        retract_min: 2,
        retract_permille: 500,
        contest_quorum: 2,
        allow_quorum: 1,
        quota_per_day: vec![1_000_000, 1_000_000, 50_000_000],
        account_ttl_max_ms: 180 * TimeMs::DAY_MS,
        stale_grace_ms: 30 * TimeMs::DAY_MS,
        auditors_attest: false,
        log_bytes_max: 8 << 30,
    }
}

/// What was put into a store.
#[derive(Default)]
pub struct Preloaded {
    pub records: u64,
    pub blocks: u64,
    pub payload_bytes: u64,
    pub record_bytes: (usize, usize),
}

impl Preloaded {
    fn note(&mut self, frame: &Frame) {
        let header = frame.header.header();
        self.blocks += 1;
        self.records += u64::from(header.record_count);
        self.payload_bytes += u64::from(header.payload_len);
        for slot in &frame.slots {
            let Slot::Record(bytes) = slot else { continue };
            let (least, most) = &mut self.record_bytes;
            // The opening of a log is longer than the opinions in it.
            if record_is_opinion(bytes) {
                *least = if *least == 0 { bytes.len() } else { (*least).min(bytes.len()) };
                *most = (*most).max(bytes.len());
            }
        }
    }
}

fn record_is_opinion(bytes: &[u8]) -> bool {
    proto::Record::decode(bytes).is_ok_and(|r| r.kind == proto::Kind::Opinion as u32)
}

/// Blocks of one author, full ones, one after the other.
pub struct BulkLog {
    forum: ForumId,
    time: TimeMs,
    log: Log,
    keyring: Keyring,
    key: SigningKey,
    author: usize,
    first: Option<Bytes>,
    left: usize,
    made: u64,
}

impl Iterator for BulkLog {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        if self.left == 0 {
            return None;
        }
        let mut slots: Vec<_> = self.first.take().map(Slot::Record).into_iter().collect();
        while slots.len() < RECORDS_PER_BLOCK_MAX && self.left > 0 {
            slots.push(Slot::Record(opinion(self.author, self.made)));
            self.made += 1;
            self.left -= 1;
        }
        let (seq, prev, log_root) = self.log.next();
        self.time = self.time.plus(1);
        let payload: usize = slots.iter().map(|s| if let Slot::Record(r) = s { r.len() } else { 0 }).sum();
        let header = Header {
            forum: self.forum,
            id: BlockId { origin: self.log.origin(), seq },
            class: Class::Bulk.number(),
            audience: 0,
            time: self.time,
            prev,
            log_root,
            record_count: u32::try_from(slots.len()).unwrap(),
            payload_len: u32::try_from(payload).unwrap(),
            records_root: merkle::root(slots.iter().map(Slot::leaf)),
            key_id: KeyId::of(self.key.verifying_key().as_bytes()),
            flags: 0,
            ext_hash: [0; 32],
        };
        let frame = Frame { header: SignedHeader::sign(header, &self.key), slots, ext: Bytes::new() };
        let block = self.keyring.verify(frame.clone()).unwrap();
        self.keyring.learn(&block);
        self.log.extend(&block, &self.keyring);
        Some(frame)
    }
}

/// Choices from a seed (splitmix64).
pub struct Chance(pub u64);

impl Chance {
    /// The next choice: any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// One of `things`.
    pub fn pick<'a, T>(&mut self, things: &'a [T]) -> Option<&'a T> {
        let end = u64::try_from(things.len()).unwrap().max(1);
        things.get(usize::try_from(self.below(end)).unwrap())
    }
}

/// Bytes that look random, the same in every run.
pub fn scattered<const N: usize>(seed: u64) -> [u8; N] {
    let mut chance = Chance(seed);
    let mut bytes = [0; N];
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&chance.number().to_be_bytes()[..chunk.len()]);
    }
    bytes
}

/// The subject of record `number` of an author: every other one is a PDQ hash, the rest SHA-256.
pub fn subject(author: usize, number: u64) -> Subject {
    let alg = if number.is_multiple_of(2) { Alg::Pdq } else { Alg::Sha256 };
    Subject::of(alg, &scattered::<32>((author as u64) << 40 | number))
}

/// A record of 100 to 130 bytes: a submission as an uploader with keys of its own makes it.
pub fn opinion(author: usize, number: u64) -> Bytes {
    let opinion = proto::Opinion {
        subject: Some(subject(author, number).to_proto()),
        stance: 1,
        labels: if number.is_multiple_of(3) { vec![1, 2] } else { vec![1] },
        severity: (number % 4) as u32,
        languages: if number.is_multiple_of(5) { vec!["en".into()] } else { vec![] },
        client_key: scattered::<16>(!number).to_vec().into(),
        item_id: scattered::<16>(number ^ 0xffff_0000).to_vec().into(),
        quality: 100,
        ..Default::default()
    };
    record::encode(proto::Kind::Opinion, scattered(number.wrapping_mul(31)), &opinion)
}

/// A node in a process of its own; killed when dropped.
pub struct Process {
    pub name: &'static str,
    pub client: ForumClient<Channel>,
    pub stderr: PathBuf,
    child: Child,
}

impl Process {
    fn spawn(company: &Company, endpoints: &str) -> Self {
        let stderr = company.data.join("stderr");
        let mut command = Command::new(env!("CARGO_BIN_EXE_staydown"));
        command
            .arg("--data")
            .arg(&company.data)
            .args(["run", "--exit-with-stdin", "--listen", &company.address.to_string()])
            .env("STAYDOWN_PEER_ENDPOINTS", endpoints)
            // Many nodes on one machine, and nobody looks at their consoles.
            .env("STAYDOWN_WEB_LISTEN", "off")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(&stderr).unwrap());
        let child = command.spawn().unwrap();
        let socket = Config::default_in(company.data.clone()).local.socket;
        Self { name: company.name, client: local_client(socket), stderr, child }
    }

    /// Waits until the node answers; the error is how it ended instead.
    pub async fn serves(&mut self) -> Result<(), String> {
        self.serves_within(DEADLINE).await
    }

    /// As [`Process::serves`], for a start that takes long.
    pub async fn serves_within(&mut self, deadline: Duration) -> Result<(), String> {
        let begun = clock::instant();
        loop {
            if self.client.status(l::StatusRequest {}).await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                let said = fs::read_to_string(&self.stderr).unwrap_or_default();
                return Err(format!("{status}: {}", said.lines().last().unwrap_or_default()));
            }
            assert!(begun.elapsed() < deadline, "the node of {} neither serves nor ends", self.name);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub async fn status(&mut self) -> l::StatusResponse {
        self.client.status(l::StatusRequest {}).await.unwrap().into_inner()
    }

    /// Waits until the startup guard has its answers.
    pub async fn open(&mut self) {
        let begun = clock::instant();
        while self.status().await.guard_pending {
            assert!(begun.elapsed() < DEADLINE, "the startup guard of {} never had its answers", self.name);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until the node counts so many records, looking every `step`.
    pub async fn counts(&mut self, records: u64, step: Duration) {
        while self.status().await.records < records {
            tokio::time::sleep(step).await;
        }
    }

    /// Whether the node's verdict on the signal is anything but ALLOW.
    pub async fn matches(&mut self, kind: &str, value: &str) -> bool {
        let signal = l::Signal { r#type: kind.into(), value: value.into() };
        let request = l::LookupRequest { signals: vec![signal], ..Default::default() };
        self.client.lookup(request).await.unwrap().into_inner().verdict() != l::Verdict::Allow
    }

    /// Memory (resident) of the process now, in bytes.
    pub fn memory(&self) -> u64 {
        memory(self.child.id(), "VmRSS:")
    }

    /// Largest memory the process ever had, in bytes.
    pub fn peak_memory(&self) -> u64 {
        peak_memory(self.child.id())
    }

    /// Stops the process where it stands, and everything of it (SIGSTOP).
    pub fn pause(&self) {
        signal("-STOP", self.child.id());
    }

    /// Lets a paused process go on.
    pub fn resume(&self) {
        signal("-CONT", self.child.id());
    }

    /// SIGKILL, and the wait until the process is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the node to stop; how the process ended.
    pub fn stop(mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A child that has ended already is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success(), "kill {name} {pid}");
}

fn local_client(socket: PathBuf) -> ForumClient<Channel> {
    let channel =
        Endpoint::from_static("http://local").connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
            let socket = socket.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        }));
    ForumClient::new(channel)
}

/// Largest memory (resident) that a process ever had, in bytes.
pub fn peak_memory(pid: u32) -> u64 {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A count of the environment, as in `STAYDOWN_BENCH_RECORDS=100000`.
pub fn count(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |n| n.replace('_', "").parse().unwrap_or_else(|_| panic!("{name}={n}")))
}

/// What else keeps the machine busy: the figures are worth as much as it is quiet.
pub fn load() -> String {
    fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// The value below which `permille` of the sorted `values` lie.
pub fn quantile(values: &mut [Duration], permille: usize) -> Duration {
    values.sort_unstable();
    values[(values.len() * permille).div_ceil(1000).clamp(1, values.len()) - 1]
}

/// Waits until two nodes hold and show the same, and nothing waits in the first one's outbox.
pub async fn agreed(a: &mut Process, b: &mut Process) -> (l::StatusResponse, l::StatusResponse) {
    let begun = clock::instant();
    loop {
        let (ours, theirs) = (a.status().await, b.status().await);
        if ours.heads == theirs.heads && ours.view_digest == theirs.view_digest && ours.outbox == 0 {
            return (ours, theirs);
        }
        assert!(begun.elapsed() < DEADLINE, "never the same: {ours:?} {theirs:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Lines of the nodes' error output that nobody should ever read.
pub fn panics(forum: &Forum) -> Vec<String> {
    forum.companies.iter().flat_map(|company| panics_in(&company.data)).collect()
}

/// Such lines of the node of one data directory.
pub fn panics_in(data: &Path) -> Vec<String> {
    let text = fs::read_to_string(data.join("stderr")).unwrap_or_default();
    let unwanted = |line: &&str| line.contains("panicked at") || line.contains("a bug, please report");
    text.lines().filter(unwanted).map(str::to_owned).collect()
}

/// Counts by name, for what a run prints.
pub type Tally = BTreeMap<String, u64>;
