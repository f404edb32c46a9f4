//! Two real Prometheus scrape a real daemon under storm, one its classic and one
//! its native histograms. Then every panel is asked of both, every rule has been
//! evaluated by both, and both have the same counts.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{self, LOCKPROF};
use crate::daemon::{PATIENCE, Server, daemon};
use crate::files::{self, Choice, DASHBOARDS, list, text};
use crate::histograms;
use crate::needs_bpf;
use crate::prometheus::Prometheus;

/// A metric that a kernel need not have.
struct Absence {
    /// How the metrics begin that are about it.
    metrics: &'static str,
    /// The hook that brings it. Where that is attached, the metrics have to be
    /// there; empty if it is no matter of a hook.
    hook: &'static str,
    reason: &'static str,
}

/// What a panel may be empty for.
const ABSENT: &[Absence] = &[
    Absence {
        metrics: "lockprof_mountinfo_",
        hook: "mounts_open_common",
        reason: "who reads mount tables is seen by fentry or kprobes alone",
    },
    Absence {
        metrics: "lockprof_superblocks_created_total",
        hook: "sget_fc",
        reason: "new superblocks are seen by fentry or kprobes alone",
    },
    Absence {
        metrics: "lockprof_lock_contended_hold_seconds",
        hook: "contended_release",
        reason: "the tracepoint lock:contended_release is of Linux 7.2",
    },
    Absence {
        metrics: "lockprof_kernel_samples_total",
        hook: "kernel_samples",
        reason: "perf events are refused",
    },
    Absence {
        metrics: "lockprof_sampling_frequency_hertz",
        hook: "kernel_samples",
        reason: "perf events are refused",
    },
    Absence {
        metrics: "lockprof_mount_syscall_errors_total",
        hook: "",
        reason: "no mount call failed",
    },
    Absence {
        metrics: "lockprof_mount_syscall_",
        hook: "sys_mount",
        reason: "the kernel allows none of the ways to hook mount calls",
    },
    Absence {
        metrics: "lockprof_mount_namespace",
        hook: "task_iter",
        reason: "the kernel does not let tasks be walked",
    },
];

/// What the daemon exposes.
struct Exposed(String);

impl Exposed {
    fn by(daemon: &Server) -> Self {
        Self(daemon.get("/metrics").expect("the daemon answers"))
    }

    fn has(&self, metric: &str) -> bool {
        let mut lines = self.0.lines().filter_map(|line| line.strip_prefix(metric));
        // A native histogram has the bare name; the text that is read here has none.
        lines.any(|rest| rest.strip_prefix("_count").unwrap_or(rest).starts_with(['{', ' ']))
    }

    /// Whether the kernel lets the hook be attached. `doctor` lists all hooks; the
    /// metrics leave out those that a kernel does not have.
    fn is_attached(hook: &str) -> bool {
        let output = Command::new(LOCKPROF).args(["doctor", "--json"]).output();
        let report = output.expect("doctor can be run").stdout;
        let report: Value = serde_json::from_slice(&report).expect("JSON");
        let row = list(&report["hooks"]).iter().find(|row| row["hook"] == hook);
        row.unwrap_or_else(|| panic!("there is no hook {hook}"))["backend"] != "none"
    }

    /// Why an expression may give nothing: it is about a metric that the daemon
    /// does not expose, and need not. `None` where it has to give something.
    fn excuse(&self, expression: &str) -> Option<&'static str> {
        let missing = scraped(expression).into_iter().find(|metric| !self.has(metric))?;
        let known = ABSENT.iter().find(|a| {
            missing.starts_with(a.metrics) && (a.hook.is_empty() || !Self::is_attached(a.hook))
        });
        assert!(known.is_some(), "{missing} is not exposed, for no reason that is known");
        known.map(|absence| absence.reason)
    }
}

/// The metrics of the daemon that an expression, or a series that it takes from
/// the rules, is about.
fn scraped(expression: &str) -> BTreeSet<String> {
    let word = |c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c);
    let mut found = BTreeSet::new();
    let recording = files::recording();
    for name in expression.split(word) {
        if let Some(rule) = recording.iter().find(|rule| rule.name() == name) {
            found.extend(scraped(&rule.expr));
        } else if name.starts_with("lockprof_") || name.starts_with("process_") {
            found.insert(name.to_owned());
        }
    }
    found
}

/// Whether a series has a value that is a number, or a native histogram.
fn has_value(series: &Value) -> bool {
    if series.get("histogram").or_else(|| series.get("histograms")).is_some() {
        return true;
    }
    let one = std::slice::from_ref(&series["value"]);
    let values = series["values"].as_array().map_or(one, Vec::as_slice);
    values.iter().any(|value| value[1].as_str().is_some_and(|value| value != "NaN"))
}

