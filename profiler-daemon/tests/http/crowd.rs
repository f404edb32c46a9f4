//! A thousand scrapes at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lockprof::serve::{Format, MAX_CONNECTIONS};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

use super::daemon::{Daemon, PATIENCE};
use super::exposition::Exposition;
use super::wire::{self, Answer};
use super::{common, wire::Client};
use crate::needs_bpf;

/// Clients.
const CROWD: usize = 1000;

/// Crowds, at most.
const CROWDS: usize = 6;

/// Bytes of memory that a crowd may leave taken: 200 for each of its connections.
const KEPT: u64 = CROWD as u64 * 200;

#[test]
fn a_thousand_scrapes_at_once_all_get_whole_answers_and_leave_nothing_behind() {
    needs_bpf!("a_thousand_scrapes_at_once_all_get_whole_answers_and_leave_nothing_behind");
    allow_descriptors(2 * CROWD as u64);
    let mut daemon = Daemon::start("");
    let mut largest = 0;
    for _ in 0..50 {
        for format in Format::ALL {
            let mut client = Client::connect(daemon.address).expect("it listens");
            let answer = client.get("/metrics", format.content_type()).expect("it answers");
            largest = largest.max(answer.body.len() as u64);
        }
    }
    let descriptors = daemon.descriptors();
    let threads = daemon.threads();
    let before = daemon.memory();

    let mut after = Vec::new();
    let mut peak = 0;
    for round in 0..CROWDS {
        let (answers, most) = crowd(&daemon);
        let whole = answers.iter().filter(|answer| answer.is_ok()).count();
        let wrong: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        eprintln!("{whole} whole answers, {} others: {wrong:.5?}", wrong.len());
        assert_eq!(answers.len(), CROWD);
        assert!(wrong.is_empty(), "{wrong:#?}");
        peak = peak.max(most);
        daemon.await_descriptors(descriptors);
        after.push(daemon.memory());
        if round > 0 && after[round] <= after[round - 1] + KEPT {
            break;
        }
    }
    eprintln!(
        "descriptors {descriptors}; KiB: {} before, {} at most, {:?} after, {} the largest body",
        before >> 10,
        peak >> 10,
        after.iter().map(|bytes| bytes >> 10).collect::<Vec<_>>(),
        largest >> 10,
    );
    daemon.await_threads(threads);
    // Of each that is served: the figures, the text that is made of them, and the
    // buffers of the connection. A thousand of them would be ten times as much.
    let served = MAX_CONNECTIONS as u64 * (4 * largest + (32 << 10));
    assert!(peak <= before + served, "{peak} bytes, {before} before, {served} allowed");
    // What one crowd spread over the allocator's pages, the next one uses; a leak
    // grows with each of them.
    let settled = after.windows(2).any(|pair| pair[1] <= pair[0] + KEPT);
    assert!(settled, "{after:?} bytes after each crowd, {KEPT} more allowed in one of them");
    daemon.check_unharmed();
}

/// What became of each of a crowd that has connected and asked before the first
/// one reads; and how much memory the daemon took meanwhile.
fn crowd(daemon: &Daemon) -> (Vec<Result<(), String>>, u64) {
    let address = daemon.address;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
    let peak = AtomicU64::new(0);
    let answers = runtime.block_on(async {
        let together = Arc::new(Barrier::new(CROWD));
        let clients: Vec<_> = (0..CROWD)
            .map(|number| {
                let format = Format::ALL[number % Format::ALL.len()];
                let together = together.clone();
                tokio::spawn(async move {
                    let mut stream = TcpStream::connect(address).await.expect("a place in line");
                    let request = format!(
                        "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {}\r\nConnection: close\r\n\r\n",
                        format.content_type()
                    );
                    stream.write_all(request.as_bytes()).await.expect("it fits in the socket");
                    together.wait().await;
                    let mut bytes = Vec::new();
                    stream.read_to_end(&mut bytes).await.map_err(|error| error.to_string())?;
                    whole(&bytes, format)
                })
            })
            .collect();
        let watched = async {
            loop {
                peak.fetch_max(daemon.memory(), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let all = async {
            let mut answers = Vec::new();
            for client in clients {
                answers.push(client.await.expect("no client panics"));
            }
            answers
        };
        tokio::select! {
            () = watched => unreachable!("it goes on for ever"),
            answers = tokio::time::timeout(PATIENCE, all) => answers.expect("all are answered"),
        }
    });
    (answers, peak.into_inner())
}

/// Whether `bytes` are one answer with all of the metrics.
fn whole(bytes: &[u8], format: Format) -> Result<(), String> {
    match Answer::all(bytes)?.as_slice() {
        [answer] => Exposition::read(answer, format).map(|_| ()),
        answers => Err(format!("{} answers", answers.len())),
    }
}

/// Lets this process open `wanted` descriptors.
pub(crate) fn allow_descriptors(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).expect("below the hard limit");
    }
}

#[test]
fn all_paths_are_answered_to_many_at_once() {
    needs_bpf!("all_paths_are_answered_to_many_at_once");
    let mut daemon = Daemon::start("");
    let descriptors = daemon.descriptors();
    let address = daemon.address;
    std::thread::scope(|scope| {
        for worker in 0..16 {
            scope.spawn(move || {
                for path in ["/", "/healthz", "/readyz", "/api/v1/snapshot", "/metrics"] {
                    for _ in 0..10 {
                        let answer = wire::get(address, path).expect("it answers");
                        assert_eq!(answer.status, 200, "{worker}: {path}");
                        if path.starts_with("/api") {
                            let json: Result<lockprof::snapshot::Snapshot, _> =
                                serde_json::from_slice(&answer.body);
                            json.expect("a whole snapshot");
                        }
                    }
                }
            });
        }
    });
    daemon.await_descriptors(descriptors);
    daemon.check_unharmed();
}
