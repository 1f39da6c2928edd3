//! Every condition holds and does not hold; what no file can switch off; the default policy against the rules that
//! earlier releases had in code; and mistakes, with their lines.

use super::cases::Cases;
use super::*;
use crate::replica::block::Header;
use crate::replica::charter::{Charter, Member, Roles};
use crate::replica::ids::{Class, TimeMs};
use crate::replica::record::Stance;
use crate::replica::testing::{
    CERTIFIER, FULL, REFERRAL, SMALL, START, TestForum, allow, opinion, opinion_with, referral, subject,
};
use crate::replica::view::{Entry, Status, View, Word};

/// acme and bolt in FR, cyan of acme's owner in DE, delta in DE, echo in FR and DE, fox nowhere; a small company, a
/// certifier, a referral unit.
const COMPANIES: &str = r#"
[company]
acme = { group = "A", jurisdictions = ["FR"] }
bolt = { jurisdictions = ["FR"] }
cyan = { group = "A", jurisdictions = ["DE"] }
delta = { jurisdictions = ["DE"] }
echo = { jurisdictions = ["FR", "DE"] }
fox = {}
small = { jurisdictions = ["DE"], roles = ["SMALL"] }
certifier = { jurisdictions = ["DE"], roles = ["CERTIFIER"] }
unit = { jurisdictions = ["DE"], roles = ["REFERRAL"] }
"#;

/// What `policy` makes of entries, each written as in a file of cases.
fn tried(policy: &Policy, entries: &[&str]) -> cases::Tried {
    let entries: Vec<_> = entries.iter().map(|entry| format!("{{ {entry} }}")).collect();
    let case = format!("[[case]]\nname = \"x\"\nverdict = \"ALLOW\"\nentry = [{}]\n", entries.join(", "));
    let cases = read_cases(&format!("{case}{COMPANIES}")).unwrap();
    cases.try_on(&cases.cases[0], policy)
}

fn read(text: &str) -> Result<Policy, Vec<Problem>> {
    Policy::parse(text, &Arc::new(Taxonomy::built_in()))
}

fn read_cases(text: &str) -> Result<Cases, Vec<Problem>> {
    Cases::parse(text, &Taxonomy::built_in())
}

fn parse(text: &str) -> Policy {
    read(text).unwrap_or_else(|problems| panic!("{text}: {problems:?}"))
}

/// Whether a rule with `condition` fires for these entries, and what is said of it.
fn fires(condition: &str, entries: &[&str]) -> (bool, String) {
    let policy = parse(&format!("[[rule]]\nname = \"r\"\nverdict = \"ALLOW\"\n{condition}\n"));
    let tried = tried(&policy, entries);
    (tried.decision.decider == Decider::Rule(0), tried.explained[0].why.clone())
}

