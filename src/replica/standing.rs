//! How far each log counts: proofs, finality, the charter's cutoffs and stewards' suspensions put together (PROTOCOL
//! section 5, layers 1 to 3), and the view that follows from it.

use std::collections::{BTreeMap, BTreeSet};

use super::charter::Charter;
use super::finality::{Attests, Finality, Law};
use super::heads::Have;
use super::ids::{BlockId, HeaderHash, MemberId, Origin, Seq, TimeMs};
use super::log::Log;
use super::signed::VerifiedBlock;
use super::suspension::{Suspended, Suspensions};
use super::view::{Change, View};
use super::wrong::WrongRule;
use super::{Effect, Replica, admission};

/// What the blocks held say about how far logs count, and what follows from it.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    attests: Attests,
    suspensions: Suspensions,
    /// `final(o)` of the convicted logs, on the chains that we hold.
    finals: BTreeMap<Origin, Finality>,
    suspended: BTreeMap<MemberId, Suspended>,
    /// How far the view has taken in each log.
    counted: BTreeMap<Origin, Seq>,
    /// Chains that count, though we hold others or nothing of them yet: from a place on, the header hashes.
    certified: BTreeMap<Origin, (Seq, Vec<HeaderHash>)>,
    /// The full hour at which suspensions were last looked at.
    hour: TimeMs,
    /// The list was found not to rest on what is known, and has not been derived again yet.
    pub(super) due: bool,
    /// A chain was dropped: what it attested and suspended is still in here.
    dropped: bool,
}

/// A view and all it rests on, being derived again from the stored blocks, log by log in order.
#[derive(Debug)]
pub struct Rebuild {
    view: View,
    attests: Attests,
    suspensions: Suspensions,
    counted: BTreeMap<Origin, Seq>,
    /// What takes a search of the list in use to one of this list.
    changes: Vec<Change>,
}

impl Replica {
    /// The charter by which logs and records count: the one in force, or the last before it whose semantics this
    /// release knows.
    pub fn law(&self) -> &Charter {
        let effective = self.chain.effective();
        let known = |c: &&Charter| c.version <= effective.version && c.semantics <= self.settings.semantics_max;
        if self.understands() { effective } else { self.chain.history().filter(known).last().unwrap_or(effective) }
    }

