//! The taxonomy of this node: always the one that the charter in force names, swapped whole.
//!
//! Its file lies in the data directory under its hash, and is believed only when it has it. As long as it is missing,
//! labels are shown by their numbers and none can be said; any peer's copy will do, because the charter names the bytes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use thiserror::Error;
use tokio::sync::watch;

use super::{FILE_SIZE_MAX, TaxonomyFile};
use crate::fields::{read_text, summary};
use crate::replica::ids::{hex, sha256};
use crate::replica::taxonomy::{EXAMPLE, Named, Taxonomy};
use crate::wire::files::{FileError, write_text};

/// Folder of taxonomy files in the data directory.
pub const TAXONOMY_FOLDER: &str = "taxonomy";
/// Files that are kept: a charter fork puts an older charter in force again, and a peer that is behind asks for an older
/// file. Together at most 2 MiB.
pub const FILES_KEPT_MAX: usize = 8;

/// Why a file is not taken. Nothing was changed.
#[derive(Debug, Error)]
pub enum NotTaken {
    /// It is not the one that the charter names.
    #[error("the file has the SHA-256 {got}, expected {expected}")]
    Other {
        /// Of what came.
        got: String,
        /// What the charter names; empty: it names no file, or we have it.
        expected: String,
    },
    /// It is no text, or not a taxonomy.
    #[error("the file is no taxonomy that this release understands: {0}")]
    NotUnderstood(String),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
}

/// What there is of the taxonomy in force.
struct Held {
    taxonomy: Arc<Taxonomy>,
    /// Its file, if it is from one.
    text: Option<Bytes>,
    /// The hash of the file that is missing.
    wanted: Option<[u8; 32]>,
}

impl Held {
    fn built_in() -> Self {
        Self { taxonomy: Arc::new(Taxonomy::built_in()), text: None, wanted: None }
    }
}

/// Where a node keeps its taxonomy.
pub struct Shelf {
    folder: PathBuf,
    held: ArcSwap<Held>,
    /// Whoever changes what is held does it alone.
    changing: Mutex<()>,
    asking: AtomicBool,
    changes: watch::Sender<u64>,
}

impl Shelf {
    /// The shelf of the node in `data`, with the built-in taxonomy until [`Shelf::follow`] is told another.
    pub fn new(data: &Path) -> Self {
        Self {
            folder: data.join(TAXONOMY_FOLDER),
            held: ArcSwap::from_pointee(Held::built_in()),
            changing: Mutex::new(()),
            asking: AtomicBool::new(false),
            changes: watch::Sender::new(0),
        }
    }

    /// What labels mean now.
    pub fn taxonomy(&self) -> Arc<Taxonomy> {
        Arc::clone(&self.held.load().taxonomy)
    }

    /// The file of the taxonomy in force, if it is from one and here.
    pub fn text(&self) -> Option<Bytes> {
        self.held.load().text.clone()
    }

    /// The file with this hash, for whoever lacks it; also of a charter before.
    pub fn file(&self, digest: &[u8]) -> Option<Bytes> {
        let digest: &[u8; 32] = digest.try_into().ok()?;
        self.text().filter(|text| sha256(&[text]) == *digest).or_else(|| self.read(digest).ok().flatten())
    }

    /// The hash of the file that is missing here.
    pub fn wanted(&self) -> Option<[u8; 32]> {
        self.held.load().wanted
    }

    /// Moves whenever another taxonomy is in force, or the one that is comes to be known.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes up what the charter in force names, from the disk if it is there.
    pub fn follow(&self, named: &str) {
        let _alone = self.alone();
        if self.held.load().taxonomy.named() == named {
            return;
        }
        self.replace(self.look_for(named));
        self.drop_old();
    }

    /// Puts a file where [`Shelf::follow`] will find it: before the charter that names it is applied.
    ///
    /// # Errors
    /// It is not what `named` says, is not understood, or cannot be written.
    pub fn stock(&self, named: &Named, text: &[u8]) -> Result<(), NotTaken> {
        let file = understood(named, text)?;
        let _alone = self.alone();
        Ok(self.write(&sha256(&[text]), &file.text)?)
    }

