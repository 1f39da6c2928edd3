//! Opens the store, rebuilds the replica, starts the engine, binds, serves; and the same in reverse.

mod reloads;
mod supervisor;

use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use futures_util::Stream;
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_stream::StreamExt as _;

pub use self::reloads::{Reload, Reloads, Underway};
use crate::access::{Access, AccessError};
use crate::clock;
use crate::config::{Config, WebConfig};
use crate::engine::{self, Handle, OpenError};
pub use crate::keys::KEYS_FOLDER;
use crate::keys::{
    self, CertificateTerms, KeyError, NodeKeys, RENEW_BEFORE_MS, TLS_CERT_FILE, TLS_KEY_FILE, TlsIdentity,
    refuse_example_keys, strict_unless_example,
};

use crate::net::calls::{Named, Side};
use crate::net::counted::Counted;
use crate::net::expiry;
use crate::net::follower::{self, Target};
use crate::net::limits::{self, MESSAGE_BYTES_MAX};
use crate::net::local::LocalService;
use crate::net::local::gate::Gate;
use crate::net::peer::{PeerService, Who};
use crate::net::readiness;
use crate::net::tls::{AcceptLimits, Connections, Roster, SharedRoster, Tls, accept_loop};
use crate::policy::harmless::{Harmless, HarmlessError};
use crate::policy::in_force::{PolicyError, Standing as PolicyStanding};
use crate::replica::charter::SEMANTICS_MAX;
use crate::replica::exchange::{Call, PeerEvent, Trouble};
use crate::replica::ids::{LogNo, MemberId};
use crate::replica::signal::Subject;
use crate::replica::{Input, Settings};
use crate::store::{DirectoryLock, LockError, lock_directory};
use crate::taxonomy::shelf::Shelf;
use crate::web::tls::WebTlsError;
use crate::web::{self, Web, WebTls};
use crate::wire::DESCRIPTORS;
use crate::wire::files::{FileError, Invitation};
use crate::wire::peer_service::peer_server::PeerServer;

/// Name of the invitation that the node was joined with.
pub const FORUM_FILE: &str = "forum.sdi";
/// Name of the file with our member id.
pub const MEMBER_FILE: &str = "member";
/// Name of the file in which a running node writes where peers reach it.
pub const PEER_ADDRESS_FILE: &str = "peer.addr";
/// Name of the file in which a running node writes where our own browsers and programs reach it.
pub const WEB_ADDRESS_FILE: &str = "web.addr";
/// How often the node looks at the files of its certificate: an operator who has changed them waits and watches, and to
/// look at two files costs nothing. SIGHUP makes it look at once.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(60);
/// How often the node looks whether the taxonomy's file is still as it wrote it: it needs it at the next start only.
const TAXONOMY_LOOK: Duration = Duration::from_secs(60);
/// How long a connection of a key that left the charter stays open after its last answer, so that its streams can say
/// why they end. It gets nothing else in this time, and it is a tenth of the second that a revocation may take.
const FAREWELL: Duration = Duration::from_millis(100);
/// Where groups have their numbers.
const GROUPS_FILE: &str = "/etc/group";
/// The replica's clock ticks this often.
const TICK: Duration = Duration::from_millis(100);

/// A node that serves.
#[derive(Clone)]
pub struct Ready {
    /// Where peers reach it.
    pub peer: SocketAddr,
    /// Where our own programs reach it.
    pub socket: PathBuf,
    /// Where our own browsers reach it, as in `http://127.0.0.1:7701`; none: nowhere.
    pub console: Option<String>,
    /// The local service itself, for a program that has the node inside it.
    pub service: LocalService,
    /// Who is asked at SIGHUP.
    pub reloads: Reloads,
}

/// Why a node cannot run.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum NodeError {
    #[error(transparent)]
    InUse(#[from] LockError),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("this node has not joined a forum yet: {0}")]
    NotJoined(FileError),
    #[error("the file {path} does not hold this node's member id", path = .0.display())]
    Member(PathBuf),
    #[error("our company {0} is not in charter {1}")]
    NotAdmitted(MemberId, u64),
    #[error("the log root key in keys/ is not the one that charter {0} lists for our company")]
    WrongRootKey(u64),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot listen for peers on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot listen on the local socket {path}: {source}", path = .path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("cannot give the local socket {path} to the group {group:?} (local.group): {source}", path = .path.display())]
    Group { path: PathBuf, group: String, source: io::Error },
    #[error("cannot write {path}: {source}", path = .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    #[error("cannot listen for our own browsers and programs on {address}: {source}")]
    Web { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    WebTls(#[from] WebTlsError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("the service ended: {0}")]
    Serve(String),
    #[error("storage failed: {0}")]
    Storage(String),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Harmless(#[from] HarmlessError),
}

impl NodeError {
    /// The process's exit code (EXPERIENCE.md).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::InUse(LockError::InUse { .. }) => 73,
            Self::InUse(_)
            | Self::Listen { .. }
            | Self::Web { .. }
            | Self::Socket { .. }
            | Self::Write { .. }
            | Self::Serve(_) => 74,
            Self::Open(OpenError::InUse(LockError::InUse { .. })) => 73,
            Self::Open(OpenError::Charter(_)) | Self::WrongRootKey(_) => 6,
            Self::Open(_) => 74,
            Self::Storage(_) => 75,
            Self::NotAdmitted(..) => 4,
            Self::Keys(_)
            | Self::NotJoined(_)
            | Self::Member(_)
            | Self::Tls(_)
            | Self::Group { .. }
            | Self::Policy(_)
            | Self::WebTls(_)
            | Self::Access(_)
            | Self::Harmless(_) => 78,
        }
    }

    /// What to do about it, if that is known.
    pub fn fix(&self) -> Option<&'static str> {
        match self {
            Self::InUse(LockError::InUse { .. }) => {
                Some("another node uses this data directory: stop it, or give --data")
            }
            Self::NotJoined(_) => Some("staydown join FILE, with the invitation of a founder"),
            Self::NotAdmitted(..) => Some("ask a founder to admit this node: staydown charter admit join-request.sdj"),
            Self::Web { .. } => Some("set another address, or none: web.listen = \"off\""),
            Self::Storage(_) => {
                Some("see the log, then start the node again: it heals what it can and says what it did")
            }
            _ => None,
        }
    }
}

