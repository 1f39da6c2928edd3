//! `backup` and `restore`: a consistent copy of this node, and its safe return.
//!
//! What is copied is what nobody else has: the journal of our own blocks, the outbox, who we are, and on demand the
//! keys. The folder of all members' blocks is not: a node rebuilds it from its journal and its peers. A restored folder
//! is marked, so that the node asks its peers what it has signed since before it signs anything.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::failure::{Exit, Failure, Outcome, io_failure};
use super::{Invocation, charter, init, show};
use crate::clock;
use crate::config::{CONFIG_FILE, POLICY_FILE};
use crate::engine::{CLOSED_BELOW_FILE, JOURNAL_FILE, OUTBOX_FILE};
use crate::keys::{LOG_ROOT_FILE, LOG_ROOT_NEXT_FILE, LOG_ROOT_OLD_FILE, LOG_SEED_FILE, TLS_CERT_FILE, TLS_KEY_FILE};
use crate::keys::{SEAL_KEY_FILE, SEAL_KEY_NEXT_FILE, TLS_NEXT_CERT_FILE, TLS_NEXT_KEY_FILE};
use crate::replica::ids::{TimeMs, hex};
use crate::store;
use crate::wire::files::Invitation;

/// The list of what a backup holds; written last, so that a backup without it is none.
const CONTENTS_FILE: &str = "backup.json";
/// Marks a data directory that came out of a backup; the node removes it when it has asked its peers.
pub(super) use crate::engine::RESTORED_FILE;
/// Bytes of the list at most: a dozen names and hashes are a hundredth of it.
const CONTENTS_SIZE_MAX: u64 = 64 * 1024;
/// The format of the list.
const VERSION: u32 = 1;

/// The outbox before the journal: an entry that is signed in between is then in both, and the node forgets the one that
/// its own block holds. The other way round it would be in neither.
const FILES: [&str; 8] = [
    OUTBOX_FILE,
    JOURNAL_FILE,
    CLOSED_BELOW_FILE,
    init::MEMBER_FILE,
    init::BINDING_FILE,
    init::REQUEST_FILE,
    CONFIG_FILE,
    POLICY_FILE,
];
const KEY_FILES: [&str; 10] = [
    LOG_ROOT_FILE,
    LOG_SEED_FILE,
    TLS_KEY_FILE,
    TLS_CERT_FILE,
    LOG_ROOT_NEXT_FILE,
    LOG_ROOT_OLD_FILE,
    TLS_NEXT_KEY_FILE,
    TLS_NEXT_CERT_FILE,
    SEAL_KEY_FILE,
    SEAL_KEY_NEXT_FILE,
];

#[derive(Args)]
pub(super) struct BackupArgs {
    /// New folder for the copy
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Copy the keys too: whoever gets the copy can then speak for our company
    #[arg(long)]
    keys: bool,
}

#[derive(Args)]
pub(super) struct RestoreArgs {
    /// A folder that backup made
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// What a backup holds.
#[derive(Debug, Deserialize, Serialize)]
struct Contents {
    version: u32,
    made_ms: u64,
    member_id: String,
    forum_id: String,
    keys: bool,
    files: Vec<Copied>,
}

/// One file of a backup.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Copied {
    name: String,
    length: u64,
    sha256: String,
}

