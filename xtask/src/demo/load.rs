//! The load of the demo: `lockprof storm`, and container starts beside it.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::bundle::Bundle;
use crate::process::{self, Guarded, Interrupt};
use crate::shell;

/// Containers to start before the storm, and again in it.
const STARTS: u32 = 20;

/// How many of them at a time.
const TOGETHER: u32 = 4;

/// What the demo passes on.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The built binary
    #[arg(long)]
    lockprof: PathBuf,
}

/// Starts containers on the quiet machine, then again in a storm, and says how
/// long they took.
///
/// # Errors
/// When the storm fails. Containers that do not start are reported, and the
/// storm goes on without them.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let interrupt = Interrupt::watch()?.with_parent();
    let bundle = match bundle() {
        Ok(bundle) => Some(bundle),
        Err(error) => {
            println!("no container starts: {error:#}");
            None
        }
    };
    let quiet = bundle.as_ref().and_then(|bundle| starts(bundle, "quiet", &interrupt));

    let mut command = Command::new(&arguments.lockprof);
    command.args(["storm", "--no-measure", "--concurrency", "8", "--duration", "10s"]);
    let mut storm = Guarded::spawn(&mut command)?;
    // Where the first starts failed, the reason is on the screen already.
    if let (Some(bundle), Some(quiet)) = (&bundle, quiet) {
        thread::sleep(Duration::from_secs(1));
        if let Some(busy) = starts(bundle, "storm", &interrupt) {
            println!(
                "{STARTS} container starts, {TOGETHER} at a time: median {} ms on the quiet \
                 machine, {} ms in the storm\n(errors of mount in the table are runc's: it masks \
                 files of /proc and /sys that not every kernel has)",
                quiet.as_millis(),
                busy.as_millis()
            );
        }
    }
    let status = process::wait(&mut storm, &interrupt)?;
    if !status.success() && !interrupt.came() {
        bail!("`lockprof storm` failed ({status})");
    }
    Ok(if interrupt.came() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn bundle() -> Result<Bundle> {
    let runc = shell::find("runc").context("runc is not installed")?;
    let busybox = shell::find("busybox").context("busybox is not installed")?;
    Bundle::make(&runc, &busybox)
}

/// The median time of a start; `None`, with the reason printed, when one
/// failed, or when the user has asked to stop.
fn starts(bundle: &Bundle, name: &str, interrupt: &Interrupt) -> Option<Duration> {
    let next = AtomicU32::new(0);
    let took = Mutex::new(Vec::new());
    let failed = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..TOGETHER {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= STARTS || interrupt.came() {
                        return;
                    }
                    let id = format!("lockprof-{}-{name}-{number}", std::process::id());
                    let start = Instant::now();
                    match bundle.start(&id) {
                        Ok(()) => lock(&took).push(start.elapsed()),
                        Err(error) => {
                            // The others would fail for the same reason.
                            next.store(STARTS, Ordering::Relaxed);
                            lock(&failed).get_or_insert(error);
                            return;
                        }
                    }
                }
            });
        }
    });
    if interrupt.came() {
        return None;
    }
    if let Some(error) = lock(&failed).take() {
        println!("no more container starts: {error:#}");
        return None;
    }
    let mut took = lock(&took);
    median(&mut took)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A thread that panicked left whole values behind.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn median(times: &mut [Duration]) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_and_of_nothing_there_is_none() {
        let mut times = [3, 1, 2].map(Duration::from_secs);
        assert_eq!(median(&mut times), Some(Duration::from_secs(2)));
        assert_eq!(median(&mut []), None);
    }
}
