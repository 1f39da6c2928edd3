//! Worked examples: what members say at which minute, and each figure that follows from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Gathering, Period, PeriodError, Report, Times, csv, html, tables};
use crate::replica::exchange::Draw;
use crate::replica::ids::{Class, TimeMs};
use crate::replica::proto;
use crate::replica::record::encode;
use crate::replica::signed::{Keyring, VerifiedBlock};
use crate::replica::taxonomy::Taxonomy;
use crate::replica::testing::{
    CERTIFIER, FULL, REFERRAL, SMALL, START, STEWARD, TestForum, TestLog, allow, incident, opinion, opinion_with,
    referral, retract, subject,
};

const SUBMIT: u32 = 1;
const ENDORSE: u32 = 2;
const DISPUTE: u32 = 3;
const NEUTRAL: u32 = 4;
const MIN: u64 = 60_000;
const HOUR: u64 = TimeMs::HOUR_MS;

/// A forum of six groups: 1 and 2 of one owner, 3 and 4 are FULL; 5 is SMALL; 6 certifies; 7 refers; 8 is a steward.
struct World {
    forum: TestForum,
    ring: Keyring,
    logs: BTreeMap<u8, TestLog>,
    blocks: Vec<VerifiedBlock>,
}

impl World {
    fn new() -> Self {
        Self::of(|_| ())
    }

    fn of(change: impl FnOnce(&mut proto::Charter)) -> Self {
        let members = [
            ("a", FULL),
            ("a", FULL),
            ("b", FULL),
            ("c", FULL),
            ("d", SMALL),
            ("e", CERTIFIER),
            ("f", REFERRAL),
            ("g", STEWARD),
        ];
        let forum = TestForum::with(&members, change);
        let ring = forum.keyring();
        Self { forum, ring, logs: BTreeMap::new(), blocks: Vec::new() }
    }

    /// A member says something so many minutes after the start.
    fn at(&mut self, minute: u64, member: u8, record: Bytes) -> &mut Self {
        self.at_all(minute, member, &[record])
    }

    fn at_all(&mut self, minute: u64, member: u8, records: &[Bytes]) -> &mut Self {
        let forum = &self.forum;
        let log = self.logs.entry(member).or_insert_with(|| forum.log(member, 0, Class::Normal));
        log.time = START.plus(minute * MIN);
        self.blocks.push(log.block(&mut self.ring, records));
        self
    }

    /// The report from one hour after the start to another.
    fn report(&self, from: u64, to: u64) -> Report {
        self.report_of(self.blocks.iter().collect(), from, to)
    }

    fn report_of(&self, mut blocks: Vec<&VerifiedBlock>, from: u64, to: u64) -> Report {
        blocks.sort_by_key(|b| b.id());
        let hour = |n: u64| START.plus(n * HOUR);
        let period = Period::new(hour(from), hour(to), false, START.plus(TimeMs::DAY_MS * 900)).unwrap();
        let mut gathering = Gathering::new(&self.forum.charter(), Arc::new(Taxonomy::built_in()), period);
        for block in blocks {
            gathering.take(block.header(), block.hash(), block.records());
        }
        gathering.finish(self.forum.id)
    }
}

/// "We did this, so many minutes after the start."
fn acted(about: u8, result: u32, minute: u64) -> Bytes {
    let acted_ms = START.plus(minute * MIN).0;
    encode(
        proto::Kind::Outcome,
        [9; 16],
        &proto::Outcome { subject: Some(subject(about).to_proto()), result, acted_ms },
    )
}

/// "We keep a copy until then."
fn kept(about: u8, minute: u64) -> Bytes {
    let until_ms = START.plus(minute * MIN).0;
    let preserve = proto::Preserve { subject: Some(subject(about).to_proto()), until_ms, contact: 1 };
    encode(proto::Kind::Preserve, [9; 16], &preserve)
}

fn took(values: &[u64]) -> Times {
    Times::of(values.iter().map(|minutes| minutes * MIN).collect())
}

fn count(rows: &[super::Count], name: &str) -> u64 {
    rows.iter().find(|row| row.name == name).map_or(0, |row| row.count)
}

