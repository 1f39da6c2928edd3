//! What a person decides about an item of the queue, as the statement that is signed for it. The command line, the
//! HTTP API and the console say the same with the same words, because all of them ask here.

use thiserror::Error;

use crate::clock;
use crate::replica::ids::TimeMs;
use crate::replica::record::{self, ALLOW_DAYS_MAX};
use crate::wire::local as l;

/// The kind of an item about a signal that matches far more often here than it used to.
pub const FLOOD: &str = "flood";
/// The kinds of items, in the order in which people are shown them.
pub const KINDS: [&str; 7] = ["disputed-own", "disputed", "conflict", "referral", "expiring", "due", FLOOD];

/// What our company says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Stand behind it; what we said before stays, said anew.
    Endorse,
    /// Disagree with it.
    Dispute,
    /// Take back what we said.
    Withdraw,
    /// Vote to end it for everybody.
    Retract,
    /// Certify it.
    Allow,
    /// A referral: disagree with it. A conflict: take our certificate back.
    Reject,
    /// A flood: it is rightly listed, block it again. Local: nothing is signed.
    Keep,
}

impl Decision {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Self; 7] =
        [Self::Endorse, Self::Dispute, Self::Withdraw, Self::Retract, Self::Allow, Self::Reject, Self::Keep];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Endorse => "endorse",
            Self::Dispute => "dispute",
            Self::Withdraw => "withdraw",
            Self::Retract => "retract",
            Self::Allow => "allow",
            Self::Reject => "reject",
            Self::Keep => "keep",
        }
    }

    /// The decision of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|decision| decision.name() == name)
    }

    /// Others read why: these are not said without a reason.
    pub fn needs_reason(self) -> bool {
        matches!(self, Self::Dispute | Self::Withdraw | Self::Retract | Self::Reject)
    }

    /// Whether it answers an item of this kind.
    pub fn answers(self, kind: &str) -> bool {
        match self {
            Self::Reject => matches!(kind, "referral" | "conflict"),
            Self::Keep => kind == FLOOD,
            Self::Endorse | Self::Dispute | Self::Withdraw | Self::Retract | Self::Allow => KINDS.contains(&kind),
        }
    }
}

/// A decision with what belongs to it.
#[derive(Clone, Debug)]
pub struct Choice {
    /// What our company says.
    pub decision: Decision,
    /// Name of the reason; empty: none.
    pub reason: String,
    /// To endorse; none: those that are there.
    pub labels: Vec<String>,
    /// When our word ends; 0: never.
    pub expires: TimeMs,
    /// When we want to look at it again; 0: never.
    pub review: TimeMs,
}

/// Why a choice cannot be said.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Undecided {
    /// It would leave others without knowing why.
    #[error("the reason is missing: others read why")]
    ReasonMissing,
    /// It is none that the forum knows.
    #[error("got the reason {0:?}, expected one of the forum's: mistake, news-reporting, art-parody, ...")]
    Reason(String),
    /// It has none that our company can repeat.
    #[error("the label is missing: it has none that can be said")]
    LabelMissing,
    /// A certificate ends, so that a person looks again.
    #[error("the end is missing or too late: a certificate ends at most {ALLOW_DAYS_MAX} days from now")]
    End,
    /// The decision is none for items of this kind.
    #[error("{} does not answer an item of kind {kind:?}", decision.name())]
    Kind {
        /// What was decided.
        decision: Decision,
        /// What it was decided about.
        kind: String,
    },
}

impl Undecided {
    /// The field that is to blame.
    pub fn field(&self) -> &'static str {
        match self {
            Self::ReasonMissing | Self::Reason(_) => "reason",
            Self::LabelMissing => "labels",
            Self::End => "expires",
            Self::Kind { .. } => "decision",
        }
    }
}

