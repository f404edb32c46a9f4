//! Where CPUs are in the kernel: a program on a perf event of each CPU.
//!
//! In: overflows of the event, with the registers of what it interrupted. Out:
//! `SAMPLES`. A hardware event interrupts anything by an NMI, other programs of
//! ours included, so this one touches nothing that they do: its own bank, and
//! read-only data.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_perf_event_data;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::perf_event;
use aya_ebpf::programs::PerfEventContext;
use profiler_common::samples::{CodeRange, NO_RANGE, RANGES, place_of};

use crate::arrays;

/// The functions that are told apart, ascending. Set at load time.
#[unsafe(no_mangle)]
static CODE_RANGES: [CodeRange; RANGES] = [NO_RANGE; RANGES];

#[perf_event]
fn sample(ctx: PerfEventContext) -> i32 {
    let _ = try_sample(&ctx);
    0
}

/// Counts a sample. `None` only if this CPU has no bank, which sizing by
/// possible CPUs rules out.
#[inline(always)]
fn try_sample(ctx: &PerfEventContext) -> Option<()> {
    let address = instruction_pointer(ctx);
    // The upper half of the address space is the kernel's. A hardware event that
    // leaves user space out still can be late, and find the CPU back there.
    // Idle tasks have the id 0, and the event is as likely to be one that idling
    // does not stop.
    if address >> 63 == 0 || bpf_get_current_pid_tgid() == 0 {
        return Some(());
    }
    let place = place_of(address, range);
    let bank = arrays::SAMPLES.get_ptr_mut(arrays::cpu())?;
    // SAFETY: a live array element. Only this program on this CPU writes it: the
    // CPU has one event, and the kernel does not run its program inside itself
    // (`bpf_prog_active` in bpf_overflow_handler(), kernel/events/core.c).
    let count = unsafe { (*bank).counts.get_mut(place as usize) }?;
    *count += 1;
    Some(())
}

/// Entry `index`, below [`RANGES`], of the read-only table.
#[inline(always)]
fn range(index: usize) -> CodeRange {
    // SAFETY: below the length of the table.
    let entry = unsafe { (&raw const CODE_RANGES).cast::<CodeRange>().add(index) };
    // SAFETY: as above; volatile because user space sets the value at load time.
    unsafe { entry.read_volatile() }
}

/// What the CPU was about to execute.
#[inline(always)]
fn instruction_pointer(ctx: &PerfEventContext) -> u64 {
    let data = ctx.as_ptr().cast::<bpf_perf_event_data>();
    // SAFETY: the context of a program of this type; the kernel gives the whole
    // register.
    #[cfg(bpf_target_arch = "x86_64")]
    unsafe {
        (&raw const (*data).regs.rip).read_volatile()
    }
    // SAFETY: as above.
    #[cfg(bpf_target_arch = "aarch64")]
    unsafe {
        (&raw const (*data).regs.pc).read_volatile()
    }
    // On others, whose programs are not attached, nothing is in the kernel.
    #[cfg(not(any(bpf_target_arch = "x86_64", bpf_target_arch = "aarch64")))]
    {
        let _ = data;
        0
    }
}
