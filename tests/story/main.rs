//! The README's story, and what goes wrong in it: with the built binary only, as a person uses it.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]
#![expect(unreachable_pub, reason = "helpers are shared between the modules of this binary only")]

mod world;

mod accounts;
mod addresses;
mod admission;
mod backfill;
mod batches;
mod demo;
mod drills;
mod drills_keys;
mod drills_words;
mod evidence;
mod flood;
mod governing;
mod joining;
mod keys;
mod logs;
mod malformed;
mod operating;
mod opinions;
mod policy;
mod privacy;
mod readme;
mod report;
mod streams;
mod taxonomy;
mod verifying;
mod videos;
