//! Web addresses: one spelling for all that lead to the same page, and the expressions under which a page, a directory
//! or a host can be listed (docs/protocol.md, "Web addresses"). Only the SHA-256 of an expression is ever signed.
//!
//! What is done here has to be the same on all nodes, or a listing of one does not match at another: the vectors in
//! `tests/vectors/url.tsv` hold it. The rules are those of Safe Browsing version 4, and where browsers read an address
//! otherwise than its text says (backslashes, user names, addresses of other numbers), those of browsers: else the link that
//! is looked up would not be the one that opens.

// From `core`: addresses are values here, nothing is opened.
use core::net::{Ipv4Addr, Ipv6Addr};
use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::{Alg, Subject};
use crate::replica::ids::sha256;
use crate::replica::view::Entry;

/// Longest address in bytes: more than browsers and servers take, and little enough to look through in microseconds.
pub const URL_BYTES_MAX: usize = 8_192;
/// Longest host in bytes, once it is unescaped: four times what can be asked of DNS. To make the ASCII form of an
/// international label costs the square of its length.
pub const HOST_BYTES_MAX: usize = 1_024;
/// Expressions of one address: five hosts by six paths.
pub const EXPRESSIONS_MAX: usize = HOSTS_MAX * PATHS_MAX;
/// Hosts of the expressions: the whole one, and four that end it.
const HOSTS_MAX: usize = 5;
/// Paths of the expressions: the whole one with and without its query, and four that begin it.
const PATHS_MAX: usize = 6;
/// Full groups that must stand behind a listing of a whole host before it matches anything (PROTOCOL section 10).
pub const WHOLE_HOST_GROUPS_MIN: u32 = 2;

/// An address in its one spelling. The scheme, a user name, a port and a fragment are no part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Canonical {
    host: String,
    /// Written as four numbers or in brackets: it has no ending that would be a host.
    address: bool,
    path: String,
    query: Option<String>,
}

/// One of the texts under which an address may be listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// Host, path and query; for the asking company only.
    pub text: String,
    /// What is listed of it.
    pub subject: Subject,
    /// Whether it is a host with everything on it.
    pub whole_host: bool,
    /// Whether the host is a public suffix, or one of those on which everybody publishes.
    pub too_broad: bool,
}

/// Why a text is no address that can be listed. No message repeats the address: they end in logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Longer than any that a browser opens.
    #[error("url: got {got} bytes, expected at most {URL_BYTES_MAX}")]
    TooLong {
        /// Its length.
        got: usize,
    },
    /// `mailto:` and the like name no page on a host.
    #[error("url: its scheme is none of http, https and ftp, which name a page on a host")]
    Scheme,
    /// There is nothing where the host should stand.
    #[error("url: it has no host, expected one as in https://example.org/page")]
    NoHost,
    /// Brackets without an IPv6 address, a character in the host at which others would end it, or a host of more than
    /// [`HOST_BYTES_MAX`].
    #[error("url: its host is none that a browser would open")]
    BadHost,
}

/// The one spelling of an address as people and posts write it, with or without `https://`.
///
/// # Errors
/// [`UrlError`]; never a panic, whatever the text is.
pub fn canonical(url: &str) -> Result<Canonical, UrlError> {
    if url.len() > URL_BYTES_MAX {
        return Err(UrlError::TooLong { got: url.len() });
    }
    let url = url.trim_matches(|c: char| c <= ' ');
    let url: String = url.chars().filter(|c| !matches!(c, '\t' | '\r' | '\n')).collect();
    let url = url.split_once('#').map_or(&*url, |(before, _fragment)| before);
    let (before, query) = match url.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (url, None),
    };
    // Only before the query does a browser read one as the other.
    let before = before.replace('\\', "/");
    let rest = without_scheme(&before)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, address) = canonical_host(host_of(authority))?;
    Ok(Canonical {
        host,
        address,
        path: canonical_path(path),
        query: query.map(|query| escaped(&unescaped(query), &[])),
    })
}

impl Canonical {
    /// The expression under which exactly this is listed: a page with its query, or, if the path ends in a slash, all
    /// that stands below.
    pub fn expression(&self) -> String {
        format!("{}{}{}", self.host, self.path, self.query())
    }

