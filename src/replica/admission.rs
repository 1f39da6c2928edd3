//! The forum's shared rules of who may say what, and how much of it: the same answer on every node (PROTOCOL
//! section 2 Roles, section 5 layers 3 and 4).

use std::collections::BTreeMap;

use super::charter::{Charter, ExpulsionPolicy, Member, MemberStatus, Roles};
use super::ids::{Class, KeyId, LogNo, MemberId, Origin, Seq, TimeMs};
use super::log::Log;
use super::record::Statement;
use super::stored::stored;

/// Whether `roles` may make `statement` in a forum of semantics `level`. Inert otherwise.
pub fn may_say(level: u32, roles: Roles, statement: &Statement) -> bool {
    statement.level() <= level && entitled(statement).is_none_or(|entitled| roles.has_any(entitled))
}

/// Whether what a member of `roles` says in a block of `time` has an effect under `charter`. Inert otherwise.
pub fn has_effect(charter: &Charter, roles: Roles, statement: &Statement, time: TimeMs) -> bool {
    may_say(charter.semantics, roles, statement) && account_counts(charter, statement, time).is_ok()
}

/// Whether what is said in a block of `time` of an account may count: of a pepper that the charter has, and with an end
/// that is not beyond `account_ttl_max_ms` (PROTOCOL layer 5). What takes something back needs no end, nor does a vote to
/// retract: neither lists anybody. Of anything but an account nothing is asked.
///
/// # Errors
/// Which of these does not hold, in words.
pub fn account_counts(charter: &Charter, statement: &Statement, time: TimeMs) -> Result<(), &'static str> {
    let Some(subject) = statement.subject().filter(|_| statement.is_of_account()) else { return Ok(()) };
    if !charter.peppers.contains_key(&subject.param()) {
        return Err("is of an account under a pepper that the charter does not have");
    }
    match statement.word_ends() {
        None => Ok(()),
        Some(TimeMs(0)) => Err("is of an account and never ends: what is said of accounts must"),
        Some(end) if end > time.plus(charter.policy.account_ttl_max_ms) => {
            Err("is of an account and ends later than the charter's account_ttl_max_ms from now")
        }
        Some(_) => Ok(()),
    }
}

/// The roles of which one is needed to make `statement`; `None`: every member makes it.
pub fn entitled(statement: &Statement) -> Option<Roles> {
    Some(match statement {
        Statement::LogOpen(_) | Statement::LogClose => return None,
        Statement::Opinion(_) => Roles::FULL.and(Roles::SMALL),
        Statement::Retract { .. } => Roles::FULL,
        Statement::Allow { .. } => Roles::CERTIFIER,
        Statement::Referral { .. } => Roles::REFERRAL,
        Statement::Incident { .. } => Roles::FULL.and(Roles::STEWARD),
        // Everybody but who is a steward and nothing else.
        Statement::Evidence => Roles::from_bits(Roles::STEWARD.bits() - 1),
        Statement::Attest { .. } => Roles::FULL.and(Roles::SMALL).and(Roles::OBSERVER).and(Roles::AUDITOR),
        Statement::Suspend { .. } => Roles::STEWARD,
        Statement::AuditNote => Roles::AUDITOR,
        Statement::Resource(_) => Roles::CERTIFIER,
        Statement::Preserve { .. } | Statement::Outcome { .. } => Roles::FULL.and(Roles::SMALL),
    })
}

