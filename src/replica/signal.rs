//! Kinds of signal: parsing, normal form, printing, distance, and what may not be listed (SIGNALS.md; PROTOCOL S5).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::LazyLock;

pub mod url;

use self::url::{Canonical, UrlError};
use super::charter::{ACCOUNTS_LEVEL, VIDEOS_LEVEL};
use super::ids::{SubjectId, hex, sha256};
use super::index::tlsh::{self, TLSH_DISTANCE_MAX};
use super::proto;
use super::vpdq::{self, Frame, FramesError};

/// Subject type of files and what is in them.
pub const KIND_CONTENT: u16 = 1;
/// Subject type of web addresses.
pub const KIND_URL: u16 = 2;
/// Subject type of accounts; belongs to semantics level 3.
pub const KIND_ACCOUNT: u16 = 3;

/// Two PDQ hashes at most this many bits apart are of the same picture. Policy may lower it, never raise it.
pub const PDQ_DISTANCE_MAX: u32 = 31;
/// Below this a PDQ hash says too little about its picture, and would match much that is harmless.
pub const PDQ_QUALITY_MIN: u32 = 50;
/// The top of the PDQ quality scale.
pub const PDQ_QUALITY_MAX: u32 = 100;

/// Numbers kept for kinds of signal of later releases: carried, not matched.
const RESERVED: std::ops::RangeInclusive<u16> = 20..=29;
/// How much of a wrong input an error repeats, in characters: enough to recognise it.
const QUOTED_CHARS_MAX: usize = 80;

/// What is listed: a hash, what kind of hash it is, and of what kind of thing.
///
/// The order of subjects (by algorithm, then digest) is the order of the list.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    alg: u16,
    kind: u16,
    param: u32,
    digest: Digest,
}

/// At most 35 bytes stand inline (every type but SHA-512 and video), so that a subject costs one allocation less.
#[derive(Clone)]
enum Digest {
    Inline { len: u8, bytes: [u8; Self::INLINE_MAX] },
    Boxed(Box<[u8]>),
}

impl Digest {
    const INLINE_MAX: usize = 35;

    fn new(bytes: &[u8]) -> Self {
        let mut inline = [0; Self::INLINE_MAX];
        match (inline.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(room), Ok(len)) => {
                room.copy_from_slice(bytes);
                Self::Inline { len, bytes: inline }
            }
            _ => Self::Boxed(bytes.into()),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Boxed(bytes) => bytes,
        }
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}
impl Eq for Digest {}
impl PartialOrd for Digest {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Digest {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}
impl std::hash::Hash for Digest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl Subject {
    /// A subject as it stands in a record; nothing is checked but that the numbers fit.
    pub fn new(kind: u16, alg: u16, param: u32, digest: &[u8]) -> Self {
        Self { alg, kind, param, digest: Digest::new(digest) }
    }

    /// A subject of the kind that goes with `alg`, without parameter.
    pub fn of(alg: Alg, digest: &[u8]) -> Self {
        Self::new(alg.kind(), alg.number(), 0, digest)
    }

    /// One record's part of a video.
    ///
    /// # Errors
    /// [`FramesError`] if `frames` are not one record's: from 1 to 100, times ascending.
    pub fn of_frames(frames: &[Frame]) -> Result<Self, FramesError> {
        Ok(Self::of(Alg::Vpdq, &vpdq::encode(frames)?))
    }

    /// The frames of a video's record; none of anything else.
    pub fn frames(&self) -> Option<Vec<Frame>> {
        (self.alg == Alg::Vpdq.number()).then(|| vpdq::decode(self.digest()).ok()).flatten()
    }

    /// As it stands in a message; none if a number does not fit. Whether it makes sense, [`is_well_formed`] says.
    pub fn from_proto(subject: &proto::Subject) -> Option<Self> {
        let kind = u16::try_from(subject.r#type).ok()?;
        let alg = u16::try_from(subject.alg).ok()?;
        Some(Self::new(kind, alg, subject.param, &subject.digest))
    }

    /// The inverse of [`Subject::from_proto`].
    pub fn to_proto(&self) -> proto::Subject {
        proto::Subject {
            r#type: u32::from(self.kind),
            alg: u32::from(self.alg),
            param: self.param,
            digest: self.digest().to_vec().into(),
        }
    }

    /// CONTENT 1, URL 2, ACCOUNT 3.
    pub fn kind(&self) -> u16 {
        self.kind
    }

    /// Number of the algorithm (SIGNALS.md).
    pub fn alg(&self) -> u16 {
        self.alg
    }

    /// 0, except for accounts.
    pub fn param(&self) -> u32 {
        self.param
    }

    /// The hash.
    pub fn digest(&self) -> &[u8] {
        self.digest.as_slice()
    }

    /// The semantics level from which on anything may be said of it.
    pub fn level(&self) -> u32 {
        match self.known_alg() {
            _ if self.kind == KIND_ACCOUNT => ACCOUNTS_LEVEL,
            Some(Alg::Vpdq) => VIDEOS_LEVEL,
            _ => 1,
        }
    }

    /// The kind of signal, if this release knows it.
    pub fn known_alg(&self) -> Option<Alg> {
        Alg::from_number(self.alg)
    }

    /// The name of the algorithm; `alg-20` and the like for those that this release only carries.
    pub fn type_name(&self) -> Cow<'static, str> {
        self.known_alg().map_or_else(|| format!("alg-{}", self.alg).into(), |alg| alg.name().into())
    }

