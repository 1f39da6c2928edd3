//! `log export`, `receipt` and `verify`: files that others can check, and checking them. `verify` needs no node, no data
//! directory and no settings: only the forum's fingerprint.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::charter::{place, says};
use super::client::{Node, Pieces};
use super::failure::{Exit, Failure, Outcome, io_failure};
use super::item::Item;
use super::{Invocation, show};
use crate::engine;
use crate::evidence::export::{self, ExportError, Holding};
use crate::evidence::format::{Claim, Counts, Evidence, Kind, Malformed, Writer};
use crate::evidence::verify::{self, Broken, Checked, Shown};
use crate::node;
use crate::replica::ids::{BlockId, ForumId, MemberId, Origin, TimeMs, hex};
use crate::wire::local;

/// Blocks between two looks at the progress bar.
const STEP: u64 = 256;

#[derive(Args)]
pub(super) struct ExportArgs {
    /// The file to write; an older one of this name is replaced
    file: PathBuf,
}

#[derive(Args)]
pub(super) struct ReceiptArgs {
    /// A hash as in sha256:..., a file (all that is said of it), or one record by its place
    #[arg(value_name = "HASH|FILE|MEMBER/LOG@SEQ#INDEX")]
    what: String,
    /// The file to write [default: receipt.sde]
    #[arg(long, short, value_name = "FILE", default_value = "receipt.sde")]
    out: PathBuf,
}

#[derive(Args)]
pub(super) struct VerifyArgs {
    /// A bundle of log export, or a receipt
    file: PathBuf,
    /// Fingerprint of the forum, as its founders told it: never taken from the file
    #[arg(long, value_name = "FINGERPRINT")]
    forum: String,
}

/// A file that is written under another name until it is whole.
struct Draft {
    path: PathBuf,
    beside: PathBuf,
    writer: Writer<BufWriter<File>>,
    counts: Counts,
}

