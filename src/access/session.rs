//! Sessions of the console: what a browser shows instead of the token, so that the token is nowhere in it.
//!
//! In memory only: a restart ends them, and the link opens another.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::scope::Scopes;
use super::token::{Token, TokenId};
use super::{Caller, Via};
use crate::clock;
use crate::replica::ids::TimeMs;

/// A session that nobody uses ends after this: a working day's browser that was left open.
pub const IDLE_MS: u64 = 8 * 3_600_000;
/// A session ends after this, used or not.
pub const AGE_MS: u64 = 24 * 3_600_000;
/// Sessions of one token: a person's browsers. One more ends the one that was idle longest.
pub const PER_TOKEN_MAX: usize = 16;
/// Sessions in all. One more ends the one that was idle longest.
pub const SESSIONS_MAX: usize = 1_024;

/// What the browser keeps in its cookie.
pub struct SessionKey(Zeroizing<String>);

impl SessionKey {
    /// The text of the cookie.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// A session, for whoever must know whether it is still open. Nothing can be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId(KeyHash);

/// Who uses a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Which of all.
    pub id: SessionId,
    /// Who, and what may they.
    pub caller: Caller,
    /// What every form of this session carries: no other site knows it.
    pub csrf: String,
}

impl Session {
    /// Whether a form carries this session's own text. Compared by hash, so that the time it takes tells nothing.
    pub fn is_csrf(&self, text: &str) -> bool {
        Sha256::digest(text.as_bytes()) == Sha256::digest(self.csrf.as_bytes())
    }
}

/// SHA-256 of a key: whoever reads this process's memory finds no cookie to use.
type KeyHash = [u8; 32];

#[derive(Debug)]
struct Open {
    token: TokenId,
    session: Session,
    opened: TimeMs,
    used: TimeMs,
    /// Grows with each use of any session: a millisecond has many.
    turn: u64,
}

impl Open {
    fn has_ended(&self, now: TimeMs) -> bool {
        now >= self.opened.plus(AGE_MS) || now >= self.used.plus(IDLE_MS)
    }
}

/// All sessions of a node.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    open: BTreeMap<KeyHash, Open>,
    turns: u64,
}

impl Sessions {
    pub(super) fn open(&mut self, token: &Token, now: TimeMs) -> (SessionKey, Session) {
        self.open.retain(|_, open| !open.has_ended(now));
        let of_token = self.open.values().filter(|open| open.token == token.id).count();
        if of_token >= PER_TOKEN_MAX {
            self.drop_idlest(|open| open.token == token.id);
        }
        if self.open.len() >= SESSIONS_MAX {
            self.drop_idlest(|_| true);
        }
        let key = SessionKey(draw());
        let (name, via) = (token.name.as_str().into(), Via::Console);
        let caller = Caller { name, scopes: token.scopes, via, token: Some(token.id) };
        let id = hash(key.reveal());
        let session = Session { id: SessionId(id), caller, csrf: draw().to_string() };
        let turn = self.next_turn();
        let open = Open { token: token.id, session: session.clone(), opened: now, used: now, turn };
        self.open.insert(id, open);
        (key, session)
    }

    /// The session, if `scopes` knows its token; what the token allows now is what the session may.
    pub(super) fn touch(
        &mut self,
        key: &str,
        now: TimeMs,
        scopes: impl Fn(TokenId) -> Option<Scopes>,
    ) -> Option<Session> {
        let session = self.look(key, now, scopes)?;
        let turn = self.next_turn();
        if let Some(open) = self.open.get_mut(&session.id.0) {
            (open.used, open.turn) = (now, turn);
        }
        Some(session)
    }

    /// Whether a session has not ended.
    pub(super) fn is_open(&self, id: SessionId, now: TimeMs, stands: impl Fn(TokenId) -> bool) -> bool {
        self.open.get(&id.0).is_some_and(|open| !open.has_ended(now) && stands(open.token))
    }

    /// The same as [`touch`](Self::touch), but that it does not count as being used.
    pub(super) fn look(
        &mut self,
        key: &str,
        now: TimeMs,
        scopes: impl Fn(TokenId) -> Option<Scopes>,
    ) -> Option<Session> {
        let hash = hash(key);
        let open = self.open.get_mut(&hash)?;
        let allowed = scopes(open.token).filter(|_| !open.has_ended(now));
        match allowed {
            Some(scopes) => {
                open.session.caller.scopes = scopes;
                Some(open.session.clone())
            }
            None => {
                self.open.remove(&hash);
                None
            }
        }
    }

    pub(super) fn close(&mut self, key: &str) {
        self.open.remove(&hash(key));
    }

    pub(super) fn close_all_of(&mut self, token: TokenId) {
        self.open.retain(|_, open| open.token != token);
    }

