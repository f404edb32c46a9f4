//! What `--help` prints, command by command.

use std::process::{Command, Stdio};

/// Standard output of `lockprof ARGS --help`, 100 columns wide.
fn help(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_lockprof"))
        .args(args)
        .arg("--help")
        .env("COLUMNS", "100")
        .stdin(Stdio::null())
        .output()
        .expect("lockprof runs");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stderr, b"");
    String::from_utf8(output.stdout).expect("help is UTF-8")
}

macro_rules! golden {
    ($($name:ident: $args:expr;)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(help(&$args));
        }
    )*};
}

golden! {
    lockprof: [];
    daemon: ["daemon"];
    top: ["top"];
    stat: ["stat"];
    doctor: ["doctor"];
    config: ["config"];
    config_check: ["config", "check"];
    config_default: ["config", "default"];
    storm: ["storm"];
    completions: ["completions"];
    man: ["man"];
}

#[test]
fn every_command_has_a_golden_help() {
    let listed: Vec<String> = help(&[])
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    let golden =
        ["daemon", "top", "stat", "doctor", "config", "storm", "completions", "man", "help"];
    assert_eq!(listed, golden);
}
