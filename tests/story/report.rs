//! The transparency report: two members write the same bytes, and none of what only one of them knows.

use std::fs;

use serde_json::Value;
use staydown::clock;
use staydown::replica::ids::TimeMs;
use staydown::report::time::{date, rfc3339};

use crate::world::{Company, Forum, hash, wait_for};

/// Attempts before two reports that differ are believed to: an hour may end between the two.
const ATTEMPTS: usize = 3;

fn item(n: u64) -> String {
    format!("sha256:{}", hash(n))
}

fn is_listed(at: &Company, n: u64) {
    wait_for("the entry has arrived", || (at.run(&["entry", "show", &item(n)]).code == Some(0)).then_some(()));
}

/// From the start of yesterday to the end of this hour, at both, in a format.
fn both(companies: &[Company], format: &str) -> [String; 2] {
    let now = clock::now();
    let from = date(TimeMs(now.0 - TimeMs::DAY_MS));
    let to = rfc3339(now.hour().plus(TimeMs::HOUR_MS));
    let arguments = ["report", "--from", &from, "--to", &to, "--open", "--format", format];
    [&companies[0], &companies[1]].map(|company| company.does(&arguments).out)
}

fn count(rows: &Value, name: &str) -> u64 {
    let row = rows.as_array().unwrap().iter().find(|row| row["name"] == name);
    row.map_or(0, |row| row["count"].as_u64().unwrap())
}

#[test]
fn two_members_write_the_same_report_to_the_byte() {
    let mut forum = Forum::found(2);
    forum.join();
    let [acme, bolt] = &forum.companies[..] else { panic!("two companies") };
    for n in 1..=3 {
        acme.does(&["submit", &item(n), "--label", "propaganda", "--language", "fr"]);
    }
    is_listed(bolt, 3);
    bolt.does(&["entry", "endorse", &item(1)]);
    bolt.does(&["entry", "dispute", &item(2), "--reason", "news-reporting"]);
    bolt.does(&["entry", "withdraw", &item(2)]);
    bolt.does(&["entry", "dispute", &item(3), "--reason", "art-parody"]);
    acme.does(&["entry", "withdraw", &item(3)]);
    acme.does(&["match", &item(1)]);
    forum.agree();

    let mut reports = Vec::new();
    for format in ["json", "csv", "html"] {
        let equal = (0..ATTEMPTS).map(|_| both(&forum.companies, format)).find(|[a, b]| a == b);
        let [report, _] = equal.unwrap_or_else(|| panic!("the reports differ: {:#?}", both(&forum.companies, format)));
        reports.push(report);
    }
    let report: Value = serde_json::from_str(&reports[0]).unwrap();
    assert_eq!(
        (&report["head"]["forum_id"], &report["head"]["closed"]),
        (&forum.fingerprint.clone().into(), &false.into())
    );
    assert_eq!((&report["entries"]["new"], &report["entries"]["at_end"]), (&3.into(), &2.into()));
    assert_eq!(report["entries"]["by_type"][0]["name"], "sha256");
    assert_eq!(
        (&report["endorsements"]["endorsements"], &report["endorsements"]["corroborated"]),
        (&1.into(), &1.into())
    );
    assert_eq!(report["disputes"]["disputes"], 2);
    let outcomes = &report["disputes"]["outcomes"];
    assert_eq!((count(outcomes, "withdrawn"), count(outcomes, "upheld"), count(outcomes, "open")), (1, 1, 0));
    assert_eq!(count(&report["disputes"]["by_reason"], "news-reporting"), 1);
    assert_eq!(report["retractions"]["withdrawn"], 1);
    assert!(reports[1].contains("# entries-by-label\r\n") && reports[2].contains("<svg"), "{}", reports[1]);
    for n in 1..=3 {
        assert!(reports.iter().all(|report| !report.contains(&hash(n))), "a report names no entry");
    }
    closed_periods(&forum);
    the_local_part_is_apart(&forum);
}

/// Nobody can wait for an hour in a test; what is over is the day before, of which everybody knows that it was silent.
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
    assert!(bolt.1.contains("\nlookups: 0\n"), "{}", bolt.1);
}
