//! Evidence: what a node exports is verified by `verify` and by the independent program in `clients/python/`, and what
//! was changed in it by neither.

#![expect(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use prost::Message as _;
use serde_json::Value;
use staydown::evidence::format::{Claim, Counts, Evidence, Kind, Malformed, Reader, Writer};
use staydown::evidence::verify;
use staydown::replica::exchange::Draw;
use staydown::replica::ids::ForumId;
use staydown::replica::{merkle, proto};
use staydown::wire::files::Invitation;

use crate::world::{Forum, Ran, hash, run, wait_for};

/// Mutated files that must be rejected.
const MUTATIONS: u64 = 200;

/// The independent verifier, if this machine can run it. In CI it must.
#[expect(clippy::print_stderr, reason = "whoever reads the test's output learns what was not tested")]
fn python() -> Option<Command> {
    let able = |python: &&str| {
        let ran = Command::new(python).args(["-c", "import cryptography"]).output();
        ran.is_ok_and(|ran| ran.status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(able);
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "python3 with cryptography is missing in CI");
        eprintln!("skipped: the independent verifier needs python3 with cryptography (Debian: python3-cryptography)");
    }
    let mut command = Command::new(found?);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python/staydown_verify.py");
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(script);
    Some(command)
}

/// What the independent verifier says of each file.
fn by_python(mut python: Command, files: &[String], forum: &str) -> Vec<Value> {
    Ran::of(python.args(files).args(["--json", "--forum", forum]), b"").json_lines()
}

/// A file taken apart.
#[derive(Clone)]
struct Parts {
    what: Evidence,
    items: Vec<(Kind, Vec<u8>)>,
    claim: Claim,
}

impl Parts {
    fn of(bytes: &[u8]) -> Self {
        let mut reader = Reader::begin(bytes).unwrap();
        let mut items = Vec::new();
        while let Some(item) = reader.next_item().unwrap() {
            items.push((item.kind, item.bytes.to_vec()));
        }
        Self { what: reader.what, items, claim: reader.claim().unwrap() }
    }

    /// Put together again, with a hash that fits: whoever changes a file can do that, too.
    fn sealed(&self) -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), self.what).unwrap();
        self.items.iter().for_each(|(kind, bytes)| writer.item(*kind, bytes).unwrap());
        writer.end(&self.claim).unwrap()
    }

    /// The trailer counts what is there.
    fn counted(mut self) -> Self {
        let count = |kinds: &[Kind]| self.items.iter().filter(|(kind, _)| kinds.contains(kind)).count() as u64;
        self.claim.counts = Counts {
            charters: count(&[Kind::Charter]),
            proofs: count(&[Kind::Proof]),
            main: count(&[Kind::Block, Kind::Record]),
            inner: if self.what == Evidence::Bundle { self.claim.counts.inner } else { count(&[Kind::Attested]) },
        };
        self
    }

    fn any(&self, draw: &mut Draw) -> usize {
        draw.below(self.items.len() as u64) as usize
    }
}

/// One change, by its number.
fn mutated(whole: &[u8], other_charter: &[u8], number: u64, draw: &mut Draw) -> (&'static str, Vec<u8>) {
    let mut parts = Parts::of(whole);
    let at = parts.any(draw);
    match number % 10 {
        0 => {
            let mut bytes = whole.to_vec();
            let place = draw.below(bytes.len() as u64) as usize;
            bytes[place] ^= 1 << draw.below(8);
            ("a flipped bit", bytes)
        }
        1 => ("a torn file", whole[..draw.below(whole.len() as u64) as usize].to_vec()),
        2 | 3 => {
            let item = &mut parts.items[at].1;
            let place = draw.below(item.len() as u64) as usize;
            item[place] ^= 1 << draw.below(8);
            ("a flipped bit under a new hash", parts.sealed())
        }
        4 => {
            parts.items.remove(at);
            ("a dropped item", parts.counted().sealed())
        }
        5 => {
            let other = if at == 0 { 1 } else { at - 1 };
            parts.items.swap(at, other);
            ("two items in each other's place", parts.sealed())
        }
        6 => {
            let item = parts.items[at].clone();
            parts.items.insert(at, item);
            ("an item twice", parts.counted().sealed())
        }
        7 => {
            parts.items[0].1 = other_charter.to_vec();
            ("another forum's charter", parts.sealed())
        }
        8 => {
            let counts = &mut parts.claim.counts;
            match draw.below(4) {
                0 => parts.claim.view.1[draw.below(32) as usize] ^= 1 << draw.below(8),
                1 => counts.inner += 1 + draw.below(9),
                2 => counts.main += 1 + draw.below(9),
                _ => counts.charters -= 1,
            }
            ("a changed trailer", parts.sealed())
        }
        _ => {
            let blocks: Vec<_> = (0..parts.items.len()).filter(|at| parts.items[*at].0 == Kind::Block).collect();
            let item = &mut parts.items[blocks[draw.below(blocks.len() as u64) as usize]].1;
            let mut frame = proto::BlockFrame::decode(&item[..]).unwrap();
            if draw.below(2) == 0 {
                let end = frame.slots.len() - 1;
                frame.slots.truncate(end);
            } else if let Some(proto::slot::S::Record(record)) = frame.slots.last().cloned().and_then(|slot| slot.s) {
                let leaf = merkle::leaf_hash(&record).to_vec().into();
                frame.slots.pop();
                frame.slots.push(proto::Slot { s: Some(proto::slot::S::RedactedLeaf(leaf)) });
            } else {
                frame.ext = vec![1].into();
            }
            *item = frame.encode_to_vec();
            ("a record that nobody ordered to be erased is missing", parts.sealed())
        }
    }
}

