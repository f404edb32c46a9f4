//! Superblocks that are made: `sget_fc` and `sget` (fs/super.c).

use aya::{Btf, BtfError, Ebpf};
use profiler_common::mounts::SuperblockFields;

use super::HookState;
use super::backend::{Backends, CallBackend};
use super::functions::{attach as attach_by, by_fexit, by_kprobe};
use crate::kernel::fields::{Field, Fields};

/// Through which file systems get a superblock, with the program for its return;
/// names of the hooks.
pub const SUPERBLOCKS: [&str; 2] = ["sget_fc", "sget"];
const PROGRAMS: [&str; 2] = ["sget_fc_exit", "sget_exit"];
/// By kprobe both functions share a program.
const PROBE: &str = "sget_return";

/// Where a superblock says what it is; else which field is missing, and why.
pub(super) fn superblock_fields(fields: &Fields) -> Result<SuperblockFields, String> {
    Ok(SuperblockFields {
        superblock_type: fields.require(Field::SuperblockType)?,
        superblock_root: fields.require(Field::SuperblockRoot)?,
        type_name: fields.require(Field::TypeName)?,
    })
}

/// Attaches both functions.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    btf: Result<&Btf, &BtfError>,
    backends: &Backends,
    fields: Result<&SuperblockFields, &String>,
) -> Vec<HookState> {
    let mut by = |function, program| {
        attach_by(function, backends, |backend| {
            fields.map_err(Clone::clone)?;
            match backend {
                CallBackend::Fentry => by_fexit(ebpf, btf, program, function),
                _ => by_kprobe(ebpf, PROBE, function),
            }
        })
    };
    SUPERBLOCKS.into_iter().zip(PROGRAMS).map(|(function, program)| by(function, program)).collect()
}
