//! One rule: which entries it looks at, what has to hold, and in words why it does or does not.

use std::collections::{BTreeMap, BTreeSet};

use super::found::{Found, Whole, companies};
use crate::replica::charter::Roles;
use crate::replica::signal::Alg;
use crate::replica::taxonomy::Taxonomy;
use crate::replica::verdict::Verdict;
use crate::replica::view::Status;

/// Companies that an explanation names before it says "and more".
const NAMED_MAX: usize = 5;

/// A rule of a policy.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Given in every answer that it decides.
    pub name: String,
    /// What it says.
    pub verdict: Verdict,
    /// Where it begins in its file, from 1.
    pub line: usize,
    pub(super) conditions: Conditions,
}

/// What has to hold; `None` asks for nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    // Of each entry: what speaks against the item is taken only from the entries that fit.
    pub(super) status: Option<Vec<Status>>,
    pub(super) types: Option<Vec<Alg>>,
    pub(super) labels_any: Option<Vec<u32>>,
    pub(super) labels_none: Option<Vec<u32>>,
    /// The taxonomy does not have a label of `labels_none`: nobody can tell what the rule excepts.
    pub(super) excepts_unknown: bool,
    pub(super) languages: Option<Vec<String>>,
    pub(super) distance_max: Option<u32>,
    pub(super) incident: Option<bool>,
    // Of those that stand behind these entries.
    pub(super) supporters: Option<Roles>,
    pub(super) groups_min: Option<u32>,
    pub(super) jurisdictions_min: Option<u32>,
    // Of all that matches: what speaks for the item counts wherever it was said.
    pub(super) disputes: Option<Disputes>,
    pub(super) certified: Option<bool>,
    pub(super) listed: Option<bool>,
    pub(super) referral_only: Option<bool>,
}

/// How many companies dispute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disputes {
    None,
    Min(u32),
}

/// The first condition that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unmet {
    Status,
    Type,
    LabelsAny,
    LabelsNone,
    Languages,
    /// The nearest is so far away.
    Distance(u32),
    Incident,
    /// So many stand behind it.
    Groups(u32),
    /// So many of a jurisdiction each do.
    Jurisdictions(u32),
    /// So many dispute.
    Disputes(u32),
    Certified,
    Listed,
    ReferralOnly,
}

