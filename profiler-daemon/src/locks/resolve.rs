//! Where the wanted locks are, and what was tried for those not found.
//!
//! In: [`Choices`] and [`Sources`]. Out: one [`Resolution`] per wanted lock.
//! Methods in order: data symbols of the running kernel, data symbols of a
//! System.map that the user names, decoded text. An address that two readings
//! of the facts dispute is not used.

use std::collections::BTreeSet;
use std::error::Error;

use super::by_symbol::{self, Found};
use super::by_text::DecodedText;
use super::catalogue::{Candidate, ENTRIES, Entry, Needs, Passed, lock_functions};
use super::choices::{ChoiceError, Choices, Wanted};
use super::{LockKind, Method, ResolvedLock};
use crate::kernel::btf::{Btf, BtfError};
use crate::kernel::decode::Arch;
use crate::kernel::kallsyms::{Kallsyms, KallsymsError};
use crate::kernel::system_map::{SystemMap, SystemMapError};
use crate::kernel::text::{BpfText, TextError, TextSource};
use crate::kernel::topology::kernel_release;

/// Longest reason, in characters: the kernel's verifier is talkative.
const LONGEST_REASON: usize = 400;

/// What became of a wanted lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Label value.
    pub name: String,
    /// The lock, or why there is none.
    pub outcome: Result<ResolvedLock, Unresolved>,
}

/// Why there is no address.
///
/// Reasons can contain kernel addresses: they are for root on this machine,
/// not for the network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// This kernel does not have the lock. Only said of kernels that the
    /// catalogue tells not to have it, when no method found it either.
    #[error("this kernel has no such lock: {0}")]
    Absent(String),
    /// The kernel may have the lock, but it was not found.
    #[error("not found: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    NotFound(
        /// What was tried, in order, and how it failed.
        Vec<Reason>,
    ),
}

/// How one method failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The method.
    pub method: Method,
    /// How it failed.
    pub why: String,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.method, self.why)
    }
}

/// No wanted lock has a known address, so there is nothing to measure. Holds
/// the reason.
#[derive(Debug, thiserror::Error)]
#[error(
    "none of the wanted locks was found in this kernel ({0}); `lockprof doctor` says what was tried for each"
)]
pub struct NothingToWatch(pub String);

/// Gives access to kernel text; called once, and only if some lock needs it.
pub type OpenText<'a> = Box<dyn Fn() -> Result<Box<dyn TextSource>, TextError> + 'a>;

/// Facts about a kernel. Large; drop it when the locks are resolved.
pub struct Sources<'a> {
    /// Release, as `uname -r` prints it.
    pub release: String,
    /// Symbols, collected with [`symbol_names`].
    pub kallsyms: Result<Kallsyms, KallsymsError>,
    /// The System.map that the user named.
    pub system_map: Option<Result<SystemMap, SystemMapError>>,
    /// Types.
    pub btf: Result<Btf, BtfError>,
    /// Instruction set of the text, if it can be decoded.
    pub arch: Option<Arch>,
    /// The text.
    pub open_text: OpenText<'a>,
    /// False to act as if kallsyms had no data symbols, for tests of the other
    /// methods.
    pub use_data_symbols: bool,
}

impl<'a> Sources<'a> {
    /// The running kernel; `object` is the BPF object, for reading text.
    pub fn of_running_kernel(choices: &Choices, object: &'a [u8]) -> Self {
        let names = symbol_names(choices);
        let names = || names.iter().map(String::as_str);
        let kallsyms = Kallsyms::collect(names());
        // Without symbols to compare it with, a map is not used.
        let system_map = match (&choices.system_map, &kallsyms) {
            (Some(path), Ok(kallsyms)) => Some(SystemMap::read(path, kallsyms, names())),
            _ => None,
        };
        Self {
            release: kernel_release(),
            kallsyms,
            system_map,
            btf: Btf::read(),
            arch: Arch::native(),
            open_text: Box::new(|| Ok(Box::new(BpfText::load(object)?))),
            use_data_symbols: true,
        }
    }
}

