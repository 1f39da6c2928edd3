//! The outbox: submissions that were answered `QUEUED` and wait unsigned for the startup guard (PROTOCOL W4), in one
//! plain file beside the journal. Nobody else has them, so they must not go down with sled.
//!
//! It is a [`Journal`] of its own, with two kinds of frames:
//! ```text
//! frame = 1 id(8) bytes    put: this entry waits
//!       | 2 id(8)          drop: it was signed or refused
//! ```
//! Numbers are big endian. Frames count in the order of the file; an id that is put again replaces what was there.
//!
//! Damage costs what it hits and no more. A put that is lost is a submission that is lost. A drop that is lost brings
//! its entry back, which is harmless: [`Restore`](crate::replica::Restore) is fed the outbox before the blocks and
//! forgets an entry whose records stand in a block of ours; a refused one is refused again.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::directory::{finish_interrupted, free_name_beside, rebuilding_name, sync_parent};
use super::generation::remove;
use super::journal::{FRAME_BYTES_MAX, Journal, JournalEnd, JournalError, Replay, io_error, salvage};

const PUT: u8 = 1;
const DROP: u8 = 2;
const HEAD_BYTES: usize = 9;

/// Largest entry in bytes: one frame without kind and id. A submission has a quarter of that.
pub const ENTRY_BYTES_MAX: usize = FRAME_BYTES_MAX - HEAD_BYTES;

/// Bytes of frames after which an append is closed and the next begun: little memory, and with the headers of the
/// smallest frames still less than a third of what the journal takes in one append.
const GROUP_BYTES: usize = 4 << 20;

/// The open outbox. One per data directory; the caller holds the directory's lock.
#[derive(Debug)]
pub struct Outbox {
    path: PathBuf,
    journal: Journal,
}

impl Outbox {
    /// Opens the outbox at `path`, creating it if there is none. Returns what still waits, by id, and how the file
    /// ended. A file with drops is written anew with only what waits, so it cannot grow from start to start; a damaged
    /// one is moved aside to `<path>.damaged-<n>`, and what could be read of it is in its successor. A crash anywhere
    /// on the way leaves every readable entry to the next start.
    ///
    /// # Errors
    /// [`JournalError::Io`], or [`JournalError::Version`] if another release wrote the file. Nothing that waits is lost
    /// then.
    #[expect(clippy::type_complexity, reason = "three different things, said in the first sentence")]
    pub fn open(path: &Path) -> Result<(Self, Vec<(u64, Vec<u8>)>, JournalEnd), JournalError> {
        let rebuilding = rebuilding_name(path);
        finish_interrupted(path, &rebuilding)
            .and_then(|()| remove(&rebuilding))
            .map_err(|source| io_error("finish moving", path, source))?;
        let set_aside = set_aside_if_damaged(path)?;
        let (mut journal, mut replay) = Journal::open(path)?;
        let contents = Contents::of(&mut replay)?;
        // Damage that only this second look has found was moved aside by the journal.
        if contents.drops || matches!(replay.end, JournalEnd::Damaged { .. }) {
            drop(journal);
            replace(path, &contents.waiting, None)?;
            journal = Journal::open(path)?.0;
        }
        let end = set_aside.unwrap_or(replay.end);
        Ok((Self { path: path.to_owned(), journal }, contents.waiting.into_iter().collect(), end))
    }

    /// Writes entries that wait from now on, then drops some (also of those just put): durable when this returns.
    ///
    /// # Errors
    /// [`JournalError::FrameSize`] if an entry is larger than [`ENTRY_BYTES_MAX`]; nothing was written, the outbox
    /// stays open. Every other error poisons it (W3): what of this call is on disk is unknown until the next start.
    pub fn write(&mut self, puts: &[(u64, &[u8])], drops: &[u64]) -> Result<(), JournalError> {
        if let Some((_, entry)) = puts.iter().find(|(_, entry)| entry.len() > ENTRY_BYTES_MAX) {
            return Err(JournalError::FrameSize { got: HEAD_BYTES + entry.len() });
        }
        let puts = puts.iter().map(|(id, entry)| frame(PUT, *id, entry));
        append(&mut self.journal, puts.chain(drops.iter().map(|id| frame(DROP, *id, &[]))))
    }

