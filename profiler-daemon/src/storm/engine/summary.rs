//! What a storm was: for a person, and as JSON.

use std::fmt;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::shared::Totals;
use crate::kernel::topology::list_of_numbers;
use crate::storm::load::Options;
use crate::storm::start::Op;
use crate::storm::strategy::{RootFs, Runtime, Strategy};

/// What the engine itself saw of a storm.
pub(super) struct Outcome {
    /// From when the first worker could start until the last one ended.
    pub(super) duration: Duration,
    /// Of the starts, in ns.
    pub(super) latencies: Histogram<u64>,
    /// The longest of them, in ns: the histogram rounds.
    pub(super) longest_ns: u64,
    pub(super) interrupted: bool,
    pub(super) killed: bool,
}

/// For latencies up to ten minutes, to three digits.
pub(super) fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("the bounds are constants that fit")
}

/// One of a fixed set of words. By a name of its own, since a field declared as a
/// reference would be one into the text that is deserialised.
type Word = &'static str;

/// A storm's figures. Times are in ns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// From when the first worker could start until the last one ended: without
    /// the making and unmaking of what all starts share.
    pub duration_ns: u64,
    /// [`Options::strategy`].
    pub strategy: Strategy,
    /// [`Options::concurrency`].
    pub concurrency: u32,
    /// [`Options::pollers`].
    pub pollers: u32,
    /// [`Options::cpus`].
    pub cpus: Option<Vec<u32>>,
    /// Starts whose root was in place.
    pub starts: u64,
    /// `starts` over the duration.
    pub starts_per_second: f64,
    /// Starts that could not go on.
    pub failed_starts: u64,
    /// Workers, readers and starts that something killed.
    pub lost_processes: u64,
    /// From the fork of a start until its root was in place.
    pub start_latency: Latency,
    /// Mounts that were attached or changed, by whichever call, the starts'
    /// roots included.
    pub mounts: u64,
    /// Mounts that were removed.
    pub umounts: u64,
    /// How the storm's own starts changed their root: one of [`ROOT_CHANGES`], or
    /// `none` when no start came so far.
    #[serde(deserialize_with = "root_change")]
    pub root_change: Word,
    /// Full reads of `/proc/self/mountinfo`.
    pub mountinfo_reads: u64,
    /// Bytes of those reads.
    pub mountinfo_bytes: u64,
    /// What failed, by step and errno.
    pub errors: Vec<ErrorCount>,
    /// A signal ended it before its time.
    pub interrupted: bool,
    /// Processes were killed because they did not end in time; starts under
    /// way are not in the figures.
    pub killed: bool,
}

/// Quantiles of a latency, in ns; zeros when there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Median.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// Largest.
    pub max_ns: u64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>, max_ns: u64) -> Self {
        // The histogram gives the upper end of a bucket, which may lie above
        // the largest value.
        let quantile = |q| histogram.value_at_quantile(q).min(max_ns);
        Self { p50_ns: quantile(0.5), p99_ns: quantile(0.99), max_ns }
    }
}

/// How often a step failed with an errno.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCount {
    /// [`super::Op::as_str`].
    #[serde(deserialize_with = "step")]
    pub step: Word,
    /// The errno; 0 for an error without one.
    pub errno: i32,
    /// What the errno means; without one, the words of the first such error.
    pub message: String,
    /// How often.
    pub count: u64,
}

