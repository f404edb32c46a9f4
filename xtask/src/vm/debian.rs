//! A guest that is a whole Debian: its root from a tarball, systemd as the first
//! process, and the plan's steps run by a service of it.
//!
//! [`super::init`] begins there as elsewhere, and hands over to systemd once the
//! root can be pivoted and the modules are loaded.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::cpio::{Archive, Whole};
use super::plan::INIT;

/// A root file system for a guest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Root {
    /// An uncompressed tarball of it.
    pub(crate) tarball: PathBuf,
    /// Files of the host, by where they are in the guest.
    pub(crate) files: Vec<(PathBuf, PathBuf)>,
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
/// When the tarball cannot be read.
pub(super) fn add(archive: &mut Archive, root: &Root) -> Result<()> {
    unpack(archive, &root.tarball)
        .with_context(|| format!("failed to read {}", root.tarball.display()))?;
    for (there, here) in &root.files {
        archive.copy(there, here);
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

/// All of a tarball except device nodes, which the kernel makes itself.
fn unpack(archive: &mut Archive, tarball: &Path) -> Result<()> {
    let file = BufReader::new(File::open(tarball)?);
    let mut hard_links = Vec::new();
    for entry in tar::Archive::new(file).entries()? {
        let mut entry = entry?;
        let path = Path::new("/").join(entry.path()?.strip_prefix(".").unwrap_or(&entry.path()?));
        let header = entry.header();
        let (user, group) = (u32::try_from(header.uid()?)?, u32::try_from(header.gid()?)?);
        let target = |entry: &tar::Entry<'_, _>| -> Result<PathBuf> {
            let name = entry.link_name()?;
            Ok(name.with_context(|| format!("{} leads nowhere", path.display()))?.into_owned())
        };
        let kind = header.entry_type();
        let permissions = header.mode()? & 0o7777;
        let mut content = Vec::new();
        let format = match kind {
            _ if path == Path::new("/") => continue,
            tar::EntryType::Directory => 0o040_000,
            tar::EntryType::Symlink => {
                content = target(&entry)?.into_os_string().into_encoded_bytes();
                0o120_000
            }
            tar::EntryType::Regular | tar::EntryType::GNUSparse => {
                entry.read_to_end(&mut content)?;
                0o100_000
            }
            tar::EntryType::Link => {
                let to = target(&entry)?;
                hard_links.push((path, Path::new("/").join(to.strip_prefix(".").unwrap_or(&to))));
                continue;
            }
            tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => continue,
            _ => bail!("{} is of an unknown kind", path.display()),
        };
        archive.whole(path, Whole { mode: format | permissions, user, group, content });
    }
    for (path, to) in hard_links {
        // As a file of its own: nothing in a root relies on their being one.
        archive.duplicate(&to, &path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tarball() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = |kind, mode| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_uid(7);
            header.set_gid(42);
            header.set_size(0);
            header
        };
        let folder = |name: &str, header: &mut tar::Header, out: &mut tar::Builder<Vec<u8>>| {
            out.append_data(header, name, &[][..]).unwrap();
        };
        folder("./", &mut header(tar::EntryType::Directory, 0o755), &mut builder);
        folder("./etc/", &mut header(tar::EntryType::Directory, 0o2755), &mut builder);
        folder("./dev/null", &mut header(tar::EntryType::Char, 0o666), &mut builder);
        let mut file = header(tar::EntryType::Regular, 0o4750);
        file.set_size(4);
        builder.append_data(&mut file, "./etc/su", &b"text"[..]).unwrap();
        let mut link = header(tar::EntryType::Symlink, 0o777);
        builder.append_link(&mut link, "./etc/link", "su").unwrap();
        let mut hard = header(tar::EntryType::Link, 0o4750);
        builder.append_link(&mut hard, "./etc/again", "./etc/su").unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn a_root_keeps_owners_permissions_and_links_and_loses_device_nodes() {
        let path = std::env::temp_dir().join(format!("xtask-root-{}.tar", std::process::id()));
        std::fs::write(&path, tarball()).unwrap();
        let mut archive = Archive::default();
        let outcome = unpack(&mut archive, &path);
        std::fs::remove_file(&path).unwrap();
        outcome.unwrap();
        let found = |path: &str| archive.whole_at(path).cloned();
        let whole = |mode, content: &[u8]| {
            Some(Whole { mode, user: 7, group: 42, content: content.to_vec() })
        };
        assert_eq!(found("/etc"), whole(0o042_755, b""));
        assert_eq!(found("/etc/su"), whole(0o104_750, b"text"));
        assert_eq!(found("/etc/again"), whole(0o104_750, b"text"));
        assert_eq!(found("/etc/link"), whole(0o120_777, b"su"));
        assert!(!archive.has("/dev/null"));
    }
}
