//! The load that mount tables are: who reads them, how large they are, and how
//! many superblocks are made.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::attribution::{Charge, subtract};
use super::{Name, Party};

/// Reads of a mount table through `/proc` by one party.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountinfoReader {
    /// `mountinfo`, `mounts` or `mountstats`.
    pub file: String,
    /// Who.
    #[serde(flatten)]
    pub party: Party,
    /// How often they opened one.
    pub opens: u64,
    /// Mounts that were written out to them.
    pub entries: u64,
    /// Their reads: how many `read(2)` calls, and how long these took.
    #[serde(flatten)]
    pub reads: Charge,
}

/// The mount namespaces that tasks are in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountTables {
    /// How many.
    pub namespaces: u64,
    /// Mounts in all of them together.
    pub mounts: u64,
    /// Those with the most mounts, largest first.
    pub largest: Vec<MountTable>,
    /// How long ago this was counted, in ns.
    pub age_ns: u64,
}

/// The mounts of one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountTable {
    /// Number of the namespace, as in `/proc/<pid>/ns/mnt`.
    pub namespace: u64,
    /// Mounts in it.
    pub mounts: u64,
    /// Tasks in it.
    pub tasks: u64,
    /// The task in it with the lowest process id.
    pub owner: Party,
}

/// Superblocks that were made of one type of file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superblocks {
    /// Name of the type: `tmpfs`, `overlay`, ...; `other` for those that the
    /// table had no room for.
    pub filesystem: Name,
    /// How many.
    pub count: u64,
}

/// Readers of a window.
pub(super) fn readers_since(now: &mut Vec<MountinfoReader>, earlier: &[MountinfoReader]) {
    let earlier = &moved(now, earlier);
    subtract(
        now,
        earlier,
        |row| (row.file.clone(), row.party.key()),
        |row, then| {
            row.opens = row.opens.saturating_sub(then.opens);
            row.entries = row.entries.saturating_sub(then.entries);
            row.reads = row.reads.since(then.reads);
        },
        |row| row.opens == 0 && row.reads.count == 0,
    );
}

/// `earlier` with the rows that `now` no longer has where these are since: under
/// what is left of their party ([`Party::Evicted`]).
fn moved(now: &[MountinfoReader], earlier: &[MountinfoReader]) -> Vec<MountinfoReader> {
    let key = |row: &MountinfoReader| (row.file.clone(), row.party.key());
    let there: HashSet<_> = now.iter().map(key).collect();
    let mut rows: BTreeMap<_, MountinfoReader> = BTreeMap::new();
    for row in earlier {
        let party = if there.contains(&key(row)) {
            row.party.clone()
        } else {
            Party::Evicted { runtime: row.party.runtime() }
        };
        let sum = rows.entry((row.file.clone(), party.clone())).or_insert_with(|| {
            let (opens, entries, reads) = (0, 0, Charge::default());
            MountinfoReader { party, opens, entries, reads, ..row.clone() }
        });
        sum.opens += row.opens;
        sum.entries += row.entries;
        sum.reads.add(row.reads);
    }
    rows.into_values().collect()
}

/// Superblocks of a window.
pub(super) fn superblocks_since(now: &mut Vec<Superblocks>, earlier: &[Superblocks]) {
    subtract(
        now,
        earlier,
        |row| row.filesystem.clone(),
        |row, then| row.count = row.count.saturating_sub(then.count),
        |row| row.count == 0,
    );
}
