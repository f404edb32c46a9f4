//! Which mount namespace every process is in, and how many mounts that has.
//!
//! Never attached: an iterator (Linux 5.8), which runs for each task when user
//! space reads its file, into which it writes a [`MountTask`]. It takes no lock:
//! a count may be of a moment in which a mount was being made.

use aya_ebpf::helpers::bpf_probe_read_kernel as read;
use aya_ebpf::helpers::generated::bpf_seq_write;
use profiler_common::mounts::{MountTableFields, MountTask};

use crate::owner;
use crate::slow_path::number;

/// Set at load time.
#[unsafe(no_mangle)]
static MOUNT_TABLE_FIELDS: MountTableFields = MountTableFields {
    task_nsproxy: 0,
    task_leader: 0,
    task_process: 0,
    task_comm: 0,
    nsproxy_namespace: 0,
    namespace_inum: 0,
    namespace_mounts: 0,
};

/// What is at an offset of [`MOUNT_TABLE_FIELDS`] behind `base`.
macro_rules! at {
    ($type:ty, $base:expr, $field:ident) => {{
        // SAFETY: a static; volatile because user space sets its value at load
        // time.
        let offset = unsafe { (&raw const MOUNT_TABLE_FIELDS.$field).read_volatile() };
        // SAFETY: the helper checks the address.
        unsafe { read($base.wrapping_add(u64::from(offset)) as *const $type) }.ok()
    }};
}

/// What the kernel hands to the program (`bpf_iter__task` in
/// kernel/bpf/task_iter.c).
#[repr(C)]
struct Context {
    meta: *const Meta,
    /// The task; null after the last one.
    task: *const u8,
}

/// The start of `bpf_iter_meta` in include/linux/bpf.h.
#[repr(C)]
struct Meta {
    seq: *mut core::ffi::c_void,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
fn mount_tables(ctx: *const Context) -> i32 {
    // SAFETY: the kernel's context, whose pointers the verifier knows.
    let (task, seq) = unsafe {
        let task = (&raw const (*ctx).task).read_volatile();
        if task.is_null() {
            return 0;
        }
        let meta = (&raw const (*ctx).meta).read_volatile();
        (task, (&raw const (*meta).seq).read_volatile())
    };
    if let Some(found) = mount_task(number(task as u64)) {
        // SAFETY: a record on the stack, as large as it says. Where the kernel's
        // buffer is full it runs the program for this task again.
        unsafe {
            bpf_seq_write(seq.cast(), (&raw const found).cast(), size_of::<MountTask>() as u32);
        }
    }
    0
}

/// What to write of a task; `None` of threads that are where their process is, and
/// of tasks that exit.
#[inline(always)]
fn mount_task(task: u64) -> Option<MountTask> {
    let nsproxy = at!(u64, task, task_nsproxy)?;
    let leader = at!(u64, task, task_leader)?;
    if nsproxy == 0 || task != leader && at!(u64, leader, task_nsproxy)? == nsproxy {
        return None;
    }
    let namespace = at!(u64, nsproxy, nsproxy_namespace)?;
    Some(MountTask {
        namespace: at!(u32, namespace, namespace_inum)?,
        mounts: at!(u32, namespace, namespace_mounts)?,
        process: at!(u32, task, task_process)?,
        pad: 0,
        cgroup: owner::cgroup_of(task),
        comm: at!([u64; 2], task, task_comm)?,
    })
}
