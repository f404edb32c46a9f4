//! A `lockprof daemon` that is looked at from outside: its log, its memory, its
//! descriptors.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

use super::common::LOCKPROF;
use super::wire;

/// When what is waited for is taken to happen never.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Lets the allocator give back at once what it may, so that what is in memory
/// follows what is allocated, instead of depending on the largest moment so far.
const ALLOCATOR: [(&str, &str); 4] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_MMAP_THRESHOLD_", "65536"),
    ("MALLOC_TRIM_THRESHOLD_", "0"),
    ("MALLOC_TOP_PAD_", "0"),
];

/// Lines that a daemon wrote so far.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

impl Log {
    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running daemon, killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) address: SocketAddr,
    config: NamedTempFile,
    log: Arc<Log>,
}

impl Daemon {
    /// Starts one with this configuration and waits until it is ready.
    pub(crate) fn start(config: &str) -> Self {
        // Inherited: a page of 2 MiB that the kernel puts together now and then would
        // be more than all that is looked for.
        rustix::thread::disable_transparent_huge_pages(true).expect("since Linux 3.15");
        let mut file = NamedTempFile::new().expect("a temporary file");
        file.write_all(config.as_bytes()).expect("it can be written");
        let address = free_address();
        let mut child = Command::new(LOCKPROF)
            .args(["daemon", "--listen", &address.to_string(), "--config"])
            .arg(file.path())
            .envs(ALLOCATOR)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon can be run");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let log = Arc::new(Log::default());
        let written = log.clone();
        // Read all the while: a daemon that logs more than the pipe holds would stop.
        std::thread::spawn(move || {
            for line in stderr.split(b'\n').map_while(Result::ok) {
                written.lines().push(String::from_utf8_lossy(&line).into_owned());
                written.more.notify_all();
            }
        });
        let mut daemon = Self { child, address, config: file, log };
        let began = Instant::now();
        while !wire::get(address, "/readyz").is_ok_and(|answer| answer.status == 200) {
            if let Some(status) = daemon.child.try_wait().expect("it can be awaited") {
                panic!("it ended with {status}: {:#?}", daemon.log.lines());
            }
            assert!(began.elapsed() < PATIENCE, "not ready: {:#?}", daemon.log.lines());
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    /// Replaces the configuration, which is read again at the next SIGHUP.
    pub(crate) fn configure(&self, config: &str) {
        fs::write(self.config.path(), config).expect("it can be written");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// How many lines it has written.
    pub(crate) fn logged(&self) -> usize {
        self.log.lines().len()
    }

    /// Waits until `count` lines from number `from` on contain `text`.
    pub(crate) fn await_logged(&self, from: usize, text: &str, count: usize) {
        let began = Instant::now();
        let mut lines = self.log.lines();
        while lines[from..].iter().filter(|line| line.contains(text)).count() < count {
            assert!(began.elapsed() < PATIENCE, "no {count} times `{text}`: {:#?}", &lines[from..]);
            let waited = self.log.more.wait_timeout(lines, Duration::from_secs(1));
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends SIGHUP and waits until the configuration has been applied.
    pub(crate) fn reload(&self) {
        let from = self.logged();
        self.signal(Signal::HUP);
        self.await_logged(from, "\"reloaded\"", 1);
    }

    /// Bytes of anonymous memory in use.
    ///
    /// From `smaps_rollup`, which walks the pages: `RssAnon` in `status` adds up
    /// per-CPU counters only roughly since Linux 6.2 (f1a7941243c1).
    pub(crate) fn memory(&self) -> u64 {
        let text = self.proc("smaps_rollup");
        let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("since Linux 4.14");
        kib.parse::<u64>().expect("a number") << 10
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("it runs")
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs").count()
    }

    /// Threads.
    pub(crate) fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs").count()
    }

    /// Waits until it has no more than `descriptors` open: that of a connection is
    /// closed a moment after its client has gone.
    pub(crate) fn await_descriptors(&self, descriptors: usize) {
        await_few("descriptors", descriptors, || self.descriptors());
    }

    /// Waits until it has no more than `threads`: the kernel lists one a moment
    /// longer than it takes to join it (`mm_release` comes before `release_task`).
    pub(crate) fn await_threads(&self, threads: usize) {
        await_few("threads", threads, || self.threads());
    }

    /// It runs, answers, and did not panic.
    pub(crate) fn check_unharmed(&mut self) {
        let lines = || self.log.lines().join("\n");
        let status = self.child.try_wait().expect("it can be awaited");
        assert!(status.is_none(), "it ended with {status:?}: {}", lines());
        let answer = wire::get(self.address, "/healthz").expect("it answers");
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"));
        assert!(!lines().contains("panicked"), "{}", lines());
    }
}

/// Waits until there are no more than in the beginning.
fn await_few(what: &str, in_the_beginning: usize, count: impl Fn() -> usize) {
    let began = Instant::now();
    loop {
        let now = count();
        if now <= in_the_beginning {
            return;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "there are {now} {what}, in the beginning there were {in_the_beginning}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("loopback has a free port")
}
