//! `match --catalogue`: a company's whole archive against the list. One hash a line, many millions of them; what matches is
//! written as it is found, in the order of the lines. Nothing is kept between two runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::path::Path;

use clap::ValueEnum;
use futures_util::StreamExt as _;
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::client::Node;
use super::failure::{Exit, Failure, Outcome, io_failure};
use super::{Invocation, show};
use crate::answers;
use crate::net::local::{BULK_MAX, is_bulk};
use crate::replica::signal::{self, Alg, Subject};
use crate::wire::local;

/// Longest line: an identifier of a company's own, and a hash.
const LINE_SIZE_MAX: usize = 8_192;
/// Lines that are looked up together, whatever their types: one request for each type.
const LINES_TOGETHER: usize = BULK_MAX;
/// Lots of [`LINES_TOGETHER`] under way: enough that the node never waits for us. With some 2 MB each this is what a run
/// holds in memory.
const UNDER_WAY: usize = 8;
/// Connections to the node: one alone is handled by one of its threads.
const CONNECTIONS: usize = 4;
/// What is read from the file at once, in bytes.
const READ_SIZE: usize = 1 << 20;

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One JSON value a line
    Jsonl,
    /// Comma-separated, with a header
    Csv,
}

/// What is wanted of a catalogue.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Type of hashes that name none.
    pub(super) alg: Option<Alg>,
    pub(super) distance: Option<u32>,
    pub(super) format: Format,
    /// Also lines that do not match.
    pub(super) all: bool,
}

/// Looks up every line of the file at `path`, or of stdin for `-`.
///
/// # Errors
/// The file cannot be read, results cannot be written, or the node does not answer. A line that is no hash is none of these.
pub(super) async fn look_up(path: &str, wanted: &Wanted, at: &Invocation) -> Outcome {
    let mut nodes = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        nodes.push(at.node().await?);
    }
    let (from, size) = open(path)?;
    let bar = at.terminal.progress(size, "bytes");
    let (sender, lots) = mpsc::channel(1);
    let (alg, name) = (wanted.alg, path.to_owned());
    let reading = tokio::task::spawn_blocking(move || read(from, alg, &name, |lot| sender.blocking_send(lot).is_ok()));
    let mut results = Results::new(io::BufWriter::new(io::stdout()), wanted);
    let answers = ReceiverStream::new(lots).zip(futures_util::stream::iter(nodes.iter().cycle()));
    let answers = answers.map(|(lot, node)| answered(lot, node, wanted.distance)).buffered(UNDER_WAY);
    let written = write_all(answers, &mut results, &bar).await;
    bar.finish_and_clear();
    let tally = match written {
        Err(failure) if failure.exit == Exit::Io && results.reader_gone => results.tally,
        written => written.map(|()| results.tally)?,
    };
    reading.await.map_err(|error| Failure::new(Exit::Bug, error.to_string()))?;
    at.terminal.talk(tally.text());
    Ok(tally.exit())
}

async fn write_all<W: Write>(
    answers: impl futures_util::Stream<Item = Result<Answered, Failure>>,
    results: &mut Results<'_, W>,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let mut answers = std::pin::pin!(answers);
    results.begin()?;
    while let Some(answered) = answers.next().await {
        let answered = answered?;
        results.write(&answered)?;
        bar.set_position(answered.lot.read);
    }
    results.end()
}

/// The file, and its size in bytes; 0 for what has none.
fn open(path: &str) -> Result<(Box<dyn BufRead + Send>, u64), Failure> {
    if path == "-" {
        return Ok((Box::new(BufReader::with_capacity(READ_SIZE, io::stdin())), 0));
    }
    let file = File::open(Path::new(path)).map_err(io_failure(path))?;
    let size = file.metadata().map_or(0, |about| about.len());
    Ok((Box::new(BufReader::with_capacity(READ_SIZE, file)), size))
}

