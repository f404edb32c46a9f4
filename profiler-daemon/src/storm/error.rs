//! Why there was no storm.

use std::borrow::Cow;
use std::io;

use serde::{Deserialize, Serialize};

use super::runtime::RuntimeError;
use super::start::{Missing, Op};
use crate::kernel::topology::TopologyError;

/// Why there was no storm. What happens in the engine's process comes to the
/// caller in the serialised form, where an [`io::Error`] is its errno or its words.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum StormError {
    /// The engine forks without `execve`, which a process with threads cannot
    /// do.
    #[error(
        "the storm's engine is started before anything that makes a thread, and this process has \
         {0}"
    )]
    HasThreads(usize),
    /// The privilege to mount is missing, and mounting in a user namespace is
    /// not enough.
    #[error(
        "storm needs CAP_SYS_ADMIN for --idmap and for a real runtime: run it as root, or without \
         them"
    )]
    NotPermitted,
    /// The privilege to mount is missing, and a user namespace does not give
    /// it.
    #[error(
        "storm needs CAP_SYS_ADMIN to mount: run it as root. It cannot do without in a user \
         namespace of its own ({0}): that needs room under /proc/sys/user/max_user_namespaces, and \
         sysctl kernel.unprivileged_userns_clone=1 and \
         kernel.apparmor_restrict_unprivileged_userns=0 where there are such"
    )]
    NoUserNamespace(#[serde(with = "errno")] io::Error),
    /// The kernel, its limits or a sandbox refuse the namespaces.
    #[error(
        "the kernel refuses a PID and a mount namespace ({0}): they need CONFIG_PID_NS, room under \
         /proc/sys/user/max_mnt_namespaces and max_pid_namespaces, and a sandbox that lets them be made"
    )]
    NamespacesRefused(#[serde(with = "errno")] io::Error),
    /// A mount namespace does not hold so many mounts.
    #[error(
        "the kernel takes no {wanted} further mounts: a mount namespace holds {limit} at most; \
         raise /proc/sys/fs/mount-max, or ask for fewer --host-mounts"
    )]
    TooManyMounts {
        /// `--host-mounts`.
        wanted: u32,
        /// `fs.mount-max`.
        limit: u64,
    },
    /// A CPU to pin to is not there.
    #[error("this machine has no CPU {missing}; it has {present}: change --pin")]
    NoSuchCpu {
        /// Those that are not there.
        missing: String,
        /// Those that are.
        present: String,
    },
    /// A NUMA node to pin to is not there, or has no CPU.
    #[error("this machine has no NUMA node {node} with CPUs; it has {present}: change --pin")]
    NoSuchNode {
        /// The node.
        node: u32,
        /// Those that have CPUs.
        present: String,
    },
    /// The process is confined to other CPUs.
    #[error(
        "this process may not run on CPU {0}: its cpuset leaves it out; see /sys/fs/cgroup, or \
         start it elsewhere"
    )]
    CpuNotAllowed(String),
    /// The machine does not say which CPUs it has. Never comes from the engine's
    /// process.
    #[error(transparent)]
    #[serde(skip)]
    Topology(#[from] TopologyError),
    /// The flags contradict each other.
    #[error("{0}")]
    Contradiction(String),
    /// The kernel lacks what the strategy takes.
    #[error("this kernel has not got {feature}, which needs {needs} ({step}: {error}): {instead}")]
    Missing {
        /// What it lacks.
        feature: Cow<'static, str>,
        /// The version, or the option, that has it.
        needs: Cow<'static, str>,
        /// What to do instead.
        instead: Cow<'static, str>,
        /// The step that showed it.
        #[serde(with = "op_name")]
        step: Op,
        /// How.
        #[serde(with = "errno")]
        error: io::Error,
    },
    /// The real runtime is missing, or cannot do what was asked for.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The very first start failed, so the others would as well.
    #[error("the first start failed at {op}: {error}{}", op.hint())]
    FirstStart {
        /// The step that failed.
        #[serde(with = "op_name")]
        op: Op,
        /// Why.
        #[serde(with = "errno")]
        error: io::Error,
    },
    /// The processes ended before their time.
    #[error(
        "the storm's processes ended before their time ({0}): look for an out-of-memory kill in the \
         kernel log, or try less --concurrency"
    )]
    EndedEarly(String),
    /// A system call of the machinery failed.
    #[error("failed to {action}: {error}")]
    System {
        /// What was tried.
        action: Cow<'static, str>,
        /// Why it failed.
        #[serde(with = "errno")]
        error: io::Error,
    },
}

