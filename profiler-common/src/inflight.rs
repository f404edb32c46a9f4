//! Tasks in the middle of something: a wait for a watched lock, a mount system
//! call, or the first within the second.
//!
//! A fixed array of lines, three slots each. A task's id picks a group of eight
//! lines and one of them to begin with; almost always its slot is in that one,
//! so that an event touches one cache line here. A line counts the tasks that it
//! had no room for, and only while there are any do they look further.
//!
//! Only the task itself writes a slot that carries its id (events of one task
//! never run at the same time), so the one race is between tasks that claim the
//! same empty slot, and [`Claim::claim`] settles it: by a compare-exchange, or
//! by what a kernel without one has. User space reads the table while it
//! changes.
//!
//! Protocol, per slot: a wait sets the key and then the start; its end clears
//! the start and then the key. A reader that sees the same key before and after
//! a start other than 0 has a start that was valid under that key.
//!
//! The code is generic over the machine word and the table, so that the very
//! same protocol runs in BPF, over mapped memory in user space, and under loom.

/// An aligned 64-bit word that several CPUs access.
pub trait Word {
    /// Reads the word.
    fn load(&self) -> u64;
    /// Writes the word.
    fn store(&self, value: u64);
    /// Writes the word after all earlier writes of this CPU.
    fn store_release(&self, value: u64);
    /// Adds, wrapping around.
    fn add(&self, value: u64);
}

/// A word that can be compared and exchanged in one step. BPF programs cannot
/// before Linux 5.12.
pub trait Exchange: Word {
    /// Writes `new` if the word holds `old`, with a full barrier; whether it did.
    fn compare_exchange(&self, old: u64, new: u64) -> bool;
}

/// Slots in a line.
pub const SLOTS: usize = 3;
/// Lines in a group: as far as a task looks.
pub const GROUP: u32 = 8;

/// One slot. The key is 0 when the slot is free.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Slot<W> {
    /// See [`Key`].
    pub key: W,
    /// Start of the wait in ns of `CLOCK_MONOTONIC`; 0 without one, and while
    /// the slot changes hands.
    pub wait_start_ns: W,
}

/// Three slots that share a cache line.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Line<W> {
    /// Tasks that began here and had to go to another line of the group.
    pub displaced: W,
    #[doc(hidden)]
    pub pad: W,
    /// The slots.
    pub slots: [Slot<W>; SLOTS],
}

const _: () = assert!(size_of::<Line<u64>>() == 64);

/// Access to the lines.
pub trait Table {
    /// The machine word.
    type Word: Word;
    /// Number of lines, a power of two and at least [`GROUP`], less one.
    fn mask(&self) -> u32;
    /// [`GROUP`]. BPF gets it from memory, which keeps the compiler from writing
    /// the body of a search eight times over: the programs run with cold caches.
    /// It is asked anew for each turn, since of a value that the compiler put
    /// aside on the stack the verifier may not know any more that it is 8.
    fn group(&self) -> u32 {
        GROUP
    }
    /// Line `index`; `None` only if there is none.
    fn line(&self, index: u32) -> Option<&Line<Self::Word>>;
    /// The slot with the number `position` is free again.
    fn freed(&self, position: u32);
}

/// A table in which tasks get slots.
pub trait Claim: Table {
    /// Writes `key` to the free slot with the number `position` unless another
    /// task is first; whether it did.
    fn claim(&self, slot: &Slot<Self::Word>, position: u32, key: Key) -> bool;
}

/// What a slot is about, in one word.
///
/// | bits | meaning |
/// | --- | --- |
/// | 0..32 | thread id, as the initial pid namespace numbers it |
/// | 32..40 | series of the wait plus 1; 0 without a wait |
/// | 40..46 | mount call plus 1; 0 outside of one |
/// | 46..62 | NUMA node where the wait began |
/// | 62 | the slot is being reclaimed: not free, and no task's |
/// | 63 | set in every task's key |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub u64);

