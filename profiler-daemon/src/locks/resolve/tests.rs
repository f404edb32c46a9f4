use std::fmt::Write as _;

use super::*;
use crate::kernel::btf::tests::Builder;
use crate::locks::choices::CustomLock;

const SYMBOLS_6_18: &str = include_str!("../../../tests/fixtures/linux-6.18-x86_64.kallsyms");
const TEXT_6_18: &str = include_str!("../../../tests/fixtures/linux-6.18-x86_64.text");

/// Text recorded from a running kernel: a line for each function.
struct Recorded(&'static str);

impl TextSource for Recorded {
    fn read(&self, address: u64, len: usize) -> Result<Vec<u8>, TextError> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(&format!("{address:x} ")));
        let hex = line.ok_or(TextError::Unreadable { address, errno: 14 })?;
        assert_eq!(hex.len(), 2 * len, "the recording of {address:x} is another function");
        let byte = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
        Ok((0..hex.len()).step_by(2).map(byte).collect())
    }
}

/// The structures that the catalogue asks for, as kernels lay them out: all
/// have `seqlock_t`, 6.18 has `ns_tree`.
fn btf(rcu_exp_mutex: u32, with_ns_tree: bool) -> Result<Btf, BtfError> {
    const STRUCT: u32 = 4;
    const TYPEDEF: u32 = 8;
    let mut builder = Builder::new();
    let int = builder.int();
    let seqlock = builder.composite(STRUCT, "", &[("seqcount", int, 0), ("lock", int, 32)]);
    let seqlock = builder.add("seqlock_t", TYPEDEF << 24, seqlock, &[]);
    builder.composite(STRUCT, "rcu_state", &[("exp_mutex", int, rcu_exp_mutex * 8)]);
    if with_ns_tree {
        builder.composite(STRUCT, "ns_tree", &[("ns_tree_lock", seqlock, 24 * 8)]);
    }
    builder.build()
}

fn collect(table: &str, choices: &Choices) -> Result<Kallsyms, KallsymsError> {
    let names = symbol_names(choices);
    Kallsyms::collect_from(table.as_bytes(), "kallsyms", names.iter().map(String::as_str))
}

fn all() -> Choices {
    let enable = ["ns_tree_lock", "sb_lock", "rename_lock"].map(String::from).to_vec();
    Choices { enable, ..Choices::default() }
}

fn no_text() -> OpenText<'static> {
    Box::new(|| Err(TextError::Missing { kind: "program", name: "read_text" }))
}

/// A kernel with the given data symbols, one every 0x1000 bytes.
fn kernel_with(symbols: &[(&str, char)], with_ns_tree: bool) -> Sources<'static> {
    let mut table = String::from(
        "ffffffff81000000 T _text\nffffffff81000000 T _stext\nffffffff82000000 T _etext\n",
    );
    for (i, (name, letter)) in symbols.iter().enumerate() {
        writeln!(table, "{:x} {letter} {name}", 0xffff_ffff_8300_0000 + i * 0x1000).unwrap();
    }
    Sources {
        kallsyms: collect(&table, &all()),
        release: "6.18.0".into(),
        system_map: None,
        btf: btf(0x120, with_ns_tree),
        arch: Some(Arch::X86_64),
        open_text: no_text(),
        use_data_symbols: true,
    }
}

/// The development kernel of the recordings: text symbols only.
fn recorded_6_18() -> Sources<'static> {
    // The recording lacks it. What matters is that the kernel has it.
    let table = format!("{SYMBOLS_6_18}ffffffff81690000 T mem_cgroup_from_task\n");
    Sources {
        kallsyms: collect(&table, &all()),
        release: "6.18.0".into(),
        system_map: None,
        // Measured: rcu_state lies at 0xffffffff830f3100.
        btf: btf(0x2fb8, true),
        arch: Some(Arch::X86_64),
        open_text: Box::new(|| Ok(Box::new(Recorded(TEXT_6_18)))),
        use_data_symbols: true,
    }
}

fn addresses(resolutions: &[Resolution]) -> Vec<(&str, Option<(&str, u64)>)> {
    resolutions
        .iter()
        .map(|r| {
            let found = r.outcome.as_ref().ok();
            (r.name.as_str(), found.map(|found| (found.symbol.as_str(), found.address)))
        })
        .collect()
}

