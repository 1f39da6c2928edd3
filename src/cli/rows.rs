//! The rows of a file that is imported: CSV, JSON lines, ThreatExchange-style JSON lines, `local_file` lines. One line is
//! one row, so that a mistake in one never reaches into the next, and a file may be larger than memory.

use std::borrow::Cow;
use std::io::BufRead;
use std::path::Path;

use clap::ValueEnum;
use serde_json::{Map, Value};

use super::failure::{Exit, Failure};
use super::item::Hash;
use super::submit::{Terms, basis_number};
use super::{foreign, show};
use crate::config::nearest;
use crate::replica::ids::{TimeMs, sha256};
use crate::replica::taxonomy::{Taxonomy, Unsayable};
use crate::replica::{record, signal};
use crate::wire::files::is_language;

/// Longest row that is understood, in bytes: what it says must fit into a record. Of more, only its line is told.
pub(super) const ROW_SIZE_MAX: usize = 16_384;
/// Longest line of JSON, which may have fields that are left aside.
const JSON_SIZE_MAX: usize = 65_536;
/// How much of a wrong cell is repeated, in characters.
const QUOTED_CHARS_MAX: usize = 80;

/// Columns of a table, and fields of a JSON line. The last [`LEFT_ASIDE`] are written by an export for people to read.
pub(super) const COLUMNS: [&str; 13] = [
    "type",
    "value",
    "labels",
    "languages",
    "severity",
    "expires",
    "quality",
    "confidence",
    "basis",
    "review",
    "status",
    "first_seen",
    "members",
];
/// Columns at the end of [`COLUMNS`] that are not read.
const LEFT_ASIDE: usize = 3;
/// Columns that are read.
pub(super) const READ: usize = COLUMNS.len() - LEFT_ASIDE;

/// How the rows of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A table with a header
    Csv,
    /// A JSON object a line, with the names of the table's columns
    Jsonl,
    /// A JSON object a line, with the names of `ThreatExchange`
    Threatexchange,
    /// A type and a value a line, as python-threatexchange reads them
    LocalFile,
}

impl Format {
    /// The one that was asked for, or that of the file's name.
    ///
    /// # Errors
    /// Neither says it.
    pub(super) fn of(asked: Option<Self>, path: &Path) -> Result<Self, Failure> {
        let named = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        match (asked, named.as_deref()) {
            (Some(format), _) => Ok(format),
            (None, Some("jsonl" | "ndjson")) => Ok(Self::Jsonl),
            (None, Some("csv") | None) => Ok(Self::Csv),
            (None, Some(ending)) => {
                let cause = format!("{}: {ending:?} does not tell the format", path.display());
                Err(Failure::new(Exit::Usage, cause).fix("--format csv, jsonl, threatexchange or local-file"))
            }
        }
    }

    fn line_size_max(self) -> usize {
        match self {
            Self::Csv | Self::LocalFile => ROW_SIZE_MAX,
            Self::Jsonl | Self::Threatexchange => JSON_SIZE_MAX,
        }
    }
}

/// What a row says in each of the columns that are read, as text.
pub(super) type Cells<'a> = [Option<Cow<'a, str>>; READ];

/// A row that is understood.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) hash: Hash,
    pub(super) terms: Terms,
}

impl Row {
    /// The client key of this row in a batch: its first 8 bytes name the batch, the others follow from what the row says
    /// (a span like `90d` as it is written: the same row is the same row a day later).
    pub(super) fn key(&self, batch: &[u8; 8]) -> [u8; 16] {
        let terms = &self.terms;
        let said = format!(
            "{}\n{:?}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{:?}",
            self.hash,
            self.hash.quality,
            terms.labels.join(","),
            terms.languages.join(","),
            terms.severity,
            terms.confidence,
            terms.basis,
            terms.expires_as,
            terms.review_as,
            terms.incident
        );
        let digest = sha256(&[b"staydown/row/v1\n", batch, said.as_bytes()]);
        let mut key = [0; 16];
        key[..8].copy_from_slice(batch);
        key[8..].copy_from_slice(&digest[..8]);
        key
    }
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) column: Option<Cow<'static, str>>,
    pub(super) why: String,
}

impl Mistake {
    pub(super) fn of_row(why: impl Into<String>) -> Self {
        Self { column: None, why: why.into() }
    }

    pub(super) fn in_column(column: &'static str, why: impl Into<String>) -> Self {
        Self { column: Some(column.into()), why: why.into() }
    }

