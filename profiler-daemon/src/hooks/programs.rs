//! Loads the BPF object with the sizes of this machine and attaches it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use aya::maps::{Map, MapData};
use aya::programs::Program;
use aya::{Btf, Ebpf, EbpfError, EbpfLoader};
use profiler_common::layout::Layout;
use profiler_common::syscalls::{MOUNT_SYSCALLS, SYSCALLS};

use super::backend::Backends;
use super::{HookState, WatchList, contention, syscalls};

/// How large the arrays have to be.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Possible CPUs.
    pub cpus: u32,
    /// Possible NUMA nodes.
    pub nodes: u32,
    /// Tasks that may wait or be in a mount call at once; `None` for the
    /// default.
    pub tasks: Option<u32>,
}

/// Where the task's mount namespace is found, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct NamespaceOffsets {
    /// Offset of `nsproxy` in `struct task_struct`.
    pub task_nsproxy: u32,
    /// Offset of `mnt_ns` in `struct nsproxy`.
    pub nsproxy_mnt_ns: u32,
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
    /// Neither tracepoint attached.
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
    layout: Layout,
    hooks: Vec<HookState>,
}

impl Programs {
    /// Loads `object` for `watch` and attaches every hook that the kernel
    /// allows, each by the best of `backends` that it takes.
    ///
    /// # Errors
    ///
    /// No BPF, or no contention tracepoint. A mount call that cannot be hooked
    /// is no error but a [`HookState`].
    pub fn attach(
        object: &[u8],
        watch: &WatchList,
        sizes: Sizes,
        namespace: Option<NamespaceOffsets>,
        backends: Backends,
    ) -> Result<Self, LoadError> {
        let layout = layout(watch, sizes, namespace);
        let btf = Btf::from_sys_fs();
        let mut ebpf = load(object, watch, &layout, btf.as_ref().ok())?;
        let mut hooks = contention::attach(&mut ebpf, btf.as_ref());
        if hooks.iter().any(|hook| hook.backend.is_none()) {
            let reasons: Vec<_> = hooks
                .iter()
                .flat_map(|hook| {
                    hook.refused.iter().map(|(b, why)| format!("{} by {b}: {why}", hook.hook))
                })
                .collect();
            return Err(LoadError::NoContention(reasons.join("; ")));
        }
        let (links, states) = syscalls::attach(&mut ebpf, btf.as_ref(), backends);
        drop(btf);
        hooks.extend(states);
        Ok(Self {
            #[cfg(feature = "kernel-log")]
            _log: super::kernel_log::KernelLog::start(&mut ebpf),
            ebpf,
            _links: links,
            layout,
            hooks,
        })
    }

    /// What became of each hook.
    pub fn hooks(&self) -> &[HookState] {
        &self.hooks
    }

    /// The sizes that were used.
    pub const fn layout(&self) -> &Layout {
        &self.layout
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
                    _ => return None,
                };
                Some((name.to_owned(), fd.ok()?.as_fd().as_raw_fd()))
            })
            .collect()
    }
}

/// Sizes and offsets for the programs.
fn layout(watch: &WatchList, sizes: Sizes, namespace: Option<NamespaceOffsets>) -> Layout {
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
    if let Some(offsets) = namespace {
        layout.task_nsproxy = offsets.task_nsproxy;
        layout.nsproxy_mnt_ns = offsets.nsproxy_mnt_ns;
    }
    layout
}

/// Creates the arrays; loads no program yet.
fn load(
    object: &[u8],
    watch: &WatchList,
    layout: &Layout,
    btf: Option<&Btf>,
) -> Result<Ebpf, LoadError> {
    let when: [u8; SYSCALLS] = MOUNT_SYSCALLS.map(|call| call.when as u8);
    let numbers = syscalls::calls_by_number();
    let mut loader = EbpfLoader::new();
    loader
        .btf(btf)
        .override_global("LAYOUT", layout, true)
        .override_global("WATCH_TABLE", &watch.table.entries[..], true)
        .override_global("SYSCALL_OF_NUMBER", &numbers[..], true)
        .override_global("SYSCALL_WHEN", &when[..], true);
    for (name, entries, _) in layout.arrays() {
        // An array of a watch list without locks still needs an entry.
        loader.map_max_entries(name, entries.max(1));
    }
    loader.load(object).map_err(|error| {
        let text = chain(&error);
        if permission_denied(&error) {
            LoadError::NotPermitted(text)
        } else {
            LoadError::Object(text)
        }
    })
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

/// An error with its causes, on one line, without the verifier's log.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = first_line(&error.to_string());
    let mut source = error.source();
    while let Some(error) = source {
        let cause = first_line(&error.to_string());
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

fn first_line(text: &str) -> String {
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}
