//! Requests that are too large, broken, or no HTTP at all: each gets the answer
//! that says so, or is closed, and the next client does not notice.

use lockprof::serve::Format;
use rustix::net::sockopt::set_socket_linger;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::common;
use super::daemon::Daemon;
use super::exposition::Exposition;
use super::wire::{self, Answer, Client, SILENCE};
use crate::needs_bpf;

/// What is sent, and the statuses that come back; none where the daemon closes.
type Case = (&'static str, Vec<u8>, &'static [u16]);

/// A request for `/healthz` with these further lines of its head, and a body.
fn with(lines: &str, body: &str) -> Vec<u8> {
    format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{lines}\r\n{body}").into_bytes()
}

fn line(first: &str) -> Vec<u8> {
    format!("{first}\r\nHost: x\r\n\r\n").into_bytes()
}

/// Requests that are in order, if unusual.
fn unusual() -> Vec<Case> {
    let get = with("", "");
    vec![
        ("several at once", get.repeat(5), &[200; 5]),
        ("a body", with("Content-Length: 3\r\n", "abc"), &[200]),
        (
            "a body, and then another",
            [with("Content-Length: 3\r\n", "abc"), get].concat(),
            &[200; 2],
        ),
        ("chunks", with("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"), &[200]),
        ("expectation", with("Expect: 100-continue\r\nContent-Length: 3\r\n", "abc"), &[200]),
        ("upgrade", with("Connection: Upgrade\r\nUpgrade: websocket\r\n", ""), &[200]),
        ("absolute", line("GET http://x/healthz HTTP/1.1"), &[200]),
        ("older", line("GET /healthz HTTP/1.0"), &[200]),
        ("many lines", with(&"X: a\r\n".repeat(90), ""), &[200]),
        ("long line", with(&format!("X: {}\r\n", "a".repeat(15_000)), ""), &[200]),
        ("query", line(&format!("GET /healthz?{} HTTP/1.1", "a=b&".repeat(1000))), &[200]),
        ("nothing there", line("GET /../../etc/passwd HTTP/1.1"), &[404]),
        ("escapes", line("GET /%2e%2e/%00/%ff HTTP/1.1"), &[404]),
        ("double slash", line("GET //metrics HTTP/1.1"), &[404]),
        ("asterisk", line("OPTIONS * HTTP/1.1"), &[404]),
        ("a proxy is wanted", line("CONNECT x:1 HTTP/1.1"), &[404]),
        ("lower case", line("get /healthz HTTP/1.1"), &[405]),
        ("own method", line(&format!("{} /healthz HTTP/1.1", "A".repeat(1000))), &[405]),
        ("long path", line(&format!("GET /{} HTTP/1.1", "a".repeat(15_000))), &[404]),
        (
            "many formats",
            line(&format!("GET /metrics HTTP/1.1\r\nAccept: {}", "x/y;q=0.1,".repeat(1500))),
            &[406],
        ),
    ]
}

