//! The list: page by page, one entry, and all of it as JSON lines.

use axum::Json;
use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asking::{Answer, Asking, Filters, Place};
use super::given::SignalType;
use crate::answers::{Entry, Receipt};
use crate::web::Web;
use crate::web::problem::Problem;
use crate::wire::local as l;
use crate::wire::local_service::forum_server::Forum as _;

/// What JSON lines are called.
pub(super) const JSON_LINES: &str = "application/x-ndjson";

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default().routes(routes!(list_entries)).routes(routes!(export_entries)).routes(routes!(show_entry))
}

/// An entry, by the kind and the value of its signal.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct Named {
    /// What kind of hash `value` is.
    #[param(inline)]
    r#type: SignalType,
    /// Its digits; a web address or an account in clear is percent-encoded.
    #[param(min_length = 1, example = "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5")]
    value: String,
}

impl From<Named> for l::Signal {
    fn from(named: Named) -> Self {
        Self { r#type: named.r#type.name().into(), value: named.value }
    }
}

/// What the forum makes of an entry.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum EntryStatus {
    Erased,
    Retracted,
    Allowed,
    Contested,
    Active,
    Provisional,
    Referred,
    Inactive,
}

impl EntryStatus {
    fn name(self) -> &'static str {
        match self {
            Self::Erased => "ERASED",
            Self::Retracted => "RETRACTED",
            Self::Allowed => "ALLOWED",
            Self::Contested => "CONTESTED",
            Self::Active => "ACTIVE",
            Self::Provisional => "PROVISIONAL",
            Self::Referred => "REFERRED",
            Self::Inactive => "INACTIVE",
        }
    }
}

/// Which entries, and which page of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Page {
    /// Only of this kind.
    #[param(inline)]
    r#type: Option<SignalType>,
    /// Only in this status.
    #[param(inline)]
    status: Option<EntryStatus>,
    /// Only with this label of the forum's taxonomy.
    label: Option<String>,
    /// Only what this member says something of, by name.
    member: Option<String>,
    /// Only of what was posted in this language: `pt` finds `pt-BR` too.
    language: Option<String>,
    /// Also what nobody stands behind any more.
    #[serde(default)]
    include_inactive: bool,
    /// Only what was first seen then or later, in Unix milliseconds.
    #[serde(default)]
    since_ms: u64,
    /// Entries of the page; 0: 100.
    #[serde(default)]
    #[param(minimum = 0, maximum = 1000)]
    page_size: u32,
    /// `next_page_token` of the page before.
    page_token: Option<String>,
}

impl From<Page> for l::ListEntriesRequest {
    fn from(page: Page) -> Self {
        Self {
            page_size: page.page_size,
            page_token: page.page_token.unwrap_or_default(),
            r#type: page.r#type.map(SignalType::name).unwrap_or_default().into(),
            status: page.status.map(EntryStatus::name).unwrap_or_default().into(),
            label: page.label.unwrap_or_default(),
            member: page.member.unwrap_or_default(),
            include_inactive: page.include_inactive,
            language: page.language.unwrap_or_default(),
            since_ms: page.since_ms,
        }
    }
}

/// A page of the list.
#[derive(Debug, Serialize, ToSchema)]
struct EntryPage {
    /// In the order of the list.
    entries: Vec<Entry>,
    /// Empty: this is the end.
    next_page_token: String,
}