#[test]
fn every_condition_holds_where_it_should_and_says_why_it_does_not() {
    let by = |who: &'static str, more: &str| format!("supported_by = [{who}], {more}");
    let acme = by("\"acme\"", "").trim_end_matches(", ").to_owned();
    let two = by("\"acme\", \"delta\"", "").trim_end_matches(", ").to_owned();
    let yes = "";
    let with = |more: &str| format!("{acme}, {more}");
    let cases: Vec<(&str, Vec<String>, &str)> = vec![
        ("status = [\"ACTIVE\"]", vec![acme.clone()], yes),
        ("status = [\"CONTESTED\", \"PROVISIONAL\"]", vec![acme.clone()], "no entry is CONTESTED or PROVISIONAL"),
        ("status = [\"CONTESTED\"]", vec![with("disputed_by = [\"bolt\", \"delta\"]")], yes),
        ("status = [\"PROVISIONAL\"]", vec![by("\"small\"", "distance = 0")], yes),
        ("status = [\"REFERRED\"]", vec!["referred_by = [\"unit\"]".into()], yes),
        ("status = [\"ALLOWED\"]", vec![with("certified_by = [\"certifier\"]")], yes),
        ("type = [\"pdq\", \"url\"]", vec![with("type = \"url\"")], yes),
        ("type = [\"pdq\"]", vec![acme.clone()], "no entry is of type pdq"),
        ("labels_any = [\"symbol\", \"other\"]", vec![with("labels = [\"other\", \"manifesto\"]")], yes),
        ("labels_any = [\"symbol\"]", vec![with("labels = [\"manifesto\"]")], "no entry has the label symbol"),
        ("labels_none = [\"symbol\"]", vec![acme.clone()], yes),
        (
            "labels_none = [\"symbol\"]",
            vec![with("labels = [\"symbol\", \"other\"]")],
            "every entry has the label symbol",
        ),
        ("labels_any = [\"label-777\"]", vec![with("labels = [\"label-777\"]")], yes),
        ("languages = [\"FR\"]", vec![with("languages = [\"de\", \"fr-CA\"]")], yes),
        ("languages = [\"fr\"]", vec![with("languages = [\"frr\"]")], "no entry is in fr"),
        ("languages = [\"fr-CA\"]", vec![with("languages = [\"fr\"]")], "no entry is in fr-CA"),
        ("distance_max = 10", vec![with("distance = 11"), with("distance = 10")], yes),
        ("distance_max = 10", vec![with("distance = 12"), with("distance = 11")], "11 bits away, at most 10"),
        ("incident = true", vec![acme.clone(), with("incident = true")], yes),
        ("incident = true", vec![acme.clone()], "no entry is of an open incident"),
        ("incident = false", vec![with("incident = true")], "every entry is of an open incident"),
        ("groups_min = 2", vec![two.clone()], yes),
        ("groups_min = 2", vec![acme.clone(), by("\"bolt\"", "distance = 3")], yes),
        ("groups_min = 2", vec![by("\"acme\", \"cyan\"", "distance = 0")], "1 company stands behind it, 2 asked for"),
        ("groups_min = 2", vec![by("\"acme\", \"small\"", "distance = 0")], "1 company stands"),
        ("groups_min = 1", vec!["referred_by = [\"unit\"]".into()], "no company stands behind it"),
        ("groups_min = 2\nsupporters = [\"FULL\", \"SMALL\"]", vec![by("\"acme\", \"small\"", "distance = 0")], yes),
        ("supporters = [\"SMALL\"]", vec![acme.clone()], "no company stands behind it, 1 asked for"),
        ("supporters = [\"SMALL\"]", vec![by("\"small\"", "distance = 0")], yes),
        ("jurisdictions_min = 2", vec![two.clone()], yes),
        ("jurisdictions_min = 2", vec![by("\"acme\", \"bolt\"", "distance = 0")], "1 company stands behind it with"),
        ("jurisdictions_min = 2", vec![by("\"acme\", \"cyan\"", "distance = 0")], "1 company stands behind it with"),
        ("jurisdictions_min = 2", vec![by("\"acme\", \"fox\"", "distance = 0")], "1 company stands behind it with"),
        ("jurisdictions_min = 2", vec![by("\"bolt\", \"echo\"", "distance = 0")], yes),
        ("jurisdictions_min = 3", vec![by("\"bolt\", \"echo\", \"delta\"", "distance = 0")], "2 companies stand"),
        ("disputes = \"none\"", vec![acme.clone()], yes),
        (
            "disputes = \"none\"",
            vec![acme.clone(), with("disputed_by = [\"small\"]")],
            "1 dispute it, none is asked for",
        ),
        ("disputes = \"any\"", vec![with("disputed_by = [\"bolt\"]")], yes),
        ("disputes = \"any\"", vec![acme.clone()], "0 dispute it, at least 1 asked for"),
        ("disputes = 2", vec![with("disputed_by = [\"bolt\"]"), with("disputed_by = [\"delta\"]")], yes),
        ("disputes = 2", vec![with("disputed_by = [\"acme\", \"cyan\"]")], "1 dispute it, at least 2 asked for"),
        ("certified = true", vec![acme.clone(), "certified_by = [\"certifier\"]".into()], yes),
        ("certified = true", vec![acme.clone()], "nothing of it is certified"),
        ("certified = false", vec!["certified_by = [\"certifier\"]".into()], "it is certified"),
        ("listed = false", vec!["certified_by = [\"certifier\"]".into()], yes),
        ("listed = false", vec![with("certified_by = [\"certifier\"]")], "somebody lists it"),
        ("listed = true", vec!["certified_by = [\"certifier\"]".into()], "nobody lists it"),
        ("referral_only = true", vec!["referred_by = [\"unit\"]".into()], yes),
        ("referral_only = true", vec!["referred_by = [\"unit\"]".into(), acme.clone()], "more than a referral"),
        ("referral_only = false", vec!["referred_by = [\"unit\"]".into()], "only a referral speaks for it"),
        // One entry must fit all of what is asked of an entry.
        (
            "distance_max = 5\nlabels_any = [\"symbol\"]",
            vec![with("distance = 6, labels = [\"symbol\"]"), acme.clone()],
            "6 bits away",
        ),
    ];
    for (condition, entries, expected) in cases {
        let entries: Vec<_> = entries.iter().map(String::as_str).collect();
        let (fired, why) = fires(condition, &entries);
        assert_eq!(fired, expected.is_empty(), "{condition}, {entries:?}: {why}");
        assert!(why.contains(expected), "{condition}, {entries:?}: {why}");
    }
}

/// M10: the words of an entry that a rule does not look at are no support for it, but a dispute there protects.
#[test]
fn support_counts_where_the_rule_looks_and_a_dispute_wherever_it_was_said() {
    let symbol = "labels_any = [\"symbol\"]\ngroups_min = 2";
    let far = "supported_by = [\"delta\"], labels = [\"other\"]";
    let near = "supported_by = [\"acme\"], labels = [\"symbol\"]";
    assert!(!fires(symbol, &[near, far]).0);
    let (fired, why) = fires("labels_any = [\"symbol\"]\ngroups_min = 1", &[near, far]);
    assert!(fired && why.ends_with("behind it stand A"), "{why}");
    let disputed = "supported_by = [\"delta\"], labels = [\"other\"], disputed_by = [\"fox\"]";
    assert!(!fires("labels_any = [\"symbol\"]\ndisputes = \"none\"", &[near, disputed]).0);
}

