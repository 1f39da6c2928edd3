//! What happens to a damaged store: it is moved aside, a new one takes its place, and what could still be read is in it.
//!
//! Order, so that a crash anywhere leaves something to start from: copy what can be read to `<dir>.rebuilding`; move
//! the damaged folder to `<dir>.damaged-<n>`; move the copy into its place. Nothing damaged is ever deleted. (sled
//! itself, when it opens a torn folder, overwrites torn segments and removes blobs that its log does not reach.)

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use super::tables::{self, Tree};
use super::{
    CHUNK_BYTES, CHUNK_VALUES, RESERVED, Store, StoreError, VALUE_BYTES_MAX, directory, generation, guard,
    io_threads_lost, patiently,
};

/// How long opening or examining may make no progress, beside what its size allows.
const EXAMINE_PATIENCE_MS: u64 = 60_000;

/// The slowest disk that a node may have, in bytes per millisecond (20 MB/s): opening reads the whole log.
const SLOWEST_DISK_BYTES_PER_MS: u64 = 20_000;

/// How long salvage waits for one value.
const SALVAGE_PATIENCE_MS: u64 = 30_000;

/// Values that wait between the reader and the writer of a salvage.
const SALVAGE_QUEUE: usize = 16;

/// The small and telling first; the blocks are most of it.
const SALVAGE_ORDER: [Tree; 4] = [Tree::Charters, Tree::Proofs, Tree::Meta, Tree::Blocks];

/// What happened to a damaged store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Where the damaged folder is now.
    pub moved_to: PathBuf,
    /// What was wrong with it.
    pub reason: String,
    /// Blocks that could still be read and are in the new store. There may be gaps in every log, and the newest may be
    /// missing: what follows a gap has to be fetched again.
    pub salvaged_blocks: u64,
    /// Values of all trees in the new store, blocks included. Old values may have come back: a deleted proof, an earlier
    /// `meta` value.
    pub salvaged_values: u64,
    /// Whether the search came to its end in every tree. The newest values may still be missing: sled's log is read
    /// up to its first bad place.
    pub searched_to_the_end: bool,
    /// Whether the store engine lost threads on the way, or hangs in one: restart the process when it suits.
    pub restart_advised: bool,
}

impl Store {
    /// Opens the store in `dir` and checks every value. A damaged folder is moved aside to `<dir>.damaged-<n>`, and the
    /// store begun again with what could still be read.
    ///
    /// # Errors
    /// What is not damage: [`StoreError::Io`], [`StoreError::InUse`], [`StoreError::Format`], [`StoreError::Spent`].
    /// The folder is where it was then, or where [`SetAside`] would have said if the new store could not be opened.
    pub fn open_or_set_aside(dir: &Path) -> Result<(Self, Option<SetAside>), StoreError> {
        Self::open_examined(dir, Examination::All)
    }

    /// As [`Store::open_or_set_aside`], for whoever knows what the values come to and checks them later: they are not read.
    ///
    /// # Errors
    /// As there.
    pub fn open_unread_or_set_aside(dir: &Path) -> Result<(Self, Option<SetAside>), StoreError> {
        Self::open_examined(dir, Examination::Beginning)
    }

    fn open_examined(dir: &Path, how: Examination) -> Result<(Self, Option<SetAside>), StoreError> {
        let rebuilding = directory::rebuilding_name(dir);
        directory::finish_interrupted(dir, &rebuilding)
            .map_err(|source| StoreError::Io { doing: "finish moving", source })?;
        match examine(dir, how)? {
            Examined::Sound(store) => Ok((*store, None)),
            Examined::Damaged { store, reason, stuck } => {
                let (store, mut aside) = replace(dir, &rebuilding, store, reason)?;
                aside.restart_advised |= stuck;
                Ok((store, Some(aside)))
            }
        }
    }
}

/// How much of a store is looked at when it is opened.
#[derive(Clone, Copy)]
enum Examination {
    /// Whether it is ours and has not lost its end.
    Beginning,
    /// Every value, too.
    All,
}

enum Examined {
    Sound(Box<Store>),
    /// With the store, if it could be opened.
    Damaged {
        store: Option<Box<Store>>,
        reason: String,
        stuck: bool,
    },
}