/// Symbol and offset in its page of every lock of a kernel with these symbols.
fn chosen(symbols: &[(&str, char)], with_ns_tree: bool) -> Vec<(String, String, u64, LockKind)> {
    let sources = kernel_with(symbols, with_ns_tree);
    resolve(&all(), &sources)
        .unwrap()
        .into_iter()
        .filter_map(|r| r.outcome.ok())
        .inspect(|lock| assert_eq!(lock.method, Method::Kallsyms))
        .map(|lock| (lock.name, lock.symbol, lock.address & 0xfff, lock.kind))
        .collect()
}

/// What every kernel of the table has, under the same names.
const COMMON: [(&str, char); 9] = [
    ("init_task", 'D'),
    ("namespace_sem", 't'),
    ("mount_lock", 'T'),
    ("rename_lock", 'T'),
    ("tasklist_lock", 'T'),
    ("sb_lock", 'b'),
    ("pcpu_alloc_mutex", 'd'),
    ("list_lrus_mutex", 't'),
    ("rcu_state", 't'),
];

#[test]
fn each_kernel_has_its_own_symbols_for_the_same_locks() {
    use LockKind::{Mutex, Rwlock, Rwsem, Spinlock};
    type Expected = (&'static str, &'static str, u64, LockKind);
    let same: [Expected; 8] = [
        ("namespace_sem", "namespace_sem", 0, Rwsem),
        ("mount_lock", "mount_lock.lock", 4, Spinlock),
        ("rcu_exp_mutex", "rcu_state.exp_mutex", 0x120, Mutex),
        ("pcpu_alloc_mutex", "pcpu_alloc_mutex", 0, Mutex),
        ("list_lrus_mutex", "list_lrus_mutex", 0, Mutex),
        ("tasklist_lock", "tasklist_lock", 0, Rwlock),
        ("sb_lock", "sb_lock", 0, Spinlock),
        ("rename_lock", "rename_lock.lock", 4, Spinlock),
    ];
    let ida: Expected = ("mnt_id_lock", "mnt_id_ida.xa.xa_lock", 0, Spinlock);
    let xa: Expected = ("mnt_id_lock", "mnt_id_xa.xa_lock", 0, Spinlock);
    let rwsem: Expected = ("shrinker_rwsem", "shrinker_rwsem", 0, Rwsem);
    let mutex: Expected = ("shrinker_rwsem", "shrinker_mutex", 0, Mutex);

    // Kernel, its other data symbols, whether `struct ns_tree` is in its BTF,
    // and what is chosen beside the same ones.
    type Kernel = (&'static str, Vec<(&'static str, char)>, bool, Vec<Expected>);
    let kernels: [Kernel; 7] = [
        ("5.10", vec![("mnt_id_ida", 'd'), ("shrinker_rwsem", 'd')], false, vec![ida, rwsem]),
        ("6.1", vec![("mnt_id_ida", 'd'), ("shrinker_rwsem", 'D')], false, vec![ida, rwsem]),
        (
            "6.12",
            vec![
                ("mnt_id_ida", 'd'),
                ("shrinker_mutex", 'D'),
                ("mnt_ns_tree_lock", 'b'),
                ("mnt_ns_tree", 'b'),
            ],
            false,
            vec![ida, mutex, ("ns_tree_lock", "mnt_ns_tree_lock", 0, Rwlock)],
        ),
        (
            "6.16",
            vec![
                ("mnt_id_xa", 't'),
                ("shrinker_mutex", 'T'),
                ("mnt_ns_tree_lock", 'b'),
                ("mnt_ns_tree", 'b'),
            ],
            false,
            vec![xa, mutex, ("ns_tree_lock", "mnt_ns_tree_lock.lock", 4, Spinlock)],
        ),
        (
            "6.18",
            vec![("mnt_id_xa", 't'), ("shrinker_mutex", 'T'), ("mnt_ns_tree", 'T')],
            true,
            vec![xa, mutex, ("ns_tree_lock", "mnt_ns_tree.ns_tree_lock.lock", 28, Spinlock)],
        ),
        (
            "7.2",
            vec![
                ("mnt_id_xa", 't'),
                ("shrinker_mutex", 'B'),
                ("mnt_ns_tree", 'T'),
                ("ns_tree_lock", 't'),
            ],
            true,
            vec![xa, mutex, ("ns_tree_lock", "ns_tree_lock.lock", 4, Spinlock)],
        ),
        (
            "4.18",
            vec![("mnt_id_lock", 'd'), ("shrinker_rwsem", 'd')],
            false,
            vec![("mnt_id_lock", "mnt_id_lock", 0, Spinlock), rwsem],
        ),
    ];
    for (kernel, symbols, with_ns_tree, others) in kernels {
        let symbols = [&COMMON[..], &symbols].concat();
        let mut expected: Vec<_> = same
            .iter()
            .chain(&others)
            .map(|(name, symbol, offset, kind)| {
                (name.to_string(), symbol.to_string(), *offset, *kind)
            })
            .collect();
        let mut found = chosen(&symbols, with_ns_tree);
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        found.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(found, expected, "Linux {kernel}");
    }
}

