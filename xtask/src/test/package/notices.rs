//! Whether the packages name what is linked. The binaries are asked themselves, and
//! not cargo, whose word the notices are made from: a panic tells the file of its
//! source, and that is in a folder by the crate's name and version.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::cases::unpack;
use super::jail::Jail;
use super::{Made, here};
use crate::package::notices::{FOLDER, NAME, RUST};
use crate::shell;

/// Crates that every binary tells of: one of the daemon, one of the BPF object.
const SURE: [&str; 2] = ["tokio", "aya-ebpf"];

pub(super) fn name_what_is_linked(made: &Made, _: &Jail) -> Result<()> {
    let deb = made.scratch.join("notices");
    here(Command::new("dpkg-deb").arg("--extract").args([&made.deb, &deb]))?;
    let tarball = unpack(&made.tarball, &deb)?;
    let of_deb = check(&deb)?;
    let of_tarball = check(&tarball)?;
    // The C library is in the static binary alone.
    ensure!(!of_deb.contains("\nglibc "), "the Debian package is said to have glibc in it");
    let (_, library) = of_tarball.split_once("\nglibc ").context("the tarball names no glibc")?;
    ensure!(
        library.contains("LGPL-2.1-or-later")
            && library.contains("GNU LESSER GENERAL PUBLIC LICENSE")
            && library.contains("GCC RUNTIME LIBRARY EXCEPTION"),
        "the licences of glibc and libgcc are not in the tarball"
    );
    let copyright = read(&deb.join(FOLDER).join("copyright"))?;
    ensure!(copyright.contains(NAME) && copyright.contains(RUST), "copyright does not refer to it");
    Ok(())
}

/// Compares the notices below `root` with the binary there, and returns them.
fn check(root: &Path) -> Result<String> {
    let notices = read(&root.join(FOLDER).join(NAME))?;
    let library = read(&root.join(FOLDER).join(RUST))?;
    let binary = root.join("usr/bin/lockprof");
    let crates = sources(&binary, "registry/src/[^/]+")?;
    for sure in SURE {
        ensure!(
            crates.iter().any(|found| found.starts_with(&format!("{sure}-"))),
            "{} has no source of {sure} in it: {crates:?}",
            binary.display()
        );
    }
    let unnamed: Vec<_> = crates.iter().filter(|found| !names(&notices, found)).collect();
    ensure!(unnamed.is_empty(), "{NAME} does not name {unnamed:?}");
    // What the standard library is made with has no version of its own here.
    let parts = sources(&binary, "/rust/deps")?;
    let unnamed: Vec<_> = parts
        .iter()
        .filter(|part| {
            let name = part.rsplit_once('-').map_or(part.as_str(), |(name, _)| name);
            !notices.contains(&format!("\n{name}\n")) && !library.contains(&format!(" {name}-"))
        })
        .collect();
    ensure!(
        unnamed.is_empty(),
        "neither {NAME} nor {RUST} names {unnamed:?} of the standard library; add it to LEFT_OUT in \
         xtask/src/package/notices/system.rs"
    );
    locked(&notices)?;
    let machine = shell::workspace().display().to_string();
    for path in [machine.as_str(), "/.cargo/", "/.rustup/"] {
        ensure!(!notices.contains(path), "{NAME} has a path of this machine in it: {path}");
    }
    Ok(notices)
}

/// That each crate that is named is in Cargo.lock, in that version, and has a text.
fn locked(notices: &str) -> Result<()> {
    let lock = read(&shell::workspace().join("Cargo.lock"))?;
    let (_, crates) = notices.split_once("\nCrates\n").context("there is no section of crates")?;
    let (crates, _) = crates.split_once("\nThe Rust standard library\n").context("it is alone")?;
    let entries: Vec<_> =
        crates.split("\n\n").filter(|part| part.contains("\n  Licence: ")).collect();
    for entry in &entries {
        let head = entry.trim_start().lines().next().unwrap_or_default();
        let (name, version) = head.split_once(' ').context("a crate has no version")?;
        ensure!(
            lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n")),
            "{head} is named, and is not in Cargo.lock"
        );
        ensure!(entry.contains("\n  Texts:   ["), "{head} has no text of its licence");
    }
    ensure!(entries.len() > SURE.len(), "only {} crates are named", entries.len());
    Ok(())
}

/// Whether there is an entry of a crate, given as `NAME-VERSION`.
fn names(notices: &str, found: &str) -> bool {
    found.match_indices('-').any(|(at, _)| {
        let (name, version) = (&found[..at], &found[at + 1..]);
        notices.contains(&format!("\n{name} {version}\n"))
    })
}

/// The folders below one, a pattern, that a binary tells of.
fn sources(binary: &Path, below: &str) -> Result<BTreeSet<String>> {
    let pattern = format!("{below}/[A-Za-z0-9_.+-]+/");
    let found = here(Command::new("grep").args(["-aoE", &pattern]).arg(binary))
        .with_context(|| format!("{} has no {below} in it", binary.display()))?;
    Ok(found
        .lines()
        .filter_map(|path| path.trim_end_matches('/').rsplit('/').next())
        .map(str::to_owned)
        .collect())
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_version_may_both_have_hyphens() {
        let notices = "\naya-ebpf 0.2.1\n\nx509-parser 0.18.1-rc.1+a-b\n";
        assert!(names(notices, "aya-ebpf-0.2.1"));
        assert!(names(notices, "x509-parser-0.18.1-rc.1+a-b"));
        assert!(!names(notices, "aya-0.2.1"));
        assert!(!names(notices, "aya-ebpf-0.2.2"));
    }
}
