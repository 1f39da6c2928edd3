//! `join FILE`: checks the invitation against the fingerprint, starts the node, and says what happens until it is in
//! step with the others. Running it again goes on where it stopped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio::sync::oneshot;

use super::client::Node;
use super::failure::{Exit, Failure, Outcome};
use super::run::{node_failure, start_telemetry, stop_signal};
use super::terminal::Terminal;
use super::{Invocation, init, show, status};
use crate::clock;
use crate::config::Config;
use crate::node::{self, Ready};
use crate::replica::charter::{CharterChain, MemberStatus};
use crate::replica::ids::ForumId;
use crate::wire::files::{Binding, Invitation, JoinRequest};
use crate::wire::local;

/// How often the node is asked how far it is.
const POLL: Duration = Duration::from_millis(200);
/// With `--once`: how long the first peer may take. Without, the node simply keeps trying.
const REACH_MAX: Duration = Duration::from_secs(60);
/// Peers say every 15 s what their view is; after this the node is joined without that word.
const AGREE_MAX: Duration = Duration::from_secs(25);
/// How often what keeps us waiting is said anew.
const TELL_AGAIN: Duration = Duration::from_secs(15);

#[derive(Args)]
pub(super) struct JoinArgs {
    /// The invitation
    #[arg(value_name = "FILE.sdi")]
    file: PathBuf,
    /// Fingerprint of the forum, as its founders told it: never taken from the file
    #[arg(long, value_name = "FINGERPRINT")]
    forum: Option<String>,
    /// Stop when the node is in step with the others
    #[arg(long)]
    once: bool,
}

pub(super) async fn join(args: &JoinArgs, at: &Invocation) -> Outcome {
    let invitation = Invitation::read(&args.file)?;
    let config = at.config()?;
    let fingerprint = fingerprint(args, &config.data, at)?;
    let chain = believe(&invitation, fingerprint, &args.file)?;
    let name = admitted(&chain, &config.data)?;
    remember(&invitation, &chain, &config.data)?;
    announce(&chain, &name, &config.data, at.terminal);
    Box::pin(run_and_watch(config, args.once, at.terminal)).await
}

/// The fingerprint that people gave: now, at `init`, or when asked.
fn fingerprint(args: &JoinArgs, data: &Path, at: &Invocation) -> Result<ForumId, Failure> {
    let wrong = |why: String| Failure::new(Exit::Usage, why);
    let given = args.forum.as_deref().map(show::fingerprint).transpose();
    let given = given.map_err(|why| wrong(format!("--forum: {why}")))?;
    let bound = match init::stored_binding(data)? {
        Some(Binding::Forum(forum)) => Some(forum),
        _ => None,
    };
    match (given, bound) {
        (Some(given), Some(bound)) if given != bound => {
            let failure = Failure::new(Exit::Refused, "--forum is not the forum that this node was made for");
            Err(failure.culprit(format!("given    {given}")).culprit(format!("at init  {bound}")))
        }
        (Some(forum), _) | (None, Some(forum)) => Ok(forum),
        (None, None) if at.terminal.can_ask() => {
            show::fingerprint(&at.terminal.ask("Fingerprint of the forum, as its founders told it:")?).map_err(wrong)
        }
        (None, None) => Err(wrong("which forum is it? its fingerprint is never taken from the file".to_owned())
            .fix("ask a founder, then: staydown join FILE --forum FINGERPRINT")),
    }
}

/// The chain of the invitation, if it is of the forum that people named.
fn believe(invitation: &Invitation, fingerprint: ForumId, path: &Path) -> Result<CharterChain, Failure> {
    if invitation.forum != fingerprint {
        let failure = Failure::new(Exit::Refused, format!("{} is an invitation to another forum", path.display()));
        return Err(failure
            .culprit(format!("expected {fingerprint}"))
            .culprit(format!("got      {}", invitation.forum))
            .fix("ask a founder which of the two is right"));
    }
    invitation.verify(fingerprint).map_err(|error| {
        let failure = Failure::from(error);
        Failure { cause: format!("{}: {}", path.display(), failure.cause), ..failure }
    })
}

