//! The policy that is in force on this node: read from its file, swapped whole, counted by rule.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use thiserror::Error;

use super::{DEFAULT_TEXT, Decider, Decision, Found, Policy, Problem};
use crate::clock;
use crate::config::{Config, POLICY_FILE};
use crate::fields::{read_text, summary};
use crate::replica::ids::TimeMs;
use crate::replica::taxonomy::Taxonomy;
use crate::replica::verdict::Verdict;

/// A policy is written by people: a hundred rules with their comments are a quarter of this.
pub const POLICY_SIZE_MAX: u64 = 256 * 1024;

/// Why a policy file cannot be used. Whatever was in force stays in force.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// It cannot be read.
    #[error("cannot read the policy in {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not understood.
    #[error("{}, {}; fix: staydown policy check {}", path.display(), summary(problems), path.display())]
    Rules {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        problems: Vec<Problem>,
    },
}

/// Where a node's policy comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file that the settings name.
    named: Option<PathBuf>,
    /// The file that is used if there is one.
    beside: PathBuf,
}

impl Source {
    /// What the settings say.
    pub fn of(config: &Config) -> Self {
        Self { named: config.policy.file.clone(), beside: config.data.join(POLICY_FILE) }
    }

    /// The text that is to be in force, and its file; without a file the built-in one.
    ///
    /// # Errors
    /// The file cannot be read. One that the settings name must exist.
    pub fn read(&self) -> Result<(Option<PathBuf>, String), PolicyError> {
        let path = self.named.as_ref().unwrap_or(&self.beside);
        match read_file(path) {
            Ok(text) => Ok((Some(path.clone()), text)),
            Err(PolicyError::Read { source, .. })
                if self.named.is_none() && source.kind() == io::ErrorKind::NotFound =>
            {
                Ok((None, DEFAULT_TEXT.to_owned()))
            }
            Err(error) => Err(error),
        }
    }
}

/// The text of a policy file.
///
/// # Errors
/// It cannot be read, is no text, or is larger than [`POLICY_SIZE_MAX`].
pub fn read_file(path: &Path) -> Result<String, PolicyError> {
    read_text(path, POLICY_SIZE_MAX).map_err(|source| PolicyError::Read { path: path.to_owned(), source })
}

/// A policy with what it has decided so far. Counters only: nothing that was looked up is kept.
#[derive(Debug)]
pub struct InForce {
    /// The rules.
    pub policy: Policy,
    /// As they are written.
    pub text: String,
    /// Their file; none: the built-in policy.
    pub file: Option<PathBuf>,
    /// When they came into force.
    pub since: TimeMs,
    counts: Arc<[[AtomicU64; 3]]>,
}

/// How often a rule decided, by the verdict that came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The rule, or what decides where none does.
    pub rule: String,
    /// ALLOW.
    pub allow: u64,
    /// REVIEW, also where a BLOCK was lowered.
    pub review: u64,
    /// BLOCK.
    pub block: u64,
}

impl InForce {
    fn new(policy: Policy, text: String, file: Option<PathBuf>) -> Self {
        let counts = (0..policy.rules().len() + 2).map(|_| Default::default()).collect();
        Self { policy, text, file, since: clock::now(), counts }
    }

    fn read(source: &Source, taxonomy: &Arc<Taxonomy>) -> Result<Self, PolicyError> {
        let (file, text) = source.read()?;
        let path = || file.clone().unwrap_or_else(|| source.beside.clone());
        let policy =
            Policy::parse(&text, taxonomy).map_err(|problems| PolicyError::Rules { path: path(), problems })?;
        Ok(Self::new(policy, text, file))
    }

    /// The same rules, their labels understood by another taxonomy; counters go on.
    fn understood_by(&self, taxonomy: &Arc<Taxonomy>) -> Option<Self> {
        let (text, file, counts) = (self.text.clone(), self.file.clone(), Arc::clone(&self.counts));
        // What labels are called is no mistake in a file, so that one that was understood once always is.
        let policy = Policy::parse(&text, taxonomy).ok()?;
        Some(Self { policy, text, file, since: self.since, counts })
    }

