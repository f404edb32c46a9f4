//! Who waited, and who made them wait.
//!
//! In: the beginning and the end of waits, from [`waits`](crate::waits). Out:
//! `CHARGES`, `BLOCKERS`, `SLOW`. The same may be touched as there.
//!
//! A wait is charged twice when it ends: to the task that waited, and to the one
//! that held the lock when the wait began. That one is looked up at the beginning,
//! when it is still there; its row in `CHARGES` is what is kept until the end.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use profiler_common::charges::{self, About, Found, Role, Row, Rows};
use profiler_common::inflight::{self, InCall};
use profiler_common::layout::{CHARGE_CLAIMS, CpuState, Drop};
#[cfg(not(feature = "no-compare-exchange"))]
use profiler_common::slow::SlowWait;
use profiler_common::slow::{Attribution, AttributionState, NEWCOMERS};
use profiler_common::watch::WatchEntry;

use crate::arrays::{self, Tasks, count_drop, layout};
use crate::atomic::{self, SharedWord};
use crate::owner;
use crate::waits::Ended;

#[map]
static CHARGES: Array<Row<u64>> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static CALLERS: Array<charges::Identity> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static BLOCKERS: Array<u32> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[cfg(not(feature = "no-compare-exchange"))]
#[map]
static SLOW: Array<SlowWait> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static ATTRIBUTED: Array<AttributionState> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Set at load time.
#[unsafe(no_mangle)]
pub(crate) static ATTRIBUTION: Attribution = Attribution {
    rows_mask: 0,
    group: 0,
    reserved: 0,
    slow_mask: 0,
    seed: 0,
    slow_ns: 0,
    owners: 0,
    task_comm: 0,
    cgroup_steps: 0,
    cgroup_path: [0; 5],
    pad: [0; 14],
};

/// A field of the read-only [`ATTRIBUTION`].
macro_rules! attribution {
    ($field:ident) => {{
        // SAFETY: a static; volatile because user space sets its value at load
        // time, and the compiler must not take the zeros above.
        unsafe { (&raw const crate::attribution::ATTRIBUTION.$field).read_volatile() }
    }};
}
pub(crate) use attribution;

/// The table of charges.
struct Charges;

impl Rows for Charges {
    type Word = SharedWord;

    #[inline(always)]
    fn mask(&self) -> u32 {
        attribution!(rows_mask)
    }

    #[inline(always)]
    fn group(&self) -> u32 {
        attribution!(group)
    }

    #[inline(always)]
    fn reserved(&self) -> u32 {
        attribution!(reserved)
    }

    #[inline(always)]
    fn seed(&self) -> u64 {
        attribution!(seed)
    }

    #[inline(always)]
    fn row(&self, index: u32) -> Option<&Row<SharedWord>> {
        let row = CHARGES.get_ptr(index)?.cast::<Row<SharedWord>>();
        // SAFETY: a live array element; `SharedWord` has the layout of `u64` and
        // allows for other writers.
        Some(unsafe { &*row })
    }

    #[inline(always)]
    fn claim(&self, row: &Row<SharedWord>, index: u32, key: u64) -> bool {
        row.key.claim(CHARGE_CLAIMS + index, key)
    }

    #[inline(always)]
    fn raise(&self, word: &SharedWord, value: u64) {
        word.raise(value);
    }
}

/// Whether waits are charged to anybody.
#[inline(always)]
pub(crate) fn enabled() -> bool {
    layout!(attribution) != 0
}

/// Number of the row to charge a wait for `lock` of thread `tid` that begins now,
/// plus 1; 0 if nobody can be named.
#[inline(always)]
pub(crate) fn blocker(state: &mut CpuState, tid: u32, lock: &WatchEntry) -> u32 {
    match by_owner(state, tid, lock) {
        Some(row) => row,
        None => by_last_acquirer(state, lock).unwrap_or(0),
    }
}

