//! `submit --from FILE.csv`: thousands of hashes. The whole file is understood before the first row is sent, and a
//! second run says nothing twice: the key of a row follows from what it says.

use std::fs::File;
use std::io;
use std::path::Path;

use csv::{ReaderBuilder, StringRecord, Trim};
use tokio::task::JoinSet;

use super::client::Node;
use super::failure::{Exit, Failure, Outcome, io_failure};
use super::item::Hash;
use super::submit::{Terms, derived_key, statement};
use super::{Invocation, show, taxonomy};
use crate::clock;
use crate::config::nearest;
use crate::replica::ids::TimeMs;
use crate::replica::signal;
use crate::replica::taxonomy::{Taxonomy, Unsayable};
use crate::wire::files::is_language;
use crate::wire::local;

/// Rows of one call: below the service's limit, with room for a log's opening.
const BATCH_ROWS: usize = 500;
/// Calls under way: enough that the node's group commit never waits for us, few enough to stop soon.
const CALLS_MAX: usize = 4;
/// Mistakes shown; a file with more has one mistake in every row.
const MISTAKES_MAX: usize = 20;
/// Longest row: a record's own limit.
const ROW_SIZE_MAX: usize = 4_096;

const COLUMNS: [&str; 7] = ["type", "value", "labels", "languages", "severity", "expires", "quality"];

pub(super) async fn backfill(
    path: &Path,
    defaults: &Terms,
    lane: local::Lane,
    base: [u8; 16],
    at: &Invocation,
) -> Outcome {
    let now = clock::now();
    let unreadable = || io_failure(path.display().to_string());
    // Read twice: a pipe would be empty the second time.
    if path.exists() && !path.is_file() {
        return Err(Failure::new(Exit::BadInput, format!("{} is not a regular file", path.display())));
    }
    let open = || match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::new(Exit::BadInput, format!("{}: {error}", path.display())))
        }
        opened => opened.map_err(unreadable()),
    };
    // Without a node nothing is sent anyway; what else is wrong with the file is told all the same.
    let labels = match at.node().await {
        Ok(node) => Some(taxonomy::of_node(&node).await?.taxonomy),
        Err(_unreachable) => None,
    };
    let total = check(open()?, defaults, labels.as_ref(), now).map_err(|failure| named(failure, path))?;
    if total == 0 {
        return Err(Failure::new(Exit::BadInput, format!("{}: there is no row below the header", path.display())));
    }
    let node = at.node().await?;
    let sent = Box::pin(send(open()?, defaults, now, (lane, base), &node, total, at)).await;
    let sent = sent.map_err(|failure| named(failure, path))?;
    if at.terminal.json {
        at.terminal.json(&serde_json::json!({ "rows": sent.rows, "durable": sent.durable, "queued": sent.queued }))?;
    } else {
        let queued = if sent.queued > 0 { format!(", {} queued", show::count(sent.queued)) } else { String::new() };
        at.terminal.talk(format!("{} rows, {} durable{queued}", show::count(sent.rows), show::count(sent.durable)));
    }
    Ok(Exit::Ok)
}

fn named(mut failure: Failure, path: &Path) -> Failure {
    failure.cause = format!("{}: {}", path.display(), failure.cause);
    failure
}

/// What was acknowledged.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    rows: u64,
    durable: u64,
    queued: u64,
}

async fn send(
    file: impl io::Read,
    defaults: &Terms,
    now: TimeMs,
    (lane, base): (local::Lane, [u8; 16]),
    node: &Node,
    total: u64,
    at: &Invocation,
) -> Result<Sent, Failure> {
    let bar = at.terminal.progress(total, "rows");
    let mut rows = Rows::new(file, defaults, None, now)?;
    let mut calls = JoinSet::new();
    let mut sent = Sent::default();
    loop {
        let mut batch = Vec::with_capacity(BATCH_ROWS);
        while batch.len() < BATCH_ROWS
            && let Some(row) = rows.next_row()?
        {
            let row =
                row.map_err(|_mistake| Failure::new(Exit::BadInput, "the file changed while it was being sent"))?;
            let key = derived_key(&base, &row.hash, &row.terms);
            batch.push(statement(&row.hash, &row.terms, key, None));
        }
        let is_last = batch.len() < BATCH_ROWS;
        if !batch.is_empty() {
            calls.spawn(call(node.clone(), batch, lane));
        }
        while calls.len() >= CALLS_MAX || is_last && !calls.is_empty() {
            let answered = calls.join_next().await.and_then(Result::ok);
            let lost = || Err(Failure::new(Exit::Bug, "a call to the node was lost"));
            let (rows, state) = answered.unwrap_or_else(lost).map_err(|failure| stopped(failure, sent))?;
            match state {
                local::SubmitState::Queued => sent.queued += rows,
                _ => sent.durable += rows,
            }
            at.terminal.passed(sent.rows, sent.rows + rows, total, "rows");
            sent.rows += rows;
            bar.set_position(sent.rows);
        }
        if is_last {
            bar.finish_and_clear();
            return Ok(sent);
        }
    }
}

