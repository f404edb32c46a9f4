//! What it costs to sample CPUs.

use std::time::{Duration, Instant};

use lockprof::cli::Settings;
use lockprof::commands::session::Session;

use super::events::{enable_stats, runs};

/// The default.
const HZ: u32 = 99;
/// How many times as often CPUs are sampled to see what that takes: what it
/// takes at the default is lost in the noise.
const TIMES: u32 = 100;
/// Short enough for one that nobody else disturbs.
const SLICE: Duration = Duration::from_millis(2);
const SLICES: u32 = 300;

/// What keeps the CPU busy.
#[derive(Clone, Copy)]
pub(crate) enum Busy {
    /// In the kernel, where the program runs as well.
    Kernel,
    /// In user space, where the event interrupts to no effect.
    UserSpace,
}

impl Busy {
    fn once(self) {
        match self {
            Self::Kernel => drop(std::fs::metadata("/proc/self/status")),
            Self::UserSpace => {
                for n in 0..1000u64 {
                    std::hint::black_box(n);
                }
            }
        }
    }

    /// Rounds in a second in the fastest of many slices: one in which nothing
    /// else ran on the CPU, while the event interrupted it some twenty times.
    fn speed(self) -> f64 {
        (0..SLICES).map(|_| self.speed_in(SLICE)).fold(0.0, f64::max)
    }

    /// Rounds in a second, by the clock.
    #[expect(clippy::cast_precision_loss, reason = "rounds in some milliseconds")]
    fn speed_in(self, duration: Duration) -> f64 {
        let began = Instant::now();
        let mut rounds = 0u64;
        while began.elapsed() < duration {
            for _ in 0..10 {
                self.once();
            }
            rounds += 10;
        }
        rounds as f64 / began.elapsed().as_secs_f64()
    }
}

fn session(hz: u32) -> Session {
    let settings = Settings { sampling_hz: hz, ..Settings::default() };
    Session::start(&settings).expect("lockprof attaches")
}

/// What paces the samples on this machine.
pub(crate) fn source() -> Option<String> {
    session(HZ).fresh_snapshot().samples.map(|samples| samples.source)
}

/// Percent of a CPU that sampling takes at the default frequency while the CPU
/// is busy: program, interrupt and what both evict. Two sides of a ratio in
/// turn, with and without, at a multiple of the frequency.
pub(crate) fn percent_of_cpu(busy: Busy, rounds: usize) -> Vec<f64> {
    (0..rounds)
        .map(|_| {
            let without = {
                let _session = session(0);
                busy.speed()
            };
            let with = {
                let _session = session(HZ * TIMES);
                busy.speed()
            };
            (1.0 - with / without) * 100.0 / f64::from(TIMES)
        })
        .collect()
}

/// Nanoseconds of a run of the program, by the kernel's account, on a CPU that
/// is busy in the kernel.
pub(crate) fn program_ns() -> f64 {
    let _stats = enable_stats();
    let session = session(HZ * TIMES);
    let fd = session.programs().program_fds().into_iter().find(|(name, _)| name == "sample");
    let (_, fd) = fd.expect("it is loaded");
    let before = runs(fd);
    Busy::Kernel.speed_in(Duration::from_secs(1));
    (runs(fd) - before).per_event()
}

/// Percent of a CPU that programs of so many nanoseconds take at the default
/// frequency.
pub(crate) fn percent_of_program(ns: f64) -> f64 {
    ns * f64::from(HZ) / 1e9 * 100.0
}
