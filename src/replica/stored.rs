//! How what a view has made is written into its image and read again: little-endian, field after field.
//!
//! A reader believes nothing: whatever the bytes are, it ends with a value or with [`Damaged`], and holds no more memory
//! than a small multiple of what it was given.

use std::collections::{BTreeMap, BTreeSet};

use super::block::RECORD_SIZE_MAX;
use super::ids::{BlockId, CharterHash, Class, LogNo, MemberId, Origin, Seq, TimeMs};
use super::signal::Subject;

/// Why bytes are no image that can be used. Nothing was taken from them: the blocks say the same, only slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// More was announced than there is.
    #[error("the image ends early")]
    Short,
    /// More is there than was announced.
    #[error("the image goes on after its end")]
    Long,
    /// Another release wrote it.
    #[error("the image is of version {got}, expected {expected}")]
    Version {
        /// As it stands there.
        got: u32,
        /// Of this release.
        expected: u32,
    },
    /// It was made under another charter, so other words count in it.
    #[error("the image is of charter {got}, expected {expected}")]
    Charter {
        /// As it stands there.
        got: CharterHash,
        /// The one in force.
        expected: CharterHash,
    },
    /// A length is beyond what there can be.
    #[error("the image has a length that is not possible")]
    Size,
    /// What has to ascend does not.
    #[error("the image is not in order")]
    Order,
    /// A number names something that is not there.
    #[error("the image has a number that names nothing")]
    Number,
    /// A text is not UTF-8.
    #[error("the image has a text that is not UTF-8")]
    Text,
}

/// Where the bytes of an image come from, from its beginning on.
pub struct Source<'a> {
    fill: &'a mut dyn FnMut(&mut [u8]) -> Result<(), Damaged>,
}

impl<'a> Source<'a> {
    /// `fill` fills its argument with the next bytes, all of it.
    pub fn new(fill: &'a mut dyn FnMut(&mut [u8]) -> Result<(), Damaged>) -> Self {
        Self { fill }
    }

    /// The next bytes.
    ///
    /// # Errors
    /// When they end before.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Damaged> {
        (self.fill)(bytes)
    }

    /// A length and as many bytes: no more than a record holds.
    fn bytes(&mut self) -> Result<Vec<u8>, Damaged> {
        let len = u32::load(self)? as usize;
        if len > RECORD_SIZE_MAX {
            return Err(Damaged::Size);
        }
        let mut bytes = vec![0; len];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }
}

/// What can be written into an image.
pub(super) trait Stored: Sized {
    /// Adds it to `out`.
    fn store(&self, out: &mut Vec<u8>);
    /// The inverse of [`Stored::store`].
    fn load(source: &mut Source<'_>) -> Result<Self, Damaged>;
}

/// Writes the named fields of a type one after the other: all that it has, else it does not compile.
macro_rules! stored {
    (<$t:ident> $name:ident { $($field:tt),+ }) => {
        stored!(@ [<$t: $crate::replica::stored::Stored>] [$name<$t>] { $($field),+ });
    };
    ($name:ident { $($field:tt),+ }) => {
        stored!(@ [] [$name] { $($field),+ });
    };
    (@ [$($bound:tt)*] [$($name:tt)+] { $($field:tt),+ }) => {
        impl $($bound)* $crate::replica::stored::Stored for $($name)+ {
            fn store(&self, out: &mut Vec<u8>) {
                $(self.$field.store(out);)+
            }

            fn load(
                source: &mut $crate::replica::stored::Source<'_>,
            ) -> Result<Self, $crate::replica::stored::Damaged> {
                Ok(Self { $($field: $crate::replica::stored::Stored::load(source)?),+ })
            }
        }
    };
}
pub(super) use stored;

macro_rules! stored_numbers {
    ($($number:ty),+) => {$(
        impl Stored for $number {
            fn store(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn load(source: &mut Source<'_>) -> Result<Self, Damaged> {
                <[u8; size_of::<Self>()]>::load(source).map(Self::from_le_bytes)
            }
        }
    )+};
}
stored_numbers!(u8, u16, u32, u64);

macro_rules! stored_tuples {
    ($($($part:ident),+;)+) => {$(
        impl<$($part: Stored),+> Stored for ($($part,)+) {
            fn store(&self, out: &mut Vec<u8>) {
                #[expect(non_snake_case, reason = "the types give the parts their names")]
                let ($($part,)+) = self;
                $($part.store(out);)+
            }

            fn load(source: &mut Source<'_>) -> Result<Self, Damaged> {
                Ok(($($part::load(source)?,)+))
            }
        }
    )+};
}
stored_tuples!(A, B; A, B, C; A, B, C, D;);

stored!(MemberId { 0 });
stored!(CharterHash { 0 });
stored!(LogNo { 0 });
stored!(Seq { 0 });
stored!(TimeMs { 0 });
stored!(Origin { member, log_no });
stored!(BlockId { origin, seq });

impl Stored for [u32; 2] {
    fn store(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|number| number.store(out));
    }

    fn load(source: &mut Source<'_>) -> Result<Self, Damaged> {
        <(u32, u32)>::load(source).map(|(first, second)| [first, second])
    }
}

impl<const N: usize> Stored for [u8; N] {
    fn store(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn load(source: &mut Source<'_>) -> Result<Self, Damaged> {
        let mut bytes = [0; N];
        source.fill(&mut bytes)?;
        Ok(bytes)
    }
}

impl Stored for bool {
    fn store(&self, out: &mut Vec<u8>) {
        u8::from(*self).store(out);
    }

