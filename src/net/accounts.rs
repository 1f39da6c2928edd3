//! Accounts in the local service. A company names them `platform:id`; here, before anything else looks at a request, that
//! becomes the forum's pseudonym, and what the company wrote is wiped (PROTOCOL section 10).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tonic::{Code, Status};
use zeroize::Zeroize as _;

use super::local::subject;
use super::status::{bad_field, refuse_with_fix};
use crate::accounts::{Account, Peppers, Shut, client_key};
use crate::clock;
use crate::engine::Shared;
use crate::keys;
use crate::replica::charter::{ACCOUNTS_LEVEL, Charter};
use crate::replica::ids::{CharterHash, MemberId, TimeMs};
use crate::replica::record::Stance;
use crate::replica::signal::{Alg, Subject};
use crate::replica::view::{Entry, Said, View, Word};
use crate::replica::{Replica, signal};
use crate::wire::local as l;

/// The peppers of the charter in force, opened when they are first needed.
pub(super) struct Accounts {
    /// Where the seal keys are.
    folder: PathBuf,
    /// Those of the charter of this hash.
    opened: Mutex<Option<(CharterHash, Arc<Peppers>)>>,
}

impl Accounts {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, opened: Mutex::new(None) }
    }

    /// The peppers of the charter in force. While one of them is shut the key files are read again each time: whoever
    /// puts the right one there need not restart the node.
    pub(super) fn peppers(&self, replica: &Replica) -> Arc<Peppers> {
        let charter = replica.charters().effective();
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((hash, peppers)) = opened.as_ref()
            && *hash == charter.hash
            && peppers.shut.is_empty()
        {
            return Arc::clone(peppers);
        }
        if charter.peppers.is_empty() {
            return Arc::default();
        }
        let secrets = keys::seal_secrets(&self.folder).unwrap_or_else(|error| {
            tracing::warn!(%error, "a seal key cannot be read");
            Vec::new()
        });
        let peppers = Arc::new(Peppers::of(charter, replica.charters().forum(), replica.me(), &secrets));
        *opened = Some((charter.hash, Arc::clone(&peppers)));
        peppers
    }

    /// What health says of peppers that this node cannot open.
    pub(super) fn shut(&self, replica: &Replica) -> Vec<String> {
        let peppers = self.peppers(replica);
        let line = |(id, why): (&u32, &Shut)| {
            let (what, fix) = told(*why, *id);
            format!("accounts listed under pepper {id} are not found here: {what}; {fix}")
        };
        // Who lists nobody and looks nobody up may have no role for it, or no seal key, for ever.
        peppers.shut.iter().filter(|(_, why)| matches!(why, Shut::NoCopy | Shut::OtherKey)).map(line).collect()
    }

    /// Puts pseudonyms in the place of accounts that are named in `statements`: under the newest pepper, but for words that
    /// answer to what stands under an older one. Refuses what would be inert, and what would list under an older one.
    ///
    /// # Errors
    /// What is missing, in the forum or here, and who can add it.
    pub(super) fn resolve(&self, replica: &Replica, statements: &mut [l::Statement]) -> Result<(), Status> {
        let is_about_one = |statement: &l::Statement| statement.signal.as_ref().is_some_and(is_account);
        if !statements.iter().any(is_about_one) {
            return Ok(());
        }
        permitted(replica.charters().effective())?;
        let peppers = self.peppers(replica);
        let mut named = statements.iter_mut().enumerate().filter(|(_, statement)| is_about_one(statement));
        named.try_for_each(|(index, statement)| resolve_one(replica, &peppers, statement, index))
    }
    /// The subjects that `signals` ask for, each with the place of its signal: an account is asked for under every pepper
    /// that is open. Only for accounts is the replica looked at.
    ///
    /// # Errors
    /// The field that is wrong, or why accounts cannot be looked up.
    pub(super) fn queries(&self, shared: &Shared, signals: &mut [l::Signal]) -> Result<Vec<(usize, Subject)>, Status> {
        let mut queries = Vec::with_capacity(signals.len());
        let mut opened = None;
        for (index, signal) in signals.iter_mut().enumerate() {
            let field = || format!("signals[{index}]");
            if !is_account(signal) {
                queries.push((index, subject(Some(signal), &field())?));
                continue;
            }
            let subjects = self.subjects_under(&shared.replica(), signal, &field(), &mut opened)?;
            queries.extend(subjects.into_iter().map(|subject| (index, subject)));
        }
        Ok(queries)
    }

    /// What one signal may be listed as: the newest pseudonym first.
    ///
    /// # Errors
    /// As [`Accounts::queries`].
    pub(super) fn subjects(
        &self,
        replica: &Replica,
        signal: &mut l::Signal,
        field: &str,
    ) -> Result<Vec<Subject>, Status> {
        self.subjects_under(replica, signal, field, &mut None)
    }

    /// `opened` are the peppers once they were needed: while one is shut, each look at them reads the key files.
    fn subjects_under(
        &self,
        replica: &Replica,
        signal: &mut l::Signal,
        field: &str,
        opened: &mut Option<Arc<Peppers>>,
    ) -> Result<Vec<Subject>, Status> {
        if !is_account(signal) {
            return Ok(vec![subject(Some(signal), field)?]);
        }
        let charter = replica.charters().effective();
        permitted(charter)?;
        let account = match named(signal, field)? {
            Named::Pseudonym(subject) => return Ok(vec![subject]),
            Named::Account(account) => account,
        };
        signal.value.zeroize();
        let peppers = opened.get_or_insert_with(|| self.peppers(replica));
        if let (true, Some(Err(why))) = (peppers.open.is_empty(), peppers.newest()) {
            return Err(cannot_open(why, charter));
        }
        Ok(peppers.pseudonyms(&account))
    }
}

