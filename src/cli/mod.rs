//! The command line: one file per noun. Parses, runs one command, returns an exit code.

pub mod failure;
pub mod show;
pub mod terminal;

mod backfill;
mod backup;
mod batch;
mod catalogue;
mod cert;
mod charter;
mod check;
mod client;
mod config;
mod demo;
mod doctor;
mod drafting;
mod entry;
mod evidence;
mod export;
mod foreign;
mod hash;
mod incident;
mod init;
mod item;
mod join;
mod key;
mod list;
mod log;
mod lookup;
mod man;
mod member;
mod peer;
mod policy;
mod referral;
mod report;
mod resource;
mod review;
mod rows;
mod run;
mod status;
mod submit;
mod taxonomy;
mod token;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use self::client::Node;
use self::failure::{Exit, Failure, Outcome, io_failure};
use self::terminal::Terminal;
use crate::config::{Above, Config};

/// Folder of a running demo, inside the system's folder for temporary files.
pub const DEMO_FOLDER: &str = "staydown-demo";

/// The node of an industry forum that shares hashes of terrorist content: signed, without an operator.
#[derive(Parser)]
#[command(name = "staydown", version, max_term_width = 120, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Args, Clone, Debug)]
struct Globals {
    /// Data directory of the node [default: ~/.local/share/staydown]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Settings file [default: staydown.toml in the data directory]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Unix socket of the node [default: local.sock in the data directory]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// A company of the running demo, instead of --data
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "data")]
    demo: Option<String>,
    /// Write data, and errors, as JSON on stdout
    #[arg(long, global = true)]
    json: bool,
    /// Say nothing beside data and errors
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Answer every question with yes
    #[arg(long, short, global = true)]
    yes: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Run a throw-away forum of three companies on this machine
    Demo(demo::DemoArgs),
    /// Create this node: its keys, and the request to be admitted
    Init(init::InitArgs),
    /// Join the forum of an invitation
    Join(join::JoinArgs),
    /// Run the node until it is told to stop
    Run(run::RunArgs),
    /// Copy this node, running or not: what nobody else has
    Backup(backup::BackupArgs),
    /// Put a backup into a data directory, marked so that the node asks its peers before it signs
    Restore(backup::RestoreArgs),
    /// Show the state of the node
    Status,
    /// Look at everything that a node needs, running or not, and say what to do
    Doctor,
    /// One line and an exit code for monitoring: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN
    Check,
    /// Compute the hashes of files; nothing is sent
    Hash(hash::HashArgs),
    /// Sign hashes and share them; files are never sent
    Submit(submit::SubmitArgs),
    /// Show what was imported, and take a whole import back
    #[command(subcommand)]
    Batch(batch::BatchCommand),
    /// Look up whether something is listed, and who says so
    Match(lookup::MatchArgs),
    /// Show one entry, and say what our company thinks of it
    #[command(subcommand)]
    Entry(entry::EntryCommand),
    /// Work off what waits for a person: disputes, conflicts, referrals, what ends
    #[command(subcommand)]
    Review(review::ReviewCommand),
    /// Refer something to the companies, as a referral unit; see what became of referrals
    #[command(subcommand)]
    Referral(referral::ReferralCommand),
    /// Open and close an incident: an attack in progress
    #[command(subcommand)]
    Incident(incident::IncidentCommand),
    /// Certified counter-narratives, offered with matches
    #[command(subcommand)]
    Resource(resource::ResourceCommand),
    /// Query the list
    #[command(subcommand)]
    List(list::ListCommand),
    /// Found a forum and govern it, by a threshold of founders
    #[command(subcommand)]
    Charter(charter::CharterCommand),
    /// Show the companies of the forum; as a steward, suspend one
    #[command(subcommand)]
    Member(member::MemberCommand),
    /// Show the connections to the other members
    #[command(subcommand)]
    Peer(peer::PeerCommand),
    /// Show, check and test what our company makes of matches
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Show the forum's labels; check the file that says what they mean
    #[command(subcommand)]
    Taxonomy(taxonomy::TaxonomyCommand),
    /// Check the logs of all members, and end our own
    #[command(subcommand)]
    Log(log::LogCommand),
    /// Write what is said of a hash, with all signatures, into a file that anybody can check
    Receipt(evidence::ReceiptArgs),
    /// Check a receipt or an exported list; needs no node
    Verify(evidence::VerifyArgs),
    /// Write the transparency report of a period, the same at every member
    Report(report::ReportArgs),
    /// Show and change the keys of this node
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Show and renew the certificate of this node
    #[command(subcommand)]
    Cert(cert::CertCommand),
    /// Show how this node is set up, and where each setting comes from
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Write a manual page for each command, and one for the settings file
    Man(man::ManArgs),
    /// Let people and programs of our company reach this node over TCP: console, HTTP API, gRPC
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Show who of our company did what
    #[command(subcommand)]
    Audit(token::AuditCommand),
    /// Write the OpenAPI document of the HTTP API
    Openapi,
    /// Write a completion script for a shell
    Completions {
        /// bash, zsh, fish, elvish, powershell
        shell: clap_complete::Shell,
    },
}

