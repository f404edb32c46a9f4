//! Asking for the mount table, as runtimes and agents do.

use std::fs::File;
use std::io::{self, Read};

use crate::storm::strategy::MountQuery;

/// One who asks, with memory to do it in.
pub(in crate::storm) struct Table {
    buffer: Vec<u8>,
}

impl Table {
    /// Asks in this way.
    pub(in crate::storm) fn new(_way: MountQuery) -> Self {
        Self { buffer: vec![0; 64 * 1024] }
    }

    /// Asks for the whole table of this process's namespace; its bytes.
    pub(in crate::storm) fn ask(&mut self) -> io::Result<u64> {
        let mut table = File::open("/proc/self/mountinfo")?;
        let mut bytes = 0;
        loop {
            match table.read(&mut self.buffer)? {
                0 => return Ok(bytes),
                n => bytes += n as u64,
            }
        }
    }
}