    /// What is listed of [`Self::expression`].
    pub fn subject(&self) -> Subject {
        subject(&self.expression())
    }

    /// Whether to list it is to list everything on its host.
    pub fn is_whole_host(&self) -> bool {
        self.path == "/" && self.query.is_none()
    }

    /// Whether to list it is to list everything on a host on which everybody publishes.
    pub fn is_too_broad(&self) -> bool {
        self.is_whole_host() && is_broad(&self.host)
    }

    /// All expressions that cover it, at most [`EXPRESSIONS_MAX`], its own first; then path by path, host by host.
    pub fn expressions(&self) -> Vec<Expression> {
        let paths = self.paths();
        let hosts = self.hosts();
        let broad: Vec<_> = hosts.iter().map(|host| is_broad(host)).collect();
        let all = hosts.iter().zip(broad).flat_map(|(host, too_broad)| {
            paths.iter().map(move |path| {
                let text = format!("{host}{path}");
                let subject = subject(&text);
                let whole_host = path == "/";
                Expression { text, subject, whole_host, too_broad: whole_host && too_broad }
            })
        });
        all.collect()
    }

    fn query(&self) -> String {
        self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default()
    }

    /// The host, then what is left of its last five labels when the first ones are taken off; never one label alone.
    fn hosts(&self) -> Vec<&str> {
        let mut hosts = vec![self.host.as_str()];
        if self.address {
            return hosts;
        }
        let starts: Vec<_> = self.host.match_indices('.').map(|(at, _)| at + 1).collect();
        // Each start is an ending of the host; the last is one label alone.
        let endings = starts.len().saturating_sub(1);
        hosts.extend(starts[..endings].iter().map(|at| &self.host[*at..]).skip(endings.saturating_sub(HOSTS_MAX - 1)));
        hosts
    }

    /// The path with its query, the path, then the directories above it, from the root.
    fn paths(&self) -> Vec<String> {
        let mut paths = vec![format!("{}{}", self.path, self.query())];
        let directories = self.path.match_indices('/').map(|(at, _)| &self.path[..=at]).take(PATHS_MAX - 2);
        for path in [self.path.as_str()].into_iter().chain(directories) {
            if paths.iter().all(|known| known != path) {
                paths.push(path.to_owned());
            }
        }
        paths
    }
}

/// Whether what stands listed under an expression of a looked-up address counts as a match of it. A listing of a whole
/// host touches everybody who publishes there, so it waits for a second full group; one of a host on which the whole
/// world publishes never counts, whoever signed it.
pub fn counts_for_match(expression: &Expression, entry: &Entry) -> bool {
    !expression.too_broad && (!expression.whole_host || enough_for_a_host(entry))
}

/// The same of a URL that was looked up by its hash alone. It may be that of a whole host, so it counts as one.
pub fn counts_unseen(entry: &Entry) -> bool {
    !BROAD.contains(&entry.subject) && enough_for_a_host(entry)
}

fn enough_for_a_host(entry: &Entry) -> bool {
    entry.counts.support >= WHOLE_HOST_GROUPS_MIN
}

/// Whether the subject is that of a host on which everybody publishes: a public suffix, or one of the shipped list.
pub fn is_too_broad(subject: &Subject) -> bool {
    subject.known_alg() == Some(Alg::Url) && BROAD.contains(subject)
}

fn subject(expression: &str) -> Subject {
    Subject::of(Alg::Url, &sha256(&[expression.as_bytes()]))
}

/// The text behind the scheme and the slashes that follow it. `example.org:8080/` has a port, not a scheme.
fn without_scheme(url: &str) -> Result<&str, UrlError> {
    let scheme_end = url.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '-' | '.'));
    let scheme = scheme_end.filter(|end| url[*end..].starts_with(':')).map(|end| url.split_at(end));
    let Some((scheme, rest)) = scheme else { return Ok(url.trim_start_matches('/')) };
    let rest = &rest[1..];
    if ["http", "https", "ftp"].iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
        return Ok(rest.trim_start_matches('/'));
    }
    let port = rest.split('/').next().unwrap_or_default();
    let is_host = scheme.contains('.') || scheme.eq_ignore_ascii_case("localhost");
    if is_host && port.bytes().all(|b| b.is_ascii_digit()) { Ok(url) } else { Err(UrlError::Scheme) }
}

