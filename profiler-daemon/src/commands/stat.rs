//! `lockprof stat`: measure for a while, or while a command runs.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::session::Session;
use super::table;
use crate::cli::Settings;
use crate::cli::args::By;
use crate::findings::{Finding, findings};
use crate::snapshot::Snapshot;

/// Columns that sentences take at most, and where there is no terminal.
const WIDTH: usize = 100;

/// What to measure and how to show it.
#[derive(Clone, Debug)]
pub struct Request {
    /// How long, without a command.
    pub duration: Duration,
    /// JSON in place of the table.
    pub json: bool,
    /// By what to break the waits down, in place of the overview.
    pub by: Option<By>,
    /// The command to run while measuring, and its arguments.
    pub command: Vec<std::ffi::OsString>,
}

/// Measures and prints; the exit code.
///
/// # Errors
///
/// Nothing can be measured, or the command cannot be started.
pub fn run(settings: &Settings, request: &Request) -> anyhow::Result<u8> {
    let session = Session::start(settings)?;
    if request.json {
        // The document has figures alone.
        session.log_limits();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the event loop")?;
    // Taken after attaching: what happens while it attaches does not count.
    let before = session.fresh_snapshot();
    let code = runtime.block_on(wait(request))?;
    let window = session.fresh_snapshot().since(&before);
    let limits = session.limits().to_vec();
    drop(session);
    let found = findings(&window);
    let text = if request.json {
        let document = Document { snapshot: &window, findings: &found };
        let mut json = serde_json::to_string(&document).context("failed to write the snapshot")?;
        json.push('\n');
        json
    } else {
        table::render(&window, request.by, &limits, &found, width())
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("failed to print")?;
    Ok(code)
}

/// What `--json` prints: a snapshot, and what the rules find in it.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    snapshot: &'a Snapshot,
    findings: &'a [Finding],
}

/// Columns for sentences: those of the terminal, if it has fewer than is good to
/// read.
fn width() -> usize {
    terminal_size::terminal_size().map_or(WIDTH, |(columns, _)| WIDTH.min(columns.0.into()))
}

/// Until the time is up, the command ends, or a signal says to stop: the exit
/// code.
async fn wait(request: &Request) -> anyhow::Result<u8> {
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to await SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("failed to await SIGTERM")?;
    let Some((program, arguments)) = request.command.split_first() else {
        tokio::select! {
            () = tokio::time::sleep(request.duration) => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        return Ok(0);
    };
    let mut command = Command::new(program);
    command.args(arguments);
    if request.json {
        // Standard output is for the JSON alone.
        let stderr = std::io::stderr().as_fd().try_clone_to_owned();
        command.stdout(stderr.context("failed to redirect the command's output")?);
    }
    let mut child =
        command.spawn().with_context(|| format!("failed to run {}", program.display()))?;
    loop {
        tokio::select! {
            status = child.wait() => {
                return Ok(exit_code(status.context("failed to await the command")?));
            }
            // The terminal sends SIGINT to the command as well; what it does
            // about it is its own affair.
            _ = interrupt.recv() => {}
            // Passed on, so that the command can clean up; it ends the wait
            // when it ends.
            _ = terminate.recv() => end(&child).context("failed to end the command")?,
        }
    }
}

/// Asks the command to end. That it has ended already is fine.
fn end(child: &tokio::process::Child) -> std::io::Result<()> {
    // The pid is this child's as long as it was not awaited to its end.
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    match pid.map(|pid| kill_process(pid, Signal::TERM)) {
        None | Some(Ok(()) | Err(Errno::SRCH)) => Ok(()),
        Some(Err(error)) => Err(error.into()),
    }
}

/// The command's exit code, or 128 plus the signal that ended it, as shells do.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_a_snapshot_with_findings() {
        let mut window = Snapshot { schema: 1, ..Snapshot::default() };
        window.inflight = vec![crate::snapshot::InFlight {
            lock: "namespace_sem".into(),
            waiters: 2,
            oldest_ns: 60_000_000_000,
        }];
        let found = findings(&window);
        let json =
            serde_json::to_string(&Document { snapshot: &window, findings: &found }).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&json).unwrap(), window);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["findings"][0]["rule"], "wait-does-not-end");
        assert_eq!(json["findings"][0]["figures"][1][1], "2");
        assert_eq!(json["schema"], 1);
    }

    #[test]
    fn the_exit_code_is_the_commands() {
        assert_eq!(exit_code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137, "killed by SIGKILL");
    }
}
