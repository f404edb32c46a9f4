//! A real Prometheus, and its tool.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::{Server, free_address};
use crate::files;

const MISSING: &str = "is not installed; `cargo xtask setup` installs it";

/// Runs promtool in a folder. Whether it was content, and what it said; or why it
/// cannot be run.
pub(crate) fn promtool(folder: &Path, arguments: &[&str]) -> Result<(bool, String), String> {
    let output = Command::new("promtool").args(arguments).current_dir(folder).output();
    let output = output.map_err(|_| format!("promtool {MISSING}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), said))
}

/// A Prometheus, which ends when dropped.
pub(crate) struct Prometheus {
    pub(crate) server: Server,
    _data: TempDir,
}

impl Prometheus {
    /// Why there is none on this machine.
    pub(crate) fn missing() -> Option<String> {
        let run = Command::new("prometheus").arg("--version").output();
        run.is_err().then(|| format!("prometheus {MISSING}"))
    }

    /// Starts one that scrapes `target` every second, with the rules. `flags` are
    /// beside those that it needs in any case.
    pub(crate) fn start(target: SocketAddr, flags: &[&str]) -> Self {
        let rules = files::repository().join("dashboards/rules");
        let rules = rules.canonicalize().expect("the rules are there");
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{0}/recording.yml, {0}/alerts.yml]\n\
             scrape_configs:\n\
             - job_name: lockprof\n  \
               static_configs: [{{targets: ['{target}']}}]\n",
            rules.display()
        );
        Self::with(&config, flags)
    }

    /// Starts one with this configuration.
    pub(crate) fn with(config: &str, flags: &[&str]) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder");
        let file = data.path().join("prometheus.yml");
        std::fs::write(&file, config).expect("it is writable");
        let address = free_address();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", data.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .args(flags);
        Self { server: Server::start(&mut command, address, "/-/ready"), _data: data }
    }

    /// What the API answers: its `data`, or the error.
    pub(crate) fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let url = format!("http://{}/api/v1/{path}", self.server.address);
        let agent: ureq::Agent = ureq::Agent::config_builder()
            // Its own words are in the body of a refusal.
            .http_status_as_error(false)
            .build()
            .into();
        let mut answer = agent
            .get(url)
            .query_pairs(parameters.iter().copied())
            .call()
            .map_err(|error| error.to_string())?;
        let body = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
        let mut body: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        if body["status"] != "success" || body.get("warnings").is_some() {
            return Err(format!("{path} {parameters:?}: {body}"));
        }
        Ok(body["data"].take())
    }

    /// The series of an expression now.
    pub(crate) fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let mut data = self.ask("query", &[("query", expression)])?;
        match data["result"].take() {
            Value::Array(series) => Ok(series),
            other => Err(format!("{expression}: {other}")),
        }
    }

    /// The series of an expression over the last `seconds`.
    pub(crate) fn query_range(&self, expression: &str, seconds: f64) -> Result<Vec<Value>, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after the epoch");
        let end = now.as_secs_f64();
        let (start, end) = ((end - seconds).to_string(), end.to_string());
        let parameters = [("query", expression), ("start", &start), ("end", &end), ("step", "1")];
        match self.ask("query_range", &parameters)?["result"].take() {
            Value::Array(series) => Ok(series),
            other => Err(format!("{expression}: {other}")),
        }
    }
}
