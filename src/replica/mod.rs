//! The heart: pure.

pub mod signal;
pub mod ids;

/// Messages of `staydown.peer.v1`.
#[expect(missing_docs, clippy::all, reason = "generated; the documentation is in the proto files")]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/messages/staydown.peer.v1.rs"));
}
