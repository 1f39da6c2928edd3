//! Evidence: files that anybody can check on a machine with nothing but the forum's fingerprint. A *bundle* holds the
//! whole list, a *receipt* some records with the path from each to a signature and to a member. docs/verify.md
//! describes both byte by byte; `clients/python/` checks them without a line of this program.

pub mod export;
pub mod format;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]
mod sets;
pub mod verify;
