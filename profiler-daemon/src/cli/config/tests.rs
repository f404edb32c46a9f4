use std::path::Path;

use super::keys::{KEYS, LOCK_KEYS};
use super::*;
use crate::cli::{LogFormat, LogLevel};
use crate::hooks::backend::{CallBackend, WaitBackend};
use crate::locks::LockKind;

fn errors(text: &str) -> Vec<String> {
    let errors = parse(text, Path::new("f.toml")).expect_err("it should not be valid");
    errors.iter().map(ToString::to_string).collect()
}

/// The default text with the values that it shows as comments put in force.
fn all_in_force() -> String {
    let is_value = |line: &str| {
        let keys = KEYS.iter().map(|k| k.name).chain(LOCK_KEYS.iter().map(|k| k.name));
        line == "[[lock]]" || keys.into_iter().any(|key| line.starts_with(&format!("{key} = ")))
    };
    let uncommented = |line: &str| {
        let bare = line.strip_prefix("# ").filter(|bare| is_value(bare));
        bare.unwrap_or(line).to_owned()
    };
    default_text().lines().map(uncommented).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_printed_default_is_exactly_the_defaults() {
    assert_eq!(parse(&default_text(), Path::new("f.toml")), Ok(Settings::default()));
    assert_eq!(parse("", Path::new("f.toml")), Ok(Settings::default()));
}

#[test]
fn the_printed_default_documents_every_key() {
    let text = all_in_force();
    let document: toml::Table = text.parse().unwrap();
    for key in KEYS {
        let table = match key.table {
            "" => Some(&document),
            table => document.get(table).and_then(toml::Value::as_table),
        };
        assert!(table.unwrap().contains_key(key.name), "{}.{}", key.table, key.name);
        assert!(!key.about.is_empty());
    }
    for key in LOCK_KEYS {
        assert!(document["lock"][0].get(key.name).is_some(), "{}", key.name);
    }
    assert!(text.lines().all(|line| line.len() <= 100));
}

#[test]
fn the_values_shown_as_comments_are_valid() {
    let settings = parse(&all_in_force(), Path::new("f.toml")).unwrap();
    assert_eq!(settings.tasks_in_flight, Some(384));
    assert_eq!(settings.locks.custom[0].symbol, "cgroup_mutex");
    assert_eq!(settings.locks.check(), Ok(()));
}

#[test]
fn the_printed_default_reads_well() {
    insta::assert_snapshot!(default_text());
}

#[test]
fn every_key_reaches_its_setting() {
    let text = r#"
        listen = "[::1]:80"
        [log]
        format = "json"
        level = "trace"
        [locks]
        enable = ["sb_lock"]
        disable = ["tasklist_lock", "mount_lock"]
        [resolve]
        system_map = "/boot/System.map"
        [hooks]
        waits = "raw_tp"
        calls = "kprobe"
        [sampling]
        frequency_hz = 250
        [metrics]
        containers = 25
        [limits]
        tasks_in_flight = 0x1_000
        [[lock]]
        name = "mmap"
        symbol = "init_mm+0x68"
        kind = "rwsem"
        [[lock]]
        name = "event"
        symbol = "event_mutex"
        kind = "mutex"
    "#;
    let settings = parse(text, Path::new("f.toml")).unwrap();
    assert_eq!(settings.listen, "[::1]:80".parse().unwrap());
    assert_eq!((settings.log.format, settings.log.level), (LogFormat::Json, LogLevel::Trace));
    assert_eq!(settings.locks.enable, ["sb_lock"]);
    assert_eq!(settings.locks.disable, ["tasklist_lock", "mount_lock"]);
    assert_eq!(settings.locks.system_map.as_deref(), Some(Path::new("/boot/System.map")));
    assert_eq!(settings.backends.waits, Some(WaitBackend::RawTp));
    assert_eq!(settings.backends.calls, Some(CallBackend::Kprobe));
    assert_eq!(settings.sampling_hz, 250);
    assert_eq!(settings.containers, 25);
    assert_eq!(settings.tasks_in_flight, Some(4096));
    let kinds: Vec<_> = settings.locks.custom.iter().map(|lock| lock.kind).collect();
    assert_eq!(kinds, [LockKind::Rwsem, LockKind::Mutex]);
}

#[test]
fn a_misspelt_key_is_named_with_file_line_and_the_nearest_key() {
    assert_eq!(
        errors("\nlistn = \"127.0.0.1:1\"\n[limits]\ntask_in_flight = 3"),
        [
            "f.toml:2: unknown key `listn`; did you mean `listen`?",
            "f.toml:4: unknown key `limits.task_in_flight`; did you mean `limits.tasks_in_flight`?",
        ]
    );
}

#[test]
fn a_key_in_the_wrong_table_and_a_misspelt_table_are_recognised() {
    assert_eq!(
        errors("level = \"info\""),
        ["f.toml:1: unknown key `level`; did you mean `log.level`?"]
    );
    assert_eq!(
        errors("[limit]\ntasks_in_flight = 512"),
        ["f.toml:1: unknown key `limit`; did you mean `limits`?"]
    );
    assert_eq!(
        errors("[[lock]]\nname = \"x\"\nsymbl = \"y\"\nsymbol = \"y\"\nkind = \"mutex\""),
        ["f.toml:3: unknown key `lock.symbl`; did you mean `lock.symbol`?"]
    );
}

#[test]
fn a_wrong_type_is_told_what_was_expected_and_found() {
    assert_eq!(
        errors("listen = 9723\nlog = 1\n[limits]\ntasks_in_flight = \"many\"\n"),
        [
            "f.toml:1: `listen`: expected a string with address and port such as \
             \"127.0.0.1:9723\", found integer",
            "f.toml:2: `log`: expected a table [log], found integer",
            "f.toml:4: `limits.tasks_in_flight`: expected an integer from 64 to 4194304, found string",
        ]
    );
    assert_eq!(
        errors("lock = 1\n[locks]\nenable = [1, \"sb_lock\"]\ndisable = \"sb_lock\""),
        [
            "f.toml:1: `lock`: expected tables [[lock]], found integer",
            "f.toml:3: `locks.enable`: expected an array of lock names such as [\"sb_lock\"], found integer",
            "f.toml:4: `locks.disable`: expected an array of lock names such as [\"sb_lock\"], found string",
        ]
    );
}

#[test]
fn a_value_out_of_bounds_is_told_the_bounds() {
    assert_eq!(
        errors("listen = \"localhost\"\n[log]\nformat = \"xml\"\n[limits]\ntasks_in_flight = 63"),
        [
            "f.toml:1: `listen`: expected a string with address and port such as \
             \"127.0.0.1:9723\", found \"localhost\"",
            "f.toml:3: `log.format`: expected \"auto\", \"human\" or \"json\", found \"xml\"",
            "f.toml:5: `limits.tasks_in_flight`: expected an integer from 64 to 4194304, found 63",
        ]
    );
}

#[test]
fn an_unknown_backend_is_told_those_of_its_family() {
    assert_eq!(
        errors("[hooks]\nwaits = \"tracepoint\"\ncalls = \"raw_tp\""),
        [
            "f.toml:2: `hooks.waits`: expected \"auto\", \"tp_btf\", \"raw_tp\", \"fentry\" or \
             \"kprobe\", found \"tracepoint\"",
            "f.toml:3: `hooks.calls`: expected \"auto\", \"fentry\", \"kprobe\" or \"tracepoint\", \
             found \"raw_tp\"",
        ]
    );
}

#[test]
fn unknown_and_contradicting_locks_are_found_where_they_stand() {
    let found = errors("[locks]\nenable = [\n  \"sb_lock\",\n  \"namespace\",\n]\n");
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("f.toml:4: `locks.enable`: unknown lock `namespace`"),
        "{found:?}"
    );
    assert!(found[0].contains("`namespace_sem`"), "{found:?}");
    assert_eq!(
        errors("[locks]\nenable = [\"sb_lock\"]\ndisable = [\"sb_lock\"]"),
        ["f.toml:3: lock `sb_lock` is both enabled and disabled; remove one"]
    );
}

