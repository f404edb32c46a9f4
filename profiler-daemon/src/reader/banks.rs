//! Per-CPU banks -> totals per NUMA node, reading again only what moved.

use profiler_common::histogram::BUCKETS;
use profiler_common::layout::{
    CpuState, HOLD_BUCKETS, HOLD_FLOOR, HoldSeries, Layout, SYSCALL_BUCKETS, SYSCALL_FLOOR,
    SyscallSeries, WaitSeries,
};
use profiler_common::syscalls::SYSCALLS;

use super::mapping::{Mapping, load};
use crate::snapshot::{Histogram, Times};

/// Times a reader looks again at a bank that is being written. A program holds
/// a bank for some tens of nanoseconds with preemption off.
const RETRIES: usize = 1000;

/// Totals per node, kept between reads.
pub(super) struct Banks {
    waits: Mapping<WaitSeries>,
    calls: Mapping<SyscallSeries>,
    /// Where releases are observed.
    holds: Option<Mapping<HoldSeries>>,
    series: usize,
    hold_series: usize,
    node_of_cpu: Vec<u32>,
    /// What was booked on each CPU at the last read.
    seen: Vec<Booked>,
    nodes: Vec<NodeTotals>,
}

/// How much was booked on a CPU.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Booked {
    waits: u64,
    calls: u64,
    releases: u64,
}

/// Contended releases of a series on a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Holds {
    /// Holds and their times.
    pub(super) times: Times,
    /// Releases after a hold of unknown length.
    pub(super) unmeasured: u64,
    /// Releases by a reader while other readers held on.
    pub(super) one_of_readers: u64,
}

/// Waits of a series on a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Waits {
    /// Waits and their times.
    pub(super) times: Times,
    /// Waits that began on another node.
    pub(super) migrated: u64,
    /// Waits that ended without the lock.
    pub(super) failed: u64,
    /// Acquisitions after one on the same node.
    pub(super) handoffs_within_node: u64,
}

#[derive(Default)]
struct NodeTotals {
    /// By series.
    waits: Vec<Waits>,
    /// By system call: times, errors.
    calls: Vec<(Times, u64)>,
    /// By series of holds.
    holds: Vec<Holds>,
}

impl Banks {
    pub(super) fn new(
        waits: Mapping<WaitSeries>,
        calls: Mapping<SyscallSeries>,
        holds: Option<Mapping<HoldSeries>>,
        layout: &Layout,
        node_of_cpu: &[u32],
    ) -> Self {
        let cpus = layout.cpus as usize;
        let series = layout.series as usize;
        let hold_series = if holds.is_some() { layout.holds as usize } else { 0 };
        let totals = || NodeTotals {
            waits: vec![Default::default(); series],
            calls: vec![Default::default(); SYSCALLS],
            holds: vec![Default::default(); hold_series],
        };
        Self {
            waits,
            calls,
            holds,
            series,
            hold_series,
            node_of_cpu: (0..cpus).map(|cpu| node_of_cpu.get(cpu).copied().unwrap_or(0)).collect(),
            seen: vec![Booked::default(); cpus],
            nodes: (0..layout.nodes.max(1)).map(|_| totals()).collect(),
        }
    }