    /// Writes the file anew with only what waits, so that nothing is left on disk of what was dropped (an erased record
    /// may have waited here before it was signed). Crash-safe like [`Outbox::open`].
    ///
    /// # Errors
    /// [`JournalError`], with the state of the outbox as after [`Outbox::write`].
    pub fn compact(&mut self) -> Result<(), JournalError> {
        // An append of nothing says whether it is closed.
        self.journal.append(&[])?;
        let contents = Contents::of(&mut salvage(&self.path)?)?;
        let outcome = replace(&self.path, &contents.waiting, None).and_then(|()| Journal::open(&self.path));
        match outcome {
            Ok((journal, _)) => self.journal = journal,
            Err(error) => {
                // The open file may not be the one at this path any more.
                self.journal.poison(&error);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether an error has closed the outbox for writing.
    pub fn is_poisoned(&self) -> bool {
        self.journal.is_poisoned()
    }
}

/// What the good frames of a file come to.
#[derive(Default)]
struct Contents {
    waiting: BTreeMap<u64, Vec<u8>>,
    drops: bool,
    /// Offset of the first frame that is none of ours, though its checksum holds.
    foreign_at: Option<u64>,
}

impl Contents {
    fn of(replay: &mut Replay) -> Result<Self, JournalError> {
        let mut contents = Self::default();
        replay.for_each(|position, bytes| match parse(bytes) {
            Some((PUT, id, entry)) => drop(contents.waiting.insert(id, entry.to_vec())),
            Some((DROP, id, [])) => {
                contents.drops = true;
                contents.waiting.remove(&id);
            }
            _ => drop(contents.foreign_at.get_or_insert(position.offset)),
        })?;
        Ok(contents)
    }
}

/// The journal would move a damaged file aside and begin an empty one, and a crash right then would leave the entries
/// where nobody looks. So the file moves only when its successor is complete.
fn set_aside_if_damaged(path: &Path) -> Result<Option<JournalEnd>, JournalError> {
    let mut replay = match salvage(path) {
        Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        outcome => outcome?,
    };
    let contents = Contents::of(&mut replay)?;
    let (at_offset, salvaged_frames, search_cut_short) = match (replay.end, contents.foreign_at) {
        (JournalEnd::Damaged { at_offset, salvaged_frames, search_cut_short, .. }, _) => {
            (at_offset, salvaged_frames, search_cut_short)
        }
        (_, Some(at_offset)) => (at_offset, 0, false),
        (_, None) => return Ok(None),
    };
    let moved_to = free_name_beside(path).map_err(|source| io_error("find a name to move aside", path, source))?;
    replace(path, &contents.waiting, Some(&moved_to))?;
    Ok(Some(JournalEnd::Damaged { at_offset, salvaged_frames, moved_to, search_cut_short }))
}

/// Puts a new file with only `waiting` in the place of the one at `path`, which is kept as `aside` or not at all.
fn replace(path: &Path, waiting: &BTreeMap<u64, Vec<u8>>, aside: Option<&PathBuf>) -> Result<(), JournalError> {
    let rebuilding = rebuilding_name(path);
    match fs::remove_file(&rebuilding) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove the unfinished copy of", path, source));
        }
        _ => {}
    }
    let (mut journal, _) = Journal::open(&rebuilding)?;
    append(&mut journal, waiting.iter().map(|(id, entry)| frame(PUT, *id, entry)))?;
    drop(journal);
    if let Some(aside) = aside {
        rename(path, aside)?;
    }
    rename(&rebuilding, path)
}

fn rename(from: &Path, to: &Path) -> Result<(), JournalError> {
    fs::rename(from, to).and_then(|()| sync_parent(to)).map_err(|source| io_error("move", from, source))
}

/// In order, in appends of bounded size.
fn append(journal: &mut Journal, frames: impl Iterator<Item = Vec<u8>>) -> Result<(), JournalError> {
    let mut group: Vec<Vec<u8>> = Vec::new();
    let mut bytes = 0;
    let mut close = |group: &mut Vec<Vec<u8>>| {
        let borrowed: Vec<&[u8]> = group.iter().map(Vec::as_slice).collect();
        let outcome = journal.append(&borrowed).map(drop);
        group.clear();
        outcome
    };
    for frame in frames {
        bytes += frame.len();
        group.push(frame);
        if bytes >= GROUP_BYTES {
            close(&mut group)?;
            bytes = 0;
        }
    }
    close(&mut group)
}

fn frame(kind: u8, id: u64, entry: &[u8]) -> Vec<u8> {
    [&[kind], &id.to_be_bytes()[..], entry].concat()
}

fn parse(frame: &[u8]) -> Option<(u8, u64, &[u8])> {
    let (&[kind, ref id @ ..], entry) = frame.split_first_chunk::<HEAD_BYTES>()?;
    Some((kind, u64::from_be_bytes(*id), entry))
}

#[cfg(test)]
mod tests {
    use super::super::journal::Failure;
    use super::*;