/// The list, page by page.
#[utoipa::path(
    get,
    path = "/v1/entries",
    operation_id = "list_entries",
    tag = "list",
    security(("token" = ["lookup"])),
    params(Page),
    responses((status = 200, description = "A page; one that is not full is not always the last.", body = EntryPage)),
)]
async fn list_entries(asking: Asking, Filters(page): Filters<Page>) -> Answer<EntryPage> {
    let answer = asking.node().list_entries(asking.with(page.into())).await?.into_inner();
    let entries = answer.entries.into_iter().map(Entry::from).collect();
    Ok(Json(EntryPage { entries, next_page_token: answer.next_page_token }))
}

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only of this kind.
    #[param(inline)]
    r#type: Option<SignalType>,
    /// Only in this status.
    #[param(inline)]
    status: Option<EntryStatus>,
    /// Only with this label of the forum's taxonomy.
    label: Option<String>,
    /// Only what this member says something of, by name.
    member: Option<String>,
    /// Only of what was posted in this language: `pt` finds `pt-BR` too.
    language: Option<String>,
    /// Also what nobody stands behind any more.
    #[serde(default)]
    include_inactive: bool,
    /// Only what was first seen then or later, in Unix milliseconds.
    #[serde(default)]
    since_ms: u64,
}

impl From<Which> for l::ListEntriesRequest {
    fn from(which: Which) -> Self {
        let Which { r#type, status, label, member, language, include_inactive, since_ms } = which;
        let (page_size, page_token) = (0, None);
        let page = Page { r#type, status, label, member, language, include_inactive, since_ms, page_size, page_token };
        page.into()
    }
}

/// The whole list, or a part of it, one entry a line.
///
/// An answer that ends without its last chunk is not complete: the node stopped, or failed.
#[utoipa::path(
    get,
    path = "/v1/entries/export",
    operation_id = "export_entries",
    tag = "list",
    security(("token" = ["lookup"])),
    params(Which),
    responses((
        status = 200,
        description = "JSON lines: an object as in `GET /v1/entries` a line.",
        body = String,
        content_type = "application/x-ndjson",
    )),
)]
async fn export_entries(asking: Asking, Filters(which): Filters<Which>) -> Result<Response, Problem> {
    let parts = asking.node().export_entries(asking.with(which.into())).await?.into_inner();
    let lines = parts.map(|part| part.map(|part| lines(part.entries)));
    Ok(([(header::CONTENT_TYPE, JSON_LINES)], Body::from_stream(lines)).into_response())
}

fn lines(entries: Vec<l::Entry>) -> Bytes {
    let mut text = Vec::new();
    for entry in entries {
        line(&mut text, &Entry::from(entry));
    }
    text.into()
}

/// Adds a value as a line of JSON.
pub(super) fn line(to: &mut Vec<u8>, value: &impl Serialize) {
    // Our own answers have no maps with other keys than texts, which is all that could fail in memory.
    if let Ok(json) = serde_json::to_vec(value) {
        to.extend_from_slice(&json);
        to.push(b'\n');
    }
}

/// What to show of an entry.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Shown {
    /// Also the signed block behind each word.
    #[serde(default)]
    receipts: bool,
}

/// One entry, and everything that stands behind it.
#[utoipa::path(
    get,
    path = "/v1/entries/{type}/{value}",
    operation_id = "show_entry",
    tag = "list",
    security(("token" = ["lookup"])),
    params(Named, Shown),
    responses((status = 200, description = "The entry; receipts are in the order of `said`.", body = Entry)),
)]
async fn show_entry(asking: Asking, Place(named): Place<Named>, Filters(shown): Filters<Shown>) -> Answer<Entry> {
    let request = l::GetEntryRequest { signal: Some(named.into()), receipts: shown.receipts, ..Default::default() };
    let answer = asking.node().get_entry(asking.with(request)).await?.into_inner();
    let mut entry = Entry::from(answer.entry.unwrap_or_default());
    entry.receipts = answer.receipts.into_iter().map(Receipt::from).collect();
    Ok(Json(entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::view::Status;

    #[test]
    fn every_status_of_the_schema_is_one_of_the_list() {
        for name in ["ERASED", "RETRACTED", "ALLOWED", "CONTESTED", "ACTIVE", "PROVISIONAL", "REFERRED", "INACTIVE"] {
            let status: EntryStatus = serde_json::from_str(&format!("{name:?}")).unwrap();
            assert!(status.name() == name && Status::from_name(name).is_some(), "{name}");
        }
    }
}