/// Everything a node is made of, read and understood before anything opens.
struct Plan {
    keys: NodeKeys,
    settings: Settings,
    invitation: Invitation,
}

/// What our own company has decided, read before anything opens.
struct Ours {
    policy: Arc<PolicyStanding>,
    harmless: Arc<Harmless>,
    never_listed: BTreeSet<Subject>,
    web_tls: Option<WebTls>,
}

impl Ours {
    fn read(config: &Config) -> Result<Self, NodeError> {
        let policy = Arc::new(PolicyStanding::load(config)?);
        let harmless = Arc::new(Harmless::of(config.guard.harmless.clone()));
        let never_listed = harmless.read()?;
        let web_tls = match (&config.web.certificate, &config.web.key) {
            (Some(certificate), Some(key)) => Some(WebTls::read(certificate, key)?),
            _ => None,
        };
        Ok(Self { policy, harmless, never_listed, web_tls })
    }
}

/// Who this node is, read from its data directory: for [`run`] and for checks of a stopped node.
///
/// # Errors
/// What is missing or does not hold.
pub fn identity(data: &Path) -> Result<(Settings, Invitation), NodeError> {
    plan(data).map(|plan| (plan.settings, plan.invitation))
}

fn plan(data: &Path) -> Result<Plan, NodeError> {
    let invitation = Invitation::read(&data.join(FORUM_FILE)).map_err(NodeError::NotJoined)?;
    let folder = data.join(KEYS_FOLDER);
    TlsIdentity::finish_change(&folder)?;
    let keys = strict_unless_example(|permissions| NodeKeys::load_with(&folder, permissions))?;
    let path = data.join(MEMBER_FILE);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let id = data_encoding::HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok();
    let me = id.and_then(|id| MemberId::from_slice(&id)).ok_or(NodeError::Member(path))?;
    let settings = Settings {
        me,
        root: keys.root.clone(),
        log_seed: *keys.log_seed,
        seed: u64::from_be_bytes(clock::random()),
        rules: Default::default(),
        instance: u64::from_be_bytes(clock::random()),
        moved: false,
        closed_below: LogNo(0),
        semantics_max: SEMANTICS_MAX,
    };
    Ok(Plan { keys, settings, invitation })
}

/// Runs a node until `shutdown`; tells `ready` when it serves.
///
/// # Errors
/// [`NodeError`], with an exit code and often a cure.
pub async fn run(
    config: Config,
    ready: oneshot::Sender<Ready>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let begun = Begun::with(config)?;
    let address = begun.config.peer.listen;
    let peer = TcpListener::bind(address).await.map_err(|source| NodeError::Listen { address, source })?;
    let web = bind_web(&begun.config).await?;
    run_locked(begun, Listeners { peer, web }, ready, shutdown).await
}

/// As [`run`], with a listener that is bound already.
///
/// # Errors
/// As [`run`].
pub async fn run_on(
    listener: TcpListener,
    config: Config,
    ready: oneshot::Sender<Ready>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let begun = Begun::with(config)?;
    let web = bind_web(&begun.config).await?;
    run_locked(begun, Listeners { peer: listener, web }, ready, shutdown).await
}

/// Where others come in by TCP, bound before the store is opened: that may take minutes, and a port that is taken is told
/// at once.
struct Listeners {
    peer: TcpListener,
    web: Option<TcpListener>,
}

async fn bind_web(config: &Config) -> Result<Option<TcpListener>, NodeError> {
    let Some(address) = config.web.listen else { return Ok(None) };
    TcpListener::bind(address).await.map(Some).map_err(|source| NodeError::Web { address, source })
}

/// What is read and held before anything is bound: two nodes in one folder have one address too, and the folder is what
/// the second must be told of.
struct Begun {
    config: Config,
    ours: Ours,
    access: Arc<Access>,
    plan: Plan,
    lock: DirectoryLock,
}

impl Begun {
    fn with(config: Config) -> Result<Self, NodeError> {
        let ours = Ours::read(&config)?;
        let plan = plan(&config.data)?;
        let lock = lock_directory(&config.data)?;
        let access = Arc::new(Access::open(&config.data)?);
        Ok(Self { config, ours, access, plan, lock })
    }
}

