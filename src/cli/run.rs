//! `run`: the node, until it is told to stop.

use std::io::{self, Read as _};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::Invocation;
use super::failure::{Exit, Failure, Outcome, io_failure};
use crate::config::{Config, KEYS};
use crate::node::{self, NodeError, Ready, Reload};
use crate::telemetry::{self, Telemetry};

#[derive(Args)]
pub(super) struct RunArgs {
    /// Where peers are awaited, as in 0.0.0.0:7700
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Stop when stdin ends: a node that was started by a program does not outlive it
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

pub(super) async fn run(args: &RunArgs, at: &Invocation) -> Outcome {
    let config = at.config_with(listen(args))?;
    let _telemetry = start_telemetry(&config)?;
    let (stop, again) = stop_signals(args.exit_with_stdin)?;
    let terminal = at.terminal;
    let (ready, is_ready) = oneshot::channel::<Ready>();
    let begun = config.clone();
    let told = async move {
        if let Ok(ready) = is_ready.await {
            let console = ready.console.map(|at| format!(", console on {at}/")).unwrap_or_default();
            let socket = ready.socket.display();
            terminal.talk(format!("ready: peers on {}, local service on {socket}{console}", ready.peer));
            take_up_settings(&begun, || at.config_with(listen(args)), ready.reloads.subscribe()).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = Box::pin(node::run(config, ready, stop)) => {
            ended.map(|()| Exit::Ok).map_err(|error| node_failure(&error))
        }
        () = told => Ok(Exit::Ok),
        // What was acknowledged is on disk, and the next start removes what lies around.
        () = again => Err(Failure::new(Exit::Failed, "stopped at once by a second signal; requests that were under way got no answer")),
    }
}

fn listen(args: &RunArgs) -> Option<(&'static str, &'static str, String)> {
    args.listen.as_ref().map(|at| ("peer.listen", "--listen", at.clone()))
}

/// Reads the settings again at each SIGHUP: the log filter is taken up, of the rest it is said what needs a restart. Settings
/// that make no sense change nothing.
async fn take_up_settings(begun: &Config, read: impl Fn() -> Result<Config, Failure>, mut reload: Reload) {
    let mut in_use = begun.log.filter.clone();
    loop {
        let _underway = reload.asked().await;
        let config = match read() {
            Ok(config) => config,
            Err(failure) => {
                let mistakes = failure.culprits.join("; ");
                tracing::warn!(mistakes, "the settings are not read again: {}", failure.cause);
                continue;
            }
        };
        if config.log.filter != in_use {
            in_use.clone_from(&config.log.filter);
            tracing::info!(filter = in_use, "the log filter is in use from now on");
            telemetry::filter_by(&in_use);
        }
        let waits: Vec<_> = waits_for_a_restart(begun, &config).collect();
        if !waits.is_empty() {
            tracing::warn!(settings = waits.join(", "), "settings have changed that only a restart takes up");
        }
    }
}

/// The settings that differ and that a running node goes on without.
fn waits_for_a_restart(begun: &Config, now: &Config) -> impl Iterator<Item = &'static str> {
    KEYS.into_iter().filter(|key| *key != "log.filter" && begun.value_of(key) != now.value_of(key))
}

/// What a node says when it cannot start or go on.
pub(super) fn node_failure(error: &NodeError) -> Failure {
    let exit = match error.exit_code() {
        4 => Exit::Refused,
        5 => Exit::Unreachable,
        6 => Exit::Verification,
        65 => Exit::BadInput,
        70 => Exit::Bug,
        73 => Exit::InUse,
        74 => Exit::Io,
        75 => Exit::Storage,
        78 => Exit::Config,
        _ => Exit::Failed,
    };
    let message = error.to_string();
    match message.rsplit_once("; fix: ") {
        Some((cause, fix)) => Failure::new(exit, cause).fix(fix),
        None => match error.fix() {
            Some(fix) => Failure::new(exit, message).fix(fix),
            None => Failure::new(exit, message),
        },
    }
}

/// The node's own log goes to stderr, for as long as what is returned lives. A second call in one process changes nothing.
pub(super) fn start_telemetry(config: &Config) -> Result<Telemetry, Failure> {
    telemetry::start(config, use_colour()).map_err(|why| Failure::new(Exit::Config, why))
}

fn use_colour() -> bool {
    use io::IsTerminal as _;
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

/// Resolves on SIGTERM, SIGINT, and at the end of stdin if that is asked for.
pub(super) fn stop_signal(with_stdin: bool) -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    Ok(stop_signals(with_stdin)?.0)
}

/// The same, and what resolves on the second signal: whoever sends it does not want to wait.
fn stop_signals(
    with_stdin: bool,
) -> Result<(impl Future<Output = ()> + Send + 'static, impl Future<Output = ()> + Send + 'static), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(io_failure("cannot await SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io_failure("cannot await SIGINT"))?;
    let stdin_ended = with_stdin.then(end_of_stdin);
    let ((first, is_first), (second, is_second)) = (oneshot::channel::<()>(), oneshot::channel::<()>());
    let first_word = async move {
        let stdin_ended = async move {
            match stdin_ended {
                Some(ended) => drop(ended.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = stdin_ended => {}
        }
        let _told = first.send(());
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _told = second.send(());
    };
    spawn(first_word);
    Ok((async move { drop(is_first.await) }, async move { drop(is_second.await) }))
}

#[expect(clippy::disallowed_methods, reason = "it waits for signals for as long as the process lives")]
fn spawn(signals: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(signals));
}

/// A thread of its own: a read of stdin cannot be cancelled, and must not hold up the end of the runtime.
fn end_of_stdin() -> oneshot::Receiver<()> {
    let (ended, has_ended) = oneshot::channel();
    std::thread::spawn(move || {
        let mut sink = [0; 256];
        while io::stdin().read(&mut sink).is_ok_and(|read| read > 0) {}
        let _told = ended.send(());
    });
    has_ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reload_does_not_take_up_is_named() {
        let begun = Config::default_in("/d".into());
        let mut now = begun.clone();
        now.log.filter = "debug".to_owned();
        assert_eq!(waits_for_a_restart(&begun, &now).count(), 0);
        now.peer.listen.set_port(1);
        now.policy.shadow = true;
        assert_eq!(waits_for_a_restart(&begun, &now).collect::<Vec<_>>(), ["peer.listen", "policy.shadow"]);
    }
}
