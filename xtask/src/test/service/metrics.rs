//! Series of a scrape, as far as the tests ask for them.

use anyhow::{Context as _, Result};

/// A scrape.
#[derive(Debug)]
pub(super) struct Metrics(Vec<Series>);

#[derive(Debug)]
struct Series {
    name: String,
    /// `a="b",c="d"`, as it came.
    labels: String,
    value: f64,
}

impl Metrics {
    /// Reads the text format; lines that are no series are left out.
    pub(super) fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(series).collect())
    }

    /// The sum over the series of this name that have these labels, `a="b"`; none
    /// if there is no such series.
    pub(super) fn sum(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let mut found = self.with(name, labels).map(|series| series.value).peekable();
        found.peek()?;
        Some(found.sum())
    }

    /// [`Self::sum`], where there has to be one.
    pub(super) fn get(&self, name: &str, labels: &[&str]) -> Result<f64> {
        self.sum(name, labels).with_context(|| format!("no series {name}{{{}}}", labels.join(",")))
    }

    /// The values of a label over the series of this name that are not 0.
    pub(super) fn values(&self, name: &str, label: &str) -> Vec<String> {
        let start = format!("{label}=\"");
        self.with(name, &[])
            .filter(|series| series.value != 0.0)
            .filter_map(|series| {
                let (_, rest) = series.labels.split_once(&start)?;
                Some(rest.split_once('"')?.0.to_owned())
            })
            .collect()
    }

    fn with(&self, name: &str, labels: &[&str]) -> impl Iterator<Item = &Series> {
        self.0.iter().filter(move |series| {
            series.name == name
                && labels.iter().all(|label| series.labels.split(',').any(|one| one == *label))
        })
    }
}

fn series(line: &str) -> Option<Series> {
    let (head, value) = line.rsplit_once(' ')?;
    let (name, labels) = match head.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (head, ""),
    };
    Some(Series { name: name.to_owned(), labels: labels.to_owned(), value: value.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a_count x\n\
        a_count{lock=\"x\",mode=\"read\"} 3\na_count{lock=\"y\",mode=\"read\"} 4\n\
        hook{hook=\"h\",backend=\"fentry\"} 1\nhook{hook=\"g\",backend=\"none\"} 0\nplain 1.5\n";

    #[test]
    fn series_are_summed_over_the_labels_that_are_not_named() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.sum("a_count", &[]), Some(7.0));
        assert_eq!(metrics.sum("a_count", &["lock=\"y\"", "mode=\"read\""]), Some(4.0));
        assert_eq!(metrics.sum("a_count", &["lock=\"z\""]), None);
        assert_eq!(metrics.sum("plain", &[]), Some(1.5));
        assert!(metrics.get("other", &[]).unwrap_err().to_string().contains("other"));
    }

    #[test]
    fn labels_of_series_that_count_are_listed() {
        assert_eq!(Metrics::parse(TEXT).values("hook", "hook"), ["h"]);
    }
}