fn by_rust(bytes: &[u8], forum: ForumId) -> Result<verify::Checked, verify::Broken> {
    let mut open = || Ok::<_, Malformed>(Box::new(std::io::Cursor::new(bytes.to_vec())) as Box<dyn Read>);
    verify::verify(&mut open, forum, &mut |_| ())
}

/// A forum of two at level 2, with entries, disputes, a withdrawal and an erased record, and another forum's charter.
fn told() -> (Forum, Vec<u8>) {
    let mut forum = Forum::found(2);
    forum.join();
    let value = |n| format!("sha256:{}", hash(n));
    for n in 0..6 {
        forum.companies[0].does(&["submit", &value(n), "--label", "symbol", "--language", "fr"]);
    }
    forum.agree();
    let bolt = &forum.companies[1];
    bolt.does(&["entry", "endorse", &value(0)]);
    bolt.does(&["entry", "dispute", &value(1), "--reason", "news-reporting"]);
    bolt.does(&["submit", &value(9), "--label", "symbol", "--expires", "90d"]);
    forum.companies[0].does(&["entry", "withdraw", &value(2)]);
    forum.agree();
    let (file, acme) = (forum.path("erasing.sdc"), &forum.companies[0]);
    acme.does(&["charter", "set-semantics", "2", "-o", &file]);
    acme.does(&["charter", "erase", "bolt/0@1", "1", "--reason", "court-or-law", "--into", &file]);
    for founder in ["acme", "bolt"] {
        run(&["charter", "sign", &file, "--key", &forum.path(&format!("founder-{founder}.pem"))]).ends_with(0);
    }
    acme.does(&["charter", "apply", &file]);
    wait_for("the record is erased at both", || {
        let erased = |company: &crate::world::Company| {
            company.does(&["log", "record", "bolt/0@1", "1", "--json"]).json()["erased"] == true
        };
        forum.companies.iter().all(erased).then_some(())
    });
    forum.agree();
    let other = Forum::found(1);
    let invitation = Invitation::read(other.path("invite.sdi").as_ref()).unwrap();
    (forum, invitation.charters[0].encode_to_vec())
}

