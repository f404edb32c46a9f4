//! The filter of system calls, against those that the daemon makes.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::daemon::{self, Daemon};
use crate::user::{self, Executable};
use crate::{common, needs_bpf, unit};

/// What `sets` of systemd are, in which sets may be; `None` where it is not
/// installed.
fn expand(words: &[&str]) -> Option<BTreeSet<String>> {
    let mut calls = BTreeSet::new();
    for word in words {
        if !word.starts_with('@') {
            calls.insert((*word).to_owned());
            continue;
        }
        let output =
            Command::new("systemd-analyze").args(["syscall-filter", word]).output().ok()?;
        assert!(output.status.success(), "{word}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let members = text.lines().filter(|line| line.starts_with(' ')).map(str::trim);
        let members: Vec<_> = members.filter(|line| !line.starts_with('#')).collect();
        calls.extend(expand(&members)?);
    }
    Some(calls)
}

/// The allow list of the unit: what later lines take away or add changes what
/// earlier ones said, systemd.exec(5).
fn allowed() -> Option<BTreeSet<String>> {
    // Always allowed with an allow list.
    let mut allowed = expand(&["@default"])?;
    for (number, line) in unit::values(unit::SERVICE, "SystemCallFilter").iter().enumerate() {
        let (taken, words) = match line.strip_prefix('~') {
            Some(words) => (true, words),
            None => (false, *line),
        };
        assert!(number > 0 || !taken, "an allow list");
        let calls = expand(&words.split_whitespace().collect::<Vec<_>>())?;
        if taken {
            allowed.retain(|call| !calls.contains(call));
        } else {
            allowed.extend(calls);
        }
    }
    Some(allowed)
}

/// Names of the calls in what strace wrote, from when the daemon was executed.
fn made(trace: &str) -> BTreeSet<String> {
    let calls = trace.lines().filter_map(|line| {
        let (_, call) = line.split_once(char::is_whitespace)?;
        let (name, _) = call.trim_start().split_once('(')?;
        name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_').then(|| name.to_owned())
    });
    calls.collect()
}

#[test]
fn the_daemon_makes_no_system_call_that_the_unit_does_not_allow() {
    const TEST: &str = "the_daemon_makes_no_system_call_that_the_unit_does_not_allow";
    needs_bpf!("the_daemon_makes_no_system_call_that_the_unit_does_not_allow");
    if !user::may_change_user() {
        return common::skip(TEST, "only root can run a program as somebody else");
    }
    let Some(allowed) = allowed() else {
        return common::skip(TEST, "systemd-analyze is not installed");
    };
    if Command::new("strace").arg("-V").output().is_err() {
        return common::skip(TEST, "strace is not installed; `cargo xtask setup` installs it");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let everybody = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(folder.path(), everybody).expect("it is ours");
    let trace = folder.path().join("trace");
    let config = daemon::config("[mounts]\ninterval = \"1s\"\n");
    let daemon = Executable::open(common::LOCKPROF);
    let trace_to = trace.to_str().expect("a plain path");
    let strace = ["-f", "-qq", "-s", "0", "-o", trace_to, &daemon.path()];
    let (mut command, address) = daemon::command_of("strace", &strace, Some(config.path()));
    user::confine(&mut command, unit::capabilities());
    command.env("NOTIFY_SOCKET", folder.path().join("nobody-there"));
    command.env("WATCHDOG_USEC", "600000");

    let mut strace = Daemon::start(command, address);
    assert!(common::storm(2).status().expect("storm runs").success());
    for path in ["/metrics", "/api/v1/snapshot", "/healthz", "/nothing"] {
        strace.try_get(path).expect("an answer");
    }
    // strace passes no signals on: the daemon is its child.
    let id = strace.child.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let daemon: u32 = children.expect("our own child").trim().parse().expect("one child");
    for (settings, then) in [
        ("nonsense = 1\n", "kept the running configuration"),
        ("[metrics]\ncontainers = 2\n[mounts]\ninterval = \"1s\"\n", "reloaded"),
        ("[mounts]\ninterval = \"2s\"\n", "ending to be started anew"),
    ] {
        std::fs::write(config.path(), settings).expect("it can be written");
        daemon::signal_to(daemon, libc::SIGHUP);
        strace.wait_for(then);
    }
    assert_eq!(strace.end().code(), Some(75));

    let made = made(&std::fs::read_to_string(&trace).expect("strace wrote it"));
    for expected in ["bpf", "perf_event_open", "capset", "accept4", "exit_group"] {
        assert!(made.contains(expected), "{expected} is not in the trace: {made:?}");
    }
    let refused: Vec<_> = made.difference(&allowed).collect();
    let tolerated = tolerated();
    let unexpected: Vec<_> =
        refused.iter().filter(|call| !tolerated.contains(&call.as_str())).collect();
    assert!(unexpected.is_empty(), "lockprof.service does not allow {unexpected:?}");
}

/// Calls that the daemon tries and does well without, refused with
/// `SystemCallErrorNumber=`: what each would be for.
fn tolerated() -> Vec<&'static str> {
    assert_eq!(unit::value("SystemCallErrorNumber"), "EPERM");
    vec![
        // A private tracefs, where none is mounted: takes CAP_SYS_ADMIN.
        "fsopen",
        // Names of cgroups by id: takes CAP_DAC_READ_SEARCH (cgroup-names.conf).
        "open_by_handle_at",
    ]
}

#[test]
fn the_filter_has_an_end_and_no_call_for_changing_the_machine() {
    let Some(allowed) = allowed() else {
        return common::skip(
            "the_filter_has_an_end_and_no_call_for_changing_the_machine",
            "systemd-analyze is not installed",
        );
    };
    for call in ["mount", "init_module", "reboot", "ptrace", "setns", "unshare", "syslog", "swapon"]
    {
        assert!(!allowed.contains(call), "{call} is allowed");
    }
}
