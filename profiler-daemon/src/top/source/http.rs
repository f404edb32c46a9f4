//! Totals of a daemon, over HTTP.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use ureq::http::Uri;
use ureq::http::header::{AUTHORIZATION, HOST};

use super::client::{ClientConfig, basic};
use super::{LARGEST_SNAPSHOT, Source, parse, refusal};
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
    /// What is asked for, under the name that the certificate is to have.
    asked: String,
    /// As it is shown.
    url: String,
    authorization: Option<String>,
    name: String,
}

impl Http {
    /// The daemon at `url`: `http[s]://[USER:PASSWORD@]HOST[:9723][/PATH]`, or
    /// `HOST[:PORT]`, connected to as `client` says.
    ///
    /// # Errors
    ///
    /// It is no such URL, or there is nothing to check certificates by.
    pub fn new(url: &str, client: &ClientConfig) -> Result<Self, TopError> {
        let bad = |why: &str| TopError::BadUrl { url: shown(url), why: why.to_owned() };
        let with_scheme =
            if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let uri: Uri = with_scheme.parse().map_err(|e| bad(&format!("not a URL ({e})")))?;
        let scheme = match uri.scheme_str() {
            Some(scheme @ ("http" | "https")) => scheme,
            _ => return Err(bad("only http and https are spoken")),
        };
        let authority = uri.authority().ok_or_else(|| bad("it has no host"))?;
        let host = authority.host();
        if host.is_empty() {
            return Err(bad("it has no host"));
        }
        if uri.query().is_some() {
            return Err(bad("a daemon takes no query"));
        }
        let (user, after) = match authority.as_str().rsplit_once('@') {
            Some((user, after)) => (Some(user), after),
            None => (None, authority.as_str()),
        };
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            // A colon without a number that fits behind it.
            None if after != host => return Err(bad("the port is not a number up to 65535")),
            None => DEFAULT_PORT,
        };
        let base = uri.path().trim_end_matches('/').trim_end_matches("/api/v1/snapshot");
        let path = format!("{base}/api/v1/snapshot");
        let agent = ureq::Agent::config_builder()
            .timeout_connect(Some(TIMEOUT_CONNECT))
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // A proxy of the environment has no way to this machine's loopback.
            .proxy(None)
            .user_agent(concat!("lockprof/", env!("CARGO_PKG_VERSION")));
        let name = format!("{host}:{port}");
        let connection = client.connect(agent, scheme, &name).map_err(|why| bad(&why))?;
        Ok(Self {
            agent: connection.agent,
            asked: format!("{scheme}://{}{path}", connection.authority),
            url: format!("{scheme}://{name}{path}"),
            authorization: user.map(of_url).or_else(|| client.authorization().map(Into::into)),
            name,
        })
    }

    fn get(&self) -> Result<Vec<u8>, String> {
        let mut request = self.agent.get(&self.asked).header(HOST, &self.name);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let mut response =
            request.call().map_err(|error| format!("{}: {}", self.url, refusal::of(&error)))?;
        let status = response.status();
        if !status.is_success() {
            let secure = self.url.starts_with("https:");
            let next = refusal::of_status(status, secure, self.authorization.is_some());
            return Err(format!("{}: answered {status}; {next}", self.url));
        }
        let body = response.body_mut().with_config().limit(LARGEST_SNAPSHOT);
        body.read_to_vec().map_err(|error| format!("{}: {}", self.url, refusal::of(&error)))
    }
}

/// A URL as it may be shown: without user and password. What is no URL may hold
/// a password with any character, so everything up to the last `@` counts.
fn shown(url: &str) -> Name {
    let Some((before, host)) = url.rsplit_once('@') else { return Name::from(url) };
    let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    Name::from(format!("{scheme}(hidden)@{host}").as_str())
}

/// The header for `USER[:PASSWORD]` of a URL.
fn of_url(user: &str) -> String {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let decoded = |text| percent_decode_str(text).collect::<Vec<u8>>();
    basic(&decoded(user), &decoded(password))
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
        Http::new(text, &ClientConfig::default())
            .map(|http| http.url)
            .map_err(|error| error.to_string())
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
            ("https://a", "https://a:9723/api/v1/snapshot"),
            ("https://ann:secret@a:1", "https://a:1/api/v1/snapshot"),
            ("ann:secret@a", "http://a:9723/api/v1/snapshot"),
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
            ("http://a?x=1", "no query"),
            ("http://a:99999", "port"),
        ] {
            let error = url(written).expect_err(written);
            assert!(error.contains(why) && error.contains("http://127.0.0.1:9723"), "{error}");
        }
        for written in ["http://ann:sec ret@a", "ftp://ann:secret@a", "ann:s@e/c?r@a:99999"] {
            let error = url(written).expect_err(written);
            assert!(error.contains("(hidden)@a") && !error.contains("ann"), "{error}");
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
        Http::new(&address.to_string(), &ClientConfig::default()).unwrap()
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
    fn user_and_password_of_a_url_are_decoded() {
        // RFC 7617, section 2.
        assert_eq!(of_url("Aladdin:open%20sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(of_url("Aladdin"), basic(b"Aladdin", b""));
    }

    #[test]
    fn a_daemon_that_asks_for_a_password_is_given_one_next_time() {
        const REFUSED: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
        let error = answering(REFUSED).read().unwrap_err();
        assert!(error.contains("401") && error.contains("--http-config"), "{error}");
    }

    #[test]
    fn nobody_there_is_an_error_with_the_address() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error =
            Http::new(&free.to_string(), &ClientConfig::default()).unwrap().read().unwrap_err();
        assert!(error.contains(&free.to_string()), "{error}");
        assert!(error.contains("refused") && error.contains("is the daemon running"), "{error}");
    }
}
