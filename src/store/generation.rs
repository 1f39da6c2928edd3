//! Where in the store's folder the database stands. A database that is rewritten gets a folder of its own, because sled
//! keeps to its path while it is open.
//!
//! | in the store's folder | what it is |
//! | --- | --- |
//! | `db`, `blobs/`, ... | the database as it was begun: generation 0, all that there is in most folders |
//! | `generation-<n>/` | the n-th rewriting; it counts unless a file `unfinished` stands in it |
//! | `beginning-<n>/` | what becomes `generation-<n>/` at once |
//!
//! The highest generation that counts is the database, so the one step that decides is the removal of `unfinished`;
//! a mark of completion instead could get lost by damage, and with it a whole database. Everything else is what a crash
//! left, and [`remove_others`] removes it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const PREFIX: &str = "generation-";
const BEGINNING: &str = "beginning-";
const UNFINISHED: &str = "unfinished";

/// The folder of the database that counts: `dir` itself, or its highest finished generation.
pub(super) fn current(dir: &Path) -> io::Result<PathBuf> {
    let mut highest = None;
    for (number, path) in generations(dir)? {
        if Some(number) > highest.as_ref().map(|(number, _)| *number) && !path.join(UNFINISHED).try_exists()? {
            highest = Some((number, path));
        }
    }
    Ok(highest.map_or_else(|| dir.to_owned(), |(_, path)| path))
}

/// Makes the folder of the next generation, which does not count yet.
pub(super) fn begin(dir: &Path) -> io::Result<PathBuf> {
    let number = generations(dir)?.into_iter().map(|(number, _)| number).max().unwrap_or(0) + 1;
    let beginning = dir.join(format!("{BEGINNING}{number}"));
    remove(&beginning)?;
    fs::create_dir(&beginning)?;
    File::create(beginning.join(UNFINISHED))?.sync_all()?;
    File::open(&beginning)?.sync_all()?;
    let path = dir.join(format!("{PREFIX}{number}"));
    fs::rename(&beginning, &path)?;
    File::open(dir)?.sync_all()?;
    Ok(path)
}

/// Makes a generation count. After an error it may count or not.
pub(super) fn finish(generation: &Path) -> io::Result<()> {
    fs::remove_file(generation.join(UNFINISHED))?;
    File::open(generation)?.sync_all()
}

/// Removes from `dir` what does not belong to the database in `current`. Whatever stops it, what counts still counts.
pub(super) fn remove_others(dir: &Path, current: &Path) -> io::Result<()> {
    let mut removed = false;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let ours = path.file_name().and_then(|name| name.to_str());
        let rewriting = ours.is_some_and(|name| name.starts_with(PREFIX) || name.starts_with(BEGINNING));
        if path != current && (current != dir || rewriting) {
            remove(&path)?;
            removed = true;
        }
    }
    if removed { File::open(dir)?.sync_all() } else { Ok(()) }
}

fn generations(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix(PREFIX)?.parse::<u64>().ok());
        found.extend(number.filter(|_| path.is_dir()).map(|number| (number, path)));
    }
    Ok(found)
}

/// Removes a file or a folder, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(file) if file.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_finished_generation_counts_and_nothing_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        assert_eq!(current(&dir.join("missing")).unwrap(), dir.join("missing"));
        fs::write(dir.join("db"), b"generation 0").unwrap();
        let first = begin(dir).unwrap();
        assert_eq!((current(dir).unwrap(), &first), (dir.to_owned(), &dir.join("generation-1")));
        finish(&first).unwrap();
        let second = begin(dir).unwrap();
        assert_eq!(current(dir).unwrap(), first);
        for (current, stays) in [(&first, "generation-1"), (&second, "")] {
            fs::create_dir(dir.join("beginning-7")).unwrap();
            remove_others(dir, current).unwrap();
            let names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, Vec::from_iter([stays].into_iter().filter(|name| !name.is_empty())));
        }
    }

    #[test]
    fn a_database_that_was_never_rewritten_keeps_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        fs::write(dir.join("db"), b"generation 0").unwrap();
        begin(dir).unwrap();
        fs::create_dir(dir.join("beginning-2")).unwrap();
        remove_others(dir, &current(dir).unwrap()).unwrap();
        let names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["db"]);
    }
}