/// Lines that are looked up together.
#[derive(Debug, Default)]
struct Lot {
    /// By type.
    hashes: BTreeMap<Alg, Hashes>,
    /// Lines that are no hash, and why.
    wrong: Vec<(u64, String)>,
    lines: usize,
    /// Bytes read up to its end.
    read: u64,
}

/// Hashes of one type, as a request has them.
#[derive(Debug, Default)]
struct Hashes {
    /// The number of each one's line, from 1.
    lines: Vec<u64>,
    /// What stands before each in its line; empty: nothing does.
    ids: Vec<Box<str>>,
    digests: Vec<u8>,
}

impl Lot {
    fn take(&mut self, number: u64, line: &[u8], alg: Option<Alg>, digest: &mut Vec<u8>) {
        let (id, hash) = columns(line);
        if hash.is_empty() || number == 1 && id.is_some() && hash.eq_ignore_ascii_case(b"hash") {
            return;
        }
        self.lines += 1;
        match parsed(hash, alg, digest) {
            Ok(alg) => {
                let hashes = self.hashes.entry(alg).or_default();
                hashes.lines.push(number);
                hashes.ids.push(id.map(unquoted).unwrap_or_default());
                hashes.digests.extend_from_slice(digest);
            }
            Err(why) => self.wrong.push((number, why)),
        }
    }
}

/// `id,hash`, or the hash alone. The hash is the last column.
fn columns(line: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let line = line.trim_ascii();
    let Some(comma) = line.iter().rposition(|byte| *byte == b',') else { return (None, line) };
    let hash = line[comma + 1..].trim_ascii();
    let hash = hash.strip_prefix(b"\"").and_then(|hash| hash.strip_suffix(b"\"")).unwrap_or(hash);
    (Some(line[..comma].trim_ascii()), hash.trim_ascii())
}

/// A column as CSV writes it.
fn unquoted(column: &[u8]) -> Box<str> {
    let text = String::from_utf8_lossy(column);
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(inside) => inside.replace("\"\"", "\"").into(),
        None => text.into(),
    }
}

/// The type of a hash, and its bytes in `digest`; or why it is none.
fn parsed(hash: &[u8], alg: Option<Alg>, digest: &mut Vec<u8>) -> Result<Alg, String> {
    if let Some(alg) = quickly(hash, alg, digest) {
        return Ok(alg);
    }
    // Whatever is unusual is understood, or refused, as everywhere else.
    let text = str::from_utf8(hash).map_err(|_other| "is no text".to_owned())?;
    let subject: Subject = match alg.filter(|_| !text.contains(':')) {
        Some(alg) => signal::parse(alg.name(), text),
        None => signal::parse_any(text),
    }
    .map_err(|error| error.to_string())?;
    let alg = subject.known_alg().filter(|alg| is_bulk(*alg));
    let alg = alg.ok_or_else(|| format!("{} cannot be looked up in a catalogue: use match", subject.type_name()))?;
    digest.clear();
    digest.extend_from_slice(subject.digest());
    Ok(alg)
}

/// The same for a hash as most are written.
fn quickly(hash: &[u8], alg: Option<Alg>, digest: &mut Vec<u8>) -> Option<Alg> {
    let colon = hash.iter().take(7).position(|byte| *byte == b':');
    let (alg, digits) = match (colon, alg, hash.len()) {
        (Some(colon), ..) => (Alg::from_name(str::from_utf8(&hash[..colon]).ok()?)?, &hash[colon + 1..]),
        (None, Some(alg), _) => (alg, hash),
        (None, None, 32) => (Alg::Md5, hash),
        (None, None, 40) => (Alg::Sha1, hash),
        (None, None, 128) => (Alg::Sha512, hash),
        _ => return None,
    };
    let length = alg.digest_len().filter(|length| length * 2 == digits.len() && is_bulk(alg))?;
    digest.resize(length, 0);
    let decoded = data_encoding::HEXLOWER_PERMISSIVE.decode_mut(digits, digest).ok()?;
    (decoded == length).then_some(alg)
}

