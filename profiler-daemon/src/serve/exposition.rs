//! Writes the metrics in the formats that Prometheus reads, all through
//! `prometheus-client`.
//!
//! In: the declarations and a scrape. Out: the body of `/metrics`.
//!
//! The text encoder of `prometheus-client` writes OpenMetrics, in which a
//! family of counters is named without `_total`, info is a type of its own and
//! units have a line. The older Prometheus text has none of that, so for it a
//! family gets its full name and no unit, and the values of counters and info
//! go through the encoder of gauges, which adds no suffix.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_protobuf::{self, EncodeError};
use prometheus_client::encoding::{
    DescriptorEncoder, MetricEncoder, NativeHistogram, NativeHistogramBuckets, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit as ClientUnit};

use super::buckets::{self, NATIVE_SCHEMA, ZERO_THRESHOLD};
use super::metrics::{Figure, Kind, METRICS, Metric, Row, RowLabels, Scrape, Unit, seconds};
use super::process::Process;
use crate::snapshot::containers::ContainerTimes;
use crate::snapshot::{Snapshot, Times};

/// A format of `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics text 1.0.0.
    OpenMetrics,
    /// Length-delimited `io.prometheus.client.MetricFamily` messages: the one
    /// format with native histograms.
    Protobuf,
}

impl Format {
    /// All of them; of equals, the first one is served.
    pub const ALL: [Self; 3] = [Self::Text, Self::OpenMetrics, Self::Protobuf];

    /// Value of `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// The metrics could not be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write the metrics as {content_type}")]
pub struct RenderError {
    content_type: &'static str,
    source: EncodeError,
}

/// Body of `/metrics` in `format`. `since` is when the counters were zero.
///
/// # Errors
///
/// The encoder refused a figure; none of the declared metrics has one that it
/// refuses.
pub fn render(
    snapshot: Arc<Snapshot>,
    containers: Arc<ContainerTimes>,
    since: SystemTime,
    process: Process,
    format: Format,
) -> Result<Vec<u8>, RenderError> {
    let figures = Figures {
        snapshot,
        containers,
        since,
        process,
        version: env!("CARGO_PKG_VERSION"),
        arch: std::env::consts::ARCH,
        format,
    };
    encode(figures).map_err(|source| RenderError { content_type: format.content_type(), source })
}

/// A scrape that owns its snapshot, as [`Collector`] demands.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) containers: Arc<ContainerTimes>,
    pub(super) since: SystemTime,
    pub(super) process: Process,
    pub(super) version: &'static str,
    pub(super) arch: &'static str,
    pub(super) format: Format,
}

/// See [`render`].
pub(super) fn encode(figures: Figures) -> Result<Vec<u8>, EncodeError> {
    let format = figures.format;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(figures));
    if format == Format::Protobuf {
        return prometheus_protobuf::encode_to_vec(&registry);
    }
    // A machine with two nodes fills about half of it.
    let mut body = String::with_capacity(256 << 10);
    text::encode_registry(&mut body, &registry)?;
    if format == Format::OpenMetrics {
        text::encode_eof(&mut body)?;
    }
    Ok(body.into_bytes())
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let scrape = Scrape {
            snapshot: &self.snapshot,
            containers: &self.containers,
            since: self.since,
            process: self.process,
            version: self.version,
            arch: self.arch,
        };
        for metric in METRICS {
            let mut rows = (metric.rows)(&scrape).peekable();
            if rows.peek().is_none() {
                continue;
            }
            let (name, unit, kind) = self.describe(metric);
            let mut family = encoder.encode_descriptor(name, metric.help, unit.as_ref(), kind)?;
            for row in rows {
                self.encode_row(metric, &row, &mut family)?;
            }
        }
        Ok(())
    }
}

impl Figures {
    /// Name, unit and type as the encoder of the format wants them.
    fn describe(&self, metric: &Metric) -> (&'static str, Option<ClientUnit>, MetricType) {
        let kind = match (metric.kind, self.format) {
            (Kind::Counter, _) => MetricType::Counter,
            (Kind::Gauge, _) | (Kind::Info, Format::Text) => MetricType::Gauge,
            (Kind::Histogram, _) => MetricType::Histogram,
            (Kind::Info, _) => MetricType::Info,
        };
        if self.format == Format::Text {
            return (metric.name, None, kind);
        }
        let unit = metric.unit.map(|unit| match unit {
            Unit::Seconds => ClientUnit::Seconds,
            Unit::Bytes => ClientUnit::Bytes,
        });
        (metric.base_name(), unit, kind)
    }

