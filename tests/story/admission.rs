//! The admission guard: the sentence M20 of the mission, gone through with real nodes.

use std::fs;

use serde_json::Value;
use staydown::replica::ids::{hex, sha256};
use staydown::wire::local as l;
use tonic_types::StatusExt as _;

use crate::drills::{draw_up, item, matches, sign, version_is};
use crate::privacy::client;
use crate::world::{Company, Forum, hash, wait_for};

/// Each kind of hash with the length of its digest in bytes.
const KINDS: [(&str, usize); 6] =
    [("pdq", 32), ("md5", 16), ("sha1", 20), ("sha256", 32), ("sha512", 64), ("tlsh", 35)];
const PDQ: &str = "pdq:f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22";

/// A hash, a quality, and the reason with which it is refused.
type Case = (String, u32, &'static str);

/// Every class of what is never listed, for every kind of hash that it is possible for.
fn never_listed() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, bytes) in KINDS {
        let quality = if kind == "pdq" { 100 } else { 0 };
        cases.push((format!("{kind}:{}", "00".repeat(bytes)), quality, "ALL_ZERO"));
        cases.push((format!("{kind}:{}", "Ff".repeat(bytes)), quality, "ALL_ONE"));
    }
    for empty in [
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
    ] {
        cases.push((empty.to_owned(), 0, "EMPTY_FILE"));
    }
    let lines = |text: &'static str| text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines(include_str!("../../src/replica/known_harmless.txt")) {
        cases.push((line.to_owned(), 0, "KNOWN_HARMLESS"));
    }
    for line in lines(include_str!("../../src/replica/blank_pdq.txt")).take(10) {
        cases.push((line.to_owned(), 100, "BLANK_IMAGE"));
    }
    cases.extend([0, 49].map(|quality| (PDQ.to_owned(), quality, "LOW_QUALITY")));
    for (kind, bytes) in KINDS {
        cases.push((format!("{kind}:{}", "5a".repeat(bytes - 1)), 0, "FIELD"));
        cases.push((format!("{kind}:{}zz", "5a".repeat(bytes - 1)), 0, "FIELD"));
    }
    // A public suffix, in clear and by its hash.
    let host = hex(&sha256(&[b"co.uk/"]));
    cases.extend(["co.uk", &host].map(|host| (format!("url:{host}"), 0, "HOST_TOO_BROAD")));
    cases.push(("url:mailto:somebody@example.org".to_owned(), 0, "FIELD"));
    cases.extend(["tlsh", "vpdq", "sha3"].map(|kind| (format!("{kind}:{}", "5a".repeat(32)), 0, "FIELD")));
    cases
}

