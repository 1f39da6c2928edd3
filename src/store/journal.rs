//! The own journal: every block this node has signed, in one plain append-only file.
//!
//! It is the only thing on a node that cannot be had back from peers: a node that forgets what it signed signs the
//! same position twice and convicts itself of forking (PROTOCOL W1, W4). So a frame is on disk and read back before
//! anybody hears of it, an error closes the journal for good, and damaged files are moved aside, never deleted.
//!
//! ```text
//! file  = magic(8) version(4) crc32c(4, over the twelve bytes before) frame*
//! frame = length(4) crc32c(4, over the length's four bytes and the frame) bytes(length)
//! ```
//! All numbers are big endian. A frame found after a damaged stretch may in theory be a piece of another frame that
//! looks like one: whoever replays verifies every frame like a stranger's, CRC-32C only finds accidents.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::directory::{free_name_beside, rewriting_name, sync_parent};
use super::generation::remove;

/// Largest frame in bytes: the gRPC message limit (PROTOCOL section 13), since a block that cannot be sent need not be
/// kept.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Most bytes in one [`Journal::append`]: 32 of the largest frames, so that a group commit has a bounded buffer.
pub const APPEND_BYTES_MAX: usize = 32 << 20;

/// Most bytes put through CRC-32C while looking for the next good frame after damage. Bytes that look like lengths
/// could make every offset cost 1 MiB; this much takes seconds, and is more than random damage in 100 GiB needs.
pub const RESYNC_BYTES_MAX: u64 = 16 << 30;

/// Most separate stretches of good frames that are remembered. Damage in more places than that is a ruined disk.
pub const RUNS_MAX: usize = 65_536;

const MAGIC: [u8; 8] = *b"SDJOURN1";
const VERSION: u32 = 1;
const FILE_HEADER_BYTES: usize = 16;
const FRAME_HEADER_BYTES: usize = 8;
/// One read of the scanner; larger than any frame with its header.
const WINDOW_BYTES: usize = 4 << 20;

/// What went wrong, and what became of the journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file could not be read, written, synced or moved. An append that ends so poisons the journal.
    #[error("cannot {doing} the journal {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file was written by another release. It was left as it is.
    #[error("the journal {} has format {got}, this release knows {VERSION}; run the release that wrote it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it names.
        got: u32,
    },
    /// An earlier append failed; nothing was written now. Only a restart, which replays the file, helps.
    #[error("the journal {} is closed after an earlier error ({first}); restart the node", path.display())]
    Poisoned {
        /// The file.
        path: PathBuf,
        /// The error that closed it.
        first: String,
    },
    /// The bytes read back after the sync are not those written: the disk or its memory lies. Poisons the journal.
    #[error("the journal {} gave back other bytes than were written at offset {offset}; replace the disk", path.display())]
    ReadBack {
        /// The file.
        path: PathBuf,
        /// Where the append began, in bytes from the start of the file.
        offset: u64,
    },
    /// A frame is empty or too large. Nothing was written; the journal stays open.
    #[error("a frame has {got} bytes, allowed are 1 to {FRAME_BYTES_MAX}")]
    FrameSize {
        /// Its length in bytes.
        got: usize,
    },
    /// The frames of one append are too large together. Nothing was written; the journal stays open.
    #[error("one append has {got} bytes, allowed are {APPEND_BYTES_MAX}; append in smaller groups")]
    AppendSize {
        /// Their length in bytes, headers included.
        got: usize,
    },
}

/// How the file ended when it was opened. PROTOCOL W4 says what each means for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalEnd {
    /// Every byte belongs to a good frame. (A file cut exactly between two frames looks like this too: only the
    /// replica store and the peers can tell.)
    Clean,
    /// The last append was cut short: no good frame follows the bad one, so it was never published. It was cut off.
    TornTail {
        /// Bytes cut off.
        dropped_bytes: u64,
    },
    /// Good frames stand behind bad bytes. The file was moved aside and a new, empty one begun.
    Damaged {
        /// Where the first bad byte range begins.
        at_offset: u64,
        /// Good frames found behind it.
        salvaged_frames: u64,
        /// Where the file is now.
        moved_to: PathBuf,
        /// Whether the search for good frames ended early, at one of its limits.
        search_cut_short: bool,
    },
    /// There was no file. One was begun.
    Missing,
}

/// Where a frame stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Offset of the frame's header, in bytes from the start of the file.
    pub offset: u64,
    /// Length of the frame in bytes, without its header.
    pub length: u32,
}

/// What a journal held when it was opened; [`Replay::for_each`] reads it frame by frame.
#[derive(Debug)]
pub struct Replay {
    /// How the file ended.
    pub end: JournalEnd,
    /// Number of good frames.
    pub frames: u64,
    /// Journals that were moved aside at this or an earlier start, oldest first. While there is one, a log that was
    /// ever written to it must stay closed: a crash may have come between moving it and closing the log. Read them
    /// with [`salvage`].
    pub predecessors: Vec<PathBuf>,
    path: PathBuf,
    file: Option<File>,
    runs: Vec<Range<u64>>,
    /// Where the last frame ended that [`Replay::for_each`] handed over.
    handed_over_to: u64,
}

