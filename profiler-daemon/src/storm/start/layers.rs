//! The overlayfs that is the root of a start with layers.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{chdir, fchdir};

use super::plan::{Plan, c_string};
use super::users::new_user_namespace;
use super::{Failure, Observer, Op, Tally, fd};
use crate::storm::strategy::{Idmap, Strategy};

/// Where mapped layers are mounted, below the start's own tmpfs.
const MAPPED: &str = "mapped";

/// Layers that all starts share.
pub(super) struct Layers {
    /// The directory that they lie in, by the names `0`, `1` and so on, the top
    /// one first.
    parent: CString,
    count: u32,
    /// Which of them to map, and by which user namespace.
    map: Option<(Idmap, OwnedFd)>,
}

impl Layers {
    /// Makes as many layers as the strategy has below `base`; the lowest has
    /// what the plan mounts on, as an image has.
    pub(super) fn new(strategy: &Strategy, base: &str, plan: &Plan) -> Result<Self, Failure> {
        let parent = format!("{base}/layers");
        make(&parent, strategy.layers, plan).map_err(|e| (Op::MakeLayers, e))?;
        let map = strategy.idmap.map(|which| {
            let users = new_user_namespace().map_err(|e| (Op::MakeUserNamespace, e))?;
            Ok((which, users))
        });
        Ok(Self { parent: c_string(&parent), count: strategy.layers, map: map.transpose()? })
    }

    /// Names of the layers, the top one first, from the directory that
    /// [`Self::enter`] goes to. Short ones: `mount(2)` takes a page of options,
    /// which is why runtimes change to where the layers lie as well.
    pub(super) fn names(&self) -> String {
        let names: Vec<_> = (0..self.count).map(|layer| layer.to_string()).collect();
        names.join(":")
    }

    /// Goes to where the layers have their [`Self::names`]. Layers to map are
    /// cloned, mapped and mounted below `scratch` for that.
    pub(super) fn enter(&self, scratch: &str, observer: &dyn Observer) -> Result<(), Failure> {
        let Some((which, users)) = &self.map else {
            return chdir(self.parent.as_c_str()).map_err(|e| (Op::MakeLayers, e.into()));
        };
        let mapped = format!("{scratch}/{MAPPED}");
        let make = |path: &str| {
            mkdirat(CWD, path, Mode::from_raw_mode(0o755)).map_err(|e| (Op::MakeTargets, e.into()))
        };
        make(&mapped)?;
        for (source, target) in self.places(*which, &mapped) {
            if *which == Idmap::PerLayer {
                make(&target)?;
            }
            let source = c_string(&source);
            let layer = fd::copy(&source).map_err(|e| (Op::CloneLayer, e.into()))?;
            fd::map_owners(&layer, users.as_fd()).map_err(|e| (Op::MapLayer, e.into()))?;
            let attached = fd::attach(&layer, &c_string(&target));
            attached.map_err(|e| (Op::AttachLayer, e.into()))?;
            observer.did(Tally::mounts(2));
        }
        chdir(mapped.as_str()).map_err(|e| (Op::MakeTargets, e.into()))
    }

    /// Unmounts the mapped layers: the overlayfs has mounts of its own of them
    /// (`clone_private_mount`, fs/namespace.c).
    pub(super) fn leave(&self, scratch: &str, observer: &dyn Observer) {
        let Some((which, _)) = &self.map else { return };
        for (_, target) in self.places(*which, &format!("{scratch}/{MAPPED}")) {
            match unmount(target.as_str(), UnmountFlags::DETACH) {
                Ok(()) => observer.did(Tally::UMOUNT),
                Err(error) => observer.failed(Op::DetachLayer, &error.into()),
            }
        }
    }

    /// What is cloned, and where it is mounted.
    fn places(&self, which: Idmap, mapped: &str) -> Vec<(String, String)> {
        let parent = self.parent.to_string_lossy();
        match which {
            Idmap::Parent => vec![(parent.into_owned(), mapped.to_owned())],
            Idmap::PerLayer => (0..self.count)
                .map(|layer| (format!("{parent}/{layer}"), format!("{mapped}/{layer}")))
                .collect(),
        }
    }

    /// Tries what depends on the kernel, without a lasting effect: to map the
    /// layers, and to name them by `fsconfig(2)` if that is the way.
    pub(super) fn probe(&self, by_fd: bool) -> Result<(), Failure> {
        if by_fd {
            let here = openat(CWD, c".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
            let here = here.map_err(|e| (Op::MakeLayers, e.into()))?;
            chdir(self.parent.as_c_str()).map_err(|e| (Op::MakeLayers, e.into()))?;
            fd::try_layer_names(&self.names()).map_err(|e| (Op::LayerNames, e.into()))?;
            fchdir(&here).map_err(|e| (Op::MakeLayers, e.into()))?;
        }
        let Some((_, users)) = &self.map else { return Ok(()) };
        let layers = fd::copy(&self.parent).map_err(|e| (Op::CloneLayer, e.into()))?;
        fd::map_owners(&layers, users.as_fd()).map_err(|e| (Op::MapLayer, e.into()))
    }
}

fn make(parent: &str, count: u32, plan: &Plan) -> io::Result<()> {
    fs::create_dir(parent)?;
    for layer in 0..count {
        let layer = format!("{parent}/{layer}");
        fs::create_dir_all(format!("{layer}/usr"))?;
        fs::write(format!("{layer}/usr/file"), "a file of a layer\n")?;
    }
    if let Some(lowest) = count.checked_sub(1) {
        for dir in &plan.dirs {
            fs::create_dir(format!("{parent}/{lowest}/{}", dir.to_string_lossy()))?;
        }
        for file in &plan.files {
            fs::write(format!("{parent}/{lowest}/{}", file.to_string_lossy()), "")?;
        }
    }
    Ok(())
}
