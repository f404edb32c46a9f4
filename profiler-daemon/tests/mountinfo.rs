//! Opens and reads of mount tables, and the mounts that these write out, against
//! what the readers count themselves.
#![expect(clippy::print_stdout, reason = "the figures, for those who want to see them")]

mod common;
#[path = "common/mounts.rs"]
mod mounts;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lockprof::cli::Settings;
use lockprof::commands::session::Session;
use lockprof::hooks::backend::{Backends, CallBackend};
use lockprof::hooks::{MOUNTINFO_OPEN, MOUNTINFO_READ};
use lockprof::snapshot::{MountinfoReader, Snapshot};

/// The files, as they are named in a process's folder.
const FILES: [&str; 3] = ["mountinfo", "mounts", "mountstats"];
/// Bytes that are asked for at once: less than a mount takes, one mount and a
/// half, less and more than the kernel's buffer.
const SIZES: [usize; 6] = [1, 40, 200, 1000, 4096, 1 << 20];
/// Mounts that are made beside those that are there.
const MOUNTS: usize = 100;
/// Runs until one in which the kernel skipped no program.
const RUNS: usize = 5;

/// Attaching and detaching is of the whole machine: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A session with the hooks by `backend`, or a skip with the reason why there is
/// none.
fn session(test: &str, backend: CallBackend) -> Option<Session> {
    if let Some(reason) = common::bpf_refused() {
        common::skip(test, &reason);
        return None;
    }
    let backends = Backends { calls: Some(backend), ..Backends::default() };
    let session = Session::start(&Settings { backends, ..Settings::default() }).expect("attaches");
    let hooks = session.programs().hooks();
    let hook = |name| hooks.iter().find(|hook| hook.hook == name).expect("it is listed");
    let (open, read) = (hook(MOUNTINFO_OPEN), hook(MOUNTINFO_READ));
    if open.backend.is_none() {
        assert!(read.backend.is_none(), "{read:?}");
        assert_eq!(session.fresh_snapshot().mountinfo_readers, None);
        let said = session.limits().iter().any(|limit| limit.what.contains("mountinfo"));
        assert!(said, "{:?}", session.limits());
        common::skip(test, &format!("{:?}", open.refused));
        return None;
    }
    assert_eq!(open.backend, Some(backend.name()));
    assert_eq!(read.backend, Some(backend.name()), "{:?}", read.refused);
    Some(session)
}

/// What a reader counted of its own reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    opens: u64,
    reads: u64,
    entries: u64,
}

/// Reads `path` to its end, `size` bytes at a time.
fn read_to_end(path: &Path, size: usize, count: &mut Count) {
    let mut file = File::open(path).expect("it is there");
    count.opens += 1;
    let (mut text, mut buffer) = (Vec::new(), vec![0; size]);
    loop {
        let read = file.read(&mut buffer).expect("it can be read");
        count.reads += 1;
        if read == 0 {
            break;
        }
        text.extend_from_slice(&buffer[..read]);
    }
    let text = String::from_utf8(text).expect("mounts of tests are UTF-8");
    let of_stats = |line: &&str| line.starts_with("device ") || line.starts_with("no device ");
    count.entries += if path.ends_with("mountstats") {
        text.lines().filter(of_stats).count() as u64
    } else {
        text.lines().count() as u64
    };
}

/// Runs `act` in a thread called `name`.
fn as_task<R: Send>(name: &str, act: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let task = std::thread::Builder::new().name(name.to_owned());
        task.spawn_scoped(scope, act).expect("a thread").join().expect("it ends")
    })
}

/// What lockprof counted of the tasks called `name`.
fn counted<'a>(snapshot: &'a Snapshot, file: &str, name: &str) -> Vec<&'a MountinfoReader> {
    let rows = snapshot.mountinfo_readers.as_ref().expect("they are observed");
    rows.iter().filter(|row| row.file == file && row.party.task() == name).collect()
}

fn skipped(snapshot: &Snapshot) -> u64 {
    snapshot.dropped.iter().filter(|row| row.reason == "recursion_miss").map(|row| row.count).sum()
}

