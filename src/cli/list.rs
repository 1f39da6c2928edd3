//! `list search`: the list, filtered, page by page. `list watch`: what changes of it.

use clap::{Args, Subcommand};

use super::export::ExportArgs;
use super::failure::{Exit, Failure, Outcome};
use super::lookup::entry_text;
use super::run::stop_signal;
use super::{Invocation, export, show};
use crate::answers;
use crate::config::nearest;
use crate::replica::signal::Alg;
use crate::replica::view::Status;
use crate::wire::local;

/// Entries shown unless more are asked for: a screen or two.
const LIMIT_DEFAULT: u64 = 50;
/// Entries of one call (the service's own limit).
const PAGE_MAX: u32 = 1_000;
const STATUSES: [&str; 8] =
    ["ERASED", "RETRACTED", "ALLOWED", "CONTESTED", "ACTIVE", "PROVISIONAL", "REFERRED", "INACTIVE"];

#[derive(Subcommand)]
pub(super) enum ListCommand {
    /// Show entries that fit all filters, in the order of their hashes
    Search(SearchArgs),
    /// Write the list, or a part of it, in a form that other programs read
    Export(ExportArgs),
    /// Show each entry that changes, until it is interrupted or the node stops; then tell the bookmark to go on from
    Watch(WatchArgs),
}

#[derive(Args)]
pub(super) struct WatchArgs {
    /// Go on behind this bookmark; without it, from now on
    #[arg(long, value_name = "BOOKMARK", conflicts_with = "list")]
    from: Option<String>,
    /// First the list as it stands
    #[arg(long)]
    list: bool,
    /// pdq, md5, sha1, sha256, sha512, vpdq
    #[arg(long)]
    r#type: Option<String>,
}

/// Which entries are meant.
#[derive(Args, Debug, Default)]
pub(super) struct Which {
    /// pdq, md5, sha1, sha256, sha512, vpdq
    #[arg(long)]
    r#type: Option<String>,
    /// ACTIVE, PROVISIONAL, CONTESTED, REFERRED, ALLOWED, RETRACTED, INACTIVE
    #[arg(long)]
    status: Option<String>,
    /// Label of the taxonomy
    #[arg(long)]
    label: Option<String>,
    /// Language of what was posted: pt finds pt-BR too
    #[arg(long, value_name = "TAG")]
    language: Option<String>,
    /// Name of a member that says something of it
    #[arg(long)]
    member: Option<String>,
    /// First seen then or later: 2026-07-01, 2026-07-01T06:00:00Z
    #[arg(long, value_name = "DATE")]
    since: Option<String>,
}

#[derive(Args)]
pub(super) struct SearchArgs {
    #[command(flatten)]
    which: Which,
    /// Entries at most
    #[arg(long, default_value_t = LIMIT_DEFAULT, conflicts_with = "all")]
    limit: u64,
    /// All of them, also those that nobody stands behind any more
    #[arg(long)]
    all: bool,
}

pub(super) async fn list(command: ListCommand, at: &Invocation) -> Outcome {
    match command {
        ListCommand::Search(args) => search(&args, at).await,
        ListCommand::Export(args) => export::export(&args, at).await,
        ListCommand::Watch(args) => watch(&args, at).await,
    }
}

