//! Who: cgroups, containers, runtimes, from what the kernel side notes.
