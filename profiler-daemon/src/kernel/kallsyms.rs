//! `/proc/kallsyms`: where the kernel's symbols are.
//!
//! In: the file, or a recording of it, and the names that somebody wants. Out:
//! all symbols of these names. The file has some 120,000 lines; only the
//! wanted ones are kept.
//!
//! The type letter is kept as a fact but says little: from Linux 6.16 on, data
//! symbols can show as `t` and `T`. Whether a symbol is code follows from its
//! address.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::{Bound, Range};

/// Where the running kernel tells its symbols.
pub const KALLSYMS: &str = "/proc/kallsyms";

/// Lines among which one has an address, if any has: the first ones are offsets of
/// per-CPU data, and 0 for one or two of them.
const FIRST: usize = 4096;

/// Whether `/proc/kallsyms` shows addresses to this thread (`kallsyms_show_value` in
/// kernel/ksyms_common.c or kernel/kallsyms.c).
pub fn shows_addresses() -> bool {
    let Ok(table) = File::open(KALLSYMS) else { return false };
    let lines = BufReader::new(table).lines().map_while(Result::ok).take(FIRST);
    lines.filter_map(|line| parse(&line).map(|(address, ..)| address)).any(|address| address != 0)
}

/// Names that are always collected: bounds of the text, and two objects that
/// every kernel has.
const ALWAYS: [&str; 5] = ["_text", "_stext", "_etext", DATA_PROBES[0], DATA_PROBES[1]];
/// The first task's `task_struct` and the lock of the task list.
const DATA_PROBES: [&str; 2] = ["init_task", "tasklist_lock"];

/// Why the symbols cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KallsymsError {
    /// The file could not be read.
    #[error("failed to read {path}; is procfs mounted?")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line is not `address letter name`.
    #[error("line {line} of {path} is no symbol: `{text}`")]
    Line {
        /// Which file.
        path: String,
        /// Number of the line, from 1.
        line: usize,
        /// The line, escaped.
        text: String,
    },
    /// Every address reads as 0.
    #[error(
        "{KALLSYMS} hides addresses; run as root or with CAP_SYSLOG, and check that the sysctl kernel.kptr_restrict is below 2"
    )]
    Hidden,
    /// `_stext` or `_etext` is missing: without them code and data cannot be
    /// told apart.
    #[error(
        "{path} does not tell where the kernel text is (no `{symbol}`); is it a symbol table of a kernel?"
    )]
    NoText {
        /// Which file.
        path: String,
        /// The missing symbol.
        symbol: &'static str,
    },
}

/// One symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its address.
    pub address: u64,
    /// Next higher address of a symbol, where code that starts here ends at the
    /// latest; `None` in modules and for the last symbol.
    pub end: Option<u64>,
    /// Type letter, as `nm` defines it.
    pub letter: char,
    /// Module that it is in; `None` in the kernel image.
    pub module: Option<Box<str>>,
}

/// Symbols of the wanted names.
#[derive(Clone, Debug)]
pub struct Kallsyms {
    symbols: BTreeMap<Box<str>, Vec<Symbol>>,
    text: Range<u64>,
}

impl Kallsyms {
    /// Reads the symbols of the running kernel called one of `names`, or a
    /// name with a suffix that a compiler added for a changed copy
    /// (`exp_funnel_lock.isra.0`).
    ///
    /// # Errors
    ///
    /// The file cannot be read, or hides addresses.
    pub fn collect<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, KallsymsError> {
        let file = File::open(KALLSYMS)
            .map_err(|source| KallsymsError::Read { path: KALLSYMS.into(), source })?;
        Self::collect_from(BufReader::new(file), KALLSYMS, names)
    }

    /// The same from any table of this format; `path` is for messages.
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect), or a line is not a symbol.
    pub fn collect_from<'a>(
        mut table: impl BufRead,
        path: &str,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, KallsymsError> {
        let wanted: BTreeSet<&str> = names.into_iter().chain(ALWAYS).collect();
        let mut symbols: BTreeMap<Box<str>, Vec<Symbol>> = BTreeMap::new();
        // Wanted symbols at the current address: the next higher one ends
        // them. The image's symbols are sorted by address when the kernel is
        // linked (scripts/kallsyms.c, sort_symbols()).
        let mut open: Vec<Box<str>> = Vec::new();
        let mut open_address = 0;
        let (mut any, mut all_zero) = (false, true);
        let mut text = String::new();
        for line in 1.. {
            text.clear();
            let length = table
                .read_line(&mut text)
                .map_err(|source| KallsymsError::Read { path: path.into(), source })?;
            if length == 0 {
                break;
            }
            let (address, letter, name, module) =
                parse(&text).ok_or_else(|| KallsymsError::Line {
                    path: path.into(),
                    line,
                    text: text.trim_end().escape_debug().to_string(),
                })?;
            any = true;
            all_zero &= address == 0;
            if module.is_none() && address > open_address {
                for name in open.drain(..) {
                    for symbol in symbols.get_mut(&name).into_iter().flatten() {
                        if symbol.address == open_address && symbol.module.is_none() {
                            symbol.end = Some(address);
                        }
                    }
                }
            }
            if wanted.contains(name) || wanted.contains(base(name)) {
                if module.is_none() {
                    open.push(name.into());
                    open_address = address;
                }
                symbols.entry(name.into()).or_default().push(Symbol {
                    address,
                    end: None,
                    letter,
                    module: module.map(Into::into),
                });
            }
        }
        if any && all_zero {
            return Err(KallsymsError::Hidden);
        }
        let bound = |symbol: &'static str| {
            symbols
                .get(symbol)
                .and_then(|s| s.first())
                .map(|s| s.address)
                .ok_or(KallsymsError::NoText { path: path.into(), symbol })
        };
        let text = bound("_stext")?..bound("_etext")?;
        Ok(Self { symbols, text })
    }

    /// All symbols called exactly `name`, in the order of the table.
    pub fn get(&self, name: &str) -> &[Symbol] {
        self.symbols.get(name).map_or(&[], Vec::as_slice)
    }

    /// All functions of the image called `name` or `name` with a suffix that
    /// the compiler added, with the name in the table.
    pub fn functions(&self, name: &str) -> impl Iterator<Item = (&str, &Symbol)> {
        self.symbols
            .range::<str, _>((Bound::Included(name), Bound::Unbounded))
            .take_while(move |(full, _)| full.starts_with(name))
            .filter(move |(full, _)| base(full) == name)
            .flat_map(|(full, symbols)| symbols.iter().map(move |symbol| (&**full, symbol)))
            .filter(|(_, symbol)| self.is_text(symbol.address))
    }

    /// All collected symbols that occur once, with their names.
    pub fn unique(&self) -> impl Iterator<Item = (&str, &Symbol)> {
        self.symbols.iter().filter_map(|(name, symbols)| match symbols.as_slice() {
            [symbol] if symbol.module.is_none() => Some((&**name, symbol)),
            _ => None,
        })
    }

    /// Whether `address` is in the image's text, `_stext` to `_etext`.
    pub fn is_text(&self, address: u64) -> bool {
        self.text.contains(&address)
    }

    /// The image's text.
    pub fn text(&self) -> Range<u64> {
        self.text.clone()
    }

    /// Whether the table has data symbols: `CONFIG_KALLSYMS_ALL`.
    pub fn has_data_symbols(&self) -> bool {
        DATA_PROBES.iter().any(|name| !self.get(name).is_empty())
    }
}

