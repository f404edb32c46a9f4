//! Lock waits by hooks on the slow paths of the locks: fentry and fexit, else,
//! where waiters sleep, kprobe and kretprobe.
//!
//! For kernels without the contention tracepoints, and, of writers of a rwsem,
//! for what those tracepoints do not see ([`attach_optimistic`]).

use aya::programs::{FEntry, FExit, KProbe};
use aya::{Btf, BtfError, Ebpf};

use super::HookState;
use super::backend::{Backends, WaitBackend};
use super::programs::{chain, find};
use crate::locks::LockKind;

/// A function in which tasks wait, and the programs for it.
pub(super) struct SlowPath {
    pub(super) function: &'static str,
    /// Of which locks.
    kind: LockKind,
    pub(super) enter: &'static str,
    /// Programs for its return. They differ in how many arguments they skip to
    /// find the result, and the kernel takes only the right one.
    exits: &'static [&'static str],
    /// Programs for a kprobe and a kretprobe.
    probes: Option<[&'static str; 2]>,
}

/// The slow paths, in kernel/locking/{rwsem,mutex,qspinlock,qrwlock}.c.
const SLOW_PATHS: [SlowPath; 9] = [
    SlowPath {
        function: "rwsem_down_read_slowpath",
        kind: LockKind::Rwsem,
        enter: "rwsem_read_enter",
        exits: &["rwsem_read_exit", "rwsem_read_exit_of_two"],
        probes: Some(["rwsem_read_probe", "rwsem_read_return"]),
    },
    SlowPath {
        function: "rwsem_down_write_slowpath",
        kind: LockKind::Rwsem,
        enter: "rwsem_write_enter",
        exits: &["rwsem_write_exit"],
        probes: Some(["rwsem_write_probe", "rwsem_write_return"]),
    },
    SlowPath {
        function: "__mutex_lock_slowpath",
        kind: LockKind::Mutex,
        enter: "mutex_enter",
        exits: &["mutex_exit"],
        probes: Some(["mutex_probe", "mutex_return"]),
    },
    SlowPath {
        function: "__mutex_lock_killable_slowpath",
        kind: LockKind::Mutex,
        enter: "mutex_killable_enter",
        exits: &["mutex_killable_exit"],
        probes: Some(["mutex_errno_probe", "mutex_errno_return"]),
    },
    SlowPath {
        function: "__mutex_lock_interruptible_slowpath",
        kind: LockKind::Mutex,
        enter: "mutex_interruptible_enter",
        exits: &["mutex_interruptible_exit"],
        probes: Some(["mutex_errno_probe", "mutex_errno_return"]),
    },
    SlowPath {
        function: "native_queued_spin_lock_slowpath",
        kind: LockKind::Spinlock,
        enter: "spin_enter",
        exits: &["spin_exit"],
        probes: None,
    },
    SlowPath {
        function: "__pv_queued_spin_lock_slowpath",
        kind: LockKind::Spinlock,
        enter: "spin_paravirtual_enter",
        exits: &["spin_paravirtual_exit"],
        probes: None,
    },
    SlowPath {
        function: "queued_read_lock_slowpath",
        kind: LockKind::Rwlock,
        enter: "rwlock_read_enter",
        exits: &["rwlock_read_exit"],
        probes: None,
    },
    SlowPath {
        function: "queued_write_lock_slowpath",
        kind: LockKind::Rwlock,
        enter: "rwlock_write_enter",
        exits: &["rwlock_write_exit"],
        probes: None,
    },
];

/// Writers of a rwsem, beside the tracepoints.
pub(super) const OPTIMISTIC: SlowPath = SlowPath {
    function: "rwsem_down_write_slowpath",
    kind: LockKind::Rwsem,
    enter: "optimistic_enter",
    exits: &["optimistic_exit"],
    probes: None,
};

/// Function and program for readers of a rwsem that go ahead of those that are
/// queued.
const READERS: [&str; 2] = ["rwsem_down_read_slowpath", "reader_exit"];

