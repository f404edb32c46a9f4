//! The initramfs of a guest: programs with their libraries, busybox, the init
//! and its plan. Made without root.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::cpio::Archive;
use super::debian::{self, Root};
use super::plan::{INIT, MODULES, PLAN, Plan};
use crate::shell;

/// What is in a guest.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// The release binary, which is `lockprof` on the guest's PATH as well.
    pub(crate) lockprof: PathBuf,
    /// Programs for the guest's PATH; they go before busybox's of the same name.
    pub(crate) programs: Vec<PathBuf>,
    /// Other files that are at the same path in the guest as here; programs
    /// among them bring their libraries.
    pub(crate) files: Vec<PathBuf>,
    /// Folders that have to exist.
    pub(crate) folders: Vec<PathBuf>,
    /// Kernel modules that are loaded before the first step.
    pub(crate) modules: Vec<PathBuf>,
    /// A whole Debian in place of all this but the modules.
    pub(crate) root: Option<Root>,
}

/// Folders that things are mounted on or that programs expect.
const FOLDERS: [&str; 11] = [
    "/lockprof-vm/root",
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/tmp",
    "/root",
    "/mnt",
    "/etc",
    "/var/tmp",
    "/var/lib",
];

/// Writes the initramfs to `path`.
///
/// # Errors
/// When a file is missing, or there is no static busybox.
pub(crate) fn write(path: &Path, contents: &Contents, plan: &Plan) -> Result<()> {
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.folder(folder);
    }
    let init = std::env::current_exe().context("failed to find the running xtask")?;
    archive.copy(INIT, &init);
    archive.text(PLAN, serde_json::to_vec(plan).context("failed to write the plan")?);
    archive.folder(MODULES);
    for module in &contents.modules {
        if let Some(name) = module.file_name() {
            archive.copy(Path::new(MODULES).join(name), module);
        }
    }

    match &contents.root {
        // What the init is linked with is in every Debian.
        Some(root) => debian::add(&mut archive, root)?,
        None => programs(&mut archive, contents, init)?,
    }

    let file =
        File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
    let mut out = BufWriter::new(file);
    archive.write(&mut out)?;
    out.flush().with_context(|| format!("failed to write {}", path.display()))
}

/// The programs of a guest that has no more of a system than busybox.
fn programs(archive: &mut Archive, contents: &Contents, init: PathBuf) -> Result<()> {
    for folder in &contents.folders {
        archive.folder(folder);
    }
    archive.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    archive.text("/etc/group", "root:x:0:\n");
    busybox(archive)?;
    let mut programs = vec![init, contents.lockprof.clone()];
    archive.copy(&contents.lockprof, &contents.lockprof);
    archive.link("/bin/lockprof", contents.lockprof.to_string_lossy());
    for file in &contents.files {
        archive.copy(file, file);
        programs.push(file.clone());
    }
    for program in &contents.programs {
        if let Some(name) = program.file_name() {
            archive.copy(Path::new("/bin").join(name), program);
        }
        programs.push(program.clone());
    }
    for program in programs {
        for library in libraries(&program)? {
            if !archive.has(&library) {
                archive.copy(&library, &library);
            }
        }
    }
    Ok(())
}

/// busybox and its names.
fn busybox(archive: &mut Archive) -> Result<()> {
    let busybox = shell::find("busybox")
        .context("busybox is missing; `cargo xtask setup` installs it (Debian: busybox-static)")?;
    let output = Command::new(&busybox)
        .arg("--list")
        .output()
        .with_context(|| format!("failed to start {}", busybox.display()))?;
    archive.copy("/bin/busybox", &busybox);
    for library in libraries(&busybox)? {
        archive.copy(&library, &library);
    }
    for name in String::from_utf8_lossy(&output.stdout).lines().filter(|name| *name != "busybox") {
        archive.link(Path::new("/bin").join(name), "busybox");
    }
    Ok(())
}

/// The shared libraries of a program, its loader among them, as the host's own
/// loader finds them. Empty for what is no dynamically linked program.
pub(super) fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        .output()
        .context("failed to start ldd, which comes with the C library")?;
    // It fails for scripts, data and static programs.
    if !output.status.success() {
        return Ok(Vec::new());
    }
    parse_ldd(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("failed to find the libraries of {}", program.display()))
}

/// The files in what ldd prints: `name => /path (0x...)`, or `/loader (0x...)`.
fn parse_ldd(text: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for line in text.lines().map(str::trim) {
        let place = line.split_once(" => ").map_or(line, |(_, place)| place);
        if place.starts_with("not found") {
            bail!("{line}");
        }
        let path = place.rsplit_once(" (").map_or(place, |(path, _)| path);
        if path.starts_with('/') {
            files.push(PathBuf::from(path));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_taken_and_the_vdso_is_not() {
        let text = "\tlinux-vdso.so.1 (0x00007ffc4a5f2000)\n\
            \tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f2f0)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f2f1)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f2f2)\n";
        let files = parse_ldd(text).unwrap();
        assert_eq!(
            files,
            [
                "/lib/x86_64-linux-gnu/libgcc_s.so.1",
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
            .map(PathBuf::from)
        );
        assert!(parse_ldd("\tstatically linked\n").unwrap().is_empty());
    }

    #[test]
    fn a_missing_library_is_named() {
        let error = parse_ldd("\tlibfoo.so => not found\n").unwrap_err();
        assert!(error.to_string().contains("libfoo.so"));
    }

    #[test]
    fn this_test_runs_with_the_libraries_that_are_found() {
        let files = libraries(&std::env::current_exe().unwrap()).unwrap();
        assert!(files.iter().any(|file| file.to_string_lossy().contains("libc.so")), "{files:?}");
        assert!(files.iter().all(|file| file.is_file()), "{files:?}");
    }
}