fn statement(text: &str, quality: u32, stance: l::Stance) -> l::Statement {
    let (kind, value) = text.split_once(':').unwrap();
    l::Statement {
        signal: Some(l::Signal { r#type: kind.into(), value: value.into() }),
        stance: stance.into(),
        labels: vec!["symbol".into()],
        quality,
        ..Default::default()
    }
}

/// The reason and the field with which the service refuses a statement beside a good one.
async fn refused(at: &Company, statement: l::Statement) -> (String, String) {
    let good = self::statement(&item(999), 0, l::Stance::Submit);
    let request = l::SubmitRequest { statements: vec![good, statement], ..Default::default() };
    let status = client(at).submit(request).await.unwrap_err();
    let details = status.get_error_details();
    let reason = details.error_info().unwrap().reason.clone();
    assert_eq!(status.metadata().get("staydown-reason").unwrap().to_str().unwrap(), reason);
    (reason, details.bad_request().unwrap().field_violations[0].field.clone())
}

#[test]
fn m20_what_is_empty_blank_malformed_or_known_to_be_harmless_is_refused_with_a_reason() {
    let mut forum = Forum::found(1);
    forum.join();
    let acme = &forum.companies[0];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cases = never_listed();
    for (text, quality, code) in &cases {
        let said = statement(text, *quality, l::Stance::Submit);
        let (reason, field) = runtime.block_on(refused(acme, said));
        assert_eq!((reason.as_str(), field.as_str()), (*code, "statements[1].signal"), "{text} {quality}");
        // Whoever stands behind another's word stands behind the hash; the quality is the other's.
        if !matches!(*code, "LOW_QUALITY" | "FIELD") {
            let said = statement(text, 0, l::Stance::Endorse);
            assert_eq!(runtime.block_on(refused(acme, said)).0, *code, "{text} endorsed");
        }
    }
    // One of each class by hand, and the empty file itself.
    let empty = forum.path("empty.bin");
    fs::write(&empty, b"").unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let one_each =
        cases.iter().filter(|(_, _, code)| seen.insert(*code)).map(|(text, q, code)| (text.as_str(), *q, *code));
    for (what, quality, code) in one_each.chain([(empty.as_str(), 0, "EMPTY_FILE")]) {
        let told = acme.run(&["submit", what, "--label", "symbol", "--quality", &quality.to_string()]).ends_with(2);
        assert!(told.err.contains(code) || code == "FIELD" && told.err.contains("expected"), "{what}: {told:?}");
    }
    assert_eq!(seen.len(), 8, "{seen:?}");
    assert_eq!(acme.status()["records"], 0, "nothing of it was signed, nor what stood beside it");
}

#[test]
fn m20_a_company_adds_what_it_never_lists() {
    let mut forum = Forum::found(1);
    let list = forum.path("harmless.txt");
    let acme = &mut forum.companies[0];
    let settings = acme.data.join("staydown.toml");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, format!("{text}[guard]\nharmless = \"{list}\"\n")).unwrap();
    fs::write(&list, format!("# our templates\n{}\n{PDQ}\nsha256:12\n", item(1))).unwrap();
    let (invitation, fingerprint) = (forum.path("invite.sdi"), forum.fingerprint.clone());
    let told = forum.companies[0].run(&["join", &invitation, "--forum", &fingerprint]).ends_with(78);
    assert!(told.err.contains("harmless.txt, line 4: value: got 2 characters, expected 64"), "{told:?}");
    fs::write(&list, format!("# our templates\n{}\n{PDQ}\n", item(1))).unwrap();
    forum.join();
    let acme = &forum.companies[0];
    let refused = |what: &str| {
        let told = acme.run(&["submit", what, "--label", "symbol", "--quality", "100"]).ends_with(2);
        assert!(told.err.contains("OWN_HARMLESS") && told.err.contains("guard.harmless"), "{told:?}");
    };
    refused(&item(1));
    refused(PDQ);
    let near = PDQ.replace("pdq:f8f8f0", "pdq:f8f8ff");
    refused(&near);
    acme.does(&["submit", &item(2), "--label", "symbol"]);

    // Read again on a signal. What is on the list stays there: it can be taken back, as always.
    fs::write(&list, format!("{}\n{}\n", item(1), item(2))).unwrap();
    acme.signal("HUP");
    wait_for("the second is refused", || {
        (acme.run(&["submit", &item(2), "--label", "symbol"]).code == Some(2)).then_some(())
    });
    acme.does(&["submit", PDQ, "--quality", "100", "--label", "symbol"]);
    matches(acme, &item(2), true);
    acme.does(&["entry", "withdraw", &item(2)]);
    matches(acme, &item(2), false);

    // A file that is no good changes nothing but the health.
    fs::write(&list, "no hash\n").unwrap();
    acme.signal("HUP");
    let told = wait_for("health tells", || {
        let status = acme.status();
        (status["health"] == "YELLOW").then(|| status["health_reasons"].to_string())
    });
    assert!(told.contains("the file of harmless hashes is not in use") && told.contains("line 1"), "{told}");
    refused(&item(1));
    fs::write(&list, "").unwrap();
    acme.signal("HUP");
    wait_for("it is read again", || (acme.status()["health"] == "GREEN").then_some(()));
    wait_for("all is allowed again", || {
        (acme.run(&["submit", &item(1), "--label", "symbol"]).code == Some(0)).then_some(())
    });
}

/// What of 1 to `count` matches at `at`.
fn found(at: &Company, count: u64) -> Vec<u64> {
    let lines: String = (1..=count).map(|n| format!("{}\n", item(n))).collect();
    let answers = at.run_with(&["match", "-", "--json"], lines.as_bytes()).json_lines();
    let found = |answer: &Value| !answer["matches"].as_array().unwrap().is_empty();
    (1..=count).zip(&answers).filter(|(_, answer)| found(answer)).map(|(n, _)| n).collect()
}

#[test]
fn m20_what_a_member_says_beyond_its_quota_is_refused_there_and_counts_nowhere() {
    const QUOTA: u64 = 20;
    let mut forum = Forum::found(3);
    forum.join();
    let file = draw_up(&forum, 0, "charter-2.sdc", &["set-policy", "--quota-bulk", &QUOTA.to_string()]);
    sign(&forum, &file, &["acme", "bolt"]);
    forum.companies[0].does(&["charter", "apply", &file]);
    forum.companies.iter().for_each(|company| version_is(company, 2));
    let [acme, bolt, cyan] = &forum.companies[..] else { panic!("three companies") };

    // The opening of the log takes a place of the day.
    let table = |numbers: std::ops::RangeInclusive<u64>| {
        let path = forum.path("bulk.csv");
        let rows: String = numbers.map(|n| format!("sha256,{},symbol\n", hash(n))).collect();
        fs::write(&path, format!("type,value,labels\n{rows}")).unwrap();
        path
    };
    bolt.does(&["submit", "--from", &table(1..=QUOTA - 1)]);
    let told = bolt.run(&["submit", "--from", &table(100..=100)]);
    assert!(told.code == Some(4) && told.err.contains("quota of 20"), "{told:?}");
    let told = bolt.run(&["submit", "--bulk", &item(100), "--label", "symbol"]).ends_with(4);
    assert!(
        told.err.contains("quota of 20 records a day in the bulk lane is used up; it begins anew at 00:00 UTC"),
        "{told:?}"
    );

    // Its other lanes, what it takes back, and the others are as before.
    bolt.does(&["submit", &item(101), "--label", "symbol"]);
    bolt.does(&["entry", "withdraw", &item(101)]);
    acme.does(&["submit", &item(102), "--label", "symbol", "--wait-peers", "2"]);
    for company in [acme, bolt, cyan] {
        matches(company, &item(102), true);
        wait_for("what is within the quota counts", || {
            (found(company, QUOTA) == (1..QUOTA).collect::<Vec<_>>()).then_some(())
        });
    }

    // What a node signed that keeps to no quota is there and counts at nobody: a smaller quota makes the same of it.
    let file = draw_up(&forum, 0, "charter-3.sdc", &["set-policy", "--quota-bulk", "5"]);
    sign(&forum, &file, &["acme", "bolt"]);
    acme.does(&["charter", "apply", &file]);
    forum.companies.iter().for_each(|company| version_is(company, 3));
    for company in [acme, bolt, cyan] {
        wait_for("four are within it", || (found(company, QUOTA) == [1, 2, 3, 4]).then_some(()));
        matches(company, &item(102), true);
    }
    forum.agree();
}