impl Rule {
    /// The entries that the rule looks at, if all of its conditions hold.
    pub(super) fn holds<'f, 'a>(&self, found: &'f [Found<'a>], whole: &Whole) -> Result<Vec<&'f Found<'a>>, Unmet> {
        self.conditions.of_the_whole(whole)?;
        let selected = self.conditions.select(found)?;
        self.conditions.behind(&selected)?;
        Ok(selected)
    }

    /// Why the rule fired.
    pub(super) fn says_why(&self, selected: &[&Found<'_>]) -> String {
        let c = &self.conditions;
        if c.is_empty() {
            return "it asks for nothing".to_owned();
        }
        if c.groups_min.is_none() && c.jurisdictions_min.is_none() {
            return "all that it asks for holds".to_owned();
        }
        let groups = c.groups(selected);
        let mut names: Vec<_> = groups.keys().copied().take(NAMED_MAX).collect();
        if groups.len() > NAMED_MAX {
            names.push("and more");
        }
        format!("all that it asks for holds; behind it stand {}", names.join(", "))
    }

    /// Why the rule did not fire.
    pub(super) fn says_why_not(&self, unmet: Unmet, taxonomy: &Taxonomy) -> String {
        let c = &self.conditions;
        let is = |asked: Option<bool>, yes: &str, no: &str| if asked == Some(true) { no } else { yes }.to_owned();
        match unmet {
            Unmet::Status => format!("no entry is {}", one_of(&c.status, |s| s.name().to_owned())),
            Unmet::Type => format!("no entry is of type {}", one_of(&c.types, |t| t.name().to_owned())),
            Unmet::LabelsAny => format!("no entry has the label {}", one_of(&c.labels_any, |l| taxonomy.name(*l))),
            Unmet::LabelsNone => {
                format!("every entry has the label {}", one_of(&c.labels_none, |l| taxonomy.name(*l)))
            }
            Unmet::Languages => format!("no entry is in {}", one_of(&c.languages, Clone::clone)),
            Unmet::Distance(nearest) => {
                let most = c.distance_max.unwrap_or_default();
                format!("the nearest entry is {nearest} bits away, at most {most} are asked for")
            }
            Unmet::Incident => is(c.incident, "every entry is of an open incident", "no entry is of an open incident"),
            Unmet::Groups(have) => {
                let asked = c.groups_min.unwrap_or_default();
                format!("{} behind it, {asked} asked for", companies_stand(have))
            }
            Unmet::Jurisdictions(have) => {
                let asked = c.jurisdictions_min.unwrap_or_default();
                format!("{} behind it with a jurisdiction of its own, {asked} asked for", companies_stand(have))
            }
            Unmet::Disputes(have) => match c.disputes {
                Some(Disputes::Min(asked)) => format!("{have} dispute it, at least {asked} asked for"),
                _ => format!("{have} dispute it, none is asked for"),
            },
            Unmet::Certified => is(c.certified, "it is certified", "nothing of it is certified"),
            Unmet::Listed => is(c.listed, "somebody lists it", "nobody lists it"),
            Unmet::ReferralOnly => {
                is(c.referral_only, "only a referral speaks for it", "it is more than a referral, or none")
            }
        }
    }

    /// Whether this rule fires wherever `later` would, so that `later` is never reached.
    pub(super) fn covers(&self, later: &Self) -> bool {
        let (a, b) = (&self.conditions, &later.conditions);
        a.selects_all_of(b) && a.asks_no_more_support_than(b) && a.asks_no_more_of_the_whole_than(b)
    }

    /// Why the rule can never fire, whatever is looked up.
    pub(super) fn is_impossible(&self) -> Option<&'static str> {
        let c = &self.conditions;
        let supported = c.groups_least() > 0;
        let only = |status: &[Status]| c.status.as_ref().is_some_and(|s| s.iter().all(|s| status.contains(s)));
        if c.referral_only == Some(true) && supported {
            Some("it asks that only a referral speaks for it, and for companies that stand behind it")
        } else if only(&[Status::Referred]) && supported {
            Some("it asks for REFERRED, which is what no company stands behind, and for companies that do")
        } else if c.listed == Some(false) && c.certified == Some(false) {
            Some("what matches is listed, or certified, or both")
        } else if c
            .labels_any
            .as_ref()
            .is_some_and(|any| any.iter().all(|l| c.labels_none.iter().flatten().any(|n| n == l)))
        {
            Some("all labels of labels_any are unknown, or stand in labels_none too")
        } else {
            None
        }
    }

    /// Why a BLOCK of this rule could only be lowered to REVIEW.
    pub(super) fn could_never_block(&self) -> Option<&'static str> {
        let c = &self.conditions;
        let only = |status: &[Status]| c.status.as_ref().is_some_and(|s| s.iter().all(|s| status.contains(s)));
        if c.certified == Some(true) || c.listed == Some(false) || only(&[Status::Allowed]) {
            Some("what a certifier allows is never blocked automatically")
        } else if c.referral_only == Some(true) || only(&[Status::Referred]) {
            Some("a referral alone never blocks: it is a request, not an order")
        } else if c.types.as_ref().is_some_and(|types| types.iter().all(|alg| *alg == Alg::Account)) {
            Some("an account alone is never enough for a block")
        } else {
            only(&[Status::Allowed, Status::Referred]).then_some("neither certified nor referred things are blocked")
        }
    }
}

impl Conditions {
    fn is_empty(&self) -> bool {
        let Self { status, types, labels_any, labels_none, languages, distance_max, incident, .. } = self;
        let Self { supporters, groups_min, jurisdictions_min, disputes, certified, listed, referral_only, .. } = self;
        status.is_none()
            && types.is_none()
            && labels_any.is_none()
            && labels_none.is_none()
            && languages.is_none()
            && distance_max.is_none()
            && incident.is_none()
            && supporters.is_none()
            && groups_min.is_none()
            && jurisdictions_min.is_none()
            && disputes.is_none()
            && certified.is_none()
            && listed.is_none()
            && referral_only.is_none()
    }