#[test]
fn m16_a_list_and_a_receipt_are_checked_by_anybody_and_changed_ones_rejected() {
    let (mut forum, other_charter) = told();
    let (list, fingerprint) = (forum.path("list.sde"), forum.fingerprint.clone());
    let acme = &forum.companies[0];
    let told = acme.does(&["log", "export", &list, "--json"]).json();
    let status = acme.status();
    assert_eq!(told["view_digest"], status["view_digest"]);
    assert_eq!((told["erased"].as_u64(), told["charter_version"].as_u64()), (Some(1), Some(2)));

    // On a machine with nothing but the file and the fingerprint.
    let checked = run(&["verify", &list, "--forum", &fingerprint, "--json"]).ends_with(0).json();
    assert_eq!(checked, told);
    let text = run(&["verify", &list, "--forum", &fingerprint]).ends_with(0).out;
    assert!(text.contains("view digest ") && text.contains("(1 erased)"), "{text}");
    let another = run(&["verify", &list, "--forum", &"ab".repeat(32)]).ends_with(6).err;
    assert!(another.contains(&fingerprint) && another.contains("fix: "), "{another}");
    run(&["verify", &list, "--forum", "12"]).ends_with(2);
    run(&["verify", &forum.path("invite.sdi"), "--forum", &fingerprint]).ends_with(65);

    let receipt = receipts(&forum);
    let whole = fs::read(&list).unwrap();
    let id = staydown::cli::show::fingerprint(&fingerprint).unwrap();
    let mut files = vec![list.clone(), receipt];
    let mut draw = Draw(4);
    for number in 0..MUTATIONS {
        let (what, bytes) = mutated(&whole, &other_charter, number, &mut draw);
        assert!(by_rust(&bytes, id).is_err(), "{number}: {what}");
        let path = forum.path(&format!("mutation-{number}.sde"));
        fs::write(&path, bytes).unwrap();
        files.push(path);
    }
    files.extend(mutated_receipts(&forum, id, &mut draw));
    if let Some(python) = python() {
        let told_too = by_python(python, &files, &fingerprint);
        assert_eq!(told_too.len(), files.len());
        for field in told.as_object().unwrap().keys() {
            assert_eq!(told_too[0][field], told[field], "{field}");
        }
        assert_eq!(told_too[1]["exit_code"], 0, "{}", told_too[1]);
        let accepted: Vec<_> = told_too[2..].iter().filter(|told| told["exit_code"] == 0).collect();
        assert!(accepted.is_empty(), "{accepted:?}");
    }

    // A stopped node gives the same list.
    let stopped = forum.path("stopped.sde");
    forum.companies[0].stop();
    let again = forum.companies[0].does(&["log", "export", &stopped, "--json"]).json();
    assert!(again["view_hour_ms"] != told["view_hour_ms"] || again == told, "{again} {told}");
    assert!(!Path::new(&format!("{stopped}.new")).exists());
}

/// Receipts of one record, of an entry, and of what was erased; gives the path of the second.
fn receipts(forum: &Forum) -> String {
    let acme = &forum.companies[0];
    let (one, entry, erased) = (forum.path("one.sde"), forum.path("entry.sde"), forum.path("erased.sde"));
    acme.does(&["receipt", "acme/0@2#0", "-o", &one]);
    acme.does(&["receipt", &format!("sha256:{}", hash(0)), "-o", &entry]);
    acme.does(&["receipt", "bolt/0@1#1", "-o", &erased]);
    let checked = |path: &str| run(&["verify", path, "--forum", &forum.fingerprint, "--json"]).ends_with(0).json();
    assert_eq!(checked(&one)["records"][0]["member"], "acme");
    assert_eq!(checked(&erased)["records"][0]["erased"], true);
    let text = run(&["verify", &entry, "--forum", &forum.fingerprint]).ends_with(0).out;
    assert!(text.contains("acme signed at") && text.contains(&hash(0)), "{text}");
    acme.run(&["receipt", &format!("sha256:{}", hash(99)), "-o", &forum.path("none.sde")]).ends_with(3);
    acme.run(&["receipt", "acme/0@99#0", "-o", &forum.path("none.sde")]).ends_with(3);
    assert!(!Path::new(&forum.path("none.sde")).exists() && !Path::new(&forum.path("none.sde.new")).exists());
    entry
}

/// Every kind of change to a receipt that leaves its hash right.
fn mutated_receipts(forum: &Forum, id: ForumId, draw: &mut Draw) -> Vec<String> {
    let whole = fs::read(forum.path("entry.sde")).unwrap();
    let mut files = Vec::new();
    for number in 0..40 {
        let mut parts = Parts::of(&whole);
        let records: Vec<_> = (0..parts.items.len()).filter(|at| parts.items[*at].0 == Kind::Record).collect();
        let item = &mut parts.items[records[draw.below(records.len() as u64) as usize]].1;
        let place = draw.below(item.len() as u64) as usize;
        item[place] ^= 1 << draw.below(8);
        let bytes = parts.sealed();
        assert!(by_rust(&bytes, id).is_err(), "{number}: byte {place}");
        files.push(forum.path(&format!("receipt-{number}.sde")));
        fs::write(&files[number], bytes).unwrap();
    }
    files
}
