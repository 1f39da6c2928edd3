//! `log verify`: every signature, chain and root of what is stored.

use clap::Subcommand;

use super::failure::{Exit, Failure, Outcome};
use super::run::node_failure;
use super::show;
use super::{Invocation, json};
use crate::config::Config;
use crate::replica::ids::{TimeMs, hex};
use crate::store::{self, Store, StoreError};
use crate::wire::local;
use crate::{engine, node};

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

/// Verifies the data directory of a node that does not run, under its lock; nothing in it is healed or set aside.
/// `unreachable` says why the node was not asked.
fn verify_stopped(config: &Config, unreachable: Failure) -> Result<local::VerifyLogResponse, Failure> {
    let folder = config.data.join(engine::STORE_FOLDER);
    if !config.data.join(node::FORUM_FILE).exists() || !folder.is_dir() {
        return Err(unreachable.culprit(format!("and {} holds no node that has run", config.data.display())));
    }
    let (settings, invitation) = node::identity(&config.data).map_err(|error| node_failure(&error))?;
    let _lock = store::lock_directory(&config.data)?;
    let opened = match Store::open(&folder) {
        Ok(opened) => opened,
        Err(error @ (StoreError::Damaged { .. } | StoreError::Panicked { .. })) => {
            return Ok(local::VerifyLogResponse { first_break: error.to_string(), ..Default::default() });
        }
        Err(error) => return Err(Failure::new(Exit::Io, error.to_string())),
    };
    let journal = config.data.join(engine::JOURNAL_FILE);
    let verified = engine::verify(&opened.store, &journal, settings, invitation.forum, invitation.charters);
    let verified = verified.map_err(|error| Failure::new(Exit::Io, error.to_string()))?;
    Ok(local::VerifyLogResponse {
        logs: verified.logs,
        blocks: verified.blocks,
        records: verified.records,
        first_break: verified.first_break.unwrap_or_default(),
        view_hour_ms: verified.view_hour.0,
        view_digest: verified.view_digest.to_vec().into(),
    })
}
