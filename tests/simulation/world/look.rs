//! Looking at nodes: each check compares what a node did or shows with what `checkers` makes of the raw bytes.

use super::*;
use crate::layers::{self, Held};

/// The origin that the checkers name by its parts.
fn origin_of(log: LogId) -> Origin {
    Origin { member: MemberId(log.0), log_no: LogNo(log.1) }
}

/// What a node shows: its number, heads, forks and digest.
type Standing = (usize, Vec<(Origin, Head)>, BTreeMap<LogId, u64>, Hash);

impl World {
    // ---- at every write, publication and answer ----

    pub(super) fn block(&mut self, bytes: &Bytes) -> Option<Rc<Block>> {
        let address = (bytes.as_ptr() as usize, bytes.len());
        if let Some((_, block)) = self.blocks_at.get(&address) {
            return block.clone();
        }
        if !self.blocks.contains_key(bytes) {
            self.blocks.insert(bytes.clone(), checkers::read(bytes).map(Rc::new));
        }
        let block = self.blocks.get(bytes).cloned().flatten();
        self.blocks_at.insert(address, (bytes.clone(), block.clone()));
        block
    }

    /// A signed charter as it is read, and a short name of it.
    fn named_charter(&mut self, signed: &Bytes) -> (Hash, Rc<proto::Charter>) {
        let address = (signed.as_ptr() as usize, signed.len());
        if let Some((_, name, charter)) = self.charters_at.get(&address) {
            return (*name, Rc::clone(charter));
        }
        let read = |bytes: &Bytes| {
            let message = proto::SignedCharter::decode(bytes.clone()).unwrap_or_default();
            (checkers::hash(&[&message.body]), Rc::new(proto::Charter::decode(message.body).unwrap_or_default()))
        };
        let (name, charter) = self.charters.entry(signed.clone()).or_insert_with(|| read(signed)).clone();
        self.charters_at.insert(address, (signed.clone(), name, Rc::clone(&charter)));
        (name, charter)
    }

    pub(super) fn charter(&mut self, signed: &Bytes) -> Rc<proto::Charter> {
        self.named_charter(signed).1
    }

