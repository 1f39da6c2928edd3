//! A forum of real nodes on loopback, in this process: real TLS, real sled, temporary folders.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use staydown::clock;
use staydown::config::Config;
use staydown::keys::{CertificateTerms, NodeKeys, Permissions, load_founder_with};
use staydown::node;
use staydown::replica::charter::{charter_hash, prove_possession, sign_charter};
use staydown::replica::ids::{ForumId, MemberId};
use staydown::replica::proto;
use staydown::wire::files::Invitation;
use staydown::wire::local as l;
use staydown::wire::local_service::forum_client::ForumClient;
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// Waits for a condition, with a deadline.
macro_rules! wait_for {
    ($what:expr, $condition:expr) => {{
        let begun = staydown::clock::instant();
        while !$condition {
            assert!(begun.elapsed() < $crate::forum::DEADLINE, "never came true: {}", $what);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }};
}

/// Longest wait for anything that must come true.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Name, group, jurisdiction.
pub const COMPANIES: [(&str, &str, &str); 6] = [
    ("acme", "Acme", "FR"),
    ("bolt", "Bolt", "GB"),
    ("cyan", "Cyan", "FR"),
    ("delta", "Delta", "DE"),
    ("east", "East", "GB"),
    ("fern", "Fern", "DE"),
];

pub struct Company {
    pub name: &'static str,
    pub id: MemberId,
    pub keys: NodeKeys,
    pub data: PathBuf,
    pub address: SocketAddr,
    listener: Option<std::net::TcpListener>,
}

/// Companies with keys and a charter that two of three founders signed; nobody runs yet.
pub struct Forum {
    pub folder: TempDir,
    pub forum: ForumId,
    pub founders: Vec<SigningKey>,
    pub charter: proto::Charter,
    pub charters: Vec<proto::SignedCharter>,
    pub companies: Vec<Company>,
}

pub fn usual_policy() -> proto::Policy {
    proto::Policy {
        retract_min: 2,
        retract_permille: 500,
        contest_quorum: 2,
        allow_quorum: 1,
        quota_per_day: vec![100_000, 10_000, 5_000_000],
        account_ttl_max_ms: 180 * 24 * 3_600_000,
        stale_grace_ms: 30 * 24 * 3_600_000,
        auditors_attest: false,
        log_bytes_max: 8 << 30,
    }
}

impl Company {
    /// A company with keys of its own.
    pub fn create(folder: &TempDir, index: usize) -> Self {
        Self::with_keys(folder, index, |keys, name| {
            NodeKeys::create(keys, &CertificateTerms::usual(name, clock::now())).unwrap()
        })
    }

    /// A company with the published keys of `certs-example/`.
    pub fn example(folder: &TempDir, index: usize) -> Self {
        Self::with_keys(folder, index, |keys, name| {
            std::fs::create_dir_all(keys).unwrap();
            let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs-example").join(name);
            for file in std::fs::read_dir(example).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), keys.join(file.file_name())).unwrap();
            }
            NodeKeys::load_with(keys, Permissions::Lenient).unwrap()
        })
    }

    fn with_keys(folder: &TempDir, index: usize, keys: impl FnOnce(&Path, &str) -> NodeKeys) -> Self {
        let (name, ..) = COMPANIES[index];
        let data = folder.path().join(name);
        std::fs::create_dir_all(&data).unwrap();
        let keys = keys(&data.join(node::KEYS_FOLDER), name);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let id = MemberId(clock::random());
        std::fs::write(data.join(node::MEMBER_FILE), id.to_string()).unwrap();
        Self { name, id, keys, data, address, listener: Some(listener) }
    }

    pub fn member(&self, index: usize, context: &[u8; 32], roles: u32) -> proto::Member {
        let (name, group, jurisdiction) = COMPANIES[index];
        proto::Member {
            id: self.id.0.to_vec().into(),
            name: name.into(),
            group: group.into(),
            roles,
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

impl Forum {
    /// `count` FULL members.
    pub fn found(count: usize) -> Self {
        let founders = (0..3).map(|_| SigningKey::from_bytes(&clock::random())).collect();
        Self::of(count, Company::create, founders)
    }

    /// The three companies and founders of `certs-example/`.
    pub fn example() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs-example");
        let founder = |i| load_founder_with(&folder.join(format!("founder-{i}.pem")), Permissions::Lenient).unwrap();
        Self::of(3, Company::example, (1..=3).map(founder).collect())
    }

    fn of(count: usize, company: fn(&TempDir, usize) -> Company, founders: Vec<SigningKey>) -> Self {
        let folder = TempDir::new().unwrap();
        let companies: Vec<_> = (0..count).map(|i| company(&folder, i)).collect();
        let nonce: [u8; 32] = clock::random();
        let mut members: Vec<_> = companies.iter().enumerate().map(|(i, c)| c.member(i, &nonce, 1)).collect();
        members.sort_by(|a, b| a.id.cmp(&b.id));
        let charter = proto::Charter {
            version: 1,
            name: "Example Hash Forum".into(),
            semantics: 1,
            founder_keys: founders.iter().map(|k| k.verifying_key().to_bytes().to_vec().into()).collect(),
            threshold: 2,
            members,
            policy: Some(usual_policy()),
            issued_ms: clock::now().0,
            valid_until_ms: clock::now().0 + 365 * 24 * 3_600_000,
            nonce: nonce.to_vec().into(),
            taxonomy: "staydown-example-1".into(),
            ..Default::default()
        };
        let signed = sign(&charter, &founders[..2]);
        let forum = ForumId(charter_hash(&signed.body).0);
        let this = Self { folder, forum, founders, charter, charters: vec![signed], companies };
        for company in &this.companies {
            this.invite(company);
        }
        this
    }

    pub fn invite(&self, company: &Company) {
        let invitation =
            Invitation { forum: self.forum, charters: self.charters.clone(), taxonomy: Default::default() };
        invitation.write(&company.data.join(node::FORUM_FILE)).unwrap();
    }

    /// The next charter, signed by two founders.
    pub fn next_charter(&mut self, change: impl FnOnce(&mut proto::Charter)) -> proto::SignedCharter {
        let before = self.charters.last().unwrap();
        self.charter.version += 1;
        self.charter.prev_hash = charter_hash(&before.body).0.to_vec().into();
        self.charter.forum_id = self.forum.0.to_vec().into();
        self.charter.nonce = bytes::Bytes::new();
        change(&mut self.charter);
        let signed = sign(&self.charter, &self.founders[..2]);
        self.charters.push(signed.clone());
        signed
    }

    pub fn endpoints(&self) -> BTreeMap<String, String> {
        self.companies.iter().map(|c| (c.name.to_owned(), c.address.to_string())).collect()
    }

    pub async fn start(&mut self, index: usize) -> Node {
        let (endpoints, listener) = (self.endpoints(), self.listener(index).await);
        Node::start(self.companies[index].data.clone(), listener, endpoints).await
    }

    /// As [`Forum::start`], with the console served on an address of its own.
    pub async fn start_with_console(&mut self, index: usize) -> Node {
        let mut config = Config::default_in(self.companies[index].data.clone());
        config.web.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.peer.endpoints = self.endpoints();
        Node::start_with(config, self.listener(index).await).await
    }

    async fn listener(&mut self, index: usize) -> TcpListener {
        let company = &mut self.companies[index];
        match company.listener.take() {
            Some(listener) => TcpListener::from_std(listener).unwrap(),
            None => TcpListener::bind(company.address).await.unwrap(),
        }
    }

    pub async fn start_all(&mut self) -> Vec<Node> {
        let mut nodes = Vec::new();
        for index in 0..self.companies.len() {
            nodes.push(self.start(index).await);
        }
        nodes
    }
}

pub fn sign(charter: &proto::Charter, founders: &[SigningKey]) -> proto::SignedCharter {
    let body = charter.encode_to_vec();
    proto::SignedCharter { sigs: founders.iter().map(|k| sign_charter(k, &body)).collect(), body: body.into() }
}

/// One running node and a client of its local service.
pub struct Node {
    pub client: ForumClient<Channel>,
    /// Where the console is served, as in `http://127.0.0.1:7701`.
    pub console: Option<String>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), node::NodeError>>,
}

