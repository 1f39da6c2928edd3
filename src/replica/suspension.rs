//! A steward cuts a member off within a second, for some days at most; only a charter makes it permanent (PROTOCOL
//! section 5, layer 3).
//!
//! Suspensions are read from the logs' prefixes as they are *before* suspensions: two stewards that suspend each other
//! are both suspended, on every node.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::charter::{Charter, Roles};
use super::ids::{BlockId, Head, LogNo, MemberId, Origin, Seq, TimeMs};
use super::image::{self, kept};
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

    /// For the snapshot file.
    pub(super) fn image(&self) -> (Vec<kept::Suspended>, Vec<kept::SuspendedOnDay>) {
        let said = self.by_steward.iter().flat_map(|(steward, said)| said.iter().map(move |said| (steward, said)));
        let suspended = said.map(|(steward, ((time, log_no, seq, index), said))| kept::Suspended {
            steward: Bytes::copy_from_slice(&steward.0),
            time_ms: time.0,
            log_no: log_no.0,
            seq: seq.0,
            index: u32::try_from(*index).unwrap_or(u32::MAX),
            target: Bytes::copy_from_slice(&said.target.0),
            marks: said.marks.iter().map(|(origin, head)| image::place(*origin, *head)).collect(),
            until_ms: said.until.0,
        });
        let day = self.day.iter().map(|((by, day), made)| kept::SuspendedOnDay {
            by: Bytes::copy_from_slice(&by.to_bytes()),
            day: *day,
            made: *made,
        });
        (suspended.collect(), day.collect())
    }

    /// The inverse of [`Suspensions::image`]; `None` if something has the wrong length.
    pub(super) fn of_image(suspended: &[kept::Suspended], days: &[kept::SuspendedOnDay]) -> Option<Self> {
        let mut all = Self::default();
        for said in suspended {
            let rank = (TimeMs(said.time_ms), LogNo(said.log_no), Seq(said.seq), said.index as usize);
            let target = MemberId::from_slice(&said.target)?;
            let marks = said.marks.iter().map(image::head_of).collect::<Option<_>>()?;
            let suspension = Suspension { target, marks, until: TimeMs(said.until_ms) };
            let steward = MemberId::from_slice(&said.steward)?;
            all.by_steward.entry(steward).or_default().insert(rank, suspension);
        }
        for day in days {
            all.day.insert((Origin::from_bytes(day.by[..].try_into().ok()?), day.day), day.made);
        }
        Some(all)
    }

    /// Those in blocks of a time before `end`.
    pub fn said_before(&self, end: TimeMs) -> Self {
        let before = |said: &BTreeMap<Rank, Suspension>| {
            said.iter().filter(|((time, ..), _)| *time < end).map(|(rank, said)| (*rank, said.clone())).collect()
        };
        let by_steward = self.by_steward.iter().map(|(steward, said)| (*steward, before(said))).collect();
        Self { by_steward, ..Self::default() }
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
            let may = charter.member(*steward).is_some_and(|m| m.is_active() && m.roles.has(Roles::STEWARD));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::ids::{Class, HeaderHash};
    use crate::replica::proto;
    use crate::replica::signed::Keyring;
    use crate::replica::testing::{FULL, START, STEWARD, TestForum, TestLog, id, origin, suspend};

    /// Members 1 and 2 are stewards, 3 to 8 are not.
    struct World {
        forum: TestForum,
        ring: Keyring,
        logs: BTreeMap<u8, TestLog>,
        suspensions: Suspensions,
    }

    impl World {
        fn new() -> Self {
            let mut members = vec![("a", STEWARD), ("b", STEWARD | FULL)];
            members.extend(["c", "d", "e", "f", "g", "h"].map(|group| (group, FULL)));
            let forum = TestForum::with(&members, |c| c.semantics = 2);
            let ring = forum.keyring();
            Self { forum, ring, logs: BTreeMap::new(), suspensions: Suspensions::default() }
        }

        fn says(&mut self, steward: u8, target: u8, until: TimeMs) -> BlockId {
            let log = self.logs.entry(steward).or_insert_with(|| self.forum.log(steward, 0, Class::Urgent));
            let block = log.block(&mut self.ring, &[suspend(target, &[], until)]);
            self.suspensions.note(&block);
            block.id()
        }

        fn in_force(&self, hour: TimeMs) -> Vec<MemberId> {
            self.in_force_where(hour, |_| true, |_| ())
        }

        fn in_force_where(
            &self,
            hour: TimeMs,
            counts: impl Fn(BlockId) -> bool,
            change: impl FnOnce(&mut proto::Charter),
        ) -> Vec<MemberId> {
            let mut forum = self.forum.clone();
            forum.issue(change);
            self.suspensions.in_force(&forum.charter(), hour, counts).into_keys().collect()
        }
    }

    fn days(count: u64) -> TimeMs {
        START.plus(count * TimeMs::DAY_MS)
    }

    #[test]
    fn a_suspension_ends_with_the_hour_in_which_its_time_comes() {
        let mut world = World::new();
        world.says(1, 3, days(1).plus(1));
        assert_eq!(world.in_force(START), [id(3)]);
        assert_eq!(world.in_force(days(1)), [id(3)]);
        assert!(world.in_force(days(1).plus(TimeMs::HOUR_MS)).is_empty());
    }

    #[test]
    fn what_is_told_of_the_past_knows_no_later_suspension() {
        let mut world = World::new();
        world.says(1, 3, days(2));
        world.logs.get_mut(&1).unwrap().time = days(1);
        world.says(1, 4, days(3));
        let said_before = |end: TimeMs| {
            let suspensions = world.suspensions.said_before(end);
            suspensions.in_force(&world.forum.charter(), end, |_| true).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(said_before(START), []);
        assert_eq!(said_before(days(1)), [id(3)], "the second is said at the end itself");
        assert_eq!(said_before(days(1).plus(TimeMs::HOUR_MS)), [id(3), id(4)]);
        assert_eq!(said_before(days(2)), [id(4)]);
        assert_eq!(world.in_force(days(2)), [id(4)]);
    }

    #[test]
    fn a_suspension_lasts_14_days_at_most() {
        let mut world = World::new();
        assert_eq!(SUSPENSION_DAYS_MAX, 14);
        world.says(1, 3, days(14));
        world.says(1, 4, days(15));
        assert_eq!(world.in_force(START), [id(3)]);
    }

    #[test]
    fn only_active_stewards_suspend_and_only_from_level_2_on() {
        let mut world = World::new();
        world.says(3, 4, days(1));
        assert!(world.in_force(START).is_empty());
        world.says(1, 4, days(1));
        assert!(world.in_force_where(START, |_| true, |c| c.members[0].status = 2).is_empty());
        assert!(world.in_force_where(START, |_| true, |c| c.members[0].roles = FULL).is_empty());
        assert!(world.in_force_where(START, |_| true, |c| c.semantics = 1).is_empty());
        assert!(world.in_force_where(START, |_| false, |_| ()).is_empty(), "its block does not count");
    }

    #[test]
    fn stewards_who_suspend_each_other_are_both_suspended() {
        let mut world = World::new();
        world.says(1, 2, days(1));
        world.says(2, 1, days(1));
        assert_eq!(world.in_force(START), [id(1), id(2)]);
    }

    #[test]
    fn one_steward_reaches_a_third_of_the_others_the_earliest_first() {
        let mut world = World::new();
        let blocks: Vec<_> = (3..=6).map(|target| world.says(1, target, days(u64::from(target)))).collect();
        assert_eq!(world.in_force(START), [id(3), id(4)], "seven others: two at a time");
        assert_eq!(world.in_force(days(3)), [id(4), id(5)], "the first has ended");
        assert_eq!(world.in_force_where(START, |b| b != blocks[0], |_| ()), [id(4), id(5)]);
        world.says(2, 7, days(1));
        assert_eq!(world.in_force(START), [id(3), id(4), id(7)], "another steward has a third of its own");
        let alone = |c: &mut proto::Charter| c.members[2..].iter_mut().for_each(|m| m.status = 2);
        assert_eq!(world.in_force_where(START, |_| true, alone).len(), 2, "one at least, each");
    }

    #[test]
    fn several_suspensions_of_one_member_hide_what_any_of_them_hides() {
        let mut world = World::new();
        let head = Head { seq: Seq(7), hash: HeaderHash([7; 32]) };
        let mut log = world.forum.log(1, 0, Class::Normal);
        let records = [suspend(3, &[(origin(3, 0), head)], days(1)), suspend(3, &[], days(2))];
        let block = log.block(&mut world.ring, &records);
        world.suspensions.note(&block);
        let suspended = world.suspensions.in_force(&world.forum.charter(), START, |_| true);
        let suspended = &suspended[&id(3)];
        assert_eq!(suspended.marks(origin(3, 0)).collect::<Vec<_>>(), [Some(head), None]);
        assert_eq!(suspended.until, days(2));
    }

    #[test]
    fn a_log_of_a_steward_makes_64_suspensions_a_day() {
        let mut world = World::new();
        assert_eq!(SUSPENSIONS_PER_DAY, 64);
        for n in 0..70 {
            world.says(1, 3, days(1).plus(n));
        }
        assert_eq!(world.suspensions.by_steward[&id(1)].len(), 64);
    }
}