/// Every symbol that resolution can ask for.
pub fn symbol_names(choices: &Choices) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for function in ENTRIES.iter().filter_map(|entry| entry.needs).flat_map(Needs::functions) {
        names.insert(function);
    }
    for candidate in ENTRIES.iter().flat_map(|entry| entry.candidates) {
        names.insert(candidate.symbol);
        names.extend(candidate.beside);
        for site in candidate.text {
            names.insert(site.function);
            if let Passed::Object(callees, _) = site.passed {
                names.extend(callees);
            }
        }
    }
    names.extend(LockKind::ALL.iter().flat_map(|kind| lock_functions(*kind)));
    for wanted in choices.wanted().iter().flatten() {
        if let Wanted::Custom { symbol, .. } = *wanted {
            names.insert(symbol);
        }
    }
    names.into_iter().map(str::to_owned).collect()
}

/// Finds the locks that `choices` ask for.
///
/// # Errors
///
/// The choices make no sense. A lock that is not found is no error: its
/// [`Resolution`] says why.
pub fn resolve(choices: &Choices, sources: &Sources<'_>) -> Result<Vec<Resolution>, ChoiceError> {
    let wanted = choices.wanted()?;
    let by_symbols: Vec<_> = wanted.iter().map(|lock| by_symbols(lock, sources)).collect();
    let need_text = wanted
        .iter()
        .zip(&by_symbols)
        .any(|(lock, found)| matches!(lock, Wanted::Known(_)) && found.is_err());
    let text = need_text.then(|| (sources.open_text)());
    let mut decoded = match (sources.arch, &text, &sources.kallsyms) {
        (Some(arch), Some(Ok(text)), Ok(symbols)) => {
            Ok(DecodedText::new(arch, text.as_ref(), symbols))
        }
        (None, ..) => Err("kernel text of this architecture cannot be decoded".to_owned()),
        (_, Some(Err(error)), _) => Err(chain(error)),
        (_, _, Err(_)) => Err("kernel text is found by the symbols of kallsyms".to_owned()),
        (_, None, _) => Err("not needed".to_owned()),
    };
    let mut resolutions: Vec<_> = wanted
        .iter()
        .zip(by_symbols)
        .map(|(lock, found)| {
            let outcome = found.or_else(|mut reasons| {
                let found = match (lock, &mut decoded) {
                    (Wanted::Known(entry), Ok(text)) => text.find(entry, &sources.btf),
                    (Wanted::Known(_), Err(why)) => Err(vec![why.clone()]),
                    (Wanted::Custom { symbol, .. }, _) => Err(vec![format!(
                        "`{symbol}` cannot be found there, only locks of the catalogue can; \
                         --system-map may name it"
                    )]),
                };
                found.map(|found| (found, Method::Text)).map_err(|whys| {
                    reasons.push(failed(Method::Text, &whys));
                    reasons
                })
            });
            let name = lock.name().to_owned();
            Resolution {
                outcome: outcome
                    .map(|(Found { symbol, kind, address }, method)| ResolvedLock {
                        name: name.clone(),
                        symbol,
                        kind,
                        address,
                        method,
                    })
                    .map_err(|reasons| match lock {
                        Wanted::Known(entry) => match absent(entry, sources) {
                            Some(why) => Unresolved::Absent(why),
                            None => Unresolved::NotFound(reasons),
                        },
                        Wanted::Custom { .. } => Unresolved::NotFound(reasons),
                    }),
                name,
            }
        })
        .collect();
    refuse_shared_addresses(&mut resolutions);
    Ok(resolutions)
}

/// Why this kernel cannot have a lock that no method found; `None` if it may.
///
/// `/proc/kallsyms` has all functions of the image, so one that it lacks is
/// not there.
fn absent(entry: &Entry, sources: &Sources<'_>) -> Option<String> {
    let kallsyms = sources.kallsyms.as_ref().ok()?;
    let needs = entry.needs?;
    let has_function = |name| kallsyms.functions(name).next().is_some();
    let has_object = |candidate: &Candidate| !kallsyms.get(candidate.symbol).is_empty();
    if needs.functions().any(has_function) || entry.candidates.iter().any(has_object) {
        return None;
    }
    match needs {
        Needs::Linux { version: version @ (major, minor), .. } => {
            (linux_version(&sources.release)? < version)
                .then(|| format!("it came with Linux {major}.{minor}"))
        }
        Needs::Option { name, .. } => Some(format!("it is built without {name}")),
    }
}

