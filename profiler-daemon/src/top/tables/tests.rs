use std::time::{Duration, Instant};

use super::*;
use crate::snapshot::Snapshot;
use crate::top::fixture::{Fixture, totals_of};
use crate::top::state::Update;
use crate::top::window::Windows;

fn of(totals: &[Snapshot]) -> State {
    let mut state = State::new(["a".to_owned()], Duration::from_secs(1), Instant::now());
    let mut windows = Windows::default();
    for totals in totals {
        let window = windows.next(totals.clone()).expect("the totals moved");
        state.receive(0, Update::Window(Box::new(window)));
    }
    state
}

fn rich() -> State {
    of(&[totals_of(Fixture::Before), totals_of(Fixture::Rich)])
}

fn texts(table: &Table, column: &str) -> Vec<String> {
    let at = table.columns.iter().position(|c| c.title == column).expect(column);
    table.rows.iter().map(|row| row.cells[at].as_text().to_owned()).collect()
}

#[test]
fn the_lock_that_is_waited_for_most_comes_first_with_both_nodes_added() {
    let table = table(&rich(), Tab::Locks);
    assert_eq!(texts(&table, "LOCK")[..2], ["namespace_sem", "namespace_sem"]);
    assert_eq!(texts(&table, "MODE")[..3], ["write", "read", "spin"]);
    // 120 * 2 ms + 40 * 14 ms + 3 * 480 ms, and 30 * 9 ms + 1200 ms.
    assert_eq!(texts(&table, "WAITED")[0], "371%");
    assert_eq!(texts(&table, "WAITS/S")[0], "194");
    assert_eq!(texts(&table, "MAX")[0], "1.20s");
    assert_eq!(texts(&table, "NOW")[..3], ["14", "14", "1"]);
    assert_eq!(texts(&table, "OLDEST")[0], "640ms");
}

#[test]
fn any_column_sorts_and_names_go_from_a_to_z() {
    let mut state = rich();
    for column in 0..table(&state, Tab::Locks).columns.len() {
        state.list_mut().sort = Some((column, true));
        let down = table(&state, Tab::Locks);
        state.list_mut().sort = Some((column, false));
        let up = table(&state, Tab::Locks);
        for (table, descending) in [(&down, true), (&up, false)] {
            for pair in table.rows.windows(2) {
                let order = pair[0].cells[column].compare(&pair[1].cells[column]);
                assert_ne!(order, if descending { Ordering::Less } else { Ordering::Greater });
            }
        }
    }
    state.list_mut().sort = Some((0, true));
    assert_eq!(texts(&table(&state, Tab::Locks), "LOCK")[0], "mount_lock");
}

#[test]
fn a_filter_finds_text_in_any_column_and_in_any_case() {
    let mut state = rich();
    state.filter = "RUNC".into();
    let found = table(&state, Tab::Waiters);
    assert_eq!(found.rows.len(), 2);
    assert_eq!(found.hidden, 4);
    state.filter = "nowhere".into();
    let none = table(&state, Tab::Waiters);
    assert!(none.rows.is_empty() && none.empty.contains("nowhere"), "{}", none.empty);
}

#[test]
fn a_choice_stays_with_its_row_when_the_order_changes() {
    let mut state = rich();
    let before = table(&state, Tab::Locks);
    let id = before.rows[2].id.clone();
    state.list_mut().selected = Some(id.clone());
    state.list_mut().sort = Some((0, true));
    let after = table(&state, Tab::Locks);
    let at = after.position(Some(&id));
    assert_ne!(at, 2);
    assert_eq!(after.rows[at].id, id);
    assert_eq!(after.position(Some("gone")), 0);
}

#[test]
fn waiters_and_blockers_can_be_those_of_one_lock() {
    let mut state = rich();
    for tab in [Tab::Waiters, Tab::Blockers] {
        state.scope = None;
        let all = table(&state, tab);
        assert!(all.rows.len() > 1);
        state.scope = Some("mount_lock".into());
        let one = table(&state, tab);
        assert_eq!(texts(&one, "LOCK"), ["mount_lock"]);
        assert_eq!(texts(&one, "SHARE"), ["100%"], "shares are of what is listed");
    }
    state.scope = Some("sb_lock".into());
    assert!(table(&state, Tab::Slow).empty.contains("`l` shows all locks"));
}

#[test]
fn slow_waits_of_the_seconds_before_stay_listed() {
    let rich = totals_of(Fixture::Rich);
    let mut later = rich.clone();
    later.duration_ns += 1_000_000_000;
    let state = of(&[rich, later]);
    assert!(state.shown().unwrap().window.slow_waits.as_ref().unwrap().recent.is_empty());
    let table = table(&state, Tab::Slow);
    assert_eq!(table.rows.len(), 3);
    assert_eq!(texts(&table, "ENDED (UTC)")[0], "13:40:03.010");
    assert_eq!(texts(&table, "WAITED"), ["1.20s", "90.0ms", "14.0ms"]);
}

