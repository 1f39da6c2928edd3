//! `key`: the keys of this node, and how each is changed. And founders' keys, for `charter key` and `charter sign`:
//! encrypted under a passphrase that is never an argument.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ed25519_dalek::SigningKey;
use prost::Message as _;
use zeroize::Zeroizing;

use super::failure::{Exit, Failure, Outcome, io_failure};
use super::terminal::Terminal;
use super::{Invocation, charter, init, show};
use crate::accounts::SealSecret;
use crate::answers;
use crate::clock;
use crate::keys::{self, CertificateTerms, KeyError, Passphrase, TlsIdentity, strict_unless_example};
use crate::replica::charter::{CharterChain, SealKey};
use crate::replica::ids::{KeyId, MemberId, Pin, hex};
use crate::replica::proto;
use crate::store;
use crate::wire::files::{self, Applicant, Binding, JoinRequest};
use crate::wire::local;

#[derive(Subcommand)]
pub(super) enum KeyCommand {
    /// Show the keys of this node: pins, key ids, certificate dates, and which logs they write
    Show,
    /// Change a key of this node
    Rotate(RotateArgs),
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["log", "tls", "root", "seal"]))]
pub(super) struct RotateArgs {
    /// The keys of the logs: closes them and goes on under new log numbers
    #[arg(long)]
    log: bool,
    /// The TLS key: makes the next one and a request that lists both; once more when the charter lists it
    #[arg(long)]
    tls: bool,
    /// The log root key: makes the next one and a request for it
    #[arg(long)]
    root: bool,
    /// The seal key, which opens the forum's peppers: makes the next one, or the first, and a request for it
    #[arg(long)]
    seal: bool,
    /// The request for the founders
    #[arg(short, long, value_name = "FILE", default_value = "key-change.sdj", conflicts_with = "log")]
    out: PathBuf,
}

pub(super) async fn key(command: KeyCommand, at: &Invocation) -> Outcome {
    match command {
        KeyCommand::Show => show_keys(at).await,
        KeyCommand::Rotate(args) if args.log => rotate_log(at).await,
        KeyCommand::Rotate(args) if args.tls => rotate_tls(&args.out, at).await,
        KeyCommand::Rotate(args) if args.seal => rotate_seal(&args.out, at).await,
        KeyCommand::Rotate(args) => rotate_root(&args.out, at).await,
    }
}

async fn show_keys(at: &Invocation) -> Outcome {
    let data = at.config()?.data;
    init::member_here(&data)?;
    let keys = init::load_keys(&data)?;
    let next = next_tls(&data)?;
    let root = KeyId::of(keys.root.verifying_key().as_bytes());
    let next_root = data.join(init::KEYS_FOLDER).join(keys::LOG_ROOT_NEXT_FILE).exists();
    let us = Us::find(at).await.ok();
    let logs = match at.node().await {
        Ok(node) => node.status(local::StatusRequest {}).await.ok().map(|s| own_logs(&s)),
        Err(_stopped) => None,
    };
    let seal = keys.seal.as_ref().and_then(SealSecret::public);
    let seal_listed = us.as_ref().zip(seal).map(|(us, seal)| us.member.seal_key[..] == seal.as_bytes()[..]);
    let seal_next = data.join(init::KEYS_FOLDER).join(keys::SEAL_KEY_NEXT_FILE).exists();
    let listed = |pin: Pin| us.as_ref().map(|us| us.pins().contains(&pin));
    let root_listed = us.as_ref().map(|us| us.member.log_root_key[..] == keys.root.verifying_key().as_bytes()[..]);
    if at.terminal.json {
        let tls = |identity: &TlsIdentity| {
            let facts = identity.facts();
            serde_json::json!({
                "pin": facts.pin.to_string(), "not_before_ms": facts.not_before.0, "not_after_ms": facts.not_after.0,
                "listed": listed(facts.pin),
            })
        };
        at.terminal.json(&serde_json::json!({
            "log_root_key_id": root.to_string(), "log_root_listed": root_listed, "log_root_next": next_root,
            "tls": tls(&keys.tls), "tls_next": next.as_ref().map(tls), "logs": logs,
            "seal_key": seal.map(|key| hex(key.as_bytes())), "seal_key_listed": seal_listed, "seal_key_next": seal_next,
        }))?;
        return Ok(Exit::Ok);
    }
    let mark = |listed: Option<bool>| match listed {
        Some(true) => ", in the charter",
        Some(false) => ", NOT in the charter",
        None => "",
    };
    let line = |name: &str, value: String| at.terminal.data(format!("{name:<12} {value}"));
    line("Log root", format!("{root}{}", mark(root_listed)))?;
    if next_root {
        line("", format!("{} waits for the charter to name it", keys::LOG_ROOT_NEXT_FILE))?;
    }
    line("TLS", format!("{}{}", keys.tls.pin(), mark(listed(keys.tls.pin()))))?;
    line("", super::cert::dates(&keys.tls))?;
    if let Some(next) = &next {
        line("TLS next", format!("{}{}", next.pin(), mark(listed(next.pin()))))?;
        line("", super::cert::dates(next))?;
    }
    match &seal {
        Some(key) => line("Seal", format!("{}{}", hex(key.as_bytes()), mark(seal_listed)))?,
        None => line("Seal", "none: staydown key rotate --seal".to_owned())?,
    }
    if seal_next {
        line("", format!("{} is the next one, or in use already", keys::SEAL_KEY_NEXT_FILE))?;
    }
    match logs {
        None => line("Logs", "the node does not run: staydown run".to_owned())?,
        Some(logs) => {
            for log in logs {
                line("Log", log)?;
            }
        }
    }
    Ok(Exit::Ok)
}

