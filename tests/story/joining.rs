//! A fourth company joins by one file each way.

use std::fs;

use crate::world::{Company, Forum, Ran, hash, run, wait_for};

/// The names of everything in a folder, but the lock that a look into it leaves.
fn names(folder: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .map(|all| all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    names.retain(|name| name != "lock");
    names.sort();
    names
}

fn cause(ran: &Ran) -> String {
    ran.json()["error"]["cause"].as_str().unwrap().to_owned()
}

#[test]
fn a_fourth_member_joins_a_forum_with_the_example_keys() {
    let mut forum = Forum::example();
    forum.join();
    let value = hash(1);
    forum.companies[0].does(&["submit", &format!("sha256:{value}"), "--label", "symbol"]);
    let fingerprint = forum.fingerprint.clone();
    let (first, second) = (forum.path("invite.sdi"), forum.path("invite-2.sdi"));
    let (charter, wrong) = (forum.path("charter-2.sdc"), "5".repeat(64));

    let mut delta = Company::new(forum.folder.path(), "delta");
    let told = delta.run(&["join", &first, "--forum", &fingerprint, "--once", "--json"]).ends_with(4);
    assert!(cause(&told).contains("holds no node yet"), "{told:?}");
    assert!(!delta.data.exists(), "{:?}", names(&delta.data));
    let request = delta.init(&["--forum", &fingerprint], "Delta", "DE");
    let before = names(&delta.data);

    // Not admitted yet: who has to do what.
    let told = delta.run(&["join", &first, "--once", "--json"]).ends_with(4);
    assert_eq!(cause(&told), "this node is not admitted yet");
    assert!(told.json()["error"]["fix"].as_str().unwrap().contains("staydown charter admit"), "{told:?}");

    // A fingerprint that is not the one of `init`, nor of the file.
    let told = delta.run(&["join", &first, "--forum", &wrong, "--once", "--json"]).ends_with(4);
    assert!(told.out.contains(&wrong) && told.out.contains(&fingerprint), "{told:?}");
    let told = delta.run(&["join", &first, "--forum", &wrong, "--once"]).ends_with(4);
    assert!(told.err.contains(&wrong) && told.err.contains(&fingerprint), "{told:?}");
    // A node that was made for another forum than the file is of.
    let echo = Company::new(forum.folder.path(), "echo");
    echo.init(&["--forum", &wrong], "Echo", "DE");
    let nothing_but = names(&echo.data);
    let told = echo.run(&["join", &first, "--once", "--json"]).ends_with(4);
    assert!(told.out.contains(&wrong) && told.out.contains(&fingerprint), "{told:?}");
    assert_eq!(names(&echo.data), nothing_but);

    // No fingerprint at all: never taken from the file.
    let stray = Company::new(forum.folder.path(), "stray");
    let told = stray.run(&["join", &first, "--once", "--json"]).ends_with(2);
    assert!(cause(&told).contains("never taken from the file"), "{told:?}");

    // A file that lost its end.
    let whole = fs::read_to_string(&first).unwrap();
    for length in [0, 10, whole.len() / 2, whole.len() - 40] {
        let cut = forum.path("cut.sdi");
        fs::write(&cut, &whole[..length]).unwrap();
        let told = delta.run(&["join", &cut, "--once", "--json"]).ends_with(65);
        assert!(cause(&told).contains("cut.sdi"), "{told:?}");
    }
    delta.run(&["join", request.to_str().unwrap(), "--once"]).ends_with(65);
    delta.run(&["join", &forum.path("none.sdi"), "--once"]).ends_with(65);
    assert_eq!(names(&delta.data), before, "nothing was written");

    // Admitted, signed by two, applied, invited.
    let acme = &forum.companies[0];
    acme.does(&["charter", "admit", request.to_str().unwrap(), "--out", &charter]);
    let told = acme.does(&["charter", "show", &charter, "--diff"]).out;
    assert!(told.contains("+ member delta (group Delta; DE)  SMALL"), "{told}");
    let told = acme.run(&["charter", "apply", &charter, "--json"]).ends_with(6);
    assert!(cause(&told).contains("does not count yet"), "{told:?}");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/certs-example");
    for number in [1, 3] {
        run(&["charter", "sign", &charter, "--key", &format!("{example}/founder-{number}.pem")]).ends_with(0);
    }
    // Invited before the charter is applied: the peers do not know delta.
    let hasty = forum.path("hasty.sdi");
    acme.does(&["charter", "invite", "--from", &charter, "--out", &hasty]);
    let told = delta.run(&["join", &hasty, "--once", "--timeout", "5", "--json"]).ends_with(4);
    assert!(cause(&told).ends_with("refused this node"), "{told:?}");
    assert!(told.json()["error"]["fix"].as_str().unwrap().contains("charter apply"), "{told:?}");
    assert_eq!(acme.does(&["charter", "apply", &charter, "--json"]).json()["version"], 2);
    acme.does(&["charter", "invite", "--out", &second]);

    // The first invitation is of the right forum, and too old.
    let told = delta.run(&["join", &first, "--once", "--json"]).ends_with(4);
    assert_eq!(cause(&told), "this node is not admitted yet");
    assert!(told.out.contains("looked at charter 1 of ") && told.out.contains("acme, bolt, cyan"), "{told:?}");
    // Interrupted as soon as it has begun, and begun again.
    delta.start(&["join", &second]);
    wait_for("the join has begun", || delta.log().contains("[1/3]").then_some(()));
    delta.kill();
    let told = delta.run(&["join", &second, "--forum", &fingerprint, "--once"]).ends_with(0);
    for expected in [
        "[1/3] Charter chain 1..2 verified, fingerprint agrees",
        "[2/3] Reached ",
        "this node has joined before: it goes on where it stopped",
        "[3/3] Synced 1 of 1 entry, all signatures valid",
        "Joined.",
    ] {
        assert!(told.err.contains(expected), "{expected}: {}", told.err);
    }
    // Again: it goes on where it stopped, and says the same.
    delta.does(&["join", &second, "--once"]);
    delta.start(&["run"]);
    delta.ready(3);
    let told = delta.run(&["join", &second, "--once", "--json"]).ends_with(73);
    assert_eq!(cause(&told), "this node has joined already, and runs");
    let found = delta.does(&["match", &value_of(&value), "--json"]).json();
    assert_eq!(found["matches"][0]["entry"]["said"][0]["member"], "acme");
    forum.companies.push(delta);
    forum.agree();

    // The published keys are for this machine alone.
    let mut acme = forum.companies.remove(0);
    acme.stop();
    let told = acme.run(&["run", "--listen", "0.0.0.0:0"]).ends_with(78);
    assert!(told.err.contains("certs-example") && told.err.contains("listen on 127.0.0.1"), "{told:?}");
}

fn value_of(value: &str) -> String {
    format!("sha256:{value}")
}

#[test]
fn a_forum_that_sleeps_is_named_endpoint_by_endpoint_and_a_newer_charter_is_fetched() {
    let mut forum = Forum::found(2);
    let (invitation, fingerprint, charter) =
        (forum.path("invite.sdi"), forum.fingerprint.clone(), forum.path("charter-2.sdc"));
    let mut acme = forum.companies.remove(0);
    let bolt = &mut forum.companies[0];
    let join = ["join", &invitation, "--forum", &fingerprint, "--once", "--timeout", "2", "--json"];
    let told = acme.run(&join).ends_with(5);
    assert!(cause(&told).contains("no peer was reached in "), "{told:?}");
    assert!(told.out.contains(&bolt.address.to_string()), "each endpoint with its error: {told:?}");

    bolt.start(&["join", &invitation, "--forum", &fingerprint]);
    wait_for("bolt has begun", || bolt.log().contains("[1/3]").then_some(()));
    wait_for("bolt answers", || (bolt.run(&["status"]).code == Some(0)).then_some(()));
    // The same command goes on, and afterwards a newer charter is known to bolt alone.
    acme.does(&["join", &invitation, "--once"]);
    let request = acme.data.with_extension("sdj");
    bolt.does(&["charter", "admit", request.to_str().unwrap(), "--role", "SMALL", "--out", &charter]);
    for founder in ["acme", "bolt"] {
        let key = forum.folder.path().join(format!("founder-{founder}.pem"));
        run(&["charter", "sign", &charter, "--key", key.to_str().unwrap()]).ends_with(0);
    }
    bolt.does(&["charter", "apply", &charter]);
    let told = acme.does(&["join", &invitation, "--once"]);
    assert!(told.err.contains("The peers have charter 2 of "), "{told:?}");
    acme.kill();
}

#[test]
fn an_invitation_of_another_forum_is_refused() {
    let (mut ours, theirs) = (Forum::found(1), Forum::found(1));
    ours.join();
    let (file, fingerprint) = (theirs.path("invite.sdi"), theirs.fingerprint.clone());
    let mut acme = ours.companies.remove(0);
    acme.stop();
    let before = names(&acme.data);
    let told = acme.run(&["join", &file, "--forum", &ours.fingerprint, "--once", "--json"]).ends_with(4);
    assert!(told.out.contains(&fingerprint) && told.out.contains(&ours.fingerprint), "{told:?}");
    let told = acme.run(&["join", &file, "--forum", &fingerprint, "--once", "--json"]).ends_with(4);
    assert!(told.out.contains("not admitted") || told.out.contains("another forum"), "{told:?}");
    assert_eq!(names(&acme.data), before);
    acme.does(&["join", &ours.path("invite.sdi"), "--forum", &ours.fingerprint, "--once"]);
}