    fn finality_law(&self) -> Law<'_> {
        let by_member = self.settings.rules.break_rule(WrongRule::VotersAreMembers);
        Law { charter: self.law(), proofs: &self.proofs, logs: &self.logs, by_member }
    }

    /// The lowest disputed place of `origin`, as far as the log that we hold or could hold is concerned.
    pub(super) fn fork(&self, origin: Origin) -> Option<Seq> {
        match self.logs.get(&origin) {
            Some(log) => self.proofs.fork_of(log),
            None => self.proofs.fork(origin),
        }
    }

    /// How far a log counts by proofs and finality, and by a cutoff that picks its chain across a fork.
    fn settled(&self, log: &Log) -> Seq {
        let durable = log.durable();
        let Some(fork) = self.proofs.fork_of(log) else { return durable };
        if self.settings.rules.break_rule(WrongRule::FirstSeenWins) {
            return durable;
        }
        if self.settings.rules.break_rule(WrongRule::VoidFromFork) {
            return durable.min(fork.previous());
        }
        let settled = fork.previous().max(self.finals(log).last);
        let settled = match self.law().cutoffs.get(&log.origin()).filter(|c| c.seq <= durable) {
            // Nothing at the fork or after it counts, whatever was attested there: nobody needs to fetch it.
            Some(cutoff) if cutoff.seq < fork => fork.previous(),
            // The chain that the founders picked is offered like what is final: others could not get it else. No more of
            // it than they picked, whatever was attested: nobody who comes later would fetch that.
            Some(cutoff) if log.hash_at(cutoff.seq) == Some(cutoff.hash) => cutoff.seq,
            // Only what is settled may tell: how much more of a disputed chain somebody holds is chance.
            Some(cutoff) if cutoff.seq <= settled => fork.previous(),
            _ => settled,
        };
        durable.min(settled)
    }

    fn finals(&self, log: &Log) -> Finality {
        self.standing.finals.get(&log.origin()).copied().unwrap_or_default()
    }

    /// What we publish of a log: what is settled, and of a chain that is final also what voters attested beyond. Nobody
    /// who holds less of it could tell that it is final.
    pub(super) fn offered(&self, log: &Log) -> Seq {
        let settled = self.settled(log);
        let finals = self.finals(log);
        let picked = self.law().cutoffs.get(&log.origin()).is_some_and(|cutoff| cutoff.seq <= settled);
        match self.proofs.fork_of(log) {
            Some(fork) if finals.last >= fork && settled >= finals.last && !picked => {
                settled.max(finals.highest).min(log.durable())
            }
            _ => settled,
        }
    }

    /// How far a log counts before suspensions.
    fn unsuspended(&self, log: &Log) -> Seq {
        if self.settings.rules.break_rule(WrongRule::ExpelOnArrival)
            && let Some(arrived) = self.arrived.get(&log.origin())
        {
            return (*arrived).min(log.len());
        }
        admission::prefix(self.law(), log, self.settled(log), self.proofs.fork_of(log)).min(log.durable())
    }

    /// How far the blocks of `origin` count (PROTOCOL layer 3).
    pub fn prefix(&self, origin: Origin) -> Seq {
        self.prefix_under(&self.standing.suspended, origin)
    }

    /// How far each log counts for what is told of the time before the full hour `hour`: by the suspensions that were said
    /// before it and in force at it, whatever is in force now. Else the same words would be told differently from one
    /// hour to the next.
    pub fn prefixes_at(&self, hour: TimeMs) -> BTreeMap<Origin, Seq> {
        let counts = |id: BlockId| self.logs.get(&id.origin).is_some_and(|log| id.seq <= self.unsuspended(log));
        let suspended = self.standing.suspensions.said_before(hour).in_force(self.law(), hour, counts);
        self.logs.keys().map(|origin| (*origin, self.prefix_under(&suspended, *origin))).collect()
    }

    fn prefix_under(&self, suspended: &BTreeMap<MemberId, Suspended>, origin: Origin) -> Seq {
        let Some(log) = self.logs.get(&origin) else { return Seq(0) };
        let unsuspended = self.unsuspended(log);
        let mut prefix = unsuspended;
        for mark in suspended.get(&origin.member).into_iter().flat_map(|s| s.marks(origin)) {
            prefix = match mark {
                // A mark on another chain marks what both have in common. Places that do not count may not tell: how
                // much more of a disputed chain somebody holds is chance.
                Some(mark) if mark.seq <= unsuspended && log.hash_at(mark.seq) != Some(mark.hash) => {
                    let common = self.proofs.fork_of(log).map_or(Seq(0), Seq::previous);
                    prefix.min(common).min(mark.seq)
                }
                Some(mark) => prefix.min(mark.seq),
                None => Seq(0),
            };
        }
        prefix
    }

    /// Whether a steward has suspended `member`, and until when.
    pub fn suspended(&self, member: MemberId) -> Option<TimeMs> {
        self.standing.suspended.get(&member).map(|suspended| suspended.until)
    }

    /// A durable block, for the layers below the view: whether it may have changed how far any log counts.
    pub(super) fn note_standing(&mut self, block: &VerifiedBlock) -> bool {
        let told = self.standing.attests.note(block, &self.proofs);
        let suspends = self.standing.suspensions.note(block);
        let origin = block.id().origin;
        let special = self.proofs.fork(origin).is_some() || self.law().cutoffs.contains_key(&origin);
        told || suspends || special || self.standing.suspended.contains_key(&origin.member)
    }

    /// Looks again at what is final and who is suspended; tells whether the list no longer rests on that.
    pub(super) fn weigh(&mut self, now: TimeMs, effects: &mut Vec<Effect>) -> bool {
        self.weigh_finality();
        let before: BTreeSet<_> = self.standing.suspended.keys().copied().collect();
        self.weigh_suspensions(now);
        if !before.iter().eq(self.standing.suspended.keys()) {
            self.meet_peers();
            effects.push(Effect::Roster);
        }
        !self.stands()
    }

    fn weigh_finality(&mut self) {
        let law = self.finality_law();
        let convicted = self.logs.values().filter(|log| self.proofs.fork_of(log).is_some());
        let finality = |log: &Log| {
            let durable = log.durable();
            // Not block by block while a chain is being fetched: the list would be derived again after each of them.
            let before = self.finals(log).highest;
            let durable = if self.is_fetching(log, durable) { durable.min(before) } else { durable };
            let at = |seq| log.hash_at(seq).filter(|_| seq <= durable);
            (log.origin(), self.standing.attests.finality(law, log.origin(), at))
        };
        let finals = convicted.map(finality).collect();
        self.standing.finals = finals;
    }

    fn weigh_suspensions(&mut self, now: TimeMs) {
        let hour = self.hour(now);
        let after = self.settings.rules.break_rule(WrongRule::SuspendedReadAfterSuspension);
        let read = |log: &Log| if after { self.prefix(log.origin()) } else { self.unsuspended(log) };
        let counts = |id: BlockId| self.logs.get(&id.origin).is_some_and(|log| id.seq <= read(log));
        let suspended = self.standing.suspensions.in_force(self.law(), hour, counts);
        self.standing.suspended = suspended;
        self.standing.hour = hour;
    }

    /// The full hour at which the list is shown. It never goes back, though a clock may: what has ended has ended.
    pub(super) fn hour(&self, now: TimeMs) -> TimeMs {
        now.hour().max(self.standing.hour).max(self.view.digest().0)
    }

    /// Whether suspensions have to be looked at because an hour has passed.
    pub(super) fn suspensions_are_due(&self, now: TimeMs) -> bool {
        !self.standing.suspended.is_empty() && now.hour() > self.standing.hour
    }

    /// Whether the view has taken in every log as far as it counts, and no further.
    pub(super) fn stands(&self) -> bool {
        !self.standing.dropped && self.logs.keys().all(|origin| self.prefix(*origin) == self.counted(*origin))
    }

    /// The list has to be derived again. Until it is, nobody is told its digest.
    pub(super) fn rebuild_is_due(&mut self, effects: &mut Vec<Effect>) {
        self.standing.due = true;
        effects.push(Effect::Rebuild);
    }

    /// How far the list has taken in each log, with what stands there. `None` while the list has yet to be derived again:
    /// it is then the one of an earlier charter, or of other chains.
    pub fn taken_in(&self) -> Option<Have> {
        let mut have = Have::default();
        for (origin, seq) in self.standing.counted.iter().filter(|(_, seq)| **seq > Seq(0)) {
            have.set(*origin, self.logs.get(origin)?.head_at(*seq)?);
        }
        self.is_settled().then_some(have)
    }

    /// Whether the list is the one of what is known by now.
    pub fn is_settled(&self) -> bool {
        !self.standing.due && !self.standing.dropped
    }

    /// Whether the list has taken in all of `have`, on the same chains.
    pub fn has_taken_in(&self, have: &Have) -> bool {
        have.iter().all(|(origin, head)| {
            let hash = self.logs.get(&origin).and_then(|log| log.hash_at(head.seq));
            head.seq <= self.counted(origin) && hash == Some(head.hash)
        })
    }

    /// What a log said that is not the one that counts goes with it.
    pub(super) fn drop_log(&mut self, origin: Origin) {
        self.standing.dropped |= self.logs.remove(&origin).is_some();
    }

    /// Whether what is known of the logs holds words of a chain that was dropped.
    pub(super) fn has_dropped(&self) -> bool {
        self.standing.dropped
    }

    fn counted(&self, origin: Origin) -> Seq {
        self.standing.counted.get(&origin).copied().unwrap_or(Seq(0))
    }

    /// Takes a durable block into the view, if it is the next that counts. `false`: it counts, and others before it are
    /// not taken in.
    pub(super) fn fold(&mut self, block: &VerifiedBlock) -> bool {
        let id = block.id();
        if id.seq > self.prefix(id.origin) {
            return true;
        }
        if self.counted(id.origin).next() != id.seq {
            return false;
        }
        self.view.fold(block.header(), block.records());
        self.standing.counted.insert(id.origin, id.seq);
        true
    }

    /// A view to hand all stored blocks to, log by log in order; then [`Replica::finish_rebuild`].
    pub fn begin_rebuild(&self, now: TimeMs) -> Rebuild {
        Rebuild {
            view: self.empty_view(self.hour(now)),
            attests: Attests::default(),
            suspensions: Suspensions::default(),
            counted: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    /// Takes one stored block into `rebuild`.
    pub fn rebuild(&self, rebuild: &mut Rebuild, block: &VerifiedBlock) {
        let id = block.id();
        let log = self.logs.get(&id.origin).filter(|log| id.seq <= log.durable());
        if log.and_then(|log| log.hash_at(id.seq)) != Some(block.hash()) {
            return; // evidence, or what another chain left behind
        }
        rebuild.attests.note(block, &self.proofs);
        rebuild.suspensions.note(block);
        if id.seq <= self.prefix(id.origin) {
            rebuild.view.fold(block.header(), block.records());
            rebuild.counted.insert(id.origin, id.seq);
        }
    }

    /// Compares what was derived with the list in use, for whoever follows its changes: before
    /// [`Replica::finish_rebuild`], and without keeping readers out.
    pub fn compare_rebuild(&self, rebuild: &mut Rebuild) {
        rebuild.changes = rebuild.view.changes_since(&self.view);
    }

    /// Puts what was derived in the place of what was, which `rebuild` then holds: to let go of a long list takes time, and
    /// readers may wait. `false`: what the blocks said changed how far logs count, so they
    /// are to be read once more.
    pub fn finish_rebuild(&mut self, rebuild: &mut Rebuild, now: TimeMs, effects: &mut Vec<Effect>) -> bool {
        self.standing.attests = std::mem::take(&mut rebuild.attests);
        self.standing.suspensions = std::mem::take(&mut rebuild.suspensions);
        self.standing.counted = std::mem::take(&mut rebuild.counted);
        rebuild.view.succeed(&mut self.view, std::mem::take(&mut rebuild.changes));
        std::mem::swap(&mut self.view, &mut rebuild.view);
        self.view.remember_replaced();
        self.standing.dropped = false;
        let again = self.weigh(now, effects);
        self.standing.due = again;
        self.republish();
        effects.push(Effect::Publish);
        !again
    }

    /// A peer holds another chain of a convicted log than we do. Where voters or founders may mean that one, its headers
    /// are fetched: only then it can be told, and only then its blocks are taken.
    pub(super) fn trace(&mut self, peer: MemberId, origin: Origin, head: super::ids::Head, effects: &mut Vec<Effect>) {
        let log = self.logs.get(&origin);
        let Some(fork) = self.fork(origin).filter(|fork| *fork <= head.seq) else { return };
        let cutoff = self.law().cutoffs.get(&origin).map_or(Seq(0), |cutoff| cutoff.seq);
        let to = head.seq.min(cutoff.max(self.standing.attests.reach(self.finality_law(), origin, fork)));
        let ours = |seq: Seq| log.and_then(|log| log.hash_at(seq));
        let prev = if fork == Seq(1) { Some(HeaderHash::ZERO) } else { ours(fork.previous()) };
        let known = log.is_some_and(|log| to <= self.offered(log));
        let Some(prev) = prev.filter(|_| to >= fork && !known) else { return };
        let ask = self.exchanges.get_mut(&peer).and_then(|exchange| exchange.trace(origin, fork, to, prev));
        effects.extend(ask.map(|ask| Effect::Ask(peer, ask)));
    }

    /// The header hashes of a peer's chain of `origin` are there: if they count, their blocks are wanted.
    pub(super) fn traced(&mut self, peer: MemberId, origin: Origin, from: Seq, mut hashes: Vec<HeaderHash>) {
        let log = self.logs.get(&origin);
        let at = |seq: Seq| {
            if seq < from {
                return log.and_then(|log| log.hash_at(seq));
            }
            hashes.get(usize::try_from(seq.0 - from.0).ok()?).copied()
        };
        let cutoff = match self.law().cutoffs.get(&origin) {
            Some(cutoff) if cutoff.seq < from => return, // nothing of it counts
            Some(cutoff) if at(cutoff.seq) == Some(cutoff.hash) => cutoff.seq,
            // The founders' word is above attestations: no other chain takes the place of the one that they picked.
            Some(cutoff)
                if at(cutoff.seq).is_some() || log.and_then(|l| l.hash_at(cutoff.seq)) == Some(cutoff.hash) =>
            {
                return;
            }
            _ => Seq(0),
        };
        let finality = self.standing.attests.finality(self.finality_law(), origin, at);
        let highest = if finality.last >= from { finality.highest } else { Seq(0) };
        let counts = if cutoff > Seq(0) { cutoff } else { highest };
        if counts < from {
            return;
        }
        hashes.truncate(usize::try_from(counts.0 - from.0 + 1).unwrap_or(usize::MAX));
        self.standing.certified.insert(origin, (from, hashes));
        if let Some(exchange) = self.exchanges.get_mut(&peer) {
            exchange.want_greeting();
        }
    }

    /// What we ask peers to go on from: what we hold, but of a log of which another chain counts only what both have in
    /// common. What we hold of it stays until the other's first block is here.
    pub(super) fn asks_beyond(&self) -> Have {
        let mut have = self.published.have();
        for (origin, (from, hashes)) in &self.standing.certified {
            let Some(log) = self.logs.get(origin) else { continue };
            if have.seq(*origin) >= *from && log.hash_at(*from) != hashes.first().copied() {
                have.forget(*origin);
                if let Some(head) = log.head_at(from.previous()) {
                    have.set(*origin, head);
                }
            }
        }
        have
    }

    /// Whether a block stands on a chain that counts although its log is disputed.
    pub(super) fn is_certified(&self, block: &VerifiedBlock) -> bool {
        let id = block.id();
        let Some((from, hashes)) = self.standing.certified.get(&id.origin) else { return false };
        let place = id.seq.0.checked_sub(from.0).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| hashes.get(place)) == Some(&block.hash())
    }

    /// Whether blocks of a disputed log are still to come of which it is known that they count: until they are here, the
    /// log counts as before.
    pub fn fetches_disputed(&self) -> bool {
        self.logs.values().any(|log| self.is_fetching(log, log.durable()))
    }

    /// Whether more of the chain that counts is known than held.
    fn is_fetching(&self, log: &Log, durable: Seq) -> bool {
        let certified = self.standing.certified.get(&log.origin());
        certified.is_some_and(|(from, hashes)| {
            durable.0 + 1 < from.0 + hashes.len() as u64 && log.hash_at(*from) == hashes.first().copied()
        })
    }

    /// Another chain than the one that counts makes way for `block`. What we held of it was not final, and cannot become
    /// so: no two chains can.
    pub(super) fn make_way(&mut self, block: &VerifiedBlock) {
        let id = block.id();
        if let Some(log) = self.logs.get_mut(&id.origin)
            && log.hash_at(id.seq).is_some_and(|hash| hash != block.hash())
        {
            log.cut(id.seq.previous());
            if log.is_empty() {
                self.logs.remove(&id.origin); // the other chain may have been opened with another key
            }
            self.standing.dropped = true;
        }
    }
}
