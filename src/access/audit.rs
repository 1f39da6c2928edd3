//! The audit trail: who of our company did what, by which door. Local, for the company's own eyes.
//!
//! One JSON line an act, synced before the caller has its answer. What was looked up is not in it, and neither is what a
//! web address or an account was called: what was signed is named by its place in our log, where everybody can read it.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Caller;
use crate::replica::ids::TimeMs;

/// Name of the trail inside a data directory; older parts are `audit-1.jsonl` and so on, the highest number the oldest.
pub const AUDIT_FILE: &str = "audit.jsonl";
/// A part of the trail is as long as this, and then another begins: some 40,000 acts.
pub const PART_BYTES_MAX: u64 = 8 << 20;
/// Parts that are kept: some 1.3 million acts.
pub const PARTS_MAX: usize = 32;
/// Characters of a target or an outcome; what is longer is cut.
pub const TEXT_MAX: usize = 512;

/// One thing that somebody did, or tried to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// Unix milliseconds.
    pub time_ms: u64,
    /// Name of the token.
    pub caller: String,
    /// console, http or grpc.
    pub via: String,
    /// The id of the request, as it stands in the log lines.
    pub request_id: String,
    /// What was done, as in `submit`, `endorse` or `token revoke`.
    pub action: String,
    /// To what.
    pub target: String,
    /// OK, or the reason why not.
    pub outcome: String,
}

/// Why the trail cannot be written or read.
#[derive(Debug, Error)]
#[error("cannot use the audit trail {}: {source}", path.display())]
pub struct AuditError {
    path: PathBuf,
    source: io::Error,
}

/// The trail of one node.
#[derive(Debug)]
pub struct Audit {
    folder: Option<PathBuf>,
    part_bytes_max: u64,
    now: Mutex<Option<File>>,
}

impl Audit {
    /// Goes on with the trail in `data`.
    ///
    /// # Errors
    /// It cannot be opened for writing.
    pub fn open(data: &Path) -> Result<Self, AuditError> {
        let audit = Self { folder: Some(data.to_owned()), part_bytes_max: PART_BYTES_MAX, now: Mutex::default() };
        *audit.current() = Some(open_part(&data.join(AUDIT_FILE))?);
        Ok(audit)
    }

    /// Keeps nothing.
    pub fn none() -> Self {
        Self { folder: None, part_bytes_max: PART_BYTES_MAX, now: Mutex::default() }
    }

    /// Notes an act, and returns when it is on stable storage.
    ///
    /// # Errors
    /// It was not noted. The act itself may have been done: whoever calls says so in the log.
    pub fn note(&self, caller: &Caller, request_id: &str, now: TimeMs, did: &Did<'_>) -> Result<(), AuditError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let act = Act {
            time_ms: now.0,
            caller: caller.name.to_string(),
            via: caller.via.name().to_owned(),
            request_id: cut(request_id),
            action: cut(did.action),
            target: cut(did.target),
            outcome: cut(did.outcome),
        };
        let path = folder.join(AUDIT_FILE);
        let fail = |source| AuditError { path: path.clone(), source };
        let mut line = serde_json::to_vec(&act).map_err(|e| fail(e.into()))?;
        line.push(b'\n');
        let mut current = self.current();
        let long =
            current.as_ref().and_then(|file| file.metadata().ok()).is_some_and(|m| m.len() >= self.part_bytes_max);
        if long {
            *current = None;
            turn_over(folder).map_err(fail)?;
        }
        let file = match &mut *current {
            Some(file) => file,
            none => none.insert(open_part(&path)?),
        };
        let written = file.write_all(&line).and_then(|()| file.sync_data());
        if written.is_err() {
            // What was half written is ended when the part is opened again.
            *current = None;
        }
        written.map_err(fail)
    }

    /// Hands over every act since `from`, oldest first, until `take` has had enough (`false`). Lines that were torn by a
    /// crash are left out.
    ///
    /// # Errors
    /// A part cannot be read.
    pub fn read(&self, from: TimeMs, mut take: impl FnMut(Act) -> bool) -> Result<(), AuditError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        for number in (0..PARTS_MAX).rev() {
            let path = part(folder, number);
            let fail = |source| AuditError { path: path.clone(), source };
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(fail(error)),
            };
            for line in BufReader::new(file).split(b'\n') {
                let Ok(act) = serde_json::from_slice::<Act>(&line.map_err(fail)?) else { continue };
                if act.time_ms >= from.0 && !take(act) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn current(&self) -> MutexGuard<'_, Option<File>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was done, to what, and what came of it.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields are those of Act")]
pub struct Did<'a> {
    pub action: &'a str,
    pub target: &'a str,
    pub outcome: &'a str,
}