impl Replay {
    /// Calls `each` with the position and the bytes of every good frame, in the order of the file. Holds one window of
    /// 4 MiB in memory. Frames are checked a second time; one that went bad since is left out.
    ///
    /// Returns how many frames were handed over, which is [`Replay::frames`] unless the disk changes its mind.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn for_each(&mut self, mut each: impl FnMut(Position, &[u8])) -> Result<u64, JournalError> {
        self.try_for_each(|position, bytes| {
            each(position, bytes);
            Ok(())
        })
    }

    fn try_for_each(
        &mut self,
        mut each: impl FnMut(Position, &[u8]) -> Result<(), JournalError>,
    ) -> Result<u64, JournalError> {
        let Some(file) = &self.file else { return Ok(0) };
        let mut scanner = Scanner::new(file).map_err(|source| io_error("read", &self.path, source))?;
        let mut handed_over = 0;
        for run in &self.runs {
            let mut offset = run.start;
            while offset < run.end {
                let found = scanner.frame_at(offset).map_err(|source| io_error("read", &self.path, source))?;
                let Some((position, bytes)) = found else { break };
                each(position, bytes)?;
                handed_over += 1;
                offset = position.end();
                self.handed_over_to = offset;
            }
        }
        Ok(handed_over)
    }
}

impl Position {
    fn end(self) -> u64 {
        self.offset + FRAME_HEADER_BYTES as u64 + u64::from(self.length)
    }
}

/// The open journal. One per file; the caller holds the directory's lock.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    end: u64,
    poisoned: Option<String>,
    #[cfg(any(test, feature = "wrong-rules"))]
    fail_next: Option<Failure>,
}

/// An error to be pretended by the next append, for tests of what comes after.
#[cfg(any(test, feature = "wrong-rules"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The write fails after half of the bytes.
    Write,
    /// The sync fails.
    Sync,
    /// A byte read back is not the byte written.
    ReadBack,
}

