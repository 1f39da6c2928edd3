//! How a command ends: an exit code, and for people cause, culprit and cure.

use std::io;
use std::process::ExitCode;

use serde::Serialize;

use crate::config::ConfigError;
use crate::hashing::HashingError;
use crate::keys::KeyError;
use crate::replica::charter::CharterError;
use crate::replica::signal::SignalError;
use crate::store::LockError;
use crate::wire::files::FileError;

/// Exit codes, the same for every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It worked; for `match`: it matches.
    Ok = 0,
    /// It did not work.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// No match, or not found.
    NotFound = 3,
    /// Refused by policy or by a peer.
    Refused = 4,
    /// The node cannot be reached.
    Unreachable = 5,
    /// Something does not verify.
    Verification = 6,
    /// An input file is bad.
    BadInput = 65,
    /// A bug in this program.
    Bug = 70,
    /// Another process works in the data directory.
    InUse = 73,
    /// Reading or writing failed.
    Io = 74,
    /// Stopped after a storage failure.
    Storage = 75,
    /// The settings cannot be used.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What a command answers: an exit code, or a failure that is told first.
pub type Outcome = Result<Exit, Failure>;

/// Why a command failed, for the person who reads it at night.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What happened, lower case, no full stop.
    pub cause: String,
    /// What exactly is to blame: fields, files, members, values.
    pub culprits: Vec<String>,
    /// What to do, if that is known.
    pub fix: Option<String>,
    /// How the process ends.
    pub exit: Exit,
}

/// The failure as `--json` writes it.
#[derive(Serialize)]
struct Json<'a> {
    error: Inside<'a>,
}

#[derive(Serialize)]
struct Inside<'a> {
    cause: &'a str,
    culprits: &'a [String],
    fix: Option<&'a str>,
    exit_code: u8,
}

impl Failure {
    /// A failure that ends with `exit`.
    pub fn new(exit: Exit, cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), culprits: Vec::new(), fix: None, exit }
    }

    /// The same, naming something that is to blame.
    #[must_use]
    pub fn culprit(mut self, culprit: impl Into<String>) -> Self {
        self.culprits.push(culprit.into());
        self
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// As people read it.
    pub fn to_text(&self) -> String {
        let mut text = format!("error: {}\n", self.cause);
        for culprit in &self.culprits {
            text.push_str(&format!("  {culprit}\n"));
        }
        let code = self.exit as u8;
        match &self.fix {
            Some(fix) => text.push_str(&format!("  fix: {fix}        exit code {code}\n")),
            None => text.push_str(&format!("  exit code {code}\n")),
        }
        text
    }

    /// As programs read it: `{"error": {"cause", "culprits", "fix", "exit_code"}}`.
    pub fn to_json(&self) -> String {
        let error = Inside {
            cause: &self.cause,
            culprits: &self.culprits,
            fix: self.fix.as_deref(),
            exit_code: self.exit as u8,
        };
        serde_json::to_string(&Json { error }).unwrap_or_else(|_unwritable| "{\"error\":{}}".to_owned())
    }
}

/// A cure that stands at the end of a message ("...; fix: chmod 600 x") becomes the failure's own.
fn from_message(exit: Exit, message: &str) -> Failure {
    match message.rsplit_once("; fix: ") {
        Some((cause, fix)) => Failure::new(exit, cause).fix(fix),
        None => Failure::new(exit, message),
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match &error {
            ConfigError::Several(mistakes) => {
                let failure = Self::new(Exit::Config, format!("the settings have {} mistakes", mistakes.len()));
                error.mistakes().into_iter().fold(failure, Self::culprit)
            }
            one => from_message(Exit::Config, &one.to_string()),
        }
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        let exit = match &error {
            KeyError::Io { .. } => Exit::Io,
            KeyError::Exists { .. }
            | KeyError::ExampleKey { .. }
            | KeyError::WrongPassphrase { .. }
            | KeyError::Credential { .. } => Exit::Refused,
            KeyError::Passphrase(_) | KeyError::Sealed { .. } => Exit::Usage,
            _ => Exit::BadInput,
        };
        from_message(exit, &error.to_string())
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        match &error {
            FileError::Io { source, .. } if source.kind() != io::ErrorKind::NotFound => {
                room(source.kind(), Self::new(Exit::Io, error.to_string()))
            }
            _ => Self::new(Exit::BadInput, error.to_string()),
        }
    }
}

