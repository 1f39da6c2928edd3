//! Accounts as the forum lists them: by pseudonyms under a pepper that only members hold (PROTOCOL section 10). What an
//! account is called is turned into its pseudonym here, at the company that knows it, and goes no further.

pub mod sealing;

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

pub use self::sealing::{Pepper, SealSecret};
use crate::replica::charter::Charter;
use crate::replica::ids::{ForumId, MemberId};
use crate::replica::signal::{Alg, KIND_ACCOUNT, Subject};

/// Characters of a platform's name: what people call a service, in one or two words.
pub const PLATFORM_CHARS_MAX: usize = 32;
/// Bytes of an account's identifier: the longest that platforms give have about a hundred.
pub const ACCOUNT_ID_BYTES_MAX: usize = 256;

/// An account of a platform, in the one form that all members compute with. Its messages and its `Debug` do not show
/// which one.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    platform: String,
    id: Zeroizing<String>,
}

impl Account {
    /// Reads `platform:id`. The platform is lower-cased; the identifier loses the white space around it and is brought
    /// into Unicode's NFC, in which one text has one spelling. Its case stays: platforms that look at it would else have
    /// two accounts under one pseudonym.
    ///
    /// # Errors
    /// [`AccountError`]: what was expected; never what the identifier was.
    pub fn parse(text: &str) -> Result<Self, AccountError> {
        let (platform, id) = text.split_once(':').ok_or(AccountError::Form)?;
        let platform = platform.trim().to_ascii_lowercase();
        if !is_platform(&platform) {
            return Err(AccountError::Platform { got: platform.chars().take(PLATFORM_CHARS_MAX).collect() });
        }
        if id.len() > ACCOUNT_ID_BYTES_MAX {
            return Err(AccountError::IdLength { got: id.len() });
        }
        let id: Zeroizing<String> = Zeroizing::new(id.trim().nfc().collect());
        if id.is_empty() {
            return Err(AccountError::IdLength { got: 0 });
        }
        if id.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(AccountError::IdCharacters);
        }
        Ok(Self { platform, id })
    }

    /// The platform that the account is of.
    pub fn platform(&self) -> &str {
        &self.platform
    }

    /// What the forum calls it under `pepper`: `HMAC-SHA-256(pepper, platform || 0x00 || id)`.
    pub fn pseudonym(&self, id: u32, pepper: &Pepper) -> Subject {
        let digest = keyed(pepper, &[self.platform.as_bytes(), &[0], self.id.as_bytes()]);
        Subject::new(KIND_ACCOUNT, Alg::Account.number(), id, &digest)
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Account({}:...)", self.platform)
    }
}

/// A submitter's own key for what it says of an account, as it may stand in a record: a program that derives its keys
/// from what it submits would else publish a hash of the account that needs no pepper to be guessed.
pub fn client_key(key: &[u8], pepper: &Pepper) -> [u8; 16] {
    let mut made = [0; 16];
    // No platform begins with this byte.
    made.copy_from_slice(&keyed(pepper, &[&[0xff], key])[..16]);
    made
}

fn keyed(pepper: &Pepper, parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes a key of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(pepper.as_bytes()) else { return [0; 32] };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// Lower-case words of ASCII letters and digits with a hyphen between them, the first beginning with a letter. A digit
/// there would look like a pepper's number.
fn is_platform(name: &str) -> bool {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= PLATFORM_CHARS_MAX
        // `account:account:x` could be meant either way.
        && name != Alg::Account.name()
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.split('-').all(word)
}

/// Why a text names no account. Nothing of the identifier is repeated: errors are logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// There is no colon in it.
    #[error("value: expected platform:id, as in example-video:4711, or a pseudonym as in 3:... with 64 digits")]
    Form,
    /// The platform has another shape.
    #[error(
        "value: got the platform {got:?}, expected at most {PLATFORM_CHARS_MAX} of a-z and 0-9, words joined by hyphens, beginning with a letter"
    )]
    Platform {
        /// The name, cut to the longest one.
        got: String,
    },
    /// Nothing stands behind the colon, or too much.
    #[error("value: got an account id of {got} bytes, expected 1 to {ACCOUNT_ID_BYTES_MAX}")]
    IdLength {
        /// Bytes that were given.
        got: usize,
    },
    /// It is more than one word.
    #[error("value: the account id has white space or control characters in it, expected none")]
    IdCharacters,
}

