//! This company's own policy on a match: rules from a file, first match wins. Never touches a replicated byte.
//!
//! A rule takes what speaks *against* an item only from the entries that it selects, and what speaks *for* it, a dispute
//! or a certificate, from whatever matches: near-duplicates protect each other. Evaluating is pure; reading files and
//! counting are in `in_force.rs`.

use std::fmt;
use std::sync::Arc;

pub mod breaker;
pub mod cases;
mod found;
pub mod harmless;
pub mod in_force;
mod read;
mod rule;

use self::found::Whole;
pub use self::found::{Found, Voice};
pub use self::read::{NAME_CHARS_MAX, RULES_MAX, VALUES_MAX};
pub use self::rule::Rule;
pub use crate::fields::Problem;
use crate::replica::signal::Alg;
use crate::replica::taxonomy::Taxonomy;
use crate::replica::verdict::Verdict;

/// The policy of a company that has written none.
pub const DEFAULT_TEXT: &str = include_str!("default.toml");
/// What decides when nothing is listed.
pub const NOTHING_MATCHES: &str = "nothing matches";
/// What decides when nothing is listed of what was looked at, and that was not all.
pub const UNFINISHED: &str = "nothing was found, but there may be more than could be looked at: people decide";
/// What decides when no rule of the file does.
pub const NO_RULE: &str = "no rule of the policy takes it up: people decide";

/// A company's rules.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    breaker: breaker::Limits,
    /// What is odd about them, and harmless.
    warnings: Vec<Problem>,
    /// By which its labels were understood.
    taxonomy: Arc<Taxonomy>,
}

/// Which rule decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decider {
    /// There was nothing to decide about.
    NothingMatches,
    /// Nothing was found, but the lookup could not be finished: what it did not get to may be listed.
    Unfinished,
    /// A rule of the file, by its place in it.
    Rule(usize),
    /// None of them.
    NoRule,
}

/// What the rules make of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is to be done.
    pub verdict: Verdict,
    /// By which rule.
    pub decider: Decider,
    /// Why the rule's BLOCK became REVIEW, if it did.
    pub lowered: Option<Floor>,
}

/// What no file can switch off: the promises of the forum to those who are not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    /// A certifier allows one of the entries.
    Certified,
    /// More matches than were looked at: what protects the item may be among the others.
    Truncated,
    /// No company stands behind what the rule looked at: at most an authority's request.
    ReferralAlone,
    /// Companies stand behind accounts only.
    AccountAlone,
    /// What was posted would be no block without who posted it.
    AccountDecides,
    /// Only a signal that matches far more often here than it used to would have it blocked (`breaker.rs`).
    Flooding,
    /// The rule excepts a label that the taxonomy does not have, or that is not known yet.
    ExceptionUnknown,
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certified => "what a certifier allows is never blocked automatically",
            Self::Truncated => "there are more matches than are looked at, and no block without all of them",
            Self::ReferralAlone => "no company stands behind it: a referral alone never blocks",
            Self::AccountAlone => "only an account is listed, and an account alone is never enough for a block",
            Self::AccountDecides => {
                "what is posted would be no block without the account, and an account is never enough"
            }
            Self::Flooding => {
                "it matches far more often here than it used to: people look first (staydown review list --kind flood)"
            }
            Self::ExceptionUnknown => {
                "no taxonomy here has a label of its labels_none, so that nobody can tell what it excepts"
            }
        })
    }
}

/// A rule, and why it fired or did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The rule's name.
    pub rule: String,
    /// What it says.
    pub verdict: Verdict,
    /// Where it begins in its file, from 1; 0: it is in no file.
    pub line: usize,
    /// Whether it decided.
    pub fired: bool,
    /// Why.
    pub why: String,
}

impl Policy {
    /// Reads a policy file; names of labels are those of `taxonomy`.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of its lines. A label that the taxonomy does not have is no mistake.
    pub fn parse(text: &str, taxonomy: &Arc<Taxonomy>) -> Result<Self, Vec<Problem>> {
        read::policy(text, taxonomy)
    }

    /// The policy of a company that has written none.
    pub fn built_in() -> Self {
        // A test reads the text; were it broken all the same, no rule means REVIEW for whatever matches.
        let taxonomy = Arc::new(Taxonomy::built_in());
        Self::parse(DEFAULT_TEXT, &taxonomy).unwrap_or(Self {
            rules: Vec::new(),
            breaker: breaker::Limits::default(),
            warnings: Vec::new(),
            taxonomy,
        })
    }

    /// The rules, in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What is a flood.
    pub fn breaker(&self) -> &breaker::Limits {
        &self.breaker
    }

    /// What is odd about the rules, and harmless.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// The name of what decided.
    pub fn name(&self, decider: Decider) -> &str {
        match decider {
            Decider::NothingMatches => NOTHING_MATCHES,
            Decider::Unfinished => UNFINISHED,
            Decider::Rule(place) => self.rules.get(place).map_or(NO_RULE, |rule| &rule.name),
            Decider::NoRule => NO_RULE,
        }
    }

