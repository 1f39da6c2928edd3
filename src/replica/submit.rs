//! Saying something: admission, record, block, signature, log (PROTOCOL section 7).

use std::collections::BTreeSet;

use bytes::Bytes;
use ed25519_dalek::SigningKey;

use super::block::{Frame, Header, PAYLOAD_SIZE_MAX, RECORDS_PER_BLOCK_MAX, SignedHeader, Slot};
use super::exchange::Greeting;
use super::ids::{BlockId, Class, LogNo, Origin, Seq, TimeMs, sha256};
use super::log::{Extension, Log};
use super::own::{
    Answer, Draft, Guard, OUTBOX_MAX, RECORDS_PER_SUBMISSION_MAX, Receipt, Refusal, Ticket, client_key, decode_outbox,
    encode_outbox,
};
use super::record::{self, Parsed, SALT_SIZE, Stance, Statement};
use super::remembered::remembered;
use super::signal::GuardRefusal;
use super::signed::{VerifiedBlock, open_log};
use super::suspension::SUSPENSION_DAYS_MAX;
use super::wrong::WrongRule;
use super::{Alarm, Effect, Replica, Staged, Write, admission, merkle, proto, signal};

impl Replica {
    /// Our company says something.
    pub(super) fn submit(
        &mut self,
        ticket: Ticket,
        class: Class,
        records: Vec<Bytes>,
        now: TimeMs,
        effects: &mut Vec<Effect>,
    ) {
        let parsed: Vec<_> = records.iter().map(|r| record::parse(r)).collect();
        if let Err(refusal) = self.check(class, &records, &parsed, now) {
            effects.push(Effect::Answer(ticket, Answer::Refused(refusal)));
            return;
        }
        if records.is_empty() {
            // No block will ever carry its answer.
            effects.push(Effect::Answer(ticket, Answer::Durable(Vec::new())));
        } else if self.own.may_sign() {
            let drafts = records.into_iter().map(|bytes| Draft { ticket: Some(ticket), bytes });
            self.own.open.entry(class).or_default().extend(drafts);
        } else {
            let answer = self.queue(class, records, effects);
            self.staged.push_back(Staged::Answer(ticket, answer));
        }
    }

    /// The block and index of a submission that was made before under the same client key, if there was one.
    pub fn submitted_before(&self, key: &record::ClientKey) -> Option<(BlockId, u32)> {
        self.own.client_keys.get(key).copied()
    }

    /// Client keys of our logs from `from` on, ascending, each with the block and index where it stands first.
    pub fn submitted_from(
        &self,
        from: record::ClientKey,
    ) -> impl Iterator<Item = (&record::ClientKey, &(BlockId, u32))> {
        self.own.client_keys.range(from..)
    }

    /// Client keys of what waits in the outbox or in the open batch.
    pub fn keys_under_way(&self) -> BTreeSet<record::ClientKey> {
        let queued = self.own.outbox.values().flat_map(|(_, records)| records);
        let open = self.own.open.values().flatten().map(|draft| &draft.bytes);
        queued.chain(open).filter_map(|bytes| client_key(&record::parse(bytes))).collect()
    }

    /// Everything that can be wrong with a submission, before anything is done.
    fn check(&self, class: Class, records: &[Bytes], parsed: &[Parsed], now: TimeMs) -> Result<(), Refusal> {
        let charter = self.chain.effective();
        let payload: usize = records.iter().map(Bytes::len).sum();
        if records.len() > RECORDS_PER_SUBMISSION_MAX || payload > PAYLOAD_SIZE_MAX - 1024 {
            return Err(Refusal::TooLarge(records.len()));
        }
        if !self.understands() {
            return Err(Refusal::Semantics(u64::from(charter.semantics)));
        }
        if let Some(until) = self.suspended(self.settings.me) {
            return Err(Refusal::Suspended(until.since(now).div_ceil(TimeMs::HOUR_MS)));
        }
        let member = charter.member(self.settings.me).filter(|_| self.is_active());
        // What is said before its admission is inert.
        let member = member.filter(|m| now.max(self.own.last_time) >= m.admitted);
        let member = member.ok_or(Refusal::NotActive(charter.version))?;
        if member.root_key != self.settings.root.verifying_key() {
            return Err(Refusal::RootKey(charter.version)); // what we sign would count nowhere
        }
        for (index, parsed) in parsed.iter().enumerate() {
            match parsed {
                Parsed::Inert(why) => return Err(Refusal::Record(index, why)),
                Parsed::Says(statement) => {
                    if !admission::may_say(charter.semantics, member.roles, statement) {
                        return Err(Refusal::Role(member.roles.names().join(", ")));
                    }
                    if let Statement::Suspend { until, .. } = statement
                        && *until > now.plus(SUSPENSION_DAYS_MAX * TimeMs::DAY_MS)
                    {
                        return Err(Refusal::Record(index, "suspends a member for more than 14 days")); // not read
                    }
                    admission::account_counts(charter, statement, now).map_err(|why| Refusal::Record(index, why))?;
                    self.guard(statement, &records[index]).map_err(|refusal| Refusal::Guard(index, refusal))?;
                }
            }
        }
        self.check_quota(class, parsed, now)?;
        if !self.own.lanes.contains_key(&class) && self.own.next_log_no().0 >= member.log_limit {
            return Err(Refusal::LogsUsedUp(member.log_limit));
        }
        let bytes: u64 = self.own_frame_bytes();
        if bytes.saturating_add(payload as u64) > charter.policy.log_bytes_max {
            return Err(Refusal::LogBytes(charter.policy.log_bytes_max));
        }
        Ok(())
    }

    /// Nobody stands behind what is everywhere and harmless, by whichever word. Disagreeing with it, and taking it back, goes
    /// always.
    fn guard(&self, statement: &Statement, record: &Bytes) -> Result<(), GuardRefusal> {
        let Statement::Opinion(opinion) = statement else { return Ok(()) };
        match opinion.stance {
            Stance::Submit => signal::admit(&opinion.subject, quality_of(record))?,
            Stance::Endorse => signal::admit_subject(&opinion.subject)?,
            Stance::Dispute | Stance::Neutral => return Ok(()),
        }
        if signal::is_among(&opinion.subject, &self.own.harmless) { Err(GuardRefusal::OwnHarmless) } else { Ok(()) }
    }

