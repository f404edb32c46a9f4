//! A System.map that the user names: symbols as linked, before the kernel was
//! shifted in memory (KASLR).
//!
//! In: the file and the running kernel's symbols. Out: the same kind of table,
//! shifted. The shift is that of `_text`; every other function that both
//! tables have must be shifted alike, or the map is that of another build.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::kallsyms::{Kallsyms, KallsymsError, Symbol};

/// Functions that have to agree on the shift, beside `_text`.
const WITNESSES: usize = 3;

/// Why a System.map is of no use.
#[derive(Debug, thiserror::Error)]
pub enum SystemMapError {
    /// It cannot be read as a symbol table.
    #[error("failed to use {} as a System.map (some distributions install a stub; the real one is in the kernel's debug package)", path.display())]
    Table {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KallsymsError,
    },
    /// A symbol is missing in one of the tables.
    #[error("{} and the running kernel have too few functions in common to compare them (found {found}, need {WITNESSES} and `_text`); take the whole map from the kernel's debug package", path.display())]
    TooFew {
        /// Which file.
        path: PathBuf,
        /// Functions in both tables.
        found: usize,
    },
    /// The functions disagree on the shift.
    #[error("{} is of another kernel than the running one: by `_text` the shift is {shift:#x}, but `{symbol}` is at {found:#x} instead of {expected:#x}; name the map of this very build", path.display())]
    OtherKernel {
        /// Which file.
        path: PathBuf,
        /// Shift by `_text`.
        shift: u64,
        /// Symbol that differs.
        symbol: String,
        /// Where the map puts it, shifted.
        expected: u64,
        /// Where it is.
        found: u64,
    },
}

/// The symbols of a System.map, shifted to where the running kernel has them.
#[derive(Clone, Debug)]
pub struct SystemMap {
    table: Kallsyms,
    shift: u64,
}

impl SystemMap {
    /// Reads the symbols called one of `names` from the file at `path`.
    ///
    /// `running` has to have been collected with the same names: its functions
    /// are what the shift is checked with.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is of another kernel, or it is too small to
    /// tell.
    pub fn read<'a>(
        path: &Path,
        running: &Kallsyms,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, SystemMapError> {
        let table_error = |source| SystemMapError::Table { path: path.into(), source };
        let file = File::open(path).map_err(|source| {
            table_error(KallsymsError::Read { path: path.display().to_string(), source })
        })?;
        let shown = path.display().to_string();
        let table =
            Kallsyms::collect_from(BufReader::new(file), &shown, names).map_err(table_error)?;

        let too_few = |found| SystemMapError::TooFew { path: path.into(), found };
        let (Some(linked), Some(at)) = (first(&table, "_text"), first(running, "_text")) else {
            return Err(too_few(0));
        };
        let shift = at.wrapping_sub(linked);
        let mut witnesses = 0;
        for (symbol, linked) in table.unique() {
            let [Symbol { address: found, .. }] = *running.get(symbol) else { continue };
            let expected = linked.address.wrapping_add(shift);
            if found != expected {
                return Err(SystemMapError::OtherKernel {
                    path: path.into(),
                    shift,
                    symbol: symbol.escape_debug().to_string(),
                    expected,
                    found,
                });
            }
            let is_bound = matches!(symbol, "_text" | "_stext" | "_etext");
            witnesses += usize::from(!is_bound && running.is_text(found));
        }
        if witnesses < WITNESSES {
            return Err(too_few(witnesses));
        }
        Ok(Self { table, shift })
    }

    /// Addresses in the running kernel of all symbols called `name`.
    pub fn addresses(&self, name: &str) -> impl Iterator<Item = u64> {
        self.table.get(name).iter().map(|symbol| symbol.address.wrapping_add(self.shift))
    }

    /// How far the running kernel is from where it was linked, in bytes,
    /// modulo 2^64.
    pub fn shift(&self) -> u64 {
        self.shift
    }
}

fn first(table: &Kallsyms, name: &str) -> Option<u64> {
    table.get(name).first().map(|symbol| symbol.address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["one", "two", "three", "mount_lock"];
    const MAP: &str = "\
0000000000000000 A some_percpu
ffffffff81000000 T _text
ffffffff81000000 T _stext
ffffffff81000100 T one
ffffffff81000200 t two
ffffffff81000300 t three
ffffffff82000000 T _etext
ffffffff82300780 D mount_lock
";
    const RUNNING: &str = "\
ffffffff93000000 T _text
ffffffff93000000 T _stext
ffffffff93000100 T one
ffffffff93000200 t two
ffffffff93000300 t three
ffffffff94000000 T _etext
";

    fn read(map: &str, running: &str) -> Result<SystemMap, SystemMapError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("System.map");
        std::fs::write(&path, map).unwrap();
        let running = Kallsyms::collect_from(running.as_bytes(), "running", NAMES).unwrap();
        SystemMap::read(&path, &running, NAMES)
    }

    #[test]
    fn symbols_are_shifted_as_the_text_is() {
        let map = read(MAP, RUNNING).unwrap();
        assert_eq!(map.shift(), 0x1200_0000);
        assert_eq!(map.addresses("mount_lock").collect::<Vec<_>>(), [0xffff_ffff_9430_0780]);
    }

    #[test]
    fn a_map_of_another_kernel_is_refused_with_what_differs() {
        let error = read(&MAP.replace("81000200 t two", "81000240 t two"), RUNNING).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("`two` is at 0xffffffff93000200 instead of 0xffffffff93000240"));
        assert!(text.contains("System.map"));
    }

    #[test]
    fn the_stub_that_debian_installs_is_refused_with_where_the_real_one_is() {
        let stub = "ffffffffffffffff B The real System.map is in the -dbg package\n";
        let error = read(stub, RUNNING).unwrap_err();
        assert!(matches!(error, SystemMapError::Table { .. }));
        assert!(error.to_string().contains("debug package"));
    }

    #[test]
    fn a_map_with_too_few_functions_is_refused() {
        let stub = "ffffffff81000000 T _text\nffffffff81000000 T _stext\n\
                    ffffffff82000000 T _etext\nffffffff81000100 T one\n";
        let error = read(stub, RUNNING).unwrap_err();
        assert!(matches!(error, SystemMapError::TooFew { found: 1, .. }), "{error}");
    }

    #[test]
    fn a_missing_map_is_an_error_that_names_it() {
        let running = Kallsyms::collect_from(RUNNING.as_bytes(), "running", NAMES).unwrap();
        let error = SystemMap::read(Path::new("/no/such.map"), &running, NAMES).unwrap_err();
        assert!(error.to_string().contains("/no/such.map"));
    }
}
