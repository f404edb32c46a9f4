//! `docs/kernels.md`: what `lockprof doctor` finds on each kernel of the matrix.
//!
//! In: the reports that guests gave. Out: the page. The page is read back as
//! well, so that a run on a part of the kernels compares that part. It speaks of
//! series (6.12) and has neither addresses nor releases, so it changes only when
//! lockprof or a kernel does.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// What is known, by series.
pub(super) type Facts = BTreeMap<Series, Kernel>;

/// A series, ordered by number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series(Vec<u32>);

/// What `doctor` found on one kernel, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kernel {
    /// Logical name of a lock, and how it was found.
    locks: Vec<(String, Lock)>,
    /// Name of a hook, and its backend.
    hooks: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Lock {
    symbol: String,
    kind: String,
    method: String,
}

/// Of what was not found, or does not attach.
const NONE: &str = "-";

const HEAD: &str = "\
<!-- Generated from what `lockprof doctor` finds in virtual machines. To write it again:
     LOCKPROF_BLESS=1 cargo xtask test --all -->
# Kernels

What `lockprof doctor` finds on Debian's kernels for x86-64, by series, run as root in virtual machines of \
two NUMA nodes with two CPUs each. `cargo xtask test --all` compares this page with what it finds, \
`cargo xtask vm --kernel 6.1` shows the whole report of one kernel.

## Locks

How each lock of the catalogue is called there, and how it was found. A `-` is a lock that was not found; \
`doctor` says why.

";
const LOCKS: &str =
    "| lock | kernels | symbol | kind | found by |\n| --- | --- | --- | --- | --- |\n";
const HOOKS_HEAD: &str = "
## Hooks

By which backend each hook attaches, the best that the kernel allows. A `-` is a hook that does not attach; \
`doctor` says why.

";
const HOOKS: &str = "| hook | kernels | backend |\n| --- | --- | --- |\n";

impl Series {
    /// `6.12`.
    ///
    /// # Errors
    /// When it is no such number.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let parts: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
        parts.map(Self).with_context(|| format!("`{text}` is no series of kernels"))
    }

    fn name(&self) -> String {
        self.0.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
    }
}

impl Kernel {
    /// From what `lockprof doctor --json` printed.
    ///
    /// # Errors
    /// When it is not such a report.
    pub(super) fn from_doctor(json: &str) -> Result<Self> {
        let report: Value = serde_json::from_str(json).context("the report is no JSON")?;
        let list = |name: &str| {
            report[name].as_array().with_context(|| format!("the report has no list `{name}`"))
        };
        let text = |row: &Value, key: &str| match row[key].as_str() {
            Some("none") | None => NONE.to_owned(),
            Some(text) => text.to_owned(),
        };
        Ok(Self {
            locks: list("locks")?
                .iter()
                .map(|row| {
                    let lock = Lock {
                        symbol: text(row, "symbol"),
                        kind: text(row, "kind"),
                        method: text(row, "method"),
                    };
                    (text(row, "lock"), lock)
                })
                .collect(),
            hooks: list("hooks")?
                .iter()
                .map(|row| (text(row, "hook"), text(row, "backend")))
                .collect(),
        })
    }
}

/// Rows of a table: a name, the kernels where it is so, and what is so.
type Rows<T> = Vec<(String, Vec<Series>, T)>;

/// Kernels that agree share a row. Names come in the order in which the kernels
/// have them, oldest kernel first.
fn rows<'a, T: Clone + PartialEq + 'a>(
    facts: &'a Facts,
    of: impl Fn(&'a Kernel) -> &'a [(String, T)],
) -> Rows<T> {
    let mut rows: Rows<T> = Vec::new();
    for (series, kernel) in facts {
        for (name, what) in of(kernel) {
            match rows.iter_mut().find(|(known, _, same)| known == name && same == what) {
                Some((_, kernels, _)) => kernels.push(series.clone()),
                None => {
                    // Beside its other rows.
                    let after = rows.iter().rposition(|(known, ..)| known == name);
                    let at = after.map_or(rows.len(), |at| at + 1);
                    rows.insert(at, (name.clone(), vec![series.clone()], what.clone()));
                }
            }
        }
    }
    rows
}

fn kernels_cell(kernels: &[Series]) -> String {
    kernels.iter().map(Series::name).collect::<Vec<_>>().join(", ")
}

/// The page.
pub(super) fn render(facts: &Facts) -> String {
    let code = |text: &str| if text == NONE { text.to_owned() } else { format!("`{text}`") };
    let mut page = format!("{HEAD}{LOCKS}");
    for (lock, kernels, found) in rows(facts, |kernel| &kernel.locks) {
        let Lock { symbol, kind, method } = found;
        let (kernels, symbol) = (kernels_cell(&kernels), code(&symbol));
        let _ = writeln!(page, "| `{lock}` | {kernels} | {symbol} | {kind} | {method} |");
    }
    page.push_str(HOOKS_HEAD);
    page.push_str(HOOKS);
    for (hook, kernels, backend) in rows(facts, |kernel| &kernel.hooks) {
        let _ = writeln!(page, "| `{hook}` | {} | {backend} |", kernels_cell(&kernels));
    }
    let without: Vec<_> = facts
        .iter()
        .filter(|(_, kernel)| kernel.hooks.is_empty())
        .map(|(s, _)| s.clone())
        .collect();
    if !without.is_empty() {
        let _ = writeln!(page, "| {NONE} | {} | {NONE} |", kernels_cell(&without));
    }
    page
}

/// Reads a page.
///
/// # Errors
/// When a row is not as [`render`] writes them.
pub(super) fn parse(page: &str) -> Result<Facts> {
    let mut facts = Facts::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> =
            line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let (Some(name), Some(kernels)) = (cells.first(), cells.get(1)) else { continue };
        if ["lock", "hook", "---"].contains(name) {
            continue;
        }
        for series in kernels.split(", ") {
            let kernel = facts.entry(Series::parse(series)?).or_default();
            match cells[2..] {
                // The kernels where nothing attaches.
                [_] if *name == NONE => {}
                [backend] => kernel.hooks.push(((*name).into(), backend.into())),
                [symbol, kind, method] => {
                    let lock =
                        Lock { symbol: symbol.into(), kind: kind.into(), method: method.into() };
                    kernel.locks.push(((*name).into(), lock));
                }
                _ => anyhow::bail!("not a row of this page: {line}"),
            }
        }
    }
    Ok(facts)
}

