//! What two thirds of the members attested stays, whoever signs its places again (PROTOCOL section 5, layer 2).
//!
//! Only logs with a proof need this: of any other, the whole chain counts. So attestations are kept for convicted logs
//! alone, and collected from the stored blocks when a log is convicted. What comes out is a function of the set of
//! blocks, of the charter and of the proofs: never of what arrived first.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::admission;
use super::charter::{Charter, Member, Roles};
use super::forks::Proofs;
use super::ids::{Head, HeaderHash, LogNo, MemberId, Origin, Seq, TimeMs};
use super::image::kept;
use super::log::Log;
use super::record::{Parsed, Statement};
use super::signed::VerifiedBlock;

/// Attestations of one log that one log of a voter may make on one UTC day: one a minute. More are not read.
pub const ATTESTS_PER_DAY: u32 = 1_440;

/// A voter's attestations are read in this order; the last field is the head's place in its record.
type Rank = (TimeMs, LogNo, Seq, usize, usize);

/// What members attested of the convicted logs.
#[derive(Clone, Debug, Default)]
pub struct Attests {
    of: BTreeMap<Origin, BTreeMap<MemberId, BTreeMap<Rank, Head>>>,
    /// How many a voter's log made of a log on a day.
    day: BTreeMap<(Origin, Origin, u64), u32>,
}

/// What voters make of one chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finality {
    /// The longest prefix that two thirds support.
    pub last: Seq,
    /// The highest place that anybody supports: whoever holds less of the chain cannot tell what is final.
    pub highest: Seq,
}

/// Everything that decides about finality but the attestations.
#[derive(Clone, Copy)]
pub struct Law<'a> {
    /// The charter in force.
    pub charter: &'a Charter,
    /// Proofs held.
    pub proofs: &'a Proofs,
    /// Logs held.
    pub logs: &'a BTreeMap<Origin, Log>,
    /// For the wrong rule "voters are members" only.
    pub by_member: bool,
}

impl Attests {
    /// Takes in what `block` attests of the logs that `proofs` convict; tells whether it said anything. Blocks of one log
    /// must come in their order.
    pub fn note(&mut self, block: &VerifiedBlock, proofs: &Proofs) -> bool {
        let convicted = |origin: Origin| proofs.fork(origin).is_some();
        let header = block.header();
        let (by, seq, time) = (header.id.origin, header.id.seq, header.time);
        let mut told = false;
        for (index, record) in block.records().iter().enumerate() {
            let Parsed::Says(Statement::Attest { heads }) = record else { continue };
            for (place, (origin, head)) in heads.iter().enumerate().filter(|(_, (origin, _))| convicted(*origin)) {
                let made = self.day.entry((by, *origin, time.day())).or_default();
                *made += 1;
                if *made > ATTESTS_PER_DAY {
                    continue;
                }
                let voter = self.of.entry(*origin).or_default().entry(by.member).or_default();
                voter.insert((time, by.log_no, seq, index, place), *head);
                told = true;
            }
        }
        told
    }

    /// For the snapshot file.
    pub(super) fn image(&self) -> (Vec<kept::Attested>, Vec<kept::AttestedOnDay>) {
        let words = self.of.iter().flat_map(|(origin, voters)| {
            voters
                .iter()
                .flat_map(move |(member, heads)| heads.iter().map(move |(rank, head)| (origin, member, rank, head)))
        });
        let attested = words.map(|(origin, member, (time, log_no, seq, index, place), head)| kept::Attested {
            origin: Bytes::copy_from_slice(&origin.to_bytes()),
            member: Bytes::copy_from_slice(&member.0),
            time_ms: time.0,
            log_no: log_no.0,
            seq: seq.0,
            index: u32::try_from(*index).unwrap_or(u32::MAX),
            place: u32::try_from(*place).unwrap_or(u32::MAX),
            head_seq: head.seq.0,
            head_hash: Bytes::copy_from_slice(&head.hash.0),
        });
        let day = self.day.iter().map(|((by, origin, day), made)| kept::AttestedOnDay {
            by: Bytes::copy_from_slice(&by.to_bytes()),
            origin: Bytes::copy_from_slice(&origin.to_bytes()),
            day: *day,
            made: *made,
        });
        (attested.collect(), day.collect())
    }

