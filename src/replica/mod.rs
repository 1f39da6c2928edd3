//! The replica: the heart of the node, and its one door.
//!
//! [`Replica::handle`] takes an input and the time and returns what should happen. It opens no socket, reads no clock,
//! draws no random number and touches no disk, and does the same on every machine that feeds it the same inputs.
//!
//! What is accepted is first *staged*: its effects say what to write. When the caller has written and flushed them, it
//! says so with [`Input::Durable`]; only then does the replica count it, publish it and answer for it
//! (PROTOCOL W1: durable, published, acknowledged).
//!
//! The modules below are declared in the order in which a stranger should read them.

mod attest;
mod image;
mod receive;
mod remembered;
mod restore;
mod standing;
mod submit;
#[cfg(test)]
mod tests;

pub mod admission;
pub mod block;
pub mod charter;
pub mod exchange;
pub mod finality;
pub mod forks;
pub mod heads;
pub mod ids;
pub mod index;
pub mod log;
pub mod merkle;
pub mod notes;
pub mod own;
pub mod record;
pub mod signal;
pub mod signed;
pub mod stored;
pub mod strict;
pub mod suspension;
pub mod taxonomy;
#[cfg(test)]
pub(crate) mod testing;
pub mod verdict;
pub mod view;
pub mod vpdq;
pub mod wrong;

/// Messages of `staydown.peer.v1`.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    reason = "generated; the documentation is in the proto files"
)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/messages/staydown.peer.v1.rs"));
}

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use ed25519_dalek::SigningKey;

use self::block::SignedHeader;
use self::charter::{CharterChain, CharterError};
use self::exchange::{Ask, Draw, Exchange, Greeting, Ours, PeerEvent, Published, REPAIR_MS, Tick};
use self::forks::{Proofs, VerifiedProof};
use self::heads::Have;
use self::ids::{BlockId, Class, LogNo, MemberId, Origin, Seq, TimeMs};
use self::log::Log;
use self::own::{Answer, Own, Ticket};
use self::signal::Subject;
use self::signed::{Keyring, VerifiedBlock, VerifiedHeader};
use self::view::View;
use self::wrong::Rules;

pub use self::image::{Ground, Image, Unusable};
pub use self::restore::{Break, Restore};
pub use self::standing::Rebuild;

/// Who we are, and what we sign with.
#[derive(Clone)]
pub struct Settings {
    /// Our company.
    pub me: MemberId,
    /// Opens our logs.
    pub root: SigningKey,
    /// From this and a log's number comes the log's key.
    pub log_seed: [u8; 32],
    /// Decides jitter and the choice of repair partners.
    pub seed: u64,
    /// The protocol's rules; the simulator may break one.
    pub rules: Rules,
    /// Names this process among copies of the node: drawn at its start.
    pub instance: u64,
    /// The data directory is a copy or a backup, as far as the files tell: its logs are not written any more.
    pub moved: bool,
    /// Our logs below this number were left behind by an earlier move: never written again. What
    /// [`Replica::next_log_no`] said then.
    pub closed_below: LogNo,
    /// The highest semantics level that this release understands: [`charter::SEMANTICS_MAX`] but in tests of mixed versions.
    pub semantics_max: u32,
}

/// What can happen to a replica.
#[derive(Debug)]
pub enum Input {
    /// Time passed.
    Timer,
    /// Our company says something: records in their strict encoding.
    Submit {
        /// Names the caller in [`Effect::Answer`].
        ticket: Ticket,
        /// The lane.
        class: Class,
        /// The records; all are accepted or none is.
        records: Vec<Bytes>,
    },
    /// Nobody else wants into the batch that is being gathered: sign it (W2).
    Seal,
    /// Everything that earlier effects asked to write is on stable storage.
    Durable,
    /// As [`Input::Durable`], for a caller whose readers wait meanwhile: a piece of it is counted, and the caller goes
    /// on with [`Input::NextPiece`] while [`Replica::is_counting`].
    DurableInPieces,
    /// The next piece of what [`Input::DurableInPieces`] said is durable.
    NextPiece,
    /// A peer said something.
    Peer(MemberId, PeerEvent),
    /// A charter, from a person.
    Charter(proto::SignedCharter),
    /// Our header at the place of a foreign one, as [`Effect::Confront`] asked for.
    Confronted(Box<SignedHeader>, Box<VerifiedHeader>),
    /// Ends the logs that we write, each with a `LogClose`; what is said from now on goes into new ones.
    Close {
        /// Names the caller in [`Effect::Answer`].
        ticket: Ticket,
        /// Keys of new logs come from this seed from now on.
        next_seed: Option<[u8; 32]>,
        /// Number of the reason; 0: not stated.
        reason: u32,
    },
    /// Says again what stands in blocks of ours that do not count: records with the times of their blocks. What we said
    /// since on the same subjects is left alone.
    Resubmit {
        /// Names the caller in [`Effect::Answer`].
        ticket: Ticket,
        /// Records and the times of their blocks.
        said: Vec<(TimeMs, Bytes)>,
    },
    /// The charter names this log root key of ours by now: new logs are opened with it.
    Root(Box<SigningKey>),
    /// What our company never lists, beside what the admission guard knows: in place of what was given before.
    Harmless(Arc<BTreeSet<Subject>>),
    /// Somebody waits for peers to hold what we said: ask them how far they are.
    Probe,
    /// Our process stood still, or its machine did: what was signed with our keys meanwhile, only the peers know.
    Woke,
}

