//! `cert`: the certificate of this node. Peers look at its key and its dates and at nothing else in it.

use clap::Subcommand;

use super::failure::{Exit, Failure, Outcome};
use super::{Invocation, init, show};
use crate::clock;
use crate::keys::{CertificateTerms, TlsIdentity, strict_unless_example};
use crate::replica::ids::TimeMs;
use crate::wire::files::JoinRequest;

#[derive(Subcommand)]
pub(super) enum CertCommand {
    /// Show key and dates of the certificate
    Show,
    /// Make a new certificate for the same key: no charter is needed
    Renew,
}

pub(super) fn cert(command: &CertCommand, at: &Invocation) -> Outcome {
    let data = at.config()?.data;
    init::member_here(&data)?;
    let folder = data.join(init::KEYS_FOLDER);
    let shown = match command {
        CertCommand::Show => strict_unless_example(|permissions| TlsIdentity::load(&folder, permissions))?,
        CertCommand::Renew => {
            let request = JoinRequest::read(&data.join(init::REQUEST_FILE));
            let name = request.map_or_else(|_none| "staydown node".to_owned(), |request| request.applicant.name);
            let terms = CertificateTerms::usual(&name, clock::now());
            strict_unless_example(|permissions| TlsIdentity::certify_in(&folder, &terms, permissions))?
        }
    };
    tell(&shown, at)?;
    if matches!(command, CertCommand::Renew) {
        at.terminal
            .talk("the key is the same, so no charter is needed; a running node takes the certificate up by itself");
    }
    Ok(if left_ms(&shown) == 0 { Exit::Failed } else { Exit::Ok })
}

fn tell(identity: &TlsIdentity, at: &Invocation) -> Result<(), Failure> {
    let facts = identity.facts();
    if at.terminal.json {
        return at.terminal.json(&serde_json::json!({
            "pin": facts.pin.to_string(), "not_before_ms": facts.not_before.0, "not_after_ms": facts.not_after.0,
            "left_ms": left_ms(identity),
        }));
    }
    at.terminal.data(format!("{:<12} {}", "Key", facts.pin))?;
    at.terminal.data(format!("{:<12} {}", "Certificate", dates(identity)))
}

fn left_ms(identity: &TlsIdentity) -> u64 {
    identity.facts().not_after.since(clock::now())
}

/// First and last day of a certificate, and what is left of it.
pub(super) fn dates(identity: &TlsIdentity) -> String {
    let facts = identity.facts();
    let left = match left_ms(identity) {
        0 => "EXPIRED; fix: staydown cert renew".to_owned(),
        ms => format!("{} left", show::counted(usize::try_from(ms / TimeMs::DAY_MS).unwrap_or(usize::MAX), "day")),
    };
    format!("valid from {} to {}, {left}", show::date(facts.not_before), show::date(facts.not_after))
}
