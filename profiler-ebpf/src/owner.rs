//! What a lock says about who holds it, and what a task says about itself.
//!
//! In: addresses of watched locks, and of tasks that these name. Every read goes
//! through a helper that refuses what cannot be read: an owner may be gone by the
//! time it is looked at.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::bpf_get_current_comm;
#[cfg(feature = "no-compare-exchange")]
use aya_ebpf::helpers::generated::bpf_get_current_task;
use profiler_common::charges::{Identity, Role};
use profiler_common::layout::OwnerFields;
use profiler_common::watch::{HOLDS, SHARED, WatchEntry};

use crate::attribution::attribution;

/// Where a lock says who holds it. Set at load time.
#[unsafe(no_mangle)]
pub(crate) static OWNER_FIELDS: OwnerFields =
    OwnerFields { rwsem_count: 0, rwsem_owner: 0, mutex_owner: 0, task_pid: 0 };

/// A field of the read-only [`OWNER_FIELDS`].
macro_rules! offset {
    ($field:ident) => {{
        // SAFETY: a static; volatile because user space sets its value at load
        // time.
        u64::from(unsafe { (&raw const crate::owner::OWNER_FIELDS.$field).read_volatile() })
    }};
}
#[cfg(not(feature = "no-compare-exchange"))]
pub(crate) use offset;

/// Steps that lead from a task to the id of its cgroup, at most.
const STEPS: usize = 5;

/// The word of the kernel's memory at `address`.
#[inline(always)]
pub(crate) fn word(address: u64) -> Option<u64> {
    // SAFETY: the helper refuses an address that it cannot read.
    unsafe { bpf_probe_read_kernel(address as *const u64) }.ok()
}

/// Thread id of the task at `task`.
#[inline(always)]
pub(crate) fn pid(task: u64) -> Option<u32> {
    let pid = (task + offset!(task_pid)) as *const u32;
    // SAFETY: as above.
    unsafe { bpf_probe_read_kernel(pid) }.ok()
}

/// The task that `lock` names as its owner, and how surely; `None` if it names
/// nobody, or is of a kind that names nobody.
#[inline(always)]
pub(crate) fn of_lock(lock: &WatchEntry) -> Option<(u64, Role)> {
    /// In both kinds of owner word the lowest three bits are flags
    /// (kernel/locking/rwsem.c: two since Linux 5.11, three before;
    /// kernel/locking/mutex.c).
    const FLAGS: u64 = 7;
    /// `RWSEM_READER_OWNED`: a reader was here last, and may be gone.
    const READER_OWNED: u64 = 1;

    if attribution!(owners) == 0 || lock.traits & HOLDS == 0 {
        return None;
    }
    let (word, role) = if lock.traits & SHARED != 0 {
        let word = word(lock.address + offset!(rwsem_owner))?;
        let reader = word & READER_OWNED != 0;
        (word, if reader { Role::ReaderHint } else { Role::Owner })
    } else {
        (word(lock.address + offset!(mutex_owner))?, Role::Owner)
    };
    let task = word & !FLAGS;
    if task == 0 { None } else { Some((task, role)) }
}

/// Name and cgroup of the task at `task`; `None` if what is there is no task any
/// more.
#[inline(always)]
pub(crate) fn identity_of(task: u64) -> Option<Identity> {
    let comm = (task + u64::from(attribution!(task_comm))) as *const [u64; 2];
    // SAFETY: the helper refuses an address that it cannot read.
    let comm: [u64; 2] = unsafe { bpf_probe_read_kernel(comm) }.ok()?;
    // The last byte of a name is 0, in whichever order this machine has bytes.
    if comm[1].to_le() >> 56 != 0 || comm[0] == 0 {
        return None;
    }
    Some(Identity { comm, cgroup: cgroup_of(task) })
}

/// Name and cgroup of the running task.
#[cfg(feature = "no-compare-exchange")]
#[inline(always)]
pub(crate) fn current_identity() -> Identity {
    // SAFETY: a helper without arguments.
    Identity { comm: current_comm(), cgroup: cgroup_of(unsafe { bpf_get_current_task() }) }
}

