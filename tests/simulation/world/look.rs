//! Looking at nodes: each check compares what a node did or shows with what `checkers` makes of the raw bytes.

use super::*;

/// What a node shows: its number, heads, forks and digest.
type Standing = (usize, Vec<(Origin, Head)>, BTreeMap<LogId, u64>, Hash);

impl World {
    // ---- at every write, publication and answer ----

    pub(super) fn block(&mut self, bytes: &Bytes) -> Option<Rc<Block>> {
        if !self.blocks.contains_key(bytes) {
            self.blocks.insert(bytes.clone(), checkers::read(bytes).map(Rc::new));
        }
        self.blocks.get(bytes).cloned().flatten()
    }

    pub(super) fn charter(&mut self, signed: &Bytes) -> Rc<proto::Charter> {
        let decode = |bytes: &Bytes| {
            let signed = proto::SignedCharter::decode(bytes.clone()).unwrap_or_default();
            Rc::new(proto::Charter::decode(signed.body).unwrap_or_default())
        };
        Rc::clone(self.charters.entry(signed.clone()).or_insert_with(|| decode(signed)))
    }

    pub(super) fn check_write(&mut self, i: usize, write: &Write) {
        match write {
            Write::Block(id, bytes) => self.check_block(i, *id, bytes),
            Write::Proof(name, bytes) => {
                if let Some((log, seq, holds)) = self.accusation(*name, bytes) {
                    if self.is_honest(MemberId(log.0)) {
                        self.violated("I6", || {
                            format!("node {i} stores a proof against an honest member, log {} block {seq}", log.1)
                        });
                    }
                    if !holds {
                        self.violated("I6", || {
                            format!("node {i} stores a proof that proves nothing, log {} block {seq}", log.1)
                        });
                    }
                    self.count("proofs stored");
                }
            }
            _ => {}
        }
    }

    fn accusation(&mut self, name: Hash, bytes: &Bytes) -> Option<(LogId, u64, bool)> {
        if let Some(known) = self.accusations.get(&name) {
            return *known;
        }
        let all = self.forum.signed.iter().chain(&self.forum.rivals);
        let charters: Vec<_> = all.filter_map(|c| proto::Charter::decode(c.body.clone()).ok()).collect();
        let accusation = checkers::accusation(bytes, &charters);
        self.accusations.insert(name, accusation);
        accusation
    }

    fn check_block(&mut self, i: usize, id: BlockId, bytes: &Bytes) {
        let Some(block) = self.block(bytes) else {
            return self.violated("I3", || format!("node {i} stores what is no block as {id}"));
        };
        if (MemberId(block.log.0), block.log.1, block.seq) != (id.origin.member, id.origin.log_no.0, id.seq.0) {
            self.violated("I3", || format!("node {i} stores a block under the name of another, {id}"));
        }
        if id.origin.member == company(i).id {
            self.authored.entry(block.hash).or_insert_with(|| bytes.clone());
        }
        let authored = self.authored.get(&block.hash);
        if authored != Some(bytes) {
            let unknown = authored.is_none();
            self.violated("I11", || {
                format!("node {i} stores block {id} with other bytes than its author's (unknown: {unknown})")
            });
        }
        let Some(author) = number_of(id.origin.member).filter(|a| *a != i && self.is_honest(id.origin.member)) else {
            return;
        };
        let author = &self.nodes[author];
        let held = author.disk.blocks.get(&id) == Some(bytes)
            || author.disk.journal.iter().flatten().any(|frame| frame == bytes);
        if !held && !author.lost.contains_key(&block.hash) {
            self.violated("I10", || format!("node {i} holds block {id}, which its author could still lose"));
        }
    }

    /// I5: a header of an honest member that reached a disk or the wire.
    pub(super) fn check_signed(&mut self, i: usize, bytes: &Bytes) {
        let Some(block) = self.block(bytes) else { return };
        if block.log.0 != company(i).id.0 {
            return self.violated("I5", || format!("node {i} journals a block of another"));
        }
        let first = *self.signed.entry((block.log, block.seq)).or_insert(block.hash);
        if first != block.hash {
            self.violated("I5", || {
                format!("honest node {i} signed two blocks for log {} place {}", block.log.1, block.seq)
            });
        }
    }

