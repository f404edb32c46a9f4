//! How long contended locks are held: the tracepoint `lock:contended_release`
//! (Linux 7.2), beside those of lock waits.

use std::io;

use aya::programs::{BtfTracePoint, ProgramError, RawTracePoint};
use aya::{Btf, BtfError, Ebpf};
use profiler_common::layout::OwnerFields;

use super::HookState;
use super::backend::{Backends, WaitBackend};
use super::contention::{attach_btf, attach_raw, load_btf};
use super::programs::find;
use crate::kernel::fields::{Field, Fields};

/// Name of the tracepoint, and of the hook.
pub const CONTENDED_RELEASE: &str = "contended_release";

/// Its programs: by BTF, raw.
const PROGRAMS: [&str; 2] = ["contended_release_btf", "contended_release_raw"];

/// Whether the running kernel has the tracepoint; `None` if that cannot be told.
/// `ebpf` is loaded for this question alone.
pub(super) fn present(ebpf: &mut Ebpf, btf: Result<&Btf, &BtfError>) -> Option<bool> {
    let [by_btf, raw] = PROGRAMS;
    if let Ok(btf) = btf {
        let program: &mut BtfTracePoint = find(ebpf, by_btf).ok()?;
        return match program.load(CONTENDED_RELEASE, btf) {
            Err(ProgramError::Btf(BtfError::UnknownBtfTypeName { .. })) => Some(false),
            // A refusal is of the program: the kernel looked at it.
            _ => Some(true),
        };
    }
    let program: &mut RawTracePoint = find(ebpf, raw).ok()?;
    program.load().ok()?;
    match program.attach(CONTENDED_RELEASE) {
        Ok(_) => Some(true),
        Err(error) => not_found(&error).then_some(false),
    }
}

/// Whether the kernel does not know what was to be attached to.
fn not_found(error: &ProgramError) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.kind() == io::ErrorKind::NotFound;
        }
        source = error.source();
    }
    false
}

/// Where a lock says who holds it; else which field is missing, and why.
pub(super) fn owner_fields(fields: &Fields) -> Result<OwnerFields, String> {
    let offset = |field| fields.require(field);
    Ok(OwnerFields {
        rwsem_count: offset(Field::RwsemCount)?,
        rwsem_owner: offset(Field::RwsemOwner)?,
        mutex_owner: offset(Field::MutexOwner)?,
        task_pid: offset(Field::TaskPid)?,
    })
}

/// The kernel does not have the tracepoint.
pub(super) fn absent() -> HookState {
    HookState { absent: true, ..HookState::new(CONTENDED_RELEASE) }
}

/// It cannot be used.
pub(super) fn refused(why: &str) -> HookState {
    let mut state = HookState::new(CONTENDED_RELEASE);
    state.refused.push((WaitBackend::TpBtf.name(), why.to_owned()));
    state
}

/// Attaches it by the first backend that the kernel takes.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    btf: Result<&Btf, &BtfError>,
    backends: &Backends,
) -> HookState {
    let [by_btf, raw] = PROGRAMS;
    let mut state = HookState::new(CONTENDED_RELEASE);
    if backends.allow_waits(WaitBackend::TpBtf) {
        let attached =
            load_btf(ebpf, by_btf, CONTENDED_RELEASE, btf).and_then(|()| attach_btf(ebpf, by_btf));
        state.tried(WaitBackend::TpBtf.name(), attached);
    }
    if state.backend.is_none() && backends.allow_waits(WaitBackend::RawTp) {
        state.tried(WaitBackend::RawTp.name(), attach_raw(ebpf, raw, CONTENDED_RELEASE));
    }
    state
}
