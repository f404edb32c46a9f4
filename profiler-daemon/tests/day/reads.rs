//! Snapshots and what is written of them, without the network between: here the
//! allocator itself says to the byte what is kept.

use std::sync::Arc;

use lockprof::cli::Settings;
use lockprof::commands::session::Session;
use lockprof::serve::{Format, Process, render};
use lockprof::snapshot::containers::TopContainers;

use super::{SCRAPES, common, growth};
use crate::needs_bpf;

/// Rounds before anything is compared.
const WARM: usize = 500;
/// Names of whoever else waits on this machine meanwhile are kept, some bytes of
/// them for a read.
const BYTES_A_READ: f64 = 20.0;

#[test]
fn reading_and_writing_a_day_of_snapshots_keeps_no_memory() {
    needs_bpf!("reading_and_writing_a_day_of_snapshots_keeps_no_memory");
    let session = Session::start(&Settings::default()).expect("lockprof attaches");
    let mut containers = TopContainers::new(10);
    assert!(common::storm(1).status().expect("storm runs").success());
    common::settle(&session);
    let mut allocated_after = Vec::with_capacity(SCRAPES);
    for round in 0..WARM + SCRAPES {
        let snapshot = Arc::new(session.fresh_snapshot());
        let times = containers.update(&snapshot);
        let json = serde_json::to_vec(snapshot.as_ref()).expect("it can be written");
        let format = Format::ALL[round % Format::ALL.len()];
        let body = render(snapshot, times, session.since(), Process::read(), format);
        assert!(body.expect("it can be written").len() > 1000 && json.len() > 1000);
        drop(json);
        if round >= WARM {
            allocated_after.push(allocated());
        }
    }
    let grown = growth::per_round(&allocated_after);
    let (first, last) = (allocated_after[0], allocated_after[SCRAPES - 1]);
    eprintln!("{grown:.3} bytes a read; {first} bytes allocated, {last} in the end");
    assert!(grown <= BYTES_A_READ, "{grown} bytes a read");
}

/// Bytes that this process has allocated and not given back.
fn allocated() -> u64 {
    // SAFETY: no arguments; it adds up the allocator's own figures.
    let now = unsafe { libc::mallinfo2() };
    u64::try_from(now.uordblks + now.hblkhd).expect("bytes of memory")
}
