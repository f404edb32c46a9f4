//! The functions behind the calls (`__x64_sys_mount`, ...), by fentry with fexit
//! or by kprobe with kretprobe.
//!
//! Each call has programs of its own. fentry and fexit programs are bound to a
//! function when they are loaded, and neither they nor a kretprobe can ask which
//! one they are in (the helpers for that are newer than Linux 5.10). The system
//! call number in the user's registers would not do: a 32-bit program on arm64
//! comes through the same functions with other numbers.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::{fentry, fexit, kprobe, kretprobe};
use aya_ebpf::programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext};
use profiler_common::syscalls::{MOUNT_SYSCALLS, When, index_of};

use super::{enter, exit};

/// Offsets of the first two arguments of a system call in the user's registers,
/// in bytes: `di` and `si` of `struct pt_regs` in
/// arch/x86/include/uapi/asm/ptrace.h, `regs[0]` and `regs[1]` of `struct
/// user_pt_regs` in arch/arm64/include/uapi/asm/ptrace.h, with which the
/// kernel's own struct begins.
const ARGUMENTS: [usize; 2] = if cfg!(bpf_target_arch = "aarch64") { [0, 8] } else { [112, 104] };

/// Entry of the call with index `CALL`, whose function gets the user's registers
/// at `registers`.
#[inline(always)]
fn entered<const CALL: u8>(registers: *const u8) {
    let when = const { MOUNT_SYSCALLS[CALL as usize].when };
    if let Some(argument) = argument(registers, when) {
        enter(CALL, when as u8, argument);
    }
}

/// Return of the call with index `CALL`.
#[inline(always)]
fn returned<const CALL: u8>(ctx: &impl EbpfContext, ret: i64) {
    exit(CALL, const { MOUNT_SYSCALLS[CALL as usize].when } as u8, ret);
    #[cfg(feature = "log")]
    aya_log_ebpf::trace!(ctx, "mount call {} returned {}", CALL, ret);
    #[cfg(not(feature = "log"))]
    let _ = ctx;
}

/// The argument that says whether the call counts; 0 where none does.
#[inline(always)]
fn argument(registers: *const u8, when: When) -> Option<u64> {
    let offset = match when {
        When::Always => return Some(0),
        When::FirstArgumentNewns | When::CloneArgsNewns => ARGUMENTS[0],
        When::EntersMountNamespace => ARGUMENTS[1],
    };
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(registers.wrapping_add(offset).cast()) }.ok()
}

/// The four programs of each call. Their names are known to
/// `profiler-daemon/src/hooks/syscalls`.
macro_rules! programs {
    ($($call:literal $fentry:ident $fexit:ident $kprobe:ident $kretprobe:ident)*) => {$(
        #[fentry]
        fn $fentry(ctx: FEntryContext) -> i32 {
            entered::<{ index_of($call).expect("a mount call") }>(ctx.arg(0));
            0
        }

        #[fexit]
        fn $fexit(ctx: FExitContext) -> i32 {
            // The result follows the arguments, of which there is one.
            returned::<{ index_of($call).expect("a mount call") }>(&ctx, ctx.arg(1));
            0
        }

        #[kprobe]
        fn $kprobe(ctx: ProbeContext) -> u32 {
            if let Some(registers) = ctx.arg(0) {
                entered::<{ index_of($call).expect("a mount call") }>(registers);
            }
            0
        }

        #[kretprobe]
        fn $kretprobe(ctx: RetProbeContext) -> u32 {
            returned::<{ index_of($call).expect("a mount call") }>(&ctx, ctx.ret());
            0
        }
    )*};
}

programs! {
    "mount" fentry_mount fexit_mount kprobe_mount kretprobe_mount
    "umount2" fentry_umount2 fexit_umount2 kprobe_umount2 kretprobe_umount2
    "move_mount" fentry_move_mount fexit_move_mount kprobe_move_mount kretprobe_move_mount
    "fsopen" fentry_fsopen fexit_fsopen kprobe_fsopen kretprobe_fsopen
    "fsconfig" fentry_fsconfig fexit_fsconfig kprobe_fsconfig kretprobe_fsconfig
    "fsmount" fentry_fsmount fexit_fsmount kprobe_fsmount kretprobe_fsmount
    "fspick" fentry_fspick fexit_fspick kprobe_fspick kretprobe_fspick
    "open_tree" fentry_open_tree fexit_open_tree kprobe_open_tree kretprobe_open_tree
    "open_tree_attr"
        fentry_open_tree_attr fexit_open_tree_attr kprobe_open_tree_attr kretprobe_open_tree_attr
    "mount_setattr"
        fentry_mount_setattr fexit_mount_setattr kprobe_mount_setattr kretprobe_mount_setattr
    "pivot_root" fentry_pivot_root fexit_pivot_root kprobe_pivot_root kretprobe_pivot_root
    "unshare" fentry_unshare fexit_unshare kprobe_unshare kretprobe_unshare
    "setns" fentry_setns fexit_setns kprobe_setns kretprobe_setns
    "clone" fentry_clone fexit_clone kprobe_clone kretprobe_clone
    "clone3" fentry_clone3 fexit_clone3 kprobe_clone3 kretprobe_clone3
    "statmount" fentry_statmount fexit_statmount kprobe_statmount kretprobe_statmount
    "listmount" fentry_listmount fexit_listmount kprobe_listmount kretprobe_listmount
}
