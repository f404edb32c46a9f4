//! One start: from its process to its root, and partly down again.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_move, unmount};
use rustix::process::{chdir, chroot, fchdir, pivot_root};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::plan::{Action, ROOT, Source, Step, c_string};
use super::sys::open_tree_namespace;
use super::{Failure, Observer, Op, Prepared, Table, Tally, classic, fd};
use crate::storm::strategy::{Propagation, RootFs};
use crate::storm::sys::unshare_mounts;

/// A start in a process of its own.
pub(super) struct Start<'a> {
    pub(super) prepared: &'a Prepared,
    /// An empty directory that no other start uses meanwhile.
    pub(super) dir: &'a str,
    pub(super) observer: &'a dyn Observer,
}

/// For `map_err`.
fn at(op: Op) -> impl Fn(Errno) -> Failure {
    move |error| (op, error.into())
}

impl Start<'_> {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let strategy = &self.prepared.strategy;
        if strategy.rootfs == RootFs::OpenTreeNamespace {
            return self.in_a_namespace_of_the_root();
        }
        // Without a root that is attached to something shared nothing gets out.
        let gets_out = strategy.propagation == Propagation::Shared
            && (strategy.rootfs != RootFs::Beneath || strategy.layers > 0);
        let outside = gets_out.then(|| Outside::remember(self.dir)).transpose()?;
        let end = self.in_a_copy_of_the_namespace();
        match outside {
            Some(outside) => end.and(self.clean(&outside)),
            None => end,
        }
    }

    /// By `unshare(CLONE_NEWNS)`.
    fn in_a_copy_of_the_namespace(&self) -> Result<(), Failure> {
        let strategy = &self.prepared.strategy;
        let table = self.table();
        unshare_mounts().map_err(|e| (Op::Unshare, e))?;
        match strategy.propagation {
            Propagation::Private => self.make_private()?,
            Propagation::Slave if self.by_mount() => {
                self.essential(Op::MakeSlave, classic::make_slave())?;
            }
            Propagation::Slave => self.essential(Op::MakeSlave, fd::make_slave())?,
            Propagation::Shared => {}
        }
        let root = match strategy.rootfs {
            RootFs::Legacy => {
                let place = self.attach_root_by_mount()?;
                chdir(place.as_c_str()).map_err(at(Op::MakeTargets))?;
                None
            }
            rootfs => {
                let root = self.make_root()?;
                if rootfs == RootFs::Fd {
                    self.essential(self.root_op(), fd::attach(&root, &self.root_place()?))?;
                }
                fchdir(&root).map_err(at(Op::MakeTargets))?;
                Some(root)
            }
        };
        self.query(table);
        self.make_targets()?;
        for step in &self.prepared.plan.steps {
            self.carry_out(step, None);
        }
        if strategy.propagation == Propagation::Shared {
            // Neither can a shared root be changed, nor must unmounting the old
            // one reach the namespace that it is from.
            self.make_private()?;
        }
        match root.filter(|_| strategy.rootfs == RootFs::Beneath) {
            Some(root) => self.swap_root(&root)?,
            None => self.change_root().map_err(at(Op::ChangeRoot))?,
        }
        self.observer.in_place();
        self.take_down();
        Ok(())
    }

    /// By `open_tree(OPEN_TREE_NAMESPACE)` and `setns(2)`.
    ///
    /// What is mounted has no peers, whatever the propagation outside: the root
    /// is a new superblock.
    fn in_a_namespace_of_the_root(&self) -> Result<(), Failure> {
        let table = self.table();
        let made = self.make_root();
        if self.prepared.layers.is_some() {
            // It went to where all starts see it; the overlayfs has it.
            match unmount(self.dir, UnmountFlags::DETACH) {
                Ok(()) => self.observer.did(Tally::UMOUNT),
                Err(error) if made.is_ok() => self.observer.failed(Op::CleanUp, &error.into()),
                Err(_) => {}
            }
        }
        let root = made?;
        // Once inside, what is outside can be neither named nor copied
        // (`may_copy_tree`, fs/namespace.c).
        let plan = &self.prepared.plan;
        let mut copies: Vec<_> = plan.steps.iter().map(|step| self.copy_outside(step)).collect();
        let namespace = open_tree_namespace(root.as_fd()).map_err(at(Op::OpenTreeNamespace))?;
        let entered = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount));
        self.essential(Op::Setns, entered)?;
        drop((root, namespace));
        self.query(table);
        self.make_targets()?;
        for (step, copy) in plan.steps.iter().zip(copies.drain(..)) {
            self.carry_out(step, copy);
        }
        self.observer.in_place();
        self.take_down();
        Ok(())
    }

    /// Whether mounts are made by `mount(2)`.
    fn by_mount(&self) -> bool {
        self.prepared.strategy.rootfs == RootFs::Legacy
    }

    fn make_private(&self) -> Result<(), Failure> {
        let made = if self.by_mount() { classic::make_private() } else { fd::make_private() };
        self.essential(Op::MakePrivate, made)
    }

    /// Where the root is attached, if it is.
    fn root_place(&self) -> Result<CString, Failure> {
        if self.prepared.layers.is_none() {
            return Ok(c_string(self.dir));
        }
        let place = format!("{}/root", self.dir);
        mkdirat(CWD, place.as_str(), Mode::from_raw_mode(0o755)).map_err(at(Op::MakeTargets))?;
        Ok(c_string(&place))
    }

    const fn root_op(&self) -> Op {
        if self.prepared.layers.is_some() { Op::Overlay } else { Op::RootTmpfs }
    }

    /// The root by `mount(2)`; where it is.
    fn attach_root_by_mount(&self) -> Result<CString, Failure> {
        let dir = c_string(self.dir);
        self.essential(Op::RootTmpfs, classic::fresh(&ROOT, &dir))?;
        let Some(layers) = &self.prepared.layers else { return Ok(dir) };
        let (upper, work) = self.upper_and_work()?;
        let place = self.root_place()?;
        layers.enter(self.dir, self.observer)?;
        let names = layers.names();
        let data = c_string(&format!("lowerdir={names},upperdir={upper},workdir={work}"));
        self.essential(Op::Overlay, classic::overlay(&data, &place))?;
        layers.leave(self.dir, self.observer);
        Ok(place)
    }

    /// The root, attached nowhere; what an overlayfs is made of is below `dir`.
    fn make_root(&self) -> Result<OwnedFd, Failure> {
        let tmpfs = fd::fresh(&ROOT).map_err(at(Op::RootTmpfs))?;
        let Some(layers) = &self.prepared.layers else { return Ok(tmpfs) };
        self.essential(Op::RootTmpfs, fd::attach(&tmpfs, &c_string(self.dir)))?;
        let (upper, work) = self.upper_and_work()?;
        let overlay = layers
            .enter(self.dir, self.observer)
            .and_then(|()| fd::overlay(&layers.names(), &upper, &work).map_err(at(Op::Overlay)));
        if overlay.is_ok() {
            layers.leave(self.dir, self.observer);
        }
        overlay
    }

    fn upper_and_work(&self) -> Result<(String, String), Failure> {
        let [upper, work] = ["upper", "work"].map(|name| format!("{}/{name}", self.dir));
        for dir in [&upper, &work] {
            mkdirat(CWD, dir.as_str(), Mode::from_raw_mode(0o755)).map_err(at(Op::MakeTargets))?;
        }
        Ok((upper, work))
    }

    /// Makes what the plan mounts on in the working directory, unless layers have
    /// it.
    fn make_targets(&self) -> Result<(), Failure> {
        if self.prepared.layers.is_some() {
            return Ok(());
        }
        for dir in &self.prepared.plan.dirs {
            mkdirat(CWD, dir.as_c_str(), Mode::from_raw_mode(0o755))
                .map_err(at(Op::MakeTargets))?;
        }
        for file in &self.prepared.plan.files {
            let mode = Mode::from_raw_mode(0o644);
            mknodat(CWD, file.as_c_str(), FileType::RegularFile, mode, 0)
                .map_err(at(Op::MakeTargets))?;
        }
        Ok(())
    }

    /// The source of a step if it is outside, with its attributes.
    fn copy_outside(&self, step: &Step) -> Option<OwnedFd> {
        let Action::Bind { source: Source::Outside(source), read_only } = &step.action else {
            return None;
        };
        self.told(step.op, self.copy(source, *read_only))
    }

    fn copy(&self, source: &CString, read_only: bool) -> Result<OwnedFd, Failure> {
        let copy = fd::copy(source).map_err(at(Op::Bind))?;
        if read_only {
            fd::make_read_only(&copy).map_err(at(Op::ReadOnly))?;
            self.observer.did(Tally::mounts(1));
        }
        Ok(copy)
    }

    /// What there is of it, once its failure is told under the name of `op`.
    fn told<T>(&self, op: Op, result: Result<T, Failure>) -> Option<T> {
        match result {
            Ok(done) => Some(done),
            Err((Op::ReadOnly, error)) => {
                self.observer.failed(Op::ReadOnly, &error);
                None
            }
            Err((_, error)) => {
                self.observer.failed(op, &error);
                None
            }
        }
    }

    /// Does one thing in the working directory. `copy` is its source where that
    /// was opened before.
    fn carry_out(&self, step: &Step, copy: Option<OwnedFd>) {
        let inside = self.prepared.strategy.rootfs == RootFs::OpenTreeNamespace;
        let classic = self.by_mount();
        let target = step.target.as_c_str();
        let attach = |mount: OwnedFd| fd::attach(&mount, target).map_err(at(step.op));
        let done = match &step.action {
            Action::MakeDirectory => {
                let made = mkdirat(CWD, target, Mode::from_raw_mode(0o755));
                self.told(Op::MakeTargets, made.map_err(at(Op::MakeTargets)));
                return;
            }
            Action::Mount(fresh) if classic => classic::fresh(fresh, target).map_err(at(step.op)),
            Action::Mount(fresh) => fd::fresh(fresh).map_err(at(step.op)).and_then(attach),
            Action::Bind {
                source: Source::Outside(source) | Source::Inside(source),
                read_only,
            } if classic => {
                let bound = classic::bind(source, target).map_err(at(step.op));
                if bound.is_ok() && *read_only {
                    let made = classic::make_read_only(target).map_err(at(Op::ReadOnly));
                    if self.told(Op::ReadOnly, made).is_some() {
                        self.observer.did(Tally::mounts(1));
                    }
                }
                bound
            }
            // It could not be opened, and that has been told.
            Action::Bind { source: Source::Outside(_), .. } if inside && copy.is_none() => return,
            Action::Bind {
                source: Source::Outside(source) | Source::Inside(source),
                read_only,
            } => copy.map_or_else(|| self.copy(source, *read_only), Ok).and_then(attach),
        };
        if self.told(step.op, done).is_some() {
            self.observer.did(Tally::mounts(1));
        }
    }

    /// Counts a mount that the rest needs.
    fn essential(&self, op: Op, result: rustix::io::Result<()>) -> Result<(), Failure> {
        result.map_err(at(op))?;
        self.observer.did(Tally::mounts(1));
        Ok(())
    }

    /// Who asks for the mount table, if somebody does.
    fn table(&self) -> Option<Table> {
        let strategy = &self.prepared.strategy;
        (strategy.mountinfo_reads > 0).then(|| Table::new(strategy.mount_query))
    }

    /// Looks at the table as a runtime does that has just come into its
    /// namespace, to see what its root lies in.
    fn query(&self, table: Option<Table>) {
        if let Some(mut table) = table {
            table.ask_for(self.prepared.strategy.mountinfo_reads, self.observer);
        }
    }

    /// Makes the working directory the root and drops the old one.
    fn change_root(&self) -> rustix::io::Result<()> {
        match pivot_root(c".", c".") {
            Ok(()) => {
                self.observer.did(Tally { pivots: 1, ..Tally::default() });
                // Both roots are at `.` now, the old one on top.
                self.count_umount(Op::DetachOldRoot, unmount(c".", UnmountFlags::DETACH));
            }
            // Before Linux 7.0 the initramfs root cannot be pivoted away from
            // (`pivot_root`, fs/namespace.c: the root must have a parent mount).
            Err(Errno::INVAL) => {
                mount_move(c".", c"/")?;
                chroot(c".")?;
                self.observer.did(Tally { mounts: 1, chroots: 1, ..Tally::default() });
            }
            Err(error) => return Err(error),
        }
        chdir(c"/")
    }

    /// The same without `pivot_root(2)`: the new root comes below the old one,
    /// which then goes.
    fn swap_root(&self, root: &OwnedFd) -> Result<(), Failure> {
        self.essential(Op::Beneath, fd::attach_beneath(root, c"/"))?;
        chroot(c".").map_err(at(Op::ChangeRoot))?;
        self.observer.did(Tally { chroots: 1, ..Tally::default() });
        self.count_umount(Op::DetachOldRoot, unmount(c".", UnmountFlags::DETACH));
        chdir(c"/").map_err(at(Op::ChangeRoot))
    }

    fn take_down(&self) {
        for target in &self.prepared.plan.detach {
            self.count_umount(Op::Detach, unmount(target.as_c_str(), UnmountFlags::DETACH));
        }
    }

    fn count_umount(&self, op: Op, result: rustix::io::Result<()>) {
        match result {
            Ok(()) => self.observer.did(Tally::UMOUNT),
            Err(error) => self.observer.failed(op, &error.into()),
        }
    }

    /// Removes what came out of the start, from there.
    fn clean(&self, outside: &Outside) -> Result<(), Failure> {
        outside.enter().map_err(at(Op::CleanUp))?;
        match unmount(outside.name.as_c_str(), UnmountFlags::DETACH) {
            Ok(()) => self.observer.did(Tally::UMOUNT),
            // Nothing came out: the start got nowhere, or the table it was copied
            // from is not shared.
            Err(Errno::INVAL) => {}
            Err(error) => self.observer.failed(Op::CleanUp, &error.into()),
        }
        Ok(())
    }
}

/// The namespace that a start was in before it made its own, and the place of the
/// start there.
struct Outside {
    namespace: OwnedFd,
    parent: OwnedFd,
    name: CString,
}

impl Outside {
    fn remember(dir: &str) -> Result<Self, Failure> {
        let open = |path: &str, flags| {
            openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(at(Op::CleanUp))
        };
        let (parent, name) = dir.rsplit_once('/').unwrap_or((".", dir));
        Ok(Self {
            namespace: open("/proc/self/ns/mnt", OFlags::RDONLY)?,
            parent: open(parent, OFlags::PATH | OFlags::DIRECTORY)?,
            name: c_string(name),
        })
    }

    /// Goes back, to the directory that the start's place is in.
    fn enter(&self) -> rustix::io::Result<()> {
        move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
        fchdir(&self.parent)
    }
}
