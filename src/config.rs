//! The settings of a node: file, then environment, then flags; understood completely before anything opens.
//!
//! The file is `<data>/staydown.toml`, or the one that is named. Every key of it is an environment variable too
//! (`[peer] listen` is `STAYDOWN_PEER_LISTEN`). A key that nobody knows is refused with the nearest one that somebody
//! does: a misspelt setting that is quietly ignored is found out during an incident. All mistakes are told at once.

pub mod documented;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use toml::de::{DeTable, DeValue};

use crate::wire::endpoint::check_endpoint;

/// The settings of this machine's service: where a package puts them, and where commands look last.
pub const SYSTEM_FILE: &str = "/etc/staydown/staydown.toml";
/// How long what is under way may take when the node is told to stop, unless something else is set.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(10);
/// Longest drain, in seconds: no request of a node takes an hour.
pub const DRAIN_SECONDS_MAX: u64 = 3_600;
/// Mistakes that are told of: a file has as many lines as it likes, and nobody reads more.
const MISTAKES_TOLD_MAX: usize = 20;
/// Name of the settings file inside a data directory.
pub const CONFIG_FILE: &str = "staydown.toml";
/// A settings file is written by people; this is a hundred times what they write.
pub const CONFIG_SIZE_MAX: u64 = 256 * 1024;
/// Where browsers and programs of our own are awaited unless something else is set.
pub const WEB_LISTEN_DEFAULT: &str = "127.0.0.1:7701";
/// Where peers are awaited unless something else is set.
pub const LISTEN_DEFAULT: &str = "0.0.0.0:7700";
/// Name of the local socket inside a data directory.
pub const SOCKET_FILE: &str = "local.sock";
/// Name of the company's own policy inside a data directory.
pub const POLICY_FILE: &str = "policy.toml";
/// Mode of the local socket: its owner alone, until the company names others.
pub const SOCKET_MODE_DEFAULT: u32 = 0o600;

const DATA: &str = "data";
const LISTEN: &str = "peer.listen";
const ENDPOINTS: &str = "peer.endpoints";
const SOCKET: &str = "local.socket";
const MODE: &str = "local.mode";
const GROUP: &str = "local.group";
const FILTER: &str = "log.filter";
const FORMAT: &str = "log.format";
const OTLP: &str = "log.otlp_endpoint";
const POLICY: &str = "policy.file";
const SHADOW: &str = "policy.shadow";
const HARMLESS: &str = "guard.harmless";
const WEB_LISTEN: &str = "web.listen";
const CERTIFICATE: &str = "web.certificate";
const KEY: &str = "web.key";
const PLAINTEXT: &str = "web.allow_plaintext";
const HOSTS: &str = "web.hosts";
const DRAIN: &str = "run.drain_seconds";
/// What `web.listen` says where there is to be no such listener.
const OFF: &str = "off";

/// Every key, as it is written in messages; the environment variable follows from it.
pub const KEYS: [&str; 18] = [
    DATA,
    LISTEN,
    ENDPOINTS,
    SOCKET,
    MODE,
    GROUP,
    WEB_LISTEN,
    CERTIFICATE,
    KEY,
    PLAINTEXT,
    HOSTS,
    FILTER,
    FORMAT,
    OTLP,
    POLICY,
    SHADOW,
    HARMLESS,
    DRAIN,
];

/// How this node is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The folder that holds everything of this node.
    pub data: PathBuf,
    /// Towards the other members.
    pub peer: PeerConfig,
    /// Towards our own people and programs.
    pub local: LocalConfig,
    /// Towards our own browsers, and programs on other machines.
    pub web: WebConfig,
    /// What the node says about itself.
    pub log: LogConfig,
    /// What our company makes of matches.
    pub policy: PolicyConfig,
    /// What our company never lists.
    pub guard: GuardConfig,
    /// How the process runs and ends.
    pub run: RunConfig,
    sources: BTreeMap<&'static str, Source>,
}

/// Towards the other members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Where peers are awaited.
    pub listen: SocketAddr,
    /// `host:port` by member name, instead of what the charter says.
    pub endpoints: BTreeMap<String, String>,
}

/// Towards our own people and programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalConfig {
    /// The Unix socket.
    pub socket: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Its group, by name or number; none: that of the process.
    pub group: Option<String>,
}

/// How the process runs and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunConfig {
    /// How long what is under way may take when the node is told to stop.
    pub drain: Duration,
}

/// Towards our own browsers, and programs on other machines: console, HTTP API, metrics, and gRPC with a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebConfig {
    /// Where they are awaited; none: nowhere.
    pub listen: Option<SocketAddr>,
    /// Certificate chain, PEM; none: no TLS here.
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
    /// Whether other machines may come without TLS: a proxy on this one ends it.
    pub allow_plaintext: bool,
    /// Names under which this listener is reached, beside its address and the names of loopback.
    pub hosts: Vec<String>,
}

impl WebConfig {
    /// What begins the address of the console, `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.certificate.is_some() { "https" } else { "http" }
    }
}

