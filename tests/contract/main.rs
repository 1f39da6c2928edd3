//! The contract with programs in other languages: the document of the HTTP API holds for a running node, a client that is
//! made from it works, no request that it allows or forbids breaks the node, and gRPC works from Python over TLS.
//!
//! Real nodes, the real program, and Python packages that `.ci/run` installs: where they are missing these tests fail if
//! CI is true, and say that they are skipped otherwise.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]
#![expect(unreachable_pub, dead_code, reason = "helpers are shared with the stories, which use all of them")]

#[path = "../story/world.rs"]
mod world;

mod answers;
mod documents;
mod http;
mod requests;
mod scopes;
mod tls;
mod tools;
