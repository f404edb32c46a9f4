//! The few system calls that neither std nor rustix wrap safely.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Pid;

/// Which side of a fork this is.
#[derive(Debug)]
pub(in crate::storm) enum Forked {
    /// The new process.
    Child,
    /// The caller, with the new process.
    Parent(Pid),
}

/// `fork(2)`. The storm's processes have one thread, so the child finds no
/// lock held by a thread that it does not have.
pub(in crate::storm) fn fork() -> io::Result<Forked> {
    // SAFETY: no arguments; with one thread the child may do all that the
    // parent may.
    forked(i64::from(unsafe { libc::fork() }))
}

/// Forks into a new PID namespace, as its pid 1, and a new mount namespace.
///
/// `clone(2)` rather than `unshare(2)`, which would also put every later child
/// of the caller into the PID namespace.
pub(in crate::storm) fn fork_into_namespaces() -> io::Result<Forked> {
    let flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with a null stack this is a fork: the child
    // goes on with a copy of the memory. On every architecture that lockprof
    // supports the flags come first and the rest is zero. glibc's cached thread
    // id is stale in the child; only thread functions of pthread read it, and
    // the child has one thread and calls none.
    forked(unsafe { libc::syscall(libc::SYS_clone, i64::from(flags), 0, 0, 0, 0) })
}

fn forked(result: i64) -> io::Result<Forked> {
    match result {
        0 => Ok(Forked::Child),
        pid => match i32::try_from(pid).ok().filter(|pid| *pid > 0).and_then(Pid::from_raw) {
            Some(pid) => Ok(Forked::Parent(pid)),
            None => Err(io::Error::last_os_error()),
        },
    }
}

/// Ends a forked process at once: no destructors, no buffers of the parent
/// written a second time.
pub(in crate::storm) fn exit(code: i32) -> ! {
    // SAFETY: ends the process, whatever its state.
    unsafe { libc::_exit(code) }
}

/// Puts the calling process into a mount namespace of its own.
pub(in crate::storm) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: file descriptors stay as they are; only the process's view of
    // mounts changes.
    Ok(unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?)
}

/// Puts the calling process into a user namespace of its own, in which it has
/// all capabilities and, until maps are written, no user ID.
pub(in crate::storm) fn unshare_user() -> io::Result<()> {
    // SAFETY: the process has one thread; only its credentials change.
    Ok(unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWUSER) }?)
}

/// SIGINT, SIGTERM and SIGHUP as something to poll; they are blocked for as
/// long as this lives.
///
/// A SIGHUP that is ignored, as `nohup(1)` does, stays so: a signal that is
/// blocked would come all the same (`sig_ignored`, kernel/signal.c).
pub(in crate::storm) struct Signals {
    fd: OwnedFd,
    blocked: Blocked,
}

/// Signals that are blocked until this is dropped.
struct Blocked {
    before: libc::sigset_t,
}

impl Signals {
    /// Blocks the signals in the calling thread. Threads and processes that it
    /// makes inherit that, so that they come here wherever the kernel would
    /// deliver them, and a Ctrl-C, which goes to the whole process group, leaves
    /// the ending of the storm to the caller.
    pub(in crate::storm) fn block() -> io::Result<Self> {
        // SAFETY: both sets are plain data that the calls below fill in.
        let (mut set, mut before) =
            unsafe { (std::mem::zeroed::<libc::sigset_t>(), std::mem::zeroed()) };
        // SAFETY: `set` is valid for the calls; the signal numbers exist.
        unsafe {
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGINT);
            libc::sigaddset(&raw mut set, libc::SIGTERM);
            if !is_ignored(libc::SIGHUP) {
                libc::sigaddset(&raw mut set, libc::SIGHUP);
            }
        }
        // SAFETY: both sets are valid for the call.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before) } {
            0 => {}
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
        let blocked = Blocked { before };
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: `set` is valid for the call.
        let fd = unsafe { libc::signalfd(-1, &raw const set, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd just made it, and nobody else owns it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, blocked })
    }

    /// Leaves the signals blocked for the rest of the process.
    pub(in crate::storm) fn keep_blocked(self) {
        let Self { fd, blocked } = self;
        drop(fd);
        std::mem::forget(blocked);
    }

    /// Takes the signals that came; how many there were. Of one signal that came
    /// several times the kernel keeps one.
    pub(in crate::storm) fn take(&self) -> io::Result<u32> {
        const INFO: usize = size_of::<libc::signalfd_siginfo>();
        let mut taken = 0;
        loop {
            let mut info = [0_u8; INFO];
            match rustix::io::read(self.fd.as_fd(), &mut info) {
                Ok(_) => taken += 1,
                Err(rustix::io::Errno::AGAIN) => return Ok(taken),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: `before` is the mask that the same thread had.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut())
        };
    }
}

