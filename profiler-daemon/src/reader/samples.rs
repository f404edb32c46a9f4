//! Samples of each CPU -> samples by NUMA node.

use profiler_common::samples::{PLACES, SampleBank};

use super::banks::Banks;
use super::mapping::{Mapping, load};
use crate::hooks::samples::{Sampler, code_place};
use crate::snapshot::{Name, Place, SampleCount, Samples};

/// The banks, and what does not change while they are filled.
pub(super) struct SampleBanks {
    banks: Mapping<SampleBank>,
    /// Without counts.
    about: Samples,
}

impl SampleBanks {
    pub(super) fn new(banks: Mapping<SampleBank>, sampler: &Sampler) -> Self {
        let about = Samples {
            frequency_hz: u64::from(sampler.frequency_hz),
            source: sampler.source.name().to_owned(),
            functions: sampler.functions.iter().map(|name| Name::from(*name)).collect(),
            counts: Vec::new(),
        };
        Self { banks, about }
    }

    /// Samples since the programs were attached: every node and place is there.
    /// `totals` knows the node of each CPU.
    pub(super) fn read(&self, totals: &Banks) -> Samples {
        let mut counts: Vec<_> = totals
            .nodes()
            .flat_map(|numa_node| {
                Place::ALL.map(|place| SampleCount { numa_node, place, count: 0 })
            })
            .collect();
        for cpu in 0..self.banks.len() {
            let bank = self.banks.element(cpu);
            for (offset, place) in Place::ALL.into_iter().enumerate() {
                const { assert!(Place::ALL.len() == PLACES) }
                // SAFETY: a word of a mapped element: there are as many as places.
                let count = unsafe {
                    load((&raw const (*bank).counts).cast::<u64>().add(code_place(place) as usize))
                };
                let node = totals.node_of(cpu) as usize;
                if let Some(row) = counts.get_mut(node * PLACES + offset) {
                    row.count += count;
                }
            }
        }
        Samples { counts, ..self.about.clone() }
    }
}
