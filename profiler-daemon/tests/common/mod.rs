//! What the integration tests share.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod cgroups;

use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aya::maps::{Array, MapData};
use aya::programs::{BtfTracePoint, FEntry, FExit, Program, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};
use lockprof::cli::Settings;
use lockprof::commands::session::Session;
use lockprof::hooks::LoadError;
use lockprof::hooks::attribution::Wanted;
use lockprof::hooks::backend::{Backends, WaitBackend};
use lockprof::snapshot::{Charge, Snapshot};
use rustix::thread::{CpuSet, sched_setaffinity};

/// The built binary.
pub(crate) const LOCKPROF: &str = env!("CARGO_BIN_EXE_lockprof");

/// Notes that `test` cannot run here, where `cargo xtask test` counts it.
pub(crate) fn skip(test: &str, reason: &str) {
    let line = format!("SKIP {test}: {reason}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("LOCKPROF_SKIP_LOG") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(PathBuf::from(path));
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("the skip log is writable");
    }
}

/// Whether this is a machine that software emulates, as `cargo xtask test` says
/// to what it runs there. It makes a hundredth of the waits in the same time,
/// and its CPUs stand still whenever the host has something else to do.
pub(crate) fn emulated() -> bool {
    std::env::var_os("LOCKPROF_TEST_EMULATED").is_some()
}

/// Why BPF cannot be used here, asked of the kernel itself.
pub(crate) fn bpf_refused() -> Option<String> {
    let output =
        Command::new(LOCKPROF).args(["doctor", "--json"]).output().expect("doctor can be run");
    if output.status.code() != Some(3) {
        return None;
    }
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    Some(report["refused"].as_str().unwrap_or("doctor says that nothing attaches").to_owned())
}

/// Returns from the test with a skip when the kernel does not allow BPF.
#[macro_export]
macro_rules! needs_bpf {
    ($test:literal) => {
        if let Some(reason) = common::bpf_refused() {
            common::skip($test, &reason);
            return;
        }
    };
}

/// A command that makes the standard load for some seconds.
pub(crate) fn storm(seconds: u32) -> Command {
    let mut command = Command::new(LOCKPROF);
    command.args(["storm", "--no-measure", "--concurrency", "8", "--pollers", "2", "--duration"]);
    command.arg(format!("{seconds}s")).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Every contended acquisition after the first hands the lock over once.
pub(crate) fn handoffs_fit(window: &Snapshot) {
    for lock in &window.inflight {
        let name = &lock.lock;
        let handoffs: u64 =
            window.handoffs.iter().filter(|h| h.lock == *name).map(|h| h.count).sum();
        let acquired: u64 = window
            .locks
            .iter()
            .filter(|row| row.lock == *name)
            .map(|row| row.waits.count - row.failed)
            .sum();
        assert!(
            handoffs == acquired || handoffs + 1 == acquired,
            "{name}: {handoffs} handoffs, {acquired} contended acquisitions"
        );
    }
}

/// Waiters and blockers of each lock add up to its waits, to the nanosecond.
pub(crate) fn charges_fit(window: &Snapshot) {
    for lock in &window.inflight {
        let name = &lock.lock;
        let rows = window.locks.iter().filter(|row| row.lock == *name);
        let all = rows.fold((0, 0), |all, row| (all.0 + row.waits.count, all.1 + row.waits.sum_ns));
        let waiters = window.waiters.iter().filter(|row| row.lock == *name).map(|row| row.waits);
        let blockers = window.blockers.iter().filter(|row| row.lock == *name).map(|row| row.waits);
        let sum = |charges: &mut dyn Iterator<Item = Charge>| {
            charges.fold((0, 0), |all, charge| (all.0 + charge.count, all.1 + charge.sum_ns))
        };
        assert_eq!(sum(&mut waiters.into_iter()), all, "{name}: waiters, against all waits");
        assert_eq!(sum(&mut blockers.into_iter()), all, "{name}: blockers, against all waits");
    }
}

/// Keeps this thread on `cpus`.
pub(crate) fn pin(cpus: &[u32]) {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(usize::try_from(*cpu).expect("a CPU number"));
    }
    sched_setaffinity(None, &set).expect("the CPUs are online");
}

