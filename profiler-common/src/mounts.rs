//! The load that mount tables are: records in the shared arrays, and how mounts
//! are counted in what the kernel writes out of them.

use crate::layout::CACHE_LINE;
use crate::syscalls::SYSCALLS;

/// Pseudo-call of a task that reads a mount table through `/proc`, in its
/// [`Key`](crate::inflight::Key): after the mount calls.
pub const MOUNTINFO_READ: u8 = SYSCALLS as u8;

/// The files of a process that show its mount table, in the order of their
/// index.
pub const FILES: [&str; 3] = ["mountinfo", "mounts", "mountstats"];

/// How the files of [`FILES`] are told apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileKinds {
    /// Address of the operations (`file.f_op`) of each; 0 while it is not known.
    pub operations: [u64; FILES.len()],
    /// Process id of lockprof as the initial pid namespace numbers it: what it
    /// opens while it learns is not counted.
    pub own_process: u32,
    /// Index plus 1 of the file that lockprof opens to learn its operations; 0
    /// while it does not.
    pub learning: u32,
}

/// Where the kernel has what [`FileKinds`] is about, as read-only data: offsets
/// in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileFields {
    /// Of `ki_filp` in `kiocb`.
    pub kiocb_file: u32,
    /// Of `ki_pos` in `kiocb`.
    pub kiocb_position: u32,
    /// Of `f_op` in `file`.
    pub file_operations: u32,
    /// Of `private_data` in `file`: its `seq_file`.
    pub file_private: u32,
    /// Of `buf` in `seq_file`.
    pub seq_buffer: u32,
    /// Of `from` in `seq_file`: where what is left in the buffer begins.
    pub seq_from: u32,
    /// Of `count` in `seq_file`: how much is left in the buffer.
    pub seq_count: u32,
}

/// Reads of one file of [`FILES`] by tasks of one name in one cgroup, added up
/// atomically.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct ReaderRow {
    /// [`reader_key`]; 0 for a free row.
    pub key: u64,
    /// Index of the file plus 1; written after name and cgroup, which hold
    /// nothing before.
    pub file_plus_one: u64,
    /// Name of the task, 16 bytes.
    pub comm: [u64; 2],
    /// Id of the cgroup.
    pub cgroup: u64,
    /// How often the file was opened.
    pub opens: u64,
    /// `read(2)` calls and what else reads.
    pub reads: u64,
    /// Mounts that were written out.
    pub entries: u64,
    /// Time that the reads took, in ns.
    pub sum_ns: u64,
    /// Longest read, in ns.
    pub max_ns: u64,
    #[doc(hidden)]
    pub pad: [u64; 6],
}

const _: () = assert!(size_of::<ReaderRow>() == 2 * CACHE_LINE);

/// Rows for readers. After them comes one for each file, of all those that found
/// no row.
pub const READER_ROWS: u32 = 1024;
/// Rows that a reader looks at.
pub const READER_PROBES: u32 = 8;

/// Key of a [`ReaderRow`]: never 0.
#[inline(always)]
pub const fn reader_key(file: u32, comm: [u64; 2], cgroup: u64) -> u64 {
    let mixed = mix(mix(mix(file as u64 + 1) ^ comm[0]) ^ comm[1]);
    mix(mixed ^ cgroup) | 1
}

/// Row where the search for a key starts; the rest of the search is the rows
/// behind it, around the end.
#[inline(always)]
pub const fn reader_row(key: u64) -> u32 {
    (key >> 32) as u32 & (READER_ROWS - 1)
}

/// Superblocks made of one type of file system.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct SuperblockRow {
    /// [`name_key`]; 0 for a free row.
    pub key: u64,
    /// Name of the type, 16 bytes with a NUL; the first word is written last.
    pub name: [u64; 2],
    /// How many.
    pub count: u64,
    #[doc(hidden)]
    pub pad: [u64; 4],
}

const _: () = assert!(size_of::<SuperblockRow>() == CACHE_LINE);

