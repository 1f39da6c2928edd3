//! The transparency report: two members write the same bytes, and none of what only one of them knows. Periods that
//! are over, and nodes that came late, are in `tests/node/reporting.rs`.

use std::fs;

use serde_json::Value;
use staydown::clock;
use staydown::replica::ids::TimeMs;
use staydown::report::time::{date, rfc3339};

use crate::drills::{TWO, draw_up, item, sign, version_is};
use crate::world::{Company, Forum, hash, wait_for};

const FORMATS: [&str; 3] = ["json", "csv", "html"];

#[track_caller]
fn words(at: &Company, line: &str) -> String {
    at.does(&line.split(' ').collect::<Vec<_>>()).out
}

/// Waits until `item` has this status there.
fn status_is(at: &Company, item: &str, expected: &str) {
    wait_for(&format!("{item} is {expected} at {}", at.name), || {
        let ran = at.run(&["entry", "show", item, "--json"]);
        (ran.code == Some(0) && ran.json()["status"] == expected).then_some(())
    });
}

/// A forum of level 2: acme and bolt are FULL, bolt also certifies, cyan refers.
fn forum() -> Forum {
    let mut forum = Forum::found(3);
    forum.join();
    let file = draw_up(&forum, 0, "charter-2.sdc", &["renew", "--days", "300"]);
    for change in ["set-role cyan --role REFERRAL", "set-role bolt --role FULL,CERTIFIER", "set-semantics 2"] {
        words(&forum.companies[0], &format!("charter {change} --into {file}"));
    }
    sign(&forum, &file, TWO);
    forum.companies[0].does(&["charter", "apply", &file]);
    forum.companies.iter().for_each(|company| version_is(company, 2));
    forum
}

/// One of everything that a report tells of.
fn a_day_in_the_forum([acme, bolt, cyan]: [&Company; 3]) {
    let [one, two, three, four, five, six, seven, eight] = [1, 2, 3, 4, 5, 6, 7, 8].map(item);
    words(cyan, &format!("referral open {five} {seven} --authority police --jurisdiction FR --deadline 12h"));
    words(acme, &format!("submit {one} {two} {three} {four} --label propaganda --language fr"));
    words(acme, &format!("submit {six} --label symbol --language pt-BR"));
    status_is(bolt, &six, "ACTIVE");
    words(bolt, &format!("entry endorse {one}"));
    words(bolt, &format!("entry dispute {two} --reason news-reporting"));
    words(bolt, &format!("entry withdraw {two}"));
    words(bolt, &format!("entry dispute {three} --reason art-parody"));
    words(acme, &format!("entry withdraw {three}"));
    words(bolt, &format!("entry allow {four} --expires 90d"));
    words(acme, &format!("entry retract {six} --reason mistake"));
    words(bolt, &format!("entry retract {six} --reason overmatching"));

    // One referral is confirmed, one is closed without anybody who stands behind it.
    status_is(acme, &five, "REFERRED");
    words(acme, &format!("submit {five} --label recruitment"));
    words(cyan, &format!("referral close {seven}"));

    let opened = words(acme, "incident open --label livestreamed-attack --level 4 --closes 2d --json");
    let attack = serde_json::from_str::<Value>(&opened).unwrap()["id"].as_str().unwrap().to_owned();
    words(acme, &format!("submit {eight} --label perpetrator-produced --incident {attack}"));
    words(acme, &format!("incident close {attack}"));

    status_is(bolt, &five, "ACTIVE");
    words(bolt, &format!("entry outcome {five} removed"));
    words(bolt, &format!("entry preserve {five} --until 90d"));
    words(acme, &format!("match {one}"));
}

/// From the start of yesterday to the end of this hour, in each format, once all companies write the same. Attestations
/// go on meanwhile, and an hour may end between two commands.
fn equal_reports(companies: &[Company]) -> Vec<String> {
    let in_format = |format: &str| {
        wait_for(&format!("the reports are the same to the byte: {format}"), || {
            let now = clock::now();
            let from = date(TimeMs(now.0 - TimeMs::DAY_MS));
            let to = rfc3339(now.hour().plus(TimeMs::HOUR_MS));
            let arguments = ["report", "--from", &from, "--to", &to, "--open", "--format", format];
            let reports: Vec<_> = companies.iter().map(|company| company.does(&arguments).out).collect();
            reports.iter().all(|report| *report == reports[0]).then(|| reports[0].clone())
        })
    };
    FORMATS.map(in_format).to_vec()
}

fn count(rows: &Value, name: &str) -> u64 {
    let row = rows.as_array().unwrap().iter().find(|row| row["name"] == name);
    row.map_or(0, |row| row["count"].as_u64().unwrap())
}

#[test]
fn m22_any_two_members_write_the_same_report_to_the_byte() {
    let mut forum = forum();
    let [acme, bolt, cyan] = &forum.companies[..] else { panic!("three companies") };
    a_day_in_the_forum([acme, bolt, cyan]);
    forum.agree();
    let reports = equal_reports(&forum.companies);
    let report: Value = serde_json::from_str(&reports[0]).unwrap();
    tells_of_all(&report, &forum.fingerprint);
    assert!(reports[1].contains("# entries-by-label\r\n") && reports[2].contains("<svg"), "{}", reports[1]);
    for n in 1..=8 {
        assert!(reports.iter().all(|report| !report.contains(&hash(n))), "a report names no entry");
    }
    closed_periods(&forum);
    the_local_part_is_apart(&forum);

    forum.companies[1].stop();
    forum.companies[1].start(&["run"]);
    forum.ready();
    let again: Value = serde_json::from_str(&equal_reports(&forum.companies)[0]).unwrap();
    tells_of_all(&again, &forum.fingerprint);
}

