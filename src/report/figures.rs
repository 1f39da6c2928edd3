//! From spells to figures: each subject is looked at once, and then forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::history::{Change, Deed, Done, Event, IncidentEvent, Moment, Seat, Spell, changes, spells};
use super::{
    Actions, Count, Day, Disputes, Endorsements, Entries, Gathering, Head, IncidentRow, Incidents, MemberRow, NONE,
    OTHERS, ROWS_MAX, Referrals, Report, Retractions, StatusRow, Tags, Tally, Times, WhiteList, time,
};
use crate::replica::charter::Roles;
use crate::replica::ids::{SubjectId, TimeMs, hex};
use crate::replica::record::{IncidentId, RESULTS, Stance, reason_name};
use crate::replica::signal::Subject;
use crate::replica::taxonomy::{Facet, Taxonomy};
use crate::replica::view::{Counts, Status, View, Word};

/// The facet of labels that the taxonomy does not have.
const UNKNOWN: &str = "(unknown)";
/// Labels that an incident is shown with: each of its openings may give it another.
const LABELS_SHOWN_MAX: usize = 8;
/// What became of a dispute, in the order in which the first that fits is taken.
pub(super) const DISPUTE_OUTCOMES: [&str; 5] = ["withdrawn", "lapsed", "upheld", "contested", "open"];
/// What became of a referral, likewise (PROTOCOL, How a referral went).
pub(super) const REFERRAL_OUTCOMES: [&str; 4] = ["confirmed", "rejected", "expired", "open"];

/// Figures while they are being counted.
pub(super) struct Figures {
    from: Moment,
    to: Moment,
    seats: Vec<Seat>,
    view: View,
    tags: Vec<Tags>,
    taxonomy: Arc<Taxonomy>,
    rows: Vec<MemberRow>,
    statuses: BTreeMap<Status, [u64; 2]>,
    by_type: BTreeMap<String, [u64; 2]>,
    by_label: BTreeMap<String, [u64; 2]>,
    by_facet: BTreeMap<String, [u64; 2]>,
    by_language: BTreeMap<String, [u64; 2]>,
    days: Vec<Day>,
    dispute_reasons: BTreeMap<String, u64>,
    dispute_outcomes: [u64; 5],
    referral_outcomes: [u64; 4],
    new: u64,
    endorsements: u64,
    corroborated: u64,
    disputes: u64,
    contested: u64,
    votes: u64,
    retracted: u64,
    revived: u64,
    withdrawn: u64,
    lapsed: u64,
    allows: u64,
    conflicts: [u64; 3],
    referrals: [u64; 4],
    results: [u64; RESULTS.len() + 1],
    preserved: u64,
    took: Took,
    incidents: Incidents,
}

/// How long things took, of those that came about in the period.
#[derive(Default)]
struct Took {
    corroborate: Vec<u64>,
    withdraw: Vec<u64>,
    retract_from_vote: Vec<u64>,
    retract_from_listing: Vec<u64>,
    listed: Vec<u64>,
    conflict: Vec<u64>,
    confirm: Vec<u64>,
    close: Vec<u64>,
    act: Vec<u64>,
}

/// Times that follow one another without touching, each from a moment to another, the last perhaps without end.
#[derive(Default)]
struct Intervals(Vec<(Moment, Option<Moment>)>);

impl Intervals {
    /// Whether it goes on from `moment` on.
    fn turn(&mut self, on: bool, moment: Moment) {
        match self.0.last_mut() {
            Some((_, end @ None)) if !on => *end = Some(moment),
            Some((_, None)) => {}
            _ if on => self.0.push((moment, None)),
            _ => {}
        }
    }

    /// The first instant between the two at which it is on.
    fn first_within(&self, from: Moment, until: Moment) -> Option<TimeMs> {
        let place = self.0.partition_point(|(_, end)| end.is_some_and(|end| end <= from));
        self.0.get(place).filter(|(begin, _)| *begin < until).map(|(begin, _)| begin.at.max(from.at))
    }
}

/// Where a subject stands, as the sweep over its changes goes on.
struct Standing {
    /// By column of the counts: groups, and how many of their words stand.
    groups: [BTreeMap<u16, u32>; 6],
    /// Votes to retract that stand, and since when.
    votes: BTreeMap<u16, TimeMs>,
    /// Times in which a FULL member stands behind it.
    full_support: Intervals,
    status: Status,
    supported_since: Option<TimeMs>,
    first_support: Option<TimeMs>,
    corroborated: bool,
    conflict_since: Option<TimeMs>,
}

