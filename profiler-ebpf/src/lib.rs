//! Empty on purpose: the programs are the binaries of this crate, and a
//! workspace member needs a library for `cargo doc` and editors to know it on
//! the host.
#![no_std]
