//! Web addresses as people write them and posts have them.

use staydown::replica::signal::url::{EXPRESSIONS_MAX, URL_BYTES_MAX, canonical};
use staydown::replica::signal::{self, Alg};

use crate::parser::Parser;

/// Every address of the vectors, and some that are long in one thing.
pub(crate) fn parser() -> Parser {
    let vectors = include_str!("../vectors/url.tsv").lines().filter(|line| !line.starts_with('#'));
    let mut corpus: Vec<_> = vectors.filter_map(|line| Some(line.split('\t').nth(1)?.as_bytes().to_vec())).collect();
    for piece in ["%25", "/..", "//", ".a", "@", "%", "?", "\u{e9}", "%C3%A9", "[", "a/"] {
        corpus.push(format!("http://example.org/{}", piece.repeat(200)).into_bytes());
        corpus.push(format!("http://{}.example.org/a?b", piece.repeat(40)).into_bytes());
    }
    Parser { name: "url", inputs: 20_000, corpus, memory_max, repair: |_| (), check }
}

/// Thirty expressions, each of up to three times the bytes, and some copies on the way.
fn memory_max(bytes: &[u8]) -> usize {
    (3 * EXPRESSIONS_MAX + 200) * bytes.len().min(URL_BYTES_MAX) + 8 * bytes.len() + 65_536
}

/// One spelling, which is its own; and no more expressions than are allowed, the first of which is the address itself.
pub(crate) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(address) = canonical(&text) else { return };
    assert_eq!(canonical(&address.expression()).as_ref(), Ok(&address));
    let expressions = address.expressions();
    assert!((1..=EXPRESSIONS_MAX).contains(&expressions.len()));
    assert_eq!(expressions[0].subject, address.subject());
    assert!(expressions.iter().all(|expression| signal::is_well_formed(&expression.subject)));
    if let Ok(subject) = signal::parse(Alg::Url.name(), &text) {
        assert_eq!(subject.known_alg(), Some(Alg::Url));
    }
}
