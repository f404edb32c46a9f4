//! `lockprof storm` on the running kernel: it makes the load, and leaves
//! nothing behind however it ends. Needs `CAP_SYS_ADMIN`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CapabilitySet, capabilities};

/// Source of every tmpfs of a storm in a mount table.
const TMPFS_SOURCE: &str = "lockprof-storm";

/// Says where skips are collected that `test` did not run.
fn skip(test: &str, reason: &str) {
    let line = format!("SKIP {test}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("stderr is writable");
    if let Some(log) = std::env::var_os("LOCKPROF_SKIP_LOG") {
        let log = fs::OpenOptions::new().create(true).append(true).open(log);
        log.and_then(|mut log| log.write_all(line.as_bytes())).expect("the skip log is writable");
    }
}

/// Whether a storm can run here; if not, `test` is skipped.
fn permitted(test: &str) -> bool {
    let permitted = has_sys_admin();
    if !permitted {
        skip(test, "storm needs CAP_SYS_ADMIN");
    }
    permitted
}

fn has_sys_admin() -> bool {
    let own = capabilities(None).expect("capget works");
    own.effective.contains(CapabilitySet::SYS_ADMIN)
}

fn storm(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockprof"));
    command.arg("storm").args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn summary(output: &Output) -> serde_json::Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr, "", "nothing to complain about");
    serde_json::from_slice(&output.stdout).expect("the summary is JSON")
}

/// This host's mounts that a storm made.
fn mounts_of_storms() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo is readable");
    table.lines().filter(|line| line.contains(TMPFS_SOURCE)).map(str::to_owned).collect()
}

/// A process, told apart from a later one with the same pid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Process {
    pid: u32,
    parent: u32,
    start_time: String,
}

/// The process, unless it is a zombie: then only its parent, or whoever adopted
/// it, has to take note.
fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command is in parentheses and may hold any character; after it come
    // the state, the parent and so on (proc_pid_stat(5)).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if fields[0] == "Z" {
        return None;
    }
    Some(Process { pid, parent: fields[1].parse().ok()?, start_time: fields[19].to_owned() })
}

/// All processes below `root`, as far as one look at /proc shows them.
fn descendants(root: u32) -> BTreeSet<Process> {
    let entries = fs::read_dir("/proc").expect("/proc is readable");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let all: Vec<Process> = pids.filter_map(process).collect();
    let mut family = BTreeSet::from([root]);
    loop {
        let children = all.iter().filter(|p| family.contains(&p.parent)).map(|p| p.pid);
        let children: Vec<u32> = children.collect();
        let before = family.len();
        family.extend(children);
        if family.len() == before {
            return all.into_iter().filter(|p| p.pid != root && family.contains(&p.pid)).collect();
        }
    }
}

/// Waits until the storm has its supervisor, a reader and two workers.
fn running_family(child: &Child) -> BTreeSet<Process> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let family = descendants(child.id());
        if family.len() >= 4 {
            return family;
        }
        assert!(Instant::now() < deadline, "the storm does not get going: {family:?}");
        sleep(Duration::from_millis(5));
    }
}

/// Waits until none of the processes is left. The supervisor is pid 1 of the
/// storm's PID namespace, so once it is gone, a zombie even, nothing else is in
/// there (`zap_pid_ns_processes`, kernel/pid_namespace.c).
fn assert_all_gone(family: &BTreeSet<Process>) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let is_left =
            |p: &&Process| process(p.pid).is_some_and(|now| now.start_time == p.start_time);
        let left: Vec<_> = family.iter().filter(is_left).collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left behind: {left:?}");
        sleep(Duration::from_millis(20));
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, signal).expect("the storm still runs");
}

