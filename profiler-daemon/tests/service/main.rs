//! lockprof as a service: what `packaging/systemd` says is what the daemon needs
//! and does. Without systemd as the first process; `cargo xtask test` installs the
//! units in a machine that has it besides.

#[path = "../common/mod.rs"]
mod common;

mod activation;
mod daemon;
mod exposure;
mod filter;
mod notify;
mod unit;
mod user;
