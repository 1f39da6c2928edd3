//! Protobuf to replica values and back, refusing on the way in.

pub mod endpoint;
pub mod files;
pub mod peer;

/// Messages of `staydown.local.v1`.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    reason = "generated; the documentation is in forum.proto"
)]
pub mod local {
    include!(concat!(env!("OUT_DIR"), "/messages/staydown.local.v1.rs"));
}

/// The generated client and server of the peer service.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    reason = "generated; the documentation is in peer.proto"
)]
pub mod peer_service {
    include!(concat!(env!("OUT_DIR"), "/services/staydown.peer.v1.rs"));
}

/// The generated client and server of the local service.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    reason = "generated; the documentation is in forum.proto"
)]
pub mod local_service {
    include!(concat!(env!("OUT_DIR"), "/services/staydown.local.v1.rs"));
}

/// The descriptors of all protos, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
