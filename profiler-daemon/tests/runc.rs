//! Real container starts, counted by lockprof and by strace in the same run.
//!
//! lockprof counts the whole machine and strace the containers alone, so the
//! test waits for a moment in which nobody else mounts, and takes another run if
//! somebody did meanwhile. Fewer calls than strace saw are wrong in any run.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::LOCKPROF;
use lockprof::snapshot::Snapshot;
use profiler_common::syscalls::MOUNT_SYSCALLS;

/// Container starts in a run.
const STARTS: usize = 3;

/// Runs until one has the machine for itself.
const RUNS: usize = 10;

/// Calls and errors by name, none of them 0.
type Counts = (BTreeMap<String, u64>, BTreeMap<String, u64>);

#[test]
fn runc_starts_make_the_mount_calls_that_strace_counts() {
    needs_bpf!("runc_starts_make_the_mount_calls_that_strace_counts");
    for tool in ["runc", "strace", "busybox"] {
        if !on_path(tool) {
            common::skip(
                "runc_starts_make_the_mount_calls_that_strace_counts",
                &format!("{tool} is not installed; `cargo xtask setup` installs it"),
            );
            return;
        }
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    bundle(folder.path()).expect("a bundle can be made");
    let mut seen = Vec::new();
    for _ in 0..RUNS {
        wait_for_quiet();
        let (mine, theirs) = run(folder.path());
        assert!(theirs.0.get("mount").is_some_and(|n| *n >= 10 * STARTS as u64), "{theirs:?}");
        for (mine, theirs) in [(&mine.0, &theirs.0), (&mine.1, &theirs.1)] {
            for (call, count) in theirs {
                let got = mine.get(call).copied().unwrap_or(0);
                assert!(got >= *count, "{call}: lockprof counts {got}, strace {count}");
            }
        }
        if mine == theirs {
            eprintln!("calls {:?}, errors {:?}", mine.0, mine.1);
            return;
        }
        seen.push(format!("lockprof {mine:?}, strace {theirs:?}"));
    }
    panic!("lockprof counted more than strace in every run:\n{}", seen.join("\n"));
}

/// Starts the containers under strace, and both under `lockprof stat`: what
/// lockprof counted, and what strace did.
fn run(folder: &Path) -> (Counts, Counts) {
    let log = folder.join("strace.log");
    let _ = fs::remove_file(&log);
    let script = format!(
        "for i in $(seq {STARTS}); do strace -f -qq -o {log} -A -e trace={calls} \
         runc --root {state} run --bundle {bundle} lockprof-test-$$-$i || exit 1; done",
        log = log.display(),
        calls = traced(),
        state = folder.join("state").display(),
        bundle = folder.display(),
    );
    let snapshot = stat(&["--", "sh", "-c", &script]);
    let (mut calls, mut errors) = (BTreeMap::new(), BTreeMap::new());
    for row in &snapshot.syscalls {
        *calls.entry(row.syscall.clone()).or_default() += row.calls.count;
        *errors.entry(row.syscall.clone()).or_default() += row.errors;
    }
    calls.retain(|_, n| *n != 0);
    errors.retain(|_, n| *n != 0);
    ((calls, errors), count(&fs::read_to_string(&log).expect("strace wrote its log")))
}

fn stat(arguments: &[&str]) -> Snapshot {
    let output = Command::new(LOCKPROF)
        .args(["stat", "--json"])
        .args(arguments)
        .output()
        .expect("stat can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("stat prints JSON")
}

/// Returns when nothing on this machine has made a mount call for half a
/// second, or after a minute of asking.
fn wait_for_quiet() {
    let deadline = Instant::now() + Duration::from_secs(60);
    while stat(&["--duration", "500ms"]).syscalls.iter().any(|row| row.calls.count != 0)
        && Instant::now() < deadline
    {}
}

/// The mount calls that this strace knows.
fn traced() -> String {
    // A leading `?` lets strace pass over calls that it does not know.
    MOUNT_SYSCALLS.iter().map(|call| format!("?{}", call.name)).collect::<Vec<_>>().join(",")
}

/// Calls and errors by name in a log of `strace -f`, by the rules of
/// `profiler_common::syscalls`.
fn count(trace: &str) -> Counts {
    let (mut calls, mut errors) = (BTreeMap::new(), BTreeMap::new());
    // Arguments of calls that were logged in two parts, by thread.
    let mut unfinished: BTreeMap<(String, String), String> = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(char::is_whitespace) else { continue };
        let rest = rest.trim_start();
        let (name, arguments, result) = if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((name, tail)) = resumed.split_once(" resumed>") else { continue };
            let key = (thread.to_owned(), name.to_owned());
            let start = unfinished.remove(&key).unwrap_or_default();
            let Some((arguments, result)) = tail.rsplit_once(" = ") else { continue };
            (name.to_owned(), start + arguments, result.to_owned())
        } else {
            let Some((name, tail)) = rest.split_once('(') else { continue };
            if let Some(start) = tail.strip_suffix(" <unfinished ...>") {
                unfinished.insert((thread.to_owned(), name.to_owned()), start.to_owned());
                continue;
            }
            let Some((arguments, result)) = tail.rsplit_once(" = ") else { continue };
            (name.to_owned(), arguments.to_owned(), result.to_owned())
        };
        let counts = match name.as_str() {
            "unshare" | "clone" | "clone3" | "setns" => arguments.contains("CLONE_NEWNS"),
            _ => true,
        };
        if counts {
            *calls.entry(name.clone()).or_insert(0) += 1;
            if result.trim_start().starts_with('-') {
                *errors.entry(name).or_insert(0) += 1;
            }
        }
    }
    (calls, errors)
}

fn bundle(folder: &Path) -> std::io::Result<()> {
    let root = folder.join("rootfs");
    for path in ["bin", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(path))?;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
    let busybox = busybox.ok_or_else(|| std::io::Error::other("no busybox"))?;
    fs::copy(busybox, root.join("bin/busybox"))?;
    let status = Command::new("runc").arg("spec").current_dir(folder).status()?;
    assert!(status.success(), "runc spec failed");
    let config = folder.join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&config)?)?;
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = serde_json::json!(["/bin/busybox", "true"]);
    fs::write(&config, serde_json::to_vec(&spec)?)
}

fn on_path(tool: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file()))
}

#[test]
fn a_trace_in_two_parts_counts_once() {
    let trace = "\
10 mount(\"proc\", \"/proc\", \"proc\", 0, NULL) = 0
11 unshare(CLONE_NEWNS|CLONE_NEWUTS <unfinished ...>
10 clone(child_stack=NULL, flags=CLONE_PARENT|SIGCHLD) = 12
11 <... unshare resumed>)          = 0
10 umount2(\"/x\", MNT_DETACH)        = -1 EINVAL (Invalid argument)
";
    let (calls, errors) = count(trace);
    let expected = [("mount", 1), ("umount2", 1), ("unshare", 1)];
    assert_eq!(calls, expected.map(|(k, v)| (k.to_owned(), v)).into());
    assert_eq!(errors, [("umount2".to_owned(), 1)].into());
}