#[test]
fn text_alone_tells_all_locks_of_a_kernel_without_data_symbols() {
    let sources = recorded_6_18();
    assert!(!sources.kallsyms.as_ref().unwrap().has_data_symbols());
    let resolutions = resolve(&all(), &sources).unwrap();
    assert_eq!(
        addresses(&resolutions),
        [
            ("namespace_sem", Some(("namespace_sem", 0xffff_ffff_8314_b060))),
            ("mnt_id_lock", Some(("mnt_id_xa.xa_lock", 0xffff_ffff_8314_b0a0))),
            ("mount_lock", Some(("mount_lock.lock", 0xffff_ffff_8300_b784))),
            ("shrinker_rwsem", Some(("shrinker_mutex", 0xffff_ffff_8312_4ce0))),
            ("rcu_exp_mutex", Some(("rcu_state.exp_mutex", 0xffff_ffff_830f_60b8))),
            ("pcpu_alloc_mutex", Some(("pcpu_alloc_mutex", 0xffff_ffff_8312_5180))),
            ("list_lrus_mutex", Some(("list_lrus_mutex", 0xffff_ffff_8313_0480))),
            ("tasklist_lock", Some(("tasklist_lock", 0xffff_ffff_8300_8080))),
            ("ns_tree_lock", Some(("mnt_ns_tree.ns_tree_lock.lock", 0xffff_ffff_8307_6edc))),
            ("sb_lock", Some(("sb_lock", 0xffff_ffff_83c1_22b0))),
            ("rename_lock", Some(("rename_lock.lock", 0xffff_ffff_8300_b704))),
        ]
    );
    let methods = resolutions.iter().map(|r| r.outcome.as_ref().unwrap().method);
    assert!(methods.eq([Method::Text; 11]));
}

#[test]
fn data_symbols_can_be_ignored_to_test_the_other_methods() {
    let table =
        format!("{SYMBOLS_6_18}ffffffff8300b780 T mount_lock\nffffffff83500000 D init_task\n");
    let sources = Sources { kallsyms: collect(&table, &all()), ..recorded_6_18() };
    let method = |sources: &Sources<'_>| {
        let resolutions = resolve(&all(), sources).unwrap();
        let lock = resolutions.into_iter().find(|r| r.name == "mount_lock").unwrap();
        lock.outcome.map(|lock| (lock.address, lock.method)).unwrap()
    };
    assert_eq!(method(&sources), (0xffff_ffff_8300_b784, Method::Kallsyms));
    let sources = Sources { use_data_symbols: false, ..sources };
    assert_eq!(method(&sources), (0xffff_ffff_8300_b784, Method::Text));
}

#[test]
fn functions_that_disagree_leave_the_lock_unresolved_with_both_named() {
    // may_umount() of the recording takes another rwsem.
    struct Forged;
    impl TextSource for Forged {
        fn read(&self, address: u64, len: usize) -> Result<Vec<u8>, TextError> {
            let mut bytes = Recorded(TEXT_6_18).read(address, len)?;
            if address == 0xffff_ffff_816e_e0f0 {
                for at in 0..bytes.len() - 4 {
                    if bytes[at..at + 4] == [0x60, 0xb0, 0x14, 0x83] {
                        bytes[at] = 0x68;
                    }
                }
            }
            Ok(bytes)
        }
    }
    let sources = Sources { open_text: Box::new(|| Ok(Box::new(Forged))), ..recorded_6_18() };
    let resolutions = resolve(&Choices::default(), &sources).unwrap();
    let error = resolutions[0].outcome.clone().unwrap_err().to_string();
    assert!(error.contains("`namespace_unlock` takes 0xffffffff8314b060"), "{error}");
    assert!(error.contains("`may_umount` takes 0xffffffff8314b068"), "{error}");
    assert!(resolutions[2].outcome.is_ok(), "mount_lock does not suffer");
}