/// What should happen, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Append this frame to the own journal, fsync, read it back.
    Journal(BlockId, Bytes),
    /// Write to the store.
    Store(Write),
    /// Answer a submission.
    Answer(Ticket, Answer),
    /// [`Replica::published`] has changed.
    Publish,
    /// Ask a peer something.
    Ask(MemberId, Ask),
    /// Read our own header at this place and come back with [`Input::Confronted`].
    Confront(BlockId, Box<VerifiedHeader>),
    /// The view must be derived again from all stored blocks: see [`Replica::begin_rebuild`].
    Rebuild,
    /// Records of these blocks are to be erased: whatever is on disk of them is to be written again as
    /// [`signed::Keyring::redact`] leaves it, and nothing of the old bytes may stay.
    Redact(Vec<BlockId>),
    /// The charter changed: members' pins and endpoints are to be read again.
    Roster,
    /// Somebody should know.
    Alarm(Alarm),
}

/// What the store is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A block's frame.
    Block(BlockId, Bytes),
    /// A signed charter, by version.
    Charter(u64, Bytes),
    /// A proof, by its hash.
    Proof([u8; 32], Bytes),
    /// A proof that a stronger one replaced.
    DropProof([u8; 32]),
    /// A submission that waits for the startup guard.
    Outbox(u64, Bytes),
    /// A submission that was signed or refused.
    DropOutbox(u64),
}

/// What people should know at once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// A member told two stories, or signed what breaks the rules.
    Convicted(Origin, Seq),
    /// A block of ours that we did not write: a stolen key, a second copy of this node, or a restored backup.
    OwnLogElsewhere(Origin),
    /// Two charters count for one version.
    CharterFork(u64),
    /// A peer holds the same and shows something else: a bug. Please report.
    Diverged(MemberId),
    /// Something of a later release arrived.
    Upgrade,
    /// A submission from the outbox could not be signed.
    OutboxRefused(u64, String),
    /// A peer sent a charter that does not count.
    CharterRefused(MemberId, String),
    /// A peer sees another copy of this node.
    SecondCopy(MemberId),
}

/// What is written but not yet known to be durable.
#[derive(Debug)]
enum Staged {
    Block(Box<VerifiedBlock>),
    Answer(Ticket, Answer),
    Charter(Box<proto::SignedCharter>),
    CharterFork(Box<proto::CharterFork>),
    Proof(Box<VerifiedProof>),
}

/// Records that are counted before readers get their turn. Every block passes it; a full one takes about a millisecond.
const PIECE_RECORDS: usize = 1;
/// Charters that wait for the one before them to be durable; a chain is fetched in order, so few ever do.
const CHARTERS_WAITING_MAX: usize = 64;
/// How much of the reason for refusing a peer's charter is kept: names in it are as long as the sender likes.
const REFUSAL_CHARS_MAX: usize = 300;
/// How far our clock may be from the middle of the peers' before health says so, in milliseconds.
const CLOCK_OFFSET_MAX_MS: i64 = 60_000;

