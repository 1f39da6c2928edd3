//! What a company expects of its policy, as a file of cases: `policy test`.
//!
//! A case describes what the forum says of an item, not hashes: the companies of the file are invented.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::{DeTable, DeValue};

use super::found::{Found, Voice};
use super::read::{STATUSES, VALUES_MAX, matching_status, verdict};
use super::{Decision, Explained, NAME_CHARS_MAX, Policy};
use crate::fields::{Field, File, Problem};
use crate::replica::charter::Roles;
use crate::replica::record::Stance;
use crate::replica::signal::{Alg, PDQ_DISTANCE_MAX};
use crate::replica::taxonomy::Taxonomy;
use crate::replica::verdict::Verdict;
use crate::replica::view::{Status, Word};

/// Cases of one file.
pub const CASES_MAX: usize = 1_000;
/// Disputing owners that make an entry CONTESTED in a case: what a forum begins with. A case can name its status.
const CONTEST_QUORUM: usize = 2;

/// A file of cases.
#[derive(Clone, Debug)]
pub struct Cases {
    companies: BTreeMap<String, Company>,
    /// In the order of the file.
    pub cases: Vec<Case>,
}

/// An item, and what is expected of the policy.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it is about.
    pub name: String,
    /// Where it begins, from 1.
    pub line: usize,
    /// What is expected.
    pub verdict: Verdict,
    /// Which rule is expected to say so; none: any.
    pub rule: Option<String>,
    entries: Vec<Entry>,
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Tried {
    /// What the policy says.
    pub decision: Decision,
    /// The rule that says it.
    pub rule: String,
    /// Whether that is what was expected.
    pub holds: bool,
    /// Each rule, and why it fired or did not.
    pub explained: Vec<Explained>,
}

#[derive(Clone, Debug)]
struct Company {
    group: String,
    jurisdictions: Vec<String>,
    roles: Roles,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    alg: Option<Alg>,
    status: Option<Status>,
    labels: Vec<u32>,
    languages: Vec<String>,
    distance: u32,
    incident: bool,
    flooding: bool,
    said: Vec<(String, Word)>,
}

impl Cases {
    /// Reads a file of cases; names of labels are those of `taxonomy`.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of its lines.
    pub fn parse(text: &str, taxonomy: &Taxonomy) -> Result<Self, Vec<Problem>> {
        let mut file = File::new(text);
        let cases = read(&mut file, taxonomy);
        let problems = file.into_problems();
        if problems.is_empty() { Ok(cases) } else { Err(problems) }
    }

    /// What `policy` makes of a case.
    pub fn try_on(&self, case: &Case, policy: &Policy) -> Tried {
        let found = self.found_in(case);
        let decision = policy.decide(&found, false);
        let rule = policy.name(decision.decider).to_owned();
        let holds = decision.verdict == case.verdict && case.rule.as_ref().is_none_or(|expected| *expected == rule);
        Tried { decision, rule, holds, explained: policy.explain(&found, false) }
    }

    /// The entries of a case, as a policy looks at them.
    pub(super) fn found_in<'a>(&'a self, case: &'a Case) -> Vec<Found<'a>> {
        case.entries.iter().map(|entry| self.found(entry)).collect()
    }

    fn found<'a>(&'a self, entry: &'a Entry) -> Found<'a> {
        let voices = entry.said.iter().filter_map(|(name, word)| {
            let company = self.companies.get(name)?;
            let (group, jurisdictions) = (company.group.as_str(), company.jurisdictions.as_slice());
            Some(Voice { group, jurisdictions, roles: company.roles, word: *word })
        });
        let voices: Vec<_> = voices.collect();
        let status = entry.status.unwrap_or_else(|| status_of(&voices));
        Found {
            alg: entry.alg,
            status,
            labels: &entry.labels,
            languages: &entry.languages,
            distance: entry.distance,
            incident: entry.incident,
            allow_conflict: status == Status::Allowed && voices.iter().any(|v| v.word.supports()),
            flooding: entry.flooding,
            voices,
        }
    }
}

/// The status that a forum with the usual numbers gives it.
fn status_of(voices: &[Voice<'_>]) -> Status {
    let groups = |wanted: &dyn Fn(&Voice<'_>) -> bool| {
        voices.iter().filter(|voice| wanted(voice)).map(|voice| voice.group).collect::<BTreeSet<_>>().len()
    };
    let full = groups(&|voice| voice.supports() && voice.roles.has(Roles::FULL));
    let all = groups(&|voice| voice.supports());
    if groups(&|voice| voice.word == Word::Allow(true)) > 0 {
        Status::Allowed
    } else if all > 0 && groups(&|voice| voice.word == Word::Stance(Stance::Dispute)) >= CONTEST_QUORUM {
        Status::Contested
    } else if full > 0 {
        Status::Active
    } else if all > 0 {
        Status::Provisional
    } else {
        Status::Referred
    }
}

fn read(file: &mut File<'_>, taxonomy: &Taxonomy) -> Cases {
    let table = file.parse();
    let mut cases = Cases { companies: BTreeMap::new(), cases: Vec::new() };
    let fields = file.fields(&table, &["company", "case"], "a file of cases");
    for field in fields.iter().filter(|field| field.key == "company") {
        cases.companies = companies(file, *field);
    }
    for field in fields.iter().filter(|field| field.key == "case") {
        for (line, table) in file.tables(*field) {
            let case = case(file, line, table, &cases.companies, taxonomy);
            cases.cases.extend(case);
        }
    }
    if let Some(case) = cases.cases.get(CASES_MAX) {
        file.wrong(case.line, format!("there are {} cases, expected at most {CASES_MAX}", cases.cases.len()));
    }
    cases
}

fn companies<'t>(file: &mut File<'t>, field: Field<'_, 't>) -> BTreeMap<String, Company> {
    let mut companies = BTreeMap::new();
    let DeValue::Table(table) = field.value else {
        return file.wrong_type(field, "tables [company.NAME]").unwrap_or_default();
    };
    for named in file.all_fields(table) {
        let DeValue::Table(table) = named.value else {
            let _none: Option<()> = file.wrong_type(named, "a table [company.NAME]");
            continue;
        };
        let mut company = Company { group: named.key.to_owned(), jurisdictions: Vec::new(), roles: Roles::FULL };
        for field in file.fields(table, &["group", "jurisdictions", "roles"], "a company") {
            match field.key {
                "group" => company.group = file.name(field, NAME_CHARS_MAX).unwrap_or_default(),
                "jurisdictions" => {
                    let texts = file.texts(field, VALUES_MAX).unwrap_or_default();
                    company.jurisdictions = texts.into_iter().map(|(_, text)| text).collect();
                }
                _ => {
                    let known = |name: &str| Roles::NAMES.iter().find(|(_, n)| *n == name).map(|(role, _)| *role);
                    let names = Roles::NAMES.map(|(_, name)| name);
                    let roles = file.listed(field, VALUES_MAX, &names, known).unwrap_or_default();
                    company.roles = roles.into_iter().reduce(Roles::and).unwrap_or(Roles::FULL);
                }
            }
        }
        companies.insert(named.key.to_owned(), company);
    }
    companies
}

