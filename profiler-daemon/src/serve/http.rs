//! The endpoints.
//!
//! In: requests and a [`SnapshotSource`]. Out: responses. Every answer is made
//! from the latest snapshot alone; only `/metrics` reads three files of
//! `/proc/self` besides, for the `process_*` metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::exposition::{Format, render};
use super::negotiate::negotiate;
use super::process::Process;
use super::{Health, SnapshotSource};

/// A reader that has not finished a round for longer than this is stuck.
pub const STALE_AFTER: Duration = Duration::from_secs(10);

/// Paths with what they answer, for `/` and for 404.
const ENDPOINTS: [(&str, &str); 5] = [
    ("/metrics", "metrics: Prometheus text, OpenMetrics or protobuf, by Accept"),
    ("/healthz", "200 while the reader makes progress, else 503"),
    ("/readyz", "200 once lock waits are measured, else 503"),
    ("/api/v1/snapshot", "everything since attach, as JSON"),
    ("/", "this list"),
];

const PLAIN: &str = "text/plain; charset=utf-8";

type Source = Arc<dyn SnapshotSource>;

/// The endpoints over `source`.
pub fn router(source: Arc<dyn SnapshotSource>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/v1/snapshot", get(snapshot))
        .route("/", get(index))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(source)
}

async fn metrics(State(source): State<Source>, headers: HeaderMap) -> Response {
    let Some(format) = accepted(&headers) else {
        let offered: String =
            Format::ALL.iter().map(|f| format!("  {}\n", f.content_type())).collect();
        let body = format!("no format matches the Accept header; offered are\n{offered}");
        return reply(StatusCode::NOT_ACCEPTABLE, PLAIN, body);
    };
    match render(source.snapshot(), source.health().since, Process::read(), format) {
        Ok(body) => reply(StatusCode::OK, format.content_type(), body),
        Err(error) => failed(&error),
    }
}

/// The format that the client takes. Several `Accept` lines count as one; a
/// line that is no text matches nothing.
fn accepted(headers: &HeaderMap) -> Option<Format> {
    if !headers.contains_key(ACCEPT) {
        return negotiate(None);
    }
    let lines: Vec<&str> =
        headers.get_all(ACCEPT).iter().map(|line| line.to_str().unwrap_or("unreadable")).collect();
    negotiate(Some(&lines.join(",")))
}

async fn healthz(State(source): State<Source>) -> Response {
    let Health { since_tick, .. } = source.health();
    if since_tick <= STALE_AFTER {
        return reply(StatusCode::OK, PLAIN, "ok\n");
    }
    let body = format!(
        "the reader has made no progress for {:.1} s (limit {} s); see the log of the daemon, \
         and restart it if that says nothing\n",
        since_tick.as_secs_f64(),
        STALE_AFTER.as_secs()
    );
    reply(StatusCode::SERVICE_UNAVAILABLE, PLAIN, body)
}

async fn readyz(State(source): State<Source>) -> Response {
    if source.health().attached {
        return reply(StatusCode::OK, PLAIN, "ready\n");
    }
    let snapshot = source.snapshot();
    let missing: Vec<&str> =
        snapshot.hooks.iter().filter(|h| h.backend == "none").map(|h| h.hook.as_str()).collect();
    let missing = if missing.is_empty() {
        "no hook was tried yet".to_owned()
    } else {
        format!("not attached: {}", missing.join(", "))
    };
    let body = format!("lock waits are not measured; {missing}; `lockprof doctor` says why\n");
    reply(StatusCode::SERVICE_UNAVAILABLE, PLAIN, body)
}

async fn snapshot(State(source): State<Source>) -> Response {
    match serde_json::to_vec(source.snapshot().as_ref()) {
        Ok(json) => reply(StatusCode::OK, "application/json", json),
        Err(error) => failed(&error),
    }
}

async fn index() -> Response {
    reply(StatusCode::OK, PLAIN, format!("lockprof {}\n\n{}", env!("CARGO_PKG_VERSION"), listing()))
}

async fn not_found(uri: Uri) -> Response {
    // The debug form spells out what is not printable.
    let body = format!("nothing at {:?}; there is\n\n{}", uri.path(), listing());
    reply(StatusCode::NOT_FOUND, PLAIN, body)
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    let body = format!("{:?} does not take {method}; use GET\n", uri.path());
    reply(StatusCode::METHOD_NOT_ALLOWED, PLAIN, body)
}

fn listing() -> String {
    ENDPOINTS.iter().map(|(path, about)| format!("{path:18}{about}\n")).collect()
}

/// An error that is ours. The client learns that it happened, the log what.
fn failed(error: &(dyn std::error::Error + 'static)) -> Response {
    tracing::error!(error, "failed to answer a request");
    let body = "failed to write the answer; see the log of the daemon\n";
    reply(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, body)
}

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (VARY, HeaderValue::from_static("accept")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, body.into()).into_response()
}
