//! A frame, as it comes from a peer, and its header.
#![no_main]

use bytes::Bytes;
use staydown::replica::block::{Frame, Header};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(frame) = Frame::decode(Bytes::copy_from_slice(bytes)) {
        assert_eq!(Frame::decode(frame.encode()).as_ref(), Ok(&frame));
    }
    if let Ok(bytes) = bytes.try_into()
        && let Ok(header) = Header::decode(bytes)
    {
        assert_eq!(header.encode(), *bytes);
    }
});
