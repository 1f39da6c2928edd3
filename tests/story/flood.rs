//! The flood breaker: the sentence M21 of the mission, gone through with real nodes.

use std::fs;

use serde_json::Value;

use crate::drills::item;
use crate::world::{Company, Forum, wait_for};

/// What makes a flood in this test.
const FLOOR: usize = 20;

/// Looks `item` up so many times, and returns the answers.
#[track_caller]
fn looked_up(at: &Company, item: &str, times: usize) -> Vec<Value> {
    at.run_with(&["match", "-", "--explain", "--json"], format!("{item}\n").repeat(times).as_bytes())
        .ends_with(0)
        .json_lines()
}

#[track_caller]
fn verdicts(at: &Company, item: &str, times: usize) -> Vec<String> {
    looked_up(at, item, times).iter().map(|answer| answer["verdict"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn floods(at: &Company) -> Vec<Value> {
    let ran = at.run(&["review", "list", "--kind", "flood", "--json"]);
    assert!(matches!(ran.code, Some(0 | 3)), "{ran:?}");
    ran.json_lines()
}

/// Waits until `item` has the words of so many members everywhere. It asks for the entry: that is no match to count.
#[track_caller]
fn said(forum: &Forum, item: &str, words: usize) {
    for company in &forum.companies {
        wait_for(&format!("{item} has {words} words at {}", company.name), || {
            let shown = company.run(&["entry", "show", item, "--json"]);
            let shown: Value = serde_json::from_str(&shown.out).ok()?;
            (shown["said"].as_array()?.len() == words).then_some(())
        });
    }
}

/// acme says it, bolt endorses it: BLOCK everywhere.
#[track_caller]
fn listed(forum: &Forum, item: &str, more: &[&str]) {
    forum.companies[0].does(&[&["submit", item, "--label", "symbol"], more].concat());
    said(forum, item, 1);
    forum.companies[1].does(&["entry", "endorse", item]);
    said(forum, item, 2);
}

fn set_floor(at: &Company, floor: usize) {
    let policy = at.does(&["policy", "show", "--built-in"]).out;
    let changed = policy.replace("floor = 100 ", &format!("floor = {floor} "));
    assert_ne!(policy, changed);
    fs::write(at.data.join("policy.toml"), changed).unwrap();
    at.does(&["policy", "check"]);
    at.signal("HUP");
    wait_for("the policy is read", || {
        let shown = at.does(&["policy", "show", "--json"]).json();
        (shown["breaker"]["floor"] == floor).then_some(())
    });
}

#[test]
fn m21_a_signal_that_suddenly_floods_goes_to_people_on_that_node_and_no_other() {
    let mut forum = Forum::found(3);
    forum.join();
    let [one, two, three, four] = [1, 2, 3, 4].map(item);
    let attack = forum.companies[0]
        .does(&["incident", "open", "--label", "livestreamed-attack", "--level", "4", "--closes", "2d", "--json"])
        .json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for item in [&one, &two, &four] {
        listed(&forum, item, &[]);
    }
    listed(&forum, &three, &["--incident", &attack]);
    set_floor(&forum.companies[0], FLOOR);
    let [acme, bolt, _] = &forum.companies[..] else { panic!("three companies") };

    // As often as before: BLOCK. A flood: from the twentieth on REVIEW, and the answer says why.
    assert_eq!(verdicts(acme, &one, FLOOR - 5), ["BLOCK"; FLOOR - 5]);
    assert!(floods(acme).is_empty() && acme.status()["health"] == "GREEN");
    let answers = looked_up(acme, &one, 10);
    let lowered = |answer: &&Value| answer["verdict"] == "REVIEW" && answer["matches"][0]["flooding"] == true;
    assert_eq!(answers.iter().filter(lowered).count(), 6, "{answers:?}");
    let last = answers.last().unwrap();
    assert!(last["lowered"].as_str().unwrap().contains("far more often here than it used to"), "{last}");
    assert_eq!(last["rule"], "two companies of two jurisdictions stand behind it and nobody disputes it");
    let why = last["explained"][3]["why"].as_str().unwrap();
    assert!(why.contains("behind it stand Acme, Bolt; lowered to REVIEW: it matches far more often"), "{why}");
    let text = acme.does(&["match", &one]).out;
    assert!(text.contains("lowered from BLOCK to REVIEW: it matches far more often here"), "{text}");

    // Only this signal, only here.
    assert_eq!(verdicts(acme, &two, 1), ["BLOCK"]);
    assert_eq!(verdicts(bolt, &one, 2 * FLOOR), ["BLOCK"; 2 * FLOOR]);
    assert!(floods(bolt).is_empty());

    // It waits for a person, with what was counted.
    let status = acme.status();
    assert_eq!(status["health"], "YELLOW");
    assert!(status["health_reasons"].to_string().contains("review list --kind flood"), "{status}");
    let [flood] = &floods(acme)[..] else { panic!("one waits") };
    let counted = &flood["flood"];
    assert_eq!((&counted["matches"], &counted["usual"]), (&FLOOR.into(), &0.into()), "{flood}");
    assert_eq!((&counted["window_ms"], &counted["blocks"]), (&3_600_000.into(), &false.into()), "{flood}");
    assert_eq!(format!("{}:{}", "sha256", flood["entry"]["signal"]["value"].as_str().unwrap()), one);
    let all = acme.does(&["review", "list"]).out;
    assert!(all.contains("matched 20 times in 1 h here where 0 is usual"), "{all}");
    let shown = acme.does(&["policy", "show", "--json"]).json();
    assert_eq!((&shown["breaker"]["tripped"], &shown["breaker"]["trips"]), (&1.into(), &1.into()), "{shown}");
    assert!(shown["breaker"]["lowered"].as_u64().unwrap() >= 6, "{shown}");

    // "Keep": BLOCK again, also while it goes on.
    let id = flood["id"].as_str().unwrap();
    let kept = acme.does(&["review", "decide", id, "keep", "--json"]).json();
    assert!(kept["until_ms"].as_u64() > flood["since_ms"].as_u64(), "{kept}");
    assert_eq!(verdicts(acme, &one, 2 * FLOOR), ["BLOCK"; 2 * FLOOR]);
    assert!(floods(acme).is_empty() && acme.status()["health"] == "GREEN");
    acme.run(&["review", "decide", id, "keep"]).ends_with(3);

    // "Dispute": signed, seen by all, and out of the queue.
    assert_eq!(verdicts(acme, &two, FLOOR).last().unwrap(), "REVIEW");
    let id = floods(acme)[0]["id"].as_str().unwrap().to_owned();
    acme.run(&["review", "decide", &id, "dispute"]).ends_with(2);
    acme.does(&["review", "decide", &id, "dispute", "--reason", "overmatching"]);
    assert!(floods(acme).is_empty());
    let disputed = wait_for("bolt sees the dispute", || {
        let ran = bolt.does(&["review", "list", "--kind", "disputed", "--json"]).json_lines();
        ran.into_iter().next()
    });
    assert!(disputed["entry"].to_string().contains("overmatching"), "{disputed}");
    let refused = bolt.run(&["review", "decide", disputed["id"].as_str().unwrap(), "keep"]).ends_with(2);
    assert!(refused.err.contains("keep answers a flood"), "{refused:?}");

    // Our own word for it is a decision, too.
    assert_eq!(verdicts(acme, &four, FLOOR).last().unwrap(), "REVIEW");
    acme.does(&["submit", &four, "--label", "symbol", "--confidence", "90"]);
    assert!(floods(acme).is_empty());
    assert_eq!(verdicts(acme, &four, FLOOR), ["BLOCK"; FLOOR]);

    // During an attack everybody uploads the same: it stays blocked, and people are told all the same.
    assert_eq!(verdicts(acme, &three, 2 * FLOOR), ["BLOCK"; 2 * FLOOR]);
    let [flood] = &floods(acme)[..] else { panic!("one waits") };
    assert_eq!(flood["flood"]["blocks"], true, "{flood}");
    acme.does(&["incident", "close", &attack]);
    assert_eq!(verdicts(acme, &three, 1), ["REVIEW"]);
}
