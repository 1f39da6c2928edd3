//! Small named values: members, logs, positions and hashes never meet as bare integers or byte strings.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// SHA-256 of the concatenation of `parts` (PROTOCOL section 1, `H`).
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Lowercase hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $size:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $size]);

        impl $name {
            /// Length in bytes.
            pub const SIZE: usize = $size;

            /// The value, if `bytes` has the right length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8; $size] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}..)"), hex(&self.0[..4]))
            }
        }
    };
}

byte_id!(
    /// A company in the charter: 16 random bytes, for ever.
    MemberId, 16
);
byte_id!(
    /// The forum's name: the hash of its first charter.
    ForumId, 32
);
byte_id!(
    /// Hash of a charter body (PROTOCOL S5).
    CharterHash, 32
);
byte_id!(
    /// Hash of a block header (PROTOCOL S5).
    HeaderHash, 32
);
byte_id!(
    /// SHA-256 of a public key: the only name of a key (PROTOCOL S4).
    KeyId, 32
);
byte_id!(
    /// SHA-256 of a TLS leaf certificate's `SubjectPublicKeyInfo`: how a node is recognised.
    Pin, 32
);
byte_id!(
    /// Hash of a subject's type, algorithm, parameter and digest (PROTOCOL S5).
    SubjectId, 32
);

impl HeaderHash {
    /// What stands before the first block of a log.
    pub const ZERO: Self = Self([0; 32]);
}

impl KeyId {
    /// The name of `public_key` (32 bytes, Ed25519).
    pub fn of(public_key: &[u8]) -> Self {
        Self(sha256(&[public_key]))
    }
}

/// Number of a log within its member; below the member's `log_limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogNo(pub u32);

/// Position of a block in its log: 1, 2, 3, ... 0 stands for "nothing yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The next position.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The position before; 0 stays 0.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// Unix milliseconds, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeMs(pub u64);

impl TimeMs {
    /// One UTC hour in milliseconds.
    pub const HOUR_MS: u64 = 3_600_000;
    /// One UTC day in milliseconds.
    pub const DAY_MS: u64 = 24 * Self::HOUR_MS;

    /// Whether what ends at this time has ended at `t`; 0 is no end.
    pub fn has_ended(self, t: Self) -> bool {
        self > Self(0) && self <= t
    }

    /// This time plus `ms` milliseconds.
    #[must_use]
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this time; 0 if it is not earlier.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The start of the UTC hour that this time is in.
    #[must_use]
    pub fn hour(self) -> Self {
        Self(self.0 - self.0 % Self::HOUR_MS)
    }

    /// The UTC day, counted from the epoch.
    pub fn day(self) -> u64 {
        self.0 / Self::DAY_MS
    }
}

/// One log of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Whose log.
    pub member: MemberId,
    /// Which of the member's logs.
    pub log_no: LogNo,
}

impl Origin {
    /// Length of the binary form in bytes.
    pub const SIZE: usize = 20;

    /// `member_id(16) || log_no(4)`.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..16].copy_from_slice(&self.member.0);
        bytes[16..].copy_from_slice(&self.log_no.0.to_be_bytes());
        bytes
    }

    /// The inverse of [`Origin::to_bytes`].
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let (member, log_no) = bytes.split_at(16);
        Self {
            member: MemberId(member.try_into().unwrap_or_default()),
            log_no: LogNo(u32::from_be_bytes(log_no.try_into().unwrap_or_default())),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.member, self.log_no.0)
    }
}

/// The lane of a log (header field `class`): urgent overtakes normal, normal overtakes bulk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Everyday submissions.
    Normal,
    /// Incidents: first on every stream.
    Urgent,
    /// Backfills: at most half of a stream while others wait.
    Bulk,
}

impl Class {
    /// All lanes, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Normal, Self::Urgent, Self::Bulk];

    /// The number in the header.
    pub fn number(self) -> u16 {
        match self {
            Self::Normal => 0,
            Self::Urgent => 1,
            Self::Bulk => 2,
        }
    }

    /// Index into the charter's `quota_per_day`.
    pub fn index(self) -> usize {
        usize::from(self.number())
    }

    /// The lane of a header's number, if this release knows it.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.number() == number)
    }

    /// Rank in the order of work: urgent 0, normal 1, bulk 2 (PROTOCOL 6.2).
    pub fn rank(self) -> u8 {
        match self {
            Self::Urgent => 0,
            Self::Normal => 1,
            Self::Bulk => 2,
        }
    }

    /// The name people see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Urgent => "urgent",
            Self::Bulk => "bulk",
        }
    }
}

/// A block's place: which log, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId {
    /// The log.
    pub origin: Origin,
    /// The place in it.
    pub seq: Seq,
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.origin, self.seq.0)
    }
}

/// A position together with the hash of what stands there (`Head` on the wire).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head {
    /// The last position held.
    pub seq: Seq,
    /// Hash of the header there.
    pub hash: HeaderHash,
}