/// M6, M11, M12: whatever the file says.
#[test]
fn no_file_blocks_what_is_certified_only_referred_only_an_account_or_too_much_to_look_at() {
    let policy = parse("[[rule]]\nname = \"all\"\nverdict = \"BLOCK\"\n");
    let listed = "supported_by = [\"acme\", \"delta\"]";
    let account = "type = \"account\", supported_by = [\"acme\", \"delta\"]";
    let cases: &[(&[&str], Option<Floor>)] = &[
        (&[listed], None),
        (&["supported_by = [\"small\"]"], None),
        (&["supported_by = [\"acme\"], certified_by = [\"certifier\"]"], Some(Floor::Certified)),
        (&[listed, "certified_by = [\"certifier\"]"], Some(Floor::Certified)),
        (&["certified_by = [\"certifier\"]"], Some(Floor::Certified)),
        (&["referred_by = [\"unit\"]"], Some(Floor::ReferralAlone)),
        (&["referred_by = [\"unit\"]", "referred_by = [\"unit\"], type = \"pdq\""], Some(Floor::ReferralAlone)),
        (&["referred_by = [\"unit\"]", listed], None),
        (&[account], Some(Floor::AccountAlone)),
        (&[account, "referred_by = [\"unit\"]"], Some(Floor::AccountAlone)),
        (&[account, listed], None),
    ];
    for (entries, lowered) in cases {
        let tried = tried(&policy, entries);
        let expected = if lowered.is_some() { Verdict::Review } else { Verdict::Block };
        assert_eq!((tried.decision.verdict, tried.decision.lowered), (expected, *lowered), "{entries:?}");
        let told = tried.explained[0].why.contains("lowered to REVIEW");
        assert_eq!(told, lowered.is_some(), "{:?}", tried.explained);
    }
    let forum = forum();
    let charter = forum.charter();
    let entries = entries(&forum, &charter, &[(1, opinion(1, 1))]);
    let found: Vec<_> = entries.iter().map(|e| Found::of(e, 0, false, &charter)).collect();
    assert_eq!(policy.decide(&found, true).lowered, Some(Floor::Truncated));
    assert_eq!(policy.decide(&found, false).verdict, Verdict::Block);
}

/// M6: two companies, of which one knows the file and the other who posted it, are two companies behind neither.
#[test]
fn an_account_never_completes_what_a_file_does_not_earn_by_itself() {
    let two = "[[rule]]\nname = \"two\"\nverdict = \"BLOCK\"\ngroups_min = 2\n";
    let policy = parse(two);
    let of = |entries: &[&str]| {
        let tried = tried(&policy, entries);
        (tried.decision.verdict, tried.decision.lowered)
    };
    let account = "type = \"account\", supported_by = [\"delta\"]";
    let (one, both) = ("supported_by = [\"acme\"]", "supported_by = [\"acme\", \"delta\"]");
    assert_eq!(of(&[account, one]), (Verdict::Review, Some(Floor::AccountDecides)));
    assert_eq!(of(&[account, both]), (Verdict::Block, None));
    assert_eq!(of(&["type = \"account\", supported_by = [\"acme\", \"delta\"]", one]).0, Verdict::Review);
    // Nor does it take anything away: a rule that only the account meets does not hide the one that the file meets.
    let policy = parse(&format!(
        "[[rule]]\nname = \"accounts\"\nverdict = \"BLOCK\"\ntype = [\"account\", \"sha256\"]\nlabels_any = [\"symbol\"]\n{two}"
    ));
    let named = "type = \"account\", supported_by = [\"delta\"], labels = [\"symbol\"]";
    let file = tried(&policy, &[named, both]);
    assert_eq!((file.decision.verdict, file.decision.lowered, file.rule.as_str()), (Verdict::Block, None, "two"));
    let told: Vec<_> = file.explained.iter().map(|rule| (rule.fired, rule.why.as_str())).collect();
    assert!(!told[0].0 && told[0].1.starts_with("only an account meets it") && told[1].0, "{told:?}");
}

/// A referral is no support of its near-duplicate: the rule looks at one entry, and it is only referred.
#[test]
fn a_rule_that_looks_at_a_referral_alone_does_not_block_by_the_support_of_another_entry() {
    let policy = parse("[[rule]]\nname = \"exact\"\nverdict = \"BLOCK\"\ntype = [\"sha256\"]\n");
    let near = "type = \"pdq\", supported_by = [\"acme\", \"delta\"]";
    let tried = tried(&policy, &["referred_by = [\"unit\"]", near]);
    assert_eq!(tried.decision.lowered, Some(Floor::ReferralAlone));
}

#[test]
fn the_first_rule_that_fits_wins_and_what_none_fits_is_for_people() {
    let text = "[[rule]]\nname = \"a\"\nverdict = \"ALLOW\"\nlabels_any = [\"other\"]\n\
                [[rule]]\nname = \"b\"\nverdict = \"BLOCK\"\ngroups_min = 2\n";
    let policy = parse(text);
    let of = |entries: &[&str]| {
        let tried = tried(&policy, entries);
        (tried.decision.verdict, tried.rule, tried.explained.len())
    };
    let two = "supported_by = [\"acme\", \"bolt\"]";
    assert_eq!(of(&[&format!("{two}, labels = [\"other\"]")]), (Verdict::Allow, "a".to_owned(), 1));
    assert_eq!(of(&[two]), (Verdict::Block, "b".to_owned(), 2));
    assert_eq!(of(&["supported_by = [\"acme\"]"]), (Verdict::Review, NO_RULE.to_owned(), 3));
    assert_eq!(of(&[]), (Verdict::Allow, NOTHING_MATCHES.to_owned(), 1));
}

