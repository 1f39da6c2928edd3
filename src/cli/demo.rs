//! `demo`: a throw-away forum on this machine, of three companies, a certifier and a referral unit, and the story of some
//! images in it.
//!
//! Everything is real but the members and the images: five processes, mutual TLS, a charter that founders signed,
//! stores on disk. Each step of the story is checked; `--once` goes on to withdrawal and a crash, and is the smoke test.

mod story;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::client::Node;
use super::failure::{Exit, Failure, Outcome, io_failure};
use super::item::{Hash, of_file};
use super::run::stop_signal;
use super::submit::{Terms, statement};
use super::terminal::Terminal;
use super::{DEMO_FOLDER, Invocation, drafting, init, show};
use crate::access::Role;
use crate::accounts::SealSecret;
use crate::config::CONFIG_FILE;
use crate::replica::charter::Roles;
use crate::replica::ids::{MemberId, hex};
use crate::store::{self, DirectoryLock};
use crate::wire::files::{Applicant, Binding, Invitation};
use crate::wire::local;
use crate::{clock, hashing, keys};

/// A member of the demo's forum.
pub(super) struct Member {
    pub(super) name: &'static str,
    group: &'static str,
    jurisdiction: &'static str,
    roles: Roles,
}

/// Three companies of two jurisdictions, because the built-in policy asks for two before it says BLOCK, and the two that
/// are no company: a certifier from civil society and a referral unit.
pub(super) const MEMBERS: [Member; 5] = [
    Member { name: "acme", group: "Acme", jurisdiction: "FR", roles: Roles::FULL },
    Member { name: "bolt", group: "Bolt", jurisdiction: "GB", roles: Roles::FULL },
    Member { name: "cyan", group: "Cyan", jurisdiction: "FR", roles: Roles::FULL },
    Member { name: "dove", group: "Dove", jurisdiction: "DE", roles: Roles::CERTIFIER },
    Member { name: "echo", group: "Echo", jurisdiction: "FR", roles: Roles::REFERRAL },
];
/// Places in [`MEMBERS`].
const ACME: usize = 0;
const BOLT: usize = 1;
const CYAN: usize = 2;
const DOVE: usize = 3;
const ECHO: usize = 4;
/// Those that look something up.
const COMPANIES: [usize; 3] = [ACME, BOLT, CYAN];
/// Their keys sign the charter, any [`THRESHOLD`] of them.
const FOUNDERS: usize = COMPANIES.len();
const THRESHOLD: u32 = 2;

const SAMPLES: u32 = 12;
const SAMPLE_SIDES: (u32, u32) = (720, 540);
const SAMPLE_QUALITY: u8 = 90;
/// Submissions that must be acknowledged before the node is killed amid the next ones.
const ACKNOWLEDGED_MIN: usize = 60;
/// Submitters that are at it when the node is killed.
const SUBMITTERS: usize = 4;
/// A free port can be taken by somebody else before the node binds it; then all begins anew.
const ATTEMPTS: usize = 3;
const START_MAX: Duration = Duration::from_secs(60);
const STEP_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);
/// Times that the folder's removal is tried, and the pause between two: nodes that are killed end within both.
const REMOVALS_MAX: usize = 20;
const REMOVAL_PAUSE: Duration = Duration::from_millis(50);
/// Marks a folder as ours, so that only such a one is ever deleted.
const MARK_FILE: &str = ".staydown-demo";
const NODE_LOG: &str = "node.log";
/// Lines of each node's log that a failed check shows.
const LOG_TAIL: usize = 5;

#[derive(Args)]
pub(super) struct DemoArgs {
    /// Tell the story, check each step, and stop
    #[arg(long)]
    once: bool,
    /// Keep the folder
    #[arg(long)]
    keep: bool,
    /// Only draw the sample images, into this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["once", "keep"])]
    samples: Option<PathBuf>,
}

/// Where a demo that stays up lives.
pub(super) fn parent_folder() -> PathBuf {
    std::env::temp_dir().join(DEMO_FOLDER)
}