fn tally(rows: &[super::Tally], name: &str) -> (u64, u64) {
    rows.iter().find(|row| row.name == name).map_or((0, 0), |row| (row.new, row.at_end))
}

#[test]
fn percentiles_are_values_that_occurred() {
    for (values, median, p90, longest) in [
        (vec![], None, None, None),
        (vec![7], Some(7), Some(7), Some(7)),
        (vec![9, 1], Some(1), Some(9), Some(9)),
        ((1..=10).rev().collect(), Some(5), Some(9), Some(10)),
        ((1..=11).collect(), Some(6), Some(10), Some(11)),
    ] {
        let times = Times::of(values.clone());
        assert_eq!((times.median_ms, times.p90_ms, times.longest_ms), (median, p90, longest), "{values:?}");
        assert_eq!(times.count, values.len() as u64);
    }
}

#[test]
fn a_period_has_full_hours_and_is_over() {
    let hour = |n: u64| START.plus(n * HOUR);
    let now = hour(5).plus(1);
    assert!(Period::new(hour(1), hour(5), false, now).is_ok_and(|p| p.closed));
    assert!(Period::new(hour(1), hour(6), true, now).is_ok_and(|p| !p.closed));
    assert!(Period::new(hour(1), hour(5), true, now).is_ok_and(|p| p.closed));
    let refused = |from, to, open| Period::new(from, to, open, now).unwrap_err();
    assert_eq!(refused(hour(1), hour(6), false), PeriodError::NotClosed { to: hour(6), latest: hour(5) });
    assert_eq!(refused(hour(1), hour(7), true), PeriodError::NotClosed { to: hour(7), latest: hour(6) });
    assert_eq!(refused(hour(1), hour(1), false), PeriodError::Empty { from: hour(1), to: hour(1) });
    assert_eq!(
        refused(hour(1).plus(1), hour(2), false),
        PeriodError::NotAnHour { field: "from", got: hour(1).plus(1) }
    );
    let long = START.plus(super::PERIOD_DAYS_MAX * TimeMs::DAY_MS);
    assert!(Period::new(START, long, false, long).is_ok());
    assert_eq!(Period::new(START, long.plus(HOUR), false, long.plus(HOUR)), Err(PeriodError::Long(1_831)));
    let told = refused(hour(1), hour(6), false).to_string();
    assert!(told.contains("2024-10-04T06:00:00Z") && told.contains("2024-10-04T05:00:00Z"), "{told}");
}

#[test]
fn entries_are_new_once_and_counted_by_what_was_said_first() {
    let tags = |labels: &[u32], languages: &[&str]| {
        let (labels, languages) = (labels.to_vec(), languages.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>());
        move |o: &mut proto::Opinion| (o.labels, o.languages) = (labels, languages)
    };
    let mut world = World::new();
    world.at(10, 1, opinion_with(1, SUBMIT, tags(&[1, 2], &["fr"])));
    world.at(70, 3, opinion_with(1, SUBMIT, tags(&[3], &[])));
    world.at(80, 3, opinion_with(2, SUBMIT, tags(&[1], &["de", "fr"])));
    world.at(90, 5, opinion(3, ENDORSE));
    world.at(95, 3, opinion(2, NEUTRAL)).at(100, 3, opinion(2, SUBMIT));
    world.at(130, 4, opinion(4, SUBMIT));
    let report = world.report(1, 2);
    assert_eq!((report.entries.at_start, report.entries.new, report.entries.at_end), (1, 2, 3));
    assert_eq!(tally(&report.entries.by_type, "sha256"), (2, 3));
    // At the end entry 2 stands by a word without labels, entry 1 by two companies' labels.
    assert_eq!(tally(&report.entries.by_label, "propaganda"), (1, 1));
    assert_eq!(tally(&report.entries.by_label, "incitement"), (0, 1));
    assert_eq!(tally(&report.entries.by_label, "(none)"), (1, 2));
    let facets = ["content-type", "behaviour", "(none)"].map(|facet| tally(&report.entries.by_facet, facet));
    assert_eq!(facets, [(1, 1), (0, 1), (1, 2)], "propaganda is a type of content, incitement a behaviour");
    assert_eq!(tally(&report.entries.by_language, "de"), (1, 0));
    assert_eq!(tally(&report.entries.by_language, "fr"), (1, 1));
    let member = |name: &str| report.members.iter().find(|m| m.member == name).unwrap();
    assert_eq!((member("member-3").new, member("member-3").at_end), (1, 2));
    assert_eq!((member("member-5").new, member("member-5").at_end, member("member-5").endorsements), (1, 1, 1));
    assert_eq!((member("member-1").new, member("member-1").at_end, member("member-1").records), (0, 1, 0));
    assert_eq!(member("member-3").withdrawals, 1);
    // The opening takes a place among the records.
    assert_eq!((member("member-3").records, member("member-3").inert), (5, 0));
    assert_eq!(report.days.iter().map(|d| (d.new, d.endorsements)).collect::<Vec<_>>(), [(2, 1)]);
    let status = |name: &str| report.entries.by_status.iter().find(|s| s.status == name).unwrap().at_end;
    assert_eq!((status("ACTIVE"), status("PROVISIONAL"), report.entries.by_status.len()), (2, 1, 7));
}

