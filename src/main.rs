//! The program: runs one command and returns its exit code. A bug is told as a bug, never as a backtrace.

use std::panic::{self, PanicHookInfo};
use std::process::ExitCode;
use std::sync::Mutex;

use staydown::cli;
use staydown::cli::failure::{Exit, Failure};
use staydown::cli::terminal::Terminal;

/// What the last panic said. Kept and not printed: damage in the replica store arrives as panics too, and those are
/// caught and healed.
static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);

fn main() -> ExitCode {
    panic::set_hook(Box::new(remember));
    let arguments: Vec<_> = std::env::args_os().collect();
    let ended = panic::catch_unwind(|| cli::main(&arguments));
    ended.unwrap_or_else(|_panic| report()).into()
}

fn remember(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let owned = payload.downcast_ref::<String>().map(String::as_str);
    let what = payload.downcast_ref::<&str>().copied().or(owned).unwrap_or("no message");
    let place = panic.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
    if let Ok(mut last) = LAST_PANIC.lock() {
        *last = Some(format!("{what}{place}"));
    }
}

fn report() -> Exit {
    let last = LAST_PANIC.lock().ok().and_then(|mut last| last.take()).unwrap_or_default();
    let json = std::env::args_os().any(|argument| argument == "--json");
    let failure = Failure::new(Exit::Bug, "this is a bug, please report it")
        .culprit(last)
        .culprit(format!("staydown {}", env!("CARGO_PKG_VERSION")))
        .fix("run it again; what was acknowledged is safe");
    Terminal { json, quiet: false, yes: false }.fail(&failure);
    Exit::Bug
}