/// Why a pepper that lives cannot be used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    /// Our roles do not deal with accounts.
    Roles,
    /// The charter has no seal key of ours.
    NoSealKey,
    /// The charter has no copy for us.
    NoCopy,
    /// None of our keys opens our copy.
    OtherKey,
}

/// The peppers of a charter, as far as this member can open them.
#[derive(Debug, Default)]
pub struct Peppers {
    /// Those that are open, by their ids.
    pub open: BTreeMap<u32, Pepper>,
    /// Those that are not.
    pub shut: BTreeMap<u32, Shut>,
}

impl Peppers {
    /// Opens what `charter` has sealed to `me`, by any of `secrets`.
    pub fn of(charter: &Charter, forum: ForumId, me: MemberId, secrets: &[SealSecret]) -> Self {
        let mut peppers = Self::default();
        let has_key = charter.member(me).is_some_and(|m| m.seal_key.is_some());
        let deals = charter.member(me).is_some_and(|m| m.roles.deal_with_accounts());
        for (id, copies) in &charter.peppers {
            let place = sealing::Place { forum, pepper: *id, member: me };
            let copy = copies.get(&me);
            match copy.and_then(|copy| secrets.iter().find_map(|secret| sealing::open(copy, &place, secret))) {
                Some(pepper) => drop(peppers.open.insert(*id, pepper)),
                None => {
                    let why = match (copy, has_key) {
                        (Some(_), _) => Shut::OtherKey,
                        (None, _) if !deals => Shut::Roles,
                        (None, true) => Shut::NoCopy,
                        (None, false) => Shut::NoSealKey,
                    };
                    peppers.shut.insert(*id, why);
                }
            }
        }
        peppers
    }

    /// The pepper under which accounts are listed from now on, or why it cannot be used; `None`: the charter has none.
    pub fn newest(&self) -> Option<Result<(u32, &Pepper), Shut>> {
        let open = self.open.last_key_value().map(|(id, pepper)| (*id, pepper));
        let shut = self.shut.last_key_value().map(|(id, why)| (*id, *why));
        match (open, shut) {
            (Some((id, pepper)), shut) if shut.is_none_or(|(other, _)| other < id) => Some(Ok((id, pepper))),
            (_, shut) => shut.map(|(_, why)| Err(why)),
        }
    }