/// Charges whom the lock names as its owner, with the call that it is in.
#[inline(always)]
fn by_owner(state: &mut CpuState, tid: u32, lock: &WatchEntry) -> Option<u32> {
    let (task, role) = owner::of_lock(lock)?;
    let pid = owner::pid(task)?;
    // A hint may be about this very task, long ago; and what was a task may be
    // something else.
    if pid == tid || pid == 0 {
        return None;
    }
    let (call, position) = inflight::current_caller(&Tasks, pid);
    let who = if call == InCall::NONE { owner::identity_of(task)? } else { caller(position)? };
    Some(row_of(state, &who, About::blocker(lock.lock, role, call), role) + 1)
}

/// Who is in a mount call, by the slot of the task: as it was when it entered, which
/// saves reading it through the task.
#[inline(always)]
fn caller(position: u32) -> Option<charges::Identity> {
    let caller = CALLERS.get_ptr(position)?;
    // SAFETY: a live array element, which at worst is being given to another task.
    Some(unsafe { caller.read() })
}

/// Notes who enters a mount call, in the task's slot `position`.
#[inline(always)]
pub(crate) fn entered(position: u32) {
    if enabled()
        && let Some(caller) = CALLERS.get_ptr_mut(position)
    {
        // SAFETY: a live array element that belongs to the task's slot.
        unsafe { *caller = owner::current_identity() };
    }
}

/// Charges the last task that got the lock after it had waited for it.
#[inline(always)]
fn by_last_acquirer(state: &mut CpuState, lock: &WatchEntry) -> Option<u32> {
    let shared = arrays::LOCKS.get_ptr(u32::from(lock.lock))?;
    // SAFETY: a word of a live array element, which others write.
    let last = unsafe { (&raw const (*shared).last_acquirer).read_volatile() };
    let row = (last as u32).checked_sub(1)?;
    let (who, about) = charges::described(&Charges, row)?;
    // The row may have been given to somebody else since.
    if about.lock() != lock.lock || about.role_number() != Role::Waiter as u8 {
        return None;
    }
    let role = Role::LastAcquirer;
    Some(row_of(state, &who, About::blocker(lock.lock, role, about.call()), role) + 1)
}

/// The row of `who` in the matter of `about`, or the one that takes what finds
/// none.
#[inline(always)]
fn row_of(state: &mut CpuState, who: &charges::Identity, about: About, role: Role) -> u32 {
    match charges::find_or_claim(&Charges, who, about) {
        Found::Known(row) => row,
        Found::Claimed(row) => {
            announce(who.cgroup);
            row
        }
        Found::Full => {
            count_drop(state, Drop::ChargesFull);
            role.reserved_row(about.lock())
        }
    }
}

/// Tells user space that there is somebody new, in the cgroup `cgroup`.
#[inline(always)]
fn announce(cgroup: u64) {
    let Some(shared) = ATTRIBUTED.get_ptr_mut(0) else { return };
    // SAFETY: words of a live array element, the second within its array.
    unsafe {
        let claimed = &raw mut (*shared).claimed;
        #[cfg(not(feature = "no-compare-exchange"))]
        {
            let number = atomic::fetch_add(claimed, 1) as usize & (NEWCOMERS - 1);
            (&raw mut (*shared).newcomers).cast::<u64>().add(number).write_volatile(cgroup);
        }
        #[cfg(feature = "no-compare-exchange")]
        {
            let number = claimed.read_volatile() as usize & (NEWCOMERS - 1);
            (&raw mut (*shared).newcomers).cast::<u64>().add(number).write_volatile(cgroup);
            atomic::add(claimed, 1);
        }
    }
}

/// Keeps whom a sleeping wait is charged to, for the task's slot `position`.
#[inline(always)]
pub(crate) fn keep(position: u32, blocker: u32) {
    if let Some(kept) = BLOCKERS.get_ptr_mut(position) {
        // SAFETY: a live array element that belongs to the task's slot.
        unsafe { *kept = blocker };
    }
}

