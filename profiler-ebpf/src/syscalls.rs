//! Mount system calls: how long, with which error, on which node.
//!
//! In: `syscalls:sys_enter_*` and `sys_exit_*` of the calls in
//! `profiler_common::syscalls`. Out: `SYSCALLS`, `ERRNOS`, and which call a
//! task is in, for `SYSCALL_WAITS`.
//!
//! A backend is a thin wrapper that finds the call, its arguments and its
//! result, and hands them to [`enter`] and [`exit`].

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_ktime_get_ns};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel, bpf_probe_read_user};
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use profiler_common::inflight::{self, Begin};
use profiler_common::layout::{
    CallState, CpuState, Drop, ERRNO_CLAIMS, ERRNO_PROBES, ERRNO_SLOTS, errno_key, errno_slot,
    syscall_bucket_index,
};
use profiler_common::syscalls::{CLONE_NEWNS, SYSCALLS, When};

use crate::arrays::{self, Tasks, count_drop, layout};
use crate::atomic;

/// Numbers that a system call of this machine can have.
const NUMBERS: usize = 512;
/// Marks a number without a mount call.
const NONE: u8 = 0xff;

/// Index of the mount call by system call number; set at load time, since the
/// numbers depend on the machine.
#[unsafe(no_mangle)]
static SYSCALL_OF_NUMBER: [u8; NUMBERS] = [NONE; NUMBERS];
/// [`When`] by mount call.
#[unsafe(no_mangle)]
static SYSCALL_WHEN: [u8; SYSCALLS] = [0; SYSCALLS];

/// Offsets in the record of a per-syscall tracepoint: the common header, then
/// the number, then the arguments or the result.
const NUMBER_OFFSET: usize = 8;
const ARGUMENTS_OFFSET: usize = 16;

/// Entry of every call but setns. It reads one argument at most: the kernel
/// refuses a program that may read past the end of the record, and unshare has
/// one argument.
#[tracepoint]
fn mount_syscall_enter(ctx: TracePointContext) -> u32 {
    let record = ctx.as_ptr().cast::<u8>();
    // SAFETY: within the record of every system call.
    let number = unsafe { record.add(NUMBER_OFFSET).cast::<i32>().read() };
    if let Some((call, when)) = mount_call(number) {
        let _ = if when == When::Always as u8 {
            enter(call, when, 0)
        } else {
            // SAFETY: unshare, clone and clone3 have at least one argument.
            enter(call, when, unsafe { record.add(ARGUMENTS_OFFSET).cast::<u64>().read() })
        };
    }
    0
}

/// Entry of setns, which says in its second argument what it enters.
#[tracepoint]
fn setns_enter(ctx: TracePointContext) -> u32 {
    let record = ctx.as_ptr().cast::<u8>();
    // SAFETY: within the record of setns.
    let (number, kinds) = unsafe {
        (
            record.add(NUMBER_OFFSET).cast::<i32>().read(),
            record.add(ARGUMENTS_OFFSET + 8).cast::<u64>().read(),
        )
    };
    if let Some((call, when)) = mount_call(number) {
        let _ = enter(call, when, kinds);
    }
    0
}

#[tracepoint]
fn mount_syscall_exit(ctx: TracePointContext) -> u32 {
    let record = ctx.as_ptr().cast::<u8>();
    // SAFETY: within the record of every system call.
    let number = unsafe { record.add(NUMBER_OFFSET).cast::<i32>().read() };
    if let Some((call, when)) = mount_call(number) {
        // SAFETY: as above.
        let ret = unsafe { record.add(ARGUMENTS_OFFSET).cast::<i64>().read() };
        let _ = exit(call, when, ret);
        #[cfg(feature = "log")]
        aya_log_ebpf::trace!(&ctx, "mount call {} returned {}", call, ret);
    }
    0
}

/// The mount call with this number, and when it counts.
#[inline(always)]
fn mount_call(number: i32) -> Option<(u8, u8)> {
    let number = number as u32 as usize;
    if number >= NUMBERS {
        return None;
    }
    // SAFETY: bounded above; volatile because user space sets the value.
    let call = unsafe { (&raw const SYSCALL_OF_NUMBER).cast::<u8>().add(number).read_volatile() };
    if call as usize >= SYSCALLS {
        return None;
    }
    // SAFETY: as above.
    let when = unsafe { (&raw const SYSCALL_WHEN).cast::<u8>().add(call as usize).read_volatile() };
    Some((call, when))
}