    fn load(source: &mut Source<'_>) -> Result<Self, Damaged> {
        match u8::load(source)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damaged::Number),
        }
    }
}

impl<T: Stored> Stored for Option<T> {
    fn store(&self, out: &mut Vec<u8>) {
        self.is_some().store(out);
        self.iter().for_each(|held| held.store(out));
    }

    fn load(source: &mut Source<'_>) -> Result<Self, Damaged> {
        bool::load(source)?.then(|| T::load(source)).transpose()
    }
}

impl Stored for Class {
    fn store(&self, out: &mut Vec<u8>) {
        self.number().store(out);
    }

    fn load(source: &mut Source<'_>) -> Result<Self, Damaged> {
        Self::from_number(u16::load(source)?).ok_or(Damaged::Number)
    }
}

impl Stored for String {
    fn store(&self, out: &mut Vec<u8>) {
        list_len(self.len()).store(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn load(source: &mut Source<'_>) -> Result<Self, Damaged> {
        Self::from_utf8(source.bytes()?).map_err(|_wrong| Damaged::Text)
    }
}

impl Stored for Subject {
    fn store(&self, out: &mut Vec<u8>) {
        (self.kind(), self.alg(), self.param()).store(out);
        list_len(self.digest().len()).store(out);
        out.extend_from_slice(self.digest());
    }

    fn load(source: &mut Source<'_>) -> Result<Self, Damaged> {
        let (kind, alg, param) = <(u16, u16, u32)>::load(source)?;
        Ok(Self::new(kind, alg, param, &source.bytes()?))
    }
}

/// Texts, digests and lists are bounded by the size of a record.
fn list_len(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// A list, whose room is taken as its items come: a length that lies is found out before it costs anything.
fn load_all<T: Stored, L: FromIterator<T>>(source: &mut Source<'_>) -> Result<L, Damaged> {
    let len = u64::load(source)?;
    (0..len).map(|_| T::load(source)).collect()
}

impl<T: Stored> Stored for Vec<T> {
    fn store(&self, out: &mut Vec<u8>) {
        (self.len() as u64).store(out);
        self.iter().for_each(|item| item.store(out));
    }

    fn load(source: &mut Source<'_>) -> Result<Self, Damaged> {
        load_all(source)
    }
}

impl<T: Stored + Ord> Stored for BTreeSet<T> {
    fn store(&self, out: &mut Vec<u8>) {
        (self.len() as u64).store(out);
        self.iter().for_each(|item| item.store(out));
    }

    fn load(source: &mut Source<'_>) -> Result<Self, Damaged> {
        load_all(source)
    }
}

impl<K: Stored + Ord, V: Stored> Stored for BTreeMap<K, V> {
    fn store(&self, out: &mut Vec<u8>) {
        (self.len() as u64).store(out);
        for (key, value) in self {
            key.store(out);
            value.store(out);
        }
    }

    fn load(source: &mut Source<'_>) -> Result<Self, Damaged> {
        load_all::<(K, V), _>(source)
    }
}