#[test]
fn corroboration_is_by_a_second_group() {
    let mut world = World::new();
    world.at(10, 1, opinion(1, SUBMIT)).at(20, 2, opinion(1, ENDORSE)).at(35, 5, opinion(1, ENDORSE));
    world.at(36, 5, opinion_with(1, ENDORSE, |o| o.labels = vec![3])).at(40, 3, opinion(1, ENDORSE));
    let report = world.report(0, 1);
    assert_eq!(report.endorsements.endorsements, 3, "saying it again is none");
    assert_eq!((report.endorsements.corroborated, &report.endorsements.time_to_corroborate), (1, &took(&[25])));
}

#[test]
fn every_dispute_has_one_outcome() {
    let reason = |o: &mut proto::Opinion| o.reason = 2;
    let mut world = World::new();
    let ends = START.plus(50 * MIN).0;
    for about in 1..=8 {
        world.at(1, 1, opinion(about, SUBMIT));
    }
    world.at(5, 3, opinion_with(1, DISPUTE, reason)).at(15, 3, opinion(1, NEUTRAL));
    world.at(5, 3, opinion_with(2, DISPUTE, |o| o.expires_ms = ends));
    world.at(5, 3, opinion_with(3, DISPUTE, reason)).at(6, 1, opinion(3, NEUTRAL));
    world.at(5, 3, opinion(4, DISPUTE)).at(7, 4, opinion(4, DISPUTE));
    world.at(5, 3, opinion(5, DISPUTE));
    world.at(5, 3, opinion(6, DISPUTE)).at(8, 6, allow(6, true, START.plus(TimeMs::DAY_MS)));
    world.at(5, 3, opinion(7, DISPUTE)).at(9, 3, opinion(7, ENDORSE));
    let report = world.report(0, 1);
    let disputes = &report.disputes;
    assert_eq!((disputes.disputes, disputes.contested), (8, 1));
    for (outcome, expected) in [("withdrawn", 2), ("lapsed", 1), ("upheld", 2), ("contested", 2), ("open", 1)] {
        assert_eq!(count(&disputes.outcomes, outcome), expected, "{outcome}");
    }
    assert_eq!((count(&disputes.by_reason, "news-reporting"), count(&disputes.by_reason, "(none)")), (2, 6));
    assert_eq!(disputes.time_to_withdraw, took(&[10, 4]));
    assert_eq!(world.report(1, 2).disputes.disputes, 0, "they began before");
}

