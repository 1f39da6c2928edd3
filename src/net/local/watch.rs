//! `Watch`: what changes of the list on this node, in an order, each change once, without a gap, from a bookmark on.
//!
//! Nothing is kept for it. The list is a function of the charter, of how far each log is taken in, and of the time
//! (PROTOCOL section 5), so where a watch stands is just that: a charter, a have vector, a moment. What has changed since
//! are the entries of which a word stands beyond the vector, or ended after the moment. Few new blocks are read to find
//! them; where there are many, or nobody knows any more what ended, every entry is looked at.
//!
//! A watch goes in strides, from one vector and moment to the next. Within a stride entries are told in the order of the
//! list, each as it is at the stride's end; one that has changed again beyond that end is left to the stride that will
//! tell that. So any split into strides tells the same, and a bookmark within a stride needs but the last subject.
//! Where the charter is another, or what was taken in no longer is, the list may have changed anywhere: that is said,
//! and the watch ends.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use prost::encoding::{decode_varint, encode_varint};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::streams::{Streams, draining, holding};
use super::{SCAN_MAX, bad_field, bug, entry_to_proto, frame, of_failure};
use crate::clock;
use crate::engine::Shared;
use crate::net::limits::TICK;
use crate::net::status::refuse_with_fix;
use crate::replica::Replica;
use crate::replica::block::Slot;
use crate::replica::charter::HAVE_MAX;
use crate::replica::exchange::Published;
use crate::replica::heads::Have;
use crate::replica::ids::{BlockId, Class, LogNo, MemberId, Origin, Seq, TimeMs, sha256};
use crate::replica::record::{IncidentId, Opinion, Parsed, Statement, parse};
use crate::replica::signal::{Alg, Subject};
use crate::replica::taxonomy::Taxonomy;
use crate::replica::view::{Entry, Status as Standing, Stretch};
use crate::wire::local as l;

/// Events that wait for whoever watches.
const EVENTS_AHEAD: usize = 64;
/// Events that are made under one hold of the replica's lock: far below a millisecond.
const EVENTS_AT_ONCE: usize = 64;
/// New blocks that are read for one stride; each has up to 512 records.
const BLOCKS_AT_ONCE: u64 = 32;
/// With more blocks to catch up on, looking at every entry once is less work than reading them.
const BLOCKS_READ_MAX: u64 = 2_048;
/// Entries that are looked up one by one; where more may have changed, all are looked at in order.
const CANDIDATES_MAX: usize = 32_768;
/// How long nobody may take an event. A consumer's database may pause; its place is then for somebody who reads.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);
/// Pause between two looks when nothing wakes us: by so much later it is told what ends with the time.
const LOOK: Duration = Duration::from_secs(1);
/// Longest bookmark: two places in each of 8,192 logs.
const BOOKMARK_BYTES_MAX: usize = 512 << 10;
/// First byte of a bookmark. Another one where a release changes what the view makes of the same blocks.
const BOOKMARK_VERSION: u8 = 1;

/// What a watch is answered with.
pub(super) type Events = BoxStream<'static, Result<l::WatchEvent, Status>>;

/// Begins to watch.
///
/// # Errors
/// The request makes no sense. That a bookmark is too old is said on the stream.
pub(super) fn watch(
    shared: &Arc<Shared>,
    streams: &Streams,
    permit: OwnedSemaphorePermit,
    request: &l::WatchRequest,
) -> Result<Events, Status> {
    let watcher = Watcher::new(Arc::clone(shared), request)?;
    let (sender, receiver) = mpsc::channel(EVENTS_AHEAD);
    let (farewell, parted) = oneshot::channel();
    let producer = Producer {
        published: shared.published(),
        events: sender,
        patience: PATIENCE,
        next_tick: None,
        streams: streams.clone(),
    };
    let mut task = JoinSet::new();
    task.spawn(async move {
        let _permit = permit;
        if let Some(status) = producer.run(watcher).await {
            drop(farewell.send(status)); // if nobody listens any more, nobody needs to know
        }
    });
    Ok(holding(task, ended_with(receiver, parted)))
}

/// The events, and then why there are no more: also when the events filled every place there is.
fn ended_with(events: mpsc::Receiver<l::WatchEvent>, parted: oneshot::Receiver<Status>) -> Events {
    let farewell = stream::once(parted).filter_map(|status| async { status.ok().map(Err) });
    ReceiverStream::new(events).map(Ok).chain(farewell).boxed()
}

/// The task of one watch.
struct Producer {
    published: watch::Receiver<Arc<Published>>,
    events: mpsc::Sender<l::WatchEvent>,
    patience: Duration,
    /// When a sign of life is due; none: at once, as soon as everything is told.
    next_tick: Option<Instant>,
    streams: Streams,
}

impl Producer {
    /// Why the watch ended; none: whoever watched has gone.
    async fn run(mut self, mut watcher: Watcher) -> Option<Status> {
        let stopped = self.streams.clone().stopped();
        tokio::pin!(stopped);
        loop {
            // Before the look: what is published during it wakes us after it.
            self.published.mark_unchanged();
            let looked = tokio::task::spawn_blocking(move || {
                let step = watcher.step(clock::now());
                (watcher, step)
            });
            let step;
            (watcher, step) = match looked.await {
                Ok(looked) => looked,
                Err(_panicked) => return Some(bug()),
            };
            let told = match step {
                Err(status) => return Some(status),
                Ok(Step::Told(events)) => {
                    if !events.is_empty() && self.next_tick.is_some() {
                        self.next_tick = Some(Instant::from_std(clock::instant()) + TICK);
                    }
                    self.tell(events, &mut stopped).await
                }
                Ok(Step::Level(bookmark)) => self.rest(bookmark, &mut stopped).await,
                Ok(Step::Unsettled) => self.wait(&mut stopped).await,
            };
            match told {
                Ok(()) => {}
                Err(Ended::Gone) => return None,
                Err(Ended::With(status)) => return Some(status),
            }
        }
    }

    async fn tell(
        &self,
        events: Vec<l::WatchEvent>,
        stopped: &mut (impl Future<Output = ()> + Unpin),
    ) -> Result<(), Ended> {
        for event in events {
            tokio::select! {
                biased;
                sent = self.events.send(event) => sent.map_err(|_gone| Ended::Gone)?,
                () = &mut *stopped => return Err(Ended::With(draining())),
                () = tokio::time::sleep(self.patience) => return Err(Ended::With(too_slow(self.patience))),
            }
        }
        Ok(())
    }

    /// Everything is told: says so once, and from time to time.
    async fn rest(&mut self, bookmark: String, stopped: &mut (impl Future<Output = ()> + Unpin)) -> Result<(), Ended> {
        let now = Instant::from_std(clock::instant());
        if self.next_tick.is_none_or(|due| due <= now) {
            self.next_tick = Some(now + TICK);
            self.tell(vec![l::WatchEvent { bookmark, ..Default::default() }], stopped).await?;
        }
        self.wait(stopped).await
    }