fn counts_known_reads(test: &str, backend: CallBackend) {
    let _alone = alone();
    let Some(session) = session(test, backend) else { return };
    let own = |name: &str| counted(&session.fresh_snapshot(), name, "lockprof").is_empty();
    assert!(FILES.iter().all(|file| own(file)), "lockprof's own opens do not count");
    for run in 0..RUNS {
        let name = format!("reader-{run}");
        let before = session.fresh_snapshot();
        let made = as_task(&name, || {
            let folder = tempfile::tempdir().expect("a temporary folder");
            mounts::enter_namespace(folder.path());
            mounts::bind(folder.path(), MOUNTS);
            // Not the folder among the tasks of the process, which lacks one of them.
            // SAFETY: takes no argument.
            let own = Path::new("/proc").join(unsafe { libc::gettid() }.to_string());
            FILES.map(|file| {
                let mut count = Count::default();
                for size in SIZES {
                    read_to_end(&own.join(file), size, &mut count);
                }
                count
            })
        });
        let window = session.fresh_snapshot().since(&before);
        let mut same = true;
        for (file, made) in FILES.iter().zip(made) {
            assert!(made.entries > (MOUNTS * SIZES.len()) as u64, "{file}: {made:?}");
            let rows = counted(&window, file, &name);
            assert_eq!(rows.len(), 1, "{file}: {rows:?}");
            let row = rows[0];
            let counted = Count { opens: row.opens, reads: row.reads.count, entries: row.entries };
            println!(
                "{file} by {}: made {made:?}, counted {counted:?}, {:?}",
                backend.name(),
                row.reads
            );
            same &= counted == made;
            assert!(row.reads.sum_ns >= row.reads.max_ns && row.reads.max_ns > 0, "{row:?}");
            assert!(
                counted == made || skipped(&window) != 0,
                "{file}: made {made:?}, counted {counted:?}"
            );
        }
        if same {
            return;
        }
    }
    panic!("the kernel skipped programs in each of {RUNS} runs");
}

fn counts_no_other_files(test: &str, backend: CallBackend) {
    let _alone = alone();
    let Some(session) = session(test, backend) else { return };
    let others = ["self/maps", "cpuinfo", "self/status", "self/limits", "filesystems", "stat"];
    as_task("other-files", || {
        for path in others.iter().cycle().take(60) {
            std::fs::read(Path::new("/proc").join(path)).expect("it can be read");
        }
    });
    // So that what is missing below is not missing for another reason.
    as_task("this-file", || std::fs::read("/proc/thread-self/mounts").expect("it can be read"));
    let snapshot = session.fresh_snapshot();
    assert_eq!(counted(&snapshot, "mounts", "this-file").len(), 1);
    for file in FILES {
        assert!(counted(&snapshot, file, "other-files").is_empty(), "{file}");
    }
}

/// A seek to the start throws away what was left in the buffer, and a reader that
/// stops in the middle was written more than it took.
fn counts_what_was_written_out(test: &str, backend: CallBackend) {
    let _alone = alone();
    let Some(session) = session(test, backend) else { return };
    let seen = |name: &str| {
        let snapshot = session.fresh_snapshot();
        counted(&snapshot, "mountinfo", name).iter().map(|row| row.entries).sum::<u64>()
    };
    as_task("again", || {
        use std::io::{Seek as _, SeekFrom};
        let mut file = File::open("/proc/thread-self/mountinfo").expect("it is there");
        for _ in 0..10 {
            let mut byte = [0];
            assert_eq!(file.read(&mut byte).expect("it can be read"), 1);
            file.seek(SeekFrom::Start(0)).expect("it can be read again");
        }
    });
    // Of one byte the kernel writes the one mount that it is of.
    assert_eq!(seen("again"), 10);
    as_task("one-after-one", || {
        let mut file = File::open("/proc/thread-self/mountinfo").expect("it is there");
        let mut byte = [0];
        while byte[0] != b'\n' {
            assert_eq!(file.read(&mut byte).expect("it can be read"), 1);
        }
    });
    // With the last byte of a mount the kernel looks for the next one.
    assert!((1..=2).contains(&seen("one-after-one")), "{}", seen("one-after-one"));
}

macro_rules! tests {
    ($($test:ident: $of:ident, $backend:ident;)*) => {$(
        #[test]
        fn $test() {
            $of(stringify!($test), CallBackend::$backend);
        }
    )*};
}

tests! {
    fentry_counts_known_reads: counts_known_reads, Fentry;
    fentry_counts_no_other_files: counts_no_other_files, Fentry;
    fentry_counts_what_was_written_out: counts_what_was_written_out, Fentry;
    kprobe_counts_known_reads: counts_known_reads, Kprobe;
    kprobe_counts_no_other_files: counts_no_other_files, Kprobe;
    kprobe_counts_what_was_written_out: counts_what_was_written_out, Kprobe;
}
