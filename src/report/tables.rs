//! The report as tables: what CSV and HTML show, in one order and with the same words.

use super::{Count, Report, Tally, Times};
use crate::replica::ids::TimeMs;

/// One value of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A name.
    Text(String),
    /// How many.
    Count(u64),
    /// How long, in milliseconds; absent where nothing was measured.
    Span(Option<u64>),
    /// When, in Unix milliseconds; absent where it did not happen.
    Moment(Option<u64>),
}

/// How HTML draws a table, beside showing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plot {
    /// Not at all.
    None,
    /// A bar for each row, by its first number.
    Rows,
    /// A row is a day; a strip of columns for each number.
    Days,
}

/// One section of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name in CSV.
    pub id: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// What it counts, in a sentence or two.
    pub note: &'static str,
    /// Names of its columns; CSV adds the unit to those of times.
    pub columns: Vec<&'static str>,
    /// Its rows, each as long as `columns`.
    pub rows: Vec<Vec<Cell>>,
    /// How it is drawn.
    pub plot: Plot,
}

/// All sections, in the order in which people are shown them.
pub fn tables(report: &Report) -> Vec<Table> {
    vec![
        head(report),
        summary(report),
        days(report),
        by_status(report),
        tally("entries-by-type", "Entries by type", "type", &report.entries.by_type),
        tally("entries-by-label", "Entries by label", "label", &report.entries.by_label),
        tally("entries-by-facet", "Entries by facet of their labels", "facet", &report.entries.by_facet),
        tally("entries-by-language", "Entries by language", "language", &report.entries.by_language),
        members(report),
        counts(
            "disputes-by-reason",
            "Disputes by reason",
            "Disputes that began in the period, by the reason that was given.",
            "reason",
            &report.disputes.by_reason,
        ),
        counts(
            "dispute-outcomes",
            "What became of the disputes",
            "Of disputes that began in the period, at its end. Upheld: the entry is retracted, allowed, or nobody stands behind it any more.",
            "outcome",
            &report.disputes.outcomes,
        ),
        counts(
            "referral-outcomes",
            "What became of the referrals",
            "Of referrals that were opened in the period, at its end. Confirmed: a full member stood behind the entry while the referral was open. Rejected: it was closed, and none had. Expired: its deadline passed, and none had.",
            "outcome",
            &report.referrals.outcomes,
        ),
        counts(
            "outcomes",
            "What companies did",
            "Outcomes that were told in the period: what a company did with what it found, as far as companies tell.",
            "result",
            &report.actions.by_result,
        ),
        times(report),
        incidents(report),
        heads(report),
    ]
}

fn text(text: impl Into<String>) -> Cell {
    Cell::Text(text.into())
}

fn head(report: &Report) -> Table {
    let head = &report.head;
    let rows = [
        ("forum", head.forum.clone()),
        ("fingerprint", head.forum_id.clone()),
        ("from", head.from.clone()),
        ("to", head.to.clone()),
        ("period", if head.closed { "closed" } else { "open: it will be another report later" }.into()),
        ("charter version", head.charter_version.to_string()),
        ("charter hash", head.charter_hash.clone()),
        ("taxonomy", head.taxonomy.clone()),
        ("view digest at the end", head.view_digest.clone()),
        ("blocks read", head.blocks.to_string()),
        ("records read", head.records.to_string()),
        ("of them without effect", head.inert.to_string()),
        ("format", head.format.clone()),
    ];
    Table {
        id: "head",
        title: "What this is a report of",
        note: "Computed from the members' signed logs alone: every member whose logs reach as far computes the same bytes.",
        columns: vec!["what", "value"],
        rows: rows.into_iter().map(|(name, value)| vec![text(name), Cell::Text(value)]).collect(),
        plot: Plot::None,
    }
}