/// Without the user name before it and the port behind it.
fn host_of(authority: &str) -> &str {
    let host = authority.rsplit_once('@').map_or(authority, |(_user, host)| host);
    match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => host,
    }
}

/// The host, and whether it is a number.
fn canonical_host(host: &str) -> Result<(String, bool), UrlError> {
    let bytes = unescaped(host);
    if bytes.len() > HOST_BYTES_MAX {
        return Err(UrlError::BadHost);
    }
    if let Some(inner) = bytes.strip_prefix(b"[") {
        let inner = inner.strip_suffix(b"]").and_then(|inner| std::str::from_utf8(inner).ok());
        let address: Ipv6Addr = inner.and_then(|inner| inner.parse().ok()).ok_or(UrlError::BadHost)?;
        return Ok((ipv6(address), true));
    }
    let bytes = punycode(bytes);
    // At these a browser, or another node, would see the host end.
    if bytes.iter().any(|byte| b"/\\?@:[]%".contains(byte)) {
        return Err(UrlError::BadHost);
    }
    let labels: Vec<_> = bytes.split(|byte| *byte == b'.').filter(|label| !label.is_empty()).collect();
    let host = escaped(&labels.join(&b'.').to_ascii_lowercase(), &[]);
    match ipv4(&host) {
        _ if host.is_empty() => Err(UrlError::NoHost),
        Some(address) => Ok((address.to_string(), true)),
        None => Ok((host, false)),
    }
}

/// With international labels as browsers ask for them; bytes that are no such name stay as they are.
fn punycode(host: Vec<u8>) -> Vec<u8> {
    if host.is_ascii() {
        return host;
    }
    match idna::domain_to_ascii_cow(&host, idna::AsciiDenyList::EMPTY) {
        Ok(ascii) => ascii.into_owned().into_bytes(),
        Err(_no_name) => host,
    }
}

/// One to four numbers, each decimal, octal (`0`) or hexadecimal (`0x`); the last fills what is left.
fn ipv4(host: &str) -> Option<Ipv4Addr> {
    let parts = host.split('.').map(number).collect::<Option<Vec<_>>>()?;
    let (last, first) = parts.split_last().filter(|(_, first)| first.len() < 4)?;
    let left = 32 - 8 * u32::try_from(first.len()).ok()?;
    if first.iter().any(|part| *part > 0xff) || u64::from(*last) >> left != 0 {
        return None;
    }
    let front = first.iter().fold(0_u64, |bits, part| bits << 8 | u64::from(*part));
    u32::try_from(front << left | u64::from(*last)).ok().map(Ipv4Addr::from)
}

fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x', _, ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // A sign would be taken otherwise.
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, radix).ok()).flatten()
}

/// In the short form; one that stands for an IPv4 address is written as that.
fn ipv6(address: Ipv6Addr) -> String {
    // 64:ff9b::/96, by which networks of version 6 reach version 4.
    let translated = address.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
    let [.., a, b, c, d] = address.octets();
    match address.to_ipv4_mapped() {
        Some(mapped) => mapped.to_string(),
        None if translated => Ipv4Addr::new(a, b, c, d).to_string(),
        None => format!("[{address}]"),
    }
}

/// What follows the first slash, from it on: without `.` and `..`, without runs of slashes.
fn canonical_path(path: &str) -> String {
    let bytes = unescaped(path);
    let mut kept: Vec<&[u8]> = Vec::new();
    let segments: Vec<_> = bytes.split(|byte| *byte == b'/').collect();
    let last = segments.len() - 1;
    for (at, segment) in segments.into_iter().enumerate() {
        match segment {
            b"." | b".." => {
                if segment == b".." {
                    kept.pop();
                }
                // At the end it stands for a directory.
                if at == last {
                    kept.push(b"");
                }
            }
            _ => kept.push(segment),
        }
    }
    let directory = kept.last().is_none_or(|last| last.is_empty());
    let named: Vec<_> = kept.into_iter().filter(|segment| !segment.is_empty()).collect();
    // Escaped, a question mark begins no query, and a backslash is no slash: they are part of the path.
    let path = escaped(&named.join(&b'/'), b"?\\");
    match (path.as_str(), directory) {
        ("", _) => "/".to_owned(),
        (path, true) => format!("/{path}/"),
        (path, false) => format!("/{path}"),
    }
}