#[test]
fn a_custom_lock_must_be_complete_and_its_name_free() {
    let lock = |name: &str| {
        let name = toml::Value::from(name);
        format!("[[lock]]\nname = {name}\nsymbol = \"event_mutex\"\nkind = \"mutex\"\n")
    };
    assert_eq!(
        errors("[[lock]]\nname = \"x\"\n"),
        [
            "f.toml:1: [[lock]] has no `symbol`; add for instance symbol = \"cgroup_mutex\"",
            "f.toml:1: [[lock]] has no `kind`; add for instance kind = \"mutex\"",
        ]
    );
    let taken = errors(&lock("sb_lock"));
    assert!(
        taken[0].starts_with("f.toml:2: `lock.name`: `sb_lock` is in the catalogue"),
        "{taken:?}"
    );
    let twice = errors(&(lock("a") + &lock("a")));
    assert_eq!(twice, ["f.toml:6: `lock.name`: `a` is defined twice; choose another name"]);
    assert!(parse(&lock(&"a".repeat(48)), Path::new("f")).is_ok());
    for bad in ["", "A", "1a", "a-b", "a b", "ä", &"a".repeat(49), "a\u{1b}[2J"] {
        let found = errors(&lock(bad));
        assert_eq!(found.len(), 1, "{bad:?}: {found:?}");
        assert!(found[0].starts_with("f.toml:2: `lock.name`: expected"), "{found:?}");
        assert!(!found[0].contains('\u{1b}'), "control characters are escaped");
    }
}

