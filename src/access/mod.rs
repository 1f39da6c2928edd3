//! Who of our own company may ask this node over a network: tokens, the sessions of the console, and who did what.
//!
//! Whoever can open the Unix socket may do everything; its file mode says who that is. Over TCP a caller shows a token,
//! of which the node keeps nothing but a hash, and gets what the token's scopes allow.

pub mod audit;
pub mod scope;
pub mod session;
pub mod token;

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use thiserror::Error;
use tokio::sync::watch;

pub use self::audit::{Act, Audit, AuditError};
pub use self::scope::{Role, Scope, Scopes};
pub use self::session::{Session, SessionId, SessionKey};
pub use self::token::{Secret, Token, TokenError, TokenId, Tokens};
use crate::clock;
use crate::replica::ids::TimeMs;

/// Acts that need no more than reading, and are noted all the same, such as exports: so many at once of one token, and one a
/// second from then on. Whoever may only read must not push what others did out of the trail.
const READERS_NOTES_BURST: NonZeroU32 = NonZeroU32::new(60).expect("60 is not 0");

/// How often an open stream looks whether its token stands, whatever the clock does.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Who asks, as far as the node knows: from a token, or a session that one opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's name.
    pub name: Arc<str>,
    /// What it may.
    pub scopes: Scopes,
    /// By which door it came.
    pub via: Via,
    /// Its token; none: the node asks itself.
    pub token: Option<TokenId>,
}

/// The door that a caller came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A browser with a session.
    Console,
    /// A program with a token, over HTTP.
    Http,
    /// A program with a token, over gRPC.
    Grpc,
}

impl Via {
    /// As the audit trail has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

/// Tokens, sessions and the audit trail of one node.
#[derive(Debug)]
pub struct Access {
    tokens: Mutex<Tokens>,
    sessions: Mutex<session::Sessions>,
    audit: Audit,
    path: Option<PathBuf>,
    /// Moves when a token or a session ends before its time.
    ends: watch::Sender<u64>,
    readers_notes: DefaultKeyedRateLimiter<TokenId>,
}

/// Why access could not be set up or changed.
#[derive(Debug, Error)]
pub enum AccessError {
    /// The tokens.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The trail.
    #[error(transparent)]
    Audit(#[from] AuditError),
}

impl Access {
    /// Reads the tokens in the data directory, and goes on with its audit trail.
    ///
    /// # Errors
    /// A file that is there and cannot be used.
    pub fn open(data: &Path) -> Result<Self, AccessError> {
        let path = data.join(token::TOKENS_FILE);
        let tokens = Tokens::read(&path)?;
        Ok(Self { tokens: Mutex::new(tokens), audit: Audit::open(data)?, path: Some(path), ..Self::none() })
    }

    /// Without a token and without files: nobody gets in over a network.
    pub fn none() -> Self {
        Self {
            tokens: Mutex::default(),
            sessions: Mutex::default(),
            audit: Audit::none(),
            path: None,
            ends: watch::Sender::default(),
            readers_notes: RateLimiter::keyed(Quota::per_second(NonZeroU32::MIN).allow_burst(READERS_NOTES_BURST)),
        }
    }

    /// Who shows this token.
    pub fn bearer(&self, secret: &str, via: Via, now: TimeMs) -> Option<Caller> {
        let tokens = self.tokens();
        let token = tokens.of_secret(secret, now)?;
        Some(Caller { name: token.name.as_str().into(), scopes: token.scopes, via, token: Some(token.id) })
    }

    /// How much longer the token of a caller stands; none: it has ended, or was taken back.
    pub fn time_left(&self, caller: &Caller, now: TimeMs) -> Option<Duration> {
        let Some(id) = caller.token else { return Some(Duration::MAX) };
        let tokens = self.tokens();
        tokens.of_id(id, now).map(|token| Duration::from_millis(token.expires.since(now)))
    }

    /// Returns when the token of a caller has ended, or was taken back: what is open on it ends, too.
    pub async fn ended(self: Arc<Self>, caller: Caller) {
        let mut ends = self.ends.subscribe();
        while let Some(left) = self.time_left(&caller, clock::now()) {
            tokio::select! {
                // The sender lives as long as we do.
                _ = ends.changed() => {}
                () = tokio::time::sleep(left.min(LOOK_AGAIN)) => {}
            }
        }
    }

    /// Whether a caller that only reads may do one more thing that is noted.
    pub fn may_be_noted(&self, caller: &Caller) -> bool {
        caller.token.is_none_or(|id| self.readers_notes.check_key(&id).is_ok())
    }

    /// Opens a session for whoever shows this token. Nothing that the browser sent before is kept: no session can be
    /// slipped to anybody.
    pub fn login(&self, secret: &str, now: TimeMs) -> Option<(SessionKey, Session)> {
        let tokens = self.tokens();
        let token = tokens.of_secret(secret, now)?;
        Some(self.sessions().open(token, now))
    }