/// What the node says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Which events, as in `info,staydown::net=debug`.
    pub filter: String,
    /// In which form.
    pub format: LogFormat,
    /// The collector of OpenTelemetry that traces are sent to, in builds with the feature `otel`.
    pub otlp_endpoint: Option<String>,
}

/// What our company makes of matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyConfig {
    /// The file with its rules; none: [`POLICY_FILE`] in the data directory if there is one, or else the built-in rules.
    pub file: Option<PathBuf>,
    /// Whether verdicts are computed and counted, and answered ALLOW.
    pub shadow: bool,
}

/// What our company never lists, beside the shipped lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardConfig {
    /// A file of hashes, one a line; none: the shipped lists are all.
    pub harmless: Option<PathBuf>,
}

/// In which form log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// What stands above file and defaults: the environment and the command line.
#[derive(Clone, Debug, Default)]
pub struct Above {
    /// Variables that begin with `STAYDOWN_`, and `HOME` and `XDG_DATA_HOME`.
    pub environment: BTreeMap<String, String>,
    /// `--data`.
    pub data: Option<PathBuf>,
    /// `--config`.
    pub file: Option<PathBuf>,
    /// Read where nothing names a file or a data directory, and the user has none: [`SYSTEM_FILE`], if it is there.
    pub system: Option<PathBuf>,
    /// Other flags: the key that each sets, the flag, and its value.
    pub flags: Vec<(&'static str, &'static str, String)>,
}

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// A line of the settings file.
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// Why the settings cannot be used. Nothing was opened.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the settings in {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{}, line {line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser said.
        message: String,
    },
    /// A key that no release knows, or one that belongs elsewhere.
    #[error("{at}: there is no setting {key:?}; {}", Meant(nearest))]
    UnknownKey {
        /// Where it stands.
        at: Source,
        /// As it is written there.
        key: String,
        /// Known keys that it may stand for; none if it is like no other.
        nearest: Vec<String>,
    },
    /// A key that is a section.
    #[error(
        "{at}: {key} is a section and has no value of its own; write [{key}] on a line by itself, and its settings below"
    )]
    IsSection {
        /// Where it stands.
        at: Source,
        /// The section.
        key: String,
    },
    /// More than one mistake, by line.
    #[error("the settings have {} mistakes: {}", .0.len(), told(.0).join("; "))]
    Several(Vec<Self>),
    /// A value that the key cannot have.
    #[error("{at}: {key} is {got:?}, expected {expected}")]
    Value {
        /// Where it stands.
        at: Source,
        /// Which setting.
        key: &'static str,
        /// The value.
        got: String,
        /// What it may be.
        expected: String,
    },
    /// Tokens and cookies would cross a network in clear.
    #[error(
        "{at}: web.listen is {listen}, which other machines reach, and there is no TLS; fix: set web.certificate and web.key, or web.allow_plaintext = true where a proxy on this machine ends TLS"
    )]
    Plaintext {
        /// Where the address stands.
        at: Source,
        /// The address.
        listen: SocketAddr,
    },
    /// One half of what TLS needs.
    #[error("{at}: {there} is set and {missing} is not: TLS needs both")]
    Half {
        /// Where the one stands.
        at: Source,
        /// The one.
        there: &'static str,
        /// The other.
        missing: &'static str,
    },
    /// There is no home to put a data directory in.
    #[error("neither HOME nor XDG_DATA_HOME is set, so there is no default data directory; fix: --data DIR")]
    NoHome,
}

