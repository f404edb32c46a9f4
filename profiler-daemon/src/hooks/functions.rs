//! One program on one kernel function, by fentry, fexit, kprobe or kretprobe.

use aya::programs::{FEntry, FExit, KProbe};
use aya::{Btf, BtfError, Ebpf};

use super::backend::{Backends, CallBackend};
use super::programs::{chain, find};
use super::syscalls::{fentry, kprobe};
use super::{HookState, syscalls};

/// Tries those of the backends for mount calls that hook functions, the best
/// first, until one is attached.
pub(super) fn attach(
    hook: &'static str,
    backends: &Backends,
    mut with: impl FnMut(CallBackend) -> Result<(), String>,
) -> HookState {
    let mut state = HookState::new(hook);
    for backend in CallBackend::ALL.into_iter().filter(|b| backends.allow_calls(*b)) {
        let attached = match backend {
            // A reason only where nothing else may be tried.
            CallBackend::Tracepoint if backends.calls.is_none() => continue,
            CallBackend::Tracepoint => Err("no tracepoint shows it".to_owned()),
            CallBackend::Fentry | CallBackend::Kprobe => with(backend),
        };
        state.tried(backend.name(), attached);
        if state.backend.is_some() {
            break;
        }
    }
    let absent = syscalls::absent(hook);
    state.absent = state.backend.is_none() && state.refused.iter().any(|(_, why)| *why == absent);
    state
}

/// Attaches `program` to the entry of `function`.
pub(super) fn by_fentry(
    ebpf: &mut Ebpf,
    btf: Result<&Btf, &BtfError>,
    program: &str,
    function: &str,
) -> Result<(), String> {
    let btf = btf.map_err(no_btf)?;
    let refused = |error| fentry::refusal(&error, function);
    let program: &mut FEntry = find(ebpf, program)?;
    program.load(function, btf).map_err(refused)?;
    program.attach().map(drop).map_err(refused)
}

/// Attaches `program` to the return of `function`.
pub(super) fn by_fexit(
    ebpf: &mut Ebpf,
    btf: Result<&Btf, &BtfError>,
    program: &str,
    function: &str,
) -> Result<(), String> {
    let btf = btf.map_err(no_btf)?;
    let refused = |error| fentry::refusal(&error, function);
    let program: &mut FExit = find(ebpf, program)?;
    program.load(function, btf).map_err(refused)?;
    program.attach().map(drop).map_err(refused)
}

/// Attaches `program`, a kprobe or a kretprobe, to `function`. Two functions may
/// share it.
pub(super) fn by_kprobe(ebpf: &mut Ebpf, program: &str, function: &str) -> Result<(), String> {
    kprobe::present()?;
    let refused = |error| kprobe::refusal(&error, function);
    let program: &mut KProbe = find(ebpf, program)?;
    if program.fd().is_err() {
        program.load().map_err(refused)?;
    }
    program.attach(function, 0).map(drop).map_err(refused)
}

fn no_btf(error: &BtfError) -> String {
    format!("/sys/kernel/btf/vmlinux cannot be read ({})", chain(error))
}
