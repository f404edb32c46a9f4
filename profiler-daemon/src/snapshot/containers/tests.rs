use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::locks::Mode;
use crate::snapshot::{
    Basis, Blocker, Cgroup, Charge, LockWaits, Party, Runtime, Times, Waiter, Who,
};

const LOCKS: [&str; 2] = ["namespace_sem", "mount_lock"];
const MINUTE_NS: u64 = 60 * SECOND_NS;

/// Whose a row is, as the kernel side knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Whose {
    /// Tasks in a cgroup of a container: number of the container, of the cgroup.
    Container(u8, u8),
    Host,
    /// Nobody in particular: `other` and `unknown` of the table of charges.
    Nobody,
}

/// A table of charges with its rows, as a snapshot shows it.
#[derive(Default)]
struct Machine {
    now_ns: u64,
    /// By role, lock, whose and one of two modes or bases.
    rows: BTreeMap<(usize, usize, Whose, bool), u64>,
    evicted: [[u64; 2]; 2],
    /// Cgroups whose path is not known yet.
    unnamed: Vec<Whose>,
    /// What each container really had, by role and lock.
    truth: HashMap<(usize, usize, Name), u64>,
}

impl Machine {
    fn charge(&mut self, role: usize, lock: usize, whose: Whose, other_mode: bool, ns: u64) {
        *self.rows.entry((role, lock, whose, other_mode)).or_default() += ns;
        if let Whose::Container(number, _) = whose {
            *self.truth.entry((role, lock, id(number))).or_default() += ns;
        }
    }

    /// As a waiter and, for the same time, as a blocker.
    fn wait(&mut self, container: u8, ns: u64) {
        self.charge(0, 0, Whose::Container(container, 0), false, ns);
        self.charge(1, 0, Whose::Container(container, 0), false, ns);
    }

    fn evict(&mut self, whose: Whose) {
        let evicted = &mut self.evicted;
        self.rows.retain(|(role, lock, row, _), ns| {
            let stays = *row != whose || whose == Whose::Nobody;
            evicted[*role][*lock] += if stays { 0 } else { *ns };
            stays
        });
    }

    fn total(&self, role: usize, lock: usize) -> u64 {
        let of_lock = self.rows.iter().filter(|((r, l, _, _), _)| (*r, *l) == (role, lock));
        of_lock.map(|(_, ns)| ns).sum::<u64>() + self.evicted[role][lock]
    }

    fn party(&self, whose: Whose) -> Party {
        let (id, path, container) = match whose {
            Whose::Nobody => return Party::Other,
            Whose::Host => (1, "/init.scope".to_owned(), None),
            Whose::Container(number, cgroup) => {
                let container = container(number);
                let path = format!("/docker/{}/{cgroup}", container.id);
                (2 + 10 * u64::from(number) + u64::from(cgroup), path, Some(container))
            }
        };
        let cgroup = if self.unnamed.contains(&whose) {
            Cgroup { id, ..Cgroup::default() }
        } else {
            Cgroup { id, path: path.into(), container }
        };
        let who = Who { task: "runc".into(), runtime: Runtime::Runc, cgroup: Some(cgroup) };
        Party::Task(who)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        let mut snapshot = Snapshot { duration_ns: self.now_ns, ..Snapshot::default() };
        let mut add = |role: usize, lock: usize, other_mode, party, sum_ns| {
            let (lock, waits) = (LOCKS[lock].to_owned(), Charge { count: 1, sum_ns, max_ns: 0 });
            if role == 0 {
                let mode = Some(if other_mode { Mode::Read } else { Mode::Write });
                snapshot.waiters.push(Waiter { lock, mode, call: None, party, waits });
            } else {
                let basis = if other_mode { Basis::Owner } else { Basis::ReaderHint };
                snapshot.blockers.push(Blocker { lock, basis, call: None, party, waits });
            }
        };
        for ((role, lock, whose, other_mode), ns) in &self.rows {
            add(*role, *lock, *other_mode, self.party(*whose), *ns);
        }
        for (role, locks) in self.evicted.iter().enumerate() {
            for (lock, ns) in locks.iter().enumerate() {
                add(role, lock, false, Party::Evicted { runtime: Runtime::Runc }, *ns);
            }
        }
        snapshot.locks.extend(LOCKS.map(|lock| LockWaits {
            lock: lock.into(),
            mode: Mode::Read,
            numa_node: 0,
            waits: Times::default(),
            migrated: 0,
            failed: 0,
        }));
        Arc::new(snapshot)
    }

    /// What `top` makes of the machine after some more time.
    fn after(&mut self, elapsed_ns: u64, top: &mut TopContainers) -> Arc<ContainerTimes> {
        self.now_ns += elapsed_ns;
        top.update(&self.snapshot())
    }
}

fn id(number: u8) -> Name {
    match number {
        // Names of LXC containers are free to choose.
        8 => NONE.into(),
        9 => OTHER.into(),
        number => format!("{number}").into(),
    }
}

