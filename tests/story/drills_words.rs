//! The chapters of docs/operating.md on a steward's suspension and on erasure, gone through with real nodes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use staydown::clock;

use crate::drills::{cause, enact, health_is, item, matches, says, sign, version_is};
use crate::world::{Company, Forum, wait_for};

/// Both nodes see a suspension end a connection so soon; the machines that run this are small and busy.
const CUT_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn a_steward_suspends_a_member_with_one_command_from_level_2_on() {
    let mut forum = Forum::found(3);
    forum.join();
    let (before, after) = (item(1), item(2));
    forum.companies[2].does(&["submit", &before, "--label", "symbol", "--wait-peers", "2"]);
    let suspend = ["member", "suspend", "cyan", "--days", "2", "--reason", "key-compromise"];

    // At level 1 the word means nothing yet; then only stewards say it. The level is raised while all nodes run.
    let role = forum.path("charter-2.sdc");
    forum.companies[0].does(&["charter", "set-role", "acme", "--role", "FULL,STEWARD", "-o", &role]);
    sign(&forum, &role, &["acme", "bolt"]);
    forum.companies[0].does(&["charter", "apply", &role]);
    forum.companies[0].run(&suspend).ends_with(4);
    enact(&forum, 1, 3, &["set-semantics", "2"]);
    forum.companies.iter().for_each(|company| version_is(company, 3));
    let refused = forum.companies[1].run(&[&suspend[..], &["--json"]].concat()).ends_with(4);
    assert!(cause(&refused).contains("ROLE"), "{refused:?}");
    for (arguments, code) in [
        ("member suspend echo --days 2 --reason other", 3),
        ("member suspend cyan --days 15 --reason other", 2),
        ("member suspend cyan --days 0 --reason other", 2),
        ("member suspend cyan --days 2 --reason spite", 2),
        ("member suspend acme --days 2 --reason other", 4),
    ] {
        let ran = forum.companies[0].run(&arguments.split(' ').collect::<Vec<_>>());
        assert_eq!(ran.code, Some(code), "{arguments}: {ran:?}");
    }

    let receipt = forum.companies[0].does(&[&suspend[..], &["--wait-peers", "1", "--json"]].concat()).json();
    let begun = clock::instant();
    assert_eq!(receipt["state"], "DURABLE");
    for company in &forum.companies[..2] {
        wait_for("cyan is cut off", || (company.status()["peers_connected"] == 1).then_some(()));
        health_is(company, "YELLOW", "cyan is suspended by a steward");
        let shown = company.does(&["member", "show", "cyan"]).out;
        assert!(shown.contains("SUSPENDED (by a steward, until "), "{shown}");
        let listed = company.does(&["member", "list"]).out;
        assert_eq!(listed.matches("SUSPENDED").count(), 1, "{listed}");
        let left = company.does(&["member", "show", "cyan", "--json"]).json()["suspended_until_ms"].as_u64().unwrap();
        let left_ms = left - clock::now().0;
        assert!(left_ms > 47 * 3_600_000 && left_ms <= 49 * 3_600_000, "it ends with a full hour: {left_ms}");
    }
    assert!(begun.elapsed() < CUT_WITHIN, "{:?}", begun.elapsed());

    // It is told why, and what it says now is heard by nobody; what it said before stays.
    // (Whoever did not hear the reason in time sees that it is refused.)
    wait_for("cyan is told", || {
        let status = forum.companies[2].status();
        let told = says(&status, "suspended by a steward for another 4") || says(&status, "AccessDenied");
        (told && status["peers_connected"] == 0).then_some(())
    });
    let said = forum.companies[2].run(&["submit", &after, "--label", "symbol", "--json"]);
    assert!(said.code == Some(0) || cause(&said).contains("SUSPENDED"), "{said:?}");
    forum.companies[0].does(&["submit", &item(3), "--label", "symbol", "--wait-peers", "1"]);
    for company in &forum.companies[..2] {
        matches(company, &item(3), true);
        matches(company, &before, true);
        company.run(&["match", &after]).ends_with(3);
    }
    let status: Vec<_> = forum.companies[..2].iter().map(|company| company.status()["view_digest"].clone()).collect();
    assert_eq!(status[0], status[1]);
}

/// Whether any file below `folder` has `wanted` in it, and which.
fn found_in(folder: &Path, wanted: &[u8]) -> Option<String> {
    // A node that runs renames and removes files meanwhile.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = fs::symlink_metadata(&path) else { continue };
        let found = if kind.is_dir() {
            found_in(&path, wanted)
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            bytes.windows(wanted.len()).any(|window| window == wanted).then(|| path.display().to_string())
        } else {
            None
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

#[test]
fn an_erased_record_is_in_no_file_of_any_node() {
    let mut forum = Forum::found(3);
    forum.join();
    let fingerprint = forum.fingerprint.clone();
    let gone = item(1);
    let digest = data_encoding::HEXLOWER.decode(&gone.as_bytes()["sha256:".len()..]).unwrap();
    forum.companies[0].does(&["submit", &gone, "--label", "symbol", "--wait-peers", "2"]);
    forum.companies[0].does(&["submit", &item(2), "--label", "symbol", "--wait-peers", "2"]);
    forum.agree();
    for company in &forum.companies {
        assert!(found_in(&company.data, &digest).is_some(), "the search finds what is there: {}", company.name);
    }
    // One is away while it happens.
    forum.companies[2].stop();
    let file = forum.path("charter-2.sdc");
    let acme = &forum.companies[0];
    acme.does(&["charter", "set-semantics", "2", "-o", &file]);
    acme.does(&["charter", "erase", "acme/0@1", "1", "--reason", "court-or-law", "--into", &file]);
    sign(&forum, &file, &["acme", "bolt"]);
    acme.does(&["charter", "apply", &file]);
    for company in &forum.companies[..2] {
        erased(company, &gone, &digest);
    }
    forum.companies[2].start(&["run"]);
    erased(&forum.companies[2], &gone, &digest);

    // Who comes later never gets it; what stands beside it remains.
    let mut delta = Company::new(forum.folder.path(), "delta");
    let request = delta.init(&["--forum", &fingerprint], "Delta", "DE");
    enact(&forum, 1, 3, &["admit", request.to_str().unwrap()]);
    let invitation = forum.path("invite-3.sdi");
    forum.companies[1].does(&["charter", "invite", "--out", &invitation]);
    delta.start(&["join", &invitation, "--forum", &fingerprint]);
    delta.ready(3);
    forum.companies.push(delta);
    forum.ready();
    forum.agree();
    for company in &forum.companies {
        matches(company, &item(2), true);
        erased(company, &gone, &digest);
        company.does(&["log", "verify"]);
    }
}

#[track_caller]
fn erased(company: &Company, item: &str, digest: &[u8]) {
    version_is_at_least(company, 2);
    matches(company, item, false);
    wait_for("it is in no file", || found_in(&company.data, digest).is_none().then_some(()));
    let told = company.does(&["log", "record", "acme/0@1", "1"]).out;
    assert_eq!(told.trim(), "erased");
}

#[track_caller]
fn version_is_at_least(company: &Company, version: u64) {
    wait_for("the charter is there", || {
        let ran = company.run(&["status", "--json"]);
        (ran.code == Some(0) && ran.json()["charter_version"].as_u64() >= Some(version)).then_some(())
    });
}
