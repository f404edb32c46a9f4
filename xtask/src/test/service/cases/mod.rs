//! The tests, in the order in which they are run: installed first, purged last.

mod access;
mod drop_ins;
mod installed;
mod measured;
mod package;
mod reloaded;
mod restarted;
mod socket;

use super::guest::Case;

/// The one that all others come after.
pub(super) const FIRST: &str = installed::CASES[0].name;

/// All of them.
pub(super) fn all() -> impl Iterator<Item = &'static Case> {
    [
        installed::CASES,
        measured::CASES,
        reloaded::CASES,
        access::CASES,
        restarted::CASES,
        drop_ins::CASES,
        socket::CASES,
        package::CASES,
    ]
    .into_iter()
    .flatten()
}
