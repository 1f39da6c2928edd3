//! `Import`, `ListBatches` and `UndoBatch`: the opinions of a whole file, and how they are taken back.
//!
//! Which record belongs to which import, its client key says: 8 bytes name the batch, 8 the row. So a batch is found in
//! the logs alone, at a node that was restored as well as at the one that signed it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use prost::Message as _;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tracing::Instrument as _;

use super::streams::KeysUnderWay;
use super::watch::PATIENCE;
use super::{
    accepting, addresses, bad_field, bug, class, frame, labels, of_failure, of_refusal, opinion, reason, refuse, saying,
};
use crate::clock;
use crate::engine::{Handle, Shared};
use crate::meters::add;
use crate::net::status::refuse_with_fix;
use crate::replica::block::{Frame, PAYLOAD_SIZE_MAX, Slot};
use crate::replica::ids::{BlockId, Class, sha256};
use crate::replica::own::{Answer, RECORDS_PER_SUBMISSION_MAX, Refusal};
use crate::replica::record::{self, ClientKey, Parsed, Stance, Statement};
use crate::replica::signal::{self, Subject};
use crate::replica::taxonomy::Taxonomy;
use crate::replica::view::{Said, Word};
use crate::replica::{Replica, proto};
use crate::report::local::Counters;
use crate::wire::local as l;

/// Rows of one call: four blocks, which the engine writes with one sync.
const ROWS_MAX: usize = 4 * RECORDS_PER_SUBMISSION_MAX;
/// Bytes that name a batch; the other 8 of a client key name the row.
const BATCH_SIZE: usize = 8;
/// Batches of one answer.
const BATCHES_MAX: usize = 1_000;
/// Rows, or client keys, that are looked at under one hold of the replica's lock: well below a millisecond.
const AT_ONCE: usize = 256;
/// Blocks that are kept while the rows of one call are held against them: 16 MiB at most.
const FRAMES_MAX: usize = 64;
/// Payload of one submission: the replica's own limit.
const PAYLOAD_MAX: usize = PAYLOAD_SIZE_MAX - 1_024;
/// Words on their way to whoever undoes a batch.
const WORDS_MAX: usize = 4;

/// How far an undo is.
pub(super) type Words = BoxStream<'static, Result<l::UndoProgress, Status>>;

type Batch = [u8; BATCH_SIZE];

/// Takes up the rows of imports and takes them back, one call at a time: what one call has begun to say, the next one
/// must find said.
#[derive(Clone)]
pub(super) struct Importing {
    engine: Handle,
    counters: Arc<Counters>,
    /// What is said alone or in streams, under the same keys, comes before or after.
    keys: KeysUnderWay,
    /// The one call that is at work. It goes on when its caller goes away: whoever comes back at once must find said
    /// what was begun to be said.
    at_work: Arc<Mutex<JoinSet<()>>>,
}

/// A row that has to be signed: its place in the call, and its record.
type Fresh = (usize, Bytes);

/// What is to be made of the rows of one call.
struct Weighed {
    rows: Vec<l::ImportedRow>,
    fresh: Vec<Fresh>,
    /// A subject has several rows: the last one must stay the last.
    in_order: bool,
}

/// A row that is compared with what stands in a block.
enum Question {
    /// Is it what this row says?
    Same(Box<proto::Opinion>),
    /// Is it of this batch?
    Of(Batch),
}

impl Importing {
    pub(super) fn new(engine: Handle, counters: Arc<Counters>, keys: KeysUnderWay) -> Self {
        Self { engine, counters, keys, at_work: Arc::default() }
    }

    fn shared(&self) -> &Arc<Shared> {
        self.engine.shared()
    }

