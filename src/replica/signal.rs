//! Kinds of signal: parsing, normal form, printing, distance (SIGNALS.md; PROTOCOL S5).

use std::fmt;

use super::ids::{SubjectId, sha256};

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
    Inline { len: u8, bytes: [u8; Digest::INLINE_MAX] },
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

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({}:{})", self.alg, super::ids::hex(self.digest()))
    }
}

/// Stub.
pub const KIND_ACCOUNT: u16 = 3;
/// Stub.
pub const ALG_PDQ: u16 = 1;
/// Stub.
pub fn is_well_formed(s: &Subject) -> bool { s.digest().len() == 32 || s.alg() != 4 }
/// Stub.
pub fn distance(a: &[u8; 32], b: &[u8; 32]) -> u32 { a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum() }
/// Stub.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused")]
pub struct GuardRefusal;
/// Stub.
pub fn admit(_: &Subject, _: Option<u32>) -> Result<(), GuardRefusal> { Ok(()) }
impl Subject {
    /// Stub.
    pub fn from_proto(p: &super::proto::Subject) -> Option<Self> { Some(Self::new(u16::try_from(p.r#type).ok()?, u16::try_from(p.alg).ok()?, p.param, &p.digest)) }
}
