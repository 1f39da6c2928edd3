//! Live updates, as server-sent events: how the node is, what waits, what was listed.
//!
//! However many pages are open, the node is asked once: one task watches the list while anybody listens, and tells all.
//! It gathers what happens for a second, so that an attack with a thousand entries a second is one message a second,
//! with the newest of them. A page that reads too slowly misses messages, and is told to look anew.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, StreamExt as _, stream};
use serde::Serialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;
use tonic::{Code, Request};

use super::lately::Lately;
use super::page::{State as Health, Visitor};
use super::pieces::{count, entry_path, short};
use crate::access::{Caller, Role, Scope, SessionId, Via};
use crate::clock;
use crate::net::local::LocalService;
use crate::net::status::refuse;
use crate::web::limits::KEEPALIVE;
use crate::web::{Problem, Web};
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// Pages that listen at once: each keeps a connection, of which the listener has some hundred.
pub const LISTENERS_MAX: usize = 128;
/// Messages that a page may be behind before it misses some.
const BEHIND_MAX: usize = 64;
/// What happens within this is one message.
const TICK: Duration = Duration::from_secs(1);
/// After so many ticks a page's session is looked at again, and everything is said once more.
const AGAIN_TICKS: u64 = 15;
/// A stream ends after so many messages; the browser opens another, and shows its session again.
const STREAM_MESSAGES_MAX: usize = 600;
/// Entries that one message names; of the others it says how many they are.
const NAMED_MAX: usize = 8;

/// Told when all streams end.
const END: &str = "end";

/// The one watch behind all live updates, and figures that pages share.
#[derive(Clone)]
pub struct Hub {
    service: LocalService,
    /// What waits and what happened lately.
    pub(super) lately: Arc<Lately>,
    told: broadcast::Sender<Told>,
    listeners: Arc<AtomicUsize>,
    /// Whether the watch runs. It ends, and is started, under this lock, so that there is one as long as anybody listens.
    watching: Arc<Mutex<bool>>,
}

/// A message: the name of the event, and JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    event: &'static str,
    json: Arc<str>,
}

impl Told {
    fn new(event: &'static str, what: &impl Serialize) -> Self {
        Self { event, json: serde_json::to_string(what).unwrap_or_default().into() }
    }
}

#[derive(Serialize)]
struct StateTold<'a> {
    tone: &'static str,
    sentence: &'a str,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct ReviewsTold {
    count: u64,
    text: String,
    disputed_own: u64,
}

#[derive(Serialize)]
struct EntriesTold {
    count: u64,
    entries: Vec<EntryTold>,
}

/// An entry as the script draws it; every text goes into the page as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct EntryTold {
    href: String,
    r#type: String,
    short: String,
    status: String,
    labels: Vec<String>,
    by: String,
    seen_ms: u64,
    new: bool,
}

impl EntryTold {
    fn of(entry: &l::Entry, status_before: &str) -> Self {
        let signal = entry.signal.clone().unwrap_or_default();
        let by =
            entry.said.iter().filter(|said| said.counts && said.what != "DISPUTE").map(|said| said.member.as_str());
        Self {
            href: entry_path(&signal.r#type, &signal.value),
            short: short(&signal.value),
            r#type: signal.r#type,
            status: entry.status.clone(),
            labels: entry.labels.clone(),
            by: by.collect::<Vec<_>>().join(", "),
            seen_ms: entry.first_seen_ms,
            new: matches!(status_before, "" | "INACTIVE") && entry.status != "INACTIVE",
        }
    }
}

impl Hub {
    /// Hears from `service`.
    pub fn new(service: LocalService) -> Self {
        let (told, _) = broadcast::channel(BEHIND_MAX);
        Self { service, lately: Arc::default(), told, listeners: Arc::default(), watching: Arc::default() }
    }

