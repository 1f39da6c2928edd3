//! The steps of a schedule: what companies say, and what goes wrong.

use ed25519_dalek::SigningKey;
use staydown::replica::ids::sha256;

use super::*;

impl World {
    pub(super) fn step(&mut self, number: usize) {
        if number >= self.plan.steps {
            return if self.plan.heals { self.heal() } else { self.together = true };
        }
        match self.plan.step(&mut self.draw) {
            Step::Say => {
                let records = 1 + self.draw.below(2);
                self.say(records);
            }
            Step::SayMuch => {
                let records = 4 + self.draw.below(12);
                self.say(records);
            }
            Step::Lie => self.lie(),
            Step::Crash => {
                let up = self.up();
                if let Some(i) = self.pick(&up).filter(|_| up.len() > 1) {
                    self.crash(i);
                    if self.draw.below(2) == 0 {
                        self.start(i);
                    }
                }
            }
            Step::Restart => {
                let down: Vec<_> = self.honest().filter(|i| self.nodes[*i].replica.is_none()).collect();
                if let Some(i) = self.pick(&down) {
                    self.start(i);
                }
            }
            Step::Partition => {
                let islands: Vec<_> = (0..self.nodes.len()).map(|_| self.draw.below(2)).collect();
                self.islands = islands;
                let end = self.now + 1_000 + self.draw.below(60_000);
                self.at(end, Event::Rejoin);
                self.count("partitions");
            }
            Step::Clock => {
                let honest: Vec<_> = self.honest().collect();
                if let Some(i) = self.pick(&honest) {
                    self.nodes[i].set_at = self.now;
                    let reach = self.plan.skew_ms.max(10_000);
                    self.nodes[i].skew = self.draw.below(2 * reach) as i64 - reach as i64;
                    if self.draw.below(4) == 0 {
                        self.nodes[i].skew = -3_600_000;
                    }
                }
            }
            Step::Backup => self.backup(),
            Step::Damage => self.damage(),
            Step::Govern => self.govern(),
            Step::Suspend => self.suspend(),
            Step::Steal => self.steal(),
            Step::Close => self.close(),
            Step::Upgrade => self.upgrade(),
            Step::Copy => self.copy(),
        }
        let up = self.up();
        if let Some(i) = self.pick(&up).filter(|_| number.is_multiple_of(3)) {
            self.check_view(i);
            self.check_manners(i);
            self.check_erased(i);
        }
        let next = self.now + self.draw.around(self.plan.gap_ms);
        self.at(next, Event::Step(number + 1));
    }

    fn say(&mut self, records: u64) {
        let up = self.up();
        let Some(i) = self.pick(&up) else { return };
        let (roles, now) = (self.forum.roles(self.nodes[i].who), self.clock(i).0);
        // What a node's own release refuses is said by liars: see `Liar::act`.
        let level = self.forum.latest().semantics;
        let records = (0..records).map(|_| match self.draw.below(4) {
            0 if level >= 3 => forum::of_account(&mut self.draw, roles, now, false),
            1 if level >= 4 => forum::of_video(&mut self.draw, roles, false),
            _ => forum::statement(&mut self.draw, roles, now),
        });
        let records: Vec<_> = records.collect();
        let class =
            [Class::Normal, Class::Normal, Class::Normal, Class::Urgent, Class::Bulk][self.draw.below(5) as usize];
        self.submit(i, class, records);
    }

