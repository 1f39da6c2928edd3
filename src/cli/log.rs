//! `log`: every signature, chain and root of what is stored; how far each log reaches; one record by its place.

use std::fs;
use std::path::Path;

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::charter::{place, says};
use super::client::Node;
use super::drafting::governing::{self, LogEnd};
use super::evidence::{self, ExportArgs};
use super::failure::{Exit, Failure, Outcome, io_failure};
use super::{Invocation, show};
use crate::answers::{self, LogHead};
use crate::config::Config;
use crate::engine;
use crate::net::local::verified_to_proto;
use crate::node::{self, NodeError};
use crate::replica::ids::{ForumId, Head, HeaderHash, LogNo, MemberId, Origin, Seq, TimeMs, hex};
use crate::replica::merkle;
use crate::wire::local;

/// Characters of a file of heads: one of 8,192 logs has less than three million.
const HEADS_SIZE_MAX: u64 = 8 << 20;

#[derive(Subcommand)]
pub(super) enum LogCommand {
    /// Check every signature, chain and root, of the running node or of a stopped one
    Verify,
    /// Write the whole list, with everything that proves it, into a file that anybody can check
    Export(ExportArgs),
    /// Show how far each log reaches; with --json, what charter commands take as --heads on a machine without a node
    Heads {
        /// Of this company only
        member: Option<String>,
    },
    /// Say again what we said in blocks that do not count any more: after a stolen key, a cutoff or a conviction
    Resubmit {
        /// Also what peers gave back of our logs: after a lost disk, never after a stolen key
        #[arg(long)]
        from_peers: bool,
    },
    /// End the logs of this node, each with a last record: nothing that comes after in them counts, whoever has the keys
    Close {
        /// Why: other, key-compromise, mistake, ...
        #[arg(long, default_value = "other")]
        reason: String,
    },
    /// Show one record by its place: what it says, and its leaf hash
    Record {
        /// The block, as MEMBER/LOG@SEQ
        #[arg(value_name = "MEMBER/LOG@SEQ")]
        block: String,
        /// The record's number in it, from 0
        index: u32,
    },
}

/// How far the logs of a forum reach, as a file that is carried to a machine without a network.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Heads {
    forum_id: String,
    heads: Vec<LogHead>,
}

impl From<local::StatusResponse> for Heads {
    fn from(status: local::StatusResponse) -> Self {
        let heads = status.heads.into_iter().map(LogHead::from).collect();
        Self { forum_id: hex(&status.forum_id), heads }
    }
}

impl Heads {
    /// Reads what `log heads --json` wrote.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let wrong = |what: String| {
            let failure = Failure::new(Exit::BadInput, format!("{shown}: {what}"));
            failure.fix("make it anew at a node: staydown log heads --json > FILE")
        };
        let length = match fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) => return Err(wrong(error.to_string())),
        };
        if length > HEADS_SIZE_MAX {
            return Err(wrong(format!("has {length} characters, at most {HEADS_SIZE_MAX} are read")));
        }
        let text = fs::read(path).map_err(io_failure(path.display()))?;
        serde_json::from_slice(&text).map_err(|error| wrong(format!("is not what log heads --json writes: {error}")))
    }

    /// The heads, if they are of `forum`.
    ///
    /// # Errors
    /// They are of another forum, or a field has the wrong length.
    pub(super) fn of(&self, forum: ForumId) -> Result<Vec<LogEnd>, Failure> {
        if self.forum_id != forum.to_string() {
            let failure = Failure::new(Exit::Refused, "the heads are of another forum than the charter");
            let failure = failure.culprit(format!("the heads are of forum {}", show::clean(&self.forum_id)));
            let failure = failure.culprit(format!("the charter is of forum {forum}"));
            return Err(failure.fix("staydown log heads --json at a node of the charter's forum"));
        }
        self.heads.iter().map(LogHead::end).collect()
    }
}

impl LogHead {
    fn end(&self) -> Result<LogEnd, Failure> {
        let bytes = |text: &str| data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap_or_default();
        let member = MemberId::from_slice(&bytes(&self.member_id));
        let hash = HeaderHash::from_slice(&bytes(&self.header_hash)).filter(|_| self.seq > 0);
        let (Some(member), Some(hash)) = (member, hash) else {
            let cause = format!("the head of log {} of {:?} is damaged", self.log_no, show::clean(&self.member));
            return Err(Failure::new(Exit::BadInput, cause).fix("staydown log heads --json > FILE, once more"));
        };
        let origin = Origin { member, log_no: LogNo(self.log_no) };
        Ok(LogEnd { origin, head: Head { seq: Seq(self.seq), hash }, forked_at: self.forked_at })
    }
}

pub(super) async fn log(command: LogCommand, at: &Invocation) -> Outcome {
    match command {
        LogCommand::Verify => verify(at).await,
        LogCommand::Export(args) => Box::pin(evidence::export(&args, at)).await,
        LogCommand::Resubmit { from_peers } => resubmit(from_peers, at).await,
        LogCommand::Close { reason } => close(reason, at).await,
        LogCommand::Heads { member } => heads(member.as_deref(), at).await,
        LogCommand::Record { block, index } => record(&block, index, at).await,
    }
}