    pub(super) fn count(&mut self, now: TimeMs) -> usize {
        self.open.retain(|_, open| !open.has_ended(now));
        self.open.len()
    }

    fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    fn drop_idlest(&mut self, among: impl Fn(&Open) -> bool) {
        let idlest = self.open.iter().filter(|(_, open)| among(open)).min_by_key(|(_, open)| open.turn);
        if let Some(hash) = idlest.map(|(hash, _)| *hash) {
            self.open.remove(&hash);
        }
    }
}

fn draw() -> Zeroizing<String> {
    Zeroizing::new(BASE64URL_NOPAD.encode(&*Zeroizing::new(clock::random::<32>())))
}

fn hash(key: &str) -> KeyHash {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::token::{Tokens, Wanted};
    use crate::access::{Role, Scope};

    const NOW: TimeMs = TimeMs(1_795_000_000_000);

    fn token(tokens: &mut Tokens, name: &str) -> Token {
        let expires = NOW.plus(40 * TimeMs::DAY_MS);
        let wanted = Wanted { name: name.into(), role: Some(Role::Viewer), scopes: Scopes::default(), expires };
        tokens.make(wanted, NOW).unwrap().1
    }

    fn still(_: TokenId) -> Option<Scopes> {
        Some(Role::Viewer.scopes())
    }

    #[test]
    fn a_session_ends_when_it_is_idle_and_when_it_is_old() {
        let mut sessions = Sessions::default();
        let anna = token(&mut Tokens::default(), "anna");
        let (key, _) = sessions.open(&anna, NOW);
        assert!(sessions.touch(key.reveal(), NOW.plus(IDLE_MS - 1), still).is_some());
        assert!(sessions.touch(key.reveal(), NOW.plus(2 * IDLE_MS - 2), still).is_some(), "being used keeps it open");
        assert!(sessions.touch(key.reveal(), NOW.plus(AGE_MS), still).is_none(), "but not for ever");
        let (key, _) = sessions.open(&anna, NOW);
        assert!(sessions.touch(key.reveal(), NOW.plus(IDLE_MS), still).is_none());
        assert!(sessions.open.is_empty());
    }

    #[test]
    fn what_a_browser_does_by_itself_keeps_no_session_open() {
        let mut sessions = Sessions::default();
        let (key, session) = sessions.open(&token(&mut Tokens::default(), "anna"), NOW);
        let late = NOW.plus(IDLE_MS - 1);
        assert!(sessions.look(key.reveal(), late, still).is_some() && sessions.is_open(session.id, late, |_| true));
        assert!(!sessions.is_open(session.id, late, |_| false), "its token is gone");
        assert!(sessions.look(key.reveal(), NOW.plus(IDLE_MS), still).is_none());
        assert!(!sessions.is_open(session.id, late, |_| true), "and it does not come back");
    }

    #[test]
    fn a_session_may_what_its_token_allows_now() {
        let mut sessions = Sessions::default();
        let (key, session) = sessions.open(&token(&mut Tokens::default(), "anna"), NOW);
        assert!(session.caller.scopes.allow(Scope::Lookup));
        let less = |_| Some(Scopes::of(&[Scope::Metrics]));
        assert!(!sessions.touch(key.reveal(), NOW, less).unwrap().caller.scopes.allow(Scope::Lookup));
        assert!(sessions.touch(key.reveal(), NOW, |_| None).is_none());
        assert!(sessions.touch(key.reveal(), NOW, still).is_none(), "what ended stays ended");
    }

    #[test]
    fn sessions_are_bounded_and_the_idlest_goes() {
        let mut sessions = Sessions::default();
        let mut tokens = Tokens::default();
        let anna = token(&mut tokens, "anna");
        let keys: Vec<_> = (0..=PER_TOKEN_MAX).map(|_| sessions.open(&anna, NOW).0).collect();
        let later = NOW.plus(1_000);
        assert!(sessions.touch(keys[0].reveal(), later, still).is_none());
        assert!(keys[1..].iter().all(|key| sessions.touch(key.reveal(), later, still).is_some()));
        for number in 0..SESSIONS_MAX / PER_TOKEN_MAX + 1 {
            let other = token(&mut tokens, &format!("t{number}"));
            (0..PER_TOKEN_MAX).for_each(|_| drop(sessions.open(&other, later)));
        }
        assert_eq!(sessions.count(later), SESSIONS_MAX);
    }

    #[test]
    fn only_a_sessions_own_csrf_text_is_taken() {
        let mut sessions = Sessions::default();
        let anna = token(&mut Tokens::default(), "anna");
        let (one, other) = (sessions.open(&anna, NOW).1, sessions.open(&anna, NOW).1);
        assert!(one.is_csrf(&one.csrf) && !one.is_csrf(&other.csrf) && !one.is_csrf(""));
    }
}