/// How `found` differs from what the page says of the same kernels, a line each.
pub(super) fn differences(page: &Facts, found: &Facts) -> Vec<String> {
    let mut lines = Vec::new();
    for (series, kernel) in found {
        let name = series.name();
        let Some(written) = page.get(series) else {
            lines.push(format!("{name}: not on the page"));
            continue;
        };
        differ(&mut lines, &format!("{name}: lock"), &written.locks, &kernel.locks);
        differ(&mut lines, &format!("{name}: hook"), &written.hooks, &kernel.hooks);
    }
    lines
}

fn differ<T: PartialEq + std::fmt::Debug>(
    lines: &mut Vec<String>,
    what: &str,
    written: &[(String, T)],
    found: &[(String, T)],
) {
    let get = |list: &[(String, T)], name: &str| list.iter().position(|(known, _)| known == name);
    for (name, now) in found {
        match get(written, name).map(|at| &written[at].1) {
            Some(then) if then == now => {}
            Some(then) => lines.push(format!("{what} {name}: page {then:?}, found {now:?}")),
            None => lines.push(format!("{what} {name}: not on the page, found {now:?}")),
        }
    }
    for (name, _) in written.iter().filter(|(name, _)| get(found, name).is_none()) {
        lines.push(format!("{what} {name}: on the page, not found"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doctor(symbol: &str, backend: &str) -> Kernel {
        let json = serde_json::json!({
            "kernel": "6.1.0-50-amd64",
            "locks": [
                {"lock": "namespace_sem", "symbol": "namespace_sem", "kind": "rwsem", "method": "kallsyms"},
                {"lock": "mnt_id_lock", "symbol": symbol, "kind": "spinlock", "method": "kallsyms",
                 "address": "0xffffffff81000000"},
                {"lock": "gone", "symbol": null, "kind": null, "method": null, "unresolved": "no symbol"},
            ],
            "hooks": [{"hook": "sys_mount", "backend": backend, "refused": []}],
        });
        Kernel::from_doctor(&json.to_string()).unwrap()
    }

    fn facts() -> Facts {
        let refused = r#"{"locks": [], "hooks": [], "refused": "no tracepoint"}"#;
        [
            ("6.12", doctor("mnt_id_ida.xa.xa_lock", "tracepoint")),
            ("5.10", Kernel::from_doctor(refused).unwrap()),
            ("6.1", doctor("mnt_id_ida.xa.xa_lock", "none")),
            ("7.0", doctor("mnt_id_xa.xa_lock", "fentry")),
        ]
        .map(|(name, kernel)| (Series::parse(name).unwrap(), kernel))
        .into()
    }

    #[test]
    fn kernels_that_agree_share_a_row_oldest_first() {
        let page = render(&facts());
        for row in [
            "| `namespace_sem` | 6.1, 6.12, 7.0 | `namespace_sem` | rwsem | kallsyms |\n",
            "| `mnt_id_lock` | 6.1, 6.12 | `mnt_id_ida.xa.xa_lock` | spinlock | kallsyms |\n\
             | `mnt_id_lock` | 7.0 | `mnt_id_xa.xa_lock` | spinlock | kallsyms |\n",
            "| `gone` | 6.1, 6.12, 7.0 | - | - | - |\n",
            "| `sys_mount` | 6.1 | - |\n| `sys_mount` | 6.12 | tracepoint |\n\
             | `sys_mount` | 7.0 | fentry |\n",
            "| - | 5.10 | - |\n",
        ] {
            assert!(page.contains(row), "{row}\n{page}");
        }
    }

    #[test]
    fn no_address_and_no_release_is_on_the_page() {
        let page = render(&facts());
        assert!(!page.contains("0xffff") && !page.contains("6.1.0-50"), "{page}");
    }

    #[test]
    fn a_page_reads_back_as_what_it_was_made_from() {
        assert_eq!(parse(&render(&facts())).unwrap(), facts());
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
        kernel.hooks[0].1 = "kprobe".into();
        kernel.locks.remove(0);
        kernel.hooks.push(("new".into(), "fentry".into()));
        found.insert(Series::parse("7.9").unwrap(), Kernel::default());
        let lines = differences(&page, &found);
        for part in [
            "6.1: hook sys_mount: page \"-\", found \"kprobe\"",
            "6.1: lock namespace_sem: on the page, not found",
            "6.1: hook new: not on the page",
            "7.9: not on the page",
        ] {
            assert!(lines.iter().any(|line| line.contains(part)), "{part} in {lines:?}");
        }
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn what_is_no_report_is_refused() {
        assert!(Kernel::from_doctor("error").is_err());
        assert!(Kernel::from_doctor("{}").unwrap_err().to_string().contains("locks"));
        assert!(parse("| `x` | 6.1 | a | b |\n").is_err());
    }
}
