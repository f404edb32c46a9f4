//! Starts by a real runtime.
//!
//! A start does what containerd, CRI-O and Podman do: it makes a bundle, mounts
//! the root where that is an overlay, calls the runtime's `create`, `start` and,
//! once the container's process has ended, `delete`, and takes away what it
//! made.
//!
//! - `find`: the runtime on PATH;
//! - `host`: what the storm's own namespaces need before a runtime runs there;
//! - `image`: the files that containers are made from;
//! - `program`: the container's process;
//! - `config`: `config.json`, from the strategy;
//! - `start`: one start;
//! - `words`: what a runtime said.
//!
//! Everything is in the storm's own mount and PID namespaces: the runtimes'
//! state is in the storm's tmpfs, and whatever a runtime starts ends with the
//! storm. No cgroup is made (`host`).

mod config;
mod find;
mod host;
mod image;
mod program;
mod start;
mod words;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use self::find::{Driver, RuntimeError};
use self::image::Root;
use super::start::{Failure, Op};
use super::strategy::Strategy;

/// What all containers' ids begin with. They show in a runtime's messages.
const ID_PREFIX: &str = "lockprof-storm";

/// All that starts of a strategy by a real runtime have in common.
pub(in crate::storm) struct Prepared {
    driver: Driver,
    /// Where the runtime keeps its state.
    state: PathBuf,
    /// `config.json`, the same for all.
    config: PathBuf,
    root: Root,
    strategy: Strategy,
}

impl Driver {
    /// Whether a real runtime can do what `strategy` says.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::Idmap`].
    pub fn check(&self, strategy: &Strategy) -> Result<(), RuntimeError> {
        match strategy.idmap {
            Some(idmap) => Err(RuntimeError::Idmap { runtime: self.runtime, idmap }),
            None => Ok(()),
        }
    }

    /// Makes what the starts share below `base`, a directory of a tmpfs that
    /// goes with the storm's mount namespace. Called in that namespace by pid 1
    /// of the storm's PID namespace, once.
    ///
    /// # Errors
    ///
    /// The step that failed.
    pub(in crate::storm) fn prepare(
        self,
        strategy: &Strategy,
        base: &str,
    ) -> Result<Prepared, Failure> {
        host::adapt().map_err(|e| (Op::RuntimeHost, e))?;
        if !self.path.exists() {
            let why = format!(
                "{} is out of reach: the storm covers {base}; install it elsewhere",
                self.path.display()
            );
            return Err((Op::RuntimeHost, io::Error::other(why)));
        }
        let shared = Path::new(base).join("runtime");
        let files = |e: io::Error| (Op::MakeTargets, e);
        let state = shared.join("state");
        fs::create_dir_all(&state).map_err(files)?;
        let sources = image::Sources::make(&shared).map_err(files)?;
        let root = Root::make(&shared, strategy).map_err(files)?;
        let config = shared.join(config::FILE);
        let text = config::of(strategy, root.path_in_config(), &sources).to_string();
        fs::write(&config, text).map_err(files)?;
        Ok(Prepared { driver: self, state, config, root, strategy: strategy.clone() })
    }
}