    pub(super) fn published(&mut self, i: usize) {
        let Some(replica) = self.nodes[i].replica.as_ref() else { return };
        let published = replica.published();
        let forks: BTreeMap<LogId, u64> =
            replica.proofs().iter().map(|p| ((p.origin().member.0, p.origin().log_no.0), p.seq().0)).collect();
        let mark = &self.nodes[i].mark;
        let mut wrong = None;
        for (origin, head) in &mark.heads {
            let fork = forks.get(&(origin.member.0, origin.log_no.0)).copied().unwrap_or(u64::MAX);
            let now = published.heads.get(origin).map_or(Seq(0), |(_, head)| head.seq);
            if now < head.seq && now.0 + 1 < fork {
                wrong =
                    Some(format!("node {i} went back in {origin} from {} to {} without a proof", head.seq.0, now.0));
            }
        }
        if published.charter_version < mark.charter {
            wrong = Some(format!("node {i} went back to charter {}", published.charter_version));
        }
        if mark.forks.iter().any(|(log, seq)| forks.get(log).is_none_or(|now| now > seq)) {
            wrong = Some(format!("node {i} forgot a fork"));
        }
        let new: Vec<_> = published
            .heads
            .iter()
            .filter(|(origin, (_, head))| mark.heads.get(origin) != Some(head))
            .map(|(o, (_, h))| (*o, *h))
            .collect();
        if let Some(story) = wrong {
            self.violated("I9", || story);
        }
        for (origin, head) in &new {
            let bytes = self.nodes[i].disk.blocks.get(&BlockId { origin: *origin, seq: head.seq }).cloned();
            let flushed = bytes.and_then(|b| self.block(&b)).is_some_and(|b| b.hash == head.hash.0);
            if !flushed {
                self.violated("I10", || {
                    format!("node {i} publishes {origin}@{} before it is on stable storage", head.seq.0)
                });
            }
        }
        let mark = &mut self.nodes[i].mark;
        *mark = Watermark {
            charter: published.charter_version,
            forks,
            heads: published.heads.iter().map(|(o, (_, h))| (*o, *h)).collect(),
        };
        self.pump_all(i);
    }

    pub(super) fn answered(&mut self, i: usize, ticket: Ticket, answer: Answer) {
        let Some((node, records)) = self.tickets.remove(&ticket) else {
            return self.violated("I23", || format!("node {i} answers ticket {} twice", ticket.0));
        };
        match answer {
            Answer::Durable(receipts) => {
                let mut said: Vec<_> = receipts.iter().map(|r| r.record.clone()).collect();
                said.sort_unstable();
                let mut asked = records;
                asked.sort_unstable();
                if node != i || said != asked {
                    self.violated("I4", || format!("node {i} acknowledges other records than were submitted"));
                }
                for receipt in receipts {
                    self.check_receipt(i, &receipt);
                    self.nodes[i].acked.push((receipt.block, receipt.index, receipt.record));
                }
                self.count("acknowledged");
            }
            Answer::Queued => {
                self.nodes[i].queued.extend(records);
                self.count("queued");
            }
            Answer::Refused(_) => self.count("refused"),
        }
    }

    fn check_receipt(&mut self, i: usize, receipt: &staydown::replica::own::Receipt) {
        let stored = self.nodes[i].disk.blocks.get(&receipt.block).cloned().and_then(|b| self.block(&b));
        let Some(block) = stored else {
            return self.violated("I4", || {
                format!("node {i} acknowledges block {} before it is on stable storage", receipt.block)
            });
        };
        let same =
            block.header[..] == receipt.header && block.records.get(receipt.index as usize) == Some(&receipt.record);
        let root = block.header[152..184] == checkers::tree_root(&block.records);
        let leaf = checkers::hash(&[&[0], &receipt.record]);
        let by_path = staydown::replica::merkle::root_by_path(
            leaf,
            u64::from(receipt.index),
            block.records.len() as u64,
            &receipt.path,
        );
        if !same || !root || by_path.is_none_or(|root| root[..] != block.header[152..184]) {
            self.violated("I4", || format!("node {i} gives a receipt that does not hold for {}", receipt.block));
        }
    }

