//! Nodes, an invented clock, disks that forget what was not flushed, and a network that encodes and decodes for real.
//!
//! A node here does what the engine and the follower do around a replica, and nothing else: it carries out effects in
//! their order, flushes, says so, and turns bytes from peers into events.

mod look;
mod steps;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use bytes::Bytes;
use prost::Message;
use staydown::replica::block::{Frame, Slot};
use staydown::replica::charter::SEMANTICS_MAX;
use staydown::replica::exchange::{Ask, Call, Draw, Feed, Greeting, PeerEvent, Published, Tick, Trouble};
use staydown::replica::heads::{Have, head_to_proto, origin_from_proto, origin_to_proto};
use staydown::replica::ids::{BlockId, CharterHash, Class, Head, LogNo, MemberId, Origin, Seq, TimeMs};
use staydown::replica::own::{Answer, Ticket};
use staydown::replica::signed::{Keyring, Unverified, VerifiedBlock};
use staydown::replica::wrong::{Rules, WrongRule};
use staydown::replica::{Alarm, Effect, Input, Replica, Restore, Settings, Write, proto};

use crate::checkers::{self, Block, Hash, LogId, Shown, Violation};
use crate::faults::{Liar, Plan, Step, proof_name};
use crate::forum::{self, Company, Forum, company, number_of};

/// Between a node's looks at the clock.
const TIMER_MS: u64 = 1_000;
/// Between signs of life on a stream (PROTOCOL 6.2).
const TICK_MS: u64 = 15_000;
/// Times that stored blocks are read in a row to derive the list, as the engine does.
const REBUILDS_MAX: usize = 4;
/// Blocks on a stream at once (PROTOCOL 6.4).
const FRAMES_IN_FLIGHT: usize = 16;
/// I21: two repair periods, the longest back-off with its jitter, the farthest hold, and time to transfer.
const COME_TOGETHER_MS: u64 = 2 * 45_000 + 450_000 + 600_000 + 60_000;

/// What survives: the store by key, and the own journal; `None` is a damaged frame.
#[derive(Clone, Default)]
struct Disk {
    charters: BTreeMap<u64, Bytes>,
    proofs: BTreeMap<[u8; 32], Bytes>,
    blocks: BTreeMap<BlockId, Bytes>,
    outbox: BTreeMap<u64, Bytes>,
    journal: Vec<Option<Bytes>>,
}

impl Disk {
    fn put(&mut self, put: &Put) {
        match put {
            Put::Journal(bytes) => self.journal.push(Some(bytes.clone())),
            Put::Store(Write::Block(id, bytes)) => drop(self.blocks.insert(*id, bytes.clone())),
            Put::Store(Write::Charter(version, bytes)) => drop(self.charters.insert(*version, bytes.clone())),
            Put::Store(Write::Proof(hash, bytes)) => drop(self.proofs.insert(*hash, bytes.clone())),
            Put::Store(Write::DropProof(hash)) => drop(self.proofs.remove(hash)),
            Put::Store(Write::Outbox(id, bytes)) => drop(self.outbox.insert(*id, bytes.clone())),
            Put::Store(Write::DropOutbox(id)) => drop(self.outbox.remove(id)),
        }
    }
}

/// A write that is not flushed.
#[derive(Clone)]
enum Put {
    Journal(Bytes),
    Store(Write),
}

/// Our calls to one peer.
#[derive(Default)]
struct Line {
    generation: u64,
    talking: bool,
    following: bool,
}

/// What never goes back (I9).
#[derive(Default)]
struct Watermark {
    charter: u64,
    forks: BTreeMap<LogId, u64>,
    heads: BTreeMap<Origin, Head>,
}

struct Node {
    /// Number of its company. A copy of a node has the same.
    who: usize,
    liar: Option<Liar>,
    /// The highest semantics level of its release.
    semantics_max: u32,
    /// The disk is a copy as far as its files tell.
    moved: bool,
    /// Its logs below this number were left behind when it was moved.
    closed_below: LogNo,
    /// Shut down for good.
    gone: bool,
    /// Which of its company's root keys it runs with, and the seed of its logs' keys.
    root: usize,
    log_seed: [u8; 32],
    replica: Option<Replica>,
    incarnation: u64,
    disk: Disk,
    /// Unflushed writes, each with the number of the input that made it: one batch.
    pending: Vec<(u64, Put)>,
    batch: u64,
    flush_due: bool,
    skew: i64,
    /// When its clock was last set.
    set_at: u64,
    invite: usize,
    lines: BTreeMap<usize, Line>,
    /// Who greeted it since it started, and in which life.
    greeted: BTreeMap<usize, u64>,
    mark: Watermark,
    acked: Vec<(BlockId, u32, Bytes)>,
    queued: Vec<Bytes>,
    outbox_refused: bool,
    /// Its journal does not have all that it ever signed.
    journal_lost: bool,
    /// Blocks that were lost with a disk: only their return is promised.
    lost: BTreeMap<Hash, BlockId>,
    backup: Option<Disk>,
}

/// A server's side of `Follow`.
struct Stream {
    server: usize,
    client: usize,
    server_incarnation: u64,
    client_incarnation: u64,
    generation: u64,
    feed: Feed,
    /// For liars' streams.
    sent: BTreeMap<Origin, u64>,
    proofs: BTreeSet<[u8; 32]>,
    charter: u64,
    last_at: u64,
    pump_due: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Hello,
    Charters,
    Proofs,
    Headers,
    Pull,
    Follow,
}

impl Method {
    fn call(self) -> Call {
        if self == Self::Follow { Call::Follow } else { Call::Talk }
    }
}

/// Who waits for an answer: node, its life, and the generation of its line.
#[derive(Clone, Copy)]
struct Caller {
    node: usize,
    incarnation: u64,
    generation: u64,
}

enum Event {
    Timer(usize, u64),
    Seal(usize, u64),
    Flush(usize, u64),
    Request(Caller, usize, Method, Bytes),
    Reply(Caller, usize, Method, Vec<Bytes>, Option<Result<(), Trouble>>),
    Pump(u64, bool),
    Step(usize),
    Rekey(usize, u64),
    Rejoin,
    Look,
}

/// Why what a peer sent is no event.
enum Misread {
    Bytes(String),
    Unverified(Unverified),
}

impl From<String> for Misread {
    fn from(why: String) -> Self {
        Self::Bytes(why)
    }
}

impl From<&str> for Misread {
    fn from(why: &str) -> Self {
        Self::Bytes(why.to_owned())
    }
}