    /// From `column: why`, as our own errors and the node's answers are written.
    pub(super) fn told(text: &str) -> Self {
        match text.split_once(": ") {
            Some((column, why)) if column.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => {
                let column = if matches!(column, "digest" | "signal") { "value" } else { column };
                Self { column: Some(column.to_owned().into()), why: why.to_owned() }
            }
            _ => Self::of_row(text),
        }
    }

    /// As people read it.
    pub(super) fn at_line(&self, line: u64) -> String {
        match &self.column {
            Some(column) => format!("line {line}, column {column}: {}", self.why),
            None => format!("line {line}: {}", self.why),
        }
    }
}

/// The rows of a file, one after the other.
pub(super) struct Rows<'a, R> {
    input: R,
    format: Format,
    labels: &'a Taxonomy,
    /// Index in the file of each of [`COLUMNS`], of a table.
    places: [Option<usize>; COLUMNS.len()],
    header: Vec<u8>,
    defaults: &'a Terms,
    quality: Option<u32>,
    now: TimeMs,
    line: u64,
    text: Vec<u8>,
}

/// A line of the file.
enum Line {
    Whole,
    TooLong,
    End,
}

impl<'a, R: BufRead> Rows<'a, R> {
    /// Begins to read; of a table, the header. `defaults` and `quality` stand in for what a row does not say.
    ///
    /// # Errors
    /// The file cannot be read, or has no header that makes sense.
    pub(super) fn new(
        input: R,
        format: Format,
        labels: &'a Taxonomy,
        (defaults, quality): (&'a Terms, Option<u32>),
        now: TimeMs,
    ) -> Result<Self, Failure> {
        let places = [None; COLUMNS.len()];
        let (header, text) = (Vec::new(), Vec::new());
        let mut rows = Self { input, format, labels, places, header, defaults, quality, now, line: 0, text };
        if format == Format::Csv {
            let bad = |why: &str| Failure::new(Exit::BadInput, format!("line 1: {why}"));
            let header = match rows.next_line()? {
                Line::TooLong => return Err(bad(&format!("has more than {ROW_SIZE_MAX} characters"))),
                Line::Whole | Line::End => std::str::from_utf8(&rows.text),
            };
            let header = header.map_err(|_not_text| bad("not UTF-8, expected a header"))?;
            rows.places = places_of(&fields(header).map_err(bad)?)?;
            rows.header = rows.text.clone();
        }
        Ok(rows)
    }

    /// The header of a table, as it stands in the file.
    pub(super) fn header(&self) -> &[u8] {
        &self.header
    }

    /// The line of the last row, counted from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The last row as it stands in the file; what of a line that is too long was kept.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The next row, or what is wrong with it; none at the end. Empty lines are no rows.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn next_row(&mut self) -> Result<Option<Result<Row, Mistake>>, Failure> {
        loop {
            match self.next_line()? {
                Line::End => return Ok(None),
                Line::TooLong => {
                    let max = self.format.line_size_max();
                    return Ok(Some(Err(Mistake::of_row(format!("has more than {max} characters")))));
                }
                Line::Whole if self.text.trim_ascii().is_empty() => {}
                Line::Whole => return Ok(Some(self.understand())),
            }
        }
    }

