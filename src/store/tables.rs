//! The store's table of contents: every tree, its key and its value.
//!
//! | tree | key | value (sealed) |
//! | --- | --- | --- |
//! | `meta` | name, ASCII | `format`: version u32; `writes`: number of writes u64; the rest belongs to the engine |
//! | `charters` | version u64 | `SignedCharter` as received |
//! | `blocks` | origin (20), seq u64 | block frame as received |
//! | `proofs` | hash (32) | fork or fault proof as received |
//!
//! Numbers are big endian, so that keys sort like the numbers. Every value is **sealed**: a version byte, a CRC-32C
//! over tree, key and value, then the value. So bit rot that sled does not notice is noticed, and so is a value that
//! turns up under another key.

use crate::replica::ids::{BlockId, Origin, Seq};

/// The version of the whole layout, kept in `meta` under [`FORMAT_KEY`].
pub const FORMAT: u32 = 1;

/// Where [`FORMAT`] is kept. Reserved: [`super::Write::Meta`] may not touch it.
pub const FORMAT_KEY: &[u8] = b"format";

/// Where the number of writes is kept, which tells whether sled has lost some. Reserved like [`FORMAT_KEY`].
pub const WRITES_KEY: &[u8] = b"writes";

/// First byte of every stored value.
pub const VALUE_VERSION: u8 = 1;

/// Bytes that sealing adds to a value.
pub const SEAL_BYTES: usize = 5;

/// A tree of the store. The order is the order of writing: what comes later in the file is lost first in a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tree {
    /// Charter versions.
    Charters,
    /// Blocks of all logs.
    Blocks,
    /// Fork and fault proofs.
    Proofs,
    /// Small values of the engine, and the format.
    Meta,
}

impl Tree {
    /// All trees, in the order of writing.
    pub const ALL: [Self; 4] = [Self::Charters, Self::Blocks, Self::Proofs, Self::Meta];

    /// The tree's name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Charters => "charters",
            Self::Blocks => "blocks",
            Self::Proofs => "proofs",
            Self::Meta => "meta",
        }
    }

    pub(super) fn index(self) -> usize {
        match self {
            Self::Charters => 0,
            Self::Blocks => 1,
            Self::Proofs => 2,
            Self::Meta => 3,
        }
    }

    /// Whether `key` has the form of this tree's keys.
    pub fn is_key(self, key: &[u8]) -> bool {
        match self {
            Self::Charters => key.len() == 8,
            Self::Blocks => key.len() == BLOCK_KEY_BYTES,
            Self::Proofs => key.len() == 32,
            Self::Meta => !key.is_empty(),
        }
    }
}

/// Length of a block's key in bytes.
pub const BLOCK_KEY_BYTES: usize = Origin::SIZE + 8;

/// The key of a block: its origin, then its place, so that a log is one range.
pub fn block_key(id: BlockId) -> [u8; BLOCK_KEY_BYTES] {
    let mut key = [0; BLOCK_KEY_BYTES];
    key[..Origin::SIZE].copy_from_slice(&id.origin.to_bytes());
    key[Origin::SIZE..].copy_from_slice(&id.seq.0.to_be_bytes());
    key
}

/// The inverse of [`block_key`].
pub fn parse_block_key(key: &[u8]) -> Option<BlockId> {
    let (origin, seq) = key.split_at_checked(Origin::SIZE)?;
    Some(BlockId { origin: Origin::from_bytes(origin.try_into().ok()?), seq: Seq(parse_number_key(seq)?) })
}