/// Name and cgroup of the running task.
///
/// What `bpf_get_current_task_btf` returns is a pointer that the verifier knows the
/// type of, and what it leads to can be read without a helper for each step: the
/// offsets are constants to the verifier, since they are read-only data.
#[cfg(not(feature = "no-compare-exchange"))]
#[inline(always)]
pub(crate) fn current_identity() -> Identity {
    if attribution!(cgroup_steps) == 0 {
        return Identity { comm: current_comm(), cgroup: 0 };
    }
    let comm = attribution!(task_comm) as usize;
    // SAFETY: a helper without arguments. The verifier checks each step against the
    // kernel's types, and the kernel reads 0 where a pointer leads nowhere.
    unsafe {
        let task =
            aya_ebpf::helpers::generated::bpf_get_current_task_btf().cast::<u8>().cast_const();
        let comm = task.add(comm).cast::<u64>();
        Identity {
            comm: [comm.read_volatile(), comm.add(1).read_volatile()],
            cgroup: known_cgroup_of(task).unwrap_or(0),
        }
    }
}

/// Id of the cgroup of the task at `task`, a pointer whose type the verifier
/// knows.
///
/// # Safety
///
/// The verifier checks each step.
#[cfg(not(feature = "no-compare-exchange"))]
#[inline(always)]
unsafe fn known_cgroup_of(task: *const u8) -> Option<u64> {
    let by_controller = attribution!(cgroup_steps) as usize == STEPS;
    // SAFETY: the caller's promise.
    unsafe {
        let sets = known_step(task, 0)?;
        let second = known_step(sets, 1)?;
        let third = known_step(second, 2)?;
        if by_controller {
            let directory = known_step(third, 3)?;
            Some(directory.add(path(4) as usize).cast::<u64>().read_volatile())
        } else {
            Some(third.add(path(3) as usize).cast::<u64>().read_volatile())
        }
    }
}

/// The pointer that step `number` leads to; `None` for a null one.
///
/// # Safety
///
/// As [`known_cgroup_of`].
#[cfg(not(feature = "no-compare-exchange"))]
#[inline(always)]
unsafe fn known_step(at: *const u8, number: usize) -> Option<*const u8> {
    // SAFETY: the caller's promise.
    let next = unsafe { at.add(path(number) as usize).cast::<*const u8>().read_volatile() };
    if next.is_null() { None } else { Some(next) }
}

/// Name of the running task.
#[inline(always)]
fn current_comm() -> [u64; 2] {
    let mut comm = [0u64; 2];
    // SAFETY: the helper writes into a buffer of the size that it is told.
    unsafe { bpf_get_current_comm(comm.as_mut_ptr().cast(), size_of::<[u64; 2]>() as u32) };
    comm
}

/// Id of the cgroup of the task at `task`; 0 when it cannot be told.
#[inline(always)]
pub(crate) fn cgroup_of(task: u64) -> u64 {
    follow(task).unwrap_or(0)
}

/// Follows the path of pointers; the last word is the id.
#[inline(always)]
fn follow(task: u64) -> Option<u64> {
    let steps = attribution!(cgroup_steps) as usize;
    if steps < STEPS - 1 {
        return None;
    }
    let mut at = task;
    at = step(at, 0)?;
    at = step(at, 1)?;
    at = step(at, 2)?;
    at = step(at, 3)?;
    if steps == STEPS { step(at, 4) } else { Some(at) }
}

/// The word that step `number` leads to from `at`.
#[inline(always)]
fn step(at: u64, number: usize) -> Option<u64> {
    if at == 0 { None } else { word(at + u64::from(path(number))) }
}

/// Offset of step `number`, which is below [`STEPS`].
#[inline(always)]
fn path(number: usize) -> u32 {
    // SAFETY: a static, and `number` is below its length; volatile because user
    // space sets the value.
    unsafe {
        (&raw const crate::attribution::ATTRIBUTION.cgroup_path)
            .cast::<u32>()
            .add(number)
            .read_volatile()
    }
}
