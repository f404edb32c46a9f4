use proptest::prelude::*;

use super::breakdown::{Breakdown, ROWS, Row};
use super::*;
use crate::findings::{example, findings};
use crate::locks::Mode;
use crate::snapshot::{Basis, Blocker, Charge, Hook, MOUNTINFO_READ, Party, Runtime, Waiter};
use example::{blocker, container, ms, slow, slow_wait, task, wait, waiter};

/// Everything that a table shows, with names that are wide, long or unknown.
fn rich() -> Snapshot {
    let (read, write) = (Mode::Read, Mode::Write);
    let runc = container("runc", "0123456789abcdef");
    let systemd = example::runtime("systemd", Runtime::Systemd);
    let kubelet = example::runtime("kubelet", Runtime::Kubelet);
    let mut window = example::busy();
    window.locks[0].numa_node = 1;
    window.locks[0].migrated = 3;
    window.waiters = vec![
        waiter("namespace_sem", write, Some("mount"), runc.clone(), 30, 3_000),
        waiter("namespace_sem", Mode::Optimistic, Some("mount"), runc.clone(), 10, 1_500),
        waiter("namespace_sem", read, Some(MOUNTINFO_READ), systemd.clone(), 9, 400),
        waiter("namespace_sem", read, None, task("ls 🦀\x1b[2J"), 1, 100),
        waiter("shrinker_rwsem", Mode::Mutex, Some("mount"), runc.clone(), 16, 1_500),
        Waiter { mode: None, ..waiter("tasklist_lock", write, None, Party::Other, 11, 1_000) },
    ];
    window.blockers = vec![
        blocker("namespace_sem", Basis::ReaderHint, Some(MOUNTINFO_READ), systemd, 3_000),
        blocker("namespace_sem", Basis::Owner, Some("mount"), runc.clone(), 2_000),
        blocker("namespace_sem", Basis::Unknown, None, Party::Unknown, 1_000),
        blocker("rcu_exp_mutex", Basis::Owner, Some("umount2"), kubelet, 1_500),
        blocker("tasklist_lock", Basis::Inferred, None, runc.clone(), 1_000),
    ];
    let up = ["rwsem_down_write_slowpath+0x2a1", "down_write+0x40", "do_lock_mount+0x77"];
    let calls = ["path_mount+0x1", "__x64_sys_mount+0x1a", "do_syscall_64+0x84"];
    let mount = [up.as_slice(), calls.as_slice()].concat();
    let elsewhere = [["rwsem_down_write_slowpath+0x300"].as_slice(), &mount[1..]].concat();
    let reader = ["rwsem_down_read_slowpath+0x1", "m_start+0x20", "seq_read_iter+0x8"];
    window.slow_waits = slow(vec![
        slow_wait(9, "namespace_sem", write, runc.clone(), 300, &mount),
        slow_wait(8, "namespace_sem", write, runc.clone(), 100, &elsewhere),
        slow_wait(7, "namespace_sem", read, runc.clone(), 90, &reader),
        slow_wait(6, "shrinker_rwsem", Mode::Mutex, runc, 50, &[]),
    ]);
    window
}

fn shown(by: Option<By>) -> String {
    render(&rich(), by, &[], &[], 100)
}

macro_rules! golden {
    ($($name:ident: $by:expr;)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(shown($by));
        }
    )*};
}

golden! {
    overview: None;
    by_lock: Some(By::Lock);
    by_node: Some(By::Node);
    by_waiter: Some(By::Waiter);
    by_blocker: Some(By::Blocker);
    by_runtime: Some(By::Runtime);
    by_syscall: Some(By::Syscall);
    by_stack: Some(By::Stack);
}

#[test]
fn findings_in_words() {
    let mut window = rich();
    window.host.kernel = "6.1.0".into();
    let found = findings(&window);
    insta::assert_snapshot!(render(&Snapshot::default(), None, &[], &found, 100));
}

