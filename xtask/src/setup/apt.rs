//! Installing Debian packages as root.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Refreshes the package lists and installs `packages`. Removes nothing and
/// starts no service.
///
/// # Errors
/// With apt-get's output, when it fails.
pub(crate) fn install(packages: &[String]) -> Result<()> {
    println!("setup: apt-get install {}", packages.join(" "));
    // Fresh machines have no lists, and old lists name files that are gone. A
    // third party's list that cannot be had does not matter, if Debian's can.
    let update = shell::run_logged(apt_get().args(["update", "-qq"]), "apt-update")?;
    let quiet = NoServices::begin()?;
    let mut command = apt_get();
    // rustc-web conflicts with other compilers of the distribution: taking one
    // away is for the user to decide.
    command.args(["install", "-y", "-qq", "--no-install-recommends", "--no-remove"]).args(packages);
    let install = shell::run_logged(&mut command, "apt-install")?;
    drop(quiet);
    if install.status.success() {
        return Ok(());
    }
    if !update.status.success() {
        eprint!("{}", update.text);
    }
    eprint!("{}", install.text);
    bail!(
        "failed to install {} ({}); apt-get's output is above. If it is about the compiler, \
         `rustup toolchain install nightly --component rust-src` serves as well",
        packages.join(" "),
        install.status
    );
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    command
}

/// Keeps packages from starting their services, while it lives: the package
/// with promtool would start a Prometheus that listens on every address.
///
/// invoke-rc.d and deb-systemd-invoke ask `policy-rc.d`; 101 means no.
struct NoServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn begin() -> Result<Self> {
        if Path::new(POLICY).exists() {
            // A policy of the machine's own stays as it is.
            return Ok(Self { ours: false });
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(POLICY)
            .and_then(|mut file| file.write_all(b"#!/bin/sh\nexit 101\n"))
            .with_context(|| format!("failed to write {POLICY}"))?;
        Ok(Self { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!(
                "warning: failed to remove {POLICY}, which keeps services from starting: {error}"
            );
        }
    }
}
