//! Synthetic hosts: recordings of real ones, each with a pace and a mix of load
//! of its own, whose counters advance with the clock.
//!
//! In: the recordings beside this file, two totals each, taken before and after a
//! storm. Out: totals at any moment: those after the storm, and the storm's own
//! growth as many times as the host's pace says.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use lockprof::serve::Process;
use lockprof::snapshot::{Charge, Histogram, Snapshot, Times};
use profiler_common::histogram::{BUCKETS, bucket_of_upper_ns};

/// A real machine around a storm.
pub(crate) struct Recording {
    /// File name, without its ending.
    pub(crate) name: String,
    /// Totals after the storm.
    pub(crate) totals: Snapshot,
    /// What the storm added.
    pub(crate) window: Snapshot,
}

impl Recording {
    /// Those in the repository, by name.
    pub(crate) fn all() -> Vec<Arc<Self>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/fleet/recordings");
        let files = fs::read_dir(&folder).expect("the recordings are there");
        let mut all: Vec<_> = files
            .map(|file| file.expect("it can be listed").path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"))
            .map(|path| Arc::new(Self::read(&path)))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("it is readable");
        let totals: Vec<Snapshot> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{path:?}: {e}")))
            .collect();
        let [before, after] = &totals[..] else { panic!("{path:?}: not two totals") };
        Self {
            name: path.file_stem().expect("a name").to_string_lossy().into_owned(),
            window: after.since(before),
            totals: after.clone(),
        }
    }
}

/// One host.
pub(crate) struct Host {
    /// As in the label `instance`, without a port.
    pub(crate) name: String,
    /// What it is made from.
    pub(crate) recording: Arc<Recording>,
    /// The storm's load, so many times.
    pub(crate) pace: f64,
    seed: u64,
    began: Instant,
    since: SystemTime,
}

/// How much more the worst host has to do than the busiest of the others.
const WORST: f64 = 4.0;

/// Paces of all hosts but the worst, from and to. Few hosts are at the upper end.
const PACE: (f64, f64) = (0.01, 1.0);

/// Hosts that are the same in every run with the same `seed`. Host number
/// `worst` has more load than any other.
pub(crate) fn fleet(count: usize, worst: usize, seed: u64) -> Vec<Arc<Host>> {
    let recordings = Recording::all();
    let (began, since) = (Instant::now(), SystemTime::now());
    (0..count)
        .map(|number| {
            let seed = hash(seed, &format!("host {number}"));
            let (low, high) = PACE;
            // Evenly distributed on a logarithmic scale.
            let pace = low * (high / low).powf(fraction(hash(seed, "pace")));
            Arc::new(Host {
                name: format!("host-{number:04}"),
                recording: recordings[number % recordings.len()].clone(),
                pace: if number == worst { high * WORST } else { pace },
                seed,
                began,
                since,
            })
        })
        .collect()
}

impl Host {
    /// Totals at this moment.
    pub(crate) fn now(&self) -> Snapshot {
        self.totals(self.began.elapsed())
    }

    /// When its counters began.
    pub(crate) fn since(&self) -> SystemTime {
        self.since
    }

    /// What its daemon uses: made up, but for the time that goes by.
    pub(crate) fn process(&self) -> Process {
        let began = self.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Process {
            cpu_seconds: Some(self.began.elapsed().as_secs_f64() * 0.002),
            resident_bytes: Some(24 << 20),
            virtual_bytes: Some(180 << 20),
            open_fds: Some(80),
            max_fds: Some(65_536),
            start_seconds: Some(began.as_secs_f64()),
        }
    }

    /// Totals so long after the start.
    pub(crate) fn totals(&self, after: Duration) -> Snapshot {
        let Recording { totals, window, .. } = &*self.recording;
        let storms = self.pace * after.as_secs_f64() / seconds(window.duration_ns);
        let mut now = totals.clone();
        now.host.name = self.name.as_str().into();
        now.duration_ns += u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        let of_lock = |lock: &str| storms * self.share(lock);
        for row in &mut now.locks {
            let grown = window
                .locks
                .iter()
                .find(|w| w.lock == row.lock && w.mode == row.mode && w.numa_node == row.numa_node);
            if let Some(grown) = grown {
                let by = of_lock(&row.lock);
                grow_times(&mut row.waits, &grown.waits, by);
                row.migrated += part(grown.migrated, by);
                row.failed += part(grown.failed, by);
            }
        }
        for row in &mut now.holds {
            let same = |w: &&lockprof::snapshot::LockHolds| {
                w.lock == row.lock && w.mode == row.mode && w.numa_node == row.numa_node
            };
            if let Some(grown) = window.holds.iter().find(same) {
                grow_times(&mut row.holds, &grown.holds, of_lock(&row.lock));
            }
        }
        for (row, grown) in now.releases.iter_mut().zip(&window.releases) {
            row.unmeasured += part(grown.unmeasured, of_lock(&grown.lock));
            row.one_of_readers += part(grown.one_of_readers, of_lock(&grown.lock));
        }
        for row in &mut now.handoffs {
            let grown = window.handoffs.iter().find(|w| {
                w.lock == row.lock && w.from_node == row.from_node && w.to_node == row.to_node
            });
            row.count += part(grown.map_or(0, |w| w.count), of_lock(&row.lock));
        }
        for row in &mut now.syscalls {
            let same = |w: &&lockprof::snapshot::SyscallCalls| {
                w.syscall == row.syscall && w.numa_node == row.numa_node
            };
            let Some(grown) = window.syscalls.iter().find(same) else { continue };
            let by = storms * self.share(&row.syscall);
            grow_times(&mut row.calls, &grown.calls, by);
            row.errors += part(grown.errors, by);
            for (lock, ns) in &mut row.lock_wait_ns {
                *ns += part(grown.lock_wait_ns.get(lock).copied().unwrap_or(0), by);
            }
        }
        for row in &mut now.syscall_errors {
            let same = |w: &&lockprof::snapshot::SyscallErrors| {
                w.syscall == row.syscall && w.errno == row.errno
            };
            let grown = window.syscall_errors.iter().find(same).map_or(0, |w| w.count);
            row.count += part(grown, storms);
        }
        // A row of a party may be missing from the window; then it did not grow.
        for row in &mut now.waiters {
            let same = |w: &&lockprof::snapshot::Waiter| {
                w.lock == row.lock
                    && w.mode == row.mode
                    && w.call == row.call
                    && w.party == row.party
            };
            if let Some(grown) = window.waiters.iter().find(same) {
                grow_charge(&mut row.waits, grown.waits, of_lock(&row.lock));
            }
        }
        for row in &mut now.blockers {
            let same = |w: &&lockprof::snapshot::Blocker| {
                w.lock == row.lock
                    && w.basis == row.basis
                    && w.call == row.call
                    && w.party == row.party
            };
            if let Some(grown) = window.blockers.iter().find(same) {
                grow_charge(&mut row.waits, grown.waits, of_lock(&row.lock));
            }
        }
        self.grow_the_rest(&mut now, storms);
        self.queue(&mut now, after);
        now
    }

