//! A guest that is a whole Debian: a root of the host's making, systemd as the first
//! process, and the plan's steps run by a service of it.
//!
//! [`super::init`] begins there as elsewhere, and hands over to systemd once the
//! root can be pivoted and the modules are loaded.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::cpio::{Archive, Whole};
use super::plan::INIT;

/// A root file system for a guest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Root {
    /// Where it is on the host.
    pub(crate) folder: PathBuf,
    /// Files of the host, by where they are in the guest.
    pub(crate) files: Vec<(PathBuf, PathBuf)>,
    /// Programs of the host, with their libraries: it has the same suite.
    pub(crate) programs: Vec<PathBuf>,
}

/// MiB of memory that are enough for it: the initramfs and what it is unpacked
/// to are there at the same time, and a file system in memory takes half at most.
pub(crate) const MEMORY: u32 = 1536;

/// The first process of the system.
pub(super) const SYSTEMD: &str = "/lib/systemd/systemd";

/// Where units go.
const SYSTEM: &str = "/etc/systemd/system";

/// The service that runs the steps.
const UNIT: &str = "lockprof-vm.service";

/// Units that make an emulated machine slow to boot, or wait for devices that it
/// does not have, and that no service needs.
const MASKED: [&str; 14] = [
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "ldconfig.service",
    "proc-sys-fs-binfmt_misc.automount",
    "systemd-logind.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-utmp.service",
];

/// Whether this process runs in such a guest.
pub(super) fn is_root() -> bool {
    Path::new(SYSTEM).join(UNIT).is_file()
}

/// Puts the root into the archive, and what makes systemd run the plan.
///
/// # Errors
/// When a file of it cannot be read.
pub(super) fn add(archive: &mut Archive, root: &Root) -> Result<()> {
    take(archive, &root.folder, Path::new("/"))?;
    for (there, here) in &root.files {
        archive.copy(there, here);
    }
    for program in &root.programs {
        if let Some(name) = program.file_name() {
            archive.copy(Path::new("/usr/local/bin").join(name), program);
        }
        for library in super::image::libraries(program)? {
            // /lib is a link to /usr/lib there as here.
            let place = library.parent().and_then(|folder| folder.canonicalize().ok());
            let place = place.zip(library.file_name()).map(|(folder, name)| folder.join(name));
            let place = place.with_context(|| format!("{} is nowhere", library.display()))?;
            if !archive.has(&place) {
                archive.copy(&place, &library);
            }
        }
    }
    let system = Path::new(SYSTEM);
    for unit in MASKED {
        archive.link(system.join(unit), "/dev/null");
    }
    archive.text(
        system.join(UNIT),
        format!(
            "[Unit]\nDescription=Steps of a test machine\n\
             [Service]\nExecStart={INIT} vm-steps\nStandardOutput=journal+console\n\
             SendSIGHUP=no\nOOMScoreAdjust=-900\n"
        ),
    );
    archive.link(system.join("multi-user.target.wants").join(UNIT), format!("../{UNIT}"));
    archive.link(system.join("default.target"), "/lib/systemd/system/multi-user.target");
    archive.text(
        "/etc/systemd/journald.conf.d/machine.conf",
        // What a test looks for must be there, however much was said.
        "[Journal]\nStorage=volatile\nRateLimitBurst=0\nForwardToSyslog=no\n",
    );
    // Without one, every boot is the first, which enables all units anew.
    archive.text("/etc/machine-id", "6c6f636b70726f662076697274756131\n");
    archive.text("/etc/hostname", "machine\n");
    Ok(())
}

/// Folders whose content no service needs, and whose size would be memory.
const LEFT_OUT: [&str; 11] = [
    "boot",
    "dev",
    "usr/share/bash-completion/completions",
    "usr/share/doc",
    "usr/share/groff",
    "usr/share/i18n",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache",
    "var/lib/apt/lists",
];

/// Adds what is in `folder`, which is `below` the root that it belongs to, all
/// but sockets, pipes and device nodes, which the system makes itself.
///
/// A hard link becomes a file of its own: nothing in a root relies on their being
/// one.
fn take(archive: &mut Archive, folder: &Path, below: &Path) -> Result<()> {
    let named = |what: &str| format!("failed to {what} {}", folder.display());
    for entry in fs::read_dir(folder).with_context(|| named("read"))? {
        let entry = entry.with_context(|| named("read"))?;
        let path = entry.path();
        let there = below.join(entry.file_name());
        let metadata =
            entry.metadata().with_context(|| format!("failed to look at {}", path.display()))?;
        let kind = metadata.file_type();
        let content = if kind.is_file() {
            fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?
        } else if kind.is_symlink() {
            let to = fs::read_link(&path);
            let to = to.with_context(|| format!("failed to read {}", path.display()))?;
            to.into_os_string().into_encoded_bytes()
        } else if kind.is_dir() {
            Vec::new()
        } else {
            continue;
        };
        let (mode, user, group) = (metadata.mode(), metadata.uid(), metadata.gid());
        archive.whole(&there, Whole { mode, user, group, content });
        if kind.is_dir() && !LEFT_OUT.iter().any(|left| there == Path::new("/").join(left)) {
            take(archive, &path, &there)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_root_keeps_permissions_and_links_and_loses_what_no_service_needs() {
        let root = std::env::temp_dir().join(format!("xtask-root-{}", std::process::id()));
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(root.join("usr/share/doc/x")).unwrap();
        fs::write(root.join("etc/su"), "text").unwrap();
        fs::set_permissions(root.join("etc/su"), fs::Permissions::from_mode(0o4750)).unwrap();
        fs::hard_link(root.join("etc/su"), root.join("etc/again")).unwrap();
        symlink("su", root.join("etc/link")).unwrap();
        let mut archive = Archive::default();
        let outcome = take(&mut archive, &root, Path::new("/"));
        fs::remove_dir_all(&root).unwrap();
        outcome.unwrap();
        let found = |path: &str| archive.whole_at(path).map(|it| (it.mode, &it.content[..]));
        assert_eq!(found("/etc/su"), Some((0o104_750, &b"text"[..])));
        assert_eq!(found("/etc/again"), found("/etc/su"));
        assert_eq!(found("/etc/link"), Some((0o120_777, &b"su"[..])));
        assert!(archive.has("/usr/share/doc") && !archive.has("/usr/share/doc/x"));
    }
}
