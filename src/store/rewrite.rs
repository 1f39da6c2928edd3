//! Erasure: a store that physically holds no byte of what was replaced or deleted.
//!
//! sled never overwrites: an old value stays in its log until a segment happens to be used again. So everything is copied
//! into a new database beside the old one (`generation.rs`), checked, made the one that counts in one step, and the old
//! one deleted. Deleted, not overwritten: on flash and on journaling file systems overwriting a file reaches the old
//! cells no more surely than the file system does when it uses them again.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use super::tables::{self, Tree};
use super::{RESERVED, Sled, Store, StoreError, TICK_MS, Writer, generation, guard, io_threads_lost, patiently};
use crate::replica::ids::BlockId;

/// One write of the copy: few syncs, and still a fraction of what one write may hold.
const WRITE_VALUES: usize = 512;
const WRITE_BYTES: usize = 8 << 20;

/// How long readers may stay in the old database after the new one has taken its place. A read takes milliseconds.
const LAST_READER_PATIENCE_MS: u64 = 10_000;

impl Store {
    /// Replaces the blocks for which `each` gives other bytes, and leaves no byte behind of what they were, or of what
    /// was ever deleted or written over: when this returns `Ok`, none of it is in the store's folder. Returns the number
    /// of replaced blocks. (Blocks or proofs to vanish altogether are deleted with [`Store::write`] before.)
    ///
    /// Old files are deleted, not overwritten. Reads go on all the while, from other threads too; writes wait. A crash
    /// leaves the old database or the new one whole, and the next start removes the rest. Needs room for a second copy.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] if the store was closed. [`StoreError::Io`] with "remove the old files of": everything
    /// is replaced and the store open, but the old bytes may still be there; try again, or restart. Any other error
    /// leaves the old database in its place, as it was: reads and writes go on unless it is [`Store::is_poisoned`] now.
    pub fn rewrite(&self, each: impl FnMut(BlockId, &[u8]) -> Option<Vec<u8>>) -> Result<u64, StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = self.closed.get() {
            return Err(StoreError::Poisoned { first: first.clone() });
        }
        let current = generation::current(&self.dir).map_err(io("find the files of"))?;
        generation::remove_others(&self.dir, &current).map_err(io("remove the old files of"))?;
        let next = generation::begin(&self.dir).map_err(io("begin the successor of"))?;
        let (mut fresh, replaced) = match self.copy_to(&next, each) {
            Ok(copied) => copied,
            Err(error) => {
                // A leftover is removed by the next attempt or start.
                drop(generation::remove(&next));
                return Err(error);
            }
        };
        if let Err(source) = generation::finish(&next) {
            // Which of the two the next start finds is not known, so neither may grow.
            let error = StoreError::Io { doing: "finish the successor of", source };
            self.close(&error);
            return Err(error);
        }
        let fresh_writer = fresh.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let old_writer = std::mem::replace(&mut *writer, fresh_writer);
        let old = self.sled.swap(fresh.sled.swap(None));
        retire(old, old_writer);
        generation::remove_others(&self.dir, &next).map_err(io("remove the old files of"))?;
        Ok(replaced)
    }

    /// Copies everything to a new database and checks it.
    fn copy_to(
        &self,
        next: &Path,
        mut each: impl FnMut(BlockId, &[u8]) -> Option<Vec<u8>>,
    ) -> Result<(Self, u64), StoreError> {
        let mut copy = Copying { fresh: Self::open(next)?.store, waiting: Vec::new(), bytes: 0, values: 0 };
        let mut replaced = 0;
        for tree in Tree::ALL {
            let mut failed = None;
            self.for_each(tree, |key, value| {
                if tree == Tree::Meta && RESERVED.contains(&key) {
                    return ControlFlow::Continue(());
                }
                let other = if tree == Tree::Blocks {
                    tables::parse_block_key(key).and_then(|id| each(id, value))
                } else {
                    None
                };
                replaced += u64::from(other.is_some());
                failed = copy.keep(tree, key.to_vec(), other.unwrap_or_else(|| value.to_vec())).err();
                if failed.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            failed.map_or(Ok(()), Err)?;
        }
        copy.write()?;
        // The store's own two names are in both.
        let (got, expected) = (copy.fresh.verify()?, copy.values + RESERVED.len() as u64);
        if got != expected {
            return Err(super::damaged(format!("its rewritten copy has {got} values, expected {expected}")));
        }
        Ok((copy.fresh, replaced))
    }
}

struct Copying {
    fresh: Store,
    waiting: Vec<(Tree, Vec<u8>, Vec<u8>)>,
    bytes: usize,
    values: u64,
}

impl Copying {
    fn keep(&mut self, tree: Tree, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        self.bytes += value.len();
        self.waiting.push((tree, key, value));
        if self.waiting.len() < WRITE_VALUES && self.bytes < WRITE_BYTES { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let waiting = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        self.values += waiting.len() as u64;
        self.fresh.write_sealed(waiting.iter().map(|(tree, key, value)| (*tree, key.clone(), Some(&value[..]))))
    }
}

/// Closes the old database when its last reader has left it; it is kept in memory if that takes too long, so that no
/// reader has to close it.
fn retire(old: Option<Arc<Sled>>, writer: Option<Writer>) {
    if let Some(writer) = writer {
        writer.end();
    }
    let Some(mut old) = old else { return };
    let mut waited_ms = 0;
    let alone = loop {
        match Arc::try_unwrap(old) {
            Ok(alone) => break alone,
            Err(shared) if waited_ms >= LAST_READER_PATIENCE_MS => {
                tracing::warn!("the replica store's old files are still read; their room is free after a restart");
                std::mem::forget(shared);
                return;
            }
            Err(shared) => old = shared,
        }
        thread::sleep(Duration::from_millis(TICK_MS));
        waited_ms += TICK_MS;
    };
    // On a thread of its own: sled flushes when it is closed, and may never come back from that.
    let (answer, answered) = mpsc::sync_channel(1);
    let lost_before = io_threads_lost();
    let close = move || drop(answer.send(guard::caught(|| drop(alone))));
    let closed = match thread::Builder::new().name("store-retired".to_owned()).spawn(close) {
        Ok(_) => patiently("close", LAST_READER_PATIENCE_MS, lost_before, None, &answered),
        Err(source) => Err(StoreError::Io { doing: "start a thread for", source }),
    };
    match closed {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => tracing::warn!(%panic, "the replica store's old files could not be closed"),
        Err(error) => tracing::warn!(%error, "the replica store's old files could not be closed"),
    }
}

fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> StoreError {
    move |source| StoreError::Io { doing, source }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::super::tests::{all_blocks, copy_folder, frame, id, open};
    use super::super::{Write, WriteFailure};
    use super::*;

    const NEEDLE: [u8; 32] = *b"a record that must be forgotten!";
    const BLOCKS: u64 = 300;

    /// All files below `folder` that hold the needle.
    fn holders(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                found.extend(holders(&entry.path()));
            } else if fs::read(entry.path()).unwrap().windows(NEEDLE.len()).any(|bytes| bytes == NEEDLE) {
                found.push(entry.path());
            }
        }
        found
    }

    fn is_erased(at: BlockId) -> bool {
        at.seq.0.is_multiple_of(97)
    }

    /// Small blocks, and blocks whose pages sled keeps in files of their own.
    fn block(at: BlockId) -> Vec<u8> {
        let mut bytes = frame(at, if at.origin.member.0[0] == 2 { 90_000 } else { 1_000 });
        if is_erased(at) {
            bytes[100..132].copy_from_slice(&NEEDLE);
        }
        bytes
    }

    fn redacted(at: BlockId) -> Vec<u8> {
        let mut bytes = block(at);
        if is_erased(at) {
            bytes[100..132].fill(0);
        }
        bytes
    }

    fn redact(at: BlockId, bytes: &[u8]) -> Option<Vec<u8>> {
        assert!(bytes == block(at), "{at}");
        is_erased(at).then(|| redacted(at))
    }

    /// The store and its blocks as they are to be after the rewriting.
    fn filled(dir: &Path) -> (Store, BTreeMap<BlockId, Vec<u8>>) {
        let store = open(dir);
        let ids: Vec<_> = (1..=BLOCKS).flat_map(|seq| [id(1, seq), id(2, seq)]).collect();
        let ids: Vec<_> = ids.into_iter().filter(|at| at.origin.member.0[0] == 1 || at.seq.0 > BLOCKS - 20).collect();
        for group in ids.chunks(40) {
            let blocks: Vec<_> = group.iter().map(|at| (*at, block(*at))).collect();
            store.write(&blocks.iter().map(|(at, bytes)| Write::Block(*at, bytes)).collect::<Vec<_>>()).unwrap();
        }
        store.write(&[Write::Charter(1, b"founding"), Write::Meta(b"forum", b"acme")]).unwrap();
        store.write(&[Write::Proof([7; 32], b"proof"), Write::Proof([8; 32], &NEEDLE)]).unwrap();
        store.write(&[Write::DeleteProof([8; 32])]).unwrap();
        (store, ids.into_iter().map(|at| (at, redacted(at))).collect())
    }

    fn assert_rewritten(store: &Store, expected: &BTreeMap<BlockId, Vec<u8>>) {
        assert!(&all_blocks(store) == expected);
        assert_eq!(store.charters().unwrap(), [(1, b"founding".to_vec())]);
        assert_eq!(store.proofs().unwrap(), [([7; 32], b"proof".to_vec())]);
        assert_eq!(store.meta(b"forum").unwrap().as_deref(), Some(&b"acme"[..]));
    }

    #[test]
    fn what_was_replaced_or_deleted_is_in_no_file_and_all_else_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("replica");
        let (store, mut expected) = filled(&dir);
        assert!(!holders(&dir).is_empty());
        let erased = expected.keys().filter(|at| is_erased(**at)).count() as u64;
        assert_eq!(store.rewrite(redact).unwrap(), erased);
        assert_eq!(holders(folder.path()), Vec::<PathBuf>::new());
        assert_rewritten(&store, &expected);
        // It goes on from there, and again after the next rewriting and start.
        for seq in BLOCKS + 1..BLOCKS + 4 {
            store.write(&[Write::Block(id(1, seq), b"goes on")]).unwrap();
            expected.insert(id(1, seq), b"goes on".to_vec());
            assert_eq!(store.rewrite(|_, _| None).unwrap(), 0);
        }
        drop(store);
        assert_rewritten(&open(&dir), &expected);
        let names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["generation-4"]);
    }

    #[test]
    fn readers_go_on_and_writers_wait_while_everything_is_rewritten() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("replica");
        let (store, expected) = filled(&dir);
        let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            for first in [1, 97] {
                let (store, done, reads) = (&store, &done, &reads);
                scope.spawn(move || {
                    while !done.load(Ordering::SeqCst) {
                        let at = id(1, first + reads.fetch_add(1, Ordering::SeqCst) % 3);
                        let bytes = store.block(at).unwrap().unwrap();
                        assert!(bytes == block(at) || bytes == redacted(at));
                        let mut blocks = 0;
                        store
                            .for_each_block(|_, _| {
                                blocks += 1;
                                ControlFlow::Continue(())
                            })
                            .unwrap();
                        assert!(blocks >= expected_blocks());
                    }
                });
            }
            let written = scope.spawn(|| store.write(&[Write::Charter(2, b"second")]));
            for _ in 0..3 {
                let before = reads.load(Ordering::SeqCst);
                // A reader gets through in the middle of the copying.
                let mut waited = false;
                let replaced = store.rewrite(|at, bytes| {
                    while !waited && reads.load(Ordering::SeqCst) < before + 4 {
                        thread::yield_now();
                    }
                    waited = true;
                    (is_erased(at) && bytes != redacted(at)).then(|| redacted(at))
                });
                replaced.unwrap();
            }
            done.store(true, Ordering::SeqCst);
            written.join().unwrap().unwrap();
        });
        assert!(all_blocks(&store) == expected);
        assert_eq!(store.charters().unwrap().len(), 2);
        assert_eq!(holders(folder.path()), Vec::<PathBuf>::new());
    }

    fn expected_blocks() -> u64 {
        BLOCKS + 20
    }

    #[test]
    fn a_crash_between_any_two_steps_leaves_the_old_or_the_new_store_and_no_rest() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).join("replica");
        let dir = at("live");
        fs::create_dir(folder.path().join("live")).unwrap();
        let (store, expected) = filled(&dir);
        copy_folder(&dir, &at("before"));
        let mut seen = 0;
        store
            .rewrite(|id, bytes| {
                seen += 1;
                if seen == BLOCKS {
                    copy_folder(&dir, &at("copying"));
                }
                redact(id, bytes)
            })
            .unwrap();
        drop(store);
        for name in ["begun", "named", "copied", "finished", "half removed"] {
            copy_folder(&at("before"), &at(name));
        }
        fs::create_dir(at("begun").join("beginning-1")).unwrap();
        fs::create_dir(at("named").join("generation-1")).unwrap();
        fs::write(at("named").join("generation-1/unfinished"), b"").unwrap();
        for name in ["copied", "finished", "half removed"] {
            copy_folder(&dir.join("generation-1"), &at(name).join("generation-1"));
        }
        fs::write(at("copied").join("generation-1/unfinished"), b"").unwrap();
        fs::remove_file(at("half removed").join("db")).unwrap();
        let cases = [
            ("begun", false),
            ("named", false),
            ("copying", false),
            ("copied", false),
            ("finished", true),
            ("half removed", true),
        ];
        for (name, rewritten) in cases {
            let store = open(&at(name));
            assert_eq!(holders(&at(name)).is_empty(), rewritten, "{name}");
            if rewritten {
                assert_rewritten(&store, &expected);
            } else {
                assert!(all_blocks(&store).into_iter().all(|(at, bytes)| bytes == block(at)), "{name}");
                assert!(!at(name).join("generation-1").exists() && !at(name).join("beginning-1").exists());
                store.rewrite(redact).unwrap();
                assert_rewritten(&store, &expected);
                assert_eq!(holders(&at(name)), Vec::<PathBuf>::new(), "{name}");
            }
        }
    }

    #[test]
    fn a_rewriting_that_fails_leaves_the_store_open_and_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("replica");
        let (store, _) = filled(&dir);
        let before = all_blocks(&store);
        let error = store.rewrite(|_, _| Some(vec![0; super::super::VALUE_BYTES_MAX + 1])).unwrap_err();
        assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
        assert!(all_blocks(&store) == before);
        store.write(&[Write::Block(id(9, 1), b"goes on")]).unwrap();
        assert!(generation::current(&dir).unwrap() == dir && !dir.join("generation-1").exists());
        store.fail_next_write(WriteFailure::Sync);
        store.write(&[Write::Block(id(9, 2), b"lost")]).unwrap_err();
        assert!(matches!(store.rewrite(|_, _| None), Err(StoreError::Poisoned { .. })));
    }

    #[test]
    fn a_damaged_generation_is_set_aside_and_salvaged_like_any_store() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("replica");
        let (store, expected) = filled(&dir);
        store.rewrite(redact).unwrap();
        drop(store);
        // As if sled had lost its last writes.
        let count = 1_000_u64.to_be_bytes();
        let counted = [&count[..], &crc32c::crc32c(&count).to_be_bytes()].concat();
        fs::write(dir.join("generation-1/written"), counted).unwrap();
        let (store, aside) = Store::open_or_set_aside(&dir).unwrap();
        let aside = aside.unwrap();
        assert!(aside.moved_to.join("generation-1/db").exists());
        let kept = all_blocks(&store);
        assert!(kept == expected, "{} of {} blocks", kept.len(), expected.len());
    }

    /// `cargo test --lib store::rewrite::tests::measure -- --ignored --nocapture`
    #[test]
    #[ignore = "a measurement"]
    fn measure() {
        let folder = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
        let store = open(&folder.path().join("replica"));
        let count = 100_000;
        let ids: Vec<_> = (1..=count).map(|seq| id(1, seq)).collect();
        for group in ids.chunks(512) {
            let blocks: Vec<_> = group.iter().map(|at| (*at, frame(*at, 1_024))).collect();
            store.write(&blocks.iter().map(|(at, bytes)| Write::Block(*at, bytes)).collect::<Vec<_>>()).unwrap();
        }
        let begun = crate::clock::instant();
        assert_eq!(store.rewrite(|at, _| (at.seq.0 == 77).then(|| vec![7; 900])).unwrap(), 1);
        println!("{count} blocks of 1 KiB rewritten in {:.2} s", begun.elapsed().as_secs_f64());
    }
}
