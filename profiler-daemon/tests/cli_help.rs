//! What `--help` prints, command by command, and whether the documentation writes
//! commands that there are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Parser as _;
use clap::error::ErrorKind;
use lockprof::cli::args::Cli;

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

/// The README and the pages that users read.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![root.join("README.md"), root.join("dashboards/README.md")];
    let docs = fs::read_dir(root.join("docs")).expect("there is a folder docs");
    pages.extend(docs.map(|entry| entry.expect("it can be listed").path()));
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages
}

/// Commands in a page: lines that begin with `lockprof`, behind a prompt or not,
/// inside blocks, and spans of code in the text. Those with a placeholder in
/// capitals are left out.
fn commands(page: &str) -> Vec<String> {
    let (mut commands, mut in_block) = (Vec::new(), false);
    for line in page.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            commands.push(line.trim_start_matches(['$', '#', ' ']));
        } else {
            commands.extend(line.split('`').skip(1).step_by(2));
        }
    }
    commands
        .into_iter()
        .map(|command| command.strip_prefix("sudo ").unwrap_or(command))
        .filter(|command| command.starts_with("lockprof "))
        // A remark, or what happens to the output.
        .map(|command| {
            [" # ", " |", " >", ";"]
                .iter()
                .fold(command, |rest, end| rest.split(end).next().unwrap_or(rest))
        })
        .map(|command| command.trim().to_owned())
        .filter(|command| !command.split(|c: char| !c.is_alphabetic()).any(is_placeholder))
        .collect()
}

fn is_placeholder(word: &str) -> bool {
    word.len() > 1 && word.chars().all(char::is_uppercase)
}

#[test]
fn every_command_in_the_documentation_is_understood() {
    let mut tried = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).expect("it can be read");
        for command in commands(&text) {
            // What `stat` measures may be lockprof itself.
            for part in command.split(" -- ").filter(|part| part.starts_with("lockprof")) {
                let parsed = Cli::try_parse_from(part.split_whitespace());
                let shown = parsed.err().filter(|e| e.kind() != ErrorKind::DisplayHelp);
                let shown = shown.map(|error| error.to_string());
                assert!(shown.is_none(), "{}: `{command}`: {shown:?}", page.display());
                tried += 1;
            }
        }
    }
    assert!(tried > 30, "only {tried} commands were found");
}
