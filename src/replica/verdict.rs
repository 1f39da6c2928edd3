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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::block::Header;
    use crate::replica::ids::{Class, TimeMs};
    use crate::replica::testing::{
        CERTIFIER, FULL, REFERRAL, SMALL, START, TestForum, allow, opinion, opinion_with, referral, subject,
    };
    use crate::replica::view::View;

    /// Members 1 to 3: FULL in FR, FR and DE, the first and the third of one owner; 4 FULL in DE; 5 SMALL in DE;
    /// 6 certifies; 7 refers; 8 FULL without a jurisdiction; 9 FULL in FR and DE.
    fn forum() -> TestForum {
        let roles = [FULL, FULL, FULL, FULL, SMALL, CERTIFIER, REFERRAL, FULL, FULL];
        let groups = ["a", "b", "a", "d", "e", "f", "g", "h", "i"];
        let members: Vec<_> = groups.into_iter().zip(roles).collect();
        TestForum::with(&members, |c| {
            let of = ["FR", "FR", "DE", "DE", "DE", "DE", "DE", "", "FR"];
            for (member, jurisdiction) in c.members.iter_mut().zip(of) {
                member.jurisdictions = Some(jurisdiction.to_owned()).filter(|j| !j.is_empty()).into_iter().collect();
            }
            c.members[8].jurisdictions.push("DE".into());
        })
    }

    type Said = Vec<(u8, bytes::Bytes)>;

    /// What is decided when these members said these things, each about a subject that one lookup matched.
    fn verdict(said: &[(u8, bytes::Bytes)]) -> Verdict {
        let forum = forum();
        let charter = forum.charter();
        let mut view = View::new(&charter, START);
        let mut ring = forum.keyring();
        for (n, (member, record)) in (0..).zip(said) {
            let block = forum.log(*member, n % 4, Class::Normal).block(&mut ring, std::slice::from_ref(record));
            let header = Header { time: START.plus(u64::from(n)), ..block.header().clone() };
            view.fold(&header, block.records());
        }
        let now = START.plus(1_000);
        let entries: Vec<_> =
            [1, 2].iter().filter_map(|n| view.entry(&subject(*n), now)).filter(|e| e.status.matches()).collect();
        let (verdict, rule) = decide(&charter, &entries.iter().collect::<Vec<_>>());
        assert!(!rule.is_empty());
        verdict
    }

    #[test]
    fn a_block_needs_two_companies_of_two_jurisdictions_and_no_dispute() {
        use Verdict::{Allow, Block, Review};
        let soon = START.plus(TimeMs::DAY_MS);
        let submit = |member: u8| (member, opinion(1, 1));
        let near = |member: u8| (member, opinion(2, 1));
        let dispute = |member: u8| (member, opinion(1, 3));
        let certify = |about: u8| (6, allow(about, true, soon));
        let expired = |member: u8| (member, opinion_with(1, 1, |o| o.expires_ms = START.0 + 500));
        let cases: Vec<(&str, Said, Verdict)> = vec![
            ("nothing", vec![], Allow),
            ("one company", vec![submit(1)], Review),
            ("two companies of one jurisdiction", vec![submit(1), submit(2)], Review),
            ("one owner in two jurisdictions", vec![submit(1), submit(3)], Review),
            ("two companies of two jurisdictions", vec![submit(1), submit(4)], Block),
            ("an endorsement is as good", vec![submit(1), (4, opinion(1, 2))], Block),
            ("near-duplicates corroborate each other", vec![submit(1), near(4)], Block),
            ("a small company is not enough", vec![submit(1), submit(5)], Review),
            ("a company without jurisdiction", vec![submit(1), submit(8)], Review),
            ("two companies in both", vec![submit(2), submit(9)], Block),
            ("one disputes", vec![submit(1), submit(4), dispute(2)], Review),
            ("one disputes the near-duplicate", vec![submit(1), submit(4), (2, opinion(2, 3)), near(8)], Review),
            ("one has expired", vec![submit(1), expired(4)], Review),
            ("one took it back", vec![submit(1), submit(4), (4, opinion(1, 4))], Review),
            ("a referral alone", vec![(7, referral(1, true))], Review),
            ("a referral is no support", vec![submit(1), (7, referral(1, true))], Review),
            ("certified", vec![certify(1)], Allow),
            ("certified and listed", vec![submit(1), submit(4), certify(1)], Review),
            ("certified, its near-duplicate listed", vec![near(1), near(4), certify(1)], Review),
            ("two certified", vec![certify(1), certify(2)], Allow),
        ];
        for (what, said, expected) in cases {
            assert_eq!(verdict(&said), expected, "{what}");
        }
    }

    #[test]
    fn verdicts_have_names() {
        assert_eq!([Verdict::Allow, Verdict::Review, Verdict::Block].map(Verdict::name), ["ALLOW", "REVIEW", "BLOCK"]);
    }
}