/// Bytes of a block, and what the checkers make of them.
type Looked = (Bytes, Option<Rc<Block>>);
type ViewKey = (Hash, Vec<(LogId, u64)>, [u8; 32], Hash, u64);

/// One simulated forum.
pub(crate) struct World {
    now: u64,
    plan: Plan,
    draw: Draw,
    queue: BTreeMap<(u64, u64), Event>,
    order: u64,
    forum: Forum,
    nodes: Vec<Node>,
    streams: BTreeMap<u64, Stream>,
    islands: Vec<u64>,
    rule: Option<WrongRule>,
    /// Logs of honest members whose key somebody else has, too, and what was written with it.
    stolen: BTreeSet<LogId>,
    forged: HashSet<Hash>,
    healed_at: Option<u64>,
    together: bool,
    tickets: BTreeMap<Ticket, (usize, Vec<Bytes>)>,
    /// Logs being closed, with the seed of what follows; and what is said again.
    closing: BTreeMap<Ticket, (usize, Option<[u8; 32]>)>,
    next_ticket: u64,
    /// Frames of honest members that were on the wire.
    wire: Vec<Bytes>,
    sent: HashSet<Hash>,
    verified: HashMap<(Bytes, u64), VerifiedBlock>,
    blocks: HashMap<Bytes, Option<Rc<Block>>>,
    /// I11: the author's bytes, by header hash.
    authored: HashMap<Hash, Bytes>,
    /// I5: what an honest member signed for a place, under one root key: of a log that a replaced one opened, nobody
    /// has to know.
    signed: BTreeMap<((LogId, Hash), u64), Hash>,
    /// W8: the highest place that an honest member attested of a log.
    attested: BTreeMap<([u8; 16], LogId), (u64, Hash)>,
    /// Which root key opened the log of a header.
    roots: HashMap<Hash, Hash>,
    authentic: HashSet<Hash>,
    accusations: HashMap<[u8; 32], Option<(LogId, u64, bool)>>,
    charters: HashMap<Bytes, (Hash, Rc<proto::Charter>)>,
    /// The same by address, which is faster; what is named here stays alive, so no address comes twice.
    blocks_at: HashMap<(usize, usize), Looked>,
    charters_at: HashMap<(usize, usize), (Bytes, Hash, Rc<proto::Charter>)>,
    /// The version that a stored proof says is forked.
    forked_versions: HashMap<Hash, Option<u64>>,
    shown: BTreeMap<ViewKey, Rc<Shown>>,
    /// I14 and I15: the last status that was shown for a subject, and all that it may depend on.
    violation: Option<Violation>,
    pub(crate) tally: BTreeMap<&'static str, u64>,
}

/// Runs the schedule of a seed, with at most one wrong rule.
pub(crate) fn run(seed: u64, rule: Option<WrongRule>) -> Result<BTreeMap<&'static str, u64>, Violation> {
    let mut world = World::new(seed, rule);
    world.live()?;
    world.last_look()?;
    Ok(world.tally)
}

impl World {
    fn new(seed: u64, rule: Option<WrongRule>) -> Self {
        let mut draw = Draw(seed.wrapping_mul(0xd134_2543_de82_ef95));
        let plan = Plan::of(&mut draw);
        // A voter contradicts itself only where a stolen key wrote another chain: looked for where that happens.
        let plan = if rule == Some(WrongRule::AttestAnyChain) { plan.with_thieves() } else { plan };
        let mut roles: Vec<_> = (0..plan.members).map(|_| some_roles(&mut draw)).collect();
        roles[0] = forum::FULL;
        roles[1] = forum::FULL;
        let groups: Vec<_> = (0..plan.members).map(|i| if i > 2 && draw.below(5) == 0 { i - 1 } else { i }).collect();
        let forum = Forum::found(&roles, &groups, plan.quota, plan.semantics, plan.start - 1);
        let mut world = Self {
            now: plan.start,
            draw,
            queue: BTreeMap::new(),
            order: 0,
            forum,
            nodes: Vec::new(),
            streams: BTreeMap::new(),
            islands: Vec::new(),
            rule,
            stolen: BTreeSet::new(),
            forged: HashSet::new(),
            healed_at: None,
            together: false,
            tickets: BTreeMap::new(),
            closing: BTreeMap::new(),
            next_ticket: 0,
            wire: Vec::new(),
            sent: HashSet::new(),
            verified: HashMap::new(),
            blocks: HashMap::new(),
            authored: HashMap::new(),
            signed: BTreeMap::new(),
            attested: BTreeMap::new(),
            roots: HashMap::new(),
            authentic: HashSet::new(),
            accusations: HashMap::new(),
            charters: HashMap::new(),
            blocks_at: HashMap::new(),
            charters_at: HashMap::new(),
            forked_versions: HashMap::new(),
            shown: BTreeMap::new(),
            violation: None,
            tally: BTreeMap::new(),
            plan,
        };
        for number in 0..world.plan.members {
            let lies = number >= world.plan.members - world.plan.liars;
            world.arrive(number, lies);
        }
        let first = world.now + 3_000;
        world.at(first, Event::Step(0));
        world
    }

    /// A company's node comes into being.
    fn arrive(&mut self, number: usize, lies: bool) {
        let node = self.new_node(number, lies);
        self.nodes.push(node);
        self.islands.push(0);
        if !lies {
            self.start(number);
        }
    }

    fn new_node(&mut self, number: usize, lies: bool) -> Node {
        let liar = lies.then(|| Liar::new(company(number), self.forum.id, &mut self.draw));
        let current = lies || self.draw.below(1000) >= self.plan.old_permille;
        let older = self.plan.semantics.max(1 + self.draw.below(3) as u32);
        let mut node = Node {
            who: number,
            liar,
            semantics_max: if current { SEMANTICS_MAX } else { older },
            moved: false,
            closed_below: LogNo(0),
            gone: false,
            root: 0,
            log_seed: company(number).log_seed,
            replica: None,
            incarnation: 0,
            disk: Disk::default(),
            pending: Vec::new(),
            batch: 0,
            flush_due: false,
            skew: self.draw.below(2 * self.plan.skew_ms + 1) as i64 - self.plan.skew_ms as i64,
            set_at: 0,
            invite: self.forum.signed.len(),
            lines: BTreeMap::new(),
            greeted: BTreeMap::new(),
            mark: Watermark::default(),
            acked: Vec::new(),
            queued: Vec::new(),
            outbox_refused: false,
            journal_lost: false,
            lost: BTreeMap::new(),
            backup: None,
        };
        node.disk.charters = self.invitation(node.invite);
        node
    }

