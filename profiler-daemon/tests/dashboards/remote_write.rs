//! Series written into a Prometheus, for figures whose times a test has to choose:
//! what daemons expose, as protobuf, in the form of remote write.

use std::collections::BTreeMap;

use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model as exposed;
use prost::Message;

use crate::prometheus::Prometheus;

/// Which form a histogram gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Histograms {
    Classic,
    Native,
    Both,
}

/// `prometheus.WriteRequest` of Prometheus' `prompb/remote.proto`.
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

/// As in `prompb/types.proto`, so are those below.
#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    histograms: Vec<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    /// Milliseconds since the epoch.
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// Of its fields, those that lockprof has something for.
#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    count: Option<u64>,
    #[prost(double, tag = "3")]
    sum: f64,
    #[prost(sint32, tag = "4")]
    schema: i32,
    #[prost(double, tag = "5")]
    zero_threshold: f64,
    #[prost(uint64, optional, tag = "6")]
    zero_count: Option<u64>,
    #[prost(message, repeated, tag = "11")]
    positive_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "12")]
    positive_deltas: Vec<i64>,
    /// Milliseconds since the epoch.
    #[prost(int64, tag = "15")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

/// A series by its labels, the name among them.
type Labels = BTreeMap<String, String>;

/// Series of one host.
#[derive(Default)]
pub(crate) struct Written(BTreeMap<Labels, TimeSeries>);

impl Written {
    /// Takes what was exposed at a time, each series with `labels` in addition, or
    /// in place of its own.
    pub(crate) fn scrape(
        &mut self,
        mut body: &[u8],
        labels: &[(&str, &str)],
        at_ms: i64,
        histograms: Histograms,
    ) {
        while !body.is_empty() {
            let family =
                exposed::MetricFamily::decode_length_delimited(&mut body).expect("a family");
            for metric in &family.metric {
                let mut own: Labels =
                    metric.label.iter().map(|l| (l.name.clone(), l.value.clone())).collect();
                for (name, value) in labels {
                    // What a host is told by stands in its info alone.
                    if *name != "kernel" || own.contains_key("kernel") {
                        own.insert((*name).to_owned(), (*value).to_owned());
                    }
                }
                self.add(&family.name, &own, metric, at_ms, histograms);
            }
        }
    }

    fn add(
        &mut self,
        name: &str,
        labels: &Labels,
        metric: &exposed::Metric,
        at_ms: i64,
        histograms: Histograms,
    ) {
        let Some(histogram) = &metric.histogram else {
            let counter = metric.counter.as_ref().map(|counter| counter.value);
            let value = counter.or_else(|| metric.gauge.as_ref().map(|gauge| gauge.value));
            return self.sample(name, labels, value.expect("counter or gauge"), at_ms);
        };
        if histograms != Histograms::Native {
            self.sample(&format!("{name}_sum"), labels, histogram.sample_sum, at_ms);
            let count = histogram.sample_count as f64;
            self.sample(&format!("{name}_count"), labels, count, at_ms);
            let mut labels = labels.clone();
            for bucket in &histogram.bucket {
                let le = if bucket.upper_bound.is_finite() {
                    bucket.upper_bound.to_string()
                } else {
                    "+Inf".to_owned()
                };
                labels.insert("le".to_owned(), le);
                let count = bucket.cumulative_count as f64;
                self.sample(&format!("{name}_bucket"), &labels, count, at_ms);
            }
        }
        if histograms != Histograms::Classic {
            let spans = histogram.positive_span.iter();
            self.series(name, labels).histograms.push(Histogram {
                count: Some(histogram.sample_count),
                sum: histogram.sample_sum,
                schema: histogram.schema,
                zero_threshold: histogram.zero_threshold,
                zero_count: Some(histogram.zero_count),
                positive_spans: spans
                    .map(|span| Span { offset: span.offset, length: span.length })
                    .collect(),
                positive_deltas: histogram.positive_delta.clone(),
                timestamp: at_ms,
            });
        }
    }

    fn sample(&mut self, name: &str, labels: &Labels, value: f64, timestamp: i64) {
        self.series(name, labels).samples.push(Sample { value, timestamp });
    }

    fn series(&mut self, name: &str, labels: &Labels) -> &mut TimeSeries {
        let mut labels = labels.clone();
        labels.insert("__name__".to_owned(), name.to_owned());
        self.0.entry(labels.clone()).or_insert_with(|| TimeSeries {
            // In order, as the receiver wants them.
            labels: labels.into_iter().map(|(name, value)| Label { name, value }).collect(),
            ..TimeSeries::default()
        })
    }

    /// Writes it. The Prometheus has to have its receiver switched on.
    pub(crate) fn into_prometheus(self, prometheus: &Prometheus) {
        let request = WriteRequest { timeseries: self.0.into_values().collect() };
        let body = snap::raw::Encoder::new()
            .compress_vec(&request.encode_to_vec())
            .expect("it fits into a block");
        let answer = ureq::post(format!("http://{}/api/v1/write", prometheus.server.address))
            .header("Content-Encoding", "snappy")
            .header("Content-Type", "application/x-protobuf")
            .header("X-Prometheus-Remote-Write-Version", "0.1.0")
            .send(&body)
            .expect("it is taken");
        assert_eq!(answer.status(), 204);
    }
}
