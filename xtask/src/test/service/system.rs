//! The machine that the tests run in, as an administrator sees it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::metrics::Metrics;

/// The unit.
pub(super) const SERVICE: &str = "lockprof.service";
/// The unit of the port.
pub(super) const SOCKET: &str = "lockprof.socket";
/// The configuration.
pub(super) const CONFIG: &str = "/etc/lockprof/lockprof.toml";
/// Where it serves.
pub(super) const URL: &str = "http://127.0.0.1:9723";
/// Drop-ins of the tests.
const DROP_INS: &str = "/etc/systemd/system/lockprof.service.d";

/// How long something may take that is waited for: far more than it ever takes,
/// so that this ends a test that fails, and is no measure of anything.
const PATIENCE: Duration = Duration::from_secs(240);

/// How often to look.
const TICK: Duration = Duration::from_millis(250);

/// The machine, and what a test has changed in it.
#[derive(Debug, Default)]
pub(super) struct System {
    /// The configuration as it was installed.
    config: Option<String>,
    changed: Changed,
}

/// What a test has left otherwise than it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Changed {
    #[default]
    Nothing,
    /// The configuration, of which a reload makes the daemon take the old one.
    Configuration,
    /// More than a reload brings back.
    Service,
}

impl System {
    /// The service, running, with the configuration that it came with.
    pub(super) fn running(&mut self) -> Result<()> {
        let changed = std::mem::take(&mut self.changed);
        if changed != Changed::Nothing {
            if let Some(config) = &self.config {
                write(CONFIG, config)?;
            }
            remove_drop_ins()?;
        }
        let active = show("ActiveState")? == "active";
        match changed {
            Changed::Nothing if active => {}
            Changed::Configuration if active => {
                let journal = Journal::now()?;
                systemctl(&["reload", SERVICE])?;
                journal.has("reloaded")?;
            }
            _ => {
                systemctl(&["reset-failed", SERVICE])?;
                systemctl(&["restart", SERVICE])?;
            }
        }
        if self.config.is_none() {
            self.config = Some(read(CONFIG)?);
        }
        wait("the service to be active", || Ok((show("ActiveState")? == "active").then_some(())))
    }

    /// Replaces text of the configuration that it came with.
    pub(super) fn configure(&mut self, changes: &[(&str, &str)]) -> Result<()> {
        let mut config = self.config.clone().context("nothing is installed yet")?;
        for (from, to) in changes {
            ensure!(config.contains(from), "{CONFIG} has no `{from}`");
            config = config.replacen(from, to, 1);
        }
        self.changed = self.changed.max(Changed::Configuration);
        write(CONFIG, &config)
    }

    /// Puts a drop-in beside the unit.
    pub(super) fn drop_in(&mut self, content: &str) -> Result<()> {
        self.changed = Changed::Service;
        fs::create_dir_all(DROP_INS).with_context(|| format!("failed to create {DROP_INS}"))?;
        write(&format!("{DROP_INS}/test.conf"), content)?;
        systemctl(&["daemon-reload"])?;
        Ok(())
    }

    /// Says that the service is not as the next test wants it.
    pub(super) fn touch(&mut self) {
        self.changed = Changed::Service;
    }

    /// Says that it is, whatever was changed meanwhile.
    pub(super) fn untouch(&mut self) {
        self.changed = Changed::Nothing;
    }
}

/// Takes drop-ins away; what runs goes on with them.
pub(super) fn remove_drop_ins() -> Result<()> {
    if Path::new(DROP_INS).exists() {
        fs::remove_dir_all(DROP_INS).with_context(|| format!("failed to remove {DROP_INS}"))?;
        systemctl(&["daemon-reload"])?;
    }
    Ok(())
}

/// Standard output of a command that has to succeed.
pub(super) fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = start(program, arguments)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "`{program} {}` failed ({}): {}{}",
            arguments.join(" "),
            output.status,
            text,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(text)
}

/// How a command ended and what it said.
pub(super) fn start(program: &str, arguments: &[&str]) -> Result<Output> {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start {program}"))
}

/// `systemctl`, which has to succeed.
pub(super) fn systemctl(arguments: &[&str]) -> Result<String> {
    run("systemctl", arguments)
}

/// A property of the service.
pub(super) fn show(property: &str) -> Result<String> {
    show_of(SERVICE, property)
}

/// A property of a unit.
pub(super) fn show_of(unit: &str, property: &str) -> Result<String> {
    let text = systemctl(&["show", "--value", "--property", property, unit])?;
    Ok(text.trim().to_owned())
}

/// The daemon's process.
pub(super) fn main_pid() -> Result<u32> {
    match show("MainPID")?.parse() {
        Ok(0) => bail!("the service has no process"),
        Ok(pid) => Ok(pid),
        Err(error) => Err(error).context("MainPID is no number"),
    }
}

/// Waits for another process than `old` that is active.
pub(super) fn replaced(old: u32) -> Result<u32> {
    wait("another process of the service", || {
        let new = show("MainPID")?.parse::<u32>().unwrap_or(0);
        Ok((new != 0 && new != old && show("ActiveState")? == "active").then_some(new))
    })
}

/// Asks again and again until there is something.
pub(super) fn wait<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask().with_context(|| format!("while waiting for {what}"))? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("waited {} s in vain for {what}", PATIENCE.as_secs());
        }
        thread::sleep(TICK);
    }
}

/// What curl gets, as a user would ask; the status has to be good.
pub(super) fn get(path: &str) -> Result<String> {
    run(
        "curl",
        &["--silent", "--show-error", "--fail", "--max-time", "120", &format!("{URL}{path}")],
    )
}

/// All series.
pub(super) fn scrape() -> Result<Metrics> {
    Ok(Metrics::parse(&get("/metrics")?))
}

/// Whether somebody listens on the port.
pub(super) fn port_is_open() -> bool {
    std::net::TcpStream::connect(("127.0.0.1", 9723)).is_ok()
}

/// A place in the journal.
pub(super) struct Journal(String);

impl Journal {
    /// Where it ends now.
    pub(super) fn now() -> Result<Self> {
        let text = run("journalctl", &["--no-pager", "--quiet", "--lines=0", "--show-cursor"])?;
        let cursor = text.trim().strip_prefix("-- cursor: ").context("the journal has no end")?;
        Ok(Self(cursor.to_owned()))
    }

    /// What the unit, and systemd of it, have said since.
    pub(super) fn since(&self) -> Result<String> {
        let after = format!("--after-cursor={}", self.0);
        run("journalctl", &["--no-pager", "--quiet", "--output=cat", "--unit", SERVICE, &after])
    }

    /// Waits until it has `text`.
    pub(super) fn has(&self, text: &str) -> Result<()> {
        wait(&format!("`{text}` in the journal"), || Ok(self.since()?.contains(text).then_some(())))
    }
}

/// The whole of a file.
pub(super) fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("failed to read {path}"))
}

/// A file with this content.
pub(super) fn write(path: &str, content: &str) -> Result<()> {
    fs::write(path, content).with_context(|| format!("failed to write {path}"))
}
