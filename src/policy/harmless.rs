//! What our own company never lists, beside the shipped lists of the admission guard: a file of hashes, one a line.
//!
//! It is about what this node signs, never about what others have signed: those we dispute.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use thiserror::Error;

use super::Problem;
use crate::fields::PROBLEMS_MAX;
use crate::replica::signal::{Alg, Subject, parse_any};

/// Hashes of one file: what a company has in its templates, logos and fonts, many times over. They are held in memory.
pub const HARMLESS_MAX: usize = 100_000;
/// Pictures among them. A submission of a picture is compared with each, and 511 of them may come at once.
pub const HARMLESS_PICTURES_MAX: usize = 1_000;
/// Longer than so many of the longest lines.
pub const HARMLESS_SIZE_MAX: u64 = 16 * 1024 * 1024;

/// Why a file of harmless hashes cannot be used. Whatever was in use stays in use.
#[derive(Debug, Error)]
pub enum HarmlessError {
    /// It cannot be read.
    #[error("cannot read the harmless hashes in {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not understood.
    #[error("{}, {}", path.display(), told(problems))]
    Lines {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, in the order of its lines.
        problems: Vec<Problem>,
    },
}

fn told(problems: &[Problem]) -> String {
    let first = problems.first().map(ToString::to_string).unwrap_or_default();
    match problems.len() {
        0 | 1 => first,
        more => format!("{first} (and {} more)", more - 1),
    }
}

/// The file that the settings name, and whether what stands in it now is in use.
#[derive(Debug, Default)]
pub struct Harmless {
    file: Option<PathBuf>,
    refused: ArcSwapOption<String>,
}

impl Harmless {
    /// Of the file that the settings name, if they name one.
    pub fn of(file: Option<PathBuf>) -> Self {
        Self { file, refused: ArcSwapOption::empty() }
    }

    /// Reads the file. Without one there is nothing in it.
    ///
    /// # Errors
    /// [`HarmlessError`], with the lines that are wrong; [`Harmless::refused`] says so until it is read well.
    pub fn read(&self) -> Result<BTreeSet<Subject>, HarmlessError> {
        let read = self.file.as_deref().map(read).unwrap_or_else(|| Ok(BTreeSet::new()));
        self.refused.store(read.as_ref().err().map(|error| Arc::new(error.to_string())));
        read
    }

    /// Why the file as it is now is not in use, if that is so.
    pub fn refused(&self) -> Option<Arc<String>> {
        self.refused.load_full()
    }
}

fn read(path: &Path) -> Result<BTreeSet<Subject>, HarmlessError> {
    let unreadable = |source| HarmlessError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(HARMLESS_SIZE_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > HARMLESS_SIZE_MAX {
        let what = format!("it has more than {HARMLESS_SIZE_MAX} bytes");
        return Err(unreadable(io::Error::new(io::ErrorKind::InvalidData, what)));
    }
    parse(&text).map_err(|problems| HarmlessError::Lines { path: path.to_owned(), problems })
}

/// Hashes as in `sha256:...`, one a line; `#` begins a comment.
fn parse(text: &str) -> Result<BTreeSet<Subject>, Vec<Problem>> {
    let (mut subjects, mut pictures, mut problems) = (BTreeSet::new(), 0, Vec::new());
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        match parse_any(text) {
            Ok(subject) => {
                let is_picture = subject.known_alg() == Some(Alg::Pdq);
                pictures += usize::from(subjects.insert(subject) && is_picture);
            }
            Err(error) => problems.push(Problem { line, message: error.to_string() }),
        }
        if pictures > HARMLESS_PICTURES_MAX || subjects.len() > HARMLESS_MAX {
            let message = format!(
                "there are more than {HARMLESS_MAX} hashes, or more than {HARMLESS_PICTURES_MAX} of pictures (pdq)"
            );
            problems.push(Problem { line, message });
        }
        if problems.len() >= PROBLEMS_MAX || subjects.len() > HARMLESS_MAX {
            break;
        }
    }
    if problems.is_empty() { Ok(subjects) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_hash_or_a_comment_and_a_wrong_one_is_named() {
        let good = "# our logo\nmd5:900150983cd24fb0d6963f7d28e17f72   # small\n\n 900150983CD24FB0D6963F7D28E17F72\n";
        assert_eq!(parse(good).unwrap().len(), 1, "the same twice is once");
        let problems = parse("md5:12\n# fine\nsha3:00\n").unwrap_err();
        assert_eq!(problems.iter().map(|p| p.line).collect::<Vec<_>>(), [1, 3]);
        assert!(problems[0].message.contains("got 2 characters, expected 32"), "{problems:?}");
        assert_eq!(parse(&"x\n".repeat(1_000)).unwrap_err().len(), PROBLEMS_MAX);
    }

    #[test]
    fn a_file_has_at_most_so_many_hashes() {
        let lines = |n: usize, kind: &str| (0..n).map(|n| format!("{kind}:{n:064x}\n")).collect::<String>();
        assert_eq!(parse(&lines(HARMLESS_MAX, "sha256")).unwrap().len(), HARMLESS_MAX);
        assert!(parse(&lines(HARMLESS_MAX + 1, "sha256")).unwrap_err()[0].message.contains("more than 100000"));
        assert_eq!(parse(&lines(HARMLESS_PICTURES_MAX, "pdq")).unwrap().len(), HARMLESS_PICTURES_MAX);
        assert_eq!(parse(&lines(HARMLESS_PICTURES_MAX + 1, "pdq")).unwrap_err()[0].line, HARMLESS_PICTURES_MAX + 1);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_told_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("harmless.txt");
        assert_eq!(Harmless::of(None).read().unwrap().len(), 0);
        let harmless = Harmless::of(Some(path.clone()));
        assert!(matches!(harmless.read(), Err(HarmlessError::Read { .. })), "a file that is named must exist");
        std::fs::write(&path, "nothing\n").unwrap();
        let why = harmless.read().unwrap_err().to_string();
        assert!(why.contains("harmless.txt, line 1: value: got 7 characters"), "{why}");
        assert_eq!(harmless.refused().as_deref(), Some(&why));
        std::fs::write(&path, "md5:900150983cd24fb0d6963f7d28e17f72\n").unwrap();
        assert_eq!((harmless.read().unwrap().len(), harmless.refused()), (1, None));
    }
}
