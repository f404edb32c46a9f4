//! The tarball for distributions without a package: the tree with a binary that
//! needs no library of the machine, and a script that puts it in place.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{VERSION, epoch, notices, printed, remove, workshop};
use crate::shell;

/// Beside the tree: from the repository, and the name there.
const FILES: [(&str, &str); 6] = [
    ("packaging/tarball/README", "README"),
    ("packaging/tarball/install.sh", "install.sh"),
    ("LICENSE", "LICENSE"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("LICENSE-GPL-2.0", "LICENSE-GPL-2.0"),
    ("LICENSE-MIT", "LICENSE-MIT"),
];

/// Builds `lockprof` with the C library linked in, and returns a copy of it. Only
/// the last step differs from the build of `profile` without: what it consists of
/// is shared.
///
/// # Errors
/// When it does not build, or asks for a library all the same.
pub(crate) fn build(profile: &str) -> Result<PathBuf> {
    let output = shell::cargo()
        .args(["rustc", "--locked", "--package", "profiler-daemon", "--bin", "lockprof"])
        .args(["--profile", profile, "--message-format=json-render-diagnostics", "--"])
        .args(["-C", "target-feature=+crt-static"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("failed to start cargo")?;
    if !output.status.success() {
        bail!(
            "failed to build lockprof with a static C library ({}); the compiler's output is \
             above. If it is about `-lc`, the library's archive is missing: libc6-dev on Debian \
             has it, glibc-static on Fedora",
            output.status
        );
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let built = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "lockprof")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo told of no binary")?;
    let bytes = fs::read(&built).with_context(|| format!("failed to read {}", built.display()))?;
    if !crate::setup::survey::is_static(&bytes) {
        bail!("the linker made {} dynamic, though a static one was asked for", built.display());
    }
    // The next build puts another binary in its place.
    let place = workshop().join(format!("static-{profile}/lockprof"));
    super::tree::put(&place, &bytes)?;
    executable(&place)?;
    Ok(place)
}

/// Makes the tarball of `tree` and `binary` in `out`.
///
/// # Errors
/// When a file is missing, or tar fails.
pub(crate) fn make(tree: &Path, binary: &Path, out: &Path) -> Result<PathBuf> {
    let name = format!("lockprof-{VERSION}-{}-linux", std::env::consts::ARCH);
    let above = workshop().join("tarball");
    remove(&above)?;
    let folder = above.join(&name);
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    printed(Command::new("cp").arg("-r").arg(tree.join("etc")).arg(tree.join("usr")).arg(&folder))?;
    let copy = |from: &Path, to: &Path| -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("failed to read {}", from.display()))?;
        super::tree::put(to, &bytes)
    };
    let place = folder.join("usr/bin/lockprof");
    copy(binary, &place)?;
    executable(&place)?;
    notices::write(&folder.join(notices::FOLDER), Some(&place))?;
    for (source, to) in FILES {
        copy(&shell::workspace().join(source), &folder.join(to))?;
    }
    executable(&folder.join("install.sh"))?;
    fs::create_dir_all(out).with_context(|| format!("failed to create {}", out.display()))?;
    let file = out.join(format!("{name}.tar.gz"));
    printed(
        Command::new("tar")
            .args(["--create", "--sort=name", "--owner=root:0", "--group=root:0"])
            .args(["--format=ustar", "--mode=u=rwX,go=rX"])
            .arg(format!("--mtime=@{}", epoch()?))
            // For Debian's checker alone.
            .arg("--exclude=*/usr/share/lintian")
            .args(["--use-compress-program=gzip -9 --no-name", "--file"])
            .arg(&file)
            .arg("--directory")
            .args([&above])
            .arg(&name)
            .env("LC_ALL", "C"),
    )?;
    Ok(file)
}

fn executable(file: &Path) -> Result<()> {
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("failed to make {} executable", file.display()))
}