/// How many blocks of `log` the charter lets count, where `settled` of them do by proofs and finality and `fork` is the
/// lowest disputed place (layer 3): all, up to a cutoff, or none.
///
/// A cutoff picks the chain, and counts across a fork: the founders' threshold is the one word above attestations, and
/// the only one in a forum too small for them.
pub fn prefix(charter: &Charter, log: &Log, settled: Seq, fork: Option<Seq>) -> Seq {
    let origin = log.origin();
    let Some(member) = charter.member(origin.member) else { return Seq(0) };
    let expulsion = charter.expulsions.get(&origin.member);
    if expulsion == Some(&ExpulsionPolicy::Void) {
        return Seq(0);
    }
    let Some(cutoff) = charter.cutoffs.get(&origin) else {
        // Logs of a member that was cut off, and logs opened under a root key that was replaced, count only where
        // listed: else whoever holds its keys would go on, relayed by others.
        let current = log.opening().root_key_id == KeyId::of(member.root_key.as_bytes());
        let goes_on = current && expulsion.is_none() && member.is_active();
        return if goes_on { settled } else { Seq(0) };
    };
    match log.hash_at(cutoff.seq) {
        Some(hash) if hash == cutoff.hash => cutoff.seq,
        // It picks another chain. Only what is settled may tell: how much more somebody holds is chance.
        Some(_) if cutoff.seq <= settled => fork.map_or(Seq(0), |fork| fork.previous().min(cutoff.seq)),
        _ => settled.min(cutoff.seq),
    }
}

/// Whether the charter knows the log that was opened under `root`: logs of replaced keys are history only where a
/// cutoff is listed, and else a stolen old key could take log numbers that the member still wants to use.
pub fn knows(charter: &Charter, origin: Origin, root: KeyId) -> bool {
    let current = charter.member(origin.member).is_some_and(|m| KeyId::of(m.root_key.as_bytes()) == root);
    // A cutoff at 0 lists nothing: it keeps a number from being used.
    current || charter.cutoffs.get(&origin).is_some_and(|cutoff| cutoff.seq > Seq(0))
}

/// Whether what `member` says besides support still counts: votes of a former member lapse.
pub fn votes_count(member: &Member) -> bool {
    member.status != MemberStatus::Former
}

/// Records a member made in one lane on one UTC day, by log: `[statements, withdrawals]`.
#[derive(Clone, Debug, Default)]
struct Day {
    by_log: BTreeMap<LogNo, [u32; 2]>,
}

/// What every member used of its quotas (layer 4). The logs' own order decides, never the order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Quotas {
    days: BTreeMap<(MemberId, Class, u64), Day>,
}

stored!(Day { by_log });
stored!(Quotas { days });

/// What a block's records found of their day's quota.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    limit: u32,
    used: [u32; 2],
}

impl Room {
    /// Counts one more record; tells whether it is within the quota.
    pub fn take(&mut self, withdraws: bool) -> bool {
        let used = &mut self.used[usize::from(withdraws)];
        *used = used.saturating_add(1);
        *used <= self.limit
    }
}

impl Quotas {
    /// The room that the next block of `origin` finds: what lower logs used, and the log itself before.
    pub fn room(&self, charter: &Charter, origin: Origin, class: Class, day: u64) -> Room {
        let mut room = Room { limit: charter.policy.quota_per_day[class.index()], used: [0; 2] };
        let logs = self.days.get(&(origin.member, class, day));
        for used in logs.iter().flat_map(|d| d.by_log.range(..=origin.log_no)).map(|(_, used)| used) {
            for (sum, used) in room.used.iter_mut().zip(used) {
                *sum = sum.saturating_add(*used);
            }
        }
        room
    }

    /// Notes what a block of `origin` used. `false`: records of higher logs, counted before, may now be beyond the
    /// quota, so the view has to be derived again in the logs' order.
    pub fn note(&mut self, charter: &Charter, origin: Origin, class: Class, day: u64, used: [u32; 2]) -> bool {
        let logs = &mut self.days.entry((origin.member, class, day)).or_default().by_log;
        let own = logs.entry(origin.log_no).or_default();
        for (sum, used) in own.iter_mut().zip(used) {
            *sum = sum.saturating_add(used);
        }
        let limit = u64::from(charter.policy.quota_per_day[class.index()]);
        let is_last = logs.keys().next_back() == Some(&origin.log_no);
        is_last || (0..2).all(|i| logs.values().map(|u| u64::from(u[i])).sum::<u64>() <= limit)
    }

