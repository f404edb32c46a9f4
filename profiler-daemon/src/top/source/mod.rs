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
    use crate::top::fixture::{Fixture, totals_of};

    #[test]
    fn a_snapshot_of_another_schema_is_named_as_such() {
        let error = parse(br#"{"schema":2,"locks":7}"#).unwrap_err();
        assert!(error.contains("schema 2") && error.contains("same version"), "{error}");
        let error = parse(b"<html>").unwrap_err();
        assert!(error.contains("not a snapshot"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            proptest::prop_assert!(parse(&bytes).is_err());
        }

        /// Cut anywhere it is an error, and with a byte changed it is one or is still a
        /// snapshot that can be shown.
        #[test]
        fn a_damaged_snapshot_is_an_error_or_a_snapshot(
            at in proptest::prelude::any::<proptest::sample::Index>(),
            byte in proptest::num::u8::ANY,
        ) {
            let mut json = serde_json::to_vec(&totals_of(Fixture::Rich)).unwrap();
            let at = at.index(json.len());
            proptest::prop_assert!(parse(&json[..at]).is_err());
            json[at] = byte;
            if let Ok(snapshot) = parse(&json) {
                let _ = snapshot.since(&totals_of(Fixture::Rich));
                proptest::prop_assert_eq!(snapshot.schema, SCHEMA);
            }
        }
    }

    /// What a hostile daemon may answer with.
    #[test]
    fn deep_json_is_an_error() {
        for open in ["[", "{\"a\":", "{\"schema\":1,\"locks\":["] {
            assert!(parse(open.repeat(100_000).as_bytes()).is_err());
        }
    }
}