impl Journal {
    /// Opens the journal at `path`, creating it if there is none, cutting off a torn tail and moving a damaged file
    /// aside to `<path>.damaged-<n>`.
    ///
    /// # Errors
    /// [`JournalError::Io`], or [`JournalError::Version`] if another release wrote the file. Nothing was changed then
    /// that would not be found again at the next start.
    pub fn open(path: &Path) -> Result<(Self, Replay), JournalError> {
        for file in predecessors(path)?.iter().map(PathBuf::as_path).chain([path]) {
            remove(&rewriting_name(file)).map_err(|source| io_error("remove the unfinished copy of", file, source))?;
        }
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let journal = Self::create(path)?;
                return Ok((journal, Replay::empty(path, JournalEnd::Missing)?));
            }
            Err(source) => return Err(io_error("open", path, source)),
        };
        let survey = Survey::of(&file, path)?;
        match survey.damage {
            Some(_) => Self::after_damage(path, file, survey),
            None => Self::after_sound_file(path, file, survey),
        }
    }

    /// Appends `frames`, syncs them to disk, and reads them back: when this returns, they are there (W1, W7).
    /// [`Journal::read`] gives the bytes back from the file, to be verified like a stranger's.
    ///
    /// # Errors
    /// [`JournalError::FrameSize`] and [`JournalError::AppendSize`] before anything was written. Every other error
    /// poisons the journal (W3): whether the frames are on disk is unknown until the next start replays the file, so
    /// nothing may be signed until then.
    pub fn append(&mut self, frames: &[&[u8]]) -> Result<Vec<Position>, JournalError> {
        if let Some(first) = &self.poisoned {
            return Err(JournalError::Poisoned { path: self.path.clone(), first: first.clone() });
        }
        let (buffer, positions) = lay_out(self.end, frames)?;
        if buffer.is_empty() {
            return Ok(positions);
        }
        match self.write_durably(&buffer) {
            Ok(()) => {
                self.end += buffer.len() as u64;
                Ok(positions)
            }
            Err(error) => {
                self.poisoned = Some(error.to_string());
                Err(error)
            }
        }
    }

    /// The frame at `position`, read from the file and checked.
    ///
    /// # Errors
    /// [`JournalError::Io`]; [`JournalError::ReadBack`] if there is no good frame of that length there.
    pub fn read(&self, position: Position) -> Result<Vec<u8>, JournalError> {
        let mut scanner = Scanner::new(&self.file).map_err(|source| io_error("read", &self.path, source))?;
        match scanner.frame_at(position.offset).map_err(|source| io_error("read", &self.path, source))? {
            Some((found, bytes)) if found == position => Ok(bytes.to_vec()),
            _ => Err(JournalError::ReadBack { path: self.path.clone(), offset: position.offset }),
        }
    }

    /// Replaces the frames for which `each` gives other bytes, here and in the journals that were moved aside, and leaves
    /// no byte behind of what they were: when this returns `Ok`, none of it is in these files. Old files are deleted, not
    /// overwritten, see [`super::Store::rewrite`]. Returns the number of replaced frames.
    ///
    /// A journal that was moved aside keeps its good frames, because they say which logs stay closed; what stood between
    /// them is gone. Each file is replaced in one step: a crash leaves the old one or the new one. Positions from before
    /// are no longer those of the frames. The file is another one now: see [`super::place`].
    ///
    /// # Errors
    /// [`JournalError::Poisoned`] if an earlier error has closed the journal; [`JournalError::FrameSize`] for a
    /// replacement that is no frame; [`JournalError::ReadBack`] if a frame went bad since it was written;
    /// [`JournalError::Io`]. The journal goes on with its old frames then, unless it is [`Journal::is_poisoned`] now.
    pub fn rewrite(&mut self, mut each: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> Result<u64, JournalError> {
        if let Some(first) = &self.poisoned {
            return Err(JournalError::Poisoned { path: self.path.clone(), first: first.clone() });
        }
        let mut replaced = 0;
        for aside in predecessors(&self.path)? {
            let mut replay = salvage(&aside)?;
            let (_, count) = rewritten(&aside, &mut replay, &mut each)?;
            swap(&aside)?;
            replaced += count;
        }
        let mut replay = Replay::over(&self.path, FILE_HEADER_BYTES as u64..self.end)?;
        let (mut successor, count) = rewritten(&self.path, &mut replay, &mut each)?;
        if replay.handed_over_to != self.end {
            return Err(JournalError::ReadBack { path: self.path.clone(), offset: replay.handed_over_to });
        }
        if let Err(error) = swap(&self.path) {
            // Which of the two the next start finds is not known, so neither may grow.
            self.poisoned = Some(error.to_string());
            return Err(error);
        }
        successor.path.clone_from(&self.path);
        *self = successor;
        Ok(replaced + count)
    }

    /// Whether an error has closed the journal for writing.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.is_some()
    }

    /// Length of the file in bytes.
    pub fn length_bytes(&self) -> u64 {
        self.end
    }

    /// Lets the next append fail. For tests only.
    #[cfg(any(test, feature = "wrong-rules"))]
    pub fn fail_next_append(&mut self, failure: Failure) {
        self.fail_next = Some(failure);
    }

    /// Closes the journal for writing because of an error outside of it.
    pub(super) fn poison(&mut self, error: &JournalError) {
        self.poisoned.get_or_insert_with(|| error.to_string());
    }

    /// The header is durable before the first frame: a file without one never held a frame.
    fn create(path: &Path) -> Result<Self, JournalError> {
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
        let file = open.map_err(|source| io_error("create", path, source))?;
        file.write_all_at(&file_header(), 0).map_err(|source| io_error("write", path, source))?;
        file.sync_all().map_err(|source| io_error("sync", path, source))?;
        sync_parent(path).map_err(|source| io_error("sync the folder of", path, source))?;
        Ok(Self::over(path, file, FILE_HEADER_BYTES as u64))
    }

    fn over(path: &Path, file: File, end: u64) -> Self {
        Self {
            path: path.to_owned(),
            file,
            end,
            poisoned: None,
            #[cfg(any(test, feature = "wrong-rules"))]
            fail_next: None,
        }
    }

    fn after_sound_file(path: &Path, file: File, survey: Survey) -> Result<(Self, Replay), JournalError> {
        let good_end = survey.good_end();
        let torn = survey.torn_bytes();
        let journal = if survey.header_missing {
            Self::create(path)?
        } else {
            if torn.is_some() {
                file.set_len(good_end).map_err(|source| io_error("cut the torn end of", path, source))?;
            }
            // Also without a cut: what was replayed must not vanish later because an earlier process died unsynced.
            file.sync_all().map_err(|source| io_error("sync", path, source))?;
            Self::over(path, file, good_end)
        };
        let end = torn.map_or(JournalEnd::Clean, |dropped_bytes| JournalEnd::TornTail { dropped_bytes });
        Ok((journal, Replay::of(path, path, survey.runs, survey.frames, end)?))
    }

    fn after_damage(path: &Path, file: File, survey: Survey) -> Result<(Self, Replay), JournalError> {
        drop(file);
        let moved_to = free_name_beside(path).map_err(|source| io_error("find a name to move aside", path, source))?;
        fs::rename(path, &moved_to).map_err(|source| io_error("move aside", path, source))?;
        sync_parent(path).map_err(|source| io_error("sync the folder of", path, source))?;
        let journal = Self::create(path)?;
        let end = survey.end_if_damaged(&moved_to);
        Ok((journal, Replay::of(path, &moved_to, survey.runs, survey.frames, end)?))
    }

    fn write_durably(&mut self, buffer: &[u8]) -> Result<(), JournalError> {
        self.pretended(buffer)?;
        self.file.write_all_at(buffer, self.end).map_err(|source| io_error("write", &self.path, source))?;
        self.file.sync_data().map_err(|source| io_error("sync", &self.path, source))?;
        let mut read_back = vec![0; buffer.len()];
        let read = self.file.read_exact_at(&mut read_back, self.end);
        read.map_err(|source| io_error("read back", &self.path, source))?;
        if read_back != buffer {
            return Err(JournalError::ReadBack { path: self.path.clone(), offset: self.end });
        }
        Ok(())
    }

    #[cfg(any(test, feature = "wrong-rules"))]
    fn pretended(&mut self, buffer: &[u8]) -> Result<(), JournalError> {
        let Some(failure) = self.fail_next.take() else { return Ok(()) };
        let pretend = || io::Error::other("pretended by a test");
        let written = if failure == Failure::Write { &buffer[..buffer.len() / 2] } else { buffer };
        self.file.write_all_at(written, self.end).map_err(|source| io_error("write", &self.path, source))?;
        match failure {
            Failure::Write => Err(io_error("write", &self.path, pretend())),
            Failure::Sync => Err(io_error("sync", &self.path, pretend())),
            Failure::ReadBack => Err(JournalError::ReadBack { path: self.path.clone(), offset: self.end }),
        }
    }

    #[cfg(not(any(test, feature = "wrong-rules")))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the shipped half of a switch for tests")]
    fn pretended(&mut self, _buffer: &[u8]) -> Result<(), JournalError> {
        Ok(())
    }
}

/// Writes the good frames of `path` to its successor beside it, some of them replaced, and makes that durable.
fn rewritten(
    path: &Path,
    replay: &mut Replay,
    each: &mut impl FnMut(&[u8]) -> Option<Vec<u8>>,
) -> Result<(Journal, u64), JournalError> {
    let mut successor = Journal::create(&rewriting_name(path))?;
    let (mut group, mut bytes, mut replaced) = (Vec::new(), 0, 0);
    replay.try_for_each(|_, frame| {
        let other = each(frame);
        replaced += u64::from(other.is_some());
        let frame = other.unwrap_or_else(|| frame.to_vec());
        bytes += frame.len();
        group.push(frame);
        if bytes < WINDOW_BYTES {
            return Ok(());
        }
        bytes = 0;
        append_group(&mut successor, &mut group)
    })?;
    append_group(&mut successor, &mut group)?;
    Ok((successor, replaced))
}