impl Above {
    /// The environment of this process. Names and values that are not Unicode are none of ours.
    pub fn from_process() -> Self {
        let ours = |name: &str| name.starts_with("STAYDOWN_") || name == "HOME" || name == "XDG_DATA_HOME";
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| ours(name))
            .collect();
        let system = Some(PathBuf::from(SYSTEM_FILE)).filter(|path| path.is_file());
        Self { environment, system, ..Self::default() }
    }

    /// The settings file that is named, or that of this machine's service where nothing of the user's own is there.
    fn named_file(&self) -> Option<PathBuf> {
        let named = self.file.clone().or_else(|| self.variable("STAYDOWN_CONFIG").map(PathBuf::from));
        if named.is_some() || self.data.is_some() || self.variable("STAYDOWN_DATA").is_some() {
            return named;
        }
        let has_own = default_data(self).is_ok_and(|own| own.exists());
        self.system.clone().filter(|_| !has_own)
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl Config {
    /// Reads and understands all settings.
    ///
    /// # Errors
    /// [`ConfigError`], naming the place, the key, what stands there and what was expected.
    pub fn load(above: &Above) -> Result<Self, ConfigError> {
        let named = above.named_file();
        let from_above = match (&above.data, above.variable("STAYDOWN_DATA")) {
            (Some(data), _) => Some((data.clone(), Source::Flag("--data"))),
            (None, Some(data)) => Some((data.into(), Source::Environment("STAYDOWN_DATA".to_owned()))),
            (None, None) => None,
        };
        let settings = match &named {
            Some(path) => read(path)?.ok_or_else(|| ConfigError::Read { path: path.clone(), source: not_found() })?,
            None => Settings::default(),
        };
        let (data, source) = match (from_above, settings.data.clone()) {
            (Some(found), _) | (None, Some(found)) => found,
            (None, None) => (default_data(above)?, Source::Default),
        };
        let settings = if named.is_some() { settings } else { beside_the_data(&data)? };
        let mut config = Self::default_in(data);
        config.sources.insert(DATA, source);
        let mut mistakes = settings.mistakes;
        for (key, value, source) in settings.values {
            mistakes.extend(config.set(key, &value, source).err());
        }
        mistakes.sort_by_key(ConfigError::line);
        config.take_environment(above, &mut mistakes);
        for (key, flag, value) in &above.flags {
            mistakes.extend(config.set(key, value, Source::Flag(flag)).err());
        }
        if mistakes.is_empty() {
            mistakes.extend(config.check_web().err());
        }
        match mistakes.len() {
            0 => Ok(config),
            1 => Err(mistakes.remove(0)),
            _ => Err(ConfigError::Several(mistakes)),
        }
    }

    /// The settings of a node that nobody has set anything for.
    pub fn default_in(data: PathBuf) -> Self {
        Self {
            peer: PeerConfig { listen: SocketAddr::from(([0, 0, 0, 0], 7700)), endpoints: BTreeMap::new() },
            local: LocalConfig { socket: data.join(SOCKET_FILE), mode: SOCKET_MODE_DEFAULT, group: None },
            web: WebConfig { listen: WEB_LISTEN_DEFAULT.parse().ok(), ..WebConfig::default() },
            log: LogConfig { filter: "info".to_owned(), format: LogFormat::Text, otlp_endpoint: None },
            policy: PolicyConfig { file: None, shadow: false },
            guard: GuardConfig::default(),
            run: RunConfig { drain: DRAIN_DEFAULT },
            data,
            sources: BTreeMap::new(),
        }
    }

    /// Where the value of `key` comes from.
    pub fn source_of(&self, key: &str) -> &Source {
        self.sources.get(key).unwrap_or(&Source::Default)
    }

    /// The value of `key` as a setting file would have it; none if there is no such key.
    pub fn value_of(&self, key: &str) -> Option<String> {
        let path = |path: Option<&PathBuf>| path.map(|path| path.display().to_string()).unwrap_or_default();
        Some(match key {
            DATA => self.data.display().to_string(),
            LISTEN => self.peer.listen.to_string(),
            ENDPOINTS => {
                let pairs: Vec<_> = self.peer.endpoints.iter().map(|(name, at)| format!("{name}={at}")).collect();
                pairs.join(",")
            }
            SOCKET => self.local.socket.display().to_string(),
            MODE => format!("{:04o}", self.local.mode),
            GROUP => self.local.group.clone().unwrap_or_default(),
            WEB_LISTEN => self.web.listen.map_or_else(|| OFF.to_owned(), |at| at.to_string()),
            CERTIFICATE => path(self.web.certificate.as_ref()),
            KEY => path(self.web.key.as_ref()),
            PLAINTEXT => self.web.allow_plaintext.to_string(),
            HOSTS => self.web.hosts.join(","),
            FILTER => self.log.filter.clone(),
            FORMAT => match self.log.format {
                LogFormat::Text => "text".to_owned(),
                LogFormat::Json => "json".to_owned(),
            },
            OTLP => self.log.otlp_endpoint.clone().unwrap_or_default(),
            POLICY => path(self.policy.file.as_ref()),
            SHADOW => self.policy.shadow.to_string(),
            HARMLESS => path(self.guard.harmless.as_ref()),
            DRAIN => self.run.drain.as_secs().to_string(),
            _ => return None,
        })
    }

    /// What no single key can say: that they fit together.
    fn check_web(&self) -> Result<(), ConfigError> {
        let half = |there, missing| ConfigError::Half { at: self.source_of(there).clone(), there, missing };
        match (&self.web.certificate, &self.web.key) {
            (Some(_), None) => return Err(half(CERTIFICATE, KEY)),
            (None, Some(_)) => return Err(half(KEY, CERTIFICATE)),
            _ => {}
        }
        let open = self.web.certificate.is_none() && !self.web.allow_plaintext;
        match self.web.listen {
            Some(listen) if open && !listen.ip().is_loopback() => {
                Err(ConfigError::Plaintext { at: self.source_of(WEB_LISTEN).clone(), listen })
            }
            _ => Ok(()),
        }
    }

    fn take_environment(&mut self, above: &Above, mistakes: &mut Vec<ConfigError>) {
        for name in above.environment.keys() {
            let Some(key) = KEYS.iter().find(|key| variable_of(key) == *name) else {
                mistakes.extend(refuse_misspelt(name).err());
                continue;
            };
            if let (Some(value), true) = (above.variable(name), *key != DATA) {
                mistakes.extend(self.set(key, value, Source::Environment(name.clone())).err());
            }
        }
    }

    fn set(&mut self, key: &'static str, value: &str, source: Source) -> Result<(), ConfigError> {
        let refuse = |expected: &str| {
            Err(ConfigError::Value { at: source.clone(), key, got: value.to_owned(), expected: expected.to_owned() })
        };
        match key {
            LISTEN => match value.parse() {
                Ok(address) => self.peer.listen = address,
                Err(_not_an_address) => return refuse("an IP address and a port, as in 0.0.0.0:7700 or [::1]:7700"),
            },
            ENDPOINTS => match pairs(value) {
                Ok(pairs) => self.peer.endpoints.extend(pairs),
                Err(why) => return refuse(&format!("member=host:port, separated by commas ({why})")),
            },
            SOCKET if value.is_empty() => return refuse("a path"),
            SOCKET => self.local.socket = PathBuf::from(value),
            MODE => match u32::from_str_radix(value.trim_start_matches("0o"), 8) {
                Ok(mode) if mode <= 0o777 && mode & 0o600 == 0o600 => self.local.mode = mode,
                _ => return refuse("an octal mode that its owner can read and write, as in \"0660\""),
            },
            GROUP if value.is_empty() || !value.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)) => {
                return refuse("the name or number of a group, as in \"staydown-users\"");
            }
            GROUP => self.local.group = Some(value.to_owned()),
            WEB_LISTEN if value == OFF => self.web.listen = None,
            WEB_LISTEN => match value.parse() {
                Ok(address) => self.web.listen = Some(address),
                Err(_not_an_address) => {
                    return refuse("off, or an IP address and a port, as in 127.0.0.1:7701 or [::1]:7701");
                }
            },
            CERTIFICATE if value.is_empty() => return refuse("a path"),
            CERTIFICATE => self.web.certificate = Some(PathBuf::from(value)),
            KEY if value.is_empty() => return refuse("a path"),
            KEY => self.web.key = Some(PathBuf::from(value)),
            PLAINTEXT => match value.parse() {
                Ok(allow) => self.web.allow_plaintext = allow,
                Err(_neither) => return refuse("true or false"),
            },
            HOSTS => match hosts(value) {
                Some(hosts) => self.web.hosts = hosts,
                None => return refuse("host names without a port, separated by commas, as in hashes.example.org"),
            },
            FILTER => match tracing_subscriber::EnvFilter::try_new(value) {
                Ok(_understood) => self.log.filter = value.to_owned(),
                Err(why) => return refuse(&format!("a filter, as in info,staydown::net=debug ({why})")),
            },
            FORMAT => match value {
                "text" => self.log.format = LogFormat::Text,
                "json" => self.log.format = LogFormat::Json,
                _ => return refuse("text or json"),
            },
            OTLP if value.is_empty() => self.log.otlp_endpoint = None,
            OTLP if !cfg!(feature = "otel") => {
                return refuse(
                    "nothing: this build sends no traces; one that does: cargo build --release --features otel",
                );
            }
            OTLP if !is_collector(value) => return refuse("a collector, as in http://127.0.0.1:4317"),
            OTLP => self.log.otlp_endpoint = Some(value.to_owned()),
            POLICY if value.is_empty() => return refuse("a path"),
            POLICY => self.policy.file = Some(PathBuf::from(value)),
            SHADOW => match value.parse() {
                Ok(shadow) => self.policy.shadow = shadow,
                Err(_neither) => return refuse("true or false"),
            },
            HARMLESS if value.is_empty() => return refuse("a path"),
            HARMLESS => self.guard.harmless = Some(PathBuf::from(value)),
            DRAIN => match value.parse() {
                Ok(seconds) if seconds <= DRAIN_SECONDS_MAX => self.run.drain = Duration::from_secs(seconds),
                _ => return refuse(&format!("seconds from 0 to {DRAIN_SECONDS_MAX}, as in 30")),
            },
            _ => return refuse("a setting of the node"),
        }
        self.sources.insert(key, source);
        Ok(())
    }
}

