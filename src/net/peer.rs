//! The peer service: what other members' nodes may ask. Convert, ask, convert; nothing is decided here.
//!
//! Every RPC looks the caller up in the roster again, and every stream with every item and whenever the roster changes:
//! a connection that outlived its membership gets nothing (I12).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use governor::DefaultKeyedRateLimiter;
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status, Streaming};

use super::limits::{self, TICK};
use super::status::{of_store, of_wire, refuse};
use super::tls::{Connections, PeerIdentity, SharedRoster};
use crate::clock;
use crate::engine::{Handle, Shared};
use crate::replica::Input;
use crate::replica::block::Frame;
use crate::replica::charter::MemberStatus;
use crate::replica::exchange::{BACKOFF_MIN_MS, Feed, Greeting, HEADERS_MAX, PeerEvent, Published};
use crate::replica::heads::{Have, origin_from_proto};
use crate::replica::ids::{BlockId, MemberId, Pin, Seq, TimeMs};
use crate::replica::proto::{self, pull_reply::Item};
use crate::wire::peer as wire;
use crate::wire::peer_service::peer_server::Peer;

/// Charters that a caller is told while it is sent away: it was told all but the last, or had not begun to listen.
const CHARTERS_AT_PARTING_MAX: usize = 2;
/// Blocks that are read from the store at once; at most 4 MiB are then under way on a stream.
const READ_AHEAD: usize = 8;
/// How long a greeting waits for room in the engine's queue, to say that the peer is there: far below the patience of
/// whoever greets.
const CALLED_WAIT: Duration = Duration::from_millis(100);

/// The service; cheap to clone.
#[derive(Clone)]
pub struct PeerService {
    engine: Handle,
    who: Who,
    bytes: Arc<DefaultKeyedRateLimiter<Pin>>,
    stop: watch::Receiver<bool>,
}

/// Who may call, and who is connected.
#[derive(Clone)]
pub struct Who {
    /// Keys that may call at this moment.
    pub roster: SharedRoster,
    /// Moves after every new roster: streams look again then.
    pub changes: watch::Receiver<u64>,
    /// The connections that calls come over.
    pub connections: Connections,
}

impl PeerService {
    /// Serves what `engine` publishes to `who`; streams end when `stop` becomes true.
    pub fn new(engine: Handle, who: Who, stop: watch::Receiver<bool>) -> Self {
        Self { engine, who, bytes: Arc::new(limits::peer_bytes()), stop }
    }

    /// Who calls, if the charter still lists it, and speaks of our forum.
    fn caller<T>(&self, request: &Request<T>, forum: &[u8]) -> Result<Gate, Status> {
        let identity = request.extensions().get::<PeerIdentity>().copied();
        let identity = identity.ok_or_else(|| refuse(Code::Unauthenticated, "NO_PIN", "no certificate"))?;
        let (shared, roster) = (Arc::clone(self.engine.shared()), Arc::clone(&self.who.roster));
        let gate = Gate { identity, shared, roster, changes: self.who.changes.clone() };
        gate.check()?;
        let ours = self.engine.shared().replica().charters().forum();
        wire::check_forum(forum, ours).map_err(|e| of_wire(&e))?;
        Ok(gate)
    }

    /// Whoever greets us can be dialled: a member that regained its place need not wait until we try by ourselves.
    async fn called_by(&self, member: MemberId) {
        let waits = {
            let replica = self.engine.shared().replica();
            let soon = clock::now().plus(BACKOFF_MIN_MS);
            replica.exchanges().get(&member).is_some_and(|e| !e.is_connected() && e.retry_at() > soon)
        };
        if waits {
            // Worth no wait for an engine that is busy: the peer greets again.
            let told = self.engine.input(Input::Peer(member, PeerEvent::Called));
            drop(tokio::time::timeout(CALLED_WAIT, told).await);
        }
    }

