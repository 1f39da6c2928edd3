//! What a scrape gathers, before it is written: so that no lock is held while text is made.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Unit;

use crate::meters::Counted;
use crate::replica::ids::TimeMs;

/// Names and values of one sample.
pub(super) type Labels = Vec<(&'static str, String)>;

/// All metrics of one scrape.
#[derive(Debug, Default)]
pub(super) struct Sheet(Vec<Metric>);

/// Metrics of one name.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    samples: Vec<(Labels, Value)>,
}

#[derive(Debug)]
enum Value {
    Number(f64),
    Durations(Counted),
    Fact,
}

/// Integers up to this are the same as floating point numbers, and are written as integers.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

impl Sheet {
    /// One value that may rise and fall.
    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.gauges(name, help, [(Labels::new(), value)]);
    }

    /// Values that may rise and fall, each with its labels.
    pub(super) fn gauges(
        &mut self,
        name: &'static str,
        help: &'static str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        self.put(name, help, MetricType::Gauge, values);
    }

    /// A moment; `None` and 0: there is none, and no sample.
    pub(super) fn moment(&mut self, name: &'static str, help: &'static str, at: Option<TimeMs>) {
        self.moments(name, help, at.map(|at| (Labels::new(), at)));
    }

    /// Moments, each with its labels; 0: there is none, and no sample.
    pub(super) fn moments(
        &mut self,
        name: &'static str,
        help: &'static str,
        moments: impl IntoIterator<Item = (Labels, TimeMs)>,
    ) {
        let known = moments.into_iter().filter(|(_, at)| *at > TimeMs(0));
        self.put(name, help, MetricType::Gauge, known.map(|(labels, at)| (labels, seconds(at))));
    }

    /// One count that only rises. The name is given without `_total`.
    pub(super) fn counter(&mut self, name: &'static str, help: &'static str, count: u64) {
        self.counters(name, help, [(Labels::new(), count)]);
    }

    /// Counts that only rise, each with its labels.
    pub(super) fn counters(
        &mut self,
        name: &'static str,
        help: &'static str,
        counts: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        self.put(name, help, MetricType::Counter, counts.into_iter().map(|(labels, count)| (labels, number(count))));
    }

    /// Seconds that only rise.
    pub(super) fn seconds_counter(&mut self, name: &'static str, help: &'static str, seconds: Option<f64>) {
        self.put(name, help, MetricType::Counter, seconds.map(|seconds| (Labels::new(), seconds)));
    }

    /// How long things took, each with its labels.
    pub(super) fn durations(
        &mut self,
        name: &'static str,
        help: &'static str,
        durations: impl IntoIterator<Item = (Labels, Counted)>,
    ) {
        let samples = durations.into_iter().map(|(labels, counted)| (labels, Value::Durations(counted))).collect();
        self.metric(name, help, MetricType::Histogram, samples);
    }

    /// What does not change while the node runs. The name is given without `_info`.
    pub(super) fn fact(&mut self, name: &'static str, help: &'static str, labels: Labels) {
        self.metric(name, help, MetricType::Info, vec![(labels, Value::Fact)]);
    }

    fn put(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricType,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let samples = values.into_iter().map(|(labels, value)| (labels, Value::Number(value))).collect();
        self.metric(name, help, kind, samples);
    }

    /// The unit is the end of the name.
    fn metric(&mut self, name: &'static str, help: &'static str, kind: MetricType, samples: Vec<(Labels, Value)>) {
        let with = |unit: Unit| Some((name.strip_suffix(unit.as_str())?.strip_suffix('_')?, unit));
        let (name, unit) = match with(Unit::Seconds).or_else(|| with(Unit::Bytes)) {
            Some((bare, unit)) => (bare, Some(unit)),
            None => (name, None),
        };
        self.0.push(Metric { name, help, unit, kind, samples });
    }
}

impl Collector for Sheet {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in &self.0 {
            let Metric { name, help, unit, kind, samples } = metric;
            let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), *kind)?;
            for (labels, value) in samples {
                if labels.is_empty() || matches!(value, Value::Fact) {
                    value.write(&mut family, *kind, labels)?;
                } else {
                    value.write(&mut family.encode_family(labels)?, *kind, labels)?;
                }
            }
        }
        Ok(())
    }
}