pub(super) async fn demo(args: &DemoArgs, at: &Invocation) -> Outcome {
    if let Some(folder) = &args.samples {
        let drawn = pictures(folder)?;
        at.terminal.talk(format!("drew {} pictures into {}", drawn.len(), folder.display()));
        return Ok(Exit::Ok);
    }
    let stop = stop_signal(false)?;
    let story = Box::pin(async {
        let folder = Folder::claim(args)?;
        let mut forum = start(&folder, at.terminal).await?;
        let told = Box::pin(tell(&mut forum, &folder, args, at)).await;
        let told = told.map_err(|failure| with_logs(failure, &folder));
        if told.is_ok() && !args.once {
            invite_to_try(&folder, at.terminal);
            std::future::pending::<()>().await;
        }
        forum.stop().await;
        told.map(|()| Exit::Ok)
    });
    tokio::select! {
        outcome = story => outcome,
        // Dropping the story kills its nodes and deletes its folder.
        () = stop => {
            at.terminal.talk("stopped; the nodes have ended");
            Ok(if args.once { Exit::Failed } else { Exit::Ok })
        }
    }
}

/// The demo's folder: deleted at the end, unless it is to be kept.
struct Folder {
    path: PathBuf,
    keep: bool,
    _lock: DirectoryLock,
}

impl Folder {
    /// A demo that stays up has one place, where `--demo NAME` finds it; one that ends has a place of its own.
    fn claim(args: &DemoArgs) -> Result<Self, Failure> {
        let path = if args.once {
            std::env::temp_dir().join(format!("{DEMO_FOLDER}-{}", hex(&clock::random::<6>())))
        } else {
            parent_folder()
        };
        let foreign = path.exists() && !path.join(MARK_FILE).is_file();
        if foreign && fs::read_dir(&path).is_ok_and(|mut inside| inside.next().is_some()) {
            let cause = format!("{} is there and was made by no demo", path.display());
            return Err(Failure::new(Exit::Refused, cause).fix("move it away, or set TMPDIR"));
        }
        init::create_folder(&path)?;
        fs::write(path.join(MARK_FILE), "").map_err(io_failure(path.display().to_string()))?;
        let lock = store::lock_directory(&path).map_err(|error| {
            Failure::from(error).culprit("a demo is running already").fix("use it, or stop it with Ctrl-C")
        })?;
        let folder = Self { path, keep: args.keep, _lock: lock };
        folder.clear()?;
        Ok(folder)
    }

    /// Removes what an earlier demo left that could not clean up.
    fn clear(&self) -> Result<(), Failure> {
        let failed = || io_failure(format!("cannot clear {}", self.path.display()));
        for entry in fs::read_dir(&self.path).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            if path.is_dir() {
                fs::remove_dir_all(&path).map_err(failed())?;
            }
        }
        for number in 1..=FOUNDERS {
            drop(fs::remove_file(self.founder_key(number)));
        }
        Ok(())
    }

    fn of(&self, company: usize) -> PathBuf {
        self.path.join(MEMBERS[company].name)
    }

    fn founder_key(&self, number: usize) -> PathBuf {
        self.path.join(format!("founder-{number}.pem"))
    }

    fn samples(&self) -> PathBuf {
        self.path.join("samples")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // A node that was killed a moment ago may still put a file into a folder that is being emptied.
        for _ in 0..REMOVALS_MAX {
            if fs::remove_dir_all(&self.path).is_ok() || !self.path.exists() {
                return;
            }
            std::thread::sleep(REMOVAL_PAUSE);
        }
    }
}

/// The running members.
struct Forum {
    members: Vec<Running>,
}

/// A node process. It ends with this value: its stdin closes, and it is killed.
struct Running {
    child: Child,
    data: PathBuf,
    port: u16,
    node: Node,
}

impl Forum {
    fn node(&self, member: usize) -> &Node {
        &self.members[member].node
    }

    async fn stop(self) {
        for mut member in self.members {
            drop(member.child.stdin.take());
            if tokio::time::timeout(STOP_MAX, member.child.wait()).await.is_err() {
                drop(member.child.kill().await);
            }
        }
    }
}