    /// What `account` is called under every pepper that is open, the newest first.
    pub fn pseudonyms(&self, account: &Account) -> Vec<Subject> {
        self.open.iter().rev().map(|(id, pepper)| account.pseudonym(*id, pepper)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::charter::SealKey;
    use crate::replica::testing::{AUDITOR, FULL, TestForum, id, with_peppers};

    fn pepper(number: u8) -> Pepper {
        Pepper::from_bytes([number; 32])
    }

    #[test]
    fn a_pseudonym_is_the_hmac_of_platform_and_id() {
        let subject = Account::parse("example-video:4711").unwrap().pseudonym(3, &pepper(7));
        let expected = keyed(&pepper(7), &[b"example-video\x004711"]);
        assert_eq!((subject.kind(), subject.alg(), subject.param()), (3, 9, 3));
        assert_eq!(subject.digest(), expected);
        assert_eq!(subject.value(), format!("3:{}", PYTHON_HMAC));
    }

    /// Computed with the module `hmac` of Python.
    const PYTHON_HMAC: &str = "542a14f6477f73f5c7e1be2b918eb348951c1f43b77e1aed2db02eebbce68d1e";

    #[test]
    fn spellings_of_one_account_have_one_pseudonym_and_different_accounts_never() {
        let of = |text: &str| Account::parse(text).unwrap().pseudonym(1, &pepper(1));
        let account = of("example:Zoë");
        for same in ["example:Zoe\u{308}", " EXAMPLE :  Zoë\n", "Example:Zoë"] {
            assert_eq!(of(same), account, "{same:?}");
        }
        for other in ["example:zoë", "example:Zoe", "example-b:Zoë", "exampl:eZoë", "example:Zoë:"] {
            assert_ne!(of(other), account, "{other:?}");
        }
        // A colon belongs to the id, and the platform ends at the first.
        assert_eq!(of("example:a:b"), of("example: a:b "));
        let text = Account::parse("example:a").unwrap();
        assert_ne!(text.pseudonym(1, &pepper(1)).digest(), text.pseudonym(1, &pepper(2)).digest());
    }

    #[test]
    fn what_names_no_account_is_refused_without_repeating_it() {
        let long = format!("example:{}", "x".repeat(ACCOUNT_ID_BYTES_MAX + 1));
        for (text, expected) in [
            ("topsecret", "expected platform:id"),
            ("-x:topsecret", "got the platform \"-x\""),
            ("a--b:topsecret", "words joined by hyphens"),
            ("3x:topsecret", "beginning with a letter"),
            ("exämple:topsecret", "a-z and 0-9"),
            ("example:", "of 0 bytes"),
            ("example: \n", "of 0 bytes"),
            ("example:top secret", "white space or control"),
            ("example:top\u{0}secret", "white space or control"),
            (&long, "of 257 bytes, expected 1 to 256"),
            (&format!("{}:topsecret", "p".repeat(33)), "at most 32"),
        ] {
            let error = Account::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}, expected {expected}");
        }
        let fits = format!("{}:{}", "p".repeat(PLATFORM_CHARS_MAX), "x".repeat(ACCOUNT_ID_BYTES_MAX));
        assert!(Account::parse(&fits).is_ok());
        assert_eq!(format!("{:?}", Account::parse("example:topsecret").unwrap()), "Account(example:...)");
    }

    #[test]
    fn a_client_key_is_the_same_for_the_same_key_and_pepper_only() {
        let key = client_key(&[1; 16], &pepper(1));
        assert_eq!(key, client_key(&[1; 16], &pepper(1)));
        assert!(key != client_key(&[2; 16], &pepper(1)) && key != client_key(&[1; 16], &pepper(2)));
    }

    #[test]
    fn a_member_opens_what_is_sealed_to_it_and_is_told_what_is_not() {
        let secrets = [SealSecret::from_bytes([1; 32]), SealSecret::from_bytes([2; 32])];
        let key = |n: usize| secrets[n].public().unwrap();
        let forum = ForumId([5; 32]);
        let sealed = |pepper_id: u32, key: &SealKey| {
            let place = sealing::Place { forum, pepper: pepper_id, member: id(1) };
            let copy = sealing::seal(&pepper(u8::try_from(pepper_id).unwrap()), &place, key, [9; 32]).unwrap();
            bytes::Bytes::copy_from_slice(&copy)
        };
        let of_roles = |roles: u32, listed: bool| {
            let mut charter = TestForum::with(&[("a", roles)], |c| with_peppers(c, &[2, 4, 6])).charter();
            for (id_, copy) in [(2, Some(sealed(2, &key(0)))), (4, Some(sealed(4, &key(1)))), (6, None)] {
                let copies = charter.peppers.get_mut(&id_).unwrap();
                copies.clear();
                copies.extend(copy.map(|copy| (id(1), copy)));
            }
            if !listed {
                charter.members.get_mut(&id(1)).unwrap().seal_key = None;
            }
            charter
        };
        let charter = |listed: bool| of_roles(FULL, listed);
        let shut = |secrets: &[SealSecret], listed| {
            let peppers = Peppers::of(&charter(listed), forum, id(1), secrets);
            let shut: Vec<_> = peppers.shut.iter().map(|(id, why)| (*id, *why)).collect();
            (peppers.open.len(), shut, peppers.newest().map(|newest| newest.map(|(id, _)| id)))
        };
        assert_eq!(shut(&secrets, true), (2, vec![(6, Shut::NoCopy)], Some(Err(Shut::NoCopy))));
        assert_eq!(shut(&secrets[..1], false).1, [(4, Shut::OtherKey), (6, Shut::NoSealKey)]);
        assert_eq!(shut(&[], true).0, 0);
        let auditor = Peppers::of(&of_roles(AUDITOR, true), forum, id(1), &secrets);
        assert_eq!((auditor.open.len(), auditor.shut[&6]), (2, Shut::Roles));
        let mut rotated = charter(true);
        rotated.peppers.remove(&6);
        let peppers = Peppers::of(&rotated, forum, id(1), &secrets);
        assert_eq!(peppers.newest().unwrap().unwrap().0, 4);
        let account = Account::parse("example:a").unwrap();
        let params: Vec<_> = peppers.pseudonyms(&account).iter().map(Subject::param).collect();
        assert_eq!(params, [4, 2], "the newest first");
        assert!(Peppers::default().newest().is_none());
    }
}