/// Rows for types of file systems. After them comes one of all the other types.
pub const SUPERBLOCK_ROWS: u32 = 64;
/// Rows that a type looks at.
pub const SUPERBLOCK_PROBES: u32 = 8;

/// Key of a [`SuperblockRow`]: never 0.
#[inline(always)]
pub const fn name_key(name: [u64; 2]) -> u64 {
    mix(mix(name[0]) ^ name[1]) | 1
}

/// Row where the search for a type starts.
#[inline(always)]
pub const fn superblock_row(key: u64) -> u32 {
    (key >> 32) as u32 & (SUPERBLOCK_ROWS - 1)
}

/// Where a superblock says what it is, as read-only data: offsets in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SuperblockFields {
    /// Of `s_type` in `super_block`.
    pub superblock_type: u32,
    /// Of `s_root` in `super_block`.
    pub superblock_root: u32,
    /// Of `name` in `file_system_type`.
    pub type_name: u32,
}

/// Where a task says which mounts it sees, as read-only data: offsets in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountTableFields {
    /// Of `nsproxy` in `task_struct`.
    pub task_nsproxy: u32,
    /// Of `group_leader` in `task_struct`.
    pub task_leader: u32,
    /// Of `tgid` in `task_struct`.
    pub task_process: u32,
    /// Of `comm` in `task_struct`.
    pub task_comm: u32,
    /// Of `mnt_ns` in `nsproxy`.
    pub nsproxy_namespace: u32,
    /// Of `ns.inum` in `mnt_namespace`.
    pub namespace_inum: u32,
    /// Of `nr_mounts` in `mnt_namespace`.
    pub namespace_mounts: u32,
}

/// What a walk over all tasks writes of one: of every process, and of each thread
/// that is not in the mount namespace of its process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountTask {
    /// Number of its mount namespace.
    pub namespace: u32,
    /// Mounts in that.
    pub mounts: u32,
    /// Process id, as the initial pid namespace numbers it.
    pub process: u32,
    #[doc(hidden)]
    pub pad: u32,
    /// Id of its cgroup; 0 where the kernel does not tell.
    pub cgroup: u64,
    /// Name of the task, 16 bytes.
    pub comm: [u64; 2],
}

const _: () = assert!(size_of::<MountTask>() == 40);

