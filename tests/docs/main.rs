//! The documentation is tried: every shell example of README.md and docs/ runs, in order, as a reader would paste it;
//! links lead somewhere; command lines that are mentioned are understood.
//!
//! What a reader does not see stands in comments, each on a line of its own:
//!
//! | comment | what it does |
//! | --- | --- |
//! | `<!-- docs: setup NAME -->` | sources `tests/docs/setup/NAME.sh` in the shell of the page |
//! | `<!-- docs: at NAME -->` | from here on the examples are typed at another machine: a shell, a home, an address of its own |
//! | `<!-- docs: carry FILE from NAME -->` | what people send each other: the file is copied here from that machine's home |
//! | `<!-- docs: exit 3 -->` | the next example ends with that code |
//! | `<!-- docs: wait 3 TEXT -->` | until the last example, or what it left running, has written TEXT so often |
//! | `<!-- docs: file NAME -->` | the next block is what a reader puts into that file |
//! | `<!-- docs: output -->` | the next block is what the last example writes; `...` stands for anything |
//! | `<!-- docs: needs PROGRAM -->` | the next example is left out where this program is missing, unless CI is true |
//!
//! Blocks marked `sh` are run. In them, addresses of this machine (127.0.0.1) and of `example.org` become addresses of
//! the loopback network that nobody uses, so that nothing else on the machine is in the way.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "what was left out is said")]

mod links;
mod markdown;
mod output;
mod page;
mod shell;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use markdown::{Document, Part};

/// Pages that are gone through at once: each has up to four nodes.
const READERS: usize = 3;
/// Commands that are tried at once: each is a process.
const TRIED_AT_ONCE: usize = 4;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and all of docs/, in order.
fn documents() -> Vec<Document> {
    let in_docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        in_docs.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect();
    paths.push(root().join("README.md"));
    paths.sort();
    paths.iter().map(|path| Document::read(root(), path)).collect()
}

fn none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n{}", findings.join("\n"));
}

#[test]
fn every_shell_example_runs() {
    let documents = documents();
    let has_examples = |document: &&Document| document.parts.iter().any(|part| matches!(part, Part::Example { .. }));
    let with_examples: Vec<_> = documents.iter().filter(has_examples).collect();
    assert!(with_examples.iter().any(|document| document.name == "README.md"), "README.md has examples");
    // Each page waits for its own nodes most of the time.
    let pages = Mutex::new(with_examples.iter());
    let next = || pages.lock().unwrap().next();
    let gone_through = || std::iter::from_fn(next).filter_map(|page| page::run(page).err()).collect::<Vec<_>>();
    let findings: Vec<String> = thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(gone_through)).collect();
        readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect()
    });
    none("a reader who pastes the examples, in order, gets through", &findings);
}

#[test]
fn links_lead_somewhere() {
    let documents = documents();
    let findings: Vec<_> = documents.iter().flat_map(|document| links::broken(document, root())).collect();
    none("a relative link names a file, and a heading in it", &findings);
}

#[test]
fn every_page_is_in_the_index() {
    let documents = documents();
    let index = documents.iter().find(|document| document.name == "docs/README.md").expect("docs/README.md is there");
    let pages = documents.iter().filter_map(|document| document.name.strip_prefix("docs/"));
    let missing = pages.filter(|page| *page != "README.md" && !index.text.contains(&format!("({page})")));
    none("docs/README.md links to every page", &missing.map(ToOwned::to_owned).collect::<Vec<_>>());
}

/// Commands that ask a person. Behind one, pasted lines would be taken for the answer.
const ASKING: [&str; 8] = [
    "batch undo",
    "charter admit",
    "charter key",
    "charter sign",
    "key rotate --log",
    "log close",
    "member suspend",
    "review undo",
];

#[test]
fn a_command_that_asks_is_the_last_of_its_example() {
    let mut findings = Vec::new();
    for document in documents() {
        for part in &document.parts {
            let Part::Example { line, text, .. } = part else { continue };
            let joined = text.replace("\\\n", " ");
            let lines: Vec<_> = joined.lines().filter(|line| !line.trim().is_empty()).collect();
            let asks = |line: &&&str| {
                ASKING.iter().any(|asking| line.contains(asking))
                    && !["--yes", "--no-passphrase", "--dry-run"].iter().any(|answer| line.contains(answer))
            };
            let all_but_last = lines.iter().take(lines.len().saturating_sub(1));
            findings.extend(all_but_last.filter(asks).map(|asks| format!("{}:{line}: {asks}", document.name)));
        }
    }
    none("what is pasted behind a question answers it", &findings);
}

#[test]
fn comments_for_this_check_are_understood() {
    let documents = documents();
    let findings: Vec<_> = documents.iter().flat_map(|document| document.problems.clone()).collect();
    none("a comment that begins with docs: is one of those that tests/docs/main.rs lists", &findings);
}

#[test]
fn command_lines_that_are_mentioned_are_understood() {
    let mut mentioned: Vec<(String, Vec<String>)> = Vec::new();
    for document in documents() {
        let lines = document.command_lines().into_iter();
        mentioned.extend(lines.map(|(line, words)| (format!("{}:{line}", document.name), words)));
    }
    assert!(mentioned.len() > 100, "{} command lines are few", mentioned.len());
    let parts = mentioned.chunks(mentioned.len().div_ceil(TRIED_AT_ONCE));
    let findings: Vec<String> = thread::scope(|scope| {
        let tried: Vec<_> = parts.map(|part| scope.spawn(move || part.iter().filter_map(refused).collect())).collect();
        tried.into_iter().flat_map(|tried| -> Vec<String> { tried.join().unwrap() }).collect()
    });
    none("a command line in the documentation is one that the program takes", &findings);
}

/// Why the program does not take the words. `--help` behind them: they are parsed, and nothing is done.
fn refused((place, words): &(String, Vec<String>)) -> Option<String> {
    let ran = Command::new(env!("CARGO_BIN_EXE_staydown")).args(words).arg("--help").output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    (!ran.status.success())
        .then(|| format!("{place}: staydown {}: {}", words.join(" "), said.lines().next().unwrap_or("?")))
}