    /// Reads the next line into `text`, without its end. Never holds more of it than may be understood.
    fn next_line(&mut self) -> Result<Line, Failure> {
        let max = self.format.line_size_max();
        self.text.clear();
        let (mut any, mut whole) = (false, true);
        loop {
            let ready = loop {
                match self.input.fill_buf() {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Failure::new(Exit::Io, error.to_string())),
                    Ok(ready) => break ready,
                }
            };
            if ready.is_empty() {
                break;
            }
            any = true;
            let end = ready.iter().position(|byte| *byte == b'\n');
            let part = &ready[..end.unwrap_or(ready.len())];
            // One more for a carriage return, three for a byte order mark.
            let room = (max + 4).saturating_sub(self.text.len());
            whole &= part.len() <= room;
            self.text.extend_from_slice(&part[..part.len().min(room)]);
            let used = end.map_or(ready.len(), |at| at + 1);
            self.input.consume(used);
            if end.is_some() {
                break;
            }
        }
        if !any {
            return Ok(Line::End);
        }
        self.line += 1;
        if self.line == 1 && self.text.starts_with(b"\xef\xbb\xbf") {
            self.text.drain(..3);
        }
        if self.text.ends_with(b"\r") {
            self.text.pop();
        }
        Ok(if whole && self.text.len() <= max { Line::Whole } else { Line::TooLong })
    }

    fn understand(&self) -> Result<Row, Mistake> {
        let text = std::str::from_utf8(&self.text).map_err(|_not_text| Mistake::of_row("not UTF-8"))?;
        let cells = match self.format {
            Format::Csv => self.of_table(text)?,
            Format::Jsonl => of_object(&object(text)?)?,
            Format::Threatexchange => foreign::of_threatexchange(&object(text)?, self.labels)?,
            Format::LocalFile => foreign::of_local_file(text)?,
        };
        self.row(&cells)
    }

    fn of_table<'t>(&self, text: &'t str) -> Result<Cells<'t>, Mistake> {
        let mut fields = fields(text).map_err(Mistake::of_row)?;
        let width = self.places.iter().flatten().max().map_or(0, |last| last + 1);
        if fields.len() > width {
            return Err(Mistake::of_row(format!("has {} cells, expected {width} as in the header", fields.len())));
        }
        Ok(std::array::from_fn(|column| self.places[column].and_then(|at| fields.get_mut(at)).map(std::mem::take)))
    }

    fn row(&self, cells: &Cells<'_>) -> Result<Row, Mistake> {
        let cell = |number: usize| cells[number].as_deref().map(str::trim).filter(|text| !text.is_empty());
        let wrong = Mistake::in_column;
        let subject = signal::parse(cell(0).unwrap_or_default(), cell(1).unwrap_or_default());
        let subject = subject.map_err(|error| Mistake::told(&error.to_string()))?;
        if subject.kind() == signal::KIND_ACCOUNT {
            return Err(wrong(
                "type",
                "got account, expected a hash: staydown submit --account PLATFORM:ID".to_owned(),
            ));
        }
        let address = signal::address_in_clear(cell(0).unwrap_or_default(), cell(1).unwrap_or_default());
        if address.is_ok_and(|address| address.is_some_and(|address| address.is_whole_host())) {
            let fix = "list its pages and directories, or alone: staydown submit --url HOST --whole-host";
            return Err(wrong("value", format!("is a whole host, expected a page or a directory on it; {fix}")));
        }
        let mut terms = self.defaults.clone();
        if let Some(labels) = cell(2) {
            terms.labels = listed(labels);
        }
        check_labels(&terms.labels, self.labels).map_err(|why| wrong("labels", why))?;
        if let Some(languages) = cell(3) {
            terms.languages = listed(languages);
        }
        if let Some(tag) = terms.languages.iter().find(|tag| !is_language(tag)) {
            return Err(wrong("languages", format!("got {:?}, expected BCP 47 tags separated by ;", quoted(tag))));
        }
        if let Some(severity) = cell(4) {
            terms.severity = bounded(severity, 4).map_err(|why| wrong("severity", why))?;
        }
        if let Some(expires) = cell(5) {
            terms.expires = show::moment(&quoted(expires), self.now).map_err(|why| wrong("expires", why))?;
            expires.clone_into(&mut terms.expires_as);
        }
        let quality = cell(6).map(|quality| bounded(quality, 100)).transpose().map_err(|why| wrong("quality", why))?;
        if let Some(confidence) = cell(7) {
            terms.confidence = bounded(confidence, 100).map_err(|why| wrong("confidence", why))?;
        }
        if let Some(name) = cell(8) {
            terms.basis = basis_number(name).ok_or_else(|| wrong("basis", not_one_of(name, &record::BASES)))?;
        }
        if let Some(review) = cell(9) {
            terms.review = show::moment(&quoted(review), self.now).map_err(|why| wrong("review", why))?;
            review.clone_into(&mut terms.review_as);
        }
        let is_pdq = subject.known_alg() == Some(signal::Alg::Pdq);
        let quality = quality.or(self.quality).filter(|_| is_pdq);
        signal::admit(&subject, quality).map_err(|refusal| Mistake::told(&refusal.to_string()))?;
        let hash = Hash { type_name: subject.type_name().into_owned(), value: subject.value(), quality };
        Ok(Row { hash, terms })
    }
}

