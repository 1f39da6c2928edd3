//! What talks: to peers over mutual TLS, to our own company over a Unix socket.

mod accounts;
mod addresses;
pub mod calls;
pub mod counted;
pub mod deciding;
pub mod expiry;
mod floods;
pub mod follower;
mod labels;
pub mod limits;
pub mod local;
pub mod peer;
pub mod readiness;
pub mod report;
pub mod request_id;
pub mod reviews;
pub mod saying;
pub mod status;
pub mod survey;
pub mod tls;
