//! Addresses of locks from kernel text: the address that a function loads
//! before it calls one that takes a lock of the right kind.
//!
//! Functions of the catalogue are decoded independently; whatever they say has
//! to agree. No answer is better than a guess.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::by_symbol::{self, Found};
use super::catalogue::{Candidate, Entry, Passed, Site, lock_functions};
use super::{LockKind, resolve::chain};
use crate::kernel::btf::{Btf, BtfError};
use crate::kernel::decode::{self, Arch, Event};
use crate::kernel::kallsyms::{Kallsyms, Symbol};
use crate::kernel::text::TextSource;

/// Longest function that is decoded, in bytes: the largest of the catalogue
/// has 8 KiB.
const LONGEST_FUNCTION: u64 = 64 * 1024;

/// How far above `_text` the image can end: KERNEL_IMAGE_SIZE of x86-64
/// (arch/x86/include/asm/page_64_types.h); arm64 images are smaller.
const IMAGE_SIZE: u64 = 1 << 30;

/// The running kernel's text, decoded function by function when asked.
pub(super) struct DecodedText<'a> {
    arch: Arch,
    source: &'a dyn TextSource,
    symbols: &'a Kallsyms,
    decoded: BTreeMap<u64, Result<Rc<[Event]>, String>>,
}

impl<'a> DecodedText<'a> {
    pub(super) fn new(arch: Arch, source: &'a dyn TextSource, symbols: &'a Kallsyms) -> Self {
        Self { arch, source, symbols, decoded: BTreeMap::new() }
    }

    /// Finds a lock of the catalogue.
    ///
    /// # Errors
    ///
    /// Why not, for each thing tried.
    pub(super) fn find(
        &mut self,
        entry: &Entry,
        btf: &Result<Btf, BtfError>,
    ) -> Result<Found, Vec<String>> {
        let mut reasons = Vec::new();
        let mut all_found: Vec<Found> = Vec::new();
        for candidate in entry.candidates {
            if candidate.text.is_empty() {
                continue;
            }
            match self.candidate(candidate, btf) {
                Ok(found) => all_found.push(found),
                Err(whys) => reasons.extend(whys),
            }
        }
        match all_found.as_slice() {
            [] => Err(reasons),
            [first, others @ ..]
                if others.iter().all(|o| (o.address, o.kind) == (first.address, first.kind)) =>
            {
                Ok(first.clone())
            }
            several => {
                let list: Vec<_> = several
                    .iter()
                    .map(|f| format!("{} `{}` at {:#x}", f.kind, f.symbol, f.address))
                    .collect();
                Err(vec![format!("text fits several locks: {}", list.join(", "))])
            }
        }
    }

    fn candidate(
        &mut self,
        candidate: &Candidate,
        btf: &Result<Btf, BtfError>,
    ) -> Result<Found, Vec<String>> {
        let offset = by_symbol::offset(candidate, btf);
        let mut reasons = Vec::new();
        let mut passed = Vec::new();
        let mut inlined = Vec::new();
        for site in candidate.text {
            match self.site(site, candidate.kind) {
                Ok((calls, atomics)) => {
                    // A function that is handed an object: the lock is inside.
                    let offset = match (site.passed, &offset) {
                        (Passed::Lock, _) => 0,
                        (Passed::Object(..), Ok(offset)) => *offset,
                        (Passed::Object(..), Err(why)) => {
                            reasons.push(why.clone());
                            continue;
                        }
                    };
                    let sane = |addresses: BTreeSet<u64>| -> BTreeSet<u64> {
                        addresses
                            .into_iter()
                            .map(|address| address.wrapping_add(offset))
                            .filter(|address| self.may_be_lock(*address, candidate.kind))
                            .collect()
                    };
                    let (calls, atomics) = (sane(calls), sane(atomics));
                    if calls.is_empty() {
                        reasons.push(format!(
                            "`{}` passes no constant address to {}",
                            site.function,
                            describe(site.passed, candidate.kind)
                        ));
                    } else {
                        passed.push((site.function, calls));
                    }
                    if !atomics.is_empty() && site.passed == Passed::Lock {
                        inlined.push((site.function, atomics));
                    }
                }
                Err(why) => reasons.push(why),
            }
        }
        // An inlined fast path looks like any other atomic operation: it only
        // counts when two functions agree on it.
        let evidence = if passed.is_empty() && inlined.len() > 1 { inlined } else { passed };
        match agreed(&evidence) {
            Ok(Some(address)) => {
                Ok(Found { symbol: by_symbol::path(candidate), kind: candidate.kind, address })
            }
            Ok(None) => Err(reasons),
            Err(why) => Err(vec![format!("`{}`: {why}", candidate.symbol)]),
        }
    }

