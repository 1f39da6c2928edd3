//! Who this node is: its keys and certificate, whether the charter knows them, and whether its clock can be right.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{Findings, Here, Level, files, split};
use crate::cli::init;
use crate::clock;
use crate::config::Config;
use crate::keys::{CertificateFacts, EXAMPLE_PINS, NodeKeys, TlsIdentity, strict_unless_example};
use crate::net::expiry;
use crate::replica::charter::{Charter, Member};
use crate::replica::ids::TimeMs;
use crate::web::WebTls;

/// Semantics level from which on accounts may be listed, for which a seal key is needed.
const LEVEL_OF_ACCOUNTS: u32 = 3;
const ADMIT: &str = "ask a founder to admit this node's keys: staydown charter admit join-request.sdj --new-key";

/// A clock that is behind its charter is wrong, whatever its peers say.
pub(super) fn clock(charter: Option<&Charter>, found: &mut Findings) {
    at(clock::now(), charter.map(|charter| charter.issued), found);
}

fn at(now: TimeMs, issued: Option<TimeMs>, found: &mut Findings) {
    match issued {
        Some(issued) if now < issued => {
            let behind = files::span(issued.since(now));
            found.fail(
                "clock",
                format!("this machine's clock is {behind} before the charter was issued"),
                "set the clock",
            );
        }
        Some(_) => found.ok("clock", "it is later than the charter"),
        None => {}
    }
}

/// Keys and certificate; what the node would show itself with, if it can be read.
pub(super) fn keys(config: &Config, here: &Here<'_>, found: &mut Findings) -> Option<TlsIdentity> {
    let folder = config.data.join(init::KEYS_FOLDER);
    let keys = match strict_unless_example(|permissions| NodeKeys::load_with(&folder, permissions)) {
        Ok(keys) => keys,
        Err(error) => {
            found.failure("keys", Level::Fail, error.into());
            return None;
        }
    };
    certificate(&keys.tls, found);
    if EXAMPLE_PINS.contains(&keys.tls.pin()) {
        let what = "these are the published example keys: everybody has them";
        found.warn("keys", what, "use them on loopback only; staydown init makes keys of your own");
    }
    match (here.charter(), here.member()) {
        (Some(charter), Some(member)) => in_charter(&keys, charter, member, found),
        (Some(charter), None) => {
            found.fail("keys", format!("our company is not in charter {}", charter.version), ADMIT);
        }
        (None, _) => {}
    }
    Some(keys.tls)
}

fn certificate(tls: &TlsIdentity, found: &mut Findings) {
    let (facts, now) = (tls.facts(), clock::now());
    if facts.not_before > now {
        let ahead = files::span(facts.not_before.since(now));
        let what = format!("the certificate begins to be valid in {ahead} only");
        return found.fail("keys", what, "set the clock, then staydown cert renew");
    }
    match expiry::of_ours(facts.not_after, now) {
        Some((health, why)) => {
            let why = why.replacen("; renew it: ", "; fix: ", 1);
            found.failure("keys", Level::of(health), split(&why));
        }
        None => found.ok("keys", format!("the certificate is valid for {}", files::span(facts.not_after.since(now)))),
    }
}

/// The certificate that browsers see, as the node would read it, and when it ends.
pub(super) fn console(config: &Config, found: &mut Findings) {
    let (Some(certificate), Some(key)) = (&config.web.certificate, &config.web.key) else { return };
    if let Err(error) = WebTls::read(certificate, key) {
        return found.fail("console", error.to_string(), "set web.certificate and web.key to a pair of PEM files");
    }
    let first = CertificateDer::from_pem_file(certificate).map_err(|error| error.to_string());
    match first.and_then(|der| CertificateFacts::of(&der).map_err(|error| error.to_string())) {
        Err(why) => found.fail("console", why, "renew the certificate of the console"),
        Ok(facts) => match expiry::of_ours(facts.not_after, clock::now()) {
            Some((health, _)) => {
                let left = files::span(facts.not_after.since(clock::now()));
                let fix = "renew it, then systemctl reload staydown".to_owned();
                found.add("console", Level::of(health), format!("its certificate ends in {left}"), Some(fix));
            }
            None => {
                found.ok(
                    "console",
                    format!("its certificate is valid for {}", files::span(facts.not_after.since(clock::now()))),
                );
            }
        },
    }
}

