//! `join FILE`: checks the invitation against the fingerprint, starts the node, and says what happens until it is in
//! step with the others. Running it again goes on where it stopped.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;
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
use crate::replica::exchange::FUTURE_MS;
use crate::replica::ids::{ForumId, KeyId, TimeMs};
use crate::wire::files::{Binding, Invitation, JoinRequest};
use crate::wire::local;

/// How often the node is asked how far it is.
const POLL: Duration = Duration::from_millis(200);
/// With `--once`: how many seconds the first peer may take. Without, the node simply keeps trying.
const REACH_SECONDS_DEFAULT: u64 = 60;
/// Further from the peers' clocks than this, what we sign is held by them until their clocks have caught up, and what
/// they sign by us (PROTOCOL 3.2).
const CLOCK_OFF_MAX_MS: u64 = FUTURE_MS;
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
    /// With --once: how long the first peer may take
    #[arg(long, value_name = "SECONDS", default_value_t = REACH_SECONDS_DEFAULT, requires = "once")]
    timeout: u64,
}

pub(super) async fn join(args: &JoinArgs, at: &Invocation) -> Outcome {
    let invitation = Invitation::read(&args.file)?;
    let config = at.config()?;
    let fingerprint = fingerprint(args, &config.data, at)?;
    let chain = believe(&invitation, fingerprint, &args.file)?;
    let again = config.data.join(init::INVITATION_FILE).exists();
    if again && Node::connect(&config.local.socket).await.is_ok() {
        let failure = Failure::new(Exit::InUse, "this node has joined already, and runs");
        return Err(failure.fix("staydown status; or stop it first, to see it join again"));
    }
    let name = admitted(&chain, &config.data, &args.file)?;
    if !again {
        fresh(&chain, clock::now(), &args.file)?;
    }
    remember(&invitation, &chain, &config.data)?;
    if again {
        at.terminal.talk("this node has joined before: it goes on where it stopped");
    }
    announce(&chain, &name, &config.data, at.terminal);
    let patience = args.once.then(|| Duration::from_secs(args.timeout));
    Box::pin(run_and_watch(config, chain.version(), patience, at.terminal)).await
}

