//! `lockprof daemon`: attach, serve, and stop without a trace.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::session::Session;
use crate::cli::settings::Settings;
use crate::serve::http::{self, Health, SnapshotSource};
use crate::snapshot::Snapshot;

/// The session that is served; a reload may replace it.
struct Current(RwLock<Arc<Session>>);

impl Current {
    fn get(&self) -> Arc<Session> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, session: Session) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(session);
    }
}

impl SnapshotSource for Current {
    fn snapshot(&self) -> Arc<Snapshot> {
        self.get().snapshot()
    }

    fn health(&self) -> Health {
        Health { alive: true, ready: true, detail: String::new() }
    }
}

/// Runs until SIGTERM or SIGINT. `load` reads the settings; it is called again
/// on SIGHUP.
///
/// # Errors
///
/// Settings, kernel, privileges or the address to listen on.
pub fn run(
    settings: Settings,
    load: impl Fn() -> anyhow::Result<Settings>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the event loop")?;
    runtime.block_on(serve(settings, load))
}

async fn serve(
    mut settings: Settings,
    load: impl Fn() -> anyhow::Result<Settings>,
) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context("failed to await SIGHUP")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to await SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("failed to await SIGTERM")?;

    // The port first: when it is taken, nothing has been attached yet.
    let listener = http::bind(settings.listen).await?;
    let session = Session::start(&settings)?;
    announce(&session, settings.listen);
    let current = Arc::new(Current(RwLock::new(Arc::new(session))));
    let mut server = Server::start(listener, current.clone());
    notify(&[sd_notify::NotifyState::Ready]);
    let watchdog = tokio::spawn(pet_watchdog(current.clone()));

    let ended = loop {
        tokio::select! {
            _ = interrupt.recv() => break Ok(()),
            _ = terminate.recv() => break Ok(()),
            failed = server.failed() => break Err(failed),
            _ = hangup.recv() => {
                notify(&[
                    sd_notify::NotifyState::Reloading,
                    sd_notify::NotifyState::monotonic_usec_now()
                        .unwrap_or(sd_notify::NotifyState::Status("reloading")),
                ]);
                match reload(&settings, &load, &current, &mut server).await {
                    Ok(new) => settings = new,
                    Err(error) => {
                        tracing::error!("kept the running configuration: {error:#}");
                    }
                }
                notify(&[sd_notify::NotifyState::Ready]);
            }
        }
    };
    notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("stopping");
    watchdog.abort();
    server.stop().await;
    // The last owner of the session is here, so the programs detach now.
    drop(current);
    ended
}

/// Applies the settings as they are now; those that could not be applied leave
/// everything as it was.
async fn reload(
    running: &Settings,
    load: impl Fn() -> anyhow::Result<Settings>,
    current: &Arc<Current>,
    server: &mut Server,
) -> anyhow::Result<Settings> {
    let settings = load()?;
    let listener = if settings.listen == running.listen {
        None
    } else {
        Some(http::bind(settings.listen).await?)
    };
    if !settings.measures_like(running) {
        let session = Session::start(&settings)?;
        announce(&session, settings.listen);
        current.replace(session);
        tracing::info!("counters start again from zero: the watched locks or limits changed");
    }
    if let Some(listener) = listener {
        server.stop().await;
        *server = Server::start(listener, current.clone());
        tracing::info!(listen = %settings.listen, "listening on another address");
    }
    super::logging::set_level(&settings.log.level);
    tracing::info!("reloaded");
    Ok(settings)
}

fn announce(session: &Session, listen: SocketAddr) {
    let watch = session.watch();
    let locks: Vec<_> = watch.locks.iter().map(|lock| lock.name.as_str()).collect();
    let layout = session.programs().layout();
    tracing::info!(
        %listen,
        locks = locks.join(","),
        arrays_bytes = layout.bytes(),
        cpus = layout.cpus,
        numa_nodes = layout.nodes,
        "attached"
    );
}

/// The HTTP server, so that it can be stopped and started on another address.
struct Server {
    stop: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Server {
    fn start(listener: tokio::net::TcpListener, source: Arc<Current>) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let shutdown = async move {
                // An error means that the sender is gone, which stops as well.
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            http::serve(listener, source, shutdown).await.context("the HTTP server failed")
        });
        Self { stop, task }
    }

    /// Ends when the server does, which it should not.
    async fn failed(&mut self) -> anyhow::Error {
        match (&mut self.task).await {
            Ok(Ok(())) => anyhow::anyhow!("the HTTP server ended by itself"),
            Ok(Err(error)) => error,
            Err(error) => anyhow::Error::new(error).context("the HTTP server failed"),
        }
    }

    async fn stop(&mut self) {
        let _ = self.stop.send(true);
        // Clients that linger do not hold up a stop.
        if tokio::time::timeout(Duration::from_secs(2), &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// Tells systemd, if it started us, that the daemon reads its arrays.
async fn pet_watchdog(current: Arc<Current>) {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut ticks = tokio::time::interval(period / 3);
    loop {
        ticks.tick().await;
        // A read that hangs or panics must not look alive.
        current.get().snapshot();
        notify(&[sd_notify::NotifyState::Watchdog]);
    }
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("failed to notify systemd: {error}");
    }
}
