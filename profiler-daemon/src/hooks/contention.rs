//! Lock waits: the two contention tracepoints (Linux 5.19), as BTF tracepoints
//! or, where the kernel has no BTF, as raw ones. Same body, same cost within a
//! few nanoseconds.

use aya::programs::{BtfTracePoint, ProgramError, RawTracePoint};
use aya::{Btf, BtfError, Ebpf};

use super::HookState;
use super::programs::chain;

/// Tracepoint, BTF program, raw program. End first: a wait of which only the
/// begin was seen would leave a start behind, and the task's next wait for that
/// mutex would seem to go on with it.
const TRACEPOINTS: [(&str, &str, &str); 2] = [
    ("contention_end", "contention_end_btf", "contention_end_raw"),
    ("contention_begin", "contention_begin_btf", "contention_begin_raw"),
];

/// Attaches both tracepoints, each by the first backend that the kernel takes.
///
/// Both programs pass the verifier before either is attached: every wait that
/// ends between the two attachments counts as an end without a begin.
pub(super) fn attach(ebpf: &mut Ebpf, btf: Result<&Btf, &BtfError>) -> Vec<HookState> {
    let loaded = TRACEPOINTS.map(|(hook, program, _)| load_btf(ebpf, program, hook, btf));
    TRACEPOINTS
        .into_iter()
        .zip(loaded)
        .map(|((hook, btf_program, raw_program), loaded)| {
            let mut state = HookState {
                hook: hook.to_owned(),
                backend: None,
                refused: Vec::new(),
                absent: false,
            };
            match loaded.and_then(|()| attach_btf(ebpf, btf_program)) {
                Ok(()) => state.backend = Some("tp_btf"),
                Err(why) => {
                    state.refused.push(("tp_btf", why));
                    match attach_raw(ebpf, raw_program, hook) {
                        Ok(()) => state.backend = Some("raw_tp"),
                        Err(why) => state.refused.push(("raw_tp", why)),
                    }
                }
            }
            state
        })
        .collect()
}

fn load_btf(
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

fn attach_btf(ebpf: &mut Ebpf, program: &str) -> Result<(), String> {
    let program: &mut BtfTracePoint = find(ebpf, program)?;
    program.attach().map(drop).map_err(|error| chain(&error))
}

fn attach_raw(ebpf: &mut Ebpf, program: &str, tracepoint: &str) -> Result<(), String> {
    let program: &mut RawTracePoint = find(ebpf, program)?;
    program.load().map_err(|error| chain(&error))?;
    program.attach(tracepoint).map(drop).map_err(|error| chain(&error))
}

/// The program `name` of the object.
pub(super) fn find<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, String>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| format!("the BPF object has no program {name}"))?
        .try_into()
        .map_err(|error: ProgramError| chain(&error))
}
