//! The console as a person has it: a real Chromium at real nodes.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]
#![expect(unreachable_pub, reason = "helpers are shared between the modules of this binary only")]

mod chrome;
#[path = "../story/world.rs"]
#[expect(dead_code, reason = "the story's forum does more than a browser needs")]
mod world;

mod demo;
mod encrypted;
mod noticing;
mod pages;
mod stage;
mod work;