async fn call(
    node: Node,
    batch: Vec<local::Statement>,
    lane: local::Lane,
) -> Result<(u64, local::SubmitState), Failure> {
    let rows = batch.len() as u64;
    let request = local::SubmitRequest { statements: batch, lane: lane as i32, ..Default::default() };
    let answer = node.submit(request).await?;
    Ok((rows, answer.state()))
}

fn stopped(failure: Failure, sent: Sent) -> Failure {
    let told = format!("{} rows were acknowledged before; nothing of them is lost", show::count(sent.rows));
    let failure = failure.culprit(told);
    match failure.fix {
        Some(_) => failure,
        None => failure.fix("run the same command again: it goes on, and says nothing twice"),
    }
}

/// Reads the whole file and sends nothing. Returns the number of rows.
fn check(file: impl io::Read, defaults: &Terms, labels: Option<&Taxonomy>, now: TimeMs) -> Result<u64, Failure> {
    let mut rows = Rows::new(file, defaults, labels, now)?;
    let (mut count, mut mistakes) = (0, Vec::new());
    while let Some(row) = rows.next_row()? {
        count += 1;
        if let Err(mistake) = row {
            mistakes.push(mistake);
            if mistakes.len() >= MISTAKES_MAX {
                mistakes.push("and perhaps more".to_owned());
                break;
            }
        }
    }
    if mistakes.is_empty() {
        return Ok(count);
    }
    let failure = Failure { culprits: mistakes, ..Failure::new(Exit::BadInput, "rows are wrong, nothing was sent") };
    Err(failure.fix("correct these lines and run it again"))
}

/// A row that is understood.
#[derive(Debug)]
struct Row {
    hash: Hash,
    terms: Terms,
}

/// The rows of a file, one after the other: the file may be larger than memory.
struct Rows<'a, R> {
    reader: csv::Reader<R>,
    /// Index in the file of each of [`COLUMNS`].
    places: [Option<usize>; COLUMNS.len()],
    defaults: &'a Terms,
    /// What labels are held against; none: they were, or nobody here knows them.
    labels: Option<&'a Taxonomy>,
    now: TimeMs,
}

impl<'a, R: io::Read> Rows<'a, R> {
    fn new(file: R, defaults: &'a Terms, labels: Option<&'a Taxonomy>, now: TimeMs) -> Result<Self, Failure> {
        let mut reader = ReaderBuilder::new().trim(Trim::All).flexible(true).from_reader(file);
        let header = reader.headers().map_err(|error| Failure::new(Exit::BadInput, format!("line 1: {error}")))?;
        let places = places(header)?;
        Ok(Self { reader, places, defaults, labels, now })
    }

