//! `submit --from FILE`: thousands of hashes. Each row stands for itself: one that is wrong is listed, and keeps no other
//! one out. A second run says nothing twice: the key of a row follows from its batch and what it says.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::ProgressBar;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use super::client::Node;
use super::failure::{Exit, Failure, Outcome, io_failure};
use super::rows::{Format, Mistake, Rows};
use super::submit::{Terms, statement};
use super::{Invocation, show};
use crate::clock;
use crate::replica::ids::{hex, sha256};
use crate::replica::taxonomy::Taxonomy;
use crate::wire::local;

/// Rows of one call: below the service's limit. While the node works at one call, the next is made ready.
const CALL_ROWS: usize = 2_000;
/// Digits of their hashes: of videos fewer rows are one call.
const CALL_DIGITS_MAX: usize = 1 << 20;
/// Mistakes shown; a file with more has one mistake in every row.
const MISTAKES_MAX: usize = 20;
/// Bytes read at once.
const READ_SIZE: usize = 1 << 16;
/// How long the startup guard of the node is waited for.
const GUARD_WAIT: Duration = Duration::from_secs(60);
const GUARD_STEP: Duration = Duration::from_millis(200);

/// What is to be imported, and how.
pub(super) struct Job<'a> {
    pub(super) path: &'a Path,
    pub(super) format: Format,
    /// What labels mean here.
    pub(super) labels: &'a Taxonomy,
    /// What a row says unless it says otherwise.
    pub(super) defaults: &'a Terms,
    pub(super) quality: Option<u32>,
    pub(super) lane: local::Lane,
    pub(super) batch: Option<&'a str>,
    pub(super) rejected: Option<&'a Path>,
}

/// The 8 bytes that name an import: the same for the same command at the same company, and for no other one.
pub(super) fn batch_id(status: &local::StatusResponse, name: &BatchName<'_>) -> [u8; 8] {
    let (kind, name): (&[u8], &[u8]) = match name {
        BatchName::Given(name) => (b"name", name.as_bytes()),
        BatchName::Digest(digest) => (b"file", digest),
    };
    let digest = sha256(&[b"staydown/batch/v1\n", &status.forum_id, &status.member_id, kind, name]);
    let mut id = [0; 8];
    id.copy_from_slice(&digest[..8]);
    id
}

/// By what a batch is named.
pub(super) enum BatchName<'a> {
    Given(&'a str),
    /// SHA-256 of the file.
    Digest([u8; 32]),
}

/// A file as it is before anything is sent.
struct Measured {
    /// Lines below the header, about as many as there are rows.
    rows: u64,
    digest: [u8; 32],
}

/// What became of the rows.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
struct Tally {
    rows: u64,
    said: u64,
    queued: u64,
    said_before: u64,
    stands: u64,
    left_alone: u64,
    refused: u64,
}

impl Tally {
    fn note(&mut self, outcome: local::RowOutcome) {
        let of = match outcome {
            local::RowOutcome::Said => &mut self.said,
            local::RowOutcome::Queued => &mut self.queued,
            local::RowOutcome::SaidBefore => &mut self.said_before,
            local::RowOutcome::Stands => &mut self.stands,
            local::RowOutcome::LeftAlone => &mut self.left_alone,
            local::RowOutcome::Refused => &mut self.refused,
            // A row of the next run.
            local::RowOutcome::NotTried | local::RowOutcome::Unspecified => return,
        };
        *of += 1;
        self.rows += 1;
    }

    fn to_text(self) -> String {
        let of = |number: u64, what: &str| (number > 0).then(|| format!(", {} {what}", show::count(number)));
        let more = [
            of(self.queued, "queued"),
            of(self.said_before, "said before"),
            of(self.stands, "said already, elsewhere"),
            of(self.left_alone, "changed since and left alone"),
            of(self.refused, "refused"),
        ];
        let more: String = more.into_iter().flatten().collect();
        format!("{} rows: {} said{more}", show::count(self.rows), show::count(self.said))
    }
}