    /// Constants that the site passes, and those that it changes atomically.
    fn site(
        &mut self,
        site: &Site,
        kind: LockKind,
    ) -> Result<(BTreeSet<u64>, BTreeSet<u64>), String> {
        let (callees, argument) = match site.passed {
            Passed::Lock => (lock_functions(kind), 0),
            Passed::Object(callees, argument) => (callees, argument),
        };
        let symbols = self.symbols;
        let callees: BTreeSet<u64> =
            callees.iter().flat_map(|name| symbols.get(name)).map(|s| s.address).collect();
        let (mut calls, mut atomics) = (BTreeSet::new(), BTreeSet::new());
        let mut any = false;
        for (name, symbol) in symbols.functions(site.function) {
            any = true;
            for event in self.events(name, symbol)?.iter() {
                match *event {
                    Event::Call { target, arguments, .. } if callees.contains(&target) => {
                        calls.extend(arguments.get(argument).copied().flatten());
                    }
                    Event::Atomic { address, .. } => {
                        atomics.insert(address);
                    }
                    Event::Call { .. } => {}
                }
            }
        }
        if any { Ok((calls, atomics)) } else { Err(format!("no function `{}`", site.function)) }
    }

    /// What the function does with constants; decoded once.
    fn events(&mut self, name: &str, symbol: &Symbol) -> Result<Rc<[Event]>, String> {
        let (arch, source) = (self.arch, self.source);
        let start = symbol.address;
        let decode = || {
            let len = symbol.end.map_or(0, |end| end - start);
            if len == 0 || len > LONGEST_FUNCTION {
                return Err(format!("`{name}` has no plausible end"));
            }
            let len = usize::try_from(len).map_err(|error| error.to_string())?;
            let bytes = source.read(start, len).map_err(|error| chain(&error))?;
            let events = decode::decode(arch, &bytes, start);
            let constant = |event: &Event| match event {
                Event::Call { arguments, .. } => arguments.iter().any(Option::is_some),
                Event::Atomic { .. } => true,
            };
            Ok(events.into_iter().filter(constant).collect())
        };
        self.decoded.entry(start).or_insert_with(decode).clone()
    }

    /// Whether a lock of `kind` can be at `address`: in the kernel image, not
    /// in its text, and aligned as the C type is.
    fn may_be_lock(&self, address: u64, kind: LockKind) -> bool {
        let alignment = match kind {
            LockKind::Spinlock | LockKind::Rwlock => 4,
            LockKind::Rwsem | LockKind::Mutex => 8,
        };
        let start = self.symbols.text().start;
        (start..start.saturating_add(IMAGE_SIZE)).contains(&address)
            && !self.symbols.is_text(address)
            && address.is_multiple_of(alignment)
    }
}

/// The one address that all functions have in common; `None` without any
/// evidence.
fn agreed(evidence: &[(&'static str, BTreeSet<u64>)]) -> Result<Option<u64>, String> {
    let mut sets = evidence.iter().map(|(_, addresses)| addresses);
    let Some(first) = sets.next() else { return Ok(None) };
    let common = sets.fold(first.clone(), |common, addresses| &common & addresses);
    if let (1, Some(address)) = (common.len(), common.first()) {
        return Ok(Some(*address));
    }
    let list: Vec<_> = evidence
        .iter()
        .map(|(function, addresses)| {
            let addresses: Vec<_> = addresses.iter().map(|a| format!("{a:#x}")).collect();
            format!("`{function}` takes {}", addresses.join(" and "))
        })
        .collect();
    let verdict =
        if common.is_empty() { "do not agree" } else { "have more than one lock in common" };
    Err(format!("functions {verdict}: {}", list.join(", ")))
}

fn describe(passed: Passed, kind: LockKind) -> String {
    match passed {
        Passed::Lock => format!("a function that takes a {kind}"),
        Passed::Object(callees, _) => format!("`{}`", callees.join("` or `")),
    }
}
