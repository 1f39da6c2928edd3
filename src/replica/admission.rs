//! The forum's shared rules of who may say what, and how much of it: the same answer on every node (PROTOCOL
//! section 2 Roles, section 5 layers 3 and 4).

use std::collections::BTreeMap;

use super::charter::{Charter, ExpulsionPolicy, Member, MemberStatus, Roles};
use super::ids::{Class, KeyId, LogNo, MemberId, Origin, Seq};
use super::log::Log;
use super::record::Statement;

/// Whether `roles` may make `statement`. Inert otherwise.
pub fn may_say(roles: Roles, statement: &Statement) -> bool {
    let allowed = match statement {
        Statement::LogOpen(_) | Statement::LogClose => return true,
        Statement::Opinion(_) => Roles::FULL.and(Roles::SMALL),
        Statement::Retract { .. } => Roles::FULL,
        Statement::Allow { .. } => Roles::CERTIFIER,
        Statement::Referral { .. } => Roles::REFERRAL,
        Statement::Incident { .. } => Roles::FULL.and(Roles::STEWARD),
        Statement::Evidence => return !(roles == Roles::STEWARD),
    };
    roles.has_any(allowed)
}

/// How many blocks of `log` the charter lets count (layer 3, after forks were cut): all, up to a cutoff, or none.
pub fn prefix(charter: &Charter, log: &Log) -> Seq {
    let origin = log.origin();
    let Some(member) = charter.member(origin.member) else { return Seq(0) };
    let expulsion = charter.expulsions.get(&origin.member);
    if expulsion == Some(&ExpulsionPolicy::Void) {
        return Seq(0);
    }
    let Some(cutoff) = charter.cutoffs.get(&origin) else {
        // Logs of an expelled member, and logs opened under a root key that was replaced, count only where listed.
        let current = log.opening().root_key_id == KeyId::of(member.root_key.as_bytes());
        return if current && expulsion.is_none() { log.len() } else { Seq(0) };
    };
    match log.hash_at(cutoff.seq) {
        Some(hash) if hash != cutoff.hash => Seq(0), // the cutoff picks the other chain
        _ => log.len().min(cutoff.seq),
    }
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

    /// What `member` has used on `day` in `class`: `[statements, withdrawals]`.
    pub fn used(&self, member: MemberId, class: Class, day: u64) -> [u32; 2] {
        let mut sum = [0_u32; 2];
        for used in self.days.get(&(member, class, day)).iter().flat_map(|d| d.by_log.values()) {
            sum = [sum[0].saturating_add(used[0]), sum[1].saturating_add(used[1])];
        }
        sum
    }
}
