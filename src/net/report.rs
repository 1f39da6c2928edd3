//! The transparency report of a running node: reads its blocks from the store, and tells how far it is.
//!
//! Nothing is held while it reads: how far each log counts is taken down at the beginning, and each block is verified
//! again on its way into the report, like a stranger's.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::labels;
use super::limits::LOCAL_MESSAGE_BYTES_MAX;
use super::status::{bad_field, of_store, refuse};
use crate::clock;
use crate::engine::Shared;
use crate::replica::block::Frame;
use crate::replica::charter::Charter;
use crate::replica::ids::{BlockId, ForumId, Origin, Seq, TimeMs};
use crate::replica::signed::VerifiedBlock;
use crate::replica::taxonomy::Taxonomy;
use crate::report::local::Counters;
use crate::report::{Gathering, Period, PeriodError, Report};
use crate::wire::local as l;

/// Work between two words on how far it is, in records and blocks: well under a second's worth, whether blocks hold one
/// record or 512.
const TOLD_EVERY: u64 = 4_096;

/// A report travels in one message, with room for its framing.
const REPORT_BYTES_MAX: usize = LOCAL_MESSAGE_BYTES_MAX - 1_024;
/// Reports that a node makes at once: each reads the whole store and holds about as much memory as the list.
pub(super) const REPORTS_AT_ONCE: usize = 1;
/// Words on their way to whoever asked; who does not read them holds up his own report only.
const WORDS_MAX: usize = 4;

/// What a report is answered with, piece by piece.
pub type Parts = BoxStream<'static, Result<l::ReportPart, Status>>;

/// Reads on a thread of its own and answers with words on how far it is, the forum's part, and, where that is wanted,
/// what only this node knows.
///
/// # Errors
/// The period is not one that can be reported.
pub(super) fn answer(
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    request: &l::ReportRequest,
    permit: OwnedSemaphorePermit,
) -> Result<Parts, Status> {
    let now = clock::now();
    let period = Period::new(TimeMs(request.from_ms), TimeMs(request.to_ms), request.open, now);
    let period = period.map_err(|error| of_period(&error))?;
    let local = request.local;
    let (words, heard) = mpsc::channel(WORDS_MAX);
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let tell = |part| words.blocking_send(Ok(l::ReportPart { part: Some(part) })).is_ok();
        let progress = |blocks_read, blocks_total| {
            tell(l::report_part::Part::Progress(l::ReportProgress { blocks_read, blocks_total }))
        };
        let forum = forum_part(&shared, period, progress).and_then(|report| json(&report));
        let told = match forum {
            Ok(forum) => tell(l::report_part::Part::Forum(forum)),
            Err(status) => {
                drop(words.blocking_send(Err(status)));
                false
            }
        };
        if told
            && local
            && let Ok(part) = json(&counters.part(clock::now()))
        {
            tell(l::report_part::Part::Local(part));
        }
    });
    Ok(Box::pin(ReceiverStream::new(heard)))
}

fn of_period(error: &PeriodError) -> Status {
    let field = match error {
        PeriodError::NotAnHour { field, .. } => field,
        PeriodError::Empty { .. } | PeriodError::NotClosed { .. } | PeriodError::Long(_) => "to",
    };
    bad_field(field, error.to_string())
}

fn json(part: &impl serde::Serialize) -> Result<Bytes, Status> {
    let text = serde_json::to_vec(part).map_err(|error| refuse(Code::Internal, "BUG", error.to_string()))?;
    if text.len() > REPORT_BYTES_MAX {
        let what = format!(
            "the report has {} bytes, at most {REPORT_BYTES_MAX} are answered: ask for a shorter period",
            text.len()
        );
        return Err(refuse(Code::ResourceExhausted, "TOO_LARGE", what));
    }
    Ok(text.into())
}

