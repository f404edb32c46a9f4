//! The per-syscall tracepoints `syscalls:sys_enter_*` and `sys_exit_*`: one
//! program serves all entries but one, and one all returns.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use profiler_common::syscalls::{SYSCALLS, When};

use super::{enter, exit};

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
        if when == When::Always as u8 {
            enter(call, when, 0);
        } else {
            // SAFETY: unshare, clone and clone3 have at least one argument.
            enter(call, when, unsafe { record.add(ARGUMENTS_OFFSET).cast::<u64>().read() });
        }
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
        enter(call, when, kinds);
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
        exit(call, when, ret);
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
