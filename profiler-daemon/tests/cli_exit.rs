//! Exit codes and messages for wrong arguments and configurations.

use std::fs;
use std::process::{Command, Output};

fn lockprof(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lockprof")).args(args).output().expect("lockprof runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn wrong_arguments_exit_with_2() {
    for args in [
        &["frobnicate"][..],
        &["storm", "--concurrency", "0"],
        &["storm", "--duration", "10"],
        &["stat", "--duration", "1s", "--", "true"],
        &["daemon", "--listen", "localhost"],
        &["doctor", "--backend", "waits=tracepoint"],
        &["stat", "--backend", "fentry", "--backend", "calls=kprobe"],
        &[],
    ] {
        let output = lockprof(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn version_exits_with_0() {
    let output = lockprof(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let version = concat!("lockprof ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), version);
}

#[test]
fn the_printed_default_configuration_passes_the_check() {
    let default = lockprof(&["config", "default"]);
    assert_eq!(default.status.code(), Some(0));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lockprof.toml");
    fs::write(&file, default.stdout).unwrap();
    let file = file.to_str().unwrap();
    let check = lockprof(&["config", "check", file]);
    assert_eq!(check.status.code(), Some(0), "{check:?}");
    assert_eq!(String::from_utf8_lossy(&check.stdout), format!("{file}: ok\n"));
}

#[test]
fn a_bad_configuration_exits_with_2_and_names_every_error_by_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lockprof.toml");
    fs::write(&file, "listn = 1\n[limits]\ntasks_in_flight = true\n").unwrap();
    let file = file.to_str().unwrap();
    let check = lockprof(&["config", "check", file]);
    assert_eq!(check.status.code(), Some(2), "{check:?}");
    let text = stderr(&check);
    assert!(text.contains(&format!("{file}:1: unknown key `listn`; did you mean `listen`?")));
    assert!(text.contains(&format!("{file}:3: `limits.tasks_in_flight`: expected an integer")));
}

#[test]
fn a_configuration_that_is_not_there_exits_with_2() {
    let check = lockprof(&["config", "check", "/no/such/file.toml"]);
    assert_eq!(check.status.code(), Some(2), "{check:?}");
    assert!(stderr(&check).contains("/no/such/file.toml: failed to read the configuration"));
}

#[test]
fn man_and_completions_print_and_exit_with_0() {
    for args in [&["man"][..], &["completions", "bash"]] {
        let output = lockprof(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stdout.len() > 1000, "{args:?}");
    }
}
