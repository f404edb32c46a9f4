//! Writing totals down, for [`Replay`](super::Replay).

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use crate::snapshot::Snapshot;
use crate::top::TopError;

/// A recording that grows.
pub struct Recorder {
    file: File,
}

impl Recorder {
    /// Appends to `file`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub fn open(file: &Path) -> Result<Self, TopError> {
        let opened = OpenOptions::new().create(true).append(true).open(file);
        let file = opened.map_err(|error| TopError::CannotRecord {
            file: file.to_owned(),
            why: error.to_string(),
        })?;
        Ok(Self { file })
    }

    /// Appends `totals` as one line.
    ///
    /// # Errors
    ///
    /// As writing has them.
    pub fn record(&mut self, totals: &Snapshot) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(totals)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }
}
