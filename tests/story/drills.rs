//! The chapters of docs/operating.md, gone through with real nodes: founders and charters. Keys and copies are in
//! `drills_keys`, suspensions and erasures in `drills_words`.

use prost::Message as _;
use serde_json::Value;
use staydown::clock;
use staydown::replica::ids::KeyId;
use staydown::replica::proto;
use staydown::wire::files::{CharterFile, read_founder};

use crate::world::{Company, Forum, Ran, hash, run, wait_for};

pub const TWO: &[&str] = &["acme", "bolt"];
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

pub fn item(n: u64) -> String {
    format!("sha256:{}", hash(n))
}

pub fn cause(ran: &Ran) -> String {
    ran.json()["error"]["cause"].as_str().unwrap().to_owned()
}

/// Draws up a charter at a node and returns its file.
#[track_caller]
pub fn draw_up(forum: &Forum, at: usize, name: &str, command: &[&str]) -> String {
    let file = forum.path(name);
    forum.companies[at].does(&[&["charter"], command, &["-o", &file]].concat());
    file
}

#[track_caller]
pub fn sign(forum: &Forum, file: &str, founders: &[&str]) {
    for name in founders {
        run(&["charter", "sign", file, "--key", &forum.path(&format!("founder-{name}.pem"))]).ends_with(0);
    }
}

#[track_caller]
pub fn version_is(at: &Company, version: u64) {
    wait_for(&format!("charter {version} at {}", at.name), || {
        let ran = at.run(&["status", "--json"]);
        (ran.code == Some(0) && ran.json()["charter_version"] == version).then_some(())
    });
}

/// Draws up, signs by two founders, applies.
#[track_caller]
pub fn enact(forum: &Forum, at: usize, version: u64, command: &[&str]) {
    let file = draw_up(forum, at, &format!("charter-{version}.sdc"), command);
    sign(forum, &file, TWO);
    let applied = forum.companies[at].does(&["charter", "apply", &file, "--json"]).json();
    assert_eq!(applied["version"], version);
}

/// A line of health that has `text` in it.
pub fn says(status: &Value, text: &str) -> bool {
    status["health_reasons"].as_array().unwrap().iter().any(|reason| reason.as_str().unwrap().contains(text))
}

/// Waits until a node's health is `level` and says `text`.
#[track_caller]
pub fn health_is(at: &Company, level: &str, text: &str) {
    let mut last = Value::Null;
    wait_for(&format!("{} is {level}: {text}", at.name), || {
        let ran = at.run(&["status", "--json"]);
        last = serde_json::from_str(&ran.out).unwrap_or_default();
        (ran.code == Some(0) && last["health"] == level && says(&last, text)).then_some(())
    });
}

/// Waits until `item` matches there, or until it does not.
#[track_caller]
pub fn matches(at: &Company, item: &str, expected: bool) {
    let code = if expected { 0 } else { 3 };
    wait_for(&format!("{item} at {}: {expected}", at.name), || {
        (at.run(&["match", item]).code == Some(code)).then_some(())
    });
}

fn founder_id(path: &str) -> String {
    KeyId::of(read_founder(path.as_ref()).unwrap().as_bytes()).to_string()
}

