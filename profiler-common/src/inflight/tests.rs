use super::*;
use crate::inflight;

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering::SeqCst};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

impl Word for AtomicU64 {
    fn load(&self) -> u64 {
        self.load(SeqCst)
    }
    fn store(&self, value: u64) {
        self.store(value, SeqCst);
    }
    fn store_release(&self, value: u64) {
        self.store(value, SeqCst);
    }
    fn add(&self, value: u64) {
        self.fetch_add(value, SeqCst);
    }
}

impl Exchange for AtomicU64 {
    fn compare_exchange(&self, old: u64, new: u64) -> bool {
        self.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }
}

struct Lines(Vec<Line<AtomicU64>>);

impl Lines {
    fn new(lines: usize) -> Self {
        Self((0..lines).map(|_| Line::default()).collect())
    }

    fn displaced(&self) -> u64 {
        self.0.iter().map(|line| Word::load(&line.displaced)).sum()
    }

    fn occupied(&self) -> usize {
        self.0.iter().flat_map(|l| &l.slots).filter(|s| Word::load(&s.key) != 0).count()
    }
}

impl Table for Lines {
    type Word = AtomicU64;
    fn mask(&self) -> u32 {
        self.0.len() as u32 - 1
    }
    fn line(&self, index: u32) -> Option<&Line<AtomicU64>> {
        self.0.get(index as usize)
    }
    fn freed(&self, _position: u32) {}
}

impl Claim for Lines {
    fn claim(&self, slot: &Slot<AtomicU64>, _position: u32, key: Key) -> bool {
        Exchange::compare_exchange(&slot.key, 0, key.0)
    }
}

/// Begins a wait that nothing else gave way to.
fn begin_wait(
    table: &impl Claim,
    tid: u32,
    series: u8,
    node: u32,
    start_ns: u64,
    may_continue: bool,
) -> Begin {
    super::begin_wait(table, tid, series, node, start_ns, may_continue, None).0
}

/// Ends whatever wait the thread is in.
fn end_wait(table: &impl Table, tid: u32) -> Option<Wait> {
    super::end_wait(table, tid, |_| true, |_| 0)
}

/// Threads that begin to look in the same line of a table.
fn threads_of_one_line(table: &Lines) -> impl Iterator<Item = u32> + '_ {
    (1..).filter(|tid| first_line(*tid, table.mask()) == 0)
}

#[cfg(not(loom))]
mod alone {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_gives_back_what_it_was_made_of() {
        let key = Key::of_thread(u32::MAX).with_wait(200, 1023).with_call(16);
        assert_eq!(key.tid(), u32::MAX);
        assert_eq!((key.wait(), key.node(), key.call()), (Some(200), 1023, Some(16)));
        assert_eq!(key.without_wait().wait(), None);
        assert_eq!(key.without_wait().call(), Some(16));
        assert!(key.without_wait().without_call().is_idle());
        assert_ne!(Key::of_thread(0).0, 0, "thread 0 is not a free slot");
    }

    #[test]
    fn the_first_start_of_a_wait_for_a_mutex_stands() {
        let table = Lines::new(8);
        assert_eq!(begin_wait(&table, 10, 3, 1, 100, true), Begin::Started);
        assert!(waits(&table, 10, 3) && !waits(&table, 10, 4) && !waits(&table, 11, 3));
        assert_eq!(begin_wait(&table, 10, 3, 1, 200, true), Begin::Continued);
        let wait = Wait { series: 3, node: 1, start_ns: 100, call: InCall::NONE, blocker: 0 };
        assert_eq!(end_wait(&table, 10), Some(wait));
        assert_eq!(end_wait(&table, 10), None);
        assert_eq!(table.occupied(), 0);
    }

    #[test]
    fn a_wait_that_never_ended_is_replaced_and_said_so() {
        let table = Lines::new(8);
        begin_wait(&table, 10, 3, 1, 100, true);
        assert_eq!(begin_wait(&table, 10, 4, 0, 200, true), Begin::Replaced);
        assert_eq!(begin_wait(&table, 10, 4, 0, 300, false), Begin::Replaced, "no mutex");
        let wait = Wait { series: 4, node: 0, start_ns: 300, call: InCall::NONE, blocker: 0 };
        assert_eq!(end_wait(&table, 10), Some(wait));
    }

