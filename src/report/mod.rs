//! The transparency report (M22): what the forum said in a period, computed from the logs alone.
//!
//! [`Gathering`] takes the charter in force and the blocks that count, log by log in order, and gives a [`Report`]. It
//! reads no clock and adds nothing that only this node knows, so any two nodes with equal heads, charters and proofs
//! write the same bytes in each format. All times are whole milliseconds, all shares are counted, nothing is a
//! fraction: a report that two machines round in two ways would be two reports. What only this node knows is apart, in
//! [`local`]. docs/operating.md says what each figure means.

pub mod csv;
mod figures;
mod history;
pub mod html;
pub mod local;
pub mod tables;
#[cfg(test)]
mod tests;
pub mod time;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use self::figures::Figures;
use self::history::{Deed, Done, Event, IncidentEvent, Seat};
use crate::replica::admission::{self, Quotas};
use crate::replica::block::Header;
use crate::replica::charter::Charter;
use crate::replica::ids::{Class, ForumId, HeaderHash, MemberId, Origin, Seq, SubjectId, TimeMs};
use crate::replica::record::{ALLOW_DAYS_MAX, IncidentId, Opinion, Parsed, Statement};
use crate::replica::signal::Subject;
use crate::replica::taxonomy::Taxonomy;
use crate::replica::view::{View, Word};

/// Days of one report: five years; a day has a row.
pub const PERIOD_DAYS_MAX: u64 = 1_830;
/// Rows of a table whose keys members choose (labels, languages, incidents): what is beyond is summed, so that nobody
/// makes a report of any size he likes.
pub const ROWS_MAX: usize = 256;
/// What the summed rest is called.
pub const OTHERS: &str = "(others)";
/// What has no label, or no language.
pub const NONE: &str = "(none)";
/// Version of the JSON that [`Report::to_json`] writes; fields are only ever added within one.
pub const FORMAT: &str = "staydown-report-1";

/// A time from and a time to, in full UTC hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    from: TimeMs,
    to: TimeMs,
    closed: bool,
}

/// Why there is no report of a period.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PeriodError {
    /// The view is defined at full hours, so is the report.
    #[error("{field} is {}, expected a full hour of UTC, as {}", time::rfc3339(*.got), time::rfc3339(.got.hour()))]
    NotAnHour {
        /// `from` or `to`.
        field: &'static str,
        /// What was asked for.
        got: TimeMs,
    },
    /// It ends before it begins.
    #[error("the period ends at {} and begins at {}: expected an end after its beginning", time::rfc3339(*.to), time::rfc3339(*.from))]
    Empty {
        /// Its beginning.
        from: TimeMs,
        /// Its end.
        to: TimeMs,
    },
    /// It has too many days.
    #[error("the period has {0} days, at most {PERIOD_DAYS_MAX} are possible")]
    Long(u64),
    /// Members still write into it.
    #[error("the period is not closed: it ends at {}, the latest that can be reported is {}", time::rfc3339(*.to), time::rfc3339(*.latest))]
    NotClosed {
        /// Its end.
        to: TimeMs,
        /// The start of the current hour; with an open report the end of it.
        latest: TimeMs,
    },
}

impl Period {
    /// From `from` up to, not with, `to`. An open one may also reach to the end of the current hour: it will be another
    /// report a minute later.
    ///
    /// # Errors
    /// [`PeriodError`] says what is wrong with it.
    pub fn new(from: TimeMs, to: TimeMs, open: bool, now: TimeMs) -> Result<Self, PeriodError> {
        for (field, got) in [("from", from), ("to", to)] {
            if got != got.hour() {
                return Err(PeriodError::NotAnHour { field, got });
            }
        }
        if to <= from {
            return Err(PeriodError::Empty { from, to });
        }
        let days = to.since(from).div_ceil(TimeMs::DAY_MS);
        if days > PERIOD_DAYS_MAX {
            return Err(PeriodError::Long(days));
        }
        let latest = now.hour().plus(if open { TimeMs::HOUR_MS } else { 0 });
        if to > latest {
            return Err(PeriodError::NotClosed { to, latest });
        }
        Ok(Self { from, to, closed: to <= now.hour() })
    }

