//! `cargo xtask bench`: what lockprof costs, as ratios, into `docs/benchmarks.md`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::{setup, shell};

/// Runs the benchmark on this machine; it takes about seven minutes.
pub(crate) fn run() -> Result<ExitCode> {
    setup::require_toolchain()?;
    let status = shell::cargo()
        .args(["bench", "--locked", "--package", "profiler-daemon", "--bench", "overhead"])
        .status()
        .context("failed to start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
