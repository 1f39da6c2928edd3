//! The conversation with one peer as a small machine: greet, compare heads, ask, deliver, rest, back off
//! (PROTOCOL section 6). It decides; the follower carries out.
//!
//! No cursors: what we durably hold is what we ask to go on from, so a conversation that breaks off anywhere simply
//! begins again.

use std::collections::{BTreeMap, VecDeque};

use super::block::SignedHeader;
use super::charter::CharterChain;
use super::heads::Have;
use super::ids::{BlockId, CharterHash, Class, Head, HeaderHash, Origin, Seq, TimeMs};
use super::proto;
use super::signed::{Unverified, VerifiedBlock, VerifiedHeader};

/// First wait after a failure; doubles up to [`BACKOFF_MAX_MS`].
pub const BACKOFF_MIN_MS: u64 = 1_000;
/// Longest wait after failures, before jitter.
pub const BACKOFF_MAX_MS: u64 = 300_000;
/// Wait after a peer refused us by its charter: it will not change its mind within seconds.
pub const REFUSED_RETRY_MS: u64 = 300_000;
/// Wait after a peer sent what it alone is answerable for.
pub const BAN_MS: u64 = 3_600_000;
/// Mean time between repairs with a random peer; drawn +- 50 %.
pub const REPAIR_MS: u64 = 30_000;
/// Headers in one answer to `GetHeaders`.
pub const HEADERS_MAX: usize = 256;
/// Searches for the first difference that wait at once; more are found again by the next greeting.
const SEARCHES_MAX: usize = 64;
/// How far ahead of our clock a block's time may be before it is held.
pub const FUTURE_MS: u64 = 120_000;

/// Blocks that cannot be used yet lead to one greeting in this time: a log whose next block is held would otherwise be
/// fetched again as fast as the line allows.
pub const MISS_PAUSE_MS: u64 = 5_000;

/// Signs of life in a row that show another list for the same heads, charter and hour before it is called a bug: each
/// leads to a greeting, which brings proofs and charters up to date.
pub const DISAGREEMENTS: u32 = 3;

/// What the follower is to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `Hello`.
    Greet,
    /// `GetCharters` from a version on.
    Charters {
        /// First version wanted.
        from: u64,
    },
    /// `GetProofs`, telling which ones we hold.
    Proofs {
        /// Hashes of the proofs we hold.
        have: Vec<[u8; 32]>,
    },
    /// `GetHeaders` of one log.
    Headers {
        /// The log.
        origin: Origin,
        /// First place wanted.
        from: Seq,
        /// Last place wanted.
        to: Seq,
    },
    /// `Pull` beyond what we have.
    Pull {
        /// What we have.
        have: Have,
    },
    /// `Follow` beyond what we have.
    Follow {
        /// What we have.
        have: Have,
    },
    /// End whatever is under way.
    Hangup,
}

/// The kind of an [`Ask`] that came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Anything that is asked one at a time.
    Talk,
    /// The endless stream.
    Follow,
}

/// What a peer said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Highest charter version it holds.
    pub charter_version: u64,
    /// Hash of that version.
    pub charter_hash: CharterHash,
    /// Highest semantics level it understands.
    pub semantics_max: u32,
    /// Its clock.
    pub time: TimeMs,
    /// What it holds.
    pub have: Have,
    /// Drawn anew by every process; 0: not told.
    pub instance: u64,
    /// What the answering side says of the asking one: another copy of it is connected.
    pub second_copy: bool,
}

/// A peer's sign of life on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Its clock.
    pub time: TimeMs,
    /// Digest of what it holds.
    pub have_digest: [u8; 32],
    /// Hash of its charter.
    pub charter_hash: CharterHash,
    /// Hour of its view digest.
    pub view_hour: TimeMs,
    /// Its view digest at that hour; none while the charter is of a level that it does not know.
    pub view_digest: Option<[u8; 32]>,
    /// Digest of the places from which on logs are disputed; none from an older release.
    pub disputes_digest: Option<[u8; 32]>,
}

/// Why a call ended that should not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody there, or the connection broke.
    Unreachable(String),
    /// The peer does not accept us, by its charter.
    Refused(String),
    /// What it sent is not of the protocol.
    Nonsense(String),
}

/// What comes back from a peer.
#[derive(Clone, Debug)]
pub enum PeerEvent {
    /// Answer to [`Ask::Greet`].
    Greeted(Greeting),
    /// A charter, on any call.
    Charter(proto::SignedCharter),
    /// A proof, on any call.
    Proof(Box<proto::Proof>),
    /// A block that verified.
    Block(Box<VerifiedBlock>),
    /// A block that did not.
    Unverified(Unverified),
    /// A header that verified, in answer to [`Ask::Headers`].
    Header(Box<VerifiedHeader>),
    /// A sign of life.
    Tick(Tick),
    /// The peer says that the stream brought us to this digest.
    Done([u8; 32]),
    /// A call ended.
    Ended(Call, Result<(), Trouble>),
    /// The peer greeted us over a connection of its own.
    Called,
}

/// What a conversation is at, as people see it (PROTOCOL 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the states are those of PROTOCOL section 6.3")]
pub enum State {
    Idle,
    Hello,
    CharterBehind,
    Pulling,
    Following,
    BackOff,
    Banned,
}

impl State {
    /// All of them, from strangers to companions to those who were sent away.
    pub const ALL: [Self; 7] =
        [Self::Idle, Self::Hello, Self::CharterBehind, Self::Pulling, Self::Following, Self::BackOff, Self::Banned];

    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "IDLE",
            Self::Hello => "HELLO",
            Self::CharterBehind => "CHARTER_BEHIND",
            Self::Pulling => "PULLING",
            Self::Following => "FOLLOWING",
            Self::BackOff => "BACKOFF",
            Self::Banned => "BANNED",
        }
    }
}

