//! Finding listed hashes near a given one. The answer equals brute force: a missed hash is a defect.
//!
//! [`HammingIndex`] holds distinct PDQ hashes and takes every change at once; a [`Snapshot`] of it answers. A lookup of
//! distance 31 or less reads a few hundred small buckets instead of the whole list (`search.rs` has the scheme and the
//! proof that it misses nothing); a larger distance, or a list that was built to fill the buckets, is scanned flat
//! (`scan.rs`), which is the worst that can happen. Exact types and documents have indexes of their own (`exact.rs`, `tlsh.rs`).
//!
//! All of it is pure: merges are values that the caller runs where it likes, the key of the bit permutation is an
//! argument, and every machine gives the same answers, with or without SIMD.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a segment holds fewer than 2^28 hashes (HASHES_MAX), so that numbers of hashes and positions among their 16 \
              bands are u32; bands, bits and distances are small"
)]

pub mod exact;
pub mod frames;
pub mod tlsh;

mod bytes;
mod dead;
mod hamming;
mod nearest;
mod permutation;
mod scan;
mod search;
mod segment;
mod simd;
mod sorted;
#[cfg(test)]
mod tests;

pub use self::bytes::ReadError;
pub use self::hamming::{HammingIndex, Merge, Merged, Retired, Sizes, Snapshot};
pub use self::nearest::Near;
pub use self::scan::Path;
pub use self::search::Effort;

/// Matches of one query: more than this are told as "truncated".
pub const MATCHES_MAX: usize = 1_000;

/// A PDQ hash.
pub type Pdq = [u8; 32];