    pub(super) fn check_write(&mut self, i: usize, write: &Write) {
        match write {
            Write::Block(id, bytes) => self.check_block(i, *id, bytes),
            Write::Proof(name, bytes) => {
                if let Some((log, seq, holds)) = self.accusation(*name, bytes) {
                    if self.is_sound(log) {
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
        if id.origin.member == self.who(i).id {
            self.authored.entry(block.hash).or_insert_with(|| bytes.clone());
        }
        if !self.is_authors(&block, bytes) {
            let unknown = !self.authored.contains_key(&block.hash);
            self.violated("I11", || {
                format!("node {i} stores block {id} with other bytes than its author's (unknown: {unknown})")
            });
        }
        let mine = self.who(i).id == id.origin.member;
        if mine || !self.is_honest(id.origin.member) || self.forged.contains(&block.hash) {
            return;
        }
        let authors: Vec<_> = (0..self.nodes.len()).filter(|a| self.who(*a).id == id.origin.member).collect();
        if !authors.into_iter().any(|author| self.keeps(author, id, &block)) {
            self.violated("I10", || format!("node {i} holds block {id}, which its author could still lose"));
        }
    }

    /// I11: the author's bytes, but for records that an order of the founders erased.
    fn is_authors(&mut self, block: &Block, bytes: &Bytes) -> bool {
        let Some(authored) = self.authored.get(&block.hash).cloned() else { return false };
        if authored == *bytes {
            return true;
        }
        let Some(original) = self.block(&authored) else { return false };
        let erased = self.forum.erased((block.log, block.seq));
        original.same_signed(block) && block.redacted.iter().all(|index| erased.contains(index))
    }

    /// Whether an author's disk has its block, or lost it together with the disk.
    fn keeps(&mut self, author: usize, id: BlockId, block: &Block) -> bool {
        let node = &self.nodes[author];
        let journaled = node.disk.journal.iter().flatten();
        let held: Vec<_> = node.disk.blocks.get(&id).into_iter().chain(journaled).cloned().collect();
        let lost = node.lost.contains_key(&block.hash);
        lost || held.into_iter().any(|b| self.block(&b).is_some_and(|b| b.hash == block.hash))
    }

    /// I5: a header of an honest member that reached a disk or the wire.
    pub(super) fn check_signed(&mut self, i: usize, bytes: &Bytes) {
        let Some(block) = self.block(bytes) else { return };
        if self.forged.contains(&block.hash) {
            return; // pulled back from a peer like anybody's
        }
        if block.log.0 != self.who(i).id.0 {
            return self.violated("I5", || format!("node {i} journals a block of another"));
        }
        let opened = block.opening().and_then(|open| open.root_key_id[..].try_into().ok());
        let root = opened.or_else(|| self.roots.get(&block.prev).copied()).unwrap_or_default();
        self.roots.insert(block.hash, root);
        let first = *self.signed.entry(((block.log, root), block.seq)).or_insert(block.hash);
        self.check_attests(i, &block);
        if first != block.hash {
            self.violated("I5", || {
                format!("honest node {i} signed two blocks for log {} place {}", block.log.1, block.seq)
            });
        }
    }

    /// W8: what an honest member attests of a log extends what it attested before.
    fn check_attests(&mut self, i: usize, block: &Block) {
        for said in &block.said {
            let checkers::Says::Attest { heads } = said else { continue };
            for (log, seq, hash) in heads {
                let before = self.attested.get(&(block.log.0, *log)).copied();
                if let Some((at, what)) = before.filter(|(at, _)| at <= seq) {
                    // Down the chain from the new head to the place of the earlier one.
                    let mut place = (*seq, *hash);
                    while place.0 > at
                        && let Some(bytes) = self.authored.get(&place.1).cloned()
                        && let Some(block) = self.block(&bytes)
                    {
                        place = (place.0 - 1, block.prev);
                    }
                    if place.0 == at && place.1 != what {
                        self.violated("W8", || format!("node {i} attests two chains of log {} of a member", log.1));
                    }
                }
                if before.is_none_or(|(at, _)| at <= *seq) {
                    self.attested.insert((block.log.0, *log), (*seq, *hash));
                }
            }
        }
    }

    pub(super) fn published(&mut self, i: usize) {
        let Some(replica) = self.nodes[i].replica.as_ref() else { return };
        let published = replica.published();
        let forks: BTreeMap<LogId, u64> =
            replica.proofs().iter().map(|p| ((p.origin().member.0, p.origin().log_no.0), p.seq().0)).collect();
        let marked: Vec<_> = self.nodes[i].mark.heads.keys().copied().collect();
        let unknown: BTreeSet<_> = marked.into_iter().filter(|o| self.is_unknown(i, *o)).collect();
        let mark = &self.nodes[i].mark;
        let mut wrong = None;
        for (origin, head) in &mark.heads {
            if unknown.contains(origin) {
                continue;
            }
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

    /// Whether a log was opened under a root key that the charter in force replaced, and is not listed there: it is no
    /// part of the forum any more.
    fn is_unknown(&mut self, i: usize, origin: Origin) -> bool {
        let Some((_, charter)) = self.effective(i) else { return false };
        let first = self.nodes[i].disk.blocks.get(&BlockId { origin, seq: Seq(1) }).cloned();
        let opened = first.and_then(|b| self.block(&b)).and_then(|b| b.opening());
        let member = charter.members.iter().find(|m| m.id[..] == origin.member.0);
        let (Some(open), Some(member)) = (opened, member) else { return false };
        open.root_key_id[..] != checkers::hash(&[&member.log_root_key])
            && !layers::is_cut(&charter, (origin.member.0, origin.log_no.0))
    }

    pub(super) fn answered(&mut self, i: usize, ticket: Ticket, answer: Answer) {
        if let Some((node, next_seed)) = self.closing.remove(&ticket) {
            if let Answer::Durable(receipts) = answer {
                if let Some(seed) = next_seed {
                    self.nodes[node].log_seed = seed;
                }
                for receipt in receipts {
                    self.check_receipt(i, &receipt);
                    self.nodes[i].acked.push((receipt.block, receipt.index, receipt.record));
                }
            }
            return;
        }
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
        let root = block.header[152..184] == checkers::tree_root(&block.leaves);
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
            Alarm::Convicted(origin, seq) if self.is_sound((origin.member.0, origin.log_no.0)) => {
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
    pub(super) fn effective(&mut self, i: usize) -> Option<(Hash, Rc<proto::Charter>)> {
        let proofs: Vec<_> = self.nodes[i].disk.proofs.iter().map(|(name, bytes)| (*name, bytes.clone())).collect();
        let mut forked = None::<u64>;
        for (name, bytes) in proofs {
            let version = *self.forked_versions.entry(name).or_insert_with(|| checkers::forked_version(&bytes));
            forked = version.map(|v| forked.map_or(v, |f| f.min(v))).or(forked);
        }
        let charters = &self.nodes[i].disk.charters;
        let newest = *charters.keys().next_back()?;
        let bytes = charters.get(&forked.map_or(newest, |f| newest.min(f - 1)))?.clone();
        Some(self.named_charter(&bytes))
    }

    /// The charter by which a node's list is made: the last that its release understands.
    pub(super) fn law(&mut self, i: usize) -> Option<(Hash, Rc<proto::Charter>)> {
        let effective = self.effective(i)?;
        let mut law = effective.clone();
        while law.1.semantics > self.nodes[i].semantics_max {
            let Some(bytes) = self.nodes[i].disk.charters.get(&(law.1.version - 1)).cloned() else {
                return Some(effective);
            };
            law = self.named_charter(&bytes);
        }
        Some(law)
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
    pub(super) fn should_show(&mut self, i: usize, hour: u64) -> Option<Rc<Shown>> {
        let key = self.view_key(i, hour)?;
        if let Some(shown) = self.shown.get(&key) {
            return Some(Rc::clone(shown));
        }
        let (_, charter) = self.law(i)?;
        let forks = self.forks(i);
        let chains = self.chains(i)?;
        let borrowed = chains
            .iter()
            .map(|(log, chains)| (*log, chains.iter().map(|c| c.iter().map(Rc::as_ref).collect()).collect()))
            .collect();
        let held = Held { charter: &charter, forks: &forks, chains: &borrowed };
        let prefixes = held.prefixes(hour);
        let mut shown = checkers::shown(&charter, &prefixes, hour);
        shown.prefixes = prefixes.iter().filter_map(|(log, c)| Some((*log, (c.len(), c.last()?.hash)))).collect();
        shown.suspended = held.suspended(hour).into_keys().collect();
        let shown = Rc::new(shown);
        self.shown.insert(key, Rc::clone(&shown));
        Some(shown)
    }

    /// Everything that a view depends on, in short.
    fn view_key(&mut self, i: usize, hour: u64) -> Option<ViewKey> {
        let (charter, _) = self.law(i)?;
        let forks = self.forks(i).into_iter().collect();
        let have = self.nodes[i].replica.as_ref()?.have();
        let mut held = Vec::new();
        for ((member, log_no), chain) in self.linked(i) {
            held.extend([&member[..], &log_no.to_be_bytes(), &chain.last().map_or([0; 32], |b| b.hash)].concat());
            let redacted = chain.iter().flat_map(|b| b.redacted.iter().map(|index| (b.seq, *index)));
            redacted.for_each(|(seq, index)| held.extend([&seq.to_be_bytes()[..], &index.to_be_bytes()].concat()));
        }
        Some((charter, forks, have.digest(), checkers::hash(&[&held]), hour))
    }

    /// The chains that a node's disk holds, each from its first block on as far as they link.
    fn linked(&mut self, i: usize) -> BTreeMap<LogId, Vec<Rc<Block>>> {
        let disk: Vec<_> = self.nodes[i].disk.blocks.values().cloned().collect();
        let mut logs: BTreeMap<LogId, Vec<Rc<Block>>> = BTreeMap::new();
        for block in disk.iter().filter_map(|bytes| self.block(bytes)).collect::<Vec<_>>() {
            let chain = logs.entry(block.log).or_default();
            let links = match chain.last() {
                Some(last) => last.seq + 1 == block.seq && last.hash == block.prev && last.time <= block.time,
                None => block.seq == 1 && block.prev == [0; 32],
            };
            let ended = chain.last().is_some_and(|b| b.said.iter().any(|s| matches!(s, checkers::Says::Close)));
            if links && !ended {
                chain.push(block);
            }
        }
        logs.retain(|_, chain| !chain.is_empty());
        logs
    }

    /// All chains that a node holds; what it publishes must be on them.
    fn chains(&mut self, i: usize) -> Option<BTreeMap<LogId, Vec<Vec<Rc<Block>>>>> {
        let linked = self.linked(i);
        let have = self.nodes[i].replica.as_ref()?.have();
        for (origin, head) in have.iter() {
            let chain = linked.get(&(origin.member.0, origin.log_no.0));
            let at = chain.and_then(|c| c.get(head.seq.0 as usize - 1));
            if at.is_none_or(|b| b.hash != head.hash.0) {
                self.violated("I3", || {
                    format!("node {i} publishes {origin}@{} and has no chain up to there", head.seq.0)
                });
                return None;
            }
        }
        for blocks in linked.values() {
            self.check_authentic(i, blocks);
        }
        Some(linked.into_iter().map(|(log, chain)| (log, vec![chain])).collect())
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
        let Some(replica) = self.nodes[i].replica.as_ref() else { return };
        if replica.fetches_disputed() {
            return self.count("views not compared while a chain is fetched");
        }
        let (hour, digest) = replica.view().digest();
        let Some(shown) = self.should_show(i, hour.0) else { return };
        if shown.digest != digest {
            let listed = self.nodes[i].replica.as_ref().map_or(0, |r| r.view().listed());
            let expected = shown.statuses.values().filter(|s| **s != 8).count();
            let replica = self.nodes[i].replica.as_ref();
            let differ: Vec<_> = shown
                .prefixes
                .iter()
                .filter_map(|(log, (length, _))| {
                    let got = replica.map_or(0, |r| r.prefix(origin_of(*log)).0);
                    (got != *length as u64).then(|| (number_of(MemberId(log.0)), log.1, got, *length))
                })
                .collect();
            let pending = self.nodes[i].pending.len();
            self.violated("I1", || {
                format!(
                    "node {i} shows another list than its blocks make: {listed} listed, expected {expected}; prefixes (log, got, expected) {differ:?}, {pending} writes pending"
                )
            });
        }
        self.count("views compared");
    }

    /// I12: a call that succeeds is made by somebody whom the charter in force lists and no steward cut off.
    pub(super) fn check_admitted(&mut self, server: usize, client: usize) {
        let Some((_, charter)) = self.effective(server) else { return };
        let id = self.who(client).id.0;
        if !charter.members.iter().any(|m| m.status == 1 && m.id[..] == id) {
            return self
                .violated("I12", || format!("node {server} serves node {client}, which its charter does not list"));
        }
        // To ask for the suspensions is to read everything, so not every call is looked at; and a clock that was set
        // back takes a second to show.
        let understands = charter.semantics <= self.nodes[server].semantics_max;
        let set = self.now < self.nodes[server].set_at + 2 * TIMER_MS;
        if charter.semantics < 2 || !understands || set || !self.order.is_multiple_of(8) {
            return;
        }
        let shown = self.nodes[server].replica.as_ref().map_or(0, |r| r.view().digest().0.0);
        let hour = (self.clock(server).0 / 3_600_000 * 3_600_000).max(shown); // of a clock that was set back
        let Some(key) = self.view_key(server, hour) else { return };
        let shown = match self.shown.get(&key) {
            Some(shown) => Some(Rc::clone(shown)),
            None if self.order.is_multiple_of(40) => self.should_show(server, hour),
            None => None,
        };
        if shown.is_some_and(|s| s.suspended.contains(&id)) {
            self.violated("I12", || format!("node {server} serves node {client}, which a steward suspended"));
        }
    }

    /// I14: what the founders had erased is on no disk where their order was applied.
    pub(super) fn check_erased(&mut self, i: usize) {
        let Some((_, charter)) = self.effective(i) else { return };
        if charter.semantics > self.nodes[i].semantics_max {
            return;
        }
        for order in &charter.erasures {
            let Some(origin) = order.origin.as_ref().and_then(origin_from_proto) else { continue };
            let id = BlockId { origin, seq: Seq(order.seq) };
            let disk = &self.nodes[i].disk;
            let frames: Vec<_> =
                disk.blocks.get(&id).into_iter().chain(disk.journal.iter().flatten()).cloned().collect();
            for block in frames.iter().filter_map(|f| self.block(f)).collect::<Vec<_>>() {
                let here = (block.log, block.seq) == ((origin.member.0, origin.log_no.0), order.seq);
                let index = order.index as usize;
                let leaf = block.leaves.get(index).is_some_and(|leaf| leaf[..] == order.leaf_hash[..]);
                let leaf = leaf && !matches!(block.said.get(index), Some(checkers::Says::Close)); // is never erased
                let held = self.nodes[i].replica.as_ref().and_then(|r| r.logs().get(&origin).map(|l| l.len()));
                if here && leaf && !block.redacted.contains(&order.index) {
                    self.violated("I14", || {
                        format!("node {i} still has record {index} of {id}, which is erased; held {held:?}")
                    });
                }
            }
        }
        self.count("erasures looked at");
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
            if !self.holds(i, id, index, &record) && !self.has_journaled(i, id, &record) {
                let gone = self.authored.iter().any(|(hash, bytes)| {
                    self.nodes[i].lost.contains_key(hash)
                        && checkers::read(bytes).is_some_and(|b| b.records.contains(&record))
                });
                let stolen = self.stolen.contains(&(id.origin.member.0, id.origin.log_no.0));
                // Founders picked a thief's chain, and the journal was gone: peers have it, as evidence.
                let gone = gone || (stolen && self.nodes[i].journal_lost);
                if !gone {
                    let unknown = self.is_unknown(i, id.origin);
                    let there = self.nodes[i]
                        .disk
                        .blocks
                        .get(&id)
                        .cloned()
                        .and_then(|b| self.block(&b))
                        .map(|b| (self.forged.contains(&b.hash), b.redacted.clone()));
                    let lost = self.nodes[i].lost.len();
                    self.violated("I4", || format!("node {i} lost acknowledged record {index} of {id}: stolen {stolen} unknown {unknown} there (forged, redacted) {there:?} lost {lost}"));
                }
            }
        }
    }

    /// Whether the own journal has a record, though the store may not: it was lost, and what comes back from the journal
    /// waits for the charter that knows its key.
    fn has_journaled(&mut self, i: usize, id: BlockId, record: &Bytes) -> bool {
        let frames: Vec<_> = self.nodes[i].disk.journal.iter().flatten().cloned().collect();
        let place = (id.origin.member.0, id.origin.log_no.0);
        frames
            .iter()
            .filter_map(|f| self.block(f))
            .any(|b| (b.log, b.seq) == (place, id.seq.0) && (b.records.contains(record) || !b.redacted.is_empty()))
    }

    fn holds(&mut self, i: usize, id: BlockId, index: u32, record: &Bytes) -> bool {
        let bytes = self.nodes[i].disk.blocks.get(&id).cloned();
        bytes
            .and_then(|b| self.block(&b))
            .is_some_and(|b| b.records.get(index as usize) == Some(record) || b.redacted.contains(&index))
    }

    // ---- after the faults ----

    /// Nodes of honest members that the charter in force lists and that no steward cut off anywhere: whoever is cut off
    /// does not hear that the steward told others another story.
    pub(super) fn eligible(&mut self) -> Vec<usize> {
        let charter = self.forum.in_force();
        let mut suspended = BTreeSet::new();
        for i in self.up() {
            let hour = self.nodes[i].replica.as_ref().map_or(0, |r| r.view().digest().0.0);
            suspended.extend(self.should_show(i, hour).iter().flat_map(|s| s.suspended.iter().copied()));
        }
        let id = |i: &usize| self.who(*i).id.0;
        let active = |i: &usize| charter.members.iter().any(|m| m.status == 1 && m.id[..] == id(i));
        self.up().into_iter().filter(|i| active(i) && !suspended.contains(&id(i))).collect()
    }

    /// A company finds out that its node runs twice, and stops the copy, if nothing is lost with it.
    fn retire_copies(&mut self) {
        for i in self.up() {
            let me = self.who(i).id;
            if self.nodes[i].who == i {
                continue;
            }
            let own: Vec<_> = self.nodes[i].disk.blocks.iter().filter(|(id, _)| id.origin.member == me).collect();
            let elsewhere = |(id, bytes): &(&BlockId, &Bytes)| {
                self.honest().any(|j| j != i && self.nodes[j].disk.blocks.get(id) == Some(bytes))
            };
            if own.iter().all(elsewhere) && self.nodes[i].pending.is_empty() && self.nodes[i].disk.outbox.is_empty() {
                self.crash(i);
                self.nodes[i].gone = true;
                self.count("copies stopped");
            }
        }
    }

    /// Why the eligible nodes are not together yet.
    fn apart(&mut self) -> Option<String> {
        let eligible = self.eligible();
        let mut first: Option<Standing> = None;
        let mut first_is_old = false;
        for i in eligible.clone() {
            let Some((charter, _)) = self.effective(i) else { continue };
            let forks = self.forks(i);
            let now = self.clock(i);
            let Some(replica) = self.nodes[i].replica.as_ref() else { continue };
            let heads: Vec<_> = replica.have().iter().collect();
            let old = self.nodes[i].semantics_max < self.forum.latest().semantics;
            // Whoever has only liars to ask waits for the founders.
            let needed = (replica.exchanges().len() / 2).max(1);
            if replica.guard_pending() && eligible.len() > needed {
                return Some(format!("I23: node {i} still waits for its guard"));
            }
            if !self.nodes[i].pending.is_empty() {
                return Some(format!("I21: node {i} still writes"));
            }
            let Some((j, their_heads, their_forks, their_charter)) = &first else {
                first = Some((i, heads, forks, charter));
                first_is_old = old;
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
            // A node of an earlier level cannot know which chain of a forked log counts where one of a later level does.
            let told =
                |(o, _): &&(Origin, Head)| old == first_is_old || !their_forks.contains_key(&(o.member.0, o.log_no.0));
            let differ: Vec<_> = heads
                .iter()
                .filter(|h| !their_heads.contains(h))
                .chain(their_heads.iter().filter(|h| !heads.contains(h)))
                .filter(told)
                .collect();
            if !differ.is_empty() {
                let differ: Vec<_> = differ
                    .into_iter()
                    .map(|(o, h)| format!("{:?}/{}@{}", number_of(o.member), o.log_no.0, h.seq.0))
                    .collect();
                let state = replica
                    .exchanges()
                    .get(&self.who(*j).id)
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
        self.retire_copies();
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
            self.check_erased(i);
            if self.nodes[i].lost.is_empty() {
                self.check_acked(i);
            }
        }
        if self.healed_at.is_some() {
            self.check_everywhere();
            self.check_outboxes();
            self.check_promises();
            self.check_contradictions();
            self.check_final();
        }
        for i in self.up() {
            let now = self.clock(i);
            self.rebuild(i, now);
            self.check_view(i);
            // What ends by itself ends at the same hour everywhere, rebuilt or not.
            for hours in [1, 2, 5] {
                let later = TimeMs(self.now + hours * 3_600_000);
                let effects = self.nodes[i].replica.as_mut().map(|r| r.handle(Input::Timer, later)).unwrap_or_default();
                if effects.iter().any(|e| matches!(e, Effect::Rebuild)) {
                    self.rebuild(i, later); // a suspension has ended
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
        let level = self.forum.latest().semantics;
        for author in eligible.clone() {
            for (id, index, record) in self.nodes[author].acked.clone() {
                let log = (id.origin.member.0, id.origin.log_no.0);
                if self.stolen.contains(&log) || self.is_unknown(author, id.origin) {
                    continue; // what a thief's chain took the place of, or a new root key, is to be said again
                }
                if !self.holds(author, id, index, &record) {
                    continue; // looked at where it was lost
                }
                for i in &eligible {
                    let old = [author, *i].into_iter().any(|n| self.nodes[n].semantics_max < level);
                    if old && self.forks(*i).contains_key(&log) {
                        continue; // it cannot know which chain counts
                    }
                    if !self.holds(*i, id, index, &record) {
                        let there = self.nodes[*i]
                            .disk
                            .blocks
                            .get(&id)
                            .cloned()
                            .and_then(|b| self.block(&b))
                            .map(|b| (b.redacted.clone(), b.time));
                        let mine = self.nodes[author]
                            .disk
                            .blocks
                            .get(&id)
                            .cloned()
                            .and_then(|b| self.block(&b))
                            .map(|b| (b.redacted.clone(), b.time));
                        let there = (there, mine);
                        self.violated("I4", || {
                            format!(
                                "node {i} lacks acknowledged record {index} of {id}, by node {author}; there {there:?}"
                            )
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
            for (id, index, record) in self.nodes[i].acked.clone() {
                let opinion = proto::Record::decode(record.clone())
                    .ok()
                    .filter(|r| r.kind == 2)
                    .and_then(|r| proto::Opinion::decode(r.body).ok());
                let key = opinion.and_then(|o| o.client_key[..].try_into().ok());
                let Some(replica) = self.nodes[i].replica.as_ref() else { continue };
                let found = key.and_then(|key: [u8; 16]| replica.submitted_before(&key));
                let holders = self.nodes.iter().filter(|n| n.disk.blocks.contains_key(&id)).count();
                let claimed = replica.peers_holding(id);
                let redacted = self.nodes[i].disk.blocks.get(&id).cloned().and_then(|b| self.block(&b));
                let erased = redacted.is_some_and(|b| b.redacted.contains(&index));
                // What another chain took the place of is not there any more: it may be submitted again.
                let stolen = self.stolen.contains(&(id.origin.member.0, id.origin.log_no.0));
                if key.is_some()
                    && !erased
                    && !stolen
                    && self.holds(i, id, index, &record)
                    && !found.is_some_and(|(block, at)| self.holds(i, block, at, &record))
                {
                    let there = self.nodes[i]
                        .disk
                        .blocks
                        .get(&id)
                        .cloned()
                        .and_then(|b| self.block(&b))
                        .map(|b| b.redacted.clone());
                    self.violated("I4", || {
                        format!(
                            "node {i} does not find a submission again by its key, {id}: {found:?} redacted {there:?}"
                        )
                    });
                }
                if claimed > 0 && claimed + 1 > holders + liars {
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
            // In the journal alone, where a thief's chain took the place of what was signed: to be said again.
            let disk = &self.nodes[i].disk;
            let own = disk.blocks.iter().filter(|(id, _)| id.origin.member == self.who(i).id).map(|(_, b)| b);
            let own: Vec<_> = own.chain(disk.journal.iter().flatten()).cloned().collect();
            let signed: HashSet<_> = own.iter().filter_map(|b| self.block(b)).flat_map(|b| b.leaves.clone()).collect();
            // Founders picked a thief's chain, and the journal was gone: peers have it, as evidence.
            let gone = self.nodes[i].journal_lost && self.stolen.iter().any(|log| log.0 == self.who(i).id.0);
            for record in self.nodes[i].queued.clone() {
                let waits = waiting.iter().any(|entry| entry.windows(record.len()).any(|w| w == &record[..]));
                if !signed.contains(&checkers::hash(&[&[0], &record])) && !waits && !gone {
                    self.violated("I23", || format!("node {i} forgot a queued record"));
                }
            }
            let may_sign = self.nodes[i].replica.as_ref().is_some_and(|r| !r.guard_pending());
            if !waiting.is_empty() && may_sign && self.plan.quota[0] >= 1000 && self.forum.signed.len() == 1 {
                let now = TimeMs(self.now);
                let state = self.nodes[i].replica.as_ref().map(|r| (r.guard_pending(), r.outbox_len(), r.health(now)));
                self.violated("I23", || {
                    format!("node {i} has {} submissions in its outbox and could sign them: {state:?}", waiting.len())
                });
            }
        }
    }

    /// I8: what every correct voter attested counts in every correct node's view, whatever a thief signed afterwards,
    /// unless the charter or a steward cuts it. Read from the voters' own logs, not from what anybody says of them.
    fn check_final(&mut self) {
        for i in self.eligible() {
            let Some((_, charter)) = self.effective(i) else { continue };
            let hour = self.nodes[i].replica.as_ref().map_or(0, |r| r.view().digest().0.0);
            let (Some(shown), Some(chains)) = (self.should_show(i, hour), self.chains(i)) else { continue };
            // Who does not understand the level lists by an earlier charter, which had other voters.
            if charter.semantics < 2 || self.nodes[i].semantics_max < charter.semantics {
                continue;
            }
            let forks = self.forks(i);
            for (log, at) in &forks {
                let faulty = |m: &proto::Member| {
                    let id: [u8; 16] = m.id[..].try_into().unwrap_or_default();
                    !self.is_honest(MemberId(id)) || self.stolen.iter().any(|stolen| stolen.0 == id)
                };
                let Some(promised) = layers::attested_by_all(&charter, *log, &chains, &forks, faulty) else { continue };
                let cut = layers::is_cut(&charter, *log) || shown.suspended.contains(&log.0);
                let counted = shown.prefixes.get(log).map_or(0, |(length, _)| *length);
                let published = self.nodes[i].replica.as_ref().map_or(0, |r| r.prefix(origin_of(*log)).0 as usize);
                if promised >= *at as usize {
                    self.count("kept by finality");
                }
                if !cut && (counted < promised || published < promised) {
                    self.violated("I8", || {
                        format!(
                            "node {i} counts {published} (expected {counted}) blocks of log {}, and all attested {promised}",
                            log.1
                        )
                    });
                }
            }
        }
    }

    /// I7: no contradiction between two honest stores without a proof on both, in logs that the charter knows.
    fn check_contradictions(&mut self) {
        let mut seen: BTreeMap<BlockId, (usize, Bytes)> = BTreeMap::new();
        for i in self.eligible() {
            let forks = self.forks(i);
            let blocks: Vec<_> = self.nodes[i].disk.blocks.iter().map(|(id, b)| (*id, b.clone())).collect();
            for (id, bytes) in blocks {
                if self.is_unknown(i, id.origin) {
                    continue;
                }
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
