//! One server for all hosts, each under a path of its own, and the scrape
//! configuration that tells them apart.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use lockprof::serve::{Format, render};

use crate::files;
use crate::hosts::Host;

/// Hosts by name.
type Fleet = Arc<BTreeMap<String, Arc<Host>>>;

/// Serves the hosts until it is dropped.
pub(crate) struct Targets {
    address: SocketAddr,
    names: Vec<String>,
    _runtime: tokio::runtime::Runtime,
}

/// What a daemon on the host would expose, by the daemon's own code.
async fn metrics(
    State(fleet): State<Fleet>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(host) = fleet.get(&name) else {
        return (StatusCode::NOT_FOUND, format!("no host {name}\n")).into_response();
    };
    // What a Prometheus asks for first: protobuf where it takes native histograms.
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let protobuf = accept.starts_with("application/vnd.google.protobuf");
    let format = if protobuf { Format::Protobuf } else { Format::OpenMetrics };
    let containers = Arc::default();
    match render(Arc::new(host.now()), containers, host.since(), host.process(), format) {
        Ok(body) => ([(CONTENT_TYPE, format.content_type())], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

impl Targets {
    /// Serves each host under `/NAME/metrics`.
    pub(crate) fn serve(hosts: &[Arc<Host>]) -> Self {
        let names: Vec<_> = hosts.iter().map(|host| host.name.clone()).collect();
        let fleet: Fleet = Arc::new(names.iter().cloned().zip(hosts.iter().cloned()).collect());
        let router = Router::new().route("/{host}/metrics", get(metrics)).with_state(fleet);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener =
            runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { address, names, _runtime: runtime }
    }

    /// Configuration of a Prometheus that scrapes all of them. To it they are
    /// `NAME:9723`, as a real fleet's; relabelling sends it here instead.
    pub(crate) fn configuration(&self, interval: &str, rules: bool) -> String {
        let targets: Vec<_> = self.names.iter().map(|name| format!("'{name}:9723'")).collect();
        let mut config = format!(
            "global: {{scrape_interval: {interval}, scrape_timeout: {interval}, \
             evaluation_interval: {interval}}}\n"
        );
        if rules {
            let folder = files::repository().join("dashboards/rules");
            let folder = folder.canonicalize().expect("the rules are there");
            let _ = writeln!(
                config,
                "rule_files: [{0}/recording.yml, {0}/alerts.yml]",
                folder.display()
            );
        }
        let _ = write!(
            config,
            "scrape_configs:\n\
             - job_name: lockprof\n  \
               static_configs: [{{targets: [{}]}}]\n  \
               relabel_configs:\n  \
               - {{source_labels: [__address__], target_label: instance}}\n  \
               - {{source_labels: [__address__], regex: '(.+):.+', target_label: __metrics_path__, \
                   replacement: '/$1/metrics'}}\n  \
               - {{target_label: __address__, replacement: '{}'}}\n",
            targets.join(", "),
            self.address
        );
        config
    }
}