impl Node {
    pub async fn start(data: PathBuf, listener: TcpListener, endpoints: BTreeMap<String, String>) -> Self {
        let mut config = Config::default_in(data);
        config.web.listen = None;
        config.peer.endpoints = endpoints;
        Self::start_with(config, listener).await
    }

    pub async fn start_with(mut config: Config, listener: TcpListener) -> Self {
        config.peer.listen = listener.local_addr().unwrap();
        let socket = config.local.socket.clone();
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        #[expect(clippy::disallowed_methods, reason = "the node is stopped by its owner, below")]
        let mut task = tokio::spawn(node::run_on(listener, config, ready, async {
            stopped.await.ok();
        }));
        let console = tokio::select! {
            Ok(ready) = is_ready => ready.console,
            ended = &mut task => panic!("the node did not start: {:?}", ended.unwrap().map_err(|e| e.to_string())),
        };
        let channel = Endpoint::from_static("http://local").connect_with_connector_lazy(tower::service_fn(
            move |_: http::Uri| {
                let socket = socket.clone();
                async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
            },
        ));
        Self { client: ForumClient::new(channel), console, stop: Some(stop), task }
    }

    pub async fn stop(mut self) {
        self.halt().await;
    }

    /// Stops the node and waits until it has closed everything.
    pub async fn halt(&mut self) {
        self.stop.take().unwrap().send(()).ok();
        (&mut self.task).await.unwrap().unwrap();
    }

