//! Who reads mount tables through `/proc`.
//!
//! Where the kernel refuses the hooks that count readers, they still show as
//! waits for `namespace_sem` in mode `read` outside of any mount call: next to
//! nothing else takes it so (`m_start` in fs/namespace.c).

use std::collections::BTreeMap;

use super::Finding;
use super::text::{duration, per, who};
use super::window::{
    NAMESPACE_SEM, about, blocked_by, figure, is_felt, kernel_since, lock_waited_ns, matters,
    share, share_figure, starts,
};
use crate::locks::Mode;
use crate::snapshot::{Basis, Charge, MOUNTINFO_READ, MountinfoReader, Party, Runtime, Snapshot};

/// See [`per_start`].
pub(super) const PER_START: &str = "mountinfo-opens-per-start";

/// See [`load`].
pub(super) const LOAD: &str = "mountinfo-read-load";

/// See [`old_kernel`].
pub(super) const OLD_KERNEL: &str = "kernel-without-statmount";

/// Above what a runtime needs: runc opened it 65 to 116 times for each start
/// and brought it down to 6 to 16 (runc#2265, #2438, #2599).
const OPENS_PER_START: u64 = 20;

/// With fewer starts, what others read in the meantime counts for too much.
const LEAST_STARTS: u64 = 5;

/// Reading for so large a part of the window keeps a fifth of a CPU busy, or a
/// task waiting.
const READING_SHARE: f64 = 0.2;

const CAUSE: &str = "A read of /proc/<pid>/mountinfo, mounts or mountstats walks the mounts of the \
    namespace with namespace_sem held for reading (m_start in fs/namespace.c, show_mountinfo in \
    fs/proc_namespace.c), so its cost grows with the table, and nobody can mount or unmount anywhere \
    on the machine in the meantime. A waiting writer in turn holds up all readers behind it.";

/// One task name opens mount tables again and again for each container.
pub(super) fn per_start(window: &Snapshot) -> Option<Finding> {
    let starts = starts(window).filter(|starts| *starts >= LEAST_STARTS)?;
    if !is_felt(window, lock_waited_ns(window, NAMESPACE_SEM)) {
        return None;
    }
    let mut by_task: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    if let Some(readers) = &window.mountinfo_readers {
        for row in readers.iter().filter(|row| row.party.who().is_some()) {
            let of_task = by_task.entry(row.party.task()).or_default();
            of_task.0 += row.opens;
            of_task.1 += row.entries;
        }
    } else {
        for (party, waits) in waiting_readers(window) {
            by_task.entry(party.task()).or_default().0 += waits.count;
        }
    }
    let (task, (opens, entries)) = by_task.into_iter().max_by_key(|(_, (opens, _))| *opens)?;
    if opens < OPENS_PER_START * starts {
        return None;
    }
    let blocked = blocked_by(window, |row| {
        row.lock == NAMESPACE_SEM
            && is_reading(row.call.as_deref(), window)
            && row.party.task() == task
    });
    let each = per(opens, starts);
    let (title, what) = if window.mountinfo_readers.is_some() {
        (format!("`{task}` opens mount tables in /proc {each} times per container start"), "opens")
    } else {
        (
            format!("`{task}` waits {each} times per container start to read namespace_sem"),
            "waits outside of mount calls",
        )
    };
    let mut figures = vec![
        figure(format!("{what} per start"), each),
        figure("container starts", starts.to_string()),
    ];
    if entries != 0 {
        figures.push(figure("mounts walked per open", per(entries, opens)));
    }
    figures.push(figure("waits that it is charged with", duration(blocked.sum_ns)));
    let first = if task.starts_with("runc") {
        "Update runc: since it stopped looking each mount up in the table, it needs 6 to 16 opens per \
         start."
            .to_owned()
    } else {
        format!("Find out what `{task}` looks up, or what starts it so often.")
    };
    let statmount =
        if kernel_since(window, (6, 8)) { ", or about one mount with statmount(2)" } else { "" };
    let remedy = format!(
        "{first} In code of your own, read the table once and keep it; ask about one path with \
         openat2 (RESOLVE_NO_XDEV) or statx (STATX_ATTR_MOUNT_ROOT){statmount}."
    );
    Some(about(window, blocked.sum_ns, PER_START, title, figures, (CAUSE, remedy)))
}

/// Whether `call` is the reading of a mount table: by name where the hooks are
/// there, else by being no call.
fn is_reading(call: Option<&str>, window: &Snapshot) -> bool {
    call == Some(MOUNTINFO_READ) || (call.is_none() && window.mountinfo_readers.is_none())
}

/// Whether mount calls are observed, so that being in none says something.
fn sees_calls(window: &Snapshot) -> bool {
    window.hooks.iter().any(|hook| hook.hook == "sys_mount" && hook.backend != "none")
}

/// Tasks that waited to read `namespace_sem` outside of any mount call.
fn waiting_readers(window: &Snapshot) -> BTreeMap<&Party, Charge> {
    let mut readers: BTreeMap<&Party, Charge> = BTreeMap::new();
    let rows = window.waiters.iter().filter(|row| {
        sees_calls(window)
            && row.lock == NAMESPACE_SEM
            && row.mode == Some(Mode::Read)
            && is_reading(row.call.as_deref(), window)
    });
    for row in rows {
        readers.entry(&row.party).or_default().add(row.waits);
    }
    readers
}

