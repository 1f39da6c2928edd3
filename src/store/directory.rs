//! The data directory itself: who may use it, how much room is left, and what stands in it under other names.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::generation::remove;

/// Free space below which submissions stop, as a share of the file system in percent (PROTOCOL section 13).
pub const DISK_LOW_PERCENT: u64 = 5;

/// Free space below which submissions stop in any case: a bulk day of 5 million records takes about this much.
pub const DISK_LOW_BYTES: u64 = 1 << 30;

/// Most files or folders of one name that are kept aside. More than that is a machine that should not go on.
pub(super) const ASIDE_MAX: u32 = 1_000;

const DAMAGED: &str = ".damaged-";
const REBUILDING: &str = ".rebuilding";
const REWRITING: &str = ".rewriting";

/// The directory could not be locked; nothing in it was touched.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process works in this directory (PROTOCOL W6, exit code 73).
    #[error("{} is locked by another process; stop it first, or use another data directory", path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// The lock file cannot be made or locked.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// The right to use a data directory, until dropped or the process ends.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// Takes the advisory lock on `<dir>/lock`, creating the file if need be.
///
/// # Errors
/// [`LockError`], with the path of the lock file.
pub fn lock_directory(dir: &Path) -> Result<DirectoryLock, LockError> {
    let path = dir.join("lock");
    // The file is never removed: a lock on a removed file would lock nobody out.
    let file = match OpenOptions::new().create(true).truncate(false).write(true).open(&path) {
        Ok(file) => file,
        Err(source) => return Err(LockError::Io { path, source }),
    };
    match file.try_lock() {
        Ok(()) => Ok(DirectoryLock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(LockError::InUse { path }),
        Err(TryLockError::Error(source)) => Err(LockError::Io { path, source }),
    }
}

/// Whether the file system of `dir` has less room left than the low-water mark: submissions off, reads on.
///
/// # Errors
/// The file system cannot be asked.
pub fn disk_low(dir: &Path) -> io::Result<bool> {
    Ok(room(dir)?.is_low())
}

/// How much room a file system has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that this process may still write.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

impl Room {
    /// Whether submissions stop.
    pub fn is_low(self) -> bool {
        is_low(self.free_bytes, self.total_bytes)
    }

    /// Whether they will when half of what is free is used up.
    pub fn is_nearly_low(self) -> bool {
        is_low(self.free_bytes / 2, self.total_bytes)
    }
}

/// The room that the file system of `dir` has.
///
/// # Errors
/// The file system cannot be asked.
pub fn room(dir: &Path) -> io::Result<Room> {
    let space = rustix::fs::statvfs(dir)?;
    let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
    Ok(Room { free_bytes: bytes(space.f_bavail), total_bytes: bytes(space.f_blocks) })
}

/// Bytes of all files in `folder`, as far as they can be told.
pub fn size_on_disk(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(file) if file.is_dir() => size_on_disk(&entry.path()),
        Ok(file) => file.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

fn is_low(free_bytes: u64, total_bytes: u64) -> bool {
    free_bytes < (total_bytes / 100 * DISK_LOW_PERCENT).max(DISK_LOW_BYTES)
}

/// Makes creations, renames and removals in `path`'s folder durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// The first free `<path>.damaged-<n>`.
pub(super) fn free_name_beside(path: &Path) -> io::Result<PathBuf> {
    let mut candidates = (1..=ASIDE_MAX).map(|number| aside_name(path, number));
    candidates
        .find(|name| fs::symlink_metadata(name).is_err_and(|error| error.kind() == io::ErrorKind::NotFound))
        .ok_or_else(|| io::Error::other(format!("{ASIDE_MAX} damaged ones are kept beside it; move them away")))
}

/// What was moved aside from `path` and still stands there, oldest first.
pub(super) fn moved_aside(path: &Path) -> io::Result<Vec<PathBuf>> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let prefix = aside_prefix(path);
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix.to_str()?)?.parse::<u32>().ok());
        found.extend(number.map(|number| (number, parent.join(&name))));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Removes what a damaged store or outbox left in `folder`, and unfinished copies: after an erasure nobody may find the