    fn outgoing(&self, request: &Request<proto::PullRequest>, endless: bool) -> Result<Outgoing, Status> {
        let gate = self.caller(request, &request.get_ref().forum_id)?;
        let have = Have::from_proto(&request.get_ref().have).map_err(|e| of_wire(&e.into()))?;
        Ok(Outgoing {
            shared: Arc::clone(self.engine.shared()),
            gate,
            bytes: Arc::clone(&self.bytes),
            published: self.engine.shared().published(),
            feed: Feed::new(&have),
            queue: VecDeque::new(),
            charter_sent: request.get_ref().charter_version,
            proofs_sent: BTreeSet::new(),
            next_tick: Instant::from_std(clock::instant()),
            stop: self.stop.clone(),
            endless,
            ended: false,
            farewell: None,
        })
    }
}

/// Whether a caller still belongs. Whoever is answered step by step is looked up again at every step.
#[derive(Clone)]
struct Gate {
    identity: PeerIdentity,
    shared: Arc<Shared>,
    roster: SharedRoster,
    changes: watch::Receiver<u64>,
}

impl Gate {
    fn check(&self) -> Result<(), Status> {
        let PeerIdentity { pin, member, .. } = self.identity;
        if self.roster.load().member_of(&pin) == Some(member) {
            return Ok(());
        }
        // A charter that names the key without listing it has suspended its member.
        let replica = self.shared.replica();
        let charter = replica.charters().effective();
        let named = charter.member(member).is_some_and(|m| m.status != MemberStatus::Former && m.pins.contains(&pin));
        let version = charter.version;
        let by_steward = replica.suspended(member).filter(|_| named);
        Err(if let Some(until) = by_steward {
            let hours = until.since(clock::now()).div_ceil(TimeMs::HOUR_MS);
            let what = format!("this member is suspended by a steward for another {hours} h");
            refuse(Code::PermissionDenied, "SUSPENDED", what)
        } else if named {
            refuse(Code::PermissionDenied, "SUSPENDED", format!("this member is suspended (charter {version})"))
        } else {
            refuse(Code::PermissionDenied, "NOT_MEMBER", format!("charter {version} does not list this key"))
        })
    }

    /// Waits until the caller does not belong any more.
    async fn shut(mut self) -> Status {
        loop {
            self.changes.mark_unchanged();
            if let Err(status) = self.check() {
                return status;
            }
            if self.changes.changed().await.is_err() {
                std::future::pending::<()>().await; // the node stops: it ends the connections itself
            }
        }
    }

    fn guarded<T: Send + 'static>(self, items: Vec<T>) -> Items<T> {
        stream::iter(items).map(move |item| self.check().map(|()| item)).boxed()
    }
}

