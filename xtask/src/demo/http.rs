//! One GET on loopback.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// How long connecting and each read may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The body of `GET path`.
///
/// # Errors
/// When nothing answers, or the answer is not 200.
pub(super) fn get(address: SocketAddr, path: &str) -> Result<String> {
    let failed = || format!("failed to get http://{address}{path}");
    let mut answer = Vec::new();
    let mut talk = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // HTTP/1.0: the body comes whole and the connection then closes.
        // In one write: a server may answer and close after the first.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        stream.read_to_end(&mut answer).map(|_| ())
    };
    talk().with_context(failed)?;
    body(&String::from_utf8_lossy(&answer)).with_context(failed)
}

fn body(answer: &str) -> Result<String> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of headers")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("the answer is `{status}`");
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_loopback_gets_the_path_and_gives_the_body() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nready\n").unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        assert_eq!(get(address, "/readyz").unwrap(), "ready\n");
        assert!(server.join().unwrap().starts_with("GET /readyz HTTP/1.0\r\n"));
        let gone = format!("{:#}", get(address, "/readyz").unwrap_err());
        assert!(gone.starts_with(&format!("failed to get http://{address}/readyz: ")), "{gone}");
    }

    #[test]
    fn the_body_is_what_follows_the_headers() {
        assert_eq!(body("HTTP/1.0 200 OK\r\na: b\r\n\r\nx\r\n\r\ny").unwrap(), "x\r\n\r\ny");
    }

    #[test]
    fn an_answer_other_than_200_is_an_error_that_shows_it() {
        let error = body("HTTP/1.0 503 Service Unavailable\r\n\r\nnot ready").unwrap_err();
        assert!(error.to_string().contains("503 Service Unavailable"));
        assert!(body("HTTP/1.0 200 OK\r\n").is_err());
    }
}
