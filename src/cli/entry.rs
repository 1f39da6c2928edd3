//! `entry`: one entry, and what our company says of it.

use clap::{ArgGroup, Args, Subcommand};

use super::client::Node;
use super::failure::{Exit, Failure, Outcome};
use super::item::{Hash, Item, ItemArgs};
use super::list::check;
use super::lookup::entry_text;
use super::{Invocation, show, submit, taxonomy};
use crate::answers;
use crate::clock;
use crate::net::local::SIGNALS_MAX;
use crate::replica::ids::{TimeMs, hex};
use crate::replica::record;
use crate::replica::taxonomy::Taxonomy;
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
    /// Vote to end an entry for everybody; full members do, and it takes a quorum of them
    Retract(RetractArgs),
    /// Certify that no machine may act on it, at any member; certifiers do
    Allow(AllowArgs),
    /// Tell that our company keeps a copy, to be asked for through legal process
    Preserve(PreserveArgs),
    /// Tell what our company did with what it found
    Outcome(OutcomeArgs),
}

#[derive(Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    item: ItemArgs,
    /// Also show the signed block behind each word
    #[arg(long)]
    receipts: bool,
}

#[derive(Args)]
pub(super) struct SayArgs {
    #[command(flatten)]
    item: ItemArgs,
    /// Also take entries that the file's picture is only near to
    #[arg(long)]
    near: bool,
    /// Label of the taxonomy; may be repeated
    #[arg(long)]
    label: Vec<String>,
    /// Why: mistake, news-reporting, education-research, art-parody, counter-speech, ...
    #[arg(long, value_name = "NAME")]
    reason: Option<String>,
    /// How sure our company is, in percent
    #[arg(long, value_name = "1..100", value_parser = clap::value_parser!(u32).range(1..=100))]
    confidence: Option<u32>,
    /// What it rests on: human-review, automated, court-order, referral, other-member
    #[arg(long, value_name = "NAME")]
    basis: Option<String>,
    /// When our company's word ends: 2027-01-31, 90d, 12h, never
    #[arg(long, value_name = "WHEN", default_value = "never", hide_default_value = true)]
    expires: String,
    /// When our company wants to look at it again: 2027-01-31, 90d
    #[arg(long, value_name = "WHEN", default_value = "never", hide_default_value = true)]
    review: String,
    /// Wait until so many peers hold it
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    wait_peers: u32,
}

#[derive(Args)]
pub(super) struct RetractArgs {
    #[command(flatten)]
    item: ItemArgs,
    /// Take our company's vote back
    #[arg(long, conflicts_with = "reason")]
    no: bool,
    /// Why: mistake, overmatching, court-or-law, ...
    #[arg(long, value_name = "NAME")]
    reason: Option<String>,
}

#[derive(Args)]
#[command(group = ArgGroup::new("term").required(true).args(["no", "expires"]))]
pub(super) struct AllowArgs {
    #[command(flatten)]
    item: ItemArgs,
    /// Take our certificate back
    #[arg(long, conflicts_with = "certificate")]
    no: bool,
    /// When the certificate ends, at most 400 days from now: 2027-01-31, 400d
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// Our own number for it
    #[arg(long, value_name = "N")]
    certificate: Option<u32>,
}

#[derive(Args)]
pub(super) struct PreserveArgs {
    /// A hash as in sha256:..., or a file: each of its hashes that is listed
    #[arg(value_name = "HASH|FILE")]
    item: String,
    /// How long the copy is kept, at most 730 days: 2027-01-31, 90d
    #[arg(long, value_name = "WHEN")]
    until: String,
    /// How to ask for it: legal-process, emergency-desk
    #[arg(long, value_name = "NAME", default_value = "legal-process")]
    contact: String,
}

#[derive(Args)]
pub(super) struct OutcomeArgs {
    /// A hash as in sha256:..., or a file: each of its hashes that is listed
    #[arg(value_name = "HASH|FILE")]
    item: String,
    /// removed, restricted, kept, not-found
    result: String,
    /// When, in Unix milliseconds [default: now]
    #[arg(long, value_name = "MS")]
    acted: Option<u64>,
}

