//! Giving up, for good, every capability that running does not need.

use std::path::Path;

use anyhow::{Context as _, bail};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::commands::needs::Needs;
use crate::kernel::capabilities::ThreadSets;

/// Keeps what `needs` says of the permitted capabilities, drops all others of this
/// thread, and makes sure that no program that it might execute gets any.
///
/// Capabilities belong to threads, and new ones have those of the thread that
/// starts them: this is for the time when there is one alone.
///
/// # Errors
///
/// The kernel refuses, or there is a thread that has more than is kept. The daemon
/// then has to end rather than go on with what it was told to give up.
pub(super) fn give_up(needs: &Needs) -> anyhow::Result<()> {
    let before = capabilities(None).context("failed to read the capabilities of this thread")?;
    let kept = needs.kept_of(before.permitted);
    let failed = "failed to give up privileges, as --drop-privileges demands";
    clear_ambient_capability_set().context(failed)?;
    if before.effective.contains(CapabilitySet::SETPCAP) {
        limit_bounding_set(kept).context(failed)?;
    }
    let after =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, after).context(failed)?;
    set_no_new_privs(true).context(failed)?;
    for (thread, sets) in ThreadSets::of_all_threads(Path::new("/proc"))? {
        let too_much = sets.all().difference(kept);
        if !too_much.is_empty() {
            bail!("{failed}: thread {thread} still has {}", names(too_much));
        }
    }
    let remaining: Vec<_> = needs
        .iter()
        .filter(|need| needs.kept_of(before.permitted).contains(need.capability.set()))
        .map(|need| format!("{} ({})", need.capability.name(), need.what))
        .collect();
    let dropped = names(before.permitted.difference(kept));
    if remaining.is_empty() && kept.is_empty() {
        tracing::info!(dropped, remaining = "none", "gave up privileges");
    } else if remaining.is_empty() {
        tracing::info!(dropped, remaining = names(kept), "gave up privileges");
    } else {
        tracing::info!(dropped, remaining = remaining.join(", "), "gave up privileges");
    }
    Ok(())
}

/// What a program that is executed could ever get. Its highest number is the
/// kernel's.
fn limit_bounding_set(kept: CapabilitySet) -> Result<(), Errno> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // Numbers beyond the last one.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Names as in capabilities(7), or `none`.
fn names(set: CapabilitySet) -> String {
    if set.is_empty() {
        return "none".to_owned();
    }
    let names = set.iter_names().map(|(name, _)| format!("CAP_{name}"));
    let unnamed = set.difference(CapabilitySet::from_iter(set.iter_names().map(|(_, one)| one)));
    let unnamed = (!unnamed.is_empty()).then(|| format!("{:#x}", unnamed.bits()));
    names.chain(unnamed).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_named_and_those_without_a_name_are_not_lost() {
        let set = CapabilitySet::BPF | CapabilitySet::from_bits_retain(1 << 50);
        assert_eq!(names(set), "CAP_BPF,0x4000000000000");
        assert_eq!(names(CapabilitySet::empty()), "none");
    }
}
