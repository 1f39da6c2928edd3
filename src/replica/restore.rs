//! Building a replica from what a node has on disk. "Rebuild everything" is not a repair: it is what every start does.
//!
//! Everything read back is checked again, on the road that a stranger's bytes take.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;

use super::block::{Frame, Slot};
use super::charter::{CharterChain, CharterError};
use super::exchange::{Draw, Published};
use super::forks::{self, Proofs};
use super::ids::{BlockId, LogNo, Seq, TimeMs};
use super::log::{Extension, Log};
use super::own::Own;
use super::signed::Keyring;
use super::view::View;
use super::{Effect, Replica, Settings, Write, proto};

/// A replica that is being built. Charters first, then proofs, the outbox, stored blocks in the order of their keys,
/// the journal; then [`Restore::finish`].
pub struct Restore {
    pub(super) replica: Replica,
    pub(super) now: TimeMs,
    /// Last place of each of our own logs in the journal, as an unbroken chain.
    journaled: BTreeMap<LogNo, Seq>,
    closed: BTreeSet<LogNo>,
    /// Records of the outbox: an entry whose record stands in a block of ours was signed already, and a crash or a
    /// salvage brought it back.
    waiting: BTreeMap<Bytes, u64>,
    effects: Vec<Effect>,
    /// Blocks of which the disk still has what was ordered to be erased: a crash came between.
    to_redact: BTreeSet<BlockId>,
}

impl Restore {
    /// Begins with the charters, oldest first; the first names the forum.
    ///
    /// # Errors
    /// When the chain does not hold: nothing can be believed without it.
    pub fn new(
        settings: Settings,
        forum: super::ids::ForumId,
        charters: impl IntoIterator<Item = proto::SignedCharter>,
        now: TimeMs,
    ) -> Result<Self, CharterError> {
        let mut charters = charters.into_iter();
        let first = charters.next().ok_or(CharterError::Gap { expected: 1, got: 0 })?;
        let mut chain = CharterChain::found(forum, first)?;
        for charter in charters {
            chain.apply(charter)?;
        }
        let mut draw = Draw(settings.seed);
        let mut replica = Replica {
            keyring: Arc::new(Keyring::new(&chain)),
            proofs: Proofs::default(),
            logs: BTreeMap::new(),
            view: View::new(chain.effective(), now),
            own: Own::new(0, false),
            exchanges: BTreeMap::new(),
            staged: VecDeque::new(),
            durable_left: 0,
            charters_waiting: VecDeque::new(),
            published: Arc::new(Published::default()),
            alarms: BTreeSet::new(),
            next_repair: now.plus(draw.around(super::REPAIR_MS)),
            draw,
            standing: Default::default(),
            attester: Default::default(),
            rejected: BTreeSet::new(),
            arrived: BTreeMap::new(),
            chain,
            settings,
        };
        replica.view = replica.empty_view(now);
        replica.meet_peers();
        replica.own = Own::new(replica.exchanges.len(), replica.settings.moved);
        Ok(Self {
            replica,
            now,
            journaled: BTreeMap::new(),
            closed: BTreeSet::new(),
            waiting: BTreeMap::new(),
            effects: Vec::new(),
            to_redact: BTreeSet::new(),
        })
    }

    /// A stored proof. `false`: it does not hold (any more), and should be dropped.
    pub fn proof(&mut self, bytes: &[u8]) -> bool {
        let Ok(message) = proto::Proof::decode(bytes) else { return false };
        if let Some(proto::proof::P::Charter(fork)) = &message.p {
            return self.charter_fork(fork);
        }
        let Ok(proof) = forks::verify(message, &self.replica.keyring) else { return false };
        if super::admission::knows(self.replica.chain.effective(), proof.origin(), proof.root()) {
            self.replica.alarms.insert(super::Alarm::Convicted(proof.origin(), proof.seq()));
            if proof.origin().member == self.replica.settings.me {
                // The proof may be all that we have of that log: its number was used.
                self.replica.own.log_nos.insert(proof.origin().log_no);
            }
        }
        self.replica.proofs.add(proof);
        true
    }

    /// C4 outlives a restart: what was built on the newest charter is built on the one in force.
    fn charter_fork(&mut self, fork: &proto::CharterFork) -> bool {
        let held = self.replica.chain.forked(fork);
        if held == Ok(super::charter::Applied::Forked) {
            let version = self.replica.chain.forked_version().unwrap_or(0);
            self.replica.alarms.insert(super::Alarm::CharterFork(version));
            self.replica.view = self.replica.empty_view(self.now);
            self.replica.meet_peers();
            self.replica.own.guard = Own::new(self.replica.exchanges.len(), self.replica.settings.moved).guard;
        }
        held.is_ok()
    }

