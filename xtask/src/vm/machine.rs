//! The virtual machine: how many CPUs on how many NUMA nodes, and what QEMU is
//! told to make it.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Result, bail};
use clap::ValueEnum;

use super::plan::INIT;

/// How software emulation runs the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Threads {
    /// All in one thread of the host, in turn. Sound whatever the programs do;
    /// CPUs never run at the same instant, so spinning waits hardly occur.
    Single,
    /// Each in a thread of its own. Spinning waits occur; programs that attach
    /// and detach under load crash such guests, since emulation does not get
    /// patching of running code right.
    Multi,
}

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU's software emulation.
    Tcg(Threads),
}

/// A machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// NUMA nodes, each with the same number of CPUs and as much memory.
    pub(crate) nodes: u32,
    /// CPUs in all.
    pub(crate) cpus: u32,
    /// MiB in all.
    pub(crate) memory: u32,
}

impl Machine {
    /// Memory, in MiB, that is enough for `nodes` and what tests put into it.
    pub(crate) fn usual_memory(nodes: u32) -> u32 {
        (nodes * 256).max(1024)
    }

    /// Whether it can be built.
    ///
    /// # Errors
    /// Which figure does not fit.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { nodes, cpus, memory } = *self;
        if nodes == 0 || cpus == 0 || !cpus.is_multiple_of(nodes) {
            bail!("{cpus} CPUs cannot be shared out evenly among {nodes} NUMA nodes");
        }
        if nodes > 64 || cpus > 255 {
            bail!("at most 64 NUMA nodes and 255 CPUs, not {nodes} and {cpus}");
        }
        if memory / nodes < 128 {
            bail!("{memory} MiB are less than 128 MiB for each of {nodes} NUMA nodes");
        }
        Ok(())
    }

    /// In words: `2 nodes x 2 CPUs`.
    pub(crate) fn describe(&self) -> String {
        let plural =
            |count: u32, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        format!("{} x {}", plural(self.nodes, "node"), plural(self.cpus / self.nodes, "CPU"))
    }
}

/// The files of a run.
pub(crate) struct Files<'a> {
    /// The kernel.
    pub(crate) kernel: &'a Path,
    /// The initramfs.
    pub(crate) initramfs: &'a Path,
    /// Where the kernel's console goes.
    pub(crate) console: &'a Path,
}

/// What the kernel is told. Warnings are shown, which `quiet` would hide, and a
/// panic ends the machine.
const APPEND: &str = "console=ttyS0 loglevel=5 panic=-1 rdinit=";

/// The arguments of `qemu-system-x86_64`. Frames come on its standard output.
pub(crate) fn arguments(
    machine: &Machine,
    accelerator: Accelerator,
    files: &Files<'_>,
) -> Vec<OsString> {
    let Machine { nodes, cpus, memory } = *machine;
    let mut list: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| list.extend(words.iter().map(OsString::from));
    // Nothing that is not asked for: no network, no screen, no monitor.
    add(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    match accelerator {
        Accelerator::Kvm => add(&["-accel", "kvm", "-cpu", "host"]),
        // A guest that knows that it is one, and has no paravirtual spinlocks,
        // takes virt_spin_lock() (arch/x86/include/asm/qspinlock.h): its
        // waiters never queue, and nothing traces them.
        Accelerator::Tcg(Threads::Single) => {
            add(&["-accel", "tcg,thread=single", "-cpu", "max,-hypervisor"]);
        }
        Accelerator::Tcg(Threads::Multi) => {
            add(&["-accel", "tcg,thread=multi", "-cpu", "max,-hypervisor"]);
        }
    }
    add(&[
        "-smp",
        &format!("{cpus},sockets={nodes}"),
        "-m",
        &format!("{}M", memory / nodes * nodes),
    ]);
    let (each, share) = (cpus / nodes, memory / nodes);
    for node in 0..nodes {
        let (first, last) = (node * each, (node + 1) * each - 1);
        add(&["-object", &format!("memory-backend-ram,id=node{node},size={share}M")]);
        add(&["-numa", &format!("node,nodeid={node},memdev=node{node},cpus={first}-{last}")]);
    }
    add(&["-chardev", "stdio,id=data,signal=off"]);
    let mut console = OsString::from("file,id=console,path=");
    // A comma ends a value, two are one.
    console.push(files.console.to_string_lossy().replace(',', ",,"));
    list.extend(["-chardev".into(), console]);
    let mut add = |words: &[&str]| list.extend(words.iter().map(OsString::from));
    add(&["-device", "isa-serial,chardev=console", "-device", "isa-serial,chardev=data"]);
    list.extend(["-kernel".into(), files.kernel.into()]);
    list.extend(["-initrd".into(), files.initramfs.into()]);
    // What follows `--` are arguments of the first process.
    list.extend(["-append".into(), format!("{APPEND}{INIT} -- vm-init").into()]);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(machine: &Machine, accelerator: Accelerator) -> String {
        let files = Files {
            kernel: Path::new("/k/vmlinuz"),
            initramfs: Path::new("/t/initrd"),
            console: Path::new("/t/a,b.log"),
        };
        let words: Vec<_> = arguments(machine, accelerator, &files)
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect();
        words.join(" ")
    }

    #[test]
    fn every_cpu_is_on_one_node_and_every_node_has_memory() {
        let machine = Machine { nodes: 4, cpus: 8, memory: 1024 };
        let line = line(&machine, Accelerator::Tcg(Threads::Multi));
        assert!(line.contains("-smp 8,sockets=4 -m 1024M"), "{line}");
        for (node, cpus) in ["0-1", "2-3", "4-5", "6-7"].iter().enumerate() {
            assert!(
                line.contains(&format!("memory-backend-ram,id=node{node},size=256M")),
                "{line}"
            );
            assert!(
                line.contains(&format!("nodeid={node},memdev=node{node},cpus={cpus}")),
                "{line}"
            );
        }
        assert!(line.contains("tcg,thread=multi -cpu max,-hypervisor"), "{line}");
    }

    #[test]
    fn a_comma_in_a_path_is_doubled_and_init_gets_its_verb() {
        let machine = Machine { nodes: 1, cpus: 1, memory: 512 };
        let line = line(&machine, Accelerator::Kvm);
        assert!(line.contains("path=/t/a,,b.log"), "{line}");
        assert!(line.ends_with("rdinit=/lockprof-vm/init -- vm-init"), "{line}");
        assert!(line.contains("-accel kvm -cpu host"), "{line}");
    }

    #[test]
    fn machines_that_cannot_be_are_refused() {
        let check = |nodes, cpus, memory| Machine { nodes, cpus, memory }.check();
        assert!(check(2, 4, 1024).is_ok() && check(8, 8, 2048).is_ok());
        assert!(check(3, 4, 1024).unwrap_err().to_string().contains("4 CPUs"));
        assert!(check(0, 4, 1024).is_err() && check(1, 0, 1024).is_err());
        assert!(check(8, 8, 512).unwrap_err().to_string().contains("512 MiB"));
        assert!(check(1, 256, 1024).is_err());
    }

    #[test]
    fn a_machine_says_what_it_is() {
        assert_eq!(Machine { nodes: 2, cpus: 4, memory: 0 }.describe(), "2 nodes x 2 CPUs");
        assert_eq!(Machine { nodes: 1, cpus: 1, memory: 0 }.describe(), "1 node x 1 CPU");
    }
}
