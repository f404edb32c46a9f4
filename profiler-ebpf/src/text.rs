//! Reads kernel text for the resolver, in kernels without data symbols.
//!
//! Never attached: user space runs it with `BPF_PROG_TEST_RUN` and an address
//! as its argument, then takes the bytes from `TEXT`.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use profiler_common::layout::TEXT_WINDOW;

use crate::arrays::TEXT;

/// Argument 0: the address. Returns 0, or the negative errno of the read.
///
/// Declared by hand: the attribute for raw tracepoints makes the result 0 always.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tracepoint/read_text")]
fn read_text(arguments: *const u64) -> i32 {
    // SAFETY: user space passes one argument; the kernel zeroes the others.
    let address = unsafe { *arguments };
    let Some(window) = TEXT.get_ptr_mut(0) else {
        return -1;
    };
    // SAFETY: the window is as large as the read; the helper checks the address.
    (unsafe { bpf_probe_read_kernel(window.cast(), TEXT_WINDOW as u32, address as *const _) })
        as i32
}