/// Founds the forum and starts its nodes.
async fn start(folder: &Folder, terminal: Terminal) -> Result<Forum, Failure> {
    terminal.talk(format!(
        "Starting a forum of {} companies, a certifier and a referral unit on 127.0.0.1 ...",
        COMPANIES.len()
    ));
    let mut attempt = 1;
    loop {
        folder.clear()?;
        let ports = free_ports()?;
        found(folder, &ports)?;
        match start_all(folder, &ports).await {
            Ok(forum) => {
                for (number, (member, running)) in MEMBERS.iter().zip(&forum.members).enumerate() {
                    let console = console(&running.node, COMPANIES.contains(&number)).await?;
                    terminal.data(format!("  {}   peers 127.0.0.1:{}{console}   ready", member.name, running.port))?;
                }
                return Ok(forum);
            }
            Err(failure) if attempt >= ATTEMPTS => return Err(with_logs(failure, folder)),
            Err(_perhaps_a_port) => attempt += 1,
        }
    }
}

/// Where a person sees what the company sees, signed in as one who may do everything.
async fn console(node: &Node, wanted: bool) -> Result<String, Failure> {
    if !wanted {
        return Ok(String::new());
    }
    let (name, role) = ("demo".to_owned(), Role::Admin.name().to_owned());
    let made = node.create_token(local::CreateTokenRequest { name, role, ..Default::default() }).await?;
    Ok(format!("   console {}", made.link))
}

async fn start_all(folder: &Folder, ports: &Ports) -> Result<Forum, Failure> {
    let mut children = Vec::new();
    for (company, port) in ports.iter().enumerate() {
        children.push((spawn(&folder.of(company))?, folder.of(company), *port));
    }
    let mut members = Vec::new();
    for (mut child, data, port) in children {
        let node = reach(&mut child, &data).await?;
        members.push(Running { child, data, port, node });
    }
    let forum = Forum { members };
    for (member, running) in MEMBERS.iter().zip(&forum.members) {
        connected(&running.node, member.name).await?;
    }
    Ok(forum)
}

/// One a member.
type Ports = [u16; MEMBERS.len()];

/// Ports that nobody listens on right now.
fn free_ports() -> Result<Ports, Failure> {
    let failed = || io_failure("no free port on 127.0.0.1");
    let mut held = Vec::new();
    let mut ports = Ports::default();
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed())?;
        *port = listener.local_addr().map_err(failed())?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// What the members do by hand with `charter` and `init`.
fn found(folder: &Folder, ports: &Ports) -> Result<(), Failure> {
    let founders = (1..=FOUNDERS).map(|number| keys::create_founder(&folder.founder_key(number)));
    let founders = founders.collect::<Result<Vec<_>, _>>()?;
    let public: Vec<_> = founders.iter().map(ed25519_dalek::SigningKey::verifying_key).collect();
    let nonce = clock::random();
    let mut file = drafting::found("Demo Forum", &public, THRESHOLD, nonce, clock::now())?;
    for (number, (member, port)) in MEMBERS.iter().zip(ports).enumerate() {
        let data = folder.of(number);
        init::create_folder(&data)?;
        let terms = keys::CertificateTerms::usual(member.name, clock::now());
        let node_keys = keys::NodeKeys::create(&data.join(init::KEYS_FOLDER), &terms)?;
        let applicant = Applicant {
            binding: Binding::Founding(nonce),
            member: MemberId(clock::random()),
            name: member.name.to_owned(),
            group: member.group.to_owned(),
            jurisdictions: vec![member.jurisdiction.to_owned()],
            languages: Vec::new(),
            pins: vec![node_keys.tls.pin()],
            endpoints: vec![format!("127.0.0.1:{port}")],
            seal_key: node_keys.seal.as_ref().and_then(SealSecret::public),
        };
        let request = init::write_node(&data, &applicant, &node_keys)?;
        file = drafting::admit(&file, &request, Some(member.roles), clock::now())?;
        let settings = format!("[peer]\nlisten = \"127.0.0.1:{port}\"\n\n[web]\nlisten = \"127.0.0.1:0\"\n");
        fs::write(data.join(CONFIG_FILE), settings).map_err(io_failure(data.display().to_string()))?;
    }
    for founder in founders.iter().take(THRESHOLD as usize) {
        file = drafting::sign(&file, founder)?;
    }
    let invitation = Invitation::of(&drafting::chain(&file)?);
    MEMBERS
        .iter()
        .try_for_each(|member| Ok(invitation.write(&folder.path.join(member.name).join(init::INVITATION_FILE))?))
}

