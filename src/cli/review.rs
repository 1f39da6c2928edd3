//! `review`: what waits for a person of our company. Each decision is a signed record, and what was decided leaves the
//! queue with it.

use clap::{Args, Subcommand, ValueEnum};

use super::batch::{self, UndoArgs};
use super::entry::{certificate_end, check_reason, say_of};
use super::failure::{Exit, Failure, Outcome};
use super::list::check;
use super::lookup::entry_text;
use super::{Invocation, client::Node, show, submit, taxonomy};
use crate::answers;
use crate::clock;
use crate::replica::ids::TimeMs;
use crate::wire::local;

/// Items shown unless more are asked for.
const LIMIT_DEFAULT: usize = 50;
/// Items of one call (the service's own limit).
const PAGE_MAX: u32 = 1_000;
const KINDS: [&str; 7] = ["disputed-own", "disputed", "conflict", "referral", "expiring", "due", FLOOD];
const FLOOD: &str = "flood";

#[derive(Subcommand)]
pub(super) enum ReviewCommand {
    /// Show what waits: disputes of what we support, white-list conflicts, referrals, what of ours ends or is due, what
    /// suddenly matches far too often
    List(ListArgs),
    /// Decide one item; the decision is signed and shared
    Decide(DecideArgs),
    /// Take back a whole import, as `batch undo` does
    Undo(UndoArgs),
}

#[derive(Args)]
pub(super) struct ListArgs {
    /// disputed-own, disputed, conflict, referral, expiring, due, flood
    #[arg(long)]
    kind: Option<String>,
    /// Language of what was posted: pt finds pt-BR too
    #[arg(long, value_name = "TAG")]
    language: Option<String>,
    /// Items at most
    #[arg(long, default_value_t = LIMIT_DEFAULT)]
    limit: usize,
}