/// How far each log counts, and by which charter, as the list had it at the end of the period.
struct Ends {
    forum: ForumId,
    charter: Charter,
    taxonomy: Arc<Taxonomy>,
    logs: BTreeMap<Origin, Seq>,
    blocks: u64,
}

impl Ends {
    /// For a report of what was said before `end`.
    fn of(shared: &Shared, end: TimeMs) -> Self {
        let replica = shared.replica();
        let logs = replica.prefixes_at(end);
        Self {
            forum: replica.charters().forum(),
            charter: replica.law().clone(),
            taxonomy: shared.taxonomy(),
            blocks: logs.values().map(|seq| seq.0).sum(),
            logs,
        }
    }
}

/// The forum's part of the report of `period`. `told` hears how many of how many blocks are read, and ends the work
/// with `false`: whoever asked has gone.
///
/// # Errors
/// A block cannot be read, or does not verify.
fn forum_part(shared: &Shared, period: Period, mut told: impl FnMut(u64, u64) -> bool) -> Result<Report, Status> {
    let ends = Ends::of(shared, period.to());
    // Who lacks the names would write another report than those who have them.
    labels::known(&ends.taxonomy)?;
    if ends.taxonomy.named() != ends.charter.taxonomy {
        return Err(refuse(Code::Unavailable, "TAXONOMY", "the forum's taxonomy changes at this moment: ask again"));
    }
    let mut gathering = Gathering::new(&ends.charter, Arc::clone(&ends.taxonomy), period);
    let mut reading =
        Reading { ends: &ends, shared, next: BTreeMap::new(), past: BTreeSet::new(), read: 0, failed: None };
    let mut untold = 0;
    let read = shared.store().for_each_block(|id, bytes| {
        let Some(block) = reading.block(id, bytes) else { return reading.flow() };
        if !gathering.take(block.header(), block.hash(), block.records()) {
            reading.past.insert(id.origin);
        }
        untold += 1 + block.records().len() as u64;
        if untold < TOLD_EVERY {
            return reading.flow();
        }
        untold = 0;
        if !told(reading.read, ends.blocks) {
            reading.failed = Some("whoever asked for the report has gone".into());
        }
        reading.flow()
    });
    read.map_err(|error| of_store(&error))?;
    if let Some(why) = reading.failed.take() {
        return Err(refuse(Code::DataLoss, "STORE", why));
    }
    reading.complete()?;
    told(ends.blocks, ends.blocks);
    Ok(gathering.finish(ends.forum))
}

/// The way through the store.
struct Reading<'a> {
    ends: &'a Ends,
    shared: &'a Shared,
    next: BTreeMap<Origin, Seq>,
    /// Logs whose blocks are of after the period by now.
    past: BTreeSet<Origin>,
    read: u64,
    failed: Option<String>,
}

