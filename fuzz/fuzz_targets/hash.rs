//! The parser of tests/parsers/hash.rs.
#![no_main]

#[expect(dead_code, reason = "only the check is used here")]
#[path = "../../tests/parsers/hash.rs"]
mod hash;
#[expect(dead_code, reason = "only the check is used here")]
#[path = "../../tests/parsers/parser.rs"]
mod parser;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hash::check(bytes));
