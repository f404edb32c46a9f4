//! Cgroups of this machine: made, looked up by id, removed.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::cgroups::Folder;
use lockprof::who::{Cgroups, Hierarchy, Limits};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

const MOUNTED: &str = "/sys/fs/cgroup";

/// The hierarchies of this machine where cgroups can be made, each with one of
/// our own in it; or a skip of `test` with the reason why there is none.
fn hierarchies(test: &str) -> Vec<(Hierarchy, Folder)> {
    let mounted = Path::new(MOUNTED);
    let mut all: Vec<Hierarchy> = Hierarchy::find(mounted).into_iter().collect();
    // Hierarchies of v1 beside it, and that of v2 in hybrid mode.
    all.extend(Hierarchy::find(&mounted.join("unified")));
    let mut refusal = format!("there is no hierarchy at {MOUNTED}");
    let mut usable: Vec<(Hierarchy, Folder)> = Vec::new();
    for hierarchy in all {
        if usable.iter().any(|(known, _)| *known == hierarchy) {
            continue;
        }
        let name = format!("lockprof-{test}-{}", std::process::id());
        let folder = hierarchy.root.join(name);
        match Folder::at(folder.clone()) {
            Ok(folder) => usable.push((hierarchy, folder)),
            Err(why) => refusal = format!("{}: {why}", folder.display()),
        }
    }
    if usable.is_empty() {
        common::skip(test, &format!("no cgroup can be made: {refusal}"));
    }
    usable
}

/// Whether handles of cgroups can be opened: as root, from Linux 5.5.
fn may_open_handles() -> bool {
    let own = capabilities(None).expect("our own");
    own.effective.contains(CapabilitySet::DAC_READ_SEARCH)
}

/// Without the capability that handles need; it is a thread's own.
fn without_handles<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut own = capabilities(None).expect("our own");
            own.effective.remove(CapabilitySet::DAC_READ_SEARCH);
            set_capabilities(None, own).expect("it can be given up");
            work()
        });
        worker.join().expect("it does not panic")
    })
}

fn at(hierarchy: &Hierarchy, limits: Limits) -> Cgroups {
    Cgroups::at(hierarchy.clone(), limits).expect("the root can be opened")
}

fn below(hierarchy: &Hierarchy, path: &Path) -> String {
    format!("/{}", path.strip_prefix(&hierarchy.root).expect("below").to_str().expect("UTF-8"))
}

/// A limit that only a walk which finds nothing else can stay below.
fn no_walks() -> Limits {
    Limits { walk: 0, between_walks: Duration::MAX, ..Limits::default() }
}

fn walks() -> Limits {
    Limits { between_walks: Duration::ZERO, ..Limits::default() }
}

/// Looks `id` up by the handle alone and by a walk alone.
fn both_ways(hierarchy: &Hierarchy) -> Vec<(&'static str, Cgroups)> {
    let mut ways = vec![("walk", at(hierarchy, walks()))];
    if may_open_handles() {
        ways.push(("handle", at(hierarchy, no_walks())));
    }
    ways
}

fn looked_up(way: &str, cgroups: &Cgroups, id: u64) -> lockprof::snapshot::Cgroup {
    let found = match way {
        "walk" => without_handles(|| cgroups.look_up(id)),
        _ => cgroups.look_up(id),
    };
    found.unwrap_or_else(|| panic!("{id} is not known by {way}"))
}

fn is_alive(way: &str, cgroups: &Cgroups, id: u64) -> bool {
    match way {
        "walk" => without_handles(|| cgroups.is_alive(id)),
        _ => cgroups.is_alive(id),
    }
}

#[test]
fn a_cgroup_is_named_by_its_id_and_keeps_the_name_when_it_is_removed() {
    for (hierarchy, folder) in hierarchies("named") {
        for (way, cgroups) in both_ways(&hierarchy) {
            let container = format!("docker-{}.scope", "0123456789abcdef".repeat(4));
            let (outer, outer_path) = folder.add(&container);
            let (inner, inner_path) = folder.add(Path::new(&container).join("init.scope"));
            assert_eq!(cgroups.get(inner), None, "{way}: nothing is known before it is asked for");
            for (id, path) in [(outer, &outer_path), (inner, &inner_path)] {
                let cgroup = looked_up(way, &cgroups, id);
                assert_eq!(cgroup.path.as_str(), below(&hierarchy, path), "{way}");
                let container = cgroup.container.as_ref().expect("docker's");
                assert_eq!(container.manager.as_str(), "docker");
                assert_eq!(cgroups.get(id).as_ref(), Some(&cgroup));
                assert!(is_alive(way, &cgroups, id), "{way}");
            }
            let known = cgroups.get(inner);
            fs::remove_dir(&inner_path).expect("it is empty");
            assert!(!is_alive(way, &cgroups, inner), "{way}");
            assert!(is_alive(way, &cgroups, outer), "{way}");
            assert_eq!(cgroups.get(inner), known, "{way}");
            assert_eq!(Some(looked_up(way, &cgroups, inner)), known, "{way}");
            cgroups.forget(inner);
            assert_eq!(cgroups.get(inner), None, "{way}");

            let gone = looked_up(way, &cgroups, inner);
            assert_eq!((gone.path.as_str(), gone.container), ("", None), "{way}");
            assert!(!is_alive(way, &cgroups, inner), "{way}");
            fs::remove_dir(&outer_path).expect("it is empty");
        }
    }
}

