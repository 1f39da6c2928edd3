//! Thousands of hashes from a file: listed once, whatever happens meanwhile, and what is wrong in it is told.

use std::fs;
use std::process::Stdio;

use crate::world::{Company, Forum, Reaped, hash, program, wait_for};

/// Rows of the table that is interrupted; some of them are wrong.
const ROWS: u64 = 5_000;
/// Every so many rows one is malformed.
const WRONG_EVERY: u64 = 500;

/// Writes the table, and returns how many of its rows can be listed.
fn table(path: &str) -> u64 {
    let mut text = "type,value,labels,languages,severity\n".to_owned();
    for n in 0..ROWS {
        match n % WRONG_EVERY {
            0 => text.push_str(&format!("sha256,{},symbol,fr,9\n", hash(n))),
            _ => text.push_str(&format!("sha256,{},symbol;manifesto,fr,{}\n", hash(n), n % 5)),
        }
    }
    fs::write(path, text).unwrap();
    ROWS - ROWS / WRONG_EVERY
}

fn entries(company: &Company) -> u64 {
    company.status()["entries"].as_u64().unwrap()
}

#[test]
fn a_table_is_listed_once_however_often_it_is_sent_and_interrupted() {
    let mut forum = Forum::found(1);
    forum.join();
    let (path, rejected) = (forum.path("list.csv"), forum.path("no.csv"));
    let good = table(&path);
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
        (entries(acme) > so_far.min(good - 1) || sending.0.try_wait().unwrap().is_some()).then_some(())
    });
    acme.kill();
    sending.end();
    acme.start(&["run"]);
    acme.ready(0);

    let ran = acme.run(&["submit", "--from", &path, "--json", "--rejected", &rejected]).ends_with(65);
    let told = ran.json();
    assert_eq!((&told["rows"], &told["refused"]), (&ROWS.into(), &(ROWS - good).into()), "{told}");
    assert_eq!(told["said"].as_u64().unwrap() + told["said_before"].as_u64().unwrap(), good, "{told}");
    assert!(told["said_before"].as_u64() >= Some(so_far), "{told}, {so_far} were listed before");
    assert_eq!(told["error"]["culprits"].as_array().unwrap().len() as u64, ROWS - good);
    assert_eq!(told["error"]["culprits"][1], "line 502, column severity: got \"9\", expected a number from 0 to 4");
    assert!(ran.err.contains("5,000 rows"), "{}", ran.err);
    let status = acme.status();
    assert_eq!(status["entries"].as_u64(), Some(good));
    let listed = acme.does(&["list", "search", "--all", "--json"]).json_lines();
    assert_eq!(listed.len() as u64, good);
    assert!(listed.iter().all(|entry| entry["said"].as_array().unwrap().len() == 1));

    let again = acme.run(&["submit", "--from", &path]).ends_with(65);
    assert!(again.err.contains("5,000 rows: 0 said, 4,990 said before, 10 refused"), "{}", again.err);
    let after = acme.status();
    for field in ["entries", "records", "blocks"] {
        assert!(after[field] == status[field], "{field}: {after} {status}");
    }
    let verified = acme.does(&["log", "verify", "--json"]).json();
    // Each good row is one record; what else a log holds is its opening.
    let logs = verified["logs"].as_u64().unwrap();
    assert!((good..=good + logs).contains(&verified["records"].as_u64().unwrap()), "{verified}");

    // What was refused is mended and sent.
    let mended = fs::read_to_string(&rejected).unwrap().replace(",9\n", ",3\n");
    assert_eq!(fs::read_to_string(rejected.clone() + ".reasons").unwrap().lines().count() as u64, ROWS - good);
    fs::write(&rejected, mended).unwrap();
    let ran = acme.does(&["submit", "--from", &rejected, "--json"]).json();
    assert_eq!((&ran["rows"], &ran["said"]), (&(ROWS - good).into(), &(ROWS - good).into()));
    assert_eq!(entries(acme), ROWS);
}