#[test]
fn an_unreadable_text_is_a_reason_for_each_lock() {
    let sources = Sources { open_text: no_text(), ..recorded_6_18() };
    for resolution in resolve(&all(), &sources).unwrap() {
        let Unresolved::NotFound(reasons) = resolution.outcome.unwrap_err() else {
            panic!("{} may be there", resolution.name);
        };
        let methods: Vec<_> = reasons.iter().map(|reason| reason.method).collect();
        assert_eq!(methods, [Method::Kallsyms, Method::Text]);
        assert!(reasons[0].why.contains("CONFIG_KALLSYMS_ALL"), "{:?}", reasons[0]);
        assert!(reasons[1].why.contains("read_text"), "{:?}", reasons[1]);
    }
}

/// What is said of `lock` in a kernel of `release` with these symbols.
fn why_not(lock: &str, release: &str, symbols: &[(&str, char)], functions: &[&str]) -> Unresolved {
    let mut sources = kernel_with(symbols, false);
    let mut table = String::from("ffffffff81000000 T _stext\nffffffff82000000 T _etext\n");
    for (i, function) in functions.iter().enumerate() {
        writeln!(table, "{:x} T {function}", 0xffff_ffff_8100_1000_u64 + i as u64 * 0x100).unwrap();
    }
    for (i, (name, letter)) in symbols.iter().enumerate() {
        writeln!(table, "{:x} {letter} {name}", 0xffff_ffff_8300_0000_u64 + i as u64 * 0x1000)
            .unwrap();
    }
    sources.kallsyms = collect(&table, &all());
    sources.release = release.into();
    let resolutions = resolve(&all(), &sources).unwrap();
    resolutions.into_iter().find(|r| r.name == lock).unwrap().outcome.unwrap_err()
}

#[test]
fn a_lock_that_came_later_is_absent_and_not_unfound() {
    let why = |release, symbols: &[_], functions: &[_]| {
        why_not("ns_tree_lock", release, &[&COMMON[..], symbols].concat(), functions)
    };
    let absent = why("6.1.0-18-amd64", &[], &[]);
    let text = "this kernel has no such lock: it came with Linux 6.11";
    assert_eq!(absent.to_string(), text);
    assert!(matches!(why("5.10.0", &[], &[]), Unresolved::Absent(_)));
    assert!(matches!(why("6.10.3", &[], &[]), Unresolved::Absent(_)));
    // A newer kernel may have given it another name.
    assert!(matches!(why("6.11.0", &[], &[]), Unresolved::NotFound(_)));
    assert!(matches!(why("7.9.0", &[], &[]), Unresolved::NotFound(_)));
    assert!(matches!(why("a kernel", &[], &[]), Unresolved::NotFound(_)));
    // A distributor may have brought it to an older one.
    assert!(matches!(why("5.14.0", &[], &["mnt_ns_tree_add"]), Unresolved::NotFound(_)));
    let found = why("5.14.0", &[("mnt_ns_tree_lock", 'b')], &[]);
    assert!(matches!(found, Unresolved::NotFound(_)), "neither of its kinds: {found}");
}

#[test]
fn a_lock_of_an_option_is_absent_without_the_option() {
    let symbols: Vec<_> = COMMON.into_iter().filter(|s| s.0 != "list_lrus_mutex").collect();
    let why = |functions: &[_]| why_not("list_lrus_mutex", "6.18.0", &symbols, functions);
    assert_eq!(
        why(&[]).to_string(),
        "this kernel has no such lock: it is built without CONFIG_MEMCG"
    );
    let unfound = why(&["mem_cgroup_from_task"]).to_string();
    assert!(
        unfound.starts_with("not found: kallsyms: no data symbol `list_lrus_mutex`"),
        "{unfound}"
    );
}

#[test]
fn hidden_symbols_resolve_nothing_and_say_why() {
    let sources = Sources { kallsyms: Err(KallsymsError::Hidden), ..recorded_6_18() };
    for resolution in resolve(&all(), &sources).unwrap() {
        let error = resolution.outcome.unwrap_err().to_string();
        assert!(error.contains("CAP_SYSLOG"), "{error}");
    }
}

#[test]
fn without_btf_only_locks_at_unknown_offsets_are_missing() {
    let missing = || BtfError::Read {
        path: "/sys/kernel/btf/vmlinux".into(),
        source: std::io::ErrorKind::NotFound.into(),
    };
    let symbols = [&COMMON[..], &[("mnt_id_xa", 't'), ("shrinker_mutex", 'T')]].concat();
    let sources = Sources { btf: Err(missing()), ..kernel_with(&symbols, false) };
    let resolutions = resolve(&Choices::default(), &sources).unwrap();
    let unresolved: Vec<_> =
        resolutions.iter().filter(|r| r.outcome.is_err()).map(|r| r.name.as_str()).collect();
    assert_eq!(unresolved, ["mount_lock", "rcu_exp_mutex"]);
    // Text shows the lock itself, so it needs no offset.
    let sources = Sources { btf: Err(missing()), ..recorded_6_18() };
    let resolutions = resolve(&Choices::default(), &sources).unwrap();
    assert!(resolutions.iter().all(|r| r.outcome.is_ok()), "{resolutions:?}");
}