/// The rows that are refused: the first for people, all for the file that was asked for.
struct Refused {
    shown: Vec<String>,
    count: u64,
    rows: Option<(BufWriter<File>, PathBuf)>,
    reasons: Option<(BufWriter<File>, PathBuf)>,
}

impl Refused {
    fn new(path: Option<&Path>, header: &[u8]) -> Result<Self, Failure> {
        let create = |path: PathBuf| {
            let file = File::create(&path).map_err(io_failure(path.display()))?;
            Ok::<_, Failure>((BufWriter::new(file), path))
        };
        let rows = path.map(|path| create(path.to_owned())).transpose()?;
        let beside = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(".reasons");
            PathBuf::from(name)
        };
        let reasons = path.map(|path| create(beside(path))).transpose()?;
        let mut refused = Self { shown: Vec::new(), count: 0, rows, reasons };
        if !header.is_empty() {
            refused.write(header, None)?;
        }
        Ok(refused)
    }

    fn add(&mut self, line: u64, text: &[u8], mistake: &Mistake) -> Result<(), Failure> {
        let told = mistake.at_line(line);
        self.count += 1;
        self.write(text, Some(&told))?;
        if self.shown.len() < MISTAKES_MAX {
            self.shown.push(told);
        }
        Ok(())
    }

    fn write(&mut self, text: &[u8], told: Option<&str>) -> Result<(), Failure> {
        if let Some((file, path)) = &mut self.rows {
            let written = file.write_all(text).and_then(|()| file.write_all(b"\n"));
            written.map_err(io_failure(path.display()))?;
        }
        if let (Some((file, path)), Some(told)) = (&mut self.reasons, told) {
            writeln!(file, "{told}").map_err(io_failure(path.display()))?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        for (file, path) in self.rows.iter_mut().chain(&mut self.reasons) {
            file.flush().map_err(io_failure(path.display()))?;
        }
        Ok(())
    }

    /// The first of them, for people.
    fn culprits(&self) -> Vec<String> {
        let mut culprits = self.shown.clone();
        if self.count > self.shown.len() as u64 {
            culprits.push(format!("and {} more", show::count(self.count - self.shown.len() as u64)));
        }
        culprits
    }

    /// How the command ends, if there are any.
    fn failure(&self, rows: u64) -> Option<Failure> {
        let cause = format!("{} of {} rows are refused", show::count(self.count), show::count(rows));
        let fix = match &self.rows {
            Some((_, path)) => format!("mend them in {}, and send that", path.display()),
            None => "--rejected FILE writes them into a file, to be mended and sent".to_owned(),
        };
        let failure = Failure { culprits: self.culprits(), ..Failure::new(Exit::BadInput, cause) };
        (self.count > 0).then(|| failure.fix(fix))
    }
}

/// `--check`: reads the whole file, and sends nothing.
pub(super) fn check(job: &Job<'_>, at: &Invocation) -> Outcome {
    let measured = measure(job)?;
    let mut rows = open(job)?;
    let mut refused = Refused::new(job.rejected, rows.header())?;
    let bar = at.terminal.progress(measured.rows, "rows");
    let mut tally = Tally::default();
    while let Some(row) = rows.next_row().map_err(|failure| named(failure, job.path))? {
        tally.rows += 1;
        if let Err(mistake) = row {
            tally.refused += 1;
            refused.add(rows.line(), rows.text(), &mistake)?;
        }
        if tally.rows.is_multiple_of(CALL_ROWS as u64) {
            bar.set_position(tally.rows);
        }
    }
    bar.finish_and_clear();
    refused.finish()?;
    not_empty(tally, job)?;
    let what = format!("{} rows, {} wrong; nothing was sent", show::count(tally.rows), show::count(tally.refused));
    finish(at, serde_json::json!({ "rows": tally.rows, "refused": tally.refused }), refused.failure(tally.rows), what)
}