/// Our name in the charter, if this node's keys stand there.
fn admitted(chain: &CharterChain, data: &Path) -> Result<String, Failure> {
    let Some(me) = init::member(data)? else {
        let failure = Failure::new(Exit::Refused, format!("{} holds no node yet", data.display()));
        return Err(failure.fix(format!("staydown init --forum {} --name ...", chain.forum())));
    };
    let keys = init::load_keys(data)?;
    let charter = chain.effective();
    let not_yet = |why: String| {
        let failure = Failure::new(Exit::Refused, "this node is not admitted yet").culprit(why);
        let request = data.join(init::REQUEST_FILE);
        Err(failure
            .fix(format!("ask a founder for: staydown charter admit {}, and a new invitation", request.display())))
    };
    let version = charter.version;
    let Some(member) = charter.member(me) else {
        return not_yet(format!("charter {version} of {} does not list member {me}", show::date(charter.issued)));
    };
    if member.status != MemberStatus::Active {
        return not_yet(format!("charter {version} lists {} as no active member", member.name));
    }
    if member.root_key != keys.root.verifying_key() {
        return not_yet(format!("charter {version} lists another log root key for {}", member.name));
    }
    if !member.pins.contains(&keys.tls.pin()) {
        return not_yet(format!("charter {version} does not list the TLS key {} for {}", keys.tls.pin(), member.name));
    }
    Ok(member.name.clone())
}

/// Keeps the invitation. An older one of the same forum is replaced, one of another forum never.
fn remember(invitation: &Invitation, chain: &CharterChain, data: &Path) -> Result<(), Failure> {
    let path = data.join(init::INVITATION_FILE);
    if path.exists() {
        let held = Invitation::read(&path)?;
        if held.forum != chain.forum() {
            let failure = Failure::new(Exit::Refused, "this node has joined another forum")
                .culprit(format!("it is in {}", held.forum));
            return Err(failure.fix("name another folder: --data DIR"));
        }
        if held.charters.len() >= invitation.charters.len() {
            return Ok(());
        }
    }
    Ok(invitation.write(&path)?)
}

fn announce(chain: &CharterChain, name: &str, data: &Path, terminal: Terminal) {
    let charter = chain.effective();
    let members = show::counted(charter.active().count(), "member");
    let issued = show::date(charter.issued);
    terminal.talk(format!(
        "Forum      {} ({members}, charter {} of {issued})",
        show::clean(&charter.name),
        charter.version
    ));
    let words = JoinRequest::read(&data.join(init::REQUEST_FILE)).map(|request| show::key_words(request.bytes()));
    let words = words.map(|words| format!(", key words {words}")).unwrap_or_default();
    terminal.talk(format!("This node  {name}{words}"));
    terminal.talk(format!("[1/3] Charter chain 1..{} verified, fingerprint agrees", chain.version()));
}

async fn run_and_watch(config: Config, once: bool, terminal: Terminal) -> Outcome {
    start_telemetry(&quieter(config.clone()));
    let (ready, is_ready) = oneshot::channel::<Ready>();
    let (stop, is_stopped) = oneshot::channel::<()>();
    let told = stop_signal(false)?;
    let shutdown = async move {
        tokio::select! {
            _ = is_stopped => {}
            () = told => {}
        }
    };
    let mut node = Box::pin(node::run(config, ready, shutdown));
    let watch = Box::pin(async move {
        match is_ready.await {
            Ok(ready) => watch(&ready.socket, once, terminal).await,
            // The node has ended before it was ready, and says why itself.
            Err(_dropped) => std::future::pending().await,
        }
    });
    let watched = tokio::select! {
        ended = &mut node => return ended.map(|()| Exit::Ok).map_err(|error| node_failure(&error)),
        watched = watch => watched,
    };
    if once || watched.is_err() {
        let _stopping = stop.send(());
        node.await.map_err(|error| node_failure(&error))?;
        watched?;
        terminal.talk("Joined. Next: staydown run");
        return Ok(Exit::Ok);
    }
    terminal.talk("Joined. The node runs until Ctrl-C. Next, in another terminal: staydown match FILE");
    // Held to the end: dropping it would stop the node.
    let ended = node.await.map(|()| Exit::Ok).map_err(|error| node_failure(&error));
    drop(stop);
    ended
}