/// The node's state, but for the bytes on disk.
pub struct Replica {
    settings: Settings,
    chain: CharterChain,
    keyring: Arc<Keyring>,
    proofs: Proofs,
    logs: BTreeMap<Origin, Log>,
    view: View,
    own: Own,
    exchanges: BTreeMap<MemberId, Exchange>,
    staged: VecDeque<Staged>,
    /// How many at the front of `staged` are durable and still to be counted.
    durable_left: usize,
    charters_waiting: VecDeque<(Option<MemberId>, proto::SignedCharter)>,
    published: Arc<Published>,
    alarms: BTreeSet<Alarm>,
    next_repair: TimeMs,
    draw: Draw,
    standing: standing::Standing,
    attester: attest::Attester,
    /// For the wrong rules "reject from the future" and "expel on arrival" only.
    rejected: BTreeSet<Origin>,
    arrived: BTreeMap<Origin, Seq>,
}

impl Replica {
    /// The one door.
    pub fn handle(&mut self, input: Input, now: TimeMs) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Timer => self.tick(now, &mut effects),
            Input::Submit { ticket, class, records } => self.submit(ticket, class, records, now, &mut effects),
            Input::Seal => self.seal(now, &mut effects),
            Input::Durable => self.durable(now, &mut effects),
            Input::DurableInPieces => {
                self.durable_left = self.staged.len();
                self.count_staged(PIECE_RECORDS, now, &mut effects);
            }
            Input::NextPiece => self.count_staged(PIECE_RECORDS, now, &mut effects),
            Input::Peer(peer, event) => self.peer(peer, event, now, &mut effects),
            Input::Charter(charter) => self.charter(None, charter, &mut effects),
            Input::Confronted(ours, theirs) => self.confronted(&ours, &theirs, &mut effects),
            Input::Close { ticket, next_seed, reason } => self.close(ticket, next_seed, reason, now, &mut effects),
            Input::Root(root) => self.take_root(*root),
            Input::Harmless(subjects) => self.own.harmless = subjects,
            Input::Resubmit { ticket, said } => self.resubmit(ticket, said, now, &mut effects),
            Input::Probe => self.exchanges.values_mut().for_each(Exchange::want_greeting),
            Input::Woke => self.woke(),
        }
        effects
    }

    /// Our company.
    pub fn me(&self) -> MemberId {
        self.settings.me
    }

    /// The key that opens our logs.
    pub fn root_key(&self) -> ed25519_dalek::VerifyingKey {
        self.settings.root.verifying_key()
    }

    /// The charter chain.
    pub fn charters(&self) -> &CharterChain {
        &self.chain
    }

    /// What is needed to verify blocks, as of now; cheap to hand to workers.
    pub fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.keyring)
    }

    /// Everything durable, for those who serve it.
    pub fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published)
    }

    /// The list.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// From now on keeps the changes of what a lookup returns: see [`View::follow_changes`].
    pub fn follow_changes(&mut self) {
        self.view.follow_changes();
    }

    /// What changed of that since this was last asked.
    pub fn take_changes(&mut self) -> Vec<view::Change> {
        self.view.take_changes()
    }

    /// What members said since then of which records are one video.
    pub fn take_ties(&mut self) -> Vec<notes::Tie> {
        self.view.take_ties()
    }

    /// Proofs of misbehaviour that we hold.
    pub fn proofs(&self) -> &Proofs {
        &self.proofs
    }

    /// All logs, by origin.
    pub fn logs(&self) -> &BTreeMap<Origin, Log> {
        &self.logs
    }

    /// All conversations, by peer.
    pub fn exchanges(&self) -> &BTreeMap<MemberId, Exchange> {
        &self.exchanges
    }

    /// What people should know.
    pub fn alarms(&self) -> &BTreeSet<Alarm> {
        &self.alarms
    }

    /// Records of ours that were accepted and stand in no block yet.
    pub fn unsealed(&self) -> usize {
        self.own.open.values().map(Vec::len).sum()
    }

    /// Submissions that wait in the outbox.
    pub fn outbox_len(&self) -> usize {
        self.own.outbox.len()
    }

    /// Above every number that any log of ours is known to have.
    pub fn next_log_no(&self) -> LogNo {
        self.own.next_log_no()
    }

    /// The logs that we write, by lane.
    pub fn lanes(&self) -> impl Iterator<Item = (Class, LogNo)> + '_ {
        self.own.lanes.iter().map(|(class, log_no)| (*class, *log_no))
    }

    /// Whether [`Input::NextPiece`] has anything left to do.
    pub fn is_counting(&self) -> bool {
        self.durable_left > 0
    }

    /// Whether the startup guard still waits for peers (W4).
    pub fn guard_pending(&self) -> bool {
        !self.own.may_sign()
    }

    /// How many peers are known to hold `block`.
    pub fn peers_holding(&self, block: BlockId) -> usize {
        self.exchanges.values().filter(|e| e.theirs().seq(block.origin) >= block.seq).count()
    }

    /// What we say of ourselves.
    pub fn greeting(&self, now: TimeMs) -> Greeting {
        Greeting {
            charter_version: self.chain.version(),
            charter_hash: self.chain.head(),
            semantics_max: self.settings.semantics_max,
            time: now,
            have: self.published.have(),
            instance: self.settings.instance,
            second_copy: false,
        }
    }

    /// Our sign of life.
    pub fn pulse(&self, now: TimeMs) -> Tick {
        let (view_hour, view_digest) = self.view.digest();
        Tick {
            time: now,
            have_digest: self.published.have().digest(),
            charter_hash: self.chain.head(),
            view_hour,
            // A list that is being derived again is not the one of these heads and this charter yet.
            view_digest: (self.understands() && !self.standing.due).then_some(view_digest),
            disputes_digest: Some(self.disputes_digest()),
        }
    }

    /// `H("staydown/disputes/v1\n" || (origin:20 || root_key_id:32 || seq:u64)*)` over the lowest disputed place of each log
    /// under each key, ascending. Whoever knows of other forks shows another list by right, until both know the same; two
    /// different proofs of one fork make no difference.
    fn disputes_digest(&self) -> [u8; 32] {
        let mut lowest = BTreeMap::new();
        for proof in self.proofs.iter() {
            let seq = lowest.entry((proof.origin(), proof.root())).or_insert(proof.seq());
            *seq = proof.seq().min(*seq);
        }
        let mut bytes = b"staydown/disputes/v1\n".to_vec();
        for ((origin, root), seq) in lowest {
            bytes.extend_from_slice(&origin.to_bytes());
            bytes.extend_from_slice(&root.0);
            bytes.extend_from_slice(&seq.0.to_be_bytes());
        }
        ids::sha256(&[&bytes])
    }

    /// Signed charters from `version` on, and the proof that the chain forks, if there is one.
    pub fn charters_from(&self, version: u64) -> impl Iterator<Item = &proto::SignedCharter> {
        let fork = self.chain.fork().into_iter().flat_map(|f| f.a.iter().chain(&f.b));
        self.chain.from(version).iter().map(|(signed, _)| signed).chain(fork)
    }

    /// Proofs that somebody who holds `have` lacks.
    pub fn proofs_beyond(&self, have: &BTreeSet<[u8; 32]>) -> Vec<proto::Proof> {
        let proofs = self.proofs.iter().filter(|p| !have.contains(&p.hash())).map(|p| p.message().clone());
        let fork = self.charter_fork().filter(|(hash, _)| !have.contains(hash)).map(|(_, proof)| proof);
        proofs.chain(fork).collect()
    }

    /// The proof that the charter chain forks, with its name.
    fn charter_fork(&self) -> Option<([u8; 32], proto::Proof)> {
        let proof = proto::Proof { p: Some(proto::proof::P::Charter(self.chain.fork()?.clone())) };
        Some((forks::proof_hash(&proof), proof))
    }

    /// The proof of one hash.
    pub fn proof(&self, hash: &[u8; 32]) -> Option<proto::Proof> {
        let charter_fork = || self.charter_fork().filter(|(name, _)| name == hash).map(|(_, proof)| proof);
        self.proofs.iter().find(|p| p.hash() == *hash).map(|p| p.message().clone()).or_else(charter_fork)
    }

    /// A log's opening, for headers that travel without payload.
    pub fn opening(&self, origin: Origin) -> Option<&signed::Opening> {
        self.logs.get(&origin).map(Log::opening)
    }

    fn empty_view(&self, now: TimeMs) -> View {
        #[cfg_attr(not(feature = "wrong-rules"), expect(unused_mut, reason = "changed for the simulator only"))]
        let mut view = View::new(self.law(), now);
        #[cfg(feature = "wrong-rules")]
        if self.settings.rules.break_rule(wrong::WrongRule::QuotaByArrival) {
            view.count_quota_by_arrival();
        }
        view
    }

    /// How the node is, with reasons: GREEN has none.
    pub fn health(&self, now: TimeMs) -> (Health, Vec<String>) {
        let mut reasons = Vec::new();
        let mut level = Health::Green;
        let mut note = |at: Health, why: String| {
            level = level.max(at);
            reasons.push(why);
        };
        let charter = self.chain.effective();
        for alarm in &self.alarms {
            note(alarm.level(), alarm.text(|member| self.name_of(member)));
        }
        if !self.understands() {
            note(Health::Red, format!("charter {} needs a newer release: upgrade", charter.version));
        }
        if charter.valid_until > TimeMs(0) && now > charter.valid_until {
            let grace = now.since(charter.valid_until) <= charter.policy.stale_grace_ms;
            let at = if grace { Health::Yellow } else { Health::Red };
            note(at, format!("charter {} is stale: founders must issue a new one", charter.version));
        }
        for (member, until) in charter.active().filter_map(|m| Some((m, self.suspended(m.id)?))) {
            let at = if member.id == self.settings.me { Health::Red } else { Health::Yellow };
            let hours = until.since(now).div_ceil(TimeMs::HOUR_MS);
            note(at, format!("{} is suspended by a steward for another {hours} h", member.name));
        }
        if self.guard_pending() {
            note(Health::Yellow, "submissions are queued until enough peers told us their heads of our logs".into());
        }
        let connected = self.exchanges.values().filter(|e| e.is_connected()).count();
        if connected == 0 && !self.exchanges.is_empty() {
            note(Health::Yellow, "no peer is reachable".into());
        }
        let mut offsets: Vec<_> =
            self.exchanges.values().filter(|e| e.is_connected()).map(Exchange::clock_offset_ms).collect();
        offsets.sort_unstable();
        if let Some(middle) = offsets.get(offsets.len() / 2).filter(|o| o.abs() > CLOCK_OFFSET_MAX_MS) {
            note(Health::Yellow, format!("our clock differs by {} s from the peers': set it", middle / 1000));
        }
        (level, reasons)
    }

    /// What people call a member.
    pub fn name_of(&self, member: MemberId) -> String {
        self.chain.effective().member(member).map_or_else(|| member.to_string(), |m| m.name.clone())
    }

    fn tick(&mut self, now: TimeMs, effects: &mut Vec<Effect>) {
        self.view.advance(now);
        if self.suspensions_are_due(now) && self.weigh(now, effects) {
            self.rebuild_is_due(effects);
        }
        self.attest(now);
        self.seal(now, effects);
        if now >= self.next_repair {
            self.next_repair = now.plus(self.draw.around(REPAIR_MS));
            // Without a peer no greeting does it.
            self.open_guard(now, effects);
            let connected: Vec<_> =
                self.exchanges.iter().filter(|(_, e)| e.is_connected()).map(|(id, _)| *id).collect();
            let choice = usize::try_from(self.draw.below(connected.len() as u64)).unwrap_or(0);
            if let Some(exchange) = connected.get(choice).and_then(|peer| self.exchanges.get_mut(peer)) {
                exchange.want_greeting();
            }
        }
        for (peer, exchange) in &mut self.exchanges {
            effects.extend(exchange.tick(now).map(|ask| Effect::Ask(*peer, ask)));
        }
    }

    /// Everything staged is on stable storage.
    fn durable(&mut self, now: TimeMs, effects: &mut Vec<Effect>) {
        self.durable_left = self.staged.len();
        self.count_staged(usize::MAX, now, effects);
    }

    /// What is staged and durable: count it, publish it, answer for it, in this order. Ends early after `records_max`
    /// records, but only before a block of somebody else: what we said is answered for together.
    fn count_staged(&mut self, records_max: usize, now: TimeMs, effects: &mut Vec<Effect>) {
        let mut answers = Vec::new();
        let mut changed = Changed::default();
        let mut records = 0;
        while let Some(staged) = self.next_durable(records >= records_max) {
            if let Staged::Block(block) = &staged {
                records += block.records().len();
            }
            match staged {
                Staged::Block(block) => self.count(&block, now, &mut changed),
                Staged::Answer(ticket, answer) => push_answer(ticket, answer, &mut answers),
                Staged::Charter(charter) => self.apply(*charter, &mut changed, effects),
                Staged::CharterFork(fork) => self.apply_fork(&fork, &mut changed, effects),
                Staged::Proof(proof) => self.convict(*proof, &mut changed, effects),
            }
        }
        if changed.standing {
            changed.rebuild |= self.weigh(now, effects);
            changed.published = true;
        }
        if changed.rebuild || self.view.is_stale() || self.has_dropped() {
            self.rebuild_is_due(effects);
        }
        if changed.published {
            self.republish();
            effects.push(Effect::Publish);
        }
        effects.append(&mut answers);
        self.reoffer_orphans(now, effects);
        self.charters_that_waited(effects);
        self.open_guard_if_pending(now, effects);
    }

    fn next_durable(&mut self, enough: bool) -> Option<Staged> {
        let foreign = matches!(self.staged.front(), Some(Staged::Block(b)) if b.id().origin.member != self.settings.me);
        if self.durable_left == 0 || (enough && foreign) {
            return None;
        }
        self.durable_left -= 1;
        self.staged.pop_front()
    }

    /// A block is durable: it may be seen.
    fn count(&mut self, block: &VerifiedBlock, now: TimeMs, changed: &mut Changed) {
        let id = block.id();
        let Some(log) = self.logs.get_mut(&id.origin) else { return };
        if log.hash_at(id.seq) != Some(block.hash()) {
            return; // another chain took its place in the meantime
        }
        log.mark_durable(id.seq);
        changed.published = true;
        changed.standing |= self.note_standing(block);
        changed.standing |= !self.fold(block);
        self.note_for_attests(block, now);
        if id.origin.member == self.settings.me {
            self.own.note_client_keys(id, block.records());
        }
    }

    fn republish(&mut self) {
        let heads = self.logs.iter().filter(|(_, log)| self.knows(log)).filter_map(|(origin, log)| {
            Some((*origin, (Class::from_number(log.opening().class), log.head_at(self.offered(log))?)))
        });
        self.published = Arc::new(Published {
            heads: heads.collect(),
            charter_version: self.chain.version(),
            charter_hash: Some(self.chain.head()),
            proofs: self
                .proofs
                .iter()
                .map(VerifiedProof::hash)
                .chain(self.charter_fork().map(|(hash, _)| hash))
                .collect(),
        });
    }

    /// Whether the log was opened under a key that the charter still knows.
    fn knows(&self, log: &Log) -> bool {
        admission::knows(self.chain.effective(), log.origin(), log.opening().root_key_id)
    }

    fn apply(&mut self, charter: proto::SignedCharter, changed: &mut Changed, effects: &mut Vec<Effect>) {
        match self.chain.apply(charter) {
            Ok(charter::Applied::Known) | Err(_) => {} // another copy came first
            Ok(_) => {
                self.arrived =
                    self.logs.iter().filter(|(o, _)| self.is_expelled(**o)).map(|(o, l)| (*o, l.len())).collect();
                self.charter_changed(changed, effects);
            }
        }
    }

    fn is_expelled(&self, origin: Origin) -> bool {
        self.chain.effective().expulsions.contains_key(&origin.member)
    }

    fn apply_fork(&mut self, fork: &proto::CharterFork, changed: &mut Changed, effects: &mut Vec<Effect>) {
        if let Ok(charter::Applied::Forked) = self.chain.forked(fork) {
            self.alarm(Alarm::CharterFork(self.chain.forked_version().unwrap_or(0)), effects);
            self.charter_changed(changed, effects);
        }
    }

    fn charter_changed(&mut self, changed: &mut Changed, effects: &mut Vec<Effect>) {
        let erased: BTreeSet<_> = self.keyring.erasures().collect();
        Arc::make_mut(&mut self.keyring).renew(&self.chain);
        // Whether they are held or not: of a chain that was dropped, the disk may still have them.
        let new = self.keyring.erasures().filter(|order| !erased.contains(order));
        let ordered: Vec<_> = new.map(|(id, _)| id).collect();
        if !ordered.is_empty() && !self.settings.rules.break_rule(wrong::WrongRule::KeepErased) {
            effects.push(Effect::Redact(ordered));
        }
        self.close_what_is_cut();
        self.meet_peers();
        changed.rebuild = true;
        changed.standing = true;
        changed.published = true;
        effects.push(Effect::Roster);
    }

    /// The founders ended logs of ours: what we say from now on counts in new ones only.
    fn close_what_is_cut(&mut self) {
        let cut: Vec<_> =
            self.law().cutoffs.keys().filter(|o| o.member == self.settings.me).map(|o| o.log_no).collect();
        for log_no in cut {
            self.own.close(log_no);
        }
    }

    /// One conversation for every other active member.
    fn meet_peers(&mut self) {
        let me = self.settings.me;
        let listed = self.chain.effective().active().map(|m| m.id).filter(|id| self.suspended(*id).is_none());
        let peers: BTreeSet<_> = listed.filter(|id| *id != me).collect();
        self.exchanges.retain(|id, _| peers.contains(id));
        self.own.claimed_by.retain(|id, _| peers.contains(id));
        self.own.guard.follow(peers.len());
        for peer in peers {
            let seed = self.draw.number();
            self.exchanges.entry(peer).or_insert_with(|| Exchange::new(seed));
        }
    }

    fn convict(&mut self, proof: VerifiedProof, changed: &mut Changed, effects: &mut Vec<Effect>) {
        let (origin, fork) = (proof.origin(), proof.seq());
        let (hash, known) = (proof.hash(), admission::knows(self.chain.effective(), origin, proof.root()));
        if !self.proofs.add(proof) {
            return;
        }
        changed.published = true;
        if !known {
            // Whoever has a root key that was replaced can tell as many stories under it as he likes: they say nothing
            // of the member, and nothing of the log that it writes under that number now.
            return;
        }
        self.alarm(Alarm::Convicted(origin, fork), effects);
        if self.settings.rules.break_rule(wrong::WrongRule::FirstSeenWins) {
            return;
        }
        // Attestations are read for convicted logs only: those of this one are collected now.
        changed.rebuild = true;
        changed.standing = true;
        if origin.member == self.settings.me {
            self.own.close(origin.log_no);
            self.alarm(Alarm::OwnLogElsewhere(origin), effects);
        } else {
            self.give_evidence(origin, fork, hash);
        }
    }

    fn alarm(&mut self, alarm: Alarm, effects: &mut Vec<Effect>) {
        if self.alarms.insert(alarm.clone()) {
            effects.push(Effect::Alarm(alarm));
        }
    }

    /// Our current word on how a conversation should go on.
    fn with_exchange<T>(&mut self, peer: MemberId, f: impl FnOnce(&mut Exchange, &Ours<'_>) -> T) -> Option<T> {
        let have = self.asks_beyond();
        let ours = Ours { have: &have, charters: &self.chain, proofs: &self.published.proofs };
        self.exchanges.get_mut(&peer).map(|exchange| f(exchange, &ours))
    }

    /// What we durably hold.
    pub fn have(&self) -> Have {
        self.published.have()
    }

    fn my_origin(&self, log_no: LogNo) -> Origin {
        Origin { member: self.settings.me, log_no }
    }

    /// Whether the charter in force is of a semantics level that this release knows.
    pub fn understands(&self) -> bool {
        self.chain.effective().semantics <= self.settings.semantics_max
    }

    /// Keys that may connect at this moment, with their members. [`Effect::Roster`] says when to ask again.
    pub fn listed(&self) -> Vec<(ids::Pin, MemberId)> {
        let active = self.chain.effective().active().filter(|m| self.suspended(m.id).is_none());
        active.flat_map(|m| m.pins.iter().map(|pin| (*pin, m.id))).collect()
    }

    fn is_active(&self) -> bool {
        let me = self.chain.effective().member(self.settings.me);
        me.is_some_and(|m| m.is_active()) && self.suspended(self.settings.me).is_none()
    }

    /// A charter was offered, by a peer or by a person.
    fn charter(&mut self, from: Option<MemberId>, offered: proto::SignedCharter, effects: &mut Vec<Effect>) {
        let waits = self.staged.iter().any(|s| matches!(s, Staged::Charter(_)));
        if waits {
            if self.charters_waiting.len() < CHARTERS_WAITING_MAX {
                self.charters_waiting.push_back((from, offered));
            }
            return;
        }
        let mut trial = self.chain.clone();
        match trial.apply(offered.clone()) {
            Ok(charter::Applied::Known) => {}
            Ok(charter::Applied::Applied) => {
                let bytes = prost::Message::encode_to_vec(&offered).into();
                effects.push(Effect::Store(Write::Charter(trial.version(), bytes)));
                self.staged.push_back(Staged::Charter(Box::new(offered)));
            }
            Ok(charter::Applied::Forked) => {
                if let Some(fork) = trial.fork() {
                    self.stage_charter_fork(fork.clone(), effects);
                }
            }
            Err(CharterError::Gap { .. }) => {} // falling behind is not an error
            Err(error) => {
                // One alarm a peer: it could go on for ever, each time for another reason.
                let told =
                    |from| self.alarms.iter().any(|a| matches!(a, Alarm::CharterRefused(peer, _) if *peer == from));
                if let Some(from) = from.filter(|from| !told(*from)) {
                    let why = error.to_string().chars().take(REFUSAL_CHARS_MAX).collect();
                    self.alarm(Alarm::CharterRefused(from, why), effects);
                }
            }
        }
    }

    fn stage_charter_fork(&mut self, fork: proto::CharterFork, effects: &mut Vec<Effect>) {
        let message = proto::Proof { p: Some(proto::proof::P::Charter(fork.clone())) };
        let bytes = prost::Message::encode_to_vec(&message).into();
        effects.push(Effect::Store(Write::Proof(forks::proof_hash(&message), bytes)));
        self.staged.push_back(Staged::CharterFork(Box::new(fork)));
    }

    fn charters_that_waited(&mut self, effects: &mut Vec<Effect>) {
        while let Some((from, charter)) = self.charters_waiting.pop_front() {
            let staged = self.staged.len();
            self.charter(from, charter, effects);
            if self.staged.len() > staged {
                return;
            }
        }
    }
}

