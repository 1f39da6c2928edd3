//! `match`: is it listed, who says so, and what do our rules make of it? Asked of our own node only.

use std::io::{self, BufRead as _, Read as _};

use clap::Args;

use super::catalogue::{Format, Wanted};
use super::failure::{Exit, Failure, Outcome, io_failure};
use super::item::Item;
use super::{Invocation, catalogue, show};
use crate::answers;
use crate::net::local::is_bulk;
use crate::replica::ids::TimeMs;
use crate::replica::signal::Alg;
use crate::wire::local;

/// Items of one command: who has more writes a program against the local service.
const ITEMS_MAX: usize = 100_000;
/// Longest line on stdin: a path, or a hash with its type.
const LINE_SIZE_MAX: u64 = 8_192;

#[derive(Args)]
pub(super) struct MatchArgs {
    /// Files, hashes as in sha256:..., or pages as in https://...; - reads one a line from stdin
    #[arg(required_unless_present_any = ["account", "catalogue"], value_name = "FILE|HASH|URL|-")]
    items: Vec<String>,
    /// Who posts it, where the forum lists accounts: as in example-video:4711; looked up alone, or with each of the items
    #[arg(long, value_name = "PLATFORM:ID")]
    account: Option<String>,
    /// Bits that a picture may differ in, at most 31
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u32).range(0..=31))]
    distance: Option<u32>,
    /// Share of a video's frames that must be near a listed video's, in percent [default: 80]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    share: Option<u32>,
    /// Look pictures up in all eight positions: turned and mirrored, too
    #[arg(long, conflicts_with = "catalogue")]
    dihedral: bool,
    /// Also say which hashes were looked up, and of each rule of our policy why it decided or did not
    #[arg(long)]
    explain: bool,
    /// Look up a whole archive: one hash a line, or id,hash; - reads stdin. Writes what matches, and lines that are no hashes
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["items", "account", "explain"])]
    catalogue: Option<String>,
    /// Of --catalogue: the type of hashes that name none, as in pdq or sha256
    #[arg(long = "type", value_name = "NAME", requires = "catalogue", value_parser = bulk_type)]
    alg: Option<Alg>,
    /// Of --catalogue: how results are written
    #[arg(long, requires = "catalogue", default_value = "jsonl")]
    format: Format,
    /// Of --catalogue: also lines that do not match
    #[arg(long, requires = "catalogue")]
    all: bool,
}

fn bulk_type(name: &str) -> Result<Alg, String> {
    let known = || Alg::SUPPORTED.into_iter().filter(|alg| is_bulk(*alg)).map(Alg::name).collect::<Vec<_>>().join(", ");
    Alg::from_name(name).filter(|alg| is_bulk(*alg)).ok_or_else(|| format!("expected one of {}", known()))
}

pub(super) async fn lookup(args: &MatchArgs, at: &Invocation) -> Outcome {
    if let Some(path) = &args.catalogue {
        let wanted = Wanted { alg: args.alg, distance: args.distance, format: args.format, all: args.all };
        return catalogue::look_up(path, &wanted, at).await;
    }
    let mut items = items(&args.items)?;
    if args.dihedral {
        items = items.into_iter().map(Item::in_all_positions).collect::<Result<_, _>>()?;
    }
    let account = args.account.as_deref().map(Item::account);
    if items.is_empty() {
        items.extend(account.clone());
    }
    let poster = account.filter(|_| !args.items.is_empty());
    let node = at.node().await?;
    let mut exit = Exit::NotFound;
    for item in &items {
        item.tell_of_video(at);
        let request = local::LookupRequest {
            signals: item.sought().into_iter().chain(poster.iter().flat_map(Item::sought)).collect(),
            distance_max: args.distance,
            explain: args.explain,
            share_min_permille: args.share.map(|percent| percent * 10),
            ..Default::default()
        };
        let answer = node.lookup(request).await?;
        if !answer.matches.is_empty() {
            exit = Exit::Ok;
        }
        if at.terminal.json {
            at.terminal.json(&as_json(item, answer))?;
        } else {
            at.terminal.data(as_text(item, &answer, args.explain).trim_end())?;
        }
    }
    Ok(exit)
}

/// All items are read before the first is looked up: a mistake in the last one is told at once.
fn items(arguments: &[String]) -> Result<Vec<Item>, Failure> {
    let mut items = Vec::new();
    for argument in arguments {
        if argument == "-" {
            let stdin = io::stdin().lock();
            read_lines(stdin, &mut items)?;
        } else {
            items.push(Item::read(argument)?);
        }
    }
    Ok(items)
}

