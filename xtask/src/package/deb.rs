//! The Debian package, made by cargo-deb from `[package.metadata.deb]` in
//! profiler-daemon/Cargo.toml.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use bpf_toolchain::TOOLS;

use super::tree::put;
use super::{epoch, printed, remove, workshop};
use crate::shell;

/// The cargo-deb that is installed.
const CARGO_DEB: &str = "3.8.0";

/// Of a package that nobody has signed for.
const NOBODY: (&str, &str) = ("The lockprof authors", "lockprof@packages.invalid");

/// Debian's version of a version of lockprof: its first package.
pub(crate) fn version(lockprof: &str) -> String {
    format!("{lockprof}-1")
}

/// Makes the package of `binary` and of the tree as it was staged last, of a
/// version of Debian's form, and puts it into `out`.
///
/// # Errors
/// When cargo-deb cannot be installed, or fails; its output is shown then.
pub(crate) fn make(binary: &Path, version: &str, out: &Path) -> Result<PathBuf> {
    let cargo_deb = installed()?;
    let build = workshop();
    let place = build.join("release/lockprof");
    // Not linked: cargo-deb may strip it.
    let bytes = fs::read(binary).with_context(|| format!("failed to read {}", binary.display()))?;
    put(&place, &bytes)?;
    let epoch = epoch()?;
    let maintainer = maintainer();
    let changelog = changelog(version, &maintainer, &date(epoch)?);
    put(&build.join("changelog.Debian"), changelog.as_bytes())?;
    let mut command = Command::new(&cargo_deb);
    command
        .args(["--package", "profiler-daemon", "--no-build", "--strip", "--no-dbgsym", "--locked"])
        .args(["--fast", "--compress-type", "gz", "--compress-system"])
        .args(["--deb-version", version, "--maintainer", &maintainer, "--output"])
        .arg(build.join("plain"))
        .current_dir(shell::workspace())
        .env("CARGO_TARGET_DIR", &build)
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .env("PATH", shell::path());
    let logged = shell::run_logged(&mut command, "cargo-deb")?;
    if !logged.status.success() {
        eprint!("{}", logged.text);
        bail!("cargo-deb failed ({}); its output is above", logged.status);
    }
    let mut told = logged.text.lines().rev().map(|line| PathBuf::from(line.trim()));
    let plain = told
        .find(|path| path.extension().is_some_and(|end| end == "deb") && path.is_file())
        .with_context(|| format!("cargo-deb told of no package: {}", logged.text.trim()))?;
    with_sums(&plain, epoch, out)
}

/// Puts a package into `out` with the sums of its files, which `dpkg --verify`
/// compares and cargo-deb does not make.
fn with_sums(plain: &Path, epoch: u64, out: &Path) -> Result<PathBuf> {
    let folder = workshop().join("unpacked");
    remove(&folder)?;
    printed(Command::new("dpkg-deb").arg("--raw-extract").args([plain, &folder]))?;
    let sums = printed(
        Command::new("sh")
            .current_dir(&folder)
            .env("LC_ALL", "C")
            .args(["-euc", "find usr -type f -print0 | sort -z | xargs -0 md5sum"]),
    )?;
    put(&folder.join("DEBIAN/md5sums"), &sums)?;
    fs::create_dir_all(out).with_context(|| format!("failed to create {}", out.display()))?;
    let place = out.join(plain.file_name().context("a package has a name")?);
    printed(
        Command::new("dpkg-deb")
            .args(["-Zxz", "--root-owner-group", "--build"])
            .args([&folder, &place])
            .env("SOURCE_DATE_EPOCH", epoch.to_string()),
    )?;
    remove(&folder)?;
    Ok(place)
}

/// Who made the package: `DEBFULLNAME` and `DEBEMAIL`, as Debian's own tools have it.
fn maintainer() -> String {
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let name = variable("DEBFULLNAME").unwrap_or_else(|| NOBODY.0.into());
    let address = variable("DEBEMAIL").unwrap_or_else(|| NOBODY.1.into());
    format!("{name} <{address}>")
}

/// A time as deb-changelog(5) wants it.
fn date(epoch: u64) -> Result<String> {
    let text = printed(
        Command::new("date")
            .args(["--utc", "--rfc-email", "--date"])
            .arg(format!("@{epoch}"))
            .env("LC_ALL", "C"),
    )?;
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

/// What changed in the packaging: the package is made from each version anew.
fn changelog(version: &str, maintainer: &str, date: &str) -> String {
    format!(
        "lockprof ({version}) unstable; urgency=medium\n\n  * Packaged by its own build; changes \
         of lockprof are in changelog.gz.\n\n -- {maintainer}  {date}\n"
    )
}

/// cargo-deb in `target/tools`, built if it is not there.
fn installed() -> Result<PathBuf> {
    let root = shell::workspace().join(TOOLS);
    let program = root.join("bin/cargo-deb");
    let there = printed(Command::new(&program).arg("--version"));
    if there.is_ok_and(|said| String::from_utf8_lossy(&said).trim().ends_with(CARGO_DEB)) {
        return Ok(program);
    }
    let wanted = format!("cargo-deb@{CARGO_DEB}");
    println!("package: building {wanted} into {TOOLS} (a minute)");
    let mut command = shell::cargo();
    bpf_toolchain::environment::scrub(&mut command);
    // The compiler that the user chose, which scrubbing took away.
    for name in ["RUSTUP_TOOLCHAIN", "RUSTC"] {
        if let Some(value) = env::var_os(name) {
            command.env(name, value);
        }
    }
    // Without its own xz, which is C: the system's is as good.
    command.args(["install", &wanted, "--locked", "--force", "--no-default-features", "--root"]);
    let logged = shell::run_logged(command.arg(&root), "cargo-deb-install")?;
    if !logged.status.success() {
        eprint!("{}", logged.text);
        bail!("failed to build {wanted} ({}); cargo's output is above", logged.status);
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changelog_has_debians_form() {
        let date = date(1_700_000_000).unwrap();
        assert_eq!(date, "Tue, 14 Nov 2023 22:13:20 +0000");
        let text = changelog("0.1.0-1", "A B <a@b.c>", &date);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "lockprof (0.1.0-1) unstable; urgency=medium");
        assert!(lines[2].starts_with("  * "));
        assert_eq!(lines[4], " -- A B <a@b.c>  Tue, 14 Nov 2023 22:13:20 +0000");
    }
}
