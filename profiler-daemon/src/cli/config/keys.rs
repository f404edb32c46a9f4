//! The keys of the configuration file, each declared once.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::field::{Field, Problems, alternatives};
use crate::cli::Settings;
use crate::cli::backend::{by_name, names};
use crate::cli::duration::parse_duration;
use crate::hooks::backend::{CallBackend, WaitBackend};
use crate::locks::LockKind;
use crate::locks::choices::{Choices, CustomLock};

/// A key outside `[[lock]]`.
pub(super) struct Key {
    /// Table that it is in; empty for the top level.
    pub(super) table: &'static str,
    /// Its name in the table.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) about: &'static str,
    /// Value in the printed default, as TOML.
    pub(super) value: &'static str,
    /// Whether `value` is the default. If not, the default depends on the
    /// machine, and the key is printed as a comment.
    pub(super) is_default: bool,
    /// Takes the value over.
    pub(super) read: fn(&mut Settings, Field<'_>) -> Result<(), Problems>,
}

/// A key of `[[lock]]`.
pub(super) struct LockKey {
    /// Its name.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) about: &'static str,
    /// Value in the printed example, as TOML.
    pub(super) value: &'static str,
    /// Takes the value over.
    pub(super) read: fn(&mut CustomLock, Field<'_>) -> Result<(), Problems>,
}

/// Bounds of what may be in flight: below, a few dozen waiting tasks would be
/// lost; above, the arrays take hundreds of megabytes.
const IN_FLIGHT: RangeInclusive<u32> = 64..=4_194_304;

/// Bounds of the table of charges, 64 bytes a row.
const ROWS: RangeInclusive<u32> = 0..=1_048_576;
/// Bounds of the ring of slow waits, 320 bytes each.
const SLOW_WAITS: RangeInclusive<u32> = 0..=65_536;
/// Samples in a second. More would be a load of its own.
const SAMPLING_HZ: RangeInclusive<u32> = 0..=1000;

/// Bounds of the containers with series of their own: each has two for every
/// watched lock.
const CONTAINERS: RangeInclusive<u32> = 0..=1000;
/// A walk over the tasks of a large machine takes a good part of a second.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Longest name of a custom lock: it becomes a label value.
const LONGEST_NAME: usize = 48;

const ADDRESS: &str = "a string with address and port such as \"127.0.0.1:9723\"";
const LOCKS: &str = "an array of lock names such as [\"sb_lock\"]";

/// Keys in the order that the default is printed; the top level first, then
/// table by table.
pub(super) const KEYS: &[Key] = &[
    Key {
        table: "",
        name: "listen",
        about: "Address and port to serve on. One that others than this machine can reach needs \
                users or client certificates in the file of web_config.",
        value: "\"127.0.0.1:9723\"",
        is_default: true,
        read: |settings, field| {
            settings.listen = field.parsed(ADDRESS, |text| text.parse().ok())?;
            Ok(())
        },
    },
    Key {
        table: "",
        name: "web_config",
        about: "File with TLS, users and passwords for the port, in the web configuration form of \
                Prometheus' exporters; docs/access.md shows one. Empty for none.",
        value: "\"\"",
        is_default: true,
        read: |settings, field| {
            let path = field.string("a string with the path of a file")?;
            settings.web_config = (!path.is_empty()).then(|| path.into());
            Ok(())
        },
    },
    Key {
        table: "",
        name: "allow_unauthenticated",
        about: "Listen also where others can reach the port and nobody is asked who they are.",
        value: "false",
        is_default: true,
        read: |settings, field| {
            settings.allow_unauthenticated = field.boolean()?;
            Ok(())
        },
    },
    Key {
        table: "log",
        name: "format",
        about: "\"human\", \"json\", or \"auto\": human on a terminal, else json.",
        value: "\"auto\"",
        is_default: true,
        read: |settings, field| {
            settings.log.format = field.one_of()?;
            Ok(())
        },
    },
    Key {
        table: "log",
        name: "level",
        about: "Least severe lines to write: \"error\", \"warn\", \"info\", \"debug\" or \"trace\".",
        value: "\"info\"",
        is_default: true,
        read: |settings, field| {
            settings.log.level = field.one_of()?;
            Ok(())
        },
    },
    Key {
        table: "locks",
        name: "enable",
        about: "Locks of the catalogue to watch beside those that are on by default.",
        value: "[]",
        is_default: true,
        read: |settings, field| {
            settings.locks.enable = lock_names(field)?;
            Ok(())
        },
    },
    Key {
        table: "locks",
        name: "disable",
        about: "Locks of the catalogue not to watch.",
        value: "[]",
        is_default: true,
        read: |settings, field| {
            settings.locks.disable = lock_names(field)?;
            Ok(())
        },
    },
    Key {
        table: "resolve",
        name: "system_map",
        about: "System.map of the running kernel, for locks that /proc/kallsyms does not list. \
                Empty for none: locks are then found in kernel text.",
        value: "\"\"",
        is_default: true,
        read: |settings, field| {
            let path = field.string("a string with the path of a file")?;
            settings.locks.system_map = (!path.is_empty()).then(|| path.into());
            Ok(())
        },
    },
    Key {
        table: "hooks",
        name: "waits",
        about: "How lock waits are observed: \"auto\" for the best way that the kernel takes, or \
                one way alone: \"tp_btf\", \"raw_tp\", \"fentry\" or \"kprobe\".",
        value: "\"auto\"",
        is_default: true,
        read: |settings, field| {
            settings.backends.waits = backend(field, &WaitBackend::ALL, WaitBackend::name)?;
            Ok(())
        },
    },
    Key {
        table: "hooks",
        name: "calls",
        about: "How mount calls are observed: \"auto\", \"fentry\", \"kprobe\" or \"tracepoint\". \
                The tracepoints slow down every system call of every task.",
        value: "\"auto\"",
        is_default: true,
        read: |settings, field| {
            settings.backends.calls = backend(field, &CallBackend::ALL, CallBackend::name)?;
            Ok(())
        },
    },
    Key {
        table: "attribution",
        name: "rows",
        about: "Rows of the table of who waits and who makes them wait: each is for one task name \
                in one cgroup, one lock and one call. What finds no row counts as `other`. 0 turns \
                attribution off. Rounded up to a power of two.",
        value: "8192",
        is_default: true,
        read: |settings, field| {
            settings.attribution.rows = field.integer(&ROWS)?;
            Ok(())
        },
    },
    Key {
        table: "attribution",
        name: "slow_wait",
        about: "Waits of at least this long are listed one by one, with the kernel's stack.",
        value: "\"10ms\"",
        is_default: true,
        read: |settings, field| {
            let long = field.parsed("a time such as \"10ms\"", |text| parse_duration(text).ok())?;
            settings.attribution.slow_ns = u64::try_from(long.as_nanos()).unwrap_or(u64::MAX);
            Ok(())
        },
    },
    Key {
        table: "attribution",
        name: "slow_waits",
        about: "How many of these are kept, the most recent ones; 0 for none. Rounded up to a \
                power of two.",
        value: "256",
        is_default: true,
        read: |settings, field| {
            settings.attribution.slow_waits = field.integer(&SLOW_WAITS)?;
            Ok(())
        },
    },
    Key {
        table: "sampling",
        name: "frequency_hz",
        about: "How often in a second to look where each CPU is in the kernel; 0 for never. It shows \
                path walks that spin on the sequence count of mount_lock.",
        value: "99",
        is_default: true,
        read: |settings, field| {
            settings.sampling_hz = field.integer(&SAMPLING_HZ)?;
            Ok(())
        },
    },
    Key {
        table: "metrics",
        name: "containers",
        about: "How many containers have series of their own: those that wait and block most; all \
                others are summed up in `other`. Each has two series for every watched lock. 0 for \
                none. Nothing without attribution.",
        value: "0",
        is_default: true,
        read: |settings, field| {
            settings.containers = field.integer(&CONTAINERS)?;
            Ok(())
        },
    },
    Key {
        table: "limits",
        name: "tasks_in_flight",
        about: "Tasks that may wait for watched locks or be in a mount call at once; more are \
                counted as dropped. Default: 192 for each possible CPU, at least 384.",
        value: "384",
        is_default: false,
        read: |settings, field| {
            settings.tasks_in_flight = Some(field.integer(&IN_FLIGHT)?);
            Ok(())
        },
    },
    Key {
        table: "mounts",
        name: "interval",
        about: "How often mount namespaces and their mounts are counted, which takes a walk over \
                all tasks; at least \"1s\", or \"0\" for never.",
        value: "\"15s\"",
        is_default: true,
        read: |settings, field| {
            let expected = "a string with a time of at least 1s such as \"15s\", or \"0\"";
            settings.mounts_interval = field.parsed(expected, |text| match text {
                "0" => Some(None),
                text => parse_duration(text).ok().filter(|d| *d >= SHORTEST_INTERVAL).map(Some),
            })?;
            Ok(())
        },
    },
];

/// Keys of `[[lock]]`; all must be given.
pub(super) const LOCK_KEYS: &[LockKey] = &[
    LockKey {
        name: "name",
        about: "Name in metrics: a lower-case letter, then up to 47 lower-case letters, digits \
                and underscores.",
        value: "\"cgroup_mutex\"",
        read: |lock, field| {
            let expected = "a lower-case letter and up to 47 lower-case letters, digits and \
                            underscores, such as \"cgroup_mutex\"";
            lock.name = field.parsed(expected, |text| is_name(text).then(|| text.to_owned()))?;
            Ok(())
        },
    },
    LockKey {
        name: "symbol",
        about: "Symbol in the kernel, or symbol+0x10 for a lock inside an object.",
        value: "\"cgroup_mutex\"",
        read: |lock, field| {
            let expected = "a kernel symbol such as \"cgroup_mutex\" or \"init_mm+0x68\"";
            // The name is checked apart, so any valid one will do here.
            let fits = |symbol: &str| {
                let lock = CustomLock {
                    name: "lock".to_owned(),
                    symbol: symbol.to_owned(),
                    kind: LockKind::Mutex,
                };
                Choices { custom: vec![lock], ..Choices::default() }.check().is_ok()
            };
            lock.symbol = field.parsed(expected, |text| fits(text).then(|| text.to_owned()))?;
            Ok(())
        },
    },
    LockKey {
        name: "kind",
        about: "\"rwsem\", \"mutex\", \"spinlock\" or \"rwlock\".",
        value: "\"mutex\"",
        read: |lock, field| {
            let names = LockKind::ALL.map(|kind| format!("\"{kind}\""));
            lock.kind = field.parsed(&alternatives(&names), |text| {
                LockKind::ALL.into_iter().find(|kind| kind.to_string() == text)
            })?;
            Ok(())
        },
    },
];

fn is_name(text: &str) -> bool {
    text.len() <= LONGEST_NAME
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// One of `all` by name, or `None` for `auto`.
fn backend<B: Copy>(
    field: Field<'_>,
    all: &[B],
    name: fn(B) -> &'static str,
) -> Result<Option<B>, Problems> {
    let quoted: Vec<_> = names(all, name).map(|name| format!("\"{name}\"")).collect();
    field.parsed(&alternatives(&quoted), |text| by_name(text, all, name))
}

/// Names of locks in the catalogue; every unknown one is a problem.
fn lock_names(field: Field<'_>) -> Result<Vec<String>, Problems> {
    let (mut names, mut problems) = (Vec::new(), Vec::new());
    for element in field.strings(LOCKS)? {
        let name = element.string(LOCKS)?.to_owned();
        let alone = Choices { enable: vec![name.clone()], ..Choices::default() };
        match alone.check() {
            Ok(()) => names.push(name),
            Err(error) => problems.extend(element.problem(format!("`{}`: {error}", field.key))),
        }
    }
    if problems.is_empty() { Ok(names) } else { Err(problems) }
}
