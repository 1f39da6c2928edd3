//! Web addresses and documents, listed by one company and found by another with the built binary: a page, what lies below
//! a directory, a host that waits for a second company, and an edited copy of a text.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::world::{Company, Forum, wait_for};

/// A path that must be in no file and no log of any node.
const SECRET: &str = "4711-not-to-be-told";

#[track_caller]
fn submit(at: &Company, arguments: &[&str]) {
    at.does(&[&["submit"], arguments, &["--label", "symbol", "--wait-peers", "1"]].concat());
}

/// The values of what matches, in the order of the answer.
fn found(at: &Company, item: &str) -> Vec<Value> {
    let ran = at.run(&["match", item, "--json"]);
    assert!(matches!(ran.code, Some(0 | 3)), "{item}: {ran:?}");
    ran.json()["matches"].as_array().unwrap().clone()
}

#[track_caller]
fn matches(at: &Company, item: &str, count: usize) {
    wait_for(&format!("{count} matches of {item} at {}", at.name), || (found(at, item).len() == count).then_some(()));
}

fn expression(text: &str) -> String {
    let digest = staydown::replica::ids::sha256(&[text.as_bytes()]);
    format!("url:{}", staydown::replica::ids::hex(&digest))
}

/// Every file below `folder`.
fn files(folder: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        // A socket and what is deleted meanwhile are no files to read.
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => files(&entry.path(), into),
            kind if kind.is_file() => into.push(entry.path()),
            _ => {}
        }
    }
}

#[test]
fn an_address_is_found_in_every_spelling_and_told_to_nobody() {
    let mut forum = Forum::found(2);
    forum.join();
    let [acme, bolt] = &forum.companies[..] else { panic!("two companies") };

    // A page, with its query: that one and no other.
    let page = format!("https://Video.Example.org:443/watch//./{SECRET}?v=1#t=30");
    let canonical = format!("video.example.org/watch/{SECRET}");
    submit(acme, &[&page]);
    matches(bolt, &format!("http://user@video.example.org/watch/x/../{SECRET}?v=1"), 1);
    matches(bolt, &format!("https://video.example.org/watch/{SECRET}?v=2"), 0);
    let told = &found(bolt, &page)[0]["entry"]["signal"];
    assert_eq!(told["type"], "url");
    assert_eq!(format!("url:{}", told["value"].as_str().unwrap()), expression(&format!("{canonical}?v=1")));
    let shown = bolt.does(&["entry", "show", &page, "--json"]).json();
    assert_eq!(shown["status"], "ACTIVE");
    assert!(acme.does(&["hash", &page]).out.starts_with(&expression(&format!("{canonical}?v=1"))));

    // Everything below a directory, on the hosts below it, too.
    submit(acme, &["--url", "example.org/videos/"]);
    matches(bolt, "https://example.org/videos/2026/a.html?x=y", 1);
    matches(bolt, "https://www.example.org/videos/", 1);
    matches(bolt, "https://example.org/video", 0);

    // A whole host is not listed by accident, and waits for a second company.
    for item in [&["https://host.example/"][..], &["--url", "host.example"]] {
        let ran = acme.run(&[&["submit"], item, &["--label", "symbol"]].concat()).ends_with(2);
        assert!(ran.err.contains("--whole-host is missing"), "{ran:?}");
    }
    let host = ["--url", "host.example", "--whole-host"];
    submit(acme, &host);
    assert_eq!(bolt.does(&["entry", "show", "https://host.example/", "--json"]).json()["status"], "ACTIVE");
    for item in ["https://www.host.example/any/page", "https://host.example", &expression("host.example/")] {
        assert!(found(bolt, item).is_empty(), "{item}: one company is not enough");
    }
    bolt.does(&["entry", "endorse", "https://host.example/", "--label", "symbol"]);
    for item in ["https://www.host.example/any/page", "https://host.example", &expression("host.example/")] {
        matches(acme, item, 1);
    }
    let ran = acme.run(&["submit", "--url", "co.uk", "--whole-host", "--label", "symbol"]).ends_with(2);
    assert!(ran.err.contains("HOST_TOO_BROAD"), "{ran:?}");
    let ran = acme.run(&["submit", &expression("co.uk/"), "--label", "symbol"]);
    assert!(ran.code != Some(0) && ran.err.contains("everybody publishes"), "{ran:?}");

    // A file of addresses.
    let table = forum.path("addresses.csv");
    let rows = format!("type,value,labels\nurl,https://cyan.example/{SECRET},symbol\nurl,cyan.example,symbol\n");
    fs::write(&table, rows).unwrap();
    acme.run(&["submit", "--from", &table]);
    matches(bolt, &format!("cyan.example/{SECRET}?q").replace("cyan", "https://cyan"), 1);
    assert!(found(bolt, "https://cyan.example/").is_empty(), "a row lists no host");

    // The addresses are in no file of a node, and in no log.
    for company in &forum.companies {
        assert!(!company.log().contains(SECRET), "the log of {}", company.name);
        let mut paths = Vec::new();
        files(&company.data, &mut paths);
        let tells = |bytes: Vec<u8>| bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
        let telling: Vec<_> = paths.into_iter().filter(|path| fs::read(path).is_ok_and(tells)).collect();
        // The journal of an import remembers rows by their keys.
        assert!(telling.is_empty(), "{telling:?}");
    }
}

#[test]
fn an_edited_copy_of_a_document_is_found() {
    let mut forum = Forum::found(2);
    forum.join();
    let [acme, bolt] = &forum.companies[..] else { panic!("two companies") };
    let sentence = |n: u32| format!("Paragraph {n} of {} says what it says, and then {} more. ", n * 7, n * n % 91);
    let text: String = (0..200).map(sentence).collect();
    let write = |name: &str, text: &str| {
        let path = forum.path(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (document, edited) =
        (write("document.txt", &text), write("edited.txt", &text.replacen("Paragraph 9", "Part 9", 3)));
    let (short, other) = (write("short.txt", "too short"), write("other.txt", &"lorem ipsum 42 ".repeat(100)));

    let ran = acme.does(&["hash", &document]);
    let tlsh = ran.out.lines().next().unwrap().split_whitespace().next().unwrap().to_owned();
    assert!(tlsh.starts_with("tlsh:T1") && tlsh.len() == 77, "{tlsh}");
    let ran = acme.does(&["hash", &short]);
    assert!(!ran.out.contains("tlsh") && ran.err.contains("no tlsh: shorter than 50 bytes"), "{ran:?}");

    submit(acme, &[&tlsh]);
    matches(bolt, &document, 1);
    let near = found(bolt, &edited);
    assert_eq!((near.len(), &near[0]["threshold"]), (1, &Value::from(30)));
    assert!((1..=30).contains(&near[0]["distance"].as_u64().unwrap()), "{near:?}");
    assert!(found(bolt, &short).is_empty() && found(bolt, &other).is_empty());
    acme.does(&["entry", "withdraw", &tlsh]);
    matches(bolt, &edited, 0);
}
