//! Who may ask the daemon, by what they show it: the real daemon, and real
//! clients.

#[path = "../common/mod.rs"]
mod common;

mod daemon;
mod fixture;
mod listen;
mod prometheus;
mod serve;
mod top;
