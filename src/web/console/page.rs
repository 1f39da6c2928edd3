//! What every page of the console has around its content: navigation, state of the node, who is signed in, messages.

use std::fmt;

use askama::Template;
use axum::extract::FromRequestParts;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Redirect, Response};
use tonic::Status;

use super::assets;
use super::pieces::{Html, count, counted, relative};
use crate::access::{Caller, Scope, Scopes, Session, SessionId};
use crate::clock;
use crate::replica::ids::TimeMs;
use crate::web::{Problem, Web};
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// A page of the console. The order is that of the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the page of its name")]
pub enum Nav {
    Overview,
    List,
    Entry,
    Submit,
    Review,
    Incidents,
    Referrals,
    Resources,
    Batches,
    Members,
    Sync,
    Report,
    Policy,
    Access,
    Audit,
}

/// A page in the navigation: key, path, name, letter behind `g`, the scope without which it is not shown.
type Place = (Nav, &'static str, &'static str, &'static str, Scope);

const WORK: [Place; 4] = [
    (Nav::Overview, "/", "Overview", "o", Scope::Lookup),
    (Nav::List, "/list", "List", "l", Scope::Lookup),
    (Nav::Submit, "/submit", "Submit", "s", Scope::Submit),
    (Nav::Review, "/review", "Review", "r", Scope::Lookup),
];
const BESIDE: [Place; 4] = [
    (Nav::Incidents, "/incidents", "Incidents", "i", Scope::Lookup),
    (Nav::Referrals, "/referrals", "Referrals", "f", Scope::Lookup),
    (Nav::Resources, "/resources", "Resources", "c", Scope::Lookup),
    (Nav::Batches, "/batches", "Batches", "b", Scope::Lookup),
];
const FORUM: [Place; 4] = [
    (Nav::Members, "/members", "Members", "m", Scope::Lookup),
    (Nav::Sync, "/sync", "Sync", "y", Scope::Lookup),
    (Nav::Report, "/report", "Report", "t", Scope::Lookup),
    (Nav::Policy, "/policy", "Policy", "p", Scope::Lookup),
];
const ADMIN: [Place; 2] =
    [(Nav::Access, "/access", "Access", "a", Scope::Admin), (Nav::Audit, "/audit", "Audit", "u", Scope::Admin)];

impl Nav {
    /// Its short name, for scripts.
    pub fn key(self) -> &'static str {
        let all = WORK.iter().chain(&BESIDE).chain(&FORUM).chain(&ADMIN);
        // An entry is a page of the list.
        all.into_iter().find(|place| place.0 == self).map_or("entry", |place| match place.1 {
            "/" => "overview",
            path => path.trim_start_matches('/'),
        })
    }
}

/// A group of the navigation.
pub struct NavGroup {
    /// Its heading.
    pub name: &'static str,
    /// Its pages.
    pub items: Vec<NavItem>,
}

/// A page in the navigation.
pub struct NavItem {
    /// Its short name.
    pub key: &'static str,
    /// Its path.
    pub href: &'static str,
    /// As people read it.
    pub name: &'static str,
    /// Behind `g` on the keyboard.
    pub letter: &'static str,
    /// It is the one that is shown.
    pub current: bool,
}

/// How something is meant: never by colour alone, always beside words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is a class of console.css")]
pub enum Tone {
    Ok,
    Note,
    Warn,
    Bad,
}

impl Tone {
    /// The end of its class in console.css.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// The state of the node, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// How good it is.
    pub tone: Tone,
    /// As people read it.
    pub sentence: String,
}

impl State {
    /// Of what the node says of itself and of its peers.
    pub fn of(status: &l::StatusResponse, peers: &[l::PeerState], now: TimeMs) -> Self {
        let tone = match status.health.as_str() {
            "GREEN" => Tone::Ok,
            "RED" => Tone::Bad,
            _ => Tone::Warn,
        };
        let reason = status.health_reasons.first().filter(|_| tone != Tone::Ok);
        Self { tone, sentence: reason.map_or_else(|| synced(peers, now), |why| format!("Needs attention: {why}")) }
    }
}