/// One command with its flags.
struct Invocation {
    globals: Globals,
    terminal: Terminal,
}

impl Invocation {
    /// The settings, from all their places.
    fn config(&self) -> Result<Config, Failure> {
        self.config_with(None)
    }

    /// The same with one more flag: the key that it sets, its name, its value.
    fn config_with(&self, flag: Option<(&'static str, &'static str, String)>) -> Result<Config, Failure> {
        let mut above = Above { file: self.globals.config.clone(), ..Above::from_process() };
        above.data = match &self.globals.demo {
            Some(name) => Some(demo_folder(&demo::parent_folder(), name)?),
            None => self.globals.data.clone(),
        };
        if let Some(socket) = &self.globals.socket {
            above.flags.push(("local.socket", "--socket", socket.display().to_string()));
        }
        above.flags.extend(flag);
        Ok(Config::load(&above)?)
    }

    /// The running node.
    async fn node(&self) -> Result<Node, Failure> {
        Node::connect(&self.config()?.local.socket).await
    }
}

/// The data directory of a member of the running demo.
fn demo_folder(parent: &Path, name: &str) -> Result<PathBuf, Failure> {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let folder = parent.join(name);
    if plain && folder.is_dir() {
        return Ok(folder);
    }
    let names = demo::MEMBERS.map(|member| member.name).join(", ");
    if parent.is_dir() {
        let cause = format!("the demo has no member {name:?}, expected one of {names}");
        return Err(Failure::new(Exit::Usage, cause));
    }
    Err(Failure::new(Exit::Unreachable, "no demo is running").fix("staydown demo (in another terminal)"))
}

/// Runs the command that `arguments` (with the program's name first) ask for.
pub fn main(arguments: &[OsString]) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, arguments),
    };
    let Globals { json, quiet, yes, .. } = cli.globals;
    let terminal = Terminal { json, quiet, yes };
    let outcome = execute(cli.command, &Invocation { globals: cli.globals, terminal });
    outcome.unwrap_or_else(|failure| {
        terminal.fail(&failure);
        failure.exit
    })
}

/// Help and version go to stdout and are no failure; everything else is one.
fn usage(error: &clap::Error, arguments: &[OsString]) -> Exit {
    let wants_json = arguments.iter().any(|argument| argument == "--json");
    if error.use_stderr() && wants_json {
        let text = error.render().to_string();
        let cause = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Terminal { json: true, quiet: true, yes: true }.fail(&Failure::new(Exit::Usage, cause));
    } else {
        drop(error.print());
    }
    if error.use_stderr() { Exit::Usage } else { Exit::Ok }
}

