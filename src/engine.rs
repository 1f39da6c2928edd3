//! The engine owns the replica and the store. It takes inputs from a bounded queue, one thread, and carries out effects
//! in the one order that loses nothing: write, publish, answer (PROTOCOL W1).
//!
//! Lookups never queue behind it: they read the replica through a lock that the engine holds only while the replica
//! computes, never while it writes. Every write to disk happens outside the lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::{ControlFlow, Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Span;

use crate::clock;
use crate::matcher::Matcher;
use crate::meters::Meters;
use crate::replica::block::{Frame, RECORDS_PER_BLOCK_MAX, Slot};
use crate::replica::charter::{Applied, CharterChain, CharterError};
use crate::replica::exchange::{Ask, Call, PeerEvent, Published, Trouble};
use crate::replica::ids::{BlockId, Class, ForumId, LogNo, MemberId, Origin, Seq, TimeMs};
use crate::replica::log::Log;
use crate::replica::own::{Answer, Ticket};
use crate::replica::taxonomy::Taxonomy;
use crate::replica::{Effect, Input, Replica, Restore, Settings, Write, proto};
use crate::report::local::Counters;
use crate::store::SetAside;
use crate::store::journal::{Journal, JournalEnd, JournalError, salvage};
use crate::store::outbox::Outbox;
use crate::store::place::{Place, Stood};
use crate::store::{self, Store, StoreError, WRITE_OPERATIONS_MAX};
use crate::store::{DirectoryLock, LockError, disk_low, erase_set_aside, lock_directory};
use crate::taxonomy::shelf::Shelf;

mod progress;
mod snapshot;

use self::progress::Progress;
use self::snapshot::{Loaded, Snapshots};
pub use self::snapshot::{SNAPSHOT_FILE, SnapshotTerms};

/// Inputs that wait for the engine. Each is at most one frame (256 KiB), so this also bounds memory.
pub const QUEUE_MAX: usize = 32;
/// A process that nothing reaches for so long stood still, or its machine did: the timer comes ten times a second, and in much
/// less no other machine starts a node. Too low a value costs a question to the peers, no more.
const STOOD_STILL_MS: u64 = 10_000;
/// Inputs that one group commit covers.
const BATCH_MAX: usize = 32;
/// How long a submission waits for company before its block is signed (W2).
pub const LINGER_MS: u64 = 5;
/// Bytes of one write to the store; a commit of more is several writes before one "durable".
const WRITE_BYTES: usize = 8 << 20;
/// How long the engine waits for readers between two blocks: enough for a thread to wake up, a fifth of what the block
/// takes, so that readers who never cease cannot stop it.
const GIVE_WAY_MAX: Duration = Duration::from_micros(200);
/// Times that stored blocks are read in a row to derive the list: what they say of finality and suspensions is known
/// after the first, so a third changes nothing.
const REBUILDS_MAX: usize = 4;
/// Asks that wait for one follower: it has at most one call and one stream under way.
const ASKS_MAX: usize = 8;
/// Name of the own journal in the data directory.
pub use crate::store::place::JOURNAL_FILE;
/// Name of the outbox in the data directory.
pub const OUTBOX_FILE: &str = "outbox";
/// Left in the data directory by `restore`, until the next start has noticed.
pub const RESTORED_FILE: &str = "restored";
/// Holds the number below which our logs are never written again.
pub const CLOSED_BELOW_FILE: &str = "closed-below";
/// Name of the store's folder in the data directory.
pub const STORE_FOLDER: &str = "replica";

/// What waits for the engine.
enum Message {
    Input(Box<Input>),
    Submit(Class, Vec<Bytes>, Asker),
    Close(Option<[u8; 32]>, u32, Asker),
    Resubmit(bool, Asker),
    ApplyCharter(proto::SignedCharter, oneshot::Sender<Result<u64, CharterError>>),
    Stop,
}

/// Whoever waits for an answer, and the request in whose name it is logged.
struct Asker {
    sender: oneshot::Sender<Result<Answer, Failed>>,
    request: Span,
}

impl Asker {
    fn answer(self, answer: Result<Answer, Failed>) {
        self.request.in_scope(|| match &answer {
            Ok(Answer::Durable(receipts)) => {
                if let (Some(first), Some(last)) = (receipts.first(), receipts.last()) {
                    let records = receipts.len();
                    tracing::info!(block = %first.block, last = %last.block, records, "said: durable and published");
                }
            }
            Ok(Answer::Queued) => tracing::info!("queued until enough peers are heard"),
            Ok(Answer::Refused(refusal)) => tracing::info!(%refusal, "not said"),
            Err(failed) => tracing::warn!(%failed, "not answered"),
        });
        drop(self.sender.send(answer)); // whoever asked may have gone
    }
}

/// The engine failed to write: nothing further is acknowledged until the node is restarted (W3).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("storage failed: {0}; nothing more is accepted until the node is restarted, lookups go on")]
pub struct Failed(pub String);

/// What readers and the engine share.
pub struct Shared {
    replica: RwLock<Replica>,
    /// Readers that the engine keeps waiting.
    waiting: AtomicUsize,
    /// Grows with each step of the engine.
    beats: AtomicU64,
    matcher: Matcher,
    store: Store,
    data: PathBuf,
    failed: Mutex<Option<Failed>>,
    unsound: Mutex<Option<String>>,
    published: watch::Sender<Arc<Published>>,
    roster: watch::Sender<u64>,
    taxonomies: Arc<Shelf>,
    asks: Mutex<BTreeMap<MemberId, mpsc::Sender<Ask>>>,
    counters: Arc<Counters>,
    meters: Arc<Meters>,
}

impl Shared {
    /// The replica, to read. Hold it for microseconds.
    pub fn replica(&self) -> RwLockReadGuard<'_, Replica> {
        if let Ok(replica) = self.replica.try_read() {
            return replica;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let replica = self.replica.read().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        replica
    }

