//! The index against a full scan.
