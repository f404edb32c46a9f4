//! The manifests in `packaging/kubernetes`: they fit the API's published schema,
//! and what they ask for is enough for the daemon to measure.

#[path = "../common/mod.rs"]
mod common;

mod bundle;
mod containerfile;
mod manifest;
mod pod;
mod schema;