/// Reads all lines, and hands over each lot until nobody wants more.
fn read(mut from: impl BufRead, alg: Option<Alg>, name: &str, mut hand_over: impl FnMut(Result<Lot, Failure>) -> bool) {
    let (mut lot, mut line, mut digest) = (Lot::default(), Vec::new(), Vec::new());
    let mut read = 0;
    for number in 1.. {
        let length = match next_line(&mut from, &mut line) {
            Ok(length) => length,
            Err(error) => {
                hand_over(Err(io_failure(format!("{name}, line {number}"))(error)));
                return;
            }
        };
        if length == 0 {
            break;
        }
        read += length;
        if line.len() > LINE_SIZE_MAX {
            lot.lines += 1;
            lot.wrong.push((number, format!("is {length} bytes long, at most {LINE_SIZE_MAX} are possible")));
        } else {
            lot.take(number, &line, alg, &mut digest);
        }
        if lot.lines == LINES_TOGETHER {
            lot.read = read;
            if !hand_over(Ok(std::mem::take(&mut lot))) {
                return;
            }
        }
    }
    lot.read = read;
    hand_over(Ok(lot));
}

/// The next line, cut when it is too long, and how many bytes it has; 0 at the end.
fn next_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    line.clear();
    let mut length = from.by_ref().take(LINE_SIZE_MAX as u64 + 1).read_until(b'\n', line)? as u64;
    if line.len() > LINE_SIZE_MAX && line.last() != Some(&b'\n') {
        length += from.skip_until(b'\n')? as u64;
    }
    Ok(length)
}

/// A lot, and what the node says of it.
struct Answered {
    lot: Lot,
    /// In the order of the types.
    answers: Vec<local::LookupBulkResponse>,
}

async fn answered(lot: Result<Lot, Failure>, node: &Node, distance_max: Option<u32>) -> Result<Answered, Failure> {
    let lot = lot?;
    let request = |(alg, hashes): (&Alg, &Hashes)| local::LookupBulkRequest {
        r#type: alg.name().to_owned(),
        digests: hashes.digests.clone().into(),
        distance_max: distance_max.filter(|_| *alg == Alg::Pdq),
    };
    let requests: Vec<_> = lot.hashes.iter().map(request).collect();
    let answers = if requests.is_empty() { Vec::new() } else { node.bulk(requests).await? };
    if answers.len() != lot.hashes.len() {
        return Err(Failure::new(Exit::Failed, "the node ended its answer before the end"));
    }
    Ok(Answered { lot, answers })
}

/// What became of all lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    looked_up: u64,
    matched: u64,
    block: u64,
    review: u64,
    wrong: u64,
}

impl Tally {
    fn text(&self) -> String {
        let [looked_up, matched, block, review, wrong] =
            [self.looked_up, self.matched, self.block, self.review, self.wrong].map(show::count);
        let verdicts = format!("{matched} match ({block} BLOCK, {review} REVIEW)");
        format!("{looked_up} hashes looked up: {verdicts}; {wrong} lines are no hashes")
    }

    fn exit(&self) -> Exit {
        match (self.matched, self.looked_up, self.wrong) {
            (1.., ..) => Exit::Ok,
            (0, 0, 1..) => Exit::BadInput,
            _ => Exit::NotFound,
        }
    }
}

/// One line of results.
#[derive(Debug, Serialize)]
struct Row<'a> {
    line: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow_verdict: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    rule: &'a str,
    #[serde(skip_serializing_if = "is_none")]
    matches: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nearest: Vec<Near<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
}

#[derive(Debug, Serialize)]
struct Near<'a> {
    distance: u32,
    hash: String,
    status: &'a str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_none(count: &u32) -> bool {
    *count == 0
}

/// Where results are written.
struct Results<'a, W: Write> {
    to: W,
    wanted: &'a Wanted,
    tally: Tally,
    /// Whoever reads has seen enough (`| head`).
    reader_gone: bool,
}