    /// The digest in the normal form of its type; of an account, the pepper's number before it, as in `3:...`.
    pub fn value(&self) -> String {
        match self.known_alg() {
            Some(Alg::Tlsh) => format!("T1{}", data_encoding::HEXUPPER.encode(self.digest())),
            // Two peppers make two pseudonyms of one account: the digest alone says nothing.
            Some(Alg::Account) => format!("{}:{}", self.param, hex(self.digest())),
            _ => hex(self.digest()),
        }
    }

    /// `H("staydown/subject/v1\n" || type:u16 || alg:u16 || param:u32 || len:u16 || digest)`.
    pub fn id(&self) -> SubjectId {
        let digest = self.digest();
        let len = u16::try_from(digest.len()).unwrap_or(u16::MAX);
        SubjectId(sha256(&[
            b"staydown/subject/v1\n",
            &self.kind.to_be_bytes(),
            &self.alg.to_be_bytes(),
            &self.param.to_be_bytes(),
            &len.to_be_bytes(),
            digest,
        ]))
    }
}

/// The normal form, as in `sha256:...`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.type_name(), self.value())
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({self})")
    }
}

/// The kinds of signal. The number is signed with the digest, because a PDQ hash and a SHA-256 look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alg {
    /// Near image, 32 bytes.
    Pdq = 1,
    /// Exact, 16 bytes.
    Md5 = 2,
    /// Exact, 20 bytes.
    Sha1 = 3,
    /// Exact, 32 bytes.
    Sha256 = 4,
    /// Exact, 64 bytes.
    Sha512 = 5,
    /// Near text, 35 bytes.
    Tlsh = 6,
    /// SHA-256 of a canonical expression of a URL, 32 bytes.
    Url = 7,
    /// Near video, a list of frames.
    Vpdq = 8,
    /// Keyed hash of an account, 32 bytes.
    Account = 9,
}

/// How a looked-up hash and a listed one are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchKind {
    /// They are equal.
    Exact,
    /// They are at most `distance_max` apart.
    Near {
        /// Of PDQ in bits, of TLSH in its own measure.
        distance_max: u32,
    },
    /// Of the frames of the one, so many have a frame of the other that differs in at most `distance_max` bits.
    Frames {
        /// In bits.
        distance_max: u32,
        /// Frames of a thousand.
        share_min_permille: u32,
    },
}

impl Alg {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Pdq,
        Self::Md5,
        Self::Sha1,
        Self::Sha256,
        Self::Sha512,
        Self::Tlsh,
        Self::Url,
        Self::Vpdq,
        Self::Account,
    ];

    /// The kinds that this release lets people submit.
    pub const SUPPORTED: [Self; 8] =
        [Self::Pdq, Self::Md5, Self::Sha1, Self::Sha256, Self::Sha512, Self::Tlsh, Self::Url, Self::Vpdq];

    /// The number in records.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The kind of a record's number, if this release knows it.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|alg| alg.number() == number)
    }

    /// The name people see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pdq => "pdq",
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Tlsh => "tlsh",
            Self::Url => "url",
            Self::Vpdq => "vpdq",
            Self::Account => "account",
        }
    }

    /// The kind of a name in any case, with or without white space around it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alg| alg.name().eq_ignore_ascii_case(name.trim()))
    }

    /// Length of the digest in bytes; none for video, which has as many frames as it has ([`vpdq`]).
    pub fn digest_len(self) -> Option<usize> {
        match self {
            Self::Md5 => Some(16),
            Self::Sha1 => Some(20),
            Self::Pdq | Self::Sha256 | Self::Url | Self::Account => Some(32),
            Self::Tlsh => Some(35),
            Self::Sha512 => Some(64),
            Self::Vpdq => None,
        }
    }

    /// The subject type that goes with it.
    pub fn kind(self) -> u16 {
        match self {
            Self::Url => KIND_URL,
            Self::Account => KIND_ACCOUNT,
            Self::Pdq | Self::Md5 | Self::Sha1 | Self::Sha256 | Self::Sha512 | Self::Tlsh | Self::Vpdq => KIND_CONTENT,
        }
    }

    /// How this release compares it.
    pub fn match_kind(self) -> MatchKind {
        match self {
            Self::Pdq => MatchKind::Near { distance_max: PDQ_DISTANCE_MAX },
            Self::Tlsh => MatchKind::Near { distance_max: TLSH_DISTANCE_MAX },
            Self::Vpdq => {
                MatchKind::Frames { distance_max: PDQ_DISTANCE_MAX, share_min_permille: vpdq::SHARE_MIN_PERMILLE }
            }
            _ => MatchKind::Exact,
        }
    }

    /// Whether this release lets people submit it.
    pub fn is_supported(self) -> bool {
        Self::SUPPORTED.contains(&self)
    }
}