    /// The inverse of [`Attests::image`]; `None` if something has the wrong length.
    pub(super) fn of_image(attested: &[kept::Attested], days: &[kept::AttestedOnDay]) -> Option<Self> {
        let mut all = Self::default();
        for word in attested {
            let origin = Origin::from_bytes(word.origin[..].try_into().ok()?);
            let member = MemberId::from_slice(&word.member)?;
            let rank =
                (TimeMs(word.time_ms), LogNo(word.log_no), Seq(word.seq), word.index as usize, word.place as usize);
            let head = Head { seq: Seq(word.head_seq), hash: HeaderHash::from_slice(&word.head_hash)? };
            all.of.entry(origin).or_default().entry(member).or_default().insert(rank, head);
        }
        for day in days {
            let origin = |bytes: &[u8]| Some(Origin::from_bytes(bytes.try_into().ok()?));
            all.day.insert((origin(&day.by)?, origin(&day.origin)?, day.day), day.made);
        }
        Some(all)
    }

    /// How far the chain that `at` gives by place is final: the longest prefix that two thirds of the voters support.
    ///
    /// A voter supports a chain as far as its attestations lie on it, in their order, up to the first that does not. Two
    /// chains differ from some place on, and nobody's word on that place is on both: no voter supports both beyond it.
    pub fn finality(&self, law: Law<'_>, origin: Origin, at: impl Fn(Seq) -> Option<HeaderHash>) -> Finality {
        if law.charter.semantics < 2 {
            return Finality::default();
        }
        let voters = voters(law, origin);
        let needed = 2 * voters.len() / 3 + 1;
        let mut heights: Vec<_> = voters.values().map(|group| self.height(law, origin, group, &at)).collect();
        heights.sort_unstable_by(|a, b| b.cmp(a));
        let height = |place: usize| heights.get(place).copied().unwrap_or(Seq(0));
        Finality { last: height(needed - 1), highest: height(0) }
    }

    /// How far the members of one group, taken as one voter (I16), support a chain.
    fn height(&self, law: Law<'_>, origin: Origin, group: &[MemberId], at: &impl Fn(Seq) -> Option<HeaderHash>) -> Seq {
        let Some(attested) = self.of.get(&origin) else { return Seq(0) };
        let words = group.iter().filter_map(|member| Some((*member, attested.get(member)?)));
        let mut words: Vec<_> = words
            .flat_map(|(member, heads)| heads.iter().map(move |(rank, head)| (*rank, member, *head)))
            .filter(|(rank, member, _)| is_read(law, Origin { member: *member, log_no: rank.1 }, rank.2))
            .collect();
        words.sort_unstable();
        let mut height = Seq(0);
        for (_, _, head) in words {
            if at(head.seq) != Some(head.hash) {
                break;
            }
            height = height.max(head.seq);
        }
        height
    }

    /// The highest place of `origin` that any voter attested, whichever chain it meant: another chain than ours is worth
    /// asking for up to there, if enough voters attested anything from `fork` on.
    pub fn reach(&self, law: Law<'_>, origin: Origin, fork: Seq) -> Seq {
        let Some(attested) = self.of.get(&origin).filter(|_| law.charter.semantics >= 2) else { return Seq(0) };
        let voters = voters(law, origin);
        let highest = |member: &MemberId| attested.get(member).and_then(|w| w.values().map(|head| head.seq).max());
        let heights = voters.values().filter_map(|g| g.iter().filter_map(highest).max()).filter(|seq| *seq >= fork);
        let heights: Vec<_> = heights.collect();
        if heights.len() > 2 * voters.len() / 3 { heights.into_iter().max().unwrap_or(Seq(0)) } else { Seq(0) }
    }
}

/// Groups that vote on `origin`, with their members: those of active FULL members, and of auditors where the charter
/// says so, but for the owner's. Convictions do not make them fewer.
fn voters(law: Law<'_>, origin: Origin) -> BTreeMap<&str, Vec<MemberId>> {
    let charter = law.charter;
    let owner = charter.member(origin.member).map(|m| m.group.as_str());
    let votes = |m: &&Member| {
        let auditor = charter.policy.auditors_attest && m.roles.has(Roles::AUDITOR);
        m.is_active() && (m.roles.has(Roles::FULL) || auditor) && Some(m.group.as_str()) != owner
    };
    let mut voters: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for member in charter.members.values().filter(votes) {
        let voter = if law.by_member { member.name.as_str() } else { member.group.as_str() };
        voters.entry(voter).or_default().push(member.id);
    }
    voters
}

