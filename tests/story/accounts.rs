//! Accounts with real nodes: off until the founders allow them, pseudonyms only, never enough for a block, always with an
//! end; a pepper that changes, a company that comes later, a seal key that changes.

use std::fs;
use std::path::Path;

use serde_json::Value;
use staydown::clock;

use crate::drills::{cause, draw_up, enact, item, sign, version_is};
use crate::world::{Company, Forum, Ran, run, wait_for};

const TWO: &[&str] = &["acme", "bolt"];
/// Nobody's: what no disk and no log may hold.
const SECRET: &str = "zq-secret-4711";
const CLEAR: &str = "example-video:zq-secret-4711";

/// acme (FR) and bolt (GB), both FULL, both up.
fn two() -> Forum {
    let mut forum = Forum::found(2);
    forum.join();
    forum
}

/// Level 3, and accounts, in one charter.
#[track_caller]
fn allow_accounts(forum: &Forum) -> String {
    let file = draw_up(forum, 0, "charter-2.sdc", &["set-semantics", "3"]);
    let told = forum.companies[0].does(&["charter", "set-accounts", "on", "--into", &file]).err;
    sign(forum, &file, TWO);
    forum.companies[0].does(&["charter", "apply", &file]);
    forum.companies.iter().for_each(|company| version_is(company, 2));
    told
}

#[track_caller]
fn asked(at: &Company, arguments: &[&str]) -> Option<Value> {
    let ran = at.run(&[&["match"], arguments, &["--json"]].concat());
    assert!(matches!(ran.code, Some(0 | 3)), "{ran:?}");
    (ran.code == Some(0)).then(|| ran.json())
}

/// Waits until a lookup there matches, and returns its answer.
#[track_caller]
fn found(at: &Company, arguments: &[&str]) -> Value {
    wait_for(&format!("{arguments:?} matches at {}", at.name), || asked(at, arguments))
}

/// Waits until a lookup there gives `verdict`.
#[track_caller]
fn verdict(at: &Company, arguments: &[&str], verdict: &str) -> Value {
    wait_for(&format!("{arguments:?} gives {verdict} at {}", at.name), || {
        asked(at, arguments).filter(|answer| answer["verdict"] == verdict)
    })
}

/// How a command is refused: its cause and its cure.
#[track_caller]
fn refused(at: &Company, arguments: &[&str], code: i32) -> (String, String) {
    let ran = at.run(&[arguments, &["--json"]].concat()).ends_with(code);
    (cause(&ran), ran.json()["error"]["fix"].as_str().unwrap_or_default().to_owned())
}

/// The numbers of the peppers of the matches, in the order of the answer.
fn peppers(answer: &Value) -> Vec<String> {
    let matches = answer["matches"].as_array().unwrap().iter();
    let mut peppers: Vec<_> = matches
        .map(|found| {
            let value = found["entry"]["signal"]["value"].as_str().unwrap();
            value.split(':').next().unwrap().to_owned()
        })
        .collect();
    peppers.sort();
    peppers
}

/// Whether any file below `folder` has `text` in it.
fn holds(folder: &Path, text: &str) -> Option<String> {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let inside = match path.is_dir() {
            true => holds(&path, text),
            false => {
                let bytes = fs::read(&path).unwrap_or_default(); // a socket is no file
                bytes.windows(text.len()).any(|w| w == text.as_bytes()).then(|| path.display().to_string())
            }
        };
        if inside.is_some() {
            return inside;
        }
    }
    None
}