    /// The nodes, in order.
    pub(super) fn nodes(&self) -> impl Iterator<Item = u32> + use<> {
        0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)
    }

    /// The node of a CPU.
    pub(super) fn node_of(&self, cpu: usize) -> u32 {
        self.node_of_cpu[cpu]
    }

    /// Waits of a series on a node.
    pub(super) fn waits(&self, node: u32, series: usize) -> &Waits {
        &self.nodes[node as usize].waits[series]
    }

    /// Times and errors of a system call on a node.
    pub(super) fn calls(&self, node: u32, call: usize) -> (Times, u64) {
        self.nodes[node as usize].calls[call].clone()
    }

    /// Contended releases of a series of holds on a node; `None` where they are
    /// not observed.
    pub(super) fn holds(&self, node: u32, series: usize) -> Option<&Holds> {
        self.nodes[node as usize].holds.get(series)
    }

    /// Brings the totals up to date.
    pub(super) fn refresh(&mut self, cpus: &Mapping<CpuState>) {
        let mut waits_moved = vec![false; self.nodes.len()];
        let mut calls_moved = vec![false; self.nodes.len()];
        let mut releases_moved = vec![false; self.nodes.len()];
        for cpu in 0..self.seen.len() {
            let state = cpus.element(cpu);
            // SAFETY: fields of a mapped element.
            let (booked, node_plus_one) = unsafe {
                (
                    Booked {
                        waits: load(&raw const (*state).waits),
                        calls: load(&raw const (*state).calls),
                        releases: load(&raw const (*state).releases),
                    },
                    load(&raw const (*state).node_plus_one),
                )
            };
            let told = u32::try_from(node_plus_one).unwrap_or(0).checked_sub(1);
            if let Some(node) = told.filter(|node| (*node as usize) < self.nodes.len())
                && node != self.node_of_cpu[cpu]
            {
                let before = self.node_of_cpu[cpu] as usize;
                waits_moved[before] = true;
                calls_moved[before] = true;
                releases_moved[before] = true;
                self.node_of_cpu[cpu] = node;
                self.seen[cpu] = Booked::default();
            }
            let node = self.node_of_cpu[cpu] as usize;
            waits_moved[node] |= booked.waits != self.seen[cpu].waits;
            calls_moved[node] |= booked.calls != self.seen[cpu].calls;
            releases_moved[node] |= booked.releases != self.seen[cpu].releases;
            self.seen[cpu] = booked;
        }
        for node in 0..self.nodes.len() {
            if waits_moved[node] {
                for series in 0..self.series {
                    self.nodes[node].waits[series] = self.sum_waits(node, series);
                }
            }
            if calls_moved[node] {
                for call in 0..SYSCALLS {
                    self.nodes[node].calls[call] = self.sum_calls(node, call);
                }
            }
            if releases_moved[node] {
                for series in 0..self.hold_series {
                    self.nodes[node].holds[series] = self.sum_holds(node, series);
                }
            }
        }
    }

    /// CPUs of `node` on which anything was booked.
    fn cpus_of(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.seen.len()).filter(move |cpu| {
            self.node_of_cpu[*cpu] as usize == node && self.seen[*cpu] != Booked::default()
        })
    }

    fn sum_waits(&self, node: usize, series: usize) -> Waits {
        let mut sum = Sum::new();
        for cpu in self.cpus_of(node) {
            let bank = self.waits.element(cpu * self.series + series);
            // SAFETY: fields of a mapped element.
            unsafe {
                sum.add(
                    &raw const (*bank).started,
                    &raw const (*bank).finished,
                    &[
                        &raw const (*bank).sum_ns,
                        &raw const (*bank).max_ns,
                        &raw const (*bank).migrated,
                        &raw const (*bank).failed,
                        &raw const (*bank).handoffs_within_node,
                    ],
                    (&raw const (*bank).buckets).cast(),
                    BUCKETS,
                );
            }
        }
        let [migrated, failed, handoffs_within_node] = sum.extra;
        Waits { times: sum.times(0), migrated, failed, handoffs_within_node }
    }

    fn sum_holds(&self, node: usize, series: usize) -> Holds {
        let mut sum = Sum::new();
        for cpu in self.cpus_of(node) {
            let Some(holds) = &self.holds else { break };
            let bank = holds.element(cpu * self.hold_series + series);
            // SAFETY: fields of a mapped element.
            unsafe {
                sum.add(
                    &raw const (*bank).started,
                    &raw const (*bank).finished,
                    &[
                        &raw const (*bank).sum_ns,
                        &raw const (*bank).max_ns,
                        &raw const (*bank).unmeasured,
                        &raw const (*bank).one_of_readers,
                    ],
                    (&raw const (*bank).buckets).cast(),
                    HOLD_BUCKETS,
                );
            }
        }
        let [unmeasured, one_of_readers, _] = sum.extra;
        Holds { times: sum.times(HOLD_FLOOR), unmeasured, one_of_readers }
    }

    fn sum_calls(&self, node: usize, call: usize) -> (Times, u64) {
        let mut sum = Sum::new();
        for cpu in self.cpus_of(node) {
            let bank = self.calls.element(cpu * SYSCALLS + call);
            // SAFETY: fields of a mapped element.
            unsafe {
                sum.add(
                    &raw const (*bank).started,
                    &raw const (*bank).finished,
                    &[
                        &raw const (*bank).sum_ns,
                        &raw const (*bank).max_ns,
                        &raw const (*bank).errors,
                    ],
                    (&raw const (*bank).buckets).cast(),
                    SYSCALL_BUCKETS,
                );
            }
        }
        let errors = sum.extra[0];
        (sum.times(SYSCALL_FLOOR), errors)
    }
}

/// Sum over the banks of a node.
struct Sum {
    sum_ns: u64,
    max_ns: u64,
    /// The counters that differ between the kinds of bank.
    extra: [u64; 3],
    buckets: [u64; BUCKETS],
}

impl Sum {
    const fn new() -> Self {
        Self { sum_ns: 0, max_ns: 0, extra: [0; 3], buckets: [0; BUCKETS] }
    }

    /// Adds a bank. `figures` are sum, maximum and up to three more counters.
    ///
    /// A bank that is being written is read again; should it never come to
    /// rest, its last state counts, which is at most one event out of step.
    ///
    /// # Safety
    ///
    /// All pointers are to fields of one bank in a live mapping, and `buckets`
    /// to `len` words.
    unsafe fn add(
        &mut self,
        started: *const u64,
        finished: *const u64,
        figures: &[*const u64],
        buckets: *const u64,
        len: usize,
    ) {
        let mut values = [0u64; 5];
        let mut copy = [0u64; BUCKETS];
        for _ in 0..RETRIES {
            // SAFETY: the caller's promise.
            unsafe {
                let before = load(finished);
                if before == 0 && load(started) == 0 {
                    return;
                }
                for (value, figure) in values.iter_mut().zip(figures) {
                    *value = load(*figure);
                }
                for (index, bucket) in copy.iter_mut().enumerate().take(len) {
                    *bucket = load(buckets.add(index));
                }
                if load(started) == before {
                    break;
                }
            }
        }
        self.sum_ns += values[0];
        self.max_ns = self.max_ns.max(values[1]);
        for (sum, value) in self.extra.iter_mut().zip(&values[2..]) {
            *sum += value;
        }
        for (sum, bucket) in self.buckets.iter_mut().zip(copy) {
            *sum += bucket;
        }
    }

    fn times(&self, first_bucket: usize) -> Times {
        let buckets = Histogram::from_dense(&self.buckets[..BUCKETS - first_bucket], first_bucket);
        Times { count: buckets.total(), sum_ns: self.sum_ns, max_ns: self.max_ns, buckets }
    }
}
