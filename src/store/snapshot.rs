//! The snapshot file: named sections of bytes, each under a checksum. What is in them is the business of whoever wrote
//! them.
//!
//! It only saves time: a file that is missing, damaged or of another release is treated like none. So it is written
//! beside the old one and takes its place in one step, and a reader gets a section whole or not at all.
//!
//! ```text
//! file    = magic(8) section* table end
//! table   = row*
//! row     = name(16, zero-padded) offset(8) length(8) crc32c(4, over the section's bytes)
//! end     = rows(4) crc32c(4, over the table and the rows' number) magic(8)
//! ```
//! All numbers are big endian; the table stands last, because lengths are known when everything is written.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::directory::sync_parent;
use super::generation::remove;

/// Most sections of one file.
pub const SECTIONS_MAX: usize = 64;
/// Longest name of a section in bytes.
pub const NAME_BYTES_MAX: usize = 16;

const MAGIC: [u8; 8] = *b"SDSNAP01";
const ROW_BYTES: usize = NAME_BYTES_MAX + 8 + 8 + 4;
const END_BYTES: usize = 4 + 4 + 8;
/// One read. The checksum follows while the bytes are in the cache.
const PIECE_BYTES: usize = 1 << 20;

/// Where the bytes of a section go.
pub type Sink<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;
/// Writes one section.
pub type Section = Box<dyn FnOnce(&mut Sink<'_>) -> io::Result<()> + Send>;

/// Why a file, or one section of it, is not used.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The operating system refused.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

struct Row {
    name: [u8; NAME_BYTES_MAX],
    offset: u64,
    length: u64,
    checksum: u32,
}

/// Writes `sections` to a new file and puts it in the place of the one at `path`, durably. Returns its length in bytes.
///
/// # Errors
/// What the system or a section said, and [`io::ErrorKind::Interrupted`] once `goes_on` says no; the file at `path` is as
/// it was then.
pub fn write(path: &Path, sections: Vec<(&'static str, Section)>, goes_on: &dyn Fn() -> bool) -> io::Result<u64> {
    let unfinished = unfinished(path);
    remove(&unfinished)?;
    let written = write_new(&unfinished, sections, goes_on);
    if written.is_err() {
        // What is left of it is removed at the next attempt if it cannot be now.
        drop(remove(&unfinished));
    }
    let length = written?;
    if !goes_on() {
        remove(&unfinished)?;
        return Err(io::ErrorKind::Interrupted.into());
    }
    fs::rename(&unfinished, path)?;
    sync_parent(path)?;
    Ok(length)
}

fn write_new(path: &Path, sections: Vec<(&'static str, Section)>, goes_on: &dyn Fn() -> bool) -> io::Result<u64> {
    // Nobody else needs to know what the list is.
    let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    let mut out = BufWriter::with_capacity(PIECE_BYTES, file);
    out.write_all(&MAGIC)?;
    let mut offset = MAGIC.len() as u64;
    let mut table = Vec::new();
    let mut rows = 0_u32;
    for (name, section) in sections {
        let (mut length, mut checksum) = (0_u64, 0);
        section(&mut |bytes| {
            if !goes_on() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            length += bytes.len() as u64;
            checksum = crc32c::crc32c_append(checksum, bytes);
            out.write_all(bytes)
        })?;
        let row = Row { name: padded(name).ok_or(io::ErrorKind::InvalidInput)?, offset, length, checksum };
        table.extend(row.to_bytes());
        rows += 1;
        offset += length;
    }
    table.extend(rows.to_be_bytes());
    let checksum = crc32c::crc32c(&table);
    table.extend(checksum.to_be_bytes());
    table.extend(MAGIC);
    out.write_all(&table)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(offset + table.len() as u64)
}

/// Removes the file at `path` and what is left of an unfinished one: when this returns, nothing of them is there.
///
/// # Errors
/// What the system said.
pub fn remove_file(path: &Path) -> io::Result<()> {
    remove(&unfinished(path))?;
    remove(path)?;
    sync_parent(path)
}

fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn padded(name: &str) -> Option<[u8; NAME_BYTES_MAX]> {
    let mut padded = [0; NAME_BYTES_MAX];
    padded.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    Some(padded)
}

/// A snapshot file that is open. Sections can be read by several threads at once.
pub struct Snapshot {
    file: File,
    rows: Vec<Row>,
}

impl Snapshot {
    /// Opens the file at `path` and reads its table; `None` if there is no file.
    ///
    /// # Errors
    /// [`SnapshotError`]: it is of no use.
    pub fn open(path: &Path) -> Result<Option<Self>, SnapshotError> {
        const CUT: SnapshotError = SnapshotError::Damaged("its end is missing");
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let length = file.metadata()?.len();
        let mut end = [0; END_BYTES];
        let table_end = length.checked_sub(END_BYTES as u64).ok_or(CUT)?;
        file.read_exact_at(&mut end, table_end)?;
        let (rows, checksum) = (number(&end[..4]), number(&end[4..8]));
        let count = usize::try_from(rows).ok().filter(|rows| *rows <= SECTIONS_MAX && end[8..] == MAGIC).ok_or(CUT)?;
        let mut table = vec![0; count * ROW_BYTES];
        let begin = table_end.checked_sub(table.len() as u64).ok_or(CUT)?;
        file.read_exact_at(&mut table, begin)?;
        let expected = crc32c::crc32c_append(crc32c::crc32c(&table), &end[..4]);
        if u64::from(expected) != checksum {
            return Err(SnapshotError::Damaged("the checksum of its table"));
        }
        let rows: Vec<_> = table.chunks_exact(ROW_BYTES).map(Row::of).collect();
        let within = |row: &Row| row.offset.checked_add(row.length).is_some_and(|end| end <= begin);
        if !rows.iter().all(within) {
            return Err(SnapshotError::Damaged("a section reaches beyond it"));
        }
        Ok(Some(Self { file, rows }))
    }

    /// Whether there is a section `name`.
    pub fn has(&self, name: &str) -> bool {
        self.row(name).is_some()
    }

    fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| Some(row.name) == padded(name))
    }

    /// Section `name`, to be read piece by piece.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`]: there is none.
    pub fn open_section(&self, name: &str) -> Result<Reader<'_>, SnapshotError> {
        let row = self.row(name).ok_or(SnapshotError::Damaged("a section is missing"))?;
        Ok(Reader { file: &self.file, offset: row.offset, left: row.length, checksum: 0, expected: row.checksum })
    }

    /// The bytes of section `name`, once its checksum holds.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing is handed out then.
    pub fn section(&self, name: &str) -> Result<Vec<u8>, SnapshotError> {
        let mut reader = self.open_section(name)?;
        // At most what the file has: see `open`.
        let length =
            usize::try_from(reader.left()).map_err(|_large| SnapshotError::Damaged("a section is too long"))?;
        let mut bytes = vec![0; length];
        reader.fill(&mut bytes)?;
        reader.finish()?;
        Ok(bytes)
    }
}

