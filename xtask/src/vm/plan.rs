//! What a guest has to do: written by the host into the initramfs, read by the
//! guest's init.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where the plan is in the initramfs.
pub(crate) const PLAN: &str = "/lockprof-vm/plan.json";
/// Where the kernel modules are that the init loads.
pub(crate) const MODULES: &str = "/lockprof-vm/modules";
/// Where the init is: xtask itself.
pub(crate) const INIT: &str = "/lockprof-vm/init";

/// Commands that are run one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// In order; each is run whatever became of the one before it.
    pub(crate) steps: Vec<Step>,
    /// A file that is sent to the host after each step, if it exists, and
    /// removed.
    pub(crate) collect: Option<String>,
}

/// One command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// What the host calls it.
    pub(crate) name: String,
    /// Program, found on the guest's PATH, and arguments.
    pub(crate) command: Vec<String>,
    /// Variables beyond PATH and HOME.
    pub(crate) env: BTreeMap<String, String>,
    /// Where it is run.
    pub(crate) folder: String,
}

/// PATH of the steps.
pub(crate) const PATH: &str = "/bin:/sbin:/usr/bin:/usr/sbin:/usr/local/bin";
