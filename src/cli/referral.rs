//! `referral`: a referral unit asks the companies to look at something. A request, never an order.

use clap::{Args, Subcommand};

use super::entry::say_of;
use super::failure::{Exit, Failure, Outcome};
use super::item::{Hash, Item};
use super::list::check;
use super::{Invocation, show};
use crate::answers;
use crate::clock;
use crate::replica::ids::TimeMs;
use crate::replica::record;
use crate::wire::local;

/// Referrals shown unless more are asked for.
const LIMIT_DEFAULT: usize = 50;
/// Referrals of one call (the service's own limit).
const PAGE_MAX: usize = 1_000;
const STATES: [&str; 4] = ["OPEN", "CONFIRMED", "REJECTED", "EXPIRED"];

#[derive(Subcommand)]
pub(super) enum ReferralCommand {
    /// Ask the companies to look at something; referral units do
    Open(OpenArgs),
    /// Close our request
    Close {
        /// Files (all their hashes), or hashes as in sha256:...
        #[arg(required = true, value_name = "HASH|FILE")]
        items: Vec<String>,
    },
    /// Show referrals: who asks, until when, what became of them, and how long that took
    List(ListArgs),
}

#[derive(Args)]
pub(super) struct OpenArgs {
    /// Files (all their hashes), or hashes as in sha256:...
    #[arg(required = true, value_name = "HASH|FILE")]
    items: Vec<String>,
    /// What kind of authority asks: referral-unit, police, prosecutor, court, regulator, other
    #[arg(long, value_name = "NAME", default_value = "referral-unit")]
    authority: String,
    /// Under whose law: two capital letters, as in FR or EU
    #[arg(long, value_name = "XX")]
    jurisdiction: String,
    /// Until when an answer is wanted: 2027-01-31, 12h, never
    #[arg(long, value_name = "WHEN")]
    deadline: String,
}

#[derive(Args)]
pub(super) struct ListArgs {
    /// OPEN, CONFIRMED, REJECTED, EXPIRED
    #[arg(long)]
    state: Option<String>,
    /// Referrals at most
    #[arg(long, default_value_t = LIMIT_DEFAULT)]
    limit: usize,
}

pub(super) async fn referral(command: ReferralCommand, at: &Invocation) -> Outcome {
    match command {
        ReferralCommand::Open(args) => open(&args, at).await,
        ReferralCommand::Close { items } => {
            let referral = local::Referral::default();
            say(&signals(&items)?, referral, at).await
        }
        ReferralCommand::List(args) => list(&args, at).await,
    }
}

async fn open(args: &OpenArgs, at: &Invocation) -> Outcome {
    let known = record::AUTHORITIES.map(|(_, name)| name);
    check("--authority", Some(&args.authority), |name| known.contains(&name), &known)?;
    if record::jurisdiction_number(&args.jurisdiction).is_none() {
        let cause =
            format!("--jurisdiction: got {:?}, expected two capital letters, as in FR or EU", args.jurisdiction);
        return Err(Failure::new(Exit::Usage, cause));
    }
    let wrong = |why: String| Failure::new(Exit::Usage, format!("--deadline: {why}"));
    let referral = local::Referral {
        open: true,
        authority: args.authority.clone(),
        jurisdiction: args.jurisdiction.clone(),
        deadline_ms: show::moment(&args.deadline, clock::now()).map_err(wrong)?.0,
    };
    say(&signals(&args.items)?, referral, at).await
}

fn signals(items: &[String]) -> Result<Vec<local::Signal>, Failure> {
    let items = items.iter().map(|item| Item::read(item)).collect::<Result<Vec<_>, _>>()?;
    Ok(items.iter().flat_map(Item::usable_hashes).map(|hash: Hash| hash.signal()).collect())
}

async fn say(signals: &[local::Signal], referral: local::Referral, at: &Invocation) -> Outcome {
    let node = at.node().await?;
    let statement = local::Statement { referral: Some(referral), ..Default::default() };
    say_of(signals.to_vec(), &statement, &node, at).await
}

async fn list(args: &ListArgs, at: &Invocation) -> Outcome {
    let state = args.state.as_deref().map(str::to_ascii_uppercase);
    check("--state", state.as_deref(), |s| STATES.contains(&s), &STATES)?;
    let node = at.node().await?;
    let mut request = local::ListReferralsRequest { state: state.unwrap_or_default(), ..Default::default() };
    let mut shown = 0;
    while shown < args.limit {
        request.page_size = u32::try_from((args.limit - shown).min(PAGE_MAX)).unwrap_or_default();
        let page = node.referrals(request.clone()).await?;
        for referral in page.referrals {
            shown += 1;
            if at.terminal.json {
                at.terminal.json(&answers::Referral::from(referral))?;
            } else {
                at.terminal.data(as_text(&referral))?;
            }
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    if !request.page_token.is_empty() {
        at.terminal.talk(format!("{shown} referrals shown, there are more: --limit N"));
    } else if shown == 0 {
        at.terminal.talk("no referral fits");
        return Ok(Exit::NotFound);
    }
    Ok(Exit::Ok)
}

fn as_text(r: &local::ReferralState) -> String {
    let signal = r.signal.clone().unwrap_or_default();
    let by = match r.confirmed_by.as_str() {
        "" => String::new(),
        member => format!(" by {}", show::clean(member)),
    };
    let deadline = match r.deadline_ms {
        0 => String::new(),
        at => format!(", answer wanted until {}", show::time(TimeMs(at))),
    };
    format!(
        "{}  {}\n  {}{by} after {}; referred by {} ({}, {}) {}{deadline}",
        show::signal(&signal.r#type, &signal.value),
        show::clean(&r.status),
        show::clean(&r.state),
        show::span(r.took_ms),
        show::clean(&r.member),
        show::clean(&r.authority),
        show::clean(&r.jurisdiction),
        show::time(TimeMs(r.opened_ms)),
    )
}