    /// A place among the listeners; the first one starts the watch.
    fn listen(&self, web: &Web) -> Option<(broadcast::Receiver<Told>, Place)> {
        let before = self.listeners.fetch_add(1, Ordering::AcqRel);
        let place = Place(Arc::clone(&self.listeners));
        if before >= LISTENERS_MAX {
            return None;
        }
        let receiver = self.told.subscribe();
        let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *watching, true) {
            spawn(run(self.clone(), web.clone()));
        }
        Some((receiver, place))
    }

    /// Whether nobody listens any more; then the watch counts as ended.
    fn is_over(&self) -> bool {
        let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        *watching = self.told.receiver_count() > 0;
        !*watching
    }
}

#[expect(clippy::disallowed_methods, reason = "the watch ends by itself when nobody listens any more")]
fn spawn(watch: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(watch));
}

/// A listener's place, given back when its connection ends.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// `GET /events`.
pub(super) async fn stream(State(web): State<Web>, visitor: Visitor) -> Result<Response, Problem> {
    // The watch behind it asks for everybody, so that nobody else looks who listens.
    if !visitor.may(Scope::Lookup) {
        let why = format!("the token {} does not allow lookup", visitor.caller().name);
        return Err(refuse(Code::PermissionDenied, "SCOPE", why).into());
    }
    let Some((receiver, place)) = web.hub().listen(&web) else {
        let why = format!("{LISTENERS_MAX} pages listen already: close some, or reload to see what is new");
        return Err(refuse(Code::ResourceExhausted, "STREAMS", why).into());
    };
    let session = visitor.session();
    let events = stream::unfold((receiver, place, web, session), next).take(STREAM_MESSAGES_MAX);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEPALIVE)).into_response())
}

type Listener = (broadcast::Receiver<Told>, Place, Web, SessionId);

/// The next message; the end when the session has ended, or its token was taken back.
async fn next((mut receiver, place, web, session): Listener) -> Option<(Result<Event, Infallible>, Listener)> {
    let told = match receiver.recv().await {
        Ok(told) if told.event == END => return None,
        Ok(told) => told,
        Err(RecvError::Lagged(_)) => Told::new("missed", &()),
        Err(RecvError::Closed) => return None,
    };
    // Asked with each message: nobody hears an entry after signing out.
    let stands = web.access().is_open(session, clock::now());
    let event = Event::default().event(told.event).data(&*told.json);
    stands.then_some((Ok(event), (receiver, place, web, session)))
}

/// Watches while anybody listens.
async fn run(hub: Hub, web: Web) {
    let caller = Caller { name: "console".into(), scopes: Role::Viewer.scopes(), via: Via::Console, token: None };
    let mut watched = watch(&hub.service).await;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut gathered, mut last, mut tick) = (Gathered::default(), Last::default(), 0_u64);
    while !hub.is_over() {
        tokio::select! {
            event = next_event(&mut watched) => match event {
                Some(Ok(event)) => gathered.add(&event),
                // The node stops: browsers that hold on would keep it for the whole time that it drains.
                Some(Err(status)) if status.code() == Code::Unavailable => drop(hub.told.send(Told::new(END, &()))),
                _ => watched = None,
            },
            _ = ticks.tick() => {
                let again = tick.is_multiple_of(AGAIN_TICKS);
                if again && watched.is_none() {
                    watched = watch(&hub.service).await;
                }
                if let Some(told) = gathered.told() {
                    drop(hub.told.send(told));
                }
                for told in last.changes(&hub, &web, &caller, again).await {
                    drop(hub.told.send(told));
                }
                tick += 1;
            }
        }
    }
}

type Watched = Option<std::pin::Pin<Box<dyn Stream<Item = Result<l::WatchEvent, tonic::Status>> + Send>>>;

/// None where the node has no place for one more watch: it is tried again.
async fn watch(service: &LocalService) -> Watched {
    let answer = service.watch(Request::new(l::WatchRequest::default())).await;
    answer.ok().map(|answer| answer.into_inner().boxed())
}

