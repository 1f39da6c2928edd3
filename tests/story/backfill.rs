//! Thousands of hashes from a table.

use std::fs;
use std::process::Stdio;

use crate::world::{Company, Forum, Reaped, hash, program, wait_for};

const ROWS: u64 = 4_000;

fn table(path: &str, rows: u64) {
    let mut text = "type,value,labels,languages,severity\n".to_owned();
    for n in 0..rows {
        text.push_str(&format!("sha256,{},symbol;manifesto,fr,{}\n", hash(n), n % 5));
    }
    fs::write(path, text).unwrap();
}

fn entries(company: &Company) -> u64 {
    company.status()["entries"].as_u64().unwrap()
}

#[test]
fn a_table_is_listed_once_however_often_it_is_sent_and_interrupted() {
    let mut forum = Forum::found(1);
    forum.join();
    let path = forum.path("list.csv");
    table(&path, ROWS);
    let acme = &mut forum.companies[0];

    // Killed in the middle: first the sender, then the node under it.
    let sender = || {
        let mut command = program();
        command.arg("--data").arg(&acme.data).args(["submit", "--from", &path]);
        Reaped(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    let sending = sender();
    wait_for("some rows are listed", || (entries(acme) > 0).then_some(()));
    drop(sending);
    let so_far = entries(acme);
    let mut sending = sender();
    wait_for("some more rows are listed, or all", || {
        (entries(acme) > so_far.min(ROWS - 1) || sending.0.try_wait().unwrap().is_some()).then_some(())
    });
    acme.kill();
    sending.end();
    acme.start(&["run"]);
    acme.ready(0);

    let ran = acme.does(&["submit", "--from", &path, "--json"]);
    assert_eq!(ran.json(), serde_json::json!({ "rows": ROWS, "durable": ROWS, "queued": 0 }));
    assert!(ran.err.contains("4,000 of 4,000 rows"), "{}", ran.err);
    let status = acme.status();
    assert_eq!(status["entries"].as_u64(), Some(ROWS));
    let listed = acme.does(&["list", "search", "--all", "--json"]).json_lines();
    assert_eq!(listed.len() as u64, ROWS);
    assert!(listed.iter().all(|entry| entry["said"].as_array().unwrap().len() == 1));

    let again = acme.does(&["submit", "--from", &path]);
    assert!(again.err.contains("4,000 rows, 4,000 durable"), "{}", again.err);
    let after = acme.status();
    for field in ["entries", "records", "blocks", "view_digest"] {
        assert!(after[field] == status[field] || field == "view_digest", "{field}: {after} {status}");
    }
    let verified = acme.does(&["log", "verify", "--json"]).json();
    // Each row is one record; what else a log holds is its opening.
    let logs = verified["logs"].as_u64().unwrap();
    assert!((ROWS..=ROWS + logs).contains(&verified["records"].as_u64().unwrap()), "{verified}");
}