fn read_lines(mut from: impl io::BufRead, items: &mut Vec<Item>) -> Result<(), Failure> {
    for number in 1.. {
        let mut line = String::new();
        let read = from
            .by_ref()
            .take(LINE_SIZE_MAX)
            .read_line(&mut line)
            .map_err(io_failure(format!("stdin, line {number}")))?;
        if read == 0 {
            break;
        }
        if items.len() >= ITEMS_MAX {
            return Err(Failure::new(Exit::Usage, format!("stdin has more than {ITEMS_MAX} lines")));
        }
        if !line.trim().is_empty() {
            let item = Item::read(line.trim());
            items.push(item.map_err(|failure| failure.culprit(format!("stdin, line {number}")))?);
        }
    }
    Ok(())
}

fn as_json(item: &Item, answer: local::LookupResponse) -> answers::Matched {
    answers::Matched {
        item: item.name(),
        verdict: answers::verdict(answer.verdict()),
        shadow_verdict: shadow(&answer),
        lowered: answer.lowered,
        explained: answer.explained.into_iter().map(explained).collect(),
        rule: answer.rule,
        truncated: answer.truncated,
        matches: answer
            .matches
            .into_iter()
            // The item says what was looked up.
            .map(|m| answers::Match { signal_index: None, file_index: None, ..m.into() })
            .collect(),
    }
}

/// What the verdict would be, in shadow mode.
fn shadow(answer: &local::LookupResponse) -> Option<&'static str> {
    (answer.shadow_verdict() != local::Verdict::Unspecified).then(|| answers::verdict(answer.shadow_verdict()))
}

fn explained(rule: local::RuleExplained) -> answers::RuleExplained {
    let verdict = answers::verdict(rule.verdict());
    answers::RuleExplained { rule: rule.rule, verdict, line: rule.line, decided: rule.decided, why: rule.why }
}

/// A rule and what became of it, in one line.
pub(super) fn explained_text(rule: &answers::RuleExplained) -> String {
    let place = if rule.line > 0 { format!(" (line {})", rule.line) } else { String::new() };
    let mark = if rule.decided { "decides" } else { "no     " };
    format!("{mark}  {:<6}  {}{place}: {}", rule.verdict, show::clean(&rule.rule), show::clean(&rule.why))
}

pub(super) fn as_text(item: &Item, answer: &local::LookupResponse, explain: bool) -> String {
    let verdict = answers::verdict(answer.verdict());
    let mut text = format!("{verdict}  {}  {}\n", show::clean(&item.name()), show::clean(&answer.rule));
    if let Some(would_be) = shadow(answer) {
        text.push_str(&format!("  shadow mode: the verdict would be {would_be}\n"));
    }
    if !answer.lowered.is_empty() {
        text.push_str(&format!("  lowered from BLOCK to REVIEW: {}\n", show::clean(&answer.lowered)));
    }
    for found in &answer.matches {
        let Some(entry) = &found.entry else { continue };
        let near = match (found.threshold, found.share_permille) {
            (_, share) if share > 0 => format!("{}.{} % of the frames", share / 10, share % 10),
            (0, _) => "equal".to_owned(),
            (threshold, _) => format!("distance {} of {threshold}", found.distance),
        };
        text.push_str(&format!("  {near}  "));
        text.push_str(&entry_text(entry, "  "));
        if found.flooding {
            text.push_str("    matches far more often here than it used to: staydown review list --kind flood\n");
        }
    }
    if answer.truncated {
        text.push_str("  there are more matches than are shown\n");
    }
    if explain {
        text.push_str(&format!("  rule: {}\n", show::clean(&answer.rule)));
        for rule in answer.explained.iter().cloned().map(explained) {
            text.push_str(&format!("    {}\n", explained_text(&rule)));
        }
        for hash in item.looked_up_hashes() {
            let note = if hash.is_poor() { "not looked up: too little in the picture" } else { "looked up" };
            text.push_str(&format!("  {note}: {}\n", hash.short()));
        }
    }
    text
}

