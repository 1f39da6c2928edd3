//! SIGHUP: everybody who has something to read again is asked, and all are waited for, so that whoever sent it can be told
//! when the new files are in use.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

/// Asks everybody to read again what they go by.
#[derive(Clone, Debug, Default)]
pub struct Reloads(Arc<Mutex<Vec<mpsc::Sender<Underway>>>>);

/// One who is asked.
#[derive(Debug)]
pub struct Reload(mpsc::Receiver<Underway>);

/// Held until what was asked for is done.
#[derive(Debug)]
pub struct Underway {
    _done: mpsc::Sender<Infallible>,
}

impl Reloads {
    /// Is asked from now on.
    pub fn subscribe(&self) -> Reload {
        // One question waits at most: who is asked twice before the first look reads the newest file anyway.
        let (asks, asked) = mpsc::channel(1);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(asks);
        Reload(asked)
    }

    /// Asks everybody who is still there, and waits until all have done it.
    pub async fn ask_all(&self) {
        let (done, mut all_done) = mpsc::channel(1);
        let asks = {
            let mut asks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            asks.retain(|asks| !asks.is_closed());
            asks.clone()
        };
        for asks in asks {
            // Who has gone meanwhile has nothing to read.
            drop(asks.send(Underway { _done: done.clone() }).await);
        }
        drop(done);
        // Nothing is ever sent: it ends when the last one has let go.
        let _ended: Option<Infallible> = all_done.recv().await;
    }
}

impl Reload {
    /// Resolves when this is to be read again; what it gives is held until that is done.
    pub async fn asked(&mut self) -> Underway {
        match self.0.recv().await {
            Some(underway) => underway,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn all_are_asked_and_all_are_waited_for() {
        let reloads = Reloads::default();
        reloads.ask_all().await;
        let (mut one, mut other) = (reloads.subscribe(), reloads.subscribe());
        drop(reloads.subscribe());
        let mut asking = Box::pin(reloads.ask_all());
        assert!(asking.as_mut().now_or_never().is_none());
        let first = one.asked().await;
        assert!(asking.as_mut().now_or_never().is_none(), "one has not even begun");
        drop(other.asked().await);
        assert!(asking.as_mut().now_or_never().is_none(), "one is still under way");
        drop(first);
        asking.await;
        drop(other);
        let (asked, ()) = tokio::join!(async { drop(one.asked().await) }, reloads.ask_all());
        assert_eq!(asked, ());
    }
}