    /// The first instant of it.
    pub fn from(self) -> TimeMs {
        self.from
    }

    /// The first instant after it.
    pub fn to(self) -> TimeMs {
        self.to
    }
}

/// How long something took, in milliseconds. Of n values in ascending order the p-th percentile is the one at place
/// `ceil(p * n / 100)`; nothing is interpolated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportTimes)]
pub struct Times {
    /// How many there are; without any the rest is absent.
    pub count: u64,
    /// The 50th percentile.
    pub median_ms: Option<u64>,
    /// The 90th percentile.
    pub p90_ms: Option<u64>,
    /// The longest.
    pub longest_ms: Option<u64>,
}

impl Times {
    /// Of these values, in any order.
    pub fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let percentile = |p: usize| values.get((p * values.len()).div_ceil(100).wrapping_sub(1)).copied();
        Self {
            count: values.len() as u64,
            median_ms: percentile(50),
            p90_ms: percentile(90),
            longest_ms: values.last().copied(),
        }
    }
}

/// Everything the report says. The meaning of each figure is in docs/operating.md.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "each figure is defined in docs/operating.md, The transparency report")]
pub struct Report {
    pub head: Head,
    pub entries: Entries,
    pub members: Vec<MemberRow>,
    pub endorsements: Endorsements,
    pub disputes: Disputes,
    pub retractions: Retractions,
    pub white_list: WhiteList,
    pub referrals: Referrals,
    pub incidents: Incidents,
    pub actions: Actions,
    pub days: Vec<Day>,
}

impl Report {
    /// The report as JSON, one line a field, ending with a line feed.
    ///
    /// # Errors
    /// None that a report can cause: it has no maps and no floats.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }
}

/// What it is a report of, and what it was computed from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportHead)]
#[expect(missing_docs, reason = "each figure is defined in docs/operating.md, The transparency report")]
pub struct Head {
    pub format: String,
    pub forum: String,
    pub forum_id: String,
    pub charter_version: u64,
    pub charter_hash: String,
    pub taxonomy: String,
    pub from: String,
    pub to: String,
    pub from_ms: u64,
    pub to_ms: u64,
    pub closed: bool,
    pub view_digest: String,
    pub blocks: u64,
    pub records: u64,
    pub inert: u64,
    pub heads: Vec<HeadRow>,
}

/// The last block of a log that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportHeadRow)]
#[expect(missing_docs, reason = "as `Head` in signed.proto, with names")]
pub struct HeadRow {
    pub member: String,
    pub member_id: String,
    pub log_no: u32,
    pub lane: String,
    pub seq: u64,
    pub header_hash: String,
}

/// A name and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportCount)]
#[expect(missing_docs, reason = "each figure is defined in docs/operating.md, The transparency report")]
pub struct Count {
    pub name: String,
    pub count: u64,
}

/// New entries and entries at the end, by something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportTally)]
#[expect(missing_docs, reason = "each figure is defined in docs/operating.md, The transparency report")]
pub struct Tally {
    pub name: String,
    pub new: u64,
    pub at_end: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportEntries)]
#[expect(missing_docs, reason = "each figure is defined in docs/operating.md, The transparency report")]
pub struct Entries {
    pub at_start: u64,
    pub new: u64,
    pub at_end: u64,
    pub by_status: Vec<StatusRow>,
    pub by_type: Vec<Tally>,
    pub by_label: Vec<Tally>,
    #[serde(default)]
    pub by_facet: Vec<Tally>,
    pub by_language: Vec<Tally>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportStatusRow)]
