//! The rooms of the library depend on each other in one direction.

use std::fs;
use std::path::{Path, PathBuf};

/// In the order of the flow, as `src/lib.rs` lists them.
const ROOMS: [&str; 12] = [
    "kernel", "locks", "snapshot", "who", "hooks", "reader", "findings", "serve", "top", "storm",
    "cli", "commands",
];

#[test]
fn no_room_uses_one_below_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut uses = 0;
    let mut wrong = Vec::new();
    for (position, room) in ROOMS.iter().enumerate() {
        for file in rust_files(&source.join(room)) {
            let text = fs::read_to_string(&file).expect("sources can be read");
            for (number, line) in text.lines().enumerate() {
                for used in rooms_used(line) {
                    uses += 1;
                    if ROOMS.iter().position(|r| *r == used) > Some(position) {
                        wrong.push(format!("{}:{}: {line}", file.display(), number + 1));
                    }
                }
            }
        }
    }
    assert!(uses > 10, "found only {uses} uses between rooms: does the test still see them?");
    assert!(wrong.is_empty(), "used from above:\n{}", wrong.join("\n"));
}

#[test]
fn the_list_of_rooms_is_the_librarys() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"))
        .expect("sources can be read");
    let listed: Vec<_> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(listed, ROOMS);
}

/// Rooms that a line of code names as `crate::room`.
fn rooms_used(line: &str) -> Vec<&'static str> {
    if line.trim_start().starts_with("//") {
        return Vec::new();
    }
    line.match_indices("crate::")
        .filter_map(|(at, found)| {
            let rest = &line[at + found.len()..];
            ROOMS.into_iter().find(|room| {
                rest.strip_prefix(room)
                    .is_some_and(|after| after.starts_with("::") || after.starts_with(';'))
            })
        })
        .collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("every room is a folder") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn a_use_is_recognised_in_code_and_not_in_a_comment() {
    assert_eq!(rooms_used("use crate::locks::Mode;"), ["locks"]);
    assert_eq!(rooms_used("let x = crate::hooks::Sizes {};"), ["hooks"]);
    assert!(rooms_used("//! [`crate::hooks`] is below").is_empty());
    assert!(rooms_used("use crate::hookshot::X;").is_empty());
}
