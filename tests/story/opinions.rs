//! What the companies of a forum say of its entries, and what each node makes of it: the sentences M8, M9, M11, M12,
//! M14, M17 and M18 of the mission, gone through with real nodes.

use std::fs;

use serde_json::Value;
use staydown::clock;
use staydown::report::time::date;

use crate::drills::{cause, draw_up, item, matches, sign, version_is};
use crate::world::{Company, Forum, Ran, wait_for};

const TWO: &[&str] = &["acme", "bolt"];

/// acme (FR) and bolt (GB) are FULL, cyan has `role`; the forum is at `level`.
fn forum(role: &str, level: u32) -> Forum {
    let mut forum = Forum::found(3);
    forum.join();
    let file = draw_up(&forum, 0, "charter-2.sdc", &["renew", "--days", "300"]);
    let change = |command: &[&str]| drop(forum.companies[0].does(&[command, &["--into", &file]].concat()));
    if role != "FULL" {
        change(&["charter", "set-role", "cyan", "--role", role]);
    }
    if level > 1 {
        change(&["charter", "set-semantics", &level.to_string()]);
    }
    sign(&forum, &file, TWO);
    forum.companies[0].does(&["charter", "apply", &file]);
    forum.companies.iter().for_each(|company| version_is(company, 2));
    forum
}

#[track_caller]
fn words(at: &Company, line: &str) -> Ran {
    at.does(&line.split(' ').collect::<Vec<_>>())
}

/// `line` with `--json`, its values.
#[track_caller]
fn listed(at: &Company, line: &str) -> Vec<Value> {
    let ran = at.run(&line.split(' ').chain(["--json"]).collect::<Vec<_>>());
    assert!(matches!(ran.code, Some(0 | 3)), "{line}: {ran:?}");
    ran.json_lines()
}

/// How `line` is refused: its cause and its cure.
#[track_caller]
fn refused(at: &Company, line: &str, code: i32) -> (String, String) {
    let ran = at.run(&line.split(' ').chain(["--json"]).collect::<Vec<_>>()).ends_with(code);
    let fix = ran.json()["error"]["fix"].as_str().unwrap_or_default().to_owned();
    (cause(&ran), fix)
}

#[track_caller]
fn entry(at: &Company, item: &str) -> Value {
    at.does(&["entry", "show", item, "--json"]).json()
}

/// Waits until every node shows `item` with this status.
#[track_caller]
fn status_is(forum: &Forum, item: &str, expected: &str) {
    for company in &forum.companies {
        let mut last = Value::Null;
        wait_for(&format!("{item} is {expected} at {}: {last}", company.name), || {
            let ran = company.run(&["entry", "show", item, "--json"]);
            last = serde_json::from_str(&ran.out).unwrap_or_default();
            (last["status"] == expected).then_some(())
        });
    }
}

/// Waits until a match of `item` at every node gives this verdict.
#[track_caller]
fn verdict_is(forum: &Forum, item: &str, expected: &str) {
    for company in &forum.companies {
        wait_for(&format!("{item} gives {expected} at {}", company.name), || {
            let ran = company.run(&["match", item, "--json"]);
            (ran.code == Some(0) && ran.json()["verdict"] == expected).then_some(())
        });
    }
}

/// Waits until `line` at `company` lists so many values, and returns them.
#[track_caller]
fn wait_listed(at: &Company, line: &str, count: usize) -> Vec<Value> {
    wait_for(&format!("{count} of {line} at {}", at.name), || Some(listed(at, line)).filter(|l| l.len() == count))
}

fn id(review: &Value) -> String {
    review["id"].as_str().unwrap().to_owned()
}

