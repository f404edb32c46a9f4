//! The words that BPF programs have claimed, in kernels whose BPF has no
//! compare-exchange: the keys of a hash map (`profiler-ebpf/src/atomic.rs`).

use std::cell::RefCell;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData, MapError};
use profiler_common::layout::maps::CLAIMS;

use super::LoadError;
use super::programs::chain;

/// The hash map.
pub struct Claims(RefCell<HashMap<MapData, u32, u32>>);

impl Claims {
    /// The map of `ebpf`, if it has one.
    pub(super) fn of(ebpf: &Ebpf) -> Result<Option<Self>, LoadError> {
        let Some(Map::HashMap(data)) = ebpf.map(CLAIMS) else { return Ok(None) };
        let failed = |why: String| LoadError::Object(format!("map {CLAIMS}: {why}"));
        let fd: OwnedFd =
            data.fd().as_fd().try_clone_to_owned().map_err(|error| failed(chain(&error)))?;
        let data = MapData::from_fd(fd).map_err(|error| failed(chain(&error)))?;
        let map = HashMap::try_from(Map::HashMap(data)).map_err(|error| failed(chain(&error)))?;
        Ok(Some(Self(RefCell::new(map))))
    }

    /// Whether the kernel lets this thread free words.
    pub fn may_remove(&self) -> bool {
        // There is no word with this number.
        match self.0.borrow_mut().remove(&u32::MAX) {
            Ok(()) | Err(MapError::KeyNotFound) => true,
            Err(MapError::SyscallError(error)) => {
                error.io_error.kind() == std::io::ErrorKind::NotFound
            }
            Err(_) => false,
        }
    }

    /// The word with this number was freed from user space.
    pub fn remove(&self, number: u32) {
        // It is there: whoever wrote the word had claimed it.
        let _ = self.0.borrow_mut().remove(&number);
    }
}
