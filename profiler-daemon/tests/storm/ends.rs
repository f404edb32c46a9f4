//! A storm ends by a signal to the command, with its figures, or with the
//! command; nothing is left either way.

use std::os::unix::process::CommandExt;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::processes::{
    assert_all_gone, descendants, ending_signals, running_family, starts_come_and_go,
};
use super::{mounts_of_storms, permitted, signal, storm, summary};

/// Storms that do not end by themselves.
const STORMS: [&[&str]; 3] = [
    &["--concurrency", "4", "--pollers", "1", "--duration", "1h", "--json"],
    &["--concurrency", "2", "--pollers", "1", "--duration", "1h", "--json", "--layers", "3"],
    &[
        "--concurrency",
        "2",
        "--pollers",
        "2",
        "--starts",
        "1000000000",
        "--json",
        "--host-mounts",
        "200",
        "--propagation",
        "shared",
    ],
];

#[test]
fn a_signal_ends_a_storm_with_the_summary_so_far() {
    if !permitted("a_signal_ends_a_storm_with_the_summary_so_far") {
        return;
    }
    for args in STORMS {
        for by in ending_signals() {
            let child = storm(args).spawn().unwrap();
            let family = running_family(child.id());
            starts_come_and_go(child.id(), 5);
            signal(&child, by);
            let output = child.wait_with_output().unwrap();
            let summary = summary(&output);
            assert_eq!(output.status.code(), Some(0), "{summary}");
            assert_eq!(summary["interrupted"], true);
            assert!(summary["starts"].as_u64().unwrap() > 0, "{summary}");
            assert_all_gone(&family);
            assert_eq!(mounts_of_storms(), [""; 0]);
        }
    }
}

#[test]
fn an_interrupt_from_the_terminal_ends_a_storm_with_the_summary_so_far() {
    if !permitted("an_interrupt_from_the_terminal_ends_a_storm_with_the_summary_so_far") {
        return;
    }
    // Ctrl-C goes to all processes of the group, the storm's included.
    let child = storm(STORMS[0]).process_group(0).spawn().unwrap();
    let family = running_family(child.id());
    starts_come_and_go(child.id(), 5);
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process_group(group, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let summary = summary(&output);
    assert_eq!(output.status.code(), Some(0), "{summary}");
    assert_eq!(summary["interrupted"], true);
    assert_eq!(summary["lost_processes"], 0, "none of its processes took it: {summary}");
    assert_all_gone(&family);
}

#[test]
fn a_hangup_that_is_ignored_ends_nothing() {
    if !permitted("a_hangup_that_is_ignored_ends_nothing") {
        return;
    }
    let mut command = std::process::Command::new("nohup");
    command.arg(super::common::LOCKPROF).args(["storm", "--no-measure"]).args(STORMS[0]);
    command.stdin(std::process::Stdio::null());
    let child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("nohup of coreutils runs");
    running_family(child.id());
    signal(&child, Signal::HUP);
    // Had it been taken, no further start would come after those under way.
    starts_come_and_go(child.id(), 100);
    signal(&child, Signal::TERM);
    let output = child.wait_with_output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{summary}");
    assert_eq!(summary["interrupted"], true);
}

#[test]
fn nothing_is_left_after_the_storm_is_killed() {
    if !permitted("nothing_is_left_after_the_storm_is_killed") {
        return;
    }
    for args in STORMS {
        let mut child = storm(args).spawn().unwrap();
        let mut family = running_family(child.id());
        family.extend(starts_come_and_go(child.id(), 5));
        assert_eq!(mounts_of_storms(), [""; 0], "the host sees nothing while it runs");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_all_gone(&family);
        assert_eq!(mounts_of_storms(), [""; 0]);
    }
}

#[test]
fn nothing_is_left_when_the_storm_is_killed_while_it_starts() {
    if !permitted("nothing_is_left_when_the_storm_is_killed_while_it_starts") {
        return;
    }
    for delay in 0..20 {
        let args = ["--concurrency", "4", "--duration", "1h", "--host-mounts", "1000"];
        let mut child = storm(&args).spawn().unwrap();
        sleep(Duration::from_micros(delay * 1000));
        let family = descendants(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_all_gone(&family);
    }
    assert_eq!(mounts_of_storms(), [""; 0]);
}