/// An entry in a few lines; all but the first begin with `indent`.
pub(super) fn entry_text(entry: &local::Entry, indent: &str) -> String {
    let signal = entry.signal.clone().unwrap_or_default();
    let join = |texts: &[String]| show::clean(&texts.join(", "));
    let mut text = format!("{}  {}", show::signal(&signal.r#type, &signal.value), show::clean(&entry.status));
    for (what, values) in [("", &entry.labels), ("languages ", &entry.languages)] {
        if !values.is_empty() {
            text.push_str(&format!("  {what}{}", join(values)));
        }
    }
    text.push('\n');
    if entry.allow_conflict {
        text.push_str(&format!("{indent}  certified and listed at once: people decide\n"));
    }
    for said in &entry.said {
        text.push_str(&format!("{indent}  {}\n", said_text(said)));
    }
    for resource in &entry.resources {
        let (url, member) = (show::clean(&resource.url), show::clean(&resource.member));
        text.push_str(&format!("{indent}  answered by {url} (certified by {member})\n"));
    }
    if entry.first_seen_ms > 0 {
        text.push_str(&format!("{indent}  first seen {}\n", show::time(TimeMs(entry.first_seen_ms))));
    }
    text
}

fn said_text(said: &local::Said) -> String {
    let verb = match said.what.as_str() {
        "SUBMIT" => "submitted",
        "ENDORSE" => "endorsed",
        "DISPUTE" => "disputed",
        "NEUTRAL" => "withdrawn",
        "RETRACT" => "retraction asked",
        "KEEP" => "retraction no longer asked",
        "ALLOW" => "certified",
        "ALLOW_ENDED" => "certificate taken back",
        "REFERRAL" => "referred",
        "REFERRAL_CLOSED" => "referral closed",
        other => other,
    };
    let place = show::clean(&said.jurisdictions.join(", "));
    let mut text = format!(
        "{} by {} ({place}; group {}) {}",
        show::clean(verb),
        show::clean(&said.member),
        show::clean(&said.group),
        show::time(TimeMs(said.time_ms))
    );
    text.push_str(&format!(", log {} block {} record {}", said.log_no, said.seq, said.index));
    if !said.reason.is_empty() {
        text.push_str(&format!(", reason {}", show::clean(&said.reason)));
    }
    if said.expires_ms > 0 {
        text.push_str(&format!(", until {}", show::time(TimeMs(said.expires_ms))));
    }
    if !said.counts {
        text.push_str(" (does not count)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> local::Entry {
        let said = local::Said {
            member: "acme".to_owned(),
            group: "Acme".to_owned(),
            jurisdictions: vec!["FR".to_owned()],
            what: "SUBMIT".to_owned(),
            time_ms: 1_795_000_000_000,
            log_no: 0,
            seq: 3,
            index: 1,
            counts: true,
            ..Default::default()
        };
        local::Entry {
            signal: Some(local::Signal { r#type: "md5".to_owned(), value: "ab\u{1b}".to_owned() }),
            status: "ACTIVE".to_owned(),
            labels: vec!["symbol".to_owned()],
            said: vec![said],
            ..Default::default()
        }
    }

    #[test]
    fn an_answer_says_who_said_what_and_when() {
        let answer = local::LookupResponse {
            verdict: local::Verdict::Review as i32,
            rule: "one company".to_owned(),
            matches: vec![local::Match {
                signal_index: 0,
                distance: 14,
                threshold: 31,
                entry: Some(entry()),
                flooding: true,
                ..Default::default()
            }],
            truncated: true,
            shadow_verdict: local::Verdict::Block as i32,
            lowered: "a certifier".to_owned(),
            explained: vec![local::RuleExplained {
                rule: "one company".to_owned(),
                verdict: local::Verdict::Block as i32,
                line: 7,
                decided: true,
                why: "it holds".to_owned(),
            }],
            ..Default::default()
        };
        let item = Item::read("md5:900150983cd24fb0d6963f7d28e17f72").unwrap();
        let text = as_text(&item, &answer, true);
        for expected in [
            "REVIEW  md5:900150983cd24fb0d6963f7d28e17f72  one company\n",
            "distance 14 of 31  md5:ab\u{b7}  ACTIVE  symbol\n",
            "submitted by acme (FR; group Acme) 2026-11-18 11:06:40 UTC, log 0 block 3 record 1",
            "there are more matches",
            "matches far more often here",
            "shadow mode: the verdict would be BLOCK",
            "lowered from BLOCK to REVIEW: a certifier",
            "decides  BLOCK   one company (line 7): it holds",
            "looked up: md5:9001",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        let json = serde_json::to_value(as_json(&item, answer)).unwrap();
        assert_eq!(json["matches"][0]["entry"]["said"][0]["member"], "acme");
        assert_eq!((&json["verdict"], &json["shadow_verdict"]), (&"REVIEW".into(), &"BLOCK".into()));
        assert_eq!((&json["explained"][0]["line"], &json["explained"][0]["decided"]), (&7.into(), &true.into()));
    }

    #[test]
    fn lines_of_stdin_are_items_and_a_wrong_one_is_named() {
        let mut items = Vec::new();
        let text = "md5:900150983cd24fb0d6963f7d28e17f72\n\n  900150983cd24fb0d6963f7d28e17f72\n";
        read_lines(text.as_bytes(), &mut items).unwrap();
        assert_eq!(items.len(), 2);
        let failure = read_lines("\nmd5:1\n".as_bytes(), &mut items).unwrap_err();
        assert!(failure.culprits.contains(&"stdin, line 2".to_owned()), "{failure:?}");
    }
}