#[test]
fn two_symbols_of_one_name_are_ambiguous() {
    let symbols = [&COMMON[..], &[("sb_lock", 'b')]].concat();
    let resolutions = resolve(&all(), &kernel_with(&symbols, false)).unwrap();
    let lock = resolutions.into_iter().find(|r| r.name == "sb_lock").unwrap();
    let error = lock.outcome.unwrap_err().to_string();
    assert!(error.contains("2 data symbols are called `sb_lock`"), "{error}");
}

fn with_custom(name: &str, symbol: &str) -> Choices {
    let (name, symbol) = (name.into(), symbol.into());
    let custom = vec![CustomLock { name, symbol, kind: LockKind::Mutex }];
    Choices { custom, ..Choices::default() }
}

fn resolve_custom(choices: &Choices) -> Resolution {
    let mut sources = kernel_with(&COMMON, false);
    let table = "ffffffff81000000 T _text\nffffffff81000000 T _stext\nffffffff81000100 T code\n\
                 ffffffff82000000 T _etext\nffffffff83000000 D init_task\n\
                 ffffffff83001000 d namespace_sem\nffffffff83002000 b cgroup_mutex\n\
                 0000000000001000 d per_cpu_lock\n\
                 ffffffffa0000000 d cgroup_mutex [module]\n";
    sources.kallsyms = collect(table, choices);
    resolve(choices, &sources).unwrap().pop().unwrap()
}

#[test]
fn locks_of_the_user_are_found_by_symbol_and_offset() {
    let lock = resolve_custom(&with_custom("cgroup", "cgroup_mutex+0x10")).outcome.unwrap();
    assert_eq!(lock.name, "cgroup");
    assert_eq!(lock.symbol, "cgroup_mutex+0x10");
    assert_eq!(lock.address, 0xffff_ffff_8300_2010);
    assert_eq!(lock.kind, LockKind::Mutex);
}

#[test]
fn an_unknown_symbol_of_the_user_is_named() {
    let error = resolve_custom(&with_custom("x", "no_such_lock")).outcome.unwrap_err().to_string();
    assert!(error.contains("no data symbol `no_such_lock`"), "{error}");
    let error = resolve_custom(&with_custom("x", "code")).outcome.unwrap_err().to_string();
    assert!(error.contains("no data symbol `code`"), "functions are no locks: {error}");
    let error = resolve_custom(&with_custom("x", "per_cpu_lock")).outcome.unwrap_err().to_string();
    assert!(error.contains("no data symbol `per_cpu_lock`"), "one per CPU: {error}");
}

#[test]
fn a_lock_of_the_user_that_repeats_one_of_the_catalogue_is_refused() {
    let resolution = resolve_custom(&with_custom("again", "namespace_sem"));
    let error = resolution.outcome.unwrap_err().to_string();
    assert!(error.contains("is that of `namespace_sem` too"), "{error}");
}

#[test]
fn a_system_map_is_used_where_the_kernel_has_no_data_symbols() {
    let linked = |line: &str| {
        let (address, rest) = line.split_once(' ').unwrap();
        let address = u64::from_str_radix(address, 16).unwrap() - 0x100_0000;
        format!("{address:x} {rest}\n")
    };
    let mut map: String = SYMBOLS_6_18.lines().map(linked).collect();
    map.push_str("ffffffff8200b780 D mount_lock\n");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("System.map");
    std::fs::write(&path, map).unwrap();
    let sources = recorded_6_18();
    let names = symbol_names(&all());
    let running = sources.kallsyms.as_ref().unwrap();
    let map = SystemMap::read(&path, running, names.iter().map(String::as_str));
    let sources = Sources { system_map: Some(map), ..sources };
    let resolutions = resolve(&Choices::default(), &sources).unwrap();
    let found = |i: usize| {
        let resolution: &Resolution = &resolutions[i];
        resolution.outcome.as_ref().map(|lock| (lock.address, lock.method)).unwrap()
    };
    assert_eq!(found(2), (0xffff_ffff_8300_b784, Method::SystemMap));
    assert_eq!(found(0), (0xffff_ffff_8314_b060, Method::Text), "not in the map");
}
