//! An index as bytes: its segments as they lie in memory, so that reading ten million entries is copying them.
//!
//! Everything is little-endian. First a mark and the key, then the number of segments; for each its number of hashes,
//! how many low bits choose a bucket (none: it has no tables) and how many hashes were removed, then the hashes, the
//! tables, the sketches, the ids, and the bits of what was removed; at last the number of hashes in the delta, and they.
//! The bytes are checked for what would send a lookup out of its lists; that they are the ones that were written is for
//! the checksum of the file they are in.

use super::dead::Dead;
use super::hamming::{Part, Snapshot};
use super::scan::{BANDS, Hash, SKETCHES_AT_ONCE};
use super::segment::{Bands, HASHES_MAX, Line, Segment};

/// The first bytes, with the version of the format.
const MARK: [u8; 8] = *b"hamming1";
/// Bytes that are converted at a time: they stay in the cache.
const PIECE: usize = 1 << 16;
/// More segments than this are not written by anybody: tiers are few, and small segments are merged.
const SEGMENTS_MAX: u64 = 1 << 20;

/// Why an index could not be read; nothing was made of the bytes.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E> {
    /// The source failed.
    #[error("cannot read the index: {0}")]
    Source(E),
    /// The bytes are not an index: start without them and build it anew.
    #[error("the index is damaged: {0}; it is built anew from the list")]
    Damaged(&'static str),
}

type Sink<'a, E> = &'a mut dyn FnMut(&[u8]) -> Result<(), E>;

pub(super) fn write<E>(snapshot: &Snapshot, sink: Sink<'_, E>) -> Result<(), E> {
    sink(&MARK)?;
    sink(snapshot.permutation.key())?;
    write_number(snapshot.parts.len(), sink)?;
    for part in &snapshot.parts {
        write_part(part, sink)?;
    }
    let delta: Vec<Hash> = snapshot.delta.iter().flat_map(|piece| piece.iter().copied()).collect();
    write_number(delta.len(), sink)?;
    write_hashes(&delta, sink)
}

fn write_part<E>(Part { segment, dead, .. }: &Part, sink: Sink<'_, E>) -> Result<(), E> {
    write_number(segment.len(), sink)?;
    write_number(segment.bands().map_or(0, Bands::bits) as usize, sink)?;
    write_number(dead.count() as usize, sink)?;
    write_hashes(segment.hashes(), sink)?;
    if let Some(bands) = segment.bands() {
        let starts = bands.starts().iter().flat_map(|line| line.0).take((BANDS << bands.bits()) + 1);
        write_all(starts.map(u32::to_le_bytes), sink)?;
        write_all(bands.sketches()[..BANDS * segment.len()].iter().map(|sketch| sketch.to_le_bytes()), sink)?;
        write_all(bands.ids().iter().map(|id| id.to_le_bytes()), sink)?;
    }
    if dead.count() > 0 {
        write_all((0..segment.len().div_ceil(64)).map(|number| dead.word(number as u32).to_le_bytes()), sink)?;
    }
    Ok(())
}

fn write_number<E>(number: usize, sink: Sink<'_, E>) -> Result<(), E> {
    sink(&(number as u64).to_le_bytes())
}

fn write_hashes<E>(hashes: &[Hash], sink: Sink<'_, E>) -> Result<(), E> {
    write_all(hashes.iter().map(|hash| hash.to_bytes()), sink)
}

fn write_all<const N: usize, E>(items: impl Iterator<Item = [u8; N]>, sink: Sink<'_, E>) -> Result<(), E> {
    let mut piece = vec![[0; N]; PIECE / N];
    let mut items = items.peekable();
    while items.peek().is_some() {
        let mut len = 0;
        for (place, item) in piece.iter_mut().zip(&mut items) {
            *place = item;
            len += 1;
        }
        sink(piece[..len].as_flattened())?;
    }
    Ok(())
}

/// What the bytes held.
pub(super) struct Contents {
    pub(super) key: [u8; 32],
    pub(super) parts: Vec<(Segment, Dead)>,
    pub(super) delta: Vec<Hash>,
}

pub(super) fn read<E>(size: u64, source: &mut dyn FnMut(&mut [u8]) -> Result<(), E>) -> Result<Contents, ReadError<E>> {
    let mut reader = Reader { source, left: size };
    if reader.array()? != MARK {
        return Err(ReadError::Damaged("it does not begin like one"));
    }
    let key = reader.array()?;
    let count = reader.number(SEGMENTS_MAX, "more segments than there can be")?;
    let mut parts = Vec::new();
    for _ in 0..count {
        parts.push(reader.part()?);
    }
    let len = reader.number(HASHES_MAX as u64, "a longer delta than there can be")?;
    let delta = reader.hashes(len)?;
    Ok(Contents { key, parts, delta })
}

