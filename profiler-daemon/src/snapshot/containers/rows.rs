//! What waiters and blockers have in common, as rows of a snapshot.

use crate::locks::Mode;
use crate::snapshot::{Basis, Container, Party, Snapshot, Who};

/// Which side of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Waiter,
    Blocker,
}

impl Role {
    pub(super) const ALL: [Self; 2] = [Self::Waiter, Self::Blocker];
}

/// A row of one role.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) lock: &'a str,
    how: How,
    call: Option<&'a str>,
    party: &'a Party,
    pub(super) ns: u64,
}

/// What tells rows of one party, lock and call apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum How {
    Waited(Option<Mode>),
    Blocked(Basis),
}

/// What a row keeps while more becomes known of its cgroup.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Key<'a> {
    lock: &'a str,
    how: How,
    call: Option<&'a str>,
    task: &'a str,
    cgroup: u64,
}

/// Whose time a row is.
pub(super) enum Group<'a> {
    Container(&'a Container),
    /// Tasks in no container.
    None,
    /// It cannot be told.
    Unknown,
}

impl<'a> Row<'a> {
    /// `None` for rows that are nobody's in particular.
    pub(super) fn key(&self) -> Option<Key<'a>> {
        let who = self.party.who()?;
        let cgroup = who.cgroup.as_ref()?.id;
        let Self { lock, how, call, .. } = *self;
        Some(Key { lock, how, call, task: who.task.as_str(), cgroup })
    }

    pub(super) fn group(&self) -> Group<'a> {
        match self.party.who() {
            Some(Who { cgroup: Some(cgroup), .. }) => match &cgroup.container {
                Some(container) => Group::Container(container),
                None if cgroup.path.as_str().is_empty() => Group::Unknown,
                None => Group::None,
            },
            _ => Group::Unknown,
        }
    }
}

/// The rows of `role`.
pub(super) fn of(snapshot: &Snapshot, role: Role) -> Box<dyn Iterator<Item = Row<'_>> + '_> {
    match role {
        Role::Waiter => Box::new(snapshot.waiters.iter().map(|row| Row {
            lock: &row.lock,
            how: How::Waited(row.mode),
            call: row.call.as_deref(),
            party: &row.party,
            ns: row.waits.sum_ns,
        })),
        Role::Blocker => Box::new(snapshot.blockers.iter().map(|row| Row {
            lock: &row.lock,
            how: How::Blocked(row.basis),
            call: row.call.as_deref(),
            party: &row.party,
            ns: row.waits.sum_ns,
        })),
    }
}
