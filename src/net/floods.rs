//! The flood breaker in lookups and in the review queue. What is a flood, `policy/breaker.rs` decides; what becomes of the
//! verdict, `Policy::decide`.

use std::collections::BTreeMap;

use crate::policy::breaker::{Breaker, Limits, Tally, Trip};
use crate::replica::Replica;
use crate::replica::ids::{MemberId, TimeMs};
use crate::replica::signal::{self, Subject};
use crate::replica::view::Entry;
use crate::wire::local as l;

/// Owners of full members behind an entry of an open incident that keep its BLOCK in a flood. During an attack everybody
/// uploads the same video: that flood is the reason why it is on the list. One company alone could tie a harmless
/// template to an incident.
const INCIDENT_GROUPS_MIN: u32 = 2;

/// Counts one lookup that matched `entries`, each signal once, and tells of each whether it is flooding: then it has
/// nothing blocked by itself.
pub(super) fn count<'e>(
    replica: &Replica,
    breaker: &Breaker,
    limits: &Limits,
    entries: impl Iterator<Item = &'e Entry>,
    now: TimeMs,
) -> Vec<bool> {
    let mut seen: BTreeMap<&Subject, bool> = BTreeMap::new();
    let trip = |entry: &Entry| {
        let listed = entry.said.iter().map(|said| said.time).min().unwrap_or(now);
        breaker.matched(&entry.subject, listed, limits, now)
    };
    let mut of = |entry: &'e Entry| {
        let flooding = || !limits.off && is_flooding(replica, breaker, entry, trip, now);
        *seen.entry(&entry.subject).or_insert_with(flooding)
    };
    entries.map(&mut of).collect()
}

/// The same without counting: for what nobody is uploading, such as a company's archive. Going through one finds the same
/// entry as often as the archive has it, which says nothing of a flood.
pub(super) fn look<'e>(
    replica: &Replica,
    breaker: &Breaker,
    limits: &Limits,
    entries: impl Iterator<Item = &'e Entry>,
    now: TimeMs,
) -> Vec<bool> {
    let trip = |entry: &Entry| breaker.tripped(&entry.subject, now);
    entries.map(|entry| !limits.off && is_flooding(replica, breaker, entry, trip, now)).collect()
}

fn is_flooding(
    replica: &Replica,
    breaker: &Breaker,
    entry: &Entry,
    trip: impl Fn(&Entry) -> Option<Trip>,
    now: TimeMs,
) -> bool {
    // No BLOCK rests on an account, and people come back often.
    if entry.subject.kind() == signal::KIND_ACCOUNT {
        return false;
    }
    let Some(trip) = trip(entry) else { return false };
    if stands_by(replica.me(), entry, trip.at) {
        breaker.keep(&entry.subject, now);
        return false;
    }
    !keeps_its_block(replica, entry, now)
}

/// Whether our company has said since then that it stands behind the entry: that is a decision like "keep".
fn stands_by(me: MemberId, entry: &Entry, tripped: TimeMs) -> bool {
    entry.said.iter().any(|said| said.member == me && said.counts && said.word.supports() && said.time > tripped)
}

fn keeps_its_block(replica: &Replica, entry: &Entry, now: TimeMs) -> bool {
    entry.counts.support >= INCIDENT_GROUPS_MIN && replica.view().in_open_incident(&entry.subject, now)
}

/// A trip as the queue shows it.
pub(super) fn to_proto(replica: &Replica, entry: &Entry, trip: &Trip, now: TimeMs) -> l::Flood {
    l::Flood {
        matches: trip.matches,
        window_ms: trip.window_ms,
        usual: trip.usual,
        matches_since: trip.since,
        until_ms: trip.until.0,
        blocks: keeps_its_block(replica, entry, now),
    }
}

/// What `GetPolicy` says of the breaker.
pub(super) fn breaker_to_proto(limits: &Limits, tally: Tally) -> l::Breaker {
    l::Breaker {
        off: limits.off,
        floor: limits.floor,
        factor: limits.factor,
        window_minutes: limits.window_minutes,
        hold_hours: limits.hold_hours,
        tripped: tally.tripped,
        trips: tally.trips,
        lowered: tally.lowered,
        uncounted: tally.uncounted,
    }
}

/// What health says while something is tripped.
pub(super) fn reason(tripped: usize) -> Option<String> {
    let what = match tripped {
        0 => return None,
        1 => "a signal matches far more often here than it used to".to_owned(),
        many => format!("{many} signals match far more often here than they used to"),
    };
    Some(format!("{what}: staydown review list --kind flood"))
}
