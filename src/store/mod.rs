//! What is on disk: the own [`journal`], the [`outbox`] and the replica in sled. Bytes in, bytes out; nothing here
//! decodes a block.
//!
//! Everything in sled can be had back from the journal and the peers; so sled is treated as a copy that may turn out
//! damaged at any moment. Every entry into it goes through `guard`, every value carries a seal
//! ([`tables`]), waiting is bounded, and a damaged folder is moved aside and begun again ([`Store::open_or_set_aside`]).
//!
//! Durability: sled's `flush` writes with `sync_file_range`, which is no fsync, and writes large pages to files of
//! their own (`blobs/`) without any sync. [`Store::write`] syncs both before it returns.
//!
//! Erasure: [`Store::rewrite`], [`journal::Journal::rewrite`], [`outbox::Outbox::compact`] and [`erase_set_aside`], all four, leave
//! nothing of what was erased in the data directory. [`place`] notices a directory that was copied or restored.

pub mod journal;
pub mod outbox;
pub mod place;
pub mod snapshot;
pub mod tables;

mod aside;
mod directory;
mod generation;
mod guard;
mod rewrite;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::{Bound, ControlFlow};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwapOption;

pub use self::aside::SetAside;
pub use self::directory::{
    DISK_LOW_BYTES, DISK_LOW_PERCENT, DirectoryLock, LockError, Room, disk_low, erase_set_aside, lock_directory, room,
    size_on_disk,
};
pub use self::guard::io_threads_lost;
use self::tables::{FORMAT, FORMAT_KEY, Tree, WRITES_KEY};
use crate::replica::ids::{BlockId, Origin, Seq};

/// Largest value in bytes: a charter body and a block frame fit into 1 MiB each (PROTOCOL section 13), and a little
/// more for what surrounds them.
pub const VALUE_BYTES_MAX: usize = (1 << 20) + (64 << 10);

/// Most operations in one [`Store::write`]: sled keeps a batch in memory several times over (3,000 took 2.6 GB).
pub const WRITE_OPERATIONS_MAX: usize = 1_024;

/// Most bytes in one [`Store::write`], for the same reason.
pub const WRITE_BYTES_MAX: usize = 32 << 20;

/// Largest key in `meta`, in bytes: names, not values.
pub const META_KEY_BYTES_MAX: usize = 64;

/// sled's page cache in bytes. Blocks are read once at start and then rarely: the operating system caches the file.
/// sled keeps one page in each of 256 parts of it, whatever the limit: 115 MB with full blocks that came in order.
pub const CACHE_BYTES: u64 = 64 << 20;

/// How often a value that was read or written is looked up again. sled compares its cache with the limit only when 64
/// accesses to one 256th of the pages have come together; pages of 8 to 16 large values hardly ever see that many, and
/// the whole database stayed in memory. 8 times 8 values are 64.
const TOUCHES: u32 = 8;

/// A write that takes longer is given up: sled waits for ever when one of its threads has died or the disk is full.
/// The slowest honest disks answer a sync within a few seconds.
pub const WRITE_PATIENCE_MS: u64 = 60_000;

/// The same once one of sled's threads has died during the write: nobody will wake it.
const BEREAVED_PATIENCE_MS: u64 = 2_000;
const TICK_MS: u64 = 50;

/// sled keeps a page of up to 17 values in its log if it is smaller than a quarter of a segment, else in a file of its
/// own under `blobs/`, which costs two more syncs. With 4 MiB that happens above 60 KB a block.
const SEGMENT_BYTES: usize = 4 << 20;

/// Names in `meta` that are not the engine's.
const RESERVED: [&[u8]; 2] = [FORMAT_KEY, WRITES_KEY];

/// One piece of a scan: enough to be fast, little enough for memory.
const CHUNK_VALUES: usize = 64;
const CHUNK_BYTES: usize = 4 << 20;

/// sled's threads may hold its file lock for a moment after the database was closed in this process.
const LOCK_RETRIES: u32 = 40;
const LOCK_RETRY_MS: u64 = 50;

/// What went wrong, and what became of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The files are damaged, or sled says so by panicking. Closes the store for writing; at the next start
    /// [`Store::open_or_set_aside`] begins a new one.
    #[error("the replica store is damaged ({what}); restart the node, it moves the folder aside and rebuilds")]
    Damaged {
        /// What was noticed.
        what: String,
    },
    /// sled panicked, which is how it reports most damage. Closes the store for writing, like damage.
    #[error("the replica store is damaged ({what}); restart the node, it moves the folder aside and rebuilds")]
    Panicked {
        /// The message and the place in sled.
        what: String,
    },
    /// The operating system refused, for a reason that is not damage (rights, room, handles). A write that ends so
    /// closes the store for writing; reads go on.
    #[error("cannot {doing} the replica store: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// sled did not answer. Closes the store for reading and writing; its threads cannot be freed but by a restart.
    #[error("the replica store did not finish to {doing} within {waited_ms} ms; restart the node")]
    Stuck {
        /// What was tried.
        doing: &'static str,
        /// How long without progress, in milliseconds.
        waited_ms: u64,
    },
    /// An earlier error has closed the store; nothing was done now.
    #[error("the replica store is closed after an earlier error ({first}); restart the node")]
    Poisoned {
        /// The error that closed it.
        first: String,
    },
    /// Too many of sled's threads have died in this process to begin again. Nothing was touched.
    #[error("the store engine has lost {lost} threads in this process; restart the node")]
    Spent {
        /// How many.
        lost: u32,
    },
    /// The folder is in use: by another process, or by a store of this process that was not dropped.
    #[error("the replica store {} is in use; stop the other process first", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A newer release has written the folder. It was left as it is.
    #[error(
        "the replica store has format {got}, this release knows {FORMAT}; run the release that wrote it, or move the folder away to rebuild it from the peers"
    )]
    Format {
        /// The format it names.
        got: u32,
    },
    /// A name in `meta` is empty, too long, or the store's own. Nothing was written; the store stays open.
    #[error("the name {name:?} cannot be used in meta: 1 to {META_KEY_BYTES_MAX} bytes, and neither format nor writes")]
    Name {
        /// The name.
        name: String,
    },
    /// The caller asked for too much at once. Nothing was written; the store stays open.
    #[error("{what}: {got}, allowed are {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        got: usize,
        /// The limit.
        limit: usize,
    },
}

impl StoreError {
    /// Whether the folder, and not the machine or the caller, is to blame: then it may be moved aside.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Panicked { .. } | Self::Stuck { .. })
    }
}

/// A key and its value.
type Entry = (Vec<u8>, Vec<u8>);

/// A proof and its hash.
pub type HashedProof = ([u8; 32], Vec<u8>);