/// Requests that are none.
fn broken() -> Vec<Case> {
    let every: Vec<u8> = (0..=u8::MAX).collect();
    let hello = [&b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03"[..], &[0x42; 200]].concat();
    vec![
        ("method", line("G@T /healthz HTTP/1.1"), &[400]),
        ("version", line("GET /healthz HTTP/9.9"), &[400]),
        ("no version", line("GET /healthz"), &[400]),
        ("NUL in the target", line("GET /\0 HTTP/1.1"), &[400]),
        ("NUL in a name", with("X\0: a\r\n", ""), &[400]),
        ("NUL in a value", with("X: \0\r\n", ""), &[400]),
        ("CR in a value", with("X: a\rb\r\n", ""), &[400]),
        ("no colon", with("Xa\r\n", ""), &[400]),
        ("space before the colon", with("X : a\r\n", ""), &[400]),
        ("folded", with("X: a\r\n b\r\n", ""), &[400]),
        ("no UTF-8", [&b"GET /\xff\xfe"[..], &line(" HTTP/1.1")].concat(), &[400]),
        ("NULs", vec![0; 1000], &[400]),
        ("binary", every.repeat(4), &[400]),
        ("TLS", hello, &[400]),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(), &[]),
        ("two lengths", with("Content-Length: 1\r\nContent-Length: 2\r\n", "ab"), &[400]),
        ("negative length", with("Content-Length: -1\r\n", ""), &[400]),
        ("length of 2^64", with("Content-Length: 18446744073709551616\r\n", ""), &[400]),
        ("coding", with("Transfer-Encoding: gzip\r\n", ""), &[400]),
        // The answer does not wait for a body that nobody reads.
        ("too short", with("Content-Length: 1000\r\n", "abc"), &[200]),
        ("too long", with("Content-Length: 1\r\n", "abc def\r\n\r\n"), &[200, 400]),
        ("no chunk", with("Transfer-Encoding: chunked\r\n", "zz\r\nabc\r\n"), &[200]),
        ("2^72", with("Transfer-Encoding: chunked\r\n", "ffffffffffffffffff\r\nabc\r\n"), &[200]),
        // Whoever counts by the length sees another request behind it: closed.
        (
            "length and chunks",
            with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            &[200],
        ),
        ("cut", b"GET /healthz HTTP/1.1\r\nHo".to_vec(), &[]),
        ("nothing", Vec::new(), &[]),
    ]
}

/// Requests that are too much.
fn large() -> Vec<Case> {
    let long = |length| "a".repeat(length);
    vec![
        ("lines", with(&"X: a\r\n".repeat(200), ""), &[431]),
        ("very many lines", with(&"X: a\r\n".repeat(100_000), ""), &[431]),
        ("long line", with(&format!("X: {}\r\n", long(17_000)), ""), &[431]),
        ("very long line", with(&format!("X: {}\r\n", long(4_000_000)), ""), &[431]),
        ("long name", with(&format!("{}: x\r\n", long(70_000)), ""), &[431]),
        ("long method", line(&format!("{} / HTTP/1.1", "A".repeat(20_000))), &[431]),
        ("long target", line(&format!("GET /{} HTTP/1.1", long(17_000))), &[431]),
        ("very long target", line(&format!("GET /{} HTTP/1.1", long(4_000_000))), &[431]),
        (
            "large body",
            [
                line("POST /metrics HTTP/1.1\r\nContent-Length: 16000000"),
                long(16_000_000).into_bytes(),
            ]
            .concat(),
            &[405],
        ),
    ]
}

/// Sends a case and reads the answers that are due, after which nothing comes.
fn statuses(daemon: &Daemon, (name, bytes, expected): &Case) -> Result<Vec<u16>, String> {
    let mut client = Client::connect(daemon.address).expect("it listens");
    // It may have refused and closed before all of it is sent.
    let sent = client.send(bytes);
    let mut statuses = Vec::new();
    for _ in *expected {
        let answer = client.answer().map_err(|why| format!("{name}: {why}; {sent:?}"))?;
        assert!(answer.body.len() < 20_000, "{name}: {} bytes", answer.body.len());
        statuses.push(answer.status);
    }
    let _ = client.finish();
    let rest = client.rest();
    assert_eq!(String::from_utf8_lossy(&rest), "", "{name}: more than {statuses:?}");
    Ok(statuses)
}

#[test]
fn unusual_and_broken_requests_get_the_answers_that_are_due() {
    needs_bpf!("unusual_and_broken_requests_get_the_answers_that_are_due");
    let mut daemon = Daemon::start("");
    let descriptors = daemon.descriptors();
    for case in unusual().iter().chain(&broken()) {
        assert_eq!(statuses(&daemon, case).expect("answers"), case.2, "{}", case.0);
    }
    daemon.await_descriptors(descriptors);
    daemon.check_unharmed();
}