#[test]
fn retractions_are_timed_from_the_listing_and_from_the_first_vote() {
    let mut world = World::new();
    world.at(0, 1, opinion(1, SUBMIT)).at(70, 3, retract(1, true)).at(75, 4, retract(1, false));
    world.at(90, 4, retract(1, true)).at(100, 3, retract(1, false));
    // Three FULL groups, half of them: two. What nobody lists can be retracted as well.
    world.at(65, 3, retract(2, true)).at(66, 1, retract(2, true)).at(67, 4, retract(2, true));
    let report = world.report(1, 2);
    let retractions = &report.retractions;
    assert_eq!((retractions.votes, retractions.retracted, retractions.revived), (5, 2, 1));
    assert_eq!(retractions.time_from_first_vote, took(&[20, 1]));
    assert_eq!(retractions.time_from_listing, took(&[90]));
    assert_eq!(report.days[0].retracted, 2);
    let status = |name: &str| report.entries.by_status.iter().find(|s| s.status == name).unwrap();
    assert_eq!((status("RETRACTED").at_start, status("RETRACTED").at_end), (0, 1));
}

#[test]
fn support_ends_by_a_word_or_by_its_date() {
    let until = |minutes: u64| move |o: &mut proto::Opinion| o.expires_ms = START.plus(minutes * MIN).0;
    let mut world = World::new();
    world.at(0, 1, opinion(1, SUBMIT)).at(10, 3, opinion(1, ENDORSE)).at(61, 1, opinion(1, NEUTRAL));
    world.at(70, 3, opinion(1, NEUTRAL));
    world.at(0, 1, opinion_with(2, SUBMIT, until(90))).at(0, 1, opinion_with(3, SUBMIT, until(120)));
    world.at(0, 1, opinion_with(4, SUBMIT, until(60)));
    let report = world.report(1, 2);
    // What ends with the period's last instant is of the period, what ended with its first is of the one before.
    assert_eq!((report.retractions.withdrawn, report.retractions.lapsed), (1, 2));
    assert_eq!(report.retractions.time_listed, took(&[70, 90, 120]));
    assert_eq!((report.entries.at_start, report.entries.new, report.entries.at_end), (3, 0, 0));
}

#[test]
fn a_white_list_conflict_lasts_while_somebody_stands_behind_what_is_certified() {
    let soon = START.plus(TimeMs::DAY_MS);
    let mut world = World::new();
    world.at(0, 6, allow(1, true, soon)).at(0, 6, allow(2, true, soon)).at(0, 6, allow(3, true, START.plus(90 * MIN)));
    world.at(10, 1, opinion(1, SUBMIT)).at(70, 1, opinion(1, NEUTRAL));
    world.at(65, 1, opinion(2, SUBMIT)).at(66, 3, opinion(2, ENDORSE)).at(66, 1, opinion(3, SUBMIT));
    world.at(80, 6, allow(2, true, soon.plus(5)));
    let report = world.report(1, 2);
    let list = &report.white_list;
    assert_eq!((list.allows, list.conflicts_begun, list.conflicts_ended, list.conflicts_at_end), (0, 2, 2, 1));
    assert_eq!(list.time_in_conflict, took(&[60, 24]));
    assert_eq!(world.report(0, 1).white_list.allows, 3);
}

#[test]
fn every_referral_has_one_outcome() {
    let with_deadline = |about: u8, minutes: u64| {
        let subject = Some(subject(about).to_proto());
        let referral =
            proto::Referral { subject, open: true, expires_ms: START.plus(minutes * MIN).0, ..Default::default() };
        encode(proto::Kind::Referral, [9; 16], &referral)
    };
    let mut world = World::new();
    world.at(0, 1, opinion(2, SUBMIT));
    // 1: confirmed after 30 min, then closed. 2: listed already. 3: disputed, then closed. 4: closed. 5: past its deadline.
    // 6: open. What a small company says confirms nothing.
    for about in [1, 2, 3, 4, 6] {
        world.at(60, 7, referral(about, true));
    }
    world.at(60, 7, with_deadline(5, 100));
    world.at(61, 7, referral(1, true)).at(70, 5, opinion(1, ENDORSE)).at(90, 4, opinion(1, ENDORSE)).at(
        95,
        7,
        referral(1, false),
    );
    world.at(70, 3, opinion(3, DISPUTE)).at(80, 7, referral(3, false)).at(81, 7, referral(4, false));
    // Too late to confirm anything.
    world.at(100, 1, opinion(4, SUBMIT)).at(101, 1, opinion(5, SUBMIT));
    let report = world.report(1, 2);
    let referrals = &report.referrals;
    assert_eq!((referrals.opened, referrals.closed, referrals.lapsed, referrals.open_at_end), (6, 3, 1, 2));
    for (outcome, expected) in [("confirmed", 2), ("rejected", 2), ("expired", 1), ("open", 1)] {
        assert_eq!(count(&referrals.outcomes, outcome), expected, "{outcome}");
    }
    assert_eq!(referrals.time_to_confirm, took(&[30, 0]));
    assert_eq!(referrals.time_to_close, took(&[35, 20, 21]));
    assert_eq!(report.days[0].referrals, 6);
}

