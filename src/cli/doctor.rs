//! `doctor`: looks at everything that a node needs, whether it runs or not, and says what to do about what is wrong.
//! It changes nothing.

mod files;
mod keys;
mod network;

use crate::config::documented::DOCUMENTED;
use crate::config::{Config, Source};
use crate::replica::Health;
use crate::replica::charter::{Charter, CharterChain, Member};
use crate::replica::ids::MemberId;
use crate::wire::local;

use super::failure::{Exit, Failure, Outcome};
use super::{Invocation, charter, init, show};
use crate::answers;
use crate::clock;

/// Mode bits of a socket's group that let it connect.
const GROUP_MAY_CONNECT: u32 = 0o020;

pub(super) async fn doctor(at: &Invocation) -> Outcome {
    let mut found = Findings::default();
    let running = match at.config() {
        Ok(config) => examine(&config, at, &mut found).await,
        Err(failure) => {
            found.failure("settings", Level::Fail, failure);
            false
        }
    };
    let ok = !found.0.iter().any(|finding| finding.level == Level::Fail.name());
    if at.terminal.json {
        at.terminal.json(&answers::Examined { ok, running, findings: found.0 })?;
    } else {
        print(&found.0, at)?;
    }
    Ok(if ok { Exit::Ok } else { Exit::Failed })
}

/// Looks at everything; returns whether a node runs.
async fn examine(config: &Config, at: &Invocation, found: &mut Findings) -> bool {
    settings(config, found);
    if !files::directory(&config.data, found) {
        return false;
    }
    let node = network::node(config, found).await;
    let charters = match &node {
        Some(running) => charter::running_chain(&running.node).await,
        None => files::store(config, found),
    };
    let charters = charters.map_err(|failure| found.failure("charter", Level::Fail, failure)).ok();
    let here = Here::of(config, charters.as_ref());
    files::disk(&config.data, found);
    files::program_files(config, found);
    files::tokens(&config.data, clock::now(), found);
    keys::clock(here.charter(), found);
    let ours = keys::keys(config, &here, found);
    keys::console(config, found);
    if let Some(charter) = here.charter() {
        files::taxonomy(&config.data, charter, found);
        endpoints(config, charter, found);
        files::ffmpeg(charter, found);
    }
    network::ports(config, &here, node.as_ref(), found);
    match &node {
        Some(running) => {
            health(&running.status, found);
            network::peers_of_running(running, found);
            network::open_files(Some(&running.limits), found);
        }
        None => {
            network::open_files(None, found);
            if let (Some(charter), Some(ours)) = (here.charter(), &ours) {
                network::peers(config, charter, here.me, ours, found).await;
            }
        }
    }
    at.terminal.talk(match node {
        Some(_) => "The node runs.",
        None => "The node does not run.",
    });
    node.is_some()
}

/// Who this node is, as far as its files and the charter tell.
struct Here<'a> {
    me: Option<MemberId>,
    charters: Option<&'a CharterChain>,
}

impl<'a> Here<'a> {
    fn of(config: &Config, charters: Option<&'a CharterChain>) -> Self {
        Self { me: init::member_here(&config.data).ok(), charters }
    }

    fn charter(&self) -> Option<&'a Charter> {
        self.charters.map(CharterChain::effective)
    }

    fn member(&self) -> Option<&'a Member> {
        self.charter()?.member(self.me?)
    }
}

fn settings(config: &Config, found: &mut Findings) {
    let set: Vec<_> = DOCUMENTED.iter().filter(|d| config.source_of(d.key) != &Source::Default).collect();
    let how_many = show::counted(set.len(), "setting");
    found.ok("settings", format!("{how_many} set, all understood; the rest has its default"));
    if let Some(group) = &config.local.group
        && config.local.mode & GROUP_MAY_CONNECT == 0
    {
        let what = format!("local.group is {group}, but local.mode {:04o} lets no group connect", config.local.mode);
        found.warn("settings", what, "set local.mode to \"0660\"");
    }
}

/// Endpoints of our own for members that do not exist are spelling mistakes.
fn endpoints(config: &Config, charter: &Charter, found: &mut Findings) {
    for name in config.peer.endpoints.keys().filter(|name| charter.member_named(name).is_none()) {
        let known: Vec<_> = charter.active().map(|member| member.name.as_str()).collect();
        let near = crate::config::near(name, known.iter().copied());
        let fix = near.map_or("staydown member list".to_owned(), |near| format!("did you mean {near}?"));
        found.warn("settings", format!("peer.endpoints names {name}, which is no member"), fix);
    }
}

