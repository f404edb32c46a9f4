//! Kernel time per event, as the kernel accounts it for each program.

use std::collections::HashMap;
use std::iter::Sum;
use std::ops::Sub;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use aya::programs::BtfTracePoint;
use aya::{Btf, Ebpf, EbpfLoader};
use lockprof::cli::Settings;
use lockprof::commands::session::Session;
use lockprof::hooks::attribution::Wanted;
use lockprof::locks::catalogue;
use lockprof::locks::choices::Choices;
use profiler_common::slow::Attribution;

/// Runs and nanoseconds of a program, or of several.
#[derive(Clone, Copy, Default)]
pub(crate) struct Runs {
    pub(crate) count: f64,
    pub(crate) ns: f64,
}

impl Sum for Runs {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self { count: a.count + b.count, ns: a.ns + b.ns })
    }
}

impl Sub for Runs {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { count: self.count - earlier.count, ns: self.ns - earlier.ns }
    }
}

impl Runs {
    pub(crate) fn per_event(self) -> f64 {
        self.ns / self.count
    }
}

/// What the programs took over a while.
pub(crate) struct Measured {
    begin: Runs,
    end: Runs,
    empty_begin: Runs,
    empty_end: Runs,
    clock_begin: Runs,
    clock_end: Runs,
    waits: f64,
}

impl Measured {
    /// Nanoseconds per event of lockprof's programs, begin and end alike.
    pub(crate) fn mine_per_event(&self) -> f64 {
        f64::midpoint(self.begin.per_event(), self.end.per_event())
    }

    /// Nanoseconds per event of the empty programs.
    pub(crate) fn empty_per_event(&self) -> f64 {
        f64::midpoint(self.empty_begin.per_event(), self.empty_end.per_event())
    }

    /// Time of a begin and end that only read the clock, in empty pairs.
    pub(crate) fn clock_pair_ratio(&self) -> f64 {
        (self.clock_begin.per_event() + self.clock_end.per_event()) / (2.0 * self.empty_per_event())
    }

    /// Time of a watched begin and end together, in empty pairs. The time of
    /// unwatched events is taken out at the rate of `unwatched`. `None` with too
    /// few waits to tell.
    ///
    /// For locks that begin once per wait (not mutexes), so that there are as
    /// many watched begins as waits.
    pub(crate) fn watched_pair_ratio(&self, unwatched: &Self) -> Option<f64> {
        if self.waits < 500.0 {
            return None;
        }
        let watched =
            |runs: Runs, rate: f64| (runs.ns - (runs.count - self.waits) * rate) / self.waits;
        // The other side of the drift between the two measurements: the empty
        // programs ran in both.
        let drift = self.empty_per_event() / unwatched.empty_per_event();
        let pair = watched(self.begin, unwatched.begin.per_event() * drift)
            + watched(self.end, unwatched.end.per_event() * drift);
        Some(pair / (2.0 * self.empty_per_event()))
    }
}

/// The choice of `locks` and no others.
pub(crate) fn only(locks: &[&str]) -> Choices {
    let named = |on_by_default: bool| {
        catalogue::ENTRIES
            .iter()
            .filter(move |entry| {
                entry.on_by_default == on_by_default && locks.contains(&entry.name) != on_by_default
            })
            .map(|entry| entry.name.to_owned())
            .collect()
    };
    Choices { enable: named(false), disable: named(true), ..Choices::default() }
}

/// Watches only `locks` for `duration`, beside empty programs.
pub(crate) fn measure(locks: &[&str], duration: Duration) -> Measured {
    measure_with(locks, duration, Wanted::default())
}