    /// A node refuses what would be inert for being over its quota, before it acknowledges it (layer 4).
    fn check_quota(&self, class: Class, parsed: &[Parsed], now: TimeMs) -> Result<(), Refusal> {
        let limit = self.chain.effective().policy.quota_per_day[class.index()];
        let day = now.max(self.own.last_time).day();
        let mut used = self.view.quotas().used(self.settings.me, class, day);
        let staged = self.staged.iter().filter_map(|s| match s {
            Staged::Block(block) if block.id().origin.member == self.settings.me => Some(block.records()),
            _ => None,
        });
        let open = self.own.open.get(&class).into_iter().flatten();
        let level = self.chain.effective().semantics;
        let waiting = staged.flatten().map(|p| p.withdraws(level));
        let waiting = waiting.chain(open.map(|d| record::parse(&d.bytes).withdraws(level)));
        for withdraws in waiting.chain(parsed.iter().map(|p| p.withdraws(level))) {
            let used = &mut used[usize::from(withdraws)];
            *used = used.saturating_add(1);
        }
        // One more for a log's opening, which takes a place of the day on which it happens. Only what is asked for is
        // held against its quota: a day full of statements never stops a withdrawal.
        let asked = |kind: usize| parsed.iter().any(|p| usize::from(p.withdraws(level)) == kind);
        if used.iter().enumerate().any(|(kind, u)| asked(kind) && u.saturating_add(1) > limit) {
            Err(Refusal::Quota { limit, lane: class.name() })
        } else {
            Ok(())
        }
    }

    /// Whether the normal lane has a log, or may begin one.
    pub(super) fn may_open_a_log(&self) -> bool {
        let limit = self.chain.effective().member(self.settings.me).map_or(0, |m| m.log_limit);
        let roots = self.chain.effective().member(self.settings.me).map(|m| m.root_key);
        roots == Some(self.settings.root.verifying_key())
            && (self.own.lanes.contains_key(&Class::Normal) || self.own.next_log_no().0 < limit)
    }

    /// Whether peers hold blocks of ours that we do not have back yet.
    pub(super) fn is_missing_own_blocks(&self) -> bool {
        let len = |log_no: &LogNo| self.logs.get(&self.my_origin(*log_no)).map_or(Seq(0), Log::len);
        // What stands behind a fork does not come back.
        let may_come = |log_no: &LogNo, seq| !self.is_convicted_at(self.my_origin(*log_no), seq);
        self.own.expected.iter().any(|(log_no, seq)| len(log_no) < *seq && may_come(log_no, *seq))
    }

    /// New logs are opened with `root`; those of another root key are not ours to write any more.
    pub(super) fn take_root(&mut self, root: SigningKey) {
        self.settings.root = root;
        let lanes: Vec<_> = self.own.lanes.values().copied().collect();
        for log_no in lanes {
            if self.logs.get(&self.my_origin(log_no)).is_some_and(|log| !self.opened_now(log)) {
                self.own.close(log_no);
            }
        }
    }

    /// Ends the logs that we write: each with a `LogClose`, after which nothing in it counts, whoever has its key.
    pub(super) fn close(
        &mut self,
        ticket: Ticket,
        next_seed: Option<[u8; 32]>,
        reason: u32,
        now: TimeMs,
        effects: &mut Vec<Effect>,
    ) {
        if !self.own.may_sign() {
            effects.push(Effect::Answer(ticket, Answer::Refused(Refusal::GuardPending)));
            return;
        }
        if !self.understands() {
            let level = u64::from(self.chain.effective().semantics);
            effects.push(Effect::Answer(ticket, Answer::Refused(Refusal::Semantics(level))));
            return;
        }
        self.seal(now, effects);
        let written: Vec<_> = self.own.lanes.iter().map(|(class, log_no)| (*class, *log_no)).collect();
        match self.staged.is_empty() {
            _ if !written.is_empty() => {}
            true => effects.push(Effect::Answer(ticket, Answer::Durable(Vec::new()))),
            false => self.staged.push_back(Staged::Answer(ticket, Answer::Durable(Vec::new()))),
        }
        let next = self.own.next_log_no();
        for (class, log_no) in written {
            let close = proto::LogClose { reason, next_log_no: next.0 };
            let salt = self.salt_of(&[&self.my_origin(log_no).to_bytes()[..], b"close"].concat());
            let bytes = record::encode(proto::Kind::LogClose, salt, &close);
            let mut drafts = [Draft { ticket: Some(ticket), bytes }].into_iter().peekable();
            if let Err(refusal) = self.sign_block(class, &mut drafts, now, effects) {
                effects.push(Effect::Answer(ticket, Answer::Refused(refusal)));
                return;
            }
            self.own.close(log_no);
        }
        if let Some(seed) = next_seed {
            self.settings.log_seed = seed;
        }
    }

    /// Says again what stands in blocks of ours that do not count, as far as it is still our word.
    pub(super) fn resubmit(
        &mut self,
        ticket: Ticket,
        said: Vec<(TimeMs, Bytes)>,
        now: TimeMs,
        effects: &mut Vec<Effect>,
    ) {
        // In the order in which it was said: the last word on a subject stays the last. What does not fit into the day's
        // quota is for tomorrow.
        // What the guard refuses by now is not said again, and does not hold up the rest.
        let admitted = |r: &Bytes| match record::parse(r) {
            Parsed::Says(statement) => self.guard(&statement, r).is_ok(),
            Parsed::Inert(_) => true,
        };
        let fits = |(time, r): &(TimeMs, Bytes)| self.is_still_our_word(r, *time, now) && admitted(r);
        let lost: Vec<_> = said.into_iter().filter(fits).collect();
        let mut refused = None;
        let mut records: Vec<Bytes> = Vec::new();
        let mut so_far = Vec::new();
        for chunk in lost.chunks(RECORDS_PER_SUBMISSION_MAX / 4) {
            let chunk: Vec<_> = chunk.iter().map(|(_, record)| record.clone()).collect();
            let parsed: Vec<_> = chunk.iter().map(|r| record::parse(r)).collect();
            let outcome = self.check(Class::Normal, &chunk, &parsed, now);
            so_far.extend(parsed);
            match outcome.and_then(|()| self.check_quota(Class::Normal, &so_far, now)) {
                Ok(()) => records.extend(chunk),
                Err(refusal) => {
                    refused = Some(refusal);
                    break;
                }
            }
        }
        if records.is_empty() {
            let answer = refused.map_or(Answer::Durable(Vec::new()), Answer::Refused);
            effects.push(Effect::Answer(ticket, answer));
        } else if self.own.may_sign() {
            let drafts = records.into_iter().map(|bytes| Draft { ticket: Some(ticket), bytes });
            self.own.open.entry(Class::Normal).or_default().extend(drafts);
            self.seal(now, effects);
        } else {
            for chunk in records.chunks(RECORDS_PER_SUBMISSION_MAX) {
                let answer = self.queue(Class::Normal, chunk.to_vec(), effects);
                if let Answer::Refused(_) = answer {
                    effects.push(Effect::Answer(ticket, answer));
                    return;
                }
            }
            self.staged.push_back(Staged::Answer(ticket, Answer::Queued));
        }
    }

