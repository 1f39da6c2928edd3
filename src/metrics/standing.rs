//! What the node is: its list, its charter, its peers, what waits for people.

use super::sheet::{Labels, Sheet, flag, labels, number, seconds};
use crate::clock;
use crate::net::local::LocalService;
use crate::net::readiness::readiness;
use crate::net::survey::Survey;
use crate::replica::charter::Charter;
use crate::replica::exchange::{Exchange, State};
use crate::replica::ids::{Class, MemberId, Origin, TimeMs};
use crate::replica::log::Log;
use crate::replica::{Alarm, Health, Replica};
use crate::wire::local as l;

pub(super) fn tell(service: &LocalService, sheet: &mut Sheet) {
    // Each of these takes the replica's lock by itself, and before the one that is held below.
    let state = service.status_now();
    node(&state, sheet);
    let survey = service.survey();
    list(&survey, &state, sheet);
    reviews(&survey, sheet);
    policy(service, sheet);
    let replica = service.shared().replica();
    charter(&replica, sheet);
    logs(&replica, sheet);
    peers(&replica, sheet);
    certificates(service, &replica, sheet);
    evidence(&replica, sheet);
}

fn node(state: &l::StatusResponse, sheet: &mut Sheet) {
    let version = labels([("version", state.version.as_str())]);
    sheet.fact("build", "The release that runs.", version);
    let names = labels([("forum", state.forum_name.as_str()), ("member", state.member.as_str())]);
    sheet.fact("node", "The forum and our company's name in it.", names);
    let health = [Health::Green, Health::Yellow, Health::Red].map(|level| {
        let name = level.name();
        (labels([("state", &name.to_ascii_lowercase())]), flag(state.health == name))
    });
    sheet.gauges(
        "health",
        "1 for the state that the node is in: green, yellow or red; staydown status says why.",
        health,
    );
    sheet.gauge(
        "ready",
        "1 while lookups may be sent to the node, as /readyz says; 0 while its list is being fetched, or is empty with no peer reached, and while it stops.",
        flag(readiness(state).is_ok()),
    );
}

fn list(survey: &Survey, state: &l::StatusResponse, sheet: &mut Sheet) {
    let entries = survey.entries.iter().map(|((kind, status), count)| {
        (labels([("type", kind), ("status", &status.to_ascii_lowercase())]), number(*count))
    });
    sheet.gauges(
        "entries",
        "Entries of the list by type of hash and status; of a long list as of the survey.",
        entries,
    );
    sheet.moment("survey_timestamp_seconds", "When entries and reviews were last counted.", Some(survey.at));
    sheet.gauge("entries_listed", "Subjects with a status other than inactive.", number(state.entries));
    sheet.gauge("records", "Records of all members that the list was made of.", number(state.records));
    sheet.gauge("blocks", "Blocks held here.", number(state.blocks));
    sheet.gauge("outbox", "Submissions that wait until they can be signed.", number(state.outbox));
    sheet.gauge(
        "guard_pending",
        "1 while the node signs nothing, because too few peers told it their heads of its logs.",
        flag(state.guard_pending),
    );
}

fn reviews(survey: &Survey, sheet: &mut Sheet) {
    let kind = |kind: &str| labels([("kind", kind)]);
    let waiting = survey.reviews.iter().map(|(name, waiting)| (kind(name), number(waiting.count)));
    sheet.gauges("reviews_waiting", "What waits for a person of our company, by kind.", waiting);
    let oldest = survey.reviews.iter().map(|(name, waiting)| (kind(name), waiting.oldest));
    sheet.moments("review_oldest_timestamp_seconds", "Since when the oldest of a kind waits.", oldest);
    let deadlines = survey.reviews.iter().map(|(name, waiting)| (kind(name), waiting.deadline));
    sheet.moments("review_deadline_timestamp_seconds", "The earliest deadline among what waits of a kind.", deadlines);
}

