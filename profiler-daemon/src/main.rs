//! The `lockprof` command.

fn main() {}