/// One change, see [`tables`].
#[derive(Clone, Copy, Debug)]
pub enum Write<'a> {
    /// A block frame, as received or signed.
    Block(BlockId, &'a [u8]),
    /// A block that must not be kept any longer (a branch that lost, an audience that was left).
    DeleteBlock(BlockId),
    /// A signed charter under its version.
    Charter(u64, &'a [u8]),
    /// A fork or fault proof under its hash.
    Proof([u8; 32], &'a [u8]),
    /// A proof that a better one replaces.
    DeleteProof([u8; 32]),
    /// A small value of the engine under its name.
    Meta(&'a [u8], &'a [u8]),
}

impl Write<'_> {
    fn parts(&self) -> (Tree, Vec<u8>, Option<&[u8]>) {
        match *self {
            Self::Block(id, frame) => (Tree::Blocks, tables::block_key(id).to_vec(), Some(frame)),
            Self::DeleteBlock(id) => (Tree::Blocks, tables::block_key(id).to_vec(), None),
            Self::Charter(version, charter) => (Tree::Charters, tables::number_key(version).to_vec(), Some(charter)),
            Self::Proof(hash, proof) => (Tree::Proofs, hash.to_vec(), Some(proof)),
            Self::DeleteProof(hash) => (Tree::Proofs, hash.to_vec(), None),
            Self::Meta(name, value) => (Tree::Meta, name.to_vec(), Some(value)),
        }
    }
}

/// A store that was just opened.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// Whether it was begun now, empty.
    pub created: bool,
}

/// The replica's copy on disk. One per data directory; the caller holds the directory's lock.
#[derive(Debug)]
pub struct Store {
    /// The folder that was asked for; the database may stand in one of its generations.
    dir: PathBuf,
    /// `None` only while being dropped. Replaced by [`Store::rewrite`], never changed.
    sled: ArcSwapOption<Sled>,
    /// Writes that the file `written` knew of when the store was opened.
    written_before: u64,
    writer: Mutex<Option<Writer>>,
    /// The first error that closed the store for writing.
    closed: OnceLock<String>,
    /// sled panicked or hangs: dropping it writes, and could panic again or hang.
    leaky: AtomicBool,
    /// sled hangs: reading could too.
    stuck: AtomicBool,
    write_patience_ms: u64,
}

impl Store {
    /// Opens the store in `dir`, creating it if there is none. Values are not checked, only the format.
    ///
    /// Waits for ever if sled does: a node calls [`Store::open_or_set_aside`].
    ///
    /// # Errors
    /// [`StoreError::Damaged`] and [`StoreError::Panicked`] if sled cannot read its files, has lost writes, or the format
    /// is missing; [`StoreError::Io`],
    /// [`StoreError::InUse`], [`StoreError::Format`], [`StoreError::Spent`] leave everything as it was.
    pub fn open(dir: &Path) -> Result<Opened, StoreError> {
        let store = Self::open_unchecked(dir)?;
        let created = store.check_beginning()?;
        Ok(Opened { store, created })
    }

    fn open_unchecked(dir: &Path) -> Result<Self, StoreError> {
        let lost = io_threads_lost();
        if lost + 1 >= guard::IO_THREADS {
            return Err(StoreError::Spent { lost });
        }
        fs::create_dir_all(dir).map_err(|source| StoreError::Io { doing: "create the folder of", source })?;
        let current =
            generation::current(dir).map_err(|source| StoreError::Io { doing: "find the files of", source })?;
        let sled = Arc::new(Sled::open(&current)?);
        // Under sled's lock: what another store of this folder is writing is not left over.
        generation::remove_others(dir, &current)
            .map_err(|source| StoreError::Io { doing: "remove the old files of", source })?;
        let files =
            SyncedFiles::open(&current).map_err(|source| StoreError::Io { doing: "open the files of", source })?;
        let written_before = files.written_before;
        // A count that cannot be read is found by the check that follows; salvage goes on without.
        let counted = guard::caught(|| sled.writes()).unwrap_or(Ok(0)).unwrap_or(0);
        let writer = Writer::start(Arc::clone(&sled), files, counted.max(written_before))?;
        Ok(Self {
            dir: dir.to_owned(),
            sled: ArcSwapOption::new(Some(sled)),
            written_before,
            writer: Mutex::new(Some(writer)),
            closed: OnceLock::new(),
            leaky: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            write_patience_ms: WRITE_PATIENCE_MS,
        })
    }

    /// Writes all of `batch` and makes it durable: after `Ok`, everything is on disk. Each tree's part is applied in
    /// pieces, in the order of [`Tree::ALL`]; after a crash in between a prefix of these pieces is there.
    /// Of two changes of one key in one batch, the later counts.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] before anything was written. After any other error nothing is known about what reached
    /// the disk, and every later write is [`StoreError::Poisoned`] (PROTOCOL W3).
    pub fn write(&self, batch: &[Write<'_>]) -> Result<(), StoreError> {
        if let Some(name) = batch.iter().find_map(bad_meta_name) {
            return Err(StoreError::Name { name });
        }
        self.write_sealed(batch.iter().map(Write::parts))
    }

    /// The block `id`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Io`]; the value is not handed out then.
    pub fn block(&self, id: BlockId) -> Result<Option<Vec<u8>>, StoreError> {
        self.value(Tree::Blocks, &tables::block_key(id))
    }

    /// Blocks of `origin` from `from` on, in order, as far as they are stored (there may be gaps): at most `count_max`
    /// of them, and no further one once `bytes_max` bytes are reached, so that at least one comes if there is one.
    ///
    /// # Errors
    /// As [`Store::block`].
    pub fn blocks_from(
        &self,
        origin: Origin,
        from: Seq,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<(Seq, Vec<u8>)>, StoreError> {
        let first = tables::block_key(BlockId { origin, seq: from });
        let last = tables::block_key(BlockId { origin, seq: Seq(u64::MAX) });
        let range = (Bound::Included(&first[..]), Bound::Included(&last[..]));
        let entries = self.chunk(Tree::Blocks, range, count_max, bytes_max)?;
        Ok(entries.into_iter().filter_map(|(key, frame)| Some((tables::parse_block_key(&key)?.seq, frame))).collect())
    }

    /// Calls `each` with every block, by origin and place, until it breaks. Holds one piece of about 4 MiB in memory.
    ///
    /// # Errors
    /// As [`Store::block`]; blocks before the damage have been handed over then.
    pub fn for_each_block(&self, mut each: impl FnMut(BlockId, &[u8]) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.for_each(Tree::Blocks, |key, frame| {
            tables::parse_block_key(key).map_or(ControlFlow::Continue(()), |id| each(id, frame))
        })
    }

    /// As [`Store::for_each_block`], for the blocks of each log behind the place that `known` gives for it. What stands
    /// before is not read.
    ///
    /// # Errors
    /// As [`Store::block`].
    pub fn for_each_block_beyond(
        &self,
        known: impl Fn(Origin) -> Seq,
        mut each: impl FnMut(BlockId, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut from: Option<Bound<Vec<u8>>> = Some(Bound::Unbounded);
        while let Some(bound) = from.take() {
            self.for_each_from(Tree::Blocks, bound, |key, frame| {
                let Some(id) = tables::parse_block_key(key) else { return ControlFlow::Continue(()) };
                let known = known(id.origin);
                if id.seq <= known {
                    let next = BlockId { seq: known.next(), ..id };
                    from = Some(Bound::Included(tables::block_key(next).to_vec()));
                    return ControlFlow::Break(());
                }
                each(id, frame)
            })?;
        }
        Ok(())
    }

    /// All charter versions, in order.
    ///
    /// # Errors
    /// As [`Store::block`].
    pub fn charters(&self) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let mut charters = Vec::new();
        self.for_each(Tree::Charters, |key, charter| {
            charters.extend(tables::parse_number_key(key).map(|version| (version, charter.to_vec())));
            ControlFlow::Continue(())
        })?;
        Ok(charters)
    }

    /// All proofs, by hash.
    ///
    /// # Errors
    /// As [`Store::block`].
    pub fn proofs(&self) -> Result<Vec<HashedProof>, StoreError> {
        let mut proofs = Vec::new();
        self.for_each(Tree::Proofs, |key, proof| {
            proofs.extend(key.try_into().ok().map(|hash: [u8; 32]| (hash, proof.to_vec())));
            ControlFlow::Continue(())
        })?;
        Ok(proofs)
    }

    /// The engine's value under `name`.
    ///
    /// # Errors
    /// As [`Store::block`].
    pub fn meta(&self, name: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.value(Tree::Meta, name)
    }

    /// Reads every value of every tree and checks its seal. Returns the number of values.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn verify(&self) -> Result<u64, StoreError> {
        self.verify_with_progress(&AtomicU64::new(0))
    }

    /// Whether an error has closed the store for writing.
    pub fn is_poisoned(&self) -> bool {
        self.closed.get().is_some()
    }

    /// Lets the next write fail as `failure` says. For tests only.
    ///
    /// # Panics
    /// If the store is closed.
    #[cfg(any(test, feature = "wrong-rules"))]
    pub fn fail_next_write(&self, failure: WriteFailure) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(writer) = writer.as_ref() else { panic!("the store is closed") };
        *writer.fail_next.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }
}