const fn mix(value: u64) -> u64 {
    // The finalizer of MurmurHash3.
    let value = (value ^ value >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let value = (value ^ value >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ value >> 33
}

/// Counts the mounts in a buffer, eight bytes at a time.
///
/// A mount takes a line. In `mountstats` lines may follow that say more of it:
/// they begin with a tab, or are empty (`nfs_show_stats` in fs/nfs/super.c). No
/// mount begins with one of these: the kernel writes them in octal
/// (`show_mountinfo`, `show_vfsmnt` and `show_vfsstat` in fs/proc_namespace.c).
#[derive(Clone, Copy, Debug)]
pub struct EntryCounter {
    /// By byte of a word, how many mounts began there.
    begun: u64,
    /// Bit 7 when the byte before ended a line.
    after_line: u64,
}

const EVERY_BYTE: u64 = 0x0101_0101_0101_0101;
const LOW_BITS: u64 = 0x7f * EVERY_BYTE;

/// Fills the rest of a word that the buffer does not fill: begins nothing.
pub const FILLER: u8 = b'\t';

impl EntryCounter {
    /// Before the first word of a buffer, which begins with a mount.
    pub const START: Self = Self { begun: 0, after_line: 0x80 };

    /// Counts the mounts that begin in `word`. Between two calls of
    /// [`take`](Self::take) there may be 63.
    #[inline(always)]
    pub const fn add(&mut self, word: u64) {
        let word = u64::from_le(word);
        let ends = equal(word, b'\n');
        let follows = ends | equal(word, b'\t');
        self.begun += (((ends << 8) | self.after_line) & !follows) >> 7;
        self.after_line = ends >> 56;
    }

    /// The count since the last call.
    #[inline(always)]
    pub const fn take(&mut self) -> u64 {
        let count = self.begun.wrapping_mul(EVERY_BYTE) >> 56;
        self.begun = 0;
        count
    }
}

/// Bit 7 of every byte of `word` that is `byte`.
#[inline(always)]
const fn equal(word: u64, byte: u8) -> u64 {
    let zero = word ^ (byte as u64 * EVERY_BYTE);
    !(((zero & LOW_BITS) + LOW_BITS) | zero | LOW_BITS)
}

/// A read of a mount table in one word, beside its task's slot: the file's
/// `seq_file`, which is aligned to 8 bytes at least, and in the bits that this
/// leaves which file it is, and whether what is left in its buffer is untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadState(pub u64);

const UNTOUCHED: u64 = 4;

impl ReadState {
    /// A read of the file with this index, whose `seq_file` is at `seq`.
    /// `untouched` says that its buffer holds bytes of which none was handed out.
    #[inline(always)]
    pub const fn new(seq: u64, file: u32, untouched: bool) -> Self {
        let untouched = if untouched { UNTOUCHED } else { 0 };
        Self(seq & !7 | file as u64 & 3 | untouched)
    }

    /// Address of the `seq_file`.
    #[inline(always)]
    pub const fn seq(self) -> u64 {
        self.0 & !7
    }

    /// Index of the file.
    #[inline(always)]
    pub const fn file(self) -> u32 {
        (self.0 & 3) as u32
    }

    /// Whether the read, which returned `returned`, filled the buffer anew, where
    /// `from` is where what is left in it begins now (`seq_read_iter` in
    /// fs/seq_file.c).
    ///
    /// It hands out what was left first and, if nothing of that remains, fills the
    /// buffer and hands out from its start. So what it returned is `from`, plus
    /// what was left, if it filled the buffer; else `from` is that much more than
    /// it was.
    #[inline(always)]
    pub const fn refilled(self, from: u64, returned: i64) -> bool {
        let untouched = self.0 & UNTOUCHED != 0;
        if returned < 0 {
            return from == 0 && !untouched;
        }
        returned as u64 > from || returned as u64 == from && !untouched
    }
}

#[cfg(feature = "user")]
mod plain_data {
    // SAFETY: `repr(C)`, integers only, no implicit padding.
    unsafe impl aya::Pod for super::FileKinds {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::FileFields {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::SuperblockFields {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::MountTableFields {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts as the program does: by chunks of 16 words, filled up.
    fn count(text: &str) -> u64 {
        let mut counter = EntryCounter::START;
        let mut count = 0;
        for chunk in text.as_bytes().chunks(128) {
            let mut words = [u64::from_ne_bytes([FILLER; 8]); 16];
            for (word, bytes) in words.iter_mut().zip(chunk.chunks(8)) {
                let mut filled = [FILLER; 8];
                filled[..bytes.len()].copy_from_slice(bytes);
                *word = u64::from_ne_bytes(filled);
            }
            words.iter().for_each(|word| counter.add(*word));
            count += counter.take();
        }
        count
    }

    #[test]
    fn every_line_is_a_mount_wherever_it_ends() {
        for len in 0..300 {
            for lines in [0, 1, 2, 5, 40] {
                let line = format!("{}\n", "x".repeat(len));
                let text = line.repeat(lines);
                // Empty lines are no mounts.
                let expected = if len == 0 { 0 } else { lines as u64 };
                assert_eq!(count(&text), expected, "{lines} lines of {len} bytes");
            }
        }
    }

    #[test]
    fn an_empty_buffer_has_no_mount() {
        assert_eq!(count(""), 0);
    }

    #[test]
    fn lines_that_say_more_of_a_mount_are_none() {
        let text = "device none mounted on / with fstype rootfs\n\
                    device host:/x mounted on /mnt with fstype nfs4 statvers=1.1\n\
                    \topts:\trw,vers=4.2\n\tage:\t12\n\n\tper-op statistics\n\t        NULL: 1 1 0\n\n\
                    no device mounted on /proc with fstype proc\n";
        assert_eq!(count(text), 3);
    }

    #[test]
    fn bytes_next_to_tab_and_newline_are_not_taken_for_them() {
        for byte in 0..=u8::MAX {
            let word = u64::from_ne_bytes([byte; 8]);
            let all = 0x80 * EVERY_BYTE;
            assert_eq!(equal(word, b'\n'), if byte == b'\n' { all } else { 0 }, "{byte}");
        }
        assert_eq!(
            equal(u64::from_ne_bytes(*b"\n\x0bx\n\t\n\x0b\n"), b'\n'),
            0x8000_8000_8000_0080
        );
    }

    #[test]
    fn the_shortest_mounts_of_a_chunk_are_counted() {
        let mut counter = EntryCounter::START;
        let line = u64::from_ne_bytes(*b"a\nb\nc\nd\n");
        (0..16).for_each(|_| counter.add(line));
        assert_eq!(counter.take(), 64, "16 words of four");
    }

    /// `seq_read_iter`, as far as the buffer is concerned: reads of `sizes` bytes
    /// in turn of records that are `record` bytes long; how often it filled the
    /// buffer of `capacity` bytes, and how often that was noticed.
    fn reads(record: usize, records: usize, capacity: usize, sizes: &[usize]) -> (u32, u32) {
        let (mut from, mut count, mut written) = (0, 0, 0);
        let (mut filled, mut noticed) = (0, 0);
        for size in sizes.iter().cycle().take(10_000) {
            let state = ReadState::new(0x1000, 1, count > 0 && from == 0);
            let mut room = *size;
            let mut copied = count.min(room);
            (from, count, room) = (from + copied, count - copied, room - copied);
            let fills = count == 0;
            if fills {
                let more = |count: usize, written: usize| {
                    written < records && (count == 0 || count < room && count + record <= capacity)
                };
                while more(count, written) {
                    (count, written) = (count + record, written + 1);
                }
                filled += u32::from(count != 0);
                from = count.min(room);
                (count, copied) = (count - from, copied + from);
            }
            let total = from + count;
            let refilled = state.refilled(from as u64, copied as i64);
            noticed += u32::from(refilled && total != 0);
            if copied == 0 {
                break;
            }
        }
        assert_eq!(written, records, "reads of {sizes:?} end");
        (filled, noticed)
    }

    #[test]
    fn every_filling_of_the_buffer_is_noticed_once() {
        for record in [1, 7, 40, 100] {
            for sizes in [&[1][..], &[3], &[40], &[39, 1], &[100, 7, 1], &[128], &[4096], &[65536]]
            {
                let (filled, noticed) = reads(record, 90, 100, sizes);
                assert_eq!(filled, noticed, "records of {record}, reads of {sizes:?}");
                assert!(filled > 0);
            }
        }
    }

    #[test]
    fn of_a_read_that_fails_only_a_new_filling_counts() {
        assert!(ReadState::new(8, 0, false).refilled(0, -14), "filled, and nothing taken");
        assert!(!ReadState::new(8, 0, true).refilled(0, -14), "still the filling before");
        assert!(!ReadState::new(8, 0, false).refilled(5, -14), "some of it was taken before");
    }

    #[test]
    fn a_read_keeps_its_file_and_where_its_buffer_is() {
        let state = ReadState::new(0xffff_8881_0123_4568, 2, true);
        assert_eq!((state.seq(), state.file()), (0xffff_8881_0123_4568, 2));
    }

    #[test]
    fn keys_are_never_zero_and_tell_files_names_and_cgroups_apart() {
        let key = reader_key(0, [1, 2], 3);
        assert_ne!(key, 0);
        for other in [reader_key(1, [1, 2], 3), reader_key(0, [2, 2], 3), reader_key(0, [1, 3], 3)]
        {
            assert_ne!(key, other);
        }
        assert_ne!(key, reader_key(0, [1, 2], 4));
        assert!(reader_row(u64::MAX) < READER_ROWS);
        assert_ne!(name_key([0, 0]), 0);
        assert!(superblock_row(u64::MAX) < SUPERBLOCK_ROWS);
    }
}
