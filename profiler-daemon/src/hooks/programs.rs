//! Loads the BPF object with the sizes of this machine and attaches it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use aya::maps::{Map, MapData};
use aya::programs::Program;
use aya::programs::ProgramError;
use aya::{Ebpf, EbpfError, EbpfLoader};
use profiler_common::layout::{Layout, OwnerFields, maps};
use profiler_common::mounts::{FileFields, SuperblockFields};
use profiler_common::samples::{NO_RANGE, RANGES};
use profiler_common::slow::Attribution;
use profiler_common::syscalls::{MOUNT_SYSCALLS, SYSCALLS};

use super::attribution::{self, Wanted};
use super::backend::WaitBackend;
use super::samples::{self, SampledFunctions, Sampler, Sampling};
use super::{
    Abilities, Claims, HookState, TaskIter, WatchList, absent, contention, holds, mountinfo,
    slow_path, superblocks, syscalls,
};
use crate::kernel::fields::{Field, Fields};

/// How large the arrays have to be, and what is to be in them.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Possible CPUs.
    pub cpus: u32,
    /// Possible NUMA nodes.
    pub nodes: u32,
    /// Tasks that may wait or be in a mount call at once; `None` for the
    /// default.
    pub tasks: Option<u32>,
    /// Who waits, and who makes them wait.
    pub attribution: Wanted,
}

/// Why nothing can be measured.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel refuses BPF to this process.
    #[error(
        "the kernel refuses to load BPF programs ({0}); lockprof needs CAP_BPF and CAP_PERFMON (before Linux 5.8: CAP_SYS_ADMIN): run it as root or give it these capabilities"
    )]
    NotPermitted(String),
    /// Everything else.
    #[error("failed to load the BPF object: {0}")]
    Object(String),
    /// No hook for lock waits attached.
    #[error("no lock wait can be seen: {0}")]
    NoContention(String),
    /// An array that the object should have.
    #[error("the BPF object has no array {0}; it was built from other sources")]
    NoArray(&'static str),
}

impl LoadError {
    /// Whether kernel or privileges are the reason, rather than a fault here.
    pub const fn is_environment(&self) -> bool {
        matches!(self, Self::NotPermitted(_) | Self::NoContention(_))
    }
}

/// Loaded and attached programs. Dropping it detaches them.
pub struct Programs {
    #[cfg(feature = "kernel-log")]
    _log: Option<super::kernel_log::KernelLog>,
    ebpf: Ebpf,
    _links: Vec<syscalls::Link>,
    sampler: Option<Sampler>,
    layout: Layout,
    attribution: Attribution,
    slow_waits: Result<(), String>,
    hooks: Vec<HookState>,
    task_iter: Option<TaskIter>,
}