/// An error to be pretended by the next write, for tests of what comes after.
#[cfg(any(test, feature = "wrong-rules"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFailure {
    /// The sync fails after everything was written.
    Sync,
    /// sled panics.
    Panic,
    /// sled never answers.
    Hang,
}

impl Store {
    fn value(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.guarded("read", |sled| sled.value(tree, key))
    }

    /// The callback runs outside the fence: a panic of the caller's is the caller's.
    fn for_each(&self, tree: Tree, each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.for_each_from(tree, Bound::Unbounded, each)
    }

    fn for_each_from(
        &self,
        tree: Tree,
        mut from: Bound<Vec<u8>>,
        mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        loop {
            let range = (from.as_ref().map(Vec::as_slice), Bound::Unbounded);
            let entries = self.chunk(tree, range, CHUNK_VALUES, CHUNK_BYTES)?;
            if entries.is_empty() {
                return Ok(());
            }
            for (key, value) in entries {
                if each(&key, &value).is_break() {
                    return Ok(());
                }
                from = Bound::Excluded(key);
            }
        }
    }

    fn chunk(
        &self,
        tree: Tree,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.guarded("read", |sled| sled.chunk(tree, range, count_max, bytes_max))
    }

    fn verify_with_progress(&self, progress: &AtomicU64) -> Result<u64, StoreError> {
        let mut values = 0;
        for tree in Tree::ALL {
            self.for_each(tree, |_, _| {
                values += 1;
                progress.fetch_add(1, Ordering::Relaxed);
                ControlFlow::Continue(())
            })?;
        }
        Ok(values)
    }

    /// Whether the store is new, and sure that it has not lost its end.
    fn check_beginning(&self) -> Result<bool, StoreError> {
        let (counted, expected) = (self.guarded("read", Sled::writes)?, self.written_before);
        if counted < expected {
            return Err(damaged(format!("{counted} writes are there of at least {expected}, the last ones are lost")));
        }
        self.check_format()
    }

    /// A folder without a format that holds anything is not ours, or has lost its beginning.
    fn check_format(&self) -> Result<bool, StoreError> {
        match self.value(Tree::Meta, FORMAT_KEY)? {
            Some(found) => match found.try_into().map(u32::from_be_bytes) {
                Ok(FORMAT) => Ok(false),
                Ok(got) => Err(StoreError::Format { got }),
                Err(found) => Err(damaged(format!("the format has {} bytes, expected 4", found.len()))),
            },
            None if self.is_empty()? => {
                self.write_sealed([(Tree::Meta, FORMAT_KEY.to_vec(), Some(&FORMAT.to_be_bytes()[..]))].into_iter())?;
                Ok(true)
            }
            None => Err(damaged("it has values but no format".to_owned())),
        }
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        for tree in Tree::ALL {
            if !self.chunk(tree, (Bound::Unbounded, Bound::Unbounded), 1, 1)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn write_sealed<'a>(
        &self,
        writes: impl ExactSizeIterator<Item = (Tree, Vec<u8>, Option<&'a [u8]>)>,
    ) -> Result<(), StoreError> {
        if let Some(first) = self.closed.get() {
            return Err(StoreError::Poisoned { first: first.clone() });
        }
        let batches = Batches::seal(writes)?;
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = match writer.as_ref() {
            Some(writer) => writer.write(batches, self.write_patience_ms),
            None => Err(StoreError::Panicked { what: "its writer has ended".to_owned() }),
        };
        outcome.inspect_err(|error| self.close(error))
    }

    fn guarded<T>(
        &self,
        doing: &'static str,
        inside: impl FnOnce(&Sled) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Some(sled) = self.sled.load_full().filter(|_| !self.stuck.load(Ordering::SeqCst)) else {
            let first = self.closed.get().cloned().unwrap_or_default();
            return Err(StoreError::Poisoned { first });
        };
        guard::caught(|| inside(&sled)).unwrap_or_else(|panic| {
            let error = StoreError::Panicked { what: format!("{panic}, when asked to {doing}") };
            // What was half changed in memory when it panicked must not be written. A database that was replaced
            // meanwhile is not written any more.
            if self.sled.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, &sled)) {
                self.close(&error);
            }
            Err(error)
        })
    }

    fn close(&self, error: &StoreError) {
        self.closed.get_or_init(|| error.to_string());
        self.stuck.fetch_or(matches!(error, StoreError::Stuck { .. }), Ordering::SeqCst);
        let leaky = matches!(error, StoreError::Stuck { .. } | StoreError::Panicked { .. });
        self.leaky.fetch_or(leaky, Ordering::SeqCst);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let sled = self.sled.swap(None);
        if self.leaky.load(Ordering::SeqCst) {
            // Costs its memory and its file handles until the process ends, which it should soon.
            std::mem::forget(sled);
            return;
        }
        let ended = guard::caught(|| {
            if let Some(writer) = writer {
                writer.end();
            }
            drop(sled);
        });
        if let Err(panic) = ended {
            tracing::error!(%panic, "the replica store could not be closed; the next start examines it");
        }
    }
}

/// The thread that writes. Apart, because sled may never come back from a flush, and the caller must.
#[derive(Debug)]
struct Writer {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
    #[cfg(any(test, feature = "wrong-rules"))]
    fail_next: Mutex<Option<WriteFailure>>,
}

struct Job {
    batches: Batches,
    answer: SyncSender<Result<(), StoreError>>,
    #[cfg(any(test, feature = "wrong-rules"))]
    failure: Option<WriteFailure>,
}

