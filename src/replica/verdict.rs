//! This company's own policy applied to a match: ALLOW, REVIEW, BLOCK, and why. Never touches a replicated byte.

use super::charter::{Charter, Member, Roles};
use super::record::Stance;
use super::view::{Entry, Status, Word};

/// What our rules make of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is known against it.
    Allow,
    /// A person should look.
    Review,
    /// Our rules say no.
    Block,
}

impl Verdict {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Review => "REVIEW",
            Self::Block => "BLOCK",
        }
    }
}

/// The built-in policy over all subjects that one lookup matched: near-duplicates corroborate each other. Returns the
/// verdict and the rule that decided.
pub fn decide(charter: &Charter, entries: &[&Entry]) -> (Verdict, &'static str) {
    let certified = entries.iter().any(|e| e.status == Status::Allowed);
    let listed = entries.iter().any(|e| e.status != Status::Allowed || e.allow_conflict);
    if entries.is_empty() {
        return (Verdict::Allow, "nothing matches");
    }
    if !listed {
        return (Verdict::Allow, "certified, and nobody lists it");
    }
    if certified {
        return (Verdict::Review, "certified and listed at once: people decide");
    }
    let words = |wanted: fn(Stance) -> bool| {
        let said = entries.iter().flat_map(|e| &e.said).filter(|s| s.counts);
        said.filter(move |s| matches!(s.word, Word::Stance(stance) if wanted(stance)))
            .filter_map(|s| charter.member(s.member))
    };
    if words(|s| s == Stance::Dispute).next().is_some() {
        return (Verdict::Review, "somebody disputes it: review, do not act automatically");
    }
    let supporters: Vec<_> =
        words(|s| matches!(s, Stance::Submit | Stance::Endorse)).filter(|m| m.roles.has(Roles::FULL)).collect();
    let corroborated = supporters.iter().any(|a| supporters.iter().any(|b| independent(a, b)));
    if corroborated {
        (Verdict::Block, "two companies of two jurisdictions stand behind it and nobody disputes it")
    } else {
        (Verdict::Review, "it matches, but not two companies of two jurisdictions stand behind it")
    }
}

/// Two groups, and a jurisdiction each that differ.
fn independent(a: &Member, b: &Member) -> bool {
    a.group != b.group && a.jurisdictions.iter().any(|x| b.jurisdictions.iter().any(|y| x != y))
}