impl fmt::Display for Alg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a text is no subject. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// The type is none of SIGNALS.md.
    #[error("type: got {got:?}, expected one of {}", supported())]
    UnknownType {
        /// The name, cut to a readable length.
        got: String,
    },
    /// The type has a number, and no release before this one could submit it either.
    #[error("type: {alg} is not supported in this release, expected one of {}", supported())]
    NotSupported {
        /// Which type.
        alg: Alg,
    },
    /// No pepper's number stands before the digest. The value is not repeated: it may be the name of an account.
    #[error("value: expected the number of a pepper and a pseudonym of 64 hexadecimal characters, as in account:3:...")]
    NoPseudonym,
    /// Not the hash of an expression, and no address of which one could be made.
    #[error("value: {0}")]
    Url(#[from] UrlError),
    /// Too many or too few characters.
    #[error("value: got {got} characters, expected {expected} hexadecimal characters for {alg}")]
    WrongLength {
        /// Of which type.
        alg: Alg,
        /// Characters after white space and prefix are taken off.
        got: usize,
        /// Characters of the normal form.
        expected: usize,
    },
    /// The hexadecimal digits of a video are no list of frames.
    #[error("value: is no list of frames of a video: {0}")]
    Frames(#[from] FramesError),
    /// A character that is not hexadecimal.
    #[error("value: got {got:?} at character {at}, expected only 0-9 and a-f for {alg}")]
    WrongAlphabet {
        /// Of which type.
        alg: Alg,
        /// The first wrong character.
        got: char,
        /// Its place, counted from 1.
        at: usize,
    },
    /// The value's own prefix names another type.
    #[error("value: got the prefix {got:?}, expected {expected} as in the field type")]
    PrefixDiffers {
        /// The prefix, cut to a readable length.
        got: String,
        /// The type that was given beside it.
        expected: Alg,
    },
    /// 64 hexadecimal characters are a PDQ hash or a SHA-256.
    #[error("value: 64 hexadecimal characters are pdq or sha256, expected a prefix; write pdq:... or sha256:...")]
    Ambiguous,
    /// No type was named, and no type has this length.
    #[error(
        "value: got {got} characters without a type, expected 32 (md5), 40 (sha1), 72 (tlsh) or 128 (sha512); write the type in front, as in pdq:..."
    )]
    NoType {
        /// Characters without the white space around.
        got: usize,
    },
}

/// The names of what can be submitted, for an error.
fn supported() -> String {
    Alg::SUPPORTED.map(Alg::name).join(", ")
}

/// A subject from a type's name and a value in any case, with or without white space around it and its own prefix.
///
/// Of `url`, the value is the hash of an expression or the address itself, of which exactly that is meant.
///
/// # Errors
/// [`SignalError`], naming the field, what it holds and what was expected.
pub fn parse(type_name: &str, value: &str) -> Result<Subject, SignalError> {
    let alg = Alg::from_name(type_name).ok_or_else(|| SignalError::UnknownType { got: quoted(type_name) })?;
    if !alg.is_supported() && alg != Alg::Account {
        return Err(SignalError::NotSupported { alg });
    }
    if alg == Alg::Url {
        return web_address(value);
    }
    let value = match value.split_once(':') {
        None => value,
        Some((prefix, rest)) if Alg::from_name(prefix) == Some(alg) => rest,
        Some(_) if alg == Alg::Account => value,
        Some((prefix, _)) => return Err(SignalError::PrefixDiffers { got: quoted(prefix), expected: alg }),
    };
    if alg == Alg::Account {
        return pseudonym(value.trim());
    }
    Ok(Subject::of(alg, &digest(alg, value.trim())?))
}

/// The hash of an expression, or of the address in clear.
fn web_address(value: &str) -> Result<Subject, SignalError> {
    let value = without_url_prefix(value);
    match in_clear(value) {
        true => Ok(url::canonical(value)?.subject()),
        false => Ok(Subject::of(Alg::Url, &digest(Alg::Url, value)?)),
    }
}

/// The address that a signal has in clear; none if it is another signal, or has the hash of an expression. An empty type
/// is read off the value, as [`parse_any`] does.
///
/// # Errors
/// It should be an address, and is none that can be listed.
pub fn address_in_clear(type_name: &str, value: &str) -> Result<Option<Canonical>, UrlError> {
    let begins = || value.split_once(':').and_then(|(name, _)| Alg::from_name(name));
    let alg = if type_name.is_empty() { begins() } else { Alg::from_name(type_name) };
    let bare = type_name.is_empty() && is_web_address(value);
    let rest = without_url_prefix(value);
    if bare || alg == Some(Alg::Url) && in_clear(rest) { url::canonical(rest).map(Some) } else { Ok(None) }
}

fn without_url_prefix(value: &str) -> &str {
    let value = value.trim();
    match value.split_once(':') {
        Some((prefix, rest)) if Alg::from_name(prefix) == Some(Alg::Url) => rest.trim(),
        _ => value,
    }
}

/// Whether it is not a hash that may have lost a character.
fn in_clear(value: &str) -> bool {
    !value.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a text is an address in clear, with its scheme, as in `https://example.org/page`.
pub fn is_web_address(text: &str) -> bool {
    let scheme = text.trim_start().split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| ["http", "https", "ftp"].iter().any(|known| known.eq_ignore_ascii_case(scheme)))
}