    /// Whether `member` made more records in `class` on any day than its quota. Which of them count is then a matter of
    /// the order of its logs, not of one log alone.
    pub fn is_exceeded(&self, charter: &Charter, member: MemberId, class: Class) -> bool {
        let limit = u64::from(charter.policy.quota_per_day[class.index()]);
        let mut days = self.days.range((member, class, 0)..=(member, class, u64::MAX)).map(|(_, day)| day);
        days.any(|day| (0..2).any(|i| day.by_log.values().map(|used| u64::from(used[i])).sum::<u64>() > limit))
    }

    /// What `member` has used on `day` in `class`: `[statements, withdrawals]`.
    pub fn used(&self, member: MemberId, class: Class, day: u64) -> [u32; 2] {
        let mut sum = [0_u32; 2];
        for used in self.days.get(&(member, class, day)).iter().flat_map(|d| d.by_log.values()) {
            sum = [sum[0].saturating_add(used[0]), sum[1].saturating_add(used[1])];
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use prost::Message as _;

    use super::*;
    use crate::replica::ids::{Head, HeaderHash};
    use crate::replica::record::{self, Parsed};
    use crate::replica::signed::VerifiedBlock;
    use crate::replica::testing::{
        FULL, START, TestForum, allow, id, incident, key, opinion, origin, public, referral, retract, subject, video,
    };
    use crate::replica::view::View;
    use crate::replica::{charter, proto};

    fn says(bytes: &Bytes) -> Statement {
        match record::parse(bytes) {
            Parsed::Says(statement) => statement,
            inert @ Parsed::Inert(_) => panic!("{inert:?}"),
        }
    }

    /// PROTOCOL section 2, Roles: F(ull), S(mall), O(bserver), R(eferral), C(ertifier), A(uditor), ste(W)ard.
    #[test]
    fn each_role_says_what_the_table_says() {
        let evidence = proto::Evidence { proof_hash: vec![1; 32].into(), origin: None, seq: 1 };
        let open = proto::LogOpen { public_key: vec![1; 32].into(), ..Default::default() };
        let close = proto::LogClose { reason: 1, next_log_no: 1 };
        let encode = |kind, body: &dyn Fn() -> Bytes| {
            let record = proto::Record { kind: kind as u32, salt: vec![1; 16].into(), body: body() };
            Bytes::from(prost::Message::encode_to_vec(&record))
        };
        let head = crate::replica::heads::head_to_proto(origin(1, 0), Head { seq: Seq(1), hash: HeaderHash([1; 32]) });
        let attest = proto::Attest { heads: vec![head], ..Default::default() };
        let suspend = proto::Suspend { member_id: vec![1; 16].into(), until_ms: 1, ..Default::default() };
        let about = Some(subject(1).to_proto());
        let preserve = proto::Preserve { subject: about.clone(), until_ms: 1, contact: 1 };
        let outcome = proto::Outcome { subject: about, result: 1, acted_ms: 1 };
        let note = proto::AuditNote { finding: 1, ..Default::default() };
        let resource = proto::Resource { url: "https://example.org".into(), listed: true, ..Default::default() };
        let body = |message: &dyn Fn() -> Vec<u8>| Bytes::from(message());
        let table: [(&str, Bytes, &str); 21] = [
            ("submit", opinion(1, 1), "FS"),
            ("endorse", opinion(1, 2), "FS"),
            ("dispute", opinion(1, 3), "FS"),
            ("neutral", opinion(1, 4), "FS"),
            ("retract", retract(1, true), "F"),
            ("keep", retract(1, false), "F"),
            ("allow", allow(1, true, START), "C"),
            ("allow ended", allow(1, false, TimeMs(0)), "C"),
            ("referral", referral(1, true), "R"),
            ("referral closed", referral(1, false), "R"),
            ("incident", incident(1, 1, true, TimeMs(0)), "FW"),
            ("incident closed", incident(1, 1, false, TimeMs(0)), "FW"),
            ("evidence", encode(proto::Kind::Evidence, &|| prost::Message::encode_to_vec(&evidence).into()), "FSORCA"),
            ("open", encode(proto::Kind::LogOpen, &|| prost::Message::encode_to_vec(&open).into()), "FSORCAW"),
            ("close", encode(proto::Kind::LogClose, &|| prost::Message::encode_to_vec(&close).into()), "FSORCAW"),
            ("attest", encode(proto::Kind::Attest, &|| body(&|| prost::Message::encode_to_vec(&attest))), "FSOA"),
            ("suspend", encode(proto::Kind::Suspend, &|| body(&|| prost::Message::encode_to_vec(&suspend))), "W"),
            ("note", encode(proto::Kind::AuditNote, &|| body(&|| prost::Message::encode_to_vec(&note))), "A"),
            ("resource", encode(proto::Kind::Resource, &|| body(&|| prost::Message::encode_to_vec(&resource))), "C"),
            ("preserve", encode(proto::Kind::Preserve, &|| body(&|| prost::Message::encode_to_vec(&preserve))), "FS"),
            ("outcome", encode(proto::Kind::Outcome, &|| body(&|| prost::Message::encode_to_vec(&outcome))), "FS"),
        ];
        let kinds: BTreeSet<_> =
            table.iter().map(|(_, record, _)| proto::Record::decode(&record[..]).unwrap().kind).collect();
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), (1..=14).collect::<Vec<_>>(), "every kind is in the table");
        for (bit, letter) in "FSORCAW".chars().enumerate() {
            let roles = Roles::from_bits(1 << bit);
            let forum = TestForum::with(&[("a", roles.bits()), ("b", FULL)], |c| c.semantics = 2);
            let (mut ring, mut log) = (forum.keyring(), forum.log(1, 0, Class::Normal));
            for (what, record, allowed) in &table {
                let statement = says(record);
                assert_eq!(may_say(2, roles, &statement), allowed.contains(letter), "{what} by {letter}");
                assert!(!may_say(statement.level() - 1, roles, &statement), "{what} below its level");
                // And the list goes by it.
                let mut view = View::new(&forum.charter(), START);
                let block = log.block(&mut ring, std::slice::from_ref(record));
                view.fold(block.header(), block.records());
                assert_eq!(view.inert(), u64::from(!allowed.contains(letter)), "{what} by {letter}");
            }
        }
    }

