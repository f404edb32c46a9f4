//! Which lock is which: the catalogue (data) and resolution (decisions over
//! facts about the kernel).
//!
//! [`resolve::resolve`] is the way in: what the user chose and what the kernel
//! tells go in, one [`resolve::Resolution`] per wanted lock comes out.

pub mod catalogue;

pub mod choices;

pub mod resolve;

mod by_symbol;

mod by_text;

use std::fmt;

use serde::{Deserialize, Serialize};

/// What sort of lock it is: decides how its waits are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockKind {
    /// `struct rw_semaphore`: waiters sleep; readers and writers apart.
    Rwsem,
    /// `struct mutex`: waiters sleep.
    Mutex,
    /// `spinlock_t`, `raw_spinlock_t`, and the lock inside a `seqlock_t`.
    Spinlock,
    /// `rwlock_t`: waiters spin; readers and writers apart.
    Rwlock,
}

impl LockKind {
    /// All kinds, in the order that messages list them.
    pub const ALL: [Self; 4] = [Self::Rwsem, Self::Mutex, Self::Spinlock, Self::Rwlock];

    /// Mode of the waits in each series of the lock, the first series first.
    pub const fn modes(self) -> &'static [Mode] {
        match self {
            Self::Rwsem | Self::Rwlock => &[Mode::Read, Mode::Write],
            Self::Mutex => &[Mode::Mutex],
            Self::Spinlock => &[Mode::Spin],
        }
    }

    /// Whether waiters sleep on a kernel without `PREEMPT_RT`.
    pub const fn sleeps(self) -> bool {
        matches!(self, Self::Rwsem | Self::Mutex)
    }
}

impl fmt::Display for LockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rwsem => "rwsem",
            Self::Mutex => "mutex",
            Self::Spinlock => "spinlock",
            Self::Rwlock => "rwlock",
        })
    }
}

/// How a waiter wants the lock; the `mode` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Shared, of a rwsem or rwlock.
    Read,
    /// Exclusive, of a rwsem or rwlock.
    Write,
    /// A spinlock.
    Spin,
    /// A mutex.
    Mutex,
    /// Exclusive, of a rwsem, acquired by spinning while the owner ran: the
    /// contention tracepoints do not see these waits, so no other mode has them.
    Optimistic,
}

impl Mode {
    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Spin => "spin",
            Self::Mutex => "mutex",
            Self::Optimistic => "optimistic",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How the address of a lock was found; the `method` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// A data symbol in `/proc/kallsyms`.
    Kallsyms,
    /// A System.map that the user named, shifted by the KASLR offset.
    SystemMap,
    /// Decoded from kernel text that takes the lock.
    Text,
}

impl Method {
    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kallsyms => "kallsyms",
            Self::SystemMap => "system_map",
            Self::Text => "text",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A lock whose address is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedLock {
    /// Label value, for instance `mnt_id_lock`.
    pub name: String,
    /// Symbol and member on this kernel, for instance `mnt_id_xa.xa_lock`.
    pub symbol: String,
    /// What sort of lock it is on this kernel.
    pub kind: LockKind,
    /// Address that the contention tracepoints carry for it.
    pub address: u64,
    /// How the address was found.
    pub method: Method,
}
