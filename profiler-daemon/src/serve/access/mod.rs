//! Who may ask, and by what they show it.
//!
//! In: the web configuration file ([`AccessFile::read`]), the address that is
//! listened on. Out: how a connection is to be encrypted, and a verdict on each
//! request. What the file says can change while the service runs: on SIGHUP, and
//! when it or a file that it names changed on the disk ([`Access::follow`]).
//!
//! Files are looked at by a thread of their own now and then, not with each
//! connection: this program runs where looking up a path may take long.

mod basic_auth;
mod client_cert;
mod exposure;
pub(crate) mod pem;
mod stamp;
mod tls;
mod web_config;
pub(crate) mod yaml;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use rustls::ServerConfig;
use tokio::sync::watch;

use self::basic_auth::{Checker, Verdict};
use self::exposure::Asked;
pub use self::exposure::Exposed;
use self::stamp::Stamps;
use self::web_config::WebConfig;
pub use self::yaml::FileError;
use super::http::{PLAIN, reply};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Refused requests are logged at most this often.
const LOG_REFUSED: Duration = Duration::from_secs(60);

const UNNAMED: &str = "user and password are needed (basic authentication): with curl -u USER, \
                       in Prometheus basic_auth, with lockprof top --http-config FILE\n";
const WRONG: &str = "user or password is wrong\n";
const BUSY: &str = "too many passwords from your address are being checked; try again\n";

/// What a web configuration file says, read and found to be usable.
pub struct AccessFile {
    path: Option<PathBuf>,
    stamps: Stamps,
    config: WebConfig,
}

impl AccessFile {
    /// Reads the file at `path` and those that it names. Without one, anyone may
    /// come, in clear.
    ///
    /// # Errors
    ///
    /// Something in it is wrong or cannot be had: the file, the line and what to
    /// do.
    pub fn read(path: Option<&Path>) -> Result<Self, FileError> {
        let Some(path) = path else {
            return Ok(Self {
                path: None,
                stamps: Stamps::default(),
                config: WebConfig::default(),
            });
        };
        let (stamps, read) = read(path);
        Ok(Self { path: Some(path.to_owned()), stamps, config: read? })
    }

    /// Whether it is fit for a socket that is bound to `address`.
    /// `allowed`: even if nobody is asked who they are.
    ///
    /// # Errors
    ///
    /// Others could reach it, and nobody would be asked.
    pub fn check(&self, address: SocketAddr, allowed: bool) -> Result<(), Exposed> {
        exposure::check(address, self.config.asks(), allowed)
    }
}

impl WebConfig {
    fn asks(&self) -> Asked {
        let certificates = self.tls.as_ref().is_some_and(|tls| tls.knows_clients);
        Asked { who: certificates || self.users.is_some(), encrypted: self.tls.is_some() }
    }
}

/// Reads the file. The stamps are from before, so that a change meanwhile is
/// seen later.
fn read(path: &Path) -> (Stamps, Result<WebConfig, FileError>) {
    let stamps = Stamps::of(web_config::files(path));
    (stamps, web_config::read(path))
}

/// Who may ask, as it is now.
pub struct Access {
    config: watch::Sender<Arc<WebConfig>>,
    checker: Checker,
    source: Mutex<Source>,
    refused: Mutex<Refused>,
}

/// Where it comes from, and what a change must be fit for.
struct Source {
    path: Option<PathBuf>,
    stamps: Stamps,
    address: SocketAddr,
    allowed: bool,
}

/// Requests that were refused and not yet logged.
#[derive(Default)]
struct Refused {
    count: u64,
    logged: Option<Instant>,
}

impl Access {
    /// By `file`, for a socket that is bound to `address`.
    ///
    /// # Errors
    ///
    /// As [`AccessFile::check`].
    pub fn new(file: AccessFile, address: SocketAddr, allowed: bool) -> Result<Arc<Self>, Exposed> {
        file.check(address, allowed)?;
        let AccessFile { path, stamps, config } = file;
        exposure::warn(address, config.asks());
        Ok(Arc::new(Self {
            config: watch::Sender::new(Arc::new(config)),
            checker: Checker::new(),
            source: Mutex::new(Source { path, stamps, address, allowed }),
            refused: Mutex::default(),
        }))
    }