#[test]
fn what_companies_did_is_timed_from_the_first_word() {
    let mut world = World::of(|c| c.semantics = 2);
    world.at(1, 7, referral(1, true)).at(2, 1, opinion(2, SUBMIT)).at(3, 1, opinion(1, SUBMIT));
    // 1: removed by two, by one of them said twice; then restricted. 2: found before it was listed. 3: nobody listed it.
    world.at(10, 3, acted(1, 1, 5)).at(11, 3, acted(1, 1, 6)).at(12, 1, acted(1, 1, 9)).at(70, 1, acted(1, 2, 65));
    world.at(13, 3, acted(2, 3, 1)).at(14, 3, acted(3, 4, 13)).at(15, 4, acted(2, 77, 999));
    // Told before anybody lists it, which happens later.
    world.at(16, 3, acted(4, 1, 16)).at(17, 4, opinion(4, SUBMIT));
    // No company, and no outcome that counts.
    world.at(16, 6, acted(1, 1, 4));
    // Kept; said again while it is; again when it is no longer.
    world.at(20, 3, kept(1, 30)).at(25, 3, kept(1, 40)).at(45, 3, kept(1, 90));
    let actions = world.report(0, 1).actions;
    assert_eq!((actions.outcomes, actions.preserved), (6, 2));
    for (result, expected) in [("removed", 3), ("restricted", 0), ("kept", 1), ("not-found", 1), ("(others)", 1)] {
        assert_eq!(count(&actions.by_result, result), expected, "{result}");
    }
    // Nobody does later what he tells of now: the one who says minute 999 says it in minute 15.
    assert_eq!(actions.time_to_act, took(&[4, 8, 0, 13]));
    let later = world.report(1, 2).actions;
    assert_eq!((later.outcomes, count(&later.by_result, "restricted")), (1, 1));
    assert_eq!(later.time_to_act, took(&[64]));
}

#[test]
fn an_incident_is_open_while_anybody_has_it_open() {
    let tied = |o: &mut proto::Opinion| o.incident_id = vec![7; 16].into();
    let mut world = World::new();
    world.at(10, 8, incident(7, 9, true, TimeMs(0))).at(20, 1, incident(7, 11, true, TimeMs(0)));
    world.at(25, 5, incident(9, 1, true, TimeMs(0)));
    world.at(30, 1, opinion_with(1, SUBMIT, tied)).at(31, 3, opinion_with(1, ENDORSE, tied));
    world.at(32, 3, opinion_with(2, SUBMIT, tied)).at(33, 4, opinion_with(3, DISPUTE, tied));
    world.at(40, 8, incident(7, 0, false, TimeMs(0))).at(70, 1, incident(7, 0, false, TimeMs(0)));
    world.at(80, 8, incident(8, 1, true, START.plus(200 * MIN)));
    let first = world.report(0, 1).incidents;
    assert_eq!((first.opened, first.closed, first.open_at_end, first.list.len()), (1, 0, 1, 1));
    assert_eq!(first.list[0].closed_ms, None);
    let second = world.report(1, 2).incidents;
    assert_eq!((second.opened, second.closed, second.open_at_end), (1, 1, 1));
    assert_eq!(second.time_open, took(&[60]));
    let rows: Vec<_> = second.list.iter().map(|i| (i.opened_by.as_str(), i.entries, i.label.as_str())).collect();
    assert_eq!(rows, [("member-8", 2, "manifesto livestreamed-attack"), ("member-8", 0, "propaganda")]);
    assert_eq!(second.list[0].closed_ms, Some(START.plus(70 * MIN).0));
    let third = world.report(3, 4).incidents;
    assert_eq!((third.opened, third.closed, third.list.len()), (0, 1, 1), "it closes by itself");
}