fn append_group(journal: &mut Journal, group: &mut Vec<Vec<u8>>) -> Result<(), JournalError> {
    let frames: Vec<&[u8]> = group.iter().map(Vec::as_slice).collect();
    journal.append(&frames)?;
    group.clear();
    Ok(())
}

/// Puts the successor in the place of the file at `path`.
fn swap(path: &Path) -> Result<(), JournalError> {
    let renamed = fs::rename(rewriting_name(path), path).and_then(|()| sync_parent(path));
    renamed.map_err(|source| io_error("replace", path, source))
}

/// Reads the good frames of a journal that was moved aside, or is only looked at. Changes nothing: what it says of a torn
/// tail or of damage is still in the file.
///
/// # Errors
/// The file cannot be read, or another release wrote it.
pub fn salvage(path: &Path) -> Result<Replay, JournalError> {
    let file = File::open(path).map_err(|source| io_error("open", path, source))?;
    let survey = Survey::of(&file, path)?;
    let end = match survey.torn_bytes() {
        Some(dropped_bytes) if survey.damage.is_none() => JournalEnd::TornTail { dropped_bytes },
        _ => survey.end_if_damaged(path),
    };
    let mut replay = Replay::of(path, path, survey.runs, survey.frames, end)?;
    replay.predecessors = Vec::new();
    Ok(replay)
}

impl Replay {
    fn empty(path: &Path, end: JournalEnd) -> Result<Self, JournalError> {
        let predecessors = predecessors(path)?;
        Ok(Self {
            end,
            frames: 0,
            predecessors,
            path: path.to_owned(),
            file: None,
            runs: Vec::new(),
            handed_over_to: 0,
        })
    }

    /// All of a file whose good end is known.
    fn over(path: &Path, frames: Range<u64>) -> Result<Self, JournalError> {
        let (start, runs) = (frames.start, vec![frames]);
        Ok(Self { handed_over_to: start, ..Self::of(path, path, runs, 0, JournalEnd::Clean)? })
    }

    fn of(
        path: &Path,
        source: &Path,
        runs: Vec<Range<u64>>,
        frames: u64,
        end: JournalEnd,
    ) -> Result<Self, JournalError> {
        let file = File::open(source).map_err(|error| io_error("open", source, error))?;
        let predecessors = predecessors(path)?;
        Ok(Self { end, frames, predecessors, path: source.to_owned(), file: Some(file), runs, handed_over_to: 0 })
    }
}

/// What one pass over a file found.
struct Survey {
    length: u64,
    runs: Vec<Range<u64>>,
    frames: u64,
    /// Shorter than its header: it was being created when the power went.
    header_missing: bool,
    damage: Option<Damage>,
}

struct Damage {
    at_offset: u64,
    salvaged_frames: u64,
    search_cut_short: bool,
}

impl Survey {
    fn of(file: &File, path: &Path) -> Result<Self, JournalError> {
        let mut scanner = Scanner::new(file).map_err(|source| io_error("read", path, source))?;
        let length = scanner.length;
        let mut survey = Self { length, runs: Vec::new(), frames: 0, header_missing: false, damage: None };
        if length < FILE_HEADER_BYTES as u64 {
            survey.header_missing = true;
            return Ok(survey);
        }
        let header = scanner.bytes(0, FILE_HEADER_BYTES).map_err(|source| io_error("read", path, source))?;
        let start = match read_file_header(header.unwrap_or_default()) {
            FileHeader::Good => FILE_HEADER_BYTES as u64,
            FileHeader::OtherVersion(got) => return Err(JournalError::Version { path: path.to_owned(), got }),
            FileHeader::Bad => {
                survey.damage = Some(Damage { at_offset: 0, salvaged_frames: 0, search_cut_short: false });
                0
            }
        };
        survey.walk(&mut scanner, start).map_err(|source| io_error("read", path, source))?;
        Ok(survey)
    }

    /// Collects runs of good frames. What is bad at the very end is a torn tail, what is bad before a good frame is
    /// damage.
    fn walk(&mut self, scanner: &mut Scanner<'_>, start: u64) -> io::Result<()> {
        let mut offset = start;
        loop {
            let run_start = offset;
            while let Some((position, _)) = scanner.frame_at(offset)? {
                offset = position.end();
                self.frames += 1;
                if let Some(damage) = &mut self.damage {
                    damage.salvaged_frames += 1;
                }
            }
            if offset > run_start {
                self.runs.push(run_start..offset);
            }
            let next = if self.runs.len() < RUNS_MAX { scanner.next_good_after(offset)? } else { Next::CutShort };
            match next {
                Next::Frame(at) => {
                    self.damage.get_or_insert(Damage {
                        at_offset: offset,
                        salvaged_frames: 0,
                        search_cut_short: false,
                    });
                    offset = at;
                }
                Next::None => return Ok(()),
                Next::CutShort => {
                    // Whether good frames follow is unknown, and a file that may hold some is not cut.
                    let unknown = Damage { at_offset: offset, salvaged_frames: 0, search_cut_short: true };
                    self.damage.get_or_insert(unknown).search_cut_short = true;
                    return Ok(());
                }
            }
        }
    }

    fn good_end(&self) -> u64 {
        self.runs.last().map_or(FILE_HEADER_BYTES as u64, |run| run.end)
    }

    /// Bytes behind the last good frame, if there are any; all of them if there is not even a header.
    fn torn_bytes(&self) -> Option<u64> {
        let torn = self.length.saturating_sub(self.good_end());
        if self.header_missing { Some(self.length) } else { Some(torn).filter(|bytes| *bytes > 0) }
    }

    fn end_if_damaged(&self, moved_to: &Path) -> JournalEnd {
        self.damage.as_ref().map_or(JournalEnd::Clean, |damage| JournalEnd::Damaged {
            at_offset: damage.at_offset,
            salvaged_frames: damage.salvaged_frames,
            moved_to: moved_to.to_owned(),
            search_cut_short: damage.search_cut_short,
        })
    }
}

