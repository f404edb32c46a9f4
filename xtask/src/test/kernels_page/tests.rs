use serde_json::json;

use super::*;

fn family(hook: &str) -> &str {
    if hook.starts_with("sys_") { "calls" } else { "waits" }
}

/// A kernel with `sys_mount` by `backend` and `mnt_id_lock` called `symbol`;
/// kernel text tells `by_text` of that one.
fn doctor(symbol: &str, by_text: Value, backend: &str) -> Kernel {
    let lock = |name: &str, symbol: Value, kind: Value, method: Value| {
        json!({"lock": name, "symbol": symbol, "kind": kind, "method": method, "watched": true,
               "absent": false})
    };
    let absent = json!({"lock": "ns_tree_lock", "symbol": null, "kind": null, "method": null,
        "watched": false, "absent": true, "unresolved": "Linux 6.18 has it"});
    let locks = |of_symbol: Value, method: &str| {
        let kind = if of_symbol.is_null() { Value::Null } else { "spinlock".into() };
        let mut second = lock("mnt_id_lock", of_symbol, kind, method.into());
        second["address"] = "0xffffffff81000000".into();
        let first = lock("namespace_sem", "namespace_sem".into(), "rwsem".into(), method.into());
        let gone = lock("gone", Value::Null, Value::Null, Value::Null);
        json!([first, second, gone, absent])
    };
    let hook = |name: &str, backend: &str, absent: bool| json!({"hook": name, "backend": backend, "absent": absent, "family": family(name)});
    let usual = json!({
        "kernel": "6.1.0-50-amd64",
        "locks": locks(symbol.into(), "kallsyms"),
        "hooks": [
            hook("sys_mount", backend, false),
            hook("sys_statmount", "none", true),
            hook("sys_fsopen", backend, false),
            hook("contention_begin", "tp_btf", false),
        ],
    });
    let by_text = json!({"locks": locks(by_text, "text"), "hooks": []});
    Kernel::from_doctor(|arguments| {
        Some(match arguments {
            "" => usual.to_string(),
            "--without-data-symbols" => by_text.to_string(),
            // None attaches.
            "--backend waits=fentry" => r#"{"locks": [], "hooks": [], "refused": "no"}"#.into(),
            _ => usual.to_string(),
        })
    })
    .unwrap()
}

const XA_LOCK: &str = "mnt_id_ida.xa.xa_lock";

fn facts() -> Facts {
    let refused = r#"{"locks": [], "hooks": [], "refused": "no tracepoint"}"#;
    [
        ("6.12", doctor(XA_LOCK, XA_LOCK.into(), "tracepoint")),
        ("5.10", Kernel::from_doctor(|_| Some(refused.into())).unwrap()),
        ("6.1", doctor(XA_LOCK, Value::Null, "none")),
        ("7.0", doctor("mnt_id_xa.xa_lock", "mnt_id_other".into(), "fentry")),
    ]
    .map(|(name, kernel)| (Series::parse(name).unwrap(), kernel))
    .into()
}

fn assert_rows(rows: &[&str]) {
    let page = render(&facts());
    for row in rows {
        assert!(page.contains(row), "{row}\n{page}");
    }
}

#[test]
fn kernels_that_agree_share_a_row_oldest_first() {
    assert_rows(&[
        "| `namespace_sem` | 6.1, 6.12, 7.0 | yes | `namespace_sem` | rwsem | kallsyms | same |\n",
        "| `contention_begin` | 6.1, 6.12, 7.0 | tp_btf |\n",
    ]);
}

#[test]
fn what_text_tells_is_the_same_or_nothing_or_is_named() {
    assert_rows(&[
        "| `mnt_id_lock` | 6.1 | yes | `mnt_id_ida.xa.xa_lock` | spinlock | kallsyms | - |\n\
         | `mnt_id_lock` | 6.12 | yes | `mnt_id_ida.xa.xa_lock` | spinlock | kallsyms | same |\n\
         | `mnt_id_lock` | 7.0 | yes | `mnt_id_xa.xa_lock` | spinlock | kallsyms | \
         mnt_id_other (spinlock) |\n",
    ]);
}

