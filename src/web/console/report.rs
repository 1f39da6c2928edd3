//! `/report`: the transparency report of a quarter or of any period, with charts, its figures in tables, and the same
//! files that the command line writes.

use askama::Template;
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use serde::Deserialize;
use tonic::{Code, Status};

use super::page::{Nav, Page, Said, Visitor, html};
use super::pieces::encoded;
use super::svg::{Chart, Drawn};
use crate::clock;
use crate::net::status::{bad_field, refuse};
use crate::replica::ids::TimeMs;
use crate::report::local::LocalPart;
use crate::report::tables::{Cell, Plot, Table, tables};
use crate::report::{Report, csv, html as report_html, time};
use crate::web::{Problem, Web};
use crate::wire::local as l;
use crate::wire::local::report_part::Part;
use crate::wire::local_service::forum_server::Forum as _;

/// Quarters that are offered: two years.
const QUARTERS_SHOWN: usize = 8;
/// Records up to which the current quarter is reported to whoever opens the page: it takes a second or two. Of more, a
/// person says first which period they want; the node makes one report at a time, and reads everything for it.
const RECORDS_UNASKED_MAX: u64 = 200_000;
/// Rows of a table that stand open; longer ones are folded away.
const ROWS_OPEN_MAX: usize = 30;

/// The period that is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    /// `2026-Q3`; else `from` and `to`.
    quarter: String,
    from: String,
    to: String,
    /// Of a download: json, csv or html.
    format: String,
    said: String,
}

/// A calendar quarter of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quarter {
    year: u64,
    number: u64,
}

impl Quarter {
    fn of(at: TimeMs) -> Self {
        let date = time::date(at);
        let part = |range: std::ops::Range<usize>| date.get(range).and_then(|digits| digits.parse().ok());
        let (year, month) = (part(0..4).unwrap_or(1970), part(5..7).unwrap_or(1_u64));
        Self { year, number: month.div_ceil(3) }
    }

    fn parse(text: &str) -> Option<Self> {
        let (year, number) = text.split_once("-Q")?;
        let (year, number) = (year.parse().ok()?, number.parse().ok()?);
        ((1970..=9_999).contains(&year) && (1..=4).contains(&number)).then_some(Self { year, number })
    }

    fn name(self) -> String {
        format!("{}-Q{}", self.year, self.number)
    }

    fn start(self) -> TimeMs {
        time::parse_date(&format!("{:04}-{:02}-01", self.year, self.number * 3 - 2)).unwrap_or(TimeMs(0))
    }

    fn next(self) -> Self {
        match self.number {
            4 => Self { year: self.year + 1, number: 1 },
            number => Self { number: number + 1, ..self },
        }
    }

    fn before(self) -> Self {
        match self.number {
            1 => Self { year: self.year.saturating_sub(1), number: 4 },
            number => Self { number: number - 1, ..self },
        }
    }
}

/// From, to, and whether it is still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Period {
    from: TimeMs,
    to: TimeMs,
    open: bool,
}

/// What was asked for, at `now`: the current quarter unless something is.
fn period(asked: &Asked, now: TimeMs) -> Result<Period, Status> {
    let end = now.hour().plus(TimeMs::HOUR_MS);
    let reach = |from: TimeMs, to: TimeMs| Period { from, to: to.min(end), open: to > now.hour() };
    if asked.from.is_empty() && asked.to.is_empty() {
        let quarter = match asked.quarter.as_str() {
            "" => Quarter::of(now),
            text => Quarter::parse(text)
                .ok_or_else(|| bad_field("quarter", format!("is {text:?}, expected one as 2026-Q3")))?,
        };
        if quarter.start() > now {
            return Err(bad_field("quarter", format!("{} has not begun", quarter.name())));
        }
        return Ok(reach(quarter.start(), quarter.next().start()));
    }
    let moment = |field: &'static str, text: &str| time::parse(text).map_err(|why| bad_field(field, why));
    let to = if asked.to.is_empty() { end } else { moment("to", &asked.to)? };
    Ok(reach(moment("from", &asked.from)?, to))
}