    type Waiting = Vec<(u64, Vec<u8>)>;

    fn open(path: &Path) -> (Outbox, Waiting, JournalEnd) {
        Outbox::open(path).unwrap()
    }

    fn entry(id: u64) -> Vec<u8> {
        format!("submission {id} ").into_bytes().repeat(20 + usize::try_from(id).unwrap())
    }

    fn waiting(ids: impl IntoIterator<Item = u64>) -> Waiting {
        ids.into_iter().map(|id| (id, entry(id))).collect()
    }

    fn put(outbox: &mut Outbox, ids: impl IntoIterator<Item = u64>) {
        for (id, entry) in waiting(ids) {
            outbox.write(&[(id, &entry)], &[]).unwrap();
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Where the put of `id` stands in the file.
    fn position(bytes: &[u8], id: u64) -> usize {
        let put = frame(PUT, id, &entry(id));
        bytes.windows(put.len()).position(|window| window == put).unwrap()
    }

    #[test]
    fn what_was_put_and_not_dropped_waits_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox");
        let (mut outbox, nothing, end) = open(&path);
        assert_eq!((nothing, end), (vec![], JournalEnd::Missing));
        outbox.write(&[(7, b"seven"), (300, b""), (8, b"eight")], &[]).unwrap();
        outbox.write(&[(9, b"nine")], &[8]).unwrap();
        outbox.write(&[(10, b"put and dropped in one")], &[10, 77]).unwrap();
        outbox.write(&[(7, b"again")], &[]).unwrap();
        outbox.write(&[], &[]).unwrap();
        drop(outbox);
        for _ in 0..3 {
            let (_, waiting, end) = open(&path);
            assert_eq!(waiting, [(7, b"again".to_vec()), (9, b"nine".to_vec()), (300, vec![])]);
            assert_eq!(end, JournalEnd::Clean);
        }
    }

    #[test]
    fn a_file_with_drops_is_written_anew_with_only_what_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox");
        let (mut outbox, ..) = open(&path);
        let begun = fs::metadata(&path).unwrap().len();
        put(&mut outbox, 0..50);
        outbox.write(&[], &(0..49).collect::<Vec<_>>()).unwrap();
        drop(outbox);
        let (mut outbox, still, _) = open(&path);
        assert_eq!(still, waiting([49]));
        let frame_header = 8;
        assert_eq!(fs::metadata(&path).unwrap().len(), begun + frame_header + (HEAD_BYTES + entry(49).len()) as u64);
        put(&mut outbox, [50]);
        outbox.write(&[], &[49, 50]).unwrap();
        drop(outbox);
        assert_eq!(open(&path).1, []);
        assert_eq!((fs::metadata(&path).unwrap().len(), names(folder.path())), (begun, vec!["outbox".to_owned()]));
    }