    /// Takes the file that is missing; whoever sent it.
    ///
    /// # Errors
    /// It is not the one that is missing, or is not understood.
    pub fn take(&self, text: &[u8]) -> Result<(), NotTaken> {
        let _alone = self.alone();
        let (wanted, got) = (self.wanted(), sha256(&[text]));
        if wanted != Some(got) {
            let expected = wanted.map(|digest| hex(&digest)).unwrap_or_default();
            return Err(NotTaken::Other { got: hex(&got), expected });
        }
        let named = self.taxonomy().named().to_owned();
        let held = from_file(&named, Bytes::copy_from_slice(text));
        if held.text.is_some() {
            let text = String::from_utf8_lossy(text);
            if let Err(error) = self.write(&got, &text) {
                // It is known all the same; `mend` tries again.
                tracing::warn!(%error, "the taxonomy cannot be kept");
            }
        }
        self.replace(held);
        Ok(())
    }

    /// Writes the file again if somebody has deleted or changed it. Returns whether that was so.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn mend(&self) -> Result<bool, FileError> {
        let _alone = self.alone();
        let Some(text) = self.text() else { return Ok(false) };
        let digest = sha256(&[&text]);
        let on_disk = read_text(&self.path(&digest), FILE_SIZE_MAX);
        if on_disk.is_ok_and(|there| there.as_bytes() == &text[..]) {
            return Ok(false);
        }
        self.write(&digest, &String::from_utf8_lossy(&text))?;
        Ok(true)
    }

    /// The right to ask a peer for the missing file, which one at a time has; `None`: nothing is missing, or another
    /// asks.
    pub fn turn(self: &Arc<Self>) -> Option<Turn> {
        let mine = self.wanted().is_some() && !self.asking.swap(true, Ordering::SeqCst);
        mine.then(|| Turn(Arc::clone(self)))
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, held: Held) {
        if let Some(why) = held.taxonomy.why_missing() {
            tracing::warn!(taxonomy = held.taxonomy.named(), why, "labels are shown by their numbers");
        }
        self.held.store(Arc::new(held));
        self.changes.send_modify(|n| *n += 1);
    }

    fn look_for(&self, named: &str) -> Held {
        if named == EXAMPLE {
            return Held::built_in();
        }
        let nowhere = |why: &str| Held {
            taxonomy: Arc::new(Taxonomy::missing(named.to_owned(), why.to_owned())),
            text: None,
            wanted: None,
        };
        let digest = match Named::parse(named) {
            None => return nowhere("the charter names it in a way that this release does not understand"),
            Some(Named { sha256: None, .. }) => return nowhere("this release does not have it built in"),
            Some(Named { sha256: Some(digest), .. }) => digest,
        };
        let why = match self.read(&digest) {
            Ok(Some(text)) => return from_file(named, text),
            Ok(None) => "its file is damaged and is asked of the peers".to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                "its file is not here yet and is asked of the peers".to_owned()
            }
            Err(error) => format!("its file cannot be read ({error}) and is asked of the peers"),
        };
        Held { wanted: Some(digest), ..nowhere(&why) }
    }

    /// The file on disk; `None`: it is another one by now.
    fn read(&self, digest: &[u8; 32]) -> io::Result<Option<Bytes>> {
        let text = read_text(&self.path(digest), FILE_SIZE_MAX)?;
        Ok((sha256(&[text.as_bytes()]) == *digest).then(|| text.into()))
    }

    fn path(&self, digest: &[u8; 32]) -> PathBuf {
        self.folder.join(file_name(digest))
    }

    fn write(&self, digest: &[u8; 32], text: &str) -> Result<(), FileError> {
        let failed = |source| FileError::Io { path: self.folder.clone(), source };
        fs::create_dir_all(&self.folder).map_err(failed)?;
        write_text(&self.path(digest), text)
    }

    /// Drops the oldest files: the chain of charters would else pile them up.
    fn drop_old(&self) {
        let held = self.held.load();
        let in_force =
            held.wanted.or_else(|| held.text.as_ref().map(|text| sha256(&[text]))).map(|digest| self.path(&digest));
        let others = files(&self.folder).filter(|path| Some(path) != in_force.as_ref());
        let mut others: Vec<_> =
            others.map(|path| (fs::metadata(&path).and_then(|m| m.modified()).ok(), path)).collect();
        others.sort();
        for (_, path) in others.iter().rev().skip(FILES_KEPT_MAX - 1) {
            if let Err(error) = fs::remove_file(path) {
                tracing::debug!(path = %path.display(), %error, "not removed");
            }
        }
    }
}