    /// Records of the blocks that were taken so far.
    pub fn records(&self) -> u64 {
        self.replica.view.records()
    }

    /// A stored block.
    ///
    /// # Errors
    /// Why it is not used: it does not verify, or does not continue its log.
    pub fn stored(&mut self, id: BlockId, bytes: Bytes) -> Result<(), Break> {
        self.take(id, bytes)
    }

    /// A frame of the own journal, in the journal's order.
    ///
    /// # Errors
    /// Why it is not used. Its log is closed, and its records are said again unless the block comes back from a peer.
    pub fn journaled(&mut self, bytes: &Bytes) -> Result<(), Break> {
        let mut frame = Frame::decode(bytes.clone()).map_err(|e| Break::Frame(e.to_string()))?;
        let id = frame.header.header().id;
        let bytes = &if self.replica.keyring.redact(&mut frame) {
            self.to_redact.insert(id);
            frame.encode()
        } else {
            bytes.clone()
        };
        if id.origin.member != self.replica.settings.me {
            return Err(Break::NotOurs(id));
        }
        if frame.slots.iter().any(|slot| matches!(slot, Slot::Redacted(_))) {
            Arc::make_mut(&mut self.replica.keyring).trust_redacted(&frame);
        }
        let log_no = id.origin.log_no;
        self.replica.own.log_nos.insert(log_no);
        let outcome = self.compare_or_take(id, &frame, bytes);
        let in_order = self.journaled.get(&log_no).map_or(Seq(0), |seq| *seq).next() == id.seq;
        if outcome.is_ok() && in_order {
            self.journaled.insert(log_no, id.seq);
        } else {
            self.closed.insert(log_no);
        }
        if outcome.is_err() {
            let records =
                frame.slots.iter().filter_map(|slot| if let Slot::Record(r) = slot { Some(r.clone()) } else { None });
            self.replica.own.orphans.insert(id, (frame.header.header().time, records.collect()));
        }
        outcome
    }

    /// A frame of a journal that was moved aside for damage: its log stays closed for ever.
    ///
    /// # Errors
    /// As [`Restore::journaled`].
    pub fn journaled_aside(&mut self, bytes: &Bytes) -> Result<(), Break> {
        if let Ok(frame) = Frame::decode(bytes.clone()) {
            self.closed.insert(frame.header.header().id.origin.log_no);
        }
        self.journaled(bytes)
    }

    /// The store has the same block, or lags behind the journal and gets it now.
    fn compare_or_take(&mut self, id: BlockId, frame: &Frame, bytes: &Bytes) -> Result<(), Break> {
        let log = self.replica.logs.get(&id.origin);
        let held = log.map_or(Seq(0), Log::len);
        if id.seq <= held {
            let same = log.and_then(|log| log.hash_at(id.seq)) == Some(frame.header.hash());
            if same {
                // A block below a snapshot is met here only.
                self.forget_waiting(frame);
            }
            return if same { Ok(()) } else { Err(Break::Contradicts(id)) };
        }
        self.take(id, bytes.clone())?;
        self.effects.push(Effect::Store(Write::Block(id, bytes.clone())));
        Ok(())
    }

    /// A stored outbox entry. `false`: it does not decode.
    pub fn outbox(&mut self, id: u64, bytes: Bytes) -> bool {
        if !self.replica.restore_outbox(id, bytes) {
            return false;
        }
        let records = self.replica.own.outbox.get(&id).map(|(_, records)| records.as_slice()).unwrap_or_default();
        self.waiting.extend(records.iter().map(|record| (record.clone(), id)));
        true
    }