const COLUMNS: [&str; 11] =
    ["line", "id", "hash", "verdict", "shadow_verdict", "rule", "matches", "truncated", "distance", "nearest", "error"];

impl<'a, W: Write> Results<'a, W> {
    fn new(to: W, wanted: &'a Wanted) -> Self {
        Self { to, wanted, tally: Tally::default(), reader_gone: false }
    }

    fn begin(&mut self) -> Result<(), Failure> {
        match self.wanted.format {
            Format::Csv => self.put(|to| writeln!(to, "{}", COLUMNS.join(","))),
            Format::Jsonl => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.put(Write::flush)
    }

    fn put(&mut self, write: impl FnOnce(&mut W) -> io::Result<()>) -> Result<(), Failure> {
        write(&mut self.to).map_err(|error| {
            self.reader_gone = error.kind() == io::ErrorKind::BrokenPipe;
            io_failure("stdout")(error)
        })
    }

    /// The lines of a lot in their order.
    fn write(&mut self, answered: &Answered) -> Result<(), Failure> {
        let mut rows = Vec::new();
        for ((alg, hashes), answer) in answered.lot.hashes.iter().zip(&answered.answers) {
            if let Some(refusal) = &answer.refusal {
                let failure = Failure::new(Exit::Refused, format!("{} ({})", refusal.message, refusal.reason));
                return Err(failure.culprit(refusal.field.clone()));
            }
            self.tally.looked_up += hashes.lines.len() as u64;
            self.take(*alg, hashes, answer, &mut rows);
        }
        self.tally.wrong += answered.lot.wrong.len() as u64;
        rows.extend(answered.lot.wrong.iter().map(|(line, why)| Row { error: why, ..empty(*line) }));
        rows.sort_unstable_by_key(|row| row.line);
        rows.iter().try_for_each(|row| self.put_row(row))
    }

    fn take<'r>(
        &mut self,
        alg: Alg,
        hashes: &'r Hashes,
        answer: &'r local::LookupBulkResponse,
        rows: &mut Vec<Row<'r>>,
    ) {
        let row = |position: usize| {
            let id = hashes.ids.get(position).map(|id| &**id).unwrap_or_default();
            let length = alg.digest_len().unwrap_or_default();
            let digest = hashes.digests.get(position * length..(position + 1) * length).unwrap_or_default();
            let line = hashes.lines.get(position).copied().unwrap_or_default();
            Row { id, hash: Subject::of(alg, digest).to_string(), ..empty(line) }
        };
        let mut hits = answer.hits.iter().peekable();
        while let Some(hit) = hits.next_if(|_| !self.wanted.all) {
            rows.push(self.hit(alg, answer, hit, row(hit.position as usize)));
        }
        for position in (0..hashes.lines.len()).filter(|_| self.wanted.all) {
            rows.push(match hits.next_if(|hit| hit.position as usize == position) {
                Some(hit) => self.hit(alg, answer, hit, row(position)),
                None => Row { verdict: Some(answers::verdict(local::Verdict::Allow)), ..row(position) },
            });
        }
    }

