//! Tokens: 32 random bytes that a person or a program shows, and that the node knows by their hash.
//!
//! A token is too long to be guessed, so that its plain SHA-256 tells nothing to whoever reads the file; slow hashes are
//! for what people can remember.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use super::scope::{Role, Scopes};
use crate::clock;
use crate::replica::ids::TimeMs;

/// Name of the file with the tokens inside a data directory.
pub const TOKENS_FILE: &str = "access.json";
/// What a token begins with, so that programs that search for leaked secrets know it.
pub const PREFIX: &str = "sdt_";
/// Tokens at once: the people and programs of one company.
pub const TOKENS_MAX: usize = 1_000;
/// Bytes of a name.
pub const NAME_MAX: usize = 64;
/// Days that a token lasts unless something else is said.
pub const DAYS_DEFAULT: u64 = 30;
/// Days that a token may last: whoever forgets one has not left a door open for good.
pub const DAYS_MAX: u64 = 400;
/// A file of [`TOKENS_MAX`] tokens has a tenth of this.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The secret itself. It is written out by [`reveal`](Self::reveal), nowhere else, and is no part of any log line.
pub struct Secret(Zeroizing<String>);

impl Secret {
    fn draw() -> Self {
        let bytes = Zeroizing::new(clock::random::<32>());
        Self(Zeroizing::new(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&*bytes))))
    }

    /// The text that is shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// What the node keeps of a token: SHA-256 of its text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId([u8; 32]);

impl TokenId {
    fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }
}

impl std::fmt::Debug for TokenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0[..4]))
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> Self {
        HEXLOWER.encode(&id.0)
    }
}

impl TryFrom<String> for TokenId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| "a token's hash has 64 lowercase hexadecimal digits".to_owned())
    }
}

/// A token, as the node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its hash.
    #[serde(rename = "sha256")]
    pub id: TokenId,
    /// Whose it is.
    pub name: String,
    /// A person's; none: a program's.
    pub role: Option<Role>,
    /// What it allows.
    pub scopes: Scopes,
    /// When it was made.
    #[serde(rename = "made_ms", with = "times")]
    pub made: TimeMs,
    /// From then on it is worth nothing.
    #[serde(rename = "expires_ms", with = "times")]
    pub expires: TimeMs,
}

mod times {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::replica::ids::TimeMs;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
    pub(super) fn serialize<S: Serializer>(time: &TimeMs, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(time.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TimeMs, D::Error> {
        u64::deserialize(deserializer).map(TimeMs)
    }
}

/// A token that somebody asks for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whose it will be.
    pub name: String,
    /// A person's role; none: a program's, with `scopes`.
    pub role: Option<Role>,
    /// Of a program.
    pub scopes: Scopes,
    /// When it ends.
    pub expires: TimeMs,
}

/// Why there is no such token.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum TokenError {
    #[error("the name {0:?} cannot be one: expected 1 to {NAME_MAX} letters, digits, and . _ - @")]
    Name(String),
    #[error("there is a token called {0:?} already")]
    Taken(String),
    #[error("a token has a role or scopes, got {0}")]
    Scopes(&'static str),
    #[error("the token would end at {0} (Unix milliseconds), expected a time within {DAYS_MAX} days from now")]
    Expires(u64),
    #[error("there are {TOKENS_MAX} tokens, more are not possible")]
    TooMany,
    #[error("cannot use the tokens in {}: {why}", path.display())]
    File { path: PathBuf, why: String },
}

/// All tokens of a node.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    by_id: BTreeMap<TokenId, Token>,
}

