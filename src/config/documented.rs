//! What each setting means, in one place: the example in `deploy/staydown.toml`, the table of docs/operating.md, the page
//! staydown.toml(5) and `config show` are made of this, so that none of them can tell something else.

use super::variable_of;

/// One setting, as people are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Documented {
    /// As in [`super::KEYS`].
    pub key: &'static str,
    /// What holds where nobody sets it.
    pub default: Unset,
    /// What it does, in a sentence or two.
    pub meaning: &'static str,
    /// Whether SIGHUP takes a change up; everything else needs a restart.
    pub on_hangup: bool,
}

/// What holds where a key is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unset {
    /// A value, as TOML has it.
    Value(&'static str),
    /// Something that depends on the rest, in words; and a value to show the form, as TOML has it.
    Words(&'static str, &'static str),
}

impl Documented {
    /// A value as TOML has it: the default where there is one.
    pub fn shown(&self) -> &'static str {
        match self.default {
            Unset::Value(value) | Unset::Words(_, value) => value,
        }
    }

    /// The default, in words where it is no value.
    pub fn default_text(&self) -> &'static str {
        match self.default {
            Unset::Value(value) => value,
            Unset::Words(words, _) => words,
        }
    }

    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        variable_of(self.key)
    }
}

/// What is known of `key`.
pub fn of(key: &str) -> Option<&'static Documented> {
    DOCUMENTED.iter().find(|documented| documented.key == key)
}

const fn setting(key: &'static str, default: Unset, meaning: &'static str) -> Documented {
    Documented { key, default, meaning, on_hangup: false }
}

/// Every setting, in the order of the file: what stands outside a section first.
pub const DOCUMENTED: &[Documented] = &[
    setting(
        "data",
        Unset::Words("staydown in $XDG_DATA_HOME or ~/.local/share", "\"/var/lib/staydown\""),
        "The folder that holds everything of this node. In the settings file only if that is named with --config and lies elsewhere.",
    ),
    setting(
        "peer.listen",
        Unset::Value("\"0.0.0.0:7700\""),
        "Where the other members' nodes are awaited, by mutual TLS: an IP address and a port. All members must reach it.",
    ),
    setting(
        "peer.endpoints",
        Unset::Words("what the charter says", "{ bolt = \"bolt.example.org:7700\" }"),
        "Other addresses of members than the charter has, by member name: for tunnels and split networks. As a variable: bolt=HOST:PORT,cyan=HOST:PORT.",
    ),
    setting(
        "local.socket",
        Unset::Words("local.sock in the data directory", "\"/run/staydown/local.sock\""),
        "The Unix socket for commands and programs of this machine. Whoever may write to it may do everything, without a token.",
    ),
    setting("local.mode", Unset::Value("\"0600\""), "Permission bits of the socket: \"0660\" lets its group connect."),
    setting(
        "local.group",
        Unset::Words("the group of the node's process", "\"staydown-users\""),
        "The group of the socket, by name or number, so that an upload service need not be root; the node's user must be in it.",
    ),
    setting(
        "web.listen",
        Unset::Value("\"127.0.0.1:7701\""),
        "Where the company's own people and programs are awaited: console, HTTP API, metrics, and gRPC, all with a token. \"off\": nowhere. An address that other machines reach needs a certificate, or allow_plaintext.",
    ),
    Documented {
        on_hangup: true,
        ..setting(
            "web.certificate",
            Unset::Words("no TLS", "\"/etc/staydown/console.cert.pem\""),
            "The certificate chain of the console, PEM; key belongs to it. SIGHUP reads both again; another path needs a restart.",
        )
    },
    Documented {
        on_hangup: true,
        ..setting(
            "web.key",
            Unset::Words("no TLS", "\"/etc/staydown/console.key.pem\""),
            "The private key of that certificate, PEM.",
        )
    },
    setting(
        "web.allow_plaintext",
        Unset::Value("false"),
        "true: other machines may come without TLS, because a proxy in front of this node ends it.",
    ),
    setting(
        "web.hosts",
        Unset::Words("loopback's names and the listening address", "[\"hashes.example.org\"]"),
        "Further names under which the console is reached; requests for any other are refused. Links to the console have the first; with allow_plaintext they lead to the proxy, with https and without a port. As a variable: names separated by commas.",
    ),
    Documented {
        on_hangup: true,
        ..setting(
            "log.filter",
            Unset::Value("\"info\""),
            "What the node says on stderr: error, warn, info, debug or trace, also for a part of it, as in \"info,staydown::net=debug\". Nothing that is looked up is ever logged.",
        )
    },
    setting(
        "log.format",
        Unset::Value("\"text\""),
        "In which form it says it: text for people, json for programs, one object a line.",
    ),
    setting(
        "log.otlp_endpoint",
        Unset::Words("no traces are sent", "\"http://127.0.0.1:4317\""),
        "The OpenTelemetry collector that traces are sent to, by gRPC. Only in a program that was built with the feature otel.",
    ),
    Documented {
        on_hangup: true,
        ..setting(
            "policy.file",
            Unset::Words("policy.toml in the data directory, else the built-in rules", "\"/etc/staydown/policy.toml\""),
            "What this company makes of matches. SIGHUP reads the file again; another path needs a restart.",
        )
    },
    setting(
        "policy.shadow",
        Unset::Value("false"),
        "true: verdicts are computed and counted, and answered ALLOW, to see what a policy would do.",
    ),
    Documented {
        on_hangup: true,
        ..setting(
            "guard.harmless",
            Unset::Words("the shipped lists alone", "\"/etc/staydown/harmless.txt\""),
            "Hashes that this company never lists, one a line. SIGHUP reads the file again; another path needs a restart.",
        )
    },
    setting(
        "run.drain_seconds",
        Unset::Value("10"),
        "How long requests that are under way may go on when the node is told to stop, 0 to 3600. The service manager must wait longer before it kills.",
    ),
];

