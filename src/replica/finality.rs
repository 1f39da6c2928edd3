//! What two thirds of the members attested stays, whoever signs its places again (PROTOCOL section 5, layer 2).
//!
//! Only logs with a proof need this: of any other, the whole chain counts. So attestations are kept for convicted logs
//! alone, and collected from the stored blocks when a log is convicted. What comes out is a function of the set of
//! blocks, of the charter and of the proofs: never of what arrived first.

use std::collections::{BTreeMap, BTreeSet};

use super::admission;
use super::charter::{Charter, Member, MemberStatus, Roles};
use super::forks::Proofs;
use super::ids::{Head, HeaderHash, LogNo, MemberId, Origin, Seq, TimeMs};
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

/// Everything that decides about finality but the attestations.
#[derive(Clone, Copy)]
pub struct Law<'a> {
    /// The charter in force.
    pub charter: &'a Charter,
    /// Proofs held.
    pub proofs: &'a Proofs,
    /// Logs held.
    pub logs: &'a BTreeMap<Origin, Log>,
}

impl Attests {
    /// Takes in what `block` attests of the logs of `convicted`; tells of which ones it said anything. Blocks of one log
    /// must come in their order.
    pub fn note(&mut self, block: &VerifiedBlock, convicted: impl Fn(Origin) -> bool) -> BTreeSet<Origin> {
        let header = block.header();
        let (by, seq, time) = (header.id.origin, header.id.seq, header.time);
        let mut told = BTreeSet::new();
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
                told.insert(*origin);
            }
        }
        told
    }

    /// How far the chain that `at` gives by place is final: the longest prefix that two thirds of the voters support.
    ///
    /// A voter supports a chain as far as its attestations lie on it, in their order, up to the first that does not. Two
    /// chains differ from some place on, and nobody's word on that place is on both: no voter supports both beyond it.
    pub fn finality(&self, law: Law<'_>, origin: Origin, at: impl Fn(Seq) -> Option<HeaderHash>) -> Seq {
        if law.charter.semantics < 2 {
            return Seq(0);
        }
        let voters = voters(law.charter, origin);
        let needed = 2 * voters.len() / 3 + 1;
        let mut heights: Vec<_> = voters.values().map(|group| self.height(law, origin, group, &at)).collect();
        heights.sort_unstable_by(|a, b| b.cmp(a));
        heights.get(needed - 1).copied().unwrap_or(Seq(0))
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

    /// The highest place of `origin` that enough voters attested, whichever chain they meant: another chain than ours is
    /// worth asking for up to there, and no single liar can make it higher.
    pub fn reach(&self, law: Law<'_>, origin: Origin) -> Seq {
        let Some(attested) = self.of.get(&origin).filter(|_| law.charter.semantics >= 2) else { return Seq(0) };
        let voters = voters(law.charter, origin);
        let highest = |member: &MemberId| attested.get(member).and_then(|w| w.values().map(|head| head.seq).max());
        let mut heights: Vec<_> = voters.values().filter_map(|g| g.iter().filter_map(highest).max()).collect();
        heights.sort_unstable_by(|a, b| b.cmp(a));
        heights.get(2 * voters.len() / 3).copied().unwrap_or(Seq(0))
    }
}

/// Groups that vote on `origin`, with their members: those of active FULL members, and of auditors where the charter
/// says so, but for the owner's. Convictions do not make them fewer.
fn voters(charter: &Charter, origin: Origin) -> BTreeMap<&str, Vec<MemberId>> {
    let owner = charter.member(origin.member).map(|m| m.group.as_str());
    let votes = |m: &&Member| {
        let auditor = charter.policy.auditors_attest && m.roles.has(Roles::AUDITOR);
        m.status == MemberStatus::Active && (m.roles.has(Roles::FULL) || auditor) && Some(m.group.as_str()) != owner
    };
    let mut voters: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for member in charter.members.values().filter(votes) {
        voters.entry(member.group.as_str()).or_default().push(member.id);
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
