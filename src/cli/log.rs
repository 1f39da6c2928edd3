//! `log verify`: every signature, chain and root of what is stored.

use clap::Subcommand;

use super::failure::{Exit, Failure, Outcome};
use super::show;
use super::{Invocation, json};
use crate::config::Config;
use crate::engine;
use crate::net::local::verified_to_proto;
use crate::node::{self, NodeError};
use crate::replica::ids::{TimeMs, hex};
use crate::wire::local;

#[derive(Subcommand)]
pub(super) enum LogCommand {
    /// Check every signature, chain and root, of the running node or of a stopped one
    Verify,
}

pub(super) async fn log(command: LogCommand, at: &Invocation) -> Outcome {
    let LogCommand::Verify = command;
    let config = at.config()?;
    let verified = match super::Node::connect(&config.local.socket).await {
        Ok(node) => node.verify(local::VerifyLogRequest {}).await?,
        Err(unreachable) => verify_stopped(&config, unreachable)?,
    };
    let broken = !verified.first_break.is_empty();
    if at.terminal.json {
        at.terminal.json(&json::Verified::from(verified))?;
        return Ok(if broken { Exit::Verification } else { Exit::Ok });
    }
    if broken {
        let cause = format!("the logs do not verify: {}", show::clean(&verified.first_break));
        let failure = Failure::new(Exit::Verification, cause);
        return Err(failure
            .fix("keep a copy of the data directory, then start the node: it fetches from its peers what is damaged"));
    }
    let count = show::count;
    at.terminal.data(format!(
        "{} logs, {} blocks, {} records: every signature, chain and root holds",
        count(verified.logs),
        count(verified.blocks),
        count(verified.records)
    ))?;
    let hour = show::time(TimeMs(verified.view_hour_ms));
    at.terminal.data(format!("view digest {} at {hour}", hex(&verified.view_digest)))?;
    Ok(Exit::Ok)
}

/// Verifies the data directory of a node that does not run. `unreachable` says why the node was not asked.
fn verify_stopped(config: &Config, unreachable: Failure) -> Result<local::VerifyLogResponse, Failure> {
    let (settings, invitation) = match node::identity(&config.data) {
        Ok(identity) => identity,
        Err(error) => return Err(unreachable.culprit(error.to_string())),
    };
    let verified = engine::verify_directory(&config.data, settings, invitation.forum, invitation.charters);
    let verified = verified.map_err(|error| super::run::node_failure(&NodeError::Open(error)))?;
    Ok(verified_to_proto(verified))
}