#[expect(missing_docs, reason = "each figure is defined in docs/operating.md, The transparency report")]
pub struct StatusRow {
    pub status: String,
    pub at_start: u64,
    pub at_end: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportMemberRow)]
#[expect(missing_docs, reason = "each figure is defined in docs/operating.md, The transparency report")]
pub struct MemberRow {
    pub member: String,
    pub group: String,
    pub new: u64,
    pub at_end: u64,
    pub endorsements: u64,
    pub disputes: u64,
    pub withdrawals: u64,
    pub retract_votes: u64,
    pub allows: u64,
    pub referrals: u64,
    pub records: u64,
    pub inert: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportEndorsements)]
#[expect(missing_docs, reason = "each figure is defined in docs/operating.md, The transparency report")]
pub struct Endorsements {
    pub endorsements: u64,
    pub corroborated: u64,
    pub time_to_corroborate: Times,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportDisputes)]
#[expect(missing_docs, reason = "each figure is defined in docs/operating.md, The transparency report")]
pub struct Disputes {
    pub disputes: u64,
    pub by_reason: Vec<Count>,
    pub outcomes: Vec<Count>,
    pub contested: u64,
    pub time_to_withdraw: Times,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportRetractions)]
#[expect(missing_docs, reason = "each figure is defined in docs/operating.md, The transparency report")]
pub struct Retractions {
    pub votes: u64,
    pub retracted: u64,
    pub revived: u64,
    pub time_from_first_vote: Times,
    pub time_from_listing: Times,
    pub withdrawn: u64,
    pub lapsed: u64,
    pub time_listed: Times,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportWhiteList)]
#[expect(missing_docs, reason = "each figure is defined in docs/operating.md, The transparency report")]
pub struct WhiteList {
    pub allows: u64,
    pub conflicts_begun: u64,
    pub conflicts_ended: u64,
    pub conflicts_at_end: u64,
    pub time_in_conflict: Times,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportReferrals)]
#[expect(missing_docs, reason = "each figure is defined in docs/operating.md, The transparency report")]
pub struct Referrals {
    pub opened: u64,
    pub closed: u64,
    pub lapsed: u64,
    pub open_at_end: u64,
    pub outcomes: Vec<Count>,
    pub time_to_confirm: Times,
    pub time_to_close: Times,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportIncidents)]
#[expect(missing_docs, reason = "each figure is defined in docs/operating.md, The transparency report")]
pub struct Incidents {
    pub opened: u64,
    pub closed: u64,
    pub open_at_end: u64,
    pub time_open: Times,
    pub list: Vec<IncidentRow>,
    pub not_listed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportIncidentRow)]
#[expect(missing_docs, reason = "each figure is defined in docs/operating.md, The transparency report")]
pub struct IncidentRow {
    pub id: String,
    pub label: String,
    pub opened_by: String,
    pub opened_ms: u64,
    pub closed_ms: Option<u64>,
    pub entries: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportActions)]
#[expect(missing_docs, reason = "each figure is defined in docs/operating.md, The transparency report")]
pub struct Actions {
    pub outcomes: u64,
    pub by_result: Vec<Count>,
    pub time_to_act: Times,
    pub preserved: u64,
}

/// What happened on one UTC day, as far as the period covers it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportDay)]
#[expect(missing_docs, reason = "each figure is defined in docs/operating.md, The transparency report")]
pub struct Day {
    pub day: String,
    pub new: u64,
    pub endorsements: u64,
    pub disputes: u64,
    pub retracted: u64,
    pub referrals: u64,
}

/// Labels and languages of one opinion.
type Tags = (Vec<u32>, Vec<String>);

