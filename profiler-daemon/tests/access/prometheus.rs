//! A real Prometheus that scrapes over TLS with a password, and its tool.

use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::{Daemon, await_that, free_address};
use crate::fixture::{CLIENTS, Folder, PASSWORD, TLS, USER, users};
use crate::{common, needs_bpf};

const MISSING: &str = "is not installed; `cargo xtask setup` installs it";

/// A Prometheus, killed when dropped.
struct Prometheus {
    child: Child,
    url: String,
    _data: TempDir,
}

impl Prometheus {
    /// Starts one with the configuration in the folder.
    fn start(folder: &Folder) -> std::io::Result<Self> {
        let (data, address) = (tempfile::tempdir()?, free_address());
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.path("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", data.path().display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, url: format!("http://{address}/api/v1/"), _data: data })
    }

    fn ask(&self, path: &str) -> Option<Value> {
        let body =
            ureq::get(format!("{}{path}", self.url)).call().ok()?.body_mut().read_to_string();
        serde_json::from_str(&body.ok()?).ok()
    }

    /// Health and last error of the target of a job, once it was scraped.
    fn target(&self, job: &str) -> (String, String) {
        await_that(&format!("{job} is scraped"), || {
            let targets = self.ask("targets")?;
            let targets = targets["data"]["activeTargets"].as_array()?.clone();
            let target = targets.iter().find(|target| target["labels"]["job"] == job)?;
            let text = |key: &str| target[key].as_str().unwrap_or_default().to_owned();
            (text("health") != "unknown").then(|| (text("health"), text("lastError")))
        })
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn prometheus_scrapes_with_password_and_certificate() {
    const TEST: &str = "prometheus_scrapes_with_password_and_certificate";
    needs_bpf!("prometheus_scrapes_with_password_and_certificate");
    let folder = Folder::new();
    folder.write("web.yml", &format!("{TLS}{CLIENTS}{}", users()));
    let web = folder.path("web.yml");
    let daemon = Daemon::start("127.0.0.1", &["--web-config".as_ref(), web.as_os_str()]);
    let job = |name: &str, password: &str, client: &str| {
        format!(
            "- job_name: {name}\n  scheme: https\n  \
               basic_auth: {{username: {USER}, password: '{password}'}}\n  \
               tls_config: {{ca_file: ca.crt, cert_file: {client}.crt, key_file: {client}.key}}\n  \
               static_configs: [{{targets: ['localhost:{}']}}]\n",
            daemon.address.port()
        )
    };
    let jobs = job("good", PASSWORD, "scraper")
        + &job("wrong-password", "x", "scraper")
        + &job("stranger", PASSWORD, "stranger");
    let config =
        format!("global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{jobs}");
    folder.write("prometheus.yml", &config);
    let Ok(prometheus) = Prometheus::start(&folder) else {
        return common::skip(TEST, &format!("prometheus {MISSING}"));
    };
    assert_eq!(prometheus.target("good"), ("up".to_owned(), String::new()));
    let (health, error) = prometheus.target("wrong-password");
    assert!(health == "down" && error.contains("401"), "{health}: {error}");
    let (health, error) = prometheus.target("stranger");
    assert!(health == "down" && error.contains("tls"), "{health}: {error}");
    await_that("up is 1 and there are figures", || {
        let found = prometheus.ask("query?query=lockprof_build_info*on(job)up{job=%22good%22}")?;
        (found["data"]["result"][0]["value"][1] == "1").then_some(())
    });
}

#[test]
fn the_packaged_example_is_right_by_promtool_and_by_lockprof() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/web.yml");
    let text = std::fs::read_to_string(example).expect("it is packaged");
    let folder = Folder::new();
    for (file, like) in
        [("tls.crt", "server.crt"), ("tls.key", "server.key"), ("clients.crt", "ca.crt")]
    {
        std::fs::copy(folder.path(like), folder.path(file)).expect("it is there");
    }
    // As it is, and with all that it shows: prose has one space after the `#`,
    // what is commented out has none, or its indentation.
    let shown: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') || rest.starts_with("  ") => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    for key in ["cert_file:", "client_ca_file:", "basic_auth_users:", "headers:"] {
        assert!(shown.lines().any(|line| line.trim_start().starts_with(key)), "{key} in {shown}");
    }
    for (name, text) in [("packaged.yml", &text), ("shown.yml", &shown)] {
        folder.write(name, text);
        let file = folder.path(name);
        let access = lockprof::serve::access::AccessFile::read(Some(&file));
        let access = access.unwrap_or_else(|error| panic!("{error}\n{text}"));
        let asks = access.check("192.0.2.1:9723".parse().expect("an address"), false).is_ok();
        assert_eq!(asks, name == "shown.yml");
        // Debian's promtool, 2.42, is older than this key.
        let (sans, name) = ("client_allowed_sans:\n    - prometheus.example.com\n", "known.yml");
        assert!(asks == text.contains(&format!("\n  {sans}")), "{text}");
        folder.write(name, &text.replace(sans, ""));
        let file = folder.path(name);
        let output = Command::new("promtool").args(["check", "web-config"]).arg(&file).output();
        let Ok(output) = output else {
            let why = format!("promtool {MISSING}");
            return common::skip("the_packaged_example_is_right_by_promtool_and_by_lockprof", &why);
        };
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{text}");
    }
}
