//! The files that people hand to each other: join requests (.sdj), charters (.sdc), invitations (.sdi), founders'
//! public keys. Armoured text, so that they survive mail, chat and a clipboard.
//!
//! Everything here is read from strangers. A file says what it is in its first line; what it holds is believed only
//! after its signatures, and an invitation only against a fingerprint that came by another road.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ed25519_dalek::{SigningKey, VerifyingKey};
use prost::Message as _;
use thiserror::Error;

use crate::replica::block::{sign, signature_holds};
use crate::replica::charter::{
    CharterChain, CharterError, PINS_PER_NODE_MAX, SealKey, possession_holds, prove_possession, public_key,
};
use crate::replica::ids::{ForumId, MemberId, Pin, TimeMs};
use crate::replica::proto;
use crate::wire::endpoint::check_endpoint;
use crate::wire::local;

pub use crate::replica::record::is_language;

/// Characters of a join request: a few keys and names.
pub const REQUEST_SIZE_MAX: usize = 64 * 1024;
/// Characters of a charter file or invitation: a hundred charters of the greatest size and their armour.
pub const CHARTERS_SIZE_MAX: usize = 144 * 1024 * 1024;
/// Charters of one chain in a file; a forum that changes every week for fifty years has fewer.
pub const CHARTERS_MAX: usize = 4_096;
/// Taxonomy files that come with a charter: its own, and that of the version before.
pub const TAXONOMIES_MAX: usize = 2;
/// Characters of a company's or group's name: what fits into a line of a table.
pub const NAME_CHARS_MAX: usize = 64;
/// Endpoints of a node: two roads for each of two address families.
pub const ENDPOINTS_MAX: usize = 4;
/// Jurisdictions of one company: more codes than ISO 3166 has countries are none.
pub const JURISDICTIONS_MAX: usize = 64;
/// Languages of one company.
pub const LANGUAGES_MAX: usize = 64;

const REQUEST_TYPE: &str = "application/vnd.staydown.join-request.v1";
const LINE_CHARS: usize = 64;

/// What an armoured file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `.sdj`
    JoinRequest,
    /// `.sdc`
    Charter,
    /// `.sdi`
    Invitation,
    /// `.pub`
    FounderKey,
}

impl Kind {
    const ALL: [Self; 4] = [Self::JoinRequest, Self::Charter, Self::Invitation, Self::FounderKey];

    fn label(self) -> &'static str {
        match self {
            Self::JoinRequest => "STAYDOWN JOIN REQUEST",
            Self::Charter => "STAYDOWN CHARTER",
            Self::Invitation => "STAYDOWN INVITATION",
            Self::FounderKey => "STAYDOWN FOUNDER KEY",
        }
    }

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::JoinRequest => "join request (.sdj)",
            Self::Charter => "charter file (.sdc)",
            Self::Invitation => "invitation (.sdi)",
            Self::FounderKey => "founder's public key (.pub)",
        }
    }

    fn size_max(self) -> usize {
        match self {
            Self::JoinRequest | Self::FounderKey => REQUEST_SIZE_MAX,
            Self::Charter | Self::Invitation => CHARTERS_SIZE_MAX,
        }
    }
}

/// Why a file cannot be used. Nothing was changed.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is none of ours, damaged, or holds what nobody may say.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: Malformed,
    },
}

