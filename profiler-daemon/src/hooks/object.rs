//! The BPF object, as the build script made it.
//!
//! Out: the bytes of an ELF file for the BPF target, embedded in the binary.

/// The ELF object with every BPF program and map of lockprof, aligned to 8
/// bytes as aya's parser wants it.
///
/// A build without the BPF toolchain (`build.rs` then leaves `cfg(bpf_object)`
/// off) fails to compile this function, while `cargo check` and clippy pass.
#[cfg(bpf_object)]
pub fn bytes() -> &'static [u8] {
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lockprof-bpf.o"))
}

/// The same programs for kernels whose BPF has no compare-exchange (before
/// Linux 5.12).
#[cfg(bpf_object)]
pub fn older_bytes() -> &'static [u8] {
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lockprof-bpf-older.o"))
}

/// The ELF object with every BPF program and map of lockprof: not there, see
/// [`absent`].
#[cfg(not(bpf_object))]
pub fn bytes() -> &'static [u8] {
    absent::<()>()
}

/// As [`bytes`].
#[cfg(not(bpf_object))]
pub fn older_bytes() -> &'static [u8] {
    absent::<()>()
}

/// Stops the build. Generic, because the assertion in a generic function is
/// evaluated only when code is generated for it: never by `cargo check`.
#[cfg(not(bpf_object))]
fn absent<T>() -> &'static [u8] {
    const {
        assert!(
            size_of::<T>() == usize::MAX,
            "built without the BPF object: run `cargo xtask setup`, then build again"
        );
    }
    &[]
}