fn part(folder: &Path, number: usize) -> PathBuf {
    match number {
        0 => folder.join(AUDIT_FILE),
        n => folder.join(format!("audit-{n}.jsonl")),
    }
}

fn open_part(path: &Path) -> Result<File, AuditError> {
    let open = || -> io::Result<File> {
        let mut file = File::options().create(true).read(true).append(true).mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        let mut last = [b'\n'];
        if length > 0 {
            file.read_exact_at(&mut last, length - 1)?;
        }
        // A line that a crash or a full disk has torn ends here, so that it takes no other with it.
        if last != [b'\n'] {
            file.write_all(b"\n")?;
        }
        Ok(file)
    };
    open().map_err(|source| AuditError { path: path.to_owned(), source })
}

/// The part that is written becomes the first of the older ones; the oldest goes.
fn turn_over(folder: &Path) -> io::Result<()> {
    for number in (0..PARTS_MAX - 1).rev() {
        let from = part(folder, number);
        if from.exists() {
            fs::rename(from, part(folder, number + 1))?;
        }
    }
    Ok(())
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Scopes, Via};

    fn caller() -> Caller {
        Caller { name: "anna".into(), scopes: Scopes::default(), via: Via::Console, token: None }
    }

    fn note(audit: &Audit, at: u64) {
        let did = Did { action: "submit", target: "acme/0@7#1", outcome: "OK" };
        audit.note(&caller(), "r-1", TimeMs(at), &did).unwrap();
    }

    fn times(audit: &Audit, from: u64) -> Vec<u64> {
        let mut times = Vec::new();
        audit
            .read(TimeMs(from), |act| {
                times.push(act.time_ms);
                true
            })
            .unwrap();
        times
    }

    #[test]
    fn acts_outlive_a_restart_and_a_torn_line_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        note(&Audit::open(folder.path()).unwrap(), 1);
        let mut file = File::options().append(true).open(folder.path().join(AUDIT_FILE)).unwrap();
        file.write_all(b"{\"time_ms\":2,").unwrap();
        let audit = Audit::open(folder.path()).unwrap();
        note(&audit, 3);
        assert_eq!((times(&audit, 0), times(&audit, 2)), (vec![1, 3], vec![3]));
        let mut first = None;
        audit
            .read(TimeMs(0), |act| {
                first = Some(act);
                false
            })
            .unwrap();
        let act = first.unwrap();
        assert_eq!((act.caller.as_str(), act.via.as_str(), act.target.as_str()), ("anna", "console", "acme/0@7#1"));
    }

    #[test]
    fn the_trail_is_bounded_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit { part_bytes_max: 1, ..Audit::open(folder.path()).unwrap() };
        let count = PARTS_MAX as u64 + 5;
        (1..=count).for_each(|at| note(&audit, at));
        assert_eq!(times(&audit, 0), (6..=count).collect::<Vec<_>>());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), PARTS_MAX);
    }

    #[test]
    fn a_part_that_cannot_be_opened_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit { part_bytes_max: 1, ..Audit::open(folder.path()).unwrap() };
        note(&audit, 1);
        let did = Did { action: "a", target: "", outcome: "OK" };
        *audit.current() = None;
        fs::rename(folder.path().join(AUDIT_FILE), folder.path().join("kept")).unwrap();
        fs::create_dir(folder.path().join(AUDIT_FILE)).unwrap();
        for _ in 0..PARTS_MAX {
            assert!(audit.note(&caller(), "r", TimeMs(2), &did).is_err());
        }
        fs::remove_dir(folder.path().join(AUDIT_FILE)).unwrap();
        fs::rename(folder.path().join("kept"), folder.path().join(AUDIT_FILE)).unwrap();
        note(&audit, 3);
        assert_eq!(times(&audit, 0), [1, 3]);
    }

    #[test]
    fn a_long_text_is_cut_and_stays_on_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path()).unwrap();
        let target = "ä\n".repeat(TEXT_MAX);
        audit.note(&caller(), "r", TimeMs(1), &Did { action: "a", target: &target, outcome: "" }).unwrap();
        let mut length = 0;
        audit
            .read(TimeMs(0), |act| {
                length = act.target.chars().count();
                true
            })
            .unwrap();
        assert_eq!(length, TEXT_MAX);
    }
}
