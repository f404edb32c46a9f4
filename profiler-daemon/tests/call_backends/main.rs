//! Every way to observe mount calls counts the same calls: a script of system
//! calls whose number and outcome are known, and the standard load.
//!
//! lockprof counts the whole machine, so each run waits for a moment in which
//! nobody else mounts, and another one is made if somebody did meanwhile. Fewer
//! calls than the script made are wrong in any run.

#[path = "../common/mod.rs"]
mod common;
mod script;

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::LOCKPROF;
use lockprof::cli::Settings;
use lockprof::commands::session::Session;
use lockprof::hooks::backend::{Backends, CallBackend};
use lockprof::snapshot::Snapshot;
use profiler_common::syscalls::MOUNT_SYSCALLS;

use self::script::Outcome;

/// Runs until one has the machine for itself.
const RUNS: usize = 10;

/// The tests here make mount calls, so one runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one of the two tests of a backend, unless the kernel does not allow BPF.
fn check(test: &str, of: fn(CallBackend, &str), backend: CallBackend) {
    let _alone = alone();
    match common::bpf_refused() {
        Some(reason) => common::skip(test, &reason),
        None => of(backend, test),
    }
}

macro_rules! tests {
    ($($test:ident: $of:ident, $backend:ident;)*) => {$(
        #[test]
        fn $test() {
            check(stringify!($test), $of, CallBackend::$backend);
        }
    )*};
}

tests! {
    fentry_counts_a_known_script: counts_the_script, Fentry;
    fentry_counts_a_storm: counts_a_storm, Fentry;
    kprobe_counts_a_known_script: counts_the_script, Kprobe;
    kprobe_counts_a_storm: counts_a_storm, Kprobe;
    tracepoints_count_a_known_script: counts_the_script, Tracepoint;
    tracepoints_count_a_storm: counts_a_storm, Tracepoint;
}

/// A session whose mount calls are observed by `backend`, or why there is none.
fn session(backend: CallBackend) -> Result<Session, String> {
    let backends = Backends { calls: Some(backend), ..Backends::default() };
    let session = Session::start(&Settings { backends, ..Settings::default() }).expect("attaches");
    let hooks = || session.programs().hooks().iter().filter(|hook| hook.hook.starts_with("sys_"));
    assert_eq!(hooks().count(), MOUNT_SYSCALLS.len());
    let mount = hooks().find(|hook| hook.hook == "sys_mount").expect("it is listed");
    if mount.backend.is_none() {
        let (by, why) = mount.refused.first().expect("a refusal has a reason");
        assert_eq!(*by, backend.name());
        return Err(format!("{by}: {why}"));
    }
    for hook in hooks() {
        match hook.backend {
            Some(by) => assert_eq!(by, backend.name(), "{}", hook.hook),
            // A kernel that allows this for mount does for all that it has.
            None => assert!(hook.refused[0].1.starts_with("this kernel has no "), "{hook:?}"),
        }
    }
    Ok(session)
}

fn counts_the_script(backend: CallBackend, test: &str) {
    let session = match session(backend) {
        Ok(session) => session,
        Err(why) => return common::skip(test, &why),
    };
    let mut seen = Vec::new();
    for _ in 0..RUNS {
        wait_for_quiet(&session);
        let before = session.fresh_snapshot();
        let made = script::run();
        let window = session.fresh_snapshot().since(&before);
        let counted = counted(&window);
        for (call, made) in &made {
            let counted = counted.get(call).copied().unwrap_or(0);
            assert!(counted >= *made, "{call:?}: counted {counted}, made {made}");
        }
        for row in &window.syscalls {
            assert_eq!(row.calls.buckets.total(), row.calls.count, "{}", row.syscall);
        }
        if counted == made {
            assert_eq!(lost(&window), 0, "{:?}", window.dropped);
            return;
        }
        seen.push(format!("counted {counted:?}, made {made:?}"));
    }
    panic!("more was counted than made in every run:\n{}", seen.join("\n"));
}

