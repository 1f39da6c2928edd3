//! `report`: the transparency report of a period, as JSON, CSV or one HTML page; apart from it what only this node knows.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::Invocation;
use super::failure::{Exit, Failure, Outcome, io_failure};
use crate::clock;
use crate::replica::ids::TimeMs;
use crate::report::local::LocalPart;
use crate::report::{Report, csv, html, time};
use crate::wire::local;
use crate::wire::local::report_part::Part;

/// What the report is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For programs
    Json,
    /// For spreadsheets: a table a section
    Csv,
    /// For people: one page with plots, that needs nothing from elsewhere
    Html,
}

#[derive(Args)]
pub(super) struct ReportArgs {
    /// Its beginning: a date, or a full hour as 2026-07-01T06:00:00Z, in UTC
    #[arg(long, value_name = "DATE")]
    from: String,
    /// Its end, which is not part of it: a date, a full hour, or now for the start of the current hour
    #[arg(long, value_name = "DATE")]
    to: String,
    /// json, csv or html [default: as the file is called, else json]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write it to this file instead of stdout
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Let it reach to the end of the current hour: it says so, and is another report a minute later
    #[arg(long)]
    open: bool,
    /// Also show what only this node knows; never part of the file
    #[arg(long, requires = "out")]
    local: bool,
}

pub(super) async fn report(args: &ReportArgs, at: &Invocation) -> Outcome {
    let now = clock::now();
    let moment = |flag: &str, text: &str| match text {
        "now" => Ok(now.hour().plus(if args.open { TimeMs::HOUR_MS } else { 0 })),
        text => time::parse(text).map_err(|why| Failure::new(Exit::Usage, format!("{flag}: {why}"))),
    };
    let (from, to) = (moment("--from", &args.from)?, moment("--to", &args.to)?);
    let format = format(args, at.terminal.json);
    let request = local::ReportRequest { from_ms: from.0, to_ms: to.0, open: args.open, local: args.local };
    let (forum, local) = asked(request, at).await?;
    let report: Report = read(&forum)?;
    let text = match format {
        Format::Json => report.to_json().map_err(|error| Failure::new(Exit::Bug, error.to_string()))?,
        Format::Csv => csv::render(&report),
        Format::Html => html::render(&report),
    };
    match &args.out {
        None => at.terminal.data(text.trim_end())?,
        Some(file) => {
            fs::write(file, text).map_err(io_failure(file.display()))?;
            at.terminal.talk(written(&report, file));
        }
    }
    if let Some(local) = local {
        show_local(&read(&local)?, at)?;
    }
    Ok(Exit::Ok)
}

/// What the node answers: the forum's part, and the local one if it was asked for.
async fn asked(request: local::ReportRequest, at: &Invocation) -> Result<(Vec<u8>, Option<Vec<u8>>), Failure> {
    let node = at.node().await?;
    let bar = at.terminal.progress(0, "blocks");
    let (mut forum, mut local, mut before) = (None, None, 0);
    node.report(request, |part| match part {
        Part::Progress(told) => {
            bar.set_length(told.blocks_total);
            bar.set_position(told.blocks_read);
            at.terminal.passed(before, told.blocks_read, told.blocks_total, "blocks");
            before = told.blocks_read;
        }
        Part::Forum(json) => forum = Some(json.to_vec()),
        Part::Local(json) => local = Some(json.to_vec()),
    })
    .await?;
    bar.finish_and_clear();
    let forum = forum.ok_or_else(|| Failure::new(Exit::Failed, "the node ended its answer before the report"))?;
    Ok((forum, local))
}

fn read<'a, T: serde::Deserialize<'a>>(json: &'a [u8]) -> Result<T, Failure> {
    let wrong = |error: serde_json::Error| {
        let cause = format!("the node's report cannot be read: {error}");
        Failure::new(Exit::Failed, cause).fix("run the same release as the node")
    };
    serde_json::from_slice(json).map_err(wrong)
}

fn format(args: &ReportArgs, json: bool) -> Format {
    let named = args.out.as_deref().and_then(Path::extension).map(|e| e.to_ascii_lowercase());
    match named.as_ref().and_then(|ending| ending.to_str()) {
        _ if args.format.is_some() || json => args.format.unwrap_or(Format::Json),
        Some("csv") => Format::Csv,
        Some("html" | "htm") => Format::Html,
        _ => Format::Json,
    }
}

fn written(report: &Report, file: &Path) -> String {
    let Report { head, entries, .. } = report;
    let open = if head.closed { "" } else { " (still open)" };
    format!(
        "{} to {}{open}: {} new entries, {} at the end; computed from {} blocks, written to {}",
        head.from,
        head.to,
        entries.new,
        entries.at_end,
        head.blocks,
        file.display()
    )
}

fn show_local(part: &LocalPart, at: &Invocation) -> Result<(), Failure> {
    if at.terminal.json {
        return at.terminal.json(part);
    }
    for (name, value) in part.lines() {
        at.terminal.data(format!("{name}: {value}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_asked_for_or_that_of_the_file() {
        let args = |out: Option<&str>, format| ReportArgs {
            from: String::new(),
            to: String::new(),
            format,
            out: out.map(PathBuf::from),
            open: false,
            local: false,
        };
        for (out, given, json, expected) in [
            (None, None, false, Format::Json),
            (Some("q3.html"), None, false, Format::Html),
            (Some("q3.HTM"), None, false, Format::Html),
            (Some("q3.csv"), None, false, Format::Csv),
            (Some("q3"), None, false, Format::Json),
            (Some("q3.csv"), Some(Format::Html), false, Format::Html),
            (Some("q3.csv"), None, true, Format::Json),
            (None, Some(Format::Csv), true, Format::Csv),
        ] {
            assert_eq!(format(&args(out, given), json), expected, "{out:?} {given:?} {json}");
        }
    }
}
