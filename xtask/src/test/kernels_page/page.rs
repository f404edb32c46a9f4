//! The page as text: written and read back.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};

use super::{ABSENT, Facts, Kernel, Lock, NONE, Series};

const HEAD: &str = "\
<!-- Generated from what `lockprof doctor` finds in virtual machines. To write it again:
     LOCKPROF_BLESS=1 cargo xtask test --all -->
# Kernels

What `lockprof doctor` finds on Debian's kernels for x86-64, by series, run as root in virtual machines of \
two NUMA nodes with two CPUs each. `cargo xtask test --all` compares this page with what it finds, \
`cargo xtask vm --kernel 6.1` shows the whole report of one kernel.

In all tables `absent` is what a kernel does not have, and `-` is what it may have and lockprof did not find \
or could not attach; `doctor` says why.
";

const LOCKS: &str = "## Locks";
const LOCKS_HEAD: &str = "
How each lock of the catalogue is called there, whether it is watched by default, and how it was found. \
`by text` is what `doctor --without-data-symbols` finds, which reads the kernel's code instead of its data \
symbols: `same` is the same symbol and kind, or absent as well.

| lock | kernels | watched | symbol | kind | found by | by text |
| --- | --- | --- | --- | --- | --- | --- |
";

const HOOKS: &str = "## Hooks";
const HOOKS_HEAD: &str = "
By which backend each hook attaches, the best that the kernel allows. Hooks that are not tried on a kernel, \
since others stand for them there, have no row for it.

| hooks | kernels | backend |
| --- | --- | --- |
";

const FORCED: &str = "## Forced backends";
const FORCED_HEAD: &str = "
Which hooks attach when `--backend` allows one backend alone: those of lock waits for `waits=`, those of \
mount calls for `calls=`, without what the kernel does not have.

| backend | kernels | hooks that attach |
| --- | --- | --- |
";

/// Rows of a table: a name, the kernels where it is so, and what is so.
type Rows<T> = Vec<(String, Vec<Series>, T)>;

/// Kernels that agree share a row. Names come in the order in which the kernels
/// have them, oldest kernel first, or sorted.
fn rows<T: Clone + PartialEq>(
    facts: &Facts,
    sorted: bool,
    of: impl Fn(&Kernel) -> &[(String, T)],
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
    if sorted {
        // Stable: the rows of a name stay in the order of their oldest kernels.
        rows.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    }
    rows
}

/// Rows whose kernels and outcome are the same become one, where the first of
/// them stands.
fn merged<T: PartialEq>(rows: Rows<T>) -> Vec<(Vec<String>, Vec<Series>, T)> {
    let mut merged: Vec<(Vec<String>, Vec<Series>, T)> = Vec::new();
    for (name, kernels, what) in rows {
        match merged.iter_mut().find(|(_, of, same)| *of == kernels && *same == what) {
            Some((names, ..)) => names.push(name),
            None => merged.push((vec![name], kernels, what)),
        }
    }
    merged
}

fn kernels_cell(kernels: &[Series]) -> String {
    kernels.iter().map(Series::name).collect::<Vec<_>>().join(", ")
}

fn code(text: &str) -> String {
    if [NONE, ABSENT].contains(&text) { text.to_owned() } else { format!("`{text}`") }
}

/// The page.
pub(in super::super) fn render(facts: &Facts) -> String {
    let mut page = format!("{HEAD}\n{LOCKS}\n{LOCKS_HEAD}");
    for (name, kernels, lock) in rows(facts, false, |kernel| &kernel.locks) {
        let Lock { watched, symbol, kind, method, by_text } = lock;
        let watched = if watched { "yes" } else { "no" };
        let (kernels, symbol) = (kernels_cell(&kernels), code(&symbol));
        let _ = writeln!(
            page,
            "| `{name}` | {kernels} | {watched} | {symbol} | {kind} | {method} | {by_text} |"
        );
    }
    let _ = write!(page, "\n{HOOKS}\n{HOOKS_HEAD}");
    for (hooks, kernels, backend) in merged(rows(facts, true, |kernel| &kernel.hooks)) {
        let hooks: Vec<_> = hooks.iter().map(|hook| code(hook)).collect();
        let _ = writeln!(page, "| {} | {} | {backend} |", hooks.join(", "), kernels_cell(&kernels));
    }
    let without: Vec<_> = facts
        .iter()
        .filter(|(_, kernel)| kernel.hooks.is_empty())
        .map(|(s, _)| s.clone())
        .collect();
    if !without.is_empty() {
        let _ = writeln!(page, "| {NONE} | {} | {NONE} |", kernels_cell(&without));
    }
    let _ = write!(page, "\n{FORCED}\n{FORCED_HEAD}");
    for (backend, kernels, hooks) in rows(facts, false, |kernel| &kernel.forced) {
        let _ = writeln!(page, "| `{backend}` | {} | {hooks} |", kernels_cell(&kernels));
    }
    page
}

/// Reads a page.
///
/// # Errors
/// When a row is not as [`render`] writes them.
pub(in super::super) fn parse(page: &str) -> Result<Facts> {
    let mut facts = Facts::new();
    let (mut section, mut in_table) = ("", false);
    for line in page.lines() {
        if line.starts_with("## ") {
            section = line;
        }
        // After the head of a table comes a row of dashes, then what it says.
        let was_in_table = in_table;
        in_table = line.starts_with("| --- ") || (was_in_table && line.starts_with("| "));
        if was_in_table && in_table {
            row(&mut facts, section, line).with_context(|| format!("not a row: {line}"))?;
        }
    }
    for kernel in facts.values_mut() {
        kernel.hooks.sort();
    }
    Ok(facts)
}

fn row(facts: &mut Facts, section: &str, line: &str) -> Result<()> {
    let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [name, kernels, ref what @ ..] = cells[..] else { bail!("it has too few cells") };
    let plain = |text: &str| text.trim_matches('`').to_owned();
    for series in kernels.split(", ") {
        let kernel = facts.entry(Series::parse(series)?).or_default();
        match (section, what) {
            (LOCKS, [watched, symbol, kind, method, by_text]) => {
                let lock = Lock {
                    watched: match *watched {
                        "yes" => true,
                        "no" => false,
                        other => bail!("watched is `yes` or `no`, not `{other}`"),
                    },
                    symbol: plain(symbol),
                    kind: plain(kind),
                    method: plain(method),
                    by_text: plain(by_text),
                };
                kernel.locks.push((plain(name), lock));
            }
            // The kernels where nothing attaches.
            (HOOKS, [NONE]) if name == NONE => {}
            (HOOKS, [backend]) => {
                let hooks = name.split(", ").map(|hook| (plain(hook), plain(backend)));
                kernel.hooks.extend(hooks);
            }
            (FORCED, [hooks]) => kernel.forced.push((plain(name), (*hooks).to_owned())),
            _ => bail!("`{section}` has no such cells"),
        }
    }
    Ok(())
}