async fn search(args: &SearchArgs, at: &Invocation) -> Outcome {
    let mut request = request(&args.which, args.all)?;
    let node = at.node().await?;
    let mut left = if args.all { u64::MAX } else { args.limit };
    let mut shown = 0_u64;
    while left > 0 {
        request.page_size = u32::try_from(left.min(u64::from(PAGE_MAX))).unwrap_or(PAGE_MAX);
        let page = node.entries(request.clone()).await?;
        for entry in page.entries {
            left = left.saturating_sub(1);
            shown += 1;
            print(entry, at)?;
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    if !request.page_token.is_empty() {
        at.terminal.talk(format!("{shown} entries shown, there are more: --limit N, or --all"));
    } else if shown == 0 {
        at.terminal.talk("no entry fits");
        return Ok(Exit::NotFound);
    }
    Ok(Exit::Ok)
}

async fn watch(args: &WatchArgs, at: &Invocation) -> Outcome {
    check_type(args.r#type.as_deref())?;
    let interrupted = stop_signal(false)?;
    let node = at.node().await?;
    let request = local::WatchRequest {
        bookmark: args.from.clone().unwrap_or_default(),
        list: args.list,
        r#type: args.r#type.clone().unwrap_or_default(),
    };
    let mut changes = node.watch(request).await?;
    let mut bookmark = args.from.clone().unwrap_or_default();
    tokio::pin!(interrupted);
    let ended = loop {
        let event = tokio::select! {
            biased;
            () = &mut interrupted => break Ok(Exit::Ok),
            event = changes.next() => event,
        };
        match event {
            Ok(Some(event)) => {
                bookmark.clone_from(&event.bookmark);
                tell(event, at)?;
            }
            Ok(None) => break Ok(Exit::Ok), // the node stops
            Err(failure) => break Err(failure),
        }
    };
    if !bookmark.is_empty() {
        at.terminal.talk(format!("go on with: staydown list watch --from {bookmark}"));
    }
    ended
}

/// One line an event; of those without an entry programs are told the bookmark.
fn tell(event: local::WatchEvent, at: &Invocation) -> Result<(), Failure> {
    if at.terminal.json {
        return at.terminal.json(&answers::WatchEvent::from(event));
    }
    let change = answers::change(event.change());
    let Some(entry) = event.entry else { return Ok(()) };
    at.terminal.data(event_text(change, &event.status_before, &entry))
}

fn event_text(change: &str, before: &str, entry: &local::Entry) -> String {
    let text = entry_text(entry, "");
    let first = text.lines().next().unwrap_or_default();
    let from = if before.is_empty() { String::new() } else { format!("  (was {})", show::clean(before)) };
    let last = entry.said.iter().max_by_key(|said| said.time_ms);
    let by = last.map(|said| format!("  {} {}", show::clean(&said.what), show::clean(&said.member)));
    format!("{change:<6}  {first}{from}{}", by.unwrap_or_default())
}

fn print(entry: local::Entry, at: &Invocation) -> Result<(), Failure> {
    if at.terminal.json {
        at.terminal.json(&answers::Entry::from(entry))
    } else {
        at.terminal.data(entry_text(&entry, "").trim_end())
    }
}

/// The filters as the service takes them; `all`: also what nobody stands behind any more.
pub(super) fn request(args: &Which, all: bool) -> Result<local::ListEntriesRequest, Failure> {
    let status = args.status.as_deref().map(str::to_ascii_uppercase);
    check("--status", status.as_deref(), |s| Status::from_name(s).is_some(), &STATUSES)?;
    check_type(args.r#type.as_deref())?;
    let since = args.since.as_deref().map(crate::report::time::parse).transpose();
    let since = since.map_err(|why| Failure::new(Exit::Usage, format!("--since: {why}")))?;
    Ok(local::ListEntriesRequest {
        since_ms: since.map_or(0, |at| at.0),
        r#type: args.r#type.clone().unwrap_or_default(),
        status: status.unwrap_or_default(),
        label: args.label.clone().unwrap_or_default(),
        language: args.language.clone().unwrap_or_default(),
        member: args.member.clone().unwrap_or_default(),
        include_inactive: all || args.status.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("INACTIVE")),
        ..Default::default()
    })
}

fn check_type(got: Option<&str>) -> Result<(), Failure> {
    let types: Vec<_> = Alg::SUPPORTED.iter().chain([&Alg::Account]).map(|alg| alg.name()).collect();
    check("--type", got, |t| types.contains(&t), &types)
}

/// Refuses a name that is none of `known`, with the nearest that is.
pub(super) fn check(
    field: &str,
    got: Option<&str>,
    is_known: impl Fn(&str) -> bool,
    known: &[&str],
) -> Result<(), Failure> {
    let Some(got) = got.filter(|got| !is_known(got)) else { return Ok(()) };
    let failure = Failure::new(Exit::Usage, format!("{field}: got {got:?}, expected one of {}", known.join(", ")));
    Err(match nearest(got, known.iter().copied()) {
        Some(nearest) => failure.fix(format!("did you mean {nearest}?")),
        None => failure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let said = |what: &str, time_ms| local::Said {
            what: what.into(),
            member: "bolt".into(),
            time_ms,
            ..Default::default()
        };
        let entry = local::Entry {
            signal: Some(local::Signal { r#type: "md5".into(), value: "ab".into() }),
            status: "INACTIVE".into(),
            said: vec![said("NEUTRAL", 2), said("SUBMIT", 1)],
            ..Default::default()
        };
        assert_eq!(event_text("ENDED", "ACTIVE", &entry), "ENDED   md5:ab  INACTIVE  (was ACTIVE)  NEUTRAL bolt");
        assert_eq!(event_text("SAID", "", &entry), "SAID    md5:ab  INACTIVE  NEUTRAL bolt");
    }

    #[test]
    fn filters_that_nothing_can_fit_are_refused_with_the_nearest() {
        for (args, expected) in [
            (Which { status: Some("actve".into()), ..Which::default() }, "did you mean ACTIVE?"),
            (Which { r#type: Some("sha-256".into()), ..Which::default() }, "did you mean sha256?"),
        ] {
            assert_eq!(request(&args, false).unwrap_err().fix.as_deref(), Some(expected));
        }
        let active = Which { status: Some("active".into()), ..Which::default() };
        assert_eq!(request(&active, false).unwrap().status, "ACTIVE");
        assert!(STATUSES.iter().all(|status| Status::from_name(status).is_some()));
    }
}