    /// Our turn, once everything that came before is durable. The outbox is for words that cannot wait; a file can.
    async fn turn(&self) -> Result<OwnedMutexGuard<JoinSet<()>>, Status> {
        accepting(self.shared())?;
        let mut turn = Arc::clone(&self.at_work).lock_owned().await;
        while turn.join_next().await.is_some() {}
        let replica = self.shared().replica();
        if replica.guard_pending() || replica.outbox_len() > 0 {
            let what = "the node waits until enough peers have told it their heads of our logs";
            let fix = "staydown status; then run the same command again";
            return Err(refuse_with_fix(Code::FailedPrecondition, "GUARD_PENDING", what, fix));
        }
        Ok(turn)
    }

    /// Takes up the rows of a call, each for itself.
    pub(super) async fn import(&self, request: l::ImportRequest) -> Result<l::ImportResponse, Status> {
        let count = request.rows.len();
        if count == 0 || count > ROWS_MAX {
            return Err(bad_field("rows", format!("has {count} entries, 1 to {ROWS_MAX} are possible")));
        }
        let class = class(request.lane())?;
        let mut turn = self.turn().await?;
        let this = self.clone();
        let (sender, answer) = oneshot::channel();
        let work = async move {
            // Whoever asked may be gone.
            drop(sender.send(this.take_up(class, &request.rows).await));
        };
        turn.spawn(work.in_current_span());
        drop(turn);
        answer.await.map_err(|_panicked| bug())?
    }