impl Standing {
    fn new() -> Self {
        Self {
            groups: Default::default(),
            votes: BTreeMap::new(),
            full_support: Intervals::default(),
            status: Status::Inactive,
            supported_since: None,
            first_support: None,
            corroborated: false,
            conflict_since: None,
        }
    }

    fn apply(&mut self, change: &Change<'_>, seats: &[Seat]) {
        let seat = &seats[usize::from(change.spell.seat)];
        let Some(column) = column(change.spell.word, seat) else { return };
        if column == RETRACT {
            if change.begins {
                self.votes.insert(change.spell.seat, change.spell.begin);
            } else {
                self.votes.remove(&change.spell.seat);
            }
        }
        let groups = &mut self.groups[column];
        let words = groups.entry(seat.group).or_default();
        if change.begins {
            *words += 1;
        } else {
            *words = words.saturating_sub(1);
        }
        if *words == 0 {
            groups.remove(&seat.group);
        }
    }

    fn counts(&self) -> Counts {
        let [support, small_support, disputes, retract, allow, referred] =
            [0, 1, 2, 3, 4, 5].map(|column: usize| u32::try_from(self.groups[column].len()).unwrap_or(u32::MAX));
        Counts { support, small_support, disputes, retract, allow, referred }
    }

    fn supporting_groups(&self) -> usize {
        self.groups[0].keys().chain(self.groups[1].keys()).collect::<BTreeSet<_>>().len()
    }
}

/// The column of votes to retract.
const RETRACT: usize = 3;

/// Where a word weighs in the counts (PROTOCOL layer 6); a former member's disputes and votes do not.
fn column(word: Word, seat: &Seat) -> Option<usize> {
    match word {
        Word::Stance(Stance::Submit | Stance::Endorse) => Some(usize::from(!seat.roles.has(Roles::FULL))),
        _ if !seat.votes => None,
        Word::Stance(Stance::Dispute) => Some(2),
        Word::Retract(true) => Some(RETRACT),
        Word::Allow(true) => Some(4),
        Word::Referral(true) => Some(5),
        _ => None,
    }
}

impl Figures {
    /// Counts what was gathered.
    pub(super) fn of(gathered: Gathering) -> Self {
        let Gathering { taxonomy, period, seats, rows, view, subjects, mut deeds, incidents, ties, tags, .. } =
            gathered;
        let mut by_number: Vec<_> = tags.into_iter().collect();
        by_number.sort_by_key(|(_, number)| *number);
        let mut figures = Self {
            from: Moment::said(period.from()),
            to: Moment::said(period.to()),
            seats,
            view,
            tags: by_number.into_iter().map(|(tags, _)| tags).collect(),
            taxonomy,
            rows,
            statuses: BTreeMap::new(),
            by_type: BTreeMap::new(),
            by_label: BTreeMap::new(),
            by_facet: BTreeMap::new(),
            by_language: BTreeMap::new(),
            days: days(period.from(), period.to()),
            dispute_reasons: BTreeMap::new(),
            dispute_outcomes: [0; 5],
            referral_outcomes: [0; 4],
            new: 0,
            endorsements: 0,
            corroborated: 0,
            disputes: 0,
            contested: 0,
            votes: 0,
            retracted: 0,
            revived: 0,
            withdrawn: 0,
            lapsed: 0,
            allows: 0,
            conflicts: [0; 3],
            referrals: [0; 4],
            results: [0; RESULTS.len() + 1],
            preserved: 0,
            took: Took::default(),
            incidents: Incidents {
                opened: 0,
                closed: 0,
                open_at_end: 0,
                time_open: Times::default(),
                list: Vec::new(),
                not_listed: 0,
            },
        };
        for (subject, mut events) in subjects {
            figures.subject(&subject, &mut events, deeds.remove(&subject).unwrap_or_default());
        }
        for done in deeds.into_values() {
            figures.deeds(done, None);
        }
        figures.incidents(incidents, &ties);
        figures
    }

    fn within(&self, moment: Moment) -> bool {
        moment >= self.from && moment < self.to
    }

    fn day(&mut self, at: TimeMs) -> Option<&mut Day> {
        // What expires at the very end of the period belongs to its last day.
        let place = at.day().saturating_sub(self.from.at.day());
        let last = self.days.len().saturating_sub(1);
        self.days.get_mut(usize::try_from(place).unwrap_or(usize::MAX).min(last))
    }