    fn own_frame_bytes(&self) -> u64 {
        self.logs.values().filter(|l| l.origin().member == self.settings.me).map(Log::bytes).sum()
    }

    fn queue(&mut self, class: Class, records: Vec<Bytes>, effects: &mut Vec<Effect>) -> Answer {
        if self.own.outbox.len() >= OUTBOX_MAX {
            return Answer::Refused(Refusal::OutboxFull);
        }
        let id = self.own.next_outbox;
        self.own.next_outbox += 1;
        effects.push(Effect::Store(Write::Outbox(id, encode_outbox(class, &records))));
        self.own.outbox.insert(id, (class, records));
        Answer::Queued
    }

    /// Signs the batches that were gathered (W2).
    pub(super) fn seal(&mut self, now: TimeMs, effects: &mut Vec<Effect>) {
        if !self.own.may_sign() {
            return;
        }
        let mut all_signed = true;
        for (class, drafts) in std::mem::take(&mut self.own.open) {
            let mut drafts = drafts.into_iter().peekable();
            while drafts.peek().is_some() {
                if let Err(refusal) = self.sign_block(class, &mut drafts, now, effects) {
                    all_signed = false;
                    let tickets: BTreeSet<_> = drafts.by_ref().filter_map(|d| d.ticket).collect();
                    effects.extend(tickets.into_iter().map(|t| Effect::Answer(t, Answer::Refused(refusal.clone()))));
                }
            }
        }
        // Dropped from the outbox in the batch that stores their blocks; saying a thing twice is harmless, losing it is not.
        for id in std::mem::take(&mut self.own.leaving_outbox) {
            if all_signed {
                self.own.outbox.remove(&id);
                effects.push(Effect::Store(Write::DropOutbox(id)));
            }
        }
    }

    fn sign_block(
        &mut self,
        class: Class,
        drafts: &mut std::iter::Peekable<impl Iterator<Item = Draft>>,
        now: TimeMs,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let log_no = self.lane(class)?;
        let origin = self.my_origin(log_no);
        let key = self.log_key(log_no);
        let opening = open_log(self.chain.forum(), origin, class.number(), &self.settings.root, &key);
        let mut batch = Vec::new();
        let log = self.logs.get(&origin);
        if log.is_none_or(Log::is_empty) {
            let salt = self.salt(origin);
            batch.push(Draft { ticket: None, bytes: record::encode(proto::Kind::LogOpen, salt, &opening.message) });
        }
        let mut payload: usize = batch.iter().map(|d| d.bytes.len()).sum();
        while batch.len() < RECORDS_PER_BLOCK_MAX
            && let Some(draft) = drafts.next_if(|d| payload + d.bytes.len() <= PAYLOAD_SIZE_MAX)
        {
            payload += draft.bytes.len();
            batch.push(draft);
        }
        let (seq, prev, log_root) = log.map_or_else(|| Log::empty(origin, opening.clone()).next(), Log::next);
        let time = now.max(TimeMs(self.own.last_time.0 + 1));
        let slots: Vec<_> = batch.iter().map(|d| Slot::Record(d.bytes.clone())).collect();
        let header = Header {
            forum: self.chain.forum(),
            id: BlockId { origin, seq },
            class: class.number(),
            audience: 0,
            time,
            prev,
            log_root,
            record_count: u32::try_from(slots.len()).unwrap_or(u32::MAX),
            payload_len: u32::try_from(payload).unwrap_or(u32::MAX),
            records_root: merkle::root(slots.iter().map(Slot::leaf)),
            key_id: opening.key_id,
            flags: 0,
            ext_hash: [0; 32],
        };
        let frame = Frame { header: SignedHeader::sign(header, &key), slots, ext: Bytes::new() };
        self.append(frame, &batch, effects);
        Ok(())
    }

    /// Our own block takes the same road as a stranger's: verified, extended, staged.
    fn append(&mut self, frame: Frame, batch: &[Draft], effects: &mut Vec<Effect>) {
        let bytes = frame.encode();
        let keyring = self.keyring();
        let Ok(block) = keyring.verify(frame) else {
            debug_assert!(false, "we signed a block that does not verify");
            return;
        };
        let id = block.id();
        if !matches!(self.extend(&block), Extension::Extended) {
            debug_assert!(false, "we signed a block that does not extend our log");
            return;
        }
        self.own.last_time = self.own.last_time.max(block.header().time);
        effects.push(Effect::Journal(id, bytes.clone()));
        effects.push(Effect::Store(Write::Block(id, bytes)));
        let receipts = receipts(&block, batch);
        self.staged.push_back(Staged::Block(Box::new(block)));
        let answers = receipts.into_iter().map(|(ticket, receipts)| Staged::Answer(ticket, Answer::Durable(receipts)));
        self.staged.extend(answers);
        if self.settings.rules.break_rule(WrongRule::PublishBeforeFsync) {
            self.durable(TimeMs(0), effects);
        }
    }

    /// The log of a lane: the one we write, or the next number.
    fn lane(&mut self, class: Class) -> Result<LogNo, Refusal> {
        if let Some(log_no) = self.own.lanes.get(&class) {
            return Ok(*log_no);
        }
        let limit = self.chain.effective().member(self.settings.me).map_or(0, |m| m.log_limit);
        let next = self.own.next_log_no();
        if next.0 >= limit {
            return Err(Refusal::LogsUsedUp(limit));
        }
        self.own.log_nos.insert(next);
        self.own.lanes.insert(class, next);
        Ok(next)
    }

    /// The key of one of our logs: derived, so that a log's number and its key cannot come apart.
    fn log_key(&self, log_no: LogNo) -> SigningKey {
        let seed = sha256(&[b"staydown/log-key/v1\n", &self.settings.log_seed, &log_no.0.to_be_bytes()]);
        remembered!(SigningKey, &[&seed], SigningKey::from_bytes(&seed))
    }

    /// Name of the key with which we would write `log_no` now.
    pub(super) fn log_key_id(&self, log_no: LogNo) -> super::ids::KeyId {
        super::ids::KeyId::of(self.log_key(log_no).verifying_key().as_bytes())
    }

    /// Whether a log of ours was opened under the root key that we have.
    pub(super) fn opened_now(&self, log: &Log) -> bool {
        log.opening().root_key_id == super::ids::KeyId::of(self.settings.root.verifying_key().as_bytes())
    }

    /// The salt of a record that we make ourselves: unknown to others, and the same when made again.
    fn salt(&self, origin: Origin) -> [u8; SALT_SIZE] {
        self.salt_of(&origin.to_bytes())
    }

