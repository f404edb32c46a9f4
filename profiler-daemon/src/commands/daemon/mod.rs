//! `lockprof daemon`: attach, serve, and stop without a trace.

mod current;
mod notify;
mod privileges;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use self::current::{Current, Served, most_containers};
use self::server::Server;
use super::session::{Attached, Session};
use crate::cli::{ExitStatus, Settings};
use crate::serve::access::{Access, AccessFile};
use crate::serve::{self, Passed};

/// Runs until SIGTERM or SIGINT, on the socket that was `passed` or else where the
/// settings say. `load` reads the settings; it is called again on SIGHUP. The status
/// says whether this was the end, or it is to be started anew.
///
/// # Errors
///
/// Settings, kernel, privileges or the address to listen on.
pub fn run(
    settings: Settings,
    passed: Option<Passed>,
    load: impl Fn() -> anyhow::Result<Settings>,
) -> anyhow::Result<ExitStatus> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Threads off the loop work now and then: none of them idles for long.
        .thread_keep_alive(Duration::from_secs(1))
        .build()
        .context("failed to start the event loop")?;
    // Whatever the settings say, and with every reload.
    let address = passed.as_ref().map(|passed| passed.address);
    let on_passed =
        |settings: Settings| Settings { listen: address.unwrap_or(settings.listen), ..settings };
    let configured = settings.listen;
    let settings = on_passed(settings);
    if let Some(address) = address {
        tracing::info!(%address, not_used = %configured, "serving on the socket that was passed");
    }
    runtime.block_on(until_stopped(settings, passed, || load().map(on_passed)))
}

async fn until_stopped(
    mut settings: Settings,
    passed: Option<Passed>,
    load: impl Fn() -> anyhow::Result<Settings>,
) -> anyhow::Result<ExitStatus> {
    let mut hangup = signal(SignalKind::hangup()).context("failed to await SIGHUP")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to await SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("failed to await SIGTERM")?;

    // The port first: when it is taken or may not be, nothing has been attached yet.
    let file = AccessFile::read(settings.web_config.as_deref())?;
    let listener = match &passed {
        Some(passed) => passed.listener()?,
        None => serve::bind(settings.listen)?,
    };
    let address = address_of(&listener)?;
    let access = Access::new(file, address, settings.allow_unauthenticated)?;
    let given_up = settings.drop_privileges;
    let session = start(&settings)?;
    let current = Arc::new(Current::new(Served::new(session, &settings)));
    let mut server = Server::start(listener, address, current.clone(), access.clone());
    let following = tokio::spawn(access.follow());
    notify::ready(&current.get().session);
    let ticking = tokio::spawn(notify::tick(current.clone()));

    let ended = loop {
        tokio::select! {
            _ = interrupt.recv() => break Ok(ExitStatus::Success),
            _ = terminate.recv() => break Ok(ExitStatus::Success),
            failed = server.failed() => break Err(failed),
            _ = hangup.recv() => {
                notify::reloading();
                match reload(&settings, given_up, &load, &current, &mut server).await {
                    Ok(Reloaded::Applied(new)) => settings = *new,
                    Ok(Reloaded::StartAnew) => break Ok(ExitStatus::StartAnew),
                    Err(error) => {
                        tracing::error!("kept the running configuration: {error:#}");
                    }
                }
                notify::ready(&current.get().session);
            }
        }
    };
    notify::stopping(match &ended {
        Ok(ExitStatus::StartAnew) => "to be started anew, with the changed configuration",
        Ok(_) => "detaching",
        Err(_) => "the HTTP server failed",
    });
    tracing::info!("stopping");
    ticking.abort();
    following.abort();
    server.stop().await;
    // The last owner of the session is here, so the programs detach now.
    drop(current);
    ended
}

/// Attaches everything; then gives privileges up, if the settings say so.
fn start(settings: &Settings) -> anyhow::Result<Session> {
    notify::attaching();
    let mut attached = Attached::new(settings)?;
    if settings.drop_privileges {
        let needs = attached.needs()?;
        privileges::give_up(&needs)?;
    }
    let session = attached.start()?;
    announce(&session, settings.listen);
    Ok(session)
}

/// What became of settings that were read again.
enum Reloaded {
    /// They hold.
    Applied(Box<Settings>),
    /// They are fine, and take privileges that were given up.
    StartAnew,
}

/// Applies the settings as they are now; those that could not be applied leave
/// everything as it was. `given_up` is whether privileges were.
async fn reload(
    running: &Settings,
    given_up: bool,
    load: impl Fn() -> anyhow::Result<Settings>,
    current: &Arc<Current>,
    server: &mut Server,
) -> anyhow::Result<Reloaded> {
    let settings = load()?;
    let file = AccessFile::read(settings.web_config.as_deref())?;
    let listener =
        if settings.listen == running.listen { None } else { Some(serve::bind(settings.listen)?) };
    let address = listener.as_ref().map_or(Ok(server.address), address_of)?;
    file.check(address, settings.allow_unauthenticated)?;
    if settings.drop_privileges != given_up {
        tracing::warn!(
            drop_privileges = settings.drop_privileges,
            "whether privileges are given up is decided at the start: restart the daemon"
        );
    }
    if settings.measures_like(running) {
        current.get().containers().select_at_most(most_containers(&settings));
    } else if given_up {
        tracing::info!(
            status = ExitStatus::StartAnew as u8,
            "ending to be started anew: the watched locks or limits changed, and the privileges \
             to attach programs for them were given up"
        );
        return Ok(Reloaded::StartAnew);
    } else {
        let of_thread = Settings { drop_privileges: false, ..settings.clone() };
        let session = off_the_loop(move || start(&of_thread)).await??;
        let before = current.replace(Served::new(session, &settings));
        // Whatever came of that, the new session is the one that is served.
        if let Err(error) = off_the_loop(move || drop(before)).await {
            tracing::error!("failed to detach the programs from before: {error:#}");
        }
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
    Ok(Reloaded::Applied(Box::new(settings)))
}

/// Runs what takes its time on a thread of its own; scrapes are answered meanwhile.
///
/// # Errors
///
/// It panicked, which was logged.
async fn off_the_loop<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("the thread for it ended early")
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