    fn encode_row(
        &self,
        metric: &Metric,
        row: &Row<'_>,
        family: &mut MetricEncoder<'_>,
    ) -> fmt::Result {
        let labels = RowLabels { labels: metric.labels, values: row.values() };
        if metric.kind == Kind::Info && self.format != Format::Text {
            return family.encode_info(&labels);
        }
        // An empty set would still print its braces.
        if metric.labels.is_empty() {
            return self.encode_figure(metric.kind, row.figure, family);
        }
        self.encode_figure(metric.kind, row.figure, &mut family.encode_family(&labels)?)
    }

    fn encode_figure(
        &self,
        kind: Kind,
        figure: Figure<'_>,
        series: &mut MetricEncoder<'_>,
    ) -> fmt::Result {
        let suffixed = kind == Kind::Counter && self.format != Format::Text;
        match figure {
            Figure::Count(n) if suffixed => series.encode_counter::<NoLabelSet, _, f64>(&n, None),
            Figure::Number(x) if suffixed => series.encode_counter::<NoLabelSet, _, f64>(&x, None),
            Figure::Count(n) => series.encode_gauge(&n),
            Figure::Number(x) => series.encode_gauge(&x),
            Figure::Times(times) => self.encode_times(times, series),
        }
    }

    /// The count is that of the buckets, so that `+Inf` always equals it.
    fn encode_times(&self, times: &Times, series: &mut MetricEncoder<'_>) -> fmt::Result {
        let (sum, count) = (seconds(times.sum_ns), times.buckets.total());
        let classic = buckets::classic(&times.buckets);
        if self.format != Format::Protobuf {
            return series.encode_histogram::<NoLabelSet>(sum, count, &classic, None);
        }
        let native = buckets::native(&times.buckets);
        series.encode_histogram_with_native::<NoLabelSet>(
            sum,
            count,
            &classic,
            None,
            NativeHistogram {
                schema: NATIVE_SCHEMA,
                zero_threshold: ZERO_THRESHOLD,
                zero_count: 0,
                negative: NativeHistogramBuckets { spans: &[], deltas: &[] },
                positive: NativeHistogramBuckets { spans: &native.spans, deltas: &native.deltas },
                created: Some(self.since),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model as proto;
    use prost::Message;

    use super::*;
    use crate::serve::example;

    fn families(mut body: &[u8]) -> Vec<proto::MetricFamily> {
        let mut families = Vec::new();
        while !body.is_empty() {
            families.push(proto::MetricFamily::decode_length_delimited(&mut body).unwrap());
        }
        families
    }

    #[test]
    fn text_of_a_small_snapshot() {
        let mut snapshot = example::snapshot();
        snapshot.locks.truncate(1);
        snapshot.syscalls.clear();
        insta::assert_snapshot!("text", example::text(snapshot.clone(), Format::Text));
        insta::assert_snapshot!("openmetrics", example::text(snapshot, Format::OpenMetrics));
    }

    #[test]
    fn every_format_has_the_families_under_their_full_names() {
        let names: Vec<_> = METRICS.iter().map(|m| m.name.to_owned()).collect();
        let from_protobuf: Vec<_> = families(&example::body(example::snapshot(), Format::Protobuf))
            .into_iter()
            .map(|f| f.name)
            .collect();
        assert_eq!(from_protobuf, names);
        for format in [Format::Text, Format::OpenMetrics] {
            let text = example::text(example::snapshot(), format);
            for metric in METRICS {
                let sample = match metric.kind {
                    Kind::Histogram => format!("\n{}_count{{", metric.name),
                    _ if metric.labels.is_empty() => format!("\n{} ", metric.name),
                    _ => format!("\n{}{{", metric.name),
                };
                assert!(text.contains(&sample), "{format:?} lacks {sample:?}");
            }
        }
    }

    #[test]
    fn openmetrics_names_its_units_and_ends_with_eof_and_the_older_text_does_neither() {
        let open = example::text(example::snapshot(), Format::OpenMetrics);
        assert!(open.contains("# UNIT lockprof_lock_wait_seconds seconds\n"));
        assert!(open.contains("# TYPE process_cpu_seconds counter\n"));
        assert!(open.contains("# TYPE lockprof_build info\n"));
        assert!(open.ends_with("\n# EOF\n"));
        let text = example::text(example::snapshot(), Format::Text);
        assert!(text.contains("# TYPE process_cpu_seconds_total counter\n"));
        assert!(text.contains("# TYPE lockprof_build_info gauge\n"));
        assert!(!text.contains("# UNIT") && !text.contains("# EOF"));
    }

    #[test]
    fn protobuf_histograms_have_the_same_counts_classic_and_native() {
        let snapshot = example::snapshot();
        let families = families(&example::body(snapshot.clone(), Format::Protobuf));
        let waits = families.iter().find(|f| f.name == "lockprof_lock_wait_seconds").unwrap();
        assert_eq!(waits.metric.len(), snapshot.locks.len());
        for (metric, lock) in waits.metric.iter().zip(&snapshot.locks) {
            let histogram = metric.histogram.as_ref().unwrap();
            assert_eq!(histogram.schema, NATIVE_SCHEMA);
            assert_eq!(histogram.sample_count, lock.waits.count);
            assert_eq!(histogram.sample_sum, seconds(lock.waits.sum_ns));
            assert_eq!(histogram.bucket.last().unwrap().cumulative_count, lock.waits.count);
            let (mut count, mut native) = (0, 0);
            for delta in &histogram.positive_delta {
                count += delta;
                native += count;
            }
            assert_eq!(u64::try_from(native).unwrap(), lock.waits.count);
            let length: u32 = histogram.positive_span.iter().map(|s| s.length).sum();
            assert_eq!(histogram.positive_delta.len(), length as usize);
            assert!(histogram.zero_threshold > 0.0, "else an empty one is taken for classic");
            assert_eq!(histogram.start_timestamp.unwrap().seconds, 1_750_000_000);
        }
    }

    #[test]
    fn a_family_without_rows_is_left_out() {
        let mut snapshot = example::snapshot();
        snapshot.handoffs.clear();
        for format in [Format::Text, Format::OpenMetrics] {
            assert!(!example::text(snapshot.clone(), format).contains("lockprof_lock_handoffs"));
        }
    }

    #[test]
    fn containers_have_no_series_unless_they_are_wanted() {
        let figures = |containers| Figures {
            snapshot: Arc::new(example::snapshot()),
            containers,
            since: example::since(),
            process: example::scrape(&example::snapshot()).process,
            version: "0.1.0",
            arch: "x86_64",
            format: Format::Text,
        };
        let with = String::from_utf8(encode(figures(example::containers())).unwrap()).unwrap();
        let without = String::from_utf8(encode(figures(Arc::default())).unwrap()).unwrap();
        let is_of_containers = |line: &&str| line.contains("lockprof_container_");
        assert_eq!(with.lines().filter(is_of_containers).count(), 3 * 2 + 2 * 3 + 1);
        assert_eq!(without.lines().find(is_of_containers), None);
    }

    #[test]
    fn a_hostile_lock_name_cannot_break_out_of_its_label() {
        let name = "a\"} 1\nevil{x=\"\\\x1b[2J";
        let mut snapshot = example::snapshot();
        snapshot.locks.truncate(1);
        snapshot.locks[0].lock = name.into();
        for format in [Format::Text, Format::OpenMetrics] {
            let text = example::text(snapshot.clone(), format);
            let expected = r#"lockprof_lock_waiters{lock="a\"} 1\\nevil{x=\"\\\\u{1b}[2J"} 0"#;
            assert!(text.contains(expected), "{text}");
            assert!(!text.lines().any(|line| line.starts_with("evil")), "{text}");
            assert!(!text.contains('\x1b'), "{text}");
        }
        let families = families(&example::body(snapshot, Format::Protobuf));
        let waiters = families.iter().find(|f| f.name == "lockprof_lock_waiters").unwrap();
        assert_eq!(waiters.metric[0].label[0].value, r#"a"} 1\nevil{x="\\u{1b}[2J"#);
    }

    #[test]
    fn no_sample_occurs_twice() {
        let text = example::text(example::snapshot(), Format::Text);
        let mut seen = std::collections::HashSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, _) = line.rsplit_once(' ').unwrap();
            assert!(seen.insert(series), "{series}");
        }
    }
}
