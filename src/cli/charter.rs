//! `charter`: founding and governing a forum. A charter counts when enough founders have signed it; these commands only
//! draw up files, until `apply` hands one to a node. `propose` has the commands that change something, `changes` tells
//! in words what they change, `chain` finds what they start from.

mod chain;
mod changes;
mod propose;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use prost::Message as _;

pub(super) use self::chain::{current_chain, running_chain, stopped_chain};
use self::propose::{DraftArgs, HeadsArg, Proposal};
pub(super) use self::propose::{place, says};
use super::drafting::{self, Standing, peppers};
use super::failure::{Exit, Failure, Outcome};
use super::{Invocation, key, show, taxonomy};
use crate::answers;
use crate::clock;
use crate::replica::charter::{Charter, CharterChain, Roles, charter_hash, public_key};
use crate::replica::ids::{CharterHash, ForumId, TimeMs, hex};
use crate::replica::proto;
use crate::replica::taxonomy::Named;
use crate::taxonomy::shelf;
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
    #[command(flatten)]
    Propose(Proposal),
    /// Sign a charter with a founder's key; needs no node, and shows first what the charter changes
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
    /// What the forum's members can say: 1 opinions, votes, certificates, referrals, incidents; 2 also attestations,
    /// suspensions, resources, preservation and outcomes
    #[arg(long, value_name = "LEVEL", default_value_t = drafting::LEVEL_FOUNDED)]
    semantics: u32,
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
    /// The request of a member carries another log root key: its logs count up to where they are now, and it goes on
    /// in new ones
    #[arg(long)]
    new_key: bool,
    #[command(flatten)]
    heads: HeadsArg,
    #[command(flatten)]
    draft: DraftArgs,
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
        CharterCommand::Admit(args) => Box::pin(admit(&args, at)).await,
        CharterCommand::Propose(change) => Box::pin(propose::propose(change, at)).await,
        CharterCommand::Sign(args) => sign(&args, at),
        CharterCommand::Show(args) => show(&args, at).await,
        CharterCommand::Apply { file } => apply(&file, at).await,
        CharterCommand::Invite(args) => invite(&args, at).await,
    }
}

fn found(args: &FoundArgs, at: &Invocation) -> Outcome {
    let founders = args.founder.iter().map(|text| founder("--founder", text)).collect::<Result<Vec<_>, _>>()?;
    let mut draft = drafting::found(&args.name, &founders, args.threshold, clock::random(), clock::now())?;
    if args.semantics != drafting::LEVEL_FOUNDED {
        draft = drafting::governing::set_semantics(&draft, args.semantics)?;
    }
    refuse_to_overwrite(&args.out, at)?;
    draft.write(&args.out)?;
    told_file(&args.out, at)?;
    let out = args.out.display();
    at.terminal.talk(format!("Next, at each company: staydown init --founding {out} --name ... and then here:\n  staydown charter admit REQUEST.sdj.. --role FULL --into {out}"));
    Ok(Exit::Ok)
}

/// A founder's public key that was given with `flag`: 64 digits, or a file.
fn founder(flag: &str, text: &str) -> Result<ed25519_dalek::VerifyingKey, Failure> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().filter(|bytes| bytes.len() == 32);
    match bytes {
        Some(bytes) => {
            public_key(&bytes).ok_or_else(|| Failure::new(Exit::BadInput, format!("{flag}: {text} is not a sound key")))
        }
        None => Ok(files::read_founder(text.as_ref())?),
    }
}

