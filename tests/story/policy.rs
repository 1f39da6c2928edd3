//! A company's own policy, with real nodes: corroboration, referral, white list, reload, shadow; and without a node,
//! checks and cases.

use std::fs;

use serde_json::Value;
use staydown::replica::ids::{Class, TimeMs};
use staydown::replica::own::Answer;
use staydown::replica::signal::{self, Alg};
use staydown::replica::{proto, record};
use staydown::{clock, engine, node};

use crate::world::{Company, Forum, hash, program, run, wait_for};

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

/// The roles of cyan from now on, everywhere.
#[track_caller]
fn set_role(forum: &Forum, version: u64, role: &str) {
    let file = forum.path(&format!("charter-{version}.sdc"));
    forum.companies[0].does(&["charter", "set-role", "cyan", "--role", role, "-o", &file]);
    for founder in ["acme", "bolt"] {
        run(&["charter", "sign", &file, "--key", &forum.path(&format!("founder-{founder}.pem"))]).ends_with(0);
    }
    forum.companies[0].does(&["charter", "apply", &file]);
    for company in &forum.companies {
        wait_for("the charter arrives", || (company.status()["charter_version"] == version).then_some(()));
    }
}

/// Puts a record of a kind that no command makes into the outbox of a company's node, which signs it when it is back.
fn queue(company: &mut Company, record: bytes::Bytes) {
    company.stop();
    let (settings, invitation) = node::identity(&company.data).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let handle = tokio::runtime::Handle::current();
        let (engine, _, thread) =
            engine::start(&company.data, settings, invitation.forum, invitation.charters, handle).unwrap();
        let answer = engine.submit(Class::Normal, vec![record]).await.unwrap();
        assert!(matches!(answer, Answer::Queued), "{answer:?}");
        engine.stop().await;
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
    });
    company.start(&["run"]);
    company.ready(2);
}

fn subject(n: u64) -> proto::Subject {
    signal::parse(Alg::Sha256.name(), &hash(n)).unwrap().to_proto()
}

const BLOCK_ALL: &str = "[[rule]]\nname = \"everything\"\nverdict = \"BLOCK\"\n";
const ALLOW_ALL: &str = "[[rule]]\nname = \"nothing here is for us\"\nverdict = \"ALLOW\"\n";

fn write(at: &Company, policy: &str) {
    fs::write(at.data.join("policy.toml"), policy).unwrap();
    at.signal("HUP");
}

/// M10, M11, M12.
#[test]
fn a_company_blocks_what_two_stand_behind_and_never_what_is_certified_or_only_referred() {
    let mut forum = Forum::found(3);
    forum.join();

    // One company: REVIEW, and each rule says why. A second one of another jurisdiction: BLOCK.
    forum.companies[0].does(&["submit", &value(1), "--label", "symbol"]);
    let answer = expect(&forum.companies[1], 1, "REVIEW");
    assert_eq!(answer["rule"], "it matches, but not two companies of two jurisdictions stand behind it");
    let rules = answer["explained"].as_array().unwrap();
    assert_eq!((rules.len(), &rules[4]["decided"]), (5, &true.into()), "{rules:?}");
    let why = "1 company stands behind it with a jurisdiction of its own, 2 asked for";
    assert_eq!((&rules[3]["why"], &rules[3]["decided"]), (&why.into(), &false.into()));
    forum.companies[1].does(&["entry", "endorse", &value(1)]);
    let answer = expect(&forum.companies[0], 1, "BLOCK");
    assert_eq!(answer["rule"], "two companies of two jurisdictions stand behind it and nobody disputes it");
    assert_eq!(answer["explained"][3]["why"], "all that it asks for holds; behind it stand Acme, Bolt");
    let text = forum.companies[0].does(&["match", &value(1), "--explain"]).out;
    assert!(text.contains("decides  BLOCK   two companies of two jurisdictions"), "{text}");

    // An authority refers: REVIEW, and a policy that blocks whatever matches changes nothing about that.
    set_role(&forum, 2, "REFERRAL");
    let referral = proto::Referral { subject: Some(subject(2)), open: true, ..Default::default() };
    queue(&mut forum.companies[2], record::encode(proto::Kind::Referral, clock::random(), &referral));
    expect(&forum.companies[0], 2, "REVIEW");
    write(&forum.companies[0], BLOCK_ALL);
    let answer = wait_for("the policy is read", || {
        Some(asked(&forum.companies[0], 2)).filter(|answer| answer["rule"] == "everything")
    });
    assert_eq!(answer["verdict"], "REVIEW", "{answer}");
    assert!(answer["lowered"].as_str().unwrap().contains("a referral alone never blocks"), "{answer}");
    expect(&forum.companies[0], 1, "BLOCK");

    // A certifier allows: REVIEW everywhere, whatever the policy.
    set_role(&forum, 3, "CERTIFIER");
    let expires_ms = clock::now().plus(TimeMs::DAY_MS).0;
    let allow = proto::Allow { subject: Some(subject(1)), yes: true, expires_ms, ..Default::default() };
    queue(&mut forum.companies[2], record::encode(proto::Kind::Allow, clock::random(), &allow));
    let answer = expect(&forum.companies[0], 1, "REVIEW");
    assert!(answer["lowered"].as_str().unwrap().contains("a certifier allows"), "{answer}");
    let answer = expect(&forum.companies[1], 1, "REVIEW");
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
