//! Which mount namespace every process is in, by an iterator over all tasks
//! (Linux 5.8).

use std::fs::File;
use std::io::{self, Read as _};

use aya::programs::Iter;
use aya::{Btf, BtfError, Ebpf, EbpfLoader};
use profiler_common::mounts::{MountTableFields, MountTask};

use super::HookState;
use super::programs::{chain, find};
use crate::kernel::fields::{Field, Fields};

/// Name of the hook.
pub const TASK_ITER: &str = "task_iter";
/// Its one backend.
const BACKEND: &str = "iter";
const PROGRAM: &str = "mount_tables";

/// The loaded iterator.
pub struct TaskIter {
    // Its arrays, one entry each, went with the loader; the program uses none.
    ebpf: Ebpf,
}

impl TaskIter {
    /// Loads the iterator of `object`, and what became of it.
    pub(super) fn load(
        object: &[u8],
        btf: Result<&Btf, &BtfError>,
        fields: &Fields,
    ) -> (Option<Self>, HookState) {
        let mut state = HookState::new(TASK_ITER);
        let mut loaded = None;
        let attempt = Self::try_load(object, btf, fields).map(|iter| loaded = Some(iter));
        state.tried(BACKEND, attempt);
        (loaded, state)
    }

    fn try_load(
        object: &[u8],
        btf: Result<&Btf, &BtfError>,
        fields: &Fields,
    ) -> Result<Self, String> {
        let offsets = offsets(fields)?;
        let btf = btf.map_err(|error| {
            format!("/sys/kernel/btf/vmlinux cannot be read ({})", chain(error))
        })?;
        let mut ebpf = EbpfLoader::new()
            .btf(Some(btf))
            .override_global("MOUNT_TABLE_FIELDS", &offsets, true)
            .load(object)
            .map_err(|error| chain(&error))?;
        let program: &mut Iter = find(&mut ebpf, PROGRAM)?;
        program.load("task", btf).map_err(|error| chain(&error))?;
        let names: Vec<_> = ebpf.maps().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            drop(ebpf.take_map(&name));
        }
        Ok(Self { ebpf })
    }

    /// Walks over all tasks: one record of each process, and of each thread in
    /// another mount namespace than its process.
    ///
    /// # Errors
    ///
    /// The kernel refuses the walk.
    pub fn walk(&mut self) -> io::Result<Vec<MountTask>> {
        let mut file = self.open().map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        loop {
            match file.read_to_end(&mut bytes) {
                Ok(_) => break,
                // So many tasks in a row of which nothing was written
                // (`bpf_seq_read` in kernel/bpf/bpf_iter.c).
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes.chunks_exact(size_of::<MountTask>()).map(record).collect())
    }

    /// Whether the kernel lets this thread begin a walk.
    pub fn may_walk(&mut self) -> bool {
        self.open().is_ok()
    }

    fn open(&mut self) -> Result<File, String> {
        let program: &mut Iter = find(&mut self.ebpf, PROGRAM)?;
        let link = program.attach().and_then(|id| program.take_link(id));
        link.map_err(|error| chain(&error))?.into_file().map_err(|error| chain(&error))
    }
}

/// A record from its bytes, of which there are as many as it has.
fn record(bytes: &[u8]) -> MountTask {
    let half = |at: usize| u32::from_ne_bytes(*bytes[at..].first_chunk().unwrap_or(&[0; 4]));
    let word = |at: usize| u64::from_ne_bytes(*bytes[at..].first_chunk().unwrap_or(&[0; 8]));
    MountTask {
        namespace: half(0),
        mounts: half(4),
        process: half(8),
        pad: 0,
        cgroup: word(16),
        comm: [word(24), word(32)],
    }
}

fn offsets(fields: &Fields) -> Result<MountTableFields, String> {
    Ok(MountTableFields {
        task_nsproxy: fields.require(Field::TaskNsproxy)?,
        task_leader: fields.require(Field::TaskLeader)?,
        task_process: fields.require(Field::TaskTgid)?,
        task_comm: fields.require(Field::TaskComm)?,
        nsproxy_namespace: fields.require(Field::NsproxyMountNamespace)?,
        namespace_inum: fields.require(Field::MountNamespaceInum)?,
        namespace_mounts: fields.require(Field::MountNamespaceMounts)?,
    })
}