/// Waits until `done`, as long as anything may take.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The rules as Prometheus has evaluated them.
fn evaluated(prometheus: &Prometheus) -> Vec<Value> {
    let rules = prometheus.ask("rules", &[]).expect("the rules are loaded");
    list(&rules["groups"]).iter().flat_map(|group| list(&group["rules"]).to_vec()).collect()
}

#[test]
fn a_real_prometheus_answers_every_panel_and_evaluates_every_rule() {
    needs_bpf!("a_real_prometheus_answers_every_panel_and_evaluates_every_rule");
    if let Some(reason) = Prometheus::missing() {
        let name = "a_real_prometheus_answers_every_panel_and_evaluates_every_rule";
        return common::skip(name, &reason);
    }
    let daemon = daemon();
    let classic = Prometheus::start(daemon.address, &[]);
    let native = Prometheus::start(daemon.address, &["--enable-feature=native-histograms"]);
    assert!(common::storm(15).status().expect("storm runs").success());
    for (prometheus, histograms) in [(&classic, "classic"), (&native, "native")] {
        eprintln!("with {histograms} histograms:");
        answers_every_panel_and_rule(prometheus, &daemon, histograms);
    }
    histograms::have_the_same_counts(&native, &classic);
}

/// `histograms` are those that it stores, alone: `classic` or `native`.
fn answers_every_panel_and_rule(prometheus: &Prometheus, daemon: &Server, histograms: &str) {
    let hosts = "kernel:lockprof_hosts:count";
    wait_until("the rules are evaluated", || {
        prometheus.query(&format!("{hosts} offset 5s")).is_ok_and(|series| !series.is_empty())
    });
    let exposed = Exposed::by(daemon);
    let host = daemon.address.to_string();
    let choice = Choice { host: &host, range: "2m", compare: "5s" };
    let mut wrong = Vec::new();
    let mut empty = Vec::new();
    let mut judge = |place: &str, expression: &str, answer: Result<Vec<Value>, String>| {
        match answer {
            Err(error) => wrong.push(format!("{place}: {error}")),
            Ok(series) if series.iter().any(has_value) => {}
            // What fires on a machine in a storm of some seconds is not for a test to say.
            Ok(_) if expression.contains("ALERTS{") => {
                empty.push(format!("{place}: no alert has fired for as long as it takes"));
            }
            Ok(series) => match exposed.excuse(expression) {
                Some(reason) => empty.push(format!("{place}: {reason}")),
                None => wrong.push(format!("{place}: gives {series:?}: {expression}")),
            },
        }
    };
    for query in DASHBOARDS.into_iter().flat_map(|name| files::queries(name, &choice)) {
        let answer = if query.is_range {
            prometheus.query_range(&query.expression, 45.0)
        } else {
            prometheus.query(&query.expression)
        };
        judge(&query.place, &query.expression, answer);
    }
    for rule in files::recording() {
        let of = rule.selector();
        let answer = prometheus.query(&of);
        if rule.is_of_native_histograms() && histograms == "classic" {
            assert_eq!(answer, Ok(Vec::new()), "{of}");
        } else {
            judge(&of, &rule.expr, answer);
        }
    }
    eprintln!("empty here, as they may be: {empty:#?}");
    assert!(wrong.is_empty(), "{histograms} histograms: {wrong:#?}");

    let rules = evaluated(prometheus);
    assert_eq!(rules.len(), files::recording().len() + files::alerts().len());
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{}: {}", rule["name"], rule["lastError"]);
    }
    variables_find_their_values(prometheus, &exposed, &choice);
}

/// The variables of the dashboards, as Grafana asks for their values.
fn variables_find_their_values(prometheus: &Prometheus, exposed: &Exposed, choice: &Choice<'_>) {
    let mut asked = 0;
    for name in DASHBOARDS {
        let dashboard = files::dashboard(name);
        let variables = list(&dashboard["templating"]["list"]).iter();
        for variable in variables.filter(|variable| variable["type"] == "query") {
            let query = choice.expand(text(&variable["query"], "query"));
            let inside = |function: &str| query.strip_prefix(function)?.strip_suffix(')');
            let values = if let Some(arguments) = inside("label_values(") {
                let (metric, label) = arguments.rsplit_once(", ").expect("a metric and a label");
                prometheus.ask(&format!("label/{label}/values"), &[("match[]", metric)])
            } else {
                let expression = inside("query_result(").expect("label_values or query_result");
                prometheus.query(expression).map(Value::Array)
            };
            let values = values.unwrap_or_else(|why| panic!("{name}: {query}: {why}"));
            let found = !list(&values).is_empty() || exposed.excuse(&query).is_some();
            assert!(found, "{name}: {query} finds nothing");
            asked += 1;
        }
    }
    assert!(asked >= 6, "only {asked} variables");
}
