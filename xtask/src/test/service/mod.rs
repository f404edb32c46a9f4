//! Tests of the installed package: in a machine that is a whole Debian with
//! systemd as the first process, the package is installed, and then operated.
//!
//! The tests are [`cases`], run inside by `xtask service-tests` ([`guest`]).

mod cases;
pub(crate) mod guest;
mod kernel;
mod metrics;
mod system;

use std::path::{Path, PathBuf};

use super::package;
use crate::debian_root;
use crate::shell;
use crate::vm::debian::{MEMORY, Root};
use crate::vm::image::Contents;
use crate::vm::kernels::USUAL;
use crate::vm::machine::Machine;
use crate::vm::plan::{INIT, Plan, Step};

/// Where the package is in the machine.
const DEB: &str = "/lockprof-vm/lockprof.deb";

/// The kernels that it is tried on: where bpf(2) counts arrays against the limit
/// of locked memory, the suite's own, the usual one, and the newest.
const KERNELS: [&str; 4] = ["5.10", "6.1", USUAL, "7.3"];

/// The machine: two CPUs are enough for one to wait for the other.
pub(super) const MACHINE: Machine = Machine { nodes: 1, cpus: 2, memory: MEMORY };

/// What is tried, and where.
#[derive(Debug)]
pub(super) struct Services {
    /// Series.
    pub(super) kernels: Vec<&'static str>,
    /// The package.
    pub(super) package: Result<PathBuf, Missing>,
    /// Only tests whose names contain one of these; all if there is none.
    pub(super) filters: Vec<String>,
}

/// Why there is nothing to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// This machine cannot do it.
    Refused(String),
    /// The package cannot be made.
    Failed(String),
}

impl Services {
    /// Makes the package, if it is not given and anything is to be tried.
    pub(super) fn prepare(
        kernels: Vec<&'static str>,
        given: Option<&Path>,
        filters: &[String],
    ) -> Self {
        let package = match (refused(), given) {
            (Some(why), _) => Err(Missing::Refused(why)),
            (None, Some(file)) if file.is_file() => Ok(file.to_owned()),
            (None, Some(file)) => Err(Missing::Failed(format!("{} is no file", file.display()))),
            (None, None) if kernels.is_empty() => Err(Missing::Refused("no kernel".into())),
            (None, None) => {
                package::debian().map_err(|error| Missing::Failed(format!("{error:#}")))
            }
        };
        Self { kernels, package, filters: filters.to_vec() }
    }
}

/// On which kernels the tests are run: on those that are named, on all with
/// `all`, else on the usual one.
pub(super) fn choose(all: bool, named: &[String]) -> Vec<&'static str> {
    let wanted = |kernel: &&str| match named {
        [] => all || *kernel == USUAL,
        named => named.iter().any(|name| name == kernel),
    };
    KERNELS.into_iter().filter(wanted).collect()
}

/// What the machine does.
pub(super) fn plan(filters: &[String]) -> Plan {
    let mut command = vec![INIT.to_owned(), "service-tests".to_owned()];
    command.extend_from_slice(filters);
    let step = Step { name: "service".into(), command, folder: "/root".into(), ..Step::default() };
    Plan { steps: vec![step], collect: None }
}

/// What is in the machine.
///
/// # Errors
/// When there can be no Debian root.
pub(super) fn contents(deb: &Path, modules: Vec<PathBuf>) -> anyhow::Result<Contents> {
    let root = Root {
        folder: debian_root::root(debian_root::USUAL)?,
        files: vec![(DEB.into(), deb.to_owned())],
        programs: shell::find("bpftool").into_iter().collect(),
    };
    Ok(Contents { modules, root: Some(root), ..Contents::default() })
}

/// Why there is no such machine here, if there is none.
fn refused() -> Option<String> {
    if shell::find("bpftool").is_none() {
        return Some("bpftool, which tells what is attached, is missing".into());
    }
    debian_root::refused().unwrap_or_else(|error| Some(format!("{error:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_of_it_is_in_the_matrix_and_one_is_usual() {
        for kernel in KERNELS {
            assert!(crate::vm::kernels::SERIES.iter().any(|series| series.name == kernel));
        }
        assert_eq!(choose(false, &[]), [USUAL]);
        assert_eq!(choose(true, &[]), KERNELS);
        assert_eq!(choose(false, &["6.1".into(), "7.0".into()]), ["6.1"]);
        MACHINE.check().unwrap();
    }

    #[test]
    fn no_two_tests_have_the_same_name() {
        let mut names: Vec<_> = cases::all().map(|case| case.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