pub(super) async fn backfill(job: &Job<'_>, at: &Invocation) -> Outcome {
    let measured = measure(job)?;
    let mut rows = open(job)?;
    let mut refused = Refused::new(job.rejected, rows.header())?;
    let node = at.node().await?;
    let status = guarded(&node, at).await?;
    let name = job.batch.map_or(BatchName::Digest(measured.digest), BatchName::Given);
    let batch = batch_id(&status, &name);
    at.terminal.talk(format!("batch {}", hex(&batch)));
    let begun = clock::instant();
    let mut tasks = JoinSet::new();
    let mut sending = Sending {
        job,
        at,
        node,
        batch,
        tally: Tally::default(),
        bar: at.terminal.progress(measured.rows, "rows"),
        total: measured.rows,
        interrupted: watch_for_interrupt(&mut tasks),
        calls: JoinSet::new(),
    };
    let sent = Box::pin(sending.send(&mut rows, &mut refused)).await;
    sending.bar.finish_and_clear();
    let Sending { tally, .. } = sending;
    refused.finish()?;
    if let Err(failure) = sent {
        let mut failure = stopped(named(failure, job.path), tally, &batch);
        failure.culprits.extend(refused.culprits());
        return Err(failure);
    }
    not_empty(tally, job)?;
    let seconds = begun.elapsed().as_secs_f64();
    let per_second = whole(tally.rows as f64 / seconds.max(0.001));
    let what = format!("batch {}: {}; {} rows/s", hex(&batch), tally.to_text(), show::count(per_second));
    let mut json = serde_json::to_value(tally).unwrap_or_default();
    json["batch"] = hex(&batch).into();
    json["rows_per_second"] = per_second.into();
    finish(at, json, refused.failure(tally.rows), what)
}

/// A rate as people read it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is neither negative nor that large"
)]
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

/// What became of the file; in JSON the refused rows are an `error` beside the numbers.
fn finish(at: &Invocation, mut json: serde_json::Value, failure: Option<Failure>, what: String) -> Outcome {
    if !at.terminal.json {
        at.terminal.talk(what);
        return failure.map_or(Ok(Exit::Ok), Err);
    }
    if let Some(failure) = &failure {
        let told: serde_json::Value = serde_json::from_str(&failure.to_json()).unwrap_or_default();
        json["error"] = told["error"].clone();
    }
    at.terminal.json(&json)?;
    Ok(failure.map_or(Exit::Ok, |failure| failure.exit))
}

/// Reads the file once: how long it is, and what names its batch.
fn measure(job: &Job<'_>) -> Result<Measured, Failure> {
    let path = job.path;
    // Read twice: a pipe would be empty the second time.
    if path.exists() && !path.is_file() {
        return Err(Failure::new(Exit::BadInput, format!("{} is not a regular file", path.display())));
    }
    let mut file = opened(path)?;
    let (mut hasher, mut lines, mut buffer) = (Sha256::new(), 0, vec![0; READ_SIZE]);
    loop {
        let size = file.read(&mut buffer).map_err(io_failure(path.display()))?;
        if size == 0 {
            let rows = lines - u64::from(job.format == Format::Csv).min(lines);
            return Ok(Measured { rows, digest: hasher.finalize().into() });
        }
        hasher.update(&buffer[..size]);
        lines += buffer[..size].iter().filter(|byte| **byte == b'\n').count() as u64;
    }
}

fn opened(path: &Path) -> Result<File, Failure> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::new(Exit::BadInput, format!("{}: {error}", path.display())))
        }
        opened => opened.map_err(io_failure(path.display())),
    }
}

type FileRows<'a> = Rows<'a, BufReader<File>>;

fn open<'a>(job: &Job<'a>) -> Result<FileRows<'a>, Failure> {
    let same = |other: &Path| matches!((fs::canonicalize(job.path), fs::canonicalize(other)), (Ok(a), Ok(b)) if a == b);
    if job.rejected.is_some_and(same) {
        return Err(Failure::new(Exit::Usage, "--rejected: is the file that is read").fix("name another file"));
    }
    let file = BufReader::with_capacity(READ_SIZE, opened(job.path)?);
    let rows = Rows::new(file, job.format, job.labels, (job.defaults, job.quality), clock::now());
    rows.map_err(|failure| named(failure, job.path))
}