/// What a settings file says, not yet understood.
#[derive(Default)]
struct Settings {
    data: Option<(PathBuf, Source)>,
    values: Vec<(&'static str, String, Source)>,
    mistakes: Vec<ConfigError>,
}

fn beside_the_data(data: &Path) -> Result<Settings, ConfigError> {
    let path = data.join(CONFIG_FILE);
    let settings = read(&path)?.unwrap_or_default();
    match settings.data {
        None => Ok(settings),
        Some((got, at)) => Err(ConfigError::Value {
            at,
            key: DATA,
            got: got.display().to_string(),
            expected: "nothing: this file lies in the data directory; name it with --config to set data in it"
                .to_owned(),
        }),
    }
}

/// The settings in `path`; none if there is no such file.
fn read(path: &Path) -> Result<Option<Settings>, ConfigError> {
    let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut text = String::new();
    file.take(CONFIG_SIZE_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > CONFIG_SIZE_MAX {
        let message = format!("the file has more than {CONFIG_SIZE_MAX} bytes");
        return Err(unreadable(io::Error::new(io::ErrorKind::InvalidData, message)));
    }
    understand(path, &text).map(Some)
}

fn understand(path: &Path, text: &str) -> Result<Settings, ConfigError> {
    let source = |at: usize| Source::File { path: path.to_owned(), line: line_of(text, at) };
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    let mut settings = Settings::default();
    for (name, value) in table.get_ref() {
        let (at, name) = (source(name.span().start), name.get_ref().as_ref());
        match value.get_ref() {
            DeValue::Table(section) if name != DATA => {
                for (key, value) in section {
                    settings.take(&format!("{name}.{}", key.get_ref()), value.get_ref(), source(key.span().start));
                }
            }
            value => settings.take(name, value, at),
        }
    }
    Ok(settings)
}

impl Settings {
    fn take(&mut self, key: &str, value: &DeValue<'_>, at: Source) {
        match known(key, &at).and_then(|key| Ok((key, written(key, value, &at)?))) {
            Ok((DATA, value)) => self.data = Some((value.into(), at)),
            Ok((key, value)) => self.values.push((key, value, at)),
            Err(mistake) => self.mistakes.push(mistake),
        }
    }
}

fn known(key: &str, source: &Source) -> Result<&'static str, ConfigError> {
    if let Some(known) = KEYS.into_iter().find(|known| *known == key) {
        return Ok(known);
    }
    let (at, section) = (source.clone(), format!("{key}."));
    if KEYS.iter().any(|known| known.starts_with(&section)) {
        return Err(ConfigError::IsSection { at, key: key.to_owned() });
    }
    let nearest = meant(key, '.', KEYS.into_iter());
    Err(ConfigError::UnknownKey { at, key: key.to_owned(), nearest })
}

/// What a misspelt key may stand for: the one with a near name, or those with the same name in another section.
fn meant<'a>(key: &str, separator: char, known: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    let last = |key: &str| key.rsplit(separator).next().unwrap_or_default().to_owned();
    let near = near(key, known.clone());
    let elsewhere: Vec<_> = known.filter(|known| last(known) == last(key)).map(str::to_owned).collect();
    match near {
        Some(near) if elsewhere.is_empty() || last(near) == last(key) => vec![near.to_owned()],
        // A name that is right says more than a section that is.
        _ => elsewhere,
    }
}