    async fn take_up(&self, class: Class, rows: &[l::Statement]) -> Result<l::ImportResponse, Status> {
        let begun = clock::instant();
        labels::known(&self.shared().taxonomy())?;
        let keys = rows.iter().map(|row| row.client_key[..].try_into().ok()).collect();
        let _taken = self.keys.take(&keys).await;
        let Weighed { mut rows, fresh, in_order } = self.weigh(rows)?;
        let mut stopped = String::new();
        if !fresh.is_empty() {
            let records: Vec<_> = fresh.iter().map(|(_, record)| record.clone()).collect();
            saying::entitled(&self.shared().replica(), &records)?;
            stopped = self.say(class, fresh, in_order, &mut rows).await?.unwrap_or_default();
            let count = rows.iter().filter(|row| row.outcome() == l::RowOutcome::Said).count();
            self.counters.submitted(count, u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
            let became = &self.shared().meters().submissions;
            add(if stopped.is_empty() { &became.durable } else { &became.refused }, 1);
            became.took.observe(begun.elapsed());
        }
        Ok(l::ImportResponse { rows, stopped })
    }

    /// Tells what has to be signed from what has been said or cannot be.
    fn weigh(&self, statements: &[l::Statement]) -> Result<Weighed, Status> {
        let mut rows = vec![outcome(l::RowOutcome::NotTried); statements.len()];
        let labels = self.shared().taxonomy();
        let mut read: Vec<(usize, proto::Opinion, Subject, ClientKey)> = Vec::with_capacity(statements.len());
        for (at, statement) in statements.iter().enumerate() {
            match understood(statement, at, &labels) {
                Ok((opinion, subject, key)) => read.push((at, opinion, subject, key)),
                Err(why) => rows[at] = refused(why),
            }
        }
        let (mut fresh, mut questions) = (Vec::new(), Vec::new());
        let (mut keys, mut subjects) = (BTreeSet::new(), BTreeSet::new());
        let mut in_order = false;
        for slice in read.chunks(AT_ONCE) {
            let replica = self.shared().replica();
            for (at, opinion, subject, key) in slice {
                let first = subjects.insert(subject.clone());
                in_order |= !first;
                if !keys.insert(*key) {
                    rows[*at] = outcome(l::RowOutcome::SaidBefore);
                    continue;
                }
                match place(&replica, opinion, subject, key, first) {
                    Place::Fresh => fresh.push((*at, encoded(opinion))),
                    Place::Known(known) => rows[*at] = outcome(known),
                    Place::Read(said, question) => questions.push((*at, said, question, opinion)),
                }
            }
        }
        let mut frames = Frames::default();
        for (at, said, question, opinion) in questions {
            let stored = frames.record(self.shared(), said.block, said.index)?;
            match question.answered(stored.as_deref()) {
                Some(known) => rows[at] = outcome(known),
                None => fresh.push((at, encoded(opinion))),
            }
        }
        fresh.sort_by_key(|(at, _)| *at);
        Ok(Weighed { rows, fresh, in_order })
    }

    /// Signs what is fresh. Returns why the rest was not tried, if it was not.
    async fn say(
        &self,
        class: Class,
        fresh: Vec<Fresh>,
        in_order: bool,
        rows: &mut [l::ImportedRow],
    ) -> Result<Option<String>, Status> {
        let chunks = chunks(fresh);
        let mut one_by_one = Vec::new();
        if in_order {
            one_by_one = chunks;
        } else {
            let asked = chunks.into_iter().map(|chunk| async {
                let answer = self.engine.submit(class, records_of(&chunk)).await;
                (chunk, answer)
            });
            for (chunk, answer) in join_all(asked).await {
                match answer.map_err(|failed| of_failure(&failed))? {
                    Answer::Refused(_) => one_by_one.push(chunk),
                    answer => note(&answer, &chunk, rows),
                }
            }
        }
        for chunk in one_by_one {
            if let Some(stopped) = self.say_as_far_as_possible(class, chunk, rows).await? {
                return Ok(Some(stopped));
            }
        }
        Ok(None)
    }

    /// A submission is taken as a whole or not at all: leaves out the rows that it is refused for, and halves it when it is
    /// too much for the day.
    async fn say_as_far_as_possible(
        &self,
        class: Class,
        mut left: Vec<Fresh>,
        rows: &mut [l::ImportedRow],
    ) -> Result<Option<String>, Status> {
        let mut size = left.len();
        while !left.is_empty() {
            let taken = size.min(left.len());
            let answer = self.engine.submit(class, records_of(&left[..taken])).await;
            match answer.map_err(|failed| of_failure(&failed))? {
                Answer::Refused(Refusal::Guard(index, why)) if index < taken => {
                    rows[left.remove(index).0] = refused(why.to_string());
                }
                Answer::Refused(Refusal::Record(index, why)) if index < taken => {
                    rows[left.remove(index).0] = refused(why.to_owned());
                }
                Answer::Refused(Refusal::Quota { .. } | Refusal::TooLarge(_)) if taken > 1 => size = taken / 2,
                Answer::Refused(refusal @ Refusal::Quota { .. }) => return Ok(Some(refusal.to_string())),
                Answer::Refused(refusal) => return Err(of_refusal(&refusal)),
                answer => note(&answer, &left.drain(..taken).collect::<Vec<_>>(), rows),
            }
        }
        Ok(None)
    }

    /// The imports that our logs have, by the client keys in them. One row alone is no import.
    pub(super) async fn list(&self) -> Result<l::ListBatchesResponse, Status> {
        let mut found: Vec<Found> = Vec::new();
        let (mut from, mut current, mut truncated) = (Some([0; 16]), None::<Found>, false);
        while let Some(begin) = from {
            from = None;
            {
                let replica = self.shared().replica();
                for (n, (key, (block, _))) in replica.submitted_from(begin).enumerate() {
                    if n == AT_ONCE {
                        from = Some(*key);
                        break;
                    }
                    match &mut current {
                        Some(of) if of.batch == batch_of(key) => of.add(*block),
                        _ => found.extend(current.replace(Found::new(key, *block)).filter(|of| of.records > 1)),
                    }
                }
            }
            // The latest are kept. Logs are opened one after the other, so their numbers nearly tell the time.
            if found.len() > 4 * BATCHES_MAX {
                found.sort_by_key(|of| std::cmp::Reverse(of.last));
                found.truncate(BATCHES_MAX);
                truncated = true;
            }
            tokio::task::yield_now().await;
        }
        found.extend(current.filter(|of| of.records > 1));
        found.sort_by_key(|of| std::cmp::Reverse(of.last));
        truncated |= found.len() > BATCHES_MAX;
        found.truncate(BATCHES_MAX);
        let time = |block| Ok::<_, Status>(frame(self.shared(), block)?.header.header().time.0);
        let batches = found.iter().map(|of| {
            Ok(l::Batch {
                batch: of.batch.to_vec().into(),
                records: of.records,
                first_ms: time(of.first)?,
                last_ms: time(of.last)?,
            })
        });
        let mut batches = batches.collect::<Result<Vec<_>, Status>>()?;
        batches.sort_by_key(|batch| std::cmp::Reverse((batch.last_ms, batch.first_ms)));
        Ok(l::ListBatchesResponse { batches, truncated })
    }

    /// Withdraws what stands of a batch, and tells how far it is.
    pub(super) async fn undo(&self, request: &l::UndoBatchRequest) -> Result<Words, Status> {
        let batch: Batch = request.batch[..].try_into().map_err(|_wrong_length| {
            bad_field("batch", format!("has {} bytes, expected {BATCH_SIZE}", request.batch.len()))
        })?;
        let reason = reason(&request.reason, "reason")?;
        let dry_run = request.dry_run;
        let mut turn = self.turn().await?;
        let places = self.places(batch).await;
        if places.is_empty() {
            let what = format!("no record of our logs is of the batch {}", crate::replica::ids::hex(&batch));
            return Err(refuse(Code::NotFound, "NOT_FOUND", what));
        }
        let (words, heard) = mpsc::channel(WORDS_MAX);
        let undoing = Undoing { importing: self.clone(), batch, reason, dry_run, words };
        turn.spawn(async move {
            if let Err(status) = undoing.run(places).await {
                drop(undoing.words.send(Err(status)).await);
            }
        });
        Ok(Box::pin(ReceiverStream::new(heard)))
    }

    /// Where the records of a batch stand, by block: each block is read once.
    async fn places(&self, batch: Batch) -> BTreeMap<BlockId, Vec<u32>> {
        let mut places: BTreeMap<BlockId, Vec<u32>> = BTreeMap::new();
        let mut begin = [0; 16];
        begin[..BATCH_SIZE].copy_from_slice(&batch);
        let mut from = Some(begin);
        while let Some(begin) = from {
            from = None;
            {
                let replica = self.shared().replica();
                let of_batch = replica.submitted_from(begin).take_while(|(key, _)| batch_of(key) == batch);
                for (n, (key, (block, index))) in of_batch.enumerate() {
                    if n == AT_ONCE {
                        from = Some(*key);
                        break;
                    }
                    places.entry(*block).or_default().push(*index);
                }
            }
            tokio::task::yield_now().await;
        }
        places
    }
}

/// One undo on its way.
struct Undoing {
    importing: Importing,
    batch: Batch,
    reason: u32,
    dry_run: bool,
    words: mpsc::Sender<Result<l::UndoProgress, Status>>,
}

impl Undoing {
    async fn run(&self, places: BTreeMap<BlockId, Vec<u32>>) -> Result<(), Status> {
        let records = places.values().map(|indexes| indexes.len() as u64).sum();
        let mut told = l::UndoProgress { records, ..Default::default() };
        let mut frames = Frames::default();
        for (block, indexes) in places {
            let standing = self.standing(block, &indexes, &mut frames)?;
            told.looked_at += indexes.len() as u64;
            told.left_alone += (indexes.len() - standing.len()) as u64;
            if self.dry_run {
                told.withdrawn += standing.len() as u64;
            } else if let Some(stopped) = self.withdraw(standing, &mut told).await? {
                told.stopped = stopped;
            }
            let heard = timeout(PATIENCE, self.words.send(Ok(told.clone()))).await;
            // Nobody waits for it any more: what is withdrawn stays so, and the same command goes on with the rest. Who
            // does not read must not keep the next import out.
            if !matches!(heard, Ok(Ok(()))) || !told.stopped.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// The withdrawals of those subjects of a block's records on which our word is still one of the batch. It may stand
    /// elsewhere by now: said again in another log, or by a later run when it had ended.
    fn standing(&self, block: BlockId, indexes: &[u32], frames: &mut Frames) -> Result<Vec<Bytes>, Status> {
        let shared = self.importing.shared();
        let frame = frame(shared, block)?;
        let now = clock::now();
        let mut words = Vec::new();
        for slice in indexes.chunks(AT_ONCE) {
            let replica = shared.replica();
            for index in slice {
                let Some(Slot::Record(said)) = frame.slots.get(*index as usize) else { continue };
                let Parsed::Says(Statement::Opinion(opinion)) = record::parse(said) else { continue };
                let stands = replica.view().stance_of(&opinion.subject, replica.me(), now);
                let stands =
                    stands.filter(|said| !said.expires.has_ended(now) && said.word != Word::Stance(Stance::Neutral));
                words.extend(stands.map(|said| (opinion.subject, said, *index)));
            }
        }
        let mut records = Vec::new();
        for (subject, said, index) in words {
            let is_there = (said.block, u32::from(said.index)) == (block, index);
            if is_there || self.is_of_batch(frames.record(shared, said.block, said.index)?.as_deref()) {
                records.push(self.withdrawal(&subject, said.block, said.index.into()));
            }
        }
        Ok(records)
    }

    fn is_of_batch(&self, stored: Option<&[u8]>) -> bool {
        Question::Of(self.batch).answered(stored) == Some(l::RowOutcome::SaidBefore)
    }

    fn withdrawal(&self, subject: &Subject, block: BlockId, index: u32) -> Bytes {
        // Not of the batch itself, and the same at every try.
        let key = sha256(&[
            b"staydown/undo/v1\n",
            &self.batch,
            &block.origin.to_bytes(),
            &block.seq.0.to_be_bytes(),
            &index.to_be_bytes(),
        ]);
        encoded(&proto::Opinion {
            subject: Some(subject.to_proto()),
            stance: Stance::Neutral.number(),
            reason: self.reason,
            client_key: Bytes::copy_from_slice(&key[..16]),
            ..Default::default()
        })
    }

    /// Signs withdrawals, as many as the day's quota of them has room for. Returns why not all, if so.
    async fn withdraw(&self, mut left: Vec<Bytes>, told: &mut l::UndoProgress) -> Result<Option<String>, Status> {
        let mut size = RECORDS_PER_SUBMISSION_MAX;
        while !left.is_empty() {
            let taken = size.min(left.len());
            let answer = self.importing.engine.submit(Class::Bulk, left[..taken].to_vec()).await;
            match answer.map_err(|failed| of_failure(&failed))? {
                Answer::Refused(Refusal::Quota { .. }) if taken > 1 => size = taken / 2,
                Answer::Refused(refusal @ Refusal::Quota { .. }) => return Ok(Some(refusal.to_string())),
                Answer::Refused(refusal) => return Err(of_refusal(&refusal)),
                answer => {
                    told.queued |= matches!(answer, Answer::Queued);
                    told.withdrawn += taken as u64;
                    left.drain(..taken);
                }
            }
        }
        Ok(None)
    }
}

/// A batch while it is counted.
struct Found {
    batch: Batch,
    records: u64,
    first: BlockId,
    last: BlockId,
}

impl Found {
    fn new(key: &ClientKey, block: BlockId) -> Self {
        Self { batch: batch_of(key), records: 1, first: block, last: block }
    }

    fn add(&mut self, block: BlockId) {
        self.records += 1;
        self.first = self.first.min(block);
        self.last = self.last.max(block);
    }
}

/// What becomes of a row.
enum Place {
    Fresh,
    Known(l::RowOutcome),
    /// That depends on the record that stands.
    Read(Said, Question),
}

fn place(replica: &Replica, opinion: &proto::Opinion, subject: &Subject, key: &ClientKey, first: bool) -> Place {
    let now = clock::now();
    let stands = replica.view().stance_of(subject, replica.me(), now);
    // What has ended is said again.
    if first && stands.as_ref().is_some_and(|said| said.expires.has_ended(now)) {
        return Place::Fresh;
    }
    match (replica.submitted_before(key), stands) {
        (Some((block, index)), Some(said)) if (said.block, u32::from(said.index)) == (block, index) => {
            Place::Known(l::RowOutcome::SaidBefore)
        }
        (Some(_), Some(said)) => Place::Read(said, Question::Of(batch_of(key))),
        // It does not count any more, as after a cutoff: `resubmit` says such records again.
        (Some(_), None) => Place::Known(l::RowOutcome::LeftAlone),
        // What an earlier row of this call says is not in the view yet.
        (None, Some(said)) if first && is_like(&said, opinion) => {
            Place::Read(said, Question::Same(Box::new(bare(opinion.clone()))))
        }
        (None, _) => Place::Fresh,
    }
}

/// Whether a word may be the same as `opinion`, as far as the view can tell.
fn is_like(said: &Said, opinion: &proto::Opinion) -> bool {
    matches!(said.word, Word::Stance(stance) if stance.number() == opinion.stance)
        && said.expires.0 == opinion.expires_ms
        && u32::from(said.severity) == opinion.severity
}

impl Question {
    /// What becomes of the row, held against the record that stands; `None`: it has to be said.
    fn answered(&self, stored: Option<&[u8]>) -> Option<l::RowOutcome> {
        let said = stored.and_then(|bytes| proto::Record::decode(bytes).ok());
        let said = said.and_then(|record| proto::Opinion::decode(record.body).ok());
        match self {
            Self::Same(opinion) => (said.map(bare).as_ref() == Some(opinion)).then_some(l::RowOutcome::Stands),
            Self::Of(batch) if said.is_some_and(|said| said.client_key.starts_with(batch)) => {
                Some(l::RowOutcome::SaidBefore)
            }
            Self::Of(_) => Some(l::RowOutcome::LeftAlone),
        }
    }
}

/// An opinion without what has no meaning for others: which submission it came with, and in which order it lists things.
fn bare(mut opinion: proto::Opinion) -> proto::Opinion {
    opinion.client_key = Bytes::new();
    opinion.languages.sort_unstable();
    opinion.languages.dedup();
    opinion
}

/// The opinion of a row, its subject and key, or what is wrong with it.
fn understood(
    statement: &l::Statement,
    at: usize,
    labels: &Taxonomy,
) -> Result<(proto::Opinion, Subject, ClientKey), String> {
    let key = statement.client_key[..].try_into();
    let key = key.map_err(|_wrong| format!("client_key: has {} bytes, expected 16", statement.client_key.len()))?;
    let of_others = [
        statement.suspend.is_some(),
        statement.retract.is_some(),
        statement.allow.is_some(),
        statement.referral.is_some(),
        statement.incident.is_some(),
        statement.resource.is_some(),
        statement.preserve.is_some(),
        statement.outcome.is_some(),
    ];
    if of_others.contains(&true) {
        return Err("is no opinion, expected only opinions".to_owned());
    }
    let told = |status: Status| {
        let told = status.message();
        told.strip_prefix(&format!("statements[{at}].")).unwrap_or(told).to_owned()
    };
    addresses::address_of(statement, at).map_err(told)?;
    let opinion = opinion(statement, at, labels).map_err(told)?;
    let subject = opinion.subject.as_ref().and_then(Subject::from_proto).ok_or("signal: is missing")?;
    // The key of a row must not tell the name, and a pseudonym in a file is dead when the pepper changes.
    if subject.kind() == signal::KIND_ACCOUNT {
        return Err(
            "signal.type: is account, expected a hash: accounts are submitted by name, not from a file".to_owned()
        );
    }
    Ok((opinion, subject, key))
}

fn encoded(opinion: &proto::Opinion) -> Bytes {
    record::encode(proto::Kind::Opinion, clock::random(), opinion)
}

fn batch_of(key: &ClientKey) -> Batch {
    let mut batch = [0; BATCH_SIZE];
    batch.copy_from_slice(&key[..BATCH_SIZE]);
    batch
}

fn outcome(outcome: l::RowOutcome) -> l::ImportedRow {
    l::ImportedRow { outcome: outcome.into(), why: String::new() }
}

fn refused(why: String) -> l::ImportedRow {
    l::ImportedRow { outcome: l::RowOutcome::Refused.into(), why }
}

fn note(answer: &Answer, chunk: &[Fresh], rows: &mut [l::ImportedRow]) {
    let said = if matches!(answer, Answer::Queued) { l::RowOutcome::Queued } else { l::RowOutcome::Said };
    chunk.iter().for_each(|(at, _)| rows[*at] = outcome(said));
}

fn records_of(chunk: &[Fresh]) -> Vec<Bytes> {
    chunk.iter().map(|(_, record)| record.clone()).collect()
}

/// As many rows a submission as it may have.
fn chunks(fresh: Vec<Fresh>) -> Vec<Vec<Fresh>> {
    let mut chunks: Vec<Vec<Fresh>> = Vec::new();
    let mut size = 0;
    for row in fresh {
        size += row.1.len();
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < RECORDS_PER_SUBMISSION_MAX && size <= PAYLOAD_MAX => chunk.push(row),
            _ => {
                size = row.1.len();
                chunks.push(vec![row]);
            }
        }
    }
    chunks
}

/// Blocks that were read a moment ago: the rows of a file mostly stand beside each other in the logs, too.
#[derive(Default)]
pub(super) struct Frames(BTreeMap<BlockId, Frame>);

impl Frames {
    /// A record, if it was not erased.
    pub(super) fn record(&mut self, shared: &Shared, block: BlockId, index: u16) -> Result<Option<Bytes>, Status> {
        if !self.0.contains_key(&block) {
            if self.0.len() >= FRAMES_MAX {
                self.0.clear();
            }
            self.0.insert(block, frame(shared, block)?);
        }
        Ok(match self.0.get(&block).and_then(|frame| frame.slots.get(usize::from(index))) {
            Some(Slot::Record(record)) => Some(record.clone()),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use l::RowOutcome::{Refused, Said, SaidBefore, Stands};

    use super::*;
    use crate::engine;
    use crate::replica::ids::TimeMs;
    use crate::replica::testing::{TestForum, settings};

    fn row(batch: u8, number: u64) -> l::Statement {
        let digest = sha256(&[b"row", &number.to_be_bytes()]);
        let key = [[batch; 8], number.to_be_bytes()].concat();
        l::Statement {
            signal: Some(l::Signal { r#type: "sha256".into(), value: crate::replica::ids::hex(&digest) }),
            stance: l::Stance::Submit.into(),
            labels: vec!["symbol".into()],
            client_key: key.into(),
            ..Default::default()
        }
    }

    fn rows(batch: u8, numbers: std::ops::Range<u64>) -> l::ImportRequest {
        l::ImportRequest { rows: numbers.map(|n| row(batch, n)).collect(), ..Default::default() }
    }

    fn count(answer: &l::ImportResponse, outcome: l::RowOutcome) -> usize {
        answer.rows.iter().filter(|row| row.outcome() == outcome).count()
    }

    #[test]
    fn no_submission_has_more_rows_or_bytes_than_one_may_have() {
        let of = |count: usize, size: usize| {
            let fresh: Vec<_> = (0..count).map(|at| (at, Bytes::from(vec![0; size]))).collect();
            chunks(fresh).iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(of(0, 1), [0; 0]);
        assert_eq!(of(ROWS_MAX, 100), [RECORDS_PER_SUBMISSION_MAX; 4]);
        assert!(of(500, 4_000).iter().all(|count| count * 4_000 <= PAYLOAD_MAX));
        assert_eq!(of(500, 4_000).iter().sum::<usize>(), 500);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_one_caller_has_begun_the_next_one_finds_said() {
        let forum = TestForum::of_full(1);
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Handle::current();
        let (handle, _, thread) =
            engine::start(folder.path(), settings(1), forum.id, &forum.charters, runtime).unwrap();
        let importing = Importing::new(handle.clone(), Arc::new(Counters::new(clock::now())), KeysUnderWay::default());
        let most = ROWS_MAX as u64;

        for wrong in [rows(1, 0..0), rows(1, 0..most + 1)] {
            assert_eq!(importing.import(wrong).await.unwrap_err().code(), Code::InvalidArgument);
        }
        // Both ask at once, and one of them goes away in the middle.
        let first = importing.clone();
        let mut gone = JoinSet::new();
        gone.spawn(async move { first.import(rows(1, 0..most)).await });
        let second = importing.import(rows(1, 0..most));
        tokio::task::yield_now().await;
        gone.abort_all();
        let second = second.await.unwrap();
        let said = count(&second, Said) + count(&second, SaidBefore);
        assert_eq!(said, ROWS_MAX);
        assert_eq!(handle.shared().replica().view().records(), most + 1, "each row once, and the log's opening");

        // Each row stands for itself.
        let mut mixed = rows(2, most..most + 3);
        mixed.rows[0].client_key = vec![1; 15].into();
        mixed.rows[1].retract = Some(l::RetractVote::default());
        mixed.rows.push(l::Statement { labels: vec!["simbol".into()], ..row(2, most + 4) });
        mixed.rows.push(row(2, most + 2));
        mixed.rows.push(l::Statement { client_key: vec![9; 16].into(), ..row(1, 0) });
        let answer = importing.import(mixed).await.unwrap();
        let outcomes: Vec<_> = answer.rows.iter().map(l::ImportedRow::outcome).collect();
        assert_eq!(outcomes, [Refused, Refused, Said, Refused, SaidBefore, Stands]);
        assert!(answer.rows[0].why.starts_with("client_key: has 15 bytes"), "{:?}", answer.rows);
        assert!(answer.rows[3].why.starts_with("labels: \"simbol\""), "{:?}", answer.rows);

        // A single row is no batch.
        let listed = importing.list().await.unwrap();
        let batches: Vec<_> = listed.batches.iter().map(|b| (b.batch.to_vec(), b.records)).collect();
        assert_eq!((batches, listed.truncated), (vec![(vec![1; 8], most)], false));

        // What has ended is said again under its key, and is still of its batch. An account is in no file.
        let expires = clock::now().plus(100);
        let ends = |expires: TimeMs| l::ImportRequest {
            rows: vec![l::Statement { expires_ms: expires.0, ..row(3, most + 9) }],
            ..Default::default()
        };
        assert_eq!(importing.import(ends(expires)).await.unwrap().rows[0].outcome(), Said);
        while clock::now() <= expires {
            tokio::task::yield_now().await;
        }
        let mut daily = ends(clock::now().plus(TimeMs::DAY_MS));
        let pseudonym = l::Signal { r#type: "account".into(), value: format!("1:{}", "ab".repeat(32)) };
        daily.rows.push(l::Statement { signal: Some(pseudonym), ..row(3, most + 10) });
        let answer = importing.import(daily.clone()).await.unwrap();
        let outcomes: Vec<_> = answer.rows.iter().map(l::ImportedRow::outcome).collect();
        assert_eq!(outcomes, [Said, Refused], "{:?}", answer.rows);
        assert_eq!(importing.import(daily).await.unwrap().rows[0].outcome(), SaidBefore);
        let undone = importing.undo(&l::UndoBatchRequest { batch: vec![3; 8].into(), ..Default::default() }).await;
        let words: Vec<_> = undone.unwrap().map(Result::unwrap).collect().await;
        assert_eq!(words.last().unwrap().withdrawn, 1, "{words:?}");
        drop(importing);
        handle.stop().await;
        thread.join().unwrap();
    }
}