/// Starts this very program as a node. Its stdin is ours: when we end, however that happens, it ends too.
fn spawn(data: &Path) -> Result<Child, Failure> {
    let program = std::env::current_exe().map_err(io_failure("cannot find this program"))?;
    let log = fs::OpenOptions::new().create(true).append(true).open(data.join(NODE_LOG));
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("STAYDOWN_")) {
        command.env_remove(name);
    }
    command
        .arg("--data")
        .arg(data)
        .args(["run", "--exit-with-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log.map_err(io_failure(data.display().to_string()))?)
        // Ctrl-C is for us: we stop the nodes in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(io_failure("cannot start a node"))
}

async fn reach(child: &mut Child, data: &Path) -> Result<Node, Failure> {
    let socket = data.join(crate::config::SOCKET_FILE);
    let started = clock::instant();
    loop {
        match Node::connect(&socket).await {
            Ok(node) => return Ok(node),
            Err(failure) if started.elapsed() > START_MAX => return Err(failure),
            Err(_not_yet) => {}
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(Failure::new(Exit::Failed, format!("the node in {} ended at once: {status}", data.display())));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn connected(node: &Node, name: &str) -> Result<(), Failure> {
    let others = u32::try_from(MEMBERS.len() - 1).unwrap_or(u32::MAX);
    until(&format!("{name} is connected to all others and may sign"), START_MAX, async || {
        let status = node.status(local::StatusRequest {}).await?;
        let ready = status.peers_connected >= others && !status.guard_pending;
        Ok(ready.then_some(()).ok_or(format!("{} of {others} peers connected", status.peers_connected)))
    })
    .await
}

/// Asks again and again until the answer is there, or the deadline has passed: then the check has failed.
async fn until<T>(
    what: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Result<Result<T, String>, Failure>,
) -> Result<T, Failure> {
    let started = clock::instant();
    loop {
        let waiting_for = match ask().await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(waiting_for)) => waiting_for,
            Err(failure) => failure.cause,
        };
        if started.elapsed() > limit {
            let cause = format!("check failed: {what}");
            let failure =
                Failure::new(Exit::Failed, cause).culprit(format!("after {} s: {waiting_for}", limit.as_secs()));
            return Err(failure);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The last words of the nodes, for who has to find out.
fn with_logs(mut failure: Failure, folder: &Folder) -> Failure {
    for (index, member) in MEMBERS.iter().enumerate() {
        let log = fs::read_to_string(folder.of(index).join(NODE_LOG)).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        for line in &lines[lines.len().saturating_sub(LOG_TAIL)..] {
            failure.culprits.push(format!("{}: {}", member.name, show::clean(line)));
        }
    }
    failure
}

/// One image of the story.
#[derive(Default)]
struct Sample {
    hashes: Vec<Hash>,
}

/// Tells each step with the time that it took.
struct Teller {
    terminal: Terminal,
    since: Instant,
}

impl Teller {
    fn step(&mut self, text: &str) -> Result<(), Failure> {
        let ms = self.since.elapsed().as_millis();
        self.since = clock::instant();
        self.terminal.data(format!("{ms:>7} ms  {text}"))
    }
}

async fn tell(forum: &mut Forum, folder: &Folder, args: &DemoArgs, at: &Invocation) -> Result<(), Failure> {
    let mut teller = Teller { terminal: at.terminal, since: clock::instant() };
    let Drawn { samples, copy, parody } = draw(&folder.samples())?;
    teller.step(&format!("drew {SAMPLES} sample images and an altered copy of the first"))?;

    let terms = Terms { labels: vec!["symbol".to_owned()], severity: 2, ..Terms::default() };
    for sample in &samples {
        let statements = sample.hashes.iter().map(|hash| statement(hash, &terms, clock::random(), None)).collect();
        say(forum.node(ACME), statements).await?;
    }
    teller.step(&format!("acme submitted {SAMPLES} sample images; each is signed and on its disk"))?;
    for (company, sample) in [BOLT, CYAN].into_iter().flat_map(|c| samples.iter().map(move |s| (c, s))) {
        matches(forum.node(company), MEMBERS[company].name, sample).await?;
    }
    teller.step(&format!("all {SAMPLES} match at bolt and cyan"))?;

    let mut entries = Vec::new();
    for company in [BOLT, CYAN] {
        let name = MEMBERS[company].name;
        let found = check_copy(forum.node(company), name, &copy, local::Verdict::Review, &["acme"]).await?;
        teller.step(&format!("a re-encoded, smaller, cropped copy of the first at {name}: {found}"))?;
    }
    let answer = lookup(forum.node(BOLT), &copy).await?;
    entries.extend(answer.matches.into_iter().filter_map(|found| found.entry));
    say(forum.node(BOLT), answers(&entries, local::Stance::Endorse)).await?;
    let found = check_copy(forum.node(CYAN), "cyan", &copy, local::Verdict::Block, &["acme", "bolt"]).await?;
    teller.step(&format!("bolt endorsed it; the same copy at cyan now: {found}"))?;
    Box::pin(story::tell(forum, &parody, &samples[1], &mut teller)).await?;
    if !args.once {
        return Ok(());
    }

    let listed: Vec<_> = samples.iter().flat_map(|sample| &sample.hashes).map(withdrawn).collect();
    say(forum.node(ACME), listed).await?;
    let endorsed = samples[1].hashes.iter().map(withdrawn);
    say(forum.node(BOLT), answers(&entries, local::Stance::Neutral).into_iter().chain(endorsed).collect()).await?;
    for company in COMPANIES {
        for sample in samples.iter().chain([&copy]) {
            matches_no_more(forum.node(company), MEMBERS[company].name, sample).await?;
        }
    }
    teller.step("acme and bolt withdrew; nothing of it matches anywhere any more")?;

    let acknowledged = kill_amid_submissions(forum).await?;
    teller.step(&format!("cyan was killed (SIGKILL) amid submissions, {} of them acknowledged", acknowledged.len()))?;
    restart(forum, folder, CYAN).await?;
    teller.step("cyan runs again, and its peers have confirmed its logs")?;
    for company in [CYAN, ACME, BOLT] {
        nothing_lost(forum.node(company), MEMBERS[company].name, &acknowledged).await?;
    }
    teller.step(
        "nothing acknowledged was lost: all of it is on the lists of cyan, acme and bolt, where the receipts say",
    )?;

    let digest = same_view(forum).await?;
    teller.step(&format!("all five show the same view, digest {}..", show::short(&digest)))?;
    for (member, running) in MEMBERS.iter().zip(&forum.members) {
        verified(&running.node, member.name).await?;
    }
    teller.step("every signature, chain and root of all logs verifies at all five")
}

/// The images of the story.
struct Drawn {
    samples: Vec<Sample>,
    /// The first of them, altered.
    copy: Sample,
    parody: Sample,
}

/// The altered copy and the parody, among [`pictures`].
const COPY: &str = "poster-cropped.jpg";
const PARODY: &str = "parody.jpg";

/// The images of the story, written where people can use them.
fn draw(folder: &Path) -> Result<Drawn, Failure> {
    let mut drawn = Drawn { samples: Vec::new(), copy: Sample::default(), parody: Sample::default() };
    for (name, bytes) in pictures(folder)? {
        let hashes = of_file(&hashing::hash_bytes(&bytes).map_err(undrawn)?);
        let sample = Sample { hashes: hashes.into_iter().filter(|hash| !hash.is_poor()).collect() };
        match name.as_str() {
            COPY => drawn.copy = sample,
            PARODY => drawn.parody = sample,
            _ => drawn.samples.push(sample),
        }
    }
    Ok(drawn)
}

/// Draws the images, and writes them into `folder`: name and bytes of each.
fn pictures(folder: &Path) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    init::create_folder(folder)?;
    let (width, height) = SAMPLE_SIDES;
    let poster = |number| hashing::drawn::poster(number, width, height);
    let jpeg = |number| hashing::drawn::jpeg_bytes(&poster(number), SAMPLE_QUALITY).map_err(undrawn);
    let name = |number| if number == 1 { "poster.jpg".to_owned() } else { format!("poster-{number:02}.jpg") };
    let mut all = (1..=SAMPLES).map(|number| Ok((name(number), jpeg(number)?))).collect::<Result<Vec<_>, Failure>>()?;
    all.push((COPY.to_owned(), hashing::drawn::altered_copy(&poster(1)).map_err(undrawn)?));
    all.push((PARODY.to_owned(), jpeg(SAMPLES + 1)?));
    for (name, bytes) in &all {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(io_failure(path.display().to_string()))?;
    }
    Ok(all)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn undrawn(error: hashing::ImageError) -> Failure {
    Failure::new(Exit::Bug, format!("a sample image cannot be drawn: {error}"))
}

/// Our own statements of `stance` on entries that are listed.
fn answers(entries: &[local::Entry], stance: local::Stance) -> Vec<local::Statement> {
    let answer = |entry: &local::Entry| local::Statement {
        signal: entry.signal.clone(),
        stance: stance as i32,
        labels: if stance == local::Stance::Endorse { entry.labels.clone() } else { Vec::new() },
        client_key: clock::random::<16>().to_vec().into(),
        ..Default::default()
    };
    entries.iter().map(answer).collect()
}

fn withdrawn(hash: &Hash) -> local::Statement {
    local::Statement {
        signal: Some(hash.signal()),
        stance: local::Stance::Neutral as i32,
        client_key: clock::random::<16>().to_vec().into(),
        ..Default::default()
    }
}

async fn say(node: &Node, statements: Vec<local::Statement>) -> Result<local::SubmitResponse, Failure> {
    node.submit(local::SubmitRequest { statements, lane: local::Lane::Normal as i32, ..Default::default() }).await
}

async fn lookup(node: &Node, sample: &Sample) -> Result<local::LookupResponse, Failure> {
    let signals = sample.hashes.iter().map(Hash::signal).collect();
    node.lookup(local::LookupRequest { signals, ..Default::default() }).await
}

async fn matches(node: &Node, name: &str, sample: &Sample) -> Result<(), Failure> {
    let wanted = sample.hashes.len();
    until(&format!("all hashes of a submitted image match at {name}"), STEP_MAX, async || {
        let found = lookup(node, sample).await?.matches.iter().filter(|found| found.distance == 0).count();
        Ok((found >= wanted).then_some(()).ok_or(format!("{found} of {wanted} hashes match")))
    })
    .await
}

async fn matches_no_more(node: &Node, name: &str, sample: &Sample) -> Result<(), Failure> {
    until(&format!("nothing that was withdrawn matches at {name}"), STEP_MAX, async || {
        let answer = lookup(node, sample).await?;
        let gone = answer.matches.is_empty() && answer.verdict() == local::Verdict::Allow;
        Ok(gone.then_some(()).ok_or(format!("{} matches are left", answer.matches.len())))
    })
    .await
}

/// The altered copy gets this verdict, at a distance, and it is said who says so.
async fn check_copy(
    node: &Node,
    name: &str,
    copy: &Sample,
    verdict: local::Verdict,
    by: &[&str],
) -> Result<String, Failure> {
    let wanted = crate::answers::verdict(verdict);
    until(&format!("the altered copy is {wanted} at {name}"), STEP_MAX, async || {
        let answer = lookup(node, copy).await?;
        let got = crate::answers::verdict(answer.verdict());
        let Some(found) = answer.matches.first() else { return Ok(Err("it does not match".to_owned())) };
        let said = found.entry.iter().flat_map(|entry| &entry.said);
        let who: Vec<_> =
            said.clone().map(|said| format!("{} ({})", said.member, said.jurisdictions.join(", "))).collect();
        let all_said = by.iter().all(|name| said.clone().any(|said| said.member == *name));
        if answer.verdict() == verdict && all_said && found.distance > 0 && found.distance <= found.threshold {
            return Ok(Ok(format!(
                "{got}, distance {} of {}, said by {}",
                found.distance,
                found.threshold,
                who.join(" and ")
            )));
        }
        Ok(Err(format!("{got}, distance {}, said by {}", found.distance, who.join(" and "))))
    })
    .await
}

/// A submission that was acknowledged, and where its receipt says that it stands: (log, block, record). None for one
/// that was acknowledged as queued.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Acknowledged {
    value: String,
    place: Option<(u32, u64, u32)>,
}

async fn kill_amid_submissions(forum: &mut Forum) -> Result<Vec<Acknowledged>, Failure> {
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut submitters = JoinSet::new();
    for _ in 0..SUBMITTERS {
        submitters.spawn(submit_until_it_fails(forum.node(CYAN).clone(), Arc::clone(&acknowledged)));
    }
    let count = || acknowledged.lock().map_or(0, |all| all.len());
    let enough = until("cyan acknowledges submissions", STEP_MAX, async || {
        Ok((count() >= ACKNOWLEDGED_MIN).then_some(()).ok_or(format!("{} acknowledged", count())))
    });
    enough.await?;
    // On Unix this is SIGKILL: no destructor, no flush, no goodbye.
    forum.members[CYAN].child.kill().await.map_err(io_failure("cannot kill the node of cyan"))?;
    while submitters.join_next().await.is_some() {}
    let all = acknowledged.lock().map(|all| all.clone()).unwrap_or_default();
    Ok(all)
}

async fn submit_until_it_fails(node: Node, acknowledged: Arc<Mutex<Vec<Acknowledged>>>) {
    let terms = Terms { labels: vec!["other".to_owned()], ..Terms::default() };
    loop {
        let value = hex(&clock::random::<32>());
        let hash = Hash { type_name: "sha256".to_owned(), value: value.clone(), quality: None };
        let Ok(answer) = say(&node, vec![statement(&hash, &terms, clock::random(), None)]).await else { return };
        let place = answer.receipts.first().map(|receipt| (receipt.log_no, receipt.seq, receipt.index));
        if let Ok(mut all) = acknowledged.lock() {
            all.push(Acknowledged { value, place });
        }
    }
}

async fn restart(forum: &mut Forum, folder: &Folder, company: usize) -> Result<(), Failure> {
    let data = folder.of(company);
    let mut child = spawn(&data)?;
    let node = reach(&mut child, &data).await?;
    let running = &mut forum.members[company];
    debug_assert_eq!(running.data, data, "a node comes back where it was");
    running.child = child;
    running.node = node;
    connected(&running.node, MEMBERS[company].name).await
}

/// Everything acknowledged is listed as said by cyan, at the place that its receipt names.
async fn nothing_lost(node: &Node, name: &str, acknowledged: &[Acknowledged]) -> Result<(), Failure> {
    until(&format!("everything that cyan acknowledged is on the list of {name}"), STEP_MAX, async || {
        let listed = said_by_cyan(node).await?;
        let is_lost = |wanted: &&Acknowledged| {
            !listed
                .iter()
                .any(|held| held.value == wanted.value && wanted.place.is_none_or(|place| held.place == Some(place)))
        };
        let lost: Vec<_> = acknowledged.iter().filter(is_lost).collect();
        Ok(match lost.first() {
            None => Ok(()),
            Some(first) => Err(format!("{} are missing, the first is sha256:{}", lost.len(), first.value)),
        })
    })
    .await
}

async fn said_by_cyan(node: &Node) -> Result<Vec<Acknowledged>, Failure> {
    let mut request = local::ListEntriesRequest {
        page_size: 1_000,
        r#type: "sha256".into(),
        member: "cyan".into(),
        ..Default::default()
    };
    let mut all = Vec::new();
    loop {
        let page = node.entries(request.clone()).await?;
        for entry in page.entries {
            let said = entry.said.iter().find(|said| said.member == "cyan");
            let place = said.map(|said| (said.log_no, said.seq, said.index));
            all.push(Acknowledged { value: entry.signal.unwrap_or_default().value, place });
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return Ok(all);
        }
    }
}

async fn same_view(forum: &Forum) -> Result<Vec<u8>, Failure> {
    until("all five show the same view digest", STEP_MAX, async || {
        let mut views = Vec::new();
        for running in &forum.members {
            let status = running.node.status(local::StatusRequest {}).await?;
            views.push((status.view_hour_ms, status.view_digest));
        }
        let same = views.iter().all(|view| *view == views[0] && !view.1.is_empty());
        Ok(if same {
            Ok(views[0].1.to_vec())
        } else {
            Err(format!("{:?}", views.iter().map(|v| show::short(&v.1)).collect::<Vec<_>>()))
        })
    })
    .await
}

async fn verified(node: &Node, name: &str) -> Result<(), Failure> {
    let verified = node.verify(local::VerifyLogRequest {}).await?;
    if verified.first_break.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("check failed: the logs verify at {name}")).culprit(verified.first_break))
}

fn invite_to_try(folder: &Folder, terminal: Terminal) {
    let samples = folder.samples();
    let (copy, poster) = (samples.join(COPY), samples.join("poster.jpg"));
    let end = if folder.keep {
        "Ctrl-C stops everything; the data stay."
    } else {
        "Ctrl-C stops everything and deletes the data (--keep keeps it)."
    };
    let program = program_name();
    terminal.talk(format!(
        "\nTry, in another terminal:\n  {program} --demo bolt match {}\n  {program} --demo cyan entry dispute {} --reason news-reporting\n  {program} --demo cyan list search\n  {program} --demo acme review list\n{end}",
        copy.display(),
        poster.display(),
    ));
}

/// How people can call this program again: by its name if they can, else by its path.
fn program_name() -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    match (Path::new(&called).components().count(), std::env::current_exe()) {
        (2.., Ok(program)) => program.display().to_string(),
        _ => "staydown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn companies_found_a_forum_that_verifies() {
        let dir = tempfile::tempdir().unwrap();
        let lock = store::lock_directory(dir.path()).unwrap();
        let folder = Folder { path: dir.path().to_owned(), keep: true, _lock: lock };
        found(&folder, &[1, 2, 3, 4, 5]).unwrap();
        let invitation = Invitation::read(&folder.of(ACME).join(init::INVITATION_FILE)).unwrap();
        let chain = invitation.verify(invitation.forum).unwrap();
        assert_eq!((chain.effective().members.len(), chain.effective().full_groups()), (5, 3));
        assert_eq!(chain.effective().member_named("bolt").unwrap().endpoints, ["127.0.0.1:2"]);
    }

    #[test]
    fn the_altered_copy_is_near_and_not_equal() {
        let dir = tempfile::tempdir().unwrap();
        let lock = store::lock_directory(dir.path()).unwrap();
        let folder = Folder { path: dir.path().to_owned(), keep: true, _lock: lock };
        let Drawn { samples, copy, parody } = draw(&folder.samples()).unwrap();
        assert_eq!(samples.len(), 12);
        let pdq = |sample: &Sample| -> [u8; 32] {
            let hash = sample.hashes.iter().find(|hash| hash.type_name == "pdq").unwrap();
            data_encoding::HEXLOWER.decode(hash.value.as_bytes()).unwrap().try_into().unwrap()
        };
        let distances: Vec<_> =
            samples.iter().chain([&parody]).map(|s| crate::replica::signal::distance(&pdq(s), &pdq(&copy))).collect();
        assert!((1..=31).contains(&distances[0]), "{distances:?}");
        assert!(distances[1..].iter().all(|distance| *distance > 31), "{distances:?}");
    }

    #[test]
    fn a_folder_that_no_demo_made_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), "x").unwrap();
        let is_foreign = dir.path().exists() && !dir.path().join(MARK_FILE).is_file();
        assert!(is_foreign);
    }

    #[tokio::test]
    async fn a_check_that_never_holds_fails_with_what_it_waited_for() {
        let told =
            until("it holds", Duration::ZERO, async || Ok(Err::<(), _>("not yet".to_owned()))).await.unwrap_err();
        assert_eq!((told.exit, told.cause.as_str()), (Exit::Failed, "check failed: it holds"));
        assert_eq!(told.culprits, ["after 0 s: not yet"]);
    }

    #[test]
    fn ports_are_different_ones() {
        let ports = free_ports().unwrap();
        assert_eq!(ports.iter().collect::<std::collections::BTreeSet<_>>().len(), MEMBERS.len());
    }
}
