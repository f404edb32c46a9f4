//! `lockprof daemon` among clients that are many, slow, broken or hostile: a real
//! daemon on loopback, and what it is like afterwards.
//!
//! No test asserts a time. What is bounded is memory, descriptors and the number
//! of answers; deadlines only end a test that would hang.

#[path = "../common/mod.rs"]
mod common;

mod broken;
mod crowd;
mod daemon;
mod exposition;
mod mutated;
mod signals;
mod slow;
mod wire;