async fn admit(args: &AdmitArgs, at: &Invocation) -> Outcome {
    let roles = args.role.as_deref().map(roles).transpose()?;
    let now = clock::now();
    let requests = args.requests.iter().map(|path| JoinRequest::read(path)).collect::<Result<Vec<_>, _>>()?;
    let begun = args.draft.begin(now, at).await?;
    let mut file = begun.clone();
    let heads = if args.new_key { args.heads.read(&begun, at).await? } else { Vec::new() };
    for request in &requests {
        file = if args.new_key {
            drafting::admit_new_key(&file, request, roles, now, &heads)?
        } else {
            drafting::admit(&file, request, roles, now)?
        };
        at.terminal.talk(format!("{}: key words {}", request.applicant.name, show::key_words(request.bytes())));
    }
    // Newcomers, and companies with a new seal key, get what everybody has.
    if !drafting::body(&begun)?.peppers.is_empty() {
        match propose::shared(&begun, &file, at) {
            Ok(shared) => file = shared,
            Err(why) => at.terminal.talk(format!("warning: no pepper is sealed from here: {}", why.cause)),
        }
        peppers::all_kept(&begun, &file)?;
    }
    let out = args.draft.out(&file, at)?;
    at.terminal.confirm("Were these words read out by the companies themselves, by telephone?")?;
    if roles.is_none() && !args.new_key {
        at.terminal
            .talk("newcomers are SMALL: what they list is shown to others and counts apart (--role FULL changes that)");
    }
    propose::finish(&begun, &file, &out, at)
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
    if !at.terminal.json {
        at.terminal.talk(words(&file)?.trim_end());
        at.terminal.talk("Changes");
        differences(&file)?.iter().for_each(|line| at.terminal.talk(format!("  {line}")));
        warnings(&file)?.iter().for_each(|line| at.terminal.talk(format!("warning: {line}")));
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
        let mut shown = as_json(&file)?;
        if args.diff {
            shown.changes = Some(differences(&file)?);
            shown.warnings = Some(warnings(&file)?);
        }
        at.terminal.json(&shown)?;
        return Ok(Exit::Ok);
    }
    at.terminal.data(words(&file)?.trim_end())?;
    if args.diff {
        for line in differences(&file)? {
            at.terminal.data(line)?;
        }
        for line in warnings(&file)? {
            at.terminal.data(format!("warning: {line}"))?;
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
            let taxonomies = Some(invitation.taxonomy).filter(|file| !file.is_empty()).into_iter().collect();
            Ok(CharterFile { proposed, before, taxonomies })
        }
        read => Ok(read?),
    }
}

fn as_file(chain: &CharterChain) -> CharterFile {
    let mut before: Vec<_> = chain.from(1).iter().map(|(signed, _)| signed.clone()).collect();
    let proposed = before.pop().unwrap_or_default();
    CharterFile { proposed, before, taxonomies: Vec::new() }
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
    text.push_str(&format!("Accounts     {}\n", accounts_words(&body)));
    text.push_str(&format!("Taxonomy     {}\n", show::clean(&body.taxonomy)));
    text.push_str(&format!("Members      {}\n", body.members.len()));
    for member in &body.members {
        text.push_str(&format!("  {}\n", member_words(member)));
    }
    Ok(text)
}