/// The key of a charter version.
pub fn number_key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// The inverse of [`number_key`].
pub fn parse_number_key(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

/// `value` as it is stored under `key` in `tree`.
pub fn seal(tree: Tree, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(SEAL_BYTES + value.len());
    sealed.push(VALUE_VERSION);
    sealed.extend_from_slice(&checksum(tree, key, value).to_be_bytes());
    sealed.extend_from_slice(value);
    sealed
}

/// The value in `sealed`, or why it cannot be believed.
///
/// # Errors
/// [`SealBroken`]: too short, of another version, or not what was stored under this key.
pub fn unseal<'a>(tree: Tree, key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], SealBroken> {
    let Some((&[version, a, b, c, d], value)) = sealed.split_first_chunk::<SEAL_BYTES>() else {
        return Err(SealBroken::Short { got: sealed.len() });
    };
    if version != VALUE_VERSION {
        return Err(SealBroken::Version { got: version });
    }
    let (got, expected) = (checksum(tree, key, value), u32::from_be_bytes([a, b, c, d]));
    if got == expected { Ok(value) } else { Err(SealBroken::Checksum { got, expected }) }
}

/// Why a stored value cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealBroken {
    /// Not even a seal.
    #[error("the value has {got} bytes, expected at least {SEAL_BYTES}")]
    Short {
        /// Its length in bytes.
        got: usize,
    },
    /// Unknown first byte.
    #[error("the value has version {got}, expected {VALUE_VERSION}")]
    Version {
        /// The first byte.
        got: u8,
    },
    /// Bit rot, or a value under the wrong key.
    #[error("the value's checksum is {got:08x}, expected {expected:08x}")]
    Checksum {
        /// Computed from what was read.
        got: u32,
        /// Stored with it.
        expected: u32,
    },
}

fn checksum(tree: Tree, key: &[u8], value: &[u8]) -> u32 {
    let crc = crc32c::crc32c(tree.name().as_bytes());
    let crc = crc32c::crc32c_append(crc, &(key.len() as u64).to_be_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::ids::{LogNo, MemberId};

    #[test]
    fn trees_are_numbered_in_the_order_of_writing() {
        for (index, tree) in Tree::ALL.into_iter().enumerate() {
            assert_eq!(tree.index(), index);
        }
        assert_eq!(Tree::ALL.map(Tree::name), ["charters", "blocks", "proofs", "meta"]);
    }

    #[test]
    fn keys_sort_like_what_they_name() {
        let id = |member, log_no, seq| BlockId {
            origin: Origin { member: MemberId([member; 16]), log_no: LogNo(log_no) },
            seq: Seq(seq),
        };
        let ids =
            [id(1, 0, 1), id(1, 0, 2), id(1, 0, 256), id(1, 1, 1), id(1, 256, 1), id(2, 0, 1), id(2, 0, u64::MAX)];
        let keys: Vec<_> = ids.iter().map(|id| block_key(*id)).collect();
        assert!(keys.is_sorted());
        assert!(keys.iter().zip(ids).all(|(key, id)| parse_block_key(key) == Some(id) && Tree::Blocks.is_key(key)));
        assert_eq!(parse_block_key(&keys[0][1..]), None);
        assert_eq!(parse_number_key(&number_key(77)), Some(77));
        assert_eq!(parse_number_key(&[1]), None);
    }

    #[test]
    fn a_seal_notices_every_flipped_bit_and_every_other_place() {
        let sealed = seal(Tree::Proofs, b"key", b"value");
        assert_eq!(unseal(Tree::Proofs, b"key", &sealed), Ok(&b"value"[..]));
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(Tree::Proofs, b"key", &flipped).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(unseal(Tree::Proofs, b"key", &sealed[..length]).is_err());
        }
        assert!(unseal(Tree::Proofs, b"kez", &sealed).is_err());
        assert!(unseal(Tree::Charters, b"key", &sealed).is_err());
    }

    #[test]
    fn the_sealed_form_stays_as_it_is() {
        // Files of old nodes look like this. Computed with an independent CRC-32C.
        assert_eq!(crate::replica::ids::hex(&seal(Tree::Charters, &number_key(1), b"acme")), SEALED_BY_FORMAT_1);
    }

    const SEALED_BY_FORMAT_1: &str = "01fa6ede9361636d65";
}
