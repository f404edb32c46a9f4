//! A mapped array of records that programs write while it is read.

use std::marker::PhantomData;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use profiler_common::inflight::{Exchange, Word};

use super::ReaderError;

/// A mapped array of `T`.
pub(super) struct Mapping<T> {
    map: MmapRaw,
    entries: usize,
    _records: PhantomData<T>,
}

impl<T> Mapping<T> {
    pub(super) fn read_only(
        name: &'static str,
        fd: BorrowedFd<'_>,
        entries: usize,
    ) -> Result<Self, ReaderError> {
        Self::map(name, entries, |options| options.map_raw_read_only(fd.as_raw_fd()))
    }

    pub(super) fn writable(
        name: &'static str,
        fd: BorrowedFd<'_>,
        entries: usize,
    ) -> Result<Self, ReaderError> {
        Self::map(name, entries, |options| options.map_raw(fd.as_raw_fd()))
    }

    fn map(
        name: &'static str,
        entries: usize,
        map: impl Fn(&MmapOptions) -> std::io::Result<MmapRaw>,
    ) -> Result<Self, ReaderError> {
        let bytes = entries.max(1) * size_of::<T>();
        let map = map(MmapOptions::new().len(bytes))
            .map_err(|error| ReaderError::Map(name, bytes, error))?;
        Ok(Self { map, entries, _records: PhantomData })
    }

    pub(super) const fn len(&self) -> usize {
        self.entries
    }

    /// Address of element `index`; its fields are to be read with [`load`].
    ///
    /// # Panics
    ///
    /// `index` is out of range.
    pub(super) fn element(&self, index: usize) -> *const T {
        assert!(index < self.entries, "element {index} of an array of {}", self.entries);
        // SAFETY: within the mapping, which is as long as the entries.
        unsafe { self.map.as_ptr().cast::<T>().add(index) }
    }
}

impl Mapping<u64> {
    /// Element `index`.
    pub(super) fn word(&self, index: usize) -> u64 {
        // SAFETY: an element of the mapping.
        unsafe { load(self.element(index)) }
    }
}

/// Reads a word that a program may be writing; later reads stay behind it.
///
/// # Safety
///
/// `word` points into a live mapping, aligned.
pub(super) unsafe fn load(word: *const u64) -> u64 {
    // SAFETY: the caller's promise; a plain load also works on read-only memory.
    unsafe { AtomicU64::from_ptr(word.cast_mut()) }.load(Ordering::Acquire)
}

/// A word of a writable mapping, for the in-flight protocol.
#[repr(transparent)]
pub(super) struct SharedWord(AtomicU64);

impl Word for SharedWord {
    fn load(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
    fn store(&self, value: u64) {
        self.0.store(value, Ordering::SeqCst);
    }
    fn store_release(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }
    fn add(&self, value: u64) {
        self.0.fetch_add(value, Ordering::SeqCst);
    }
}

impl Exchange for SharedWord {
    fn compare_exchange(&self, old: u64, new: u64) -> bool {
        self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}