/// "In sync with 2 of 2 peers, last heard 4 seconds ago".
fn synced(peers: &[l::PeerState], now: TimeMs) -> String {
    if peers.is_empty() {
        return "In order, alone in its forum".to_owned();
    }
    let level = |peer: &&l::PeerState| peer.theirs_missing_here == 0 && peer.agrees != "NO" && peer.last_heard_ms > 0;
    let level = peers.iter().filter(level).count() as u64;
    let total = counted(peers.len() as u64, "peer");
    let heard = peers.iter().map(|peer| peer.last_heard_ms).max().filter(|at| *at > 0);
    let heard = heard.map(|at| format!(", last heard {}", relative(TimeMs(at.min(now.0)), now))).unwrap_or_default();
    format!("In sync with {} of {total}{heard}", count(level))
}

/// How many wait in review; the count stops at `REVIEWS_COUNTED_MAX` of lately.rs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// So many at least.
    pub count: u64,
    /// There are more.
    pub more: bool,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", count(self.count), if self.more { "+" } else { "" })
    }
}

/// A message after something was done: one of a fixed table, so that no link can put words on our pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flash {
    /// How it is meant.
    pub tone: Tone,
    /// As people read it.
    pub text: &'static str,
}

/// What `?said=KEY` shows. Keys are never reused for something else.
const FLASHES: [(&str, Tone, &str); 14] = [
    ("signed", Tone::Ok, "Signed and shared. It is durable here and on its way to the other members."),
    ("queued", Tone::Note, "Taken up. It is signed as soon as the start-up guard has its answers."),
    ("withdrawn", Tone::Ok, "Withdrawn: our company says nothing of it any more."),
    ("disputed", Tone::Ok, "Disputed, with your reason. The other members see it now."),
    ("endorsed", Tone::Ok, "Endorsed. Our company stands behind this entry now."),
    ("voted", Tone::Ok, "The vote is signed. It counts together with those of other members."),
    ("vote-back", Tone::Ok, "The vote is taken back."),
    ("certified", Tone::Ok, "Certified: no machine acts on this entry alone, at any member."),
    ("certificate-back", Tone::Ok, "The certificate is taken back."),
    ("preserved", Tone::Ok, "The notice of a kept copy is signed."),
    ("outcome", Tone::Ok, "The outcome is signed."),
    ("referred", Tone::Ok, "The referral is open. It is a request, and an order to nobody."),
    ("referral-closed", Tone::Ok, "The referral is closed."),
    ("decided", Tone::Ok, "Decided. The next one is shown."),
];

/// The message of a key; none for anything that is not in the table.
pub fn flash(key: &str) -> Option<Flash> {
    let known = FLASHES.iter().chain(&super::saying::FLASHES).find(|(known, ..)| *known == key);
    known.map(|(_, tone, text)| Flash { tone: *tone, text })
}

/// `?said=KEY`, which every page takes.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct Said {
    /// Key of a message.
    #[serde(default)]
    pub said: String,
}

impl Said {
    /// Of a key that came among other things.
    pub fn of(key: &str) -> Self {
        Self { said: key.to_owned() }
    }
}

/// Goes on at `path` (within the console) with the message of `key`.
pub fn see_other(path: &str, key: &str) -> Response {
    let sign = if path.contains('?') { '&' } else { '?' };
    Redirect::to(&format!("{path}{sign}said={key}")).into_response()
}

/// Who looks at a page: the session that the middleware has found. Without one a handler is not reached; the browser
/// is sent to sign in.
pub struct Visitor(Session);

impl Visitor {
    /// Who, for [`Web::ask`].
    pub fn caller(&self) -> &Caller {
        &self.0.caller
    }

    /// Whether this is the text that every form of theirs carries. The middleware has checked it, but for uploads.
    pub fn is_csrf(&self, text: &str) -> bool {
        self.0.is_csrf(text)
    }

    /// Their session.
    pub fn session(&self) -> SessionId {
        self.0.id
    }

    /// Whether they may do what needs `scope`.
    pub fn may(&self, scope: Scope) -> bool {
        self.0.caller.scopes.allow(scope)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Redirect;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        parts.extensions.get::<Session>().cloned().map(Self).ok_or_else(|| Redirect::to("/login"))
    }
}