impl Summary {
    pub(super) fn new(options: &Options, totals: &Totals, outcome: &Outcome) -> Self {
        let starts = outcome.latencies.len();
        let seconds = outcome.duration.as_secs_f64();
        let total = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let errors = totals.errors().into_iter().map(|(op, errno, count)| ErrorCount {
            step: op.as_str(),
            errno,
            message: match totals.words.about(op) {
                Some(words) if errno == 0 => words,
                _ => describe(errno),
            },
            count,
        });
        Self {
            duration_ns: u64::try_from(outcome.duration.as_nanos()).unwrap_or(u64::MAX),
            strategy: options.strategy.clone(),
            concurrency: options.concurrency.get(),
            pollers: options.pollers,
            cpus: options.cpus.clone(),
            starts,
            starts_per_second: if seconds > 0.0 { starts as f64 / seconds } else { 0.0 },
            failed_starts: total(&totals.failed_starts),
            lost_processes: total(&totals.lost_processes),
            start_latency: Latency::of(&outcome.latencies, outcome.longest_ns),
            mounts: total(&totals.mounts),
            umounts: total(&totals.umounts),
            root_change: match (total(&totals.pivots), total(&totals.chroots)) {
                _ if starts == 0 || options.strategy.runtime != Runtime::Builtin => "none",
                (0, 0) => "setns",
                (_, 0) => "pivot_root",
                (0, _) if options.strategy.rootfs == RootFs::Beneath => "beneath",
                _ => "chroot",
            },
            mountinfo_reads: total(&totals.mountinfo_reads),
            mountinfo_bytes: total(&totals.mountinfo_bytes),
            errors: errors.collect(),
            interrupted: outcome.interrupted,
            killed: outcome.killed,
        }
    }

    /// Whether anything failed or was lost.
    pub fn has_errors(&self) -> bool {
        !self.errors.is_empty() || self.failed_starts > 0 || self.lost_processes > 0
    }
}

/// How starts can change their root.
const ROOT_CHANGES: [&str; 5] = ["pivot_root", "chroot", "setns", "beneath", "none"];

fn root_change<'de, D: Deserializer<'de>>(from: D) -> Result<&'static str, D::Error> {
    one_of(ROOT_CHANGES, from)
}

fn step<'de, D: Deserializer<'de>>(from: D) -> Result<&'static str, D::Error> {
    one_of(Op::ALL.map(Op::as_str), from)
}

/// Reads one of some words.
fn one_of<'de, D: Deserializer<'de>>(
    words: impl IntoIterator<Item = &'static str>,
    from: D,
) -> Result<&'static str, D::Error> {
    let word = String::deserialize(from)?;
    let found = words.into_iter().find(|known| *known == word);
    found.ok_or_else(|| de::Error::custom(format!("unexpected {word}")))
}

/// Meaning of an errno, without the number that std appends.
fn describe(errno: i32) -> String {
    if errno == 0 {
        return "error without errno".to_owned();
    }
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// A table for a person.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Duration::from_nanos(self.duration_ns).as_secs_f64();
        let Latency { p50_ns, p99_ns, max_ns } = self.start_latency;
        writeln!(
            f,
            "storm: {} at a time, {} pollers, {seconds:.1} s{}{}",
            self.concurrency,
            self.pollers,
            self.cpus
                .as_ref()
                .map(|cpus| format!(" on CPUs {}", list_of_numbers(cpus)))
                .unwrap_or_default(),
            if self.interrupted { " (interrupted)" } else { "" }
        )?;
        writeln!(f, "  starts           {:>10}   {:.1}/s", self.starts, self.starts_per_second)?;
        writeln!(
            f,
            "  start latency    p50 {}, p99 {}, max {}",
            milliseconds(p50_ns),
            milliseconds(p99_ns),
            milliseconds(max_ns)
        )?;
        writeln!(f, "  mount calls      {:>10}", self.mounts)?;
        writeln!(f, "  umount calls     {:>10}", self.umounts)?;
        writeln!(f, "  root changed by  {:>10}", self.root_change)?;
        writeln!(
            f,
            "  mountinfo reads  {:>10}   {} bytes",
            self.mountinfo_reads, self.mountinfo_bytes
        )?;
        writeln!(f, "  failed starts    {:>10}", self.failed_starts)?;
        if self.lost_processes > 0 {
            writeln!(f, "  lost processes   {:>10}", self.lost_processes)?;
        }
        let failures: u64 = self.errors.iter().map(|e| e.count).sum();
        writeln!(f, "  errors           {failures:>10}")?;
        for error in &self.errors {
            writeln!(
                f,
                "    {:<15}{:>10}   {} (errno {})",
                error.step, error.count, error.message, error.errno
            )?;
        }
        if self.killed {
            writeln!(f, "  starts that did not end in time were killed and are not counted")?;
        }
        Ok(())
    }
}