/// What the running node says of itself.
fn health(status: &local::StatusResponse, found: &mut Findings) {
    let level = match status.health.as_str() {
        "GREEN" => return found.ok("health", "GREEN"),
        "RED" => Level::Fail,
        _ => Level::Warn,
    };
    for reason in &status.health_reasons {
        found.failure("health", level, split(reason));
    }
}

/// A sentence with its cure, as far as it has one.
fn split(text: &str) -> Failure {
    match text.rsplit_once("; fix: ") {
        Some((cause, fix)) => Failure::new(Exit::Failed, cause).fix(fix),
        None => Failure::new(Exit::Failed, text),
    }
}

fn print(findings: &[answers::Finding], at: &Invocation) -> Result<(), Failure> {
    for finding in findings {
        at.terminal.data(format!("{:<5} {:<9} {}", finding.level, finding.area, show::clean(&finding.what)))?;
        if let Some(fix) = &finding.fix {
            at.terminal.data(format!("{:<15} fix: {}", "", show::clean(fix)))?;
        }
    }
    let count = |level: Level| findings.iter().filter(|finding| finding.level == level.name()).count();
    let [ok, warn, fail] = [Level::Ok, Level::Warn, Level::Fail].map(count);
    at.terminal.talk(format!("{ok} OK, {warn} WARN, {fail} FAIL"));
    Ok(())
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// As it should be.
    Ok,
    /// The node runs with it; somebody should look at it.
    Warn,
    /// The node does not start, or does not do its work.
    Fail,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }

    fn of(health: Health) -> Self {
        match health {
            Health::Green => Self::Ok,
            Health::Yellow => Self::Warn,
            Health::Red => Self::Fail,
        }
    }
}

/// What was found so far.
#[derive(Default)]
struct Findings(Vec<answers::Finding>);

impl Findings {
    fn add(&mut self, area: &'static str, level: Level, what: impl Into<String>, fix: Option<String>) {
        self.0.push(answers::Finding { area, level: level.name(), what: what.into(), fix });
    }

    fn ok(&mut self, area: &'static str, what: impl Into<String>) {
        self.add(area, Level::Ok, what, None);
    }

    fn warn(&mut self, area: &'static str, what: impl Into<String>, fix: impl Into<String>) {
        self.add(area, Level::Warn, what, Some(fix.into()));
    }

    fn fail(&mut self, area: &'static str, what: impl Into<String>, fix: impl Into<String>) {
        self.add(area, Level::Fail, what, Some(fix.into()));
    }

    /// What a command would have said; where it names several culprits, each is a finding.
    fn failure(&mut self, area: &'static str, level: Level, failure: Failure) {
        if failure.culprits.is_empty() {
            return self.add(area, level, failure.cause, failure.fix);
        }
        for culprit in failure.culprits {
            let Failure { cause, fix, .. } = split(&culprit);
            let what = if failure.exit == Exit::Config { cause } else { format!("{}: {cause}", failure.cause) };
            self.add(area, level, what, fix.or_else(|| failure.fix.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mistake_is_a_finding_of_its_own_with_its_cure() {
        let mut found = Findings::default();
        let settings = Failure::new(Exit::Config, "the settings have 2 mistakes");
        found.failure("settings", Level::Fail, settings.culprit("line 1: x; fix: write y").culprit("line 2: z"));
        found.failure("keys", Level::Warn, Failure::new(Exit::Io, "cannot read").fix("chmod 600 it"));
        let told: Vec<_> = found.0.iter().map(|f| (f.level, f.what.as_str(), f.fix.as_deref())).collect();
        let expected = [
            ("FAIL", "line 1: x", Some("write y")),
            ("FAIL", "line 2: z", None),
            ("WARN", "cannot read", Some("chmod 600 it")),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_group_that_the_mode_keeps_out_is_told() {
        let mut config = Config::default_in("/d".into());
        config.local.group = Some("upload".to_owned());
        for (mode, findings) in [(0o600, 2), (0o660, 1)] {
            config.local.mode = mode;
            let mut found = Findings::default();
            settings(&config, &mut found);
            assert_eq!(found.0.len(), findings, "{mode:o}");
        }
    }
}