/// What is asked one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Talk {
    Quiet,
    Greeting,
    Charters,
    Proofs,
    Pulling,
    Searching,
}

/// The search for the first place at which a peer's chain differs from ours.
#[derive(Clone, Debug)]
struct Search {
    origin: Origin,
    /// Highest place known to be equal.
    same: Seq,
    /// Lowest place at which a difference was claimed; `theirs` is its header once it arrived.
    differs: Seq,
    theirs: Option<VerifiedHeader>,
    /// The block after our head that started the search, if that was what started it.
    next: Option<SignedHeader>,
}

impl Search {
    fn wants(&self) -> Seq {
        if self.theirs.is_none() { self.differs } else { Seq(self.same.0 + (self.differs.0 - self.same.0) / 2) }
    }
}

/// The fetching of another chain's header hashes, from the first disputed place on: whether that chain is final can only
/// be told when they are all there.
#[derive(Clone, Debug)]
struct Trace {
    origin: Origin,
    from: Seq,
    to: Seq,
    /// Hash of the header before the next one wanted.
    prev: HeaderHash,
    hashes: Vec<HeaderHash>,
}

impl Trace {
    fn next(&self) -> Seq {
        Seq(self.from.0 + self.hashes.len() as u64)
    }
}

/// Headers that a peer is asked for, for one reason or another.
#[derive(Clone, Debug)]
enum Quest {
    Search(Box<Search>),
    Trace(Trace),
}

impl Quest {
    fn origin(&self) -> Origin {
        match self {
            Self::Search(search) => search.origin,
            Self::Trace(trace) => trace.origin,
        }
    }

    fn ask(&self) -> Ask {
        let (from, to) = match self {
            Self::Search(search) => (search.wants(), search.wants()),
            Self::Trace(trace) => (trace.next(), trace.to.min(Seq(trace.next().0 + HEADERS_MAX as u64 - 1))),
        };
        Ask::Headers { origin: self.origin(), from, to }
    }
}

/// What a search found.
#[derive(Debug)]
pub enum Found {
    /// The peer's chain of a log from a place on, each header's author and place in the chain checked.
    Chain(Origin, Seq, Vec<HeaderHash>),
    /// The peer's header at the first place that differs: with ours, a fork proof.
    Fork(Box<VerifiedHeader>),
    /// Up to our head all is equal, so the block after it is its author's fault.
    Fault(Origin, Box<SignedHeader>),
}

/// What we know of ourselves that a conversation depends on.
#[derive(Debug)]
pub struct Ours<'a> {
    /// What we durably hold.
    pub have: &'a Have,
    /// The charters we hold.
    pub charters: &'a CharterChain,
    /// Hashes of the proofs we hold.
    pub proofs: &'a [[u8; 32]],
}

/// Our side of one conversation.
#[derive(Clone, Debug)]
pub struct Exchange {
    talk: Talk,
    following: bool,
    failures: u32,
    retry_at: TimeMs,
    banned: bool,
    greet_wanted: bool,
    held_until: Option<TimeMs>,
    last_missed: Option<TimeMs>,
    quests: VecDeque<Quest>,
    answered: bool,
    unshown: Option<Origin>,
    theirs: Have,
    last_heard: TimeMs,
    clock_offset_ms: i64,
    semantics_max: u32,
    last_error: Option<String>,
    agrees: Option<bool>,
    /// How often in a row the peer held the same and showed another list.
    disagreed: u32,
    draw: Draw,
}

impl Exchange {
    /// A conversation that has not begun; `seed` decides its jitter.
    pub fn new(seed: u64) -> Self {
        Self {
            talk: Talk::Quiet,
            following: false,
            failures: 0,
            retry_at: TimeMs(0),
            banned: false,
            greet_wanted: false,
            held_until: None,
            last_missed: None,
            quests: VecDeque::new(),
            answered: false,
            unshown: None,
            theirs: Have::default(),
            last_heard: TimeMs(0),
            clock_offset_ms: 0,
            semantics_max: 0,
            last_error: None,
            agrees: None,
            disagreed: 0,
            draw: Draw(seed),
        }
    }

    /// As people see it.
    pub fn state(&self, now: TimeMs) -> State {
        match self.talk {
            _ if self.banned && now < self.retry_at => State::Banned,
            Talk::Greeting => State::Hello,
            Talk::Charters => State::CharterBehind,
            Talk::Pulling | Talk::Proofs | Talk::Searching => State::Pulling,
            Talk::Quiet if self.following => State::Following,
            Talk::Quiet if now < self.retry_at => State::BackOff,
            Talk::Quiet => State::Idle,
        }
    }

    /// Whether the peer answers: we follow it.
    pub fn is_connected(&self) -> bool {
        self.following
    }

    /// Whether the peer has greeted us, and is still to tell which charters and proofs it holds beyond ours.
    pub fn is_catching_up(&self) -> bool {
        matches!(self.talk, Talk::Charters | Talk::Proofs)
    }

    /// Whether the peer was asked for headers and has not shown them yet.
    pub fn is_searching(&self) -> bool {
        self.talk == Talk::Searching
    }

    /// What the peer last said it holds.
    pub fn theirs(&self) -> &Have {
        &self.theirs
    }

    /// When the peer last said anything.
    pub fn last_heard(&self) -> TimeMs {
        self.last_heard
    }

    /// The highest semantics level that the peer understands, as its last greeting says; 0: it has not greeted yet.
    pub fn semantics_max(&self) -> u32 {
        self.semantics_max
    }

    /// The peer's clock minus ours, in milliseconds.
    pub fn clock_offset_ms(&self) -> i64 {
        self.clock_offset_ms
    }

    /// The peer turned out to hold exactly `have`.
    pub fn holds(&mut self, have: Have) {
        self.theirs = have;
    }