async fn run_locked(
    begun: Begun,
    listeners: Listeners,
    ready: oneshot::Sender<Ready>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let Begun { config, ours, access, plan, lock: _lock } = begun;
    let fail = |source| NodeError::Listen { address: config.peer.listen, source };
    refuse_example_keys(plan.keys.tls.pin(), listeners.peer.local_addr().map_err(fail)?)?;
    // From here on SIGHUP asks for a reload; it would end the process otherwise, and a start may take minutes.
    let hangups = signal(SignalKind::hangup()).map_err(|e| NodeError::Serve(format!("cannot await SIGHUP: {e}")))?;
    let plan = renew_certificate(plan, &config.data)?;
    let (engine, started, thread) = open(&plan, &config.data)?;
    let (plan, engine, started, thread) = match adopted(&plan, &config.data, &engine)? {
        None => (plan, engine, started, thread),
        // Which key the charter names is known only when the charters on disk were read. Under the old one nothing was
        // signed yet: the startup guard has had no answer.
        Some(plan) => {
            stopped(engine, thread).await?;
            let (engine, started, thread) = open(&plan, &config.data)?;
            (plan, engine, started, thread)
        }
    };
    for healed in &started.healed {
        tracing::warn!(healed, "healed at start");
    }
    tracing::info!(blocks = started.blocks, "replica rebuilt");
    let served = serve(listeners, (&config, ours, access), &plan, &engine, ready, (hangups, shutdown)).await;
    stopped(engine, thread).await?;
    served
}

fn open(plan: &Plan, data: &Path) -> Result<(Handle, engine::Started, std::thread::JoinHandle<()>), NodeError> {
    let (settings, invitation) = (plan.settings.clone(), &plan.invitation);
    let runtime = tokio::runtime::Handle::current();
    Ok(engine::start(data, settings, invitation.forum, &invitation.charters, runtime)?)
}

async fn stopped(engine: Handle, thread: std::thread::JoinHandle<()>) -> Result<(), NodeError> {
    engine.stop().await;
    // The engine's thread ends after what is on its queue; waiting for it lets the store close.
    if tokio::task::spawn_blocking(move || thread.join()).await.is_ok_and(|joined| joined.is_err()) {
        return Err(NodeError::Serve("the engine panicked: please report this".into()));
    }
    Ok(())
}

/// The plan under the log root key that the charter names by now, if that is another one of ours.
fn adopted(plan: &Plan, data: &Path, engine: &Handle) -> Result<Option<Plan>, NodeError> {
    let listed = {
        let replica = engine.shared().replica();
        replica.charters().effective().member(plan.settings.me).map(|member| member.root_key)
    };
    let Some(listed) = listed.filter(|listed| *listed != plan.settings.root.verifying_key()) else { return Ok(None) };
    if keys::adopt_root(&data.join(KEYS_FOLDER), &listed)?.is_none() {
        return Ok(None);
    }
    tracing::info!("the charter lists the next log root key: it is in use from now on");
    self::plan(data).map(Some)
}

fn renew_certificate(plan: Plan, data: &Path) -> Result<Plan, NodeError> {
    match renewed(&plan.keys.tls, data)? {
        Some(tls) => Ok(Plan { keys: NodeKeys { tls, ..plan.keys }, ..plan }),
        None => Ok(plan),
    }
}

/// A certificate under the same key, if the one we have is due for renewal: the pin stays, no charter is needed.
fn renewed(tls: &TlsIdentity, data: &Path) -> Result<Option<TlsIdentity>, KeyError> {
    let now = clock::now();
    if !tls.renewal_due(now) {
        return Ok(None);
    }
    let renewed = tls.renew_in(&data.join(KEYS_FOLDER), &CertificateTerms::usual("staydown node", now))?;
    tracing::info!("certificate renewed under the same key");
    Ok(Some(renewed))
}

/// Takes the key that is to follow into use, if it is there and the charter lists it for us.
fn adopt_next(data: &Path, roster: &Roster, me: MemberId) -> Result<Option<TlsIdentity>, KeyError> {
    let folder = data.join(KEYS_FOLDER);
    let next = strict_unless_example(|permissions| TlsIdentity::load_next(&folder, permissions))?;
    let Some(next) = next.filter(|next| roster.member_of(&next.pin()) == Some(me)) else { return Ok(None) };
    TlsIdentity::adopt_next(&folder)?;
    tracing::info!(pin = %next.pin(), "the charter lists the next TLS key: it is in use from now on");
    Ok(Some(next))
}

/// What is needed to keep key and certificate at what the files and the charter say, without a restart.
struct Identity {
    data: PathBuf,
    me: MemberId,
    tls: Tls,
    /// Moves when another key is shown.
    keys: watch::Sender<u64>,
    /// The files as they were when they were last read.
    seen: Option<FilesSeen>,
    /// The stage of [`expiry::DAYS`] that was said last.
    warned: usize,
}

/// When key and certificate were last written, and how long they are.
type FilesSeen = [Option<(SystemTime, u64)>; 2];

impl Identity {
    /// A look at the files. Whatever is wrong with them, what is shown goes on being shown.
    fn look(&mut self, again: bool) {
        let roster = self.tls.roster().load_full();
        match adopt_next(&self.data, &roster, self.me) {
            Ok(None) => {}
            Ok(Some(next)) => self.show(&next),
            Err(error) => tracing::warn!(%error, "the next TLS key cannot be taken into use; the old one stays"),
        }
        let seen = self.files();
        if again || self.seen != Some(seen) {
            self.seen = Some(seen);
            self.reload(&roster);
        }
        self.warn_of_the_end();
    }