#[test]
fn what_could_not_be_looked_through_is_never_allowed_for_want_of_matches() {
    let allows = "[[rule]]\nname = \"a\"\nverdict = \"ALLOW\"\n";
    let blocks = "[[rule]]\nname = \"b\"\nverdict = \"BLOCK\"\n";
    for policy in [Policy::built_in(), parse(allows), parse(blocks)] {
        let decision = policy.decide(&[], true);
        assert_eq!(decision, Decision { verdict: Verdict::Review, decider: Decider::Unfinished, lowered: None });
        assert!(policy.name(decision.decider).contains("there may be more than could be looked at"));
        let explained = policy.explain(&[], true);
        let told = (explained.len(), explained[0].rule.as_str(), explained[0].verdict, explained[0].fired);
        assert_eq!(told, (1, UNFINISHED, Verdict::Review, true));
        assert_eq!(policy.decide(&[], false).verdict, Verdict::Allow, "all was looked at");
        assert_eq!(policy.explain(&[], false)[0].rule, NOTHING_MATCHES);
    }
}

#[test]
fn what_is_flooding_alone_never_blocks_and_still_protects() {
    let policy = parse("[[rule]]\nname = \"b\"\nverdict = \"BLOCK\"\ngroups_min = 2\n");
    let flooding = "flooding = true, supported_by = [\"acme\", \"bolt\"]";
    let two = "supported_by = [\"acme\", \"bolt\"], distance = 3";
    let one = "supported_by = [\"bolt\"]";
    let lowered = Some(Floor::Flooding);
    for (entries, verdict, why) in [
        (&[flooding][..], Verdict::Review, lowered),
        (&[flooding, one], Verdict::Review, lowered),
        (&[two], Verdict::Block, None),
        (&[flooding, two], Verdict::Block, None),
        (&[flooding, "type = \"account\", supported_by = [\"acme\", \"bolt\"]"], Verdict::Review, lowered),
        (&["flooding = true, supported_by = [\"acme\"]", one], Verdict::Review, lowered),
        // No more than before: what a rule has for people, or lets pass, it has.
        (&["flooding = true, supported_by = [\"acme\"]"], Verdict::Review, None),
        (&[two, "flooding = true, certified_by = [\"certifier\"]"], Verdict::Review, Some(Floor::Certified)),
    ] {
        let tried = tried(&policy, entries);
        assert_eq!((tried.decision.verdict, tried.decision.lowered), (verdict, why), "{entries:?}");
        if why == lowered {
            let told = &tried.explained[0].why;
            assert!(told.contains("lowered to REVIEW: it matches far more often here"), "{told}");
        }
    }
    let allows = parse("[[rule]]\nname = \"a\"\nverdict = \"ALLOW\"\n");
    assert_eq!(tried(&allows, &[flooding]).decision.verdict, Verdict::Allow, "it is never raised");
    let disputes = parse("[[rule]]\nname = \"b\"\nverdict = \"BLOCK\"\ndisputes = \"none\"\n");
    let disputed = format!("{flooding}, disputed_by = [\"delta\"]");
    assert_eq!(tried(&disputes, &[two, &disputed]).rule, NO_RULE, "a dispute of what floods counts");
    // Also where an account is among the rest, which is then looked at without it.
    let rules = [
        ("d", "type = [\"sha256\"]\ndisputes = \"none\""),
        ("p", "type = [\"pdq\"]"),
        ("a", "type = [\"account\", \"md5\"]"),
    ];
    let rules = rules.map(|(name, terms)| format!("[[rule]]\nname = \"{name}\"\nverdict = \"BLOCK\"\n{terms}\n"));
    let account = "type = \"account\", supported_by = [\"acme\", \"bolt\"]";
    let file = "type = \"sha256\", supported_by = [\"acme\", \"bolt\"]";
    let near = format!("type = \"pdq\", {disputed}");
    let tried = tried(&parse(&rules.concat()), &[&near, file, account]);
    assert_eq!((tried.decision.verdict, tried.decision.lowered), (Verdict::Review, lowered));
}

#[test]
fn the_breaker_is_set_in_the_file_and_safe_without() {
    use breaker::Limits;
    let rule = "[[rule]]\nname = \"r\"\nverdict = \"REVIEW\"\n";
    assert_eq!(*parse(rule).breaker(), Limits::default());
    assert_eq!(
        *Policy::built_in().breaker(),
        Limits::default(),
        "what the built-in file says is what holds without it"
    );
    let text = format!("{rule}[breaker]\noff = true\nfloor = 9\nfactor = 3\nwindow_minutes = 5\nhold_hours = 2\n");
    let set = parse(&text);
    assert_eq!(*set.breaker(), Limits { off: true, floor: 9, factor: 3, window_minutes: 5, hold_hours: 2 });
    assert!(set.warnings()[0].message.contains("uploads a listed file 9 times"), "{:?}", set.warnings());
    assert_eq!(set.warnings()[0].line, 6);
}