fn resolve_one(replica: &Replica, peppers: &Peppers, statement: &mut l::Statement, index: usize) -> Result<(), Status> {
    let charter = replica.charters().effective();
    let field = |name: &str| format!("statements[{index}].{name}");
    let aim = Aim::of(statement);
    let Some(signal) = &mut statement.signal else { return Ok(()) };
    let about = match named(signal, &field("signal"))? {
        Named::Pseudonym(subject) => subject,
        Named::Account(account) => match (aim.place(replica, &peppers.pseudonyms(&account)), peppers.newest()) {
            (Some(subject), _) => subject,
            (None, Some(Ok((id, pepper)))) => account.pseudonym(id, pepper),
            (None, Some(Err(why))) => return Err(cannot_open(why, charter)),
            (None, None) => return Err(off(charter)),
        },
    };
    replace(signal, &about);
    if aim == Aim::Newest {
        under_newest(&about, charter, &field("signal"))?;
    }
    statement.client_key = signed_key(&statement.client_key, &about, peppers);
    term(statement, charter, &field)
}

/// Under which of an account's pseudonyms a word belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// It lists or refers: under the newest pepper and no other, so that an older one ends.
    Newest,
    /// It takes a word of ours back, of the family of this one: where that stands.
    Ours(Word),
    /// It is against what is listed, or beside it, or certifies it: where the account is listed.
    Listed,
}

impl Aim {
    fn of(statement: &l::Statement) -> Self {
        if let Some(vote) = &statement.retract {
            return if vote.yes { Self::Listed } else { Self::Ours(Word::Retract(true)) };
        }
        if let Some(allow) = &statement.allow {
            return if allow.yes { Self::Listed } else { Self::Ours(Word::Allow(true)) };
        }
        if let Some(referral) = &statement.referral {
            return if referral.open { Self::Newest } else { Self::Ours(Word::Referral(true)) };
        }
        match statement.stance() {
            l::Stance::Submit | l::Stance::Endorse => Self::Newest,
            l::Stance::Neutral => Self::Ours(Word::Stance(Stance::Submit)),
            l::Stance::Dispute | l::Stance::Unspecified => Self::Listed,
        }
    }

    /// The first of `pseudonyms`, the newest first, under which there is what the word is aimed at.
    fn place(self, replica: &Replica, pseudonyms: &[Subject]) -> Option<Subject> {
        self.seen_in(replica.view(), replica.me(), pseudonyms, clock::now())
    }

    fn seen_in(self, view: &View, me: MemberId, pseudonyms: &[Subject], now: TimeMs) -> Option<Subject> {
        let first = |fits: &dyn Fn(&Entry) -> bool| {
            pseudonyms.iter().find(|subject| view.entry(subject, now).is_some_and(|entry| fits(&entry))).cloned()
        };
        match self {
            Self::Newest => None,
            Self::Ours(word) => {
                first(&|entry| entry.said.iter().any(|said| said.member == me && takes(word, said, now)))
            }
            Self::Listed => first(&|entry| entry.counts.support + entry.counts.small_support > 0)
                .or_else(|| first(&|entry| entry.status.matches())),
        }
    }
}

