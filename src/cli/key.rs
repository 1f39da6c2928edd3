//! `charter key` and the key of `charter sign`: founders' keys, encrypted under a passphrase that is never an argument.

use std::path::{Path, PathBuf};

use clap::Args;
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use super::Invocation;
use super::failure::{Exit, Failure, Outcome, io_failure};
use super::terminal::Terminal;
use crate::keys::{self, KeyError, Passphrase, strict_unless_example};
use crate::replica::ids::{KeyId, hex};
use crate::wire::files;

/// Where the passphrase of a founder key comes from, when nobody is there to type it.
#[derive(Args)]
pub(super) struct PassphraseArgs {
    /// File whose first line is the passphrase; only its owner may read it [default: asked for]
    #[arg(long, value_name = "FILE", env = "STAYDOWN_PASSPHRASE_FILE")]
    passphrase_file: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct FounderKeyArgs {
    /// New file for the secret key
    file: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Write the secret key as it is: whoever gets the file can sign with it
    #[arg(long, conflicts_with = "passphrase_file")]
    no_passphrase: bool,
}

impl PassphraseArgs {
    /// The passphrase for what is at `path`: from the file, or typed once.
    fn given(&self, path: &Path, terminal: Terminal) -> Result<Passphrase, Failure> {
        match &self.passphrase_file {
            Some(file) => Ok(Passphrase::read(file)?),
            None => typed(&format!("Passphrase of {}: ", path.display()), terminal),
        }
    }

    /// A new passphrase: from the file, or typed twice.
    fn new_one(&self, path: &Path, terminal: Terminal) -> Result<Passphrase, Failure> {
        let first = self.given(path, terminal)?;
        first.check_new()?;
        if self.passphrase_file.is_none() && typed("The same again: ", terminal)? != first {
            return Err(Failure::new(Exit::Usage, "the two passphrases differ; nothing was made"));
        }
        Ok(first)
    }
}

/// What a person types, without it being shown. The terminal is asked, whatever stdin and stdout are.
fn typed(question: &str, terminal: Terminal) -> Result<Passphrase, Failure> {
    if !terminal.can_type() {
        let failure = Failure::new(Exit::Usage, "a passphrase is needed, and nobody is here to type it");
        return Err(failure.fix("--passphrase-file FILE, or STAYDOWN_PASSPHRASE_FILE"));
    }
    let text = rpassword::prompt_password(question).map_err(io_failure("the terminal"))?;
    Ok(Passphrase::new(Zeroizing::new(text.into_bytes()))?)
}

/// `charter key FILE`.
pub(super) fn founder(args: &FounderKeyArgs, at: &Invocation) -> Outcome {
    let file = &args.file;
    let mut public = file.file_name().unwrap_or_default().to_owned();
    public.push(".pub");
    let public = file.with_file_name(public);
    // Before a passphrase is asked for.
    for path in [file, &public] {
        if path.exists() {
            return Err(KeyError::Exists { path: path.clone() }.into());
        }
    }
    let key = if args.no_passphrase {
        at.terminal.talk("warning: the secret key is not encrypted: whoever gets the file can sign with it");
        keys::create_founder(file)?
    } else {
        keys::create_sealed_founder(file, &args.passphrase.new_one(file, at.terminal)?)?
    };
    files::write_text(&public, &files::founder_file(&key.verifying_key()))?;
    let id = KeyId::of(key.verifying_key().as_bytes());
    if at.terminal.json {
        let public_key = hex(key.verifying_key().as_bytes());
        at.terminal.json(&serde_json::json!({ "key_id": id.to_string(), "public_key": public_key }))?;
    } else {
        at.terminal.data(files::founder_file(&key.verifying_key()).trim_end())?;
    }
    at.terminal.talk(format!("founder key {id}\n  secret  {}\n  public  {}", file.display(), public.display()));
    at.terminal.talk("Keep the secret half off the network. Next: staydown charter found");
    Ok(Exit::Ok)
}

/// A founder's key for signing: plain, or opened with its passphrase. Keys of `certs-example` may lie around in any
/// mode: they are published.
pub(super) fn load_founder(path: &Path, passphrase: &PassphraseArgs, at: &Invocation) -> Result<SigningKey, Failure> {
    match strict_unless_example(|permissions| keys::load_founder_with(path, permissions)) {
        Err(KeyError::Sealed { .. }) => Ok(keys::load_sealed_founder(path, &passphrase.given(path, at.terminal)?)?),
        loaded => Ok(loaded?),
    }
}
