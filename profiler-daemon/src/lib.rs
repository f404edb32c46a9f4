//! lockprof: which kernel lock, how long, on which NUMA node, and through
//! which mount call.
//!
//! The rooms, in the order of the flow. A room may use those above it in this
//! list, never those below; `tests/rooms.rs` checks the direction.

pub mod kernel;

pub mod locks;

pub mod snapshot;

pub mod who;

pub mod hooks;

pub mod reader;

pub mod findings;

pub mod serve;

pub mod top;

pub mod storm;

pub mod cli;

pub mod commands;