/// What is wrong with the content of a file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum Malformed {
    #[error("not a {expected}: there is no line -----BEGIN {label}-----")]
    Foreign { expected: &'static str, label: &'static str },
    #[error("found: {got}, expected: {expected}")]
    WrongKind { got: &'static str, expected: &'static str },
    #[error("the {0} is cut off: its line -----END ...----- is missing; copy the whole file again")]
    Truncated(&'static str),
    #[error("the {kind} is damaged: {what}; copy it again")]
    Damaged { kind: &'static str, what: String },
    #[error("the {kind} has more than {max} characters")]
    TooLong { kind: &'static str, max: usize },
    #[error("{field}: got {got:?}, expected {expected}")]
    Field { field: &'static str, got: String, expected: &'static str },
    #[error("the join request is not signed by the key in it: it was changed after it was made")]
    Signature,
    #[error("the join request does not prove possession of its log root key for this forum")]
    Possession,
}

/// Puts `bytes` into armour.
pub fn armour(kind: Kind, bytes: &[u8]) -> String {
    let base64 = data_encoding::BASE64.encode(bytes);
    let mut text = format!("-----BEGIN {}-----\n", kind.label());
    for line in base64.as_bytes().chunks(LINE_CHARS) {
        text.extend(line.iter().copied().map(char::from));
        text.push('\n');
    }
    text + &format!("-----END {}-----\n", kind.label())
}

/// Takes the armour off. White space and text before and after it do not matter: mail adds both.
///
/// # Errors
/// [`Malformed`]: foreign, of another kind, cut off, or damaged.
pub fn disarm(kind: Kind, text: &str) -> Result<Vec<u8>, Malformed> {
    let begin = |kind: Kind| format!("-----BEGIN {}-----", kind.label());
    let Some((_, after)) = text.split_once(&begin(kind)) else {
        let other = Kind::ALL.into_iter().find(|other| text.contains(&begin(*other)));
        return Err(match other {
            Some(other) => Malformed::WrongKind { got: other.name(), expected: kind.name() },
            None => Malformed::Foreign { expected: kind.name(), label: kind.label() },
        });
    };
    let end = format!("-----END {}-----", kind.label());
    let (inside, _) = after.split_once(&end).ok_or(Malformed::Truncated(kind.name()))?;
    let base64: String = inside.split_whitespace().collect();
    data_encoding::BASE64
        .decode(base64.as_bytes())
        .map_err(|error| Malformed::Damaged { kind: kind.name(), what: format!("not base64: {error}") })
}

/// The bytes in the armoured file at `path`.
///
/// # Errors
/// [`FileError`], naming the file.
pub fn read(path: &Path, kind: Kind) -> Result<Vec<u8>, FileError> {
    let unreadable = |source| FileError::Io { path: path.to_owned(), source };
    let malformed = |reason| FileError::Content { path: path.to_owned(), reason };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(kind.size_max() as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > kind.size_max() {
        return Err(malformed(Malformed::TooLong { kind: kind.name(), max: kind.size_max() }));
    }
    disarm(kind, &String::from_utf8_lossy(&bytes)).map_err(malformed)
}

/// Writes the armoured file at `path`, whole or not at all. An older file of this name is replaced.
///
/// # Errors
/// [`FileError::Io`]; an older file is whole then.
pub fn write(path: &Path, kind: Kind, bytes: &[u8]) -> Result<(), FileError> {
    write_text(path, &armour(kind, bytes))
}

/// Writes a text file at `path`, whole or not at all. An older file of this name is replaced.
///
/// # Errors
/// [`FileError::Io`]; an older file is whole then.
pub fn write_text(path: &Path, text: &str) -> Result<(), FileError> {
    let failed = |source| FileError::Io { path: path.to_owned(), source };
    let mut beside = path.file_name().unwrap_or_default().to_owned();
    beside.push(".new");
    let beside = path.with_file_name(beside);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path))
        .and_then(|()| sync_folder_of(path));
    written.map_err(failed)
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn decode<M: prost::Message + Default>(bytes: &[u8], kind: Kind) -> Result<M, Malformed> {
    M::decode(bytes).map_err(|error| Malformed::Damaged { kind: kind.name(), what: error.to_string() })
}

fn read_message<M: prost::Message + Default>(path: &Path, kind: Kind) -> Result<M, FileError> {
    decode(&read(path, kind)?, kind).map_err(|reason| FileError::Content { path: path.to_owned(), reason })
}

fn charters(bytes: &[Bytes], kind: Kind) -> Result<Vec<proto::SignedCharter>, Malformed> {
    if bytes.len() > CHARTERS_MAX {
        let what = format!("{} charters, at most {CHARTERS_MAX} are read", bytes.len());
        return Err(Malformed::Damaged { kind: kind.name(), what });
    }
    bytes.iter().map(|charter| decode(charter, kind)).collect()
}

fn encoded(charters: &[proto::SignedCharter]) -> Vec<Bytes> {
    charters.iter().map(|charter| charter.encode_to_vec().into()).collect()
}

/// The file that a newcomer joins with: the whole charter chain. Not secret, and not believed.
#[derive(Clone, Debug, PartialEq)]
pub struct Invitation {
    /// The forum that the file says it is for. Used in messages only.
    pub forum: ForumId,
    /// Versions 1, 2, ...
    pub charters: Vec<proto::SignedCharter>,
    /// The file of the taxonomy that the newest charter names. Empty: it names none, or it was not at hand.
    pub taxonomy: Bytes,
}

impl Invitation {
    /// Reads the invitation at `path`; nothing in it is verified.
    ///
    /// # Errors
    /// [`FileError`], naming the file.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let malformed = |reason| FileError::Content { path: path.to_owned(), reason };
        let file: local::InvitationFile = read_message(path, Kind::Invitation)?;
        let damaged = |what: &str| Malformed::Damaged { kind: Kind::Invitation.name(), what: what.to_owned() };
        let forum =
            ForumId::from_slice(&file.forum_id).ok_or_else(|| malformed(damaged("forum_id has not 32 bytes")))?;
        let charters = charters(&file.charters, Kind::Invitation).map_err(malformed)?;
        if charters.is_empty() {
            return Err(malformed(damaged("there is no charter in it")));
        }
        Ok(Self { forum, charters, taxonomy: file.taxonomy })
    }

    /// Writes it to `path`.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        write(path, Kind::Invitation, &self.encode())
    }

    /// What is inside the armour.
    pub fn encode(&self) -> Vec<u8> {
        let forum_id = Bytes::copy_from_slice(&self.forum.0);
        let taxonomy = self.taxonomy.clone();
        local::InvitationFile { forum_id, charters: encoded(&self.charters), taxonomy }.encode_to_vec()
    }

    /// The invitation to the forum of `chain`, without the file of its taxonomy.
    pub fn of(chain: &CharterChain) -> Self {
        let charters = chain.from(1).iter().map(|(signed, _)| signed.clone()).collect();
        Self { forum: chain.forum(), charters, taxonomy: Bytes::new() }
    }

    /// The chain, verified from version 1 against a fingerprint that did not come from this file.
    ///
    /// # Errors
    /// The first charter that does not count, or is of another forum.
    pub fn verify(&self, fingerprint: ForumId) -> Result<CharterChain, CharterError> {
        verify(fingerprint, &self.charters)
    }
}