    pub(super) fn alarm(&mut self, i: usize, alarm: &Alarm) {
        match alarm {
            Alarm::Convicted(origin, seq) if self.is_honest(origin.member) => {
                self.violated("I6", || format!("node {i} convicts honest {origin} at {}", seq.0));
            }
            Alarm::Diverged(peer) if self.is_honest(*peer) => {
                self.violated("I1", || {
                    format!("node {i} says that honest node {:?} shows another list", number_of(*peer))
                });
            }
            Alarm::OutboxRefused(..) => self.nodes[i].outbox_refused = true,
            _ => {}
        }
    }

    // ---- now and then ----

    /// Honest nodes do not ban each other.
    pub(super) fn check_manners(&mut self, i: usize) {
        let now = self.clock(i);
        let Some(replica) = self.nodes[i].replica.as_ref() else { return };
        let banned = |(peer, exchange): &(&MemberId, &staydown::replica::exchange::Exchange)| {
            exchange.state(now) == staydown::replica::exchange::State::Banned && self.is_honest(**peer)
        };
        let banned = replica
            .exchanges()
            .iter()
            .find(banned)
            .map(|(peer, e)| (number_of(*peer), e.last_error().map(str::to_owned)));
        if let Some(banned) = banned {
            self.violated("6.3", || format!("node {i} bans honest {banned:?}"));
        }
    }

    /// The charter in force by the disk alone.
    fn effective(&mut self, i: usize) -> Option<(Hash, Rc<proto::Charter>)> {
        let disk = &self.nodes[i].disk;
        let forked = disk.proofs.values().filter_map(|p| checkers::forked_version(p)).min();
        let newest = *disk.charters.keys().next_back()?;
        let version = forked.map_or(newest, |f| newest.min(f - 1));
        let bytes = disk.charters.get(&version)?.clone();
        Some((checkers::hash(&[&bytes]), self.charter(&bytes)))
    }

    fn forks(&mut self, i: usize) -> BTreeMap<LogId, u64> {
        let proofs: Vec<_> = self.nodes[i].disk.proofs.iter().map(|(name, bytes)| (*name, bytes.clone())).collect();
        let mut forks = BTreeMap::new();
        for (name, bytes) in proofs {
            if let Some((log, seq, true)) = self.accusation(name, &bytes) {
                let fork = forks.entry(log).or_insert(seq);
                *fork = seq.min(*fork);
            }
        }
        forks
    }

    /// What the node should show at `hour`, by its disk and the heads that it publishes.
    fn should_show(&mut self, i: usize, hour: u64) -> Option<Rc<Shown>> {
        let (charter_hash, charter) = self.effective(i)?;
        let forks = self.forks(i);
        let have = self.nodes[i].replica.as_ref()?.have();
        let key = (charter_hash, forks.iter().map(|(l, s)| (*l, *s)).collect(), have.digest(), hour);
        if let Some(shown) = self.shown.get(&key) {
            return Some(Rc::clone(shown));
        }
        let mut logs: BTreeMap<LogId, Vec<Rc<Block>>> = BTreeMap::new();
        for (origin, head) in have.iter() {
            let log = (origin.member.0, origin.log_no.0);
            let mut blocks = Vec::new();
            for seq in 1..=head.seq.0 {
                let bytes = self.read(i, BlockId { origin, seq: Seq(seq) });
                let Some(block) = bytes.and_then(|b| self.block(&b)) else {
                    self.violated("I3", || format!("node {i} publishes {origin}@{} and lacks block {seq}", head.seq.0));
                    return None;
                };
                blocks.push(block);
            }
            if blocks.last().is_some_and(|b| b.hash != head.hash.0) {
                self.violated("I3", || format!("node {i} publishes a head of {origin} that it does not hold"));
            }
            let broken =
                blocks.windows(2).any(|w| w[1].prev != w[0].hash || w[1].time < w[0].time || w[1].seq != w[0].seq + 1);
            if broken || blocks.first().is_some_and(|b| b.prev != [0; 32]) {
                self.violated("I3", || format!("node {i} holds no chain for {origin}"));
            }
            self.check_authentic(i, &blocks);
            logs.insert(log, blocks);
        }
        let borrowed = logs.iter().map(|(log, blocks)| (*log, blocks.iter().map(Rc::as_ref).collect())).collect();
        let shown = Rc::new(checkers::shown(&charter, &forks, &borrowed, hour));
        self.shown.insert(key, Rc::clone(&shown));
        Some(shown)
    }