#[test]
fn what_is_not_understood_is_named_with_its_line() {
    let rule = "[[rule]]\nname = \"r\"\nverdict = \"REVIEW\"\n";
    let cases: Vec<(String, usize, &str)> = vec![
        (String::new(), 1, "the file has no rule"),
        ("[breaker]\nfloor = 100".into(), 1, "the file has no rule"),
        ("breaker = 1".into(), 1, "breaker is of type integer, expected a table [breaker]"),
        (format!("{rule}[breaker]\nflor = 1"), 5, "there is no \"flor\" in [breaker]; did you mean \"floor\"?"),
        (format!("{rule}[breaker]\nfloor = 0"), 5, "floor is 0, expected a number from 1 to 1000000"),
        (format!("{rule}[breaker]\nfactor = 10001"), 5, "factor is 10001, expected a number from 1 to 10000"),
        (format!("{rule}[breaker]\nwindow_minutes = 1441"), 5, "expected a number from 1 to 1440"),
        (format!("{rule}[breaker]\nhold_hours = 0"), 5, "hold_hours is 0, expected a number from 1 to 720"),
        (format!("{rule}[breaker]\noff = \"yes\""), 5, "off is \"yes\", expected true or false"),
        ("[[rules]]\nname = \"r\"".into(), 1, "there is no \"rules\" in a policy; did you mean \"rule\"?"),
        ("rule = 1".into(), 1, "rule is of type integer, expected [[rule]]"),
        ("[[rule]]\nverdict = \"REVIEW\"".into(), 1, "the rule has no name"),
        ("[[rule]]\nname = \"r\"".into(), 1, "the rule has no verdict"),
        (
            "[[rule]]\nname = \"r\"\nverdict = \"Block\"".into(),
            3,
            "has \"Block\", expected one of ALLOW, REVIEW, BLOCK",
        ),
        ("[[rule]]\nname = \"\"\nverdict = \"BLOCK\"".into(), 2, "name is \"\" (0 characters), expected 1 to 120"),
        ("[[rule]]\nname = \"a\\nb\"\nverdict = \"BLOCK\"".into(), 2, "on one line"),
        (format!("{rule}statuses = [\"ACTIVE\"]"), 4, "no \"statuses\" in a rule; did you mean \"status\"?"),
        (format!("{rule}status = \"ACTIVE\""), 4, "status is \"ACTIVE\", expected a list"),
        (format!("{rule}status = []"), 4, "status has 0 values, expected 1 to 64"),
        (format!("{rule}status = [\"ACTIVE\",\n\"RETRACTED\"]"), 5, "has \"RETRACTED\", expected one of ACTIVE"),
        (format!("{rule}status = [\"ACTIVE\", \"ACTIVE\"]"), 4, "has \"ACTIVE\" twice"),
        (format!("{rule}type = [\"md4\"]"), 4, "has \"md4\", expected one of pdq, md5"),
        (format!("{rule}type = [1]"), 4, "of type integer, expected a list of texts"),
        (format!("{rule}languages = [\"f\"]"), 4, "expected a BCP 47 tag"),
        (format!("{rule}distance_max = 32"), 4, "distance_max is 32, expected a number from 0 to 31"),
        (format!("{rule}distance_max = -1"), 4, "distance_max is -1, expected"),
        (format!("{rule}distance_max = \"5\""), 4, "distance_max is \"5\", expected a number"),
        (format!("{rule}groups_min = 0"), 4, "from 1 to 200"),
        (format!("{rule}incident = 1"), 4, "incident is of type integer, expected true or false"),
        (format!("{rule}supporters = [\"REFERRAL\"]"), 4, "expected one of FULL, SMALL"),
        (format!("{rule}disputes = \"some\""), 4, "expected \"none\", \"any\", or the least number"),
        (format!("{rule}disputes = 0"), 4, "disputes is 0, expected a number from 1"),
        (format!("{rule}\n{rule}"), 5, "is that of the rule in line 1, too"),
        (rule.replace("\"r\"", &format!("{NO_RULE:?}")), 1, "is what answers say where no rule decides"),
        ("[[rule]\n".into(), 1, ""),
        (format!("{rule}certified = yes"), 4, ""),
    ];
    for (text, line, expected) in cases {
        let problems = read(&text).unwrap_err();
        let found = problems.iter().any(|problem| problem.line == line && problem.message.contains(expected));
        assert!(found, "{text:?}: expected line {line}, {expected:?}: {problems:?}");
    }
    let many = "[[rule]]\nnam = 1\nverdict = 2\nincident = 3\nlisted = 4\n";
    let lines: Vec<_> = read(many).unwrap_err().into_iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [1, 2, 3, 4, 5], "all mistakes are told at once");
}

#[test]
fn a_block_that_could_only_be_lowered_is_refused() {
    for (condition, expected) in [
        ("certified = true", "a certifier"),
        ("listed = false", "a certifier"),
        ("status = [\"ALLOWED\"]", "a certifier"),
        ("status = [\"REFERRED\"]", "a referral alone"),
        ("referral_only = true", "a referral alone"),
        ("status = [\"REFERRED\", \"ALLOWED\"]", "neither"),
        ("type = [\"account\"]", "an account alone"),
    ] {
        let rule = |verdict| format!("\n[[rule]]\nname = \"r\"\nverdict = \"{verdict}\"\n{condition}\n");
        let problems = read(&rule("BLOCK")).unwrap_err();
        assert!(problems[0].line == 2 && problems[0].message.contains(expected), "{condition}: {problems:?}");
        assert!(problems[0].message.contains("says BLOCK, expected REVIEW"), "{problems:?}");
        assert!(read(&rule("REVIEW")).is_ok(), "{condition}");
    }
}

