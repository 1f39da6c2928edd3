//! The transparency report of a period, as JSON, CSV or one HTML page.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asking::{Asking, Filters, unfit};
use crate::access::Scope;
use crate::clock;
use crate::replica::ids::TimeMs;
use crate::report::{Report, csv, html, time};
use crate::web::Web;
use crate::web::problem::Problem;
use crate::wire::local as l;
use crate::wire::local::report_part::Part;
use crate::wire::local_service::forum_server::Forum as _;

pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::default().routes(routes!(make_report))
}

/// What the report is written as.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ReportFormat {
    /// For programs.
    #[default]
    Json,
    /// For spreadsheets: a table a section.
    Csv,
    /// For people: one page with plots, that needs nothing from elsewhere.
    Html,
}

/// Of which time, and as what.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Period {
    /// Its beginning: a date, or a full hour of UTC.
    #[param(pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:00:00Z)?$", example = "2026-07-01")]
    from: String,
    /// Its end, which is not part of it: a date, a full hour of UTC, or `now` for the start of the current hour.
    #[param(pattern = "^([0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:00:00Z)?|now)$", example = "now")]
    to: String,
    /// Let it reach to the end of the current hour: it says so, and is another report a minute later.
    #[serde(default)]
    open: bool,
    /// What it is written as.
    #[serde(default)]
    #[param(inline)]
    format: ReportFormat,
}

/// The transparency report of a period, computed from the logs.
///
/// The same at every node with the same logs, charters and proofs. One is made at a time.
#[utoipa::path(
    get,
    path = "/v1/report",
    operation_id = "make_report",
    tag = "report",
    security(("token" = ["lookup"])),
    params(Period),
    responses((status = 200, description = "The report.", content(
        (Report = "application/json"),
        (String = "text/csv"),
        (String = "text/html"),
    ))),
)]
async fn make_report(asking: Asking, Filters(period): Filters<Period>) -> Result<Response, Problem> {
    asking.needs(Scope::Lookup)?;
    let now = clock::now().hour().plus(if period.open { TimeMs::HOUR_MS } else { 0 });
    let to = if period.to == "now" { now } else { moment("to", &period.to)? };
    let from = moment("from", &period.from)?;
    let request = l::ReportRequest { from_ms: from.0, to_ms: to.0, open: period.open, local: false };
    let json = made(&asking, request).await?;
    Ok(match period.format {
        ReportFormat::Json => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        ReportFormat::Csv => file("text/csv; charset=utf-8", "report.csv", csv::render(&read(&json)?)),
        ReportFormat::Html => file("text/html; charset=utf-8", "report.html", html::render(&read(&json)?)),
    })
}

fn moment(field: &str, text: &str) -> Result<TimeMs, Problem> {
    let wrong = |why: String| unfit(StatusCode::BAD_REQUEST, "FIELD", &format!("{field}: {why}")).with_field(field);
    time::parse(text).map_err(wrong)
}

/// The forum's part as the node makes it.
async fn made(asking: &Asking, request: l::ReportRequest) -> Result<bytes::Bytes, Problem> {
    let mut parts = asking.node().report(asking.with(request)).await?.into_inner();
    while let Some(part) = parts.next().await {
        if let Some(Part::Forum(json)) = part?.part {
            return Ok(json);
        }
    }
    Err(unfit(StatusCode::SERVICE_UNAVAILABLE, "DRAINING", "the node ended its answer before the report"))
}

fn read(json: &[u8]) -> Result<Report, Problem> {
    let bug = |error: serde_json::Error| unfit(StatusCode::INTERNAL_SERVER_ERROR, "BUG", &error.to_string());
    serde_json::from_slice(json).map_err(bug)
}

/// A file to keep: a browser shows no page of ours that was not made for the console.
fn file(media_type: &'static str, name: &str, text: String) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    ([(header::CONTENT_TYPE, media_type.to_owned()), (header::CONTENT_DISPOSITION, disposition)], text).into_response()
}