    /// The salt of an attestation.
    pub(super) fn draw_salt(&self, heads: &[(Origin, super::ids::Head)]) -> [u8; SALT_SIZE] {
        let hashes: Vec<_> = heads.iter().flat_map(|(_, head)| head.hash.0).collect();
        self.salt_of(&hashes)
    }

    fn salt_of(&self, what: &[u8]) -> [u8; SALT_SIZE] {
        let hash = sha256(&[b"staydown/salt/v1\n", &self.settings.log_seed, what]);
        let mut salt = [0; SALT_SIZE];
        salt.copy_from_slice(&hash[..SALT_SIZE]);
        salt
    }

    /// Extends a log, opening it if the block is its first, and learns the opening. A first block that breaks a rule
    /// opens nothing: else whoever was shown it could never take the log that everybody else holds.
    pub(super) fn extend(&mut self, block: &VerifiedBlock) -> Extension {
        let origin = block.id().origin;
        let mut keyring = self.keyring();
        if block.opening().is_some() {
            std::sync::Arc::make_mut(&mut keyring).learn(block);
        }
        let mut opened = None;
        let held = self.logs.get_mut(&origin);
        let Some(log) = held.or_else(|| {
            opened = Log::open(block);
            opened.as_mut()
        }) else {
            return Extension::Gap;
        };
        let extension = log.extend(block, &keyring);
        if !matches!(extension, Extension::Extended) {
            return extension;
        }
        self.logs.extend(opened.map(|log| (origin, log)));
        if block.opening().is_some() {
            self.keyring = keyring;
        }
        if origin.member == self.settings.me {
            self.own.log_nos.insert(origin.log_no);
            self.own.last_time = self.own.last_time.max(block.header().time);
        }
        extension
    }

    /// A peer told us its heads: does it know more of our logs than we do? (W4 b, and the own-log watch.)
    pub(super) fn watch_own_logs(
        &mut self,
        peer: super::MemberId,
        greeting: &Greeting,
        now: TimeMs,
        effects: &mut Vec<Effect>,
    ) {
        if self.settings.rules.break_rule(WrongRule::RestoreAndGoOn) {
            self.own.guard = Guard::Open;
        }
        if greeting.second_copy {
            // Both would sign the next block, and one of the two would be evidence against us.
            self.alarm(Alarm::SecondCopy(peer), effects);
            if let Some(exchange) = self.exchanges.get_mut(&peer) {
                exchange.missed(now);
            }
            return;
        }
        self.alarms.remove(&Alarm::SecondCopy(peer));
        let claims = self.claims_on_own_logs(greeting);
        for (origin, seq) in &claims {
            // A claim is only somebody's word: close nothing before the header is here and our own keys signed it.
            self.search(peer, *origin, *seq, None, effects);
        }
        if claims.is_empty() {
            self.own.claimed_by.remove(&peer);
            if let Guard::Pending { answered, .. } = &mut self.own.guard {
                answered.insert(peer);
            }
        } else {
            self.own.claimed_by.entry(peer).or_default();
        }
        self.open_guard(now, effects);
    }

    /// We may sign when enough peers have answered and no claim on our logs is open: who claims must show, and is cut
    /// off if it cannot. An answer is heads, charters and proofs: of a log of ours that is disputed from its first block
    /// on nobody publishes a head, and only the proof tells that its number is used.
    pub(super) fn open_guard(&mut self, now: TimeMs, effects: &mut Vec<Effect>) {
        let awaited = |peer| self.exchanges.get(&peer).is_some_and(super::Exchange::is_catching_up);
        let learning = |s: &Staged| matches!(s, Staged::Proof(_) | Staged::Charter(_) | Staged::CharterFork(_));
        if self.own.is_answered(awaited) && !self.staged.iter().any(learning) {
            self.own.guard = Guard::Open;
        }
        if self.own.may_sign() {
            self.drain_outbox(now, effects);
        }
    }

    /// What the guard waits for may just have come.
    pub(super) fn open_guard_if_pending(&mut self, now: TimeMs, effects: &mut Vec<Effect>) {
        if !self.own.may_sign() {
            self.open_guard(now, effects);
        }
    }

    /// The startup guard again: an image of this machine may have been started while we stood still, and may have been
    /// taken for us by every peer. Whoever merely slept has its answers in a moment.
    pub(super) fn woke(&mut self) {
        self.own.guard = super::own::Own::new(self.exchanges.len(), false).guard;
        self.exchanges.values_mut().for_each(super::Exchange::want_greeting);
    }

    /// Heads that a peer claims of logs that we may still write, and that are not ours.
    fn claims_on_own_logs(&self, greeting: &Greeting) -> Vec<(Origin, Seq)> {
        if self.settings.rules.break_rule(WrongRule::RestoreAndGoOn) {
            return Vec::new();
        }
        let me = self.settings.me;
        // No block of a log number beyond our limit can verify.
        let limit = self.chain.effective().member(me).map_or(0, |m| m.log_limit);
        let ours = |origin: Origin| origin.member == me && origin.log_no.0 < limit;
        let claimed = greeting.have.iter().filter(|(origin, head)| ours(*origin) && head.seq > Seq(0));
        let open = claimed.filter(|(origin, head)| {
            let same = self.logs.get(origin).is_some_and(|log| log.hash_at(head.seq) == Some(head.hash));
            !same && !self.own.closed.contains(&origin.log_no) && !self.is_convicted_at(*origin, head.seq)
        });
        open.map(|(origin, head)| (origin, head.seq)).collect()
    }

    /// A header of one of our own logs that our keys signed and that we do not hold: a restored backup, a second copy
    /// of this node, or a stolen key. Whichever it is, we write there no more (W4 b, and the own-log watch).
    pub(super) fn own_log_elsewhere(&mut self, id: BlockId, effects: &mut Vec<Effect>) {
        self.own.close(id.origin.log_no);
        self.own.lost = true;
        self.alarm(Alarm::OwnLogElsewhere(id.origin), effects);
        let held = self.logs.get(&id.origin).map_or(Seq(0), Log::len);
        if id.seq > held {
            let expected = self.own.expected.entry(id.origin.log_no).or_default();
            *expected = (*expected).max(id.seq);
        }
    }