impl Value {
    fn write(&self, encoder: &mut MetricEncoder<'_>, kind: MetricType, labels: &Labels) -> fmt::Result {
        match (self, kind) {
            (Self::Fact, _) => encoder.encode_info(labels),
            (Self::Durations(Counted { classes, count, sum }), _) => {
                encoder.encode_histogram::<Labels>(*sum, *count, classes, None)
            }
            (Self::Number(value), MetricType::Counter) => match whole(*value) {
                Some(count) => encoder.encode_counter(&count, None::<&Exemplar<Labels, f64>>),
                None => encoder.encode_counter(value, None::<&Exemplar<Labels, f64>>),
            },
            (Self::Number(value), _) => match whole(*value) {
                Some(number) => encoder.encode_gauge(&number),
                None => encoder.encode_gauge(value),
            },
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is a small integer that is not negative"
)]
fn whole(value: f64) -> Option<u64> {
    (value.fract() == 0.0 && (0.0..=EXACT_MAX).contains(&value)).then_some(value as u64)
}

/// A count as a sample has it.
#[expect(clippy::cast_precision_loss, reason = "samples are floating point numbers")]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}

/// Seconds since 1970, or of a duration.
pub(super) fn seconds(ms: TimeMs) -> f64 {
    number(ms.0) / 1_000.0
}

/// 1 or 0.
pub(super) fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// The labels of one sample.
pub(super) fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_their_unit_in_the_name_and_say_what_they_are() {
        let mut sheet = Sheet::default();
        sheet.gauge("outbox", "Queued.", 3.0);
        sheet.gauges("peer_clock_offset_seconds", "Offset.", [(labels([("member", "a\"b\\c\nd")]), -0.25)]);
        sheet.moment("charter_issued_timestamp_seconds", "When.", Some(TimeMs(1_500)));
        sheet.moment("snapshot_timestamp_seconds", "When.", Some(TimeMs(0)));
        sheet.counters("matches", "Matches.", [(Labels::new(), 7)]);
        let counted = Counted { classes: vec![(0.001, 2), (f64::INFINITY, 1)], count: 3, sum: 1.5 };
        sheet.durations("commit_duration_seconds", "Commits.", [(labels([("kind", "x")]), counted)]);
        sheet.fact("build", "Build.", labels([("version", "1")]));
        let text = super::super::encoded(sheet).unwrap();
        let expected = [
            "# HELP staydown_outbox Queued.",
            "# TYPE staydown_outbox gauge",
            "staydown_outbox 3",
            "# HELP staydown_peer_clock_offset_seconds Offset.",
            "# TYPE staydown_peer_clock_offset_seconds gauge",
            "# UNIT staydown_peer_clock_offset_seconds seconds",
            "staydown_peer_clock_offset_seconds{member=\"a\\\"b\\\\c\\nd\"} -0.25",
            "# HELP staydown_charter_issued_timestamp_seconds When.",
            "# TYPE staydown_charter_issued_timestamp_seconds gauge",
            "# UNIT staydown_charter_issued_timestamp_seconds seconds",
            "staydown_charter_issued_timestamp_seconds 1.5",
            "# HELP staydown_snapshot_timestamp_seconds When.",
            "# TYPE staydown_snapshot_timestamp_seconds gauge",
            "# UNIT staydown_snapshot_timestamp_seconds seconds",
            "# HELP staydown_matches Matches.",
            "# TYPE staydown_matches counter",
            "staydown_matches_total 7",
            "# HELP staydown_commit_duration_seconds Commits.",
            "# TYPE staydown_commit_duration_seconds histogram",
            "# UNIT staydown_commit_duration_seconds seconds",
            "staydown_commit_duration_seconds_sum{kind=\"x\"} 1.5",
            "staydown_commit_duration_seconds_count{kind=\"x\"} 3",
            "staydown_commit_duration_seconds_bucket{le=\"0.001\",kind=\"x\"} 2",
            "staydown_commit_duration_seconds_bucket{le=\"+Inf\",kind=\"x\"} 3",
            "# HELP staydown_build Build.",
            "# TYPE staydown_build info",
            "staydown_build_info{version=\"1\"} 1",
            "# EOF",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }
}
