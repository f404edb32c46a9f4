//! Totals that were recorded, one JSON document a line.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::{LARGEST_SNAPSHOT, Source, parse};
use crate::snapshot::Snapshot;
use crate::top::TopError;

/// A recording.
pub struct Replay {
    lines: BufReader<File>,
    /// Number of the last line that was read.
    line: u64,
    name: String,
    /// Read already, to see that it is a recording.
    first: Option<Snapshot>,
}

impl Replay {
    /// The recording in `file`.
    ///
    /// # Errors
    ///
    /// It cannot be read, or its first line is no snapshot.
    pub fn open(file: &Path) -> Result<Self, TopError> {
        let bad = |why: String| TopError::BadRecording { file: PathBuf::from(file), why };
        let lines = BufReader::new(File::open(file).map_err(|error| bad(error.to_string()))?);
        let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
        let mut replay = Self { lines, line: 0, name, first: None };
        replay.first = replay.next().map_err(bad)?;
        if replay.first.is_none() { Err(bad("it is empty".to_owned())) } else { Ok(replay) }
    }

    fn next(&mut self) -> Result<Option<Snapshot>, String> {
        loop {
            self.line += 1;
            let mut line = Vec::new();
            let mut limited = (&mut self.lines).take(LARGEST_SNAPSHOT);
            limited.read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
            if line.is_empty() {
                return Ok(None);
            }
            if !line.trim_ascii().is_empty() {
                return parse(&line).map(Some).map_err(|why| format!("line {}: {why}", self.line));
            }
        }
    }
}

impl Source for Replay {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&mut self) -> Result<Option<Snapshot>, String> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => self.next().map_err(|why| format!("{} {why}", self.name)),
        }
    }

    fn is_replay(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::snapshot::SCHEMA;
    use crate::top::source::Recorder;

    fn totals(duration_ns: u64) -> Snapshot {
        Snapshot { schema: SCHEMA, duration_ns, ..Snapshot::default() }
    }

    #[test]
    fn what_was_recorded_is_played_in_order_and_then_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        for duration in [1, 2] {
            // Opened anew: a second recording is appended.
            Recorder::open(&path).unwrap().record(&totals(duration)).unwrap();
        }
        let mut replay = Replay::open(&path).unwrap();
        assert_eq!(replay.read().unwrap(), Some(totals(1)));
        assert_eq!(replay.read().unwrap(), Some(totals(2)));
        assert_eq!(replay.read().unwrap(), None);
        assert_eq!(replay.read().unwrap(), None);
    }

    #[test]
    fn a_line_that_was_cut_is_named_and_what_follows_is_played() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let line = serde_json::to_string(&totals(5)).unwrap();
        write!(file, "{line}\n{}\n\n{line}", &line[..40]).unwrap();
        let mut replay = Replay::open(file.path()).unwrap();
        assert!(replay.read().unwrap().is_some());
        let error = replay.read().unwrap_err();
        assert!(error.contains(" line 2: not a snapshot"), "{error}");
        assert_eq!(replay.read().unwrap(), Some(totals(5)));
        assert_eq!(replay.read().unwrap(), None);
    }

    #[test]
    fn what_is_no_recording_is_refused_with_the_way_to_make_one() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        let error = Replay::open(empty.path()).err().expect("it is empty").to_string();
        assert!(error.contains("empty") && error.contains("--record FILE"), "{error}");
        let error = Replay::open(Path::new("/no/such")).err().expect("not there").to_string();
        assert!(error.contains("/no/such: No such file"), "{error}");
        let error = Replay::open(Path::new("/")).err().expect("a directory").to_string();
        assert!(error.contains("directory"), "{error}");
    }
}