    /// Why the last call failed.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// When the next attempt is made.
    pub fn retry_at(&self) -> TimeMs {
        self.retry_at
    }

    /// Whether the views agreed when the heads were last equal.
    pub fn agrees(&self) -> Option<bool> {
        self.agrees
    }

    /// Time passes: begin, or begin again.
    pub fn tick(&mut self, now: TimeMs) -> Option<Ask> {
        let hold_ended = self.held_until.is_some_and(|at| now >= at);
        if hold_ended {
            self.held_until = None;
            self.greet_wanted = true;
        }
        if self.talk == Talk::Quiet && self.following && !self.quests.is_empty() {
            return self.rest_or_search();
        }
        let due = !self.following || self.greet_wanted;
        (self.talk == Talk::Quiet && due && now >= self.retry_at).then(|| self.greet())
    }

    /// Greet again soon, although we follow: somebody wants to know how far the peer is, or blocks are missing.
    pub fn want_greeting(&mut self) {
        self.greet_wanted = true;
    }

    /// A block was held until `at`: ask again then, and not before.
    pub fn hold_until(&mut self, at: TimeMs) {
        self.held_until = Some(self.held_until.map_or(at, |held| held.min(at)));
    }

    /// A block came that cannot be used yet: something before it is missing or held. Ask again, but not in a circle.
    pub fn missed(&mut self, now: TimeMs) {
        match self.last_missed {
            _ if self.held_until.is_some() => {} // asked again when the hold ends
            Some(last) if now < last.plus(MISS_PAUSE_MS) => self.hold_until(last.plus(MISS_PAUSE_MS)),
            _ => {
                self.last_missed = Some(now);
                self.want_greeting();
            }
        }
    }

    /// A pull came to its end; `same`: it brought us to what the peer holds.
    pub fn pulled(&mut self, same: bool) {
        self.greet_wanted &= !same;
    }

    fn greet(&mut self) -> Ask {
        self.talk = Talk::Greeting;
        self.greet_wanted = false;
        Ask::Greet
    }

    /// The peer answered our greeting.
    pub fn greeted(&mut self, greeting: &Greeting, ours: &Ours<'_>, now: TimeMs) -> Option<Ask> {
        self.heard(now, greeting.time);
        if self.talk != Talk::Greeting {
            return None;
        }
        self.banned = false;
        self.theirs = greeting.have.clone();
        self.semantics_max = greeting.semantics_max;
        let behind = greeting.charter_version > ours.charters.version();
        // Of two chains that part, the longer one is the one that can tell: it holds a version of that number.
        let differs = ours.charters.hash_of(greeting.charter_version).is_some_and(|h| h != greeting.charter_hash);
        if behind || differs {
            self.talk = Talk::Charters;
            // From the start: two chains may differ further back, and of two that differ in length too, only this
            // shows the first version at which they do (C4). Chains are short.
            return Some(Ask::Charters { from: 2 });
        }
        Some(self.ask_proofs(ours))
    }

    fn ask_proofs(&mut self, ours: &Ours<'_>) -> Ask {
        self.talk = Talk::Proofs;
        Ask::Proofs { have: ours.proofs.to_vec() }
    }

    /// A call ended as it should.
    pub fn ended(&mut self, call: Call, ours: &Ours<'_>, now: TimeMs) -> Option<Ask> {
        match (call, self.talk) {
            // Its end was noticed already, and how long to wait was decided then.
            (Call::Follow, _) if !self.following => None,
            (Call::Follow, _) => {
                self.following = false;
                self.retry_at = now.plus(BACKOFF_MIN_MS);
                None
            }
            (Call::Talk, Talk::Charters) => Some(self.ask_proofs(ours)),
            (Call::Talk, Talk::Proofs) => Some(self.ask_blocks(ours)),
            (Call::Talk, Talk::Pulling) => self.rest_or_search(),
            (Call::Talk, Talk::Searching) => {
                // Ended without the header that was asked for: whoever claims a head must be able to show it.
                if !std::mem::take(&mut self.answered)
                    && let Some(Quest::Search(search)) = self.quests.pop_front()
                {
                    self.unshown = Some(search.origin);
                }
                self.rest_or_search()
            }
            (Call::Talk, Talk::Greeting | Talk::Quiet) => {
                self.talk = Talk::Quiet;
                None
            }
        }
    }

    fn ask_blocks(&mut self, ours: &Ours<'_>) -> Ask {
        if self.following {
            self.talk = Talk::Pulling;
            Ask::Pull { have: ours.have.clone() }
        } else {
            self.following = true;
            self.failures = 0;
            self.talk = Talk::Quiet;
            self.last_error = None;
            Ask::Follow { have: ours.have.clone() }
        }
    }

    fn rest_or_search(&mut self) -> Option<Ask> {
        self.talk = Talk::Quiet;
        let ask = self.quests.front()?.ask();
        self.talk = Talk::Searching;
        Some(ask)
    }

    /// A call failed.
    pub fn failed(&mut self, trouble: &Trouble, now: TimeMs) -> Option<Ask> {
        let (wait, why) = match trouble {
            Trouble::Unreachable(why) => {
                let doubled = BACKOFF_MIN_MS << self.failures.min(16);
                (self.draw.around(doubled.min(BACKOFF_MAX_MS)), why)
            }
            Trouble::Refused(why) => (REFUSED_RETRY_MS, why),
            Trouble::Nonsense(why) => {
                self.banned = true;
                (BAN_MS, why)
            }
        };
        let was_talking = self.following || self.talk != Talk::Quiet;
        // Calls that break together are one failure, and a ban is not cut short by what ends after it began.
        self.failures = self.failures.saturating_add(u32::from(was_talking));
        if now.plus(wait) > self.retry_at {
            self.retry_at = now.plus(wait);
            self.last_error = Some(why.clone());
        }
        self.talk = Talk::Quiet;
        self.following = false;
        self.answered = false;
        self.quests.clear();
        was_talking.then_some(Ask::Hangup)
    }

