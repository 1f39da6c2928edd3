//! `taxonomy`: what labels mean. `show` and `export` ask the node; `check` needs none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::charter::current_chain;
use super::client::Node;
use super::failure::{Exit, Failure, Outcome};
use super::{Invocation, show};
use crate::answers;
use crate::replica::taxonomy::{Facet, Label, Named, Taxonomy};
use crate::taxonomy::{EXAMPLE_TEXT, TaxonomyError, TaxonomyFile, compare, shelf, to_toml};
use crate::wire::files;
use crate::wire::local;

#[derive(Subcommand)]
pub(super) enum TaxonomyCommand {
    /// Show the labels that the forum knows, by what they are about
    Show,
    /// Find every mistake in a taxonomy file, with its line
    Check {
        /// The file
        file: PathBuf,
        /// The version before it, to hear what changes and what may not [default: none]
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
    },
    /// Write the forum's taxonomy as a file, to draw up the next version from
    Export {
        /// The file [default: stdout]
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// An example with invented organisations instead
        #[arg(long)]
        example: bool,
    },
}

pub(super) async fn taxonomy(command: TaxonomyCommand, at: &Invocation) -> Outcome {
    match command {
        TaxonomyCommand::Show => shown(at).await,
        TaxonomyCommand::Check { file, against } => check(&file, against.as_deref(), at),
        TaxonomyCommand::Export { out, example } => export(out.as_deref(), example, at).await,
    }
}

impl From<TaxonomyError> for Failure {
    fn from(error: TaxonomyError) -> Self {
        let exit = match &error {
            TaxonomyError::Read { source, .. } if source.kind() != std::io::ErrorKind::NotFound => Exit::Io,
            _ => Exit::BadInput,
        };
        Self::new(exit, error.to_string())
    }
}

/// What the node knows of labels, and the file that it knows it from.
pub(super) struct OfNode {
    pub(super) taxonomy: Taxonomy,
    /// Empty: it is built in, or missing.
    pub(super) file: bytes::Bytes,
}

/// Asks a running node.
///
/// # Errors
/// What the node answers.
pub(super) async fn of_node(node: &Node) -> Result<OfNode, Failure> {
    let answer = node.taxonomy(local::GetTaxonomyRequest {}).await?;
    let taxonomy = if answer.missing.is_empty() {
        let numbers: BTreeMap<_, _> = answer.labels.iter().map(|label| (label.name.clone(), label.number)).collect();
        let label = |label: local::TaxonomyLabel| {
            let facet = Facet::from_name(&label.facet)?;
            let titles = label.titles.into_iter().map(|title| (title.language, title.text)).collect();
            let parent = numbers.get(&label.parent).copied();
            let (name, formerly, retired) = (label.name, label.formerly, label.retired);
            Some((label.number, Label { name, facet, parent, formerly, retired, titles }))
        };
        Taxonomy::new(answer.taxonomy, answer.labels.into_iter().filter_map(label).collect())
    } else {
        Taxonomy::missing(answer.taxonomy, answer.missing)
    };
    Ok(OfNode { taxonomy, file: answer.file })
}

/// What labels mean here: asked of the node if it runs, else what it keeps on disk, else what is built in.
///
/// # Errors
/// The node runs and does not answer.
pub(super) async fn of_this_place(at: &Invocation) -> Result<Taxonomy, Failure> {
    match at.node().await {
        Ok(node) => Ok(of_node(&node).await?.taxonomy),
        Err(failure) if failure.exit == Exit::Unreachable => match current_chain(at).await {
            Ok(chain) => Ok((*shelf::kept(&at.config()?.data, &chain.effective().taxonomy).0).clone()),
            Err(_not_joined) => Ok(Taxonomy::built_in()),
        },
        Err(failure) => Err(failure),
    }
}

/// The file of the taxonomy in force; empty: it is built in, or missing here.
///
/// # Errors
/// The node runs and does not answer.
pub(super) async fn file_of_this_place(at: &Invocation) -> Result<bytes::Bytes, Failure> {
    match at.node().await {
        Ok(node) => Ok(of_node(&node).await?.file),
        Err(failure) if failure.exit == Exit::Unreachable => {
            let named = current_chain(at).await?.effective().taxonomy.clone();
            Ok(shelf::kept(&at.config()?.data, &named).1.unwrap_or_default())
        }
        Err(failure) => Err(failure),
    }
}

