//! HTTP/1.1 by hand: whatever bytes are wanted go out, and what comes back is
//! taken apart strictly.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::str::FromStr;
use std::time::Duration;

/// A read that takes longer than this is taken to last for ever.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Lower-case names and values.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads one answer, to a request by HEAD without a body; `None` at the end of
    /// the stream.
    pub(crate) fn read(stream: &mut impl BufRead, head: bool) -> Result<Option<Self>, String> {
        let Some(first) = line(stream)? else { return Ok(None) };
        let status = first.strip_prefix("HTTP/1.1 ").or_else(|| first.strip_prefix("HTTP/1.0 "));
        let status = status.and_then(|rest| u16::from_str(rest.get(..3)?).ok());
        let status = status.ok_or_else(|| format!("no status line: {first:?}"))?;
        let mut headers = Vec::new();
        loop {
            let text = line(stream)?.ok_or("the head ends early")?;
            if text.is_empty() {
                break;
            }
            let (name, value) = text.split_once(": ").ok_or_else(|| format!("{text:?}"))?;
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut answer = Self { status, headers, body: Vec::new() };
        if head || status < 200 {
            return Ok(Some(answer));
        }
        let length = answer.header("content-length").ok_or("no length")?;
        let length = length.parse().map_err(|_| format!("length {length:?}"))?;
        let read = stream.take(length).read_to_end(&mut answer.body).map_err(|e| e.to_string())?;
        if read as u64 != length {
            return Err(format!("{read} of {length} bytes came"));
        }
        Ok(Some(answer))
    }

    /// All answers in `bytes`.
    pub(crate) fn all(mut bytes: &[u8]) -> Result<Vec<Self>, String> {
        let mut answers = Vec::new();
        while let Some(answer) = Self::read(&mut bytes, false)? {
            answers.push(answer);
        }
        Ok(answers)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A line without its end; `None` at the end of the stream.
fn line(stream: &mut impl BufRead) -> Result<Option<String>, String> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
    if line.is_empty() {
        return Ok(None);
    }
    let text = line.strip_suffix(b"\r\n").ok_or("a line ends early")?;
    String::from_utf8(text.to_vec()).map(Some).map_err(|_| "not text".to_owned())
}

/// A connection that is kept.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::connect_for(address, SILENCE)
    }

    /// One that waits for so long for an answer.
    pub(crate) fn connect_for(address: SocketAddr, silence: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(silence))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends `bytes`.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    /// The next answer.
    pub(crate) fn answer(&mut self) -> Result<Answer, String> {
        Answer::read(&mut self.0, false)?.ok_or_else(|| "closed without an answer".to_owned())
    }

    /// Says that nothing more comes.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.0.get_mut().shutdown(Shutdown::Write)
    }

    /// All that comes until the daemon closes; what came before a reset, where
    /// there was one.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        if let Err(error) = self.0.read_to_end(&mut rest) {
            let kind = error.kind();
            assert_eq!(kind, io::ErrorKind::ConnectionReset, "the daemon is silent: {error}");
        }
        rest
    }

    /// The answer to a GET.
    pub(crate) fn get(&mut self, path: &str, accept: &str) -> Result<Answer, String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n");
        self.send(request.as_bytes()).map_err(|error| error.to_string())?;
        self.answer()
    }
}

/// The answer to a GET on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<Answer, String> {
    Client::connect(address).map_err(|error| error.to_string())?.get(path, "*/*")
}

/// What the daemon says to `bytes`, after which nothing more comes.
pub(crate) fn say(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut client = Client::connect(address).expect("the daemon listens");
    // It may have refused already and closed.
    let _ = client.send(bytes).and_then(|()| client.finish());
    client.rest()
}
