//! The only file that reads time or draws randomness. Everything else receives both as arguments.

use std::time::{Duration, Instant, SystemTime};

use crate::replica::ids::TimeMs;

/// The wall clock, in Unix milliseconds.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> TimeMs {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    TimeMs(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// A monotone instant, for durations only.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn instant() -> Instant {
    Instant::now()
}

/// `N` bytes from the operating system's random source.
///
/// # Panics
/// If the operating system has no randomness to give: nothing that signs may go on then.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        panic!("the operating system gives no randomness: {error}");
    }
    bytes
}
