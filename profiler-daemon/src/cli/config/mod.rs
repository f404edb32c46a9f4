//! The configuration file: TOML text -> [`Settings`], or everything that is
//! wrong with it, by line.
//!
//! What keys there are is data (`keys`): reading, the printed default and the
//! suggestions for misspelt keys all come from it.

mod field;
mod keys;
mod page;
mod reader;
mod render;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use self::page::man_page;
pub use self::render::default_text;
use super::Settings;

/// Read unless another file is named, and only if it is there.
pub const DEFAULT_PATH: &str = "/etc/lockprof/lockprof.toml";

/// Something wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    origin: Origin,
    message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// A file, and the line counted from 1 if it has to do with one.
    File { path: PathBuf, line: Option<usize> },
    /// An option of the command line.
    Flag(&'static str),
}

impl ConfigError {
    /// An error in the value of an option.
    pub(super) fn of_flag(flag: &'static str, message: impl fmt::Display) -> Self {
        Self { origin: Origin::Flag(flag), message: message.to_string() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display())?,
            Origin::File { path, line: None } => write!(f, "{}", path.display())?,
            Origin::Flag(flag) => f.write_str(flag)?,
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

/// Everything wrong with the configuration, in the order of the file; never
/// empty. Shown one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub(super) Vec<ConfigError>);

impl ConfigErrors {
    /// The errors.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Settings by the file at `path`.
///
/// # Errors
///
/// A file that cannot be read, or everything that is wrong in it.
pub fn read(path: &Path) -> Result<Settings, ConfigErrors> {
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    parse(&text, path)
}

/// Settings by the named file, or by the default file, or the defaults when
/// that one is not there.
///
/// # Errors
///
/// As [`read`].
pub fn read_or_default(named: Option<&Path>) -> Result<Settings, ConfigErrors> {
    match named {
        Some(path) => read(path),
        None => match fs::read_to_string(DEFAULT_PATH) {
            Ok(text) => parse(&text, Path::new(DEFAULT_PATH)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Settings::default()),
            Err(error) => Err(unreadable(Path::new(DEFAULT_PATH), &error)),
        },
    }
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigErrors {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "; `lockprof config default` prints one to start from",
        io::ErrorKind::InvalidData => "; it must be UTF-8 text",
        _ => "",
    };
    let message = format!("failed to read the configuration: {error}{hint}");
    ConfigErrors(vec![ConfigError {
        origin: Origin::File { path: path.to_owned(), line: None },
        message,
    }])
}

/// Settings by `text`; `path` is for messages.
///
/// # Errors
///
/// Everything that is wrong. If it is not TOML at all, only that is reported:
/// what follows a broken line means little.
pub fn parse(text: &str, path: &Path) -> Result<Settings, ConfigErrors> {
    reader::read(text).map_err(|mut problems| {
        problems.sort_by_key(|problem| problem.at);
        let error = |problem: field::Problem| {
            let before = text.as_bytes().get(..problem.at).unwrap_or(text.as_bytes());
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            let origin = Origin::File { path: path.to_owned(), line: Some(line) };
            ConfigError { origin, message: problem.message }
        };
        ConfigErrors(problems.into_iter().map(error).collect())
    })
}

#[cfg(test)]
mod tests;