    /// The replica, to read, unless that would mean to wait.
    pub fn replica_if_free(&self) -> Option<RwLockReadGuard<'_, Replica>> {
        self.replica.try_read().ok()
    }

    /// Lets those in who wait to read: a thread that takes the lock again at once is faster than any that must wake up.
    fn give_way(&self) {
        let begun = clock::instant();
        while self.waiting.load(Ordering::SeqCst) > 0 && begun.elapsed() < GIVE_WAY_MAX {
            thread::yield_now();
        }
    }

    /// Grows as long as the engine's thread gets somewhere, ten times a second at least but while it writes to disk. That
    /// it stands still for longer than a write may take means that the engine hangs.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    fn replica_mut(&self) -> Writing<'_> {
        let replica = self.replica.write().unwrap_or_else(PoisonError::into_inner);
        Writing { replica: Some(replica), matcher: &self.matcher }
    }

    /// What lookups search.
    pub fn matcher(&self) -> &Matcher {
        &self.matcher
    }

    /// The blocks on disk.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What only this node knows of its work: numbers.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// What is counted of its work for those who watch it.
    pub fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Why nothing more is accepted, if that is so.
    pub fn failure(&self) -> Option<Failed> {
        lock(&self.failed).clone()
    }

    /// What on disk does not hold, as found since the start: the next one heals it.
    pub fn unsound(&self) -> Option<String> {
        lock(&self.unsound).clone()
    }

    /// What may be served, and a wake-up whenever it grows.
    pub fn published(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    /// A wake-up whenever members, pins or endpoints may have changed.
    pub fn roster(&self) -> watch::Receiver<u64> {
        self.roster.subscribe()
    }

    /// What labels mean under the charter in force.
    pub fn taxonomy(&self) -> Arc<Taxonomy> {
        self.taxonomies.taxonomy()
    }

    /// Where this node keeps its taxonomy.
    pub fn taxonomies(&self) -> &Arc<Shelf> {
        &self.taxonomies
    }

    /// Goes by the taxonomy of the charter in force. Before anybody is told of a charter, this is done.
    fn follow_taxonomy(&self) {
        let named = self.replica().charters().effective().taxonomy.clone();
        self.taxonomies.follow(&named);
    }

    /// The asks for the follower of `peer`, from now on.
    pub fn follow(&self, peer: MemberId) -> mpsc::Receiver<Ask> {
        let (sender, receiver) = mpsc::channel(ASKS_MAX);
        lock(&self.asks).insert(peer, sender);
        receiver
    }
}

/// The replica, to change. What that changed of the list is searched from the moment on at which this ends: before
/// anything is published or answered.
struct Writing<'a> {
    replica: Option<RwLockWriteGuard<'a, Replica>>,
    matcher: &'a Matcher,
}

impl Deref for Writing<'_> {
    type Target = Replica;

    fn deref(&self) -> &Replica {
        self.replica.as_deref().expect(HELD)
    }
}

impl DerefMut for Writing<'_> {
    fn deref_mut(&mut self) -> &mut Replica {
        self.replica.as_deref_mut().expect(HELD)
    }
}

/// Only `drop` takes the lock out.
const HELD: &str = "the lock is held until the end";

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let Some(mut replica) = self.replica.take() else { return };
        let (changes, ties) = (replica.take_changes(), replica.take_ties());
        drop(replica);
        self.matcher.apply(&changes, &ties);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A way to the engine; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    inputs: mpsc::Sender<Message>,
    shared: Arc<Shared>,
}

impl Handle {
    /// What can be read without asking.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Puts an input on the queue, waiting for room: that is the back-pressure.
    ///
    /// # Errors
    /// [`Failed`] when the engine has stopped.
    pub async fn input(&self, input: Input) -> Result<(), Failed> {
        self.inputs
            .send(Message::Input(Box::new(input)))
            .await
            .map_err(|_closed| Failed("the engine has stopped".into()))
    }

    /// Signs and shares records, or queues or refuses them. All are accepted or none is.
    ///
    /// # Errors
    /// [`Failed`]: whether the records are durable is not known; they were not acknowledged.
    pub async fn submit(&self, class: Class, records: Vec<Bytes>) -> Result<Answer, Failed> {
        self.begin_submission(class, records).await?.answer().await
    }

    /// As [`Handle::submit`], up to the place on the queue: what is begun later is carried out later, though its answer
    /// is not waited for.
    ///
    /// # Errors
    /// [`Failed`]: nothing was begun.
    pub async fn begin_submission(&self, class: Class, records: Vec<Bytes>) -> Result<Asked, Failed> {
        self.put(|answer| Message::Submit(class, records, answer)).await
    }

    /// Ends the logs that this node writes; new ones have keys from `next_seed`, if there is one.
    ///
    /// # Errors
    /// [`Failed`] as for [`Handle::submit`].
    pub async fn close_logs(&self, next_seed: Option<[u8; 32]>, reason: u32) -> Result<Answer, Failed> {
        self.ask(|answer| Message::Close(next_seed, reason, answer)).await
    }

    /// Says again what stands in blocks of ours that do not count any more, as far as it is still our word: blocks of
    /// our journal, and with `from_peers` those that peers gave back, which a thief of our keys may have signed.
    ///
    /// # Errors
    /// [`Failed`] as for [`Handle::submit`].
    pub async fn resubmit(&self, from_peers: bool) -> Result<Answer, Failed> {
        self.ask(|answer| Message::Resubmit(from_peers, answer)).await
    }

    async fn ask(&self, message: impl FnOnce(Asker) -> Message) -> Result<Answer, Failed> {
        self.put(message).await?.answer().await
    }

    async fn put(&self, message: impl FnOnce(Asker) -> Message) -> Result<Asked, Failed> {
        if let Some(failed) = self.shared.failure() {
            return Err(failed);
        }
        let (sender, answer) = oneshot::channel();
        let asker = Asker { sender, request: Span::current() };
        self.inputs.send(message(asker)).await.map_err(|_closed| stopped(&self.shared))?;
        Ok(Asked { answer, shared: Arc::clone(&self.shared) })
    }

    /// Applies a charter.
    ///
    /// # Errors
    /// Why it does not count.
    pub async fn apply_charter(&self, charter: proto::SignedCharter) -> Result<Result<u64, CharterError>, Failed> {
        let (sender, answer) = oneshot::channel();
        let stopped = |_| Failed("the engine has stopped".into());
        self.inputs.send(Message::ApplyCharter(charter, sender)).await.map_err(|_closed| stopped(()))?;
        answer.await.map_err(|_dropped| stopped(()))
    }

    /// Ends the engine after everything that is on the queue.
    pub async fn stop(&self) {
        // An engine that has stopped already is what was asked for.
        drop(self.inputs.send(Message::Stop).await);
    }
}

/// Something that stands on the engine's queue.
pub struct Asked {
    answer: oneshot::Receiver<Result<Answer, Failed>>,
    shared: Arc<Shared>,
}