    /// Goes by `file` from now on. Connections are closed after the request that
    /// they are in: they were made under the old one.
    ///
    /// # Errors
    ///
    /// As [`AccessFile::check`]; nothing has changed then.
    pub fn replace(
        &self,
        file: AccessFile,
        address: SocketAddr,
        allowed: bool,
    ) -> Result<(), Exposed> {
        file.check(address, allowed)?;
        let AccessFile { path, stamps, config } = file;
        exposure::warn(address, config.asks());
        *self.source() = Source { path, stamps, address, allowed };
        self.config.send_replace(Arc::new(config));
        Ok(())
    }

    /// Follows changes of the files, without end. What cannot be used is logged
    /// once, and the last that could stays.
    pub async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.source().path.is_none() {
                continue;
            }
            let access = self.clone();
            // It reads files, which may take its time. A panic in it was printed.
            let _ = tokio::task::spawn_blocking(move || access.look()).await;
        }
    }

    /// Takes over what changed on the disk.
    fn look(&self) {
        let (path, stamps) = {
            let source = self.source();
            let Some(path) = source.path.clone() else { return };
            (path, source.stamps.clone())
        };
        if stamps.are_current() {
            return;
        }
        let (new, read) = read(&path);
        let mut source = self.source();
        if source.path.as_ref() != Some(&path) || source.stamps != stamps {
            // Replaced meanwhile.
            return;
        }
        // A file that can mend a broken one may be among those of before.
        let broken = read.is_err();
        source.stamps = if broken { new.or(stamps) } else { new };
        let checked = read.map_err(|error| error.to_string()).and_then(|config| {
            exposure::check(source.address, config.asks(), source.allowed)
                .map(|()| config)
                .map_err(|error| format!("{}: {error}", path.display()))
        });
        match checked {
            Ok(config) => {
                exposure::warn(source.address, config.asks());
                self.config.send_replace(Arc::new(config));
                tracing::info!(file = %path.display(), "read the web configuration again");
            }
            Err(error) => tracing::error!("kept the running web configuration: {error}"),
        }
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the next connection is to be encrypted, if it is.
    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.config.borrow().tls.as_ref().map(|tls| tls.config.clone())
    }

    /// Ready when anything changes after this call.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut changes = self.config.subscribe();
        async move {
            // Without a sender, nothing is served any more.
            let _ = changes.changed().await;
        }
    }

    /// Judges a request by its headers.
    ///
    /// # Errors
    ///
    /// The answer to one that is refused.
    pub(super) async fn admit(&self, peer: IpAddr, headers: &HeaderMap) -> Result<(), Response> {
        let config = self.config.borrow().clone();
        let Some(users) = &config.users else { return Ok(()) };
        match self.checker.check(users, peer, headers.get(AUTHORIZATION)).await {
            Verdict::Granted => Ok(()),
            Verdict::Unnamed => Err(unauthorized(UNNAMED)),
            Verdict::Wrong => {
                self.count_refused(peer);
                Err(unauthorized(WRONG))
            }
            Verdict::Busy => {
                self.count_refused(peer);
                let mut response = reply(StatusCode::TOO_MANY_REQUESTS, PLAIN, BUSY);
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                Err(response)
            }
        }
    }

    /// Adds the headers that the file asks for.
    pub(super) fn finish(&self, response: &mut Response) {
        for (name, value) in &self.config.borrow().headers {
            response.headers_mut().insert(name, value.clone());
        }
    }

    fn count_refused(&self, peer: IpAddr) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.count += 1;
        if refused.logged.is_none_or(|logged| logged.elapsed() >= LOG_REFUSED) {
            tracing::warn!(requests = refused.count, last = %peer, "wrong user or password, or too many of them at once");
            *refused = Refused { count: 0, logged: Some(Instant::now()) };
        }
    }
}

fn unauthorized(body: &'static str) -> Response {
    let mut response = reply(StatusCode::UNAUTHORIZED, PLAIN, body);
    let challenge = HeaderValue::from_static("Basic realm=\"lockprof\", charset=\"UTF-8\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

#[cfg(test)]
mod tests;
