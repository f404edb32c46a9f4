//! What a container-like start does: pure data.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares an enum whose values have one name each, on the command line, in
/// JSON and in tables.
macro_rules! named {
    (
        $(#[$meta:meta])*
        $name:ident { $($(#[$value_meta:meta])* $value:ident = $text:literal),+ $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$value_meta])* #[serde(rename = $text)] $value),+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$value),+];

            /// Its name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

named! {
    /// How a start gets its root file system.
    RootFs {
        /// `unshare(CLONE_NEWNS)`, `mount(2)`, `pivot_root(2)`.
        #[default]
        Legacy = "legacy",
        /// `unshare(CLONE_NEWNS)`, `fsopen`, `fsconfig`, `fsmount`, `open_tree`
        /// and `move_mount` (Linux 5.2; attributes by `mount_setattr`, 5.12),
        /// `pivot_root(2)`.
        Fd = "fd",
        /// `open_tree(OPEN_TREE_NAMESPACE)` and `setns(2)`: a namespace that has
        /// the root alone (Linux 7.0). No copy of the host's table, and no
        /// `pivot_root`.
        OpenTreeNamespace = "open-tree-namespace",
        /// As `fd`, but the new root goes below the old one by
        /// `MOVE_MOUNT_BENEATH`, and the old one is unmounted, in place of
        /// `pivot_root` (Linux 7.1 for the root of a namespace).
        Beneath = "beneath",
    }
}

named! {
    /// Which layers are mapped to the container's user IDs.
    Idmap {
        /// Each layer by a mount of its own: as many clones and mounts as there
        /// are layers.
        PerLayer = "per-layer",
        /// The one directory that all layers lie in: one clone and one mount.
        #[default]
        Parent = "parent",
    }
}

named! {
    /// What covers a masked directory.
    MaskWith {
        /// An empty read-only tmpfs each: a superblock for each directory.
        #[default]
        Tmpfs = "tmpfs",
        /// Bind mounts of one empty tmpfs of the start: one superblock.
        SharedTmpfs = "shared-tmpfs",
    }
}

named! {
    /// Propagation of the mounts that a start finds and makes.
    Propagation {
        /// Nothing goes in or out.
        #[default]
        Private = "private",
        /// Mounts go into the start and out of it.
        Shared = "shared",
        /// Mounts go into the start, none comes out.
        Slave = "slave",
    }
}

named! {
    /// How a start, or a poller, asks for the mount table.
    MountQuery {
        /// By reading and parsing `/proc/self/mountinfo`.
        #[default]
        Mountinfo = "mountinfo",
        /// By `listmount(2)` and `statmount(2)` (Linux 6.8).
        Statmount = "statmount",
    }
}

named! {
    /// Who starts the containers.
    Runtime {
        /// The storm itself.
        #[default]
        Builtin = "builtin",
        /// `runc` as found on PATH.
        Runc = "runc",
        /// `crun` as found on PATH.
        Crun = "crun",
    }
}

/// What each start does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Strategy {
    /// Who starts the containers. A real runtime decides on its own about
    /// [`Self::rootfs`] and [`Self::mask_with`].
    pub runtime: Runtime,
    /// How the root gets in place.
    pub rootfs: RootFs,
    /// Lower layers of the overlayfs that is the root; 0 for a tmpfs as root.
    pub layers: u32,
    /// Whether and how the layers are mapped to the container's user IDs. Needs
    /// at least one layer.
    pub idmap: Option<Idmap>,
    /// Bind mounts of directories and files, every other one made read-only.
    pub binds: u32,
    /// Directories that are masked.
    pub masks: u32,
    /// What with.
    pub mask_with: MaskWith,
    /// Mounts that the storm's own namespace has, beside those that it was born
    /// with, before the first start: `CLONE_NEWNS` copies them for each start.
    pub host_mounts: u32,
    /// Propagation of all mounts.
    pub propagation: Propagation,
    /// How often each start asks for the whole mount table.
    pub mountinfo_reads: u32,
    /// How it does, and how pollers do.
    pub mount_query: MountQuery,
}

impl Strategy {
    /// Whether its parts go together.
    ///
    /// # Errors
    ///
    /// Says which flags do not, and what to give.
    pub fn check(&self) -> Result<(), String> {
        if let Some(idmap) = self.idmap
            && self.layers == 0
        {
            return Err(format!(
                "--idmap {idmap} maps the layers of an overlayfs, and --layers 0 has none: give \
                 --layers 1 or more"
            ));
        }
        if self.runtime == Runtime::Builtin {
            return Ok(());
        }
        let decides = format!("--runtime {} mounts in a way of its own", self.runtime);
        if self.rootfs != RootFs::default() {
            return Err(format!("{decides}: leave out --rootfs {}", self.rootfs));
        }
        if self.mask_with != MaskWith::default() {
            return Err(format!("{decides}: leave out --mask-with {}", self.mask_with));
        }
        Ok(())
    }
}

impl Strategy {
    /// Its name in a report of this strategy alone: who or what makes the root,
    /// and every figure that is not the default.
    pub fn name(&self) -> String {
        let usual = Self::default();
        let mut name = match self.runtime {
            Runtime::Builtin => self.rootfs.to_string(),
            real => real.to_string(),
        };
        let figures = [
            ("layers", self.layers, usual.layers),
            ("binds", self.binds, usual.binds),
            ("masks", self.masks, usual.masks),
            ("host-mounts", self.host_mounts, usual.host_mounts),
            ("mountinfo-reads", self.mountinfo_reads, usual.mountinfo_reads),
        ];
        for (flag, figure, usual) in figures {
            if figure != usual {
                name.push_str(&format!("+{flag}={figure}"));
            }
        }
        let words = [
            self.idmap.map(Idmap::as_str),
            (self.mask_with != usual.mask_with).then(|| self.mask_with.as_str()),
            (self.propagation != usual.propagation).then(|| self.propagation.as_str()),
            (self.mount_query != usual.mount_query).then(|| self.mount_query.as_str()),
        ];
        for word in words.into_iter().flatten() {
            name.push('+');
            name.push_str(word);
        }
        name
    }
}

impl Default for Strategy {
    /// What a plain container has: some volumes and files, and the masks of
    /// the OCI default.
    fn default() -> Self {
        Self {
            runtime: Runtime::default(),
            rootfs: RootFs::default(),
            layers: 0,
            idmap: None,
            binds: 12,
            masks: 8,
            mask_with: MaskWith::default(),
            host_mounts: 0,
            propagation: Propagation::default(),
            mountinfo_reads: 0,
            mount_query: MountQuery::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_contradicts_itself_is_refused_by_the_names_of_the_flags() {
        let base = Strategy::default;
        for (strategy, named) in [
            (Strategy { idmap: Some(Idmap::Parent), ..base() }, ["--idmap parent", "--layers"]),
            (
                Strategy { runtime: Runtime::Runc, rootfs: RootFs::Fd, ..base() },
                ["--runtime runc", "--rootfs fd"],
            ),
            (
                Strategy { runtime: Runtime::Crun, mask_with: MaskWith::SharedTmpfs, ..base() },
                ["--runtime crun", "--mask-with shared-tmpfs"],
            ),
        ] {
            let said = strategy.check().unwrap_err();
            assert!(named.iter().all(|flag| said.contains(flag)), "{said}");
        }
    }

    #[test]
    fn what_goes_together_is_taken() {
        let base = Strategy::default;
        for strategy in [
            base(),
            Strategy { layers: 1, idmap: Some(Idmap::PerLayer), ..base() },
            Strategy { runtime: Runtime::Runc, ..base() },
            Strategy { rootfs: RootFs::Beneath, mask_with: MaskWith::SharedTmpfs, ..base() },
        ] {
            assert_eq!(strategy.check(), Ok(()), "{strategy:?}");
        }
    }
}