/// What every page has around its content: the field `page` of its template.
pub struct Page {
    /// Of the page, without the product's name.
    pub title: String,
    /// Where it is in the navigation.
    pub current: Nav,
    /// Name of the forum.
    pub forum: String,
    /// Name of our company in it.
    pub member: String,
    /// Of this release.
    pub version: String,
    /// Of the node.
    pub state: State,
    /// Who is signed in.
    pub caller: String,
    /// What they may.
    pub scopes: Scopes,
    /// Proof that a form is ours; a field of every form that changes something.
    pub csrf: String,
    /// What waits for a person.
    pub reviews: Waiting,
    /// Entries of ours that others dispute.
    pub disputed_own: u64,
    /// What was just done.
    pub flash: Option<Flash>,
    /// When the page was made: all relative times are of this moment.
    pub now: TimeMs,
}

impl Page {
    /// Asks the node for its state and what waits, as the caller.
    ///
    /// # Errors
    /// The caller may not even read, or the node cannot answer.
    pub async fn new(
        web: &Web,
        visitor: &Visitor,
        title: impl Into<String>,
        current: Nav,
        said: &Said,
    ) -> Result<Self, Problem> {
        let now = clock::now();
        let status = web.service.status(web.ask(visitor.caller(), l::StatusRequest {})).await?.into_inner();
        let peers = web.service.list_peers(web.ask(visitor.caller(), l::ListPeersRequest {})).await?.into_inner();
        let waits = web.hub().lately.waits(web, visitor.caller()).await?;
        Ok(Self {
            title: title.into(),
            current,
            state: State::of(&status, &peers.peers, now),
            forum: status.forum_name,
            member: status.member,
            version: status.version,
            caller: visitor.caller().name.to_string(),
            scopes: visitor.caller().scopes,
            csrf: visitor.0.csrf.clone(),
            reviews: Waiting { count: waits.count(), more: waits.more },
            disputed_own: waits.disputed_own(),
            flash: flash(&said.said),
            now,
        })
    }

    /// Whether who is signed in may do what needs `scope`. The node decides again when it is asked; this only spares
    /// people forms that would be refused.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.allow(scope)
    }

    /// Whether they may state opinions.
    pub fn may_submit(&self) -> bool {
        self.may(Scope::Submit)
    }

    /// Whether they may decide what waits.
    pub fn may_review(&self) -> bool {
        self.may(Scope::Review)
    }

    /// Whether they may do everything.
    pub fn may_admin(&self) -> bool {
        self.may(Scope::Admin)
    }

    /// What they are, in a word.
    pub fn role(&self) -> &'static str {
        match () {
            () if self.may_admin() => "admin",
            () if self.may_review() => "reviewer",
            () if self.may_submit() => "submitter",
            () => "viewer",
        }
    }

    /// The navigation, as far as they may go.
    pub fn nav(&self) -> Vec<NavGroup> {
        let groups = [("Work", &WORK[..]), ("Beside the list", &BESIDE), ("Forum", &FORUM), ("This node", &ADMIN)];
        let groups = groups.map(|(name, places)| NavGroup { name, items: self.items(places) });
        groups.into_iter().filter(|group| !group.items.is_empty()).collect()
    }

    fn items(&self, places: &[Place]) -> Vec<NavItem> {
        let item = |(nav, href, name, letter, scope): &Place| {
            let current = *nav == self.current || (*nav == Nav::List && self.current == Nav::Entry);
            self.may(*scope).then_some(NavItem { key: nav.key(), href, name, letter, current })
        };
        places.iter().filter_map(item).collect()
    }

    /// The field that every form has that changes something.
    pub fn csrf_field(&self) -> Html {
        Html::field("csrf", &self.csrf)
    }

    /// "2 of our entries are disputed."
    pub fn disputed_own_text(&self) -> String {
        match self.disputed_own {
            1 => "Another member disputes an entry of ours.".to_owned(),
            n => format!("Other members dispute {} entries of ours.", count(n)),
        }
    }

    /// Address of the style sheet.
    pub fn css(&self) -> &'static str {
        assets::css()
    }

    /// Address of the script.
    pub fn js(&self) -> &'static str {
        assets::js()
    }

    /// Address of the icon.
    pub fn icon(&self) -> &'static str {
        assets::icon()
    }
}

