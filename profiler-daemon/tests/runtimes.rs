//! `lockprof storm` with the real runtimes of this machine: their calls, counted
//! by lockprof itself, and what they leave behind. Needs `CAP_SYS_ADMIN`, runc
//! and crun.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::LOCKPROF;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CapabilitySet, capabilities};
use serde_json::Value;

const RUNTIMES: [&str; 2] = ["runc", "crun"];

/// What ids of containers begin with.
const ID: &str = "lockprof-storm";

/// What runc 1.1 says where it cannot copy itself.
const NO_CLONE: &str = "could not ensure we are a cloned binary";

/// Binds and masks of a start.
const BINDS: u64 = 5;
const MASKS: u64 = 3;

/// Starts of a storm that comes to its own end.
const STARTS: u64 = 6;
const ALL: &str = "6";

/// The runtimes that start containers here; `test` is skipped for the others,
/// with the reason.
fn usable(test: &str) -> Vec<&'static str> {
    let own = capabilities(None).expect("capget works");
    if !own.effective.contains(CapabilitySet::SYS_ADMIN) {
        common::skip(test, "storm needs CAP_SYS_ADMIN");
        return Vec::new();
    }
    let is_usable = |runtime: &&str| {
        if find(runtime).is_none() {
            let why = format!("{runtime} is not installed; `cargo xtask setup` installs it");
            common::skip(test, &why);
            return false;
        }
        let trial =
            storm(runtime, &["--starts", "1", "--no-measure"]).output().expect("lockprof runs");
        let said = String::from_utf8_lossy(&trial.stderr);
        if said.contains(NO_CLONE) {
            common::skip(test, &format!("{runtime} starts no container here: {}", said.trim()));
        }
        !said.contains(NO_CLONE)
    };
    RUNTIMES.into_iter().filter(is_usable).collect()
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(tool)).find(|file| file.is_file())
}

/// A storm of starts by `runtime`, without pollers.
fn storm(runtime: &str, more: &[&str]) -> Command {
    let mut command = Command::new(LOCKPROF);
    let (binds, masks) = (BINDS.to_string(), MASKS.to_string());
    command.args(["storm", "--json", "--runtime", runtime, "--concurrency", "2"]);
    command.args(["--pollers", "0", "--binds", &binds, "--masks", &masks]).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The summary of a storm that made all its starts without a failure.
fn summary(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    let summary: Value = serde_json::from_slice(&output.stdout).expect("the summary is JSON");
    assert_eq!(summary["errors"], serde_json::json!([]), "{summary}");
    assert_eq!(summary["failed_starts"], 0, "{summary}");
    assert_eq!(summary["lost_processes"], 0, "{summary}");
    assert_eq!(summary["starts"], STARTS, "{summary}");
    summary
}

fn number(summary: &Value, key: &str) -> u64 {
    summary[key].as_u64().unwrap_or_else(|| panic!("{key}: {summary}"))
}

/// What a storm could leave on the host: mounts, cgroups, and directories where
/// runtimes keep their state by default or make temporary files.
fn left_on_host() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("procfs is mounted");
    let mounts = table.lines().filter(|line| line.contains(ID)).map(str::to_owned);
    let mut left: Vec<_> = mounts.collect();
    folders_of_storms(Path::new("/sys/fs/cgroup"), &mut left);
    for folder in ["/run/runc", "/run/crun", "/tmp", "/run"] {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.path().display().to_string());
        left.extend(names.filter(|path| path.contains(ID) || path.starts_with("/tmp/crun.")));
    }
    left
}

fn folders_of_storms(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().contains(ID) {
                found.push(entry.path().display().to_string());
            }
            folders_of_storms(&entry.path(), found);
        }
    }
}

/// The PID namespace that a process is in.
fn pid_namespace(pid: u32) -> Option<OsString> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok().map(PathBuf::into_os_string)
}

/// Processes by parent, zombies left out.
fn processes() -> BTreeMap<u32, u32> {
    let entries = fs::read_dir("/proc").expect("procfs is mounted").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command is in parentheses and may hold any character.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        (fields[0] != "Z").then_some((pid, fields[1].parse().ok()?))
    })
    .collect()
}

/// The PID namespaces below this storm's: its own and those of its containers.
fn namespaces_of(child: &Child) -> BTreeSet<OsString> {
    let all = processes();
    let mut family = BTreeSet::from([child.id()]);
    loop {
        let more: BTreeSet<_> =
            all.iter().filter(|(_, parent)| family.contains(parent)).map(|(pid, _)| *pid).collect();
        if more.is_subset(&family) {
            break;
        }
        family.extend(more);
    }
    let own = pid_namespace(std::process::id());
    let theirs = family.into_iter().filter_map(pid_namespace);
    theirs.filter(|namespace| Some(namespace) != own.as_ref()).collect()
}

