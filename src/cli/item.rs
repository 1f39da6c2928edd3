//! What people ask about: a hash, a web address, or a file whose hashes are computed here and never leave with it.

use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::{Exit, Failure};
use super::{Invocation, show};
use crate::hashing::{self, FileHashes};
use crate::replica::index::frames::QUERY_FRAMES_MAX;
use crate::replica::signal::url::{Canonical, UrlError};
use crate::replica::signal::{self, Alg, PDQ_QUALITY_MIN, Subject};
use crate::replica::vpdq::FRAMES_PER_RECORD_MAX;
use crate::wire::local;

/// One thing that a command is about.
#[derive(Args)]
pub(super) struct ItemArgs {
    /// A hash as in sha256:..., the address of a page as in https://..., or a file: each of its hashes that is listed
    #[arg(value_name = "HASH|URL|FILE", required_unless_present = "account")]
    item: Option<String>,
    /// An account instead, where the forum lists accounts: as in example-video:4711
    #[arg(long, value_name = "PLATFORM:ID", conflicts_with = "item")]
    account: Option<String>,
}

impl ItemArgs {
    /// Reads what is named.
    ///
    /// # Errors
    /// As [`Item::read`].
    pub(super) fn read(&self) -> Result<Item, Failure> {
        match &self.account {
            Some(account) => Ok(Item::account(account)),
            None => Item::read(self.item.as_deref().unwrap_or_default()),
        }
    }
}

/// A hash, the hashes of a file, or an account.
#[derive(Clone, Debug)]
pub(super) enum Item {
    /// Given as a hash, or as the pseudonym of an account.
    Hash(Subject),
    /// `platform:id`, for our own node: it makes the pseudonym.
    Account(String),
    /// A page, a directory or a host. Its hash is made here; only a lookup needs it in clear, at our own node.
    Address(Box<Canonical>),
    /// Computed from a file.
    File(PathBuf, Box<FileHashes>),
}

/// One hash of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hash {
    /// `sha256` and the like.
    pub(super) type_name: String,
    /// In normal form.
    pub(super) value: String,
    /// Of a PDQ hash that was computed here.
    pub(super) quality: Option<u32>,
}

impl Hash {
    /// As the local service takes it.
    pub(super) fn signal(&self) -> local::Signal {
        local::Signal { r#type: self.type_name.clone(), value: self.value.clone() }
    }

    /// As people are shown it.
    pub(super) fn short(&self) -> String {
        show::signal(&self.type_name, &self.value)
    }

    /// A PDQ hash that says too little about its picture to be listed or looked up.
    pub(super) fn is_poor(&self) -> bool {
        self.quality.is_some_and(|quality| quality < PDQ_QUALITY_MIN)
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.type_name, self.value)
    }
}

impl Item {
    /// Reads `argument`: `type:value`, a hash whose length says its type, or the path of a file.
    ///
    /// # Errors
    /// It is neither, or the file cannot be hashed.
    pub(super) fn read(argument: &str) -> Result<Self, Failure> {
        if let Some(address) = signal::address_in_clear("", argument).map_err(no_address)? {
            return Ok(Self::Address(Box::new(address)));
        }
        let parsed = signal::parse_any(argument);
        let path = Path::new(argument);
        match parsed {
            Ok(subject) => Ok(Self::Hash(subject)),
            Err(_no_hash) if path.exists() => Self::of_file(path),
            Err(signal::SignalError::NoPseudonym) => {
                Ok(Self::account(argument.split_once(':').map_or(argument, |(_, account)| account)))
            }
            Err(error) => {
                let failure = Failure::new(Exit::Usage, format!("{}: neither a file nor a hash", quoted(argument)));
                let fix = "give the path of a file, a hash as in sha256:..., or an address as in https://...";
                Err(failure.culprit(error.to_string()).fix(fix))
            }
        }
    }

    /// A web address, with or without its scheme, or the hash of an expression.
    ///
    /// # Errors
    /// It is neither.
    pub(super) fn address(text: &str) -> Result<Self, Failure> {
        let address = signal::address_in_clear(Alg::Url.name(), text).map_err(no_address)?;
        match address {
            Some(address) => Ok(Self::Address(Box::new(address))),
            None => signal::parse(Alg::Url.name(), text)
                .map(Self::Hash)
                .map_err(|error| Failure::new(Exit::Usage, format!("--url: {error}"))),
        }
    }

    /// An account as our company knows it, `platform:id`, or its pseudonym with the number of the pepper.
    pub(super) fn account(text: &str) -> Self {
        match signal::parse(Alg::Account.name(), text) {
            Ok(subject) => Self::Hash(subject),
            Err(_no_pseudonym) => Self::Account(text.to_owned()),
        }
    }