#[test]
fn m6_accounts_are_listed_with_permission_and_an_end_and_never_block_alone() {
    let forum = two();
    let [acme, bolt] = &forum.companies[..] else { panic!("two companies") };
    let submit = ["submit", "--account", CLEAR, "--label", "recruitment", "--expires", "90d"];

    // Off by default: refused with the cure, at the node and in the charter.
    for command in [&submit[..], &["match", "--account", CLEAR], &["entry", "show", "--account", CLEAR]] {
        let (why, fix) = refused(acme, command, 4);
        assert!(why.contains("accounts are off in this forum: charter 1 has no pepper"), "{why}");
        assert!(fix.contains("set-semantics 3, then staydown charter set-accounts on"), "{fix}");
    }
    let (why, fix) = refused(acme, &["charter", "set-accounts", "on", "-o", &forum.path("early.sdc")], 4);
    assert!(why.contains("level 1; accounts need level 3") && fix.contains("set-semantics 3"), "{why}: {fix}");
    let told = allow_accounts(&forum);
    for expected in ["~ accounts: may be listed from now on", "+ pepper 1: sealed to acme, bolt", "can test whether"] {
        assert!(told.contains(expected) || told.contains(&expected.replace("acme, bolt", "bolt, acme")), "{told}");
    }

    // With an end, and within the forum's time.
    let (why, fix) = refused(acme, &["submit", "--account", CLEAR, "--label", "recruitment"], 2);
    assert!(why.contains("--expires is missing") && fix == "--expires 90d", "{why}: {fix}");
    let too_long = ["submit", "--account", CLEAR, "--label", "recruitment", "--expires", "181d"];
    assert!(refused(acme, &too_long, 2).0.contains("within 180 days"));
    acme.does(&submit);
    // Said twice under one key of the submitter's it is said once, though what is signed is another key.
    let (until, key) = ((clock::now().0 + 30 * 86_400_000).to_string(), "5a".repeat(16));
    let keyed = [
        "submit",
        "--account",
        "example-video:twice",
        "--label",
        "recruitment",
        "--expires",
        &until,
        "--client-key",
        &key,
    ];
    let [first, again] = [acme.does(&keyed).out, acme.does(&keyed).out];
    assert_eq!(first, again);

    // Another company finds it by what the platform calls it, however it is typed, and sees who says so and whose it is.
    let answer = found(bolt, &["--account", " EXAMPLE-Video: zq-secret-4711 "]);
    let entry = &answer["matches"][0]["entry"];
    assert_eq!((peppers(&answer), &entry["labels"][0]), (vec!["1".to_owned()], &"recruitment".into()), "{answer}");
    assert_eq!((&entry["said"][0]["member"], &entry["said"][0]["what"]), (&"acme".into(), &"SUBMIT".into()));
    assert_eq!(asked(bolt, &["--account", "example-video:ZQ-secret-4711"]), None, "case is kept: another account");
    assert_eq!(asked(bolt, &["--account", "example-chat:zq-secret-4711"]), None);
    let shown = bolt.does(&["entry", "show", "--account", CLEAR, "--json"]).json();
    assert_eq!(shown["status"], "ACTIVE", "{shown}");

    // Two companies of two jurisdictions stand behind it: of a file that would be a block.
    bolt.does(&["entry", "endorse", "--account", CLEAR, "--expires", "30d"]);
    let both = wait_for("two stand behind it", || {
        asked(acme, &["--account", CLEAR]).filter(|a| a["matches"][0]["entry"]["support_groups"] == 2)
    });
    assert_eq!(both["verdict"], "REVIEW", "{both}");
    assert!(both["lowered"].as_str().unwrap().contains("an account alone is never enough"), "{both}");

    // A file that one company knows is a review, with and without the account; one that both know is a block.
    let (one, known) = (item(1), item(2));
    acme.does(&["submit", &one, &known, "--label", "propaganda"]);
    found(bolt, &[&known]);
    bolt.does(&["entry", "endorse", &known]);
    for company in [acme, bolt] {
        verdict(company, &[&known, "--account", CLEAR], "BLOCK");
        let answer = verdict(company, &[&one, "--account", CLEAR], "REVIEW");
        assert_eq!(answer["matches"].as_array().unwrap().len(), 2, "{answer}");
    }
    // Whatever the file of a company says.
    fs::write(bolt.data.join("policy.toml"), "[[rule]]\nname = \"everything\"\nverdict = \"BLOCK\"\n").unwrap();
    bolt.signal("HUP");
    verdict(bolt, &[&one], "BLOCK");
    verdict(bolt, &["--account", CLEAR], "REVIEW");

    // Its end comes by itself, everywhere; and a person is told before.
    let soon = clock::now().0 + 15_000;
    acme.does(&[
        "submit",
        "--account",
        "example-video:brief",
        "--label",
        "recruitment",
        "--expires",
        &soon.to_string(),
    ]);
    found(bolt, &["--account", "example-video:brief"]);
    let waits = acme.does(&["review", "list", "--kind", "expiring", "--json"]).json_lines();
    assert_eq!((waits.len(), waits[0]["deadline_ms"].as_u64()), (1, Some(soon)), "{waits:?}");
    for company in [acme, bolt] {
        wait_for("it has ended", || asked(company, &["--account", "example-video:brief"]).is_none().then_some(()));
        assert!(clock::now().0 >= soon);
    }
    assert!(asked(acme, &["--account", CLEAR]).is_some());

    // Nobody's name is on any disk or in any log: pseudonyms, and nothing else.
    assert!(holds(forum.folder.path(), "[peer]").is_some(), "what is there is found");
    assert_eq!(holds(forum.folder.path(), SECRET), None);
    let pseudonym = shown["signal"]["value"].as_str().unwrap();
    assert!(asked(bolt, &[&format!("account:{pseudonym}")]).is_some(), "a pseudonym may be given as it is shown");
    acme.does(&["log", "verify"]);
    forum.agree();

    // The white list is for accounts, too: bolt disputes, and takes it back.
    bolt.does(&["entry", "dispute", "--account", CLEAR, "--reason", "mistake"]);
    bolt.does(&["entry", "withdraw", "--account", CLEAR]);
    acme.does(&["entry", "withdraw", "--account", CLEAR]);
    for company in [acme, bolt] {
        wait_for("it is withdrawn", || asked(company, &["--account", CLEAR]).is_none().then_some(()));
    }
}