/// Why a slow path of a lock whose waiters spin has no probe.
const SPINS: &str = "a return probe cannot tell which lock was waited for, and an interrupt may wait in the middle of a wait: spin waits need fentry (BTF)";

/// Attaches the slow paths of the kinds of locks that are watched; `instead_of`
/// has what was tried before.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    btf: Result<&Btf, &BtfError>,
    backends: &Backends,
    watched: impl Fn(LockKind) -> bool,
    instead_of: &[(&'static str, String)],
) -> Vec<HookState> {
    SLOW_PATHS
        .iter()
        .filter(|path| watched(path.kind))
        .map(|path| {
            let mut state = HookState::new(path.function);
            state.refused.extend_from_slice(instead_of);
            for backend in [WaitBackend::Fentry, WaitBackend::Kprobe] {
                if !backends.allow_waits(backend) {
                    continue;
                }
                let attached = match backend {
                    WaitBackend::Fentry => path.by_fentry(ebpf, btf),
                    _ => path.by_probe(ebpf),
                };
                state.tried(backend.name(), attached);
                if state.backend.is_some() {
                    break;
                }
            }
            state
        })
        .collect()
}

/// What shows the writers of a rwsem that get it by spinning cannot be used.
pub(super) fn optimistic_refused(why: &str) -> HookState {
    let mut state = HookState::new(OPTIMISTIC.function);
    state.refused.push((WaitBackend::Fentry.name(), why.to_owned()));
    state
}

/// Attaches what shows the writers of a rwsem that get it by spinning.
pub(super) fn attach_optimistic(ebpf: &mut Ebpf, btf: Result<&Btf, &BtfError>) -> HookState {
    let mut state = HookState::new(OPTIMISTIC.function);
    state.tried(WaitBackend::Fentry.name(), OPTIMISTIC.by_fentry(ebpf, btf));
    state
}

/// Attaches what shows the readers of a rwsem that go ahead of those that are
/// queued: they hold the lock, and the tracepoints have not seen them acquire it.
pub(super) fn attach_readers(ebpf: &mut Ebpf, btf: Result<&Btf, &BtfError>) -> HookState {
    let [function, program] = READERS;
    let mut state = HookState::new(function);
    let mut attached = || {
        let btf = btf.map_err(|error| {
            format!("/sys/kernel/btf/vmlinux cannot be read ({})", chain(error))
        })?;
        let program: &mut FExit = find(ebpf, program)?;
        program.load(function, btf).map_err(|error| chain(&error))?;
        program.attach().map(drop).map_err(|error| chain(&error))
    };
    state.tried(WaitBackend::Fentry.name(), attached());
    state
}

impl SlowPath {
    /// Attaches the return first: an entry alone would leave waits behind that
    /// nothing ends.
    fn by_fentry(&self, ebpf: &mut Ebpf, btf: Result<&Btf, &BtfError>) -> Result<(), String> {
        let btf = btf.map_err(|error| {
            format!("/sys/kernel/btf/vmlinux cannot be read ({})", chain(error))
        })?;
        let enter: &mut FEntry = find(ebpf, self.enter)?;
        enter.load(self.function, btf).map_err(|error| chain(&error))?;
        let mut refused = String::new();
        for exit in self.exits {
            let exit: &mut FExit = find(ebpf, exit)?;
            if let Err(error) = exit.load(self.function, btf) {
                refused = chain(&error);
                continue;
            }
            exit.attach().map_err(|error| chain(&error))?;
            let enter: &mut FEntry = find(ebpf, self.enter)?;
            return enter.attach().map(drop).map_err(|error| chain(&error));
        }
        Err(refused)
    }

    /// As [`by_fentry`](Self::by_fentry). Two functions may share their programs.
    fn by_probe(&self, ebpf: &mut Ebpf) -> Result<(), String> {
        let [entry, ret] = self.probes.ok_or_else(|| SPINS.to_owned())?;
        for program in [ret, entry] {
            let program: &mut KProbe = find(ebpf, program)?;
            if program.fd().is_err() {
                program.load().map_err(|error| chain(&error))?;
            }
            program.attach(self.function, 0).map_err(|error| chain(&error))?;
        }
        Ok(())
    }
}
