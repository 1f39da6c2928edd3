//! Hearing something: blocks, headers, proofs and greetings of peers (PROTOCOL sections 3.2, 6 and 8).

use super::block::SignedHeader;
use super::exchange::{FUTURE_MS, Found, Greeting, PeerEvent, Tick, Trouble};
use super::forks::{self, FaultRule, VerifiedProof};
use super::ids::{BlockId, KeyId, MemberId, Origin, Seq, TimeMs};
use super::log::{Extension, Log};
use super::signed::{Unverified, VerifiedBlock, VerifiedHeader};
use super::wrong::WrongRule;
use super::{Alarm, Effect, Replica, Staged, Write, admission, proto};

impl Replica {
    /// A peer said something.
    pub(super) fn peer(&mut self, peer: MemberId, event: PeerEvent, now: TimeMs, effects: &mut Vec<Effect>) {
        match event {
            PeerEvent::Greeted(greeting) => self.greeted(peer, &greeting, now, effects),
            PeerEvent::Charter(charter) => self.charter(Some(peer), charter, effects),
            PeerEvent::Proof(proof) => self.proof_offered(peer, *proof, now, effects),
            PeerEvent::Block(block) => self.block(peer, *block, now, effects),
            PeerEvent::Unverified(why) => self.unverified(peer, &why, now, effects),
            PeerEvent::Header(header) => self.header(peer, *header, effects),
            PeerEvent::Tick(tick) => self.pulse_heard(peer, &tick, now, effects),
            PeerEvent::Done(digest) => self.pulled(peer, digest),
            PeerEvent::Ended(call, Ok(())) => {
                let ask = self.with_exchange(peer, |exchange, ours| exchange.ended(call, ours, now));
                effects.extend(ask.flatten().map(|ask| Effect::Ask(peer, ask)));
                self.unshown(peer, now, effects);
                self.open_guard_if_pending(now, effects);
            }
            PeerEvent::Ended(_, Err(trouble)) => self.trouble(peer, &trouble, now, effects),
            PeerEvent::Called => {
                if let Some(exchange) = self.exchanges.get_mut(&peer) {
                    exchange.called(now);
                }
            }
        }
    }

    fn trouble(&mut self, peer: MemberId, trouble: &Trouble, now: TimeMs, effects: &mut Vec<Effect>) {
        let mut was_showing = false;
        if let Some(exchange) = self.exchanges.get_mut(&peer) {
            was_showing = exchange.is_searching();
            if exchange.is_catching_up() {
                self.own.unanswer(peer);
            }
            effects.extend(exchange.failed(trouble, now).map(|ask| Effect::Ask(peer, ask)));
        }
        // A claim stands while the line is broken, but not for ever; it falls with whoever made it.
        let Some(tries) = self.own.claimed_by.get_mut(&peer) else { return };
        *tries += u32::from(was_showing);
        if matches!(trouble, Trouble::Nonsense(_)) {
            self.own.claimed_by.remove(&peer);
        }
        self.open_guard(now, effects);
    }

    /// Who claims a head of our own logs must show it: the claim keeps us from signing. Not shown, it falls; the peer
    /// is not blamed, for it may have lost its store in between.
    fn unshown(&mut self, peer: MemberId, now: TimeMs, effects: &mut Vec<Effect>) {
        let origin = self.exchanges.get_mut(&peer).and_then(super::Exchange::take_unshown);
        if origin.is_some_and(|origin| origin.member == self.settings.me) && self.own.claimed_by.remove(&peer).is_some()
        {
            self.open_guard(now, effects);
        }
    }

    fn greeted(&mut self, peer: MemberId, greeting: &Greeting, now: TimeMs, effects: &mut Vec<Effect>) {
        if !self.exchanges.contains_key(&peer) {
            return;
        }
        let ask = self.with_exchange(peer, |exchange, ours| exchange.greeted(greeting, ours, now));
        effects.extend(ask.flatten().map(|ask| Effect::Ask(peer, ask)));
        self.watch_own_logs(peer, greeting, now, effects);
        for (origin, head) in greeting.have.iter() {
            self.trace(peer, origin, head, effects);
        }
        if !self.settings.rules.break_rule(WrongRule::VectorWithoutHash) {
            self.compare(peer, greeting, effects);
        }
    }

