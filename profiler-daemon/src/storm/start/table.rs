//! Asking for the mount table, as runtimes and agents do.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::sys::{listmount, statmount};
use super::{Observer, Op, Tally};
use crate::storm::strategy::MountQuery;

/// Bytes that are read at a time. The file gives a page at most, however much is
/// asked for (`seq_read_iter`, fs/seq_file.c).
const CHUNK: usize = 4096;

/// Mounts that are listed at a time, as libmount does.
const IDS: usize = 512;

/// One who asks, with memory to do it in.
pub(in crate::storm) enum Table {
    /// By mountinfo.
    Mountinfo {
        /// `/proc`, opened where it is mounted: a namespace that is entered later
        /// need not have it.
        proc: Result<OwnedFd, Errno>,
        /// The line that was read last.
        line: Vec<u8>,
    },
    /// By `listmount(2)` and `statmount(2)`.
    Statmount {
        /// IDs of mounts.
        ids: Vec<u64>,
        /// What is told of one.
        told: Vec<u64>,
    },
}

impl Table {
    /// Asks in this way.
    pub(in crate::storm) fn new(way: MountQuery) -> Self {
        match way {
            MountQuery::Mountinfo => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let proc = openat(CWD, c"/proc", flags, Mode::empty());
                Self::Mountinfo { proc, line: Vec::new() }
            }
            // Paths are up to 4 KiB long, and there are two.
            MountQuery::Statmount => Self::Statmount { ids: vec![0; IDS], told: vec![0; 2048] },
        }
    }

    /// What an error calls it.
    pub(in crate::storm) const fn op(&self) -> Op {
        match self {
            Self::Mountinfo { .. } => Op::ReadMountinfo,
            Self::Statmount { .. } => Op::Statmount,
        }
    }

    /// Asks so many times for the whole table; what came and what failed is told to
    /// `observer`.
    pub(in crate::storm) fn ask_for(&mut self, times: u32, observer: &dyn Observer) {
        for _ in 0..times {
            match self.ask() {
                Ok(bytes) => observer.did(Tally::asked(bytes)),
                Err(error) => observer.failed(self.op(), &error),
            }
        }
    }

    /// Asks for the whole table of this process's namespace; its bytes.
    pub(in crate::storm) fn ask(&mut self) -> io::Result<u64> {
        match self {
            Self::Mountinfo { proc, line } => {
                let proc = proc.as_ref().map_err(|error| *error)?;
                read_mountinfo(proc, line)
            }
            Self::Statmount { ids, told } => stat_all(ids, told),
        }
    }
}

/// A line of mountinfo, in the parts that runtimes look at
/// (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    id: u32,
    parent: u32,
    device: (u32, u32),
    root: String,
    point: String,
    options: String,
    propagation: Vec<String>,
    filesystem: String,
    source: String,
    super_options: String,
}

fn read_mountinfo(proc: &OwnedFd, line: &mut Vec<u8>) -> io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = File::from(openat(proc, c"self/mountinfo", flags, Mode::empty())?);
    let mut reader = BufReader::with_capacity(CHUNK, file);
    let mut bytes = 0;
    let mut table = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', line)? {
            0 => break,
            n => bytes += n as u64,
        }
        table.extend(parse(String::from_utf8_lossy(line).trim_end_matches('\n')));
    }
    // Runtimes make a list of all mounts before they look for one.
    black_box(&table);
    Ok(bytes)
}

/// `None` for a line that is none.
fn parse(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ');
    let mut number = || fields.next()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    let (major, minor) = fields.next()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
    let options = fields.next()?.to_owned();
    let propagation = fields.by_ref().take_while(|field| *field != "-").map(str::to_owned);
    let propagation = propagation.collect();
    let filesystem = fields.next()?.to_owned();
    let source = unescape(fields.next()?);
    let super_options = fields.next()?.to_owned();
    Some(Mount {
        id,
        parent,
        device,
        root,
        point,
        options,
        propagation,
        filesystem,
        source,
        super_options,
    })
}

/// Blanks, newlines and backslashes are written as three octal digits (`mangle`,
/// include/linux/seq_file.h).
fn unescape(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match after.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out + rest
}

fn stat_all(ids: &mut [u64], told: &mut [u64]) -> io::Result<u64> {
    let (mut last, mut bytes) = (0, 0);
    loop {
        let listed = listmount(last, ids)?;
        for id in &ids[..listed] {
            match statmount(*id, told) {
                Ok(size) => bytes += size,
                // It was unmounted meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        match ids[..listed].last() {
            Some(id) if listed == ids.len() => last = *id,
            _ => return Ok(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_taken_apart() {
        let line = r"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue";
        let mount = parse(line).unwrap();
        assert_eq!((mount.id, mount.parent, mount.device), (36, 35, (98, 0)));
        assert_eq!((&mount.root[..], &mount.point[..]), ("/mnt1", "/mnt 2"));
        assert_eq!(mount.propagation, ["master:1", "shared:7"]);
        assert_eq!((&mount.filesystem[..], &mount.source[..]), ("ext3", "/dev/root"));
        assert_eq!(mount.super_options, "rw,errors=continue");
    }

    #[test]
    fn what_is_no_line_of_mountinfo_is_none() {
        for line in ["", "36 35", "36 35 98:0 / / rw - ext3", "x 35 98:0 / / rw - a b c"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn the_own_table_has_a_size_and_every_line_can_be_parsed() {
        let bytes = Table::new(MountQuery::Mountinfo).ask().unwrap();
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(bytes > 0 && text.lines().all(|line| parse(line).is_some()), "{text}");
    }

    #[test]
    fn statmount_tells_of_every_mount_where_the_kernel_has_it() {
        match Table::new(MountQuery::Statmount).ask() {
            // `struct statmount` has 512 bytes before its strings.
            Ok(bytes) => assert!(bytes >= 512, "{bytes}"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOSYS), "{error}"),
        }
    }
}
