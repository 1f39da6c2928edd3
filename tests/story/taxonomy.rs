//! A forum changes its labels while it runs: every node comes to know them, wherever it was; what was signed keeps its
//! meaning; what a label means for a post is each company's own business. The sentence M13 of the mission.

use std::fs;

use serde_json::Value;

use crate::drills::{cause, draw_up, item, sign, version_is};
use crate::world::{Company, Forum, wait_for};

const TWO: &[&str] = &["acme", "bolt"];

#[track_caller]
fn labels(at: &Company, n: u64) -> Value {
    let shown = at.run(&["entry", "show", &item(n), "--json"]);
    serde_json::from_str::<Value>(&shown.out).map(|entry| entry["labels"].clone()).unwrap_or_default()
}

#[track_caller]
fn wait_labels(at: &Company, n: u64, expected: &[&str]) {
    let mut last = Value::Null;
    wait_for(&format!("item {n} has {expected:?} at {}: {}", at.name, at.log()), || {
        last = labels(at, n);
        (last == serde_json::json!(expected)).then_some(())
    });
}

/// How a submission with `label` is refused: its cause and its cure.
#[track_caller]
fn refused(at: &Company, label: &str, code: i32) -> (String, String) {
    let ran = at.run(&["submit", &item(99), "--label", label, "--json"]).ends_with(code);
    let fix = ran.json()["error"]["fix"].as_str().unwrap_or_default().to_owned();
    (cause(&ran), fix)
}

#[track_caller]
fn verdict(at: &Company, n: u64) -> Value {
    at.does(&["match", &item(n), "--json"]).json()["verdict"].clone()
}

fn policy(label: &str, verdict: &str) -> String {
    format!("[[rule]]\nname = \"ours\"\nverdict = \"{verdict}\"\nlabels_any = [\"{label}\"]\n")
}

/// Draws up a charter for the taxonomy in `file` at a company, and signs and applies it there.
#[track_caller]
fn enact(forum: &Forum, company: usize, version: u64, file: &str) -> String {
    let charter = draw_up(forum, company, &format!("charter-{version}.sdc"), &["set-taxonomy", file]);
    sign(forum, &charter, TWO);
    let shown = forum.companies[company].does(&["charter", "show", &charter, "--diff"]).out;
    forum.companies[company].does(&["charter", "apply", &charter]);
    shown
}

#[test]
fn m13_labels_come_from_a_file_that_the_charter_names_and_each_company_acts_on_them_as_it_likes() {
    let mut forum = Forum::found(3);
    forum.join();
    forum.companies[0].does(&["submit", &item(1), "--label", "symbol", "--wait-peers", "2"]);
    forum.companies[2].stop();

    // Version 2: the built-in labels, and organisations. bolt draws the charter up, two founders sign it.
    let [first, second] = ["taxonomy-1.toml", "taxonomy-2.toml"].map(|name| forum.path(name));
    let bolt = &forum.companies[1];
    bolt.does(&["taxonomy", "export", "-o", &first]);
    bolt.does(&["taxonomy", "export", "--example", "-o", &second]);
    let told = bolt.does(&["taxonomy", "check", &second]);
    assert!(told.err.contains("23 labels, no mistake; a charter names it staydown-example-2@"), "{told:?}");
    let (why, fix) = refused(bolt, "org-example-front", 2);
    assert!(why.contains("not a label of the taxonomy staydown-example-1"), "{why}: {fix}");
    let told = enact(&forum, 1, 2, &second);
    assert!(told.contains("~ taxonomy: staydown-example-1 becomes staydown-example-2@"), "{told}");
    assert!(told.contains("+ label 1001 org-example-front (producer)") && !told.contains("! "), "{told}");

    // At once where it was applied, soon where it spreads to, and where a node was off or did not exist.
    forum.companies[1].does(&["submit", &item(2), "--label", "org-example-front", "--wait-peers", "1"]);
    wait_labels(&forum.companies[0], 2, &["org-example-front"]);
    wait_labels(&forum.companies[0], 1, &["symbol"]);
    forum.companies[2].start(&["run"]);
    wait_labels(&forum.companies[2], 2, &["org-example-front"]);
    let delta = newcomer(&forum);
    forum.companies.push(delta);
    wait_labels(&forum.companies[3], 2, &["org-example-front"]);
    let shown = forum.companies[3].does(&["taxonomy", "show"]).out;
    assert!(
        shown.contains("producer\n  org-example-front  1001  Example Front (invented)\n    org-example-front-media"),
        "{shown}"
    );
    let (why, fix) = refused(&forum.companies[3], "org-exmple-legion", 2);
    assert!(
        why.contains("the nearest are org-example-legion, ") && fix == "did you mean org-example-legion?",
        "{why}: {fix}"
    );
    the_same_label_is_two_companies_own_business(&forum);
    the_report_is_the_same(&forum);
    numbers_keep_their_meaning(&forum, &second);
    what_is_deleted_comes_back(&mut forum);
}

