//! `lockprof daemon`: attach, serve, and stop without a trace.

mod current;
mod notify;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use self::current::{Current, Served, most_containers};
use self::notify::{notify, tick};
use self::server::Server;
use super::session::Session;
use crate::cli::Settings;
use crate::serve;

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

    // The port first: when it is taken, nothing has been attached yet.
    let listener = serve::bind(settings.listen).await?;
    let session = Session::start(&settings)?;
    announce(&session, settings.listen);
    let current = Arc::new(Current::new(Served::new(session, &settings)));
    let mut server = Server::start(listener, current.clone());
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
        Some(serve::bind(settings.listen).await?)
    };
    if settings.measures_like(running) {
        current.get().containers().select_at_most(most_containers(&settings));
    } else {
        let session = Session::start(&settings)?;
        announce(&session, settings.listen);
        current.replace(Served::new(session, &settings));
        tracing::info!("counters start again from zero: the watched locks or limits changed");
    }
    if let Some(listener) = listener {
        server.stop().await;
        *server = Server::start(listener, current.clone());
        tracing::info!(listen = %settings.listen, "listening on another address");
    }
    super::logging::set_level(settings.log.level);
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
        arrays_bytes = session.programs().bytes(),
        cpus = layout.cpus,
        numa_nodes = layout.nodes,
        "attached"
    );
    session.log_limits();
}