/// erased bytes there. To be called while store, outbox and journal are open, so that nothing is needed of it any more.
///
/// The set-aside predecessors of `journal` stay, because they say which logs are closed; [`super::journal::Journal::rewrite`]
/// takes the erased bytes out of them. Files are deleted, not overwritten, see [`super::Store::rewrite`]. Returns what
/// was removed.
///
/// # Errors
/// Something cannot be listed or removed; what was removed before is gone.
pub fn erase_set_aside(folder: &Path, journal: &Path) -> io::Result<Vec<PathBuf>> {
    let kept = moved_aside(journal)?;
    let mut removed = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let aside = name.rsplit_once(DAMAGED).is_some_and(|(_, number)| number.parse::<u32>().is_ok());
        if (aside && !kept.contains(&path)) || name.ends_with(REBUILDING) || name.ends_with(REWRITING) {
            remove(&path)?;
            removed.push(path);
        }
    }
    File::open(folder)?.sync_all()?;
    removed.sort();
    Ok(removed)
}

/// Where the successor of `path` is written until it is complete, if `path` is damaged.
pub(super) fn rebuilding_name(path: &Path) -> PathBuf {
    with_ending(path, REBUILDING)
}

/// The same if `path` is sound: what stands there never takes the place of `path` at a start.
pub(super) fn rewriting_name(path: &Path) -> PathBuf {
    with_ending(path, REWRITING)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// What is damaged is moved only when its successor is complete; if the process ended right then, it still is.
pub(super) fn finish_interrupted(path: &Path, rebuilding: &Path) -> io::Result<()> {
    if path.try_exists()? || !rebuilding.try_exists()? {
        return Ok(());
    }
    fs::rename(rebuilding, path)?;
    sync_parent(path)
}

fn aside_name(path: &Path, number: u32) -> PathBuf {
    let mut name = aside_prefix(path);
    name.push(number.to_string());
    path.with_file_name(name)
}

fn aside_prefix(path: &Path) -> OsString {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(DAMAGED);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_user_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let lock = lock_directory(folder.path()).unwrap();
        let refused = lock_directory(folder.path()).unwrap_err();
        assert!(matches!(&refused, LockError::InUse { path } if *path == folder.path().join("lock")));
        assert!(refused.to_string().contains("lock is locked by another process"));
        drop(lock);
        lock_directory(folder.path()).unwrap();
    }

    #[test]
    fn a_directory_that_is_not_there_cannot_be_locked() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(lock_directory(&folder.path().join("missing")), Err(LockError::Io { .. })));
    }

    #[test]
    fn the_disk_is_low_below_five_percent_and_below_one_gibibyte() {
        const GIB: u64 = 1 << 30;
        let cases = [
            (GIB, 10 * GIB, false),
            (GIB - 1, 10 * GIB, true),
            (5 * GIB, 100 * GIB, false),
            (5 * GIB - GIB / 10, 100 * GIB, true),
            (0, 0, true),
        ];
        for (free, total, low) in cases {
            assert_eq!(is_low(free, total), low, "{free} of {total}");
        }
        let folder = tempfile::tempdir().unwrap();
        disk_low(folder.path()).unwrap();
    }

    #[test]
    fn names_beside_are_counted_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replica");
        for number in [1, 2, 10] {
            fs::write(aside_name(&path, number), b"").unwrap();
        }
        fs::write(folder.path().join("replica.damaged-x"), b"").unwrap();
        assert_eq!(free_name_beside(&path).unwrap(), aside_name(&path, 3));
        let found = moved_aside(&path).unwrap();
        assert_eq!(found, [1, 2, 10].map(|number| aside_name(&path, number)));
    }

    #[test]
    fn nothing_set_aside_stays_but_the_journals() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["replica", "replica.damaged-1", "replica.rebuilding"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("db"), b"").unwrap();
        }
        for name in ["journal", "journal.damaged-1", "journal.rewriting", "outbox", "outbox.damaged-12", "x.damaged-x"]
        {
            fs::write(at(name), b"").unwrap();
        }
        let removed = erase_set_aside(folder.path(), &at("journal")).unwrap();
        assert_eq!(
            removed,
            ["journal.rewriting", "outbox.damaged-12", "replica.damaged-1", "replica.rebuilding"].map(at)
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5);
        assert_eq!(erase_set_aside(folder.path(), &at("journal")).unwrap(), Vec::<PathBuf>::new());
    }
}
