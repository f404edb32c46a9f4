//! `cargo xtask vm`: boots a real kernel in a virtual machine and runs a
//! command in it, as root there, whoever runs it here.
//!
//! The kernel is Debian's ([`kernels`]); the initramfs holds the release binary,
//! busybox and xtask itself as the first process ([`image`], [`init`]); what the
//! command prints comes back byte by byte ([`frames`]), and the kernel's console
//! is watched for signs that it is not well ([`watch`]).

pub(crate) mod accel;
mod cpio;
pub(crate) mod debian;
mod frames;
pub(crate) mod image;
pub(crate) mod init;
pub(crate) mod kernels;
pub(crate) mod machine;
pub(crate) mod plan;
pub(crate) mod run;
mod watch;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::process::Interrupt;
use crate::{build, debian_root, setup};
use debian::Root;
use frames::Kind;
use image::Contents;
use machine::{Machine, Threads};
use plan::{Plan, Step};
use run::{Ended, Event, Guest, Outcome};

/// Where the package is that `--deb` names, in the guest.
const DEB: &str = "/lockprof-vm/lockprof.deb";

/// Lines of the kernel's console that are shown when a run fails.
const SHOWN: usize = 60;

/// Of `cargo xtask vm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A series (5.10, 6.1, 6.12, 6.16, 6.18, 6.19, 7.0, 7.2, 7.3) or the path
    /// of a vmlinuz
    #[arg(long, default_value = kernels::USUAL)]
    kernel: String,
    /// NUMA nodes
    #[arg(long, default_value_t = 1)]
    nodes: u32,
    /// CPUs in all; by default two for each node
    #[arg(long)]
    cpus: Option<u32>,
    /// MiB of memory in all; by default 1024, or 256 for each node
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// Under software emulation: `multi` shows spinning waits, `single`
    /// survives programs that come and go under load
    #[arg(long, default_value = "single")]
    threads: Threads,
    /// When the machine is stopped, whatever it does
    #[arg(long, default_value = "5m", value_parser = duration)]
    timeout: Duration,
    /// What runs the machine
    #[arg(long, default_value = "auto")]
    accel: accel::Wish,
    /// A whole Debian with systemd as the first process, in place of busybox
    #[arg(long)]
    systemd: bool,
    /// A package to install there first; without one, `lockprof` is there by
    /// itself
    #[arg(long, value_name = "FILE", requires = "systemd")]
    deb: Option<PathBuf>,
    /// Show the kernel's console too
    #[arg(long, short)]
    verbose: bool,
    /// What is run, with `lockprof` and busybox on PATH; by default
    /// `lockprof doctor`
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Boots, runs the command, and returns its exit status.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let nodes = arguments.nodes;
    let machine = Machine {
        nodes,
        cpus: arguments.cpus.unwrap_or(2 * nodes),
        memory: arguments.memory.unwrap_or(match arguments.systemd {
            true => Machine::usual_memory(nodes).max(debian::MEMORY),
            false => Machine::usual_memory(nodes),
        }),
    };
    machine.check()?;
    let interrupt = Interrupt::watch()?;
    if setup::ensure_for(setup::Purpose::VirtualMachine)? == setup::Outcome::Asked {
        return Ok(ExitCode::FAILURE);
    }
    let kernel = kernels::named(&arguments.kernel)?;
    // A package brings its own.
    let lockprof = match &arguments.deb {
        None => build::release()?,
        Some(_) => std::env::current_exe().context("failed to find the running xtask")?,
    };
    let accelerator =
        accel::choose(arguments.accel, arguments.threads, &kernel.image, &lockprof, &interrupt)?;

    let command = match &arguments.command[..] {
        [] => vec!["lockprof".to_owned(), "doctor".to_owned()],
        command => command.to_vec(),
    };
    let step = |command: Vec<String>| Step {
        name: command.join(" "),
        command,
        folder: "/root".into(),
        ..Step::default()
    };
    let mut plan = Plan { steps: vec![step(command)], collect: None };
    let root = if arguments.systemd { Some(systemd_root(arguments, &lockprof)?) } else { None };
    if arguments.deb.is_some() {
        plan.steps.insert(0, step(["dpkg", "-i", DEB].map(str::to_owned).to_vec()));
    }
    let contents =
        Contents { lockprof, modules: kernel.modules.clone(), root, ..Contents::default() };
    let guest = Guest {
        // Several may run at once.
        name: &format!("command-{}", std::process::id()),
        kernel: &kernel.image,
        machine,
        accelerator,
        contents: &contents,
        plan: &plan,
        timeout: arguments.timeout,
    };
    eprintln!("vm: {}, {}", kernel.origin, machine.describe());
    let outcome = run::run(&guest, &interrupt, |event| show(&event, arguments.verbose))?;
    Ok(verdict(&outcome, arguments.verbose))
}