const VALID: u64 = 1 << 63;
const RECLAIMING: u64 = 1 << 62;
const OWNER: u64 = VALID | 0xffff_ffff;
const WAIT_SHIFT: u32 = 32;
const WAIT: u64 = 0xff << WAIT_SHIFT;
const CALL_SHIFT: u32 = 40;
const CALL: u64 = 0x3f << CALL_SHIFT;
const NODE_SHIFT: u32 = 46;
const NODE: u64 = 0xffff << NODE_SHIFT;

impl Key {
    /// Key of thread `tid`, which is in the middle of nothing yet.
    #[inline(always)]
    pub const fn of_thread(tid: u32) -> Self {
        Self(VALID | tid as u64)
    }

    /// The same with a wait of `series` that began on `node`.
    #[inline(always)]
    #[must_use]
    pub const fn with_wait(self, series: u8, node: u32) -> Self {
        let series = (series as u64 + 1) << WAIT_SHIFT & WAIT;
        let node = (node as u64) << NODE_SHIFT & NODE;
        Self(self.0 & !(WAIT | NODE) | series | node)
    }

    /// The same with a mount call, below 63.
    #[inline(always)]
    #[must_use]
    pub const fn with_call(self, call: u8) -> Self {
        Self(self.0 & !CALL | (call as u64 + 1) << CALL_SHIFT & CALL)
    }

    /// Thread id.
    #[inline(always)]
    pub const fn tid(self) -> u32 {
        self.0 as u32
    }

    /// Series of the wait.
    #[inline(always)]
    pub const fn wait(self) -> Option<u8> {
        let series = (self.0 & WAIT) >> WAIT_SHIFT;
        if series == 0 { None } else { Some((series - 1) as u8) }
    }

    /// The bits about the series.
    #[inline(always)]
    const fn wait_bits(self) -> u64 {
        self.0 & WAIT
    }

    /// NUMA node where the wait began.
    #[inline(always)]
    pub const fn node(self) -> u32 {
        ((self.0 & NODE) >> NODE_SHIFT) as u32
    }

    /// The mount call.
    #[inline(always)]
    pub const fn call(self) -> Option<u8> {
        self.in_call().get()
    }

    /// The same.
    #[inline(always)]
    const fn in_call(self) -> InCall {
        InCall(((self.0 & CALL) >> CALL_SHIFT) as u8)
    }

    #[inline(always)]
    const fn without_wait(self) -> Self {
        Self(self.0 & !(WAIT | NODE))
    }

    #[inline(always)]
    const fn without_call(self) -> Self {
        Self(self.0 & !CALL)
    }

    #[inline(always)]
    const fn is_idle(self) -> bool {
        self.0 & (WAIT | CALL) == 0
    }
}

/// The mount call that a task is in, if it is in one: its number plus 1, or 0.
///
/// A number rather than an `Option`: the compiler may move around what an empty
/// one holds, and the verifier refuses to read what was never written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct InCall(pub u8);

impl InCall {
    /// Outside of any.
    pub const NONE: Self = Self(0);

    /// In this one.
    pub const fn of(call: u8) -> Self {
        Self(call + 1)
    }

    /// The call.
    #[inline(always)]
    pub const fn get(self) -> Option<u8> {
        if self.0 == 0 { None } else { Some(self.0 - 1) }
    }
}

/// Line in which thread `tid` begins to look.
#[inline(always)]
pub const fn first_line(tid: u32, mask: u32) -> u32 {
    tid.wrapping_mul(0x9e37_79b1) >> 8 & mask
}

/// A task's slot.
struct Found<'a, W> {
    slot: &'a Slot<W>,
    key: Key,
    line: u32,
    index: u32,
}

impl<W> Found<'_, W> {
    /// Number of the slot in the whole table.
    #[inline(always)]
    const fn position(&self) -> u32 {
        self.line * SLOTS as u32 + self.index
    }
}

