//! Arguments -> resolved settings.
//!
//! In two stages, and this is the boundary:
//!
//! 1. [`args`] holds what was written on the command line, parsed but not
//!    judged: an absent option is `None`. Help, man page and completions come
//!    from these definitions ([`generate`]).
//! 2. [`Settings`] holds what to do: defaults, changed by the configuration
//!    file ([`config`]), changed by the command line. Nothing after this stage
//!    asks where a setting came from.

pub mod args;
pub mod config;
pub mod generate;
pub mod storm;

mod backend;
mod duration;
mod exit;
mod settings;

use clap::Parser;

pub use self::args::Command;
pub use self::config::{ConfigError, ConfigErrors};
pub use self::exit::ExitStatus;
pub use self::settings::{LogFormat, LogLevel, LogSettings, Settings};

/// Parses the command line of this process. What there is to say instead, help
/// or what is wrong with the arguments, is printed here.
///
/// # Errors
///
/// The status to end with: [`ExitStatus::Success`] after help or version,
/// [`ExitStatus::Usage`] after an error.
pub fn parse() -> Result<Command, ExitStatus> {
    args::Cli::try_parse().map(|cli| cli.command).map_err(|error| {
        // Nothing is left to do when the terminal is gone.
        let _ = error.print();
        if error.use_stderr() { ExitStatus::Usage } else { ExitStatus::Success }
    })
}