fn milliseconds(ns: u64) -> String {
    format!("{:.2} ms", Duration::from_nanos(ns).as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::super::shared::SharedCounters;
    use super::*;
    use crate::storm::load::Stop;

    fn example() -> Summary {
        let options = Options {
            strategy: Strategy::default(),
            concurrency: 8.try_into().unwrap(),
            rate: None,
            stop: Stop::After(Duration::from_secs(2)),
            pollers: 2,
            cpus: Some(vec![0, 1, 4]),
        };
        let counters = SharedCounters::new().unwrap();
        counters.mounts.store(172, Ordering::Relaxed);
        counters.umounts.store(80, Ordering::Relaxed);
        counters.pivots.store(4, Ordering::Relaxed);
        counters.mountinfo_reads.store(9, Ordering::Relaxed);
        counters.mountinfo_bytes.store(9000, Ordering::Relaxed);
        counters.count_error(Op::Bind, &io::Error::from_raw_os_error(libc::ENOSPC));
        let mut latencies = new_histogram();
        for ms in [1, 2, 3, 40] {
            latencies.record(ms * 1_000_000).unwrap();
        }
        let outcome = Outcome {
            duration: Duration::from_secs(2),
            latencies,
            longest_ns: 40_000_000,
            interrupted: true,
            killed: false,
        };
        Summary::new(&options, &counters, &outcome)
    }

    #[test]
    fn the_table_shows_every_figure_and_names_the_errors() {
        insta::assert_snapshot!(example().to_string(), @r"
        storm: 8 at a time, 2 pollers, 2.0 s on CPUs 0-1,4 (interrupted)
          starts                    4   2.0/s
          start latency    p50 2.00 ms, p99 40.00 ms, max 40.00 ms
          mount calls             172
          umount calls             80
          root changed by  pivot_root
          mountinfo reads           9   9000 bytes
          failed starts             0
          errors                    1
            bind                    1   No space left on device (errno 28)
        ");
    }

    #[test]
    fn the_json_form_has_units_in_its_keys() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&example()).unwrap(), @r#"
        {
          "duration_ns": 2000000000,
          "strategy": {
            "runtime": "builtin",
            "rootfs": "legacy",
            "layers": 0,
            "idmap": null,
            "binds": 12,
            "masks": 8,
            "mask_with": "tmpfs",
            "host_mounts": 0,
            "propagation": "private",
            "mountinfo_reads": 0,
            "mount_query": "mountinfo"
          },
          "concurrency": 8,
          "pollers": 2,
          "cpus": [
            0,
            1,
            4
          ],
          "starts": 4,
          "starts_per_second": 2.0,
          "failed_starts": 0,
          "lost_processes": 0,
          "start_latency": {
            "p50_ns": 2000895,
            "p99_ns": 40000000,
            "max_ns": 40000000
          },
          "mounts": 172,
          "umounts": 80,
          "root_change": "pivot_root",
          "mountinfo_reads": 9,
          "mountinfo_bytes": 9000,
          "errors": [
            {
              "step": "bind",
              "errno": 28,
              "message": "No space left on device",
              "count": 1
            }
          ],
          "interrupted": true,
          "killed": false
        }
        "#);
    }

    #[test]
    fn the_json_form_reads_as_the_figures_that_it_was_made_of() {
        let sent = serde_json::to_string(&example()).unwrap();
        assert_eq!(serde_json::from_str::<Summary>(&sent).unwrap(), example());
        let strange = sent.replace("pivot_root", "magic");
        assert!(serde_json::from_str::<Summary>(&strange).is_err());
    }

    #[test]
    fn quantiles_never_pass_the_largest_value() {
        let mut histogram = new_histogram();
        histogram.record(123_456_789).unwrap();
        let latency = Latency::of(&histogram, 123_456_789);
        assert_eq!(latency.max_ns, 123_456_789);
        assert!(latency.p50_ns <= latency.max_ns && latency.p99_ns <= latency.max_ns);
        assert_eq!(Latency::of(&new_histogram(), 0), Latency::default());
    }

    #[test]
    fn a_storm_without_failures_has_no_errors() {
        let mut summary = example();
        assert!(summary.has_errors());
        summary.errors.clear();
        assert!(!summary.has_errors());
        summary.lost_processes = 1;
        assert!(summary.has_errors());
    }
}
