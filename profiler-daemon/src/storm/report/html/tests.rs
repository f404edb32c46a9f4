use roxmltree::{Document, Node};

use super::*;
use crate::snapshot::Name;
use crate::storm::analysis::{Host, Step, steps};
use crate::storm::fixture;

/// What a browser sees of the page's body, which has no element without an end.
fn body(page: &str) -> &str {
    let from = page.find("<body>").expect("it has a body");
    let to = page.find("</body>").expect("that ends");
    &page[from..to + "</body>".len()]
}

/// Elements of `name` in `of`.
fn all<'a, 'i>(of: Node<'a, 'i>, name: &'a str) -> Vec<Node<'a, 'i>> {
    of.descendants().filter(|node| node.tag_name().name() == name).collect()
}

fn text(node: Node<'_, '_>) -> String {
    node.descendants().filter(Node::is_text).filter_map(|node| node.text()).collect()
}

fn attribute(node: Node<'_, '_>, name: &str) -> f64 {
    node.attribute(name).and_then(|text| text.parse().ok()).expect("it is a figure")
}

#[test]
fn every_plot_is_well_formed_and_described() {
    for (report, plots) in [(fixture::sweep(), 3), (fixture::comparison(), 2)] {
        let page = page(&report);
        let document = Document::parse(body(&page)).expect("the body is well-formed");
        let found = all(document.root(), "svg");
        assert_eq!(found.len(), plots);
        let mut ids = Vec::new();
        for svg in found {
            let described = svg.attribute("aria-labelledby").unwrap();
            let own: Vec<_> = ["title", "desc"]
                .iter()
                .map(|name| all(svg, name)[0])
                .inspect(|node| assert!(!text(*node).is_empty()))
                .filter_map(|node| node.attribute("id"))
                .collect();
            assert_eq!(described, own.join(" "));
            ids.extend(own);
        }
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "no id is used twice");
    }
}

#[test]
fn nothing_is_drawn_outside_its_plot() {
    for report in [fixture::sweep(), fixture::comparison()] {
        let page = page(&report);
        let document = Document::parse(body(&page)).unwrap();
        for svg in all(document.root(), "svg") {
            let size: Vec<f64> =
                svg.attribute("viewBox").unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
            for node in svg.descendants() {
                for name in ["x", "x1", "x2", "cx"].iter().filter(|name| node.has_attribute(**name))
                {
                    assert!((0.0..=size[2]).contains(&attribute(node, name)), "{node:?}");
                }
                for name in ["y", "y1", "y2", "cy"].iter().filter(|name| node.has_attribute(**name))
                {
                    assert!((0.0..=size[3]).contains(&attribute(node, name)), "{node:?}");
                }
            }
        }
    }
}

#[test]
fn a_sweep_has_a_marker_with_whiskers_for_each_value_and_the_law_over_them() {
    let page = page(&fixture::sweep());
    let document = Document::parse(body(&page)).unwrap();
    let svg = all(document.root(), "svg")[0];
    let of_class = |class: &str| {
        let has = |node: &Node<'_, '_>| {
            node.attribute("class").is_some_and(|all| all.split(' ').any(|one| one == class))
        };
        svg.descendants().filter(has).collect::<Vec<_>>()
    };
    assert_eq!(of_class("whisker").len(), 14, "two strategies at seven values");
    assert_eq!(all(svg, "circle").len(), 8, "seven of the first one, and its legend");
    let laws: Vec<_> =
        of_class("law").iter().filter(|n| n.has_tag_name("polyline")).copied().collect();
    assert_eq!(laws.len(), 2);
    let heights: Vec<f64> = laws[0]
        .attribute("points")
        .unwrap()
        .split(' ')
        .map(|point| point.split_once(',').unwrap().1.parse().unwrap())
        .collect();
    let top = heights.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(top < heights[0] && top < heights[heights.len() - 1], "it rises and falls");
    let labels = text(svg);
    for label in
        ["starts per second", "concurrency, logarithmic", "legacy: Universal Scalability Law"]
    {
        assert!(labels.contains(label), "{label} in {labels}");
    }
}

#[test]
fn bars_are_as_long_as_their_figures() {
    let report = fixture::comparison();
    let page = page(&report);
    let document = Document::parse(body(&page)).unwrap();
    let bars = all(all(document.root(), "svg")[0], "rect");
    let lengths: Vec<f64> = bars.iter().map(|bar| attribute(*bar, "width")).collect();
    let medians: Vec<f64> =
        report.curves.iter().map(|curve| curve.points[0].starts_per_second.median).collect();
    assert!((lengths[1] / lengths[0] - medians[1] / medians[0]).abs() < 0.01, "{lengths:?}");
}

#[test]
fn the_tables_have_every_figure() {
    let report = fixture::sweep();
    let page = page(&report);
    let document = Document::parse(body(&page)).unwrap();
    let tables = all(document.root(), "table");
    let rows: Vec<usize> = tables.iter().map(|table| all(*table, "tr").len() - 1).collect();
    assert_eq!(rows, [14, 28, 21], "points, locks at each, and ratios of starts and of two locks");
    for table in tables {
        let columns = all(table, "th").len();
        for row in all(table, "tr").into_iter().skip(1) {
            assert_eq!(all(row, "td").len(), columns);
        }
    }
}

#[test]
fn text_from_outside_is_only_ever_text() {
    let evil = "</style><script>alert(1)</script><img src=//x onerror=1>\" onload=\"1&\u{1b}";
    let run = |step: Step| {
        (step, fixture::trial(9.0, &[fixture::waits(Name::from(evil).as_str(), 1, 5_000)]))
    };
    let ran: Vec<_> = steps(1, 2, 1).map(run).collect();
    let host = Host { kernel: evil.to_owned(), cpus: 1, numa_nodes: 1 };
    let names = [evil.to_owned(), format!("{evil}2")];
    for axis in [None, Some(Axis { name: evil.to_owned(), values: vec![7] })] {
        let notes = vec![evil.to_owned()];
        let page = page(&Report::new(host.clone(), axis, &names, &ran, false, notes));
        assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
        assert_eq!(page.matches("</style>").count(), 1);
        let document = Document::parse(body(&page)).expect("the body is well-formed");
        let attributes = document.descendants().flat_map(|node| node.attributes());
        assert!(attributes.into_iter().all(|a| !a.name().starts_with("on")), "no handler");
    }
}

#[test]
fn it_asks_for_nothing_from_elsewhere_and_runs_nothing() {
    let page = page(&fixture::sweep());
    for part in ["<script", "<link", "<img", "<iframe", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(part), "{part}");
    }
    let addresses: Vec<_> = page.match_indices("http").map(|(at, _)| &page[at..at + 26]).collect();
    let allowed = |text: &&&str| {
        text.starts_with("http://www.w3.org/2000/svg") || text.starts_with("http-equiv")
    };
    assert_eq!(addresses.iter().filter(allowed).count(), addresses.len(), "{addresses:?}");
    assert!(page.contains("Content-Security-Policy"));
    assert!(page.contains("prefers-color-scheme:dark"));
}

#[test]
fn a_run_without_any_trial_is_a_page_too() {
    let report = fixture::sweep();
    let names = ["legacy".to_owned()];
    for axis in [report.axis, None] {
        let page = page(&Report::new(report.host.clone(), axis, &names, &[], true, Vec::new()));
        assert!(page.contains("interrupted: trials are missing"), "{page}");
        assert!(page.contains("legacy: no trial was run"));
        Document::parse(body(&page)).expect("the body is well-formed");
    }
}