/// The same with this much attribution.
pub(crate) fn measure_with(locks: &[&str], duration: Duration, attribution: Wanted) -> Measured {
    let _stats = enable_stats();
    let settings = Settings { locks: only(locks), attribution, ..Settings::default() };
    let session = Session::start(&settings).expect("lockprof attaches");
    let empty = attach_empty();
    let fds: HashMap<String, RawFd> = session.programs().program_fds().into_iter().collect();
    let read = || {
        let of = |name: &str| runs(fds[name]);
        let of_empty = |name: &str| {
            let program = empty.program(name).expect("it is there");
            let program: &BtfTracePoint = program.try_into().expect("tp_btf");
            runs(program.fd().expect("loaded").as_fd().as_raw_fd())
        };
        let waits: u64 = session.fresh_snapshot().locks.iter().map(|row| row.waits.count).sum();
        (
            [
                of("contention_begin_btf"),
                of("contention_end_btf"),
                of_empty("empty_begin"),
                of_empty("empty_end"),
                of_empty("clock_begin"),
                of_empty("clock_end"),
            ],
            waits,
        )
    };
    let (before, waits_before) = read();
    std::thread::sleep(duration);
    let (after, waits_after) = read();
    let difference = |i: usize| after[i] - before[i];
    #[expect(clippy::cast_precision_loss, reason = "a count of waits in seconds")]
    let waits = (waits_after - waits_before) as f64;
    Measured {
        begin: difference(0),
        end: difference(1),
        empty_begin: difference(2),
        empty_end: difference(3),
        clock_begin: difference(4),
        clock_end: difference(5),
        waits,
    }
}

/// Size of the kernel's arrays for each of `assumed` CPUs on 8 nodes, or of this
/// machine's CPUs, in KiB; without those of attribution, whose size is fixed.
#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
pub(crate) fn arrays_kib_per_cpu(assumed: Option<u32>) -> f64 {
    let settings =
        Settings { assume_cpus: assumed, assume_nodes: assumed.map(|_| 8), ..Settings::default() };
    let session = Session::start(&settings).expect("lockprof attaches");
    let layout = session.programs().layout();
    layout.bytes(&Attribution::default()) as f64 / 1024.0 / f64::from(layout.cpus)
}

fn attach_empty() -> Ebpf {
    let object = std::fs::read(env!("LOCKPROF_WITNESS")).expect("the witness was built");
    let btf = Btf::from_sys_fs().expect("this kernel has BTF");
    let mut ebpf = EbpfLoader::new().btf(Some(&btf)).load(&object).expect("it loads");
    for (name, tracepoint) in [
        ("empty_begin", "contention_begin"),
        ("empty_end", "contention_end"),
        ("clock_begin", "contention_begin"),
        ("clock_end", "contention_end"),
    ] {
        let program: &mut BtfTracePoint =
            ebpf.program_mut(name).expect("it is there").try_into().expect("tp_btf");
        program.load(tracepoint, &btf).expect("the verifier takes it");
        program.attach().expect("it attaches");
    }
    ebpf
}

/// `run_cnt` and `run_time_ns` from the program's fdinfo.
pub(crate) fn runs(fd: RawFd) -> Runs {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).expect("our own fd");
    let field = |name: &str| -> f64 {
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)).expect("Linux 5.1 or later");
        line.trim().parse().expect("a number")
    };
    Runs { count: field("run_cnt:"), ns: field("run_time_ns:") }
}

/// Has the kernel account the run time of programs as long as this is open.
pub(crate) fn enable_stats() -> OwnedFd {
    const BPF_ENABLE_STATS: libc::c_int = 32;
    // `union bpf_attr`, of which only the first word (BPF_STATS_RUN_TIME) counts.
    let attribute = [0u32; 16];
    // SAFETY: the attribute outlives the call and has the size that is given.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_ENABLE_STATS, attribute.as_ptr(), size_of_val(&attribute))
    };
    let fd = RawFd::try_from(fd).expect("a descriptor");
    assert!(fd >= 0, "BPF_ENABLE_STATS failed: {}", std::io::Error::last_os_error());
    // SAFETY: a descriptor that the kernel just gave us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
