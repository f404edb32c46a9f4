//! What a guest tells its host over the second serial port: a stream of frames.
//!
//! The kernel's console has a port of its own, so what the guest's programs
//! print arrives byte by byte as they printed it, standard output and standard
//! error apart. A frame is
//!
//! | bytes | |
//! | --- | --- |
//! | 1 | 0x1e |
//! | 1 | kind |
//! | 2 | length of the payload, little endian |
//! | 4 | FNV-1a of kind and payload, little endian |
//! | length | payload |

use std::io::{self, Write};

use anyhow::{Result, bail};

const MARK: u8 = 0x1e;
const HEAD: usize = 8;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The guest's init runs; the kernel's release.
    Hello,
    /// A step begins; its name.
    Begin,
    /// Bytes of the step's standard output.
    Stdout,
    /// Bytes of the step's standard error.
    Stderr,
    /// Bytes of the file that the plan asks for, after the step.
    Collected,
    /// The step ended; its exit status in decimal, 128 + the signal if killed.
    End,
    /// All steps were run; the exit status of the first that failed, or 0.
    Verdict,
    /// The init could not do its work; why.
    Broken,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Hello,
        Self::Begin,
        Self::Stdout,
        Self::Stderr,
        Self::Collected,
        Self::End,
        Self::Verdict,
        Self::Broken,
    ];

    fn code(self) -> u8 {
        match self {
            Self::Hello => b'h',
            Self::Begin => b'b',
            Self::Stdout => b'o',
            Self::Stderr => b'e',
            Self::Collected => b'c',
            Self::End => b'x',
            Self::Verdict => b'v',
            Self::Broken => b'!',
        }
    }
}

/// One message of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// What it carries.
    pub(crate) kind: Kind,
    /// At most 65,535 bytes.
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The payload as text, whatever is no UTF-8 replaced.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// Writes a payload, in as many frames as it takes; an empty one takes one.
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn write(out: &mut impl Write, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let mut rest = payload;
    loop {
        let (now, later) = rest.split_at(rest.len().min(usize::from(u16::MAX)));
        let length = u16::try_from(now.len()).unwrap_or(u16::MAX);
        let mut bytes = vec![MARK, kind.code()];
        bytes.extend(length.to_le_bytes());
        bytes.extend(checksum(kind.code(), now).to_le_bytes());
        bytes.extend(now);
        out.write_all(&bytes)?;
        rest = later;
        if rest.is_empty() {
            return out.flush();
        }
    }
}

/// Takes bytes as they come and gives the frames that are whole.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// The frames that `bytes` complete.
    ///
    /// # Errors
    /// When something other than frames comes: bytes were lost on the way, or
    /// somebody else writes to the port.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Frame>> {
        self.pending.extend_from_slice(bytes);
        let mut frames = Vec::new();
        let mut rest = &self.pending[..];
        while let [mark, code, l0, l1, c0, c1, c2, c3, tail @ ..] = rest {
            let length = usize::from(u16::from_le_bytes([*l0, *l1]));
            let kind = Kind::ALL.into_iter().find(|kind| kind.code() == *code);
            let (MARK, Some(kind)) = (*mark, kind) else {
                bail!(
                    "the guest's data port carries something other than frames: {:?}",
                    String::from_utf8_lossy(&rest[..rest.len().min(60)])
                );
            };
            let Some(payload) = tail.get(..length) else { break };
            if checksum(*code, payload) != u32::from_le_bytes([*c0, *c1, *c2, *c3]) {
                bail!("a frame of the guest's data port was damaged on its way ({kind:?})");
            }
            frames.push(Frame { kind, payload: payload.to_vec() });
            rest = &rest[HEAD + length..];
        }
        let done = self.pending.len() - rest.len();
        self.pending.drain(..done);
        Ok(frames)
    }
}

/// FNV-1a, 32 bits.
fn checksum(code: u8, payload: &[u8]) -> u32 {
    std::iter::once(&code)
        .chain(payload)
        .fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(frames: &[(Kind, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, payload) in frames {
            write(&mut bytes, *kind, payload).unwrap();
        }
        bytes
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let all: Vec<u8> = (0..=255).collect();
        let sent: Vec<(Kind, &[u8])> =
            Kind::ALL.into_iter().zip([&all[..], b"", b"\x1e", b"x"].into_iter().cycle()).collect();
        let bytes = encoded(&sent);
        for cut in 1..40 {
            let mut decoder = Decoder::default();
            let got: Vec<Frame> =
                bytes.chunks(cut).flat_map(|chunk| decoder.push(chunk).unwrap()).collect();
            assert_eq!(got.len(), sent.len());
            for (frame, (kind, payload)) in got.iter().zip(&sent) {
                assert_eq!((frame.kind, &frame.payload[..]), (*kind, *payload));
            }
        }
    }

    #[test]
    fn a_long_payload_takes_several_frames() {
        let long = vec![7; 150_000];
        let frames = Decoder::default().push(&encoded(&[(Kind::Stdout, &long[..])])).unwrap();
        assert_eq!(frames.len(), 3);
        let joined: Vec<u8> = frames.into_iter().flat_map(|frame| frame.payload).collect();
        assert_eq!(joined, long);
    }

    #[test]
    fn a_lost_byte_is_noticed() {
        let bytes = encoded(&[(Kind::Stdout, b"hello"), (Kind::Verdict, b"0")]);
        for lost in 0..bytes.len() - 9 {
            let mut cut = bytes.clone();
            cut.remove(lost);
            let got = Decoder::default().push(&cut);
            let whole = got.is_ok_and(|frames| {
                frames.first().is_some_and(|frame| frame.payload == b"hello" && frames.len() == 2)
            });
            assert!(!whole, "byte {lost}");
        }
    }

    #[test]
    fn text_that_is_no_frame_is_refused_by_what_it_says() {
        let error = Decoder::default().push(b"[    0.00] Linux version").unwrap_err();
        assert!(error.to_string().contains("Linux version"), "{error}");
    }
}