#[test]
fn words_keep_to_the_width_of_the_terminal() {
    for width in [40, 80, 100] {
        let text = render(&Snapshot::default(), None, &[], &findings(&rich()), width);
        let (_, words) = text.split_once("FINDINGS").unwrap();
        let long: Vec<_> = words
            .lines()
            .filter(|line| textwrap::core::display_width(line) > width)
            // A single word is not broken, nor is it from the heading before it, nor
            // the name of a figure.
            .filter(|line| line.split_whitespace().count() > 2)
            .filter(|line| line.len() - line.trim_start().len() != 6)
            .collect();
        assert!(long.is_empty(), "{width}: {long:?}");
    }
}

#[test]
fn what_the_kernel_refuses_to_tell_is_said_and_not_shown_as_nothing() {
    let mut window = rich();
    (window.waiters, window.blockers, window.slow_waits) = (vec![], vec![], None);
    window.syscalls.clear();
    (window.mountinfo_readers, window.mountinfo_lock_wait_ns) = (None, None);
    let limit = Limit { what: "x is not measured".into(), why: "y".into(), remedy: None };
    for (by, said) in [
        (By::Waiter, "who waits is not observed on this kernel"),
        (By::Blocker, "who makes others wait is not observed on this kernel"),
        (By::Runtime, "who waits is not observed on this kernel"),
        (By::Syscall, "mount calls are not observed on this kernel"),
        (By::Stack, "stacks of slow waits are not recorded on this kernel"),
    ] {
        let text = render(&window, Some(by), std::slice::from_ref(&limit), &[], 100);
        assert!(text.contains(said), "{text}");
        assert!(text.contains("x is not measured\n  because y"), "{text}");
    }
    window.locks.clear();
    window.hooks = vec![Hook { hook: "sys_mount".into(), backend: "fentry".into() }];
    for by in [By::Lock, By::Node, By::Waiter, By::Blocker, By::Runtime] {
        let text = render(&window, Some(by), &[], &[], 100);
        assert!(text.contains("\nno waits\n"), "{text}");
    }
    let text = render(&window, Some(By::Syscall), &[], &[], 100);
    assert!(text.contains("\nno mount system calls\n"), "{text}");
}

#[test]
fn what_is_not_measured_is_not_shown_as_absent_but_with_its_reason() {
    let mut snapshot: Snapshot = serde_json::from_value(serde_json::json!({
        "schema": 1, "duration_ns": 1, "host": {"kernel": "6.18.0", "cpus": 2, "numa_nodes": []},
        "locks": [], "inflight": [], "handoffs": [], "syscalls": [], "dropped": [],
        "hooks": [{"hook": "sys_mount", "backend": "none"}],
    }))
    .expect("the documented JSON");
    let limit = Limit {
        what: "mount calls are not measured".into(),
        why: "tracepoint: tracefs is not there".into(),
        remedy: Some("CONFIG_FTRACE_SYSCALLS".into()),
    };
    let blind = render(&snapshot, None, &[limit], &[], 100);
    assert!(!blind.contains("no mount system calls"), "{blind}");
    let said = "mount calls are not measured\n  because tracepoint: tracefs is not there\n  \
                it takes CONFIG_FTRACE_SYSCALLS\n";
    assert!(blind.contains(said), "{blind}");
    snapshot.hooks[0].backend = "tracepoint".into();
    let seeing = render(&snapshot, None, &[], &[], 100);
    assert!(seeing.contains("no mount system calls"), "{seeing}");
    assert!(!seeing.contains("because"), "{seeing}");
}

#[test]
fn slow_waits_that_were_overwritten_are_counted() {
    let mut window = rich();
    window.slow_waits.as_mut().unwrap().count = 90;
    let text = render(&window, Some(By::Stack), &[], &[], 100);
    let said =
        "90 waits took 10.0ms or longer; the last 4 are below, and 86 were overwritten since";
    assert!(text.contains(said), "{text}");
}

fn charge() -> impl Strategy<Value = Charge> {
    (1..1_000u64, 0..1_000_000_000u64).prop_map(|(count, sum_ns)| Charge {
        count,
        sum_ns,
        max_ns: sum_ns,
    })
}

