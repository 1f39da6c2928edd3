//! `/policy`: what our company makes of matches: the text in force, how often each rule has decided, what is odd in
//! it, and the flood breaker. It is changed in its file, which the node reads again on SIGHUP.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;

use super::page::{Nav, Page, Said, Tone, Visitor, html};
use super::svg::{Chart, Drawn};
use crate::web::{Problem, Web};
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// A line of the policy.
struct Line {
    number: usize,
    text: String,
    warnings: Vec<String>,
}

#[derive(Template)]
#[template(path = "policy.html")]
struct PolicyPage {
    page: Page,
    file: String,
    since_ms: u64,
    shadow: bool,
    refused: String,
    lines: Vec<Line>,
    warnings: Vec<l::PolicyWarning>,
    chart: Drawn,
    breaker: l::Breaker,
}

/// The policy in force.
pub(super) async fn show(
    State(web): State<Web>,
    visitor: Visitor,
    Query(said): Query<Said>,
) -> Result<Response, Problem> {
    let page = Page::new(&web, &visitor, "Policy", Nav::Policy, &said).await?;
    let policy = web.service.get_policy(web.ask(visitor.caller(), l::GetPolicyRequest {})).await?.into_inner();
    html(&PolicyPage {
        chart: chart(&policy.counts),
        lines: lines(&policy.text, &policy.warnings),
        file: policy.file,
        since_ms: policy.since_ms,
        shadow: policy.shadow,
        refused: policy.refused,
        warnings: policy.warnings,
        breaker: policy.breaker.unwrap_or_default(),
        page,
    })
}

fn lines(text: &str, warnings: &[l::PolicyWarning]) -> Vec<Line> {
    let of = |number: usize| warnings.iter().filter(move |w| w.line as usize == number).map(|w| w.message.clone());
    let line =
        |(at, text): (usize, &str)| Line { number: at + 1, text: text.to_owned(), warnings: of(at + 1).collect() };
    text.lines().enumerate().map(line).collect()
}

fn chart(counts: &[l::RuleCount]) -> Drawn {
    let of = |verdict: fn(&l::RuleCount) -> u64| counts.iter().map(verdict).collect();
    Chart::new("rules", "Lookups that matched, by the rule that decided", "Since this policy came into force.")
        .over("rule", counts.iter().map(|count| count.rule.clone()).collect())
        .with("BLOCK", of(|count| count.block))
        .with("REVIEW", of(|count| count.review))
        .with("ALLOW", of(|count| count.allow))
        .bars()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;
    use crate::web::console::saying::testing::{HOSTILE, page, posts, rendered};

    #[test]
    fn a_warning_stands_at_its_line() {
        let warnings = [l::PolicyWarning { line: 2, message: "odd".into() }];
        let lines = lines("a\nb\nc", &warnings);
        let told: Vec<_> = lines.iter().map(|l| (l.number, l.text.as_str(), l.warnings.len())).collect();
        assert_eq!(told, [(1, "a", 0), (2, "b", 1), (3, "c", 0)]);
    }

    #[test]
    fn the_policy_is_shown_as_text_and_changed_nowhere_here() {
        let text = rendered(&PolicyPage {
            page: page(Role::Admin, Nav::Policy),
            file: HOSTILE.into(),
            since_ms: 1,
            shadow: true,
            refused: HOSTILE.into(),
            lines: lines(HOSTILE, &[l::PolicyWarning { line: 1, message: HOSTILE.into() }]),
            warnings: vec![l::PolicyWarning { line: 1, message: HOSTILE.into() }],
            chart: chart(&[l::RuleCount { rule: HOSTILE.into(), block: 3, ..Default::default() }]),
            breaker: l::Breaker::default(),
        });
        assert_eq!(posts(&text), 1);
        assert!(text.contains("id=\"line-1\"") && text.contains("href=\"#line-1\""));
    }
}