impl StormError {
    /// The very first start, or what comes before it, failed at `op`: as the
    /// kernel lacks something, or otherwise.
    pub(in crate::storm) fn first_start(op: Op, error: io::Error) -> Self {
        match error.raw_os_error().and_then(|errno| op.missing(errno)) {
            Some(Missing { feature, needs, instead }) => {
                let (feature, needs, instead) = (feature.into(), needs.into(), instead.into());
                Self::Missing { feature, needs, instead, step: op, error }
            }
            None => Self::FirstStart { op, error },
        }
    }

    /// Whether privileges or the kernel stand in the way, rather than a
    /// failure.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NotPermitted
            | Self::NoUserNamespace(_)
            | Self::NamespacesRefused(_)
            | Self::TooManyMounts { .. }
            | Self::CpuNotAllowed(_)
            | Self::Missing { .. } => true,
            Self::Runtime(error) => !error.is_usage(),
            Self::FirstStart { error, .. } => error.kind() == io::ErrorKind::PermissionDenied,
            Self::HasThreads(_)
            | Self::NoSuchCpu { .. }
            | Self::NoSuchNode { .. }
            | Self::Contradiction(_)
            | Self::Topology(_)
            | Self::EndedEarly(_)
            | Self::System { .. } => false,
        }
    }

    /// Whether what was asked for makes no sense on this machine.
    pub const fn is_usage(&self) -> bool {
        match self {
            Self::NoSuchCpu { .. } | Self::NoSuchNode { .. } | Self::Contradiction(_) => true,
            Self::Runtime(error) => error.is_usage(),
            _ => false,
        }
    }
}

/// An [`io::Error`] as its errno; one without as its words.
mod errno {
    use std::io;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Sent {
        Errno(i32),
        Words(String),
    }

    pub(super) fn serialize<S: Serializer>(error: &io::Error, to: S) -> Result<S::Ok, S::Error> {
        let sent = error.raw_os_error().map(Sent::Errno);
        sent.unwrap_or_else(|| Sent::Words(error.to_string())).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<io::Error, D::Error> {
        Ok(match Sent::deserialize(from)? {
            Sent::Errno(errno) => io::Error::from_raw_os_error(errno),
            Sent::Words(words) => io::Error::other(words),
        })
    }
}

/// An [`Op`] by its name.
mod op_name {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::Op;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
    pub(super) fn serialize<S: Serializer>(op: &Op, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(op.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Op, D::Error> {
        let name = String::deserialize(from)?;
        let found = Op::ALL.into_iter().find(|op| op.as_str() == name);
        found.ok_or_else(|| de::Error::custom(format!("no step is called {name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storm::strategy::Runtime;

    #[test]
    fn what_comes_from_the_engine_reads_as_it_was() {
        let errno = io::Error::from_raw_os_error;
        for error in [
            StormError::HasThreads(2),
            StormError::NotPermitted,
            StormError::NoUserNamespace(errno(libc::ENOSPC)),
            StormError::NamespacesRefused(errno(libc::EPERM)),
            StormError::TooManyMounts { wanted: 10, limit: 5 },
            StormError::CpuNotAllowed("3-4".to_owned()),
            StormError::FirstStart { op: Op::Unshare, error: errno(libc::EACCES) },
            StormError::FirstStart { op: Op::RuntimeCreate, error: io::Error::other("no root") },
            StormError::first_start(Op::Statmount, errno(libc::ENOSYS)),
            StormError::Contradiction("--idmap needs --layers".to_owned()),
            StormError::Runtime(RuntimeError::Missing(Runtime::Crun)),
            StormError::EndedEarly("signal 9".to_owned()),
            StormError::System { action: "make a pipe".into(), error: errno(libc::EMFILE) },
        ] {
            let sent = serde_json::to_string(&error).unwrap();
            let came: StormError = serde_json::from_str(&sent).unwrap();
            assert_eq!(came.to_string(), error.to_string());
            assert_eq!(came.is_refusal(), error.is_refusal(), "{error}");
            assert_eq!(came.is_usage(), error.is_usage(), "{error}");
        }
    }
}
