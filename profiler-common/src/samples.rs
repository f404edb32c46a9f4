//! Where the kernel was when a CPU was sampled: ranges of its code, and the
//! counters of a CPU.

use crate::layout::CACHE_LINE;

/// Most ranges of code that are told apart.
pub const RANGES: usize = 64;

/// A part of the kernel's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CodePlace {
    /// In none of the ranges.
    Elsewhere = 0,
    /// Functions that read `mount_lock`'s sequence count or walk the hash of
    /// mounts.
    MountSeqcount = 1,
    /// Slow paths of locks.
    LockSlowPath = 2,
}

/// How many places there are.
pub const PLACES: usize = 3;

/// The code of one function, as read-only data.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeRange {
    /// Address of its first byte.
    pub start: u64,
    /// Its length in bytes.
    pub bytes: u32,
    /// A [`CodePlace`].
    pub place: u32,
}

/// Sorts behind every range and holds no address.
pub const NO_RANGE: CodeRange = CodeRange { start: u64::MAX, bytes: 0, place: 0 };

const _: () = assert!(RANGES.is_power_of_two());

/// The place of `address` by the number of a [`CodePlace`]. `range` gives the
/// range of an index below [`RANGES`]; they are ascending and do not overlap,
/// those that are not used are [`NO_RANGE`].
///
/// As many steps for every address, without a loop for the verifier to follow:
/// the compiler unrolls the one here.
#[inline(always)]
pub fn place_of(address: u64, range: impl Fn(usize) -> CodeRange) -> u32 {
    let mut index = 0;
    let mut step = RANGES / 2;
    while step != 0 {
        if range(index + step).start <= address {
            index += step;
        }
        step /= 2;
    }
    let found = range(index);
    if address.wrapping_sub(found.start) < found.bytes as u64 {
        found.place
    } else {
        CodePlace::Elsewhere as u32
    }
}

/// Samples of one CPU.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct SampleBank {
    /// By [`CodePlace`].
    pub counts: [u64; PLACES],
    #[doc(hidden)]
    pub pad: [u64; 8 - PLACES],
}

const _: () = assert!(size_of::<SampleBank>() == CACHE_LINE);

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, integers only, no implicit padding.
unsafe impl aya::Pod for CodeRange {}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(ranges: &[CodeRange]) -> [CodeRange; RANGES] {
        let mut table = [NO_RANGE; RANGES];
        table[..ranges.len()].copy_from_slice(ranges);
        table
    }

    fn place(table: &[CodeRange; RANGES], address: u64) -> u32 {
        place_of(address, |index| table[index])
    }

    #[test]
    fn every_number_of_ranges_is_searched_to_its_edges() {
        for used in 0..=RANGES {
            let ranges: Vec<_> = (0..used as u64)
                .map(|n| CodeRange {
                    start: 0xffff_0000 + n * 32,
                    bytes: 16,
                    place: 1 + n as u32 % 2,
                })
                .collect();
            let table = table(&ranges);
            for range in &ranges {
                assert_eq!(place(&table, range.start - 1), 0, "{used}");
                assert_eq!(place(&table, range.start), range.place, "{used}");
                assert_eq!(place(&table, range.start + 15), range.place, "{used}");
                assert_eq!(place(&table, range.start + 16), 0, "{used}");
            }
            assert_eq!(place(&table, 0), 0);
            assert_eq!(place(&table, u64::MAX), 0);
        }
    }

    #[test]
    fn ranges_that_touch_are_told_apart() {
        let table = table(&[
            CodeRange { start: 100, bytes: 10, place: 2 },
            CodeRange { start: 110, bytes: 10, place: 1 },
        ]);
        assert_eq!([99, 100, 109, 110, 119, 120].map(|at| place(&table, at)), [0, 2, 2, 1, 1, 0]);
    }
}