/// The end of a message about a key that nobody knows.
struct Meant<'a>(&'a [String]);

impl fmt::Display for Meant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted: Vec<_> = self.0.iter().map(|key| format!("{key:?}")).collect();
        match quoted.is_empty() {
            true => f.write_str("fix: staydown config show --effective lists them all"),
            false => write!(f, "did you mean {}?", quoted.join(" or ")),
        }
    }
}

/// Mistakes as sentences, as many as anybody reads.
fn told(mistakes: &[ConfigError]) -> Vec<String> {
    let mut told: Vec<_> = mistakes.iter().take(MISTAKES_TOLD_MAX).map(ToString::to_string).collect();
    if mistakes.len() > told.len() {
        told.push(format!("and {} more", mistakes.len() - told.len()));
    }
    told
}

impl ConfigError {
    /// Each mistake by itself, as many as anybody reads.
    pub fn mistakes(&self) -> Vec<String> {
        match self {
            Self::Several(mistakes) => told(mistakes),
            one => vec![one.to_string()],
        }
    }

    /// The line of the file that it is about, to put mistakes in order.
    fn line(&self) -> usize {
        match self {
            Self::UnknownKey { at, .. } | Self::IsSection { at, .. } | Self::Value { at, .. } => match at {
                Source::File { line, .. } => *line,
                _ => usize::MAX,
            },
            _ => 0,
        }
    }
}

/// The value of a key as text, in the form that the environment has it.
fn written(key: &'static str, value: &DeValue<'_>, source: &Source) -> Result<String, ConfigError> {
    match (key, value) {
        (ENDPOINTS, DeValue::Table(table)) => {
            let pairs = table.iter().map(|(name, value)| match value.get_ref() {
                DeValue::String(at) => Ok(format!("{}={at}", name.get_ref())),
                other => Err(wrong_type(key, other, "host:port in quotes for each member", source)),
            });
            pairs.collect::<Result<Vec<_>, _>>().map(|pairs| pairs.join(","))
        }
        (ENDPOINTS, other) => {
            Err(wrong_type(key, other, "a table [peer.endpoints] with member = \"host:port\"", source))
        }
        (_, DeValue::String(text)) => Ok(text.to_string()),
        (DRAIN, DeValue::Integer(number)) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        (DRAIN, other) => Err(wrong_type(key, other, "a whole number of seconds, without quotes", source)),
        // 0o660 is a natural way to write a mode; 660 without quotes is not: it is a decimal number to TOML.
        (MODE, DeValue::Integer(number)) if number.radix() == 8 => Ok(number.as_str().to_owned()),
        (SHADOW | PLAINTEXT, DeValue::Boolean(yes)) => Ok(yes.to_string()),
        (SHADOW | PLAINTEXT, other) => Err(wrong_type(key, other, "true or false", source)),
        (HOSTS, DeValue::Array(names)) => {
            let name = |value: &toml::Spanned<DeValue<'_>>| match value.get_ref() {
                DeValue::String(name) => Ok(name.to_string()),
                other => Err(wrong_type(key, other, "a list of host names in quotes", source)),
            };
            names.iter().map(name).collect::<Result<Vec<_>, _>>().map(|names| names.join(","))
        }
        (HOSTS, other) => Err(wrong_type(key, other, "a list of host names, as in [\"hashes.example.org\"]", source)),
        (_, other) => Err(wrong_type(key, other, "a text in quotes", source)),
    }
}