    /// The peer greeted us, so it is there and knows us: a wait after failures, or after it refused us, ends soon.
    /// A ban does not.
    pub fn called(&mut self, now: TimeMs) {
        if !self.banned {
            self.retry_at = self.retry_at.min(now.plus(BACKOFF_MIN_MS));
        }
    }

    /// The peer is alive; `time` is its clock.
    pub fn heard(&mut self, now: TimeMs, time: TimeMs) {
        self.last_heard = now;
        let signed = |t: TimeMs| i64::try_from(t.0).unwrap_or(i64::MAX);
        self.clock_offset_ms = signed(time).saturating_sub(signed(now));
    }

    /// The peer holds what we hold, and shows the same list or another one. `true`: another one, so often in a row that
    /// it is not because one of the two is about to learn what the other knows already, such as a proof.
    pub fn compared(&mut self, agrees: bool) -> bool {
        self.disagreed = if agrees { 0 } else { self.disagreed.saturating_add(1) };
        if !agrees {
            self.want_greeting();
        }
        let diverged = self.disagreed >= DISAGREEMENTS;
        if agrees || diverged {
            self.agrees = Some(agrees);
        }
        diverged
    }

    /// The two no longer hold the same.
    pub fn incomparable(&mut self) {
        self.disagreed = 0;
    }

    /// The log of which the peer claimed a head that it then could not show, once.
    pub fn take_unshown(&mut self) -> Option<Origin> {
        self.unshown.take()
    }

    /// The peer's chain of `origin` is not ours at `differs`: find the first difference.
    pub fn search(&mut self, origin: Origin, differs: Seq, next: Option<SignedHeader>) -> Option<Ask> {
        if differs == Seq(0) {
            return None;
        }
        self.quest(Quest::Search(Box::new(Search { origin, same: Seq(0), differs, theirs: None, next })))
    }

    /// The peer holds another chain of `origin` than we do, and it may be the one that counts: fetch its header hashes
    /// from `from` to `to`. `prev`: the hash before, on which both agree.
    pub fn trace(&mut self, origin: Origin, from: Seq, to: Seq, prev: HeaderHash) -> Option<Ask> {
        self.quest(Quest::Trace(Trace { origin, from, to, prev, hashes: Vec::new() }))
    }

    fn quest(&mut self, quest: Quest) -> Option<Ask> {
        let same =
            |q: &Quest| q.origin() == quest.origin() && std::mem::discriminant(q) == std::mem::discriminant(&quest);
        if self.quests.len() >= SEARCHES_MAX || self.quests.iter().any(same) {
            return None;
        }
        self.quests.push_back(quest);
        if self.talk == Talk::Quiet { self.rest_or_search() } else { None }
    }

    /// A header that a quest asked for; `ours` is the hash of our header at its place.
    pub fn header(&mut self, header: VerifiedHeader, ours: Option<HeaderHash>) -> Option<Found> {
        let found = match self.quests.front_mut()? {
            Quest::Search(search) => search.header(header, ours),
            Quest::Trace(trace) => trace.header(&header),
        };
        self.answered |= !matches!(found, Step::Foreign);
        match found {
            Step::Foreign | Step::On => None,
            Step::End(found) => {
                self.quests.pop_front();
                found
            }
        }
    }
}

/// What a header was to a quest.
enum Step {
    /// Not what was asked for.
    Foreign,
    /// More are wanted.
    On,
    /// The last one.
    End(Option<Found>),
}

impl Search {
    fn header(&mut self, header: VerifiedHeader, ours: Option<HeaderHash>) -> Step {
        let id = header.header().id;
        if (id.origin, id.seq) != (self.origin, self.wants()) {
            return Step::Foreign;
        }
        let equal = ours == Some(header.signed().hash());
        if equal && self.theirs.is_none() {
            let next = self.next.take();
            return Step::End(next.map(|bad| Found::Fault(self.origin, Box::new(bad))));
        }
        if equal {
            self.same = id.seq;
        } else {
            self.differs = id.seq;
            self.theirs = Some(header);
        }
        if self.differs.0 - self.same.0 > 1 {
            return Step::On;
        }
        Step::End(self.theirs.take().map(|theirs| Found::Fork(Box::new(theirs))))
    }
}

impl Trace {
    fn header(&mut self, header: &VerifiedHeader) -> Step {
        let fields = header.header();
        if (fields.id.origin, fields.id.seq) != (self.origin, self.next()) || fields.prev != self.prev {
            return Step::Foreign;
        }
        self.prev = header.signed().hash();
        self.hashes.push(self.prev);
        if self.next() <= self.to {
            return Step::On;
        }
        Step::End(Some(Found::Chain(self.origin, self.from, std::mem::take(&mut self.hashes))))
    }
}

/// What a node serves: everything durable, as one value that streams read without asking the replica.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Durable heads, with each log's lane.
    pub heads: BTreeMap<Origin, (Option<Class>, Head)>,
    /// Highest charter version held.
    pub charter_version: u64,
    /// Hash of that version.
    pub charter_hash: Option<CharterHash>,
    /// Proofs held.
    pub proofs: Vec<[u8; 32]>,
}

impl Published {
    /// As a have vector.
    pub fn have(&self) -> Have {
        let mut have = Have::default();
        for (origin, (_, head)) in &self.heads {
            have.set(*origin, *head);
        }
        have
    }
}