#[test]
fn a_storm_starts_containers_without_a_mount_error() {
    if !permitted("a_storm_starts_containers_without_a_mount_error") {
        return;
    }
    let args = ["--concurrency", "4", "--pollers", "1", "--duration", "1s", "--json"];
    let child = storm(&args).spawn().unwrap();
    let family = running_family(&child);
    let output = child.wait_with_output().unwrap();
    let summary = summary(&output);
    assert_eq!(output.status.code(), Some(0), "{summary}");
    assert_eq!(summary["errors"], serde_json::json!([]));
    assert_eq!(summary["failed_starts"], 0);
    assert_eq!(summary["lost_processes"], 0);
    let starts = summary["starts"].as_u64().unwrap();
    assert!(starts > 0, "{summary}");
    // A start makes `/` private, mounts its root, three file systems below /dev,
    // 12 binds, 6 of which it makes read-only, and 8 masks; with
    // chroot instead of pivot_root it moves the root as well.
    let mounts = summary["mounts"].as_u64().unwrap();
    let moves = u64::from(summary["root_change"] == "chroot");
    assert_eq!(mounts, starts * (31 + moves), "{summary}");
    assert!(summary["mountinfo_reads"].as_u64().unwrap() > 0, "{summary}");
    let latency = |q: &str| summary["start_latency"][q].as_u64().unwrap();
    assert!(0 < latency("p50_ns") && latency("p50_ns") <= latency("p99_ns"), "{summary}");
    assert!(latency("p99_ns") <= latency("max_ns"), "{summary}");
    assert_all_gone(&family);
    assert_eq!(mounts_of_storms(), [""; 0]);
}

/// CPUs that a process may run on, as a list.
fn allowed_cpus(pid: impl std::fmt::Display) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    Some(line.trim().to_owned())
}

#[test]
fn every_process_of_a_pinned_storm_is_pinned() {
    if !permitted("every_process_of_a_pinned_storm_is_pinned") {
        return;
    }
    let own = allowed_cpus("self").expect("procfs is mounted");
    let cpu = own.split([',', '-']).next_back().expect("there is a CPU");
    let pin = format!("cpus:{cpu}");
    let args =
        ["--concurrency", "2", "--pollers", "1", "--duration", "1h", "--json", "--pin", &pin];
    let child = storm(&args).spawn().unwrap();
    let family = running_family(&child);
    let mut pinned = 0;
    // Starts come and go.
    for allowed in family.iter().filter_map(|process| allowed_cpus(process.pid)) {
        assert_eq!(allowed, cpu);
        pinned += 1;
    }
    assert_eq!(allowed_cpus(child.id()).as_deref(), Some(cpu));
    assert!(pinned >= 4, "supervisor, workers and reader: {family:?}");
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    let summary = summary(&output);
    assert_eq!(output.status.code(), Some(0), "{summary}");
    assert_eq!(summary["cpus"], serde_json::json!([cpu.parse::<u32>().unwrap()]));
}

#[test]
fn cpus_and_nodes_that_are_not_there_are_named_with_those_that_are() {
    for (args, named) in [
        (["--pin", "cpus:0,65535"], "no CPU 65535; it has 0"),
        (["--pin", "node:1023"], "no NUMA node 1023 with CPUs; it has "),
    ] {
        let output = storm(&args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(named), "{said}");
    }
}

#[test]
fn a_signal_ends_a_storm_with_the_summary_so_far() {
    if !permitted("a_signal_ends_a_storm_with_the_summary_so_far") {
        return;
    }
    for by in [Signal::INT, Signal::TERM] {
        let args = ["--concurrency", "2", "--pollers", "1", "--duration", "1h", "--json"];
        let child = storm(&args).spawn().unwrap();
        let family = running_family(&child);
        sleep(Duration::from_millis(300));
        signal(&child, by);
        let output = child.wait_with_output().unwrap();
        let summary = summary(&output);
        assert_eq!(output.status.code(), Some(0), "{summary}");
        assert_eq!(summary["interrupted"], true);
        assert!(summary["starts"].as_u64().unwrap() > 0, "{summary}");
        assert!(summary["duration_ns"].as_u64().unwrap() < 10_000_000_000, "{summary}");
        assert_all_gone(&family);
    }
}

#[test]
fn nothing_is_left_after_the_storm_is_killed() {
    if !permitted("nothing_is_left_after_the_storm_is_killed") {
        return;
    }
    let args = ["--concurrency", "4", "--pollers", "2", "--duration", "1h"];
    let mut child = storm(&args).spawn().unwrap();
    sleep(Duration::from_millis(300));
    let family = running_family(&child);
    assert_eq!(mounts_of_storms(), [""; 0], "the host sees nothing while it runs");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_all_gone(&family);
    assert_eq!(mounts_of_storms(), [""; 0]);
}

