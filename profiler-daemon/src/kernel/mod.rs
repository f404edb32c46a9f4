//! Facts about the running kernel and machine, and nothing decided from them.
//!
//! In: procfs, sysfs, BTF, a System.map that the user names, kernel text. Out:
//! plain data. What a lock is called and which address is believed is up to
//! the room `locks`.

pub mod btf;

pub mod calls;

pub mod capabilities;

pub mod decode;

pub mod fields;

pub mod kallsyms;

pub mod ranges;

pub mod stacks;

pub mod system_map;

pub mod text;

pub mod topology;
