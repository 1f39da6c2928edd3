//! A company's own policy, with real nodes: corroboration, referral, white list, reload, shadow; and without a node,
//! checks and cases.

use std::fs;

use crate::world::{Company, Forum, hash, program, run, wait_for};
use serde_json::Value;

fn value(n: u64) -> String {
    format!("sha256:{}", hash(n))
}

/// What a lookup answers.
#[track_caller]
fn asked(at: &Company, n: u64) -> Value {
    let ran = at.run(&["match", &value(n), "--explain", "--json"]);
    assert!(matches!(ran.code, Some(0 | 3)), "{ran:?}");
    ran.json()
}

/// Waits for a verdict, and returns the answer that has it.
#[track_caller]
fn expect(at: &Company, n: u64, verdict: &str) -> Value {
    wait_for(&format!("{} answers {verdict}", at.name), || {
        let answer = asked(at, n);
        (answer["verdict"] == verdict).then_some(answer)
    })
}

/// A change to what the charter says of a company, in force everywhere.
#[track_caller]
fn govern(forum: &Forum, version: u64, change: &[&str]) {
    let file = forum.path(&format!("charter-{version}.sdc"));
    forum.companies[0].does(&[&["charter"], change, &["-o", &file]].concat());
    for founder in ["acme", "bolt"] {
        run(&["charter", "sign", &file, "--key", &forum.path(&format!("founder-{founder}.pem"))]).ends_with(0);
    }
    forum.companies[0].does(&["charter", "apply", &file]);
    for company in &forum.companies {
        wait_for("the charter arrives", || (company.status()["charter_version"] == version).then_some(()));
    }
}

const BLOCK_ALL: &str = "[[rule]]\nname = \"everything\"\nverdict = \"BLOCK\"\n";
const ALLOW_ALL: &str = "[[rule]]\nname = \"nothing here is for us\"\nverdict = \"ALLOW\"\n";

fn write(at: &Company, policy: &str) {
    fs::write(at.data.join("policy.toml"), policy).unwrap();
    at.signal("HUP");
}

#[test]
fn m10_two_companies_of_two_jurisdictions_block_and_those_of_one_owner_count_once() {
    let mut forum = Forum::found(3);
    forum.join();
    // cyan comes to be owned by Acme.
    govern(&forum, 2, &["set-member", "cyan", "--group", "Acme", "--jurisdiction", "DE"]);
    let [acme, bolt, cyan] = &forum.companies[..] else { panic!("three companies") };
    let why = |answer: &Value| answer["explained"][3]["why"].as_str().unwrap().to_owned();

    acme.does(&["submit", &value(1), "--label", "symbol"]);
    let answer = expect(bolt, 1, "REVIEW");
    assert_eq!(answer["rule"], "it matches, but not two companies of two jurisdictions stand behind it");
    let rules = answer["explained"].as_array().unwrap();
    assert_eq!(
        (rules.len(), &rules[4]["decided"], &rules[3]["decided"]),
        (5, &true.into(), &false.into()),
        "{rules:?}"
    );
    assert_eq!(why(&answer), "1 company stands behind it with a jurisdiction of its own, 2 asked for");

    // Of one owner: two companies, two jurisdictions, one voice.
    wait_for("it arrives", || (cyan.run(&["match", &value(1)]).code == Some(0)).then_some(()));
    cyan.does(&["entry", "endorse", &value(1)]);
    let both = |answer: &Value| answer["matches"][0]["entry"]["said"].as_array().unwrap().len() == 2;
    let answer = wait_for("both words arrive", || Some(asked(bolt, 1)).filter(both));
    assert_eq!(answer["verdict"], "REVIEW");
    assert_eq!(why(&answer), "1 company stands behind it with a jurisdiction of its own, 2 asked for");

    bolt.does(&["entry", "endorse", &value(1)]);
    for company in &forum.companies {
        let answer = expect(company, 1, "BLOCK");
        assert_eq!(answer["rule"], "two companies of two jurisdictions stand behind it and nobody disputes it");
        assert_eq!(why(&answer), "all that it asks for holds; behind it stand Acme, Bolt");
    }
    let text = acme.does(&["match", &value(1), "--explain"]).out;
    assert!(text.contains("decides  BLOCK   two companies of two jurisdictions"), "{text}");

    // It is one line of a company's own policy: acme wants three, and the others go on.
    let three = in_force(acme).replace("jurisdictions_min = 2", "jurisdictions_min = 3");
    write(acme, &three);
    expect(acme, 1, "REVIEW");
    expect(bolt, 1, "BLOCK");
}