    /// The guard has its answers: what waited is signed, or reported as refused (I23).
    pub(super) fn drain_outbox(&mut self, now: TimeMs, effects: &mut Vec<Effect>) {
        let waiting: Vec<_> =
            self.own.outbox.iter().map(|(id, (class, records))| (*id, *class, records.clone())).collect();
        for (id, class, records) in waiting {
            if self.own.leaving_outbox.contains(&id) {
                continue;
            }
            let parsed: Vec<_> = records.iter().map(|r| record::parse(r)).collect();
            match self.check(class, &records, &parsed, now) {
                Ok(()) => {
                    let drafts = records.into_iter().map(|bytes| Draft { ticket: None, bytes });
                    self.own.open.entry(class).or_default().extend(drafts);
                    self.own.leaving_outbox.push(id);
                }
                // Tomorrow, after the next charter, or with the next release.
                Err(
                    Refusal::Quota { .. }
                    | Refusal::LogsUsedUp(_)
                    | Refusal::NotActive(_)
                    | Refusal::Suspended(_)
                    | Refusal::RootKey(_)
                    | Refusal::Semantics(_),
                ) => {}
                Err(refusal) => {
                    self.own.outbox.remove(&id);
                    effects.push(Effect::Store(Write::DropOutbox(id)));
                    self.alarm(Alarm::OutboxRefused(id, refusal.to_string()), effects);
                }
            }
        }
        self.seal(now, effects);
    }

    /// Puts a stored outbox entry back in its place.
    pub(super) fn restore_outbox(&mut self, id: u64, bytes: Bytes) -> bool {
        let Some(entry) = decode_outbox(bytes) else { return false };
        self.own.next_outbox = self.own.next_outbox.max(id + 1);
        self.own.outbox.insert(id, entry);
        true
    }

    /// W5: records of damaged journal frames are said again, unless the block itself came back from a peer.
    pub(super) fn reoffer_orphans(&mut self, now: TimeMs, effects: &mut Vec<Effect>) {
        let len = |replica: &Self, log_no| replica.logs.get(&replica.my_origin(log_no)).map_or(Seq(0), Log::len);
        if self.own.orphans.is_empty() || !self.own.may_sign() || self.is_missing_own_blocks() {
            return;
        }
        for (id, (time, records)) in std::mem::take(&mut self.own.orphans) {
            let came_back = len(self, id.origin.log_no) >= id.seq;
            let lost: Vec<_> =
                records.into_iter().filter(|r| !came_back && self.is_still_our_word(r, time, now)).collect();
            if !lost.is_empty() {
                self.queue(Class::Normal, lost, effects);
            }
        }
        self.drain_outbox(now, effects);
    }

    /// Whether a record of `time` would still be our latest word on its subject: what we said later is not undone.
    fn is_still_our_word(&self, record: &Bytes, time: TimeMs, now: TimeMs) -> bool {
        let Parsed::Says(statement) = record::parse(record) else { return false };
        let is_word = matches!(
            statement,
            Statement::Opinion(_) | Statement::Retract { .. } | Statement::Allow { .. } | Statement::Referral { .. }
        );
        let Some(subject) = statement.subject().filter(|_| is_word) else { return false };
        // What was said of accounts ends with its pepper.
        if admission::account_counts(self.chain.effective(), &statement, now).is_err() {
            return false;
        }
        let entry = self.view.entry(subject, now);
        !entry.is_some_and(|e| e.said.iter().any(|s| s.member == self.settings.me && s.time >= time))
    }

    /// "I hold this proof", in our own log (PROTOCOL section 8).
    pub(super) fn give_evidence(&mut self, origin: Origin, seq: Seq, hash: [u8; 32]) {
        let evidence = proto::Evidence {
            proof_hash: Bytes::copy_from_slice(&hash),
            origin: Some(super::heads::origin_to_proto(origin)),
            seq: seq.0,
        };
        if self.own.may_sign() && self.is_active() && self.understands() && !self.own.lanes.is_empty() {
            let bytes = record::encode(proto::Kind::Evidence, self.salt(origin), &evidence);
            self.own.open.entry(Class::Normal).or_default().push(Draft { ticket: None, bytes });
        }
    }
}

/// The admission guard of SIGNALS.md: only what is *listed* must be sound; taking back is always allowed.
/// The PDQ quality in an opinion's bytes, if it is there.
fn quality_of(record: &Bytes) -> Option<u32> {
    use prost::Message as _;
    let record = proto::Record::decode(record.clone()).ok()?;
    let opinion = proto::Opinion::decode(record.body).ok()?;
    Some(opinion.quality)
}

/// The receipts of a block's records, by submission.
fn receipts(block: &VerifiedBlock, batch: &[Draft]) -> Vec<(Ticket, Vec<Receipt>)> {
    if batch.iter().all(|draft| draft.ticket.is_none()) {
        return Vec::new();
    }
    let leaves: Vec<_> = block.frame().slots.iter().map(Slot::leaf).collect();
    let mut receipts: Vec<(Ticket, Vec<Receipt>)> = Vec::new();
    for ((index, draft), path) in (0_u32..).zip(batch).zip(merkle::inclusion_paths(&leaves)) {
        let Some(ticket) = draft.ticket else { continue };
        let receipt = Receipt {
            block: block.id(),
            index,
            header: *block.signed().bytes(),
            signature: *block.signed().signature(),
            record: draft.bytes.clone(),
            path,
        };
        match receipts.last_mut() {
            Some((last, of_ticket)) if *last == ticket => of_ticket.push(receipt),
            _ => receipts.push((ticket, vec![receipt])),
        }
    }
    receipts
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]
mod tests {
    use super::*;
    use crate::replica::exchange::{Ask, Call, PeerEvent, Trouble};
    use crate::replica::ids::{Head, HeaderHash};
    use crate::replica::own::CLAIM_TRIES;
    use crate::replica::signed::VerifiedHeader;
    use crate::replica::testing::{
        CERTIFIER, FULL, REFERRAL, SMALL, START, TestForum, allow, id, opinion, opinion_with, origin, referral,
        replica, retract, subject,
    };
    use crate::replica::{Input, charter};

    /// A node, and what it was asked and answered.
    struct Node {
        replica: Replica,
        now: TimeMs,
        tickets: u64,
    }

    impl Node {
        fn new(forum: &TestForum, me: u8) -> Self {
            Self { replica: replica(forum, me), now: START, tickets: 0 }
        }

        /// The node of a company that is alone, or with others that have answered.
        fn ready(forum: &TestForum) -> Self {
            let mut node = Self::new(forum, 1);
            for member in 2..=forum.latest.members.len() as u8 {
                node.greeted_by(member, &[]);
            }
            assert!(!node.replica.guard_pending());
            node
        }

        fn handle(&mut self, input: Input) -> Vec<Effect> {
            self.now = self.now.plus(1);
            self.replica.handle(input, self.now)
        }

        fn submit(&mut self, class: Class, records: Vec<Bytes>) -> Vec<Effect> {
            self.tickets += 1;
            self.handle(Input::Submit { ticket: Ticket(self.tickets), class, records })
        }

        /// Signs what was gathered and makes it durable.
        fn settle(&mut self) -> Vec<Effect> {
            let mut effects = self.handle(Input::Seal);
            effects.extend(self.handle(Input::Durable));
            effects
        }