/// The steps are told here; the node's own log speaks up for warnings only, unless somebody set it.
fn quieter(mut config: Config) -> Config {
    if config.source_of("log.filter") == &crate::config::Source::Default {
        config.log.filter = "warn".to_owned();
    }
    config
}

async fn watch(socket: &Path, once: bool, terminal: Terminal) -> Result<(), Failure> {
    let started = clock::instant();
    let node = Node::connect(socket).await?;
    let reached = reach(&node, once, terminal).await?;
    terminal.talk(match &reached[..] {
        [] => "[2/3] There is no other member yet".to_owned(),
        names => format!("[2/3] Reached {}", names.join(" and ")),
    });
    let synced = sync(&node, terminal).await?;
    let agree = match (synced.agree, reached.len()) {
        (_, 0) => String::new(),
        (agree, _) => format!(", view digest agrees with {agree} of {} peers", synced.asked),
    };
    let seconds = started.elapsed().as_secs_f64();
    let entries = show::count(synced.status.entries);
    terminal.talk(format!("[3/3] Synced: {entries} entries, all signatures valid{agree} ({seconds:.1} s)"));
    terminal.talk(format!("Forum is {}", status::forum(&synced.status)));
    Ok(())
}

fn is_connected(peer: &local::PeerState) -> bool {
    matches!(peer.state.as_str(), "PULLING" | "FOLLOWING")
}

/// Waits until a peer answers, and says what keeps us waiting. Returns the names of those that do.
async fn reach(node: &Node, once: bool, terminal: Terminal) -> Result<Vec<String>, Failure> {
    let started = clock::instant();
    let mut told = None;
    loop {
        let peers = node.peers(local::ListPeersRequest {}).await?.peers;
        let reached: Vec<_> = peers.iter().filter(|p| is_connected(p)).map(|p| show::clean(&p.member)).collect();
        if peers.is_empty() || !reached.is_empty() {
            return Ok(reached);
        }
        let errors: Vec<_> = peers
            .iter()
            .filter(|p| !p.last_error.is_empty())
            .map(|p| {
                format!("{} ({}): {}", show::clean(&p.member), show::clean(&p.endpoint), show::clean(&p.last_error))
            })
            .collect();
        if once && started.elapsed() > REACH_MAX {
            let cause = format!("no peer was reached in {} s", REACH_MAX.as_secs());
            let failure = Failure { culprits: errors, ..Failure::new(Exit::Unreachable, cause) };
            return Err(failure.fix("see that their nodes run and that yours is admitted there; then run this again"));
        }
        if !errors.is_empty() && told.is_none_or(|at| clock::instant().duration_since(at) > TELL_AGAIN) {
            terminal.talk(format!("      waiting for a peer\n        {}", errors.join("\n        ")));
            told = Some(clock::instant());
        }
        tokio::time::sleep(POLL).await;
    }
}

struct Synced {
    status: local::StatusResponse,
    /// Peers that are connected.
    asked: usize,
    /// Those of them whose view digest is ours.
    agree: usize,
}

