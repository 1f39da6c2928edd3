//! What changes of the list, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use serde::Deserialize;
use tonic::Status;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asking::{Asking, Filters};
use super::given::SignalType;
use crate::answers::WatchEvent;
use crate::web::Web;
use crate::web::problem::Problem;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// What a browser sends when it goes on after a break.
const LAST_EVENT_ID: &str = "last-event-id";
/// How long a browser waits before it goes on after a break.
const RETRY: Duration = Duration::from_secs(2);

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default().routes(routes!(watch))
}

/// From where on, and of what.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct From {
    /// `id` of the last event that was taken; the header `Last-Event-ID` goes before it. Without either: from now on.
    bookmark: Option<String>,
    /// Without a bookmark: first the list as it stands.
    #[serde(default)]
    list: bool,
    /// Only of this kind.
    #[param(inline)]
    r#type: Option<SignalType>,
}

/// What changes of the list, as server-sent events.
///
/// Each event is called `change` and has an entry as it is by then, or is called `level` and says that everything up to
/// here was told. Its `id` is the bookmark to go on from, also after a restart of the node. An event called `problem` is the
/// last one: its data are a problem as every error is.
#[utoipa::path(
    get,
    path = "/v1/watch",
    operation_id = "watch",
    tag = "list",
    security(("token" = ["lookup"])),
    params(From, ("last-event-id" = Option<String>, Header, description = "The bookmark to go on from; a browser sends it by itself.")),
    responses((
        status = 200,
        description = "Events without end; the data of `change` and `level` are a `WatchEvent`.",
        body = String,
        content_type = "text/event-stream",
    )),
)]
async fn watch(asking: Asking, headers: HeaderMap, Filters(from): Filters<From>) -> Result<Response, Problem> {
    let last = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
    let bookmark = last.or(from.bookmark).unwrap_or_default();
    let request = l::WatchRequest {
        list: from.list && bookmark.is_empty(),
        bookmark,
        r#type: from.r#type.map(SignalType::name).unwrap_or_default().into(),
    };
    let mut events: Events = asking.node().watch(asking.with(request)).await?.into_inner();
    // The first comes at once. A bookmark that is too old is refused as any request is.
    let first = events.next().await.transpose()?;
    let events = stream::iter(first.map(Ok)).chain(events);
    let events = events.map(|event| Ok::<_, Infallible>(event.map_or_else(farewell, told)));
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

type Events = BoxStream<'static, Result<l::WatchEvent, Status>>;

fn told(event: l::WatchEvent) -> Event {
    let name = if event.entry.is_some() { "change" } else { "level" };
    let event = WatchEvent::from(event);
    let sent = Event::default().id(&event.bookmark).event(name).retry(RETRY);
    sent.json_data(&event).unwrap_or_default()
}

fn farewell(status: Status) -> Event {
    Event::default().event("problem").retry(RETRY).json_data(Problem::from(status)).unwrap_or_default()
}