enum Next {
    Frame(u64),
    None,
    CutShort,
}

/// Reads a file through one window of memory.
struct Scanner<'a> {
    file: &'a File,
    length: u64,
    window: Vec<u8>,
    window_start: u64,
    resync_bytes_left: u64,
}

impl<'a> Scanner<'a> {
    fn new(file: &'a File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, length, window: Vec::new(), window_start: 0, resync_bytes_left: RESYNC_BYTES_MAX })
    }

    /// `count` bytes at `offset`, or `None` if the file ends before.
    fn bytes(&mut self, offset: u64, count: usize) -> io::Result<Option<&[u8]>> {
        let Some(end) = offset.checked_add(count as u64).filter(|end| *end <= self.length) else { return Ok(None) };
        let window_end = self.window_start + self.window.len() as u64;
        if offset < self.window_start || end > window_end {
            self.fill(offset, count)?;
        }
        let start = usize::try_from(offset - self.window_start).unwrap_or(usize::MAX);
        Ok(self.window.get(start..start.saturating_add(count)))
    }

    fn fill(&mut self, offset: u64, at_least: usize) -> io::Result<()> {
        let wanted = (WINDOW_BYTES.max(at_least) as u64).min(self.length - offset);
        let small = offset + at_least as u64;
        // A single read of a known frame need not fetch what stands behind it.
        let wanted = if self.window.is_empty() { wanted.min((small - offset).max(64 << 10)) } else { wanted };
        self.window.clear();
        self.window.resize(usize::try_from(wanted).unwrap_or(WINDOW_BYTES), 0);
        self.window_start = offset;
        self.file.read_exact_at(&mut self.window, offset)
    }

    /// The good frame whose header stands at `offset`, if there is one.
    fn frame_at(&mut self, offset: u64) -> io::Result<Option<(Position, &[u8])>> {
        let Some(length) = self.frame_length_at(offset)? else { return Ok(None) };
        let whole = FRAME_HEADER_BYTES + length as usize;
        let Some(bytes) = self.bytes(offset, whole)? else { return Ok(None) };
        let (header, frame) = bytes.split_at(FRAME_HEADER_BYTES);
        let good = header[4..] == frame_crc(length, frame).to_be_bytes();
        Ok(good.then_some((Position { offset, length }, frame)))
    }

    /// The length a header at `offset` claims, if a frame of that length may stand there.
    fn frame_length_at(&mut self, offset: u64) -> io::Result<Option<u32>> {
        let length = self.length;
        let Some(header) = self.bytes(offset, FRAME_HEADER_BYTES)? else { return Ok(None) };
        let claimed = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let fits = offset + FRAME_HEADER_BYTES as u64 + u64::from(claimed) <= length;
        Ok((claimed != 0 && claimed as usize <= FRAME_BYTES_MAX && fits).then_some(claimed))
    }

    /// Tries every offset after `offset`, within the budget of checked bytes.
    fn next_good_after(&mut self, offset: u64) -> io::Result<Next> {
        let mut candidate = offset.saturating_add(1);
        while candidate.saturating_add(FRAME_HEADER_BYTES as u64) < self.length {
            if let Some(length) = self.frame_length_at(candidate)? {
                let Some(left) = self.resync_bytes_left.checked_sub(u64::from(length)) else {
                    return Ok(Next::CutShort);
                };
                self.resync_bytes_left = left;
                if self.frame_at(candidate)?.is_some() {
                    return Ok(Next::Frame(candidate));
                }
            }
            candidate += 1;
        }
        Ok(Next::None)
    }
}

enum FileHeader {
    Good,
    OtherVersion(u32),
    Bad,
}

fn file_header() -> [u8; FILE_HEADER_BYTES] {
    let mut header = [0; FILE_HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_be_bytes());
    let crc = crc32c::crc32c(&header[..12]);
    header[12..].copy_from_slice(&crc.to_be_bytes());
    header
}

fn read_file_header(header: &[u8]) -> FileHeader {
    let Ok(header) = <[u8; FILE_HEADER_BYTES]>::try_from(header) else { return FileHeader::Bad };
    if header[..8] != MAGIC || header[12..] != crc32c::crc32c(&header[..12]).to_be_bytes() {
        return FileHeader::Bad;
    }
    match u32::from_be_bytes([header[8], header[9], header[10], header[11]]) {
        VERSION => FileHeader::Good,
        other => FileHeader::OtherVersion(other),
    }
}

/// The length is covered too: a flipped length that happens to fit must not move the frame's end.
fn frame_crc(length: u32, frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length.to_be_bytes()), frame)
}

fn lay_out(start: u64, frames: &[&[u8]]) -> Result<(Vec<u8>, Vec<Position>), JournalError> {
    let total = frames.iter().fold(0_usize, |sum, frame| sum.saturating_add(FRAME_HEADER_BYTES + frame.len()));
    if let Some(frame) = frames.iter().find(|frame| frame.is_empty() || frame.len() > FRAME_BYTES_MAX) {
        return Err(JournalError::FrameSize { got: frame.len() });
    }
    if total > APPEND_BYTES_MAX {
        return Err(JournalError::AppendSize { got: total });
    }
    let mut buffer = Vec::with_capacity(total);
    let mut positions = Vec::with_capacity(frames.len());
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        positions.push(Position { offset: start + buffer.len() as u64, length });
        buffer.extend_from_slice(&length.to_be_bytes());
        buffer.extend_from_slice(&frame_crc(length, frame).to_be_bytes());
        buffer.extend_from_slice(frame);
    }
    Ok((buffer, positions))
}

fn predecessors(path: &Path) -> Result<Vec<PathBuf>, JournalError> {
    super::directory::moved_aside(path).map_err(|source| io_error("list what was moved aside of", path, source))
}