    /// Shows what is in the files, renewed if it is due.
    fn reload(&mut self, roster: &Roster) {
        let folder = self.data.join(KEYS_FOLDER);
        let loaded = strict_unless_example(|permissions| TlsIdentity::load(&folder, permissions));
        let loaded = loaded.and_then(|ours| Ok(renewed(&ours, &self.data)?.unwrap_or(ours)));
        self.seen = Some(self.files());
        match loaded {
            Ok(ours) if ours.facts() == self.tls.facts() => {}
            // The peers would refuse it. If the one that is shown is not listed either, nothing is lost.
            Ok(ours) if roster.member_of(&ours.pin()) != Some(self.me) && ours.pin() != self.tls.facts().pin => {
                tracing::warn!(
                    pin = %ours.pin(), expected = %self.tls.facts().pin,
                    "the key in keys/ is not in the charter and is not taken into use; put the old one back, or have it listed first: staydown key rotate --tls"
                );
            }
            Ok(ours) => {
                tracing::info!(pin = %ours.pin(), "another certificate is in use from now on");
                self.show(&ours);
            }
            Err(error) => tracing::warn!(%error, "the certificate in keys/ is not taken into use; the old one stays"),
        }
    }

    fn show(&self, identity: &TlsIdentity) {
        let key_changes = identity.pin() != self.tls.facts().pin;
        match self.tls.replace_identity(identity) {
            Ok(()) if key_changes => self.keys.send_modify(|n| *n += 1),
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "TLS does not take the certificate; the old one stays"),
        }
    }

    /// A certificate is due long before it ends, so that the files need not have changed.
    fn renewal_due(&self) -> bool {
        clock::now().plus(RENEW_BEFORE_MS) > self.tls.facts().not_after
    }

    fn warn_of_the_end(&mut self) {
        let (until, now) = (self.tls.facts().not_after, clock::now());
        let stage = expiry::stage(until, now);
        if stage > self.warned
            && let Some((_, reason)) = expiry::of_ours(until, now)
        {
            tracing::warn!("{reason}");
        }
        self.warned = stage;
    }

    fn files(&self) -> FilesSeen {
        let folder = self.data.join(KEYS_FOLDER);
        [TLS_KEY_FILE, TLS_CERT_FILE].map(|name| {
            let file = fs::metadata(folder.join(name)).ok()?;
            Some((file.modified().ok()?, file.len()))
        })
    }
}