fn policy(service: &LocalService, sheet: &mut Sheet) {
    let standing = service.policy();
    let in_force = standing.in_force();
    let decisions = in_force.counts().into_iter().flat_map(|count| {
        [("allow", count.allow), ("review", count.review), ("block", count.block)]
            .map(|(verdict, decided)| (labels([("rule", count.rule.as_str()), ("verdict", verdict)]), decided))
    });
    sheet.counters("policy_decisions", "Lookups that a rule of our policy decided, by its verdict.", decisions);
    sheet.moment("policy_since_timestamp_seconds", "When the policy in force was read.", Some(in_force.since));
    sheet.gauge("policy_shadow", "1 while verdicts are counted and answered allow.", flag(standing.shadow()));
    sheet.gauge(
        "policy_refused",
        "1 while the policy's file is not in force because of a mistake in it.",
        flag(standing.refused().is_some()),
    );
    let tally = service.breaker_tally();
    sheet.gauge(
        "breaker_tripped",
        "Entries that match far more often than they used to, and block nothing now.",
        number(tally.tripped),
    );
    sheet.counter("breaker_trips", "Times that the flood breaker tripped.", tally.trips);
    sheet.counter("breaker_lowered", "Verdicts that were lowered to review by the flood breaker.", tally.lowered);
    sheet.counter("breaker_uncounted", "Matches that the flood breaker had no room to count.", tally.uncounted);
}

fn charter(replica: &Replica, sheet: &mut Sheet) {
    let charter: &Charter = replica.charters().effective();
    sheet.gauge("charter_version", "Version of the charter in force.", number(charter.version));
    sheet.moment("charter_issued_timestamp_seconds", "When the charter in force was issued.", Some(charter.issued));
    sheet.moment(
        "charter_valid_until_timestamp_seconds",
        "When the charter in force becomes stale; none: it does not.",
        Some(charter.valid_until),
    );
    let forked = replica.charters().fork().is_some();
    sheet.gauge(
        "charter_forked",
        "1 where two charters of one version were signed: people must resolve it.",
        flag(forked),
    );
    sheet.gauge("members", "Active members by the charter in force.", number(charter.active().count() as u64));
    let suspended = charter.active().filter(|member| replica.suspended(member.id).is_some()).count();
    sheet.gauge("members_suspended", "Members that a steward has suspended.", number(suspended as u64));
}

fn logs(replica: &Replica, sheet: &mut Sheet) {
    let lane = |log: &Log| Class::from_number(log.opening().class).map_or("unknown", Class::name);
    let named = |origin: &Origin, log: &Log| -> Labels {
        let log_no = origin.log_no.0.to_string();
        labels([("member", &replica.name_of(origin.member)), ("lane", lane(log)), ("log", &log_no)])
    };
    let heads = replica.logs().iter().map(|(origin, log)| (named(origin, log), number(log.durable().0)));
    sheet.gauges(
        "log_blocks",
        "Blocks held of each log; a log's number never grows beyond what the charter allows.",
        heads,
    );
    let mut bytes = std::collections::BTreeMap::<MemberId, (u64, TimeMs)>::new();
    for (origin, log) in replica.logs() {
        let (size, last) = bytes.entry(origin.member).or_default();
        *size += log.bytes();
        *last = log.last_time().max(*last);
    }
    let of = |member: MemberId| labels([("member", &replica.name_of(member))]);
    sheet.gauges(
        "log_size_bytes",
        "Bytes of a member's logs.",
        bytes.iter().map(|(m, (size, _))| (of(*m), number(*size))),
    );
    sheet.moments(
        "log_last_block_timestamp_seconds",
        "When a member's latest block was signed, by its clock.",
        bytes.iter().map(|(m, (_, last))| (of(*m), *last)),
    );
}