/// The items of one stream.
type Items<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl Peer for PeerService {
    type GetChartersStream = Items<proto::SignedCharter>;
    type GetProofsStream = Items<proto::Proof>;
    type GetHeadersStream = Items<proto::SignedHeader>;
    type PullStream = Items<proto::PullReply>;
    type FollowStream = Items<proto::PullReply>;
    type PushStream = Items<proto::PushCredit>;

    async fn hello(&self, request: Request<proto::HelloRequest>) -> Result<Response<proto::HelloReply>, Status> {
        let gate = self.caller(&request, &request.get_ref().forum_id)?;
        let forum = self.engine.shared().replica().charters().forum();
        wire::check_hello(request.get_ref(), forum).map_err(|e| of_wire(&e))?;
        let second_copy = self.who.connections.greeted(&gate.identity, request.get_ref().instance);
        self.called_by(gate.identity.member).await;
        let replica = self.engine.shared().replica();
        let greeting = Greeting { second_copy, ..replica.greeting(clock::now()) };
        Ok(Response::new(wire::hello_reply(replica.charters().forum(), &greeting)))
    }

    async fn get_charters(
        &self,
        request: Request<proto::ChartersRequest>,
    ) -> Result<Response<Self::GetChartersStream>, Status> {
        let gate = self.caller(&request, &request.get_ref().forum_id)?;
        let replica = self.engine.shared().replica();
        let charters: Vec<_> = replica.charters_from(request.get_ref().from_version).cloned().collect();
        Ok(Response::new(gate.guarded(charters)))
    }

    async fn get_proofs(
        &self,
        request: Request<proto::ProofsRequest>,
    ) -> Result<Response<Self::GetProofsStream>, Status> {
        let gate = self.caller(&request, &request.get_ref().forum_id)?;
        let have = request.get_ref().have.iter().filter_map(|hash| hash[..].try_into().ok()).collect();
        let proofs = self.engine.shared().replica().proofs_beyond(&have);
        Ok(Response::new(gate.guarded(proofs)))
    }

    async fn get_headers(
        &self,
        request: Request<proto::HeadersRequest>,
    ) -> Result<Response<Self::GetHeadersStream>, Status> {
        let gate = self.caller(&request, &request.get_ref().forum_id)?;
        let wanted = request.into_inner();
        let shared = Arc::clone(self.engine.shared());
        let headers = tokio::task::spawn_blocking(move || headers(&shared, &wanted)).await;
        let headers = headers.map_err(|_panicked| refuse(Code::Internal, "BUG", "please report"))??;
        Ok(Response::new(gate.guarded(headers)))
    }

    async fn get_taxonomy(
        &self,
        request: Request<proto::TaxonomyRequest>,
    ) -> Result<Response<proto::TaxonomyReply>, Status> {
        let gate = self.caller(&request, &request.get_ref().forum_id)?;
        let file = self.engine.shared().taxonomies().file(&request.get_ref().sha256);
        let file = file.ok_or_else(|| refuse(Code::NotFound, "NOT_FOUND", "this node has no taxonomy of that hash"))?;
        if let Some(size) = u32::try_from(file.len()).ok().and_then(std::num::NonZeroU32::new) {
            // A file is far below the burst, so there is always room in the end.
            let _always_room = self.bytes.until_key_n_ready(&gate.identity.pin, size).await;
        }
        gate.check()?;
        Ok(Response::new(proto::TaxonomyReply { file }))
    }

    async fn pull(&self, request: Request<proto::PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        Ok(Response::new(self.outgoing(&request, false)?.into_stream()))
    }

    async fn follow(&self, request: Request<proto::PullRequest>) -> Result<Response<Self::FollowStream>, Status> {
        Ok(Response::new(self.outgoing(&request, true)?.into_stream()))
    }

    async fn push(
        &self,
        _request: Request<Streaming<proto::PushRequest>>,
    ) -> Result<Response<Self::PushStream>, Status> {
        Err(Status::unimplemented("Push comes in a later release"))
    }
}

/// Headers of one log, as far as they are published.
fn headers(shared: &Shared, wanted: &proto::HeadersRequest) -> Result<Vec<proto::SignedHeader>, Status> {
    let origin = wanted.origin.as_ref().and_then(origin_from_proto);
    let origin = origin.ok_or_else(|| refuse(Code::InvalidArgument, "FRAME", "origin is missing"))?;
    let (opening, published) = {
        let replica = shared.replica();
        (replica.opening(origin).map(|o| o.message.clone()), replica.published())
    };
    let last = published.heads.get(&origin).map_or(Seq(0), |(_, head)| head.seq);
    let mut headers = Vec::new();
    for seq in (wanted.from_seq.max(1)..=wanted.to_seq.min(last.0)).take(HEADERS_MAX) {
        let Some(frame) = frame(shared, BlockId { origin, seq: Seq(seq) })? else { break };
        headers.push(proto::SignedHeader { header: frame.header, signature: frame.signature, open: opening.clone() });
    }
    Ok(headers)
}

