//! Findings: what a window of figures says is wrong, why, and what to do.
//!
//! In: a [`Snapshot`] of a window. Out: [`Finding`]s. Pure rules, one function
//! each; nothing here reads the machine.

use serde::Serialize;

use crate::snapshot::Snapshot;

/// Something that the figures of a window say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Name of the [`Rule`]: its section in `docs/patterns.md`.
    pub rule: &'static str,
    /// What is the case, in one sentence with the names that it is about.
    pub title: String,
    /// The figures that triggered it, each with its unit: `("tmpfs superblocks
    /// per start", "96")`.
    pub figures: Vec<(String, String)>,
    /// Why the kernel behaves like that.
    pub cause: &'static str,
    /// What to change.
    pub remedy: String,
    /// Share of the time waited in the window that it is about, 0 to 1; findings
    /// are shown in falling order of it.
    pub weight: f64,
}

/// A rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name, in kebab case.
    pub name: &'static str,
    /// What it finds in a window.
    pub check: fn(&Snapshot) -> Option<Finding>,
}

/// All rules.
pub const RULES: &[Rule] = &[];

/// What the rules find in `window`, weightiest first.
pub fn findings(window: &Snapshot) -> Vec<Finding> {
    let mut found: Vec<_> = RULES.iter().filter_map(|rule| (rule.check)(window)).collect();
    found.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    found
}