/// What was said, while the logs are being read.
pub struct Gathering {
    charter: Charter,
    taxonomy: Arc<Taxonomy>,
    period: Period,
    seats: Vec<Seat>,
    rows: Vec<MemberRow>,
    quotas: Quotas,
    view: View,
    subjects: BTreeMap<Subject, Vec<Event>>,
    deeds: BTreeMap<Subject, Vec<Done>>,
    incidents: BTreeMap<IncidentId, Vec<IncidentEvent>>,
    ties: BTreeMap<IncidentId, BTreeSet<SubjectId>>,
    tags: BTreeMap<Tags, u32>,
    heads: BTreeMap<Origin, (u16, Seq, HeaderHash)>,
    blocks: u64,
    records: u64,
    inert: u64,
}

impl Gathering {
    /// Nothing read yet, under the charter in force, with the names of its taxonomy.
    pub fn new(charter: &Charter, taxonomy: Arc<Taxonomy>, period: Period) -> Self {
        let groups: BTreeSet<_> = charter.members.values().map(|m| m.group.as_str()).collect();
        let number = |name: &str| groups.iter().position(|g| *g == name).and_then(|at| u16::try_from(at).ok());
        let seat = |m: &crate::replica::charter::Member| Seat {
            id: m.id,
            group: number(&m.group).unwrap_or(u16::MAX),
            roles: m.roles,
            admitted: m.admitted,
            votes: admission::votes_count(m),
        };
        let row = |m: &crate::replica::charter::Member| MemberRow {
            member: m.name.clone(),
            group: m.group.clone(),
            ..MemberRow::default()
        };
        Self {
            taxonomy,
            period,
            seats: charter.members.values().map(seat).collect(),
            rows: charter.members.values().map(row).collect(),
            quotas: Quotas::default(),
            view: View::new(charter, period.to),
            charter: charter.clone(),
            subjects: BTreeMap::new(),
            deeds: BTreeMap::new(),
            incidents: BTreeMap::new(),
            ties: BTreeMap::new(),
            tags: BTreeMap::new(),
            heads: BTreeMap::new(),
            blocks: 0,
            records: 0,
            inert: 0,
        }
    }

    /// Takes the next block that counts, in the order of `(origin, seq)`. `false`: it is of a later time than the
    /// period, and so is the rest of its log.
    pub fn take(&mut self, header: &Header, hash: HeaderHash, records: &[Parsed]) -> bool {
        if header.time >= self.period.to {
            return false;
        }
        self.heads.insert(header.id.origin, (header.class, header.id.seq, hash));
        self.blocks += 1;
        self.records += records.len() as u64;
        self.view.fold(header, records);
        let Some(seat) = self.seats.iter().position(|s| s.id == header.id.origin.member) else { return true };
        let inert = self.admit(header, seat, records);
        self.inert += inert;
        if header.time >= self.period.from {
            self.rows[seat].records += records.len() as u64;
            self.rows[seat].inert += inert;
        }
        true
    }

    /// Layers 4 and 5 once more, on a road of its own: which records have an effect. Returns how many have none.
    fn admit(&mut self, header: &Header, seat: usize, records: &[Parsed]) -> u64 {
        let Some(class) = Class::from_number(header.class) else { return records.len() as u64 };
        let (origin, day) = (header.id.origin, header.time.day());
        let mut room = self.quotas.room(&self.charter, origin, class, day);
        let (roles, too_early) = (self.seats[seat].roles, header.time < self.seats[seat].admitted);
        let (mut used, mut inert) = ([0_u32; 2], 0);
        for (index, record) in records.iter().enumerate() {
            let withdraws = record.withdraws(self.charter.semantics);
            used[usize::from(withdraws)] += 1;
            let within = room.take(withdraws) && !too_early;
            match record {
                Parsed::Says(said) if within && admission::has_effect(&self.charter, roles, said, header.time) => {
                    self.note(header, seat, index, said);
                }
                _ => inert += 1,
            }
        }
        // In the logs' order the quota never has to be counted again.
        self.quotas.note(&self.charter, origin, class, day, used);
        inert
    }

