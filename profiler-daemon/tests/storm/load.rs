//! What is asked for is made: starts, their number and rate, where they run, and
//! the mount table that they copy.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use rustix::process::Signal;

use super::processes::{assert_all_gone, running_family, starts_come_and_go};
use super::{TMPFS_SOURCE, common, mounts, mounts_of_storms, permitted, signal, storm, summary};

#[test]
fn a_storm_starts_containers_without_a_mount_error() {
    if !permitted("a_storm_starts_containers_without_a_mount_error") {
        return;
    }
    let args = ["--concurrency", "4", "--pollers", "1", "--duration", "1h", "--json"];
    let child = storm(&args).spawn().unwrap();
    let family = running_family(child.id());
    starts_come_and_go(child.id(), 5);
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    let summary = summary(&output);
    assert_eq!(output.status.code(), Some(0), "{summary}");
    assert_eq!(summary["errors"], serde_json::json!([]));
    assert_eq!(summary["failed_starts"], 0);
    assert_eq!(summary["lost_processes"], 0);
    let starts = summary["starts"].as_u64().unwrap();
    assert!(starts > 0, "{summary}");
    // A start makes `/` private, mounts its root, three file systems below /dev,
    // 12 binds, 6 of which it makes read-only, and 8 masks; with chroot instead of
    // pivot_root it moves the root as well.
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

#[test]
fn as_many_containers_start_as_asked() {
    if !permitted("as_many_containers_start_as_asked") {
        return;
    }
    for (starts, concurrency) in [("1", "4"), ("37", "3"), ("64", "64")] {
        let args = ["--starts", starts, "--concurrency", concurrency, "--pollers", "1", "--json"];
        let output = storm(&args).output().unwrap();
        let summary = summary(&output);
        assert_eq!(output.status.code(), Some(0), "{summary}");
        assert_eq!(summary["starts"].to_string(), starts, "{summary}");
        assert_eq!(summary["failed_starts"], 0, "{summary}");
        assert_eq!(summary["interrupted"], false, "{summary}");
    }
}

#[test]
fn starts_at_a_rate_are_no_more_than_it_allows() {
    if !permitted("starts_at_a_rate_are_no_more_than_it_allows") {
        return;
    }
    let args = ["--rate", "30", "--starts", "20", "--concurrency", "6", "--pollers", "0", "--json"];
    let output = storm(&args).output().unwrap();
    let summary = summary(&output);
    let starts = summary["starts"].as_u64().unwrap();
    assert_eq!(starts, 20, "{summary}");
    // Of what the storm itself took: a machine that is slow makes fewer starts in
    // a time, not more.
    let seconds = summary["duration_ns"].as_u64().unwrap() as f64 / 1e9;
    assert!(starts as f64 <= 30.0 * seconds + 1.0, "{summary}");
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
    let family = running_family(child.id());
    let mut pinned = 0;
    // Starts come and go.
    for allowed in family.iter().filter_map(|process| allowed_cpus(process.pid)) {
        assert_eq!(allowed, cpu);
        pinned += 1;
    }
    assert_eq!(allowed_cpus(child.id()), Some(own.clone()), "the caller makes no load");
    assert!(pinned >= 5, "engine, supervisor, workers and poller: {family:?}");
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

/// Peer groups that the mounts of a table are in.
fn peer_groups(table: &[String]) -> BTreeSet<&str> {
    let fields = table.iter().flat_map(|line| line.split(' ').take_while(|field| *field != "-"));
    fields.filter_map(|field| field.strip_prefix("shared:")).collect()
}

#[test]
fn the_storms_own_table_has_the_further_mounts_and_their_propagation() {
    if !permitted("the_storms_own_table_has_the_further_mounts_and_their_propagation") {
        return;
    }
    for propagation in ["private", "shared", "slave"] {
        let args = ["--concurrency", "2", "--pollers", "1", "--duration", "1h", "--json"];
        let table = ["--host-mounts", "300", "--propagation", propagation];
        let child = storm(&[&args[..], &table].concat()).spawn().unwrap();
        let family = running_family(child.id());
        let supervisor = family.iter().find(|p| p.name == "storm-init").expect("it runs");
        let table = mounts(supervisor.pid);
        let further = table.iter().filter(|line| line.contains("/host/")).count();
        assert_eq!(further, 300);
        let groups = peer_groups(&table);
        assert_eq!(groups.is_empty(), propagation == "private", "{propagation}: {groups:?}");
        if propagation != "private" {
            assert!(table.iter().all(|line| line.contains(" shared:")), "{propagation}: {table:?}");
        }
        assert!(!table.iter().any(|line| line.contains(" master:")), "{propagation}: {table:?}");
        assert!(groups.is_disjoint(&peer_groups(&mounts("self"))), "the host is a world apart");
        let poller = family.iter().find(|p| p.name == "storm-poller").expect("it runs");
        assert!(mounts(poller.pid).len() >= 300, "pollers see them as well");
        starts_come_and_go(child.id(), 3);
        signal(&child, Signal::INT);
        let output = child.wait_with_output().unwrap();
        let summary = summary(&output);
        assert_eq!(output.status.code(), Some(0), "{summary}");
        assert_eq!(mounts_of_storms(), [""; 0]);
    }
}

#[test]
fn more_further_mounts_than_a_namespace_holds_are_a_refusal() {
    let test = "more_further_mounts_than_a_namespace_holds_are_a_refusal";
    if !permitted(test) {
        return;
    }
    let limit = fs::read_to_string("/proc/sys/fs/mount-max").expect("Linux 4.9 has it");
    let limit: u32 = limit.trim().parse().expect("a number");
    // The most that the flag takes.
    if limit > 100_000 || common::emulated() {
        return common::skip(test, "fs.mount-max mounts are too many to make here");
    }
    let output = storm(&["--host-mounts", &limit.to_string(), "--starts", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/proc/sys/fs/mount-max"), "{said}");
    assert!(said.contains(&format!("holds {limit} at most")), "{said}");
}

#[test]
fn a_shared_host_table_sees_none_of_the_mounts() {
    if !permitted("a_shared_host_table_sees_none_of_the_mounts") {
        return;
    }
    // A host under systemd shares all its mounts; this one may not, so make a
    // namespace that does and look at its table during and after a storm.
    let script = "grep -c shared: /proc/self/mountinfo >&2; \
                  \"$1\" storm --concurrency 2 --duration 1s --propagation \"$2\" \
                  --host-mounts 10 --json >/dev/null & \
                  sleep 0.5; cat /proc/self/mountinfo; wait $! || exit; cat /proc/self/mountinfo";
    for propagation in ["private", "shared", "slave"] {
        let output = Command::new("unshare")
            .args(["--mount", "--propagation", "shared", "sh", "-c", script, "sh"])
            .args([common::LOCKPROF, propagation])
            .output()
            .expect("unshare of util-linux runs");
        assert!(output.status.success(), "{output:?}");
        let shared: u32 = String::from_utf8_lossy(&output.stderr).trim().parse().unwrap();
        assert!(shared > 0, "the namespace shares its mounts");
        let tables = String::from_utf8_lossy(&output.stdout);
        assert!(tables.lines().count() > 1);
        assert!(!tables.contains(TMPFS_SOURCE), "{propagation}: {tables}");
    }
}