#[derive(Args)]
pub(super) struct DecideArgs {
    /// The id of the item, as in conflict-0011223344556677
    id: String,
    /// What our company says
    #[arg(value_enum)]
    decision: Decision,
    /// Why: mistake, news-reporting, art-parody, ...; needed to dispute, withdraw, retract and reject
    #[arg(long, value_name = "NAME")]
    reason: Option<String>,
    /// Label, to endorse what has none yet; may be repeated
    #[arg(long)]
    label: Vec<String>,
    /// When our word ends; a certificate must end, at most 400 days from now
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// When our company wants to look at it again
    #[arg(long, value_name = "WHEN")]
    review: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Decision {
    /// Stand behind it; what we said before stays, said anew
    Endorse,
    /// Disagree with it
    Dispute,
    /// Take back what we said
    Withdraw,
    /// Vote to end it for everybody
    Retract,
    /// Certify it
    Allow,
    /// A referral: disagree with it. A conflict: take our certificate back
    Reject,
    /// A flood: it is rightly listed, block it again. Local: nothing is signed
    Keep,
}

impl Decision {
    fn needs_reason(self) -> bool {
        matches!(self, Self::Dispute | Self::Withdraw | Self::Retract | Self::Reject)
    }
}

pub(super) async fn review(command: ReviewCommand, at: &Invocation) -> Outcome {
    match command {
        ReviewCommand::List(args) => list(&args, at).await,
        ReviewCommand::Decide(args) => Box::pin(decide(&args, at)).await,
        ReviewCommand::Undo(args) => batch::undo(&args, at).await,
    }
}

async fn list(args: &ListArgs, at: &Invocation) -> Outcome {
    check("--kind", args.kind.as_deref(), |kind| KINDS.contains(&kind), &KINDS)?;
    let node = at.node().await?;
    let request = local::ListReviewsRequest {
        kind: args.kind.clone().unwrap_or_default(),
        language: args.language.clone().unwrap_or_default(),
        ..Default::default()
    };
    let mut shown = 0;
    let now = clock::now();
    let complete = pages(&node, request, |review| {
        shown += 1;
        if at.terminal.json {
            at.terminal.json(&answers::Review::from(review))?;
        } else {
            at.terminal.data(as_text(&review, now).trim_end())?;
        }
        Ok(shown < args.limit)
    })
    .await?;
    if !complete {
        at.terminal.talk(format!("{shown} items shown, there may be more: --limit N, --kind, --language"));
    } else if shown == 0 {
        at.terminal.talk("nothing waits");
        return Ok(Exit::NotFound);
    }
    Ok(Exit::Ok)
}

/// Hands items on until `take` has enough; tells whether that was all of them.
async fn pages(
    node: &Node,
    mut request: local::ListReviewsRequest,
    mut take: impl FnMut(local::Review) -> Result<bool, Failure>,
) -> Result<bool, Failure> {
    request.page_size = PAGE_MAX;
    loop {
        let page = node.reviews(request.clone()).await?;
        for review in page.reviews {
            if !take(review)? {
                return Ok(false);
            }
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return Ok(true);
        }
    }
}

fn as_text(review: &local::Review, now: TimeMs) -> String {
    let by: Vec<_> = review.by.iter().map(|member| show::clean(member)).collect();
    let what = match review.kind.as_str() {
        "disputed-own" => format!("we listed it, and {} disagree", by.join(", ")),
        "disputed" => format!("we stand behind it, and {} disagree", by.join(", ")),
        "conflict" => format!("certified and listed at once, by {}", by.join(", ")),
        "referral" => format!("referred by {}", by.join(", ")),
        "expiring" => format!("our word ends {}", show::time(TimeMs(review.deadline_ms))),
        FLOOD => flood_text(&review.flood.unwrap_or_default()),
        "due" => format!("we wanted to look again until {}", show::date(TimeMs(review.deadline_ms))),
        _ => format!("concerns {}", by.join(", ")),
    };
    let mut text =
        format!("{}  {what}; waits for {}", show::clean(&review.id), show::span(now.since(TimeMs(review.since_ms))));
    if review.kind == "referral" && review.deadline_ms > 0 {
        text.push_str(&format!(", answer wanted until {}", show::time(TimeMs(review.deadline_ms))));
    }
    let entry = review.entry.clone().unwrap_or_default();
    format!("{text}\n  {}", entry_text(&entry, "  "))
}

fn flood_text(flood: &local::Flood) -> String {
    let effect = match flood.blocks {
        true => "it keeps its BLOCK for an open incident".to_owned(),
        false => format!("it is no more than REVIEW here until {}", show::time(TimeMs(flood.until_ms))),
    };
    format!(
        "matched {} times in {} here where {} is usual, {} times since; {effect}; dispute it (--reason overmatching) or keep it",
        show::count(flood.matches.into()),
        show::span(flood.window_ms),
        show::count(flood.usual.into()),
        show::count(flood.matches_since),
    )
}

async fn decide(args: &DecideArgs, at: &Invocation) -> Outcome {
    check_reason(args.reason.as_deref())?;
    if args.decision.needs_reason() && args.reason.is_none() {
        return Err(Failure::new(Exit::Usage, "--reason is missing").culprit("others read why"));
    }
    let kind = args.id.rsplit_once('-').map_or("", |(kind, _)| kind);
    let sought =
        || Failure::new(Exit::NotFound, format!("nothing waits under {:?}", args.id)).fix("staydown review list");
    if !KINDS.contains(&kind) {
        return Err(sought());
    }
    let node = at.node().await?;
    let mut found = Vec::new();
    pages(&node, local::ListReviewsRequest { kind: kind.to_owned(), ..Default::default() }, |review| {
        if review.id == args.id {
            found.extend(review.entry);
        }
        Ok(true)
    })
    .await?;
    // An id holds half of a hash: who made two subjects with one id must not have a decision on the wrong one.
    if found.len() > 1 {
        let cause = format!("{} items wait under {:?}", found.len(), args.id);
        return Err(Failure::new(Exit::Refused, cause).fix("say it of the hash itself: staydown entry"));
    }
    let entry = found.pop().ok_or_else(sought)?;
    if args.decision == Decision::Keep {
        return keep(kind, entry.signal.unwrap_or_default(), &node, at).await;
    }
    let statement = statement(args, kind, &entry, &node).await?;
    let signal = entry.signal.unwrap_or_default();
    at.terminal.talk(format!("{kind}: {} {}", verb(args.decision), show::signal(&signal.r#type, &signal.value)));
    say_of(vec![signal], &statement, &node, at).await
}

/// Lets a signal that floods have its verdict back.
async fn keep(kind: &str, signal: local::Signal, node: &Node, at: &Invocation) -> Outcome {
    if kind != FLOOD {
        let cause = format!("keep answers a flood, got {kind:?}");
        return Err(Failure::new(Exit::Usage, cause).fix("endorse says that we stand behind it"));
    }
    let kept = node.reset_breaker(local::ResetBreakerRequest { signal: Some(signal.clone()) }).await?;
    let local::Signal { r#type, value } = signal;
    if at.terminal.json {
        let signal = answers::Signal { r#type, value, quality: None };
        at.terminal.json(&answers::KeptBlocking { signal, until_ms: kept.until_ms })?;
    } else {
        let until = show::time(TimeMs(kept.until_ms));
        at.terminal.talk(format!(
            "flood: kept {}; it is not lowered again until {until}, or a restart",
            show::signal(&r#type, &value)
        ));
    }
    Ok(Exit::Ok)
}

fn verb(decision: Decision) -> &'static str {
    match decision {
        Decision::Endorse => "endorsed",
        Decision::Dispute => "disputed",
        Decision::Withdraw => "withdrawn:",
        Decision::Retract => "voted to retract",
        Decision::Allow => "certified",
        Decision::Reject => "rejected",
        Decision::Keep => "kept",
    }
}

/// What our company says, but for the signal.
async fn statement(
    args: &DecideArgs,
    kind: &str,
    entry: &local::Entry,
    node: &Node,
) -> Result<local::Statement, Failure> {
    let now = clock::now();
    let reason = args.reason.clone().unwrap_or_default();
    let opinion = |stance: local::Stance| local::Statement {
        stance: stance as i32,
        reason: reason.clone(),
        client_key: clock::random::<16>().to_vec().into(),
        ..Default::default()
    };
    let ends = |flag: &str, when: Option<&str>| {
        let wrong = |why: String| Failure::new(Exit::Usage, format!("{flag}: {why}"));
        when.map_or(Ok(TimeMs(0)), |when| show::moment(when, now).map_err(wrong))
    };
    Ok(match (args.decision, kind) {
        (Decision::Endorse, _) => {
            let said = said_before(entry, node).await?;
            let labels = match args.label.as_slice() {
                [] => sayable(&said.labels, node).await?,
                given => given.to_vec(),
            };
            if labels.is_empty() {
                let failure = Failure::new(Exit::Usage, "--label is missing: it has none that can be said");
                return Err(failure.fix("staydown taxonomy show"));
            }
            local::Statement {
                labels,
                client_key: clock::random::<16>().to_vec().into(),
                expires_ms: ends("--expires", args.expires.as_deref())?.0,
                review_ms: ends("--review", args.review.as_deref())?.0,
                ..said
            }
        }
        (Decision::Dispute, _) | (Decision::Reject, "referral") => opinion(local::Stance::Dispute),
        (Decision::Withdraw, _) => opinion(local::Stance::Neutral),
        (Decision::Retract, _) => {
            let vote = local::RetractVote { yes: true, reason };
            local::Statement { retract: Some(vote), ..Default::default() }
        }
        (Decision::Allow, _) => {
            let missing =
                || Failure::new(Exit::Usage, "--expires is missing: a certificate ends").fix("--expires 400d");
            let expires_ms = certificate_end(args.expires.as_deref().ok_or_else(missing)?, now)?;
            let allow = local::Certification { yes: true, expires_ms, certificate: 0 };
            local::Statement { allow: Some(allow), ..Default::default() }
        }
        (Decision::Reject, "conflict") => {
            local::Statement { allow: Some(local::Certification::default()), ..Default::default() }
        }
        (Decision::Reject | Decision::Keep, _) => {
            let cause = format!("reject answers a referral or a conflict, got {kind:?}");
            return Err(Failure::new(Exit::Usage, cause).fix("endorse, dispute, withdraw or retract"));
        }
    })
}

/// Our own opinion, to be said anew as it was; where we have none, an endorsement with the labels that are there.
async fn said_before(entry: &local::Entry, node: &Node) -> Result<local::Statement, Failure> {
    let me = node.status(local::StatusRequest {}).await?.member_id;
    let request = local::GetEntryRequest { signal: entry.signal.clone(), receipts: false };
    let full = node.entry(request).await?.entry.unwrap_or_default();
    let ours = full
        .said
        .into_iter()
        .find(|said| said.member_id == me && said.counts && matches!(said.what.as_str(), "SUBMIT" | "ENDORSE"));
    let Some(said) = ours else {
        let (stance, labels) = (local::Stance::Endorse as i32, entry.labels.clone());
        return Ok(local::Statement { stance, labels, languages: entry.languages.clone(), ..Default::default() });
    };
    let details = said.details.unwrap_or_default();
    let stance = if said.what == "SUBMIT" { local::Stance::Submit } else { local::Stance::Endorse };
    Ok(local::Statement {
        stance: stance as i32,
        labels: details.labels,
        languages: details.languages,
        severity: said.severity,
        confidence: details.confidence,
        incident_id: details.incident_id,
        item_id: details.item_id,
        quality: details.quality,
        basis: submit::basis(Some(details.basis.as_str()).filter(|name| !name.is_empty())).unwrap_or(0),
        ..Default::default()
    })
}

/// Labels that the forum's taxonomy lets us say: others stay their author's.
async fn sayable(labels: &[String], node: &Node) -> Result<Vec<String>, Failure> {
    let taxonomy = taxonomy::of_node(node).await?.taxonomy;
    Ok(labels.iter().filter(|label| taxonomy.sayable(label).is_ok()).cloned().collect())
}