/// Our side of a stream that somebody pulls or follows: what to send next (PROTOCOL 6.2, "Order of work").
#[derive(Clone, Debug)]
pub struct Feed {
    sent: BTreeMap<Origin, Seq>,
    /// Bytes sent while both normal and bulk blocks waited: `[normal, bulk]`.
    contended: [u64; 2],
    contending: bool,
    /// By lane.
    last: [Option<Origin>; 3],
}

impl Feed {
    /// A stream that begins where `have` ends.
    pub fn new(have: &Have) -> Self {
        let sent = have.iter().map(|(origin, head)| (origin, head.seq)).collect();
        Self { sent, contended: [0; 2], contending: false, last: [None; 3] }
    }

    /// The next block to send, if any is waiting: urgent first; bulk at most half of the bytes while normal waits.
    pub fn next(&mut self, published: &Published) -> Option<BlockId> {
        let mut first: [Option<Origin>; 3] = [None; 3];
        for (origin, (class, head)) in &published.heads {
            let lane = lane(*class);
            // Round robin within a lane: logs after the last one served come first. Each lane has a last one of its own:
            // else a member with a backlog in bulk and in normal would have every turn of normal, after each of its bulk.
            let turn = |origin: Origin| (Some(origin) <= self.last[lane], origin);
            if self.sent(*origin) < head.seq && first[lane].is_none_or(|first| turn(*origin) < turn(first)) {
                first[lane] = Some(*origin);
            }
        }
        let [urgent, normal, bulk] = first;
        self.contending = urgent.is_none() && normal.is_some() && bulk.is_some();
        let origin = match (urgent, normal, bulk) {
            (Some(origin), _, _) => origin,
            (None, Some(_), Some(bulk)) if self.contended[1] < self.contended[0] => bulk,
            (None, normal, bulk) => normal.or(bulk)?,
        };
        let seq = self.sent(origin).next();
        self.sent.insert(origin, seq);
        let class = published.heads.get(&origin).and_then(|(class, _)| *class);
        self.last[lane(class)] = Some(origin);
        Some(BlockId { origin, seq })
    }

    /// Notes the size of the block that [`Feed::next`] named.
    pub fn sent_bytes(&mut self, published: &Published, block: BlockId, bytes: u64) {
        if self.contending {
            let class = published.heads.get(&block.origin).and_then(|(class, _)| *class);
            self.contended[usize::from(class != Some(Class::Normal))] += bytes;
        } else {
            self.contended = [0; 2];
        }
    }

    fn sent(&self, origin: Origin) -> Seq {
        self.sent.get(&origin).copied().unwrap_or_default()
    }
}

fn lane(class: Option<Class>) -> usize {
    usize::from(class.map_or(2, Class::rank))
}

/// Pseudo-random numbers from a seed: the replica draws nothing from outside.
#[derive(Clone, Debug)]
pub struct Draw(pub u64);

