//! `cargo xtask bench`: what lockprof costs, as ratios, into `docs/benchmarks.md`.
//!
//! Most of it is measured on this machine. Not every kernel allows all ways to
//! observe waits, so these are compared on one that does, in a virtual machine.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde_json::Value;

use crate::process::Interrupt;
use crate::vm::accel::{self, Wish};
use crate::vm::image::Contents;
use crate::vm::kernels;
use crate::vm::machine::{Accelerator, Machine, Threads};
use crate::vm::plan::{Plan, Step};
use crate::vm::run as guest;
use crate::{setup, shell};

const PAGE: &str = "docs/benchmarks.md";

/// Heading of the part that a virtual machine gives, the last of the page.
const HEADING: &str = "## Kernel time by backend\n";

/// What the bench binary calls that part.
const SECTION: &str = "backends";

/// When the virtual machine is stopped: several times what it takes.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Measure only this, and leave the rest of the page as it is
    #[arg(long)]
    section: Option<Section>,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Kernel time by backend, in a virtual machine.
    Backends,
}

/// Runs the benchmark; it takes about ten minutes.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::require_toolchain()?;
    if arguments.section.is_none() {
        let status = shell::cargo()
            .args(["bench", "--locked", "--package", "profiler-daemon", "--bench", "overhead"])
            .status()
            .context("failed to start cargo")?;
        if !status.success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    let measured = by_backend();
    let path = shell::workspace().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("failed to read {PAGE}"))?;
    let text = match &measured {
        Ok(text) => text.clone(),
        Err(error) => format!("Missing, since it could not be measured: {}.\n", reason(error)),
    };
    print!("{HEADING}\n{text}");
    fs::write(&path, with_section(&page, &text))
        .with_context(|| format!("failed to write {PAGE}"))?;
    println!("written to {PAGE}");
    Ok(if measured.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Why, on one line, without this machine's folders.
fn reason(error: &anyhow::Error) -> String {
    let text = format!("{error:#}").replace(&*shell::workspace().to_string_lossy(), ".");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The page with this text below [`HEADING`], at its end.
fn with_section(page: &str, text: &str) -> String {
    let before = page.find(HEADING).map_or(page, |at| &page[..at]);
    format!("{}\n\n{HEADING}\n{text}", before.trim_end())
}

/// Measures the backends in a virtual machine; returns that part of the page.
fn by_backend() -> Result<String> {
    if !cfg!(target_arch = "x86_64") {
        bail!("virtual machines are x86-64 only so far");
    }
    let interrupt = Interrupt::watch()?;
    let kernel = kernels::named(kernels::USUAL)?;
    let built = Built::build()?;
    let machine = Machine { nodes: 2, cpus: 4, memory: Machine::usual_memory(2) };
    // The programs come and go while the machine is not idle.
    let threads = Threads::Single;
    let accelerator =
        accel::choose(Wish::Auto, threads, &kernel.image, &built.lockprof, &interrupt)?;
    let bench = built.bench.to_string_lossy().into_owned();
    let step = Step {
        name: SECTION.into(),
        command: vec![bench, "--bench".into(), SECTION.into()],
        folder: "/root".into(),
        ..Step::default()
    };
    eprintln!("bench: {SECTION} on {}, {}", kernel.origin, machine.describe());
    let outcome = guest::run(
        &guest::Guest {
            name: "bench",
            kernel: &kernel.image,
            machine,
            accelerator,
            contents: &Contents {
                lockprof: built.lockprof,
                files: vec![built.bench],
                ..Contents::default()
            },
            plan: &Plan { steps: vec![step], collect: None },
            timeout: TIMEOUT,
        },
        &interrupt,
        |_| (),
    )?;
    if let Some(why) = outcome.failure() {
        crate::vm::show_console(&outcome);
        bail!("virtual machine: {why}");
    }
    let done = outcome.steps.first().context("the virtual machine ran nothing")?;
    if done.status != Some(0) {
        eprint!("{}", String::from_utf8_lossy(&done.stderr));
        bail!("the benchmark failed in the virtual machine; what it said is above");
    }
    let text = String::from_utf8(done.stdout.clone()).context("the benchmark printed no text")?;
    outcome.remove_logs();
    let how = match accelerator {
        Accelerator::Kvm => "KVM",
        Accelerator::Tcg(_) => "software emulation, one CPU at a time",
    };
    Ok(format!("In a virtual machine ({}; {how}).\n\n{text}", machine.describe()))
}

/// The binaries that go into the virtual machine.
struct Built {
    lockprof: PathBuf,
    bench: PathBuf,
}

impl Built {
    /// Builds them as the tests for virtual machines are, which takes less time:
    /// the programs in the kernel, which are what is measured, are the same.
    fn build() -> Result<Self> {
        let output = shell::cargo()
            .args(["bench", "--profile", "tests", "--locked", "--package", "profiler-daemon"])
            .args(["--bench", "overhead", "--no-run"])
            .arg("--message-format=json-render-diagnostics")
            .stderr(std::process::Stdio::inherit())
            .output()
            .context("failed to start cargo")?;
        if !output.status.success() {
            bail!("the benchmark does not build ({})", output.status);
        }
        Self::parse(&String::from_utf8_lossy(&output.stdout))
    }

    /// Finds them in cargo's messages.
    fn parse(messages: &str) -> Result<Self> {
        let executable = |kind: &str, name: &str| {
            messages
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .filter(|message| {
                    let target = &message["target"];
                    target["kind"][0] == kind && target["name"] == name
                })
                .find_map(|message| message["executable"].as_str().map(PathBuf::from))
                .with_context(|| format!("cargo built no {name}"))
        };
        Ok(Self {
            lockprof: executable("bin", "lockprof")?,
            bench: executable("bench", "overhead")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_section_is_appended_once_and_then_replaced() {
        let once = with_section("# Benchmarks\n\n## Other\n\ntext\n", "first\n");
        assert_eq!(
            once,
            "# Benchmarks\n\n## Other\n\ntext\n\n## Kernel time by backend\n\nfirst\n"
        );
        assert_eq!(with_section(&once, "second\n"), once.replace("first", "second"));
    }

    #[test]
    fn binaries_are_found_in_what_cargo_says() {
        let messages = [
            r#"{"target":{"kind":["lib"],"name":"lockprof"},"executable":null}"#,
            r#"{"target":{"kind":["bin"],"name":"lockprof"},"executable":"/t/lockprof"}"#,
            r#"{"target":{"kind":["bench"],"name":"overhead"},"executable":"/t/overhead-1"}"#,
        ];
        let built = Built::parse(&messages.join("\n")).unwrap();
        assert_eq!(built.lockprof, Path::new("/t/lockprof"));
        assert_eq!(built.bench, Path::new("/t/overhead-1"));
        assert!(Built::parse(messages[1]).is_err());
    }
}
