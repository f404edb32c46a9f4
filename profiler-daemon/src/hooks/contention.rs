//! Lock waits: the two contention tracepoints (Linux 5.19), as BTF tracepoints
//! or, where the kernel has no BTF, as raw ones. Same body, same cost within a
//! few nanoseconds.

use aya::programs::{BtfTracePoint, RawTracePoint};
use aya::{Btf, BtfError, Ebpf};

use super::HookState;
use super::backend::{Backends, WaitBackend};
use super::programs::{chain, find};

/// Tracepoint, BTF program, raw program. End first: a wait of which only the
/// begin was seen would leave a start behind, and the task's next wait for that
/// mutex would seem to go on with it.
const TRACEPOINTS: [(&str, &str, &str); 2] = [
    ("contention_end", "contention_end_btf", "contention_end_raw"),
    ("contention_begin", "contention_begin_btf", "contention_begin_raw"),
];

/// Attaches both tracepoints, each by the first backend that the kernel takes,
/// or neither.
///
/// Both programs pass the verifier before either is attached: every wait that
/// ends between the two attachments counts as an end without a begin.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    btf: Result<&Btf, &BtfError>,
    backends: &Backends,
) -> Vec<HookState> {
    let by_btf = backends.allow_waits(WaitBackend::TpBtf);
    let loaded =
        TRACEPOINTS.map(|(hook, program, _)| by_btf.then(|| load_btf(ebpf, program, hook, btf)));
    let states: Vec<HookState> = TRACEPOINTS
        .into_iter()
        .zip(loaded)
        .map(|((hook, btf_program, raw_program), loaded)| {
            let mut state = HookState::new(hook);
            if let Some(loaded) = loaded {
                let attached = loaded.and_then(|()| attach_btf(ebpf, btf_program));
                state.tried(WaitBackend::TpBtf.name(), attached);
            }
            if state.backend.is_none() && backends.allow_waits(WaitBackend::RawTp) {
                state.tried(WaitBackend::RawTp.name(), attach_raw(ebpf, raw_program, hook));
            }
            state
        })
        .collect();
    if states.iter().any(|state| state.backend.is_none()) {
        detach(ebpf);
    }
    states
}

/// Takes back what [`attach`] did.
fn detach(ebpf: &mut Ebpf) {
    for (_, btf_program, raw_program) in TRACEPOINTS {
        // What is not loaded cannot be unloaded; there is nothing to say of it.
        if let Ok(program) = find::<BtfTracePoint>(ebpf, btf_program) {
            let _ = program.unload();
        }
        if let Ok(program) = find::<RawTracePoint>(ebpf, raw_program) {
            let _ = program.unload();
        }
    }
}

pub(super) fn load_btf(
    ebpf: &mut Ebpf,
    program: &str,
    tracepoint: &str,
    btf: Result<&Btf, &BtfError>,
) -> Result<(), String> {
    let btf =
        btf.map_err(|error| format!("/sys/kernel/btf/vmlinux cannot be read ({})", chain(error)))?;
    let program: &mut BtfTracePoint = find(ebpf, program)?;
    program.load(tracepoint, btf).map_err(|error| chain(&error))
}

pub(super) fn attach_btf(ebpf: &mut Ebpf, program: &str) -> Result<(), String> {
    let program: &mut BtfTracePoint = find(ebpf, program)?;
    program.attach().map(drop).map_err(|error| chain(&error))
}

pub(super) fn attach_raw(ebpf: &mut Ebpf, program: &str, tracepoint: &str) -> Result<(), String> {
    let program: &mut RawTracePoint = find(ebpf, program)?;
    program.load().map_err(|error| chain(&error))?;
    program.attach(tracepoint).map(drop).map_err(|error| chain(&error))
}