        /// What one submission in the normal lane comes to.
        fn says(&mut self, records: Vec<Bytes>) -> Answer {
            self.says_in(Class::Normal, records)
        }

        fn says_in(&mut self, class: Class, records: Vec<Bytes>) -> Answer {
            let mut effects = self.submit(class, records);
            effects.extend(self.settle());
            let mut answers = answers(effects);
            assert_eq!(answers.len(), 1, "one answer: {answers:?}");
            answers.swap_remove(0).1
        }

        fn greeted_by(&mut self, member: u8, heads: &[(Origin, u64)]) -> Vec<Effect> {
            let mut greeting = self.replica.greeting(self.now);
            greeting.have = crate::replica::heads::Have::default();
            for (origin, seq) in heads {
                greeting.have.set(*origin, Head { seq: Seq(*seq), hash: HeaderHash([9; 32]) });
            }
            self.handle(Input::Peer(id(member), PeerEvent::Greeted(greeting)))
        }
    }

    fn answers(effects: Vec<Effect>) -> Vec<(Ticket, Answer)> {
        effects.into_iter().filter_map(|e| if let Effect::Answer(t, a) = e { Some((t, a)) } else { None }).collect()
    }

    fn receipts_of(answer: Answer) -> Vec<Receipt> {
        let Answer::Durable(receipts) = answer else { panic!("{answer:?}") };
        receipts
    }

    fn refusal(answer: Answer) -> Refusal {
        let Answer::Refused(refusal) = answer else { panic!("{answer:?}") };
        refusal
    }

    #[test]
    fn what_is_acknowledged_is_in_the_list_and_has_a_receipt() {
        let mut node = Node::ready(&TestForum::of_full(1));
        let records = vec![opinion(1, 1), opinion(2, 1), opinion(3, 1)];
        let receipts = receipts_of(node.says(records.clone()));
        assert_eq!(receipts.iter().map(|r| r.record.clone()).collect::<Vec<_>>(), records);
        for receipt in &receipts {
            let signed = SignedHeader::from_parts(&receipt.header, &receipt.signature).unwrap();
            let leaf = merkle::leaf_hash(&receipt.record);
            let size = u64::from(signed.header().record_count);
            let root = merkle::root_by_path(leaf, u64::from(receipt.index), size, &receipt.path);
            assert_eq!(root, Some(signed.header().records_root));
            assert!(signed.is_signed_by(&node.replica.opening(receipt.block.origin).unwrap().key));
        }
        assert!(node.replica.view().entry(&subject(2), node.now).is_some());
    }

    /// W1: durable, published, acknowledged.
    #[test]
    fn nothing_is_published_or_answered_before_it_is_durable() {
        let mut node = Node::ready(&TestForum::of_full(1));
        assert!(node.submit(Class::Normal, vec![opinion(1, 1)]).is_empty());
        let effects = node.handle(Input::Seal);
        assert!(matches!(effects[..], [Effect::Journal(..), Effect::Store(Write::Block(..))]), "{effects:?}");
        assert!(node.replica.have().is_empty() && node.replica.view().entry(&subject(1), node.now).is_none());
        let effects = node.handle(Input::Durable);
        assert!(matches!(effects[..], [Effect::Publish, Effect::Answer(..)]), "{effects:?}");
        assert_eq!(node.replica.have().seq(origin(1, 0)), Seq(1));
    }

    #[test]
    fn each_lane_has_a_log_of_its_own() {
        let mut node = Node::ready(&TestForum::of_full(1));
        for (class, log_no) in [(Class::Bulk, 0), (Class::Urgent, 1), (Class::Bulk, 0), (Class::Normal, 2)] {
            let receipts = receipts_of(node.says_in(class, vec![opinion(1, 1)]));
            assert_eq!(receipts[0].block.origin, origin(1, log_no));
        }
    }

    #[test]
    fn a_members_own_later_word_has_the_later_time_even_if_the_clock_goes_back() {
        let mut node = Node::ready(&TestForum::of_full(1));
        node.says(vec![opinion(1, 1)]);
        node.now = TimeMs(START.0 - TimeMs::DAY_MS);
        node.says_in(Class::Urgent, vec![opinion(1, 4)]);
        let entry = node.replica.view().entry(&subject(1), START).unwrap();
        assert_eq!(entry.status, crate::replica::view::Status::Inactive);
    }

    #[test]
    fn a_block_takes_512_records_and_a_submission_may_end_in_the_next() {
        let mut node = Node::ready(&TestForum::of_full(1));
        let many = |count: u16| {
            let record = |n: u16| opinion_with((n % 200) as u8 + 1, 1, |o| o.labels = vec![u32::from(n) + 1]);
            (0..count).map(record).collect::<Vec<_>>()
        };
        node.submit(Class::Normal, many(300));
        node.submit(Class::Normal, many(300));
        let answers = answers(node.settle());
        assert_eq!(answers.len(), 2, "one answer a submission");
        for (_, answer) in answers {
            let receipts = receipts_of(answer);
            assert_eq!(receipts.len(), 300);
            assert!(receipts.iter().all(|r| (r.index as usize) < RECORDS_PER_BLOCK_MAX));
        }
        assert_eq!(node.replica.have().seq(origin(1, 0)), Seq(2));
        let receipts = receipts_of(node.says(many(RECORDS_PER_SUBMISSION_MAX as u16)));
        assert_eq!(receipts.last().unwrap().block.seq, Seq(3));
    }

    #[test]
    fn an_empty_submission_is_answered() {
        let mut node = Node::ready(&TestForum::of_full(1));
        assert_eq!(node.says(Vec::new()), Answer::Durable(Vec::new()));
        assert!(node.replica.have().is_empty());
    }

