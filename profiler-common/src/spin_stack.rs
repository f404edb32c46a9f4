//! Spin waits in flight on one CPU.
//!
//! A waiter that spins cannot leave its CPU, but an interrupt on that CPU can
//! spin in turn, so the waits of one CPU nest strictly: last begun, first
//! ended. Four entries are enough, one each for task, softirq, hardirq and NMI
//! context.
//!
//! The begin and the end program each run one at a time on a CPU, but one may
//! interrupt the other. No interleaving corrupts the stack: at worst an entry
//! stays whose end the kernel did not deliver, and the next end below it
//! removes it, counted.

/// Entries: one for each context that can nest on a CPU.
pub const DEPTH: usize = 4;

/// A spin wait in flight.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpinWait {
    /// Series of the wait plus 1; 0 for an entry never used.
    pub series_plus_one: u32,
    /// Whom it is charged to: a number that means something to the programs.
    pub blocker: u32,
    /// Start in ns of `CLOCK_MONOTONIC`.
    pub start_ns: u64,
}

/// A spin wait that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Popped {
    /// Its series.
    pub series: u8,
    /// [`SpinWait::blocker`].
    pub blocker: u32,
    /// Start in ns of `CLOCK_MONOTONIC`.
    pub start_ns: u64,
    /// How many waits above it had lost their end.
    pub lost: u64,
}

/// The stack of one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SpinStack {
    /// Entries in use, at most [`DEPTH`].
    pub depth: u64,
    /// The entries, oldest first.
    pub waits: [SpinWait; DEPTH],
}

impl SpinStack {
    /// Notes that a spin wait begins; false when the stack is full.
    #[inline(always)]
    pub fn push(&mut self, series: u8, blocker: u32, start_ns: u64) -> bool {
        let depth = self.depth;
        if depth >= DEPTH as u64 {
            return false;
        }
        self.waits[depth as usize] =
            SpinWait { series_plus_one: series as u32 + 1, blocker, start_ns };
        self.depth = depth + 1;
        true
    }

    /// Ends the innermost wait of the lock that owns the series
    /// `first_series..first_series + series_count`.
    #[inline(always)]
    pub fn pop(&mut self, first_series: u8, series_count: u8) -> Option<Popped> {
        let depth = self.depth;
        // Indices are constant after unrolling: the verifier needs no bounds.
        for index in (0..DEPTH).rev() {
            if (index as u64) < depth {
                let wait = self.waits[index];
                let series = wait.series_plus_one.wrapping_sub(1);
                if series.wrapping_sub(first_series as u32) < series_count as u32 {
                    self.depth = index as u64;
                    return Some(Popped {
                        series: series as u8,
                        blocker: wait.blocker,
                        start_ns: wait.start_ns,
                        lost: depth - 1 - index as u64,
                    });
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn popped(series: u8, start_ns: u64, lost: u64) -> Option<Popped> {
        Some(Popped { series, blocker: 9, start_ns, lost })
    }

    #[test]
    fn an_interrupt_that_spins_does_not_disturb_the_wait_it_interrupted() {
        let mut stack = SpinStack::default();
        assert!(stack.push(1, 9, 100));
        assert!(stack.push(5, 9, 150));
        assert_eq!(stack.pop(5, 1), popped(5, 150, 0));
        assert_eq!(stack.pop(1, 1), popped(1, 100, 0));
        assert_eq!(stack.pop(1, 1), None);
    }

    #[test]
    fn an_entry_whose_end_was_lost_goes_with_the_next_end_below_it() {
        let mut stack = SpinStack::default();
        stack.push(1, 9, 100);
        stack.push(5, 9, 150);
        assert_eq!(stack.pop(1, 1), popped(1, 100, 1));
        assert_eq!(stack.depth, 0);
    }

    #[test]
    fn a_full_stack_refuses() {
        let mut stack = SpinStack::default();
        for series in 0..DEPTH {
            assert!(stack.push(series as u8, 9, 1));
        }
        assert!(!stack.push(9, 9, 1));
        assert_eq!(stack.pop(9, 1), None);
        assert_eq!(stack.pop(3, 1), popped(3, 1, 0));
    }

    #[test]
    fn readers_and_writers_of_a_lock_are_told_apart() {
        let mut stack = SpinStack::default();
        stack.push(7, 9, 100);
        assert_eq!(stack.pop(6, 2), popped(7, 100, 0));
    }

    proptest! {
        #[test]
        fn properly_nested_waits_all_come_back(series in proptest::collection::vec(0u8..32, 0..=DEPTH)) {
            let mut stack = SpinStack::default();
            for (start, s) in series.iter().enumerate() {
                prop_assert!(stack.push(*s, 9, start as u64 + 1));
            }
            for (start, s) in series.iter().enumerate().rev() {
                prop_assert_eq!(stack.pop(*s, 1), popped(*s, start as u64 + 1, 0));
            }
        }
    }
}
