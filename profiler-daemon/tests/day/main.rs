//! A day of operation in a minute: as many scrapes as a day has at one every 15 s,
//! while containers come and go. What the daemon needs stays what it was.

#[path = "../common/mod.rs"]
mod common;
#[path = "../http/daemon.rs"]
#[allow(dead_code, reason = "each test file uses its own part")]
mod daemon;
#[path = "../http/exposition.rs"]
#[allow(dead_code, reason = "each test file uses its own part")]
mod exposition;
mod growth;
#[path = "../attribution/mounts.rs"]
#[allow(dead_code, reason = "each test file uses its own part")]
mod mounts;
mod reads;
mod scrapes;
#[path = "../attribution/tasks.rs"]
#[allow(dead_code, reason = "each test file uses its own part")]
mod tasks;
#[path = "../http/wire.rs"]
#[allow(dead_code, reason = "each test file uses its own part")]
mod wire;

/// Scrapes of a day, one every 15 s.
const SCRAPES: usize = 24 * 3600 / 15;
