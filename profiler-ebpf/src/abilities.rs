//! What the verifier takes, told by whether it takes this. Never attached.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;

use crate::{arrays, atomic};

/// Uses a compare-exchange (Linux 5.12).
#[raw_tracepoint]
fn exchanges(_ctx: RawTracePointContext) -> i32 {
    let Some(lock) = arrays::LOCKS.get_ptr_mut(0) else { return 0 };
    // SAFETY: a word of a live array element.
    i32::from(unsafe { atomic::claim(&raw mut (*lock).last_node_plus_one, 0, 1) })
}
