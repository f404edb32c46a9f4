//! Real container starts from two cgroups.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockprof::hooks::attribution::Wanted;
use lockprof::snapshot::{Party, Runtime, Snapshot};

use super::cgroups;
use super::common::cgroups::Folder;
use super::tasks::{Ready, StopOnDrop, Task, enter};
use super::{NAMESPACE_SEM, alone, common, described, mounts, path, session, settled, watch_until};
use crate::needs_bpf;

/// The cgroups that containers are started from.
const CGROUPS: [&str; 2] = ["lockprof-a", "lockprof-b"];

/// Mounts in the tree that is copied.
const TREE: usize = 500;

/// Container starts at most from each.
const STARTS: usize = 200;

#[test]
fn containers_from_two_cgroups_are_in_both_tables_under_both_names() {
    const TEST: &str = "containers_from_two_cgroups_are_in_both_tables_under_both_names";
    needs_bpf!("containers_from_two_cgroups_are_in_both_tables_under_both_names");
    let _alone = alone();
    for tool in ["runc", "busybox"] {
        if find(tool).is_none() {
            let why = format!("{tool} is not installed; `cargo xtask setup` installs it");
            return common::skip(TEST, &why);
        }
    }
    let Some(folders) = CGROUPS.map(|name| cgroups::folder(TEST, name)).into_iter().collect()
    else {
        return;
    };
    let folders: Vec<Folder> = folders;
    let place = tempfile::tempdir().expect("a temporary folder");
    make_bundle(place.path());

    // Some runc do not get along with some kernels; with nothing attached, that is
    // not for this test to tell.
    if let Err(why) = Bundle::of(place.path(), &folders[0], "trial", "trial").start("trial") {
        return common::skip(TEST, &format!("runc starts no container here: {}", why.trim()));
    }

    let session = session(Wanted::default());
    let before = settled(&session);
    let stop = AtomicBool::new(false);
    let started = std::thread::scope(|scope| {
        let starters: Vec<_> = folders
            .iter()
            .zip(CGROUPS)
            .map(|(folder, name)| {
                let bundle = Bundle::of(place.path(), folder, "starter", name);
                let stop = &stop;
                scope.spawn(move || bundle.start_containers(stop))
            })
            .collect();
        // Each cgroup has somebody who holds the lock for long, and somebody who
        // comes for it often.
        let _others: Vec<_> = folders
            .iter()
            .flat_map(|folder| {
                let others = folder.add("others").1;
                let pause = Duration::from_millis(1);
                let bind = |ready: &Ready| mounts::keep_binding(ready, TREE);
                let mount = |ready: &Ready| mounts::keep_mounting(ready, pause);
                [
                    Task::start(c"binder", Some(&others), bind),
                    Task::start(c"mounter", Some(&others), mount),
                ]
            })
            .collect();
        let _stop = StopOnDrop(&stop);
        watch_until(&session, &before, "both cgroups, their runc and a container", |window| {
            assert!(starters.iter().all(|starter| !starter.is_finished()), "a starter gave up");
            CGROUPS.iter().all(|cgroup| is_named(window, cgroup)) && a_container_waited(window)
        });
        stop.store(true, Ordering::Relaxed);
        let started = starters.into_iter().flat_map(|starter| starter.join().expect("they start"));
        started.collect::<BTreeSet<String>>()
    });

    let window = settled(&session).since(&before);
    common::charges_fit(&window);
    for cgroup in CGROUPS {
        assert!(is_named(&window, cgroup), "{cgroup}: {}", described(&window));
    }
    // Containers are those that were started, and none of their tasks is
    // somebody else's.
    let waiting = window.waiters.iter().map(|row| &row.party);
    let blocking = window.blockers.iter().map(|row| &row.party);
    let ours = waiting.chain(blocking).filter(|p| CGROUPS.iter().any(|name| is_below(p, name)));
    let mut containers = BTreeSet::new();
    for party in ours {
        let who = party.who().expect("a task");
        match who.container() {
            Some(container) => {
                assert!(started.contains(container.id.as_str()), "{container:?}");
                assert!(path(party).ends_with(container.id.as_str()), "{party:?}");
                containers.insert(container.id.as_str().to_owned());
            }
            None => assert!(!started.iter().any(|id| path(party).contains(id)), "{party:?}"),
        }
        if who.task.as_str().starts_with("runc") {
            assert_eq!(who.runtime, Runtime::Runc, "{party:?}");
        }
        if matches!(who.task.as_str(), "mounter" | "binder") {
            assert_eq!(who.runtime, Runtime::Other, "{party:?}");
        }
    }
    eprintln!("{} containers started, {} met at a lock", started.len(), containers.len());
}

