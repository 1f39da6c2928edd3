//! `member`: the companies of the forum, from the charter that this node holds.

use clap::Subcommand;
use prost::Message as _;
use serde::Serialize;

use super::Invocation;
use super::charter::current_chain;
use super::client::Node;
use super::drafting::governing::{self, is_of, log_no};
use super::failure::{Exit, Failure, Outcome};
use super::{log, show};
use crate::replica::charter::Roles;
use crate::replica::ids::{KeyId, TimeMs, hex};
use crate::replica::{proto, record};
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
}

/// A company as `--json` writes it.
#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    name: String,
    group: String,
    roles: Vec<&'static str>,
    status: &'static str,
    jurisdictions: Vec<String>,
    languages: Vec<String>,
    endpoints: Vec<String>,
    pins: Vec<String>,
    log_root_key_id: String,
    log_limit: u32,
    admitted_ms: u64,
    expelled: Option<Expelled>,
    cutoffs: Vec<Cut>,
}

#[derive(Debug, Serialize)]
struct Expelled {
    policy: &'static str,
    reason: String,
}

/// A log that counts up to a block; one that was not opened yet counts up to block 0.
#[derive(Debug, Serialize)]
struct Cut {
    log_no: u32,
    last_seq: u64,
    last_hash: String,
}

pub(super) async fn member(command: MemberCommand, at: &Invocation) -> Outcome {
    let chain = current_chain(at).await?;
    let version = chain.effective().version;
    let body = chain.from(version).first().map(|(signed, _)| signed.body.clone()).unwrap_or_default();
    let charter = proto::Charter::decode(body).map_err(|error| Failure::new(Exit::Verification, error.to_string()))?;
    match command {
        MemberCommand::List => list(&charter, at),
        MemberCommand::Show { member } => show_one(&charter, &member, at).await,
    }
}

fn list(charter: &proto::Charter, at: &Invocation) -> Outcome {
    let members: Vec<_> = charter.members.iter().map(|m| shown(charter, m)).collect();
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
    let m = shown(charter, &charter.members[governing::position(charter, who)?]);
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
    line("Logs", format!("at most {}", m.log_limit))?;
    // A node that does not run knows the charter, and not how far logs reach.
    if let Ok(node) = Node::connect(&at.config()?.local.socket).await {
        for words in log::heads_of(node.status(local::StatusRequest {}).await?, &m.id) {
            line("", words)?;
        }
    }
    for cut in m.cutoffs.iter().filter(|cut| cut.last_seq > 0) {
        line("Cut off", format!("log {} counts up to block {} (hash {})", cut.log_no, cut.last_seq, cut.last_hash))?;
    }
    Ok(Exit::Ok)
}

fn status_words(m: &Shown) -> String {
    match &m.expelled {
        Some(e) => format!("{} ({}, {})", m.status, e.policy, e.reason),
        None if m.status == "SUSPENDED" => "SUSPENDED (until a charter reinstates it)".to_owned(),
        None => m.status.to_owned(),
    }
}

fn shown(charter: &proto::Charter, m: &proto::Member) -> Shown {
    let expulsion = charter.expulsions.iter().find(|e| e.member_id == m.id);
    let listed = expulsion.into_iter().flat_map(|e| &e.cutoffs).chain(&charter.cutoffs);
    let cutoffs = listed.filter(|c| is_of(c, &m.id)).map(|c| Cut {
        log_no: log_no(c),
        last_seq: c.last_seq,
        last_hash: hex(&c.last_hash),
    });
    Shown {
        id: hex(&m.id),
        name: m.name.clone(),
        group: m.group.clone(),
        roles: Roles::from_bits(m.roles).names(),
        status: match m.status {
            governing::ACTIVE => "ACTIVE",
            governing::SUSPENDED => "SUSPENDED",
            _ => "FORMER",
        },
        jurisdictions: m.jurisdictions.clone(),
        languages: m.languages.clone(),
        endpoints: m.nodes.iter().flat_map(|node| node.endpoints.clone()).collect(),
        pins: m.nodes.iter().flat_map(|node| node.tls_spki_sha256.iter().map(|pin| hex(pin))).collect(),
        log_root_key_id: KeyId::of(&m.log_root_key).to_string(),
        log_limit: m.log_limit,
        admitted_ms: m.admitted_ms,
        expelled: expulsion.map(|e| Expelled {
            policy: if e.policy == 1 { "KEEP" } else { "VOID" },
            reason: u8::try_from(e.reason)
                .ok()
                .and_then(record::reason_name)
                .map_or_else(|| e.reason.to_string(), ToOwned::to_owned),
        }),
        cutoffs: cutoffs.collect(),
    }
}
