//! `policy`: what our company makes of matches. `show` asks the node; `check` and `test` need none.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;

use super::failure::{Exit, Failure, Outcome};
use super::lookup::explained_text;
use super::{Invocation, show, taxonomy};
use crate::answers;
use crate::policy::cases::{Case, Cases, Tried};
use crate::policy::in_force::{PolicyError, Source, read_file};
use crate::policy::{DEFAULT_TEXT, Explained, Policy, Problem};
use crate::replica::ids::TimeMs;
use crate::wire::local;

#[derive(Subcommand)]
pub(super) enum PolicyCommand {
    /// Write the policy in force, to start from; what each rule has decided is told beside it
    Show {
        /// The policy that this release has built in
        #[arg(long)]
        built_in: bool,
    },
    /// Find every mistake in a policy file, with its line
    Check {
        /// The file [default: the one that the node reads]
        file: Option<PathBuf>,
    },
    /// Try a policy on a file of cases
    Test {
        /// The cases
        cases: PathBuf,
        /// The policy [default: the one that the node reads]
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
}

pub(super) async fn policy(command: PolicyCommand, at: &Invocation) -> Outcome {
    match command {
        PolicyCommand::Show { built_in } => shown(built_in, at).await,
        PolicyCommand::Check { file } => check(file.as_deref(), at).await,
        PolicyCommand::Test { cases, policy } => test(&cases, policy.as_deref(), at).await,
    }
}

impl From<PolicyError> for Failure {
    fn from(error: PolicyError) -> Self {
        let exit = match &error {
            PolicyError::Read { source, .. } if source.kind() != std::io::ErrorKind::NotFound => Exit::Io,
            _ => Exit::BadInput,
        };
        Self::new(exit, error.to_string())
    }
}

async fn shown(built_in: bool, at: &Invocation) -> Outcome {
    let policy =
        if built_in { not_in_force(String::new(), DEFAULT_TEXT.to_owned(), false) } else { current(at).await? };
    if at.terminal.json {
        at.terminal.json(&policy)?;
        return Ok(Exit::Ok);
    }
    at.terminal.data(policy.text.trim_end())?;
    let file = if policy.file.is_empty() { "built in" } else { &policy.file };
    at.terminal.talk(match policy.in_force {
        true => format!("In force since {}: {}", show::time(TimeMs(policy.since_ms)), show::clean(file)),
        false => format!("Not in force, no node is asked: {}", show::clean(file)),
    });
    if policy.shadow {
        at.terminal.talk("Shadow mode: verdicts are computed and counted, and answered ALLOW");
    }
    if !policy.refused.is_empty() {
        at.terminal.talk(format!("warning: the file has changed and is refused: {}", show::clean(&policy.refused)));
    }
    if let Some(breaker) = &policy.breaker {
        at.terminal.talk(breaker_text(breaker));
    }
    for c in policy.counts.iter().filter(|c| c.allow + c.review + c.block > 0) {
        let [allow, review, block] = [c.allow, c.review, c.block].map(show::count);
        at.terminal.talk(format!("  ALLOW {allow}  REVIEW {review}  BLOCK {block}  {}", show::clean(&c.rule)));
    }
    Ok(Exit::Ok)
}

fn breaker_text(b: &answers::Breaker) -> String {
    if b.off {
        return "Flood breaker: off".to_owned();
    }
    let [tripped, trips, lowered] = [b.tripped, b.trips, b.lowered].map(show::count);
    let mut text = format!(
        "Flood breaker: {} matches in {} min and more than {} times what is usual; tripped now {tripped}, so far {trips}, verdicts lowered {lowered}",
        b.floor, b.window_minutes, b.factor
    );
    if b.uncounted > 0 {
        text.push_str(&format!("; {} matches were not counted, its table is full", show::count(b.uncounted)));
    }
    text
}

/// What the node has in force; if none runs, what it would begin with.
async fn current(at: &Invocation) -> Result<answers::Policy, Failure> {
    match at.node().await {
        Ok(node) => {
            let p = node.policy(local::GetPolicyRequest {}).await?;
            Ok(answers::Policy::from(p))
        }
        Err(failure) if failure.exit == Exit::Unreachable => {
            let config = at.config()?;
            let (file, text) = Source::of(&config).read()?;
            Ok(not_in_force(named(file.as_deref()), text, config.policy.shadow))
        }
        Err(failure) => Err(failure),
    }
}

fn not_in_force(file: String, text: String, shadow: bool) -> answers::Policy {
    let (refused, counts) = (String::new(), Vec::new());
    answers::Policy { in_force: false, file, since_ms: 0, shadow, refused, text, counts, breaker: None }
}

fn named(file: Option<&Path>) -> String {
    file.map(|path| path.display().to_string()).unwrap_or_default()
}

/// The file that is named, or else what the node reads.
fn text_of(file: Option<&Path>, at: &Invocation) -> Result<(String, String), Failure> {
    match file {
        Some(path) => Ok((named(Some(path)), read_file(path)?)),
        None => {
            let (file, text) = Source::of(&at.config()?).read()?;
            Ok((named(file.as_deref()), text))
        }
    }
}

async fn check(file: Option<&Path>, at: &Invocation) -> Outcome {
    let (file, text) = text_of(file, at)?;
    let taxonomy = Arc::new(taxonomy::of_this_place(at).await?);
    let (rules, errors, warnings) = match Policy::parse(&text, &taxonomy) {
        Ok(policy) => (policy.rules().len(), Vec::new(), policy.warnings().to_vec()),
        Err(errors) => (0, errors, Vec::new()),
    };
    let exit = if errors.is_empty() { Exit::Ok } else { Exit::BadInput };
    if at.terminal.json {
        let problems = |all: Vec<Problem>| {
            all.into_iter().map(|p| answers::PolicyProblem { line: p.line, message: p.message }).collect()
        };
        at.terminal.json(&answers::PolicyChecked {
            file,
            rules,
            errors: problems(errors),
            warnings: problems(warnings),
        })?;
        return Ok(exit);
    }
    let place = if file.is_empty() { "built in" } else { &file };
    for (kind, problem) in errors.iter().map(|p| ("error", p)).chain(warnings.iter().map(|p| ("warning", p))) {
        at.terminal.data(show::clean(&format!("{place}, line {}: {kind}: {}", problem.line, problem.message)))?;
    }
    match errors.len() {
        0 => at.terminal.talk(format!("{place}: {}, no mistake", show::counted(rules, "rule"))),
        mistakes => {
            at.terminal.talk(format!("{place}: {}; a node does not take it", show::counted(mistakes, "mistake")));
        }
    }
    Ok(exit)
}

async fn test(cases_file: &Path, file: Option<&Path>, at: &Invocation) -> Outcome {
    let (file, text) = text_of(file, at)?;
    let taxonomy = Arc::new(taxonomy::of_this_place(at).await?);
    let policy = Policy::parse(&text, &taxonomy).map_err(|problems| mistaken(&file, &problems))?;
    let cases = Cases::parse(&read_file(cases_file)?, &taxonomy);
    let cases = cases.map_err(|problems| mistaken(&named(Some(cases_file)), &problems))?;
    let tried = cases.cases.iter().map(|case| (case, cases.try_on(case, &policy)));
    let (held, failed): (Vec<_>, Vec<_>) = tried.partition(|(_, tried)| tried.holds);
    let exit = if failed.is_empty() { Exit::Ok } else { Exit::Failed };
    if at.terminal.json {
        let failed = failed.into_iter().map(|(case, tried)| as_json(case, tried)).collect();
        let cases = named(Some(cases_file));
        at.terminal.json(&answers::PolicyTested { policy: file, cases, held: held.len(), failed })?;
        return Ok(exit);
    }
    for (case, tried) in failed {
        at.terminal.data(difference(&as_json(case, tried)).trim_end())?;
    }
    at.terminal.talk(format!("{} of {} hold", held.len(), show::counted(cases.cases.len(), "case")));
    Ok(exit)
}

/// A file with mistakes, as a failure that names all of them.
fn mistaken(file: &str, problems: &[Problem]) -> Failure {
    let file = if file.is_empty() { "the built-in policy" } else { file };
    let failure = Failure::new(Exit::BadInput, format!("{file} has {}", show::counted(problems.len(), "mistake")));
    problems.iter().fold(failure, |failure, problem| failure.culprit(problem.to_string()))
}

fn as_json(case: &Case, tried: Tried) -> answers::PolicyCase {
    answers::PolicyCase {
        name: case.name.clone(),
        line: case.line,
        expected_verdict: case.verdict.name(),
        expected_rule: case.rule.clone().unwrap_or_default(),
        verdict: tried.decision.verdict.name(),
        rule: tried.rule,
        explained: tried.explained.into_iter().map(explained).collect(),
    }
}

fn explained(rule: Explained) -> answers::RuleExplained {
    let line = u32::try_from(rule.line).unwrap_or(u32::MAX);
    answers::RuleExplained { rule: rule.rule, verdict: rule.verdict.name(), line, decided: rule.fired, why: rule.why }
}

/// What was expected, what came, and how it came to that.
fn difference(case: &answers::PolicyCase) -> String {
    let expected_rule = if case.expected_rule.is_empty() { "(any rule)" } else { &case.expected_rule };
    let mut text = format!("FAILED  {} (line {})\n", show::clean(&case.name), case.line);
    text.push_str(&format!("  - {:<6}  {}\n", case.expected_verdict, show::clean(expected_rule)));
    text.push_str(&format!("  + {:<6}  {}\n", case.verdict, show::clean(&case.rule)));
    for rule in &case.explained {
        text.push_str(&format!("      {}\n", explained_text(rule)));
    }
    text
}
