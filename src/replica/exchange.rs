//! The conversation with one peer as a small machine: greet, compare heads, ask, deliver, rest, back off
//! (PROTOCOL section 6). It decides; the follower carries out.
//!
//! No cursors: what we durably hold is what we ask to go on from, so a conversation that breaks off anywhere simply
//! begins again.

use std::collections::{BTreeMap, VecDeque};

use super::block::SignedHeader;
use super::charter::CharterChain;
use super::heads::Have;
use super::ids::{BlockId, CharterHash, Class, Head, Origin, Seq, TimeMs};
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
    /// Its view digest at that hour.
    pub view_digest: [u8; 32],
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

/// What a search found.
#[derive(Debug)]
pub enum Found {
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
    searches: VecDeque<Search>,
    answered: bool,
    theirs: Have,
    last_heard: TimeMs,
    clock_offset_ms: i64,
    last_error: Option<String>,
    agrees: Option<bool>,
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
            searches: VecDeque::new(),
            answered: false,
            theirs: Have::default(),
            last_heard: TimeMs(0),
            clock_offset_ms: 0,
            last_error: None,
            agrees: None,
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

    /// What the peer last said it holds.
    pub fn theirs(&self) -> &Have {
        &self.theirs
    }

    /// When the peer last said anything.
    pub fn last_heard(&self) -> TimeMs {
        self.last_heard
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
        if self.talk == Talk::Quiet && self.following && !self.searches.is_empty() {
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
    ///
    /// # Errors
    /// When it takes back what it said before: it is answerable for that.
    pub fn greeted(&mut self, greeting: &Greeting, ours: &Ours<'_>, now: TimeMs) -> Result<Option<Ask>, Trouble> {
        self.heard(now, greeting.time);
        if self.talk != Talk::Greeting {
            return Ok(None);
        }
        self.banned = false;
        self.theirs = greeting.have.clone();
        let behind = greeting.charter_version > ours.charters.version();
        // Of two chains that part, the longer one is the one that can tell: it holds a version of that number.
        let differs = ours.charters.hash_of(greeting.charter_version).is_some_and(|h| h != greeting.charter_hash);
        if behind || differs {
            self.talk = Talk::Charters;
            // From the start: two chains may differ further back, and of two that differ in length too, only this
            // shows the first version at which they do (C4). Chains are short.
            return Ok(Some(Ask::Charters { from: 2 }));
        }
        Ok(Some(self.ask_proofs(ours)))
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
                if !std::mem::take(&mut self.answered) {
                    self.searches.pop_front();
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
        let search = self.searches.front()?;
        self.talk = Talk::Searching;
        let at = search.wants();
        Some(Ask::Headers { origin: search.origin, from: at, to: at })
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
        self.searches.clear();
        was_talking.then_some(Ask::Hangup)
    }

    /// The peer is alive; `time` is its clock.
    pub fn heard(&mut self, now: TimeMs, time: TimeMs) {
        self.last_heard = now;
        let signed = |t: TimeMs| i64::try_from(t.0).unwrap_or(i64::MAX);
        self.clock_offset_ms = signed(time).saturating_sub(signed(now));
    }

    /// The peer holds what we hold, and shows the same list or another one.
    pub fn compared(&mut self, agrees: bool) {
        self.agrees = Some(agrees);
    }

    /// The peer's chain of `origin` is not ours at `differs`: find the first difference.
    pub fn search(&mut self, origin: Origin, differs: Seq, next: Option<SignedHeader>) -> Option<Ask> {
        let known = self.searches.iter().any(|s| s.origin == origin);
        if known || self.searches.len() >= SEARCHES_MAX || differs == Seq(0) {
            return None;
        }
        self.searches.push_back(Search { origin, same: Seq(0), differs, theirs: None, next });
        if self.talk == Talk::Quiet { self.rest_or_search() } else { None }
    }

    /// A header that a search asked for; `ours` is the hash of our header at its place.
    pub fn header(&mut self, header: VerifiedHeader, ours: Option<super::ids::HeaderHash>) -> Option<Found> {
        let id = header.header().id;
        let search = self.searches.front_mut().filter(|s| s.origin == id.origin && s.wants() == id.seq)?;
        self.answered = true;
        let equal = ours == Some(header.signed().hash());
        if equal && search.theirs.is_none() {
            let search = self.searches.pop_front()?;
            return search.next.map(|bad| Found::Fault(search.origin, Box::new(bad)));
        }
        if equal {
            search.same = id.seq;
        } else {
            search.differs = id.seq;
            search.theirs = Some(header);
        }
        if search.differs.0 - search.same.0 > 1 {
            return None;
        }
        let search = self.searches.pop_front()?;
        search.theirs.map(|theirs| Found::Fork(Box::new(theirs)))
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
    last: Option<Origin>,
}

impl Feed {
    /// A stream that begins where `have` ends.
    pub fn new(have: &Have) -> Self {
        let sent = have.iter().map(|(origin, head)| (origin, head.seq)).collect();
        Self { sent, contended: [0; 2], contending: false, last: None }
    }

    /// The next block to send, if any is waiting: urgent first; bulk at most half of the bytes while normal waits.
    pub fn next(&mut self, published: &Published) -> Option<BlockId> {
        let mut first: [Option<Origin>; 3] = [None; 3];
        let mut waiting =
            published.heads.iter().filter(|(origin, (_, head))| self.sent(**origin) < head.seq).collect::<Vec<_>>();
        // Round robin within a lane: logs after the last one served come first.
        waiting.sort_by_key(|(origin, _)| (Some(**origin) <= self.last, **origin));
        for (origin, (class, _)) in waiting {
            let lane = usize::from(class.map_or(2, Class::rank));
            first[lane].get_or_insert(*origin);
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
        self.last = Some(origin);
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

    fn ours(have: &Have, charter_version: u64) -> Ours<'_> {
        Ours { have, charter_version, charter_hash: CharterHash([1; 32]), proofs: &[] }
    }

    fn greeting(charter_version: u64, hash: u8) -> Greeting {
        Greeting {
            charter_version,
            charter_hash: CharterHash([hash; 32]),
            semantics_max: 1,
            time: TimeMs(0),
            have: Have::default(),
        }
    }

    /// A conversation that follows.
    fn following(have: &Have, now: TimeMs) -> Exchange {
        let mut exchange = Exchange::new(1);
        assert_eq!(exchange.tick(now), Some(Ask::Greet));
        exchange.greeted(&greeting(3, 1), &ours(have, 3), now).unwrap();
        assert!(matches!(exchange.ended(Call::Talk, &ours(have, 3), now), Some(Ask::Follow { .. })));
        exchange
    }

    #[test]
    fn charters_are_fetched_from_where_two_chains_can_part() {
        for (version, hash) in [(3, 2), (9, 2)] {
            let (mut exchange, have) = (Exchange::new(1), Have::default());
            exchange.tick(TimeMs(0));
            let ask = exchange.greeted(&greeting(version, hash), &ours(&have, 3), TimeMs(0)).unwrap();
            assert_eq!(ask, Some(Ask::Charters { from: 2 }));
        }
    }

    #[test]
    fn blocks_behind_one_that_is_held_do_not_lead_in_a_circle() {
        let (now, have) = (TimeMs(1_000_000), Have::default());
        let mut exchange = following(&have, now);
        exchange.missed(now);
        assert_eq!(exchange.tick(now), Some(Ask::Greet), "the first time at once");
        exchange.greeted(&greeting(3, 1), &ours(&have, 3), now).unwrap();
        assert!(matches!(exchange.ended(Call::Talk, &ours(&have, 3), now), Some(Ask::Pull { .. })));
        exchange.missed(now);
        exchange.missed(now);
        exchange.ended(Call::Talk, &ours(&have, 3), now);
        assert_eq!(exchange.tick(now.plus(MISS_PAUSE_MS - 1)), None);
        assert_eq!(exchange.tick(now.plus(MISS_PAUSE_MS)), Some(Ask::Greet));
    }

    #[test]
    fn what_is_held_until_later_is_not_asked_for_before() {
        let (now, have) = (TimeMs(1_000_000), Have::default());
        let mut exchange = following(&have, now);
        exchange.hold_until(now.plus(60_000));
        exchange.missed(now);
        assert_eq!(exchange.tick(now.plus(59_999)), None);
        assert_eq!(exchange.tick(now.plus(60_000)), Some(Ask::Greet));
    }
}
