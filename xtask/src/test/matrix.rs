//! Which integration tests run in virtual machines, on which kernels and
//! machines: two tables.

use anyhow::{Result, bail};

use crate::vm::kernels::{SERIES, USUAL};
use crate::vm::machine::{Machine, Threads};

/// A file of `profiler-daemon/tests` that runs in virtual machines.
#[derive(Debug)]
pub(super) struct File {
    /// Without `.rs`, or the name of its folder.
    pub(super) name: &'static str,
    /// The modes of emulation that it runs under. [`Threads::Multi`] shows
    /// spinning waits and is for tests that attach a few times, before the load
    /// starts, and detach after it has ended. What attaches and detaches under
    /// load, or again and again, needs [`Threads::Single`]: the other mode gets
    /// the patching of running code wrong now and then (`Oops: int3`).
    threads: &'static [Threads],
    /// On which kernels it is run without `--all`.
    usual: Usual,
}

/// Kernels of the usual part of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usual {
    /// All of them: what it is about differs from kernel to kernel.
    Each,
    /// [`USUAL`]: what it is about is lockprof's own doing.
    Middle,
    /// [`newest`]: what is new there is nowhere else, and the tests on this kernel
    /// have the rest.
    Newest,
    /// None: so it is, it takes minutes, and the tests on this kernel have it too.
    None,
}

/// MiB that a machine has at least: the programs of all these files are unpacked
/// into memory, of which a file system there takes half at most.
const MEMORY: u32 = 4096;

/// All of them, in the order in which they are run.
const FILES: &[File] = &[
    File { name: "inflight", threads: &[Threads::Single], usual: Usual::Each },
    File { name: "exact", threads: &[Threads::Single], usual: Usual::Each },
    File { name: "backends", threads: &[Threads::Single], usual: Usual::Each },
    File { name: "call_backends", threads: &[Threads::Single], usual: Usual::Each },
    File { name: "fields", threads: &[Threads::Single], usual: Usual::Each },
    File { name: "numa", threads: &[Threads::Multi], usual: Usual::Each },
    File { name: "resolution", threads: &[Threads::Single], usual: Usual::Each },
    File { name: "without_btf", threads: &[Threads::Single], usual: Usual::Each },
    File { name: "holds", threads: &[Threads::Single], usual: Usual::Each },
    File { name: "cgroups", threads: &[Threads::Single], usual: Usual::Middle },
    File { name: "mountinfo", threads: &[Threads::Single], usual: Usual::Each },
    File { name: "superblocks", threads: &[Threads::Single], usual: Usual::Each },
    File { name: "mount_tables", threads: &[Threads::Single], usual: Usual::Each },
    File { name: "privileges", threads: &[Threads::Single], usual: Usual::Each },
    File { name: "attribution", threads: &[Threads::Single], usual: Usual::Each },
    File { name: "hostile", threads: &[Threads::Single], usual: Usual::Middle },
    File { name: "storm", threads: &[Threads::Single], usual: Usual::None },
    File { name: "runtimes", threads: &[Threads::Single], usual: Usual::None },
    File { name: "strategies", threads: &[Threads::Single], usual: Usual::Newest },
    File { name: "samples", threads: &[Threads::Single], usual: Usual::Each },
    File { name: "path_walks", threads: &[Threads::Multi], usual: Usual::Middle },
    File { name: "stat", threads: &[Threads::Multi], usual: Usual::Each },
];

/// A machine with a kernel.
#[derive(Debug)]
struct Row {
    kernel: &'static str,
    nodes: u32,
    cpus: u32,
    /// The modes of emulation that are run without `--all`; the others are run
    /// with it, or when the kernel is named.
    usual: &'static [Threads],
    threads: &'static [Threads],
}

const BOTH: &[Threads] = &[Threads::Single, Threads::Multi];
const SINGLE: &[Threads] = &[Threads::Single];
const MULTI: &[Threads] = &[Threads::Multi];
const NONE: &[Threads] = &[];

/// The machines that every series has are of two nodes with two CPUs each. On
/// the larger ones all CPUs in one thread would take too long.
const ROWS: &[Row] = &[
    Row { kernel: "5.10", nodes: 2, cpus: 4, usual: SINGLE, threads: BOTH },
    Row { kernel: "6.1", nodes: 2, cpus: 4, usual: NONE, threads: BOTH },
    Row { kernel: "6.12", nodes: 2, cpus: 4, usual: BOTH, threads: BOTH },
    Row { kernel: "6.18", nodes: 2, cpus: 4, usual: NONE, threads: BOTH },
    Row { kernel: "7.0", nodes: 2, cpus: 4, usual: NONE, threads: BOTH },
    Row { kernel: "7.2", nodes: 2, cpus: 4, usual: NONE, threads: BOTH },
    Row { kernel: "7.3", nodes: 2, cpus: 4, usual: BOTH, threads: BOTH },
    Row { kernel: "6.12", nodes: 4, cpus: 8, usual: NONE, threads: MULTI },
    Row { kernel: "7.2", nodes: 8, cpus: 8, usual: NONE, threads: MULTI },
];