#[test]
fn a_bad_symbol_or_kind_is_told_what_fits() {
    let found =
        errors("[[lock]]\nname = \"x\"\nsymbol = \"rcu_state.exp_mutex\"\nkind = \"semaphore\"\n");
    assert!(found[0].starts_with("f.toml:3: `lock.symbol`: expected a kernel symbol"), "{found:?}");
    assert_eq!(
        found[1],
        "f.toml:4: `lock.kind`: expected \"rwsem\", \"mutex\", \"spinlock\" or \"rwlock\", \
         found \"semaphore\""
    );
}

#[test]
fn text_that_is_not_toml_is_told_by_line() {
    let found = errors("listen = \n[log\nlevel = \"info\"\n");
    assert!(found.iter().all(|e| e.contains(": not TOML: ")), "{found:?}");
    assert!(found[0].starts_with("f.toml:1: "), "{found:?}");
    let twice = errors("listen = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"\n");
    assert!(twice[0].starts_with("f.toml:2: not TOML: duplicate key"), "{twice:?}");
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_it(text in "(\\PC|[\\[\\]{}=\"'#.,\\-\n\r\t 0-9]){0,200}") {
        let _ = parse(&text, Path::new("f.toml"));
    }

    /// A piece of the default text taken out or put in elsewhere: each error names a
    /// line that the text has, and has no line of its own.
    #[test]
    fn errors_name_lines_that_there_are(
        cut in proptest::prelude::any::<(proptest::sample::Index, proptest::sample::Index)>(),
        at in proptest::prelude::any::<proptest::sample::Index>(),
        put in "[a-z\\[\\]=\"#. \n0-9\u{7}\u{e9}-]{0,12}",
    ) {
        let mut text: Vec<char> = all_in_force().chars().collect();
        let (a, b) = (cut.0.index(text.len()), cut.1.index(text.len()));
        // Few at a time: with large pieces gone little is left that could be wrong.
        text.drain(a.min(b)..a.max(b).min(a.min(b) + 40));
        let at = at.index(text.len());
        text.splice(at..at, put.chars());
        let text: String = text.into_iter().collect();
        if let Err(errors) = parse(&text, Path::new("f.toml")) {
            proptest::prop_assert!(errors.iter().count() > 0);
            for error in errors.iter() {
                let Origin::File { line: Some(line), .. } = error.origin else {
                    panic!("without a line: {error}");
                };
                proptest::prop_assert!((1..=text.split('\n').count()).contains(&line), "{}", error);
                let control = error.message.chars().find(|c| c.is_control());
                proptest::prop_assert!(control.is_none(), "{:?} in {:?}", control, error);
            }
        }
    }
}