impl Programs {
    /// Loads the object for `watch` and attaches every hook that the kernel and
    /// `abilities` allow, each by the best backend that the kernel takes. CPUs are
    /// sampled if `sampling` is given.
    ///
    /// # Errors
    ///
    /// No BPF, or no hook that shows lock waits. A mount call that cannot be
    /// hooked is no error but a [`HookState`].
    pub fn attach(
        abilities: Abilities,
        watch: &WatchList,
        sizes: &Sizes,
        fields: &Fields,
        sampling: Option<&Sampling>,
    ) -> Result<Self, LoadError> {
        let mut layout = layout(watch, sizes, fields);
        let owner_fields = holds::owner_fields(fields);
        if let (Some(true), Ok(_)) = (abilities.contended_release, &owner_fields) {
            layout.holds = u32::try_from(watch.holds.len()).unwrap_or(u32::MAX);
        }
        let owners = owner_fields.clone().unwrap_or_default();
        let attribution =
            attribution::data(&sizes.attribution, layout.locks, fields, owner_fields.is_ok());
        layout.attribution = u32::from(attribution.rows() != 0);
        let slow_waits = match &abilities.compare_exchange {
            Err(why) if attribution.slow_places() != 0 => Err(why.clone()),
            Ok(()) | Err(_) => Ok(()),
        };
        let file_fields = mountinfo::file_fields(fields);
        let superblock_fields = superblocks::superblock_fields(fields);
        let data = Data {
            layout,
            owners,
            attribution,
            files: file_fields.clone().unwrap_or_default(),
            superblocks: superblock_fields.clone().unwrap_or_default(),
        };
        let mut ebpf = load(&abilities, watch, &data, sampling)?;
        let mut hooks = attach_waits(&mut ebpf, &abilities, watch, &owner_fields);
        if hooks.iter().all(|hook| hook.backend.is_none()) {
            let mut reasons: Vec<_> = hooks
                .iter()
                .flat_map(|hook| {
                    hook.refused.iter().map(|(b, why)| format!("{} by {b}: {why}", hook.hook))
                })
                .collect();
            reasons.dedup();
            return Err(LoadError::NoContention(reasons.join("; ")));
        }
        let (links, mut states) =
            syscalls::attach(&mut ebpf, abilities.btf.as_ref(), abilities.backends);
        absent::mark(&mut states);
        hooks.extend(states);
        let (sampler, state) =
            sampling.map(|sampling| samples::attach(&mut ebpf, sampling)).unzip();
        hooks.extend(state);
        let (btf, backends) = (abilities.btf.as_ref(), &abilities.backends);
        hooks.extend(mountinfo::attach(&mut ebpf, btf, backends, file_fields.as_ref()));
        hooks.extend(superblocks::attach(&mut ebpf, btf, backends, superblock_fields.as_ref()));
        let (task_iter, state) = TaskIter::load(abilities.object()?, btf, fields);
        hooks.push(state);
        drop(abilities);
        Ok(Self {
            #[cfg(feature = "kernel-log")]
            _log: super::kernel_log::KernelLog::start(&mut ebpf),
            ebpf,
            _links: links,
            sampler: sampler.flatten(),
            layout,
            attribution,
            slow_waits,
            hooks,
            task_iter,
        })
    }

    /// The words that programs have claimed, where the kernel has no
    /// compare-exchange.
    ///
    /// # Errors
    ///
    /// The kernel's description of the map does not fit.
    pub fn claims(&self) -> Result<Option<Claims>, LoadError> {
        Claims::of(&self.ebpf)
    }

    /// What walks over all tasks, if the kernel allows it; once.
    pub const fn take_task_iter(&mut self) -> Option<TaskIter> {
        self.task_iter.take()
    }

    /// What became of each hook.
    pub fn hooks(&self) -> &[HookState] {
        &self.hooks
    }

    /// What samples the CPUs, if anything does.
    pub const fn sampler(&self) -> Option<&Sampler> {
        self.sampler.as_ref()
    }

    /// The sizes that were used.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How those who wait and those who make them wait are told.
    pub const fn attribution(&self) -> &Attribution {
        &self.attribution
    }

    /// Why slow waits are not listed though they are wanted: the reason that BPF
    /// has no compare-exchange, by which their places are claimed.
    pub fn slow_waits(&self) -> Result<(), &str> {
        self.slow_waits.as_ref().copied().map_err(String::as_str)
    }

    /// Every array with its entries and the bytes of an entry.
    pub fn arrays(&self) -> Vec<(&'static str, u32, usize)> {
        self.layout.arrays(&self.attribution).to_vec()
    }

    /// Bytes of all arrays together.
    pub fn bytes(&self) -> u64 {
        self.layout.bytes(&self.attribution)
    }

