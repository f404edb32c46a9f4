//! Kernel time of the ways to observe waits, per wait of a watched lock.

use std::os::fd::RawFd;
use std::time::Duration;

use lockprof::cli::Settings;
use lockprof::commands::session::Session;
use lockprof::hooks::Family;
use lockprof::hooks::backend::{Backends, WaitBackend};
use lockprof::locks::Mode;

use super::events::{Runs, enable_stats, only, runs};
use super::storm;

/// What a backend took over a while under a storm.
#[derive(Clone, Copy)]
pub(crate) struct Taken {
    /// Of its programs together.
    runs: Runs,
    /// Waits that were booked meanwhile.
    waits: f64,
}

impl Taken {
    /// Nanoseconds of the backend's programs for each wait that was booked.
    pub(crate) fn ns_per_wait(self) -> f64 {
        self.runs.ns / self.waits
    }

    /// Runs of the backend's programs for each wait that was booked.
    pub(crate) fn runs_per_wait(self) -> f64 {
        self.runs.count / self.waits
    }
}

/// Below this a round says nothing.
const FEWEST_WAITS: u32 = 20;

/// Watches only `lock` by `backend` for `duration`.
///
/// The storm begins when the programs are attached and ends before they are
/// detached: software emulation does not get patching of running code right.
///
/// # Errors
/// Why the kernel refuses the backend, or that too few waits were booked.
pub(crate) fn measure(
    backend: WaitBackend,
    lock: &str,
    duration: Duration,
) -> Result<Taken, String> {
    let settings = Settings {
        locks: only(&[lock]),
        backends: Backends { waits: Some(backend), calls: None },
        ..Settings::default()
    };
    let session = Session::start(&settings).map_err(|error| format!("{error:#}"))?;
    // A session goes on without what the kernel refuses it.
    let hooks = || session.programs().hooks().iter().filter(|hook| hook.family() == Family::Waits);
    if !hooks().any(|hook| hook.backend == Some(backend.name())) {
        let reasons = || hooks().flat_map(|hook| &hook.refused);
        let own = reasons().find(|(refused, _)| *refused == backend.name());
        let why = own.map_or_else(|| "nothing attached".to_owned(), |(_, why)| why.clone());
        return Err(why);
    }
    let fds: Vec<RawFd> = session
        .programs()
        .program_fds()
        .into_iter()
        .filter_map(|(name, fd)| observes_waits(backend, &name).then_some(fd))
        .collect();
    let _stats = enable_stats();
    let load = storm::Background::start();
    let read = || {
        let snapshot = session.fresh_snapshot();
        let booked = snapshot.locks.iter().filter(|row| row.mode != Mode::Optimistic);
        let waits: u64 = booked.map(|row| row.waits.count).sum();
        (fds.iter().map(|fd| runs(*fd)).sum::<Runs>(), waits)
    };
    let (before, waits_before) = read();
    std::thread::sleep(duration);
    let (after, waits_after) = read();
    drop(load);
    let waits = u32::try_from(waits_after - waits_before).expect("a count of waits in seconds");
    if waits < FEWEST_WAITS {
        return Err(format!("only {waits} waits in {} s", duration.as_secs()));
    }
    Ok(Taken { runs: after - before, waits: f64::from(waits) })
}

/// Whether `program` is one that shows `backend` waits: neither for mount calls,
/// nor what runs beside the tracepoints for what they do not see.
fn observes_waits(backend: WaitBackend, program: &str) -> bool {
    let ends = |with: &[&str]| with.iter().any(|end| program.ends_with(end));
    match backend {
        WaitBackend::TpBtf => program.starts_with("contention_") && ends(&["_btf"]),
        WaitBackend::RawTp => program.starts_with("contention_") && ends(&["_raw"]),
        WaitBackend::Fentry => {
            ["rwsem_", "mutex_", "spin_", "rwlock_"].iter().any(|lock| program.starts_with(lock))
                && ends(&["_enter", "_exit", "_exit_of_two"])
        }
        WaitBackend::Kprobe => ends(&["_probe", "_return"]),
    }
}