    #[test]
    fn each_refusal_says_why_and_leaves_nothing_behind() {
        let soon = START.plus(TimeMs::DAY_MS);
        type Change = fn(&mut proto::Charter);
        let same: Change = |_| ();
        let long = |size: usize| opinion_with(1, 1, |o| o.languages = vec!["x".repeat(size)]);
        let cases: Vec<(&str, u32, Change, Vec<Bytes>)> = vec![
            ("not an active member", FULL, |c| c.members[0].status = 2, vec![opinion(1, 1)]),
            ("not an active member", FULL, |c| c.members[0].status = 3, vec![opinion(1, 1)]),
            ("roles (SMALL) do not allow", SMALL, same, vec![retract(1, true)]),
            ("roles (FULL) do not allow", FULL, same, vec![allow(1, true, soon)]),
            ("roles (CERTIFIER) do not allow", CERTIFIER, same, vec![opinion(1, 1)]),
            ("roles (REFERRAL) do not allow", REFERRAL, same, vec![referral(1, true), opinion(1, 1)]),
            ("statement 1 stance is unknown", FULL, same, vec![opinion(1, 1), opinion(1, 9)]),
            ("statement 0 record is longer", FULL, same, vec![long(5_000)]),
            ("statement 1 is refused by the admission guard", FULL, same, vec![opinion(1, 1), opinion(0, 1)]),
            (
                "quota of 2 records a day in the normal lane",
                FULL,
                |c| {
                    c.policy.as_mut().unwrap().quota_per_day = vec![2, 9, 9];
                },
                vec![opinion(1, 1), opinion(2, 1)],
            ),
            ("at most 511 statements", FULL, same, vec![opinion(1, 1); 512]),
            ("at most 511 statements and 256 KiB", FULL, same, vec![long(4_000); 66]),
            ("semantics level 5", FULL, |c| c.semantics = 5, vec![opinion(1, 1)]),
            (
                "larger than the charter allows (200 bytes)",
                FULL,
                |c| {
                    c.policy.as_mut().unwrap().log_bytes_max = 200;
                },
                (1..5).map(|n| opinion(n, 1)).collect(),
            ),
        ];
        for (expected, roles, change, records) in cases {
            let forum = TestForum::with(&[("a", roles)], change);
            let mut node = Node::new(&forum, 1);
            let effects = node.submit(Class::Normal, records);
            let [Effect::Answer(_, Answer::Refused(why))] = &effects[..] else { panic!("{expected}: {effects:?}") };
            assert!(why.to_string().contains(expected), "{why}, expected {expected}");
            assert!(node.settle().is_empty(), "{expected}: nothing is signed");
        }
    }

    #[test]
    fn taking_back_is_never_refused_by_the_admission_guard() {
        let mut node = Node::ready(&TestForum::of_full(1));
        assert!(matches!(node.says(vec![opinion(0, 4), opinion(0, 3)]), Answer::Durable(_)));
    }

    #[test]
    fn a_quota_counts_what_waits_and_begins_anew_the_next_day() {
        let quota = |c: &mut proto::Charter| c.policy.as_mut().unwrap().quota_per_day = vec![5, 5, 5];
        let mut node = Node::ready(&TestForum::with(&[("a", FULL)], quota));
        // The opening takes a place, and one is kept for the opening of another log.
        assert!(answers(node.submit(Class::Normal, vec![opinion(1, 1), opinion(2, 1)])).is_empty());
        assert!(answers(node.submit(Class::Normal, vec![opinion(3, 1)])).is_empty());
        assert_eq!(
            answers(node.submit(Class::Normal, vec![opinion(4, 1), opinion(5, 1)])).len(),
            1,
            "what waits counts"
        );
        assert_eq!(answers(node.settle()).len(), 2);
        assert!(matches!(refusal(node.says(vec![opinion(4, 1)])), Refusal::Quota { limit: 5, lane: "normal" }));
        assert!(matches!(node.says(vec![opinion(1, 4)]), Answer::Durable(_)), "withdrawals have one of their own");
        assert!(matches!(node.says_in(Class::Urgent, vec![opinion(4, 1)]), Answer::Durable(_)), "as has each lane");
        node.now = START.plus(TimeMs::DAY_MS);
        assert!(matches!(node.says(vec![opinion(4, 1)]), Answer::Durable(_)));
        // Nothing that was acknowledged is inert.
        assert_eq!(node.replica.view().inert(), 0);
    }