    /// Hashes the file at `path`.
    ///
    /// # Errors
    /// It cannot be read, or is a broken image.
    pub(super) fn of_file(path: &Path) -> Result<Self, Failure> {
        Ok(Self::File(path.to_owned(), Box::new(hashing::hash_file(path)?)))
    }

    /// What was asked about, in a line.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Hash(subject) => show::signal(&subject.type_name(), &subject.value()),
            Self::Account(account) => format!("account:{account}"),
            Self::Address(address) => address.expression(),
            Self::File(path, _) => path.display().to_string(),
        }
    }

    /// All its hashes.
    pub(super) fn hashes(&self) -> Vec<Hash> {
        match self {
            Self::Hash(subject) => vec![hash_of(subject, None)],
            Self::Account(account) => {
                vec![Hash { type_name: Alg::Account.name().to_owned(), value: account.clone(), quality: None }]
            }
            Self::Address(address) => vec![hash_of(&address.subject(), None)],
            Self::File(_, hashes) => of_file(hashes),
        }
    }

    /// What a lookup at our own node asks for: of an address itself, for all that may cover it.
    pub(super) fn sought(&self) -> Vec<local::Signal> {
        match self {
            Self::Address(address) => {
                vec![local::Signal { r#type: Alg::Url.name().to_owned(), value: address.expression() }]
            }
            _ => self.looked_up_hashes().iter().filter(|hash| !hash.is_poor()).map(Hash::signal).collect(),
        }
    }

    /// Whether to list it is to list everything on a host on which everybody publishes.
    pub(super) fn is_too_broad(&self) -> bool {
        matches!(self, Self::Address(address) if address.is_too_broad())
    }

    /// Whether to list it is to list everything on a host.
    pub(super) fn is_whole_host(&self) -> bool {
        matches!(self, Self::Address(address) if address.is_whole_host())
    }

    /// What is looked up of it: of a video all frames, where a list has each hash once; of a picture its variants too.
    pub(super) fn looked_up_hashes(&self) -> Vec<Hash> {
        match self {
            Self::File(_, hashes) => looked_up(hashes),
            _ => self.hashes(),
        }
    }

    /// The same; of a picture, to be looked up turned and mirrored too.
    ///
    /// # Errors
    /// As [`Item::of_file`]: the file is read again.
    pub(super) fn in_all_positions(self) -> Result<Self, Failure> {
        match self {
            Self::File(path, hashes) if hashes.image.is_some() => {
                let hashes = Box::new(hashing::hash_file_in_all_positions(&path)?);
                Ok(Self::File(path, hashes))
            }
            other => Ok(other),
        }
    }

    /// Tells why a video is compared by its digests only.
    pub(super) fn tell_of_video(&self, at: &Invocation) {
        if let Self::File(path, hashes) = self
            && let Some(Err(why)) = &hashes.video
        {
            at.terminal.talk(format!("{}: only its digests are used: {why}", path.display()));
        }
    }

    /// Whether it says who posts, not what is posted.
    pub(super) fn is_account(&self) -> bool {
        match self {
            Self::Hash(subject) => subject.known_alg() == Some(Alg::Account),
            Self::Account(_) => true,
            Self::File(..) | Self::Address(_) => false,
        }
    }

    /// Those of its hashes that say enough to be listed or looked up.
    pub(super) fn usable_hashes(&self) -> Vec<Hash> {
        self.hashes().into_iter().filter(|hash| !hash.is_poor()).collect()
    }
}

fn no_address(error: UrlError) -> Failure {
    Failure::new(Exit::Usage, error.to_string()).fix("give an address as in https://example.org/page")
}

/// Records of one video in a lookup: an hour of frames, and room for the other hashes of the file and an account.
const VIDEO_SIGNALS_MAX: usize = QUERY_FRAMES_MAX / FRAMES_PER_RECORD_MAX;

/// The hashes that list a file, the picture's, the document's or the video's first.
pub(super) fn of_file(hashes: &FileHashes) -> Vec<Hash> {
    with_quality(hashes, &hashes.subjects())
}

fn looked_up(hashes: &FileHashes) -> Vec<Hash> {
    let mut all = with_quality(hashes, &hashes.subjects_with(hashes.looked_up_video(VIDEO_SIGNALS_MAX)));
    for variant in &hashes.variants {
        let hash = hash_of(&Subject::of(Alg::Pdq, &variant.hash), Some(u32::from(variant.quality)));
        // A picture that looks the same in the mirror has the same hash there.
        if !all.iter().any(|other| other.signal() == hash.signal()) {
            all.push(hash);
        }
    }
    all
}

fn with_quality(hashes: &FileHashes, subjects: &[Subject]) -> Vec<Hash> {
    let quality = hashes.image.map(|image| u32::from(image.quality));
    let is_picture = |subject: &Subject| subject.known_alg() == Some(Alg::Pdq);
    subjects.iter().map(|subject| hash_of(subject, quality.filter(|_| is_picture(subject)))).collect()
}

fn hash_of(subject: &Subject, quality: Option<u32>) -> Hash {
    Hash { type_name: subject.type_name().into_owned(), value: subject.value(), quality }
}

fn quoted(argument: &str) -> String {
    format!("{:?}", argument.chars().take(80).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_a_file_and_neither_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("note.txt");
        std::fs::write(&path, "abc").unwrap();
        let file = Item::read(path.to_str().unwrap()).unwrap();
        let names: Vec<_> = file.hashes().iter().map(|hash| hash.type_name.clone()).collect();
        assert_eq!(names, ["md5", "sha1", "sha256", "sha512"]);
        assert!(file.hashes()[2].value.starts_with("ba7816bf"));

        for (text, name, signal) in [
            ("account:example:4711", "account:example:4711", "example:4711"),
            ("Account: example:a:b", "account: example:a:b", " example:a:b"),
        ] {
            let account = Item::read(text).unwrap();
            assert!(matches!(account, Item::Account(_)) && account.is_account());
            assert_eq!((account.name().as_str(), account.hashes()[0].signal().value.as_str()), (name, signal));
        }
        let address = Item::read("HTTPS://user@Example.org/videos/./#top").unwrap();
        assert_eq!((address.name().as_str(), address.is_whole_host()), ("example.org/videos/", false));
        assert_eq!(address.sought()[0].value, "example.org/videos/");
        assert!(address.hashes()[0].value.len() == 64 && Item::address("example.org").unwrap().is_whole_host());
        assert!(matches!(Item::address(&address.hashes()[0].value).unwrap(), Item::Hash(_)));
        assert!(Item::address("mailto:a@example.org").is_err() && Item::read("https://").is_err());

        let pseudonym = format!("3:{}", "ab".repeat(32));
        assert!(matches!(Item::account(&pseudonym), Item::Hash(_)) && Item::account(&pseudonym).is_account());

        let hash = Item::read("MD5:900150983CD24FB0D6963F7D28E17F72").unwrap();
        assert_eq!(hash.name(), "md5:900150983cd24fb0d6963f7d28e17f72");

        for (wrong, culprit) in [
            ("no-such-file.jpg", "without a type"),
            ("sha256:abcd", "got 4 characters, expected 64"),
            ("sha3:ab", "expected one of pdq"),
            (&"ab".repeat(32), "pdq or sha256"),
        ] {
            let failure = Item::read(wrong).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.culprits[0].contains(culprit), "{wrong}: {:?}", failure.culprits);
        }
    }

    #[test]
    fn a_picture_is_looked_up_as_it_is_shown_too_and_listed_as_it_is_stored() {
        let picture = |number: u8| {
            let name = format!("tests/vectors/images/orientation-{number}.jpg");
            Item::of_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
        };
        let (plain, turned) = (picture(1), picture(6));
        assert_eq!((plain.hashes().len(), plain.looked_up_hashes().len()), (5, 5));
        let looked_up = turned.looked_up_hashes();
        assert_eq!((turned.hashes().len(), turned.usable_hashes().len(), looked_up.len()), (5, 5, 6));
        assert_eq!((looked_up[5].type_name.as_str(), looked_up[5].quality.is_some()), ("pdq", true));
        assert_eq!(turned.sought().len(), looked_up.iter().filter(|hash| !hash.is_poor()).count());

        let all = plain.clone().in_all_positions().unwrap();
        assert_eq!(all.hashes(), plain.hashes());
        assert_eq!(all.looked_up_hashes().len(), 5 + 7);
        let note = Item::read("md5:900150983cd24fb0d6963f7d28e17f72").unwrap();
        assert_eq!(note.clone().in_all_positions().unwrap().looked_up_hashes(), note.hashes());
    }

    #[test]
    fn a_broken_picture_is_a_bad_input_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cut.png");
        std::fs::write(&path, b"\x89PNG\r\n\x1a\nrest").unwrap();
        assert_eq!(Item::read(path.to_str().unwrap()).unwrap_err().exit, Exit::BadInput);
    }
}
