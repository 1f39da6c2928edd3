//! A real forum in ten minutes.

use std::time::Duration;

use serde_json::Value;

use crate::world::{Company, Forum, Ran, poster, wait_for};

/// What a node may take to end: its drain deadline of 10 s, and a busy machine.
const STOP_MAX: Duration = Duration::from_secs(15);

/// Waits until a lookup gives `verdict`.
#[track_caller]
fn expect(company: &Company, item: &str, verdict: &str) -> Value {
    let what = format!("{item} is {verdict} at {}", company.name);
    let ran: Ran = wait_for(&what, || {
        let ran = company.run(&["match", item, "--json"]);
        (ran.json()["verdict"] == verdict).then_some(ran)
    });
    let answer = ran.json();
    let code = if answer["matches"].as_array().unwrap().is_empty() { 3 } else { 0 };
    ran.ends_with(code);
    answer
}

fn who(entry: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut all: Vec<_> =
        entry["said"].as_array().unwrap().iter().map(|said| (text(&said["member"]), text(&said["what"]))).collect();
    all.sort();
    all
}

fn said(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(member, what)| ((*member).to_owned(), (*what).to_owned())).collect()
}

#[test]
fn a_picture_is_listed_found_endorsed_disputed_and_withdrawn() {
    let mut forum = Forum::found(3);
    forum.join();
    let [acme, bolt, cyan] = &forum.companies[..] else { panic!() };
    let (picture, copy) = poster(forum.folder.path(), 1);

    let told = acme.does(&["hash", &picture, "--json"]).json();
    assert_eq!(told["hashes"].as_array().unwrap().len(), 5);
    for company in [acme, bolt, cyan] {
        expect(company, &copy, "ALLOW");
    }

    let label = ["--label", "symbol", "--severity", "2"];
    let told = acme.does(&[&["submit", &picture, "--wait-peers", "2", "--json"], &label[..]].concat()).json();
    assert_eq!((&told["state"], &told["wait_timed_out"]), (&"DURABLE".into(), &false.into()), "{told}");
    assert_eq!((told["receipts"].as_array().unwrap().len(), told["peers_holding"].as_u64()), (5, Some(2)));

    for company in [bolt, cyan] {
        let answer = expect(company, &copy, "REVIEW");
        let found = &answer["matches"][0];
        assert_eq!((&found["entry"]["signal"]["type"], &found["threshold"]), (&"pdq".into(), &31.into()));
        assert!((1..=31).contains(&found["distance"].as_u64().unwrap()), "{found}");
        assert_eq!(who(&found["entry"]), said(&[("acme", "SUBMIT")]));
        let text = company.does(&["match", &copy, "--explain"]).out;
        assert!(text.starts_with("REVIEW  ") && text.contains("submitted by acme (FR; group Acme)"), "{text}");
    }
    let pdq = expect(bolt, &copy, "REVIEW")["matches"][0]["entry"]["signal"]["value"].as_str().unwrap().to_owned();
    let pdq = format!("pdq:{pdq}");

    let told = bolt.run(&["entry", "endorse", &copy, "--json"]).ends_with(3).json();
    assert!(told["error"]["fix"].as_str().unwrap().contains("--near"), "{told}");
    let told = bolt.does(&["entry", "endorse", &copy, "--near", "--json"]).json();
    assert_eq!(told["state"], "DURABLE");
    let answer = expect(cyan, &copy, "BLOCK");
    assert_eq!(who(&answer["matches"][0]["entry"]), said(&[("acme", "SUBMIT"), ("bolt", "ENDORSE")]));
    // The digests of the picture have acme's word alone; over all matched subjects it is two groups all the same.
    expect(acme, &picture, "BLOCK");

    cyan.does(&["entry", "dispute", &pdq, "--reason", "news-reporting", "--json"]);
    for company in [acme, bolt] {
        let entry = &expect(company, &copy, "REVIEW")["matches"][0]["entry"];
        assert_eq!(who(entry), said(&[("acme", "SUBMIT"), ("bolt", "ENDORSE"), ("cyan", "DISPUTE")]));
    }
    let shown = bolt.does(&["entry", "show", &pdq, "--receipts", "--json"]).json();
    assert_eq!((shown["dispute_groups"].as_u64(), shown["receipts"].as_array().unwrap().len()), (Some(1), 3));
    assert!(acme.does(&["entry", "show", &pdq]).out.contains("disputed by cyan (FR; group Cyan)"));

    for company in [acme, bolt, cyan] {
        let listed = company.does(&["list", "search", "--label", "symbol", "--json"]).json_lines();
        assert_eq!(listed.len(), 5, "{listed:?}");
        let listed = company.does(&["list", "search", "--type", "pdq", "--member", "acme", "--json"]).json_lines();
        assert_eq!(listed[0]["signal"]["value"], pdq["pdq:".len()..]);
        let peers = company.does(&["peer", "list", "--json"]).json();
        let states: Vec<_> = peers.as_array().unwrap().iter().map(|peer| peer["state"].as_str().unwrap()).collect();
        assert_eq!(states, ["FOLLOWING", "FOLLOWING"], "{peers}");
        let chain = company.does(&["charter", "show", "--json"]).json();
        assert_eq!(chain["forum_id"], forum.fingerprint);
    }

    cyan.does(&["entry", "withdraw", &pdq]);
    bolt.does(&["entry", "withdraw", &pdq]);
    acme.does(&["entry", "withdraw", &picture]);
    for company in [acme, bolt, cyan] {
        for item in [&copy, &picture, &pdq] {
            expect(company, item, "ALLOW");
        }
        assert!(company.run(&["match", &copy]).ends_with(3).out.starts_with("ALLOW  "));
    }
    let told = bolt.run(&["entry", "withdraw", &pdq, "--json"]).ends_with(3).json();
    assert_eq!(told["error"]["exit_code"], 3);

    let (hour, digest) = forum.agree();
    for company in &forum.companies {
        let verified = company.does(&["log", "verify", "--json"]).json();
        assert_eq!(verified["first_break"], Value::Null);
        // The hour may have turned in between.
        assert!(verified["view_hour_ms"] != hour || verified["view_digest"] == digest, "{verified}");
        assert!(company.does(&["log", "verify"]).out.contains("every signature, chain and root holds"));
        assert!(company.log().contains("Joined."), "{}", company.log());
    }

    // Peers follow each other's streams, and a node that is told to stop does not wait for them.
    for company in &mut forum.companies {
        let took = company.stop();
        assert!(took < STOP_MAX, "{} took {took:?}", company.name);
        company.run(&["status"]).ends_with(5);
    }
    for company in &mut forum.companies {
        company.start(&["run"]);
    }
    forum.ready();
    forum.agree();
}