    fn submit(&mut self, i: usize, class: Class, records: Vec<Bytes>) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.tickets.insert(ticket, (i, records.clone()));
        self.input(i, Input::Submit { ticket, class, records });
        let (linger, incarnation) = (self.draw.below(3) * 5, self.nodes[i].incarnation);
        if linger < 10 {
            self.at(self.now + linger, Event::Seal(i, incarnation));
        }
    }

    fn lie(&mut self) {
        let liars: Vec<_> = (0..self.nodes.len()).filter(|i| self.nodes[*i].liar.is_some()).collect();
        let Some(i) = self.pick(&liars) else { return };
        let (roles, now) = (self.forum.roles(self.nodes[i].who), self.now);
        let heads = self.rumours();
        let Some(liar) = self.nodes[i].liar.as_mut() else { return };
        for frame in liar.act(&mut self.draw, roles, now, &heads) {
            let hash = frame.header.hash().0;
            self.authored.insert(hash, frame.encode());
            if frame.header.header().id.origin.member != company(i).id {
                self.forged.insert(hash);
            }
        }
        self.pump_all(i);
        self.count("lies");
    }

    /// Heads that a liar may talk about: what somebody honest holds, and what liars tell.
    fn rumours(&mut self) -> Vec<(Origin, Head)> {
        let up = self.up();
        let teller = self.pick(&up).and_then(|i| self.nodes[i].replica.as_ref());
        let mut heads: Vec<_> = teller.map(|r| r.have().iter().collect()).unwrap_or_default();
        heads.extend(self.nodes.iter().filter_map(|n| n.liar.as_ref()).flat_map(Liar::stories));
        heads
    }

    /// A steward cuts somebody off, as far as it holds that member's logs.
    fn suspend(&mut self) {
        let stewards: Vec<_> =
            self.up().into_iter().filter(|i| self.forum.roles(self.nodes[*i].who) & forum::STEWARD != 0).collect();
        let targets: Vec<_> = self.active().into_iter().filter(|t| *t > 1).collect();
        let (Some(i), Some(target)) = (self.pick(&stewards), self.pick(&targets)) else { return };
        if i == target {
            return;
        }
        let mut heads: Vec<_> = self.nodes[i].replica.as_ref().map(|r| r.have().iter().collect()).unwrap_or_default();
        heads.retain(|(origin, _)| origin.member == company(target).id && self.draw.below(6) > 0);
        for (origin, head) in &mut heads {
            // Sometimes a mark below the head: what came last is what is doubted.
            let seq = Seq(head.seq.0 - self.draw.below(3).min(head.seq.0 - 1));
            let bytes = self.read(i, BlockId { origin: *origin, seq });
            if let Some(block) = bytes.and_then(|b| self.block(&b)) {
                *head = Head { seq, hash: staydown::replica::ids::HeaderHash(block.hash) };
            }
        }
        let now = self.clock(i).0;
        let record = forum::suspension(&mut self.draw, company(target).id, &heads, now);
        self.submit(i, Class::Urgent, vec![record]);
        let incarnation = self.nodes[i].incarnation;
        self.at(self.now + 5, Event::Seal(i, incarnation));
        self.count("suspensions");
    }

    /// A liar gets hold of the key of an honest member's log.
    fn steal(&mut self) {
        let thieves: Vec<_> = self.active().into_iter().filter(|i| self.nodes[*i].liar.is_some()).collect();
        let up: Vec<_> = self.up().into_iter().filter(|i| self.nodes[*i].who == *i).collect();
        let (Some(thief), Some(victim)) = (self.pick(&thieves), self.pick(&up)) else { return };
        let me = company(victim).id;
        let logs: BTreeSet<_> =
            self.nodes[victim].disk.blocks.keys().map(|id| id.origin).filter(|o| o.member == me).collect();
        let logs: Vec<_> = logs.into_iter().filter(|o| !self.stolen.contains(&(o.member.0, o.log_no.0))).collect();
        let victims: BTreeSet<_> = self.stolen.iter().map(|(member, _)| *member).collect();
        let Some(origin) = logs.get(self.draw.below(logs.len() as u64) as usize).copied() else { return };
        if victims.len() >= self.plan.members.div_ceil(4) && !victims.contains(&me.0) {
            return;
        }
        let Some(opening) = self.nodes[victim].replica.as_ref().and_then(|r| r.opening(origin)).cloned() else {
            return;
        };
        let blocks = &self.nodes[victim].disk.blocks;
        let stored = (1..).map_while(|seq| blocks.get(&BlockId { origin, seq: Seq(seq) }).cloned());
        let frames: Vec<_> = stored.map_while(|b| Frame::decode(b).ok()).collect();
        let redacted = frames.iter().flat_map(|f| &f.slots).any(|s| !matches!(s, Slot::Record(_)));
        let seed = sha256(&[
            b"staydown/log-key/v1
",
            &company(victim).log_seed,
            &origin.log_no.0.to_be_bytes(),
        ]);
        let key = SigningKey::from_bytes(&seed);
        if redacted || frames.is_empty() || key.verifying_key() != opening.key {
            return;
        }
        self.stolen.insert((me.0, origin.log_no.0));
        if let Some(liar) = self.nodes[thief].liar.as_mut() {
            liar.steal(&mut self.draw, key, opening, frames);
        }
        self.count("keys stolen");
    }

    /// An old release is replaced by the current one.
    fn upgrade(&mut self) {
        let old: Vec<_> = self.up().into_iter().filter(|i| self.nodes[*i].semantics_max < SEMANTICS_MAX).collect();
        if let Some(i) = self.pick(&old) {
            self.flush(i);
            self.crash(i);
            self.nodes[i].semantics_max = SEMANTICS_MAX;
            self.start(i);
            self.count("upgrades");
        }
    }

    /// A company closes its logs, as it does when it rotates their keys; or says again what no longer counts.
    fn close(&mut self) {
        let up = self.up();
        let Some(i) = self.pick(&up) else { return };
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        if self.draw.below(2) == 0 {
            let next_seed = (self.draw.below(2) == 0).then(|| sha256(&[b"next", &self.draw.number().to_be_bytes()]));
            self.closing.insert(ticket, (i, next_seed));
            self.input(i, Input::Close { ticket, next_seed, reason: 10 });
            return self.count("logs closed");
        }
        self.closing.insert(ticket, (i, None));
        let said = self.lapsed(i);
        self.input(i, Input::Resubmit { ticket, said });
        self.count("said again");
    }

    /// Records of a node's own blocks that do not count, with the times of their blocks.
    fn lapsed(&mut self, i: usize) -> Vec<(TimeMs, Bytes)> {
        let me = self.who(i).id;
        let Node { disk, replica, .. } = &self.nodes[i];
        let Some(replica) = replica else { return Vec::new() };
        let own = disk.blocks.iter().filter(|(id, _)| id.origin.member == me).map(|(_, b)| b);
        let mut lapsed = BTreeMap::new();
        for bytes in own.chain(disk.journal.iter().flatten()) {
            let Ok(frame) = Frame::decode(bytes.clone()) else { continue };
            let header = frame.header.header();
            let held = replica.logs().get(&header.id.origin).and_then(|log| log.hash_at(header.id.seq));
            if held != Some(frame.header.hash()) || header.id.seq > replica.prefix(header.id.origin) {
                let records =
                    frame.slots.iter().filter_map(|s| if let Slot::Record(r) = s { Some(r.clone()) } else { None });
                lapsed.extend(records.map(|r| (r, header.time)));
            }
        }
        lapsed.into_iter().map(|(record, time)| (time, record)).collect()
    }

    /// A second process is started with a copy of a node's disk; it can tell, or it cannot.
    fn copy(&mut self) {
        let up: Vec<_> = self.up().into_iter().filter(|i| self.nodes[*i].who == *i && !self.is_twice(*i)).collect();
        let Some(i) = self.pick(&up).filter(|_| self.nodes.len() < forum::COMPANIES) else { return };
        let number = self.nodes.len();
        let mut node = self.new_node(self.nodes[i].who, false);
        let original = &self.nodes[i];
        (node.semantics_max, node.disk, node.lost) =
            (original.semantics_max, original.disk.clone(), original.lost.clone());
        (node.log_seed, node.moved) = (original.log_seed, true);
        self.nodes.push(node);
        self.islands.push(self.islands[i]);
        self.start(number);
        self.count("copies");
    }

    /// Nodes of companies that the newest charter lists as active.
    fn active(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|i| self.nodes[*i].who == *i && self.forum.is_active(*i)).collect()
    }

    /// Everybody who follows `server` is sent what is new.
    pub(super) fn pump_all(&mut self, server: usize) {
        let due: Vec<_> = self
            .streams
            .iter_mut()
            .filter(|(_, s)| s.server == server && !s.pump_due)
            .map(|(number, s)| {
                s.pump_due = true;
                *number
            })
            .collect();
        for number in due {
            self.at(self.now + 1, Event::Pump(number, false));
        }
    }

    fn backup(&mut self) {
        let up = self.up();
        let Some(i) = self.pick(&up) else { return };
        match self.nodes[i].backup.clone() {
            Some(old) if self.draw.below(3) > 0 => self.replace_disk(i, old),
            _ => self.nodes[i].backup = Some(self.nodes[i].disk.clone()),
        }
    }

    fn damage(&mut self) {
        let up = self.up();
        let Some(i) = self.pick(&up) else { return };
        match self.draw.below(5) {
            0 => {
                self.crash(i);
                if !journal_is_stored(&self.nodes[i].disk) {
                    return self.start(i);
                }
                self.nodes[i].disk.journal.clear();
                self.nodes[i].journal_lost = true;
                self.forget_unseen(i);
                self.count("journals lost");
                self.start(i);
            }
            1 => {
                let frames = self.nodes[i].disk.journal.len() as u64;
                self.crash(i);
                if frames > 0 && journal_is_stored(&self.nodes[i].disk) {
                    let at = self.draw.below(frames) as usize;
                    self.nodes[i].disk.journal[at] = None;
                    self.nodes[i].journal_lost = true;
                    self.forget_unseen(i);
                }
                self.count("journal frames damaged");
                self.start(i);
            }
            2 => {
                // The store alone: the journal has all that is ours; the outbox is kept apart from it.
                let charters = self.invitation(self.nodes[i].invite);
                self.crash(i);
                let recovers = self.somebody_recovers();
                let me = self.who(i).id;
                let disk = &mut self.nodes[i].disk;
                if recovers || disk.journal.iter().any(Option::is_none) || !journal_is_whole(disk, me) {
                    return self.start(i);
                }
                let old = std::mem::take(disk);
                self.nodes[i].disk = Disk { charters, journal: old.journal, outbox: old.outbox, ..Disk::default() };
                self.nodes[i].mark = Watermark::default();
                self.count("stores lost");
                self.start(i);
            }
            3 => {
                // All of it; or all but a journal with a hole.
                let charters = self.invitation(self.nodes[i].invite);
                let mut journal = self.nodes[i].disk.journal.clone();
                let hole = self.draw.below(2 * journal.len() as u64) as usize;
                match journal.get_mut(hole) {
                    Some(frame) => *frame = None,
                    None => journal.clear(),
                }
                self.replace_disk(i, Disk { charters, journal, ..Disk::default() });
            }
            _ => {
                // Both stop at once: a power cut in one place.
                self.crash(i);
                let others = self.up();
                if let Some(j) = self.pick(&others) {
                    self.crash(j);
                    self.start(j);
                }
                self.start(i);
            }
        }
    }

    /// A disk of an earlier day is put back. What PROTOCOL W4 b asks of the world for this to be safe: of any peers
    /// that the guard may hear first, one holds the newest blocks; and nobody else is just being restored.
    fn replace_disk(&mut self, i: usize, old: Disk) {
        self.crash(i);
        let me = self.who(i).id;
        let newest: BTreeMap<Origin, BlockId> =
            self.nodes[i].disk.blocks.keys().filter(|id| id.origin.member == me).map(|id| (id.origin, *id)).collect();
        let lost: Vec<_> = self.nodes[i]
            .disk
            .blocks
            .iter()
            .filter(|(id, _)| id.origin.member == me && !old.blocks.contains_key(id))
            .map(|(id, b)| (*id, b.clone()))
            .collect();
        let Some(charter) = old.charters.values().next_back().cloned() else { return self.start(i) };
        let charter = self.charter(&charter);
        if self.is_twice(i) || !journal_is_stored(&self.nodes[i].disk) {
            return self.start(i);
        }
        // Whoever the charters of the meantime added answers, too, and may hold nothing yet.
        let active = |charter: &proto::Charter| -> BTreeSet<usize> {
            let others = charter.members.iter().filter(|m| m.status == 1 && m.id[..] != me.0);
            others.filter_map(|m| number_of(MemberId(m.id[..].try_into().ok()?))).collect()
        };
        let (then, now) = (active(&charter), active(self.forum.latest()));
        // Whom a steward suspends is not asked, so fewer are enough.
        let suspends =
            self.forum.latest().semantics >= 2 && now.iter().any(|p| self.forum.roles(*p) & forum::STEWARD != 0);
        let fewest = then.len().min(now.len());
        let needed = ((fewest - if suspends { (fewest / 3).max(1).min(fewest) } else { 0 }) / 2).max(1);
        let peers: BTreeSet<_> = then.union(&now).copied().collect();
        let holds = |p: &&usize| {
            let node = self.nodes.get(**p);
            node.is_some_and(|n| n.liar.is_none() && newest.values().all(|id| n.disk.blocks.contains_key(id)))
        };
        let holders = peers.iter().filter(holds).count();
        // Acknowledged records need another honest holder, whatever the guard needs.
        if self.somebody_recovers() || (!lost.is_empty() && holders < peers.len() - needed + 1) {
            return self.start(i);
        }
        let lost: Vec<_> = lost.into_iter().filter_map(|(id, b)| Some((self.block(&b)?.hash, id))).collect();
        let moved = self.draw.below(2) == 0;
        let node = &mut self.nodes[i];
        node.lost.extend(lost);
        node.journal_lost = true;
        node.outbox_refused = true; // a queued submission may be gone with the disk
        node.disk = old;
        node.moved = moved;
        node.mark = Watermark::default();
        node.backup = None;
        self.forget_unseen(i);
        self.count("restores");
        self.start(i);
    }

    /// Whether somebody still has to get back what it lost: then others must not lose it, too.
    fn somebody_recovers(&self) -> bool {
        self.honest().any(|j| self.nodes[j].lost.values().any(|id| !self.nodes[j].disk.blocks.contains_key(id)))
    }

    /// What was signed, never left the node and went down with its disk was never said.
    fn forget_unseen(&mut self, i: usize) {
        let disk = self.nodes[i].disk.clone();
        let held: Vec<_> = disk.blocks.values().chain(disk.journal.iter().flatten()).cloned().collect();
        let held: HashSet<_> = held.iter().filter_map(|b| Some(self.block(b)?.hash)).collect();
        let (me, sent) = (self.who(i).id.0, &self.sent);
        self.signed.retain(|((log, _), _), hash| log.0 != me || held.contains(hash) || sent.contains(hash));
    }

    fn govern(&mut self) {
        if self.forum.forked.is_some() || self.forum.version() > 12 {
            return;
        }
        // How many answers a restored node waits for follows the charter: who is asked does not change meanwhile.
        let recovers = self.somebody_recovers();
        let active = self.active();
        let joiners = self.plan.members + self.plan.joiners;
        let copies = self.nodes.iter().enumerate().any(|(i, n)| n.who != i);
        let now = self.now;
        match self.draw.below(26) {
            0..3 if self.nodes.len() < joiners && !copies && !recovers => {
                let number = self.nodes.len();
                let roles = some_roles(&mut self.draw);
                self.forum.issue(&mut self.draw, |c| c.members.push(forum::member(number, roles, number, now)));
                self.arrive(number, false);
                self.count("joiners");
            }
            0..5 => {
                let quota = 5 + self.draw.below(20) as u32;
                self.forum
                    .issue(&mut self.draw, |c| c.policy.as_mut().expect("there is one").quota_per_day = vec![quota; 3]);
            }
            5..9 if active.len() > 3 && !recovers => self.expel(&active),
            9 => {
                self.forum.issue(&mut self.draw, |c| c.threshold = 5 - c.threshold);
            }
            10 if self.draw.below(2) == 0 => {
                self.govern_twice();
                return self.count("charter forks");
            }
            11..13 if self.forum.latest().semantics < SEMANTICS_MAX => {
                self.forum.issue(&mut self.draw, |c| c.semantics += 1);
                self.count("levels raised");
            }
            24..26 if self.forum.latest().semantics >= 3 => {
                let pepper = 1 + self.draw.below(3) as u32;
                self.forum.issue(&mut self.draw, |c| forum::toggle_pepper(c, pepper));
                self.count("peppers changed");
            }
            13..16 => self.erase(),
            16 if !recovers => self.suspend_by_charter(&active),
            17 if !recovers => self.reinstate(),
            18 => {
                let Some(who) = self.pick(&active).filter(|who| *who > 1) else { return };
                let roles = some_roles(&mut self.draw);
                self.change(who, |m| m.roles = roles);
            }
            19 => {
                let (Some(who), Some(with)) = (self.pick(&active), self.pick(&active)) else { return };
                self.change(who, |m| m.group = format!("group-{with}"));
            }
            20..22 => self.rotate_root(&active),
            22 => drop(self.forum.rotate_founder(&mut self.draw)),
            23 => {
                let auditors = self.draw.below(2) == 0;
                let quorum = 1 + self.draw.below(3) as u32;
                self.forum.issue(&mut self.draw, |c| {
                    let policy = c.policy.as_mut().expect("there is one");
                    policy.auditors_attest = auditors;
                    policy.contest_quorum = quorum;
                });
            }
            _ => return,
        }
        self.count("charters");
        let up = self.up();
        if let Some(i) = self.pick(&up) {
            self.hand_charters(i);
        }
    }

    fn change(&mut self, who: usize, change: impl FnOnce(&mut proto::Member)) {
        let id = company(who).id;
        self.forum.issue(&mut self.draw, |c| {
            if let Some(member) = c.members.iter_mut().find(|m| m.id[..] == id.0) {
                change(member);
            }
        });
    }

    fn suspend_by_charter(&mut self, active: &[usize]) {
        let full = self.active().into_iter().filter(|i| self.forum.roles(*i) & forum::FULL != 0).count();
        let Some(who) = self.pick(active).filter(|who| *who > 1 && full > 3) else { return };
        let cutoffs = if self.draw.below(2) == 0 { self.witnessed(who).unwrap_or_default() } else { Vec::new() };
        let id = company(who).id;
        self.forum.issue(&mut self.draw, |c| forum::suspend(c, id, &cutoffs));
        self.count("suspended by charter");
    }

    fn reinstate(&mut self) {
        let suspended = self.forum.latest().members.iter().filter(|m| m.status == 2);
        let numbers: Vec<_> = suspended.filter_map(|m| number_of(MemberId(m.id[..].try_into().ok()?))).collect();
        if let Some(who) = self.pick(&numbers) {
            self.change(who, |m| m.status = 1);
            self.count("reinstated");
        }
    }

    /// Heads of a company's logs, as some other node knows them.
    fn witnessed(&mut self, who: usize) -> Option<Vec<(Origin, Head)>> {
        let up: Vec<_> = self.up().into_iter().filter(|i| self.nodes[*i].who != who).collect();
        let witness = self.pick(&up)?;
        let have = self.nodes[witness].replica.as_ref()?.have();
        Some(have.iter().filter(|(origin, _)| origin.member == company(who).id).collect())
    }

    /// A company gets a new root key; what its logs said so far is listed.
    fn rotate_root(&mut self, active: &[usize]) {
        let honest: Vec<_> = active.iter().copied().filter(|i| self.nodes[*i].liar.is_none()).collect();
        let Some(who) = self.pick(&honest) else { return };
        let Some(cutoffs) = self.witnessed(who) else { return };
        self.forum.issue(&mut self.draw, |c| forum::rotate_root(c, who, &cutoffs));
        self.count("root keys changed");
    }

    /// The founders order a record to be erased everywhere.
    fn erase(&mut self) {
        let up = self.up();
        let Some(i) = self.pick(&up).filter(|_| self.forum.latest().semantics >= 2) else { return };
        let blocks = &self.nodes[i].disk.blocks;
        let at = self.draw.below(blocks.len() as u64) as usize;
        let Some((id, bytes)) = blocks.iter().nth(at).map(|(id, b)| (*id, b.clone())) else { return };
        let Some(block) = self.block(&bytes) else { return };
        let index = self.draw.below(block.leaves.len() as u64) as u32;
        if (id.seq.0, index) == (1, 0) || self.forum.erased((block.log, block.seq)).contains(&index) {
            return;
        }
        let order = proto::Erasure {
            origin: Some(origin_to_proto(id.origin)),
            seq: id.seq.0,
            index,
            leaf_hash: Bytes::copy_from_slice(&block.leaves[index as usize]),
            reason: 99,
        };
        self.forum.issue(&mut self.draw, |c| c.erasures.push(order));
        self.count("erasures");
    }

    /// Two charters for one version, and sometimes one more on top of the first.
    fn govern_twice(&mut self) {
        let (newest, rival) = self.forum.issue_twice(&mut self.draw);
        let more = (self.draw.below(2) == 0).then(|| self.forum.issue(&mut self.draw, |c| c.name = "one more".into()));
        let up = self.up();
        for charters in [vec![Some(newest), more], vec![Some(rival)]] {
            if let Some(i) = self.pick(&up) {
                self.hand_charters(i);
                charters.into_iter().flatten().for_each(|charter| self.input(i, Input::Charter(charter)));
            }
        }
    }

    fn expel(&mut self, active: &[usize]) {
        let liars: Vec<_> = active.iter().copied().filter(|i| self.nodes[*i].liar.is_some()).collect();
        let who =
            if self.draw.below(3) > 0 { self.pick(&liars).or_else(|| self.pick(active)) } else { self.pick(active) };
        let Some(who) = who.filter(|who| *who > 1) else { return };
        let Some(cutoffs) = self.witnessed(who) else { return };
        let member = company(who).id;
        let policy = 1 + u32::from(self.draw.below(3) == 0);
        self.forum.issue(&mut self.draw, |c| forum::expel(c, member, policy, &cutoffs));
        self.count("expulsions");
    }

    /// A person applies the charters that there are on one node.
    fn hand_charters(&mut self, i: usize) {
        let in_force = self.forum.forked.map_or(self.forum.version(), |forked| forked - 1);
        let charters: Vec<_> = self.forum.signed.iter().take(in_force as usize).skip(1).cloned().collect();
        for charter in charters {
            self.input(i, Input::Charter(charter));
        }
    }

    /// Faults stop: everybody is up, connected, and has a fair clock.
    fn heal(&mut self) {
        self.healed_at = Some(self.now);
        self.islands.iter_mut().for_each(|island| *island = 0);
        for node in &mut self.nodes {
            (node.skew, node.set_at) = (0, self.now);
        }
        for i in self.honest().collect::<Vec<_>>() {
            if self.nodes[i].replica.is_none() {
                self.start(i);
            }
        }
        // On the nodes that everybody knows: a newcomer's charter is worth nothing to those who refuse the newcomer. And on
        // both, for a steward may have cut one of them off.
        let up: Vec<_> = self.up().into_iter().filter(|i| *i <= 1).collect();
        up.iter().for_each(|i| self.hand_charters(*i));
        if let Some(i) = self.pick(&up) {
            self.hand_charters(i);
            let branches: Vec<_> = self
                .forum
                .signed
                .iter()
                .skip(self.forum.forked.map_or(usize::MAX, |f| f as usize - 1))
                .cloned()
                .collect();
            branches.into_iter().for_each(|charter| self.input(i, Input::Charter(charter)));
            let j = self.pick(&up).unwrap_or(i);
            self.hand_charters(j);
            let rivals = self.forum.rivals.clone();
            rivals.into_iter().for_each(|charter| self.input(j, Input::Charter(charter)));
        }
        self.at(self.now + 5_000, Event::Look);
    }
}

/// Whether the store has what the journal has, so that losing the journal loses nothing: after a lost store, what its
/// charters do not know the root key of is in the journal alone for a while, and what a thief's chain took the place of
/// is there for ever.
fn journal_is_stored(disk: &Disk) -> bool {
    let head = |bytes: &Bytes| Some(Frame::decode(bytes.clone()).ok()?.header.hash());
    let in_store = |bytes: &Bytes| {
        let id = Frame::decode(bytes.clone()).ok().map(|f| f.header.header().id);
        id.and_then(|id| disk.blocks.get(&id)).is_some_and(|stored| head(stored) == head(bytes))
    };
    disk.journal.iter().flatten().all(in_store)
}

/// Whether the journal alone has all own blocks of the store, each log from its first block on.
fn journal_is_whole(disk: &Disk, me: MemberId) -> bool {
    let journaled: BTreeSet<_> =
        disk.journal.iter().flatten().filter_map(|b| Some(Frame::decode(b.clone()).ok()?.header.hash())).collect();
    let mut own = disk.blocks.iter().filter(|(id, _)| id.origin.member == me);
    own.all(|(_, bytes)| Frame::decode(bytes.clone()).is_ok_and(|f| journaled.contains(&f.header.hash())))
}