/// The pseudonym of an account, after the number of the pepper that it was made with. Who knows the account by its name
/// asks a node: only it has the pepper.
fn pseudonym(value: &str) -> Result<Subject, SignalError> {
    let (pepper, digits) = value.split_once(':').ok_or(SignalError::NoPseudonym)?;
    let plain = !pepper.is_empty() && pepper.bytes().all(|b| b.is_ascii_digit());
    let pepper = pepper.parse().ok().filter(|pepper| plain && *pepper > 0).ok_or(SignalError::NoPseudonym)?;
    Ok(Subject::new(KIND_ACCOUNT, Alg::Account.number(), pepper, &digest(Alg::Account, digits.trim())?))
}

/// A subject from `type:value`, from an address with its scheme, or from a value alone whose length says what it is.
///
/// # Errors
/// [`SignalError`]; 64 characters without a type are two types at once.
pub fn parse_any(text: &str) -> Result<Subject, SignalError> {
    if is_web_address(text) {
        return web_address(text);
    }
    if let Some((type_name, value)) = text.split_once(':') {
        return parse(type_name, value);
    }
    let value = text.trim();
    match value.chars().count() {
        32 => parse("md5", value),
        40 => parse("sha1", value),
        64 => Err(SignalError::Ambiguous),
        72 => parse("tlsh", value),
        128 => parse("sha512", value),
        got => Err(SignalError::NoType { got }),
    }
}

fn digest(alg: Alg, value: &str) -> Result<Vec<u8>, SignalError> {
    // The version of TLSH: part of its normal form, not of the hash.
    let version = if alg == Alg::Tlsh { value.strip_prefix("T1").or(value.strip_prefix("t1")) } else { None };
    let value = version.unwrap_or(value);
    let wrong = value.chars().enumerate().find(|(_, c)| !c.is_ascii_hexdigit());
    if let Some((at, got)) = wrong {
        return Err(SignalError::WrongAlphabet { alg, got, at: at + 1 });
    }
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(value.as_bytes()).unwrap_or_default();
    if alg == Alg::Vpdq {
        vpdq::decode(&bytes)?;
        return Ok(bytes);
    }
    let expected = alg.digest_len().map_or(0, |bytes| bytes * 2);
    if value.len() == expected { Ok(bytes) } else { Err(SignalError::WrongLength { alg, got: value.len(), expected }) }
}

/// A part of a wrong input, to recognise it by; not of one with a dot in it, which may be a host that somebody gave in
/// clear: errors end in logs.
fn quoted(text: &str) -> String {
    if text.contains(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}']) {
        return "...".to_owned();
    }
    text.trim().chars().take(QUOTED_CHARS_MAX).collect()
}

/// Whether a received subject is in its normal form. What is not, no honest node of this semantics level writes.
pub fn is_well_formed(subject: &Subject) -> bool {
    let Some(alg) = Alg::from_number(subject.alg) else {
        return RESERVED.contains(&subject.alg) && matches!(subject.kind, KIND_CONTENT | KIND_URL);
    };
    let fits = match alg.digest_len() {
        Some(len) => subject.digest().len() == len,
        None => vpdq::is_canonical(subject.digest()),
    };
    fits && alg.kind() == subject.kind && (subject.param != 0) == (alg == Alg::Account)
}

/// In how many of 256 bits two PDQ hashes differ.
pub fn distance(a: &[u8; 32], b: &[u8; 32]) -> u32 {
    let (a, b) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    a.iter().zip(b).map(|(a, b)| (u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b)).count_ones()).sum()
}

/// Why a subject must not be listed: it would match what is everywhere and harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardRefusal {
    /// The digest of no bytes at all.
    #[error("digest: is that of the empty file; hash the file again, its upload was lost")]
    EmptyFile,
    /// Every bit is 0: a value that was never filled in.
    #[error("digest: every bit is 0, expected a hash of some content")]
    AllZero,
    /// Every bit is 1: a value that was never filled in.
    #[error("digest: every bit is 1, expected a hash of some content")]
    AllOne,
    /// The picture has too little in it, or the quality is off the scale.
    #[error("quality: got {got}, expected {PDQ_QUALITY_MIN}..{PDQ_QUALITY_MAX}; list the file by its sha256 instead")]
    LowQuality {
        /// What was given.
        got: u32,
    },
    /// A PDQ hash came without its quality.
    #[error("quality: got none, expected {PDQ_QUALITY_MIN}..{PDQ_QUALITY_MAX} beside a pdq hash")]
    QualityMissing,
    /// The hash of a picture of one grey.
    #[error("digest: is that of a blank image, expected one with something on it")]
    BlankImage,
    /// On the shipped list of harmless digests.
    #[error("digest: is that of a harmless file found everywhere, such as a single newline or an empty archive")]
    KnownHarmless,
    /// On our company's own list of them.
    #[error(
        "digest: is on our company's own list of harmless files, or near to a picture on it (setting guard.harmless)"
    )]
    OwnHarmless,
    /// A public suffix, or a host on which everybody publishes.
    #[error("digest: is that of a whole host on which everybody publishes; list the pages or directories on it")]
    HostTooBroad,
}

impl GuardRefusal {
    /// The reason code that programs see.
    pub fn code(self) -> &'static str {
        match self {
            Self::EmptyFile => "EMPTY_FILE",
            Self::AllZero => "ALL_ZERO",
            Self::AllOne => "ALL_ONE",
            Self::LowQuality { .. } => "LOW_QUALITY",
            Self::QualityMissing => "QUALITY_MISSING",
            Self::BlankImage => "BLANK_IMAGE",
            Self::KnownHarmless => "KNOWN_HARMLESS",
            Self::OwnHarmless => "OWN_HARMLESS",
            Self::HostTooBroad => "HOST_TOO_BROAD",
        }
    }
}

