//! Empty on purpose: lets `profiler-daemon` name this crate as a build
//! dependency, so that cargo rebuilds the BPF object when it changes.
#![no_std]