    fn hit<'r>(
        &mut self,
        alg: Alg,
        answer: &'r local::LookupBulkResponse,
        hit: &'r local::BulkHit,
        row: Row<'r>,
    ) -> Row<'r> {
        self.tally.matched += 1;
        self.tally.block += u64::from(hit.verdict() == local::Verdict::Block);
        self.tally.review += u64::from(hit.verdict() == local::Verdict::Review);
        let near = hit.nearest.iter().map(|near| Near {
            distance: near.distance,
            hash: Subject::of(alg, &near.digest).to_string(),
            status: &near.status,
        });
        let shadow = hit.shadow_verdict();
        Row {
            verdict: Some(answers::verdict(hit.verdict())),
            shadow_verdict: (shadow != local::Verdict::Unspecified).then(|| answers::verdict(shadow)),
            rule: answer.rules.get(hit.rule as usize).map(String::as_str).unwrap_or_default(),
            matches: hit.matches,
            truncated: hit.truncated,
            nearest: near.collect(),
            ..row
        }
    }

    fn put_row(&mut self, row: &Row<'_>) -> Result<(), Failure> {
        match self.wanted.format {
            Format::Jsonl => self.put(|to| {
                serde_json::to_writer(&mut *to, row).map_err(io::Error::from)?;
                to.write_all(b"\n")
            }),
            Format::Csv => self.put(|to| {
                let nearest = row.nearest.first();
                let fields = [
                    row.line.to_string(),
                    row.id.to_owned(),
                    row.hash.clone(),
                    row.verdict.unwrap_or_default().to_owned(),
                    row.shadow_verdict.unwrap_or_default().to_owned(),
                    row.rule.to_owned(),
                    if row.error.is_empty() { row.matches.to_string() } else { String::new() },
                    if row.truncated { "yes".to_owned() } else { String::new() },
                    nearest.map(|near| near.distance.to_string()).unwrap_or_default(),
                    nearest.map(|near| near.hash.clone()).unwrap_or_default(),
                    row.error.to_owned(),
                ];
                let mut csv = csv::Writer::from_writer(Vec::new());
                csv.write_record(&fields).map_err(io::Error::other)?;
                to.write_all(&csv.into_inner().map_err(|error| io::Error::other(error.to_string()))?)
            }),
        }
    }
}