fn frame(shared: &Shared, id: BlockId) -> Result<Option<proto::BlockFrame>, Status> {
    let bytes = shared.store().block(id).map_err(|e| of_store(&e))?;
    Ok(bytes.and_then(|bytes| Frame::decode(bytes.into()).ok()).map(|frame| frame.to_proto()))
}

/// What one peer pulls or follows. Nothing is buffered but what was read ahead; HTTP/2's windows are the back-pressure.
struct Outgoing {
    shared: Arc<Shared>,
    gate: Gate,
    bytes: Arc<DefaultKeyedRateLimiter<Pin>>,
    published: watch::Receiver<Arc<Published>>,
    feed: Feed,
    queue: VecDeque<proto::PullReply>,
    charter_sent: u64,
    proofs_sent: BTreeSet<[u8; 32]>,
    next_tick: Instant,
    stop: watch::Receiver<bool>,
    endless: bool,
    ended: bool,
    /// Why the caller is sent away, once it was told the last charters.
    farewell: Option<Status>,
}

impl Outgoing {
    fn into_stream(self) -> Items<proto::PullReply> {
        stream::unfold(self, |mut outgoing| async move { outgoing.next().await.map(|item| (item, outgoing)) }).boxed()
    }

    /// The next item, or the end. Whatever it waits for, a caller that leaves the roster ends it.
    async fn next(&mut self) -> Option<Result<proto::PullReply, Status>> {
        if self.farewell.is_some()
            && let Some(item) = self.queue.pop_front()
        {
            return Some(Ok(item));
        }
        if let Some(status) = self.farewell.take() {
            return Some(Err(status));
        }
        if self.ended && self.queue.is_empty() {
            return None;
        }
        let gate = self.gate.clone();
        tokio::select! {
            biased;
            status = gate.shut() => {
                self.part(status);
                self.queue.pop_front().map(Ok).or_else(|| self.farewell.take().map(Err))
            }
            item = self.produce() => item,
        }
    }

    /// The charter that ends a membership is the last thing that its member is told: else it would never hear of it.
    fn part(&mut self, status: Status) {
        let replica = self.shared.replica();
        let unknown = replica.charters_from(self.charter_sent + 1).take(CHARTERS_AT_PARTING_MAX);
        self.queue = unknown.cloned().map(|c| reply(Item::Charter(c))).collect();
        self.ended = true;
        self.farewell = Some(status);
    }

    async fn produce(&mut self) -> Option<Result<proto::PullReply, Status>> {
        loop {
            if let Some(item) = self.queue.pop_front() {
                let size = u32::try_from(item.encoded_len()).ok().and_then(std::num::NonZeroU32::new);
                if let Some(size) = size {
                    // An item is far below the burst, so there is always room in the end.
                    let _always_room = self.bytes.until_key_n_ready(&self.gate.identity.pin, size).await;
                }
                return Some(Ok(item));
            }
            if self.ended {
                return None;
            }
            if let Err(status) = self.refill().await {
                self.ended = true;
                return Some(Err(status));
            }
            if self.queue.is_empty() {
                self.rest().await;
            }
        }
    }

    /// Charters, proofs, then blocks by lane (PROTOCOL 6.2).
    async fn refill(&mut self) -> Result<(), Status> {
        let published = Arc::clone(&self.published.borrow_and_update());
        if published.charter_version > self.charter_sent {
            let replica = self.shared.replica();
            self.queue.extend(replica.charters_from(self.charter_sent + 1).cloned().map(|c| reply(Item::Charter(c))));
            self.charter_sent = published.charter_version;
        }
        for hash in &published.proofs {
            if self.proofs_sent.insert(*hash) {
                self.queue.extend(self.shared.replica().proof(hash).map(|p| reply(Item::Proof(p))));
            }
        }
        self.read_blocks(&published).await
    }

