//! A record: what passes the strict scan has one encoding.
#![no_main]

use prost::Message as _;
use staydown::replica::strict::{self, Scanned};
use staydown::replica::{proto, record};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let scanned = strict::scan(bytes, &strict::RECORD);
    if scanned == Ok(Scanned::Known) {
        assert_eq!(proto::Record::decode(bytes).unwrap().encode_to_vec(), bytes);
    }
    if let record::Parsed::Says(_) = record::parse(bytes) {
        assert_eq!(scanned, Ok(Scanned::Known));
    }
});
