//! What lies on the disk: the data directory, the store, the files that the settings name, and the room that is left.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Findings, Level};
use crate::access::token::{TOKENS_FILE, Tokens};
use crate::cli::failure::{Exit, Failure};
use crate::cli::{charter, init, show};
use crate::config::Config;
use crate::engine::{JOURNAL_FILE, STORE_FOLDER};
use crate::hashing::video;
use crate::policy::harmless::Harmless;
use crate::policy::in_force::Standing;
use crate::replica::charter::{Charter, CharterChain};
use crate::replica::ids::TimeMs;
use crate::store;
use crate::store::journal::{JournalEnd, salvage};
use crate::store::place::{Place, Stood};
use crate::taxonomy::shelf;

/// Files whose owners are looked at: the folders of a node have a few hundred.
const FILES_LOOKED_AT_MAX: usize = 10_000;
/// Semantics level from which on videos are compared by their frames.
const LEVEL_OF_VIDEOS: u32 = 4;

/// Whether there is a node at all, whose files they are, and what was set aside.
pub(super) fn directory(data: &Path, found: &mut Findings) -> bool {
    let place = data.display();
    let about = match fs::metadata(data) {
        Ok(about) if about.is_dir() => about,
        Ok(_) => {
            found.fail("files", format!("{place} is no directory"), "name another one: --data DIR");
            return false;
        }
        Err(error) => {
            let fix = match error.kind() {
                io::ErrorKind::NotFound => "staydown init --forum FINGERPRINT ..., or name another one: --data DIR",
                _ => "run this as the node's user",
            };
            found.fail("files", format!("{place}: {error}"), fix);
            return false;
        }
    };
    if about.mode() & 0o022 != 0 {
        let what = format!("{place} may be changed by others (mode {:04o})", about.mode() & 0o7777);
        found.fail("files", what, format!("chmod go-w {place}"));
    }
    strangers(data, about.uid(), found);
    set_aside(data, found);
    for (file, what, fix) in [
        (init::MEMBER_FILE, "holds no node", "staydown init --forum FINGERPRINT ..., or name another one: --data DIR"),
        (init::INVITATION_FILE, "has not joined a forum yet", "staydown join FILE, with the invitation of a founder"),
    ] {
        if !data.join(file).exists() {
            found.fail("files", format!("{place} {what}"), fix);
            return false;
        }
    }
    moved(data, found);
    found.ok("files", format!("{place} holds a node that has joined a forum"));
    true
}

/// A command that was run as root leaves files behind that the node cannot change.
fn strangers(data: &Path, owner: u32, found: &mut Findings) {
    let is_strange = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|about| about.uid() != owner);
    let strange: Vec<_> = below(data, 3).into_iter().filter(is_strange).collect();
    let Some(first) = strange.first() else { return };
    let what = match strange.len() {
        1 => format!("{} does not belong to the owner of the data directory (user {owner})", first.display()),
        all => {
            format!("{} and {} more do not belong to user {owner}, who owns the directory", first.display(), all - 1)
        }
    };
    found.fail("files", what, format!("stop the node, then chown -R {owner} {}", data.display()));
}

/// Everything in a folder, down to some depth, the folder itself left out.
fn below(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let (mut all, mut folders) = (Vec::new(), vec![(folder.to_owned(), depth)]);
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if all.len() == FILES_LOOKED_AT_MAX {
                return all;
            }
            if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push((entry.path(), depth - 1));
            }
            all.push(entry.path());
        }
    }
    all
}

fn set_aside(data: &Path, found: &mut Findings) {
    let is_aside = |path: &PathBuf| path.to_string_lossy().contains(".damaged-");
    for aside in below(data, 1).into_iter().filter(is_aside) {
        let keep = aside.file_name().is_some_and(|name| name.to_string_lossy().starts_with(JOURNAL_FILE));
        let fix = match keep {
            true => "nothing: it says which of our logs are closed, and stays",
            false => "look at why the disk failed; when the node is GREEN it may be deleted",
        };
        found.warn("files", format!("{} was damaged and set aside", aside.display()), fix);
    }
}

/// A copied directory never goes on with its logs: better known before the start than after.
fn moved(data: &Path, found: &mut Findings) {
    let what = match Place::read_and_compare(data) {
        _ if data.join(crate::engine::RESTORED_FILE).exists() => "was restored from a backup".to_owned(),
        Ok(Stood::Moved { .. }) => "was copied, moved or restored since the last start".to_owned(),
        Ok(_) => return,
        Err(error) => format!("cannot be told whether it was moved: {error}"),
    };
    let fix = "stop the node in the other place for good; this one then goes on in new logs by itself";
    found.warn("files", format!("{} {what}", data.display()), fix);
}

