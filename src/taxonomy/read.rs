//! From the text of a taxonomy file to its labels: all mistakes at once, each with its line.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use crate::config::nearest;
use crate::fields::{Field, File, Problem};
use crate::replica::record::is_language;
use crate::replica::taxonomy::{EXAMPLE, Facet, Label, NAME_CHARS_MAX, is_name};

/// Labels of one taxonomy: more than people can tell apart, and few enough for a menu.
pub const LABELS_MAX: usize = 1_000;
/// Languages that one label has titles in.
pub const TITLES_MAX: usize = 64;
/// Characters of a title: it stands in a menu.
pub const TITLE_CHARS_MAX: usize = 120;
/// Names that one label had before.
pub const FORMERLY_MAX: usize = 16;

const KEYS: [&str; 7] = ["number", "name", "facet", "title", "parent", "formerly", "retired"];

/// What a file says.
pub(super) struct Read {
    pub(super) name: String,
    pub(super) version: u32,
    pub(super) labels: BTreeMap<u32, Label>,
}

/// A label, and where it stands.
struct Written {
    line: usize,
    number: u32,
    label: Label,
    /// Its name, and its line.
    parent: Option<(usize, String)>,
}

pub(super) fn taxonomy(text: &str) -> Result<Read, Vec<Problem>> {
    let mut reader = Reader { file: File::new(text), names: Vec::new() };
    let read = reader.whole();
    let problems = reader.file.into_problems();
    match read {
        Some(read) if problems.is_empty() => Ok(read),
        _ => Err(problems),
    }
}

struct Reader<'t> {
    file: File<'t>,
    /// Of all labels, also of those that have other mistakes: a parent that is written wrong is there all the same.
    names: Vec<String>,
}

impl<'t> Reader<'t> {
    fn whole(&mut self) -> Option<Read> {
        let table = self.file.parse();
        let (mut name, mut version, mut labels) = (None, None, Vec::new());
        let fields = self.file.fields(&table, &["name", "version", "label"], "a taxonomy");
        for field in &fields {
            match field.key {
                "name" => name = self.name(*field),
                "version" => version = self.file.number(*field, 1..=u32::MAX),
                _ => labels = self.labels(*field),
            }
        }
        for missing in ["name", "version", "label"].into_iter().filter(|key| fields.iter().all(|f| f.key != *key)) {
            let expected = if missing == "label" { ", expected at least one [[label]]" } else { "" };
            self.file.wrong(1, format!("the file has no {missing}{expected}"));
        }
        let labels = self.judge(labels);
        let (name, version) = (name?, version?);
        if format!("{name}-{version}") == EXAMPLE {
            self.file.wrong(1, format!("{EXAMPLE} is built in, expected another name or a greater version"));
        }
        Some(Read { name, version, labels })
    }

    fn labels(&mut self, field: Field<'_, 't>) -> Vec<Written> {
        let tables = self.file.tables(field);
        if tables.is_empty() {
            self.file.wrong(field.line, "there is no label, expected at least one [[label]]");
        }
        if let Some((line, _)) = tables.get(LABELS_MAX) {
            self.file.wrong(*line, format!("there are {} labels, expected at most {LABELS_MAX}", tables.len()));
        }
        tables.into_iter().take(LABELS_MAX).filter_map(|(line, table)| self.label(line, table)).collect()
    }

    fn label(&mut self, line: usize, table: &DeTable<'t>) -> Option<Written> {
        let (mut number, mut name, mut facet) = (None, None, None);
        let mut label = Label::new("", Facet::ContentType);
        let mut parent = None;
        let fields = self.file.fields(table, &KEYS, "a label");
        for field in &fields {
            match field.key {
                "number" => number = self.file.number(*field, 1..=u32::MAX),
                "name" => name = self.name(*field),
                "facet" => facet = self.facet(*field),
                "title" => label.titles = self.titles(*field),
                "parent" => parent = self.file.text(*field).map(|name| (field.line, name)),
                "formerly" => label.formerly = self.formerly(*field),
                _ => label.retired = self.file.truth(*field).unwrap_or_default(),
            }
        }
        for missing in ["number", "name", "facet"].into_iter().filter(|key| fields.iter().all(|f| f.key != *key)) {
            self.file.wrong(line, format!("the label has no {missing}"));
        }
        self.names.extend(name.clone());
        (label.name, label.facet) = (name?, facet?);
        Some(Written { line, number: number?, label, parent })
    }

    fn name(&mut self, field: Field<'_, 't>) -> Option<String> {
        let text = self.file.text(field)?;
        self.named(field.line, field.key, text)
    }

    fn named(&mut self, line: usize, key: &str, text: String) -> Option<String> {
        if is_name(&text) {
            return Some(text);
        }
        let expected = format!(
            "small letters and digits in words with hyphens, beginning with a letter, as in graphic-violence, at most {NAME_CHARS_MAX} in all; label-N is how a label without a name is shown"
        );
        let got: String = text.chars().take(NAME_CHARS_MAX).collect();
        self.file.wrong(line, format!("{key} is {got:?}, expected {expected}"));
        None
    }