/// The admission guard: what is submitted here must pass it. `quality` counts for PDQ only, 0 to 100.
///
/// It judges what this node signs, never what others have signed: a rule that changes with a release must not make
/// two nodes see two lists.
///
/// # Errors
/// [`GuardRefusal`], the first reason that holds.
pub fn admit(subject: &Subject, quality: Option<u32>) -> Result<(), GuardRefusal> {
    admit_subject(subject)?;
    if subject.alg == Alg::Pdq.number() { admit_quality(quality) } else { Ok(()) }
}

/// The part of the guard that looks at the hash alone: also for whoever stands behind what another has submitted.
///
/// # Errors
/// [`GuardRefusal`], the first reason that holds.
pub fn admit_subject(subject: &Subject) -> Result<(), GuardRefusal> {
    let digest = subject.digest();
    if digest.iter().all(|&byte| byte == 0) {
        return Err(GuardRefusal::AllZero);
    }
    if digest.iter().all(|&byte| byte == 0xff) {
        return Err(GuardRefusal::AllOne);
    }
    if EMPTY_FILE.contains(subject) {
        return Err(GuardRefusal::EmptyFile);
    }
    if KNOWN_HARMLESS.contains(subject) {
        return Err(GuardRefusal::KnownHarmless);
    }
    if url::is_too_broad(subject) {
        return Err(GuardRefusal::HostTooBroad);
    }
    if BLANK_PDQ.contains(subject) {
        return Err(GuardRefusal::BlankImage);
    }
    subject.frames().iter().flatten().try_for_each(admit_frame)
}

/// Every frame of a video is held to what a picture is: one black frame would match the fades of all videos.
fn admit_frame(frame: &Frame) -> Result<(), GuardRefusal> {
    if !frame.is_usable() {
        return Err(GuardRefusal::LowQuality { got: u32::from(frame.quality) });
    }
    let picture = Subject::of(Alg::Pdq, &frame.hash);
    // A frame is no video: this ends after one step.
    admit_subject(&picture)
}

/// Whether `harmless` has a subject, or a picture or document that it would match.
pub fn is_among(subject: &Subject, harmless: &BTreeSet<Subject>) -> bool {
    let near = |other: &Subject| match subject.known_alg() {
        Some(Alg::Pdq) => is_near(other, subject, distance, PDQ_DISTANCE_MAX),
        Some(Alg::Tlsh) => is_near(other, subject, tlsh::distance, TLSH_DISTANCE_MAX),
        _ => false,
    };
    // Subjects are ordered by their kind of hash.
    let first = Subject { digest: Digest::new(&[]), ..subject.clone() };
    let mut of_its_kind = harmless.range(first..).take_while(|other| other.alg == subject.alg);
    harmless.contains(subject) || of_its_kind.any(near)
}

fn is_near<const N: usize>(
    a: &Subject,
    b: &Subject,
    distance: fn(&[u8; N], &[u8; N]) -> u32,
    distance_max: u32,
) -> bool {
    match (a.digest().try_into(), b.digest().try_into()) {
        (Ok(a), Ok(b)) => distance(a, b) <= distance_max,
        _ => false,
    }
}

fn admit_quality(quality: Option<u32>) -> Result<(), GuardRefusal> {
    match quality {
        None => Err(GuardRefusal::QualityMissing),
        Some(PDQ_QUALITY_MIN..=PDQ_QUALITY_MAX) => Ok(()),
        Some(got) => Err(GuardRefusal::LowQuality { got }),
    }
}

static EMPTY_FILE: LazyLock<BTreeSet<Subject>> = LazyLock::new(|| {
    subjects(
        "md5:d41d8cd98f00b204e9800998ecf8427e
         sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709
         sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
         sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
    )
});
static KNOWN_HARMLESS: LazyLock<BTreeSet<Subject>> = LazyLock::new(|| subjects(include_str!("known_harmless.txt")));
static BLANK_PDQ: LazyLock<BTreeSet<Subject>> = LazyLock::new(|| subjects(include_str!("blank_pdq.txt")));

/// The subjects of a shipped list: one a line, `#` begins a comment. A test holds that every line parses.
fn subjects(list: &str) -> BTreeSet<Subject> {
    lines(list).filter_map(|line| parse_any(line).ok()).collect()
}

