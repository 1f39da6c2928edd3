//! What the service manager is told, over the socket that `NOTIFY_SOCKET` names: that the node serves, how it is, that it
//! reads its files again, that it ends, and that its engine lives. Without that variable nothing of this happens.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::clock;
use crate::engine::Handle;
use crate::net::local::LocalService;
use crate::net::readiness;

/// How often the sentence about the node is looked at.
const STATUS_LOOK: Duration = Duration::from_secs(5);
/// Looks at the engine in one interval of the watchdog: it is told at each half, and a look that came just too early must not cost
/// the next half.
const LOOKS_PER_INTERVAL: u32 = 8;

/// The node serves.
pub(super) fn ready(sentence: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&one_line(sentence))]);
}

/// The files are read again.
pub(super) fn reloading() {
    // systemd takes a reload for finished only if this time lies after its signal.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("reading files again")]),
        Err(error) => tracing::warn!(%error, "the service manager is not told of the reload: no monotonic clock"),
    }
}

/// The node was told to stop.
pub(super) fn stopping(sentence: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(&one_line(sentence))]);
}

/// Tells the state when it changes, and that the engine lives, until `stopped`.
pub(super) async fn keep_told(service: LocalService, engine: Handle, stopped: impl Future<Output = ()>) {
    tokio::pin!(stopped);
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return stopped.await;
    }
    let mut watchdog = sd_notify::watchdog_enabled().map(Watchdog::new);
    let mut looks = tokio::time::interval(watchdog.as_ref().map_or(STATUS_LOOK, Watchdog::look));
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut told, mut status_due) = (String::new(), clock::instant());
    loop {
        tokio::select! {
            () = &mut stopped => return,
            _ = looks.tick() => {}
        }
        let now = clock::instant();
        if watchdog.as_mut().is_some_and(|watchdog| watchdog.may_tell(engine.shared().beats(), now)) {
            tell(&[NotifyState::Watchdog]);
        }
        if now >= status_due {
            status_due = now + STATUS_LOOK;
            let sentence = one_line(&readiness::sentence(&service.state()));
            if sentence != told {
                tell(&[NotifyState::Status(&sentence)]);
                told = sentence;
            }
        }
    }
}

/// When the service manager is told that the engine lives: it has done something since it was told last, and half of the
/// interval is over. What ticks is the engine's own thread: timers of the runtime go on when it hangs.
struct Watchdog {
    interval: Duration,
    told: Option<(u64, std::time::Instant)>,
}

impl Watchdog {
    fn new(interval: Duration) -> Self {
        Self { interval, told: None }
    }

    fn look(&self) -> Duration {
        (self.interval / LOOKS_PER_INTERVAL).min(STATUS_LOOK)
    }

    fn may_tell(&mut self, beats: u64, now: std::time::Instant) -> bool {
        let may = self.told.is_none_or(|(before, at)| beats != before && now.duration_since(at) * 2 >= self.interval);
        if may {
            self.told = Some((beats, now));
        }
        may
    }
}

/// A sentence cannot begin another assignment: names of members are in it.
fn one_line(sentence: &str) -> String {
    sentence.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn tell(states: &[NotifyState<'_>]) {
    // A service manager that does not listen must not end the node; its own timeouts will.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_told_at_half_its_interval_while_the_engine_does_something() {
        let mut watchdog = Watchdog::new(Duration::from_secs(8));
        assert_eq!(watchdog.look(), Duration::from_secs(1));
        let begun = clock::instant();
        let mut tell = |seconds, beats| watchdog.may_tell(beats, begun + Duration::from_secs(seconds));
        assert!(tell(0, 5), "at once");
        assert!(!tell(3, 9), "not before half the interval");
        assert!(tell(4, 9));
        assert!(!tell(8, 9), "the engine has done nothing since");
        assert!(!tell(20, 9));
        assert!(tell(21, 10), "it goes on");
    }

    #[test]
    fn a_name_cannot_tell_the_service_manager_anything() {
        assert_eq!(one_line("acme\nMAINPID=1\u{7f}\r"), "acme MAINPID=1  ");
    }
}