/// A chain from its charters, oldest first.
///
/// # Errors
/// The first charter that does not count, or is of another forum.
pub fn verify(forum: ForumId, charters: &[proto::SignedCharter]) -> Result<CharterChain, CharterError> {
    let (first, rest) = charters.split_first().ok_or(CharterError::Gap { expected: 1, got: 0 })?;
    let mut chain = CharterChain::found(forum, first.clone())?;
    for charter in rest {
        chain.apply(charter.clone())?;
    }
    Ok(chain)
}

/// A charter that is being drawn up: founders sign it one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct CharterFile {
    /// The charter, with the signatures that it has so far.
    pub proposed: proto::SignedCharter,
    /// The versions before it; none for a first charter.
    pub before: Vec<proto::SignedCharter>,
    /// Files of the taxonomies that the charter and the one before name, as far as they are at hand.
    pub taxonomies: Vec<Bytes>,
}

impl CharterFile {
    /// Reads the charter file at `path`; nothing in it is verified.
    ///
    /// # Errors
    /// [`FileError`], naming the file.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let malformed = |reason| FileError::Content { path: path.to_owned(), reason };
        Self::of(read_message(path, Kind::Charter)?).map_err(malformed)
    }

    /// Reads the text of a charter file; nothing in it is verified.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        Self::of(decode(&disarm(Kind::Charter, text)?, Kind::Charter)?)
    }

    fn of(file: local::CharterFile) -> Result<Self, Malformed> {
        Ok(Self {
            proposed: decode(&file.proposed, Kind::Charter)?,
            before: charters(&file.before, Kind::Charter)?,
            taxonomies: file.taxonomies.into_iter().take(TAXONOMIES_MAX).collect(),
        })
    }

    /// Writes it to `path`.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        write(path, Kind::Charter, &self.encode())
    }

    /// What is inside the armour.
    pub fn encode(&self) -> Vec<u8> {
        let file = local::CharterFile {
            proposed: self.proposed.encode_to_vec().into(),
            before: encoded(&self.before),
            taxonomies: self.taxonomies.clone(),
        };
        file.encode_to_vec()
    }

    /// The charter's fields. A draft need not satisfy the rules of a charter yet.
    ///
    /// # Errors
    /// The body does not decode.
    pub fn body(&self) -> Result<proto::Charter, Malformed> {
        decode(&self.proposed.body, Kind::Charter)
    }
}