/// What our company says of `entry`, but for the signal. To endorse, `entry` has the details of its words (`GetEntry`),
/// `me` is our company's id and `sayable` tells the labels that the forum's taxonomy lets us say: others stay their
/// author's.
///
/// # Errors
/// See [`Undecided`]. [`Decision::Keep`] is no statement, and is refused here.
pub fn statement(
    choice: &Choice,
    kind: &str,
    entry: &l::Entry,
    me: &[u8],
    sayable: impl Fn(&str) -> bool,
    now: TimeMs,
) -> Result<l::Statement, Undecided> {
    check(choice, kind)?;
    let reason = choice.reason.clone();
    let opinion = |stance: l::Stance| l::Statement {
        stance: stance as i32,
        reason: reason.clone(),
        client_key: clock::random::<16>().to_vec().into(),
        ..Default::default()
    };
    match (choice.decision, kind) {
        (Decision::Endorse, _) => endorsement(choice, entry, me, sayable),
        (Decision::Dispute, _) | (Decision::Reject, "referral") => Ok(opinion(l::Stance::Dispute)),
        (Decision::Withdraw, _) => Ok(opinion(l::Stance::Neutral)),
        (Decision::Retract, _) => {
            let vote = l::RetractVote { yes: true, reason };
            Ok(l::Statement { retract: Some(vote), ..Default::default() })
        }
        (Decision::Allow, _) => {
            let latest = now.plus(ALLOW_DAYS_MAX * TimeMs::DAY_MS);
            if choice.expires <= now || choice.expires > latest {
                return Err(Undecided::End);
            }
            let allow = l::Certification { yes: true, expires_ms: choice.expires.0, certificate: 0 };
            Ok(l::Statement { allow: Some(allow), ..Default::default() })
        }
        (Decision::Reject, "conflict") => {
            Ok(l::Statement { allow: Some(l::Certification::default()), ..Default::default() })
        }
        (decision @ (Decision::Reject | Decision::Keep), kind) => {
            Err(Undecided::Kind { decision, kind: kind.to_owned() })
        }
    }
}

fn check(choice: &Choice, kind: &str) -> Result<(), Undecided> {
    let Choice { decision, reason, .. } = choice;
    if !decision.answers(kind) {
        return Err(Undecided::Kind { decision: *decision, kind: kind.to_owned() });
    }
    if decision.needs_reason() && reason.is_empty() {
        return Err(Undecided::ReasonMissing);
    }
    if !reason.is_empty() && record::reason_number(reason).is_none() {
        return Err(Undecided::Reason(reason.clone()));
    }
    Ok(())
}

fn endorsement(
    choice: &Choice,
    entry: &l::Entry,
    me: &[u8],
    sayable: impl Fn(&str) -> bool,
) -> Result<l::Statement, Undecided> {
    let said = said_before(entry, me);
    let labels: Vec<_> = match choice.labels.as_slice() {
        [] => said.labels.iter().filter(|label| sayable(label)).cloned().collect(),
        given => given.to_vec(),
    };
    if labels.is_empty() {
        return Err(Undecided::LabelMissing);
    }
    Ok(l::Statement {
        labels,
        client_key: clock::random::<16>().to_vec().into(),
        expires_ms: choice.expires.0,
        review_ms: choice.review.0,
        ..said
    })
}