    fn subject(&mut self, subject: &Subject, events: &mut [Event], done: Vec<Done>) {
        let spells = spells(events, self.to.at);
        let standing = self.sweep(&spells);
        self.added(subject, &spells);
        self.stands(subject, standing.status);
        for spell in &spells {
            self.act(spell, &standing);
        }
        let asks = |spell: &&Spell| spell.word.supports() || spell.word == Word::Referral(true);
        self.deeds(done, spells.iter().filter(asks).map(|spell| spell.begin).min());
    }

    /// Follows a subject through its statuses; returns where it stands at the end.
    fn sweep(&mut self, spells: &[Spell]) -> Standing {
        let changes = changes(spells);
        let mut standing = Standing::new();
        let mut at_start = None;
        for together in changes.chunk_by(|a, b| a.moment == b.moment) {
            let moment = together[0].moment;
            if moment >= self.from {
                at_start.get_or_insert(standing.status);
            }
            together.iter().for_each(|change| standing.apply(change, &self.seats));
            self.passes(&mut standing, moment);
        }
        let at_start = at_start.unwrap_or(standing.status);
        self.statuses.entry(at_start).or_default()[0] += 1;
        self.statuses.entry(standing.status).or_default()[1] += 1;
        self.conflicts[2] += u64::from(standing.conflict_since.is_some());
        standing
    }

    /// A subject's standing after `moment`, and what of that is news.
    fn passes(&mut self, standing: &mut Standing, moment: Moment) {
        let counts = standing.counts();
        let (before, after) = (standing.status, self.view.status(counts));
        standing.status = after;
        let news = self.within(moment);
        let supported = counts.support + counts.small_support > 0;
        standing.full_support.turn(counts.support > 0, moment);
        if supported && standing.supported_since.is_none() {
            standing.supported_since = Some(moment.at);
            standing.first_support.get_or_insert(moment.at);
        } else if !supported && let Some(since) = standing.supported_since.take().filter(|_| news) {
            *(if moment.said { &mut self.withdrawn } else { &mut self.lapsed }) += 1;
            self.took.listed.push(moment.at.since(since));
        }
        if !standing.corroborated && standing.supporting_groups() > 1 {
            standing.corroborated = true;
            if news {
                self.corroborated += 1;
                self.took.corroborate.extend(standing.first_support.map(|first| moment.at.since(first)));
            }
        }
        let conflict = after == Status::Allowed && supported;
        if conflict && standing.conflict_since.is_none() {
            standing.conflict_since = Some(moment.at);
            self.conflicts[0] += u64::from(news);
        } else if !conflict && let Some(since) = standing.conflict_since.take().filter(|_| news) {
            self.conflicts[1] += 1;
            self.took.conflict.push(moment.at.since(since));
        }
        if news && before != after {
            self.changes_status(before, standing, moment);
        }
    }

    fn changes_status(&mut self, before: Status, standing: &Standing, moment: Moment) {
        self.contested += u64::from(standing.status == Status::Contested);
        self.revived += u64::from(before == Status::Retracted);
        if standing.status != Status::Retracted {
            return;
        }
        self.retracted += 1;
        if let Some(day) = self.day(moment.at) {
            day.retracted += 1;
        }
        let first_vote = standing.votes.values().min();
        self.took.retract_from_vote.extend(first_vote.map(|first| moment.at.since(*first)));
        self.took.retract_from_listing.extend(standing.first_support.map(|first| moment.at.since(first)));
    }

    /// A subject is new when the first word of support that it ever had is of this period.
    fn added(&mut self, subject: &Subject, spells: &[Spell]) {
        let first = spells.iter().filter(|s| s.word.supports()).min_by_key(|s| (s.begin, s.seat));
        let Some(first) = first.filter(|s| self.within(s.began())) else { return };
        self.new += 1;
        self.rows[usize::from(first.seat)].new += 1;
        if let Some(day) = self.day(first.begin) {
            day.new += 1;
        }
        self.by_type.entry(subject.type_name().into_owned()).or_default()[0] += 1;
        let (labels, languages) = self.tags.get(first.tags as usize).cloned().unwrap_or_default();
        self.labelled(&labels, 0);
        tally(&mut self.by_language, languages.into_iter(), 0);
    }