/// What [`a_day_in_the_forum`] comes to.
fn tells_of_all(report: &Value, fingerprint: &str) {
    let is = |path: &str, expected: u64| assert_eq!(report.pointer(path), Some(&expected.into()), "{path}: {report:#}");
    assert_eq!((&report["head"]["forum_id"], &report["head"]["closed"]), (&fingerprint.into(), &false.into()));
    // Six and seven are off the list: retracted is a status, closed is none; three was withdrawn.
    is("/entries/new", 7);
    let statuses = [("RETRACTED", 1), ("ALLOWED", 1), ("CONTESTED", 0), ("ACTIVE", 4), ("REFERRED", 0)];
    for (status, expected) in statuses {
        let rows = report["entries"]["by_status"].as_array().unwrap();
        assert_eq!(rows.iter().find(|row| row["status"] == status).unwrap()["at_end"], expected, "{status}");
    }
    assert_eq!(report["entries"]["by_type"][0]["name"], "sha256");
    let tally = |of: &str, name: &str| {
        let row = report["entries"][of].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
        (row["new"].as_u64().unwrap(), row["at_end"].as_u64().unwrap())
    };
    assert_eq!((tally("by_language", "fr"), tally("by_language", "pt-BR")), ((4, 3), (1, 1)));
    assert_eq!((tally("by_label", "propaganda"), tally("by_label", "perpetrator-produced")), ((4, 3), (1, 1)));

    is("/endorsements/endorsements", 1);
    is("/endorsements/corroborated", 1);
    is("/disputes/disputes", 2);
    assert_eq!(count(&report["disputes"]["by_reason"], "news-reporting"), 1);
    let outcomes = &report["disputes"]["outcomes"];
    assert_eq!((count(outcomes, "withdrawn"), count(outcomes, "upheld"), count(outcomes, "open")), (1, 1, 0));
    is("/retractions/withdrawn", 1);
    is("/retractions/votes", 2);
    is("/retractions/retracted", 1);
    is("/white_list/allows", 1);
    is("/white_list/conflicts_at_end", 1);
    is("/referrals/opened", 2);
    let outcomes = &report["referrals"]["outcomes"];
    assert_eq!((count(outcomes, "confirmed"), count(outcomes, "rejected"), count(outcomes, "open")), (1, 1, 0));
    is("/referrals/open_at_end", 1);
    is("/incidents/opened", 1);
    is("/incidents/closed", 1);
    let incident = &report["incidents"]["list"][0];
    assert_eq!((&incident["label"], &incident["entries"]), (&"livestreamed-attack".into(), &1.into()));
    assert_eq!(count(&report["actions"]["by_result"], "removed"), 1);
    is("/actions/preserved", 1);
    for path in [
        "/disputes/time_to_withdraw",
        "/retractions/time_from_first_vote",
        "/retractions/time_from_listing",
        "/referrals/time_to_confirm",
        "/referrals/time_to_close",
        "/incidents/time_open",
        "/actions/time_to_act",
    ] {
        is(&format!("{path}/count"), 1);
        let took = report.pointer(path).unwrap()["longest_ms"].as_u64().unwrap();
        assert!((1..600_000).contains(&took), "{path}: {took} ms");
    }
}

/// Of the days before, everybody knows that they were silent; of hours to come, nobody knows anything.
fn closed_periods(forum: &Forum) {
    let now = clock::now();
    let day = |days: u64| date(TimeMs(now.0 - days * TimeMs::DAY_MS));
    let closed = ["report", "--from", &day(2), "--to", &day(1), "--json"];
    let [acme, bolt] = [0, 1].map(|at: usize| forum.companies[at].does(&closed));
    assert_eq!(acme.out, bolt.out);
    assert_eq!((&acme.json()["head"]["closed"], &acme.json()["head"]["blocks"]), (&true.into(), &0.into()));

    let at = &forum.companies[0];
    let later = rfc3339(now.hour().plus(3 * TimeMs::HOUR_MS));
    let refused = at.run(&["report", "--from", &day(1), "--to", &later, "--open"]).ends_with(2);
    assert!(refused.err.contains("the period is not closed"), "{refused:?}");
    let refused = at.run(&["report", "--from", "yesterday", "--to", "now"]).ends_with(2);
    assert!(refused.err.contains("expected a date as 2026-07-01"), "{refused:?}");
}

fn the_local_part_is_apart(forum: &Forum) {
    let [acme, bolt] = [0, 1].map(|at: usize| {
        let file = forum.path(&format!("report-{at}.html"));
        let from = date(TimeMs(clock::now().0 - TimeMs::DAY_MS));
        let told = forum.companies[at].does(&["report", "--from", &from, "--to", "now", "--local", "-o", &file]);
        assert!(told.err.contains("written to") && told.out.contains("submission to matchable here"), "{told:?}");
        (fs::read_to_string(file).unwrap(), told.out)
    });
    assert!(acme.0.starts_with("<!doctype html>") && !acme.0.contains("lookups"));
    assert!(acme.1.contains("\nlookups: 1\n") && acme.1.contains("\nstatements in them: "), "{}", acme.1);
    assert!(bolt.1.contains("\nlookups: 0\n") && !bolt.1.contains("\nblocks of others: 0\n"), "{}", bolt.1);
    assert!(!acme.1.contains(&hash(1)), "what was looked up is not kept");
}