#[test]
fn m8_a_retracted_entry_stops_matching_everywhere_and_no_peer_revives_it() {
    let mut forum = forum("SMALL", 1);
    let (one, two) = (item(1), item(2));
    words(&forum.companies[0], &format!("submit {one} {two} --label symbol --wait-peers 2"));
    forum.companies.iter().for_each(|company| matches(company, &one, true));

    // One vote is not enough, and a small company has none.
    let (why, fix) = refused(&forum.companies[2], &format!("entry retract {one} --reason mistake"), 4);
    assert!(why.contains("needs the role FULL; our company has SMALL"), "{why}");
    assert!(fix.ends_with("staydown charter set-role cyan --role FULL"), "{fix}");
    let (_, fix) = refused(&forum.companies[0], &format!("entry retract {one} --reason mistaken"), 2);
    assert_eq!(fix, "did you mean mistake?");
    refused(&forum.companies[0], &format!("entry retract {}", item(9)), 3);
    words(&forum.companies[0], &format!("entry retract {one} --reason mistake --json"));
    status_is(&forum, &one, "ACTIVE");

    // With the quorum it is gone, also for a node that was away, and it stays gone when that node says it again.
    forum.companies[2].stop();
    words(&forum.companies[1], &format!("entry retract {one} --reason overmatching"));
    forum.companies[..2].iter().for_each(|company| matches(company, &one, false));
    forum.companies[2].start(&["run"]);
    forum.ready();
    matches(&forum.companies[2], &one, false);
    words(&forum.companies[2], &format!("submit {one} --label symbol --wait-peers 2"));
    status_is(&forum, &one, "RETRACTED");
    forum.companies.iter().for_each(|company| matches(company, &one, false));
    forum.agree();

    // A vote can be taken back; a withdrawal ends what nobody else stands behind.
    words(&forum.companies[1], &format!("entry retract {one} --no"));
    status_is(&forum, &one, "ACTIVE");
    let shown = entry(&forum.companies[2], &one);
    let said: Vec<_> = shown["said"].as_array().unwrap().iter().map(|said| said["what"].as_str().unwrap()).collect();
    for word in ["SUBMIT", "RETRACT", "KEEP"] {
        assert!(said.contains(&word), "{shown}");
    }
    words(&forum.companies[0], &format!("entry withdraw {two}"));
    status_is(&forum, &two, "INACTIVE");
    forum.companies.iter().for_each(|company| matches(company, &two, false));
}