/// Our own opinion, to be said anew as it was; where we have none, an endorsement with the labels that are there.
fn said_before(entry: &l::Entry, me: &[u8]) -> l::Statement {
    let ours = entry
        .said
        .iter()
        .find(|said| said.member_id == me && said.counts && matches!(said.what.as_str(), "SUBMIT" | "ENDORSE"));
    let Some(said) = ours else {
        let (stance, labels) = (l::Stance::Endorse as i32, entry.labels.clone());
        return l::Statement { stance, labels, languages: entry.languages.clone(), ..Default::default() };
    };
    let details = said.details.clone().unwrap_or_default();
    let stance = if said.what == "SUBMIT" { l::Stance::Submit } else { l::Stance::Endorse };
    l::Statement {
        stance: stance as i32,
        labels: details.labels,
        languages: details.languages,
        severity: said.severity,
        confidence: details.confidence,
        incident_id: details.incident_id,
        item_id: details.item_id,
        quality: details.quality,
        basis: record::code(&record::BASES, &details.basis).unwrap_or(0),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TimeMs = TimeMs(1_795_000_000_000);

    fn choice(decision: Decision) -> Choice {
        let reason = if decision.needs_reason() { "mistake" } else { "" }.to_owned();
        let expires = if decision == Decision::Allow { NOW.plus(TimeMs::DAY_MS) } else { TimeMs(0) };
        Choice { decision, reason, labels: Vec::new(), expires, review: TimeMs(0) }
    }

    fn said(what: &str, labels: &[&str]) -> l::Said {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let details = l::Details { labels, basis: "human-review".into(), quality: 80, ..Default::default() };
        l::Said {
            member_id: vec![1; 16].into(),
            what: what.into(),
            counts: true,
            severity: 3,
            details: Some(details),
            ..Default::default()
        }
    }

    fn say(choice: &Choice, kind: &str, entry: &l::Entry) -> Result<l::Statement, Undecided> {
        statement(choice, kind, entry, &[1; 16], |label| label != "retired", NOW)
    }

    #[test]
    fn each_decision_is_one_statement_of_its_kind() {
        let entry = l::Entry { labels: vec!["glorification".into()], ..Default::default() };
        let of = |decision, kind| say(&choice(decision), kind, &entry).unwrap();
        let stance = |decision, kind| of(decision, kind).stance();
        assert_eq!(stance(Decision::Endorse, "due"), l::Stance::Endorse);
        assert_eq!(stance(Decision::Dispute, FLOOD), l::Stance::Dispute);
        assert_eq!(stance(Decision::Reject, "referral"), l::Stance::Dispute);
        assert_eq!(stance(Decision::Withdraw, "disputed-own"), l::Stance::Neutral);
        assert_eq!(of(Decision::Retract, "disputed").retract.unwrap().reason, "mistake");
        assert!(of(Decision::Allow, "conflict").allow.unwrap().yes);
        assert!(!of(Decision::Reject, "conflict").allow.unwrap().yes);
    }

    #[test]
    fn what_we_said_is_said_anew_as_it_was() {
        let entry = l::Entry { said: vec![said("SUBMIT", &["glorification", "retired"])], ..Default::default() };
        let again = say(&choice(Decision::Endorse), "due", &entry).unwrap();
        assert_eq!((again.stance(), again.severity, again.quality, again.basis), (l::Stance::Submit, 3, 80, 1));
        assert_eq!(again.labels, ["glorification"]);
        assert!(!again.client_key.is_empty());
    }

    #[test]
    fn a_decision_that_does_not_fit_is_refused_with_its_field() {
        let entry = l::Entry { labels: vec!["retired".into()], ..Default::default() };
        let without = |decision| Choice { reason: String::new(), expires: TimeMs(0), ..choice(decision) };
        for (choice, kind, field) in [
            (without(Decision::Dispute), "disputed", "reason"),
            (Choice { reason: "because".into(), ..choice(Decision::Dispute) }, "disputed", "reason"),
            (without(Decision::Endorse), "due", "labels"),
            (without(Decision::Allow), "conflict", "expires"),
            (Choice { expires: NOW.plus(500 * TimeMs::DAY_MS), ..choice(Decision::Allow) }, "conflict", "expires"),
            (choice(Decision::Reject), "due", "decision"),
            (choice(Decision::Keep), "due", "decision"),
            (choice(Decision::Keep), FLOOD, "decision"),
            (choice(Decision::Endorse), "unheard-of", "decision"),
        ] {
            assert_eq!(say(&choice, kind, &entry).unwrap_err().field(), field, "{choice:?} {kind}");
        }
    }

    #[test]
    fn names_come_back() {
        for decision in Decision::ALL {
            assert_eq!(Decision::from_name(decision.name()), Some(decision));
        }
        assert_eq!(Decision::from_name("block"), None);
    }
}
