//! Hashes as people and programs write them.

use staydown::replica::signal::{self, Alg, Subject};

use crate::parser::Parser;

/// Each kind with its name before it, beside it, and without; upper case and spaces.
pub(crate) fn parser() -> Parser {
    let mut corpus = Vec::new();
    for alg in (0..=u16::from(u8::MAX)).filter_map(Alg::from_number) {
        let Some(length) = alg.digest_len() else { continue };
        let digest: Vec<u8> = (0..length).map(|i| i.to_le_bytes()[0].wrapping_mul(37) ^ 0xa5).collect();
        let subject = Subject::of(alg, &digest);
        corpus.push(format!("{}:{}", alg.name(), subject.value()).into_bytes());
        corpus.push(subject.value().to_uppercase().into_bytes());
        corpus.push(format!("  {}\t\n", subject.value()).into_bytes());
    }
    Parser { name: "hash", inputs: 20_000, corpus, memory_max, repair: |_| (), check }
}

/// Errors repeat a part of the input; the input itself is copied once or twice on the way.
fn memory_max(bytes: &[u8]) -> usize {
    8 * bytes.len() + 4096
}

/// What is read is well formed, and what is printed is read again as the same.
pub(crate) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let again = |subject: &Subject| {
        assert!(signal::is_well_formed(subject));
        assert_eq!(signal::parse(&subject.type_name(), &subject.value()).as_ref(), Ok(subject));
    };
    if let Ok(subject) = signal::parse_any(&text) {
        again(&subject);
    }
    for alg in [Alg::Pdq, Alg::Md5, Alg::Sha256, Alg::Tlsh] {
        if let Ok(subject) = signal::parse(alg.name(), &text) {
            assert_eq!(subject.known_alg(), Some(alg));
            again(&subject);
        }
    }
}