fn case<'t>(
    file: &mut File<'t>,
    line: usize,
    table: &DeTable<'t>,
    companies: &BTreeMap<String, Company>,
    taxonomy: &Taxonomy,
) -> Option<Case> {
    let (mut name, mut expected, mut rule, mut entries) = (None, None, None, Vec::new());
    let fields = file.fields(table, &["name", "verdict", "rule", "entry"], "a case");
    for field in &fields {
        match field.key {
            "name" => name = file.name(*field, NAME_CHARS_MAX),
            "verdict" => expected = verdict(file, *field),
            "rule" => rule = file.name(*field, NAME_CHARS_MAX),
            _ => {
                for (line, table) in file.tables(*field) {
                    entries.push(entry(file, line, table, companies, taxonomy));
                }
            }
        }
    }
    for missing in ["name", "verdict"].into_iter().filter(|key| fields.iter().all(|f| f.key != *key)) {
        file.wrong(line, format!("the case has no {missing}"));
    }
    Some(Case { name: name?, line, verdict: expected?, rule, entries })
}

const ENTRY_KEYS: [&str; 11] = [
    "type",
    "status",
    "labels",
    "languages",
    "distance",
    "incident",
    "flooding",
    "supported_by",
    "disputed_by",
    "certified_by",
    "referred_by",
];

fn entry<'t>(
    file: &mut File<'t>,
    line: usize,
    table: &DeTable<'t>,
    companies: &BTreeMap<String, Company>,
    taxonomy: &Taxonomy,
) -> Entry {
    let mut entry = Entry { alg: Some(Alg::Sha256), ..Entry::default() };
    for field in file.fields(table, &ENTRY_KEYS, "an entry") {
        match field.key {
            "type" => entry.alg = one(file, field, &Alg::ALL.map(Alg::name), Alg::from_name),
            "status" => entry.status = one(file, field, &STATUSES.map(Status::name), matching_status),
            "labels" => entry.labels = labels(file, field, taxonomy),
            "languages" => {
                let texts = file.texts(field, VALUES_MAX).unwrap_or_default();
                entry.languages = texts.into_iter().map(|(_, text)| text).collect();
            }
            "distance" => entry.distance = file.number(field, 0..=PDQ_DISTANCE_MAX).unwrap_or_default(),
            "incident" => entry.incident = file.truth(field).unwrap_or_default(),
            "flooding" => entry.flooding = file.truth(field).unwrap_or_default(),
            "supported_by" => say(file, field, companies, Word::Stance(Stance::Submit), &mut entry),
            "disputed_by" => say(file, field, companies, Word::Stance(Stance::Dispute), &mut entry),
            "certified_by" => say(file, field, companies, Word::Allow(true), &mut entry),
            _ => say(file, field, companies, Word::Referral(true), &mut entry),
        }
    }
    let listed = |word: &Word| !matches!(word, Word::Stance(Stance::Dispute));
    if entry.status.is_none() && !entry.said.iter().any(|(_, word)| listed(word)) {
        file.wrong(line, "nobody lists the entry, expected supported_by, certified_by, referred_by or a status");
    }
    entry
}

fn one<'t, T>(
    file: &mut File<'t>,
    field: Field<'_, 't>,
    expected: &[&str],
    known: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let text = file.text(field)?;
    let value = known(&text);
    if value.is_none() {
        file.not_one_of(field.line, field.key, &text, expected);
    }
    value
}

fn labels<'t>(file: &mut File<'t>, field: Field<'_, 't>, taxonomy: &Taxonomy) -> Vec<u32> {
    let mut labels = Vec::new();
    for (line, name) in file.texts(field, VALUES_MAX).unwrap_or_default() {
        match taxonomy.number(&name) {
            Some(label) => labels.push(label),
            None => file.wrong(line, format!("labels has {name:?}, which no taxonomy here has")),
        }
    }
    labels
}

fn say<'t>(
    file: &mut File<'t>,
    field: Field<'_, 't>,
    companies: &BTreeMap<String, Company>,
    word: Word,
    entry: &mut Entry,
) {
    for (line, name) in file.texts(field, VALUES_MAX).unwrap_or_default() {
        if companies.contains_key(&name) {
            entry.said.push((name, word));
        } else {
            file.wrong(line, format!("{} has {name:?}, expected a company of this file: [company.{name}]", field.key));
        }
    }
}