/// The public half of a founder's key, as a file.
pub fn founder_file(key: &VerifyingKey) -> String {
    let file = local::FounderKeyFile { public_key: Bytes::copy_from_slice(key.as_bytes()) };
    armour(Kind::FounderKey, &file.encode_to_vec())
}

/// Reads the founder's public key at `path`.
///
/// # Errors
/// [`FileError`], naming the file; also for a key that may not enter a charter (S3).
pub fn read_founder(path: &Path) -> Result<VerifyingKey, FileError> {
    let file: local::FounderKeyFile = read_message(path, Kind::FounderKey)?;
    let unsound = || Malformed::Damaged { kind: Kind::FounderKey.name(), what: "its key is not sound".to_owned() };
    public_key(&file.public_key).ok_or_else(|| FileError::Content { path: path.to_owned(), reason: unsound() })
}

/// What a join request is bound to, so that nobody can use it elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// A forum that exists.
    Forum(ForumId),
    /// The founding draft with this nonce.
    Founding([u8; 32]),
}

impl Binding {
    /// The 32 bytes that the proof of possession is made over.
    pub fn context(&self) -> &[u8; 32] {
        match self {
            Self::Forum(forum) => &forum.0,
            Self::Founding(nonce) => nonce,
        }
    }
}

/// What a company says of itself when it asks to be admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applicant {
    /// The forum, or its founding draft.
    pub binding: Binding,
    /// Drawn once, for ever.
    pub member: MemberId,
    /// What people call it.
    pub name: String,
    /// Companies under one owner write the same group.
    pub group: String,
    /// ISO 3166 codes.
    pub jurisdictions: Vec<String>,
    /// BCP 47 tags of the languages it reviews.
    pub languages: Vec<String>,
    /// Pins of its node's TLS keys.
    pub pins: Vec<Pin>,
    /// Where its node is found.
    pub endpoints: Vec<String>,
    /// What peppers are sealed to, if it has such a key.
    pub seal_key: Option<SealKey>,
}

/// A join request whose fields are sound and whose signature and proof of possession hold. Whether the company is who
/// it says, founders find out by telephone, with the key words.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// What it says.
    pub applicant: Applicant,
    /// The key that opens its logs.
    pub root_key: VerifyingKey,
    /// Proof of possession of it.
    pub pop: Bytes,
    /// The whole request, for the key words.
    bytes: Vec<u8>,
}

impl JoinRequest {
    /// Makes and signs a request with the log root key.
    ///
    /// # Errors
    /// A field that no founder's command would take.
    pub fn make(applicant: &Applicant, root: &SigningKey, now: TimeMs) -> Result<Self, Malformed> {
        let copied = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        let body = local::JoinRequest {
            context: copied(applicant.binding.context()),
            founding: matches!(applicant.binding, Binding::Founding(_)),
            member_id: copied(&applicant.member.0),
            name: applicant.name.clone(),
            group: applicant.group.clone(),
            jurisdictions: applicant.jurisdictions.clone(),
            languages: applicant.languages.clone(),
            log_root_key: copied(root.verifying_key().as_bytes()),
            pop: copied(&prove_possession(root, applicant.binding.context(), applicant.member)),
            tls_spki_sha256: applicant.pins.iter().map(|pin| copied(&pin.0)).collect(),
            endpoints: applicant.endpoints.clone(),
            made_ms: now.0,
            seal_key: applicant.seal_key.map(|key| copied(key.as_bytes())).unwrap_or_default(),
        };
        let body = Bytes::from(body.encode_to_vec());
        let signature = copied(&sign(root, REQUEST_TYPE, &body));
        Self::decode(&local::SignedJoinRequest { body, signature }.encode_to_vec())
    }