    /// File descriptor of the array `name`.
    ///
    /// # Errors
    ///
    /// No such array.
    pub fn array(&self, name: &'static str) -> Result<BorrowedFd<'_>, LoadError> {
        use std::os::fd::AsFd as _;
        match self.ebpf.map(name) {
            Some(Map::Array(data)) => Ok(MapData::fd(data).as_fd()),
            _ => Err(LoadError::NoArray(name)),
        }
    }

    /// Descriptors of the loaded programs with their names. They stay valid as
    /// long as `self`.
    pub fn program_fds(&self) -> Vec<(String, RawFd)> {
        use std::os::fd::AsFd as _;
        self.ebpf
            .programs()
            .filter_map(|(name, program)| {
                let fd = match program {
                    Program::BtfTracePoint(p) => p.fd(),
                    Program::RawTracePoint(p) => p.fd(),
                    Program::TracePoint(p) => p.fd(),
                    Program::FEntry(p) => p.fd(),
                    Program::FExit(p) => p.fd(),
                    Program::KProbe(p) => p.fd(),
                    Program::PerfEvent(p) => p.fd(),
                    _ => return None,
                };
                Some((name.to_owned(), fd.ok()?.as_fd().as_raw_fd()))
            })
            .collect()
    }
}

/// Attaches what shows lock waits: the tracepoints, with what they miss beside
/// them, or the slow paths.
fn attach_waits(
    ebpf: &mut Ebpf,
    abilities: &Abilities,
    watch: &WatchList,
    owner_fields: &Result<OwnerFields, String>,
) -> Vec<HookState> {
    let (btf, backends) = (abilities.btf.as_ref(), &abilities.backends);
    let mut refused = Vec::new();
    match &abilities.compare_exchange {
        Ok(()) if abilities.allow_tracepoints() => {
            let mut hooks = contention::attach(ebpf, btf, backends);
            if hooks.iter().all(|hook| hook.backend.is_some()) {
                hooks.push(match &abilities.optimistic {
                    Ok(()) => slow_path::attach_optimistic(ebpf, btf),
                    Err(why) => slow_path::optimistic_refused(why),
                });
                match (abilities.contended_release, owner_fields) {
                    (Some(true), Ok(_)) if watch.holds.is_empty() => {}
                    (Some(true), Ok(_)) => {
                        hooks.push(holds::attach(ebpf, btf, backends));
                        hooks.push(slow_path::attach_readers(ebpf, btf));
                    }
                    (Some(true), Err(why)) => hooks.push(holds::refused(why)),
                    (Some(false), _) => hooks.push(holds::absent()),
                    (None, _) => {}
                }
                return hooks;
            }
            // One reason for each backend: those of the second tracepoint are the
            // same, or that the first was refused.
            for (backend, why) in hooks.into_iter().flat_map(|hook| hook.refused) {
                if !refused.iter().any(|(tried, _)| *tried == backend) {
                    refused.push((backend, why));
                }
            }
        }
        Ok(()) => {}
        Err(why) => {
            let tracepoints = [WaitBackend::TpBtf, WaitBackend::RawTp].into_iter();
            refused.extend(
                tracepoints.filter(|b| backends.allow_waits(*b)).map(|backend| {
                    (backend.name(), format!("BPF has no compare-exchange ({why})"))
                }),
            );
        }
    }
    let watched = |kind| watch.locks.iter().any(|lock| lock.kind == kind);
    slow_path::attach(ebpf, btf, backends, watched, &refused)
}

/// Sizes and offsets for the programs.
fn layout(watch: &WatchList, sizes: &Sizes, fields: &Fields) -> Layout {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut layout = Layout::new(
        sizes.cpus,
        sizes.nodes,
        count(watch.locks.len()),
        count(watch.series.len()),
        sizes.tasks.unwrap_or(Layout::default_tasks(sizes.cpus)),
    );
    layout.watch_multiplier = watch.table.multiplier;
    layout.watch_occupied = watch.table.occupied;
    // One without the other is of no use.
    if let (Some(task_nsproxy), Some(nsproxy_mnt_ns)) =
        (fields.offset(Field::TaskNsproxy), fields.offset(Field::NsproxyMountNamespace))
    {
        layout.task_nsproxy = task_nsproxy;
        layout.nsproxy_mnt_ns = nsproxy_mnt_ns;
    }
    layout
}

/// Read-only data of the programs, beside the watch list.
struct Data {
    layout: Layout,
    owners: OwnerFields,
    attribution: Attribution,
    files: FileFields,
    superblocks: SuperblockFields,
}

/// Creates the arrays; loads no program yet.
fn load(
    abilities: &Abilities,
    watch: &WatchList,
    data: &Data,
    sampling: Option<&Sampling>,
) -> Result<Ebpf, LoadError> {
    let when: [u8; SYSCALLS] = MOUNT_SYSCALLS.map(|call| call.when as u8);
    let numbers = syscalls::calls_by_number();
    let series = watch.series_infos();
    let functions = sampling.and_then(|sampling| sampling.functions.as_ref().ok());
    let code_ranges = functions.map_or([NO_RANGE; RANGES], SampledFunctions::ranges);
    let mut loader = EbpfLoader::new();
    loader
        .btf(abilities.btf.as_ref().ok())
        .override_global("LAYOUT", &data.layout, true)
        .override_global("OWNER_FIELDS", &data.owners, true)
        .override_global("ATTRIBUTION", &data.attribution, true)
        .override_global("FILE_FIELDS", &data.files, true)
        .override_global("SUPERBLOCK_FIELDS", &data.superblocks, true)
        .override_global("WATCH_TABLE", &watch.table.entries[..], true)
        .override_global("SERIES", &series[..], true)
        .override_global("CODE_RANGES", &code_ranges[..], true)
        .override_global("SYSCALL_OF_NUMBER", &numbers[..], true)
        .override_global("SYSCALL_WHEN", &when[..], true);
    for (name, entries, _) in data.layout.arrays(&data.attribution) {
        // An array of a watch list without locks still needs an entry.
        loader.map_max_entries(name, entries.max(1));
    }
    loader.map_max_entries(maps::CLAIMS, data.layout.claims(&data.attribution));
    loader.load(abilities.object()?).map_err(|error| load_error(&error))
}

pub(super) fn load_error(error: &EbpfError) -> LoadError {
    let text = chain(error);
    if permission_denied(error) { LoadError::NotPermitted(text) } else { LoadError::Object(text) }
}

/// The program `name` of the object.
pub(super) fn find<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, String>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| format!("the BPF object has no program {name}"))?
        .try_into()
        .map_err(|error: ProgramError| chain(&error))
}

