//! The parser of tests/parsers/url.rs.
#![no_main]

#[expect(dead_code, reason = "only the check is used here")]
#[path = "../../tests/parsers/url.rs"]
mod url;
#[expect(dead_code, reason = "only the check is used here")]
#[path = "../../tests/parsers/parser.rs"]
mod parser;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| url::check(bytes));
