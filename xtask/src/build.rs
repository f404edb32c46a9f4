//! `cargo xtask build`: the one binary, for release.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::{setup, shell};

/// Builds and says where the binary is and how large.
pub(crate) fn run() -> Result<ExitCode> {
    setup::require_toolchain()?;
    let binary = release()?;
    let size = fs::metadata(&binary)
        .with_context(|| format!("failed to read {}", binary.display()))?
        .len();
    // One decimal is all that anyone reads.
    println!("{}: {}.{} MB", binary.display(), size / 1_000_000, size % 1_000_000 / 100_000);
    Ok(ExitCode::SUCCESS)
}

/// Builds `lockprof` for release, cargo's output shown, and returns its path.
pub(crate) fn release() -> Result<PathBuf> {
    of_profile("release")
}

/// Builds `lockprof` with a profile of cargo, its output shown, and returns the
/// path of the binary.
pub(crate) fn of_profile(profile: &str) -> Result<PathBuf> {
    let status = shell::cargo()
        .args(["build", "--profile", profile, "--locked", "--package", "profiler-daemon"])
        .args(["--bin", "lockprof"])
        .status()
        .context("failed to start cargo")?;
    if !status.success() {
        bail!("failed to build lockprof ({status}); the compiler's output is above");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| shell::workspace().join("target"), PathBuf::from);
    let binary = shell::workspace().join(target).join(profile).join("lockprof");
    if !binary.is_file() {
        bail!(
            "cargo built lockprof, but {} is not there; is another target folder or target triple configured?",
            binary.display()
        );
    }
    Ok(binary)
}
