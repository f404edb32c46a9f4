//! The HTTP server as a task that can be stopped and started anew.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::current::Current;
use crate::serve;
use crate::serve::access::Access;

/// The HTTP server, so that it can be stopped and started on another address.
pub(super) struct Server {
    /// What it is bound to.
    pub(super) address: SocketAddr,
    /// Who may ask.
    pub(super) access: Arc<Access>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves on a listener, which is bound to `address`.
    pub(super) fn start(
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
    pub(super) async fn failed(&mut self) -> anyhow::Error {
        match (&mut self.task).await {
            Ok(()) => anyhow::anyhow!("the HTTP server ended by itself"),
            Err(error) => anyhow::Error::new(error).context("the HTTP server failed"),
        }
    }

    pub(super) async fn stop(&mut self) {
        let _ = self.stop.send(true);
        // It gives requests in progress a moment itself; a panic in it was
        // logged, and the programs detach all the same.
        let _ = (&mut self.task).await;
    }
}
