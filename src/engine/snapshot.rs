//! When the snapshot is written, and how a start uses it.
//!
//! A snapshot saves a long list's start the reading of every block. It is made apart from the replica, in the background,
//! after enough has come, and once more when the node stops; it never holds up what is being said. A start takes it only
//! if it rests on the same charters, proofs and heads of logs as what is on disk, and reads the blocks behind it as ever.
//! The blocks below it are verified later, while the node serves: what was never looked at is not believed for long.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;

use super::{Shared, lock, submissions_off};
use crate::clock;
use crate::matcher::{Matcher, Stored};
use crate::replica::block::Frame;
use crate::replica::charter::Charter;
use crate::replica::ids::{BlockId, Origin, Seq, TimeMs};
use crate::replica::stored::{Damaged, Source};
use crate::replica::view::View;
use crate::replica::{Ground, Restore, Unusable};
use crate::store::Store;
use crate::store::snapshot::{self, Section, Snapshot, SnapshotError};

/// Name of the snapshot in the data directory.
pub const SNAPSHOT_FILE: &str = "snapshot";
/// Sections of the file that are the replica's; the others are the matcher's.
const STATE: &str = "state";
const VIEW: &str = "view";

/// Below so many records a start from the blocks takes less than a second, and a snapshot saves nothing.
const RECORDS_MIN: u64 = 100_000;
/// A snapshot is made again when the list has grown by this share: a start reads at most so much behind it.
const GROWTH_PERCENT: u64 = 5;
/// It is not made more often: at ten million entries it is a file of some gigabytes.
const PAUSE_MS: u64 = 10 * 60_000;
/// How long the blocks below a snapshot are verified before lookups get as long to themselves.
const CHECK_SPELL: Duration = Duration::from_millis(5);

/// When a snapshot is made; tests make them of short lists.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotTerms {
    /// Of fewer records none is made.
    pub records_min: u64,
    /// Least time between two, in milliseconds.
    pub pause_ms: u64,
}

impl Default for SnapshotTerms {
    fn default() -> Self {
        Self { records_min: RECORDS_MIN, pause_ms: PAUSE_MS }
    }
}

/// The snapshot of a running node.
pub(super) struct Snapshots {
    path: PathBuf,
    terms: SnapshotTerms,
    /// Records in the latest one, and what it rests on.
    records: u64,
    ground: Option<Ground>,
    made: TimeMs,
    /// Something was erased since the start: what is marked as removed still stands in the index, so it is left out, and the
    /// next start makes it anew.
    erased: bool,
    writing: Option<Background>,
    checking: Option<Background>,
}

/// Work beside the engine's that can be called off.
struct Background {
    thread: JoinHandle<()>,
    called_off: Arc<AtomicBool>,
}

impl Background {
    fn start(name: &str, work: impl FnOnce(&AtomicBool) + Send + 'static) -> io::Result<Self> {
        let called_off = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&called_off);
        let thread = thread::Builder::new().name(name.into()).spawn(move || work(&flag))?;
        Ok(Self { thread, called_off })
    }

    fn end(self) {
        self.called_off.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("work on the snapshot panicked: please report this");
        }
    }
}

impl Snapshots {
    /// `adopted` is what was taken from the snapshot: nothing if it was not used.
    pub(super) fn new(data: &Path, terms: SnapshotTerms, shared: &Arc<Shared>, adopted: Adopted) -> Self {
        let Adopted { logs: adopted, records } = adopted;
        let mut snapshots = Self {
            path: data.join(SNAPSHOT_FILE),
            terms,
            records: 0,
            ground: None,
            made: TimeMs(0),
            erased: false,
            writing: None,
            checking: None,
        };
        if !adopted.is_empty() {
            snapshots.records = records;
            snapshots.ground = Some(shared.replica().ground());
            snapshots.made = clock::now();
            let (shared, path) = (Arc::clone(shared), snapshots.path.clone());
            let check = move |called_off: &AtomicBool| check(&shared, &path, &adopted, called_off);
            match Background::start("check", check) {
                Ok(checking) => snapshots.checking = Some(checking),
                Err(error) => tracing::warn!(%error, "the blocks below the snapshot are not verified now"),
            }
        }
        snapshots
    }

