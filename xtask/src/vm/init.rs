//! The first process of a guest: xtask itself, `xtask vm-init`.
//!
//! Mounts what a booted system has, runs the steps of the [`Plan`], tells the
//! host in frames ([`super::frames`]) what they print and how they end, and
//! switches the machine off. What goes wrong here is told the same way, and on
//! the console if even that fails.
//!
//! In a guest that is a whole Debian ([`super::debian`]) it makes way for
//! systemd, which starts it again, as `xtask vm-steps`, for the plan.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, mount, mount_bind_recursive, mount_move};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process_group, wait};
use rustix::system::{RebootCommand, finit_module, reboot};
use rustix::termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr};

use super::debian;
use super::frames::{self, Kind};
use super::plan::{MODULES, PATH, PLAN, Plan, Step};

/// The port of the frames; `ttyS0` is the kernel's console.
const PORT: &str = "/dev/ttyS1";

/// Runs as the first process; does not return in a guest.
pub(crate) fn run() -> Result<ExitCode> {
    if getpid() != Pid::INIT {
        bail!("vm-init is the first process of a guest of `cargo xtask vm`, and nothing else");
    }
    let outcome = if debian::is_root() {
        start_systemd()
    } else {
        mount_basics().and_then(|()| load_modules()).and_then(|()| {
            loopback();
            serve(Others::Killed)
        })
    };
    power_off(outcome)
}

/// Runs the plan in a machine that systemd has booted; does not return there.
pub(crate) fn steps() -> Result<ExitCode> {
    if !debian::is_root() {
        bail!("vm-steps is run by systemd in a guest of `cargo xtask vm`, and nowhere else");
    }
    power_off(serve(Others::Kept))
}

fn power_off(outcome: Result<()>) -> Result<ExitCode> {
    if let Err(error) = &outcome {
        // The first process's standard error is the console.
        eprintln!("lockprof vm-init: {error:#}");
    }
    rustix::fs::sync();
    // The kernel panics when its first process ends, which the host sees too.
    reboot(RebootCommand::PowerOff).context("failed to power off")?;
    outcome.map(|()| ExitCode::FAILURE)
}

/// Becomes systemd.
fn start_systemd() -> Result<()> {
    leave_rootfs().context("failed to move the root off the initramfs")?;
    load_modules()?;
    let error = Command::new(debian::SYSTEMD).arg("--show-status=no").env_clear().exec();
    Err(error).with_context(|| format!("failed to start {}", debian::SYSTEMD))
}

/// What becomes of processes other than a step's own when the step has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// There are none but those that steps left behind.
    Killed,
    /// The system's.
    Kept,
}

fn serve(others: Others) -> Result<()> {
    let port = Port::open()?;
    port.send(Kind::Hello, &fs::read("/proc/sys/kernel/osrelease").unwrap_or_default())?;
    match run_plan(&port, others) {
        Ok(status) => port.send(Kind::Verdict, status.to_string().as_bytes())?,
        Err(error) => port.send(Kind::Broken, format!("{error:#}").as_bytes())?,
    }
    port.drain()
}

/// What every booted system has.
fn mount_basics() -> Result<()> {
    leave_rootfs().context("failed to move the root off the initramfs")?;
    for (kind, at) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run")]
    {
        attach(kind, at).with_context(|| format!("failed to mount {kind} at {at}"))?;
    }
    for at in ["/dev/pts", "/dev/shm"] {
        fs::create_dir_all(at).with_context(|| format!("failed to create {at}"))?;
    }
    // Those that a kernel may have been built without.
    for (kind, at) in [
        ("devpts", "/dev/pts"),
        ("tmpfs", "/dev/shm"),
        ("tmpfs", "/tmp"),
        ("tracefs", "/sys/kernel/tracing"),
        ("bpf", "/sys/fs/bpf"),
        ("cgroup2", "/sys/fs/cgroup"),
    ] {
        // Programs may have been put into a folder below /tmp of the host.
        let empty = fs::read_dir(at).is_ok_and(|mut entries| entries.next().is_none());
        if empty && let Err(error) = attach(kind, at) {
            eprintln!("lockprof vm-init: no {kind} at {at}: {error}");
        }
    }
    Ok(())
}

fn attach(kind: &str, at: &str) -> rustix::io::Result<()> {
    mount(kind, at, kind, MountFlags::empty(), None)
}

/// Loads what Debian's kernel has as modules, if it is there.
fn load_modules() -> Result<()> {
    for entry in fs::read_dir(MODULES).with_context(|| format!("failed to read {MODULES}"))? {
        let path = entry.with_context(|| format!("failed to read {MODULES}"))?.path();
        let file =
            File::open(&path).with_context(|| format!("failed to open {}", path.display()))?;
        finit_module(&file, c"", 0)
            .with_context(|| format!("failed to load {}", path.display()))?;
    }
    Ok(())
}