fn in_force(at: &Company) -> String {
    at.does(&["policy", "show"]).out
}

#[test]
fn no_policy_blocks_what_is_certified_or_only_referred() {
    let mut forum = Forum::found(3);
    forum.join();
    let [acme, bolt, cyan] = &forum.companies[..] else { panic!("three companies") };
    acme.does(&["submit", &value(1), "--label", "symbol"]);
    wait_for("it arrives", || (bolt.run(&["match", &value(1)]).code == Some(0)).then_some(()));
    bolt.does(&["entry", "endorse", &value(1)]);
    expect(acme, 1, "BLOCK");

    // An authority refers: REVIEW, and a policy that blocks whatever matches changes nothing about that.
    govern(&forum, 2, &["set-role", "cyan", "--role", "REFERRAL"]);
    cyan.does(&["referral", "open", &value(2), "--jurisdiction", "FR", "--deadline", "never"]);
    expect(acme, 2, "REVIEW");
    write(acme, BLOCK_ALL);
    let answer =
        wait_for("the policy is read", || Some(asked(acme, 2)).filter(|answer| answer["rule"] == "everything"));
    assert_eq!(answer["verdict"], "REVIEW", "{answer}");
    assert!(answer["lowered"].as_str().unwrap().contains("a referral alone never blocks"), "{answer}");
    expect(acme, 1, "BLOCK");

    // A certifier allows: REVIEW everywhere, whatever the policy.
    govern(&forum, 3, &["set-role", "cyan", "--role", "CERTIFIER"]);
    cyan.does(&["entry", "allow", &value(1), "--expires", "1d"]);
    let answer = expect(acme, 1, "REVIEW");
    assert!(answer["lowered"].as_str().unwrap().contains("a certifier allows"), "{answer}");
    let answer = expect(bolt, 1, "REVIEW");
    assert_eq!((&answer["rule"], answer.get("lowered")), (&"certified and listed at once: people decide".into(), None));
}

#[test]
fn a_policy_is_read_again_on_a_signal_and_a_bad_one_changes_nothing_but_the_health() {
    let mut forum = Forum::found(1);
    forum.join();
    let acme = &mut forum.companies[0];
    acme.does(&["submit", &value(1), "--label", "symbol"]);
    expect(acme, 1, "REVIEW");
    write(acme, ALLOW_ALL);
    assert_eq!(expect(acme, 1, "ALLOW")["rule"], "nothing here is for us");
    let shown = acme.does(&["policy", "show", "--json"]).json();
    assert_eq!((&shown["in_force"], &shown["text"]), (&true.into(), &ALLOW_ALL.into()));
    assert!(shown["counts"][1]["allow"].as_u64().unwrap() >= 1, "{shown}");

    write(acme, "[[rule]]\nname = \"x\"\nverdict = \"STOP\"\n");
    let reasons = wait_for("health says so", || {
        let reasons = acme.status()["health_reasons"].to_string();
        reasons.contains("the policy file is not in force").then_some(reasons)
    });
    assert!(reasons.contains("policy.toml, line 3: verdict has") && reasons.contains("STOP"), "{reasons}");
    assert_eq!(acme.status()["health"], "YELLOW", "{reasons}");
    assert!(acme.log().contains("the policy file is not taken into use"), "{}", acme.log());
    assert_eq!(asked(acme, 1)["verdict"], "ALLOW", "the one before stays");
    assert!(acme.does(&["policy", "show"]).err.contains("is refused: "));
    acme.run(&["policy", "check"]).ends_with(65);
    write(acme, BLOCK_ALL);
    expect(acme, 1, "BLOCK");
    assert!(!acme.status()["health_reasons"].to_string().contains("policy"));

    // Shadow: computed, counted, answered ALLOW.
    acme.stop();
    let settings = fs::read_to_string(acme.data.join("staydown.toml")).unwrap();
    fs::write(acme.data.join("staydown.toml"), format!("{settings}[policy]\nshadow = true\n")).unwrap();
    acme.start(&["run"]);
    acme.ready(0);
    let answer = asked(acme, 1);
    assert_eq!((&answer["verdict"], &answer["shadow_verdict"]), (&"ALLOW".into(), &"BLOCK".into()), "{answer}");
    assert!(acme.does(&["match", &value(1)]).out.contains("shadow mode: the verdict would be BLOCK"));
    let shown = acme.does(&["policy", "show", "--json"]).json();
    assert_eq!((&shown["shadow"], &shown["counts"][1]["block"]), (&true.into(), &2.into()), "{shown}");

    // With a bad file a node does not start.
    acme.stop();
    fs::write(acme.data.join("policy.toml"), "[[rule]]\nname = \"x\"\nverdit = \"BLOCK\"\n").unwrap();
    let told = acme.run(&["run"]).ends_with(78).err;
    let expected = "line 3: error: there is no \"verdit\" in a rule; did you mean \"verdict\"?";
    assert!(told.contains("policy.toml") && told.contains("fix: staydown policy check"), "{told}");
    let checked = acme.run(&["policy", "check"]).ends_with(65);
    assert!(checked.out.contains(expected), "{checked:?}");
}

