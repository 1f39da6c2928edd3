//! `/metrics`: what the node knows at the moment of a scrape, and what it counted since it was started.
//!
//! Names begin with `staydown_` and end in their unit; a member is a label, a hash never is, and nothing that a stranger
//! may choose becomes a label's value. `docs/metrics.md` has every one of them, and a test holds it against a scrape.

mod machine;
mod plain;
mod sheet;
mod standing;
mod work;

use std::fmt;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use self::sheet::Sheet;
pub use crate::meters::HttpMetrics;
use crate::net::local::LocalService;

/// What stands before every name.
const PREFIX: &str = "staydown";
/// Media type of [`render`].
pub const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Media type of [`render_open`].
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics in the text format that every Prometheus reads.
///
/// It reads a few files and, of a short list, every entry: some milliseconds, in which an async task should not hold up
/// others.
pub fn render(service: &LocalService) -> String {
    plain::plain(&render_open(service))
}

/// The same as `OpenMetrics`, with units.
pub fn render_open(service: &LocalService) -> String {
    let mut sheet = Sheet::default();
    standing::tell(service, &mut sheet);
    work::tell(service, &mut sheet);
    machine::tell(service, &mut sheet);
    // A String takes whatever is written.
    encoded(sheet).unwrap_or_default()
}

/// The metrics in the format that `accept`, the header of the scrape, prefers, and its media type.
pub fn answer(accept: Option<&str>, service: &LocalService) -> (&'static str, String) {
    match accept {
        Some(accept) if accept.contains("application/openmetrics-text") => (OPEN_METRICS, render_open(service)),
        _ => (PLAIN, render(service)),
    }
}

fn encoded(sheet: Sheet) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(sheet));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}
