//! Log lines of the BPF programs, in builds with the feature `kernel-log`.
//!
//! They come through a ring buffer, hence from the system-call programs alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use aya::Ebpf;
use aya_log::EbpfLogger;

/// How long a line may lie before it is passed on.
const PERIOD: Duration = Duration::from_millis(100);

/// Passes the lines on to this process's log until dropped.
pub(super) struct KernelLog {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl KernelLog {
    /// Starts a thread for it; says in the log why it cannot.
    pub(super) fn start(ebpf: &mut Ebpf) -> Option<Self> {
        let mut logger = match EbpfLogger::init(ebpf) {
            Ok(logger) => logger,
            Err(error) => {
                tracing::warn!("no log lines from BPF programs: {error}");
                return None;
            }
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                logger.flush();
                std::thread::sleep(PERIOD);
            }
        });
        Some(Self { stop, thread: Some(thread) })
    }
}

impl Drop for KernelLog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in it was printed; there is nothing to add.
            let _ = thread.join();
        }
    }
}