impl Writer {
    fn start(sled: Arc<Sled>, mut files: SyncedFiles, mut writes: u64) -> Result<Self, StoreError> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let work = move || {
            for job in inbox {
                let answer = job.answer.clone();
                writes += 1;
                let outcome = guard::caught(|| job.run(&sled, &mut files, writes));
                let outcome = outcome.unwrap_or_else(|what| Err(StoreError::Panicked { what }));
                let leave = matches!(outcome, Err(StoreError::Panicked { .. }));
                // Nobody may be waiting any more; the store is closed then.
                drop(answer.send(outcome));
                if leave {
                    std::mem::forget(sled);
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("store-writer".to_owned()).spawn(work);
        Ok(Self {
            jobs,
            thread: thread.map_err(|source| StoreError::Io { doing: "start the writer of", source })?,
            #[cfg(any(test, feature = "wrong-rules"))]
            fail_next: Mutex::new(None),
        })
    }

    fn write(&self, batches: Batches, patience_ms: u64) -> Result<(), StoreError> {
        let lost_before = io_threads_lost();
        let (answer, answered) = mpsc::sync_channel(1);
        let job = Job {
            batches,
            answer,
            #[cfg(any(test, feature = "wrong-rules"))]
            failure: self.fail_next.lock().unwrap_or_else(PoisonError::into_inner).take(),
        };
        if self.jobs.send(job).is_err() {
            return Err(StoreError::Panicked { what: "its writer has ended".to_owned() });
        }
        patiently("write", patience_ms, lost_before, None, &answered)?
    }

    fn end(self) {
        drop(self.jobs);
        if self.thread.join().is_err() {
            tracing::error!("the writer of the replica store panicked; please report this");
        }
    }
}

impl Job {
    fn run(self, sled: &Sled, files: &mut SyncedFiles, writes: u64) -> Result<(), StoreError> {
        let mut count = sled::Batch::default();
        count.insert(WRITES_KEY, tables::seal(Tree::Meta, WRITES_KEY, &writes.to_be_bytes()));
        // Last in the log: where the count is, everything is.
        for (tree, batch) in self.batches.pieces.into_iter().chain([(Tree::Meta, count)]) {
            sled.trees[tree.index()].apply_batch(batch).map_err(|error| sled_error("write to", error))?;
        }
        for key in &self.batches.block_keys {
            sled.touch(Tree::Blocks, key)?;
        }
        #[cfg(any(test, feature = "wrong-rules"))]
        pretend(self.failure)?;
        sled.db.flush().map_err(|error| sled_error("flush", error))?;
        files.sync().map_err(|source| StoreError::Io { doing: "sync the files of", source })?;
        files.mark_written(writes).map_err(|source| StoreError::Io { doing: "count the writes of", source })
    }
}

#[cfg(any(test, feature = "wrong-rules"))]
fn pretend(failure: Option<WriteFailure>) -> Result<(), StoreError> {
    match failure {
        None => Ok(()),
        Some(WriteFailure::Sync) => {
            Err(StoreError::Io { doing: "sync the files of", source: io::Error::other("pretended by a test") })
        }
        Some(WriteFailure::Panic) => panic!("pretended by a test"),
        Some(WriteFailure::Hang) => loop {
            thread::park();
        },
    }
}

/// Waits for an answer as long as there is progress, and `patience_ms` longer.
fn patiently<T>(
    doing: &'static str,
    patience_ms: u64,
    lost_before: u32,
    progress: Option<&AtomicU64>,
    answered: &Receiver<T>,
) -> Result<T, StoreError> {
    let (mut seen, mut waited_ms) = (0, 0);
    loop {
        match answered.recv_timeout(Duration::from_millis(TICK_MS)) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(StoreError::Panicked { what: format!("its thread ended, when asked to {doing}") });
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = progress.map_or(0, |progress| progress.load(Ordering::Relaxed));
        waited_ms = if now == seen { waited_ms + TICK_MS } else { 0 };
        seen = now;
        let bereaved = io_threads_lost() > lost_before && waited_ms >= BEREAVED_PATIENCE_MS;
        if bereaved || waited_ms >= patience_ms {
            return Err(StoreError::Stuck { doing, waited_ms });
        }
    }
}

/// What one write does, in pieces of bounded size in the order of the trees.
struct Batches {
    pieces: Vec<(Tree, sled::Batch)>,
    block_keys: Vec<Vec<u8>>,
}

impl Batches {
    fn seal<'a>(writes: impl ExactSizeIterator<Item = (Tree, Vec<u8>, Option<&'a [u8]>)>) -> Result<Self, StoreError> {
        too_large("operations in one write", writes.len(), WRITE_OPERATIONS_MAX)?;
        let mut by_tree: [Vec<(sled::Batch, usize, usize)>; Tree::ALL.len()] = Default::default();
        let mut total = 0_usize;
        let mut block_keys = Vec::new();
        for (tree, key, value) in writes {
            let length = value.map_or(0, <[u8]>::len);
            too_large("bytes in one value", length, VALUE_BYTES_MAX)?;
            total = total.saturating_add(length + key.len());
            too_large("bytes in one write", total, WRITE_BYTES_MAX)?;
            let pieces = &mut by_tree[tree.index()];
            let full = |(_, count, bytes): &(_, usize, usize)| *count >= CHUNK_VALUES || *bytes >= CHUNK_BYTES;
            if pieces.last().is_none_or(full) {
                pieces.push((sled::Batch::default(), 0, 0));
            }
            let Some((batch, count, bytes)) = pieces.last_mut() else { continue };
            if tree == Tree::Blocks {
                block_keys.push(key.clone());
            }
            match value {
                Some(value) => {
                    let sealed = tables::seal(tree, &key, value);
                    batch.insert(key, sealed);
                }
                None => batch.remove(key),
            }
            *count += 1;
            *bytes += length;
        }
        let pieces = Tree::ALL.into_iter().zip(by_tree);
        let pieces = pieces.flat_map(|(tree, list)| list.into_iter().map(move |(b, ..)| (tree, b))).collect();
        Ok(Self { pieces, block_keys })
    }
}

fn too_large(what: &'static str, got: usize, limit: usize) -> Result<(), StoreError> {
    if got > limit { Err(StoreError::TooLarge { what, got, limit }) } else { Ok(()) }
}

/// sled's files that its flush does not sync.
struct SyncedFiles {
    db: File,
    blobs_path: PathBuf,
    blobs: File,
    synced: BTreeSet<OsString>,
    written: File,
    written_before: u64,
}

impl SyncedFiles {
    /// What an earlier process left unsynced is made durable here: it is about to be believed.
    fn open(dir: &Path) -> io::Result<Self> {
        let blobs_path = dir.join("blobs");
        let (db, blobs) = (File::open(dir.join("db"))?, File::open(&blobs_path)?);
        let written =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join("written"))?;
        let written_before = read_written(&written)?;
        let mut files = Self { db, blobs_path, blobs, synced: BTreeSet::new(), written, written_before };
        File::open(dir.join("conf"))?.sync_all()?;
        files.sync()?;
        File::open(dir)?.sync_all()?;
        directory::sync_parent(dir)?;
        Ok(files)
    }

    fn mark_written(&self, writes: u64) -> io::Result<()> {
        let count = writes.to_be_bytes();
        let crc = crc32c::crc32c(&count).to_be_bytes();
        self.written.write_all_at(&[&count[..], &crc[..]].concat(), 0)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut present = BTreeSet::new();
        for entry in fs::read_dir(&self.blobs_path)? {
            present.insert(entry?.file_name());
        }
        let mut created = false;
        for name in present.difference(&self.synced) {
            match File::open(self.blobs_path.join(name)) {
                Ok(blob) => blob.sync_data()?,
                // sled removes the file of a page that it has written anew.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            created = true;
        }
        if created {
            self.blobs.sync_all()?;
        }
        self.synced = present;
        // Last: the pages in this file point to the blobs.
        self.db.sync_data()
    }
}