#[test]
fn each_call_says_how_much_of_its_time_is_waiting() {
    let table = table(&rich(), Tab::Calls);
    assert_eq!(texts(&table, "CALL"), ["mount", "mountinfo_read", "umount2", "pivot_root"]);
    // 2179 of 2890 ms, both nodes together.
    assert_eq!(texts(&table, "LOCKS")[0], "75%");
    let mostly = ["namespace_sem", "namespace_sem", "namespace_sem", ""];
    assert_eq!(texts(&table, "MOSTLY"), mostly);
    // 420 of 619 ms; of reads of mount tables there is no histogram.
    assert_eq!(texts(&table, "LOCKS")[1], "68%");
    assert_eq!(texts(&table, "P99")[1], "");
    assert_eq!(texts(&table, "ERR")[2], "4");
}

#[test]
fn what_was_lost_or_is_missing_comes_before_what_is_fine() {
    let table = table(&rich(), Tab::Hooks);
    let names = texts(&table, "NAME");
    assert_eq!(names[..3], ["recursion_miss", "sb_lock", "contended_release"]);
    assert_eq!(texts(&table, "STATE")[0], "12 in window, 12 in all");
    assert_eq!(table.rows.len(), 3 + 3 + 5);
}

#[test]
fn what_a_kernel_refuses_is_said_in_words() {
    let state = of(&[totals_of(Fixture::Bare)]);
    for (tab, said) in [
        (Tab::Waiters, "by whom is not observed"),
        (Tab::Blockers, "by whom is not observed"),
        (Tab::Calls, "not measured there"),
        (Tab::Mounts, "refuses hooks on show_mountinfo"),
        (Tab::Slow, "not recorded there"),
        (Tab::Cpu, "not sampled there"),
    ] {
        let table = table(&state, tab);
        assert!(table.rows.is_empty() && table.empty.contains(said), "{tab:?}: {}", table.empty);
    }
}

#[test]
fn nothing_happened_is_told_apart_from_not_observed() {
    let mut before = totals_of(Fixture::Before);
    before.duration_ns -= 5;
    let state = of(&[before, totals_of(Fixture::Before)]);
    for (tab, said) in [
        (Tab::Waiters, "Nobody waited"),
        (Tab::Blockers, "Nobody made others wait"),
        (Tab::Calls, "No mount call returned"),
        (Tab::Mounts, "Nobody read"),
        (Tab::Slow, "No wait took 10.0ms"),
    ] {
        let table = table(&state, tab);
        assert!(table.empty.contains(said), "{tab:?}: {}", table.empty);
    }
}

#[test]
fn several_hosts_have_a_column_each_and_the_worst_sorts() {
    let mut state =
        State::new(["a", "b", "c"].map(str::to_owned), Duration::from_secs(1), Instant::now());
    for (host, name, factor) in [(0, "web-1", 1), (1, "web-2", 10)] {
        let mut windows = Windows::default();
        let mut first = totals_of(Fixture::Before);
        first.host.name = name.into();
        let mut second = totals_of(Fixture::Rich);
        second.host.name = name.into();
        second.locks.iter_mut().for_each(|row| row.waits.sum_ns *= factor);
        for totals in [first, second] {
            let window = windows.next(totals).unwrap();
            state.receive(host, Update::Window(Box::new(window)));
        }
    }
    let by_host = table(&state, Tab::Locks);
    let titles: Vec<_> = by_host.columns.iter().map(|c| c.title.as_str()).collect();
    assert_eq!(titles, ["LOCK", "MODE", "WAITED", "*web-1", "web-2", "c"]);
    let first: Vec<_> = by_host.rows[0].cells[2..].iter().map(Cell::as_text).collect();
    assert_eq!(first, ["3710%", "371%", "3710%", "no data"]);
    state.metric = Metric::Now;
    let now = table(&state, Tab::Locks);
    assert_eq!(now.rows[0].cells[2].as_text(), "14");
    assert_eq!(now.columns[2].title, "NOW");
}

#[test]
fn where_a_party_lives_is_short_and_never_empty_for_a_cgroup() {
    use crate::snapshot::{Cgroup, Party, Runtime, Who};
    let state = rich();
    let waiters = &state.shown().unwrap().window.waiters;
    assert_eq!(place(&waiters[0].party), "containerd/3fa1b2c4d5e6");
    assert_eq!(place(&waiters[1].party), "init.scope");
    let of = |path: &str| {
        let cgroup = Some(Cgroup { id: 77, path: path.into(), container: None });
        place(&Party::Task(Who { task: "x".into(), runtime: Runtime::Other, cgroup }))
    };
    assert_eq!([of(""), of("/"), of("/a/b/")], ["gone (77)", "/", "b"]);
    assert_eq!(place(&Party::Unknown), "");
}
