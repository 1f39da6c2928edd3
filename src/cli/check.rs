//! `check`: one line and an exit code for monitoring, in the convention that monitoring systems share: 0 OK, 1 WARNING, 2 CRITICAL,
//! 3 UNKNOWN.

use super::failure::{Exit, Failure, Outcome};
use super::{Invocation, show};
use crate::answers;
use crate::net::readiness::{readiness, sentence};
use crate::wire::local;

/// How a node is, to a monitoring system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The same numbers mean other things to other commands.
    fn exit(self) -> Exit {
        match self {
            Self::Ok => Exit::Ok,
            Self::Warning => Exit::Failed,
            Self::Critical => Exit::Usage,
            Self::Unknown => Exit::NotFound,
        }
    }
}

pub(super) async fn check(at: &Invocation) -> Outcome {
    let checked = match status(at).await {
        Ok(status) => of_status(&status),
        Err(failure) => of_failure(&failure),
    };
    if at.terminal.json {
        at.terminal.json(&checked.answer)?;
    } else {
        at.terminal.data(line(&checked.answer))?;
    }
    Ok(checked.level.exit())
}

async fn status(at: &Invocation) -> Result<local::StatusResponse, Failure> {
    at.node().await?.status(local::StatusRequest {}).await
}

/// What was found.
struct Checked {
    level: Level,
    answer: answers::Checked,
}

impl Checked {
    fn new(level: Level, text: String) -> Self {
        let answer = answers::Checked {
            level: level.name(),
            exit_code: level.exit() as u8,
            text,
            ready: false,
            reasons: Vec::new(),
            figures: None,
        };
        Self { level, answer }
    }
}

fn of_status(status: &local::StatusResponse) -> Checked {
    let ready = readiness(status);
    let level = match (&ready, status.health.as_str()) {
        (Err(_), _) | (_, "RED") => Level::Critical,
        (_, "GREEN") => Level::Ok,
        (_, "YELLOW") => Level::Warning,
        _ => Level::Unknown,
    };
    let mut checked = Checked::new(level, sentence(status));
    checked.answer.ready = ready.is_ok();
    checked.answer.reasons.clone_from(&status.health_reasons);
    checked.answer.figures = Some(answers::CheckedFigures {
        peers_connected: status.peers_connected,
        peers_total: status.peers_total,
        entries: status.entries,
        blocks_missing: status.blocks_missing,
        outbox: status.outbox,
    });
    checked
}

/// A node that does not answer is critical; that nobody can tell, because this command may not ask or its settings make no
/// sense, is not known.
fn of_failure(failure: &Failure) -> Checked {
    let forbidden = failure.culprits.iter().any(|culprit| culprit.contains("local.mode"));
    let level = match failure.exit {
        Exit::Unreachable if !forbidden => Level::Critical,
        _ => Level::Unknown,
    };
    let mut checked = Checked::new(level, failure.cause.clone());
    checked.answer.reasons.clone_from(&failure.culprits);
    checked.answer.reasons.extend(failure.fix.as_ref().map(|fix| format!("fix: {fix}")));
    checked
}

/// `LEVEL: sentence | figures`, in one line whatever stands in it: what follows the bar is drawn by monitoring systems.
fn line(checked: &answers::Checked) -> String {
    let text = show::clean(&checked.text).replace('|', "/");
    let mut line = format!("{}: {text}", checked.level);
    if let Some(f) = &checked.figures {
        line.push_str(&format!(
            " | peers={};;;0;{} entries={} blocks_missing={} outbox={}",
            f.peers_connected, f.peers_total, f.entries, f.blocks_missing, f.outbox
        ));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(health: &str, reasons: &[&str]) -> local::StatusResponse {
        local::StatusResponse {
            health: health.into(),
            health_reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
            blocks: 7,
            entries: 3,
            peers_connected: 2,
            peers_total: 3,
            ..Default::default()
        }
    }

    #[test]
    fn health_and_readiness_become_the_codes_of_monitoring() {
        let stopping = local::StatusResponse { draining: true, ..status("GREEN", &[]) };
        for (status, code, expected) in [
            (status("GREEN", &[]), 0, "OK: in sync with 2 of 3 peers, 3 entries | peers=2;;;0;3 entries=3 "),
            (status("YELLOW", &["a|b\nc"]), 1, "WARNING: a/b\u{b7}c | peers="),
            (status("RED", &["one", "two"]), 2, "CRITICAL: one (and 1 more) | "),
            (stopping, 2, "CRITICAL: the node is stopping | "),
            (status("MAUVE", &[]), 3, "UNKNOWN: "),
        ] {
            let checked = of_status(&status);
            assert_eq!((checked.level.exit() as u8, checked.answer.exit_code), (code, code));
            let line = line(&checked.answer);
            assert!(line.starts_with(expected) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_node_that_does_not_answer_is_critical_and_one_that_may_not_be_asked_unknown() {
        let down = Failure::new(Exit::Unreachable, "the node cannot be reached").fix("staydown run");
        assert_eq!(of_failure(&down).level, Level::Critical);
        assert_eq!(of_failure(&down).answer.reasons, ["fix: staydown run"]);
        let forbidden = down.culprit("the settings local.socket and local.mode say who may ask this node");
        assert_eq!(of_failure(&forbidden).level, Level::Unknown);
        let settings = of_failure(&Failure::new(Exit::Config, "the settings have 2 mistakes"));
        assert_eq!(
            (settings.level, line(&settings.answer)),
            (Level::Unknown, "UNKNOWN: the settings have 2 mistakes".into())
        );
    }
}
