//! `docs/kernels.md`: what `lockprof doctor` finds on each kernel of the matrix.
//!
//! In: the reports that guests gave. Out: the page. The page is read back as
//! well, so that a run on a part of the kernels compares that part. It speaks of
//! series (6.12) and has neither addresses nor releases, so it changes only when
//! lockprof or a kernel does.

mod page;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::Value;

pub(super) use page::{parse, render};

/// What is known, by series.
pub(super) type Facts = BTreeMap<Series, Kernel>;

/// A series, ordered by number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series(Vec<u32>);

/// What `doctor` found on one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kernel {
    /// Logical name of a lock, and how it was found, in the catalogue's order.
    locks: Vec<(String, Lock)>,
    /// Name of a hook, and its backend, [`NONE`] or [`ABSENT`]; by name.
    hooks: Vec<(String, String)>,
    /// A backend that was forced (`waits=raw_tp`), and which hooks attached by it.
    forced: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Lock {
    /// Whether it is watched unless the user says otherwise.
    watched: bool,
    /// Or [`NONE`] or [`ABSENT`].
    symbol: String,
    kind: String,
    method: String,
    /// [`SAME`] if kernel text alone tells the same symbol and kind, or the same
    /// absence; else what it tells.
    by_text: String,
}

/// Of what was not found, or does not attach.
const NONE: &str = "-";
/// Of what the kernel does not have.
const ABSENT: &str = "absent";
const SAME: &str = "same";

/// Asks `doctor` for the column `by text`.
const BY_TEXT: &str = "--without-data-symbols";

/// Backends that can be forced, in the order of the page.
const FORCED: [&str; 7] = [
    "waits=tp_btf",
    "waits=raw_tp",
    "waits=fentry",
    "waits=kprobe",
    "calls=fentry",
    "calls=kprobe",
    "calls=tracepoint",
];

/// The runs of `doctor --json` that the page is made from: the arguments of
/// each beyond `--json`.
pub(super) fn runs() -> impl Iterator<Item = String> {
    let forced = FORCED.iter().map(|backend| format!("--backend {backend}"));
    [String::new(), BY_TEXT.to_owned()].into_iter().chain(forced)
}

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
    /// From what each of [`runs`] printed, asked for by its arguments.
    ///
    /// # Errors
    /// When one of them is not such a report.
    pub(super) fn from_doctor(printed: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let report = |arguments: &str| {
            let json = printed(arguments)
                .with_context(|| format!("`doctor --json {arguments}` was not run"))?;
            serde_json::from_str::<Value>(&json)
                .with_context(|| format!("what `doctor --json {arguments}` printed is no JSON"))
        };
        let usual = report("")?;
        let mut hooks: Vec<_> =
            list(&usual, "hooks")?.iter().map(|row| (text(row, "hook"), backend(row))).collect();
        hooks.sort();
        let forced = FORCED.into_iter().map(|name| {
            let report = report(&format!("--backend {name}"))?;
            Ok((name.to_owned(), attached(name, list(&report, "hooks")?)))
        });
        Ok(Self {
            locks: locks(&usual, &report(BY_TEXT)?)?,
            hooks,
            forced: forced.collect::<Result<_>>()?,
        })
    }
}

fn list<'a>(report: &'a Value, name: &str) -> Result<&'a Vec<Value>> {
    report[name].as_array().with_context(|| format!("the report has no list `{name}`"))
}

fn text(row: &Value, key: &str) -> String {
    match row[key].as_str() {
        Some("none") | None => NONE.to_owned(),
        Some(text) => text.to_owned(),
    }
}

fn locks(usual: &Value, by_text: &Value) -> Result<Vec<(String, Lock)>> {
    let by_text = list(by_text, "locks")?;
    let symbol = |row: &Value| match row["absent"].as_bool() {
        Some(true) => ABSENT.to_owned(),
        _ => text(row, "symbol"),
    };
    let lock = |row: &Value| {
        let name = text(row, "lock");
        let (symbol_here, kind) = (symbol(row), text(row, "kind"));
        let other = by_text
            .iter()
            .find(|other| other["lock"] == row["lock"])
            .with_context(|| format!("the report by text has no lock `{name}`"))?;
        let by_text = match (symbol(other), text(other, "kind")) {
            (symbol, of) if symbol == NONE || (&symbol, &of) != (&symbol_here, &kind) => {
                if of == NONE { symbol } else { format!("{symbol} ({of})") }
            }
            _ => SAME.to_owned(),
        };
        let watched = row["watched"]
            .as_bool()
            .with_context(|| format!("the report does not say whether `{name}` is watched"))?;
        let method = text(row, "method");
        Ok((name, Lock { watched, symbol: symbol_here, kind, method, by_text }))
    };
    list(usual, "locks")?.iter().map(lock).collect()
}

fn backend(hook: &Value) -> String {
    match hook["absent"].as_bool() {
        Some(true) => ABSENT.to_owned(),
        _ => text(hook, "backend"),
    }
}

/// Which of the hooks attached that are what the backend `forced` is for: those
/// of lock waits, or those of mount calls.
fn attached(forced: &str, hooks: &[Value]) -> String {
    let (family, _) = forced.split_once('=').unwrap_or((forced, ""));
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for hook in hooks {
        let (name, backend) = (text(hook, "hook"), backend(hook));
        if text(hook, "family") != family || backend == ABSENT {
            continue;
        }
        if backend == NONE { &mut without } else { &mut with }.push(format!("`{name}`"));
    }
    for names in [&mut with, &mut without] {
        names.sort();
    }
    match (with.len(), without.len()) {
        (0, _) => NONE.to_owned(),
        (_, 0) => "all".to_owned(),
        (some, others) if some > others => format!("all but {}", without.join(", ")),
        _ => format!("only {}", with.join(", ")),
    }
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
        differ(&mut lines, &format!("{name}: forced"), &written.forced, &kernel.forced);
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
