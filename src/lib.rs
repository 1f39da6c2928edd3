//! staydown: the forum's hash-sharing node. `docs/ARCHITECTURE.md` is the map; read [`replica`] first.

pub mod access;
pub mod accounts;
pub mod answers;
pub mod cli;
pub mod clock;
pub mod config;
pub mod engine;
pub mod evidence;
pub mod fields;
pub mod hashing;
pub mod keys;
pub mod matcher;
pub mod meters;
pub mod metrics;
pub mod net;
pub mod node;
pub mod policy;
pub mod replica;
pub mod report;
pub mod store;
pub mod taxonomy;
pub mod telemetry;
pub mod web;
pub mod wire;
