//! `peer list`: the connections to the other members, as seen from here, and who was refused at the door.

use clap::Subcommand;

use super::Invocation;
use super::failure::{Exit, Outcome};
use super::show;
use crate::answers;
use crate::replica::ids::TimeMs;
use crate::wire::local;

#[derive(Subcommand)]
pub(super) enum PeerCommand {
    /// Show each peer: state, what is missing on either side, last error
    List {
        /// Show who dialled this node and was refused, or refused it, and why
        #[arg(long)]
        refused: bool,
    },
}

pub(super) async fn peer(command: PeerCommand, at: &Invocation) -> Outcome {
    let PeerCommand::List { refused } = command;
    let local::ListPeersResponse { peers, refused: connections, .. } =
        at.node().await?.peers(local::ListPeersRequest {}).await?;
    if refused {
        return refusals(connections, at);
    }
    if at.terminal.json {
        at.terminal.json(&peers.into_iter().map(answers::Peer::from).collect::<Vec<_>>())?;
        return Ok(Exit::Ok);
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["MEMBER", "ENDPOINT", "STATE", "WE LACK", "THEY LACK", "SAME VIEW", "LAST ERROR"]);
    for p in &peers {
        let cells = [
            show::clean(&p.member),
            show::clean(&p.endpoint),
            show::clean(&p.state),
            show::count(p.theirs_missing_here),
            show::count(p.ours_missing_there),
            show::clean(&p.agrees),
            show::clean(cause_and_fix(&p.last_error).0),
        ];
        table.add_row(cells);
    }
    at.terminal.data(table.trim_fmt())?;
    for p in &peers {
        if let Some(fix) = cause_and_fix(&p.last_error).1 {
            at.terminal.data(format!("  {}: fix: {}", show::clean(&p.member), show::clean(fix)))?;
        }
    }
    if !connections.is_empty() {
        at.terminal.talk(format!(
            "{} refused at the door: staydown peer list --refused",
            show::counted(connections.len(), "connection")
        ));
    }
    Ok(Exit::Ok)
}

/// A peer's last error as it is told: what happened, and what to do if that is known.
fn cause_and_fix(error: &str) -> (&str, Option<&str>) {
    match error.split_once("; fix: ") {
        Some((cause, fix)) => (cause, Some(fix)),
        None => (error, None),
    }
}

/// Cause, culprit and cure of each, oldest first.
fn refusals(connections: Vec<local::RefusedConnection>, at: &Invocation) -> Outcome {
    if at.terminal.json {
        at.terminal.json(&connections.into_iter().map(answers::RefusedConnection::from).collect::<Vec<_>>())?;
        return Ok(Exit::Ok);
    }
    for c in &connections {
        let alert = match c.alert.as_str() {
            "" => String::new(),
            alert if c.told_us => format!(" (they sent {alert})"),
            alert => format!(" (told {alert})"),
        };
        let who = if c.member.is_empty() { String::new() } else { format!(", key of {}", c.member) };
        let line = format!("{} from {}{who}: {}{alert}", show::time(TimeMs(c.at_ms)), c.address, c.cause);
        at.terminal.data(show::clean(&line))?;
        if !c.fix.is_empty() {
            at.terminal.data(format!("  fix: {}", show::clean(&c.fix)))?;
        }
    }
    Ok(Exit::Ok)
}