fn peers(replica: &Replica, sheet: &mut Sheet) {
    let now = clock::now();
    let exchanges = replica.exchanges();
    let states = State::ALL.map(|state| {
        let count = exchanges.values().filter(|exchange| exchange.state(now) == state).count();
        (labels([("state", &state.name().to_ascii_lowercase())]), number(count as u64))
    });
    sheet.gauges("peers", "Peers by the state of our conversation with them.", states);
    let each = |value: &dyn Fn(&Exchange) -> Option<f64>| -> Vec<(Labels, f64)> {
        let known = exchanges.iter().filter_map(|(peer, exchange)| Some((*peer, value(exchange)?)));
        known.map(|(peer, value)| (labels([("member", &replica.name_of(peer))]), value)).collect()
    };
    let ours = replica.have();
    sheet.gauges("peer_connected", "1 while a peer answers us.", each(&|peer| Some(flag(peer.is_connected()))));
    sheet.gauges(
        "peer_blocks_missing_here",
        "Blocks that a peer told us of and that are not here.",
        each(&|peer| Some(number(peer.theirs().blocks_beyond(&ours)))),
    );
    sheet.gauges(
        "peer_blocks_missing_there",
        "Blocks that are here and that a peer has not told us of.",
        each(&|peer| Some(number(ours.blocks_beyond(peer.theirs())))),
    );
    sheet.gauges(
        "peer_last_heard_timestamp_seconds",
        "When a peer was last heard.",
        each(&|peer| (peer.last_heard() > TimeMs(0)).then(|| seconds(peer.last_heard()))),
    );
    sheet.gauges(
        "peer_clock_offset_seconds",
        "A peer's clock minus ours.",
        each(&|peer| peer.is_connected().then(|| offset_seconds(peer.clock_offset_ms()))),
    );
    sheet.gauges(
        "peer_agrees",
        "1 where a peer that holds the same shows the same list, 0 where it shows another; none: not known.",
        each(&|peer| peer.agrees().map(flag)),
    );
}

/// An offset of clocks is far below what loses precision.
#[expect(clippy::cast_precision_loss, reason = "samples are floating point numbers")]
fn offset_seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

fn certificates(service: &LocalService, replica: &Replica, sheet: &mut Sheet) {
    let of = |whose: &str, member: &str| labels([("of", whose), ("member", member)]);
    let me = replica.name_of(replica.me());
    let ours = service.peer_lines().map(|(tls, _)| (of("node", &me), tls.facts().not_after));
    let web = (of("web", &me), service.meters().web_certificate_end());
    let peers = service.peer_certificates();
    let peers = peers.into_iter().map(|(peer, until)| (of("peer", &replica.name_of(peer)), until));
    sheet.moments(
        "certificate_end_timestamp_seconds",
        "When a certificate ends: this node's, its web server's, and those that connected peers showed.",
        ours.into_iter().chain([web]).chain(peers),
    );
}

fn evidence(replica: &Replica, sheet: &mut Sheet) {
    let alarms = replica.alarms();
    let kinds = Alarm::KINDS.map(|kind| {
        let count = alarms.iter().filter(|alarm| alarm.kind() == kind).count();
        (labels([("kind", kind)]), number(count as u64))
    });
    sheet.gauges("alarms", "What people should know at once, by kind; staydown status says it in words.", kinds);
    sheet.gauge(
        "fork_proofs",
        "Proofs that a log was signed twice, or against the rules.",
        number(replica.proofs().len() as u64),
    );
    let mut forked = std::collections::BTreeMap::<MemberId, u64>::new();
    replica.proofs().iter().for_each(|proof| *forked.entry(proof.origin().member).or_default() += 1);
    let forked =
        forked.into_iter().map(|(member, logs)| (labels([("member", &replica.name_of(member))]), number(logs)));
    sheet.gauges("logs_convicted", "Logs of a member of which such a proof is here.", forked);
    sheet.gauge("records_inert", "Records of all members that had no effect.", number(replica.view().inert()));
}
