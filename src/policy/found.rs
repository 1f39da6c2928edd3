//! What a policy looks at: the entries of one lookup, with the words that weigh.

use std::collections::BTreeSet;

use crate::replica::charter::{Charter, Roles};
use crate::replica::record::Stance;
use crate::replica::signal::Alg;
use crate::replica::view::{Entry, Status, Word};

/// One entry that a lookup matched.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// Kind of its signal; none for one that this release does not know.
    pub alg: Option<Alg>,
    /// What the forum makes of it.
    pub status: Status,
    /// Numbers of its labels, those of open incidents among them.
    pub labels: &'a [u32],
    /// BCP 47 tags.
    pub languages: &'a [String],
    /// Bits between it and what was looked up; 0 for equal ones.
    pub distance: u32,
    /// Whether an incident that it belongs to is open.
    pub incident: bool,
    /// Certified and supported at once.
    pub allow_conflict: bool,
    /// It matches far more often here than it used to, and nobody has looked at that yet.
    pub flooding: bool,
    /// What members say of it, as far as it weighs.
    pub voices: Vec<Voice<'a>>,
}

/// One member's word that weighs.
#[derive(Clone, Copy, Debug)]
pub struct Voice<'a> {
    /// The owner of the company that says it.
    pub group: &'a str,
    /// Where the company is at home.
    pub jurisdictions: &'a [String],
    /// What the company is in the forum.
    pub roles: Roles,
    /// What it says.
    pub word: Word,
}

impl<'a> Found<'a> {
    /// The entry as `charter` weighs it. Words of whom the charter does not know are nobody's.
    pub fn of(entry: &'a Entry, distance: u32, incident: bool, charter: &'a Charter) -> Self {
        let voices = entry.said.iter().filter(|said| said.counts).filter_map(|said| {
            let member = charter.member(said.member)?;
            let (group, jurisdictions, roles) = (member.group.as_str(), &member.jurisdictions, member.roles);
            Some(Voice { group, jurisdictions, roles, word: said.word })
        });
        Self {
            alg: entry.subject.known_alg(),
            status: entry.status,
            labels: &entry.labels,
            languages: &entry.languages,
            distance,
            incident,
            allow_conflict: entry.allow_conflict,
            flooding: false,
            voices: voices.collect(),
        }
    }

    /// Words of companies with one of `roles` that stand behind it.
    pub(super) fn supporters(&self, roles: Roles) -> impl Iterator<Item = &Voice<'a>> {
        self.voices.iter().filter(move |voice| voice.supports() && voice.roles.has_any(roles))
    }
}

impl Voice<'_> {
    pub(super) fn supports(&self) -> bool {
        self.word.supports()
    }
}

/// What all entries of one lookup say together: near-duplicates protect each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    /// A certifier allows one of them.
    pub(super) certified: bool,
    /// One of them is more than certified.
    pub(super) listed: bool,
    /// Owners of companies that dispute.
    pub(super) disputes: u32,
    /// A company stands behind one of them.
    pub(super) supported: bool,
    /// An authority refers one of them.
    pub(super) referred: bool,
}

impl Whole {
    pub(super) fn of(found: &[Found<'_>]) -> Self {
        let voices = || found.iter().flat_map(|entry| &entry.voices);
        let disputing = voices().filter(|voice| voice.word == Word::Stance(Stance::Dispute));
        let disputing: BTreeSet<_> = disputing.map(|voice| voice.group).collect();
        Self {
            certified: found.iter().any(|entry| entry.status == Status::Allowed),
            listed: found.iter().any(|entry| entry.status != Status::Allowed || entry.allow_conflict),
            disputes: u32::try_from(disputing.len()).unwrap_or(u32::MAX),
            supported: found.iter().any(|entry| entry.supporters(companies()).next().is_some()),
            referred: voices().any(|voice| voice.word == Word::Referral(true)),
        }
    }

    pub(super) fn referral_only(self) -> bool {
        self.referred && !self.supported
    }
}

/// Roles whose support is a company's: a referral unit's or a certifier's word is none.
pub(super) fn companies() -> Roles {
    Roles::FULL.and(Roles::SMALL)
}