    /// The replica, and what the store is to catch up on. Peers' answers are awaited before anything is signed (W4).
    pub fn finish(mut self) -> (Replica, Vec<Effect>) {
        // Whatever became of the logs that were left behind, their numbers were used.
        self.replica.own.log_nos.extend(self.replica.settings.closed_below.0.checked_sub(1).map(LogNo));
        let numbers: BTreeSet<_> = self.replica.own.log_nos.iter().copied().collect();
        for log_no in numbers {
            let origin = self.replica.my_origin(log_no);
            let Some(log) = self.replica.logs.get(&origin) else { continue };
            // W4 a: a log is ours to write only if the journal holds all of it.
            let whole = self.journaled.get(&log_no) == Some(&log.len());
            let convicted = self.replica.proofs.fork_of(log).is_some();
            let cut = self.replica.law().cutoffs.contains_key(&origin);
            // Another seed than this log's, or another root key: somebody else could not verify what we would sign.
            let ours = log.opening().key_id == self.replica.log_key_id(log_no) && self.replica.opened_now(log);
            if whole
                && ours
                && !convicted
                && !cut
                && log.ended().is_none()
                && !self.replica.settings.moved
                && log_no >= self.replica.settings.closed_below
                && !self.closed.contains(&log_no)
                && let Some(class) = super::Class::from_number(log.opening().class)
            {
                self.replica.own.lanes.insert(class, log_no); // ascending: the newest log of a lane wins
            }
        }
        let own = &mut self.replica.own;
        own.closed.extend(own.log_nos.iter().filter(|no| !own.lanes.values().any(|open| open == *no)));
        let left = self.replica.settings.moved || self.replica.settings.closed_below > LogNo(0);
        own.lost |= own.closed.iter().any(|no| !self.journaled.contains_key(no)) || left;
        if left && own.lanes.is_empty() {
            // A start that ended before it signed leaves a moved directory as unknowing as it was: it asks as many again.
            own.guard = Own::new(self.replica.exchanges.len(), true).guard;
        }
        let moved = self.replica.weigh(self.now, &mut self.effects);
        if moved || self.replica.view.is_stale() {
            self.replica.rebuild_is_due(&mut self.effects);
        }
        if !self.to_redact.is_empty() {
            self.effects.push(Effect::Redact(self.to_redact.into_iter().collect()));
        }
        self.replica.view.remember_replaced();
        self.replica.republish();
        self.effects.push(Effect::Publish);
        if self.replica.own.may_sign() {
            let mut effects = std::mem::take(&mut self.effects);
            self.replica.drain_outbox(self.now, &mut effects);
            self.effects = effects;
        }
        (self.replica, self.effects)
    }

    /// Verifies and folds one block that is on stable storage.
    fn take(&mut self, id: BlockId, bytes: Bytes) -> Result<(), Break> {
        let replica = &mut self.replica;
        let mut frame = Frame::decode(bytes).map_err(|e| Break::Block(id, e.to_string()))?;
        if id.origin.member == replica.settings.me && frame.slots.iter().any(|s| matches!(s, Slot::Redacted(_))) {
            Arc::make_mut(&mut replica.keyring).trust_redacted(&frame); // out of our journal, perhaps
        }
        if replica.keyring.redact(&mut frame) {
            self.to_redact.insert(id);
        }
        let disputed = replica.fork(id.origin).is_some_and(|fork| fork <= id.seq);
        let block = match replica.keyring.verify(frame) {
            Ok(block) if block.id() == id => block,
            _ if disputed => return Ok(()),
            Ok(block) => return Err(Break::Block(id, format!("it is block {}", block.id()))),
            Err(error) => return Err(Break::Block(id, error.to_string())),
        };
        match replica.extend(&block) {
            Extension::Extended => {}
            // Evidence, or what is left of a chain that made way for another: stays in the store, outside the view.
            _ if disputed => return Ok(()),
            _ => return Err(Break::Chain(id)),
        }
        if let Some(log) = replica.logs.get_mut(&id.origin) {
            log.mark_durable(id.seq);
        }
        replica.note_standing(&block);
        replica.note_for_attests(&block, self.now);
        replica.fold(&block);
        if id.origin.member == replica.settings.me {
            replica.own.note_client_keys(id, block.records());
            self.forget_waiting(block.frame());
        }
        Ok(())
    }

    /// Records of our own block no longer wait in the outbox. An entry is forgotten when all of its records stand in
    /// blocks: one submission may have been cut in two by a block's limits, and a crash between them loses the second.
    fn forget_waiting(&mut self, frame: &Frame) {
        if self.waiting.is_empty() {
            return;
        }
        for slot in &frame.slots {
            let Slot::Record(record) = slot else { continue };
            let Some(id) = self.waiting.remove(record) else { continue };
            let still_waits = self.waiting.values().any(|waiting| *waiting == id);
            if !still_waits && self.replica.own.outbox.remove(&id).is_some() {
                self.effects.push(Effect::Store(Write::DropOutbox(id)));
            }
        }
    }
}

/// Why something on disk is not used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum Break {
    #[error("a journal frame is no block: {0}")]
    Frame(String),
    #[error("block {0} stands in our journal and is another member's")]
    NotOurs(BlockId),
    #[error("block {0} does not verify: {1}")]
    Block(BlockId, String),
    #[error("block {0} does not continue its log")]
    Chain(BlockId),
    #[error("block {0} of the journal is not the one of the store")]
    Contradicts(BlockId),
}
