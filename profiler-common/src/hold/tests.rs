use std::cell::Cell;

use super::*;

struct Word(Cell<u64>);

impl StateWord for Word {
    fn load(&self) -> u64 {
        self.0.get()
    }

    fn exchange(&self, old: u64, new: u64) -> bool {
        let same = self.0.get() == old;
        if same {
            self.0.set(new);
        }
        same
    }

    fn set(&self, new: u64) {
        self.0.set(new);
    }
}

const WRITER: Rwsem = Rwsem { count: 0b11, owner: 0x1000 };
const NOBODY: Rwsem = Rwsem { count: 0b10, owner: 0 };
const TWO_READERS: Rwsem = Rwsem { count: 0x202, owner: 0x1003 };
const READERS_GONE: Rwsem = Rwsem { count: 0x002, owner: 0x1003 };

fn free() -> Word {
    Word(Cell::new(FREE))
}

#[test]
fn a_hold_begins_with_the_first_that_queues() {
    let word = free();
    queued(&word, || 1600, || Holder::Task(7));
    queued(&word, || 3200, || Holder::Task(7));
    assert_eq!(released(&word, 7, 16_000, || Some(NOBODY)), Released::Exclusive(14_400));
    assert_eq!(word.load(), UNKNOWN, "somebody is queued and nobody holds");
}

#[test]
fn a_hold_begins_with_the_acquisition_if_others_are_queued() {
    let word = Word(Cell::new(UNKNOWN));
    acquired(&word, 7, || 1600, || Some(true));
    queued(&word, || 3200, || Holder::Task(7));
    acquired_perhaps_again(&word, 7, || 4800, || Some(true));
    assert_eq!(released(&word, 7, 16_000, || None), Released::Exclusive(14_400));
}

#[test]
fn an_acquisition_with_nobody_queued_leaves_the_lock_free_for_the_next_that_queues() {
    let word = Word(Cell::new(UNKNOWN));
    acquired(&word, 7, || 1600, || Some(false));
    assert_eq!(word.load(), FREE);
    queued(&word, || 3200, || Holder::Task(7));
    assert_eq!(released(&word, 7, 4800, || None), Released::Exclusive(1600));
}

#[test]
fn before_the_first_acquisition_that_is_seen_nothing_is_known() {
    let word = Word(Cell::new(0));
    queued(&word, || 1600, || Holder::Task(7));
    assert_eq!(released(&word, 7, 3200, || None), Released::Unmeasured);
}

#[test]
fn a_release_that_comes_after_the_next_acquisition_is_unknown_and_the_next_is_not() {
    let word = free();
    queued(&word, || 1600, || Holder::Task(7));
    acquired(&word, 8, || 3200, || Some(true));
    assert_eq!(released(&word, 7, 3300, || None), Released::Unmeasured);
    assert_eq!(released(&word, 8, 4800, || None), Released::Exclusive(1600));
}

#[test]
fn who_acquires_unseen_is_not_charged_with_another_hold() {
    let word = free();
    queued(&word, || 1600, || Holder::Task(7));
    assert_eq!(released(&word, 7, 3200, || Some(NOBODY)), Released::Exclusive(1600));
    // Thread 9 took it by spinning.
    queued(&word, || 4800, || Holder::Task(9));
    assert_eq!(released(&word, 9, 6400, || Some(NOBODY)), Released::Unmeasured);
}

#[test]
fn a_waiter_that_gave_up_ends_what_is_known() {
    let word = free();
    queued(&word, || 1600, || Holder::Task(7));
    gave_up(&word);
    queued(&word, || 4800, || Holder::Task(7));
    assert_eq!(released(&word, 7, 6400, || None), Released::Unmeasured);
}

#[test]
fn a_release_before_the_event_of_who_queued_is_unknown_and_so_is_the_next() {
    let word = free();
    assert_eq!(released(&word, 7, 1600, || None), Released::Unmeasured);
    queued(&word, || 1700, || Holder::Task(8));
    assert_eq!(released(&word, 8, 3200, || None), Released::Unmeasured);
}

#[test]
fn one_that_queued_with_a_holder_of_the_past_makes_the_acquisition_unknown() {
    let word = Word(Cell::new(UNKNOWN));
    acquired(
        &word,
        8,
        || 3200,
        || {
            queued(&word, || 1600, || Holder::Task(7));
            Some(true)
        },
    );
    assert_eq!(word.load(), UNKNOWN);
}

#[test]
fn readers_hold_until_the_last_of_them_releases() {
    let word = free();
    queued(&word, || 1600, || Holder::Readers);
    acquired_shared(&word, || 2000, || Some(TWO_READERS));
    assert_eq!(released(&word, 7, 3200, || Some(TWO_READERS)), Released::OneOfReaders);
    assert_eq!(released(&word, 8, 4800, || Some(READERS_GONE)), Released::LastReader(3200));
    assert_eq!(released(&word, 9, 4900, || Some(READERS_GONE)), Released::Unmeasured);
}

#[test]
fn readers_that_are_let_in_while_a_writer_is_queued_hold_from_then_on() {
    let word = Word(Cell::new(UNKNOWN));
    acquired_shared(&word, || 1600, || Some(TWO_READERS));
    acquired_shared(&word, || 3200, || Some(TWO_READERS));
    assert_eq!(released(&word, 7, 4800, || Some(READERS_GONE)), Released::LastReader(3200));
}

#[test]
fn a_writer_that_was_not_seen_to_acquire_is_not_taken_for_the_last_reader() {
    for rwsem in [NOBODY, WRITER] {
        let word = free();
        queued(&word, || 1600, || Holder::Readers);
        assert_eq!(released(&word, 9, 3200, || Some(rwsem)), Released::Unmeasured);
        assert_eq!(word.load(), UNKNOWN);
    }
}

#[test]
fn a_writer_that_becomes_a_reader_ends_its_hold_and_begins_one_of_readers() {
    let word = free();
    queued(&word, || 1600, || Holder::Task(7));
    assert_eq!(released(&word, 7, 3200, || Some(TWO_READERS)), Released::Exclusive(1600));
    assert_eq!(released(&word, 7, 4800, || Some(READERS_GONE)), Released::LastReader(1600));
}

#[test]
fn the_holder_of_a_rwsem_is_told_only_where_it_is_sure() {
    assert_eq!(WRITER.writer_task(), 0x1000);
    assert!(!WRITER.readers());
    assert!(TWO_READERS.readers());
    // A writer that has not put its name yet; and a reader that is backing out.
    assert_eq!(Rwsem { owner: 0x2003, ..WRITER }.writer_task(), 0);
    assert!(!Rwsem { count: 0x102, owner: 0 }.readers());
    assert_eq!((mutex::task(0x1003), mutex::task(0x5)), (0x1000, 0));
}

#[test]
fn times_and_threads_come_back_from_the_word() {
    for now in [0, 15, 16, 1 << 45, (1 << 46) - 1, 1 << 46, u64::MAX - 1_000_000] {
        for who in [Holder::Task(1), Holder::Task((1 << 22) - 1), Holder::Readers] {
            let word = held_since(who, now);
            assert!(word > FREE);
            assert_eq!(holder(word), who);
            let elapsed = elapsed_ns(word, now + 1_000_000).unwrap();
            // Readers do without two values of the time.
            assert!(elapsed.abs_diff(1_000_000) <= 32, "{elapsed}");
        }
        assert_eq!(elapsed_ns(held_since(Holder::Task(1), now + 1_000_000), now), None);
    }
    assert_eq!(held_since(Holder::Task(0), 1), UNKNOWN);
}
