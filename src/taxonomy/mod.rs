//! The forum's taxonomy as a file that founders write: read with all of its mistakes at once, held against the version
//! before, kept by every node. What labels mean to the rest of the program is in `replica/taxonomy.rs`.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

mod changes;
mod read;
pub mod shelf;
mod write;

pub use self::changes::{Changes, compare};
pub use self::read::{FORMERLY_MAX, LABELS_MAX, TITLE_CHARS_MAX, TITLES_MAX};
pub use self::write::to_toml;
use crate::fields::{Problem, read_text, summary};
use crate::replica::ids::sha256;
use crate::replica::taxonomy::{Named, Taxonomy};

/// A file to begin with: the built-in labels, and invented organisations.
pub const EXAMPLE_TEXT: &str = include_str!("taxonomy-example.toml");
/// Bytes of a taxonomy file: a thousand labels with titles in two languages. It travels in one message between peers.
pub const FILE_SIZE_MAX: u64 = 256 * 1024;

/// A taxonomy file that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaxonomyFile {
    /// As it is written: a charter names these bytes.
    pub text: String,
    /// What a charter writes for it.
    pub named: Named,
    /// Its labels.
    pub taxonomy: Taxonomy,
}

/// Why a taxonomy file cannot be used.
#[derive(Debug, Error)]
pub enum TaxonomyError {
    /// It cannot be read.
    #[error("cannot read the taxonomy in {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not understood.
    #[error("{}, {}; fix: staydown taxonomy check {}", path.display(), summary(problems), path.display())]
    Mistakes {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        problems: Vec<Problem>,
    },
}

impl TaxonomyFile {
    /// Understands a file.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of its lines.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        if text.len() as u64 > FILE_SIZE_MAX {
            let message = format!("the file has {} bytes, expected at most {FILE_SIZE_MAX}", text.len());
            return Err(vec![Problem { line: 1, message }]);
        }
        let read = read::taxonomy(text)?;
        let named = Named { name: read.name, version: read.version, sha256: Some(sha256(&[text.as_bytes()])) };
        let taxonomy = Taxonomy::new(named.to_string(), read.labels);
        Ok(Self { text: text.to_owned(), named, taxonomy })
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`TaxonomyError`], with everything that is wrong with it.
    pub fn read(path: &Path) -> Result<Self, TaxonomyError> {
        let text =
            read_text(path, FILE_SIZE_MAX).map_err(|source| TaxonomyError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|problems| TaxonomyError::Mistakes { path: path.to_owned(), problems })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::taxonomy::Facet;

    #[test]
    fn the_example_follows_the_built_in_taxonomy() {
        let example = TaxonomyFile::parse(EXAMPLE_TEXT).unwrap();
        assert_eq!((example.named.name.as_str(), example.named.version), ("staydown-example", 2));
        let built_in = Taxonomy::built_in();
        let changes = compare(&built_in, &example.taxonomy);
        assert_eq!(changes.refused, Vec::<String>::new());
        for (number, label) in built_in.labels() {
            assert_eq!(
                (example.taxonomy.name(*number), example.taxonomy.facet(*number)),
                (label.name.clone(), Some(label.facet))
            );
        }
        let producers = example.taxonomy.labels().values().filter(|label| label.facet == Facet::Producer);
        assert!(producers.clone().count() > 2);
        assert!(
            producers
                .clone()
                .all(|label| label.name.starts_with("org-example-") || label.name.starts_with("producer-"))
        );
    }

    #[test]
    fn a_file_is_named_by_its_bytes() {
        let named = |text: &str| TaxonomyFile::parse(text).unwrap().named;
        let (plain, more) = (named(EXAMPLE_TEXT), named(&format!("{EXAMPLE_TEXT}\n")));
        assert_ne!(plain.sha256, more.sha256);
        assert_eq!(Named::parse(&plain.to_string()), Some(plain));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let example = TaxonomyFile::parse(EXAMPLE_TEXT).unwrap();
        let again = TaxonomyFile::parse(&to_toml(&example.taxonomy)).unwrap();
        assert_eq!(again.taxonomy.labels(), example.taxonomy.labels());
    }

    #[test]
    fn a_file_has_at_most_so_many_bytes_and_labels() {
        let padded = |size: usize| format!("{EXAMPLE_TEXT}{}", "#".repeat(size - EXAMPLE_TEXT.len()));
        let most = usize::try_from(FILE_SIZE_MAX).unwrap();
        assert!(TaxonomyFile::parse(&padded(most)).is_ok());
        assert!(TaxonomyFile::parse(&padded(most + 1)).unwrap_err()[0].message.contains("262145 bytes"));
        let labels = |n: usize| {
            let label = |i| format!("[[label]]\nnumber = {}\nname = \"l{i}\"\nfacet = \"incident\"\n", i + 1);
            TaxonomyFile::parse(&format!("name = \"x\"\nversion = 1\n{}", (0..n).map(label).collect::<String>()))
        };
        assert!(labels(LABELS_MAX).is_ok());
        assert!(labels(LABELS_MAX + 1).unwrap_err()[0].message.contains("at most 1000"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.toml");
        std::fs::write(&path, padded(most + 1)).unwrap();
        assert!(matches!(TaxonomyFile::read(&path), Err(TaxonomyError::Read { .. })));
    }
}
