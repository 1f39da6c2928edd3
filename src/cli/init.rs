//! `init`: the keys of this node, and the request to be admitted.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::{Exit, Failure, Outcome, io_failure};
use super::{Invocation, drafting, show};
use crate::clock;
use crate::config::{CONFIG_FILE, Config, Source};
use crate::keys::{self, CertificateTerms, LOG_ROOT_FILE, NodeKeys, strict_unless_example};
use crate::replica::ids::{ForumId, MemberId};
use crate::store;
use crate::wire::files::{self, Applicant, Binding, CharterFile, JoinRequest};

/// Folder of the keys inside a data directory.
pub(super) const KEYS_FOLDER: &str = "keys";
/// The invitation that a node was joined with, inside its data directory.
pub(super) const INVITATION_FILE: &str = "forum.sdi";
/// Our member id in hexadecimal, inside a data directory.
pub(super) const MEMBER_FILE: &str = "member";
/// What our join request is bound to, inside a data directory: `forum` or `founding`, and 64 hexadecimal digits.
pub(super) const BINDING_FILE: &str = "binding";
/// The name of stdout, in place of a file's.
const STDOUT: &str = "-";
/// Our join request, inside a data directory.
pub(super) const REQUEST_FILE: &str = "join-request.sdj";

#[derive(Args)]
#[command(group = clap::ArgGroup::new("to").required(true).args(["forum", "founding"]))]
pub(super) struct InitArgs {
    /// Fingerprint of the forum, as its founders told it
    #[arg(long, value_name = "FINGERPRINT")]
    forum: Option<String>,
    /// The founding draft, for the companies that found a forum together
    #[arg(long, value_name = "DRAFT.sdc")]
    founding: Option<PathBuf>,
    /// Name of our company
    #[arg(long)]
    name: String,
    /// Group that our company belongs to: companies under one owner count once
    #[arg(long)]
    group: String,
    /// ISO 3166 code of where our company answers to the law, as in FR; may be repeated
    #[arg(long, required = true, value_name = "CODE")]
    jurisdiction: Vec<String>,
    /// Where other members reach this node; may be repeated
    #[arg(long, required = true, value_name = "HOST:PORT")]
    endpoint: Vec<String>,
    /// Language that our reviewers read, as in fr; may be repeated
    #[arg(long, value_name = "TAG")]
    language: Vec<String>,
    /// Also write the request here; - is stdout, for a container whose files nobody reaches
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn init(args: &InitArgs, at: &Invocation) -> Outcome {
    let binding = binding(args)?;
    let config = at.config()?;
    let data = config.data.clone();
    let mut applicant = Applicant {
        binding,
        member: MemberId(clock::random()),
        name: args.name.clone(),
        group: args.group.clone(),
        jurisdictions: args.jurisdiction.clone(),
        languages: args.language.clone(),
        pins: vec![crate::replica::ids::Pin([0; 32])],
        endpoints: args.endpoint.clone(),
        seal_key: None,
    };
    // Before anything is made: a request that nobody would take must leave nothing behind.
    files::check_applicant(&applicant).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    create_folder(&data)?;
    let _lock = store::lock_directory(&data)?;
    if data.join(INVITATION_FILE).exists() {
        let failure = Failure::new(Exit::Refused, format!("{} holds a node that has joined a forum", data.display()));
        return Err(failure.fix("name another folder: --data DIR"));
    }
    let keys = node_keys(&data, &args.name, at)?;
    applicant.member = member(&data)?.unwrap_or(applicant.member);
    applicant.pins = vec![keys.tls.pin()];
    // A node of an older release that asks again gets its seal key now.
    applicant.seal_key = keys::seal_key(&data.join(KEYS_FOLDER))?.public();
    let request = write_node(&data, &applicant, &keys)?;
    if let Some(path) = write_settings(&config, &args.endpoint)? {
        at.terminal.talk(format!("wrote {}: the node listens where it tells the others that it is", path.display()));
    }
    match &args.out {
        Some(out) if out.as_os_str() == STDOUT => return tell_on_stdout(&request, at),
        Some(out) => request.write(out)?,
        None => {}
    }
    tell(&request, args.out.as_deref().unwrap_or(&data.join(REQUEST_FILE)), at)?;
    Ok(Exit::Ok)
}

/// Writes what makes a data directory a node's, beside its keys: member id, binding, request.
pub(super) fn write_node(data: &Path, applicant: &Applicant, keys: &NodeKeys) -> Result<JoinRequest, Failure> {
    let request = JoinRequest::make(applicant, &keys.root, clock::now());
    let request = request.map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    files::write_text(&data.join(MEMBER_FILE), &format!("{}\n", applicant.member))?;
    let (kind, digits) = match applicant.binding {
        Binding::Forum(forum) => ("forum", forum.to_string()),
        Binding::Founding(nonce) => ("founding", ForumId(nonce).to_string()),
    };
    files::write_text(&data.join(BINDING_FILE), &format!("{kind} {digits}\n"))?;
    request.write(&data.join(REQUEST_FILE))?;
    Ok(request)
}

/// Has the node await its peers where it tells them that it is, if that is elsewhere than by default, and nobody has set
/// anything: a node that listens on another port than its endpoint names is reached by nobody.
fn write_settings(config: &Config, endpoints: &[String]) -> Result<Option<PathBuf>, Failure> {
    let path = config.data.join(CONFIG_FILE);
    let endpoint = endpoints.first().and_then(|endpoint| endpoint.rsplit_once(':'));
    let Some((host, Ok(port))) = endpoint.map(|(host, port)| (host, port.parse::<u16>())) else { return Ok(None) };
    let loopback = host.trim_matches(['[', ']']).parse::<IpAddr>().ok().filter(IpAddr::is_loopback);
    let listen = SocketAddr::new(loopback.unwrap_or(config.peer.listen.ip()), port);
    if listen == config.peer.listen || config.source_of("peer.listen") != &Source::Default || path.exists() {
        return Ok(None);
    }
    let mut text = format!("[peer]\nlisten = \"{listen}\"\n");
    // A forum on one machine: its consoles want different ports, too.
    if let (Some(host), Some(next)) = (loopback, port.checked_add(1))
        && config.source_of("web.listen") == &Source::Default
    {
        text.push_str(&format!("\n[web]\nlisten = \"{}\"\n", SocketAddr::new(host, next)));
    }
    files::write_text(&path, &text)?;
    Ok(Some(path))
}

fn binding(args: &InitArgs) -> Result<Binding, Failure> {
    if let Some(text) = &args.forum {
        let forum = show::fingerprint(text).map_err(|why| Failure::new(Exit::Usage, format!("--forum: {why}")))?;
        return Ok(Binding::Forum(forum));
    }
    let path = args.founding.clone().unwrap_or_default();
    let draft = drafting::body(&CharterFile::read(&path)?)?;
    let nonce: Result<[u8; 32], _> = draft.nonce[..].try_into();
    match nonce {
        Ok(nonce) if draft.version == 1 => Ok(Binding::Founding(nonce)),
        _ => {
            let cause =
                format!("{} is charter {} of a forum that exists, not a founding draft", path.display(), draft.version);
            Err(Failure::new(Exit::BadInput, cause).fix("staydown init --forum FINGERPRINT"))
        }
    }
}

/// A folder that only its owner can look into.
pub(super) fn create_folder(folder: &Path) -> Result<(), Failure> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(io_failure(format!("cannot create {}", folder.display())))
}

