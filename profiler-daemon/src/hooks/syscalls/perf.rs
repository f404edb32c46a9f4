//! Tracepoints by perf event, attached without a mounted tracefs.
//!
//! A tracepoint's id is in tracefs, which hosts often do not mount. It is then
//! mounted for this process alone, by a detached mount that no namespace shows
//! and that ends with its descriptor.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use aya_obj::generated::perf_type_id::PERF_TYPE_TRACEPOINT;
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::hooks::perf_event::{self, Scope};

const MOUNT_POINTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Why a tracepoint cannot be attached.
#[derive(Debug, thiserror::Error)]
pub(super) enum PerfError {
    #[error(
        "tracefs is not mounted on /sys/kernel/tracing and cannot be mounted privately ({0}): mount it, or run with CAP_SYS_ADMIN"
    )]
    Tracefs(#[source] io::Error),
    #[error(
        "tracefs cannot be read at {0} ({1}): run as root, with CAP_DAC_READ_SEARCH, or mount it readable for lockprof's group (mode=750,gid=...)"
    )]
    Unreadable(String, #[source] io::Error),
    #[error("this kernel has no tracepoint syscalls:{0}")]
    Absent(String),
    #[error("the id of syscalls:{0} in tracefs is {1:?}, not a number")]
    BadId(String, String),
    #[error(
        "perf_event_open failed ({0}): it needs CAP_PERFMON; where the sysctl kernel.perf_event_paranoid is 3, as Debian has it, that is not enough: `sysctl kernel.perf_event_paranoid=2`"
    )]
    Open(#[source] io::Error),
    #[error("the perf event does not take the BPF program ({0})")]
    SetBpf(#[source] io::Error),
}

/// The events folder of tracefs.
pub(super) struct Tracefs {
    events: OwnedFd,
    shown_as: String,
}

impl Tracefs {
    /// The mounted tracefs, else a private one.
    pub(super) fn open() -> Result<Self, PerfError> {
        for point in MOUNT_POINTS {
            let events = Path::new(point).join("events");
            match fs::File::open(&events) {
                Ok(file) => {
                    return Ok(Self {
                        events: file.into(),
                        shown_as: events.display().to_string(),
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(PerfError::Unreadable(events.display().to_string(), error));
                }
                Err(_) => {}
            }
        }
        let mount = Self::mount().map_err(PerfError::Tracefs)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let shown_as = "a private mount";
        // Mounting takes a capability, reading the permission of the files.
        let events = openat(&mount, "events", flags, Mode::empty())
            .map_err(|error| PerfError::Unreadable(shown_as.to_owned(), error.into()))?;
        Ok(Self { events, shown_as: shown_as.to_owned() })
    }

    fn mount() -> io::Result<OwnedFd> {
        let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(context.as_fd())?;
        let mount = fsmount(
            context.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::MOUNT_ATTR_RDONLY
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC,
        )?;
        Ok(mount)
    }

    /// Id of `syscalls:<event>`.
    pub(super) fn id(&self, event: &str) -> Result<u64, PerfError> {
        let path = format!("syscalls/{event}/id");
        let file = openat(&self.events, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let file = match file {
            Ok(file) => file,
            Err(rustix::io::Errno::NOENT) => return Err(PerfError::Absent(event.to_owned())),
            Err(error) => {
                return Err(PerfError::Unreadable(
                    format!("{}/{path}", self.shown_as),
                    error.into(),
                ));
            }
        };
        let mut text = String::new();
        fs::File::from(file)
            .read_to_string(&mut text)
            .map_err(|error| PerfError::Unreadable(format!("{}/{path}", self.shown_as), error))?;
        text.trim().parse().map_err(|_| PerfError::BadId(event.to_owned(), text.clone()))
    }
}

/// A BPF program attached to a tracepoint. Closing it detaches the program.
pub(in crate::hooks) struct PerfLink {
    _event: OwnedFd,
}

impl PerfLink {
    /// Attaches `program` to the tracepoint with this id, for all tasks and
    /// CPUs.
    pub(super) fn attach(id: u64, program: BorrowedFd<'_>) -> Result<Self, PerfError> {
        let mut attr = perf_event::attribute();
        attr.type_ = PERF_TYPE_TRACEPOINT as u32;
        attr.config = id;
        // A program on a tracepoint runs on every CPU, whichever CPU the perf
        // event names (`perf_event_attach_bpf_prog` in kernel/trace/bpf_trace.c).
        let event = perf_event::open(&attr, Scope::Cpu(0)).map_err(PerfError::Open)?;
        perf_event::run(&event, program).map_err(PerfError::SetBpf)?;
        Ok(Self { _event: event })
    }
}
