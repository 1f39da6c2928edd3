//! The steps of a schedule: what companies say, and what goes wrong.

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
        }
        let up = self.up();
        if let Some(i) = self.pick(&up).filter(|_| number.is_multiple_of(3)) {
            self.check_view(i);
            self.check_manners(i);
        }
        let next = self.now + self.draw.around(self.plan.gap_ms);
        self.at(next, Event::Step(number + 1));
    }

    fn say(&mut self, records: u64) {
        let up = self.up();
        let Some(i) = self.pick(&up) else { return };
        let (roles, now) = (self.forum.roles(i), self.clock(i).0);
        let records: Vec<_> = (0..records).map(|_| forum::statement(&mut self.draw, roles, now)).collect();
        let class =
            [Class::Normal, Class::Normal, Class::Normal, Class::Urgent, Class::Bulk][self.draw.below(5) as usize];
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
        let (roles, now) = (self.forum.roles(i), self.now);
        let Some(liar) = self.nodes[i].liar.as_mut() else { return };
        for frame in liar.act(&mut self.draw, roles, now) {
            self.authored.insert(frame.header.hash().0, frame.encode());
        }
        self.pump_all(i);
        self.count("lies");
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
                self.nodes[i].disk.journal.clear();
                self.forget_unseen(i);
                self.count("journals lost");
                self.start(i);
            }
            1 => {
                let frames = self.nodes[i].disk.journal.len() as u64;
                self.crash(i);
                if frames > 0 {
                    let at = self.draw.below(frames) as usize;
                    self.nodes[i].disk.journal[at] = None;
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
                let disk = &mut self.nodes[i].disk;
                if recovers || disk.journal.iter().any(Option::is_none) || !journal_is_whole(disk, company(i).id) {
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
        let me = company(i).id;
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
        let peers: Vec<_> = charter
            .members
            .iter()
            .filter(|m| m.status == 1 && m.id[..] != me.0)
            .filter_map(|m| number_of(MemberId(m.id[..].try_into().ok()?)))
            .collect();
        let needed = (peers.len() / 2).max(1);
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
        let node = &mut self.nodes[i];
        node.lost.extend(lost);
        node.outbox_refused = true; // a queued submission may be gone with the disk
        node.disk = old;
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
        let (me, sent) = (company(i).id.0, &self.sent);
        self.signed.retain(|(log, _), hash| log.0 != me || held.contains(hash) || sent.contains(hash));
    }

    fn govern(&mut self) {
        if self.forum.forked.is_some() || self.forum.version() > 8 {
            return;
        }
        let active: Vec<_> = (0..self.nodes.len()).filter(|i| self.forum.is_active(*i)).collect();
        let joiners = self.plan.members + self.plan.joiners;
        let now = self.now;
        match self.draw.below(12) {
            0..3 if self.nodes.len() < joiners => {
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
            5..9 if active.len() > 3 => self.expel(&active),
            9 => {
                self.forum.issue(&mut self.draw, |c| c.threshold = 5 - c.threshold);
            }
            10 if self.draw.below(2) == 0 => {
                self.govern_twice();
                return self.count("charter forks");
            }
            _ => return,
        }
        self.count("charters");
        let up = self.up();
        if let Some(i) = self.pick(&up) {
            self.hand_charters(i);
        }
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
        let up: Vec<_> = self.up().into_iter().filter(|i| *i != who).collect();
        let Some(witness) = self.pick(&up) else { return };
        let member = company(who).id;
        let have = self.nodes[witness].replica.as_ref().map(Replica::have).unwrap_or_default();
        let cutoffs: Vec<_> = have.iter().filter(|(origin, _)| origin.member == member).collect();
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
        self.nodes.iter_mut().for_each(|node| node.skew = 0);
        for i in self.honest().collect::<Vec<_>>() {
            if self.nodes[i].replica.is_none() {
                self.start(i);
            }
        }
        // On a node that everybody knows: a newcomer's charter is worth nothing to those who refuse the newcomer.
        let up: Vec<_> = self.eligible().into_iter().filter(|i| *i <= 1).collect();
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

/// Whether the journal alone has all own blocks of the store, each log from its first block on.
fn journal_is_whole(disk: &Disk, me: MemberId) -> bool {
    let journaled: BTreeSet<_> =
        disk.journal.iter().flatten().filter_map(|b| Some(Frame::decode(b.clone()).ok()?.header.hash())).collect();
    let mut own = disk.blocks.iter().filter(|(id, _)| id.origin.member == me);
    own.all(|(_, bytes)| Frame::decode(bytes.clone()).is_ok_and(|f| journaled.contains(&f.header.hash())))
}