/// Renews the certificate, takes up what the operator changed, and changes the key when the charter says so.
/// Connections that are up keep what they were made with.
async fn keep_identity(
    mut identity: Identity,
    mut rosters: watch::Receiver<u64>,
    mut reload: Reload,
    stopped: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let mut interval = tokio::time::interval(CERTIFICATE_LOOK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tokio::pin!(stopped);
    loop {
        let (again, underway) = tokio::select! {
            () = &mut stopped => return Ok(()),
            underway = reload.asked() => (true, Some(underway)),
            _ = interval.tick() => (identity.renewal_due(), None),
            changed = rosters.changed() => if changed.is_err() { return Ok(()) } else { (false, None) },
        };
        identity = tokio::task::spawn_blocking(move || {
            identity.look(again);
            identity
        })
        .await
        .map_err(|error| NodeError::Serve(format!("{error}: please report this")))?;
        drop(underway);
    }
}

/// Reads the policy again at each SIGHUP, and understands its labels anew when the forum's taxonomy changes. A file that
/// cannot be used changes nothing, and health says so.
async fn keep_policy(
    policy: Arc<PolicyStanding>,
    taxonomies: Arc<Shelf>,
    mut reload: Reload,
    stopped: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let mut changes = taxonomies.changes();
    let mut look = tokio::time::interval(TAXONOMY_LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tokio::pin!(stopped);
    loop {
        let _underway = tokio::select! {
            () = &mut stopped => return Ok(()),
            underway = reload.asked() => underway,
            Ok(()) = changes.changed() => {
                go_by(&policy, &taxonomies);
                continue;
            }
            _ = look.tick() => {
                mend(Arc::clone(&taxonomies)).await;
                continue;
            }
        };
        let standing = Arc::clone(&policy);
        let read = tokio::task::spawn_blocking(move || standing.reload()).await;
        match read.map_err(|error| NodeError::Serve(format!("{error}: please report this")))? {
            Ok(now) => {
                let (rules, file) =
                    (now.policy.rules().len(), now.file.as_ref().map(|path| path.display().to_string()));
                tracing::info!(rules, file = file.as_deref().unwrap_or("built in"), "the policy was read");
                for warning in now.policy.warnings() {
                    tracing::warn!(%warning, "the policy is odd");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the policy file is not taken into use; the one before stays in force");
            }
        }
    }
}

/// Reads the harmless hashes again at each SIGHUP. A file that cannot be used changes nothing, and health says so.
async fn keep_harmless(
    harmless: Arc<Harmless>,
    engine: Handle,
    mut reload: Reload,
    stopped: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    tokio::pin!(stopped);
    loop {
        let _underway = tokio::select! {
            () = &mut stopped => return Ok(()),
            underway = reload.asked() => underway,
        };
        let file = Arc::clone(&harmless);
        let read = tokio::task::spawn_blocking(move || file.read()).await;
        match read.map_err(|error| NodeError::Serve(format!("{error}: please report this")))? {
            Ok(subjects) => {
                tracing::info!(hashes = subjects.len(), "the harmless hashes were read");
                never_list(&engine, subjects).await?;
            }
            Err(error) => {
                tracing::warn!(%error, "the harmless hashes are not taken into use; those from before stay");
            }
        }
    }
}

/// Reads the certificate of the console again at each SIGHUP. Files that cannot be used change nothing.
async fn keep_web_tls(
    tls: Option<WebTls>,
    mut reload: Reload,
    stopped: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let Some(tls) = tls else {
        drop(reload);
        stopped.await;
        return Ok(());
    };
    tokio::pin!(stopped);
    loop {
        let _underway = tokio::select! {
            () = &mut stopped => return Ok(()),
            underway = reload.asked() => underway,
        };
        let files = tls.clone();
        let read = tokio::task::spawn_blocking(move || files.reload()).await;
        match read.map_err(|error| NodeError::Serve(format!("{error}: please report this")))? {
            Ok(()) => tracing::info!("the certificate of the console was read"),
            Err(error) => tracing::warn!(%error, "the certificate of the console is not taken up; the old one stays"),
        }
    }
}

/// At each SIGHUP asks everybody to read again what they go by; the service manager is told when it begins and when all
/// have done it.
async fn keep_reloading(
    reloads: Reloads,
    mut hangups: Signal,
    service: LocalService,
    stopped: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            () = &mut stopped => return Ok(()),
            _ = hangups.recv() => {}
        }
        supervisor::reloading();
        tokio::select! {
            () = &mut stopped => return Ok(()),
            () = reloads.ask_all() => {}
        }
        supervisor::ready(&readiness::sentence(&service.state()));
    }
}

async fn never_list(engine: &Handle, subjects: BTreeSet<Subject>) -> Result<(), NodeError> {
    let told = engine.input(Input::Harmless(Arc::new(subjects))).await;
    told.map_err(|failed| NodeError::Storage(failed.to_string()))
}

/// Labels of the policy are those of the forum's taxonomy; what the taxonomy does not have is told.
fn go_by(policy: &PolicyStanding, taxonomies: &Shelf) {
    policy.go_by(&taxonomies.taxonomy());
    for warning in policy.in_force().policy.warnings() {
        tracing::warn!(%warning, "the policy is odd");
    }
}

/// Writes the taxonomy's file again if it has been deleted or changed under a running node.
async fn mend(taxonomies: Arc<Shelf>) {
    match tokio::task::spawn_blocking(move || taxonomies.mend()).await {
        Ok(Ok(true)) => tracing::warn!("the taxonomy's file was gone or damaged; it was written again"),
        Ok(Ok(false)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the taxonomy's file cannot be written"),
        Err(error) => tracing::error!(%error, "please report this"),
    }
}

/// The file that came with the invitation, if it is the one that is missing.
fn take_invited(engine: &Handle, invitation: &Invitation) {
    let taxonomies = engine.shared().taxonomies();
    if taxonomies.wanted().is_some()
        && !invitation.taxonomy.is_empty()
        && let Err(error) = taxonomies.take(&invitation.taxonomy)
    {
        tracing::debug!(%error, "the invitation's taxonomy is not the one in force");
    }
}

async fn serve(
    Listeners { peer: listener, web: web_listener }: Listeners,
    (config, Ours { policy, harmless, never_listed, web_tls }, access): (&Config, Ours, Arc<Access>),
    plan: &Plan,
    engine: &Handle,
    ready: oneshot::Sender<Ready>,
    (hangups, shutdown): (Signal, impl Future<Output = ()>),
) -> Result<(), NodeError> {
    am_i_listed(engine, &plan.settings)?;
    take_invited(engine, &plan.invitation);
    let roster: SharedRoster = Arc::new(ArcSwap::from_pointee(roster(engine)));
    let next = adopt_next(&config.data, &roster.load(), plan.settings.me)?;
    let identity = next.as_ref().unwrap_or(&plan.keys.tls);
    let tls = Tls::new(identity, Arc::clone(&roster)).map_err(|e| NodeError::Tls(e.to_string()))?;
    let connections = Connections::default();
    let address = listener.local_addr().map_err(|source| NodeError::Listen { address: config.peer.listen, source })?;
    let socket = bind_socket(config)?;
    write_address(&config.data, PEER_ADDRESS_FILE, address)?;
    let web_address = web_listener.as_ref().and_then(|listener| listener.local_addr().ok());
    if let Some(address) = web_address {
        write_address(&config.data, WEB_ADDRESS_FILE, address)?;
    }
    let console = web_address.map(|address| console_at(&config.web, address));

    let (stop, stopped) = watch::channel(false);
    let until_stopped = |mut stopped: watch::Receiver<bool>| async move {
        drop(stopped.wait_for(|stop| *stop).await); // a sender that is gone means stop, too
    };
    let mut tasks = JoinSet::new();
    let incoming = accept_loop(
        listener,
        tls.clone(),
        connections.clone(),
        AcceptLimits::default(),
        until_stopped(stopped.clone()),
    );
    let (rosters, _) = watch::channel(0);
    let who = Who { roster: Arc::clone(&roster), changes: rosters.subscribe(), connections: connections.clone() };
    let service = PeerService::new(engine.clone(), who, stopped.clone());
    let peers = PeerServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let peers = Named::new(peers, Side::Peer, Arc::clone(engine.shared().meters()));
    let peers =
        limits::server().add_service(peers).serve_with_incoming_shutdown(incoming, until_stopped(stopped.clone()));
    tasks.spawn(async move { peers.await.map_err(|e| NodeError::Serve(e.to_string())) });
    let local =
        LocalService::new(engine.clone(), plan.settings.clone(), address.to_string(), config.peer.endpoints.clone())
            .with_lines(tls.clone(), connections.clone())
            .with_stop(stopped.clone())
            .with_policy(Arc::clone(&policy))
            .with_harmless(Arc::clone(&harmless))
            .with_access(access, console.clone());
    let taxonomies = Arc::clone(engine.shared().taxonomies());
    // Before anybody can ask.
    go_by(&policy, &taxonomies);
    let reloads = Reloads::default();
    tasks.spawn(keep_policy(policy, taxonomies, reloads.subscribe(), until_stopped(stopped.clone())));
    never_list(engine, never_listed).await?;
    tasks.spawn(keep_harmless(harmless, engine.clone(), reloads.subscribe(), until_stopped(stopped.clone())));
    if let Some(listener) = web_listener {
        let limits = web::Limits { drain: config.run.drain, ..web::Limits::default() };
        let web = Web::new(local.clone(), &config.web, limits);
        let served = web::serve(listener, web_tls.clone(), web, until_stopped(stopped.clone()));
        tasks.spawn(async move { served.await.map_err(|e| NodeError::Serve(e.to_string())) });
    }
    tasks.spawn(keep_web_tls(web_tls, reloads.subscribe(), until_stopped(stopped.clone())));
    tasks.spawn(serve_local(local.clone(), socket, stopped.clone(), until_stopped(stopped.clone())));
    tasks.spawn(keep_reloading(reloads.clone(), hangups, local.clone(), until_stopped(stopped.clone())));
    let told = supervisor::keep_told(local.clone(), engine.clone(), until_stopped(stopped.clone()));
    tasks.spawn(async move {
        told.await;
        Ok(())
    });
    let (keys, key_changes) = watch::channel(0);
    tasks.spawn(keep_identity(
        Identity { data: config.data.clone(), me: plan.settings.me, tls: tls.clone(), keys, seen: None, warned: 0 },
        rosters.subscribe(),
        reloads.subscribe(),
        until_stopped(stopped.clone()),
    ));
    let followers = Followers { engine: engine.clone(), tls, config: config.clone(), running: Vec::new() };
    tasks.spawn(follow_roster(followers, roster, rosters, key_changes, connections, until_stopped(stopped.clone())));
    tasks.spawn(tick(engine.clone(), until_stopped(stopped)));

    supervisor::ready(&readiness::sentence(&local.state()));
    let socket = config.local.socket.clone();
    // Whoever waits for us may have gone.
    drop(ready.send(Ready { peer: address, socket, console, service: local, reloads }));
    tokio::pin!(shutdown);
    let outcome = tokio::select! {
        () = &mut shutdown => Ok(()),
        Some(ended) = tasks.join_next() => flatten(ended).and_then(|()| Err(NodeError::Serve("a task ended by itself".into()))),
    };
    stop.send_replace(true);
    let drain = config.run.drain;
    supervisor::stopping(&format!("stopping, within {} s", drain.as_secs()));
    let drained = tokio::time::timeout(drain, async { while tasks.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(after_s = drain.as_secs(), "stopped with calls still under way (run.drain_seconds)");
    }
    remove(&config.local.socket);
    remove(&config.data.join(PEER_ADDRESS_FILE));
    if web_address.is_some() {
        remove(&config.data.join(WEB_ADDRESS_FILE));
    }
    outcome
}

fn flatten(ended: Result<Result<(), NodeError>, tokio::task::JoinError>) -> Result<(), NodeError> {
    ended.unwrap_or_else(|error| Err(NodeError::Serve(format!("{error}: please report this"))))
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!(path = %path.display(), %error, "not removed");
    }
}

fn am_i_listed(engine: &Handle, settings: &Settings) -> Result<(), NodeError> {
    let replica = engine.shared().replica();
    let charter = replica.charters().effective();
    let member = charter.member(settings.me).ok_or(NodeError::NotAdmitted(settings.me, charter.version))?;
    if member.root_key == settings.root.verifying_key() {
        Ok(())
    } else {
        Err(NodeError::WrongRootKey(charter.version))
    }
}

fn roster(engine: &Handle) -> Roster {
    Roster::new(engine.shared().replica().listed())
}

fn bind_socket(config: &Config) -> Result<UnixListener, NodeError> {
    let path = &config.local.socket;
    let fail = |source| NodeError::Socket { path: path.clone(), source };
    if path.exists() {
        // The directory's lock is ours, so a socket that is still there is a leftover of a node that was killed.
        fs::remove_file(path).map_err(fail)?;
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    // The group first: the mode must not let in the one that it had before.
    if let Some(name) = &config.local.group {
        let refuse = |source| NodeError::Group { path: path.clone(), group: name.clone(), source };
        let group = group_number(name, Path::new(GROUPS_FILE)).map_err(refuse)?;
        std::os::unix::fs::chown(path, None, Some(group)).map_err(refuse)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(config.local.mode)).map_err(fail)?;
    Ok(listener)
}

/// The number of the group called `name`, or that is named by its number.
fn group_number(name: &str, groups: &Path) -> io::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let text = fs::read_to_string(groups)?;
    // NAME:PASSWORD:NUMBER:MEMBERS
    let line = text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name);
    let number = line.and_then(|fields| fields.get(2)?.parse().ok());
    let missing =
        || format!("{} has no group {name:?}; a group from elsewhere is named by its number", groups.display());
    number.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, missing()))
}

