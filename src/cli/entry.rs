//! `entry`: one entry, and what our company says of it.

use clap::{Args, Subcommand};

use super::client::Node;
use super::failure::{Exit, Failure, Outcome};
use super::item::{Hash, Item};
use super::list::check;
use super::lookup::entry_text;
use super::{Invocation, json, submit};
use crate::clock;
use crate::replica::ids::hex;
use crate::replica::{record, taxonomy};
use crate::wire::local;

#[derive(Subcommand)]
pub(super) enum EntryCommand {
    /// Show an entry: status, labels, who said what and when
    Show(ShowArgs),
    /// Say that our company stands behind an entry too
    Endorse(SayArgs),
    /// Say that our company disagrees with an entry
    Dispute(SayArgs),
    /// Take back what our company said of an entry
    Withdraw(SayArgs),
}

#[derive(Args)]
pub(super) struct ShowArgs {
    /// A hash as in sha256:..., or a file
    #[arg(value_name = "HASH|FILE")]
    item: String,
    /// Also show the signed block behind each word
    #[arg(long)]
    receipts: bool,
}

#[derive(Args)]
pub(super) struct SayArgs {
    /// A hash as in sha256:..., or a file: each of its hashes that is listed
    #[arg(value_name = "HASH|FILE")]
    item: String,
    /// Also take entries that the file's picture is only near to
    #[arg(long)]
    near: bool,
    /// Label of the taxonomy; may be repeated
    #[arg(long)]
    label: Vec<String>,
    /// Why: mistake, news-reporting, education-research, art-parody, counter-speech, ...
    #[arg(long, value_name = "NAME")]
    reason: Option<String>,
}

pub(super) async fn entry(command: EntryCommand, at: &Invocation) -> Outcome {
    match command {
        EntryCommand::Show(args) => show(&args, at).await,
        EntryCommand::Endorse(args) => say(&args, local::Stance::Endorse, at).await,
        EntryCommand::Dispute(args) => say(&args, local::Stance::Dispute, at).await,
        EntryCommand::Withdraw(args) => say(&args, local::Stance::Neutral, at).await,
    }
}

async fn show(args: &ShowArgs, at: &Invocation) -> Outcome {
    let item = Item::read(&args.item)?;
    let node = at.node().await?;
    let signals = match &item {
        Item::Hash(_) => item.hashes().iter().map(Hash::signal).collect(),
        Item::File(..) => listed(&item, &node, false).await?.into_iter().filter_map(|entry| entry.signal).collect(),
    };
    let signals: Vec<_> = signals;
    for signal in signals {
        let request = local::GetEntryRequest { signal: Some(signal), receipts: args.receipts };
        let answer = node.entry(request).await?;
        print(answer, at)?;
    }
    Ok(Exit::Ok)
}

fn print(answer: local::GetEntryResponse, at: &Invocation) -> Result<(), Failure> {
    let entry = answer.entry.unwrap_or_default();
    if at.terminal.json {
        let mut entry = json::Entry::from(entry);
        entry.receipts = answer.receipts.into_iter().map(json::Receipt::from).collect();
        return at.terminal.json(&entry);
    }
    at.terminal.data(entry_text(&entry, "").trim_end())?;
    for receipt in answer.receipts {
        let place = format!("  log {} block {} record {}", receipt.log_no, receipt.seq, receipt.index);
        at.terminal.data(format!(
            "{place}\n    header {}\n    signature {}",
            hex(&receipt.header),
            hex(&receipt.signature)
        ))?;
        at.terminal.data(format!("    record {}", hex(&receipt.record)))?;
        for hash in &receipt.inclusion_path {
            at.terminal.data(format!("    path {}", hex(hash)))?;
        }
    }
    Ok(())
}

/// The entries that an item's hashes are listed as. With `near`, also those that its picture is only near to.
async fn listed(item: &Item, node: &Node, near: bool) -> Result<Vec<local::Entry>, Failure> {
    let signals = item.usable_hashes().iter().map(Hash::signal).collect();
    let answer = node.lookup(local::LookupRequest { signals, ..Default::default() }).await?;
    let (equal, others): (Vec<_>, Vec<_>) = answer.matches.into_iter().partition(|found| near || found.distance == 0);
    let entries: Vec<_> = equal.into_iter().filter_map(|found| found.entry).collect();
    if !entries.is_empty() {
        return Ok(entries);
    }
    let failure = Failure::new(Exit::NotFound, format!("{} is not listed", item.name()));
    let nearest = others.iter().find_map(|found| Some((found.distance, found.entry.as_ref()?.signal.as_ref()?)));
    Err(match nearest {
        Some((distance, signal)) => failure
            .culprit(format!("the nearest entry is {}:{}, at distance {distance}", signal.r#type, signal.value))
            .fix("name that entry, or give --near to take every entry that the picture is near to"),
        None => failure.fix("to list it: staydown submit"),
    })
}

async fn say(args: &SayArgs, stance: local::Stance, at: &Invocation) -> Outcome {
    check_names(args)?;
    let item = Item::read(&args.item)?;
    let node = at.node().await?;
    let mut entries = match &item {
        Item::Hash(_) => {
            let signal = item.hashes().first().map(Hash::signal);
            let answer = node.entry(local::GetEntryRequest { signal, receipts: false }).await?;
            answer.entry.into_iter().collect()
        }
        Item::File(..) => listed(&item, &node, args.near).await?,
    };
    if stance == local::Stance::Neutral {
        let me = node.status(local::StatusRequest {}).await?.member_id;
        entries.retain(|entry| entry.said.iter().any(|said| said.member_id == me && said.what != "NEUTRAL"));
        if entries.is_empty() {
            return Err(Failure::new(Exit::NotFound, format!("our company says nothing of {}", item.name())));
        }
    }
    let statements = entries.iter().map(|entry| statement(entry, stance, args)).collect();
    let request = local::SubmitRequest { statements, lane: local::Lane::Normal as i32, ..Default::default() };
    let answer = node.submit(request).await?;
    for signal in entries.iter().filter_map(|entry| entry.signal.as_ref()) {
        at.terminal.talk(format!("{} {}:{}", said(stance), signal.r#type, signal.value));
    }
    submit::print_answer(answer, at)?;
    Ok(Exit::Ok)
}

fn check_names(args: &SayArgs) -> Result<(), Failure> {
    let reasons: Vec<_> = record::REASONS.iter().map(|(_, name)| *name).collect();
    check("--reason", args.reason.as_deref(), |name| record::reason_number(name).is_some(), &reasons)?;
    submit::check_labels(&args.label)
}

fn statement(entry: &local::Entry, stance: local::Stance, args: &SayArgs) -> local::Statement {
    // Endorsing without a label of one's own means the labels that are there; what others mean by them stays theirs.
    let labels = match stance {
        local::Stance::Endorse if args.label.is_empty() => {
            entry.labels.iter().filter(|label| taxonomy::number(label).is_some()).cloned().collect()
        }
        _ => args.label.clone(),
    };
    local::Statement {
        signal: entry.signal.clone(),
        stance: stance as i32,
        labels,
        reason: args.reason.clone().unwrap_or_default(),
        client_key: clock::random::<16>().to_vec().into(),
        ..Default::default()
    }
}

fn said(stance: local::Stance) -> &'static str {
    match stance {
        local::Stance::Endorse => "endorsed",
        local::Stance::Dispute => "disputed",
        local::Stance::Neutral => "withdrawn:",
        local::Stance::Submit | local::Stance::Unspecified => "submitted",
    }
}