    /// Reads the request at `path`.
    ///
    /// # Errors
    /// [`FileError`], naming the file and the field.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let bytes = read(path, Kind::JoinRequest)?;
        Self::decode(&bytes).map_err(|reason| FileError::Content { path: path.to_owned(), reason })
    }

    /// Reads a request from what is inside the armour.
    ///
    /// # Errors
    /// [`Malformed`], naming the field.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let signed: local::SignedJoinRequest = decode(bytes, Kind::JoinRequest)?;
        let body: local::JoinRequest = decode(&signed.body, Kind::JoinRequest)?;
        let root_key = public_key(&body.log_root_key).ok_or_else(|| damaged("its log root key is not sound"))?;
        let applicant = applicant(&body)?;
        check_applicant(&applicant)?;
        if !signature_holds(&root_key, REQUEST_TYPE, &signed.body, &signed.signature) {
            return Err(Malformed::Signature);
        }
        if !possession_holds(&root_key, applicant.member, &body.pop, &[applicant.binding.context()]) {
            return Err(Malformed::Possession);
        }
        Ok(Self { applicant, root_key, pop: body.pop, bytes: bytes.to_vec() })
    }

    /// The request as a file has it.
    pub fn to_text(&self) -> String {
        armour(Kind::JoinRequest, &self.bytes)
    }

    /// What is inside the armour: the bytes that the key words stand for.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes it to `path`.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        write(path, Kind::JoinRequest, &self.bytes)
    }
}

fn damaged(what: &str) -> Malformed {
    Malformed::Damaged { kind: Kind::JoinRequest.name(), what: what.to_owned() }
}

fn applicant(body: &local::JoinRequest) -> Result<Applicant, Malformed> {
    let context: [u8; 32] = body.context[..].try_into().map_err(|_wrong_length| damaged("context has not 32 bytes"))?;
    let pins: Option<Vec<_>> = body.tls_spki_sha256.iter().map(|pin| Pin::from_slice(pin)).collect();
    let seal_key = match &body.seal_key[..] {
        [] => None,
        key => Some(SealKey::from_slice(key).ok_or_else(|| damaged("its seal key is not sound"))?),
    };
    Ok(Applicant {
        binding: if body.founding { Binding::Founding(context) } else { Binding::Forum(ForumId(context)) },
        member: MemberId::from_slice(&body.member_id).ok_or_else(|| damaged("member_id has not 16 bytes"))?,
        name: body.name.clone(),
        group: body.group.clone(),
        jurisdictions: body.jurisdictions.clone(),
        languages: body.languages.clone(),
        pins: pins.ok_or_else(|| damaged("a TLS pin has not 32 bytes"))?,
        endpoints: body.endpoints.clone(),
        seal_key,
    })
}

/// Whether a company may say this of itself. Names reach the terminals of others, therefore no control characters.
///
/// # Errors
/// [`Malformed::Field`].
pub fn check_applicant(applicant: &Applicant) -> Result<(), Malformed> {
    let wrong = |field, got: &str, expected| {
        Err(Malformed::Field { field, got: got.chars().take(NAME_CHARS_MAX).collect(), expected })
    };
    if !is_name(&applicant.name) {
        return wrong("name", &applicant.name, NAME_RULE);
    }
    if !is_name(&applicant.group) {
        return wrong("group", &applicant.group, NAME_RULE);
    }
    if applicant.jurisdictions.is_empty() || applicant.jurisdictions.len() > JURISDICTIONS_MAX {
        return wrong("jurisdiction", &applicant.jurisdictions.len().to_string(), "1 to 64 of them");
    }
    if let Some(code) = applicant.jurisdictions.iter().find(|code| !is_jurisdiction(code)) {
        return wrong("jurisdiction", code, "an ISO 3166 code in capitals, as in FR or US-CA");
    }
    if applicant.languages.len() > LANGUAGES_MAX {
        return wrong("language", &applicant.languages.len().to_string(), "at most 64 of them");
    }
    if let Some(tag) = applicant.languages.iter().find(|tag| !is_language(tag)) {
        return wrong("language", tag, "a BCP 47 tag, as in fr or pt-BR");
    }
    if applicant.pins.is_empty() || applicant.pins.len() > PINS_PER_NODE_MAX {
        return wrong("TLS pins", &applicant.pins.len().to_string(), "1 to 4 of them");
    }
    if applicant.endpoints.is_empty() || applicant.endpoints.len() > ENDPOINTS_MAX {
        return wrong("endpoint", &applicant.endpoints.len().to_string(), "1 to 4 of them");
    }
    for endpoint in &applicant.endpoints {
        if let Err(expected) = check_endpoint(endpoint) {
            return wrong("endpoint", endpoint, expected);
        }
    }
    Ok(())
}

