//! Every lock of the catalogue is found on the running kernel, by its data
//! symbol and again in text alone, and both find the same.

mod common;

use std::fmt::Write as _;

use lockprof::hooks::object;
use lockprof::kernel::topology::kernel_release;
use lockprof::locks::LockKind::{self, Mutex, Rwlock, Rwsem, Spinlock};
use lockprof::locks::catalogue::ENTRIES;
use lockprof::locks::choices::Choices;
use lockprof::locks::resolve::{Resolution, Sources, Unresolved, resolve};
use lockprof::locks::{Method, ResolvedLock};

/// Symbol, member and kind of a lock; `None` where there is no such lock.
type Name = Option<(&'static str, LockKind)>;

/// A lock of the catalogue, and its names with the version that brought each,
/// oldest first.
type History = (&'static str, &'static [(u32, u32, Name)]);

/// What mainline kernels call each lock.
///
/// Written by hand from the kernels' sources, not from the catalogue: it says
/// which of the catalogue's candidates each kernel has to choose, and so that
/// it does not choose the others.
const HISTORY: [History; 11] = [
    ("namespace_sem", &[(5, 10, Some(("namespace_sem", Rwsem)))]),
    (
        "mnt_id_lock",
        &[
            (5, 10, Some(("mnt_id_ida.xa.xa_lock", Spinlock))),
            (6, 14, Some(("mnt_id_xa.xa_lock", Spinlock))),
        ],
    ),
    ("mount_lock", &[(5, 10, Some(("mount_lock.lock", Spinlock)))]),
    (
        "shrinker_rwsem",
        &[(5, 10, Some(("shrinker_rwsem", Rwsem))), (6, 7, Some(("shrinker_mutex", Mutex)))],
    ),
    ("rcu_exp_mutex", &[(5, 10, Some(("rcu_state.exp_mutex", Mutex)))]),
    ("pcpu_alloc_mutex", &[(5, 10, Some(("pcpu_alloc_mutex", Mutex)))]),
    ("list_lrus_mutex", &[(5, 10, Some(("list_lrus_mutex", Mutex)))]),
    ("tasklist_lock", &[(5, 10, Some(("tasklist_lock", Rwlock)))]),
    (
        "ns_tree_lock",
        &[
            (5, 10, None),
            (6, 11, Some(("mnt_ns_tree_lock", Rwlock))),
            (6, 14, Some(("mnt_ns_tree_lock.lock", Spinlock))),
            (6, 18, Some(("mnt_ns_tree.ns_tree_lock.lock", Spinlock))),
            (6, 19, Some(("ns_tree_lock.lock", Spinlock))),
        ],
    ),
    ("sb_lock", &[(5, 10, Some(("sb_lock", Spinlock)))]),
    ("rename_lock", &[(5, 10, Some(("rename_lock.lock", Spinlock)))]),
];

/// What this kernel calls each lock, by [`HISTORY`].
fn expected() -> Vec<(&'static str, Name)> {
    let release = kernel_release();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().ok());
    let mut number = || numbers.next().flatten().expect("a release starts with two numbers");
    let running: (u32, u32) = (number(), number());
    HISTORY
        .iter()
        .map(|(lock, names)| {
            let current = names.iter().rfind(|(major, minor, _)| (*major, *minor) <= running);
            (*lock, current.expect("Linux 5.10 or later").2)
        })
        .collect()
}

/// Every lock of the catalogue.
fn all() -> Choices {
    let enable = ENTRIES.iter().map(|entry| entry.name.to_owned()).collect();
    Choices { enable, ..Choices::default() }
}

/// A line for people; addresses are nobody's business.
fn show(how: &str, resolutions: &[Resolution]) {
    let mut lines = String::new();
    for Resolution { name, outcome } in resolutions {
        let _ = match outcome {
            Ok(ResolvedLock { symbol, kind, method, .. }) => {
                writeln!(lines, "{how}: {name:<16} {method:<10} {kind:<9} {symbol}")
            }
            Err(Unresolved::Absent(why)) => writeln!(lines, "{how}: {name:<16} absent: {why}"),
            Err(Unresolved::NotFound(reasons)) => {
                let methods: Vec<_> = reasons.iter().map(|r| r.method.as_str()).collect();
                writeln!(lines, "{how}: {name:<16} not found by {}", methods.join(", "))
            }
        };
    }
    eprint!("{lines}");
}

/// Each lock has the name and kind that this kernel's sources give it, and one
/// that they do not have is known to be absent.
fn assert_expected(resolutions: &[Resolution], method: Method) {
    let names: Vec<_> = resolutions.iter().map(|r| r.name.as_str()).collect();
    let expected = expected();
    assert_eq!(names, expected.iter().map(|(lock, _)| *lock).collect::<Vec<_>>());
    for (resolution, (lock, name)) in resolutions.iter().zip(expected) {
        match (&resolution.outcome, name) {
            (Ok(found), Some(name)) => {
                assert_eq!((found.symbol.as_str(), found.kind), name, "{lock} by {method}");
                assert_eq!(found.method, method, "{lock}");
            }
            (Err(Unresolved::Absent(_)), None) => {}
            (outcome, name) => panic!("{lock} by {method}: {outcome:?} instead of {name:?}"),
        }
    }
}

#[test]
fn data_symbols_and_text_find_the_same_locks() {
    const TEST: &str = "data_symbols_and_text_find_the_same_locks";
    let choices = all();
    let mut sources = Sources::of_running_kernel(&choices, object::bytes());
    let kallsyms = match &sources.kallsyms {
        Ok(kallsyms) => kallsyms,
        Err(error) => return common::skip(TEST, &error.to_string()),
    };
    let has_data_symbols = kallsyms.has_data_symbols();
    if let Err(error) = (sources.open_text)() {
        return common::skip(TEST, &format!("{:#}", anyhow::Error::from(error)));
    }

    sources.use_data_symbols = false;
    let by_text = resolve(&choices, &sources).expect("the choices are fine");
    show("text alone", &by_text);

    sources.use_data_symbols = true;
    let by_symbols = resolve(&choices, &sources).expect("the choices are fine");
    show("all methods", &by_symbols);

    assert_expected(&by_text, Method::Text);
    if !has_data_symbols {
        return common::skip(
            &format!("{TEST} (comparison)"),
            "kallsyms has no data symbols (CONFIG_KALLSYMS_ALL is not set)",
        );
    }
    assert_expected(&by_symbols, Method::Kallsyms);
    for (symbol, text) in by_symbols.iter().zip(&by_text) {
        let address = |r: &Resolution| r.outcome.as_ref().ok().map(|lock| lock.address);
        // Not assert_eq: it would print addresses.
        assert!(address(symbol) == address(text), "{}: text leads elsewhere", symbol.name);
    }
}