    /// The next row, or what is wrong with it; none at the end.
    fn next_row(&mut self) -> Result<Option<Result<Row, String>>, Failure> {
        let mut record = StringRecord::new();
        match self.reader.read_record(&mut record) {
            Ok(false) => Ok(None),
            Ok(true) => Ok(Some(self.understand(&record))),
            Err(error) if error.is_io_error() => Err(Failure::new(Exit::Io, error.to_string())),
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                Ok(Some(Err(format!("line {line}: not UTF-8, or not a table: {error}"))))
            }
        }
    }

    fn understand(&self, record: &StringRecord) -> Result<Row, String> {
        let line = record.position().map_or(0, csv::Position::line);
        if record.as_slice().len() > ROW_SIZE_MAX {
            return Err(format!("line {line}: has more than {ROW_SIZE_MAX} characters"));
        }
        let wrong = |column: &str, why: String| format!("line {line}, column {column}: {why}");
        let cell = |number: usize| self.places[number].and_then(|at| record.get(at)).filter(|text| !text.is_empty());
        let subject = signal::parse(cell(0).unwrap_or_default(), cell(1).unwrap_or_default());
        let subject = subject.map_err(|error| match error.to_string().split_once(": ") {
            Some((column, why)) => wrong(column, why.to_owned()),
            None => wrong("value", error.to_string()),
        })?;
        let mut terms = self.defaults.clone();
        if let Some(labels) = cell(2) {
            terms.labels = listed(labels);
        }
        check_labels(&terms.labels, self.labels).map_err(|why| wrong("labels", why))?;
        if let Some(languages) = cell(3) {
            terms.languages = listed(languages);
        }
        if let Some(tag) = terms.languages.iter().find(|tag| !is_language(tag)) {
            return Err(wrong("languages", format!("got {tag:?}, expected BCP 47 tags separated by ;")));
        }
        if let Some(severity) = cell(4) {
            terms.severity = bounded(severity, 4).map_err(|why| wrong("severity", why))?;
        }
        if let Some(expires) = cell(5) {
            terms.expires = show::moment(expires, self.now).map_err(|why| wrong("expires", why))?;
        }
        let quality = cell(6).map(|quality| bounded(quality, 100)).transpose().map_err(|why| wrong("quality", why))?;
        signal::admit(&subject, quality).map_err(|refusal| {
            let told = refusal.to_string();
            let (column, why) = told.split_once(": ").unwrap_or(("value", &told));
            wrong(if column == "digest" { "value" } else { column }, why.to_owned())
        })?;
        let hash = Hash { type_name: subject.type_name().into_owned(), value: subject.value(), quality };
        Ok(Row { hash, terms })
    }
}

fn places(header: &StringRecord) -> Result<[Option<usize>; COLUMNS.len()], Failure> {
    let mut places = [None; COLUMNS.len()];
    for (at, name) in header.iter().enumerate() {
        let name = name.trim_start_matches('\u{feff}').to_ascii_lowercase();
        let Some(number) = COLUMNS.iter().position(|column| *column == name) else {
            let near = nearest(&name, COLUMNS.into_iter()).unwrap_or_default();
            let cause = format!("line 1: there is no column {name:?}, expected a header of {}", COLUMNS.join(","));
            return Err(Failure::new(Exit::BadInput, cause).fix(format!("did you mean {near}?")));
        };
        if places[number].replace(at).is_some() {
            return Err(Failure::new(Exit::BadInput, format!("line 1: the column {name} stands there twice")));
        }
    }
    match places {
        [Some(_), Some(_), ..] => Ok(places),
        _ => Err(Failure::new(Exit::BadInput, "line 1: the columns type and value are needed")),
    }
}

fn check_labels(labels: &[String], taxonomy: Option<&Taxonomy>) -> Result<(), String> {
    if labels.is_empty() {
        return Err("got none, expected one or more, here or as --label".to_owned());
    }
    let Some(taxonomy) = taxonomy else { return Ok(()) };
    for label in labels {
        match taxonomy.sayable(label) {
            Ok(_number) => {}
            Err(Unsayable::Missing) => {
                return Err(format!("nobody here knows the labels of {}: staydown status", taxonomy.named()));
            }
            Err(Unsayable::Retired) => return Err(format!("got {label:?}, which is retired")),
            Err(Unsayable::Unknown) => {
                let near = nearest(label, taxonomy.sayable_names()).unwrap_or_default();
                return Err(format!("got {label:?}, did you mean {near}?"));
            }
        }
    }
    Ok(())
}

