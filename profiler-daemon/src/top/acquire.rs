//! A thread for each source: reads totals, records them, sends windows.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::app::Event;
use super::source::{Recorder, Source};
use super::state::Update;
use super::window::Windows;

/// What the screen asks of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Another time between two reads.
    Interval(Duration),
    /// Read now.
    Now,
}

/// A source with all that its thread has.
pub(super) struct Acquisition {
    pub(super) host: usize,
    pub(super) source: Box<dyn Source>,
    pub(super) recorder: Option<Recorder>,
    pub(super) interval: Duration,
    pub(super) commands: Receiver<Command>,
    pub(super) events: Sender<Event>,
}

/// Says that the thread ended, however it did.
struct Ended {
    host: usize,
    events: Sender<Event>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.events.send(Event::Panicked(self.host));
        }
    }
}

impl Acquisition {
    /// Reads until nobody listens any more, or nothing is left to read.
    pub(super) fn run(mut self) {
        let _ended = Ended { host: self.host, events: self.events.clone() };
        let mut windows = Windows::default();
        loop {
            let began = Instant::now();
            let update = match self.source.read() {
                Ok(Some(totals)) => {
                    if let Some(recorder) = &mut self.recorder
                        && let Err(error) = recorder.record(&totals)
                    {
                        self.recorder = None;
                        self.send(Update::NotRecorded(error.to_string()));
                    }
                    windows.next(totals).map_or(Update::Same, |w| Update::Window(Box::new(w)))
                }
                Ok(None) => Update::Ended,
                Err(why) => Update::Failed(why),
            };
            let ended = matches!(update, Update::Ended);
            if !self.send(update) || ended || !self.wait(began) {
                return;
            }
        }
    }

    fn send(&self, update: Update) -> bool {
        self.events.send(Event::Source(self.host, update)).is_ok()
    }

    /// Until the next read is due; whether there is to be one.
    fn wait(&mut self, began: Instant) -> bool {
        // On a machine that answers slowly at least as long a rest as the read
        // took: reading must not become the load.
        let took = began.elapsed();
        loop {
            let due = began + self.interval.max(took * 2);
            match self.commands.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) | Ok(Command::Now) => return true,
                Ok(Command::Interval(interval)) => self.interval = interval,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}