fn summary(report: &Report) -> Table {
    let Report { entries, endorsements, disputes, retractions, white_list, referrals, incidents, actions, .. } = report;
    let rows = [
        ("entries at the start", entries.at_start),
        ("new entries", entries.new),
        ("entries at the end", entries.at_end),
        ("endorsements", endorsements.endorsements),
        ("entries that a second company group came to stand behind", endorsements.corroborated),
        ("disputes", disputes.disputes),
        ("entries that became contested", disputes.contested),
        ("votes to retract", retractions.votes),
        ("entries retracted", retractions.retracted),
        ("entries no longer retracted", retractions.revived),
        ("entries withdrawn by all who stood behind them", retractions.withdrawn),
        ("entries whose last support expired", retractions.lapsed),
        ("white-list certificates", white_list.allows),
        ("white-list conflicts begun", white_list.conflicts_begun),
        ("white-list conflicts ended", white_list.conflicts_ended),
        ("white-list conflicts at the end", white_list.conflicts_at_end),
        ("referrals opened", referrals.opened),
        ("referrals closed", referrals.closed),
        ("referrals past their deadline", referrals.lapsed),
        ("referrals open at the end", referrals.open_at_end),
        ("incidents opened", incidents.opened),
        ("incidents closed", incidents.closed),
        ("incidents open at the end", incidents.open_at_end),
        ("incidents that are not listed below", incidents.not_listed),
        ("outcomes told", actions.outcomes),
        ("copies preserved", actions.preserved),
    ];
    Table {
        id: "summary",
        title: "In numbers",
        note: "What happened in the period, and what stood at its two ends.",
        columns: vec!["figure", "count"],
        rows: rows.into_iter().map(|(name, count)| vec![text(name), Cell::Count(count)]).collect(),
        plot: Plot::None,
    }
}

fn days(report: &Report) -> Table {
    let row = |day: &super::Day| {
        let counts = [day.new, day.endorsements, day.disputes, day.retracted, day.referrals].map(Cell::Count);
        [vec![text(&day.day)], counts.to_vec()].concat()
    };
    Table {
        id: "days",
        title: "Day by day",
        note: "By the authors' clocks, in days of UTC.",
        columns: vec!["day", "new entries", "endorsements", "disputes", "retracted", "referrals"],
        rows: report.days.iter().map(row).collect(),
        plot: Plot::Days,
    }
}

fn by_status(report: &Report) -> Table {
    let row = |row: &super::StatusRow| vec![text(&row.status), Cell::Count(row.at_start), Cell::Count(row.at_end)];
    Table {
        id: "entries-by-status",
        title: "Entries by status",
        note: "At the start and at the end of the period, under the charter named above.",
        columns: vec!["status", "at the start", "at the end"],
        rows: report.entries.by_status.iter().map(row).collect(),
        plot: Plot::None,
    }
}

fn tally(id: &'static str, title: &'static str, key: &'static str, rows: &[Tally]) -> Table {
    let row = |tally: &Tally| vec![text(&tally.name), Cell::Count(tally.new), Cell::Count(tally.at_end)];
    Table {
        id,
        title,
        note: "New in the period, as whoever was first to list it said; at its end, as all who stand behind it say. What has several counts in each.",
        columns: vec![key, "new", "at the end"],
        rows: rows.iter().map(row).collect(),
        plot: Plot::Rows,
    }
}

fn members(report: &Report) -> Table {
    let row = |m: &super::MemberRow| {
        let counts = [
            m.new,
            m.at_end,
            m.endorsements,
            m.disputes,
            m.withdrawals,
            m.retract_votes,
            m.allows,
            m.referrals,
            m.records,
            m.inert,
        ];
        [vec![text(&m.member), text(&m.group)], counts.map(Cell::Count).to_vec()].concat()
    };
    Table {
        id: "members",
        title: "By member",
        note: "New: entries that it was the first to list. At the end: entries that it stands behind.",
        columns: vec![
            "member",
            "group",
            "new",
            "at the end",
            "endorsements",
            "disputes",
            "withdrawals",
            "votes to retract",
            "certificates",
            "referrals",
            "records",
            "without effect",
        ],
        rows: report.members.iter().map(row).collect(),
        plot: Plot::Rows,
    }
}

