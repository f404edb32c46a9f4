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
    /// Who reads most, and what they do for how long.
    first: Option<(&'a Party, String)>,
    /// Waits that readers are charged with, or that they wait themselves, in ns:
    /// the larger, as a wait may be both.
    waits_ns: u64,
    figures: Vec<(String, String)>,
    fires: bool,
}

/// Waits that are charged to readers. Where the hooks on readers are refused, a
/// reader is whom the lock named as one, in no mount call.
fn charged_readers(window: &Snapshot) -> BTreeMap<&Party, Charge> {
    let mut readers: BTreeMap<&Party, Charge> = BTreeMap::new();
    let rows = window.blockers.iter().filter(|row| {
        let named = row.call.is_some() || (sees_calls(window) && row.basis == Basis::ReaderHint);
        row.lock == NAMESPACE_SEM && is_reading(row.call.as_deref(), window) && named
    });
    for row in rows {
        readers.entry(&row.party).or_default().add(row.waits);
    }
    readers
}

fn total_ns(readers: &BTreeMap<&Party, Charge>) -> u64 {
    readers.values().map(|charge| charge.sum_ns).sum()
}

/// Who has the longest time, and how long.
fn longest(readers: BTreeMap<&Party, Charge>) -> Option<(&Party, String)> {
    let longest = readers.into_iter().max_by_key(|(_, charge)| charge.sum_ns);
    longest.map(|(party, charge)| (party, duration(charge.sum_ns)))
}

fn measure(window: &Snapshot) -> Load<'_> {
    let (charged, waiting) = (charged_readers(window), waiting_readers(window));
    let (charged_ns, waiting_ns) = (total_ns(&charged), total_ns(&waiting));
    let slow = slow_readers(window);
    let waits_ns = charged_ns.max(waiting_ns).max(slow.sum_ns);
    let mut figures = vec![
        share_figure(window, waits_ns),
        figure("waits that readers are charged with", duration(charged_ns)),
        figure("waits of readers", duration(waiting_ns.max(slow.sum_ns))),
    ];
    let mut fires = matters(window, waits_ns);
    let first = if let Some(readers) = &window.mountinfo_readers {
        let sum = |of: fn(&MountinfoReader) -> u64| readers.iter().map(of).sum::<u64>();
        let (opens, entries) = (sum(|row| row.opens), sum(|row| row.entries));
        let reading_ns = sum(|row| row.reads.sum_ns);
        fires |= share(reading_ns, window.duration_ns) >= READING_SHARE;
        figures.push(figure("time in reads", duration(reading_ns)));
        figures.push(figure("opens", opens.to_string()));
        figures.push(figure("mounts walked", entries.to_string()));
        let mut parties: BTreeMap<&Party, Charge> = BTreeMap::new();
        readers.iter().for_each(|row| parties.entry(&row.party).or_default().add(row.reads));
        longest(parties).map(|(who, time)| (who, format!("spends {time} reading mount tables")))
    } else {
        figures.push(figure("readers counted", "no: this kernel refuses the hooks"));
        if charged_ns >= waiting_ns {
            longest(charged).map(|(who, time)| {
                (who, format!("makes others wait {time} by reading mount tables"))
            })
        } else {
            longest(waiting)
                .map(|(who, time)| (who, format!("spends {time} waiting to read mount tables")))
        }
    };
    if slow.count != 0 {
        figures.push(figure("slow waits in m_start", slow.count.to_string()));
    }
    Load { first, waits_ns, figures, fires }
}

/// Reading mount tables makes mounts wait, or keeps CPUs busy.
pub(super) fn load(window: &Snapshot) -> Option<Finding> {
    let Load { first, waits_ns, figures, fires } = measure(window);
    if !fires {
        return None;
    }
    let title = match &first {
        Some((party, what)) => format!("{} {what}", who(party)),
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
mod tests;