#[test]
fn nothing_is_left_when_the_storm_is_killed_while_it_starts() {
    if !permitted("nothing_is_left_when_the_storm_is_killed_while_it_starts") {
        return;
    }
    for delay in 0..20 {
        let mut child = storm(&["--concurrency", "4", "--duration", "1h"]).spawn().unwrap();
        sleep(Duration::from_micros(delay * 500));
        let family = descendants(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_all_gone(&family);
    }
    assert_eq!(mounts_of_storms(), [""; 0]);
}

#[test]
fn a_shared_host_table_sees_none_of_the_mounts() {
    if !permitted("a_shared_host_table_sees_none_of_the_mounts") {
        return;
    }
    // A host under systemd shares all its mounts; this one may not, so make a
    // namespace that does and look at its table during and after a storm.
    let script = "grep -c shared: /proc/self/mountinfo >&2; \
                  \"$1\" storm --concurrency 2 --duration 1s --json >/dev/null & \
                  sleep 0.5; cat /proc/self/mountinfo; wait $! || exit; cat /proc/self/mountinfo";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "shared", "sh", "-c", script, "sh"])
        .arg(env!("CARGO_BIN_EXE_lockprof"))
        .output()
        .expect("unshare of util-linux runs");
    assert!(output.status.success(), "{output:?}");
    let shared: u32 = String::from_utf8_lossy(&output.stderr).trim().parse().unwrap();
    assert!(shared > 0, "the namespace shares its mounts");
    let tables = String::from_utf8_lossy(&output.stdout);
    assert!(tables.lines().count() > 1);
    assert!(!tables.contains(TMPFS_SOURCE), "{tables}");
}

/// Runs a script as root of a new user namespace, whose limits on namespaces are
/// its own; `$1` is lockprof. `None` if such a namespace is not to be had.
fn in_user_namespace(test: &str, script: &str) -> Option<Output> {
    let unshare = |script: &str| {
        Command::new("unshare")
            .args(["--user", "--map-root-user", "sh", "-c", script, "sh"])
            .arg(env!("CARGO_BIN_EXE_lockprof"))
            .output()
            .expect("unshare of util-linux runs")
    };
    let possible = unshare("echo 50 > /proc/sys/user/max_mnt_namespaces").status.success();
    if !possible {
        skip(test, "no user namespace with limits of its own can be made");
    }
    possible.then(|| unshare(script))
}

#[test]
fn what_fails_later_on_is_counted_with_its_errno_and_exits_with_1() {
    let test = "what_fails_later_on_is_counted_with_its_errno_and_exits_with_1";
    let script = "\"$1\" storm --concurrency 2 --pollers 1 --duration 1s --json & \
                  sleep 0.5; echo 0 > /proc/sys/user/max_mnt_namespaces; wait $!";
    let Some(output) = in_user_namespace(test, script) else { return };
    let summary = summary(&output);
    assert_eq!(output.status.code(), Some(1), "{summary}");
    assert!(summary["starts"].as_u64().unwrap() > 0, "{summary}");
    let errors = summary["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{summary}");
    assert_eq!(errors[0]["step"], "unshare");
    assert_eq!(errors[0]["errno"], libc::ENOSPC);
    assert_eq!(errors[0]["message"], "No space left on device");
    assert_eq!(errors[0]["count"], summary["failed_starts"]);
}

#[test]
fn a_first_start_that_fails_ends_the_storm_with_the_reason() {
    let test = "a_first_start_that_fails_ends_the_storm_with_the_reason";
    // Room for the supervisor's namespace and no other.
    let script = "echo 1 > /proc/sys/user/max_mnt_namespaces; \
                  \"$1\" storm --concurrency 2 --duration 1h";
    let Some(output) = in_user_namespace(test, script) else { return };
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("failed at unshare: No space left on device"), "{stderr}");
    assert!(stderr.contains("max_mnt_namespaces"), "{stderr}");
    assert_eq!(output.stdout, b"");
}

#[test]
fn a_kernel_without_room_for_namespaces_is_a_refusal() {
    let test = "a_kernel_without_room_for_namespaces_is_a_refusal";
    let script = "echo 0 > /proc/sys/user/max_mnt_namespaces; \"$1\" storm";
    let Some(output) = in_user_namespace(test, script) else { return };
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("max_mnt_namespaces"), "{output:?}");
}

#[test]
fn without_the_privilege_a_storm_is_refused_with_3() {
    let mut command = if has_sys_admin() {
        let mut dropped = Command::new("setpriv");
        dropped.args(["--bounding-set=-sys_admin", env!("CARGO_BIN_EXE_lockprof")]);
        dropped
    } else {
        Command::new(env!("CARGO_BIN_EXE_lockprof"))
    };
    let output = command.arg("storm").output().expect("setpriv of util-linux runs");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("CAP_SYS_ADMIN"), "{output:?}");
}
