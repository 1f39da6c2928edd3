//! From the text of a policy file to rules: all mistakes at once, then what is odd.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::breaker::{self, Limits};
use super::rule::{Conditions, Disputes, Rule};
use super::{NO_RULE, NOTHING_MATCHES, Policy, UNFINISHED};
use crate::config::nearest;
use crate::fields::{Field, File, Problem};
use crate::replica::charter::Roles;
use crate::replica::record::is_language;
use crate::replica::signal::{Alg, PDQ_DISTANCE_MAX};
use crate::replica::taxonomy::Taxonomy;
use crate::replica::verdict::Verdict;
use crate::replica::view::Status;

/// Rules of one file: each lookup goes through them in order, and people have to understand them.
pub const RULES_MAX: usize = 100;
/// Values of one list: more than there are labels, kinds or languages that one company tells apart.
pub const VALUES_MAX: usize = 64;
/// Characters of a rule's name: it stands in every answer.
pub const NAME_CHARS_MAX: usize = 120;
/// Companies that a rule can ask for: no forum is planned with more members that act for themselves.
const COMPANIES_MAX: u32 = 200;

const KEYS: [&str; 16] = [
    "name",
    "verdict",
    "status",
    "type",
    "labels_any",
    "labels_none",
    "languages",
    "distance_max",
    "incident",
    "supporters",
    "groups_min",
    "jurisdictions_min",
    "disputes",
    "certified",
    "listed",
    "referral_only",
];

const BREAKER_KEYS: [&str; 5] = ["off", "floor", "factor", "window_minutes", "hold_hours"];

pub(super) fn policy(text: &str, taxonomy: &Arc<Taxonomy>) -> Result<Policy, Vec<Problem>> {
    let mut reader = Reader { file: File::new(text), taxonomy, warnings: Vec::new() };
    let (rules, breaker) = reader.whole();
    reader.judge(&rules);
    let problems = reader.file.into_problems();
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut warnings = reader.warnings;
    warnings.sort();
    Ok(Policy { rules, breaker, warnings, taxonomy: Arc::clone(taxonomy) })
}

struct Reader<'t> {
    file: File<'t>,
    taxonomy: &'t Taxonomy,
    warnings: Vec<Problem>,
}

impl<'t> Reader<'t> {
    fn whole(&mut self) -> (Vec<Rule>, Limits) {
        let table = self.file.parse();
        let (mut rules, mut breaker) = (Vec::new(), Limits::default());
        let fields = self.file.fields(&table, &["rule", "breaker"], "a policy");
        for field in &fields {
            if field.key == "breaker" {
                breaker = self.breaker(*field);
                continue;
            }
            for (line, table) in self.file.tables(*field) {
                rules.extend(self.rule(line, table));
            }
        }
        // A file for the breaker alone would quietly make REVIEW of everything.
        if table.is_empty() || !fields.is_empty() && fields.iter().all(|field| field.key == "breaker") {
            self.file.wrong(1, "the file has no rule, expected at least one [[rule]]");
        }
        if rules.len() > RULES_MAX {
            let got = rules.len();
            self.file.wrong(rules[RULES_MAX].line, format!("there are {got} rules, expected at most {RULES_MAX}"));
        }
        (rules, breaker)
    }

    fn breaker(&mut self, field: Field<'_, 't>) -> Limits {
        let DeValue::Table(table) = field.value else {
            return self.file.wrong_type(field, "a table [breaker]").unwrap_or_default();
        };
        let mut limits = Limits::default();
        for field in self.file.fields(table, &BREAKER_KEYS, "[breaker]") {
            let file = &mut self.file;
            let mut number = |max| file.number(field, 1..=max);
            match field.key {
                "floor" => limits.floor = number(breaker::FLOOR_MAX).unwrap_or(limits.floor),
                "factor" => limits.factor = number(breaker::FACTOR_MAX).unwrap_or(limits.factor),
                "window_minutes" => {
                    limits.window_minutes = number(breaker::WINDOW_MINUTES_MAX).unwrap_or(limits.window_minutes);
                }
                "hold_hours" => limits.hold_hours = number(breaker::HOLD_HOURS_MAX).unwrap_or(limits.hold_hours),
                _ => limits.off = file.truth(field).unwrap_or_default(),
            }
            if field.key == "floor" && limits.floor < breaker::FLOOR_ODD {
                let floor = limits.floor;
                let message =
                    format!("floor is {floor}: whoever uploads a listed file {floor} times makes its BLOCK a REVIEW");
                self.warnings.push(Problem { line: field.line, message });
            }
        }
        limits
    }

    fn rule(&mut self, line: usize, table: &DeTable<'t>) -> Option<Rule> {
        let (mut name, mut verdict, mut conditions) = (None, None, Conditions::default());
        let fields = self.file.fields(table, &KEYS, "a rule");
        for field in &fields {
            match field.key {
                "name" => name = self.file.name(*field, NAME_CHARS_MAX),
                "verdict" => verdict = self.verdict(*field),
                _ => self.condition(*field, &mut conditions),
            }
        }
        for missing in ["name", "verdict"].into_iter().filter(|key| fields.iter().all(|f| f.key != *key)) {
            self.file.wrong(line, format!("the rule has no {missing}"));
        }
        if conditions.supporters.is_some() && conditions.groups_min.is_none() {
            conditions.groups_min = Some(1);
        }
        Some(Rule { name: name?, verdict: verdict?, line, conditions })
    }

    fn verdict(&mut self, field: Field<'_, 't>) -> Option<Verdict> {
        verdict(&mut self.file, field)
    }