fn own_logs(s: &local::StatusResponse) -> Vec<String> {
    let ours = s.heads.iter().filter(|head| head.member_id == s.member_id);
    ours.map(|head| format!("{} ({}): block {}", head.log_no, head.lane, head.seq)).collect()
}

async fn rotate_log(at: &Invocation) -> Outcome {
    if keys::is_credential(keys::LOG_SEED_FILE) {
        return Err(KeyError::Credential { name: keys::LOG_SEED_FILE }.into());
    }
    let node = at.node().await?;
    at.terminal.confirm("Close this node's logs and go on under new log numbers? They are limited in number.")?;
    let rotated = node.rotate_logs(local::RotateLogsRequest {}).await?;
    if at.terminal.json {
        let logs: Vec<_> = rotated.logs.iter().cloned().map(answers::EndedLog::from).collect();
        at.terminal.json(&serde_json::json!({ "logs": logs }))?;
        return Ok(Exit::Ok);
    }
    for log in &rotated.logs {
        at.terminal.data(format!(
            "log {} ({}) is closed at block {}; log {} goes on",
            log.closed_log_no, log.lane, log.closed_seq, log.next_log_no
        ))?;
    }
    if rotated.logs.is_empty() {
        at.terminal.talk("this node had no open log; the next is written with a new key");
    }
    Ok(Exit::Ok)
}

/// Where a change of the TLS key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TlsChange {
    /// Nothing is under way.
    Begin,
    /// The next key waits; the charter does not list it.
    Ask,
    /// The charter lists the next key; the node has not switched.
    Switch,
    /// The node has switched; the charter lists other keys of ours beside the one in use.
    Drop,
}

impl TlsChange {
    fn of(current: Pin, next: Option<Pin>, listed: &[Pin]) -> Self {
        match next {
            Some(next) if listed.contains(&next) => Self::Switch,
            Some(_) => Self::Ask,
            None if listed.len() > 1 && listed.contains(&current) => Self::Drop,
            None => Self::Begin,
        }
    }
}