/// Whether `said` stands at `now`, and is of the family of `word`.
fn takes(word: Word, said: &Said, now: TimeMs) -> bool {
    let stands = !said.word.is_neutral() && !said.expires.has_ended(now);
    stands && std::mem::discriminant(&said.word) == std::mem::discriminant(&word)
}

/// Refuses a pseudonym under another pepper than the newest: a rotation takes an older one out when all that was listed
/// before it was superseded has ended.
fn under_newest(about: &Subject, charter: &Charter, field: &str) -> Result<(), Status> {
    let newest = charter.peppers.last_key_value().map_or(0, |(id, _)| *id);
    if about.param() == newest {
        return Ok(());
    }
    let got = about.param();
    let what =
        format!("{field}: is under pepper {got}, expected pepper {newest}: nothing is listed under an older one");
    let fix = "name the account, which your node puts under the newest pepper: --account platform:id";
    Err(refuse_with_fix(Code::FailedPrecondition, "PEPPER", what, fix))
}

/// The submitter's key as it may stand in a record about `about`; none where its pepper is shut here, for the key itself
/// may tell the account.
fn signed_key(key: &Bytes, about: &Subject, peppers: &Peppers) -> Bytes {
    match peppers.open.get(&about.param()) {
        Some(pepper) if !key.is_empty() => client_key(key, pepper).to_vec().into(),
        _ => Bytes::new(),
    }
}

/// An account as a company names it, or as the forum does.
enum Named {
    Account(Account),
    Pseudonym(Subject),
}

fn is_account(signal: &l::Signal) -> bool {
    let begins = || signal.value.split_once(':').map(|(begin, _)| begin);
    let name = if signal.r#type.is_empty() { begins().unwrap_or_default() } else { &signal.r#type };
    Alg::from_name(name) == Some(Alg::Account)
}

fn named(signal: &l::Signal, field: &str) -> Result<Named, Status> {
    let value = match signal.value.split_once(':') {
        Some((prefix, rest)) if Alg::from_name(prefix) == Some(Alg::Account) => rest,
        _ => &signal.value,
    };
    // A platform's name begins with a letter, a pepper's number does not.
    if value.trim_start().starts_with(|c: char| c.is_ascii_digit()) {
        let parsed = signal::parse(Alg::Account.name(), value);
        return parsed.map(Named::Pseudonym).map_err(|error| bad_field(field, error.to_string()));
    }
    Account::parse(value).map(Named::Account).map_err(|error| bad_field(field, error.to_string()))
}

