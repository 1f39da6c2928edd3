//! `man`: a page for each command, and one for the settings file, for packages to install.

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::Invocation;
use super::failure::{Exit, Outcome, io_failure};
use crate::config::documented::{DOCUMENTED, Unset};
use crate::config::{CONFIG_FILE, SYSTEM_FILE};

/// What a page belongs to, in its head.
const MANUAL: &str = "staydown";

/// Exit codes, for the page of the program.
const EXIT_STATUS: [(&str, &str); 13] = [
    ("0", "it worked; for match: it matches"),
    ("1", "it did not work"),
    ("2", "the command line makes no sense"),
    ("3", "no match, or not found"),
    ("4", "refused by policy or by a peer"),
    ("5", "the node cannot be reached"),
    ("6", "something does not verify"),
    ("65", "an input file is bad"),
    ("70", "a bug in this program"),
    ("73", "another process works in the data directory"),
    ("74", "reading or writing failed"),
    ("75", "stopped after a storage failure"),
    ("78", "the settings cannot be used"),
];

#[derive(Args)]
pub(super) struct ManArgs {
    /// The folder for the pages; it is made if need be
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn man(args: &ManArgs, program: Command, at: &Invocation) -> Outcome {
    std::fs::create_dir_all(&args.out).map_err(io_failure(format!("cannot create {}", args.out.display())))?;
    let pages = pages(program).map_err(io_failure("cannot make the pages"))?;
    for (name, page) in &pages {
        let path = args.out.join(name);
        std::fs::write(&path, page).map_err(io_failure(format!("cannot write {}", path.display())))?;
    }
    at.terminal.talk(format!("{} pages in {}", pages.len(), shown(&args.out)));
    Ok(Exit::Ok)
}

fn shown(path: &Path) -> String {
    super::show::clean(&path.display().to_string())
}

/// All pages with their names: no date in them, so that one release always has the same.
fn pages(mut program: Command) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    program.build();
    let mut pages = Vec::new();
    collect(&program, true, &mut pages)?;
    pages.push((format!("{CONFIG_FILE}.5"), settings_page()?));
    Ok(pages)
}

fn collect(command: &Command, is_program: bool, pages: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        collect(below, false, pages)?;
    }
    let man = Man::new(command.clone()).manual(MANUAL).source(concat!("staydown ", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render(&mut page)?;
    if is_program {
        end_of_program_page(&mut page)?;
    }
    pages.push((man.get_filename(), page));
    Ok(())
}

fn end_of_program_page(page: &mut Vec<u8>) -> std::io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in EXIT_STATUS {
        roff.control("TP", []);
        roff.text([bold(code)]);
        roff.text([roman(meaning)]);
    }
    roff.control("PP", []);
    roff.text([roman(
        "staydown check ends with 0 OK, 1 WARNING, 2 CRITICAL or 3 UNKNOWN, as monitoring systems expect.",
    )]);
    roff.control("SH", ["FILES"]);
    roff.control("TP", []);
    roff.text([bold(SYSTEM_FILE)]);
    roff.text([roman("the settings of this machine's service, see "), bold("staydown.toml"), roman("(5)")]);
    roff.control("TP", []);
    roff.text([bold("~/.local/share/staydown")]);
    roff.text([roman("the data directory of a person's node")]);
    roff.control("SH", ["ENVIRONMENT"]);
    roff.text([
        roman("Every setting is a variable too, see "),
        bold("staydown.toml"),
        roman("(5). NO_COLOR turns colours off."),
    ]);
    roff.to_writer(page)
}

fn settings_page() -> std::io::Result<Vec<u8>> {
    let mut roff = Roff::new();
    let source = concat!("staydown ", env!("CARGO_PKG_VERSION"));
    roff.control("TH", [CONFIG_FILE, "5", "", source, MANUAL]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("staydown.toml - settings of a staydown node")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(
        "The file is TOML. A node reads the one in its data directory, or the one that --config or STAYDOWN_CONFIG names. Environment variables stand above it, and flags above these. A key or value that is not understood is refused with its line. staydown config example writes a file to begin with, and staydown config show --effective tells each value and where it comes from.",
    )]);
    roff.control("SH", ["SETTINGS"]);
    for documented in DOCUMENTED {
        roff.control("TP", []);
        roff.text([bold(documented.key)]);
        roff.text([roman(documented.meaning)]);
        let default = match documented.default {
            Unset::Value(value) | Unset::Words(value, _) => value,
        };
        let hangup = if documented.on_hangup { " SIGHUP takes a change up." } else { "" };
        roff.text([roman(format!("Default: {default}. Variable: {}.{hangup}", documented.variable()))]);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("staydown"), roman("(1)")]);
    let mut page = Vec::new();
    roff.to_writer(&mut page)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_command_and_the_settings_have_a_page_that_is_the_same_each_time() {
        let made = || pages(crate::cli::Cli::command()).unwrap();
        let all = made();
        let text = |name: &str| {
            let (_, page) = all.iter().find(|(page, _)| page == name).unwrap_or_else(|| panic!("{name} is there"));
            String::from_utf8(page.clone()).unwrap()
        };
        assert!(text("staydown.1").contains("EXIT STATUS"));
        assert!(text("staydown-entry-dispute.1").contains("reason"));
        assert!(text("staydown-doctor.1").contains(".SH NAME"));
        let settings = text("staydown.toml.5");
        assert!(DOCUMENTED.iter().all(|documented| settings.contains(&documented.variable())));
        assert_eq!(all, made());
        let mut names: Vec<_> = all.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
    }

    #[test]
    fn the_page_tells_every_exit_code() {
        let told: Vec<u8> = EXIT_STATUS.iter().map(|(code, _)| code.parse().unwrap()).collect();
        assert_eq!(told, [0, 1, 2, 3, 4, 5, 6, 65, 70, 73, 74, 75, 78]);
    }
}