    #[test]
    fn a_video_is_said_from_level_4_on_whatever_is_said_of_it() {
        let about = Some(video(1, 3).to_proto());
        let opinion = |stance| {
            let opinion = proto::Opinion { subject: about.clone(), stance, ..Default::default() };
            record::encode(proto::Kind::Opinion, [9; 16], &opinion)
        };
        let vote = proto::RetractVote { subject: about.clone(), yes: true, reason: 0 };
        let vote = record::encode(proto::Kind::RetractVote, [9; 16], &vote);
        for level in 1..=charter::SEMANTICS_MAX {
            let forum = TestForum::with(&[("a", FULL), ("b", FULL)], |c| c.semantics = level);
            let (mut ring, mut log) = (forum.keyring(), forum.log(1, 0, Class::Normal));
            let mut view = View::new(&forum.charter(), START);
            let block = log.block(&mut ring, &[opinion(1), opinion(4), vote.clone()]);
            view.fold(block.header(), block.records());
            let (inert, withdrawn) = if level < 4 { (3, 0) } else { (0, 2) };
            assert_eq!(view.inert(), inert, "level {level}");
            assert_eq!(view.known(), usize::from(level >= 4), "level {level}");
            // As for the releases that could not read it: it uses the quota of statements, whatever it is.
            let used = view.quotas().used(id(1), Class::Normal, block.header().time.day());
            assert_eq!(used[1], withdrawn, "level {level}");
        }
    }

