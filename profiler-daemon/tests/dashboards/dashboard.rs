//! What an import into Grafana needs of a dashboard, and what a reader needs of
//! its panels.

use std::collections::{BTreeMap, BTreeSet};

use lockprof::findings::RULES;
use serde_json::Value;

use crate::files::{self, DASHBOARDS, list, panels, text};

/// What Grafana itself defines.
const BUILT_IN: [&str; 5] = ["__rate_interval", "__range", "__value", "__url_time_range", "1"];

/// All dashboards, with their names.
fn all() -> impl Iterator<Item = (&'static str, Value)> {
    DASHBOARDS.into_iter().map(|name| (name, files::dashboard(name)))
}

/// All texts in a value.
fn texts<'a>(value: &'a Value, into: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => into.push(text),
        Value::Array(values) => values.iter().for_each(|value| texts(value, into)),
        Value::Object(map) => map.values().for_each(|value| texts(value, into)),
        _ => {}
    }
}

/// Names of variables in a text, `$name` and `${name...}`.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split('$').skip(1).filter_map(|rest| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        Some(&rest[..end.unwrap_or(rest.len())]).filter(|name| !name.is_empty())
    })
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no number `{key}` in {value}"))
}

#[test]
fn the_files_are_formatted_with_keys_in_order() {
    for (name, dashboard) in all() {
        let formatted = serde_json::to_string_pretty(&dashboard).expect("JSON") + "\n";
        let file = files::read(&format!("dashboards/{name}"));
        assert!(file == formatted, "{name}: format it with `jq --sort-keys .`");
    }
}

#[test]
fn a_dashboard_can_be_imported_as_it_is() {
    let mut uids = BTreeSet::new();
    for (name, dashboard) in all() {
        assert!(uids.insert(text(&dashboard, "uid").to_owned()), "{name}: its uid is another's");
        // An id is of one Grafana; inputs would have to be answered at each import.
        assert!(dashboard.get("id").is_none_or(Value::is_null), "{name} has an id");
        assert!(dashboard.get("__inputs").is_none(), "{name} has inputs");
        assert!(number(&dashboard, "schemaVersion") >= 36, "{name}: data sources are not by uid");
        assert!(
            !text(&dashboard, "title").is_empty() && !text(&dashboard, "description").is_empty()
        );
        assert_eq!(dashboard["tags"][0], "lockprof");
    }
}

#[test]
fn everything_asks_the_data_source_of_the_variable() {
    for (name, dashboard) in all() {
        let variables = list(&dashboard["templating"]["list"]);
        assert_eq!(variables[0]["type"], "datasource");
        assert_eq!(variables[0]["query"], "prometheus");
        let source = format!("${{{}}}", text(&variables[0], "name"));
        let asked = variables.iter().filter(|v| v["type"] == "query").chain(panels(&dashboard));
        for asks in asked {
            assert_eq!(asks["datasource"]["type"], "prometheus", "{name}: {asks}");
            assert_eq!(asks["datasource"]["uid"], source.as_str(), "{name}: {asks}");
            for target in list(&asks["targets"]) {
                assert!(target.get("datasource").is_none(), "{name}: a target with its own");
            }
        }
    }
}

#[test]
fn variables_are_declared_before_they_are_used_and_all_are_used() {
    for (name, dashboard) in all() {
        let mut declared: BTreeSet<&str> = BUILT_IN.into();
        let mut used = BTreeSet::new();
        for variable in list(&dashboard["templating"]["list"]) {
            let mut said = Vec::new();
            texts(variable, &mut said);
            for of in said.into_iter().flat_map(variables).filter(|v| *v != "__all") {
                assert!(declared.contains(of), "{name}: {of} is not declared yet");
                used.insert(of);
            }
            let own = text(variable, "name");
            assert!(declared.insert(own), "{name}: {own} twice");
        }
        let mut said = Vec::new();
        texts(&dashboard["panels"], &mut said);
        used.extend(said.into_iter().flat_map(variables));
        let repeated = list(&dashboard["panels"]).iter().filter_map(|p| p["repeat"].as_str());
        used.extend(repeated);
        declared.retain(|name| !BUILT_IN.contains(name));
        used.retain(|name| !BUILT_IN.contains(name));
        assert_eq!(used, declared, "{name}: used, and declared");
    }
}