    /// I2.
    fn check_authentic(&mut self, i: usize, blocks: &[Rc<Block>]) {
        let new: Vec<_> = blocks.iter().filter(|b| !self.authentic.contains(&b.hash)).cloned().collect();
        if new.is_empty() {
            return;
        }
        let all = self.forum.signed.iter().chain(&self.forum.rivals);
        let charters: Vec<_> = all.filter_map(|c| proto::Charter::decode(c.body.clone()).ok()).collect();
        for block in new {
            if !checkers::is_authentic(&block, &blocks[0], &charters) {
                self.violated("I2", || format!("node {i} holds a block that its author's key did not sign"));
            }
            self.authentic.insert(block.hash);
        }
    }

    /// I1 and I19: the view is the one function of charters, proofs, blocks and hour, computed here in another way.
    pub(super) fn check_view(&mut self, i: usize) {
        let Some((hour, digest)) = self.nodes[i].replica.as_ref().map(|r| r.view().digest()) else { return };
        let Some(shown) = self.should_show(i, hour.0) else { return };
        if shown.digest != digest {
            let listed = self.nodes[i].replica.as_ref().map_or(0, |r| r.view().listed());
            let expected = shown.statuses.values().filter(|s| **s != 8).count();
            self.violated("I1", || {
                format!("node {i} shows another list than its blocks make: {listed} listed, expected {expected}")
            });
        }
        self.count("views compared");
    }

    /// I14 to I16, I18 and I20, subject by subject.
    fn check_statuses(&mut self, i: usize) {
        let Some(hour) = self.nodes[i].replica.as_ref().map(|r| r.view().digest().0) else { return };
        let Some(shown) = self.should_show(i, hour.0) else { return };
        for ((kind, alg, param, digest), expected) in &shown.statuses {
            let subject = staydown::replica::signal::Subject::new(*kind as u16, *alg as u16, *param, digest);
            let entry = self.nodes[i].replica.as_ref().and_then(|r| r.view().entry(&subject, hour));
            let status = entry.as_ref().map_or(8, |e| e.status as u8);
            if status != *expected {
                self.violated("I14-I16", || format!("node {i} gives a subject status {status}, expected {expected}"));
            }
            if entry.is_some_and(|e| e.status as u8 == 5 && e.counts.support == 0) {
                self.violated("I20", || format!("node {i} lists a subject as ACTIVE that nobody supports"));
            }
        }
    }

    /// I4: after any crash, what was acknowledged is on the disk of its author, unless the disk itself was replaced.
    pub(super) fn check_acked(&mut self, i: usize) {
        let acked = self.nodes[i].acked.clone();
        for (id, index, record) in acked {
            if !self.holds(i, id, index, &record) {
                let gone = self.authored.iter().any(|(hash, bytes)| {
                    self.nodes[i].lost.contains_key(hash)
                        && checkers::read(bytes).is_some_and(|b| b.records.contains(&record))
                });
                if !gone {
                    self.violated("I4", || format!("node {i} lost acknowledged record {index} of {id}"));
                }
            }
        }
    }