/// The fingerprint that people gave: now, at `init`, at the first `join`, or when asked.
fn fingerprint(args: &JoinArgs, data: &Path, at: &Invocation) -> Result<ForumId, Failure> {
    let wrong = |why: String| Failure::new(Exit::Usage, why);
    let given = args.forum.as_deref().map(show::fingerprint).transpose();
    let given = given.map_err(|why| wrong(format!("--forum: {why}")))?;
    let bound = match init::stored_binding(data)? {
        Some(Binding::Forum(forum)) => Some(forum),
        _ => None,
    };
    let path = data.join(init::INVITATION_FILE);
    if given.is_none() && bound.is_none() && path.exists() {
        // The one that was kept when people named its forum: founders' requests are bound to a draft, not to a forum.
        return Ok(Invitation::read(&path)?.forum);
    }
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
fn admitted(chain: &CharterChain, data: &Path, file: &Path) -> Result<String, Failure> {
    let Some(me) = init::member(data)? else {
        let failure = Failure::new(Exit::Refused, format!("{} holds no node yet", data.display()));
        return Err(failure.fix(format!("staydown init --forum {} --name ...", chain.forum())));
    };
    let keys = init::load_keys(data)?;
    let charter = chain.effective();
    let looked =
        format!("looked at charter {} of {} in {}", charter.version, show::date(charter.issued), file.display());
    let refuse = |cause: &str, why: String| {
        let mut names: Vec<_> = charter.active().map(|member| show::clean(&member.name)).collect();
        names.sort();
        let failure = Failure::new(Exit::Refused, cause).culprit(why).culprit(looked.clone());
        Err(failure.culprit(format!("its members: {}", names.join(", "))))
    };
    let request = data.join(init::REQUEST_FILE);
    let admit = format!("ask a founder for: staydown charter admit {}, and a new invitation", request.display());
    let Some(member) = charter.member(me) else {
        return refuse("this node is not admitted yet", format!("member {me} is not listed"))
            .map_err(|failure: Failure| failure.fix(admit));
    };
    let name = show::clean(&member.name);
    match member.status {
        MemberStatus::Active => {}
        MemberStatus::Suspended => {
            return refuse("this company is suspended", format!("{name} is listed as suspended"))
                .map_err(|failure: Failure| failure.fix("ask the founders what has to be done to end it"));
        }
        MemberStatus::Former => {
            return refuse("this company is no member any more", format!("{name} is listed as a former member"))
                .map_err(|failure: Failure| {
                    failure.fix("ask the founders; a new start needs a new request: --data DIR")
                });
        }
    }
    let other = "this company is admitted under another key";
    let ours = KeyId::of(keys.root.verifying_key().as_bytes());
    if member.root_key != keys.root.verifying_key() {
        let listed = KeyId::of(member.root_key.as_bytes());
        return refuse(other, format!("{name} has log root key {listed}, this node has {ours}")).map_err(
            |failure: Failure| failure.fix("use the folder that has that key (--data DIR), or ask a founder for: staydown charter admit REQUEST --new-key"),
        );
    }
    if !member.pins.contains(&keys.tls.pin()) {
        return refuse(other, format!("{name} has other TLS keys than {}", keys.tls.pin()))
            .map_err(|failure: Failure| failure.fix(admit));
    }
    Ok(name)
}

/// A forum that nobody has renewed for so long has moved on, or is being hidden from us. Only newcomers are kept out:
/// who is in goes on enforcing what it has (C5).
fn fresh(chain: &CharterChain, now: TimeMs, file: &Path) -> Result<(), Failure> {
    let charter = chain.effective();
    let grace = charter.policy.stale_grace_ms;
    let (issued, until) = (show::date(charter.issued), show::date(charter.valid_until));
    let today = show::date(now);
    if now > charter.valid_until.plus(grace) {
        let days = grace / TimeMs::DAY_MS;
        let cause = format!("the invitation has expired: its charter {} was valid until {until}", charter.version);
        return Err(Failure::new(Exit::Refused, cause)
            .culprit(format!("{}: the grace of {days} days is over too; this machine has {today}", file.display()))
            .fix("ask a member for a new invitation: staydown charter invite; or set this machine's clock"));
    }
    if charter.issued > now.plus(TimeMs::DAY_MS) {
        let cause = format!("this machine's clock is behind: charter {} was issued on {issued}", charter.version);
        return Err(Failure::new(Exit::Refused, cause)
            .culprit(format!("this machine has {today}"))
            .fix("set the clock, then run this again"));
    }
    Ok(())
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

async fn run_and_watch(config: Config, charter: u64, patience: Option<Duration>, terminal: Terminal) -> Outcome {
    let _telemetry = start_telemetry(&quieter(config.clone()))?;
    let (ready, is_ready) = oneshot::channel::<Ready>();
    let (stop, is_stopped) = oneshot::channel::<()>();
    let told = stop_signal(false)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let by_a_person = Arc::clone(&interrupted);
    let shutdown = async move {
        tokio::select! {
            _ = is_stopped => {}
            () = told => by_a_person.store(true, Ordering::SeqCst),
        }
    };
    let console = config.web.listen.is_some();
    let mut node = Box::pin(node::run(config, ready, shutdown));
    let watch = Box::pin(async move {
        match is_ready.await {
            Ok(ready) => watch(&ready.socket, charter, patience, terminal).await,
            // The node has ended before it was ready, and says why itself.
            Err(_dropped) => std::future::pending().await,
        }
    });
    let watched = tokio::select! {
        ended = &mut node => return ended.map(|()| Exit::Ok).map_err(|error| node_failure(&error)),
        watched = watch => watched,
    };
    if patience.is_some() || watched.is_err() {
        let _stopping = stop.send(());
        node.await.map_err(|error| node_failure(&error))?;
        if watched.is_err() && interrupted.load(Ordering::SeqCst) {
            terminal.talk("Stopped before everything was here: the same command goes on");
            return Ok(Exit::Ok);
        }
        watched?;
        terminal.talk("Joined. Next: staydown run");
        return Ok(Exit::Ok);
    }
    terminal.talk("Joined. The node runs until Ctrl-C. Next, in another terminal: staydown match FILE");
    if console {
        terminal.talk("A link to the console: staydown token new --name YOU --role admin");
    }
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

async fn watch(socket: &Path, charter: u64, patience: Option<Duration>, terminal: Terminal) -> Result<(), Failure> {
    let started = clock::instant();
    let node = Node::connect(socket).await?;
    let reached = reach(&node, patience, terminal).await?;
    terminal.talk(match &reached[..] {
        [] => "[2/3] There is no other member yet".to_owned(),
        // The transport speaks no other version.
        names => format!("[2/3] Reached {} (TLS 1.3, both sides by their keys)", names.join(" and ")),
    });
    let synced = sync(&node, terminal).await?;
    if synced.status.charter_version > charter {
        let (newer, of) = (synced.status.charter_version, show::date(TimeMs(synced.status.charter_issued_ms)));
        terminal.talk(format!(
            "      The peers have charter {newer} of {of}, newer than the invitation: fetched and verified"
        ));
    }
    let agree = match (synced.agree, reached.len()) {
        (_, 0) => String::new(),
        (agree, _) => format!(", view digest agrees with {agree} of {}", show::counted(synced.asked, "peer")),
    };
    let seconds = started.elapsed().as_secs_f64();
    let entries = show::count(synced.status.entries);
    let counted = show::counted(usize::try_from(synced.status.entries).unwrap_or(usize::MAX), "entry");
    terminal.talk(format!("[3/3] Synced {entries} of {counted}, all signatures valid{agree} ({seconds:.1} s)"));
    terminal.talk(format!("Forum is {}", status::forum(&synced.status)));
    Ok(())
}

fn is_connected(peer: &local::PeerState) -> bool {
    matches!(peer.state.as_str(), "PULLING" | "FOLLOWING")
}

/// Waits until a peer answers, and says what keeps us waiting. Returns the names of those that do.
async fn reach(node: &Node, patience: Option<Duration>, terminal: Terminal) -> Result<Vec<String>, Failure> {
    let started = clock::instant();
    let mut told = None;
    loop {
        let peers = node.peers(local::ListPeersRequest {}).await?.peers;
        let reached: Vec<_> = peers.iter().filter(|p| is_connected(p)).map(|p| show::clean(&p.member)).collect();
        if peers.is_empty() || !reached.is_empty() {
            return clock_far_off(&peers).map_or(Ok(reached), Err);
        }
        let waited = started.elapsed();
        if patience.is_some_and(|patience| waited > patience) {
            return Err(not_reached(&peers, waited));
        }
        let errors = errors(&peers);
        if !errors.is_empty() && told.is_none_or(|at| clock::instant().duration_since(at) > TELL_AGAIN) {
            terminal.talk(format!("      waiting for a peer\n        {}", errors.join("\n        ")));
            told = Some(clock::instant());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Each endpoint with what went wrong there.
fn errors(peers: &[local::PeerState]) -> Vec<String> {
    let failed = peers.iter().filter(|p| !p.last_error.is_empty());
    failed
        .map(|p| format!("{} ({}): {}", show::clean(&p.member), show::clean(&p.endpoint), show::clean(&p.last_error)))
        .collect()
}

/// Nobody answered: because they do not want us, or because they are not there.
fn not_reached(peers: &[local::PeerState], waited: Duration) -> Failure {
    let refuses = |p: &&local::PeerState| p.last_error.starts_with(&format!("{} refused ", p.member));
    let refusing: Vec<_> = peers.iter().filter(refuses).map(|p| show::clean(&p.member)).collect();
    if refusing.is_empty() {
        let cause = format!("no peer was reached in {} s", waited.as_secs());
        let failure = Failure { culprits: errors(peers), ..Failure::new(Exit::Unreachable, cause) };
        return failure.fix("see that their nodes run and that the endpoints are right; then run this again");
    }
    let failure = Failure::new(Exit::Refused, format!("{} refused this node", refusing.join(" and ")));
    Failure { culprits: errors(peers), ..failure }.fix(
        "ask a founder whether the charter of the invitation was applied (staydown charter apply) and still lists this node; then run this again",
    )
}

/// A failure if this machine's clock is far from those of the peers that are connected, taken in the middle.
fn clock_far_off(peers: &[local::PeerState]) -> Option<Failure> {
    let connected = || peers.iter().filter(|p| is_connected(p));
    let mut offsets: Vec<_> = connected().map(|p| p.clock_offset_ms).collect();
    offsets.sort_unstable();
    let middle = *offsets.get(offsets.len() / 2)?;
    if middle.unsigned_abs() <= CLOCK_OFF_MAX_MS {
        return None;
    }
    // The offset is the peer's clock minus ours.
    let side = if middle > 0 { "behind" } else { "ahead of" };
    let cause = format!("this machine's clock is {} s {side} those of its peers", middle.unsigned_abs() / 1_000);
    let culprits = connected().map(|p| format!("{}: {:+} s", show::clean(&p.member), p.clock_offset_ms / 1_000));
    let failure = Failure { culprits: culprits.collect(), ..Failure::new(Exit::Refused, cause) };
    Some(
        failure.fix("set the clock (NTP), then run this again: what is signed with a wrong clock counts late or never"),
    )
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
    let (mut bar, mut complete_since, mut passed) = (None, None, 0);
    loop {
        let status = node.status(local::StatusRequest {}).await?;
        let peers = node.peers(local::ListPeersRequest {}).await?.peers;
        let connected: Vec<_> = peers.iter().filter(|p| is_connected(p)).collect();
        let missing = connected.iter().map(|p| p.theirs_missing_here).max().unwrap_or(0);
        let total = status.blocks.saturating_add(missing);
        if missing > 0 {
            let bar = bar.get_or_insert_with(|| terminal.progress(total, "blocks"));
            bar.set_length(total);
            bar.set_position(status.blocks);
            terminal.passed(passed, status.blocks, total, "blocks");
            passed = status.blocks;
        }
        let agree = connected.iter().filter(|p| p.agrees == "YES").count();
        let open = connected.iter().filter(|p| p.agrees != "YES" && p.agrees != "NO").count();
        let settled = connected.iter().all(|p| p.state == "FOLLOWING") && missing == 0;
        if !settled {
            complete_since = None;
        } else {
            bar.take().iter().for_each(ProgressBar::finish_and_clear);
            if open == 0 || complete_since.is_some_and(|since: Instant| since.elapsed() > AGREE_MAX) {
                return Ok(Synced { status, asked: connected.len(), agree });
            }
            if complete_since.is_none() {
                terminal.talk("      Everything is here; the peers say within 15 s whether they see the same");
                complete_since = Some(clock::instant());
            }
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
    use crate::replica::ids::MemberId;

    fn at() -> Invocation {
        let globals =
            Globals { data: None, config: None, socket: None, demo: None, json: true, quiet: true, yes: true };
        Invocation { globals, terminal: Terminal { json: true, quiet: true, yes: true } }
    }

    fn args(forum: Option<&str>) -> JoinArgs {
        JoinArgs { file: "invite.sdi".into(), forum: forum.map(str::to_owned), once: true, timeout: 1 }
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
        let told = admitted(&chain, dir.path(), FILE.as_ref()).unwrap_err();
        assert!(told.fix.unwrap().starts_with("staydown init --forum "));
        std::fs::write(dir.path().join(init::MEMBER_FILE), "ab".repeat(16)).unwrap();
        let terms = crate::keys::CertificateTerms::usual("delta", clock::now());
        crate::keys::NodeKeys::create(&dir.path().join(init::KEYS_FOLDER), &terms).unwrap();
        let told = admitted(&chain, dir.path(), FILE.as_ref()).unwrap_err();
        assert_eq!((told.exit, told.cause.as_str()), (Exit::Refused, "this node is not admitted yet"));
    }

    const FILE: &str = "invite.sdi";

    /// The chain with charter 2, in which `change` was made to acme, and a folder with acme's node.
    fn changed(
        change: impl FnOnce(&mut crate::replica::proto::Member, &crate::keys::NodeKeys),
    ) -> (CharterChain, tempfile::TempDir) {
        use prost::Message as _;
        let dir = tempfile::tempdir().unwrap();
        let terms = crate::keys::CertificateTerms::usual("acme", clock::now());
        let keys = crate::keys::NodeKeys::create(&dir.path().join(init::KEYS_FOLDER), &terms).unwrap();
        let chain = drafting::chain(&founded()).unwrap();
        let mut next = drafting::next(&chain, drafting::tests::NOW).unwrap();
        let mut body = drafting::body(&next).unwrap();
        let member = MemberId::from_slice(&body.members[0].id).unwrap();
        std::fs::write(dir.path().join(init::MEMBER_FILE), member.to_string()).unwrap();
        body.members[0].log_root_key = keys.root.verifying_key().as_bytes().to_vec().into();
        let pop = crate::replica::charter::prove_possession(&keys.root, &chain.forum().0, member);
        body.members[0].pop = pop.to_vec().into();
        body.members[0].nodes[0].tls_spki_sha256 = vec![keys.tls.pin().0.to_vec().into()];
        change(&mut body.members[0], &keys);
        next.proposed.body = body.encode_to_vec().into();
        for number in [1, 2] {
            next = drafting::sign(&next, &drafting::tests::founder(number)).unwrap();
        }
        (drafting::chain(&next).unwrap(), dir)
    }

    #[test]
    fn each_reason_not_to_be_let_in_has_its_own_cause_and_cure() {
        let judged = |chain: &CharterChain, dir: &tempfile::TempDir| admitted(chain, dir.path(), FILE.as_ref());
        let (chain, dir) = changed(|_, _| {});
        assert_eq!(judged(&chain, &dir).unwrap(), "acme");
        type Change = fn(&mut crate::replica::proto::Member);
        let cases: [(&str, &str, Change); 3] = [
            ("this company is suspended", "ask the founders", |m| m.status = 2),
            ("this company is no member any more", "ask the founders", |m| m.status = 3),
            ("this company is admitted under another key", "charter admit", |m| {
                m.nodes[0].tls_spki_sha256 = vec![vec![9; 32].into()];
            }),
        ];
        for (cause, fix, change) in cases {
            let (chain, dir) = changed(|member, _| change(member));
            let told = judged(&chain, &dir).unwrap_err();
            assert_eq!((told.exit, told.cause.as_str()), (Exit::Refused, cause));
            assert!(told.fix.unwrap().contains(fix), "{cause}");
            assert!(told.culprits[1].contains("looked at charter 2 of ") && told.culprits[1].contains(FILE));
        }
        // The founding charter lists acme, with the key that the request was made with.
        let told = judged(&drafting::chain(&founded()).unwrap(), &dir).unwrap_err();
        assert_eq!((told.exit, told.cause.as_str()), (Exit::Refused, "this company is admitted under another key"));
        assert!(told.culprits[0].contains("log root key") && told.fix.unwrap().contains("--new-key"));
    }

    #[test]
    fn an_invitation_expires_when_the_grace_of_its_charter_is_over() {
        let chain = drafting::chain(&founded()).unwrap();
        let charter = chain.effective();
        let end = charter.valid_until.plus(charter.policy.stale_grace_ms);
        for (now, cause) in [
            (charter.issued, None),
            (end, None),
            (end.plus(1), Some("the invitation has expired")),
            (TimeMs(charter.issued.0 - TimeMs::DAY_MS - 1), Some("this machine's clock is behind")),
        ] {
            let told = fresh(&chain, now, FILE.as_ref()).err();
            assert_eq!(told.is_some(), cause.is_some(), "{now:?}");
            if let Some((told, cause)) = told.zip(cause) {
                assert_eq!(told.exit, Exit::Refused);
                assert!(told.cause.starts_with(cause) && told.fix.is_some(), "{told:?}");
            }
        }
    }

    fn peer(member: &str, state: &str, last_error: &str, clock_offset_ms: i64) -> local::PeerState {
        let (member, state, last_error) = (member.to_owned(), state.to_owned(), last_error.to_owned());
        local::PeerState { member, state, last_error, clock_offset_ms, ..Default::default() }
    }

    #[test]
    fn a_clock_far_from_the_peers_is_told_by_how_much() {
        let far = |offsets: &[i64]| {
            clock_far_off(&offsets.iter().map(|ms| peer("acme", "FOLLOWING", "", *ms)).collect::<Vec<_>>())
        };
        assert_eq!(far(&[]), None);
        assert_eq!(far(&[120_000]), None);
        assert_eq!(far(&[-120_000, 0, 700_000]), None, "one peer with a wrong clock is that peer's matter");
        let told = far(&[3_600_000, 3_601_000, 0]).unwrap();
        assert_eq!(
            (told.exit, &*told.cause),
            (Exit::Refused, "this machine's clock is 3600 s behind those of its peers")
        );
        assert_eq!(told.culprits[1], "acme: +3601 s");
        assert!(far(&[-120_001]).unwrap().cause.contains("120 s ahead of"));
        let away = [peer("bolt", "BACKOFF", "", 9_000_000)];
        assert_eq!(clock_far_off(&away), None, "who is not connected has told no time");
    }

    #[test]
    fn who_refuses_us_is_not_called_unreachable() {
        let nobody = [peer("acme", "BACKOFF", "acme.example.org:7700: Connection refused (os error 111)", 0)];
        let told = not_reached(&nobody, Duration::from_secs(60));
        assert_eq!((told.exit, &*told.cause), (Exit::Unreachable, "no peer was reached in 60 s"));
        assert!(told.culprits[0].contains("os error 111"));
        let refused = [nobody[0].clone(), peer("bolt", "BACKOFF", "bolt refused our certificate: x (AccessDenied)", 0)];
        let told = not_reached(&refused, Duration::from_secs(60));
        assert_eq!((told.exit, &*told.cause), (Exit::Refused, "bolt refused this node"));
        assert_eq!(told.culprits.len(), 2);
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