    fn of_the_whole(&self, whole: &Whole) -> Result<(), Unmet> {
        let differs = |asked: Option<bool>, is: bool| asked.is_some_and(|asked| asked != is);
        let disputed = match self.disputes {
            None => true,
            Some(Disputes::None) => whole.disputes == 0,
            Some(Disputes::Min(least)) => whole.disputes >= least,
        };
        if differs(self.certified, whole.certified) {
            Err(Unmet::Certified)
        } else if differs(self.listed, whole.listed) {
            Err(Unmet::Listed)
        } else if differs(self.referral_only, whole.referral_only()) {
            Err(Unmet::ReferralOnly)
        } else if !disputed {
            Err(Unmet::Disputes(whole.disputes))
        } else {
            Ok(())
        }
    }

    /// The entries that fit; the condition that leaves none is named.
    fn select<'f, 'a>(&self, found: &'f [Found<'a>]) -> Result<Vec<&'f Found<'a>>, Unmet> {
        let mut left: Vec<_> = found.iter().collect();
        keep(&mut left, Unmet::Status, &self.status, |asked, e| asked.contains(&e.status))?;
        keep(&mut left, Unmet::Type, &self.types, |asked, e| e.alg.is_some_and(|alg| asked.contains(&alg)))?;
        keep(&mut left, Unmet::LabelsAny, &self.labels_any, |asked, e| e.labels.iter().any(|l| asked.contains(l)))?;
        keep(&mut left, Unmet::LabelsNone, &self.labels_none, |asked, e| !e.labels.iter().any(|l| asked.contains(l)))?;
        keep(&mut left, Unmet::Languages, &self.languages, |asked, e| {
            asked.iter().any(|range| e.languages.iter().any(|tag| speaks(range, tag)))
        })?;
        let nearest = left.iter().map(|e| e.distance).min().unwrap_or(u32::MAX);
        keep(&mut left, Unmet::Distance(nearest), &self.distance_max, |most, e| e.distance <= *most)?;
        keep(&mut left, Unmet::Incident, &self.incident, |asked, e| e.incident == *asked)?;
        Ok(left)
    }

    fn behind(&self, selected: &[&Found<'_>]) -> Result<(), Unmet> {
        if self.groups_least() == 0 {
            return Ok(());
        }
        let groups = self.groups(selected);
        let have = u32::try_from(groups.len()).unwrap_or(u32::MAX);
        if self.groups_min.is_some_and(|least| have < least) {
            return Err(Unmet::Groups(have));
        }
        let Some(least) = self.jurisdictions_min else { return Ok(()) };
        let have = independent(&groups);
        if have < least { Err(Unmet::Jurisdictions(have)) } else { Ok(()) }
    }

    /// Owners of companies that stand behind the entries, each with the jurisdictions of those companies.
    fn groups<'a>(&self, selected: &[&Found<'a>]) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
        let roles = self.supporters.unwrap_or(Roles::FULL);
        let mut groups: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for voice in selected.iter().flat_map(|entry| entry.supporters(roles)) {
            let places = groups.entry(voice.group).or_default();
            places.extend(voice.jurisdictions.iter().map(String::as_str));
        }
        groups
    }

    /// The fewest companies that must stand behind it.
    fn groups_least(&self) -> u32 {
        self.groups_min.unwrap_or(0).max(self.jurisdictions_min.unwrap_or(0))
    }

    fn selects_all_of(&self, other: &Self) -> bool {
        within(&other.status, &self.status)
            && within(&other.types, &self.types)
            && within(&other.labels_any, &self.labels_any)
            && within(&other.languages, &self.languages)
            && self.labels_none.iter().flatten().all(|l| other.labels_none.iter().flatten().any(|o| o == l))
            && self.distance_max.is_none_or(|most| other.distance_max.is_some_and(|o| o <= most))
            && self.incident.is_none_or(|asked| other.incident == Some(asked))
    }

    fn asks_no_more_support_than(&self, other: &Self) -> bool {
        let roles = |c: &Self| c.supporters.unwrap_or(Roles::FULL);
        self.groups_least() == 0
            || roles(self).has(roles(other))
                && self.groups_min.unwrap_or(0) <= other.groups_least()
                && self.jurisdictions_min.unwrap_or(0) <= other.jurisdictions_min.unwrap_or(0)
    }

    fn asks_no_more_of_the_whole_than(&self, other: &Self) -> bool {
        let same = |a: Option<bool>, b: Option<bool>| a.is_none() || a == b;
        let disputes = match (self.disputes, other.disputes) {
            (None, _) => true,
            (Some(Disputes::Min(a)), Some(Disputes::Min(b))) => a <= b,
            (a, b) => a == b,
        };
        disputes
            && same(self.certified, other.certified)
            && same(self.listed, other.listed)
            && same(self.referral_only, other.referral_only)
    }
}