/// A rendered page.
///
/// # Errors
/// The template cannot be rendered, which is a mistake of ours.
pub fn html(template: &impl Template) -> Result<Response, Problem> {
    let text = template.render().map_err(|error| Problem::from(Status::internal(error.to_string())))?;
    Ok(([(CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::access::Role;

    /// What somebody may write into whatever a member can fill.
    pub(crate) const HOSTILE: &str = "\"><script>alert('x')</script><img src=x onerror=alert(1)>&\u{202e}";

    /// A page for somebody of this role, in which every text is hostile.
    pub(crate) fn sample(role: Role) -> Page {
        Page {
            title: HOSTILE.into(),
            current: Nav::List,
            forum: HOSTILE.into(),
            member: HOSTILE.into(),
            version: "0.1.0".into(),
            state: State { tone: Tone::Warn, sentence: HOSTILE.into() },
            caller: HOSTILE.into(),
            scopes: role.scopes(),
            csrf: "CSRF-OF-THIS-SESSION".into(),
            reviews: Waiting { count: 1_000, more: true },
            disputed_own: 2,
            flash: flash("signed"),
            now: TimeMs(1_795_000_000_000),
        }
    }

    /// Refuses markup that somebody else has written, and what the content policy would refuse.
    pub(crate) fn assert_harmless(html: &str) {
        for markup in ["<script>", "<img", "onerror=alert(1)>&\u{202e}", "style=\"", "<style", "javascript:"] {
            assert!(!html.contains(markup), "{markup} in {html}");
        }
        let own = html.matches("<script").count();
        assert_eq!(own, html.matches("<script src=\"/assets/").count(), "a script of somebody else's");
        for handler in [" onclick=", " onload=", " onsubmit="] {
            assert!(!html.contains(handler), "{handler}");
        }
    }

    #[derive(Template)]
    #[template(source = "{% extends \"base.html\" %}{% block main %}<h1>Here</h1>{% endblock %}", ext = "html")]
    struct Empty {
        page: Page,
    }

    #[test]
    fn the_frame_stays_harmless_whatever_members_are_called() {
        let html = Empty { page: sample(Role::Admin) }.render().unwrap();
        assert_harmless(&html);
        assert_eq!((html.matches("<h1>").count(), html.matches("aria-current=\"page\"").count()), (1, 1));
        for piece in
            ["lang=\"en\"", "class=\"skip\"", "id=\"main\"", "role=\"search\"", "<nav id=\"nav\"", "1\u{202f}000+"]
        {
            assert!(html.contains(piece), "{piece} is missing");
        }
    }

    #[test]
    fn people_see_where_they_may_go() {
        let places =
            |role| sample(role).nav().into_iter().flat_map(|g| g.items).map(|item| item.key).collect::<Vec<_>>();
        assert!(!places(Role::Viewer).contains(&"submit") && places(Role::Reviewer).contains(&"submit"));
        assert!(!places(Role::Reviewer).contains(&"access") && places(Role::Admin).contains(&"audit"));
        let mut letters: Vec<_> =
            sample(Role::Admin).nav().into_iter().flat_map(|g| g.items).map(|item| item.letter).collect();
        letters.sort_unstable();
        let all = letters.len();
        letters.dedup();
        assert_eq!(letters.len(), all, "a letter leads to one page");
    }

    #[test]
    fn messages_come_from_a_table_and_from_nowhere_else() {
        assert_eq!(flash("signed").unwrap().tone, Tone::Ok);
        assert!(flash("<script>").is_none() && flash("").is_none());
    }

    #[test]
    fn the_state_is_one_sentence() {
        let now = TimeMs(1_795_000_000_000);
        let peer = |missing, agrees: &str| l::PeerState {
            theirs_missing_here: missing,
            agrees: agrees.into(),
            last_heard_ms: now.0 - 4_000,
            ..Default::default()
        };
        let status = |health: &str| l::StatusResponse {
            health: health.into(),
            health_reasons: vec!["bolt: refused".into()],
            ..Default::default()
        };
        let of = |health: &str, peers: &[l::PeerState]| State::of(&status(health), peers, now);
        let synced = of("GREEN", &[peer(0, "YES"), peer(3, "UNKNOWN")]);
        assert_eq!((synced.tone, &*synced.sentence), (Tone::Ok, "In sync with 1 of 2 peers, last heard 4 seconds ago"));
        assert_eq!(of("GREEN", &[]).sentence, "In order, alone in its forum");
        assert_eq!(of("RED", &[]), State { tone: Tone::Bad, sentence: "Needs attention: bolt: refused".into() });
    }
}
