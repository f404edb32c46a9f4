//! The dashboards and the Prometheus rules in `dashboards/`: well formed, about
//! metrics and labels that exist, and answered by a real Prometheus that scrapes
//! a real daemon.

#[path = "../common/mod.rs"]
mod common;

mod daemon;
mod dashboard;
mod expressions;
mod files;
mod forms;
mod histograms;
#[path = "../../benches/fleet/hosts.rs"]
#[expect(dead_code, reason = "shared with the simulation of a fleet")]
mod hosts;
mod labels;
mod packaged;
mod prometheus;
mod proof;
mod remote_write;
mod rules;
mod schema;