    fn invitation(&self, charters: usize) -> BTreeMap<u64, Bytes> {
        let charters = self.forum.signed.iter().take(charters);
        (1..).zip(charters.map(|c| c.encode_to_vec().into())).collect()
    }

    fn at(&mut self, time: u64, event: Event) {
        self.order += 1;
        self.queue.insert((time, self.order), event);
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    fn violated(&mut self, invariant: &'static str, story: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(Violation {
                invariant,
                story: format!("{} (after {} s)", story(), (self.now - self.plan.start) / 1000),
            });
        }
    }

    /// Everything that happens, in the order of its time.
    fn live(&mut self) -> Result<(), Violation> {
        while let Some(((time, _), event)) = self.queue.pop_first() {
            self.now = time;
            self.happen(event);
            if let Some(violation) = self.violation.take() {
                return Err(violation);
            }
            if self.together {
                break;
            }
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Timer(node, incarnation) if self.lives(node, incarnation) => {
                self.at(self.now + TIMER_MS, Event::Timer(node, incarnation));
                self.input(node, Input::Timer);
            }
            Event::Seal(node, incarnation) if self.lives(node, incarnation) => self.input(node, Input::Seal),
            Event::Flush(node, incarnation) if self.lives(node, incarnation) => self.flush(node),
            Event::Request(caller, to, method, bytes) => self.request(caller, to, method, &bytes),
            Event::Reply(caller, from, method, items, end) => self.reply(caller, from, method, items, end),
            Event::Pump(stream, tick) => self.pump(stream, tick),
            Event::Step(number) => self.step(number),
            Event::Rekey(node, incarnation) if self.lives(node, incarnation) => self.rekey(node),
            Event::Rejoin => self.islands.iter_mut().for_each(|island| *island = 0),
            Event::Look => self.look(),
            Event::Timer(..) | Event::Seal(..) | Event::Flush(..) | Event::Rekey(..) => {}
        }
    }

    fn lives(&self, node: usize, incarnation: u64) -> bool {
        self.nodes[node].incarnation == incarnation && self.nodes[node].replica.is_some()
    }

    fn clock(&self, node: usize) -> TimeMs {
        TimeMs(self.now.saturating_add_signed(self.nodes[node].skew))
    }

    fn honest(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|i| self.nodes[*i].liar.is_none() && !self.nodes[*i].gone)
    }

    fn up(&self) -> Vec<usize> {
        self.honest().filter(|i| self.nodes[*i].replica.is_some()).collect()
    }

    fn who(&self, i: usize) -> &'static Company {
        company(self.nodes[i].who)
    }

    /// Whether what a log says is only what its honest author said.
    fn is_sound(&self, log: LogId) -> bool {
        self.is_honest(MemberId(log.0)) && !self.stolen.contains(&log)
    }

    /// The two processes of a company that runs its node twice.
    fn is_twice(&self, i: usize) -> bool {
        (0..self.nodes.len()).any(|j| j != i && self.nodes[j].who == self.nodes[i].who && !self.nodes[j].gone)
    }

    fn is_honest(&self, member: MemberId) -> bool {
        number_of(member).is_some_and(|i| self.nodes.get(i).is_none_or(|n| n.liar.is_none()))
    }

    fn pick(&mut self, from: &[usize]) -> Option<usize> {
        from.get(self.draw.below(from.len() as u64) as usize).copied()
    }

    // ---- the engine around a replica ----

    /// Builds the replica from the disk, as every start does.
    fn start(&mut self, i: usize) {
        let now = self.clock(i);
        let root = self.root(i);
        let node = &mut self.nodes[i];
        node.root = root;
        node.incarnation += 1;
        node.pending.clear();
        node.flush_due = false;
        node.lines.clear();
        node.greeted.clear();
        let company = company(node.who);
        let settings = Settings {
            me: company.id,
            root: company.root(root).clone(),
            log_seed: node.log_seed,
            seed: self.draw.number(),
            rules: Rules::but_for(self.rule),
            instance: 1 + self.draw.number() / 2,
            moved: node.moved,
            semantics_max: node.semantics_max,
            closed_below: node.closed_below,
        };
        let charters =
            node.disk.charters.values().map(|c| proto::SignedCharter::decode(c.clone()).expect("we wrote it"));
        let mut restore = match Restore::new(settings, self.forum.id, charters, now) {
            Ok(restore) => restore,
            Err(error) => {
                return self.violated("I9", || format!("node {i} cannot start from its own charters: {error}"));
            }
        };
        let disk = self.nodes[i].disk.clone();
        let refused: Vec<_> = disk.proofs.iter().filter(|(_, p)| !restore.proof(p)).map(|(hash, _)| *hash).collect();
        if !refused.is_empty() {
            self.violated("I9", || format!("node {i} refuses {} proofs that it stored", refused.len()));
        }
        for (id, bytes) in disk.outbox {
            restore.outbox(id, bytes);
        }
        for (id, bytes) in disk.blocks {
            if restore.stored(id, bytes).is_err() {
                self.violated("I3", || format!("node {i} refuses its stored block {id}"));
            }
        }
        for frame in disk.journal.into_iter().flatten() {
            drop(restore.journaled(&frame)); // a damaged disk is one of the faults
        }
        let (replica, effects) = restore.finish();
        let node = &mut self.nodes[i];
        if std::mem::take(&mut node.moved) {
            node.closed_below = replica.next_log_no();
        }
        node.replica = Some(replica);
        // What the store catches up on is flushed before anything is published.
        let (writes, rest): (Vec<_>, Vec<_>) =
            effects.into_iter().partition(|e| matches!(e, Effect::Store(_) | Effect::Journal(..)));
        self.carry_out(i, writes);
        self.commit(i);
        self.carry_out(i, rest);
        let (incarnation, jitter) = (self.nodes[i].incarnation, self.draw.below(TIMER_MS));
        self.at(self.now + jitter, Event::Timer(i, incarnation));
        self.at(self.now, Event::Flush(i, incarnation));
        self.check_view(i);
        self.check_acked(i);
    }

    fn input(&mut self, i: usize, input: Input) {
        let now = self.clock(i);
        let must_flush = matches!(input, Input::Submit { .. });
        let Some(replica) = self.nodes[i].replica.as_mut() else { return };
        let effects = replica.handle(input, now);
        self.carry_out(i, effects);
        let node = &mut self.nodes[i];
        if (must_flush || !node.pending.is_empty()) && !node.flush_due {
            node.flush_due = true;
            let (incarnation, delay) = (node.incarnation, self.draw.around(self.plan.flush_ms));
            self.at(self.now + delay, Event::Flush(i, incarnation));
        }
    }

    fn carry_out(&mut self, i: usize, effects: Vec<Effect>) {
        self.nodes[i].batch += 1;
        let batch = self.nodes[i].batch;
        let mut again = Vec::new();
        for effect in effects {
            match effect {
                Effect::Journal(_, bytes) => self.nodes[i].pending.push((batch, Put::Journal(bytes))),
                Effect::Store(write) => {
                    self.check_write(i, &write);
                    self.nodes[i].pending.push((batch, Put::Store(write)));
                }
                Effect::Answer(ticket, answer) => self.answered(i, ticket, answer),
                Effect::Publish => self.published(i),
                Effect::Ask(peer, ask) => self.ask(i, peer, ask),
                Effect::Confront(id, theirs) => {
                    if let Some(ours) = self.read(i, id).and_then(|bytes| Frame::decode(bytes).ok()) {
                        again.push(Input::Confronted(Box::new(ours.header), theirs));
                    }
                }
                Effect::Rebuild => {
                    let now = self.clock(i);
                    self.rebuild(i, now);
                }
                Effect::Redact(ids) => self.redact(i, &ids),
                Effect::Roster => self.rostered(i),
                Effect::Alarm(alarm) => self.alarm(i, &alarm),
            }
        }
        for input in again {
            self.input(i, input);
        }
    }

    /// The roster changed: connections of whoever is no longer on it are cut, and a company whose root key changed
    /// restarts its node with the new one.
    fn rostered(&mut self, i: usize) {
        let streams: Vec<_> = self.streams.iter().filter(|(_, s)| s.server == i).map(|(n, s)| (*n, s.client)).collect();
        for (number, client) in streams {
            if !self.knows(i, client)
                && let Some(s) = self.streams.remove(&number)
            {
                let caller = Caller { node: s.client, incarnation: s.client_incarnation, generation: s.generation };
                if self.waits(caller, i) {
                    self.ends(caller, i, Method::Follow, Trouble::Refused("not a member".into()));
                }
            }
        }
        // The follower of a peer that is no longer listed ends.
        let node = &mut self.nodes[i];
        let listed: BTreeSet<_> = node.replica.iter().flat_map(|r| r.exchanges().keys().copied()).collect();
        for (peer, line) in &mut node.lines {
            if !listed.contains(&company(*peer).id) {
                *line = Line { generation: line.generation + 1, ..Line::default() };
            }
        }
        if self.root(i) != self.nodes[i].root {
            let (incarnation, wait) = (self.nodes[i].incarnation, 50 + self.draw.below(20_000));
            self.at(self.now + wait, Event::Rekey(i, incarnation));
        }
    }

    fn rekey(&mut self, i: usize) {
        if self.root(i) != self.nodes[i].root {
            self.flush(i);
            self.crash(i);
            self.start(i);
        }
    }

    /// Which of its root keys the charter in force lists for a node.
    fn root(&mut self, i: usize) -> usize {
        let who = self.nodes[i].who;
        let charter = self.effective(i).map(|(_, charter)| charter);
        let mut members = charter.iter().flat_map(|c| &c.members);
        members.find(|m| m.id[..] == company(who).id.0).map_or(0, |m| forum::root_generation(&m.log_root_key, who))
    }

    /// A block from the store, flushed or not.
    fn read(&self, i: usize, id: BlockId) -> Option<Bytes> {
        let node = &self.nodes[i];
        let unflushed = node.pending.iter().rev().find_map(|(_, put)| match put {
            Put::Store(Write::Block(at, bytes)) if *at == id => Some(bytes.clone()),
            _ => None,
        });
        unflushed.or_else(|| node.disk.blocks.get(&id).cloned())
    }

    fn rebuild(&mut self, i: usize, now: TimeMs) {
        let Some(mut replica) = self.nodes[i].replica.take() else { return };
        let (keyring, charter) = (replica.keyring(), replica.charters().version());
        let disk: Vec<_> = self.nodes[i].disk.blocks.values().cloned().collect();
        let blocks = disk.into_iter().filter_map(|bytes| {
            let frame = Frame::decode(bytes).map_err(Unverified::Frame);
            frame.and_then(|frame| self.verify(&keyring, charter, frame)).ok()
        });
        let blocks: Vec<_> = blocks.collect();
        let mut effects = Vec::new();
        let mut settled = false;
        for _ in 0..REBUILDS_MAX {
            let mut rebuild = replica.begin_rebuild(now);
            blocks.iter().for_each(|block| replica.rebuild(&mut rebuild, block));
            settled = replica.finish_rebuild(&mut rebuild, now, &mut effects);
            if settled {
                break;
            }
        }
        self.nodes[i].replica = Some(replica);
        if !settled {
            self.violated("I19", || format!("the list of node {i} does not settle"));
        }
        self.carry_out(i, effects);
        self.count("rebuilds");
    }

    /// Erases records on disk, as the charters order it: in the store, in the journal, and in what is being written.
    fn redact(&mut self, i: usize, ids: &[BlockId]) {
        let Some(keyring) = self.keyring(i) else { return };
        let redacted = |bytes: &Bytes| {
            let mut frame = Frame::decode(bytes.clone()).ok().filter(|f| ids.contains(&f.header.header().id))?;
            keyring.redact(&mut frame).then(|| frame.encode())
        };
        let node = &mut self.nodes[i];
        let pending = node.pending.iter_mut().filter_map(|(_, put)| match put {
            Put::Journal(bytes) | Put::Store(Write::Block(_, bytes)) => Some(bytes),
            Put::Store(_) => None,
        });
        let disk = node.disk.blocks.values_mut().chain(node.disk.journal.iter_mut().flatten());
        for bytes in pending.chain(disk) {
            if let Some(less) = redacted(bytes) {
                *bytes = less;
            }
        }
        self.count("redactions");
    }

    /// Verification is a pure function of frame and keyring: what verified once is remembered, where the keyring still
    /// knows what it knew then.
    fn verify(&mut self, keyring: &Keyring, charter: u64, frame: Frame) -> Result<VerifiedBlock, Unverified> {
        let header = frame.header.header();
        let known = keyring.opening(header.id.origin, header.key_id).is_some();
        // What is ordered to be erased is erased on the way.
        let erased = keyring.erasures().any(|(id, _)| id == header.id)
            || frame.slots.iter().any(|slot| matches!(slot, Slot::Redacted(_)));
        if erased || (!known && header.id.seq != Seq(1)) {
            return keyring.verify(frame);
        }
        // A first block needs the root keys of the charters; later versions only add to them.
        let key = (frame.encode(), if known { 0 } else { charter });
        if let Some(block) = self.verified.get(&key) {
            return Ok(block.clone());
        }
        let block = keyring.verify(frame)?;
        self.verified.insert(key, block.clone());
        Ok(block)
    }

    /// Everything written is on stable storage now.
    fn commit(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        node.flush_due = false;
        let pending = std::mem::take(&mut node.pending);
        for (_, put) in &pending {
            self.nodes[i].disk.put(put);
            if let Put::Journal(bytes) = put {
                self.check_signed(i, bytes);
            }
        }
    }

    fn flush(&mut self, i: usize) {
        self.commit(i);
        self.input(i, Input::Durable);
    }

    /// Power off: what was flushed stays, and of the rest at most a beginning; the journal goes first.
    fn crash(&mut self, i: usize) {
        let mut pending = std::mem::take(&mut self.nodes[i].pending);
        self.nodes[i].replica = None;
        self.nodes[i].incarnation += 1;
        let journal: Vec<_> = pending.extract_if(.., |(_, put)| matches!(put, Put::Journal(_))).collect();
        let kept = match self.draw.below(3) {
            0 => Vec::new(),
            1 => journal.into_iter().take(self.draw.below(3) as usize).collect(),
            _ => {
                let last = pending.first().map_or(0, |(batch, _)| batch + self.draw.below(3));
                journal.into_iter().chain(pending.into_iter().filter(|(batch, _)| *batch < last)).collect()
            }
        };
        for (_, put) in kept {
            self.nodes[i].disk.put(&put);
            if let Put::Journal(bytes) = &put {
                self.check_signed(i, bytes);
            }
        }
        self.count("crashes");
    }

    // ---- the network ----

    fn reachable(&self, a: usize, b: usize) -> bool {
        let up = |i: usize| self.nodes[i].replica.is_some() || self.nodes[i].liar.is_some();
        self.islands[a] == self.islands[b] && up(a) && up(b)
    }

    fn lost(&mut self) -> bool {
        self.healed_at.is_none() && self.draw.below(1000) < self.plan.loss_permille
    }

    fn later(&mut self) -> u64 {
        self.now + 1 + self.draw.around(self.plan.latency_ms)
    }

    fn ask(&mut self, i: usize, peer: MemberId, ask: Ask) {
        let Some(to) = number_of(peer).filter(|to| *to < self.nodes.len()) else { return };
        let incarnation = self.nodes[i].incarnation;
        let line = self.nodes[i].lines.entry(to).or_default();
        if ask == Ask::Hangup {
            *line = Line { generation: line.generation + 1, ..Line::default() };
            return;
        }
        let follows = matches!(ask, Ask::Follow { .. });
        let busy = if follows { &mut line.following } else { &mut line.talking };
        if std::mem::replace(busy, true) {
            let story = format!("node {i} asks {to} for {ask:?} while an earlier call is under way");
            return self.violated("I17", || story);
        }
        let caller = Caller { node: i, incarnation, generation: line.generation };
        let (method, bytes) = self.encode(i, ask);
        let at = self.later();
        self.at(at, Event::Request(caller, to, method, bytes));
    }

    fn encode(&self, i: usize, ask: Ask) -> (Method, Bytes) {
        let forum_id = Bytes::copy_from_slice(&self.forum.id.0);
        let charter_version = self.nodes[i].replica.as_ref().map_or(0, |r| r.charters().version());
        let pull = |have: Have| proto::PullRequest {
            forum_id: forum_id.clone(),
            charter_version,
            have: have.to_proto(),
            max_bytes: 0,
        };
        let (method, bytes) = match ask {
            Ask::Greet | Ask::Hangup => {
                (Method::Hello, proto::HelloRequest { forum_id, charter_version, ..Default::default() }.encode_to_vec())
            }
            Ask::Charters { from } => {
                (Method::Charters, proto::ChartersRequest { forum_id, from_version: from }.encode_to_vec())
            }
            Ask::Proofs { have } => {
                let have = have.iter().map(|hash| Bytes::copy_from_slice(hash)).collect();
                (Method::Proofs, proto::ProofsRequest { forum_id, have }.encode_to_vec())
            }
            Ask::Headers { origin, from, to } => {
                let origin = Some(origin_to_proto(origin));
                (
                    Method::Headers,
                    proto::HeadersRequest { forum_id, origin, from_seq: from.0, to_seq: to.0 }.encode_to_vec(),
                )
            }
            Ask::Pull { have } => (Method::Pull, pull(have).encode_to_vec()),
            Ask::Follow { have } => (Method::Follow, pull(have).encode_to_vec()),
        };
        (method, bytes.into())
    }

    fn ends(&mut self, caller: Caller, from: usize, method: Method, why: Trouble) {
        let wait = if matches!(why, Trouble::Unreachable(_)) { 500 + self.draw.below(4_000) } else { 10 };
        self.at(self.now + wait, Event::Reply(caller, from, method, Vec::new(), Some(Err(why))));
    }

    fn request(&mut self, caller: Caller, to: usize, method: Method, bytes: &Bytes) {
        if !self.reachable(caller.node, to) || self.lost() {
            return self.ends(caller, to, method, Trouble::Unreachable("nobody answers".into()));
        }
        if method == Method::Follow {
            return self.follow(caller, to, bytes);
        }
        let mut items = if self.nodes[to].liar.is_some() {
            self.liar_serves(to, caller.node, method, bytes)
        } else {
            match self.serve(to, caller.node, method, bytes) {
                Ok(items) => items,
                Err(why) => return self.ends(caller, to, method, why),
            }
        };
        let mut end = Ok(());
        if self.lost() {
            items.truncate(self.draw.below(items.len() as u64 + 1) as usize);
            end = Err(Trouble::Unreachable("broke off".into()));
        }
        if method == Method::Pull && !items.is_empty() && self.draw.below(20) == 0 {
            items.insert(0, items[0].clone()); // a block may come twice
        }
        let at = self.later();
        self.at(at, Event::Reply(caller, to, method, items, Some(end)));
    }

    /// Whether another process of the client's company is connected to the server and has greeted it.
    fn has_second_copy(&self, server: usize, client: usize) -> bool {
        self.nodes[server].greeted.iter().any(|(other, incarnation)| {
            *other != client
                && self.nodes[*other].who == self.nodes[client].who
                && self.lives(*other, *incarnation)
                && self.reachable(server, *other)
        })
    }

    fn knows(&self, server: usize, client: usize) -> bool {
        let id = self.who(client).id;
        self.nodes[server].replica.as_ref().is_some_and(|r| r.listed().iter().any(|(_, member)| *member == id))
    }

    /// What an honest node answers: only what is published, and only from flushed storage.
    fn serve(&mut self, server: usize, client: usize, method: Method, bytes: &Bytes) -> Result<Vec<Bytes>, Trouble> {
        if !self.knows(server, client) {
            return Err(Trouble::Refused("not a member".into()));
        }
        self.check_admitted(server, client);
        let now = self.clock(server);
        let Some(replica) = self.nodes[server].replica.as_ref() else { return Ok(Vec::new()) };
        let items = match method {
            Method::Hello => {
                let incarnation = self.nodes[client].incarnation;
                self.nodes[server].greeted.insert(client, incarnation);
                let Some(replica) = self.nodes[server].replica.as_ref() else { return Ok(Vec::new()) };
                let greeting = Greeting { second_copy: self.has_second_copy(server, client), ..replica.greeting(now) };
                vec![hello(&greeting, self.forum.id.0).encode_to_vec()]
            }
            Method::Charters => {
                let request = proto::ChartersRequest::decode(bytes.clone()).expect("encoded here");
                replica.charters_from(request.from_version).map(Message::encode_to_vec).collect()
            }
            Method::Proofs => {
                let request = proto::ProofsRequest::decode(bytes.clone()).expect("encoded here");
                let have = request.have.iter().filter_map(|h| h[..].try_into().ok()).collect();
                replica.proofs_beyond(&have).iter().map(Message::encode_to_vec).collect()
            }
            Method::Headers => {
                let request = proto::HeadersRequest::decode(bytes.clone()).expect("encoded here");
                let origin = request.origin.as_ref().and_then(origin_from_proto).expect("encoded here");
                return Ok(self.headers(server, origin, request.from_seq, request.to_seq));
            }
            Method::Pull | Method::Follow => {
                let request = proto::PullRequest::decode(bytes.clone()).expect("encoded here");
                let have = Have::from_proto(&request.have).map_err(|error| Trouble::Refused(error.to_string()))?;
                let published = replica.published();
                let mut feed = Feed::new(&have);
                let mut items = self.blocks_for(server, &mut feed, &published, usize::MAX);
                let done = proto::Done { have_digest: Bytes::copy_from_slice(&published.have().digest()), more: false };
                items.push(pull_reply(proto::pull_reply::Item::Done(done)));
                return Ok(items);
            }
        };
        Ok(items.into_iter().map(Bytes::from).collect())
    }

    fn headers(&mut self, server: usize, origin: Origin, from: u64, to: u64) -> Vec<Bytes> {
        let Some(replica) = self.nodes[server].replica.as_ref() else { return Vec::new() };
        let published = replica.published();
        let head = published.heads.get(&origin).map_or(0, |(_, head)| head.seq.0);
        let open = replica.opening(origin).map(|o| o.message.clone());
        let frames = (from..=to.min(head)).filter_map(|seq| self.stored(server, BlockId { origin, seq: Seq(seq) }));
        let header = |bytes| {
            let frame = Frame::decode(bytes).ok()?;
            Some(proto::SignedHeader {
                header: Bytes::copy_from_slice(frame.header.bytes()),
                signature: Bytes::copy_from_slice(frame.header.signature()),
                open: open.clone(),
            })
        };
        frames.filter_map(header).map(|h| h.encode_to_vec().into()).collect()
    }

    /// What a server reads: flushed bytes, unless the wrong rule says otherwise.
    fn stored(&self, server: usize, id: BlockId) -> Option<Bytes> {
        if self.rule == Some(WrongRule::PublishBeforeFsync) {
            self.read(server, id)
        } else {
            self.nodes[server].disk.blocks.get(&id).cloned()
        }
    }

    fn blocks_for(&mut self, server: usize, feed: &mut Feed, published: &Published, max: usize) -> Vec<Bytes> {
        let mut items = Vec::new();
        while items.len() < max
            && let Some(id) = feed.next(published)
        {
            let Some(bytes) = self.stored(server, id) else {
                self.violated("I10", || format!("node {server} published block {id} and has it not on stable storage"));
                break;
            };
            feed.sent_bytes(published, id, bytes.len() as u64);
            self.on_the_wire(server, id, &bytes);
            let frame = proto::BlockFrame::decode(bytes).expect("we wrote it");
            items.push(pull_reply(proto::pull_reply::Item::Block(frame)));
        }
        items
    }

    fn on_the_wire(&mut self, server: usize, id: BlockId, bytes: &Bytes) {
        if id.origin.member == self.who(server).id {
            self.check_signed(server, bytes);
            if let Some(block) = self.block(bytes).filter(|b| !self.sent.contains(&b.hash)) {
                self.sent.insert(block.hash);
                self.wire.push(bytes.clone());
            }
        }
    }

    fn follow(&mut self, caller: Caller, to: usize, bytes: &Bytes) {
        let lies = self.nodes[to].liar.is_some();
        if !lies && !self.knows(to, caller.node) {
            return self.ends(caller, to, Method::Follow, Trouble::Refused("not a member".into()));
        }
        if !lies {
            self.check_admitted(to, caller.node);
        }
        let request = proto::PullRequest::decode(bytes.clone()).expect("encoded here");
        let have = Have::from_proto(&request.have).expect("honest callers only");
        let proofs = self.nodes[to].replica.as_ref().map(|r| r.proofs_beyond(&BTreeSet::new()));
        self.order += 1;
        let number = self.order;
        let stream = Stream {
            server: to,
            client: caller.node,
            server_incarnation: self.nodes[to].incarnation,
            client_incarnation: caller.incarnation,
            generation: caller.generation,
            sent: have.iter().map(|(origin, head)| (origin, head.seq.0)).collect(),
            feed: Feed::new(&have),
            proofs: proofs.into_iter().flatten().map(|p| proof_name(&p)).collect(),
            charter: request.charter_version,
            last_at: self.now,
            pump_due: true,
        };
        self.streams.insert(number, stream);
        self.at(self.now, Event::Pump(number, false));
        self.at(self.now + TICK_MS, Event::Pump(number, true));
    }

    /// A stream sends what is new.
    fn pump(&mut self, number: u64, tick: bool) {
        let Some(mut stream) = self.streams.remove(&number) else { return };
        let (server, client) = (stream.server, stream.client);
        let caller = Caller { node: client, incarnation: stream.client_incarnation, generation: stream.generation };
        if !self.waits(caller, server) {
            return;
        }
        let same_server = self.nodes[server].incarnation == stream.server_incarnation;
        let member = self.nodes[server].liar.is_some() || self.knows(server, client);
        if !same_server || !self.reachable(server, client) || !member || (tick && self.lost()) {
            return self.ends(caller, server, Method::Follow, Trouble::Unreachable("stream broke".into()));
        }
        if tick {
            self.at(self.now + TICK_MS, Event::Pump(number, true));
        } else {
            stream.pump_due = false;
        }
        let items = if self.nodes[server].liar.is_some() {
            self.liar_streams(&mut stream)
        } else {
            self.check_admitted(server, client);
            self.stream(&mut stream, tick, number)
        };
        if !items.is_empty() {
            stream.last_at = self.later().max(stream.last_at + 1);
            self.at(stream.last_at, Event::Reply(caller, server, Method::Follow, items, None));
        }
        self.streams.insert(number, stream);
    }

    fn stream(&mut self, stream: &mut Stream, tick: bool, number: u64) -> Vec<Bytes> {
        let now = self.clock(stream.server);
        let Some(replica) = self.nodes[stream.server].replica.as_ref() else { return Vec::new() };
        let published = replica.published();
        let mut items = Vec::new();
        if replica.charters().version() > stream.charter {
            let charters = replica.charters_from(stream.charter + 1).cloned();
            items.extend(charters.map(|c| pull_reply(proto::pull_reply::Item::Charter(c))));
            stream.charter = replica.charters().version();
        }
        for proof in replica.proofs_beyond(&BTreeSet::new()) {
            if stream.proofs.insert(proof_name(&proof)) {
                items.push(pull_reply(proto::pull_reply::Item::Proof(proof)));
            }
        }
        let pulse = tick.then(|| replica.pulse(now));
        items.extend(self.blocks_for(stream.server, &mut stream.feed, &published, FRAMES_IN_FLIGHT));
        if items.len() >= FRAMES_IN_FLIGHT && !stream.pump_due {
            stream.pump_due = true;
            self.at(self.now + 5, Event::Pump(number, false));
        }
        if let Some(pulse) = pulse {
            items.push(pull_reply(proto::pull_reply::Item::Tick(tick_to_proto(&pulse))));
        }
        items
    }

    fn liar_serves(&mut self, liar: usize, client: usize, method: Method, bytes: &Bytes) -> Vec<Bytes> {
        let truth: BTreeMap<_, _> =
            self.nodes[client].replica.as_ref().map(|r| r.have().iter().collect()).unwrap_or_default();
        let newest = self.forum.signed.len() as u64;
        let hash = checkers::hash(&[b"staydown/charter/v1\n", &self.forum.signed[newest as usize - 1].body]);
        let Some(teller) = self.nodes[liar].liar.as_ref() else { return Vec::new() };
        match method {
            Method::Hello => {
                let heads = teller.heads(client, &mut self.draw, &truth);
                let me = proto::HelloRequest {
                    wire_min: 1,
                    wire_max: 1,
                    forum_id: Bytes::copy_from_slice(&self.forum.id.0),
                    charter_version: newest,
                    charter_hash: Bytes::copy_from_slice(&hash),
                    semantics_max: 1,
                    time_ms: self.now,
                    ..Default::default()
                };
                vec![proto::HelloReply { me: Some(me), heads, max_frame: 0, second_copy: false }.encode_to_vec().into()]
            }
            Method::Charters => {
                let from = proto::ChartersRequest::decode(bytes.clone()).map_or(1, |r| r.from_version);
                let forged = self.forum.forged(from);
                let true_ones = self.forum.signed.iter().skip(from as usize - 1);
                std::iter::once(&forged).chain(true_ones).map(|c| c.encode_to_vec().into()).collect()
            }
            Method::Proofs => Vec::new(),
            Method::Headers => {
                let request = proto::HeadersRequest::decode(bytes.clone()).expect("encoded here");
                let origin = request.origin.as_ref().and_then(origin_from_proto).expect("encoded here");
                teller
                    .header(client, origin, Seq(request.from_seq))
                    .map(|h| h.encode_to_vec().into())
                    .into_iter()
                    .collect()
            }
            Method::Pull | Method::Follow => {
                let request = proto::PullRequest::decode(bytes.clone()).expect("encoded here");
                let have = Have::from_proto(&request.have).expect("honest callers only");
                let mut sent = have.iter().map(|(origin, head)| (origin, head.seq.0)).collect();
                let mut items: Vec<_> = teller.blocks(client, &mut sent).iter().map(frame_reply).collect();
                items.extend(teller.noise(&mut self.draw, &self.wire, self.now));
                let done = proto::Done { have_digest: vec![6; 32].into(), more: false };
                items.push(pull_reply(proto::pull_reply::Item::Done(done)));
                items
            }
        }
    }

    fn liar_streams(&mut self, stream: &mut Stream) -> Vec<Bytes> {
        let Some(teller) = self.nodes[stream.server].liar.as_ref() else { return Vec::new() };
        let mut items: Vec<_> = teller.blocks(stream.client, &mut stream.sent).iter().map(frame_reply).collect();
        if self.healed_at.is_none() {
            items.extend(teller.noise(&mut self.draw, &self.wire, self.now));
        }
        items
    }

    /// Whether the caller still lives and has not hung up.
    fn waits(&self, caller: Caller, peer: usize) -> bool {
        let line = self.nodes[caller.node].lines.get(&peer);
        self.lives(caller.node, caller.incarnation) && line.is_some_and(|l| l.generation == caller.generation)
    }

    fn reply(
        &mut self,
        caller: Caller,
        from: usize,
        method: Method,
        items: Vec<Bytes>,
        end: Option<Result<(), Trouble>>,
    ) {
        let mut end = end;
        for item in items {
            if !self.waits(caller, from) {
                return;
            }
            if method == Method::Hello {
                // The answer to a greeting is also its end.
                end = None;
                self.hang_up(caller.node, from, method);
            }
            match self.decode(caller.node, method, item) {
                Ok(event) => self.input(caller.node, Input::Peer(self.who(from).id, event)),
                Err(why) => {
                    end = Some(Err(why));
                    break;
                }
            }
        }
        let Some(end) = end.filter(|_| self.waits(caller, from)) else { return };
        self.hang_up(caller.node, from, method);
        self.input(caller.node, Input::Peer(self.who(from).id, PeerEvent::Ended(method.call(), end)));
    }

    fn hang_up(&mut self, client: usize, server: usize, method: Method) {
        let Some(line) = self.nodes[client].lines.get_mut(&server) else { return };
        match method {
            Method::Follow => line.following = false,
            _ => line.talking = false,
        }
    }

    /// The client's side of the wire: bytes become an event, or the sender's fault.
    fn decode(&mut self, client: usize, method: Method, item: Bytes) -> Result<PeerEvent, Trouble> {
        self.read_item(client, method, item).map_err(|why| match why {
            // A member or a root key that our charter does not list yet is nobody's fault.
            Misread::Unverified(why) if !why.is_senders_fault() => Trouble::Unreachable(why.to_string()),
            Misread::Unverified(why) => Trouble::Nonsense(why.to_string()),
            Misread::Bytes(why) => Trouble::Nonsense(why),
        })
    }

    fn read_item(&mut self, client: usize, method: Method, item: Bytes) -> Result<PeerEvent, Misread> {
        let wrong = |error: prost::DecodeError| error.to_string();
        match method {
            Method::Hello => Ok(PeerEvent::Greeted(greeting(&proto::HelloReply::decode(item).map_err(wrong)?)?)),
            Method::Charters => Ok(PeerEvent::Charter(proto::SignedCharter::decode(item).map_err(wrong)?)),
            Method::Proofs => Ok(PeerEvent::Proof(Box::new(proto::Proof::decode(item).map_err(wrong)?))),
            Method::Headers => {
                let header = proto::SignedHeader::decode(item).map_err(wrong)?;
                let keyring = self.keyring(client).ok_or("gone")?;
                let verified = keyring.verify_header(&header).map_err(Misread::Unverified)?;
                Ok(PeerEvent::Header(Box::new(verified)))
            }
            Method::Pull | Method::Follow => {
                match proto::PullReply::decode(item).map_err(wrong)?.item.ok_or("empty")? {
                    proto::pull_reply::Item::Block(frame) => {
                        let keyring = self.keyring(client).ok_or("gone")?;
                        let frame = Frame::from_proto(frame).map_err(|error| error.to_string())?;
                        let charter = self.nodes[client].replica.as_ref().map_or(0, |r| r.charters().version());
                        Ok(match self.verify(&keyring, charter, frame) {
                            Ok(block) => PeerEvent::Block(Box::new(block)),
                            Err(why) => PeerEvent::Unverified(why),
                        })
                    }
                    proto::pull_reply::Item::Tick(tick) => Ok(PeerEvent::Tick(tick_from_proto(&tick).ok_or("tick")?)),
                    proto::pull_reply::Item::Done(done) => {
                        Ok(PeerEvent::Done(done.have_digest[..].try_into().map_err(|_short| "done")?))
                    }
                    proto::pull_reply::Item::Proof(proof) => Ok(PeerEvent::Proof(Box::new(proof))),
                    proto::pull_reply::Item::Charter(charter) => Ok(PeerEvent::Charter(charter)),
                }
            }
        }
    }

    fn keyring(&self, i: usize) -> Option<std::sync::Arc<Keyring>> {
        self.nodes[i].replica.as_ref().map(Replica::keyring)
    }
}

