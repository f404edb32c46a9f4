//! Mount namespaces with their mounts and owners, against namespaces that a test
//! makes.
#![expect(clippy::print_stdout, reason = "the figures, for those who want to see them")]

mod common;
#[path = "common/mounts.rs"]
mod mounts;

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use lockprof::cli::Settings;
use lockprof::commands::session::Session;
use lockprof::hooks::TASK_ITER;
use lockprof::snapshot::{MountTable, MountTables, Snapshot};

/// Mounts of the smallest namespace, and how many more the next one has.
const MOUNTS: usize = 2000;
const STEP: usize = 100;
/// Mounts that are added to each later.
const ADDED: usize = 50;
/// Namespaces.
const NAMESPACES: usize = 3;

/// A session that counts mounts every second.
fn session() -> Session {
    let mounts_interval = Some(Duration::from_secs(1));
    Session::start(&Settings { mounts_interval, ..Settings::default() }).expect("attaches")
}

/// A count that began after now.
fn counted(session: &Session) -> MountTables {
    let now = Instant::now();
    let deadline = now + Duration::from_secs(60);
    while Instant::now() < deadline {
        if let Snapshot { mount_tables: Some(tables), .. } = session.fresh_snapshot() {
            // A second more than the age: a walk takes less.
            if Duration::from_nanos(tables.age_ns) + Duration::from_secs(1) < now.elapsed() {
                return tables;
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("mounts are not counted every second");
}

/// A thread in a mount namespace of its own.
struct Namespace {
    /// Its number.
    number: u64,
    /// What is asked of it; it ends when there is nobody any more to ask.
    more: Sender<usize>,
    /// Lines of its mount table, after each time that it was asked.
    lines: Receiver<usize>,
    thread: std::thread::JoinHandle<()>,
}

fn lines() -> usize {
    let mountinfo = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("readable");
    mountinfo.lines().count()
}

fn namespace(name: String, folder: PathBuf) -> Namespace {
    let (more, asked) = mpsc::channel::<usize>();
    let (say_lines, lines_of) = mpsc::channel();
    let (say_number, number) = mpsc::channel();
    let run = move || {
        mounts::enter_namespace(&folder);
        let inode = std::fs::metadata("/proc/thread-self/ns/mnt").expect("its own").ino();
        say_number.send(inode).expect("the test waits");
        for count in asked {
            mounts::bind(&folder, count);
            say_lines.send(lines()).expect("the test waits");
        }
    };
    let thread = std::thread::Builder::new().name(name).spawn(run).expect("a thread");
    Namespace { number: number.recv().expect("it starts"), more, lines: lines_of, thread }
}

fn of<'a>(tables: &'a MountTables, namespace: &Namespace) -> &'a MountTable {
    let mut tables = tables.largest.iter();
    tables.find(|table| table.namespace == namespace.number).expect("it is among the largest")
}

#[test]
fn namespaces_are_found_with_all_their_mounts_and_their_owner() {
    let test = "namespaces_are_found_with_all_their_mounts_and_their_owner";
    needs_bpf!("namespaces_are_found_with_all_their_mounts_and_their_owner");
    let session = session();
    let hooks = session.programs().hooks();
    let hook = hooks.iter().find(|hook| hook.hook == TASK_ITER).expect("it is listed");
    if hook.backend.is_none() {
        let said = session.limits().iter().any(|limit| limit.what.contains("namespaces"));
        assert!(said, "{:?}", session.limits());
        return common::skip(test, &format!("{:?}", hook.refused));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let name = |index: usize| format!("owner-{index}");
    let spaces: Vec<_> =
        (0..NAMESPACES).map(|index| namespace(name(index), folder.path().to_owned())).collect();
    let ask = |count: &dyn Fn(usize) -> usize| -> Vec<usize> {
        spaces
            .iter()
            .enumerate()
            .for_each(|(n, space)| space.more.send(count(n)).expect("it waits"));
        spaces.iter().map(|space| space.lines.recv().expect("it mounts")).collect()
    };
    let shown = ask(&|index| MOUNTS + STEP * index);
    let first = counted(&session);
    assert!(first.namespaces > NAMESPACES as u64, "these and that of everybody else: {first:?}");
    let more = ask(&|_| ADDED);
    let second = counted(&session);
    for (index, space) in spaces.iter().enumerate() {
        let (one, two) = (of(&first, space), of(&second, space));
        println!(
            "{}: {} lines, {one:?}; {} lines, {two:?}",
            space.number, shown[index], more[index]
        );
        assert_eq!(one.owner.task(), name(index));
        assert_eq!(one.tasks, 1);
        // A table also has what is mounted where this thread cannot see it: the
        // root of the initramfs.
        let hidden = one.mounts - shown[index] as u64;
        assert!(hidden <= 2, "{hidden} mounts more than it shows");
        assert_eq!(two.mounts, one.mounts + ADDED as u64);
    }
    let numbers: Vec<_> = spaces.iter().map(|space| space.number).collect();
    for space in spaces {
        drop(space.more);
        space.thread.join().expect("it ends");
    }
    let after = counted(&session);
    // The kernel gives a number that is free to whoever comes next.
    let ours = |table: &MountTable| {
        numbers.contains(&table.namespace) && table.owner.task().starts_with("owner-")
    };
    assert!(!after.largest.iter().any(ours), "{after:?}");
}

#[test]
fn no_interval_counts_nothing() {
    needs_bpf!("no_interval_counts_nothing");
    let session = Session::start(&Settings { mounts_interval: None, ..Settings::default() });
    let session = session.expect("attaches");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(session.fresh_snapshot().mount_tables, None);
}
