//! Superblocks that are made, by type of file system.
//!
//! In: the return of `sget_fc` and `sget` (fs/super.c), through which every file
//! system gets a superblock. Out: `SUPERBLOCKS`.
//!
//! A new one has no root yet when they return it. One that was there has: they
//! wait until it is complete (`grab_super`).

use aya_ebpf::helpers::bpf_probe_read_kernel as read;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use aya_ebpf::macros::{fexit, kretprobe};
use aya_ebpf::programs::{FExitContext, RetProbeContext};
use profiler_common::inflight::Word as _;
use profiler_common::layout::SUPERBLOCK_CLAIMS;
use profiler_common::mounts::{
    SUPERBLOCK_PROBES, SUPERBLOCK_ROWS, SuperblockFields, SuperblockRow, name_key, superblock_row,
};

use crate::arrays::SUPERBLOCKS;
use crate::atomic::{self, SharedWord};
use crate::slow_path::{argument, is_error};

/// Set at load time.
#[unsafe(no_mangle)]
static SUPERBLOCK_FIELDS: SuperblockFields =
    SuperblockFields { superblock_type: 0, superblock_root: 0, type_name: 0 };

/// The word at an offset of [`SUPERBLOCK_FIELDS`] behind `base`.
macro_rules! word {
    ($base:expr, $field:ident) => {{
        // SAFETY: a static; volatile because user space sets its value at load
        // time.
        let offset = unsafe { (&raw const SUPERBLOCK_FIELDS.$field).read_volatile() };
        // SAFETY: the helper checks the address.
        unsafe { read($base.wrapping_add(u64::from(offset)) as *const u64) }.ok()
    }};
}

/// Return of `sget_fc`, after its three arguments.
#[fexit]
fn sget_fc_exit(ctx: FExitContext) -> i32 {
    let _ = got(argument(&ctx, 3));
    0
}

/// Return of `sget`, after its five arguments.
#[fexit]
fn sget_exit(ctx: FExitContext) -> i32 {
    let _ = got(argument(&ctx, 5));
    0
}

/// Return of either.
#[kretprobe]
fn sget_return(ctx: RetProbeContext) -> u32 {
    let _ = got(ctx.ret());
    0
}

/// A file system gets the superblock at `superblock`, or an errno as a pointer.
#[inline(always)]
fn got(superblock: u64) -> Option<()> {
    if is_error(superblock) || word!(superblock, superblock_root)? != 0 {
        return None;
    }
    let of_type = word!(superblock, superblock_type)?;
    let type_name = word!(of_type, type_name)?;
    let mut name = [0u64; 2];
    // SAFETY: the array is as large as it says; the helper checks the address.
    let len = unsafe {
        bpf_probe_read_kernel_str(
            name.as_mut_ptr().cast(),
            size_of_val(&name) as u32,
            type_name as *const _,
        )
    };
    if len < 0 {
        return None;
    }
    let row = row(name)?;
    // SAFETY: a word of a live array element.
    unsafe { atomic::add(&raw mut (*row).count, 1) };
    Some(())
}

/// The row of a type; if there is none and none is free within reach, the one of
/// all such types.
#[inline(always)]
fn row(name: [u64; 2]) -> Option<*mut SuperblockRow> {
    let key = name_key(name);
    let start = superblock_row(key);
    for probe in 0..SUPERBLOCK_PROBES {
        let index = (start + probe) & (SUPERBLOCK_ROWS - 1);
        let row = SUPERBLOCKS.get_ptr_mut(index)?;
        // SAFETY: words of a live array element, shared by all CPUs; `SharedWord`
        // has the layout of `u64`.
        unsafe {
            let held = &raw mut (*row).key;
            if held.read_volatile() == key {
                return Some(row);
            }
            if held.read_volatile() == 0 && atomic::claim(held, SUPERBLOCK_CLAIMS + index, key) {
                (*row).name[1] = name[1];
                let first = &*(&raw const (*row).name[0]).cast::<SharedWord>();
                first.store_release(name[0]);
                return Some(row);
            }
            // Whoever was first may have written this very key.
            if held.read_volatile() == key {
                return Some(row);
            }
        }
    }
    SUPERBLOCKS.get_ptr_mut(SUPERBLOCK_ROWS)
}
