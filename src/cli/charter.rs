//! `charter`: founding and governing a forum. A charter counts when enough founders have signed it; these commands only
//! draw up files, until `apply` hands one to a node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use prost::Message as _;

use super::client::Node;
use super::drafting::{self, Standing};
use super::failure::{Exit, Failure, Outcome};
use super::{Invocation, init, json, key, show};
use crate::clock;
use crate::config::Config;
use crate::replica::charter::{Charter, CharterChain, Roles, charter_hash, public_key};
use crate::replica::ids::{ForumId, KeyId, TimeMs, hex};
use crate::replica::proto;
use crate::store;
use crate::wire::files::{self, CharterFile, Invitation, JoinRequest};
use crate::wire::local;

#[derive(Subcommand)]
pub(super) enum CharterCommand {
    /// Make a founder's key, encrypted under a passphrase; its public half goes beside it
    Key(key::FounderKeyArgs),
    /// Begin a forum: a draft that members' requests are bound to
    Found(FoundArgs),
    /// Put companies into a draft, or into the next version of the charter
    Admit(AdmitArgs),
    /// Sign a charter with a founder's key
    Sign(SignArgs),
    /// Show a charter in words: members, roles, who has signed, what is missing
    Show(ShowArgs),
    /// Hand a charter with enough signatures to the running node; it spreads from there
    Apply {
        /// The charter file
        file: PathBuf,
    },
    /// Write the file that newcomers join with; it is not secret
    Invite(InviteArgs),
}

#[derive(Args)]
pub(super) struct FoundArgs {
    /// Name of the forum
    #[arg(long)]
    name: String,
    /// Founders' public keys: files, or 64 hexadecimal digits
    #[arg(long, required = true, num_args = 1.., value_name = "FILE.pub")]
    founder: Vec<String>,
    /// How many of them must sign
    #[arg(long)]
    threshold: u32,
    /// The draft
    #[arg(short, long, value_name = "FILE", default_value = "draft.sdc")]
    out: PathBuf,
}

#[derive(Args)]
pub(super) struct AdmitArgs {
    /// Join requests
    #[arg(required = true, value_name = "REQUEST.sdj")]
    requests: Vec<PathBuf>,
    /// FULL, SMALL, OBSERVER, REFERRAL, CERTIFIER, AUDITOR, STEWARD; several with commas [default: SMALL]
    #[arg(long)]
    role: Option<String>,
    /// The draft to go on with [default: the next version of this node's charter]
    #[arg(long, value_name = "FILE.sdc")]
    into: Option<PathBuf>,
    /// The new charter file [default: the draft itself, or charter-N.sdc]
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct SignArgs {
    /// The charter file; it is written back with the signature
    file: PathBuf,
    /// The founder's secret key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    passphrase: key::PassphraseArgs,
}

#[derive(Args)]
pub(super) struct ShowArgs {
    /// A charter file or invitation [default: this node's charter]
    file: Option<PathBuf>,
    /// What changes against the version before
    #[arg(long)]
    diff: bool,
}

#[derive(Args)]
pub(super) struct InviteArgs {
    /// The invitation
    #[arg(short, long, value_name = "FILE", default_value = "invite.sdi")]
    out: PathBuf,
    /// A charter file with enough signatures [default: this node's charter]
    #[arg(long, value_name = "FILE.sdc")]
    from: Option<PathBuf>,
}

pub(super) async fn charter(command: CharterCommand, at: &Invocation) -> Outcome {
    match command {
        CharterCommand::Key(args) => key::founder(&args, at),
        CharterCommand::Found(args) => found(&args, at),
        CharterCommand::Admit(args) => admit(&args, at).await,
        CharterCommand::Sign(args) => sign(&args, at),
        CharterCommand::Show(args) => show(&args, at).await,
        CharterCommand::Apply { file } => apply(&file, at).await,
        CharterCommand::Invite(args) => invite(&args, at).await,
    }
}

fn found(args: &FoundArgs, at: &Invocation) -> Outcome {
    let founders = args.founder.iter().map(|text| founder(text)).collect::<Result<Vec<_>, _>>()?;
    let draft = drafting::found(&args.name, &founders, args.threshold, clock::random(), clock::now())?;
    refuse_to_overwrite(&args.out, at)?;
    draft.write(&args.out)?;
    told_file(&args.out, at)?;
    let out = args.out.display();
    at.terminal.talk(format!("Next, at each company: staydown init --founding {out} --name ... and then here:\n  staydown charter admit REQUEST.sdj.. --role FULL --into {out}"));
    Ok(Exit::Ok)
}

fn founder(text: &str) -> Result<ed25519_dalek::VerifyingKey, Failure> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().filter(|bytes| bytes.len() == 32);
    match bytes {
        Some(bytes) => public_key(&bytes)
            .ok_or_else(|| Failure::new(Exit::BadInput, format!("--founder: {text} is not a sound key"))),
        None => Ok(files::read_founder(text.as_ref())?),
    }
}

