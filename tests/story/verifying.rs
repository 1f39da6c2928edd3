//! `log verify`, of what is whole and of what is not.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use staydown::engine::STORE_FOLDER;
use staydown::replica::ids::BlockId;
use staydown::store::{Store, Write};

use crate::world::{Company, Forum, hash};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy(&entry.path(), &target),
            kind if kind.is_file() => drop(fs::copy(entry.path(), target).unwrap()),
            _ => {}
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

/// Where `needle` stands in `bytes`.
fn places(bytes: &[u8], needle: &[u8]) -> Vec<usize> {
    bytes.windows(needle.len()).enumerate().filter(|(_, window)| *window == needle).map(|(at, _)| at).collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn one_flipped_bit_is_found_and_named() {
    let mut forum = Forum::found(1);
    forum.join();
    let folder = forum.folder.path().to_owned();
    let mut acme = forum.companies.remove(0);
    let mut signatures = Vec::new();
    for n in 0..3 {
        let told = acme.does(&["submit", &format!("sha256:{}", hash(n)), "--label", "symbol", "--json"]).json();
        signatures.push(told["receipts"][0]["signature"].as_str().unwrap().to_owned());
    }
    let running = acme.does(&["log", "verify", "--json"]).json();
    acme.stop();
    let stopped = acme.does(&["log", "verify", "--json"]).json();
    for field in ["logs", "blocks", "records", "first_break"] {
        assert_eq!(running[field], stopped[field]);
    }
    assert!(running["view_hour_ms"] != stopped["view_hour_ms"] || running["view_digest"] == stopped["view_digest"]);
    assert!(stopped["blocks"].as_u64().unwrap() >= 3);
    assert!(acme.does(&["log", "verify"]).out.contains("every signature, chain and root holds"));

    // In each file that holds it, journal and store: the signature of a block amid others, and that of the last.
    let mut hit = Vec::new();
    for (needle, file) in signatures[1..].iter().flat_map(|hex| files(&acme.data).into_iter().map(move |f| (hex, f))) {
        for at in places(&fs::read(&file).unwrap(), &bytes_of(needle)) {
            let damaged = Company::new(&folder, &format!("copy-{}", hit.len()));
            copy(&acme.data, &damaged.data);
            let name = file.strip_prefix(&acme.data).unwrap().to_owned();
            flip(&damaged.data.join(&name), at + 7);
            let ran = damaged.run(&["log", "verify", "--json"]);
            let shown = format!("{} at {at}: {ran:?}", name.display());
            assert_eq!(ran.code, Some(6), "{shown}");
            let first = ran.json()["first_break"].as_str().unwrap().to_owned();
            assert!(first.contains("block ") || first.contains("at byte ") || first.contains("damaged"), "{shown}");
            let text = damaged.run(&["log", "verify"]).ends_with(6).err;
            assert!(text.contains("do not verify") && text.contains("fix: "), "{text}");
            hit.push(name);
        }
    }
    assert_eq!(hit.iter().filter(|name| name.ends_with("journal")).count(), 2, "{hit:?}");
    assert!(hit.iter().any(|name| name.starts_with("replica")), "{hit:?}");
    // What the store's own checksums let pass, the signature does not.
    let tampered = Company::new(&folder, "tampered");
    copy(&acme.data, &tampered.data);
    let id = tamper(&tampered.data, &bytes_of(&signatures[1]));
    let told = tampered.run(&["log", "verify", "--json"]).ends_with(6).json();
    let expected = format!("block {id} does not verify");
    assert!(told["first_break"].as_str().unwrap().starts_with(&expected), "{expected}: {told}");

    // What was damaged were copies.
    acme.does(&["log", "verify"]);
}

/// Flips the last bit of the stored block that `signature` belongs to.
fn tamper(data: &Path, signature: &[u8]) -> BlockId {
    let store = Store::open(&data.join(STORE_FOLDER)).unwrap().store;
    let mut found = None;
    let each = |id, frame: &[u8]| match places(frame, signature).first() {
        Some(_) => {
            found = Some((id, frame.to_vec()));
            ControlFlow::Break(())
        }
        None => ControlFlow::Continue(()),
    };
    store.for_each_block(each).unwrap();
    let (id, mut frame) = found.unwrap();
    *frame.last_mut().unwrap() ^= 1;
    store.write(&[Write::Block(id, &frame)]).unwrap();
    id
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn a_folder_without_a_node_is_no_verified_log() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = Company::new(folder.path(), "nobody");
    let told = nobody.run(&["log", "verify", "--json"]).ends_with(5);
    assert!(told.out.contains("has not joined a forum"), "{told:?}");
    assert!(!nobody.data.exists());
}
