//! Tests in a process of their own: the engine is started while there is one
//! thread, and the harness has several.

use std::io::{Write, stderr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use rustix::process::{Pid, WaitOptions, waitpid};

/// Tells the test inside that it is.
const INSIDE: &str = "LOCKPROF_TEST_INSIDE";

/// Runs `body` in a forked process, which has one thread.
pub(crate) fn forked(body: impl FnOnce()) {
    // SAFETY: the child has a copy of the memory. No other thread of the harness
    // holds a lock that the body takes: they wait for tests to end, and glibc
    // makes the allocator usable after a fork.
    match unsafe { libc::fork() } {
        0 => {
            let end = catch_unwind(AssertUnwindSafe(body));
            if let Err(payload) = &end {
                let text = payload.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
                // The harness keeps what the panic itself writes to itself.
                let _ = writeln!(stderr(), "{}", text.unwrap_or("a panic without a text"));
            }
            // SAFETY: ends the process, whatever its state.
            unsafe { libc::_exit(if end.is_ok() { 0 } else { 101 }) }
        }
        pid => {
            let (_, status) = waitpid(Pid::from_raw(pid), WaitOptions::empty())
                .expect("there is a child")
                .expect("it has ended");
            assert_eq!(status.exit_status(), Some(0), "it says why above");
        }
    }
}

/// Runs `body` of the test `name` in a forked process, inside PID and mount
/// namespaces that have nobody else, with a /proc of their own.
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return forked(body);
    }
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc"])
        .arg(std::env::current_exe().expect("this program has a path"))
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare of util-linux runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && said.contains("1 passed");
    assert!(passed, "{said}{}", String::from_utf8_lossy(&output.stderr));
}
