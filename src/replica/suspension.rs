//! A steward cuts a member off within a second, for some days at most; only a charter makes it permanent (PROTOCOL
//! section 5, layer 3).
//!
//! Suspensions are read from the logs' prefixes as they are *before* suspensions: two stewards that suspend each other
//! are both suspended, on every node.

use std::collections::{BTreeMap, BTreeSet};

use super::charter::{Charter, MemberStatus, Roles};
use super::ids::{BlockId, Head, LogNo, MemberId, Origin, Seq, TimeMs};
use super::record::{Parsed, Statement};
use super::signed::VerifiedBlock;

/// A suspension ends at most so many days after the time of its block.
pub const SUSPENSION_DAYS_MAX: u64 = 14;
/// Suspensions that one log of a steward may make on one UTC day; more are not read.
pub const SUSPENSIONS_PER_DAY: u32 = 64;

/// Suspensions are read in this order; the last field is the record's place in its block.
type Rank = (TimeMs, LogNo, Seq, usize);

/// One steward's word on one member.
#[derive(Clone, Debug)]
struct Suspension {
    target: MemberId,
    marks: BTreeMap<Origin, Head>,
    until: TimeMs,
}

/// All suspensions in the blocks held.
#[derive(Clone, Debug, Default)]
pub struct Suspensions {
    by_steward: BTreeMap<MemberId, BTreeMap<Rank, Suspension>>,
    day: BTreeMap<(Origin, u64), u32>,
}

/// What a suspended member still has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspended {
    /// What of its logs counts, one set a suspension: a log counts up to the lowest.
    marks: Vec<BTreeMap<Origin, Head>>,
    /// When the last one ends: a full hour.
    pub until: TimeMs,
}

impl Suspended {
    /// The marks of `origin`: `None` hides it wholly.
    pub fn marks(&self, origin: Origin) -> impl Iterator<Item = Option<Head>> + '_ {
        self.marks.iter().map(move |marks| marks.get(&origin).copied())
    }
}

impl Suspensions {
    /// Takes in what `block` suspends; tells whether it suspends anybody. Blocks of one log must come in their order.
    pub fn note(&mut self, block: &VerifiedBlock) -> bool {
        let header = block.header();
        let origin = header.id.origin;
        let mut any = false;
        for (index, record) in block.records().iter().enumerate() {
            let Parsed::Says(Statement::Suspend { member, marks, until, .. }) = record else { continue };
            let made = self.day.entry((origin, header.time.day())).or_default();
            *made += 1;
            let latest = header.time.plus(SUSPENSION_DAYS_MAX * TimeMs::DAY_MS);
            if *made > SUSPENSIONS_PER_DAY || *until > latest {
                continue;
            }
            let rank = (header.time, origin.log_no, header.id.seq, index);
            let said = Suspension { target: *member, marks: marks.clone(), until: end(*until) };
            self.by_steward.entry(origin.member).or_default().insert(rank, said);
            any = true;
        }
        any
    }

    /// Who is suspended at the full hour `hour`, given which blocks count before suspensions do.
    ///
    /// One steward reaches at most a third of the other active members at a time, the earliest first: whoever steals a
    /// steward's key does not stop the forum.
    pub fn in_force(
        &self,
        charter: &Charter,
        hour: TimeMs,
        counts: impl Fn(BlockId) -> bool,
    ) -> BTreeMap<MemberId, Suspended> {
        let mut all: BTreeMap<MemberId, Suspended> = BTreeMap::new();
        if charter.semantics < 2 {
            return all;
        }
        for (steward, said) in &self.by_steward {
            let may = charter
                .member(*steward)
                .is_some_and(|m| m.status == MemberStatus::Active && m.roles.has(Roles::STEWARD));
            if !may {
                continue;
            }
            let reach = reach(charter);
            let mut targets = BTreeSet::new();
            for ((_, log_no, seq, _), suspension) in said {
                let block = BlockId { origin: Origin { member: *steward, log_no: *log_no }, seq: *seq };
                if suspension.until <= hour || !counts(block) {
                    continue;
                }
                if !targets.contains(&suspension.target) && targets.len() >= reach {
                    continue;
                }
                targets.insert(suspension.target);
                let suspended = all
                    .entry(suspension.target)
                    .or_insert_with(|| Suspended { marks: Vec::new(), until: suspension.until });
                suspended.marks.push(suspension.marks.clone());
                suspended.until = suspended.until.max(suspension.until);
            }
        }
        all
    }
}

/// How many members one steward can suspend at a time.
fn reach(charter: &Charter) -> usize {
    (charter.active().count().saturating_sub(1) / 3).max(1)
}

/// A suspension ends with a full hour: the view is compared by hours.
fn end(until: TimeMs) -> TimeMs {
    let hour = until.hour();
    if hour == until { hour } else { hour.plus(TimeMs::HOUR_MS) }
}