/// A company that is admitted now, with an invitation that acme writes.
fn newcomer(forum: &Forum) -> Company {
    let mut delta = Company::new(forum.folder.path(), "delta");
    let request = delta.init(&["--forum", &forum.fingerprint], "Delta", "DE");
    let admit = ["admit", request.to_str().unwrap(), "--role", "FULL"];
    let charter = draw_up(forum, 0, "charter-3.sdc", &admit);
    sign(forum, &charter, TWO);
    forum.companies[0].does(&["charter", "apply", &charter]);
    forum.companies.iter().for_each(|company| version_is(company, 3));
    let invitation = forum.path("invite-3.sdi");
    forum.companies[0].does(&["charter", "invite", "-o", &invitation]);
    delta.start(&["join", &invitation, "--forum", &forum.fingerprint]);
    delta.ready(3);
    delta
}

fn the_same_label_is_two_companies_own_business(forum: &Forum) {
    for (company, expected) in [(0, "BLOCK"), (3, "ALLOW")] {
        let at = &forum.companies[company];
        fs::write(at.data.join("policy.toml"), policy("org-example-front", expected)).unwrap();
        let checked = at.does(&["policy", "check"]);
        assert!(checked.out.is_empty(), "the node's labels are known: {checked:?}");
        at.signal("HUP");
        wait_for("the policy is in force", || (verdict(at, 2) == expected).then_some(()));
    }
    assert_eq!(verdict(&forum.companies[1], 2), "REVIEW", "the built-in policy");
}

fn the_report_is_the_same(forum: &Forum) {
    forum.agree();
    let asked = || {
        let now = staydown::clock::now();
        let [from, to] = [now.hour().0 - 3_600_000, now.hour().0 + 3_600_000]
            .map(|ms| staydown::report::time::rfc3339(staydown::replica::ids::TimeMs(ms)));
        [0, 3].map(|at: usize| {
            let company: &Company = &forum.companies[at];
            company.does(&["report", "--from", &from, "--to", &to, "--open", "--format", "json"]).out
        })
    };
    let equal = (0..5).map(|_| asked()).find(|[a, b]| a == b);
    let [report, _] = equal.unwrap_or_else(|| panic!("the reports differ: {:#?}", asked()));
    let report: Value = serde_json::from_str(&report).unwrap();
    let entries = &report["entries"];
    assert!(entries["by_label"].to_string().contains("org-example-front"), "{entries}");
    assert!(entries["by_facet"].to_string().contains("\"name\":\"producer\""), "{entries}");
}

fn numbers_keep_their_meaning(forum: &Forum, second: &str) {
    let text = fs::read_to_string(second).unwrap().replace("version = 2", "version = 3");
    let file = |name: &str, change: &dyn Fn(String) -> String| {
        let path = forum.path(name);
        fs::write(&path, change(text.clone())).unwrap();
        path
    };
    let acme = &forum.companies[0];
    // Another meaning under an old number is refused before anybody signs it.
    let wrong = file("wrong.toml", &|text| text.replace("\"symbol\"", "\"emblem\""));
    let ran = acme.run(&["charter", "set-taxonomy", &wrong, "-o", &forum.path("wrong.sdc")]).ends_with(4);
    assert!(ran.err.contains("label 13 is emblem, and was symbol until now"), "{ran:?}");
    let ran = acme.run(&["taxonomy", "check", &wrong, "--against", second]).ends_with(4);
    assert!(ran.out.contains("! label 13 is emblem"), "{ran:?}");
    // Another name, and a label that nobody needs any more.
    let third = file("taxonomy-3.toml", &|text| {
        let renamed = text.replace("name = \"symbol\"", "name = \"emblem\"\nformerly = [\"symbol\"]");
        renamed.replace("name = \"org-example-dawn\"", "name = \"org-example-dawn\"\nretired = true")
    });
    let told = enact(forum, 0, 4, &third);
    assert!(told.contains("~ label 13 symbol is called emblem from now on"), "{told}");
    assert!(told.contains("- label 1004 org-example-dawn is retired"), "{told}");
    for company in &forum.companies {
        wait_labels(company, 1, &["emblem"]);
        assert_eq!(labels(company, 2), serde_json::json!(["org-example-front"]));
    }
    let (why, _) = refused(&forum.companies[1], "org-example-dawn", 2);
    assert!(why.contains("retired"), "{why}");
    forum.companies[1].does(&["submit", &item(3), "--label", "symbol"]);
    wait_labels(acme, 3, &["emblem"]);
    assert_eq!(verdict(acme, 2), "BLOCK", "the policy is understood by the new file");
}

fn what_is_deleted_comes_back(forum: &mut Forum) {
    for company in &mut forum.companies {
        company.stop();
    }
    let folder = forum.companies[0].data.join("taxonomy");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "versions 2 and 3");
    fs::remove_dir_all(&folder).unwrap();
    forum.companies[0].start(&["run"]);
    let acme = &forum.companies[0];
    wait_labels(acme, 1, &["label-13"]);
    let status = acme.status();
    assert!(
        status["health_reasons"].to_string().contains("its file is not here yet and is asked of the peers"),
        "{status}"
    );
    let (why, fix) = refused(acme, "symbol", 4);
    assert!(why.contains("are not known to this node") && fix.contains("charter apply"), "{why}: {fix}");
    forum.companies[2].start(&["run"]);
    wait_labels(&forum.companies[0], 1, &["emblem"]);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "the one in force is on disk again");
}
