//! What the node did since it was started.

use super::sheet::{Labels, Sheet, labels, number};
use crate::clock;
use crate::meters::{LookupKind, Meters, VERDICTS, read};
use crate::net::local::LocalService;

pub(super) fn tell(service: &LocalService, sheet: &mut Sheet) {
    let meters = service.meters();
    lookups(service, meters, sheet);
    submissions(service, meters, sheet);
    refusals(service, meters, sheet);
    connections(service, meters, sheet);
    calls(meters, sheet);
    requests(meters, sheet);
    engine(service, meters, sheet);
}

fn lookups(service: &LocalService, meters: &Meters, sheet: &mut Sheet) {
    let counts = LookupKind::ALL.into_iter().flat_map(|kind| {
        VERDICTS.map(|verdict| {
            let name = verdict.name().to_ascii_lowercase();
            (labels([("kind", kind.name()), ("verdict", &name)]), meters.lookups.count(kind, verdict))
        })
    });
    sheet.counters(
        "lookups",
        "What was looked up, by how it came and by the verdict of our rules, in shadow mode too.",
        counts,
    );
    let took = LookupKind::ALL.map(|kind| (labels([("kind", kind.name())]), meters.lookups.durations(kind).read()));
    sheet.durations("lookup_duration_seconds", "Requests to look something up, until their answer is ready.", took);
    let part = service.shared().counters().part(clock::now());
    sheet.counter("lookups_matched", "Lookups that found anything.", part.lookups_with_a_match);
    sheet.counter("matches", "Entries that lookups found.", part.matches);
}

fn submissions(service: &LocalService, meters: &Meters, sheet: &mut Sheet) {
    let became = &meters.submissions;
    let outcomes = [("durable", &became.durable), ("queued", &became.queued), ("refused", &became.refused)];
    let outcomes = outcomes.map(|(name, count)| (labels([("outcome", name)]), read(count)));
    sheet.counters("submissions", "Submissions of our company, by what became of them.", outcomes);
    let part = service.shared().counters().part(clock::now());
    sheet.counter("statements", "Statements of our company that were signed.", part.statements);
    let took = became.took.read();
    sheet.durations(
        "submission_duration_seconds",
        "From a submission until it is on disk, offered to the peers, and matches here.",
        [(Labels::new(), took)],
    );
    sheet.durations(
        "arrival_delay_seconds",
        "From the signing of another member's block, by its clock, until it matches here.",
        [(Labels::new(), meters.arrivals.read())],
    );
}

fn refusals(service: &LocalService, meters: &Meters, sheet: &mut Sheet) {
    let of = |side: &'static str| {
        move |(reason, count): (String, u64)| {
            (labels([("side", side), ("reason", &reason.to_ascii_lowercase())]), count)
        }
    };
    let local = meters.refused_local.counts().into_iter().map(of("local"));
    let peer = meters.refused_peer.counts().into_iter().map(of("peer"));
    sheet.counters("refusals", "Requests that were refused, by the reason that was given.", local.chain(peer));
    let refused = service.peer_lines().map(|(_, connections)| connections.refused_total()).unwrap_or_default();
    let refused = refused.into_iter().map(|(reason, count)| (labels([("reason", reason)]), count));
    sheet.counters("connections_refused", "Connections on the peer port that were not accepted.", refused);
}

fn connections(service: &LocalService, meters: &Meters, sheet: &mut Sheet) {
    let of = |side: &str, count: u64| (labels([("side", side)]), number(count));
    let mut open = vec![of("local", meters.local_open.count()), of("web", meters.web_open.count())];
    if let Some((tls, connections)) = service.peer_lines() {
        open.push(of("peer_in", connections.open() as u64));
        open.push(of("peer_out", tls.dialed().len() as u64));
    }
    sheet.gauges(
        "connections",
        "Open connections: peers that dialled us and that we dialled, the local socket, the web.",
        open,
    );
}

fn calls(meters: &Meters, sheet: &mut Sheet) {
    let all = meters.calls.all();
    let named = |path: &str| {
        let (service, method) = path.rsplit_once('/').unwrap_or(("other", path));
        labels([("service", service), ("method", method)])
    };
    let ended = all.iter().flat_map(|(path, call)| {
        call.by_code().map(|(code, count)| {
            let code = ("code", code.to_ascii_lowercase());
            (named(path).into_iter().chain([code]).collect(), count)
        })
    });
    sheet.counters("grpc_calls", "gRPC calls that ended, by method and code.", ended);
    let took = all.iter().map(|(path, call)| (named(path), call.durations().read())).filter(|(_, took)| took.count > 0);
    sheet.durations(
        "grpc_call_duration_seconds",
        "gRPC calls from beginning to end; a stream takes as long as it is open.",
        took,
    );
}

fn requests(meters: &Meters, sheet: &mut Sheet) {
    let all = meters.http.all();
    let answered = all.iter().flat_map(|(route, asked)| {
        asked.answers().into_iter().map(move |(method, status, count)| {
            (labels([("route", route), ("method", method), ("status", &status.to_string())]), count)
        })
    });
    sheet.counters("http_requests", "HTTP requests that were answered, by route, method and status.", answered);
    let took = all.iter().map(|(route, asked)| (labels([("route", route)]), asked.durations().read()));
    let took = took.filter(|(_, took)| took.count > 0);
    sheet.durations("http_request_duration_seconds", "HTTP requests until their answer begins, by route.", took);
}

fn engine(service: &LocalService, meters: &Meters, sheet: &mut Sheet) {
    sheet.gauge(
        "hashing_files",
        "Files that wait to be hashed or are being hashed.",
        number(service.hashing_under_way() as u64),
    );
    sheet.counter(
        "hashing_rejected",
        "Files that were sent away because too many waited.",
        read(&meters.hashing_rejected),
    );
    sheet.durations(
        "hashing_duration_seconds",
        "Files that were hashed for a lookup, with the time for which they waited.",
        [(Labels::new(), meters.hashed.read())],
    );
    sheet.durations(
        "commit_duration_seconds",
        "Group commits: journal, read back, store and outbox.",
        [(Labels::new(), meters.commits.read())],
    );
    sheet.durations(
        "derivation_duration_seconds",
        "Times that the whole list was derived again from the blocks.",
        [(Labels::new(), meters.derivations.read())],
    );
}