/// A voter's word is read below its own log's forks, and as far as the charter lets that log count.
fn is_read(law: Law<'_>, by: Origin, seq: Seq) -> bool {
    let Some(log) = law.logs.get(&by) else { return false };
    let fork = law.proofs.fork_of(log);
    let below = fork.map_or(log.len(), Seq::previous);
    seq <= below.min(admission::prefix(law.charter, log, below, fork))
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]
mod tests {
    use super::*;
    use crate::replica::forks::fork_proof;
    use crate::replica::ids::Class;
    use crate::replica::proto;
    use crate::replica::signed::Keyring;
    use crate::replica::testing::{
        AUDITOR, FULL, SMALL, TestForum, TestLog, attest, header_of, opinion, origin, verified_header,
    };

    /// Member 1 wrote two chains that part after block 3; the others attest.
    struct World {
        forum: TestForum,
        ring: Keyring,
        voters: BTreeMap<u8, TestLog>,
        logs: BTreeMap<Origin, Log>,
        proofs: Proofs,
        attests: Attests,
        ours: Vec<VerifiedBlock>,
        theirs: Vec<VerifiedBlock>,
    }

    impl World {
        fn of(members: &[(&str, u32)], change: impl FnOnce(&mut proto::Charter)) -> Self {
            let forum = TestForum::with(members, |c| {
                c.semantics = 2;
                change(c);
            });
            let mut ring = forum.keyring();
            let mut log = forum.log(1, 0, Class::Normal);
            let mut ours: Vec<_> = (1..=3).map(|n| log.block(&mut ring, &[opinion(n, 1)])).collect();
            let (mut other, mut theirs) = (log.clone(), ours.clone());
            ours.extend((4..=6).map(|n| log.block(&mut ring, &[opinion(n, 1)])));
            theirs.extend((4..=6).map(|n| other.block(&mut ring, &[opinion(n, 3)])));
            let mut proofs = Proofs::default();
            let header = |b: &VerifiedBlock| verified_header(&ring, b.frame(), &log.opening);
            proofs.add(fork_proof(&header(&ours[3]), &header(&theirs[3])).unwrap());
            let (voters, logs, attests) = Default::default();
            Self { forum, ring, voters, logs, proofs, attests, ours, theirs }
        }

        /// Member 1 and four others, each a group of its own: three of the four are needed.
        fn five() -> Self {
            Self::of(&[("a", FULL), ("b", FULL), ("c", FULL), ("d", FULL), ("e", FULL)], |_| ())
        }

        /// `voter` attests `(on our chain?, place)`, one block each.
        fn says(&mut self, voter: u8, words: &[(bool, u64)]) -> &mut Self {
            for (ours, seq) in words {
                let chain = if *ours { &self.ours } else { &self.theirs };
                let head = Head { seq: Seq(*seq), hash: chain[*seq as usize - 1].hash() };
                let log = self.voters.entry(voter).or_insert_with(|| self.forum.log(voter, 0, Class::Normal));
                let block = log.block(&mut self.ring, &[attest(&[(origin(1, 0), head)])]);
                let log = self.logs.entry(block.id().origin).or_insert_with(|| Log::open(&block).unwrap());
                log.extend(&block, &self.ring);
                self.attests.note(&block, &self.proofs);
            }
            self
        }

        /// How far both chains are final.
        fn final_on_both(&self) -> (u64, u64) {
            let charter = self.forum.charter();
            let law = Law { charter: &charter, proofs: &self.proofs, logs: &self.logs, by_member: false };
            let at = |chain: &[VerifiedBlock], seq: Seq| chain.get(seq.0 as usize - 1).map(VerifiedBlock::hash);
            let on = |chain: &[VerifiedBlock]| self.attests.finality(law, origin(1, 0), |seq| at(chain, seq)).last.0;
            (on(&self.ours), on(&self.theirs))
        }

        fn reach(&self) -> u64 {
            let charter = self.forum.charter();
            let law = Law { charter: &charter, proofs: &self.proofs, logs: &self.logs, by_member: false };
            self.attests.reach(law, origin(1, 0), Seq(4)).0
        }
    }

    #[test]
    fn two_thirds_of_the_other_groups_make_a_prefix_final() {
        let mut world = World::five();
        world.says(2, &[(true, 5)]).says(3, &[(true, 2), (true, 6)]);
        assert_eq!((world.final_on_both(), world.reach()), ((0, 0), 0), "two of four");
        world.says(4, &[(true, 4)]);
        assert_eq!((world.final_on_both(), world.reach()), ((4, 0), 6), "three of four, and the lowest of them counts");
        world.says(5, &[(false, 6)]);
        assert_eq!((world.final_on_both(), world.reach()), ((4, 0), 6), "whatever the fourth says");
    }

