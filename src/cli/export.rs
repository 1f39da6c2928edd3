//! `list export`: the list, or a part of it, as other programs read it, and as `submit --from` reads it back.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::failure::{Exit, Failure, Outcome, io_failure};
use super::foreign::{self, Exported};
use super::list::{Which, request};
use super::rows::{COLUMNS, Format};
use super::{Invocation, show};
use crate::replica::ids::TimeMs;
use crate::wire::local;

/// Columns of [`COLUMNS`] that are a company's own and not the forum's: an entry has none of them.
const OWN: [&str; 3] = ["confidence", "basis", "review"];
/// Statuses that are exported unless others are asked for: whoever reads the file takes it for a list of what is bad.
const LISTED: [&str; 2] = ["ACTIVE", "PROVISIONAL"];

#[derive(Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    which: Which,
    /// Also what is contested, certified, referred, retracted or withdrawn; its status is beside it
    #[arg(long, conflicts_with = "status")]
    all: bool,
    /// Format of the file [default: by its name, or jsonl]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The file to write; an older one of this name is replaced when the new one is whole [default: stdout]
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Where the rows go.
enum Sink {
    Stdout(io::Stdout),
    /// Under another name until it is whole.
    Beside {
        file: BufWriter<File>,
        beside: PathBuf,
        path: PathBuf,
    },
}