/// Makes the root a mount that has a parent. `pivot_root(2)` refuses while the
/// root is the initramfs itself (before Linux 7.0), which would take away what
/// containers, and storms, begin with.
fn leave_rootfs() -> rustix::io::Result<()> {
    const NEW: &str = "/lockprof-vm/root";
    mount_bind_recursive("/", NEW)?;
    rustix::process::chdir(NEW)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")
}

/// The way to the host.
struct Port(Mutex<File>);

impl Port {
    fn open() -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .open(PORT)
            .with_context(|| format!("failed to open {PORT}"))?;
        let mut mode = tcgetattr(&file).with_context(|| format!("{PORT} is no terminal"))?;
        // Bytes as they are.
        mode.make_raw();
        tcsetattr(&file, OptionalActions::Now, &mode)
            .with_context(|| format!("failed to make {PORT} raw"))?;
        Ok(Self(Mutex::new(file)))
    }

    fn send(&self, kind: Kind, payload: &[u8]) -> Result<()> {
        let mut file = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        frames::write(&mut *file, kind, payload).with_context(|| format!("failed to write {PORT}"))
    }

    fn drain(&self) -> Result<()> {
        let file = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tcdrain(&*file).with_context(|| format!("failed to drain {PORT}"))
    }

    /// Sends all that `stream` gives.
    fn forward(&self, kind: Kind, mut stream: impl Read) -> Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => self.send(kind, &buffer[..length])?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("failed to read a step's output"),
            }
        }
    }
}

/// Runs all steps; the status of the first that failed, or 0.
fn run_plan(port: &Port, others: Others) -> Result<i32> {
    let text = fs::read_to_string(PLAN).with_context(|| format!("failed to read {PLAN}"))?;
    let plan: Plan =
        serde_json::from_str(&text).with_context(|| format!("failed to parse {PLAN}"))?;
    let mut verdict = 0;
    for step in &plan.steps {
        port.send(Kind::Begin, step.name.as_bytes())?;
        let status = run_step(port, step, others)?;
        if let Some(file) = &plan.collect {
            collect(port, Path::new(file))?;
        }
        port.send(Kind::End, status.to_string().as_bytes())?;
        if verdict == 0 {
            verdict = status;
        }
    }
    Ok(verdict)
}

/// Brings up 127.0.0.1, which a daemon of the tests listens on.
fn loopback() {
    let done = Command::new("/bin/busybox").args(["ip", "link", "set", "lo", "up"]).status();
    if !done.is_ok_and(|status| status.success()) {
        eprintln!("lockprof vm-init: failed to bring up the loopback interface");
    }
}

fn collect(port: &Port, file: &Path) -> Result<()> {
    match fs::read(file) {
        Ok(content) => {
            port.send(Kind::Collected, &content)?;
            fs::remove_file(file).with_context(|| format!("failed to remove {}", file.display()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("failed to read {}", file.display())),
    }
}

/// Runs a step to its end; what it leaves running is killed.
fn run_step(port: &Port, step: &Step, others: Others) -> Result<i32> {
    let Some((program, arguments)) = step.command.split_first() else { bail!("an empty command") };
    let mut command = Command::new(program);
    if others == Others::Kept {
        command.process_group(0);
    }
    let spawned = command
        .args(arguments)
        .current_dir(&step.folder)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", "/root")
        .envs(&step.env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let text = format!("failed to start {program} in the guest: {error}\n");
            port.send(Kind::Stderr, text.as_bytes())?;
            // As shells have it.
            return Ok(if error.kind() == ErrorKind::NotFound { 127 } else { 126 });
        }
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        let out = scope.spawn(|| stdout.map_or(Ok(()), |it| port.forward(Kind::Stdout, it)));
        let err = scope.spawn(|| stderr.map_or(Ok(()), |it| port.forward(Kind::Stderr, it)));
        let status = match others {
            Others::Killed => reap_until(&child)?,
            Others::Kept => exit_status(child.wait().context("failed to wait for a step")?),
        };
        // So that the pipes end and the next step has the machine for itself.
        // There may be nothing left to kill.
        let _ = match others {
            // Everything but this process.
            Others::Killed => kill_process_group(Pid::INIT, Signal::KILL),
            Others::Kept => kill_process_group(Pid::from_child(&child), Signal::KILL),
        };
        for thread in [out, err] {
            match thread.join() {
                Ok(forwarded) => forwarded?,
                Err(_) => bail!("a thread of vm-init panicked"),
            }
        }
        Ok(status)
    })
}

/// As shells have it.
fn exit_status(status: std::process::ExitStatus) -> i32 {
    status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

/// Takes note of every process that ends, as the first process must, until
/// `child` does.
fn reap_until(child: &Child) -> Result<i32> {
    loop {
        let ended = match wait(WaitOptions::empty()) {
            Ok(ended) => ended,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error).context("failed to wait for a step"),
        };
        if let Some((pid, status)) = ended
            && u32::try_from(pid.as_raw_nonzero().get()) == Ok(child.id())
        {
            let signalled = status.terminating_signal().map(|signal| 128 + signal);
            return Ok(status.exit_status().or(signalled).unwrap_or(1));
        }
    }
}