    fn facet(&mut self, field: Field<'_, 't>) -> Option<Facet> {
        let text = self.file.text(field)?;
        let facet = Facet::from_name(&text);
        if facet.is_none() {
            self.file.not_one_of(field.line, field.key, &text, &Facet::ALL.map(Facet::name));
        }
        facet
    }

    fn titles(&mut self, field: Field<'_, 't>) -> BTreeMap<String, String> {
        let DeValue::Table(table) = field.value else {
            return self
                .file
                .wrong_type(field, "titles by language, as in { en = \"one\", fr = \"un\" }")
                .unwrap_or_default();
        };
        let mut titles = BTreeMap::new();
        for title in self.file.all_fields(table) {
            if !is_language(title.key) {
                let message = format!("title has {:?}, expected a BCP 47 tag such as en or pt-BR", title.key);
                self.file.wrong(title.line, message);
            } else if let Some(text) = self.file.name(title, TITLE_CHARS_MAX) {
                titles.insert(title.key.to_owned(), text);
            }
        }
        if titles.len() > TITLES_MAX {
            let message = format!("title has {} languages, expected at most {TITLES_MAX}", titles.len());
            self.file.wrong(field.line, message);
        }
        titles
    }

    fn formerly(&mut self, field: Field<'_, 't>) -> Vec<String> {
        let texts = self.file.texts(field, FORMERLY_MAX).unwrap_or_default();
        texts.into_iter().filter_map(|(line, text)| self.named(line, field.key, text)).collect()
    }

    /// What is wrong about labels that are each well written.
    fn judge(&mut self, written: Vec<Written>) -> BTreeMap<u32, Label> {
        let (mut numbers, mut names) = (BTreeMap::new(), BTreeMap::new());
        for Written { line, number, label, .. } in &written {
            if let Some(first) = numbers.insert(*number, *line) {
                self.file.wrong(*line, format!("the number {number} is that of the label in line {first}, too"));
            }
            for name in label.formerly.iter().chain([&label.name]) {
                if let Some(first) = names.insert(name.clone(), *line) {
                    let message = format!("the name {name:?} is, or was, that of the label in line {first}, too");
                    self.file.wrong(*line, message);
                }
            }
        }
        let places: BTreeMap<_, _> = written.iter().enumerate().map(|(at, w)| (w.label.name.clone(), at)).collect();
        let parents: Vec<_> = written.iter().map(|label| self.parent(label, &written, &places)).collect();
        for (at, label) in written.iter().enumerate() {
            if is_its_own_ancestor(at, &parents) {
                let message = format!("the label {:?} is, by its parents, a kind of itself", label.label.name);
                self.file.wrong(label.line, message);
            }
        }
        let numbers: Vec<_> = written.iter().map(|label| label.number).collect();
        let with_parent = |(mut w, parent): (Written, Option<usize>)| {
            w.label.parent = parent.map(|at| numbers[at]);
            (w.number, w.label)
        };
        written.into_iter().zip(parents).map(with_parent).collect()
    }

    /// The place of the label's parent.
    fn parent(&mut self, of: &Written, all: &[Written], places: &BTreeMap<String, usize>) -> Option<usize> {
        let (line, name) = of.parent.as_ref()?;
        let Some(at) = places.get(name) else {
            if !self.names.contains(name) {
                let near = nearest(name, self.names.iter().map(String::as_str)).unwrap_or_default();
                self.file.wrong(*line, format!("parent is {name:?}, which is no label here; did you mean {near:?}?"));
            }
            return None;
        };
        let (ours, theirs) = (of.label.facet, all[*at].label.facet);
        if ours != theirs {
            let message = format!("parent is {name:?} of the facet {}, expected one of {}", theirs.name(), ours.name());
            self.file.wrong(*line, message);
        }
        Some(*at)
    }
}