async fn shown(at: &Invocation) -> Outcome {
    let OfNode { taxonomy, .. } = of_node(&at.node().await?).await?;
    if at.terminal.json {
        at.terminal.json(&answers::Taxonomy::from(&taxonomy))?;
        return Ok(Exit::Ok);
    }
    at.terminal.talk(format!("Taxonomy {}", show::clean(taxonomy.named())));
    if let Some(why) = taxonomy.why_missing() {
        at.terminal.talk(format!("Its labels are not known to this node: {}", show::clean(why)));
        return Ok(Exit::NotFound);
    }
    for facet in Facet::ALL {
        let of_facet = |parent: Option<u32>| {
            let labels = taxonomy.labels().iter();
            labels.filter(move |(_, label)| label.facet == facet && label.parent == parent)
        };
        if of_facet(None).next().is_some() {
            at.terminal.data(facet.name())?;
        }
        let mut waiting: Vec<_> = of_facet(None).map(|(number, _)| (1, *number)).rev().collect();
        while let Some((depth, number)) = waiting.pop() {
            at.terminal.data(line(&taxonomy, number, depth))?;
            waiting.extend(of_facet(Some(number)).map(|(kind, _)| (depth + 1, *kind)).rev());
        }
    }
    Ok(Exit::Ok)
}

fn line(taxonomy: &Taxonomy, number: u32, depth: usize) -> String {
    let mut text = format!("{}{}  {number}", "  ".repeat(depth), taxonomy.name(number));
    if let Some(label) = taxonomy.labels().get(&number) {
        let title = label.titles.get("en").or_else(|| label.titles.values().next());
        text.extend(title.map(|title| format!("  {title}")));
        text.push_str(if label.retired { "  (retired)" } else { "" });
    }
    show::clean(&text)
}

fn check(path: &Path, against: Option<&Path>, at: &Invocation) -> Outcome {
    let (labels, errors, named, compared) = match TaxonomyFile::read(path) {
        Ok(file) => {
            let before = match against {
                Some(path) => Some(TaxonomyFile::read(path)?.taxonomy),
                None => None,
            };
            let compared = before.map(|before| compare(&before, &file.taxonomy)).unwrap_or_default();
            (file.taxonomy.labels().len(), Vec::new(), file.named.to_string(), compared)
        }
        Err(TaxonomyError::Mistakes { problems, .. }) => (0, problems, String::new(), Default::default()),
        Err(error) => return Err(error.into()),
    };
    let exit = match (errors.is_empty(), compared.refused.is_empty()) {
        (true, true) => Exit::Ok,
        (true, false) => Exit::Refused,
        (false, _) => Exit::BadInput,
    };
    let file = path.display().to_string();
    if at.terminal.json {
        let errors = errors.into_iter().map(|p| answers::PolicyProblem { line: p.line, message: p.message }).collect();
        let (changes, refused) = (compared.lines, compared.refused);
        at.terminal.json(&answers::TaxonomyChecked { file, taxonomy: named, labels, errors, changes, refused })?;
        return Ok(exit);
    }
    for problem in &errors {
        at.terminal.data(show::clean(&format!("{file}, line {}: error: {}", problem.line, problem.message)))?;
    }
    compared.lines.iter().try_for_each(|line| at.terminal.data(show::clean(line)))?;
    compared.refused.iter().try_for_each(|line| at.terminal.data(show::clean(&format!("! {line}"))))?;
    at.terminal.talk(match (errors.len(), compared.refused.len()) {
        (0, 0) => format!("{file}: {}, no mistake; a charter names it {named}", show::counted(labels, "label")),
        (0, refused) => {
            format!("{file}: {} against the version before; no charter may name it", show::counted(refused, "mistake"))
        }
        (mistakes, _) => format!("{file}: {}; no charter can name it", show::counted(mistakes, "mistake")),
    });
    Ok(exit)
}

async fn export(out: Option<&Path>, example: bool, at: &Invocation) -> Outcome {
    let text = if example {
        EXAMPLE_TEXT.to_owned()
    } else {
        let OfNode { taxonomy, file } = of_node(&at.node().await?).await?;
        if let Some(why) = taxonomy.why_missing() {
            return Err(Failure::new(Exit::NotFound, format!("the file of {} is not here: {why}", taxonomy.named())));
        }
        if file.is_empty() { to_toml(&taxonomy) } else { String::from_utf8_lossy(&file).into_owned() }
    };
    match out {
        None => at.terminal.data(text.trim_end())?,
        Some(path) if path.exists() && !at.terminal.yes => {
            let failure = Failure::new(Exit::Refused, format!("{} is already there", path.display()));
            return Err(failure.fix("choose another name with -o, or give --yes to replace it"));
        }
        Some(path) => {
            files::write_text(path, &text)?;
            at.terminal.talk(format!("wrote {}", path.display()));
        }
    }
    Ok(Exit::Ok)
}

/// The taxonomy that a charter names, if it is built in or among `files`; what is not understood is none.
pub(super) fn among(named: &str, files: &[bytes::Bytes]) -> Option<Taxonomy> {
    let built_in = Taxonomy::built_in();
    if built_in.named() == named {
        return Some(built_in);
    }
    let named = Named::parse(named)?;
    files.iter().find_map(|file| shelf::understood(&named, file).ok()).map(|file| file.taxonomy)
}