#[test]
fn two_of_three_founders_replace_the_key_that_the_third_has_lost() {
    let mut forum = Forum::found(3);
    forum.join();
    let lost = founder_id(&forum.path("founder-cyan.pem.pub"));
    let (new, next) = (forum.path("founder-cyan-2.pem"), format!("{}.pub", forum.path("founder-cyan-2.pem")));
    run(&["charter", "key", &new, "--no-passphrase"]).ends_with(0);
    let file = draw_up(&forum, 0, "charter-2.sdc", &["rotate-founder", &lost[..12], &next]);

    // One of the founders as they were, and the new key: it counts among the founders as they will be only.
    sign(&forum, &file, &["acme", "cyan-2"]);
    let missing = run(&["charter", "show", &file, "--json"]).ends_with(0).json()["missing"].clone();
    assert_eq!(missing.as_array().unwrap().len(), 1, "{missing}");
    let refused = forum.companies[0].run(&["charter", "apply", &file, "--json"]).ends_with(6);
    assert!(cause(&refused).contains("does not count yet"), "{refused:?}");
    assert_eq!(forum.companies[0].status()["charter_version"], 1);

    sign(&forum, &file, &["bolt"]);
    forum.companies[0].does(&["charter", "apply", &file]);
    for company in &forum.companies {
        version_is(company, 2);
        let shown = company.does(&["charter", "show"]).out;
        assert!(shown.contains(&founder_id(&next)) && !shown.contains(&lost), "{shown}");
    }
    // The old key is nobody's any more, and the new one signs with any other.
    let file = draw_up(&forum, 2, "charter-3.sdc", &["renew", "--days", "30"]);
    let refused = run(&["charter", "sign", &file, "--key", &forum.path("founder-cyan.pem")]);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    sign(&forum, &file, &["bolt", "cyan-2"]);
    forum.companies[2].does(&["charter", "apply", &file]);
    forum.companies.iter().for_each(|company| version_is(company, 3));
    forum.agree();
}

/// The file of a charter, with a change in its body that no command makes; signatures are gone.
fn forge(file: &str, change: impl FnOnce(&mut proto::Charter)) {
    let mut read = CharterFile::read(file.as_ref()).unwrap();
    let mut charter = proto::Charter::decode(read.proposed.body.clone()).unwrap();
    change(&mut charter);
    read.proposed = proto::SignedCharter { body: charter.encode_to_vec().into(), sigs: Vec::new() };
    read.write(file.as_ref()).unwrap();
}

#[test]
fn a_stale_charter_is_told_of_and_enforced_until_it_is_renewed() {
    let mut forum = Forum::found(3);
    forum.join();
    // As they are a year after the last charter: the first within its grace, the second past it.
    for (version, ended_ms_ago, level, retract_min) in [(2, HOUR_MS, "YELLOW", "4"), (3, 40 * DAY_MS, "RED", "5")] {
        let name = format!("charter-{version}.sdc");
        let file = draw_up(&forum, 0, &name, &["set-policy", "--retract-min", retract_min]);
        forge(&file, |charter| charter.valid_until_ms = clock::now().0 - ended_ms_ago);
        sign(&forum, &file, TWO);
        forum.companies[0].does(&["charter", "apply", &file]);
        for company in &forum.companies {
            version_is(company, version);
            health_is(company, level, &format!("charter {version} is stale: founders must issue a new one"));
        }
        // Nothing stops.
        forum.companies[1].does(&["submit", &item(version), "--label", "symbol", "--wait-peers", "2"]);
        forum.companies.iter().for_each(|company| matches(company, &item(version), true));
    }
    let drawn = forum.companies[2].does(&["charter", "renew", "--days", "400", "-o", &forum.path("charter-4.sdc")]);
    assert!(!drawn.err.contains("stale already"), "{drawn:?}");
    sign(&forum, &forum.path("charter-4.sdc"), TWO);
    forum.companies[2].does(&["charter", "apply", &forum.path("charter-4.sdc")]);
    for company in &forum.companies {
        version_is(company, 4);
        wait_for("it is well again", || (company.status()["health"] == "GREEN").then_some(()));
    }
}

