//! Slow waits, one by one: a fixed ring of the most recent ones.
//!
//! A wait above a threshold takes the next number, and with it a place. Its
//! record belongs to whoever turns `writer` from 0 into a number; should an
//! earlier writer of the same place still be at it, the wait is not recorded,
//! which is counted. `number` is written last, so that a reader that finds
//! `writer` 0 and the same `number` before and after has a whole record.

/// Frames of a stack that are kept.
pub const FRAMES: usize = 24;

/// A slow wait.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct SlowWait {
    /// Whose turn it is to write, or 0.
    pub writer: u64,
    /// Number of the wait, from 1; 0 for a place never used.
    pub number: u64,
    /// End of the wait, in ns of `CLOCK_MONOTONIC`.
    pub ended_ns: u64,
    /// How long it took, in ns.
    pub waited_ns: u64,
    /// [`About`](crate::charges::About) of the waiter.
    pub waiter_about: u64,
    /// [`About`](crate::charges::About) of the blocker.
    pub blocker_about: u64,
    /// The waiter's cgroup and name.
    pub waiter: crate::charges::Identity,
    /// The blocker's cgroup and name; of no use for an unknown one.
    pub blocker: crate::charges::Identity,
    /// Thread id of the waiter.
    pub tid: u32,
    /// Where it ended.
    pub cpu: u32,
    /// Bytes of the stack; not above 8 times [`FRAMES`].
    pub stack_bytes: u64,
    #[doc(hidden)]
    pub pad: [u64; 2],
    /// Return addresses, innermost first.
    pub stack: [u64; FRAMES],
}

const _: () = assert!(size_of::<SlowWait>() == 320);

/// Entries of [`AttributionState::newcomers`], a power of two.
pub const NEWCOMERS: usize = 128;

/// What all CPUs share about the ring and the table of charges.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct AttributionState {
    /// Slow waits so far.
    pub slow: u64,
    /// Rows claimed so far: tells user space when there is somebody new.
    pub claimed: u64,
    #[doc(hidden)]
    pub pad: [u64; 6],
    /// Cgroups of the rows that were claimed last: row number `n`, counted from 0,
    /// left its own at `n % NEWCOMERS`. User space has to be quick, as a cgroup may
    /// be gone within the second.
    pub newcomers: [u64; NEWCOMERS],
}

const _: () = assert!(size_of::<AttributionState>() == 64 + 8 * NEWCOMERS);

/// What the programs need for attribution, as read-only data.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attribution {
    /// Rows that are claimed less one; 0 when attribution is off.
    pub rows_mask: u32,
    /// [`GROUP`](crate::charges::GROUP).
    pub group: u32,
    /// [`RESERVED`](crate::charges::RESERVED) times the number of locks.
    pub reserved: u32,
    /// Places of the ring less one; 0 when slow waits are not recorded.
    pub slow_mask: u32,
    /// What the hash of rows starts from.
    pub seed: u64,
    /// Threshold of slow waits, in ns.
    pub slow_ns: u64,
    /// How owners are read: 0 not at all.
    pub owners: u32,
    /// Offset of `comm` in `task_struct`.
    pub task_comm: u32,
    /// Steps in `cgroup_path` that lead from a task to the id of its cgroup: 0
    /// when it is not known.
    pub cgroup_steps: u32,
    /// Offsets: of `cgroups` in `task_struct`, then of the pointer to the cgroup
    /// in `css_set` (or to a controller's state, and from there to the cgroup),
    /// of `kn` in `cgroup`, and of `id` in `kernfs_node`.
    pub cgroup_path: [u32; 5],
    #[doc(hidden)]
    pub pad: [u32; 14],
}

const _: () = assert!(size_of::<Attribution>() == 128);

impl Attribution {
    /// Rows of the table of charges; 0 when attribution is off.
    pub const fn rows(&self) -> u32 {
        if self.rows_mask == 0 { 0 } else { self.reserved + self.rows_mask + 1 }
    }

    /// Places of the ring; 0 when slow waits are not recorded.
    pub const fn slow_places(&self) -> u32 {
        if self.slow_mask == 0 { 0 } else { self.slow_mask + 1 }
    }
}