/// `a;b`, `a|b` or `a b`.
fn listed(cell: &str) -> Vec<String> {
    cell.split([';', '|', ' ']).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn bounded(cell: &str, max: u32) -> Result<u32, String> {
    cell.parse().ok().filter(|n| *n <= max).ok_or_else(|| format!("got {cell:?}, expected a number from 0 to {max}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TimeMs = TimeMs(1_795_000_000_000);
    const MD5: &str = "900150983cd24fb0d6963f7d28e17f72";
    const PDQ: &str = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22";

    fn mistakes(text: &[u8]) -> Vec<String> {
        let failure = check(text, &Terms::default(), Some(&Taxonomy::built_in()), NOW).unwrap_err();
        assert_eq!(failure.exit, Exit::BadInput);
        if failure.culprits.is_empty() { vec![failure.cause] } else { failure.culprits }
    }

    #[test]
    fn a_table_is_understood_row_by_row() {
        let text = format!(
            "Type,value,labels,languages,severity,expires,quality\n\
             md5,{},symbol;manifesto,fr;pt-BR,3,2027-01-31,\n\
             pdq , pdq:{PDQ},other,,,,80\n",
            MD5.to_uppercase()
        );
        let terms = Terms::default();
        let mut rows = Rows::new(text.as_bytes(), &terms, None, NOW).unwrap();
        let first = rows.next_row().unwrap().unwrap().unwrap();
        assert_eq!(first.hash.to_string(), format!("md5:{MD5}"));
        assert_eq!(first.terms.labels, ["symbol", "manifesto"]);
        assert_eq!(first.terms.languages, ["fr", "pt-BR"]);
        assert_eq!((first.terms.severity, first.terms.expires), (3, TimeMs(1_801_353_600_000)));
        let second = rows.next_row().unwrap().unwrap().unwrap();
        assert_eq!(second.hash.quality, Some(80));
        assert!(rows.next_row().unwrap().is_none());
        assert_eq!(check(text.as_bytes(), &terms, None, NOW).unwrap(), 2);
    }

    #[test]
    fn labels_of_the_command_line_stand_in_for_a_missing_column() {
        let terms = Terms { labels: vec!["symbol".to_owned()], ..Terms::default() };
        assert_eq!(check(format!("value,type\n{MD5},md5\n").as_bytes(), &terms, None, NOW).unwrap(), 1);
    }

    #[test]
    fn mistakes_are_told_with_line_and_column() {
        for (row, expected) in [
            ("md5,12,symbol,,,,", "line 2, column value: got 2 characters, expected 32"),
            ("md6,12,symbol,,,,", "line 2, column type: got \"md6\""),
            (&format!("md5,{MD5},simbol,,,,"), "line 2, column labels: got \"simbol\", did you mean symbol?"),
            (&format!("md5,{MD5},,,,,"), "line 2, column labels: got none"),
            (&format!("md5,{MD5},symbol,f,,,"), "line 2, column languages: got \"f\""),
            (&format!("md5,{MD5},symbol,,5,,"), "line 2, column severity: got \"5\", expected a number from 0 to 4"),
            (&format!("md5,{MD5},symbol,,,yesterday,"), "line 2, column expires: got \"yesterday\""),
            (&format!("pdq,{PDQ},symbol,,,,101"), "line 2, column quality: got \"101\""),
            (&format!("pdq,{PDQ},symbol,,,,"), "line 2, column quality: got none"),
            (&format!("pdq,{PDQ},symbol,,,,49"), "line 2, column quality: got 49"),
            ("md5,d41d8cd98f00b204e9800998ecf8427e,symbol,,,,", "line 2, column value: is that of the empty file"),
            ("md5", "line 2, column value: got 0 characters"),
        ] {
            let text = format!("{}\n{row}\n", COLUMNS.join(","));
            let told = mistakes(text.as_bytes());
            assert!(told[0].starts_with(expected), "{row}: {told:?}");
        }
    }

    #[test]
    fn a_table_without_the_right_header_is_refused() {
        for (text, expected) in [
            ("", "line 1: the columns type and value are needed"),
            ("type,label\n", "line 1: there is no column \"label\""),
            ("type,type,value\n", "line 1: the column type stands there twice"),
            (&format!("md5,{MD5}\n"), "line 1: there is no column \"md5\""),
        ] {
            assert!(mistakes(text.as_bytes())[0].starts_with(expected), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_told_with_their_line() {
        let told = mistakes(b"type,value\nmd5,\xff\xfe\n");
        assert!(told[0].starts_with("line 2: not UTF-8"), "{told:?}");
    }

    #[test]
    fn a_file_of_mistakes_is_not_told_to_its_end() {
        let text = format!("type,value\n{}", "md5,1\n".repeat(1_000));
        assert_eq!(mistakes(text.as_bytes()).len(), MISTAKES_MAX + 1);
    }
}
