//! The commands of README.md, run as they are written there.
//!
//! Above each block of commands a comment says where it is run:
//! `<!-- run: here -->` on this machine, after a build; `<!-- run: service -->`
//! in a virtual machine where systemd is the first process; `<!-- run: ci -->`
//! for what CI itself runs. A block that says nothing is an error, so that no
//! command escapes.

mod blocks;
pub(crate) mod guest;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::count::Counts;
use crate::{build, shell};
use blocks::{Place, Written};

/// The page.
pub(super) const PAGE: &str = "README.md";

/// What CI runs.
const CI: &str = ".ci/run";

/// What `sudo` is where the commands are run: by root already.
const SUDO: &str = "sudo() { \"$@\"; }\n";

/// The commands that are run at `place`, in the order of the page.
///
/// # Errors
/// When the page cannot be read, or a block does not say where it is run.
fn commands(place: Place) -> Result<Vec<Written>> {
    let path = shell::workspace().join(PAGE);
    let text =
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let all = blocks::parse(&text).with_context(|| format!("failed to take {PAGE} apart"))?;
    Ok(all.into_iter().filter(|command| command.place == place).collect())
}

/// A command as a script for bash. `top` is quit by its key, in a terminal of its
/// own.
fn script(command: &Written) -> String {
    let text = &command.text;
    let live =
        text.trim_start_matches("sudo ").starts_with("lockprof top") && !text.contains("--once");
    if live {
        let quoted = text.trim_start_matches("sudo ").replace('\'', "'\\''");
        return format!(
            "set -euo pipefail\n(sleep 5; printf q) | \
             TERM=xterm-256color script -qec 'stty rows 40 cols 120; {quoted}' /dev/null\n"
        );
    }
    format!("set -euo pipefail\n{SUDO}{text}\n")
}

/// Runs what is for this machine and checks what is for CI; one count for each
/// command.
///
/// # Errors
/// When the page cannot be taken apart or bash cannot be started.
pub(super) fn run() -> Result<Counts> {
    let mut total = Counts::default();
    for command in commands(Place::Ci)? {
        total.add(of_ci(&command)?);
    }
    let lockprof = build::release()?;
    let folder = lockprof.parent().context("the binary is in no folder")?.to_owned();
    let path = env::join_paths([folder].into_iter().chain(env::split_paths(&shell::path())))
        .context("failed to put the binary's folder on PATH")?;
    let scratch = scratch()?;
    for (index, command) in commands(Place::Here)?.iter().enumerate() {
        let mut bash = Command::new("bash");
        bash.arg("-c").arg(script(command)).current_dir(&scratch).env("PATH", &path);
        let logged = shell::run_logged(&mut bash, &format!("readme-{index}"))?;
        let what = format!("{PAGE}:{}: {}", command.line, command.text);
        if logged.status.success() {
            total.add(Counts::of_check(true));
        } else {
            println!("{what}\n{}   {}", logged.text, logged.status);
            total.add(Counts::of_failure(what));
        }
    }
    Ok(total)
}

/// CI has to run the very command.
fn of_ci(command: &Written) -> Result<Counts> {
    let text = fs::read_to_string(shell::workspace().join(CI))
        .with_context(|| format!("failed to read {CI}"))?;
    if text.lines().any(|line| line.trim() == command.text) {
        return Ok(Counts::of_check(true));
    }
    Ok(Counts::of_failure(format!(
        "{PAGE}:{}: {} is said to be run by CI, and {CI} does not have it",
        command.line, command.text
    )))
}

/// An empty folder inside the workspace, so that `cargo` finds that from there
/// and files that commands write are nowhere else.
fn scratch() -> Result<PathBuf> {
    let folder = shell::scratch().join("readme");
    if folder.is_dir() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("failed to remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_says_where_each_of_its_commands_is_run() {
        for place in [Place::Here, Place::Service, Place::Ci] {
            assert!(!commands(place).unwrap().is_empty(), "{place:?}");
        }
        for command in commands(Place::Ci).unwrap() {
            assert_eq!(of_ci(&command).unwrap().failed, 0);
        }
    }

    #[test]
    fn the_live_view_is_quit_by_its_key_and_nothing_else_is_changed() {
        let of =
            |text: &str| script(&Written { line: 1, place: Place::Here, text: text.to_owned() });
        let top = of("sudo lockprof top");
        assert!(top.contains("printf q") && top.contains("cols 120; lockprof top'"), "{top}");
        assert!(of("lockprof top --once").ends_with("\nlockprof top --once\n"));
        assert!(of("a | b").starts_with("set -euo pipefail\nsudo() "));
    }
}
