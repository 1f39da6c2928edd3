//! The node's own log, and with the feature `otel` its traces: how they look, and where they go.
//!
//! A log line never has what was looked up, a token, or where a user of ours is. Our own lines are written so; of the
//! libraries below us, which would write down headers and messages, nothing finer than `info` passes, whatever the filter
//! says.

mod json;
#[cfg(feature = "otel")]
mod otel;

use std::io;
use std::sync::OnceLock;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::{Filter, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt, reload};

use crate::config::{Config, LogConfig, LogFormat};

/// What our own log lines say that they are of.
const OURS: &str = "staydown";

/// What has to live as long as the program logs. Dropped, it sends off the traces that wait.
#[must_use]
#[derive(Default)]
pub struct Telemetry {
    /// Held, and nothing else is done with it.
    #[cfg(feature = "otel")]
    _traces: Option<otel::Traces>,
}

/// Goes by another filter from now on.
type Refilter = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// Changes the filter of the log that was started: one log a process.
static LINES: OnceLock<Refilter> = OnceLock::new();

/// Shows other log lines from now on; a filter that makes no sense changes nothing. What traces have is not changed.
pub fn filter_by(filter: &str) {
    if let (Some(refilter), Ok(filter)) = (LINES.get(), EnvFilter::try_new(filter)) {
        refilter(filter);
    }
}

/// Begins to log to standard error as `config` says; `colour`: to a person's terminal. A second call in one process changes
/// nothing.
///
/// # Errors
/// Traces are to be sent somewhere, and cannot be.
pub fn start(config: &Config, colour: bool) -> Result<Telemetry, String> {
    let log = &config.log;
    #[cfg(feature = "otel")]
    {
        let traces = log.otlp_endpoint.as_deref().map(otel::Traces::to).transpose()?;
        let layer = traces.as_ref().map(|traces| traces.layer().with_filter(harmless(asked(log))));
        let (lines, refilter) = lines(log, colour, io::stderr);
        started(tracing_subscriber::registry().with(layer).with(lines).try_init().is_ok(), refilter);
        Ok(Telemetry { _traces: traces })
    }
    #[cfg(not(feature = "otel"))]
    {
        let (lines, refilter) = lines(log, colour, io::stderr);
        started(tracing_subscriber::registry().with(lines).try_init().is_ok(), refilter);
        Ok(Telemetry::default())
    }
}

/// Whoever was first goes on logging.
fn started(started: bool, refilter: Refilter) {
    if started {
        drop(LINES.set(refilter));
    }
}

/// Log lines in the form that `log` asks for, and how to filter them otherwise.
fn lines<S, W>(log: &LogConfig, colour: bool, writer: W) -> (Box<dyn Layer<S> + Send + Sync>, Refilter)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(asked(log));
    let filter = harmless(filter);
    let lines = fmt::layer().with_writer(writer);
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(colour).with_filter(filter).boxed(),
        LogFormat::Json => {
            lines.fmt_fields(JsonFields::new()).event_format(json::Lines).with_ansi(false).with_filter(filter).boxed()
        }
    };
    // It fails where the log is gone, and then there is nobody to tell.
    (lines, Box::new(move |filter| drop(handle.reload(filter))))
}

fn asked(log: &LogConfig) -> EnvFilter {
    EnvFilter::try_new(&log.filter).unwrap_or_else(|_checked_before| EnvFilter::new("info"))
}

fn harmless<S, F: Filter<S>>(asked: F) -> impl Filter<S> + use<S, F> {
    asked.and(filter_fn(is_harmless))
}

/// Libraries write down what passes through them: headers with tokens, messages with what is looked up.
fn is_harmless(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let ours = target.strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    ours || *metadata.level() <= Level::INFO
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};

    use super::*;

    /// What was written.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str, work: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let config = Config::default_in("/d".into());
        let log = LogConfig { filter: filter.into(), format, ..config.log };
        let (lines, refilter) = lines(&log, false, move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, || {
            work();
            refilter(EnvFilter::new("off"));
            tracing::error!("behind another filter");
        });
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn work() {
        let call = tracing::error_span!("call", request_id = "0123456789abcdef", call = "Submit");
        let _in = call.enter();
        tracing::info!(records = 3, block = %"acme/0/7", took_ms = 12_u128, good = true, "said: \"durable\"\nand published");
    }

    #[test]
    fn a_line_for_programs_has_the_request_and_the_fields_of_its_spans() {
        let text = logged(LogFormat::Json, "info", || {
            work();
            tracing::warn!("alone");
        });
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut first = lines[0].clone();
        assert!(first.as_object_mut().unwrap().remove("timestamp").unwrap().as_str().unwrap().ends_with('Z'));
        let fields = json!({"call": "Submit", "records": 3, "block": "acme/0/7", "took_ms": 12, "good": true});
        let expected = json!({
            "level": "INFO", "target": "staydown::telemetry::tests", "message": "said: \"durable\"\nand published",
            "request_id": "0123456789abcdef", "fields": fields,
        });
        assert_eq!(first, expected);
        assert_eq!((lines.len(), &lines[1]["message"]), (2, &json!("alone")));
        assert!(lines[1].get("request_id").is_none() && lines[1].get("fields").is_none());
        assert!(text.starts_with("{\"timestamp\":"), "{text}");
    }

    #[test]
    fn a_line_for_people_has_the_request_too() {
        let text = logged(LogFormat::Text, "info", work);
        assert!(text.contains("request_id=\"0123456789abcdef\"") && text.contains("records=3"), "{text}");
    }

    #[test]
    fn a_filter_that_leaves_warnings_leaves_their_requests() {
        let text = logged(LogFormat::Json, "warn", || {
            work();
            tracing::error_span!("call", request_id = "abc").in_scope(|| tracing::warn!("left"));
        });
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["message"], &line["request_id"]), (&json!("left"), &json!("abc")));
    }

    #[test]
    fn what_libraries_write_of_headers_and_messages_passes_no_filter() {
        let text = logged(LogFormat::Json, "trace", || {
            tracing::trace!(target: "h2::codec", authorization = "Bearer sdt_x", "headers");
            tracing::debug!(target: "hyper::proto", "bytes");
            tracing::debug!(target: "staydownish", "a name that only begins like ours");
            tracing::info!(target: "h2::client", "kept");
            tracing::trace!("kept");
            tracing::debug!(target: "staydown", "kept");
        });
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.len() == 3 && lines.iter().all(|line| line["message"] == "kept"), "{text}");
    }
}