/// The right to ask; given back when dropped.
pub struct Turn(Arc<Shelf>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.asking.store(false, Ordering::SeqCst);
    }
}

/// The taxonomy of a node that does not run and whose charter names it so, with its file; none: it is not there.
pub fn kept(data: &Path, named: &str) -> (Arc<Taxonomy>, Option<Bytes>) {
    let held = Shelf::new(data).look_for(named);
    (held.taxonomy, held.text)
}

fn file_name(digest: &[u8; 32]) -> String {
    format!("{}.toml", hex(digest))
}

/// What lies in the folder and is called like a taxonomy.
fn files(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let is_ours = |path: &PathBuf| {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        stem.len() == 64 && path.extension().is_some_and(|ending| ending == "toml")
    };
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_ours)
}

/// The taxonomy of a file that has the hash that the charter names.
fn from_file(named: &str, text: Bytes) -> Held {
    let file = Named::parse(named).ok_or_else(|| "its name".to_owned());
    let file = file.and_then(|named| understood(&named, &text).map_err(|error| error.to_string()));
    let taxonomy = match file {
        Ok(file) => file.taxonomy,
        Err(why) => Taxonomy::missing(named.to_owned(), format!("{why}; a newer release may")),
    };
    Held { taxonomy: Arc::new(taxonomy), text: Some(text), wanted: None }
}

