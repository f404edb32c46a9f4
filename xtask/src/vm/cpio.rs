//! Writing an initramfs: a cpio archive in the `newc` format
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Written here and not by cpio(1), so that files need not exist in a folder of
//! their own first, and neither root nor a tool is needed: an entry belongs to
//! root in the guest, whoever writes it, or to whom it is said to belong.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// What is at a path of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Folder,
    /// A copy of this file of the host, with its executable bits.
    Copy(PathBuf),
    Text(Vec<u8>),
    Link(String),
    /// As it is, owner and all.
    Whole(Whole),
}

/// What is at a path, with the owner and the permissions that it has there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    /// Kind and permissions, as in `st_mode`.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) user: u32,
    /// Group.
    pub(crate) group: u32,
    /// Of a file, or where a link leads.
    pub(crate) content: Vec<u8>,
}

/// An archive in the making. Paths are absolute, those of the guest.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Archive {
    /// A folder, and those above it.
    pub(crate) fn folder(&mut self, path: impl AsRef<Path>) {
        for folder in path.as_ref().ancestors() {
            if folder != Path::new("/") && !folder.as_os_str().is_empty() {
                self.entries.entry(folder.to_owned()).or_insert(Entry::Folder);
            }
        }
    }

    /// A copy of the host's file `from`.
    pub(crate) fn copy(&mut self, path: impl AsRef<Path>, from: impl Into<PathBuf>) {
        self.put(path.as_ref(), Entry::Copy(from.into()));
    }

    /// A file with this content.
    pub(crate) fn text(&mut self, path: impl AsRef<Path>, content: impl Into<Vec<u8>>) {
        self.put(path.as_ref(), Entry::Text(content.into()));
    }

    /// A symbolic link to `to`.
    pub(crate) fn link(&mut self, path: impl AsRef<Path>, to: impl Into<String>) {
        self.put(path.as_ref(), Entry::Link(to.into()));
    }

    /// This file, folder or link, in place of what was at the path.
    pub(crate) fn whole(&mut self, path: impl AsRef<Path>, whole: Whole) {
        self.put(path.as_ref(), Entry::Whole(whole));
    }

    /// What [`Self::whole`] put at this path.
    #[cfg(test)]
    pub(crate) fn whole_at(&self, path: impl AsRef<Path>) -> Option<&Whole> {
        match self.entries.get(path.as_ref())? {
            Entry::Whole(whole) => Some(whole),
            _ => None,
        }
    }

    /// Whether something is at this path.
    pub(crate) fn has(&self, path: impl AsRef<Path>) -> bool {
        self.entries.contains_key(path.as_ref())
    }

    fn put(&mut self, path: &Path, entry: Entry) {
        if let Some(parent) = path.parent() {
            self.folder(parent);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// When a file cannot be read, is too large for the format (4 GiB), or the
    /// archive cannot be written.
    pub(crate) fn write(&self, out: &mut impl Write) -> Result<()> {
        // A folder comes before what is in it: the map is sorted by path.
        for (index, (path, entry)) in self.entries.iter().enumerate() {
            let name = path.strip_prefix("/").unwrap_or(path);
            let name = name.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
            let inode = u32::try_from(index + 1).context("too many files")?;
            match entry {
                Entry::Folder => record(out, inode, 0o040_755, ROOT, name, &[]),
                Entry::Text(content) => record(out, inode, 0o100_644, ROOT, name, content),
                Entry::Link(to) => record(out, inode, 0o120_777, ROOT, name, to.as_bytes()),
                Entry::Whole(Whole { mode, user, group, content }) => {
                    record(out, inode, *mode, (*user, *group), name, content)
                }
                Entry::Copy(from) => {
                    let read = || -> io::Result<(Vec<u8>, u32)> {
                        let mode = File::open(from)?.metadata()?.permissions().mode();
                        Ok((fs::read(from)?, mode))
                    };
                    let (content, mode) =
                        read().with_context(|| format!("failed to read {}", from.display()))?;
                    if u32::try_from(content.len()).is_err() {
                        bail!("{} is larger than an initramfs allows", from.display());
                    }
                    // A build folder may be closed to others; root does not mind.
                    record(out, inode, 0o100_444 | (mode & 0o111), ROOT, name, &content)
                }
            }
            .context("failed to write the initramfs")?;
        }
        record(out, 0, 0, ROOT, "TRAILER!!!", &[]).context("failed to write the initramfs")
    }
}

/// User and group.
type Owner = (u32, u32);

const ROOT: Owner = (0, 0);

/// One header, name and content, each padded to four bytes.
fn record(
    out: &mut impl Write,
    inode: u32,
    mode: u32,
    owner: Owner,
    name: &str,
    content: &[u8],
) -> io::Result<()> {
    let too_long = |_| io::Error::other("an entry is too large for the format");
    let size = u32::try_from(content.len()).map_err(too_long)?;
    let name_size = u32::try_from(name.len() + 1).map_err(too_long)?;
    let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
    // inode, mode, uid, gid, links, mtime, size, device (two words), device of a
    // node (two words), length of the name, checksum (of another format).
    let (user, group) = owner;
    let fields = [inode, mode, user, group, links, 0, size, 0, 0, 0, 0, name_size, 0];
    let mut head = String::from("070701");
    for field in fields {
        use std::fmt::Write as _;
        let _ = write!(head, "{field:08X}");
    }
    out.write_all(head.as_bytes())?;
    out.write_all(name.as_bytes())?;
    out.write_all(&[0])?;
    pad(out, head.len() + name.len() + 1)?;
    out.write_all(content)?;
    pad(out, content.len())
}

fn pad(out: &mut impl Write, written: usize) -> io::Result<()> {
    out.write_all(&[0; 3][..written.next_multiple_of(4) - written])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode and content of each record, read back by the format's rules.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            assert_eq!(&bytes[..6], b"070701");
            let field = |index: usize| {
                let text = std::str::from_utf8(&bytes[6 + index * 8..][..8]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            assert_eq!(bytes[110 + name_size - 1], 0);
            let start = (110 + name_size).next_multiple_of(4);
            records.push((name, mode, bytes[start..start + size].to_vec()));
            bytes = &bytes[(start + size).next_multiple_of(4)..];
        }
        records
    }

    fn written(archive: &Archive) -> Vec<(String, u32, Vec<u8>)> {
        let mut bytes = Vec::new();
        archive.write(&mut bytes).unwrap();
        read(&bytes)
    }

    #[test]
    fn folders_come_before_what_is_in_them_and_the_trailer_is_last() {
        let mut archive = Archive::default();
        archive.text("/a/b/file", "content");
        archive.link("/a/link", "b/file");
        let names: Vec<_> = written(&archive).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["a", "a/b", "a/b/file", "a/link", "TRAILER!!!"]);
    }

    #[test]
    fn content_of_every_length_is_padded() {
        for length in 0..9 {
            let mut archive = Archive::default();
            archive.text("/file", vec![b'x'; length]);
            archive.text("/next", "y");
            let records = written(&archive);
            assert_eq!(records[0].2.len(), length);
            assert_eq!(records[1], ("next".into(), 0o100_644, b"y".to_vec()));
        }
    }

    #[test]
    fn a_copy_keeps_its_executable_bits_and_no_owner() {
        let mut archive = Archive::default();
        archive.copy("/bin/me", std::env::current_exe().unwrap());
        let records = written(&archive);
        assert_eq!(records[0].1, 0o040_755);
        assert_eq!(records[1].1, 0o100_555);
        assert!(records[1].2.starts_with(b"\x7fELF"));
    }

    #[test]
    fn what_is_given_whole_keeps_owner_and_permissions() {
        let mut archive = Archive::default();
        let shadow =
            Whole { mode: 0o100_640, user: 7, group: 42, content: b"root:*:0:::::".to_vec() };
        archive.whole("/etc/shadow", shadow);
        let mut bytes = Vec::new();
        archive.write(&mut bytes).unwrap();
        let (name, mode, content) = read(&bytes).swap_remove(1);
        assert_eq!(
            (&name[..], mode, &content[..]),
            ("etc/shadow", 0o100_640, &b"root:*:0:::::"[..])
        );
        // The third and fourth field of the second header: the first is the folder's.
        let second = (110 + "etc\0".len()).next_multiple_of(4);
        assert_eq!(&bytes[second + 22..second + 38], b"000000070000002A");
    }

    #[test]
    fn a_later_folder_does_not_replace_a_file() {
        let mut archive = Archive::default();
        archive.link("/lib64", "usr/lib64");
        archive.folder("/lib64");
        assert_eq!(written(&archive)[0].2, b"usr/lib64");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let mut archive = Archive::default();
        archive.copy("/x", "/nonexistent/file");
        let error = archive.write(&mut Vec::new()).unwrap_err();
        assert!(format!("{error:#}").contains("/nonexistent/file"));
    }
}