/// How people on this machine, or those whom the settings name first, reach the console on `address`.
fn console_at(web: &WebConfig, address: SocketAddr) -> String {
    let (scheme, port) = (web.scheme(), address.port());
    match web.hosts.first() {
        // The name is that of the proxy that ends TLS, and our port is none of its.
        Some(host) if web.allow_plaintext && web.certificate.is_none() => format!("https://{host}"),
        Some(host) => format!("{scheme}://{host}:{port}"),
        None if address.ip().is_unspecified() => format!("{scheme}://127.0.0.1:{port}"),
        None => format!("{scheme}://{address}"),
    }
}

fn write_address(data: &Path, name: &str, address: SocketAddr) -> Result<(), NodeError> {
    let path = data.join(name);
    let temporary = data.join(format!("{name}.new"));
    let written = fs::write(&temporary, address.to_string()).and_then(|()| fs::rename(&temporary, &path));
    written.map_err(|source| NodeError::Write { path, source })
}

/// The local service with health and reflection (v1 and v1alpha): on the Unix socket only.
async fn serve_local(
    service: LocalService,
    socket: UnixListener,
    stop: watch::Receiver<bool>,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> Result<(), NodeError> {
    let reflection =
        || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
    let fail = |e: tonic_reflection::server::Error| NodeError::Serve(e.to_string());
    let open = service.meters().local_open.clone();
    let connections = accepted(socket, stop).map(move |accepted| accepted.map(|line| Counted::new(line, open.guard())));
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<crate::wire::local_service::forum_server::ForumServer<Gate>>().await;
    tonic::transport::Server::builder()
        .max_concurrent_streams(limits::LOCAL_STREAMS_MAX)
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(fail)?)
        .add_service(reflection().build_v1alpha().map_err(fail)?)
        .add_service(service.into_server())
        .serve_with_incoming_shutdown(connections, stopped)
        .await
        .map_err(|e| NodeError::Serve(e.to_string()))
}