/// One virtual machine to run.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    /// The series.
    pub(super) kernel: &'static str,
    /// The machine.
    pub(super) machine: Machine,
    /// The mode of emulation.
    pub(super) threads: Threads,
    /// The files that run there.
    pub(super) files: Vec<&'static File>,
    /// Whether `doctor` of this one is what `docs/kernels.md` shows of the
    /// kernel.
    pub(super) doctor: bool,
}

impl Guest {
    /// `6.12 2x2`.
    pub(super) fn place(&self) -> String {
        let Machine { nodes, cpus, .. } = self.machine;
        let threads = match self.threads {
            Threads::Single => "",
            Threads::Multi => " multi",
        };
        format!("{} {nodes}x{}{threads}", self.kernel, cpus / nodes)
    }
}

/// The newest series.
fn newest() -> &'static str {
    SERIES[SERIES.len() - 1].name
}

/// The machines of the whole matrix, or of the usual part of it, or of some
/// kernels.
///
/// # Errors
/// When a kernel is named that the matrix does not have.
pub(super) fn choose(all: bool, kernels: &[String]) -> Result<Vec<Guest>> {
    if let Some(unknown) = kernels.iter().find(|name| ROWS.iter().all(|row| row.kernel != **name)) {
        bail!("the matrix has no kernel {unknown}; it is in xtask/src/test/matrix.rs");
    }
    let wanted = |row: &&Row| match kernels {
        [] => all || !row.usual.is_empty(),
        kernels => kernels.iter().any(|name| name == row.kernel),
    };
    let each = all || !kernels.is_empty();
    let mut guests = Vec::new();
    for row in ROWS.iter().filter(wanted) {
        for &threads in if each { row.threads } else { row.usual } {
            guests.push(Guest {
                kernel: row.kernel,
                machine: Machine {
                    nodes: row.nodes,
                    cpus: row.cpus,
                    memory: Machine::usual_memory(row.nodes).max(MEMORY),
                },
                threads,
                files: FILES
                    .iter()
                    .filter(|file| file.threads.contains(&threads))
                    .filter(|file| match file.usual {
                        Usual::Each => true,
                        Usual::Middle => each || row.kernel == USUAL,
                        Usual::Newest => each || row.kernel == newest(),
                        Usual::None => each,
                    })
                    .collect(),
                doctor: row.nodes == 2 && threads == Threads::Single,
            });
        }
    }
    Ok(guests)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell;

    fn places(all: bool, kernels: &[&str]) -> Vec<String> {
        let kernels: Vec<_> = kernels.iter().map(|&name| name.into()).collect();
        choose(all, &kernels).unwrap().iter().map(Guest::place).collect()
    }

    #[test]
    fn every_kernel_machine_and_file_of_the_tables_exists() {
        for row in ROWS {
            assert!(SERIES.iter().any(|series| series.name == row.kernel), "{}", row.kernel);
        }
        for guest in choose(true, &[]).unwrap() {
            guest.machine.check().unwrap();
        }
        for file in FILES {
            let path = shell::workspace().join("profiler-daemon/tests").join(file.name);
            let main = [path.with_extension("rs"), path.join("main.rs")];
            assert!(main.iter().any(|path| path.is_file()), "{}", path.display());
            assert!(!file.threads.is_empty(), "{}", file.name);
        }
    }

    #[test]
    fn the_usual_part_has_the_oldest_a_middle_one_and_the_newest() {
        let usual = choose(false, &[]).unwrap();
        let kernels: Vec<_> = usual.iter().map(|guest| guest.kernel).collect();
        assert_eq!((kernels.first(), kernels.last()), (Some(&SERIES[0].name), Some(&newest())));
        assert!(kernels.contains(&USUAL));
    }

    #[test]
    fn files_about_lockprofs_own_doing_are_usually_run_on_one_kernel() {
        let runs = |all: bool, name: &str| {
            let guests = choose(all, &[]).unwrap();
            guests.iter().filter(|guest| guest.files.iter().any(|file| file.name == name)).count()
        };
        assert_eq!((runs(false, "hostile"), runs(false, "exact")), (1, 3));
        assert_eq!((runs(true, "hostile"), runs(true, "exact")), (7, 7));
        assert_eq!((runs(false, "strategies"), runs(true, "strategies")), (1, 7));
        assert_eq!((runs(false, "runtimes"), runs(true, "runtimes")), (0, 7));
        assert_eq!(
            choose(false, &["5.10".into()]).unwrap()[0].files.len(),
            choose(true, &[]).unwrap()[0].files.len()
        );
    }

    #[test]
    fn every_kernel_is_examined_once() {
        let all = choose(true, &[]).unwrap();
        for row in ROWS {
            let examined = all.iter().filter(|guest| guest.kernel == row.kernel && guest.doctor);
            assert_eq!(examined.count(), 1, "{}", row.kernel);
        }
    }

    #[test]
    fn some_machines_have_four_and_eight_nodes() {
        let all = places(true, &[]);
        assert!(all.contains(&"6.12 4x2 multi".into()) && all.contains(&"7.2 8x1 multi".into()));
    }

    #[test]
    fn kernels_can_be_chosen_by_name_and_unknown_ones_are_refused() {
        assert_eq!(places(false, &["6.1"]), ["6.1 2x2", "6.1 2x2 multi"]);
        assert!(choose(false, &["4.19".into()]).unwrap_err().to_string().contains("4.19"));
    }
}
