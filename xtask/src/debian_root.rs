//! Small Debian systems in a folder, to install lockprof's package in: of the suite
//! that this machine uses itself, so that what is built here runs there.
//!
//! They are made by mmdebstrap from the mirror of the machine's own sources, once
//! for each choice of packages, and kept in lockprof's cache. Whoever changes one
//! does so in a copy, or in an overlay over it.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::setup::distro::{self, Family};
use crate::shell;
use crate::vm::kernels::apt::{self, Mirror};

/// What a machine has that lockprof's package is tried on: systemd as its first
/// process, readers for the man pages and the completions, and a Prometheus.
pub(crate) const USUAL: &[&str] = &[
    "bash-completion",
    "curl",
    "dbus",
    "groff-base",
    "man-db",
    "procps",
    "prometheus",
    "systemd-sysv",
];

/// Debian's answer to man-db's question: nobody searches the pages, and the index
/// takes longer than all else.
const NO_INDEX: &str =
    "echo man-db man-db/auto-update boolean false | chroot \"$1\" debconf-set-selections";

/// Why this machine cannot make a root, if it cannot: the reason of a skip.
///
/// # Errors
/// When the distribution is not known.
pub(crate) fn refused() -> Result<Option<String>> {
    let family = distro::this()?;
    if family != Family::Debian {
        return Ok(Some("a Debian root is made on Debian and its kin only".into()));
    }
    if !rustix::process::geteuid().is_root() {
        return Ok(Some("a Debian root is made by root only".into()));
    }
    Ok(apt::mirror().err().map(|error| format!("{error:#}")))
}

/// The folder of a Debian root with these packages and all that they depend on,
/// made if it is not cached. It is shared: nobody writes to it.
///
/// # Errors
/// When this machine cannot make one, or a package cannot be had.
pub(crate) fn root(packages: &[&str]) -> Result<PathBuf> {
    if let Some(reason) = refused()? {
        bail!("{reason}");
    }
    let mirror = apt::mirror()?;
    let cache = shell::cache().join("debian");
    fs::create_dir_all(&cache).with_context(|| format!("failed to create {}", cache.display()))?;
    let name = name(&mirror.suite, packages);
    let folder = cache.join(&name);
    // Two runs must not make the same one.
    let lock = cache.join(format!("{name}.lock"));
    let lock =
        File::create(&lock).with_context(|| format!("failed to create {}", lock.display()))?;
    lock.lock().context("failed to lock the cache of Debian roots")?;
    if folder.is_dir() {
        return Ok(folder);
    }
    let beside = cache.join(format!("{name}.new"));
    remove(&beside)?;
    println!("debian: making a root of {} with {}", mirror.suite, packages.join(", "));
    let logged = shell::run_logged(&mut bootstrap(&mirror, packages, &beside), "debian-root")?;
    if !logged.status.success() {
        eprint!("{}", logged.text);
        bail!(
            "failed to make a root of {} ({}); mmdebstrap's output is above",
            mirror.suite,
            logged.status
        );
    }
    fs::rename(&beside, &folder)
        .with_context(|| format!("failed to put {} in place", folder.display()))?;
    Ok(folder)
}

fn bootstrap(mirror: &Mirror, packages: &[&str], folder: &Path) -> Command {
    // In a mount namespace of its own: whatever ends mmdebstrap, nothing stays
    // mounted in the folder.
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "--", "mmdebstrap", "--mode=root"])
        // Essential packages and apt. No service starts: nothing runs in there.
        .args(["--variant=apt", "--quiet"])
        // As in a container: who can lose power starts again from nothing.
        .arg("--dpkgopt=force-unsafe-io")
        .arg("--aptopt=APT::Sandbox::User \"root\"")
        .arg("--aptopt=Acquire::Retries \"2\"")
        .arg(format!("--essential-hook={NO_INDEX}"))
        .arg(format!("--include={}", packages.join(",")))
        .arg(&mirror.suite)
        .arg(folder)
        .arg(mirror.source(&mirror.suite, ""))
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", shell::path());
    command
}

/// By what is in it, so that another choice of packages is another root.
fn name(suite: &str, packages: &[&str]) -> String {
    let mut packages = packages.to_vec();
    packages.sort_unstable();
    packages.dedup();
    std::iter::once(suite).chain(packages).collect::<Vec<_>>().join("+")
}

/// Removes what a run left that was cut off.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_packages_in_another_order_are_the_same_root() {
        assert_eq!(name("bookworm", &["man-db", "dbus"]), "bookworm+dbus+man-db");
        assert_eq!(name("bookworm", &["dbus", "man-db"]), "bookworm+dbus+man-db");
        assert_ne!(name("trixie", &["dbus"]), name("bookworm", &["dbus"]));
    }
}