async fn rotate_tls(out: &Path, at: &Invocation) -> Outcome {
    let us = Us::find(at).await?;
    let keys = init::load_keys(&us.data)?;
    let current = keys.tls.pin();
    if !us.pins().contains(&current) {
        let failure = Failure::new(Exit::Refused, "the TLS key in use is not in the charter");
        return Err(failure
            .culprit(format!("charter {} lists other keys than {current}", us.chain.version()))
            .fix("ask a founder to admit this node again: staydown charter admit join-request.sdj"));
    }
    let next = next_tls(&us.data)?;
    let pins = match TlsChange::of(current, next.as_ref().map(TlsIdentity::pin), &us.pins()) {
        TlsChange::Switch => {
            at.terminal.talk("the charter lists the next TLS key already: a running node takes it up within a minute");
            at.terminal.talk("Next, when staydown key show has it as TLS: staydown key rotate --tls, once more");
            return Ok(Exit::Ok);
        }
        TlsChange::Drop => {
            at.terminal.talk("this node shows its new TLS key; the request drops the others");
            vec![current]
        }
        TlsChange::Begin => vec![current, us.make_next_tls()?],
        TlsChange::Ask => {
            at.terminal.talk("a next TLS key waits already; the request is written again");
            vec![current, next.map_or(current, |next| next.pin())]
        }
    };
    let request = us.request(pins, &keys.root)?;
    written(&request, out, "", at)
}

async fn rotate_root(out: &Path, at: &Invocation) -> Outcome {
    let us = Us::find(at).await?;
    let keys = init::load_keys(&us.data)?;
    if us.member.log_root_key[..] != keys.root.verifying_key().as_bytes()[..] {
        let failure = Failure::new(Exit::Refused, "the charter names another log root key than the one in use");
        return Err(failure.fix("start the node again: it takes up the key that the charter names"));
    }
    let next = keys::next_root(&us.data.join(init::KEYS_FOLDER))?;
    let request = us.request(us.pins(), &next)?;
    written(&request, out, " --new-key", at)?;
    at.terminal.talk("When that charter is applied, this node takes up the new key by itself.");
    Ok(Exit::Ok)
}

/// A node without a seal key gets its first; one whose key the charter lists, the next.
async fn rotate_seal(out: &Path, at: &Invocation) -> Outcome {
    let us = Us::find(at).await?;
    let keys = init::load_keys(&us.data)?;
    let folder = us.data.join(init::KEYS_FOLDER);
    let listed = SealKey::from_slice(&us.member.seal_key);
    let secret = match (&keys.seal, listed) {
        (Some(_), Some(_)) => keys::next_seal(&folder, listed.as_ref())?,
        _ => keys::seal_key(&folder)?,
    };
    let request = us.request_with(us.pins(), &keys.root, secret.public())?;
    written(&request, out, "", at)?;
    at.terminal
        .talk("It is admitted at a member that can open the peppers: there they are sealed to the new key, too.");
    Ok(Exit::Ok)
}

fn next_tls(data: &Path) -> Result<Option<TlsIdentity>, Failure> {
    let folder = data.join(init::KEYS_FOLDER);
    Ok(strict_unless_example(|permissions| TlsIdentity::load_next(&folder, permissions))?)
}

fn written(request: &JoinRequest, out: &Path, flag: &str, at: &Invocation) -> Outcome {
    request.write(out)?;
    let words = show::key_words(request.bytes());
    if at.terminal.json {
        at.terminal.json(&serde_json::json!({ "request": out.display().to_string(), "key_words": words }))?;
        return Ok(Exit::Ok);
    }
    at.terminal.talk(format!("wrote {}", out.display()));
    at.terminal.data(words)?;
    at.terminal.talk("Send that file to a founder, and read these words out by telephone.");
    at.terminal.talk(format!("There: staydown charter admit {}{flag}", out.display()));
    Ok(Exit::Ok)
}

/// This node as the charter has it.
struct Us {
    data: PathBuf,
    chain: CharterChain,
    member: proto::Member,
}

impl Us {
    async fn find(at: &Invocation) -> Result<Self, Failure> {
        let data = at.config()?.data;
        let me = init::member_here(&data)?;
        let chain = charter::current_chain(at).await?;
        let effective = chain.effective().version;
        let newest = chain.from(effective).first().map(|(signed, _)| signed.body.clone()).unwrap_or_default();
        let charter =
            proto::Charter::decode(newest).map_err(|error| Failure::new(Exit::Verification, error.to_string()))?;
        let member = charter.members.into_iter().find(|member| member.id[..] == me.0);
        let member = member.ok_or_else(|| {
            Failure::new(Exit::Refused, format!("our company {me} is not in charter {effective}"))
                .fix("ask a founder to admit this node: staydown charter admit join-request.sdj")
        })?;
        Ok(Self { data, chain, member })
    }

