//! The body of a charter: one encoding for one charter of the levels that we know.
#![no_main]

use prost::Message as _;
use staydown::replica::charter::Charter;
use staydown::replica::proto;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(charter) = Charter::decode(bytes) {
        let again = proto::Charter::decode(bytes).unwrap().encode_to_vec();
        assert!(again == bytes || charter.semantics > 1);
    }
});