    /// Equal places with different hashes are a fork (6.1): find the first place that differs.
    fn compare(&mut self, peer: MemberId, greeting: &Greeting, effects: &mut Vec<Effect>) {
        let differing: Vec<_> =
            greeting.have.iter().filter(|(origin, head)| self.differs(*origin, head.seq, head.hash)).collect();
        for (origin, head) in differing {
            self.search(peer, origin, head.seq, None, effects);
        }
    }

    fn differs(&self, origin: Origin, seq: Seq, hash: super::ids::HeaderHash) -> bool {
        let ours = self.logs.get(&origin).and_then(|log| log.hash_at(seq));
        ours.is_some_and(|ours| ours != hash) && !self.is_convicted_at(origin, seq)
    }

    pub(super) fn is_convicted_at(&self, origin: Origin, seq: Seq) -> bool {
        self.fork(origin).is_some_and(|fork| fork <= seq)
    }

    /// The key that opened the log of a block.
    fn root_of(&self, block: &VerifiedBlock) -> Option<KeyId> {
        let opening = block.opening().or_else(|| self.keyring.opening(block.id().origin, block.header().key_id));
        opening.map(|opening| opening.root_key_id)
    }

    /// Whether a block may be taken at all: its log was opened under a key that the charter knows, and it does not
    /// stand on a disputed chain, unless that is the one that counts.
    fn is_taken(&mut self, block: &VerifiedBlock) -> bool {
        let id = block.id();
        let Some(root) = self.root_of(block) else { return false };
        if !admission::knows(self.chain.effective(), id.origin, root) {
            return false;
        }
        let replaced = |log: &Log| log.opening().root_key_id != root && !self.knows(log);
        if id.seq == Seq(1) && self.logs.get(&id.origin).is_some_and(replaced) {
            // Written under a key that was replaced: it makes room for the log that counts.
            self.drop_log(id.origin);
        }
        let disputed = self.proofs.fork_under(id.origin, root).is_some_and(|fork| fork <= id.seq);
        if !disputed || self.settings.rules.break_rule(WrongRule::FirstSeenWins) {
            return true;
        }
        let certified = self.is_certified(block);
        if certified {
            self.make_way(block);
        }
        certified
    }

    pub(super) fn search(
        &mut self,
        peer: MemberId,
        origin: Origin,
        at: Seq,
        next: Option<SignedHeader>,
        effects: &mut Vec<Effect>,
    ) {
        let ask = self.exchanges.get_mut(&peer).and_then(|exchange| exchange.search(origin, at, next));
        effects.extend(ask.map(|ask| Effect::Ask(peer, ask)));
    }

    /// A block that verified. Validity never depends on the receiver's clock, on the peer, or on what came first.
    fn block(&mut self, peer: MemberId, block: VerifiedBlock, now: TimeMs, effects: &mut Vec<Effect>) {
        let id = block.id();
        // Verified, perhaps, before the charter came that orders the erasure.
        let block = self.keyring.redact_block(block);
        if !self.is_taken(&block) {
            return;
        }
        if self.rejected.contains(&id.origin) {
            return;
        }
        if block.header().time > now.plus(FUTURE_MS) {
            self.hold(peer, &block);
            return;
        }
        if self.is_full(id.origin.member) {
            return;
        }
        let we_write_this_log =
            id.origin.member == self.settings.me && self.own.lanes.values().any(|no| *no == id.origin.log_no);
        match self.extend(&block) {
            Extension::Extended => {
                if we_write_this_log {
                    // Own-log watch: a valid block in the log that we write, and not by us.
                    self.own.close(id.origin.log_no);
                    self.alarm(Alarm::OwnLogElsewhere(id.origin), effects);
                }
                effects.push(Effect::Store(Write::Block(id, block.frame().encode())));
                self.staged.push_back(Staged::Block(Box::new(block)));
            }
            Extension::Known | Extension::Ended => {}
            Extension::Gap => self.gap(peer, now),
            Extension::Contradicts => self.confront(&block, effects),
            Extension::Diverges => {
                let head = self.logs.get(&id.origin).map_or(Seq(0), Log::len);
                self.search(peer, id.origin, head, Some(block.signed().clone()), effects);
            }
            Extension::Fault(proof) => self.stage_proof(*proof, effects),
        }
    }

