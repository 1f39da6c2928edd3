//! What a version of a taxonomy changes against the one before, in words, and what it may not: a number that was signed
//! keeps its meaning for ever, and a name never comes to stand for another number.

use std::collections::BTreeMap;

use crate::replica::taxonomy::{Label, Named, Taxonomy};

/// What changes, a line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What people may do.
    pub lines: Vec<String>,
    /// What would give old words another meaning, and what to do instead.
    pub refused: Vec<String>,
}

/// Holds `new` against `old`. Nothing is said of labels that stay as they are.
pub fn compare(old: &Taxonomy, new: &Taxonomy) -> Changes {
    let mut changes = Changes::default();
    changes.version(old, new);
    for (number, label) in new.labels() {
        match old.labels().get(number) {
            None => changes.added(*number, label),
            Some(before) => changes.changed(*number, before, label, new),
        }
    }
    for (number, label) in old.labels().iter().filter(|(number, _)| !new.labels().contains_key(number)) {
        let name = &label.name;
        changes.refused.push(format!(
            "label {number} ({name}) is gone: what was signed with it would lose its meaning; keep it, with retired = true"
        ));
    }
    changes.names(old, new);
    changes
}

impl Changes {
    fn version(&mut self, old: &Taxonomy, new: &Taxonomy) {
        let (Some(before), Some(after)) = (Named::parse(old.named()), Named::parse(new.named())) else { return };
        if before.name == after.name && after.version <= before.version && before != after {
            let (got, least) = (after.version, before.version.saturating_add(1));
            self.refused.push(format!(
                "version {got} of {} follows version {}, expected at least {least}",
                after.name, before.version
            ));
        }
    }

    fn added(&mut self, number: u32, label: &Label) {
        let retired = if label.retired { ", retired" } else { "" };
        self.lines.push(format!("+ label {number} {} ({}{retired})", label.name, label.facet.name()));
    }

    fn changed(&mut self, number: u32, before: &Label, after: &Label, new: &Taxonomy) {
        let name = &after.name;
        if before.name != *name && after.formerly.contains(&before.name) {
            self.lines.push(format!("~ label {number} {} is called {name} from now on", before.name));
        } else if before.name != *name {
            self.refused.push(format!(
                "label {number} is {name}, and was {} until now: what was signed with it would mean something else; \
                 a new meaning takes a new number; the same meaning under another name takes formerly = [{:?}]",
                before.name, before.name
            ));
        }
        match (before.retired, after.retired) {
            (false, true) => self.lines.push(format!(
                "- label {number} {name} is retired: nobody says it any more, what was said with it stays"
            )),
            (true, false) => self.lines.push(format!("+ label {number} {name} may be said again")),
            _ => {}
        }
        if before.facet != after.facet {
            let (old, new) = (before.facet.name(), after.facet.name());
            self.lines.push(format!("~ label {number} {name}: facet {old} becomes {new}"));
        }
        if before.parent != after.parent {
            let parent = after.parent.map_or_else(|| "nothing else".to_owned(), |parent| new.name(parent));
            self.lines.push(format!("~ label {number} {name}: a kind of {parent}"));
        }
        if before.titles != after.titles {
            let languages: Vec<_> = after.titles.keys().map(String::as_str).collect();
            let languages = if languages.is_empty() { "none".to_owned() } else { languages.join(", ") };
            self.lines.push(format!("~ label {number} {name}: other titles ({languages})"));
        }
    }

    /// Policies and people go by names: one that changes hands would silently say something else.
    fn names(&mut self, old: &Taxonomy, new: &Taxonomy) {
        let numbers = |taxonomy: &Taxonomy| {
            let names = |(number, label): (&u32, &Label)| {
                label.formerly.iter().chain([&label.name]).map(|name| (name.clone(), *number)).collect::<Vec<_>>()
            };
            taxonomy.labels().iter().flat_map(names).collect::<BTreeMap<_, _>>()
        };
        let after = numbers(new);
        for (name, before) in numbers(old) {
            if let Some(now) = after.get(&name).filter(|now| **now != before) {
                self.refused.push(format!(
                    "the name {name} is that of label {now}, and was that of label {before}: expected a name that nobody knows"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::taxonomy::Facet;

    fn with(named: &str, change: impl FnOnce(&mut BTreeMap<u32, Label>)) -> Taxonomy {
        let mut labels = Taxonomy::built_in().labels().clone();
        change(&mut labels);
        Taxonomy::new(named.into(), labels)
    }

    fn symbol(change: impl FnOnce(&mut Label)) -> Changes {
        let new = with("staydown-example-2", |labels| change(labels.get_mut(&13).unwrap()));
        compare(&Taxonomy::built_in(), &new)
    }

    #[test]
    fn what_changes_is_said_in_words() {
        assert_eq!(symbol(|_| ()), Changes::default());
        type Edit = fn(&mut Label);
        let cases: [(Edit, &str); 5] = [
            (|l| l.retired = true, "- label 13 symbol is retired"),
            (|l| l.facet = Facet::Producer, "~ label 13 symbol: facet content-type becomes producer"),
            (|l| l.parent = Some(1), "~ label 13 symbol: a kind of propaganda"),
            (|l| drop(l.titles.insert("fr".into(), "Symbole".into())), "~ label 13 symbol: other titles (fr)"),
            (
                |l| (l.name, l.formerly) = ("emblem".into(), vec!["symbol".into()]),
                "~ label 13 symbol is called emblem from now on",
            ),
        ];
        for (change, expected) in cases {
            let changes = symbol(change);
            assert!(changes.lines[0].starts_with(expected), "{changes:?}");
            assert_eq!((changes.lines.len(), changes.refused.len()), (1, 0), "{changes:?}");
        }
        let added =
            with("other-1", |labels| drop(labels.insert(100, Label::new("org-example-front", Facet::Producer))));
        assert_eq!(compare(&Taxonomy::built_in(), &added).lines, ["+ label 100 org-example-front (producer)"]);
        assert_eq!(compare(&added, &added), Changes::default());
    }

    #[test]
    fn what_would_give_old_words_another_meaning_is_refused() {
        let built_in = Taxonomy::built_in();
        let refused = |new: &Taxonomy, expected: &str| {
            let changes = compare(&built_in, new);
            assert!(changes.refused.iter().any(|line| line.contains(expected)), "{expected}: {changes:?}");
        };
        let named = "staydown-example-2";
        refused(&with(named, |l| l.get_mut(&13).unwrap().name = "flag".into()), "label 13 is flag, and was symbol");
        refused(&with(named, |l| drop(l.remove(&13))), "label 13 (symbol) is gone");
        let moved = |l: &mut BTreeMap<u32, Label>| {
            let label = l.remove(&13).unwrap();
            l.insert(15, label);
        };
        refused(&with(named, moved), "the name symbol is that of label 15, and was that of label 13");
        let swapped = |l: &mut BTreeMap<u32, Label>| {
            (l.get_mut(&13).unwrap().name, l.get_mut(&1).unwrap().name) = ("propaganda".into(), "symbol".into());
        };
        refused(&with(named, swapped), "the name propaganda is that of label 13");
        refused(&with("staydown-example-0", |_| ()), "expected at least 2");
    }
}