impl Tokens {
    /// The tokens in a file; none if there is no file.
    ///
    /// # Errors
    /// It is there, and cannot be read or understood: starting without it would lock everybody out, silently.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let fail = |why: String| TokenError::File { path: path.to_owned(), why };
        let text = match File::open(path) {
            Ok(file) => io::read_to_string(io::Read::take(file, FILE_BYTES_MAX)).map_err(|e| fail(e.to_string()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(fail(error.to_string())),
        };
        let tokens: Vec<Token> = serde_json::from_str(&text).map_err(|e| fail(e.to_string()))?;
        Ok(Self { by_id: tokens.into_iter().map(|token| (token.id, token)).collect() })
    }

    /// Replaces the file as a whole, on stable storage, readable to its owner alone.
    ///
    /// # Errors
    /// The old file stays.
    pub fn write(&self, path: &Path) -> Result<(), TokenError> {
        let fail = |error: io::Error| TokenError::File { path: path.to_owned(), why: error.to_string() };
        let tokens: Vec<_> = self.iter().collect();
        let text = serde_json::to_vec_pretty(&tokens).map_err(|e| fail(e.into()))?;
        let new = path.with_extension("json.new");
        let written = || -> io::Result<()> {
            let mut options = File::options();
            let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        };
        written().map_err(fail)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        let mut tokens: Vec<_> = self.by_id.values().collect();
        tokens.sort_by(|a, b| a.name.cmp(&b.name));
        tokens.into_iter()
    }

    /// The token with this text. Found by its hash: how long that takes tells nothing about any other token.
    pub fn of_secret(&self, secret: &str, now: TimeMs) -> Option<&Token> {
        self.of_id(TokenId::of(secret), now)
    }

    /// The token with this hash, unless it has ended.
    pub fn of_id(&self, id: TokenId, now: TimeMs) -> Option<&Token> {
        self.by_id.get(&id).filter(|token| !token.expires.has_ended(now))
    }

    /// Draws a token.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn make(&mut self, wanted: Wanted, now: TimeMs) -> Result<(Secret, Token), TokenError> {
        // Tokens that have ended make room for others.
        self.by_id.retain(|_, token| !token.expires.has_ended(now));
        let Wanted { name, role, scopes, expires } = wanted;
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"._-@".contains(&c);
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(plain) {
            return Err(TokenError::Name(name));
        }
        if self.by_id.values().any(|token| token.name == name) {
            return Err(TokenError::Taken(name));
        }
        let scopes = match (role, scopes.is_empty()) {
            (Some(role), true) => role.scopes(),
            (None, false) => scopes,
            (Some(_), false) => return Err(TokenError::Scopes("both")),
            (None, true) => return Err(TokenError::Scopes("neither")),
        };
        if expires.has_ended(now) || expires > now.plus(DAYS_MAX * TimeMs::DAY_MS) {
            return Err(TokenError::Expires(expires.0));
        }
        if self.by_id.len() >= TOKENS_MAX {
            return Err(TokenError::TooMany);
        }
        let secret = Secret::draw();
        let token = Token { id: TokenId::of(secret.reveal()), name, role, scopes, made: now, expires };
        self.by_id.insert(token.id, token.clone());
        Ok((secret, token))
    }

    /// Takes one out.
    pub fn remove(&mut self, name: &str) -> Option<Token> {
        let id = self.by_id.values().find(|token| token.name == name)?.id;
        self.by_id.remove(&id)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::access::Scope;

    const NOW: TimeMs = TimeMs(1_795_000_000_000);

    fn program(name: &str) -> Wanted {
        Wanted { name: name.into(), role: None, scopes: Scopes::of(&[Scope::Lookup]), expires: NOW.plus(1_000) }
    }

    #[test]
    fn a_token_is_known_by_its_text_until_it_ends() {
        let mut tokens = Tokens::default();
        let (secret, token) = tokens.make(program("uploads"), NOW).unwrap();
        assert!(secret.reveal().starts_with(PREFIX) && secret.reveal().len() == PREFIX.len() + 43);
        assert_eq!(tokens.of_secret(secret.reveal(), NOW), Some(&token));
        assert_eq!(tokens.of_secret(secret.reveal(), token.expires), None);
        assert_eq!(tokens.of_secret("sdt_", NOW), None);
        let (other, _) = tokens.make(program("other"), NOW).unwrap();
        assert_ne!(other.reveal(), secret.reveal());
    }

    #[test]
    fn what_cannot_be_a_token_is_refused() {
        let mut tokens = Tokens::default();
        tokens.make(program("uploads"), NOW).unwrap();
        for (change, expected) in [
            ((|w| w.name = String::new()) as fn(&mut Wanted), "cannot be one"),
            (|w| w.name = "a b".into(), "cannot be one"),
            (|w| w.name = "<b>".into(), "cannot be one"),
            (|w| w.name = "x".repeat(NAME_MAX + 1), "cannot be one"),
            (|w| w.name = "uploads".into(), "already"),
            (|w| w.role = Some(Role::Viewer), "got both"),
            (|w| w.scopes = Scopes::default(), "got neither"),
            (|w| w.expires = NOW, "within 400 days"),
            (|w| w.expires = NOW.plus(DAYS_MAX * TimeMs::DAY_MS + 1), "within 400 days"),
        ] {
            let mut wanted = program("new");
            change(&mut wanted);
            let why = tokens.make(wanted, NOW).err().unwrap().to_string();
            assert!(why.contains(expected), "{why}, expected {expected}");
        }
    }

    #[test]
    fn tokens_are_bounded_and_those_that_ended_make_room() {
        let mut tokens = Tokens::default();
        for number in 0..TOKENS_MAX {
            tokens.make(program(&format!("t{number}")), NOW).unwrap();
        }
        assert!(matches!(tokens.make(program("more"), NOW), Err(TokenError::TooMany)));
        let later = NOW.plus(1_000);
        let wanted = Wanted { expires: later.plus(1), ..program("more") };
        assert!(tokens.make(wanted, later).is_ok() && tokens.by_id.len() == 1);
    }

    #[test]
    fn the_file_is_its_owners_alone_and_a_damaged_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(TOKENS_FILE);
        let mut tokens = Tokens::read(&path).unwrap();
        let (_, token) = tokens.make(program("uploads"), NOW).unwrap();
        tokens.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Tokens::read(&path).unwrap().iter().collect::<Vec<_>>(), [&token]);
        fs::write(&path, "[{").unwrap();
        assert!(matches!(Tokens::read(&path), Err(TokenError::File { .. })));
    }
}