    async fn wait(&mut self, stopped: &mut (impl Future<Output = ()> + Unpin)) -> Result<(), Ended> {
        tokio::select! {
            _more = self.published.changed() => Ok(()),
            () = tokio::time::sleep(LOOK) => Ok(()),
            () = &mut *stopped => Err(Ended::With(draining())),
            () = self.events.closed() => Err(Ended::Gone),
        }
    }
}

/// Why a watch ends.
enum Ended {
    Gone,
    With(Status),
}

fn too_slow(patience: Duration) -> Status {
    let what = format!("no event was taken for {} s, so this watch ends behind the last one", patience.as_secs());
    refuse_with_fix(Code::ResourceExhausted, "SLOW", what, "watch again from the bookmark of the last event")
}

/// The list cannot be told from this bookmark on.
fn out_of_range(why: impl Into<String>) -> Status {
    let fix = "read the list anew: staydown list watch --list (WatchRequest.list)";
    refuse_with_fix(Code::OutOfRange, "BOOKMARK", why, fix)
}

/// What one look came to.
enum Step {
    /// These, and there may be more; none: there may be more all the same.
    Told(Vec<l::WatchEvent>),
    /// Everything is told up to this bookmark.
    Level(String),
    /// The list is being derived again: look later.
    Unsettled,
}

/// From when on looking at every entry is less work: what comes of it is the same.
#[derive(Clone, Copy, Debug)]
struct Limits {
    blocks_at_once: u64,
    blocks_read: u64,
    candidates: usize,
}

const LIMITS: Limits =
    Limits { blocks_at_once: BLOCKS_AT_ONCE, blocks_read: BLOCKS_READ_MAX, candidates: CANDIDATES_MAX };

/// Where a watch stands, and what it looks at.
struct Watcher {
    shared: Arc<Shared>,
    limits: Limits,
    alg: Option<Alg>,
    start: Option<Start>,
    way: Way,
    law: Law,
    /// Whether this watch saw the list as it is at the beginning of the stride, and at its end, and told all of it: every
    /// word of the stride came later then, and what it took the place of is what was told before.
    seen: [bool; 2],
    candidates: Option<Candidates>,
    /// The bookmark of the stride, but for its last part.
    head: Vec<u8>,
}

/// What is not known before the list has settled.
enum Start {
    Now,
    List,
    Behind(Box<Bookmark>),
}

/// From where to where the stride goes on which a watch is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Way {
    from: Have,
    to: Have,
    since: TimeMs,
    until: TimeMs,
    /// Up to this subject everything of the stride is told.
    after: Option<Subject>,
}

impl Way {
    /// The first stride of a watch that begins with the list.
    fn is_whole_list(&self) -> bool {
        self.from.is_empty() && self.since == TimeMs(0)
    }

    fn is_done(&self) -> bool {
        self.from == self.to && self.since == self.until
    }

    fn close(&mut self) {
        self.from = self.to.clone();
        self.since = self.until;
        self.after = None;
    }
}

/// By which charter the list is what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Law {
    forum: [u8; 8],
    version: u64,
    /// Of the charter in force, and of the one by which records count.
    hash: [u8; 8],
}

impl Law {
    fn of(replica: &Replica) -> Self {
        let (chain, law) = (replica.charters(), replica.law());
        let hash = sha256(&[b"staydown/watch/v1\n", &chain.effective().hash.0, &law.hash.0]);
        Self {
            forum: chain.forum().0.first_chunk().copied().unwrap_or_default(),
            version: chain.effective().version,
            hash: hash.first_chunk().copied().unwrap_or_default(),
        }
    }

    /// # Errors
    /// It is not the one in force.
    fn check(&self, replica: &Replica) -> Result<(), Status> {
        let now = Self::of(replica);
        if *self == now {
            return Ok(());
        }
        Err(out_of_range(if self.forum != now.forum {
            "the bookmark is of another forum".to_owned()
        } else if self.version == now.version {
            "the charter in force, or what this release makes of it, is another than that of the bookmark".to_owned()
        } else {
            let (was, is) = (self.version, now.version);
            format!(
                "charter {is} is in force, and the bookmark is of charter {was}: the list may have changed anywhere"
            )
        }))
    }
}

/// Entries that a stride may have to tell.
enum Candidates {
    These(BTreeSet<Subject>),
    All,
}

