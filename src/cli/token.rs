//! `token`: who of our company may reach this node over TCP. `audit`: what they did.

use clap::{ArgGroup, Args, Subcommand};

use super::Invocation;
use super::failure::{Exit, Failure, Outcome};
use super::show;
use crate::access::{Role, Scope};
use crate::answers;
use crate::clock;
use crate::replica::ids::TimeMs;
use crate::wire::local;

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token: a link to the console for a person, or a secret for a program; shown once
    New(NewArgs),
    /// Show the tokens that there are, without their secrets
    List,
    /// Take a token back; browsers that were signed in with it are signed out
    Revoke {
        /// Its name
        name: String,
    },
}

#[derive(Args)]
#[command(group = ArgGroup::new("what").required(true).args(["role", "scope"]))]
pub(super) struct NewArgs {
    /// Whose it is: a person or a program; stands in the audit trail
    #[arg(long)]
    name: String,
    /// For a person: viewer, reviewer or admin
    #[arg(long)]
    role: Option<Role>,
    /// For a program: lookup, submit, review, metrics, admin; several with commas between them
    #[arg(long, value_delimiter = ',')]
    scope: Vec<Scope>,
    /// When it ends: a date, a time, or as in 90d; at most 400 days from now
    #[arg(long, default_value = "30d", value_name = "WHEN")]
    expires: String,
}

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// Write who did what over the console, the HTTP API and gRPC with a token, the oldest first
    Export {
        /// Only since then: a date, a time, or as in 2026-11-20
        #[arg(long, value_name = "WHEN")]
        from: Option<String>,
    },
}

pub(super) async fn token(command: TokenCommand, at: &Invocation) -> Outcome {
    match command {
        TokenCommand::New(args) => new(args, at).await,
        TokenCommand::List => list(at).await,
        TokenCommand::Revoke { name } => {
            at.node().await?.revoke_token(local::RevokeTokenRequest { name: name.clone() }).await?;
            at.terminal.talk(format!("the token {} is taken back", show::clean(&name)));
            Ok(Exit::Ok)
        }
    }
}

async fn new(args: NewArgs, at: &Invocation) -> Outcome {
    let wrong = |why: String| Failure::new(Exit::Usage, format!("--expires: {why}"));
    let expires = show::moment(&args.expires, clock::now()).map_err(wrong)?;
    let made = at
        .node()
        .await?
        .create_token(local::CreateTokenRequest {
            name: args.name,
            role: args.role.map(|role| role.name().to_owned()).unwrap_or_default(),
            scopes: args.scope.iter().map(|scope| scope.name().to_owned()).collect(),
            expires_ms: expires.0,
        })
        .await?;
    if at.terminal.json {
        at.terminal.json(&answers::NewToken::from(made))?;
        return Ok(Exit::Ok);
    }
    let token = made.token.unwrap_or_default();
    let until = show::time(TimeMs(token.expires_ms));
    let secret = if made.link.is_empty() { made.secret } else { made.link };
    at.terminal.talk(format!("{} may {} until {until}; this is shown once:", token.name, token.scopes.join(", ")));
    at.terminal.data(secret)?;
    Ok(Exit::Ok)
}

async fn list(at: &Invocation) -> Outcome {
    let tokens = at.node().await?.tokens(local::ListTokensRequest {}).await?.tokens;
    if at.terminal.json {
        at.terminal.json(&tokens.into_iter().map(answers::Token::from).collect::<Vec<_>>())?;
        return Ok(Exit::Ok);
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["NAME", "ROLE", "MAY", "MADE", "UNTIL"]);
    for token in &tokens {
        let role = if token.role.is_empty() { "program" } else { &token.role };
        let times = [token.made_ms, token.expires_ms].map(|at| show::time(TimeMs(at)));
        let [made, until] = times;
        table.add_row([show::clean(&token.name), role.to_owned(), token.scopes.join(", "), made, until]);
    }
    at.terminal.data(table.trim_fmt())?;
    Ok(Exit::Ok)
}

pub(super) async fn audit(command: AuditCommand, at: &Invocation) -> Outcome {
    let AuditCommand::Export { from } = command;
    let wrong = |why: String| Failure::new(Exit::Usage, format!("--from: {why}"));
    let from = from.as_deref().map(|from| show::moment(from, clock::now()).map_err(wrong)).transpose()?;
    let request = local::ListAuditRequest { from_ms: from.unwrap_or_default().0 };
    at.node().await?.audit(request, |act| at.terminal.json(&answers::AuditedAct::from(act))).await?;
    Ok(Exit::Ok)
}