/// Notes that the task enters a mount call. `argument` is the flags, the
/// pointer to them, or the namespace kinds, as `when` says.
#[inline(always)]
fn enter(call: u8, when: u8, argument: u64) -> Option<()> {
    let state = arrays::cpu_state(arrays::cpu())?;
    let mut from_namespace = 0;
    if when == When::FirstArgumentNewns as u8 {
        if argument & CLONE_NEWNS == 0 {
            return None;
        }
    } else if when == When::CloneArgsNewns as u8 {
        // SAFETY: the helper checks the address; flags come first in the struct.
        match unsafe { bpf_probe_read_user(argument as *const u64) } {
            Ok(flags) if flags & CLONE_NEWNS == 0 => return None,
            Ok(_) => {}
            Err(_) => {
                count_drop(state, Drop::CloneArgsUnreadable);
                return None;
            }
        }
    } else if when == When::EntersMountNamespace as u8 && argument & CLONE_NEWNS == 0 {
        if argument != 0 {
            return None;
        }
        from_namespace = mount_namespace()?;
    }
    let tid = bpf_get_current_pid_tgid() as u32;
    let (outcome, position) = inflight::enter_call(&Tasks, tid, call);
    match outcome {
        Begin::Full => {
            count_drop(state, Drop::SyscallInflightFull);
            return None;
        }
        Begin::Replaced => count_drop(state, Drop::UnmatchedSyscall),
        Begin::Started | Begin::Continued => {}
    }
    let slot = arrays::CALLS.get_ptr_mut(position)?;
    // SAFETY: a live array element that belongs to the task's slot; the clock
    // is a helper without arguments.
    unsafe { *slot = CallState { start_ns: bpf_ktime_get_ns(), from_namespace } };
    Some(())
}

/// Books a mount call that returns `ret`.
#[inline(always)]
fn exit(call: u8, when: u8, ret: i64) -> Option<()> {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let tid = bpf_get_current_pid_tgid() as u32;
    let cpu = arrays::cpu();
    let state = arrays::cpu_state(cpu)?;
    let entered = inflight::exit_call(&Tasks, tid, |entered, position| {
        // SAFETY: a live array element that belongs to the task's slot.
        let slot = unsafe { arrays::CALLS.get_ptr(position)?.read() };
        (entered == call).then_some(slot)
    });
    let Some(entered) = entered else {
        // A call that counts only sometimes has no entry the other times.
        if when == When::Always as u8 {
            count_drop(state, Drop::UnmatchedSyscall);
        }
        return None;
    };
    if entered.from_namespace != 0 && (ret < 0 || mount_namespace()? == entered.from_namespace) {
        return None;
    }
    arrays::node(state);
    book(cpu, call, now.saturating_sub(entered.start_ns), ret < 0)?;
    if ret < 0 {
        count_errno(state, call, ret)?;
    }
    // Last, hence volatile: a reader that sees the new number finds the call in
    // the bank.
    // SAFETY: a field of a live array element that only this program writes.
    unsafe { (&raw mut state.calls).write_volatile(state.calls + 1) };
    Some(())
}

/// Adds a call to this CPU's bank.
#[inline(always)]
fn book(cpu: u32, call: u8, took: u64, failed: bool) -> Option<()> {
    let bank = arrays::SYSCALLS.get_ptr_mut(cpu * SYSCALLS as u32 + u32::from(call))?;
    // SAFETY: a live array element that only the exit program on this CPU
    // writes, and the kernel does not run that twice at once on a CPU.
    let bank = unsafe { &mut *bank };
    let finished = bank.finished + 1;
    // SAFETY: volatile keeps the marks for the reader in place.
    unsafe { (&raw mut bank.started).write_volatile(finished) };
    bank.sum_ns += took;
    if took > bank.max_ns {
        bank.max_ns = took;
    }
    bank.errors += u64::from(failed);
    if let Some(bucket) = bank.buckets.get_mut(syscall_bucket_index(took)) {
        *bucket += 1;
    }
    // SAFETY: as above.
    unsafe { (&raw mut bank.finished).write_volatile(finished) };
    Some(())
}

/// Adds an error to the table of errors by errno.
#[inline(always)]
fn count_errno(state: &mut CpuState, call: u8, ret: i64) -> Option<()> {
    let key = errno_key(call, (-ret) as u16);
    let start = errno_slot(key);
    for probe in 0..ERRNO_PROBES {
        let index = (start + probe) & (ERRNO_SLOTS - 1);
        let slot = arrays::ERRNOS.get_ptr_mut(index)?;
        // SAFETY: words of a live array element, shared by all CPUs.
        unsafe {
            let word = &raw mut (*slot).key;
            let mine = |held| held == key;
            // Whoever is first may have written this very key.
            if mine(word.read_volatile())
                || word.read_volatile() == 0 && atomic::claim(word, ERRNO_CLAIMS + index, key)
                || mine(word.read_volatile())
            {
                atomic::add(&raw mut (*slot).count, 1);
                return Some(());
            }
        }
    }
    count_drop(state, Drop::ErrnoTableFull);
    Some(())
}

/// Address of the task's mount namespace, to tell whether it changed; never
/// leaves the kernel side. `None` when the kernel's field offsets are unknown or
/// the task is exiting.
#[inline(always)]
fn mount_namespace() -> Option<u64> {
    let (task_nsproxy, nsproxy_mnt_ns) = (layout!(task_nsproxy), layout!(nsproxy_mnt_ns));
    if task_nsproxy == 0 {
        return None;
    }
    // SAFETY: a helper without arguments; the reads check their addresses.
    unsafe {
        let task = bpf_get_current_task() as *const u8;
        let nsproxy: *const u8 =
            bpf_probe_read_kernel(task.wrapping_add(task_nsproxy as usize).cast()).ok()?;
        bpf_probe_read_kernel(nsproxy.wrapping_add(nsproxy_mnt_ns as usize).cast()).ok()
    }
}