/// Major and minor number of a release such as `6.1.0-18-amd64`.
fn linux_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Tries both tables of symbols.
fn by_symbols(wanted: &Wanted<'_>, sources: &Sources<'_>) -> Result<(Found, Method), Vec<Reason>> {
    let mut reasons = Vec::new();
    let kallsyms = match &sources.kallsyms {
        Err(error) => Err(vec![chain(error)]),
        Ok(_) if !sources.use_data_symbols => Err(vec!["data symbols are not used".to_owned()]),
        Ok(kallsyms) if !kallsyms.has_data_symbols() => Err(vec![
            "this kernel's symbol table has functions only (CONFIG_KALLSYMS_ALL is not set)"
                .to_owned(),
        ]),
        Ok(kallsyms) => {
            let addresses = |name: &str| {
                let image = kallsyms.get(name).iter().filter(|symbol| symbol.module.is_none());
                data(image.map(|symbol| symbol.address), kallsyms)
            };
            by_symbol::find(wanted, addresses, &sources.btf)
        }
    };
    match kallsyms {
        Ok(found) => return Ok((found, Method::Kallsyms)),
        Err(whys) => reasons.push(failed(Method::Kallsyms, &whys)),
    }
    match (&sources.system_map, &sources.kallsyms) {
        (Some(Ok(map)), Ok(kallsyms)) => {
            let addresses = |name: &str| data(map.addresses(name), kallsyms);
            match by_symbol::find(wanted, addresses, &sources.btf) {
                Ok(found) => return Ok((found, Method::SystemMap)),
                Err(whys) => reasons.push(failed(Method::SystemMap, &whys)),
            }
        }
        (Some(Err(error)), _) => reasons.push(failed(Method::SystemMap, &[chain(error)])),
        (Some(Ok(_)), Err(_)) | (None, _) => {}
    }
    Err(reasons)
}

/// Distinct addresses in the image that are not code. What lies below the
/// image is no address: per-CPU data are listed by their offset.
fn data(addresses: impl Iterator<Item = u64>, kallsyms: &Kallsyms) -> Vec<u64> {
    let text = kallsyms.text();
    let distinct: BTreeSet<_> =
        addresses.filter(|address| *address >= text.start && !text.contains(address)).collect();
    distinct.into_iter().collect()
}

/// A reason of `method` that lists all of `whys`.
fn failed(method: Method, whys: &[String]) -> Reason {
    let why = if whys.is_empty() {
        "the catalogue knows no function that takes it".to_owned()
    } else {
        whys.join(", ")
    };
    Reason { method, why }
}

/// Two locks cannot share an address: a lock of the user that repeats one of
/// the catalogue is refused, and two decoded ones contradict each other.
fn refuse_shared_addresses(resolutions: &mut [Resolution]) {
    let found: Vec<Option<ResolvedLock>> =
        resolutions.iter().map(|r| r.outcome.as_ref().ok().cloned()).collect();
    for (i, resolution) in resolutions.iter_mut().enumerate() {
        let Ok(lock) = &resolution.outcome else { continue };
        let other = found.iter().enumerate().find(|(j, other)| {
            other.as_ref().is_some_and(|other| {
                let both_decoded = other.method == Method::Text && lock.method == Method::Text;
                other.address == lock.address && (*j < i || *j != i && both_decoded)
            })
        });
        if let Some((_, Some(other))) = other {
            let (address, name) = (lock.address, &other.name);
            let why = format!("its address {address:#x} is that of `{name}` too");
            let reasons = vec![Reason { method: lock.method, why }];
            resolution.outcome = Err(Unresolved::NotFound(reasons));
        }
    }
}

/// The error and what caused it, in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors print their cause themselves.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST_REASON) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests;