async fn admit(args: &AdmitArgs, at: &Invocation) -> Outcome {
    let roles = args.role.as_deref().map(roles).transpose()?;
    let now = clock::now();
    let requests = args.requests.iter().map(|path| JoinRequest::read(path)).collect::<Result<Vec<_>, _>>()?;
    let mut file = match &args.into {
        Some(path) => CharterFile::read(path)?,
        None => drafting::next(&current_chain(at).await?, now)?,
    };
    let had = file.proposed.sigs.len();
    for request in &requests {
        file = drafting::admit(&file, request, roles, now)?;
        at.terminal.talk(format!("{}: key words {}", request.applicant.name, show::key_words(request.bytes())));
    }
    let version = drafting::body(&file)?.version;
    let out = args.out.clone().or(args.into.clone()).unwrap_or_else(|| PathBuf::from(format!("charter-{version}.sdc")));
    if args.into.as_ref() != Some(&out) {
        refuse_to_overwrite(&out, at)?;
    }
    at.terminal.confirm("Were these words read out by the companies themselves, by telephone?")?;
    file.write(&out)?;
    told_file(&out, at)?;
    if had > 0 {
        at.terminal.talk(format!("{had} signatures were made for the charter as it was, and are gone"));
    }
    if roles.is_none() {
        at.terminal
            .talk("newcomers are SMALL: what they list is shown to others and counts apart (--role FULL changes that)");
    }
    at.terminal.talk(format!("Next, by each founder: staydown charter sign {} --key FOUNDER_KEY", out.display()));
    Ok(Exit::Ok)
}

fn roles(text: &str) -> Result<Roles, Failure> {
    let mut roles = Roles::from_bits(0);
    for name in text.split(',') {
        let name = name.trim().to_ascii_uppercase();
        let known = Roles::NAMES.iter().find(|(_, known)| *known == name);
        let names = Roles::NAMES.map(|(_, name)| name).join(", ");
        let (role, _) = known
            .ok_or_else(|| Failure::new(Exit::Usage, format!("--role: got {name:?}, expected some of {names}")))?;
        roles = roles.and(*role);
    }
    Ok(roles)
}

fn sign(args: &SignArgs, at: &Invocation) -> Outcome {
    let file = CharterFile::read(&args.file)?;
    let key = key::load_founder(&args.key, &args.passphrase, at)?;
    let signed = drafting::sign(&file, &key)?;
    if at.terminal.can_ask() {
        at.terminal.talk(words(&file)?);
        for line in differences(&file)? {
            at.terminal.talk(format!("  {line}"));
        }
    }
    at.terminal.confirm("Sign this charter?")?;
    signed.write(&args.file)?;
    told_file(&args.file, at)?;
    let missing = Standing::of(&signed)?.missing();
    let path = args.file.display();
    at.terminal.talk(match (&missing[..], signed.before.is_empty()) {
        ([], true) => format!("Enough founders have signed. Next: staydown charter invite --from {path}"),
        ([], false) => format!("Enough founders have signed. Next, at a running node: staydown charter apply {path}"),
        (missing, _) => format!("Still missing: {}", missing.join("; ")),
    });
    Ok(Exit::Ok)
}

async fn show(args: &ShowArgs, at: &Invocation) -> Outcome {
    let file = match &args.file {
        Some(path) => read_either(path)?,
        None => as_file(&current_chain(at).await?),
    };
    if at.terminal.json {
        at.terminal.json(&as_json(&file)?)?;
        return Ok(Exit::Ok);
    }
    at.terminal.data(words(&file)?.trim_end())?;
    if args.diff {
        for line in differences(&file)? {
            at.terminal.data(line)?;
        }
    }
    Ok(Exit::Ok)
}