fn execute(command: Command, at: &Invocation) -> Outcome {
    if let Command::Completions { shell } = command {
        return completions(shell, at.terminal);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(io_failure("cannot start the runtime"))?;
    let outcome = runtime.block_on(Box::pin(dispatch(command, at)));
    // Hashing and reading files happen on threads that cannot be interrupted; nothing waits for them any more.
    runtime.shutdown_background();
    outcome
}

async fn dispatch(command: Command, at: &Invocation) -> Outcome {
    match command {
        Command::Demo(args) => Box::pin(demo::demo(&args, at)).await,
        Command::Init(args) => init::init(&args, at),
        Command::Join(args) => Box::pin(join::join(&args, at)).await,
        Command::Run(args) => Box::pin(run::run(&args, at)).await,
        Command::Backup(args) => Box::pin(backup::backup(&args, at)).await,
        Command::Restore(args) => backup::restore(&args, at),
        Command::Status => status::status(at).await,
        Command::Doctor => Box::pin(doctor::doctor(at)).await,
        Command::Check => check::check(at).await,
        Command::Hash(args) => hash::hash(&args, at),
        Command::Submit(args) => Box::pin(submit::submit(&args, at)).await,
        Command::Batch(command) => Box::pin(batch::batch(command, at)).await,
        Command::Match(args) => lookup::lookup(&args, at).await,
        Command::Entry(command) => Box::pin(entry::entry(command, at)).await,
        Command::Review(command) => Box::pin(review::review(command, at)).await,
        Command::Referral(command) => Box::pin(referral::referral(command, at)).await,
        Command::Incident(command) => Box::pin(incident::incident(command, at)).await,
        Command::Resource(command) => Box::pin(resource::resource(command, at)).await,
        Command::List(command) => list::list(command, at).await,
        Command::Charter(command) => Box::pin(charter::charter(command, at)).await,
        Command::Member(command) => Box::pin(member::member(command, at)).await,
        Command::Peer(command) => peer::peer(command, at).await,
        Command::Policy(command) => policy::policy(command, at).await,
        Command::Taxonomy(command) => taxonomy::taxonomy(command, at).await,
        Command::Log(command) => Box::pin(log::log(command, at)).await,
        Command::Receipt(args) => Box::pin(evidence::receipt(&args, at)).await,
        Command::Verify(args) => evidence::verify(&args, at),
        Command::Report(args) => Box::pin(report::report(&args, at)).await,
        Command::Key(command) => Box::pin(key::key(command, at)).await,
        Command::Cert(command) => cert::cert(&command, at),
        Command::Config(command) => config::config(&command, at),
        Command::Man(args) => man::man(&args, Cli::command(), at),
        Command::Token(command) => token::token(command, at).await,
        Command::Audit(command) => token::audit(command, at).await,
        Command::Openapi => openapi(at.terminal),
        Command::Completions { shell } => completions(shell, at.terminal),
    }
}

/// The document, as the node serves it under `/v1/openapi.json`.
fn openapi(terminal: Terminal) -> Outcome {
    let written = crate::web::api::document();
    terminal.data(written.map_err(|error| Failure::new(Exit::Bug, error.to_string()))?)?;
    Ok(Exit::Ok)
}

fn completions(shell: clap_complete::Shell, terminal: Terminal) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "staydown", &mut script);
    terminal.data(String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_of_the_readme_are_understood() {
        for line in [
            "staydown demo --once",
            "staydown init --founding draft.sdc --name acme --group Acme --jurisdiction FR --endpoint a.example.org:7700",
            "staydown init --forum 00 --name acme --group Acme --jurisdiction FR --jurisdiction BE --endpoint a:1 --language fr",
            "staydown init --forum 00 --name acme --group Acme --jurisdiction FR --endpoint a:1 --out -",
            "staydown charter key founder-1.pem",
            "staydown charter found --name X --founder a.pub b.pub c.pub --threshold 2 -o draft.sdc",
            "staydown charter admit a.sdj b.sdj --role FULL --into draft.sdc -o charter-1.sdc",
            "staydown charter sign charter-1.sdc --key founder-1.pem",
            "staydown charter show charter-1.sdc --diff",
            "staydown charter apply charter-2.sdc",
            "staydown charter invite --from charter-1.sdc -o invite.sdi",
            "staydown join invite.sdi --forum 00 --once",
            "staydown --demo bolt match samples/poster-copy.jpg --explain",
            "staydown submit a.jpg b.png --label propaganda --label symbol --severity 3 --language fr --expires 90d --wait-peers 2",
            "staydown submit --from list.csv --bulk",
            "staydown submit --from list.csv --check",
            "staydown submit --from list.txt --format local-file --label symbol --quality 90 --batch daily --rejected no.txt",
            "staydown batch list --json",
            "staydown batch undo 0011223344556677 --reason mistake --dry-run",
            "staydown review undo daily",
            "staydown list export -o list.jsonl --status ACTIVE --label symbol --language fr --member acme --type pdq",
            "staydown list export --format threatexchange --all",
            "staydown entry dispute sha256:ab --reason news-reporting",
            "staydown entry show sha256:ab --receipts --json",
            "staydown entry endorse sha256:ab --label symbol --basis human-review --confidence 90 --review 90d",
            "staydown entry retract sha256:ab --reason mistake",
            "staydown entry retract sha256:ab --no",
            "staydown entry allow a.jpg --expires 400d --certificate 7",
            "staydown entry allow a.jpg --no",
            "staydown entry preserve sha256:ab --until 90d --contact legal-process",
            "staydown entry outcome sha256:ab removed --acted 1795000000000",
            "staydown referral open a.jpg --authority referral-unit --jurisdiction FR --deadline 12h",
            "staydown referral close sha256:ab",
            "staydown referral list --state OPEN --limit 5",
            "staydown incident open --label livestreamed-attack --level 4 --closes 2d",
            "staydown incident close 00112233445566778899aabbccddeeff",
            "staydown incident list --json",
            "staydown review list --kind conflict --language fr",
            "staydown review decide referral-0011223344556677 endorse --label symbol",
            "staydown review decide disputed-own-0011223344556677 withdraw --reason mistake",
            "staydown resource add https://example.org/voices --label recruitment --language fr --expires 90d",
            "staydown resource remove https://example.org/voices",
            "staydown resource list --label recruitment --language fr",
            "staydown list search --type pdq --status ACTIVE --label symbol --member acme --limit 5",
            "staydown list search --all",
            "staydown list watch --list --type sha256 --json",
            "staydown list watch --from AbC-_9",
            "staydown key show",
            "staydown key rotate --tls --out change.sdj",
            "staydown key rotate --log",
            "staydown cert renew",
            "staydown backup copy --keys",
            "staydown restore copy",
            "staydown charter admit acme.sdj --new-key --heads heads.json",
            "staydown charter suspend acme -o charter-3.sdc",
            "staydown charter suspend acme --heads heads.json --into charter-3.sdc",
            "staydown charter reinstate acme --keep-cutoffs",
            "staydown charter expel acme --keep --reason key-compromise",
            "staydown charter expel acme --void --reason court-or-law",
            "staydown charter leave acme --after invite.sdi",
            "staydown charter set-role acme --role FULL,STEWARD",
            "staydown charter set-policy --retract-min 3 --quota-bulk 9 --log-bytes-max 9GiB --auditors-attest true",
            "staydown charter set-semantics 2",
            "staydown charter set-member acme --group A --jurisdictions FR,DE --language fr de --log-limit 20",
            "staydown charter set-member acme --endpoint a.example.org:7700 --drop-pin 01234567",
            "staydown charter renew --days 400",
            "staydown charter cutoff acme 0 --at 17 --hash 00",
            "staydown charter cutoff acme 0 --now",
            "staydown charter erase acme/0@12 4 --reason court-or-law",
            "staydown charter rotate-founder 01234567 new.pub",
            "staydown charter set-founders --add a.pub b.pub --remove 01234567 --threshold 3",
            "staydown member list",
            "staydown member show acme",
            "staydown peer list",
            "staydown policy show",
            "staydown policy show --built-in",
            "staydown policy check policy.toml",
            "staydown policy test cases.toml --policy policy.toml",
            "staydown taxonomy show",
            "staydown taxonomy check taxonomy.toml --against taxonomy-1.toml",
            "staydown taxonomy export --example -o taxonomy.toml",
            "staydown charter set-taxonomy taxonomy.toml --into charter-3.sdc",
            "staydown member suspend acme --days 3 --reason key-compromise",
            "staydown log close --reason other",
            "staydown log heads acme",
            "staydown log record acme/0@12 4",
            "staydown log verify",
            "staydown log export list.sde",
            "staydown receipt sha256:ab -o receipt.sde",
            "staydown receipt acme/0@12#4",
            "staydown verify list.sde --forum 00",
            "staydown report --from 2026-07-01 --to 2026-10-01 --format html -o q3.html --local",
            "staydown report --from 2026-07-01T06:00:00Z --to now --open",
            "staydown token new --name anna --role reviewer --expires 90d",
            "staydown token new --name uploads --scope lookup,submit",
            "staydown token list --json",
            "staydown token revoke anna",
            "staydown audit export --from 2026-11-01",
            "staydown completions bash",
            "staydown config show",
            "staydown config show --effective --json",
            "staydown config example -o staydown.toml",
            "staydown doctor --json",
            "staydown check",
            "staydown man -o /usr/share/man/man1",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).err().unwrap());
        }
    }

    #[test]
    fn senseless_command_lines_are_usage_errors() {
        for line in [
            "staydown",
            "staydown fly",
            "staydown init --name acme",
            "staydown submit",
            "staydown submit a.jpg --incident 00 --bulk",
            "staydown entry dispute",
            "staydown entry allow sha256:ab",
            "staydown entry allow sha256:ab --no --expires 9d",
            "staydown entry retract sha256:ab --no --reason mistake",
            "staydown entry preserve sha256:ab",
            "staydown incident open --label symbol",
            "staydown resource add https://example.org",
            "staydown review decide referral-0011223344556677",
            "staydown review decide referral-0011223344556677 burn",
            "staydown charter expel acme --reason other",
            "staydown charter expel acme --keep --void --reason other",
            "staydown charter expel acme --keep",
            "staydown charter cutoff acme 0",
            "staydown charter cutoff acme 0 --at 3",
            "staydown charter cutoff acme 0 --at 3 --hash 00 --now",
            "staydown charter renew",
            "staydown charter leave acme --after a.sdc --into b.sdc",
            "staydown charter set-role acme",
            "staydown taxonomy check",
            "staydown charter set-taxonomy",
            "staydown member suspend acme --days 15 --reason other",
            "staydown member suspend acme --days 3",
            "staydown report --from 2026-07-01",
            "staydown report --from 2026-07-01 --to now --local",
            "staydown report --from 2026-07-01 --to now --format pdf",
            "staydown --demo a --data b status",
            "staydown match",
            "staydown verify list.sde",
            "staydown list watch --list --from AbC",
            "staydown key rotate",
            "staydown key rotate --tls --root",
            "staydown token new --name anna",
            "staydown token new --name anna --role root",
            "staydown token new --name anna --role viewer --scope lookup",
            "staydown token new --name anna --scope everything",
        ] {
            let arguments: Vec<_> = line.split(' ').map(OsString::from).collect();
            assert!(parse(line).is_err(), "{line}");
            assert_eq!(main(&arguments), Exit::Usage, "{line}");
        }
    }

    #[test]
    fn a_company_of_the_demo_is_a_plain_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("acme")).unwrap();
        assert_eq!(demo_folder(dir.path(), "acme").unwrap(), dir.path().join("acme"));
        for wrong in ["..", "", "acme/../acme", "delta"] {
            assert_eq!(demo_folder(dir.path(), wrong).unwrap_err().exit, Exit::Usage);
        }
        assert_eq!(demo_folder(&dir.path().join("none"), "acme").unwrap_err().exit, Exit::Unreachable);
    }
}
