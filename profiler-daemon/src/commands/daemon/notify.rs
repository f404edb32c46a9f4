//! What the service manager is told (sd_notify(3)).

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use super::current::Current;

/// How often the arrays are read when nobody scrapes: shows that reading works,
/// and frees slots of tasks that are gone.
const TICK: Duration = Duration::from_secs(5);

/// Reads now and then, and tells systemd that it does, if that asked.
pub(super) async fn tick(current: Arc<Current>) {
    let watchdog = sd_notify::watchdog_enabled();
    let mut ticks = tokio::time::interval(watchdog.map_or(TICK, |period| TICK.min(period / 3)));
    loop {
        ticks.tick().await;
        current.tick();
        if watchdog.is_some() {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

pub(super) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("failed to notify systemd: {error}");
    }
}
