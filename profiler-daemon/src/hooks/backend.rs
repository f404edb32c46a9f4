//! The ways to hook the kernel, and which of them the user allows.

/// How lock waits are observed, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitBackend {
    /// The contention tracepoints as BTF tracepoints (Linux 5.19).
    TpBtf,
    /// The same as raw tracepoints, for kernels without BTF.
    RawTp,
    /// fentry and fexit on the slow paths of the locks.
    Fentry,
    /// kprobes and kretprobes on the slow paths of the locks that sleep.
    Kprobe,
}

impl WaitBackend {
    /// All of them, best first.
    pub const ALL: [Self; 4] = [Self::TpBtf, Self::RawTp, Self::Fentry, Self::Kprobe];

    /// Label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TpBtf => "tp_btf",
            Self::RawTp => "raw_tp",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
        }
    }
}

/// How mount calls are observed, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallBackend {
    /// fentry and fexit on the functions behind the calls.
    Fentry,
    /// kprobes and kretprobes on them.
    Kprobe,
    /// The tracepoints of each call. While any is attached, every system call of
    /// every task takes the slow path into the kernel.
    Tracepoint,
}

impl CallBackend {
    /// All of them, best first.
    pub const ALL: [Self; 3] = [Self::Fentry, Self::Kprobe, Self::Tracepoint];

    /// Label value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// The backends that may be tried: one that is forced, or, by default, all of
/// them in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backends {
    /// For lock waits.
    pub waits: Option<WaitBackend>,
    /// For mount calls.
    pub calls: Option<CallBackend>,
}

impl Backends {
    /// Whether lock waits may be observed by `backend`.
    pub fn allow_waits(&self, backend: WaitBackend) -> bool {
        self.waits.is_none_or(|forced| forced == backend)
    }

    /// Whether mount calls may be observed by `backend`.
    pub fn allow_calls(&self, backend: CallBackend) -> bool {
        self.calls.is_none_or(|forced| forced == backend)
    }
}