impl Watcher {
    fn new(shared: Arc<Shared>, request: &l::WatchRequest) -> Result<Self, Status> {
        let alg = match &request.r#type[..] {
            "" => None,
            name => Some(Alg::from_name(name).ok_or_else(|| bad_field("type", format!("{name:?} is unknown")))?),
        };
        let start = match &request.bookmark[..] {
            "" if request.list => Start::List,
            "" => Start::Now,
            _ if request.list => return Err(bad_field("list", "stands beside a bookmark, expected one of the two")),
            text => Start::Behind(Box::new(Bookmark::parse(text)?)),
        };
        let (way, law) = Default::default();
        Ok(Self {
            shared,
            limits: LIMITS,
            alg,
            start: Some(start),
            way,
            law,
            seen: [false; 2],
            candidates: None,
            head: Vec::new(),
        })
    }

    /// One look at the list, as it is at `now`.
    fn step(&mut self, now: TimeMs) -> Result<Step, Status> {
        let shared = Arc::clone(&self.shared);
        if self.candidates.is_none() {
            let is_new;
            let set_out = {
                let replica = shared.replica();
                if self.is_unsettled(&replica)? {
                    return Ok(Step::Unsettled);
                }
                self.begin(&replica, now)?;
                is_new = self.way.is_done();
                self.set_out(&replica, now)?
            };
            let candidates = self.candidates(set_out)?;
            if matches!(&candidates, Candidates::These(these) if these.is_empty()) {
                return Ok(self.pass_by(is_new));
            }
            self.candidates = Some(candidates);
        }
        let replica = shared.replica();
        if self.is_unsettled(&replica)? {
            return Ok(Step::Unsettled);
        }
        self.law.check(&replica)?;
        // A look that finds less than the stride's end would tell a list that never was.
        still_there(&replica, &self.way.to)?;
        Ok(Step::Told(self.tell(&replica)))
    }

    fn is_unsettled(&self, replica: &Replica) -> Result<bool, Status> {
        // Who begins before the labels have names would keep numbers for good.
        let is_named = self.shared.taxonomy().why_missing().is_none();
        match self.shared.failure() {
            _ if replica.is_settled() && is_named => Ok(false),
            Some(failed) => Err(of_failure(&failed)),
            None => Ok(true),
        }
    }

    /// Where the watch begins, once.
    fn begin(&mut self, replica: &Replica, now: TimeMs) -> Result<(), Status> {
        let Some(start) = self.start.take() else { return Ok(()) };
        let taken_in = replica.taken_in().unwrap_or_default();
        self.law = Law::of(replica);
        self.seen = [matches!(start, Start::Now), !matches!(start, Start::Behind(_))];
        self.way = match start {
            Start::Now => Way { from: taken_in.clone(), to: taken_in, since: now, until: now, after: None },
            Start::List => Way { to: taken_in, until: now, ..Way::default() },
            Start::Behind(bookmark) => bookmark.way(replica)?,
        };
        Ok(())
    }

    /// The stride to be told next, if there is none under way; whether new blocks have to be read for it, which, and what
    /// else may have changed.
    fn set_out(&mut self, replica: &Replica, now: TimeMs) -> Result<SetOut, Status> {
        self.law.check(replica)?;
        still_there(replica, &self.way.to)?;
        let way = &mut self.way;
        if way.is_done() {
            let taken_in = replica.taken_in().unwrap_or_default();
            way.to = stride(&way.from, &taken_in, replica, self.limits);
            self.seen = [self.seen[1], way.to == taken_in];
            way.until = now.max(way.since);
            way.after = None;
        }
        quotas_hold(replica, way)?;
        self.head = Bookmark::head(&self.law, way, replica);
        if way.is_done() {
            return Ok(SetOut::Some { blocks: Vec::new(), ended: BTreeSet::new() }); // neither blocks nor time came
        }
        let few = way.to.blocks_beyond(&way.from) <= self.limits.blocks_at_once;
        if !few || way.is_whole_list() {
            return Ok(SetOut::All);
        }
        let Some(ending) = replica.view().ending(way.since, way.until) else { return Ok(SetOut::All) };
        let ended: BTreeSet<_> = ending.take(self.limits.candidates + 1).collect();
        let fresh = way.to.iter().flat_map(|(origin, head)| {
            (way.from.seq(origin).0 + 1..=head.seq.0).map(move |seq| BlockId { origin, seq: Seq(seq) })
        });
        Ok(SetOut::Some { blocks: fresh.collect(), ended })
    }

    /// Which entries the stride may have to tell. Blocks are read outside the lock.
    fn candidates(&self, set_out: SetOut) -> Result<Candidates, Status> {
        let SetOut::Some { blocks, ended: mut these } = set_out else { return Ok(Candidates::All) };
        let mut incidents = BTreeSet::new();
        for id in blocks {
            let frame = frame(&self.shared, id)?;
            for slot in &frame.slots {
                if let Slot::Record(record) = slot {
                    spoken_of(record, &mut these, &mut incidents);
                }
            }
        }
        let (max, replica) = (self.limits.candidates, self.shared.replica());
        for id in &incidents {
            these.extend(replica.view().tied_to(id).take(max + 1).cloned());
            if these.len() > max {
                return Ok(Candidates::All);
            }
        }
        Ok(if these.len() > max { Candidates::All } else { Candidates::These(these) })
    }

    /// Nothing is to be told of the stride. The end of one that was begun earlier is not where the list is now.
    fn pass_by(&mut self, is_new: bool) -> Step {
        let moved = self.way.to != self.way.from;
        self.way.close();
        if moved || !is_new { Step::Told(Vec::new()) } else { Step::Level(Bookmark::finish(&self.head, None)) }
    }

    /// The next events of the stride. Under the lock, for some hundred microseconds.
    fn tell(&mut self, replica: &Replica) -> Vec<l::WatchEvent> {
        let (way, labels) = (self.way.clone(), self.shared.taxonomy());
        let beyond_from = |id: BlockId| id.seq > way.from.seq(id.origin);
        let stretch = Stretch { is_within: &beyond_from, from: way.since, until: way.until };
        let mut events = Vec::new();
        let mut looked_at = 0;
        let mut look = |subject: &Subject, may_have_changed: bool| {
            self.way.after = Some(subject.clone());
            let wanted = may_have_changed && self.alg.is_none_or(|alg| alg.number() == subject.alg());
            // Of what a later stride tells, it is not said then what was told before.
            let is_left = wanted && way.is_left(replica, subject);
            self.seen[1] &= !is_left;
            let event = (wanted && !is_left).then(|| way.event(replica, subject, &labels, self.seen[0])).flatten();
            events.extend(
                event.map(|event| l::WatchEvent { bookmark: Bookmark::finish(&self.head, Some(subject)), ..event }),
            );
            looked_at += 1;
            looked_at < SCAN_MAX && events.len() < EVENTS_AT_ONCE
        };
        let after = way.after.as_ref();
        let more = match &self.candidates {
            Some(Candidates::These(these)) => {
                let mut left = these.range((after.map_or(Unbounded, Excluded), Unbounded));
                !left.all(|subject| look(subject, true))
            }
            Some(Candidates::All) => {
                let mut left = replica.view().changed(after, &stretch);
                !left.all(|(subject, may)| look(&subject, may))
            }
            None => false,
        };
        if !more {
            self.way.close();
            self.candidates = None;
        }
        events
    }
}

impl Way {
    /// Whether words came beyond the end of the stride: a later one tells all of it.
    fn is_left(&self, replica: &Replica, subject: &Subject) -> bool {
        replica.view().places(subject).any(|(block, _)| block.seq > self.to.seq(block.origin))
    }

    /// What the stride did to the entry of `subject`, if it did anything. `seen`: the list was seen at its beginning.
    fn event(&self, replica: &Replica, subject: &Subject, labels: &Taxonomy, seen: bool) -> Option<l::WatchEvent> {
        let (view, charter) = (replica.view(), replica.charters().effective());
        let entry = view.entry(subject, self.until)?;
        let is_fresh = |block: BlockId| block.seq > self.from.seq(block.origin);
        let records: BTreeSet<_> = view.places(subject).filter(|(block, _)| is_fresh(*block)).collect();
        let shown = |entry: &Entry| entry_to_proto(entry, charter, labels);
        if self.is_whole_list() {
            let stands = entry.status != Standing::Inactive;
            return stands.then(|| l::WatchEvent {
                entry: Some(shown(&entry)),
                change: l::Change::Stands.into(),
                ..Default::default()
            });
        }
        if records.is_empty() {
            let before = view.entry(subject, self.since)?;
            let (was, is) = (shown(&before), shown(&entry));
            return (was != is).then(|| l::WatchEvent {
                entry: Some(is),
                change: l::Change::Ended.into(),
                status_before: was.status,
                ..Default::default()
            });
        }
        let before = seen.then(|| view.status_before(subject, is_fresh, self.since)).flatten();
        Some(l::WatchEvent {
            entry: Some(shown(&entry)),
            change: l::Change::Said.into(),
            status_before: before.map(|status| status.name().to_owned()).unwrap_or_default(),
            records: records.into_iter().map(|(block, index)| place_to_proto(block, index)).collect(),
            ..Default::default()
        })
    }
}

fn place_to_proto(block: BlockId, index: u16) -> l::GetRecordRequest {
    l::GetRecordRequest {
        member_id: block.origin.member.0.to_vec().into(),
        log_no: block.origin.log_no.0,
        seq: block.seq.0,
        index: u32::from(index),
    }
}

/// What a stride is to look at.
enum SetOut {
    All,
    Some { blocks: Vec<BlockId>, ended: BTreeSet<Subject> },
}

/// The subject or incident that a record speaks of, as far as entries rest on it.
fn spoken_of(record: &[u8], subjects: &mut BTreeSet<Subject>, incidents: &mut BTreeSet<IncidentId>) {
    let Parsed::Says(statement) = parse(record) else { return };
    match statement {
        Statement::Opinion(Opinion { subject, .. })
        | Statement::Retract { subject, .. }
        | Statement::Allow { subject, .. }
        | Statement::Referral { subject, .. } => {
            subjects.insert(subject);
        }
        Statement::Incident { id, .. } => {
            incidents.insert(id);
        }
        Statement::LogOpen(_)
        | Statement::LogClose
        | Statement::Evidence
        | Statement::Attest { .. }
        | Statement::Suspend { .. }
        | Statement::AuditNote
        | Statement::Resource(_)
        | Statement::Preserve { .. }
        | Statement::Outcome { .. } => {}
    }
}