    #[test]
    fn a_wait_gives_way_to_what_it_turns_out_to_be() {
        let table = Lines::new(8);
        assert_eq!(begin_wait(&table, 10, 5, 0, 100, false), Begin::Started);
        let (begun, position) = inflight::begin_wait(&table, 10, 4, 0, 200, false, Some(5));
        assert_eq!(begun, Begin::Started, "nothing was lost");
        assert_eq!(inflight::end_wait(&table, 10, |series| series == 5, |at| at), None);
        let wait =
            Wait { series: 4, node: 0, start_ns: 200, call: InCall::NONE, blocker: position };
        assert_eq!(inflight::end_wait(&table, 10, |series| series == 4, |at| at), Some(wait));
    }

    #[test]
    fn a_wait_knows_the_call_that_it_is_part_of() {
        let table = Lines::new(8);
        let (outcome, position) = enter_call(&table, 10, 16);
        assert_eq!(outcome, Begin::Started);
        begin_wait(&table, 10, 3, 0, 100, false);
        assert_eq!(current_call(&table, 10), InCall::of(16));
        assert_eq!(current_call(&table, 11), InCall::NONE);
        assert_eq!(end_wait(&table, 10).and_then(|wait| wait.call.get()), Some(16));
        assert_eq!(exit_call(&table, 10, |call, at| Some((call, at))), Some((16, position)));
        assert_eq!(exit_call(&table, 10, |call, _| Some(call)), None);
        assert_eq!(table.occupied(), 0);
    }

    #[test]
    fn a_crowded_line_sends_tasks_on_and_finds_them_again() {
        let table = Lines::new(16);
        let threads: Vec<u32> = threads_of_one_line(&table).take(24).collect();
        for tid in &threads {
            assert_eq!(begin_wait(&table, *tid, 0, 0, 1, false), Begin::Started, "{tid}");
        }
        assert_eq!(table.displaced(), 21);
        let one_more = threads_of_one_line(&table).nth(24).unwrap();
        assert_eq!(begin_wait(&table, one_more, 0, 0, 1, false), Begin::Full);
        assert_eq!(end_wait(&table, one_more), None);
        for tid in &threads {
            assert!(end_wait(&table, *tid).is_some(), "{tid}");
        }
        assert_eq!((table.occupied(), table.displaced()), (0, 0));
    }

    #[test]
    fn a_task_elsewhere_is_not_forgotten_when_its_line_has_room_again() {
        let table = Lines::new(8);
        let threads: Vec<u32> = threads_of_one_line(&table).take(4).collect();
        for tid in &threads {
            enter_call(&table, *tid, 1);
        }
        exit_call(&table, threads[0], |call, _| Some(call));
        begin_wait(&table, threads[3], 2, 0, 7, false);
        assert_eq!(table.occupied(), 3, "one slot for each task");
        assert_eq!(end_wait(&table, threads[3]).unwrap().call.get(), Some(1));
    }

    #[test]
    fn a_slot_that_changes_hands_shows_no_start() {
        let table = Lines::new(8);
        begin_wait(&table, 5, 2, 0, 9, false);
        let slot = &table.0[first_line(5, 7) as usize].slots[0];
        let key = Key::of_thread(5).with_wait(2, 0);
        assert_eq!(observe(slot), Some((key, Some(9))));
        Word::store(&slot.wait_start_ns, 0);
        assert_eq!(observe(slot), Some((key, None)));
        assert_eq!(observe(&table.0[first_line(5, 7) as usize].slots[1]), None);
    }