/// Adds an answer. The receipts of one submission may come from two blocks: they are answered together.
fn push_answer(ticket: Ticket, answer: Answer, answers: &mut Vec<Effect>) {
    match (answers.last_mut(), answer) {
        (Some(Effect::Answer(last, Answer::Durable(earlier))), Answer::Durable(receipts)) if *last == ticket => {
            earlier.extend(receipts);
        }
        (_, answer) => answers.push(Effect::Answer(ticket, answer)),
    }
}

/// What has to follow from what became durable.
#[derive(Default)]
struct Changed {
    published: bool,
    /// How far logs count may have changed.
    standing: bool,
    rebuild: bool,
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// As it should be.
    Green,
    /// Works; somebody should look this week.
    Yellow,
    /// Works as far as it can; somebody should look now.
    Red,
}

impl Health {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Green => "GREEN",
            Self::Yellow => "YELLOW",
            Self::Red => "RED",
        }
    }
}

impl Alarm {
    fn level(&self) -> Health {
        match self {
            Self::OwnLogElsewhere(_) | Self::CharterFork(_) | Self::Diverged(_) | Self::SecondCopy(_) => Health::Red,
            _ => Health::Yellow,
        }
    }

    /// Short names of all kinds of alarms.
    pub const KINDS: [&str; 8] = [
        "charter_fork",
        "charter_refused",
        "convicted",
        "diverged",
        "outbox_refused",
        "own_log_elsewhere",
        "second_copy",
        "upgrade",
    ];

