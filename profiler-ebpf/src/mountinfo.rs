//! Who reads mount tables through `/proc`: `mountinfo`, `mounts` and
//! `mountstats` of a process.
//!
//! In: `mounts_open_common` (fs/proc_namespace.c), which opens all three, and
//! both ends of `seq_read_iter` (fs/seq_file.c), which reads them as it reads
//! most files of `/proc`. Out: `READERS`, and that a task is in
//! [`MOUNTINFO_READ`].
//!
//! Which file it is, its operations tell (`file.f_op`). Each of the three has its
//! own, which lockprof learns by opening its own files once (`FILE_KINDS`).
//!
//! How many mounts were written out is counted in the buffer, after the kernel
//! has let go of `namespace_sem`: a hook on the functions that write a mount
//! would run for each of them while the lock is held, and the position in the
//! file is no count (from Linux 6.8 it is the id of a mount: `m_next` in
//! fs/namespace.c).
//!
//! What interrupts what: see [`syscalls`](crate::syscalls). Everything shared
//! takes atomics.

use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_kernel};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel as read};
use aya_ebpf::macros::{fentry, fexit, kprobe, kretprobe, raw_tracepoint};
use aya_ebpf::programs::{
    FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext,
};
use profiler_common::charges::Identity;
use profiler_common::inflight::{self, Begin};
use profiler_common::layout::{CallState, Drop, READER_CLAIMS};
use profiler_common::mounts::{
    EntryCounter, FILES, FILLER, FileFields, FileKinds, MOUNTINFO_READ, READER_PROBES, READER_ROWS,
    ReadState, ReaderRow, reader_key, reader_row,
};

use crate::arrays::{self, FILE_KINDS, READERS, Tasks, count_drop};
use crate::atomic::{self, SharedWord};
use crate::slow_path::argument;
use crate::{attribution, owner};

/// Set at load time.
#[unsafe(no_mangle)]
static FILE_FIELDS: FileFields = FileFields {
    kiocb_file: 0,
    kiocb_position: 0,
    file_operations: 0,
    file_private: 0,
    seq_buffer: 0,
    seq_from: 0,
    seq_count: 0,
};

/// An offset of [`FILE_FIELDS`].
macro_rules! field {
    ($field:ident) => {{
        // SAFETY: a static; volatile because user space sets its value at load
        // time.
        u64::from(unsafe { (&raw const FILE_FIELDS.$field).read_volatile() })
    }};
}

/// Never attached: user space runs it with `BPF_PROG_TEST_RUN` to have the id of
/// its process noted.
#[raw_tracepoint]
fn note_own_process(_ctx: RawTracePointContext) -> i32 {
    if let Some(kinds) = FILE_KINDS.get_ptr_mut(0) {
        let process = (bpf_get_current_pid_tgid() >> 32) as u32;
        // SAFETY: a word of a live array element; nothing else runs yet.
        unsafe { (&raw mut (*kinds).own_process).write_volatile(process) };
    }
    0
}

#[fentry]
fn mounts_open_enter(ctx: FEntryContext) -> i32 {
    let _ = opened(argument(&ctx, 1));
    0
}

#[kprobe]
fn mounts_open_probe(ctx: ProbeContext) -> u32 {
    if let Some(file) = ctx.arg(1) {
        let _ = opened(file);
    }
    0
}

#[fentry]
fn mountinfo_read_enter(ctx: FEntryContext) -> i32 {
    let _ = entered(argument(&ctx, 0));
    0
}

#[fexit]
fn mountinfo_read_exit(ctx: FExitContext) -> i32 {
    if kind_of_read(argument(&ctx, 0)).is_some() {
        let _ = returned(argument(&ctx, 2) as i64);
    }
    0
}

#[kprobe]
fn mountinfo_read_probe(ctx: ProbeContext) -> u32 {
    if let Some(iocb) = ctx.arg(0) {
        let _ = entered(iocb);
    }
    0
}

#[kretprobe]
fn mountinfo_read_return(ctx: RetProbeContext) -> u32 {
    let _ = returned(ctx.ret());
    0
}