    /// Held, never rejected: the block is asked for again when its time has come. Nothing is kept meanwhile.
    fn hold(&mut self, peer: MemberId, block: &VerifiedBlock) {
        if self.settings.rules.break_rule(WrongRule::RejectFuture) {
            self.rejected.insert(block.id().origin);
        } else if let Some(exchange) = self.exchanges.get_mut(&peer) {
            exchange.hold_until(TimeMs(block.header().time.0.saturating_sub(FUTURE_MS)));
        }
    }

    fn gap(&mut self, peer: MemberId, now: TimeMs) {
        if let Some(exchange) = self.exchanges.get_mut(&peer) {
            exchange.missed(now);
        }
    }

    /// A claim on our own logs was resolved: greet again, so that the startup guard can count the answer.
    fn ask_for_claims_again(&mut self, peer: MemberId) {
        if let Some(exchange) = self.exchanges.get_mut(&peer) {
            exchange.want_greeting();
        }
    }

    /// Beyond `log_bytes_max` a member's logs are not extended until a charter raises it (layer 4).
    fn is_full(&self, member: MemberId) -> bool {
        let [first, last] = [0, u32::MAX].map(|log_no| Origin { member, log_no: super::ids::LogNo(log_no) });
        let bytes: u64 = self.logs.range(first..=last).map(|(_, log)| log.bytes()).sum();
        bytes > self.chain.effective().policy.log_bytes_max
    }

    fn confront(&mut self, block: &VerifiedBlock, effects: &mut Vec<Effect>) {
        if self.settings.rules.break_rule(WrongRule::VectorWithoutHash) {
            return;
        }
        let mut ring = self.keyring();
        if block.opening().is_some() {
            std::sync::Arc::make_mut(&mut ring).learn(block);
        }
        if let Some(theirs) = VerifiedHeader::of(block.signed(), &ring) {
            effects.push(Effect::Confront(block.id(), Box::new(theirs)));
        }
    }

    /// Our header and a foreign one for one place: the author told two stories.
    pub(super) fn confronted(&mut self, ours: &SignedHeader, theirs: &VerifiedHeader, effects: &mut Vec<Effect>) {
        let ours = VerifiedHeader::of(ours, &self.keyring);
        if let Some(proof) = ours.and_then(|ours| forks::fork_proof(&ours, theirs)) {
            self.stage_proof(proof, effects);
        }
    }

    fn stage_proof(&mut self, proof: VerifiedProof, effects: &mut Vec<Effect>) {
        let waits = self.staged.iter().any(|s| matches!(s, Staged::Proof(p) if p.hash() == proof.hash()));
        let known = self.proofs.fork_under(proof.origin(), proof.root()).is_some_and(|fork| fork <= proof.seq());
        if waits || known {
            return;
        }
        if let Some(weaker) = self.proofs.weaker_than(&proof) {
            effects.push(Effect::Store(Write::DropProof(weaker.hash())));
        }
        let bytes = prost::Message::encode_to_vec(proof.message()).into();
        effects.push(Effect::Store(Write::Proof(proof.hash(), bytes)));
        self.staged.push_back(Staged::Proof(Box::new(proof)));
    }

    fn proof_offered(&mut self, peer: MemberId, proof: proto::Proof, now: TimeMs, effects: &mut Vec<Effect>) {
        if let Some(proto::proof::P::Charter(fork)) = proof.p {
            let mut trial = self.chain.clone();
            if let Ok(super::charter::Applied::Forked) = trial.forked(&fork) {
                self.stage_charter_fork(fork, effects);
            }
            return;
        }
        match forks::verify(proof, &self.keyring) {
            Ok(proof) => self.stage_proof(proof, effects),
            // A member that our charter does not list yet: the peer's charter may be newer.
            Err(forks::ProofError::Header(Unverified::UnknownMember(_))) => {}
            Err(error) => self.trouble(
                peer,
                &Trouble::Nonsense(format!("sent a proof that does not hold: {error}")),
                now,
                effects,
            ),
        }
    }