#[test]
fn m9_members_endorse_and_dispute_and_the_queue_of_whom_it_concerns_shows_it() {
    let forum = forum("FULL", 1);
    let [acme, bolt, cyan] = &forum.companies[..] else { panic!("three companies") };
    let one = item(1);
    words(
        acme,
        &format!("submit {one} --label symbol --language pt-BR --basis human-review --confidence 80 --wait-peers 2"),
    );
    words(bolt, &format!("entry endorse {one} --basis automated"));
    verdict_is(&forum, &one, "BLOCK");
    words(cyan, &format!("entry dispute {one} --reason news-reporting"));
    verdict_is(&forum, &one, "REVIEW");
    forum.agree();

    // The answer names who said what; one entry names all that stands in the records.
    for company in &forum.companies {
        let text = company.does(&["match", &one]).out;
        for expected in
            ["submitted by acme (FR", "endorsed by bolt (GB", "disputed by cyan (FR", "reason news-reporting"]
        {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let text = company.does(&["entry", "show", &one]).out;
        assert!(
            text.contains("SUBMIT of acme: labels symbol; languages pt-BR; basis human-review; confidence 80"),
            "{text}"
        );
        assert!(text.contains("ENDORSE of bolt: labels symbol; basis automated"), "{text}");
    }

    // It waits for those that support it, under the same id as long as it waits.
    let own = wait_listed(acme, "review list", 1).remove(0);
    assert_eq!((&own["kind"], &own["by"]), (&"disputed-own".into(), &serde_json::json!(["cyan"])), "{own}");
    let theirs = wait_listed(bolt, "review list --kind disputed", 1).remove(0);
    assert_eq!(id(&theirs).rsplit('-').next(), id(&own).rsplit('-').next());
    assert_eq!(id(&listed(acme, "review list --language pt").remove(0)), id(&own));
    assert!(listed(acme, "review list --language de").is_empty() && listed(cyan, "review list").is_empty());
    acme.run(&["review", "list", "--kind", "dispute"]).ends_with(2);

    // Decisions are signed records, and what was decided leaves the queue.
    refused(acme, &format!("review decide {} withdraw", id(&own)), 2);
    refused(acme, &format!("review decide {} reject --reason mistake", id(&own)), 2);
    refused(acme, "review decide disputed-own-0011223344556677 withdraw --reason mistake", 3);
    refused(acme, "review decide nonsense withdraw --reason mistake", 3);
    words(acme, &format!("review decide {} endorse", id(&own)));
    assert!(listed(acme, "review list").is_empty());
    let kept = entry(acme, &one);
    let ours = kept["said"].as_array().unwrap().iter().find(|said| said["member"] == "acme").unwrap();
    assert_eq!((&ours["what"], &ours["details"]["confidence"]), (&"SUBMIT".into(), &80.into()), "{kept}");
    words(bolt, &format!("review decide {} withdraw --reason news-reporting", id(&theirs)));
    assert!(listed(bolt, "review list").is_empty());
    // A later dispute asks again.
    words(cyan, &format!("entry dispute {one} --reason mistake"));
    let again = wait_listed(acme, "review list", 1).remove(0);
    assert_eq!(id(&again), id(&own));
    words(acme, &format!("review decide {} retract --reason mistake", id(&again)));
    assert!(listed(acme, "review list").is_empty());

    // What of ours ends, or is due, within a week.
    words(acme, &format!("submit {} --label symbol --expires 3d --review 2d", item(2)));
    words(acme, &format!("submit {} --label symbol --expires 9d --review 8d", item(3)));
    let kinds: Vec<_> = wait_listed(acme, "review list", 2).iter().map(|r| r["kind"].clone()).collect();
    assert_eq!(kinds, ["expiring", "due"]);
    let due = listed(acme, "review list --kind due").remove(0);
    words(acme, &format!("review decide {} endorse --review 90d", id(&due)));
    assert!(listed(acme, "review list").is_empty());
    forum.agree();
}

#[test]
fn m11_what_a_certifier_allows_never_blocks_and_conflicts_go_to_people() {
    let forum = forum("CERTIFIER", 1);
    let [acme, bolt, cyan] = &forum.companies[..] else { panic!("three companies") };
    let (one, two) = (item(1), item(2));
    words(acme, &format!("submit {one} --label symbol --wait-peers 2"));
    words(bolt, &format!("entry endorse {one}"));
    verdict_is(&forum, &one, "BLOCK");

    let (why, fix) = refused(acme, &format!("entry allow {one} --expires 90d"), 4);
    assert!(why.contains("needs the role CERTIFIER; our company has FULL"), "{why}");
    assert!(fix.ends_with("staydown charter set-role acme --role FULL,CERTIFIER"), "{fix}");
    let (why, _) = refused(cyan, &format!("submit {two} --label symbol"), 4);
    assert!(why.contains("needs the role FULL or SMALL; our company has CERTIFIER"), "{why}");
    for line in [
        "entry allow @ --expires 401d",
        "entry allow @ --expires never",
        "entry allow @",
        "entry allow @ --no --expires 9d",
    ] {
        refused(cyan, &line.replace('@', &one), 2);
    }

    words(cyan, &format!("entry allow {one} --expires 400d --certificate 17"));
    words(cyan, &format!("entry allow {two} --expires 90d"));
    verdict_is(&forum, &one, "REVIEW");
    verdict_is(&forum, &two, "ALLOW");
    status_is(&forum, &one, "ALLOWED");
    forum.agree();
    for company in &forum.companies {
        assert_eq!(entry(company, &one)["allow_conflict"], true);
        let text = company.does(&["entry", "show", &one]).out;
        assert!(text.contains("certified by cyan") && text.contains("ALLOW of cyan: certificate 17"), "{text}");
    }
    // What was certified first blocks no more than what was certified later.
    words(acme, &format!("submit {two} --label symbol --wait-peers 2"));
    words(bolt, &format!("entry endorse {two}"));
    verdict_is(&forum, &two, "REVIEW");

    // Both sides see the conflict, until they have decided.
    let shown = wait_listed(acme, "review list --kind conflict", 2);
    let about = |reviews: &[Value]| {
        let wanted = |r: &&Value| r["entry"]["signal"]["value"] == one.split_once(':').unwrap().1;
        id(reviews.iter().find(wanted).unwrap())
    };
    words(acme, &format!("review decide {} withdraw --reason art-parody", about(&shown)));
    wait_listed(acme, "review list --kind conflict", 1);
    let theirs = wait_listed(cyan, "review list --kind conflict", 1).remove(0);
    words(cyan, &format!("review decide {} reject --reason mistake", id(&theirs)));
    verdict_is(&forum, &two, "BLOCK");
    words(cyan, &format!("entry allow {one} --no"));
    status_is(&forum, &one, "ACTIVE");
    forum.agree();
}

#[test]
fn m12_a_referral_alone_never_yields_a_block() {
    let forum = forum("REFERRAL", 1);
    let [acme, bolt, cyan] = &forum.companies[..] else { panic!("three companies") };
    let (one, two, three) = (item(1), item(2), item(3));
    let (why, fix) = refused(acme, &format!("referral open {one} --jurisdiction FR --deadline 12h"), 4);
    assert!(why.contains("needs the role REFERRAL") && fix.ends_with("--role REFERRAL"), "{why} {fix}");
    for line in [
        "--jurisdiction France --deadline 12h",
        "--jurisdiction FR --deadline soon",
        "--authority army --jurisdiction FR --deadline 9d",
    ] {
        refused(cyan, &format!("referral open {one} {line}"), 2);
    }

    words(cyan, &format!("referral open {one} {two} {three} --authority police --jurisdiction FR --deadline 12h"));
    for item in [&one, &two, &three] {
        verdict_is(&forum, item, "REVIEW");
        status_is(&forum, item, "REFERRED");
    }
    let text = bolt.does(&["entry", "show", &one]).out;
    assert!(text.contains("referred by cyan") && text.contains("authority police; jurisdiction FR"), "{text}");
    let open = wait_listed(bolt, "referral list --state open", 3);
    assert!(
        open.iter().all(|r| r["authority"] == "police" && r["jurisdiction"] == "FR" && r["took_ms"].as_u64() > Some(0))
    );
    assert!(listed(cyan, "review list").is_empty(), "a unit decides nothing");

    // A company stands behind one, disagrees with one; the unit closes two.
    let waiting = wait_listed(acme, "review list --kind referral", 3);
    assert!(waiting.iter().all(|r| r["deadline_ms"].as_u64() > Some(0) && r["by"][0] == "cyan"), "{waiting:?}");
    let of = |item: &str| {
        let value = item.split_once(':').unwrap().1;
        id(waiting.iter().find(|r| r["entry"]["signal"]["value"] == value).unwrap())
    };
    refused(acme, &format!("review decide {} endorse", of(&one)), 2);
    words(acme, &format!("review decide {} endorse --label symbol", of(&one)));
    words(acme, &format!("review decide {} reject --reason news-reporting", of(&two)));
    wait_listed(acme, "review list --kind referral", 1);
    wait_listed(bolt, "referral list --state CONFIRMED", 1);
    wait_listed(bolt, "review list --kind referral", 2);
    words(cyan, &format!("referral close {one} {two}"));

    // Every node counts the same, with the time taken.
    for company in &forum.companies {
        let confirmed = wait_listed(company, "referral list --state CONFIRMED", 1).remove(0);
        assert_eq!(confirmed["confirmed_by"], "acme");
        let took = confirmed["answered_ms"].as_u64().unwrap() - confirmed["opened_ms"].as_u64().unwrap();
        assert_eq!(confirmed["took_ms"], took);
        let rejected = wait_listed(company, "referral list --state REJECTED", 1).remove(0);
        assert_eq!(rejected["answered_ms"], rejected["closed_ms"]);
        wait_listed(company, "referral list --state OPEN", 1);
        matches(company, &two, false);
    }
    let text = acme.does(&["referral", "list"]).out;
    assert!(text.contains("CONFIRMED by acme after ") && text.contains("referred by cyan (police, FR)"), "{text}");
    verdict_is(&forum, &one, "REVIEW");
    verdict_is(&forum, &three, "REVIEW");
    words(bolt, &format!("entry endorse {one}"));
    verdict_is(&forum, &one, "BLOCK");
    forum.agree();
}

#[test]
fn m14_an_incident_labels_its_entries_in_the_urgent_lane_while_it_is_open() {
    let forum = forum("STEWARD", 1);
    let [acme, bolt, cyan] = &forum.companies[..] else { panic!("three companies") };
    for line in ["--level 4 --closes 31d", "--level 4 --closes never", "--level 5 --closes 2d", "--closes 2d"] {
        refused(cyan, &format!("incident open --label livestreamed-attack {line}"), 2);
    }
    let (_, fix) = refused(cyan, "incident open --label livestreamed-attak --level 4 --closes 2d", 2);
    assert_eq!(fix, "did you mean livestreamed-attack?");
    let opened = words(cyan, "incident open --label livestreamed-attack --level 4 --closes 2d --json").json();
    let attack = id(&opened);
    let seen = wait_listed(acme, "incident list", 1).remove(0);
    assert_eq!(
        (&seen["id"], &seen["open"], &seen["words"][0]["level"]),
        (&attack.as_str().into(), &true.into(), &4.into())
    );

    // What belongs to it goes in the urgent lane, and carries its label everywhere.
    let one = item(1);
    words(acme, &format!("submit {one} --label symbol --incident {attack}"));
    let lanes = acme.status()["heads"].clone();
    let lane = |head: &Value| head["member"] == "acme" && head["lane"] == "urgent" && head["seq"].as_u64() > Some(0);
    assert!(lanes.as_array().unwrap().iter().any(lane), "{lanes}");
    status_is(&forum, &one, "ACTIVE");
    let labels = |at: &Company| entry(at, &one)["labels"].clone();
    for company in &forum.companies {
        assert_eq!(labels(company), serde_json::json!(["livestreamed-attack", "symbol"]));
        let shown = entry(company, &one);
        assert_eq!(shown["incidents"][0], serde_json::json!({ "id": attack, "labels": ["livestreamed-attack"] }));
        assert_eq!(listed(company, "incident list")[0]["entries"], 1);
    }

    // Who opened it closes it; while another has it open too, it is open.
    let (why, _) = refused(bolt, &format!("incident close {attack}"), 4);
    assert!(why.contains("our company has not opened it"), "{why}");
    refused(bolt, "incident close 00112233445566778899aabbccddeeff", 3);
    refused(bolt, "incident close 00", 2);
    words(bolt, &format!("incident open --id {attack} --label credible-threat --level 3 --closes 12h"));
    wait_for("both have it open", || (listed(cyan, "incident list")[0]["words"][1]["open"] == true).then_some(()));
    let told = words(cyan, &format!("incident close {attack}"));
    assert!(told.err.contains("it stays open by the word of bolt"), "{told:?}");
    for company in &forum.companies {
        wait_for("its label is bolt's", || {
            (labels(company) == serde_json::json!(["credible-threat", "symbol"])
                || labels(company) == serde_json::json!(["symbol", "credible-threat"]))
            .then_some(())
        });
    }
    words(bolt, &format!("incident close {attack}"));
    for company in &forum.companies {
        wait_for("its label is gone", || (labels(company) == serde_json::json!(["symbol"])).then_some(()));
        assert_eq!(listed(company, "incident list")[0]["open"], false);
        matches(company, &one, true);
    }
    forum.agree();
}

#[test]
fn m17_certified_resources_come_with_a_match_of_their_topic_and_language() {
    let forum = forum("CERTIFIER", 2);
    let [acme, bolt, cyan] = &forum.companies[..] else { panic!("three companies") };
    let (one, two) = (item(1), item(2));
    words(acme, &format!("submit {one} --label recruitment --language fr-BE --wait-peers 2"));
    words(acme, &format!("submit {two} --label symbol --language de --wait-peers 2"));
    let (why, _) = refused(bolt, "resource add https://example.org/voix --label recruitment", 4);
    assert!(why.contains("needs the role CERTIFIER"), "{why}");
    for url in ["http://example.org", "https://example.org/?q=a", "https://me@example.org"] {
        refused(cyan, &format!("resource add {url} --label recruitment"), 2);
    }
    let (_, fix) = refused(cyan, "resource add https://example.org --label recrutment", 2);
    assert_eq!(fix, "did you mean recruitment?");
    words(cyan, "resource add https://example.org/voix --label recruitment --language fr --expires 90d");
    words(cyan, "resource add https://example.org/voces --label recruitment --language es");
    words(cyan, "resource add https://example.org/all --label recruitment");

    let urls = |at: &Company, item: &str| -> Vec<String> {
        let found = at.does(&["match", item, "--json"]).json();
        let offered = found["matches"][0]["entry"]["resources"].as_array().cloned().unwrap_or_default();
        offered.iter().map(|r| r["url"].as_str().unwrap().to_owned()).collect()
    };
    for company in &forum.companies {
        wait_listed(company, "resource list --label recruitment", 3);
        wait_listed(company, "resource list --language fr", 2);
        assert_eq!(urls(company, &one), ["https://example.org/all", "https://example.org/voix"]);
        assert!(urls(company, &two).is_empty());
        let text = company.does(&["match", &one]).out;
        assert!(text.contains("answered by https://example.org/voix (certified by cyan)"), "{text}");
    }
    words(cyan, "resource remove https://example.org/all");
    for company in &forum.companies {
        wait_for("it is taken back", || (urls(company, &one) == ["https://example.org/voix"]).then_some(()));
        wait_listed(company, "resource list --all", 3);
    }

    // Preserved copies and outcomes, told to all.
    words(acme, &format!("entry preserve {one} --until 90d"));
    words(bolt, &format!("entry outcome {one} removed"));
    for line in
        ["entry outcome @ burnt", "entry preserve @ --until 90d --contact telephone", "entry preserve @ --until 731d"]
    {
        refused(bolt, &line.replace('@', &one), 2);
    }
    for company in &forum.companies {
        wait_for("both are told", || {
            let shown = entry(company, &one);
            let done = shown["outcomes"][0]["result"] == "removed" && shown["outcomes"][0]["member"] == "bolt";
            (done && shown["preserved"][0]["contact"] == "legal-process").then_some(())
        });
        let text = company.does(&["entry", "show", &one]).out;
        assert!(text.contains("acme keeps a copy until ") && text.contains("outcome at bolt: removed"), "{text}");
    }
    forum.agree();
}

#[test]
fn m18_lists_queues_quorums_and_reports_are_cut_by_language_and_unknown_labels_are_refused_with_the_nearest() {
    let forum = forum("FULL", 1);
    let [acme, bolt, _] = &forum.companies[..] else { panic!("three companies") };
    words(acme, &format!("submit {} --label symbol --language pt-BR --wait-peers 2", item(1)));
    words(acme, &format!("submit {} --label symbol --language fr --wait-peers 2", item(2)));
    for (line, count) in [("--language pt", 1), ("--language pt-BR", 1), ("--language pt-PT", 0), ("--language FR", 1)]
    {
        wait_listed(bolt, &format!("list search {line}"), count);
    }
    for n in [1, 2] {
        words(bolt, &format!("entry dispute {} --reason mistake", item(n)));
    }
    wait_listed(acme, "review list", 2);
    let cut = wait_listed(acme, "review list --language pt", 1).remove(0);
    assert_eq!(cut["entry"]["languages"], serde_json::json!(["pt-BR"]));
    assert!(listed(acme, "review list --language de").is_empty());

    // A company that reads French asks for fewer others there; the report counts by language.
    let rule = |name, terms| format!("[[rule]]\nname = \"{name}\"\nverdict = \"BLOCK\"\n{terms}\ngroups_min =");
    let policy = format!("{} 1\n{} 2\n", rule("French", "languages = [\"fr\"]"), rule("any language", ""));
    fs::write(bolt.data.join("policy.toml"), policy).unwrap();
    bolt.signal("HUP");
    let answer = |n| bolt.does(&["match", &item(n), "--json"]).json();
    wait_for("French is blocked", || (answer(2)["rule"] == "French").then_some(()));
    assert_eq!((&answer(2)["verdict"], &answer(1)["verdict"]), (&"BLOCK".into(), &"REVIEW".into()));
    let today = date(clock::now());
    let report = words(bolt, &format!("report --from {today} --to now --open --json")).json();
    let counted = report["entries"]["by_language"].as_array().unwrap();
    let count = |tag: &str| counted.iter().find(|row| row["name"] == tag).map(|row| row["new"].as_u64().unwrap());
    assert_eq!((count("fr"), count("pt-BR"), count("de")), (Some(1), Some(1), None), "{counted:?}");

    // What a level-1 forum cannot say names the level, and what the taxonomy does not know its nearest name.
    let (why, fix) = refused(acme, &format!("entry preserve {} --until 9d", item(1)), 4);
    assert!(why.contains("needs level 2") && fix.contains("charter set-semantics 2"), "{why}: {fix}");
    let (why, fix) = refused(acme, &format!("submit {} --label simbol", item(3)), 2);
    assert!(why.contains("\"simbol\"") && fix == "did you mean symbol?", "{why}: {fix}");
    forum.agree();
}
