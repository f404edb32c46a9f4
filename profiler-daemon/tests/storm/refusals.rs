//! Privileges, namespaces and limits that are not enough, and those that are
//! just enough.

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};

use super::processes::{descendants, starts_come_and_go, wait_for};
use super::{common, has_sys_admin, summary};
use common::{LOCKPROF, skip};

/// A script that runs as root of a new user namespace, whose limits on
/// namespaces are its own; `$1` is lockprof.
fn in_user_namespace(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", script, "sh", LOCKPROF]);
    command
}

/// Whether there are such namespaces; if not, `test` is skipped.
fn user_namespaces(test: &str) -> bool {
    let probe = in_user_namespace("echo 50 > /proc/sys/user/max_mnt_namespaces").output();
    let possible = probe.expect("unshare of util-linux runs").status.success();
    if !possible {
        skip(test, "no user namespace with limits of its own can be made");
    }
    possible
}

fn output(script: &str) -> Output {
    in_user_namespace(script).output().expect("unshare of util-linux runs")
}

/// A storm in a user namespace that does not end by itself, and runs into the
/// limit on mount namespaces when told to.
struct Limited(Child);

impl Limited {
    fn storm(args: &str) -> Self {
        let script = format!(
            "\"$1\" storm --no-measure --concurrency 2 --pollers 1 --json {args} & \
             read -r word; echo 0 > /proc/sys/user/max_mnt_namespaces && echo set >&2; \
             read -r word; kill -$word $!; wait $!"
        );
        let mut command = in_user_namespace(&script);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().expect("unshare of util-linux runs"))
    }

    fn say(&mut self, word: &str) {
        let stdin = self.0.stdin.as_mut().expect("it is a pipe");
        writeln!(stdin, "{word}").expect("the script reads");
    }
}

#[test]
fn what_fails_later_on_is_counted_with_its_errno_and_exits_with_1() {
    let test = "what_fails_later_on_is_counted_with_its_errno_and_exits_with_1";
    if !user_namespaces(test) {
        return;
    }
    let mut storm = Limited::storm("--duration 1h");
    let root = storm.0.id();
    // Two workers, so at the fifth start at the latest one has ended well.
    starts_come_and_go(root, 5);
    storm.say("");
    // Of so many one began after the limit was set: the first of them at the
    // latest when the script has said so.
    let mut said = [0; 4];
    let stderr = storm.0.stderr.as_mut().expect("it is a pipe");
    std::io::Read::read_exact(stderr, &mut said).expect("the script sets the limit");
    starts_come_and_go(root, 5);
    storm.say("TERM");
    let output = storm.0.wait_with_output().expect("it ends");
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
fn starts_that_fail_are_among_those_asked_for() {
    let test = "starts_that_fail_are_among_those_asked_for";
    if !user_namespaces(test) {
        return;
    }
    let starts: u64 = if common::emulated() { 200 } else { 4000 };
    let mut storm = Limited::storm(&format!("--starts {starts}"));
    starts_come_and_go(storm.0.id(), 5);
    storm.say("");
    let root = storm.0.id();
    wait_for("the end of all starts", || {
        let engine = descendants(root).into_iter().any(|p| p.name == "storm-engine");
        (!engine).then_some(())
    });
    // It is over; the signal finds nobody.
    storm.say("0");
    let output = storm.0.wait_with_output().expect("it ends");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let count = |key: &str| summary[key].as_u64().expect("a number");
    assert_eq!(count("starts") + count("failed_starts"), starts, "{summary}");
    assert!(count("failed_starts") > 0 && count("starts") > 0, "{summary}");
    assert_eq!(summary["interrupted"], false, "{summary}");
}

#[test]
fn mount_namespaces_are_given_back_start_by_start() {
    let test = "mount_namespaces_are_given_back_start_by_start";
    if !user_namespaces(test) {
        return;
    }
    // By the kernel's own count: seven are in use at a time, and some more while
    // they are taken down.
    let starts = if common::emulated() { "200" } else { "2000" };
    let script = format!(
        "echo 30 > /proc/sys/user/max_mnt_namespaces; \
         exec \"$1\" storm --no-measure --concurrency 4 --pollers 2 --starts {starts} --json"
    );
    let output = output(&script);
    let summary = summary(&output);
    assert_eq!(output.status.code(), Some(0), "{summary}");
    assert_eq!(summary["starts"].to_string(), starts, "{summary}");
}

#[test]
fn a_first_start_that_fails_ends_the_storm_with_the_reason() {
    let test = "a_first_start_that_fails_ends_the_storm_with_the_reason";
    if !user_namespaces(test) {
        return;
    }
    // Room for the supervisor's namespace and no other.
    let output = output(
        "echo 1 > /proc/sys/user/max_mnt_namespaces; \
         \"$1\" storm --no-measure --concurrency 2 --duration 1h",
    );
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("failed at unshare: No space left on device"), "{stderr}");
    assert!(stderr.contains("max_mnt_namespaces"), "{stderr}");
    assert_eq!(output.stdout, b"");
}

#[test]
fn a_kernel_without_room_for_namespaces_is_a_refusal() {
    let test = "a_kernel_without_room_for_namespaces_is_a_refusal";
    if !user_namespaces(test) {
        return;
    }
    let output = output("echo 0 > /proc/sys/user/max_mnt_namespaces; \"$1\" storm");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("max_mnt_namespaces"), "{output:?}");
}

/// `lockprof storm` without `CAP_SYS_ADMIN`.
fn unprivileged(args: &[&str]) -> Command {
    let mut command = if has_sys_admin() {
        let mut dropped = Command::new("setpriv");
        dropped.args(["--bounding-set=-sys_admin", LOCKPROF]);
        dropped
    } else {
        Command::new(LOCKPROF)
    };
    command.args(["storm", "--no-measure"]).args(args);
    command
}

#[test]
fn without_the_privilege_a_storm_mounts_in_a_user_namespace() {
    let test = "without_the_privilege_a_storm_mounts_in_a_user_namespace";
    if !user_namespaces(test) {
        return;
    }
    let args = ["--starts", "20", "--concurrency", "2", "--host-mounts", "10", "--json"];
    let output = unprivileged(&args).output().expect("setpriv of util-linux runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let notes = summary["notes"].to_string();
    assert!(notes.contains("user namespace"), "it says so: {notes}");
    assert_eq!(summary["starts"], 20, "{summary}");
    assert_eq!(summary["errors"], serde_json::json!([]), "{summary}");
}

#[test]
fn what_a_user_namespace_cannot_do_is_refused_with_3() {
    let test = "what_a_user_namespace_cannot_do_is_refused_with_3";
    if !user_namespaces(test) {
        return;
    }
    for args in [&["--layers", "2", "--idmap", "parent"][..], &["--runtime", "crun"]] {
        let output = unprivileged(args).output().expect("setpriv of util-linux runs");
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("CAP_SYS_ADMIN"), "{said}");
    }
}

#[test]
fn without_the_privilege_and_a_user_namespace_a_storm_is_refused_with_3() {
    let test = "without_the_privilege_and_a_user_namespace_a_storm_is_refused_with_3";
    if !user_namespaces(test) {
        return;
    }
    // By unshare, which takes setpriv from PATH: a shell may have one of its own.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$1\" storm";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "setpriv", "--bounding-set=-sys_admin"]);
    let output = command.args(["sh", "-c", script, "sh", LOCKPROF]).output();
    let output = output.expect("unshare of util-linux runs");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("CAP_SYS_ADMIN"), "{said}");
    assert!(said.contains("max_user_namespaces"), "{said}");
}