#[inline(always)]
fn find<T: Table>(table: &T, tid: u32) -> Option<Found<'_, T::Word>> {
    let owner = Key::of_thread(tid).0;
    let first = first_line(tid, table.mask());
    let mut probe = 0;
    while probe < table.group() {
        let line = table.line(first ^ probe)?;
        for (index, slot) in line.slots.iter().enumerate() {
            let key = slot.key.load();
            if key & OWNER == owner {
                return Some(Found {
                    slot,
                    key: Key(key),
                    line: first ^ probe,
                    index: index as u32,
                });
            }
        }
        if probe == 0 && line.displaced.load() == 0 {
            return None;
        }
        probe += 1;
    }
    None
}

/// Takes a free slot for `key`.
#[inline(always)]
fn claim<T: Claim>(table: &T, key: Key) -> Option<Found<'_, T::Word>> {
    let first = first_line(key.tid(), table.mask());
    let mut probe = 0;
    while probe < table.group() {
        let line = table.line(first ^ probe)?;
        for (index, slot) in line.slots.iter().enumerate() {
            let found = Found { slot, key, line: first ^ probe, index: index as u32 };
            if slot.key.load() == 0 && table.claim(slot, found.position(), key) {
                if probe != 0 {
                    table.line(first)?.displaced.add(1);
                }
                return Some(found);
            }
        }
        probe += 1;
    }
    None
}

/// Writes the key, or frees the slot if its task is in the middle of nothing.
#[inline(always)]
fn put_back<T: Table>(table: &T, found: &Found<'_, T::Word>, key: Key) {
    if !key.is_idle() {
        found.slot.key.store_release(key.0);
        return;
    }
    found.slot.key.store_release(0);
    table.freed(found.position());
    let first = first_line(key.tid(), table.mask());
    if first != found.line
        && let Some(line) = table.line(first)
    {
        line.displaced.add(u64::MAX);
    }
}

/// Outcome of [`begin_wait`] and [`enter_call`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Noted.
    Started,
    /// The task was already in this wait; its first start stands.
    Continued,
    /// The task left something behind that never ended; replaced.
    Replaced,
    /// No free slot within reach.
    Full,
}

/// Notes that thread `tid` begins to wait: the outcome, and the number of its
/// slot in the whole table. `start_ns` must not be 0.
///
/// `may_continue` says that a second begin for the same series goes on with
/// what began first: a mutex fires `contention_begin` again each time the waiter
/// goes from spinning to sleeping. Anything else begins once. A wait of the
/// series `instead_of` gives way to this one: what looked like the one sort of
/// wait has turned out to be the other.
#[inline(always)]
pub fn begin_wait<T: Claim>(
    table: &T,
    tid: u32,
    series: u8,
    node: u32,
    start_ns: u64,
    may_continue: bool,
    instead_of: Option<u8>,
) -> (Begin, u32) {
    let Some(found) = find(table, tid) else {
        return match claim(table, Key::of_thread(tid).with_wait(series, node)) {
            Some(found) => {
                found.slot.wait_start_ns.store(start_ns);
                (Begin::Started, found.position())
            }
            None => (Begin::Full, 0),
        };
    };
    let outcome = match found.key.wait() {
        Some(waited) if may_continue && waited == series => {
            return (Begin::Continued, found.position());
        }
        waited @ Some(_) => {
            found.slot.wait_start_ns.store(0);
            if waited == instead_of { Begin::Started } else { Begin::Replaced }
        }
        None => Begin::Started,
    };
    found.slot.key.store_release(found.key.with_wait(series, node).0);
    found.slot.wait_start_ns.store_release(start_ns);
    (outcome, found.position())
}

/// Whether thread `tid` is in a wait of `series`.
#[inline(always)]
pub fn waits<T: Table>(table: &T, tid: u32, series: u8) -> bool {
    match find(table, tid) {
        Some(found) => found.key.wait_bits() == Key(0).with_wait(series, 0).wait_bits(),
        None => false,
    }
}