/// Store and journal of a node that does not run. The charters come out of it.
pub(super) fn store(config: &Config, found: &mut Findings) -> Result<CharterChain, Failure> {
    let charters = charter::stopped_chain(config)?;
    if config.data.join(STORE_FOLDER).is_dir() {
        found.ok("store", format!("it opens; charter {}", charters.version()));
    } else {
        found.ok("store", "there is none yet; the first start fetches the list");
    }
    journal(&config.data.join(JOURNAL_FILE), found);
    Ok(charters)
}

fn journal(path: &Path, found: &mut Findings) {
    if !path.exists() {
        return found.ok("journal", "there is none yet: this node has signed nothing");
    }
    match salvage(path).map(|replay| replay.end) {
        Ok(JournalEnd::Clean | JournalEnd::Missing) => found.ok("journal", "it reads from end to end"),
        Ok(JournalEnd::TornTail { dropped_bytes }) => {
            found.ok(
                "journal",
                format!("{dropped_bytes} bytes of an unfinished write are at its end; the start cuts them off"),
            );
        }
        Ok(JournalEnd::Damaged { at_offset, salvaged_frames, .. }) => found.warn(
            "journal",
            format!("it is damaged at byte {at_offset}; {salvaged_frames} blocks behind that can be read"),
            "start the node: it sets the file aside, asks its peers and goes on in a new log; then look at the disk",
        ),
        Err(error) => found.fail("journal", error.to_string(), "staydown restore, from the last backup"),
    }
}

pub(super) fn disk(data: &Path, found: &mut Findings) {
    match store::room(data) {
        Err(error) => found.warn("disk", format!("{}: {error}", data.display()), "look at the file system"),
        Ok(room) => {
            let what = format!("{} MiB of {} MiB are free", room.free_bytes >> 20, room.total_bytes >> 20);
            match (room.is_low(), room.is_nearly_low()) {
                (true, _) => {
                    let fix = "make room: below 5 percent or 1 GiB submissions are refused, lookups go on";
                    found.fail("disk", what, fix);
                }
                (false, true) => {
                    found.warn("disk", what, "make room soon: below 5 percent or 1 GiB submissions are refused");
                }
                (false, false) => found.ok("disk", what),
            }
        }
    }
}

/// The files that a person writes for this node.
pub(super) fn program_files(config: &Config, found: &mut Findings) {
    match Standing::load(config) {
        Err(error) => found.failure("policy", Level::Fail, error.into()),
        Ok(standing) => {
            let now = standing.in_force();
            let file = now.file.as_ref().map_or("built in".to_owned(), |path| path.display().to_string());
            let rules = show::counted(now.policy.rules().len(), "rule");
            found.ok("policy", format!("{rules} ({file}){}", if standing.shadow() { ", in shadow mode" } else { "" }));
        }
    }
    match Harmless::of(config.guard.harmless.clone()).read() {
        Err(error) => {
            let failure = Failure::new(Exit::BadInput, error.to_string());
            found.failure("harmless", Level::Fail, failure.fix("mend the file; the node does not start with it"));
        }
        Ok(hashes) if config.guard.harmless.is_some() => {
            found.ok("harmless", show::counted(hashes.len(), "hash").replace("hashs", "hashes"));
        }
        Ok(_none) => {}
    }
}

/// The tokens of our own people and programs.
pub(super) fn tokens(data: &Path, now: TimeMs, found: &mut Findings) {
    let path = data.join(TOKENS_FILE);
    match Tokens::read(&path) {
        Err(error) => {
            found.fail(
                "tokens",
                error.to_string(),
                "put the file back from a backup, or remove it and make new tokens",
            );
        }
        Ok(tokens) => {
            let ended: Vec<_> = tokens.iter().filter(|token| token.expires <= now).map(|t| t.name.as_str()).collect();
            if !ended.is_empty() {
                let what = format!("expired: {}", ended.join(", "));
                found.warn("tokens", what, "staydown token revoke NAME, and token new for who still needs one");
            }
            found.ok("tokens", format!("{} in use", show::counted(tokens.iter().count() - ended.len(), "token")));
        }
    }
    let mode = fs::metadata(&path).map_or(0o600, |about| about.mode() & 0o777);
    if mode & 0o077 != 0 {
        let what = format!("{} may be read by others (mode {mode:04o}, expected 0600)", path.display());
        found.fail("tokens", what, format!("chmod 600 {}", path.display()));
    }
}

pub(super) fn taxonomy(data: &Path, charter: &Charter, found: &mut Findings) {
    let (taxonomy, _) = shelf::kept(data, &charter.taxonomy);
    match taxonomy.why_missing() {
        None => found.ok("taxonomy", charter.taxonomy.clone()),
        Some(why) => found.warn(
            "taxonomy",
            format!("{}: {why}", charter.taxonomy),
            "a running node fetches it from any peer; else staydown charter apply FILE again",
        ),
    }
}

