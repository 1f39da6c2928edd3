//! Attesting what we durably hold, so that nobody can take it back (PROTOCOL W8).

use std::collections::BTreeMap;

use super::charter::Roles;
use super::ids::{Class, Head, Origin, Seq, TimeMs};
use super::own::Draft;
use super::record::{ATTEST_HEADS_MAX, Parsed, Statement};
use super::signed::VerifiedBlock;
use super::wrong::WrongRule;
use super::{Replica, heads, proto, record};

/// Attestations are made so often if heads have changed.
pub(super) const ATTEST_MS: u64 = TimeMs::HOUR_MS;
/// All heads are attested so often, changed or not.
pub(super) const ATTEST_ALL_MS: u64 = 6 * TimeMs::HOUR_MS;
/// An urgent block is attested within this time: drawn, so that not all do it at once.
pub(super) const ATTEST_URGENT_MS: u64 = 60_000;

/// What we have attested, and when we do it again.
#[derive(Clone, Debug, Default)]
pub(super) struct Attester {
    /// Our last word on each log. What we attest must extend it, for ever.
    attested: BTreeMap<Origin, Head>,
    /// Last places of others' logs that say more than that their author holds something.
    notable: BTreeMap<Origin, Seq>,
    next: TimeMs,
    next_all: TimeMs,
    urgent: Option<TimeMs>,
}

impl Attester {
    /// Our last word on each log.
    pub(super) fn ours(&self) -> impl Iterator<Item = (&Origin, &Head)> {
        self.attested.iter()
    }

    /// Last places of others' logs that are worth attesting.
    pub(super) fn notable(&self) -> impl Iterator<Item = (&Origin, &Seq)> {
        self.notable.iter()
    }
}

impl Replica {
    /// Takes in what a snapshot has of it. An urgent block that we have not attested is attested soon: we may have stopped
    /// before.
    pub(super) fn adopt_attester(&mut self, ours: BTreeMap<Origin, Head>, notable: BTreeMap<Origin, Seq>, now: TimeMs) {
        let urgent = |origin: &Origin| {
            let class = self.logs.get(origin).and_then(|log| Class::from_number(log.opening().class));
            class == Some(Class::Urgent)
        };
        let open = |(origin, seq): (&Origin, &Seq)| {
            urgent(origin) && ours.get(origin).is_none_or(|attested| attested.seq < *seq)
        };
        let urgent = notable.iter().any(open).then(|| now.plus(self.draw.below(ATTEST_URGENT_MS / 2)));
        self.attester = Attester { attested: ours, notable, urgent, ..Attester::default() };
    }

    /// Looks at a block that became durable: is it one to attest, or one in which we attested?
    pub(super) fn note_for_attests(&mut self, block: &VerifiedBlock, now: TimeMs) {
        let (id, records) = (block.id(), block.records());
        if id.origin.member == self.settings.me {
            let said = records.iter().filter_map(|r| match r {
                Parsed::Says(Statement::Attest { heads }) => Some(heads),
                _ => None,
            });
            for (origin, head) in said.flatten() {
                let last = self.attester.attested.entry(*origin).or_insert(*head);
                if head.seq > last.seq {
                    *last = *head;
                }
            }
            return;
        }
        let silent = |r: &Parsed| {
            matches!(r, Parsed::Says(Statement::Attest { .. } | Statement::Evidence | Statement::LogOpen(_)))
        };
        if records.iter().all(silent) {
            return; // attesting attestations would never end
        }
        self.attester.notable.insert(id.origin, id.seq);
        if Class::from_number(block.header().class) == Some(Class::Urgent) {
            let soon = now.plus(self.draw.below(ATTEST_URGENT_MS / 2));
            self.attester.urgent = Some(self.attester.urgent.map_or(soon, |at| at.min(soon)));
        }
    }

    /// Attests what is due, in our normal lane.
    pub(super) fn attest(&mut self, now: TimeMs) {
        if self.attester.next == TimeMs(0) {
            self.attester.next = now.plus(self.draw.around(ATTEST_MS));
            self.attester.next_all = now.plus(self.draw.around(ATTEST_ALL_MS));
        }
        let all = now >= self.attester.next_all;
        let due = all || now >= self.attester.next || self.attester.urgent.is_some_and(|at| now >= at);
        if !due || !self.may_attest() {
            return;
        }
        self.attester.urgent = None;
        self.attester.next = now.plus(self.draw.around(ATTEST_MS) / 2 + ATTEST_MS / 4);
        if all {
            self.attester.next_all = now.plus(self.draw.around(ATTEST_ALL_MS) / 2 + ATTEST_ALL_MS / 4);
        }
        let heads = self.heads_to_attest(all);
        let charter = self.chain.effective();
        let (version, hash) = (charter.version, charter.hash);
        for chunk in heads.chunks(ATTEST_HEADS_MAX) {
            let attest = proto::Attest {
                heads: chunk.iter().map(|(origin, head)| heads::head_to_proto(*origin, *head)).collect(),
                charter_version: version,
                charter_hash: bytes::Bytes::copy_from_slice(&hash.0),
            };
            let salt = self.draw_salt(chunk);
            let bytes = record::encode(proto::Kind::Attest, salt, &attest);
            self.own.open.entry(Class::Normal).or_default().push(Draft { ticket: None, bytes });
        }
        self.attester.attested.extend(heads);
    }

    /// Voters attest; others' word would weigh nothing. After a loss, only when two thirds of the members have told us
    /// what they hold of our logs: what we attested before may stand there (W5).
    fn may_attest(&self) -> bool {
        let charter = self.law();
        let Some(member) = charter.member(self.settings.me) else { return false };
        let auditor = charter.policy.auditors_attest && member.roles.has(Roles::AUDITOR);
        let heard = self.exchanges.values().filter(|e| e.last_heard() > TimeMs(0)).count();
        let enough = !self.own.lost || 3 * heard >= 2 * self.exchanges.len() && !self.is_missing_own_blocks();
        charter.semantics >= 2
            && self.understands()
            && (member.roles.has(Roles::FULL) || auditor)
            && self.is_active()
            && self.own.may_sign()
            && self.may_open_a_log()
            && enough
    }

    /// Heads of others' logs that count, and that go on from what we attested before.
    fn heads_to_attest(&self, all: bool) -> Vec<(Origin, Head)> {
        let mut heads = Vec::new();
        for (origin, (_, head)) in &self.published.heads {
            if origin.member == self.settings.me {
                continue;
            }
            let Some(log) = self.logs.get(origin) else { continue };
            let before = self.attester.attested.get(origin);
            let contradicts = self.settings.rules.break_rule(WrongRule::AttestAnyChain);
            let extends = contradicts || before.is_none_or(|b| b.seq <= head.seq && log.hash_at(b.seq) == Some(b.hash));
            let said = before.map_or(Seq(0), |b| b.seq);
            let news = self.attester.notable.get(origin).is_some_and(|seq| *seq > said);
            if extends && (all || news) {
                heads.push((*origin, *head));
            }
        }
        heads
    }
}