#[test]
fn what_has_no_effect_is_counted_and_changes_nothing() {
    let mut world = World::new();
    world.forum = TestForum::with(&[("a", FULL), ("b", FULL)], |c| {
        c.policy.as_mut().unwrap().quota_per_day = vec![3, 3, 3];
        c.members[1].admitted_ms = START.plus(30 * MIN).0;
    });
    world.ring = world.forum.keyring();
    // The opening, two opinions; then two beyond the quota.
    world.at_all(5, 1, &[1, 2, 3, 4].map(|about| opinion(about, SUBMIT)));
    world.at_all(5, 2, &[opinion(5, SUBMIT)]).at(40, 2, referral(6, true));
    let report = world.report(0, 1);
    assert_eq!((report.entries.new, report.entries.at_end, report.referrals.opened), (2, 2, 0));
    let rows: Vec<_> = report.members.iter().map(|m| (m.records, m.inert)).collect();
    assert_eq!(rows, [(5, 2), (3, 3)], "the second is admitted later, and is no referral unit");
    assert_eq!((report.head.records, report.head.inert), (8, 5));
}

#[test]
fn what_was_said_after_the_period_shows_nowhere() {
    let mut world = World::new();
    world.at(10, 1, opinion(1, SUBMIT)).at(59, 3, opinion(1, ENDORSE));
    let before = world.report(0, 1);
    world.at(60, 3, opinion(1, DISPUTE)).at(61, 4, opinion(2, SUBMIT)).at(62, 1, retract(1, true));
    let after = world.report(0, 1);
    assert_eq!(before, after);
    assert_eq!(after.head.heads.len(), 2, "member 4 had said nothing yet");
    assert_eq!(after.head.heads.iter().map(|h| h.seq).collect::<Vec<_>>(), [1, 1]);
}