pub(super) async fn backup(args: &BackupArgs, at: &Invocation) -> Outcome {
    let data = at.config()?.data;
    let member = init::member_here(&data)?;
    let chain = charter::current_chain(at).await?;
    if args.folder.exists() {
        let failure = Failure::new(Exit::Refused, format!("{} is already there", args.folder.display()));
        return Err(failure.fix("name a new folder: backups are not written over each other"));
    }
    init::create_folder(&args.folder)?;
    let mut files = Vec::new();
    for name in FILES {
        files.extend(copy(&data, &args.folder, name)?);
    }
    // All charters that the node knows by now, not only those that it was invited with.
    Invitation::of(&chain).write(&args.folder.join(init::INVITATION_FILE))?;
    files.push(measured(&args.folder, init::INVITATION_FILE)?);
    if args.keys {
        init::create_folder(&args.folder.join(init::KEYS_FOLDER))?;
        for name in KEY_FILES {
            files.extend(copy(&data, &args.folder, &format!("{}/{name}", init::KEYS_FOLDER))?);
        }
    }
    let contents = Contents {
        version: VERSION,
        made_ms: clock::now().0,
        member_id: member.to_string(),
        forum_id: chain.forum().to_string(),
        keys: args.keys,
        files,
    };
    let text = serde_json::to_string_pretty(&contents).map_err(|e| Failure::new(Exit::Bug, e.to_string()))?;
    crate::wire::files::write_text(&args.folder.join(CONTENTS_FILE), &text)?;
    if at.terminal.json {
        at.terminal.json(&contents)?;
        return Ok(Exit::Ok);
    }
    at.terminal.data(args.folder.display())?;
    at.terminal.talk(format!("copied {}", show::counted(contents.files.len(), "file")));
    at.terminal.talk(if args.keys {
        "the keys are in it: keep it as you keep them"
    } else {
        "the keys are not in it (--keys copies them): without them the node cannot come back as the same member"
    });
    Ok(Exit::Ok)
}

pub(super) fn restore(args: &RestoreArgs, at: &Invocation) -> Outcome {
    let data = at.config()?.data;
    let contents = read_contents(&args.folder)?;
    for file in &contents.files {
        check(&args.folder, file)?;
    }
    init::create_folder(&data)?;
    let _lock = store::lock_directory(&data)?;
    for name in [JOURNAL_FILE, OUTBOX_FILE, init::MEMBER_FILE, init::INVITATION_FILE] {
        if data.join(name).exists() {
            let failure = Failure::new(Exit::Refused, format!("{} holds a node already", data.display()));
            return Err(failure
                .culprit(format!("found {name}"))
                .fix("move it away, or name another folder: --data DIR"));
        }
    }
    let keys_there = data.join(init::KEYS_FOLDER).join(LOG_ROOT_FILE).exists();
    if contents.keys && keys_there {
        let failure = Failure::new(Exit::Refused, format!("there are keys in {} already", data.display()));
        return Err(failure.fix("move them away, or name another folder: --data DIR"));
    }
    // The mark before anything that it marks: a restore that is cut off never looks like a node that was only stopped.
    mark(&data)?;
    init::create_folder(&data.join(init::KEYS_FOLDER))?;
    for file in &contents.files {
        copy(&args.folder, &data, &file.name)?;
    }
    sync(&data)?;
    sync(&data.join(init::KEYS_FOLDER))?;
    if at.terminal.json {
        at.terminal.json(&contents)?;
        return Ok(Exit::Ok);
    }
    at.terminal.data(data.display())?;
    at.terminal.talk(format!("restored the backup of {}", show::time(TimeMs(contents.made_ms))));
    at.terminal.talk("make sure that no other copy of this node runs: two nodes with one key contradict each other");
    if !contents.keys && !keys_there {
        let keys = data.join(init::KEYS_FOLDER);
        at.terminal.talk(format!(
            "the keys are not in it: put {LOG_ROOT_FILE}, {LOG_SEED_FILE}, {TLS_KEY_FILE} and {TLS_CERT_FILE} into {}",
            keys.display()
        ));
    }
    at.terminal.talk("Next: staydown run (it asks its peers what it has signed since, and fetches everything else)");
    Ok(Exit::Ok)
}

fn mark(data: &Path) -> Result<(), Failure> {
    let path = data.join(RESTORED_FILE);
    File::create(&path).and_then(|file| file.sync_all()).map_err(io_failure(path.display()))?;
    sync(data)
}

fn sync(folder: &Path) -> Result<(), Failure> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_failure(folder.display()))
}