impl Asked {
    /// What became of it.
    ///
    /// # Errors
    /// [`Failed`]: whether the records are durable is not known; they were not acknowledged.
    pub async fn answer(self) -> Result<Answer, Failed> {
        self.answer.await.map_err(|_dropped| stopped(&self.shared))?
    }
}

fn stopped(shared: &Shared) -> Failed {
    shared.failure().unwrap_or_else(|| Failed("the engine has stopped".into()))
}

/// What a start found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Started {
    /// What was wrong on disk and what became of it, in sentences.
    pub healed: Vec<String>,
    /// Blocks read back and verified.
    pub blocks: u64,
}

/// Why the data directory cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The journal or the outbox cannot be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another process uses the directory.
    #[error(transparent)]
    InUse(#[from] LockError),
    /// The charters do not hold.
    #[error("the forum's charters do not hold: {0}")]
    Charter(#[from] CharterError),
    /// Where the directory stands cannot be read or written.
    #[error("cannot tell whether {} was moved: {source}", path.display())]
    Place {
        /// The data directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The engine's thread cannot be started.
    #[error("cannot start the engine: {0}")]
    Thread(io::Error),
}

/// Opens the data directory, rebuilds the replica from it, and starts the engine's thread.
///
/// # Errors
/// [`OpenError`] for what is not damage; damage is set aside, and what it held is rebuilt from the journal and the peers.
pub fn start(
    data: &Path,
    settings: Settings,
    forum: ForumId,
    charters: &[proto::SignedCharter],
    runtime: tokio::runtime::Handle,
) -> Result<(Handle, Started, thread::JoinHandle<()>), OpenError> {
    start_with(data, settings, forum, charters, runtime, SnapshotTerms::default())
}

/// As [`start`], with a snapshot made on other terms.
///
/// # Errors
/// As [`start`].
pub fn start_with(
    data: &Path,
    settings: Settings,
    forum: ForumId,
    charters: &[proto::SignedCharter],
    runtime: tokio::runtime::Handle,
    terms: SnapshotTerms,
) -> Result<(Handle, Started, thread::JoinHandle<()>), OpenError> {
    let now = clock::now();
    let mut started = Started::default();
    let settings = where_it_stands(data, settings, &mut started)?;
    let moved = settings.moved;
    let (journal, mut replay) = Journal::open(&data.join(JOURNAL_FILE))?;
    let (outbox, waiting, outbox_end) = Outbox::open(&data.join(OUTBOX_FILE))?;
    let with =
        |unread| OnDisk::read(data, settings.clone(), (forum, charters.to_vec()), (now, waiting.clone()), unread);
    let on_disk = match snapshot::may_be_there(data).then(|| with(true)) {
        Some(Ok(on_disk)) if on_disk.is_whole => on_disk,
        Some(Err(error)) if !matches!(&error, OpenError::Store(error) if error.is_damage()) => return Err(error),
        found => {
            if found.is_some() {
                snapshot::discard(data);
            }
            drop(found); // and with it the store, which is opened again
            with(false)?
        }
    };
    let OnDisk { store, aside, mut restore, dropped, loaded, notes, .. } = on_disk;
    if let Some(aside) = aside {
        started.healed.push(format!(
            "the store was damaged ({}) and is now {}; {} blocks could still be read, the rest comes from our journal and the peers",
            aside.reason,
            aside.moved_to.display(),
            aside.salvaged_blocks
        ));
    }
    match &replay.end {
        JournalEnd::Clean | JournalEnd::Missing => {}
        JournalEnd::TornTail { dropped_bytes } => {
            started.healed.push(format!("the journal ended in {dropped_bytes} bytes of a block that was never published; they were cut off"));
        }
        JournalEnd::Damaged { at_offset, salvaged_frames, moved_to, .. } => started.healed.push(format!(
            "the journal was damaged at byte {at_offset} and is now {}; {salvaged_frames} blocks behind the damage could be read; we go on in a new log",
            moved_to.display()
        )),
    }
    match &outbox_end {
        JournalEnd::Clean | JournalEnd::Missing => {}
        JournalEnd::TornTail { dropped_bytes } => {
            started.healed.push(format!(
                "the outbox ended in {dropped_bytes} bytes of a write that was never answered; they were cut off"
            ));
        }
        JournalEnd::Damaged { at_offset, moved_to, .. } => started.healed.push(format!(
            "the outbox was damaged at byte {at_offset} and is now {}; {} queued submissions could still be read",
            moved_to.display(),
            waiting.len()
        )),
    }
    started.healed.extend(notes.healed);
    started.blocks += notes.blocks;
    let Loaded { matcher, adopted } = loaded;
    // A journal that was just moved aside is its own last predecessor: its frames are handed over by `replay`.
    let damaged_now = matches!(replay.end, JournalEnd::Damaged { .. });
    let earlier = replay.predecessors.len() - usize::from(damaged_now);
    for path in &replay.predecessors[..earlier] {
        salvage(path)?.for_each(|_, bytes| drop(restore.journaled_aside(&Bytes::copy_from_slice(bytes))))?;
    }
    replay.for_each(|_, bytes| {
        let bytes = Bytes::copy_from_slice(bytes);
        let outcome = if damaged_now { restore.journaled_aside(&bytes) } else { restore.journaled(&bytes) };
        if let Err(why) = outcome {
            started.healed.push(why.to_string());
        }
    })?;
    let (mut replica, effects) = restore.finish();
    let matcher = match matcher {
        Some(matcher) => matcher,
        None => Matcher::built(replica.view(), clock::random(), progress::indexing()).map_err(OpenError::Thread)?,
    };
    matcher.apply(&replica.take_changes(), &replica.take_ties());
    replica.follow_changes();
    remember_place(data, moved.then(|| replica.next_log_no()))
        .map_err(|source| OpenError::Place { path: data.into(), source })?;

    let (inputs, receiver) = mpsc::channel(QUEUE_MAX);
    let shared = Arc::new(Shared {
        published: watch::Sender::new(replica.published()),
        matcher,
        replica: RwLock::new(replica),
        waiting: AtomicUsize::new(0),
        beats: AtomicU64::new(0),
        store,
        data: data.to_owned(),
        failed: Mutex::new(None),
        unsound: Mutex::new(None),
        roster: watch::Sender::new(0),
        taxonomies: Arc::new(Shelf::new(data)),
        asks: Mutex::new(BTreeMap::new()),
        counters: Arc::new(Counters::new(now)),
        meters: Arc::default(),
    });
    shared.follow_taxonomy();
    let handle = Handle { inputs, shared: Arc::clone(&shared) };
    let snapshots = Snapshots::new(data, terms, &shared, adopted);
    let mut engine =
        Engine { shared, journal, outbox, snapshots, answers: BTreeMap::new(), next_ticket: 0, awake: clock::now() };
    engine.carry_out(dropped.into_iter().map(Effect::Store).collect());
    engine.carry_out(effects);
    let thread = thread::Builder::new().name("engine".into());
    let thread = thread.spawn(move || engine.run(receiver, &runtime)).map_err(OpenError::Thread)?;
    Ok((handle, started, thread))
}

/// What the store makes of a replica.
struct OnDisk {
    store: Store,
    aside: Option<SetAside>,
    restore: Restore,
    dropped: Vec<Write>,
    loaded: Loaded,
    /// Whether nothing is left to be read.
    is_whole: bool,
    notes: Started,
}

impl OnDisk {
    /// Reads it; `unread`: but for what a snapshot says. Where that does not fit, or the store is damaged, it has to be read
    /// again without.
    fn read(
        data: &Path,
        settings: Settings,
        (forum, charters): (ForumId, Vec<proto::SignedCharter>),
        (now, waiting): (TimeMs, Vec<(u64, Vec<u8>)>),
        unread: bool,
    ) -> Result<Self, OpenError> {
        let folder = data.join(STORE_FOLDER);
        let (store, aside) =
            if unread { Store::open_unread_or_set_aside(&folder)? } else { Store::open_or_set_aside(&folder)? };
        let mut notes = Started::default();
        let charters = with_stored(forum, charters, &store)?;
        let mut restore = Restore::new(settings, forum, charters, now)?;
        let dropped = feed_proofs_and_outbox(&mut restore, &store, waiting, &mut notes)?;
        // What was salvaged of a damaged store has gaps that a snapshot does not know of.
        let loaded = if unread && aside.is_none() { snapshot::load(data, &mut restore, &store) } else { None };
        if unread && aside.is_some() {
            snapshot::discard(data);
        }
        let is_whole = !unread || aside.is_some() || loaded.is_some();
        let loaded = loaded.unwrap_or_default();
        if is_whole {
            feed_blocks(&mut restore, &store, &loaded.adopted.logs, &mut notes, Progress::new(data))?;
        }
        Ok(Self { store, aside, restore, dropped, loaded, is_whole, notes })
    }
}

/// A directory that was copied, or restored, holds the past of a node: what was signed elsewhere since, nobody here knows.
/// Its logs are left behind, for ever, and new ones are begun.
fn where_it_stands(data: &Path, settings: Settings, started: &mut Started) -> Result<Settings, OpenError> {
    let fail = |source| OpenError::Place { path: data.to_owned(), source };
    let restored = data.join(RESTORED_FILE).try_exists().map_err(fail)?;
    let moved = match Place::read_and_compare(data).map_err(fail)? {
        Stood::New | Stood::Same => false,
        Stood::Unmarked => {
            started.healed.push("this directory did not say where it stands; from now on it does".into());
            false
        }
        Stood::Moved { .. } => true,
    };
    let closed_below = closed_below(data).map_err(fail)?;
    if closed_below.is_none() {
        started.healed.push(format!(
            "{CLOSED_BELOW_FILE} was damaged: all logs are left as they are, and what is said from now on goes into new ones"
        ));
    }
    if moved || restored {
        let what = if restored { "restored from a backup" } else { "copied or restored" };
        started.healed.push(format!(
            "this data directory was {what}: its logs are left as they are, and what is said from now on goes into new ones"
        ));
    }
    Ok(Settings {
        moved: moved || restored || closed_below.is_none(),
        closed_below: closed_below.unwrap_or(LogNo(0)),
        ..settings
    })
}

/// The number below which our logs were left behind; `None` if nobody can read it any more.
fn closed_below(data: &Path) -> io::Result<Option<LogNo>> {
    match fs::read(data.join(CLOSED_BELOW_FILE)) {
        Ok(text) => Ok(String::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()).map(LogNo)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(LogNo(0))),
        Err(error) => Err(error),
    }
}

/// What is left behind is noted before the place is: a crash in between leaves the directory moved.
fn remember_place(data: &Path, left_behind: Option<LogNo>) -> io::Result<()> {
    if let Some(next) = left_behind {
        let (path, temporary) = (data.join(CLOSED_BELOW_FILE), data.join("closed-below.new"));
        fs::write(&temporary, next.0.to_string())?;
        fs::File::open(&temporary)?.sync_all()?;
        fs::rename(temporary, path)?;
    }
    Place::write(data)?;
    match fs::remove_file(data.join(RESTORED_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::File::open(data)?.sync_all(),
    }
}

/// The charters we were invited with, and those that the store has beyond them.
fn with_stored(
    forum: ForumId,
    charters: Vec<proto::SignedCharter>,
    store: &Store,
) -> Result<Vec<proto::SignedCharter>, OpenError> {
    let mut invited = charters.into_iter();
    let first = invited.next().ok_or(CharterError::Gap { expected: 1, got: 0 })?;
    let mut chain = CharterChain::found(forum, first)?;
    let stored = store.charters()?.into_iter().filter_map(|(_, bytes)| proto::SignedCharter::decode(&bytes[..]).ok());
    for charter in invited.chain(stored) {
        // A stored charter that does not follow comes again from a peer.
        if let Err(error) = chain.apply(charter) {
            tracing::warn!(%error, "a stored charter is not used");
        }
    }
    Ok(chain.from(1).iter().map(|(signed, _)| signed.clone()).collect())
}

/// The proofs and what the outbox holds, in the order that [`Restore`] asks for: what waits before the blocks that may have
/// answered it. Returns what should be dropped.
fn feed_proofs_and_outbox(
    restore: &mut Restore,
    store: &Store,
    waiting: Vec<(u64, Vec<u8>)>,
    started: &mut Started,
) -> Result<Vec<Write>, StoreError> {
    let mut drop = Vec::new();
    for (hash, bytes) in store.proofs()? {
        if !restore.proof(&bytes) {
            drop.push(Write::DropProof(hash));
        }
    }
    for (id, bytes) in waiting {
        if !restore.outbox(id, bytes.into()) {
            started.healed.push(format!("queued submission {id} could not be read and was dropped"));
            drop.push(Write::DropOutbox(id));
        }
    }
    Ok(drop)
}

/// The stored blocks of each log behind the place that `taken` has for it.
fn feed_blocks(
    restore: &mut Restore,
    store: &Store,
    taken: &BTreeMap<Origin, Seq>,
    started: &mut Started,
    mut progress: Progress,
) -> Result<(), StoreError> {
    let known = |origin| taken.get(&origin).copied().unwrap_or_default();
    store.for_each_block_beyond(known, |id, bytes| {
        match restore.stored(id, Bytes::copy_from_slice(bytes)) {
            Ok(()) => started.blocks += 1,
            Err(why) => tracing::warn!(%why, "a stored block is not used; it will be fetched again"),
        }
        progress.read(bytes.len(), restore.records());
        ControlFlow::Continue(())
    })
}

struct Engine {
    shared: Arc<Shared>,
    journal: Journal,
    outbox: Outbox,
    snapshots: Snapshots,
    answers: BTreeMap<Ticket, Asker>,
    next_ticket: u64,
    /// When the latest turn ended.
    awake: TimeMs,
}

impl Engine {
    fn run(mut self, mut inputs: mpsc::Receiver<Message>, runtime: &tokio::runtime::Handle) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while runtime.block_on(inputs.recv_many(&mut batch, BATCH_MAX)) > 0 {
            if batch.iter().any(|m| matches!(m, Message::Submit(..))) {
                runtime.block_on(linger(&mut inputs, &mut batch));
            }
            let stop = batch.iter().any(|m| matches!(m, Message::Stop));
            self.shared.beat();
            self.turn(&mut batch);
            self.shared.beat();
            if stop {
                break;
            }
            self.snapshots.look(&self.shared, clock::now());
        }
        if self.shared.failure().is_none() {
            self.snapshots.finish(&self.shared);
        }
    }

    /// One group commit.
    fn turn(&mut self, batch: &mut Vec<Message>) {
        let now = clock::now();
        let shared = Arc::clone(&self.shared);
        let mut effects = Vec::new();
        let mut submitted = false;
        let mut charters = Vec::new();
        let mut resubmissions = Vec::new();
        if now.since(self.awake) > STOOD_STILL_MS {
            tracing::warn!(for_ms = now.since(self.awake), "stood still: peers are asked before anything is signed");
            effects.extend(shared.replica_mut().handle(Input::Woke, now));
        }
        for message in batch.drain(..) {
            match message {
                Message::Input(input) => effects.extend(shared.replica_mut().handle(*input, now)),
                Message::Submit(class, records, answer) => {
                    submitted = true;
                    let ticket = self.ticket(answer);
                    effects.extend(self.submit(Input::Submit { ticket, class, records }, now));
                }
                Message::Close(next_seed, reason, answer) => {
                    let ticket = self.ticket(answer);
                    effects.extend(shared.replica_mut().handle(Input::Close { ticket, next_seed, reason }, now));
                }
                Message::Resubmit(from_peers, answer) => resubmissions.push((from_peers, answer)),
                Message::ApplyCharter(charter, answer) => charters.push((charter, answer)),
                Message::Stop => {}
            }
            // A turn may take hundreds of milliseconds; lookups wait for one message of it at most.
            shared.beat();
            shared.give_way();
        }
        if submitted {
            effects.extend(shared.replica_mut().handle(Input::Seal, now));
        }
        self.carry_out(effects);
        for (charter, answer) in charters {
            self.apply_charter(charter, answer);
        }
        for (from_peers, answer) in resubmissions {
            self.resubmit(from_peers, answer);
        }
        self.awake = clock::now();
    }

    /// Takes in one submission. What fills a block is signed at once, and not together with what follows: a block takes
    /// milliseconds, and lookups wait meanwhile.
    fn submit(&self, submission: Input, now: TimeMs) -> Vec<Effect> {
        let mut replica = self.shared.replica_mut();
        let mut effects = replica.handle(submission, now);
        if replica.unsealed() >= RECORDS_PER_BLOCK_MAX - 1 {
            drop(replica);
            self.shared.give_way();
            effects.extend(self.shared.replica_mut().handle(Input::Seal, now));
        }
        effects
    }

    /// Our journal has everything that we ever signed here: whatever of it does not count is said again, in its order.
    fn resubmit(&mut self, from_peers: bool, answer: Asker) {
        let ticket = self.ticket(answer);
        let shared = Arc::clone(&self.shared);
        let me = shared.replica().me();
        let mut lapsed = BTreeMap::new();
        let mut look = |bytes: &[u8]| {
            // A journal may be long, and whoever watches over us must not take the work for a standstill.
            shared.beat();
            let Ok(frame) = Frame::decode(Bytes::copy_from_slice(bytes)) else { return };
            let (header, replica) = (frame.header.header(), shared.replica());
            let held = replica.logs().get(&header.id.origin).and_then(|log| log.hash_at(header.id.seq));
            if held == Some(frame.header.hash()) && header.id.seq <= replica.prefix(header.id.origin) {
                return;
            }
            for (index, slot) in frame.slots.iter().enumerate() {
                if let Slot::Record(record) = slot {
                    lapsed.insert((header.time, header.id, index), record.clone());
                }
            }
        };
        let journal = salvage(&shared.data.join(JOURNAL_FILE));
        let read = journal.and_then(|mut journal| journal.for_each(|_, bytes| look(bytes)));
        let mut read = read.map(drop).map_err(|e| e.to_string());
        if from_peers && read.is_ok() {
            let own = |id: BlockId, bytes: &[u8]| {
                shared.beat();
                if id.origin.member == me {
                    look(bytes);
                }
                ControlFlow::Continue(())
            };
            read = shared.store.for_each_block(own).map_err(|e| e.to_string());
        }
        if let Err(error) = read {
            return self.fail(&Failed(error));
        }
        let said = lapsed.into_iter().map(|((time, ..), record)| (time, record)).collect();
        let effects = self.shared.replica_mut().handle(Input::Resubmit { ticket, said }, clock::now());
        self.carry_out(effects);
    }

    fn ticket(&mut self, answer: Asker) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.answers.insert(ticket, answer);
        ticket
    }

    fn apply_charter(&mut self, charter: proto::SignedCharter, answer: oneshot::Sender<Result<u64, CharterError>>) {
        let mut trial = self.shared.replica().charters().clone();
        let outcome = trial.apply(charter.clone()).map(|applied| (applied, trial.version()));
        if outcome.is_ok() {
            let effects = self.shared.replica_mut().handle(Input::Charter(charter), clock::now());
            self.carry_out(effects);
        }
        let told = match outcome {
            // Kept as the proof of a fork (C4): both branches stop counting, which is not what was asked for.
            Ok((Applied::Forked, _)) => Err(CharterError::Frozen),
            Ok((Applied::Applied | Applied::Known, version)) => Ok(version),
            Err(error) => Err(error),
        };
        // Whoever asked may have gone.
        drop(answer.send(told));
    }

    /// Carries out effects, and what follows from them, until nothing is left to do.
    fn carry_out(&mut self, mut effects: Vec<Effect>) {
        while !effects.is_empty() {
            if self.shared.failure().is_some() {
                self.answers.clear();
                return;
            }
            let (writes, others): (Vec<_>, Vec<_>) =
                effects.into_iter().partition(|e| matches!(e, Effect::Journal(..) | Effect::Store(_)));
            effects = Vec::new();
            if !writes.is_empty() {
                let begun = clock::instant();
                if let Err(failed) = self.write(&writes) {
                    self.fail(&failed);
                    return;
                }
                self.shared.meters.commits.observe(begun.elapsed());
                effects = self.count();
                self.arrived(&writes);
            }
            // All of them were asked for before this: deriving the list once does for all.
            let mut rebuilt = false;
            for effect in others {
                let again = matches!(effect, Effect::Rebuild) && std::mem::replace(&mut rebuilt, true);
                if !again {
                    self.perform(effect, &mut effects);
                }
            }
        }
    }

    /// Everything was written: it counts. Lookups get their turn after every block.
    fn count(&self) -> Vec<Effect> {
        let mut effects = self.shared.replica_mut().handle(Input::DurableInPieces, clock::now());
        while self.shared.replica().is_counting() {
            self.shared.beat();
            self.shared.give_way();
            effects.extend(self.shared.replica_mut().handle(Input::NextPiece, clock::now()));
        }
        effects
    }

    /// What others said matches here from now on.
    fn arrived(&self, writes: &[Effect]) {
        let (me, now) = (self.shared.replica().me(), clock::now());
        for effect in writes {
            if let Effect::Store(Write::Block(id, bytes)) = effect
                && id.origin.member != me
                && let Ok(frame) = Frame::decode(bytes.clone())
            {
                tracing::debug!(block = %id, "a block of another member is durable");
                if let Some(took_ms) = self.shared.counters.arrived(frame.header.header().time, now) {
                    self.shared.meters.arrivals.observe(Duration::from_millis(took_ms));
                }
            }
        }
    }

    /// Journal, fsync, read back and verify (W7), then the store, flushed, then the outbox: in this order, so that a block
    /// is durable before what waited for it is dropped.
    fn write(&mut self, writes: &[Effect]) -> Result<(), Failed> {
        let frames: Vec<&[u8]> = writes
            .iter()
            .filter_map(|e| if let Effect::Journal(_, bytes) = e { Some(&bytes[..]) } else { None })
            .collect();
        let positions = self.journal.append(&frames).map_err(|e| Failed(e.to_string()))?;
        let keyring = self.shared.replica().keyring();
        for position in positions {
            let bytes = self.journal.read(position).map_err(|e| Failed(e.to_string()))?;
            let frame = Frame::decode(bytes.into()).map_err(|e| Failed(format!("own block read back: {e}")))?;
            keyring.verify(frame).map_err(|e| Failed(format!("own block read back: {e}")))?;
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        for effect in writes {
            let Effect::Store(write) = effect else { continue };
            let Some((write, len)) = stored(write) else { continue };
            if !batch.is_empty() && (bytes + len > WRITE_BYTES || batch.len() >= WRITE_OPERATIONS_MAX) {
                self.shared.store.write(&batch).map_err(|e| Failed(e.to_string()))?;
                batch.clear();
                bytes = 0;
            }
            batch.push(write);
            bytes += len;
        }
        if !batch.is_empty() {
            self.shared.store.write(&batch).map_err(|e| Failed(e.to_string()))?;
        }
        self.write_outbox(writes)
    }

    fn write_outbox(&mut self, writes: &[Effect]) -> Result<(), Failed> {
        let (mut puts, mut drops) = (Vec::new(), Vec::new());
        for effect in writes {
            match effect {
                Effect::Store(Write::Outbox(id, bytes)) => puts.push((*id, &bytes[..])),
                Effect::Store(Write::DropOutbox(id)) => drops.push(*id),
                _ => {}
            }
        }
        self.outbox.write(&puts, &drops).map_err(|e| Failed(e.to_string()))
    }

    /// W3: no retry, no further acknowledgement, health RED. Reads go on.
    fn fail(&mut self, failed: &Failed) {
        tracing::error!(%failed, "storage failed");
        *lock(&self.shared.failed) = Some(failed.clone());
        for (_, answer) in std::mem::take(&mut self.answers) {
            answer.answer(Err(failed.clone()));
        }
    }

    fn perform(&mut self, effect: Effect, effects: &mut Vec<Effect>) {
        match effect {
            Effect::Answer(ticket, answer) => {
                if let Some(waiting) = self.answers.remove(&ticket) {
                    waiting.answer(Ok(answer));
                }
            }
            Effect::Publish => drop(self.shared.published.send_replace(self.shared.replica().published())),
            Effect::Ask(peer, ask) => self.ask(peer, ask, effects),
            Effect::Confront(id, theirs) => {
                let ours =
                    self.shared.store.block(id).ok().flatten().and_then(|bytes| Frame::decode(bytes.into()).ok());
                if let Some(ours) = ours {
                    let input = Input::Confronted(Box::new(ours.header), theirs);
                    effects.extend(self.shared.replica_mut().handle(input, clock::now()));
                }
            }
            Effect::Rebuild => self.rebuild(effects),
            Effect::Redact(ids) => self.redact(&ids),
            Effect::Roster => {
                self.shared.follow_taxonomy();
                self.shared.roster.send_modify(|n| *n += 1);
            }
            Effect::Alarm(alarm) => {
                let text = alarm.text(|member| self.shared.replica().name_of(member));
                tracing::warn!(alarm = text, "alarm");
            }
            Effect::Journal(..) | Effect::Store(_) => {} // written before
        }
    }

    fn ask(&self, peer: MemberId, ask: Ask, effects: &mut Vec<Effect>) {
        let hangup = ask == Ask::Hangup;
        let call = if matches!(ask, Ask::Follow { .. }) { Call::Follow } else { Call::Talk };
        let sent = lock(&self.shared.asks).get(&peer).is_some_and(|asks| asks.try_send(ask).is_ok());
        if !sent && !hangup {
            let trouble = Trouble::Unreachable("no endpoint is known".into());
            let input = Input::Peer(peer, PeerEvent::Ended(call, Err(trouble)));
            effects.extend(self.shared.replica_mut().handle(input, clock::now()));
        }
    }

    /// Derives the view again from all stored blocks, while lookups go on with the one before. What the blocks say may
    /// change how far logs count: then they are read once more.
    fn rebuild(&mut self, effects: &mut Vec<Effect>) {
        let begun = clock::instant();
        self.derive(effects);
        let took = begun.elapsed();
        self.shared.meters.derivations.observe(took);
        tracing::info!(took_ms = took.as_millis(), "the list was derived again");
    }

    fn derive(&mut self, effects: &mut Vec<Effect>) {
        for _ in 0..REBUILDS_MAX {
            let now = clock::now();
            let (mut rebuild, keyring) = {
                let replica = self.shared.replica();
                (replica.begin_rebuild(now), replica.keyring())
            };
            let folded = self.shared.store.for_each_block(|id, bytes| {
                self.shared.beat();
                let frame = Frame::decode(Bytes::copy_from_slice(bytes)).ok();
                match frame.and_then(|f| keyring.verify(f).ok()) {
                    Some(block) => self.shared.replica().rebuild(&mut rebuild, &block),
                    None => self.miss(id),
                }
                ControlFlow::Continue(())
            });
            if let Err(error) = folded {
                return self.fail(&Failed(error.to_string()));
            }
            self.shared.replica().compare_rebuild(&mut rebuild);
            if self.shared.replica_mut().finish_rebuild(&mut rebuild, now, effects) {
                return;
            }
        }
        tracing::error!("the list does not settle: please report this");
    }

    /// A block that the list rests on cannot be read: a start without a snapshot fetches it again.
    fn miss(&self, id: BlockId) {
        let counts = id.seq <= self.shared.replica().prefix(id.origin);
        if counts && self.shared.unsound().is_none() {
            let why = format!("block {id} does not hold");
            tracing::error!(why, "the list lacks it: restart the node, and it is fetched again");
            *lock(&self.shared.unsound) = Some(why);
        }
    }

    /// Erases records on disk: a written order of the founders, which nobody's copy outlives.
    fn redact(&mut self, ids: &[BlockId]) {
        let keyring = self.shared.replica().keyring();
        let redacted = |bytes: &[u8]| {
            self.shared.beat();
            let mut frame = Frame::decode(Bytes::copy_from_slice(bytes)).ok()?;
            keyring.redact(&mut frame).then(|| frame.encode().to_vec())
        };
        let ids: BTreeSet<_> = ids.iter().copied().collect();
        let shared = Arc::clone(&self.shared);
        let erased = self
            .snapshots
            .forget()
            .map_err(|e| e.to_string())
            .and_then(|()| {
                let rewrite = |id, bytes: &[u8]| {
                    shared.beat();
                    ids.contains(&id).then(|| redacted(bytes)).flatten()
                };
                shared.store.rewrite(rewrite).map_err(|e| e.to_string())
            })
            .and_then(|_blocks| self.journal.rewrite(redacted).map_err(|e| e.to_string()))
            .and_then(|_frames| Place::write(&shared.data).map_err(|e| e.to_string()))
            .and_then(|_place| self.outbox.compact().map_err(|e| e.to_string()))
            .and_then(|()| {
                let aside = erase_set_aside(&shared.data.join(STORE_FOLDER), &shared.data.join(JOURNAL_FILE));
                aside.map_err(|e| e.to_string())
            });
        match erased {
            Ok(removed) => tracing::info!(blocks = ids.len(), aside = removed.len(), "records were erased from disk"),
            Err(error) => self.fail(&Failed(format!("records could not be erased: {error}"))),
        }
    }
}

/// As [`Engine::rebuild`], for a replica that nobody reads meanwhile.
fn derive_again(replica: &mut Replica, store: &Store) -> Result<(), StoreError> {
    let keyring = replica.keyring();
    for _ in 0..REBUILDS_MAX {
        let now = clock::now();
        let mut rebuild = replica.begin_rebuild(now);
        let read = store.for_each_block(|_, bytes| {
            let frame = Frame::decode(Bytes::copy_from_slice(bytes)).ok();
            if let Some(block) = frame.and_then(|f| keyring.verify(f).ok()) {
                replica.rebuild(&mut rebuild, &block);
            }
            ControlFlow::Continue(())
        });
        match read {
            Err(StoreError::Damaged { .. } | StoreError::Panicked { .. }) => {} // told already
            read => read?,
        }
        if replica.finish_rebuild(&mut rebuild, now, &mut Vec::new()) {
            break;
        }
    }
    Ok(())
}

/// W2: waits a little for more submissions, up to a block's worth.
async fn linger(inputs: &mut mpsc::Receiver<Message>, batch: &mut Vec<Message>) {
    let records = |batch: &[Message]| {
        batch.iter().map(|m| if let Message::Submit(_, r, _) = m { r.len() } else { 0 }).sum::<usize>()
    };
    let deadline = tokio::time::sleep(Duration::from_millis(LINGER_MS));
    tokio::pin!(deadline);
    while batch.len() < BATCH_MAX && records(batch) < RECORDS_PER_BLOCK_MAX {
        tokio::select! {
            () = &mut deadline => return,
            message = inputs.recv() => match message {
                Some(message) => batch.push(message),
                None => return,
            },
        }
    }
}

/// A replica's write as the store's, and its size in bytes. `None`: it is the outbox's.
fn stored(write: &Write) -> Option<(store::Write<'_>, usize)> {
    Some(match write {
        Write::Block(id, bytes) => (store::Write::Block(*id, bytes), bytes.len()),
        Write::Charter(version, bytes) => (store::Write::Charter(*version, bytes), bytes.len()),
        Write::Proof(hash, bytes) => (store::Write::Proof(*hash, bytes), bytes.len()),
        Write::DropProof(hash) => (store::Write::DeleteProof(*hash), 0),
        Write::Outbox(..) | Write::DropOutbox(_) => return None,
    })
}

/// Whether the disk is so full that submissions are refused (reads go on).
pub fn submissions_off(data: &Path) -> bool {
    disk_low(data).unwrap_or(false)
}

/// What a check of everything on disk found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Logs.
    pub logs: u64,
    /// Blocks whose signature, chain and roots hold.
    pub blocks: u64,
    /// Records in them.
    pub records: u64,
    /// The first thing that does not hold.
    pub first_break: Option<String>,
    /// Hour of the digest.
    pub view_hour: TimeMs,
    /// Digest of the view that these blocks give.
    pub view_digest: [u8; 32],
}