/// The file, if it is the one that `named` names and calls itself so.
///
/// # Errors
/// [`NotTaken`], but not for writing.
pub fn understood(named: &Named, text: &[u8]) -> Result<TaxonomyFile, NotTaken> {
    let got = sha256(&[text]);
    if named.sha256 != Some(got) {
        let expected = named.sha256.map(|digest| hex(&digest)).unwrap_or_default();
        return Err(NotTaken::Other { got: hex(&got), expected });
    }
    let text = std::str::from_utf8(text).map_err(|error| NotTaken::NotUnderstood(error.to_string()))?;
    let file = TaxonomyFile::parse(text).map_err(|problems| NotTaken::NotUnderstood(summary(&problems)))?;
    if file.named != *named {
        let why = format!("it calls itself {}-{}", file.named.name, file.named.version);
        return Err(NotTaken::NotUnderstood(why));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::EXAMPLE_TEXT;
    use super::*;

    fn example() -> TaxonomyFile {
        TaxonomyFile::parse(EXAMPLE_TEXT).unwrap()
    }

    fn file_in(folder: &Path) -> PathBuf {
        folder.join(TAXONOMY_FOLDER).join(file_name(&example().named.sha256.unwrap()))
    }

    #[test]
    fn a_file_that_is_missing_is_taken_from_anybody_if_it_has_the_hash() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Arc::new(Shelf::new(folder.path()));
        assert_eq!((shelf.taxonomy().name(13), shelf.wanted()), ("symbol".into(), None));
        assert!(shelf.turn().is_none(), "nothing is missing");
        let named = example().named;
        let mut changes = shelf.changes();
        shelf.follow(&named.to_string());
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!((shelf.taxonomy().name(13), shelf.wanted()), ("label-13".into(), named.sha256));
        assert!(shelf.taxonomy().why_missing().unwrap().contains("asked of the peers"));
        let turn = shelf.turn().unwrap();
        assert!(shelf.turn().is_none(), "one at a time asks");
        drop(turn);
        assert!(shelf.turn().is_some());

        let other = EXAMPLE_TEXT.replace("symbol", "emblem");
        assert!(matches!(shelf.take(other.as_bytes()), Err(NotTaken::Other { .. })));
        shelf.take(EXAMPLE_TEXT.as_bytes()).unwrap();
        assert!(changes.has_changed().unwrap());
        assert_eq!((shelf.taxonomy().name(1001), shelf.wanted()), ("org-example-front".into(), None));
        assert_eq!(shelf.file(&named.sha256.unwrap()).unwrap(), EXAMPLE_TEXT);
        assert_eq!(shelf.file(&[0; 32]), None);
        assert!(shelf.take(EXAMPLE_TEXT.as_bytes()).is_err(), "nothing is missing any more");
        assert_eq!(kept(folder.path(), &named.to_string()).0.name(1001), "org-example-front");
        assert!(kept(folder.path(), "other-1").0.why_missing().is_some());

        // The next start finds it, and the built-in taxonomy needs none.
        let again = Shelf::new(folder.path());
        again.follow(&named.to_string());
        assert_eq!(again.taxonomy().name(1001), "org-example-front");
        again.follow(EXAMPLE);
        assert_eq!((again.text(), again.taxonomy().name(1001)), (None, "label-1001".into()));
        assert_eq!(again.file(&named.sha256.unwrap()).unwrap(), EXAMPLE_TEXT, "for a peer that is behind");
    }

    #[test]
    fn a_file_that_was_damaged_is_missing_and_one_that_was_deleted_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let named = example().named;
        let shelf = Shelf::new(folder.path());
        shelf.stock(&named, EXAMPLE_TEXT.as_bytes()).unwrap();
        shelf.follow(&named.to_string());
        let path = file_in(folder.path());
        assert!(!shelf.mend().unwrap(), "nothing is to be mended");
        for damage in [None, Some(&b"name = 1"[..]), Some(&[0xff])] {
            match damage {
                None => fs::remove_file(&path).unwrap(),
                Some(bytes) => fs::write(&path, bytes).unwrap(),
            }
            let anew = Shelf::new(folder.path());
            anew.follow(&named.to_string());
            assert_eq!(anew.wanted(), named.sha256, "{damage:?}");
            assert_eq!(shelf.taxonomy().name(1001), "org-example-front", "who has read it goes on");
            assert!(shelf.mend().unwrap());
            assert_eq!(fs::read_to_string(&path).unwrap(), EXAMPLE_TEXT);
        }
    }

    #[test]
    fn a_file_is_stocked_only_under_its_own_name() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(folder.path());
        let named = example().named;
        let renamed = Named { version: 3, ..named.clone() };
        for (named, text, expected) in [
            (&renamed, EXAMPLE_TEXT.as_bytes(), "calls itself staydown-example-2"),
            (&Named { sha256: None, ..named.clone() }, EXAMPLE_TEXT.as_bytes(), "has the SHA-256"),
            (&named, b"name = 1", "has the SHA-256"),
            (&Named { sha256: Some(sha256(&[b"name = 1"])), ..named.clone() }, b"name = 1", "line 1: "),
            (&Named { sha256: Some(sha256(&[&[0xff]])), ..named.clone() }, &[0xff], "utf-8"),
        ] {
            let why = shelf.stock(named, text).unwrap_err().to_string();
            assert!(why.contains(expected), "{why}");
        }
        assert!(!folder.path().join(TAXONOMY_FOLDER).exists());
        shelf.stock(&named, EXAMPLE_TEXT.as_bytes()).unwrap();
        assert!(file_in(folder.path()).exists());
    }

    #[test]
    fn so_many_files_are_kept_and_the_one_in_force_is_always_among_them() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(folder.path());
        let version = |n: usize| {
            let text = EXAMPLE_TEXT.replace("version = 2", &format!("version = {n}"));
            (TaxonomyFile::parse(&text).unwrap().named, text)
        };
        for n in 2..2 * FILES_KEPT_MAX {
            let (named, text) = version(n);
            shelf.stock(&named, text.as_bytes()).unwrap();
            shelf.follow(&named.to_string());
            assert_eq!(shelf.text().unwrap(), text);
        }
        assert_eq!(files(&folder.path().join(TAXONOMY_FOLDER)).count(), FILES_KEPT_MAX);
        let (first, _) = version(2);
        let (last, text) = version(2 * FILES_KEPT_MAX - 1);
        assert_eq!(shelf.file(&first.sha256.unwrap()), None);
        assert_eq!(shelf.file(&last.sha256.unwrap()).unwrap(), text);
    }

    #[test]
    fn what_this_release_does_not_understand_is_kept_for_others_and_not_asked_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(folder.path());
        let newer = format!("{EXAMPLE_TEXT}colour = \"red\"\n");
        let digest = sha256(&[newer.as_bytes()]);
        shelf.follow(&Named { sha256: Some(digest), ..example().named }.to_string());
        shelf.take(newer.as_bytes()).unwrap();
        assert_eq!((shelf.wanted(), shelf.file(&digest).is_some()), (None, true));
        assert!(shelf.taxonomy().why_missing().unwrap().contains("a newer release may"));
        for foreign in ["x", "someone-elses-4"] {
            shelf.follow(foreign);
            assert_eq!((shelf.wanted(), shelf.taxonomy().name(1)), (None, "label-1".into()), "{foreign}");
        }
    }
}
