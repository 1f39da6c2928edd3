//! The file: a line that says what it is, items with their lengths, and a trailer (docs/verify.md section 1).
//!
//! There is one way to write each thing. Whatever is encoded in another way is refused, so that two files with the same
//! content have the same bytes.

use std::io::{self, Read, Write};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::replica::ids::TimeMs;

/// Bytes of one item: a proof with two charters of the greatest size and their signatures is the longest.
pub const ITEM_SIZE_MAX: usize = 3 << 20;
/// Length of the first line of either kind of file.
const MAGIC_SIZE: usize = 19;
/// Length of the trailer.
pub const TRAILER_SIZE: usize = 104;

/// What a file is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The whole list.
    Bundle,
    /// Some records.
    Receipt,
}

impl Evidence {
    const ALL: [Self; 2] = [Self::Bundle, Self::Receipt];

    /// The first line.
    fn magic(self) -> &'static [u8; MAGIC_SIZE] {
        match self {
            Self::Bundle => b"STAYDOWN BUNDLE  1\n",
            Self::Receipt => b"STAYDOWN RECEIPT 1\n",
        }
    }
}

/// What an item holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `SignedCharter`.
    Charter,
    /// `Proof`.
    Proof,
    /// `BlockFrame`; bundles only.
    Block,
    /// `Inclusion`: a record; receipts only.
    Record,
    /// `Attested`, of the record before; receipts only.
    Attested,
    /// The end.
    Trailer,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Charter, Self::Proof, Self::Block, Self::Record, Self::Attested, Self::Trailer];

    /// The byte that stands before an item of this kind.
    pub fn letter(self) -> u8 {
        match self {
            Self::Charter => b'C',
            Self::Proof => b'P',
            Self::Block => b'B',
            Self::Record => b'R',
            Self::Attested => b'A',
            Self::Trailer => b'T',
        }
    }

    /// The kind of a letter.
    pub fn from_letter(letter: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.letter() == letter)
    }
}

/// One item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it holds.
    pub kind: Kind,
    /// Its bytes.
    pub bytes: Bytes,
}

/// How many items of each kind a file has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Charters.
    pub charters: u64,
    /// Proofs.
    pub proofs: u64,
    /// Blocks of a bundle, records of a receipt.
    pub main: u64,
    /// Records in a bundle's blocks, attestations of a receipt.
    pub inner: u64,
}

impl Counts {
    /// One more item of a kind.
    pub fn add(&mut self, kind: Kind) {
        match kind {
            Kind::Charter => self.charters += 1,
            Kind::Proof => self.proofs += 1,
            Kind::Block | Kind::Record => self.main += 1,
            Kind::Attested => self.inner += 1,
            Kind::Trailer => {}
        }
    }
}

/// What the one who wrote a file claims of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// How much there is in it.
    pub counts: Counts,
    /// A full hour, and the digest of the view at it; zeros in a receipt.
    pub view: (TimeMs, [u8; 32]),
}

impl Claim {
    fn encode(&self) -> [u8; TRAILER_SIZE - 32] {
        let Counts { charters, proofs, main, inner } = self.counts;
        let mut bytes = [0; TRAILER_SIZE - 32];
        for (place, number) in bytes.chunks_exact_mut(8).zip([charters, proofs, main, inner, self.view.0.0]) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        bytes[40..].copy_from_slice(&self.view.1);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<(Self, [u8; 32])> {
        let bytes: &[u8; TRAILER_SIZE] = bytes.try_into().ok()?;
        let number = |at: usize| u64::from_be_bytes(bytes[8 * at..8 * at + 8].try_into().unwrap_or_default());
        let hash = |at: usize| bytes[at..at + 32].try_into().unwrap_or_default();
        let counts = Counts { charters: number(0), proofs: number(1), main: number(2), inner: number(3) };
        Some((Self { counts, view: (TimeMs(number(4)), hash(40)) }, hash(72)))
    }
}

/// Writes a file, item by item.
pub struct Writer<W> {
    to: W,
    hasher: Sha256,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// What the system says.
    pub fn begin(to: W, what: Evidence) -> io::Result<Self> {
        let mut writer = Self { to, hasher: Sha256::new() };
        writer.put(what.magic())?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.to.write_all(bytes)
    }

    /// Adds an item.
    ///
    /// # Errors
    /// It is longer than [`ITEM_SIZE_MAX`], or what the system says.
    pub fn item(&mut self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= ITEM_SIZE_MAX);
        let length = length.ok_or_else(|| io::Error::other(format!("an item has {} bytes", bytes.len())))?;
        self.put(&[kind.letter()])?;
        self.put(&length.to_be_bytes())?;
        self.put(bytes)
    }