/// Whom the wait of the task in slot `position` is charged to; that is forgotten,
/// so that user space sees in whose name anybody waits.
#[inline(always)]
pub(crate) fn kept(position: u32) -> u32 {
    match BLOCKERS.get_ptr_mut(position) {
        // SAFETY: as above.
        Some(kept) => unsafe { core::mem::take(&mut *kept) },
        None => 0,
    }
}

/// Charges a wait that ended.
#[inline(always)]
pub(crate) fn ended(state: &mut CpuState, ended: &Ended) -> Option<()> {
    let who = owner::current_identity();
    let about = About::waiter(ended.lock, ended.series, ended.call);
    let row = row_of(state, &who, about, Role::Waiter);
    charges::charge(&Charges, row, ended.waited_ns);
    let blocker = match ended.blocker.checked_sub(1) {
        Some(row) => row,
        None => Role::Unknown.reserved_row(ended.lock),
    };
    charges::charge(&Charges, blocker, ended.waited_ns);
    if !ended.failed {
        acquired(ended.lock, row)?;
    }
    #[cfg(not(feature = "no-compare-exchange"))]
    if attribution!(slow_mask) != 0 && ended.waited_ns >= attribution!(slow_ns) {
        list(state, ended, &who, about, blocker)?;
    }
    Some(())
}

/// Notes who got the lock. The word is written only when it changes, so that its
/// cache line can stay where it is.
#[inline(always)]
fn acquired(lock: u8, row: u32) -> Option<()> {
    let shared = arrays::LOCKS.get_ptr_mut(u32::from(lock))?;
    let acquirer = u64::from(row) + 1;
    // SAFETY: a word of a live array element, which others write.
    unsafe {
        let last = &raw mut (*shared).last_acquirer;
        if last.read_volatile() != acquirer {
            last.write_volatile(acquirer);
        }
    }
    Some(())
}

/// Writes a slow wait into the ring.
#[cfg(not(feature = "no-compare-exchange"))]
#[inline(always)]
fn list(
    state: &mut CpuState,
    ended: &Ended,
    who: &charges::Identity,
    about: About,
    blocker: u32,
) -> Option<()> {
    use aya_ebpf::helpers::bpf_get_current_pid_tgid;
    use aya_ebpf::helpers::generated::bpf_get_stack;

    let shared = ATTRIBUTED.get_ptr_mut(0)?;
    // SAFETY: a word of a live array element.
    let number = unsafe { atomic::fetch_add(&raw mut (*shared).slow, 1) } + 1;
    let place = SLOW.get_ptr_mut(number as u32 & attribution!(slow_mask))?;
    // SAFETY: a word of a live array element; no claim here is by insertion.
    let mine = unsafe { atomic::claim(&raw mut (*place).writer, 0, number) };
    if !mine {
        count_drop(state, Drop::SlowWaitNotListed);
        return Some(());
    }
    let (blocking, blocker_about) = charges::described(&Charges, blocker).unwrap_or((
        charges::Identity::default(),
        About::blocker(ended.lock, Role::Unknown, InCall::NONE),
    ));
    // SAFETY: fields of a live array element that is this program's until
    // `writer` is 0 again; volatile keeps the order, which a reader relies on. The
    // helper writes no more than it is told.
    unsafe {
        (&raw mut (*place).number).write_volatile(0);
        (*place).ended_ns = ended.end.now;
        (*place).waited_ns = ended.waited_ns;
        (*place).waiter_about = about.0;
        (*place).blocker_about = blocker_about.0;
        (*place).waiter = *who;
        (*place).blocker = blocking;
        (*place).tid = bpf_get_current_pid_tgid() as u32;
        (*place).cpu = ended.end.cpu;
        let stack = (&raw mut (*place).stack).cast::<core::ffi::c_void>();
        let bytes = bpf_get_stack(ended.end.ctx, stack, size_of_val(&(*place).stack) as u32, 0);
        (*place).stack_bytes = if bytes > 0 { bytes as u64 } else { 0 };
        (&raw mut (*place).number).write_volatile(number);
        (&raw mut (*place).writer).write_volatile(0);
    }
    Some(())
}
