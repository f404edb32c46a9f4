//! Where CPUs are in the kernel: a perf event of each CPU that interrupts it
//! some hundred times a second, and a program that looks where it was.
//!
//! In: a frequency, and where the [`functions`] are that samples are told apart
//! by. Out: attached events, and the array `SAMPLES`. This shows what no lock
//! tracepoint does: path walks that spin on the sequence count of `mount_lock`.

mod event;
mod functions;

use std::os::fd::{AsFd as _, OwnedFd};

use aya::Ebpf;
use aya::programs::PerfEvent;

pub use self::event::Source;
pub use self::functions::{FUNCTIONS, Function, SampledFunctions, code_place};
use super::HookState;
use super::programs::{chain, find};

/// Name of the hook.
pub const KERNEL_SAMPLES: &str = "kernel_samples";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Sampling {
    /// Samples of a CPU that is in the kernel all the time, in a second; not 0.
    pub frequency_hz: u32,
    /// What to tell apart, or why that cannot be told on this kernel.
    pub functions: Result<SampledFunctions, String>,
    /// The CPUs to sample.
    pub cpus: Vec<u32>,
}

/// Events that run. Closing them ends it.
#[derive(Debug)]
pub struct Sampler {
    _events: Vec<OwnedFd>,
    /// What paces the samples.
    pub source: Source,
    /// As [`Sampling::frequency_hz`].
    pub frequency_hz: u32,
    /// Functions whose samples are in [`Place::MountSeqcount`](crate::snapshot::Place).
    pub functions: Vec<&'static str>,
}

/// Attaches the program to an event of each CPU, by the first source that all
/// of them have.
pub(super) fn attach(ebpf: &mut Ebpf, sampling: &Sampling) -> (Option<Sampler>, HookState) {
    let mut state = HookState::new(KERNEL_SAMPLES);
    let functions = match &sampling.functions {
        Ok(functions) => functions,
        Err(why) => {
            state.refused.push((Source::CpuClock.name(), why.clone()));
            return (None, state);
        }
    };
    let mut sampler = None;
    for source in Source::ALL {
        let attached = start(ebpf, sampling, source).map(|events| {
            sampler = Some(Sampler {
                _events: events,
                source,
                frequency_hz: sampling.frequency_hz,
                functions: functions.names(crate::snapshot::Place::MountSeqcount).collect(),
            });
        });
        state.tried(source.name(), attached);
        if state.backend.is_some() {
            break;
        }
    }
    (sampler, state)
}

fn start(ebpf: &mut Ebpf, sampling: &Sampling, source: Source) -> Result<Vec<OwnedFd>, String> {
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        return Err("the program does not know the registers of this architecture".to_owned());
    }
    let attr = event::attribute(source, sampling.frequency_hz).map_err(|error| chain(&error))?;
    let program: &mut PerfEvent = find(ebpf, "sample")?;
    // Loaded by an earlier source already.
    if program.fd().is_err() {
        program.load().map_err(|error| chain(&error))?;
    }
    let program = program.fd().map_err(|error| chain(&error))?;
    event::start(&attr, &sampling.cpus, program.as_fd()).map_err(|error| chain(&error))
}
