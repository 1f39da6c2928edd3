//! The web listener as a stranger, a program, a browser and an attacker meet it: raw requests at real nodes.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]
#![expect(unreachable_pub, reason = "helpers are shared between the modules of this binary only")]

#[path = "../node/forum.rs"]
#[macro_use]
#[expect(dead_code, reason = "the nodes' forum does more than this needs")]
mod forum;
mod house;
mod wire;
#[path = "../story/world.rs"]
#[expect(dead_code, reason = "the story's forum does more than this needs")]
mod world;

mod doors;
mod forgery;
mod hostile;
mod patience;
mod secrets;
mod sessions;
mod sizes;