fn lines(list: &str) -> impl Iterator<Item = &str> {
    list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PDQ: &str = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22";

    #[test]
    fn numbers_and_names_are_those_of_the_protocol() {
        let names: Vec<_> = Alg::ALL.iter().map(|alg| (alg.number(), alg.name())).collect();
        let expected = ["pdq", "md5", "sha1", "sha256", "sha512", "tlsh", "url", "vpdq", "account"];
        assert_eq!(names, (1u16..).zip(expected).collect::<Vec<_>>());
        for alg in Alg::ALL {
            assert_eq!(Alg::from_number(alg.number()), Some(alg));
            assert_eq!(Alg::from_name(alg.name()), Some(alg));
        }
        assert_eq!((Alg::from_number(0), Alg::from_number(10), Alg::from_name("sha3")), (None, None, None));
        assert_eq!(Alg::Pdq.match_kind(), MatchKind::Near { distance_max: 31 });
        assert_eq!(Alg::Sha256.match_kind(), MatchKind::Exact);
        assert_eq!(Alg::Vpdq.match_kind(), MatchKind::Frames { distance_max: 31, share_min_permille: 800 });
    }

    fn video(quality: u8) -> Subject {
        let frame = |n: u8| Frame { hash: [n; 32], quality: 90, time_ms: u32::from(n) * 1_000 };
        Subject::of_frames(&[frame(1), Frame { quality, ..frame(2) }]).unwrap()
    }

    #[test]
    fn a_video_is_written_as_the_digits_of_its_frames() {
        let subject = video(80);
        assert_eq!(subject.value().len(), 2 * 2 * 37);
        assert_eq!(parse_any(&subject.to_string()).unwrap(), subject);
        assert_eq!(parse("vpdq", &subject.value().to_uppercase()).unwrap(), subject);
        assert_eq!(subject.frames().unwrap()[1].quality, 80);
        assert_eq!(Subject::of(Alg::Pdq, &[7; 37]).frames(), None);
        for (digits, told) in [
            ("ab".repeat(36), "got 36 bytes"),
            ("0".repeat(73), "got 0 bytes"),
            ("7f".repeat(37), "frame 1 has quality 127"),
            ("12".repeat(2 * 37), "frame 2 is of 303174162 ms"),
        ] {
            let error = parse("vpdq", &digits).unwrap_err().to_string();
            assert!(error.starts_with("value: is no list of frames") && error.contains(told), "{error}");
        }
    }

    #[test]
    fn each_frame_of_a_video_is_held_to_what_a_picture_is() {
        assert_eq!(admit(&video(50), None), Ok(()));
        assert_eq!(admit(&video(49), None), Err(GuardRefusal::LowQuality { got: 49 }));
        let blank = BLANK_PDQ.iter().next().unwrap().digest().try_into().unwrap();
        for (hash, refusal) in
            [(blank, GuardRefusal::BlankImage), ([0; 32], GuardRefusal::AllZero), ([0xff; 32], GuardRefusal::AllOne)]
        {
            let subject = Subject::of_frames(&[Frame { hash, quality: 100, time_ms: 0 }]).unwrap();
            assert_eq!(admit(&subject, None), Err(refusal));
            assert_eq!(admit_subject(&subject), Err(refusal), "nobody endorses it either");
        }
        let harmless = BTreeSet::from([Subject::of(Alg::Pdq, &[1; 32])]);
        assert!(!is_among(&video(80), &harmless), "a harmless picture may stand in a video");
    }

    #[test]
    fn people_may_write_a_subject_in_many_ways() {
        let subject = parse("pdq", PDQ).unwrap();
        for (type_name, value) in [
            ("PDQ", PDQ.to_uppercase()),
            (" pdq ", format!(" {PDQ}\n")),
            ("pdq", format!("pdq:{PDQ}")),
            ("pdq", format!("PDQ: {PDQ}")),
        ] {
            assert_eq!(parse(type_name, &value).unwrap(), subject, "{type_name} {value}");
        }
        assert_eq!(parse_any(&format!(" Pdq:{PDQ} ")).unwrap(), subject);
        assert_eq!(subject.to_string(), format!("pdq:{PDQ}"));
        assert_eq!((subject.type_name().as_ref(), subject.value()), ("pdq", PDQ.to_owned()));
        for (length, name) in [(32, "md5"), (40, "sha1"), (128, "sha512")] {
            assert_eq!(parse_any(&"ab".repeat(length / 2)).unwrap().type_name(), name);
        }
    }

    #[test]
    fn an_address_is_the_subject_of_its_expression() {
        let page = Subject::of(Alg::Url, &sha256(&[b"example.org/videos/"]));
        for text in [
            "https://example.org/videos/",
            " HTTP://user@Example.ORG:8080//videos/./#top",
            "url:example.org/videos/",
            "url: https://example.org/videos",
            &page.to_string(),
            &page.to_string().to_uppercase(),
        ] {
            let found = parse_any(text).unwrap();
            assert_eq!(found == page, !text.ends_with("videos"), "{text}");
        }
        assert_eq!(parse("url", "https://example.org/videos/").unwrap(), page);
        let hashed = page.value();
        for (type_name, value, clear) in [
            ("", "https://example.org/videos/", true),
            ("", "URL:example.org/videos/", true),
            ("url", "example.org/videos/", true),
            ("", "md5:example.org", false),
            ("sha256", "https://example.org/videos/", false),
            ("url", &hashed, false),
            ("", &page.to_string(), false),
        ] {
            let found = address_in_clear(type_name, value).unwrap();
            assert_eq!(found.map(|address| address.subject()), clear.then(|| page.clone()), "{type_name} {value}");
        }
        assert_eq!(address_in_clear("url", "mailto:a@b"), Err(UrlError::Scheme));
        assert_eq!(parse("url", "url:https://example.org/videos/").unwrap(), page);
        assert!(matches!(parse("url", "ab12"), Err(SignalError::WrongLength { got: 4, expected: 64, .. })));
        assert_eq!(parse("url", "mailto:a@b"), Err(SignalError::Url(UrlError::Scheme)));
        assert!(parse("sha256", "https://example.org/").is_err());
    }

    #[test]
    fn a_tlsh_may_have_its_version_or_not() {
        let digits = "0123456789ABCDEF".repeat(5)[..70].to_owned();
        let subject = parse_any(&format!("tlsh:T1{digits}")).unwrap();
        assert_eq!(subject.to_string(), format!("tlsh:T1{digits}"));
        for text in [format!("T1{digits}"), format!("tlsh:{digits}"), format!("TLSH: t1{}", digits.to_lowercase())] {
            assert_eq!(parse_any(&text).unwrap(), subject, "{text}");
        }
        assert!(matches!(parse("tlsh", "T112"), Err(SignalError::WrongLength { got: 2, expected: 70, .. })));
        assert!(parse_any(&format!("tlsh:T2{digits}")).is_err());
        assert_eq!(Alg::Tlsh.match_kind(), MatchKind::Near { distance_max: 30 });
    }

    #[test]
    fn a_wrong_text_is_refused_with_what_it_was_and_what_was_expected() {
        for (type_name, value, message) in [
            ("md5", "abc", "value: got 3 characters, expected 32 hexadecimal characters for md5"),
            ("md5", "xyz", "value: got 'x' at character 1, expected only 0-9 and a-f for md5"),
            ("md5", "äb", "value: got 'ä' at character 1, expected only 0-9 and a-f for md5"),
            ("md5", "sha1:00", "value: got the prefix \"sha1\", expected md5 as in the field type"),
            ("", "00", "type: got \"\", expected one of pdq, md5, sha1, sha256, sha512, tlsh, url, vpdq"),
            ("sha3", "00", "type: got \"sha3\", expected one of pdq, md5, sha1, sha256, sha512, tlsh, url, vpdq"),
        ] {
            assert_eq!(parse(type_name, value).unwrap_err().to_string(), message);
        }
        assert_eq!(parse_any(PDQ), Err(SignalError::Ambiguous));
        for refused in [parse_any("secret.example.org:8080/p"), parse("md5", "secret\u{3002}example:8080/p")] {
            let told = refused.unwrap_err().to_string();
            assert!(told.contains("\"...\"") && !told.contains("secret"), "{told}");
        }
        assert_eq!(parse_any("gopher://example.org/a"), Err(SignalError::UnknownType { got: "gopher".to_owned() }));
        assert_eq!(parse_any("https://"), Err(SignalError::Url(UrlError::NoHost)));
        assert_eq!(parse_any(""), Err(SignalError::NoType { got: 0 }));
        let long = parse(&"x".repeat(100_000), "00").unwrap_err().to_string();
        assert!(long.len() < 200, "an error does not repeat a long input");
    }

    #[test]
    fn a_pseudonym_is_written_with_the_number_of_its_pepper() {
        let subject = Subject::new(3, 9, 3, &[0xab; 32]);
        let digits = "ab".repeat(32);
        assert_eq!(subject.to_string(), format!("account:3:{digits}"));
        for text in [format!("account:3:{digits}"), format!(" Account:3: {}\n", digits.to_uppercase())] {
            assert_eq!(parse_any(&text).unwrap(), subject, "{text}");
        }
        assert_eq!(parse("account", &format!("3:{digits}")).unwrap(), subject);
        assert_eq!(parse("account", &format!("account:3:{digits}")).unwrap(), subject);
        for value in ["example:4711", "4711", &digits, &format!(":{digits}"), &format!("0:{digits}")] {
            assert_eq!(parse("account", value), Err(SignalError::NoPseudonym), "{value}");
        }
        for value in [format!("+3:{digits}"), format!("4294967296:{digits}")] {
            assert_eq!(parse("account", &value), Err(SignalError::NoPseudonym), "{value}");
        }
        assert!(matches!(parse("account", "3:abcd"), Err(SignalError::WrongLength { alg: Alg::Account, .. })));
    }

    #[test]
    fn only_the_normal_form_is_well_formed() {
        let cases = [
            (Subject::new(1, 1, 0, &[7; 32]), true),
            (Subject::new(1, 1, 0, &[7; 31]), false),
            (Subject::new(1, 1, 1, &[7; 32]), false),
            (Subject::new(2, 1, 0, &[7; 32]), false),
            (Subject::new(2, 7, 0, &[7; 32]), true),
            (Subject::new(1, 7, 0, &[7; 32]), false),
            (Subject::new(3, 9, 4, &[7; 32]), true),
            (Subject::new(3, 9, 0, &[7; 32]), false),
            (Subject::new(1, 9, 4, &[7; 32]), false),
            (Subject::new(1, 5, 0, &[7; 64]), true),
            (Subject::new(1, 6, 0, &[7; 35]), true),
            (Subject::new(1, 8, 0, &[7; 37]), true),
            (Subject::new(1, 8, 0, &[7; 36]), false),
            (Subject::new(1, 8, 0, &[7; 74]), false),
            (Subject::new(1, 8, 0, &[101; 37]), false),
            (Subject::new(1, 8, 0, &[]), false),
            (Subject::new(1, 8, 1, &[7; 37]), false),
            (Subject::new(2, 8, 0, &[7; 37]), false),
            (Subject::new(1, 0, 0, &[7; 32]), false),
            (Subject::new(1, 10, 0, &[7; 32]), false),
            (Subject::new(1, 19, 0, &[7; 32]), false),
            (Subject::new(1, 20, 3, &[7; 144]), true),
            (Subject::new(1, 29, 0, &[]), true),
            (Subject::new(1, 30, 0, &[7; 32]), false),
        ];
        for (subject, expected) in cases {
            assert_eq!(is_well_formed(&subject), expected, "{subject:?} kind {}", subject.kind());
        }
    }

    #[test]
    fn what_is_harmless_everywhere_is_not_admitted() {
        let refusal = |text: &str, quality| admit(&parse_any(text).unwrap(), quality).map_err(GuardRefusal::code);
        let pdq = format!("pdq:{PDQ}");
        let (zero, one) = (format!("pdq:{}", "00".repeat(32)), format!("sha256:{}", "FF".repeat(32)));
        for (text, quality, expected) in [
            ("d41d8cd98f00b204e9800998ecf8427e", None, Err("EMPTY_FILE")),
            ("da39a3ee5e6b4b0d3255bfef95601890afd80709", None, Err("EMPTY_FILE")),
            ("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", None, Err("EMPTY_FILE")),
            (&zero, Some(100), Err("ALL_ZERO")),
            (&one, None, Err("ALL_ONE")),
            ("md5:68b329da9893e34099c7d8ad5cb9c940", None, Err("KNOWN_HARMLESS")), // a single newline
            (&pdq, None, Err("QUALITY_MISSING")),
            (&pdq, Some(0), Err("LOW_QUALITY")),
            (&pdq, Some(49), Err("LOW_QUALITY")),
            (&pdq, Some(50), Ok(())),
            (&pdq, Some(100), Ok(())),
            (&pdq, Some(101), Err("LOW_QUALITY")),
            ("md5:68b329da9893e34099c7d8ad5cb9c941", None, Ok(())),
            ("https://co.uk/", None, Err("HOST_TOO_BROAD")),
            ("https://example.org/", None, Ok(())),
        ] {
            assert_eq!(refusal(text, quality), expected, "{text} {quality:?}");
        }
    }

    #[test]
    fn what_a_company_adds_covers_the_copies_of_a_picture() {
        let text = |bits: usize| {
            let mut hash = [0x5a; 32];
            (0..bits).for_each(|bit| hash[bit / 8] ^= 1 << (bit % 8));
            format!("pdq:{}", hex(&hash))
        };
        let harmless: BTreeSet<_> =
            [text(0), format!("sha256:{}", "5a".repeat(32))].iter().map(|t| parse_any(t).unwrap()).collect();
        for (text, expected) in [
            (text(0), true),
            (text(31), true),
            (text(32), false),
            (format!("sha256:{}", "5a".repeat(32)), true),
            (format!("sha256:{}5b", "5a".repeat(31)), false),
            (format!("sha512:{}", "5a".repeat(64)), false),
        ] {
            assert_eq!(is_among(&parse_any(&text).unwrap(), &harmless), expected, "{text}");
        }
    }

    #[test]
    fn every_line_of_the_shipped_lists_counts() {
        for (text, set) in
            [(include_str!("known_harmless.txt"), &KNOWN_HARMLESS), (include_str!("blank_pdq.txt"), &BLANK_PDQ)]
        {
            assert_eq!(lines(text).count(), set.len());
        }
        assert_eq!(EMPTY_FILE.len(), 4);
    }

    #[test]
    fn a_subject_survives_the_wire_and_numbers_that_do_not_fit_are_refused() {
        let subject = Subject::new(3, 9, 70_000, &[5; 32]);
        assert_eq!(Subject::from_proto(&subject.to_proto()), Some(subject.clone()));
        let mut large = subject.to_proto();
        large.alg = 65_536 + 9;
        assert_eq!(Subject::from_proto(&large), None);
        large = subject.to_proto();
        large.r#type = 65_536 + 3;
        assert_eq!(Subject::from_proto(&large), None);
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(which in 0..Alg::SUPPORTED.len(), bytes in proptest::array::uniform32(any::<u8>())) {
            let alg = Alg::SUPPORTED[which];
            // Of a video one frame, whose quality is on the scale.
            let len = alg.digest_len().unwrap_or(37);
            let mut digest: Vec<u8> = bytes.iter().cycle().take(len).copied().collect();
            if alg == Alg::Vpdq {
                digest[32] %= 101;
            }
            let subject = Subject::of(alg, &digest);
            prop_assert!(is_well_formed(&subject));
            prop_assert_eq!(&parse_any(&subject.to_string()).unwrap(), &subject);
            prop_assert_eq!(&parse(&subject.type_name(), &subject.value()).unwrap(), &subject);
        }

        #[test]
        fn no_text_makes_parsing_panic(text in ".{0,140}") {
            prop_assert!(parse_any(&text).map_or(true, |subject| is_well_formed(&subject)));
        }

        #[test]
        fn distance_counts_the_flipped_bits(
            a in proptest::array::uniform32(any::<u8>()),
            flips in proptest::collection::btree_set(0usize..256, 0..=256),
        ) {
            let mut b = a;
            for bit in &flips {
                b[bit / 8] ^= 1 << (bit % 8);
            }
            prop_assert_eq!(distance(&a, &b) as usize, flips.len());
        }
    }
}
