//! How much memory a piece of work takes at most: an allocator that counts for each thread.

#![expect(unsafe_code, reason = "an allocator cannot be written without; it hands everything on to the system's")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

thread_local! {
    /// Bytes held now, and the most since the last question. Constant and without a destructor, so that they can be
    /// used while a thread begins and ends.
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// What `work` gives, and how many bytes more than before were held by this thread while it was done.
pub(crate) fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (result, PEAK.get().saturating_sub(before))
}

fn taken(size: usize) {
    HELD.set(HELD.get().saturating_add(size));
    PEAK.set(PEAK.get().max(HELD.get()));
}

fn freed(size: usize) {
    // What another thread allocated may be freed here.
    HELD.set(HELD.get().saturating_sub(size));
}

// SAFETY: every call is handed on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Both may be held while one is copied to the other.
        taken(new_size);
        freed(layout.size());
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        freed(layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[test]
fn the_peak_is_what_was_held_at_once() {
    let (kept, peak) = measured(|| {
        drop(vec![0u8; 3_000_000]);
        vec![0u8; 1_000_000]
    });
    assert_eq!((kept.len(), peak), (1_000_000, 3_000_000));
}