pub(super) async fn entry(command: EntryCommand, at: &Invocation) -> Outcome {
    match command {
        EntryCommand::Show(args) => show(&args, at).await,
        EntryCommand::Endorse(args) => say(&args, local::Stance::Endorse, at).await,
        EntryCommand::Dispute(args) => say(&args, local::Stance::Dispute, at).await,
        EntryCommand::Withdraw(args) => say(&args, local::Stance::Neutral, at).await,
        EntryCommand::Retract(args) => retract(&args, at).await,
        EntryCommand::Allow(args) => allow(&args, at).await,
        EntryCommand::Preserve(args) => preserve(&args, at).await,
        EntryCommand::Outcome(args) => outcome(&args, at).await,
    }
}

async fn show(args: &ShowArgs, at: &Invocation) -> Outcome {
    let item = args.item.read()?;
    let node = at.node().await?;
    let signals = match &item {
        Item::Hash(_) | Item::Address(_) => item.hashes().iter().map(Hash::signal).collect(),
        // An account may be listed under several peppers.
        Item::File(..) | Item::Account(_) => {
            listed(&item, &node, false).await?.into_iter().filter_map(|entry| entry.signal).collect()
        }
    };
    let signals: Vec<_> = signals;
    for signal in signals {
        let request = local::GetEntryRequest { signal: Some(signal), receipts: args.receipts, ..Default::default() };
        let answer = node.entry(request).await?;
        print(answer, at)?;
    }
    Ok(Exit::Ok)
}