fn some_roles(draw: &mut Draw) -> u32 {
    use crate::forum::{AUDITOR, CERTIFIER, FULL, OBSERVER, REFERRAL, SMALL, STEWARD};
    let some = [
        FULL,
        FULL,
        FULL,
        FULL,
        FULL,
        FULL,
        SMALL,
        REFERRAL,
        CERTIFIER,
        FULL | STEWARD,
        FULL | STEWARD,
        OBSERVER,
        AUDITOR,
        STEWARD,
    ];
    some[draw.below(14) as usize]
}

fn pull_reply(item: proto::pull_reply::Item) -> Bytes {
    proto::PullReply { item: Some(item) }.encode_to_vec().into()
}

fn frame_reply(frame: &Frame) -> Bytes {
    pull_reply(proto::pull_reply::Item::Block(frame.to_proto()))
}

fn hello(greeting: &Greeting, forum: [u8; 32]) -> proto::HelloReply {
    let me = proto::HelloRequest {
        wire_min: 1,
        wire_max: 1,
        forum_id: Bytes::copy_from_slice(&forum),
        charter_version: greeting.charter_version,
        charter_hash: Bytes::copy_from_slice(&greeting.charter_hash.0),
        semantics_max: greeting.semantics_max,
        time_ms: greeting.time.0,
        software: "simulation".into(),
        instance: greeting.instance,
    };
    let heads = greeting.have.iter().map(|(origin, head)| head_to_proto(origin, head)).collect();
    proto::HelloReply { me: Some(me), heads, max_frame: 1 << 20, second_copy: greeting.second_copy }
}