    #[test]
    fn a_voter_supports_the_chain_that_it_named_first() {
        let mut world = World::five();
        world.says(2, &[(true, 5)]).says(3, &[(true, 5)]).says(4, &[(false, 4), (true, 6)]);
        assert_eq!(world.final_on_both(), (0, 0));
        let mut world = World::five();
        world.says(2, &[(true, 5)]).says(3, &[(true, 5)]).says(4, &[(true, 5), (false, 6)]);
        assert_eq!(world.final_on_both(), (5, 0));
        let mut world = World::five();
        world.says(2, &[(true, 3), (false, 6)]).says(3, &[(true, 2), (false, 5)]).says(4, &[(false, 4)]);
        assert_eq!(world.final_on_both(), (0, 4), "below the fork both are one chain");
    }

    #[test]
    fn the_owner_and_its_group_have_no_vote_and_a_group_has_one() {
        let mut world = World::of(&[("a", FULL), ("a", FULL), ("b", FULL), ("b", FULL), ("c", FULL)], |_| ());
        world.says(2, &[(true, 5)]).says(3, &[(true, 5)]).says(4, &[(true, 6)]);
        assert_eq!(world.final_on_both(), (0, 0), "one group of two");
        world.says(5, &[(true, 4)]);
        assert_eq!(world.final_on_both(), (4, 0));
    }

    #[test]
    fn small_members_and_former_ones_have_no_vote_and_auditors_where_the_charter_says_so() {
        let members = [("a", FULL), ("b", FULL), ("c", SMALL), ("d", AUDITOR), ("e", FULL)];
        let attested = |change: fn(&mut proto::Charter)| {
            let mut world = World::of(&members, change);
            for voter in 2..=4 {
                world.says(voter, &[(true, 5)]);
            }
            world.final_on_both()
        };
        assert_eq!(attested(|_| ()), (0, 0), "one of two");
        assert_eq!(attested(|c| c.members[4].status = 3), (5, 0), "one of one");
        assert_eq!(attested(|c| c.policy.as_mut().unwrap().auditors_attest = true), (0, 0), "two of three");
        let both = |c: &mut proto::Charter| {
            c.members[4].status = 2;
            c.policy.as_mut().unwrap().auditors_attest = true;
        };
        assert_eq!(attested(both), (5, 0), "two of two");
    }

    #[test]
    fn what_a_voter_says_after_its_own_fork_is_not_read() {
        let mut world = World::five();
        world.says(2, &[(true, 5)]).says(3, &[(true, 5)]).says(4, &[(true, 4), (true, 6)]);
        assert_eq!(world.final_on_both(), (5, 0));
        let log = &world.voters[&4];
        let [a, b] = [1, 2].map(|n| log.draft(&[opinion(n, 1)], |h| h.id.seq = Seq(2)));
        let header = |f| world.ring.verify_header(&header_of(f, &log.opening)).unwrap();
        let proof = fork_proof(&header(&a), &header(&b)).unwrap();
        world.proofs.add(proof);
        assert_eq!(world.final_on_both(), (4, 0));
    }

    #[test]
    fn below_level_2_and_without_voters_nothing_is_final() {
        let mut world = World::of(&[("a", FULL), ("b", FULL)], |c| c.semantics = 1);
        world.says(2, &[(true, 5)]);
        assert_eq!((world.final_on_both(), world.reach()), ((0, 0), 0));
        let world = World::of(&[("a", FULL), ("a", FULL)], |_| ());
        assert_eq!((world.final_on_both(), world.reach()), ((0, 0), 0));
    }

    #[test]
    fn a_voter_is_heard_once_a_minute() {
        let mut world = World::five();
        assert_eq!(ATTESTS_PER_DAY, 1_440);
        let head = Head { seq: Seq(1), hash: world.ours[0].hash() };
        let words: Vec<_> = (0..40).map(|_| (origin(1, 0), head)).collect();
        let mut log = world.forum.log(2, 0, Class::Normal);
        for _ in 0..40 {
            let block = log.block(&mut world.ring, &[attest(&words)]);
            world.attests.note(&block, &world.proofs);
        }
        assert_eq!(world.attests.of[&origin(1, 0)].values().map(BTreeMap::len).sum::<usize>(), 1_440);
    }
}
