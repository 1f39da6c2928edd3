//! A Markdown file as this check sees it: examples to run, what is said about them, links, and commands in the text.

use std::fs;
use std::path::{Path, PathBuf};

/// One file.
pub(crate) struct Document {
    /// Below the repository, as in `docs/faq.md`.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// What the check does, in order.
    pub(crate) parts: Vec<Part>,
    /// Lines of the text that are in no fence, with their numbers.
    pub(crate) prose: Vec<(usize, String)>,
    /// Fences that are not run, with the number of their first line.
    fences: Vec<(usize, String)>,
    pub(crate) problems: Vec<String>,
}

/// One step of a page.
pub(crate) enum Part {
    Setup(String),
    At(String),
    Carry { file: String, from: String },
    Example { line: usize, text: String, exit: u8, needs: Option<String> },
    Wait { times: usize, text: String },
    Output { line: usize, text: String },
    File { name: String, text: String },
}

/// What the next fence is.
#[derive(Default)]
struct Expected {
    exit: u8,
    output: bool,
    file: Option<String>,
    needs: Option<String>,
}

impl Document {
    pub(crate) fn read(root: &Path, path: &Path) -> Self {
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        Self::parse(name, path.to_owned(), fs::read_to_string(path).unwrap())
    }

    pub(crate) fn parse(name: String, path: PathBuf, text: String) -> Self {
        let (parts, prose, fences, problems) = Default::default();
        let mut document = Self { name, path, text, parts, prose, fences, problems };
        let text = document.text.clone();
        let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
        let mut expected = Expected::default();
        while let Some((number, line)) = lines.next() {
            let indent = line.len() - line.trim_start().len();
            if let Some(kind) = line.trim_start().strip_prefix("```") {
                let inside = lines.by_ref().take_while(|(_, line)| line.trim() != "```");
                let inside = inside.map(|(_, line)| line.get(indent..).unwrap_or(line.trim_start()));
                let block = inside.map(|line| format!("{line}\n")).collect();
                document.fence(number, kind.trim(), block, std::mem::take(&mut expected));
            } else if let Some(asked) = line.trim().strip_prefix("<!-- docs:").and_then(|rest| rest.strip_suffix("-->"))
            {
                if document.comment(asked.trim(), &mut expected).is_none() {
                    document.problems.push(format!("{}:{number}: {}", document.name, line.trim()));
                }
            } else {
                document.prose.push((number, line.to_owned()));
            }
        }
        document
    }

    fn fence(&mut self, line: usize, kind: &str, text: String, expected: Expected) {
        if let Some(name) = expected.file {
            self.parts.push(Part::File { name, text });
        } else if expected.output {
            self.parts.push(Part::Output { line, text });
        } else if kind == "sh" {
            self.parts.push(Part::Example { line, text, exit: expected.exit, needs: expected.needs });
        } else {
            self.fences.push((line, text));
        }
    }

    /// None: it is no comment that this check knows.
    fn comment(&mut self, asked: &str, expected: &mut Expected) -> Option<()> {
        let (verb, rest) = asked.split_once(' ').unwrap_or((asked, ""));
        match verb {
            "setup" => self.parts.push(Part::Setup(word(rest)?)),
            "at" => self.parts.push(Part::At(word(rest)?)),
            "needs" => expected.needs = Some(word(rest)?),
            "carry" => {
                let (file, from) = rest.split_once(" from ")?;
                self.parts.push(Part::Carry { file: word(file)?, from: word(from)? });
            }
            "exit" => expected.exit = rest.parse().ok()?,
            "file" => expected.file = Some(word(rest)?),
            "output" if rest.is_empty() => expected.output = true,
            "wait" => {
                let (times, text) = rest.split_once(' ')?;
                self.parts.push(Part::Wait { times: times.parse().ok()?, text: text.to_owned() });
            }
            _ => return None,
        }
        Some(())
    }