impl Draw {
    /// The next number (splitmix64).
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `end` - 1; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.number() % end }
    }

    /// `mean` +- 50 %.
    pub fn around(&mut self, mean: u64) -> u64 {
        mean / 2 + self.below(mean + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::ids::{HeaderHash, sha256};
    use crate::replica::testing::{START, TestForum, origin, verified_header};

    /// What we hold, and what a conversation of it needs to know.
    struct Us {
        have: Have,
        forum: TestForum,
    }

    impl Us {
        fn new() -> Self {
            Self { have: Have::default(), forum: TestForum::of_full(2) }
        }

        fn with<T>(&self, f: impl FnOnce(&Ours<'_>) -> T) -> T {
            let chain = self.forum.chain();
            f(&Ours { have: &self.have, charters: &chain, proofs: &[[7; 32]] })
        }

        /// What a peer that holds the same says of itself.
        fn greeting(&self) -> Greeting {
            let chain = self.forum.chain();
            Greeting {
                charter_version: chain.version(),
                charter_hash: chain.head(),
                semantics_max: 1,
                time: START,
                have: self.have.clone(),
                instance: 0,
                second_copy: false,
            }
        }

        fn greeted(&self, exchange: &mut Exchange, greeting: &Greeting) -> Option<Ask> {
            self.with(|ours| exchange.greeted(greeting, ours, START))
        }

        fn ended(&self, exchange: &mut Exchange, call: Call) -> Option<Ask> {
            self.with(|ours| exchange.ended(call, ours, START))
        }

        /// A conversation that has come as far as following.
        fn following(&self) -> Exchange {
            let mut exchange = Exchange::new(1);
            assert_eq!(exchange.tick(START), Some(Ask::Greet));
            assert!(matches!(self.greeted(&mut exchange, &self.greeting()), Some(Ask::Proofs { .. })));
            assert!(matches!(self.ended(&mut exchange, Call::Talk), Some(Ask::Follow { .. })));
            exchange
        }
    }

    fn unreachable() -> Trouble {
        Trouble::Unreachable("nobody there".into())
    }

    fn nonsense() -> Trouble {
        Trouble::Nonsense("nonsense".into())
    }

    #[test]
    fn a_conversation_greets_asks_for_proofs_and_follows() {
        let us = Us::new();
        let mut exchange = Exchange::new(1);
        assert_eq!(exchange.state(START), State::Idle);
        assert_eq!(exchange.tick(START), Some(Ask::Greet));
        assert_eq!((exchange.state(START), exchange.tick(START)), (State::Hello, None));
        assert_eq!(us.greeted(&mut exchange, &us.greeting()), Some(Ask::Proofs { have: vec![[7; 32]] }));
        assert_eq!(us.ended(&mut exchange, Call::Talk), Some(Ask::Follow { have: us.have.clone() }));
        assert_eq!((exchange.state(START), exchange.is_connected()), (State::Following, true));
        assert_eq!(exchange.tick(START), None, "nothing is due while the stream goes on");
        exchange.want_greeting();
        assert_eq!(exchange.tick(START), Some(Ask::Greet));
        us.greeted(&mut exchange, &us.greeting());
        assert_eq!(exchange.semantics_max(), us.greeting().semantics_max);
        assert_eq!(us.ended(&mut exchange, Call::Talk), Some(Ask::Pull { have: us.have.clone() }));
        assert_eq!(us.ended(&mut exchange, Call::Talk), None);
        assert_eq!(exchange.state(START), State::Following);
    }

    #[test]
    fn a_peer_with_other_charters_is_asked_for_them() {
        let mut us = Us::new();
        let rival = us.forum.clone();
        us.forum.issue(|c| c.name = "ours".into());
        us.forum.issue(|_| ());
        let theirs = |forum: &TestForum| Us { have: Have::default(), forum: forum.clone() }.greeting();
        let mut ahead = us.forum.clone();
        ahead.issue(|_| ());
        let behind = rival.clone();
        let mut forked = rival.clone();
        forked.issue(|c| c.name = "theirs".into());
        let shorter_fork = forked.clone();
        forked.issue(|_| ());
        for (what, greeting, expected) in [
            ("the same", us.greeting(), None),
            ("one more", theirs(&ahead), Some(2)),
            ("fewer", theirs(&behind), None),
            ("as many, of another chain", theirs(&forked), Some(2)),
            ("fewer, of another chain", theirs(&shorter_fork), Some(2)),
        ] {
            let mut exchange = Exchange::new(1);
            exchange.tick(START);
            let ask = us.greeted(&mut exchange, &greeting);
            match expected {
                Some(from) => assert_eq!(ask, Some(Ask::Charters { from }), "{what}"),
                None => assert!(matches!(ask, Some(Ask::Proofs { .. })), "{what}: {ask:?}"),
            }
        }
    }

    #[test]
    fn an_unasked_greeting_begins_nothing() {
        let us = Us::new();
        let mut exchange = us.following();
        assert_eq!(us.greeted(&mut exchange, &us.greeting()), None);
    }

    /// 1 s, 2 s, 4 s ... 5 min, each +- 50 %.
    #[test]
    fn waits_double_up_to_five_minutes_with_jitter() {
        let mut exchange = Exchange::new(1);
        let mut now = START;
        let mut waits = Vec::new();
        for _ in 0..40 {
            assert_eq!(exchange.tick(now), Some(Ask::Greet));
            assert_eq!(exchange.failed(&unreachable(), now), Some(Ask::Hangup));
            waits.push(exchange.retry_at().since(now));
            assert_eq!(exchange.state(now), State::BackOff);
            assert_eq!(exchange.tick(TimeMs(exchange.retry_at().0 - 1)), None);
            now = exchange.retry_at();
        }
        for (n, wait) in waits.iter().enumerate() {
            let mean = (1_000_u64 << n.min(20)).min(300_000);
            assert!((mean / 2..=mean / 2 * 3).contains(wait), "wait {n} is {wait}, expected about {mean}");
        }
        assert!(waits[20..].iter().any(|w| *w < 250_000) && waits[20..].iter().any(|w| *w > 350_000), "{waits:?}");
        // Once it answers, all is forgotten.
        let us = Us::new();
        let mut exchange = us.following();
        exchange.failed(&unreachable(), START);
        assert!(exchange.retry_at().since(START) <= 1_500);
    }

    #[test]
    fn two_conversations_do_not_wait_equally_long() {
        let wait = |seed| {
            let mut exchange = Exchange::new(seed);
            exchange.tick(START);
            exchange.failed(&unreachable(), START);
            exchange.retry_at()
        };
        assert!((1..20).map(wait).collect::<std::collections::BTreeSet<_>>().len() > 15);
    }

    #[test]
    fn a_peer_that_refuses_us_is_asked_again_after_five_minutes() {
        assert_eq!((REFUSED_RETRY_MS, BAN_MS), (300_000, 3_600_000));
        let mut exchange = Us::new().following();
        exchange.failed(&Trouble::Refused("no".into()), START);
        assert_eq!((exchange.retry_at(), exchange.state(START)), (START.plus(REFUSED_RETRY_MS), State::BackOff));
        assert_eq!(exchange.last_error(), Some("no"));
    }

    #[test]
    fn a_ban_lasts_an_hour() {
        let us = Us::new();
        let mut exchange = us.following();
        assert_eq!(exchange.failed(&nonsense(), START), Some(Ask::Hangup));
        let end = START.plus(BAN_MS);
        assert_eq!((exchange.state(START), exchange.retry_at()), (State::Banned, end));
        assert_eq!((exchange.state(TimeMs(end.0 - 1)), exchange.tick(TimeMs(end.0 - 1))), (State::Banned, None));
        assert_eq!(exchange.tick(end), Some(Ask::Greet));
        us.greeted(&mut exchange, &us.greeting());
        assert_eq!(exchange.state(START), State::Pulling);
    }

    /// The peer that sends nonsense and hangs up at once: its other calls end after the ban began.
    #[test]
    fn a_ban_is_not_cut_short_by_calls_that_end_after_it_began() {
        let us = Us::new();
        for late in [None, Some(unreachable()), Some(Trouble::Refused("no".into()))] {
            let mut exchange = us.following();
            exchange.failed(&nonsense(), START);
            match late {
                None => assert_eq!(us.ended(&mut exchange, Call::Follow), None),
                Some(trouble) => assert_eq!(exchange.failed(&trouble, START), None),
            }
            assert_eq!(us.ended(&mut exchange, Call::Talk), None);
            assert_eq!((exchange.state(START), exchange.retry_at()), (State::Banned, START.plus(BAN_MS)));
        }
    }

    #[test]
    fn two_calls_that_break_together_are_one_failure() {
        let us = Us::new();
        let mut exchange = us.following();
        exchange.failed(&unreachable(), START);
        exchange.failed(&unreachable(), START);
        let now = exchange.retry_at();
        exchange.tick(now);
        exchange.failed(&unreachable(), now);
        assert!(exchange.retry_at().since(now) <= 3_000, "the second failure, not the third");
    }

    #[test]
    fn a_held_block_is_asked_for_when_its_time_has_come() {
        let us = Us::new();
        let mut exchange = us.following();
        exchange.hold_until(START.plus(500));
        exchange.hold_until(START.plus(900));
        assert_eq!(exchange.tick(START.plus(499)), None);
        assert_eq!(exchange.tick(START.plus(500)), Some(Ask::Greet));
    }

    #[test]
    fn a_followed_stream_that_ends_is_begun_again_after_a_second() {
        let us = Us::new();
        let mut exchange = us.following();
        assert_eq!(us.ended(&mut exchange, Call::Follow), None);
        assert!(!exchange.is_connected());
        assert_eq!(exchange.tick(START.plus(BACKOFF_MIN_MS - 1)), None);
        assert_eq!(exchange.tick(START.plus(BACKOFF_MIN_MS)), Some(Ask::Greet));
    }

    #[test]
    fn the_peers_clock_is_measured_against_ours() {
        let mut exchange = Exchange::new(1);
        exchange.heard(START, START.plus(90_000));
        assert_eq!(exchange.clock_offset_ms(), 90_000);
        exchange.heard(START, TimeMs(START.0 - 5));
        assert_eq!((exchange.clock_offset_ms(), exchange.last_heard()), (-5, START));
        exchange.heard(START, TimeMs(u64::MAX));
        assert!(exchange.clock_offset_ms() > 0);
    }

    /// Two chains of 40 blocks that part after `common` blocks: the peer's is searched for the first difference.
    fn search_in(common: usize) -> (Option<Found>, usize) {
        let forum = TestForum::of_full(1);
        let ring = forum.keyring();
        let mut log = forum.log(1, 0, Class::Normal);
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for _ in 0..common {
            let frame = log.push(&[]);
            ours.push(frame.header.hash());
            theirs.push(frame);
        }
        let mut other = log.clone();
        other.time = other.time.plus(1);
        for _ in common..40 {
            ours.push(log.push(&[]).header.hash());
            theirs.push(other.push(&[]));
        }
        let us = Us::new();
        let mut exchange = us.following();
        let mut ask = exchange.search(log.origin, Seq(40), None);
        let mut asked = 0;
        while let Some(Ask::Headers { origin, from, to }) = ask {
            assert_eq!((origin, from), (log.origin, to));
            asked += 1;
            let at = usize::try_from(from.0).unwrap() - 1;
            let header = verified_header(&ring, &theirs[at], &log.opening);
            if let Some(found) = exchange.header(header, Some(ours[at])) {
                return (Some(found), asked);
            }
            ask = us.ended(&mut exchange, Call::Talk);
        }
        (None, asked)
    }

    #[test]
    fn a_search_finds_the_first_difference_wherever_it_is() {
        for common in 0..40 {
            let (found, asked) = search_in(common);
            let Some(Found::Fork(header)) = found else { panic!("{common} common blocks: {found:?}") };
            assert_eq!(header.header().id.seq, Seq(common as u64 + 1), "{common} common blocks");
            assert!(asked <= 7, "{asked} questions for 40 blocks");
        }
    }

    #[test]
    fn a_search_that_finds_no_difference_blames_the_block_after() {
        let (found, asked) = search_in(40);
        assert!(found.is_none() && asked == 1);

        let forum = TestForum::of_full(1);
        let mut log = forum.log(1, 0, Class::Normal);
        let head = log.push(&[]);
        let bad = log.draft(&[], |h| h.prev = HeaderHash::ZERO).header;
        let us = Us::new();
        let mut exchange = us.following();
        exchange.search(log.origin, Seq(1), Some(bad.clone()));
        let found = exchange.header(verified_header(&forum.keyring(), &head, &log.opening), Some(head.header.hash()));
        assert!(matches!(found, Some(Found::Fault(at, header)) if at == log.origin && *header == bad));
    }

    #[test]
    fn searches_are_bounded_and_one_a_log() {
        let us = Us::new();
        let mut exchange = us.following();
        assert_eq!(exchange.search(origin(1, 0), Seq(0), None), None, "there is nothing before the first block");
        assert!(exchange.search(origin(1, 0), Seq(5), None).is_some());
        for log_no in 0..200 {
            assert_eq!(exchange.search(origin(1, log_no), Seq(5), None), None);
        }
        assert_eq!(exchange.quests.len(), SEARCHES_MAX);
    }

    #[test]
    fn a_peer_that_cannot_show_what_it_claims_is_not_asked_for_ever() {
        let us = Us::new();
        let mut exchange = us.following();
        assert!(exchange.search(origin(1, 0), Seq(5), None).is_some());
        assert_eq!(us.ended(&mut exchange, Call::Talk), None);
        assert!(exchange.quests.is_empty());
    }

    /// A log of a lane with so many blocks, as it is published.
    fn published(logs: &[(u32, Class, u64)]) -> Published {
        let head = |seq| Head { seq: Seq(seq), hash: HeaderHash(sha256(&[b"head"])) };
        let heads = logs.iter().map(|(no, class, seq)| (origin(1, *no), (Some(*class), head(*seq)))).collect();
        Published { heads, ..Published::default() }
    }

    /// Everything a feed sends, each block with the size that `size` gives it.
    fn sent(feed: &mut Feed, published: &Published, size: impl Fn(Class) -> u64) -> Vec<(u32, u64)> {
        let mut sent = Vec::new();
        while let Some(id) = feed.next(published) {
            let class = published.heads[&id.origin].0.unwrap();
            feed.sent_bytes(published, id, size(class));
            sent.push((id.origin.log_no.0, id.seq.0));
        }
        sent
    }

    #[test]
    fn urgent_blocks_go_first_and_nothing_is_sent_twice() {
        let published = published(&[(0, Class::Normal, 3), (1, Class::Bulk, 3), (2, Class::Urgent, 2)]);
        let mut feed = Feed::new(&Have::default());
        let order = sent(&mut feed, &published, |_| 100);
        assert_eq!(order[..2], [(2, 1), (2, 2)]);
        assert_eq!(order.len(), 8);
        assert_eq!(order.iter().collect::<std::collections::BTreeSet<_>>().len(), 8, "{order:?}");
        assert_eq!(feed.next(&published), None);
        for log_no in 0..3 {
            let places: Vec<_> = order.iter().filter(|(no, _)| *no == log_no).map(|(_, seq)| *seq).collect();
            assert!(places.is_sorted(), "each log in its order");
        }
    }

    #[test]
    fn a_feed_goes_on_where_the_asker_ends() {
        let published = published(&[(0, Class::Normal, 3), (1, Class::Normal, 2)]);
        let mut have = Have::default();
        have.set(origin(1, 0), Head { seq: Seq(2), hash: HeaderHash::ZERO });
        have.set(origin(1, 1), Head { seq: Seq(9), hash: HeaderHash::ZERO });
        assert_eq!(sent(&mut Feed::new(&have), &published, |_| 1), [(0, 3)]);
    }

    #[test]
    fn bulk_gets_at_most_half_of_the_bytes_while_normal_waits() {
        const BULK: u64 = 260_000;
        for normal_size in [300, 5_000, BULK, 1_000_000] {
            let published = published(&[(0, Class::Normal, 400), (1, Class::Bulk, 400)]);
            let mut feed = Feed::new(&Have::default());
            let mut bytes = [0_u64; 2];
            while bytes[0] < 390 * normal_size
                && let Some(id) = feed.next(&published)
            {
                let is_bulk = usize::from(id.origin.log_no.0 == 1);
                let size = if is_bulk == 1 { BULK } else { normal_size };
                feed.sent_bytes(&published, id, size);
                bytes[is_bulk] += size;
                assert!(bytes[1] <= bytes[0] + BULK, "{bytes:?} with blocks of {normal_size}");
            }
            let waited = bytes[1] == 400 * BULK || bytes[1] + normal_size >= bytes[0];
            assert!(waited, "and bulk is not starved: {bytes:?} with blocks of {normal_size}");
        }
    }

    #[test]
    fn logs_of_one_lane_take_turns() {
        let published = published(&[(0, Class::Normal, 3), (1, Class::Normal, 3), (2, Class::Normal, 1)]);
        let order = sent(&mut Feed::new(&Have::default()), &published, |_| 1);
        assert_eq!(order, [(0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (0, 3), (1, 3)]);
    }

    /// However much a member has said, in whatever lanes and logs, what another says in the normal lane waits for one
    /// turn of each log, and for no more bytes of bulk than of those.
    #[test]
    fn m20_a_member_that_floods_every_lane_delays_another_by_a_turn_of_each_of_its_logs() {
        const BLOCK_MAX: u64 = 256 * 1024;
        let head = |seq| Head { seq: Seq(seq), hash: HeaderHash(sha256(&[b"head"])) };
        // The flooding member is 2: others are before it and after it in the order of members.
        for honest in [1, 3] {
            for (normal_logs, bulk_logs) in [(0, 1), (1, 1), (1, 15), (8, 8), (15, 1)] {
                for [normal_size, bulk_size] in [[BLOCK_MAX, BLOCK_MAX], [300, BLOCK_MAX], [BLOCK_MAX, 300]] {
                    let class = |log_no| if log_no < bulk_logs { Class::Bulk } else { Class::Normal };
                    let flood = (0..bulk_logs + normal_logs).map(|n| (origin(2, n), (Some(class(n)), head(2_000))));
                    let mut published = Published { heads: flood.collect(), ..Published::default() };
                    let mut feed = Feed::new(&Have::default());
                    let mut next = |published: &Published| {
                        let id = feed.next(published).unwrap();
                        let is_bulk = published.heads[&id.origin].0 == Some(Class::Bulk);
                        let bytes = if is_bulk { bulk_size } else { normal_size };
                        feed.sent_bytes(published, id, bytes);
                        (id.origin, is_bulk, bytes)
                    };
                    // Well into the flood somebody else says one thing.
                    for _ in 0..501 {
                        next(&published);
                    }
                    published.heads.insert(origin(honest, 0), (Some(Class::Normal), head(1)));
                    let (mut turns, mut bulk) = (0, 0);
                    loop {
                        let (from, is_bulk, bytes) = next(&published);
                        if from == origin(honest, 0) {
                            break;
                        }
                        turns += u32::from(!is_bulk);
                        bulk += if is_bulk { bytes } else { 0 };
                        let case = (honest, normal_logs, bulk_logs, normal_size, bulk_size);
                        assert!(turns <= normal_logs, "{turns} turns before it: {case:?}");
                        let fair = u64::from(normal_logs + 1) * normal_size + bulk_size;
                        assert!(bulk <= fair, "{bulk} bytes of bulk before it, fair are {fair}: {case:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_draw_is_the_same_for_the_same_seed_and_within_its_bounds() {
        let draw = |seed| (0..50).map(|_| ()).scan(Draw(seed), |d, ()| Some(d.below(7))).collect::<Vec<_>>();
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
        assert!(draw(3).iter().all(|n| *n < 7));
        assert_eq!(Draw(1).below(0), 0);
        let mut d = Draw(5);
        assert!((0..1_000).map(|_| d.around(100)).all(|n| (50..=150).contains(&n)));
    }
}