/// A forum in which everybody says anything, over eight hours.
fn busy(seed: u64) -> World {
    let mut world = World::of(|c| c.semantics = 2);
    let mut draw = Draw(seed);
    for minute in 0..480 {
        let member = u8::try_from(draw.below(8)).unwrap() + 1;
        let about = u8::try_from(draw.below(6)).unwrap();
        let soon = START.plus((minute + draw.below(200)) * MIN);
        let record = match (member, draw.below(6)) {
            (6, yes) => allow(about, yes < 4, soon.plus(1)),
            (7, open) => referral(about, open < 4),
            (8, open) => incident(about, 1, open < 4, if open == 0 { soon } else { TimeMs(0) }),
            (_, 0) => retract(about, draw.below(2) == 0),
            (_, 1) if draw.below(2) == 0 => kept(about, minute + draw.below(200)),
            (_, 1) => acted(about, u32::try_from(draw.below(5)).unwrap(), draw.below(minute + 1)),
            _ => opinion_with(about, u32::try_from(draw.below(4)).unwrap() + 1, |o| {
                o.labels = vec![u32::try_from(draw.below(3)).unwrap() + 1];
                o.expires_ms = if draw.below(3) == 0 { soon.0 } else { 0 };
            }),
        };
        world.at(minute, member, record);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Periods fit together, and every subject's history ends where the view ends (asserted while it is counted).
    #[test]
    fn two_periods_add_up_to_one(seed in any::<u64>(), cut in 1_u64..9) {
        let world = busy(seed);
        let (first, second, both) = (world.report(0, cut), world.report(cut, 12), world.report(0, 12));
        let entries = |r: &Report| r.entries.by_status.iter().map(|s| (s.at_start, s.at_end)).collect::<Vec<_>>();
        prop_assert!(entries(&first).iter().zip(entries(&second)).all(|(a, b)| a.1 == b.0));
        let sums: fn(&Report) -> Vec<u64> = |r| vec![
            r.entries.new, r.endorsements.endorsements, r.endorsements.corroborated, r.disputes.disputes,
            r.disputes.contested, r.disputes.time_to_withdraw.count, r.retractions.votes, r.retractions.retracted,
            r.retractions.revived, r.retractions.withdrawn, r.retractions.lapsed, r.white_list.allows,
            r.white_list.conflicts_begun, r.white_list.conflicts_ended, r.referrals.opened, r.referrals.closed,
            r.referrals.lapsed, r.referrals.time_to_confirm.count, r.incidents.opened, r.incidents.closed,
            r.actions.outcomes, r.actions.time_to_act.count, r.actions.preserved,
        ];
        let added: Vec<u64> = sums(&first).iter().zip(sums(&second)).map(|(a, b)| a + b).collect();
        prop_assert_eq!(added, sums(&both));
        for report in [&first, &second, &both] {
            prop_assert_eq!(report.disputes.outcomes.iter().map(|c| c.count).sum::<u64>(), report.disputes.disputes);
            prop_assert_eq!(report.referrals.outcomes.iter().map(|c| c.count).sum::<u64>(), report.referrals.opened);
        }
        prop_assert_eq!(second.head.view_digest, both.head.view_digest);
    }
}

#[test]
fn every_format_is_the_same_at_two_nodes() {
    let world = busy(3);
    let backwards = world.report_of(world.blocks.iter().rev().collect(), 0, 9);
    let report = world.report(0, 9);
    assert_eq!(report.to_json().unwrap(), backwards.to_json().unwrap());
    assert_eq!(csv::render(&report), csv::render(&backwards));
    assert_eq!(html::render(&report), html::render(&backwards));
    let read: Report = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert_eq!(read, report, "whoever reads the JSON has the whole report");
}

#[test]
fn a_page_needs_nothing_from_elsewhere_and_believes_no_name() {
    let mut world = busy(4);
    let hostile = "<img src=x onerror=alert(1)>\"'&\u{202e}";
    world.forum.issue(|c| {
        c.name = hostile.into();
        c.members[0].name = "=cmd|' /C calc'!A0".into();
        c.members[1].group = "<script src=\"https://example.org/x.js\"></script>".into();
    });
    let report = world.report(0, 9);
    let page = html::render(&report);
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    for forbidden in ["<img", "<script", "<link", "href=", "src=\"", "url(", "@import", "\u{202e}", "onerror=alert(1)>"]
    {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;\u{fffd}: transparency report"));
    assert!(page.contains("prefers-color-scheme:dark") && page.contains("width=device-width"));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(page.matches("<svg").count() >= 8, "days in five strips, types, labels, members, outcomes");
    for table in tables::tables(&report) {
        assert!(page.contains(&format!("<h2 id=\"{}\">", table.id)));
        assert!(table.rows.iter().all(|row| row.len() == table.columns.len()), "{}", table.id);
    }
    let text = csv::render(&report);
    assert!(text.contains("'=cmd|' /C calc'!A0"), "no spreadsheet runs a name");
    assert_eq!(text.matches("# ").count(), tables::tables(&report).len());
}

#[test]
fn nobody_makes_a_report_of_any_size() {
    let mut world = World::new();
    let many = u32::try_from(super::ROWS_MAX).unwrap() + 50;
    for label in 0..many {
        let minute = u64::from(label / 20);
        let id = vec![u8::try_from(label % 251).unwrap(); 16];
        let tagged = |o: &mut proto::Opinion| {
            o.labels = vec![1_000 + label];
            o.subject.as_mut().unwrap().digest = label.to_be_bytes().repeat(8).into();
        };
        let opened = proto::Incident { id: id.into(), code: label + 1, open: true, ..Default::default() };
        let opened = encode(proto::Kind::Incident, [9; 16], &opened);
        world.at_all(minute, 1, &[opinion_with(1, SUBMIT, tagged), opened]);
    }
    let report = world.report(0, 1);
    assert_eq!(report.entries.by_label.len(), super::ROWS_MAX + 1);
    assert_eq!(tally(&report.entries.by_label, super::OTHERS), (50, 50));
    assert_eq!(report.entries.by_label.iter().map(|t| t.new).sum::<u64>(), u64::from(many));
    assert_eq!((report.incidents.list.len(), report.incidents.not_listed), (251, 0));
}