    /// What is listed at the end, as the view has it.
    fn stands(&mut self, subject: &Subject, status: Status) {
        let Some(entry) = self.view.entry(subject, self.to.at) else { return };
        debug_assert_eq!(entry.status, status, "the view and the history of {subject} disagree: please report");
        if entry.status == Status::Inactive {
            return;
        }
        self.by_type.entry(subject.type_name().into_owned()).or_default()[1] += 1;
        self.labelled(&entry.labels, 1);
        tally(&mut self.by_language, entry.languages.into_iter(), 1);
        for said in entry.said.iter().filter(|said| said.counts && said.word.supports()) {
            if let Some(at) = self.seats.iter().position(|seat| seat.id == said.member) {
                self.rows[at].at_end += 1;
            }
        }
    }

    /// Counts an entry under each of its labels, and once under each of their facets.
    fn labelled(&mut self, labels: &[u32], column: usize) {
        let taxonomy = Arc::clone(&self.taxonomy);
        tally(&mut self.by_label, labels.iter().map(|label| taxonomy.name(*label)), column);
        let facets = labels.iter().map(|label| taxonomy.facet(*label).map_or(UNKNOWN, Facet::name).to_owned());
        tally(&mut self.by_facet, facets.collect::<BTreeSet<_>>().into_iter(), column);
    }

    /// What a member said on a subject, and what became of it.
    fn act(&mut self, spell: &Spell, standing: &Standing) {
        let taken_back = spell.end.filter(|end| end.by == Some(Word::Stance(Stance::Neutral)));
        if taken_back.is_some_and(|end| self.within(end.moment())) {
            self.rows[usize::from(spell.seat)].withdrawals += 1;
        }
        let begins = self.within(spell.began());
        match spell.word {
            Word::Stance(Stance::Endorse) if begins => {
                self.endorsements += 1;
                self.rows[usize::from(spell.seat)].endorsements += 1;
                if let Some(day) = self.day(spell.begin) {
                    day.endorsements += 1;
                }
            }
            Word::Stance(Stance::Dispute) => self.dispute(spell, begins, standing.status),
            Word::Retract(true) if begins => {
                self.votes += 1;
                self.rows[usize::from(spell.seat)].retract_votes += 1;
            }
            Word::Allow(true) if begins => {
                self.allows += 1;
                self.rows[usize::from(spell.seat)].allows += 1;
            }
            Word::Referral(true) => self.referral(spell, begins, standing),
            _ => {}
        }
    }

    fn dispute(&mut self, spell: &Spell, begins: bool, status: Status) {
        if let Some(end) = spell.end.filter(|end| end.by.is_some() && self.within(end.moment())) {
            self.took.withdraw.push(end.at.since(spell.begin));
        }
        if !begins {
            return;
        }
        self.disputes += 1;
        self.rows[usize::from(spell.seat)].disputes += 1;
        let reason = reason_name(spell.reason).unwrap_or(NONE);
        *self.dispute_reasons.entry(reason.to_owned()).or_default() += 1;
        if let Some(day) = self.day(spell.begin) {
            day.disputes += 1;
        }
        let outcome = match spell.end {
            Some(end) if end.by.is_some() => 0,
            Some(_) => 1,
            None if !self.seats[usize::from(spell.seat)].votes => 1,
            None if matches!(status, Status::Retracted | Status::Allowed | Status::Inactive | Status::Referred) => 2,
            None if status == Status::Contested => 3,
            None => 4,
        };
        self.dispute_outcomes[outcome] += 1;
    }

    fn referral(&mut self, spell: &Spell, begins: bool, standing: &Standing) {
        let ended = spell.end.filter(|end| self.within(end.moment()));
        if let Some(end) = ended.filter(|end| end.by.is_some()) {
            self.referrals[1] += 1;
            self.took.close.push(end.at.since(spell.begin));
        }
        self.referrals[2] += u64::from(ended.is_some_and(|end| end.by.is_none()));
        self.referrals[3] += u64::from(spell.end.is_none());
        // What was said together with its end came too late for it.
        let until = spell.end.map_or(self.to, super::history::End::moment);
        let confirmed = standing.full_support.first_within(spell.began(), until);
        if let Some(at) = confirmed.filter(|at| self.within(Moment::said(*at))) {
            self.took.confirm.push(at.since(spell.begin));
        }
        if !begins {
            return;
        }
        self.referrals[0] += 1;
        self.rows[usize::from(spell.seat)].referrals += 1;
        if let Some(day) = self.day(spell.begin) {
            day.referrals += 1;
        }
        let outcome = match spell.end {
            _ if confirmed.is_some() => 0,
            Some(end) if end.by.is_some() => 1,
            Some(_) => 2,
            None => 3,
        };
        self.referral_outcomes[outcome] += 1;
    }

