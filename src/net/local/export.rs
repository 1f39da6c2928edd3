//! `ExportEntries`: the list, in the order of its subjects, with the quality of its PDQ hashes, which only the records
//! behind them know.
//!
//! Each subject is looked at once, at one moment: what stands throughout is in the export exactly once, as it was at
//! that moment; what changes meanwhile is in it as it was before or as it is after.

use std::sync::Arc;

use futures_util::stream::BoxStream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::batches::Frames;
use super::watch::PATIENCE;
use super::{Filter, SCAN_MAX, labels, saying};
use crate::engine::Shared;
use crate::replica::ids::{BlockId, LogNo, MemberId, Origin, Seq};
use crate::replica::signal::Alg;
use crate::wire::local as l;

/// Entries that are gathered before the records behind them are read, in the order of their blocks: of a long list of
/// PDQ hashes nearly every block is read once for each so many, not once for each entry. About 16 MiB.
const GATHERED: usize = 16_384;
/// Entries of one part: a word of each of fifty members on each still fits into a message.
const PART_ENTRIES: usize = 200;
/// Parts that wait for the caller.
const AHEAD: usize = 4;

/// The answer.
pub(super) type Parts = BoxStream<'static, Result<l::ExportPart, Status>>;

/// Begins to read, and hands over what the caller takes.
pub(super) fn export(
    shared: &Arc<Shared>,
    permit: OwnedSemaphorePermit,
    request: &l::ListEntriesRequest,
) -> Result<Parts, Status> {
    // Who lacks the names would write a file that no node takes back.
    labels::known(&shared.taxonomy())?;
    // Whom an entry is about leaves the forum only if that is asked for.
    let accounts = request.r#type == Alg::Account.name();
    // Only the bound on what is looked at under one hold of the lock ends a scan.
    let filter = Filter { page_size: usize::MAX, ..Filter::new(request, shared)? };
    let (sender, receiver) = mpsc::channel(AHEAD);
    let shared = Arc::clone(shared);
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        if let Err(status) = read(&shared, filter, accounts, &sender) {
            // If nobody listens any more, nobody needs to know.
            drop(sender.blocking_send(Err(status)));
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

fn read(
    shared: &Shared,
    mut filter: Filter,
    accounts: bool,
    sender: &mpsc::Sender<Result<l::ExportPart, Status>>,
) -> Result<(), Status> {
    let mut looked_at = 0;
    loop {
        let mut entries = Vec::new();
        loop {
            filter.after = filter.scan(shared, filter.after.as_ref(), &mut entries);
            looked_at += SCAN_MAX as u64;
            if filter.after.is_none() || filter.is_full(&entries) || entries.len() >= GATHERED {
                break;
            }
        }
        entries.retain(|entry| accounts || !entry.signal.as_ref().is_some_and(is_account));
        add_qualities(shared, &mut entries)?;
        let subjects = shared.replica().view().known() as u64;
        let mut told = l::ExportPart { subjects, looked_at: looked_at.min(subjects), entries: Vec::new() };
        let mut entries = entries.into_iter().peekable();
        loop {
            told.entries = entries.by_ref().take(PART_ENTRIES).collect();
            let sent = Handle::current().block_on(timeout(PATIENCE, sender.send(Ok(told.clone()))));
            if !matches!(sent, Ok(Ok(()))) {
                return Ok(()); // the caller is gone, or does not read
            }
            if entries.peek().is_none() {
                break;
            }
        }
        if filter.after.is_none() {
            return Ok(());
        }
    }
}

fn is_account(signal: &l::Signal) -> bool {
    signal.r#type == Alg::Account.name()
}

/// Puts the quality of each PDQ hash beside the word that names it.
fn add_qualities(shared: &Shared, entries: &mut [l::Entry]) -> Result<(), Status> {
    let mut places = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        let is_pdq = entry.signal.as_ref().is_some_and(|signal| signal.r#type == Alg::Pdq.name());
        for (which, said) in entry.said.iter().enumerate().filter(|_| is_pdq) {
            if let Some(member) = MemberId::from_slice(&said.member_id).filter(|_| said.what == "SUBMIT") {
                let origin = Origin { member, log_no: LogNo(said.log_no) };
                places.push((BlockId { origin, seq: Seq(said.seq) }, said.index, at, which));
            }
        }
    }
    places.sort_unstable();
    let mut frames = Frames::default();
    let labels = shared.taxonomy();
    for (block, index, at, which) in places {
        let Ok(index) = u16::try_from(index) else { continue };
        let record = frames.record(shared, block, index)?;
        entries[at].said[which].details = record.and_then(|record| saying::details(&record, &labels));
    }
    Ok(())
}
