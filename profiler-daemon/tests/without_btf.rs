//! A kernel that does not tell its types: lock waits are measured all the same,
//! and what is lost has a name.
//!
//! BTF is hidden by an empty tmpfs over its folder, in a mount namespace of the
//! child alone.

mod common;

use std::ffi::CStr;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use common::LOCKPROF;
use lockprof::snapshot::Snapshot;
use serde_json::Value;

const BTF: &CStr = c"/sys/kernel/btf";
/// What needs the fields of structures, as `doctor` and `stat` say it.
const LOST: &str = "setns(fd, 0) into another mount namespace is not counted as a mount call";

/// `lockprof ARGS` where there is no BTF.
fn without_btf(args: &[&str]) -> Command {
    let mut command = Command::new(LOCKPROF);
    command.args(args);
    if Path::new(BTF.to_str().expect("ASCII")).exists() {
        // SAFETY: system calls with constants alone, which a forked child may
        // make.
        unsafe { command.pre_exec(hide_btf) };
    }
    command
}

fn hide_btf() -> io::Result<()> {
    let done = |result: libc::c_int| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    let none: *const libc::c_void = std::ptr::null();
    // SAFETY: takes no pointers.
    done(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: C strings that outlive the calls, and no data.
    done(unsafe { libc::mount(none.cast(), c"/".as_ptr(), none.cast(), private, none) })?;
    let tmpfs = c"tmpfs".as_ptr();
    // SAFETY: as above.
    done(unsafe { libc::mount(tmpfs, BTF.as_ptr(), tmpfs, libc::MS_RDONLY, none) })
}

/// Whether a child can be given a mount namespace; if not, `test` is skipped.
fn permitted(test: &str) -> bool {
    let own = rustix::thread::capabilities(None).expect("capget works").effective;
    let permitted = own.contains(rustix::thread::CapabilitySet::SYS_ADMIN);
    if !permitted {
        common::skip(test, "hiding BTF needs CAP_SYS_ADMIN");
    }
    permitted
}

fn run(mut command: Command) -> Output {
    let output = command.output().expect("lockprof runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    output
}

/// How lock waits are observed according to a list of hooks.
fn wait_backends<'a>(hooks: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<&'a str> {
    hooks.filter(|(hook, _)| hook.starts_with("contention_")).map(|(_, backend)| backend).collect()
}

#[test]
fn doctor_names_what_is_lost_without_btf() {
    let test = "doctor_names_what_is_lost_without_btf";
    needs_bpf!("doctor_names_what_is_lost_without_btf");
    if !permitted(test) {
        return;
    }
    let report: Value =
        serde_json::from_slice(&run(without_btf(&["doctor", "--json"])).stdout).expect("JSON");
    assert_eq!(report["btf"], false);
    let fields = report["fields"].as_array().expect("a list");
    assert!(!fields.is_empty());
    for field in fields {
        assert!(field["offset"].is_null(), "{field}");
        assert!(field["unknown"].as_str().expect("a reason").contains("CONFIG_DEBUG_INFO_BTF"));
    }
    let limits = report["limits"].as_array().expect("a list");
    assert!(limits.iter().any(|limit| limit["what"] == LOST), "{limits:?}");
    // A watched lock that only types would find is named, any other is found,
    // if the kernel has it.
    let locks = report["locks"].as_array().expect("a list").iter();
    for lock in locks.filter(|lock| lock["watched"] == true && lock["absent"] == false) {
        let named = |limit: &Value| {
            let name = lock["lock"].as_str().expect("a name");
            limit["what"].as_str().is_some_and(|what| what.starts_with(name))
        };
        assert_ne!(lock["method"].is_null(), limits.iter().all(|l| !named(l)), "{lock}");
    }
    let hooks = report["hooks"].as_array().expect("a list");
    for hook in hooks {
        assert!(!["tp_btf", "fentry"].contains(&hook["backend"].as_str().expect("one")), "{hook}");
    }
    // Its own fields are told to the same kernel with BTF.
    let with: Value = serde_json::from_slice(
        &run({
            let mut command = Command::new(LOCKPROF);
            command.args(["doctor", "--json"]);
            command
        })
        .stdout,
    )
    .expect("JSON");
    let has_btf = Path::new("/sys/kernel/btf/vmlinux").exists();
    assert_eq!(with["btf"], has_btf);
    assert_eq!(with["fields"][0]["offset"].is_null(), !has_btf);

    let text = String::from_utf8(run(without_btf(&["doctor"])).stdout).expect("UTF-8");
    assert!(text.contains("BTF absent") && text.contains(LOST), "{text}");
}

#[test]
fn lock_waits_are_measured_without_btf() {
    let test = "lock_waits_are_measured_without_btf";
    needs_bpf!("lock_waits_are_measured_without_btf");
    if !permitted(test) {
        return;
    }
    let storm = [LOCKPROF, "storm", "--no-measure", "--concurrency", "8", "--duration", "3s"];
    let output = run(without_btf(&[&["stat", "--json", "--"][..], &storm].concat()));
    let snapshot: Snapshot = serde_json::from_slice(&output.stdout).expect("JSON");
    let waits = |lock: &str| -> u64 {
        snapshot.locks.iter().filter(|row| row.lock == lock).map(|row| row.waits.count).sum()
    };
    assert!(waits("namespace_sem") > 0, "{:?}", snapshot.locks);
    // Inside an object whose layout only types tell.
    assert!(waits("rcu_exp_mutex") > 0, "{:?}", snapshot.locks);
    let hooks = snapshot.hooks.iter().map(|hook| (hook.hook.as_str(), hook.backend.as_str()));
    let backends = wait_backends(hooks);
    if backends.is_empty() {
        common::skip(
            "lock_waits_are_measured_without_btf (raw_tp)",
            "this kernel has no contention tracepoints (Linux 5.19)",
        );
    }
    assert!(backends.iter().all(|backend| *backend == "raw_tp"), "{backends:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(LOST) && said.contains("CONFIG_DEBUG_INFO_BTF"), "{said}");

    let table = run(without_btf(&[&["stat", "--"][..], &storm].concat())).stdout;
    let table = String::from_utf8_lossy(&table).into_owned();
    assert!(table.contains(LOST) && table.contains("CONFIG_DEBUG_INFO_BTF"), "{table}");
}