    /// Begins one in the background if it is time.
    pub(super) fn look(&mut self, shared: &Arc<Shared>, now: TimeMs) {
        // After a failed write nobody knows what is on disk, an erasure among that.
        if shared.failure().is_some() || self.writing.as_ref().is_some_and(|writing| !writing.thread.is_finished()) {
            return;
        }
        if now.since(self.made) < self.terms.pause_ms || !self.has_grown(shared, GROWTH_PERCENT) {
            return;
        }
        let Some(sections) = self.sections(shared) else { return };
        self.made = now;
        self.note(shared);
        let (path, shared) = (self.path.clone(), Arc::clone(shared));
        let write = move |called_off: &AtomicBool| write(&path, &shared, sections, called_off);
        match Background::start("snapshot", write) {
            Ok(writing) => self.writing = Some(writing),
            Err(error) => tracing::warn!(%error, "no snapshot is made now"),
        }
    }

    /// The node stops: what came since the latest one goes into another, so that the next start has nothing to read.
    pub(super) fn finish(mut self, shared: &Arc<Shared>) {
        if let Some(checking) = self.checking.take() {
            checking.end();
        }
        if shared.unsound().is_some() {
            self.call_off();
            remove(&self.path);
        } else if self.has_grown(shared, 0) {
            self.call_off();
            if let Some(sections) = self.sections(shared) {
                write(&self.path, shared, sections, &AtomicBool::new(false));
            }
        } else if let Some(writing) = self.writing.take() {
            drop(writing.thread.join());
        }
    }

    /// Something is being erased: when this returns, no snapshot has it.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        self.call_off();
        (self.records, self.ground, self.erased) = (0, None, true);
        snapshot::remove_file(&self.path)
    }

    fn call_off(&mut self) {
        if let Some(writing) = self.writing.take() {
            writing.end();
        }
    }

    fn note(&mut self, shared: &Shared) {
        let replica = shared.replica();
        (self.records, self.ground) = (replica.view().records(), Some(replica.ground()));
    }

    /// Whether another one is worth its while: enough came, or the latest one rests on what is no longer so.
    fn has_grown(&self, shared: &Shared, percent: u64) -> bool {
        let replica = shared.replica();
        let records = replica.view().records();
        let grown = records > self.records + self.records / 100 * percent;
        records >= self.terms.records_min && (grown || self.ground.as_ref() != Some(&replica.ground()))
    }

    /// What is to be written, as it stands now; `None` where nothing should be.
    fn sections(&self, shared: &Shared) -> Option<Vec<(&'static str, Section)>> {
        if shared.unsound().is_some() || submissions_off(shared.data()) {
            return None;
        }
        // Only the engine changes the replica, and the matcher with it: both are of one moment.
        let image = Arc::new(shared.replica().image()?);
        let whole = Arc::clone(&image);
        let state: Section = Box::new(move |sink| sink(&whole.state()));
        let view: Section = Box::new(move |sink| image.view().write_to(sink));
        let index = if self.erased { Vec::new() } else { shared.matcher().image() };
        Some([(STATE, state), (VIEW, view)].into_iter().chain(index).collect())
    }
}