/// Without percent escapes, again and again until none is left: byte by byte, so that `%2525...` costs no more than its
/// length. An escape never overlaps another, so that the order does not matter.
fn unescaped(text: &str) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        out.push(byte);
        while let [.., b'%', high, low] = out[..]
            && let (Some(high), Some(low)) = (char::from(high).to_digit(16), char::from(low).to_digit(16))
        {
            out.truncate(out.len() - 3);
            out.extend(u8::try_from(high << 4 | low));
        }
    }
    out
}

/// Blanks, control characters, what is not ASCII, `#`, `%` and the bytes of `others` as percent escapes in upper case.
fn escaped(bytes: &[u8], others: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            0..=b' ' | 0x7f.. | b'#' | b'%' => out.push_str(&format!("%{byte:02X}")),
            _ if others.contains(&byte) => out.push_str(&format!("%{byte:02X}")),
            _ => out.push(char::from(byte)),
        }
    }
    out
}

/// Whether everybody publishes under this host.
fn is_broad(host: &str) -> bool {
    !host.contains(['.', ':']) || BROAD.contains(&subject(&format!("{host}/")))
}

/// What is no company's own host below a country's ending.
const SECOND_LABELS: [&str; 16] =
    ["ac", "co", "com", "edu", "go", "gob", "gov", "info", "mil", "ne", "net", "nom", "or", "org", "sch", "web"];
/// Endings of more than two letters that are open to everybody, or to everybody of a kind.
const ENDINGS: [&str; 28] = [
    "aero", "app", "arpa", "asia", "biz", "blog", "cat", "club", "com", "coop", "dev", "edu", "gov", "info", "int",
    "jobs", "mil", "mobi", "museum", "name", "net", "online", "org", "pro", "shop", "site", "travel", "xyz",
];

