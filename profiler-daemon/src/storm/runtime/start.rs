//! One start by a real runtime.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, set_child_subreaper, waitpid,
};

use super::{ID_PREFIX, Prepared, config, words};
use crate::storm::start::{Failure, Observer, Op, Table, Tally};
use crate::storm::strategy::Runtime;

/// Bytes of a runtime's words that are read.
const WORDS: u64 = 16 * 1024;

impl Prepared {
    /// Starts a container and takes it away again. Its `number` is its own among
    /// those in `dir`, a directory that no other process starts containers in.
    ///
    /// It is in place once the runtime's `start` has returned: then the
    /// container's process has been let go (runc) or executed (crun). What went
    /// before is the bundle, the overlay of its root, and `create`, which does
    /// nearly all of the work.
    ///
    /// # Errors
    ///
    /// The step that failed, with the runtime's own words. Nothing of the
    /// container is left. What fails once the container has run is told to
    /// `observer`.
    pub(in crate::storm) fn start(
        &self,
        dir: &str,
        number: u64,
        observer: &dyn Observer,
    ) -> Result<(), Failure> {
        // The container's process is a child of the runtime's `create`. Once
        // that has ended, it becomes one of this process, as it does of
        // containerd-shim.
        set_child_subreaper(Some(getpid())).map_err(|e| (Op::RuntimeHost, e.into()))?;
        let worker = Path::new(dir).file_name().unwrap_or_default().to_string_lossy();
        let bundle = Bundle {
            prepared: self,
            observer,
            folder: Path::new(dir).join(number.to_string()),
            id: format!("{ID_PREFIX}-{worker}-{number}"),
        };
        let end = bundle.run();
        bundle.remove(end.is_err());
        end
    }

    /// A call of the runtime with the options that all calls have.
    fn runtime(&self) -> Command {
        let mut command = self.driver.command();
        command.arg("--root").arg(&self.state);
        // See `host`.
        match self.driver.runtime {
            Runtime::Crun => command.arg("--cgroup-manager=disabled"),
            Runtime::Runc | Runtime::Builtin => command.arg("--rootless=true"),
        };
        command
    }
}

/// A container and its bundle.
struct Bundle<'a> {
    prepared: &'a Prepared,
    observer: &'a dyn Observer,
    folder: PathBuf,
    id: String,
}

impl Bundle<'_> {
    fn run(&self) -> Result<(), Failure> {
        self.make().map_err(|e| (Op::MakeTargets, e))?;
        match self.prepared.root.mount(&self.folder) {
            Ok(mounted) => {
                self.observer.did(Tally { mounts: mounted.into(), ..Tally::default() });
            }
            Err(error) => return Err((Op::Overlay, error)),
        }
        let mut create = self.prepared.runtime();
        create.args(["create", "--bundle"]).arg(&self.folder);
        create.arg("--pid-file").arg(self.pid_file()).arg(&self.id);
        self.call(create, Op::RuntimeCreate)?;
        let process = self.process().map_err(|e| (Op::RuntimeCreate, e))?;
        let mut start = self.prepared.runtime();
        start.args(["start", &self.id]);
        self.call(start, Op::RuntimeStart)?;
        self.observer.in_place();
        self.ask_for_mounts();
        match wait_for(process) {
            Ok(status) if status.exit_status() == Some(0) => {}
            Ok(status) => self.observer.failed(Op::RuntimeStart, &ended(status)),
            Err(error) => self.observer.failed(Op::RuntimeStart, &error.into()),
        }
        let mut delete = self.prepared.runtime();
        delete.args(["delete", &self.id]);
        if let Err((op, error)) = self.call(delete, Op::RuntimeDelete) {
            self.observer.failed(op, &error);
        }
        Ok(())
    }

    fn make(&self) -> io::Result<()> {
        fs::create_dir(&self.folder)?;
        fs::hard_link(&self.prepared.config, self.folder.join(config::FILE))
    }

    /// Asks for the mount table where a container manager does: outside of the
    /// container.
    fn ask_for_mounts(&self) {
        let strategy = &self.prepared.strategy;
        if strategy.mountinfo_reads > 0 {
            Table::new(strategy.mount_query).ask_for(strategy.mountinfo_reads, self.observer);
        }
    }

    /// Takes away what the start made; after a failure the container as well,
    /// as far as there is one.
    fn remove(&self, failed: bool) {
        if failed {
            if let Ok(process) = self.process() {
                // `delete --force` waits for its end, which this process has to
                // take note of.
                let _ = kill_process(process, Signal::KILL);
                let _ = wait_for(process);
            }
            let _ = self.prepared.runtime().args(["delete", "--force", &self.id]).output();
        }
        // Whatever else the runtime left to this process.
        while let Ok(Some(_)) = waitpid(None, WaitOptions::NOHANG) {}
        match self.prepared.root.unmount(&self.folder) {
            Ok(was_mounted) => {
                self.observer.did(Tally { umounts: was_mounted.into(), ..Tally::default() });
            }
            // The start has said why there is nothing to unmount.
            Err(_) if failed => {}
            Err(error) => self.observer.failed(Op::Detach, &error),
        }
        if let Err(error) = fs::remove_dir_all(&self.folder)
            && !failed
        {
            self.observer.failed(Op::MakeTargets, &error);
        }
    }

    /// Runs the runtime to its end.
    fn call(&self, mut command: Command, op: Op) -> Result<(), Failure> {
        // A file, as the container's process inherits it: the end of a pipe
        // would come no sooner than the container's.
        let log = self.folder.join("stderr");
        let mut run = || {
            let file = File::create(&log)?;
            command.stdout(file.try_clone()?).stderr(file).status()
        };
        let status = run().map_err(|error| {
            (op, io::Error::new(error.kind(), format!("{}: {error}", self.path().display())))
        })?;
        if status.success() {
            return Ok(());
        }
        let mut said = Vec::new();
        if let Ok(file) = File::open(&log) {
            let _ = file.take(WORDS).read_to_end(&mut said);
        }
        Err((op, io::Error::other(words::failed(status, &said))))
    }

    fn path(&self) -> &Path {
        &self.prepared.driver.path
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join("pid")
    }

    /// The container's process, by the file that the runtime wrote.
    fn process(&self) -> io::Result<Pid> {
        let text = fs::read_to_string(self.pid_file())?;
        text.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| {
            io::Error::other(format!("{} wrote no pid into its pid file", self.path().display()))
        })
    }
}

fn wait_for(process: Pid) -> rustix::io::Result<WaitStatus> {
    loop {
        match waitpid(Some(process), WaitOptions::empty()) {
            Err(Errno::INTR) | Ok(None) => {}
            Err(error) => return Err(error),
            Ok(Some((_, status))) => return Ok(status),
        }
    }
}

/// The container's process did not end well.
fn ended(status: WaitStatus) -> io::Error {
    io::Error::other(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("the container's process exited with status {code}"),
        (None, Some(signal)) => format!("signal {signal} killed the container's process"),
        (None, None) => "the container's process is gone".to_owned(),
    })
}