fn read_contents(folder: &Path) -> Result<Contents, Failure> {
    let path = folder.join(CONTENTS_FILE);
    let bad = |why: String| Failure::new(Exit::BadInput, format!("{}: {why}", path.display()));
    let file = File::open(&path).map_err(|error| bad(format!("{error}: not a whole backup")))?;
    let mut text = String::new();
    file.take(CONTENTS_SIZE_MAX).read_to_string(&mut text).map_err(|error| bad(error.to_string()))?;
    let contents: Contents = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    if contents.version != VERSION {
        return Err(bad(format!("format {}, expected {VERSION}", contents.version)));
    }
    // The list is read from a file: it names our files and no others.
    if let Some(file) = contents.files.iter().find(|file| !is_ours(&file.name)) {
        return Err(bad(format!("{:?} is no file of a node", file.name)));
    }
    Ok(contents)
}

fn is_ours(name: &str) -> bool {
    match name.split_once('/') {
        None => FILES.contains(&name) || name == init::INVITATION_FILE,
        Some((folder, name)) => folder == init::KEYS_FOLDER && KEY_FILES.contains(&name),
    }
}

fn check(folder: &Path, expected: &Copied) -> Result<(), Failure> {
    let got = measured(folder, &expected.name)?;
    if got == *expected {
        return Ok(());
    }
    let path = folder.join(&expected.name);
    Err(Failure::new(Exit::Verification, format!("{} was changed after it was copied", path.display()))
        .culprit(format!("expected {} bytes, {}", expected.length, expected.sha256))
        .culprit(format!("got      {} bytes, {}", got.length, got.sha256))
        .fix("take another backup"))
}

fn measured(folder: &Path, name: &str) -> Result<Copied, Failure> {
    let path = folder.join(name);
    let file = File::open(&path).map_err(io_failure(path.display()))?;
    passed_on(file, io::sink(), name).map_err(io_failure(path.display()))
}

/// Copies what is there of a file, for its owner's eyes only, and syncs it. A journal that grows meanwhile is copied up
/// to some frame, or into one, which the node cuts off when it starts.
fn copy(from: &Path, to: &Path, name: &str) -> Result<Option<Copied>, Failure> {
    let (source, target) = (from.join(name), to.join(name));
    let file = match File::open(&source) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(io_failure(source.display()))?,
    };
    let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&target);
    let written = written.map_err(io_failure(target.display()))?;
    let copied = passed_on(file, &written, name).map_err(io_failure(target.display()))?;
    written.sync_all().map_err(io_failure(target.display()))?;
    Ok(Some(copied))
}

fn passed_on(mut from: impl io::Read, mut to: impl io::Write, name: &str) -> io::Result<Copied> {
    let mut hash = Sha256::new();
    let mut length = 0;
    let mut buffer = zeroize::Zeroizing::new(vec![0; 64 * 1024]);
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(Copied { name: name.to_owned(), length, sha256: hex(&hash.finalize()) });
        }
        hash.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
        length += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_backup_names_files_of_a_node_and_no_others() {
        for (name, ours) in [
            ("journal", true),
            ("forum.sdi", true),
            ("keys/log-seed", true),
            ("place", false),
            ("replica", false),
            ("../journal", false),
            ("keys/../journal", false),
            ("keys/authorized", false),
            ("/etc/passwd", false),
        ] {
            assert_eq!(is_ours(name), ours, "{name}");
        }
    }

    #[test]
    fn what_was_changed_after_it_was_copied_is_noticed() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("journal"), vec![7; 100_000]).unwrap();
        let copied = copy(from.path(), to.path(), "journal").unwrap().unwrap();
        assert_eq!(copied.length, 100_000);
        check(to.path(), &copied).unwrap();
        assert!(copy(from.path(), to.path(), "outbox").unwrap().is_none());
        fs::write(to.path().join("journal"), vec![7; 99_999]).unwrap();
        assert_eq!(check(to.path(), &copied).unwrap_err().exit, Exit::Verification);
        assert_eq!(read_contents(to.path()).unwrap_err().exit, Exit::BadInput);
    }
}
