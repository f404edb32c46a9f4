//! Totals of a daemon, over HTTP.

use std::time::Duration;

use ureq::http::Uri;

use super::{LARGEST_SNAPSHOT, Source, parse};
use crate::snapshot::{Name, Snapshot};
use crate::top::TopError;

/// Where a daemon listens unless told otherwise.
const DEFAULT_PORT: u16 = 9723;

/// Connecting to a host that is barely answering takes its time; beyond this
/// the screen says so, and it is tried again.
const TIMEOUT_CONNECT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(15);

/// A daemon.
pub struct Http {
    agent: ureq::Agent,
    url: String,
    name: String,
}

impl Http {
    /// The daemon at `url`: `http://HOST[:9723][/PATH]`, or `HOST[:PORT]`.
    ///
    /// # Errors
    ///
    /// It is no such URL.
    pub fn new(url: &str) -> Result<Self, TopError> {
        let bad = |why: &str| TopError::BadUrl { url: Name::from(url), why: why.to_owned() };
        let with_scheme =
            if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let uri: Uri = with_scheme.parse().map_err(|e| bad(&format!("not a URL ({e})")))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(bad(
                    "https is not spoken; go through `ssh -L 9723:127.0.0.1:9723 HOST` instead",
                ));
            }
            _ => return Err(bad("only http is spoken")),
        }
        let authority = uri.authority().ok_or_else(|| bad("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("a daemon asks for no user"));
        }
        if authority.host().is_empty() {
            return Err(bad("it has no host"));
        }
        if uri.query().is_some() {
            return Err(bad("a daemon takes no query"));
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            // A colon without a number that fits behind it.
            None if !authority.as_str().ends_with(authority.host()) => {
                return Err(bad("the port is not a number up to 65535"));
            }
            None => DEFAULT_PORT,
        };
        let base = uri.path().trim_end_matches('/').trim_end_matches("/api/v1/snapshot");
        let host = authority.host();
        let agent = ureq::Agent::config_builder()
            .timeout_connect(Some(TIMEOUT_CONNECT))
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // A proxy of the environment has no way to this machine's loopback.
            .proxy(None)
            .user_agent(concat!("lockprof/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Self {
            agent,
            url: format!("http://{host}:{port}{base}/api/v1/snapshot"),
            name: format!("{host}:{port}"),
        })
    }

    fn get(&self) -> Result<Vec<u8>, String> {
        let mut response = self.agent.get(&self.url).call().map_err(|error| {
            format!("{}: {}; is the daemon running there?", self.url, plain(&error))
        })?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("{}: answered {status}; is that a lockprof daemon?", self.url));
        }
        let body = response.body_mut().with_config().limit(LARGEST_SNAPSHOT);
        body.read_to_vec().map_err(|error| format!("{}: {}", self.url, plain(&error)))
    }
}

/// Without the library's own prefixes.
fn plain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

impl Source for Http {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&mut self) -> Result<Option<Snapshot>, String> {
        let json = self.get()?;
        parse(&json).map(Some).map_err(|why| format!("{}: {why}", self.url))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    fn url(text: &str) -> Result<String, String> {
        Http::new(text).map(|http| http.url).map_err(|error| error.to_string())
    }

    #[test]
    fn scheme_port_and_path_have_defaults() {
        for (written, asked) in [
            ("http://a", "http://a:9723/api/v1/snapshot"),
            ("a:80", "http://a:80/api/v1/snapshot"),
            ("http://a:1/x/", "http://a:1/x/api/v1/snapshot"),
            ("http://a/api/v1/snapshot", "http://a:9723/api/v1/snapshot"),
            ("http://[::1]:7", "http://[::1]:7/api/v1/snapshot"),
            ("[::1]", "http://[::1]:9723/api/v1/snapshot"),
        ] {
            assert_eq!(url(written).as_deref(), Ok(asked), "{written}");
        }
    }

    #[test]
    fn what_is_no_url_of_a_daemon_is_told_how_to_write_one() {
        for (written, why) in [
            ("", "not a URL"),
            ("http://", "not a URL"),
            ("a b", "not a URL"),
            ("ftp://a", "only http"),
            ("https://a", "ssh -L"),
            ("http://u:p@a", "asks for no user"),
            ("http://a?x=1", "no query"),
            ("http://a:99999", "port"),
        ] {
            let error = url(written).expect_err(written);
            assert!(error.contains(why) && error.contains("http://127.0.0.1:9723"), "{error}");
        }
        let error = url("http://a\x1b[2J").unwrap_err();
        assert!(!error.contains('\x1b'), "{error:?}");
    }

    /// A server that gives one answer.
    fn answering(answer: &'static str) -> Http {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        });
        Http::new(&address.to_string()).unwrap()
    }

    #[test]
    fn what_does_not_answer_with_a_snapshot_is_asked_whether_it_is_a_daemon() {
        let mut teapot = answering("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        let error = teapot.read().unwrap_err();
        assert!(error.contains("404") && error.contains("is that a lockprof daemon"), "{error}");
        let mut elsewhere =
            answering("HTTP/1.1 302 Found\r\nlocation: http://x/\r\ncontent-length: 0\r\n\r\n");
        let error = elsewhere.read().unwrap_err();
        assert!(error.contains("302"), "redirects are not followed: {error}");
        let mut page = answering("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>");
        assert!(page.read().unwrap_err().contains("not a snapshot"));
    }

    #[test]
    fn nobody_there_is_an_error_with_the_address() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = Http::new(&free.to_string()).unwrap().read().unwrap_err();
        assert!(error.contains(&free.to_string()), "{error}");
        assert!(error.contains("refused") && error.contains("is the daemon running"), "{error}");
    }
}