    /// Decides, and counts it.
    pub fn decide(&self, found: &[Found<'_>], truncated: bool) -> Decision {
        let decision = self.policy.decide(found, truncated);
        let column = match decision.verdict {
            Verdict::Allow => 0,
            Verdict::Review => 1,
            Verdict::Block => 2,
        };
        if let Some(row) = self.counts.get(self.row(decision.decider)) {
            row[column].fetch_add(1, Ordering::Relaxed);
        }
        decision
    }

    /// Counts so many lookups that found nothing: what [`InForce::decide`] does for each of them.
    pub fn nothing_matched(&self, count: u64) {
        if let Some(row) = self.counts.get(self.row(Decider::NothingMatches)) {
            row[0].fetch_add(count, Ordering::Relaxed);
        }
    }

    /// How often each rule decided since the policy came into force, in their order.
    pub fn counts(&self) -> Vec<Count> {
        let rules = (0..self.policy.rules().len()).map(Decider::Rule);
        let deciders = [Decider::NothingMatches].into_iter().chain(rules).chain([Decider::NoRule]);
        let count = |decider| {
            let row = self.counts.get(self.row(decider));
            let column = |n: usize| row.map_or(0, |row| row[n].load(Ordering::Relaxed));
            let rule = self.policy.name(decider).to_owned();
            Count { rule, allow: column(0), review: column(1), block: column(2) }
        };
        deciders.map(count).collect()
    }

    fn row(&self, decider: Decider) -> usize {
        match decider {
            // As far as was looked nothing matches; that it is not all is told by the verdict.
            Decider::NothingMatches | Decider::Unfinished => 0,
            Decider::Rule(place) => place + 1,
            Decider::NoRule => self.policy.rules().len() + 1,
        }
    }
}

/// What lookups ask: always one whole policy, and no lock on the way to it.
#[derive(Debug)]
pub struct Standing {
    source: Option<Source>,
    shadow: bool,
    current: ArcSwap<InForce>,
    refused: ArcSwapOption<String>,
    /// Of the forum, as it was last known.
    taxonomy: ArcSwap<Taxonomy>,
    /// Whether one of the forum's was known since the start.
    is_known: AtomicBool,
}

impl Standing {
    /// Reads the policy that the settings name, or the one in the data directory, or the built-in one.
    ///
    /// # Errors
    /// [`PolicyError`], with all that is wrong with the file.
    pub fn load(config: &Config) -> Result<Self, PolicyError> {
        let source = Source::of(config);
        let taxonomy = Arc::new(Taxonomy::built_in());
        let current = ArcSwap::from_pointee(InForce::read(&source, &taxonomy)?);
        let (source, shadow, refused) = (Some(source), config.policy.shadow, ArcSwapOption::empty());
        let (taxonomy, is_known) = (ArcSwap::new(taxonomy), AtomicBool::new(false));
        Ok(Self { source, shadow, current, refused, taxonomy, is_known })
    }

    /// The built-in policy for good, as a node has it that was set up by a program.
    pub fn built_in() -> Self {
        let in_force = InForce::new(Policy::built_in(), DEFAULT_TEXT.to_owned(), None);
        let (source, current, refused) = (None, ArcSwap::from_pointee(in_force), ArcSwapOption::empty());
        let (taxonomy, is_known) = (ArcSwap::from_pointee(Taxonomy::built_in()), AtomicBool::new(false));
        Self { source, shadow: false, current, refused, taxonomy, is_known }
    }

    /// Understands the labels of the rules by another taxonomy. While it is missing, the last one that was known is gone
    /// by: numbers keep their meaning from version to version, and rules that name them keep theirs. Before any was known
    /// no label is: what is built in may be about something else altogether.
    pub fn go_by(&self, taxonomy: &Arc<Taxonomy>) {
        let is_known = taxonomy.why_missing().is_none();
        if !is_known && self.is_known.load(Ordering::Relaxed) {
            return;
        }
        self.is_known.store(is_known, Ordering::Relaxed);
        let before = self.taxonomy.load();
        if before.named() == taxonomy.named() && before.why_missing() == taxonomy.why_missing() {
            return;
        }
        self.taxonomy.store(Arc::clone(taxonomy));
        if let Some(again) = self.in_force().understood_by(taxonomy) {
            self.current.store(Arc::new(again));
        }
    }

