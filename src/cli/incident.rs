//! `incident`: an attack in progress is opened, and closed by a record too. Entries that are tied to it carry its label
//! while it is open, and travel in the urgent lane: `submit --incident ID`.

use clap::{Args, Subcommand};

use super::failure::{Exit, Failure, Outcome};
use super::{Invocation, show, submit};
use crate::answers;
use crate::clock;
use crate::net::saying::INCIDENT_DAYS_MAX;
use crate::replica::ids::{TimeMs, hex};
use crate::wire::local;

#[derive(Subcommand)]
pub(super) enum IncidentCommand {
    /// Open an incident, or join one; stewards and full members do. Prints its id
    Open(OpenArgs),
    /// Close what our company opened
    Close {
        /// 32 hexadecimal digits
        id: String,
    },
    /// Show incidents: who has which open, until when, and how many entries belong to them
    List,
}

#[derive(Args)]
pub(super) struct OpenArgs {
    /// Label of the taxonomy that its entries carry while it is open
    #[arg(long)]
    label: String,
    /// 1 low .. 4 imminent threat to life
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4))]
    level: u32,
    /// When it closes by itself, at most 30 days from now: 12h, 2d
    #[arg(long, value_name = "WHEN")]
    closes: String,
    /// The incident to join, or whose terms to change, in 32 hexadecimal digits [default: a new one]
    #[arg(long)]
    id: Option<String>,
}

pub(super) async fn incident(command: IncidentCommand, at: &Invocation) -> Outcome {
    match command {
        IncidentCommand::Open(args) => open(&args, at).await,
        IncidentCommand::Close { id } => close(&id, at).await,
        IncidentCommand::List => list(at).await,
    }
}

fn read_id(name: &str, text: &str) -> Result<[u8; 16], Failure> {
    show::sixteen_bytes(text).map_err(|why| Failure::new(Exit::Usage, format!("{name}: {why}")))
}

async fn open(args: &OpenArgs, at: &Invocation) -> Outcome {
    let now = clock::now();
    let wrong = |why: String| Failure::new(Exit::Usage, format!("--closes: {why}"));
    let closes = show::moment(&args.closes, now).map_err(wrong)?;
    if closes == TimeMs(0) || closes > now.plus(INCIDENT_DAYS_MAX * TimeMs::DAY_MS) {
        let cause =
            format!("--closes: got {:?}, expected a moment at most {INCIDENT_DAYS_MAX} days from now", args.closes);
        return Err(Failure::new(Exit::Usage, cause).fix("an attack that lasts longer is opened again: --id ID"));
    }
    let id = args.id.as_deref().map_or_else(|| Ok(clock::random()), |id| read_id("--id", id))?;
    let notice = local::IncidentNotice {
        id: id.to_vec().into(),
        label: args.label.clone(),
        level: args.level,
        open: true,
        closes_ms: closes.0,
    };
    let answer = say(notice, at).await?;
    let id = hex(&id);
    if at.terminal.json {
        let answer = answers::Submitted::from(answer);
        at.terminal.json(&serde_json::json!({ "id": id, "state": answer.state, "receipts": answer.receipts }))?;
    } else {
        at.terminal.data(&id)?;
        at.terminal
            .talk(format!("open until {}; next: staydown submit FILE --label L --incident {id}", show::time(closes)));
    }
    Ok(Exit::Ok)
}

async fn close(id: &str, at: &Invocation) -> Outcome {
    let id = read_id("ID", id)?;
    let node = at.node().await?;
    let me = node.status(local::StatusRequest {}).await?.member_id;
    let incidents = node.incidents(local::ListIncidentsRequest {}).await?.incidents;
    let words = incidents.into_iter().find(|incident| incident.id == id[..]).map(|incident| incident.words);
    let words = words.ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("no incident {} is known", hex(&id))).fix("staydown incident list")
    })?;
    let open: Vec<_> = words.iter().filter(|word| word.open).collect();
    if !open.iter().any(|word| word.member_id == me) {
        let failure = Failure::new(Exit::Refused, "our company has not opened it, or it is closed already");
        let others: Vec<_> = open.iter().map(|word| show::clean(&word.member)).collect();
        return Err(match others.is_empty() {
            true => failure,
            false => failure.culprit(format!("{} must close it", others.join(", "))),
        });
    }
    let answer = say(local::IncidentNotice { id: id.to_vec().into(), ..Default::default() }, at).await?;
    let others: Vec<_> =
        open.iter().filter(|word| word.member_id != me).map(|word| show::clean(&word.member)).collect();
    if !others.is_empty() {
        at.terminal.talk(format!("it stays open by the word of {}", others.join(", ")));
    }
    submit::print_answer(answer, at)?;
    Ok(Exit::Ok)
}

async fn say(notice: local::IncidentNotice, at: &Invocation) -> Result<local::SubmitResponse, Failure> {
    let statement = local::Statement { incident: Some(notice), ..Default::default() };
    let lane = local::Lane::Urgent as i32;
    at.node().await?.submit(local::SubmitRequest { statements: vec![statement], lane, ..Default::default() }).await
}

async fn list(at: &Invocation) -> Outcome {
    let answer = at.node().await?.incidents(local::ListIncidentsRequest {}).await?;
    let shown = answer.incidents.len();
    for incident in answer.incidents {
        if at.terminal.json {
            at.terminal.json(&answers::Incident::from(incident))?;
        } else {
            at.terminal.data(as_text(&incident).trim_end())?;
        }
    }
    if answer.truncated {
        at.terminal.talk(format!("{shown} incidents shown, there are more"));
    } else if shown == 0 {
        at.terminal.talk("no incident is known");
        return Ok(Exit::NotFound);
    }
    Ok(Exit::Ok)
}

fn as_text(incident: &local::IncidentState) -> String {
    let state = if incident.open { "OPEN" } else { "CLOSED" };
    let mut text = format!("{}  {state}  {} entries\n", hex(&incident.id), incident.entries);
    for word in &incident.words {
        let (member, said) = (show::clean(&word.member), show::time(TimeMs(word.time_ms)));
        text.push_str(&match word.open {
            true => format!(
                "  opened by {member} {said}: {}, level {}, until {}\n",
                show::clean(&word.label),
                word.level,
                show::time(TimeMs(word.closes_ms))
            ),
            false => format!("  closed by {member} (last word {said})\n"),
        });
    }
    text
}
