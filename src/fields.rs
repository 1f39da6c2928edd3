//! Reading a TOML file that people write: every mistake is kept, each with its line, what stands there and what may.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::ops::RangeInclusive;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::config::nearest;

/// Mistakes that are told of one file: who has more has taken the wrong file.
pub(crate) const PROBLEMS_MAX: usize = 50;
/// Characters of a value that a message repeats.
const SHOWN_CHARS_MAX: usize = 60;

/// A mistake, or something odd, in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// What stands there and what may.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

/// Mistakes in one line: the first of them, and how many there are more.
pub fn summary(problems: &[Problem]) -> String {
    let first = problems.first().map(ToString::to_string).unwrap_or_default();
    match problems.len() {
        0 | 1 => first,
        2 => format!("{first} (and 1 more mistake)"),
        more => format!("{first} (and {} more mistakes)", more - 1),
    }
}

/// The text of a file that people wrote.
///
/// # Errors
/// It cannot be read, is no text, or has more than `bytes_max` bytes.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {bytes_max} bytes")));
    }
    Ok(text)
}

/// A file that is being read.
pub(crate) struct File<'t> {
    text: &'t str,
    problems: Vec<Problem>,
}

/// A value with its key and its line.
#[derive(Clone, Copy)]
pub(crate) struct Field<'v, 't> {
    pub(crate) key: &'v str,
    pub(crate) line: usize,
    pub(crate) value: &'v DeValue<'t>,
}