/// The connections of `listener`. It is closed when `stop` becomes true: who comes later is refused, and does not wait for
/// nobody.
fn accepted(listener: UnixListener, stop: watch::Receiver<bool>) -> impl Stream<Item = io::Result<UnixStream>> {
    futures_util::stream::unfold((listener, stop), |(listener, mut stop)| async {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return None,
            accepted = listener.accept() => accepted,
        };
        Some((accepted.map(|(stream, _)| stream), (listener, stop)))
    })
}

async fn tick(engine: Handle, stopped: impl Future<Output = ()>) -> Result<(), NodeError> {
    tokio::pin!(stopped);
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut stopped => return Ok(()),
            _ = interval.tick() => {
                if let Err(failed) = engine.input(Input::Timer).await {
                    return Err(NodeError::Storage(failed.to_string()));
                }
            }
        }
    }
}

/// Our side of every peer, each with a task of its own.
struct Followers {
    engine: Handle,
    tls: Tls,
    config: Config,
    running: Vec<(Target, AbortHandle)>,
}

impl Followers {
    /// Stops who is not to be followed any more, or not in this way; all of them if our own key has changed.
    fn stop(&mut self, targets: &[Target], key_changed: bool) -> Vec<MemberId> {
        let mut ended = Vec::new();
        self.running.retain(|(target, task)| {
            let stays = !key_changed && targets.contains(target);
            if !stays {
                task.abort();
                ended.push(target.member);
            }
            stays
        });
        ended
    }

    fn start(&mut self, targets: Vec<Target>, tasks: &mut JoinSet<()>) {
        for target in targets {
            if !self.running.iter().any(|(t, _)| *t == target) {
                let asks = self.engine.shared().follow(target.member);
                let follow = follower::follow(target.clone(), self.engine.clone(), self.tls.clone(), asks);
                let task = tasks.spawn(follow);
                self.running.push((target, task));
            }
        }
    }
}