fn in_charter(keys: &NodeKeys, charter: &Charter, member: &Member, found: &mut Findings) {
    let version = charter.version;
    if !member.is_active() {
        let fix = "ask the founders; staydown charter show";
        found.fail("charter", format!("{} is no active member in charter {version}", member.name), fix);
    }
    if !member.pins.contains(&keys.tls.pin()) {
        found.fail("keys", format!("the TLS key {} is not in charter {version}", keys.tls.pin()), ADMIT);
    } else if member.root_key != keys.root.verifying_key() {
        let fix = "put the log root key back that the charter lists, or ask a founder to admit this one";
        found.fail("keys", format!("the log root key is not the one in charter {version}"), fix);
    } else {
        found.ok("keys", format!("charter {version} lists them for {}", member.name));
    }
    if charter.semantics >= LEVEL_OF_ACCOUNTS {
        seal(keys, member, found);
    }
    if charter.valid_until > TimeMs(0) && clock::now() > charter.valid_until {
        found.warn("charter", format!("charter {version} is stale"), "founders: staydown charter renew --days 400");
    }
}

fn seal(keys: &NodeKeys, member: &Member, found: &mut Findings) {
    let ours = keys.seal.as_ref().and_then(crate::accounts::SealSecret::public);
    match (ours, member.seal_key) {
        (Some(ours), Some(listed)) if ours == listed => found.ok("keys", "the seal key is the charter's"),
        (None, None) => {
            found.warn("keys", "there is no seal key: accounts cannot be looked up here", "staydown key rotate --seal");
        }
        (_, _) => found.warn(
            "keys",
            "the seal key is not the charter's: accounts cannot be looked up here",
            "put keys/seal-key back from a backup, or staydown key rotate --seal",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_the_charter_fails() {
        let day = TimeMs::DAY_MS;
        for (now, issued, expected) in [
            (10 * day, Some(TimeMs(7 * day)), vec![("OK", "it is later than the charter")]),
            (
                7 * day,
                Some(TimeMs(10 * day)),
                vec![("FAIL", "this machine's clock is 3 days before the charter was issued")],
            ),
            (7 * day, None, vec![]),
        ] {
            let mut found = Findings::default();
            at(TimeMs(now), issued, &mut found);
            let told: Vec<_> = found.0.iter().map(|finding| (finding.level, finding.what.as_str())).collect();
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn the_certificate_of_the_console_is_read_as_the_node_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default_in(folder.path().to_owned());
        let told = |config: &Config| {
            let mut found = Findings::default();
            console(config, &mut found);
            found.0.into_iter().map(|finding| finding.level).collect::<Vec<_>>()
        };
        assert!(told(&config).is_empty());
        let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        config.web.certificate = Some(certificate.clone());
        config.web.key = Some(key.clone());
        assert_eq!(told(&config), ["FAIL"]);
        let pair = rcgen::generate_simple_self_signed(vec!["hashes.example.org".to_owned()]).unwrap();
        std::fs::write(&certificate, pair.cert.pem()).unwrap();
        std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        assert_eq!(told(&config), ["OK"]);
    }

    #[test]
    fn a_certificate_that_ends_is_told_with_its_cure() {
        let now = clock::now();
        let terms = |life| crate::keys::CertificateTerms {
            not_after: now.plus(life),
            ..crate::keys::CertificateTerms::usual("x", now)
        };
        for (days, level) in [(60, "OK"), (20, "WARN"), (2, "FAIL")] {
            let mut found = Findings::default();
            certificate(&TlsIdentity::create(&terms(days * TimeMs::DAY_MS)).unwrap(), &mut found);
            assert_eq!(found.0[0].level, level, "{days} days");
            assert_eq!(found.0[0].fix.as_deref(), (level != "OK").then_some("staydown cert renew"));
        }
    }
}
