//! Which processes there are, and whether those of a storm are gone.

use std::collections::BTreeSet;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

/// How long to wait for what happens at once on a machine that is not busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process, told apart from a later one with the same pid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) name: String,
    start_time: String,
}

/// The process, unless it is a zombie: then only its parent, or whoever adopted
/// it, has to take note.
fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command is in parentheses and may hold any character; after it come
    // the state, the parent and so on (proc_pid_stat(5)).
    let (name, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if fields[0] == "Z" {
        return None;
    }
    Some(Process {
        pid,
        parent: fields[1].parse().ok()?,
        name: name.split_once('(')?.1.to_owned(),
        start_time: fields[19].to_owned(),
    })
}

/// Signals that end a storm. A process that was started with SIGHUP ignored, as
/// by `nohup(1)`, passes that on, and a storm then keeps to it.
pub(crate) fn ending_signals() -> Vec<Signal> {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is readable");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.expect("Linux has it").trim(), 16).expect("a mask");
    let hangup = (ignored & 1 == 0).then_some(Signal::HUP);
    [Signal::INT, Signal::TERM].into_iter().chain(hangup).collect()
}

/// All processes that /proc shows.
pub(crate) fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc is readable");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(process).collect()
}

/// All processes below `root`, as far as one look at /proc shows them.
pub(crate) fn descendants(root: u32) -> BTreeSet<Process> {
    let all = all();
    let mut family = BTreeSet::from([root]);
    loop {
        let children = all.iter().filter(|p| family.contains(&p.parent)).map(|p| p.pid);
        let children: Vec<u32> = children.collect();
        let before = family.len();
        family.extend(children);
        if family.len() == before {
            return all.into_iter().filter(|p| p.pid != root && family.contains(&p.pid)).collect();
        }
    }
}

/// Looks until `look` finds something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} does not come");
        sleep(Duration::from_millis(5));
    }
}

/// Waits until the storm below `root` has its engine, a supervisor, a poller and
/// two workers.
pub(crate) fn running_family(root: u32) -> BTreeSet<Process> {
    wait_for("a running storm", || {
        let family = descendants(root);
        let count = |name: &str| family.iter().filter(|p| p.name == name).count();
        let complete = count("storm-engine") == 1
            && count("storm-init") == 1
            && count("storm-poller") >= 1
            && count("storm-worker") >= 2;
        complete.then_some(family)
    })
}

/// Waits until a worker below `root` is at another start than the ones that
/// `known` has; workers make one after the other, so what it was at before has
/// ended. Returns the starts seen since.
pub(crate) fn starts_come_and_go(root: u32, wanted: usize) -> BTreeSet<Process> {
    let mut seen = BTreeSet::new();
    wait_for("one start after the other", || {
        seen.extend(descendants(root).into_iter().filter(|p| p.name == "storm-start"));
        (seen.len() >= wanted).then(|| seen.clone())
    })
}

/// Waits until none of the processes is left. The supervisor is pid 1 of the
/// storm's PID namespace, so once it is gone, a zombie even, nothing else is in
/// there (`zap_pid_ns_processes`, kernel/pid_namespace.c).
pub(crate) fn assert_all_gone(family: &BTreeSet<Process>) {
    let is_left = |p: &&Process| process(p.pid).is_some_and(|now| now.start_time == p.start_time);
    wait_for("the end of all processes", || (!family.iter().any(|p| is_left(&p))).then_some(()));
}