/// A charter file, or the newest charter of an invitation.
fn read_either(path: &Path) -> Result<CharterFile, Failure> {
    match CharterFile::read(path) {
        Err(files::FileError::Content { reason: files::Malformed::WrongKind { .. }, .. }) => {
            let invitation = Invitation::read(path)?;
            let mut before = invitation.charters;
            let proposed = before.pop().unwrap_or_default();
            Ok(CharterFile { proposed, before })
        }
        read => Ok(read?),
    }
}

fn as_file(chain: &CharterChain) -> CharterFile {
    let mut before: Vec<_> = chain.from(1).iter().map(|(signed, _)| signed.clone()).collect();
    let proposed = before.pop().unwrap_or_default();
    CharterFile { proposed, before }
}

fn forum_of(file: &CharterFile) -> ForumId {
    ForumId(charter_hash(&file.before.first().unwrap_or(&file.proposed).body).0)
}

/// A charter in words.
fn words(file: &CharterFile) -> Result<String, Failure> {
    let body = drafting::body(file)?;
    let standing = Standing::of(file)?;
    let missing = standing.missing();
    let day = |ms| show::date(TimeMs(ms));
    let mut text = format!(
        "Forum        {}, charter {} of {}, valid until {}\n",
        show::clean(&body.name),
        body.version,
        day(body.issued_ms),
        day(body.valid_until_ms)
    );
    if body.members.is_empty() {
        text.push_str("Fingerprint  none yet: it follows from the charter when it has its members\n");
    } else {
        text.push_str(&format!("Fingerprint  {}\n", forum_of(file)));
    }
    text.push_str(&format!("Founders     {}, any {} sign\n", standing.founders.len(), standing.threshold));
    for id in standing.founders.keys() {
        let mark = if standing.signed.contains(id) { "signed" } else { "not signed" };
        text.push_str(&format!("  {id}  {mark}\n"));
    }
    for line in &missing {
        text.push_str(&format!("Missing      {}\n", line));
    }
    if missing.is_empty() {
        text.push_str("Signed       by enough founders\n");
    }
    text.push_str(&format!("Members      {}\n", body.members.len()));
    for member in &body.members {
        text.push_str(&format!("  {}\n", member_words(member)));
    }
    Ok(text)
}

fn member_words(m: &proto::Member) -> String {
    let status = match m.status {
        1 => "",
        2 => ", suspended",
        _ => ", former",
    };
    let endpoints: Vec<_> = m.nodes.iter().flat_map(|node| node.endpoints.iter().map(String::as_str)).collect();
    show::clean(&format!(
        "{} (group {}; {})  {}{status}  {}",
        m.name,
        m.group,
        m.jurisdictions.join(", "),
        Roles::from_bits(m.roles).names().join("+"),
        endpoints.join(" ")
    ))
}

/// What a charter changes against the one before, a line each.
fn differences(file: &CharterFile) -> Result<Vec<String>, Failure> {
    let Some(before) = file.before.last() else {
        return Ok(vec!["this is the first charter: nothing stands before it".to_owned()]);
    };
    let old =
        proto::Charter::decode(before.body.clone()).map_err(|error| Failure::new(Exit::BadInput, error.to_string()))?;
    let new = drafting::body(file)?;
    let mut lines = Vec::new();
    let mut compare = |what: &str, old: String, new: String| {
        if old != new {
            lines.push(format!("~ {what}: {} becomes {}", show::clean(&old), show::clean(&new)));
        }
    };
    compare("name", old.name.clone(), new.name.clone());
    compare("semantics level", old.semantics.to_string(), new.semantics.to_string());
    compare("threshold", old.threshold.to_string(), new.threshold.to_string());
    compare("taxonomy", old.taxonomy.clone(), new.taxonomy.clone());
    compare("valid until", show::date(TimeMs(old.valid_until_ms)), show::date(TimeMs(new.valid_until_ms)));
    compare("policy", format!("{:?}", old.policy), format!("{:?}", new.policy));
    compare("expulsions", old.expulsions.len().to_string(), new.expulsions.len().to_string());
    compare("cutoffs", old.cutoffs.len().to_string(), new.cutoffs.len().to_string());
    compare("erasures", old.erasures.len().to_string(), new.erasures.len().to_string());
    let founders = |charter: &proto::Charter| {
        charter.founder_keys.iter().map(|key| (KeyId::of(key).to_string(), String::new())).collect()
    };
    set_differences("founder", &founders(&old), &founders(&new), &mut lines);
    let members = |charter: &proto::Charter| charter.members.iter().map(|m| (hex(&m.id), describe(m))).collect();
    set_differences("member", &members(&old), &members(&new), &mut lines);
    Ok(lines)
}