#[test]
fn requests_that_are_too_large_are_refused_unread() {
    needs_bpf!("requests_that_are_too_large_are_refused_unread");
    let mut daemon = Daemon::start("");
    let descriptors = daemon.descriptors();
    let cases = large();
    let round = || -> usize {
        let answered = |case: &&Case| match statuses(&daemon, case) {
            Ok(statuses) => {
                assert!(case.2.contains(&statuses[0]), "{}: {statuses:?}", case.0);
                true
            }
            Err(why) => {
                eprintln!("{why}");
                false
            }
        };
        cases.iter().filter(answered).count()
    };
    round();
    let before = daemon.memory();
    let answered: usize = (0..20).map(|_| round()).sum();
    let after = daemon.memory();
    eprintln!("{answered} of {} answered; {before} bytes before, {after} after", 20 * cases.len());
    assert!(answered > 0);
    // One of the bodies that were sent has 16 MB.
    assert!(after <= before + (1 << 20), "{before} bytes before, {after} after");
    daemon.await_descriptors(descriptors);
    daemon.check_unharmed();
}

#[test]
fn whoever_asks_for_the_head_gets_no_body() {
    needs_bpf!("whoever_asks_for_the_head_gets_no_body");
    let mut daemon = Daemon::start("");
    let mut stream = TcpStream::connect(daemon.address).expect("it listens");
    stream.set_read_timeout(Some(SILENCE)).expect("it can be set");
    let request = b"HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("it fits in the socket");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("it closes");
    let answer = Answer::read(&mut &bytes[..], true).expect("a head").expect("one");
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some(Format::Text.content_type()))
    );
    assert!(bytes.ends_with(b"\r\n\r\n"), "{}", String::from_utf8_lossy(&bytes));
    daemon.check_unharmed();
}

/// How `nc -N` and others ask.
#[test]
fn a_client_that_has_said_all_it_wants_gets_its_answers() {
    needs_bpf!("a_client_that_has_said_all_it_wants_gets_its_answers");
    let mut daemon = Daemon::start("");
    let descriptors = daemon.descriptors();
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    for round in 0..200 {
        let count = [1, 3, 30][round % 3];
        let bytes = wire::say(daemon.address, &request.repeat(count));
        let answers = Answer::all(&bytes).expect("whole answers");
        assert_eq!(answers.len(), count, "answers in round {round}");
        for answer in &answers {
            Exposition::read(answer, Format::Text).expect("whole metrics");
        }
    }
    daemon.await_descriptors(descriptors);
    daemon.check_unharmed();
}

#[test]
fn clients_that_reset_their_connections_leave_nothing_behind() {
    needs_bpf!("clients_that_reset_their_connections_leave_nothing_behind");
    let mut daemon = Daemon::start("");
    let descriptors = daemon.descriptors();
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50);
    let abandon = || {
        // What is sent, and how much of the answer is read, before the reset.
        for (sent, read) in [
            (0, 0),
            (1, 0),
            (20, 0),
            (36, 0),
            (36, 1),
            (36, 5000),
            (request.len(), 0),
            (request.len(), 100),
        ] {
            let mut stream = TcpStream::connect(daemon.address).expect("it listens");
            stream.set_read_timeout(Some(SILENCE)).expect("it can be set");
            stream.write_all(&request[..sent]).expect("it fits in the socket");
            stream.read_exact(&mut vec![0; read]).expect("the answer begins");
            set_socket_linger(&stream, Some(Duration::ZERO)).expect("a TCP socket");
        }
    };
    (0..20).for_each(|_| abandon());
    daemon.await_descriptors(descriptors);
    let before = daemon.memory();
    (0..200).for_each(|_| abandon());
    daemon.await_descriptors(descriptors);
    let after = daemon.memory();
    eprintln!("{before} bytes before, {after} after 1600 resets");
    // Less than a small page for ten of them.
    assert!(after <= before + (512 << 10), "{before} bytes before, {after} after");
    daemon.check_unharmed();
}
