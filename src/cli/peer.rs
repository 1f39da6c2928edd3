//! `peer list`: the connections to the other members, as seen from here.

use clap::Subcommand;

use super::failure::{Exit, Outcome};
use super::show;
use super::{Invocation, json};
use crate::wire::local;

#[derive(Subcommand)]
pub(super) enum PeerCommand {
    /// Show each peer: state, what is missing on either side, last error
    List,
}

pub(super) async fn peer(command: PeerCommand, at: &Invocation) -> Outcome {
    let PeerCommand::List = command;
    let peers = at.node().await?.peers(local::ListPeersRequest {}).await?.peers;
    if at.terminal.json {
        at.terminal.json(&peers.into_iter().map(json::Peer::from).collect::<Vec<_>>())?;
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
            show::clean(&p.last_error),
        ];
        table.add_row(cells);
    }
    at.terminal.data(table.trim_fmt())?;
    Ok(Exit::Ok)
}