fn write(path: &Path, shared: &Shared, sections: Vec<(&'static str, Section)>, called_off: &AtomicBool) {
    let begun = clock::instant();
    let goes_on = || !called_off.load(Ordering::Relaxed) && shared.unsound().is_none();
    match snapshot::write(path, sections, &goes_on) {
        Ok(bytes) => tracing::info!(bytes, took_ms = begun.elapsed().as_millis(), "a snapshot was made"),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(error) => tracing::warn!(%error, "no snapshot could be made; the next start reads more blocks"),
    }
    // Damage may have been found between the last look and the renaming.
    if shared.unsound().is_some() {
        remove(path);
    }
}

fn remove(path: &Path) {
    if let Err(error) = snapshot::remove_file(path) {
        tracing::warn!(%error, "the snapshot cannot be removed: remove it before the restart");
    }
}

/// What a start takes from a snapshot.
#[derive(Default)]
pub(super) struct Loaded {
    /// What lookups search, as it was when the snapshot was made; `None`: it is to be made anew.
    pub(super) matcher: Option<Matcher>,
    /// What need not be read.
    pub(super) adopted: Adopted,
}

/// Logs that need not be read up to these places, and the records in them.
#[derive(Default)]
pub(super) struct Adopted {
    pub(super) logs: BTreeMap<Origin, Seq>,
    pub(super) records: u64,
}

/// Whether there is a snapshot that may be taken: then the blocks need not be read before it was tried.
pub(super) fn may_be_there(data: &Path) -> bool {
    matches!(Snapshot::open(&data.join(SNAPSHOT_FILE)), Ok(Some(_)))
}

/// Removes the snapshot of `data`: it is not taken.
pub(super) fn discard(data: &Path) {
    remove(&data.join(SNAPSHOT_FILE));
}

/// Puts the snapshot of `data` into `restore`, if there is one that can be used. One that cannot is removed.
pub(super) fn load(data: &Path, restore: &mut Restore, store: &Store) -> Option<Loaded> {
    let path = data.join(SNAPSHOT_FILE);
    let begun = clock::instant();
    let loaded = match Snapshot::open(&path) {
        Ok(None) => return None,
        Ok(Some(snapshot)) => adopt(&snapshot, restore, store),
        Err(error) => Err(error.into()),
    };
    match loaded {
        Ok(loaded) => {
            tracing::info!(took_ms = begun.elapsed().as_millis(), "the list was taken from the snapshot");
            Some(loaded)
        }
        Err(why) => {
            tracing::info!(%why, "the snapshot is not used; all blocks are read");
            remove(&path);
            None
        }
    }
}

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
enum NotUsed {
    #[error("cannot begin to merge the index: {0}")]
    Thread(#[from] io::Error),
    #[error(transparent)]
    File(#[from] SnapshotError),
    #[error(transparent)]
    Replica(#[from] Unusable),
    #[error(transparent)]
    List(#[from] Damaged),
    #[error("reading it panicked: please report this")]
    Panicked,
}

fn adopt(snapshot: &Snapshot, restore: &mut Restore, store: &Store) -> Result<Loaded, NotUsed> {
    let law = restore.law().clone();
    // The list and its index are about as long: each core reads one.
    let (index, view) = thread::scope(|scope| {
        let index = scope.spawn(|| Stored::read_if_there(snapshot));
        let view = read_view(snapshot, &law);
        (index.join(), view)
    });
    let index = index.map_err(|_panicked| NotUsed::Panicked)??;
    let mut view = view?;
    let matcher = index.map(|index| Matcher::with_stored(index, &view)).transpose()?;
    let records = view.records();
    view.follow_changes();
    let on_disk = |id: BlockId| {
        let bytes = store.block(id).ok().flatten()?;
        Some(Frame::decode(bytes.into()).ok()?.header.hash())
    };
    let logs = restore.adopt(&snapshot.section(STATE)?, view, on_disk)?;
    Ok(Loaded { matcher, adopted: Adopted { logs, records } })
}

/// Nothing of what is read may be used before the section's checksum was found to hold.
fn read_view(snapshot: &Snapshot, law: &Charter) -> Result<View, NotUsed> {
    let mut section = snapshot.open_section(VIEW)?;
    let mut failed = None;
    let view = View::load(
        law,
        &mut Source::new(&mut |bytes| {
            section.fill(bytes).map_err(|error| {
                failed = Some(error);
                Damaged::Short
            })
        }),
    );
    match (view, failed) {
        (_, Some(error)) => Err(error.into()),
        (Err(damaged), None) => Err(damaged.into()),
        (Ok(view), None) => {
            section.finish()?;
            Ok(view)
        }
    }
}

/// Verifies the blocks that a snapshot stood for, at half a core's pace. What does not hold is fetched again after the next
/// start, which then reads all of them.
fn check(shared: &Shared, path: &Path, adopted: &BTreeMap<Origin, Seq>, called_off: &AtomicBool) {
    let mut left = adopted.clone();
    let mut broken = None;
    let mut spell = clock::instant();
    let read = shared.store().for_each_block(|id, bytes| {
        if called_off.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        if adopted.get(&id.origin).is_some_and(|last| id.seq <= *last) {
            match holds(shared, id, bytes) {
                Ok(()) => left.entry(id.origin).and_modify(|seq| *seq = seq.previous()).or_default(),
                Err(why) => {
                    broken = Some(why);
                    return ControlFlow::Break(());
                }
            };
        }
        if spell.elapsed() >= CHECK_SPELL {
            thread::sleep(spell.elapsed());
            spell = clock::instant();
        }
        ControlFlow::Continue(())
    });
    if called_off.load(Ordering::Relaxed) {
        return;
    }
    let missing = left.iter().find(|(_, seq)| **seq > Seq(0));
    let missing = missing.map(|(origin, seq)| format!("{} blocks of log {origin} are missing", seq.0));
    let why = read.err().map(|error| error.to_string()).or(broken).or(missing);
    let Some(why) = why else {
        tracing::info!(logs = adopted.len(), "the blocks below the snapshot hold");
        return;
    };
    tracing::error!(why, "a block below the snapshot does not hold: restart the node, and it is fetched again");
    *lock(&shared.unsound) = Some(why);
    remove(path);
}

/// Whether `bytes` are the block that the log has at this place.
fn holds(shared: &Shared, id: BlockId, bytes: &[u8]) -> Result<(), String> {
    let mut frame = Frame::decode(Bytes::copy_from_slice(bytes)).map_err(|error| format!("block {id}: {error}"))?;
    let (keyring, held) = {
        let replica = shared.replica();
        (replica.keyring(), replica.logs().get(&id.origin).and_then(|log| log.hash_at(id.seq)))
    };
    if keyring.redact(&mut frame) {
        return Err(format!("block {id} still has a record that was erased"));
    }
    match keyring.verify(frame) {
        Ok(block) if block.id() == id && Some(block.hash()) == held => Ok(()),
        // Meanwhile another chain took its place.
        _ if held.is_none() => Ok(()),
        Ok(_) => Err(format!("block {id} on disk is not the one that the log has there")),
        Err(error) => Err(format!("block {id}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::engine::{Handle, STORE_FOLDER, Started, start_with};
    use crate::replica::ids::{Class, sha256};
    use crate::replica::own::Answer;
    use crate::replica::record;
    use crate::replica::signal::{Alg, Subject};
    use crate::replica::testing::{FULL, TestForum, settings};
    use crate::replica::{Input, proto};
    use crate::store::Write;

    /// Snapshots of short lists, whenever something came.
    const TERMS: SnapshotTerms = SnapshotTerms { records_min: 1, pause_ms: 0 };
    const DEADLINE: Duration = Duration::from_secs(30);

    /// A company alone in its forum, with a directory.
    struct Company {
        forum: TestForum,
        folder: tempfile::TempDir,
        terms: SnapshotTerms,
    }

    struct Running {
        handle: Handle,
        started: Started,
        thread: JoinHandle<()>,
    }

    /// All that a start must come to, whichever way it went.
    #[derive(Debug, PartialEq)]
    struct Shown {
        digest: (TimeMs, [u8; 32]),
        records: u64,
        entries: Vec<String>,
        searched: usize,
        heads: String,
        key: Option<(BlockId, u32)>,
    }

    impl Company {
        fn new() -> Self {
            Self { forum: TestForum::of(&[("a", FULL)]), folder: tempfile::tempdir().unwrap(), terms: TERMS }
        }

        fn start(&self) -> Running {
            let runtime = tokio::runtime::Handle::current();
            let charters = &self.forum.charters;
            let (handle, started, thread) =
                start_with(self.folder.path(), settings(1), self.forum.id, charters, runtime, self.terms).unwrap();
            Running { handle, started, thread }
        }

        fn snapshot(&self) -> PathBuf {
            self.folder.path().join(SNAPSHOT_FILE)
        }

        /// A start that reads every block, of a copy of what is there.
        async fn shown_by_the_blocks(&self) -> Shown {
            let kept = fs::read(self.snapshot()).ok();
            snapshot::remove_file(&self.snapshot()).unwrap();
            let running = self.start();
            let shown = running.shown();
            running.stop().await;
            match kept {
                Some(bytes) => fs::write(self.snapshot(), bytes).unwrap(),
                None => snapshot::remove_file(&self.snapshot()).unwrap(),
            }
            shown
        }
    }

    impl Running {
        /// Lists pictures and files, one block a call.
        async fn say(&self, numbers: std::ops::Range<u64>) {
            let records = numbers.map(|n| {
                let alg = if n.is_multiple_of(2) { Alg::Pdq } else { Alg::Sha256 };
                record::encode(proto::Kind::Opinion, [9; 16], &opinion(alg, n))
            });
            let answer = self.handle.submit(Class::Normal, records.collect()).await.unwrap();
            assert!(matches!(answer, Answer::Durable(_)), "{answer:?}");
        }

        fn shown(&self) -> Shown {
            let shared = self.handle.shared();
            let replica = shared.replica();
            let view = replica.view();
            let entry = |subject| format!("{:?}", view.entry(&subject, view.digest().0).unwrap());
            Shown {
                digest: view.digest(),
                records: view.records(),
                entries: view.subjects_after(None).map(entry).collect(),
                searched: {
                    let all = view.matching().enumerate().collect::<Vec<_>>();
                    shared.matcher().now().search(&crate::matcher::Sought::new(all, 0)).candidates.len()
                },
                heads: format!("{:?}", replica.have()),
                key: replica.submitted_before(&[3; 16]),
            }
        }

        async fn stop(self) {
            self.handle.stop().await;
            drop(self.handle);
            self.thread.join().unwrap();
        }
    }

    fn opinion(alg: Alg, n: u64) -> proto::Opinion {
        let digest = sha256(&[b"a picture or a file", &n.to_be_bytes()]);
        proto::Opinion {
            subject: Some(Subject::of(alg, &digest).to_proto()),
            stance: 1,
            labels: vec![1],
            quality: 90,
            client_key: vec![u8::try_from(n % 250).unwrap(); 16].into(),
            ..Default::default()
        }
    }

    /// Waits for what a thread beside does.
    fn until(what: &str, holds: impl Fn() -> bool) {
        let begun = clock::instant();
        while !holds() {
            assert!(begun.elapsed() < DEADLINE, "{what}");
            thread::yield_now();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_start_from_a_snapshot_reads_only_what_came_behind_it() {
        let company = Company::new();
        let first = company.start();
        first.say(0..200).await;
        first.say(200..300).await;
        let shown = first.shown();
        first.stop().await;
        assert!(company.snapshot().exists());
        assert_eq!(company.shown_by_the_blocks().await, shown);

        let second = company.start();
        assert_eq!((second.started.blocks, &second.started.healed), (0, &Vec::new()), "nothing was read");
        assert_eq!(second.shown(), shown);
        let older = fs::read(company.snapshot()).unwrap();
        second.say(300..310).await;
        second.say(310..311).await;
        let shown = second.shown();
        second.stop().await;

        fs::write(company.snapshot(), older).unwrap();
        let third = company.start();
        assert_eq!((third.started.blocks, third.shown()), (2, shown), "two blocks came behind it");
        third.say(311..312).await;
        let shown = third.shown();
        third.stop().await;
        assert_eq!(company.shown_by_the_blocks().await, shown);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_running_node_makes_one_when_enough_came() {
        let mut company = Company::new();
        company.terms.records_min = 100;
        let node = company.start();
        node.say(0..60).await;
        node.say(60..98).await;
        assert!(!company.snapshot().exists(), "99 records with the opening of the log");
        node.say(98..99).await;
        until("a snapshot of 100 records", || company.snapshot().exists());
        let size = fs::metadata(company.snapshot()).unwrap().len();
        node.say(99..101).await;
        node.handle.input(Input::Timer).await.unwrap();
        node.say(101..200).await;
        until("another one", || fs::metadata(company.snapshot()).is_ok_and(|file| file.len() > size));
        node.stop().await;
        let node = company.start();
        assert_eq!(node.started.blocks, 0);
        node.stop().await;
    }

    /// What no longer rests on the same is thrown away, and the start is the one from the blocks.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_snapshot_that_is_damaged_or_of_another_charter_or_store_is_thrown_away() {
        let mut company = Company::new();
        let node = company.start();
        node.say(0..300).await;
        node.say(300..301).await;
        node.stop().await;
        let whole = fs::read(company.snapshot()).unwrap();
        let expected = company.shown_by_the_blocks().await;
        let blocks = 2;

        for at in [20, whole.len() / 3, whole.len() / 2, whole.len() - 40, whole.len() - 5] {
            let mut damaged = whole.clone();
            damaged[at] ^= 4;
            fs::write(company.snapshot(), &damaged).unwrap();
            let node = company.start();
            assert_eq!((node.started.blocks, node.shown()), (blocks, expected_like(&expected)), "byte {at}");
            node.stop().await;
        }
        for length in [0, 10, whole.len() / 2, whole.len() - 1] {
            fs::write(company.snapshot(), &whole[..length]).unwrap();
            let node = company.start();
            assert_eq!(node.started.blocks, blocks, "the first {length} bytes");
            node.stop().await;
        }

        // The store was lost: the journal has our blocks, and the snapshot does not stand in for it.
        fs::write(company.snapshot(), &whole).unwrap();
        fs::remove_dir_all(company.folder.path().join(STORE_FOLDER)).unwrap();
        let node = company.start();
        assert_eq!(node.shown(), expected);
        assert!(node.handle.shared().store().block(expected.key.unwrap().0).unwrap().is_some(), "it is whole again");
        node.stop().await;

        fs::write(company.snapshot(), &whole).unwrap();
        company.forum.issue(|charter| charter.name = "Example Forum, renamed".into());
        let node = company.start();
        assert_eq!(node.started.blocks, blocks, "under another charter all is read");
        node.stop().await;
        let node = company.start();
        assert_eq!((node.started.blocks, node.shown()), (0, expected), "what it left behind rests on that charter");
        node.stop().await;
    }

    fn expected_like(shown: &Shown) -> Shown {
        Shown {
            entries: shown.entries.clone(),
            heads: shown.heads.clone(),
            digest: shown.digest,
            records: shown.records,
            searched: shown.searched,
            key: shown.key,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_block_below_the_snapshot_that_does_not_hold_is_found_while_the_node_serves() {
        let company = Company::new();
        let node = company.start();
        for n in 0..4 {
            node.say(n * 10..n * 10 + 10).await;
        }
        let block = node.shown().key.unwrap().0;
        node.stop().await;
        let expected = company.shown_by_the_blocks().await;
        {
            let store = Store::open(&company.folder.path().join(STORE_FOLDER)).unwrap().store;
            let mut bytes = store.block(block).unwrap().unwrap();
            let last = bytes.len() - 20;
            bytes[last] ^= 1;
            store.write(&[Write::Block(block, &bytes)]).unwrap();
        }
        let node = company.start();
        assert_eq!(node.started.blocks, 0, "the snapshot was taken");
        until("the damage is found", || node.handle.shared().unsound().is_some());
        let why = node.handle.shared().unsound().unwrap();
        assert!(why.contains(&block.to_string()), "{why}");
        node.stop().await;
        assert!(!company.snapshot().exists(), "nor is another one made");
        let node = company.start();
        assert_eq!(node.shown(), expected, "our journal has it");
        assert_eq!(node.handle.shared().unsound(), None);
        node.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_forgotten_is_in_no_snapshot_not_even_in_one_that_is_being_written() {
        let company = Company::new();
        let node = company.start();
        node.say(0..300).await;
        let shared = Arc::clone(node.handle.shared());
        let mut snapshots = Snapshots::new(company.folder.path(), TERMS, &shared, Adopted::default());
        snapshots.path = company.folder.path().join("another");
        for _ in 0..20 {
            snapshots.look(&shared, clock::now());
            assert!(snapshots.writing.is_some());
            snapshots.forget().unwrap();
            let left = fs::read_dir(company.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
            assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with("another")));
        }
        // The index marks what was removed, and has it still.
        snapshots.look(&shared, clock::now());
        until("one is made", || snapshots.path.exists());
        let made = Snapshot::open(&snapshots.path).unwrap().unwrap();
        assert!(made.has(VIEW) && !made.has("pictures") && shared.matcher().image().len() > 1);
        node.stop().await;
    }
}