/// The word at `offset` behind `base`.
#[inline(always)]
fn word(base: u64, offset: u64) -> Option<u64> {
    // SAFETY: the helper checks the address.
    unsafe { read(base.wrapping_add(offset) as *const u64) }.ok()
}

/// Index of the file whose operations are at `operations`.
#[inline(always)]
fn kind(kinds: *const FileKinds, operations: u64) -> Option<u32> {
    for (file, _) in FILES.iter().enumerate() {
        // SAFETY: a word of a live array element; volatile because user space
        // has it written.
        if unsafe { (&raw const (*kinds).operations[file]).read_volatile() } == operations {
            return Some(file as u32);
        }
    }
    None
}

/// Index of the file that `iocb` reads, and its address.
#[inline(always)]
fn kind_of_read(iocb: u64) -> Option<(u32, u64)> {
    let kinds = FILE_KINDS.get_ptr(0)?;
    let file = word(iocb, field!(kiocb_file))?;
    Some((kind(kinds, word(file, field!(file_operations))?)?, file))
}

/// A task opens the file at `file`.
#[inline(always)]
fn opened(file: u64) -> Option<()> {
    let kinds = FILE_KINDS.get_ptr_mut(0)?;
    let operations = word(file, field!(file_operations))?;
    // SAFETY: words of a live array element; volatile because user space sets
    // them.
    let (own, learning) = unsafe {
        (
            (&raw const (*kinds).own_process).read_volatile(),
            (&raw const (*kinds).learning).read_volatile(),
        )
    };
    let index = learning.wrapping_sub(1) as usize;
    if index < FILES.len() && (bpf_get_current_pid_tgid() >> 32) as u32 == own {
        // SAFETY: in bounds; only lockprof's own thread comes here.
        unsafe {
            let known = (&raw mut (*kinds).operations).cast::<u64>().add(index);
            known.write_volatile(operations);
        }
        return None;
    }
    let row = row(kind(kinds, operations)?)?;
    // SAFETY: a word of a live array element.
    unsafe { atomic::add(&raw mut (*row).opens, 1) };
    Some(())
}

/// A task begins to read with `iocb`.
#[inline(always)]
fn entered(iocb: u64) -> Option<()> {
    let (kind, file) = kind_of_read(iocb)?;
    let seq = word(file, field!(file_private))?;
    // At the start of the file what is left in the buffer is thrown away.
    let untouched = word(iocb, field!(kiocb_position))? != 0
        && word(seq, field!(seq_count))? != 0
        && word(seq, field!(seq_from))? == 0;
    let tid = bpf_get_current_pid_tgid() as u32;
    let (outcome, position) = inflight::enter_call(&Tasks, tid, MOUNTINFO_READ);
    let lost = match outcome {
        Begin::Full => Some(Drop::SyscallInflightFull),
        Begin::Replaced => Some(Drop::UnmatchedSyscall),
        Begin::Started | Begin::Continued => None,
    };
    if let Some(lost) = lost {
        count_drop(arrays::cpu_state(arrays::cpu())?, lost);
    }
    if outcome == Begin::Full {
        return None;
    }
    let slot = arrays::CALLS.get_ptr_mut(position)?;
    let before = ReadState::new(seq, kind, untouched).0;
    // SAFETY: a live array element that belongs to the task's slot; the clock is a
    // helper without arguments.
    unsafe { *slot = CallState { start_ns: bpf_ktime_get_ns(), before } };
    attribution::entered(position);
    Some(())
}