    fn grow_the_rest(&self, now: &mut Snapshot, storms: f64) {
        let window = &self.recording.window;
        if let (Some(slow), Some(grown)) = (&mut now.slow_waits, &window.slow_waits) {
            slow.count += part(grown.count, storms);
        }
        let readers = now.mountinfo_readers.iter_mut().flatten();
        for row in readers {
            let mut readers = window.mountinfo_readers.iter().flatten();
            let Some(grown) = readers.find(|w| w.file == row.file && w.party == row.party) else {
                continue;
            };
            row.opens += part(grown.opens, storms);
            row.entries += part(grown.entries, storms);
            grow_charge(&mut row.reads, grown.reads, storms);
        }
        if let (Some(waits), Some(grown)) =
            (&mut now.mountinfo_lock_wait_ns, &window.mountinfo_lock_wait_ns)
        {
            for (lock, ns) in waits {
                *ns += part(grown.get(lock).copied().unwrap_or(0), storms * self.share(lock));
            }
        }
        for row in now.superblocks.iter_mut().flatten() {
            let mut made = window.superblocks.iter().flatten();
            let grown = made.find(|w| w.filesystem == row.filesystem).map_or(0, |w| w.count);
            row.count += part(grown, storms);
        }
        if let (Some(samples), Some(grown)) = (&mut now.samples, &window.samples) {
            for (row, grown) in samples.counts.iter_mut().zip(&grown.counts) {
                row.count += part(grown.count, storms * self.share(row.place.as_str()));
            }
        }
    }

    /// Waits in flight: on average as many as the load makes, another number
    /// every five seconds.
    fn queue(&self, now: &mut Snapshot, after: Duration) {
        let window = &self.recording.window;
        let moment = format!("{}", after.as_secs() / 5);
        for row in &mut now.inflight {
            let of_lock = || window.locks.iter().filter(|w| w.lock == row.lock);
            let waited: u64 = of_lock().map(|w| w.waits.sum_ns).sum();
            let longest = of_lock().map(|w| w.waits.max_ns).max().unwrap_or(0);
            let on_average =
                seconds(waited) / seconds(window.duration_ns) * self.pace * self.share(&row.lock);
            let chance = fraction(hash(hash(self.seed, &moment), &row.lock));
            row.waiters = part(1, on_average + chance);
            row.oldest_ns = if row.waiters == 0 { 0 } else { part(longest, chance) };
        }
    }

    /// How this host's load differs from the recorded one's in `what`: from half
    /// of it to one and a half times.
    fn share(&self, what: &str) -> f64 {
        0.5 + fraction(hash(self.seed, what))
    }
}

fn grow_times(times: &mut Times, grown: &Times, by: f64) {
    let mut dense = vec![0u64; BUCKETS];
    let buckets = |histogram: &Histogram, dense: &mut Vec<u64>, by: f64| {
        for (upper, count) in histogram.iter_ns() {
            dense[bucket_of_upper_ns(upper).expect("a bucket ends there")] += part(count, by);
        }
    };
    buckets(&times.buckets, &mut dense, 1.0);
    buckets(&grown.buckets, &mut dense, by);
    times.buckets = Histogram::from_dense(&dense, 0);
    times.count = times.buckets.total();
    times.sum_ns += part(grown.sum_ns, by);
}

fn grow_charge(charge: &mut Charge, grown: Charge, by: f64) {
    charge.count += part(grown.count, by);
    charge.sum_ns += part(grown.sum_ns, by);
}

/// `of` so many times, rounded down: what grows with `by` never falls.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "simulated counts are far from 2^53, and none is negative"
)]
fn part(of: u64, by: f64) -> u64 {
    (of as f64 * by) as u64
}

#[expect(clippy::cast_precision_loss, reason = "2^53 ns are 104 days")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// From 0 to below 1.
#[expect(clippy::cast_precision_loss, reason = "32 bits fit")]
fn fraction(hash: u64) -> f64 {
    (hash >> 32) as f64 / (1u64 << 32) as f64
}

/// FNV-1a, and the last step of SplitMix64 for the upper bits. The same on every
/// machine, which the standard library's hash does not promise.
fn hash(seed: u64, text: &str) -> u64 {
    let fnv = text.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