    #[test]
    fn more_than_one_append_takes_is_written_in_several() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox");
        let (mut outbox, ..) = open(&path);
        let largest = vec![5; ENTRY_BYTES_MAX];
        let puts: Vec<(u64, &[u8])> = (0..40).map(|id| (id, &largest[..])).collect();
        outbox.write(&puts, &[]).unwrap();
        outbox.write(&[], &(1_000..901_000).collect::<Vec<_>>()).unwrap();
        drop(outbox);
        for _ in 0..2 {
            let (_, waiting, _) = open(&path);
            assert!(waiting.iter().map(|(id, _)| *id).eq(0..40));
            assert!(waiting.iter().all(|(_, entry)| *entry == largest));
        }
    }

    #[test]
    fn an_entry_that_is_too_large_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox");
        let (mut outbox, ..) = open(&path);
        let large = vec![5; ENTRY_BYTES_MAX + 1];
        let refused = outbox.write(&[(1, b"small"), (2, &large)], &[]);
        assert!(matches!(refused, Err(JournalError::FrameSize { got }) if got == FRAME_BYTES_MAX + 1));
        assert!(!outbox.is_poisoned());
        put(&mut outbox, [3]);
        drop(outbox);
        assert_eq!(open(&path).1, waiting([3]));
    }

    #[test]
    fn an_error_closes_the_outbox_until_the_next_start() {
        for (failure, kept) in [(Failure::Write, 0..1), (Failure::Sync, 0..2), (Failure::ReadBack, 0..2)] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("outbox");
            let (mut outbox, ..) = open(&path);
            put(&mut outbox, [0]);
            outbox.journal.fail_next_append(failure);
            assert!(outbox.write(&[(1, &entry(1))], &[]).is_err());
            assert!(outbox.is_poisoned());
            assert!(matches!(outbox.write(&[(2, b"later")], &[0]), Err(JournalError::Poisoned { .. })));
            drop(outbox);
            let (mut outbox, still, _) = open(&path);
            assert_eq!(still, waiting(kept), "{failure:?}");
            put(&mut outbox, [3]);
        }
    }

    #[test]
    fn a_torn_tail_costs_only_the_last_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox");
        let (mut outbox, ..) = open(&path);
        put(&mut outbox, 0..3);
        outbox.write(&[], &[0]).unwrap();
        let whole = fs::metadata(&path).unwrap().len();
        put(&mut outbox, [3]);
        drop(outbox);
        let bytes = fs::read(&path).unwrap();
        for (keep, still) in [(whole + 30, vec![1, 2]), (whole - 1, vec![0, 1, 2]), (5, vec![])] {
            fs::write(&path, &bytes[..usize::try_from(keep).unwrap()]).unwrap();
            let (mut outbox, found, end) = open(&path);
            assert_eq!(found, waiting(still.clone()), "{keep} bytes kept");
            assert!(matches!(end, JournalEnd::TornTail { .. }));
            put(&mut outbox, [9]);
            drop(outbox);
            let (_, found, end) = open(&path);
            assert_eq!((found, end), (waiting(still.into_iter().chain([9])), JournalEnd::Clean));
        }
    }

    #[test]
    fn a_damaged_middle_costs_only_what_was_hit_and_the_file_is_kept() {
        type Harm = fn(&mut Vec<u8>);
        let cases: [(&str, Harm, &[u64]); 5] = [
            (
                "a flipped bit in a put",
                |bytes| {
                    let at = position(bytes, 3);
                    bytes[at + 40] ^= 1;
                },
                &[1, 2, 4, 5],
            ),
            ("a missing stretch", |bytes| drop(bytes.drain(position(bytes, 1)..position(bytes, 2))), &[3, 4, 5]),
            // The drop of 0 stands behind the put of 4: its loss brings 0 back.
            (
                "a flipped bit in the drop",
                |bytes| {
                    let end = position(bytes, 4) + HEAD_BYTES + entry(4).len();
                    bytes[end + 10] ^= 1;
                },
                &[0, 1, 2, 3, 4, 5],
            ),
            ("a damaged file header", |bytes| bytes[0] ^= 1, &[1, 2, 3, 4, 5]),
            (
                "half of the file is zeroes",
                |bytes| {
                    let half = position(bytes, 3);
                    bytes[16..half].fill(0);
                },
                &[4, 5],
            ),
        ];
        for (what, harm, still) in cases {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("outbox");
            let (mut outbox, ..) = open(&path);
            put(&mut outbox, 0..5);
            outbox.write(&[], &[0]).unwrap();
            put(&mut outbox, [5]);
            drop(outbox);
            let mut bytes = fs::read(&path).unwrap();
            harm(&mut bytes);
            fs::write(&path, &bytes).unwrap();
            let (mut outbox, found, end) = open(&path);
            assert_eq!(found, waiting(still.iter().copied()), "{what}");
            let aside = folder.path().join("outbox.damaged-1");
            assert!(matches!(end, JournalEnd::Damaged { moved_to, .. } if moved_to == aside), "{what}");
            assert_eq!(fs::read(&aside).unwrap(), bytes, "the damaged file is kept as it was");
            put(&mut outbox, [6]);
            drop(outbox);
            let (_, again, end) = open(&path);
            assert_eq!((again.len(), end), (found.len() + 1, JournalEnd::Clean), "{what}");
            assert_eq!(names(folder.path()), ["outbox", "outbox.damaged-1"]);
        }
    }

    #[test]
    fn a_frame_that_is_none_of_ours_is_damage() {
        for foreign in [&b"acme"[..], &frame(3, 1, b"x"), &frame(DROP, 1, b"x")] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("outbox");
            let (mut outbox, ..) = open(&path);
            put(&mut outbox, [1]);
            outbox.journal.append(&[foreign]).unwrap();
            put(&mut outbox, [2]);
            drop(outbox);
            let (_, found, end) = open(&path);
            assert_eq!(found, waiting([1, 2]));
            assert!(matches!(end, JournalEnd::Damaged { at_offset, .. } if at_offset > 16));
            assert_eq!(open(&path).2, JournalEnd::Clean);
        }
    }

    #[test]
    fn a_crash_while_the_file_is_replaced_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (path, rebuilding) = (folder.path().join("outbox"), folder.path().join("outbox.rebuilding"));
        let (mut outbox, ..) = open(&path);
        put(&mut outbox, 0..3);
        outbox.write(&[], &[1]).unwrap();
        drop(outbox);
        // While the successor is written.
        fs::write(&rebuilding, b"half of a hea").unwrap();
        assert_eq!(open(&path).1, waiting([0, 2]));
        assert_eq!(names(folder.path()), ["outbox"]);
        // Between the two renames after damage.
        fs::rename(&path, &rebuilding).unwrap();
        let (_, found, end) = open(&path);
        assert_eq!((found, end), (waiting([0, 2]), JournalEnd::Clean));
        assert_eq!(names(folder.path()), ["outbox"]);
    }

    #[test]
    fn frames_stay_as_they_are() {
        assert_eq!(frame(PUT, 258, b"acme"), [&[1, 0, 0, 0, 0, 0, 0, 1, 2][..], b"acme"].concat());
        assert_eq!(frame(DROP, 3, b""), [2, 0, 0, 0, 0, 0, 0, 0, 3]);
    }

    #[test]
    fn a_compacted_outbox_holds_nothing_that_was_dropped_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox");
        drop(open(&path));
        fs::write(folder.path().join("outbox.rebuilding"), entry(3)).unwrap();
        let (mut outbox, ..) = open(&path);
        assert_eq!(names(folder.path()), ["outbox"], "what an earlier start left is not needed any more");
        put(&mut outbox, 0..20);
        outbox.write(&[], &[3, 7]).unwrap();
        let holds = |id| fs::read(&path).unwrap().windows(16).any(|window| window == &entry(id)[..16]);
        assert!(holds(3));
        outbox.compact().unwrap();
        assert!(!holds(3) && !holds(7) && holds(8));
        put(&mut outbox, [20]);
        drop(outbox);
        assert_eq!(open(&path).1, waiting((0..=20).filter(|id| ![3, 7].contains(id))));
        assert_eq!(names(folder.path()), ["outbox"]);
    }
}