fn is_its_own_ancestor(of: usize, parents: &[Option<usize>]) -> bool {
    let mut at = of;
    for _ in 0..=parents.len() {
        match parents[at] {
            Some(parent) if parent == of => return true,
            Some(parent) => at = parent,
            None => return false,
        }
    }
    false // a circle above it, of which it is no part
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: &str = "[[label]]\nnumber = 1\nname = \"symbol\"\nfacet = \"content-type\"\n";

    fn head(rest: &str) -> String {
        format!("name = \"x\"\nversion = 1\n{rest}")
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        let label = |rest: &str| head(&format!("{LABEL}{rest}"));
        let second =
            |rest: &str| label(&format!("[[label]]\nnumber = 2\nname = \"flag\"\nfacet = \"content-type\"\n{rest}"));
        for (text, line, expected) in [
            (String::new(), 1, "the file has no name"),
            (String::new(), 1, "the file has no label, expected at least one [[label]]"),
            (head("label = []"), 3, "there is no label"),
            (head("label = 1"), 3, "label is of type integer, expected [[label]]"),
            (head("[[labels]]"), 3, "there is no \"labels\" in a taxonomy; did you mean \"label\"?"),
            (format!("name = \"X\"\nversion = 1\n{LABEL}"), 1, "name is \"X\", expected small letters"),
            (format!("name = \"x\"\nversion = 0\n{LABEL}"), 2, "version is 0, expected a number from 1"),
            (format!("name = \"staydown-example\"\nversion = 1\n{LABEL}"), 1, "is built in"),
            (head("[[label]]\nname = \"a\"\nfacet = \"incident\""), 3, "the label has no number"),
            (head("[[label]]\nnumber = 0\nname = \"a\"\nfacet = \"incident\""), 4, "number is 0, expected"),
            (
                head("[[label]]\nnumber = 4294967296\nname = \"a\"\nfacet = \"incident\""),
                4,
                "expected a number from 1 to 4294967295",
            ),
            (head("[[label]]\nnumber = 1\nname = \"label-1\"\nfacet = \"incident\""), 5, "name is \"label-1\""),
            (
                head("[[label]]\nnumber = 1\nname = \"a\"\nfacet = \"organisation\""),
                6,
                "expected one of content-type, producer, behaviour, incident",
            ),
            (label("colour = \"red\""), 7, "there is no \"colour\" in a label"),
            (label("retired = 1"), 7, "expected true or false"),
            (label("title = \"Symbol\""), 7, "title is \"Symbol\", expected titles by language"),
            (label("title = { e = \"Symbol\" }"), 7, "expected a BCP 47 tag"),
            (label("title = { en = \"\" }"), 7, "en is \"\" (0 characters)"),
            (label("formerly = [\"Flag\"]"), 7, "formerly is \"Flag\""),
            (label("parent = \"symbl\""), 7, "did you mean \"symbol\"?"),
            (label("parent = \"symbol\""), 3, "a kind of itself"),
            (second("number = 1"), 11, ""),
            (second("").replace("number = 2", "number = 1"), 7, "the number 1 is that of the label in line 3, too"),
            (second("").replace("flag", "symbol"), 7, "the name \"symbol\" is, or was, that of the label in line 3"),
            (second("formerly = [\"symbol\"]"), 7, "the name \"symbol\" is, or was"),
            (
                second("parent = \"symbol\"").replacen("content-type", "producer", 1),
                11,
                "of the facet producer, expected one of content-type",
            ),
            (second("parent = \"symbol\"").replacen("facet", "parent = \"flag\"\nfacet", 1), 3, "a kind of itself"),
        ] {
            let problems = taxonomy(&text).err().unwrap_or_else(|| panic!("{text} is understood"));
            let found = problems.iter().any(|problem| problem.line == line && problem.message.contains(expected));
            assert!(found, "{text}: expected line {line}, {expected:?}: {problems:?}");
        }
        let many = head("[[label]]\nnumber = 0\nname = \"A\"\nfacet = 1\nparent = \"b\"\n");
        let lines: Vec<_> = taxonomy(&many).err().unwrap().into_iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [4, 5, 6], "all mistakes are told at once");
    }

    #[test]
    fn labels_have_kinds_of_kinds_and_titles() {
        let text = head(
            "[[label]]\nnumber = 7\nname = \"b\"\nfacet = \"producer\"\nparent = \"a\"\ntitle = { en = \"Bee\", pt-BR = \"Abelha\" }\n\
             [[label]]\nnumber = 0x10\nname = \"a\"\nfacet = \"producer\"\nformerly = [\"old-a\"]\nretired = true\n",
        );
        let read = taxonomy(&text).unwrap_or_else(|problems| panic!("{problems:?}"));
        let (b, a) = (&read.labels[&7], &read.labels[&16]);
        assert_eq!((b.parent, b.titles["pt-BR"].as_str(), b.retired), (Some(16), "Abelha", false));
        assert_eq!((a.formerly.as_slice(), a.retired), (&["old-a".to_owned()][..], true));
    }

    #[test]
    fn a_label_has_at_most_so_many_former_names_and_titles() {
        let names = |n: usize| (0..n).map(|i| format!("\"f{i}\",")).collect::<String>();
        let formerly = |n| taxonomy(&head(&format!("{LABEL}formerly = [{}]\n", names(n))));
        assert!(formerly(FORMERLY_MAX).is_ok() && formerly(FORMERLY_MAX + 1).is_err());
        let tags = |n: usize| (0..n).map(|i| format!("en-a{i} = \"t\"\n")).collect::<String>();
        let titles = |n| taxonomy(&head(&format!("{LABEL}[label.title]\n{}", tags(n))));
        assert!(titles(TITLES_MAX).is_ok() && titles(TITLES_MAX + 1).is_err());
        let title = |n: usize| taxonomy(&head(&format!("{LABEL}title = {{ en = \"{}\" }}\n", "é".repeat(n))));
        assert!(title(TITLE_CHARS_MAX).is_ok() && title(TITLE_CHARS_MAX + 1).is_err());
    }
}