async fn next_event(watched: &mut Watched) -> Option<Result<l::WatchEvent, tonic::Status>> {
    match watched {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

/// What happened since the last message.
#[derive(Default)]
struct Gathered {
    count: u64,
    entries: Vec<EntryTold>,
}

impl Gathered {
    fn add(&mut self, event: &l::WatchEvent) {
        let Some(entry) = &event.entry else { return };
        let told = EntryTold::of(entry, &event.status_before);
        self.count += 1;
        self.entries.retain(|known| known.href != told.href);
        self.entries.insert(0, told);
        self.entries.truncate(NAMED_MAX);
    }

    fn told(&mut self) -> Option<Told> {
        let Self { count, entries } = std::mem::take(self);
        (count > 0).then(|| Told::new("entries", &EntriesTold { count, entries }))
    }
}

/// What was said last, so that only changes are said.
#[derive(Default)]
struct Last {
    state: Option<Health>,
    reviews: Option<ReviewsTold>,
}

impl Last {
    async fn changes(&mut self, hub: &Hub, web: &Web, caller: &Caller, again: bool) -> Vec<Told> {
        let mut all = Vec::new();
        if let Some(state) = health(web, caller).await.filter(|state| again || self.is_news(state)) {
            all.push(Told::new("state", &StateTold { tone: state.tone.name(), sentence: &state.sentence }));
            self.state = Some(state);
        }
        if let Ok(waits) = hub.lately.waits(web, caller).await {
            let text = format!("{}{}", count(waits.count()), if waits.more { "+" } else { "" });
            let reviews = ReviewsTold { count: waits.count(), text, disputed_own: waits.disputed_own() };
            if again || self.reviews.as_ref() != Some(&reviews) {
                all.push(Told::new("reviews", &reviews));
                self.reviews = Some(reviews);
            }
        }
        all
    }

    /// Seconds that pass are no news.
    fn is_news(&self, state: &Health) -> bool {
        let words = |state: &Health| (state.tone, state.sentence.split(", last heard").next().map(str::to_owned));
        self.state.as_ref().is_none_or(|last| words(last) != words(state))
    }
}

async fn health(web: &Web, caller: &Caller) -> Option<Health> {
    let status = web.service.status(web.ask(caller, l::StatusRequest {})).await.ok()?.into_inner();
    let peers = web.service.list_peers(web.ask(caller, l::ListPeersRequest {})).await.ok()?.into_inner();
    Some(Health::of(&status, &peers.peers, clock::now()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::console::page::Tone;

    fn event(value: &str, before: &str) -> l::WatchEvent {
        let signal = l::Signal { r#type: "sha256".into(), value: value.into() };
        let entry = l::Entry { signal: Some(signal), status: "ACTIVE".into(), ..Default::default() };
        l::WatchEvent { entry: Some(entry), status_before: before.into(), ..Default::default() }
    }

    #[test]
    fn a_flood_is_one_message_with_the_newest() {
        let mut gathered = Gathered::default();
        assert!(gathered.told().is_none());
        (0..1_000).for_each(|n| gathered.add(&event(&format!("{n:064}"), "")));
        gathered.add(&event(&format!("{:064}", 999), "ACTIVE"));
        gathered.add(&l::WatchEvent::default());
        let told = gathered.told().unwrap();
        let json: serde_json::Value = serde_json::from_str(&told.json).unwrap();
        assert_eq!((json["count"].as_u64(), json["entries"].as_array().unwrap().len()), (Some(1_001), NAMED_MAX));
        assert_eq!(json["entries"][0]["new"], false, "an entry is named once, as it is by now");
        assert_eq!(json["entries"][1]["new"], true);
        assert!(gathered.told().is_none());
    }

    #[test]
    fn passing_seconds_are_no_news() {
        let state = |sentence: &str| Health { tone: Tone::Ok, sentence: sentence.into() };
        let last = Last { state: Some(state("In sync with 2 of 2 peers, last heard 4 seconds ago")), reviews: None };
        assert!(!last.is_news(&state("In sync with 2 of 2 peers, last heard 9 seconds ago")));
        assert!(last.is_news(&state("In sync with 1 of 2 peers, last heard 9 seconds ago")));
        assert!(last.is_news(&Health { tone: Tone::Bad, sentence: "In sync with 2 of 2 peers".into() }));
    }
}