impl Sink {
    fn begin(out: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = out else { return Ok(Self::Stdout(io::stdout())) };
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let beside = path.with_file_name(name);
        let file = BufWriter::new(File::create(&beside).map_err(io_failure(beside.display()))?);
        Ok(Self::Beside { file, beside, path: path.to_owned() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Stdout(stdout) => stdout.lock().write_all(bytes).map_err(io_failure("stdout")),
            Self::Beside { file, beside, .. } => file.write_all(bytes).map_err(io_failure(beside.display())),
        }
    }

    /// Brings the file to stable storage, and gives it its name.
    fn end(self) -> Result<(), Failure> {
        let Self::Beside { file, beside, path } = self else { return Ok(()) };
        let failed = |error| io_failure(path.display())(error);
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        fs::rename(&beside, &path).map_err(failed)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

pub(super) async fn export(args: &ExportArgs, at: &Invocation) -> Outcome {
    let format = match (&args.out, args.format) {
        (Some(path), format) => Format::of(format, path)?,
        (None, format) => format.unwrap_or(Format::Jsonl),
    };
    let request = request(&args.which, args.all)?;
    let any = args.all || !request.status.is_empty();
    let node = at.node().await?;
    let mut sink = Sink::begin(args.out.as_deref())?;
    let beside = match &sink {
        Sink::Beside { beside, .. } => Some(beside.clone()),
        Sink::Stdout(_) => None,
    };
    let bar = at.terminal.progress(0, "looked at");
    let mut written = 0_u64;
    let mut before = 0;
    let taken = async {
        if let Some(header) = header(format) {
            sink.write(header.as_bytes())?;
        }
        let taken = node.export(request, |part| {
            for entry in part.entries.iter().filter(|entry| any || LISTED.contains(&entry.status.as_str())) {
                sink.write(&row(entry, format)?)?;
                written += 1;
            }
            bar.set_length(part.subjects);
            bar.set_position(part.looked_at);
            if args.out.is_some() {
                at.terminal.passed(before, part.looked_at, part.subjects, "looked at");
            }
            before = part.looked_at;
            Ok(())
        });
        taken.await?;
        sink.end()
    };
    let taken = taken.await;
    bar.finish_and_clear();
    taken.inspect_err(|_failed| drop(beside.map(fs::remove_file)))?;
    let entries = show::counted(usize::try_from(written).unwrap_or(usize::MAX), "entry");
    match &args.out {
        Some(path) if at.terminal.json => {
            at.terminal.json(&json!({ "entries": written, "file": path.display().to_string() }))?;
        }
        Some(path) => at.terminal.talk(format!("{entries} written to {}", path.display())),
        None => at.terminal.talk(entries),
    }
    Ok(if written == 0 { Exit::NotFound } else { Exit::Ok })
}

/// The columns of an export, in their order.
fn columns() -> impl Iterator<Item = &'static str> {
    COLUMNS.into_iter().filter(|column| !OWN.contains(column))
}

fn header(format: Format) -> Option<String> {
    (format == Format::Csv).then(|| columns().collect::<Vec<_>>().join(",") + "\n")
}

/// The line of an entry.
fn row(entry: &local::Entry, format: Format) -> Result<Vec<u8>, Failure> {
    let signal = entry.signal.clone().unwrap_or_default();
    let behind = || entry.said.iter().filter(|said| said.counts && matches!(said.what.as_str(), "SUBMIT" | "ENDORSE"));
    let qualities = entry.said.iter().filter_map(|said| Some(said.details.as_ref()?.quality));
    let exported = Exported {
        type_name: &signal.r#type,
        value: &signal.value,
        labels: &entry.labels,
        languages: &entry.languages,
        severity: behind().map(|said| said.severity).max().unwrap_or(0),
        // As long as anybody stands behind it.
        expires: match behind().any(|said| said.expires_ms == 0) {
            true => TimeMs(0),
            false => TimeMs(behind().map(|said| said.expires_ms).max().unwrap_or(0)),
        },
        quality: qualities.max().unwrap_or(0),
        status: &entry.status,
    };
    let members: Vec<_> = behind().map(|said| said.member.clone()).collect();
    let mut line = match format {
        Format::Csv => table_row(&exported, entry.first_seen_ms, &members)?,
        Format::Jsonl => object(&exported, entry.first_seen_ms, &members).to_string().into_bytes(),
        Format::Threatexchange => foreign::threatexchange(&exported).to_string().into_bytes(),
        Format::LocalFile => foreign::local_file(&exported).into_bytes(),
    };
    line.push(b'\n');
    Ok(line)
}

fn some(number: u64) -> String {
    if number == 0 { String::new() } else { number.to_string() }
}

fn table_row(entry: &Exported<'_>, first_seen_ms: u64, members: &[String]) -> Result<Vec<u8>, Failure> {
    let cell = |column: &str| match column {
        "type" => entry.type_name.to_owned(),
        "value" => entry.value.to_owned(),
        "labels" => entry.labels.join(";"),
        "languages" => entry.languages.join(";"),
        "severity" => some(u64::from(entry.severity)),
        "expires" => some(entry.expires.0),
        "quality" => some(u64::from(entry.quality)),
        "status" => entry.status.to_owned(),
        "first_seen" => some(first_seen_ms),
        "members" => members.join(";"),
        _ => String::new(),
    };
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::Any(b'\n')).from_writer(Vec::new());
    let bug = |error: &dyn std::error::Error| Failure::new(Exit::Bug, error.to_string());
    writer.write_record(columns().map(cell)).map_err(|error| bug(&error))?;
    let mut line = writer.into_inner().map_err(|error| bug(&error))?;
    line.pop();
    Ok(line)
}

fn object(entry: &Exported<'_>, first_seen_ms: u64, members: &[String]) -> serde_json::Value {
    let mut object = json!({
        "type": entry.type_name, "value": entry.value, "labels": entry.labels, "languages": entry.languages,
        "severity": entry.severity, "status": entry.status, "first_seen": first_seen_ms, "members": members,
    });
    if entry.expires > TimeMs(0) {
        object["expires"] = entry.expires.0.into();
    }
    if entry.quality > 0 {
        object["quality"] = entry.quality.into();
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(member: &str, what: &str, severity: u32, expires_ms: u64) -> local::Said {
        let (member, what) = (member.to_owned(), what.to_owned());
        local::Said { member, what, severity, expires_ms, counts: true, ..Default::default() }
    }

    fn entry() -> local::Entry {
        let quality = local::Details { quality: 80, ..Default::default() };
        local::Entry {
            signal: Some(local::Signal { r#type: "pdq".to_owned(), value: "00ff".to_owned() }),
            status: "ACTIVE".to_owned(),
            labels: vec!["symbol".to_owned(), "other".to_owned()],
            languages: vec!["fr".to_owned()],
            first_seen_ms: 7,
            said: vec![
                local::Said { details: Some(quality), ..said("acme", "SUBMIT", 1, 100) },
                said("bolt", "ENDORSE", 3, 200),
                said("cyan", "DISPUTE", 4, 0),
            ],
            ..Default::default()
        }
    }

    #[test]
    fn an_entry_has_one_row_in_each_format() {
        for (format, expected) in
            [(Format::Csv, "pdq,00ff,symbol;other,fr,3,200,80,ACTIVE,7,acme;bolt\n"), (Format::LocalFile, "pdq 00ff\n")]
        {
            assert_eq!(String::from_utf8(row(&entry(), format).unwrap()).unwrap(), expected);
        }
        let object: serde_json::Value = serde_json::from_slice(&row(&entry(), Format::Jsonl).unwrap()).unwrap();
        assert_eq!((&object["expires"], &object["quality"]), (&json!(200), &json!(80)));
        let theirs: serde_json::Value =
            serde_json::from_slice(&row(&entry(), Format::Threatexchange).unwrap()).unwrap();
        assert_eq!((&theirs["type"], &theirs["severity"]), (&json!("HASH_PDQ"), &json!("SEVERE")));
        assert_eq!(header(Format::Csv).unwrap().matches(',').count(), 9);
    }

    #[test]
    fn what_one_member_says_for_ever_does_not_end() {
        let mut entry = entry();
        entry.said[1].expires_ms = 0;
        let line = String::from_utf8(row(&entry, Format::Csv).unwrap()).unwrap();
        assert!(line.starts_with("pdq,00ff,symbol;other,fr,3,,80,"), "{line}");
    }

    #[test]
    fn a_file_gets_its_name_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.csv");
        fs::write(&path, "before").unwrap();
        let mut sink = Sink::begin(Some(&path)).unwrap();
        sink.write(b"after").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
        sink.end().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