#[test]
fn rules_that_are_never_reached_and_labels_that_nobody_has_are_odd() {
    let rule =
        |name: &str, conditions: &str| format!("[[rule]]\nname = \"{name}\"\nverdict = \"REVIEW\"\n{conditions}\n");
    for (first, second, unreachable) in [
        ("", "status = [\"ACTIVE\"]", true),
        ("status = [\"ACTIVE\"]", "", false),
        ("status = [\"ACTIVE\", \"CONTESTED\"]", "status = [\"ACTIVE\"]", true),
        ("status = [\"ACTIVE\"]", "status = [\"ACTIVE\", \"CONTESTED\"]", false),
        ("labels_none = [\"symbol\"]", "labels_none = [\"symbol\", \"other\"]", true),
        ("labels_none = [\"symbol\", \"other\"]", "labels_none = [\"symbol\"]", false),
        ("distance_max = 20", "distance_max = 10", true),
        ("distance_max = 10", "distance_max = 20", false),
        ("groups_min = 2", "jurisdictions_min = 2", true),
        ("jurisdictions_min = 2", "groups_min = 2", false),
        ("groups_min = 2", "groups_min = 3\nsupporters = [\"FULL\", \"SMALL\"]", false),
        ("groups_min = 2\nsupporters = [\"FULL\", \"SMALL\"]", "groups_min = 2", true),
        ("disputes = \"any\"", "disputes = 3", true),
        ("disputes = 3", "disputes = \"any\"", false),
        ("disputes = \"none\"", "disputes = \"none\"\ncertified = true", true),
        ("certified = true", "certified = false", false),
        ("incident = true", "incident = true\nlanguages = [\"fr\"]", true),
    ] {
        let policy = parse(&format!("{}{}", rule("a", first), rule("b", second)));
        let odd = policy.warnings().iter().any(|w| w.message.contains("\"b\" is never reached: \"a\" in line 1"));
        assert_eq!(odd, unreachable, "{first:?} before {second:?}: {:?}", policy.warnings());
    }
    for (conditions, expected) in [
        ("labels_any = [\"symbl\"]", "has the label \"symbl\"; did you mean \"symbol\"?"),
        ("labels_any = [\"symbl\"]", "never fires"),
        ("referral_only = true\ngroups_min = 1", "never fires"),
        ("status = [\"REFERRED\"]\nsupporters = [\"SMALL\"]", "never fires"),
        ("labels_any = [\"symbol\"]\nlabels_none = [\"symbol\", \"other\"]", "never fires"),
        ("listed = false\ncertified = false", "never fires"),
    ] {
        let policy = parse(&rule("a", conditions));
        assert!(
            policy.warnings().iter().any(|w| w.message.contains(expected)),
            "{conditions}: {:?}",
            policy.warnings()
        );
    }
}

#[test]
fn a_file_has_at_most_so_many_rules_and_values() {
    let rules = |n: usize| {
        let rule = |i| format!("[[rule]]\nname = \"{i}\"\nverdict = \"REVIEW\"\ndistance_max = {}\n", i % 32);
        (0..n).map(rule).collect::<String>()
    };
    assert_eq!(parse(&rules(RULES_MAX)).rules().len(), RULES_MAX);
    let problems = read(&rules(RULES_MAX + 1)).unwrap_err();
    assert!(problems[0].message.contains("there are 101 rules, expected at most 100"), "{problems:?}");
    let labels =
        |n| format!("[[rule]]\nname = \"r\"\nverdict = \"REVIEW\"\nlabels_any = [{}]\n", "\"other\",".repeat(n));
    assert!(read(&labels(VALUES_MAX)).is_ok());
    assert!(read(&labels(VALUES_MAX + 1)).is_err());
    let name = |n| format!("[[rule]]\nname = \"{}\"\nverdict = \"REVIEW\"\n", "é".repeat(n));
    assert!(read(&name(NAME_CHARS_MAX)).is_ok() && read(&name(NAME_CHARS_MAX + 1)).is_err());
    assert_eq!(read(&"x y\n".repeat(1_000)).unwrap_err().len(), crate::fields::PROBLEMS_MAX);
}

#[test]
fn mistakes_in_cases_are_named_with_their_lines() {
    let case = "[[case]]\nname = \"c\"\nverdict = \"REVIEW\"\n";
    for (text, line, expected) in [
        ("[[cases]]\n".to_owned(), 1, "did you mean \"case\"?"),
        ("[[case]]\nname = \"c\"\n".to_owned(), 1, "the case has no verdict"),
        (
            format!("{case}[[case.entry]]\nsupported_by = [\"nobody\"]"),
            5,
            "expected a company of this file: [company.nobody]",
        ),
        (format!("{case}[[case.entry]]\ndistance = 3"), 4, "nobody lists the entry"),
        (format!("{case}[[case.entry]]\nstatus = \"ACTIVE\"\nlabels = [\"x\"]"), 6, "which no taxonomy here has"),
        (format!("{case}[company.acme]\nrole = [\"FULL\"]"), 5, "did you mean \"roles\"?"),
        (format!("{case}[company]\nacme = 1"), 5, "expected a table [company.NAME]"),
        ("company = 1".to_owned(), 1, "expected tables [company.NAME]"),
        (format!("{case}[company.acme]\nroles = [\"BOSS\"]"), 5, "expected one of FULL, SMALL"),
    ] {
        let problems = read_cases(&text).unwrap_err();
        let found = problems.iter().any(|problem| problem.line == line && problem.message.contains(expected));
        assert!(found, "{text:?}: expected line {line}, {expected:?}: {problems:?}");
    }
    let too_many = case.repeat(cases::CASES_MAX + 1);
    assert!(read_cases(&too_many).unwrap_err()[0].message.contains("expected at most 1000"));
}

