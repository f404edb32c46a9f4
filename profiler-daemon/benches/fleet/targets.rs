//! One server for all hosts, each under a path of its own, and the scrape
//! configuration that tells them apart.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use lockprof::serve;

use crate::files;
use crate::hosts::Host;

/// Serves the hosts until it is dropped.
pub(crate) struct Targets {
    /// Where.
    pub(crate) address: SocketAddr,
    names: Vec<String>,
    _runtime: tokio::runtime::Runtime,
}

impl Targets {
    /// Serves what a daemon on each host would, by the daemon's own code.
    pub(crate) fn serve(hosts: &[Arc<Host>]) -> Self {
        let router = hosts.iter().fold(Router::new(), |router, host| {
            router.nest(&format!("/{}", host.name), serve::router(host.clone()))
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener =
            runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        runtime.spawn(async move { axum::serve(listener, router).await });
        let names = hosts.iter().map(|host| host.name.clone()).collect();
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
