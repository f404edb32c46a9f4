//! Addresses of locks from a table of data symbols: `/proc/kallsyms` or a
//! System.map.

use super::LockKind;
use super::catalogue::{Candidate, Member};
use super::choices::Wanted;
use crate::kernel::btf::{Btf, BtfError};

/// A lock as found by any method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) symbol: String,
    pub(super) kind: LockKind,
    pub(super) address: u64,
}

/// Finds `wanted` by `addresses`, which tells where the kernel image has data
/// of some name.
///
/// # Errors
///
/// Why not, for each thing tried.
pub(super) fn find(
    wanted: &Wanted<'_>,
    addresses: impl Fn(&str) -> Vec<u64>,
    btf: &Result<Btf, BtfError>,
) -> Result<Found, Vec<String>> {
    let one = |symbol: &str| match addresses(symbol).as_slice() {
        [] => Err(format!("no data symbol `{symbol}`")),
        [address] => Ok(*address),
        several => {
            let list: Vec<_> = several.iter().map(|a| format!("{a:#x}")).collect();
            let (count, list) = (several.len(), list.join(", "));
            Err(format!("{count} data symbols are called `{symbol}`: {list}"))
        }
    };
    match *wanted {
        Wanted::Custom { symbol, offset, kind, .. } => {
            let address = one(symbol).map_err(|why| vec![why])? + offset;
            let symbol =
                if offset == 0 { symbol.to_owned() } else { format!("{symbol}+{offset:#x}") };
            Ok(Found { symbol, kind, address })
        }
        Wanted::Known(entry) => {
            let mut reasons = Vec::new();
            for candidate in entry.candidates {
                let found = one(candidate.symbol).and_then(|object| {
                    if let Some(beside) = candidate.beside.filter(|name| addresses(name).is_empty())
                    {
                        let symbol = candidate.symbol;
                        return Err(format!("`{symbol}` is not beside a `{beside}`"));
                    }
                    let address = object + offset(candidate, btf)?;
                    Ok(Found { symbol: path(candidate), kind: candidate.kind, address })
                });
                match found {
                    Ok(found) => return Ok(found),
                    Err(why) => reasons.push(why),
                }
            }
            reasons.dedup();
            Err(reasons)
        }
    }
}

/// Offset of the lock inside the candidate's object.
pub(super) fn offset(candidate: &Candidate, btf: &Result<Btf, BtfError>) -> Result<u64, String> {
    match candidate.member {
        Member::Whole | Member::First(_) => Ok(0),
        Member::Btf { of, path } => match btf {
            Ok(btf) => btf.offset(of, path).map(u64::from).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// Symbol and member, as C would write it.
pub(super) fn path(candidate: &Candidate) -> String {
    match candidate.member {
        Member::Whole => candidate.symbol.to_owned(),
        Member::First(path) | Member::Btf { path, .. } => format!("{}.{path}", candidate.symbol),
    }
}
