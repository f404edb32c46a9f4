//! State: what was received last, and what the user looks at.
//!
//! Nothing here reads anything or draws anything.

mod history;
mod host;

use std::time::{Duration, Instant};

pub(crate) use self::history::History;
pub(crate) use self::host::{HostState, Update};
use super::tables::Metric;
use super::window::Window;
use crate::locks::Mode;

/// What fills the screen below the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tab {
    #[default]
    Locks,
    Waiters,
    Blockers,
    Calls,
    Mounts,
    Slow,
    Cpu,
    Hooks,
    Findings,
}

impl Tab {
    /// All of them, in the order of the screen.
    pub(crate) const ALL: [Self; 9] = [
        Self::Locks,
        Self::Waiters,
        Self::Blockers,
        Self::Calls,
        Self::Mounts,
        Self::Slow,
        Self::Cpu,
        Self::Hooks,
        Self::Findings,
    ];

    /// As the screen shows it.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Locks => "Locks",
            Self::Waiters => "Waiters",
            Self::Blockers => "Blockers",
            Self::Calls => "Calls",
            Self::Mounts => "Mounts",
            Self::Slow => "Slow",
            Self::Cpu => "CPU",
            Self::Hooks => "Hooks",
            Self::Findings => "Findings",
        }
    }

    const fn index(self) -> usize {
        self as usize
    }

    /// The tab `by` further on, round and round.
    fn step(self, by: isize) -> Self {
        let count = Self::ALL.len();
        let to = (self.index() + count).saturating_add_signed(by) % count;
        Self::ALL[to]
    }
}

/// Which of the windows is on the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Showing {
    /// The latest.
    #[default]
    Live,
    /// The one that was the latest when the user said stop.
    Paused,
    /// The one with the most time waited per second.
    Worst,
}

/// What is laid over the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Overlay {
    /// Nothing.
    #[default]
    None,
    /// Keys and columns, from this line on.
    Help(u16),
    /// The line that the filter is written in.
    Filter,
}

/// What the user chose in the list of one tab.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListState {
    /// Id of the chosen row; `None` to stay with the first, whichever it is.
    pub(crate) selected: Option<String>,
    /// Column that sorts, and whether the largest come first; `None` for the
    /// table's own order.
    pub(crate) sort: Option<(usize, bool)>,
}

/// Intervals that can be chosen by key.
const INTERVALS: [Duration; 10] = [
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(300),
];

/// Everything that a frame is drawn from.
#[derive(Debug)]
pub(crate) struct State {
    /// The hosts, in the order of the command line; never none.
    pub(crate) hosts: Vec<HostState>,
    /// The one that the tabs are about.
    pub(crate) host: usize,
    /// What fills the screen.
    pub(crate) tab: Tab,
    /// Which window.
    pub(crate) showing: Showing,
    /// What is laid over it.
    pub(crate) overlay: Overlay,
    /// Rows without this text are left out.
    pub(crate) filter: String,
    /// Lock that waiters, blockers and slow waits are limited to.
    pub(crate) scope: Option<String>,
    /// What the lock table shows for each of several hosts.
    pub(crate) metric: Metric,
    /// Time between two reads.
    pub(crate) interval: Duration,
    /// The moment of the frame.
    pub(crate) now: Instant,
    lists: [ListState; Tab::ALL.len()],
}

impl State {
    /// Before anything was received from the hosts of these names.
    pub(crate) fn new(
        names: impl IntoIterator<Item = String>,
        interval: Duration,
        now: Instant,
    ) -> Self {
        Self {
            hosts: names.into_iter().map(HostState::new).collect(),
            host: 0,
            tab: Tab::default(),
            showing: Showing::default(),
            overlay: Overlay::default(),
            filter: String::new(),
            scope: None,
            metric: Metric::Waited,
            interval,
            now,
            lists: Default::default(),
        }
    }

    /// The host that the tabs are about.
    pub(crate) fn current(&self) -> &HostState {
        &self.hosts[self.host.min(self.hosts.len() - 1)]
    }

    /// Its window on the screen.
    pub(crate) fn shown(&self) -> Option<&Window> {
        self.current().shown(self.showing)
    }

    /// What the user chose in the list of `tab`.
    pub(crate) const fn list(&self, tab: Tab) -> &ListState {
        &self.lists[tab.index()]
    }

    /// To change what the user chose in the list of the tab on the screen.
    pub(crate) const fn list_mut(&mut self) -> &mut ListState {
        &mut self.lists[self.tab.index()]
    }

    /// What came from host number `host`.
    pub(crate) fn receive(&mut self, host: usize, update: Update) {
        let now = self.now;
        if let Some(host) = self.hosts.get_mut(host) {
            host.receive(update, now);
        }
    }

    /// To the tab `by` further on.
    pub(crate) fn step_tab(&mut self, by: isize) {
        self.tab = self.tab.step(by);
    }

    /// To the host `by` further on.
    pub(crate) fn step_host(&mut self, by: isize) {
        let count = self.hosts.len();
        self.host = (self.host + count).saturating_add_signed(by) % count;
    }

    /// To the next shorter or longer interval that keys choose.
    pub(crate) fn step_interval(&mut self, longer: bool) {
        let next = if longer {
            INTERVALS.iter().find(|i| **i > self.interval)
        } else {
            INTERVALS.iter().rev().find(|i| **i < self.interval)
        };
        self.interval = next.copied().unwrap_or(self.interval);
    }

    /// Stops at the latest window, or goes on.
    pub(crate) fn toggle_pause(&mut self) {
        if self.showing == Showing::Paused {
            self.showing = Showing::Live;
        } else {
            self.showing = Showing::Paused;
            self.hosts.iter_mut().for_each(HostState::pause);
        }
    }

    /// Shows the worst window, or goes on.
    pub(crate) fn toggle_worst(&mut self) {
        self.showing = if self.showing == Showing::Worst { Showing::Live } else { Showing::Worst };
    }

    /// Forgets the worst windows and what the sparklines show.
    pub(crate) fn forget(&mut self) {
        self.hosts.iter_mut().for_each(HostState::forget);
    }

    /// Undoes one thing: overlay, filter, limit to a lock, frozen window, tab.
    pub(crate) fn back(&mut self) {
        if self.overlay != Overlay::None {
            if self.overlay == Overlay::Filter {
                self.filter.clear();
            }
            self.overlay = Overlay::None;
        } else if !self.filter.is_empty() {
            self.filter.clear();
        } else if self.scope.is_some() {
            self.scope = None;
        } else if self.showing != Showing::Live {
            self.showing = Showing::Live;
        } else {
            self.tab = Tab::Locks;
        }
    }
}

/// A row of the lock table.
pub(crate) type LockKey = (String, Mode);

#[cfg(test)]
mod tests;
