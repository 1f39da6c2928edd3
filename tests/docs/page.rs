//! A page, gone through from its top, as a reader would.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use crate::markdown::{Document, Part};
use crate::output;
use crate::shell::Machine;

/// Where a reader sits unless the page says otherwise.
const HERE: &str = "here";
/// Names under which a page speaks of its machines: this one, and those of companies.
const LOOPBACK: &str = "127.0.0.1";
const DOMAIN: &str = ".example.org";

/// A page while it is gone through.
struct Page<'a> {
    document: &'a Document,
    machines: BTreeMap<String, Machine>,
    at: String,
    /// The last example was left out, as this machine lacks a program.
    left_out: bool,
}

/// Goes through a page.
///
/// # Errors
/// The first thing that does not do what it says, with its line.
pub(crate) fn run(document: &Document) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let mut names = vec![HERE.to_owned()];
    names.extend(document.parts.iter().filter_map(|part| match part {
        Part::At(name) => Some(name.clone()),
        _ => None,
    }));
    let ports = ports(document);
    let machines = names.into_iter().map(|name| (name.clone(), Machine::start(folder.path(), &name, &ports)));
    let mut page = Page { document, machines: machines.collect(), at: HERE.to_owned(), left_out: false };
    document.parts.iter().try_for_each(|part| page.step(part))
}

/// Whether a program of this name runs here.
fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Page<'_> {
    fn step(&mut self, part: &Part) -> Result<(), String> {
        match part {
            Part::At(name) => {
                self.at.clone_from(name);
                Ok(())
            }
            Part::Carry { file, from } => {
                let (there, here) = (self.machines[from].home.join(file), self.machine().home.join(file));
                let carried = fs::copy(&there, here).map(drop);
                carried.map_err(|error| format!("{}: carry {file} from {from}: {error}", self.document.name))
            }
            Part::Setup(name) => {
                let path = crate::root().join("tests/docs/setup").join(format!("{name}.sh"));
                let text = fs::read_to_string(path).map_err(|error| format!("setup {name}: {error}"))?;
                self.example(&format!("setup {name}"), &text, 0)
            }
            Part::File { name, text } => {
                let written = fs::write(self.machine().home.join(name), self.as_here(text));
                written.map_err(|error| format!("{}: file {name}: {error}", self.document.name))
            }
            Part::Example { line, text, exit, needs } => {
                self.left_out = needs.as_ref().is_some_and(|program| !is_there(program));
                if !self.left_out {
                    return self.example(&format!("line {line}"), text, *exit);
                }
                let what = format!("{} line {line} wants {needs:?}, which is missing", self.document.name);
                if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
                    return Err(what);
                }
                eprintln!("left out: {what}");
                Ok(())
            }
            Part::Wait { .. } | Part::Output { .. } if self.left_out => Ok(()),
            Part::Wait { times, text } => {
                let waited = self.machine().wait(|written| written.matches(text.as_str()).count() >= *times);
                waited.map_err(|got| format!("{}: no {times} times {text:?} in:\n{got}", self.document.name))
            }
            Part::Output { line, text } => {
                let waited = self.machine().wait(|written| output::fits(text, &self.as_on_the_page(written)));
                waited.map_err(|got| {
                    let got = self.as_on_the_page(&got);
                    format!("{} line {line}: shown is\n{text}\nwritten was\n{got}", self.document.name)
                })
            }
        }
    }

    fn machine(&self) -> &Machine {
        &self.machines[&self.at]
    }

    fn example(&mut self, place: &str, text: &str, exit: u8) -> Result<(), String> {
        let text = self.as_here(text);
        let machine = self.machines.get_mut(&self.at).unwrap();
        machine.run(&text, exit).map_err(|why| format!("{} {place} {why}\nof:\n{text}", self.document.name))
    }

    /// The names and ports of a page, each with what they are here.
    fn sockets(&self) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        for port in ports(self.document) {
            pairs.push((format!("{LOOPBACK}:{port}"), self.machine().socket(port)));
            for (name, machine) in &self.machines {
                pairs.push((format!("{name}{DOMAIN}:{port}"), machine.socket(port)));
            }
        }
        pairs
    }

    fn as_here(&self, text: &str) -> String {
        self.sockets().iter().fold(text.to_owned(), |text, (shown, here)| text.replace(shown, here))
    }

    fn as_on_the_page(&self, text: &str) -> String {
        self.sockets().iter().fold(text.to_owned(), |text, (shown, here)| text.replace(here, shown))
    }
}

/// The ports that a page names, and those that follow from them: a node's own people come to the port after its peers'.
fn ports(document: &Document) -> Vec<u16> {
    let mut found = vec![7700, 7701, 7710, 7711, 7720, 7721, 7730, 7731];
    for name in [LOOPBACK, DOMAIN] {
        for (at, _) in document.text.match_indices(&format!("{name}:")) {
            let digits = document.text[at + name.len() + 1..].chars().take_while(char::is_ascii_digit);
            found.extend(digits.collect::<String>().parse::<u16>().ok());
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}
