//! Flags that `lock:contention_begin` carries.
//!
//! Source: `include/trace/events/lock.h` in the kernel, unchanged since the
//! tracepoints came in 5.19. `contention_end` carries no flags.

/// The waiter spins.
pub const SPIN: u32 = 1 << 0;
/// The waiter wants to share the lock.
pub const READ: u32 = 1 << 1;
/// The waiter wants the lock for itself.
pub const WRITE: u32 = 1 << 2;
/// A real-time mutex.
pub const RT: u32 = 1 << 3;
/// A per-CPU read-write semaphore.
pub const PERCPU: u32 = 1 << 4;
/// A mutex.
pub const MUTEX: u32 = 1 << 5;
