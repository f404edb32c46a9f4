//! Logs: for people on a terminal, as JSON on request; always on standard
//! error, which systemd takes to the journal.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, reload};

use crate::cli::{LogFormat, LogLevel, LogSettings};

static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Starts logging. Later calls change the level alone.
pub fn init(settings: LogSettings) {
    if LEVEL.get().is_some() {
        set_level(settings.level);
        return;
    }
    let (filter, handle) = reload::Layer::new(level(settings.level));
    let terminal = std::io::stderr().is_terminal();
    let json = match settings.format {
        LogFormat::Auto => !terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(terminal);
    let layer = if json { layer.json().flatten_event(true).boxed() } else { layer.boxed() };
    // Fails only if something else installed a subscriber, as tests may.
    if tracing_subscriber::registry().with(filter).with(layer).try_init().is_ok() {
        let _ = LEVEL.set(handle);
    }
}

/// Changes the level of a running log.
pub fn set_level(to: LogLevel) {
    if let Some(handle) = LEVEL.get()
        && let Err(error) = handle.reload(level(to))
    {
        tracing::warn!("failed to change the log level: {error}");
    }
}

const fn level(of: LogLevel) -> LevelFilter {
    match of {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
