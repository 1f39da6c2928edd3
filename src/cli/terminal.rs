//! Where words go: data on stdout, talk on stderr, questions only to a person.

use std::fmt::Display;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::failure::{Exit, Failure, io_failure};
use super::show;

/// Longest answer to a question, in bytes: a fingerprint in any grouping is far shorter.
const ANSWER_SIZE_MAX: u64 = 4_096;

/// How this command talks.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    /// Data as JSON.
    pub json: bool,
    /// No talk.
    pub quiet: bool,
    /// No questions: the answer is yes.
    pub yes: bool,
}

impl Terminal {
    /// One line of data.
    ///
    /// # Errors
    /// Stdout cannot be written. A reader that has seen enough (`| head`) is no failure.
    pub fn data(&self, line: impl Display) -> Result<(), Failure> {
        match writeln!(io::stdout().lock(), "{line}") {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(io_failure("stdout")(error)),
            _ => Ok(()),
        }
    }

    /// One JSON value of data.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| Failure::new(Exit::Bug, error.to_string()))?;
        self.data(text)
    }

    /// One line of talk. That nobody listens is no failure.
    pub fn talk(&self, line: impl Display) {
        if !self.quiet {
            drop(writeln!(io::stderr().lock(), "{line}"));
        }
    }

    /// How the command failed.
    pub fn fail(&self, failure: &Failure) {
        if self.json {
            drop(self.data(failure.to_json()));
        } else {
            drop(write!(io::stderr().lock(), "{}", failure.to_text()));
        }
    }

    /// Whether a person can be asked.
    pub fn can_ask(&self) -> bool {
        !self.json && !self.yes && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Whether a person can type a secret, which no flag answers.
    pub fn can_type(&self) -> bool {
        !self.json && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// What a person types, without white space around it.
    ///
    /// # Errors
    /// Stdin cannot be read.
    pub fn ask(&self, question: &str) -> Result<String, Failure> {
        drop(write!(io::stderr().lock(), "{question} "));
        let mut answer = String::new();
        io::stdin().lock().take(ANSWER_SIZE_MAX).read_line(&mut answer).map_err(io_failure("stdin"))?;
        Ok(answer.trim().to_owned())
    }

    /// Asks for a yes, if there is a person to ask. Programs have decided already.
    ///
    /// # Errors
    /// The person says no; nothing was done.
    pub fn confirm(&self, question: &str) -> Result<(), Failure> {
        if !self.can_ask() || matches!(self.ask(&format!("{question} [y/N]"))?.as_str(), "y" | "Y" | "yes") {
            return Ok(());
        }
        Err(Failure::new(Exit::Failed, "stopped before doing anything").fix("answer y, or give --yes"))
    }

    /// Tells that `done` of `total` steps are done, where no bar is drawn: a line for each tenth.
    pub fn passed(&self, before: u64, done: u64, total: u64, unit: &str) {
        let tenth = |steps: u64| steps.saturating_mul(10) / total.max(1);
        if !io::stderr().is_terminal() && tenth(done) > tenth(before) {
            self.talk(format!("{} of {} {unit}", show::count(done), show::count(total)));
        }
    }

    /// A bar for `total` steps: drawn on a terminal, silent elsewhere.
    pub fn progress(&self, total: u64, unit: &str) -> ProgressBar {
        let drawn = !self.quiet && !self.json && io::stderr().is_terminal();
        let target = if drawn { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let template = format!("{{wide_bar}} {{human_pos}} of {{human_len}} {unit}, {{per_sec}}, {{eta}} left");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        bar
    }
}
