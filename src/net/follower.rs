//! Our side of each peer: carries out what the exchange asks for, verifies what comes, and hands it to the engine.
//!
//! Nothing is decided here and nothing is remembered: a conversation that breaks off begins again from what we hold.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tracing::Instrument as _;

use super::labels;
use super::limits::{self, CALL_TIMEOUT, MESSAGE_BYTES_MAX, SILENCE_MAX};
use super::request_id::RequestId;
use super::tls::{ConnectError, Connector, Tls};
use crate::clock;
use crate::engine::{Failed, Handle};
use crate::replica::Input;
use crate::replica::block::Frame;
use crate::replica::exchange::{Ask, Call, Exchange, PeerEvent, Trouble};
use crate::replica::heads::{Have, origin_to_proto};
use crate::replica::ids::{MemberId, Pin};
use crate::replica::proto::{self, pull_reply::Item};
use crate::replica::signed::{Keyring, Unverified};
use crate::wire::peer as wire;
use crate::wire::peer_service::peer_client::PeerClient;

/// Which peer, and where it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whom we expect there.
    pub member: MemberId,
    /// What people call it.
    pub name: String,
    /// `host:port`, tried in turn.
    pub endpoints: Vec<String>,
    /// Its keys: a follower of other keys is another follower, so that no connection outlives a key in the charter.
    pub pins: Vec<Pin>,
}

/// Follows one peer until dropped.
pub async fn follow(target: Target, engine: Handle, tls: Tls, mut asks: mpsc::Receiver<Ask>) {
    let mut follower = Follower { engine, tls, target, next_endpoint: 0, client: None };
    let mut calls = JoinSet::new();
    let mut under_way: BTreeMap<bool, AbortHandle> = BTreeMap::new();
    let mut fetching = JoinSet::new();
    let mut look = tokio::time::interval(labels::LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asks_again = clock::instant();
    loop {
        tokio::select! {
            ask = asks.recv() => match ask {
                None => return,
                Some(Ask::Hangup) => {
                    calls.abort_all();
                    under_way.clear();
                    follower.client = None;
                }
                Some(ask) => {
                    let endless = matches!(ask, Ask::Follow { .. });
                    let call = follower.call(ask);
                    under_way.insert(endless, calls.spawn(call));
                }
            },
            Some(_) = calls.join_next() => {}
            _ = look.tick(), if fetching.is_empty() => {
                if clock::instant() >= asks_again {
                    follower.fetch_taxonomy(&mut fetching);
                }
            }
            Some(_) = fetching.join_next() => asks_again = clock::instant() + labels::ASK_AGAIN,
        }
    }
}

struct Follower {
    engine: Handle,
    tls: Tls,
    target: Target,
    next_endpoint: usize,
    client: Option<PeerClient<Channel>>,
}

impl Follower {
    /// One call as a task of its own.
    fn call(&mut self, ask: Ask) -> impl Future<Output = ()> + Send + use<> {
        let client = self.client();
        let (engine, tls) = (self.engine.clone(), self.tls.clone());
        let (peer, name) = (self.target.member, self.target.name.clone());
        let id = RequestId::new();
        let span = tracing::error_span!("asks_peer", request_id = %id, call = called(&ask), peer = name);
        let call = async move {
            let kind = if matches!(ask, Ask::Follow { .. }) { Call::Follow } else { Call::Talk };
            let greets = ask == Ask::Greet;
            let incoming = Incoming { engine: engine.clone(), peer, ring: None };
            let outcome = match client {
                Some(client) => perform(client, ask, incoming, &id).await,
                None => Err(Stop::Trouble(Trouble::Unreachable(format!("no endpoint of {name} is known")))),
            };
            let ended = match outcome {
                Ok(()) if greets => return tracing::debug!("answered"), // the greeting itself was the end
                Ok(()) => {
                    tracing::debug!("answered");
                    Ok(())
                }
                Err(Stop::Engine) => return,
                // Not our member that was refused, only a key that we have replaced: the next one is tried soon.
                Err(Stop::Trouble(Trouble::Refused(why))) if tls.showed_an_old_key_to(peer) => {
                    Err(Trouble::Unreachable(format!("{why}; dialling again with this node's new key")))
                }
                Err(Stop::Trouble(trouble)) => {
                    tracing::debug!(?trouble, "call failed");
                    Err(trouble)
                }
            };
            drop(engine.input(Input::Peer(peer, PeerEvent::Ended(kind, ended))).await);
        };
        call.instrument(span)
    }

    /// Asks for the forum's taxonomy, if it is missing and nobody else asks. Only over a connection that is there:
    /// whom to dial, and when, is not decided here.
    fn fetch_taxonomy(&self, fetching: &mut JoinSet<bool>) {
        let shared = self.engine.shared();
        let Some(client) = self.client.clone().filter(|_| shared.taxonomies().wanted().is_some()) else { return };
        let is_connected = shared.replica().exchanges().get(&self.target.member).is_some_and(Exchange::is_connected);
        if is_connected && let Some(turn) = shared.taxonomies().turn() {
            fetching.spawn(labels::fetch(turn, Arc::clone(shared), client, self.target.name.clone()));
        }
    }

    /// The connection, made when it is first used. A new one tries the next endpoint.
    fn client(&mut self) -> Option<PeerClient<Channel>> {
        if self.client.is_none() && !self.target.endpoints.is_empty() {
            let address = &self.target.endpoints[self.next_endpoint % self.target.endpoints.len()];
            self.next_endpoint += 1;
            let connector = Connector::new(self.tls.clone(), self.target.member, &self.target.name, address);
            let channel = limits::endpoint().connect_with_connector_lazy(connector);
            self.client = Some(PeerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX));
        }
        self.client.clone()
    }
}