fn container(number: u8) -> Container {
    Container { manager: "docker".into(), id: id(number), pod_uid: None, qos: None }
}

fn of<'a>(times: &'a ContainerTimes, container: &str) -> Option<&'a ContainerTime> {
    times.rows.iter().find(|row| row.lock == LOCKS[0] && row.container.as_str() == container)
}

fn waited(times: &ContainerTimes, container: &str) -> Option<u64> {
    of(times, container).map(|row| row.waited_ns)
}

fn selected(times: &ContainerTimes) -> Vec<&str> {
    times.selected.iter().map(|container| container.id.as_str()).collect()
}

#[test]
fn a_newcomer_starts_at_zero_and_its_past_stays_with_other() {
    let (mut machine, mut top) = (Machine::default(), TopContainers::new(1));
    machine.wait(1, 100);
    let times = machine.after(SECOND_NS, &mut top);
    assert_eq!((waited(&times, "1"), waited(&times, OTHER)), (Some(0), Some(100)));
    machine.wait(1, 7);
    let times = machine.after(SECOND_NS, &mut top);
    assert_eq!((waited(&times, "1"), waited(&times, OTHER)), (Some(7), Some(100)));
    assert_eq!(of(&times, "1").unwrap().blocked_ns, 7);
    assert_eq!(times.rows.len(), LOCKS.len() * 3, "locks nobody waited for are there as well");
}

#[test]
fn a_container_is_displaced_by_a_clearly_larger_one_after_its_stay_and_leaves_its_time_to_other() {
    let (mut machine, mut top) = (Machine::default(), TopContainers::new(1));
    machine.wait(1, 100);
    machine.after(SECOND_NS, &mut top);
    machine.wait(1, 100);
    machine.wait(2, 10_000);
    assert_eq!(selected(&machine.after(SECOND_NS, &mut top)), ["1"], "not before its stay");
    machine.wait(1, 6_000);
    let times = machine.after(STAY_NS, &mut top);
    assert_eq!(selected(&times), ["1"], "one that stands still displaces nobody");
    machine.wait(2, 10);
    assert_eq!(selected(&machine.after(SECOND_NS, &mut top)), ["1"], "not twice as much");
    machine.wait(2, 10_000);
    let times = machine.after(SECOND_NS, &mut top);
    assert_eq!(selected(&times), ["2"]);
    assert_eq!((waited(&times, "1"), waited(&times, "2")), (None, Some(0)));
    assert_eq!(waited(&times, OTHER), Some(100 + 6_100 + 20_010));
}

#[test]
fn a_container_that_is_gone_gives_its_series_up_after_a_while() {
    let (mut machine, mut top) = (Machine::default(), TopContainers::new(2));
    machine.wait(1, 5);
    machine.after(SECOND_NS, &mut top);
    machine.evict(Whose::Container(1, 0));
    assert_eq!(selected(&machine.after(IDLE_NS - 1, &mut top)), ["1"]);
    let times = machine.after(1, &mut top);
    assert!(times.selected.is_empty());
    assert_eq!(waited(&times, OTHER), Some(5));
}

#[test]
fn what_was_evicted_remains_where_it_was_counted() {
    let (mut machine, mut top) = (Machine::default(), TopContainers::new(1));
    machine.wait(1, 1);
    machine.after(SECOND_NS, &mut top);
    machine.wait(1, 40);
    machine.charge(0, 0, Whose::Host, false, 3);
    machine.after(SECOND_NS, &mut top);
    machine.evict(Whose::Container(1, 0));
    machine.evict(Whose::Host);
    machine.wait(1, 2);
    let times = machine.after(SECOND_NS, &mut top);
    assert_eq!((waited(&times, "1"), waited(&times, NONE)), (Some(40), Some(3)));
    assert_eq!(waited(&times, OTHER), Some(1 + 2), "less than the row had before: not told apart");
    machine.wait(1, 5);
    assert_eq!(waited(&machine.after(SECOND_NS, &mut top), "1"), Some(45));
}

#[test]
fn a_cgroup_counts_as_other_until_its_path_is_known() {
    let (mut machine, mut top) = (Machine::default(), TopContainers::new(1));
    machine.unnamed = vec![Whose::Container(1, 0), Whose::Host];
    machine.wait(1, 5);
    machine.charge(0, 0, Whose::Host, false, 3);
    let times = machine.after(SECOND_NS, &mut top);
    assert_eq!((waited(&times, NONE), waited(&times, OTHER)), (Some(0), Some(8)));
    machine.unnamed.clear();
    machine.wait(1, 5);
    machine.charge(0, 0, Whose::Host, false, 4);
    let times = machine.after(SECOND_NS, &mut top);
    assert_eq!((waited(&times, NONE), waited(&times, OTHER)), (Some(4), Some(13)));
    assert_eq!(selected(&times), ["1"]);
}

