//! The fence around sled: a panic inside it becomes an error, said once and quietly.
//!
//! sled 0.34 panics on damaged files instead of returning errors. What this fence cannot catch, read in its sources:
//!
//! - A panic in one of its own `sled-io-*` threads. The thread is gone, nobody is told, and whoever waits for its work
//!   (`flush`, `open`) waits for ever on a condition variable. Seven such threads serve the whole process. They are
//!   counted here ([`io_threads_lost`]); waiting is bounded where [`super::Store`] writes and where it opens.
//! - A write error that hits a buffer whose last writer leaves after it was sealed is stored without waking the waiter:
//!   `flush` hangs on a full disk. Bounded likewise.
//! - A panic while a half-built database is dropped because of an earlier panic ends the process (double panic), and so
//!   does running out of memory. Both leave the files as a crash would.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();
static IO_THREADS_LOST: AtomicU32 = AtomicU32::new(0);

/// sled starts seven threads for its reads and writes and replaces none.
pub(super) const IO_THREADS: u32 = 7;

/// Runs `inside`; a panic becomes its message and place. The process's panic hook is not called for it.
pub(super) fn caught<T>(inside: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(install_hook);
    DEPTH.with(|depth| depth.set(depth.get() + 1));
    // Unwind safety: whoever gets an error closes the store for writing, and every value read is checked by its seal.
    let outcome = panic::catch_unwind(AssertUnwindSafe(inside));
    DEPTH.with(|depth| depth.set(depth.get() - 1));
    outcome.map_err(|payload| {
        let place = PLACE.with(|place| place.borrow_mut().take());
        format!("sled panicked{}: {}", place.unwrap_or_default(), message(&*payload))
    })
}

/// How many of sled's own threads have died of a panic in this process. One is a reason to restart the process soon;
/// with `IO_THREADS` of them sled does nothing any more.
pub fn io_threads_lost() -> u32 {
    IO_THREADS_LOST.load(Ordering::SeqCst)
}

fn install_hook() {
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if DEPTH.try_with(Cell::get).unwrap_or(0) > 0 {
            let place = panic.location().map(|at| format!(" at {}:{}", at.file(), at.line()));
            PLACE.with(|last| *last.borrow_mut() = place);
        } else if std::thread::current().name().is_some_and(|name| name.starts_with("sled-io-")) {
            IO_THREADS_LOST.fetch_add(1, Ordering::SeqCst);
        } else {
            previous(panic);
        }
    }));
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_inside_the_fence_becomes_its_message() {
        let fence = caught(|| -> u32 { panic!("a page of {} bytes", 7) });
        let message = fence.unwrap_err();
        assert!(message.contains("a page of 7 bytes") && message.contains("guard.rs"), "{message}");
        assert_eq!(caught(|| 5), Ok(5));
    }

    #[test]
    fn a_fence_within_a_fence_leaves_the_outer_one_standing() {
        let outer = caught(|| {
            let inner = caught(|| -> u32 { panic!("inner") });
            assert!(inner.is_err());
            DEPTH.with(Cell::get)
        });
        assert_eq!(outer, Ok(1));
        assert_eq!(DEPTH.with(Cell::get), 0);
    }
}
