//! What can stop `top`.

use std::path::PathBuf;

use crate::serve::access::FileError;
use crate::snapshot::Name;

/// Why `top` cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// The file of --http-config cannot be used.
    #[error("--http-config {0}")]
    BadClientConfig(#[from] FileError),
    /// A URL that no daemon can be at.
    #[error("--connect {url}: {why}; write it like http://127.0.0.1:9723")]
    BadUrl {
        /// As it was written.
        url: Name,
        /// What is wrong with it.
        why: String,
    },
    /// A recording that cannot be read, or is none.
    #[error("--replay {}: {why}; `lockprof top --record FILE` makes a recording", file.display())]
    BadRecording {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file to record into cannot be opened.
    #[error("--record {}: {why}; name a file that can be appended to", file.display())]
    CannotRecord {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Records of several hosts would mix in one file.
    #[error(
        "--record takes one source and there are {0}; run `lockprof top --record` once for each --connect"
    )]
    RecordOfSeveral(usize),
    /// Nothing to draw on.
    #[error(
        "standard input and output are no terminal; `lockprof top --once` prints one frame, with --json as JSON"
    )]
    NoTerminal,
    /// The kernel does not let this process lock its memory.
    #[error(
        "--lock-memory: {0}; it takes CAP_IPC_LOCK or a larger `ulimit -l`, or leave the option out"
    )]
    MemoryNotLocked(std::io::Error),
    /// A source gave no snapshot when one was needed: its name, what happened, and
    /// what to do.
    #[error("{0}")]
    NoSnapshot(String),
    /// The terminal failed or went away.
    #[error("the terminal: {0}")]
    Terminal(#[from] std::io::Error),
    /// A thread ended by a panic, which was printed.
    #[error("the thread that reads {0} panicked, see above; please report it")]
    Panicked(String),
}

impl TopError {
    /// Whether the arguments are at fault.
    pub const fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::BadUrl { .. }
                | Self::BadClientConfig(_)
                | Self::BadRecording { .. }
                | Self::CannotRecord { .. }
                | Self::RecordOfSeveral(_)
                | Self::NoTerminal
        )
    }

    /// Whether privileges are missing.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::MemoryNotLocked(_))
    }
}
