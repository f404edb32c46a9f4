//! Who reads mount tables through `/proc`: `mounts_open_common`
//! (fs/proc_namespace.c) and `seq_read_iter` (fs/seq_file.c).

use std::fs::File;

use aya::maps::{Array, MapData};
use aya::programs::{FEntry, FExit, KProbe, RawTracePoint, RawTracePointRunOptions, TestRun as _};
use aya::{Btf, BtfError, Ebpf};
use profiler_common::layout::maps;
use profiler_common::mounts::{FILES, FileFields, FileKinds};

use super::HookState;
use super::backend::{Backends, CallBackend};
use super::functions::{attach as attach_by, by_fentry, by_fexit, by_kprobe};
use super::programs::{chain, find};
use crate::kernel::fields::{Field, Fields};

/// What opens the three files; name of the hook.
pub const OPEN: &str = "mounts_open_common";
/// What reads them, and most other files of `/proc`; name of the hook.
pub const READ: &str = "seq_read_iter";

/// Programs for the entry of [`OPEN`]: by fentry, by kprobe.
const OPEN_PROGRAMS: [&str; 2] = ["mounts_open_enter", "mounts_open_probe"];
/// Programs for the entry and the return of [`READ`]: by fentry, by kprobe.
const READ_PROGRAMS: [&str; 4] = [
    "mountinfo_read_enter",
    "mountinfo_read_exit",
    "mountinfo_read_probe",
    "mountinfo_read_return",
];

/// Where the kernel has what the programs look at; else which field is missing,
/// and why.
pub(super) fn file_fields(fields: &Fields) -> Result<FileFields, String> {
    Ok(FileFields {
        kiocb_file: fields.require(Field::KiocbFile)?,
        kiocb_position: fields.require(Field::KiocbPosition)?,
        file_operations: fields.require(Field::FileOperations)?,
        file_private: fields.require(Field::FilePrivate)?,
        seq_buffer: fields.require(Field::SeqBuffer)?,
        seq_from: fields.require(Field::SeqFrom)?,
        seq_count: fields.require(Field::SeqCount)?,
    })
}

/// Attaches both hooks, or neither: without the first nobody knows which reads
/// count.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    btf: Result<&Btf, &BtfError>,
    backends: &Backends,
    fields: Result<&FileFields, &String>,
) -> [HookState; 2] {
    let known = || fields.map(drop).map_err(Clone::clone);
    let open = attach_by(OPEN, backends, |backend| {
        known()?;
        match backend {
            CallBackend::Fentry => by_fentry(ebpf, btf, OPEN_PROGRAMS[0], OPEN)?,
            _ => by_kprobe(ebpf, OPEN_PROGRAMS[1], OPEN)?,
        }
        learn(ebpf).inspect_err(|_| unload(ebpf, &OPEN_PROGRAMS))
    });
    if open.backend.is_none() {
        let mut read = HookState::new(READ);
        let why = format!("which reads count is not known without {OPEN}");
        read.refused.extend(open.refused.iter().map(|(backend, _)| (*backend, why.clone())));
        return [open, read];
    }
    let read = attach_by(READ, backends, |backend| {
        // The return first: an entry alone would leave slots behind that nothing
        // ends.
        let attached = match backend {
            CallBackend::Fentry => by_fexit(ebpf, btf, READ_PROGRAMS[1], READ)
                .and_then(|()| by_fentry(ebpf, btf, READ_PROGRAMS[0], READ)),
            _ => by_kprobe(ebpf, READ_PROGRAMS[3], READ)
                .and_then(|()| by_kprobe(ebpf, READ_PROGRAMS[2], READ)),
        };
        attached.inspect_err(|_| unload(ebpf, &READ_PROGRAMS))
    });
    [open, read]
}

/// Takes back what was attached of `programs`.
fn unload(ebpf: &mut Ebpf, programs: &[&str]) {
    for name in programs {
        // What is not loaded cannot be unloaded; there is nothing to say of it.
        if let Ok(program) = find::<FEntry>(ebpf, name) {
            let _ = program.unload();
        } else if let Ok(program) = find::<FExit>(ebpf, name) {
            let _ = program.unload();
        } else if let Ok(program) = find::<KProbe>(ebpf, name) {
            let _ = program.unload();
        }
    }
}

/// Opens the files of this process, so that the programs learn what tells them
/// apart. Opening one walks no mounts, and it is not counted.
fn learn(ebpf: &mut Ebpf) -> Result<(), String> {
    note_own_process(ebpf)?;
    let map = ebpf
        .map_mut(maps::FILE_KINDS)
        .ok_or_else(|| format!("the BPF object has no array {}", maps::FILE_KINDS))?;
    let mut kinds: Array<&mut MapData, FileKinds> =
        map.try_into().map_err(|error: aya::maps::MapError| chain(&error))?;
    let mut known = kinds.get(&0, 0).map_err(|error| chain(&error))?;
    for (file, learning) in FILES.iter().zip(1..) {
        known.learning = learning;
        kinds.set(0, known, 0).map_err(|error| chain(&error))?;
        let path = format!("/proc/self/{file}");
        File::open(&path).map_err(|error| format!("failed to open {path} ({error})"))?;
        known = kinds.get(&0, 0).map_err(|error| chain(&error))?;
        let own = known.operations[learning as usize - 1];
        if own == 0 {
            return Err(format!("{OPEN} was not called when {path} was opened"));
        }
        if known.operations.iter().filter(|other| **other == own).count() != 1 {
            return Err(format!("{path} has the operations of another file"));
        }
    }
    known.learning = 0;
    kinds.set(0, known, 0).map_err(|error| chain(&error))
}

/// Has the id of this process noted, as the initial pid namespace numbers it: of
/// `getpid()` in a container the programs know nothing.
fn note_own_process(ebpf: &mut Ebpf) -> Result<(), String> {
    let program: &mut RawTracePoint = find(ebpf, "note_own_process")?;
    if program.fd().is_err() {
        program.load().map_err(|error| chain(&error))?;
    }
    program.test_run(RawTracePointRunOptions::new()).map(drop).map_err(|error| chain(&error))
}