/// What lockprof counted, zeros left out.
fn counted(window: &Snapshot) -> BTreeMap<(String, Outcome), u64> {
    let mut counted = BTreeMap::new();
    for row in window.syscalls.iter().filter(|row| row.calls.count != 0) {
        *counted.entry((row.syscall.clone(), Outcome::Any)).or_insert(0) += row.calls.count;
    }
    let mut errors = BTreeMap::new();
    for row in window.syscalls.iter().filter(|row| row.errors != 0) {
        *errors.entry(row.syscall.clone()).or_insert(0) += row.errors;
    }
    for row in &window.syscall_errors {
        counted.insert((row.syscall.clone(), Outcome::Error(row.errno.clone())), row.count);
        let errors = errors.get_mut(&row.syscall).expect("errors are counted by call as well");
        *errors -= row.count;
    }
    assert!(errors.values().all(|rest| *rest == 0), "errors without errno: {errors:?}");
    counted
}

/// Mount calls that were not booked, as far as lockprof knows.
fn lost(window: &Snapshot) -> u64 {
    let reasons = ["syscall_inflight_full", "unmatched_syscall", "clone_args_unreadable"];
    let of_calls = window.dropped.iter().filter(|row| reasons.contains(&row.reason.as_str()));
    of_calls.map(|row| row.count).sum()
}

/// Programs that the kernel did not start.
fn skipped(window: &Snapshot) -> u64 {
    window.dropped.iter().filter(|row| row.reason == "recursion_miss").map(|row| row.count).sum()
}

/// Returns when nothing on this machine has made a mount call for a third of a
/// second, or after a minute of asking.
fn wait_for_quiet(session: &Session) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        let before = session.fresh_snapshot();
        std::thread::sleep(Duration::from_millis(300));
        if counted(&session.fresh_snapshot().since(&before)).is_empty() {
            return;
        }
    }
}

fn counts_a_storm(backend: CallBackend, test: &str) {
    // The reason to skip, from a session that ends before the storm.
    if let Err(why) = session(backend) {
        return common::skip(test, &why);
    }
    let storm =
        [LOCKPROF, "storm", "--no-measure", "--concurrency", "8", "--duration", "3s", "--json"];
    let output = stat(backend, &[&["--"], &storm[..]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    let window: Snapshot = serde_json::from_slice(&output.stdout).expect("stat prints JSON");
    let summary: serde_json::Value = said
        .lines()
        .find_map(|line| serde_json::from_str(line).ok().filter(has_mounts))
        .unwrap_or_else(|| panic!("the storm prints a summary: {said}"));

    let (lost, skipped) = (lost(&window), skipped(&window));
    if backend != CallBackend::Kprobe {
        // kretprobes have room for some calls only. The others lose what the
        // kernel skips: a program that is under way on the CPU, in a task that
        // was preempted there.
        assert!(lost <= skipped, "{:?}", window.dropped);
    }
    for (call, made) in [("mount", "mounts"), ("umount2", "umounts")] {
        let made = summary[made].as_u64().expect("a count");
        let rows = || window.syscalls.iter().filter(|row| row.syscall == call);
        let counted: u64 = rows().map(|row| row.calls.count - row.errors).sum();
        assert!(made > 0, "the storm makes no {call}");
        assert!(counted + lost + skipped >= made, "{call}: {counted} of {made}, lost {lost}");
        let waited: u64 = rows().filter_map(|row| row.lock_wait_ns.get("namespace_sem")).sum();
        assert!(waited > 0, "no {call} waited for namespace_sem");
    }
}

fn has_mounts(line: &serde_json::Value) -> bool {
    line["mounts"].is_u64()
}

fn stat(backend: CallBackend, arguments: &[&str]) -> Output {
    let output = Command::new(LOCKPROF)
        .args(["stat", "--json", "--backend", &format!("calls={}", backend.name())])
        .args(arguments)
        .output()
        .expect("stat can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn a_forced_backend_that_is_refused_measures_no_call_and_says_so() {
    let _alone = alone();
    needs_bpf!("a_forced_backend_that_is_refused_measures_no_call_and_says_so");
    for backend in CallBackend::ALL {
        let output = stat(backend, &["--duration", "10ms"]);
        let said = String::from_utf8_lossy(&output.stderr);
        let snapshot: Snapshot = serde_json::from_slice(&output.stdout).expect("stat prints JSON");
        let of_calls = || snapshot.hooks.iter().filter(|hook| hook.hook.starts_with("sys_"));
        for hook in of_calls() {
            assert!([backend.name(), "none"].contains(&hook.backend.as_str()), "{hook:?}");
        }
        let attached = of_calls().any(|hook| hook.backend != "none");
        // Of some calls it would go on with their names.
        let refused = said.contains(r#""mount calls are not measured""#);
        assert_eq!(refused, !attached, "{said}");
    }
}
