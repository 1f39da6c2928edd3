//! One damaged file at a time: the node refuses with a clear message or heals, no panic reaches anybody, and nothing is
//! lost that remains in the journal, in the store or at the peer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use staydown::clock;
use staydown::engine::{CLOSED_BELOW_FILE, JOURNAL_FILE, OUTBOX_FILE, STORE_FOLDER};
use staydown::store::place::{PLACE_FILE, Place};
use staydown::wire::local as l;

use crate::forum::{self, Chance, DEADLINE, Forum, Process, Tally, count};

const DAMAGES: usize = 10;
/// Statements of each company before the peer's old copy is taken, and again after it.
const STATEMENTS: usize = 60;
/// Zeroed at once: a page of the file system.
const PAGE: usize = 4_096;

const VICTIM: usize = 0;
const PEER: usize = 1;

#[test]
fn a_damaged_file_is_refused_or_healed() {
    crate::runtime().block_on(run(count("STAYDOWN_DAMAGES", DAMAGES)));
}

async fn run(damages: usize) {
    let forum = Forum::found(2, crate::folder());
    let originals = originals(&forum).await;
    let mut chance = Chance(crate::seed());
    let files = files(&originals.victim);
    assert!(files.iter().any(|f| f.ends_with(JOURNAL_FILE)) && files.iter().any(|f| f.ends_with(PLACE_FILE)));
    assert!(files.iter().any(|f| f.ends_with(CLOSED_BELOW_FILE)) && files.iter().any(|f| f.ends_with("db")));
    let mut tally = Tally::new();
    for round in 0..damages {
        // Sometimes the peer lacks the second half: then journal and store are all there is of it.
        let peer = if chance.below(2) == 0 { &originals.peer } else { &originals.peer_before };
        restore(&originals.victim, &forum.companies[VICTIM].data);
        // The drill is of a directory that was damaged where it stands, not of a copy: that leaves its logs behind.
        Place::write(&forum.companies[VICTIM].data).unwrap();
        restore(peer, &forum.companies[PEER].data);
        let file = &files[round % files.len()];
        let what = Damage::ALL[(round % files.len() + round / files.len()) % Damage::ALL.len()];
        let told = format!("{what:?} of {}", file.display());
        what.inflict(&forum.companies[VICTIM].data.join(file), &mut chance);
        let outcome = survives(&forum, &originals, &told).await;
        *tally.entry(format!("{told} {outcome}")).or_default() += 1;
    }
    println!("{damages} damages:");
    tally.iter().for_each(|(what, times)| println!("{times:>4} {what}"));
}

/// The folders as they were before any damage.
struct Originals {
    victim: PathBuf,
    peer: PathBuf,
    peer_before: PathBuf,
    values: Vec<String>,
}

async fn originals(forum: &Forum) -> Originals {
    let keep = |name: &str| forum.folder.path().join(name);
    let originals = Originals {
        victim: keep("victim"),
        peer: keep("peer"),
        peer_before: keep("peer-before"),
        values: (0..)
            .take(4 * STATEMENTS)
            .map(|n| data_encoding::HEXLOWER.encode(&forum::scattered::<32>(n)))
            .collect(),
    };
    let mut victim = forum.start(VICTIM).await;
    let mut peer = forum.start(PEER).await;
    let [first, second, third, last] = [0, 1, 2, 3].map(|i| &originals.values[i * STATEMENTS..][..STATEMENTS]);
    victim.open().await;
    peer.open().await;
    say(&mut victim, first).await;
    say(&mut peer, second).await;
    forum::agreed(&mut victim, &mut peer).await;
    assert!(peer.stop().success());
    copy(&forum.companies[PEER].data, &originals.peer_before);
    // What the victim alone says while the peer is away is what only journal and store hold.
    say(&mut victim, third).await;
    say(&mut victim, last).await;
    let mut peer = forum.start(PEER).await;
    forum::agreed(&mut victim, &mut peer).await;
    assert!(peer.stop().success());
    copy(&forum.companies[PEER].data, &originals.peer);
    victim.kill();
    copy(&forum.companies[VICTIM].data, &originals.victim);
    fs::write(originals.victim.join(CLOSED_BELOW_FILE), "0").unwrap();
    originals
}