/// Whether the process ignores a signal.
fn is_ignored(signal: i32) -> bool {
    // SAFETY: plain data that the call below fills in.
    let mut action = unsafe { std::mem::zeroed::<libc::sigaction>() };
    // SAFETY: nothing is set, and `action` is valid for the call.
    let read = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    read == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Anonymous zeroed memory that forked processes share.
pub(in crate::storm) struct SharedMemory<T> {
    at: std::ptr::NonNull<T>,
}

/// Types for which all bytes zero is a value, and which any number of processes
/// may use at once through a shared reference.
///
/// # Safety
///
/// The type must consist of atomics alone, and have no destructor.
pub(in crate::storm) unsafe trait Shareable: Sync {}

impl<T: Shareable> SharedMemory<T> {
    pub(in crate::storm) fn new() -> io::Result<Self> {
        // SAFETY: a new mapping of its own, at an address that the kernel
        // picks.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = std::ptr::NonNull::new(at.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { at })
    }
}

impl<T: Shareable> std::ops::Deref for SharedMemory<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mapping is page-aligned, as long as a `T`, lives until
        // `drop`, and by `Shareable` zero bytes are a value and concurrent use
        // is sound.
        unsafe { self.at.as_ref() }
    }
}

impl<T> Drop for SharedMemory<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, which nothing refers to any more.
        unsafe { libc::munmap(self.at.as_ptr().cast(), size_of::<T>()) };
    }
}

/// CPUs that a mask has room for: all that Linux can number.
const MASK_CPUS: u32 = 65_536;
const MASK_WORDS: usize = (MASK_CPUS / libc::c_ulong::BITS) as usize;
const WORD_BITS: usize = libc::c_ulong::BITS as usize;

/// The CPUs that the calling thread may run on, ascending.
pub(in crate::storm) fn affinity() -> io::Result<Vec<u32>> {
    let mut mask = vec![0 as libc::c_ulong; MASK_WORDS];
    // The system call itself: libc's type ends at 1024 CPUs.
    // SAFETY: the kernel writes at most the length given into the mask.
    let written = unsafe {
        libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&*mask), mask.as_mut_ptr())
    };
    if written < 0 {
        return Err(io::Error::last_os_error());
    }
    let is_set = |cpu: &u32| {
        let cpu = *cpu as usize;
        mask.get(cpu / WORD_BITS).is_some_and(|word| word >> (cpu % WORD_BITS) & 1 == 1)
    };
    Ok((0..MASK_CPUS).filter(is_set).collect())
}

/// Lets the calling thread run on `cpus` alone.
pub(in crate::storm) fn set_affinity(cpus: &[u32]) -> io::Result<()> {
    let mut mask = vec![0 as libc::c_ulong; MASK_WORDS];
    for cpu in cpus {
        let cpu = *cpu as usize;
        if let Some(word) = mask.get_mut(cpu / WORD_BITS) {
            *word |= 1 << (cpu % WORD_BITS);
        }
    }
    // SAFETY: the kernel reads at most the length given from the mask.
    let result = unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&*mask), mask.as_ptr())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Writes all of a record at once; below `PIPE_BUF` the kernel does not mix it
/// with another writer's.
pub(in crate::storm) fn write_record(pipe: &OwnedFd, record: &[u8]) {
    debug_assert!(record.len() <= libc::PIPE_BUF);
    // A closed pipe means that the caller is gone; then this process is about
    // to be killed as well.
    while let Err(rustix::io::Errno::INTR) = rustix::io::write(pipe, record) {}
}