#[test]
fn two_charters_for_one_version_freeze_the_forum_at_the_version_before() {
    let mut forum = Forum::found(3);
    forum.join();
    forum.companies[2].does(&["submit", &item(1), "--label", "symbol", "--wait-peers", "2"]);
    let one = draw_up(&forum, 0, "one.sdc", &["renew", "--days", "100"]);
    let other = draw_up(&forum, 1, "other.sdc", &["set-policy", "--contest-quorum", "3"]);
    sign(&forum, &one, TWO);
    sign(&forum, &other, &["bolt", "cyan"]);
    // Each is applied where the other one has not arrived.
    for company in &mut forum.companies {
        company.stop();
    }
    for (at, file) in [(0, &one), (1, &other)] {
        let company = &mut forum.companies[at];
        company.start(&["run"]);
        version_is(company, 1);
        company.does(&["charter", "apply", file]);
        version_is(company, 2);
        company.stop();
    }
    forum.companies.iter_mut().for_each(|company| company.start(&["run"]));
    for company in &forum.companies {
        health_is(company, "RED", "two charters count for version 2; version 1 stays in force until people resolve it");
        version_is(company, 1);
    }
    // The list goes on; the charter does not, for nobody and under no version.
    forum.ready();
    forum.companies[0].does(&["submit", &item(2), "--label", "symbol", "--wait-peers", "2"]);
    for company in &forum.companies {
        company.does(&["match", &item(1)]);
        matches(company, &item(2), true);
    }
    let third = forum.path("third.sdc");
    forum.companies[2].does(&["charter", "renew", "--days", "50", "--after", &forum.path("invite.sdi"), "-o", &third]);
    sign(&forum, &third, &["acme", "bolt", "cyan"]);
    let fourth = forum.path("fourth.sdc");
    forum.companies[2].does(&["charter", "renew", "--days", "50", "--after", &one, "-o", &fourth]);
    sign(&forum, &fourth, &["acme", "bolt", "cyan"]);
    for (company, file) in [(2, &third), (0, &fourth), (1, &one)] {
        let refused = forum.companies[company].run(&["charter", "apply", file, "--json"]).ends_with(4);
        assert!(cause(&refused).contains("the charter chain is forked"), "{refused:?}");
    }
    // It is remembered.
    forum.companies[0].stop();
    forum.companies[0].start(&["run"]);
    health_is(&forum.companies[0], "RED", "two charters count for version 2");
}

#[test]
fn a_company_that_leaves_closes_its_logs_and_its_word_remains() {
    let mut forum = Forum::found(3);
    forum.join();
    let (fresh, kept) = (item(1), item(2));
    forum.companies[2].does(&["submit", &kept, "--label", "symbol", "--wait-peers", "2"]);
    forum.companies[0].does(&["submit", &fresh, "--label", "symbol"]);
    wait_for("cyan can endorse", || {
        (forum.companies[2].run(&["entry", "endorse", &fresh]).code == Some(0)).then_some(())
    });
    wait_for("two groups", || {
        let shown = forum.companies[1].does(&["entry", "show", &fresh, "--json"]).json();
        (shown["support_groups"] == 2).then_some(())
    });

    let refused = forum.companies[2].run(&["log", "close", "--reason", "spite", "--json"]).ends_with(2);
    assert!(cause(&refused).contains("--reason"), "{refused:?}");
    let closed = forum.companies[2].does(&["log", "close", "--json"]).json()["logs"].clone();
    assert_eq!((closed.as_array().unwrap().len(), &closed[0]["closed_log_no"]), (1, &0.into()), "{closed}");
    assert_eq!(forum.companies[2].does(&["log", "close", "--json"]).json()["logs"], serde_json::json!([]));
    forum.agree();
    enact(&forum, 0, 2, &["leave", "cyan"]);
    version_is(&forum.companies[1], 2);
    let mut cyan = forum.companies.pop().unwrap();
    cyan.does(&["charter", "apply", &forum.path("charter-2.sdc")]);
    let refused = cyan.run(&["submit", &item(3), "--label", "symbol"]).ends_with(4);
    assert!(refused.err.contains("not"), "{refused:?}");
    cyan.stop();

    let member = forum.companies[1].does(&["member", "show", "cyan", "--json"]).json();
    assert_eq!((&member["status"], &member["expelled"]["policy"]), (&"FORMER".into(), &"KEEP".into()));
    assert_eq!(member["cutoffs"][0]["last_seq"], closed[0]["closed_seq"], "cut where it closed: {member}");
    for company in &forum.companies {
        matches(company, &kept, true);
        let shown = company.does(&["entry", "show", &kept, "--json"]).json();
        assert_eq!(shown["said"][0]["member"], "cyan", "{shown}");
    }
    forum.agree();
    forum.companies[0].does(&["log", "verify"]);
}
