//! Connection: where totals come from.
//!
//! [`Http`] asks a daemon, [`Replay`] reads a recording; `lockprof top` by
//! itself brings one that has the programs attached.

mod client;
mod http;
mod record;
mod refusal;
mod replay;

use serde::Deserialize as _;

pub use self::client::ClientConfig;
pub use self::http::Http;
pub use self::record::Recorder;
pub use self::replay::Replay;
use crate::snapshot::{SCHEMA, Snapshot};

/// Something that gives snapshots of totals.
pub trait Source: Send {
    /// What it is called on the screen until a snapshot names its host.
    fn name(&self) -> &str;

    /// The totals of now; `None` when there will be no more.
    ///
    /// # Errors
    ///
    /// In words for the user, with what to do. The next call may succeed.
    fn read(&mut self) -> Result<Option<Snapshot>, String>;

    /// Whether it plays what was recorded.
    fn is_replay(&self) -> bool {
        false
    }
}

/// Most bytes that the JSON of one snapshot may have: a snapshot with full
/// tables has a few MiB.
const LARGEST_SNAPSHOT: u64 = 64 << 20;

/// A snapshot from its JSON.
fn parse(json: &[u8]) -> Result<Snapshot, String> {
    #[derive(serde::Deserialize)]
    struct Version {
        schema: u32,
    }
    // The version first: it explains why the rest may not fit.
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let version = Version::deserialize(&mut deserializer)
        .map_err(|error| format!("not a snapshot of lockprof ({error})"))?;
    if version.schema != SCHEMA {
        return Err(format!(
            "a snapshot of schema {}, and this lockprof reads schema {SCHEMA}; use the same version",
            version.schema
        ));
    }
    serde_json::from_slice(json).map_err(|error| format!("not a snapshot of lockprof ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_of_another_schema_is_named_as_such() {
        let error = parse(br#"{"schema":2,"locks":7}"#).unwrap_err();
        assert!(error.contains("schema 2") && error.contains("same version"), "{error}");
        let error = parse(b"<html>").unwrap_err();
        assert!(error.contains("not a snapshot"), "{error}");
    }
}
