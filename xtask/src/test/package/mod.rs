//! The package as a user meets it: checked by lintian, installed, upgraded, removed
//! and purged in a throw-away Debian; and the tarball, on nothing at all.
//!
//! The binaries are those of the profile `tests`: what is tried here is the
//! packaging. Whether the service runs is tried in a virtual machine.

mod cases;
mod jail;
mod notices;
mod versions;

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::count::Counts;
use crate::package::{self, VERSION, deb, tarball, tree};
use crate::{build, debian_root, shell};
use jail::Jail;

/// What is tried.
struct Made {
    /// Where they are.
    folder: PathBuf,
    /// Below it, what cases make and nobody needs afterwards.
    scratch: PathBuf,
    deb: PathBuf,
    tarball: PathBuf,
}

/// Makes the packages and runs the cases; one count for each.
///
/// # Errors
/// When there is no room for it. What goes wrong with a package is in the counts.
pub(super) fn run() -> Result<Counts> {
    if let Some(reason) = debian_root::refused()? {
        println!("   skipped: {reason}");
        return Ok(Counts::of_skip(format!("package: {reason}")));
    }
    let made = match make() {
        Ok(made) => made,
        Err(error) => return Ok(failure("is made", &error)),
    };
    let jail = debian_root::root(debian_root::USUAL)
        .and_then(|root| Jail::open(&root, &made.folder.join("root"), &made.folder));
    let jail = match jail {
        Ok(jail) => jail,
        Err(error) => return Ok(failure("has a Debian to be installed in", &error)),
    };
    let mut counts = Counts::default();
    for (name, case) in cases::ALL {
        counts.add(match case(&made, &jail) {
            Ok(()) => Counts::of_check(true),
            Err(error) => failure(name, &error),
        });
    }
    fs::remove_dir_all(&made.scratch)
        .with_context(|| format!("failed to remove {}", made.scratch.display()))?;
    Ok(counts)
}

fn failure(name: &str, error: &anyhow::Error) -> Counts {
    println!("   package {name}: {error:#}");
    Counts::of_failure(format!("package {name}"))
}

/// The package of the binary that the integration tests run, in
/// `target/xtask/package`.
///
/// # Errors
/// When a binary does not build, or cargo-deb fails.
pub(super) fn debian() -> Result<PathBuf> {
    let binary = build::of_profile("tests")?;
    tree::stage(&binary)?;
    deb::make(&binary, &deb::version(VERSION), &folder())
}

fn folder() -> PathBuf {
    shell::scratch().join("package")
}

fn make() -> Result<Made> {
    let folder = folder();
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("failed to remove {}", folder.display()));
        }
        _ => {}
    }
    // First: cargo leaves both in the same place.
    let portable = tarball::build("tests")?;
    let deb = debian()?;
    let tarball = tarball::make(&package::staged(), &portable, &folder)?;
    let scratch = folder.join("scratch");
    fs::create_dir_all(&scratch)
        .with_context(|| format!("failed to create {}", scratch.display()))?;
    Ok(Made { folder, scratch, deb, tarball })
}

/// Runs a command of this machine, and returns what it printed.
fn here(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", shell::path())
        .output()
        .with_context(|| format!("failed to start {program}"))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(output.status.success(), "{program} failed ({}):\n{text}", output.status);
    Ok(text)
}