/// The end of the next stride: few blocks on, or all of what was taken in when that is too much to be read.
fn stride(from: &Have, taken_in: &Have, replica: &Replica, limits: Limits) -> Have {
    let blocks = taken_in.blocks_beyond(from);
    if blocks <= limits.blocks_at_once || blocks > limits.blocks_read {
        return taken_in.clone();
    }
    let (mut to, mut room) = (from.clone(), limits.blocks_at_once);
    for (origin, head) in taken_in.iter() {
        let seq = head.seq.0.min(from.seq(origin).0.saturating_add(room));
        let reached = replica.logs().get(&origin).and_then(|log| log.head_at(Seq(seq)));
        if let Some(reached) = reached.filter(|reached| reached.seq > from.seq(origin)) {
            room -= seq - from.seq(origin).0;
            to.set(origin, reached);
        }
    }
    to
}

/// # Errors
/// The list does not rest on `have` any more: chains were dropped, or members cut off.
fn still_there(replica: &Replica, have: &Have) -> Result<(), Status> {
    if replica.has_taken_in(have) {
        return Ok(());
    }
    Err(out_of_range("blocks that the bookmark counts do not count here any more: the list may have changed anywhere"))
}

/// New records of a log may push those of a later log of the same lane over the day's quota, whoever they speak of.
///
/// # Errors
/// They may have done so.
fn quotas_hold(replica: &Replica, way: &Way) -> Result<(), Status> {
    let class = |origin: Origin| {
        let log = replica.logs().get(&origin)?;
        Class::from_number(log.opening().class)
    };
    for (origin, _) in way.to.iter().filter(|(origin, head)| head.seq > way.from.seq(*origin)) {
        let Some(lane) = class(origin) else { continue };
        let later = |(other, _): (Origin, _)| {
            other.member == origin.member && other.log_no > origin.log_no && class(other) == Some(lane)
        };
        if way.from.iter().any(later) && replica.view().quotas().is_exceeded(replica.law(), origin.member, lane) {
            let name = replica.name_of(origin.member);
            return Err(out_of_range(format!(
                "{name} is beyond its quota in several logs: which of its records count may have changed anywhere"
            )));
        }
    }
    Ok(())
}

/// Where a watch stands, as text. Places name members by their number in the charter that it names; a digest says which
/// blocks are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bookmark {
    law: Law,
    since: TimeMs,
    until: TimeMs,
    digest: [u8; 16],
    from: Vec<Place>,
    /// Where `to` differs from `from`.
    to: Vec<Place>,
    after: Option<Subject>,
}

/// Number of the member, number of its log, and how far it is taken in.
type Place = (u64, u32, u64);

impl Bookmark {
    /// All but the subject, which differs from event to event.
    fn head(law: &Law, way: &Way, replica: &Replica) -> Vec<u8> {
        let members: Vec<_> = replica.law().members.keys().copied().collect();
        let places = |have: &Have, but: &Have| {
            let differs = have.iter().filter(|(origin, head)| but.head(*origin) != Some(*head));
            let place = |(origin, head): (Origin, crate::replica::ids::Head)| {
                let number = members.binary_search(&origin.member).ok()?;
                Some((number as u64, origin.log_no.0, head.seq.0))
            };
            differs.filter_map(place).collect::<Vec<Place>>()
        };
        let mut bytes = vec![BOOKMARK_VERSION];
        bytes.extend_from_slice(&law.forum);
        bytes.extend_from_slice(&law.hash);
        bytes.extend_from_slice(&digest(way));
        encode_varint(law.version, &mut bytes);
        encode_varint(way.since.0, &mut bytes);
        encode_varint(way.until.0, &mut bytes);
        for places in [places(&way.from, &Have::default()), places(&way.to, &way.from)] {
            encode_varint(places.len() as u64, &mut bytes);
            for (member, log_no, seq) in places {
                encode_varint(member, &mut bytes);
                encode_varint(u64::from(log_no), &mut bytes);
                encode_varint(seq, &mut bytes);
            }
        }
        bytes
    }