    #[test]
    fn so_many_peers_must_answer_before_anything_is_signed() {
        for (members, needed) in [(1, 0), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2), (7, 3), (10, 4)] {
            let forum = TestForum::of_full(members);
            let mut node = Node::new(&forum, 1);
            let mut answered = 0;
            while node.replica.guard_pending() {
                assert_eq!(answers(node.submit(Class::Normal, vec![opinion(1, 1)])), [], "queued when it is durable");
                assert!(matches!(answers(node.settle())[..], [(_, Answer::Queued)]));
                answered += 1;
                node.greeted_by(answered + 1, &[]);
                node.greeted_by(1, &[]);
                node.greeted_by(99, &[]);
            }
            assert_eq!(answered, needed, "{members} members");
        }
    }

    #[test]
    fn one_peer_that_answers_twice_is_one_answer() {
        let mut node = Node::new(&TestForum::of_full(5), 1);
        for _ in 0..5 {
            node.greeted_by(2, &[]);
        }
        assert!(node.replica.guard_pending());
        node.greeted_by(3, &[]);
        assert!(!node.replica.guard_pending());
    }

    #[test]
    fn what_waited_in_the_outbox_is_signed_when_the_guard_opens() {
        let mut node = Node::new(&TestForum::of_full(2), 1);
        let key = [7; 16];
        let mut effects = node.submit(Class::Normal, vec![opinion_with(1, 1, |o| o.client_key = key.to_vec().into())]);
        effects.extend(node.submit(Class::Urgent, vec![opinion(2, 1)]));
        let outbox = effects.iter().filter(|e| matches!(e, Effect::Store(Write::Outbox(..)))).count();
        assert_eq!((outbox, node.replica.outbox_len()), (2, 2));
        node.settle();
        assert!(node.replica.keys_under_way().contains(&key) && node.replica.submitted_before(&key).is_none());
        assert!(node.replica.have().is_empty(), "nothing is signed");

        let effects = node.greeted_by(2, &[]);
        let count = |wanted: fn(&Effect) -> bool| effects.iter().filter(|e| wanted(e)).count();
        assert_eq!(count(|e| matches!(e, Effect::Journal(..))), 2);
        assert_eq!(count(|e| matches!(e, Effect::Store(Write::DropOutbox(_)))), 2);
        assert_eq!(node.replica.outbox_len(), 0);
        node.handle(Input::Durable);
        let entry = |about| node.replica.view().entry(&subject(about), node.now);
        assert!(entry(1).is_some() && entry(2).is_some());
        assert_eq!(node.replica.submitted_before(&key).map(|(block, index)| (block.seq, index)), Some((Seq(1), 1)));
        assert!(!node.replica.keys_under_way().contains(&key));
    }

    #[test]
    fn an_outbox_entry_that_may_not_be_signed_is_reported() {
        let mut forum = TestForum::of_full(2);
        let mut node = Node::new(&forum, 1);
        node.submit(Class::Normal, vec![opinion(1, 1)]);
        node.settle();
        node.handle(Input::Charter(forum.issue(|c| c.members[0].roles = CERTIFIER)));
        node.handle(Input::Durable);
        let effects = node.greeted_by(2, &[]);
        assert!(effects.iter().any(|e| matches!(e, Effect::Alarm(Alarm::OutboxRefused(..)))), "{effects:?}");
        assert!(effects.iter().any(|e| matches!(e, Effect::Store(Write::DropOutbox(_)))));
        assert_eq!(node.replica.outbox_len(), 0);
    }

    #[test]
    fn an_outbox_is_full_at_ten_thousand_submissions() {
        assert_eq!(OUTBOX_MAX, 10_000);
        let mut node = Node::new(&TestForum::of_full(2), 1);
        let record = opinion(1, 1);
        for _ in 0..OUTBOX_MAX {
            node.submit(Class::Normal, vec![record.clone()]);
            node.handle(Input::Durable);
        }
        assert_eq!(node.replica.outbox_len(), OUTBOX_MAX);
        assert_eq!(refusal(node.says(vec![record])), Refusal::OutboxFull);
        assert_eq!(node.replica.outbox_len(), OUTBOX_MAX);
    }

    /// Headers of `log_no` of a node with our keys, as a peer would send them.
    fn headers_of(twin: &Replica, receipts: &[Receipt]) -> Vec<VerifiedHeader> {
        let header = |r: &Receipt| proto::SignedHeader {
            header: r.header.to_vec().into(),
            signature: r.signature.to_vec().into(),
            open: twin.opening(r.block.origin).map(|o| o.message.clone()),
        };
        receipts.iter().map(|r| twin.keyring().verify_header(&header(r)).unwrap()).collect()
    }

    #[test]
    fn a_block_of_our_log_that_we_do_not_hold_closes_it_and_a_claim_alone_does_not() {
        let forum = TestForum::of_full(2);
        let (mut node, mut twin) = (Node::ready(&forum), Node::ready(&forum));
        node.says(vec![opinion(1, 1)]);
        let mut said = receipts_of(twin.says(vec![opinion(1, 1)]));
        said.extend(receipts_of(twin.says(vec![opinion(2, 1)])));
        let headers = headers_of(&twin.replica, &said);

        let effects = node.greeted_by(2, &[(origin(1, 0), 2)]);
        assert!(matches!(effects[..], [Effect::Ask(_, Ask::Headers { to: Seq(2), .. })]), "{effects:?}");
        assert!(node.replica.alarms().is_empty(), "so far it is only a claim");
        node.handle(Input::Peer(id(2), PeerEvent::Header(Box::new(headers[1].clone()))));
        node.handle(Input::Peer(id(2), PeerEvent::Ended(Call::Talk, Ok(()))));
        node.handle(Input::Peer(id(2), PeerEvent::Header(Box::new(headers[0].clone()))));
        assert!(node.replica.alarms().contains(&Alarm::OwnLogElsewhere(origin(1, 0))));
        let receipts = receipts_of(node.says(vec![opinion(3, 1)]));
        assert_eq!(receipts[0].block, BlockId { origin: origin(1, 1), seq: Seq(1) });
    }

    #[test]
    fn a_claim_that_nobody_proves_closes_nothing_and_does_not_open_the_guard() {
        let mut node = Node::new(&TestForum::of_full(3), 1);
        node.greeted_by(2, &[(origin(1, 0), 9)]);
        assert!(node.replica.guard_pending(), "the answer is not settled");
        node.greeted_by(3, &[]);
        assert!(node.replica.guard_pending(), "the claim is still open");
        node.handle(Input::Peer(id(2), PeerEvent::Ended(Call::Talk, Ok(()))));
        assert!(!node.replica.guard_pending(), "it was not shown");
        assert_eq!(receipts_of(node.says(vec![opinion(1, 1)]))[0].block.origin, origin(1, 0));
    }

    /// Else one liar keeps a restarted node from signing for ever. What `needed` others hold is newer than any backup (W4).
    #[test]
    fn a_claim_behind_a_line_that_always_breaks_holds_the_guard_for_some_tries_only() {
        for others in [0, 1] {
            let mut node = Node::new(&TestForum::of_full(3), 1);
            for tried in 0..2 * CLAIM_TRIES {
                node.greeted_by(2, &[(origin(1, 0), 9)]);
                (0..others).for_each(|_| drop(node.greeted_by(3, &[])));
                assert_eq!(node.replica.guard_pending(), others == 0 || tried < CLAIM_TRIES, "{others} {tried}");
                let broken = Trouble::Unreachable("connection reset".into());
                node.handle(Input::Peer(id(2), PeerEvent::Ended(Call::Talk, Err(broken))));
            }
            node.greeted_by(2, &[]);
            assert!(!node.replica.guard_pending(), "a claim that is taken back is an answer");
        }
    }

    /// Log numbers beyond our limit cannot exist: whoever claims them would otherwise silence us with one greeting.
    #[test]
    fn a_claim_that_no_block_can_support_uses_up_no_log_number() {
        for claimed in [charter::LOG_LIMIT_DEFAULT, 4, u32::MAX] {
            let mut node = Node::ready(&TestForum::of_full(2));
            node.greeted_by(2, &[(origin(1, claimed), 1)]);
            let receipts = receipts_of(node.says(vec![opinion(2, 1)]));
            assert_eq!(receipts[0].block.origin, origin(1, 0), "log {claimed} was claimed");
        }
    }

    #[test]
    fn when_all_log_numbers_are_used_up_a_charter_must_help() {
        let mut forum = TestForum::of_full(2);
        let mut node = Node::ready(&forum);
        node.handle(Input::Charter(forum.issue(|c| c.members[0].log_limit = 2)));
        node.handle(Input::Durable);
        for class in [Class::Normal, Class::Urgent] {
            assert!(matches!(node.says_in(class, vec![opinion(1, 1)]), Answer::Durable(_)));
        }
        assert_eq!(refusal(node.says_in(Class::Bulk, vec![opinion(1, 1)])), Refusal::LogsUsedUp(2));
        node.handle(Input::Charter(forum.issue(|c| c.members[0].log_limit = 3)));
        node.handle(Input::Durable);
        let receipts = receipts_of(node.says_in(Class::Bulk, vec![opinion(1, 1)]));
        assert_eq!(receipts[0].block.origin, origin(1, 2));
    }

    #[test]
    fn an_outbox_entry_reads_back_as_it_was_written() {
        for records in [vec![], vec![opinion(1, 1)], vec![opinion(1, 1), Bytes::new(), opinion(2, 1)]] {
            for class in Class::ALL {
                let bytes = encode_outbox(class, &records);
                assert_eq!(decode_outbox(bytes.clone()), Some((class, records.clone())));
                for cut in 0..bytes.len() {
                    let read = decode_outbox(bytes.slice(..cut));
                    assert!(read.is_none_or(|(_, r)| r.len() < records.len()), "cut at {cut}");
                }
            }
        }
        assert_eq!(decode_outbox(vec![0, 3].into()), None, "an unknown lane");
    }
}