/// Keeps the entries that fit what is asked; if none is left, that is what does not hold.
fn keep<'f, 'a, T>(
    left: &mut Vec<&'f Found<'a>>,
    unmet: Unmet,
    asked: &Option<T>,
    fits: impl Fn(&T, &Found<'a>) -> bool,
) -> Result<(), Unmet> {
    let Some(asked) = asked else { return Ok(()) };
    left.retain(|entry| fits(asked, entry));
    if left.is_empty() { Err(unmet) } else { Ok(()) }
}

/// Whether `tag` is of the language range: `fr` takes `fr` and `fr-CA` (RFC 4647, basic filtering).
fn speaks(range: &str, tag: &str) -> bool {
    let (range, tag) = (range.as_bytes(), tag.as_bytes());
    let begins = tag.get(..range.len()).is_some_and(|head| head.eq_ignore_ascii_case(range));
    begins && tag.get(range.len()).is_none_or(|next| *next == b'-')
}

/// The greatest number of groups that can be given a jurisdiction of their own each: two companies that are both in FR
/// and in nothing else are one voice of one jurisdiction.
fn independent(groups: &BTreeMap<&str, BTreeSet<&str>>) -> u32 {
    fn place<'a>(
        group: &'a str,
        groups: &BTreeMap<&'a str, BTreeSet<&'a str>>,
        holders: &mut BTreeMap<&'a str, &'a str>,
        tried: &mut BTreeSet<&'a str>,
    ) -> bool {
        for jurisdiction in groups.get(group).into_iter().flatten() {
            if !tried.insert(jurisdiction) {
                continue;
            }
            let holder = holders.get(jurisdiction).copied();
            if holder.is_none_or(|holder| place(holder, groups, holders, tried)) {
                holders.insert(jurisdiction, group);
                return true;
            }
        }
        false
    }
    let mut holders = BTreeMap::new();
    let placed = groups.keys().filter(|group| place(group, groups, &mut holders, &mut BTreeSet::new()));
    u32::try_from(placed.count()).unwrap_or(u32::MAX)
}

/// Whether whatever `narrow` takes `wide` takes too.
fn within<T: PartialEq>(narrow: &Option<Vec<T>>, wide: &Option<Vec<T>>) -> bool {
    let Some(wide) = wide else { return true };
    narrow.as_ref().is_some_and(|narrow| narrow.iter().all(|value| wide.contains(value)))
}

fn one_of<T>(values: &Option<Vec<T>>, name: impl Fn(&T) -> String) -> String {
    values.iter().flatten().map(name).collect::<Vec<_>>().join(" or ")
}

fn companies_stand(count: u32) -> String {
    match count {
        0 => "no company stands".to_owned(),
        1 => "1 company stands".to_owned(),
        many => format!("{many} companies stand"),
    }
}

/// Whether a company, rather than an authority or nobody, stands behind one of the entries; and whether by more than an
/// account.
pub(super) fn stood_behind(selected: &[&Found<'_>]) -> (bool, bool) {
    let supported = selected.iter().filter(|entry| entry.supporters(companies()).next().is_some());
    let mut any = false;
    for entry in supported {
        any = true;
        if entry.alg != Some(Alg::Account) {
            return (true, true);
        }
    }
    (any, false)
}