#[test]
fn the_root_is_named_as_well() {
    for (hierarchy, _folder) in hierarchies("root") {
        let id = fs::metadata(&hierarchy.root).expect("it is there").ino();
        for (way, cgroups) in both_ways(&hierarchy) {
            assert_eq!(looked_up(way, &cgroups, id).path.as_str(), "/", "{way}");
        }
    }
}

#[test]
fn a_hostile_name_comes_out_harmless() {
    // What can be in the name of a directory: all but `/` and NUL; the kernel
    // refuses newlines in it (cgroup_mkdir in kernel/cgroup/cgroup.c).
    let name = OsStr::from_bytes(b"a\x1b[2J\"{}\\ \xf0\x9f'$(x)\t (deleted)");
    let expected = "a\\x1b[2J\"{}\\ \\xf0\\x9f'$(x)\\t (deleted)";
    for (hierarchy, folder) in hierarchies("hostile") {
        let with_newline = fs::create_dir(folder.0.join("a\nb"));
        assert!(with_newline.is_err(), "then the name above is to have one");
        let (id, path) = folder.add(name);
        let expected = format!("{}/{expected}", below(&hierarchy, &folder.0));
        for (way, cgroups) in both_ways(&hierarchy) {
            assert_eq!(looked_up(way, &cgroups, id).path.as_str(), expected, "{way}");
            assert!(is_alive(way, &cgroups, id), "{way}");
        }
        fs::remove_dir(path).expect("it is empty");
    }
}

#[test]
fn one_walk_finds_all_that_wait_for_it() {
    for (hierarchy, folder) in hierarchies("waiting") {
        let limits = Limits { between_walks: Duration::MAX, ..Limits::default() };
        let cgroups = at(&hierarchy, limits);
        let ids: Vec<u64> = (0..50).map(|number| folder.add(number.to_string()).0).collect();
        without_handles(|| {
            assert!(cgroups.look_up(ids[0]).is_some(), "the first walk is made at once");
            for id in &ids[1..] {
                assert_eq!(cgroups.look_up(*id), None, "the next one is not yet due");
            }
        });
        assert_eq!(cgroups.len(), 1);

        let soon = Duration::from_millis(100);
        let cgroups = at(&hierarchy, Limits { between_walks: soon, ..Limits::default() });
        let (last, waiting) = ids.split_last().expect("some");
        without_handles(|| {
            waiting.iter().for_each(|id| drop(cgroups.look_up(*id)));
            thread::sleep(2 * soon);
            cgroups.look_up(*last);
        });
        for id in &ids {
            let cgroup = cgroups.get(*id).expect("the walk for the last one found all");
            assert!(!cgroup.path.as_str().is_empty());
        }

        let cgroups = at(&hierarchy, Limits { walk: 1, ..walks() });
        let beyond = without_handles(|| cgroups.look_up(ids[0])).expect("it is cached");
        assert_eq!(beyond.path.as_str(), "", "beyond the limit of a walk");
        assert!(cgroups.is_alive(ids[0]), "and not taken for dead");
    }
}

#[test]
fn five_thousand_cgroups_that_come_and_go_stay_within_the_capacity() {
    const ALL: usize = 5000;
    const CAPACITY: usize = 256;
    for (hierarchy, folder) in hierarchies("many") {
        let cgroups = at(&hierarchy, Limits { capacity: CAPACITY, ..walks() });
        let (resident, _path) = folder.add("resident");
        cgroups.look_up(resident).expect("it is there");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            // Readers beside it: what they get is whole.
            let reader = scope.spawn(|| {
                let mut reads = 0_u64;
                while !done.load(Ordering::Relaxed) || reads == 0 {
                    let known = cgroups.get(resident).expect("the living one stays");
                    assert!(known.path.as_str().ends_with("/resident"));
                    assert!(cgroups.len() <= CAPACITY);
                    reads += 1;
                }
            });
            let mut ids = Vec::with_capacity(ALL);
            for number in 0..ALL {
                let (id, path) = folder.add(format!("c{number}"));
                let cgroup = cgroups.look_up(id).expect("it is asked for");
                assert_eq!(cgroup.path.as_str(), below(&hierarchy, &path));
                fs::remove_dir(&path).expect("it is empty");
                assert_eq!(cgroups.get(id), Some(cgroup), "its name outlives it");
                assert!(cgroups.len() <= CAPACITY);
                ids.push(id);
            }
            done.store(true, Ordering::Relaxed);
            reader.join().expect("it read what it should");
            assert_eq!(cgroups.len(), CAPACITY);
            let last = ids.pop().expect("some");
            assert!(cgroups.get(last).is_some(), "the youngest are kept");
            assert_eq!(cgroups.get(ids[0]), None, "the oldest dead ones went");
        });
    }
}

#[test]
fn the_hierarchy_is_the_one_that_identifies_containers_here() {
    let Ok(found) = Hierarchy::find(Path::new(MOUNTED)) else {
        return common::skip("hierarchy", &format!("there is no hierarchy at {MOUNTED}"));
    };
    let cgroups = Cgroups::of_system().expect("its root can be opened");
    assert_eq!(*cgroups.hierarchy(), found);
    assert!(cgroups.is_empty());
    // Each kind has a file in its root that the others do not have.
    let mark = match found.controller.as_deref() {
        None => "cgroup.controllers",
        Some("memory") => "memory.usage_in_bytes",
        Some("pids") => "cgroup.sane_behavior",
        Some("cpu") => "cpu.shares",
        Some(other) => panic!("{other} is none of those that are looked for"),
    };
    assert!(found.root.join(mark).exists(), "{mark} in {}", found.root.display());
}