/// Whether the party's cgroup is below the one called `name`.
fn is_below(party: &Party, name: &str) -> bool {
    path(party).strip_prefix('/').and_then(|path| path.split('/').next()) == Some(name)
}

/// Whether both tables have `cgroup` at `namespace_sem`, and runc in it at a
/// lock.
fn is_named(window: &Snapshot, cgroup: &str) -> bool {
    let waiting = || window.waiters.iter().map(|row| (&row.lock, &row.party));
    let blocking = || window.blockers.iter().map(|row| (&row.lock, &row.party));
    let runc = |party: &Party| party.runtime() == Runtime::Runc && is_below(party, cgroup);
    waiting().any(|(lock, party)| lock == NAMESPACE_SEM && is_below(party, cgroup))
        && blocking().any(|(lock, party)| lock == NAMESPACE_SEM && is_below(party, cgroup))
        && waiting().any(|(_, party)| runc(party))
        && blocking().any(|(_, party)| runc(party))
}

fn a_container_waited(window: &Snapshot) -> bool {
    let containers = |party: &Party| party.who().is_some_and(|who| who.container().is_some());
    window
        .waiters
        .iter()
        .any(|row| CGROUPS.iter().any(|name| is_below(&row.party, name)) && containers(&row.party))
}

/// What containers are started with from one cgroup.
struct Bundle<'a> {
    place: &'a Path,
    /// Where the starting process is. One level down, as only cgroups without
    /// tasks may give controllers to those below them.
    starter: PathBuf,
    number: usize,
    name: &'static str,
}

impl<'a> Bundle<'a> {
    /// For starts by processes in `cgroup`, below `folder`.
    fn of(place: &'a Path, folder: &Folder, cgroup: &str, name: &'static str) -> Self {
        let number = CGROUPS.iter().position(|known| *known == name).unwrap_or(CGROUPS.len());
        Self { place, starter: folder.add(cgroup).1, number, name }
    }

    /// Starts containers one after the other until `stop`: their ids.
    fn start_containers(&self, stop: &AtomicBool) -> Vec<String> {
        let mut ids = Vec::new();
        while !stop.load(Ordering::Relaxed) && ids.len() < STARTS {
            // As docker and containerd call them.
            let number = std::process::id() as usize + ids.len();
            let id = format!("{:032x}{number:032x}", self.number);
            self.start(&id).unwrap_or_else(|why| panic!("{}: {why}", self.name));
            ids.push(id);
        }
        ids
    }

    /// Starts a container and waits until it has ended, or says why that failed.
    fn start(&self, id: &str) -> Result<(), String> {
        let mut runc = self.runc();
        runc.arg("run").arg("--bundle").arg(self.place).arg(id);
        let starter = self.starter.clone();
        // SAFETY: writes to a file, by a path that was made before the fork.
        unsafe { runc.pre_exec(move || enter(&starter)) };
        let output = runc.output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            // It has nothing to do when nothing is left.
            let _ = self.runc().args(["delete", "--force", id]).output();
            return Err(String::from_utf8_lossy(&output.stderr).replace('\n', "; "));
        }
        Ok(())
    }

    fn runc(&self) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.place.join(self.name)).stdin(Stdio::null());
        command
    }
}

/// A static busybox that lives long enough to be looked up, and the usual
/// specification.
fn make_bundle(place: &Path) {
    let root = place.join("rootfs");
    for folder in ["bin", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(folder)).expect("a folder can be made");
    }
    let busybox = find("busybox").expect("it was found before");
    fs::copy(busybox, root.join("bin/busybox")).expect("busybox can be copied");
    let status = Command::new("runc").arg("spec").current_dir(place).status().expect("runc runs");
    assert!(status.success(), "runc spec failed");
    let path = place.join("config.json");
    let text = fs::read(&path).expect("runc wrote it");
    let mut spec: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = serde_json::json!(["/bin/busybox", "sleep", "1"]);
    fs::write(&path, spec.to_string()).expect("it can be written");
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(tool)).find(|file| file.is_file())
}