    #[test]
    fn the_slot_of_a_task_that_is_gone_can_be_freed_once() {
        let table = Lines::new(8);
        let threads: Vec<u32> = threads_of_one_line(&table).take(4).collect();
        for tid in &threads {
            begin_wait(&table, *tid, 2, 0, 9, false);
        }
        // The fourth one is in the next line.
        let (slot, key) = (&table.0[1].slots[0], Key::of_thread(threads[3]).with_wait(2, 0));
        assert!(!reclaim(&table, 1, 0, slot, Key::of_thread(6).with_wait(2, 0)), "another task's");
        assert!(reclaim(&table, 1, 0, slot, key));
        assert!(!reclaim(&table, 1, 0, slot, key), "twice");
        assert_eq!(table.displaced(), 0);
        assert_eq!(Word::load(&slot.wait_start_ns), 0, "the next owner must not inherit it");
    }

    proptest! {
        #[test]
        fn any_order_of_events_leaves_what_a_simple_model_has(
            events in proptest::collection::vec((1u32..40, 0u8..4, 0u8..3), 1..200),
        ) {
            let table = Lines::new(16);
            let mut model = std::collections::HashMap::<u32, (Option<u8>, Option<u8>)>::new();
            for (tid, event, what) in events {
                let state = model.entry(tid).or_default();
                match event {
                    0 => {
                        prop_assert_ne!(begin_wait(&table, tid, what, 0, 1, false), Begin::Full);
                        state.0 = Some(what);
                    }
                    1 => {
                        let ended = end_wait(&table, tid);
                        prop_assert_eq!(ended.map(|w| (Some(w.series), w.call.get())),
                            state.0.map(|s| (Some(s), state.1)));
                        state.0 = None;
                    }
                    2 => {
                        prop_assert_ne!(enter_call(&table, tid, what).0, Begin::Full);
                        state.1 = Some(what);
                    }
                    _ => {
                        prop_assert_eq!(exit_call(&table, tid, |c, _| Some(c)), state.1);
                        state.1 = None;
                    }
                }
                let busy = model.values().filter(|s| s.0.is_some() || s.1.is_some()).count();
                prop_assert_eq!(table.occupied(), busy);
            }
        }
    }
}

#[cfg(loom)]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// A group in which all slots but one of the first line are taken.
    fn crowded() -> Lines {
        let table = Lines::new(8);
        let taken = Key::of_thread(1_000_000).0;
        for (number, line) in table.0.iter().enumerate() {
            for (index, slot) in line.slots.iter().enumerate() {
                if (number, index) != (0, 2) {
                    Word::store(&slot.key, taken);
                }
            }
        }
        table
    }

    #[test]
    fn two_tasks_that_claim_the_last_slot_never_both_get_it() {
        loom::model(|| {
            let table = Arc::new(crowded());
            let threads: Vec<u32> = threads_of_one_line(&table).take(2).collect();
            let (one, two) = (threads[0], threads[1]);
            let other = {
                let table = table.clone();
                thread::spawn(move || begin_wait(&*table, one, 0, 0, 11, false))
            };
            let mine = begin_wait(&*table, two, 0, 0, 22, false);
            let other = other.join().unwrap();
            let start = |tid| end_wait(&*table, tid).map(|wait| wait.start_ns);
            match (mine, other) {
                (Begin::Started, Begin::Full) => {
                    assert_eq!((start(two), start(one)), (Some(22), None))
                }
                (Begin::Full, Begin::Started) => {
                    assert_eq!((start(two), start(one)), (None, Some(11)))
                }
                outcome => panic!("{outcome:?}"),
            }
        });
    }

    #[test]
    fn a_reader_never_sees_one_tasks_start_under_another_tasks_key() {
        loom::model(|| {
            let table = Arc::new(crowded());
            let threads: Vec<u32> = threads_of_one_line(&table).take(2).collect();
            let (one, two) = (threads[0], threads[1]);
            let writer = {
                let table = table.clone();
                thread::spawn(move || {
                    assert_eq!(begin_wait(&*table, one, 0, 0, 11, false), Begin::Started);
                    assert_eq!(end_wait(&*table, one).map(|wait| wait.start_ns), Some(11));
                    assert_eq!(begin_wait(&*table, two, 0, 0, 22, false), Begin::Started);
                })
            };
            if let Some((key, Some(start))) = observe(&table.0[0].slots[2]) {
                assert_eq!(start, if key.tid() == one { 11 } else { 22 });
            }
            writer.join().unwrap();
        });
    }
}