/// On a thread of its own: sled may never come back.
fn examine(dir: &Path, how: Examination) -> Result<Examined, StoreError> {
    let lost_before = io_threads_lost();
    let current = generation::current(dir).map_err(|source| StoreError::Io { doing: "find the files of", source })?;
    let length = fs::metadata(current.join("db")).map_or(0, |file| file.len());
    let patience_ms = EXAMINE_PATIENCE_MS + length / SLOWEST_DISK_BYTES_PER_MS;
    let progress = Arc::new(AtomicU64::new(0));
    let (answer, answered) = mpsc::sync_channel(1);
    let (dir, counted) = (dir.to_owned(), Arc::clone(&progress));
    let work = move || {
        // If nobody waits any more, the answer is dropped with the store in it.
        drop(answer.send(open_and_verify(&dir, how, &counted)));
    };
    spawn("store-examiner", work)?;
    match patiently("open", patience_ms, lost_before, Some(&progress), &answered) {
        Ok(examined) => examined,
        // The thread may wake up one day; it has the damaged files open, and the new folder's name for blobs.
        Err(error) => Ok(Examined::Damaged { store: None, reason: error.to_string(), stuck: true }),
    }
}

fn open_and_verify(dir: &Path, how: Examination, progress: &AtomicU64) -> Result<Examined, StoreError> {
    let store = match Store::open_unchecked(dir) {
        Ok(store) => Box::new(store),
        Err(error @ StoreError::Damaged { .. }) => {
            return Ok(Examined::Damaged { store: from_the_log_alone(dir), reason: reason(error), stuck: false });
        }
        Err(error) if error.is_damage() => {
            return Ok(Examined::Damaged { store: None, reason: reason(error), stuck: false });
        }
        Err(error) => return Err(error),
    };
    let values = || match how {
        Examination::Beginning => Ok(()),
        Examination::All => store.verify_with_progress(progress).map(drop),
    };
    match store.check_beginning().and_then(|_| values()) {
        Ok(()) => Ok(Examined::Sound(store)),
        Err(error) if error.is_damage() => {
            Ok(Examined::Damaged { store: Some(store), reason: reason(error), stuck: false })
        }
        Err(error) => Err(error),
    }
}

/// sled's settings hold nothing that we do not know, and its snapshot nothing that is not in its log; without them it
/// makes new ones, and often reads what it refused before. For salvage only: what such a store lost, nobody can tell.
fn from_the_log_alone(dir: &Path) -> Option<Box<Store>> {
    let current = generation::current(dir).ok()?;
    for entry in fs::read_dir(&current).ok()? {
        let name = entry.ok()?.file_name();
        if name.to_str().is_some_and(|name| name == "conf" || name.starts_with("snap.")) {
            let mut kept = OsString::from("damaged-");
            kept.push(&name);
            fs::rename(current.join(&name), current.join(kept)).ok()?;
        }
    }
    Store::open_unchecked(dir).ok().map(Box::new)
}

fn replace(
    dir: &Path,
    rebuilding: &Path,
    damaged: Option<Box<Store>>,
    reason: String,
) -> Result<(Store, SetAside), StoreError> {
    let io_error = |source| StoreError::Io { doing: "move aside", source };
    generation::remove(rebuilding).map_err(io_error)?;
    let fresh = Store::open(rebuilding)?.store;
    let mut salvage = Salvage { fresh, waiting: Vec::new(), bytes: 0, blocks: 0, values: 0, to_the_end: false };
    if let Some(damaged) = damaged {
        salvage.copy_from(damaged)?;
    }
    let Salvage { fresh, blocks, values, to_the_end, .. } = salvage;
    drop(fresh);
    let moved_to = directory::free_name_beside(dir).map_err(io_error)?;
    fs::rename(dir, &moved_to).map_err(io_error)?;
    fs::rename(rebuilding, dir).map_err(io_error)?;
    directory::sync_parent(dir).map_err(io_error)?;
    let store = Store::open(dir)?.store;
    let what_happened = SetAside {
        moved_to,
        reason,
        salvaged_blocks: blocks,
        salvaged_values: values,
        searched_to_the_end: to_the_end,
        restart_advised: io_threads_lost() > 0,
    };
    Ok((store, what_happened))
}

