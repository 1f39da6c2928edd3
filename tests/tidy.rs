//! The house rules that a compiler does not know: layers (docs/ARCHITECTURE.md), what the replica may not touch, file
//! comments, names and words.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Each file's layer, by the first part of its path below `src/`. A file imports only what stands below it, or beside
/// it where its own module is meant.
const LAYERS: [(&str, u8); 26] = [
    ("replica", 0),
    ("accounts", 1),
    ("clock", 1),
    ("meters", 1),
    ("report", 1),
    ("wire", 1),
    ("access", 2),
    ("answers", 2),
    ("config", 2),
    ("fields", 2),
    ("keys", 2),
    ("matcher", 2),
    ("store", 2),
    ("hashing", 2),
    ("policy", 2),
    ("taxonomy", 2),
    ("engine", 3),
    ("evidence", 3),
    ("telemetry", 3),
    ("net", 4),
    ("metrics", 5),
    ("web", 5),
    ("node", 6),
    ("cli", 7),
    ("main", 8),
    ("lib", 8),
];

/// What would make the replica depend on the machine it runs on, or two replicas differ.
const FORBIDDEN_IN_REPLICA: [(&str, &str); 15] = [
    ("std::fs", "it touches no disk"),
    ("std::net", "it opens no socket"),
    ("std::env", "it does the same on every machine"),
    ("std::thread", "it is one value, folded by one caller"),
    ("std::process", "it is one value, folded by one caller"),
    ("SystemTime", "time is an input"),
    ("Instant", "time is an input"),
    ("tokio", "it waits for nothing"),
    ("tonic", "it has never heard of a network"),
    ("sled", "it has never heard of a store"),
    ("getrandom", "chance is an input"),
    ("rand", "chance is an input"),
    ("HashMap", "its order differs from run to run: use BTreeMap"),
    ("HashSet", "its order differs from run to run: use BTreeSet"),
    ("unsafe", "nothing here needs it"),
];

/// The one file that may say `unsafe`: SIMD behind run-time detection.
const SIMD: &str = "src/replica/index/simd.rs";

/// Modules with these names collect what has no home.
const EMPTY_NAMES: [&str; 6] = ["common", "helper", "helpers", "manager", "types", "utils"];

/// Something that breaks a rule, and where.
struct Finding {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

fn assert_none(rule: &str, findings: &[Finding]) {
    let list: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "{rule}:\n{}", list.join("\n"));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `folder` that end in one of `endings`, with their paths below the package, in order.
fn files(folder: &str, endings: &[&str]) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    walk(&root().join(folder), &mut paths);
    paths.sort();
    let wanted = paths.into_iter().filter(|p| endings.iter().any(|e| p.to_string_lossy().ends_with(e)));
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).unwrap())
    };
    wanted.map(read).collect()
}

fn walk(path: &Path, paths: &mut Vec<PathBuf>) {
    if path.is_file() {
        paths.push(path.to_owned());
    } else if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            walk(&entry.unwrap().path(), paths);
        }
    }
}

/// The text with comments and the contents of strings blanked out; lines keep their numbers.
fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let bytes: Vec<char> = text.chars().collect();
    let mut at = 0;
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
    while at < bytes.len() {
        let rest = &bytes[at..];
        let len = match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => rest.windows(2).position(|w| w == ['*', '/']).map_or(rest.len(), |end| end + 2),
            ['"', ..] => string_len(rest),
            ['\'', '\\', _, '\'', ..] => 4,
            ['\'', _, '\'', ..] => 3,
            _ => 0,
        };
        if len == 0 {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(rest[..len].iter().map(|c| blank(*c)));
            at += len;
        }
    }
    out
}

fn string_len(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// `src/net/tls/dial.rs` is of `net`, `src/node.rs` of `node`.
fn module_of(file: &str) -> &str {
    let below = file.strip_prefix("src/").unwrap_or(file);
    below.split('/').next().unwrap_or(below).trim_end_matches(".rs")
}

/// The modules that a piece of code names behind `crate::` or `staydown::`, each with its line; also of
/// `crate::{a, b::c}`.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for head in ["crate::", "staydown::"] {
        for (at, _) in code.match_indices(head) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let rest = &code[at + head.len()..];
            found.extend(first_names(rest).into_iter().map(|name| (line, name)));
        }
    }
    found
}

/// The first name of a path, or of every path of a braced list.
fn first_names(rest: &str) -> Vec<String> {
    let name =
        |text: &str| -> String { text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let Some(list) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut depth, mut names) = (0_i32, vec![name(list)]);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(name(&list[at + 1..])),
            _ => {}
        }
    }
    names.retain(|n| !n.is_empty());
    names
}

/// Whether `word` stands in `line` as a word of its own.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(part);
        let after = line[at + word.len()..].chars().next().is_some_and(part);
        !before && !after
    })
}

/// The text before its tests: what is under `#[cfg(test)] mod ... {` stands at the foot of a file.
fn without_tests(code: &str) -> &str {
    let at = code.match_indices("#[cfg(test)]").find(|(at, _)| {
        let after = code[at + "#[cfg(test)]".len()..].trim_start();
        after.starts_with("mod ") && after.lines().next().is_some_and(|line| line.trim_end().ends_with('{'))
    });
    at.map_or(code, |(at, _)| &code[..at])
}

