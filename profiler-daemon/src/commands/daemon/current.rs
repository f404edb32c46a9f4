//! What is served at the moment: a session, which a reload may replace.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use crate::cli::Settings;
use crate::commands::session::Session;
use crate::serve::{Health, SnapshotSource};
use crate::snapshot::Snapshot;
use crate::snapshot::containers::{ContainerTimes, TopContainers};

/// A session, and the counters of containers that are made from its snapshots.
pub(super) struct Served {
    pub(super) session: Session,
    containers: Mutex<TopContainers>,
}

impl Served {
    pub(super) fn new(session: Session, settings: &Settings) -> Arc<Self> {
        let containers = Mutex::new(TopContainers::new(most_containers(settings)));
        Arc::new(Self { session, containers })
    }

    pub(super) fn containers(&self) -> MutexGuard<'_, TopContainers> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> (Arc<Snapshot>, Arc<ContainerTimes>) {
        // Before the snapshot is read: two scrapes at once must not bring theirs
        // in the wrong order.
        let mut containers = self.containers();
        let snapshot = self.session.counters();
        let times = containers.update(&snapshot);
        (snapshot, times)
    }
}

/// Without attribution there is nothing that could be told apart.
pub(super) fn most_containers(settings: &Settings) -> u32 {
    if settings.attribution.rows == 0 { 0 } else { settings.containers }
}

/// The session that is served; a reload may replace it.
pub(super) struct Current {
    served: RwLock<Arc<Served>>,
    last_tick: Mutex<Instant>,
}

impl Current {
    pub(super) fn new(served: Arc<Served>) -> Self {
        Self { served: RwLock::new(served), last_tick: Mutex::new(Instant::now()) }
    }

    pub(super) fn get(&self) -> Arc<Served> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serves another session; the one before.
    pub(super) fn replace(&self, served: Arc<Served>) -> Arc<Served> {
        let mut now = self.served.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *now, served)
    }

    pub(super) fn tick(&self) {
        self.get().read();
        *self.last_tick.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl SnapshotSource for Current {
    fn snapshot(&self) -> Arc<Snapshot> {
        self.get().session.snapshot()
    }

    fn with_containers(&self) -> (Arc<Snapshot>, Arc<ContainerTimes>) {
        self.get().read()
    }

    fn health(&self) -> Health {
        let last_tick = *self.last_tick.lock().unwrap_or_else(PoisonError::into_inner);
        Health {
            since: self.get().session.since(),
            since_tick: last_tick.elapsed(),
            // A session without both ends of a wait does not start.
            attached: true,
        }
    }
}