    async fn read_blocks(&mut self, published: &Arc<Published>) -> Result<(), Status> {
        let mut wanted = Vec::with_capacity(READ_AHEAD);
        while wanted.len() < READ_AHEAD
            && let Some(id) = self.feed.next(published)
        {
            wanted.push(id);
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let read =
            move || wanted.into_iter().map(|id| Ok((id, frame(&shared, id)?))).collect::<Result<Vec<_>, Status>>();
        let read = tokio::task::spawn_blocking(read)
            .await
            .map_err(|_panicked| refuse(Code::Internal, "BUG", "please report"))?;
        for (id, frame) in read? {
            let frame =
                frame.ok_or_else(|| refuse(Code::DataLoss, "STORE", format!("block {id} is not in the store")))?;
            let item = reply(Item::Block(frame));
            self.feed.sent_bytes(published, id, item.encoded_len() as u64);
            self.queue.push_back(item);
        }
        Ok(())
    }

    /// Nothing is waiting: end, or wait for more and give signs of life.
    async fn rest(&mut self) {
        if !self.endless {
            let have_digest = self.published.borrow().have().digest().to_vec().into();
            self.queue.push_back(reply(Item::Done(proto::Done { have_digest, more: false })));
            self.ended = true;
            return;
        }
        tokio::select! {
            changed = self.published.changed() => self.ended = changed.is_err(),
            // Draining: whoever follows us finds the end of the stream, and us again later.
            _stopping = self.stop.wait_for(|stop| *stop) => self.ended = true,
            () = tokio::time::sleep_until(self.next_tick) => {
                let pulse = self.shared.replica().pulse(clock::now());
                self.queue.push_back(reply(Item::Tick(wire::tick_to_proto(&pulse))));
                self.next_tick = Instant::from_std(clock::instant()) + TICK;
            }
        }
    }
}

fn reply(item: Item) -> proto::PullReply {
    proto::PullReply { item: Some(item) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine;
    use crate::replica::heads::origin_to_proto;
    use crate::replica::ids::Class;
    use crate::replica::signed::Keyring;
    use crate::replica::testing::{TestForum, id, opinion, settings};

    #[tokio::test(flavor = "multi_thread")]
    async fn at_most_256_headers_are_served_at_once_and_none_beyond_what_is_published() {
        assert_eq!(HEADERS_MAX, 256);
        let forum = TestForum::of_full(2);
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Handle::current();
        let (handle, _, thread) =
            engine::start(folder.path(), settings(1), forum.id, &forum.charters, runtime).unwrap();
        let mut ring: Keyring = forum.keyring();
        let mut log = forum.log(2, 0, Class::Normal);
        for n in 0..300_u16 {
            let block = log.block(&mut ring, &[opinion((n % 200) as u8 + 1, 1)]);
            handle.input(Input::Peer(id(2), PeerEvent::Block(Box::new(block)))).await.unwrap();
        }
        let all = |p: &Arc<Published>| p.have().seq(log.origin) == Seq(300);
        let mut published = handle.shared().published();
        tokio::time::timeout(Duration::from_secs(60), published.wait_for(all)).await.unwrap().unwrap();

        let served = |from_seq, to_seq| {
            let origin = Some(origin_to_proto(log.origin));
            let wanted = proto::HeadersRequest { origin, from_seq, to_seq, ..Default::default() };
            let served = headers(handle.shared(), &wanted).unwrap();
            served.iter().map(|h| ring.verify_header(h).unwrap().header().id.seq.0).collect::<Vec<_>>()
        };
        assert_eq!(served(1, u64::MAX), (1..=256).collect::<Vec<_>>());
        assert_eq!(served(0, 2), [1, 2]);
        assert_eq!(served(299, 400), [299, 300]);
        assert_eq!((served(301, 400), served(5, 4)), (vec![], vec![]));
        let nobodys = proto::HeadersRequest { from_seq: 1, to_seq: 9, ..Default::default() };
        assert_eq!(headers(handle.shared(), &nobodys).unwrap_err().code(), Code::InvalidArgument);
        handle.stop().await;
        thread.join().unwrap();
    }
}