fn greeting(reply: &proto::HelloReply) -> Result<Greeting, String> {
    let me = reply.me.as_ref().ok_or("greeting without sender")?;
    Ok(Greeting {
        charter_version: me.charter_version,
        charter_hash: CharterHash::from_slice(&me.charter_hash).ok_or("charter hash")?,
        semantics_max: me.semantics_max,
        time: TimeMs(me.time_ms),
        have: Have::from_proto(&reply.heads).map_err(|error| error.to_string())?,
        instance: me.instance,
        second_copy: reply.second_copy,
    })
}

fn tick_to_proto(tick: &Tick) -> proto::Tick {
    proto::Tick {
        time_ms: tick.time.0,
        have_digest: Bytes::copy_from_slice(&tick.have_digest),
        charter_hash: Bytes::copy_from_slice(&tick.charter_hash.0),
        view_hour: tick.view_hour.0,
        view_digest: tick.view_digest.map_or_else(Bytes::new, |d| Bytes::copy_from_slice(&d)),
        disputes_digest: tick.disputes_digest.map_or_else(Bytes::new, |d| Bytes::copy_from_slice(&d)),
    }
}

fn tick_from_proto(tick: &proto::Tick) -> Option<Tick> {
    let digest = |bytes: &Bytes| if bytes.is_empty() { Some(None) } else { Some(Some(bytes[..].try_into().ok()?)) };
    Some(Tick {
        time: TimeMs(tick.time_ms),
        have_digest: tick.have_digest[..].try_into().ok()?,
        charter_hash: CharterHash::from_slice(&tick.charter_hash)?,
        view_hour: TimeMs(tick.view_hour),
        view_digest: digest(&tick.view_digest)?,
        disputes_digest: digest(&tick.disputes_digest)?,
    })
}