/// Members 1 to 3: FULL in FR, FR and DE, the first and the third of one owner; 4 FULL in DE; 5 SMALL in DE;
/// 6 certifies; 7 refers; 8 FULL without a jurisdiction; 9 FULL in FR and DE.
fn forum() -> TestForum {
    let roles = [FULL, FULL, FULL, FULL, SMALL, CERTIFIER, REFERRAL, FULL, FULL];
    let groups = ["a", "b", "a", "d", "e", "f", "g", "h", "i"];
    let members: Vec<_> = groups.into_iter().zip(roles).collect();
    TestForum::with(&members, |c| {
        let of = ["FR", "FR", "DE", "DE", "DE", "DE", "DE", "", "FR"];
        for (member, jurisdiction) in c.members.iter_mut().zip(of) {
            member.jurisdictions = Some(jurisdiction.to_owned()).filter(|j| !j.is_empty()).into_iter().collect();
        }
        c.members[8].jurisdictions.push("DE".into());
    })
}

type Said = Vec<(u8, bytes::Bytes)>;

/// The entries of two subjects after these members said these things.
fn entries(forum: &TestForum, charter: &Charter, said: &[(u8, bytes::Bytes)]) -> Vec<Entry> {
    let mut view = View::new(charter, START);
    let mut ring = forum.keyring();
    for (n, (member, record)) in (0..).zip(said) {
        let block = forum.log(*member, n % 4, Class::Normal).block(&mut ring, std::slice::from_ref(record));
        let header = Header { time: START.plus(u64::from(n)), ..block.header().clone() };
        view.fold(&header, block.records());
    }
    let now = START.plus(1_000);
    [1, 2].iter().filter_map(|n| view.entry(&subject(*n), now)).filter(|e| e.status.matches()).collect()
}

/// The policy that earlier releases had in code.
fn before(charter: &Charter, entries: &[Entry]) -> (Verdict, &'static str) {
    let certified = entries.iter().any(|e| e.status == Status::Allowed);
    let listed = entries.iter().any(|e| e.status != Status::Allowed || e.allow_conflict);
    if entries.is_empty() {
        return (Verdict::Allow, "nothing matches");
    }
    if !listed {
        return (Verdict::Allow, "certified, and nobody lists it");
    }
    if certified {
        return (Verdict::Review, "certified and listed at once: people decide");
    }
    let words = |wanted: fn(Stance) -> bool| {
        let said = entries.iter().flat_map(|e| &e.said).filter(|s| s.counts);
        said.filter(move |s| matches!(s.word, Word::Stance(stance) if wanted(stance)))
            .filter_map(|s| charter.member(s.member))
    };
    if words(|s| s == Stance::Dispute).next().is_some() {
        return (Verdict::Review, "somebody disputes it: review, do not act automatically");
    }
    let supporters: Vec<_> =
        words(|s| matches!(s, Stance::Submit | Stance::Endorse)).filter(|m| m.roles.has(Roles::FULL)).collect();
    let independent = |a: &Member, b: &Member| {
        a.group != b.group && a.jurisdictions.iter().any(|x| b.jurisdictions.iter().any(|y| x != y))
    };
    if supporters.iter().any(|a| supporters.iter().any(|b| independent(a, b))) {
        (Verdict::Block, "two companies of two jurisdictions stand behind it and nobody disputes it")
    } else {
        (Verdict::Review, "it matches, but not two companies of two jurisdictions stand behind it")
    }
}

/// What the default policy decides about what was said, which is what the code before it did.
fn verdict(forum: &TestForum, charter: &Charter, said: &[(u8, bytes::Bytes)]) -> Verdict {
    let entries = entries(forum, charter, said);
    let found: Vec<_> = entries.iter().map(|e| Found::of(e, 0, false, charter)).collect();
    let policy = Policy::built_in();
    let decision = policy.decide(&found, false);
    assert_eq!((decision.verdict, policy.name(decision.decider)), before(charter, &entries), "{entries:?}");
    assert_eq!(decision.lowered, None, "the default policy needs no floor");
    decision.verdict
}