/// Checks everything on disk of a node that does not run, under its directory's lock, and changes nothing.
///
/// # Errors
/// When the directory is in use or cannot be read; a store that is damaged is the answer's `first_break`.
pub fn verify_directory(
    data: &Path,
    settings: Settings,
    forum: ForumId,
    charters: Vec<proto::SignedCharter>,
) -> Result<Verified, OpenError> {
    let _lock = lock_directory(data)?;
    let broken = |why: String| Verified {
        logs: 0,
        blocks: 0,
        records: 0,
        first_break: Some(why),
        view_hour: TimeMs(0),
        view_digest: [0; 32],
    };
    let store = match Store::open(&data.join(STORE_FOLDER)) {
        Ok(opened) => opened.store,
        Err(error) if error.is_damage() => return Ok(broken(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    if let Err(error) = store.verify() {
        return Ok(broken(error.to_string()));
    }
    verify(&store, &data.join(JOURNAL_FILE), settings, forum, charters)
}

/// The store of a node that does not run, and the replica that it makes, under the directory's lock; changes nothing.
/// What the journal has beyond the store was never published, and is left out.
///
/// # Errors
/// When the directory is in use, damaged or cannot be read.
pub fn read_directory(
    data: &Path,
    settings: Settings,
    forum: ForumId,
    charters: Vec<proto::SignedCharter>,
) -> Result<(DirectoryLock, Store, Replica), OpenError> {
    let lock = lock_directory(data)?;
    let store = Store::open(&data.join(STORE_FOLDER))?.store;
    let charters = with_stored(forum, charters, &store)?;
    let mut restore = Restore::new(settings, forum, charters, clock::now())?;
    let mut started = Started::default();
    feed_proofs_and_outbox(&mut restore, &store, Vec::new(), &mut started)?;
    feed_blocks(&mut restore, &store, &BTreeMap::new(), &mut started, Progress::new(data))?;
    let (mut replica, effects) = restore.finish();
    if effects.iter().any(|effect| matches!(effect, Effect::Rebuild)) {
        derive_again(&mut replica, &store)?;
    }
    Ok((lock, store, replica))
}

/// Checks every signature, chain and root of a store and of the journal beside it, and derives the view anew: what is
/// shown must be what is stored (I19).
///
/// # Errors
/// When something cannot be read for another reason than damage; damage, and what is read and does not hold, is the
/// answer's `first_break`.
pub fn verify(
    store: &Store,
    journal: &Path,
    settings: Settings,
    forum: ForumId,
    charters: Vec<proto::SignedCharter>,
) -> Result<Verified, OpenError> {
    match verify_readable(store, journal, settings, forum, charters) {
        Err(OpenError::Store(error @ (StoreError::Damaged { .. } | StoreError::Panicked { .. }))) => {
            Ok(Verified { first_break: Some(error.to_string()), ..Verified::default() })
        }
        verified => verified,
    }
}

fn verify_readable(
    store: &Store,
    journal: &Path,
    settings: Settings,
    forum: ForumId,
    charters: Vec<proto::SignedCharter>,
) -> Result<Verified, OpenError> {
    let me = settings.me;
    let charters = with_stored(forum, charters, store)?;
    let mut restore = Restore::new(settings, forum, charters, clock::now())?;
    let mut first: Option<String> = None;
    let mut note = |why: String| {
        first.get_or_insert(why);
    };
    for (hash, bytes) in store.proofs()? {
        if !restore.proof(&bytes) {
            note(format!("proof {} does not hold", crate::replica::ids::hex(&hash)));
        }
    }
    let (mut blocks, mut last) = (0, None);
    let read = store.for_each_block(|id: BlockId, bytes| {
        last = Some(id);
        match restore.stored(id, Bytes::copy_from_slice(bytes)) {
            Ok(()) => blocks += 1,
            Err(why) => note(why.to_string()),
        }
        ControlFlow::Continue(())
    });
    match read {
        Err(error @ (StoreError::Damaged { .. } | StoreError::Panicked { .. })) => {
            let place = last.map_or("before its first block".to_owned(), |id| format!("after block {id}"));
            note(format!("{place}: {error}"));
        }
        read => read?,
    }
    let (mut torn_bytes, mut journaled) = (None, BTreeMap::new());
    if journal.exists() {
        let mut replay = salvage(journal)?;
        match replay.end {
            JournalEnd::Damaged { at_offset, .. } => note(format!("the journal is damaged at byte {at_offset}")),
            JournalEnd::TornTail { dropped_bytes } => torn_bytes = Some(dropped_bytes),
            JournalEnd::Clean | JournalEnd::Missing => {}
        }
        replay.for_each(|_, bytes| {
            let bytes = Bytes::copy_from_slice(bytes);
            if let Ok(frame) = Frame::decode(bytes.clone()) {
                let id = frame.header.header().id;
                journaled.insert(id.origin, id.seq);
            }
            if let Err(why) = restore.journaled(&bytes) {
                note(why.to_string());
            }
        })?;
    }
    let (mut replica, effects) = restore.finish();
    if effects.iter().any(|effect| matches!(effect, Effect::Rebuild)) {
        derive_again(&mut replica, store)?;
    }
    // A torn end alone is what a power cut leaves. But the store gets a block only after the journal has it: bytes that
    // are no block, where the store has one more, were a block once.
    let behind = |(origin, log): (&Origin, &Log)| {
        (origin.member == me && journaled.get(origin).is_none_or(|seq| *seq < log.len())).then_some(*origin)
    };
    if let (Some(bytes), Some(origin)) = (torn_bytes, replica.logs().iter().find_map(behind)) {
        let seq = journaled.get(&origin).map_or(Seq(0), |seq| *seq).next();
        note(format!("the journal ends in {bytes} damaged bytes; they were block {}", BlockId { origin, seq }));
    }
    let (view_hour, view_digest) = replica.view().digest();
    Ok(Verified {
        logs: replica.logs().len() as u64,
        blocks,
        records: replica.view().records(),
        first_break: first,
        view_hour,
        view_digest,
    })
}
