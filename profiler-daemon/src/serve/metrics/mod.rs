//! What a metric is: declared once, as data.
//!
//! In: nothing. Out: [`METRICS`], in the order of the exposition. A
//! declaration carries what a reader of the reference page wants to know and
//! the function that turns a [`Scrape`] into rows, so a metric cannot be
//! exposed without being documented.

mod attribution;
mod containers;
mod definitions;
mod mounts;
mod samples;

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};

pub use self::definitions::{METRICS, REASONS};
use super::process::Process;
use crate::snapshot::containers::ContainerTimes;
use crate::snapshot::{Snapshot, Times};

/// One metric family.
#[derive(Clone, Copy)]
pub struct Metric {
    /// Full Prometheus name, with the suffixes of unit and kind.
    pub name: &'static str,
    /// One sentence for `# HELP`: no line break, quote or backslash.
    pub help: &'static str,
    /// Counter, gauge, histogram or info.
    pub kind: Kind,
    /// Base unit, if the figure has one.
    pub unit: Option<Unit>,
    /// Labels, in the order of [`Row`].
    pub labels: &'static [Label],
    /// What to know beyond `help`, for the reference page; may be empty.
    pub note: &'static str,
    /// The rows of a scrape. A family without rows is left out.
    pub rows: for<'a> fn(&'a Scrape<'a>) -> Rows<'a>,
}

impl Metric {
    /// Name without the suffixes that OpenMetrics derives from unit and kind.
    pub fn base_name(&self) -> &'static str {
        let name = match self.kind {
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            Kind::Info => self.name.strip_suffix("_info").unwrap_or(self.name),
            Kind::Gauge | Kind::Histogram => self.name,
        };
        let Some(unit) = self.unit else { return name };
        name.strip_suffix(unit.as_str()).and_then(|n| n.strip_suffix('_')).unwrap_or(name)
    }
}

/// Kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; name ends in `_total`.
    Counter,
    /// A state.
    Gauge,
    /// Classic buckets, and native ones where the format has them.
    Histogram,
    /// Constant 1; name ends in `_info`, the labels carry the message.
    Info,
}

impl Kind {
    /// The word for it on the reference page.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// Base unit of a metric; the name carries it as a suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// Suffix of the name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
        }
    }
}

/// A label, and what bounds the number of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Name.
    pub name: &'static str,
    /// What a value says.
    pub about: &'static str,
    /// Which values there can be.
    pub bound: &'static str,
}

/// What one scrape is made from.
#[derive(Clone, Copy, Debug)]
pub struct Scrape<'a> {
    /// The figures.
    pub snapshot: &'a Snapshot,
    /// Times of selected containers; empty where none are wanted.
    pub containers: &'a ContainerTimes,
    /// When the counters were zero.
    pub since: SystemTime,
    /// The daemon itself.
    pub process: Process,
    /// Version of the daemon.
    pub version: &'a str,
    /// Architecture that it was compiled for, as in `uname -m`.
    pub arch: &'a str,
}

/// Rows of one metric.
pub type Rows<'a> = Box<dyn Iterator<Item = Row<'a>> + 'a>;

/// Most labels that a metric may have.
pub const MAX_LABELS: usize = 3;

/// One series at one moment: label values in the order of [`Metric::labels`],
/// and a figure.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    values: [Value<'a>; MAX_LABELS],
    len: usize,
    /// The figure, in the unit of the metric.
    pub figure: Figure<'a>,
}

impl<'a> Row<'a> {
    /// A row; the number of values is checked at compile time.
    pub fn new<const N: usize>(values: [Value<'a>; N], figure: Figure<'a>) -> Self {
        const { assert!(N <= MAX_LABELS) }
        let mut padded = [Value::Number(0); MAX_LABELS];
        padded[..N].copy_from_slice(&values);
        Self { values: padded, len: N, figure }
    }

    /// The label values.
    pub fn values(&self) -> &[Value<'a>] {
        &self.values[..self.len]
    }
}

/// A label value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A name. It may be hostile: see [`visible`].
    Text(&'a str),
    /// A node number.
    Number(u32),
}

/// The figure of a row.
#[derive(Clone, Copy, Debug)]
pub enum Figure<'a> {
    /// A count.
    Count(u64),
    /// Anything else, in the unit of the metric.
    Number(f64),
    /// A distribution of durations.
    Times(&'a Times),
}

/// The labels of a row, for `prometheus-client`, which escapes quotes,
/// backslashes and line breaks.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowLabels<'a> {
    pub(super) labels: &'static [Label],
    pub(super) values: &'a [Value<'a>],
}

impl EncodeLabelSet for RowLabels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (label, value) in self.labels.iter().zip(self.values) {
            match value {
                Value::Text(text) => (label.name, visible(text)).encode(encoder.encode_label())?,
                Value::Number(number) => (label.name, *number).encode(encoder.encode_label())?,
            }
        }
        Ok(())
    }
}

/// `text` with control characters spelled out (`\u{1b}`, `\n`), so that a name
/// from inside a container cannot steer the terminal of whoever reads the page.
/// The characters that reverse the direction of text count as well.
fn visible(text: &str) -> Cow<'_, str> {
    let hidden =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if hidden(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Seconds of a duration in ns. The quotient is the double next to the exact
/// value, so a power of two prints as its decimal digits.
#[expect(clippy::cast_precision_loss, reason = "2^53 ns are 104 days; beyond, a double rounds")]
pub(super) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::serve::example;

    #[test]
    fn names_occur_once_and_carry_the_suffix_of_their_unit_and_kind() {
        let mut seen = HashSet::new();
        for metric in METRICS {
            assert!(seen.insert(metric.name), "{} is declared twice", metric.name);
            let mut name = metric.base_name().to_owned();
            if let Some(unit) = metric.unit {
                name = format!("{name}_{}", unit.as_str());
            }
            match metric.kind {
                Kind::Counter => name += "_total",
                Kind::Info => name += "_info",
                Kind::Gauge | Kind::Histogram => {}
            }
            assert_eq!(name, metric.name);
        }
    }

    #[test]
    fn help_is_one_sentence_that_needs_no_escaping() {
        for metric in METRICS {
            assert!(metric.help.ends_with('.'), "{}", metric.name);
            assert!(!metric.help.contains(['\n', '\\', '"']), "{}", metric.name);
        }
    }

    #[test]
    fn every_row_has_a_value_for_every_label() {
        let snapshot = example::snapshot();
        let scrape = example::scrape(&snapshot);
        for metric in METRICS {
            let mut rows = 0;
            for row in (metric.rows)(&scrape) {
                assert_eq!(row.values().len(), metric.labels.len(), "{}", metric.name);
                rows += 1;
            }
            assert!(rows > 0, "the example has no row of {}", metric.name);
        }
    }

    #[test]
    fn control_characters_become_visible_and_other_text_stays() {
        assert_eq!(visible("a\x1b[31m\nb\u{202e}\u{9b}"), r"a\u{1b}[31m\nb\u{202e}\u{9b}");
        assert!(matches!(visible("größe \"x\" \\"), Cow::Borrowed(_)));
    }

    #[test]
    fn powers_of_two_in_seconds_print_as_their_decimal_digits() {
        assert_eq!(seconds(256).to_string(), "0.000000256");
        assert_eq!(seconds(1 << 36).to_string(), "68.719476736");
    }
}
