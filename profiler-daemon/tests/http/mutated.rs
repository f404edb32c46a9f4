//! Requests of all kinds, mutated at random.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use rustix::net::sockopt::set_socket_linger;

use super::common;
use super::daemon::Daemon;
use super::wire::SILENCE;
use crate::needs_bpf;

/// Requests, at most.
const REQUESTS: u32 = 6000;
/// Requests between two looks at the memory.
const EACH: u64 = 500;
/// Bytes that a request may leave behind, in each of four parts of all.
const LEAK: u64 = 100;
/// Bytes of what is sent over one connection, at most.
const LONGEST: usize = 1 << 20;
/// When no more are begun.
const ENOUGH: Duration = Duration::from_secs(90);
/// Names a seed, to see again what came of it.
const SEED: &str = "LOCKPROF_TEST_SEED";

/// What the mutations begin with.
const SEEDS: [&str; 8] = [
    "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited\r\n\r\n",
    "GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n",
    "GET /api/v1/snapshot HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "HEAD /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YTpi\r\n\r\n",
    "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde",
    "GET /readyz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na",
];

/// What they put in.
const WORDS: [&[u8]; 24] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"/",
    b"%",
    b"%00",
    b"?",
    b";q=",
    b",",
    b"\xff",
    b"\xc3\xa4",
    b"HTTP/1.1",
    b"-1",
    b"18446744073709551615",
    b"Content-Length: 7\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Accept: */*\r\n",
    b"Upgrade: h2c\r\nConnection: Upgrade\r\n",
];

/// Chances.
struct Dice(TestRng);

impl Dice {
    fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
    }

    /// Below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.0.next_u64() % end as u64).expect("below a usize")
    }

    fn one<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A place in `bytes`, its end among them, and how many bytes from there, which
    /// are few as a rule.
    fn range(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(bytes.len() + 1);
        let most = if self.below(4) == 0 { bytes.len() } else { 8 };
        start..bytes.len().min(start + self.below(most + 1))
    }

    /// Some requests, one after the other, with some mutations.
    fn request(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..=self.below(3) {
            bytes.extend_from_slice(self.one(&SEEDS).as_bytes());
        }
        for _ in 0..self.below(6) {
            self.mutate(&mut bytes);
            bytes.truncate(LONGEST);
        }
        bytes
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let range = self.range(bytes);
        match self.below(7) {
            0 => bytes.iter_mut().skip(range.start).take(1).for_each(|b| *b ^= 1 << self.below(8)),
            1 => drop(bytes.drain(range)),
            2 => {
                let mut noise = vec![0; range.len()];
                self.0.fill_bytes(&mut noise);
                bytes.splice(range, noise);
            }
            3 => drop(bytes.splice(range.start..range.start, self.one(&WORDS).iter().copied())),
            4 => drop(bytes.splice(range, self.one(&WORDS).iter().copied())),
            5 => {
                let most = LONGEST / range.len().max(1);
                let again = bytes[range.clone()].repeat(most.min(1 + self.below(2000)));
                bytes.splice(range.end..range.end, again);
            }
            _ => {
                let other = self.one(&SEEDS).as_bytes();
                let from = self.range(other);
                bytes.splice(range, other[from].iter().copied());
            }
        }
    }
}

/// Sends it in some pieces; what comes back.
fn send(daemon: &Daemon, dice: &mut Dice, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(daemon.address).expect("it listens");
    stream.set_nodelay(true).expect("a TCP socket");
    stream.set_read_timeout(Some(SILENCE)).expect("it can be set");
    let mut rest = request;
    for _ in 0..dice.below(3) {
        let (piece, others) = rest.split_at(dice.below(rest.len() + 1));
        // It may have refused already.
        let _ = stream.write_all(piece);
        rest = others;
    }
    let _ = stream.write_all(rest);
    let mut answer = Vec::new();
    match dice.below(8) {
        0 => set_socket_linger(&stream, Some(Duration::ZERO)).expect("a TCP socket"),
        1 => {}
        _ => {
            let _ = stream.shutdown(Shutdown::Write);
            if let Err(error) = stream.read_to_end(&mut answer) {
                let kind = error.kind();
                assert_eq!(kind, std::io::ErrorKind::ConnectionReset, "it is silent: {error}");
            }
        }
    }
    answer
}

#[test]
fn mutated_requests_do_not_harm_the_daemon() {
    needs_bpf!("mutated_requests_do_not_harm_the_daemon");
    let seed = std::env::var(SEED).map_or_else(
        |_| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
            u64::from(now.subsec_nanos()) ^ now.as_secs()
        },
        |seed| seed.parse().expect("a number"),
    );
    eprintln!("{SEED}={seed}");
    let mut dice = Dice::new(seed);
    let mut daemon = Daemon::start("");
    let descriptors = daemon.descriptors();
    let began = Instant::now();
    let (mut sent, mut answered, mut accepted) = (0, 0, 0);
    let mut memory = Vec::new();
    while sent < REQUESTS && began.elapsed() < ENOUGH {
        let request = dice.request();
        let answer = send(&daemon, &mut dice, &request);
        let shown =
            || format!("{SEED}={seed}, request {sent}: {:?}", request.escape_ascii().to_string());
        if !answer.is_empty() {
            let status = answer.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
            let status = status.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
            let status: u16 = status.unwrap_or_else(|| panic!("no HTTP came back: {}", shown()));
            assert!(matches!(status, 100 | 200 | 400..500), "{status}: {}", shown());
            answered += 1;
            accepted += u32::from(status == 200);
        }
        sent += 1;
        if u64::from(sent) % EACH == 0 {
            daemon.check_unharmed();
            memory.push(daemon.memory() >> 10);
        }
    }
    eprintln!("{sent} sent, {answered} answered, {accepted} of them with 200; KiB: {memory:?}");
    daemon.await_descriptors(descriptors);
    daemon.check_unharmed();
    // Enough of them went deeper than the first line.
    assert!(answered > sent / 4 && accepted > sent / 20, "{answered}, {accepted} of {sent}");
    // A larger answer than before, or two at once, leaves the heap larger for good; a
    // leak goes on and on.
    let part = (memory.len() / 4).max(1);
    let quarters: Vec<u64> = memory.chunks_exact(part).map(median).collect();
    let growth = quarters.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).min();
    let growth = growth.expect("a thousand requests take less time than there is");
    assert!((growth << 10) / (part as u64 * EACH) < LEAK, "{quarters:?} of {memory:?} KiB");
    let (least, most) = (memory.iter().min(), memory.iter().max());
    assert!(least.zip(most).is_some_and(|(least, most)| most - least < 4 << 10), "{memory:?} KiB");
}

fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values[values.len() / 2]
}
