//! `lockprof top`: from arguments to sources, and to the screen or one frame.

use std::ffi::OsStr;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use rustix::termios::tcgetwinsize;

use super::logging;
use super::session::Session;
use crate::cli::Settings;
use crate::snapshot::Snapshot;
use crate::top::{
    self, ClientConfig, Http, Options, Output, Recorder, Replay, Source, Theme, TopError,
    lock_memory,
};

/// What to show, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// Daemons to connect to.
    pub connect: Vec<String>,
    /// How to connect to them: passwords, certificates.
    pub http_config: Option<PathBuf>,
    /// Recording to play.
    pub replay: Option<PathBuf>,
    /// File to record into.
    pub record: Option<PathBuf>,
    /// Time between two reads.
    pub interval: Duration,
    /// One frame and no screen.
    pub once: bool,
    /// That frame as JSON.
    pub json: bool,
    /// Nothing but ASCII.
    pub ascii: bool,
    /// No colours.
    pub no_color: bool,
    /// Keep all memory from being paged out.
    pub lock_memory: bool,
}

/// Columns of text for a file or a pipe.
const WIDTH: u16 = 100;

/// Shows it until the user has seen enough, or prints one frame.
///
/// # Errors
///
/// The arguments name what cannot be used, nothing can be measured, or the
/// terminal goes away.
pub fn run(settings: &Settings, request: &Request) -> anyhow::Result<()> {
    if request.record.is_some() && request.connect.len() > 1 {
        return Err(TopError::RecordOfSeveral(request.connect.len()).into());
    }
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if !request.once && !terminal {
        return Err(TopError::NoTerminal.into());
    }
    if request.once {
        // On the screen there is no room for log lines.
        logging::init(settings.log);
    }
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    let client = request.http_config.as_deref().map(ClientConfig::read).transpose()?;
    let client = client.unwrap_or_default();
    for url in &request.connect {
        sources.push(Box::new(Http::new(url, &client)?));
    }
    if let Some(file) = &request.replay {
        sources.push(Box::new(Replay::open(file)?));
    }
    let recorder = request.record.as_deref().map(Recorder::open).transpose()?;
    if sources.is_empty() {
        if !request.once {
            let _ = writeln!(std::io::stderr(), "lockprof: attaching to the kernel ...");
        }
        let session = Session::start(settings)?;
        if request.once {
            session.log_limits();
        }
        sources.push(Box::new(Attached(session)));
    }
    if request.lock_memory {
        // After attaching: parsing the kernel's types takes memory for a moment.
        lock_memory()?;
    }
    let no_color = request.no_color || asks_for_no_color(std::env::var_os("NO_COLOR").as_deref());
    let options = Options {
        interval: request.interval,
        theme: Theme { colour: !no_color, ascii: request.ascii },
    };
    if !request.once {
        return Ok(top::run(sources, recorder, options)?);
    }
    let output = if request.json { Output::Json } else { Output::Text(width()) };
    let text = top::once(sources, recorder, options, output)?;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("failed to print")
}

/// See <https://no-color.org>: set, and not to nothing.
fn asks_for_no_color(variable: Option<&OsStr>) -> bool {
    variable.is_some_and(|value| !value.is_empty())
}

/// Of the terminal, if the frame goes to one.
fn width() -> u16 {
    let terminal = tcgetwinsize(std::io::stdout()).map(|size| size.ws_col);
    terminal.ok().filter(|columns| *columns != 0).unwrap_or(WIDTH)
}

/// Programs that `top` attached itself.
struct Attached(Session);

impl Source for Attached {
    fn name(&self) -> &'static str {
        "this host"
    }

    fn read(&mut self) -> Result<Option<Snapshot>, String> {
        Ok(Some(self.0.fresh_snapshot()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_no_color_asks_for_nothing() {
        assert!(asks_for_no_color(Some(OsStr::new("1"))));
        assert!(!asks_for_no_color(Some(OsStr::new(""))));
        assert!(!asks_for_no_color(None));
    }
}