#[test]
fn an_interrupt_from_the_keyboard_tells_how_to_go_on() {
    let mut forum = Forum::found(1);
    forum.join();
    let path = forum.path("list.csv");
    let good = table(&path);
    let acme = &forum.companies[0];
    let err = forum.folder.path().join("err");
    let mut command = program();
    command.arg("--data").arg(&acme.data).args(["submit", "--from", &path]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&err).unwrap());
    let mut sending = Reaped(command.spawn().unwrap());
    wait_for("its batch is told", || fs::read_to_string(&err).unwrap().contains("batch").then_some(()));
    sending.signal("INT");
    let (code, _) = sending.end();
    let told = fs::read_to_string(&err).unwrap();
    // It may have been the faster one.
    if code == Some(1) {
        assert!(told.contains("interrupted") && told.contains("run the same command again"), "{told}");
    } else {
        assert_eq!(code, Some(65), "{told}");
    }
    acme.run(&["submit", "--from", &path]).ends_with(65);
    assert_eq!(entries(acme), good);
}

#[test]
fn rows_that_the_node_or_the_day_refuses_keep_no_other_row_out() {
    let mut forum = Forum::found(1);
    forum.join();
    let acme = &forum.companies[0];
    let path = forum.path("list.jsonl");

    // One hash in several rows: the last is the last word, also when the file is sent again.
    let row = |n: u64, severity: u32| {
        format!("{{\"type\":\"sha256\",\"value\":\"{}\",\"labels\":[\"symbol\"],\"severity\":{severity}}}\n", hash(n))
    };
    fs::write(&path, [row(1, 1), row(2, 2), row(1, 3), row(1, 3), "{\n".to_owned()].concat()).unwrap();
    let severity = || {
        acme.does(&["entry", "show", &format!("sha256:{}", hash(1)), "--json"]).json()["said"][0]["severity"].clone()
    };
    let ran = acme.run(&["submit", "--from", &path, "--json"]).ends_with(65).json();
    assert_eq!((&ran["said"], &ran["said_before"], &ran["refused"]), (&3.into(), &1.into(), &1.into()), "{ran}");
    assert_eq!(severity(), 3);
    let again = acme.run(&["submit", "--from", &path, "--json"]).ends_with(65).json();
    assert_eq!((&again["said"], &again["said_before"]), (&0.into(), &4.into()), "{again}");
    assert_eq!(severity(), 3);

    // Another file that says the same has nothing to sign; what it says otherwise is signed.
    let daily = forum.path("daily.jsonl");
    fs::write(&daily, [row(1, 3), row(2, 4), row(3, 1)].concat()).unwrap();
    let ran = acme.does(&["submit", "--from", &daily, "--json"]).json();
    assert_eq!((&ran["said"], &ran["stands"]), (&2.into(), &1.into()), "{ran}");

    // What a person has said since is left alone.
    acme.does(&["entry", "withdraw", &format!("sha256:{}", hash(3)), "--reason", "mistake"]);
    let ran = acme.does(&["submit", "--from", &daily, "--json"]).json();
    assert_eq!((&ran["left_alone"], &ran["said"]), (&1.into(), &0.into()), "{ran}");
    assert_eq!(entries(acme), 2);

    let checked = acme.run(&["submit", "--from", &path, "--check", "--json"]).ends_with(65).json();
    assert_eq!((&checked["rows"], &checked["refused"]), (&5.into(), &1.into()));
}

#[test]
fn a_quota_that_is_used_up_stops_an_import_which_goes_on_the_next_day() {
    let mut forum = Forum::found(1);
    forum.join();
    let (path, draft) = (forum.path("list.csv"), forum.path("charter-2.sdc"));
    let key = forum.path("founder-acme.pem");
    let acme = &forum.companies[0];
    acme.does(&["charter", "set-policy", "--quota-bulk", "300", "-o", &draft]);
    acme.does(&["charter", "sign", &draft, "--key", &key]);
    acme.does(&["charter", "apply", &draft]);
    let rows: String = (0..1_000).map(|n| format!("sha256,{},symbol\n", hash(n))).collect();
    fs::write(&path, format!("type,value,labels\n{rows}")).unwrap();
    let ran = acme.run(&["submit", "--from", &path]).ends_with(4);
    for told in ["quota of 300 records a day", "run the same command again"] {
        assert!(ran.err.contains(told), "{}", ran.err);
    }
    // All that the day has room for, beside the openings of logs.
    assert!((290..300).contains(&entries(acme)), "{}", entries(acme));
    let more = forum.path("charter-3.sdc");
    acme.does(&["charter", "set-policy", "--quota-bulk", "5000", "-o", &more]);
    acme.does(&["charter", "sign", &more, "--key", &key]);
    acme.does(&["charter", "apply", &more]);
    acme.does(&["submit", "--from", &path]);
    assert_eq!(entries(acme), 1_000);
}
