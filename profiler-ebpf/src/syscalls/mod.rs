//! Mount system calls: how long, with which error, on which node.
//!
//! In: both ends of the calls in `profiler_common::syscalls`. Out: `SYSCALLS`,
//! `ERRNOS`, and which call a task is in, for `SYSCALL_WAITS`.
//!
//! A backend is a thin wrapper that finds the call, its arguments and its
//! result, and hands them to [`enter`] and [`exit`]: [`function`] holds fentry
//! with fexit and kprobe with kretprobe, [`tracepoint`] the per-syscall
//! tracepoints. One call has one backend at a time.
//!
//! What interrupts what: kprobe programs run with preemption off, and tracepoint
//! programs did to Linux 6.19. On 7.2 those (`trace_call_bpf_faultable` in
//! kernel/trace/bpf_trace.c), and fentry and fexit programs ever since
//! `migrate_disable` no longer implies it, stay on their CPU, but another task
//! may run there in the middle of one. The kernel does not start a program that
//! is under way on the CPU, and counts that it did not: so what a call, or an
//! exit program, has to itself needs no care, and what calls share takes
//! atomics.

mod function;
mod tracepoint;

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_ktime_get_ns};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel, bpf_probe_read_user};
use profiler_common::inflight::{self, Begin};
use profiler_common::layout::{
    CallState, CpuState, Drop, ERRNO_CLAIMS, ERRNO_PROBES, ERRNO_SLOTS, errno_key, errno_slot,
    syscall_bucket_index,
};
use profiler_common::syscalls::{CLONE_NEWNS, SYSCALLS, When};

use crate::arrays::{self, Tasks, layout};
use crate::{atomic, attribution};

/// Notes that the task enters a mount call. `argument` is the flags, the
/// pointer to them, or the namespace kinds, as `when` says.
///
/// A function of its own, as [`exit`] is: with the body in each of the programs
/// the object would be four times as large.
#[inline(never)]
fn enter(call: u8, when: u8, argument: u64) {
    let _ = try_enter(call, when, argument);
}

#[inline(always)]
fn try_enter(call: u8, when: u8, argument: u64) -> Option<()> {
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
                count_loss(state, Drop::CloneArgsUnreadable);
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
            count_loss(state, Drop::SyscallInflightFull);
            return None;
        }
        Begin::Replaced => count_loss(state, Drop::UnmatchedSyscall),
        Begin::Started | Begin::Continued => {}
    }
    let slot = arrays::CALLS.get_ptr_mut(position)?;
    // SAFETY: a live array element that belongs to the task's slot; the clock
    // is a helper without arguments.
    unsafe { *slot = CallState { start_ns: bpf_ktime_get_ns(), before: from_namespace } };
    attribution::entered(position);
    Some(())
}

/// Books a mount call that returns `ret`.
#[inline(never)]
fn exit(call: u8, when: u8, ret: i64) {
    let _ = try_exit(call, when, ret);
}

#[inline(always)]
fn try_exit(call: u8, when: u8, ret: i64) -> Option<()> {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let tid = bpf_get_current_pid_tgid() as u32;
    let cpu = arrays::cpu();
    let state = arrays::cpu_state(cpu)?;
    // Filled in rather than returned: the compiler may move around what an empty
    // `Option` holds, and the verifier refuses to read what was never written.
    let mut entered = CallState { start_ns: 0, before: 0 };
    let found = inflight::exit_call(&Tasks, tid, |entered_call, position| {
        if entered_call != call {
            return None;
        }
        // SAFETY: a live array element that belongs to the task's slot.
        entered = unsafe { arrays::CALLS.get_ptr(position)?.read() };
        Some(())
    });
    if found.is_none() {
        // A call that counts only sometimes has no entry the other times.
        if when == When::Always as u8 {
            count_loss(state, Drop::UnmatchedSyscall);
        }
        return None;
    }
    if entered.before != 0 && (ret < 0 || mount_namespace()? == entered.before) {
        return None;
    }
    arrays::node(state);
    book(cpu, call, now.saturating_sub(entered.start_ns), ret < 0)?;
    if ret < 0 {
        count_errno(state, call, ret)?;
    }
    // Last: a reader that sees the new number finds the call in the bank.
    // SAFETY: a word of a live array element.
    unsafe { atomic::add(&raw mut state.calls, 1) };
    Some(())
}

/// Adds a call to this CPU's bank.
#[inline(always)]
fn book(cpu: u32, call: u8, took: u64, failed: bool) -> Option<()> {
    let bank = arrays::SYSCALLS.get_ptr_mut(cpu * SYSCALLS as u32 + u32::from(call))?;
    // SAFETY: a live array element that only the call's exit program on this
    // CPU writes, and the kernel does not run that twice at once on a CPU.
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

/// Counts a loss, of a kind that several of these programs count.
#[inline(always)]
fn count_loss(state: &mut CpuState, why: Drop) {
    if let Some(counter) = state.drops.get_mut(why as usize) {
        // SAFETY: a word of a live array element.
        unsafe { atomic::add(counter, 1) };
    }
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
    count_loss(state, Drop::ErrnoTableFull);
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
