//! `lockprof daemon`: attach, serve, and stop without a trace.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::session::Session;
use crate::cli::Settings;
use crate::serve::access::{Access, AccessFile};
use crate::serve::{self, Health, SnapshotSource};
use crate::snapshot::Snapshot;
use crate::snapshot::containers::{ContainerTimes, TopContainers};

/// How often the arrays are read when nobody scrapes: shows that reading works,
/// and frees slots of tasks that are gone.
const TICK: Duration = Duration::from_secs(5);

/// A session, and the counters of containers that are made from its snapshots.
struct Served {
    session: Session,
    containers: Mutex<TopContainers>,
}

impl Served {
    fn new(session: Session, settings: &Settings) -> Arc<Self> {
        let containers = Mutex::new(TopContainers::new(most_containers(settings)));
        Arc::new(Self { session, containers })
    }

    fn containers(&self) -> MutexGuard<'_, TopContainers> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> (Arc<Snapshot>, Arc<ContainerTimes>) {
        // Before the snapshot is read: two scrapes at once must not bring theirs
        // in the wrong order.
        let mut containers = self.containers();
        let snapshot = self.session.snapshot();
        let times = containers.update(&snapshot);
        (snapshot, times)
    }
}

/// Without attribution there is nothing that could be told apart.
fn most_containers(settings: &Settings) -> u32 {
    if settings.attribution.rows == 0 { 0 } else { settings.containers }
}

/// The session that is served; a reload may replace it.
struct Current {
    served: RwLock<Arc<Served>>,
    last_tick: Mutex<Instant>,
}

impl Current {
    fn new(served: Arc<Served>) -> Self {
        Self { served: RwLock::new(served), last_tick: Mutex::new(Instant::now()) }
    }

    fn get(&self) -> Arc<Served> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, served: Arc<Served>) {
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = served;
    }

    fn tick(&self) {
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

/// Runs until SIGTERM or SIGINT. `load` reads the settings; it is called again
/// on SIGHUP.
///
/// # Errors
///
/// Settings, kernel, privileges or the address to listen on.
pub fn run(settings: Settings, load: impl Fn() -> anyhow::Result<Settings>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the event loop")?;
    runtime.block_on(until_stopped(settings, load))
}

async fn until_stopped(
    mut settings: Settings,
    load: impl Fn() -> anyhow::Result<Settings>,
) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context("failed to await SIGHUP")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to await SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("failed to await SIGTERM")?;

    // The port first: when it is taken or may not be, nothing has been attached yet.
    let file = AccessFile::read(settings.web_config.as_deref())?;
    let listener = serve::bind(settings.listen).await?;
    let address = address_of(&listener)?;
    let access = Access::new(file, address, settings.allow_unauthenticated)?;
    let session = Session::start(&settings)?;
    announce(&session, settings.listen);
    let current = Arc::new(Current::new(Served::new(session, &settings)));
    let mut server = Server::start(listener, address, current.clone(), access.clone());
    let following = tokio::spawn(access.follow());
    notify(&[NotifyState::Ready]);
    let ticking = tokio::spawn(tick(current.clone()));

    let ended = loop {
        tokio::select! {
            _ = interrupt.recv() => break Ok(()),
            _ = terminate.recv() => break Ok(()),
            failed = server.failed() => break Err(failed),
            _ = hangup.recv() => {
                let mut states = vec![NotifyState::Reloading];
                states.extend(NotifyState::monotonic_usec_now().ok());
                notify(&states);
                match reload(&settings, &load, &current, &mut server).await {
                    Ok(new) => settings = new,
                    Err(error) => {
                        tracing::error!("kept the running configuration: {error:#}");
                    }
                }
                notify(&[NotifyState::Ready]);
            }
        }
    };
    notify(&[NotifyState::Stopping]);
    tracing::info!("stopping");
    ticking.abort();
    following.abort();
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
    let file = AccessFile::read(settings.web_config.as_deref())?;
    let listener = if settings.listen == running.listen {
        None
    } else {
        Some(serve::bind(settings.listen).await?)
    };
    let address = listener.as_ref().map_or(Ok(server.address), address_of)?;
    file.check(address, settings.allow_unauthenticated)?;
    if settings.measures_like(running) {
        current.get().containers().select_at_most(most_containers(&settings));
    } else {
        let session = Session::start(&settings)?;
        announce(&session, settings.listen);
        current.replace(Served::new(session, &settings));
        tracing::info!("counters start again from zero: the watched locks or limits changed");
    }
    if listener.is_some() {
        // Who may ask at the new address is not for the old one.
        server.stop().await;
    }
    // Checked above.
    server.access.replace(file, address, settings.allow_unauthenticated)?;
    if let Some(listener) = listener {
        *server = Server::start(listener, address, current.clone(), server.access.clone());
        tracing::info!(listen = %settings.listen, "listening on another address");
    }
    super::logging::set_level(settings.log.level);
    tracing::info!("reloaded");
    Ok(settings)
}

/// What a listener is bound to: decides who has to be asked who they are.
fn address_of(listener: &TcpListener) -> anyhow::Result<SocketAddr> {
    listener.local_addr().context("failed to read the address that the port is bound to")
}

fn announce(session: &Session, listen: SocketAddr) {
    let watch = session.watch();
    let locks: Vec<_> = watch.locks.iter().map(|lock| lock.name.as_str()).collect();
    let layout = session.programs().layout();
    tracing::info!(
        %listen,
        locks = locks.join(","),
        arrays_bytes = session.programs().bytes(),
        cpus = layout.cpus,
        numa_nodes = layout.nodes,
        "attached"
    );
    session.log_limits();
}

/// The HTTP server, so that it can be stopped and started on another address.
struct Server {
    address: SocketAddr,
    access: Arc<Access>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves on a listener, which is bound to `address`.
    fn start(
        listener: TcpListener,
        address: SocketAddr,
        source: Arc<Current>,
        access: Arc<Access>,
    ) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let shutdown = async move {
            // An error means that the sender is gone, which stops as well.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let task = tokio::spawn(serve::serve(listener, source, access.clone(), shutdown));
        Self { address, access, stop, task }
    }

    /// Ends when the server does, which it should not.
    async fn failed(&mut self) -> anyhow::Error {
        match (&mut self.task).await {
            Ok(()) => anyhow::anyhow!("the HTTP server ended by itself"),
            Err(error) => anyhow::Error::new(error).context("the HTTP server failed"),
        }
    }

    async fn stop(&mut self) {
        let _ = self.stop.send(true);
        // It gives requests in progress a moment itself; a panic in it was
        // logged, and the programs detach all the same.
        let _ = (&mut self.task).await;
    }
}

/// Reads now and then, and tells systemd that it does, if that asked.
async fn tick(current: Arc<Current>) {
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

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("failed to notify systemd: {error}");
    }
}
