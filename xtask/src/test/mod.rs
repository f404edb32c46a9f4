//! `cargo xtask test`: every check of the project, and one count of them all.
//!
//! Each step runs to its end whatever happened before it, its output in
//! `target/xtask/logs`; the output of a step that fails is shown in full. The
//! integration tests of [`matrix`] are then run on other kernels, in virtual
//! machines. The last line is `N passed, N failed, N skipped`.

mod count;
mod guests;
mod kernels_page;
mod matrix;
mod package;
mod readme;
pub(crate) mod service;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result};
use bpf_toolchain::{Job, Toolchain, Verb};

use crate::{setup, shell};
use count::Counts;
use service::Services;

/// Names the file where an integration test that cannot run here appends
/// `SKIP <test>: <reason>` before it returns.
const SKIP_LOG: &str = "LOCKPROF_SKIP_LOG";

/// How a step's success is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One check: the exit status.
    Check,
    /// Tests: what libtest says of each. That there is none is a failure.
    Tests,
    /// The same, but there may be none.
    Examples,
}

struct Step {
    name: &'static str,
    /// Of the log.
    file: &'static str,
    kind: Kind,
    command: Command,
}

/// Of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// All kernels and machines; by default the oldest kernel, one in the
    /// middle and the newest
    #[arg(long)]
    all: bool,
    /// Only what runs in virtual machines, and only on these kernels
    #[arg(long, value_name = "SERIES", value_delimiter = ',', conflicts_with = "all")]
    guests: Vec<String>,
    /// Only the tests of the installed package, in a virtual machine, on the
    /// kernels of `--guests`; of these, only those whose names contain TEXT
    #[arg(long, value_name = "TEXT", num_args = 0..)]
    service: Option<Vec<String>>,
    /// The package that they install, in place of one that is built
    #[arg(long, value_name = "FILE", requires = "service")]
    deb: Option<PathBuf>,
    /// Only the package, in a throw-away Debian
    #[arg(long, conflicts_with_all = ["all", "guests", "service"])]
    package: bool,
}

/// Runs everything.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut guests = matrix::choose(arguments.all, &arguments.guests)?;
    if setup::ensure()? == setup::Outcome::Asked {
        return Ok(ExitCode::FAILURE);
    }
    if arguments.package {
        let (mut total, mut failed) = (Counts::default(), Vec::new());
        try_package(&mut total, &mut failed)?;
        return Ok(conclude(&total, &failed));
    }
    let toolchain = setup::toolchain()?;
    let skip_log = shell::scratch().join("skips.log");
    let mut total = Counts::default();
    let mut failed = Vec::new();
    if arguments.service.is_some() {
        guests.clear();
    }
    let guests_only = arguments.service.is_some() || !arguments.guests.is_empty();
    let here = if guests_only { Vec::new() } else { steps(&toolchain) };
    for mut step in here {
        let counts = run_step(&mut step, &skip_log)?;
        if counts.failed > 0 {
            failed.push(step.name.to_owned());
        }
        total.add(counts);
    }
    if !guests_only {
        try_package(&mut total, &mut failed)?;
        println!("== the commands of README.md, on this machine");
        let counts = readme::run()?;
        if counts.failed > 0 {
            failed.push("README.md".to_owned());
        }
        println!("   {} passed, {} failed", counts.passed, counts.failed);
        total.add(counts);
    }
    println!("== integration tests on other kernels, in virtual machines");
    let services = Services::prepare(
        service::choose(arguments.all, &arguments.guests),
        arguments.deb.as_deref(),
        arguments.service.as_deref().unwrap_or_default(),
    );
    let in_guests = guests::run(&guests, &services)?;
    failed.extend(in_guests.failures.iter().cloned());
    total.add(in_guests);
    Ok(conclude(&total, &failed))
}

fn try_package(total: &mut Counts, failed: &mut Vec<String>) -> Result<()> {
    println!("== the package, in a throw-away Debian");
    let start = Instant::now();
    let counts = package::run()?;
    failed.extend(counts.failures.iter().cloned());
    println!(
        "   {} passed, {} failed, {} skipped in {} s",
        counts.passed,
        counts.failed,
        counts.skips.len(),
        start.elapsed().as_secs()
    );
    total.add(counts);
    Ok(())
}

