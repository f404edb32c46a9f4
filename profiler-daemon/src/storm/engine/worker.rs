//! What workers and pollers do, over and over: a container-like start, or a
//! look at the mount table.

use std::cell::Cell;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{WaitOptions, waitpid};

use super::pace;
use super::shared::{Record, Totals};
use super::supervisor::{Supervisor, name_process};
use crate::storm::runtime;
use crate::storm::start::{Failure, Observer, Op, Prepared, Table, Tally};
use crate::storm::sys::{Forked, exit, fork, unshare_mounts};

/// Exit status of a start that failed and has said so.
const FAILED: i32 = 1;

/// How long a worker waits after the kernel has refused it a process.
const PAUSE: Duration = Duration::from_millis(10);

/// How containers are started.
pub(super) enum Starts {
    /// By a process of the storm each.
    Builtin(Prepared),
    /// By a real runtime.
    Runtime(runtime::Prepared),
}

/// Starts one container after the other below `dir`, each in its turn, until
/// there are no more.
pub(super) fn start_containers(storm: &Supervisor<'_>, starts: &Starts, dir: &str) {
    let pace = &storm.counters.pace;
    let interval = storm.options.rate.map(pace::interval);
    pace.wait_for_opening();
    let mut number = 0;
    while pace.turn(interval) {
        match starts {
            Starts::Runtime(prepared) => {
                watch(storm, Instant::now(), |seen| prepared.start(dir, number, seen));
            }
            Starts::Builtin(prepared) => {
                if let Err(error) = start_in_child(storm, prepared, dir) {
                    storm.counters.failed_starts.fetch_add(1, Ordering::Relaxed);
                    storm.report_failure(Op::Fork, &error);
                    pace.sleep(PAUSE);
                }
            }
        }
        number += 1;
    }
}

/// One start in a process of its own.
fn start_in_child(storm: &Supervisor<'_>, prepared: &Prepared, dir: &str) -> io::Result<()> {
    let forked_at = Instant::now();
    match fork()? {
        Forked::Child => {
            name_process(c"storm-start");
            let worked = watch(storm, forked_at, |seen| prepared.run(dir, seen));
            exit(if worked { 0 } else { FAILED })
        }
        Forked::Parent(pid) => loop {
            match waitpid(Some(pid), WaitOptions::empty()) {
                Err(Errno::INTR) => {}
                Ok(Some((_, status))) if !matches!(status.exit_status(), Some(0 | FAILED)) => {
                    storm.count_lost();
                    return Ok(());
                }
                _ => return Ok(()),
            }
        },
    }
}

/// Makes a start and tells what became of it; whether it worked.
fn watch(
    storm: &Supervisor<'_>,
    begun_at: Instant,
    start: impl FnOnce(&Seen<'_>) -> Result<(), Failure>,
) -> bool {
    let seen = Seen { storm, begun_at, tally: Cell::default(), in_place: Cell::default() };
    let end = start(&seen);
    storm.counters.add(seen.tally.get());
    if let Err((op, error)) = &end {
        // One whose root is in place counts as a start already.
        if !seen.in_place.get() {
            storm.counters.failed_starts.fetch_add(1, Ordering::Relaxed);
        }
        storm.report_failure(*op, error);
    }
    end.is_ok()
}

/// Asks for the mount table, in a namespace that has the host's mounts, until
/// told to stop.
pub(super) fn poll_mounts(storm: &Supervisor<'_>) {
    if let Err(error) = unshare_mounts() {
        return storm.report_failure(Op::Unshare, &error);
    }
    let mut table = Table::new(storm.options.strategy.mount_query);
    storm.counters.pace.wait_for_opening();
    while !storm.counters.pace.must_stop() {
        match table.ask() {
            Ok(bytes) => storm.counters.add(Tally::asked(bytes)),
            Err(error) => return storm.report_failure(table.op(), &error),
        }
    }
}

/// What a start tells.
struct Seen<'a> {
    storm: &'a Supervisor<'a>,
    begun_at: Instant,
    tally: Cell<Tally>,
    in_place: Cell<bool>,
}

impl Observer for Seen<'_> {
    fn did(&self, done: Tally) {
        self.tally.set(self.tally.get() + done);
    }

    fn failed(&self, op: Op, error: &io::Error) {
        self.storm.counters.count_error(op, error);
    }

    fn in_place(&self) {
        let latency_ns = u64::try_from(self.begun_at.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.in_place.set(true);
        self.storm.send(Record::Started { latency_ns });
    }
}

impl Totals {
    /// Adds what a start or a poller did.
    fn add(&self, done: Tally) {
        for (total, done) in [
            (&self.mounts, done.mounts),
            (&self.umounts, done.umounts),
            (&self.pivots, done.pivots),
            (&self.chroots, done.chroots),
            (&self.mountinfo_reads, done.mountinfo_reads),
            (&self.mountinfo_bytes, done.mountinfo_bytes),
        ] {
            total.fetch_add(done, Ordering::Relaxed);
        }
    }
}