/// A file that is not there yet, or was torn, knows of nothing.
fn read_written(file: &File) -> io::Result<u64> {
    let mut bytes = [0; 12];
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
        read => read?,
    }
    let (count, crc) = bytes.split_at(8);
    let whole = crc == crc32c::crc32c(count).to_be_bytes();
    Ok(tables::parse_number_key(count).filter(|_| whole).unwrap_or(0))
}

/// sled itself. Used inside the fence only.
struct Sled {
    db: sled::Db,
    trees: [sled::Tree; Tree::ALL.len()],
}

impl Sled {
    fn open(dir: &Path) -> Result<Self, StoreError> {
        let mut retries = LOCK_RETRIES;
        let db = loop {
            match guard::caught(|| config(dir).open()) {
                Ok(Ok(db)) => break db,
                Ok(Err(error)) if is_lock_error(&error) && retries == 0 => {
                    return Err(StoreError::InUse { path: dir.to_owned() });
                }
                Ok(Err(error)) if is_lock_error(&error) => {
                    retries -= 1;
                    thread::sleep(Duration::from_millis(LOCK_RETRY_MS));
                }
                Ok(Err(error)) => return Err(sled_error("open", error)),
                Err(what) => return Err(StoreError::Panicked { what }),
            }
        };
        // Leaked if one cannot be opened: dropping a damaged database writes to it.
        let db = std::mem::ManuallyDrop::new(db);
        let open_trees =
            || -> sled::Result<Vec<sled::Tree>> { Tree::ALL.iter().map(|tree| db.open_tree(tree.name())).collect() };
        let trees = guard::caught(open_trees).map_err(|what| StoreError::Panicked { what })?;
        let trees = std::mem::ManuallyDrop::new(trees.map_err(|error| sled_error("open", error))?);
        let trees = <[sled::Tree; Tree::ALL.len()]>::try_from(std::mem::ManuallyDrop::into_inner(trees));
        let trees =
            trees.map_err(|found| damaged(format!("it has {} trees, expected {}", found.len(), Tree::ALL.len())))?;
        Ok(Self { db: std::mem::ManuallyDrop::into_inner(db), trees })
    }

    fn value(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.trees[tree.index()].get(key).map_err(|error| sled_error("read", error))? {
            Some(sealed) => {
                self.touch(tree, key)?;
                opened(tree, key, &sealed).map(Some)
            }
            None => Ok(None),
        }
    }

    /// Makes sled notice that its cache is full: see [`TOUCHES`].
    fn touch(&self, tree: Tree, key: &[u8]) -> Result<(), StoreError> {
        for _ in 0..TOUCHES {
            self.trees[tree.index()].contains_key(key).map_err(|error| sled_error("read", error))?;
        }
        Ok(())
    }

    /// How many writes are there.
    fn writes(&self) -> Result<u64, StoreError> {
        let count = self.value(Tree::Meta, WRITES_KEY)?;
        Ok(count.and_then(|count| tables::parse_number_key(&count)).unwrap_or(0))
    }

    fn chunk(
        &self,
        tree: Tree,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for entry in self.trees[tree.index()].range::<&[u8], _>(range).take(count_max) {
            if bytes >= bytes_max && !entries.is_empty() {
                break;
            }
            let (key, sealed) = entry.map_err(|error| sled_error("read", error))?;
            // A range that turns back would keep its reader for ever.
            if !tree.is_key(&key) || entries.last().is_some_and(|(last, _)| last[..] >= key[..]) {
                return Err(damaged(format!("the tree {} has a key {:?} out of place", tree.name(), key.as_ref())));
            }
            let value = opened(tree, &key, &sealed)?;
            bytes += value.len();
            self.touch(tree, &key)?;
            entries.push((key.to_vec(), value));
        }
        Ok(entries)
    }

    /// The entry beside `from`, sealed or not as it may be; for salvage.
    fn neighbour(&self, tree: Tree, from: Option<&[u8]>, backwards: bool) -> sled::Result<Option<Entry>> {
        let edge = from.map_or(Bound::Unbounded, Bound::Excluded);
        let range = if backwards { (Bound::Unbounded, edge) } else { (edge, Bound::Unbounded) };
        let mut range = self.trees[tree.index()].range::<&[u8], _>(range);
        let entry = if backwards { range.next_back() } else { range.next() };
        Ok(entry.transpose()?.map(|(key, sealed)| (key.to_vec(), sealed.to_vec())))
    }
}

impl std::fmt::Debug for Sled {
    /// sled's own prints every page.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sled")
    }
}

fn config(dir: &Path) -> sled::Config {
    // sled's `mode` is left alone: 0.34.7 stores it and never reads it.
    sled::Config::new()
        .path(dir)
        .cache_capacity(CACHE_BYTES)
        .segment_size(SEGMENT_BYTES)
        .flush_every_ms(None)
        .print_profile_on_drop(false)
}

fn opened(tree: Tree, key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
    let value = tables::unseal(tree, key, sealed);
    let name = || format!("the tree {} under the key {}", tree.name(), crate::replica::ids::hex(key));
    Ok(value.map_err(|broken| damaged(format!("{}: {broken}", name())))?.to_vec())
}

fn bad_meta_name(write: &Write<'_>) -> Option<String> {
    let Write::Meta(name, _) = write else { return None };
    let bad = name.is_empty() || name.len() > META_KEY_BYTES_MAX || RESERVED.contains(name);
    bad.then(|| String::from_utf8_lossy(name).into_owned())
}

fn damaged(what: String) -> StoreError {
    StoreError::Damaged { what }
}

fn is_lock_error(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().starts_with("could not acquire lock"))
}

/// Damage is everything that another machine would say of the same files; what only this one says now is [`StoreError::Io`].
fn sled_error(doing: &'static str, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(source) if is_the_machines_fault(&source) => StoreError::Io { doing, source },
        // Said when one of its threads has died before.
        sled::Error::ReportableBug(what) => StoreError::Io { doing, source: io::Error::other(what) },
        other => damaged(other.to_string()),
    }
}

