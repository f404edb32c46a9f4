//! Later versions of a package, to upgrade to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::package::tree::CONFIG;

/// A package with another version, and a line more in the default configuration
/// if one is given; all else is as in `deb`, sums of conffiles
/// among them, which dpkg makes itself.
///
/// # Errors
/// When dpkg-deb fails.
pub(super) fn later(deb: &Path, version: &str, line: Option<&str>, out: &Path) -> Result<PathBuf> {
    let folder = out.join(version);
    dpkg_deb(Command::new("dpkg-deb").arg("--raw-extract").args([deb, &folder]))?;
    change(&folder.join("DEBIAN/control"), |text| {
        let lines = text.lines().map(|line| match line.strip_prefix("Version: ") {
            Some(_) => format!("Version: {version}\n"),
            None => format!("{line}\n"),
        });
        lines.collect()
    })?;
    if let Some(line) = line {
        change(&folder.join(CONFIG), |text| format!("{text}{line}\n"))?;
    }
    let place = out.join(format!("lockprof_{version}.deb"));
    dpkg_deb(
        Command::new("dpkg-deb")
            .args(["-Znone", "--root-owner-group", "--build"])
            .args([&folder, &place]),
    )?;
    fs::remove_dir_all(&folder)
        .with_context(|| format!("failed to remove {}", folder.display()))?;
    Ok(place)
}

fn change(file: &Path, change: impl FnOnce(&str) -> String) -> Result<()> {
    let text =
        fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
    fs::write(file, change(&text)).with_context(|| format!("failed to write {}", file.display()))
}

fn dpkg_deb(command: &mut Command) -> Result<()> {
    let output = command.output().context("failed to start dpkg-deb")?;
    if !output.status.success() {
        bail!(
            "dpkg-deb failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