struct Reader<'a, E> {
    source: &'a mut dyn FnMut(&mut [u8]) -> Result<(), E>,
    /// Bytes that can still come: nothing is allocated for more.
    left: u64,
}

impl<E> Reader<'_, E> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError<E>> {
        let mut bytes = [0; N];
        self.take(N)?;
        (self.source)(&mut bytes).map_err(ReadError::Source)?;
        Ok(bytes)
    }

    fn take(&mut self, bytes: usize) -> Result<(), ReadError<E>> {
        let left = self.left.checked_sub(bytes as u64);
        self.left = left.ok_or(ReadError::Damaged("it says that it is longer than it is"))?;
        Ok(())
    }

    fn number(&mut self, max: u64, wrong: &'static str) -> Result<usize, ReadError<E>> {
        let number = u64::from_le_bytes(self.array()?);
        usize::try_from(number).ok().filter(|_| number <= max).ok_or(ReadError::Damaged(wrong))
    }

    /// Reads `len` items of `N` bytes; there is room for `more` after them.
    fn all<const N: usize, T>(
        &mut self,
        (len, more): (usize, usize),
        item: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, ReadError<E>> {
        self.take(len * N)?;
        let mut items = Vec::with_capacity(len + more);
        let mut piece = vec![[0; N]; len.min(PIECE / N)];
        while items.len() < len {
            let some = &mut piece[..(len - items.len()).min(PIECE / N)];
            (self.source)(some.as_flattened_mut()).map_err(ReadError::Source)?;
            items.extend(some.iter().map(|bytes| item(*bytes)));
        }
        Ok(items)
    }

    fn hashes(&mut self, len: usize) -> Result<Vec<Hash>, ReadError<E>> {
        self.all((len, 0), |bytes: [u8; 32]| Hash::from_bytes(&bytes))
    }

    fn part(&mut self) -> Result<(Segment, Dead), ReadError<E>> {
        let len = self.number(HASHES_MAX as u64, "a longer segment than there can be")?;
        let bits = self.number(16, "larger tables than there can be")? as u32;
        let removed = self.number(len as u64, "more hashes were removed than there are")?;
        let hashes = self.hashes(len)?;
        let segment = if bits == 0 {
            Segment::flat(hashes)
        } else {
            let bands = self.bands(len, bits)?;
            Segment::with_bands(hashes, bands)
        };
        let dead = if removed == 0 { Dead::default() } else { self.dead(len, removed)? };
        Ok((segment, dead))
    }

    /// Tables whose buckets lie one behind the other and end where the lists end, and numbers of hashes that exist.
    fn bands(&mut self, len: usize, bits: u32) -> Result<Bands, ReadError<E>> {
        let entries = BANDS * len;
        let starts = self.all(((BANDS << bits) + 1, 0), u32::from_le_bytes)?;
        let ends = (starts.first().copied(), starts.last().map(|last| *last as usize));
        if ends != (Some(0), Some(entries)) || !starts.is_sorted() {
            return Err(ReadError::Damaged("buckets lie outside of their list"));
        }
        let mut lines = vec![Line::default(); Bands::lines(bits)];
        lines.iter_mut().zip(starts.chunks(16)).for_each(|(line, some)| line.0[..some.len()].copy_from_slice(some));
        let mut sketches = self.all((entries, SKETCHES_AT_ONCE), u16::from_le_bytes)?;
        sketches.extend_from_slice(&[0; SKETCHES_AT_ONCE]);
        let ids = self.all((entries, 0), u32::from_le_bytes)?;
        let known = ids.chunks(PIECE).all(|some| some.iter().fold(0, |max, id| max.max(*id)) < len.max(1) as u32);
        known
            .then(|| Bands::from_parts(bits, lines, sketches, ids))
            .ok_or(ReadError::Damaged("a bucket names a hash that is not there"))
    }

    fn dead(&mut self, len: usize, removed: usize) -> Result<Dead, ReadError<E>> {
        let words = self.all((len.div_ceil(64), 0), u64::from_le_bytes)?;
        let mut dead = Dead::default();
        for (number, mut bits) in words.into_iter().enumerate() {
            while bits != 0 {
                dead.set((number * 64) as u32 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
        let last = len.div_ceil(64).saturating_sub(1);
        let beyond = !len.is_multiple_of(64) && dead.word(last as u32) >> (len % 64) != 0;
        (!beyond && dead.count() as usize == removed)
            .then_some(dead)
            .ok_or(ReadError::Damaged("the removed hashes are not as many as it says"))
    }
}
