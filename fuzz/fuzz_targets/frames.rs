//! The parser of tests/parsers/frames.rs.
#![no_main]

#[expect(dead_code, reason = "only the check is used here")]
#[path = "../../tests/parsers/frames.rs"]
mod frames;
#[expect(dead_code, reason = "only the check is used here")]
#[path = "../../tests/parsers/parser.rs"]
mod parser;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| frames::check(bytes));
