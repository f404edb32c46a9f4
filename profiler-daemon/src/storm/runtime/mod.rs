//! Starts by a real runtime.
