//! The name of one request, from the browser or program that asked to the peer that was asked in turn: the log lines of
//! both sides carry it.
//!
//! A name says nothing of who asks or what for: it is drawn here, or short and harmless where it comes from outside. What
//! a stranger sends stands in our log lines, so nothing in it can end a line, colour a terminal or grow.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;

use crate::clock;

/// The header, and the metadata of gRPC, that carries it, in and out.
pub const REQUEST_ID: &str = "x-request-id";
/// Shortest name that is taken from a caller: less is a counter, that many callers share.
pub const REQUEST_ID_MIN: usize = 8;
/// Longest name that is taken from a caller: a UUID has 36 characters, a trace with its span 49.
pub const REQUEST_ID_MAX: usize = 64;

/// 16 hex digits of our own, or what a caller sent, if that is 8 to 64 of `[A-Za-z0-9_-]`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A name that nobody has had.
    pub fn new() -> Self {
        Self(format!("{:016x}", u64::from_be_bytes(clock::random())).into())
    }

    /// The name that a caller sent, if it can be taken as it is.
    pub fn taken(sent: &str) -> Option<Self> {
        let fits = (REQUEST_ID_MIN..=REQUEST_ID_MAX).contains(&sent.len());
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        (fits && sent.bytes().all(harmless)).then(|| Self(sent.into()))
    }

    /// The name that stands in `headers`, or a new one: what cannot be taken is not worth a refusal.
    pub fn of(headers: &HeaderMap) -> Self {
        let sent = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        sent.and_then(Self::taken).unwrap_or_default()
    }

    /// A call to a peer, under this name: its log lines and ours can be joined.
    pub fn asks<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        // What a name is made of, metadata can hold.
        if let Ok(name) = self.0.parse() {
            request.metadata_mut().insert(REQUEST_ID, name);
        }
        request
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_sends_is_taken_only_if_it_is_short_and_harmless() {
        let longest = "x".repeat(REQUEST_ID_MAX);
        for taken in ["01234567", "a_b-C9.Z".replace('.', "0").as_str(), "4bf92f3577b34da6a3ce929d0e0e4736", &longest] {
            assert_eq!(RequestId::taken(taken).unwrap().as_str(), taken);
        }
        let longer = "x".repeat(REQUEST_ID_MAX + 1);
        for sent in ["", "0123456", &longer, "with space", "line\nbreak0", "\u{1b}[31mred0", "ünïcödé00", "a.b.c.d.e"]
        {
            assert_eq!(RequestId::taken(sent), None, "{sent:?}");
        }
    }

    #[test]
    fn a_request_without_a_name_that_can_be_taken_gets_one_of_ours() {
        let mut headers = HeaderMap::new();
        let [first, second] = [RequestId::of(&headers), RequestId::of(&headers)];
        assert_ne!(first, second);
        assert!(first.as_str().len() == 16 && first.as_str().bytes().all(|b| b.is_ascii_hexdigit()), "{first}");
        headers.insert(REQUEST_ID, "no name".parse().unwrap());
        assert_ne!(RequestId::of(&headers).as_str(), "no name");
        headers.insert(REQUEST_ID, "from-outside-1".parse().unwrap());
        let taken = RequestId::of(&headers);
        assert_eq!(taken.to_string(), "from-outside-1");
        assert_eq!(taken.asks(()).metadata().get(REQUEST_ID).unwrap(), "from-outside-1");
    }
}
