//! Web addresses in the local service. A company gives them in clear to its own node; here, before anything else looks at a
//! request, they become hashes of their expressions, and what the company wrote is wiped (docs/protocol.md, "Web
//! addresses").

use std::collections::BTreeMap;

use tonic::Status;
use zeroize::Zeroize as _;

use super::status::{bad_field, bad_field_with_fix};
use crate::replica::signal::url::{self, Canonical, Expression};
use crate::replica::signal::{Alg, GuardRefusal, Subject, address_in_clear};
use crate::replica::view::Entry;
use crate::wire::local as l;

/// The addresses of one lookup that were given in clear.
#[derive(Default)]
pub(super) struct Addresses {
    /// Of which signal, and what its expressions are listed as.
    asked: Vec<(usize, Vec<Subject>)>,
    /// Without their texts.
    expressions: BTreeMap<Subject, Expression>,
}

impl Addresses {
    /// Those among `signals`.
    ///
    /// # Errors
    /// The field that is none.
    pub(super) fn of(signals: &[l::Signal]) -> Result<Self, Status> {
        let mut addresses = Self::default();
        for (index, signal) in signals.iter().enumerate() {
            let Some(address) = in_clear(signal, &format!("signals[{index}]"))? else { continue };
            let all: Vec<_> = address.expressions().into_iter().map(without_text).collect();
            addresses.asked.push((index, all.iter().map(|one| one.subject.clone()).collect()));
            addresses.expressions.extend(all.into_iter().map(|one| (one.subject.clone(), one)));
        }
        Ok(addresses)
    }

    /// What to ask for besides the signals' own subjects, which are the first expressions.
    pub(super) fn queries(&self) -> impl Iterator<Item = (usize, Subject)> {
        self.asked.iter().flat_map(|(index, all)| all.iter().skip(1).map(|subject| (*index, subject.clone())))
    }

    /// Whether an entry that was found counts as a match: a whole host waits for a second full member.
    pub(super) fn count(&self, entry: &Entry) -> bool {
        match self.expressions.get(&entry.subject) {
            Some(expression) => url::counts_for_match(expression, entry),
            None => entry.subject.known_alg() != Some(Alg::Url) || url::counts_unseen(entry),
        }
    }
}

/// An address in clear is not kept for as long as its lookup takes.
fn without_text(mut expression: Expression) -> Expression {
    expression.text.zeroize();
    expression
}

/// Puts hashes in the place of addresses that `statements` name. Refuses to list a whole host where that was not asked for.
///
/// # Errors
/// The field that is none, or why it is not listed.
pub(super) fn resolve(statements: &mut [l::Statement]) -> Result<(), Status> {
    for (index, statement) in statements.iter_mut().enumerate() {
        let Some(address) = address_of(statement, index)? else { continue };
        let subject = address.subject();
        if let Some(signal) = &mut statement.signal {
            signal.value.zeroize();
            *signal = l::Signal { r#type: subject.type_name().into_owned(), value: subject.value() };
        }
    }
    Ok(())
}

/// The address in clear that a statement is about, if it is.
///
/// # Errors
/// As [`resolve`].
pub(super) fn address_of(statement: &l::Statement, index: usize) -> Result<Option<Canonical>, Status> {
    let field = format!("statements[{index}].signal");
    let address = statement.signal.as_ref().map_or(Ok(None), |signal| in_clear(signal, &field))?;
    let lists = matches!(statement.stance(), l::Stance::Submit | l::Stance::Endorse);
    if let Some(address) = address.as_ref().filter(|_| lists) {
        listable(address, statement.whole_host, &field)?;
    }
    Ok(address)
}

/// Wipes the addresses of a lookup whose queries are made.
pub(super) fn forget(signals: &mut [l::Signal]) {
    for signal in signals.iter_mut().filter(|signal| matches!(in_clear(signal, ""), Ok(Some(_)))) {
        signal.value.zeroize();
    }
}

fn listable(address: &Canonical, whole_host: bool, field: &str) -> Result<(), Status> {
    if address.is_too_broad() {
        let refusal = GuardRefusal::HostTooBroad;
        let fix = "name a page, or a directory, which ends in a slash";
        return Err(bad_field_with_fix(field, refusal.to_string(), refusal.code(), fix));
    }
    if address.is_whole_host() && !whole_host {
        let why = "is a whole host, and every page on it and on the hosts below it would be listed";
        let fix = "name a page or a directory, which ends in a slash, or set whole_host";
        return Err(bad_field_with_fix(field, why, "WHOLE_HOST", fix));
    }
    Ok(())
}

fn in_clear(signal: &l::Signal, field: &str) -> Result<Option<Canonical>, Status> {
    address_in_clear(&signal.r#type, &signal.value).map_err(|error| bad_field(field, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(r#type: &str, value: &str) -> l::Signal {
        l::Signal { r#type: r#type.to_owned(), value: value.to_owned() }
    }

    fn statement(value: &str, stance: l::Stance, whole_host: bool) -> l::Statement {
        l::Statement { signal: Some(signal("url", value)), stance: stance.into(), whole_host, ..Default::default() }
    }

    #[test]
    fn an_address_becomes_the_hash_of_its_expression_and_is_forgotten() {
        let mut statements = [statement("https://Example.org/videos/?q#x", l::Stance::Submit, false)];
        resolve(&mut statements).unwrap();
        let expected = url::canonical("example.org/videos/?q").unwrap().subject();
        assert_eq!(statements[0].signal, Some(signal("url", &expected.value())));
        resolve(&mut statements).unwrap();
        assert_eq!(statements[0].signal, Some(signal("url", &expected.value())), "a hash stays");
        let mut signals = [signal("", "https://example.org/a"), signal("md5", "00"), signal("url", &expected.value())];
        forget(&mut signals);
        assert_eq!([signals[0].value.as_str(), &signals[1].value, &signals[2].value], ["", "00", &expected.value()]);
    }

    #[test]
    fn a_whole_host_is_listed_only_where_that_was_asked_for() {
        for (value, stance, whole_host, expected) in [
            ("https://example.org/", l::Stance::Submit, false, Some("WHOLE_HOST")),
            ("example.org", l::Stance::Endorse, false, Some("WHOLE_HOST")),
            ("example.org", l::Stance::Submit, true, None),
            ("example.org", l::Stance::Dispute, false, None),
            ("example.org/?q", l::Stance::Submit, false, None),
            ("co.uk", l::Stance::Submit, true, Some("HOST_TOO_BROAD")),
            ("localhost", l::Stance::Submit, true, Some("HOST_TOO_BROAD")),
        ] {
            let refused = resolve(&mut [statement(value, stance, whole_host)]).err();
            let reason =
                refused.map(|status| status.metadata().get("staydown-reason").unwrap().to_str().unwrap().to_owned());
            assert_eq!(reason.as_deref(), expected, "{value} {stance:?}");
        }
    }

    #[test]
    fn a_lookup_asks_for_every_expression_once() {
        let signals = [signal("md5", "00"), signal("url", "https://a.example.org/b/c?d")];
        let addresses = Addresses::of(&signals).unwrap();
        let queries: Vec<_> = addresses.queries().collect();
        assert_eq!(queries.len() + 1, url::canonical(&signals[1].value).unwrap().expressions().len());
        assert!(queries.iter().all(|(index, subject)| *index == 1 && addresses.expressions.contains_key(subject)));
        assert!(addresses.expressions.values().all(|expression| expression.text.is_empty()));
        assert!(Addresses::of(&[signal("url", "mailto:a@b")]).is_err());
    }
}
