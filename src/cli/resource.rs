//! `resource`: certified counter-narratives. They travel with the forum's list and are offered with a match.

use clap::{Args, Subcommand};

use super::failure::{Exit, Failure, Outcome};
use super::{Invocation, show, submit};
use crate::answers;
use crate::clock;
use crate::replica::ids::TimeMs;
use crate::replica::record;
use crate::wire::files::is_language;
use crate::wire::local;

#[derive(Subcommand)]
pub(super) enum ResourceCommand {
    /// Certify a page for topics and languages; certifiers do, from level 2 on
    Add(AddArgs),
    /// Take our certificate of a page back
    Remove {
        /// As it was added
        url: String,
    },
    /// Show the pages that are certified
    List(ListArgs),
}

#[derive(Args)]
pub(super) struct AddArgs {
    /// https, a host and a path; no user, port, query or fragment
    url: String,
    /// Label of the taxonomy that it answers; may be repeated
    #[arg(long, required = true)]
    label: Vec<String>,
    /// Language of the page, as in fr or pt-BR; may be repeated [default: any]
    #[arg(long, value_name = "TAG")]
    language: Vec<String>,
    /// When the certificate ends: 2027-01-31, 90d, never
    #[arg(long, value_name = "WHEN", default_value = "never", hide_default_value = true)]
    expires: String,
}

#[derive(Args)]
pub(super) struct ListArgs {
    /// Label of the taxonomy
    #[arg(long)]
    label: Option<String>,
    /// Language: pt finds pt-BR too
    #[arg(long, value_name = "TAG")]
    language: Option<String>,
    /// Also those that were taken back or have ended
    #[arg(long)]
    all: bool,
}

pub(super) async fn resource(command: ResourceCommand, at: &Invocation) -> Outcome {
    match command {
        ResourceCommand::Add(args) => add(args, at).await,
        ResourceCommand::Remove { url } => say(local::Resource { url, ..Default::default() }, at).await,
        ResourceCommand::List(args) => list(args, at).await,
    }
}

async fn add(args: AddArgs, at: &Invocation) -> Outcome {
    if let Some(tag) = args.language.iter().find(|tag| !is_language(tag)) {
        let cause = format!("--language: got {tag:?}, expected a BCP 47 tag, as in fr or pt-BR");
        return Err(Failure::new(Exit::Usage, cause));
    }
    let wrong = |why: String| Failure::new(Exit::Usage, format!("--expires: {why}"));
    let expires_ms = show::moment(&args.expires, clock::now()).map_err(wrong)?.0;
    let resource = local::Resource {
        url: args.url,
        labels: args.label,
        languages: args.language,
        listed: true,
        expires_ms,
        ..Default::default()
    };
    say(resource, at).await
}

async fn say(resource: local::Resource, at: &Invocation) -> Outcome {
    if !record::is_resource_url(&resource.url) {
        let cause = format!(
            "URL: got {:?}, expected https, a host and a path, without user, port, query or fragment",
            resource.url
        );
        return Err(Failure::new(Exit::Usage, cause));
    }
    let statement = local::Statement { resource: Some(resource), ..Default::default() };
    let request = local::SubmitRequest { statements: vec![statement], ..Default::default() };
    let answer = at.node().await?.submit(request).await?;
    submit::print_answer(answer, at)?;
    Ok(Exit::Ok)
}

async fn list(args: ListArgs, at: &Invocation) -> Outcome {
    let request = local::ListResourcesRequest {
        label: args.label.unwrap_or_default(),
        language: args.language.unwrap_or_default(),
        all: args.all,
    };
    let answer = at.node().await?.resources(request).await?;
    let shown = answer.resources.len();
    for resource in answer.resources {
        if at.terminal.json {
            at.terminal.json(&answers::Resource::from(resource))?;
        } else {
            at.terminal.data(as_text(&resource))?;
        }
    }
    if answer.truncated {
        at.terminal.talk(format!("{shown} pages shown, there are more: --label, --language"));
    } else if shown == 0 {
        at.terminal.talk("no page fits");
        return Ok(Exit::NotFound);
    }
    Ok(Exit::Ok)
}

fn as_text(resource: &local::Resource) -> String {
    let languages =
        if resource.languages.is_empty() { "any language".to_owned() } else { resource.languages.join(", ") };
    let mut text = format!(
        "{}  {}  {}  certified by {}",
        show::clean(&resource.url),
        show::clean(&resource.labels.join(", ")),
        show::clean(&languages),
        show::clean(&resource.member)
    );
    if resource.expires_ms > 0 {
        text.push_str(&format!(", until {}", show::time(TimeMs(resource.expires_ms))));
    }
    if !resource.listed {
        text.push_str(" (taken back)");
    }
    text
}