fn permission_denied(error: &EbpfError) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.kind() == io::ErrorKind::PermissionDenied;
        }
        source = error.source();
    }
    false
}

/// An error with its causes, on one line; of the verifier's log, the line that
/// says what is wrong.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = one_line(&error.to_string());
    let mut source = error.source();
    while let Some(error) = source {
        let cause = one_line(&error.to_string());
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

/// What aya puts before the verifier's log.
const VERIFIER: &str = "Verifier output:";

fn one_line(text: &str) -> String {
    let (said, log) = text.split_once(VERIFIER).unwrap_or((text, ""));
    let first = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    // The log ends with what it refused and then with statistics.
    let lines = log.lines().map(str::trim).rev();
    let statistics = ["processed ", "verification time ", "stack depth ", "max_states"];
    let last = lines
        .filter(|line| !line.is_empty())
        .find(|line| !statistics.iter().any(|start| line.starts_with(start)));
    match last {
        Some(last) => format!("{} ({last})", first.trim_end_matches(['.', ' '])),
        None => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn of_the_verifiers_log_the_reason_is_shown() {
        let text = "the BPF_PROG_LOAD syscall returned Permission denied (os error 13). Verifier output: 0: R1=ctx() R10=fp0\n0: (79) r1 = *(u64 *)(r1 +0)\nR1 pointer arithmetic with *= operator prohibited\nverification time 12 usec\nprocessed 3 insns (limit 1000000) max_states_per_insn 0\n";
        assert_eq!(
            one_line(text),
            "the BPF_PROG_LOAD syscall returned Permission denied (os error 13) (R1 pointer arithmetic with *= operator prohibited)"
        );
        assert_eq!(one_line("\nfirst\nsecond"), "first");
        assert_eq!(one_line("refused. Verifier output: "), "refused.");
    }
}