/// A wait that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Its series.
    pub series: u8,
    /// NUMA node where it began.
    pub node: u32,
    /// When, in ns of `CLOCK_MONOTONIC`.
    pub start_ns: u64,
    /// The mount call that the task is in.
    pub call: InCall,
    /// Whom it is charged to: a number that means something to the programs.
    pub blocker: u32,
}

/// Ends the wait of thread `tid`, if it is in one of a series that `is_it`
/// knows; another one stays. `blocker` is asked for [`Wait::blocker`] with the
/// number of the task's slot, which may belong to another task afterwards.
#[inline(always)]
pub fn end_wait<T: Table>(
    table: &T,
    tid: u32,
    is_it: impl FnOnce(u8) -> bool,
    blocker: impl FnOnce(u32) -> u32,
) -> Option<Wait> {
    let found = find(table, tid)?;
    let series = found.key.wait()?;
    if !is_it(series) {
        return None;
    }
    let start_ns = found.slot.wait_start_ns.load();
    let blocker = blocker(found.position());
    found.slot.wait_start_ns.store(0);
    put_back(table, &found, found.key.without_wait());
    Some(Wait { series, node: found.key.node(), start_ns, call: found.key.in_call(), blocker })
}

/// The mount call that thread `tid` is in.
#[inline(always)]
pub fn current_call<T: Table>(table: &T, tid: u32) -> InCall {
    match find(table, tid) {
        Some(found) => found.key.in_call(),
        None => InCall::NONE,
    }
}

/// The mount call that thread `tid` is in, and the number of its slot in the whole
/// table, which is of no use outside of one.
#[inline(always)]
pub fn current_caller<T: Table>(table: &T, tid: u32) -> (InCall, u32) {
    match find(table, tid) {
        Some(found) => (found.key.in_call(), found.position()),
        None => (InCall::NONE, 0),
    }
}

/// Notes that thread `tid` enters a mount call: the outcome, and the number of
/// its slot in the whole table.
#[inline(always)]
pub fn enter_call<T: Claim>(table: &T, tid: u32, call: u8) -> (Begin, u32) {
    let Some(found) = find(table, tid) else {
        return match claim(table, Key::of_thread(tid).with_call(call)) {
            Some(found) => (Begin::Started, found.position()),
            None => (Begin::Full, 0),
        };
    };
    let outcome = if found.key.call().is_some() { Begin::Replaced } else { Begin::Started };
    found.slot.key.store_release(found.key.with_call(call).0);
    (outcome, found.position())
}

/// Ends the mount call of thread `tid`, if it is in one: which, and the number
/// of its slot, which may belong to another task afterwards; `read` is called
/// before that.
#[inline(always)]
pub fn exit_call<T: Table, R>(
    table: &T,
    tid: u32,
    read: impl FnOnce(u8, u32) -> Option<R>,
) -> Option<R> {
    let found = find(table, tid)?;
    let call = found.key.call()?;
    let result = read(call, found.position());
    put_back(table, &found, found.key.without_call());
    result
}

/// Reads a slot that others may be changing: its key, and the start of the wait
/// in ns if there is one and it is not just beginning or ending.
#[inline]
pub fn observe<W: Word>(slot: &Slot<W>) -> Option<(Key, Option<u64>)> {
    let key = slot.key.load();
    if key & VALID == 0 {
        return None;
    }
    let start_ns = slot.wait_start_ns.load();
    if slot.key.load() != key {
        return None;
    }
    let key = Key(key);
    Some((key, (key.wait().is_some() && start_ns != 0).then_some(start_ns)))
}

/// Frees the slot of a task that no longer exists, from user space; whether it
/// was still there. `line` is where the slot is, and `index` which of the line.
#[inline]
pub fn reclaim<T>(table: &T, line: u32, index: u32, slot: &Slot<T::Word>, key: Key) -> bool
where
    T: Table<Word: Exchange>,
{
    if !slot.key.compare_exchange(key.0, RECLAIMING) {
        return false;
    }
    slot.wait_start_ns.store(0);
    put_back(table, &Found { slot, key, line, index }, key.without_wait().without_call());
    true
}

#[cfg(test)]
mod tests;