/// Slow waits in the function that begins to read a mount table.
fn slow_readers(window: &Snapshot) -> Charge {
    const FUNCTIONS: [&str; 3] = ["m_start", "show_mountinfo", "show_vfsmnt"];
    let mut all = Charge::default();
    let slow = window.slow_waits.iter().flat_map(|slow| &slow.recent);
    for wait in slow.filter(|wait| wait.lock == NAMESPACE_SEM && wait.mode == Mode::Read) {
        let mut frames = wait.stack.iter().filter_map(|frame| frame.as_str().split('+').next());
        if frames.any(|function| FUNCTIONS.contains(&function)) {
            let ns = wait.duration_ns;
            all.add(Charge { count: 1, sum_ns: ns, max_ns: ns });
        }
    }
    all
}

/// What reading mount tables costs, however it was observed.
struct Load<'a> {
    /// Who reads most, and how long or how much they waited, in ns.
    first: Option<(&'a Party, u64)>,
    /// Waits that readers are charged with, or that they wait themselves, in ns:
    /// the larger, as a wait may be both.
    waits_ns: u64,
    figures: Vec<(String, String)>,
    fires: bool,
}

fn measure(window: &Snapshot) -> Load<'_> {
    let blocked = blocked_by(window, |row| {
        let reader = row.call.is_some() || row.basis == Basis::ReaderHint;
        row.lock == NAMESPACE_SEM && is_reading(row.call.as_deref(), window) && reader
    });
    let (waiting, slow) = (waiting_readers(window), slow_readers(window));
    let waiting_ns: u64 = waiting.values().map(|waits| waits.sum_ns).sum();
    let waits_ns = blocked.sum_ns.max(waiting_ns).max(slow.sum_ns);
    let mut figures = vec![
        share_figure(window, waits_ns),
        figure("waits that readers are charged with", duration(blocked.sum_ns)),
        figure("waits of readers", duration(waiting_ns.max(slow.sum_ns))),
    ];
    let mut fires = matters(window, waits_ns);
    let mut first = waiting.into_iter().max_by_key(|(_, waits)| waits.sum_ns);
    if let Some(readers) = &window.mountinfo_readers {
        let sum = |of: fn(&MountinfoReader) -> u64| readers.iter().map(of).sum::<u64>();
        let (opens, entries) = (sum(|row| row.opens), sum(|row| row.entries));
        let reading_ns = sum(|row| row.reads.sum_ns);
        fires |= share(reading_ns, window.duration_ns) >= READING_SHARE;
        figures.push(figure("time in reads", duration(reading_ns)));
        figures.push(figure("opens", opens.to_string()));
        figures.push(figure("mounts walked", entries.to_string()));
        let mut parties: BTreeMap<&Party, Charge> = BTreeMap::new();
        readers.iter().for_each(|row| parties.entry(&row.party).or_default().add(row.reads));
        first = parties.into_iter().max_by_key(|(_, reads)| reads.sum_ns).or(first);
    }
    if slow.count != 0 {
        figures.push(figure("slow waits in m_start", slow.count.to_string()));
    }
    let first = first.map(|(party, charge)| (party, charge.sum_ns));
    Load { first, waits_ns, figures, fires }
}

/// Reading mount tables makes mounts wait, or keeps CPUs busy.
pub(super) fn load(window: &Snapshot) -> Option<Finding> {
    let Load { first, waits_ns, mut figures, fires } = measure(window);
    if !fires {
        return None;
    }
    if window.mountinfo_readers.is_none() {
        figures.push(figure("readers counted", "no: this kernel refuses the hooks"));
    }
    let title = match first {
        Some((party, ns)) => {
            let seen =
                if window.mountinfo_readers.is_some() { "reading" } else { "waiting to read" };
            format!("{} spends {} {seen} mount tables", who(party), duration(ns))
        }
        None => format!("Tasks that read mount tables wait {}", duration(waits_ns)),
    };
    let runtime = first.map_or(Runtime::Other, |(party, _)| party.runtime());
    let remedy = match runtime {
        Runtime::Systemd => {
            "systemd reads the table again after every change in its own namespace: keep the mounts of \
             containers out of it (private or slave propagation of the runtime's mount root), and let \
             the runtime make its temporary mounts in a namespace of its own."
        }
        Runtime::Kubelet | Runtime::Runc | Runtime::Containerd | Runtime::Dockerd => {
            "Update it, and look for probes that start it often (exec probes, health checks): every one \
             reads the table anew. Fewer mounts in the namespace that it runs in make each read cheaper."
        }
        _ => {
            "Have it read the table once and wait for changes (poll with POLLPRI on \
             /proc/self/mountinfo), read less often, or run it in a mount namespace with few mounts."
        }
    };
    Some(about(window, waits_ns, LOAD, title, figures, (CAUSE, remedy.to_owned())))
}

/// Readers matter, and the kernel has nothing better to offer them.
pub(super) fn old_kernel(window: &Snapshot) -> Option<Finding> {
    let load = measure(window);
    if !load.fires || super::window::kernel(window)? >= (6, 8) {
        return None;
    }
    let kernel = &window.host.kernel;
    let share = load.figures.first().cloned();
    Some(about(
        window,
        load.waits_ns,
        OLD_KERNEL,
        format!("Linux {kernel} offers no way to ask for one mount but to read the whole table"),
        std::iter::once(figure("kernel", kernel)).chain(share).collect(),
        (
            "Since Linux 6.8, statmount(2) tells about one mount and listmount(2) lists those below \
             another, without text and without a walk of the whole table. Before, a program that \
             wants to know about one mount reads all of them.",
            "Plan for Linux 6.8 or later, and for programs that use these calls; until then, fewer mounts per namespace and fewer readers are what \
             helps."
                .to_owned(),
        ),
    ))
}

#[cfg(test)]
mod tests {
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
        window.mountinfo_readers = Some(vec![reader(
            "mountinfo",
            example::runtime("systemd", Runtime::Systemd),
            9,
            9,
            2_000,
        )]);
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
}