/// The cells of a line of a table. A cell that begins with a quote ends with one, and a quote in it is doubled.
fn fields(line: &str) -> Result<Vec<Cow<'_, str>>, &'static str> {
    let mut fields = Vec::with_capacity(COLUMNS.len());
    let mut rest = line;
    loop {
        let begins = rest.trim_start_matches([' ', '\t']);
        let (cell, after) = match begins.strip_prefix('"') {
            Some(inside) => {
                let (cell, after) = quoted_cell(inside)?;
                (cell, after.trim_start_matches([' ', '\t']))
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (Cow::Borrowed(rest[..end].trim()), &rest[end..])
            }
        };
        fields.push(cell);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err("has text behind a quoted cell, expected a comma"),
        }
    }
}

/// The rest of a cell behind its first quote, and what comes after its last one.
fn quoted_cell(inside: &str) -> Result<(Cow<'_, str>, &str), &'static str> {
    let mut from = 0;
    loop {
        let quote = inside[from..].find('"').ok_or("a quote is not closed on its line")? + from;
        let after = &inside[quote + 1..];
        if !after.starts_with('"') {
            let cell = &inside[..quote];
            let cell = if from == 0 { Cow::Borrowed(cell) } else { Cow::Owned(cell.replace("\"\"", "\"")) };
            return Ok((cell, after));
        }
        from = quote + 2;
    }
}

fn places_of(header: &[Cow<'_, str>]) -> Result<[Option<usize>; COLUMNS.len()], Failure> {
    let mut places = [None; COLUMNS.len()];
    for (at, name) in header.iter().enumerate().filter(|(_, name)| header.len() > 1 || !name.is_empty()) {
        let name = name.trim().to_ascii_lowercase();
        let Some(number) = COLUMNS.iter().position(|column| *column == name) else {
            let known = COLUMNS[..READ].join(",");
            let cause = format!("line 1: there is no column {:?}, expected a header of {known}", quoted(&name));
            let near = nearest(&name, COLUMNS.into_iter()).unwrap_or_default();
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

/// The object of a line.
fn object(text: &str) -> Result<Map<String, Value>, Mistake> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Mistake::of_row("is no JSON object, expected {...}")),
        Err(error) => Err(Mistake::of_row(format!("is no JSON: {error}"))),
    }
}

fn of_object(object: &Map<String, Value>) -> Result<Cells<'static>, Mistake> {
    let mut cells: Cells<'static> = Default::default();
    for (name, value) in object {
        let Some(column) = COLUMNS.iter().position(|column| column == name) else {
            let near = nearest(name, COLUMNS.into_iter()).unwrap_or_default();
            return Err(Mistake::of_row(format!("there is no field {:?}, did you mean {near}?", quoted(name))));
        };
        if let Some(cell) = cells.get_mut(column) {
            *cell = text_of(value).map_err(|why| Mistake::in_column(COLUMNS[column], why))?;
        }
    }
    Ok(cells)
}

/// A JSON value as a table would have it: a text, a whole number, or a list of texts.
pub(super) fn text_of(value: &Value) -> Result<Option<Cow<'static, str>>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone().into())),
        Value::Number(number) if number.is_u64() => Ok(Some(number.to_string().into())),
        Value::Array(values) => {
            let texts: Option<Vec<_>> = values.iter().map(Value::as_str).collect();
            let texts = texts.ok_or("got a list with something else in it than texts")?;
            Ok(Some(texts.join(";").into()))
        }
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            Err(format!("got {}, expected a text, a whole number or a list of texts", quoted(&value.to_string())))
        }
    }
}

fn check_labels(labels: &[String], taxonomy: &Taxonomy) -> Result<(), String> {
    if labels.is_empty() {
        return Err("got none, expected one or more, here or as --label".to_owned());
    }
    for label in labels {
        let got = quoted(label);
        match taxonomy.sayable(label) {
            Ok(_number) => {}
            Err(Unsayable::Missing) => {
                return Err(format!("nobody here knows the labels of {}: staydown status", taxonomy.named()));
            }
            Err(Unsayable::Retired) => return Err(format!("got {got:?}, which is retired")),
            Err(Unsayable::Unknown) => {
                let near = nearest(label, taxonomy.sayable_names()).unwrap_or_default();
                return Err(format!("got {got:?}, did you mean {near}?"));
            }
        }
    }
    Ok(())
}

fn not_one_of(got: &str, known: &[(u32, &str)]) -> String {
    let known: Vec<_> = known.iter().map(|(_, name)| *name).collect();
    format!("got {:?}, expected one of {}", quoted(got), known.join(", "))
}