const HEAD: &str = "\
# The settings of a staydown node: each key with its meaning and its default, commented out.
#
# The node reads staydown.toml in its data directory, or the file that --config or STAYDOWN_CONFIG names. Where neither a
# file nor a data directory is named and the user has no node, commands read /etc/staydown/staydown.toml. Above the
# file stand environment variables, and above these flags. A key that no release knows, and a value that makes no sense, is refused
# at the start, all of them at once. `staydown config show --effective` tells each value and where it comes from.
";

/// The example of a settings file, with every key.
pub fn example() -> String {
    let mut text = HEAD.to_owned();
    let mut section = "";
    for documented in DOCUMENTED {
        let (within, name) = documented.key.split_once('.').unwrap_or(("", documented.key));
        if within != section {
            section = within;
            text.push_str(&format!("\n[{section}]\n"));
        }
        text.push('\n');
        for line in wrapped(documented.meaning, 116) {
            text.push_str(&format!("# {line}\n"));
        }
        if let Unset::Words(words, _) = documented.default {
            text.push_str(&format!("# Default: {words}.\n"));
        }
        let hangup = if documented.on_hangup { " SIGHUP takes a change up." } else { "" };
        text.push_str(&format!("# Variable {}.{hangup}\n", documented.variable()));
        text.push_str(&format!("#{name} = {}\n", documented.shown()));
    }
    text
}

/// The table of docs/operating.md.
pub fn table() -> String {
    let mut text = "| key | default | what | taken up by |\n| --- | --- | --- | --- |\n".to_owned();
    for documented in DOCUMENTED {
        let default = match documented.default {
            Unset::Value(value) => format!("`{value}`"),
            Unset::Words(words, _) => words.to_owned(),
        };
        let taken_up = if documented.on_hangup { "SIGHUP" } else { "restart" };
        text.push_str(&format!("| `{}` | {default} | {} | {taken_up} |\n", documented.key, documented.meaning));
    }
    text
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Above, Config, KEYS};

    fn file(name: &str) -> String {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
    }

    #[test]
    fn every_key_is_documented_once_and_the_defaults_are_the_real_ones() {
        let mut keys: Vec<_> = DOCUMENTED.iter().map(|documented| documented.key).collect();
        let mut known = KEYS.to_vec();
        keys.sort_unstable();
        known.sort_unstable();
        assert_eq!(keys, known);
        let config = Config::default_in("/d".into());
        for documented in DOCUMENTED {
            if let Unset::Value(value) = documented.default {
                let real = config.value_of(documented.key).unwrap();
                assert_eq!(value.trim_matches('"'), real, "{}", documented.key);
            }
        }
    }

    #[test]
    fn the_example_loads_commented_out_and_with_every_key_set() {
        assert_eq!(
            file("deploy/staydown.toml"),
            example(),
            "deploy/staydown.toml: staydown config example > deploy/staydown.toml"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("staydown.toml");
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let environment = [("HOME".to_owned(), "/h".to_owned())].into();
            Config::load(&Above { file: Some(path.clone()), environment, ..Above::default() }).unwrap()
        };
        let unset = load(&example());
        // Refused by a program that cannot do it.
        let all = uncommented(&example());
        let set = load(&if cfg!(feature = "otel") { all } else { all.replace("\notlp_endpoint", "\n#otlp_endpoint") });
        for documented in DOCUMENTED.iter().filter(|d| cfg!(feature = "otel") || d.key != "log.otlp_endpoint") {
            assert_eq!(unset.source_of(documented.key), &crate::config::Source::Default, "{}", documented.key);
            assert_ne!(set.source_of(documented.key), &crate::config::Source::Default, "{}", documented.key);
            if let Unset::Value(_) = documented.default {
                assert_eq!(unset.value_of(documented.key), set.value_of(documented.key));
            }
        }
    }

    /// The example with the sign taken from before each key.
    fn uncommented(text: &str) -> String {
        text.lines().map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line)).fold(
            String::new(),
            |mut all, line| {
                all.push_str(line);
                all.push('\n');
                all
            },
        )
    }

    #[test]
    fn the_handbook_has_this_table() {
        assert!(file("docs/operating.md").contains(&table()), "docs/operating.md lacks this table:\n{}", table());
    }
}