    /// The command lines of this program that the text mentions, without the ones that are run: line and words.
    pub(crate) fn command_lines(&self) -> Vec<(usize, Vec<String>)> {
        let mut found = Vec::new();
        for (number, code) in inline_code(&self.prose) {
            found.extend(words_of(&code).map(|words| (number, words)));
        }
        for (number, text) in &self.fences {
            let joined = text.replace("\\\n", " ");
            found.extend(joined.lines().filter_map(|line| Some((*number, words_of(line)?))));
        }
        found
    }
}

fn word(text: &str) -> Option<String> {
    let is_word = !text.is_empty() && !text.contains([' ', '/']);
    is_word.then(|| text.to_owned())
}

/// What stands between single backquotes, also over the end of a line of the same paragraph.
fn inline_code(prose: &[(usize, String)]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let (mut open, mut last) = (None::<(usize, String)>, 0);
    for (number, line) in prose {
        if line.trim().is_empty() || *number > last + 1 {
            open = None;
        }
        last = *number;
        for (index, piece) in line.split('`').enumerate() {
            match (&mut open, index) {
                (Some((_, code)), 0) => code.push_str(&format!(" {}", piece.trim())),
                (None, 0) => {}
                (Some(_), _) => found.extend(open.take()),
                (None, _) => open = Some((*number, piece.to_owned())),
            }
        }
    }
    found
}

/// The words behind `staydown` of a command line, up to a comment or to what the shell does with it.
fn words_of(line: &str) -> Option<Vec<String>> {
    let rest = line.trim().trim_start_matches("$ ").strip_prefix("staydown ")?;
    let mut words = Vec::new();
    let (mut word, mut quote) = (String::new(), None);
    for c in rest.chars().chain([' ']) {
        match quote {
            Some(end) if c == end => quote = None,
            Some(_) => word.push(c),
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => {
                let ends = word.starts_with(['#', '|', '>', '<', '&', ';']) || word == "2>&1";
                if ends {
                    return Some(words);
                }
                // Three dots stand for more of the same.
                if !word.is_empty() && word != "..." {
                    words.push(std::mem::take(&mut word));
                }
                word.clear();
            }
            None => word.push(c),
        }
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Document {
        Document::parse("docs/a.md".into(), "docs/a.md".into(), text.to_owned())
    }

    #[test]
    fn examples_outputs_and_comments_are_found_in_order() {
        let page = parsed(
            "# A\n<!-- docs: setup forum -->\n```sh\nstaydown status\n```\n<!-- docs: output -->\n```text\nGREEN\n```\n\
             1. x\n   ```sh\n   a\n     b\n   ```\n<!-- docs: exit 3 -->\n```sh\nfalse\n```\n<!-- docs: sing -->\n",
        );
        assert!(matches!(&page.parts[0], Part::Setup(name) if name == "forum"));
        assert!(matches!(&page.parts[1], Part::Example { line: 3, text, exit: 0, .. } if text == "staydown status\n"));
        assert!(matches!(&page.parts[2], Part::Output { text, .. } if text == "GREEN\n"));
        assert!(matches!(&page.parts[3], Part::Example { text, .. } if text == "a\n  b\n"));
        assert!(matches!(&page.parts[4], Part::Example { exit: 3, .. }));
        assert_eq!((page.parts.len(), page.problems.len()), (5, 1), "{:?}", page.problems);
    }

    #[test]
    fn command_lines_are_found_in_the_text_and_in_blocks_that_are_not_run() {
        let page = parsed(
            "Say `staydown entry show\nITEM` or `x`.\n```console\nstaydown match \\\n  \"a b\" | head\n```\n```sh\nstaydown x\n```\n",
        );
        let found: Vec<_> = page.command_lines().into_iter().map(|(_, words)| words.join("+")).collect();
        assert_eq!(found, ["entry+show+ITEM", "match+a b"]);
        assert_eq!(words_of("staydown submit ... --label L  # c").unwrap(), ["submit", "--label", "L"]);
        assert!(words_of("staydowner x").is_none());
    }
}