    fn holds(&mut self, i: usize, id: BlockId, index: u32, record: &Bytes) -> bool {
        let bytes = self.nodes[i].disk.blocks.get(&id).cloned();
        bytes.and_then(|b| self.block(&b)).is_some_and(|b| b.records.get(index as usize) == Some(record))
    }

    // ---- after the faults ----

    /// Honest members that the charter in force lists.
    pub(super) fn eligible(&self) -> Vec<usize> {
        let charter = self.forum.in_force();
        let active = |i: &usize| charter.members.iter().any(|m| m.status == 1 && m.id[..] == company(*i).id.0);
        self.up().into_iter().filter(active).collect()
    }

    /// Why the eligible nodes are not together yet.
    fn apart(&mut self) -> Option<String> {
        let eligible = self.eligible();
        let mut first: Option<Standing> = None;
        for i in eligible {
            let Some((charter, _)) = self.effective(i) else { continue };
            let forks = self.forks(i);
            let now = self.clock(i);
            let Some(replica) = self.nodes[i].replica.as_ref() else { continue };
            let heads: Vec<_> = replica.have().iter().collect();
            if replica.guard_pending() {
                return Some(format!("I23: node {i} still waits for its guard"));
            }
            if !self.nodes[i].pending.is_empty() {
                return Some(format!("I21: node {i} still writes"));
            }
            let Some((j, their_heads, their_forks, their_charter)) = &first else {
                first = Some((i, heads, forks, charter));
                continue;
            };
            if charter != *their_charter {
                return Some(format!("I24: nodes {j} and {i} have other charters in force"));
            }
            if forks != *their_forks {
                return Some(format!(
                    "I24: nodes {j} and {i} know other proofs: {} and {}",
                    their_forks.len(),
                    forks.len()
                ));
            }
            if heads != *their_heads {
                let differ: Vec<_> = heads
                    .iter()
                    .filter(|h| !their_heads.contains(h))
                    .chain(their_heads.iter().filter(|h| !heads.contains(h)))
                    .map(|(o, h)| format!("{:?}/{}@{}", number_of(o.member), o.log_no.0, h.seq.0))
                    .collect();
                let state = replica
                    .exchanges()
                    .get(&company(*j).id)
                    .map(|e| (e.state(now).name(), e.last_error().map(str::to_owned)));
                return Some(format!("I21: nodes {j} and {i} differ in {differ:?}; {i} to {j}: {state:?}"));
            }
        }
        None
    }

    pub(super) fn look(&mut self) {
        let Some(healed) = self.healed_at else { return };
        for i in self.up() {
            self.check_manners(i);
        }
        match self.apart() {
            None => self.together = true,
            Some(why) if self.now > healed + COME_TOGETHER_MS => self.violated("I21", || why),
            Some(_) => self.at(self.now + 5_000, Event::Look),
        }
    }

    /// Everything that is looked at once, at the end.
    pub(super) fn last_look(&mut self) -> Result<(), Violation> {
        for i in self.up() {
            self.check_view(i);
            self.check_statuses(i);
            if self.nodes[i].lost.is_empty() {
                self.check_acked(i);
            }
        }
        if self.healed_at.is_some() {
            self.check_everywhere();
            self.check_outboxes();
            self.check_promises();
            self.check_contradictions();
        }
        for i in self.up() {
            self.rebuild(i);
            self.check_view(i);
            // What ends by itself ends at the same hour everywhere, rebuilt or not.
            for hours in [1, 2, 5] {
                let later = TimeMs(self.now + hours * 3_600_000);
                if let Some(replica) = self.nodes[i].replica.as_mut() {
                    drop(replica.handle(Input::Timer, later));
                }
                self.check_view(i);
            }
            self.check_statuses(i);
        }
        self.violation.take().map_or(Ok(()), Err)
    }

