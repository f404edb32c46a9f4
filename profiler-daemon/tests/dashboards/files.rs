//! The files in `dashboards/`, read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// The dashboards' file names.
pub(crate) const DASHBOARDS: [&str; 2] = ["host.json", "fleet.json"];

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

pub(crate) fn dashboard(name: &str) -> Value {
    let text = read(&format!("dashboards/{name}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The elements of an array; none where there is no array.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text `{key}` in {value:#}"))
}

/// Panels that are no rows.
pub(crate) fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(&dashboard["panels"]).iter().filter(|panel| panel["type"] != "row")
}

/// A query of a panel or a rule, its variables replaced.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    /// Where it is, for messages.
    pub(crate) place: String,
    pub(crate) expression: String,
    /// Labels that the legend of the panel shows.
    pub(crate) shown: BTreeSet<String>,
    /// Over the time shown, rather than at its end.
    pub(crate) is_range: bool,
}

/// What the variables of the dashboards stand for.
pub(crate) struct Choice<'a> {
    pub(crate) host: &'a str,
    pub(crate) range: &'a str,
    /// How long ago the other side of a comparison is.
    pub(crate) compare: &'a str,
}

impl Choice<'_> {
    /// With nothing left out, where nothing is looked up.
    pub(crate) const ANY: Choice<'static> = Choice { host: "host-1", range: "5m", compare: "1d" };

    /// Replaces variables as Grafana does.
    pub(crate) fn expand(&self, expression: &str) -> String {
        [
            ("$__rate_interval", self.range),
            ("$__range", self.range),
            ("$job", "lockprof"),
            ("$host", self.host),
            ("$lock", ".+"),
            ("$node", ".+"),
            ("$kernel", ".+"),
            ("$top", "10"),
            ("$compare", self.compare),
        ]
        .iter()
        .fold(expression.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

/// The queries of all panels of a dashboard.
pub(crate) fn queries(name: &str, choice: &Choice<'_>) -> Vec<Query> {
    let dashboard = dashboard(name);
    let of_panel = |panel: &Value| -> Vec<Query> {
        let targets = list(&panel["targets"]).iter();
        targets
            .map(|target| Query {
                place: format!("{name}: {} ({})", text(panel, "title"), text(target, "refId")),
                expression: choice.expand(text(target, "expr")),
                shown: braced(text(target, "legendFormat")),
                is_range: target["range"] == true,
            })
            .collect()
    };
    panels(&dashboard).flat_map(of_panel).collect()
}

/// The names in `{{ }}`.
fn braced(text: &str) -> BTreeSet<String> {
    let parts = text.split("{{").skip(1);
    parts.filter_map(|part| Some(part.split_once("}}")?.0.trim().to_owned())).collect()
}

/// A file of rules.
#[derive(Debug, Deserialize)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

/// A recording or alerting rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    pub(crate) record: Option<String>,
    pub(crate) alert: Option<String>,
    pub(crate) expr: String,
    #[serde(rename = "for")]
    pub(crate) for_at_least: Option<String>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Rule {
    pub(crate) fn name(&self) -> &str {
        self.record.as_deref().or(self.alert.as_deref()).expect("a rule has a name")
    }

    /// What selects the series that it records. Without labels of its own, also
    /// those of other rules under its name.
    pub(crate) fn selector(&self) -> String {
        let labels: Vec<_> =
            self.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        format!("{}{{{}}}", self.name(), labels.join(","))
    }

    /// Whether it records nothing where all histograms are classic ones.
    pub(crate) fn is_of_native_histograms(&self) -> bool {
        self.labels.get("histogram").is_some_and(|form| form == "native")
    }
}

/// The rules of a file in `dashboards/rules`.
pub(crate) fn rules(name: &str) -> Vec<Rule> {
    let path = format!("dashboards/rules/{name}");
    let file: RuleFile =
        serde_saphyr::from_str(&read(&path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    file.groups.into_iter().flat_map(|group| group.rules).collect()
}

pub(crate) fn recording() -> Vec<Rule> {
    rules("recording.yml")
}

pub(crate) fn alerts() -> Vec<Rule> {
    rules("alerts.yml")
}