    /// What companies did with a subject, of which somebody spoke first at `heard`. Saying the same again is no new deed.
    fn deeds(&mut self, mut done: Vec<Done>, heard: Option<TimeMs>) {
        done.sort_unstable_by_key(Done::place);
        let mut last: Option<&Done> = None;
        for done in &done {
            let before = last.replace(done).filter(|last| last.event.seat == done.event.seat).map(|last| last.deed);
            if !self.within(Moment::said(done.event.time)) {
                continue;
            }
            match (done.deed, before) {
                (Deed::Acted { result, .. }, Some(Deed::Acted { result: before, .. })) if result == before => {}
                (Deed::Acted { result, at }, _) => {
                    let place = RESULTS.iter().position(|(number, _)| *number == result).unwrap_or(RESULTS.len());
                    self.results[place] += 1;
                    // Nobody has done yet what he tells of; 0: he does not tell when. What nobody had spoken of before has
                    // no beginning, whatever is said of it later.
                    let at = Some(at.min(done.event.time)).filter(|at| *at > TimeMs(0));
                    let heard = heard.filter(|heard| *heard <= done.event.time);
                    self.took.act.extend(at.zip(heard).map(|(at, heard)| at.since(heard)));
                }
                (Deed::Kept { .. }, Some(Deed::Kept { until })) if until == TimeMs(0) || until > done.event.time => {}
                (Deed::Kept { .. }, _) => self.preserved += 1,
            }
        }
    }

    fn incidents(
        &mut self,
        incidents: BTreeMap<IncidentId, Vec<IncidentEvent>>,
        ties: &BTreeMap<IncidentId, BTreeSet<SubjectId>>,
    ) {
        let mut took = Vec::new();
        for (id, said) in incidents {
            let entries = ties.get(&id).map_or(0, |subjects| subjects.len() as u64);
            // Closing names no label.
            let openings = said.iter().filter(|s| !s.event.word.is_neutral());
            let labels: BTreeSet<_> = openings.map(|s| s.code).collect();
            let labels: Vec<_> =
                labels.into_iter().take(LABELS_SHOWN_MAX).map(|label| self.taxonomy.name(label)).collect();
            let mut events: Vec<_> = said.into_iter().map(|s| s.event).collect();
            let spells = spells(&mut events, self.to.at);
            for (opened, seat, closed) in open_times(&spells) {
                let opens = self.within(Moment::said(opened));
                let closes = closed.filter(|closed| self.within(*closed));
                self.incidents.opened += u64::from(opens);
                self.incidents.closed += u64::from(closes.is_some());
                self.incidents.open_at_end += u64::from(closed.is_none());
                took.extend(closes.map(|closed| closed.at.since(opened)));
                if closed.is_some_and(|closed| closed < self.from) {
                    continue;
                }
                self.incidents.list.push(IncidentRow {
                    id: hex(&id),
                    label: labels.join(" "),
                    opened_by: self.rows[usize::from(seat)].member.clone(),
                    opened_ms: opened.0,
                    closed_ms: closed.map(|closed| closed.at.0),
                    entries,
                });
            }
        }
        self.incidents.time_open = Times::of(took);
        self.incidents.list.sort_by(|a, b| (a.opened_ms, &a.id).cmp(&(b.opened_ms, &b.id)));
        self.incidents.not_listed = self.incidents.list.len().saturating_sub(ROWS_MAX) as u64;
        self.incidents.list.truncate(ROWS_MAX);
    }