    fn pins(&self) -> Vec<Pin> {
        let pins = self.member.nodes.iter().flat_map(|node| &node.tls_spki_sha256);
        pins.filter_map(|pin| Pin::from_slice(pin)).collect()
    }

    fn make_next_tls(&self) -> Result<Pin, Failure> {
        let folder = self.data.join(init::KEYS_FOLDER);
        let _lock = match store::lock_directory(&self.data) {
            // A running node only ever takes a whole pair of files.
            Err(store::LockError::InUse { .. }) => None,
            lock => Some(lock?),
        };
        let terms = CertificateTerms::usual(&self.member.name, clock::now());
        Ok(TlsIdentity::create_next(&folder, &terms)?.pin())
    }

    /// What the charter says of us, with these pins, signed by this log root key and bound to the forum. A seal key that
    /// is listed is left out, which keeps the one that is listed when the request is admitted: another may wait.
    fn request(&self, pins: Vec<Pin>, root: &SigningKey) -> Result<JoinRequest, Failure> {
        let first = match self.member.seal_key.is_empty() {
            true => init::load_keys(&self.data).ok().and_then(|keys| keys.seal?.public()),
            false => None,
        };
        self.request_with(pins, root, first)
    }

    fn request_with(
        &self,
        pins: Vec<Pin>,
        root: &SigningKey,
        seal_key: Option<SealKey>,
    ) -> Result<JoinRequest, Failure> {
        let member = &self.member;
        let applicant = Applicant {
            binding: Binding::Forum(self.chain.forum()),
            member: MemberId::from_slice(&member.id).unwrap_or(MemberId([0; 16])),
            name: member.name.clone(),
            group: member.group.clone(),
            jurisdictions: member.jurisdictions.clone(),
            languages: member.languages.clone(),
            pins,
            endpoints: member.nodes.iter().flat_map(|node| node.endpoints.clone()).collect(),
            seal_key,
        };
        let request = JoinRequest::make(&applicant, root, clock::now());
        request.map_err(|error| Failure::new(Exit::Refused, error.to_string()))
    }
}

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

#[cfg(test)]
mod tests {
    use super::super::drafting::tests::{NOW, founded, secret};
    use super::super::drafting::{admit, body, chain, next};
    use super::*;

    #[test]
    fn another_change_does_not_undo_a_new_seal_key_that_waits_for_the_founders() {
        let dir = tempfile::tempdir().unwrap();
        let first = chain(&founded()).unwrap();
        let member = body(&founded()).unwrap().members[0].clone();
        let us = Us { data: dir.path().to_owned(), chain: first, member };
        let root = SigningKey::from_bytes(&[11; 32]);
        let seal = us.request_with(us.pins(), &root, secret(71).public()).unwrap();
        let tls = us.request(vec![Pin([9; 32])], &root).unwrap();
        let file = next(&us.chain, NOW).unwrap();
        for requests in [[&seal, &tls], [&tls, &seal]] {
            let admitted =
                requests.iter().fold(file.clone(), |file, request| admit(&file, request, None, NOW).unwrap());
            let acme = body(&admitted).unwrap().members[0].clone();
            assert_eq!(SealKey::from_slice(&acme.seal_key), secret(71).public());
        }
    }

    #[test]
    fn a_change_of_the_tls_key_goes_on_where_it_stands() {
        let [old, new] = [Pin([1; 32]), Pin([2; 32])];
        for (current, next, listed, expected) in [
            (old, None, &[old][..], TlsChange::Begin),
            (old, Some(new), &[old], TlsChange::Ask),
            (old, Some(new), &[old, new], TlsChange::Switch),
            (new, None, &[old, new], TlsChange::Drop),
            (new, None, &[new], TlsChange::Begin),
            (old, None, &[new], TlsChange::Begin),
        ] {
            assert_eq!(TlsChange::of(current, next, listed), expected, "{current} {next:?} {listed:?}");
        }
    }
}