/// What the peer's service calls it.
fn called(ask: &Ask) -> &'static str {
    match ask {
        Ask::Greet => "Hello",
        Ask::Charters { .. } => "GetCharters",
        Ask::Proofs { .. } => "GetProofs",
        Ask::Headers { .. } => "GetHeaders",
        Ask::Pull { .. } => "Pull",
        Ask::Follow { .. } => "Follow",
        Ask::Hangup => "Hangup",
    }
}

/// Why a call stops before its end.
enum Stop {
    /// The engine is gone: so are we.
    Engine,
    Trouble(Trouble),
}

impl From<Failed> for Stop {
    fn from(_: Failed) -> Self {
        Self::Engine
    }
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Trouble(trouble(&status))
    }
}

/// Whose fault a failed call is (PROTOCOL section 14).
fn trouble(status: &Status) -> Trouble {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(connect) = ConnectError::find(error) {
            let text = match connect.fix() {
                Some(fix) => format!("{connect}; fix: {fix}"),
                None => connect.to_string(),
            };
            return match connect {
                ConnectError::Refused { .. } => Trouble::Refused(text),
                _ => Trouble::Unreachable(text),
            };
        }
        cause = error.source();
    }
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition => {
            Trouble::Refused(status.message().into())
        }
        Code::OutOfRange => Trouble::Nonsense(format!("sent a message beyond our limits: {}", status.message())),
        _ => Trouble::Unreachable(format!("{}: {}", status.code(), status.message())),
    }
}

fn nonsense(why: impl std::fmt::Display) -> Stop {
    Stop::Trouble(Trouble::Nonsense(why.to_string()))
}

async fn within<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Stop> {
    let late = || Stop::Trouble(Trouble::Unreachable(format!("no answer within {} s", CALL_TIMEOUT.as_secs())));
    Ok(timeout(CALL_TIMEOUT, call).await.map_err(|_elapsed| late())??)
}

