//! What was received from one host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{History, Showing};
use crate::top::window::{Since, Window};

/// What a source sends.
#[derive(Debug)]
pub(crate) enum Update {
    /// A window.
    Window(Box<Window>),
    /// Nothing new: the same totals again.
    Same,
    /// It could not be read; why, and what to do.
    Failed(String),
    /// A recording came to its end.
    Ended,
    /// Recording stopped; why.
    NotRecorded(String),
}

/// One host.
#[derive(Debug)]
pub(crate) struct HostState {
    /// What the user called it.
    name: String,
    latest: Option<Arc<Window>>,
    paused: Option<Arc<Window>>,
    worst: Option<Arc<Window>>,
    received: Option<Instant>,
    /// Windows that went by.
    pub(crate) history: History,
    /// Why the last read failed; `None` when it did not.
    pub(crate) error: Option<String>,
    /// Why nothing is recorded any more.
    pub(crate) not_recorded: Option<String>,
    /// Whether a recording came to its end.
    pub(crate) ended: bool,
}

impl HostState {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            latest: None,
            paused: None,
            worst: None,
            received: None,
            history: History::default(),
            error: None,
            not_recorded: None,
            ended: false,
        }
    }

    /// Its own name, or until that is known what the user called it.
    pub(crate) fn name(&self) -> &str {
        let own = self.latest.as_ref().map(|window| window.totals.host.name.as_str());
        own.filter(|name| !name.is_empty()).unwrap_or(&self.name)
    }

    /// The window to show.
    pub(crate) fn shown(&self, showing: Showing) -> Option<&Window> {
        match showing {
            Showing::Live => self.latest.as_deref(),
            Showing::Paused => self.paused.as_deref(),
            Showing::Worst => self.worst.as_deref(),
        }
    }

    /// How old the latest window is at `now`.
    pub(crate) fn age(&self, now: Instant) -> Option<Duration> {
        self.received.map(|received| now.saturating_duration_since(received))
    }

    pub(super) fn receive(&mut self, update: Update, now: Instant) {
        match update {
            Update::Window(window) => {
                let window = Arc::<Window>::from(window);
                match window.since {
                    Since::Before => {
                        self.history.push(&window);
                        let worst = self.worst.as_ref().map_or(0.0, |worst| worst.waited());
                        if window.waited() > worst {
                            self.worst = Some(window.clone());
                        }
                    }
                    // Another run of the counters: no moment of this one.
                    Since::Restart => self.history.clear(),
                    Since::Attach => {}
                }
                self.latest = Some(window);
                self.received = Some(now);
                self.error = None;
            }
            Update::Same => self.error = None,
            Update::Failed(why) => self.error = Some(why),
            Update::Ended => self.ended = true,
            Update::NotRecorded(why) => self.not_recorded = Some(why),
        }
    }

    pub(super) fn pause(&mut self) {
        self.paused.clone_from(&self.latest);
    }

    pub(super) fn forget(&mut self) {
        self.history.clear();
        self.worst = None;
    }
}
