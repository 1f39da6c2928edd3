//! `member`: the companies of the forum, from the charter that this node holds.

use clap::{Args, Subcommand};
use prost::Message as _;

use super::Invocation;
use super::charter::current_chain;
use super::client::Node;
use super::drafting::governing;
use super::failure::{Exit, Failure, Outcome};
use super::{log, show, submit};
use crate::answers::Company;
use crate::clock;
use crate::replica::ids::TimeMs;
use crate::replica::proto;
use crate::replica::suspension::SUSPENSION_DAYS_MAX;
use crate::wire::local;

#[derive(Subcommand)]
pub(super) enum MemberCommand {
    /// Show every company: group, roles, status, jurisdictions, languages
    List,
    /// Show one company with its keys, pins, endpoints and logs
    Show {
        /// Its name or id
        member: String,
    },
    /// As a steward: cut a company off within a second, for some days. Only a charter makes it last
    Suspend(SuspendArgs),
}

#[derive(Args)]
pub(super) struct SuspendArgs {
    /// Its name or id
    member: String,
    /// For how long, from now; it ends with a full hour
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=SUSPENSION_DAYS_MAX))]
    days: u64,
    /// Why: key-compromise, mistake, overmatching, other, ...
    #[arg(long)]
    reason: String,
    /// Wait until so many peers hold it
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    wait_peers: u32,
}

pub(super) async fn member(command: MemberCommand, at: &Invocation) -> Outcome {
    let chain = current_chain(at).await?;
    let version = chain.effective().version;
    let body = chain.from(version).first().map(|(signed, _)| signed.body.clone()).unwrap_or_default();
    let charter = proto::Charter::decode(body).map_err(|error| Failure::new(Exit::Verification, error.to_string()))?;
    match command {
        MemberCommand::List => list(&charter, at).await,
        MemberCommand::Show { member } => show_one(&charter, &member, at).await,
        MemberCommand::Suspend(args) => suspend(&charter, args, at).await,
    }
}

async fn suspend(charter: &proto::Charter, args: SuspendArgs, at: &Invocation) -> Outcome {
    let target = &charter.members[governing::position(charter, &args.member)?];
    governing::reason(&args.reason)?;
    let until = clock::now().plus(args.days * TimeMs::DAY_MS);
    let node = at.node().await?;
    let name = show::clean(&target.name);
    let until_words = show::time(until);
    at.terminal.confirm(&format!(
        "Suspend {name} until {until_words}? Its connections end at every node that hears of it, and what it says from now on does not count."
    ))?;
    let suspend = local::Suspension { member_id: target.id.clone(), until_ms: until.0, reason: args.reason };
    let statement = local::Statement { suspend: Some(suspend), ..Default::default() };
    let lane = local::Lane::Urgent as i32;
    let request =
        local::SubmitRequest { statements: vec![statement], lane, wait_peers: args.wait_peers, wait_timeout_ms: 0 };
    let answer = node.submit(request).await?;
    if answer.state() == local::SubmitState::Durable {
        at.terminal.talk(format!("{name} is suspended until {until_words}, at this node and wherever this arrives"));
    }
    submit::print_answer(answer, at)?;
    Ok(Exit::Ok)
}

/// Whom stewards have suspended, until when. A node that does not run knows the charter only.
async fn suspended(at: &Invocation) -> Result<(Option<local::StatusResponse>, Vec<local::SuspendedMember>), Failure> {
    let Ok(node) = Node::connect(&at.config()?.local.socket).await else { return Ok((None, Vec::new())) };
    let status = node.status(local::StatusRequest {}).await?;
    let suspended = status.suspended.clone();
    Ok((Some(status), suspended))
}

async fn list(charter: &proto::Charter, at: &Invocation) -> Outcome {
    let (_, suspended) = suspended(at).await?;
    let members: Vec<_> = charter.members.iter().map(|m| Company::of(charter, m, &suspended)).collect();
    if at.terminal.json {
        at.terminal.json(&members)?;
        return Ok(Exit::Ok);
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["MEMBER", "GROUP", "ROLES", "STATUS", "JURISDICTIONS", "LANGUAGES", "SINCE"]);
    for m in &members {
        let cells = [
            show::clean(&m.name),
            show::clean(&m.group),
            m.roles.join("+"),
            status_words(m),
            show::clean(&m.jurisdictions.join(", ")),
            show::clean(&m.languages.join(", ")),
            show::date(TimeMs(m.admitted_ms)),
        ];
        table.add_row(cells);
    }
    at.terminal.data(table.trim_fmt())?;
    Ok(Exit::Ok)
}

async fn show_one(charter: &proto::Charter, who: &str, at: &Invocation) -> Outcome {
    let (status, suspended) = suspended(at).await?;
    let m = Company::of(charter, &charter.members[governing::position(charter, who)?], &suspended);
    if at.terminal.json {
        at.terminal.json(&m)?;
        return Ok(Exit::Ok);
    }
    let line = |name: &str, value: String| at.terminal.data(format!("{name:<13} {}", show::clean(&value)));
    line("Member", format!("{} (group {})", m.name, m.group))?;
    line("Id", m.id.clone())?;
    line("Roles", m.roles.join(", "))?;
    line("Status", status_words(&m))?;
    line("Since", show::date(TimeMs(m.admitted_ms)))?;
    line("Jurisdictions", m.jurisdictions.join(", "))?;
    line("Languages", m.languages.join(", "))?;
    line("Endpoints", m.endpoints.join(", "))?;
    for pin in &m.pins {
        line("TLS pin", pin.clone())?;
    }
    line("Log root key", m.log_root_key_id.clone())?;
    line("Key words", m.key_words.clone())?;
    line("Logs", format!("at most {}", m.log_limit))?;
    // A node that does not run knows the charter, and not how far logs reach.
    for words in status.into_iter().flat_map(|status| log::heads_of(status, &m.id)) {
        line("", words)?;
    }
    for cut in m.cutoffs.iter().filter(|cut| cut.last_seq > 0) {
        line("Cut off", format!("log {} counts up to block {} (hash {})", cut.log_no, cut.last_seq, cut.last_hash))?;
    }
    Ok(Exit::Ok)
}

fn status_words(m: &Company) -> String {
    match &m.expelled {
        Some(e) => format!("{} ({}, {})", m.status, e.policy, e.reason),
        None if m.suspended_until_ms > 0 => {
            format!("SUSPENDED (by a steward, until {})", show::time(TimeMs(m.suspended_until_ms)))
        }
        None if m.status == "SUSPENDED" => "SUSPENDED (until a charter reinstates it)".to_owned(),
        None => m.status.to_owned(),
    }
}
