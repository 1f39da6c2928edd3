//! What labels mean. Numbers are what is signed and counted; names are how they are shown, so that no digest depends on a
//! taxonomy. A charter names its taxonomy exactly: the built-in one by name and version, one from a file also by the
//! SHA-256 of the file, so that two nodes never mean different things by one charter.

use std::collections::BTreeMap;
use std::fmt;

use super::ids::hex;

/// The taxonomy that this release has built in, as a charter names it.
pub const EXAMPLE: &str = "staydown-example-1";
/// Characters of the name of a taxonomy or label: it stands in lines of tables and in every message about it.
pub const NAME_CHARS_MAX: usize = 64;
/// How a label is shown whose name is not known.
const NAMELESS: &str = "label-";

/// The built-in labels, in the order in which people are shown them.
const LABELS: [(u32, &str, Facet); 14] = [
    (1, "propaganda", Facet::ContentType),
    (2, "recruitment", Facet::Behaviour),
    (3, "incitement", Facet::Behaviour),
    (4, "instruction", Facet::ContentType),
    (5, "financing", Facet::Behaviour),
    (6, "graphic-violence", Facet::ContentType),
    (7, "hostage-taking", Facet::Incident),
    (8, "perpetrator-produced", Facet::Incident),
    (9, "manifesto", Facet::ContentType),
    (10, "praise-of-attack", Facet::Behaviour),
    (11, "livestreamed-attack", Facet::Incident),
    (12, "credible-threat", Facet::Behaviour),
    (13, "symbol", Facet::ContentType),
    (99, "other", Facet::ContentType),
];

/// What a label is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Facet {
    /// What is seen or said.
    ContentType,
    /// Who made it.
    Producer,
    /// What it does, or asks people to do.
    Behaviour,
    /// Which attack it belongs to, or how.
    Incident,
}

impl Facet {
    /// All of them, in the order in which people are shown them.
    pub const ALL: [Self; 4] = [Self::ContentType, Self::Producer, Self::Behaviour, Self::Incident];

    /// Its name in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::ContentType => "content-type",
            Self::Producer => "producer",
            Self::Behaviour => "behaviour",
            Self::Incident => "incident",
        }
    }

    /// The facet of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|facet| facet.name() == name)
    }
}

/// One label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// How people write it.
    pub name: String,
    /// What it is about.
    pub facet: Facet,
    /// The label that it is a kind of.
    pub parent: Option<u32>,
    /// Names that it had, which mean it still.
    pub formerly: Vec<String>,
    /// Nobody says it any more; what was said with it keeps its meaning.
    pub retired: bool,
    /// What it is called in a language, by BCP 47 tag.
    pub titles: BTreeMap<String, String>,
}

impl Label {
    /// A label with nothing but its name.
    pub fn new(name: &str, facet: Facet) -> Self {
        let (formerly, titles) = (Vec::new(), BTreeMap::new());
        Self { name: name.to_owned(), facet, parent: None, formerly, retired: false, titles }
    }
}

/// Labels by number, and by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taxonomy {
    named: String,
    labels: BTreeMap<u32, Label>,
    numbers: BTreeMap<String, u32>,
    missing: Option<String>,
}

/// Why a label cannot be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsayable {
    /// The taxonomy does not have it.
    Unknown,
    /// The taxonomy has it, and nobody says it any more.
    Retired,
    /// What the taxonomy has is not known here.
    Missing,
}

impl Taxonomy {
    /// The labels of a file; `named` is what a charter writes for it. Names and former names are all different.
    pub fn new(named: String, labels: BTreeMap<u32, Label>) -> Self {
        let names = |(number, label): (&u32, &Label)| {
            let all = label.formerly.iter().chain([&label.name]);
            all.map(|name| (name.clone(), *number)).collect::<Vec<_>>()
        };
        let numbers = labels.iter().flat_map(names).collect();
        Self { named, labels, numbers, missing: None }
    }

    /// What this release has built in.
    pub fn built_in() -> Self {
        let labels = LABELS.into_iter().map(|(number, name, facet)| (number, Label::new(name, facet)));
        Self::new(EXAMPLE.to_owned(), labels.collect())
    }

    /// A taxonomy of which only the name is known, and `why` nothing else is.
    pub fn missing(named: String, why: String) -> Self {
        Self { missing: Some(why), ..Self::new(named, BTreeMap::new()) }
    }

    /// As a charter writes it.
    pub fn named(&self) -> &str {
        &self.named
    }

    /// Why its labels are not known here, if they are not.
    pub fn why_missing(&self) -> Option<&str> {
        self.missing.as_deref()
    }

    /// All labels by number, with those that were retired.
    pub fn labels(&self) -> &BTreeMap<u32, Label> {
        &self.labels
    }

    /// The names of the labels that may be said, by number.
    pub fn sayable_names(&self) -> impl Iterator<Item = &str> {
        self.labels.values().filter(|label| !label.retired).map(|label| label.name.as_str())
    }

    /// The name of a label; `label-N` for one that is not known.
    pub fn name(&self, number: u32) -> String {
        self.labels.get(&number).map_or_else(|| format!("{NAMELESS}{number}"), |label| label.name.clone())
    }

    /// What a label is about, if that is known.
    pub fn facet(&self, number: u32) -> Option<Facet> {
        self.labels.get(&number).map(|label| label.facet)
    }

