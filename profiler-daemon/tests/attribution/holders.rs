//! Who holds `namespace_sem` for long comes out as the one who blocks it.

use std::ffi::CStr;
use std::io;
use std::time::Duration;

use lockprof::commands::session::Session;
use lockprof::hooks::attribution::Wanted;
use lockprof::snapshot::{Basis, Blocker, Snapshot};

use super::tasks::{Ready, Task};
use super::{
    NAMESPACE_SEM, alone, blocked, common, described, mounts, ranking, session, settled, waits,
    watch_until,
};
use crate::needs_bpf;

/// Waits for `namespace_sem` that must be seen at least.
const WAITS: u64 = 300;
/// The same on a machine that software emulates, or by one that holds it for
/// long.
const FEW_WAITS: u64 = 100;

/// Mounts in the table that is read.
const TABLE: usize = 20_000;
/// Mounts in the tree that is copied.
const TREE: usize = 5_000;

/// Runs until one has the machine for itself.
const RUNS: usize = 10;

/// Tasks that mount and unmount now and then, as hosts do.
fn others() -> Vec<Task> {
    let pause = Duration::from_millis(2);
    let start = |_| Task::start(c"mounter", None, |ready| mounts::keep_mounting(ready, pause));
    let tasks: Vec<_> = (0..3).map(start).collect();
    tasks.iter().for_each(Task::await_ready);
    tasks
}

/// What a run saw.
struct Run {
    /// Until the tasks were told to end.
    at_work: Snapshot,
    /// All of it.
    whole: Snapshot,
}

/// Lets `work` run as a task called `name` against the others until there were
/// so many waits, and makes sure that it is the first blocker. Where somebody
/// who is none of these tasks is first, there is another run.
fn first_blocker(
    session: &Session,
    name: &CStr,
    enough: u64,
    work: impl Fn(&Ready) -> io::Result<()>,
) -> Run {
    let name = (name, name.to_str().expect("plain"));
    let mut strangers = Vec::new();
    for _ in 0..RUNS {
        let before = settled(session);
        let holder = Task::start(name.0, None, &work);
        holder.await_ready();
        let others = others();
        let ready = session.fresh_snapshot();
        let at_work = watch_until(session, &ready, "waits", |window| waits(window) >= enough);
        drop((others, holder));
        let whole = settled(session).since(&before);
        common::charges_fit(&whole);
        match ranking(&at_work)[0].0.as_str() {
            first if first == name.1 => return Run { at_work, whole },
            "mounter" => panic!("{}", described(&at_work)),
            stranger => strangers.push(stranger.to_owned()),
        }
    }
    panic!("others used the mounts of this machine in every run: {strangers:?}");
}

#[test]
fn who_reads_a_large_mount_table_all_the_time_is_the_first_blocker() {
    needs_bpf!("who_reads_a_large_mount_table_all_the_time_is_the_first_blocker");
    let _alone = alone();
    let session = session(Wanted::default());
    let read = |ready: &Ready| mounts::keep_reading(ready, TABLE);
    let enough = if common::emulated() { FEW_WAITS } else { WAITS };
    let Run { at_work, whole } = first_blocker(&session, c"tablereader", enough, read);
    // It only reads: the lock names it as a reader, never as the owner. When it
    // ends, it takes its namespace down, which is another matter.
    let as_what = |basis| {
        blocked(&at_work, |row| row.party.task() == "tablereader" && row.basis == basis).count
    };
    assert!(as_what(Basis::ReaderHint) > 0, "{}", described(&at_work));
    assert_eq!(as_what(Basis::Owner), 0, "{}", described(&at_work));
    // Those who wait for it are the others.
    let mut waiters = whole.waiters.iter().filter(|row| row.lock == NAMESPACE_SEM);
    assert!(waiters.any(|row| row.party.task() == "mounter"), "{}", described(&whole));
}

#[test]
fn who_copies_a_large_tree_is_charged_as_the_owner_with_the_call() {
    const TEST: &str = "who_copies_a_large_tree_is_charged_as_the_owner_with_the_call";
    needs_bpf!("who_copies_a_large_tree_is_charged_as_the_owner_with_the_call");
    let _alone = alone();
    let session = session(Wanted::default());
    let bind = |ready: &Ready| mounts::keep_binding(ready, TREE);
    let Run { at_work, .. } = first_blocker(&session, c"bigbinder", FEW_WAITS, bind);
    let owner = |row: &Blocker| row.party.task() == "bigbinder" && row.basis == Basis::Owner;
    assert!(blocked(&at_work, owner).count > 0, "{}", described(&at_work));
    let hooked = |call: &str| {
        let mut hooks = session.programs().hooks().iter();
        hooks.any(|hook| hook.call() == Some(call) && hook.backend.is_some())
    };
    if !hooked("mount") || !hooked("umount2") {
        return common::skip(&format!("{TEST} (its calls)"), "mount calls cannot be hooked");
    }
    // It holds the lock in its calls and nowhere else.
    for row in at_work.blockers.iter().filter(|row| row.lock == NAMESPACE_SEM && owner(row)) {
        let call = row.call.as_deref();
        assert!(matches!(call, Some("mount" | "umount2")), "{row:?}: {}", described(&at_work));
    }
    // Copying takes long under the lock; taking the copy down may not.
    let copying = blocked(&at_work, |row| owner(row) && row.call.as_deref() == Some("mount"));
    assert!(copying.count > 0, "{}", described(&at_work));
}