    /// I4: acknowledged records are in every honest member's store.
    fn check_everywhere(&mut self) {
        let eligible = self.eligible();
        for author in eligible.clone() {
            for (id, index, record) in self.nodes[author].acked.clone() {
                for i in &eligible {
                    if !self.holds(*i, id, index, &record) {
                        self.violated("I4", || {
                            format!("node {i} lacks acknowledged record {index} of {id}, by node {author}")
                        });
                    }
                }
            }
        }
    }

    /// A submission that is made again under its key is found; and nobody is said to hold what nobody holds.
    fn check_promises(&mut self) {
        let liars = self.nodes.iter().filter(|n| n.liar.is_some()).count();
        for i in self.eligible() {
            for (id, _, record) in self.nodes[i].acked.clone() {
                let opinion = proto::Record::decode(record.clone())
                    .ok()
                    .filter(|r| r.kind == 2)
                    .and_then(|r| proto::Opinion::decode(r.body).ok());
                let key = opinion.and_then(|o| o.client_key[..].try_into().ok());
                let Some(replica) = self.nodes[i].replica.as_ref() else { continue };
                let found = key.and_then(|key: [u8; 16]| replica.submitted_before(&key));
                let holders = self.nodes.iter().filter(|n| n.disk.blocks.contains_key(&id)).count();
                let claimed = replica.peers_holding(id);
                if key.is_some() && !found.is_some_and(|(block, index)| self.holds(i, block, index, &record)) {
                    self.violated("I4", || format!("node {i} does not find a submission again by its key, {id}"));
                }
                if claimed + 1 > holders + liars {
                    self.violated("W1", || {
                        format!("node {i} says that {claimed} peers hold {id}, but {holders} nodes do")
                    });
                }
            }
        }
    }

    /// I23: what was queued is signed, waits durably for a quota, or was reported as refused.
    fn check_outboxes(&mut self) {
        for i in self.eligible() {
            if self.nodes[i].outbox_refused {
                continue;
            }
            let waiting: Vec<_> = self.nodes[i].disk.outbox.values().cloned().collect();
            let own: Vec<_> = self.nodes[i]
                .disk
                .blocks
                .iter()
                .filter(|(id, _)| id.origin.member == company(i).id)
                .map(|(_, b)| b.clone())
                .collect();
            let signed: HashSet<_> = own.iter().filter_map(|b| self.block(b)).flat_map(|b| b.records.clone()).collect();
            for record in self.nodes[i].queued.clone() {
                let waits = waiting.iter().any(|entry| entry.windows(record.len()).any(|w| w == &record[..]));
                if !signed.contains(&record) && !waits {
                    self.violated("I23", || format!("node {i} forgot a queued record"));
                }
            }
            if !waiting.is_empty() && self.plan.quota[0] >= 1000 && self.forum.signed.len() == 1 {
                let now = TimeMs(self.now);
                let state = self.nodes[i].replica.as_ref().map(|r| (r.guard_pending(), r.outbox_len(), r.health(now)));
                self.violated("I23", || {
                    format!("node {i} has {} submissions in its outbox and could sign them: {state:?}", waiting.len())
                });
            }
        }
    }

    /// I7: no contradiction between two honest stores without a proof on both.
    fn check_contradictions(&mut self) {
        let mut seen: BTreeMap<BlockId, (usize, Bytes)> = BTreeMap::new();
        for i in self.eligible() {
            let forks = self.forks(i);
            let blocks: Vec<_> = self.nodes[i].disk.blocks.iter().map(|(id, b)| (*id, b.clone())).collect();
            for (id, bytes) in blocks {
                let (other, first) = seen.entry(id).or_insert_with(|| (i, bytes.clone()));
                let fork = forks.get(&(id.origin.member.0, id.origin.log_no.0)).copied().unwrap_or(u64::MAX);
                if *first != bytes && fork > id.seq.0 {
                    let other = *other;
                    self.violated("I7", || format!("nodes {other} and {i} hold different blocks {id} and no proof"));
                }
            }
        }
    }
}