    #[test]
    fn roles_together_say_what_each_of_them_may() {
        let certifier_and_steward = Roles::CERTIFIER.and(Roles::STEWARD);
        assert!(may_say(1, certifier_and_steward, &says(&allow(1, true, START))));
        assert!(may_say(1, certifier_and_steward, &says(&incident(1, 1, true, START))));
        assert!(!may_say(1, certifier_and_steward, &says(&opinion(1, 1))));
    }

    /// A log of member 1 with five blocks.
    fn five_blocks(forum: &TestForum) -> (Vec<VerifiedBlock>, Log) {
        let mut ring = forum.keyring();
        let mut writer = forum.log(1, 0, Class::Normal);
        let blocks: Vec<_> = (1..=5).map(|n| writer.block(&mut ring, &[opinion(n, 1)])).collect();
        let mut log = Log::open(&blocks[0]).unwrap();
        blocks.iter().for_each(|block| drop(log.extend(block, &ring)));
        (blocks, log)
    }

    #[test]
    fn a_charter_decides_how_far_a_log_counts() {
        let forum = TestForum::of_full(2);
        let (blocks, log) = five_blocks(&forum);
        let at = |log_no: u32, seq: u64, hash: [u8; 32]| proto::Cutoff {
            origin: Some(crate::replica::heads::origin_to_proto(origin(1, log_no))),
            last_seq: seq,
            last_hash: hash.to_vec().into(),
        };
        let hash = |seq: usize| blocks[seq - 1].hash().0;
        let expelled = |policy, cutoffs| proto::Expulsion { member_id: vec![1; 16].into(), policy, cutoffs, reason: 1 };
        let new_root = |c: &mut proto::Charter| {
            c.members[0].log_root_key = public(&key("new"));
            c.members[0].pop = Bytes::copy_from_slice(&charter::prove_possession(&key("new"), &forum.id.0, id(1)));
        };
        type Change<'a> = Box<dyn FnOnce(&mut proto::Charter) + 'a>;
        let cases: Vec<(&str, Change<'_>, u64)> = vec![
            ("nothing", Box::new(|_| ()), 5),
            ("a cutoff", Box::new(|c| c.cutoffs = vec![at(0, 3, hash(3))]), 3),
            ("a cutoff beyond", Box::new(|c| c.cutoffs = vec![at(0, 9, [7; 32])]), 5),
            ("a cutoff at nothing", Box::new(|c| c.cutoffs = vec![at(0, 1, hash(1))]), 1),
            ("a cutoff on another chain", Box::new(|c| c.cutoffs = vec![at(0, 3, [7; 32])]), 0),
            ("a cutoff of another log", Box::new(|c| c.cutoffs = vec![at(1, 3, hash(3))]), 5),
            ("a new root key", Box::new(new_root), 0),
            (
                "a new root key with a cutoff",
                Box::new(|c| {
                    new_root(c);
                    c.cutoffs = vec![at(0, 4, hash(4))];
                }),
                4,
            ),
            ("expelled, to be kept", Box::new(|c| c.expulsions = vec![expelled(1, vec![])]), 0),
            ("expelled, kept up to", Box::new(|c| c.expulsions = vec![expelled(1, vec![at(0, 2, hash(2))])]), 2),
            ("expelled and void", Box::new(|c| c.expulsions = vec![expelled(2, vec![at(0, 2, hash(2))])]), 0),
            (
                "another is expelled",
                Box::new(|c| {
                    c.expulsions =
                        vec![proto::Expulsion { member_id: vec![2; 16].into(), policy: 2, ..Default::default() }];
                }),
                5,
            ),
            ("suspended by a charter", Box::new(|c| c.members[0].status = 2), 0),
            (
                "suspended, with a cutoff",
                Box::new(|c| {
                    c.members[0].status = 2;
                    c.cutoffs = vec![at(0, 3, hash(3))];
                }),
                3,
            ),
            ("no longer listed", Box::new(|c| drop(c.members.remove(0))), 0),
        ];
        for (what, change, expected) in cases {
            let mut changed = forum.clone();
            changed.issue(change);
            assert_eq!(prefix(&changed.charter(), &log, log.len(), None), Seq(expected), "{what}");
        }
    }