/// Says what all of it came to.
fn conclude(total: &Counts, failed: &[String]) -> ExitCode {
    for skip in &total.skips {
        println!("skipped: {skip}");
    }
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
    }
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skips.len());
    if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_step(step: &mut Step, skip_log: &Path) -> Result<Counts> {
    match fs::remove_file(skip_log) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("failed to remove {}", skip_log.display()));
        }
        _ => {}
    }
    println!("== {}", step.name);
    let start = Instant::now();
    step.command.env(SKIP_LOG, skip_log).env("PATH", shell::path());
    let logged = shell::run_logged(&mut step.command, step.file)?;
    let skips = fs::read_to_string(skip_log).unwrap_or_default();
    let mut counts = match step.kind {
        Kind::Check => Counts::of_check(logged.status.success()),
        Kind::Tests | Kind::Examples => {
            Counts::of_tests(&logged.text, &skips, logged.status.success())
        }
    };
    if step.kind == Kind::Tests && counts == Counts::default() {
        println!("no test ran");
        counts.failed = 1;
    }
    if counts.failed > 0 {
        print!("{}", logged.text);
    }
    println!(
        "   {} passed, {} failed, {} skipped in {} s ({})",
        counts.passed,
        counts.failed,
        counts.skips.len(),
        start.elapsed().as_secs(),
        logged.log.strip_prefix(shell::workspace()).unwrap_or(&logged.log).display()
    );
    Ok(counts)
}

/// The packages that compile for the host.
const HOST: [&str; 4] = ["--workspace", "--exclude", "profiler-ebpf", "--locked"];

fn steps(toolchain: &Toolchain) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut step = |name, file, kind, command| steps.push(Step { name, file, kind, command });

    let mut format = shell::cargo();
    format.args(["fmt", "--all", "--check"]);
    step("format", "fmt", Kind::Check, format);

    let mut clippy = shell::cargo();
    clippy.arg("clippy").args(HOST).args(["--keep-going", "--all-targets", "--", "-Dwarnings"]);
    step("clippy", "clippy", Kind::Check, clippy);

    let can_lint = toolchain.compiler.has_clippy();
    // The second build is for kernels whose BPF has no compare-exchange.
    let builds = [
        ("clippy, BPF programs", "compiler warnings, BPF programs", "bpf", &[][..]),
        (
            "clippy, BPF programs for older kernels",
            "compiler warnings, BPF programs for older kernels",
            "bpf-older",
            &["no-compare-exchange"][..],
        ),
    ];
    for (linted, checked, file, features) in builds {
        let job = Job {
            verb: if can_lint { Verb::Clippy } else { Verb::Check },
            workspace: shell::workspace(),
            target: bpf_toolchain::target(cfg!(target_endian = "big")),
            arch: std::env::consts::ARCH,
            target_dir: &shell::scratch().join(file),
            features,
            deny_warnings: true,
        };
        step(if can_lint { linted } else { checked }, file, Kind::Check, toolchain.command(&job));
    }

    let mut unit = shell::cargo();
    unit.arg("test").args(HOST).args(["--lib", "--bins", "--no-fail-fast"]);
    step("unit and property tests", "unit", Kind::Tests, unit);

    let mut examples = shell::cargo();
    examples.arg("test").args(HOST).args(["--doc", "--no-fail-fast"]);
    step("examples in the documentation", "doc", Kind::Examples, examples);

    // The flag changes every crate, so these have a folder of their own.
    let mut loom = shell::cargo();
    loom.args(["test", "--release", "--locked", "--package", "profiler-common", "--lib"])
        .args(["--no-fail-fast", "--target-dir"])
        .arg(shell::scratch().join("loom"))
        .env("RUSTFLAGS", "--cfg loom")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    step("lock-free structures under loom", "loom", Kind::Tests, loom);

    // One at a time: there is one kernel, and the load of one test would be in
    // the figures of another.
    let mut integration = shell::cargo();
    integration
        .args(["test", "--profile", "tests", "--locked", "--package", "profiler-daemon"])
        .args(["--test", "*"])
        .args(["--no-fail-fast", "--", "--test-threads=1"]);
    step("integration tests on this kernel", "integration", Kind::Tests, integration);
    steps
}