/// The root of `--systemd`, with the package or the binary in it.
fn systemd_root(arguments: &Arguments, lockprof: &Path) -> Result<Root> {
    let file = match &arguments.deb {
        Some(deb) if !deb.is_file() => bail!("{}, which --deb names, is no file", deb.display()),
        Some(deb) => (PathBuf::from(DEB), deb.clone()),
        None => (PathBuf::from("/usr/local/bin/lockprof"), lockprof.to_owned()),
    };
    let folder = debian_root::root(debian_root::USUAL)?;
    Ok(Root { folder, files: vec![file], programs: Vec::new() })
}

/// Passes on what the command prints. A reader that has gone away is no reason
/// to stop: the status still counts.
fn show(event: &Event<'_>, verbose: bool) {
    match event {
        Event::Frame(frame) if frame.kind == Kind::Stdout => {
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(&frame.payload).and_then(|()| out.flush());
        }
        Event::Frame(frame) if frame.kind == Kind::Stderr => {
            let _ = std::io::stderr().lock().write_all(&frame.payload);
        }
        Event::Console(line) if verbose => eprintln!("kernel: {line}"),
        _ => {}
    }
}

fn verdict(outcome: &Outcome, console_was_shown: bool) -> ExitCode {
    match (outcome.failure(), &outcome.ended) {
        (None, Ended::Verdict(status)) => {
            eprintln!("vm: exit status {status} after {:.0} s", outcome.took.as_secs_f64());
            // Logs are for runs that went wrong; those of this one have a name
            // that no later run takes again.
            outcome.remove_logs();
            ExitCode::from(u8::try_from(*status).unwrap_or(1))
        }
        (why, _) => {
            if !console_was_shown {
                show_console(outcome);
            }
            eprintln!(
                "error: virtual machine: {} (its console: {})",
                why.unwrap_or_else(|| "gave no verdict".into()),
                outcome.console.display()
            );
            ExitCode::FAILURE
        }
    }
}

/// The end of the kernel's console, on standard error.
pub(crate) fn show_console(outcome: &Outcome) {
    let text = std::fs::read(&outcome.console).unwrap_or_default();
    let mut lines = watch::Lines::default();
    let mut shown = lines.push(&text);
    shown.extend(lines.finish());
    for line in &shown[shown.len().saturating_sub(SHOWN)..] {
        eprintln!("kernel: {line}");
    }
}

/// Seconds, or a number with `s`, `m` or `h`.
fn duration(text: &str) -> Result<Duration> {
    let (number, unit) = text.split_at(text.trim_end_matches(['s', 'm', 'h']).len());
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => anyhow::bail!("the unit `{unit}` is none of s, m, h"),
    };
    let number: u64 = number.parse().with_context(|| format!("`{number}` is no number"))?;
    let seconds = number.checked_mul(factor).context("too long")?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [("5m", 300), ("90", 90), ("90s", 90), ("1h", 3600)] {
            assert_eq!(duration(text).unwrap().as_secs(), seconds, "{text}");
        }
        for text in ["", "m", "5x", "5mm", "-1s", "99999999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
