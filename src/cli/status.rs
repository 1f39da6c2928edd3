//! `status`: how the node is.

use super::Invocation;
use super::failure::{Exit, Failure, Outcome};
use super::show;
use crate::answers;
use crate::replica::ids::{TimeMs, hex};
use crate::wire::local;

pub(super) async fn status(at: &Invocation) -> Outcome {
    let status = at.node().await?.status(local::StatusRequest {}).await?;
    if at.terminal.json {
        at.terminal.json(&answers::Status::from(status))?;
    } else {
        print(&status, at)?;
    }
    Ok(Exit::Ok)
}

fn print(s: &local::StatusResponse, at: &Invocation) -> Result<(), Failure> {
    let line = |name: &str, value: String| at.terminal.data(format!("{name:<12} {}", show::clean(&value)));
    line("Forum", forum(s))?;
    line("Fingerprint", hex(&s.forum_id))?;
    line("This node", format!("{} ({}), staydown {}", s.member, s.peer_address, s.version))?;
    line("Health", s.health.clone())?;
    for reason in &s.health_reasons {
        line("", reason.clone())?;
    }
    line("Peers", format!("{} of {} connected", s.peers_connected, s.peers_total))?;
    line(
        "List",
        format!(
            "{}, {}, {}",
            show::counted(whole(s.entries), "entry"),
            show::counted(whole(s.records), "record"),
            show::counted(whole(s.blocks), "block")
        ),
    )?;
    if s.outbox > 0 || s.guard_pending {
        line(
            "Outbox",
            format!(
                "{} wait to be signed until peers have confirmed our logs",
                show::counted(whole(s.outbox), "submission")
            ),
        )?;
    }
    if s.proofs > 0 {
        line("Forks", format!("{} against members; see the logs below", show::counted(s.proofs as usize, "proof")))?;
    }
    line("View", format!("{} at {}", hex(&s.view_digest), show::time(TimeMs(s.view_hour_ms))))?;
    for head in &s.heads {
        let fork = if head.forked_at > 0 { format!(", forked at block {}", head.forked_at) } else { String::new() };
        line("", format!("{} log {} ({}): block {}{fork}", head.member, head.log_no, head.lane, head.seq))?;
    }
    Ok(())
}

pub(super) fn forum(s: &local::StatusResponse) -> String {
    format!("{}, charter {} of {}", s.forum_name, s.charter_version, show::date(TimeMs(s.charter_issued_ms)))
}

fn whole(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
