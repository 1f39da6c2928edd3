//! `config`: how this node is set up, and where each setting comes from; an example with every key.

use std::path::PathBuf;

use clap::Subcommand;

use super::failure::{Exit, Failure, Outcome};
use super::{Invocation, show};
use crate::answers;
use crate::config::documented::{self, DOCUMENTED, Documented};
use crate::config::{Config, Source};
use crate::wire::files;

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Show what is set, and where: file and line, environment variable, or flag
    Show {
        /// Show every setting, also those that have their default
        #[arg(long)]
        effective: bool,
    },
    /// Write an example of a settings file: every key with its meaning and its default, commented out
    Example {
        /// Write it here, and not to stdout
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

pub(super) fn config(command: &ConfigCommand, at: &Invocation) -> Outcome {
    match command {
        ConfigCommand::Show { effective } => shown(*effective, at),
        ConfigCommand::Example { out } => example(out.as_ref(), at),
    }
}

fn example(out: Option<&PathBuf>, at: &Invocation) -> Outcome {
    let text = documented::example();
    match out {
        Some(path) => files::write_text(path, &text)?,
        None => at.terminal.data(text.trim_end())?,
    }
    Ok(Exit::Ok)
}

fn shown(effective: bool, at: &Invocation) -> Outcome {
    let config = at.config()?;
    let is_shown = |documented: &&Documented| effective || config.source_of(documented.key) != &Source::Default;
    let settings: Vec<_> = DOCUMENTED.iter().filter(is_shown).map(|documented| setting(documented, &config)).collect();
    if at.terminal.json {
        at.terminal.json(&settings)?;
        return Ok(Exit::Ok);
    }
    if settings.is_empty() {
        at.terminal.talk("Nothing is set; every default: staydown config show --effective");
        return Ok(Exit::Ok);
    }
    print(&settings, at)?;
    Ok(Exit::Ok)
}

fn print(settings: &[answers::Setting], at: &Invocation) -> Result<(), Failure> {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["SETTING", "VALUE", "FROM"]);
    for setting in settings {
        let value = if setting.value.is_empty() { setting.default } else { &setting.value };
        table.add_row([setting.key.to_owned(), show::clean(value), show::clean(&setting.source)]);
    }
    at.terminal.data(table.trim_fmt())
}

fn setting(documented: &Documented, config: &Config) -> answers::Setting {
    answers::Setting {
        key: documented.key,
        value: config.value_of(documented.key).unwrap_or_default(),
        source: config.source_of(documented.key).to_string(),
        default: documented.default_text(),
        meaning: documented.meaning,
        variable: documented.variable(),
        on_hangup: documented.on_hangup,
    }
}