pub(super) fn io_error(doing: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(number: usize, length: usize) -> Vec<u8> {
        (0..length).map(|at| u8::try_from((at * 31 + number * 7 + at / 251) % 256).unwrap()).collect()
    }

    fn start(position: Position) -> usize {
        usize::try_from(position.offset).unwrap()
    }

    fn open(path: &Path) -> (Journal, JournalEnd, Vec<Vec<u8>>) {
        let (journal, mut replay) = Journal::open(path).unwrap();
        let mut frames = Vec::new();
        let handed_over = replay.for_each(|_, bytes| frames.push(bytes.to_vec())).unwrap();
        assert_eq!(handed_over, replay.frames);
        (journal, replay.end, frames)
    }

    fn filled(path: &Path, frames: &[Vec<u8>]) -> Vec<Position> {
        let (mut journal, _, before) = open(path);
        assert!(before.is_empty());
        let borrowed: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        borrowed.chunks(3).flat_map(|group| journal.append(group).unwrap()).collect()
    }

    #[test]
    fn what_was_appended_is_replayed_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let frames: Vec<_> =
            [1, 300, 60_000, FRAME_BYTES_MAX, 2].iter().enumerate().map(|(n, len)| frame(n, *len)).collect();
        assert_eq!(open(&path).1, JournalEnd::Missing);
        let positions = filled(&path, &frames);
        let (journal, end, replayed) = open(&path);
        assert_eq!((end, &replayed), (JournalEnd::Clean, &frames));
        for (position, frame) in positions.iter().zip(&frames) {
            assert_eq!(&journal.read(*position).unwrap(), frame);
        }
        let wrong = Position { offset: positions[1].offset + 1, ..positions[1] };
        assert!(matches!(journal.read(wrong), Err(JournalError::ReadBack { .. })));
    }

    #[test]
    fn frames_outside_the_limits_are_refused_and_leave_the_journal_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut journal, _, _) = open(&path);
        let large = vec![1; FRAME_BYTES_MAX + 1];
        let largest = vec![1; FRAME_BYTES_MAX];
        assert!(matches!(journal.append(&[b"a", b""]), Err(JournalError::FrameSize { got: 0 })));
        assert!(matches!(journal.append(&[&large]), Err(JournalError::FrameSize { got }) if got == large.len()));
        assert!(matches!(journal.append(&vec![largest.as_slice(); 33]), Err(JournalError::AppendSize { .. })));
        assert!(journal.append(&[]).unwrap().is_empty());
        journal.append(&[&largest]).unwrap();
        drop(journal);
        assert_eq!(open(&path).2, [largest]);
    }

    #[test]
    fn any_error_of_an_append_closes_the_journal_until_the_next_start() {
        for (failure, replayed_after) in [(Failure::Write, 1), (Failure::Sync, 2), (Failure::ReadBack, 2)] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("journal");
            let (mut journal, _, _) = open(&path);
            journal.append(&[b"first"]).unwrap();
            journal.fail_next_append(failure);
            assert!(journal.append(&[b"second"]).is_err());
            assert!(journal.is_poisoned());
            let length = fs::metadata(&path).unwrap().len();
            for _ in 0..3 {
                assert!(matches!(journal.append(&[b"third"]), Err(JournalError::Poisoned { .. })));
            }
            assert_eq!(fs::metadata(&path).unwrap().len(), length, "a closed journal writes nothing");
            drop(journal);
            let (mut journal, _, replayed) = open(&path);
            assert_eq!(replayed.len(), replayed_after, "{failure:?}");
            journal.append(&[b"fourth"]).unwrap();
        }
    }

    #[test]
    fn a_journal_of_format_1_is_read_byte_by_byte_as_it_was_written() {
        // Put together by hand, with an independent CRC-32C.
        let written =
            [&b"SDJOURN1"[..], &[0, 0, 0, 1, 0xff, 0xbf, 0x6f, 0x2d], &[0, 0, 0, 4, 0x15, 0x33, 0xce, 0x3b], b"acme"]
                .concat();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        filled(&path, &[b"acme".to_vec()]);
        assert_eq!(fs::read(&path).unwrap(), written);
    }

    #[test]
    #[ignore = "a measurement"]
    fn measure() {
        for (length, group, count) in [(300, 1, 3_000), (60_000, 8, 500), (60_000, 1, 2_000)] {
            let folder = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
            let path = folder.path().join("journal");
            let (mut journal, _, _) = open(&path);
            let one = frame(1, length);
            let begun = crate::clock::instant();
            for _ in 0..count {
                journal.append(&vec![one.as_slice(); group]).unwrap();
            }
            let took = begun.elapsed().as_secs_f64();
            let begun = crate::clock::instant();
            let (_, mut replay) = Journal::open(&path).unwrap();
            replay.for_each(|_, _| ()).unwrap();
            println!(
                "{length} B by {group}: {:.0} appends/s, {:.0} MB/s, replay {:.0} MB/s",
                f64::from(count) / took,
                journal.length_bytes() as f64 / 1e6 / took,
                journal.length_bytes() as f64 / 1e6 / begun.elapsed().as_secs_f64()
            );
        }
    }

    #[test]
    fn a_full_disk_closes_the_journal() {
        let file = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        let mut journal = Journal::over(Path::new("/dev/full"), file, 0);
        assert!(matches!(journal.append(&[b"frame"]), Err(JournalError::Io { doing: "write", .. })));
        assert!(matches!(journal.append(&[b"frame"]), Err(JournalError::Poisoned { .. })));
    }

    #[test]
    fn a_torn_tail_is_cut_off_and_the_journal_goes_on() {
        let frames: Vec<_> = (0..6).map(|n| frame(n, 400 + n)).collect();
        type Harm = fn(&mut Vec<u8>, Position);
        let cases: [(&str, Harm); 5] = [
            ("half of the last frame is missing", |bytes, last| bytes.truncate(start(last) + 200)),
            ("half of the last header is missing", |bytes, last| bytes.truncate(start(last) + 3)),
            ("the last frame is zeroes", |bytes, last| bytes[start(last)..].fill(0)),
            ("a bit of the last frame is flipped", |bytes, last| bytes[start(last) + 50] ^= 4),
            ("a megabyte of zeroes follows half a frame", |bytes, last| {
                bytes.truncate(start(last) + 200);
                bytes.resize(bytes.len() + (1 << 20), 0);
            }),
        ];
        for (what, harm) in cases {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("journal");
            let positions = filled(&path, &frames);
            let mut bytes = fs::read(&path).unwrap();
            harm(&mut bytes, positions[5]);
            fs::write(&path, &bytes).unwrap();
            let (mut journal, end, replayed) = open(&path);
            let dropped_bytes = bytes.len() as u64 - positions[5].offset;
            assert_eq!((end, &replayed[..]), (JournalEnd::TornTail { dropped_bytes }, &frames[..5]), "{what}");
            journal.append(&[b"again"]).unwrap();
            drop(journal);
            let (_, end, replayed) = open(&path);
            assert_eq!((end, replayed.len()), (JournalEnd::Clean, 6), "{what}");
        }
    }

    #[test]
    fn a_journal_shorter_than_its_header_is_begun_again() {
        for length in [0, 1, 15] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("journal");
            fs::write(&path, &file_header()[..length]).unwrap();
            assert_eq!(open(&path).1, JournalEnd::TornTail { dropped_bytes: length as u64 });
            assert_eq!(open(&path).1, JournalEnd::Clean);
        }
    }

    #[test]
    fn a_journal_of_another_release_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut header = file_header();
        header[11] = 2;
        let crc = crc32c::crc32c(&header[..12]);
        header[12..].copy_from_slice(&crc.to_be_bytes());
        fs::write(&path, header).unwrap();
        assert!(matches!(Journal::open(&path), Err(JournalError::Version { got: 2, .. })));
        assert_eq!(fs::read(&path).unwrap(), header);
    }

    #[test]
    fn a_damaged_middle_is_moved_aside_and_every_other_frame_is_returned() {
        let frames: Vec<_> = (0..20).map(|n| frame(n, 3_000 + 17 * n)).collect();
        type Harm = fn(&mut Vec<u8>, &[Position]);
        let cases: [(&str, Harm, &[usize]); 6] = [
            ("a flipped bit", |bytes, at| bytes[start(at[7]) + 99] ^= 1, &[7]),
            ("a flipped bit in a length", |bytes, at| bytes[start(at[7]) + 2] ^= 8, &[7]),
            ("a huge length", |bytes, at| bytes[start(at[7])] = 0xff, &[7]),
            ("a zeroed page", |bytes, at| bytes[start(at[3])..][..4_096].fill(0), &[3, 4]),
            ("a missing stretch", |bytes, at| drop(bytes.drain(start(at[5]) + 40..start(at[6]))), &[5]),
            ("a damaged file header", |bytes, _| bytes[2] ^= 1, &[]),
        ];
        for (what, harm, lost) in cases {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("journal");
            let positions = filled(&path, &frames);
            let mut bytes = fs::read(&path).unwrap();
            harm(&mut bytes, &positions);
            fs::write(&path, &bytes).unwrap();
            let (mut journal, mut replay) = Journal::open(&path).unwrap();
            let mut replayed = Vec::new();
            replay.for_each(|_, bytes| replayed.push(bytes.to_vec())).unwrap();
            let expected: Vec<_> =
                frames.iter().enumerate().filter(|(n, _)| !lost.contains(n)).map(|(_, frame)| frame.clone()).collect();
            assert_eq!(replayed, expected, "{what}");
            let moved_to = folder.path().join("journal.damaged-1");
            assert!(matches!(&replay.end, JournalEnd::Damaged { moved_to: to, .. } if *to == moved_to), "{what}");
            assert_eq!(fs::read(&moved_to).unwrap(), bytes, "the damaged file is kept as it was");
            journal.append(&[b"after"]).unwrap();
            drop(journal);
            let (_, mut replay) = Journal::open(&path).unwrap();
            assert_eq!((replay.frames, &replay.predecessors), (1, &vec![moved_to.clone()]));
            assert_eq!(replay.for_each(|_, bytes| assert_eq!(bytes, b"after")).unwrap(), 1);
            assert_eq!(salvage(&moved_to).unwrap().frames, expected.len() as u64);
        }
    }

    #[test]
    fn sixty_damaged_copies_lose_only_the_frames_that_were_hit() {
        let frames: Vec<_> = (0..40).map(|n| frame(n, 500 + 211 * (n % 9))).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let positions = filled(&path, &frames);
        let original = fs::read(&path).unwrap();
        for seed in 0..64_usize {
            let mut bytes = original.clone();
            let at = (seed.wrapping_mul(2_654_435_761) ^ (seed << 7)) % bytes.len();
            let hit = match seed % 3 {
                0 => {
                    bytes[at] ^= 1 << (seed % 8);
                    at..at + 1
                }
                1 => {
                    let end = (at + 512).min(bytes.len());
                    bytes[at..end].fill(0);
                    at..end
                }
                _ => {
                    bytes.truncate(at);
                    at..original.len()
                }
            };
            let copy = folder.path().join(format!("copy-{seed}"));
            fs::write(&copy, &bytes).unwrap();
            let (_, _, replayed) = open(&copy);
            let untouched = |position: &Position| {
                let (start, end) = (start(*position), usize::try_from(position.end()).unwrap());
                original[start..end] == bytes.get(start..end).unwrap_or_default()[..]
            };
            let expected: Vec<_> =
                positions.iter().zip(&frames).filter(|(at, _)| untouched(at)).map(|(_, f)| f.clone()).collect();
            assert_eq!(replayed, expected, "seed {seed}, bytes {hit:?}");
        }
    }

    #[test]
    fn the_search_after_damage_has_a_budget() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        filled(&path, &[frame(1, 100)]);
        // Every fourth offset claims a frame of 64 KiB.
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend([0, 1, 0, 0].repeat(100_000));
        fs::write(&path, &bytes).unwrap();
        let file = File::open(&path).unwrap();
        let mut scanner = Scanner::new(&file).unwrap();
        scanner.resync_bytes_left = 10 << 20;
        assert!(matches!(scanner.next_good_after(124).unwrap(), Next::CutShort));
        assert!(scanner.resync_bytes_left < 1 << 17);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_journal_cut_anywhere_gives_a_prefix(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..2_000), 1..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("journal");
            let positions = filled(&path, &frames);
            let length = fs::metadata(&path).unwrap().len();
            let keep = cut.index(usize::try_from(length).unwrap() + 1) as u64;
            OpenOptions::new().write(true).open(&path).unwrap().set_len(keep).unwrap();
            let whole = positions.iter().filter(|position| position.end() <= keep).count();
            let (mut journal, _, replayed) = open(&path);
            prop_assert_eq!(&replayed[..], &frames[..whole]);
            journal.append(&[b"more"]).unwrap();
            drop(journal);
            let (_, end, replayed) = open(&path);
            prop_assert_eq!(end, JournalEnd::Clean);
            prop_assert_eq!(replayed.len(), whole + 1);
        }
    }

    const NEEDLE: &[u8; 32] = b"a record that must be forgotten!";

    fn redact(bytes: &[u8]) -> Option<Vec<u8>> {
        let at = bytes.windows(32).position(|window| window == NEEDLE)?;
        Some([&bytes[..at], &[9; 8], &bytes[at + 32..]].concat())
    }

    fn holders(folder: &Path) -> usize {
        let files = fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
        files.filter(|bytes| bytes.windows(32).any(|window| window == NEEDLE)).count()
    }

    /// Frames of which every fifth holds the needle.
    fn some_to_redact() -> Vec<Vec<u8>> {
        let needle = |n: usize| if n.is_multiple_of(5) { &NEEDLE[..] } else { &[] };
        (0..60).map(|n| [&frame(n, 100 + n * 3)[..], needle(n), b"end"].concat()).collect()
    }

    fn redacted(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        frames.iter().map(|frame| redact(frame).unwrap_or_else(|| frame.clone())).collect()
    }

    #[test]
    fn a_rewritten_journal_replays_the_replaced_frames_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let frames = some_to_redact();
        filled(&path, &frames);
        let (mut journal, ..) = open(&path);
        assert_eq!((holders(folder.path()), journal.rewrite(redact).unwrap()), (1, 12));
        assert_eq!(holders(folder.path()), 0);
        let positions = journal.append(&[b"goes on"]).unwrap();
        assert_eq!(journal.read(positions[0]).unwrap(), b"goes on");
        assert_eq!(journal.rewrite(redact).unwrap(), 0);
        drop(journal);
        let (_, end, replayed) = open(&path);
        assert_eq!((end, replayed), (JournalEnd::Clean, [redacted(&frames), vec![b"goes on".to_vec()]].concat()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_journal_set_aside_is_rewritten_too_and_keeps_its_frames() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let frames = some_to_redact();
        let positions = filled(&path, &frames);
        let mut bytes = fs::read(&path).unwrap();
        // The damaged frame is one that holds the needle, and still does.
        bytes[start(positions[10])] ^= 1;
        fs::write(&path, bytes).unwrap();
        let (mut journal, ..) = open(&path);
        assert_eq!(holders(folder.path()), 1);
        assert_eq!(journal.rewrite(redact).unwrap(), 11);
        assert_eq!(holders(folder.path()), 0);
        drop(journal);
        let (_, replay) = Journal::open(&path).unwrap();
        let mut kept = Vec::new();
        salvage(&replay.predecessors[0]).unwrap().for_each(|_, bytes| kept.push(bytes.to_vec())).unwrap();
        let mut expected = redacted(&frames);
        expected.remove(10);
        assert_eq!(kept, expected);
    }

    #[test]
    fn a_crash_before_the_rename_leaves_the_old_journal_and_no_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let frames = some_to_redact();
        filled(&path, &frames);
        for half in [b"".to_vec(), fs::read(&path).unwrap()] {
            fs::write(folder.path().join("journal.rewriting"), half).unwrap();
            let (_, end, replayed) = open(&path);
            assert_eq!((end, &replayed), (JournalEnd::Clean, &frames));
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_rewriting_that_fails_leaves_the_journal_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let frames = some_to_redact();
        let positions = filled(&path, &frames);
        let (mut journal, ..) = open(&path);
        let outcome = journal.rewrite(|_| Some(Vec::new()));
        assert!(matches!(outcome, Err(JournalError::FrameSize { got: 0 })));
        journal.append(&[b"goes on"]).unwrap();
        // A frame that rotted while the journal was open is not dropped in silence.
        let mut bytes = fs::read(&path).unwrap();
        bytes[start(positions[50])] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let offset = positions[50].offset;
        assert!(matches!(journal.rewrite(redact), Err(JournalError::ReadBack { offset: at, .. }) if at == offset));
        assert_eq!(fs::read(&path).unwrap(), bytes);
        journal.fail_next_append(Failure::Sync);
        journal.append(&[b"lost"]).unwrap_err();
        assert!(matches!(journal.rewrite(redact), Err(JournalError::Poisoned { .. })));
    }
}