#[test]
fn by_default_a_block_needs_two_companies_of_two_jurisdictions_and_no_dispute() {
    use Verdict::{Allow, Block, Review};
    let soon = START.plus(TimeMs::DAY_MS);
    let submit = |member: u8| (member, opinion(1, 1));
    let near = |member: u8| (member, opinion(2, 1));
    let dispute = |member: u8| (member, opinion(1, 3));
    let certify = |about: u8| (6, allow(about, true, soon));
    let expired = |member: u8| (member, opinion_with(1, 1, |o| o.expires_ms = START.0 + 500));
    let cases: Vec<(&str, Said, Verdict)> = vec![
        ("nothing", vec![], Allow),
        ("one company", vec![submit(1)], Review),
        ("two companies of one jurisdiction", vec![submit(1), submit(2)], Review),
        ("one owner in two jurisdictions", vec![submit(1), submit(3)], Review),
        ("two companies of two jurisdictions", vec![submit(1), submit(4)], Block),
        ("an endorsement is as good", vec![submit(1), (4, opinion(1, 2))], Block),
        ("near-duplicates corroborate each other", vec![submit(1), near(4)], Block),
        ("a small company is not enough", vec![submit(1), submit(5)], Review),
        ("a company without jurisdiction", vec![submit(1), submit(8)], Review),
        ("two companies in both", vec![submit(2), submit(9)], Block),
        ("one disputes", vec![submit(1), submit(4), dispute(2)], Review),
        ("one disputes the near-duplicate", vec![submit(1), submit(4), (2, opinion(2, 3)), near(8)], Review),
        ("one has expired", vec![submit(1), expired(4)], Review),
        ("one took it back", vec![submit(1), submit(4), (4, opinion(1, 4))], Review),
        ("a referral alone", vec![(7, referral(1, true))], Review),
        ("a referral is no support", vec![submit(1), (7, referral(1, true))], Review),
        ("certified", vec![certify(1)], Allow),
        ("certified and listed", vec![submit(1), submit(4), certify(1)], Review),
        ("certified, its near-duplicate listed", vec![near(1), near(4), certify(1)], Review),
        ("two certified", vec![certify(1), certify(2)], Allow),
    ];
    let forum = forum();
    let charter = forum.charter();
    for (what, said, expected) in cases {
        assert_eq!(verdict(&forum, &charter, &said), expected, "{what}");
    }
}

/// Everything that up to three of seven members can say of one item and its near-duplicate.
#[test]
fn the_default_policy_is_the_one_that_earlier_releases_had_in_code() {
    let soon = START.plus(TimeMs::DAY_MS);
    let mut words: Said = Vec::new();
    for member in [1, 2, 3, 4, 9] {
        words.extend([(member, opinion(1, 1)), (member, opinion(2, 2)), (member, opinion(1, 3))]);
    }
    words.extend([(5, opinion(1, 1)), (5, opinion(2, 3)), (6, allow(1, true, soon)), (7, referral(2, true))]);
    let forum = forum();
    let charter = forum.charter();
    let mut seen = [0_u32; 3];
    for a in 0..words.len() {
        for b in a..words.len() {
            for c in (b..words.len()).step_by(3) {
                let said = [words[a].clone(), words[b].clone(), words[c].clone()];
                seen[verdict(&forum, &charter, &said) as usize] += 1;
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

#[test]
fn the_default_policy_has_nothing_odd_and_a_page_to_read() {
    let policy = parse(DEFAULT_TEXT);
    assert_eq!((policy.rules().len(), policy.warnings().len()), (5, 0), "{:?}", policy.warnings());
    assert!(DEFAULT_TEXT.lines().count() < 80);
    for key in [
        "status",
        "type",
        "labels_any",
        "labels_none",
        "languages",
        "distance_max",
        "incident",
        "supporters",
        "groups_min",
        "jurisdictions_min",
        "disputes",
        "certified",
        "listed",
        "referral_only",
        "off",
        "floor",
        "factor",
        "window_minutes",
        "hold_hours",
    ] {
        assert!(DEFAULT_TEXT.contains(&format!("{key} = ")), "{key} is explained");
    }
}

/// What docs/operating.md shows of rules and of cases is what it says it is.
#[test]
fn the_examples_of_the_handbook_hold() {
    let book = include_str!("../../docs/operating.md");
    let section = book.split("\n## ").find(|section| section.starts_with("Your own policy")).unwrap();
    let blocks: Vec<_> = section.split("```").skip(1).step_by(2).filter_map(|b| b.strip_prefix("toml\n")).collect();
    let policy = parse(&format!("{}{DEFAULT_TEXT}", blocks[0]));
    assert!(policy.warnings().is_empty(), "{:?}", policy.warnings());
    let cases = read_cases(blocks[1]).unwrap();
    assert_eq!(cases.cases.len(), 2);
    for case in &cases.cases {
        let tried = cases.try_on(case, &policy);
        assert!(tried.holds, "{}: {tried:?}", case.name);
    }
}

/// A name that is written wrong, or a taxonomy that is not here yet, must not turn an exception into a block.
#[test]
fn a_block_that_excepts_a_label_nobody_knows_is_lowered() {
    let rule =
        |label: &str| format!("[[rule]]\nname = \"r\"\nverdict = \"BLOCK\"\nlabels_none = [\"symbol\", \"{label}\"]\n");
    let entry = "supported_by = [\"acme\"]";
    let lowered = |policy: &Policy| tried(policy, &[entry]).decision.lowered;
    assert_eq!(lowered(&parse(&rule("other"))), None);
    assert_eq!(lowered(&parse(&rule("label-77"))), None, "a number is known");
    assert_eq!(lowered(&parse(&rule("othr"))), Some(Floor::ExceptionUnknown));
    let missing = Arc::new(Taxonomy::missing("forum-2".into(), "its file is not here yet".into()));
    let policy = Policy::parse(&rule("other"), &missing).unwrap();
    assert_eq!(lowered(&policy), Some(Floor::ExceptionUnknown));
    assert!(policy.warnings()[0].message.contains("its file is not here yet"), "{:?}", policy.warnings());
}