/// All that matters about a member, so that no change of it goes unseen.
fn describe(m: &proto::Member) -> String {
    let pins: Vec<_> =
        m.nodes.iter().flat_map(|node| node.tls_spki_sha256.iter().map(|pin| show::short(pin))).collect();
    format!("{}  pins {}  key {}  logs {}", member_words(m), pins.join(","), show::short(&m.log_root_key), m.log_limit)
}

fn set_differences(
    what: &str,
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
    lines: &mut Vec<String>,
) {
    let shown = |id: &str, text: &str| if text.is_empty() { id.to_owned() } else { text.to_owned() };
    for (id, text) in new {
        match old.get(id) {
            None => lines.push(format!("+ {what} {}", shown(id, text))),
            Some(before) if before != text => lines.push(format!("~ {what} {before}\n  becomes {text}")),
            Some(_) => {}
        }
    }
    lines.extend(
        old.iter().filter(|(id, _)| !new.contains_key(*id)).map(|(id, text)| format!("- {what} {}", shown(id, text))),
    );
}

fn as_json(file: &CharterFile) -> Result<json::Charter, Failure> {
    let body = drafting::body(file)?;
    let standing = Standing::of(file)?;
    let members = match Charter::decode(&file.proposed.body) {
        Ok(charter) => charter.members.values().map(json::Member::from).collect(),
        Err(_draft) if body.members.is_empty() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    Ok(json::Charter {
        forum_id: (!body.members.is_empty()).then(|| forum_of(file).to_string()),
        name: body.name,
        version: body.version,
        hash: charter_hash(&file.proposed.body).to_string(),
        issued_ms: body.issued_ms,
        valid_until_ms: body.valid_until_ms,
        founders: standing.founders.keys().map(ToString::to_string).collect(),
        threshold: standing.threshold,
        signed: standing.signed.iter().map(ToString::to_string).collect(),
        missing: standing.missing(),
        members,
    })
}

async fn apply(path: &Path, at: &Invocation) -> Outcome {
    let file = CharterFile::read(path)?;
    let chain = drafting::chain(&file)?;
    if chain.version() == 1 {
        let failure = Failure::new(Exit::Usage, "a first charter is not applied: nodes begin with it");
        return Err(failure.fix(format!("staydown charter invite --from {}", path.display())));
    }
    let request = local::ApplyCharterRequest { charter: file.proposed.encode_to_vec().into() };
    let applied = at.node().await?.apply(request).await?;
    if at.terminal.json {
        at.terminal.json(&serde_json::json!({ "version": applied.version, "hash": hex(&applied.charter_hash) }))?;
    } else {
        at.terminal.data(format!("charter {} is in force here and spreads to all members", applied.version))?;
    }
    at.terminal.talk("Next, for newcomers: staydown charter invite -o invite.sdi");
    Ok(Exit::Ok)
}

async fn invite(args: &InviteArgs, at: &Invocation) -> Outcome {
    let chain = match &args.from {
        Some(path) => drafting::chain(&CharterFile::read(path)?)?,
        None => current_chain(at).await?,
    };
    Invitation::of(&chain).write(&args.out)?;
    told_file(&args.out, at)?;
    let out = args.out.display();
    at.terminal.talk(format!(
        "Fingerprint {}\nTell newcomers the fingerprint by another road than this file. Next, at each: staydown join {out} --forum FINGERPRINT",
        chain.forum()
    ));
    Ok(Exit::Ok)
}

/// The charter chain of this node: asked of it if it runs, read from its folder if not.
pub(super) async fn current_chain(at: &Invocation) -> Result<CharterChain, Failure> {
    let config = at.config()?;
    let unreachable = match Node::connect(&config.local.socket).await {
        Ok(node) => return running_chain(&node).await,
        Err(unreachable) => unreachable,
    };
    if !config.data.join(init::INVITATION_FILE).exists() {
        let failure = unreachable.culprit(format!("and {} holds no joined node", config.data.display()));
        return Err(failure.fix("staydown run, or name a file: --into, --from"));
    }
    stopped_chain(&config)
}

async fn running_chain(node: &Node) -> Result<CharterChain, Failure> {
    let forum = node.status(local::StatusRequest {}).await?.forum_id;
    let forum = ForumId::from_slice(&forum).ok_or_else(|| Failure::new(Exit::Failed, "the node names no forum"))?;
    let mut charters: Vec<proto::SignedCharter> = Vec::new();
    loop {
        let from_version = charters.len() as u64 + 1;
        let page = node.charters(local::GetChartersRequest { from_version }).await?.charters;
        if page.is_empty() || charters.len() > files::CHARTERS_MAX {
            break;
        }
        for charter in page {
            let charter = proto::SignedCharter::decode(charter);
            charters.push(charter.map_err(|error| Failure::new(Exit::Verification, error.to_string()))?);
        }
    }
    Ok(files::verify(forum, &charters)?)
}

/// The chain in the folder of a node that does not run. The invitation alone may be old, and a charter that is drawn
/// up over an old one forks the chain: therefore what the node has learnt since is read too.
fn stopped_chain(config: &Config) -> Result<CharterChain, Failure> {
    let _lock = store::lock_directory(&config.data)?;
    let invitation = Invitation::read(&config.data.join(init::INVITATION_FILE))?;
    let mut chain = invitation.verify(invitation.forum)?;
    let replica = config.data.join("replica");
    if !replica.is_dir() {
        return Ok(chain);
    }
    let failed = |error: store::StoreError| {
        Failure::new(Exit::Storage, error.to_string()).fix("staydown run (it heals what can be healed)")
    };
    let opened = store::Store::open(&replica).map_err(failed)?;
    for (_, bytes) in opened.store.charters().map_err(failed)? {
        let charter = proto::SignedCharter::decode(&bytes[..]);
        chain.apply(charter.map_err(|error| Failure::new(Exit::Storage, error.to_string()))?)?;
    }
    Ok(chain)
}

fn refuse_to_overwrite(path: &Path, at: &Invocation) -> Result<(), Failure> {
    if path.exists() && !at.terminal.yes {
        let failure = Failure::new(Exit::Refused, format!("{} is already there", path.display()));
        return Err(failure.fix("choose another name with -o, or give --yes to replace it"));
    }
    Ok(())
}

fn told_file(path: &Path, at: &Invocation) -> Result<(), Failure> {
    if at.terminal.json {
        return at.terminal.json(&serde_json::json!({ "file": path.display().to_string() }));
    }
    at.terminal.talk(format!("wrote {}", path.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::drafting::tests::{NOW, founded, founder, request};
    use super::*;
    use crate::wire::files::Binding;

    #[test]
    fn a_charter_is_told_in_words() {
        let text = words(&founded()).unwrap();
        for expected in [
            "Forum        Example Forum, charter 1 of 2026-11-18, valid until ",
            "Founders     3, any 2 sign",
            "Signed       by enough founders",
            "  acme (group ACME; FR)  FULL  acme.example.org:7700",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        assert_eq!((text.matches("  signed").count(), text.matches("  not signed").count()), (2, 1));
    }

    #[test]
    fn differences_name_what_changes() {
        let chain = drafting::chain(&founded()).unwrap();
        let next = drafting::next(&chain, NOW.plus(TimeMs::DAY_MS)).unwrap();
        let delta = request("delta", 14, Binding::Forum(chain.forum()));
        let next = drafting::admit(&next, &delta, Some(Roles::FULL), NOW).unwrap();
        let lines = differences(&next).unwrap();
        assert!(lines[0].starts_with("~ valid until: "), "{lines:?}");
        assert!(lines[1].starts_with("+ member delta (group DELTA; FR)  FULL"), "{lines:?}");
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn roles_are_read_by_name() {
        assert_eq!(roles("full, steward").unwrap(), Roles::FULL.and(Roles::STEWARD));
        assert!(roles("FOOL").unwrap_err().cause.contains("expected some of FULL, SMALL"));
    }

    #[test]
    fn an_invitation_is_shown_like_its_newest_charter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("invite.sdi");
        let file = founded();
        Invitation::of(&drafting::chain(&file).unwrap()).write(&path).unwrap();
        assert_eq!(read_either(&path).unwrap(), file);
        assert_eq!(as_json(&file).unwrap().signed.len(), 2);
    }

    #[test]
    fn founders_keys_are_files_or_digits() {
        let key = founder(1).verifying_key();
        assert_eq!(founder_arg(&hex(key.as_bytes())), key);
        assert_eq!(super::founder("no-such-file").unwrap_err().exit, Exit::BadInput);
        assert_eq!(super::founder(&"00".repeat(32)).unwrap_err().exit, Exit::BadInput);
    }

    fn founder_arg(text: &str) -> ed25519_dalek::VerifyingKey {
        super::founder(text).unwrap()
    }
}
