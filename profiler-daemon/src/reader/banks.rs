//! Per-CPU banks -> totals per NUMA node, reading again only what moved.

use profiler_common::histogram::BUCKETS;
use profiler_common::layout::{
    CpuState, Layout, SYSCALL_BUCKETS, SYSCALL_FLOOR, SyscallSeries, WaitSeries,
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
    series: usize,
    node_of_cpu: Vec<u32>,
    /// Waits and calls booked on each CPU at the last read.
    seen: Vec<(u64, u64)>,
    nodes: Vec<NodeTotals>,
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
}

impl Banks {
    pub(super) fn new(
        waits: Mapping<WaitSeries>,
        calls: Mapping<SyscallSeries>,
        layout: &Layout,
        node_of_cpu: &[u32],
    ) -> Self {
        let cpus = layout.cpus as usize;
        let series = layout.series as usize;
        let totals = || NodeTotals {
            waits: vec![Default::default(); series],
            calls: vec![Default::default(); SYSCALLS],
        };
        Self {
            waits,
            calls,
            series,
            node_of_cpu: (0..cpus).map(|cpu| node_of_cpu.get(cpu).copied().unwrap_or(0)).collect(),
            seen: vec![(0, 0); cpus],
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

    /// Brings the totals up to date.
    pub(super) fn refresh(&mut self, cpus: &Mapping<CpuState>) {
        let mut waits_moved = vec![false; self.nodes.len()];
        let mut calls_moved = vec![false; self.nodes.len()];
        for cpu in 0..self.seen.len() {
            let state = cpus.element(cpu);
            // SAFETY: fields of a mapped element.
            let (waits, calls, node_plus_one) = unsafe {
                (
                    load(&raw const (*state).waits),
                    load(&raw const (*state).calls),
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
                self.node_of_cpu[cpu] = node;
                self.seen[cpu] = (0, 0);
            }
            let node = self.node_of_cpu[cpu] as usize;
            waits_moved[node] |= waits != self.seen[cpu].0;
            calls_moved[node] |= calls != self.seen[cpu].1;
            self.seen[cpu] = (waits, calls);
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
        }
    }

    /// CPUs of `node` on which anything was booked.
    fn cpus_of(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.seen.len())
            .filter(move |cpu| self.node_of_cpu[*cpu] as usize == node && self.seen[*cpu] != (0, 0))
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
