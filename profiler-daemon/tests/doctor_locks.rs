//! What `doctor` says of locks.

mod common;

use std::process::Command;

use common::LOCKPROF;
use lockprof::hooks::object;
use lockprof::locks::catalogue::ENTRIES;
use lockprof::locks::choices::Choices;
use lockprof::locks::resolve::Sources;
use serde_json::Value;

/// The locks of `doctor --json`, with these arguments too.
fn locks(args: &[&str]) -> Vec<Value> {
    let output = Command::new(LOCKPROF)
        .args(["doctor", "--json"])
        .args(args)
        .output()
        .expect("doctor can be run");
    let report: Value = serde_json::from_slice(&output.stdout).expect("doctor prints JSON");
    report["locks"].as_array().expect("a list").clone()
}

#[test]
fn the_whole_catalogue_is_listed_and_what_is_watched_is_marked() {
    let listed = |args: &[&str]| -> Vec<_> {
        locks(args)
            .iter()
            .map(|lock| {
                (lock["lock"].as_str().expect("a name").to_owned(), lock["watched"] == true)
            })
            .collect()
    };
    let catalogue = |watched: fn(&str, bool) -> bool| -> Vec<_> {
        ENTRIES.iter().map(|e| (e.name.to_owned(), watched(e.name, e.on_by_default))).collect()
    };
    assert_eq!(listed(&[]), catalogue(|_, default| default));
    assert_eq!(
        listed(&["--lock", "sb_lock", "--no-lock", "tasklist_lock"]),
        catalogue(|name, default| match name {
            "sb_lock" => true,
            "tasklist_lock" => false,
            _ => default,
        })
    );
}

#[test]
fn without_data_symbols_every_found_lock_is_found_in_text() {
    let sources = Sources::of_running_kernel(&Choices::default(), object::bytes());
    if let Err(error) = (sources.open_text)() {
        return common::skip(
            "without_data_symbols_every_found_lock_is_found_in_text",
            &format!("{:#}", anyhow::Error::from(error)),
        );
    }
    let (all, by_text) = (locks(&[]), locks(&["--without-data-symbols"]));
    for (all, by_text) in all.iter().zip(&by_text) {
        // Found both ways as the same lock, or absent both ways.
        for key in ["lock", "symbol", "kind", "absent"] {
            assert_eq!(all[key], by_text[key], "{key} of {all} and {by_text}");
        }
        let method = if by_text["absent"] == true { Value::Null } else { "text".into() };
        assert_eq!(by_text["method"], method, "{by_text}");
        assert!(by_text["address"].is_null(), "addresses do not leave the machine");
    }
}
