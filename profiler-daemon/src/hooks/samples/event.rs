//! The perf event that interrupts a CPU.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use aya_obj::generated::perf_event_attr;
use aya_obj::generated::perf_hw_id::PERF_COUNT_HW_CPU_CYCLES;
use aya_obj::generated::perf_sw_ids::PERF_COUNT_SW_CPU_CLOCK;
use aya_obj::generated::perf_type_id::{PERF_TYPE_HARDWARE, PERF_TYPE_SOFTWARE};

use crate::hooks::perf_event::{self, Scope};

/// What paces the samples, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A hardware counter of cycles in the kernel. It interrupts code that has
    /// interrupts off, and leaves idle CPUs alone.
    Cycles,
    /// A timer of each CPU (`cpu_clock_event_read` and the others in
    /// kernel/events/core.c). Code that has interrupts off is seen where it
    /// turns them on again.
    CpuClock,
}

impl Source {
    /// All of them, best first.
    pub const ALL: [Self; 2] = [Self::Cycles, Self::CpuClock];

    /// Label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cycles => "cycles",
            Self::CpuClock => "cpu-clock",
        }
    }
}

/// Why CPUs are not sampled.
#[derive(Debug, thiserror::Error)]
pub(super) enum EventError {
    #[error("this machine has no usable counter of CPU cycles, as most virtual machines ({0})")]
    NoCycles(String),
    #[error(
        "the kernel refuses perf events of whole CPUs ({0}): they need CAP_PERFMON (before Linux 5.8: CAP_SYS_ADMIN), or the sysctl kernel.perf_event_paranoid at 0 or below; where that is 3, as Debian has it, CAP_PERFMON is not enough: `sysctl kernel.perf_event_paranoid=2`"
    )]
    Refused(#[source] io::Error),
    #[error("perf_event_open failed for CPU {0} ({1})")]
    Open(u32, #[source] io::Error),
    #[error(
        "each of the {0} CPUs takes a descriptor, and the process may open too few: raise its limit (`LimitNOFILE=` of the service, `ulimit -n`)"
    )]
    TooFewDescriptors(usize),
    #[error("the perf event of CPU {0} does not take the BPF program ({1})")]
    SetBpf(u32, #[source] io::Error),
    #[error("none of the CPUs is online")]
    NoCpu,
}

/// The event that overflows `frequency_hz` times in a second that a CPU spends
/// in the kernel.
///
/// Cycles are counted by a fixed period and not by a frequency (`attr.freq`):
/// for that the kernel adapts the period until it gets as many samples of a CPU
/// that is hardly ever in the kernel as of one that is there all the time
/// (`perf_adjust_freq_unthr_context` in kernel/events/core.c), and their number
/// says nothing.
pub(super) fn attribute(source: Source, frequency_hz: u32) -> Result<perf_event_attr, EventError> {
    let mut attr = perf_event::attribute();
    match source {
        Source::Cycles => {
            attr.type_ = PERF_TYPE_HARDWARE as u32;
            attr.config = PERF_COUNT_HW_CPU_CYCLES as u64;
            let per_second = cycles_per_second()?;
            attr.__bindgen_anon_1.sample_period = per_second / u64::from(frequency_hz);
            // What guests do is not this kernel's time.
            attr.set_exclude_guest(1);
        }
        Source::CpuClock => {
            attr.type_ = PERF_TYPE_SOFTWARE as u32;
            attr.config = PERF_COUNT_SW_CPU_CLOCK as u64;
            attr.__bindgen_anon_1.sample_period = 1_000_000_000 / u64::from(frequency_hz);
        }
    }
    attr.set_disabled(1);
    attr.set_exclude_user(1);
    attr.set_exclude_hv(1);
    Ok(attr)
}

/// Opens the event on each of `cpus` and has it run `program`. CPUs that went
/// offline are left out.
pub(super) fn start(
    attr: &perf_event_attr,
    cpus: &[u32],
    program: BorrowedFd<'_>,
) -> Result<Vec<OwnedFd>, EventError> {
    let mut events = Vec::with_capacity(cpus.len());
    for cpu in cpus {
        let event = match perf_event::open(attr, Scope::Cpu(*cpu)) {
            Ok(event) => event,
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(EventError::Refused(error));
            }
            Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {
                return Err(EventError::TooFewDescriptors(cpus.len()));
            }
            Err(error) => return Err(EventError::Open(*cpu, error)),
        };
        perf_event::run(&event, program).map_err(|error| EventError::SetBpf(*cpu, error))?;
        events.push(event);
    }
    if events.is_empty() { Err(EventError::NoCpu) } else { Ok(events) }
}

/// Asks a read of an event for the time that it counted
/// (include/uapi/linux/perf_event.h).
const PERF_FORMAT_TOTAL_TIME_RUNNING: u64 = 1 << 1;
/// CPU time over which the clock speed is measured.
const LONG_ENOUGH: Duration = Duration::from_millis(5);
/// When it is given up, for want of CPU or of a counter.
const TOO_LONG: Duration = Duration::from_millis(500);
/// Speeds that are believed, in Hz.
const PLAUSIBLE: std::ops::RangeInclusive<u64> = 100_000_000..=10_000_000_000;

/// How fast the CPU's clock is just now, in Hz. Also tells whether the counter
/// counts: those of some virtual machines stand still.
fn cycles_per_second() -> Result<u64, EventError> {
    let mut attr = perf_event::attribute();
    attr.type_ = PERF_TYPE_HARDWARE as u32;
    attr.config = PERF_COUNT_HW_CPU_CYCLES as u64;
    attr.read_format = PERF_FORMAT_TOTAL_TIME_RUNNING;
    let no_cycles = |error: io::Error| EventError::NoCycles(error.to_string());
    let event = perf_event::open(&attr, Scope::ThisThread).map_err(no_cycles)?;
    let mut event = File::from(event);
    let began = Instant::now();
    let (mut cycles, mut running_ns) = (0, 0);
    while u128::from(running_ns) < LONG_ENOUGH.as_nanos() && began.elapsed() < TOO_LONG {
        let mut words = [0; 16];
        event.read_exact(&mut words).map_err(no_cycles)?;
        if let ([value, time], _) = words.as_chunks() {
            (cycles, running_ns) = (u64::from_ne_bytes(*value), u64::from_ne_bytes(*time));
        }
    }
    let per_second = u128::from(cycles) * 1_000_000_000 / u128::from(running_ns.max(1));
    u64::try_from(per_second).ok().filter(|per_second| PLAUSIBLE.contains(per_second)).ok_or_else(
        || EventError::NoCycles(format!("it counted {cycles} cycles in {running_ns} ns")),
    )
}