fn wrong_type(key: &'static str, got: &DeValue<'_>, expected: &str, source: &Source) -> ConfigError {
    ConfigError::Value { at: source.clone(), key, got: got.type_str().to_owned(), expected: expected.to_owned() }
}

/// A variable that looks like one of ours and is not. Others that begin with `STAYDOWN_` belong to tests and scripts.
fn refuse_misspelt(name: &str) -> Result<(), ConfigError> {
    let variables = KEYS.map(variable_of);
    let section = |key: &str| key.split_once('.').map(|(section, _)| variable_of(section) + "_");
    if !KEYS.into_iter().filter_map(section).any(|section| name.starts_with(&section)) {
        return Ok(());
    }
    let nearest = meant(name, '_', variables.iter().map(String::as_str));
    Err(ConfigError::UnknownKey { at: Source::Environment(name.to_owned()), key: name.to_owned(), nearest })
}

/// `peer.listen` is `STAYDOWN_PEER_LISTEN`.
pub fn variable_of(key: &str) -> String {
    format!("STAYDOWN_{}", key.replace('.', "_").to_ascii_uppercase())
}

fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, at) = pair.split_once('=').ok_or_else(|| format!("{pair:?} has no ="))?;
        check_endpoint(at.trim()).map_err(|expected| format!("{:?}: expected {expected}", at.trim()))?;
        pairs.push((name.trim().to_owned(), at.trim().to_owned()));
    }
    Ok(pairs)
}

/// Host names, in lower case; none: one of them cannot be one.
fn hosts(text: &str) -> Option<Vec<String>> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b".-".contains(&c);
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| name.bytes().all(plain).then(|| name.to_ascii_lowercase())).collect()
}

fn default_data(above: &Above) -> Result<PathBuf, ConfigError> {
    let xdg = above.variable("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || above.variable("HOME").map(|home| Path::new(home).join(".local/share"));
    Ok(xdg.or_else(home).ok_or(ConfigError::NoHome)?.join("staydown"))
}

/// A collector takes OTLP by gRPC. Traces name members and requests: over the network they belong into a tunnel.
fn is_collector(value: &str) -> bool {
    let uri = value.parse::<http::Uri>();
    uri.is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.port().is_some() && matches!(uri.path(), "" | "/"))
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

fn not_found() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "there is no such file")
}

/// The candidate that `text` was most likely meant to be: at most every third character differs. What is further away would only
/// lead astray.
pub fn near<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    nearest(text, candidates).filter(|candidate| changes(text, candidate) * 3 <= text.len().max(3))
}

/// The candidate that takes the fewest changes of a character to become `text`.
pub fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates.min_by_key(|candidate| changes(text, candidate))
}