fn total<'a>(rows: impl IntoIterator<Item = &'a Row>) -> (u64, u64) {
    let charges = rows.into_iter().map(|row| row.charge);
    charges.fold((0, 0), |(count, ns), c| (count + c.count, ns + c.sum_ns))
}

proptest! {
    #[test]
    fn rows_and_what_was_left_out_are_the_total(
        charges in proptest::collection::vec(charge(), 1..3 * ROWS),
    ) {
        let rows: Vec<_> = charges.iter().enumerate().map(|(n, charge)| Row {
            keys: vec![n.to_string()],
            charge: *charge,
            ..Row::default()
        }).collect();
        let table = Breakdown::new(&["N"], "", rows.clone());
        let (shown, left) = table.cut();
        prop_assert_eq!(total(shown.iter().chain(left)), total(&rows));
        prop_assert_eq!((table.total().count, table.total().sum_ns), total(&rows));
        prop_assert!(shown.iter().chain(left).is_sorted_by_key(|r| std::cmp::Reverse(r.charge.sum_ns)));
        let mut text = String::new();
        table.write(&mut text, 100);
        let said = format!("and {} more", count(left.len() as u64, "row"));
        prop_assert_eq!(text.contains(&said), !left.is_empty(), "{}", text);
        prop_assert_eq!(text.lines().count(), shown.len() + 3 + usize::from(!left.is_empty()));
    }

    #[test]
    fn whoever_is_named_the_total_is_that_of_the_locks(
        locks in proptest::collection::vec((0..3usize, charge()), 1..8),
        parts in proptest::collection::vec((0..40usize, 0..3usize, 0..=100u64), 0..60),
    ) {
        let names = ["namespace_sem", "mount_lock", "sb_lock"];
        let mut window = Snapshot::default();
        for (lock, charge) in &locks {
            let mut row = wait(names[*lock], Mode::Write, 0);
            (row.waits.count, row.waits.sum_ns) = (charge.count, charge.sum_ns);
            window.locks.push(row);
        }
        // No more is attributed than there is, as the reader has it.
        let mut left: Vec<(u64, u64)> = names.iter().map(|name| {
            let rows = window.locks.iter().filter(|row| row.lock == *name);
            rows.fold((0, 0), |(n, ns), row| (n + row.waits.count, ns + row.waits.sum_ns))
        }).collect();
        let all = left.iter().fold((0, 0), |(n, ns), l| (n + l.0, ns + l.1));
        for (who, lock, percent) in parts {
            let (n, ns) = (left[lock].0 * percent / 101, left[lock].1 * percent / 101);
            left[lock] = (left[lock].0 - n, left[lock].1 - ns);
            let waits = Charge { count: n, sum_ns: if n == 0 { 0 } else { ns }, max_ns: ns };
            if n == 0 {
                left[lock].1 += ns;
            }
            let party = match who {
                0 => Party::Other,
                1 => Party::Unknown,
                who => task(&format!("t{who}")),
            };
            let mut row = waiter(names[lock], Mode::Write, None, party.clone(), 0, 0);
            row.waits = waits;
            window.waiters.push(row);
            let lock = names[lock].to_owned();
            window.blockers.push(Blocker { lock, basis: Basis::Owner, call: None, party, waits });
        }
        for table in [
            by::waiters(&window),
            by::blockers(&window),
            by::waiting_runtimes(&window),
            by::blocking_runtimes(&window),
            by::locks(&window),
            by::nodes(&window),
        ] {
            prop_assert_eq!((table.total().count, table.total().sum_ns), all);
        }
    }
}

#[test]
fn the_longest_of_what_is_not_attributed_is_no_longer_than_its_sum() {
    let mut window = rich();
    window.waiters.truncate(1);
    window.locks.truncate(2);
    window.waiters[0].waits.sum_ns = ms(4_499);
    let text = render(&window, Some(By::Waiter), &[], &[], 100);
    let row = text.lines().find(|line| line.contains("not attributed")).expect("a row");
    assert!(row.trim_end().ends_with("1.00ms"), "{row}");
}
