//! What `/metrics` says, taken apart strictly in each of its formats.

use std::collections::BTreeMap;

use lockprof::serve::Format;
use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model as proto;
use prost::Message as _;

use super::wire::Answer;

/// Samples by name and labels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exposition {
    /// All of them.
    pub(crate) samples: BTreeMap<String, f64>,
    /// Those that never go back.
    pub(crate) counters: BTreeMap<String, f64>,
}

impl Exposition {
    /// An answer of 200 with a body in `format`.
    pub(crate) fn read(answer: &Answer, format: Format) -> Result<Self, String> {
        if answer.status != 200 {
            return Err(format!("{}: {}", answer.status, answer.text()));
        }
        if answer.header("content-type") != Some(format.content_type()) {
            return Err(format!("another format came: {:?}", answer.headers));
        }
        let read = match format {
            Format::Protobuf => Self::protobuf(&answer.body)?,
            Format::Text | Format::OpenMetrics => Self::text(&answer.text(), format)?,
        };
        if read.counters.is_empty() { Err("no counter".to_owned()) } else { Ok(read) }
    }

    fn text(text: &str, format: Format) -> Result<Self, String> {
        let text = match format {
            Format::OpenMetrics => text.strip_suffix("# EOF\n").ok_or("it does not end in EOF")?,
            _ => text,
        };
        let body = text.strip_suffix('\n').ok_or("the last line does not end")?;
        let mut read = Self::default();
        let mut family = ("", "");
        for line in body.split('\n') {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (what, name, rest) = (words.next(), words.next(), words.next());
                match (what, name, rest) {
                    (Some("TYPE"), Some(name), Some(kind)) => family = (name, kind),
                    (Some("HELP" | "UNIT"), Some(_), Some(_)) => {}
                    _ => return Err(format!("no comment: {line:?}")),
                }
                continue;
            }
            let wrong = || format!("no sample: {line:?}");
            // No value and no exemplar has a space after the last brace.
            let (series, value) = line.rsplit_once(' ').ok_or_else(wrong)?;
            let value: f64 = value.parse().map_err(|_| wrong())?;
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            if !name.starts_with(family.0) || !labels.ends_with('}') {
                return Err(wrong());
            }
            let grows = matches!(family.1, "counter" | "histogram") && !name.ends_with("_created");
            read.add(series.to_owned(), value, grows)?;
        }
        Ok(read)
    }

    fn protobuf(mut body: &[u8]) -> Result<Self, String> {
        let mut read = Self::default();
        while !body.is_empty() {
            let family = proto::MetricFamily::decode_length_delimited(&mut body)
                .map_err(|error| error.to_string())?;
            for metric in &family.metric {
                let labels: Vec<_> =
                    metric.label.iter().map(|l| format!("{}={:?}", l.name, l.value)).collect();
                let series = |suffix| format!("{}{suffix}{{{}}}", family.name, labels.join(","));
                if let Some(histogram) = &metric.histogram {
                    #[expect(clippy::cast_precision_loss, reason = "no count is near 2^53")]
                    let count = histogram.sample_count as f64;
                    read.add(series("_count"), count, true)?;
                    read.add(series("_sum"), histogram.sample_sum, true)?;
                } else if let Some(counter) = &metric.counter {
                    read.add(series(""), counter.value, true)?;
                } else if let Some(gauge) = &metric.gauge {
                    read.add(series(""), gauge.value, false)?;
                } else {
                    return Err(format!("{} has no value", family.name));
                }
            }
        }
        Ok(read)
    }

    fn add(&mut self, series: String, value: f64, grows: bool) -> Result<(), String> {
        if grows {
            self.counters.insert(series.clone(), value);
        }
        match self.samples.insert(series, value) {
            None => Ok(()),
            Some(_) => Err("a series comes twice".to_owned()),
        }
    }

    /// Counters that are less than they were `before`, or gone.
    pub(crate) fn went_back(&self, before: &Self) -> Vec<String> {
        let went_back = |(series, then): (&String, &f64)| {
            let now = self.counters.get(series).copied();
            now.is_none_or(|now| now < *then).then(|| format!("{series}: {then} to {now:?}"))
        };
        before.counters.iter().filter_map(went_back).collect()
    }
}