    /// Where it was written to.
    pub fn written(&self) -> &W {
        &self.to
    }

    /// Everything so far, handed to the system.
    ///
    /// # Errors
    /// What the system says.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// Ends the file.
    ///
    /// # Errors
    /// What the system says.
    pub fn end(mut self, claim: &Claim) -> io::Result<W> {
        let mut head = vec![Kind::Trailer.letter()];
        head.extend_from_slice(&u32::try_from(TRAILER_SIZE).unwrap_or(0).to_be_bytes());
        head.extend_from_slice(&claim.encode());
        self.put(&head)?;
        let hash = self.hasher.finalize();
        self.to.write_all(&hash)?;
        self.to.flush()?;
        Ok(self.to)
    }
}

/// Reads a file, item by item, and checks its form: order of kinds, lengths, counts of items, hash, and that nothing
/// follows the trailer.
pub struct Reader<R> {
    from: R,
    hasher: Sha256,
    /// What the file is about.
    pub what: Evidence,
    last: Kind,
    seen: Counts,
    claim: Option<Claim>,
    /// No trailer is written yet: the file ends with an item.
    unfinished: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the first line.
    ///
    /// # Errors
    /// It is none of ours, or what the system says.
    pub fn begin(mut from: R) -> Result<Self, Malformed> {
        let mut magic = [0; MAGIC_SIZE];
        fill(&mut from, &mut magic)
            .map_err(|e| if matches!(e, Malformed::Truncated) { Malformed::Magic } else { e })?;
        let what = Evidence::ALL.into_iter().find(|what| *what.magic() == magic).ok_or(Malformed::Magic)?;
        let hasher = Sha256::new_with_prefix(magic);
        Ok(Self { from, hasher, what, last: Kind::Charter, seen: Counts::default(), claim: None, unfinished: false })
    }

    /// As [`Reader::begin`], of a file that has no trailer yet.
    ///
    /// # Errors
    /// As [`Reader::begin`].
    pub fn begin_unfinished(from: R) -> Result<Self, Malformed> {
        Ok(Self { unfinished: true, ..Self::begin(from)? })
    }

    /// The next item; none after the trailer.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn next_item(&mut self) -> Result<Option<Item>, Malformed> {
        if self.claim.is_some() {
            return Ok(None);
        }
        let item = match self.read() {
            Err(Malformed::Truncated) if self.unfinished => return Ok(None),
            read => read?,
        };
        self.check_order(item.kind)?;
        match item.kind {
            Kind::Charter => self.seen.charters += 1,
            Kind::Proof => self.seen.proofs += 1,
            Kind::Block | Kind::Record => self.seen.main += 1,
            Kind::Attested => self.seen.inner += 1,
            Kind::Trailer => {
                self.end(&item.bytes)?;
                return Ok(None);
            }
        }
        Ok(Some(item))
    }

    /// What the trailer claims, once [`Reader::next_item`] has come to the end.
    pub fn claim(&self) -> Option<Claim> {
        self.claim
    }

    fn read(&mut self) -> Result<Item, Malformed> {
        let mut head = [0; 5];
        fill(&mut self.from, &mut head)?;
        self.hasher.update(head);
        let kind = Kind::from_letter(head[0]).ok_or(Malformed::Kind(head[0]))?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > ITEM_SIZE_MAX || (kind == Kind::Trailer && length != TRAILER_SIZE) {
            return Err(Malformed::Length(length));
        }
        let mut bytes = vec![0; length];
        fill(&mut self.from, &mut bytes)?;
        let hashed = if kind == Kind::Trailer { length - 32 } else { length };
        self.hasher.update(&bytes[..hashed]);
        Ok(Item { kind, bytes: bytes.into() })
    }

    /// Charters, proofs, then blocks; or charters, proofs, then records, each with its attestations after it.
    fn check_order(&mut self, kind: Kind) -> Result<(), Malformed> {
        let fits = match (self.what, kind) {
            (Evidence::Bundle, Kind::Record | Kind::Attested) | (Evidence::Receipt, Kind::Block) => false,
            (_, Kind::Record) => true,
            (_, Kind::Attested) => self.last >= Kind::Record,
            _ => kind >= self.last,
        };
        if !fits {
            return Err(Malformed::Order { kind: kind.letter() as char, after: self.last.letter() as char });
        }
        self.last = kind;
        Ok(())
    }

    fn end(&mut self, trailer: &[u8]) -> Result<(), Malformed> {
        let (claim, hash) = Claim::decode(trailer).ok_or(Malformed::Length(trailer.len()))?;
        if self.hasher.clone().finalize()[..] != hash {
            return Err(Malformed::Hash);
        }
        let inner = if self.what == Evidence::Bundle { claim.counts.inner } else { self.seen.inner };
        let seen = Counts { inner, ..self.seen };
        if claim.counts != seen {
            return Err(Malformed::Counts { claimed: claim.counts, found: seen });
        }
        if self.what == Evidence::Receipt && claim.view != Default::default() || claim.view.0 != claim.view.0.hour() {
            return Err(Malformed::View);
        }
        let mut more = [0];
        match self.from.read(&mut more) {
            Ok(0) => {}
            Ok(_) => return Err(Malformed::More),
            Err(error) => return Err(error.into()),
        }
        self.claim = Some(claim);
        Ok(())
    }
}

