//! How a live connection is ended from outside, at once, whatever it waits for.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// A mark on a connection that it is over, which wakes whoever waits on it.
#[derive(Default)]
pub(super) struct Cut {
    done: AtomicBool,
    wakers: Mutex<[Option<Waker>; 2]>,
}

#[derive(Clone, Copy)]
pub(super) enum Side {
    Read = 0,
    Write = 1,
}

impl Cut {
    pub(super) fn cut(&self) {
        self.done.store(true, Ordering::Release);
        let wakers = std::mem::take(&mut *self.wakers.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn check(&self) -> io::Result<()> {
        if self.done.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "connection cut by this node"));
        }
        Ok(())
    }

    /// Before and after: who waits is either woken by the cut or sees it here.
    pub(super) fn guard<T>(
        &self,
        side: Side,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.check()?;
        let polled = poll(cx);
        if polled.is_pending() {
            let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut wakers[side as usize] {
                Some(waker) => waker.clone_from(cx.waker()),
                empty => *empty = Some(cx.waker().clone()),
            }
            drop(wakers);
            self.check()?;
        }
        polled
    }
}
