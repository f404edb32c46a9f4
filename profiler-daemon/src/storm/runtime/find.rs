//! The runtime on PATH.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

use super::words;
use crate::snapshot::Name;
use crate::storm::strategy::{Idmap, Runtime};

/// A runtime as it is installed here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Driver {
    /// Which.
    pub runtime: Runtime,
    /// The file that is run.
    pub path: PathBuf,
    /// What it calls its version, for example `1.1.5`.
    pub version: Name,
}

/// Why a real runtime cannot be used.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum RuntimeError {
    /// It is not there.
    #[error(
        "{0} is not on PATH: install the package {0} (Debian, Fedora, Arch and Alpine call it so), \
         or add the folder that has it to PATH, which sudo resets"
    )]
    Missing(Runtime),
    /// It is there and does not run.
    #[error("{path} --version failed: {why}: install the package {runtime} anew", path = .path.display())]
    Broken {
        /// Which.
        runtime: Runtime,
        /// The file.
        path: PathBuf,
        /// What came of it.
        why: String,
    },
    /// It cannot map the layers of a root.
    #[error(
        "--runtime {runtime} and --idmap {idmap} exclude each other: a real runtime is handed a \
         root that is mounted already; use --runtime builtin"
    )]
    Idmap {
        /// Which runtime.
        runtime: Runtime,
        /// Which layers.
        idmap: Idmap,
    },
}

impl RuntimeError {
    /// Whether what was asked for makes no sense, rather than that something is
    /// missing here.
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Idmap { .. })
    }
}

impl Driver {
    /// Looks for `runtime` on PATH and asks for its version; `None` for
    /// [`Runtime::Builtin`], which needs none.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::Missing`] and [`RuntimeError::Broken`].
    pub fn find(runtime: Runtime) -> Result<Option<Self>, RuntimeError> {
        if runtime == Runtime::Builtin {
            return Ok(None);
        }
        let path = on_path(runtime.as_str()).ok_or(RuntimeError::Missing(runtime))?;
        match ask_version(&path) {
            Ok(version) => Ok(Some(Self { runtime, path, version })),
            Err(error) => Err(RuntimeError::Broken { runtime, path, why: error.to_string() }),
        }
    }

    /// A call of the runtime that neither this process's environment nor its
    /// terminal reaches. A service manager's NOTIFY_SOCKET, for example, would
    /// become a mount in each container, and a Ctrl-C would end the runtime
    /// rather than the storm.
    pub(super) fn command(&self) -> Command {
        command(&self.path)
    }
}

fn command(path: &Path) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(path);
    command.env_clear().stdin(Stdio::null()).process_group(0);
    if let Some(folders) = env::var_os("PATH") {
        command.env("PATH", folders);
    }
    command
}

/// The first file of this name on PATH that may be run.
fn on_path(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file() && access(file, Access::EXEC_OK).is_ok())
        // A storm's processes do not stay in this working directory.
        .and_then(|file| std::path::absolute(file).ok())
}

fn ask_version(path: &Path) -> io::Result<Name> {
    let output = command(path).arg("--version").output()?;
    if !output.status.success() {
        return Err(io::Error::other(words::failed(output.status, &output.stderr)));
    }
    version(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| io::Error::other("it printed no version"))
}

/// The version in `runc version 1.1.5+ds1`, the first line of several.
fn version(text: &str) -> Option<Name> {
    let (_, version) = text.lines().next()?.split_once(" version ")?;
    Some(Name::from(version.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_in_the_first_line() {
        let runc = "runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\nspec: 1.0.2-dev\n";
        let crun = "crun version 1.8.1\ncommit: f8a096b\nrundir: /run/crun\n";
        assert_eq!(version(runc).unwrap().as_str(), "1.1.5+ds1");
        assert_eq!(version(crun).unwrap().as_str(), "1.8.1");
        assert_eq!(version("busybox\n"), None);
        assert_eq!(version("runc version \x1b[2J\n").unwrap().as_str(), "\\x1b[2J");
    }

    #[test]
    fn the_builtin_start_needs_nothing() {
        assert_eq!(Driver::find(Runtime::Builtin).unwrap(), None);
    }

    #[test]
    fn a_refusal_names_the_flag_or_the_package() {
        let missing = RuntimeError::Missing(Runtime::Crun);
        assert!(missing.to_string().contains("the package crun"), "{missing}");
        assert!(!missing.is_usage());
        let idmap = RuntimeError::Idmap { runtime: Runtime::Runc, idmap: Idmap::PerLayer };
        let said = idmap.to_string();
        assert!(said.contains("--runtime runc") && said.contains("--idmap per-layer"), "{said}");
        assert!(idmap.is_usage());
    }
}
