//! Where this data directory stands, so that a copied or restored one is noticed when a node starts on it.
//!
//! A restored backup forgets what was signed after it was made, and a copy does not know what the first one signs: both
//! sign one place of a log twice if they go on. The journal file tells them from the directory that they were: a file
//! keeps its inode and the time it was made for life, and no copy has both. (PROTOCOL W5, W6: a moved directory goes on
//! in new logs.)
//!
//! What is not noticed here: a journal that was overwritten in place (`cp`, `rsync --inplace` onto the existing file),
//! and an image of the whole file system with its machine id. There, and in general, the peers' heads are asked before
//! anything is signed.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use super::directory::{rewriting_name, sync_parent};

/// Name of the own journal in the data directory.
pub const JOURNAL_FILE: &str = "journal";

/// Name of the file that remembers the place.
pub const PLACE_FILE: &str = "place";

/// Longer than any such file; what is longer is none.
const BYTES_MAX: u64 = 1_024;

const FIRST_LINE: &str = "staydown place 1";
const MACHINE_ID_FILE: &str = "/etc/machine-id";

/// What a data directory is told from its copies by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// SHA-256 of the machine's id, in hexadecimal: the id itself should not leave its machine with a backup. `None` if
    /// it has none.
    pub machine: Option<String>,
    /// Device of the journal file.
    pub device: u64,
    /// Inode of the journal file.
    pub inode: u64,
    /// When the journal file was made, in nanoseconds since 1970. `None` if the file system does not tell.
    pub born_ns: Option<u128>,
}

/// Whether a data directory is where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stood {
    /// There is no journal, and never was one.
    New,
    /// It is the directory that the last start was in.
    Same,
    /// A release that did not remember the place has written it: taken as [`Stood::Same`] once. Call [`Place::write`],
    /// and say so.
    Unmarked,
    /// It is a copy, or restored, or its journal was replaced: nobody knows what was signed elsewhere, so its logs must
    /// not go on.
    Moved {
        /// Where it was; `None` if that cannot be read.
        was: Option<Place>,
        /// Where it is; `None` if the journal is gone.
        is: Option<Place>,
    },
}