/// Whether accounts may be listed, under which peppers, and for how long.
fn accounts_words(body: &proto::Charter) -> String {
    let ids: BTreeSet<_> = body.peppers.iter().map(|copy| copy.pepper_id).collect();
    let Some(newest) = ids.last() else { return "off".to_owned() };
    let days = body.policy.as_ref().map_or(0, |policy| policy.account_ttl_max_ms) / TimeMs::DAY_MS;
    let older: Vec<_> = ids.iter().filter(|id| *id != newest).map(ToString::to_string).collect();
    let older = if older.is_empty() { String::new() } else { format!(", those under {} match", older.join(", ")) };
    format!("listed under pepper {newest} for at most {days} days{older}")
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

/// The charter before the one that is proposed, and its hash; none for a first charter.
fn before(file: &CharterFile) -> Result<Option<(proto::Charter, CharterHash)>, Failure> {
    let Some(before) = file.before.last() else { return Ok(None) };
    let old = proto::Charter::decode(before.body.clone());
    let old = old.map_err(|error| Failure::new(Exit::BadInput, error.to_string()))?;
    Ok(Some((old, charter_hash(&before.body))))
}

/// What a charter changes against the one before, a line each.
fn differences(file: &CharterFile) -> Result<Vec<String>, Failure> {
    let new = drafting::body(file)?;
    Ok(match before(file)? {
        Some((old, hash)) => changes::changes(&old, hash, &new, &file.taxonomies),
        None => vec!["this is the first charter: nothing stands before it".to_owned()],
    })
}

/// What to think about twice before signing, a line each.
fn warnings(file: &CharterFile) -> Result<Vec<String>, Failure> {
    let old = before(file)?.map(|(old, _)| old);
    Ok(changes::warnings(old.as_ref(), &drafting::body(file)?, clock::now()))
}

fn as_json(file: &CharterFile) -> Result<answers::Charter, Failure> {
    let body = drafting::body(file)?;
    let standing = Standing::of(file)?;
    let members = match Charter::decode(&file.proposed.body) {
        Ok(charter) => charter.members.values().map(answers::Member::from).collect(),
        Err(_draft) if body.members.is_empty() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    Ok(answers::Charter {
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
        changes: None,
        warnings: None,
    })
}

async fn apply(path: &Path, at: &Invocation) -> Outcome {
    let file = CharterFile::read(path)?;
    let chain = drafting::chain(&file)?;
    if chain.version() == 1 {
        let failure = Failure::new(Exit::Usage, "a first charter is not applied: nodes begin with it");
        return Err(failure.fix(format!("staydown charter invite --from {}", path.display())));
    }
    let (charter, taxonomy) = (file.proposed.encode_to_vec().into(), named_file(&file)?);
    let request = local::ApplyCharterRequest { charter, taxonomy };
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
    let (chain, taxonomy) = match &args.from {
        Some(path) => {
            let file = CharterFile::read(path)?;
            (drafting::chain(&file)?, named_file(&file)?)
        }
        None => (current_chain(at).await?, taxonomy::file_of_this_place(at).await?),
    };
    Invitation { taxonomy, ..Invitation::of(&chain) }.write(&args.out)?;
    let (out, forum) = (args.out.display().to_string(), chain.forum().to_string());
    if at.terminal.json {
        at.terminal.json(&serde_json::json!({ "file": out, "forum_id": forum }))?;
        return Ok(Exit::Ok);
    }
    at.terminal.talk(format!(
        "wrote {out}\nTell newcomers this fingerprint by another road than the file. Next, at each: staydown join {out} --forum FINGERPRINT"
    ));
    // Scripts take it from here: FORUM=$(staydown charter invite)
    at.terminal.data(forum)?;
    Ok(Exit::Ok)
}

/// The file of the taxonomy that the charter names, if it is in the charter file.
fn named_file(file: &CharterFile) -> Result<bytes::Bytes, Failure> {
    let named = Named::parse(&drafting::body(file)?.taxonomy);
    let found = named.and_then(|named| file.taxonomies.iter().find(|text| shelf::understood(&named, text).is_ok()));
    Ok(found.cloned().unwrap_or_default())
}

fn refuse_to_overwrite(path: &Path, at: &Invocation) -> Result<(), Failure> {
    if path.exists() && !at.terminal.yes {
        let failure = Failure::new(Exit::Refused, format!("{} is already there", path.display()));
        return Err(failure.fix("choose another name with -o, or give --yes to replace it"));
    }
    Ok(())
}

/// Tells where the result stands: as talk, or as the one JSON value of a command that writes.
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
        assert!(lines[0].starts_with("~ valid until: 2027-12-23 (issued "), "{lines:?}");
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
        assert_eq!(super::founder("--founder", "no-such-file").unwrap_err().exit, Exit::BadInput);
        assert_eq!(super::founder("--founder", &"00".repeat(32)).unwrap_err().exit, Exit::BadInput);
    }

    fn founder_arg(text: &str) -> ed25519_dalek::VerifyingKey {
        super::founder("--founder", text).unwrap()
    }
}
