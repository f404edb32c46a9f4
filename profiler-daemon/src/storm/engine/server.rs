//! The engine's process: makes one storm after the other, as asked.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::child::Child;
use super::collector::{Collector, End};
use super::failed_to;
use super::pin::Pinned;
use super::shared::SharedCounters;
use super::summary::Summary;
use super::supervisor::{Supervisor, hung_up, name_process};
use super::wire::{Channel, Event, Privileges, Request};
use crate::storm::error::StormError;
use crate::storm::load::Options;
use crate::storm::runtime::Driver;
use crate::storm::start::Op;
use crate::storm::sys::{Forked, exit, fork_into_namespaces};

/// Exit status of an engine whose caller is gone.
const ABANDONED: i32 = 1;
/// Exit status after a panic.
const PANICKED: i32 = 101;

/// Serves until the caller is gone, and ends the process.
pub(super) fn serve(mut caller: Channel) -> ! {
    let end = catch_unwind(AssertUnwindSafe(|| {
        name_process(c"storm-engine");
        let acquired = super::privileges::acquire();
        // After the privileges: whoever gains some loses the death signal
        // (`commit_creds`, kernel/cred.c).
        let mortal = set_parent_process_death_signal(Some(Signal::KILL)).is_ok();
        if !mortal || hung_up(caller.as_fd()) {
            // The caller ended before the death signal was set.
            return ABANDONED;
        }
        let privileges = acquired.as_ref().ok().copied();
        if caller.send(&Event::Ready(acquired)).is_err() {
            return ABANDONED;
        }
        match privileges {
            Some(privileges) => make_storms(&mut caller, privileges),
            None => 0,
        }
    }));
    exit(end.unwrap_or(PANICKED))
}

fn make_storms(caller: &mut Channel, privileges: Privileges) -> i32 {
    loop {
        match caller.receive() {
            Ok(Some(Request::Run(options))) => {
                let Some(result) = storm(&options, caller, privileges).transpose() else {
                    return ABANDONED;
                };
                if caller.send(&Event::Ended(result)).is_err() {
                    return ABANDONED;
                }
            }
            // It crossed the end of the storm that it was meant for.
            Ok(Some(Request::Stop)) => {}
            Ok(None) => return 0,
            Err(_) => return ABANDONED,
        }
    }
}

/// Makes one storm; `None` when the caller is gone. Nothing is left of it in any
/// case.
fn storm(
    options: &Options,
    caller: &mut Channel,
    privileges: Privileges,
) -> Result<Option<Summary>, StormError> {
    options.strategy.check().map_err(StormError::Contradiction)?;
    privileges.suffice_for(&options.strategy)?;
    let driver = Driver::find(options.strategy.runtime)?;
    if let Some(driver) = &driver {
        driver.check(&options.strategy)?;
    }
    let _pinned = options.cpus.as_deref().map(Pinned::to).transpose()?;
    let counters = SharedCounters::new().map_err(failed_to("map memory for the counters"))?;
    counters.pace.limit(options.stop);
    let (records, records_in) =
        pipe_with(PipeFlags::CLOEXEC).map_err(failed_to("make a pipe for the latencies"))?;
    let (lifeline, lifeline_in) =
        pipe_with(PipeFlags::CLOEXEC).map_err(failed_to("make a pipe to the supervisor"))?;
    let forked = fork_into_namespaces().map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM | libc::ENOSPC | libc::EINVAL | libc::ENOSYS | libc::EUSERS) => {
            StormError::NamespacesRefused(error)
        }
        _ => failed_to("start the supervisor")(error),
    })?;
    let supervisor = match forked {
        Forked::Child => {
            // The write end of the lifeline must be the engine's alone, or its
            // end would not show.
            drop(lifeline_in);
            drop(records);
            Supervisor { options, driver, counters: &counters, records: records_in }
                .run(lifeline.as_fd())
        }
        Forked::Parent(pid) => Child::new(pid, "supervisor"),
    };
    drop(records_in);
    drop(lifeline);

    let end = Collector::new(&counters, &supervisor, options.stop).collect(records, caller);
    if matches!(end, Err(_) | Ok(End::Abandoned)) {
        supervisor.kill();
    }
    let how = supervisor.wait();
    match end? {
        End::Over(outcome) => Ok(Some(Summary::new(options, &counters, &outcome))),
        End::Early => Err(StormError::EndedEarly(how.to_owned())),
        End::Abandoned => Ok(None),
        End::Failed { op, errno } => Err(match counters.words.about(op) {
            Some(words) => StormError::first_start(op, io::Error::other(words)),
            None => why_it_failed(options, privileges, op, errno),
        }),
    }
}

/// The reason why nothing could start.
fn why_it_failed(options: &Options, privileges: Privileges, op: Op, errno: i32) -> StormError {
    let limit = || fs::read_to_string("/proc/sys/fs/mount-max").ok()?.trim().parse().ok();
    match (op, errno, limit()) {
        // `count_mounts`, fs/namespace.c.
        (Op::HostMounts, libc::ENOSPC, Some(limit)) => {
            StormError::TooManyMounts { wanted: options.strategy.host_mounts, limit }
        }
        _ => privileges.explain(op, io::Error::from_raw_os_error(errno)),
    }
}