impl<'t> File<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self { text, problems: Vec::new() }
    }

    /// The whole file as a table.
    pub(crate) fn parse(&mut self) -> DeTable<'t> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let line = self.line_of(error.span().map_or(0, |span| span.start));
            self.wrong(line, error.message());
        }
        table.into_inner()
    }

    pub(crate) fn wrong(&mut self, line: usize, message: impl Into<String>) {
        self.problems.push(Problem { line, message: message.into() });
    }

    /// What is wrong, in the order of the lines; the first are the ones to mend first.
    pub(crate) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort();
        self.problems.dedup();
        self.problems.truncate(PROBLEMS_MAX);
        self.problems
    }

    pub(crate) fn line_of(&self, at: usize) -> usize {
        self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
    }

    /// The fields of a table, in the order of their lines. A key that is not among `known` is a mistake.
    pub(crate) fn fields<'v>(&mut self, table: &'v DeTable<'t>, known: &[&str], of: &str) -> Vec<Field<'v, 't>> {
        let mut fields = self.all_fields(table);
        fields.retain(|field| {
            let is_known = known.contains(&field.key);
            if !is_known {
                let near = nearest(field.key, known.iter().copied()).unwrap_or_default();
                let key = shown(field.key);
                self.wrong(field.line, format!("there is no {key:?} in {of}; did you mean {near:?}?"));
            }
            is_known
        });
        fields
    }

    /// The fields of a table, whatever they are called.
    pub(crate) fn all_fields<'v>(&self, table: &'v DeTable<'t>) -> Vec<Field<'v, 't>> {
        let field = |(key, value): (&'v Spanned<_>, &'v Spanned<DeValue<'t>>)| {
            let (line, key): (_, &std::borrow::Cow<'_, str>) = (self.line_of(key.span().start), key.get_ref());
            Field { key: key.as_ref(), line, value: value.get_ref() }
        };
        let mut fields: Vec<_> = table.iter().map(field).collect();
        fields.sort_by_key(|field| field.line);
        fields
    }

    /// The tables of `[[rule]]`, each with its line.
    pub(crate) fn tables<'v>(&mut self, field: Field<'v, 't>) -> Vec<(usize, &'v DeTable<'t>)> {
        let expected = format!("[[{}]]", field.key);
        let DeValue::Array(array) = field.value else {
            return self.wrong_type(field, &expected).unwrap_or_default();
        };
        let mut tables = Vec::new();
        for value in array {
            let line = self.line_of(value.span().start);
            match value.get_ref() {
                DeValue::Table(table) => tables.push((line, table)),
                other => {
                    let _none: Option<()> = self.wrong_type(Field { value: other, line, ..field }, &expected);
                }
            }
        }
        tables
    }

    pub(crate) fn text(&mut self, field: Field<'_, 't>) -> Option<String> {
        match field.value {
            DeValue::String(text) => Some(text.to_string()),
            _ => self.wrong_type(field, "a text in quotes"),
        }
    }

    /// A text of 1 to `chars_max` characters on one line.
    pub(crate) fn name(&mut self, field: Field<'_, 't>, chars_max: usize) -> Option<String> {
        let text = self.text(field)?;
        let chars = text.chars().count();
        if (1..=chars_max).contains(&chars) && !text.contains(char::is_control) && text.trim() == text {
            return Some(text);
        }
        let got = shown(&text);
        let expected = format!("1 to {chars_max} characters on one line, without white space around them");
        self.wrong(field.line, format!("{} is {got:?} ({chars} characters), expected {expected}", field.key));
        None
    }

    pub(crate) fn truth(&mut self, field: Field<'_, 't>) -> Option<bool> {
        match field.value {
            DeValue::Boolean(truth) => Some(*truth),
            _ => self.wrong_type(field, "true or false"),
        }
    }

    pub(crate) fn number(&mut self, field: Field<'_, 't>, range: RangeInclusive<u32>) -> Option<u32> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let DeValue::Integer(written) = field.value else { return self.wrong_type(field, &expected) };
        let number = u32::from_str_radix(written.as_str(), written.radix()).ok().filter(|n| range.contains(n));
        if number.is_none() {
            let got = shown(written.as_str());
            self.wrong(field.line, format!("{} is {got}, expected {expected}", field.key));
        }
        number
    }

    /// The texts of a list of 1 to `values_max`.
    pub(crate) fn texts(&mut self, field: Field<'_, 't>, values_max: usize) -> Option<Vec<(usize, String)>> {
        let expected = "a list of texts, as in [\"one\", \"two\"]";
        let DeValue::Array(array) = field.value else { return self.wrong_type(field, expected) };
        self.bounded(field, array, values_max)?;
        let mut texts = Vec::new();
        for value in array {
            let line = self.line_of(value.span().start);
            let inside = Field { line, value: value.get_ref(), ..field };
            match inside.value {
                DeValue::String(text) => texts.push((line, text.to_string())),
                _ => return self.wrong_type(inside, expected),
            }
        }
        Some(texts)
    }

    /// A list of names, each of which `known` turns into something; `expected` are those that it can.
    pub(crate) fn listed<T: PartialEq>(
        &mut self,
        field: Field<'_, 't>,
        values_max: usize,
        expected: &[&str],
        known: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let mut values = Vec::new();
        for (line, text) in self.texts(field, values_max)? {
            match known(&text) {
                Some(value) if values.contains(&value) => {
                    self.wrong(line, format!("{} has {text:?} twice", field.key));
                }
                Some(value) => values.push(value),
                None => self.not_one_of(line, field.key, &text, expected),
            }
        }
        Some(values)
    }

    pub(crate) fn not_one_of(&mut self, line: usize, key: &str, got: &str, expected: &[&str]) {
        let got = shown(got);
        self.wrong(line, format!("{key} has {got:?}, expected one of {}", expected.join(", ")));
    }

    /// Always `None`: there is no value.
    pub(crate) fn wrong_type<T>(&mut self, field: Field<'_, 't>, expected: &str) -> Option<T> {
        let got = match field.value {
            DeValue::String(text) => format!("{:?}", shown(text)),
            other => format!("of type {}", other.type_str()),
        };
        self.wrong(field.line, format!("{} is {got}, expected {expected}", field.key));
        None
    }

    fn bounded(&mut self, field: Field<'_, 't>, array: &DeArray<'t>, values_max: usize) -> Option<()> {
        if (1..=values_max).contains(&array.len()) {
            return Some(());
        }
        let got = array.len();
        self.wrong(field.line, format!("{} has {got} values, expected 1 to {values_max}", field.key));
        None
    }
}

/// The beginning of a value, for a message.
fn shown(text: &str) -> String {
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(SHOWN_CHARS_MAX).chain("...".chars()).collect()
}