#[test]
fn no_file_imports_from_a_layer_above_it() {
    let mut findings = Vec::new();
    for (file, text) in files("src", &[".rs"]) {
        let module = module_of(&file);
        let Some(own) = layer(module) else {
            findings.push(Finding { file, line: 1, what: "has no layer: add it to LAYERS and ARCHITECTURE.md".into() });
            continue;
        };
        // Directly below `src/`, `super::` is the crate too.
        let code = code_only(&text);
        let code = if file.matches('/').count() == 1 { code.replace("super::", "crate::") } else { code };
        for (line, import) in imports(&code) {
            let upward = match layer(&import) {
                Some(theirs) => theirs > own,
                None => false, // a macro or an item of lib.rs
            };
            if upward {
                let theirs = layer(&import).unwrap_or_default();
                let what = format!("{module} (layer {own}) imports {import} (layer {theirs})");
                findings.push(Finding { file: file.clone(), line, what });
            }
        }
    }
    assert_none("a file imports only what stands below it (docs/ARCHITECTURE.md, Layers)", &findings);
}

#[test]
fn files_of_one_layer_do_not_import_each_other_in_a_circle() {
    let mut pairs = std::collections::BTreeMap::new();
    for (file, text) in files("src", &[".rs"]) {
        let module = module_of(&file).to_owned();
        for (line, import) in imports(&code_only(&text)) {
            if import != module && layer(&import).is_some() && layer(&import) == layer(&module) {
                pairs.entry((module.clone(), import)).or_insert((file.clone(), line));
            }
        }
    }
    let circle = |(a, b): &(String, String)| pairs.contains_key(&(b.clone(), a.clone()));
    let findings: Vec<_> = pairs.iter().filter(|(pair, _)| circle(pair)).collect();
    assert!(findings.is_empty(), "modules of one layer import each other: {findings:?}");
}

#[test]
fn the_replica_touches_nothing_outside_itself() {
    let mut findings = Vec::new();
    for (file, text) in files("src/replica", &[".rs"]) {
        for (index, line) in without_tests(&code_only(&text)).lines().enumerate() {
            for (word, why) in FORBIDDEN_IN_REPLICA {
                if word == "unsafe" && file == SIMD {
                    continue;
                }
                if has_word(line, word) {
                    let what = format!("{word} in the replica: {why}");
                    findings.push(Finding { file: file.clone(), line: index + 1, what });
                }
            }
        }
    }
    assert_none("the replica is pure", &findings);
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let mut findings = Vec::new();
    for folder in ["src", "tests", "benches"] {
        for (file, text) in files(folder, &[".rs"]) {
            if !text.starts_with("//! ") {
                findings.push(Finding { file, line: 1, what: "does not begin with a //! comment".into() });
            }
        }
    }
    assert_none("a reader starts at the top (file comment first)", &findings);
}

#[test]
fn names_say_what_a_thing_is() {
    let mut findings = Vec::new();
    for (file, text) in files("src", &[".rs"]) {
        let stem = Path::new(&file).file_stem().unwrap().to_string_lossy().into_owned();
        let folders = Path::new(&file).parent().unwrap().to_string_lossy().into_owned();
        for name in EMPTY_NAMES {
            if stem == name || folders.split('/').any(|folder| folder == name) {
                findings.push(Finding { file: file.clone(), line: 1, what: format!("a module called {name}") });
            }
        }
        for (index, line) in code_only(&text).lines().enumerate() {
            let getter = line.match_indices("fn get_").next().is_some();
            // The generated service traits name their methods after the RPCs, which are GetEntry, GetCharters, ...
            let of_a_service = file.starts_with("src/net/") && line.trim_start().starts_with("async fn get_");
            if getter && !of_a_service {
                let what = "a function called get_...: name what it gives".into();
                findings.push(Finding { file: file.clone(), line: index + 1, what });
            }
            for name in EMPTY_NAMES {
                if has_word(line, &format!("mod {name}")) {
                    findings.push(Finding {
                        file: file.clone(),
                        line: index + 1,
                        what: format!("a module called {name}"),
                    });
                }
            }
        }
    }
    assert_none("one word per thing, and no drawer for odds and ends", &findings);
}

#[test]
fn nothing_is_left_for_later_and_no_package_host_is_named() {
    // Put together here, so that this file does not break its own rule.
    let notes = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|parts| parts.concat());
    let hosts = [["crates", ".io"], ["docs", ".rs"], ["pypi", ".org"], ["static.rust-lang", ".org"]];
    let hosts = hosts.map(|parts| parts.concat());
    let mut all = Vec::new();
    for folder in ["src", "docs", "proto", "tests", "benches", ".ci"] {
        all.extend(files(folder, &[".rs", ".md", ".proto", ".txt", ".toml", "run"]));
    }
    for file in ["README.md", "build.rs", "Cargo.toml", "CHANGELOG.md"] {
        all.extend(files(file, &[file]));
    }
    let mut findings = Vec::new();
    for (file, text) in &all {
        for (index, line) in text.lines().enumerate() {
            let note = notes.iter().find(|note| has_word(line, note));
            let host = hosts.iter().find(|host| line.contains(host.as_str()));
            for what in note.into_iter().chain(host) {
                findings.push(Finding { file: file.clone(), line: index + 1, what: format!("says {what}") });
            }
        }
    }
    assert_none("what is unfinished is an issue, not a note; and the project names no package host", &findings);
}

#[test]
fn this_test_sees_what_it_looks_for() {
    let text = "//! crate::node\nuse crate::{engine::Handle, net};\nlet a = \"crate::cli\"; crate::store::x();\nstd::crate_::y";
    let found = imports(&code_only(text));
    assert_eq!(found, [(2, "engine".into()), (2, "net".into()), (3, "store".into())]);
    assert!(has_word("use std::thread;", "thread") && !has_word("threads", "thread"));
    assert_eq!(module_of("src/net/tls/dial.rs"), "net");
    assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests {\n HashMap }"), "a\n");
}
