//! What the storm's processes tell the caller: counters in shared memory, and
//! records through a pipe.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::pace::Pace;
use super::words::Words;
use crate::storm::start::Op;
use crate::storm::sys::{Shareable, SharedMemory};

/// Errnos that are told apart; larger ones count under 0, "other". The largest
/// on Linux is 133 (asm-generic/errno.h).
const ERRNOS: usize = 134;

/// Totals over all processes. Every start adds what it did once, at its end.
#[repr(C)]
pub(super) struct Totals {
    pub(super) pace: Pace,
    pub(super) failed_starts: AtomicU64,
    pub(super) mounts: AtomicU64,
    pub(super) umounts: AtomicU64,
    pub(super) pivots: AtomicU64,
    pub(super) chroots: AtomicU64,
    pub(super) mountinfo_reads: AtomicU64,
    pub(super) mountinfo_bytes: AtomicU64,
    /// Workers, readers and starts that ended by a signal or a panic.
    pub(super) lost_processes: AtomicU64,
    errors: [[AtomicU64; ERRNOS]; Op::ALL.len()],
    /// Of the first error without an errno.
    pub(super) words: Words,
}

// SAFETY: atomics alone, and no destructor.
unsafe impl Shareable for Totals {}

/// The counters.
pub(super) struct SharedCounters(SharedMemory<Totals>);

impl std::ops::Deref for SharedCounters {
    type Target = Totals;

    fn deref(&self) -> &Totals {
        &self.0
    }
}

impl SharedCounters {
    /// All zero.
    pub(super) fn new() -> io::Result<Self> {
        SharedMemory::new().map(Self)
    }
}

impl Totals {
    pub(super) fn count_error(&self, op: Op, error: &io::Error) {
        if error.raw_os_error().is_none() {
            self.words.say(op, &error.to_string());
        }
        let errno = error.raw_os_error().and_then(|e| usize::try_from(e).ok());
        let slot = errno.filter(|e| *e < ERRNOS).unwrap_or(0);
        self.errors[op as usize][slot].fetch_add(1, Ordering::Relaxed);
    }

    /// Errors that happened: operation, errno (0 for one without or beyond the
    /// table) and how often.
    pub(super) fn errors(&self) -> Vec<(Op, i32, u64)> {
        let mut found = Vec::new();
        for (op, by_errno) in Op::ALL.into_iter().zip(&self.errors) {
            for (errno, count) in (0..).zip(by_errno) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    found.push((op, errno, count));
                }
            }
        }
        found
    }
}

/// Bytes of a [`Record`] in the pipe.
pub(super) const RECORD_BYTES: usize = 16;

/// What happened to a start, or to the storm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// Its root is in place, this long after the fork.
    Started {
        /// In ns.
        latency_ns: u64,
    },
    /// It, or the storm's own preparation, could not go on.
    Failed {
        /// The step.
        op: Op,
        /// Why.
        errno: i32,
    },
    /// All is prepared: starts begin.
    Opened {
        /// Before the first start, in ns of `CLOCK_MONOTONIC`.
        at_ns: u64,
    },
    /// The last worker has ended.
    Done {
        /// After that, on the same clock.
        at_ns: u64,
    },
}

/// Where the number of a step is for records without one.
const STARTED: u32 = u32::MAX;
const OPENED: u32 = u32::MAX - 1;
const DONE: u32 = u32::MAX - 2;

impl Record {
    pub(super) fn encode(self) -> [u8; RECORD_BYTES] {
        let (op, errno, ns) = match self {
            Self::Started { latency_ns } => (STARTED, 0, latency_ns),
            Self::Failed { op, errno } => (op as u32, errno, 0),
            Self::Opened { at_ns } => (OPENED, 0, at_ns),
            Self::Done { at_ns } => (DONE, 0, at_ns),
        };
        let mut bytes = [0; RECORD_BYTES];
        bytes[..4].copy_from_slice(&op.to_ne_bytes());
        bytes[4..8].copy_from_slice(&errno.to_ne_bytes());
        bytes[8..].copy_from_slice(&ns.to_ne_bytes());
        bytes
    }

    /// `None` for bytes that [`Record::encode`] does not make.
    pub(super) fn decode(bytes: [u8; RECORD_BYTES]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h, ns @ ..] = bytes;
        let ns = u64::from_ne_bytes(ns);
        match u32::from_ne_bytes([a, b, c, d]) {
            STARTED => Some(Self::Started { latency_ns: ns }),
            OPENED => Some(Self::Opened { at_ns: ns }),
            DONE => Some(Self::Done { at_ns: ns }),
            op => {
                let op = *Op::ALL.get(usize::try_from(op).ok()?)?;
                Some(Self::Failed { op, errno: i32::from_ne_bytes([e, f, g, h]) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were() {
        for record in [
            Record::Started { latency_ns: 0 },
            Record::Started { latency_ns: u64::MAX },
            Record::Failed { op: Op::MakePrivate, errno: 1 },
            Record::Failed { op: Op::ReadMountinfo, errno: 133 },
            Record::Opened { at_ns: 3 },
            Record::Done { at_ns: u64::MAX },
        ] {
            assert_eq!(Record::decode(record.encode()), Some(record));
        }
    }

    #[test]
    fn bytes_that_are_no_record_are_refused() {
        let mut bytes = Record::Failed { op: Op::Fork, errno: 1 }.encode();
        bytes[..4].copy_from_slice(&200_u32.to_ne_bytes());
        assert_eq!(Record::decode(bytes), None);
    }

    #[test]
    fn errors_are_kept_by_operation_and_errno() {
        let counters = SharedCounters::new().unwrap();
        assert_eq!(counters.errors(), []);
        for _ in 0..3 {
            counters.count_error(Op::Bind, &io::Error::from_raw_os_error(libc::ENOSPC));
        }
        counters.count_error(Op::Tmpfs, &io::Error::from_raw_os_error(4000));
        assert_eq!(counters.errors(), [(Op::Tmpfs, 0, 1), (Op::Bind, libc::ENOSPC, 3)]);
    }

    #[test]
    fn a_forked_process_counts_where_the_parent_reads() {
        let counters = SharedCounters::new().unwrap();
        match crate::storm::sys::fork().unwrap() {
            crate::storm::sys::Forked::Child => {
                counters.mounts.fetch_add(41, Ordering::Relaxed);
                crate::storm::sys::exit(0)
            }
            crate::storm::sys::Forked::Parent(pid) => {
                let end =
                    rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
                assert_eq!(end.unwrap().unwrap().1.exit_status(), Some(0));
            }
        }
        assert_eq!(counters.mounts.load(Ordering::Relaxed), 41);
    }
}