fn fill(from: &mut impl Read, bytes: &mut [u8]) -> Result<(), Malformed> {
    from.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Malformed::Truncated,
        _ => Malformed::Io(error),
    })
}

/// Why a file is no evidence file, or not a whole one.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum Malformed {
    #[error(
        "this is no evidence file: it begins with neither {:?} nor {:?}",
        "STAYDOWN BUNDLE  1",
        "STAYDOWN RECEIPT 1"
    )]
    Magic,
    #[error("the file ends before its trailer: it is not whole")]
    Truncated,
    #[error("an item has the unknown kind {:?}", *.0 as char)]
    Kind(u8),
    #[error("an item has {0} bytes")]
    Length(usize),
    #[error("an item {kind} stands after an item {after}")]
    Order { kind: char, after: char },
    #[error("the file was changed: its bytes do not have the hash that its trailer names")]
    Hash,
    #[error("the trailer counts {claimed:?}, the file has {found:?}")]
    Counts { claimed: Counts, found: Counts },
    #[error("the trailer's hour or digest is not of this kind of file")]
    View,
    #[error("bytes follow the trailer")]
    More,
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(what: Evidence, items: &[(Kind, &[u8])], claim: Claim) -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), what).unwrap();
        items.iter().for_each(|(kind, bytes)| writer.item(*kind, bytes).unwrap());
        writer.end(&claim).unwrap()
    }

    fn read(bytes: &[u8]) -> Result<(Vec<Item>, Claim), Malformed> {
        let mut reader = Reader::begin(bytes)?;
        let mut items = Vec::new();
        while let Some(item) = reader.next_item()? {
            items.push(item);
        }
        Ok((items, reader.claim().unwrap()))
    }

    fn claim(charters: u64, main: u64) -> Claim {
        Claim { counts: Counts { charters, main, ..Counts::default() }, view: (TimeMs(3_600_000), [7; 32]) }
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = written(Evidence::Bundle, &[(Kind::Charter, b"c"), (Kind::Block, b"")], claim(1, 1));
        let (items, read) = read(&bytes).unwrap();
        assert_eq!((items.len(), items[1].kind, read), (2, Kind::Block, claim(1, 1)));
        assert_eq!(bytes.len(), MAGIC_SIZE + 5 + 1 + 5 + 5 + TRAILER_SIZE);
    }

    #[test]
    fn every_flipped_bit_and_every_missing_byte_is_noticed() {
        let bytes = written(Evidence::Bundle, &[(Kind::Charter, b"charter"), (Kind::Block, b"block")], claim(1, 1));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert!(read(&changed).is_err(), "byte {at}, bit {bit}");
            }
        }
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(matches!(read(&[&bytes[..], b"x"].concat()), Err(Malformed::More)));
    }

    #[test]
    fn kinds_stand_in_their_order_and_in_their_file() {
        use Kind::{Attested, Block, Charter, Proof, Record};
        let order = |what, kinds: &[Kind]| {
            let items: Vec<_> = kinds.iter().map(|kind| (*kind, &b"x"[..])).collect();
            matches!(read(&written(what, &items, Claim::default())), Err(Malformed::Order { .. }))
        };
        assert!(order(Evidence::Bundle, &[Proof, Charter]));
        assert!(order(Evidence::Bundle, &[Charter, Block, Proof]));
        assert!(order(Evidence::Bundle, &[Charter, Record]));
        assert!(order(Evidence::Receipt, &[Charter, Block]));
        assert!(order(Evidence::Receipt, &[Charter, Attested]));
        assert!(order(Evidence::Receipt, &[Charter, Record, Proof]));
        assert!(!order(Evidence::Receipt, &[Charter, Proof, Record, Attested, Attested, Record]));
    }

    #[test]
    fn a_length_is_believed_up_to_the_limit_only() {
        let mut bytes = Evidence::Bundle.magic().to_vec();
        bytes.push(b'C');
        bytes.extend_from_slice(&u32::try_from(ITEM_SIZE_MAX + 1).unwrap().to_be_bytes());
        assert!(matches!(read(&bytes), Err(Malformed::Length(_))));
    }
}