    /// Submits one statement and waits until it is signed.
    pub async fn say(&mut self, stance: l::Stance, kind: &str, value: &str) -> l::SubmitResponse {
        let statement = statement(stance, kind, value);
        let request = l::SubmitRequest { statements: vec![statement], ..Default::default() };
        self.client.submit(request).await.unwrap().into_inner()
    }

    pub async fn lookup(&mut self, kind: &str, value: &str) -> l::LookupResponse {
        let signal = l::Signal { r#type: kind.into(), value: value.into() };
        self.client.lookup(l::LookupRequest { signals: vec![signal], ..Default::default() }).await.unwrap().into_inner()
    }

    pub async fn status(&mut self) -> l::StatusResponse {
        self.client.status(l::StatusRequest {}).await.unwrap().into_inner()
    }

    /// Waits until this node and `other` hold and show the same.
    pub async fn agrees_with(&mut self, other: &mut Self) {
        wait_for!("two nodes agree", {
            let (a, b) = (self.status().await, other.status().await);
            a.heads.iter().map(|h| &h.header_hash).eq(b.heads.iter().map(|h| &h.header_hash))
                && a.view_digest == b.view_digest
        });
    }

    /// Numbers of the logs of our own that the node holds.
    pub async fn own_logs(&mut self) -> Vec<u32> {
        let status = self.status().await;
        status.heads.iter().filter(|h| h.member_id == status.member_id).map(|h| h.log_no).collect()
    }

    /// Waits until submissions are signed, not queued.
    pub async fn open(&mut self) {
        wait_for!("the startup guard has its answers", !self.status().await.guard_pending);
    }

    /// Waits until a lookup gives `verdict`.
    pub async fn expect(&mut self, verdict: l::Verdict, kind: &str, value: &str) -> l::LookupResponse {
        wait_for!(format!("{kind}:{value} gives {verdict:?}"), self.lookup(kind, value).await.verdict() == verdict);
        self.lookup(kind, value).await
    }
}

/// A SHA-256 value that stands for `n`.
pub fn hash(n: u64) -> String {
    staydown::replica::ids::hex(&staydown::replica::ids::sha256(&[b"example", &n.to_be_bytes()]))
}

pub fn statement(stance: l::Stance, kind: &str, value: &str) -> l::Statement {
    l::Statement {
        signal: Some(l::Signal { r#type: kind.into(), value: value.into() }),
        stance: stance.into(),
        labels: vec!["propaganda".into()],
        quality: if kind == "pdq" { 100 } else { 0 },
        ..Default::default()
    }
}