/// The keys that are there, or new ones. Asking to be admitted again, with another endpoint, keeps them.
fn node_keys(data: &Path, name: &str, at: &Invocation) -> Result<NodeKeys, Failure> {
    let folder = data.join(KEYS_FOLDER);
    if folder.join(LOG_ROOT_FILE).exists() {
        at.terminal.talk(format!("the keys in {} are kept", folder.display()));
        return load_keys(data);
    }
    Ok(NodeKeys::create(&folder, &CertificateTerms::usual(name, clock::now()))?)
}

/// The keys of a node. Those of `certs-example` may lie around in any mode: they are published.
pub(super) fn load_keys(data: &Path) -> Result<NodeKeys, Failure> {
    let folder = data.join(KEYS_FOLDER);
    Ok(strict_unless_example(|permissions| NodeKeys::load_with(&folder, permissions))?)
}

/// Our member id, if this folder has one.
pub(super) fn member(data: &Path) -> Result<Option<MemberId>, Failure> {
    let path = data.join(MEMBER_FILE);
    let Some(text) = small_file(&path)? else { return Ok(None) };
    let id = show::sixteen_bytes(text.trim());
    id.map(|id| Some(MemberId(id))).map_err(|why| Failure::new(Exit::BadInput, format!("{}: {why}", path.display())))
}

/// Our member id.
pub(super) fn member_here(data: &Path) -> Result<MemberId, Failure> {
    let none = || Failure::new(Exit::Refused, format!("{} holds no node yet", data.display()));
    member(data)?.ok_or_else(|| none().fix("staydown init, or name the node's folder: --data DIR"))
}

/// What our request is bound to, if this folder has one.
pub(super) fn stored_binding(data: &Path) -> Result<Option<Binding>, Failure> {
    let path = data.join(BINDING_FILE);
    let Some(text) = small_file(&path)? else { return Ok(None) };
    let (kind, digits) = text.trim().split_once(' ').unwrap_or_default();
    match (kind, show::fingerprint(digits)) {
        ("forum", Ok(forum)) => Ok(Some(Binding::Forum(forum))),
        ("founding", Ok(nonce)) => Ok(Some(Binding::Founding(nonce.0))),
        _ => {
            let cause = format!("{}: expected \"forum\" or \"founding\" and 64 hexadecimal digits", path.display());
            Err(Failure::new(Exit::BadInput, cause).fix("staydown init (the keys are kept)"))
        }
    }
}