async fn perform(
    mut client: PeerClient<Channel>,
    ask: Ask,
    mut incoming: Incoming,
    id: &RequestId,
) -> Result<(), Stop> {
    let (forum, charter_version, hello) = {
        let replica = incoming.engine.shared().replica();
        let forum = replica.charters().forum();
        (forum, replica.charters().version(), wire::hello(forum, &replica.greeting(clock::now())))
    };
    let forum_id = hello.forum_id.clone();
    match ask {
        Ask::Greet => {
            let reply = within(client.hello(id.asks(hello))).await?.into_inner();
            let greeting = wire::greeting(&reply, forum).map_err(nonsense)?;
            incoming.event(PeerEvent::Greeted(greeting)).await
        }
        Ask::Charters { from } => {
            let request = proto::ChartersRequest { forum_id, from_version: from };
            let mut stream = within(client.get_charters(id.asks(request))).await?.into_inner();
            while let Some(charter) = heard(&mut stream).await? {
                incoming.event(PeerEvent::Charter(charter)).await?;
            }
            Ok(())
        }
        Ask::Proofs { have } => {
            let have = have.iter().map(|hash| hash.to_vec().into()).collect();
            let request = id.asks(proto::ProofsRequest { forum_id, have });
            let mut stream = within(client.get_proofs(request)).await?.into_inner();
            while let Some(proof) = heard(&mut stream).await? {
                incoming.event(PeerEvent::Proof(Box::new(proof))).await?;
            }
            Ok(())
        }
        Ask::Headers { origin, from, to } => {
            let request = proto::HeadersRequest {
                forum_id,
                origin: Some(origin_to_proto(origin)),
                from_seq: from.0,
                to_seq: to.0,
            };
            let mut stream = within(client.get_headers(id.asks(request))).await?.into_inner();
            while let Some(header) = heard(&mut stream).await? {
                let ring = incoming.engine.shared().replica().keyring();
                let header = ring.verify_header(&header).map_err(|why| {
                    let text = why.to_string();
                    // A member that our charter does not list yet is nobody's fault.
                    if why.is_senders_fault() { nonsense(text) } else { Stop::Trouble(Trouble::Unreachable(text)) }
                })?;
                incoming.event(PeerEvent::Header(Box::new(header))).await?;
            }
            Ok(())
        }
        Ask::Pull { have } => {
            let request = pull_request(forum_id, charter_version, &have);
            let stream = within(client.pull(id.asks(request))).await?.into_inner();
            incoming.items(stream).await
        }
        Ask::Follow { have } => {
            let request = pull_request(forum_id, charter_version, &have);
            let stream = within(client.follow(id.asks(request))).await?.into_inner();
            incoming.items(stream).await
        }
        Ask::Hangup => Ok(()),
    }
}

fn pull_request(forum_id: bytes::Bytes, charter_version: u64, have: &Have) -> proto::PullRequest {
    proto::PullRequest { forum_id, charter_version, have: have.to_proto(), max_bytes: 0 }
}

/// The next message of a stream; a stream on which nothing is heard has ended.
async fn heard<T>(stream: &mut Streaming<T>) -> Result<Option<T>, Stop> {
    match timeout(SILENCE_MAX, stream.message()).await {
        Ok(message) => Ok(message?),
        Err(_elapsed) => Err(Stop::Trouble(Trouble::Unreachable(format!("silent for {} s", SILENCE_MAX.as_secs())))),
    }
}

/// What comes from one peer on one call.
struct Incoming {
    engine: Handle,
    peer: MemberId,
    /// The keyring, with the openings that came on this stream and that the engine has not counted yet.
    ring: Option<Arc<Keyring>>,
}

impl Incoming {
    async fn event(&self, event: PeerEvent) -> Result<(), Stop> {
        Ok(self.engine.input(Input::Peer(self.peer, event)).await?)
    }

    async fn items(&mut self, mut stream: Streaming<proto::PullReply>) -> Result<(), Stop> {
        while let Some(reply) = heard(&mut stream).await? {
            let event = match reply.item {
                Some(Item::Block(frame)) => self.verify(frame),
                Some(Item::Tick(tick)) => PeerEvent::Tick(wire::tick(&tick).map_err(nonsense)?),
                Some(Item::Done(done)) => {
                    PeerEvent::Done(done.have_digest[..].try_into().map_err(|_wrong| nonsense("Done without digest"))?)
                }
                Some(Item::Proof(proof)) => PeerEvent::Proof(Box::new(proof)),
                Some(Item::Charter(charter)) => PeerEvent::Charter(charter),
                None => return Err(nonsense("sent an empty item")),
            };
            self.event(event).await?;
        }
        Ok(())
    }

    /// Verifies a block here, on the runtime's workers, so that the engine only folds.
    fn verify(&mut self, frame: proto::BlockFrame) -> PeerEvent {
        let frame = match Frame::from_proto(frame) {
            Ok(frame) => frame,
            Err(error) => return PeerEvent::Unverified(error.into()),
        };
        let ring = self.ring.get_or_insert_with(|| self.engine.shared().replica().keyring());
        let mut verified = ring.verify(frame.clone());
        if matches!(verified, Err(Unverified::UnknownLog(_) | Unverified::UnknownMember(_))) {
            // Another stream or a newer charter may have taught the engine more since.
            let ours = self.engine.shared().replica().keyring();
            Arc::make_mut(ring).merge(&ours);
            verified = ring.verify(frame);
        }
        match verified {
            Ok(block) => {
                if block.opening().is_some() {
                    Arc::make_mut(ring).learn(&block);
                }
                PeerEvent::Block(Box::new(block))
            }
            Err(why) => PeerEvent::Unverified(why),
        }
    }
}