    /// Puts the figures in order.
    pub(super) fn into_report(self, head: Head) -> Report {
        let status = |status: Status| self.statuses.get(&status).copied().unwrap_or_default();
        let listed = Status::ALL.into_iter().filter(|s| *s != Status::Inactive);
        let by_status: Vec<_> = listed
            .map(|s| StatusRow { status: s.name().into(), at_start: status(s)[0], at_end: status(s)[1] })
            .collect();
        let [opened, closed, lapsed, open_at_end] = self.referrals;
        let [conflicts_begun, conflicts_ended, conflicts_at_end] = self.conflicts;
        let results = RESULTS.map(|(_, name)| name).into_iter().chain([OTHERS]).zip(self.results);
        let mut members = self.rows;
        members.sort_by(|a, b| a.member.cmp(&b.member));
        Report {
            head,
            entries: Entries {
                at_start: by_status.iter().map(|row| row.at_start).sum(),
                new: self.new,
                at_end: by_status.iter().map(|row| row.at_end).sum(),
                by_status,
                by_type: tallies(self.by_type),
                by_label: tallies(self.by_label),
                by_facet: tallies(self.by_facet),
                by_language: tallies(self.by_language),
            },
            members,
            endorsements: Endorsements {
                endorsements: self.endorsements,
                corroborated: self.corroborated,
                time_to_corroborate: Times::of(self.took.corroborate),
            },
            disputes: Disputes {
                disputes: self.disputes,
                by_reason: self.dispute_reasons.into_iter().map(|(name, count)| Count { name, count }).collect(),
                outcomes: named(DISPUTE_OUTCOMES, self.dispute_outcomes),
                contested: self.contested,
                time_to_withdraw: Times::of(self.took.withdraw),
            },
            retractions: Retractions {
                votes: self.votes,
                retracted: self.retracted,
                revived: self.revived,
                time_from_first_vote: Times::of(self.took.retract_from_vote),
                time_from_listing: Times::of(self.took.retract_from_listing),
                withdrawn: self.withdrawn,
                lapsed: self.lapsed,
                time_listed: Times::of(self.took.listed),
            },
            white_list: WhiteList {
                allows: self.allows,
                conflicts_begun,
                conflicts_ended,
                conflicts_at_end,
                time_in_conflict: Times::of(self.took.conflict),
            },
            referrals: Referrals {
                opened,
                closed,
                lapsed,
                open_at_end,
                outcomes: named(REFERRAL_OUTCOMES, self.referral_outcomes),
                time_to_confirm: Times::of(self.took.confirm),
                time_to_close: Times::of(self.took.close),
            },
            incidents: self.incidents,
            actions: Actions {
                outcomes: self.results.iter().sum(),
                by_result: results.map(|(name, count)| Count { name: name.into(), count }).collect(),
                time_to_act: Times::of(self.took.act),
                preserved: self.preserved,
            },
            days: self.days,
        }
    }
}

/// One row for each UTC day that the period touches.
fn days(from: TimeMs, to: TimeMs) -> Vec<Day> {
    let last = TimeMs(to.0.saturating_sub(1)).day();
    let day = |day: u64| Day { day: time::date(TimeMs(day * TimeMs::DAY_MS)), ..Day::default() };
    (from.day()..=last).map(day).collect()
}

/// The times in which anybody had an incident open: when, by whom, and the moment it closed.
fn open_times(spells: &[Spell]) -> Vec<(TimeMs, u16, Option<Moment>)> {
    let mut times = Vec::new();
    let (mut open, mut begun) = (0_u32, None);
    for change in changes(spells) {
        if change.begins {
            open += 1;
            begun.get_or_insert((change.moment.at, change.spell.seat));
        } else {
            open = open.saturating_sub(1);
            if let Some((at, seat)) = begun.take_if(|_| open == 0) {
                times.push((at, seat, Some(change.moment)));
            }
        }
    }
    times.extend(begun.map(|(at, seat)| (at, seat, None)));
    times
}

/// Counts one in `column` for each name, or for none at all.
fn tally(table: &mut BTreeMap<String, [u64; 2]>, names: impl Iterator<Item = String>, column: usize) {
    let mut some = false;
    for name in names {
        some = true;
        table.entry(name).or_default()[column] += 1;
    }
    if !some {
        table.entry(NONE.to_owned()).or_default()[column] += 1;
    }
}

/// The greatest first; what is beyond [`ROWS_MAX`] is one row.
fn tallies(table: BTreeMap<String, [u64; 2]>) -> Vec<Tally> {
    let mut rows: Vec<_> = table.into_iter().map(|(name, [new, at_end])| Tally { name, new, at_end }).collect();
    rows.sort_by(|a, b| (b.new, b.at_end, &a.name).cmp(&(a.new, a.at_end, &b.name)));
    let rest = rows.split_off(rows.len().min(ROWS_MAX));
    if !rest.is_empty() {
        let sum = |of: fn(&Tally) -> u64| rest.iter().map(of).sum();
        rows.push(Tally { name: OTHERS.into(), new: sum(|t| t.new), at_end: sum(|t| t.at_end) });
    }
    rows
}

fn named<const N: usize>(names: [&str; N], counts: [u64; N]) -> Vec<Count> {
    names.into_iter().zip(counts).map(|(name, count)| Count { name: name.into(), count }).collect()
}
