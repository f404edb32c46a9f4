//! Whether the processor can run guests: decided by letting it run one.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use super::image::Contents;
use super::machine::{Accelerator, Machine, Threads};
use super::plan::Plan;
use super::run::{self, Guest};
use crate::process::Interrupt;
use crate::shell;

/// What a user may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wish {
    /// KVM if it runs the kernel, else emulation.
    #[default]
    Auto,
    /// KVM.
    Kvm,
    /// Emulation.
    Tcg,
}

/// How long the processor may take to boot to the init. Where it is usable it
/// takes about a second; where it is not, it may be stuck for ever.
const PROBE: Duration = Duration::from_secs(20);

/// The accelerator to use for `kernel`; says so if it is not the fast one.
///
/// # Errors
/// When KVM is asked for and does not run it.
pub(crate) fn choose(
    wish: Wish,
    threads: Threads,
    kernel: &Path,
    lockprof: &Path,
    interrupt: &Interrupt,
) -> Result<Accelerator> {
    static REFUSED: OnceLock<Option<String>> = OnceLock::new();
    let emulated = Accelerator::Tcg(threads);
    if wish == Wish::Tcg {
        return Ok(emulated);
    }
    let mut failed = None;
    let refused = REFUSED.get_or_init(|| match refused(kernel, lockprof, interrupt) {
        Ok(refused) => refused,
        Err(error) => {
            failed = Some(error);
            None
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    match (refused, wish) {
        (None, _) => Ok(Accelerator::Kvm),
        (Some(why), Wish::Kvm) => bail!("KVM is not usable here: {why}"),
        (Some(why), _) => {
            static SAID: OnceLock<()> = OnceLock::new();
            SAID.get_or_init(|| eprintln!("vm: software emulation, for KVM is not usable: {why}"));
            Ok(emulated)
        }
    }
}

/// Why KVM cannot run guests here. What a trial found holds until the machine
/// is booted again.
fn refused(kernel: &Path, lockprof: &Path, interrupt: &Interrupt) -> Result<Option<String>> {
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        return Ok(Some(format!("/dev/kvm cannot be opened: {error}")));
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let memory = shell::scratch().join("kvm-trial");
    if let Some((on, found)) = fs::read_to_string(&memory).unwrap_or_default().split_once('\n')
        && on == boot.trim()
    {
        return Ok((!found.is_empty()).then(|| found.to_owned()));
    }
    let contents = Contents { lockprof: lockprof.to_owned(), ..Contents::default() };
    let guest = Guest {
        name: "kvm-trial",
        kernel,
        machine: Machine { nodes: 1, cpus: 2, memory: 512 },
        accelerator: Accelerator::Kvm,
        contents: &contents,
        plan: &Plan::default(),
        timeout: PROBE,
    };
    let outcome = run::run(&guest, interrupt, |_| ())?;
    if outcome.ended == run::Ended::Interrupted {
        bail!("interrupted");
    }
    let why = outcome.failure().map(|why| why.replace('\n', " ")).unwrap_or_default();
    fs::write(&memory, format!("{}\n{why}", boot.trim()))
        .with_context(|| format!("failed to write {}", memory.display()))?;
    Ok((!why.is_empty()).then_some(why))
}
