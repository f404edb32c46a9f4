use super::*;
use crate::findings::example::{
    self, blocker, call, container, ms, reader, slow_wait, task, wait, waiter,
};
use crate::snapshot::Hook;

/// Ten starts, and readers that open 19 or 20 tables in each.
fn starts_with(opens: u64) -> Snapshot {
    let mut window = example::quiet();
    window.locks = vec![wait(NAMESPACE_SEM, Mode::Write, 1_000)];
    window.syscalls = vec![call("pivot_root", 10, 10)];
    window.mountinfo_readers = Some(vec![
        reader("mountinfo", container("runc", "aa"), opens / 2, 3_000, 20),
        reader("mounts", container("runc", "bb"), opens - opens / 2, 1_000, 10),
    ]);
    window.blockers = vec![
        blocker(
            NAMESPACE_SEM,
            Basis::ReaderHint,
            Some(MOUNTINFO_READ),
            container("runc", "aa"),
            400,
        ),
        blocker(NAMESPACE_SEM, Basis::Owner, Some("mount"), container("runc", "aa"), 600),
    ];
    window
}

#[test]
fn opens_of_one_task_name_add_up_over_containers_and_files() {
    let found = per_start(&starts_with(200)).unwrap();
    assert_eq!(found.title, "`runc` opens mount tables in /proc 20 times per container start");
    assert_eq!(found.figures[2].1, "20", "mounts walked per open");
    assert_eq!(found.weight, 0.4, "what is blocked in mount calls is not its readers' doing");
}

#[test]
fn as_many_opens_as_a_good_runtime_needs_are_fine() {
    assert!(per_start(&starts_with(199)).is_none());
}

#[test]
fn opens_without_starts_or_without_waits_are_nothing_per_start() {
    let mut window = starts_with(10_000);
    window.syscalls = vec![call("pivot_root", 4, 10)];
    assert!(per_start(&window).is_none());
    let mut window = starts_with(10_000);
    window.locks.clear();
    assert!(per_start(&window).is_none());
}

/// A kernel that refuses the hooks on readers.
fn without_hooks() -> Snapshot {
    let mut window = starts_with(0);
    window.mountinfo_readers = None;
    window.hooks = vec![Hook { hook: "sys_mount".into(), backend: "tracepoint".into() }];
    window.waiters =
        vec![waiter(NAMESPACE_SEM, Mode::Read, None, container("runc", "aa"), 200, 300)];
    window.blockers.clear();
    window
}

#[test]
fn where_readers_are_not_counted_their_waits_tell() {
    let window = without_hooks();
    let found = per_start(&window).unwrap();
    assert_eq!(found.title, "`runc` waits 20 times per container start to read namespace_sem");
    let found = load(&window).unwrap();
    assert_eq!(found.title, "`runc` in container aa spends 300ms waiting to read mount tables");
    assert_eq!(found.weight, 0.3);
    assert!(found.figures.iter().any(|(name, _)| name == "readers counted"));
}

#[test]
fn where_readers_are_not_counted_whom_the_lock_named_as_one_tells() {
    let mut window = without_hooks();
    let reader = container("cat", "cc");
    window.blockers = vec![
        blocker(NAMESPACE_SEM, Basis::ReaderHint, None, reader.clone(), 500),
        blocker(NAMESPACE_SEM, Basis::Owner, None, reader, 100),
    ];
    let found = load(&window).unwrap();
    assert_eq!(
        found.title,
        "`cat` in container cc makes others wait 500ms by reading mount tables"
    );
    assert_eq!(found.weight, 0.5, "an owner is no reader");
}

#[test]
fn readers_inside_a_mount_call_are_not_taken_for_mountinfo() {
    let mut window = without_hooks();
    window.waiters[0].call = Some("listmount".into());
    assert!(load(&window).is_none());
    let mut window = without_hooks();
    window.hooks.clear();
    assert!(load(&window).is_none(), "nor are those of which that is not known");
}

#[test]
fn slow_waits_with_the_stack_of_a_reader_are_enough() {
    let mut window = without_hooks();
    window.waiters.clear();
    let stack = ["rwsem_down_read_slowpath+0x1", "m_start+0x20", "seq_read_iter+0x8"];
    let (read, write) = (Mode::Read, Mode::Write);
    window.slow_waits = example::slow(vec![
        slow_wait(1, NAMESPACE_SEM, read, task("cat"), 150, &stack),
        slow_wait(2, NAMESPACE_SEM, write, task("cat"), 150, &stack),
        slow_wait(3, "mount_lock", read, task("cat"), 150, &stack),
    ]);
    let found = load(&window).unwrap();
    assert_eq!(found.weight, 0.15);
    assert_eq!(found.title, "Tasks that read mount tables wait 150ms");
    window.slow_waits.as_mut().unwrap().recent[0].stack = vec!["m_starter+0x1".into()];
    assert!(load(&window).is_none());
}

#[test]
fn readers_that_block_a_tenth_of_the_waits_are_a_load() {
    let mut window = starts_with(10);
    let found = load(&window).unwrap();
    assert_eq!(found.title, "`runc` in container aa spends 20.0ms reading mount tables");
    window.blockers[0].waits.sum_ns = ms(99);
    assert!(load(&window).is_none());
}

#[test]
fn a_reader_that_never_stops_is_one_even_if_nobody_waits() {
    let mut window = example::quiet();
    window.mountinfo_readers =
        Some(vec![reader("mountinfo", example::runtime("systemd", Runtime::Systemd), 9, 9, 2_000)]);
    let found = load(&window).unwrap();
    assert_eq!(found.weight, 0.0);
    assert!(found.remedy.starts_with("systemd reads the table again"), "{}", found.remedy);
    window.mountinfo_readers.as_mut().unwrap()[0].reads.sum_ns -= 1;
    assert!(load(&window).is_none());
}

#[test]
fn the_kernel_is_blamed_before_6_8_and_where_readers_matter() {
    let mut window = starts_with(10);
    assert!(old_kernel(&window).is_none());
    window.host.kernel = "6.7.12".into();
    let found = old_kernel(&window).unwrap();
    assert!(found.title.starts_with("Linux 6.7.12 offers no way"), "{}", found.title);
    window.blockers.clear();
    assert!(old_kernel(&window).is_none());
}
