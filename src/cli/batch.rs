//! `batch`: what was imported, and taking a whole import back.

use clap::{Args, Subcommand};

use super::backfill::{BatchName, batch_id};
use super::client::Node;
use super::entry::check_reason;
use super::failure::{Exit, Failure, Outcome};
use super::{Invocation, show};
use crate::replica::ids::{TimeMs, hex};
use crate::wire::local;

/// Digits of a batch's id.
const ID_DIGITS: usize = 16;

#[derive(Subcommand)]
pub(super) enum BatchCommand {
    /// Show the imports of our company, the latest first
    List,
    /// Withdraw what stands of an import; what our company has said since is left alone
    Undo(UndoArgs),
}

#[derive(Args)]
pub(super) struct UndoArgs {
    /// The id that the import told, or the name that was given to it
    #[arg(value_name = "ID|NAME")]
    batch: String,
    /// Why: mistake, out-of-taxonomy, overmatching, ...
    #[arg(long, value_name = "NAME", default_value = "mistake")]
    reason: String,
    /// Only count what would be withdrawn
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn batch(command: BatchCommand, at: &Invocation) -> Outcome {
    match command {
        BatchCommand::List => list(at).await,
        BatchCommand::Undo(args) => undo(&args, at).await,
    }
}

async fn list(at: &Invocation) -> Outcome {
    let answer = at.node().await?.batches(local::ListBatchesRequest {}).await?;
    for batch in &answer.batches {
        let (first, last) = (TimeMs(batch.first_ms), TimeMs(batch.last_ms));
        if at.terminal.json {
            at.terminal.json(&serde_json::json!({
                "batch": hex(&batch.batch), "records": batch.records, "first_ms": first.0, "last_ms": last.0,
            }))?;
        } else {
            let records = show::counted(usize::try_from(batch.records).unwrap_or(usize::MAX), "record");
            let (id, first, last) = (hex(&batch.batch), show::time(first), show::time(last));
            at.terminal.data(format!("{id}  {records}, {first} to {last}"))?;
        }
    }
    if answer.truncated {
        at.terminal.talk("there are more, of before");
    } else if answer.batches.is_empty() {
        at.terminal.talk("nothing was imported");
        return Ok(Exit::NotFound);
    }
    Ok(Exit::Ok)
}

/// Withdraws a batch, or counts what that would withdraw.
///
/// # Errors
/// There is no such batch, or the day's quota of withdrawals is used up: the same command goes on.
pub(super) async fn undo(args: &UndoArgs, at: &Invocation) -> Outcome {
    check_reason(Some(&args.reason))?;
    let node = at.node().await?;
    let batch = id(&args.batch, &node).await?;
    if !args.dry_run {
        at.terminal.confirm(&format!("withdraw what stands of batch {}?", hex(&batch)))?;
    }
    let request =
        local::UndoBatchRequest { batch: batch.to_vec().into(), reason: args.reason.clone(), dry_run: args.dry_run };
    let bar = at.terminal.progress(0, "records");
    let mut told = local::UndoProgress::default();
    let undone = node.undo(request, |word| {
        bar.set_length(word.records);
        bar.set_position(word.looked_at);
        at.terminal.passed(told.looked_at, word.looked_at, word.records, "records");
        told = word;
    });
    let undone = undone.await;
    bar.finish_and_clear();
    undone.map_err(|failure| goes_on(failure, &told))?;
    if !told.stopped.is_empty() {
        return Err(goes_on(Failure::new(Exit::Refused, told.stopped.clone()), &told));
    }
    if told.records == 0 || told.looked_at < told.records {
        return Err(goes_on(Failure::new(Exit::Failed, "the node ended its answer before the end"), &told));
    }
    if at.terminal.json {
        at.terminal.json(&serde_json::json!({
            "batch": hex(&batch), "records": told.records, "withdrawn": told.withdrawn,
            "left_alone": told.left_alone, "queued": told.queued, "dry_run": args.dry_run,
        }))?;
    } else {
        let would = if args.dry_run { "would be " } else { "" };
        at.terminal.talk(format!("batch {}: {would}{}", hex(&batch), counts(&told)));
    }
    Ok(Exit::Ok)
}

fn counts(told: &local::UndoProgress) -> String {
    let (withdrawn, records) = (show::count(told.withdrawn), show::count(told.records));
    let queued = if told.queued { ", queued until peers have confirmed our logs" } else { "" };
    format!("{withdrawn} of {records} withdrawn{queued}, {} left alone", show::count(told.left_alone))
}

fn goes_on(failure: Failure, told: &local::UndoProgress) -> Failure {
    let again = "run the same command again: it goes on with the rest";
    match (told.records, &failure.fix) {
        (0, _) => failure,
        (_, Some(_)) => failure.culprit(counts(told)).culprit(again),
        (_, None) => failure.culprit(counts(told)).fix(again),
    }
}

/// The batch of 16 hexadecimal digits, or of a name.
async fn id(text: &str, node: &Node) -> Result<[u8; 8], Failure> {
    let digits = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().filter(|_| text.len() == ID_DIGITS);
    match digits.and_then(|bytes| bytes.try_into().ok()) {
        Some(id) => Ok(id),
        None => Ok(batch_id(&node.status(local::StatusRequest {}).await?, &BatchName::Given(text))),
    }
}
