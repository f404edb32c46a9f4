//! The daemon with the capabilities of the unit alone, as an ordinary user: that
//! they are enough to start, what is left of them then, and that what is left is
//! enough to go on.

mod common;
#[path = "service/daemon.rs"]
mod daemon;
#[path = "service/unit.rs"]
mod unit;
#[path = "service/user.rs"]
mod user;

use std::time::{Duration, Instant};

use aya::programs::loaded_programs;
use rustix::thread::CapabilitySet;

use crate::daemon::Daemon;
use crate::user::NOBODY;

/// Returns from the test with a skip where the unit cannot be imitated.
macro_rules! needs_root_and_bpf {
    ($test:literal) => {
        needs_bpf!($test);
        if !user::may_change_user() {
            common::skip($test, "only root can run a program as somebody else");
            return;
        }
    };
}

/// Lines of `status` of every thread of `process` that begin with `key`.
fn of_threads(process: u32, key: &str) -> Vec<String> {
    let folder = format!("/proc/{process}/task");
    let threads = std::fs::read_dir(folder).expect("our own child");
    let lines = threads.map(|thread| {
        let path = thread.expect("a thread").path().join("status");
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("no {key} in {status}")).trim().to_owned()
    });
    lines.collect()
}

/// Everything that any thread of `process` may do or pass on.
fn held(process: u32) -> CapabilitySet {
    let mut all = CapabilitySet::empty();
    for key in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        for mask in of_threads(process, key) {
            let mask = u64::from_str_radix(&mask, 16).expect("a set");
            all |= CapabilitySet::from_bits_retain(mask);
        }
    }
    all
}

/// What running needs on this kernel: from 5.19 on, `bpf(2)` is for everybody who has
/// the file descriptors, but for making maps and programs (`__sys_bpf` in
/// kernel/bpf/syscall.c); before, not where the sysctl says so.
fn needed() -> CapabilitySet {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok).expect("a number");
    let refused = std::fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled");
    let refused = refused.is_ok_and(|text| text.trim() != "0");
    if (next(), next()) >= (5, 19) || !refused {
        CapabilitySet::empty()
    } else {
        CapabilitySet::BPF
    }
}

/// Asks until `fits`, for at most a minute.
fn eventually<T>(mut ask: impl FnMut() -> T, fits: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = ask();
        if fits(&answer) || Instant::now() > deadline {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn the_capabilities_of_the_unit_are_enough_and_what_is_left_is_enough_to_go_on() {
    needs_root_and_bpf!(
        "the_capabilities_of_the_unit_are_enough_and_what_is_left_is_enough_to_go_on"
    );
    let text = "[mounts]\ninterval = \"1s\"\n[attribution]\nslow_wait = \"1ms\"\n";
    let config = daemon::config(text);
    let (command, address) = daemon::command(Some(config.path()));
    let daemon = Daemon::start(command, address);
    let process = daemon.child.id();

    let said = daemon.wait_for("gave up privileges");
    assert_eq!(held(process), needed(), "{said}");
    assert_eq!(said.contains("CAP_BPF ("), needed() == CapabilitySet::BPF, "{said}");
    for user in of_threads(process, "Uid:") {
        assert!(user.split_whitespace().all(|id| id == NOBODY.to_string()), "{user}");
    }
    assert!(of_threads(process, "NoNewPrivs:").iter().all(|set| set == "1"));

    // Everything from here on is without the rest.
    assert!(common::storm(3).status().expect("storm runs").success());
    let after = daemon.snapshot();
    let waits = |name: &str| -> u64 {
        let rows = after.locks.iter().filter(|row| row.lock == name);
        rows.map(|row| row.waits.count).sum()
    };
    assert!(waits("namespace_sem") > 0, "nothing was measured");
    if after.hooks.iter().any(|hook| hook.hook == "task_iter" && hook.backend != "none") {
        // A walk that ended after this moment is younger than it.
        let now = Instant::now();
        let age = eventually(
            || daemon.snapshot().mount_tables.map(|tables| Duration::from_nanos(tables.age_ns)),
            |age| age.is_some_and(|age| age < now.elapsed()),
        );
        assert!(age.is_some_and(|age| age < now.elapsed()), "mounts are counted: {age:?}");
    }
    if after.slow_waits.is_some() {
        let named = |snapshot: &lockprof::snapshot::Snapshot| {
            let slow = snapshot.slow_waits.iter().flat_map(|slow| &slow.recent);
            let frames = slow.flat_map(|wait| &wait.stack).map(lockprof::snapshot::Name::as_str);
            frames.filter(|frame| frame.contains("+0x")).count()
        };
        // Not every storm makes a wait of that length.
        let seen = eventually(
            || {
                assert!(common::storm(1).status().expect("storm runs").success());
                daemon.snapshot()
            },
            |snapshot| named(snapshot) > 0,
        );
        assert!(named(&seen) > 0, "functions in stacks have names: {:?}", seen.slow_waits);
    }
}

#[test]
fn a_reload_that_needs_the_privileges_again_ends_it_to_be_started_anew() {
    needs_root_and_bpf!("a_reload_that_needs_the_privileges_again_ends_it_to_be_started_anew");
    let config = daemon::config("");
    let (command, address) = daemon::command(Some(config.path()));
    let mut daemon = Daemon::start(command, address);
    let write = |text: &str| std::fs::write(config.path(), text).expect("it can be written");

    write("[locks]\ndisable = [\"tasklist_lok\"]\n");
    daemon.signal(libc::SIGHUP);
    let said = daemon.wait_for("kept the running configuration");
    assert!(said.contains("tasklist_lok"), "{said}");

    write("[log]\nlevel = \"debug\"\n");
    daemon.signal(libc::SIGHUP);
    daemon.wait_for("reloaded");
    assert!(daemon.get("/metrics").contains("lock=\"tasklist_lock\""), "it still measures");

    let folder = format!("/proc/{}/fdinfo", daemon.child.id());
    let programs: Vec<u32> = std::fs::read_dir(folder)
        .expect("our own child")
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok())
        .filter_map(|text| {
            text.lines().find_map(|line| line.strip_prefix("prog_id:"))?.trim().parse().ok()
        })
        .collect();
    assert!(programs.len() >= 4, "{programs:?}");
    write("[locks]\ndisable = [\"tasklist_lock\"]\n");
    daemon.signal(libc::SIGHUP);
    let said = daemon.wait_for("ending to be started anew");
    assert!(said.contains("75"), "{said}");
    assert_eq!(daemon.end().code(), Some(75));
    assert_eq!(unit::value("RestartForceExitStatus"), "75");
    // The kernel frees them in its own time.
    let left = eventually(
        || {
            let loaded: Vec<u32> =
                loaded_programs().filter_map(|info| Some(info.ok()?.id())).collect();
            programs.iter().filter(|id| loaded.contains(id)).count()
        },
        |left| *left == 0,
    );
    assert_eq!(left, 0, "programs are left");
}