fn named(mut failure: Failure, path: &Path) -> Failure {
    failure.cause = format!("{}: {}", path.display(), failure.cause);
    failure
}

fn not_empty(tally: Tally, job: &Job<'_>) -> Result<(), Failure> {
    let below = if job.format == Format::Csv { " below the header" } else { "" };
    match tally.rows {
        0 => Err(Failure::new(Exit::BadInput, format!("{}: there is no row{below}", job.path.display()))),
        _ => Ok(()),
    }
}

/// Waits until the node may sign: a file is no reason to fill the outbox.
async fn guarded(node: &Node, at: &Invocation) -> Result<local::StatusResponse, Failure> {
    let begun = clock::instant();
    let mut told = false;
    loop {
        let status = node.status(local::StatusRequest {}).await?;
        if !status.guard_pending && status.outbox == 0 {
            return Ok(status);
        }
        if begun.elapsed() > GUARD_WAIT {
            let cause = "the node still waits for peers to tell it their heads of our logs";
            return Err(Failure::new(Exit::Refused, cause).fix("staydown peer list; then run the same command again"));
        }
        if !std::mem::replace(&mut told, true) {
            at.terminal.talk("waiting until enough peers have confirmed our logs");
        }
        tokio::time::sleep(GUARD_STEP).await;
    }
}

/// Becomes true with the first interrupt from the keyboard: what is under way is ended in order.
fn watch_for_interrupt(tasks: &mut JoinSet<()>) -> Arc<AtomicBool> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&interrupted);
    tasks.spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            heard.store(true, Ordering::Relaxed);
        }
    });
    interrupted
}

/// A row on its way: where it stands in the file, in case that the node refuses it.
struct OnItsWay {
    line: u64,
    text: Vec<u8>,
}

/// An import on its way.
struct Sending<'a> {
    job: &'a Job<'a>,
    at: &'a Invocation,
    node: Node,
    batch: [u8; 8],
    tally: Tally,
    bar: ProgressBar,
    total: u64,
    interrupted: Arc<AtomicBool>,
    /// The call that the node works at, if any.
    calls: JoinSet<Result<local::ImportResponse, Failure>>,
}

