//! The files that containers are made from: roots, and sources of their bind
//! mounts.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::chdir;

use super::program;
use crate::storm::start::TMPFS_SOURCE;
use crate::storm::strategy::Strategy;

/// The container's process, from its root.
pub(super) const PROGRAM: &str = "/init";

/// The root of a bundle, where the bundle has one of its own.
const ROOT_OF_BUNDLE: &str = "rootfs";

/// A directory in the container that is masked.
pub(super) fn masked(number: u32) -> String {
    format!("/masked/{number}")
}

/// Where a bind mount goes.
pub(super) fn bound(number: u32) -> String {
    format!("/binds/{number}")
}

/// Whether a bind mount is of a file: two of a directory and two of a file take
/// turns, and one of each two is read-only.
pub(super) const fn binds_a_file(number: u32) -> bool {
    number % 4 >= 2
}

/// What is bind-mounted into containers.
pub(super) struct Sources {
    /// Like a volume.
    pub(super) directory: PathBuf,
    /// Like `/etc/hosts`.
    pub(super) file: PathBuf,
}

impl Sources {
    pub(super) fn make(shared: &Path) -> io::Result<Self> {
        let sources = Self { directory: shared.join("volume"), file: shared.join("hosts") };
        fs::create_dir(&sources.directory)?;
        fs::write(&sources.file, "")?;
        Ok(sources)
    }
}

/// Where containers get their root.
pub(super) enum Root {
    /// This directory of the storm's tmpfs, for all of them.
    Shared(String),
    /// An overlay of each, of layers that they share.
    Overlay {
        /// The directory that has the layers, named by number.
        layers: PathBuf,
        /// How many.
        count: u32,
    },
}

impl Root {
    pub(super) fn make(shared: &Path, strategy: &Strategy) -> io::Result<Self> {
        if strategy.layers == 0 {
            let root = shared.join(ROOT_OF_BUNDLE);
            fill(&root, strategy)?;
            return Ok(Self::Shared(root.display().to_string()));
        }
        let layers = shared.join("layers");
        for layer in 0..strategy.layers {
            fs::create_dir_all(layers.join(layer.to_string()))?;
        }
        // As in an image: the lowest layer, the last in the option of the mount,
        // has the root's directories, and each one above it something of its own.
        fill(&layers.join((strategy.layers - 1).to_string()), strategy)?;
        for layer in 0..strategy.layers - 1 {
            fs::write(layers.join(layer.to_string()).join(format!("layer-{layer}")), "")?;
        }
        Ok(Self::Overlay { layers, count: strategy.layers })
    }

    /// As `root.path` of `config.json`: from the bundle, unless it is absolute.
    pub(super) fn path_in_config(&self) -> &str {
        match self {
            Self::Shared(path) => path,
            Self::Overlay { .. } => ROOT_OF_BUNDLE,
        }
    }

    /// Mounts what the bundle in `folder` has as its root; whether that took a
    /// mount.
    pub(super) fn mount(&self, folder: &Path) -> io::Result<bool> {
        let Self::Overlay { layers, count } = self else { return Ok(false) };
        let root = folder.join(ROOT_OF_BUNDLE);
        let [upper, work] = ["upper", "work"].map(|name| folder.join(name));
        for directory in [&root, &upper, &work] {
            fs::create_dir(directory)?;
        }
        // `mount(2)` takes a page of options, in which hundreds of layers have
        // room if their paths are relative; containerd does the same.
        chdir(layers)?;
        let lower: Vec<String> = (0..*count).map(|layer| layer.to_string()).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.join(":"),
            upper.display(),
            work.display()
        );
        let options = CString::new(options).map_err(io::Error::other)?;
        mount(TMPFS_SOURCE, &root, c"overlay", MountFlags::empty(), options.as_c_str())?;
        Ok(true)
    }

    /// Takes away what [`Self::mount`] mounted; whether there was something.
    pub(super) fn unmount(&self, folder: &Path) -> io::Result<bool> {
        match self {
            Self::Shared(_) => Ok(false),
            Self::Overlay { .. } => {
                unmount(folder.join(ROOT_OF_BUNDLE), UnmountFlags::DETACH)?;
                Ok(true)
            }
        }
    }
}

/// Fills a root with all that is mounted on, so that a runtime makes nothing
/// there, and with the container's process.
fn fill(root: &Path, strategy: &Strategy) -> io::Result<()> {
    let place = |path: &str| root.join(path.trim_start_matches('/'));
    for directory in ["proc", "dev", "sys", "masked", "binds"] {
        fs::create_dir_all(place(directory))?;
    }
    for number in 0..strategy.masks {
        fs::create_dir(place(&masked(number)))?;
    }
    for number in 0..strategy.binds {
        let target = place(&bound(number));
        if binds_a_file(number) { fs::write(target, "")? } else { fs::create_dir(target)? }
    }
    let program = program::file().ok_or_else(|| {
        io::Error::other(
            "there is no container process for this architecture; use --runtime builtin",
        )
    })?;
    let path = place(PROGRAM);
    fs::write(&path, program)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
}