async fn survives(forum: &Forum, originals: &Originals, told: &str) -> &'static str {
    let mut victim = forum.spawn(VICTIM);
    let outcome = match victim.serves().await {
        Ok(()) => {
            let mut peer = forum.start(PEER).await;
            for node in [&mut victim, &mut peer] {
                everything_is_there(node, &originals.values, told).await;
            }
            victim.open().await;
            let new = data_encoding::HEXLOWER.encode(&forum::scattered::<32>(u64::MAX));
            say(&mut victim, std::slice::from_ref(&new)).await;
            everything_is_there(&mut peer, &[new], told).await;
            let (ours, _) = forum::agreed(&mut victim, &mut peer).await;
            assert_eq!(ours.proofs, 0, "{told}: a fork: {:?}", ours.health_reasons);
            "healed"
        }
        Err(message) => {
            assert!(message.contains(": ") && !message.to_lowercase().contains("panic"), "{told}: {message}");
            println!("{told}: {message}");
            "refused"
        }
    };
    drop(victim);
    assert_eq!(forum::panics(forum), Vec::<String>::new(), "{told}");
    outcome
}

/// What happens to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    FlippedBit,
    Truncated,
    ZeroedPage,
    Missing,
}

impl Damage {
    const ALL: [Self; 4] = [Self::FlippedBit, Self::Truncated, Self::ZeroedPage, Self::Missing];

    fn inflict(self, file: &Path, chance: &mut Chance) {
        let mut bytes = fs::read(file).unwrap();
        // Where something is written: the store's file is mostly room.
        let written: Vec<_> = (0..bytes.len()).filter(|i| bytes[*i] != 0).collect();
        let at = chance.pick(&written).copied().unwrap_or(0);
        match self {
            Self::Missing => return fs::remove_file(file).unwrap(),
            Self::FlippedBit if !bytes.is_empty() => bytes[at] ^= 1 << chance.below(8),
            Self::Truncated => bytes.truncate(at),
            Self::ZeroedPage => {
                let page = at / PAGE * PAGE;
                let end = bytes.len().min(page + PAGE);
                bytes[page..end].fill(0);
            }
            Self::FlippedBit => {}
        }
        fs::write(file, bytes).unwrap();
    }
}

/// The journal, the outbox, what is remembered of the place, and the files of the store, relative to the data directory.
fn files(data: &Path) -> Vec<PathBuf> {
    let files = [JOURNAL_FILE, OUTBOX_FILE, PLACE_FILE, CLOSED_BELOW_FILE].map(PathBuf::from);
    let mut files: Vec<_> = files.into_iter().filter(|f| data.join(f).is_file()).collect();
    let mut folders = vec![PathBuf::from(STORE_FOLDER)];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> = fs::read_dir(data.join(&folder)).unwrap().map(Result::unwrap).collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

fn restore(from: &Path, to: &Path) {
    fs::remove_dir_all(to).unwrap();
    copy(from, to);
}

/// Copies a folder, over what stands there; sockets stay behind. A file that its node removes meanwhile is left out, and
/// one that it writes may be torn: so are real backups.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let Ok(kind) = entry.file_type() else { continue };
        let target = to.join(entry.file_name());
        let copied = if kind.is_dir() {
            copy(&entry.path(), &target);
            Ok(0)
        } else if kind.is_file() {
            fs::copy(entry.path(), target)
        } else {
            Ok(0)
        };
        assert!(copied.is_ok() || !entry.path().exists(), "{}: {copied:?}", entry.path().display());
    }
}

async fn say(node: &mut Process, values: &[String]) {
    for value in values {
        let statement = l::Statement {
            signal: Some(l::Signal { r#type: "sha256".into(), value: value.clone() }),
            stance: l::Stance::Submit.into(),
            labels: vec!["propaganda".into()],
            ..Default::default()
        };
        let request = l::SubmitRequest { statements: vec![statement], ..Default::default() };
        node.client.submit(request).await.unwrap();
    }
}

async fn everything_is_there(node: &mut Process, values: &[String], told: &str) {
    let begun = clock::instant();
    for value in values {
        while !node.matches("sha256", value).await {
            assert!(begun.elapsed() < DEADLINE, "{told}: {} never shows {value}", node.name);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