fn counts(id: &'static str, title: &'static str, note: &'static str, key: &'static str, rows: &[Count]) -> Table {
    let rows = rows.iter().map(|row| vec![text(&row.name), Cell::Count(row.count)]).collect();
    Table { id, title, note, columns: vec![key, "count"], rows, plot: Plot::Rows }
}

fn times(report: &Report) -> Table {
    let Report { endorsements, disputes, retractions, white_list, referrals, incidents, actions, .. } = report;
    let rows: [(&str, &Times); 10] = [
        ("from the first listing to a second company group", &endorsements.time_to_corroborate),
        ("from a dispute to its withdrawal", &disputes.time_to_withdraw),
        ("from the first vote to the retraction", &retractions.time_from_first_vote),
        ("from the first listing to the retraction", &retractions.time_from_listing),
        ("from the listing until nobody stood behind it", &retractions.time_listed),
        ("of a white-list conflict", &white_list.time_in_conflict),
        ("from a referral to a full member that stands behind it", &referrals.time_to_confirm),
        ("from a referral to its closing", &referrals.time_to_close),
        ("of an incident", &incidents.time_open),
        ("from the first listing or referral to what a company did", &actions.time_to_act),
    ];
    let row = |(name, t): (&str, &Times)| {
        vec![text(name), Cell::Count(t.count), Cell::Span(t.median_ms), Cell::Span(t.p90_ms), Cell::Span(t.longest_ms)]
    };
    Table {
        id: "times",
        title: "How long things took",
        note: "Of what came about in the period. The median is the value in the middle, of two the smaller; nine in ten took no longer than the next.",
        columns: vec!["time", "count", "median", "nine in ten", "longest"],
        rows: rows.into_iter().map(row).collect(),
        plot: Plot::None,
    }
}

fn incidents(report: &Report) -> Table {
    let row = |i: &super::IncidentRow| {
        vec![
            text(&i.id),
            text(&i.label),
            text(&i.opened_by),
            Cell::Moment(Some(i.opened_ms)),
            Cell::Moment(i.closed_ms),
            Cell::Count(i.entries),
        ]
    };
    Table {
        id: "incidents",
        title: "Incidents",
        note: "Those that were open at any time of the period, and how many entries were ever tied to them.",
        columns: vec!["incident", "labels", "opened by", "opened", "closed", "entries"],
        rows: report.incidents.list.iter().map(row).collect(),
        plot: Plot::None,
    }
}

fn heads(report: &Report) -> Table {
    let row = |h: &super::HeadRow| {
        let counts = [Cell::Count(u64::from(h.log_no)), text(&h.lane), Cell::Count(h.seq), text(&h.header_hash)];
        [vec![text(&h.member), text(&h.member_id)], counts.to_vec()].concat()
    };
    Table {
        id: "heads",
        title: "The logs it was computed from",
        note: "The last block of each log that counts and is of a time before the end of the period.",
        columns: vec!["member", "member id", "log", "lane", "block", "header hash"],
        rows: report.head.heads.iter().map(row).collect(),
        plot: Plot::None,
    }
}

impl Cell {
    /// As a number, if it is one.
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Count(count) => Some(*count),
            _ => None,
        }
    }

    /// As a person reads it.
    pub fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Count(count) => grouped(*count, '\u{202f}'),
            Self::Span(span) => span.map_or_else(|| "–".into(), super::time::span),
            Self::Moment(at) => at.map_or_else(|| "–".into(), |at| super::time::rfc3339(TimeMs(at))),
        }
    }
}

/// `1 234 567`, with `between` between the groups.
pub fn grouped(count: u64, between: char) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3 * between.len_utf8());
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(between);
        }
        out.push(digit);
    }
    out
}
