//! Building a replica from what a node has on disk. "Rebuild everything" is not a repair: it is what every start does.
//!
//! Everything read back is checked again, on the road that a stranger's bytes take.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

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

/// A replica that is being built. Charters first, then proofs, stored blocks in the order of their keys, the journal,
/// the outbox; then [`Restore::finish`].
pub struct Restore {
    replica: Replica,
    now: TimeMs,
    /// Last place of each of our own logs in the store, and in the journal as an unbroken chain.
    stored: BTreeMap<LogNo, Seq>,
    journaled: BTreeMap<LogNo, Seq>,
    closed: BTreeSet<LogNo>,
    /// Records of blocks that the journal has and the store lacks: their outbox entries were signed already.
    caught_up: BTreeSet<Bytes>,
    effects: Vec<Effect>,
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
            own: Own::new(0),
            exchanges: BTreeMap::new(),
            staged: VecDeque::new(),
            charters_waiting: VecDeque::new(),
            published: Arc::new(Published::default()),
            alarms: BTreeSet::new(),
            next_repair: now.plus(draw.around(super::REPAIR_MS)),
            draw,
            rejected: BTreeSet::new(),
            arrived: BTreeMap::new(),
            chain,
            settings,
        };
        replica.view = replica.empty_view(now);
        replica.meet_peers();
        replica.own = Own::new(replica.exchanges.len());
        Ok(Self {
            replica,
            now,
            stored: BTreeMap::new(),
            journaled: BTreeMap::new(),
            closed: BTreeSet::new(),
            caught_up: BTreeSet::new(),
            effects: Vec::new(),
        })
    }

    /// A stored proof. `false`: it does not hold (any more), and should be dropped.
    pub fn proof(&mut self, bytes: &[u8]) -> bool {
        let Ok(message) = proto::Proof::decode(bytes) else { return false };
        if let Some(proto::proof::P::Charter(fork)) = &message.p {
            return self.replica.chain.forked(fork).is_ok();
        }
        let Ok(proof) = forks::verify(message, &self.replica.keyring) else { return false };
        self.replica.alarms.insert(super::Alarm::Convicted(proof.origin(), proof.seq()));
        self.replica.proofs.add(proof);
        true
    }

    /// A stored block. `false`: it does not verify or does not continue its log, and is not used.
    pub fn stored(&mut self, id: BlockId, bytes: Bytes) -> bool {
        let taken = self.take(id, bytes);
        if taken && id.origin.member == self.replica.settings.me {
            self.stored.insert(id.origin.log_no, id.seq);
        }
        taken
    }

    /// A frame of the own journal, in the journal's order; `damaged`: it stands behind a damaged place. `false`: it
    /// is not ours or does not verify.
    pub fn journaled(&mut self, bytes: &Bytes) -> bool {
        let Ok(frame) = Frame::decode(bytes.clone()) else { return false };
        let id = frame.header.header().id;
        if id.origin.member != self.replica.settings.me {
            return false;
        }
        let log_no = id.origin.log_no;
        self.replica.own.log_nos.insert(log_no);
        let hash = frame.header.hash();
        let time = frame.header.header().time;
        let slots = frame.slots.clone();
        let held = self.replica.logs.get(&id.origin).map_or(Seq(0), Log::len);
        let agrees = if id.seq <= held {
            self.replica.logs.get(&id.origin).and_then(|log| log.hash_at(id.seq)) == Some(hash)
        } else {
            id.seq == held.next() && self.catch_up(id, bytes.clone(), &slots)
        };
        let in_order = self.journaled.get(&log_no).map_or(Seq(0), |seq| *seq).next() == id.seq;
        if agrees && in_order {
            self.journaled.insert(log_no, id.seq);
        } else {
            self.closed.insert(log_no);
        }
        if !agrees {
            let records = slots.into_iter().filter_map(|slot| if let Slot::Record(r) = slot { Some(r) } else { None });
            self.replica.own.orphans.insert(id, (time, records.collect()));
        }
        agrees
    }

    /// The store lags behind the journal: it gets the block now.
    fn catch_up(&mut self, id: BlockId, bytes: Bytes, slots: &[Slot]) -> bool {
        if !self.take(id, bytes.clone()) {
            return false;
        }
        self.caught_up.extend(slots.iter().filter_map(|slot| if let Slot::Record(r) = slot { Some(r.clone()) } else { None }));
        self.effects.push(Effect::Store(Write::Block(id, bytes)));
        true
    }

    /// A stored outbox entry. `false`: it does not decode.
    pub fn outbox(&mut self, id: u64, bytes: Bytes) -> bool {
        if !self.replica.restore_outbox(id, bytes) {
            return false;
        }
        let records = self.replica.own.outbox.get(&id).map(|(_, records)| records.as_slice()).unwrap_or_default();
        let signed = !records.is_empty() && records.iter().all(|record| self.caught_up.contains(record));
        if signed {
            self.replica.own.outbox.remove(&id);
            self.effects.push(Effect::Store(Write::DropOutbox(id)));
        }
        true
    }

    /// The replica, and what the store is to catch up on. Peers' answers are awaited before anything is signed (W4).
    pub fn finish(mut self) -> (Replica, Vec<Effect>) {
        let numbers: BTreeSet<_> = self.replica.own.log_nos.iter().copied().collect();
        for log_no in numbers {
            let origin = self.replica.my_origin(log_no);
            let Some(log) = self.replica.logs.get(&origin) else { continue };
            // W4 a: a log is ours to write only if the journal holds all of it.
            let whole = self.journaled.get(&log_no) == Some(&log.len());
            let convicted = self.replica.proofs.fork(origin).is_some();
            if whole && !convicted && !self.closed.contains(&log_no) {
                if let Some(class) = super::Class::from_number(log.opening().class) {
                    self.replica.own.lanes.insert(class, log_no); // ascending: the newest log of a lane wins
                }
            }
        }
        if self.replica.view.is_stale() {
            self.effects.push(Effect::Rebuild);
        }
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
    fn take(&mut self, id: BlockId, bytes: Bytes) -> bool {
        let replica = &mut self.replica;
        if replica.proofs.fork(id.origin).is_some_and(|fork| fork <= id.seq) {
            return true; // evidence: stays in the store, outside the view
        }
        let Ok(frame) = Frame::decode(bytes) else { return false };
        let Ok(block) = replica.keyring.verify(frame) else { return false };
        if block.id() != id || !matches!(replica.extend(&block), Extension::Extended) {
            return false;
        }
        if let Some(log) = replica.logs.get_mut(&id.origin) {
            log.mark_durable(id.seq);
        }
        // A cutoff's hash is known only at its place: whatever was folded before is taken back by a rebuild.
        let cutoff = replica.chain.effective().cutoffs.get(&id.origin).copied();
        if cutoff.is_some_and(|c| c.seq == id.seq && c.hash != block.hash()) {
            self.effects.push(Effect::Rebuild);
        }
        if id.seq <= replica.prefix(id.origin) {
            replica.view.fold(block.header(), block.records());
        }
        if id.origin.member == replica.settings.me {
            replica.own.note_client_keys(id, block.records());
        }
        true
    }
}