    /// The log is disputed from block 3 on.
    #[test]
    fn a_cutoff_picks_a_chain_across_a_fork() {
        let forum = TestForum::of_full(2);
        let (blocks, log) = five_blocks(&forum);
        let counts = |seq: u64, hash: [u8; 32], settled: u64| {
            let mut forum = forum.clone();
            forum.issue(|c| {
                c.cutoffs = vec![proto::Cutoff {
                    origin: Some(crate::replica::heads::origin_to_proto(origin(1, 0))),
                    last_seq: seq,
                    last_hash: hash.to_vec().into(),
                }];
            });
            prefix(&forum.charter(), &log, Seq(settled), Some(Seq(3))).0
        };
        assert_eq!(counts(4, blocks[3].hash().0, 2), 4, "the founders' word is above the fork");
        assert_eq!(counts(4, [7; 32], 2), 2, "it picks the other chain: what both have in common");
        assert_eq!(counts(1, [7; 32], 2), 1);
        assert_eq!(counts(9, [7; 32], 2), 2, "nobody knows yet on which chain it lies");
    }

    #[test]
    fn only_former_members_lose_their_votes() {
        let forum = TestForum::with(&[("a", FULL), ("b", FULL), ("c", FULL)], |c| {
            (c.members[1].status, c.members[2].status) = (2, 3);
        });
        let votes: Vec<_> = forum.charter().members.values().map(votes_count).collect();
        assert_eq!(votes, [true, true, false]);
    }

    /// Member 1's normal lane, three records a day.
    #[test]
    fn a_quota_is_taken_in_the_order_of_the_logs() {
        let forum = TestForum::with(&[("a", FULL)], |c| c.policy.as_mut().unwrap().quota_per_day = vec![3, 3, 3]);
        let charter = forum.charter();
        let mut quotas = Quotas::default();
        let room = |quotas: &Quotas, log_no| {
            let mut room = quotas.room(&charter, origin(1, log_no), Class::Normal, 1);
            (0..10).filter(|_| room.take(false)).count()
        };
        let note = |quotas: &mut Quotas, log_no, used| quotas.note(&charter, origin(1, log_no), Class::Normal, 1, used);
        assert_eq!(room(&quotas, 0), 3);
        assert!(note(&mut quotas, 1, [2, 0]), "the first log that is heard of");
        assert_eq!([0, 1, 2].map(|log_no| room(&quotas, log_no)), [3, 1, 1], "a lower log comes before it");
        assert!(note(&mut quotas, 0, [1, 0]), "together they are within");
        assert_eq!([0, 1, 2].map(|log_no| room(&quotas, log_no)), [2, 0, 0]);
        assert!(!note(&mut quotas, 0, [1, 0]), "what log 1 said is beyond it now");
        assert!(note(&mut quotas, 2, [5, 9]), "nothing comes after the last log");
        assert_eq!(quotas.used(id(1), Class::Normal, 1), [9, 9]);
        assert_eq!(quotas.used(id(1), Class::Normal, 2), [0, 0]);
        let mut withdrawals = quotas.room(&charter, origin(1, 2), Class::Normal, 1);
        assert!(!withdrawals.take(true), "nine were withdrawn");
    }

    #[test]
    fn a_quota_does_not_wrap() {
        let charter = TestForum::of(&[("a", FULL)]).charter();
        let mut quotas = Quotas::default();
        quotas.note(&charter, origin(1, 0), Class::Normal, 1, [u32::MAX; 2]);
        quotas.note(&charter, origin(1, 0), Class::Normal, 1, [u32::MAX; 2]);
        assert_eq!(quotas.used(id(1), Class::Normal, 1), [u32::MAX; 2]);
        assert!(!quotas.room(&charter, origin(1, 1), Class::Normal, 1).take(false));
    }
}
