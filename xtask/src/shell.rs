//! Running commands, and where things are.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result};

/// The workspace root.
pub(crate) fn workspace() -> &'static Path {
    // xtask is a folder of the workspace, so there is a parent.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where xtask keeps its logs and its own build folders.
pub(crate) fn scratch() -> PathBuf {
    workspace().join("target/xtask")
}

/// Where lockprof keeps what takes long to get and outlives a source tree:
/// `$XDG_CACHE_HOME/lockprof`, or `~/.cache/lockprof`, or, where there is no home,
/// `target/cache`.
pub(crate) fn cache() -> PathBuf {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let xdg = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".cache"));
    xdg.or_else(home)
        .map_or_else(|| workspace().join("target/cache"), |folder| folder.join("lockprof"))
}

/// The cargo that runs xtask, in the workspace root, with none of the
/// variables that it sets for xtask.
pub(crate) fn cargo() -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    for (name, _) in env::vars_os() {
        // The toolchain stays the one that the user chose; what describes the
        // xtask package would only make other crates rebuild.
        if name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        }) {
            command.env_remove(name);
        }
    }
    command.current_dir(workspace()).stdin(Stdio::null());
    command
}

/// The folders of PATH and those where a distribution keeps its administrator
/// commands.
fn folders() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from));
    folders
}

/// The first file `name` on PATH or among the administrator commands.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    folders().into_iter().map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// A PATH that finds the administrator commands as well.
pub(crate) fn path() -> OsString {
    let mut folders = folders();
    let mut seen = Vec::new();
    folders.retain(|dir| {
        let new = !seen.contains(dir);
        seen.push(dir.clone());
        new
    });
    env::join_paths(folders).unwrap_or_else(|_| env::var_os("PATH").unwrap_or_default())
}

/// How a command ended and what it printed on both streams, in order.
pub(crate) struct Logged {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// All that it printed.
    pub(crate) text: String,
    /// The file that has it too.
    pub(crate) log: PathBuf,
}

/// An empty `target/xtask/logs/NAME.log`.
///
/// # Errors
/// When it cannot be created.
pub(crate) fn log_file(name: &str) -> Result<(PathBuf, File)> {
    let folder = scratch().join("logs");
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    let log = folder.join(format!("{name}.log"));
    let file = File::create(&log).with_context(|| format!("failed to create {}", log.display()))?;
    Ok((log, file))
}

/// Runs a command to its end, its output in `target/xtask/logs/NAME.log`, which
/// can be followed meanwhile.
///
/// # Errors
/// When the log cannot be written or the command cannot be started.
pub(crate) fn run_logged(command: &mut Command, name: &str) -> Result<Logged> {
    let folder = scratch().join("logs");
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    let log = folder.join(format!("{name}.log"));
    let out = File::create(&log).with_context(|| format!("failed to create {}", log.display()))?;
    let err = out.try_clone().with_context(|| format!("failed to share {}", log.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .status()
        .with_context(|| format!("failed to start {}", command.get_program().display()))?;
    let bytes = fs::read(&log).with_context(|| format!("failed to read {}", log.display()))?;
    Ok(Logged { status, text: String::from_utf8_lossy(&bytes).into_owned(), log })
}