    fn note(&mut self, header: &Header, seat: usize, index: usize, said: &Statement) {
        let event = |word, expires| Event {
            time: header.time,
            expires,
            seq: header.id.seq,
            log_no: header.id.origin.log_no,
            index: u16::try_from(index).unwrap_or(u16::MAX),
            seat: u16::try_from(seat).unwrap_or(u16::MAX),
            word,
            reason: 0,
            tags: 0,
        };
        match said {
            Statement::Opinion(opinion) => {
                let tags = self.tags(opinion);
                let event =
                    Event { reason: opinion.reason, tags, ..event(Word::Stance(opinion.stance), opinion.expires) };
                if let Some(id) = opinion.incident.filter(|_| event.supports()) {
                    self.ties.entry(id).or_default().insert(opinion.subject.id());
                }
                self.say(&opinion.subject, event);
            }
            Statement::Retract { subject, yes, .. } => self.say(subject, event(Word::Retract(*yes), TimeMs(0))),
            Statement::Allow { subject, yes, expires }
                if *expires <= header.time.plus(ALLOW_DAYS_MAX * TimeMs::DAY_MS) =>
            {
                self.say(subject, event(Word::Allow(*yes), *expires));
            }
            Statement::Referral { subject, open, expires, .. } => {
                self.say(subject, event(Word::Referral(*open), *expires));
            }
            Statement::Incident { id, code, open, closes, .. } => {
                let event = IncidentEvent { event: event(Word::Referral(*open), *closes), code: *code };
                self.incidents.entry(*id).or_default().push(event);
            }
            Statement::Outcome { subject, result, acted } => {
                let deed = Deed::Acted { result: *result, at: *acted };
                let event = event(Word::Referral(true), TimeMs(0));
                self.deeds.entry(subject.clone()).or_default().push(Done { event, deed });
            }
            Statement::Preserve { subject, until, .. } => {
                let event = event(Word::Referral(true), TimeMs(0));
                let deed = Deed::Kept { until: *until };
                self.deeds.entry(subject.clone()).or_default().push(Done { event, deed });
            }
            _ => {}
        }
    }

    /// Nearly every subject has one word said of it: no more room than that is taken before there are two.
    fn say(&mut self, subject: &Subject, event: Event) {
        self.subjects.entry(subject.clone()).or_insert_with(|| Vec::with_capacity(1)).push(event);
    }

    fn tags(&mut self, opinion: &Opinion) -> u32 {
        let next = u32::try_from(self.tags.len()).unwrap_or(u32::MAX);
        *self.tags.entry((opinion.labels.clone(), opinion.languages.clone())).or_insert(next)
    }

    /// The report of forum `forum`.
    pub fn finish(self, forum: ForumId) -> Report {
        let head = self.head(forum);
        Figures::of(self).into_report(head)
    }

    fn head(&self, forum: ForumId) -> Head {
        let name = |id: MemberId| self.charter.member(id).map_or_else(|| id.to_string(), |m| m.name.clone());
        let head = |(origin, (class, seq, hash)): (&Origin, &(u16, Seq, HeaderHash))| HeadRow {
            member: name(origin.member),
            member_id: origin.member.to_string(),
            log_no: origin.log_no.0,
            lane: Class::from_number(*class).map_or("unknown", Class::name).to_owned(),
            seq: seq.0,
            header_hash: hash.to_string(),
        };
        Head {
            format: FORMAT.into(),
            forum: self.charter.name.clone(),
            forum_id: forum.to_string(),
            charter_version: self.charter.version,
            charter_hash: self.charter.hash.to_string(),
            taxonomy: self.charter.taxonomy.clone(),
            from: time::rfc3339(self.period.from),
            to: time::rfc3339(self.period.to),
            from_ms: self.period.from.0,
            to_ms: self.period.to.0,
            closed: self.period.closed,
            view_digest: crate::replica::ids::hex(&self.view.digest().1),
            blocks: self.blocks,
            records: self.records,
            inert: self.inert,
            heads: self.heads.iter().map(head).collect(),
        }
    }
}