/// A section that is being read. Nothing of it may be used before [`Reader::finish`] has said that it is what was
/// written.
pub struct Reader<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
    checksum: u32,
    expected: u32,
}

impl Reader<'_> {
    /// Bytes that are left.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Fills `bytes` with the next ones.
    ///
    /// # Errors
    /// [`SnapshotError`]: so many are not left, or cannot be read.
    pub fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SnapshotError> {
        self.left =
            self.left.checked_sub(bytes.len() as u64).ok_or(SnapshotError::Damaged("a section is too short"))?;
        for piece in bytes.chunks_mut(PIECE_BYTES) {
            self.file.read_exact_at(piece, self.offset)?;
            self.checksum = crc32c::crc32c_append(self.checksum, piece);
            self.offset += piece.len() as u64;
        }
        Ok(())
    }

    /// All of it was read.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`]: something is left, or it is not what was written.
    pub fn finish(self) -> Result<(), SnapshotError> {
        match (self.left, self.checksum == self.expected) {
            (0, true) => Ok(()),
            (0, false) => Err(SnapshotError::Damaged("the checksum of a section")),
            _ => Err(SnapshotError::Damaged("a section is too long")),
        }
    }
}

impl Row {
    fn to_bytes(&self) -> [u8; ROW_BYTES] {
        let mut bytes = [0; ROW_BYTES];
        let parts =
            [&self.name[..], &self.offset.to_be_bytes(), &self.length.to_be_bytes(), &self.checksum.to_be_bytes()];
        let mut rest = &mut bytes[..];
        for part in parts {
            let (place, behind) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = behind;
        }
        bytes
    }