impl Draft {
    fn begin(path: &Path, what: Evidence) -> Result<Self, Failure> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let beside = path.with_file_name(name);
        let file = File::create(&beside).map_err(io_failure(beside.display()))?;
        let writer = Writer::begin(BufWriter::new(file), what).map_err(io_failure(beside.display()))?;
        Ok(Self { path: path.to_owned(), beside, writer, counts: Counts::default() })
    }

    fn item(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), Failure> {
        self.counts.add(kind);
        self.writer.item(kind, bytes).map_err(io_failure(self.beside.display()))
    }

    /// Ends the file, brings it to stable storage, and gives it its name.
    fn end(self, claim: &Claim) -> Result<(), Failure> {
        let failed = |error| io_failure(self.path.display())(error);
        let file = self.writer.end(claim).map_err(failed)?.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        fs::rename(&self.beside, &self.path).map_err(failed)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

pub(super) async fn export(args: &ExportArgs, at: &Invocation) -> Outcome {
    let mut draft = Draft::begin(&args.file, Evidence::Bundle)?;
    let beside = draft.beside.clone();
    let written = fill(&mut draft, at).await;
    let ended = match written {
        Ok((forum, view)) => end_bundle(draft, forum, view, at),
        Err(failure) => Err(failure),
    };
    let checked = ended.inspect_err(|_failed| drop(fs::remove_file(beside)))?;
    tell(&args.file, Evidence::Bundle, &checked, at)
}

/// The view as whoever holds the blocks sees it.
type View = (TimeMs, Option<Vec<u8>>);

/// Writes what the running node has, or the data directory of a stopped one.
async fn fill(draft: &mut Draft, at: &Invocation) -> Result<(ForumId, View), Failure> {
    let config = at.config()?;
    match Node::connect(&config.local.socket).await {
        Ok(node) => {
            let status = node.status(local::StatusRequest {}).await?;
            let forum = ForumId::from_slice(&status.forum_id);
            let forum = forum.ok_or_else(|| Failure::new(Exit::Bug, "the node named no forum"))?;
            let view = take(draft, node.evidence(local::ExportEvidenceRequest::default()).await?, at).await?;
            Ok((forum, view))
        }
        Err(unreachable) => {
            let (settings, invitation) =
                node::identity(&config.data).map_err(|error| unreachable.culprit(error.to_string()))?;
            let forum = invitation.forum;
            let opened = engine::read_directory(&config.data, settings, forum, invitation.charters);
            let (_lock, store, replica) =
                opened.map_err(|error| super::run::node_failure(&node::NodeError::Open(error)))?;
            let holding = Holding::of(&replica, crate::clock::now());
            let bar = at.terminal.progress(holding.blocks(), "blocks");
            let mut failed = None;
            let taken = export::bundle(&holding, &store, &mut |kind, bytes| {
                bar.inc(u64::from(kind == Kind::Block));
                failed = draft.item(kind, &bytes).err();
                failed.is_none()
            });
            bar.finish_and_clear();
            match (taken, failed) {
                (_, Some(failure)) => Err(failure),
                (Err(error), None) => Err(export_failure(&error)),
                (Ok(()), None) => Ok((forum, (holding.view.0, holding.view.1.map(|digest| digest.to_vec())))),
            }
        }
    }
}

fn export_failure(error: &ExportError) -> Failure {
    Failure::new(Exit::Storage, error.to_string()).fix("staydown log verify; or export from the running node")
}

/// Writes what the node sends.
async fn take(draft: &mut Draft, mut pieces: Pieces, at: &Invocation) -> Result<View, Failure> {
    let first = pieces.next().await?.unwrap_or_default();
    let bar = at.terminal.progress(first.blocks, "blocks");
    let mut blocks = 0;
    while let Some(piece) = pieces.next().await? {
        let letter = u8::try_from(piece.kind).ok();
        let kind = letter.and_then(Kind::from_letter).filter(|kind| *kind != Kind::Trailer);
        let kind =
            kind.ok_or_else(|| Failure::new(Exit::Failed, "the node is of another release than this program"))?;
        draft.item(kind, &piece.item)?;
        if kind == Kind::Block {
            bar.inc(1);
            at.terminal.passed(blocks, blocks + 1, first.blocks, "blocks");
            blocks += 1;
        }
    }
    bar.finish_and_clear();
    Ok((TimeMs(first.view_hour_ms), (!first.view_digest.is_empty()).then(|| first.view_digest.to_vec())))
}

/// Reads back what was written, like a stranger, and puts the view that it gives into the trailer.
fn end_bundle(mut draft: Draft, forum: ForumId, view: View, at: &Invocation) -> Result<Checked, Failure> {
    draft.writer.flush().map_err(io_failure(draft.beside.display()))?;
    let path = draft.beside.clone();
    let blocks = draft.counts.main;
    let derived = watched(at, blocks, |progress| verify::derive(&mut opener(&path), true, forum, view.0, progress));
    let checked = derived.map_err(|broken| {
        let failure = Failure::new(Exit::Verification, format!("what the node holds does not verify: {broken}"));
        failure.fix("staydown log verify")
    })?;
    if let Some(shown) = view.1.filter(|digest| digest[..] != checked.view.1) {
        let cause = "the list that the node shows is not the one that its blocks give";
        let failure = Failure::new(Exit::Verification, cause).culprit(format!("shown: {}", hex(&shown)));
        let failure = failure.culprit(format!("its blocks give: {}", hex(&checked.view.1)));
        return Err(failure.fix("staydown log verify; and tell the others"));
    }
    draft.counts.inner = checked.counts.inner;
    let claim = Claim { counts: draft.counts, view: checked.view };
    draft.end(&claim)?;
    Ok(checked)
}

/// Runs something long with a bar for its blocks.
fn watched<T>(at: &Invocation, blocks: u64, run: impl FnOnce(&mut dyn FnMut(u64)) -> T) -> T {
    let bar = at.terminal.progress(blocks, "blocks verified");
    let answer = run(&mut |done| {
        if done % STEP == 0 {
            bar.set_position(done);
        }
    });
    bar.finish_and_clear();
    answer
}

fn opener(path: &Path) -> impl FnMut() -> Result<Box<dyn Read>, Malformed> + '_ {
    move || Ok(Box::new(BufReader::new(File::open(path)?)) as Box<dyn Read>)
}

