//! What the running kernel's BPF can do, found by trying, before the sizes of
//! the arrays are known.

use aya::programs::{FEntry, RawTracePoint};
use aya::{Btf, BtfError, Ebpf, EbpfLoader};

use super::backend::{Backends, WaitBackend};
use super::programs::{LoadError, chain, find, load_error};
use super::{holds, object, slow_path};

/// What the kernel can do.
pub struct Abilities {
    /// Its types; large.
    pub(super) btf: Result<Btf, BtfError>,
    /// Whether BPF has a compare-exchange; if not, the reason.
    pub(super) compare_exchange: Result<(), String>,
    /// Whether writers that get a rwsem by spinning can be seen beside the
    /// tracepoints; if not, the reason.
    pub(super) optimistic: Result<(), String>,
    /// Whether the kernel has `lock:contended_release`; `None` if that cannot be
    /// told, or is not to be used.
    pub(super) contended_release: Option<bool>,
    pub(super) backends: Backends,
}

impl Abilities {
    /// Tries, with arrays of one entry. Attaches nothing.
    ///
    /// # Errors
    ///
    /// The kernel refuses BPF altogether.
    pub fn probe(backends: Backends) -> Result<Self, LoadError> {
        let btf = Btf::from_sys_fs();
        let mut ebpf = EbpfLoader::new()
            .btf(btf.as_ref().ok())
            .load(object::bytes())
            .map_err(|error| load_error(&error))?;
        let compare_exchange = exchange(&mut ebpf);
        let optimistic = if !allow_tracepoints(backends) {
            Err("the slow path shows them among other writers".to_owned())
        } else if compare_exchange.is_err() {
            Err("this kernel has no contention tracepoints".to_owned())
        } else {
            fentry(&mut ebpf, btf.as_ref())
        };
        let contended_release = if allow_tracepoints(backends) && compare_exchange.is_ok() {
            holds::present(&mut ebpf, btf.as_ref())
        } else {
            None
        };
        Ok(Self { btf, compare_exchange, optimistic, contended_release, backends })
    }

    /// Whether writers that get a rwsem by spinning have a series of their own.
    pub fn sees_optimistic_writers(&self) -> bool {
        self.optimistic.is_ok()
    }

    /// Whether the contention tracepoints may be tried.
    pub(super) fn allow_tracepoints(&self) -> bool {
        allow_tracepoints(self.backends)
    }

    /// The object to load.
    pub(super) fn object(&self) -> Result<&'static [u8], LoadError> {
        match &self.compare_exchange {
            Ok(()) => Ok(object::bytes()),
            // Without a compare-exchange there is no store that others see after
            // earlier ones but on machines that keep them in order anyway.
            Err(_) if cfg!(target_arch = "x86_64") => Ok(object::older_bytes()),
            Err(why) => Err(LoadError::NoContention(format!(
                "BPF has no compare-exchange here ({why}), which lockprof does without on x86-64 alone; Linux 5.12 and later have it"
            ))),
        }
    }
}

fn allow_tracepoints(backends: Backends) -> bool {
    [WaitBackend::TpBtf, WaitBackend::RawTp].iter().any(|b| backends.allow_waits(*b))
}

fn exchange(ebpf: &mut Ebpf) -> Result<(), String> {
    let program: &mut RawTracePoint = find(ebpf, "exchanges")?;
    program.load().map_err(|error| chain(&error))
}

fn fentry(ebpf: &mut Ebpf, btf: Result<&Btf, &BtfError>) -> Result<(), String> {
    let btf =
        btf.map_err(|error| format!("/sys/kernel/btf/vmlinux cannot be read ({})", chain(error)))?;
    let program: &mut FEntry = find(ebpf, slow_path::OPTIMISTIC.enter)?;
    program.load(slow_path::OPTIMISTIC.function, btf).map_err(|error| chain(&error))
}