fn empty<'a>(line: u64) -> Row<'a> {
    Row {
        line,
        id: "",
        hash: String::new(),
        verdict: None,
        shadow_verdict: None,
        rule: "",
        matches: 0,
        truncated: false,
        nearest: Vec::new(),
        error: "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lots(text: &[u8], alg: Option<Alg>) -> Vec<Lot> {
        let mut lots = Vec::new();
        read(text, alg, "x", |lot| {
            lots.push(lot.unwrap());
            true
        });
        lots
    }

    #[test]
    fn lines_are_hashes_with_and_without_what_a_company_calls_them() {
        let (md5, pdq) = ("900150983cd24fb0d6963f7d28e17f72", "5a".repeat(32));
        let text = format!(
            "id,hash\n{md5}\r\n\n  MD5:{}  \na1,{pdq}\n\"b,\"\"2\"\"\",\"pdq:{pdq}\"\nsha256:{pdq}\n{pdq}0\nurl:{pdq}\n",
            md5.to_uppercase()
        );
        let lots = lots(text.as_bytes(), Some(Alg::Pdq));
        let [lot] = &lots[..] else { panic!("{lots:?}") };
        let of = |alg: Alg| {
            let hashes = &lot.hashes[&alg];
            (hashes.lines.clone(), hashes.ids.iter().map(|id| id.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(of(Alg::Md5), (vec![4], vec![String::new()]), "without a type it is what --type says");
        assert_eq!(of(Alg::Pdq), (vec![5, 6], vec!["a1".to_owned(), "b,\"2\"".to_owned()]));
        assert_eq!(of(Alg::Sha256), (vec![7], vec![String::new()]));
        assert_eq!(lot.hashes[&Alg::Pdq].digests, [0x5a; 64]);
        let wrong: Vec<_> = lot.wrong.iter().map(|(line, _)| *line).collect();
        assert_eq!((wrong, lot.read), (vec![2, 8, 9], text.len() as u64), "{:?}", lot.wrong);
        assert!(lot.wrong[0].1.contains("got 32 characters, expected 64"), "{:?}", lot.wrong);
    }

    #[test]
    fn a_bare_hash_is_known_by_its_length_and_64_digits_are_told_to_be_two_types() {
        let text = ["a".repeat(32), "b".repeat(40), "c".repeat(128), "d".repeat(64)].join("\n");
        let lots = lots(text.as_bytes(), None);
        assert_eq!(lots[0].hashes.keys().copied().collect::<Vec<_>>(), [Alg::Md5, Alg::Sha1, Alg::Sha512]);
        assert!(lots[0].wrong[0].1.contains("pdq or sha256"), "{:?}", lots[0].wrong);
    }

    #[test]
    fn a_long_line_is_passed_over_and_lots_are_full() {
        let mut text = vec![b'x'; 3 * LINE_SIZE_MAX];
        text.push(b'\n');
        let hash = "a".repeat(32) + "\n";
        (0..LINES_TOGETHER).for_each(|_| text.extend(hash.as_bytes()));
        let lots = lots(&text, None);
        assert_eq!(lots.iter().map(|lot| lot.lines).collect::<Vec<_>>(), [LINES_TOGETHER, 1]);
        assert_eq!((lots[0].wrong.len(), lots[0].wrong[0].0, lots[1].read), (1, 1, text.len() as u64));
        assert_eq!(lots[1].hashes[&Alg::Md5].lines, [LINES_TOGETHER as u64 + 1]);
    }

    #[test]
    fn results_are_in_the_order_of_the_lines() {
        let text = format!("{}\nwrong\n{}\nz,{}\n", "a".repeat(40), "b".repeat(32), "c".repeat(40));
        let [lot] = <[Lot; 1]>::try_from(lots(text.as_bytes(), None)).unwrap();
        let near = local::BulkMatch { distance: 0, digest: vec![0xcc; 20].into(), status: "ACTIVE".to_owned() };
        let hit = local::BulkHit {
            position: 1,
            verdict: local::Verdict::Block.into(),
            matches: 1,
            nearest: vec![near],
            ..Default::default()
        };
        let sha1 = local::LookupBulkResponse { hits: vec![hit], rules: vec!["two".to_owned()], ..Default::default() };
        let answered = Answered { lot, answers: vec![local::LookupBulkResponse::default(), sha1] };
        let written = |format, all| {
            let wanted = Wanted { alg: None, distance: None, format, all };
            let mut results = Results::new(Vec::new(), &wanted);
            results.begin().unwrap();
            results.write(&answered).unwrap();
            assert_eq!(results.tally, Tally { looked_up: 3, matched: 1, block: 1, review: 0, wrong: 1 });
            assert_eq!(results.tally.exit(), Exit::Ok);
            String::from_utf8(results.to).unwrap()
        };
        let lines = |text: &str| {
            let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["line"].as_u64().unwrap();
            text.lines().map(line).collect::<Vec<_>>()
        };
        let jsonl = written(Format::Jsonl, false);
        assert_eq!(lines(&jsonl), [2, 4], "{jsonl}");
        let last: serde_json::Value = serde_json::from_str(jsonl.lines().last().unwrap()).unwrap();
        assert_eq!((&last["id"], &last["verdict"], &last["rule"]), (&"z".into(), &"BLOCK".into(), &"two".into()));
        assert_eq!(last["nearest"][0]["hash"], format!("sha1:{}", "c".repeat(40)));
        assert_eq!(lines(&written(Format::Jsonl, true)), [1, 2, 3, 4]);
        let csv = written(Format::Csv, false);
        assert!(csv.starts_with("line,id,hash,") && csv.lines().count() == 3, "{csv}");
        assert!(csv.contains(&format!("4,z,sha1:{},BLOCK,,two,1,,0,", "c".repeat(40))), "{csv}");
    }

    #[test]
    fn the_exit_code_is_that_of_a_match() {
        let tally = |looked_up, matched, wrong| Tally { looked_up, matched, wrong, ..Tally::default() }.exit();
        assert_eq!([tally(9, 1, 3), tally(9, 0, 3), tally(0, 0, 0)], [Exit::Ok, Exit::NotFound, Exit::NotFound]);
        assert_eq!(tally(0, 0, 3), Exit::BadInput, "nothing in it was a hash");
    }
}