pub(super) async fn receipt(args: &ReceiptArgs, at: &Invocation) -> Outcome {
    let node = at.node().await?;
    let records = places(&args.what, &node, at).await?;
    let status = node.status(local::StatusRequest {}).await?;
    let mut draft = Draft::begin(&args.out, Evidence::Receipt)?;
    let beside = draft.beside.clone();
    let written = async {
        take(&mut draft, node.evidence(local::ExportEvidenceRequest { records }).await?, at).await?;
        let claim = Claim { counts: draft.counts, ..Claim::default() };
        draft.end(&claim)
    };
    written.await.inspect_err(|_failed| drop(fs::remove_file(beside)))?;
    let forum = ForumId::from_slice(&status.forum_id).unwrap_or(ForumId([0; 32]));
    let checked = verify::verify(&mut opener(&args.out), forum, &mut |_| ()).map_err(|broken| failure(&broken))?;
    tell(&args.out, Evidence::Receipt, &checked, at)
}

/// The records that are meant: one by its place, or all that stand on an item.
async fn places(what: &str, node: &Node, at: &Invocation) -> Result<Vec<local::GetRecordRequest>, Failure> {
    if let Some((block, index)) = what.rsplit_once('#').filter(|_| !Path::new(what).exists()) {
        let (member, log_no, seq) = place(block)?;
        let index = index.parse().map_err(|_no_number| {
            Failure::new(Exit::Usage, format!("got record {index:?}, expected MEMBER/LOG@SEQ#INDEX"))
        })?;
        let chain = super::charter::current_chain(at).await?;
        let known = chain.effective().members.values().find(|m| m.name == member || m.id.to_string() == member);
        let id = known.map(|m| m.id).ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("no member is called so: {member:?}")).fix("staydown member list")
        })?;
        return Ok(vec![request(BlockId { origin: Origin { member: id, log_no }, seq }, index)]);
    }
    let item = Item::read(what)?;
    let mut records = Vec::new();
    for hash in item.usable_hashes() {
        let entry = node
            .entry(local::GetEntryRequest { signal: Some(hash.signal()), receipts: false, ..Default::default() })
            .await;
        match entry {
            Ok(entry) => records.extend(entry.entry.into_iter().flat_map(|entry| entry.said).map(said)),
            Err(failure) if failure.exit == Exit::NotFound => {}
            Err(failure) => return Err(failure),
        }
    }
    if records.is_empty() {
        return Err(Failure::new(Exit::NotFound, format!("{}: nobody says anything of it", item.name())));
    }
    records.truncate(export::RECORDS_MAX);
    Ok(records)
}

fn request(block: BlockId, index: u32) -> local::GetRecordRequest {
    let member_id = block.origin.member.0.to_vec().into();
    local::GetRecordRequest { member_id, log_no: block.origin.log_no.0, seq: block.seq.0, index }
}

fn said(said: local::Said) -> local::GetRecordRequest {
    let local::Said { member_id, log_no, seq, index, .. } = said;
    local::GetRecordRequest { member_id, log_no, seq, index }
}

pub(super) fn verify(args: &VerifyArgs, at: &Invocation) -> Outcome {
    let forum = show::fingerprint(&args.forum).map_err(|why| Failure::new(Exit::Usage, format!("--forum: {why}")))?;
    let mut what = Evidence::Bundle;
    let length = fs::metadata(&args.file).map_err(|error| bad_file(&args.file, &error.to_string()))?.len();
    // A block of a busy log has some KiB; a bar that is nearly right is better than none.
    let blocks = length / 4_096;
    let checked = watched(at, blocks, |progress| {
        let mut open = opener(&args.file);
        what = crate::evidence::format::Reader::begin(open()?)?.what;
        verify::verify(&mut open, forum, progress)
    });
    let checked: Checked = checked.map_err(|broken: Broken| {
        if broken.is_bad_file() { bad_file(&args.file, &broken.to_string()) } else { failure(&broken) }
    })?;
    tell(&args.file, what, &checked, at)
}