impl From<CharterError> for Failure {
    fn from(error: CharterError) -> Self {
        let exit = match error {
            CharterError::Forum { .. } => Exit::Refused,
            _ => Exit::Verification,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<HashingError> for Failure {
    fn from(error: HashingError) -> Self {
        let exit = match &error {
            HashingError::Read { source, .. } if source.kind() != io::ErrorKind::NotFound => Exit::Io,
            _ => Exit::BadInput,
        };
        let failure = Self::new(exit, error.to_string());
        match std::error::Error::source(&error) {
            Some(source) => failure.culprit(source.to_string()),
            None => failure,
        }
    }
}

impl From<SignalError> for Failure {
    fn from(error: SignalError) -> Self {
        Self::new(Exit::Usage, error.to_string())
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        let exit = match error {
            LockError::InUse { .. } => Exit::InUse,
            LockError::Io { .. } => Exit::Io,
        };
        Self::new(exit, error.to_string())
    }
}

/// An operation on `what` failed for the operating system's reason.
pub fn io_failure(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Failure {
    move |error| room(error.kind(), Failure::new(Exit::Io, format!("{what}: {error}")))
}

/// A full disk has one cure, whatever was being written; files are written whole or not at all.
fn room(kind: io::ErrorKind, failure: Failure) -> Failure {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            failure.fix("make room on that disk, then run this again: nothing was left half done")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_cause_culprit_and_cure() {
        let failure = Failure::new(Exit::Refused, "acme refused our certificate")
            .culprit("charter 5 no longer lists this node's TLS key")
            .fix("staydown charter admit join-request.sdj");
        let expected = "error: acme refused our certificate\n  charter 5 no longer lists this node's TLS key\n  \
                        fix: staydown charter admit join-request.sdj        exit code 4\n";
        assert_eq!(failure.to_text(), expected);
        let json: serde_json::Value = serde_json::from_str(&failure.to_json()).unwrap();
        assert_eq!(json["error"]["exit_code"], 4);
        assert_eq!(json["error"]["fix"], "staydown charter admit join-request.sdj");
    }

    #[test]
    fn a_cure_inside_a_message_is_taken_out_of_it() {
        let failure = from_message(Exit::Io, "it may be read by others; fix: chmod 600 it");
        assert_eq!(
            (failure.cause.as_str(), failure.fix.as_deref()),
            ("it may be read by others", Some("chmod 600 it"))
        );
        assert_eq!(from_message(Exit::Io, "plain").fix, None);
    }

    #[test]
    fn a_full_disk_is_told_with_its_cure() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let file = FileError::Io { path: "forum.sdi".into(), source: full() };
        for failure in [Failure::from(file), io_failure("forum.sdi")(full())] {
            assert_eq!(failure.exit, Exit::Io);
            assert!(failure.cause.starts_with("forum.sdi: ") && failure.fix.unwrap().starts_with("make room"));
        }
        assert_eq!(io_failure("x")(io::Error::from(io::ErrorKind::PermissionDenied)).fix, None);
    }

    #[test]
    fn exit_codes_are_those_that_scripts_rely_on() {
        let codes = [Exit::Ok, Exit::Failed, Exit::Usage, Exit::NotFound, Exit::Refused, Exit::Unreachable];
        assert_eq!(codes.map(|code| code as u8), [0, 1, 2, 3, 4, 5]);
        let codes = [Exit::Verification, Exit::BadInput, Exit::InUse, Exit::Io, Exit::Storage, Exit::Config];
        assert_eq!(codes.map(|code| code as u8), [6, 65, 73, 74, 75, 78]);
    }
}
