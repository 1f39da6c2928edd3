//! Calls over gRPC and requests over HTTP, by what was asked, how it went and how long it took.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::family::Family;
use super::histogram::{FINE, Histogram, SLOW};
use super::{add, read};

/// Methods of both gRPC services that are counted apart; there are some sixty.
const CALLS_MAX: usize = 128;
/// Route templates that are counted apart; each page and each resource is one.
const ROUTES_MAX: usize = 256;

/// The codes of gRPC by their numbers.
pub const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// What answers an unknown method: names of such are a caller's invention.
const UNIMPLEMENTED: usize = 12;
/// What a code beyond the known ones is counted as.
const UNKNOWN: usize = 2;

/// gRPC calls by `package.Service/Method`.
#[derive(Debug)]
pub struct Calls(Family<str, Call>);

/// The calls of one method.
#[derive(Debug)]
pub struct Call {
    codes: [AtomicU64; CODES.len()],
    took: Histogram,
}

impl Default for Call {
    fn default() -> Self {
        Self { codes: Default::default(), took: Histogram::new(&FINE) }
    }
}

impl Default for Calls {
    fn default() -> Self {
        Self(Family::new(CALLS_MAX))
    }
}

impl Calls {
    /// A call of `method` ended with `code` after `took`.
    pub fn ended(&self, method: &str, code: usize, took: Duration) {
        let code = if code < CODES.len() { code } else { UNKNOWN };
        let call = if code == UNIMPLEMENTED { self.0.others() } else { self.0.at(method) };
        add(&call.codes[code], 1);
        call.took.observe(took);
    }

    /// Every method that was called; names that no service has are one.
    pub fn all(&self) -> Vec<(String, std::sync::Arc<Call>)> {
        self.0.cells()
    }
}

impl Call {
    /// How often the calls ended with which code, but for those with which none did.
    pub fn by_code(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CODES.into_iter().zip(self.codes.iter().map(read)).filter(|(_, count)| *count > 0)
    }

    /// How long they took. A stream takes as long as it is open.
    pub fn durations(&self) -> &Histogram {
        &self.took
    }
}

/// Methods of HTTP; all others are the last.
pub const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "other"];
/// Status codes begin at 100, and there are so many that HTTP allows for.
const STATUSES: usize = 500;

/// HTTP requests by route template, method and status.
///
/// `route` must be a template of the router (`/entry/{type}/{value}`), never the path that was asked for: that has what
/// was looked up in it. What no template fits is to be given as an empty route.
#[derive(Debug)]
pub struct HttpMetrics(Family<str, Route>);

/// The requests of one route.
#[derive(Debug)]
pub struct Route {
    answers: Family<(u8, u16), AtomicU64>,
    took: Histogram,
}

impl Default for Route {
    fn default() -> Self {
        Self { answers: Family::new(METHODS.len() * STATUSES), took: Histogram::new(&SLOW) }
    }
}

impl Default for HttpMetrics {
    fn default() -> Self {
        Self(Family::new(ROUTES_MAX))
    }
}

impl HttpMetrics {
    /// A request was answered with `status` after `seconds`.
    pub fn observe(&self, route: &str, method: &str, status: u16, seconds: f64) {
        let named = |name: &&str| *name == method;
        let method = METHODS.iter().position(named).unwrap_or(METHODS.len() - 1);
        let route = if route.is_empty() { self.0.others() } else { self.0.at(route) };
        add(&route.answers.at(&(u8::try_from(method).unwrap_or(u8::MAX), status.clamp(100, 599))), 1);
        route.took.observe(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    }

    /// Every route that was asked for; what no route fits is one.
    pub fn all(&self) -> Vec<(String, std::sync::Arc<Route>)> {
        self.0.cells()
    }
}

impl Route {
    /// How often which method was answered with which status.
    pub fn answers(&self) -> Vec<(&'static str, u16, u64)> {
        let name = |method: u8| METHODS.get(usize::from(method)).copied().unwrap_or(METHODS[METHODS.len() - 1]);
        let shown = |((method, status), count): ((u8, u16), u64)| (name(method), status, count);
        self.answers.counts().into_iter().map(shown).collect()
    }

    /// How long the requests took.
    pub fn durations(&self) -> &Histogram {
        &self.took
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_service_has_are_counted_as_one() {
        let calls = Calls::default();
        for n in 0..1_000 {
            calls.ended(&format!("staydown.peer.v1.Peer/Invented{n}"), UNIMPLEMENTED, Duration::ZERO);
        }
        calls.ended("staydown.peer.v1.Peer/Hello", 0, Duration::from_millis(2));
        calls.ended("staydown.peer.v1.Peer/Hello", 99, Duration::from_millis(2));
        let all = calls.all();
        assert_eq!(
            all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["staydown.peer.v1.Peer/Hello", "other"]
        );
        assert_eq!(all[0].1.by_code().collect::<Vec<_>>(), [("OK", 1), ("UNKNOWN", 1)]);
        assert_eq!(all[1].1.by_code().collect::<Vec<_>>(), [("UNIMPLEMENTED", 1_000)]);
        assert_eq!(all[0].1.durations().read().count, 2);
    }

    #[test]
    fn requests_are_counted_by_route_method_and_status() {
        let http = HttpMetrics::default();
        http.observe("/v1/lookups", "POST", 200, 0.002);
        http.observe("/v1/lookups", "POST", 200, 0.002);
        http.observe("/v1/lookups", "GET", 405, f64::NAN);
        http.observe("", "BREW", 999, -1.0);
        let all = http.all();
        assert_eq!(all[0].0, "/v1/lookups");
        assert_eq!(all[0].1.answers(), [("GET", 405, 1), ("POST", 200, 2)]);
        assert_eq!(all[0].1.durations().read().count, 3);
        assert_eq!((all[1].0.as_str(), all[1].1.answers()), ("other", vec![("other", 599, 1)]));
    }

    #[test]
    fn a_flood_of_routes_grows_nothing() {
        let http = HttpMetrics::default();
        for n in 0..2 * ROUTES_MAX {
            http.observe(&format!("/route/{n}"), "GET", 200, 0.0);
        }
        assert_eq!(http.all().len(), ROUTES_MAX + 1);
    }
}