fn bad_file(path: &Path, why: &str) -> Failure {
    Failure::new(Exit::BadInput, format!("{}: {why}", path.display())).fix("ask for the file again")
}

fn failure(broken: &Broken) -> Failure {
    let failure = Failure::new(Exit::Verification, format!("this does not verify: {broken}"));
    match broken {
        Broken::Charter(crate::replica::charter::CharterError::Forum { .. }) => {
            failure.fix("compare the fingerprint with what the founders told, by another road than the file")
        }
        Broken::Level(_) => failure.fix("install the current release"),
        _ => failure.fix("believe nothing of this file, and keep it"),
    }
}

/// What was checked.
fn tell(path: &Path, what: Evidence, checked: &Checked, at: &Invocation) -> Outcome {
    if at.terminal.json {
        at.terminal.json(&as_json(what, checked))?;
        return Ok(Exit::Ok);
    }
    let count = show::count;
    let Checked { forum, charter_version, counts, signatures, logs, .. } = checked;
    at.terminal.data(format!("{}: verified", path.display()))?;
    at.terminal.data(show::clean(&format!("forum {forum:?}, charters 1..{charter_version}")))?;
    match what {
        Evidence::Bundle => {
            at.terminal.data(format!(
                "{} logs, {} blocks, {} records ({} erased), {} proofs; {} signatures hold",
                count(*logs),
                count(counts.main),
                count(counts.inner),
                count(checked.erased),
                count(counts.proofs),
                count(*signatures),
            ))?;
            let (hour, digest) = &checked.view;
            at.terminal.data(format!("{} entries are listed at {}", count(checked.listed), show::time(*hour)))?;
            at.terminal.data(format!("view digest {}", hex(digest)))?;
        }
        Evidence::Receipt => {
            for record in &checked.records {
                tell_record(record, at)?;
            }
        }
    }
    Ok(Exit::Ok)
}

fn tell_record(shown: &Shown, at: &Invocation) -> Result<(), Failure> {
    let member = show::clean(&shown.member);
    let words = shown.record.as_ref().map_or_else(|| "erased by the founders' order".to_owned(), |bytes| says(bytes));
    let Shown { block, index, time, .. } = shown;
    at.terminal.data(format!("{member} signed at {}: {words}", show::time(*time)))?;
    at.terminal.data(format!("  record {index} of block {block}"))?;
    for (by, time) in &shown.attested {
        at.terminal.data(format!("  attested by {} at {}", show::clean(by), show::time(*time)))?;
    }
    match shown.disputed_from {
        Some(seq) => at.terminal.data(format!("  this log is disputed from block {} on", seq.0)),
        None => Ok(()),
    }
}

fn as_json(what: Evidence, checked: &Checked) -> Value {
    let mut value = json!({
        "kind": match what { Evidence::Bundle => "bundle", Evidence::Receipt => "receipt" },
        "forum": checked.forum, "charter_version": checked.charter_version, "charters": checked.counts.charters,
        "proofs": checked.counts.proofs, "logs": checked.logs, "disputed": checked.disputed,
        "signatures": checked.signatures, "erased": checked.erased,
    });
    let more = match what {
        Evidence::Bundle => json!({
            "blocks": checked.counts.main, "records": checked.counts.inner, "listed": checked.listed,
            "view_hour_ms": checked.view.0.0, "view_digest": hex(&checked.view.1),
        }),
        Evidence::Receipt => json!({ "records": checked.records.iter().map(record_json).collect::<Vec<_>>() }),
    };
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

fn record_json(shown: &Shown) -> Value {
    let MemberId(member_id) = shown.block.origin.member;
    let attested: Vec<_> = shown.attested.iter().map(|(by, time)| json!({ "member": by, "time_ms": time.0 })).collect();
    json!({
        "member": shown.member, "member_id": hex(&member_id), "log_no": shown.block.origin.log_no.0,
        "seq": shown.block.seq.0, "index": shown.index, "time_ms": shown.time.0,
        "record": shown.record.as_ref().map(|bytes| hex(bytes)), "erased": shown.record.is_none(),
        "disputed_from": shown.disputed_from.map(|seq| seq.0), "attested": attested,
    })
}