fn print(answer: local::GetEntryResponse, at: &Invocation) -> Result<(), Failure> {
    let entry = answer.entry.unwrap_or_default();
    if at.terminal.json {
        let mut entry = answers::Entry::from(entry);
        entry.receipts = answer.receipts.into_iter().map(answers::Receipt::from).collect();
        return at.terminal.json(&entry);
    }
    at.terminal.data(entry_text(&entry, "").trim_end())?;
    let beside = beside_text(&entry);
    if !beside.is_empty() {
        at.terminal.data(beside.trim_end())?;
    }
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

/// What is said beside the status, a line each.
fn beside_text(entry: &local::Entry) -> String {
    let mut text = String::new();
    for said in &entry.said {
        let Some(details) = said.details.as_ref().map(details_text).filter(|text| !text.is_empty()) else { continue };
        text.push_str(&format!("  {} of {}: {details}\n", show::clean(&said.what), show::clean(&said.member)));
    }
    for incident in &entry.incidents {
        let state = match incident.labels.is_empty() {
            true => "closed".to_owned(),
            false => format!("open: {}", show::clean(&incident.labels.join(", "))),
        };
        text.push_str(&format!("  incident {} ({state})\n", hex(&incident.id)));
    }
    for kept in &entry.preserved {
        let (member, until) = (show::clean(&kept.member), show::date(TimeMs(kept.until_ms)));
        text.push_str(&format!("  {member} keeps a copy until {until}; ask by {}\n", show::clean(&kept.contact)));
    }
    for done in &entry.outcomes {
        let (member, acted) = (show::clean(&done.member), show::time(TimeMs(done.acted_ms)));
        text.push_str(&format!("  outcome at {member}: {} {acted}\n", show::clean(&done.result)));
    }
    text
}

fn details_text(details: &local::Details) -> String {
    let mut parts = Vec::new();
    let mut part = |name: &str, value: String| {
        if !value.is_empty() && value != "0" {
            parts.push(format!("{name} {}", show::clean(&value)));
        }
    };
    part("labels", details.labels.join(", "));
    part("languages", details.languages.join(", "));
    part("basis", details.basis.clone());
    part("confidence", details.confidence.to_string());
    part("to be reviewed", if details.review_ms > 0 { show::date(TimeMs(details.review_ms)) } else { String::new() });
    part("incident", hex(&details.incident_id));
    part("item", hex(&details.item_id));
    part("certificate", details.certificate.to_string());
    part("authority", details.authority.clone());
    part("jurisdiction", details.jurisdiction.clone());
    parts.join("; ")
}

/// The entries that an item's hashes are listed as. With `near`, also those that its picture is only near to.
async fn listed(item: &Item, node: &Node, near: bool) -> Result<Vec<local::Entry>, Failure> {
    let signals: Vec<_> = item.usable_hashes().iter().map(Hash::signal).collect();
    let mut matches = Vec::new();
    // A long video has more records than one lookup takes.
    for signals in signals.chunks(SIGNALS_MAX) {
        let request = local::LookupRequest { signals: signals.to_vec(), ..Default::default() };
        matches.extend(node.lookup(request).await?.matches);
    }
    let (equal, others): (Vec<_>, Vec<_>) = matches.into_iter().partition(|found| near || found.distance == 0);
    let entries: Vec<_> = equal.into_iter().filter_map(|found| found.entry).collect();
    if !entries.is_empty() {
        return Ok(entries);
    }
    let failure = Failure::new(Exit::NotFound, format!("{} is not listed", item.name()));
    let nearest = others.iter().find_map(|found| Some((found.distance, found.entry.as_ref()?.signal.as_ref()?)));
    Err(match nearest {
        Some((distance, signal)) => failure
            .culprit(format!(
                "the nearest entry is {}, at distance {distance}",
                show::signal(&signal.r#type, &signal.value)
            ))
            .fix("name that entry, or give --near to take every entry that the picture is near to"),
        None => failure.fix("to list it: staydown submit"),
    })
}

/// The entries of an item that the forum has heard of, whatever their status: of an account each that a lookup finds,
/// for it may be listed under several peppers.
async fn known(item: &Item, node: &Node) -> Result<Vec<local::Entry>, Failure> {
    let mut entries = Vec::new();
    if let Item::Account(_) = item {
        let signals = item.hashes().iter().map(Hash::signal).collect();
        let answer = node.lookup(local::LookupRequest { signals, ..Default::default() }).await?;
        entries.extend(answer.matches.into_iter().filter_map(|found| found.entry));
    }
    for hash in item.usable_hashes() {
        let request = local::GetEntryRequest { signal: Some(hash.signal()), receipts: false, ..Default::default() };
        match node.entry(request).await {
            Ok(answer) => {
                entries.extend(answer.entry.filter(|entry| entries.iter().all(|known| known.signal != entry.signal)));
            }
            Err(failure) if failure.exit == Exit::NotFound => {}
            Err(failure) => return Err(failure),
        }
    }
    if entries.is_empty() {
        let failure = Failure::new(Exit::NotFound, format!("{} is not listed", item.name()));
        return Err(failure.fix("to list it: staydown submit"));
    }
    Ok(entries)
}

/// As they are listed: of an account that is a pseudonym.
fn signals(entries: Vec<local::Entry>) -> Vec<local::Signal> {
    entries.into_iter().filter_map(|entry| entry.signal).collect()
}

/// What our company takes its word `what` back of: of an account those entries on which it stands, if it stands anywhere.
async fn taken_back(item: &Item, what: &str, node: &Node) -> Result<Vec<local::Entry>, Failure> {
    let entries = known(item, node).await?;
    if !matches!(item, Item::Account(_)) {
        return Ok(entries);
    }
    let me = node.status(local::StatusRequest {}).await?.member_id;
    Ok(where_said(entries, |said| said.member_id == me && said.what == what))
}

/// The entries with such a word, or all where none has it.
fn where_said(entries: Vec<local::Entry>, sought: impl Fn(&local::Said) -> bool) -> Vec<local::Entry> {
    let (with, without): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.said.iter().any(&sought));
    if with.is_empty() { without } else { with }
}

/// Signs one statement for each signal, and tells where they stand.
pub(super) async fn say_of(
    signals: Vec<local::Signal>,
    statement: &local::Statement,
    node: &Node,
    at: &Invocation,
) -> Outcome {
    let statements = signals.into_iter().map(|signal| local::Statement { signal: Some(signal), ..statement.clone() });
    let request = local::SubmitRequest { statements: statements.collect(), ..Default::default() };
    let answer = node.submit(request).await?;
    submit::print_answer(answer, at)?;
    Ok(Exit::Ok)
}

async fn retract(args: &RetractArgs, at: &Invocation) -> Outcome {
    check_reason(args.reason.as_deref())?;
    let item = args.item.read()?;
    let node = at.node().await?;
    let vote = local::RetractVote { yes: !args.no, reason: args.reason.clone().unwrap_or_default() };
    let statement = local::Statement { retract: Some(vote), ..Default::default() };
    let entries = if args.no { taken_back(&item, "RETRACT", &node).await? } else { known(&item, &node).await? };
    say_of(signals(entries), &statement, &node, at).await
}

async fn allow(args: &AllowArgs, at: &Invocation) -> Outcome {
    let item = args.item.read()?;
    let now = clock::now();
    let expires_ms = args.expires.as_deref().map_or(Ok(0), |when| certificate_end(when, now))?;
    let node = at.node().await?;
    let allow = local::Certification { yes: !args.no, expires_ms, certificate: args.certificate.unwrap_or(0) };
    let statement = local::Statement { allow: Some(allow), ..Default::default() };
    // What nobody lists yet is certified too: it is there before somebody does.
    let signals = match args.no {
        false => item.usable_hashes().iter().map(Hash::signal).collect(),
        true => signals(taken_back(&item, "ALLOW", &node).await?),
    };
    say_of(signals, &statement, &node, at).await
}

/// The end of a certificate. It has one: a person looks again.
pub(super) fn certificate_end(when: &str, now: TimeMs) -> Result<u64, Failure> {
    let wrong = |why: String| Failure::new(Exit::Usage, format!("--expires: {why}"));
    let at = show::moment(when, now).map_err(wrong)?;
    let latest = now.plus(record::ALLOW_DAYS_MAX * TimeMs::DAY_MS);
    if at == TimeMs(0) || at > latest {
        let cause =
            format!("--expires: got {when:?}, expected a moment at most {} days from now", record::ALLOW_DAYS_MAX);
        return Err(Failure::new(Exit::Usage, cause).fix(format!("--expires {}", show::date(latest))));
    }
    Ok(at.0)
}

async fn preserve(args: &PreserveArgs, at: &Invocation) -> Outcome {
    let contacts = record::CONTACTS.map(|(_, name)| name);
    check("--contact", Some(&args.contact), |name| contacts.contains(&name), &contacts)?;
    let wrong = |why: String| Failure::new(Exit::Usage, format!("--until: {why}"));
    let until_ms = show::moment(&args.until, clock::now()).map_err(wrong)?.0;
    let item = Item::read(&args.item)?;
    let node = at.node().await?;
    let preserve = local::Preservation { until_ms, contact: args.contact.clone() };
    let statement = local::Statement { preserve: Some(preserve), ..Default::default() };
    say_of(signals(known(&item, &node).await?), &statement, &node, at).await
}

async fn outcome(args: &OutcomeArgs, at: &Invocation) -> Outcome {
    let results = record::RESULTS.map(|(_, name)| name);
    check("RESULT", Some(&args.result), |name| results.contains(&name), &results)?;
    let item = Item::read(&args.item)?;
    let node = at.node().await?;
    let outcome = local::Outcome { result: args.result.clone(), acted_ms: args.acted.unwrap_or(clock::now().0) };
    let statement = local::Statement { outcome: Some(outcome), ..Default::default() };
    say_of(signals(known(&item, &node).await?), &statement, &node, at).await
}

async fn say(args: &SayArgs, stance: local::Stance, at: &Invocation) -> Outcome {
    check_names(args)?;
    let item = args.item.read()?;
    let node = at.node().await?;
    let mut entries = match &item {
        // Our word ends, or stands against it, under every pepper that it is listed under.
        Item::Account(_) if stance != local::Stance::Endorse => known(&item, &node).await?,
        Item::Hash(_) | Item::Address(_) | Item::Account(_) => {
            let signal = item.hashes().first().map(Hash::signal);
            let request = local::GetEntryRequest { signal: signal.clone(), receipts: false, ..Default::default() };
            let entry = node.entry(request).await?.entry;
            // Support goes under the newest pepper: that is our node's to know.
            let named = |entry| local::Entry { signal, ..entry };
            entry.map(|entry| if let Item::Account(_) = item { named(entry) } else { entry }).into_iter().collect()
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
    let now = clock::now();
    let terms = said_terms(args, now)?;
    let labels = taxonomy::of_node(&node).await?.taxonomy;
    let statements = entries.iter().map(|entry| statement(entry, stance, args, &terms, &labels)).collect();
    let lane = local::Lane::Normal as i32;
    let request = local::SubmitRequest { statements, lane, wait_peers: args.wait_peers, ..Default::default() };
    let answer = node.submit(request).await?;
    for signal in entries.iter().filter_map(|entry| entry.signal.as_ref()) {
        at.terminal.talk(format!("{} {}", said(stance), show::signal(&signal.r#type, &signal.value)));
    }
    submit::print_answer(answer, at)?;
    Ok(Exit::Ok)
}

fn check_names(args: &SayArgs) -> Result<(), Failure> {
    check_reason(args.reason.as_deref())?;
    said_terms(args, clock::now())?;
    Ok(())
}

/// Refuses a reason that is none, with the nearest that is.
pub(super) fn check_reason(reason: Option<&str>) -> Result<(), Failure> {
    let reasons: Vec<_> = record::REASONS.iter().map(|(_, name)| *name).collect();
    check("--reason", reason, |name| record::reason_number(name).is_some(), &reasons)
}

/// How sure our company is, what it rests on, and for how long.
fn said_terms(args: &SayArgs, now: TimeMs) -> Result<submit::Terms, Failure> {
    let wrong = |flag: &'static str| move |why: String| Failure::new(Exit::Usage, format!("{flag}: {why}"));
    Ok(submit::Terms {
        expires: show::moment(&args.expires, now).map_err(wrong("--expires"))?,
        review: show::moment(&args.review, now).map_err(wrong("--review"))?,
        confidence: args.confidence.unwrap_or(0),
        basis: submit::basis(args.basis.as_deref())?,
        ..submit::Terms::default()
    })
}

fn statement(
    entry: &local::Entry,
    stance: local::Stance,
    args: &SayArgs,
    terms: &submit::Terms,
    taxonomy: &Taxonomy,
) -> local::Statement {
    // Endorsing without a label of one's own means the labels that are there; what others mean by them stays theirs.
    let labels = match stance {
        local::Stance::Endorse if args.label.is_empty() => {
            entry.labels.iter().filter(|label| taxonomy.sayable(label).is_ok()).cloned().collect()
        }
        _ => args.label.clone(),
    };
    local::Statement {
        signal: entry.signal.clone(),
        stance: stance as i32,
        labels,
        reason: args.reason.clone().unwrap_or_default(),
        client_key: clock::random::<16>().to_vec().into(),
        expires_ms: terms.expires.0,
        review_ms: terms.review.0,
        confidence: terms.confidence,
        basis: terms.basis,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_taken_back_where_it_stands_or_else_everywhere() {
        let entry = |value: &str, what: &str| local::Entry {
            signal: Some(local::Signal { r#type: "account".into(), value: value.into() }),
            said: vec![local::Said { what: what.into(), ..Default::default() }],
            ..Default::default()
        };
        let entries = || vec![entry("2:ab", "SUBMIT"), entry("1:cd", "RETRACT")];
        let values = |what: &str| -> Vec<_> {
            let kept = signals(where_said(entries(), |said| said.what == what));
            kept.into_iter().map(|signal| signal.value).collect()
        };
        assert_eq!(values("RETRACT"), ["1:cd"]);
        assert_eq!(values("ALLOW"), ["2:ab", "1:cd"]);
    }
}
