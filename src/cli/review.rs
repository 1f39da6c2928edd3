//! `review`: what waits for a person of our company. Each decision is a signed record, and what was decided leaves the
//! queue with it.

use clap::builder::PossibleValue;
use clap::{Args, Subcommand, ValueEnum};

use super::batch::{self, UndoArgs};
use super::entry::{certificate_end, check_reason, say_of};
use super::failure::{Exit, Failure, Outcome};
use super::list::check;
use super::lookup::entry_text;
use super::{Invocation, client::Node, show, taxonomy};
use crate::answers;
use crate::clock;
use crate::net::deciding::{self, Choice, Decision, FLOOD, KINDS, Undecided};
use crate::replica::ids::TimeMs;
use crate::wire::local;

/// Items shown unless more are asked for.
const LIMIT_DEFAULT: usize = 50;
/// Items of one call (the service's own limit).
const PAGE_MAX: u32 = 1_000;

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

impl ValueEnum for Decision {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Endorse => "Stand behind it; what we said before stays, said anew",
            Self::Dispute => "Disagree with it",
            Self::Withdraw => "Take back what we said",
            Self::Retract => "Vote to end it for everybody",
            Self::Allow => "Certify it",
            Self::Reject => "A referral: disagree with it. A conflict: take our certificate back",
            Self::Keep => "A flood: it is rightly listed, block it again. Local: nothing is signed",
        };
        Some(PossibleValue::new(self.name()).help(help))
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
        return Err(undecided(Undecided::ReasonMissing));
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
    let ends = |flag: &str, when: Option<&str>| {
        let wrong = |why: String| Failure::new(Exit::Usage, format!("{flag}: {why}"));
        when.map_or(Ok(TimeMs(0)), |when| show::moment(when, now).map_err(wrong))
    };
    let expires = match (args.decision, args.expires.as_deref()) {
        (Decision::Allow, Some(when)) => TimeMs(certificate_end(when, now)?),
        (_, when) => ends("--expires", when)?,
    };
    let choice = Choice {
        decision: args.decision,
        reason: args.reason.clone().unwrap_or_default(),
        labels: args.label.clone(),
        expires,
        review: ends("--review", args.review.as_deref())?,
    };
    if args.decision != Decision::Endorse {
        return deciding::statement(&choice, kind, entry, &[], |_| false, now).map_err(undecided);
    }
    let me = node.status(local::StatusRequest {}).await?.member_id;
    let request = local::GetEntryRequest { signal: entry.signal.clone(), receipts: false, ..Default::default() };
    let full = node.entry(request).await?.entry.unwrap_or_default();
    let taxonomy = taxonomy::of_node(node).await?.taxonomy;
    deciding::statement(&choice, kind, &full, &me, |label| taxonomy.sayable(label).is_ok(), now).map_err(undecided)
}

fn undecided(why: Undecided) -> Failure {
    let usage = |cause: &str| Failure::new(Exit::Usage, cause);
    match why {
        Undecided::ReasonMissing => usage("--reason is missing").culprit("others read why"),
        Undecided::LabelMissing => {
            usage("--label is missing: it has none that can be said").fix("staydown taxonomy show")
        }
        Undecided::End => usage("--expires is missing: a certificate ends").fix("--expires 400d"),
        Undecided::Kind { decision: Decision::Reject, kind } => {
            usage(&format!("reject answers a referral or a conflict, got {kind:?}"))
                .fix("endorse, dispute, withdraw or retract")
        }
        Undecided::Reason(_) | Undecided::Kind { .. } => usage(&why.to_string()),
    }
}