    fn unverified(&mut self, peer: MemberId, why: &Unverified, now: TimeMs, effects: &mut Vec<Effect>) {
        match why {
            Unverified::Fault(bad, rule, slots) => {
                let none = super::merkle::CompactRange::default();
                if let Some(proof) = forks::fault_proof(*rule, None, bad, &none, slots.clone()) {
                    self.stage_proof(proof, effects);
                }
            }
            Unverified::Flags(..) => self.alarm(Alarm::Upgrade, effects),
            Unverified::UnknownMember(_) | Unverified::UnknownLog(_) | Unverified::Redacted(_) => self.gap(peer, now),
            _ => self.trouble(peer, &Trouble::Nonsense(why.to_string()), now, effects),
        }
    }

    /// A header that a search asked for.
    fn header(&mut self, peer: MemberId, header: VerifiedHeader, effects: &mut Vec<Effect>) {
        let id = header.header().id;
        if !admission::knows(self.chain.effective(), id.origin, header.opening().root_key_id) {
            // As good as not shown: with a root key of ours that was replaced, anybody could close our logs and use up
            // their numbers.
            return;
        }
        let ours = self.logs.get(&id.origin).and_then(|log| log.hash_at(id.seq));
        let found = self.exchanges.get_mut(&peer).and_then(|exchange| exchange.header(header, ours));
        match found {
            Some(Found::Fork(theirs)) => {
                let at: BlockId = theirs.header().id;
                if at.origin.member == self.settings.me {
                    self.own_log_elsewhere(at, effects);
                }
                effects.push(Effect::Confront(at, theirs));
            }
            Some(Found::Chain(origin, from, hashes)) => self.traced(peer, origin, from, hashes),
            Some(Found::Fault(origin, bad)) => {
                let proof =
                    self.logs.get(&origin).and_then(|log| log.prove_fault(FaultRule::Chain, &bad, &self.keyring));
                if let Some(proof) = proof {
                    self.stage_proof(proof, effects);
                }
            }
            None => {}
        }
        if id.origin.member == self.settings.me {
            self.ask_for_claims_again(peer);
        }
    }

    /// A sign of life: with equal charters, heads and disputed places the lists must be equal too.
    fn pulse_heard(&mut self, peer: MemberId, tick: &Tick, now: TimeMs, effects: &mut Vec<Effect>) {
        let ours = self.pulse(now);
        let knows_the_same_disputes = tick.disputes_digest.is_none() || tick.disputes_digest == ours.disputes_digest;
        let same = tick.have_digest == ours.have_digest
            && tick.charter_hash == ours.charter_hash
            && knows_the_same_disputes
            && tick.view_hour == ours.view_hour;
        let known = tick.view_digest.is_some() && ours.view_digest.is_some();
        let settled = known && self.staged.is_empty() && !self.view.is_stale();
        let Some(exchange) = self.exchanges.get_mut(&peer) else { return };
        exchange.heard(now, tick.time);
        if tick.have_digest == ours.have_digest {
            exchange.holds(self.published.have());
        }
        if tick.have_digest != ours.have_digest || !knows_the_same_disputes {
            exchange.want_greeting();
        }
        if !same {
            exchange.incomparable();
        }
        if !same || !settled {
            return;
        }
        let agrees = tick.view_digest == ours.view_digest;
        if exchange.compared(agrees) {
            self.alarm(Alarm::Diverged(peer), effects);
        } else if agrees {
            self.alarms.remove(&Alarm::Diverged(peer));
        }
    }

    /// A pull ended: `digest` is what the peer holds. If we do not hold the same, the next repair tells why.
    fn pulled(&mut self, peer: MemberId, digest: [u8; 32]) {
        let same = self.published.have().digest() == digest;
        if let Some(exchange) = self.exchanges.get_mut(&peer) {
            exchange.pulled(same);
        }
    }
}