/// What [`is_name`] asks for, in words.
pub const NAME_RULE: &str =
    "1 to 64 letters, digits, spaces, dots, hyphens or underscores, beginning and ending with a letter or digit";

/// Whether a company or a group may be called so.
pub fn is_name(name: &str) -> bool {
    let ends = name.chars().next().zip(name.chars().next_back());
    name.chars().count() <= NAME_CHARS_MAX
        && ends.is_some_and(|(first, last)| first.is_alphanumeric() && last.is_alphanumeric())
        && name.chars().all(|c| c.is_alphanumeric() || " .-_".contains(c))
}

/// Whether `code` looks like one of ISO 3166: `FR`, `US-CA`.
pub fn is_jurisdiction(code: &str) -> bool {
    let (country, part) = code.split_once('-').map_or((code, None), |(country, part)| (country, Some(part)));
    let capitals = |text: &str| text.bytes().all(|b| b.is_ascii_uppercase());
    let part_fits = |part: &str| {
        (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
    };
    country.len() == 2 && capitals(country) && part.is_none_or(part_fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn acme() -> Applicant {
        Applicant {
            binding: Binding::Forum(ForumId([0xf0; 32])),
            member: MemberId([0x11; 16]),
            name: "acme".to_owned(),
            group: "Acme".to_owned(),
            jurisdictions: vec!["FR".to_owned(), "US-CA".to_owned()],
            languages: vec!["fr".to_owned(), "pt-BR".to_owned()],
            pins: vec![Pin([3; 32])],
            endpoints: vec!["acme.example.org:7700".to_owned()],
            seal_key: SealKey::from_slice(&[9; 32]),
        }
    }

    fn request() -> JoinRequest {
        JoinRequest::make(&acme(), &root(), TimeMs(1_795_000_000_000)).unwrap()
    }

    #[test]
    fn armour_comes_off_again_whatever_mail_did_to_it() {
        for len in [0, 1, 47, 48, 49, 1_000] {
            let bytes: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let text = armour(Kind::Charter, &bytes);
            assert!(text.lines().all(|line| line.len() <= 64));
            let mailed = format!("Dear founder,\r\n{}\r\nregards", text.replace('\n', "\r\n  "));
            for text in [text, mailed] {
                assert_eq!(disarm(Kind::Charter, &text).unwrap(), bytes);
            }
        }
    }

    #[test]
    fn what_is_not_the_file_that_was_asked_for_is_refused_by_name() {
        let request = armour(Kind::JoinRequest, b"some bytes of a request");
        let cut = &request[..request.len() - 10];
        for (text, expected) in [
            (
                "-----BEGIN CERTIFICATE-----",
                "not a join request (.sdj): there is no line -----BEGIN STAYDOWN JOIN REQUEST-----",
            ),
            ("", "not a join request (.sdj)"),
            (&armour(Kind::Invitation, b"x"), "found: invitation (.sdi), expected: join request (.sdj)"),
            (cut, "the join request (.sdj) is cut off"),
            (&request.replace("c29t", "c2*t"), "the join request (.sdj) is damaged: not base64"),
        ] {
            let message = disarm(Kind::JoinRequest, text).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long.sdj");
        fs::write(&path, vec![b'a'; REQUEST_SIZE_MAX + 1]).unwrap();
        let message = JoinRequest::read(&path).unwrap_err().to_string();
        assert!(message.ends_with("long.sdj: the join request (.sdj) has more than 65536 characters"), "{message}");
        assert!(matches!(JoinRequest::read(&dir.path().join("none.sdj")), Err(FileError::Io { .. })));
    }

    #[test]
    fn a_request_is_read_as_it_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("join-request.sdj");
        let made = request();
        made.write(&path).unwrap();
        let read = JoinRequest::read(&path).unwrap();
        assert_eq!((read.applicant, read.bytes), (acme(), made.bytes));
        assert_eq!(read.root_key, root().verifying_key());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside the file");
    }

    #[test]
    fn a_request_that_was_changed_is_refused() {
        let bytes = request().bytes;
        let mut refused = 0;
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            refused += usize::from(JoinRequest::decode(&changed).is_err());
        }
        assert_eq!(refused, bytes.len());
    }

    #[test]
    fn a_request_for_one_forum_proves_nothing_to_another() {
        let signed = local::SignedJoinRequest::decode(&request().bytes[..]).unwrap();
        let mut body = local::JoinRequest::decode(&signed.body[..]).unwrap();
        body.context = vec![1; 32].into();
        let body = Bytes::from(body.encode_to_vec());
        let signature = Bytes::copy_from_slice(&sign(&root(), REQUEST_TYPE, &body));
        let moved = local::SignedJoinRequest { body, signature }.encode_to_vec();
        assert_eq!(JoinRequest::decode(&moved).unwrap_err(), Malformed::Possession);
    }

    #[test]
    fn what_a_company_may_not_say_of_itself_is_refused_with_the_field() {
        let refused = |field: &str, change: fn(&mut Applicant)| {
            let mut applicant = acme();
            change(&mut applicant);
            let error = JoinRequest::make(&applicant, &root(), TimeMs(0)).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{field}: got ")), "{field}: {error}");
        };
        refused("name", |a| a.name.clear());
        refused("name", |a| a.name = "x".repeat(65));
        refused("name", |a| a.name = "acme\u{1b}[2J".to_owned());
        refused("name", |a| a.name = "a=b".to_owned());
        refused("group", |a| a.group = " ".to_owned());
        refused("jurisdiction", |a| a.jurisdictions.clear());
        refused("jurisdiction", |a| a.jurisdictions = vec!["fr".to_owned()]);
        refused("jurisdiction", |a| a.jurisdictions = vec!["FRA".to_owned()]);
        refused("jurisdiction", |a| a.jurisdictions = vec!["US-CALI".to_owned()]);
        refused("language", |a| a.languages = vec!["f".to_owned()]);
        refused("TLS pins", |a| a.pins.clear());
        refused("TLS pins", |a| a.pins = vec![Pin([1; 32]); 5]);
        refused("endpoint", |a| a.endpoints.clear());
        refused("endpoint", |a| a.endpoints = vec!["acme.example.org".to_owned()]);
        refused("endpoint", |a| a.endpoints = vec!["a:1".to_owned(); 5]);
    }

    #[test]
    fn a_founders_key_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("founder.pub");
        write_text(&path, &founder_file(&root().verifying_key())).unwrap();
        assert_eq!(read_founder(&path).unwrap(), root().verifying_key());
        write(&path, Kind::FounderKey, &[10, 32]).unwrap();
        assert!(matches!(read_founder(&path), Err(FileError::Content { .. })));
        let weak = local::FounderKeyFile { public_key: vec![0; 32].into() };
        write(&path, Kind::FounderKey, &weak.encode_to_vec()).unwrap();
        assert!(read_founder(&path).unwrap_err().to_string().contains("its key is not sound"));
    }

    #[test]
    fn an_invitation_without_charters_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("invite.sdi");
        Invitation { forum: ForumId([1; 32]), charters: Vec::new(), taxonomy: Bytes::new() }.write(&path).unwrap();
        assert!(Invitation::read(&path).unwrap_err().to_string().contains("there is no charter in it"));
        let file =
            local::InvitationFile { forum_id: vec![1; 31].into(), charters: vec![Bytes::new()], ..Default::default() };
        write(&path, Kind::Invitation, &file.encode_to_vec()).unwrap();
        assert!(Invitation::read(&path).unwrap_err().to_string().contains("forum_id has not 32 bytes"));
    }

    #[test]
    fn a_charter_file_carries_the_versions_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("charter-2.sdc");
        let signed = |byte: u8| proto::SignedCharter { body: vec![byte; 3].into(), sigs: Vec::new() };
        let file =
            CharterFile { proposed: signed(2), before: vec![signed(1)], taxonomies: vec![Bytes::from_static(b"name")] };
        file.write(&path).unwrap();
        assert_eq!(CharterFile::read(&path).unwrap(), file);
        assert!(file.body().is_err());
    }
}