    fn of(bytes: &[u8]) -> Self {
        let (name, rest) = bytes.split_at(NAME_BYTES_MAX);
        Self {
            name: name.try_into().unwrap_or_default(),
            offset: number(&rest[..8]),
            length: number(&rest[8..16]),
            checksum: u32::try_from(number(&rest[16..])).unwrap_or_default(),
        }
    }
}

/// A big-endian number of at most eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Vec<(&'static str, Vec<u8>)> {
        let long = (0..3 * PIECE_BYTES + 7).map(|n| u8::try_from(n % 251).unwrap()).collect();
        vec![("state", b"one".to_vec()), ("empty", Vec::new()), ("long", long)]
    }

    fn write_parts(path: &Path, parts: Vec<(&'static str, Vec<u8>)>) -> io::Result<u64> {
        let section = |(name, bytes): (&'static str, Vec<u8>)| {
            let section: Section = Box::new(move |sink| bytes.chunks(1000).try_for_each(sink));
            (name, section)
        };
        write(path, parts.into_iter().map(section).collect(), &|| true)
    }

    fn read_all(path: &Path) -> Result<Vec<Vec<u8>>, SnapshotError> {
        let snapshot = Snapshot::open(path)?.expect("there is a file");
        parts().iter().map(|(name, _)| snapshot.section(name)).collect()
    }

    #[test]
    fn what_was_written_is_read_and_takes_the_place_of_what_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        assert!(Snapshot::open(&path).unwrap().is_none());
        write_parts(&path, vec![("state", b"older".to_vec())]).unwrap();
        let length = write_parts(&path, parts()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), length);
        let expected: Vec<_> = parts().into_iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(read_all(&path).unwrap(), expected);
        let missing = Snapshot::open(&path).unwrap().unwrap().section("other");
        assert!(matches!(missing, Err(SnapshotError::Damaged("a section is missing"))));
        remove_file(&path).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn one_that_cannot_be_finished_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        write_parts(&path, parts()).unwrap();
        let broken: Section = Box::new(|sink| sink(b"half").and(Err(io::ErrorKind::StorageFull.into())));
        assert_eq!(write(&path, vec![("state", broken)], &|| true).unwrap_err().kind(), io::ErrorKind::StorageFull);
        let sections = || vec![("state", Box::new(|sink: &mut Sink<'_>| sink(b"late")) as Section)];
        assert_eq!(write(&path, sections(), &|| false).unwrap_err().kind(), io::ErrorKind::Interrupted);
        let asked = std::cell::Cell::new(0);
        let at_first = || asked.replace(asked.get() + 1) == 0;
        assert_eq!(write(&path, sections(), &at_first).unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert!(read_all(&path).is_ok());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left of the other");
        assert!(write_parts(&path, vec![("a name of 17 byte", Vec::new())]).is_err());
    }

    #[test]
    fn no_flipped_bit_and_no_cut_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        write_parts(&path, vec![("state", b"one".to_vec()), ("empty", Vec::new()), ("long", vec![7; 40])]).unwrap();
        let whole = fs::read(&path).unwrap();
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read_all(&path)
        };
        assert!(read(&whole).is_ok());
        // The magic number in front is for people: nothing is read by it.
        for at in MAGIC.len()..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                assert!(read(&damaged).is_err(), "bit {bit} of byte {at}");
            }
        }
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "the first {length} bytes");
        }
    }
}
