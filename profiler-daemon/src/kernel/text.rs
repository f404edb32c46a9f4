//! Bytes of kernel text.
//!
//! In: an address and a length. Out: the bytes as they execute now, read by
//! the BPF program `read_text` with `bpf_probe_read_kernel()`. `/proc/kcore`
//! and `/dev/mem` are absent or locked down on many hosts; this way needs what
//! the profiler has anyway.

use std::cell::RefCell;

use aya::maps::Array;
use aya::programs::{ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun};
use aya::{Ebpf, EbpfError, EbpfLoader};
use profiler_common::layout::{TEXT_WINDOW, maps};

/// Name of the program in the BPF object.
const PROGRAM: &str = "read_text";

/// Why kernel text could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The BPF object did not load.
    #[error(
        "failed to load the BPF object for reading kernel text, which takes CAP_BPF and CAP_PERFMON"
    )]
    Object(#[source] Box<EbpfError>),
    /// The object lacks a program or map: it was built from other sources.
    #[error("the BPF object has no {kind} `{name}`; rebuild lockprof")]
    Missing {
        /// `program` or `map`.
        kind: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// The kernel refused the program.
    #[error(
        "the kernel refused the BPF program `read_text`; it takes CAP_BPF and CAP_PERFMON, and lockdown below `confidentiality`"
    )]
    Program(#[source] Box<ProgramError>),
    /// `BPF_PROG_TEST_RUN` failed: raw tracepoint programs have it from 5.10 on.
    #[error("failed to run the BPF program `read_text` (BPF_PROG_TEST_RUN, Linux 5.10 or later)")]
    Run(#[source] Box<ProgramError>),
    /// The array with the bytes could not be read.
    #[error("failed to read the BPF map `TEXT`")]
    Map(#[source] Box<aya::maps::MapError>),
    /// The address is not readable.
    #[error("kernel memory at {address:#x} is not readable (errno {errno})")]
    Unreadable {
        /// Start of the window that failed.
        address: u64,
        /// What `bpf_probe_read_kernel()` returned, positive.
        errno: i32,
    },
}

/// Where bytes of kernel text come from: the running kernel, or a recording.
pub trait TextSource {
    /// The `len` bytes from `address` on.
    ///
    /// # Errors
    ///
    /// Any byte of them cannot be read.
    fn read(&self, address: u64, len: usize) -> Result<Vec<u8>, TextError>;
}

/// The running kernel, read by the BPF program `read_text`.
#[derive(Debug)]
pub struct BpfText {
    // Running a program and reading its array both borrow the object mutably.
    object: RefCell<Ebpf>,
}

impl BpfText {
    /// Loads the one program that reads text from the BPF `object`.
    ///
    /// The other programs of the object stay unloaded. Its maps are created
    /// with the sizes that they were built with, one entry each.
    ///
    /// # Errors
    ///
    /// The object is not lockprof's, or the kernel refuses it.
    pub fn load(object: &[u8]) -> Result<Self, TextError> {
        let mut object =
            EbpfLoader::new().load(object).map_err(|e| TextError::Object(Box::new(e)))?;
        program(&mut object)?.load().map_err(|e| TextError::Program(Box::new(e)))?;
        Ok(Self { object: RefCell::new(object) })
    }

    fn window(&self, address: u64) -> Result<[u8; TEXT_WINDOW], TextError> {
        let mut object = self.object.borrow_mut();
        let mut options = RawTracePointRunOptions::new();
        options.args[0] = address;
        let run = program(&mut object)?.test_run(options);
        let returned = run.map_err(|e| TextError::Run(Box::new(e)))?.return_value.cast_signed();
        if returned != 0 {
            return Err(TextError::Unreadable { address, errno: -returned });
        }
        let map =
            object.map(maps::TEXT).ok_or(TextError::Missing { kind: "map", name: maps::TEXT })?;
        let map = Array::<_, [u8; TEXT_WINDOW]>::try_from(map);
        map.and_then(|map| map.get(&0, 0)).map_err(|e| TextError::Map(Box::new(e)))
    }
}

fn program(object: &mut Ebpf) -> Result<&mut RawTracePoint, TextError> {
    object
        .program_mut(PROGRAM)
        .and_then(|program| program.try_into().ok())
        .ok_or(TextError::Missing { kind: "program", name: PROGRAM })
}

impl TextSource for BpfText {
    fn read(&self, address: u64, len: usize) -> Result<Vec<u8>, TextError> {
        let mut bytes = Vec::with_capacity(len.next_multiple_of(TEXT_WINDOW));
        while bytes.len() < len {
            bytes.extend(self.window(address + bytes.len() as u64)?);
        }
        bytes.truncate(len);
        Ok(bytes)
    }
}