/// Waits until the storm runs containers: their PID namespaces, and the storm's.
fn namespaces_with_containers(child: &Child) -> BTreeSet<OsString> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let namespaces = namespaces_of(child);
        if namespaces.len() >= 2 {
            return namespaces;
        }
        assert!(processes().contains_key(&child.id()), "the storm has ended");
        assert!(Instant::now() < deadline, "the storm starts no container: {namespaces:?}");
    }
}

/// Waits until no process is in any of the PID namespaces.
fn assert_all_gone(namespaces: &BTreeSet<OsString>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let is_left = |pid: &u32| pid_namespace(*pid).is_some_and(|own| namespaces.contains(&own));
        let left: Vec<_> = processes().into_keys().filter(is_left).collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left behind: {left:?}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn every_start_makes_the_calls_of_a_container() {
    const TEST: &str = "every_start_makes_the_calls_of_a_container";
    needs_bpf!("every_start_makes_the_calls_of_a_container");
    for runtime in usable(TEST) {
        let summary = summary(&storm(runtime, &["--starts", ALL]).output().expect("it runs"));
        // Newer versions of the runtimes use the newer calls.
        let calls = |names: &[&str]| -> u64 {
            let count = |name| summary["measured"]["syscalls"][name]["count"].as_u64();
            names.iter().filter_map(count).sum()
        };
        let mounted = calls(&["mount", "move_mount"]);
        let entered = calls(&["clone", "clone3", "unshare"]);
        let pivoted = calls(&["pivot_root"]);
        // Seven that every container has, and the strategy's.
        assert!(mounted >= STARTS * (7 + BINDS + MASKS), "{runtime}: {mounted}: {summary}");
        assert!(entered >= STARTS, "{runtime}: {entered}: {summary}");
        assert!(pivoted >= STARTS, "{runtime}: {pivoted}: {summary}");
    }
}

#[test]
fn an_overlay_is_mounted_for_each_start_and_unmounted() {
    const TEST: &str = "an_overlay_is_mounted_for_each_start_and_unmounted";
    let overlay = fs::read_to_string("/proc/filesystems").expect("procfs is mounted");
    for runtime in usable(TEST) {
        // As many layers as the command line takes.
        let args = ["--layers", "500", "--no-measure", "--starts", ALL];
        let output = storm(runtime, &args).output().expect("lockprof runs");
        let said = String::from_utf8_lossy(&output.stderr);
        if !overlay.contains("\toverlay") && said.contains("failed at overlay: No such device") {
            common::skip(TEST, "this kernel has no overlayfs");
            return;
        }
        let summary = summary(&output);
        assert_eq!(number(&summary, "mounts"), STARTS, "{summary}");
        assert_eq!(number(&summary, "umounts"), STARTS, "{summary}");
    }
}

#[test]
fn every_propagation_starts_and_the_mount_table_is_read_as_asked() {
    for runtime in usable("every_propagation_starts_and_the_mount_table_is_read_as_asked") {
        for propagation in ["private", "shared", "slave"] {
            let args = ["--propagation", propagation, "--mountinfo-reads", "3"];
            let mut storm = storm(runtime, &args);
            let summary = summary(&storm.args(["--no-measure", "--starts", ALL]).output().unwrap());
            assert_eq!(number(&summary, "mountinfo_reads"), 3 * STARTS, "{summary}");
        }
    }
}

#[test]
fn nothing_is_left_after_a_storm_of_real_runtimes() {
    for runtime in usable("nothing_is_left_after_a_storm_of_real_runtimes") {
        let child =
            storm(runtime, &["--no-measure", "--duration", "1h"]).spawn().expect("lockprof runs");
        let namespaces = namespaces_with_containers(&child);
        assert_eq!(left_on_host(), [""; 0], "{runtime}: the host sees nothing while it runs");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, Signal::INT).expect("the storm still runs");
        let output = child.wait_with_output().expect("it ends");
        let summary: Value = serde_json::from_slice(&output.stdout).expect("the summary is JSON");
        // Starts under way come to their end unless they take too long.
        if summary["killed"] == false {
            assert_eq!(summary["errors"], serde_json::json!([]), "{summary}");
            assert_eq!(summary["lost_processes"], 0, "{summary}");
        }
        assert_all_gone(&namespaces);
        assert_eq!(left_on_host(), [""; 0], "{runtime}");
    }
}

