//! The parser of tests/parsers/image.rs.
#![no_main]

#[expect(dead_code, reason = "only the check is used here")]
#[path = "../../tests/parsers/image.rs"]
mod image;
#[expect(dead_code, reason = "only the check is used here")]
#[path = "../../tests/parsers/parser.rs"]
mod parser;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| image::check(bytes));
