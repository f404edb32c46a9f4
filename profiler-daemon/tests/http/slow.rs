//! Clients that hold a place and let go of it never: the daemon takes it back.

use std::time::Duration;

use lockprof::serve::{Format, MAX_CONNECTIONS};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::common;
use super::crowd::allow_descriptors;
use super::daemon::{Daemon, PATIENCE};
use super::exposition::Exposition;
use super::wire::{self, Answer, Client};
use crate::needs_bpf;

/// What it takes its time with.
#[derive(Clone, Copy, Debug)]
enum Slow {
    /// It says nothing.
    Silent,
    /// It sends its request a byte a second.
    Head,
    /// It asks for much and reads nothing.
    Deaf,
    /// It asks for much and reads a byte a second.
    Sip,
}

const KINDS: [Slow; 4] = [Slow::Silent, Slow::Head, Slow::Deaf, Slow::Sip];

/// Enough answers to fill what the kernel buffers for a connection many times.
const ASKED: usize = 400;

#[test]
fn slow_clients_keep_nobody_out_and_their_places_come_back() {
    needs_bpf!("slow_clients_keep_nobody_out_and_their_places_come_back");
    allow_descriptors(1000);
    let mut daemon = Daemon::start("");
    let good = || {
        let mut client = Client::connect_for(daemon.address, PATIENCE).expect("it listens");
        let answer = client.get("/metrics", Format::Text.content_type()).expect("it answers");
        Exposition::read(&answer, Format::Text).expect("whole metrics");
        answer.body.len() as u64
    };
    let largest = (0..50).map(|_| good()).max().expect("some");
    let descriptors = daemon.descriptors();
    let before = daemon.memory();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("an event loop");
    let mut slow = JoinSet::new();

    // As many as leave one place: whoever comes next does not even notice.
    for number in 0..MAX_CONNECTIONS - 1 {
        slow.spawn_on(hold(daemon.address, KINDS[number % KINDS.len()]), runtime.handle());
    }
    let all = descriptors + MAX_CONNECTIONS - 1;
    while daemon.descriptors() < all {
        std::thread::sleep(Duration::from_millis(1));
    }
    good();
    assert!(daemon.descriptors() >= all, "a slow client had to go before a good one was served");

    // Half as many again, who all come before the good one.
    for number in 0..MAX_CONNECTIONS / 2 {
        slow.spawn_on(hold(daemon.address, KINDS[number % KINDS.len()]), runtime.handle());
    }
    while daemon.descriptors() < descriptors + MAX_CONNECTIONS {
        std::thread::sleep(Duration::from_millis(1));
    }
    let during = daemon.memory();
    for _ in 0..10 {
        good();
    }
    daemon.await_descriptors(descriptors);
    assert_eq!(slow.len(), MAX_CONNECTIONS - 1 + MAX_CONNECTIONS / 2, "they all still hold on");

    // Every place is there for someone else now: all are served at once.
    let mut clients: Vec<_> = (0..MAX_CONNECTIONS)
        .map(|_| Client::connect(daemon.address).expect("it listens"))
        .collect();
    for _ in 0..2 {
        for client in &mut clients {
            assert_eq!(client.get("/healthz", "*/*").expect("it answers").status, 200);
        }
    }
    drop(clients);
    daemon.await_descriptors(descriptors);
    let after = daemon.memory();
    eprintln!("KiB: {} before, {} during, {} after", before >> 10, during >> 10, after >> 10);
    let served = MAX_CONNECTIONS as u64 * (4 * largest + (32 << 10));
    assert!(during <= before + served, "{during} bytes, {before} before, {served} allowed");
    daemon.check_unharmed();
}

/// Holds a place for as long as this program runs.
async fn hold(address: std::net::SocketAddr, how: Slow) {
    let socket = TcpSocket::new_v4().expect("a socket");
    // The least that the kernel allows.
    socket.set_recv_buffer_size(1).expect("it may be small");
    let Ok(mut stream) = socket.connect(address).await else { return std::future::pending().await };
    match how {
        Slow::Silent => {}
        Slow::Head => drip(&mut stream).await,
        Slow::Deaf | Slow::Sip => {
            let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(ASKED);
            let sip = matches!(how, Slow::Sip);
            // It takes no more requests while it cannot answer those it has.
            let (mut from, mut to) = stream.split();
            let ask = async {
                let _ = to.write_all(request.as_bytes()).await;
                std::future::pending::<()>().await;
            };
            let read = async {
                while sip && from.read_u8().await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::join!(ask, read);
        }
    }
    std::future::pending::<()>().await;
    drop(stream);
}

/// Sends a request that has no end, a byte a second.
async fn drip(stream: &mut TcpStream) {
    let head = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: ".iter().chain([&b'x'; 1 << 16]);
    for byte in head {
        if stream.write_u8(*byte).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[test]
fn a_client_that_takes_an_answer_in_small_sips_gets_all_of_it() {
    needs_bpf!("a_client_that_takes_an_answer_in_small_sips_gets_all_of_it");
    let mut daemon = Daemon::start("");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
    let whole = async {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(1).expect("it may be small");
        let mut stream = socket.connect(daemon.address).await.expect("it listens");
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.expect("it fits in the socket");
        let (mut bytes, mut sip) = (Vec::new(), [0; 512]);
        loop {
            match stream.read(&mut sip).await.expect("it is not cut off") {
                0 => return bytes,
                n => bytes.extend_from_slice(&sip[..n]),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let bytes = runtime.block_on(async { tokio::time::timeout(PATIENCE, whole).await });
    let answers = Answer::all(&bytes.expect("it ends")).expect("whole answers");
    Exposition::read(&answers[0], Format::Text).expect("whole metrics");
    assert_eq!(wire::get(daemon.address, "/healthz").expect("it answers").status, 200);
    daemon.check_unharmed();
}
