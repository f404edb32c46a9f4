//! `cargo xtask setup`: installs what is missing and nothing else.
//!
//! Looks at files only ([`survey`]), so that a machine that has everything is
//! told so in a fraction of a second; decides with pure functions ([`needs`],
//! [`distro`]); then installs with apt as root ([`apt`]), or names the packages
//! and stops; and last builds `bpf-linker` ([`linker`]) when there is none that
//! understands the compiler.

mod apt;
pub(crate) mod distro;
mod linker;
mod needs;
pub(crate) mod survey;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};

use distro::Family;
use needs::{Need, Tool};
use survey::Survey;
pub(crate) use survey::toolchain;

/// Installs what is missing, and says what it did.
pub(crate) fn run() -> Result<ExitCode> {
    let start = Instant::now();
    match ensure()? {
        Outcome::Nothing => {
            println!("setup: nothing to do, all is there ({} ms)", start.elapsed().as_millis());
        }
        Outcome::Installed => println!("setup: done in {} s", start.elapsed().as_secs()),
        Outcome::Asked => return Ok(ExitCode::FAILURE),
    }
    Ok(ExitCode::SUCCESS)
}

/// What [`ensure`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing was missing.
    Nothing,
    /// What was missing is there now.
    Installed,
    /// The user has to install packages; they are named on standard output.
    Asked,
}

/// What the machine is set up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Building, testing and the demo.
    Everything,
    /// Building, and booting virtual machines.
    VirtualMachine,
}

impl Purpose {
    fn tools(self) -> &'static [Tool] {
        match self {
            Self::Everything => &Tool::ALL,
            Self::VirtualMachine => &[Tool::Qemu, Tool::Busybox],
        }
    }
}

/// Installs what is missing for everything.
///
/// # Errors
/// When an installation fails, or leaves something missing all the same.
pub(crate) fn ensure() -> Result<Outcome> {
    ensure_for(Purpose::Everything)
}

/// Installs what is missing for `purpose`.
///
/// # Errors
/// When an installation fails, or leaves something missing all the same.
pub(crate) fn ensure_for(purpose: Purpose) -> Result<Outcome> {
    let mut survey = Survey::take(purpose.tools())?;
    if survey.complete() {
        return Ok(Outcome::Nothing);
    }
    let family = distro::this()?;
    let root = rustix::process::geteuid().is_root();
    // A second round is for an LLVM that only the new compiler told of.
    for _ in 0..2 {
        let missing = survey.packages();
        if missing.is_empty() {
            break;
        }
        if !(root && family == Family::Debian) {
            println!("{}", needs::request(&missing, &family));
            return Ok(Outcome::Asked);
        }
        println!("setup: missing: {}", needs::list(&missing));
        apt::install(&needs::packages(&missing, &family))?;
        survey = Survey::take(purpose.tools())?;
        still_missing(&missing, &survey.packages())?;
    }
    if !survey.linker_usable() {
        linker::build(&survey)?;
        survey = Survey::take(purpose.tools())?;
    }
    if !survey.complete() {
        let mut missing = needs::list(&survey.packages());
        if !survey.linker_usable() {
            missing = format!("{missing} bpf-linker");
        }
        bail!("setup ran, and these are still missing: {}", missing.trim());
    }
    Ok(Outcome::Installed)
}

fn still_missing(wanted: &[Need], now: &[Need]) -> Result<()> {
    let left: Vec<Need> = wanted.iter().filter(|need| now.contains(need)).cloned().collect();
    if left.is_empty() {
        return Ok(());
    }
    bail!(
        "apt-get installed {} but lockprof's setup still cannot find: {}",
        needs::packages(&left, &Family::Debian).join(" "),
        needs::list(&left)
    );
}

/// Stops with one clear message when the BPF object cannot be built.
pub(crate) fn require_toolchain() -> Result<()> {
    let survey = Survey::take(&[])?;
    if let Err(missing) = &survey.compiler {
        bail!("{missing}; run `cargo xtask setup`");
    }
    if !survey.linker_usable() {
        bail!("no bpf-linker that understands this compiler; run `cargo xtask setup`");
    }
    Ok(())
}
