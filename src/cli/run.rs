//! `run`: the node, until it is told to stop.

use std::io::{self, Read as _};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

use super::Invocation;
use super::failure::{Exit, Failure, Outcome, io_failure};
use crate::config::{Config, LogFormat};
use crate::node::{self, NodeError, Ready};

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
    let config = at.config_with(args.listen.as_ref().map(|at| ("peer.listen", "--listen", at.clone())))?;
    start_telemetry(&config);
    let stop = stop_signal(args.exit_with_stdin)?;
    let terminal = at.terminal;
    let (ready, is_ready) = oneshot::channel::<Ready>();
    let told = async move {
        if let Ok(ready) = is_ready.await {
            let console = ready.console.map(|at| format!(", console on {at}/")).unwrap_or_default();
            let socket = ready.socket.display();
            terminal.talk(format!("ready: peers on {}, local service on {socket}{console}", ready.peer));
        }
    };
    let (ended, ()) = tokio::join!(Box::pin(node::run(config, ready, stop)), told);
    ended.map(|()| Exit::Ok).map_err(|error| node_failure(&error))
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

/// The node's own log goes to stderr. A second call in one process changes nothing.
pub(super) fn start_telemetry(config: &Config) {
    let filter = EnvFilter::try_new(&config.log.filter).unwrap_or_else(|_checked_before| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match config.log.format {
        LogFormat::Text => builder.with_ansi(use_colour()).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    drop(started);
}

fn use_colour() -> bool {
    use io::IsTerminal as _;
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

/// Resolves on SIGTERM, SIGINT, and at the end of stdin if that is asked for.
pub(super) fn stop_signal(with_stdin: bool) -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(io_failure("cannot await SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io_failure("cannot await SIGINT"))?;
    let stdin_ended = with_stdin.then(end_of_stdin);
    Ok(async move {
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
    })
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