pub(super) fn ffmpeg(charter: &Charter, found: &mut Findings) {
    match (video::program_version(), charter.semantics >= LEVEL_OF_VIDEOS) {
        (Some(version), _) => found.ok("ffmpeg", version),
        (None, true) => found.warn(
            "ffmpeg",
            "it is not here: of videos only the digests are computed, no copy is found by its frames",
            "where files are hashed: apt-get install ffmpeg",
        ),
        (None, false) => found.ok("ffmpeg", "it is not here; this forum does not compare videos by their frames"),
    }
}

/// A span of time as people say it.
pub(super) fn span(ms: u64) -> String {
    match ms {
        ms if ms >= 2 * TimeMs::DAY_MS => format!("{} days", ms / TimeMs::DAY_MS),
        ms if ms >= 2 * TimeMs::HOUR_MS => format!("{} hours", ms / TimeMs::HOUR_MS),
        ms => format!("{} s", ms / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn looked_at(look: impl FnOnce(&mut Findings)) -> Vec<(&'static str, String)> {
        let mut found = Findings::default();
        look(&mut found);
        found.0.into_iter().map(|finding| (finding.level, finding.what)).collect()
    }

    #[test]
    fn a_directory_without_a_node_is_told_with_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("node");
        let examine = || looked_at(|found| assert!(!directory(&data, found)));
        assert!(examine()[0].1.contains("No such file"));
        fs::write(&data, "").unwrap();
        assert!(examine()[0].1.ends_with("is no directory"));
        fs::remove_file(&data).unwrap();
        fs::create_dir(&data).unwrap();
        assert!(examine().iter().any(|(level, what)| *level == "FAIL" && what.ends_with("holds no node")));
        fs::write(data.join(init::MEMBER_FILE), "").unwrap();
        assert!(examine().last().unwrap().1.ends_with("has not joined a forum yet"));
        fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(examine()[0].1.ends_with("may be changed by others (mode 0777)"));
    }

    #[test]
    fn what_was_set_aside_is_told_and_what_is_restored() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["journal.damaged-1", "replica.damaged-2", "journal"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let told = looked_at(|found| set_aside(folder.path(), found));
        assert_eq!(told.len(), 2);
        assert_eq!(looked_at(|found| strangers(folder.path(), fs::metadata(folder.path()).unwrap().uid(), found)), []);
        let told = looked_at(|found| strangers(folder.path(), 4_294_000_000, found));
        assert!(told[0].1.contains("and 2 more do not belong to user 4294000000"), "{told:?}");
        fs::write(folder.path().join(crate::engine::RESTORED_FILE), "").unwrap();
        assert!(looked_at(|found| moved(folder.path(), found))[0].1.ends_with("was restored from a backup"));
    }

    #[test]
    fn a_journal_that_is_none_is_told_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        assert_eq!(looked_at(|found| journal(&path, found))[0].0, "OK");
        let (mut made, _) = store::journal::Journal::open(&path).unwrap();
        made.append(&[b"one", b"two"]).unwrap();
        assert_eq!(looked_at(|found| journal(&path, found)), [("OK", "it reads from end to end".to_owned())]);
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 1);
        fs::write(&path, &bytes).unwrap();
        assert!(looked_at(|found| journal(&path, found))[0].1.contains("of an unfinished write"));
        fs::write(&path, b"something else entirely, of another program").unwrap();
        assert_ne!(looked_at(|found| journal(&path, found))[0].0, "OK");
        assert_eq!(fs::read(&path).unwrap(), b"something else entirely, of another program");
    }

    #[test]
    fn a_file_of_tokens_that_others_may_read_fails() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(looked_at(|found| tokens(folder.path(), TimeMs(0), found)), [("OK", "0 tokens in use".to_owned())]);
        let path = folder.path().join(TOKENS_FILE);
        fs::write(&path, "[]").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(looked_at(|found| tokens(folder.path(), TimeMs(0), found))[1].1.contains("mode 0640"));
        fs::write(&path, "nonsense").unwrap();
        assert_eq!(looked_at(|found| tokens(folder.path(), TimeMs(0), found))[0].0, "FAIL");
    }

    #[test]
    fn files_that_people_write_are_read_as_the_node_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default_in(folder.path().to_owned());
        assert_eq!(looked_at(|found| program_files(&config, found)).len(), 1);
        fs::write(folder.path().join("policy.toml"), "nonsense = 1").unwrap();
        config.guard.harmless = Some(folder.path().join("harmless.txt"));
        fs::write(folder.path().join("harmless.txt"), "sha256:zz\n").unwrap();
        let told = looked_at(|found| program_files(&config, found));
        assert!(told.len() == 2 && told.iter().all(|(level, _)| *level == "FAIL"), "{told:?}");
    }
}
