//! The endpoints.
//!
//! In: requests and a [`SnapshotSource`]. Out: responses. Every answer is made
//! from the latest snapshot alone; only `/metrics` reads three files of
//! `/proc/self` besides, for the `process_*` metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRef, State};
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::answers::Answers;
use super::exposition::{Format, render};
use super::negotiate::negotiate;
use super::places::Places;
use super::process::Process;
use super::{Health, SnapshotSource};
use crate::snapshot::Snapshot;

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

/// Text for people.
pub(super) const PLAIN: &str = "text/plain; charset=utf-8";

type Source = Arc<dyn SnapshotSource>;

/// What a large body is made in; `None` for JSON.
type Form = Option<Format>;

/// What the endpoints are made of.
#[derive(Clone)]
struct Endpoints {
    source: Source,
    answers: Answers<Form>,
}

impl FromRef<Endpoints> for Source {
    fn from_ref(endpoints: &Endpoints) -> Self {
        endpoints.source.clone()
    }
}

impl FromRef<Endpoints> for Answers<Form> {
    fn from_ref(endpoints: &Endpoints) -> Self {
        endpoints.answers.clone()
    }
}

/// The endpoints over `source`, for connections that have `places`.
pub(super) fn router(source: Source, places: Arc<Places>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/v1/snapshot", get(snapshot))
        .route("/", get(index))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(Endpoints { source, answers: Answers::new(places) })
}

async fn metrics(
    State(source): State<Source>,
    State(answers): State<Answers<Form>>,
    headers: HeaderMap,
) -> Response {
    let Some(format) = accepted(&headers) else {
        let offered: String =
            Format::ALL.iter().map(|f| format!("  {}\n", f.content_type())).collect();
        let body = format!("no format matches the Accept header; offered are\n{offered}");
        return reply(StatusCode::NOT_ACCEPTABLE, PLAIN, body);
    };
    let render = |(snapshot, containers)| {
        render(snapshot, containers, source.health().since, Process::read(), format)
    };
    match answers.get(Some(format), || source.with_containers(), render).await {
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

async fn snapshot(State(source): State<Source>, State(answers): State<Answers<Form>>) -> Response {
    let render = |(snapshot, ()): (Arc<Snapshot>, ())| serde_json::to_vec(snapshot.as_ref());
    match answers.get(None, || (source.snapshot(), ()), render).await {
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

/// A response with the headers that all have.
pub(super) fn reply(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (VARY, HeaderValue::from_static("accept")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, body.into()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::http::Request;
    use axum::http::header::ALLOW;
    use tower::ServiceExt;

    use super::*;
    use crate::serve::example::{self, Still};
    use crate::serve::places::Limits;

    async fn send(source: Still, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
        let places = Places::new(1, Limits::default());
        let response = router(Arc::new(source), places).oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, headers, String::from_utf8_lossy(&body).into_owned())
    }

    async fn get(source: Still, path: &str) -> (StatusCode, HeaderMap, String) {
        send(source, Request::get(path).body(Body::empty()).unwrap()).await
    }

    #[tokio::test]
    async fn metrics_come_with_the_content_type_of_their_format() {
        for format in Format::ALL {
            let request = Request::get("/metrics")
                .header(ACCEPT, format.content_type())
                .body(Body::empty())
                .unwrap();
            let (status, headers, body) = send(Still::healthy(), request).await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(headers[CONTENT_TYPE], format.content_type());
            assert_eq!(headers[VARY], "accept");
            assert!(body.contains("lockprof_lock_wait_seconds"));
        }
    }

    #[tokio::test]
    async fn several_accept_lines_count_as_one() {
        let request = Request::get("/metrics")
            .header(ACCEPT, "application/json")
            .header(ACCEPT, "application/openmetrics-text")
            .body(Body::empty())
            .unwrap();
        let (_, headers, _) = send(Still::healthy(), request).await;
        assert_eq!(headers[CONTENT_TYPE], Format::OpenMetrics.content_type());
    }

    #[tokio::test]
    async fn an_accept_header_without_an_offered_format_is_told_what_there_is() {
        for accept in ["application/json", "\u{fc}"] {
            let request =
                Request::get("/metrics").header(ACCEPT, accept).body(Body::empty()).unwrap();
            let (status, _, body) = send(Still::healthy(), request).await;
            assert_eq!(status, StatusCode::NOT_ACCEPTABLE);
            for format in Format::ALL {
                assert!(body.contains(format.content_type()), "{body}");
            }
        }
    }

    #[tokio::test]
    async fn health_follows_the_reader() {
        let mut source = Still::healthy();
        source.health.since_tick = STALE_AFTER;
        let (status, _, body) = get(source, "/healthz").await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "ok\n"));

        let mut source = Still::healthy();
        source.health.since_tick = STALE_AFTER + Duration::from_millis(2300);
        let (status, _, body) = get(source, "/healthz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("no progress for 12.3 s"), "{body}");
    }

    #[tokio::test]
    async fn readiness_follows_the_hooks_and_names_those_missing() {
        let (status, _, body) = get(Still::healthy(), "/readyz").await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "ready\n"));

        let mut source = Still::healthy();
        source.health.attached = false;
        source.snapshot.hooks[1].backend = "none".into();
        let (status, _, body) = get(source, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("not attached: contention_end, sys_open_tree_attr;"), "{body}");
    }

    #[tokio::test]
    async fn the_snapshot_reads_back_from_its_json() {
        let (status, headers, body) = get(Still::healthy(), "/api/v1/snapshot").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers[CONTENT_TYPE], "application/json");
        assert_eq!(serde_json::from_str::<Snapshot>(&body).unwrap(), example::snapshot());
    }

    #[tokio::test]
    async fn every_listed_path_exists() {
        for (path, _) in ENDPOINTS {
            let (status, _, body) = get(Still::healthy(), path).await;
            assert_eq!(status, StatusCode::OK, "{path}: {body}");
        }
        let (_, _, index) = get(Still::healthy(), "/").await;
        assert!(ENDPOINTS.iter().all(|(path, _)| index.contains(path)), "{index}");
    }

    #[tokio::test]
    async fn an_unknown_path_is_told_the_known_ones() {
        let (status, _, body) = get(Still::healthy(), "/metric").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(body.contains("nothing at \"/metric\""), "{body}");
        assert!(body.contains("/metrics "), "{body}");
    }

    #[tokio::test]
    async fn another_method_is_refused_with_those_allowed() {
        let request = Request::post("/metrics").body(Body::from("x")).unwrap();
        let (status, headers, body) = send(Still::healthy(), request).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(headers[ALLOW], "GET,HEAD");
        assert_eq!(body, "\"/metrics\" does not take POST; use GET\n");
    }

    #[tokio::test]
    async fn head_has_the_headers_without_the_body() {
        let request = Request::head("/metrics").body(Body::empty()).unwrap();
        let (status, headers, body) = send(Still::healthy(), request).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers[CONTENT_TYPE], Format::Text.content_type());
        assert_eq!(body, "");
    }
}
