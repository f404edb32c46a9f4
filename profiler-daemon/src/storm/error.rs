//! Why there was no storm.

use std::io;

use super::start::{Missing, Op};
use crate::kernel::topology::TopologyError;

/// Why there was no storm.
#[derive(Debug, thiserror::Error)]
pub enum StormError {
    /// The privilege to mount is missing.
    #[error("storm needs CAP_SYS_ADMIN to mount in namespaces of its own: run it as root")]
    NotPermitted,
    /// The kernel, its limits or a sandbox refuse the namespaces.
    #[error(
        "the kernel refuses a PID and a mount namespace ({0}): they need CONFIG_PID_NS, room under \
         /proc/sys/user/max_mnt_namespaces and max_pid_namespaces, and a sandbox that lets them be made"
    )]
    NamespacesRefused(io::Error),
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
    /// The machine does not say which CPUs it has.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The flags contradict each other.
    #[error("{0}")]
    Contradiction(String),
    /// The kernel lacks what the strategy takes.
    #[error("this kernel has not got {feature}, which needs {needs} ({step}: {error}): {instead}")]
    Missing {
        /// What it lacks.
        feature: &'static str,
        /// The version, or the option, that has it.
        needs: &'static str,
        /// What to do instead.
        instead: &'static str,
        /// The step that showed it.
        step: Op,
        /// How.
        error: io::Error,
    },
    /// The very first start failed, so the others would as well.
    #[error("the first start failed at {op}: {error}{}", op.hint())]
    FirstStart {
        /// The step that failed.
        op: Op,
        /// Why.
        error: io::Error,
    },
    /// The supervisor ended before its time.
    #[error(
        "the storm's processes ended before their time ({0}): look for an out-of-memory kill in the \
         kernel log, or try less --concurrency"
    )]
    EndedEarly(String),
    /// A system call of the machinery failed.
    #[error("failed to {action}: {error}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        error: io::Error,
    },
}

impl StormError {
    /// The very first start, or what comes before it, failed at `op`: as the
    /// kernel lacks something, or otherwise.
    pub(in crate::storm) fn first_start(op: Op, error: io::Error) -> Self {
        match error.raw_os_error().and_then(|errno| op.missing(errno)) {
            Some(Missing { feature, needs, instead }) => {
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
            | Self::NamespacesRefused(_)
            | Self::CpuNotAllowed(_)
            | Self::Missing { .. } => true,
            Self::FirstStart { error, .. } => error.kind() == io::ErrorKind::PermissionDenied,
            Self::NoSuchCpu { .. }
            | Self::NoSuchNode { .. }
            | Self::Contradiction(_)
            | Self::Topology(_)
            | Self::EndedEarly(_)
            | Self::System { .. } => false,
        }
    }

    /// Whether what was asked for makes no sense on this machine.
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::NoSuchCpu { .. } | Self::NoSuchNode { .. } | Self::Contradiction(_))
    }
}