/// Levenshtein distance in bytes.
fn changes(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn above(environment: &[(&str, &str)]) -> Above {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Above { environment, ..Above::default() }
    }

    fn load_file(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CONFIG_FILE), text).unwrap();
        Config::load(&Above { data: Some(dir.path().to_owned()), ..Above::default() })
    }

    #[test]
    fn without_any_setting_the_node_lives_in_the_users_home() {
        let config = Config::load(&above(&[("HOME", "/home/nobody-there")])).unwrap();
        assert_eq!(config.data, Path::new("/home/nobody-there/.local/share/staydown"));
        assert_eq!(config.local.socket, config.data.join("local.sock"));
        assert_eq!(config.peer.listen.to_string(), LISTEN_DEFAULT);
        let config = Config::load(&above(&[("HOME", "/h"), ("XDG_DATA_HOME", "/x")])).unwrap();
        assert_eq!(config.data, Path::new("/x/staydown"));
        assert!(matches!(Config::load(&above(&[])), Err(ConfigError::NoHome)));
    }

    #[test]
    fn flags_stand_above_the_environment_and_that_above_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = "[peer]\nlisten = \"127.0.0.1:1\"\n[peer.endpoints]\nacme = \"a.example.org:1\"\nbolt = \"[::1]:2\"\n[local]\nmode = 0o660\n[log]\nfilter = \"warn\"\n";
        std::fs::write(dir.path().join(CONFIG_FILE), file).unwrap();
        let mut above = above(&[
            ("STAYDOWN_DATA", &dir.path().display().to_string()),
            ("STAYDOWN_PEER_LISTEN", "127.0.0.1:2"),
            ("STAYDOWN_PEER_ENDPOINTS", "bolt=127.0.0.1:9"),
            ("STAYDOWN_SEED", "7"),
        ]);
        above.flags.push((FILTER, "--log", "debug".to_owned()));
        let config = Config::load(&above).unwrap();
        assert_eq!(config.peer.listen.port(), 2);
        assert_eq!(config.value_of(ENDPOINTS).unwrap(), "acme=a.example.org:1,bolt=127.0.0.1:9");
        assert_eq!(config.local.mode, 0o660);
        assert_eq!(config.log.filter, "debug");
        assert_eq!(config.source_of(FILTER).to_string(), "flag --log");
        assert_eq!(config.source_of(LISTEN).to_string(), "environment variable STAYDOWN_PEER_LISTEN");
        assert!(config.source_of(MODE).to_string().ends_with("staydown.toml line 7"));
        assert_eq!(config.source_of(SOCKET), &Source::Default);
    }

    #[test]
    fn every_key_has_a_value_to_show() {
        let config = Config::default_in("/d".into());
        assert!(KEYS.iter().all(|key| config.value_of(key).is_some()));
        assert_eq!(config.value_of("peer"), None);
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        for (text, expected) in [
            (
                "\n[peer]\nlisen = \"127.0.0.1:1\"",
                "line 3: there is no setting \"peer.lisen\"; did you mean \"peer.listen\"?",
            ),
            ("[peers]\nlisten = \"\"", "line 2: there is no setting \"peers.listen\"; did you mean \"peer.listen\"?"),
            ("peer = 1", "line 1: peer is a section and has no value of its own; write [peer]"),
            (
                "colour = 1",
                "line 1: there is no setting \"colour\"; fix: staydown config show --effective lists them all",
            ),
            ("[peer]\nfilter = \"warn\"", "there is no setting \"peer.filter\"; did you mean \"log.filter\"?"),
            ("[run]\ndrain_seconds = 3601", "run.drain_seconds is \"3601\", expected seconds from 0 to 3600"),
            ("[run]\ndrain_seconds = \"soon\"", "run.drain_seconds is \"soon\", expected seconds from 0 to 3600"),
            ("[run]\ndrain_seconds = 1.5", "run.drain_seconds is \"float\", expected a whole number of seconds"),
            ("[local]\ngroup = \"a b\"", "local.group is \"a b\", expected the name or number of a group"),
            (
                "[peer]\nlisten = \"localhost\"",
                "line 2: peer.listen is \"localhost\", expected an IP address and a port",
            ),
            ("[peer]\nlisten = 7700", "line 2: peer.listen is \"integer\", expected a text in quotes"),
            ("[peer.endpoints]\nacme = \"host\"", "the port is missing"),
            ("[peer.endpoints]\nacme = 1", "expected host:port in quotes for each member"),
            ("[local]\nmode = 660", "local.mode is \"integer\""),
            ("[local]\nmode = \"0060\"", "its owner can read and write"),
            ("[log]\nformat = \"xml\"", "log.format is \"xml\", expected text or json"),
            ("[log]\nfilter = \"staydown=loud\"", "expected a filter"),
            ("[policy]\nfile = \"\"", "policy.file is \"\", expected a path"),
            ("[policy]\nshadow = \"maybe\"", "line 2: policy.shadow is \"maybe\", expected true or false"),
            (
                "[web]\nlisten = \"localhost:7701\"",
                "line 2: web.listen is \"localhost:7701\", expected off, or an IP address",
            ),
            ("[web]\nlisten = \"0.0.0.0:7701\"", "line 2: web.listen is 0.0.0.0:7701, which other machines reach"),
            ("[web]\ncertificate = \"a.pem\"", "line 2: web.certificate is set and web.key is not"),
            ("[web]\nkey = \"a.pem\"", "line 2: web.key is set and web.certificate is not"),
            ("[web]\nhosts = [\"a b\"]", "expected host names without a port"),
            ("[web]\nhosts = 1", "expected a list of host names"),
            ("[web]\nallow_plaintext = \"yes\"", "expected true or false"),
            ("[log\n", "line 1: "),
            ("data = \"/elsewhere\"", "this file lies in the data directory"),
        ] {
            let message = load_file(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text:?}: {message}");
        }
    }

    #[test]
    fn the_policy_is_a_file_and_a_shadow() {
        let config = load_file("[policy]\nfile = \"/etc/staydown/policy.toml\"\nshadow = true").unwrap();
        assert_eq!(config.policy.file.as_deref(), Some(Path::new("/etc/staydown/policy.toml")));
        assert!(config.policy.shadow);
        let config = Config::load(&above(&[("HOME", "/h"), ("STAYDOWN_POLICY_SHADOW", "true")])).unwrap();
        assert_eq!((config.policy.file.as_ref(), config.policy.shadow), (None, true));
        assert!(Config::load(&above(&[("HOME", "/h"), ("STAYDOWN_POLICY_SHADOW", "1")])).is_err());
    }

    #[test]
    fn all_mistakes_are_told_at_once_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let file =
            "[web]\nlistn = 1\n[local]\nmode = 1\n[log]\nformat = \"xml\"\nlevel = \"x\"\n[run]\ndrain_seconds = 30\n";
        std::fs::write(dir.path().join(CONFIG_FILE), file).unwrap();
        let mut above = above(&[("STAYDOWN_LOG_FORMAT", "yaml"), ("STAYDOWN_DATA", &dir.path().display().to_string())]);
        above.flags.push((LISTEN, "--listen", "here".to_owned()));
        let error = Config::load(&above).unwrap_err();
        let told = error.mistakes();
        let places: Vec<_> =
            told.iter().map(|told| told.split(": ").next().unwrap().rsplit('/').next().unwrap()).collect();
        let lines = [2, 4, 6, 7].map(|line| format!("staydown.toml line {line}"));
        let others = ["environment variable STAYDOWN_LOG_FORMAT", "flag --listen"].map(str::to_owned);
        assert_eq!(places, [&lines[..], &others[..]].concat());
        assert!(error.to_string().starts_with("the settings have 6 mistakes: "), "{error}");
        let many = (0..50).fold("[log]\n".to_owned(), |text, n| text + &format!("a{n} = 1\n"));
        assert_eq!(load_file(&many).unwrap_err().mistakes().last().unwrap(), "and 30 more");
    }

    #[test]
    fn the_settings_of_the_service_are_read_where_the_user_has_no_node() {
        let dir = tempfile::tempdir().unwrap();
        let (system, own) = (dir.path().join("system.toml"), dir.path().join("staydown"));
        std::fs::write(&system, "data = \"/var/lib/example\"").unwrap();
        let home = above(&[("XDG_DATA_HOME", &dir.path().display().to_string())]);
        let above = Above { system: Some(system), ..home };
        assert_eq!(Config::load(&above).unwrap().data, Path::new("/var/lib/example"));
        let named = Above { data: Some("/other".into()), ..above.clone() };
        assert_eq!(Config::load(&named).unwrap().data, Path::new("/other"));
        std::fs::create_dir(&own).unwrap();
        assert_eq!(Config::load(&above).unwrap().data, own);
    }

    #[test]
    fn other_machines_come_over_tls_or_through_a_proxy() {
        let config = load_file("").unwrap();
        assert_eq!(config.web.listen.unwrap().to_string(), WEB_LISTEN_DEFAULT);
        assert_eq!(load_file("[web]\nlisten = \"off\"").unwrap().web.listen, None);
        let tls = "[web]\nlisten = \"0.0.0.0:7701\"\ncertificate = \"c.pem\"\nkey = \"k.pem\"\nhosts = [\"Node.Acme.example\", \"acme.example\"]";
        let config = load_file(tls).unwrap();
        assert_eq!(
            (config.web.scheme(), config.web.hosts.join(" ").as_str()),
            ("https", "node.acme.example acme.example")
        );
        let proxy = load_file("[web]\nlisten = \"[::]:7701\"\nallow_plaintext = true").unwrap();
        assert_eq!(proxy.web.scheme(), "http");
        let variables =
            [("HOME", "/h"), ("STAYDOWN_WEB_LISTEN", "[::1]:1"), ("STAYDOWN_WEB_HOSTS", "a.example, b.example")];
        let config = Config::load(&above(&variables)).unwrap();
        assert_eq!(config.value_of(HOSTS).unwrap(), "a.example,b.example");
        assert!(Config::load(&above(&[("HOME", "/h"), ("STAYDOWN_WEB_LISTEN", "0.0.0.0:1")])).is_err());
    }

    #[test]
    fn a_collector_is_refused_by_a_build_that_sends_no_traces_and_named_by_one_that_does() {
        assert_eq!(load_file("[log]\notlp_endpoint = \"\"").unwrap().log.otlp_endpoint, None);
        let load = |value: &str| load_file(&format!("[log]\notlp_endpoint = \"{value}\""));
        if cfg!(feature = "otel") {
            let config = load("http://127.0.0.1:4317").unwrap();
            assert_eq!(config.log.otlp_endpoint.as_deref(), Some("http://127.0.0.1:4317"));
            for value in ["a", "127.0.0.1:4317", "https://127.0.0.1:4317", "http://127.0.0.1", "http://a:1/v1/traces"] {
                assert!(load(value).unwrap_err().to_string().contains("expected a collector"), "{value}");
            }
        } else {
            let message = load("http://127.0.0.1:4317").unwrap_err().to_string();
            assert!(message.contains("line 2: log.otlp_endpoint") && message.contains("--features otel"), "{message}");
        }
    }

    #[test]
    fn a_misspelt_variable_is_refused() {
        let message = Config::load(&above(&[("HOME", "/h"), ("STAYDOWN_PEER_LISTN", "x")])).unwrap_err().to_string();
        assert!(message.ends_with("did you mean \"STAYDOWN_PEER_LISTEN\"?"), "{message}");
    }

    #[test]
    fn a_named_file_must_exist_and_may_name_the_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.toml");
        let above = Above { file: Some(path.clone()), ..above(&[("HOME", "/h")]) };
        assert!(matches!(Config::load(&above), Err(ConfigError::Read { .. })));
        std::fs::write(&path, "data = \"/var/lib/example\"").unwrap();
        assert_eq!(Config::load(&above).unwrap().data, Path::new("/var/lib/example"));
        let above = Above { data: Some("/other".into()), ..above };
        assert_eq!(Config::load(&above).unwrap().data, Path::new("/other"));
        std::fs::write(&path, vec![b'#'; 256 * 1024 + 1]).unwrap();
        assert!(Config::load(&above).unwrap_err().to_string().contains("more than 262144 bytes"));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(Config::load(&above), Err(ConfigError::Read { .. })));
    }
}
