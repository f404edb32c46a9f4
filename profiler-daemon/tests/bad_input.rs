//! Bad input and missing privileges: a clear message, the documented exit code,
//! and never a panic.

mod common;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::LOCKPROF;

fn lockprof(arguments: &[&str]) -> Output {
    Command::new(LOCKPROF).args(arguments).output().expect("lockprof can be run")
}

/// Checks the exit code and that standard error contains each of `texts`.
#[track_caller]
fn refuses(output: &Output, code: i32, texts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    for text in texts {
        assert!(said.contains(text), "no `{text}` in: {said}");
    }
}

fn config(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("it can be written");
    file
}

#[test]
fn an_unknown_lock_is_named_with_the_nearest_known_one() {
    let output = lockprof(&["stat", "--lock", "sb_lok", "--duration", "1s"]);
    refuses(&output, 2, &["sb_lok", "sb_lock"]);
}

#[test]
fn an_unknown_symbol_of_a_users_lock_is_reported_and_the_rest_measured() {
    needs_bpf!("an_unknown_symbol_of_a_users_lock_is_reported_and_the_rest_measured");
    let file =
        config("[[lock]]\nname = \"mine\"\nsymbol = \"no_such_symbol_here\"\nkind = \"mutex\"\n");
    let path = file.path().to_str().expect("a plain path");
    let output = lockprof(&["stat", "--config", path, "--duration", "100ms"]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains("\nmine is not watched\n"), "{shown}");
    assert!(shown.contains("no_such_symbol_here"), "{shown}");
    let output = lockprof(&["doctor", "--config", path]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("no_such_symbol_here"));
}

#[test]
fn a_bad_config_key_is_named_with_its_line_and_the_nearest_key() {
    let file = config("# a comment\nlisten = \"127.0.0.1:9999\"\nlisten_adress = \"x\"\n");
    let path = file.path().to_str().expect("a plain path");
    let output = lockprof(&["config", "check", path]);
    refuses(&output, 2, &[path, "3", "listen_adress", "listen"]);
}

#[test]
fn a_missing_config_file_is_named() {
    let output = lockprof(&["daemon", "--config", "/nonexistent/lockprof.toml"]);
    refuses(&output, 2, &["/nonexistent/lockprof.toml"]);
}

#[test]
fn a_command_that_does_not_exist_is_named() {
    needs_bpf!("a_command_that_does_not_exist_is_named");
    refuses(&lockprof(&["stat", "--", "/nonexistent/command"]), 1, &["/nonexistent/command"]);
}

#[test]
fn stat_exits_with_the_status_of_the_command() {
    needs_bpf!("stat_exits_with_the_status_of_the_command");
    let output = lockprof(&["stat", "--json", "--", "sh", "-c", "echo not json; exit 7"]);
    assert_eq!(output.status.code(), Some(7));
    let snapshot: lockprof::snapshot::Snapshot =
        serde_json::from_slice(&output.stdout).expect("standard output is the JSON alone");
    assert!(snapshot.duration_ns > 0);
}

#[test]
fn a_command_cleans_up_when_stat_is_asked_to_end() {
    needs_bpf!("a_command_cleans_up_when_stat_is_asked_to_end");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (ready, cleaned) = (folder.path().join("ready"), folder.path().join("cleaned"));
    let script = format!(
        "trap 'touch {}; exit 5' TERM; touch {}; while :; do sleep 0.1; done",
        cleaned.display(),
        ready.display()
    );
    let mut stat = Command::new(LOCKPROF)
        .args(["stat", "--", "sh", "-c", &script])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("stat can be run");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ready.exists() {
        assert!(Instant::now() < deadline, "the command did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = libc::pid_t::try_from(stat.id()).expect("a pid");
    // SAFETY: signals our own child, which is not yet awaited.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
    assert_eq!(stat.wait().expect("it ends").code(), Some(5));
    assert!(cleaned.exists());
}

#[test]
fn without_privileges_the_missing_ones_are_named() {
    needs_bpf!("without_privileges_the_missing_ones_are_named");
    // A path that nobody may not pass is no use here, so the binary is copied
    // to one that everybody can.
    let folder = tempfile::Builder::new()
        .prefix("lockprof")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .expect("a temporary folder");
    let binary = folder.path().join("lockprof");
    std::fs::copy(LOCKPROF, &binary).expect("it can be copied");
    let mut command = Command::new(&binary);
    command.args(["stat", "--duration", "1s"]);
    let output = command.uid(65_534).gid(65_534).output().expect("it can be run");
    refuses(&output, 3, &["CAP_"]);
}

#[test]
fn without_tracefs_lock_waits_are_still_measured() {
    needs_bpf!("without_tracefs_lock_waits_are_still_measured");
    // An empty folder over tracefs, in a mount namespace of its own, and no
    // right to mount another one.
    let script = format!(
        "mount --make-rprivate / && mount -t tmpfs -o mode=000 none /sys/kernel/tracing && \
         mkdir -p /sys/kernel/tracing/events && chmod 000 /sys/kernel/tracing && \
         exec setpriv --bounding-set -sys_admin,-dac_override,-dac_read_search \
         --inh-caps -sys_admin,-dac_override,-dac_read_search {LOCKPROF} doctor --json \
         --backend calls=tracepoint"
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .output()
        .expect("unshare is part of util-linux");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let hook = |name: &str| {
        report["hooks"]
            .as_array()
            .and_then(|hooks| hooks.iter().find(|h| h["hook"] == name))
            .unwrap_or_else(|| panic!("no hook {name} in {report}"))
            .clone()
    };
    assert_ne!(hook("contention_begin")["backend"], "none", "{report}");
    let mount = hook("sys_mount");
    assert_eq!(mount["backend"], "none", "{mount}");
    assert!(mount["refused"][0]["reason"].to_string().contains("tracefs"), "{mount}");
}

#[test]
fn without_btf_the_raw_tracepoints_take_over() {
    needs_bpf!("without_btf_the_raw_tracepoints_take_over");
    let script = format!(
        "mount --make-rprivate / && mount -t tmpfs none /sys/kernel/btf && exec {LOCKPROF} doctor --json"
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .output()
        .expect("unshare is part of util-linux");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["btf"], false);
    for hook in report["hooks"].as_array().expect("hooks").iter().take(2) {
        assert_eq!(hook["backend"], "raw_tp", "{hook}");
        assert!(hook["refused"][0]["reason"].to_string().contains("btf"), "{hook}");
    }
}