/// Subjects of hosts that are too broad to be listed. A subject is only a hash, so all of them are made once: two
/// letters make a country's ending whether there is such a country or not.
static BROAD: LazyLock<BTreeSet<Subject>> = LazyLock::new(|| {
    let letters = || 'a'..='z';
    let countries = letters().flat_map(|a| letters().map(move |b| format!("{a}{b}")));
    let below = |country: String| SECOND_LABELS.map(|label| format!("{label}.{country}/"));
    let made = countries.clone().flat_map(below).chain(countries.map(|country| format!("{country}/")));
    let endings = ENDINGS.iter().map(|ending| format!("{ending}/"));
    let shipped = super::subjects(include_str!("broad_hosts.txt"));
    made.chain(endings).map(|expression| subject(&expression)).chain(shipped).collect()
});

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::replica::exchange::Draw;
    use crate::replica::ids::hex;
    use crate::replica::view::{Counts, Status};

    /// The texts of a line of the vectors, with `\t`, `\r`, `\n` and `\u{..}` as they are written there.
    fn read(text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('\\') {
            out.push_str(before);
            let (c, left) = match after.as_bytes() {
                [b't', ..] => ('\t', &after[1..]),
                [b'r', ..] => ('\r', &after[1..]),
                [b'n', ..] => ('\n', &after[1..]),
                [b'\\', ..] => ('\\', &after[1..]),
                [b'u', b'{', ..] => {
                    let (digits, left) = after[2..].split_once('}').unwrap();
                    (char::from_u32(u32::from_str_radix(digits, 16).unwrap()).unwrap(), left)
                }
                _ => panic!("{text}"),
            };
            out.push(c);
            rest = left;
        }
        out + rest
    }

    fn vectors(what: &str) -> Vec<Vec<String>> {
        let lines = include_str!("../../../tests/vectors/url.tsv").lines();
        let fields = lines.filter(|line| !line.starts_with('#')).map(|line| line.split('\t').map(read).collect());
        fields.filter(|fields: &Vec<String>| fields.first().is_some_and(|first| first == what)).collect()
    }

    #[test]
    fn every_spelling_of_the_vectors_has_its_expression() {
        let vectors = vectors("canonical");
        assert!(vectors.len() > 60);
        for fields in vectors {
            let [_, url, expected] = &fields[..] else { panic!("{fields:?}") };
            assert_eq!(&canonical(url).unwrap().expression(), expected, "{url:?}");
        }
        for fields in self::vectors("refused") {
            let [_, url, expected] = &fields[..] else { panic!("{fields:?}") };
            assert_eq!(&format!("{:?}", canonical(url).unwrap_err()), expected, "{url:?}");
        }
    }

    #[test]
    fn every_address_of_the_vectors_has_its_expressions() {
        let vectors = vectors("expressions");
        assert!(vectors.len() >= 5);
        for fields in vectors {
            let expressions = canonical(&fields[1]).unwrap().expressions();
            let texts: Vec<_> = expressions.iter().map(|expression| expression.text.as_str()).collect();
            assert_eq!(texts, fields[2..], "{}", fields[1]);
        }
        let [_, text, digest] = &vectors_of_digests()[0][..] else { panic!("three fields") };
        assert_eq!(&hex(canonical(text).unwrap().subject().digest()), digest);
    }

    fn vectors_of_digests() -> Vec<Vec<String>> {
        vectors("digest")
    }

    #[test]
    fn a_listing_of_a_whole_host_waits_for_a_second_full_group() {
        let of = |url: &str, text: &str| {
            let all = canonical(url).unwrap().expressions();
            all.into_iter().find(|expression| expression.text == text).unwrap()
        };
        let listed = |expression: &Expression, support, small_support| {
            let entry = Entry {
                subject: expression.subject.clone(),
                status: Status::Active,
                counts: Counts { support, small_support, ..Counts::default() },
                labels: Vec::new(),
                languages: Vec::new(),
                said: Vec::new(),
                allow_conflict: false,
            };
            (counts_for_match(expression, &entry), counts_unseen(&entry))
        };
        let url = "https://www.acme.example/videos/1?t=2";
        for text in ["www.acme.example/videos/1?t=2", "www.acme.example/videos/1", "acme.example/videos/"] {
            assert!(!of(url, text).whole_host);
            assert_eq!(listed(&of(url, text), 1, 0), (true, false), "{text}");
            assert_eq!(listed(&of(url, text), 2, 0), (true, true), "{text}");
        }
        for text in ["www.acme.example/", "acme.example/"] {
            assert!(of(url, text).whole_host);
            assert_eq!(listed(&of(url, text), 1, 3), (false, false), "{text}: a small one is not enough");
            assert_eq!(listed(&of(url, text), 2, 0), (true, true), "{text}");
        }
        let suffix = of("http://acme.co.uk/", "co.uk/");
        assert_eq!(listed(&suffix, 9, 0), (false, false), "nobody lists a public suffix");
    }

    #[test]
    fn public_suffixes_and_the_shipped_hosts_are_too_broad() {
        let broad = |url: &str| is_too_broad(&canonical(url).unwrap().subject());
        for url in ["https://com", "co.uk/", "http://com.br", "http://zz/", "org/"] {
            assert!(broad(url), "{url}");
        }
        for url in
            ["https://example.org", "acme.co.uk/", "co.uk/page", "com/?q", "http://192.0.2.1/", "http://[2001:db8::1]/"]
        {
            assert!(!broad(url), "{url}");
        }
        let shipped = super::super::lines(include_str!("broad_hosts.txt")).count();
        let made = 26 * 26 * (SECOND_LABELS.len() + 1) + ENDINGS.len();
        assert_eq!(BROAD.len(), shipped + made, "every line counts, and none twice");
        assert!(!is_broad("192.0.2.1") && !is_broad("[2001:db8::1]") && is_broad("localhost"));
    }

    #[test]
    fn no_error_repeats_the_address() {
        for url in ["mailto:someone@secret.example", "http://", "http://secret%2Fhost/", &"secret".repeat(2_000)] {
            assert!(!canonical(url).unwrap_err().to_string().contains("secret"), "{url}");
        }
    }

    #[test]
    fn an_address_of_escaped_escapes_costs_no_more_than_its_length() {
        let url = format!("http://example.org/%{}41", "25".repeat((URL_BYTES_MAX - 22) / 2));
        assert_eq!(canonical(&url).unwrap().expression(), "example.org/A");
        assert_eq!(
            canonical(&"a".repeat(URL_BYTES_MAX + 1)).unwrap_err(),
            UrlError::TooLong { got: URL_BYTES_MAX + 1 }
        );
        assert!(canonical(&format!("a.example/{}", "a".repeat(URL_BYTES_MAX - 10))).is_ok());
        let host = |length: usize| canonical(&format!("{}%{}/", "a".repeat(length - 1), "25".repeat(50) + "61"));
        assert!(host(HOST_BYTES_MAX).is_ok());
        assert_eq!(host(HOST_BYTES_MAX + 1), Err(UrlError::BadHost));
    }

    /// Changes a text in a few places, as somebody would who looks for a gap.
    fn mutated(text: &str, draw: &mut Draw) -> String {
        const PIECES: [&str; 25] = [
            "%", "%2", "%25", "%00", "%2F", "%5C", "%ff", "..", "/./", "/../", "//", "\\", "@", ":", "::", "[", "]",
            "?", "#", "\t", "\u{3002}", "xn--", "0x", "\u{202e}", "T1",
        ];
        let mut chars: Vec<char> = text.chars().collect();
        for _ in 0..=draw.below(4) {
            let at = usize::try_from(draw.below(chars.len() as u64 + 1)).unwrap();
            match draw.below(4) {
                0 => drop(chars.splice(at..at, PIECES[usize::try_from(draw.below(25)).unwrap()].chars())),
                1 => chars.truncate(at),
                2 => drop(chars.splice(at.., char::from_u32(u32::try_from(draw.below(0x11_0000)).unwrap()))),
                _ => chars.extend_from_within(at..),
            }
            chars.truncate(2 * URL_BYTES_MAX);
        }
        chars.into_iter().collect()
    }

    #[test]
    fn changed_addresses_and_hashes_are_refused_or_understood_but_never_a_panic() {
        let lines = include_str!("../../../tests/vectors/url.tsv").lines().filter(|line| !line.starts_with('#'));
        let lines = lines.flat_map(|line| line.split('\t')).map(read);
        let hashes = ["md5", "sha1", "sha256", "sha512", "pdq", "tlsh", "url", "account:3"];
        let hashes = hashes.map(|name| format!("{name}:T1{}", "0aB9".repeat(18)));
        let mut texts: Vec<_> = lines.chain(hashes).collect();
        let mut draw = Draw(5);
        let count = std::env::var("STAYDOWN_MUTATIONS").map_or(20_000, |count| count.parse().unwrap());
        for _ in 0..count {
            let at = usize::try_from(draw.below(texts.len() as u64)).unwrap();
            let text = mutated(&texts[at], &mut draw);
            if let Ok(one) = canonical(&text) {
                assert_eq!(canonical(&one.expression()).as_ref(), Ok(&one), "{text:?}");
                assert!(one.expressions().len() <= EXPRESSIONS_MAX);
            }
            let parsed = [super::super::parse_any(&text), super::super::parse("tlsh", &text)];
            assert!(parsed.iter().flatten().all(super::super::is_well_formed), "{text:?}");
            // What got further is changed again, while it is short.
            if text.len() < 300 {
                texts[at] = text;
            }
        }
    }

    proptest! {
        #[test]
        fn the_one_spelling_of_an_expression_is_itself(
            text in "(https?://)?([a-z0-9.%é。ｅ@:\\[\\]-]|%[0-9a-f]{2}){0,20}(/([a-zA-Z0-9./?%#é \\\\-]|%[0-9A-F]{2}|\\.\\.|//|%25){0,30})?",
        ) {
            if let Ok(one) = canonical(&text) {
                let again = canonical(&one.expression()).unwrap();
                prop_assert_eq!(&again, &one, "{}", text);
                prop_assert!(one.expression().bytes().all(|b| b.is_ascii_graphic()));
                let expressions = one.expressions();
                prop_assert!((1..=EXPRESSIONS_MAX).contains(&expressions.len()));
                prop_assert_eq!(&expressions[0].text, &one.expression());
                let distinct: BTreeSet<_> = expressions.iter().map(|expression| &expression.subject).collect();
                prop_assert_eq!(distinct.len(), expressions.len());
                prop_assert_eq!(expressions[0].whole_host, one.is_whole_host());
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            if let Ok(one) = canonical(&text) {
                prop_assert!(one.expressions().len() <= EXPRESSIONS_MAX);
            }
        }
    }
}