    /// What the rules make of all entries of one lookup. `truncated`: there are more than these, or there may be. Where
    /// nothing was found that is for people, too: a list made to be slow to look through must not hide what is on it.
    ///
    /// What is flooding alone never has anything blocked: a BLOCK stands if it would be one without such entries, too.
    /// What speaks for the item in them counts all the same.
    pub fn decide(&self, found: &[Found<'_>], truncated: bool) -> Decision {
        let decision = self.judge(found, found, truncated);
        if decision.verdict != Verdict::Block || found.iter().all(|entry| !entry.flooding) {
            return decision;
        }
        let others: Vec<_> = found.iter().filter(|entry| !entry.flooding).cloned().collect();
        match self.judge(&others, found, truncated).verdict {
            Verdict::Block => decision,
            _ => Decision { verdict: Verdict::Review, lowered: Some(Floor::Flooding), ..decision },
        }
    }

    /// What the rules make of `found`. What protects the item counts in `all` that matches.
    fn judge(&self, found: &[Found<'_>], all: &[Found<'_>], truncated: bool) -> Decision {
        let decided = |verdict, decider| Decision { verdict, decider, lowered: None };
        if found.is_empty() && truncated {
            return decided(Verdict::Review, Decider::Unfinished);
        }
        if found.is_empty() {
            return decided(Verdict::Allow, Decider::NothingMatches);
        }
        let whole = &Whole::of(all);
        for (place, rule) in self.rules.iter().enumerate() {
            let Ok(selected) = rule.holds(found, whole) else { continue };
            let mut lowered = floor(rule, &selected, whole, truncated);
            if rule.verdict == Verdict::Block && matches!(lowered, None | Some(Floor::AccountAlone)) {
                match self.without_accounts(found, all, truncated) {
                    Some(posted) if posted.verdict != Verdict::Block => {
                        lowered = lowered.or(Some(Floor::AccountDecides));
                    }
                    // An account takes nothing away from what the rest earns by itself.
                    Some(posted) if lowered.is_some() => return posted,
                    _ => {}
                }
            }
            let verdict = if lowered.is_some() { Verdict::Review } else { rule.verdict };
            return Decision { verdict, decider: Decider::Rule(place), lowered };
        }
        decided(Verdict::Review, Decider::NoRule)
    }

    /// What the rules make of what was posted, without who posted it: it has to earn a BLOCK by itself (M6). `None`: there
    /// are no accounts among the entries.
    fn without_accounts(&self, found: &[Found<'_>], all: &[Found<'_>], truncated: bool) -> Option<Decision> {
        let posted = posted(found);
        (posted.len() < found.len()).then(|| self.judge(&posted, &self::posted(all), truncated))
    }

    /// Each rule in order, up to the one that decides, and why it did or did not.
    pub fn explain(&self, found: &[Found<'_>], truncated: bool) -> Vec<Explained> {
        let decision = self.decide(found, truncated);
        let alone = |rule: &str, verdict, why: &str| Explained {
            rule: rule.to_owned(),
            verdict,
            line: 0,
            fired: true,
            why: why.to_owned(),
        };
        if decision.decider == Decider::NothingMatches {
            return vec![alone(NOTHING_MATCHES, Verdict::Allow, "no hash of it is on the list")];
        }
        if decision.decider == Decider::Unfinished {
            return vec![alone(
                UNFINISHED,
                Verdict::Review,
                "there may be more than could be looked at, and nothing passes unseen",
            )];
        }
        let whole = Whole::of(found);
        let mut lines = Vec::new();
        for (place, rule) in self.rules.iter().enumerate() {
            let fired = decision.decider == Decider::Rule(place);
            let why = match rule.holds(found, &whole) {
                Ok(selected) if fired => rule.says_why(&selected),
                Ok(_) => "only an account meets it, and what was posted is blocked by itself".to_owned(),
                Err(_) if fired => "what was posted meets it, whoever posted it".to_owned(),
                Err(unmet) => rule.says_why_not(unmet, &self.taxonomy),
            };
            let lowered = decision.lowered.filter(|_| fired);
            let why = lowered.map_or_else(|| why.clone(), |floor| format!("{why}; lowered to REVIEW: {floor}"));
            lines.push(Explained { rule: rule.name.clone(), verdict: rule.verdict, line: rule.line, fired, why });
            if fired {
                return lines;
            }
        }
        lines.push(alone(NO_RULE, Verdict::Review, "none of the rules above fired"));
        lines
    }
}

/// What is no account.
fn posted<'a>(found: &[Found<'a>]) -> Vec<Found<'a>> {
    found.iter().filter(|entry| entry.alg != Some(Alg::Account)).cloned().collect()
}

/// What keeps a rule's BLOCK from being one.
fn floor(rule: &Rule, selected: &[&Found<'_>], whole: &Whole, truncated: bool) -> Option<Floor> {
    if rule.verdict != Verdict::Block {
        return None;
    }
    if whole.certified {
        return Some(Floor::Certified);
    }
    if truncated {
        return Some(Floor::Truncated);
    }
    if rule.conditions.excepts_unknown {
        return Some(Floor::ExceptionUnknown);
    }
    match rule::stood_behind(selected) {
        (false, _) => Some(Floor::ReferralAlone),
        (true, false) => Some(Floor::AccountAlone),
        (true, true) => None,
    }
}

#[cfg(test)]
mod tests;
