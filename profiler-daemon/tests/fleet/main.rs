//! The formula for series, and a small fleet of synthetic hosts scraped by a real
//! Prometheus. The large one is `cargo xtask fleet`.

#[path = "../common/mod.rs"]
mod common;
#[path = "../dashboards/daemon.rs"]
mod daemon;
mod docs;
#[path = "../dashboards/files.rs"]
#[expect(dead_code, reason = "shared with the tests of the dashboards")]
mod files;
mod formula;
#[path = "../../benches/fleet/hosts.rs"]
mod hosts;
#[path = "../dashboards/prometheus.rs"]
#[expect(dead_code, reason = "shared with the tests of the dashboards")]
mod prometheus;
#[path = "../../benches/fleet/shape.rs"]
#[expect(dead_code, reason = "the words are for the page")]
mod shape;
mod small;
#[path = "../../benches/fleet/targets.rs"]
mod targets;