/// The read of a mount table that this task is in, if it is in one, returns
/// `ret`.
#[inline(always)]
fn returned(ret: i64) -> Option<()> {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let tid = bpf_get_current_pid_tgid() as u32;
    // Filled in rather than returned: see `syscalls`.
    let mut began = CallState { start_ns: 0, before: 0 };
    inflight::exit_call(&Tasks, tid, |call, position| {
        if call == MOUNTINFO_READ {
            // SAFETY: a live array element that belongs to the task's slot.
            began = unsafe { arrays::CALLS.get_ptr(position)?.read() };
        }
        Some(())
    })?;
    if began.before == 0 {
        return None;
    }
    let state = ReadState(began.before);
    let row = row(state.file())?;
    let entries = entries(state, ret).unwrap_or(0);
    let took = now.saturating_sub(began.start_ns);
    // SAFETY: words of a live array element.
    unsafe {
        atomic::add(&raw mut (*row).entries, entries);
        atomic::add(&raw mut (*row).sum_ns, took);
        atomic::raise(&raw mut (*row).max_ns, took);
        // Last: a reader that sees the new number finds the read in the row.
        atomic::add(&raw mut (*row).reads, 1);
    }
    Some(())
}

/// Bytes of the buffer that are looked at at once.
const CHUNK: usize = 128;
/// Whole chunks that are looked at at most: the verifier walks through each of
/// them. The buffer is a page, unless a mount takes more than that.
const CHUNKS: u32 = 64;

/// Mounts that a read which returned `ret` wrote into the file's buffer.
///
/// What does not fill a chunk comes after the loop: within it, the verifier would
/// follow a chunk of each length through all turns that are left.
#[inline(always)]
fn entries(state: ReadState, ret: i64) -> Option<u64> {
    let seq = state.seq();
    let from = word(seq, field!(seq_from))?;
    if !state.refilled(from, ret) {
        return Some(0);
    }
    let mut address = word(seq, field!(seq_buffer))?;
    let filled = from + word(seq, field!(seq_count))?;
    let mut left = filled;
    let mut counter = EntryCounter::START;
    let mut count = 0;
    for _ in 0..CHUNKS {
        if left < CHUNK as u64 {
            break;
        }
        count += chunk(&mut counter, address, CHUNK as u32)?;
        address += CHUNK as u64;
        left -= CHUNK as u64;
    }
    if left >= CHUNK as u64 {
        // What was looked at stands for the rest.
        return (count * filled).checked_div(filled - left);
    }
    let rest = left as u32 & (CHUNK as u32 - 1);
    if rest != 0 {
        count += chunk(&mut counter, address, rest)?;
    }
    Some(count)
}

/// Mounts that begin in the `len` bytes at `address`, of a chunk at most.
#[inline(always)]
fn chunk(counter: &mut EntryCounter, address: u64, len: u32) -> Option<u64> {
    let mut words = [u64::from_ne_bytes([FILLER; 8]); CHUNK / 8];
    // SAFETY: `words` holds a chunk; the helper checks the address.
    let failed =
        unsafe { bpf_probe_read_kernel(words.as_mut_ptr().cast(), len, address as *const _) };
    if failed != 0 {
        return None;
    }
    for word in words {
        counter.add(word);
    }
    Some(counter.take())
}

/// The row of this task for the file with index `file`; if there is none and none
/// is free within reach, the one of all such tasks.
#[inline(always)]
fn row(file: u32) -> Option<*mut ReaderRow> {
    let Identity { comm, cgroup } = owner::current_identity();
    let key = reader_key(file, comm, cgroup);
    let start = reader_row(key);
    for probe in 0..READER_PROBES {
        let index = (start + probe) & (READER_ROWS - 1);
        let row = READERS.get_ptr_mut(index)?;
        // SAFETY: words of a live array element, shared by all CPUs; `SharedWord`
        // has the layout of `u64`.
        unsafe {
            let held = &raw mut (*row).key;
            if held.read_volatile() == key {
                return Some(row);
            }
            if held.read_volatile() == 0 && atomic::claim(held, READER_CLAIMS + index, key) {
                (*row).comm = comm;
                (*row).cgroup = cgroup;
                let complete = &*(&raw const (*row).file_plus_one).cast::<SharedWord>();
                inflight::Word::store_release(complete, u64::from(file) + 1);
                return Some(row);
            }
            // Whoever was first may have written this very key.
            if held.read_volatile() == key {
                return Some(row);
            }
        }
    }
    READERS.get_ptr_mut(READER_ROWS + file)
}