#[test]
fn a_policy_is_checked_and_tried_on_cases_without_a_node() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (policy, cases) = (at("policy.toml"), at("cases.toml"));
    let at_home =
        |arguments: &[&str]| crate::world::Ran::of(program().arg("--data").arg(folder.path()).args(arguments), b"");
    let text = at_home(&["policy", "show"]).ends_with(0);
    assert!(text.err.contains("Not in force") && text.out == at_home(&["policy", "show", "--built-in"]).out);
    fs::write(&policy, &text.out).unwrap();
    at_home(&["policy", "check", &policy]).ends_with(0);

    let written = r#"
[company]
acme = { jurisdictions = ["FR"] }
bolt = { jurisdictions = ["GB"] }
[[case]]
name = "two companies"
verdict = "BLOCK"
entry = [{ supported_by = ["acme"] }, { type = "pdq", distance = 12, supported_by = ["bolt"] }]
[[case]]
name = "one company"
verdict = "REVIEW"
rule = "it matches, but not two companies of two jurisdictions stand behind it"
entry = [{ supported_by = ["acme"] }]
[[case]]
name = "nothing"
verdict = "ALLOW"
"#;
    fs::write(&cases, written).unwrap();
    let told = at_home(&["policy", "test", &cases]).ends_with(0);
    assert!(told.err.contains("3 of 3 cases hold"), "{told:?}");
    fs::write(&cases, written.replace("\"REVIEW\"", "\"BLOCK\"")).unwrap();
    let told = at_home(&["policy", "test", &cases, "--policy", &policy]).ends_with(1);
    for expected in ["FAILED  one company (line 9)\n  - BLOCK ", "  + REVIEW  it matches, but", "2 asked for"] {
        assert!(told.out.contains(expected), "{expected}: {told:?}");
    }
    let told = at_home(&["policy", "test", &cases, "--json"]).ends_with(1).json();
    assert_eq!((&told["held"], &told["failed"][0]["verdict"]), (&2.into(), &"REVIEW".into()), "{told}");

    fs::write(&policy, "[[rule]]\nname = \"x\"\nverdict = \"BLOCK\"\ncertified = true\ndistanc_max = 3\n").unwrap();
    let told = at_home(&["policy", "check", &policy, "--json"]).ends_with(65).json();
    let lines: Vec<_> = told["errors"].as_array().unwrap().iter().map(|e| e["line"].clone()).collect();
    assert_eq!(lines, [1, 5], "{told}");
    at_home(&["policy", "test", &cases]).ends_with(65);
    fs::write(&policy, format!("{BLOCK_ALL}[[rule]]\nname = \"y\"\nverdict = \"ALLOW\"\nlabels_any = [\"symbl\"]\n"))
        .unwrap();
    let told = at_home(&["policy", "check"]).ends_with(0);
    assert!(told.out.contains("line 7: warning: no taxonomy here has the label \"symbl\""), "{told:?}");
    assert!(told.out.contains("line 4: warning: the rule \"y\" never fires"), "{told:?}");
}