    /// The number of a label that is looked for: by its name, a name that it had, or `label-N`, which any number has.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied().or_else(|| nameless(name))
    }

    /// The number of a label that somebody is about to say.
    ///
    /// # Errors
    /// It would be said into the blue: nobody could tell what it means, or that it means anything still.
    pub fn sayable(&self, name: &str) -> Result<u32, Unsayable> {
        if self.missing.is_some() {
            return Err(Unsayable::Missing);
        }
        let number = self.number(name).filter(|number| self.labels.contains_key(number)).ok_or(Unsayable::Unknown)?;
        if self.labels[&number].retired { Err(Unsayable::Retired) } else { Ok(number) }
    }
}

/// N of `label-N`, in its one spelling.
fn nameless(name: &str) -> Option<u32> {
    let number = name.strip_prefix(NAMELESS)?.parse().ok().filter(|number| *number > 0)?;
    (format!("{NAMELESS}{number}") == name).then_some(number)
}

/// Whether a taxonomy or label may be called so: words of small letters and digits with a hyphen between them, and not as a
/// label without a name is shown.
pub fn is_name(name: &str) -> bool {
    let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= NAME_CHARS_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.split('-').all(word)
        && nameless(name).is_none()
}

/// What a charter writes: `NAME-VERSION`, and for one from a file `@` and the file's SHA-256 in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What the forum calls it.
    pub name: String,
    /// Counts up.
    pub version: u32,
    /// Of the file; none: the release has it built in.
    pub sha256: Option<[u8; 32]>,
}

impl Named {
    /// Reads what a charter writes, in its one spelling.
    pub fn parse(text: &str) -> Option<Self> {
        let (plain, digits) = text.split_once('@').map_or((text, None), |(plain, digits)| (plain, Some(digits)));
        let (name, version) = plain.rsplit_once('-')?;
        let sha256 = match digits {
            None => None,
            Some(digits) => Some(data_encoding::HEXLOWER.decode(digits.as_bytes()).ok()?.try_into().ok()?),
        };
        let named = Self { name: name.to_owned(), version: version.parse().ok()?, sha256 };
        (is_name(name) && named.to_string() == text).then_some(named)
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.name, self.version)?;
        self.sha256.iter().try_for_each(|digest| write!(f, "@{}", hex(digest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut BTreeMap<u32, Label>)) -> Taxonomy {
        let mut labels = Taxonomy::built_in().labels;
        change(&mut labels);
        Taxonomy::new("example-2".into(), labels)
    }

    #[test]
    fn the_built_in_labels_keep_their_numbers_for_ever() {
        let taxonomy = Taxonomy::built_in();
        assert_eq!((taxonomy.labels().len(), taxonomy.named()), (14, EXAMPLE));
        let numbers = ["propaganda", "incitement", "symbol", "other"].map(|name| taxonomy.sayable(name));
        assert_eq!(numbers, [Ok(1), Ok(3), Ok(13), Ok(99)]);
        assert!(Named::parse(EXAMPLE).is_some_and(|named| named.version == 1 && named.sha256.is_none()));
    }

    #[test]
    fn unknown_and_retired_labels_are_found_and_shown_but_not_said() {
        let taxonomy = with(|labels| {
            labels.get_mut(&3).unwrap().retired = true;
            labels.get_mut(&13).unwrap().formerly = vec!["emblem".into()];
        });
        for (name, found, said) in [
            ("symbol", Some(13), Ok(13)),
            ("label-13", Some(13), Ok(13)),
            ("emblem", Some(13), Ok(13)),
            ("incitement", Some(3), Err(Unsayable::Retired)),
            ("label-3", Some(3), Err(Unsayable::Retired)),
            ("label-77", Some(77), Err(Unsayable::Unknown)),
            ("label-077", None, Err(Unsayable::Unknown)),
            ("label-0", None, Err(Unsayable::Unknown)),
            ("label-99999999999", None, Err(Unsayable::Unknown)),
            ("Symbol", None, Err(Unsayable::Unknown)),
        ] {
            assert_eq!((taxonomy.number(name), taxonomy.sayable(name)), (found, said), "{name}");
        }
        assert_eq!([3, 13, 77].map(|number| taxonomy.name(number)), ["incitement", "symbol", "label-77"]);
        assert!(!taxonomy.sayable_names().any(|name| name == "incitement"));
    }

    #[test]
    fn a_taxonomy_that_is_missing_shows_numbers_and_lets_nothing_be_said() {
        let taxonomy = Taxonomy::missing("example-2".into(), "nobody has the file".into());
        assert_eq!((taxonomy.name(13), taxonomy.number("label-13")), ("label-13".to_owned(), Some(13)));
        for name in ["symbol", "label-13"] {
            assert_eq!(taxonomy.sayable(name), Err(Unsayable::Missing));
        }
    }

    #[test]
    fn a_charter_names_a_taxonomy_in_one_way() {
        let file = format!("hash-forum-12@{}", "0a".repeat(32));
        for text in ["staydown-example-1", "a-0", &file] {
            assert_eq!(Named::parse(text).map(|named| named.to_string()).as_deref(), Some(text));
        }
        for wrong in [
            "",
            "a",
            "a-",
            "-1",
            "a-01",
            "a-+1",
            "a--1",
            "A-1",
            "a_b-1",
            "a-4294967296",
            "a-1@",
            "a-1@00",
            &file[..file.len() - 1],
            &file.to_uppercase(),
            &file.replace("0a", "0A"),
            &format!("{file}@"),
        ] {
            assert_eq!(Named::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_are_small_words_with_hyphens() {
        for name in ["a", "org-example-front", "incident-2027-01", "label", "label-x"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "-", "a-", "-a", "a--b", "Ab", "a b", "é", "1a", "label-7", &"a".repeat(NAME_CHARS_MAX + 1)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
