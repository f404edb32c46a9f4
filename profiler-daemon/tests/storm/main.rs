//! `lockprof storm` on the running kernel: it makes the load, and leaves
//! nothing behind however it ends. Needs `CAP_SYS_ADMIN`, or for some of it a
//! user namespace.
//!
//! - `load`: what is asked for is made;
//! - `ends`: signals to the command, and what is left then;
//! - `many`: many storms by one engine in one process, and what they leave;
//! - `refusals`: privileges and limits that are not enough.

#[path = "../common/mod.rs"]
mod common;

mod apart;
mod ends;
mod load;
mod many;
mod processes;
mod refusals;
mod world;

use std::fs;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CapabilitySet, capabilities};

/// Source of every tmpfs of a storm in a mount table.
const TMPFS_SOURCE: &str = "lockprof-storm";

/// Whether a storm can run here; if not, `test` is skipped.
fn permitted(test: &str) -> bool {
    let permitted = has_sys_admin();
    if !permitted {
        common::skip(test, "storm needs CAP_SYS_ADMIN");
    }
    permitted
}

fn has_sys_admin() -> bool {
    let own = capabilities(None).expect("capget works");
    own.effective.contains(CapabilitySet::SYS_ADMIN)
}

/// The load alone: what is measured of it is for `storm_reports`.
fn storm(args: &[&str]) -> Command {
    let mut command = Command::new(common::LOCKPROF);
    command
        .args(["storm", "--no-measure"])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn summary(output: &Output) -> serde_json::Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr, "", "nothing to complain about");
    serde_json::from_slice(&output.stdout).expect("the summary is JSON")
}

/// A mount table, as proc_pid_mountinfo(5) has it.
fn mounts(pid: impl std::fmt::Display) -> Vec<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("it is readable");
    table.lines().map(str::to_owned).collect()
}

/// This host's mounts that a storm made.
fn mounts_of_storms() -> Vec<String> {
    mounts("self").into_iter().filter(|line| line.contains(TMPFS_SOURCE)).collect()
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, signal).expect("the storm still runs");
}