    /// Reads the file again. One that cannot be used leaves the old policy in force, and [`Standing::refused`] says so.
    ///
    /// # Errors
    /// [`PolicyError`], with all that is wrong with the file.
    pub fn reload(&self) -> Result<Arc<InForce>, PolicyError> {
        let Some(source) = &self.source else { return Ok(self.in_force()) };
        match InForce::read(source, &self.taxonomy.load()) {
            Ok(read) => {
                let read = Arc::new(read);
                // Counters go on where the rules are those of before.
                let current = self.in_force();
                if current.text == read.text && current.file == read.file {
                    self.refused.store(None);
                    return Ok(current);
                }
                self.current.store(Arc::clone(&read));
                self.refused.store(None);
                Ok(read)
            }
            Err(error) => {
                self.refused.store(Some(Arc::new(error.to_string())));
                Err(error)
            }
        }
    }

    /// The policy for one lookup.
    pub fn in_force(&self) -> Arc<InForce> {
        self.current.load_full()
    }

    /// Whether verdicts are computed and counted, and answered ALLOW.
    pub fn shadow(&self) -> bool {
        self.shadow
    }

    /// Why the file as it is now is not in force, if that is so.
    pub fn refused(&self) -> Option<Arc<String>> {
        self.refused.load_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::cases::Cases;
    use crate::replica::taxonomy::{Facet, Label};

    fn standing(folder: &Path, file: Option<&str>) -> Result<Standing, PolicyError> {
        let mut config = Config::default_in(folder.to_owned());
        config.policy.file = file.map(|name| folder.join(name));
        Standing::load(&config)
    }

    fn rule(name: &str) -> String {
        format!("[[rule]]\nname = \"{name}\"\nverdict = \"REVIEW\"\n")
    }

    #[test]
    fn the_file_is_the_named_one_or_the_one_in_the_data_directory_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let of = |file| standing(folder.path(), file).map(|s| s.in_force().policy.rules()[0].name.clone());
        assert_eq!(of(None).unwrap(), "certified, and nobody lists it");
        std::fs::write(folder.path().join(POLICY_FILE), rule("beside")).unwrap();
        assert_eq!(of(None).unwrap(), "beside");
        let missing = of(Some("named.toml")).unwrap_err();
        assert!(matches!(missing, PolicyError::Read { .. }), "a named file must exist: {missing}");
        std::fs::write(folder.path().join("named.toml"), rule("named")).unwrap();
        assert_eq!(of(Some("named.toml")).unwrap(), "named");
    }