impl Reading<'_> {
    /// The block at `id`, if it counts and may be of the period.
    fn block(&mut self, id: BlockId, bytes: &[u8]) -> Option<VerifiedBlock> {
        if self.past.contains(&id.origin) || self.ends.logs.get(&id.origin).is_none_or(|end| id.seq > *end) {
            return None;
        }
        // As of now: an order to erase may have come since the beginning, and the block be stored without the record.
        let (keyring, held) = {
            let replica = self.shared.replica();
            (replica.keyring(), replica.logs().get(&id.origin).and_then(|log| log.hash_at(id.seq)))
        };
        let frame = Frame::decode(Bytes::copy_from_slice(bytes)).ok();
        let block = frame.and_then(|frame| keyring.verify(frame).ok());
        let expected = self.next.get(&id.origin).map_or(Seq(1), |last| last.next());
        match block {
            Some(block) if held == Some(block.hash()) && id.seq == expected => {
                self.read += 1;
                self.next.insert(id.origin, id.seq);
                Some(block)
            }
            _ => {
                self.failed = Some(format!("block {id} does not verify; staydown log verify says more"));
                None
            }
        }
    }

    fn flow(&self) -> ControlFlow<()> {
        if self.failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// A log of which a block is missing would make another report than the others'.
    fn complete(&self) -> Result<(), Status> {
        for (origin, end) in &self.ends.logs {
            let read = self.next.get(origin).copied().unwrap_or_default();
            if read < *end && !self.past.contains(origin) {
                let what = format!("log {origin} counts up to block {}, and the store has it up to {}", end.0, read.0);
                return Err(refuse(Code::DataLoss, "STORE", what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread::JoinHandle;

    use super::*;
    use crate::engine;
    use crate::net::local::LocalService;
    use crate::replica::block::RECORDS_PER_BLOCK_MAX;
    use crate::replica::ids::{Class, Head};
    use crate::replica::testing::{FULL, START, STEWARD, TestForum, id, opinion, settings, suspend};
    use crate::store::{Store, Write};
    use crate::wire::local_service::forum_server::Forum as _;
    use futures_util::StreamExt as _;
    use tempfile::TempDir;
    use tonic::Request;

    async fn parts(service: &LocalService, request: l::ReportRequest) -> Result<Vec<l::report_part::Part>, Status> {
        let mut stream = service.report(Request::new(request)).await?.into_inner();
        let mut parts = Vec::new();
        while let Some(part) = stream.next().await {
            parts.extend(part?.part);
        }
        Ok(parts)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_report_is_of_whole_blocks_that_verify_or_it_is_none() {
        let forum = TestForum::of_full(1);
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Handle::current();
        let (handle, _, thread) =
            engine::start(folder.path(), settings(1), forum.id, &forum.charters, runtime).unwrap();
        let service = LocalService::new(handle.clone(), settings(1), String::new(), BTreeMap::new());
        for about in 1..=2 {
            handle.submit(Class::Normal, vec![opinion(about, 1)]).await.unwrap();
        }
        let hour = clock::now().hour();
        let to_ms = hour.plus(2 * TimeMs::HOUR_MS).0;
        let refused = parts(&service, l::ReportRequest { from_ms: hour.0, to_ms, open: true, local: false }).await;
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument, "at most the current hour is reported");
        // The hour may end while this runs: two hours are asked for, of which the second is the one that runs.
        let asked = || {
            let now = clock::now().hour();
            let from_ms = now.0 - TimeMs::HOUR_MS;
            l::ReportRequest { from_ms, to_ms: now.plus(TimeMs::HOUR_MS).0, open: true, local: true }
        };
        let answered = parts(&service, asked()).await.unwrap();
        let [.., l::report_part::Part::Forum(report), l::report_part::Part::Local(_)] = &answered[..] else {
            panic!("{answered:?}")
        };
        let report: Report = serde_json::from_slice(report).unwrap();
        assert_eq!((report.entries.new, report.head.blocks), (2, 2));
        let told = l::report_part::Part::Progress(l::ReportProgress { blocks_read: 2, blocks_total: 2 });
        assert_eq!(answered[0], told);

        // What was changed on disk is in no report.
        let (origin, store) = (crate::replica::testing::origin(1, 0), handle.shared().store());
        let (first, second) = (BlockId { origin, seq: Seq(1) }, BlockId { origin, seq: Seq(2) });
        assert_eq!(origin.member, id(1));
        let whole = store.block(second).unwrap().unwrap();
        for wrong in [store.block(first).unwrap().unwrap(), whole[..whole.len() - 1].to_vec()] {
            store.write(&[Write::Block(second, &wrong)]).unwrap();
            let refused = parts(&service, asked()).await.unwrap_err();
            assert_eq!(refused.code(), Code::DataLoss);
            assert!(refused.message().contains("does not verify"), "{refused:?}");
        }
        store.write(&[Write::Block(second, &whole)]).unwrap();
        assert!(parts(&service, asked()).await.is_ok());
        drop(service);
        handle.stop().await;
        thread.join().unwrap();
    }

    /// A node that holds these blocks.
    fn holding(forum: &TestForum, blocks: &[VerifiedBlock]) -> (TempDir, engine::Handle, JoinHandle<()>) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join(engine::STORE_FOLDER)).unwrap().store;
        for block in blocks {
            store.write(&[Write::Block(block.id(), &block.frame().encode())]).unwrap();
        }
        drop(store);
        let runtime = tokio::runtime::Handle::current();
        let (handle, _, thread) =
            engine::start(folder.path(), settings(1), forum.id, &forum.charters, runtime).unwrap();
        (folder, handle, thread)
    }

    fn up_to(hours: u64) -> Period {
        Period::new(START, START.plus(hours * TimeMs::HOUR_MS), false, clock::now()).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_waits_is_told_of_full_blocks_too_and_ends_the_work_by_leaving() {
        let forum = TestForum::of_full(2);
        let (mut ring, mut log) = (forum.keyring(), forum.log(2, 0, Class::Bulk));
        let records: Vec<_> =
            (0..RECORDS_PER_BLOCK_MAX - 1).map(|n| opinion(u8::try_from(n % 250).unwrap(), 1)).collect();
        let count = TOLD_EVERY / RECORDS_PER_BLOCK_MAX as u64 * 2 + 2;
        let blocks: Vec<_> = (0..count).map(|_| log.block(&mut ring, &records)).collect();
        let (_folder, handle, thread) = holding(&forum, &blocks);
        let shared = Arc::clone(handle.shared());
        let making = move || {
            let mut words = Vec::new();
            let report = forum_part(&shared, up_to(24), |read, total| {
                words.push((read, total));
                true
            });
            assert_eq!(report.unwrap().entries.new, 250);
            assert_eq!(words.len(), 3, "{words:?}");
            assert_eq!(words.last(), Some(&(count, count)));
            let left = forum_part(&shared, up_to(24), |_, _| false).unwrap_err();
            assert!(left.message().contains("has gone"), "{left:?}");
        };
        tokio::task::spawn_blocking(making).await.unwrap();
        handle.stop().await;
        thread.join().unwrap();
    }

    /// A suspension hides what it hid when the period ended: made a day or a year later, the report is the same.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_report_of_the_past_knows_the_suspensions_of_its_end() {
        let forum = TestForum::with(&[("a", FULL), ("b", FULL), ("c", STEWARD)], |c| c.semantics = 2);
        let (mut ring, mut log, mut steward) =
            (forum.keyring(), forum.log(2, 0, Class::Normal), forum.log(3, 0, Class::Normal));
        let at = |minutes: u64| START.plus(minutes * 60_000);
        let mut blocks = Vec::new();
        for (about, minute) in [(1, 1), (2, 70)] {
            log.time = at(minute);
            blocks.push(log.block(&mut ring, &[opinion(about, 1)]));
        }
        steward.time = at(130);
        let mark = Head { seq: Seq(1), hash: blocks[0].hash() };
        blocks.push(steward.block(&mut ring, &[suspend(2, &[(log.origin, mark)], at(10 * 60))]));
        let (_folder, handle, thread) = holding(&forum, &blocks);
        for (hours, entries, why) in [
            (1, 1, "the second comes later"),
            (2, 2, "the suspension comes later"),
            (3, 1, "the second is hidden"),
            (10, 2, "the suspension has ended"),
        ] {
            let report = forum_part(handle.shared(), up_to(hours), |_, _| true).unwrap();
            assert_eq!(report.entries.at_end, entries, "{why}");
        }
        handle.stop().await;
        thread.join().unwrap();
    }

    #[test]
    fn a_report_fits_into_one_message() {
        assert!(json(&"x".repeat(REPORT_BYTES_MAX - 2)).is_ok());
        assert_eq!(json(&"x".repeat(REPORT_BYTES_MAX - 1)).unwrap_err().code(), Code::ResourceExhausted);
    }
}