    fn condition(&mut self, field: Field<'_, 't>, c: &mut Conditions) {
        let file = &mut self.file;
        match field.key {
            "status" => c.status = file.listed(field, VALUES_MAX, &STATUSES.map(Status::name), matching_status),
            "type" => c.types = file.listed(field, VALUES_MAX, &Alg::ALL.map(Alg::name), Alg::from_name),
            "labels_any" => c.labels_any = self.labels(field),
            "labels_none" => {
                let warned = self.warnings.len();
                c.labels_none = self.labels(field);
                c.excepts_unknown = self.warnings.len() > warned;
            }
            "languages" => c.languages = self.languages(field),
            "distance_max" => c.distance_max = file.number(field, 0..=PDQ_DISTANCE_MAX),
            "incident" => c.incident = file.truth(field),
            "supporters" => c.supporters = self.supporters(field),
            "groups_min" => c.groups_min = file.number(field, 1..=COMPANIES_MAX),
            "jurisdictions_min" => c.jurisdictions_min = file.number(field, 1..=COMPANIES_MAX),
            "disputes" => c.disputes = self.disputes(field),
            "certified" => c.certified = file.truth(field),
            "listed" => c.listed = file.truth(field),
            _ => c.referral_only = file.truth(field),
        }
    }

    /// Labels that the taxonomy does not know are odd, not wrong: the file may be older, or newer, than the taxonomy.
    fn labels(&mut self, field: Field<'_, 't>) -> Option<Vec<u32>> {
        let mut labels = Vec::new();
        for (line, name) in self.file.texts(field, VALUES_MAX)? {
            match self.taxonomy.number(&name) {
                Some(label) => labels.push(label),
                None => {
                    let message = no_such_label(&name, self.taxonomy);
                    self.warnings.push(Problem { line, message });
                }
            }
        }
        Some(labels)
    }

    fn languages(&mut self, field: Field<'_, 't>) -> Option<Vec<String>> {
        let mut languages = Vec::new();
        for (line, tag) in self.file.texts(field, VALUES_MAX)? {
            if is_language(&tag) {
                languages.push(tag);
            } else {
                self.file.wrong(line, format!("languages has {tag:?}, expected a BCP 47 tag such as en or pt-BR"));
            }
        }
        Some(languages)
    }

    fn supporters(&mut self, field: Field<'_, 't>) -> Option<Roles> {
        let role = |name: &str| match name {
            "FULL" => Some(Roles::FULL),
            "SMALL" => Some(Roles::SMALL),
            _ => None,
        };
        let roles = self.file.listed(field, VALUES_MAX, &["FULL", "SMALL"], role)?;
        roles.into_iter().reduce(Roles::and)
    }

    fn disputes(&mut self, field: Field<'_, 't>) -> Option<Disputes> {
        match field.value.as_str() {
            Some("none") => Some(Disputes::None),
            Some("any") => Some(Disputes::Min(1)),
            None if field.value.is_integer() => self.file.number(field, 1..=COMPANIES_MAX).map(Disputes::Min),
            _ => self.file.wrong_type(field, "\"none\", \"any\", or the least number of companies"),
        }
    }

    /// What is wrong or odd about rules that are each well written.
    fn judge(&mut self, rules: &[Rule]) {
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        for (place, rule) in rules.iter().enumerate() {
            if [NOTHING_MATCHES, UNFINISHED, NO_RULE].contains(&rule.name.as_str()) {
                self.file
                    .wrong(rule.line, format!("the name {:?} is what answers say where no rule decides", rule.name));
            }
            if let Some(first) = names.insert(&rule.name, rule.line) {
                let message = format!("the name {:?} is that of the rule in line {first}, too", rule.name);
                self.file.wrong(rule.line, message);
            }
            let vain = rule.could_never_block().filter(|_| rule.verdict == Verdict::Block);
            if let Some(why) = vain {
                self.file.wrong(rule.line, format!("the rule {:?} says BLOCK, expected REVIEW: {why}", rule.name));
            }
            self.warn_if_unreachable(rule, &rules[..place]);
        }
    }

    fn warn_if_unreachable(&mut self, rule: &Rule, before: &[Rule]) {
        let message = if let Some(why) = rule.is_impossible() {
            format!("the rule {:?} never fires: {why}", rule.name)
        } else if let Some(earlier) = before.iter().find(|earlier| earlier.covers(rule)) {
            let (name, line) = (&earlier.name, earlier.line);
            format!("the rule {:?} is never reached: {name:?} in line {line} fires wherever it would", rule.name)
        } else {
            return;
        };
        self.warnings.push(Problem { line: rule.line, message });
    }
}

/// Statuses that a lookup returns.
pub(super) const STATUSES: [Status; 5] =
    [Status::Active, Status::Provisional, Status::Contested, Status::Referred, Status::Allowed];

/// The status of a name, if a lookup returns such entries.
pub(super) fn matching_status(name: &str) -> Option<Status> {
    STATUSES.into_iter().find(|status| status.name() == name)
}

fn no_such_label(name: &str, taxonomy: &Taxonomy) -> String {
    let why = match taxonomy.why_missing() {
        Some(why) => why.to_owned(),
        None => match nearest(name, taxonomy.sayable_names()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "it has none".to_owned(),
        },
    };
    format!("no taxonomy here has the label {name:?}; {why}")
}

/// A verdict by its name.
pub(super) fn verdict<'t>(file: &mut File<'t>, field: Field<'_, 't>) -> Option<Verdict> {
    let verdicts = [Verdict::Allow, Verdict::Review, Verdict::Block];
    let text = file.text(field)?;
    let known = verdicts.into_iter().find(|verdict| verdict.name() == text);
    if known.is_none() {
        file.not_one_of(field.line, field.key, &text, &verdicts.map(Verdict::name));
    }
    known
}