/// Name without suffixes that the compiler added.
fn base(name: &str) -> &str {
    name.split_once('.').map_or(name, |(base, _)| base)
}

/// Address, letter, name and module of a line.
pub(super) fn parse(line: &str) -> Option<(u64, char, &str, Option<&str>)> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let letter = words.next()?.chars().next()?;
    let name = words.next()?;
    let module = words.next().map(|word| word.trim_start_matches('[').trim_end_matches(']'));
    Some((address, letter, name, module))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
ffffffff81000000 T _text
ffffffff81000000 T _stext
ffffffff81200000 t grab
ffffffff81200000 t grab_alias
ffffffff81200040 t __pfx_next
ffffffff81200050 t next.isra.0
ffffffff81300000 t grab
ffffffff81300010 T next
ffffffff82000000 T _etext
ffffffff83000000 t some_lock
ffffffffa0000000 t grab\t[nfs]
";

    fn collect(table: &str, names: &[&str]) -> Result<Kallsyms, KallsymsError> {
        Kallsyms::collect_from(table.as_bytes(), "table", names.iter().copied())
    }

    #[test]
    fn every_symbol_of_a_name_is_found_with_its_end() {
        let table = collect(TABLE, &["grab"]).unwrap();
        let found: Vec<_> = table.get("grab").iter().map(|s| (s.address, s.end)).collect();
        assert_eq!(
            found,
            [
                (0xffff_ffff_8120_0000, Some(0xffff_ffff_8120_0040)),
                (0xffff_ffff_8130_0000, Some(0xffff_ffff_8130_0010)),
                (0xffff_ffff_a000_0000, None),
            ]
        );
        assert_eq!(table.get("grab")[2].module.as_deref(), Some("nfs"));
        assert!(table.get("grab_alias").is_empty(), "only wanted names are kept");
    }

    #[test]
    fn copies_that_the_compiler_made_count_as_the_function() {
        let table = collect(TABLE, &["next"]).unwrap();
        let found: Vec<_> = table.functions("next").map(|(name, _)| name).collect();
        assert_eq!(found, ["next", "next.isra.0"]);
        assert_eq!(table.get("next").len(), 1);
    }

    #[test]
    fn data_with_a_text_letter_is_kept_and_is_not_code() {
        let table = collect(TABLE, &["some_lock"]).unwrap();
        let [symbol] = table.get("some_lock") else { panic!("one symbol") };
        assert_eq!(symbol.letter, 't');
        assert!(!table.is_text(symbol.address));
        assert_eq!(table.functions("some_lock").count(), 0);
    }

    #[test]
    fn a_table_with_functions_only_has_no_data_symbols() {
        assert!(!collect(TABLE, &[]).unwrap().has_data_symbols());
        let with = format!("{TABLE}ffffffff83400000 T tasklist_lock\n");
        assert!(collect(&with, &[]).unwrap().has_data_symbols());
    }

    #[test]
    fn hidden_addresses_are_an_error_that_says_what_to_do() {
        let hidden = "0000000000000000 T _stext\n0000000000000000 T _etext\n";
        let error = collect(hidden, &[]).unwrap_err();
        assert!(matches!(error, KallsymsError::Hidden));
        assert!(error.to_string().contains("CAP_SYSLOG"));
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = collect("ffffffff81000000 T _stext\nnonsense\u{1b}\n", &[]).unwrap_err();
        assert_eq!(error.to_string(), r"line 2 of table is no symbol: `nonsense\u{1b}`");
    }

    #[test]
    fn a_table_without_bounds_of_the_text_is_refused() {
        let error = collect("ffffffff81000000 T _stext\n", &[]).unwrap_err();
        assert!(matches!(error, KallsymsError::NoText { symbol: "_etext", .. }));
    }
}
