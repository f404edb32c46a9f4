//! What the BPF programs and the daemon of lockprof agree on: record layouts,
//! bucket arithmetic, the address filter and the lock-free tables.
//!
//! The crate compiles for the BPF target and for the host. It depends on
//! nothing, allocates nothing and never panics, so that all of its logic can be
//! tested on the host and then run unchanged inside a tracing program.
#![cfg_attr(not(test), no_std)]

pub mod charges;
pub mod flags;
pub mod histogram;
pub mod hold;
pub mod inflight;
pub mod layout;
pub mod mounts;
pub mod samples;
pub mod slow;
pub mod spin_stack;
pub mod syscalls;
pub mod watch;