impl Place {
    /// Compares where the journal in `data` is with what was written at the last start. To be called before the
    /// journal is opened.
    ///
    /// # Errors
    /// The file or the journal is there and cannot be looked at.
    pub fn read_and_compare(data: &Path) -> io::Result<Stood> {
        let is = Self::of(data, machine())?;
        let file = match File::open(data.join(PLACE_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(if is.is_some() { Stood::Unmarked } else { Stood::New });
            }
            file => file?,
        };
        let mut text = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, BYTES_MAX), &mut text)?;
        let was = String::from_utf8(text).ok().and_then(|text| Self::parse(&text));
        let same = matches!((&was, &is), (Some(was), Some(is)) if was.is_where(is));
        Ok(if same { Stood::Same } else { Stood::Moved { was, is } })
    }

    /// Remembers where the journal in `data` is now: after it was made or rewritten, and after a moved directory has
    /// closed its logs on disk. Durable when this returns. (A crash between making the journal anew and this looks like a
    /// move, which is harmless.)
    ///
    /// # Errors
    /// There is no journal, or the file cannot be written.
    pub fn write(data: &Path) -> io::Result<Self> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "the journal is missing");
        let place = Self::of(data, machine())?.ok_or_else(missing)?;
        let path = data.join(PLACE_FILE);
        let temporary = rewriting_name(&path);
        let mut file = File::create(&temporary)?;
        file.write_all(place.to_text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync_parent(&path)?;
        Ok(place)
    }

    fn of(data: &Path, machine: Option<String>) -> io::Result<Option<Self>> {
        let file = match fs::metadata(data.join(JOURNAL_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let born = file.created().ok().and_then(|born| born.duration_since(SystemTime::UNIX_EPOCH).ok());
        let born_ns = born.map(|born| born.as_nanos());
        Ok(Some(Self { machine, device: file.dev(), inode: file.ino(), born_ns }))
    }

    /// Device numbers may be others after the machine has started anew, so they count only where nothing better is
    /// known. An id or a birth time that only one of the two has says nothing.
    fn is_where(&self, other: &Self) -> bool {
        let machine = self.machine.is_none() || other.machine.is_none() || self.machine == other.machine;
        let file = match (self.born_ns, other.born_ns) {
            (Some(born), Some(other)) => born == other,
            _ => self.device == other.device,
        };
        machine && file && self.inode == other.inode
    }

    fn to_text(&self) -> String {
        let machine = self.machine.as_deref().unwrap_or("-");
        let born = self.born_ns.map_or_else(|| "-".to_owned(), |born| born.to_string());
        format!("{FIRST_LINE}\nmachine {machine}\ndevice {}\ninode {}\nborn {born}\n", self.device, self.inode)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_prefix(FIRST_LINE)?.strip_prefix('\n')?.strip_suffix('\n')?.split('\n');
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let machine = Some(value("machine")?).filter(|machine| *machine != "-").map(str::to_owned);
        let (device, inode) = (value("device")?.parse().ok()?, value("inode")?.parse().ok()?);
        let born_ns = match value("born")? {
            "-" => None,
            born => Some(born.parse().ok()?),
        };
        lines.next().is_none().then_some(Self { machine, device, inode, born_ns })
    }
}

/// `None` also for a machine whose id is not set yet.
fn machine() -> Option<String> {
    let id = fs::read_to_string(MACHINE_ID_FILE).ok()?;
    let id = id.trim();
    (id.len() == 32).then(|| crate::replica::ids::hex(&Sha256::digest(format!("staydown/place/v1\n{id}"))))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::journal::Journal;
    use super::*;

    fn stood(data: &Path) -> Stood {
        Place::read_and_compare(data).unwrap()
    }

    fn has_moved(data: &Path) -> bool {
        matches!(stood(data), Stood::Moved { was: Some(_), is: Some(_) })
    }

    /// A data directory as a start leaves it.
    fn started(data: &Path) -> Journal {
        fs::create_dir(data).unwrap();
        let (mut journal, _) = Journal::open(&data.join(JOURNAL_FILE)).unwrap();
        journal.append(&[b"block"]).unwrap();
        Place::write(data).unwrap();
        journal
    }

    fn run(program: &str, arguments: &[&Path]) {
        assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program}");
    }

    #[test]
    fn a_directory_is_new_then_the_same_at_every_start() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        assert_eq!(stood(&data), Stood::New);
        let mut journal = started(&data);
        for _ in 0..3 {
            journal.append(&[b"block"]).unwrap();
            assert_eq!(stood(&data), Stood::Same);
            drop(journal);
            journal = Journal::open(&data.join(JOURNAL_FILE)).unwrap().0;
        }
        // Also under another name: it is still the only one.
        fs::rename(&data, folder.path().join("renamed")).unwrap();
        assert_eq!(stood(&folder.path().join("renamed")), Stood::Same);
    }

    #[test]
    fn every_copy_has_moved_and_the_original_has_not() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        drop(started(&data));
        let (plain, archived) = (folder.path().join("plain"), folder.path().join("archived"));
        fs::create_dir(&plain).unwrap();
        for name in [JOURNAL_FILE, PLACE_FILE] {
            fs::copy(data.join(name), plain.join(name)).unwrap();
        }
        run("cp", &[Path::new("-a"), &data, &archived]);
        assert!(has_moved(&plain) && has_moved(&archived));
        assert_eq!(stood(&data), Stood::Same);
        // Told once, it is at home there.
        Place::write(&plain).unwrap();
        assert_eq!(stood(&plain), Stood::Same);
    }

    #[test]
    fn a_backup_put_back_over_a_deleted_directory_has_moved() {
        let folder = tempfile::tempdir().unwrap();
        let (data, backup) = (folder.path().join("data"), folder.path().join("backup"));
        drop(started(&data));
        run("cp", &[Path::new("-a"), &data, &backup]);
        // Over and over, so that a file system that does such things gives the same inode again.
        for _ in 0..8 {
            fs::remove_dir_all(&data).unwrap();
            run("cp", &[Path::new("-a"), &backup, &data]);
            assert!(has_moved(&data));
        }
    }

    #[test]
    fn a_journal_that_is_gone_damaged_or_rewritten_has_moved_until_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut journal = started(&data);
        journal.rewrite(|_| None).unwrap();
        assert!(has_moved(&data));
        Place::write(&data).unwrap();
        assert_eq!(stood(&data), Stood::Same);
        for harm in [&b""[..], b"staydown place 1\nmachine -\n", &[0xff; 4_000]] {
            fs::write(data.join(PLACE_FILE), harm).unwrap();
            assert!(matches!(stood(&data), Stood::Moved { was: None, is: Some(_) }));
        }
        Place::write(&data).unwrap();
        fs::remove_file(data.join(JOURNAL_FILE)).unwrap();
        assert!(matches!(stood(&data), Stood::Moved { was: Some(_), is: None }));
        Place::write(&data).unwrap_err();
    }

    #[test]
    fn a_directory_from_before_places_were_remembered_is_unmarked_once() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        drop(started(&data));
        fs::remove_file(data.join(PLACE_FILE)).unwrap();
        assert_eq!(stood(&data), Stood::Unmarked);
        Place::write(&data).unwrap();
        assert_eq!(stood(&data), Stood::Same);
    }

    #[test]
    fn what_tells_two_places_apart() {
        let place = |machine: Option<&str>, device, inode, born_ns| Place {
            machine: machine.map(str::to_owned),
            device,
            inode,
            born_ns,
        };
        let here = place(Some("a"), 1, 2, Some(3));
        let cases = [
            (place(Some("a"), 1, 2, Some(3)), true),
            (place(Some("a"), 9, 2, Some(3)), true),
            (place(None, 1, 2, Some(3)), true),
            (place(Some("a"), 1, 2, None), true),
            (place(Some("a"), 9, 2, None), false),
            (place(Some("b"), 1, 2, Some(3)), false),
            (place(Some("a"), 1, 9, Some(3)), false),
            (place(Some("a"), 1, 2, Some(9)), false),
        ];
        for (there, same) in cases {
            assert_eq!((here.is_where(&there), there.is_where(&here)), (same, same), "{there:?}");
            assert_eq!(Place::parse(&there.to_text()), Some(there));
        }
    }
}