    /// The bookmark behind `after`.
    fn finish(head: &[u8], after: Option<&Subject>) -> String {
        let mut bytes = head.to_vec();
        if let Some(subject) = after {
            for number in [u64::from(subject.kind()), u64::from(subject.alg()), u64::from(subject.param())] {
                encode_varint(number, &mut bytes);
            }
            bytes.extend_from_slice(subject.digest());
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// # Errors
    /// It is none.
    fn parse(text: &str) -> Result<Self, Status> {
        if text.len() > BOOKMARK_BYTES_MAX {
            let why = format!("has {} characters, at most {BOOKMARK_BYTES_MAX} are possible", text.len());
            return Err(bad_field("bookmark", why));
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        let sealed = bytes.as_deref().and_then(|bytes| bytes.split_last_chunk::<4>());
        let whole = sealed.filter(|(body, sum)| crc32c::crc32c(body).to_be_bytes() == **sum).map(|(body, _)| body);
        match whole {
            None => Err(bad_field("bookmark", "is damaged, expected one as it was given, to the letter")),
            Some([BOOKMARK_VERSION, rest @ ..]) => {
                Self::read(rest).ok_or_else(|| bad_field("bookmark", "is not one of this program"))
            }
            Some(_) => Err(out_of_range("the bookmark is of another release")),
        }
    }

    fn read(mut bytes: &[u8]) -> Option<Self> {
        let (forum, rest) = bytes.split_first_chunk::<8>()?;
        let (hash, rest) = rest.split_first_chunk::<8>()?;
        let (digest, rest) = rest.split_first_chunk::<16>()?;
        bytes = rest;
        let version = decode_varint(&mut bytes).ok()?;
        let since = TimeMs(decode_varint(&mut bytes).ok()?);
        let until = TimeMs(decode_varint(&mut bytes).ok()?);
        let from = read_places(&mut bytes)?;
        let to = read_places(&mut bytes)?;
        let after = if bytes.is_empty() { None } else { Some(read_subject(bytes)?) };
        let law = Law { forum: *forum, version, hash: *hash };
        Some(Self { law, since, until, digest: *digest, from, to, after })
    }

    /// The way on which it lies.
    ///
    /// # Errors
    /// It is not on the way of this node.
    fn way(&self, replica: &Replica) -> Result<Way, Status> {
        self.law.check(replica)?;
        let members: Vec<_> = replica.law().members.keys().copied().collect();
        let mut lacks = 0;
        let mut from = Have::default();
        lacks += take_places(&self.from, &members, replica, &mut from);
        let mut to = from.clone();
        lacks += take_places(&self.to, &members, replica, &mut to);
        if lacks > 0 {
            let what = format!("this node has not taken in {lacks} logs as far as the bookmark counts them");
            let fix =
                "wait until it has caught up (staydown status), or read the list anew: staydown list watch --list";
            return Err(refuse_with_fix(Code::OutOfRange, "BOOKMARK", what, fix));
        }
        let way = Way { from, to, since: self.since, until: self.until, after: self.after.clone() };
        if digest(&way) != self.digest {
            let why = "the bookmark counts other blocks than this node: the list may differ anywhere";
            return Err(out_of_range(why));
        }
        Ok(way)
    }
}

/// Which blocks stand at the ends of a stride.
fn digest(way: &Way) -> [u8; 16] {
    let both = sha256(&[&way.from.digest(), &way.to.digest()]);
    both.first_chunk().copied().unwrap_or_default()
}

fn read_places(bytes: &mut &[u8]) -> Option<Vec<Place>> {
    let count = usize::try_from(decode_varint(bytes).ok()?).ok().filter(|count| *count <= HAVE_MAX)?;
    let place = |_| {
        let member = decode_varint(bytes).ok()?;
        let log_no = u32::try_from(decode_varint(bytes).ok()?).ok()?;
        Some((member, log_no, decode_varint(bytes).ok()?))
    };
    (0..count).map(place).collect()
}

fn read_subject(mut bytes: &[u8]) -> Option<Subject> {
    let kind = u16::try_from(decode_varint(&mut bytes).ok()?).ok()?;
    let alg = u16::try_from(decode_varint(&mut bytes).ok()?).ok()?;
    let param = u32::try_from(decode_varint(&mut bytes).ok()?).ok()?;
    Some(Subject::new(kind, alg, param, bytes))
}

/// Puts the heads at `places` into `have`, and tells how many of them this node does not have.
fn take_places(places: &[Place], members: &[MemberId], replica: &Replica, have: &mut Have) -> usize {
    let mut lacks = 0;
    for (member, log_no, seq) in places {
        let member = usize::try_from(*member).ok().and_then(|number| members.get(number));
        let origin = member.map(|member| Origin { member: *member, log_no: LogNo(*log_no) });
        let log = origin.and_then(|origin| replica.logs().get(&origin));
        match log.and_then(|log| Some((log.origin(), log.head_at(Seq(*seq))?))) {
            Some((origin, head)) => have.set(origin, head),
            None => lacks += 1,
        }
    }
    lacks
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::thread;

    use bytes::Bytes;
    use tonic::Request;

    use super::*;
    use crate::engine::{self, Handle};
    use crate::net::limits::WATCHES_MAX;
    use crate::net::local::LocalService;
    use crate::net::status::REASON;
    use crate::replica::Input;
    use crate::replica::exchange::{Draw, PeerEvent};
    use crate::replica::signed::Keyring;
    use crate::replica::testing::{
        CERTIFIER, FULL, REFERRAL, SMALL, STEWARD, TestForum, TestLog, allow, id, incident, opinion, opinion_with,
        referral, retract, settings, subject,
    };
    use crate::wire::local_service::forum_server::Forum as _;

    const DEADLINE: Duration = Duration::from_secs(60);
    const MINUTE_MS: u64 = 60_000;

    /// A node of member 1 in a forum whose other members write what the test says.
    struct Node {
        forum: TestForum,
        folder: tempfile::TempDir,
        running: Option<(Handle, thread::JoinHandle<()>)>,
        ring: Keyring,
        logs: BTreeMap<(u8, u32), TestLog>,
        /// Time of the next block: long ago, so that the node takes it.
        time: TimeMs,
    }

    fn open(folder: &Path, forum: &TestForum) -> (Handle, thread::JoinHandle<()>) {
        let runtime = tokio::runtime::Handle::current();
        let (engine, _, thread) = engine::start(folder, settings(1), forum.id, &forum.charters, runtime).unwrap();
        (engine, thread)
    }

    impl Node {
        fn start(forum: TestForum) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let running = Some(open(folder.path(), &forum));
            let (ring, time) = (forum.keyring(), TimeMs(clock::now().hour().0 - TimeMs::DAY_MS));
            Self { forum, folder, running, ring, logs: BTreeMap::new(), time }
        }

        fn engine(&self) -> &Handle {
            &self.running.as_ref().unwrap().0
        }

        fn shared(&self) -> Arc<Shared> {
            Arc::clone(self.engine().shared())
        }

        async fn say_in(&mut self, member: u8, log_no: u32, records: &[Bytes]) {
            let forum = &self.forum;
            let log = self.logs.entry((member, log_no)).or_insert_with(|| forum.log(member, log_no, Class::Normal));
            self.time = self.time.plus(1);
            log.time = self.time;
            let block = log.block(&mut self.ring, records);
            let (origin, seq) = (block.id().origin, block.id().seq);
            self.engine().input(Input::Peer(id(member), PeerEvent::Block(Box::new(block)))).await.unwrap();
            let arrived = |published: &Arc<Published>| published.have().seq(origin) >= seq;
            let mut published = self.engine().shared().published();
            tokio::time::timeout(DEADLINE, published.wait_for(arrived)).await.unwrap().unwrap();
            self.settle().await;
        }

        async fn say(&mut self, member: u8, record: Bytes) {
            self.say_in(member, 0, &[record]).await;
        }

        /// Waits until the list is that of what is known.
        async fn settle(&self) {
            let mut published = self.engine().shared().published();
            let begun = clock::instant();
            while !self.engine().shared().replica().is_settled() {
                assert!(begun.elapsed() < DEADLINE, "the list never settles");
                drop(tokio::time::timeout(Duration::from_millis(50), published.changed()).await);
            }
        }

        async fn charter(&mut self, change: impl FnOnce(&mut crate::replica::proto::Charter)) {
            let next = self.forum.issue(change);
            self.engine().apply_charter(next).await.unwrap().unwrap();
            self.settle().await;
        }

        async fn restart(&mut self) {
            let (engine, thread) = self.running.take().unwrap();
            engine.stop().await;
            thread.join().unwrap();
            drop(engine);
            self.running = Some(open(self.folder.path(), &self.forum));
        }

        async fn end(mut self) {
            let (engine, thread) = self.running.take().unwrap();
            engine.stop().await;
            thread.join().unwrap();
        }

        /// What `ListEntries` shows at `t`.
        fn list(&self, t: TimeMs) -> BTreeMap<Bytes, l::Entry> {
            let replica = self.engine().shared().replica();
            let (view, charter) = (replica.view(), replica.charters().effective());
            let entries = view.subjects_after(None).filter_map(|subject| view.entry(&subject, t));
            let listed = entries.filter(|entry| entry.status != Standing::Inactive);
            listed.map(|entry| normal(entry_to_proto(&entry, charter, &Taxonomy::built_in()))).collect()
        }

        fn watcher(&self, bookmark: &str, list: bool) -> Result<Watcher, Status> {
            let request = l::WatchRequest { bookmark: bookmark.into(), list, ..Default::default() };
            Watcher::new(self.shared(), &request)
        }
    }

    /// Members' words have no order but that in which this node heard them.
    fn normal(mut entry: l::Entry) -> (Bytes, l::Entry) {
        entry
            .said
            .sort_by(|a, b| (&a.member_id, &a.what, a.log_no, a.seq).cmp(&(&b.member_id, &b.what, b.log_no, b.seq)));
        (entry.subject_id.clone(), entry)
    }

    /// Whoever watches: keeps a list by what it is told, and the last bookmark.
    #[derive(Default)]
    struct Consumer {
        list: BTreeMap<Bytes, l::Entry>,
        bookmark: String,
        told: usize,
        /// Words that came of which it was told what was before.
        from_to: usize,
    }

    impl Consumer {
        fn take(&mut self, event: l::WatchEvent) {
            let change = event.change();
            self.bookmark = event.bookmark;
            let Some(entry) = event.entry else { return };
            self.told += 1;
            let (subject, entry) = normal(entry);
            let said = |place: &l::GetRecordRequest| {
                entry.said.iter().any(|s| {
                    (&s.member_id, s.log_no, s.seq, s.index) == (&place.member_id, place.log_no, place.seq, place.index)
                })
            };
            let own = change != l::Change::Said || event.records.iter().any(said);
            assert!(!own || self.list.get(&subject) != Some(&entry), "told twice: {entry:?}");
            assert_eq!(change == l::Change::Said, !event.records.is_empty());
            assert!(change != l::Change::Ended || !event.status_before.is_empty());
            if !event.status_before.is_empty() {
                let before = self.list.get(&subject).map_or("INACTIVE", |held| &held.status);
                assert_eq!(event.status_before, before, "{change:?}: {entry:?}");
                self.from_to += usize::from(change == l::Change::Said);
            }
            if entry.status == "INACTIVE" {
                self.list.remove(&subject);
            } else {
                self.list.insert(subject, entry);
            }
        }

        /// Takes at most `count` events at `now`; tells whether there are no more.
        fn follow(&mut self, watcher: &mut Watcher, now: TimeMs, count: usize) -> Result<bool, Status> {
            let mut left = count;
            loop {
                match watcher.step(now)? {
                    Step::Level(bookmark) => {
                        self.bookmark = bookmark;
                        return Ok(true);
                    }
                    Step::Unsettled => panic!("the test waits until the list has settled"),
                    Step::Told(events) => {
                        for event in events {
                            if left == 0 {
                                return Ok(false);
                            }
                            left -= 1;
                            self.take(event);
                        }
                    }
                }
            }
        }

        /// Begins anew, with the list.
        fn anew(&mut self, node: &Node, now: TimeMs) {
            *self = Self { from_to: self.from_to, ..Self::default() };
            let level = self.follow(&mut node.watcher("", true).unwrap(), now, usize::MAX).unwrap();
            assert!(level && self.list == node.list(now));
        }
    }

    fn anything(draw: &mut Draw, member: u8, base: TimeMs) -> Bytes {
        let small = |n: u64| u8::try_from(n).unwrap();
        let about = small(draw.below(30));
        let soon = base.plus(MINUTE_MS * draw.below(15 * 60));
        match (member, draw.below(8)) {
            (5, yes) => allow(about, yes < 5, soon),
            (6, open) => referral(about, open < 5),
            (_, 0) => retract(about, draw.below(2) == 0),
            (7, 1..3) => incident(small(draw.below(2)), 12, draw.below(3) > 0, soon),
            _ => opinion_with(about, u32::from(small(draw.below(4))) + 1, |o| {
                o.labels = vec![u32::from(small(draw.below(3))) + 1];
                o.expires_ms = if draw.below(2) == 0 { soon.0 } else { 0 };
                if draw.below(3) == 0 {
                    o.incident_id = vec![small(draw.below(2)); 16].into();
                }
            }),
        }
    }

    const MEMBERS: [(&str, u32); 7] =
        [("a", FULL), ("b", FULL), ("c", FULL), ("d", SMALL), ("e", CERTIFIER), ("f", REFERRAL), ("g", FULL | STEWARD)];

    /// The promise. Members say anything, time passes, words end, incidents open and close; whoever watches breaks off
    /// anywhere and goes on from its last bookmark, and the node starts again: in the end its list is the node's. After
    /// another charter it is told to begin anew.
    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_follows_the_events_has_the_list() {
        let mut from_to = 0;
        for seed in 0..8 {
            let (mut draw, mut limits) = (Draw(seed), Draw(seed + 1_000));
            let mut node = Node::start(TestForum::of(&MEMBERS));
            // From hours of which the node does not know any more what ended to the current one.
            let base = TimeMs(clock::now().hour().0 - 5 * TimeMs::HOUR_MS);
            let mut now = base;
            let mut consumer = Consumer::default();
            consumer.anew(&node, now);
            // Another number, or all there is: how much is looked at in which way must not matter.
            let mut follower = |node: &Node, bookmark: &str| {
                let mut watcher = node.watcher(bookmark, false).unwrap();
                if limits.below(2) == 0 {
                    watcher.limits = Limits {
                        blocks_at_once: limits.below(4) + 1,
                        blocks_read: limits.below(8) + 1,
                        candidates: usize::try_from(limits.below(12)).unwrap(),
                    };
                }
                watcher
            };
            let mut watcher = follower(&node, &consumer.bookmark);
            let mut broken_off = 0;
            for round in 0..60 {
                for _ in 0..draw.below(4) {
                    let member = u8::try_from(draw.below(6)).unwrap() + 2;
                    let records: Vec<_> = (0..=draw.below(4)).map(|_| anything(&mut draw, member, base)).collect();
                    node.say_in(member, u32::from(draw.below(4) == 0), &records).await;
                }
                now = now.plus(draw.below(25) * MINUTE_MS);
                let count = usize::try_from(draw.below(12)).unwrap();
                if !consumer.follow(&mut watcher, now, count).unwrap() || draw.below(4) == 0 {
                    broken_off += 1;
                    watcher = follower(&node, &consumer.bookmark);
                }
                if round % 20 == 10 {
                    drop(watcher);
                    node.restart().await;
                    watcher = follower(&node, &consumer.bookmark);
                }
                if round % 20 == 19 {
                    node.charter(|c| c.policy.as_mut().unwrap().contest_quorum ^= 3).await;
                    for mut told in [watcher, follower(&node, &consumer.bookmark)] {
                        let refused = told.step(now).err().unwrap();
                        assert_eq!(
                            (refused.code(), refused.metadata().get(REASON).unwrap().to_str().unwrap()),
                            (Code::OutOfRange, "BOOKMARK")
                        );
                        assert!(refused.message().contains("charter"), "{}", refused.message());
                    }
                    consumer.anew(&node, now);
                    watcher = follower(&node, &consumer.bookmark);
                }
                if draw.below(3) == 0 {
                    assert!(consumer.follow(&mut watcher, now, usize::MAX).unwrap());
                    assert_eq!(consumer.list, node.list(now), "seed {seed}, round {round}");
                }
            }
            assert!(consumer.follow(&mut watcher, now, usize::MAX).unwrap());
            assert_eq!(consumer.list, node.list(now), "seed {seed}, at the end");
            from_to += consumer.from_to;
            assert!(
                broken_off > 5 && consumer.told > 20 && !consumer.list.is_empty(),
                "{broken_off}, {}",
                consumer.told
            );
            drop(watcher);
            node.end().await;
        }
        assert!(from_to > 20, "{from_to} words came of which it was told what was before");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_an_event_says_is_what_happened() {
        let mut node = Node::start(TestForum::of(&MEMBERS));
        let now = clock::now();
        let (soon, later) = (now.plus(10 * MINUTE_MS), now.plus(20 * MINUTE_MS));
        node.say(2, opinion(1, 1)).await;
        let mut watcher = node.watcher("", false).unwrap();
        let told = |at: TimeMs, watcher: &mut Watcher| {
            let mut events = Vec::new();
            loop {
                match watcher.step(at).unwrap() {
                    Step::Told(more) => events.extend(more),
                    Step::Level(_) => break,
                    Step::Unsettled => panic!("unsettled"),
                }
            }
            let row = |event: l::WatchEvent| {
                let entry = event.entry.clone().unwrap();
                let records: Vec<_> = event.records.iter().map(|r| (r.member_id[0], r.seq, r.index)).collect();
                (event.change().as_str_name(), entry.status, event.status_before, entry.labels, records)
            };
            events.into_iter().map(row).collect::<Vec<_>>()
        };
        assert!(told(now, &mut watcher).is_empty(), "from now on is from now on");
        node.say(
            4,
            opinion_with(2, 1, |o| {
                o.expires_ms = soon.0;
                o.incident_id = vec![7; 16].into();
            }),
        )
        .await;
        let none = Vec::<String>::new;
        assert_eq!(
            told(now, &mut watcher),
            [("CHANGE_SAID", "PROVISIONAL".into(), "INACTIVE".into(), none(), vec![(4, 1, 1)])]
        );
        node.say(7, incident(7, 12, true, later)).await;
        let listed = vec![Taxonomy::built_in().name(12)];
        assert_eq!(
            told(now, &mut watcher),
            [("CHANGE_SAID", "PROVISIONAL".into(), "PROVISIONAL".into(), listed.clone(), vec![(7, 1, 1)])]
        );
        // Nothing of it concerns an entry, or changes what stands.
        node.say(3, incident(9, 12, true, later)).await;
        assert!(told(now, &mut watcher).is_empty());
        assert_eq!(
            told(soon, &mut watcher),
            [("CHANGE_ENDED", "INACTIVE".into(), "PROVISIONAL".into(), none(), vec![])]
        );
        node.say_in(2, 0, &[opinion(2, 2), opinion(1, 4)]).await;
        let rows = told(soon, &mut watcher);
        assert_eq!(rows.len(), 2, "{rows:?}");
        let at = |from: &str, to: &str| {
            rows.iter().filter(|row| (row.0, &row.1[..], &row.2[..]) == ("CHANGE_SAID", to, from)).count()
        };
        assert_eq!((at("INACTIVE", "ACTIVE"), at("ACTIVE", "INACTIVE")), (1, 1), "{rows:?}");
        drop(watcher);
        node.end().await;
    }

    /// However much has come, each entry is told once, and it does not matter in which pieces.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_came_in_many_blocks_is_told_once() {
        let mut node = Node::start(TestForum::of(&MEMBERS));
        let now = clock::now();
        let mut consumer = Consumer::default();
        consumer.anew(&node, now);
        let blocks = 3 * BLOCKS_AT_ONCE + 5;
        for n in 0..blocks {
            let member = 2 + u8::try_from(n % 3).unwrap();
            let about = u8::try_from(n % 50).unwrap();
            node.say_in(member, 0, &[opinion(about, 1), opinion(about + 50, 1)]).await;
        }
        let bookmark = consumer.bookmark.clone();
        let mut watcher = node.watcher(&bookmark, false).unwrap();
        consumer.told = 0;
        assert!(consumer.follow(&mut watcher, now, usize::MAX).unwrap());
        assert_eq!((consumer.told, &consumer.list), (100, &node.list(now)));

        // One by one, each time over another connection.
        let (mut slow, mut connections) = (Consumer { bookmark, ..Default::default() }, 0);
        while !slow.follow(&mut node.watcher(&slow.bookmark, false).unwrap(), now, 1).unwrap() {
            connections += 1;
        }
        assert_eq!((slow.told, connections, &slow.list), (100, 99, &node.list(now)));
        drop(watcher);
        node.end().await;
    }

    /// More than is looked at under one hold of the lock, and more than is looked up one by one.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_long_list_is_told_in_pieces() {
        let mut node = Node::start(TestForum::of(&MEMBERS));
        let now = clock::now();
        let mut quiet = node.watcher("", false).unwrap();
        assert!(matches!(quiet.step(now).unwrap(), Step::Level(_)));
        let long = |n: u64| {
            opinion_with(1, 1, |o| {
                let digest = sha256(&[&n.to_be_bytes()]);
                o.subject = Some(Subject::of(Alg::Sha256, &digest).to_proto());
                o.expires_ms = now.0 + 10 * MINUTE_MS;
            })
        };
        let count = SCAN_MAX as u64 + 500;
        for first in (0..count).step_by(500) {
            let records: Vec<_> = (first..count.min(first + 500)).map(long).collect();
            node.say_in(2, 0, &records).await;
        }
        let mut consumer = Consumer::default();
        consumer.anew(&node, now);
        assert_eq!(consumer.list.len() as u64, count);
        let mut other = Consumer::default();
        assert!(other.follow(&mut quiet, now, usize::MAX).unwrap());
        assert_eq!((other.told as u64, &other.list), (count, &consumer.list));
        // All of them end at one moment.
        let mut watcher = node.watcher(&consumer.bookmark, false).unwrap();
        assert!(consumer.follow(&mut watcher, now.plus(10 * MINUTE_MS), 100).is_ok_and(|level| !level));
        watcher = node.watcher(&consumer.bookmark, false).unwrap();
        assert!(consumer.follow(&mut watcher, now.plus(11 * MINUTE_MS), usize::MAX).unwrap());
        assert_eq!((consumer.told as u64, consumer.list.len()), (2 * count, 0));
        drop((watcher, quiet));
        node.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_bookmark_is_of_the_forum_and_holds_where_its_blocks_are() {
        let mut node = Node::start(TestForum::of(&MEMBERS));
        let now = clock::now();
        let blocks = [opinion(1, 1), opinion(2, 1)];
        node.say(2, blocks[0].clone()).await;
        let mut consumer = Consumer::default();
        consumer.anew(&node, now);
        node.say(2, blocks[1].clone()).await;

        // A second node of the company, which has heard the same, goes on where the first one was left.
        let mut second = Node::start(node.forum.clone());
        second.time = node.time.plus(0);
        let mut behind = second.watcher(&consumer.bookmark, false).unwrap();
        let refused = behind.step(now).err().unwrap();
        assert_eq!(refused.code(), Code::OutOfRange);
        assert!(refused.message().contains("has not taken in 1 logs"), "{}", refused.message());
        second.time = TimeMs(node.time.0 - 2);
        for record in blocks {
            second.say(2, record).await;
        }
        assert!(consumer.follow(&mut second.watcher(&consumer.bookmark, false).unwrap(), now, usize::MAX).unwrap());
        assert_eq!((consumer.told, &consumer.list), (2, &second.list(now)));

        // Other blocks in the same places, and another forum.
        let mut third = Node::start(node.forum.clone());
        third.say(2, opinion(9, 1)).await;
        third.say(2, opinion(8, 1)).await;
        let refused = third.watcher(&consumer.bookmark, false).unwrap().step(now).err().unwrap();
        assert!(refused.message().contains("counts other blocks"), "{}", refused.message());
        let fourth = Node::start(TestForum::of_full(3));
        let refused = fourth.watcher(&consumer.bookmark, false).unwrap().step(now).err().unwrap();
        assert!(refused.message().contains("another forum"), "{}", refused.message());

        for damaged in [
            "x".to_owned(),
            consumer.bookmark[1..].to_owned(),
            format!("{}A", consumer.bookmark),
            "A".repeat(BOOKMARK_BYTES_MAX + 1),
        ] {
            assert_eq!(Bookmark::parse(&damaged).unwrap_err().code(), Code::InvalidArgument, "{damaged:.20}");
        }
        let both = l::WatchRequest { bookmark: consumer.bookmark, list: true, ..Default::default() };
        assert_eq!(Watcher::new(node.shared(), &both).err().unwrap().code(), Code::InvalidArgument);
        for node in [node, second, third, fourth] {
            node.end().await;
        }
    }

    /// Records of a lower log that come later push those of a higher one over the quota, whomever they speak of.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_quota_that_is_counted_anew_ends_a_watch() {
        let mut node =
            Node::start(TestForum::with(&MEMBERS, |c| c.policy.as_mut().unwrap().quota_per_day = vec![4; 3]));
        let now = clock::now();
        node.say_in(2, 0, &[]).await;
        node.say_in(2, 1, &[opinion(1, 1), opinion(2, 1)]).await;
        let mut consumer = Consumer::default();
        consumer.anew(&node, now);
        assert_eq!(consumer.list.len(), 2);
        let mut watcher = node.watcher(&consumer.bookmark, false).unwrap();
        node.say_in(2, 0, &[opinion(3, 1), opinion(4, 1)]).await;
        assert!(!node.list(now).contains_key(&Bytes::from(subject(2).id().0.to_vec())), "pushed out");
        for mut watcher in [watcher, node.watcher(&consumer.bookmark, false).unwrap()] {
            let refused = watcher.step(now).err().unwrap();
            assert!(refused.message().contains("beyond its quota"), "{}", refused.message());
        }
        consumer.anew(&node, now);
        watcher = node.watcher(&consumer.bookmark, false).unwrap();
        node.say_in(2, 1, &[opinion(5, 4)]).await;
        assert!(
            consumer.follow(&mut watcher, now, usize::MAX).unwrap(),
            "in the order of the logs nothing is pushed out"
        );
        assert_eq!(consumer.list, node.list(now));
        drop(watcher);
        node.end().await;
    }

    fn producer(node: &Node, ahead: usize, patience: Duration) -> (Producer, mpsc::Receiver<l::WatchEvent>) {
        let (events, receiver) = mpsc::channel(ahead);
        let published = node.engine().shared().published();
        (Producer { published, events, patience, next_tick: None, streams: Streams::default() }, receiver)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_does_not_read_is_cut_off_and_goes_on_from_its_bookmark() {
        let mut node = Node::start(TestForum::of(&MEMBERS));
        let records: Vec<_> = (0..50).map(|about| opinion(about, 1)).collect();
        node.say_in(2, 0, &records).await;
        let (producer, receiver) = producer(&node, 8, Duration::from_millis(20));
        let ended = producer.run(node.watcher("", true).unwrap()).await.unwrap();
        assert_eq!(
            (ended.code(), ended.metadata().get(REASON).unwrap().to_str().unwrap()),
            (Code::ResourceExhausted, "SLOW")
        );
        let (farewell, parted) = oneshot::channel();
        farewell.send(ended).unwrap();
        let told: Vec<_> = ended_with(receiver, parted).collect().await;
        assert_eq!(told.len(), 8 + 1, "what was there, and why there is no more");
        let mut consumer = Consumer::default();
        for event in told.into_iter().filter_map(Result::ok) {
            consumer.take(event);
        }
        assert!(
            consumer.follow(&mut node.watcher(&consumer.bookmark, false).unwrap(), clock::now(), usize::MAX).unwrap()
        );
        assert_eq!((consumer.told, consumer.list), (50, node.list(clock::now())));
        node.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn watches_are_few_wake_up_by_themselves_and_end_with_the_node() {
        let mut node = Node::start(TestForum::of(&MEMBERS));
        let (stop, stopped) = watch::channel(false);
        let service = LocalService::new(node.engine().clone(), settings(1), String::new(), BTreeMap::new());
        let service = service.with_stop(stopped);
        let ask = async |request: l::WatchRequest| service.watch(Request::new(request)).await.map(|r| r.into_inner());
        let mut open = Vec::new();
        for _ in 0..WATCHES_MAX {
            open.push(ask(l::WatchRequest::default()).await.unwrap());
        }
        let refused = ask(l::WatchRequest::default()).await.err().unwrap();
        assert_eq!(refused.metadata().get(REASON).unwrap(), "STREAMS");
        let unknown = l::WatchRequest { r#type: "sha-256".into(), ..Default::default() };
        open.pop();
        let begun = clock::instant();
        // A place is free when the watch before it has noticed.
        let refused = loop {
            let refused = ask(unknown.clone()).await.err().unwrap();
            if refused.code() != Code::ResourceExhausted || begun.elapsed() > DEADLINE {
                break refused;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(refused.code(), Code::InvalidArgument);

        let next = async |events: &mut Events| tokio::time::timeout(DEADLINE, events.next()).await.unwrap().unwrap();
        for events in &mut open {
            let first = next(events).await.unwrap();
            assert!(first.entry.is_none() && !first.bookmark.is_empty(), "where it stands is told at once");
        }
        node.say(2, opinion(1, 1)).await;
        for events in &mut open {
            assert_eq!(next(events).await.unwrap().change(), l::Change::Said);
        }
        stop.send_replace(true);
        for events in &mut open {
            let ended = next(events).await.unwrap_err();
            assert_eq!(
                (ended.code(), ended.metadata().get(REASON).unwrap().to_str().unwrap()),
                (Code::Unavailable, "DRAINING")
            );
            assert!(events.next().await.is_none());
        }
        drop((open, service));
        node.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_filter_by_type_leaves_the_rest_out() {
        let mut node = Node::start(TestForum::of(&MEMBERS));
        let md5 = Subject::of(Alg::Md5, &[7; 16]).to_proto();
        node.say_in(2, 0, &[opinion(1, 1), opinion_with(1, 1, |o| o.subject = Some(md5))]).await;
        let request = l::WatchRequest { r#type: "md5".into(), list: true, ..Default::default() };
        let mut consumer = Consumer::default();
        let mut watcher = Watcher::new(node.shared(), &request).unwrap();
        assert!(consumer.follow(&mut watcher, clock::now(), usize::MAX).unwrap());
        let types: Vec<_> = consumer.list.values().map(|e| e.signal.clone().unwrap().r#type).collect();
        assert_eq!(types, ["md5"]);
        drop(watcher);
        node.end().await;
    }
}