/// Keeps the TLS roster, the live connections and the followers at what the charter says, without a restart (I12).
///
/// It never waits for the engine: that may derive its view again for minutes, and a second revocation would wait.
async fn follow_roster(
    mut followers: Followers,
    shared: SharedRoster,
    rosters: watch::Sender<u64>,
    mut key_changes: watch::Receiver<u64>,
    connections: Connections,
    stopped: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let engine = followers.engine.clone();
    let mut changes = engine.shared().roster();
    let mut tasks = JoinSet::new();
    let mut key_changed = false;
    tokio::pin!(stopped);
    loop {
        changes.mark_unchanged();
        take_root(&engine, &followers.config.data, &mut tasks).await;
        let roster = Arc::new(roster(&engine));
        shared.store(Arc::clone(&roster));
        // From here on no handshake and no call of a key that left goes well; its streams end with the reason.
        rosters.send_modify(|n| *n += 1);
        let targets = targets(&engine, &followers.config);
        let ended = followers.stop(&targets, key_changed);
        let mut cut = followers.tls.cut_unlisted(&roster);
        if connections.any_unlisted(&roster) {
            tokio::time::sleep(FAREWELL).await;
            cut += connections.cut_unlisted(&roster);
        }
        if cut > 0 {
            tracing::info!(cut, "connections of keys that left the charter were closed");
        }
        while tasks.try_join_next().is_some() {}
        followers.start(targets, &mut tasks);
        // Whoever was stopped cannot say so, and the replica would wait for it for ever.
        for member in ended {
            let trouble = Trouble::Unreachable("its keys or endpoints, or our key, have changed".into());
            let input = Input::Peer(member, PeerEvent::Ended(Call::Follow, Err(trouble)));
            let engine = engine.clone();
            tasks.spawn(async move { drop(engine.input(input).await) });
        }
        key_changed = tokio::select! {
            () = &mut stopped => return Ok(()),
            changed = changes.changed() => if changed.is_err() { return Ok(()) } else { false },
            Ok(()) = key_changes.changed() => true,
        };
    }
}

/// Takes up the next log root key when the charter names it, while the node runs: what is said from then on goes into logs
/// that it opens.
async fn take_root(engine: &Handle, data: &Path, tasks: &mut JoinSet<()>) {
    let listed = {
        let replica = engine.shared().replica();
        let listed = replica.charters().effective().member(replica.me()).map(|member| member.root_key);
        listed.filter(|listed| *listed != replica.root_key())
    };
    let Some(listed) = listed else { return };
    let folder = data.join(KEYS_FOLDER);
    match tokio::task::spawn_blocking(move || keys::adopt_root(&folder, &listed)).await {
        Ok(Ok(Some(root))) => {
            tracing::info!("the charter lists the next log root key: it is in use from now on");
            let engine = engine.clone();
            // Not waited for: revocations come before whatever is on the engine's queue.
            tasks.spawn(async move { drop(engine.input(Input::Root(Box::new(root))).await) });
        }
        Ok(Ok(None)) => tracing::error!("the charter names a log root key that this node does not have"),
        Ok(Err(error)) => tracing::error!(%error, "the next log root key could not be taken up"),
        Err(error) => tracing::error!(%error, "please report this"),
    }
}

/// All other members that may connect; the operator's own endpoints override the charter's hints.
fn targets(engine: &Handle, config: &Config) -> Vec<Target> {
    let replica = engine.shared().replica();
    let me = replica.me();
    let listed: BTreeSet<_> = replica.listed().into_iter().map(|(_, member)| member).collect();
    let active = replica.charters().effective().active().filter(|m| m.id != me && listed.contains(&m.id));
    let target = |m: &crate::replica::charter::Member| Target {
        member: m.id,
        name: m.name.clone(),
        endpoints: config.peer.endpoints.get(&m.name).map_or_else(|| m.endpoints.clone(), |e| vec![e.clone()]),
        pins: m.pins.clone(),
    };
    active.map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_is_told_with_its_address() {
        let mut config = Config::default_in("/nowhere".into());
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        config.web.listen = taken.local_addr().ok();
        let error = bind_web(&config).await.unwrap_err();
        assert!(matches!(error, NodeError::Web { address, .. } if Some(address) == config.web.listen), "{error}");
        config.web.listen = None;
        assert!(bind_web(&config).await.unwrap().is_none(), "off");
    }

    #[test]
    fn the_console_is_where_people_reach_it() {
        let hosts = vec!["hashes.example.org".to_owned(), "acme.example.org".to_owned()];
        let plain = WebConfig::default();
        let named = WebConfig { hosts: hosts.clone(), ..WebConfig::default() };
        let proxied = WebConfig { hosts, allow_plaintext: true, ..WebConfig::default() };
        let nameless = WebConfig { allow_plaintext: true, ..WebConfig::default() };
        let own_tls = WebConfig { certificate: Some("console.cert.pem".into()), ..proxied.clone() };
        for (web, address, expected) in [
            (&plain, "127.0.0.1:7701", "http://127.0.0.1:7701"),
            (&plain, "[::1]:7701", "http://[::1]:7701"),
            (&named, "127.0.0.1:7701", "http://hashes.example.org:7701"),
            (&proxied, "0.0.0.0:7701", "https://hashes.example.org"),
            (&nameless, "0.0.0.0:7701", "http://127.0.0.1:7701"),
            (&own_tls, "0.0.0.0:7701", "https://hashes.example.org:7701"),
        ] {
            assert_eq!(console_at(web, address.parse().unwrap()), expected);
        }
    }

    #[test]
    fn a_group_is_known_by_name_or_number() {
        let folder = tempfile::tempdir().unwrap();
        let groups = folder.path().join("group");
        fs::write(&groups, "root:x:0:\nstaydown-users:x:1201:upload,acme\nbroken\n").unwrap();
        assert_eq!(group_number("staydown-users", &groups).unwrap(), 1201);
        assert_eq!(group_number("77", &groups).unwrap(), 77);
        for unknown in ["staydown", "broken", "upload"] {
            let error = group_number(unknown, &groups).unwrap_err();
            assert!(error.to_string().contains("named by its number"), "{error}");
        }
    }
}