#[test]
fn what_a_kernel_does_not_have_is_apart_from_what_was_not_found() {
    assert_rows(&[
        "| `gone` | 6.1, 6.12, 7.0 | yes | - | - | - | - |\n",
        "| `ns_tree_lock` | 6.1, 6.12, 7.0 | no | absent | - | - | same |\n",
        "| `sys_statmount` | 6.1, 6.12, 7.0 | absent |\n",
        "| - | 5.10 | - |\n",
    ]);
}

#[test]
fn hooks_of_the_same_kernels_and_backend_share_a_row() {
    assert_rows(&["| `sys_fsopen`, `sys_mount` | 6.1 | - |\n\
         | `sys_fsopen`, `sys_mount` | 6.12 | tracepoint |\n\
         | `sys_fsopen`, `sys_mount` | 7.0 | fentry |\n"]);
}

#[test]
fn a_forced_backend_shows_what_it_attaches_of_what_the_kernel_has() {
    assert_rows(&[
        "| `waits=tp_btf` | 5.10 | - |\n| `waits=tp_btf` | 6.1, 6.12, 7.0 | all |\n",
        "| `waits=fentry` | 5.10, 6.1, 6.12, 7.0 | - |\n",
        "| `calls=kprobe` | 5.10, 6.1 | - |\n| `calls=kprobe` | 6.12, 7.0 | all |\n",
    ]);
    let hook = |name: &str, backend: &str| json!({"hook": name, "backend": backend, "family": family(name)});
    let [a, b, c] = ["a", "b", "c"].map(|name| hook(name, "kprobe"));
    let [d, call] = ["d", "sys_mount"].map(|name| hook(name, "none"));
    assert_eq!(attached("waits=kprobe", &[a.clone(), d.clone()]), "only `a`");
    assert_eq!(attached("waits=kprobe", &[b, a, d, c, call]), "all but `d`");
}

#[test]
fn no_address_and_no_release_is_on_the_page() {
    let page = render(&facts());
    assert!(!page.contains("0xffff") && !page.contains("6.1.0-50"), "{page}");
}

#[test]
fn a_page_reads_back_as_what_it_was_made_from() {
    let page = render(&facts());
    assert_eq!(parse(&page).unwrap(), facts());
    assert_eq!(render(&parse(&page).unwrap()), page);
}

#[test]
fn only_the_kernels_that_were_run_are_compared() {
    let page = parse(&render(&facts())).unwrap();
    let mut found = facts();
    found.remove(&Series::parse("7.0").unwrap());
    assert!(differences(&page, &found).is_empty());
}

#[test]
fn every_way_to_differ_is_named() {
    let page = facts();
    let mut found = facts();
    let kernel = found.get_mut(&Series::parse("6.1").unwrap()).unwrap();
    let mount = kernel.hooks.iter_mut().find(|(name, _)| name == "sys_mount").unwrap();
    mount.1 = "kprobe".into();
    kernel.locks.remove(0);
    kernel.locks[0].1.by_text = SAME.into();
    kernel.hooks.push(("new".into(), "fentry".into()));
    kernel.forced[0].1 = "only `new`".into();
    found.insert(Series::parse("7.9").unwrap(), Kernel::default());
    let lines = differences(&page, &found);
    for part in [
        "6.1: hook sys_mount: page \"-\", found \"kprobe\"",
        "6.1: lock namespace_sem: on the page, not found",
        "6.1: lock mnt_id_lock: page Lock",
        "6.1: hook new: not on the page",
        "6.1: forced waits=tp_btf: page \"all\", found \"only `new`\"",
        "7.9: not on the page",
    ] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part} in {lines:?}");
    }
    assert_eq!(lines.len(), 6);
}

#[test]
fn what_is_no_report_is_refused() {
    let why = |json: Option<&str>| {
        format!("{:#}", Kernel::from_doctor(|_| json.map(str::to_owned)).unwrap_err())
    };
    assert!(why(None).contains("was not run"));
    assert!(why(Some("error")).contains("no JSON"));
    assert!(why(Some("{}")).contains("no list `hooks`"));
    assert!(why(Some(r#"{"hooks": [], "locks": [{"lock": "a"}]}"#)).contains("`a` is watched"));
    for row in ["| `x` | 6.1 |", "| `x` | 6.x | kprobe |", "| `x` | 6.1 | a | b |"] {
        assert!(parse(&format!("## Hooks\n| --- |\n{row}\n")).is_err(), "{row}");
    }
}