async fn resubmit(from_peers: bool, at: &Invocation) -> Outcome {
    let again = at.node().await?.resubmit(local::ResubmitRequest { from_peers }).await?;
    if at.terminal.json {
        at.terminal.json(&serde_json::json!({ "records": again.records, "queued": again.queued }))?;
        return Ok(Exit::Ok);
    }
    at.terminal.data(match (again.queued, again.records) {
        (true, _) => "queued: signed again as soon as enough peers have told us their heads of our logs".to_owned(),
        (false, 0) => "nothing to say again: all that is still our word counts".to_owned(),
        (false, records) => format!("{records} records signed again, in logs that count"),
    })?;
    Ok(Exit::Ok)
}

async fn close(reason: String, at: &Invocation) -> Outcome {
    governing::reason(&reason)?;
    let node = at.node().await?;
    at.terminal
        .confirm("Close this node's logs? What it says afterwards opens new ones, which are limited in number.")?;
    let closed = node.close_logs(local::CloseLogsRequest { reason }).await?;
    if at.terminal.json {
        let logs: Vec<_> = closed.logs.iter().cloned().map(answers::EndedLog::from).collect();
        at.terminal.json(&serde_json::json!({ "logs": logs }))?;
        return Ok(Exit::Ok);
    }
    for log in &closed.logs {
        let local::RotatedLog { closed_log_no, lane, closed_seq, .. } = log;
        at.terminal.data(format!("log {closed_log_no} ({lane}) is closed at block {closed_seq}"))?;
    }
    if closed.logs.is_empty() {
        at.terminal.talk("this node had no open log");
    }
    Ok(Exit::Ok)
}

async fn heads(member: Option<&str>, at: &Invocation) -> Outcome {
    let mut heads = Heads::from(at.node().await?.status(local::StatusRequest {}).await?);
    if let Some(member) = member {
        heads.heads.retain(|row| row.member == member || row.member_id == member.to_ascii_lowercase());
        if heads.heads.is_empty() {
            let cause = format!("no block of a member {member:?} is held here");
            return Err(Failure::new(Exit::NotFound, cause).fix("staydown member list"));
        }
    }
    if at.terminal.json {
        at.terminal.json(&heads)?;
        return Ok(Exit::Ok);
    }
    for row in &heads.heads {
        at.terminal.data(row.words())?;
    }
    Ok(Exit::Ok)
}

impl LogHead {
    fn words(&self) -> String {
        let fork = if self.forked_at > 0 { format!(", forked at block {}", self.forked_at) } else { String::new() };
        let Self { member, log_no, lane, seq, header_hash, .. } = self;
        show::clean(&format!("{member} log {log_no} ({lane}): block {seq} (hash {header_hash}){fork}"))
    }
}

/// The heads of one member's logs, in words.
pub(super) fn heads_of(status: local::StatusResponse, member_id: &str) -> Vec<String> {
    let heads = Heads::from(status).heads;
    heads.iter().filter(|head| head.member_id == member_id).map(LogHead::words).collect()
}

async fn record(block: &str, index: u32, at: &Invocation) -> Outcome {
    let (member, log_no, seq) = place(block)?;
    let node = at.node().await?;
    let chain = super::charter::current_chain(at).await?;
    let charter = chain.effective();
    let member = charter.members.values().find(|m| m.name == member || m.id.to_string() == member);
    let member = member.ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("no member is called so: {block:?}")).fix("staydown member list")
    })?;
    let request =
        local::GetRecordRequest { member_id: member.id.0.to_vec().into(), log_no: log_no.0, seq: seq.0, index };
    let receipt = node.record(request).await?.receipt.unwrap_or_default();
    let erased = receipt.record.is_empty();
    let leaf = (!erased).then(|| hex(&merkle::leaf_hash(&receipt.record)));
    if at.terminal.json {
        at.terminal
            .json(&serde_json::json!({ "erased": erased, "leaf_hash": leaf, "record": hex(&receipt.record) }))?;
        return Ok(Exit::Ok);
    }
    match leaf {
        Some(leaf) => {
            at.terminal.data(says(&receipt.record))?;
            at.terminal.data(format!("leaf {leaf}"))?;
        }
        None => at.terminal.data("erased")?,
    }
    Ok(Exit::Ok)
}

async fn verify(at: &Invocation) -> Outcome {
    let config = at.config()?;
    let verified = match Node::connect(&config.local.socket).await {
        Ok(node) => node.verify(local::VerifyLogRequest {}).await?,
        Err(unreachable) => verify_stopped(&config, unreachable)?,
    };
    let broken = !verified.first_break.is_empty();
    if at.terminal.json {
        at.terminal.json(&answers::Verified::from(verified))?;
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