    /// The session under this key, if its token still stands. Being asked keeps it open.
    pub fn session(&self, key: &str, now: TimeMs) -> Option<Session> {
        let tokens = self.tokens();
        self.sessions().touch(key, now, |id| tokens.of_id(id, now).map(|token| token.scopes))
    }

    /// The same for what a browser does by itself: it keeps nothing open.
    pub fn session_of_nobody_there(&self, key: &str, now: TimeMs) -> Option<Session> {
        let tokens = self.tokens();
        self.sessions().look(key, now, |id| tokens.of_id(id, now).map(|token| token.scopes))
    }

    /// Whether a session is still open.
    pub fn is_open(&self, session: SessionId, now: TimeMs) -> bool {
        let tokens = self.tokens();
        self.sessions().is_open(session, now, |id| tokens.of_id(id, now).is_some())
    }

    /// Ends a session.
    pub fn logout(&self, key: &str) {
        self.sessions().close(key);
    }

    /// Sessions that are open.
    pub fn session_count(&self, now: TimeMs) -> usize {
        self.sessions().count(now)
    }

    /// Makes a token. Its secret is told here, and never again.
    ///
    /// # Errors
    /// A name that is taken or cannot be one, too many tokens, or the file cannot be written.
    pub fn make_token(&self, wanted: token::Wanted, now: TimeMs) -> Result<(Secret, Token), TokenError> {
        let mut tokens = self.tokens();
        let mut changed = tokens.clone();
        let (secret, token) = changed.make(wanted, now)?;
        self.write(&changed)?;
        *tokens = changed;
        Ok((secret, token))
    }

    /// Takes a token back, and ends its sessions. None: there is none of that name.
    ///
    /// # Errors
    /// The file cannot be written: the token still stands.
    pub fn revoke(&self, name: &str) -> Result<Option<Token>, TokenError> {
        let mut tokens = self.tokens();
        let mut changed = tokens.clone();
        let Some(token) = changed.remove(name) else { return Ok(None) };
        self.write(&changed)?;
        *tokens = changed;
        self.sessions().close_all_of(token.id);
        self.ends.send_modify(|n| *n += 1);
        Ok(Some(token))
    }

    /// All tokens, by name.
    pub fn list(&self) -> Vec<Token> {
        self.tokens().iter().cloned().collect()
    }

    /// Who did what.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Before a change is believed it is on disk: a token that was revoked does not come back with a crash.
    fn write(&self, tokens: &Tokens) -> Result<(), TokenError> {
        self.path.as_deref().map_or(Ok(()), |path| tokens.write(path))
    }

    // Both locks are held for look-ups in small tables and one small write; tokens before sessions, always.
    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> MutexGuard<'_, session::Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TimeMs = TimeMs(1_795_000_000_000);

    fn wanted(name: &str) -> token::Wanted {
        token::Wanted {
            name: name.into(),
            role: Some(Role::Reviewer),
            scopes: Scopes::default(),
            expires: NOW.plus(1_000_000),
        }
    }

    #[test]
    fn a_token_outlives_a_restart_and_its_end_is_the_end_of_its_sessions() {
        let folder = tempfile::tempdir().unwrap();
        let access = Access::open(folder.path()).unwrap();
        let (secret, _) = access.make_token(wanted("anna"), NOW).unwrap();
        let again = Access::open(folder.path()).unwrap();
        let caller = again.bearer(secret.reveal(), Via::Http, NOW).unwrap();
        assert_eq!((&*caller.name, caller.scopes), ("anna", Role::Reviewer.scopes()));
        let (key, session) = again.login(secret.reveal(), NOW).unwrap();
        assert_eq!(again.session(key.reveal(), NOW).unwrap().csrf, session.csrf);
        assert!(again.revoke("anna").unwrap().is_some() && again.revoke("anna").unwrap().is_none());
        assert!(again.session(key.reveal(), NOW).is_none() && again.login(secret.reveal(), NOW).is_none());
        let after = Access::open(folder.path()).unwrap();
        assert!(after.bearer(secret.reveal(), Via::Http, NOW).is_none() && after.list().is_empty());
        let text =
            std::fs::read_dir(folder.path()).unwrap().map(|f| std::fs::read_to_string(f.unwrap().path()).unwrap());
        assert!(text.into_iter().all(|text| !text.contains(secret.reveal())));
    }

    #[test]
    fn a_token_that_cannot_be_written_is_not_given_out() {
        let folder = tempfile::tempdir().unwrap();
        let access = Access::open(folder.path()).unwrap();
        std::fs::create_dir(folder.path().join(token::TOKENS_FILE)).unwrap();
        assert!(access.make_token(wanted("anna"), NOW).is_err());
        assert!(access.list().is_empty());
    }
}
