//! Links: of each the file must be there, and the heading in it.

use std::fs;
use std::path::Path;

use crate::markdown::Document;

/// What is wrong with the links of a page.
pub(crate) fn broken(document: &Document, root: &Path) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in &document.prose {
        for target in targets(line) {
            if let Err(why) = follow(document, root, target) {
                findings.push(format!("{}:{number}: {target}: {why}", document.name));
            }
        }
    }
    findings
}

/// The targets of `[text](target)` outside of inline code.
fn targets(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let in_code = |at: usize| line[..at].matches('`').count() % 2 == 1;
    for (at, _) in line.match_indices("](") {
        let rest = &line[at + 2..];
        let end = rest.find(')').unwrap_or(rest.len());
        if !in_code(at) {
            found.push(&rest[..end]);
        }
    }
    found
}

fn follow(document: &Document, root: &Path, target: &str) -> Result<(), String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() { document.path.clone() } else { document.path.with_file_name(file) };
    let path = path.canonicalize().map_err(|error| error.to_string())?;
    if !path.starts_with(root.canonicalize().map_err(|error| error.to_string())?) {
        return Err("leads out of the repository".to_owned());
    }
    if heading.is_empty() {
        return Ok(());
    }
    let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
    if headings(&text).iter().any(|known| known == heading) {
        return Ok(());
    }
    Err(format!("there is no heading of this name; there are {}", headings(&text).join(", ")))
}

/// The names under which the headings of a page can be linked to: small letters, hyphens for spaces, and of two equal
/// ones the second with a number.
fn headings(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let title = line.trim_start_matches('#');
        if fenced || title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let name: String = kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect();
        let same = found.iter().filter(|known| **known == name || known.strip_prefix(&name).is_some_and(numbered));
        let same = same.count();
        found.push(if same == 0 { name } else { format!("{name}-{same}") });
    }
    found
}

fn numbered(rest: &str) -> bool {
    rest.strip_prefix('-').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_have_the_names_that_links_give_them() {
        let text = "# The `run` file\n## 2. What, and not\n```\n# no\n```\n## Again\n## Again\n";
        assert_eq!(headings(text), ["the-run-file", "2-what-and-not", "again", "again-1"]);
        assert_eq!(targets("[a](b.md#c), `[x](y)` and [d](e)"), ["b.md#c", "e"]);
    }
}
