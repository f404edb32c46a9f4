//! A throw-away Debian to install packages in: a copy of a cached root, in which
//! each script has mounts, processes and a network of its own.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Where the packages are inside.
pub(super) const PACKAGES: &str = "/mnt";

/// Makes what a package's scripts look for, and goes inside. `$1` is the root, `$2`
/// the folder with packages, `$3` the script.
const ENTER: &str = "\
mount -t proc proc \"$1/proc\"
mount --bind \"$2\" \"$1/mnt\"
exec chroot \"$1\" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive bash -euo pipefail -c \"$3\"
";

/// The system.
pub(super) struct Jail {
    root: PathBuf,
    packages: PathBuf,
}

impl Jail {
    /// A copy of `root` in `folder`, which sees the files of `packages`.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub(super) fn open(root: &Path, folder: &Path, packages: &Path) -> Result<Self> {
        remove(folder)?;
        let said = Command::new("cp")
            .args(["--archive", "--reflink=auto"])
            .args([root, folder])
            .output()
            .context("failed to start cp")?;
        if !said.status.success() {
            bail!(
                "failed to copy {} ({}): {}",
                root.display(),
                said.status,
                String::from_utf8_lossy(&said.stderr).trim()
            );
        }
        Ok(Self { root: folder.to_owned(), packages: packages.to_owned() })
    }

    /// Runs a script of bash inside, and returns what it printed on both streams.
    ///
    /// # Errors
    /// With what it printed, when it fails.
    pub(super) fn run(&self, script: &str) -> Result<String> {
        let output = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"])
            .args(["--net", "--ipc", "--uts", "--", "sh", "-euc", ENTER, "sh"])
            .args([&self.root, &self.packages])
            .arg(format!("exec 2>&1\n{script}"))
            .env("PATH", shell::path())
            .stdin(Stdio::null())
            .output()
            .context("failed to start unshare")?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        bail!("{} by `{}`:\n{}", output.status, script.trim(), text.trim());
    }

    /// Every file but those of the kernel and in folders for what is temporary,
    /// with its type, sorted.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub(super) fn files(&self) -> Result<Vec<String>> {
        let listed = self.run(
            "find / -xdev \\( -path /proc -o -path /mnt -o -path /tmp -o -path /run \\) -prune \
             -o -printf '%y %p\\n' | LC_ALL=C sort",
        )?;
        Ok(listed.lines().map(str::to_owned).collect())
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.root) {
            eprintln!("warning: {error:#}");
        }
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