#[test]
fn the_past_counts_less_and_less() {
    let (mut machine, mut top) = (Machine::default(), TopContainers::new(1));
    machine.wait(1, 1);
    machine.after(SECOND_NS, &mut top);
    machine.wait(1, 1_000_000);
    machine.after(SECOND_NS, &mut top);
    machine.wait(2, 110_000);
    assert_eq!(selected(&machine.after(20 * MINUTE_NS, &mut top)), ["1"], "1/4 of it");
    machine.wait(2, 110_000);
    assert_eq!(selected(&machine.after(20 * MINUTE_NS, &mut top)), ["2"], "1/16 of it");
}

#[test]
fn fewer_containers_keep_the_largest_and_none_end_all_series() {
    let (mut machine, mut top) = (Machine::default(), TopContainers::new(3));
    for (number, ns) in [(1, 10), (2, 30), (3, 20)] {
        machine.wait(number, ns);
    }
    assert_eq!(selected(&machine.after(SECOND_NS, &mut top)), ["1", "2", "3"]);
    top.select_at_most(1);
    assert_eq!(selected(&machine.after(SECOND_NS, &mut top)), ["2"]);
    top.select_at_most(0);
    assert_eq!(*machine.after(SECOND_NS, &mut top), ContainerTimes::default());
}

#[test]
fn an_older_snapshot_changes_nothing() {
    let (mut machine, mut top) = (Machine::default(), TopContainers::new(1));
    machine.wait(1, 10);
    let older = machine.snapshot();
    machine.wait(1, 10);
    let times = machine.after(SECOND_NS, &mut top);
    assert_eq!(top.update(&older), times);
    assert_eq!(top.update(&machine.snapshot()), times);
}

#[derive(Clone, Debug)]
enum Step {
    Charge { role: usize, lock: usize, whose: Whose, other_mode: bool, ns: u64 },
    Evict(Whose),
    Name(usize),
    SelectAtMost(u32),
    Snapshot { elapsed_ns: u64 },
}

fn whose() -> impl Strategy<Value = Whose> {
    prop_oneof![
        8 => (0..10u8, 0..2u8).prop_map(|(number, cgroup)| Whose::Container(number, cgroup)),
        1 => Just(Whose::Host),
        1 => Just(Whose::Nobody),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let charge = (0..2usize, 0..2usize, whose(), any::<bool>(), 0..1_000_000u64).prop_map(
        |(role, lock, whose, other_mode, ns)| Step::Charge { role, lock, whose, other_mode, ns },
    );
    prop_oneof![
        8 => charge,
        2 => whose().prop_map(Step::Evict),
        1 => any::<prop::sample::Index>().prop_map(|index| Step::Name(index.index(20))),
        1 => (1..4u32).prop_map(Step::SelectAtMost),
        5 => (0..20 * MINUTE_NS).prop_map(|elapsed_ns| Step::Snapshot { elapsed_ns }),
    ]
}

proptest! {
    #[test]
    fn counters_never_go_back_and_add_up_to_the_totals_of_their_lock(
        most in 1..4u32,
        unnamed in proptest::collection::vec(whose(), 0..20),
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let mut machine = Machine { unnamed, ..Machine::default() };
        let (mut top, mut most) = (TopContainers::new(most), most as usize);
        let mut before: HashMap<(String, Name), [u64; 2]> = HashMap::new();
        for step in steps {
            match step {
                Step::Charge { role, lock, whose, other_mode, ns } => {
                    machine.charge(role, lock, whose, other_mode, ns);
                }
                Step::Evict(whose) => machine.evict(whose),
                Step::Name(index) if index < machine.unnamed.len() => {
                    machine.unnamed.swap_remove(index);
                }
                Step::Name(_) => {}
                Step::SelectAtMost(fewer) => {
                    top.select_at_most(fewer);
                    most = fewer as usize;
                }
                Step::Snapshot { elapsed_ns } => {
                    let times = machine.after(elapsed_ns + 1, &mut top);
                    prop_assert!(times.rows.len() <= LOCKS.len() * (most + 2));
                    prop_assert!(times.selected.len() <= most);
                    let mut sums = [[0; 2]; 2];
                    let mut now = HashMap::new();
                    for row in &times.rows {
                        let lock = LOCKS.iter().position(|lock| *lock == row.lock).unwrap();
                        let figures = [row.waited_ns, row.blocked_ns];
                        let key = (row.lock.clone(), row.container.clone());
                        let earlier = before.get(&key).copied().unwrap_or_default();
                        for (role, ns) in figures.into_iter().enumerate() {
                            sums[role][lock] += ns;
                            prop_assert!(ns >= earlier[role], "{key:?} went back");
                            if !is_reserved(&row.container) {
                                let truth = (role, lock, row.container.clone());
                                prop_assert!(ns <= machine.truth.get(&truth).copied().unwrap_or(0));
                            }
                        }
                        prop_assert!(now.insert(key, figures).is_none(), "a series twice");
                    }
                    for (role, locks) in sums.iter().enumerate() {
                        for (lock, sum) in locks.iter().enumerate() {
                            prop_assert_eq!(*sum, machine.total(role, lock));
                        }
                    }
                    before = now;
                }
            }
        }
    }
}