#[test]
fn nothing_is_left_after_a_storm_of_real_runtimes_is_killed() {
    for runtime in usable("nothing_is_left_after_a_storm_of_real_runtimes_is_killed") {
        for layers in ["0", "3"] {
            let args = ["--no-measure", "--duration", "1h", "--layers", layers];
            let mut child = storm(runtime, &args).spawn().expect("lockprof runs");
            let namespaces = namespaces_with_containers(&child);
            child.kill().expect("it still runs");
            child.wait().expect("it ends");
            assert_all_gone(&namespaces);
            assert_eq!(left_on_host(), [""; 0], "{runtime}");
        }
    }
}

#[test]
fn a_host_with_the_unified_hierarchy_alone_starts_them_too() {
    for runtime in usable("a_host_with_the_unified_hierarchy_alone_starts_them_too") {
        // Where this host has the older ones, they are covered.
        let script = "mount -t cgroup2 cgroup2 /sys/fs/cgroup 2>/dev/null; \
                      test -e /sys/fs/cgroup/cgroup.controllers && exec \"$@\"";
        let storm = storm(runtime, &["--no-measure", "--starts", ALL]);
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(storm.get_program())
            .args(storm.get_args())
            .output()
            .expect("unshare runs");
        summary(&output);
        assert_eq!(left_on_host(), [""; 0], "{runtime}");
    }
}

/// A folder outside of /tmp, which storms cover, with an executable script called
/// `runc` in it.
fn folder_with_runc(script: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder in /var/tmp");
    let file = folder.path().join("runc");
    let version = "case \"$*\" in --version) echo 'runc version 0'; exit;; esac";
    fs::write(&file, format!("#!/bin/sh\n{version}\n{script}\n")).expect("it can be written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("it is ours");
    folder
}

/// PATH with `folder` before all others.
fn path_with(folder: &Path) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).expect("no colons in it")
}

#[test]
fn a_runtime_that_is_not_on_path_is_named_with_its_package() {
    if usable("a_runtime_that_is_not_on_path_is_named_with_its_package").is_empty() {
        return;
    }
    for runtime in RUNTIMES {
        let output = storm(runtime, &[]).env("PATH", "/nonexistent").output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(&format!("install the package {runtime}")), "{said}");
    }
}

#[test]
fn mapped_layers_and_a_real_runtime_exclude_each_other() {
    for runtime in usable("mapped_layers_and_a_real_runtime_exclude_each_other") {
        for idmap in ["parent", "per-layer"] {
            let args = ["--layers", "2", "--idmap", idmap];
            let output = storm(runtime, &args).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{output:?}");
            let said = String::from_utf8_lossy(&output.stderr);
            for flag in [format!("--runtime {runtime}"), format!("--idmap {idmap}")] {
                assert!(said.contains(&flag), "{said}");
            }
        }
    }
}

#[test]
fn a_first_start_that_fails_says_what_the_runtime_said() {
    if usable("a_first_start_that_fails_says_what_the_runtime_said").is_empty() {
        return;
    }
    let folder =
        folder_with_runc("printf 'level=warning msg=old\\nno \\033[2Jroot\\n' >&2; exit 1");
    let output = storm("runc", &["--no-measure", "--duration", "1h"])
        .env("PATH", path_with(folder.path()))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("failed at runtime_create: no \\x1b[2Jroot; level=warning"), "{said}");
    assert_eq!(output.stdout, b"");
}

#[test]
fn starts_that_fail_later_are_counted_and_leave_nothing() {
    if !usable("starts_that_fail_later_are_counted_and_leave_nothing").contains(&"runc") {
        return;
    }
    // Every other container is created, and not started.
    let real = find("runc").expect("it is usable");
    let script = format!(
        "case \"$*\" in *' start '*[13579]) echo no luck >&2; exit 3;; esac; exec {} \"$@\"",
        real.display()
    );
    let folder = folder_with_runc(&script);
    let output = storm("runc", &["--layers", "2", "--no-measure", "--starts", "12"])
        .env("PATH", path_with(folder.path()))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let summary: Value = serde_json::from_slice(&output.stdout).expect("the summary is JSON");
    let (starts, failed) = (number(&summary, "starts"), number(&summary, "failed_starts"));
    assert!(starts > 0 && failed > 0 && starts + failed == 12, "{summary}");
    let errors = summary["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{summary}");
    assert_eq!(errors[0]["step"], "runtime_start", "{summary}");
    assert_eq!(errors[0]["message"], "no luck", "{summary}");
    assert_eq!(number(&errors[0], "count"), failed, "{summary}");
    assert_eq!(number(&summary, "mounts"), 12, "{summary}");
    assert_eq!(number(&summary, "umounts"), 12, "{summary}");
    assert_eq!(left_on_host(), [""; 0]);
}