/// Waits until nobody waits for a watched lock.
pub(crate) fn settle(session: &Session) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if session.fresh_snapshot().inflight.iter().all(|row| row.waiters == 0) {
            std::thread::sleep(Duration::from_millis(100));
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A session that sees waits by `backend` alone, or a skip with the reason why
/// there is none.
pub(crate) fn session_by(test: &str, backend: WaitBackend) -> Option<Session> {
    session_with(test, backend, Wanted::default())
}

/// The same with this much attribution.
pub(crate) fn session_with(
    test: &str,
    backend: WaitBackend,
    attribution: Wanted,
) -> Option<Session> {
    let backends = Backends { waits: Some(backend), calls: None };
    match Session::start(&Settings { backends, attribution, ..Settings::default() }) {
        Ok(session) => Some(session),
        Err(why) => {
            let load = why.downcast_ref::<LoadError>();
            assert!(load.is_some_and(LoadError::is_environment), "{why:#}");
            skip(test, &format!("{why:#}"));
            None
        }
    }
}

/// Slow paths that the independent counter has programs for.
const SLOW_PATHS: [&str; 9] = [
    "rwsem_down_read_slowpath",
    "rwsem_down_write_slowpath",
    "__mutex_lock_slowpath",
    "__mutex_lock_killable_slowpath",
    "__mutex_lock_interruptible_slowpath",
    "native_queued_spin_lock_slowpath",
    "__pv_queued_spin_lock_slowpath",
    "queued_read_lock_slowpath",
    "queued_write_lock_slowpath",
];

/// The independent counter: see `profiler-ebpf/src/bin/witness.rs`.
pub(crate) struct Witness(Ebpf);

/// Addresses as the witness takes them.
fn watched(addresses: &[u64]) -> [u64; 16] {
    let mut watched = [0u64; 16];
    watched[..addresses.len()].copy_from_slice(addresses);
    watched
}

/// The independent counter of contended releases (Linux 7.2).
pub(crate) struct ReleaseWitness(Ebpf);

impl ReleaseWitness {
    /// Counts contended releases of the locks at `addresses` from now on.
    pub(crate) fn attach(addresses: &[u64]) -> Self {
        let object = std::fs::read(env!("LOCKPROF_WITNESS")).expect("the witness was built");
        let btf = Btf::from_sys_fs().expect("this kernel has BTF");
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("ADDRESSES", &watched(addresses)[..], true)
            .load(&object)
            .expect("the witness loads");
        let program: &mut BtfTracePoint =
            ebpf.program_mut("witness_release").expect("it is there").try_into().expect("tp_btf");
        program.load("contended_release", &btf).expect("the verifier takes it");
        program.attach().expect("it attaches");
        Self(ebpf)
    }

    /// Contended releases by lock in the order of the addresses.
    pub(crate) fn counts(&self, locks: usize) -> Vec<u64> {
        let counts: Array<&MapData, u64> =
            self.0.map("RELEASES").expect("it is there").try_into().expect("an array");
        (0..u32::try_from(locks).expect("few locks"))
            .map(|lock| counts.get(&lock, 0).expect("in range"))
            .collect()
    }
}

impl Witness {
    /// Counts the waits for the locks at `addresses` that the contention
    /// tracepoints show, from now on; or why the kernel does not allow it.
    pub(crate) fn on_tracepoints(addresses: &[u64]) -> Result<Self, String> {
        let (mut ebpf, btf) = Self::load(addresses)?;
        for (program, tracepoint) in
            [("witness_begin", "contention_begin"), ("witness_end", "contention_end")]
        {
            let program: &mut BtfTracePoint = Self::program(&mut ebpf, program);
            program.load(tracepoint, &btf).map_err(|error| error.to_string())?;
            program.attach().expect("it attaches");
        }
        Ok(Self(ebpf))
    }

    /// Counts the waits in the slow paths of the locks.
    pub(crate) fn on_slow_paths(addresses: &[u64]) -> Result<Self, String> {
        let (mut ebpf, btf) = Self::load(addresses)?;
        for function in SLOW_PATHS {
            let program: &mut FExit = Self::program(&mut ebpf, &format!("{function}_exit"));
            program.load(function, &btf).map_err(|error| error.to_string())?;
            program.attach().map_err(|error| error.to_string())?;
            let program: &mut FEntry = Self::program(&mut ebpf, &format!("{function}_enter"));
            program.load(function, &btf).map_err(|error| error.to_string())?;
            program.attach().map_err(|error| error.to_string())?;
        }
        Ok(Self(ebpf))
    }

    fn load(addresses: &[u64]) -> Result<(Ebpf, Btf), String> {
        let object = std::fs::read(env!("LOCKPROF_WITNESS")).expect("the witness was built");
        let watched = watched(addresses);
        let read = |path: &str| std::fs::read_to_string(path).expect("procfs is mounted");
        let pid_max: u32 = read("/proc/sys/kernel/pid_max").trim().parse().expect("a number");
        let cpus = std::thread::available_parallelism().expect("CPUs").get();
        let cpus = u32::try_from(cpus).expect("a sane number") + 1024;
        let btf = Btf::from_sys_fs().map_err(|error| format!("no BTF: {error}"))?;
        let ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("ADDRESSES", &watched[..], true)
            .override_global("PID_MAX", &pid_max, true)
            .map_max_entries("STARTS", (pid_max + cpus) * 16)
            .load(&object)
            .expect("the witness loads");
        Ok((ebpf, btf))
    }

    fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut P
    where
        &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        ebpf.program_mut(name).expect("it is there").try_into().expect("of this type")
    }

    /// Events that the kernel did not run this counter's programs for, as one was
    /// running on that CPU (`recursion_misses` in fdinfo, Linux 5.12).
    pub(crate) fn skipped(&self) -> u64 {
        let of = |program: &Program| -> Option<u64> {
            let fd = match program {
                Program::BtfTracePoint(p) => p.fd(),
                Program::FEntry(p) => p.fd(),
                Program::FExit(p) => p.fd(),
                _ => return None,
            };
            let path = format!("/proc/self/fdinfo/{}", fd.ok()?.as_fd().as_raw_fd());
            let text = std::fs::read_to_string(path).expect("our own fd");
            let line = text.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?;
            line.trim().parse().ok()
        };
        self.0.programs().filter_map(|(_, program)| of(program)).sum()
    }

    /// Waits and their total in ns, by lock in the order of the addresses.
    pub(crate) fn totals(&self, locks: usize) -> Vec<(u64, u64)> {
        let totals: Array<&MapData, [u64; 2]> =
            self.0.map("TOTALS").expect("it is there").try_into().expect("an array");
        (0..locks)
            .map(|lock| {
                let index = u32::try_from(lock).expect("few locks");
                let [count, ns] = totals.get(&index, 0).expect("in range");
                (count, ns)
            })
            .collect()
    }
}