/// A section of the page.
struct Section {
    id: &'static str,
    title: &'static str,
    note: &'static str,
    chart: Option<Drawn>,
    columns: Vec<(&'static str, bool)>,
    rows: Vec<Vec<(String, bool)>>,
    open: bool,
}

/// What the report says.
struct Told {
    new: u64,
    at_end: u64,
    disputes: u64,
    referrals: u64,
    sections: Vec<Section>,
}

impl Told {
    fn of(report: &Report) -> Self {
        let mut sections: Vec<_> = tables(report).iter().map(section).collect();
        // What it was computed from stands first in a file, and last on a page.
        sections.rotate_left(1);
        Self {
            new: report.entries.new,
            at_end: report.entries.at_end,
            disputes: report.disputes.disputes,
            referrals: report.referrals.opened,
            sections,
        }
    }
}

#[derive(Template)]
#[template(path = "report.html")]
struct ReportPage {
    page: Page,
    quarters: Vec<(String, bool)>,
    from: String,
    to: String,
    open: bool,
    query: String,
    told: Option<Told>,
    local: Vec<(&'static str, String)>,
}

/// The report as a page.
pub(super) async fn show(
    State(web): State<Web>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let page = Page::new(&web, &visitor, "Report", Nav::Report, &Said::of(&asked.said)).await?;
    let period = period(&asked, page.now)?;
    let unasked = asked.quarter.is_empty() && asked.from.is_empty() && asked.to.is_empty();
    let (told, local) = if unasked && is_long(&web, &visitor).await? {
        (None, None)
    } else {
        let (report, local) = computed(&web, &visitor, period, true).await?;
        (Some(Told::of(&report)), local)
    };
    let chosen = Quarter::parse(&asked.quarter).unwrap_or_else(|| Quarter::of(page.now));
    let own = !asked.from.is_empty();
    let mut quarter = Quarter::of(page.now);
    let mut quarters = Vec::new();
    for _ in 0..QUARTERS_SHOWN {
        quarters.push((quarter.name(), !own && quarter == chosen));
        quarter = quarter.before();
    }
    let (from, to) = (time::rfc3339(period.from), time::rfc3339(period.to));
    html(&ReportPage {
        quarters,
        open: period.open,
        query: format!("from={}&to={}", encoded(&from), encoded(&to)),
        from: from.get(..10).unwrap_or_default().to_owned(),
        to: to.get(..10).unwrap_or_default().to_owned(),
        told,
        local: local.map(|part| part.lines()).unwrap_or_default(),
        page,
    })
}

/// Whether a report takes long here.
async fn is_long(web: &Web, visitor: &Visitor) -> Result<bool, Problem> {
    let status = web.service.status(web.ask(visitor.caller(), l::StatusRequest {})).await?.into_inner();
    Ok(status.records > RECORDS_UNASKED_MAX)
}

/// Asks the node, and reads what it answers.
async fn computed(
    web: &Web,
    visitor: &Visitor,
    period: Period,
    local: bool,
) -> Result<(Report, Option<LocalPart>), Problem> {
    let request = l::ReportRequest { from_ms: period.from.0, to_ms: period.to.0, open: period.open, local };
    let mut parts = web.service.report(web.ask(visitor.caller(), request)).await?.into_inner();
    let (mut forum, mut own) = (None, None);
    while let Some(part) = parts.next().await {
        match part?.part {
            Some(Part::Forum(json)) => forum = Some(read(&json)?),
            Some(Part::Local(json)) => own = Some(read(&json)?),
            Some(Part::Progress(_)) | None => {}
        }
    }
    let ended = || Problem::from(refuse(Code::Unavailable, "REPORT", "the node ended its answer before the report"));
    Ok((forum.ok_or_else(ended)?, own))
}

fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Status> {
    serde_json::from_slice(json).map_err(|e| refuse(Code::Internal, "BUG", format!("the report cannot be read: {e}")))
}

fn section(table: &Table) -> Section {
    let figure = |column: usize| {
        matches!(table.rows.first().and_then(|row| row.get(column)), Some(Cell::Count(_) | Cell::Span(_)))
    };
    let is_figure: Vec<bool> = (0..table.columns.len()).map(figure).collect();
    let row = |row: &Vec<Cell>| row.iter().map(Cell::shown).zip(is_figure.iter().copied()).collect();
    Section {
        id: table.id,
        title: table.title,
        note: table.note,
        chart: chart(table),
        columns: table.columns.iter().copied().zip(is_figure.iter().copied()).collect(),
        rows: table.rows.iter().map(row).collect(),
        open: table.rows.len() <= ROWS_OPEN_MAX,
    }
}

/// The chart of a table that has one; its figures are those of the table.
fn chart(table: &Table) -> Option<Drawn> {
    let places = table.rows.iter().map(|row| row.first().map(Cell::shown).unwrap_or_default()).collect();
    let key = table.columns.first().copied().unwrap_or_default();
    let values = |column: usize| -> Vec<u64> {
        table.rows.iter().map(|row| row.get(column).and_then(Cell::number).unwrap_or_default()).collect()
    };
    let counts: Vec<usize> = (1..table.columns.len())
        .filter(|column| table.rows.iter().any(|row| row[*column].number().is_some()))
        .collect();
    let chart = Chart::new(table.id, table.title, table.note).over(key, places).only_drawn();
    let with = |chart: Chart, column: &usize| chart.with(table.columns[*column], values(*column));
    match table.plot {
        _ if table.rows.is_empty() => None,
        Plot::None => None,
        Plot::Days => Some(counts.iter().fold(chart, with).stacked()),
        Plot::Rows => counts.first().map(|column| with(chart, column).bars()),
    }
}

/// The report as a file.
pub(super) async fn download(
    State(web): State<Web>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let period = period(&asked, clock::now())?;
    let (report, _) = computed(&web, &visitor, period, false).await?;
    let (media, ending, text) = match asked.format.as_str() {
        "json" => {
            let text = report.to_json().map_err(|e| refuse(Code::Internal, "BUG", e.to_string()))?;
            ("application/json", "json", text)
        }
        "csv" => ("text/csv; charset=utf-8", "csv", csv::render(&report)),
        "html" => ("text/html; charset=utf-8", "html", report_html::render(&report)),
        other => return Err(bad_field("format", format!("is {other:?}, expected json, csv or html")).into()),
    };
    let (from, to) = (time::date(period.from), time::date(period.to));
    // Dates and a fixed ending: nothing that anybody typed is in the name.
    let disposition = format!("attachment; filename=\"report-{from}-{to}.{ending}\"");
    Ok(([(CONTENT_TYPE, media.to_owned()), (CONTENT_DISPOSITION, disposition)], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;
    use crate::web::console::saying::testing::{HOSTILE, page, posts, rendered};

    const NOW: TimeMs = TimeMs(1_795_000_000_000); // 2026-11-18T11:06:40Z

    fn asked(quarter: &str, from: &str, to: &str) -> Asked {
        Asked { quarter: quarter.into(), from: from.into(), to: to.into(), ..Asked::default() }
    }

    fn shown(asked: &Asked) -> Result<String, Status> {
        let Period { from, to, open } = period(asked, NOW)?;
        Ok(format!("{} {} {open}", time::rfc3339(from), time::rfc3339(to)))
    }

    #[test]
    fn a_quarter_is_closed_or_reaches_to_this_hour() {
        for (asked, expected) in [
            (asked("", "", ""), "2026-10-01T00:00:00Z 2026-11-18T12:00:00Z true"),
            (asked("2026-Q3", "", ""), "2026-07-01T00:00:00Z 2026-10-01T00:00:00Z false"),
            (asked("2025-Q4", "", ""), "2025-10-01T00:00:00Z 2026-01-01T00:00:00Z false"),
            (asked("2026-Q3", "2026-11-01", "2026-11-08"), "2026-11-01T00:00:00Z 2026-11-08T00:00:00Z false"),
            (asked("", "2026-11-01", ""), "2026-11-01T00:00:00Z 2026-11-18T12:00:00Z true"),
            (asked("", "2026-11-01", "2027-01-01"), "2026-11-01T00:00:00Z 2026-11-18T12:00:00Z true"),
        ] {
            assert_eq!(shown(&asked).unwrap(), expected);
        }
        for wrong in
            [asked("2026-Q5", "", ""), asked("2027-Q1", "", ""), asked("", "soon", ""), asked("", "", "2026-11-01")]
        {
            assert!(period(&wrong, NOW).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn quarters_go_back_over_the_year() {
        let quarter = Quarter { year: 2026, number: 1 };
        assert_eq!(quarter.before().name(), "2025-Q4");
        assert_eq!(quarter.before().next(), quarter);
        assert_eq!(Quarter::of(quarter.start()), quarter);
    }

    #[test]
    fn a_chart_draws_the_figures_of_its_table() {
        let count = |n| Cell::Count(n);
        let table = Table {
            id: "days",
            title: "Day by day",
            note: "n",
            columns: vec!["day", "new", "disputes"],
            rows: vec![vec![Cell::Text("2026-11-01".into()), count(3), count(1)]],
            plot: Plot::Days,
        };
        let drawn = chart(&table).unwrap().to_string();
        assert!(drawn.contains("2026-11-01: new 3") && drawn.contains("2026-11-01: disputes 1"), "{drawn}");
        let section = section(&table);
        assert_eq!(section.rows[0], [("2026-11-01".to_owned(), false), ("3".to_owned(), true), ("1".to_owned(), true)]);
        assert!(chart(&Table { rows: Vec::new(), ..table }).is_none());
    }

    #[test]
    fn what_members_wrote_stays_text() {
        let table = Table {
            id: "incidents",
            title: "Incidents",
            note: "n",
            columns: vec!["label", "count"],
            rows: vec![vec![Cell::Text(HOSTILE.into()), Cell::Count(2)]],
            plot: Plot::Rows,
        };
        let text = rendered(&ReportPage {
            page: page(Role::Viewer, Nav::Report),
            quarters: vec![(HOSTILE.into(), true)],
            from: HOSTILE.into(),
            to: HOSTILE.into(),
            open: true,
            query: encoded(HOSTILE),
            told: Some(Told { new: 1, at_end: 1, disputes: 0, referrals: 0, sections: vec![section(&table)] }),
            local: vec![("lookups", HOSTILE.into())],
        });
        assert_eq!(posts(&text), 1);
    }
}