fn is_the_machines_fault(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    let kinds =
        [Kind::PermissionDenied, Kind::StorageFull, Kind::QuotaExceeded, Kind::ReadOnlyFilesystem, Kind::OutOfMemory];
    let too_many_files = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
    kinds.contains(&error.kind()) || too_many_files.contains(&error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::replica::ids::{LogNo, MemberId};

    fn origin(member: u8, log_no: u32) -> Origin {
        Origin { member: MemberId([member; 16]), log_no: LogNo(log_no) }
    }

    pub(super) fn id(member: u8, seq: u64) -> BlockId {
        BlockId { origin: origin(member, 0), seq: Seq(seq) }
    }

    /// Bytes that differ for every block and do not repeat within one.
    pub(super) fn frame(id: BlockId, length: usize) -> Vec<u8> {
        let mut state = id.seq.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(id.origin.member.0[0]);
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_be_bytes()[3]
            })
            .collect()
    }

    pub(super) fn open(dir: &Path) -> Store {
        let (store, aside) = Store::open_or_set_aside(dir).unwrap();
        assert_eq!(aside, None);
        store
    }

    pub(super) fn all_blocks(store: &Store) -> BTreeMap<BlockId, Vec<u8>> {
        let mut blocks = BTreeMap::new();
        store
            .for_each_block(|id, frame| {
                blocks.insert(id, frame.to_vec());
                ControlFlow::Continue(())
            })
            .unwrap();
        blocks
    }

    pub(super) fn copy_folder(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy_folder(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }

    #[test]
    fn what_was_written_is_read_back_also_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("replica");
        let created = Store::open(&dir).unwrap();
        assert!(created.created);
        let store = created.store;
        let (a, b) = (frame(id(1, 1), 60_000), frame(id(1, 2), 300));
        store
            .write(&[
                Write::Block(id(1, 1), &a),
                Write::Block(id(1, 2), &b),
                Write::Charter(1, b"founding"),
                Write::Proof([7; 32], b"proof"),
                Write::Proof([8; 32], b"other"),
                Write::Meta(b"forum", b"acme"),
            ])
            .unwrap();
        store.write(&[Write::DeleteProof([8; 32]), Write::Charter(2, b"second")]).unwrap();
        let mut first_process = Some(store);
        for _ in 0..2 {
            let store = first_process.take().unwrap_or_else(|| open(&dir));
            assert_eq!(store.block(id(1, 1)).unwrap().as_ref(), Some(&a));
            assert_eq!(store.block(id(1, 3)).unwrap(), None);
            assert_eq!(all_blocks(&store).into_values().collect::<Vec<_>>(), [a.clone(), b.clone()]);
            assert_eq!(store.charters().unwrap(), [(1, b"founding".to_vec()), (2, b"second".to_vec())]);
            assert_eq!(store.proofs().unwrap(), [([7; 32], b"proof".to_vec())]);
            assert_eq!(store.meta(b"forum").unwrap().as_deref(), Some(&b"acme"[..]));
            assert_eq!(store.verify().unwrap(), 8);
        }
        assert!(!Store::open(&dir).unwrap().created);
    }

    #[test]
    fn a_log_is_read_in_pieces_of_bounded_count_and_size() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder.path().join("replica"));
        let frames: Vec<_> = (1..=200).map(|seq| (id(2, seq), frame(id(2, seq), 1_000))).collect();
        for group in frames.chunks(50) {
            let batch: Vec<_> = group.iter().map(|(id, frame)| Write::Block(*id, frame)).collect();
            store.write(&batch).unwrap();
        }
        store.write(&[Write::Block(id(1, 1), b"before"), Write::Block(id(3, 1), b"after")]).unwrap();
        let seqs = |from, count, bytes| -> Vec<u64> {
            let found = store.blocks_from(origin(2, 0), Seq(from), count, bytes).unwrap();
            found.into_iter().map(|(seq, _)| seq.0).collect()
        };
        assert_eq!(seqs(1, 3, usize::MAX), [1, 2, 3]);
        assert_eq!(seqs(199, 10, usize::MAX), [199, 200]);
        assert_eq!(seqs(7, 100, 2_500), [7, 8, 9]);
        assert_eq!(seqs(7, 100, 0), [7], "at least one, or nobody would ever get on");
        assert_eq!(seqs(201, 10, usize::MAX), [0; 0]);
        assert_eq!(all_blocks(&store).len(), 202);
        let mut seen = 0;
        store
            .for_each_block(|_, _| {
                seen += 1;
                if seen == 70 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        assert_eq!(seen, 70);
    }

    #[test]
    fn limits_refuse_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder.path().join("replica"));
        let (large, largest) = (vec![0; VALUE_BYTES_MAX + 1], vec![0; VALUE_BYTES_MAX]);
        let too_much: Vec<_> = (0..31).map(|version| Write::Charter(version, &largest)).collect();
        let cases = [
            vec![Write::Block(id(1, 1), &large)],
            vec![Write::DeleteProof([1; 32]); WRITE_OPERATIONS_MAX + 1],
            too_much,
        ];
        for case in cases {
            assert!(matches!(store.write(&case), Err(StoreError::TooLarge { .. })), "{} writes", case.len());
        }
        for name in [&[b'n'; META_KEY_BYTES_MAX + 1][..], b"", FORMAT_KEY, WRITES_KEY] {
            assert!(matches!(store.write(&[Write::Meta(name, b"x")]), Err(StoreError::Name { .. })));
        }
        assert_eq!((store.verify().unwrap(), store.is_poisoned()), (2, false));
        store.write(&[Write::Block(id(1, 1), &largest), Write::Meta(&[b'n'; META_KEY_BYTES_MAX], b"")]).unwrap();
    }

    #[test]
    fn a_failed_write_closes_the_store_for_writing_and_reads_go_on() {
        for failure in [WriteFailure::Sync, WriteFailure::Panic] {
            let folder = tempfile::tempdir().unwrap();
            let store = open(&folder.path().join("replica"));
            store.write(&[Write::Block(id(1, 1), b"first")]).unwrap();
            store.fail_next_write(failure);
            assert!(store.write(&[Write::Block(id(1, 2), b"second")]).is_err());
            for _ in 0..3 {
                let refused = store.write(&[Write::Block(id(1, 3), b"third")]);
                assert!(
                    matches!(&refused, Err(StoreError::Poisoned { first }) if first.contains("pretended")),
                    "{refused:?}"
                );
            }
            assert_eq!(store.block(id(1, 1)).unwrap().as_deref(), Some(&b"first"[..]));
            assert_eq!(store.block(id(1, 3)).unwrap(), None);
        }
    }

    #[test]
    fn a_write_that_never_returns_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(&folder.path().join("replica"));
        store.write_patience_ms = 200;
        store.fail_next_write(WriteFailure::Hang);
        assert!(matches!(store.write(&[Write::Block(id(1, 1), b"x")]), Err(StoreError::Stuck { doing: "write", .. })));
        assert!(matches!(store.write(&[Write::Block(id(1, 1), b"x")]), Err(StoreError::Poisoned { .. })));
        assert!(matches!(store.block(id(1, 1)), Err(StoreError::Poisoned { .. })), "reading could hang too");
    }

    #[test]
    fn a_folder_in_use_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("replica");
        let _store = open(&dir);
        assert!(matches!(Store::open_or_set_aside(&dir), Err(StoreError::InUse { .. })));
        assert!(directory::moved_aside(&dir).unwrap().is_empty());
    }

    #[test]
    fn a_newer_format_is_left_alone_and_a_missing_one_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("replica");
        let store = open(&dir);
        store.write_sealed([(Tree::Meta, FORMAT_KEY.to_vec(), Some(&2_u32.to_be_bytes()[..]))].into_iter()).unwrap();
        drop(store);
        assert!(matches!(Store::open_or_set_aside(&dir), Err(StoreError::Format { got: 2 })));
        assert!(directory::moved_aside(&dir).unwrap().is_empty());

        let store = Store::open_unchecked(&dir).unwrap();
        store.write(&[Write::Block(id(1, 1), b"kept")]).unwrap();
        store.guarded("remove", |sled| Ok(sled.trees[Tree::Meta.index()].remove(FORMAT_KEY).unwrap())).unwrap();
        drop(store);
        let (store, aside) = Store::open_or_set_aside(&dir).unwrap();
        let aside = aside.unwrap();
        assert_eq!((aside.salvaged_blocks, aside.searched_to_the_end), (1, true), "{aside:?}");
        assert_eq!(store.block(id(1, 1)).unwrap().as_deref(), Some(&b"kept"[..]));
    }

    #[test]
    fn a_value_that_rotted_unnoticed_by_sled_is_noticed_and_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("replica");
        let store = open(&dir);
        let frames: Vec<_> = (1..=100).map(|seq| (id(1, seq), frame(id(1, seq), 500))).collect();
        store.write(&frames.iter().map(|(id, frame)| Write::Block(*id, frame)).collect::<Vec<_>>()).unwrap();
        let key = tables::block_key(id(1, 40));
        let mut rotten = tables::seal(Tree::Blocks, &key, &frames[39].1);
        rotten[99] ^= 1;
        let sealed_elsewhere = tables::seal(Tree::Blocks, &tables::block_key(id(1, 1)), &frames[0].1);
        store
            .guarded("rot", |sled| {
                sled.trees[Tree::Blocks.index()].insert(key, rotten).unwrap();
                sled.trees[Tree::Blocks.index()].insert(tables::block_key(id(1, 50)), sealed_elsewhere).unwrap();
                Ok(())
            })
            .unwrap();
        for seq in [40, 50] {
            assert!(matches!(store.block(id(1, seq)), Err(StoreError::Damaged { what }) if what.contains("checksum")));
        }
        drop(store);
        let (store, aside) = Store::open_or_set_aside(&dir).unwrap();
        assert_eq!(aside.unwrap().salvaged_blocks, 98);
        let kept = all_blocks(&store);
        assert!(frames.iter().all(|(at, frame)| match at.seq.0 {
            40 | 50 => !kept.contains_key(at),
            _ => kept.get(at) == Some(frame),
        }));
        assert!(dir.with_file_name("replica.damaged-1").is_dir());
    }

    #[test]
    fn a_folder_of_format_1_can_still_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("replica");
        copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/format-1"), &dir);
        assert_format_1(&open(&dir));
    }

    fn assert_format_1(store: &Store) {
        assert_eq!(store.block(id(1, 2)).unwrap(), Some(frame(id(1, 2), 300)));
        assert_eq!(store.charters().unwrap(), [(1, b"founding".to_vec())]);
        assert_eq!(store.proofs().unwrap(), [([7; 32], b"proof".to_vec())]);
        assert_eq!(store.meta(b"forum").unwrap().as_deref(), Some(&b"acme"[..]));
    }

    /// Writes `src/store/format-1` if it is missing, once per format.
    #[test]
    #[ignore = "makes the fixture"]
    fn make_the_folder_of_format_1() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/format-1");
        assert!(!fixture.exists(), "an old node's files are not written anew");
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("replica");
        let store = open(&dir);
        let block = frame(id(1, 2), 300);
        store
            .write(&[
                Write::Block(id(1, 2), &block),
                Write::Charter(1, b"founding"),
                Write::Proof([7; 32], b"proof"),
                Write::Meta(b"forum", b"acme"),
            ])
            .unwrap();
        drop(store);
        // Before it is opened again: then sled fills up its segment of 4 MiB.
        copy_folder(&dir, &fixture);
        assert_format_1(&open(&dir));
    }

    #[test]
    fn writes_that_sled_lost_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, earlier) = (folder.path().join("replica"), folder.path().join("earlier"));
        let store = open(&dir);
        store.write(&[Write::Charter(1, b"founding")]).unwrap();
        copy_folder(&dir, &earlier);
        store.write(&[Write::Charter(2, b"second")]).unwrap();
        drop(store);
        fs::copy(earlier.join("db"), dir.join("db")).unwrap();
        let (store, aside) = Store::open_or_set_aside(&dir).unwrap();
        assert!(aside.unwrap().reason.contains("2 writes are there of at least 3"));
        assert_eq!(store.charters().unwrap(), [(1, b"founding".to_vec())]);
        drop(store);
        // The count itself may be torn or lost in a crash; then it knows nothing, and says nothing.
        for harm in [&b"torn"[..], b"", &[0xff; 12]] {
            fs::write(dir.join("written"), harm).unwrap();
            open(&dir);
        }
    }

    #[test]
    fn a_move_that_was_interrupted_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("replica");
        let store = open(&dir);
        store.write(&[Write::Charter(1, b"founding")]).unwrap();
        drop(store);
        fs::rename(&dir, folder.path().join("replica.rebuilding")).unwrap();
        assert_eq!(open(&dir).charters().unwrap(), [(1, b"founding".to_vec())]);
    }

    #[test]
    fn everything_acknowledged_is_in_a_copy_taken_at_any_moment() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("replica");
        let store = open(&dir);
        let mut acknowledged = BTreeMap::new();
        for round in 0..24_u64 {
            let group: Vec<_> = (0..=round % 4)
                .map(|n| id(u8::try_from(n).unwrap(), round + 1))
                .map(|id| (id, frame(id, if round % 5 == 0 { 200_000 } else { 900 })))
                .collect();
            store.write(&group.iter().map(|(id, frame)| Write::Block(*id, frame)).collect::<Vec<_>>()).unwrap();
            acknowledged.extend(group);
            if round % 3 == 0 {
                // The process that would die here is this one; what it would leave is what the files hold now.
                let copy = folder.path().join(format!("copy-{round}"));
                copy_folder(&dir, &copy);
                assert_eq!(all_blocks(&open(&copy)), acknowledged, "round {round}");
            }
        }
    }

    type Populated = (BTreeMap<BlockId, Vec<u8>>, Vec<(u64, Vec<u8>)>);

    /// A folder with several segments, deletions, overwritten values and large pages.
    fn populated(dir: &Path) -> Populated {
        let mut store = open(dir);
        let mut blocks = BTreeMap::new();
        for seq in 1..=60_u64 {
            if seq % 20 == 0 {
                // sled writes a snapshot when it opens; most panics come from one that does not fit its log.
                drop(store);
                store = open(dir);
            }
            let group: Vec<_> = (1..=4_u8)
                .map(|member| id(member, seq))
                .map(|id| (id, frame(id, if id.origin.member.0[0] == 4 { 90_000 } else { 1_500 })))
                .collect();
            store.write(&group.iter().map(|(id, frame)| Write::Block(*id, frame)).collect::<Vec<_>>()).unwrap();
            store
                .write(&[Write::Proof([u8::try_from(seq).unwrap(); 32], &group[0].1), Write::Charter(seq, &group[1].1)])
                .unwrap();
            blocks.extend(group);
        }
        let charters = store.charters().unwrap();
        drop(store);
        drop(open(dir));
        (blocks, charters)
    }

    #[test]
    fn no_damaged_copy_brings_a_panic_or_a_wrong_value() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("replica");
        let (blocks, charters) = populated(&dir);
        let mut outcomes = BTreeMap::<String, u32>::new();
        for seed in 0..72_u64 {
            let copy = folder.path().join(format!("copy-{seed}"));
            copy_folder(&dir, &copy);
            let what = harm(&copy, seed);
            let (store, aside) = Store::open_or_set_aside(&copy).unwrap();
            let kept = all_blocks(&store);
            assert!(kept.iter().all(|(id, frame)| blocks.get(id) == Some(frame)), "seed {seed}: {what}");
            assert!(store.charters().unwrap().iter().all(|charter| charters.contains(charter)), "seed {seed}: {what}");
            let kind = what.split(' ').next().unwrap_or_default();
            let outcome = match &aside {
                None => {
                    assert_eq!(
                        (&kept, store.charters().unwrap().len()),
                        (&blocks, 60),
                        "a silent loss, seed {seed}: {what}"
                    );
                    "unharmed"
                }
                Some(aside) if aside.salvaged_blocks > 0 => "salvaged",
                Some(_) => "begun anew",
            };
            println!("seed {seed}: {what}: kept {} of {}; {aside:?}", kept.len(), blocks.len());
            *outcomes.entry(format!("{kind}: {outcome}")).or_default() += 1;
            store.write(&[Write::Block(id(9, 1), b"goes on")]).unwrap();
            drop(store);
            fs::remove_dir_all(&copy).unwrap();
        }
        println!("{outcomes:#?}, threads lost: {}", io_threads_lost());
        assert_eq!(open(&dir).verify().unwrap(), 60 * 6 + 2, "the original is untouched");
    }

    /// Harms one file of `copy`, depending on `seed` only, and tells how.
    fn harm(copy: &Path, seed: u64) -> String {
        let mut files = Vec::new();
        for folder in [copy.to_owned(), copy.join("blobs")] {
            files
                .extend(fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()));
        }
        files.sort();
        // The log is nearly everything; every fourth time another file's turn comes.
        let db = copy.join("db");
        let pick = usize::try_from(seed / 4).unwrap() % files.len();
        let path = if seed % 4 == 3 { files[pick].clone() } else { db };
        let mut bytes = fs::read(&path).unwrap();
        let at = usize::try_from(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 4).unwrap()
            % bytes.len().max(1);
        let name = path.strip_prefix(copy).unwrap().display().to_string();
        let how = match (seed / 3) % 4 {
            _ if bytes.is_empty() => "nothing in",
            0 => {
                bytes[at] ^= 1 << (seed % 8);
                "bit flipped in"
            }
            1 => {
                bytes.truncate(at);
                "cut"
            }
            2 => {
                let page = at / 4_096 * 4_096;
                let end = (page + 4_096).min(bytes.len());
                bytes[page..end].fill(0);
                "page zeroed in"
            }
            _ if seed % 24 < 12 => {
                fs::remove_file(&path).unwrap();
                return format!("removed {name}");
            }
            _ => {
                bytes[at..].fill(0);
                "tail zeroed of"
            }
        };
        fs::write(&path, bytes).unwrap();
        format!("{how} {name} at {at}")
    }

    /// `mount -t tmpfs -o size=40m none /mnt/small; STAYDOWN_SMALL_DISK=/mnt/small cargo test ... -- --ignored`
    #[test]
    #[ignore = "needs a small file system of its own"]
    fn a_full_disk_closes_the_store_and_what_was_acknowledged_is_there_after() {
        let Some(disk) = std::env::var_os("STAYDOWN_SMALL_DISK").map(PathBuf::from) else { return };
        let folder = tempfile::tempdir_in(disk).unwrap();
        let (dir, filler) = (folder.path().join("replica"), folder.path().join("filler"));
        fs::write(&filler, vec![0; 10 << 20]).unwrap();
        let store = open(&dir);
        let mut acknowledged = BTreeMap::new();
        let error = (1..10_000)
            .find_map(|seq| {
                let (id, frame) = (id(1, seq), frame(id(1, seq), 60_000));
                let outcome = store.write(&[Write::Block(id, &frame)]);
                acknowledged.extend(outcome.is_ok().then_some((id, frame)));
                outcome.err()
            })
            .unwrap();
        println!("after {} blocks: {error}", acknowledged.len());
        assert!(matches!(store.write(&[Write::Charter(1, b"x")]), Err(StoreError::Poisoned { .. })));
        let (first_id, first_frame) = acknowledged.first_key_value().unwrap();
        println!("reading on: {:?}", store.block(*first_id).map(|frame| frame.as_ref() == Some(first_frame)));
        drop(store);
        fs::remove_file(filler).unwrap();
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&dir, &copy.path().join("replica"));
        let (store, aside) = Store::open_or_set_aside(&copy.path().join("replica")).unwrap();
        println!("after the restart: {aside:?}");
        let kept = all_blocks(&store);
        assert!(acknowledged.iter().all(|(id, frame)| kept.get(id) == Some(frame)));
    }

    /// `cargo test --release --lib store::tests::measure -- --ignored --nocapture`
    #[test]
    #[ignore = "a measurement"]
    fn measure() {
        let memory = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
            format!("{} {}", line("VmRSS"), line("VmHWM"))
        };
        let folder = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
        for (name, count, length, group) in
            [("60 KB by 8", 4_000, 60_000, 8), ("60 KB by 32", 4_000, 60_000, 32), ("300 B by 1", 3_000_u64, 300, 1)]
        {
            let dir = folder.path().join(name.replace(' ', "-"));
            let store = open(&dir);
            let frames: Vec<_> = (1..=64).map(|seq| frame(id(1, seq), length)).collect();
            let begun = crate::clock::instant();
            for first in (0..count).step_by(group) {
                let batch: Vec<_> = (first..first + group as u64)
                    .map(|seq| Write::Block(id(1, seq + 1), &frames[usize::try_from(seq % 64).unwrap()]))
                    .collect();
                store.write(&batch).unwrap();
            }
            let took = begun.elapsed().as_secs_f64();
            let size = |path: &Path| -> u64 {
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().metadata().unwrap())
                    .filter(|m| m.is_file())
                    .map(|m| m.len())
                    .sum()
            };
            let (db, blobs) = (size(&dir), size(&dir.join("blobs")));
            let blob_count = fs::read_dir(dir.join("blobs")).unwrap().count();
            let megabytes = count as f64 * length as f64 / 1e6;
            println!(
                "{name}: {took:.2} s, {:.0} commits/s, {:.1} MB/s, on disk {:.2} times ({blob_count} blobs of {:.0} MB in all), {}",
                count as f64 / group as f64 / took,
                megabytes / took,
                (db + blobs) as f64 / 1e6 / megabytes,
                blobs as f64 / 1e6,
                memory()
            );
            drop(store);
            let begun = crate::clock::instant();
            let store = Store::open(&dir).unwrap().store;
            let opened = begun.elapsed().as_secs_f64();
            assert_eq!(store.verify().unwrap(), count + 2);
            println!(
                "    opened in {opened:.2} s, verified in {:.2} s, {}",
                begun.elapsed().as_secs_f64() - opened,
                memory()
            );
        }
    }
}