/// Waits until nothing is missing here, and then a little for the others to say that they see the same.
async fn sync(node: &Node, terminal: Terminal) -> Result<Synced, Failure> {
    let bar = terminal.progress(0, "blocks");
    let mut complete_since = None;
    loop {
        let status = node.status(local::StatusRequest {}).await?;
        let peers = node.peers(local::ListPeersRequest {}).await?.peers;
        let connected: Vec<_> = peers.iter().filter(|p| is_connected(p)).collect();
        let missing = connected.iter().map(|p| p.theirs_missing_here).max().unwrap_or(0);
        bar.set_length(status.blocks.saturating_add(missing));
        bar.set_position(status.blocks);
        let agree = connected.iter().filter(|p| p.agrees == "YES").count();
        let open = connected.iter().filter(|p| p.agrees != "YES" && p.agrees != "NO").count();
        let settled = connected.iter().all(|p| p.state == "FOLLOWING") && missing == 0;
        if !settled {
            complete_since = None;
        } else if open == 0 || complete_since.get_or_insert_with(clock::instant).elapsed() > AGREE_MAX {
            bar.finish_and_clear();
            return Ok(Synced { status, asked: connected.len(), agree });
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Globals;
    use super::super::drafting;
    use super::super::drafting::tests::founded;
    use super::*;

    fn at() -> Invocation {
        let globals =
            Globals { data: None, config: None, socket: None, demo: None, json: true, quiet: true, yes: true };
        Invocation { globals, terminal: Terminal { json: true, quiet: true, yes: true } }
    }

    fn args(forum: Option<&str>) -> JoinArgs {
        JoinArgs { file: "invite.sdi".into(), forum: forum.map(str::to_owned), once: true }
    }

    #[test]
    fn the_fingerprint_comes_from_people_and_never_from_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = ("01".repeat(32), "02".repeat(32));
        let told = fingerprint(&args(None), dir.path(), &at()).unwrap_err();
        assert_eq!(told.exit, Exit::Usage);
        assert_eq!(fingerprint(&args(Some(&one)), dir.path(), &at()).unwrap(), ForumId([1; 32]));
        std::fs::write(dir.path().join(init::BINDING_FILE), format!("forum {one}\n")).unwrap();
        assert_eq!(fingerprint(&args(None), dir.path(), &at()).unwrap(), ForumId([1; 32]));
        let told = fingerprint(&args(Some(&two)), dir.path(), &at()).unwrap_err();
        assert_eq!((told.exit, told.culprits.len()), (Exit::Refused, 2));
        assert_eq!(fingerprint(&args(Some("12")), dir.path(), &at()).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn an_invitation_of_another_forum_is_refused_with_both_fingerprints() {
        let chain = drafting::chain(&founded()).unwrap();
        let invitation = Invitation::of(&chain);
        believe(&invitation, chain.forum(), Path::new("invite.sdi")).unwrap();
        let told = believe(&invitation, ForumId([5; 32]), Path::new("invite.sdi")).unwrap_err();
        assert_eq!(told.exit, Exit::Refused);
        assert!(told.culprits[0].contains(&"05".repeat(32)) && told.culprits[1].contains(&chain.forum().to_string()));
        // A file that lies about which forum it is for gets no further.
        let lying = Invitation { forum: ForumId([5; 32]), ..invitation };
        assert_eq!(believe(&lying, ForumId([5; 32]), Path::new("invite.sdi")).unwrap_err().exit, Exit::Refused);
    }

    #[test]
    fn a_node_that_no_charter_lists_is_told_what_to_ask_for() {
        let chain = drafting::chain(&founded()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let told = admitted(&chain, dir.path()).unwrap_err();
        assert!(told.fix.unwrap().starts_with("staydown init --forum "));
        std::fs::write(dir.path().join(init::MEMBER_FILE), "ab".repeat(16)).unwrap();
        let terms = crate::keys::CertificateTerms::usual("delta", clock::now());
        crate::keys::NodeKeys::create(&dir.path().join(init::KEYS_FOLDER), &terms).unwrap();
        let told = admitted(&chain, dir.path()).unwrap_err();
        assert_eq!((told.exit, told.cause.as_str()), (Exit::Refused, "this node is not admitted yet"));
    }

    #[test]
    fn an_invitation_of_another_forum_replaces_none() {
        let chain = drafting::chain(&founded()).unwrap();
        let invitation = Invitation::of(&chain);
        let dir = tempfile::tempdir().unwrap();
        remember(&invitation, &chain, dir.path()).unwrap();
        remember(&invitation, &chain, dir.path()).unwrap();
        let other = Invitation { forum: ForumId([5; 32]), ..invitation.clone() };
        other.write(&dir.path().join(init::INVITATION_FILE)).unwrap();
        assert_eq!(remember(&invitation, &chain, dir.path()).unwrap_err().exit, Exit::Refused);
    }
}