#[test]
fn panels_have_their_place_and_name_alone() {
    for (name, dashboard) in all() {
        let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
        let mut taken: BTreeMap<(u64, u64), &str> = BTreeMap::new();
        for panel in list(&dashboard["panels"]) {
            let (title, at) = (text(panel, "title"), &panel["gridPos"]);
            assert!(ids.insert(number(panel, "id")), "{name}: the id of {title} is another's");
            let row = taken.values().next_back().copied().unwrap_or("");
            assert!(titles.insert((panel["type"] == "row", title)), "{name}: {title} twice, {row}");
            let (x, y, w, h) = (number(at, "x"), number(at, "y"), number(at, "w"), number(at, "h"));
            assert!(w > 0 && h > 0 && x + w <= 24, "{name}: {title} is off the grid");
            for place in (y..y + h).flat_map(|y| (x..x + w).map(move |x| (x, y))) {
                if let Some(other) = taken.insert(place, title) {
                    panic!("{name}: {title} is over {other}");
                }
            }
        }
    }
}

#[test]
fn queries_of_a_panel_have_names_of_their_own_and_columns_are_there() {
    for (name, dashboard) in all() {
        for panel in panels(&dashboard) {
            let title = text(panel, "title");
            let targets = list(&panel["targets"]);
            let refs: BTreeSet<_> = targets.iter().map(|target| text(target, "refId")).collect();
            assert!(!refs.is_empty() && refs.len() == targets.len(), "{name}: {title}");
            for target in targets {
                // Neither of them is no query, both are two.
                assert_ne!(target["instant"], target["range"], "{name}: {title}");
            }
            let renamed = list(&panel["transformations"]).iter();
            for columns in renamed.filter_map(|t| t["options"]["renameByName"].as_object()) {
                let value = |column: &&String| column.starts_with("Value");
                let wanted: BTreeSet<String> = if targets.len() == 1 {
                    BTreeSet::from(["Value".to_owned()])
                } else {
                    refs.iter().map(|r| format!("Value #{r}")).collect()
                };
                // A query may be there for its labels alone.
                let hidden = list(&panel["transformations"])
                    .iter()
                    .filter_map(|t| t["options"]["excludeByName"].as_object());
                let shown: BTreeSet<String> = columns
                    .keys()
                    .chain(hidden.flat_map(serde_json::Map::keys))
                    .filter(value)
                    .cloned()
                    .collect();
                assert_eq!(shown, wanted, "{name}: {title}");
            }
        }
    }
}

/// The anchor of a heading, as GitHub and most others make it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_panel_says_what_it_shows_and_links_to_a_section_that_exists() {
    let pages = ["patterns", "metrics"].map(|page| {
        let page_text = files::read(&format!("docs/{page}.md"));
        let headings = page_text.lines().filter(|line| line.starts_with('#'));
        let anchors: BTreeSet<_> =
            headings.map(|heading| anchor(heading.trim_start_matches('#').trim())).collect();
        (page, anchors)
    });
    let mut linked = BTreeSet::new();
    for (name, dashboard) in all() {
        for panel in panels(&dashboard) {
            let (title, description) = (text(panel, "title"), text(panel, "description"));
            let links: Vec<_> = description.split("](").skip(1).collect();
            assert!(!links.is_empty(), "{name}: {title} links nowhere");
            for link in links {
                let target = link.split(')').next().expect("a link ends");
                let (page, section) = target
                    .strip_prefix("${docs}/")
                    .and_then(|target| target.split_once(".md#"))
                    .unwrap_or_else(|| panic!("{name}: {title} links to {target}"));
                let known =
                    pages.iter().any(|(p, anchors)| *p == page && anchors.contains(section));
                assert!(known, "{name}: {title} links to {target}, which is not there");
                linked.insert(section.to_owned());
            }
        }
    }
    for rule in RULES {
        assert!(linked.contains(rule.name), "no panel links to {}", rule.name);
    }
}
