//! `cargo xtask package`: what is given to users, in `target/package`.
//!
//! In: the release binary, dynamic for the Debian package and static for the
//! tarball, and what [`tree`] lays out around it, the [`notices`] of what is linked among it. Out: a `.deb` ([`deb`]), a
//! tarball for all other distributions ([`tarball`]), and their checksums. The
//! same binaries give the same bytes: names are sorted, owners fixed, and times
//! those of the last commit, or `SOURCE_DATE_EPOCH`.

pub(crate) mod deb;
pub(crate) mod notices;
pub(crate) mod tarball;
pub(crate) mod tree;

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::{build, setup, shell};

/// Version of lockprof.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Of `cargo xtask package`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Package this binary, which is not built then
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Put this binary, statically linked, into the tarball
    #[arg(long, value_name = "PATH")]
    static_binary: Option<PathBuf>,
}

/// Makes everything, and says what and how large.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    for tool in ["dpkg-deb", "dpkg-shlibdeps", "strip", "tar", "gzip", "sha256sum"] {
        if shell::find(tool).is_none() {
            bail!(
                "packages are made with {tool}, which this machine does not have; on Debian \
                 `apt-get install dpkg-dev` brings it"
            );
        }
    }
    if arguments.binary.is_none() || arguments.static_binary.is_none() {
        setup::require_toolchain()?;
    }
    // The static one first: cargo leaves both in the same place.
    let portable = match &arguments.static_binary {
        Some(binary) => given(binary)?,
        None => tarball::build("release")?,
    };
    let binary = match &arguments.binary {
        Some(binary) => given(binary)?,
        None => build::release()?,
    };
    let out = folder();
    forget(&out)?;
    let tree = tree::stage(&binary)?;
    let made =
        [deb::make(&binary, &deb::version(VERSION), &out)?, tarball::make(&tree, &portable, &out)?];
    let sums = checksums(&out, &made)?;
    for file in made.iter().chain([&sums]) {
        let size = fs::metadata(file).map_or(0, |facts| facts.len());
        println!("{}: {} kB", file.display(), size.div_ceil(1000));
    }
    Ok(ExitCode::SUCCESS)
}

/// Where packages are put.
pub(crate) fn folder() -> PathBuf {
    shell::workspace().join("target/package")
}

/// Where they are prepared. cargo-deb's manifest (profiler-daemon/Cargo.toml) knows
/// it too.
fn workshop() -> PathBuf {
    folder().join("build")
}

/// The tree as it was staged last.
pub(crate) fn staged() -> PathBuf {
    workshop().join("tree")
}

fn given(binary: &Path) -> Result<PathBuf> {
    binary.canonicalize().with_context(|| format!("failed to find the binary {}", binary.display()))
}

/// Removes packages of other versions: `lockprof_*.deb` is to name one.
fn forget(out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("failed to create {}", out.display()))?;
    for entry in fs::read_dir(out).with_context(|| format!("failed to read {}", out.display()))? {
        let path = entry.context("failed to read a folder")?.path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let package = name.starts_with("lockprof") && path.is_file();
        if package || name == "SHA256SUMS" {
            fs::remove_file(&path)
                .with_context(|| format!("failed to remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// `SHA256SUMS` of `files`, which are in `out`; `sha256sum -c` reads it.
fn checksums(out: &Path, files: &[PathBuf]) -> Result<PathBuf> {
    let names = files.iter().filter_map(|file| file.file_name());
    let text = printed(Command::new("sha256sum").args(names).current_dir(out))?;
    let place = out.join("SHA256SUMS");
    fs::write(&place, text).with_context(|| format!("failed to write {}", place.display()))?;
    Ok(place)
}

/// The time that packages carry, in seconds since 1970: `SOURCE_DATE_EPOCH`, or
/// that of the last commit.
pub(crate) fn epoch() -> Result<u64> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    if let Some(value) = env::var_os(NAME) {
        let value = value.to_string_lossy().into_owned();
        return value.parse().with_context(|| {
            format!("{NAME} is `{value}`, and has to be a number of seconds since 1970")
        });
    }
    let said = printed(
        Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(shell::workspace()),
    )
    .with_context(|| {
        format!("failed to find the time of the last commit; outside of a git clone set {NAME}")
    })?;
    let said = String::from_utf8_lossy(&said);
    said.trim().parse().with_context(|| format!("git told no time but `{}`", said.trim()))
}

/// Removes a folder with all that is in it, if it is there.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// What a command prints.
fn printed(command: &mut Command) -> Result<Vec<u8>> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("failed to start {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed ({}): {}", output.status, said.trim());
    }
    Ok(output.stdout)
}