    /// A short name, one of [`Alarm::KINDS`].
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Convicted(..) => "convicted",
            Self::OwnLogElsewhere(_) => "own_log_elsewhere",
            Self::CharterFork(_) => "charter_fork",
            Self::Diverged(_) => "diverged",
            Self::Upgrade => "upgrade",
            Self::OutboxRefused(..) => "outbox_refused",
            Self::CharterRefused(..) => "charter_refused",
            Self::SecondCopy(_) => "second_copy",
        }
    }

    /// As people read it; `name` gives the names of members.
    pub fn text(&self, name: impl Fn(MemberId) -> String) -> String {
        match self {
            Self::Convicted(origin, seq) => format!(
                "{} signed contradicting blocks in log {} from block {} on; nothing after that counts",
                name(origin.member),
                origin.log_no.0,
                seq.0
            ),
            Self::OwnLogElsewhere(origin) => format!(
                "a block of our own log {} exists that this node did not write (a restored backup, a second copy of this node, or a stolen key); we go on in a new log",
                origin.log_no.0
            ),
            Self::CharterFork(version) => {
                format!(
                    "two charters count for version {version}; version {} stays in force until people resolve it",
                    version.saturating_sub(1)
                )
            }
            Self::Diverged(peer) => {
                format!("{} holds the same blocks and shows another list: a bug, please report it", name(*peer))
            }
            Self::Upgrade => "something of a later release arrived: upgrade".into(),
            Self::OutboxRefused(id, why) => format!("queued submission {id} was refused: {why}"),
            Self::CharterRefused(peer, why) => format!("{} sent a charter that does not count: {why}", name(*peer)),
            Self::SecondCopy(peer) => format!(
                "another copy of this node is connected to {}: stop one of the two (only one may say anything for our company)",
                name(*peer)
            ),
        }
    }
}
