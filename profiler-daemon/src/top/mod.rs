//! `lockprof top`: connection, state, view, input, terminal.
//!
//! In: [`Source`]s of totals. A thread for each reads it and makes windows; a
//! thread awaits keys, one awaits signals. All they do with the rest is send
//! events: the thread that draws never waits for anything else, and no lock is
//! held by two of them. So a key is answered while a read hangs.

mod acquire;
mod app;
mod error;
mod format;
mod keys;
mod once;
mod priority;
mod rows;
mod source;
mod state;
mod tables;
mod terminal;
mod view;
mod window;

use std::time::Duration;

pub use self::app::run;
pub use self::error::TopError;
pub use self::once::{Output, once};
pub use self::priority::lock_memory;
pub use self::source::{ClientConfig, Http, Recorder, Replay, Source};
pub use self::view::Theme;

/// How to show it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Time between two reads.
    pub interval: Duration,
    /// What the terminal can show.
    pub theme: Theme,
}

#[cfg(test)]
mod fixture;