fn small_file(path: &Path) -> Result<Option<String>, Failure> {
    /// Longest of these files: a word and a fingerprint.
    const SIZE_MAX: u64 = 1_024;
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(known) if known.len() > SIZE_MAX => {
            return Err(Failure::new(Exit::BadInput, format!("{} has more than {SIZE_MAX} bytes", path.display())));
        }
        _ => {}
    }
    fs::read_to_string(path).map(Some).map_err(io_failure(path.display().to_string()))
}

/// The request itself is the data; its words are talk, and so is what to do with both.
fn tell_on_stdout(request: &JoinRequest, at: &Invocation) -> Outcome {
    let words = show::key_words(request.bytes());
    if at.terminal.json {
        let member = request.applicant.member.to_string();
        at.terminal.json(&serde_json::json!({ "text": request.to_text(), "key_words": words, "member_id": member }))?;
        return Ok(Exit::Ok);
    }
    at.terminal.data(request.to_text())?;
    at.terminal.talk(words);
    at.terminal.talk("Send the above to a founder as a file, from its first dash to its last, and read these words out by telephone.");
    Ok(Exit::Ok)
}

fn tell(request: &JoinRequest, path: &Path, at: &Invocation) -> Result<(), Failure> {
    let words = show::key_words(request.bytes());
    if at.terminal.json {
        let member = request.applicant.member.to_string();
        return at.terminal.json(&serde_json::json!({
            "request": path.display().to_string(), "key_words": words, "member_id": member,
        }));
    }
    at.terminal.talk(format!("wrote {}", path.display()));
    at.terminal.data(words)?;
    at.terminal.talk("Send that file to a founder, and read these words out by telephone.");
    // Who asks an existing forum has given its fingerprint already.
    let forum = if matches!(request.applicant.binding, Binding::Founding(_)) { " --forum FINGERPRINT" } else { "" };
    at.terminal.talk(format!("Next, when they have sent an invitation: staydown join invite.sdi{forum}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_is_bound_to_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!((stored_binding(dir.path()).unwrap(), member(dir.path()).unwrap()), (None, None));
        let keys = NodeKeys::create(&dir.path().join("keys"), &CertificateTerms::usual("acme", clock::now())).unwrap();
        for binding in [Binding::Forum(ForumId([3; 32])), Binding::Founding([4; 32])] {
            let applicant = Applicant {
                binding,
                member: MemberId([7; 16]),
                name: "acme".into(),
                group: "Acme".into(),
                jurisdictions: vec!["FR".into()],
                languages: Vec::new(),
                pins: vec![keys.tls.pin()],
                endpoints: vec!["a:1".into()],
                seal_key: keys.seal.as_ref().and_then(crate::accounts::SealSecret::public),
            };
            let request = write_node(dir.path(), &applicant, &keys).unwrap();
            assert_eq!(stored_binding(dir.path()).unwrap(), Some(binding));
            assert_eq!(member(dir.path()).unwrap(), Some(MemberId([7; 16])));
            assert_eq!(JoinRequest::read(&dir.path().join(REQUEST_FILE)).unwrap().bytes(), request.bytes());
            // What a container prints is the file.
            assert_eq!(fs::read_to_string(dir.path().join(REQUEST_FILE)).unwrap(), request.to_text());
        }
        fs::write(dir.path().join(BINDING_FILE), "forum 12").unwrap();
        assert_eq!(stored_binding(dir.path()).unwrap_err().exit, Exit::BadInput);
        fs::write(dir.path().join(MEMBER_FILE), vec![b'a'; 2_000]).unwrap();
        assert_eq!(member(dir.path()).unwrap_err().exit, Exit::BadInput);
    }

    #[test]
    fn a_node_listens_where_it_says_that_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::default_in(dir.path().to_owned());
        let path = dir.path().join(CONFIG_FILE);
        let written = |endpoint: &str| {
            let made = write_settings(&config, &[endpoint.to_owned()]).unwrap().is_some();
            let text = fs::read_to_string(&path).unwrap_or_default();
            drop(fs::remove_file(&path));
            assert_eq!(made, !text.is_empty());
            text
        };
        assert_eq!(written("node.example.org:7700"), "");
        assert!(written("node.example.org:7800").contains("listen = \"0.0.0.0:7800\""));
        assert!(written("127.0.0.1:7710").contains("listen = \"127.0.0.1:7710\""));
        assert!(written("127.0.0.1:7710").contains("[web]\nlisten = \"127.0.0.1:7711\""));
        assert!(!written("node.example.org:7800").contains("web"));
        assert!(written("[::1]:7710").contains("listen = \"[::1]:7710\""));
        fs::write(&path, "# ours\n").unwrap();
        assert_eq!(write_settings(&config, &["127.0.0.1:7710".to_owned()]).unwrap(), None);
    }
}