impl Sending<'_> {
    /// One call after the other, so that the last of several rows on one hash is the last word on it.
    async fn send(&mut self, rows: &mut FileRows<'_>, refused: &mut Refused) -> Result<(), Failure> {
        let mut before: Option<Vec<OnItsWay>> = None;
        loop {
            let (ways, statements, is_last) = self.gather(rows, refused)?;
            if let Some(ways) = before.take() {
                self.answered(&ways, refused).await?;
            }
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Failure::new(Exit::Failed, "interrupted"));
            }
            if !statements.is_empty() {
                let node = self.node.clone();
                let request = local::ImportRequest { rows: statements, lane: self.job.lane.into() };
                self.calls.spawn(async move { node.import(request).await });
                before = Some(ways);
            }
            if is_last {
                return match before.take() {
                    Some(ways) => self.answered(&ways, refused).await,
                    None => Ok(()),
                };
            }
        }
    }

    /// The rows of the next call, and whether they are the last.
    fn gather(
        &mut self,
        rows: &mut FileRows<'_>,
        refused: &mut Refused,
    ) -> Result<(Vec<OnItsWay>, Vec<local::Statement>, bool), Failure> {
        let (mut ways, mut statements) = (Vec::with_capacity(CALL_ROWS), Vec::with_capacity(CALL_ROWS));
        let mut digits = 0;
        while statements.len() < CALL_ROWS && digits < CALL_DIGITS_MAX {
            let Some(row) = rows.next_row()? else { return Ok((ways, statements, true)) };
            match row {
                Ok(row) => {
                    ways.push(OnItsWay { line: rows.line(), text: rows.text().to_vec() });
                    digits += row.hash.value.len();
                    statements.push(statement(&row.hash, &row.terms, row.key(&self.batch), None));
                }
                Err(mistake) => {
                    refused.add(rows.line(), rows.text(), &mistake)?;
                    self.tally.note(local::RowOutcome::Refused);
                }
            }
        }
        Ok((ways, statements, false))
    }

    async fn answered(&mut self, ways: &[OnItsWay], refused: &mut Refused) -> Result<(), Failure> {
        let lost = || Failure::new(Exit::Bug, "a call to the node was lost");
        let answer = self.calls.join_next().await.and_then(Result::ok).ok_or_else(lost)??;
        if answer.rows.len() != ways.len() {
            let cause = format!("the node answered {} rows, expected {}", answer.rows.len(), ways.len());
            return Err(Failure::new(Exit::Failed, cause).fix("run the same release as the node"));
        }
        let before = self.tally.rows;
        for (row, way) in answer.rows.iter().zip(ways) {
            self.tally.note(row.outcome());
            if row.outcome() == local::RowOutcome::Refused {
                refused.add(way.line, &way.text, &Mistake::told(&row.why))?;
            }
        }
        self.at.terminal.passed(before, self.tally.rows, self.total, "rows");
        self.bar.set_position(self.tally.rows);
        match answer.stopped.is_empty() {
            true => Ok(()),
            false => Err(Failure::new(Exit::Refused, answer.stopped)),
        }
    }
}

fn stopped(failure: Failure, tally: Tally, batch: &[u8; 8]) -> Failure {
    let again = "run the same command again: it goes on, and says nothing twice";
    let fix = failure.fix.as_ref().map_or_else(|| again.to_owned(), |first| format!("{first}; then {again}"));
    failure.culprit(format!("batch {}: {} so far; nothing of that is lost", hex(batch), tally.to_text())).fix(fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_named_by_forum_member_and_name_or_file() {
        let status = |forum: u8, member: u8| local::StatusResponse {
            forum_id: vec![forum; 32].into(),
            member_id: vec![member; 16].into(),
            ..Default::default()
        };
        let id = batch_id(&status(1, 1), &BatchName::Given("daily"));
        assert_eq!(id, batch_id(&status(1, 1), &BatchName::Given("daily")));
        for (status, name) in [
            (status(2, 1), BatchName::Given("daily")),
            (status(1, 2), BatchName::Given("daily")),
            (status(1, 1), BatchName::Given("dail")),
            (status(1, 1), BatchName::Digest([0; 32])),
        ] {
            assert_ne!(batch_id(&status, &name), id);
        }
    }

    #[test]
    fn rows_that_were_not_tried_are_not_counted() {
        let mut tally = Tally::default();
        for outcome in [local::RowOutcome::Said, local::RowOutcome::NotTried, local::RowOutcome::Stands] {
            tally.note(outcome);
        }
        assert_eq!(tally.to_text(), "2 rows: 1 said, 1 said already, elsewhere");
    }

    #[test]
    fn refused_rows_are_written_as_they_were_and_told_up_to_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("no.csv");
        let mut refused = Refused::new(Some(&path), b"type,value").unwrap();
        for line in 2..100 {
            refused.add(line, b"md5,1\xff", &Mistake::in_column("value", "is short")).unwrap();
        }
        refused.finish().unwrap();
        assert_eq!((refused.shown.len(), refused.count), (MISTAKES_MAX, 98));
        let rows = fs::read(&path).unwrap();
        assert!(rows.starts_with(b"type,value\nmd5,1\xff\n") && rows.iter().filter(|b| **b == b'\n').count() == 99);
        let reasons = fs::read_to_string(folder.path().join("no.csv.reasons")).unwrap();
        assert!(reasons.starts_with("line 2, column value: is short\n") && reasons.lines().count() == 98);
    }
}