    #[test]
    fn a_bad_file_is_named_with_its_line_and_the_number_of_mistakes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(POLICY_FILE);
        let fails = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            standing(folder.path(), None).unwrap_err().to_string()
        };
        let why = fails(b"\n[[rule]]\nname = \"a\"\nverdict = \"STOP\"\nincident = 1\n");
        let expected = "policy.toml, line 4: verdict has \"STOP\", expected one of ALLOW, REVIEW, BLOCK (and 1 more mistake); fix: staydown policy check ";
        assert!(why.contains(expected), "{why}");
        assert!(fails(&vec![b'#'; 256 * 1024 + 1]).contains("more than 262144 bytes"));
        assert!(fails(&[0xff]).contains("cannot read the policy in "));
    }

    #[test]
    fn a_good_file_takes_effect_and_a_bad_one_leaves_the_old_policy_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(POLICY_FILE);
        let standing = standing(folder.path(), None).unwrap();
        let first = |standing: &Standing| standing.in_force().policy.rules()[0].name.clone();
        std::fs::write(&path, rule("mine")).unwrap();
        standing.reload().unwrap();
        assert_eq!(first(&standing), "mine");
        std::fs::write(&path, "[[rule]]").unwrap();
        assert!(standing.reload().is_err());
        assert_eq!(first(&standing), "mine");
        assert!(standing.refused().unwrap().contains("policy.toml, line 1"));
        std::fs::remove_file(&path).unwrap();
        standing.reload().unwrap();
        assert_eq!((standing.in_force().file.clone(), standing.refused()), (None, None), "the built-in policy again");
    }

    #[test]
    fn verdicts_are_counted_by_rule_until_the_rules_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(POLICY_FILE);
        std::fs::write(&path, "[[rule]]\nname = \"all\"\nverdict = \"BLOCK\"\n").unwrap();
        let standing = standing(folder.path(), None).unwrap();
        let cases =
            "[[case]]\nname = \"c\"\nverdict = \"BLOCK\"\nentry = [{ supported_by = [\"acme\"] }]\n[company.acme]\n";
        let cases = Cases::parse(cases, &Taxonomy::built_in()).unwrap();
        let entries = cases.found_in(&cases.cases[0]);
        standing.in_force().decide(&entries, false);
        standing.in_force().decide(&entries, true);
        standing.in_force().decide(&[], false);
        standing.in_force().decide(&[], true);
        let count = |rule: &str, allow, review, block| Count { rule: rule.to_owned(), allow, review, block };
        let counted =
            [count("nothing matches", 1, 1, 0), count("all", 0, 1, 1), count(crate::policy::NO_RULE, 0, 0, 0)];
        assert_eq!(standing.in_force().counts(), counted);
        standing.reload().unwrap();
        assert_eq!(standing.in_force().counts(), counted, "the rules are the same");
        std::fs::write(&path, rule("all")).unwrap();
        standing.reload().unwrap();
        assert_eq!(standing.in_force().counts()[1], count("all", 0, 0, 0));
    }

    #[test]
    fn rules_are_understood_anew_by_another_taxonomy_and_their_counters_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(POLICY_FILE);
        let of =
            |label: &str| format!("[[rule]]\nname = \"{label}\"\nverdict = \"BLOCK\"\nlabels_any = [\"{label}\"]\n");
        std::fs::write(&path, format!("{}{}", of("symbol"), of("org-example-front"))).unwrap();
        let standing = standing(folder.path(), None).unwrap();
        let warnings = || standing.in_force().policy.warnings().iter().map(ToString::to_string).collect::<Vec<_>>();
        let odd =
            |label: &str| warnings().iter().any(|w| w.contains(&format!("no taxonomy here has the label {label:?}")));
        assert!(odd("org-example-front") && !odd("symbol"), "{:?}", warnings());
        let cases = "[[case]]\nname = \"c\"\nverdict = \"BLOCK\"\nentry = [{ supported_by = [\"acme\"], labels = [\"label-1001\"] }]\n[company.acme]\n";
        let cases = Cases::parse(cases, &Taxonomy::built_in()).unwrap();
        let entries = cases.found_in(&cases.cases[0]);
        let decided = || {
            let in_force = standing.in_force();
            in_force.policy.name(in_force.decide(&entries, false).decider).to_owned()
        };
        assert_eq!(decided(), crate::policy::NO_RULE);
        let mut labels = Taxonomy::built_in().labels().clone();
        labels.remove(&13);
        labels.insert(1001, Label::new("org-example-front", Facet::Producer));
        let new = Arc::new(Taxonomy::new("new-2".into(), labels));
        standing.go_by(&new);
        assert_eq!(decided(), "org-example-front");
        assert!(odd("symbol") && !odd("org-example-front"), "a warning, not a failure");
        standing.go_by(&Arc::new(Taxonomy::missing("newer-3".into(), "it is not here".into())));
        assert_eq!(decided(), "org-example-front", "numbers keep their meaning while names are missing");
        let blocks = standing.in_force().counts().into_iter().map(|count| count.block).sum::<u64>();
        assert_eq!((blocks, standing.in_force().counts().last().unwrap().review), (2, 1));
        std::fs::write(&path, of("org-example-front")).unwrap();
        assert!(standing.reload().unwrap().policy.warnings().is_empty(), "what is read later goes by it too");
    }
}