struct Salvage {
    fresh: Store,
    waiting: Vec<(Tree, Vec<u8>, Vec<u8>)>,
    bytes: usize,
    blocks: u64,
    values: u64,
    to_the_end: bool,
}

enum Found {
    Value(Tree, Vec<u8>, Vec<u8>),
    End { searched_everything: bool },
}

impl Salvage {
    /// An error of the new store (a full disk) ends the copying, not the start: the peers have the rest.
    fn copy_from(&mut self, damaged: Box<Store>) -> Result<(), StoreError> {
        let lost_before = io_threads_lost();
        let (sender, found) = mpsc::sync_channel(SALVAGE_QUEUE);
        spawn("store-salvage", move || {
            let mut searched_everything = true;
            for tree in SALVAGE_ORDER {
                searched_everything &= search(&damaged, tree, &sender);
            }
            drop(sender.send(Found::End { searched_everything }));
            // Never dropped: its drop writes, and may panic or hang.
            std::mem::forget(damaged);
        })?;
        loop {
            match patiently("salvage", SALVAGE_PATIENCE_MS, lost_before, None, &found) {
                Ok(Found::Value(tree, key, value)) => {
                    if self.keep(tree, key, value).is_err() {
                        return Ok(());
                    }
                }
                Ok(Found::End { searched_everything }) => {
                    self.to_the_end = self.write().is_ok() && searched_everything;
                    return Ok(());
                }
                Err(_) => {
                    drop(self.write());
                    return Ok(());
                }
            }
        }
    }

    fn keep(&mut self, tree: Tree, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        self.bytes += value.len();
        self.waiting.push((tree, key, value));
        if self.waiting.len() < CHUNK_VALUES && self.bytes < CHUNK_BYTES { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let waiting = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        self.fresh.write_sealed(waiting.iter().map(|(tree, key, value)| (*tree, key.clone(), Some(&value[..]))))?;
        self.values += waiting.len() as u64;
        self.blocks += waiting.iter().filter(|(tree, ..)| *tree == Tree::Blocks).count() as u64;
        Ok(())
    }
}

/// Reads a tree value by value from the front, and where that ends in an error, from the back. Tells whether every key
/// was seen.
fn search(damaged: &Store, tree: Tree, found: &SyncSender<Found>) -> bool {
    let mut front: Option<Vec<u8>> = None;
    let to_the_end = walk(damaged, tree, false, &mut front, |_| true, found);
    if !to_the_end {
        let front = front.unwrap_or_default();
        let mut back = None;
        walk(damaged, tree, true, &mut back, |key| key > &front[..], found);
    }
    to_the_end
}

fn walk(
    damaged: &Store,
    tree: Tree,
    backwards: bool,
    at: &mut Option<Vec<u8>>,
    wanted: impl Fn(&[u8]) -> bool,
    found: &SyncSender<Found>,
) -> bool {
    let Some(sled) = damaged.sled.load_full() else { return false };
    loop {
        let Ok(Ok(entry)) = guard::caught(|| sled.neighbour(tree, at.as_deref(), backwards)) else { return false };
        let Some((key, sealed)) = entry.filter(|(key, _)| wanted(key)) else { return true };
        // Damaged pages may lead in a circle; every step has to go on.
        if at.as_ref().is_some_and(|at| if backwards { key >= *at } else { key <= *at }) {
            return false;
        }
        if let Some(value) = believable(tree, &key, &sealed)
            && found.send(Found::Value(tree, key.clone(), value)).is_err()
        {
            return false;
        }
        *at = Some(key);
    }
}

fn believable(tree: Tree, key: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let value = tables::unseal(tree, key, sealed).ok()?;
    let ours = tree == Tree::Meta && RESERVED.contains(&key);
    (tree.is_key(key) && !ours && value.len() <= VALUE_BYTES_MAX).then(|| value.to_vec())
}

fn reason(error: StoreError) -> String {
    match error {
        StoreError::Damaged { what } | StoreError::Panicked { what } => what,
        other => other.to_string(),
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|source| StoreError::Io { doing: "start a thread for", source })
}
