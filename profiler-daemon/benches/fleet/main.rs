//! A fleet of synthetic hosts, scraped by a real Prometheus: what the series, the
//! rules and the dashboards cost.
//!
//! `cargo xtask fleet` runs it and puts what it prints into `docs/fleet.md`.
#![expect(clippy::print_stdout, reason = "a benchmark talks on standard output")]

#[path = "../../tests/dashboards/daemon.rs"]
#[expect(dead_code, reason = "no daemon is started here")]
mod daemon;
#[path = "../../tests/dashboards/files.rs"]
#[expect(dead_code, reason = "no rule is looked into here")]
mod files;
mod hosts;
mod measure;
mod page;
#[path = "../../tests/dashboards/prometheus.rs"]
#[expect(dead_code, reason = "promtool is for tests")]
mod prometheus;
mod shape;
mod targets;

use std::time::{Duration, Instant};

use hosts::Host;
use measure::Load;
use prometheus::Prometheus;
use targets::Targets;

/// What the modules of the tests want of theirs.
mod common {
    pub(crate) const LOCKPROF: &str = env!("CARGO_BIN_EXE_lockprof");
}

/// Hosts, unless `--hosts` says otherwise.
const HOSTS: usize = 500;

/// Seconds that each Prometheus scrapes before it is looked at: the rules take
/// rates over five minutes.
const SECONDS: u64 = 330;

/// Which host has the most to do.
const WORST: usize = 77;

/// Of all that is random.
const SEED: u64 = 6;

/// The default of Prometheus is a minute, most people's choice this.
const INTERVAL: &str = "15s";

fn main() {
    // `cargo bench` passes `--bench`, `cargo test` does not.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let hosts = value(&arguments, "--hosts", HOSTS as u64);
    let hosts = usize::try_from(hosts).expect("so many have room");
    let seconds = value(&arguments, "--seconds", SECONDS);
    if let Some(reason) = Prometheus::missing() {
        eprintln!("error: {reason}");
        std::process::exit(1);
    }
    let age = Duration::from_secs(seconds);
    let worst = WORST % hosts;
    let mut asked = Vec::new();
    let mut load = |flags: &[&str], rules: bool| {
        let fleet = hosts::fleet(hosts, worst, SEED);
        let targets = Targets::serve(&fleet);
        let prometheus = Prometheus::with(&targets.configuration(INTERVAL, rules), flags);
        let began = Instant::now();
        std::thread::sleep(age);
        let load = Load::of(&prometheus, began.elapsed());
        let down = hosts as f64 - load.up;
        assert!(
            down < 0.5,
            "{down} of {hosts} targets are down: is this machine busy with other work?"
        );
        if rules {
            asked = measure::dashboards(&prometheus, &instance(&fleet[worst]));
        }
        load
    };
    eprintln!("fleet: {hosts} hosts, classic histograms, {seconds} s");
    let classic = load(&[], true);
    eprintln!("fleet: {hosts} hosts, native histograms, {seconds} s");
    let native = load(&["--enable-feature=native-histograms"], false);
    println!("{}", page::series());
    println!(
        "### {hosts} hosts\n\n\
         As many of each recorded host, scraped every {INTERVAL} for {seconds} s by {}, which had {} CPUs together \
         with the simulation.\n\n{}",
        version(),
        std::thread::available_parallelism().map_or(0, usize::from),
        page::loads(&classic, &native)
    );
    println!(
        "### Queries of the dashboards\n\n\
         Classic histograms; ranges are of five minutes at a step of a second, `host.json` is about the host with \
         the most load.\n\n{}",
        page::queries(&asked)
    );
}

/// As in the label `instance`.
fn instance(host: &Host) -> String {
    format!("{}:9723", host.name)
}

/// The number after a flag.
fn value(arguments: &[String], flag: &str, otherwise: u64) -> u64 {
    let Some(at) = arguments.iter().position(|argument| argument == flag) else { return otherwise };
    let number = arguments.get(at + 1).and_then(|text| text.parse().ok()).filter(|n| *n > 0);
    number.unwrap_or_else(|| panic!("{flag} takes a number above 0"))
}

/// The first line of what Prometheus says of itself, up to the branch.
fn version() -> String {
    let output = std::process::Command::new("prometheus").arg("--version").output();
    let text = String::from_utf8_lossy(&output.expect("it is there").stdout).into_owned();
    text.split(" (").next().unwrap_or("prometheus").replace(", version", "").trim().to_owned()
}