#[test]
fn m6_a_pepper_changes_and_those_who_come_later_find_what_was_listed_before() {
    let mut forum = two();
    allow_accounts(&forum);
    let submit = |at: &Company, account: &str| {
        at.does(&["submit", "--account", account, "--label", "recruitment", "--expires", "90d"]);
    };
    let (older, both) = ("example-video:older", "example-video:both");
    [CLEAR, older, both].iter().for_each(|account| submit(&forum.companies[0], account));
    [CLEAR, older, both].iter().for_each(|account| drop(found(&forum.companies[1], &["--account", account])));

    // A new pepper: what was listed goes on matching, what is listed now is under the new one.
    enact(&forum, 0, 3, &["rotate-pepper"]);
    let shown = forum.companies[0].does(&["charter", "show"]).out;
    assert!(shown.contains("listed under pepper 2 for at most 180 days, those under 1 match"), "{shown}");
    forum.companies.iter().for_each(|company| version_is(company, 3));
    let bolt = &forum.companies[1];
    assert_eq!(peppers(&found(bolt, &["--account", CLEAR])), ["1"]);
    submit(bolt, "example-video:newer");
    assert_eq!(peppers(&found(&forum.companies[0], &["--account", "example-video:newer"])), ["2"]);
    submit(&forum.companies[0], CLEAR);
    submit(&forum.companies[0], both);
    let under = |account: &str, expected: &[&str]| {
        wait_for(&format!("{account} is listed under {expected:?}"), || {
            let answer = asked(&forum.companies[1], &["--account", account]);
            (answer.as_ref().map(peppers).unwrap_or_default() == expected).then_some(())
        });
    };
    under(CLEAR, &["1", "2"]);
    under(both, &["1", "2"]);

    // Support goes under the new one, though it is listed under the old; what takes back goes where the word stands.
    let shown = bolt.does(&["entry", "show", "--account", older, "--json"]).json();
    let pseudonym = format!("account:{}", shown["signal"]["value"].as_str().unwrap());
    let (why, fix) = refused(bolt, &["entry", "endorse", &pseudonym, "--expires", "30d"], 4);
    assert!(
        why.contains("is under pepper 1, expected pepper 2") && fix.contains("--account platform:id"),
        "{why}: {fix}"
    );
    bolt.does(&["entry", "endorse", "--account", older, "--expires", "30d"]);
    under(older, &["1", "2"]);
    forum.companies[0].does(&["entry", "withdraw", "--account", older]);
    under(older, &["2"]);
    forum.companies[0].does(&["entry", "withdraw", "--account", both]);
    under(both, &[]);

    // A fourth company is admitted at a member that has the peppers, and finds everything.
    let (charter, invitation) = (forum.path("charter-4.sdc"), forum.path("invite-4.sdi"));
    let mut delta = Company::new(forum.folder.path(), "delta");
    let request = delta.init(&["--forum", &forum.fingerprint.clone()], "Delta", "DE");
    let acme = &forum.companies[0];
    let told = acme.does(&["charter", "admit", request.to_str().unwrap(), "--role", "FULL", "-o", &charter]).err;
    assert!(
        told.contains("pepper 1 is sealed to delta, too") && told.contains("pepper 2 is sealed to delta"),
        "{told}"
    );
    sign(&forum, &charter, TWO);
    acme.does(&["charter", "apply", &charter]);
    acme.does(&["charter", "invite", "--out", &invitation]);
    delta.start(&["join", &invitation, "--forum", &forum.fingerprint]);
    delta.ready(2);
    assert_eq!(peppers(&found(&delta, &["--account", CLEAR])), ["1", "2"]);
    forum.companies.push(delta);

    // bolt changes its seal key, at its own node: the peppers are sealed to the new one, and both keys open until then.
    let change = forum.path("key-change.sdj");
    let bolt = &forum.companies[1];
    let before = bolt.does(&["key", "show", "--json"]).json();
    assert_eq!((&before["seal_key_listed"], &before["seal_key_next"]), (&true.into(), &false.into()), "{before}");
    bolt.does(&["key", "rotate", "--seal", "--out", &change]);
    found(bolt, &["--account", CLEAR]);
    let file = draw_up(&forum, 1, "charter-5.sdc", &["admit", &change]);
    let diff = run(&["charter", "show", &file, "--diff"]).ends_with(0).out;
    assert!(diff.contains("~ pepper 2: sealed to the new key of bolt") && diff.contains("bolt: seal key: "), "{diff}");
    sign(&forum, &file, TWO);
    forum.companies[0].does(&["charter", "apply", &file]);
    forum.companies.iter().for_each(|company| version_is(company, 5));
    assert_eq!(peppers(&found(&forum.companies[1], &["--account", CLEAR])), ["1", "2"]);

    // Without its key a node says what is missing, and goes on with everything else.
    let keys = forum.companies[1].data.join("keys");
    let (key, next, aside) = (keys.join("seal-key"), keys.join("seal-key.next"), forum.path("aside"));
    forum.companies[1].stop();
    fs::remove_file(&key).unwrap();
    fs::rename(&next, &aside).unwrap();
    forum.companies[1].start(&["run"]);
    forum.ready();
    let (why, fix) = refused(&forum.companies[1], &["match", "--account", CLEAR], 4);
    assert!(why.contains("opens with none of our seal keys") && fix.contains("seal-key back"), "{why}: {fix}");
    let status = forum.companies[1].status();
    assert!(status["health_reasons"].to_string().contains("accounts listed under pepper 2 are not found"), "{status}");
    fs::rename(&aside, &key).unwrap();
    found(&forum.companies[1], &["--account", CLEAR]);

    // Who leaves knows the pepper: the proposal says so, and the next pepper is not for it.
    let file = draw_up(&forum, 0, "charter-6.sdc", &["expel", "delta", "--void", "--reason", "other"]);
    let warned = run(&["charter", "show", &file, "--diff"]).ends_with(0).out;
    assert!(warned.contains("delta knows pepper 2 and can test guesses"), "{warned}");
    let told = forum.companies[0].does(&["charter", "rotate-pepper", "--into", &file]).err;
    assert!(told.contains("+ pepper 3: sealed to ") && !told.contains("knows pepper"), "{told}");
    sign(&forum, &file, TWO);
    forum.companies[0].does(&["charter", "apply", &file]);
    forum.companies[..2].iter().for_each(|company| version_is(company, 6));
    submit(&forum.companies[0], "example-video:newest");
    assert_eq!(peppers(&found(&forum.companies[1], &["--account", "example-video:newest"])), ["3"]);

    // An old pepper that is given up early takes what was listed under it with it; off is off.
    let dropped = draw_up(&forum, 0, "charter-7.sdc", &["drop-pepper", "1"]);
    let told = run(&["charter", "show", &dropped, "--diff"]).ends_with(0).out;
    assert!(told.contains("- pepper 1: what is listed under it counts no more"), "{told}");
    sign(&forum, &dropped, TWO);
    forum.companies[0].does(&["charter", "apply", &dropped]);
    forum.companies[..2].iter().for_each(|company| version_is(company, 7));
    wait_for("it is listed under the second only", || {
        asked(&forum.companies[1], &["--account", CLEAR]).filter(|answer| peppers(answer) == ["2"])
    });
    enact(&forum, 0, 8, &["set-accounts", "off"]);
    forum.companies[..2].iter().for_each(|company| version_is(company, 8));
    assert!(refused(&forum.companies[1], &["match", "--account", CLEAR], 4).0.contains("accounts are off"));
    assert_eq!(holds(forum.folder.path(), SECRET), None);
    let told: Ran = forum.companies[1].run(&["list", "search", "--type", "account", "--all", "--json"]);
    assert!(!told.out.contains("\"ACTIVE\""), "{told:?}");
}
