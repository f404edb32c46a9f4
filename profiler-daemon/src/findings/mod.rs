//! Findings: what a window of figures says is wrong, why, and what to do.
//!
//! In: a [`Snapshot`] of a window. Out: [`Finding`]s. Pure rules, one function
//! each; nothing here reads the machine. Each rule has its section in
//! `docs/patterns.md`, where the same figures are asked of Prometheus.

mod calls;
mod cpu;
mod locks;
mod mountinfo;
mod superblocks;
mod tables;
pub mod text;
mod trust;
mod window;

#[cfg(test)]
pub(crate) mod example;

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
    /// are shown in falling order of it. A wait that does not end, and figures
    /// that are not to be trusted, are about all of it.
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

/// All rules. Of findings with the same weight, the rule that is named first
/// comes first.
pub const RULES: &[Rule] = &[
    Rule { name: trust::HANGING, check: trust::hanging },
    Rule { name: trust::INCOMPLETE, check: trust::incomplete },
    Rule { name: mountinfo::PER_START, check: mountinfo::per_start },
    Rule { name: mountinfo::LOAD, check: mountinfo::load },
    Rule { name: mountinfo::OLD_KERNEL, check: mountinfo::old_kernel },
    Rule { name: superblocks::SHRINKERS, check: superblocks::shrinkers },
    Rule { name: calls::LEGACY_MOUNT, check: calls::legacy_mount },
    Rule { name: tables::COPIES, check: tables::copies },
    Rule { name: calls::PIVOT_ROOT, check: calls::pivot_root },
    Rule { name: calls::GRACE_PERIODS, check: calls::grace_periods },
    Rule { name: locks::ONE_BLOCKER, check: locks::one_blocker },
    Rule { name: locks::REMOTE_HANDOFFS, check: locks::remote_handoffs },
    Rule { name: cpu::SEQUENCE_COUNT, check: cpu::sequence_count },
    Rule { name: cpu::OPTIMISTIC, check: cpu::optimistic },
    Rule { name: tables::LARGE, check: tables::large },
];

/// What the rules find in `window`, weightiest first.
pub fn findings(window: &Snapshot) -> Vec<Finding> {
    let mut found: Vec<_> = RULES.iter().filter_map(|rule| (rule.check)(window)).collect();
    found.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::example;

    #[test]
    fn a_quiet_machine_has_no_findings() {
        assert_eq!(findings(&Snapshot::default()), []);
        assert_eq!(findings(&example::quiet()), []);
    }

    #[test]
    fn every_finding_names_its_own_rule_and_weighs_between_nothing_and_all() {
        let window = example::busy();
        let mut fired = 0;
        for rule in RULES {
            let Some(finding) = (rule.check)(&window) else { continue };
            fired += 1;
            assert_eq!(finding.rule, rule.name);
            assert!((0.0..=1.0).contains(&finding.weight), "{finding:?}");
            assert!(!finding.figures.is_empty(), "{}", rule.name);
            assert!(!finding.title.ends_with('.'), "{}", finding.title);
        }
        // The busy example is of a new kernel, so that one rule has no cause.
        assert_eq!(fired, RULES.len() - 1);
    }

    #[test]
    fn the_weightiest_finding_comes_first() {
        let found = findings(&example::busy());
        assert!(found.is_sorted_by(|a, b| a.weight >= b.weight));
        assert_eq!(found[0].rule, trust::HANGING);
    }

    #[test]
    fn names_of_rules_are_in_kebab_case_and_each_their_own() {
        let mut seen = std::collections::BTreeSet::new();
        for rule in RULES {
            assert!(rule.name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", rule.name);
            assert!(seen.insert(rule.name), "{} twice", rule.name);
        }
    }

    #[test]
    fn hostile_names_do_not_reach_a_title_unescaped() {
        let mut window = example::busy();
        let hostile = |party: &mut crate::snapshot::Party| {
            if let crate::snapshot::Party::Task(who) = party {
                who.task = "a\x1b[2J\n\u{202e}b".into();
            }
        };
        window.blockers.iter_mut().for_each(|row| hostile(&mut row.party));
        window.mountinfo_readers.iter_mut().flatten().for_each(|row| hostile(&mut row.party));
        let found = findings(&window);
        assert!(found.iter().any(|f| f.title.contains("a\\x1b[2J\\n")), "{found:?}");
        for finding in found {
            assert!(!finding.title.chars().any(char::is_control), "{}", finding.title);
            assert!(!finding.title.contains('\u{202e}'), "{}", finding.title);
        }
    }
}
