//! The BPF programs of lockprof, one file per hook family.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![feature(asm_experimental_arch)]
#![expect(internal_features, reason = "the BPF target has no stable 64-bit compare-exchange")]

#[cfg(not(feature = "no-compare-exchange"))]
mod abilities;
mod arrays;
mod atomic;
mod attribution;
#[cfg(not(feature = "no-compare-exchange"))]
mod contention;
#[cfg(not(feature = "no-compare-exchange"))]
mod holds;
mod mount_tables;
mod mountinfo;
mod owner;
mod samples;
mod slow_path;
mod superblocks;
mod syscalls;
mod text;
mod waits;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// The helpers for reading kernel memory are open to GPL-compatible programs
// only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