fn replace(signal: &mut l::Signal, subject: &Subject) {
    signal.value.zeroize();
    *signal = l::Signal { r#type: subject.type_name().into_owned(), value: subject.value() };
}

/// What is said of an account ends: the forum's time at most. A dispute that names no end takes all of it, for it lists
/// nobody.
fn term(statement: &mut l::Statement, charter: &Charter, field: &impl Fn(&str) -> String) -> Result<(), Status> {
    let now = clock::now();
    let latest = now.plus(charter.policy.account_ttl_max_ms);
    let days = charter.policy.account_ttl_max_ms / TimeMs::DAY_MS;
    let check = |name: &str, ends: u64| {
        if ends == 0 || TimeMs(ends) > latest {
            let got = if ends == 0 { "is missing".to_owned() } else { format!("is {ends}") };
            let why = format!(
                "{got}, expected a time within {days} days from now ({}): accounts are listed for a while",
                now.0
            );
            return Err(bad_field(field(name), why));
        }
        Ok(())
    };
    if let Some(allow) = statement.allow.as_ref().filter(|allow| allow.yes) {
        return check("allow.expires_ms", allow.expires_ms);
    }
    if let Some(referral) = statement.referral.as_ref().filter(|referral| referral.open) {
        return check("referral.deadline_ms", referral.deadline_ms);
    }
    match statement.stance() {
        l::Stance::Dispute if statement.expires_ms == 0 => {
            statement.expires_ms = latest.0;
            Ok(())
        }
        l::Stance::Submit | l::Stance::Endorse | l::Stance::Dispute => check("expires_ms", statement.expires_ms),
        l::Stance::Neutral | l::Stance::Unspecified => Ok(()),
    }
}

fn permitted(charter: &Charter) -> Result<(), Status> {
    if charter.peppers.is_empty() { Err(off(charter)) } else { Ok(()) }
}

fn off(charter: &Charter) -> Status {
    let what = format!("accounts are off in this forum: charter {} has no pepper", charter.version);
    let level = if charter.semantics < ACCOUNTS_LEVEL { "staydown charter set-semantics 3, then " } else { "" };
    let fix = format!("ask the founders whether the forum wants accounts: {level}staydown charter set-accounts on");
    refuse_with_fix(Code::FailedPrecondition, "ACCOUNTS_OFF", what, fix)
}

fn cannot_open(why: Shut, charter: &Charter) -> Status {
    let newest = charter.peppers.last_key_value().map_or(0, |(id, _)| *id);
    let (what, fix) = told(why, newest);
    refuse_with_fix(Code::FailedPrecondition, "PEPPER", format!("pepper {newest} is not open here: {what}"), fix)
}

fn told(why: Shut, pepper: u32) -> (String, &'static str) {
    match why {
        Shut::Roles => (
            "our company's roles do not deal with accounts".to_owned(),
            "ask the founders: staydown charter set-role, and share-peppers into the same file",
        ),
        Shut::NoSealKey => (
            "the charter has no seal key of our company".to_owned(),
            "staydown key rotate --seal, and have the founders admit the request that it writes",
        ),
        Shut::NoCopy => (
            "the charter has no copy of it for our company".to_owned(),
            "ask the founders: staydown charter share-peppers, at a member that has one",
        ),
        Shut::OtherKey => (
            format!("the copy of pepper {pepper} in the charter opens with none of our seal keys"),
            "put the right seal-key back into the folder keys (a backup has it), or staydown key rotate --seal",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::Pepper;
    use crate::replica::ids::Class;
    use crate::replica::proto;
    use crate::replica::testing::{FULL, START, TestForum, account, id, opinion_with, with_peppers};

    fn signal(type_name: &str, value: &str) -> l::Signal {
        l::Signal { r#type: type_name.into(), value: value.into() }
    }

    #[test]
    fn accounts_are_told_from_hashes_and_clear_names_from_pseudonyms() {
        let digits = "ab".repeat(32);
        for (type_name, value, expected) in [
            ("account", "example:4711", Some(false)),
            (" Account", "example:4711", Some(false)),
            ("", "account:example:4711", Some(false)),
            ("account", "account:example:4711", Some(false)),
            ("account", &format!("3:{digits}"), Some(true)),
            ("", &format!("account:3:{digits}"), Some(true)),
            ("sha256", &digits, None),
            ("", "md5:00", None),
            ("", "example:4711", None),
        ] {
            let signal = signal(type_name, value);
            assert_eq!(is_account(&signal), expected.is_some(), "{type_name} {value}");
            if let Some(is_pseudonym) = expected {
                let named = named(&signal, "signal").unwrap();
                assert_eq!(matches!(named, Named::Pseudonym(_)), is_pseudonym, "{type_name} {value}");
            }
        }
        for (value, expected) in
            [("3:abcd", "got 4 characters, expected 64"), ("0:00", "pepper"), ("nothing", "platform:id")]
        {
            let why = named(&signal("account", value), "signal").err().unwrap();
            assert!(why.message().contains(expected), "{}", why.message());
        }
    }

    #[test]
    fn what_takes_back_goes_where_our_word_stands_and_what_lists_under_the_newest_pepper_only() {
        let forum = TestForum::with(&[("a", FULL), ("b", FULL)], |c| with_peppers(c, &[1, 2, 3]));
        let (mut ring, mut view) = (forum.keyring(), View::new(&forum.charter(), START));
        let ends = START.plus(TimeMs::DAY_MS);
        // 1 lists it under pepper 1 and 2; under 3 only 2 says something: a dispute.
        for (member, stance, pepper) in [(1, 1, 1), (1, 1, 2), (2, 3, 3)] {
            let say = |opinion: &mut proto::Opinion| {
                opinion.subject = Some(account(5, pepper).to_proto());
                opinion.expires_ms = ends.0;
            };
            let block = forum.log(member, pepper, Class::Normal).block(&mut ring, &[opinion_with(5, stance, say)]);
            view.fold(block.header(), block.records());
        }
        let names = [3, 2, 1].map(|pepper| account(5, pepper));
        let says = |stance: l::Stance| l::Statement { stance: stance.into(), ..Default::default() };
        let retract =
            |yes| l::Statement { retract: Some(l::RetractVote { yes, ..Default::default() }), ..Default::default() };
        let allow =
            |yes| l::Statement { allow: Some(l::Certification { yes, ..Default::default() }), ..Default::default() };
        let referral =
            |open| l::Statement { referral: Some(l::Referral { open, ..Default::default() }), ..Default::default() };
        let place = |member, statement: &l::Statement, t| {
            Aim::of(statement).seen_in(&view, id(member), &names, t).map(|subject| subject.param())
        };
        let now = START.plus(9);
        for (member, statement, expected) in [
            (1, says(l::Stance::Neutral), Some(2)),
            (2, says(l::Stance::Neutral), Some(3)),
            (2, says(l::Stance::Dispute), Some(2)),
            (2, retract(true), Some(2)),
            (1, retract(false), None),
            (1, allow(false), None),
            (1, referral(false), None),
        ] {
            assert_eq!(place(member, &statement, now), expected, "{member} {statement:?}");
        }
        assert_eq!(place(1, &says(l::Stance::Neutral), ends), None, "it has ended by itself");
        assert_eq!(Aim::of(&allow(true)), Aim::Listed, "what is listed under an older pepper is certified there");
        for statement in [says(l::Stance::Submit), says(l::Stance::Endorse), referral(true)] {
            assert_eq!(Aim::of(&statement), Aim::Newest, "{statement:?}");
        }
        under_newest(&account(5, 3), &forum.charter(), "signal").unwrap();
        let why = under_newest(&account(5, 2), &forum.charter(), "statements[0].signal").unwrap_err();
        assert!(why.message().contains("is under pepper 2, expected pepper 3"), "{}", why.message());
    }

    #[test]
    fn a_given_key_is_hidden_under_its_own_pepper_or_not_signed_at_all() {
        let pepper = |number| Pepper::from_bytes([number; 32]);
        let mut peppers = Peppers::default();
        peppers.open.insert(1, pepper(1));
        peppers.shut.insert(2, Shut::OtherKey);
        let key = Bytes::from_static(&[7; 16]);
        assert_eq!(signed_key(&key, &account(5, 1), &peppers)[..], client_key(&key, &pepper(1)));
        assert!(signed_key(&key, &account(5, 2), &peppers).is_empty());
        assert!(signed_key(&Bytes::new(), &account(5, 1), &peppers).is_empty());
        peppers.open.insert(2, pepper(2));
        assert_eq!(signed_key(&key, &account(5, 1), &peppers)[..], client_key(&key, &pepper(1)), "not the newest's");
    }

    #[test]
    fn a_word_on_an_account_has_an_end_and_a_dispute_is_given_one() {
        let charter = TestForum::with(&[("a", 1)], |c| with_peppers(c, &[1])).charter();
        let day = TimeMs::DAY_MS;
        let ends = |statement: l::Statement| {
            let mut statement = statement;
            let field = |name: &str| format!("statements[0].{name}");
            term(&mut statement, &charter, &field).map(|()| statement.expires_ms).map_err(|s| s.message().to_owned())
        };
        let says =
            |stance: l::Stance, expires_ms| l::Statement { stance: stance.into(), expires_ms, ..Default::default() };
        let soon = clock::now().0 + day;
        let late = clock::now().0 + 31 * day;
        assert_eq!(ends(says(l::Stance::Submit, soon)), Ok(soon));
        assert_eq!(ends(says(l::Stance::Neutral, 0)), Ok(0));
        assert!(ends(says(l::Stance::Dispute, 0)).unwrap() > soon);
        for (statement, expected) in [
            (says(l::Stance::Submit, 0), "statements[0].expires_ms: is missing, expected a time within 30 days"),
            (says(l::Stance::Endorse, late), "expires_ms: is "),
            (says(l::Stance::Dispute, late), "within 30 days"),
            (
                l::Statement {
                    allow: Some(l::Certification { yes: true, expires_ms: late, certificate: 0 }),
                    ..Default::default()
                },
                "allow.expires_ms",
            ),
            (
                l::Statement { referral: Some(l::Referral { open: true, ..Default::default() }), ..Default::default() },
                "referral.deadline_ms: is missing",
            ),
        ] {
            let why = ends(statement).unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
    }
}