/// `a;b`, `a|b` or `a b`.
fn listed(cell: &str) -> Vec<String> {
    cell.split([';', '|', ' ']).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn bounded(cell: &str, max: u32) -> Result<u32, String> {
    let wrong = || format!("got {:?}, expected a number from 0 to {max}", quoted(cell));
    cell.parse().ok().filter(|n| *n <= max).ok_or_else(wrong)
}

/// As much of a text as is repeated to people.
pub(super) fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TimeMs = TimeMs(1_795_000_000_000);
    const MD5: &str = "900150983cd24fb0d6963f7d28e17f72";
    const PDQ: &str = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22";

    fn all(format: Format, text: &[u8], defaults: &Terms) -> Vec<(u64, Result<Row, String>)> {
        let built_in = Taxonomy::built_in();
        let mut rows = Rows::new(text, format, &built_in, (defaults, None), NOW).unwrap();
        let mut found = Vec::new();
        while let Some(row) = rows.next_row().unwrap() {
            let line = rows.line();
            found.push((line, row.map_err(|mistake| mistake.at_line(line))));
        }
        found
    }

    fn symbol() -> Terms {
        Terms { labels: vec!["symbol".to_owned()], ..Terms::default() }
    }

    #[test]
    fn a_table_is_understood_row_by_row() {
        let text = format!(
            "Type,value,labels,languages,severity,expires,quality,basis,confidence,members\n\
             md5,{},symbol;manifesto,fr;pt-BR,3,2027-01-31,,court-order,90,acme\n\
             \n\
             pdq , \"pdq:{PDQ}\" ,other,,,,80\r\n",
            MD5.to_uppercase()
        );
        let rows = all(Format::Csv, text.as_bytes(), &Terms::default());
        let [(2, Ok(first)), (4, Ok(second))] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!(first.hash.to_string(), format!("md5:{MD5}"));
        assert_eq!(first.terms.labels, ["symbol", "manifesto"]);
        assert_eq!(first.terms.languages, ["fr", "pt-BR"]);
        assert_eq!((first.terms.severity, first.terms.expires), (3, TimeMs(1_801_353_600_000)));
        assert_eq!((first.terms.basis, first.terms.confidence), (3, 90));
        assert_eq!(second.hash.quality, Some(80));
    }

    #[test]
    fn json_lines_say_the_same_as_a_table() {
        let table = format!("type,value,labels,languages,severity,expires\nmd5,{MD5},symbol;manifesto,fr,3,90d\n");
        let json = format!(
            "{{\"type\":\"md5\",\"value\":\"{MD5}\",\"labels\":[\"symbol\",\"manifesto\"],\"languages\":\"fr\",\
             \"severity\":3,\"expires\":\"90d\",\"quality\":null,\"status\":\"ACTIVE\"}}\n"
        );
        let terms = Terms::default();
        let key = |format, text: &str| all(format, text.as_bytes(), &terms)[0].1.as_ref().unwrap().key(&[7; 8]);
        assert_eq!(key(Format::Csv, &table), key(Format::Jsonl, &json));
        assert_eq!(key(Format::Csv, &table)[..8], [7; 8]);
    }

    #[test]
    fn the_key_of_a_row_changes_with_everything_that_it_says() {
        let key = |row: &str| {
            let text = format!("type,value,labels,languages,severity,expires,quality,confidence,basis,review\n{row}\n");
            all(Format::Csv, text.as_bytes(), &symbol())[0].1.as_ref().unwrap().key(&[7; 8])
        };
        let rows = [
            format!("md5,{MD5},,,,,,,,"),
            format!("sha1,{MD5}00000001,,,,,,,,"),
            format!("md5,{MD5},other,,,,,,,"),
            format!("md5,{MD5},,fr,,,,,,"),
            format!("md5,{MD5},,,1,,,,,"),
            format!("md5,{MD5},,,,90d,,,,"),
            format!("md5,{MD5},,,,,,9,,"),
            format!("md5,{MD5},,,,,,,automated,"),
            format!("md5,{MD5},,,,,,,,90d"),
        ];
        let keys: std::collections::BTreeSet<_> = rows.iter().map(|row| key(row)).collect();
        assert_eq!(keys.len(), rows.len());
        assert_eq!(key(&rows[0]), key(&rows[0]));
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
            (&format!("md5,{MD5},symbol,,,,,,,,"), "line 2: has 11 cells, expected 7"),
            (&format!("md5,\"{MD5},symbol,,,,"), "line 2: a quote is not closed on its line"),
            (&format!("md5,\"{MD5}\"x,symbol"), "line 2: has text behind a quoted cell"),
            (&format!("md5,{MD5}\0,symbol"), "line 2, column value: got '\\0' at character 33"),
            (&"x".repeat(ROW_SIZE_MAX + 1), "line 2: has more than 16384 characters"),
        ] {
            let text = format!("type,value,labels,languages,severity,expires,quality\n{row}\nmd5,{MD5},symbol\n");
            let told = all(Format::Csv, text.as_bytes(), &Terms::default());
            assert!(told[0].1.as_ref().unwrap_err().starts_with(expected), "{row}: {told:?}");
            assert!(told[1].0 == 3 && told[1].1.is_ok(), "the next row is not touched: {told:?}");
        }
    }

    #[test]
    fn mistakes_in_json_are_told_with_line_and_field() {
        let deep = format!("{{\"type\":{}{}}}", "[".repeat(1_000), "]".repeat(1_000));
        for (row, expected) in [
            ("[]", "line 1: is no JSON object"),
            ("{", "line 1: is no JSON: EOF"),
            ("{\"typ\":\"md5\"}", "line 1: there is no field \"typ\", did you mean type?"),
            ("{\"type\":\"md5\",\"value\":{}}", "line 1, column value: got {}, expected a text"),
            ("{\"type\":\"md5\",\"value\":1.5}", "line 1, column value: got 1.5"),
            ("{\"type\":\"md5\",\"labels\":[1]}", "line 1, column labels: got a list with something else"),
            ("{\"type\":\"md5\",\"value\":\"\"}", "line 1, column value: got 0 characters"),
            (&deep, "line 1: is no JSON: recursion limit"),
        ] {
            let told = all(Format::Jsonl, row.as_bytes(), &symbol());
            assert!(told[0].1.as_ref().unwrap_err().starts_with(expected), "{row}: {told:?}");
        }
    }

    #[test]
    fn a_table_without_the_right_header_is_refused() {
        let header = |text: &[u8]| {
            Rows::new(text, Format::Csv, &Taxonomy::built_in(), (&symbol(), None), NOW).err().map(|told| told.cause)
        };
        for (text, expected) in [
            ("", "line 1: the columns type and value are needed"),
            ("type,label\n", "line 1: there is no column \"label\""),
            ("type,type,value\n", "line 1: the column type stands there twice"),
            (&format!("md5,{MD5}\n"), "line 1: there is no column \"md5\""),
            ("type;value\n", "line 1: there is no column \"type;value\""),
            (&"x".repeat(20_000), "line 1: has more than 16384 characters"),
        ] {
            assert!(header(text.as_bytes()).unwrap().starts_with(expected), "{text}");
        }
        assert!(header(b"\xff\xfet\0y\0").unwrap().starts_with("line 1: not UTF-8"));
        assert_eq!(header(b"\xef\xbb\xbftype,value\r\n"), None, "a byte order mark is no part of a name");
    }

    #[test]
    fn bytes_that_are_no_text_are_told_with_their_line() {
        let told = all(Format::Csv, b"type,value\nmd5,\xff\xfe\n", &symbol());
        assert_eq!(told[0].1.as_ref().unwrap_err(), "line 2: not UTF-8");
    }

    #[test]
    fn what_is_quoted_in_a_table_is_read_as_it_was() {
        assert_eq!(fields("a,\"b,\"\"c\"\"\" ,, d ").unwrap(), ["a", "b,\"c\"", "", "d"]);
        assert_eq!(fields("").unwrap(), [""]);
        assert!(fields("\"").is_err() && fields("\"\"\"").is_err());
    }

    #[test]
    fn the_format_is_the_one_asked_for_or_that_of_the_name() {
        for (asked, name, expected) in [
            (None, "a.csv", Some(Format::Csv)),
            (None, "a", Some(Format::Csv)),
            (None, "a.JSONL", Some(Format::Jsonl)),
            (Some(Format::LocalFile), "a.csv", Some(Format::LocalFile)),
            (None, "a.json", None),
        ] {
            assert_eq!(Format::of(asked, Path::new(name)).ok(), expected, "{name}");
        }
    }
}
