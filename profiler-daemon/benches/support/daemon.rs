//! The daemon under measurement.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{LOCKPROF, median};

/// A running daemon, stopped when dropped.
pub(crate) struct Daemon {
    child: Child,
    address: SocketAddr,
}

impl Daemon {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let child = Command::new(LOCKPROF)
            .args(["daemon", "--listen", &address.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the daemon can be run");
        let daemon = Self { child, address };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(daemon.address).is_err() || daemon.get("/readyz").0 != 200 {
            assert!(Instant::now() < deadline, "the daemon was not ready after 30 s");
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    /// CPU time in % of a core while scraped once a second.
    pub(crate) fn cpu_percent_while_scraped(&self, seconds: u32) -> f64 {
        let (before, started) = (self.cpu_seconds(), Instant::now());
        for second in 1..=seconds {
            self.get("/metrics");
            let until = started + Duration::from_secs(second.into());
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        (self.cpu_seconds() - before) / started.elapsed().as_secs_f64() * 100.0
    }

    /// From the scheduler's own account, in ns: clock ticks are too coarse.
    fn cpu_seconds(&self) -> f64 {
        let mut ns = 0.0;
        let tasks =
            std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("our child");
        for task in tasks {
            let path = task.expect("listed").path().join("schedstat");
            let text = std::fs::read_to_string(path).expect("schedstats are built in");
            let field = text.split_whitespace().next().expect("three fields");
            ns += field.parse::<f64>().expect("a number");
        }
        ns / 1e9
    }

    /// Resident memory beside the mapped arrays, in MiB.
    pub(crate) fn resident_mib(&self) -> f64 {
        let (all, arrays) = self.resident_kib();
        (all - arrays) / 1024.0
    }

    fn resident_kib(&self) -> (f64, f64) {
        let mappings = self.mappings();
        let sum = |arrays_only: bool| {
            mappings
                .iter()
                .filter(|(name, _, _)| !arrays_only || name.contains("bpf-map"))
                .map(|(_, _, resident)| resident)
                .sum()
        };
        (sum(false), sum(true))
    }

    /// Name, size and resident size in KiB of every mapping.
    fn mappings(&self) -> Vec<(String, f64, f64)> {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps", self.child.id()))
            .expect("smaps of our child");
        let mut mappings: Vec<(String, f64, f64)> = Vec::new();
        for line in text.lines() {
            let kib = |rest: &str| rest.trim().trim_end_matches(" kB").parse().expect("a size");
            if let Some(rest) = line.strip_prefix("Size:") {
                mappings.last_mut().expect("a header first").1 = kib(rest);
            } else if let Some(rest) = line.strip_prefix("Rss:") {
                mappings.last_mut().expect("a header first").2 = kib(rest);
            } else if line.split_whitespace().next().is_some_and(|w| w.contains('-')) {
                mappings.push((line.to_owned(), 0.0, 0.0));
            }
        }
        mappings
    }

    /// Median time of a scrape over one connection, in ms.
    pub(crate) fn service_time_ms(&self, scrapes: usize) -> f64 {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_nodelay(true).expect("a TCP option");
        let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
        let mut writer = stream;
        let times: Vec<f64> = (0..scrapes)
            .map(|_| {
                // Longer than a snapshot is kept, so that each scrape reads.
                std::thread::sleep(Duration::from_millis(60));
                let started = Instant::now();
                writer.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("it reads");
                read_response(&mut reader);
                started.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        median(&times)
    }

    fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .expect("it reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it answers");
        let head = String::from_utf8_lossy(&answer);
        let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok());
        (status.unwrap_or(0), answer)
    }
}

/// Reads one response with a length.
fn read_response(reader: &mut impl std::io::BufRead) {
    let mut length = None;
    loop {
        let mut line = String::new();
        assert_ne!(reader.read_line(&mut line).expect("it answers"), 0, "the connection ended");
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse::<usize>().ok();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length.expect("a length")];
    reader.read_exact(&mut body).expect("the whole body");
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a pid");
        // SAFETY: signals our own child, which is not yet awaited.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let _ = self.child.wait();
    }
}
